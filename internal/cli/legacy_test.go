package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/server"
)

const (
	simpleSigning   = "application/vnd.dev.cosign.simplesigning.v1+json"
	legacySignature = "dev.cosignproject.cosign/signature"
)

// A signature of cosign's older kind lies under a tag that is made of the digest. This one is good, and by a key that the
// trust document names: a reader that falls back to such tags accepts it. Waybill does not, and says that it stands there.
func TestLegacySignature(t *testing.T) {
	examples, err := filepath.Abs("../../examples/breast-cancer")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(code int, args ...string) (stdout, stderr string) {
		t.Helper()
		env, o, e := testEnv(t, map[string]string{
			"WAYBILL_HOME": filepath.Join(dir, "home"), "WAYBILL_PASSWORD": "correct horse battery staple", "DOCKER_CONFIG": filepath.Join(dir, "docker"),
		})
		env.Dir = dir
		if got := Run(t.Context(), env, args); got != code {
			t.Fatalf("waybill %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, e)
		}
		return strings.TrimSpace(o.String()), e.String()
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(filepath.Join(dir, "registry"), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	srv := httptest.NewServer(s)
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")

	run(0, "keys", "generate", "--role", "root")
	run(0, "keys", "import", "key.pem", "--role", "publisher", "--out", "publisher.key")
	run(0, "trust", "init", "--root", "root.pub")
	run(0, "trust", "add", "trust.yaml", "publisher.pub", "--role", "publisher")
	run(0, "trust", "sign", "trust.yaml", "--key", "root.key")
	run(0, "pack", filepath.Join(examples, "v1"))
	out, _ := run(0, "push", "breast-cancer:1.0.0", host+"/ml/breast-cancer:1.0")
	d := digestOf(t, out)
	if _, stderr := run(3, "verify", host+"/ml/breast-cancer:1.0"); strings.Contains(stderr, "legacy") {
		t.Fatalf("before there is a legacy signature: %s", stderr)
	}

	r, err := registry.NewRemote(host, "ml/breast-cancer", registry.RemoteOptions{Keychain: registry.Credentials{Host: host}})
	if err != nil {
		t.Fatal(err)
	}
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`,
		host+"/ml/breast-cancer", d)
	hash := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	layer, err := registry.PushBytes(t.Context(), r, simpleSigning, payload)
	if err != nil {
		t.Fatal(err)
	}
	layer.Annotations = map[string]string{legacySignature: base64.StdEncoding.EncodeToString(sig)}
	config, err := registry.PushBytes(t.Context(), r, "application/vnd.oci.image.config.v1+json", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := artifact.Canonical(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, Config: config, Layers: []artifact.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	tag := "sha256-" + d.Hex() + ".sig"
	if _, err := r.PushManifest(t.Context(), m, artifact.MediaTypeManifest, tag); err != nil {
		t.Fatal(err)
	}

	if err := fallBack(t, r, tag, d, &key.PublicKey); err != nil {
		t.Fatalf("a reader that falls back refuses it too, so the test does not attack: %v", err)
	}
	if _, stderr := run(3, "verify", host+"/ml/breast-cancer:1.0"); !strings.Contains(stderr, "a legacy signature under the tag") {
		t.Errorf("verify: %s", stderr)
	}
	run(3, "pull", host+"/ml/breast-cancer:1.0", "copy:1.0", "--verify")
	run(7, "inspect", "copy:1.0")
	// The same key's statement is what counts.
	run(0, "sign", host+"/ml/breast-cancer:1.0", "--key", "publisher.key")
	run(0, "verify", host+"/ml/breast-cancer:1.0")
}

// fallBack verifies a legacy signature as its readers do.
func fallBack(t *testing.T, r *registry.Remote, tag string, d artifact.Digest, key *ecdsa.PublicKey) error {
	t.Helper()
	raw, _, err := r.GetBounded(t.Context(), tag, artifact.MaxManifest)
	if err != nil {
		return err
	}
	var m artifact.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	payload, err := registry.ReadBlob(t.Context(), r, m.Layers[0], 1<<20)
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.DecodeString(m.Layers[0].Annotations[legacySignature])
	if err != nil {
		return err
	}
	if hash := sha256.Sum256(payload); !ecdsa.VerifyASN1(key, hash[:], sig) {
		return fmt.Errorf("the signature does not verify")
	}
	var p struct {
		Critical struct {
			Image struct {
				Digest artifact.Digest `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return err
	}
	if p.Critical.Image.Digest != d {
		return fmt.Errorf("it signs %s", p.Critical.Image.Digest)
	}
	return nil
}
