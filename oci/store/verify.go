package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Problem is one finding of Verify.
type Problem struct {
	Digest artifact.Digest `json:"digest"`
	What   string          `json:"what"`
	Got    artifact.Digest `json:"got,omitempty"`   // of the content that is there instead
	Path   string          `json:"path,omitempty"`  // of the file, when the blob is a reference
	Names  []string        `json:"names,omitempty"` // tags of the artifacts that need it
	Repair bool            `json:"repaired"`        // the bad content or entry was removed
}

// VerifyReport tells what Verify looked at and found.
type VerifyReport struct {
	Manifests int       `json:"manifests"`
	Blobs     int       `json:"blobs"` // files of the store and files that it refers to
	Bytes     int64     `json:"bytes"`
	Problems  []Problem `json:"problems"` // never null; sorted by digest
}

// Verify reads every blob again, those that are files elsewhere too, several at a time, and checks that each listed
// manifest has all it needs. With repair, it deletes blobs whose content is wrong (a file elsewhere is left alone, the
// reference to it goes), so that the next push or pull brings them anew, and takes manifests that are gone off the index.
// Findings are no error. progress is told of bytes read, concurrently; it may be nil.
func (s *Store) Verify(ctx context.Context, repair bool, progress func(n int64)) (VerifyReport, error) {
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
		have[b.Digest] = b.Size
	}
	refs, err := s.referenceNames()
	if err != nil {
		return rep, err
	}
	for _, d := range refs {
		if _, stored := have[d]; stored {
			continue
		}
		r, err := s.reference(d)
		if errors.Is(err, errDamaged) {
			if repair {
				if err := s.removeReference(ctx, d); err != nil {
					return rep, err
				}
			}
			rep.Problems = append(rep.Problems, Problem{Digest: d, What: "the reference to its file is damaged", Repair: repair})
			continue
		}
		if err != nil {
			return rep, err
		}
		if r != nil {
			blobs = append(blobs, artifact.Descriptor{Digest: d, Size: r.Identity.Size})
		}
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, b := range blobs {
		g.Go(func() error {
			p, err := s.verifyBlob(gctx, b, repair)
			if progress != nil {
				progress(b.Size)
			}
			if errors.Is(err, errPruned) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			rep.Blobs++
			rep.Bytes += b.Size
			if p != nil {
				delete(have, b.Digest)
				rep.Problems = append(rep.Problems, *p)
			} else {
				have[b.Digest] = b.Size
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return rep, err
	}
	lost := s.verifyTree(x, have, &rep)
	slices.SortStableFunc(rep.Problems, func(a, b Problem) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
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

var errPruned = errors.New("deleted meanwhile")

// verifyBlob hashes one blob.
func (s *Store) verifyBlob(ctx context.Context, b artifact.Descriptor, repair bool) (*Problem, error) {
	f, r, err := s.open(ctx, b.Digest)
	p := &Problem{Digest: b.Digest}
	if r != nil {
		p.Path = r.Path
	}
	if err == nil {
		p.Got, _, err = digestOf(ctxReader{ctx, f})
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil && p.Got == b.Digest {
			return nil, nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrNotExist) && r == nil:
		return nil, errPruned
	case errors.Is(err, fs.ErrNotExist):
		p.What = "the file that the store refers to is not there"
	case r != nil && diag.CodeOf(err) == diag.Verification, r != nil && err == nil:
		p.What = "the file that the store refers to was changed"
	case err == nil:
		p.What = "content does not have this digest"
	default: // it cannot be read: a disk that fails is no reason to delete anything
		p.What = err.Error()
		return p, nil
	}
	if repair {
		p.Repair = true
		if r != nil {
			err = s.removeReference(ctx, b.Digest)
		} else {
			err = s.removeBad(ctx, b)
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// removeBad deletes a blob under the lock unless somebody replaced it meanwhile.
func (s *Store) removeBad(ctx context.Context, b artifact.Descriptor) error {
	return s.locked(ctx, false, func() error {
		f, _, err := s.open(ctx, b.Digest)
		if err == nil {
			var got artifact.Digest
			got, _, err = digestOf(ctxReader{ctx, f})
			_ = f.Close() // only read
			if err == nil && got == b.Digest {
				return nil
			}
		}
		if err := s.fs.Remove(s.BlobPath(b.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return diag.Wrap(diag.Failure, err, "repair store %s", s.dir)
		}
		return nil
	})
}

func (s *Store) removeReference(ctx context.Context, d artifact.Digest) error {
	return s.locked(ctx, false, func() error {
		if err := s.fs.Remove(s.referencePath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return diag.Wrap(diag.Failure, err, "repair store %s", s.dir)
		}
		return nil
	})
}

// verifyTree looks whether listed manifests have all they need, of what was found good. It returns those that are gone.
func (s *Store) verifyTree(x artifact.Index, have map[artifact.Digest]int64, rep *VerifyReport) (lost []artifact.Digest) {
	type node struct {
		d     artifact.Descriptor
		names []string
	}
	var todo []node
	names := map[artifact.Digest][]string{}
	for _, e := range x.Manifests {
		if ref := e.Annotations[AnnotationRef]; ref != "" {
			names[e.Digest] = append(names[e.Digest], ref)
		}
	}
	for _, e := range x.Manifests {
		todo = append(todo, node{e, names[e.Digest]})
	}
	seen := map[artifact.Digest]bool{}
	missing := func(d artifact.Digest, what string, names []string) {
		for i := range rep.Problems { // altered, and found so above
			if p := &rep.Problems[i]; p.Digest == d {
				for _, n := range names {
					if !slices.Contains(p.Names, n) {
						p.Names = append(p.Names, n)
					}
				}
				return
			}
		}
		rep.Problems = append(rep.Problems, Problem{Digest: d, What: what, Names: slices.Clone(names)})
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[n.d.Digest] {
			continue
		}
		seen[n.d.Digest] = true
		rep.Manifests++
		b, err := s.manifestBytes(n.d.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			missing(n.d.Digest, "the manifest is missing", n.names)
			lost = append(lost, n.d.Digest)
			continue
		}
		if err != nil { // altered, as was found above
			missing(n.d.Digest, "the manifest cannot be read", n.names)
			continue
		}
		doc, err := ParseDoc(b, "")
		if err != nil {
			missing(n.d.Digest, err.Error(), n.names)
			continue
		}
		for _, bl := range doc.Blobs {
			if size, ok := have[bl.Digest]; !ok {
				missing(bl.Digest, fmt.Sprintf("missing, and manifest %s needs it", n.d.Digest), n.names)
			} else if size != bl.Size {
				missing(bl.Digest, fmt.Sprintf("has %d bytes, manifest %s says %d", size, n.d.Digest, bl.Size), n.names)
			}
		}
		for _, c := range doc.Children {
			todo = append(todo, node{c, n.names})
		}
	}
	return lost
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

	References     int   `json:"references"`        // blobs that are files elsewhere; not among Blobs
	ReferenceBytes int64 `json:"referenceBytes"`    // of those files
	Changed        int   `json:"changedReferences"` // whose files are gone or not as they were
}

// Stat measures the store without reading blobs.
func (s *Store) Stat(ctx context.Context) (Usage, error) {
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
	refs, err := s.References(ctx)
	if err != nil {
		return u, err
	}
	for _, r := range refs {
		u.References++
		u.ReferenceBytes += r.Size
		if !r.Current {
			u.Changed++
		}
	}
	u.Free, err = s.fs.FreeBytes(s.dir)
	if err != nil {
		return u, diag.Wrap(diag.Failure, err, "measure store %s", s.dir)
	}
	return u, nil
}
