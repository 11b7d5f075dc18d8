package carrier

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// shelf is content for layouts and archives.
type shelf struct {
	blobs map[artifact.Digest][]byte
	lines []artifact.Descriptor
}

func newShelf() *shelf { return &shelf{blobs: map[artifact.Digest][]byte{}} }

func (s *shelf) put(b []byte) artifact.Descriptor {
	d := artifact.DigestOf(b)
	s.blobs[d] = b
	return artifact.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(b))}
}

// tag lists a manifest under a full name such as churn:channel-prod, or a tag alone.
func (s *shelf) tag(name string, manifest []byte) artifact.Digest {
	d := s.put(manifest)
	d.MediaType = artifact.MediaTypeManifest
	d.Annotations = map[string]string{registry.AnnotationName: name, store.AnnotationRef: "x"}
	s.lines = append(s.lines, d)
	return d.Digest
}

func (s *shelf) index(t testing.TB) []byte {
	t.Helper()
	b, err := json.Marshal(artifact.Index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex, Manifests: s.lines})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// folder writes an OCI layout.
func (s *shelf) folder(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	write("index.json", s.index(t))
	for d, b := range s.blobs {
		write(blobPath(d), b)
	}
}

// archive is the same as a tar.
func (s *shelf) archive(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, b []byte) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(b)), Mode: 0o644, Format: tar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	add("index.json", s.index(t))
	for d, b := range s.blobs {
		add(blobPath(d), b)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
