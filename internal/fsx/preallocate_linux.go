package fsx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Preallocate makes f size bytes long and reserves the room for them, where the file system can: then a full disk shows
// now and not in the middle. Elsewhere it only sets the length.
func Preallocate(f *os.File, size int64) error {
	if size > 0 {
		for {
			err := unix.Fallocate(int(f.Fd()), 0, 0, size)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
				return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
			}
			break
		}
	}
	return f.Truncate(size)
}
