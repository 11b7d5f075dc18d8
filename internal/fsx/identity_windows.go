package fsx

import (
	"os"

	"golang.org/x/sys/windows"
)

func identify(f *os.File, id *Identity) error {
	var i windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &i); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	id.Device, id.Inode = uint64(i.VolumeSerialNumber), uint64(i.FileIndexHigh)<<32|uint64(i.FileIndexLow)
	id.Mod = i.LastWriteTime.Nanoseconds()
	return nil
}
