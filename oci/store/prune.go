package store

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// PruneOptions refine Prune.
type PruneOptions struct {
	Untagged bool // also drop manifests without a tag that refer to nothing kept
	DryRun   bool // change nothing, report what would go
	// Partials is how long ago somebody must have written to a download that broke off, for it to be deleted; 0 deletes
	// all that no running process counts on.
	Partials time.Duration
	Now      func() time.Time // for Partials; nil: time.Now
}

// PruneReport tells what Prune removed, or would remove.
type PruneReport struct {
	Manifests  []artifact.Digest `json:"manifests"` // dropped from the index
	Blobs      []artifact.Digest `json:"blobs"`
	Temp       int               `json:"temporaryFiles"` // left behind by writers that died
	TempBytes  int64             `json:"temporaryBytes"`
	Partials   int               `json:"partialFiles"` // of downloads that broke off
	References int               `json:"references"`   // records of files elsewhere; the files stay
	InUse      []artifact.Digest `json:"inUse"`        // kept, since a running process counts on them
	Bytes      int64             `json:"bytes"`        // freed by all of these
}

// Prune deletes blobs that no listed manifest needs and no running writer counts on, and what crashed writers left. Writers
// may be at work meanwhile, in this process too: they wait for the index while prune runs.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	rep := PruneReport{Manifests: []artifact.Digest{}, Blobs: []artifact.Digest{}, InUse: []artifact.Digest{}}
	own := s.leaseName()
	err := s.locked(ctx, false, func() error { return s.prune(own, o, &rep) })
	return rep, err
}

func (s *Store) prune(own string, o PruneOptions, rep *PruneReport) error {
	blobs, err := s.blobs() // before the leases: see there
	if err != nil {
		return err
	}
	refs, err := s.referenceNames()
	if err != nil {
		return err
	}
	l, err := s.readLeases(own)
	if err != nil {
		return err
	}
	if err := s.pruneTemp(l, o, rep); err != nil { // first, since the index may need the room
		return err
	}
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	if o.Untagged {
		gone, err := s.untagged(x, l.pins)
		if err != nil {
			return err
		}
		rep.Manifests = append(rep.Manifests, gone...)
		x.Manifests = slices.DeleteFunc(x.Manifests, func(e artifact.Descriptor) bool { return slices.Contains(gone, e.Digest) })
	}
	r, err := s.reachable(x)
	if err != nil {
		return err
	}
	if len(rep.Manifests) > 0 && !o.DryRun { // else writing nothing also lets prune work on a full disk
		if err := s.writeIndex(x); err != nil {
			return s.writeError(err, "update the index of store")
		}
	}
	// The index no longer names them, and nobody can add a name while the lock is held.
	stored := map[artifact.Digest]bool{}
	for _, b := range blobs {
		stored[b.Digest] = true
		if _, used := r.blobs[b.Digest]; used {
			continue
		}
		if l.pins[b.Digest] {
			rep.InUse = append(rep.InUse, b.Digest)
			continue
		}
		if err := s.remove(s.BlobPath(b.Digest), o.DryRun); err != nil {
			return err
		}
		rep.Blobs = append(rep.Blobs, b.Digest)
		rep.Bytes += b.Size
	}
	for _, d := range refs {
		if _, used := r.blobs[d]; (used || l.pins[d]) && !stored[d] {
			continue
		}
		if err := s.remove(s.referencePath(d), o.DryRun); err != nil {
			return err
		}
		rep.References++
	}
	for _, name := range l.stale {
		for _, p := range []string{s.path(leaseDir, name), s.path(leaseDir, name+lockSuffix)} {
			if err := s.remove(p, o.DryRun); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove deletes a file, which may be gone already.
func (s *Store) remove(path string, dry bool) error {
	if dry {
		return nil
	}
	if err := s.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diag.Wrap(diag.Failure, err, "prune store %s", s.dir)
	}
	return nil
}

// CleanTemp removes what crashed writers left. Downloads that can go on stay.
func (s *Store) CleanTemp(ctx context.Context) error {
	own := s.leaseName()
	return s.locked(ctx, false, func() error {
		l, err := s.readLeases(own)
		if err != nil {
			return err
		}
		var rep PruneReport
		return s.pruneTemp(l, PruneOptions{Partials: 1<<63 - 1, Now: time.Now}, &rep)
	})
}

// pruneTemp removes temporary files that no running writer owns. It is called under the exclusive index lock, which the
// writers of all temporary files outside ingestDir hold.
func (s *Store) pruneTemp(l leases, o PruneOptions, rep *PruneReport) error {
	for _, dir := range []string{s.path(ingestDir), s.path(referenceDir), s.dir} {
		es, err := s.fs.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return diag.Wrap(diag.Failure, err, "prune store %s", s.dir)
		}
		for _, e := range es {
			if e.IsDir() {
				continue
			}
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return diag.Wrap(diag.Failure, err, "prune store %s", s.dir)
			}
			d, partial := partialOf(e.Name())
			switch {
			case partial && dir == s.path(ingestDir):
				if l.pins[d] || o.Now().Sub(fi.ModTime()) < o.Partials {
					continue
				}
				rep.Partials++
			case fsx.IsTemp(e.Name()) && !l.owns(e.Name()):
				rep.Temp++
				rep.TempBytes += fi.Size()
			default:
				continue
			}
			if err := s.remove(filepath.Join(dir, e.Name()), o.DryRun); err != nil {
				return err
			}
			rep.Bytes += fi.Size()
		}
	}
	return nil
}

// owns tells whether a running writer made the temporary file: its lease's name stands in it.
func (l leases) owns(base string) bool {
	for name := range l.live {
		if strings.HasPrefix(base, "."+name) {
			return true
		}
	}
	return false
}

// untagged lists the manifests that no tag and no running writer keeps: not among these, and not attached, over any
// number of steps, to one that is.
func (s *Store) untagged(x artifact.Index, pins map[artifact.Digest]bool) ([]artifact.Digest, error) {
	kept := map[artifact.Digest]bool{}
	for _, e := range x.Manifests {
		if e.Annotations[AnnotationRef] != "" || pins[e.Digest] {
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
