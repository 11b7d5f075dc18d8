package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const (
	referenceDir    = ".references"
	referenceSchema = "https://github.com/waybill-ml/waybill/schema/reference/v1"
	maxReference    = 64 << 10
)

// reference is the record of a blob whose bytes lie in a file outside the store (docs/format.md).
type reference struct {
	Schema   string          `json:"schema"`
	Digest   artifact.Digest `json:"digest"`
	Path     string          `json:"path"`
	Identity fsx.Identity    `json:"identity"`
}

func (s *Store) referencePath(d artifact.Digest) string {
	return s.path(referenceDir, d.Hex()+".json")
}

// putReference is called under the index lock, so that a temporary file beside the records is always a dead process's.
func (s *Store) putReference(r reference) error {
	r.Schema = referenceSchema
	b, err := artifact.Canonical(r)
	if err != nil {
		return err
	}
	p := s.referencePath(r.Digest)
	err = fsx.WriteFileAtomic(s.fs, p, b, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.mkdir(s.path(referenceDir)); err == nil {
			err = fsx.WriteFileAtomic(s.fs, p, b, 0o600)
		}
	}
	if err != nil {
		return s.writeError(err, "write to store")
	}
	return nil
}

// reference reads the record of d; nil when there is none, or when this store has none: a layout from elsewhere must not
// make us read files of this machine.
func (s *Store) reference(d artifact.Digest) (*reference, error) {
	if !s.references {
		return nil, nil
	}
	b, err := fsx.ReadFile(s.fs, s.referencePath(d), maxReference)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "look for blob %s in store %s", d, s.dir)
	}
	return parseReference(b, d)
}

var errDamaged = errors.New("damaged record")

func parseReference(b []byte, d artifact.Digest) (*reference, error) {
	var r reference
	err := strictjson.Decode(b, &r)
	switch {
	case err != nil:
	case r.Schema != referenceSchema:
		err = errors.New("unknown schema " + r.Schema)
	case r.Digest != d:
		err = errors.New("it is about " + string(r.Digest))
	case !filepath.IsAbs(r.Path) || strings.ContainsRune(r.Path, 0):
		err = errors.New("its path is not absolute")
	case r.Identity.Size < 0:
		err = errors.New("it has a negative size")
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, fmt.Errorf("%w: %w", errDamaged, err), "the reference to the file of blob %s", d).Hint("waybill store verify --repair")
	}
	return &r, nil
}

// what names the content in errors.
func (r *reference) what() string { return "file " + r.Path + ", which the store refers to" }

// hint is what helps against a file that was changed or moved.
func (r *reference) hint(e *diag.Error) *diag.Error {
	return e.Hint("waybill pack (with the file as it is now, which makes a new digest)").
		Hint("put the file back as it was; waybill store own copies such files into the store beforehand")
}

// current tells, without reading the content, whether the file is there and still the one that was hashed.
func (s *Store) current(r *reference) bool {
	f, err := s.fs.Open(r.Path)
	if err != nil {
		return false
	}
	defer f.Close()
	id, err := fsx.Identify(f)
	return err == nil && id == r.Identity
}

// openReference opens the file of a reference. One whose identity differs from the recorded one is hashed: with the right
// content (it was moved and put back, its times were set) it is recorded anew; else the error names both digests.
func (s *Store) openReference(ctx context.Context, r *reference) (fsx.File, error) {
	f, err := s.fs.Open(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.hint(diag.Wrap(diag.NotFound, fs.ErrNotExist, "blob %s: its %s, is not there", r.Digest, r.what()))
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "blob %s: open its %s", r.Digest, r.what())
	}
	id, err := fsx.Identify(f)
	if err == nil && id != r.Identity {
		err = s.recheck(ctx, f, r, id)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Store) recheck(ctx context.Context, f fsx.File, r *reference, id fsx.Identity) error {
	got, n, err := digestOf(ctxReader{ctx, io.NewSectionReader(f, 0, max(id.Size, 0))})
	if err != nil {
		return readError(ctx, err, r.Path)
	}
	if got != r.Digest {
		e := mismatch(r.Digest, got, r.what())
		if n != r.Identity.Size {
			_ = e.Line("it had %d bytes when it was packed, it has %d", r.Identity.Size, n)
		}
		return r.hint(e)
	}
	if after, err := fsx.Identify(f); err != nil || after != id {
		return diag.New(diag.Failure, "%s is being written to", r.Path)
	}
	now := *r
	now.Identity = id
	// It only saves the next reader the work: the store may be read-only, or somebody may hold the lock.
	once, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = s.locked(once, false, func() error { return s.putReference(now) })
	return nil
}

