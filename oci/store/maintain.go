package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// pruneWait is how long prune waits for writers to finish.
const pruneWait = 5 * time.Second

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

// PruneOptions refine Prune.
type PruneOptions struct {
	Untagged bool // also drop manifests without a tag that refer to nothing kept
	DryRun   bool // change nothing, report what would go
}

// PruneReport tells what Prune removed, or would remove.
type PruneReport struct {
	Manifests []artifact.Digest `json:"manifests"` // dropped from the index
	Blobs     []artifact.Digest `json:"blobs"`
	Temp      int               `json:"temporaryFiles"` // left behind by writers that died, and of downloads that broke off
	Bytes     int64             `json:"bytes"`          // of blobs
}

// Prune deletes blobs that no listed manifest needs and files that crashed writers left. It waits a few seconds for
// writers in other processes and then fails. The caller must not write through this Store meanwhile.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	rep := PruneReport{Manifests: []artifact.Digest{}, Blobs: []artifact.Digest{}}
	release, err := s.exclusive(ctx, pruneWait)
	if err != nil {
		return rep, diag.Wrap(diag.Failure, err, "prune store %s: another process writes to it", s.dir)
	}
	defer release()
	if rep.Temp, err = s.cleanTemp(o.DryRun, true); err != nil { // first, since the index may need the room
		return rep, err
	}
	err = s.update(ctx, func(x *artifact.Index) error {
		if o.Untagged {
			gone, err := s.untagged(*x)
			if err != nil {
				return err
			}
			rep.Manifests = append(rep.Manifests, gone...)
			x.Manifests = slices.DeleteFunc(x.Manifests, func(e artifact.Descriptor) bool { return slices.Contains(gone, e.Digest) })
		}
		r, err := s.reachable(*x)
		if err != nil {
			return err
		}
		blobs, err := s.blobs()
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if _, used := r.blobs[b.Digest]; used {
				continue
			}
			rep.Blobs = append(rep.Blobs, b.Digest)
			rep.Bytes += b.Size
		}
		if o.DryRun || len(rep.Manifests) == 0 {
			return errNoChange // writing nothing also lets prune work on a full disk
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNoChange) {
		return rep, err
	}
	// The index no longer names them, and nobody can add a name while the exclusive lock is held.
	if !o.DryRun {
		for _, d := range rep.Blobs {
			if err := s.fs.Remove(s.BlobPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return rep, diag.Wrap(diag.Failure, err, "prune store %s", s.dir)
			}
		}
	}
	return rep, nil
}

var errNoChange = errors.New("nothing to write")

func (s *Store) exclusive(ctx context.Context, wait time.Duration) (func() error, error) {
	s.mu.Lock()
	err := s.dropUse()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.lock(ctx, s.path(useFile), false)
}

// CleanTemp removes what crashed writers left, if no writer is at work now; else it does nothing.
func (s *Store) CleanTemp(ctx context.Context) error {
	release, err := s.exclusive(ctx, time.Millisecond)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	_, err = s.cleanTemp(false, false)
	return err
}

// cleanTemp is called with the exclusive lock on useFile. Downloads that could go on are removed only with partials.
func (s *Store) cleanTemp(dry, partials bool) (int, error) {
	n := 0
	for _, dir := range []string{s.path(ingestDir), s.dir} {
		es, err := s.fs.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, diag.Wrap(diag.Failure, err, "prune store %s", s.dir)
		}
		for _, e := range es {
			if e.IsDir() || !fsx.IsTemp(e.Name()) && (!partials || !isPartial(e.Name())) {
				continue
			}
			n++
			if dry {
				continue
			}
			p := s.path(e.Name())
			if dir != s.dir {
				p = s.path(ingestDir, e.Name())
			}
			if err := s.fs.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return n, diag.Wrap(diag.Failure, err, "prune store %s", s.dir)
			}
		}
	}
	return n, nil
}

// untagged lists the manifests that no tag keeps: not tagged, and not attached, over any number of steps, to one
// that is.
func (s *Store) untagged(x artifact.Index) ([]artifact.Digest, error) {
	kept := map[artifact.Digest]bool{}
	for _, e := range x.Manifests {
		if e.Annotations[AnnotationRef] != "" {
			kept[e.Digest] = true
		}
	}
	for grew := true; grew; {
		grew = false
		for _, e := range x.Manifests {
			doc, err := s.doc(e)
			if err != nil {
				return nil, err
			}
			if !kept[e.Digest] && doc.Subject != "" && kept[doc.Subject] {
				kept[e.Digest], grew = true, true
			}
			for _, c := range doc.Children {
				if kept[e.Digest] && !kept[c.Digest] {
					kept[c.Digest], grew = true, true
				}
			}
		}
	}
	var gone []artifact.Digest
	for _, e := range x.Manifests {
		if !kept[e.Digest] && !slices.Contains(gone, e.Digest) {
			gone = append(gone, e.Digest)
		}
	}
	return gone, nil
}

// blobs lists the blob files with their sizes; other names are skipped.
func (s *Store) blobs() ([]artifact.Descriptor, error) {
	es, err := s.fs.ReadDir(s.path("blobs", "sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "list the blobs of store %s", s.dir)
	}
	var out []artifact.Descriptor
	for _, e := range es {
		d, err := artifact.ParseDigest("sha256:" + e.Name())
		if err != nil {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "list the blobs of store %s", s.dir)
		}
		out = append(out, artifact.Descriptor{Digest: d, Size: fi.Size()})
	}
	return out, nil
}

