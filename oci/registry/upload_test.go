package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/faultproxy"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
	"github.com/waybill-ml/waybill/oci/store"
)

// randomBytes is content that nothing compresses or repeats.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

const (
	testChunk = 256 << 10
	testBlob  = 3<<20 + 12345
)

// uploading is a repository behind a proxy, with small chunks.
func uploading(t *testing.T, p *faultproxy.Proxy, repo string, tr *registry.Transfers, n *notices) *registry.Remote {
	t.Helper()
	r := through(t, p, repo, func(o *registry.RemoteOptions) { o.Transfers, o.Notify = tr, n.add })
	r.SetChunks(testChunk/2, testChunk)
	return r
}

func proxyTo(t *testing.T, s *servertest.Server, plan faultproxy.Plan) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.Start(s.URL(""), plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// withBlob is a store with one manifest, whose layer is b.
func withBlob(t *testing.T, b []byte) (*registry.Local, artifact.Descriptor) {
	t.Helper()
	l := local(t, "big")
	ctx := context.Background()
	config, err := registry.PushBytes(ctx, l, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := registry.PushBytes(ctx, l, "application/octet-stream", b)
	if err != nil {
		t.Fatal(err)
	}
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x.test","config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		artifact.MediaTypeManifest, config.MediaType, config.Digest, config.Size, layer.MediaType, layer.Digest, layer.Size)
	if _, err := l.PushManifest(ctx, []byte(m), artifact.MediaTypeManifest, "1"); err != nil {
		t.Fatal(err)
	}
	return l, layer
}

func blobs(p *faultproxy.Proxy) int64 {
	_, in, _ := p.Count(func(r faultproxy.Record) bool { return strings.Contains(r.Path, "/blobs/uploads/") })
	return in
}

func whole(t *testing.T, r registry.Repository, d artifact.Descriptor, want []byte) {
	t.Helper()
	rc, err := r.Blob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if b, err := io.ReadAll(rc); err != nil || !bytes.Equal(b, want) {
		t.Errorf("the blob there: %d bytes, %v", len(b), err)
	}
}

// A connection that breaks in the middle of a chunk: where the registry keeps what came, only the rest is sent.
// docker-registry 2.8 forgets the upload then, so it starts anew, which is said.
func TestUploadResumes(t *testing.T) {
	for _, kind := range servertest.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			patches := 0
			p := proxyTo(t, servertest.Start(t, servertest.Options{Kind: kind}), func(r *http.Request, _ int) faultproxy.Fault {
				if r.Method == http.MethodPatch {
					if patches++; patches == 6 {
						return faultproxy.Fault{Kind: faultproxy.CutRequest, N: testChunk / 2}
					}
				}
				return faultproxy.Fault{}
			})
			n := &notices{}
			b := randomBytes(1, testBlob)
			src, layer := withBlob(t, b)
			r := uploading(t, p, "ml/big", registry.NewTransfers(t.TempDir()), n)
			if _, err := registry.Copy(t.Context(), r, src, "1", registry.CopyOptions{Tag: "1"}); err != nil {
				t.Fatal(diag.Render(err))
			}
			whole(t, r, layer, b)
			most := int64(testBlob + testChunk + 1000)
			if kind == servertest.DockerRegistry {
				most = 2*testBlob + testChunk
				if !strings.Contains(n.String(), "starts anew") {
					t.Errorf("notices: %s", n)
				}
			}
			if sent := blobs(p); sent > most || patches < 7 {
				t.Errorf("%d bytes sent in %d chunks, the blob has %d", sent, patches, testBlob)
			}
			if !strings.Contains(n.String(), "attempt 2 of") {
				t.Errorf("notices: %s", n)
			}
		})
	}
}

const helperEnv = "WAYBILL_TEST_UPLOAD"

