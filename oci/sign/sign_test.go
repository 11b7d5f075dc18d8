package sign

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

var subject = artifact.DigestOf([]byte("model"))

func generate(t *testing.T, role trust.Role) (path string, kp *KeyPair) {
	t.Helper()
	kp, err := Generate(ECDSA, role, "release team", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), string(role)+".key")
	if err := os.WriteFile(path, kp.Private, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, kp
}

func document(t *testing.T, kp *KeyPair, now time.Time) *trust.Document {
	t.Helper()
	rootKey, err := Generate(ECDSA, trust.RoleRoot, "root", nil)
	if err != nil {
		t.Fatal(err)
	}
	all := trust.Scope{Models: []string{"*"}, Envs: []string{"*"}, Channels: []string{"*"}}
	d := &trust.Document{
		Schema: trust.Schema, Version: 1, Generation: 1, Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour), Threshold: 1,
		Keys: []trust.Key{
			{ID: rootKey.ID, Name: "root", Role: trust.RoleRoot, Public: string(rootKey.Public)},
			{ID: kp.ID, Name: kp.Name, Role: kp.Role, Public: string(kp.Public), Scope: all},
		},
	}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSignAndVerify(t *testing.T) {
	path, kp := generate(t, trust.RolePublisher)
	k, err := Load(path, []byte("secret"), trust.RolePublisher)
	if err != nil {
		t.Fatal(err)
	}
	if k.KeyID() != kp.ID || k.Role() != trust.RolePublisher || k.Name() != "release team" || string(k.Public()) != string(kp.Public) {
		t.Errorf("key %+v", k)
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
		t.Errorf("our verifier: %v", err)
	}
	_, other := generate(t, trust.RolePublisher)
	if _, err := verify.Bundle(raw, document(t, other, now), want); verify.ReasonOf(err) != verify.WrongSigner {
		t.Errorf("another key: %v", err)
	}

	// sigstore-go reads the bundle and verifies it with the key alone.
	sv, err := signature.LoadVerifier(publicOf(t, kp), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(sv, time.Time{}, time.Time{}), nil
	})
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		t.Fatalf("sigstore-go: %v", err)
	}
	v, err := sgverify.NewVerifier(material, sgverify.WithNoObserverTimestamps())
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := hex.DecodeString(subject.Hex())
	if _, err := v.Verify(&b, sgverify.NewPolicy(sgverify.WithArtifactDigest("sha256", digest), sgverify.WithKey())); err != nil {
		t.Errorf("sigstore-go: %v", err)
	}
	wrong := sha256.Sum256([]byte("other"))
	if _, err := v.Verify(&b, sgverify.NewPolicy(sgverify.WithArtifactDigest("sha256", wrong[:]), sgverify.WithKey())); err == nil {
		t.Error("sigstore-go accepted another digest")
	}
	// and cosign's own verification of new-format bundles
	co := &cosign.CheckOpts{SigVerifier: sv, IgnoreTlog: true, IgnoreSCT: true, NewBundleFormat: true, TrustedMaterial: root.TrustedMaterialCollection{}}
	if _, err := cosign.VerifyNewBundle(context.Background(), co, sgverify.WithArtifactDigest("sha256", digest), &b); err != nil {
		t.Errorf("cosign: %v", err)
	}
}

