package carrier

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Folder is a directory that may come and go, such as the mount point of a stick: an OCI layout, or a layout in its folder
// waybill, and archives (*.tar) that `waybill save` wrote, which are read where they lie. It may also be one such archive.
// Nothing outside of it is read: no link is followed, and what is neither a file nor a directory is not opened. No file
// stays open between two calls, so that the stick can be taken out.
type Folder struct {
	path  string
	names []string // under which the channel's tags may stand in an archive of several models

	mu    sync.Mutex
	known map[string]known // archives by name
}

// known is the table of contents of an archive as it was.
type known struct {
	size    int64
	changed time.Time
	*archive
}

// Limits of what is looked at in a folder.
const (
	maxListed   = 4096 // entries; waybill.tar and waybill/ are found among any number
	maxArchives = 16
)

// NewFolder makes a place of a directory or an archive.
func NewFolder(path string, names ...string) *Folder {
	return &Folder{path: path, names: names, known: map[string]known{}}
}

// source is a layout or an archive in the folder while it is open.
type source interface {
	heads(tag string, names []string) []artifact.Digest
	open(d artifact.Digest) (*os.File, extent, error)
}

// Heads implements Place.
func (f *Folder) Heads(ctx context.Context, tag string) ([]artifact.Digest, error) {
	var out []artifact.Digest
	var errs []error
	any := false
	err := f.each(ctx, func(s source, err error) bool {
		if err != nil {
			errs = append(errs, err)
			return true
		}
		any = true
		for _, d := range s.heads(tag, f.names) {
			if !slices.Contains(out, d) && len(out) < maxHeads {
				out = append(out, d)
			}
		}
		return true
	})
	switch {
	case err != nil:
		return nil, err
	case len(out) > 0:
		return out, nil
	case !any && len(errs) > 0:
		return nil, fmt.Errorf("%s: %w", f.path, errors.Join(errs...))
	}
	return nil, notFound("%s has no tag %s", f.path, tag)
}

// Open implements Place. Where several sources have d, the one with the right content is taken.
func (f *Folder) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	type hit struct {
		*os.File
		extent
	}
	var hits []hit
	var errs []error
	err := f.each(ctx, func(s source, err error) bool {
		if err == nil {
			var file *os.File
			var e extent
			if file, e, err = s.open(d.Digest); err == nil {
				if d.Size > 0 && e.size != d.Size {
					err = fmt.Errorf("%s has %d bytes there, not %d", d.Digest.Short(), e.size, d.Size)
					_ = file.Close()
				} else {
					hits = append(hits, hit{file, e})
				}
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		return len(hits) < maxHeads
	})
	var take *hit
	for i := range hits {
		h := &hits[i]
		if take == nil && (len(hits) == 1 || right(ctx, h.File, h.extent, d.Digest)) {
			take = h
			continue
		}
		_ = h.Close()
	}
	switch {
	case take != nil:
		at := min(max(offset, 0), take.size)
		return &section{io.NewSectionReader(take.File, take.at+at, take.size-at), take.File}, nil
	case err != nil:
		return nil, err
	case len(hits) > 0:
		return nil, fmt.Errorf("%s: no copy of %s is what its name says", f.path, d.Digest.Short())
	case len(errs) > 0:
		return nil, fmt.Errorf("%s: %w", f.path, errors.Join(errs...))
	}
	return nil, notFound("%s has no %s", f.path, d.Digest.Short())
}

// right tells whether the content is what its digest says.
func right(ctx context.Context, r io.ReaderAt, e extent, d artifact.Digest) bool {
	h := sha256.New()
	in := io.NewSectionReader(r, e.at, e.size)
	for buf := make([]byte, 128<<10); ; {
		n, err := in.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return "sha256:"+hex.EncodeToString(h.Sum(nil)) == string(d)
		}
		if err != nil || ctx.Err() != nil {
			return false
		}
	}
}

type section struct {
	*io.SectionReader
	f *os.File
}

func (s *section) Close() error { return s.f.Close() }

