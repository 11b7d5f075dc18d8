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
// running in the test can no longer touch the file system. FullDisk, ReadOnly and DeadDisk begin at the operation and last.
const (
	NoFault    Fault = iota
	EIO              // the operation fails with EIO and changes nothing
	ENOSPC           // the operation fails with ENOSPC and changes nothing
	ShortWrite       // a write stores half of its bytes and fails with ENOSPC; other operations fail with EIO
	Kill             // the process dies before the operation
	KillAfter        // the process dies after the operation
	EIOAfter         // the operation takes effect and EIO is reported: nobody can know
	LostSync         // a sync of a file fails with EIO, its dirty pages count as clean from then on, and later syncs succeed; else EIO
	Flip             // a read returns one wrong bit and no error; other operations fail with EIO
	FullDisk         // nothing that needs space succeeds until something was removed, and then as much as that gave back
	ReadOnly         // every change fails with EROFS, as after a file system was remounted for its errors; reading goes on
	DeadDisk         // everything fails with EIO
	faults
)

// Faults lists every kind but NoFault.
func Faults() []Fault {
	var out []Fault
	for k := EIO; k < faults; k++ {
		out = append(out, k)
	}
	return out
}

// String names the fault.
func (k Fault) String() string {
	return [...]string{"none", "EIO", "ENOSPC", "short-write", "kill", "kill-after", "EIO-after", "lost-sync", "flip", "full-disk", "read-only", "dead-disk"}[k]
}

// Lasts tells whether the fault goes on after its operation.
func (k Fault) Lasts() bool { return k == FullDisk || k == ReadOnly || k == DeadDisk }

// ErrKilled is what every operation returns after Kill or KillAfter.
var ErrKilled = errors.New("the process was killed here")

// Faulty counts the operations of a file system, those on its open files included, and makes one of them fail.
// Seek, Name and the Close of a file opened for reading are not counted. It is safe for concurrent use; with several goroutines the number of an
// operation depends on their order.
type Faulty struct {
	fs FS

	mu    sync.Mutex
	count int
	at    int
	kind  Fault
	fired string
	dead  bool
	since bool  // a lasting fault has begun
	room  int64 // FullDisk: bytes given back since
}

// NewFaulty wraps inner; nothing fails until Arm.
func NewFaulty(inner FS) *Faulty { return &Faulty{fs: inner} }

// Arm makes operation number at fail, counting from 1 for the next one. It starts a new count.
func (f *Faulty) Arm(at int, kind Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count, f.at, f.kind, f.fired, f.dead = 0, at, kind, "", false
	f.since, f.room = false, 0
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

// op is one operation as do sees it. Only run must be set.
type op struct {
	verb, name string
	run        func() error
	half       func()              // ShortWrite: the write of half the bytes
	lose       func()              // LostSync
	flip       func()              // Flip: after run
	change     bool                // ReadOnly: it changes something
	need       func() int64        // FullDisk: bytes of space that it takes; negative when it gives some back
	fit        func(n int64) error // FullDisk: do as much as fits into n bytes
}

// do runs one operation, or its fault.
func (f *Faulty) do(o op) error {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return pathErr(o.verb, o.name, ErrKilled)
	}
	f.count++
	kind := NoFault
	if f.kind != NoFault && f.count == f.at {
		kind, f.fired = f.kind, o.verb+" "+o.name
		f.dead = kind == Kill || kind == KillAfter
		f.since = kind.Lasts()
	}
	if f.since {
		kind = f.kind
	}
	f.mu.Unlock()
	switch kind {
	case EIO, DeadDisk:
		return pathErr(o.verb, o.name, syscall.EIO)
	case ENOSPC:
		return pathErr(o.verb, o.name, syscall.ENOSPC)
	case ShortWrite:
		if o.half == nil {
			return pathErr(o.verb, o.name, syscall.EIO)
		}
		o.half()
		return pathErr(o.verb, o.name, syscall.ENOSPC)
	case Kill:
		return pathErr(o.verb, o.name, ErrKilled)
	case KillAfter:
		_ = o.run() // its outcome is never seen: the process is gone
		return pathErr(o.verb, o.name, ErrKilled)
	case EIOAfter:
		_ = o.run()
		return pathErr(o.verb, o.name, syscall.EIO)
	case LostSync:
		if o.lose != nil {
			o.lose()
		}
		return pathErr(o.verb, o.name, syscall.EIO)
	case Flip:
		if o.flip == nil {
			return pathErr(o.verb, o.name, syscall.EIO)
		}
		err := o.run()
		o.flip()
		return err
	case FullDisk:
		return f.full(o)
	case ReadOnly:
		if o.change {
			return pathErr(o.verb, o.name, syscall.EROFS)
		}
	}
	return o.run()
}

// full runs an operation on a disk that has only the room that was given back since it was full.
func (f *Faulty) full(o op) error {
	if o.need == nil {
		return o.run()
	}
	need := o.need()
	f.mu.Lock()
	fits := min(need, f.room)
	f.room -= fits
	f.mu.Unlock()
	if fits == need {
		return o.run()
	}
	if o.fit == nil {
		return pathErr(o.verb, o.name, syscall.ENOSPC)
	}
	return errors.Join(o.fit(fits), pathErr(o.verb, o.name, syscall.ENOSPC))
}

// Open implements FS.
func (f *Faulty) Open(name string) (File, error) {
	return f.file(op{verb: "open", name: name}, func() (File, error) { return f.fs.Open(name) })
}

// Create implements FS.
func (f *Faulty) Create(name string, perm fs.FileMode) (File, error) {
	return f.file(op{verb: "create", name: name, change: true}, func() (File, error) { return f.fs.Create(name, perm) })
}

