//go:build unix

package fsx

import (
	"os"

	"golang.org/x/sys/unix"
)

func identify(f *os.File, id *Identity) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	id.Device, id.Inode, id.Size = uint64(st.Dev), uint64(st.Ino), st.Size // the types differ by platform
	id.Mod, id.Change = st.Mtim.Nano(), st.Ctim.Nano()
	return nil
}
