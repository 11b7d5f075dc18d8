package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

const (
	tarLayout     = `{"imageLayoutVersion":"1.0.0"}`
	maxTarEntries = 100_000
)

// SaveItem is one artifact to save and the name that it gets in the archive ("churn:1.0"; "" for none).
type SaveItem struct {
	From   Repository
	Target string // tag or digest
	Name   string
}

// Archive tells what an archive holds.
type Archive struct {
	Artifacts []store.Entry         `json:"artifacts"` // with their names
	Referrers []artifact.Descriptor `json:"referrers"`
	Blobs     int                   `json:"blobs"`
	Bytes     int64                 `json:"bytes"`
}

// Save writes artifacts with everything attached to them as one tar of an OCI layout. The same artifacts give the same
// bytes. Everything is hashed on the way; on an error w holds an incomplete archive, which the caller discards.
func Save(ctx context.Context, w io.Writer, items []SaveItem, noReferrers bool) (Archive, error) {
	a := Archive{Artifacts: []store.Entry{}, Referrers: []artifact.Descriptor{}}
	s := &saver{manifests: map[artifact.Digest][]byte{}, blobs: map[artifact.Digest]blobFrom{}}
	x := artifact.Index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex, Manifests: []artifact.Descriptor{}}
	line := func(d artifact.Descriptor, name string) {
		e := artifact.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType}
		if name != "" {
			e.Annotations = map[string]string{store.AnnotationRef: name}
		}
		x.Manifests = append(x.Manifests, e)
	}
	for _, it := range items {
		d, err := it.From.Resolve(ctx, it.Target)
		if err != nil {
			return a, err
		}
		if err := s.tree(ctx, it.From, d.Digest); err != nil {
			return a, err
		}
		line(d, it.Name)
		a.Artifacts = append(a.Artifacts, store.Entry{Descriptor: d, Ref: it.Name})
		if noReferrers {
			continue
		}
		todo := []artifact.Digest{d.Digest}
		for len(todo) > 0 {
			refs, err := it.From.Referrers(ctx, todo[0])
			if err != nil {
				return a, err
			}
			todo = todo[1:]
			for _, r := range refs {
				if _, done := s.manifests[r.Digest]; done {
					continue
				}
				if err := s.tree(ctx, it.From, r.Digest); err != nil {
					return a, err
				}
				line(r, "")
				a.Referrers = append(a.Referrers, r)
				todo = append(todo, r.Digest)
			}
		}
	}
	slices.SortStableFunc(x.Manifests, func(p, q artifact.Descriptor) int {
		return strings.Compare(string(p.Digest)+p.Annotations[store.AnnotationRef], string(q.Digest)+q.Annotations[store.AnnotationRef])
	})
	ib, err := artifact.Canonical(x)
	if err != nil {
		return a, err
	}
	t := tar.NewWriter(w)
	if err := tarFile(t, "oci-layout", int64(len(tarLayout)), strings.NewReader(tarLayout)); err != nil {
		return a, err
	}
	if err := tarFile(t, "index.json", int64(len(ib)), bytes.NewReader(ib)); err != nil {
		return a, err
	}
	var all []artifact.Digest
	for d := range s.manifests {
		all = append(all, d)
	}
	for d := range s.blobs {
		if _, twice := s.manifests[d]; !twice {
			all = append(all, d)
		}
	}
	slices.Sort(all)
	for _, d := range all {
		var r io.ReadCloser
		var size int64
		if b, ok := s.manifests[d]; ok {
			r, size = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		} else {
			from := s.blobs[d]
			size = from.d.Size
			if r, err = from.r.Blob(ctx, from.d); err != nil {
				return a, err
			}
		}
		err := tarFile(t, "blobs/sha256/"+d.Hex(), size, r)
		_ = r.Close() // only read
		if err != nil {
			return a, err
		}
		a.Blobs++
		a.Bytes += size
	}
	return a, t.Close()
}

type blobFrom struct {
	r Repository
	d artifact.Descriptor
}

type saver struct {
	manifests map[artifact.Digest][]byte
	blobs     map[artifact.Digest]blobFrom
}

