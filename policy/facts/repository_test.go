package facts

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/policy/policytest"
)

// putter is what both a store and a registry do, in words of their own.
type putter struct {
	blob     func(mediaType string, b []byte) error
	manifest func(mediaType string, b []byte) error
}

// places are a local store and the embedded registry, both empty.
func places(t *testing.T) map[string]struct {
	Repository
	putter
} {
	t.Helper()
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	srv := servertest.Start(t, servertest.Options{Kind: servertest.Embedded})
	rem, err := registry.NewRemote(srv.Host, "ml/churn", registry.RemoteOptions{PlainHTTP: true, Keychain: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	return map[string]struct {
		Repository
		putter
	}{
		"store": {st, putter{
			func(mt string, b []byte) error { _, err := st.PutBytes(ctx, mt, b); return err },
			func(mt string, b []byte) error { _, err := st.PutManifest(ctx, b, mt, store.PutOptions{}); return err },
		}},
		"registry": {rem, putter{
			func(mt string, b []byte) error {
				return rem.PushBlob(ctx, artifact.Descriptor{MediaType: mt, Digest: artifact.DigestOf(b), Size: int64(len(b))}, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
			},
			func(mt string, b []byte) error {
				_, err := rem.PushManifest(ctx, b, mt, "")
				return err
			},
		}},
	}
}

// nobody has no credentials, whatever this machine's configuration says.
type nobody struct{}

func (nobody) Login(context.Context, string, string) (registry.Login, error) {
	return registry.Login{}, nil
}

func put(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// attach stores a bundle as a referrer of the artifact.
func (p putter) attach(t *testing.T, w *policytest.World, d artifact.Digest, bundle []byte) {
	t.Helper()
	m, err := artifact.BuildReferrer(artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: d, Size: int64(len(w.Manifests[d]))}, bundle, "x")
	put(t, err, p.blob(artifact.MediaTypeBundle, bundle), p.manifest(artifact.MediaTypeManifest, m))
}

// The same facts come out of memory, a store and a registry; with more evidence than the limit none of it is read, and the
// document says so.
func TestRealPlaces(t *testing.T) {
	for name, place := range places(t) {
		t.Run(name, func(t *testing.T) {
			w := policytest.New(t, somePolicy)
			d := w.Release(t, policytest.Default(), 0.98, 0.1)
			w.Prove(t, d)
			want := collected(t, w, d, seam{})
			m, err := artifact.ParseManifest(w.Manifests[d])
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range append(m.Layers, m.Config) {
				put(t, place.blob(l.MediaType, w.Blobs[l.Digest]))
			}
			put(t, place.blob(artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig)), place.manifest(artifact.MediaTypeManifest, w.Manifests[d]))
			for _, b := range w.Attached[d] {
				place.attach(t, w, d, b)
			}
			src := FromRepository(place.Repository)
			r, err := Collect(t.Context(), src, src, ask(t, w, d))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the document", r.Input, want)

			junk := make([]byte, artifact.MaxBundle)
			for i := range MaxEvidenceBytes/artifact.MaxBundle + 1 {
				binary.LittleEndian.PutUint64(junk, uint64(i))
				place.attach(t, w, d, junk)
			}
			r, err = Collect(t.Context(), src, src, ask(t, w, d))
			if err != nil {
				t.Fatal(err)
			}
			in := r.Input
			if got := problems(in); !strings.Contains(got, "evidence: ") || !strings.Contains(got, "more than") {
				t.Errorf("problems %q", got)
			}
			if len(in.Signatures)+len(in.Attestations)+len(in.Metrics)+len(in.Provenance)+len(in.Approvals) != 0 || in.SBOM.Present || in.Vulnerabilities.Scanned {
				t.Error("some of the evidence is in the facts")
			}
		})
	}
}

// crowded is a repository that lists more referrers than are read.
type crowded struct{ asked int }

func (c *crowded) Resolve(context.Context, string) (artifact.Descriptor, error) {
	return artifact.Descriptor{}, fs.ErrNotExist
}
func (c *crowded) Manifest(context.Context, artifact.Digest) ([]byte, artifact.Descriptor, error) {
	c.asked++
	return nil, artifact.Descriptor{}, fs.ErrNotExist
}
func (c *crowded) Blob(context.Context, artifact.Descriptor) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
}
func (c *crowded) Referrers(context.Context, artifact.Digest) ([]artifact.Descriptor, error) {
	return make([]artifact.Descriptor, MaxBundles+1), nil
}

func TestManyReferrers(t *testing.T) {
	c := &crowded{}
	if _, err := FromRepository(c).Bundles(t.Context(), somePolicy); err == nil || !strings.Contains(err.Error(), "limit") || c.asked != 0 {
		t.Errorf("%v after %d questions", err, c.asked)
	}
}
