package fsx

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
)

// tempMark stands in the name of every temporary file that this package makes.
const tempMark = ".wbtmp-"

// IsTemp reports whether the base name is that of a temporary file made by CreateTemp or WriteFileAtomic. One
// that is left behind by a crash is never referenced and may be removed.
func IsTemp(base string) bool { return strings.Contains(base, tempMark) }

// CreateTemp creates a new file with a random name in dir, beside the final file base that it will be renamed to.
func CreateTemp(fsys FS, dir, base string, perm fs.FileMode) (File, error) {
	for range 100 {
		var r [8]byte
		if _, err := rand.Read(r[:]); err != nil {
			return nil, err
		}
		f, err := fsys.Create(filepath.Join(dir, "."+base+tempMark+hex.EncodeToString(r[:])), perm)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("no free temporary name in %s: %w", dir, fs.ErrExist)
}

// WriteFileAtomic puts data at path so that a reader, also after a crash at any moment, sees the old file or the
// whole new one; when it returns nil the new one is durable. The parent directory must exist. On an error the
// old file stands, unless the error comes from the last step (sync of the directory), after which either may.
func WriteFileAtomic(fsys FS, path string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := CreateTemp(fsys, dir, filepath.Base(path), perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp := f.Name()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, path)
	}
	if err != nil {
		_ = fsys.Remove(tmp) // the first error is the one to report
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("write %s: make the name durable: %w", path, err)
	}
	return nil
}

// ReadFile reads a whole file of at most max bytes; a longer one is an error.
func ReadFile(fsys FS, path string, max int64) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, path, max)
}

func readBounded(r io.Reader, name string, max int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, max+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if n > max {
		return nil, fmt.Errorf("read %s: larger than the limit of %d bytes", name, max)
	}
	return b.Bytes(), nil
}
