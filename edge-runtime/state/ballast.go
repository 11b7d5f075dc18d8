package state

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
)

// ballastSize is room for some hundred state documents and journal entries.
const ballastSize = 512 << 10

// Ballast is a file that holds space on the disk, given up when the disk is full so that a rollback can still be
// written down. Safe to use under the Store's lock or alone.
type Ballast struct {
	fs   fsx.FS
	path string
	size int64
}

// Release gives the space back to the file system. It reports whether there was any to give.
func (b *Ballast) Release() bool {
	if b == nil {
		return false
	}
	return b.fs.Remove(b.path) == nil
}

// Ensure writes the ballast again when it is missing or too small and the disk has four times its size to spare.
func (b *Ballast) Ensure() error {
	info, err := b.fs.Stat(b.path)
	if err == nil && info.Size() >= b.size {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	free, err := b.fs.FreeBytes(filepath.Dir(b.path))
	if err != nil {
		return err
	}
	if free < uint64(4*b.size) {
		return nil
	}
	data := make([]byte, b.size)
	for i := range data {
		data[i] = byte(i*7 + i>>8) // not zeros, which some file systems do not store
	}
	if err := fsx.WriteFileAtomic(b.fs, b.path, data, 0o600); err != nil {
		return diag.Errorf("reserve disk space: %w", err)
	}
	return nil
}
