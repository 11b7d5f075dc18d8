package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Media types of the Docker manifests that hold the same members as OCI's; read so that foreign images can be kept.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// ErrConflict says that a tag was not at the digest that the caller expected.
var ErrConflict = errors.New("the tag has moved")

// Doc is what a manifest or index says, as far as a store needs it.
type Doc struct {
	Descriptor artifact.Descriptor   // as in a referrers listing
	Blobs      []artifact.Descriptor // config and layers, without the layers that the specification says not to distribute
	Children   []artifact.Descriptor // of an index
	Subject    artifact.Digest       // or ""
}

// ParseDoc reads a manifest or an index. mediaType is what the sender called it; "" takes the document's own word.
func ParseDoc(b []byte, mediaType string) (Doc, error) {
	if len(b) > artifact.MaxManifest {
		return Doc{}, fmt.Errorf("manifest of %d bytes is larger than %d", len(b), artifact.MaxManifest)
	}
	var head struct {
		MediaType string          `json:"mediaType"`
		Layers    json.RawMessage `json:"layers"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return Doc{}, fmt.Errorf("manifest is not valid JSON: %w", err)
	}
	// A document that is both can be read either way under one digest (CVE-2021-41190).
	if head.Layers != nil && head.Manifests != nil {
		return Doc{}, errors.New("the document has layers and manifests: it could be read as manifest and as index")
	}
	if mediaType == "" {
		mediaType = head.MediaType
	}
	if head.MediaType != mediaType {
		return Doc{}, fmt.Errorf("the manifest calls itself %q, but was sent as %q", head.MediaType, mediaType)
	}
	switch mediaType {
	case artifact.MediaTypeManifest:
		m, err := artifact.ParseManifest(b)
		if err != nil {
			return Doc{}, err
		}
		doc := Doc{Descriptor: artifact.DescriptorOf(b, m), Blobs: append([]artifact.Descriptor{m.Config}, distributable(m.Layers)...)}
		if m.Subject != nil {
			doc.Subject = m.Subject.Digest
		}
		return doc, nil
	case artifact.MediaTypeIndex:
		x, err := artifact.ParseIndex(b)
		if err != nil {
			return Doc{}, err
		}
		doc := Doc{Children: x.Manifests, Descriptor: artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(b),
			Size: int64(len(b)), ArtifactType: x.ArtifactType, Annotations: x.Annotations}}
		if x.Subject != nil {
			doc.Subject = x.Subject.Digest
		}
		return doc, nil
	case dockerManifest, dockerList:
		var m struct {
			Config    *artifact.Descriptor
			Layers    []artifact.Descriptor
			Manifests []artifact.Descriptor
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return Doc{}, fmt.Errorf("manifest is not valid JSON: %w", err)
		}
		doc := Doc{Children: m.Manifests, Blobs: distributable(m.Layers), Descriptor: artifact.Descriptor{MediaType: mediaType,
			Digest: artifact.DigestOf(b), Size: int64(len(b))}}
		if m.Config != nil {
			doc.Blobs = append(doc.Blobs, *m.Config)
		}
		for _, d := range slices.Concat(doc.Blobs, doc.Children) {
			if _, err := artifact.ParseDigest(string(d.Digest)); err != nil {
				return Doc{}, fmt.Errorf("manifest: %w", err)
			}
		}
		return doc, nil
	}
	return Doc{}, fmt.Errorf("manifests of media type %q are not supported", mediaType)
}

// distributable leaves out layers that live at URLs elsewhere (image-spec, non-distributable layers): a registry takes a
// manifest without them. No media type of a model is one of these.
func distributable(ls []artifact.Descriptor) []artifact.Descriptor {
	return slices.DeleteFunc(slices.Clone(ls), func(d artifact.Descriptor) bool {
		return strings.HasPrefix(d.MediaType, "application/vnd.oci.image.layer.nondistributable.") ||
			strings.HasPrefix(d.MediaType, "application/vnd.docker.image.rootfs.foreign.")
	})
}

// PutOptions refine PutManifest.
type PutOptions struct {
	Ref string // tag to set, "" for none
	// Expect, when not nil, is the digest that Ref must have now, "" for none; else the error wraps ErrConflict. The
	// comparison and the change are one step, also against other processes.
	Expect *artifact.Digest
	// Made marks the manifest as made here, not brought here: MadeHere then says so until the manifest is removed or
	// tagged. Nothing that comes in by pull, copy or load gets the mark, since it stands in the index and not in the content.
	Made bool
}

// annotationMade stands on a line of the index whose manifest this store's own user made.
const annotationMade = "dev.waybill.made-here"

// MadeHere tells whether d was put with Made. It is as good as the store's folder is private: ask it of a store of the
// user's own, not of a layout that somebody gave.
func (s *Store) MadeHere(_ context.Context, d artifact.Digest) (bool, error) {
	x, err := s.readIndex()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(x.Manifests, func(e artifact.Descriptor) bool {
		return e.Digest == d && e.Annotations[annotationMade] != ""
	}), nil
}

// PutManifest stores a manifest or index, lists it, and sets its tag. All blobs of a manifest and all children of an
// index must be in the store. On return everything that the manifest reaches is durable.
func (s *Store) PutManifest(ctx context.Context, b []byte, mediaType string, o PutOptions) (artifact.Descriptor, error) {
	doc, err := ParseDoc(b, mediaType)
	if err != nil {
		return artifact.Descriptor{}, diag.Wrap(diag.Failure, err, "put manifest into store %s", s.dir)
	}
	d := doc.Descriptor
	if _, err := s.PutBytes(ctx, d.MediaType, b); err != nil {
		return d, err
	}
	err = s.update(ctx, func(x *artifact.Index) error {
		// Checked under the lock: whoever deletes holds it too.
		if _, ok, err := s.Has(d.Digest); err != nil {
			return err
		} else if !ok {
			return diag.New(diag.Failure, "manifest %s was deleted while it was put", d.Digest)
		}
		if err := s.checkComplete(doc); err != nil {
			return err
		}
		if o.Expect != nil {
			if now := find(x, o.Ref); now != *o.Expect {
				return conflict(o.Ref, now, *o.Expect)
			}
		}
		if err := s.fs.SyncDir(s.path("blobs", "sha256")); err != nil {
			return err
		}
		setRef(x, d, o.Ref)
		if o.Made {
			for i, e := range x.Manifests {
				if e.Digest == d.Digest {
					line := maps.Clone(e.Annotations)
					if line == nil {
						line = map[string]string{}
					}
					line[annotationMade] = "true"
					x.Manifests[i].Annotations = line
				}
			}
		}
		return nil
	})
	return d, err
}

// PutTree lists a manifest whose bytes are in the store as a blob already, after checking it and all that it needs, and
// sets its tag unless ref is "".
func (s *Store) PutTree(ctx context.Context, d artifact.Digest, ref string) (Doc, error) {
	b, err := s.manifestBytes(d)
	if err != nil {
		return Doc{}, err
	}
	doc, err := ParseDoc(b, "")
	if err != nil {
		return Doc{}, diag.Wrap(diag.Failure, err, "read manifest %s from store %s", d, s.dir)
	}
	for _, c := range doc.Children {
		cb, err := s.manifestBytes(c.Digest)
		if err != nil {
			return doc, err
		}
		cdoc, err := ParseDoc(cb, "")
		if err != nil {
			return doc, diag.Wrap(diag.Failure, err, "read manifest %s from store %s", c.Digest, s.dir)
		}
		if len(cdoc.Children) > 0 {
			return doc, diag.New(diag.Failure, "index %s holds another index, %s", d, c.Digest)
		}
		if err := s.checkComplete(cdoc); err != nil {
			return doc, err
		}
	}
	_, err = s.PutManifest(ctx, b, "", PutOptions{Ref: ref})
	return doc, err
}

func conflict(ref string, now, want artifact.Digest) error {
	show := func(d artifact.Digest) string {
		if d == "" {
			return "nothing"
		}
		return string(d)
	}
	return diag.Wrap(diag.Failure, ErrConflict, "set %s", ref).Line("it is at  %s", show(now)).Line("expected  %s", show(want))
}

func (s *Store) checkComplete(doc Doc) error {
	for _, d := range slices.Concat(doc.Blobs, doc.Children) {
		size, ok, err := s.Has(d.Digest)
		if err != nil {
			return err
		}
		if !ok {
			return diag.Wrap(diag.NotFound, fs.ErrNotExist, "manifest %s needs blob %s, which is not in store %s", doc.Descriptor.Digest, d.Digest, s.dir)
		}
		if size != d.Size {
			return diag.New(diag.Verification, "manifest %s says that %s has %d bytes, it has %d", doc.Descriptor.Digest, d.Digest, d.Size, size)
		}
	}
	return nil
}

func find(x *artifact.Index, ref string) artifact.Digest {
	for _, d := range x.Manifests {
		if ref != "" && d.Annotations[AnnotationRef] == ref {
			return d.Digest
		}
	}
	return ""
}

// setRef lists d under ref. A manifest that loses its last tag stays listed without one; one that gets a tag loses its
// line without.
func setRef(x *artifact.Index, d artifact.Descriptor, ref string) {
	line := artifact.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType}
	listed := func(g artifact.Digest) bool {
		return slices.ContainsFunc(x.Manifests, func(e artifact.Descriptor) bool { return e.Digest == g })
	}
	if ref == "" {
		if !listed(d.Digest) {
			x.Manifests = append(x.Manifests, line)
		}
		return
	}
	var old []artifact.Descriptor
	x.Manifests = slices.DeleteFunc(x.Manifests, func(e artifact.Descriptor) bool {
		r := e.Annotations[AnnotationRef]
		if r == ref && e.Digest != d.Digest {
			e.Annotations = nil
			old = append(old, e)
		}
		return r == ref || (r == "" && e.Digest == d.Digest)
	})
	line.Annotations = map[string]string{AnnotationRef: ref}
	x.Manifests = append(x.Manifests, line)
	for _, e := range old {
		if !listed(e.Digest) {
			x.Manifests = append(x.Manifests, e)
		}
	}
}

// Tag sets ref to a manifest that the store lists.
func (s *Store) Tag(ctx context.Context, ref string, d artifact.Digest) error {
	return s.update(ctx, func(x *artifact.Index) error {
		for _, e := range x.Manifests {
			if e.Digest == d {
				setRef(x, e, ref)
				return nil
			}
		}
		return diag.Wrap(diag.NotFound, fs.ErrNotExist, "store %s has no manifest %s", s.dir, d)
	})
}

// Resolve finds the manifest of a tag (as written in the index) or of a digest.
func (s *Store) Resolve(_ context.Context, ref string) (artifact.Descriptor, error) {
	x, err := s.readIndex()
	if err != nil {
		return artifact.Descriptor{}, err
	}
	dig, derr := artifact.ParseDigest(ref)
	for _, d := range x.Manifests {
		if (derr == nil && d.Digest == dig) || (derr != nil && d.Annotations[AnnotationRef] == ref) {
			return entryOf(d).Descriptor, nil
		}
	}
	if derr == nil { // a child of an index is not listed itself
		r, err := s.reachable(x)
		if err != nil {
			return artifact.Descriptor{}, err
		}
		if doc, ok := r.manifests[dig]; ok {
			return doc.Descriptor, nil
		}
	}
	return artifact.Descriptor{}, diag.Wrap(diag.NotFound, fs.ErrNotExist, "%s is not in store %s", ref, s.dir)
}

// Manifest reads a manifest or index by digest; its bytes are hashed before they are returned.
func (s *Store) Manifest(_ context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error) {
	b, err := s.manifestBytes(d)
	if err != nil {
		return nil, artifact.Descriptor{}, err
	}
	doc, err := ParseDoc(b, "")
	if err != nil {
		return nil, artifact.Descriptor{}, diag.Wrap(diag.Failure, err, "read manifest %s from store %s", d, s.dir)
	}
	return b, doc.Descriptor, nil
}

func (s *Store) manifestBytes(d artifact.Digest) ([]byte, error) {
	if err := checkDigest(d); err != nil {
		return nil, err
	}
	b, err := fsx.ReadFile(s.fs, s.BlobPath(d), artifact.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "store %s has no manifest %s", s.dir, d)
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read manifest %s from store %s", d, s.dir)
	}
	if got := artifact.DigestOf(b); got != d {
		return nil, mismatch(d, got, "manifest in store "+s.dir)
	}
	return b, nil
}

func (s *Store) doc(d artifact.Descriptor) (Doc, error) {
	s.mu.Lock()
	doc, ok := s.info[d.Digest]
	s.mu.Unlock()
	if ok {
		return doc, nil
	}
	b, err := s.manifestBytes(d.Digest)
	if err != nil {
		return Doc{}, err
	}
	if doc, err = ParseDoc(b, ""); err != nil {
		return Doc{}, diag.Wrap(diag.Failure, err, "read manifest %s from store %s", d.Digest, s.dir)
	}
	s.mu.Lock()
	s.info[d.Digest] = doc
	s.mu.Unlock()
	return doc, nil
}

// Referrers lists the manifests whose subject is d, sorted by digest, each described with its artifactType and
// annotations. d itself need not be in the store.
func (s *Store) Referrers(_ context.Context, d artifact.Digest) ([]artifact.Descriptor, error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	return s.referrers(x, d)
}

func (s *Store) referrers(x artifact.Index, d artifact.Digest) ([]artifact.Descriptor, error) {
	out := []artifact.Descriptor{}
	var last artifact.Digest
	for _, e := range x.Manifests { // sorted by digest, so doubles are neighbours
		if e.Digest == last {
			continue
		}
		last = e.Digest
		doc, err := s.doc(e)
		if err != nil {
			return nil, err
		}
		if doc.Subject == d {
			out = append(out, doc.Descriptor)
		}
	}
	slices.SortFunc(out, func(a, b artifact.Descriptor) int {
		if a.Digest < b.Digest {
			return -1
		} else if a.Digest > b.Digest {
			return 1
		}
		return 0
	})
	return slices.CompactFunc(out, func(a, b artifact.Descriptor) bool { return a.Digest == b.Digest }), nil
}
