package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/youmark/pkcs8"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/pkcs11"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

func writeKey(t *testing.T, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.key")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantDiag demands an exit code, a hint, and a part of the text.
func wantDiag(t *testing.T, err error, code diag.Code, part string) {
	t.Helper()
	var d *diag.Error
	if !errors.As(err, &d) || d.Code != code || len(d.Hints) == 0 || !strings.Contains(diag.Render(err), part) {
		t.Errorf("got %v (code %d), want code %d, a hint and %q", err, diag.CodeOf(err), code, part)
	}
}

func TestEd25519SignsAndVerifies(t *testing.T) {
	kp, err := Generate(Ed25519, trust.RolePublisher, "ed", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := Load(writeKey(t, kp.Private), []byte("secret"), trust.RolePublisher)
	if err != nil {
		t.Fatal(err)
	}
	s, err := evidence.NewStatement(evidence.TypeRelease, "churn", subject, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := k.Sign(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	want := verify.Want{PredicateType: evidence.TypeRelease, Subject: subject, Model: "churn", Now: now}
	if _, err := verify.Bundle(raw, document(t, kp, now), want); err != nil {
		t.Error(err)
	}
	if !cosignLoads(t, kp, "secret") {
		t.Error("cosign's library cannot load the file")
	}
}

// cosignLoads tells whether cosign's own code opens the file to the same key.
func cosignLoads(t *testing.T, kp *KeyPair, password string) bool {
	t.Helper()
	sv, err := cosign.LoadPrivateKey(kp.Private, []byte(password), nil)
	if err != nil {
		t.Log(err)
		return false
	}
	pub, err := sv.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := trust.KeyID(pub)
	return err == nil && id == kp.ID
}

func TestKeyFileDamage(t *testing.T) {
	kp, err := Generate(ECDSA, trust.RolePublisher, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(kp.Private)
	cut := &pem.Block{Type: b.Type, Headers: b.Headers, Bytes: b.Bytes[:len(b.Bytes)-20]}
	for _, c := range []struct {
		name string
		raw  []byte
		part string
	}{
		{"cut short", kp.Private[:len(kp.Private)/2], "damaged or cut short"},
		{"cut inside", pem.EncodeToMemory(cut), "damaged or cut short"},
		{"empty", nil, "not one PEM block"},
		{"two keys", append(bytes.Clone(kp.Private), kp.Private...), "not one PEM block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(writeKey(t, c.raw), []byte("secret"))
			if diag.CodeOf(err) != diag.Usage || !strings.Contains(diag.Render(err), c.part) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWideFileModeIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode bits here")
	}
	kp, err := Generate(ECDSA, trust.RolePublisher, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path := writeKey(t, kp.Private)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path, []byte("secret"))
		wantDiag(t, err, diag.Usage, "chmod 600")
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, []byte("secret")); err != nil {
		t.Error(err)
	}
}

// The role is sealed with the key: who changes the header without the passphrase makes the file useless, where the
// header alone (the second half of the test) would have been believed.
func TestChangedRoleIsRefused(t *testing.T) {
	kp, err := Generate(ECDSA, trust.RolePublisher, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	as := bytes.Replace(kp.Private, []byte("Waybill-Role: publisher"), []byte("Waybill-Role: gate"), 1)
	_, err = Load(writeKey(t, as), []byte("secret"), trust.RoleGate)
	wantDiag(t, err, diag.Usage, "header was changed to gate")

	plain, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return []byte("secret"), nil })
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(plain.PrivateBytes)
	b.Headers = map[string]string{"Waybill-Role": "gate"}
	_, err = Load(writeKey(t, pem.EncodeToMemory(b)), []byte("secret"), trust.RoleGate)
	wantDiag(t, err, diag.Usage, "no role is sealed")
	priv, der, err := unseal(b.Bytes, []byte("secret"))
	if err != nil || sealedRole(der) != "" {
		t.Fatal(err)
	}
	if k, err := newKey("x", Info{Role: trust.RoleGate}, priv); err != nil || k.Role() != trust.RoleGate {
		t.Errorf("without the check the header counts: %v", err)
	}
}

func TestImport(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := func(k crypto.Signer) []byte {
		b, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block := func(typ string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}) }
	sealed, err := pkcs8.MarshalPrivateKey(ed, []byte("old"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 the kind of file that must be read
	legacy, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", ecDER, []byte("old"), x509.PEMCipherAES128)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return []byte("old"), nil })
	if err != nil {
		t.Fatal(err)
	}
	ours, err := Generate(ECDSA, trust.RoleGate, "", []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	cosignKey := func(typ string) []byte {
		b, _ := pem.Decode(theirs.PrivateBytes)
		b.Type = typ
		return pem.EncodeToMemory(b)
	}
	for _, c := range []struct {
		name string
		raw  []byte
		old  string // passphrase; "-": it must not be asked for
		code diag.Code
		part string
	}{
		{"cosign.key", theirs.PrivateBytes, "old", 0, ""},
		{"cosign.key of older versions", cosignKey("ENCRYPTED COSIGN PRIVATE KEY"), "old", 0, ""},
		{"cosign.key, wrong passphrase", theirs.PrivateBytes, "new", diag.Failure, "wrong passphrase"},
		{"PKCS #8 ECDSA", block("PRIVATE KEY", der(ec)), "-", 0, ""},
		{"PKCS #8 Ed25519", block("PRIVATE KEY", der(ed)), "-", 0, ""},
		{"PKCS #8 with a passphrase", block("ENCRYPTED PRIVATE KEY", sealed), "old", 0, ""},
		{"PKCS #8, wrong passphrase", block("ENCRYPTED PRIVATE KEY", sealed), "new", diag.Failure, "wrong passphrase"},
		{"EC", block("EC PRIVATE KEY", ecDER), "-", 0, ""},
		{"EC behind its parameters", append(block("EC PARAMETERS", []byte{6, 8}), block("EC PRIVATE KEY", ecDER)...), "-", 0, ""},
		{"EC with OpenSSL's old passphrase", pem.EncodeToMemory(legacy), "old", 0, ""},
		{"EC with OpenSSL's old passphrase, wrong", pem.EncodeToMemory(legacy), "new", diag.Failure, "wrong passphrase"},
		{"P-384", block("PRIVATE KEY", der(p384)), "-", diag.Usage, "only P-256"},
		{"RSA", block("PRIVATE KEY", der(rs)), "-", diag.Usage, "only ECDSA P-256 and Ed25519"},
		{"RSA, PKCS #1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs)), "-", diag.Usage, "only ECDSA P-256 and Ed25519"},
		{"a key with another role", ours.Private, "old", diag.Usage, "is a gate key already"},
		{"public key", ours.Public, "-", diag.Usage, "a public key"},
		{"junk", []byte("junk"), "-", diag.Usage, "not one PEM block"},
		{"damaged", block("PRIVATE KEY", []byte{48, 1}), "-", diag.Usage, "key file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := func() ([]byte, error) {
				if c.old == "-" {
					t.Error("asked for a passphrase that nothing needs")
				}
				return []byte(c.old), nil
			}
			kp, err := Import("in.pem", c.raw, old, trust.RolePublisher, "", []byte("new"))
			if c.code != 0 {
				if kp != nil || diag.CodeOf(err) != c.code || !strings.Contains(diag.Render(err), c.part) {
					t.Errorf("got %v, want code %d and %q", err, c.code, c.part)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if k, err := Load(writeKey(t, kp.Private), []byte("new"), trust.RolePublisher); err != nil || k.KeyID() != kp.ID {
				t.Error(err)
			}
		})
	}
}

func FuzzKeyFile(f *testing.F) {
	kp, err := Generate(ECDSA, trust.RolePublisher, "n", []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	ref, err := Reference("awskms:///alias/a", trust.RoleGate, "n", kp.Public)
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{kp.Private, kp.Public, ref, kp.Private[:100], []byte("junk"), nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := Inspect(b)
		if err != nil {
			return
		}
		if !in.Role.Valid() || in.URI != "" && (in.ID == "" || pkcs11.HasPIN(in.URI)) {
			t.Errorf("%+v", in)
		}
	})
}