// each hands every source of the folder to do until it returns false; one that cannot be read comes with an error instead.
func (f *Folder) each(ctx context.Context, do func(source, error) bool) error {
	info, err := os.Stat(f.path) // the configured path itself may be a link
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%s: %w", f.path, ErrAbsent)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		s, err := f.archive(ctx, f.path, func() (*os.File, fs.FileInfo, error) {
			return openRegular(func() (fs.FileInfo, error) { return os.Stat(f.path) }, func(flag int) (*os.File, error) { return os.OpenFile(f.path, flag, 0) })
		})
		do(s, err)
		return nil
	}
	root, err := os.OpenRoot(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", f.path, ErrAbsent)
	}
	if err != nil {
		return err
	}
	defer root.Close()
	for _, dir := range []string{"", "waybill/"} {
		l, err := openLayout(root, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			err = fmt.Errorf("%sindex.json: %w", dir, err)
		}
		if !do(l, err) {
			return nil
		}
	}
	for _, name := range archivesIn(root) {
		s, err := f.archive(ctx, name, func() (*os.File, fs.FileInfo, error) { return openIn(root, name) })
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		if !do(s, err) {
			return nil
		}
	}
	return ctx.Err()
}

// archivesIn lists the archives of a directory, the newest first, waybill.tar before all others.
func archivesIn(root *os.Root) []string {
	const own = "waybill.tar"
	type found struct {
		name string
		at   time.Time
	}
	var list []found
	if dir, err := root.Open("."); err == nil {
		defer dir.Close()
		for n := 0; n < maxListed; {
			es, err := dir.ReadDir(256)
			n += len(es)
			for _, e := range es {
				if e.Name() == own || !strings.HasSuffix(e.Name(), ".tar") || strings.HasPrefix(e.Name(), ".") {
					continue
				}
				if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
					list = append(list, found{e.Name(), info.ModTime()})
				}
			}
			if err != nil || len(es) == 0 {
				break
			}
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return a.at.After(b.at) || a.at.Equal(b.at) && a.name < b.name
	})
	var names []string
	if info, err := root.Lstat(own); err == nil && info.Mode().IsRegular() {
		names = append(names, own)
	}
	for _, l := range list[:min(len(list), maxArchives)] {
		names = append(names, l.name)
	}
	return names
}

// openIn opens a regular file below root without following a link that it may be.
func openIn(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	return openRegular(func() (fs.FileInfo, error) { return root.Lstat(name) }, func(flag int) (*os.File, error) { return root.OpenFile(name, flag, 0) })
}

var errNotRegular = errors.New("it is no regular file")

// openRegular never waits for the other end of a pipe, also not of one that was put there a moment ago.
func openRegular(stat func() (fs.FileInfo, error), open func(flag int) (*os.File, error)) (*os.File, fs.FileInfo, error) {
	info, err := stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errNotRegular
	}
	f, err := open(os.O_RDONLY | syscall.O_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// layout is an OCI layout below a root.
type layout struct {
	*index
	root *os.Root
	dir  string // "" or with a slash at its end
}

func openLayout(root *os.Root, dir string) (*layout, error) {
	f, info, err := openIn(root, dir+"index.json")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > artifact.MaxManifest {
		return nil, fmt.Errorf("it has %d bytes, more than %d", info.Size(), artifact.MaxManifest)
	}
	raw, err := io.ReadAll(io.LimitReader(f, artifact.MaxManifest))
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(raw)
	if err != nil {
		return nil, err
	}
	return &layout{x, root, dir}, nil
}

func (l *layout) open(d artifact.Digest) (*os.File, extent, error) {
	f, info, err := openIn(l.root, l.dir+blobPath(d))
	if err != nil {
		return nil, extent{}, err
	}
	return f, extent{0, info.Size()}, nil
}

// opened is an archive whose file can be opened.
type opened struct {
	*archive
	file func() (*os.File, fs.FileInfo, error)
}

func (o opened) open(d artifact.Digest) (*os.File, extent, error) {
	e, ok := o.blobs[d]
	if !ok {
		return nil, extent{}, fs.ErrNotExist
	}
	f, info, err := o.file()
	if err == nil && e.at+e.size > info.Size() {
		_ = f.Close()
		err = io.ErrUnexpectedEOF // it was replaced since
	}
	return f, e, err
}

// archive reads the table of contents of an archive, unless it is known and the file has not changed.
func (f *Folder) archive(ctx context.Context, name string, open func() (*os.File, fs.FileInfo, error)) (source, error) {
	file, info, err := open()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	f.mu.Lock()
	k, ok := f.known[name]
	f.mu.Unlock()
	if ok && k.size == info.Size() && k.changed.Equal(info.ModTime()) {
		return opened{k.archive, open}, nil
	}
	a, err := readArchive(ctx, file, info.Size())
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) > maxArchives {
		clear(f.known)
	}
	f.known[name] = known{info.Size(), info.ModTime(), a}
	return opened{a, open}, nil
}
