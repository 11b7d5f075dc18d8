package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
	"github.com/waybill-ml/waybill/oci/store"
)

// Every implementation of Repository keeps the same promises.
func TestRepositories(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) registry.Place{
		"local":  func(t *testing.T) registry.Place { return local(t, "churn") },
		"layout": func(t *testing.T) registry.Place { return registry.NewLayout(local(t, "x").Store()) },
		"remote": func(t *testing.T) registry.Place { h, _ := newServer(t, nil); return remote(t, h, "ml/churn") },
		"remote without referrers API": func(t *testing.T) registry.Place {
			h, _ := newServer(t, noReferrersAPI)
			return remote(t, h, "ml/churn")
		},
	} {
		t.Run(name, func(t *testing.T) { testRepository(t, open(t)) })
	}
}

func testRepository(t *testing.T, r registry.Place) {
	ctx := t.Context()
	if _, err := r.Resolve(ctx, "1.0"); diag.CodeOf(err) != diag.NotFound || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Resolve of nothing: %v (code %d)", err, diag.CodeOf(err))
	}
	m := newModel(t, "1.0")
	d := m.push(t, r, "1.0")
	if d.Size != int64(len(m.manifest)) || d.MediaType != artifact.MediaTypeManifest || d.ArtifactType != artifact.ArtifactType {
		t.Fatalf("descriptor %+v", d)
	}
	m.push(t, r, "stable") // again, under another tag
	m.check(t, r, "1.0")
	m.check(t, r, string(m.digest))

	if got, err := r.HeadTag(ctx, "1.0"); err != nil || got != m.digest {
		t.Fatalf("HeadTag: %s %v", got, err)
	}
	if _, _, err := r.GetBounded(ctx, "1.0", int64(len(m.manifest))-1); err == nil {
		t.Fatal("GetBounded passed its limit")
	}
	if b, _, err := r.GetBounded(ctx, "1.0", int64(len(m.manifest))); err != nil || !bytes.Equal(b, m.manifest) {
		t.Fatalf("GetBounded: %v", err)
	}

	refs, err := r.Referrers(ctx, m.digest)
	if err != nil || refs == nil || len(refs) != 0 {
		t.Fatalf("Referrers of a bare model: %v %v", refs, err)
	}
	a, err := r.Attach(ctx, d, bundle(1), "https://example.com/p1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Attach(ctx, d, bundle(1), "https://example.com/p1")
	if err != nil || again.Digest != a.Digest {
		t.Fatalf("attached twice: %s and %s, %v", a.Digest, again.Digest, err)
	}
	b, err := r.Attach(ctx, d, bundle(2), "https://example.com/p2")
	if err != nil {
		t.Fatal(err)
	}
	refs, err = r.Referrers(ctx, m.digest)
	if err != nil || len(refs) != 2 || refs[0].Digest > refs[1].Digest {
		t.Fatalf("Referrers: %v %v", refs, err)
	}
	for _, want := range []artifact.Descriptor{a, b} {
		i := slices.IndexFunc(refs, func(d artifact.Descriptor) bool { return d.Digest == want.Digest })
		if i < 0 || refs[i].ArtifactType != artifact.MediaTypeBundle || !strings.HasPrefix(refs[i].Annotations[artifact.AnnotationBundlePredicate], "https://example.com/p") {
			t.Fatalf("referrer %s is missing or bare in %+v", want.Digest, refs)
		}
	}
	mb, _, err := r.Manifest(ctx, a.Digest)
	if err != nil {
		t.Fatal(err)
	}
	am, err := artifact.ParseManifest(mb)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := registry.ReadBlob(ctx, r, am.Layers[0], artifact.MaxBundle); err != nil || !bytes.Equal(got, bundle(1)) {
		t.Fatalf("bundle: %q %v", got, err)
	}

	m2 := newModel(t, "2.0")
	m2.push(t, r, "2.0")
	if _, _, err := r.SwapTag(ctx, m2.manifest, artifact.MediaTypeManifest, "stable", m2.digest); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("SwapTag from a wrong digest: %v", err)
	}
	if _, _, err := r.SwapTag(ctx, m2.manifest, artifact.MediaTypeManifest, "stable", ""); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("SwapTag of a tag that exists: %v", err)
	}
	m.check(t, r, "stable")
	if _, atomic, err := r.SwapTag(ctx, m2.manifest, artifact.MediaTypeManifest, "stable", m.digest); err != nil || !atomic {
		t.Fatalf("SwapTag: %v, atomic %v", err, atomic)
	}
	if _, atomic, err := r.SwapTag(ctx, m2.manifest, artifact.MediaTypeManifest, "new", ""); err != nil || !atomic {
		t.Fatalf("SwapTag of a new tag: %v, atomic %v", err, atomic)
	}
	m2.check(t, r, "stable")
	tags, err := r.Tags(ctx)
	tags = slices.DeleteFunc(tags, func(s string) bool { return strings.HasPrefix(s, "sha256-") })
	if err != nil || !slices.Equal(tags, []string{"1.0", "2.0", "new", "stable"}) {
		t.Fatalf("Tags: %v %v", tags, err)
	}

	// A digest becomes part of a file name or URL, and a size a limit.
	for _, bad := range []artifact.Descriptor{{Digest: "sha256:../../../../../../../../../../etc/passwd", Size: 5}, {Digest: "1.0", Size: 5}, {Digest: m.digest, Size: -1}, {}} {
		if rc, err := r.Blob(ctx, bad); err == nil {
			_, err = io.ReadAll(rc)
			rc.Close()
			if diag.CodeOf(err) != diag.Verification {
				t.Fatalf("Blob of %+v: %v", bad, err)
			}
		}
		if _, _, err := r.Manifest(ctx, bad.Digest); err == nil && bad.Size >= 0 {
			t.Fatalf("Manifest of %q", bad.Digest)
		}
		if err := r.PushBlob(ctx, bad, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }); err == nil {
			t.Fatalf("PushBlob of %+v", bad)
		}
	}

	// A manifest whose blobs are not there is refused.
	m3 := newModel(t, "3.0")
	if _, err := r.PushManifest(ctx, m3.manifest, artifact.MediaTypeManifest, "3.0"); diag.CodeOf(err) != diag.NotFound {
		t.Fatalf("manifest without blobs: %v", err)
	}
	// So is a blob that is not what its descriptor says.
	lie := artifact.Descriptor{MediaType: "x/y", Digest: artifact.DigestOf([]byte("truth")), Size: 5}
	if err := r.PushBlob(ctx, lie, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("liars")), nil }); err == nil {
		t.Fatal("stored a blob under a digest that is not its own")
	}
	if _, err := r.Blob(ctx, lie); diag.CodeOf(err) != diag.NotFound {
		t.Fatalf("Blob of a refused push: %v", err)
	}
}

