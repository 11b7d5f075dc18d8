package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fetch"
	"github.com/waybill-ml/waybill/oci/store"
)

// ExtractOptions refine Extract.
type ExtractOptions struct {
	Force bool        // replace files that are there with another content
	Jobs  int         // files at a time; 0: 4
	Bytes func(int64) // hears of bytes that are there, also of those that were there before; called concurrently; may be nil
}

// ExtractResult tells what Extract did.
type ExtractResult struct {
	Written int `json:"filesWritten"`
	Present int `json:"filesPresent"` // there already, with the right content
	Received
}

// Extract writes layers of a model as files below dir, each under its path. A file appears under its name only when
// its whole content has been hashed; one that is there with the right content, which is hashed too, stays. It writes through no symbolic
// link that leads out of dir, and over no other file unless Force is set. dir is made when missing. From a registry the bytes
// go into their files directly, and what broke off goes on with the next call.
func Extract(ctx context.Context, r Repository, layers []artifact.Layer, dir string, o ExtractOptions) (ExtractResult, error) {
	for _, l := range layers {
		if err := artifact.CheckPath(l.Path); err != nil {
			return ExtractResult{}, diag.Wrap(diag.Failure, err, "extract")
		}
	}
	return extract(ctx, r, layers, dir, o)
}

// extract is Extract of paths that were checked.
func extract(ctx context.Context, r Repository, layers []artifact.Layer, dir string, o ExtractOptions) (res ExtractResult, err error) {
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.Bytes == nil {
		o.Bytes = func(int64) {}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return res, diag.Wrap(diag.Failure, err, "write to %s", dir)
	}
	// Everything below goes through the root, which no link inside it can leave.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return res, diag.Wrap(diag.Failure, err, "write to %s", dir)
	}
	defer root.Close()
	x := &extractor{src: r, root: root, o: o}
	missing, err := x.look(ctx, layers)
	if err != nil {
		return x.res, err
	}
	// Files of one content are fetched once.
	first := map[artifact.Digest]artifact.Layer{}
	var copies []artifact.Layer
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Jobs)
	for _, l := range missing {
		if _, twice := first[l.Digest]; twice {
			copies = append(copies, l)
			continue
		}
		first[l.Digest] = l
		g.Go(func() error { return x.fetch(gctx, l) })
	}
	if err := g.Wait(); err != nil {
		return x.res, err
	}
	for _, l := range copies {
		if err := x.copy(ctx, l, func() (io.ReadCloser, error) {
			f, err := root.Open(filepath.FromSlash(first[l.Digest].Path))
			if err != nil {
				return nil, x.fail(l, err)
			}
			return store.Verified(ctx, f, l.Descriptor(), "file "+f.Name()), nil
		}); err != nil {
			return x.res, err
		}
	}
	return x.res, x.syncDirs(missing)
}

type extractor struct {
	src  Repository
	root *os.Root
	o    ExtractOptions

	mu  sync.Mutex
	res ExtractResult
}

func (x *extractor) fail(l artifact.Layer, err error) error {
	var de *diag.Error
	if errors.As(err, &de) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := diag.Wrap(diag.Failure, err, "write %s", x.path(l))
	if fsx.NoSpace(err) {
		if free, ferr := (fsx.OS{}).FreeBytes(x.root.Name()); ferr == nil {
			_ = e.Line("%d bytes are free", free)
		}
	}
	return e
}

func (x *extractor) path(l artifact.Layer) string {
	return filepath.Join(x.root.Name(), filepath.FromSlash(l.Path))
}

