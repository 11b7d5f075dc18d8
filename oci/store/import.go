package store

import (
	"context"
	"errors"
	"path/filepath"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// How tells in which way the content of a file gets into a store.
type How string

// Ways into a store. Reflink, Hardlink and Reference need no second copy on disk.
const (
	// HowAuto takes the best way that keeps the store's promises: a reflink where the file system can; else, for files
	// from MinReference on in a store that allows it, a reference; else a copy.
	HowAuto How = ""
	// HowCopy writes the bytes into the store; nothing that happens to the file later matters.
	HowCopy How = "copy"
	// HowReflink shares the blocks copy-on-write, which is as safe as a copy; it fails where the file system cannot.
	HowReflink How = "reflink"
	// HowHardlink makes the blob a second name of the file. Who later writes into the file in place alters the blob, which
	// every reader then refuses: only for files that are never written again, and only in stores with references.
	HowHardlink How = "hardlink"
	// HowReference records where the file lies and what identifies it. The blob is there as long as the file is.
	HowReference How = "reference"
)

// MinReference is the size in bytes from which HowAuto refers to a file that it cannot clone: copying less than this
// takes no noticeable time or room, and does not tie the artifact to a file that the user may move.
const MinReference = 16 << 20

// ImportOptions refine Import.
type ImportOptions struct {
	How      How
	Want     artifact.Digest          // when not "", the content must have it
	Progress func(n int64)            // told of each further n bytes that were hashed; called by one goroutine; may be nil
	Tee      func(piece []byte) error // sees the content in order, before it is stored; may be nil; an error ends the import
}

// Imported tells what Import did.
type Imported struct {
	Digest artifact.Digest
	Size   int64
	How    How // never HowAuto
}

// Import stores the content of the regular file f, reading it exactly once: the digest it returns is at once that of the
// layer, its diffID when the layer is raw, and that of the file's OMS resource. path is the absolute name of f, for
// references and links. f is read from its beginning with ReadAt and stays open and the caller's. Several calls at once are
// safe, on one Store too. As with PutBlob, a manifest must name the blob before Close, or Prune deletes it.
//
// With a reference the store reads the file itself whenever the blob is asked for. It compares the identity (device,
// inode, size, times) each time, and the bytes are hashed on every way out of the store, so a file that was changed
// since is refused with both digests.
func (s *Store) Import(ctx context.Context, f fsx.File, path string, o ImportOptions) (Imported, error) {
	fi, err := f.Stat()
	if err != nil {
		return Imported{}, diag.Wrap(diag.Failure, err, "read %s", path)
	}
	if !fi.Mode().IsRegular() {
		return Imported{}, diag.New(diag.Usage, "%s is not a regular file", path)
	}
	if (o.How == HowReference || o.How == HowHardlink) && !s.references {
		return Imported{}, diag.New(diag.Usage, "%s: store %s holds its own files only, no %s", path, s.dir, o.How)
	}
	if err := s.Hold(ctx); err != nil {
		return Imported{}, err
	}
	src := &source{ctx: ctx, f: f, o: o}
	switch o.How {
	case HowAuto, HowReflink:
		if o.How == HowAuto && fi.Size() < copySize {
			break
		}
		in, err := s.importClone(src, path)
		if !errors.Is(err, errors.ErrUnsupported) {
			return in, err
		}
		if o.How == HowReflink {
			return in, diag.Wrap(diag.Failure, err, "%s: the file system cannot share blocks between it and store %s", path, s.dir)
		}
		if s.references && fi.Size() >= MinReference && utf8.ValidString(path) {
			return s.importReference(src, path)
		}
	case HowHardlink:
		return s.importLink(src, path)
	case HowReference:
		return s.importReference(src, path)
	case HowCopy:
	default:
		return Imported{}, diag.New(diag.Usage, "import %s: there is no way %q into a store", path, o.How)
	}
	return s.importCopy(ctx, src, path)
}

// source reads one file from its beginning.
type source struct {
	ctx context.Context // of the Import call
	f   fsx.File
	o   ImportOptions
	at  int64
}

func (r *source) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.f.ReadAt(p, r.at)
	r.at += int64(n)
	if n > 0 && r.o.Tee != nil {
		if terr := r.o.Tee(p[:n]); terr != nil {
			return n, terr
		}
	}
	if n > 0 && r.o.Progress != nil {
		r.o.Progress(int64(n))
	}
	return n, err
}

// hash reads the source once. The digest is checked against what the caller wants.
func (r *source) hash(path string) (artifact.Digest, int64, error) {
	d, n, err := digestOf(r)
	if err != nil {
		return "", n, readError(r.ctx, err, path)
	}
	return d, n, r.wanted(d, path)
}

func (r *source) wanted(d artifact.Digest, path string) error {
	if r.o.Want != "" && d != r.o.Want {
		return mismatch(r.o.Want, d, path)
	}
	return nil
}