func TestCopyCarriesEvidence(t *testing.T) {
	ctx := t.Context()
	host, _ := newServer(t, nil)
	host2, _ := newServer(t, noReferrersAPI)
	src := local(t, "churn")
	m := newModel(t, "1.0")
	d := m.push(t, src, "1.0")
	a, err := src.Attach(ctx, d, bundle(1), "https://example.com/p1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.Attach(ctx, a, bundle(2), "https://example.com/about-p1"); err != nil { // evidence about evidence
		t.Fatal(err)
	}
	prev := registry.Repository(src)
	for i, dst := range []registry.Place{remote(t, host, "ml/a"), remote(t, host, "ml/b"), remote(t, host2, "ml/c"), local(t, "back"), registry.NewLayout(local(t, "x").Store())} {
		res, err := registry.Copy(ctx, dst, prev, "1.0", registry.CopyOptions{Tag: "1.0"})
		if err != nil {
			t.Fatalf("copy %d: %v", i, err)
		}
		if res.Descriptor.Digest != m.digest || len(res.Referrers) != 2 {
			t.Fatalf("copy %d: %+v", i, res)
		}
		if i == 1 && (res.Sent != 0 || res.Mounted != 7) { // 3 layers, config, empty config, 2 bundles
			t.Fatalf("copy inside one registry sent bytes: %+v", res)
		}
		m.check(t, dst, "1.0")
		for _, s := range []artifact.Digest{m.digest, a.Digest} {
			if refs, err := dst.Referrers(ctx, s); err != nil || len(refs) != 1 {
				t.Fatalf("copy %d: referrers of %s: %v %v", i, s, refs, err)
			}
		}
		res, err = registry.Copy(ctx, dst, prev, "1.0", registry.CopyOptions{Tag: "1.0"})
		if err != nil || res.Sent != 0 || res.Mounted != 0 {
			t.Fatalf("second copy sent something: %+v %v", res, err)
		}
		prev = dst
	}
	bare := local(t, "bare")
	if res, err := registry.Copy(ctx, bare, src, "1.0", registry.CopyOptions{NoReferrers: true}); err != nil || len(res.Referrers) != 0 {
		t.Fatalf("%+v %v", res, err)
	}
	if tags, _ := bare.Tags(ctx); len(tags) != 0 {
		t.Fatalf("tags without asking: %v", tags)
	}
}

