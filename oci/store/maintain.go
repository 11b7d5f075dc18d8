package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Untag removes a tag. A manifest that loses its last tag is dropped from the index together with what refers to it;
// their blobs stay until Prune. It returns the digest that the tag had and whether the manifest was dropped.
func (s *Store) Untag(ctx context.Context, ref string) (d artifact.Digest, dropped bool, err error) {
	err = s.update(ctx, func(x *artifact.Index) error {
		if d = find(x, ref); d == "" {
			return diag.Wrap(diag.NotFound, fs.ErrNotExist, "%s is not in store %s", ref, s.dir).Hint("waybill store ls")
		}
		x.Manifests = slices.DeleteFunc(x.Manifests, func(e artifact.Descriptor) bool { return e.Annotations[AnnotationRef] == ref })
		if slices.ContainsFunc(x.Manifests, func(e artifact.Descriptor) bool { return e.Digest == d }) {
			return nil
		}
		dropped = true
		_, err := s.drop(x, d)
		return err
	})
	return d, dropped, err
}

// Remove drops a manifest with all its tags, and what refers to it, from the index; their blobs stay until Prune.
// It returns the digests that were dropped.
func (s *Store) Remove(ctx context.Context, d artifact.Digest) (dropped []artifact.Digest, err error) {
	err = s.update(ctx, func(x *artifact.Index) error {
		if !slices.ContainsFunc(x.Manifests, func(e artifact.Descriptor) bool { return e.Digest == d }) {
			return diag.Wrap(diag.NotFound, fs.ErrNotExist, "store %s has no manifest %s", s.dir, d).Hint("waybill store ls")
		}
		dropped, err = s.drop(x, d)
		return err
	})
	return dropped, err
}

// drop takes d and, step by step, everything that refers to it off the index.
func (s *Store) drop(x *artifact.Index, d artifact.Digest) ([]artifact.Digest, error) {
	gone := []artifact.Digest{d}
	for i := 0; i < len(gone); i++ {
		refs, err := s.referrers(*x, gone[i])
		if err != nil {
			return nil, err
		}
		for _, r := range refs {
			if !slices.Contains(gone, r.Digest) {
				gone = append(gone, r.Digest)
			}
		}
	}
	x.Manifests = slices.DeleteFunc(x.Manifests, func(e artifact.Descriptor) bool { return slices.Contains(gone, e.Digest) })
	return gone, nil
}

type reach struct {
	manifests map[artifact.Digest]Doc
	blobs     map[artifact.Digest]artifact.Descriptor // with the manifests themselves
}

func (s *Store) reachable(x artifact.Index) (reach, error) {
	r := reach{map[artifact.Digest]Doc{}, map[artifact.Digest]artifact.Descriptor{}}
	todo := slices.Clone(x.Manifests)
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, done := r.manifests[d.Digest]; done {
			continue
		}
		doc, err := s.doc(d)
		if err != nil {
			return r, err
		}
		r.manifests[d.Digest] = doc
		r.blobs[d.Digest] = doc.Descriptor
		for _, b := range doc.Blobs {
			r.blobs[b.Digest] = b
		}
		todo = append(todo, doc.Children...)
	}
	return r, nil
}

// DeleteBlob removes one blob that nothing in the index needs.
func (s *Store) DeleteBlob(ctx context.Context, d artifact.Digest) error {
	return s.update(ctx, func(x *artifact.Index) error {
		r, err := s.reachable(*x)
		if err != nil {
			return err
		}
		if _, used := r.blobs[d]; used {
			return diag.New(diag.Failure, "blob %s is in use in store %s", d, s.dir)
		}
		err = s.fs.Remove(s.BlobPath(d))
		if errors.Is(err, fs.ErrNotExist) {
			return diag.Wrap(diag.NotFound, fs.ErrNotExist, "store %s has no blob %s", s.dir, d)
		}
		return err
	})
}
