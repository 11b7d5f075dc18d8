package fsx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func clone(src *os.File, dst string) error {
	err := unix.Fclonefileat(int(src.Fd()), unix.AT_FDCWD, dst, unix.CLONE_NOFOLLOW)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return errors.ErrUnsupported
	}
	if err != nil {
		return err
	}
	if err := os.Chmod(dst, 0o644); err != nil { // the clone has the source's bits
		_ = os.Remove(dst)
		return err
	}
	return nil
}
