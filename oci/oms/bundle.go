package oms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// Method is how a bundle was signed.
type Method string

// Methods.
const (
	MethodKey         Method = "key"
	MethodCertificate Method = "certificate"
	MethodSigstore    Method = "sigstore"
)

// Bundle is a parsed bundle. Nothing in it is proven before one of the Verify methods said yes.
type Bundle struct {
	Method    Method
	Hint      string   // of MethodKey: hex SHA-256 of the PEM public key
	Chain     [][]byte // of MethodCertificate: DER, the signer's first
	Statement *evidence.Statement
	Predicate *Predicate

	payload, sig []byte
}

type rawBundle struct {
	MediaType string `json:"mediaType"`
	Material  struct {
		PublicKey *struct {
			Hint string `json:"hint"`
		} `json:"publicKey,omitempty"`
		Certificate *rawCertificate `json:"certificate,omitempty"`
		Chain       *struct {
			Certificates []rawCertificate `json:"certificates"`
		} `json:"x509CertificateChain,omitempty"`
		TlogEntries []json.RawMessage `json:"tlogEntries,omitempty"`
		Timestamps  json.RawMessage   `json:"timestampVerificationData,omitempty"`
	} `json:"verificationMaterial"`
	Envelope evidence.Envelope `json:"dsseEnvelope"`
}

type rawCertificate struct {
	RawBytes artifact.Base64 `json:"rawBytes"`
}

// Parse reads a bundle of OMS v1.0 strictly, with its statement and its list of files; the subject must be the list's
// root digest. It checks no signature. What signers before v1.1.0 wrote is refused.
func Parse(raw []byte) (*Bundle, error) {
	if len(raw) > artifact.MaxBundle {
		return nil, diag.Errorf("bundle of %d bytes is larger than the limit of %d", len(raw), artifact.MaxBundle)
	}
	var r rawBundle
	if err := strictjson.Decode(raw, &r); err != nil {
		if old(raw) {
			return nil, errors.New("the bundle was made by a signer older than v1.1.0 of model-signing, whose form is not read: sign the files again")
		}
		return nil, diag.Errorf("parse OMS bundle: %w", err)
	}
	b := &Bundle{payload: r.Envelope.Payload}
	m := r.Material
	switch {
	case r.MediaType != artifact.MediaTypeBundle:
		return nil, diag.Errorf("bundle has media type %q, not %q", r.MediaType, artifact.MediaTypeBundle)
	case r.Envelope.PayloadType != evidence.PayloadType:
		return nil, diag.Errorf("bundle has payload type %q, not %q", r.Envelope.PayloadType, evidence.PayloadType)
	case len(r.Envelope.Signatures) != 1:
		return nil, diag.Errorf("bundle has %d signatures, %w", len(r.Envelope.Signatures), evidence.ErrSignatures)
	case m.PublicKey != nil && m.Certificate == nil && m.Chain == nil:
		b.Method, b.Hint = MethodKey, m.PublicKey.Hint
	case m.Chain != nil && m.PublicKey == nil && m.Certificate == nil:
		if len(m.Chain.Certificates) == 0 {
			return nil, errors.New("the certificate chain is empty")
		}
		b.Method = MethodCertificate
		for _, c := range m.Chain.Certificates {
			b.Chain = append(b.Chain, c.RawBytes)
		}
	case m.Certificate != nil && m.PublicKey == nil && m.Chain == nil:
		if len(m.TlogEntries) == 0 {
			return nil, errors.New("a certificate of a day needs an entry of the transparency log, and there is none")
		}
		b.Method = MethodSigstore
	default:
		return nil, errors.New("bundle must hold one of publicKey, x509CertificateChain and certificate")
	}
	b.sig = r.Envelope.Signatures[0].Sig
	var err error
	if b.Statement, err = evidence.ParseStatement(b.payload); err != nil {
		return nil, err
	}
	if b.Predicate, err = Check(b.Statement); err != nil {
		return nil, diag.Errorf("OMS: %w", err)
	}
	return b, nil
}