// A client must not believe a registry whose content was altered, cut short or blown up; nothing of it may end up
// under a final name.
func TestAlteredContent(t *testing.T) {
	ctx := t.Context()
	m := newModel(t, "1.0")
	var victim artifact.Descriptor
	model, err := artifact.ParseModel(m.manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range model.Manifest.Layers {
		if l.Annotations[artifact.AnnotationRole] == string(artifact.RoleSource) {
			victim = l
		}
	}
	alter := map[string]func(b []byte) []byte{
		"one byte altered": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"truncated":        func(b []byte) []byte { return b[:len(b)/2] },
		"oversized":        func(b []byte) []byte { return append(b, "more"...) },
	}
	for name, f := range alter {
		t.Run(name, func(t *testing.T) {
			host, root := newServer(t, nil)
			r := remote(t, host, "ml/churn")
			m.push(t, r, "1.0")
			p := filepath.Join(root, "repo-ml+churn", "blobs", "sha256", victim.Digest.Hex())
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			b = f(b)
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
			dst := local(t, "churn")
			_, err = registry.Copy(ctx, dst, r, "1.0", registry.CopyOptions{Tag: "1.0"})
			if diag.CodeOf(err) != diag.Verification {
				t.Fatalf("copy: code %d, %v", diag.CodeOf(err), err)
			}
			msg := diag.Render(err)
			if !strings.Contains(msg, string(victim.Digest)) {
				t.Errorf("the message does not name the wanted digest:\n%s", msg)
			}
			if name == "one byte altered" && !strings.Contains(msg, string(artifact.DigestOf(b))) {
				t.Errorf("the message does not name the digest that came:\n%s", msg)
			}
			if _, err := os.Stat(dst.Store().BlobPath(victim.Digest)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file stands under the final name: %v", err)
			}
			if tags, _ := dst.Tags(ctx); len(tags) != 0 {
				t.Errorf("a tag was set: %v", tags)
			}
			es, _ := os.ReadDir(filepath.Join(dst.Store().Dir(), ".ingest"))
			if len(es) != 0 {
				t.Errorf("temporary files were left: %v", es)
			}
			// Without the check the attack succeeds: the same bytes, read raw, are the altered ones.
			resp, err := http.Get("http://" + host + "/v2/ml/churn/blobs/" + string(victim.Digest))
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if !bytes.Equal(raw, b) {
				t.Errorf("the registry did not send the altered bytes: the test proves nothing")
			}
		})
	}
	t.Run("manifest", func(t *testing.T) {
		host, root := newServer(t, nil)
		r := remote(t, host, "ml/churn")
		m.push(t, r, "1.0")
		p := filepath.Join(root, "repo-ml+churn", "blobs", "sha256", m.digest.Hex())
		bad := bytes.Replace(m.manifest, []byte("model.wasm"), []byte("mordl.wasm"), -1)
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := r.Manifest(ctx, m.digest)
		if diag.CodeOf(err) != diag.Verification || !strings.Contains(diag.Render(err), string(artifact.DigestOf(bad))) {
			t.Fatalf("%v", err)
		}
	})
}

// A blob that was damaged in the local store is healed by pulling again.
func TestPullHeals(t *testing.T) {
	host, _ := newServer(t, nil)
	r := remote(t, host, "ml/churn")
	m := newModel(t, "1.0")
	m.push(t, r, "1.0")
	dst := local(t, "churn")
	for i := range 2 {
		res, err := registry.Copy(t.Context(), dst, r, "1.0", registry.CopyOptions{Tag: "1.0"})
		if err != nil || res.Sent != []int{4, 1}[i] {
			t.Fatalf("%+v %v", res, err)
		}
		m.check(t, dst, "1.0")
		for d, b := range m.layers {
			if len(b) > 1000 { // same size, other content
				if err := os.WriteFile(dst.Store().BlobPath(d), make([]byte, len(b)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// A broken connection is continued with a range request, and the whole is hashed.
func TestBlobResumes(t *testing.T) {
	var gets, ranged atomic.Int32
	host, _ := newServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				if r.Header.Get("Range") != "" {
					ranged.Add(1)
				}
				if gets.Add(1) <= 2 {
					w = &cutter{ResponseWriter: w, left: 30000}
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	r := remote(t, host, "ml/big")
	data := bytes.Repeat([]byte("0123456789abcdef"), 10000)
	d, err := registry.PushBytes(t.Context(), r, "x/y", data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := registry.ReadBlob(t.Context(), r, d, 1<<20)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if gets.Load() != 3 || ranged.Load() != 2 {
		t.Fatalf("%d GETs, %d with a range; want 3 and 2", gets.Load(), ranged.Load())
	}
}

// cutter aborts the connection after some bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func TestRetry(t *testing.T) {
	var n atomic.Int32
	answer := atomic.Int32{}
	answer.Store(http.StatusServiceUnavailable)
	host, _ := newServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") && n.Add(1) <= 2 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(int(answer.Load()))
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	r := remote(t, host, "ml/churn")
	m := newModel(t, "1.0")
	m.push(t, r, "1.0") // the PUT of the manifest succeeds at the third attempt
	if n.Load() != 3 {
		t.Fatalf("%d attempts, want 3", n.Load())
	}
	n.Store(0)
	answer.Store(http.StatusTooManyRequests)
	m.check(t, r, "1.0")
	n.Store(-100) // always fails
	_, err := r.Resolve(t.Context(), "1.0")
	if diag.CodeOf(err) != diag.Registry || n.Load() != -96 {
		t.Fatalf("%v after %d attempts", err, n.Load()+100)
	}
	// An error is an error: a registry that fails has not said that there is no evidence.
	n.Store(-100)
	if refs, err := r.Referrers(t.Context(), m.digest); err == nil {
		t.Fatalf("Referrers of a failing registry: %v", refs)
	}
}

func TestRegistryDown(t *testing.T) {
	r := remote(t, "127.0.0.1:1", "ml/churn")
	_, err := r.Resolve(t.Context(), "1.0")
	if diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "hint: waybill registry serve --addr 127.0.0.1:1") {
		t.Fatalf("%s", diag.Render(err))
	}
	other, err := registry.NewRemote("127.0.0.1:1", "ml/churn", registry.RemoteOptions{DownHint: "curl -sSf http://127.0.0.1:1/v2/", Retry: registry.RetryPolicy{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Resolve(t.Context(), "1.0"); !strings.Contains(diag.Render(err), "hint: curl -sSf http://127.0.0.1:1/v2/") || strings.Contains(diag.Render(err), "registry serve") {
		t.Fatalf("%s", diag.Render(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Resolve(ctx, "1.0"); !errors.Is(err, context.Canceled) || diag.CodeOf(err) != diag.Interrupted {
		t.Fatalf("cancelled: %v", err)
	}
}

// Plain http leaves this machine only when it is allowed.
func TestPlainHTTP(t *testing.T) {
	for _, host := range []string{"10.1.2.3:5000", "registry.local:5000", "reg.example"} {
		var schemes []string
		var mu sync.Mutex
		rt := roundTrip(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			schemes = append(schemes, r.URL.Scheme)
			return nil, errors.New("no network here")
		})
		for _, plain := range []bool{false, true} {
			schemes = nil
			o := fastOptions()
			o.Transport, o.PlainHTTP = rt, plain
			r, err := registry.NewRemote(host, "ml/churn", o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Resolve(t.Context(), "1.0"); err == nil {
				t.Fatal("no error")
			}
			if got := slices.Contains(schemes, "http"); got != plain {
				t.Errorf("%s with PlainHTTP %v: schemes %v", host, plain, schemes)
			}
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Two writers that attach at once to a registry without referrers API overwrite each other's fallback index; the tag
// of each bundle keeps both findable.
func TestConcurrentAttachWithoutReferrersAPI(t *testing.T) {
	for _, o := range []servertest.Options{
		{Kind: servertest.Embedded, Wrap: noReferrersAPI}, {Kind: servertest.DockerRegistry}, {Kind: servertest.Distribution},
	} {
		t.Run(string(o.Kind), func(t *testing.T) { concurrentAttach(t, servertest.Start(t, o).Host) })
	}
}

func concurrentAttach(t *testing.T, host string) {
	ctx := t.Context()
	// The distribution project's registries write a tag in place: who reads meanwhile is told 500, and asks again.
	open := func() *registry.Remote {
		o := fastOptions()
		o.Retry = registry.RetryPolicy{Attempts: 12, Wait: 10 * time.Millisecond, MaxWait: 10 * time.Second}
		r, err := registry.NewRemote(host, "ml/churn", o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open()
	m := newModel(t, "1.0")
	d := m.push(t, r, "1.0")
	const writers = 8
	var rs [writers]*registry.Remote
	for i := range rs {
		rs[i] = open()
	}
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = rs[i].Attach(ctx, d, bundle(i), fmt.Sprint("https://example.com/", i))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	// The worst that a lost update can do: the index of one writer alone, or none.
	one, err := artifact.BuildReferrer(d, bundle(0), "https://example.com/0")
	if err != nil {
		t.Fatal(err)
	}
	am, _ := artifact.ParseManifest(one)
	x, _ := artifact.Canonical(artifact.Index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex, Manifests: []artifact.Descriptor{artifact.DescriptorOf(one, am)}})
	if _, err := r.PushManifest(ctx, x, artifact.MediaTypeIndex, artifact.ReferrersTag(m.digest)); err != nil {
		t.Fatal(err)
	}
	refs, err := r.Referrers(ctx, m.digest)
	if err != nil || len(refs) != writers {
		t.Fatalf("%d of %d referrers found, %v", len(refs), writers, err)
	}
}

// What a registry declares does not make a referrer: the manifest's own subject does.
func TestForgedReferrerIsDropped(t *testing.T) {
	ctx := t.Context()
	host, _ := newServer(t, nil)
	r := remote(t, host, "ml/churn")
	m, other := newModel(t, "1.0"), newModel(t, "2.0")
	d, od := m.push(t, r, "1.0"), other.push(t, r, "2.0")
	a, err := r.Attach(ctx, od, bundle(1), "https://example.com/p")
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := r.Manifest(ctx, a.Digest)
	if err != nil {
		t.Fatal(err)
	}
	// The evidence of another model, under a tag that claims it for this one.
	if _, err := r.PushManifest(ctx, b, artifact.MediaTypeManifest, artifact.ReferrersTag(d.Digest)+".0123456789ab"); err != nil {
		t.Fatal(err)
	}
	if refs, err := r.Referrers(ctx, d.Digest); err != nil || len(refs) != 0 {
		t.Fatalf("%v %v", refs, err)
	}
}