// Problem is one finding of Verify.
type Problem struct {
	Digest artifact.Digest `json:"digest"`
	What   string          `json:"what"`
}

// VerifyReport tells what Verify looked at and found.
type VerifyReport struct {
	Manifests int       `json:"manifests"`
	Blobs     int       `json:"blobs"`
	Bytes     int64     `json:"bytes"`
	Problems  []Problem `json:"problems"` // never null
}

// Verify reads every blob again and checks that each listed manifest has all it needs. With repair, it deletes blobs
// whose content is wrong, so that the next push or pull brings them anew, and takes manifests that are gone off the
// index. Findings are no error.
func (s *Store) Verify(ctx context.Context, repair bool) (VerifyReport, error) {
	rep := VerifyReport{Problems: []Problem{}}
	x, err := s.readIndex()
	if err != nil {
		return rep, err
	}
	blobs, err := s.blobs()
	if err != nil {
		return rep, err
	}
	have := map[artifact.Digest]int64{}
	for _, b := range blobs {
		rep.Blobs++
		rep.Bytes += b.Size
		err := s.Check(ctx, b)
		switch {
		case errors.Is(err, fs.ErrNotExist): // pruned meanwhile
			continue
		case ctx.Err() != nil:
			return rep, ctx.Err()
		case err == nil:
			have[b.Digest] = b.Size
			continue
		}
		p := Problem{b.Digest, "content does not have this digest"}
		if diag.CodeOf(err) != diag.Verification {
			p.What = err.Error()
		} else if repair {
			if err := s.fs.Remove(s.BlobPath(b.Digest)); err != nil {
				return rep, diag.Wrap(diag.Failure, err, "repair store %s", s.dir)
			}
			p.What += "; removed"
		}
		rep.Problems = append(rep.Problems, p)
	}
	seen := map[artifact.Digest]bool{}
	var lost []artifact.Digest
	todo := slices.Clone(x.Manifests)
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		rep.Manifests++
		b, err := s.manifestBytes(d.Digest)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				rep.Problems = append(rep.Problems, Problem{d.Digest, "manifest is missing"})
				lost = append(lost, d.Digest)
			}
			continue // an altered one was found above
		}
		doc, err := ParseDoc(b, "")
		if err != nil {
			rep.Problems = append(rep.Problems, Problem{d.Digest, err.Error()})
			continue
		}
		for _, n := range doc.Blobs {
			if size, ok := have[n.Digest]; !ok {
				rep.Problems = append(rep.Problems, Problem{n.Digest, fmt.Sprintf("missing or altered, and manifest %s needs it", d.Digest)})
			} else if size != n.Size {
				rep.Problems = append(rep.Problems, Problem{n.Digest, fmt.Sprintf("has %d bytes, manifest %s says %d", size, d.Digest, n.Size)})
			}
		}
		todo = append(todo, doc.Children...)
	}
	if !repair || len(lost) == 0 {
		return rep, nil
	}
	return rep, s.update(ctx, func(x *artifact.Index) error {
		x.Manifests = slices.DeleteFunc(x.Manifests, func(e artifact.Descriptor) bool {
			_, ok, err := s.Has(e.Digest) // it may have come back meanwhile
			return err == nil && !ok && slices.Contains(lost, e.Digest)
		})
		return nil
	})
}

// Usage sums up a store.
type Usage struct {
	Dir       string `json:"dir"`
	Tags      int    `json:"tags"`
	Manifests int    `json:"manifests"` // listed, referrers included
	Blobs     int    `json:"blobs"`
	Bytes     int64  `json:"bytes"`
	Unused    int64  `json:"unusedBytes"` // of blobs that prune would delete
	Free      uint64 `json:"freeBytes"`   // on the file system

	References     int   `json:"references"`     // blobs that are files elsewhere; not among Blobs
	ReferenceBytes int64 `json:"referenceBytes"` // of those files
}

// Stat measures the store without reading blobs.
func (s *Store) Stat(context.Context) (Usage, error) {
	u := Usage{Dir: s.dir}
	x, err := s.readIndex()
	if err != nil {
		return u, err
	}
	r, err := s.reachable(x)
	if err != nil {
		return u, err
	}
	u.Manifests = len(r.manifests)
	for _, e := range x.Manifests {
		if e.Annotations[AnnotationRef] != "" {
			u.Tags++
		}
	}
	blobs, err := s.blobs()
	if err != nil {
		return u, err
	}
	for _, b := range blobs {
		u.Blobs++
		u.Bytes += b.Size
		if _, used := r.blobs[b.Digest]; !used {
			u.Unused += b.Size
		}
	}
	refs, err := s.referenceList()
	if err != nil {
		return u, err
	}
	for _, r := range refs {
		u.References++
		u.ReferenceBytes += r.Identity.Size
	}
	u.Free, err = s.fs.FreeBytes(s.dir)
	if err != nil {
		return u, diag.Wrap(diag.Failure, err, "measure store %s", s.dir)
	}
	return u, nil
}
