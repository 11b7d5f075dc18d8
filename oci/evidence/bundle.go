package evidence

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Bundle is a sigstore bundle v0.3 as data (protobuf-specs, sigstore_bundle.proto, in its JSON form). Only what an
// offline check with a public key reads has a type; log entries and timestamps stay opaque, and oci/verify gives them
// no meaning.
type Bundle struct {
	MediaType            string               `json:"mediaType"`
	VerificationMaterial VerificationMaterial `json:"verificationMaterial"`
	DSSEEnvelope         Envelope             `json:"dsseEnvelope"`
}

// VerificationMaterial holds the hint to the key, or the certificate. Exactly one of the two is present in a valid bundle
// of ours; only PublicKey is read here.
type VerificationMaterial struct {
	PublicKey                 *PublicKeyHint    `json:"publicKey,omitempty"`
	Certificate               json.RawMessage   `json:"certificate,omitempty"`
	X509CertificateChain      json.RawMessage   `json:"x509CertificateChain,omitempty"`
	TlogEntries               []json.RawMessage `json:"tlogEntries,omitempty"`
	TimestampVerificationData json.RawMessage   `json:"timestampVerificationData,omitempty"`
}

// PublicKeyHint names the key: base64 of the SHA-256 of its DER SubjectPublicKeyInfo, as sigstore-go writes it.
type PublicKeyHint struct {
	Hint string `json:"hint"`
}

// Envelope is the DSSE envelope.
type Envelope struct {
	Payload     artifact.Base64 `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []Signature     `json:"signatures"`
}

// Signature is one DSSE signature; KeyID is unauthenticated and not read.
type Signature struct {
	Sig   artifact.Base64 `json:"sig"`
	KeyID string          `json:"keyid,omitempty"`
}

// ParseBundle reads one bundle strictly: the v0.3 media type, a DSSE envelope over in-toto with exactly one signature,
// and a public key hint. It checks no signature. raw larger than artifact.MaxBundle is refused unread.
func ParseBundle(raw []byte) (*Bundle, error) {
	b, err := OpenBundle(raw)
	if err != nil {
		return nil, err
	}
	if b.Certified() {
		return nil, diag.Errorf("bundle is signed with a certificate, not with a key")
	}
	return b, nil
}

// OpenBundle is ParseBundle for bundles with a certificate in place of a public key hint, too.
func OpenBundle(raw []byte) (*Bundle, error) {
	if len(raw) > artifact.MaxBundle {
		return nil, diag.Errorf("bundle of %d bytes is larger than the limit of %d", len(raw), artifact.MaxBundle)
	}
	var b Bundle
	if err := strictjson.Decode(raw, &b); err != nil {
		return nil, diag.Errorf("parse sigstore bundle: %w", err)
	}
	m := b.VerificationMaterial
	switch {
	case b.MediaType != artifact.MediaTypeBundle:
		return nil, diag.Errorf("bundle has media type %q, not %q", b.MediaType, artifact.MediaTypeBundle)
	case m.X509CertificateChain != nil:
		return nil, diag.Errorf("bundle holds a certificate chain, which v0.3 has no place for")
	case m.Certificate != nil && m.PublicKey != nil:
		return nil, diag.Errorf("bundle names a public key and holds a certificate")
	case m.Certificate == nil && m.PublicKey == nil:
		return nil, diag.Errorf("bundle names no public key")
	case b.DSSEEnvelope.PayloadType != PayloadType:
		return nil, diag.Errorf("bundle has payload type %q, not %q", b.DSSEEnvelope.PayloadType, PayloadType)
	case len(b.DSSEEnvelope.Signatures) != 1:
		return nil, diag.Errorf("bundle has %d signatures, %w", len(b.DSSEEnvelope.Signatures), ErrSignatures)
	}
	if _, oms := b.PEMHint(); !oms && !b.Certified() {
		if _, err := b.KeyID(); err != nil {
			return nil, err
		}
	}
	return &b, nil
}

// Certified tells whether the bundle holds a certificate instead of a hint to a key.
func (b *Bundle) Certified() bool { return b.VerificationMaterial.Certificate != nil }

// PEMHint gives the hint of an OMS bundle, which is not the key id but the hex SHA-256 of the key in PEM; false for others.
func (b *Bundle) PEMHint() (string, bool) {
	if b.VerificationMaterial.PublicKey == nil {
		return "", false
	}
	h := b.VerificationMaterial.PublicKey.Hint
	_, err := artifact.ParseDigest("sha256:" + h)
	return h, err == nil
}

// KeyID gives the key id that the hint stands for: lower-case hex of the SHA-256 of the DER SubjectPublicKeyInfo.
func (b *Bundle) KeyID() (string, error) {
	if b.VerificationMaterial.PublicKey == nil {
		return "", diag.Errorf("bundle names no public key")
	}
	d, err := base64.StdEncoding.Strict().DecodeString(b.VerificationMaterial.PublicKey.Hint)
	if err != nil || len(d) != 32 {
		return "", diag.Errorf("public key hint %.80q is not base64 of a SHA-256", b.VerificationMaterial.PublicKey.Hint)
	}
	return hex.EncodeToString(d), nil
}

// EncodeBundle writes the bundle of one in-toto payload and its signature. keyID is hex, as trust.KeyID gives it.
// Equal arguments give equal bytes.
func EncodeBundle(keyID string, payload, sig []byte) ([]byte, error) {
	d, err := hex.DecodeString(keyID)
	if err != nil || len(d) != 32 {
		return nil, diag.Errorf("key id %q is not hex of a SHA-256", keyID)
	}
	return EncodeHinted(base64.StdEncoding.EncodeToString(d), payload, sig)
}

// EncodeHinted is EncodeBundle with a hint of another kind, as OMS has one.
func EncodeHinted(hint string, payload, sig []byte) ([]byte, error) {
	return json.Marshal(Bundle{
		MediaType:            artifact.MediaTypeBundle,
		VerificationMaterial: VerificationMaterial{PublicKey: &PublicKeyHint{Hint: hint}},
		DSSEEnvelope: Envelope{
			Payload:     payload,
			PayloadType: PayloadType,
			Signatures:  []Signature{{Sig: sig}},
		},
	})
}

// Stamped writes the bundle with one more RFC 3161 response over its signature. Equal arguments give equal bytes.
func (b *Bundle) Stamped(response []byte) ([]byte, error) {
	type stamp struct {
		SignedTimestamp artifact.Base64 `json:"signedTimestamp"`
	}
	var data struct {
		Rfc3161Timestamps []stamp `json:"rfc3161Timestamps"`
	}
	c := *b
	if old := c.VerificationMaterial.TimestampVerificationData; old != nil {
		if err := strictjson.Decode(old, &data); err != nil {
			return nil, diag.Errorf("timestamps of the bundle: %w", err)
		}
	}
	data.Rfc3161Timestamps = append(data.Rfc3161Timestamps, stamp{response})
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, diag.Errorf("encode timestamps: %w", err)
	}
	c.VerificationMaterial.TimestampVerificationData = raw
	return json.Marshal(c)
}

// PAE is the pre-authentication encoding of DSSE v1: the bytes that are signed.
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len(payload)+len(payloadType)+32)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}