func TestCosignReadsTheKeyFile(t *testing.T) {
	_, kp := generate(t, trust.RoleGate)
	sv, err := cosign.LoadPrivateKey(kp.Private, []byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := sv.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := trust.KeyID(pub); err != nil || id != kp.ID {
		t.Errorf("cosign loaded key %s (%v), want %s", id, err, kp.ID)
	}
}

func TestLoadRefuses(t *testing.T) {
	path, kp := generate(t, trust.RolePublisher)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	plain, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return []byte("secret"), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path, password string
		want                 trust.Role
		code                 diag.Code
	}{
		{"wrong passphrase", path, "wrong", trust.RolePublisher, diag.Failure},
		{"empty passphrase", path, "", trust.RolePublisher, diag.Failure},
		{"key of another role", path, "secret", trust.RoleGate, diag.Usage},
		{"no file", filepath.Join(dir, "none.key"), "secret", trust.RolePublisher, diag.NotFound},
		{"a folder", dir, "secret", trust.RolePublisher, diag.Usage},
		{"public key", write("x.pub", kp.Public), "secret", trust.RolePublisher, diag.Usage},
		{"no PEM", write("junk", []byte("junk")), "secret", trust.RolePublisher, diag.Usage},
		{"no role", write("plain.key", plain.PrivateBytes), "secret", trust.RolePublisher, diag.Usage},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(c.path, []byte(c.password), c.want)
			var d *diag.Error
			if !errors.As(err, &d) || d.Code != c.code || len(d.Hints) == 0 && c.name != "a folder" {
				t.Errorf("got %v (code %d), want code %d and a hint", err, diag.CodeOf(err), c.code)
			}
		})
	}
}

func TestSignRefusesAnotherRolesStatement(t *testing.T) {
	path, _ := generate(t, trust.RolePublisher)
	k, err := Load(path, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	a := evidence.Approval{Role: "ml-lead", Reason: "x", At: time.Unix(1e9, 0).UTC(), Expires: time.Unix(2e9, 0).UTC()}
	s, err := evidence.NewStatement(evidence.TypeApproval, "churn", subject, a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(t.Context(), s); diag.CodeOf(err) != diag.Usage {
		t.Errorf("got %v", err)
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, r := range []trust.Role{"admin", "", trust.RoleDevice} {
		if _, err := Generate(ECDSA, r, "", nil); diag.CodeOf(err) != diag.Usage {
			t.Errorf("role %q: %v", r, err)
		}
	}
	if _, err := Generate(ECDSA, trust.RoleGate, "a\nWaybill-Role: root", nil); diag.CodeOf(err) != diag.Usage {
		t.Errorf("header injection: %v", err)
	}
}

func TestPassword(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	answers := func(a ...string) Prompt {
		return func(string) ([]byte, error) {
			p := a[0]
			a = a[1:]
			return []byte(p), nil
		}
	}
	for _, c := range []struct {
		name    string
		env     map[string]string
		ask     Prompt
		confirm bool
		want    string
		code    diag.Code
	}{
		{"waybill first", map[string]string{"WAYBILL_PASSWORD": "a", "COSIGN_PASSWORD": "b"}, nil, false, "a", 0},
		{"cosign second", map[string]string{"COSIGN_PASSWORD": "b"}, answers("c"), false, "b", 0},
		{"prompt", nil, answers("c"), false, "c", 0},
		{"prompt twice", nil, answers("c", "c"), true, "c", 0},
		{"typed differently", nil, answers("c", "d"), true, "", diag.Usage},
		{"nobody to ask", nil, nil, false, "", diag.Usage},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Password(env(c.env), c.ask, "key", c.confirm)
			if string(p) != c.want || diag.CodeOf(err) != c.code {
				t.Errorf("got %q, %v", p, err)
			}
		})
	}
}

// A bundle that cosign's library made is read by the light verifier too.
func TestBundleJSONIsSigstores(t *testing.T) {
	path, _ := generate(t, trust.RolePublisher)
	k, err := Load(path, []byte("secret"))
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
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	again, err := b.MarshalJSON() // protobuf's JSON
	if err != nil {
		t.Fatal(err)
	}
	ours, err := evidence.ParseBundle(again)
	if err != nil {
		t.Fatalf("%v\n%s", err, again)
	}
	want, _ := json.Marshal(ours)
	if string(want) != string(raw) {
		t.Errorf("written by sigstore-go:\n%s\nby us:\n%s", want, raw)
	}
}

func publicOf(t *testing.T, kp *KeyPair) crypto.PublicKey {
	t.Helper()
	pub, _, err := trust.ParsePublic(kp.Public)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}
