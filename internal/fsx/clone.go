package fsx

import (
	"errors"
	"fmt"
	"os"
)

// Cloner is what file systems may offer besides FS.
type Cloner interface {
	// Clone makes the new file dst with the content that src has now, sharing its blocks until either is written to. It
	// wraps errors.ErrUnsupported, and leaves no dst, when the two do not lie on one file system that can do that; the
	// caller then copies. dst is durable after it was synced, like any other file.
	Clone(src File, dst string) error
}

// Linker is what file systems may offer besides FS.
type Linker interface {
	// Link gives the file oldname the further name newname. It wraps errors.ErrUnsupported where the two cannot be one file.
	Link(oldname, newname string) error
}

var (
	_ Cloner = OS{}
	_ Linker = OS{}
)

// Clone implements Cloner: FICLONE on Linux (btrfs, XFS, bcachefs, NFS 4.2, overlays over them), clonefile on macOS (APFS).
func (OS) Clone(src File, dst string) error {
	f, ok := src.(*os.File)
	if !ok {
		return fmt.Errorf("clone %s: %w", src.Name(), errors.ErrUnsupported)
	}
	if err := clone(f, dst); err != nil {
		return fmt.Errorf("clone %s: %w", src.Name(), err)
	}
	return nil
}

// Link implements Linker. Whatever forbids it (another device, a file system without links, a limit) is no failure of
// the caller's: the content can be copied.
func (OS) Link(oldname, newname string) error {
	if err := os.Link(oldname, newname); err != nil {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return nil
}

// Clone implements Cloner when the wrapped file system does.
func (f *Faulty) Clone(src File, dst string) error {
	c, ok := f.fs.(Cloner)
	if !ok {
		return pathErr("clone", dst, errors.ErrUnsupported)
	}
	if x, ok := src.(*faultyFile); ok {
		src = x.file
	}
	return f.do(op{verb: "clone", name: dst, change: true, run: func() error { return c.Clone(src, dst) }, need: func() int64 {
		if info, err := src.Stat(); err == nil {
			return info.Size()
		}
		return 0
	}})
}

// Clone implements Cloner. The new file is as little durable as one that was just written.
func (m *Mem) Clone(src File, dst string) error {
	x, ok := src.(*memFile)
	if !ok || x.m != m {
		return pathErr("clone", dst, errors.ErrUnsupported)
	}
	m.mu.Lock()
	data := append([]byte(nil), x.n.data...)
	m.mu.Unlock()
	f, err := m.Create(dst, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = m.Remove(dst)
	}
	return err
}
