package fsx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memBlock is the unit in which unsynced data survives a power cut or is lost.
const memBlock = 512

// Mem is a file system in memory that knows what would survive a power cut: the bytes of a file up to its last Sync,
// and the names in a directory up to its last SyncDir. CrashClone gives the file system as it would be found
// afterwards. It is stricter than real ones: syncing a file does not make its name durable, a file whose length was
// not synced may come back shorter or with zeros in it, and unsynced names are kept or lost independently of their
// order. A rename inside one directory is lost or kept as a whole.
//
// Paths may be of any form; both separators are accepted. It is safe for concurrent use.
type Mem struct {
	mu       sync.Mutex
	root     *memNode
	pending  []memOp // changes of directories, in order, that no SyncDir has covered
	capacity int64   // bytes of file data; 0 means unlimited
	used     int64
	lazy     bool
	clock    int64
}

type memNode struct {
	dir      bool
	mode     fs.FileMode
	modified int64
	data     []byte              // files: what readers see
	durable  []byte              // files: what a power cut leaves
	dirty    map[int]struct{}    // files: blocks of data that differ from durable
	resized  bool                // files: the length differs from the durable one
	entries  map[string]*memNode // directories: what readers see
	synced   map[string]*memNode // directories: what a power cut leaves
}

// memOp is one atomic change of names: add puts node at dir/name, del removes dir/name if it still is node.
type memOp struct {
	dir      *memNode
	del, add string
	node     *memNode
}

// NewMem makes an empty file system whose root is durable.
func NewMem() *Mem {
	return &Mem{root: newMemDir(0o700)}
}

func newMemDir(perm fs.FileMode) *memNode {
	return &memNode{dir: true, mode: perm | fs.ModeDir, entries: map[string]*memNode{}, synced: map[string]*memNode{}}
}

// SetCapacity limits the bytes of file data; a write past it fails with ENOSPC after writing what fits. 0 lifts it.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// Used is the number of bytes of file data.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// IgnoreSyncs makes Sync and SyncDir do nothing and still return nil. A fault test that stays green with it is blind.
func (m *Mem) IgnoreSyncs(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lazy = on
}

// CrashClone returns the file system as a power cut at this moment would leave it: all that was synced, and each
// unsynced block and change of a name with a probability of unsyncedPercent (0 to 100). All of the result counts as
// durable. The original is left as it was; files open in it keep writing to it, not to the clone.
func (m *Mem) CrashClone(unsyncedPercent int, rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	keep := func() bool { return unsyncedPercent >= 100 || (unsyncedPercent > 0 && rng.IntN(100) < unsyncedPercent) }

	// The names: the synced ones, then the pending changes that made it, in order.
	names := map[*memNode]map[string]*memNode{}
	view := func(d *memNode) map[string]*memNode {
		v, ok := names[d]
		if !ok {
			v = map[string]*memNode{}
			for n, c := range d.synced {
				v[n] = c
			}
			names[d] = v
		}
		return v
	}
	for _, op := range m.pending {
		if keep() {
			op.apply(view(op.dir))
		}
	}
	c := &Mem{capacity: m.capacity, clock: m.clock}
	clones := map[*memNode]*memNode{}
	var copyNode func(n *memNode) *memNode
	copyNode = func(n *memNode) *memNode {
		if done, ok := clones[n]; ok {
			return done
		}
		if n.dir {
			d := newMemDir(n.mode.Perm())
			d.modified = n.modified
			clones[n] = d
			src := view(n)
			// Sorted, so that the same random numbers give the same clone.
			for _, name := range sortedKeys(src) {
				child := copyNode(src[name])
				d.entries[name], d.synced[name] = child, child
			}
			return d
		}
		f := &memNode{mode: n.mode, modified: n.modified}
		size := len(n.durable)
		if n.resized && keep() {
			size = len(n.data)
		}
		f.data = make([]byte, size)
		copy(f.data, n.durable)
		for _, b := range sortedBlocks(n.dirty) {
			lo := b * memBlock
			if hi := min(lo+memBlock, len(n.data), size); lo < hi && keep() {
				copy(f.data[lo:hi], n.data[lo:hi])
			}
		}
		f.durable = slices.Clone(f.data)
		c.used += int64(len(f.data))
		clones[n] = f
		return f
	}
	c.root = copyNode(m.root)
	return c
}

func (op memOp) apply(view map[string]*memNode) {
	if op.del != "" && view[op.del] == op.node || op.del != "" && op.add == "" {
		delete(view, op.del)
	}
	if op.add != "" {
		view[op.add] = op.node
	}
}

