// Package fsx is the seam through which every durable write goes: the real file system (OS), a crashable
// in-memory one (Mem) and a fault injector (Faulty) implement FS, so that the same code is tested against
// power cuts, full disks and I/O errors at every single operation.
package fsx

import (
	"io"
	"io/fs"
)

// File is an open file. A write is durable only after Sync returned nil, and its name only after SyncDir
// of the parent returned nil.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Seeker
	io.Closer
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
	Name() string
}

// FS is the set of file operations that durable state needs. Paths are of the host's form. Implementations
// are safe for concurrent use. Errors match fs.ErrNotExist, fs.ErrExist and syscall.ENOSPC with errors.Is.
type FS interface {
	// Open opens for reading.
	Open(name string) (File, error)
	// Create opens a new file for writing; it fails with fs.ErrExist when the name is taken.
	Create(name string, perm fs.FileMode) (File, error)
	// OpenAppend opens, or creates, a file for reading and for writing at its end.
	OpenAppend(name string, perm fs.FileMode) (File, error)
	// Rename moves a file over newname atomically. Durable after SyncDir of the parent.
	Rename(oldname, newname string) error
	// Remove deletes one file or empty directory.
	Remove(name string) error
	// MkdirAll makes a directory and its parents.
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir lists a directory sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Stat describes a file, following links.
	Stat(name string) (fs.FileInfo, error)
	// Chmod changes permission bits.
	Chmod(name string, perm fs.FileMode) error
	// SyncDir makes the entries of a directory durable. Where the platform cannot (Windows), it does nothing.
	SyncDir(name string) error
	// FreeBytes tells how much an unprivileged user may still write below name.
	FreeBytes(name string) (uint64, error)
}
