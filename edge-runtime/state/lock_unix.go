//go:build unix

package state

import (
	"errors"
	"os"
	"syscall"

	"github.com/waybill-ml/waybill/internal/diag"
)

func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	if err != nil {
		return diag.Errorf("lock: %w", err)
	}
	return nil
}