// old tells a bundle of an older signer, for the message: those wrote a keyid that is null, and keys in place of hints.
func old(raw []byte) bool {
	var b struct {
		Material struct {
			PublicKey struct {
				RawBytes string `json:"rawBytes"`
			} `json:"publicKey"`
		} `json:"verificationMaterial"`
		Envelope struct {
			Signatures []map[string]json.RawMessage `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return false
	}
	for _, s := range b.Envelope.Signatures {
		if string(s["keyid"]) == "null" {
			return true
		}
	}
	return b.Material.PublicKey.RawBytes != ""
}

// Hint is what a bundle of MethodKey calls a key: the hex SHA-256 of its PEM SubjectPublicKeyInfo.
func Hint(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return hex.EncodeToString(h[:]), nil
}

// ParsePublic reads a PEM public key that OMS allows: ECDSA on P-256, P-384 or P-521.
func ParsePublic(raw []byte) (*ecdsa.PublicKey, error) {
	b, _ := pem.Decode(raw)
	if b == nil || b.Type != "PUBLIC KEY" {
		return nil, errors.New("not a PEM block of type PUBLIC KEY")
	}
	k, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, err
	}
	return allowed(k)
}

func allowed(k crypto.PublicKey) (*ecdsa.PublicKey, error) {
	ec, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, diag.Errorf("a key of type %T; OMS has ECDSA only", k)
	}
	if c := ec.Curve; c != elliptic.P256() && c != elliptic.P384() && c != elliptic.P521() {
		return nil, diag.Errorf("curve %s; OMS has P-256, P-384 and P-521", c.Params().Name)
	}
	return ec, nil
}

// VerifyKey verifies a bundle of MethodKey with the key that its reader trusts.
func (b *Bundle) VerifyKey(pub crypto.PublicKey) error {
	if b.Method != MethodKey {
		return diag.Errorf("the bundle was signed with method %s, not with a key", b.Method)
	}
	ec, err := allowed(pub)
	if err != nil {
		return err
	}
	hint, err := Hint(ec)
	if err != nil {
		return err
	}
	if b.Hint != hint {
		return diag.Errorf("the bundle names another key (%.12s, this is %.12s)", b.Hint, hint)
	}
	return b.signedBy(ec)
}

// VerifyChain verifies a bundle of MethodCertificate against the authorities that its reader trusts. Certificates are
// judged at the time that the signer's begins, as OMS's own verifier does: no time of signing is known.
func (b *Bundle) VerifyChain(roots []*x509.Certificate) error {
	if b.Method != MethodCertificate {
		return diag.Errorf("the bundle was signed with method %s, not with a certificate", b.Method)
	}
	var certs []*x509.Certificate
	for _, der := range b.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return diag.Errorf("certificate: %w", err)
		}
		certs = append(certs, c)
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: certs[0].NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range roots {
		o.Roots.AddCert(c)
	}
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := certs[0].Verify(o); err != nil {
		return err
	}
	codeSigning := false
	for _, u := range certs[0].ExtKeyUsage {
		codeSigning = codeSigning || u == x509.ExtKeyUsageCodeSigning
	}
	if certs[0].KeyUsage&x509.KeyUsageDigitalSignature == 0 && !codeSigning {
		return errors.New("the certificate may not be used for signing")
	}
	ec, err := allowed(certs[0].PublicKey)
	if err != nil {
		return err
	}
	return b.signedBy(ec)
}

// signedBy checks the DSSE signature, with the hash that belongs to the curve.
func (b *Bundle) signedBy(k *ecdsa.PublicKey) error {
	msg := evidence.PAE(evidence.PayloadType, b.payload)
	var h []byte
	switch k.Curve {
	case elliptic.P384():
		s := sha512.Sum384(msg)
		h = s[:]
	case elliptic.P521():
		s := sha512.Sum512(msg)
		h = s[:]
	default:
		s := sha256.Sum256(msg)
		h = s[:]
	}
	if !ecdsa.VerifyASN1(k, h, b.sig) {
		return errors.New("the signature does not fit")
	}
	return nil
}
