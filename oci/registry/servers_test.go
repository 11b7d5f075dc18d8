package registry_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
)

// forEachServer runs f against every registry, each way to log in, with and without TLS.
func forEachServer(t *testing.T, f func(t *testing.T, s *servertest.Server)) {
	for _, kind := range servertest.Kinds() {
		for _, auth := range []servertest.Auth{servertest.Open, servertest.Basic, servertest.Token} {
			for _, tls := range []bool{false, true} {
				o := servertest.Options{Kind: kind, Auth: auth, TLS: tls}
				t.Run(o.String(), func(t *testing.T) { f(t, servertest.Start(t, o)) })
			}
		}
	}
}

func serverOptions(t *testing.T, s *servertest.Server, user, password string) registry.RemoteOptions {
	o := fastOptions()
	o.Transport = s.Transport(t)
	if user != "" {
		o.Keychain = keychain{user, password}
	}
	return o
}

// on is a repository of a server, as its user sees it, and a log of the requests.
func on(t *testing.T, s *servertest.Server, repo string) (*registry.Remote, *wire) {
	t.Helper()
	o := serverOptions(t, s, servertest.User, servertest.Password)
	w := &wire{next: o.Transport}
	o.Transport = w
	r, err := registry.NewRemote(s.Host, repo, o)
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// What a registry must do for us, the same for all of them.
func TestServers(t *testing.T) {
	forEachServer(t, func(t *testing.T, s *servertest.Server) {
		m := newModel(t, "1.0")
		r, sent := on(t, s, "ml/churn")
		src := local(t, "churn")
		d := m.push(t, src, "1.0")
		if _, err := src.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
			t.Fatal(err)
		}
		copyTo := func(dst registry.Repository, src registry.Repository, tag string) registry.CopyResult {
			t.Helper()
			res, err := registry.Copy(t.Context(), dst, src, "1.0", registry.CopyOptions{Tag: tag})
			if err != nil {
				t.Fatal(diag.Render(err))
			}
			return res
		}

		// What is not there.
		if _, err := r.Resolve(t.Context(), "1.0"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before the push: %v", err)
		}
		if refs, err := r.Referrers(t.Context(), m.digest); err != nil || len(refs) != 0 {
			t.Errorf("referrers of nothing: %v %v", refs, err)
		}

		if res := copyTo(r, src, "1.0"); res.Sent == 0 || len(res.Referrers) != 1 {
			t.Errorf("push: %+v", res)
		}
		m.check(t, r, "1.0")

		// Again: nothing is sent.
		before := sent.bytes.Load()
		if res := copyTo(r, src, "1.0"); res.Sent != 0 {
			t.Errorf("second push: %+v", res)
		}
		again := sent.bytes.Load() - before
		t.Logf("second push: %d bytes of bodies, the blobs have %d", again, m.size())
		if again > 16<<10 {
			t.Errorf("second push sent %d bytes", again)
		}

		// Back, into a new store, with the evidence.
		back := local(t, "back")
		copyTo(back, r, "1.0")
		m.check(t, back, "1.0")
		if refs, err := back.Referrers(t.Context(), m.digest); err != nil || len(refs) != 1 {
			t.Errorf("pull: evidence %v %v", refs, err)
		}

		// To another repository of the same registry: blobs are mounted.
		other, sent := on(t, s, "ml/mirror/churn")
		if res := copyTo(other, r, "1.0"); res.Sent != 0 || res.Mounted == 0 || len(res.Referrers) != 1 {
			t.Errorf("copy inside the registry: %+v", res)
		}
		m.check(t, other, "1.0")
		if n := sent.blobBytes.Load(); n != 0 {
			t.Errorf("copy inside the registry sent %d bytes of blobs", n)
		}

		// Evidence, by the API or by tags.
		for i := range 3 {
			if _, err := r.Attach(t.Context(), d, bundle(i), "https://example.com/p"); err != nil {
				t.Fatal(err)
			}
		}
		refs, err := r.Referrers(t.Context(), m.digest)
		if err != nil || len(refs) != 3 { // bundle 1 was there
			t.Errorf("evidence: %v %v", refs, err)
		}
		if !slices.IsSortedFunc(refs, func(a, b artifact.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) }) {
			t.Errorf("evidence is not in the order of the digests: %v", refs)
		}

		if s.Auth == servertest.Open {
			return
		}
		for name, o := range map[string]registry.RemoteOptions{
			"nobody":         serverOptions(t, s, "", ""),
			"wrong password": serverOptions(t, s, servertest.User, "guess"),
		} {
			o.Transport = &wire{next: o.Transport}
			x, err := registry.NewRemote(s.Host, "ml/churn", o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = x.Resolve(t.Context(), "1.0")
			if diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "docker login "+s.Host) || strings.Contains(diag.Render(err), "guess") {
				t.Errorf("%s: %s", name, diag.Render(err))
			}
			if refs, err := x.Referrers(t.Context(), m.digest); err == nil {
				t.Errorf("%s: refused access reads as no evidence: %v", name, refs)
			}
		}
	})
}
