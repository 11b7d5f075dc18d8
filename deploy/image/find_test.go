package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// shelf is a repository in memory.
type shelf struct {
	tags  map[string]artifact.Digest
	blobs map[artifact.Digest][]byte
	types map[artifact.Digest]string
}

func newShelf() *shelf {
	return &shelf{tags: map[string]artifact.Digest{}, blobs: map[artifact.Digest][]byte{}, types: map[artifact.Digest]string{}}
}

func (s *shelf) PushBlob(_ context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	s.blobs[d.Digest], err = io.ReadAll(r)
	return err
}

func (s *shelf) PushManifest(_ context.Context, b []byte, mediaType, tag string) (artifact.Descriptor, error) {
	d := describe(b, mediaType)
	s.blobs[d.Digest], s.types[d.Digest] = b, mediaType
	if tag != "" {
		s.tags[tag] = d.Digest
	}
	return d, nil
}

func (s *shelf) Resolve(_ context.Context, tag string) (artifact.Descriptor, error) {
	d, ok := s.tags[tag]
	if !ok {
		return artifact.Descriptor{}, diag.Wrap(diag.NotFound, fs.ErrNotExist, "%s", tag)
	}
	return describe(s.blobs[d], s.types[d]), nil
}

func (s *shelf) Manifest(_ context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error) {
	return s.blobs[d], describe(s.blobs[d], s.types[d]), nil
}

func (s *shelf) Blob(_ context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.blobs[d.Digest])), nil
}

func TestLookup(t *testing.T) {
	p, target := released(t)
	st := staged(t, p, target)
	for _, arches := range [][]string{{"amd64"}, {"arm64", "amd64"}} {
		var ps []Platform
		for _, a := range arches {
			ps = append(ps, Platform{OS: "linux", Arch: a})
		}
		set, err := Build(st, programs(t, ps...), Options{Variant: Plain})
		if err != nil {
			t.Fatal(err)
		}
		s := newShelf()
		if err := set.Push(t.Context(), s, "v1", TagOf(st.Digest, Plain)); err != nil {
			t.Fatal(err)
		}
		f, err := Lookup(t.Context(), s, st.Digest, Plain)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Join(map[bool][]string{true: {"amd64"}, false: {"amd64", "arm64"}}[len(arches) == 1], " ")
		if f.Root.Digest != set.Root.Digest || strings.Join(f.Arches, " ") != want || f.Trust != st.TrustDigest {
			t.Errorf("%+v, not %s for %s", f, set.Root.Digest, want)
		}
		most := int64(0)
		for _, i := range set.Images {
			most = max(most, i.Size)
		}
		if f.Size != most {
			t.Errorf("size %d, not %d", f.Size, most)
		}
		if _, err := Lookup(t.Context(), s, st.Digest, Lambda); diag.CodeOf(err) != diag.NotFound {
			t.Errorf("another variant: %v", err)
		}
		// The tag of one artifact on the image of another.
		other := artifact.DigestOf([]byte("other"))
		s.tags[TagOf(other, Plain)] = set.Root.Digest
		if _, err := Lookup(t.Context(), s, other, Plain); diag.CodeOf(err) != diag.Verification {
			t.Errorf("a tag that lies about the artifact: %v", err)
		}
		s.tags[TagOf(st.Digest, Lambda)] = set.Root.Digest
		if _, err := Lookup(t.Context(), s, st.Digest, Lambda); diag.CodeOf(err) != diag.Verification {
			t.Errorf("a tag that lies about the variant: %v", err)
		}
		for name, change := range map[string]func(m map[string]any){
			"no annotations":  func(m map[string]any) { delete(m, "annotations") },
			"a large config":  func(m map[string]any) { m["config"] = map[string]any{"size": 1 << 40, "digest": string(other)} },
			"an empty index":  func(m map[string]any) { m["manifests"], m["mediaType"] = []any{}, artifact.MediaTypeIndex },
			"no list at all":  func(m map[string]any) { m["manifests"] = 5 },
			"a missing image": func(m map[string]any) { m["config"] = map[string]any{"size": 5, "digest": string(other)} },
		} {
			var m map[string]any
			if err := json.Unmarshal(s.blobs[set.Root.Digest], &m); err != nil {
				t.Fatal(err)
			}
			change(m)
			raw, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			kind := artifact.MediaTypeManifest
			if k, ok := m["mediaType"].(string); ok {
				kind = k
			}
			if _, isIndex := m["layers"]; !isIndex && strings.Contains(name, "onfig") || len(arches) == 2 && name == "a missing image" {
				continue // an index has no configuration
			}
			if _, err := s.PushManifest(t.Context(), raw, kind, TagOf(st.Digest, Plain)); err != nil {
				t.Fatal(err)
			}
			if _, err := Lookup(t.Context(), s, st.Digest, Plain); err == nil {
				t.Errorf("%s is accepted", name)
			}
		}
	}
}