// TestUploadHelper is the process that TestUploadKilled kills.
func TestUploadHelper(t *testing.T) {
	args := strings.Split(os.Getenv(helperEnv), "|")
	if len(args) != 3 {
		t.Skip("it runs in a process of its own")
	}
	s, err := store.Open(t.Context(), args[1], store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := fastOptions()
	o.Transfers = registry.NewTransfers(args[2])
	r, err := registry.NewRemote(args[0], "ml/big", o)
	if err != nil {
		t.Fatal(err)
	}
	r.SetChunks(testChunk/2, testChunk)
	_, err = registry.Copy(t.Context(), r, registry.NewLocal(s, "big"), "1", registry.CopyOptions{Tag: "1"})
	t.Fatalf("the upload ended: %v", err)
}

// kill -9 in the middle of an upload: the next process goes on where the registry says, and the address of the upload
// was nobody else's to read.
func TestUploadKilled(t *testing.T) {
	for _, kind := range servertest.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			stalled, killed := make(chan struct{}), make(chan struct{})
			patches := 0
			p := proxyTo(t, servertest.Start(t, servertest.Options{Kind: kind}), func(r *http.Request, _ int) faultproxy.Fault {
				if patches == 7 { // what it asks after the broken chunk is not answered in its life
					patches++
					close(stalled)
					<-killed
				}
				if r.Method == http.MethodPatch {
					if patches++; patches == 7 {
						return faultproxy.Fault{Kind: faultproxy.CutRequest, N: testChunk / 2}
					}
				}
				return faultproxy.Fault{}
			})
			b := randomBytes(2, testBlob)
			src, layer := withBlob(t, b)
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestUploadHelper$")
			cmd.Env = append(os.Environ(), helperEnv+"="+strings.Join([]string{p.Host(), src.Store().Dir(), dir}, "|"), "DOCKER_CONFIG="+t.TempDir())
			out := &bytes.Buffer{}
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = cmd.Wait(); close(ended) }()
			select {
			case <-stalled:
			case <-ended:
				t.Fatalf("it ended by itself:\n%s", out)
			case <-time.After(2 * time.Minute):
				t.Error("it never got so far")
			}
			_ = cmd.Process.Kill()
			<-ended
			close(killed)
			if t.Failed() {
				return
			}
			records := 0
			_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				fi, err := e.Info()
				if err == nil && strings.HasSuffix(path, ".json") && strings.Contains(path, "uploads") {
					records++
					if filepath.Separator == '/' && fi.Mode().Perm() != 0o600 {
						t.Errorf("%s has mode %v", path, fi.Mode())
					}
				}
				return err
			})
			if records != 1 {
				t.Errorf("%d records of uploads", records)
			}
			before := blobs(p)
			n := &notices{}
			r := uploading(t, p, "ml/big", registry.NewTransfers(dir), n)
			res, err := registry.Copy(t.Context(), r, src, "1", registry.CopyOptions{Tag: "1"})
			if err != nil {
				t.Fatal(diag.Render(err))
			}
			whole(t, r, layer, b)
			sent, had := blobs(p)-before, int64(6*testChunk)
			if kind == servertest.DockerRegistry {
				if !strings.Contains(n.String(), "starts anew") {
					t.Errorf("notices: %s", n)
				}
			} else if sent > testBlob-had+1000 || !strings.Contains(n.String(), "goes on at") {
				t.Errorf("%d bytes were sent though %d of %d were there; %s", sent, had, testBlob, n)
			}
			if res.SentBytes > sent {
				t.Errorf("it says that it sent %d bytes, and sent %d", res.SentBytes, sent)
			}
			if es, err := filepath.Glob(filepath.Join(dir, "uploads", "*")); err != nil || len(es) != 0 {
				t.Errorf("left behind: %v %v", es, err)
			}
		})
	}
}

// Registries differ in what they take.
func TestUploadQuirks(t *testing.T) {
	answer := func(code int) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch {
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(code)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	for name, c := range map[string]struct {
		wrap   func(http.Handler) http.Handler
		notice string // "": none
	}{
		"as it should be": {wrap: func(h http.Handler) http.Handler { return h }},
		"no PATCH":        {wrap: answer(http.StatusMethodNotAllowed), notice: "takes no chunks"},
		"PATCH unknown":   {wrap: answer(http.StatusNotFound), notice: "takes no chunks"},
		"chunk too large": {wrap: answer(http.StatusRequestedRangeNotSatisfiable), notice: "takes no chunks"},
		"bad chunk":       {wrap: answer(http.StatusBadRequest), notice: "takes no chunks"},
		"201 after a chunk, a query in the address": {wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/uploads/") && r.Method != http.MethodPost && r.URL.Query().Get("state") == "" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				next.ServeHTTP(&rewrite{ResponseWriter: w, patch: r.Method == http.MethodPatch}, r)
			})
		}},
		"large least chunk": {wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch && r.ContentLength < testBlob {
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
					return
				}
				next.ServeHTTP(&rewrite{ResponseWriter: w, least: "10000000"}, r)
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded, Wrap: c.wrap})
			b := randomBytes(3, testBlob)
			src, layer := withBlob(t, b)
			n := &notices{}
			r := uploading(t, proxyTo(t, s, nil), "ml/big", registry.NewTransfers(t.TempDir()), n)
			if _, err := registry.Copy(t.Context(), r, src, "1", registry.CopyOptions{Tag: "1"}); err != nil {
				t.Fatal(diag.Render(err))
			}
			whole(t, r, layer, b)
			if got := n.String(); (c.notice == "") != (got == "[]") || !strings.Contains(got, c.notice) {
				t.Errorf("notices: %q", got)
			}
		})
	}
}

