//go:build unix

package fsx

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func rename(oldname, newname string) error { return os.Rename(oldname, newname) }

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some file systems (FUSE, SMB mounts) cannot sync a directory and say EINVAL or ENOTSUP: there the mount
	// decides about durability, and a writer can do no more.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

func freeBytes(name string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(name, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", name, err)
	}
	free := int64(s.Bavail)
	return uint64(max(free, 0)) * uint64(s.Bsize), nil // FreeBSD counts the reserve of root as negative
}
