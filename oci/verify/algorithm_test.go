package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"testing"

	"github.com/waybill-ml/waybill/oci/evidence"
)

// The closed list of algorithms: what each key kind may have signed with, and what stands near it and may not.
func TestSignatureAlgorithms(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte(`{"a":1}`)
	msg := evidence.PAE(evidence.PayloadType, payload)
	h256, h512 := sha256.Sum256(msg), sha512.Sum512(msg)
	ecSign := func(h []byte) []byte {
		sig, err := ecdsa.SignASN1(rand.Reader, ec, h)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	edSign := func(m []byte, o *ed25519.Options) []byte {
		sig, err := ed.Sign(nil, m, o)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	for _, c := range []struct {
		name string
		key  crypto.PublicKey
		sig  []byte
		ok   bool
	}{
		{"ECDSA with SHA-256", &ec.PublicKey, ecSign(h256[:]), true},
		{"ECDSA with SHA-512", &ec.PublicKey, ecSign(h512[:]), false},
		{"Ed25519", pub, edSign(msg, &ed25519.Options{}), true},
		{"Ed25519ph", pub, edSign(h512[:], &ed25519.Options{Hash: crypto.SHA512}), true},
		{"Ed25519ph with a context", pub, edSign(h512[:], &ed25519.Options{Hash: crypto.SHA512, Context: "x"}), false},
		{"Ed25519ctx", pub, edSign(msg, &ed25519.Options{Context: "x"}), false},
		{"Ed25519 of the hash, without the prefix of Ed25519ph", pub, edSign(h512[:], &ed25519.Options{}), false},
		{"of another key kind", pub, ecSign(h256[:]), false},
		{"empty", pub, nil, false},
	} {
		if got := Signature(c.key, evidence.PayloadType, payload, c.sig); got != c.ok {
			t.Errorf("%s: %v", c.name, got)
		}
		if c.ok && Signature(c.key, evidence.PayloadType, []byte(`{"a":2}`), c.sig) {
			t.Errorf("%s: another payload passes", c.name)
		}
	}
}
