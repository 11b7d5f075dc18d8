package fsx

import (
	"io/fs"
	"os"
)

// OS is the real file system. Its zero value is ready to use, by any number of goroutines.
//
// File.Sync is fsync on Unix (F_FULLFSYNC on macOS) and FlushFileBuffers on Windows. SyncDir is fsync of the
// directory on Unix and does nothing on Windows, where NTFS journals names.
type OS struct{}

var _ FS = OS{}

// Open implements FS.
func (OS) Open(name string) (File, error) { return wrap(os.Open(name)) }

// Create implements FS; it follows no symbolic link at name, since O_EXCL refuses one.
func (OS) Create(name string, perm fs.FileMode) (File, error) {
	return wrap(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm))
}

// OpenAppend implements FS.
func (OS) OpenAppend(name string, perm fs.FileMode) (File, error) {
	return wrap(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, perm))
}

// Rename implements FS. On Windows it waits a moment for other readers of newname, which block a replacement.
func (OS) Rename(oldname, newname string) error { return rename(oldname, newname) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// MkdirAll implements FS.
func (OS) MkdirAll(name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }

// ReadDir implements FS.
func (OS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

// Stat implements FS.
func (OS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Chmod implements FS.
func (OS) Chmod(name string, perm fs.FileMode) error { return os.Chmod(name, perm) }

// SyncDir implements FS.
func (OS) SyncDir(name string) error { return syncDir(name) }

// FreeBytes implements FS.
func (OS) FreeBytes(name string) (uint64, error) { return freeBytes(name) }

// wrap keeps a nil *os.File from becoming a non-nil File.
func wrap(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}
