package edge

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Layout gives the layers of the artifact with this digest from an OCI layout folder. There is no way to leave the digest out: it
// is what `waybill verify` printed for a signed release, it covers the manifest, the manifest covers the layers, and Load
// checks each of them. A tag would be somebody's word.
func Layout(dir, digest string) (Files, error) {
	d, err := artifact.ParseDigest(digest)
	if err != nil {
		return Files{}, fmt.Errorf("open %s: %w", dir, err)
	}
	path := func(d artifact.Digest) string { return filepath.Join(dir, "blobs", "sha256", d.Hex()) }
	st, err := os.Stat(path(d))
	if err == nil && st.Size() > artifact.MaxManifest {
		err = fmt.Errorf("the manifest has %d bytes, more than %d", st.Size(), artifact.MaxManifest)
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(path(d))
	}
	if err != nil {
		return Files{}, fmt.Errorf("open %s: %w", dir, err)
	}
	m, err := verify.Manifest(raw, d)
	if err != nil {
		return Files{}, fmt.Errorf("open %s: %w", dir, err)
	}
	return Files{Layers: m.OnDevice(), Path: path, Read: func(l artifact.Layer) ([]byte, error) { return readLayer(path(l.Digest), l.Size) }}, nil
}

// readLayer reads a file that must have exactly that size.
func readLayer(path string, size int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() != size {
		return nil, fmt.Errorf("%s has %d bytes, the manifest says %d", path, st.Size(), size)
	}
	return os.ReadFile(path)
}