func readError(ctx context.Context, err error, path string) error {
	var de *diag.Error
	if ctx.Err() != nil || errors.As(err, &de) {
		return err
	}
	return diag.Wrap(diag.Failure, err, "read %s", path)
}

func (s *Store) importCopy(ctx context.Context, src *source, path string) (Imported, error) {
	w, err := s.NewWriter(ctx)
	if err != nil {
		return Imported{}, err
	}
	defer w.Close()
	w.what = path
	if _, err := w.ReadFrom(src); err != nil {
		return Imported{}, readError(ctx, err, path)
	}
	d, n, err := w.Commit(src.o.Want)
	return Imported{d, n, HowCopy}, err
}

// importClone hashes the clone, not the file, which somebody may be writing to.
func (s *Store) importClone(src *source, path string) (Imported, error) {
	c, ok := s.fs.(fsx.Cloner)
	if !ok {
		return Imported{}, errors.ErrUnsupported
	}
	tmp, err := s.tempName()
	if err != nil {
		return Imported{}, err
	}
	if err := c.Clone(src.f, tmp); err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			return Imported{}, err
		}
		return Imported{}, s.writeError(err, "write to store")
	}
	return s.adopt(src, tmp, path, HowReflink)
}

func (s *Store) importLink(src *source, path string) (Imported, error) {
	l, ok := s.fs.(fsx.Linker)
	if !ok {
		return Imported{}, errors.ErrUnsupported
	}
	tmp, err := s.tempName()
	if err != nil {
		return Imported{}, err
	}
	if err := l.Link(path, tmp); err != nil {
		return Imported{}, diag.Wrap(diag.Failure, err, "link %s into store %s", path, s.dir)
	}
	if err := s.sameFile(src.f, tmp, path); err != nil {
		_ = s.fs.Remove(tmp)
		return Imported{}, err
	}
	return s.adopt(src, tmp, path, HowHardlink)
}

// sameFile tells an error when the file at name is not f.
func (s *Store) sameFile(f fsx.File, name, path string) error {
	g, err := s.fs.Open(name)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "read %s", path)
	}
	defer g.Close()
	a, err := fsx.Identify(f)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "read %s", path)
	}
	b, err := fsx.Identify(g)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "read %s", path)
	}
	if a != b {
		return diag.New(diag.Failure, "%s was replaced while it was read", path).Hint("waybill pack")
	}
	return nil
}

// adopt hashes the temporary file tmp, which has its content already, and gives it its name.
func (s *Store) adopt(src *source, tmp, path string, how How) (in Imported, err error) {
	defer func() {
		if err != nil {
			_ = s.fs.Remove(tmp)
		}
	}()
	f, err := s.fs.Open(tmp)
	if err != nil {
		return in, s.writeError(err, "write to store")
	}
	defer f.Close()
	src.f = f
	d, n, err := src.hash(path)
	if err != nil {
		return in, err
	}
	if err := f.Sync(); err != nil {
		return in, s.writeError(err, "write to store")
	}
	if err := s.name(tmp, d); err != nil {
		return in, err
	}
	return Imported{d, n, how}, nil
}

func (s *Store) importReference(src *source, path string) (Imported, error) {
	if !filepath.IsAbs(path) || !utf8.ValidString(path) {
		return Imported{}, diag.New(diag.Failure, "refer to %q: not an absolute path in UTF-8", path)
	}
	before, err := fsx.Identify(src.f)
	if err != nil {
		return Imported{}, diag.Wrap(diag.Failure, err, "read %s", path)
	}
	d, n, err := src.hash(path)
	if err != nil {
		return Imported{}, err
	}
	after, err := fsx.Identify(src.f)
	if err != nil {
		return Imported{}, diag.Wrap(diag.Failure, err, "read %s", path)
	}
	if before != after || n != after.Size {
		return Imported{}, diag.New(diag.Failure, "%s was changed while it was read", path).Hint("waybill pack")
	}
	if err := s.sameFile(src.f, path, path); err != nil {
		return Imported{}, err
	}
	if err := s.pin(d); err != nil { // before the blob is there
		return Imported{}, err
	}
	return Imported{d, n, HowReference}, s.locked(src.ctx, false, func() error {
		return s.putReference(reference{Digest: d, Path: path, Identity: after})
	})
}

// Share takes a blob over from another store of the same owner, hashing it on the way and, where the file system allows it,
// without a second copy on disk: both then have the same file, which neither ever writes into.
func (s *Store) Share(ctx context.Context, from *Store, d artifact.Digest) error {
	f, err := from.OpenRaw(ctx, d)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.Hold(ctx); err != nil {
		return err
	}
	o := ImportOptions{Want: d}
	path := from.BlobPath(d)
	for _, way := range []func(*source, string) (Imported, error){s.importClone, s.importLink} {
		if _, err = way(&source{ctx: ctx, f: f, o: o}, path); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	_, err = s.importCopy(ctx, &source{ctx: ctx, f: f, o: o}, path)
	return err
}