// rewrite changes what the embedded registry answers.
type rewrite struct {
	http.ResponseWriter
	patch bool
	least string
}

func (w *rewrite) WriteHeader(code int) {
	if w.least != "" {
		w.Header().Set("OCI-Chunk-Min-Length", w.least)
	} else if l := w.Header().Get("Location"); strings.Contains(l, "/uploads/") {
		w.Header().Set("Location", l+"?state=a%2Fb")
	}
	if w.patch && code == http.StatusAccepted {
		code = http.StatusCreated
	}
	w.ResponseWriter.WriteHeader(code)
}

// What was pushed or pulled once is mounted from there, and a memory that is wrong costs nothing but a question.
func TestMountFromMemory(t *testing.T) {
	for _, kind := range servertest.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			s := servertest.Start(t, servertest.Options{Kind: kind, Auth: servertest.Token})
			tr := registry.NewTransfers(t.TempDir())
			open := func(repo string) (*registry.Remote, *wire) {
				o := serverOptions(t, s, servertest.User, servertest.Password)
				w := &wire{next: o.Transport}
				o.Transport, o.Transfers = w, tr
				r, err := registry.NewRemote(s.Host, repo, o)
				if err != nil {
					t.Fatal(err)
				}
				r.SetChunks(1000, testChunk)
				return r, w
			}
			b := randomBytes(4, testChunk+99)
			src, layer := withBlob(t, b)
			first, _ := open("ml/first")
			if _, err := registry.Copy(t.Context(), first, src, "1", registry.CopyOptions{Tag: "1"}); err != nil {
				t.Fatal(diag.Render(err))
			}
			second, sent := open("team/second")
			res, err := registry.Copy(t.Context(), second, src, "1", registry.CopyOptions{Tag: "1"})
			if err != nil || res.Sent != 0 || res.Mounted != 2 || sent.blobBytes.Load() != 0 {
				t.Errorf("%+v, %d bytes of blobs, %v", res, sent.blobBytes.Load(), err)
			}
			whole(t, second, layer, b)

			// The memory says that a blob is where it is not.
			other, otherLayer := withBlob(t, randomBytes(5, testChunk+98))
			tr.Saw(otherLayer.Digest, s.Host, "ml/first")
			third, sent := open("ml/third")
			if _, err := registry.Copy(t.Context(), third, other, "1", registry.CopyOptions{Tag: "1"}); err != nil {
				t.Fatal(diag.Render(err))
			}
			if n := sent.blobBytes.Load(); n != otherLayer.Size {
				t.Errorf("%d bytes sent of a blob of %d", n, otherLayer.Size)
			}
			if k := tr.Known(otherLayer.Digest, s.Host); !slices.Equal(k, []string{"ml/third"}) {
				t.Errorf("the wrong place is still believed: %v", k)
			}
		})
	}
}