// look hashes the files that are there and gives the layers that are to be written. A file with another content is an
// error, before anything is fetched, unless it may be replaced.
func (x *extractor) look(ctx context.Context, layers []artifact.Layer) ([]artifact.Layer, error) {
	right := make([]bool, len(layers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(x.o.Jobs)
	for i, l := range layers {
		g.Go(func() (err error) {
			right[i], err = x.right(gctx, l)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var missing []artifact.Layer
	for i, l := range layers {
		if right[i] {
			x.res.Present++
			x.o.Bytes(l.Size)
		} else {
			missing = append(missing, l)
		}
	}
	return missing, nil
}

func (x *extractor) right(ctx context.Context, l artifact.Layer) (bool, error) {
	name := filepath.FromSlash(l.Path)
	fi, err := x.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, x.fail(l, err)
	}
	if fi.Mode().IsRegular() && fi.Size() == l.Size {
		f, err := x.root.Open(name)
		if err != nil {
			return false, x.fail(l, err)
		}
		v := store.Verified(ctx, f, l.Descriptor(), "file "+x.path(l))
		_, err = io.CopyBuffer(onlyWriter{io.Discard}, v, make([]byte, 256<<10))
		_ = v.Close() // only read
		if err == nil {
			return true, nil
		}
		if diag.CodeOf(err) != diag.Verification {
			return false, x.fail(l, err)
		}
	}
	if !x.o.Force {
		return false, x.exists(l)
	}
	return false, nil
}

// onlyWriter hides the small buffer that io.Discard reads with.
type onlyWriter struct{ io.Writer }

func (x *extractor) exists(l artifact.Layer) error {
	return diag.Wrap(diag.Usage, fs.ErrExist, "%s, with another content", x.path(l)).
		Hint("choose an empty folder, or add --force")
}

// partial names the file that l grows in.
func partial(l artifact.Layer) string {
	dir, base := filepath.Split(filepath.FromSlash(l.Path))
	return dir + fmt.Sprintf(".%.100s.%s.partial", base, l.Digest.Short())
}

func (x *extractor) fetch(ctx context.Context, l artifact.Layer) error {
	src, ok := x.src.(*Remote)
	if !ok {
		return x.copy(ctx, l, func() (io.ReadCloser, error) { return x.src.Blob(ctx, l.Descriptor()) })
	}
	name := filepath.FromSlash(l.Path)
	if err := x.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return x.fail(l, err)
	}
	replace := func(string) error {
		if x.o.Force {
			return nil
		}
		return x.exists(l) // it came meanwhile
	}
	f, err := src.toFile(ctx, l.Descriptor(), fetch.Target{Root: x.root, Name: name, Partial: partial(l)}, x.o.Bytes, replace)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.res.add(f)
	if err == nil && f.Present {
		x.res.Present++
	} else if err == nil {
		x.res.Written++
	}
	return err
}

// copy writes a file from a stream that is hashed as it is read.
func (x *extractor) copy(ctx context.Context, l artifact.Layer, open func() (io.ReadCloser, error)) error {
	name := filepath.FromSlash(l.Path)
	if err := x.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return x.fail(l, err)
	}
	// A lock as in a download: another process may write the same file.
	release, err := fsx.LockRemovable(ctx, x.root, partial(l)+".lock", nil)
	if err != nil {
		return x.fail(l, err)
	}
	defer release(true) //nolint:errcheck // the file has its name by then
	src, err := open()
	if err != nil {
		return err
	}
	defer src.Close()
	tmp := partial(l)
	_ = x.root.Remove(tmp) // of an earlier run that was cut off
	f, err := x.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return x.fail(l, err)
	}
	_, err = io.CopyBuffer(countingWriter{f, x.o.Bytes}, src, make([]byte, 256<<10))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = x.root.Rename(tmp, name)
	}
	if err != nil {
		_ = x.root.Remove(tmp)
		return x.fail(l, err)
	}
	x.mu.Lock()
	x.res.Written++
	x.mu.Unlock()
	return nil
}

type countingWriter struct {
	w     io.Writer
	bytes func(int64)
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.bytes(int64(n))
	return n, err
}

// syncDirs makes the new names durable.
func (x *extractor) syncDirs(layers []artifact.Layer) error {
	var dirs []string
	for _, l := range layers {
		dirs = append(dirs, filepath.Dir(x.path(l)))
	}
	slices.Sort(dirs)
	for _, d := range slices.Compact(dirs) {
		if err := (fsx.OS{}).SyncDir(d); err != nil {
			return diag.Wrap(diag.Failure, err, "write to %s", d)
		}
	}
	return nil
}
