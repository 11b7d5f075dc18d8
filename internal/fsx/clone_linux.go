package fsx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func clone(src *os.File, dst string) error {
	f, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = unix.IoctlFileClone(int(f.Fd()), int(src.Fd()))
	// All of these are words of file systems for "not here": no such operation, two devices, a swap file, a sandbox.
	for _, no := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EPERM, unix.EACCES, unix.ETXTBSY, unix.EBADF} {
		if errors.Is(err, no) {
			err = errors.ErrUnsupported
			break
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(dst)
	}
	return err
}
