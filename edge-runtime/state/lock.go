package state

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/waybill-ml/waybill/internal/diag"
)

// ErrLocked says that another process owns the state directory.
var ErrLocked = errors.New("another waybill-edge is using this state directory")

// Lock makes this process the owner of dir, creating it when missing, until the returned function is called or the
// process ends, however it ends.
func Lock(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diag.Errorf("make the state directory: %w", err)
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, syscall.EROFS) {
		f, err = os.Open(name) // a disk that was remounted for its errors: what is on it serves all the same
	}
	if err != nil {
		return nil, diag.Errorf("open the lock: %w", err)
	}
	if err := tryLock(f); err != nil {
		_ = f.Close()
		return nil, diag.Errorf("%w: %s", err, dir)
	}
	return f.Close, nil
}
