package edge

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// layout is an OCI layout in a folder or in an archive. Nothing in it is believed.
type layout struct {
	dir   string
	file  *os.File // of an archive
	index []byte
	blobs map[artifact.Digest]extent // of an archive
	same  func(got, want artifact.Digest) bool
}

type extent struct{ at, size int64 }

// Limits of what is read before anything is proven.
const (
	maxEntries = 100_000
	maxDepth   = 3
)

func openLayout(from string, same func(got, want artifact.Digest) bool) (*layout, error) {
	st, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	l := &layout{same: same}
	if st.IsDir() {
		l.dir = from
		l.index, err = readAtMost(filepath.Join(from, "index.json"), artifact.MaxManifest)
		return l, err
	}
	if l.file, err = os.Open(from); err != nil {
		return nil, err
	}
	if err := l.scan(st.Size()); err != nil {
		l.close()
		return nil, fmt.Errorf("no archive of an OCI layout: %w", err)
	}
	return l, nil
}

// scan notes where the blobs of the archive lie.
func (l *layout) scan(size int64) error {
	l.blobs = map[artifact.Digest]extent{}
	t := tar.NewReader(l.file)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if n == maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := l.file.Seek(0, io.SeekCurrent) // the reader has read the header and no more
		if err != nil {
			return err
		}
		if h.Size < 0 || at+h.Size > size {
			return fmt.Errorf("it ends in the middle of %s", h.Name)
		}
		name := path.Clean(h.Name)
		hex, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		switch {
		case isBlob:
			d, err := artifact.ParseDigest("sha256:" + hex)
			if err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			l.blobs[d] = extent{at, h.Size}
		case name == "index.json":
			if l.index != nil || h.Size > artifact.MaxManifest {
				return errors.New("index.json is too large or there twice")
			}
			if l.index, err = io.ReadAll(t); err != nil {
				return err
			}
		}
	}
	if l.index == nil {
		return errors.New("there is no index.json")
	}
	return nil
}

func (l *layout) close() {
	if l.file != nil {
		_ = l.file.Close() // read only
	}
}

func (l *layout) path(d artifact.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", d.Hex())
}

// blob reads one of at most max bytes, whose digest is d.
func (l *layout) blob(d artifact.Digest, max int64) (b []byte, err error) {
	if l.file == nil {
		b, err = readAtMost(l.path(d), max)
	} else {
		e, ok := l.blobs[d]
		switch {
		case !ok:
			err = fmt.Errorf("%s is not in the archive", d)
		case e.size > max:
			err = fmt.Errorf("%s has %d bytes, more than %d", d, e.size, max)
		default:
			b, err = io.ReadAll(io.NewSectionReader(l.file, e.at, e.size))
		}
	}
	if err != nil {
		return nil, err
	}
	if got := artifact.DigestOf(b); !l.same(got, d) {
		return nil, fmt.Errorf("the file of %s has digest %s", d, got)
	}
	return b, nil
}

// manifest is what is read of an entry of the index before it is known to be a model.
type manifest struct {
	MediaType    string                `json:"mediaType"`
	ArtifactType string                `json:"artifactType"`
	Subject      *artifact.Descriptor  `json:"subject"`
	Layers       []artifact.Descriptor `json:"layers"`
	Manifests    []artifact.Descriptor `json:"manifests"`
}

// each visits the manifests that the index lists, those of indexes in it too. An entry that cannot be read is left out: it proves
// nothing, and it must not keep the others from being found.
func (l *layout) each(do func(d artifact.Digest, raw []byte, m *manifest)) error {
	var top manifest
	if err := json.Unmarshal(l.index, &top); err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	seen := map[artifact.Digest]bool{}
	var walk func(list []artifact.Descriptor, depth int)
	walk = func(list []artifact.Descriptor, depth int) {
		for _, x := range list {
			if _, err := artifact.ParseDigest(string(x.Digest)); err != nil || seen[x.Digest] || len(seen) == maxEntries {
				continue
			}
			seen[x.Digest] = true
			raw, err := l.blob(x.Digest, artifact.MaxManifest)
			var m manifest
			if err != nil || json.Unmarshal(raw, &m) != nil {
				continue
			}
			if len(m.Manifests) > 0 && depth < maxDepth {
				walk(m.Manifests, depth+1)
				continue
			}
			do(x.Digest, raw, &m)
		}
	}
	walk(top.Manifests, 0)
	return nil
}

// model finds the manifest with the digest, or, without one, the only model.
func (l *layout) model(digest string) (artifact.Digest, []byte, error) {
	if digest != "" {
		d, err := artifact.ParseDigest(digest)
		if err != nil {
			return "", nil, err
		}
		raw, err := l.blob(d, artifact.MaxManifest)
		return d, raw, err
	}
	var found []artifact.Digest
	var raw []byte
	err := l.each(func(d artifact.Digest, b []byte, m *manifest) {
		if m.Subject == nil && m.ArtifactType == artifact.ArtifactType {
			found, raw = append(found, d), b
		}
	})
	switch {
	case err != nil:
		return "", nil, err
	case len(found) == 0:
		return "", nil, errors.New("there is no model in it")
	case len(found) > 1:
		return "", nil, fmt.Errorf("it holds %d models: say by its digest which", len(found))
	}
	return found[0], raw, nil
}

// bundles are the statements that stand there about the digest.
func (l *layout) bundles(about artifact.Digest) ([][]byte, error) {
	var out [][]byte
	err := l.each(func(_ artifact.Digest, _ []byte, m *manifest) {
		if m.Subject == nil || m.Subject.Digest != about {
			return
		}
		for _, x := range m.Layers {
			if x.MediaType != artifact.MediaTypeBundle {
				continue
			}
			if _, err := artifact.ParseDigest(string(x.Digest)); err != nil {
				continue
			}
			if b, err := l.blob(x.Digest, artifact.MaxBundle); err == nil {
				out = append(out, b)
			}
		}
	})
	return out, err
}

// files are the layers of m. The weights of a folder are mapped from their file, those of an archive copied.
func (l *layout) files(m *artifact.Model) Files {
	f := Files{Layers: m.OnDevice(), same: l.same, Read: func(x artifact.Layer) ([]byte, error) { return l.blob(x.Digest, x.Size) }}
	if l.file == nil {
		f.Path = l.path
	}
	return f
}

// readAtMost reads a file that is no larger than max.
func readAtMost(name string, max int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err == nil && st.Size() > max {
		err = fmt.Errorf("%s has %d bytes, more than %d", name, st.Size(), max)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(name)
}