func sortedKeys(m map[string]*memNode) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func sortedBlocks(m map[int]struct{}) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func memParts(name string) []string {
	p := strings.Trim(filepath.ToSlash(filepath.Clean(name)), "/")
	p = strings.ReplaceAll(p, "\\", "/")
	if p == "" || p == "." {
		return nil
	}
	return strings.Split(p, "/")
}

func pathErr(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// find walks to name; mu is held.
func (m *Mem) find(name string) (*memNode, error) {
	n := m.root
	for _, p := range memParts(name) {
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		next, ok := n.entries[p]
		if !ok {
			return nil, fs.ErrNotExist
		}
		n = next
	}
	return n, nil
}

// parent walks to the directory of name; mu is held.
func (m *Mem) parent(name string) (*memNode, string, error) {
	parts := memParts(name)
	if len(parts) == 0 {
		return nil, "", fs.ErrInvalid
	}
	d, err := m.find(strings.Join(parts[:len(parts)-1], "/"))
	if err != nil {
		return nil, "", err
	}
	if !d.dir {
		return nil, "", syscall.ENOTDIR
	}
	return d, parts[len(parts)-1], nil
}

func (m *Mem) tick() int64 { m.clock++; return m.clock }

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	return &memFile{m: m, n: n, name: name}, nil
}

// Create implements FS.
func (m *Mem) Create(name string, perm fs.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.create(name, perm)
}

func (m *Mem) create(name string, perm fs.FileMode) (File, error) {
	d, base, err := m.parent(name)
	if err != nil {
		return nil, pathErr("create", name, err)
	}
	if _, ok := d.entries[base]; ok {
		return nil, pathErr("create", name, fs.ErrExist)
	}
	n := &memNode{mode: perm.Perm(), modified: m.tick(), dirty: map[int]struct{}{}}
	d.entries[base] = n
	m.pending = append(m.pending, memOp{dir: d, add: base, node: n})
	return &memFile{m: m, n: n, name: name, write: true}, nil
}

// OpenAppend implements FS.
func (m *Mem) OpenAppend(name string, perm fs.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f, err := m.create(name, perm)
		if err != nil {
			return nil, err
		}
		f.(*memFile).atEnd = true
		return f, nil
	case err != nil:
		return nil, pathErr("open", name, err)
	case n.dir:
		return nil, pathErr("open", name, syscall.EISDIR)
	}
	return &memFile{m: m, n: n, name: name, write: true, atEnd: true}, nil
}

// Rename implements FS.
func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	od, ob, err := m.parent(oldname)
	if err != nil {
		return pathErr("rename", oldname, err)
	}
	nd, nb, err := m.parent(newname)
	if err != nil {
		return pathErr("rename", newname, err)
	}
	n, ok := od.entries[ob]
	if !ok {
		return pathErr("rename", oldname, fs.ErrNotExist)
	}
	if old, ok := nd.entries[nb]; ok {
		if old == n {
			return nil
		}
		if old.dir {
			return pathErr("rename", newname, syscall.EISDIR)
		}
		m.used -= int64(len(old.data))
	}
	delete(od.entries, ob)
	nd.entries[nb] = n
	if od == nd {
		m.pending = append(m.pending, memOp{dir: od, del: ob, add: nb, node: n})
	} else {
		m.pending = append(m.pending, memOp{dir: nd, add: nb, node: n}, memOp{dir: od, del: ob, node: n})
	}
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return pathErr("remove", name, err)
	}
	n, ok := d.entries[base]
	if !ok {
		return pathErr("remove", name, fs.ErrNotExist)
	}
	if n.dir && len(n.entries) > 0 {
		return pathErr("remove", name, syscall.ENOTEMPTY)
	}
	m.used -= int64(len(n.data))
	delete(d.entries, base)
	m.pending = append(m.pending, memOp{dir: d, del: base, node: n})
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.root
	for _, p := range memParts(name) {
		if !d.dir {
			return pathErr("mkdir", name, syscall.ENOTDIR)
		}
		next, ok := d.entries[p]
		if !ok {
			next = newMemDir(perm)
			next.modified = m.tick()
			d.entries[p] = next
			m.pending = append(m.pending, memOp{dir: d, add: p, node: next})
		}
		d = next
	}
	if !d.dir {
		return pathErr("mkdir", name, syscall.ENOTDIR)
	}
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find(name)
	if err == nil && !d.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathErr("readdir", name, err)
	}
	var out []fs.DirEntry
	for _, n := range sortedKeys(d.entries) {
		out = append(out, fs.FileInfoToDirEntry(infoOf(n, d.entries[n])))
	}
	return out, nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return nil, pathErr("stat", name, err)
	}
	return infoOf(filepath.Base(name), n), nil
}

