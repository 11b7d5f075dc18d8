package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/faultproxy"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// An answer that does not end, of any kind that a registry gives, is read up to its limit and no further.
func TestEndlessAnswers(t *testing.T) {
	m, big := bigModel(t, 1<<20)
	p := faulty(t, nil)
	d := m.push(t, through(t, p, "ml/big", nil), "1")
	if _, err := through(t, p, "ml/big", nil).Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	at := func(part string) faultproxy.Match {
		return func(r *http.Request) bool { return r.Method == http.MethodGet && strings.Contains(r.URL.Path, part) }
	}
	for name, c := range map[string]struct {
		match faultproxy.Match
		max   int64
		ask   func(r *registry.Remote) error
	}{
		"manifest":  {at("/manifests/"), artifact.MaxManifest, func(r *registry.Remote) error { _, _, err := r.Manifest(t.Context(), m.digest); return err }},
		"bounded":   {at("/manifests/"), 100, func(r *registry.Remote) error { _, _, err := r.GetBounded(t.Context(), "1", 100); return err }},
		"referrers": {at("/referrers/"), artifact.MaxManifest, func(r *registry.Remote) error { _, err := r.Referrers(t.Context(), m.digest); return err }},
		"tags":      {at("/tags/list"), 16 << 20, func(r *registry.Remote) error { _, err := r.Tags(t.Context()); return err }},
		"blob": {at("/blobs/"), big.Size, func(r *registry.Remote) error {
			_, err := registry.ReadBlob(t.Context(), r, big.Descriptor(), big.Size)
			return err
		}},
		"pull": {at("/blobs/" + string(big.Digest)), big.Size, func(r *registry.Remote) error {
			_, err := registry.Extract(t.Context(), r, []artifact.Layer{big}, t.TempDir(), registry.ExtractOptions{})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := through(t, p, "ml/big", nil)
			p.SetPlan(faultproxy.Always(c.match, faultproxy.Fault{Kind: faultproxy.Endless}))
			p.Reset()
			err := c.ask(r)
			if code := diag.CodeOf(err); code != diag.Verification && code != diag.Registry {
				t.Fatalf("code %d, %v", code, err)
			}
			// What the proxy sent beyond the limit was on its way in buffers of the system.
			if n, _, out := p.Count(func(r faultproxy.Record) bool { return r.Fault == faultproxy.Endless }); n != 1 || out > c.max+64<<20 {
				t.Errorf("%d requests, %d bytes; the limit is %d", n, out, c.max)
			}
		})
	}
}

// Lists in pages are read to their end, from the registry that was asked, and have an end.
func TestPagesOfReferrers(t *testing.T) {
	var pages atomic.Int32
	var mode atomic.Value
	mode.Store("good")
	var refs []artifact.Descriptor
	host, _ := newServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/referrers/") || len(refs) == 0 {
				next.ServeHTTP(w, r)
				return
			}
			n := int(pages.Add(1))
			var page int
			_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
			h := w.Header()
			h.Set("Content-Type", artifact.MediaTypeIndex)
			switch mode.Load() {
			case "good":
				if page+1 < len(refs) {
					h.Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, page+1))
				}
			case "endless":
				h.Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, n))
				page = 0
			case "elsewhere":
				h.Set("Link", fmt.Sprintf(`<http://other.example%s?page=1>; rel="next"`, r.URL.Path))
			case "breaks":
				if page > 0 {
					http.Error(w, "gone", http.StatusNotFound)
					return
				}
				h.Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, page+1))
			}
			b, _ := artifact.Canonical(artifact.Index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex, Manifests: refs[page : page+1]})
			_, _ = w.Write(b)
		})
	})
	r := remote(t, host, "ml/churn")
	m := newModel(t, "1.0")
	d := m.push(t, r, "1.0")
	var list []artifact.Descriptor
	for i := range 3 {
		a, err := r.Attach(t.Context(), d, bundle(i), "https://example.com/p")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	refs = list
	got, err := r.Referrers(t.Context(), d.Digest)
	if err != nil || len(got) != 3 || pages.Load() != 3 {
		t.Fatalf("%d referrers on %d pages, %v", len(got), pages.Load(), err)
	}
	for _, how := range []string{"endless", "elsewhere", "breaks"} {
		mode.Store(how)
		if got, err := r.Referrers(t.Context(), d.Digest); err == nil {
			t.Errorf("%s: %d referrers and no error", how, len(got))
		}
		// A copy that cannot see all of the evidence fails, and sets no tag.
		dst := local(t, "churn")
		if _, err := registry.Copy(t.Context(), dst, r, "1.0", registry.CopyOptions{Tag: "1.0"}); err == nil {
			t.Errorf("%s: copied", how)
		}
		if tags, _ := dst.Tags(t.Context()); len(tags) != 0 {
			t.Errorf("%s: tags %v", how, tags)
		}
	}
}