// OpenAppend implements FS.
func (f *Faulty) OpenAppend(name string, perm fs.FileMode) (File, error) {
	return f.file(op{verb: "append", name: name, change: true}, func() (File, error) { return f.fs.OpenAppend(name, perm) })
}

func (f *Faulty) file(o op, open func() (File, error)) (File, error) {
	var file File
	o.run = func() (err error) { file, err = open(); return err }
	err := f.do(o)
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	return &faultyFile{f: f, file: file, writes: o.change}, nil
}

// Rename implements FS.
func (f *Faulty) Rename(oldname, newname string) error {
	return f.do(op{verb: "rename", name: newname, change: true, run: func() error { return f.fs.Rename(oldname, newname) }})
}

// Remove implements FS.
func (f *Faulty) Remove(name string) error {
	return f.do(op{verb: "remove", name: name, change: true, run: func() error { return f.fs.Remove(name) }, need: func() int64 {
		if info, err := f.fs.Stat(name); err == nil && !info.IsDir() {
			return -info.Size()
		}
		return 0
	}})
}

// MkdirAll implements FS. It changes nothing when the directory is there.
func (f *Faulty) MkdirAll(name string, perm fs.FileMode) error {
	info, err := f.fs.Stat(name)
	there := err == nil && info.IsDir()
	return f.do(op{verb: "mkdir", name: name, change: !there, run: func() error { return f.fs.MkdirAll(name, perm) }})
}

// ReadDir implements FS.
func (f *Faulty) ReadDir(name string) (out []fs.DirEntry, err error) {
	err = f.do(op{verb: "readdir", name: name, run: func() (err error) { out, err = f.fs.ReadDir(name); return err }})
	return out, err
}

// Stat implements FS.
func (f *Faulty) Stat(name string) (out fs.FileInfo, err error) {
	err = f.do(op{verb: "stat", name: name, run: func() (err error) { out, err = f.fs.Stat(name); return err }})
	return out, err
}

// Chmod implements FS.
func (f *Faulty) Chmod(name string, perm fs.FileMode) error {
	return f.do(op{verb: "chmod", name: name, change: true, run: func() error { return f.fs.Chmod(name, perm) }})
}

// SyncDir implements FS.
func (f *Faulty) SyncDir(name string) error {
	return f.do(op{verb: "syncdir", name: name, change: true, run: func() error { return f.fs.SyncDir(name) }})
}

// FreeBytes implements FS.
func (f *Faulty) FreeBytes(name string) (n uint64, err error) {
	err = f.do(op{verb: "statfs", name: name, run: func() (err error) { n, err = f.fs.FreeBytes(name); return err }})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since && f.kind == FullDisk {
		n = uint64(max(f.room, 0))
	}
	return n, err
}

type faultyFile struct {
	f      *Faulty
	file   File
	writes bool
}

func (x *faultyFile) Name() string { return x.file.Name() }

// Close always closes, whatever it reports.
func (x *faultyFile) Close() error {
	if !x.writes {
		return x.file.Close()
	}
	err := x.f.do(op{verb: "close", name: x.Name(), run: func() error { return nil }})
	return errors.Join(err, x.file.Close())
}

func (x *faultyFile) Seek(offset int64, whence int) (int64, error) {
	return x.file.Seek(offset, whence)
}

func (x *faultyFile) Read(p []byte) (n int, err error) {
	err = x.f.do(op{verb: "read", name: x.Name(), run: func() (err error) { n, err = x.file.Read(p); return err }, flip: func() { flip(p[:n]) }})
	return n, err
}

func (x *faultyFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = x.f.do(op{verb: "readat", name: x.Name(), run: func() (err error) { n, err = x.file.ReadAt(p, off); return err }, flip: func() { flip(p[:n]) }})
	return n, err
}

// flip changes one bit.
func flip(p []byte) {
	if len(p) > 0 {
		p[len(p)/2] ^= 1
	}
}

// grows is the space that the file takes when it becomes size bytes long.
func (x *faultyFile) grows(size int64) int64 {
	info, err := x.file.Stat()
	if err != nil {
		return 0
	}
	return size - info.Size()
}

func (x *faultyFile) Write(p []byte) (n int, err error) {
	part := func(k int) (err error) { n, err = x.file.Write(p[:k]); return err }
	err = x.f.do(op{
		verb: "write", name: x.Name(), change: true, run: func() error { return part(len(p)) }, half: func() { _ = part(len(p) / 2) },
		need: func() int64 { return int64(len(p)) }, fit: func(k int64) error { return part(int(k)) },
	})
	return n, err
}

func (x *faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	part := func(k int) (err error) { n, err = x.file.WriteAt(p[:k], off); return err }
	err = x.f.do(op{
		verb: "writeat", name: x.Name(), change: true, run: func() error { return part(len(p)) }, half: func() { _ = part(len(p) / 2) },
		need: func() int64 { return max(x.grows(off+int64(len(p))), 0) },
	})
	return n, err
}

func (x *faultyFile) Sync() error {
	o := op{verb: "sync", name: x.Name(), change: true, run: x.file.Sync}
	if m, ok := x.file.(interface{ LoseUnsynced() }); ok {
		o.lose = m.LoseUnsynced
	}
	return x.f.do(o)
}

func (x *faultyFile) Truncate(size int64) error {
	return x.f.do(op{verb: "truncate", name: x.Name(), change: true, run: func() error { return x.file.Truncate(size) }, need: func() int64 { return x.grows(size) }})
}

func (x *faultyFile) Stat() (out fs.FileInfo, err error) {
	err = x.f.do(op{verb: "fstat", name: x.Name(), run: func() (err error) { out, err = x.file.Stat(); return err }})
	return out, err
}

var (
	_ FS   = (*Faulty)(nil)
	_ File = (*faultyFile)(nil)
)
