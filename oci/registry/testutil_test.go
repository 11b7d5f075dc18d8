package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/server"
	"github.com/waybill-ml/waybill/oci/store"
)

// anonymous keeps the credentials of whoever runs the tests out of them.
type anonymous struct{}

func (anonymous) Login(context.Context, string, string) (registry.Login, error) {
	return registry.Login{}, nil
}

func fastOptions() registry.RemoteOptions {
	return registry.RemoteOptions{
		Keychain: anonymous{},
		Retry:    registry.RetryPolicy{Attempts: 4, Wait: time.Microsecond, MaxWait: time.Second},
	}
}

// newServer runs the embedded registry, seen through wrap when it is not nil.
func newServer(t *testing.T, wrap func(http.Handler) http.Handler) (host, root string) {
	t.Helper()
	root = t.TempDir()
	s, err := server.New(root, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = s
	if wrap != nil {
		h = wrap(s)
	}
	hs := httptest.NewServer(h)
	t.Cleanup(func() { hs.Close(); s.Close() })
	return strings.TrimPrefix(hs.URL, "http://"), root
}

func remote(t *testing.T, host, repo string) *registry.Remote {
	t.Helper()
	r, err := registry.NewRemote(host, repo, fastOptions())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func local(t *testing.T, name string) *registry.Local {
	t.Helper()
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return registry.NewLocal(s, name)
}

// model is an artifact in memory.
type model struct {
	manifest, config []byte
	layers           map[artifact.Digest][]byte
	digest           artifact.Digest
}

func newModel(t testing.TB, version string) model {
	t.Helper()
	files := []struct {
		role artifact.Role
		path string
		data []byte
	}{
		{artifact.RoleModule, "model.wasm", append([]byte("\x00asm\x01\x00\x00\x00"), version...)},
		{artifact.RoleInterface, "interface.json", []byte(`{"schema":"s","version":"` + version + `"}`)},
		{artifact.RoleSource, "source/model.onnx", bytes.Repeat([]byte("onnx"+version), 20000)},
	}
	m := model{layers: map[artifact.Digest][]byte{}}
	var ls []artifact.Layer
	for _, f := range files {
		l := artifact.Layer{Role: f.role, Path: f.path, Digest: artifact.DigestOf(f.data), Size: int64(len(f.data))}
		if f.role == artifact.RoleModule {
			l.Target = artifact.TargetAny
		}
		ls = append(ls, l)
		m.layers[l.Digest] = f.data
	}
	var err error
	m.manifest, m.config, err = artifact.BuildModel(artifact.Config{
		Descriptor: artifact.ModelDescriptor{Name: "churn", Version: version, Licenses: []string{"Apache-2.0"}},
		Model:      artifact.ModelConfig{Format: "wasm"},
	}, ls, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.digest = artifact.DigestOf(m.manifest)
	return m
}

func (m model) push(t testing.TB, r registry.Repository, tag string) artifact.Descriptor {
	t.Helper()
	d, err := m.tryPush(context.Background(), r, tag)
	if err != nil {
		t.Fatal(err)
	}
	if d.Digest != m.digest {
		t.Fatalf("pushed as %s, want %s", d.Digest, m.digest)
	}
	return d
}

func (m model) tryPush(ctx context.Context, r registry.Repository, tag string) (artifact.Descriptor, error) {
	for _, b := range m.layers {
		if _, err := registry.PushBytes(ctx, r, "application/octet-stream", b); err != nil {
			return artifact.Descriptor{}, err
		}
	}
	if _, err := registry.PushBytes(ctx, r, artifact.MediaTypeConfig, m.config); err != nil {
		return artifact.Descriptor{}, err
	}
	return r.PushManifest(ctx, m.manifest, artifact.MediaTypeManifest, tag)
}

// check reads the whole model back.
func (m model) check(t testing.TB, r registry.Repository, ref string) {
	t.Helper()
	got, d, err := registry.ReadModel(context.Background(), r, ref)
	if err != nil {
		t.Fatal(err)
	}
	if d.Digest != m.digest {
		t.Fatalf("%s is %s, want %s", ref, d.Digest, m.digest)
	}
	for _, l := range got.Manifest.Layers {
		rc, err := r.Blob(context.Background(), l)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || !bytes.Equal(b, m.layers[l.Digest]) {
			t.Fatalf("layer %s: %d bytes, %v", l.Annotations[artifact.AnnotationTitle], len(b), err)
		}
	}
}

func bundle(i int) []byte {
	return fmt.Appendf(nil, `{"mediaType":%q,"n":%d}`, artifact.MediaTypeBundle, i)
}

// noReferrersAPI makes a registry of the years before OCI 1.1.
func noReferrersAPI(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.Error(w, "404 page not found", http.StatusNotFound)
			return
		}
		next.ServeHTTP(&dropHeader{w}, r)
	})
}

type dropHeader struct{ http.ResponseWriter }

func (d *dropHeader) WriteHeader(code int) {
	d.Header().Del("OCI-Subject")
	d.ResponseWriter.WriteHeader(code)
}

// size is the sum of the layers.
func (m model) size() (n int) {
	for _, l := range m.layers {
		n += len(l)
	}
	return n
}

// wire counts what is sent through it.
type wire struct {
	next             http.RoundTripper
	bytes, blobBytes atomic.Int64 // of the bodies of requests; of those that carry blobs
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		c := r.Clone(r.Context())
		c.Body = &countedBody{r.Body, w, strings.Contains(r.URL.Path, "/blobs/")}
		r = c
	}
	return w.next.RoundTrip(r)
}

type countedBody struct {
	io.ReadCloser
	w    *wire
	blob bool
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.w.bytes.Add(int64(n))
	if c.blob {
		c.w.blobBytes.Add(int64(n))
	}
	return n, err
}
