package cli

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/server"
)

// fickle is a registry that answers for the tag "1.0" with the released manifest, and once it was asked for what is attached
// to that, with another one that nobody released.
type fickle struct {
	http.Handler
	tag, evil string // paths
	asked     atomic.Bool
}

func (f *fickle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/referrers/") {
		f.asked.Store(true)
	}
	if r.URL.Path == f.tag && f.asked.Load() {
		r = r.Clone(r.Context())
		r.URL.Path = f.evil
	}
	f.Handler.ServeHTTP(w, r)
}

// A tag that moves between verification and use: verify-then-pull by tag gets the other artifact, which is the attack;
// pull --verify gets what it verified.
func TestTagMovesAfterVerification(t *testing.T) {
	once.Skip(t)
	examples, err := filepath.Abs("../../examples/breast-cancer")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(code int, args ...string) string {
		t.Helper()
		env, stdout, stderr := testEnv(t, map[string]string{
			"WAYBILL_HOME": filepath.Join(dir, "home"), "WAYBILL_PASSWORD": "correct horse battery staple", "DOCKER_CONFIG": filepath.Join(dir, "docker"),
		})
		env.Dir = dir
		if got := Run(t.Context(), env, args); got != code {
			t.Fatalf("waybill %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, stderr)
		}
		return strings.TrimSpace(stdout.String())
	}
	inner, err := server.New(filepath.Join(dir, "registry"), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := inner.Close(); err != nil {
			t.Error(err)
		}
	}()
	f := &fickle{Handler: inner}
	srv := httptest.NewServer(f)
	defer srv.Close()
	repo := strings.TrimPrefix(srv.URL, "http://") + "/ml/breast-cancer"

	run(0, "pack", filepath.Join(examples, "v1"))
	run(0, "pack", filepath.Join(examples, "v2"))
	run(0, "keys", "generate", "--role", "root")
	run(0, "keys", "generate", "--role", "publisher")
	run(0, "trust", "init", "--root", "root.pub")
	run(0, "trust", "add", "trust.yaml", "publisher.pub", "--role", "publisher")
	run(0, "trust", "sign", "trust.yaml", "--key", "root.key")
	run(0, "sign", "breast-cancer:1.0.0", "--key", "publisher.key")
	good := digestOf(t, run(0, "push", "breast-cancer:1.0.0", repo+":1.0"))
	evil := digestOf(t, run(0, "push", "breast-cancer:2.0.0", repo+":2.0"))

	f.tag, f.evil = "/v2/ml/breast-cancer/manifests/1.0", fmt.Sprintf("/v2/ml/breast-cancer/manifests/%s", evil)
	run(0, "verify", repo+":1.0")
	if got := digestOf(t, run(0, "pull", repo+":1.0", "attacked:1.0")); got != evil {
		t.Fatalf("verify, then pull by tag: %s; the test does not attack", got)
	}
	f.asked.Store(false)
	if got := digestOf(t, run(0, "pull", repo+":1.0", "safe:1.0", "--verify")); got != good {
		t.Errorf("pull --verify brought %s, verified was %s", got, good)
	}
	f.asked.Store(false)
	out := filepath.Join(dir, "files")
	run(0, "pull", repo+":1.0", "--verify", "--out", "files")
	card, err := os.ReadFile(filepath.Join(out, "interface.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(card, []byte(`"1.0.0"`)) {
		t.Errorf("pull --verify --out wrote the other version: %.200s", card)
	}
	// The other artifact by itself is refused, and nothing of it arrives.
	f.asked.Store(false)
	run(3, "pull", repo+":2.0", "evil:2.0", "--verify")
	run(7, "inspect", "evil:2.0")
	f.asked.Store(true)
	run(3, "pull", repo+":1.0", "evil:1.0", "--verify")
	run(7, "inspect", "evil:1.0")
}

func digestOf(t *testing.T, ref string) artifact.Digest {
	t.Helper()
	_, d, ok := strings.Cut(ref, "@")
	if !ok {
		t.Fatalf("no digest in %q", ref)
	}
	return artifact.Digest(d)
}
