//go:build unix

package engine

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/waybill-ml/waybill/internal/diag"
)

// owned tells why others could write what st describes, nil if they cannot.
func owned(path string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if uid := int(sys.Uid); uid != os.Geteuid() && uid != 0 {
		return diag.Errorf("%s belongs to user %d", path, uid)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return diag.Errorf("%s can be written by other users (mode %v)", path, st.Mode().Perm())
	}
	return nil
}

// ownFile refuses a file that others could change under a mapping. st is that of the open file.
func ownFile(path string, st fs.FileInfo) error {
	if err := owned(path, st); err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Nlink > 1 {
		return diag.Errorf("%s has %d names (hard links): somebody may write it by another one", path, sys.Nlink)
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	return owned(filepath.Dir(path), dir)
}