// Reference is a blob that is a file elsewhere.
type Reference struct {
	Digest  artifact.Digest `json:"digest"`
	Size    int64           `json:"size"`
	Path    string          `json:"path"`
	Current bool            `json:"current"` // the file is there and has the identity that was recorded
}

// References lists the blobs that are files elsewhere, by digest. It does not hash.
func (s *Store) References(context.Context) ([]Reference, error) {
	out := []Reference{}
	names, err := s.referenceNames()
	if err != nil {
		return out, err
	}
	for _, d := range names {
		if _, err := s.fs.Stat(s.BlobPath(d)); !errors.Is(err, fs.ErrNotExist) {
			continue // it is here too, or cannot be looked for, which a read will say
		}
		r, err := s.reference(d)
		if err != nil {
			return out, err
		}
		if r != nil {
			out = append(out, Reference{d, r.Identity.Size, r.Path, s.current(r)})
		}
	}
	return out, nil
}

// Own copies files that the store refers to into it, so that they may be moved or deleted; only those among digests,
// or all when there are none. It returns what it took in.
func (s *Store) Own(ctx context.Context, digests ...artifact.Digest) ([]artifact.Descriptor, error) {
	out := []artifact.Descriptor{}
	names, err := s.referenceNames()
	if err != nil {
		return out, err
	}
	for _, name := range names {
		if !wanted(digests, name) {
			continue
		}
		r, err := s.reference(name)
		if err != nil {
			return out, err
		}
		if r == nil { // pruned meanwhile
			continue
		}
		_, err = s.fs.Stat(s.BlobPath(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, diag.Wrap(diag.Failure, err, "look for blob %s in store %s", name, s.dir)
		}
		if err != nil {
			d := artifact.Descriptor{Digest: name, Size: r.Identity.Size}
			rc, err := s.Blob(ctx, d)
			if err != nil {
				return out, err
			}
			_, _, err = s.PutBlob(ctx, rc, d)
			_ = rc.Close() // only read
			if err != nil {
				return out, err
			}
			if err := s.fs.SyncDir(s.path("blobs", "sha256")); err != nil {
				return out, s.writeError(err, "write to store")
			}
			out = append(out, d)
		}
		if err := s.removeReference(ctx, name); err != nil {
			return out, err
		}
	}
	return out, nil
}

func wanted(list []artifact.Digest, d artifact.Digest) bool {
	for _, w := range list {
		if w == d {
			return true
		}
	}
	return len(list) == 0
}

// referenceNames lists the blobs for which there are records.
func (s *Store) referenceNames() ([]artifact.Digest, error) {
	if !s.references {
		return nil, nil
	}
	es, err := s.fs.ReadDir(s.path(referenceDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, diag.Wrap(diag.Failure, err, "list the references of store %s", s.dir)
	}
	var out []artifact.Digest
	for _, e := range es {
		hex, ok := strings.CutSuffix(e.Name(), ".json")
		if d, err := artifact.ParseDigest("sha256:" + hex); ok && err == nil {
			out = append(out, d)
		}
	}
	return out, nil
}

// OnDisk tells whether OpenRaw gives files of the operating system.
func (s *Store) OnDisk() bool {
	_, ok := s.fs.(fsx.OS)
	return ok
}
