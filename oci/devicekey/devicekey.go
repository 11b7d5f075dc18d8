// Package devicekey makes and uses the key of a device. The usual one is made on the device as Ed25519 and kept unencrypted
// in a file that only its owner can read: a process that may read the file is the device, and the threat model says so. A key
// may also lie on a PKCS #11 token, where it never leaves the hardware; those are often ECDSA P-256. Light: no cosign.
package devicekey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// roleHeader is the PEM header that carries the role, as in key files of oci/sign.
const roleHeader = "Waybill-Role"

// Signer holds a private key somewhere: in memory, on a token. Sign gives a pure Ed25519 signature, or an ECDSA one in ASN.1
// over the SHA-256 of message. It is safe for concurrent use.
type Signer interface {
	Public() crypto.PublicKey
	Sign(message []byte) ([]byte, error)
}

// Key signs as the device. It is safe for concurrent use.
type Key struct {
	signer Signer
	public crypto.PublicKey
	id     string
}

// Generate makes a new Ed25519 key. random nil means the system's source.
func Generate(random io.Reader) (*Key, error) {
	if random == nil {
		random = rand.Reader
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	return New(software{ed25519.NewKeyFromSeed(seed)})
}

// New makes the device of a private key that is held elsewhere. Keys are ECDSA P-256 or Ed25519.
func New(s Signer) (*Key, error) {
	pub := s.Public()
	id, err := trust.KeyID(pub)
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	return &Key{s, pub, id}, nil
}

// software is a private key in memory.
type software struct{ priv crypto.Signer }

func (s software) Public() crypto.PublicKey { return s.priv.Public() }

func (s software) Sign(message []byte) ([]byte, error) {
	if _, ok := s.priv.(ed25519.PrivateKey); ok {
		return s.priv.Sign(nil, message, crypto.Hash(0))
	}
	h := sha256.Sum256(message)
	return s.priv.Sign(rand.Reader, h[:], crypto.SHA256)
}

// Parse reads what Encode wrote; a key of another role or kind is refused.
func Parse(pemBytes []byte) (*Key, error) {
	b, rest := pem.Decode(pemBytes)
	if b == nil || b.Type != "PRIVATE KEY" || strings.TrimSpace(string(rest)) != "" {
		return nil, fmt.Errorf("device key: not one PEM block of type PRIVATE KEY")
	}
	if r := b.Headers[roleHeader]; r != string(trust.RoleDevice) {
		return nil, fmt.Errorf("device key: the file holds a key of role %q, not %q", r, trust.RoleDevice)
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("device key: %w", err)
	}
	priv, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("device key: a key of type %T does not sign", k)
	}
	return New(software{priv})
}

// Encode gives the private PEM file of a key in memory; the caller writes it with mode 0600 and makes it durable.
func (k *Key) Encode() ([]byte, error) {
	s, ok := k.signer.(software)
	if !ok {
		return nil, errors.New("encode device key: it lies on a token, which does not give it away")
	}
	der, err := x509.MarshalPKCS8PrivateKey(s.priv)
	if err != nil {
		return nil, fmt.Errorf("encode device key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{
		Type: "PRIVATE KEY", Headers: map[string]string{roleHeader: string(trust.RoleDevice)}, Bytes: der,
	}), nil
}

// KeyID is the device id: the hex SHA-256 of the DER SubjectPublicKeyInfo.
func (k *Key) KeyID() string { return k.id }

// Role is always trust.RoleDevice.
func (k *Key) Role() trust.Role { return trust.RoleDevice }

// Public gives the public key as PEM SubjectPublicKeyInfo, for the trust document.
func (k *Key) Public() ([]byte, error) { return trust.EncodePublic(k.public) }

// SignRaw signs bytes as they are, with a purpose in front so that a signature for one purpose never serves another and
// none is ever a DSSE signature. VerifyRaw is its counterpart. Journal checkpoints and enrolment requests use it.
func (k *Key) SignRaw(purpose string, data []byte) ([]byte, error) {
	return k.sign(rawMessage(purpose, data))
}

// sign signs and looks at the result: a token whose key was exchanged behind the name must not sign as this device.
func (k *Key) sign(message []byte) ([]byte, error) {
	sig, err := k.signer.Sign(message)
	if err != nil {
		return nil, fmt.Errorf("sign with the device key: %w", err)
	}
	if !check(k.public, message, sig) {
		return nil, fmt.Errorf("sign with the device key: the signature is not by key %s: the key was exchanged", k.id[:12])
	}
	return sig, nil
}

func check(pub crypto.PublicKey, message, sig []byte) bool {
	switch p := pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(p, message, sig)
	case *ecdsa.PublicKey:
		h := sha256.Sum256(message)
		return ecdsa.VerifyASN1(p, h[:], sig)
	}
	return false
}

// VerifyRaw checks a signature of SignRaw against a PEM public key.
func VerifyRaw(publicPEM []byte, purpose string, data, sig []byte) error {
	pub, id, err := trust.ParsePublic(publicPEM)
	if err != nil {
		return err
	}
	if !check(pub, rawMessage(purpose, data), sig) {
		return fmt.Errorf("signature of device %s for %s does not fit", id[:12], purpose)
	}
	return nil
}

func rawMessage(purpose string, data []byte) []byte {
	return bytes.Join([][]byte{[]byte("waybill/" + purpose), data}, []byte{0})
}

// Sign signs a statement and gives the sigstore bundle. Only predicate types of the device role are signed.
func (k *Key) Sign(s *evidence.Statement) ([]byte, error) {
	for _, r := range trust.RolesFor(s.PredicateType) {
		if r == trust.RoleDevice {
			payload, err := s.Encode()
			if err != nil {
				return nil, err
			}
			sig, err := k.sign(evidence.PAE(evidence.PayloadType, payload))
			if err != nil {
				return nil, err
			}
			return evidence.EncodeBundle(k.id, payload, sig)
		}
	}
	return nil, fmt.Errorf("a device key can't sign a %s statement", evidence.NameOf(s.PredicateType))
}