// A file that a store refers to changes while it is sent: the upload is not committed, and no tag moves.
func TestFileChangesWhileSent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weights.bin")
	b := randomBytes(6, testBlob)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{Create: true, References: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	in, err := st.Import(t.Context(), f, path, store.ImportOptions{How: store.HowReference})
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var puts, patches int
	s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			mu.Lock()
			defer mu.Unlock()
			if r.Method == http.MethodPut && r.URL.Query().Get("digest") == string(in.Digest) {
				puts++
			}
			if r.Method == http.MethodPatch {
				if patches++; patches == 2 {
					b[len(b)-1] ^= 1
					if err := os.WriteFile(path, b, 0o600); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}})
	src := registry.NewLocal(st, "big")
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x.test","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":"a/b","digest":%q,"size":%d}]}`,
		artifact.MediaTypeManifest, artifact.MediaTypeEmpty, artifact.DigestOf([]byte("{}")), in.Digest, in.Size)
	if _, err := registry.PushBytes(t.Context(), src, artifact.MediaTypeEmpty, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := src.PushManifest(t.Context(), []byte(m), artifact.MediaTypeManifest, "1"); err != nil {
		t.Fatal(err)
	}
	n := &notices{}
	r := uploading(t, proxyTo(t, s, nil), "ml/big", nil, n)
	_, err = registry.Copy(t.Context(), r, src, "1", registry.CopyOptions{Tag: "1"})
	if diag.CodeOf(err) != diag.Verification || !strings.Contains(diag.Render(err), string(in.Digest)) {
		t.Errorf("%s", diag.Render(err))
	}
	mu.Lock()
	if puts != 0 || patches < 2 {
		t.Errorf("%d chunks, %d commits", patches, puts)
	}
	mu.Unlock()
	if _, err := r.Resolve(t.Context(), "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tag: %v", err)
	}
}

// Whatever breaks on the way: the tag names the whole artifact or is where it was, and a run without faults completes the
// push with what is missing and at most one chunk more.
func TestRandomUploadFaults(t *testing.T) {
	s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded})
	b := randomBytes(7, testBlob)
	src, layer := withBlob(t, b)
	old := newModel(t, "0.9")
	want, err := src.Resolve(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	failed, done := 0, 0
	for seed := range uint64(16) {
		p := proxyTo(t, s, nil)
		repo := fmt.Sprintf("ml/random%d", seed)
		tr := registry.NewTransfers(t.TempDir())
		n := &notices{}
		old.push(t, remote(t, p.Host(), repo), "1")
		r := through(t, p, repo, func(o *registry.RemoteOptions) {
			o.Transfers, o.Notify = tr, n.add
			o.Retry = registry.RetryPolicy{Attempts: 2, Wait: time.Microsecond, MaxWait: time.Second}
		})
		r.SetChunks(testChunk/2, testChunk)
		p.SetPlan(faultproxy.Random(seed, func(r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/v2/ml/") && r.Method != http.MethodGet
		}, 0.3, testChunk, faultproxy.Fault{Kind: faultproxy.CutRequest}, faultproxy.Fault{Kind: faultproxy.CutRequest, N: 1}, faultproxy.Fault{Kind: faultproxy.CorruptRequest},
			faultproxy.Fault{Kind: faultproxy.Lost}, faultproxy.Unavailable(0), faultproxy.Fault{Kind: faultproxy.Answer, Status: http.StatusNotFound}))
		_, err := registry.Copy(t.Context(), r, src, "1", registry.CopyOptions{Tag: "1"})
		p.SetPlan(nil)
		clean := remote(t, p.Host(), repo)
		now, rerr := clean.Resolve(t.Context(), "1")
		if rerr != nil {
			t.Fatal(rerr)
		}
		switch {
		case err == nil && now.Digest != want.Digest, now.Digest != want.Digest && now.Digest != old.digest:
			t.Fatalf("seed %d: the tag is at %s: %v", seed, now.Digest, err)
		case now.Digest == want.Digest: // also when the answer to the last request was lost
			whole(t, clean, layer, b)
			done++
			continue
		}
		failed++
		before := blobs(p)
		r = uploading(t, p, repo, tr, n)
		n.reset()
		if _, err := registry.Copy(t.Context(), r, src, "1", registry.CopyOptions{Tag: "1"}); err != nil {
			t.Fatalf("seed %d: without faults: %s", seed, diag.Render(err))
		}
		most, at := int64(testBlob+testChunk+1000), int64(0)
		if i := strings.Index(n.String(), "goes on at "); i >= 0 {
			if _, err := fmt.Sscanf(n.String()[i:], "goes on at %d of", &at); err != nil {
				t.Fatal(err)
			}
			most -= at
		}
		if strings.Contains(n.String(), "the registry got other bytes") { // it was altered before: once more from nothing
			most += testBlob
		}
		if sent := blobs(p) - before; sent > most {
			t.Errorf("seed %d: the run without faults sent %d bytes of %d; %s", seed, sent, testBlob, n)
		}
		whole(t, clean, layer, b)
	}
	t.Logf("%d pushes went through, %d failed and were completed", done, failed)
	if failed == 0 || done == 0 {
		t.Errorf("%d pushes went through, %d failed: the faults test nothing", done, failed)
	}
}
