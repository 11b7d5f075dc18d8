// Package devicekey makes and uses the key of a device: Ed25519, made on the device, kept unencrypted in a file that only
// its owner can read. A process that may read the file is the device; the threat model says so. Light: no cosign.
package devicekey

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// roleHeader is the PEM header that carries the role, as in key files of oci/sign.
const roleHeader = "Waybill-Role"

// Key signs as the device. It is safe for concurrent use.
type Key struct {
	priv ed25519.PrivateKey
	id   string
}

// Generate makes a new key. random nil means the system's source.
func Generate(random io.Reader) (*Key, error) {
	if random == nil {
		random = rand.Reader
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	return fromPrivate(ed25519.NewKeyFromSeed(seed))
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
	priv, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("device key: a key of type %T, not Ed25519", k)
	}
	return fromPrivate(priv)
}

func fromPrivate(priv ed25519.PrivateKey) (*Key, error) {
	id, err := trust.KeyID(priv.Public())
	if err != nil {
		return nil, err
	}
	return &Key{priv, id}, nil
}

// Encode gives the private PEM file; the caller writes it with mode 0600 and makes it durable.
func (k *Key) Encode() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.priv)
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
func (k *Key) Public() ([]byte, error) { return trust.EncodePublic(k.priv.Public()) }

// SignRaw signs bytes as they are, with a purpose in front so that a signature for one purpose never serves another and
// none is ever a DSSE signature. VerifyRaw is its counterpart. Journal checkpoints and state files use it.
func (k *Key) SignRaw(purpose string, data []byte) []byte {
	return ed25519.Sign(k.priv, rawMessage(purpose, data))
}

// VerifyRaw checks a signature of SignRaw against a PEM public key.
func VerifyRaw(publicPEM []byte, purpose string, data, sig []byte) error {
	pub, id, err := trust.ParsePublic(publicPEM)
	if err != nil {
		return err
	}
	e, ok := pub.(ed25519.PublicKey)
	if !ok || !ed25519.Verify(e, rawMessage(purpose, data), sig) {
		return fmt.Errorf("signature of device %s for %s does not fit", id[:12], purpose)
	}
	return nil
}

func rawMessage(purpose string, data []byte) []byte {
	return append([]byte("waybill/"+purpose+"\x00"), data...)
}

// Sign signs a statement and gives the sigstore bundle. Only predicate types of the device role are signed.
func (k *Key) Sign(s *evidence.Statement) ([]byte, error) {
	for _, r := range trust.RolesFor(s.PredicateType) {
		if r == trust.RoleDevice {
			payload, err := s.Encode()
			if err != nil {
				return nil, err
			}
			return evidence.EncodeBundle(k.id, payload, ed25519.Sign(k.priv, evidence.PAE(evidence.PayloadType, payload)))
		}
	}
	return nil, fmt.Errorf("a device key can't sign a %s statement", evidence.NameOf(s.PredicateType))
}