func (s *saver) tree(ctx context.Context, r Repository, d artifact.Digest) error {
	if _, done := s.manifests[d]; done {
		return nil
	}
	b, desc, err := r.Manifest(ctx, d)
	if err != nil {
		return err
	}
	doc, err := store.ParseDoc(b, desc.MediaType)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "save %s", d)
	}
	s.manifests[d] = b
	for _, bl := range doc.Blobs {
		s.blobs[bl.Digest] = blobFrom{r, bl}
	}
	for _, c := range doc.Children {
		if err := s.tree(ctx, r, c.Digest); err != nil {
			return err
		}
	}
	return nil
}

func tarFile(t *tar.Writer, name string, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t, r)
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes, want %d", name, n, size)
	}
	return err
}

// Load reads an archive that Save, or another tool that writes tars of OCI layouts, made into a store. Every blob is
// hashed; names are set last, when all that they need is there, so a damaged archive changes no name. With rename the
// archive must hold one named artifact, which gets that name instead.
func Load(ctx context.Context, r io.Reader, s *store.Store, rename string) (Archive, error) {
	a := Archive{Artifacts: []store.Entry{}, Referrers: []artifact.Descriptor{}}
	var x *artifact.Index
	bad := func(format string, args ...any) error {
		return diag.Wrap(diag.Failure, fmt.Errorf(format, args...), "load: this is no archive of an OCI layout")
	}
	have := map[artifact.Digest]bool{}
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return a, bad("%w", err)
		}
		if n > maxTarEntries {
			return a, bad("more than %d entries", maxTarEntries)
		}
		name := strings.TrimPrefix(h.Name, "./")
		switch h.Typeflag {
		case tar.TypeDir:
			continue
		case tar.TypeReg:
		default:
			return a, bad("%s is neither a file nor a directory", h.Name)
		}
		hex, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		switch {
		case isBlob:
			d, err := artifact.ParseDigest("sha256:" + hex)
			if err != nil {
				return a, bad("%s: %w", h.Name, err)
			}
			if _, _, err := s.PutBlob(ctx, t, artifact.Descriptor{Digest: d, Size: h.Size}); err != nil {
				return a, err
			}
			have[d] = true
			a.Blobs++
			a.Bytes += h.Size
		case name == "oci-layout", name == "index.json":
			b, err := io.ReadAll(io.LimitReader(t, artifact.MaxManifest+1))
			if err != nil {
				return a, bad("%w", err)
			}
			if name == "oci-layout" {
				var l struct {
					Version string `json:"imageLayoutVersion"`
				}
				if json.Unmarshal(b, &l) != nil || l.Version != "1.0.0" {
					return a, bad("imageLayoutVersion is not 1.0.0")
				}
				continue
			}
			idx, err := artifact.ParseIndex(b)
			if err != nil {
				return a, bad("%w", err)
			}
			x = &idx
		case name == "manifest.json" || name == "repositories": // what docker adds for itself
		default:
			return a, bad("unexpected entry %s", h.Name)
		}
	}
	if x == nil {
		return a, bad("it has no index.json")
	}
	named := 0
	for _, e := range x.Manifests {
		if e.Annotations[store.AnnotationRef] != "" {
			named++
		}
	}
	if rename != "" && named != 1 {
		return a, diag.New(diag.Usage, "load: the archive names %d artifacts; a new name can be given to one only", named)
	}
	// Subjects before what refers to them, names last.
	order := slices.Clone(x.Manifests)
	slices.SortStableFunc(order, func(p, q artifact.Descriptor) int {
		return len(p.Annotations[store.AnnotationRef]) - len(q.Annotations[store.AnnotationRef])
	})
	for _, pass := range []bool{false, true} {
		for _, e := range order {
			ref := e.Annotations[store.AnnotationRef]
			if (ref != "") != pass {
				continue
			}
			if !have[e.Digest] {
				return a, bad("the manifest %s is missing", e.Digest)
			}
			if ref != "" && rename != "" {
				ref = rename
			}
			doc, err := s.PutTree(ctx, e.Digest, ref)
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return a, bad("%w", err)
				}
				return a, err
			}
			if doc.Subject != "" {
				a.Referrers = append(a.Referrers, doc.Descriptor)
			} else {
				a.Artifacts = append(a.Artifacts, store.Entry{Descriptor: doc.Descriptor, Ref: ref})
			}
		}
	}
	return a, nil
}
