package verify

import (
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
		b, err = loose[evidence.Bundle](raw)
	}
	if err != nil {
		return nil, nil, err
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil && !v.on("strict-statement") {
		s, err = loose[evidence.Statement](b.DSSEEnvelope.Payload)
	}
	if err != nil {
		return nil, nil, err
	}
	return b, s, nil
}

// loose is what a careless reader does: it takes the first value and lets everything else pass.
func loose[T any](raw []byte) (*T, error) {
	v := new(T)
	return v, json.Unmarshal(raw, v)
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
