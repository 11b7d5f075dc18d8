package verify

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// open parses a bundle and its statement without checking the signature. Leaving a check out reads the part leniently, as
// encoding/json alone would: what an attack on the strict readers would meet in a verifier without them.
func (v verifier) open(raw []byte) (*evidence.Bundle, *evidence.Statement, error) {
	b, err := evidence.OpenBundle(raw)
	if err != nil && !v.on("strict-bundle") {
		b, err = looseBundle(raw)
	}
	if err != nil {
		return nil, nil, err
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil && !v.on("strict-statement") {
		s = new(evidence.Statement)
		err = loose(b.DSSEEnvelope.Payload, s)
	}
	if err != nil {
		return nil, nil, err
	}
	return b, s, nil
}

// loose is what a careless reader does: it takes the first value, of doubled keys the last one in any case, and lets
// everything else pass.
func loose(raw []byte, v any) error { return json.NewDecoder(bytes.NewReader(raw)).Decode(v) }

func looseBundle(raw []byte) (*evidence.Bundle, error) {
	var x struct {
		MediaType            string                        `json:"mediaType"`
		VerificationMaterial evidence.VerificationMaterial `json:"verificationMaterial"`
		DSSEEnvelope         struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := loose(raw, &x); err != nil {
		return nil, err
	}
	b := &evidence.Bundle{MediaType: x.MediaType, VerificationMaterial: x.VerificationMaterial}
	b.DSSEEnvelope.Payload, b.DSSEEnvelope.PayloadType = x.DSSEEnvelope.Payload, x.DSSEEnvelope.PayloadType
	for _, s := range x.DSSEEnvelope.Signatures {
		b.DSSEEnvelope.Signatures = append(b.DSSEEnvelope.Signatures, evidence.Signature{Sig: s.Sig})
	}
	return b, nil
}

// badBundle finds the reason behind a bundle that could not be read.
func badBundle(err error) *Error {
	if errors.Is(err, evidence.ErrSignatures) {
		return refuse(SeveralSignatures, "%w", err)
	}
	return refuse(BadBundle, "%w", err)
}

// public reads the key of an entry; only ECDSA P-256 and Ed25519 exist.
func (v verifier) public(k trust.Key) (crypto.PublicKey, error) {
	pub, _, err := trust.ParsePublic([]byte(k.Public))
	if err != nil && !v.on("algorithm") {
		block, _ := pem.Decode([]byte(k.Public))
		if block == nil {
			return nil, err
		}
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	return pub, err
}
