package fsx

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"
)

// Fault is what goes wrong at the chosen operation.
type Fault int

// Faults. After Kill and KillAfter every operation fails with ErrKilled: the process is dead, and code that goes on
// running in the test can no longer touch the file system.
const (
	NoFault    Fault = iota
	EIO              // the operation fails with EIO and changes nothing
	ENOSPC           // the operation fails with ENOSPC and changes nothing
	ShortWrite       // a write stores half of its bytes and fails with ENOSPC; other operations fail with EIO
	Kill             // the process dies before the operation
	KillAfter        // the process dies after the operation
)

// String names the fault.
func (k Fault) String() string {
	return [...]string{"none", "EIO", "ENOSPC", "short write", "kill", "kill after"}[k]
}

// ErrKilled is what every operation returns after Kill or KillAfter.
var ErrKilled = errors.New("the process was killed here")

// Faulty counts the operations of a file system, those on its open files included, and makes one of them fail.
// Close, Seek and Name are not counted. It is safe for concurrent use; with several goroutines the number of an
// operation depends on their order.
type Faulty struct {
	fs FS

	mu    sync.Mutex
	count int
	at    int
	kind  Fault
	fired string
	dead  bool
}

// NewFaulty wraps inner; nothing fails until Arm.
func NewFaulty(inner FS) *Faulty { return &Faulty{fs: inner} }

// Arm makes operation number at fail, counting from 1 for the next one. It starts a new count.
func (f *Faulty) Arm(at int, kind Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count, f.at, f.kind, f.fired, f.dead = 0, at, kind, "", false
}

// Count is the number of operations since Arm.
func (f *Faulty) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Fired names the operation that failed, "rename state.7", or "" when none has.
func (f *Faulty) Fired() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Dead tells whether the process was killed.
func (f *Faulty) Dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// do runs one operation, or its fault. partial is the write of half the bytes; nil for other operations.
func (f *Faulty) do(op, name string, run func() error, partial func()) error {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return pathErr(op, name, ErrKilled)
	}
	f.count++
	kind := NoFault
	if f.kind != NoFault && f.count == f.at {
		kind, f.fired = f.kind, op+" "+name
		f.dead = kind == Kill || kind == KillAfter
	}
	f.mu.Unlock()
	switch kind {
	case EIO:
		return pathErr(op, name, syscall.EIO)
	case ENOSPC:
		return pathErr(op, name, syscall.ENOSPC)
	case ShortWrite:
		if partial == nil {
			return pathErr(op, name, syscall.EIO)
		}
		partial()
		return pathErr(op, name, syscall.ENOSPC)
	case Kill:
		return pathErr(op, name, ErrKilled)
	case KillAfter:
		_ = run() // its outcome is never seen: the process is gone
		return pathErr(op, name, ErrKilled)
	}
	return run()
}

// Open implements FS.
func (f *Faulty) Open(name string) (File, error) {
	return f.file("open", name, func() (File, error) { return f.fs.Open(name) })
}

// Create implements FS.
func (f *Faulty) Create(name string, perm fs.FileMode) (File, error) {
	return f.file("create", name, func() (File, error) { return f.fs.Create(name, perm) })
}

// OpenAppend implements FS.
func (f *Faulty) OpenAppend(name string, perm fs.FileMode) (File, error) {
	return f.file("append", name, func() (File, error) { return f.fs.OpenAppend(name, perm) })
}

func (f *Faulty) file(op, name string, open func() (File, error)) (File, error) {
	var file File
	err := f.do(op, name, func() (err error) { file, err = open(); return err }, nil)
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	return &faultyFile{f: f, file: file}, nil
}

// Rename implements FS.
func (f *Faulty) Rename(oldname, newname string) error {
	return f.do("rename", newname, func() error { return f.fs.Rename(oldname, newname) }, nil)
}

// Remove implements FS.
func (f *Faulty) Remove(name string) error {
	return f.do("remove", name, func() error { return f.fs.Remove(name) }, nil)
}

// MkdirAll implements FS.
func (f *Faulty) MkdirAll(name string, perm fs.FileMode) error {
	return f.do("mkdir", name, func() error { return f.fs.MkdirAll(name, perm) }, nil)
}

// ReadDir implements FS.
func (f *Faulty) ReadDir(name string) (out []fs.DirEntry, err error) {
	err = f.do("readdir", name, func() (err error) { out, err = f.fs.ReadDir(name); return err }, nil)
	return out, err
}

// Stat implements FS.
func (f *Faulty) Stat(name string) (out fs.FileInfo, err error) {
	err = f.do("stat", name, func() (err error) { out, err = f.fs.Stat(name); return err }, nil)
	return out, err
}

// Chmod implements FS.
func (f *Faulty) Chmod(name string, perm fs.FileMode) error {
	return f.do("chmod", name, func() error { return f.fs.Chmod(name, perm) }, nil)
}

// SyncDir implements FS.
func (f *Faulty) SyncDir(name string) error {
	return f.do("syncdir", name, func() error { return f.fs.SyncDir(name) }, nil)
}

// FreeBytes implements FS.
func (f *Faulty) FreeBytes(name string) (n uint64, err error) {
	err = f.do("statfs", name, func() (err error) { n, err = f.fs.FreeBytes(name); return err }, nil)
	return n, err
}

type faultyFile struct {
	f    *Faulty
	file File
}

func (x *faultyFile) Name() string { return x.file.Name() }
func (x *faultyFile) Close() error { return x.file.Close() }

func (x *faultyFile) Seek(offset int64, whence int) (int64, error) {
	return x.file.Seek(offset, whence)
}

func (x *faultyFile) Read(p []byte) (n int, err error) {
	err = x.f.do("read", x.Name(), func() (err error) { n, err = x.file.Read(p); return err }, nil)
	return n, err
}

func (x *faultyFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = x.f.do("readat", x.Name(), func() (err error) { n, err = x.file.ReadAt(p, off); return err }, nil)
	return n, err
}

func (x *faultyFile) Write(p []byte) (n int, err error) {
	err = x.f.do("write", x.Name(), func() (err error) { n, err = x.file.Write(p); return err },
		func() { n, _ = x.file.Write(p[:len(p)/2]) })
	return n, err
}

func (x *faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = x.f.do("writeat", x.Name(), func() (err error) { n, err = x.file.WriteAt(p, off); return err },
		func() { n, _ = x.file.WriteAt(p[:len(p)/2], off) })
	return n, err
}

func (x *faultyFile) Sync() error {
	return x.f.do("sync", x.Name(), x.file.Sync, nil)
}

func (x *faultyFile) Truncate(size int64) error {
	return x.f.do("truncate", x.Name(), func() error { return x.file.Truncate(size) }, nil)
}

func (x *faultyFile) Stat() (out fs.FileInfo, err error) {
	err = x.f.do("fstat", x.Name(), func() (err error) { out, err = x.file.Stat(); return err }, nil)
	return out, err
}

var (
	_ FS   = (*Faulty)(nil)
	_ File = (*faultyFile)(nil)
)