// Chmod implements FS. Mem keeps the bits and does not enforce them.
func (m *Mem) Chmod(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return pathErr("chmod", name, err)
	}
	n.mode = n.mode&^fs.ModePerm | perm.Perm()
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, err := m.find(name)
	if err == nil && !d.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return pathErr("sync", name, err)
	}
	if m.lazy {
		return nil
	}
	rest := m.pending[:0:0]
	for _, op := range m.pending {
		if op.dir != d {
			rest = append(rest, op)
		}
	}
	m.pending = rest
	d.synced = map[string]*memNode{}
	for n, c := range d.entries {
		d.synced[n] = c
	}
	return nil
}

// FreeBytes implements FS; without a capacity it answers 1 TiB.
func (m *Mem) FreeBytes(name string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(name); err != nil {
		return 0, pathErr("statfs", name, err)
	}
	if m.capacity == 0 {
		return 1 << 40, nil
	}
	return uint64(max(m.capacity-m.used, 0)), nil
}

type memInfo struct {
	name string
	size int64
	mode fs.FileMode
	mod  int64
}

func infoOf(name string, n *memNode) memInfo {
	return memInfo{name: name, size: int64(len(n.data)), mode: n.mode, mod: n.modified}
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return time.Unix(i.mod, 0).UTC() }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }

type memFile struct {
	m     *Mem
	n     *memNode
	name  string
	pos   int64
	write bool
	atEnd bool
	shut  bool
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) check(op string, write bool) error {
	switch {
	case f.shut:
		return pathErr(op, f.name, fs.ErrClosed)
	case f.n.dir:
		return pathErr(op, f.name, syscall.EISDIR)
	case write && !f.write:
		return pathErr(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *memFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("read", false); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathErr("read", f.name, fs.ErrInvalid)
	}
	if off >= int64(len(f.n.data)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.atEnd {
		f.pos = int64(len(f.n.data))
	}
	n, err := f.writeAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.atEnd {
		return 0, pathErr("write", f.name, fmt.Errorf("WriteAt on a file opened for appending"))
	}
	return f.writeAt(p, off)
}

func (f *memFile) writeAt(p []byte, off int64) (int, error) {
	if err := f.check("write", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathErr("write", f.name, fs.ErrInvalid)
	}
	var full error
	if grow := off + int64(len(p)) - int64(len(f.n.data)); grow > 0 && f.m.capacity > 0 && f.m.used+grow > f.m.capacity {
		fits := max(f.m.capacity-f.m.used+int64(len(f.n.data))-off, 0)
		p = p[:min(fits, int64(len(p)))]
		full = pathErr("write", f.name, syscall.ENOSPC)
	}
	if len(p) > 0 {
		if end := off + int64(len(p)); end > int64(len(f.n.data)) {
			f.m.used += end - int64(len(f.n.data))
			f.n.data = append(f.n.data, make([]byte, end-int64(len(f.n.data)))...)
			f.n.resized = true
		}
		copy(f.n.data[off:], p)
		f.touch(off, off+int64(len(p)))
	}
	return len(p), full
}

// touch marks the blocks of [lo, hi) as unsynced.
func (f *memFile) touch(lo, hi int64) {
	if f.n.dirty == nil {
		f.n.dirty = map[int]struct{}{}
	}
	for b := lo / memBlock; b*memBlock < hi; b++ {
		f.n.dirty[int(b)] = struct{}{}
	}
	f.n.modified = f.m.tick()
}

func (f *memFile) Seek(offset int64, whence int) (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += int64(len(f.n.data))
	}
	if offset < 0 {
		return 0, pathErr("seek", f.name, fs.ErrInvalid)
	}
	f.pos = offset
	return offset, nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("truncate", true); err != nil {
		return err
	}
	old := int64(len(f.n.data))
	switch {
	case size < 0:
		return pathErr("truncate", f.name, fs.ErrInvalid)
	case size > old:
		if f.m.capacity > 0 && f.m.used+size-old > f.m.capacity {
			return pathErr("truncate", f.name, syscall.ENOSPC)
		}
		f.n.data = append(f.n.data, make([]byte, size-old)...)
		f.touch(old, size)
	default:
		f.n.data = slices.Clone(f.n.data[:size])
		f.n.modified = f.m.tick()
	}
	f.m.used += size - old
	f.n.resized = f.n.resized || size != old
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.shut {
		return pathErr("sync", f.name, fs.ErrClosed)
	}
	if f.m.lazy || f.n.dir {
		return nil
	}
	f.n.durable = slices.Clone(f.n.data)
	f.n.dirty, f.n.resized = nil, false
	return nil
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return infoOf(filepath.Base(f.name), f.n), nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.shut {
		return pathErr("close", f.name, fs.ErrClosed)
	}
	f.shut = true
	return nil
}

var (
	_ FS   = (*Mem)(nil)
	_ File = (*memFile)(nil)
)
