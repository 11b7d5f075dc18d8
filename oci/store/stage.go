package store

import (
	"context"
	"io"
	"io/fs"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Staged is a blob that was hashed and written, but is no part of the store yet: nobody finds it by its digest before
// Commit. Close it in any case; a process that dies leaves a temporary file, which Prune removes. Not safe for
// concurrent use.
type Staged struct {
	w    *Writer
	desc artifact.Descriptor
}

// Stage reads r to its end into a file beside the blobs. Content that is not what want says is an error and leaves
// nothing behind; what names the content in it.
func (s *Store) Stage(ctx context.Context, r io.Reader, want artifact.Descriptor, what string) (*Staged, error) {
	if err := checkDigest(want.Digest); err != nil {
		return nil, err
	}
	if want.Size < 0 {
		return nil, diag.New(diag.Verification, "the descriptor of %s has the negative size %d", want.Digest, want.Size)
	}
	if free, err := s.fs.FreeBytes(s.dir); err == nil && want.Size > 0 && uint64(want.Size) > free {
		return nil, diag.New(diag.Failure, "%s has %d bytes, and %d are free in store %s", want.Digest, want.Size, free, s.dir).
			Hint("waybill store prune --untagged")
	}
	w, err := s.NewWriter(ctx)
	if err != nil {
		return nil, err
	}
	v := Verified(ctx, io.NopCloser(r), want, what)
	_, err = w.ReadFrom(v)
	if err == nil {
		if err = w.f.Sync(); err != nil {
			err = s.writeError(err, "write to store")
		}
	}
	if cerr := w.f.Close(); err == nil && cerr != nil {
		err = s.writeError(cerr, "write to store")
	}
	w.done = true // the file is closed; from here on it is moved or removed by name
	if err != nil {
		_ = s.fs.Remove(w.f.Name())
		return nil, err
	}
	return &Staged{w: w, desc: want}, nil
}

// Open gives the content, hashed again on the way.
func (g *Staged) Open(ctx context.Context) (io.ReadCloser, error) {
	f, err := g.w.s.fs.Open(g.w.f.Name())
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read what was staged for store %s", g.w.s.dir)
	}
	return Verified(ctx, f, g.desc, "content staged for store "+g.w.s.dir), nil
}

// Commit gives the blob its name. It becomes durable with the next change of the index.
func (g *Staged) Commit() error {
	s := g.w.s
	if g.desc.Digest == "" {
		return nil
	}
	if err := s.mkdir(s.path("blobs", "sha256")); err != nil {
		return s.writeError(err, "write to store")
	}
	if err := s.pin(g.desc.Digest); err != nil { // before it has its name
		return err
	}
	if err := s.fs.Rename(g.w.f.Name(), s.BlobPath(g.desc.Digest)); err != nil {
		return s.writeError(err, "write blob %s to store", g.desc.Digest)
	}
	g.desc.Digest = ""
	return nil
}

// Close removes what was not committed.
func (g *Staged) Close() error {
	if g.desc.Digest == "" {
		return nil
	}
	g.desc.Digest = ""
	return g.w.s.fs.Remove(g.w.f.Name())
}

// Listing is one change of the index: a manifest whose bytes are in the store as a blob, and the tag that it gets, ""
// for none. Expect is as in PutOptions.
type Listing struct {
	Digest artifact.Digest
	Ref    string
	Expect *artifact.Digest
}

// List lists manifests and sets their tags, all of them or, when one cannot be, none. Every blob and child that they need
// must be in the store.
func (s *Store) List(ctx context.Context, ls []Listing) error {
	docs := make([]Doc, len(ls))
	for i, l := range ls {
		b, err := s.manifestBytes(l.Digest)
		if err != nil {
			return err
		}
		if docs[i], err = ParseDoc(b, ""); err != nil {
			return diag.Wrap(diag.Failure, err, "read manifest %s from store %s", l.Digest, s.dir)
		}
	}
	return s.update(ctx, func(x *artifact.Index) error {
		for i, l := range ls {
			if err := s.closed(docs[i], 0); err != nil {
				return err
			}
			if l.Expect != nil {
				if now := find(x, l.Ref); now != *l.Expect {
					return conflict(l.Ref, now, *l.Expect)
				}
			}
		}
		if err := s.fs.SyncDir(s.path("blobs", "sha256")); err != nil {
			return err
		}
		for i, l := range ls {
			setRef(x, docs[i].Descriptor, l.Ref)
		}
		return nil
	})
}

// closed checks, with the lock held, that a manifest and everything below it is there.
func (s *Store) closed(doc Doc, depth int) error {
	if depth > 1 {
		return diag.New(diag.Failure, "index %s lies below another index", doc.Descriptor.Digest)
	}
	if _, ok, err := s.Has(doc.Descriptor.Digest); err != nil {
		return err
	} else if !ok {
		return diag.Wrap(diag.NotFound, fs.ErrNotExist, "manifest %s was deleted while it was put", doc.Descriptor.Digest)
	}
	if err := s.checkComplete(doc); err != nil {
		return err
	}
	for _, c := range doc.Children {
		b, err := s.manifestBytes(c.Digest)
		if err != nil {
			return err
		}
		child, err := ParseDoc(b, "")
		if err != nil {
			return diag.Wrap(diag.Failure, err, "read manifest %s from store %s", c.Digest, s.dir)
		}
		if err := s.closed(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}
