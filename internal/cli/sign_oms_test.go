package cli_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/cli"
	"github.com/waybill-ml/waybill/oci/server"
)

// sign --oms reads manifests only: a registry counts the blobs that it gives out. waybill verify of the same artifact
// shows that the counter counts.
func TestSignOMSReadsNoBlob(t *testing.T) {
	dir := t.TempDir()
	srv, err := server.New(filepath.Join(dir, "reg"), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var blobs atomic.Int64
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
			blobs.Add(1)
		}
		srv.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		h.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"WAYBILL_HOME": filepath.Join(dir, "home"), "WAYBILL_PASSWORD": "secret", "DOCKER_CONFIG": filepath.Join(dir, "docker")}
	ref := strings.TrimPrefix(h.URL, "http://") + "/ml/bc:1"
	run := func(args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		e := &cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(k string) string { return env[k] }, Dir: dir, Home: dir, Now: time.Now}
		if code := cli.Run(context.Background(), e, args); code != 0 {
			t.Fatalf("waybill %s: exit code %d\n%s", strings.Join(args, " "), code, errs.String())
		}
	}
	run("keys", "generate", "--role", "publisher", "-q")
	run("keys", "generate", "--role", "root", "-q")
	run("trust", "init", "--root", "root.pub", "-q")
	run("trust", "add", "trust.yaml", "publisher.pub", "--role", "publisher", "-q")
	run("trust", "sign", "trust.yaml", "--key", "root.key", "-q")
	run("pack", filepath.Join(examples, "breast-cancer", "v1"), "-q")
	run("push", "breast-cancer:1.0.0", ref, "-q")
	blobs.Store(0)
	run("sign", ref, "--oms", "--key", "publisher.key", "-q")
	if n := blobs.Load(); n != 0 {
		t.Errorf("sign --oms read %d blobs", n)
	}
	run("verify", ref, "-q")
	if blobs.Load() == 0 {
		t.Error("verify read no blob: the counter is broken")
	}
}
