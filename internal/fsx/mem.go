package fsx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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
// and the names in a directory up to its last SyncDir. Crash gives the file system as it would be found
// afterwards. It is stricter than real ones: syncing a file does not make its name durable, a file whose length was
// not synced may come back shorter or with zeros in it, a block that was written twice may hold the first content, and
// unsynced names are kept or lost independently of their order. A rename inside one directory is lost or kept as a whole.
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
	nodes    uint64 // files and directories ever made
}

type memNode struct {
	id       uint64
	dir      bool
	mode     fs.FileMode
	modified int64
	data     []byte              // files: what readers see
	durable  []byte              // files: what a power cut leaves; never changed in place
	shared   bool                // files: data and durable are the same bytes
	dirty    map[int]struct{}    // files: blocks of data that differ from durable
	older    map[int][][]byte    // files: what dirty blocks held since the last sync, oldest first
	lost     map[int]struct{}    // files: blocks that a failed sync dropped: in data, taken for clean, and not durable
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

// Cut says what a power cut leaves of that which was not synced.
type Cut struct {
	// Percent is the probability with which each unsynced block, length and change of a name survives, 0 to 100.
	Percent int
	// Sector is the unit of data that survives as a whole, a multiple of 512; 0 means 512.
	Sector int
	// InOrder keeps a prefix of the changes of names, as a journaling file system does, instead of any of them.
	InOrder bool
	// Zeros lets every length survive and no unsynced data: files end in zeros where their newest bytes were.
	Zeros bool
}

// CrashClone is Crash with each unsynced thing surviving with a probability of unsyncedPercent.
func (m *Mem) CrashClone(unsyncedPercent int, rng *rand.Rand) *Mem {
	return m.Crash(Cut{Percent: unsyncedPercent}, rng)
}

// Crash returns the file system as a power cut at this moment would leave it: all that was synced, and of the rest what cut
// says. All of the result counts as durable. The original is left as it was; files open in it keep writing to it, not to
// the clone. Equal histories and random numbers give equal clones, whatever temporary files are called.
func (m *Mem) Crash(cut Cut, rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rng == nil {
		rng = rand.New(rand.NewPCG(1, 1)) // at 0 and 100 % there is nothing to choose
	}
	coin := func(rng *rand.Rand) bool {
		return cut.Percent >= 100 || (cut.Percent > 0 && rng.IntN(100) < cut.Percent)
	}

	// The names: the synced ones, then the pending changes that made it, in order.
	names := map[*memNode]map[string]*memNode{}
	view := func(d *memNode) map[string]*memNode {
		v, ok := names[d]
		if !ok {
			v = maps.Clone(d.synced)
			names[d] = v
		}
		return v
	}
	upTo := len(m.pending)
	if cut.InOrder && cut.Percent < 100 {
		upTo = 0
		if cut.Percent > 0 {
			upTo = rng.IntN(len(m.pending) + 1)
		}
	}
	for i, op := range m.pending {
		if cut.InOrder && i < upTo || !cut.InOrder && coin(rng) {
			op.apply(view(op.dir))
		}
	}
	base := rng.Uint64()
	c := &Mem{capacity: m.capacity, clock: m.clock, nodes: m.nodes}
	clones := map[*memNode]*memNode{}
	var copyNode func(n *memNode) *memNode
	copyNode = func(n *memNode) *memNode {
		if done, ok := clones[n]; ok {
			return done
		}
		if n.dir {
			d := newMemDir(n.mode.Perm())
			d.id, d.modified = n.id, n.modified
			clones[n] = d
			for name, node := range view(n) {
				child := copyNode(node)
				d.entries[name], d.synced[name] = child, child
			}
			return d
		}
		f := &memNode{id: n.id, mode: n.mode, modified: n.modified}
		clones[n] = f
		f.data = n.after(cut, func() bool { return false }, nil)
		if len(n.dirty) > 0 || n.resized {
			// Its own random numbers, so that the names of other files do not matter.
			rng := rand.New(rand.NewPCG(base, n.id))
			f.data = n.after(cut, func() bool { return coin(rng) }, rng)
		}
		f.durable, f.shared = f.data, true
		c.used += int64(len(f.data))
		return f
	}
	c.root = copyNode(m.root)
	return c
}

// after is the content that a power cut leaves of a file.
func (n *memNode) after(cut Cut, coin func() bool, rng *rand.Rand) []byte {
	if rng == nil {
		return slices.Clip(n.durable)
	}
	size := len(n.durable)
	if n.resized && (cut.Zeros || coin()) {
		size = len(n.data)
	}
	out := make([]byte, size)
	copy(out, n.durable)
	if cut.Zeros {
		return out
	}
	per := max(cut.Sector/memBlock, 1)
	sector, kept := -1, false
	for _, b := range sortedBlocks(n.dirty) {
		if s := b / per; s != sector {
			sector, kept = s, coin()
		}
		if !kept {
			continue
		}
		lo := b * memBlock
		from := n.data[min(lo, len(n.data)):min(lo+memBlock, len(n.data))]
		if old := n.older[b]; per == 1 && cut.Percent < 100 && len(old) > 0 {
			// An earlier content of the block reached the disk, the newest did not.
			if i := rng.IntN(len(old) + 1); i < len(old) {
				from = old[i]
			}
		}
		if lo < size {
			copy(out[lo:], from)
		}
	}
	return out
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
	m.nodes++
	n := &memNode{id: m.nodes, mode: perm.Perm(), modified: m.tick()}
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
			m.nodes++
			next.id = m.nodes
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
			f.touch(off, end)
			f.n.data = append(f.n.data, make([]byte, end-int64(len(f.n.data)))...)
			f.n.resized = true
		} else {
			f.touch(off, end)
		}
		copy(f.n.data[off:], p)
	}
	return len(p), full
}

// maxOlder bounds the earlier contents that are remembered of one block.
const maxOlder = 3

// touch marks the blocks of [lo, hi) as unsynced before they change.
func (f *memFile) touch(lo, hi int64) {
	n := f.n
	n.own()
	if n.dirty == nil {
		n.dirty = map[int]struct{}{}
	}
	for b := int(lo / memBlock); int64(b)*memBlock < hi; b++ {
		if _, again := n.dirty[b]; again && len(n.older[b]) < maxOlder {
			if n.older == nil {
				n.older = map[int][][]byte{}
			}
			n.older[b] = append(n.older[b], slices.Clone(n.data[min(b*memBlock, len(n.data)):min((b+1)*memBlock, len(n.data))]))
		}
		n.dirty[b] = struct{}{}
		delete(n.lost, b)
	}
	n.modified = f.m.tick()
}

// own makes data a copy of its own before it is changed.
func (n *memNode) own() {
	if n.shared {
		n.data, n.shared = slices.Clone(n.data), false
	}
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
		f.touch(old, size)
		f.n.data = append(f.n.data, make([]byte, size-old)...)
	default:
		f.n.data, f.n.shared = slices.Clone(f.n.data[:size]), false
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
	n := f.n
	if len(n.lost) == 0 {
		n.data = slices.Clip(n.data)
		n.durable, n.shared = n.data, true
	} else {
		n.durable = n.withoutLost()
	}
	n.dirty, n.older, n.resized = nil, nil, false
	return nil
}

// withoutLost is the content with the blocks that a failed sync dropped as they are on the disk.
func (n *memNode) withoutLost() []byte {
	out := slices.Clone(n.data)
	for b := range n.lost {
		lo, hi := min(b*memBlock, len(out)), min((b+1)*memBlock, len(out))
		clear(out[lo:hi])
		if lo < len(n.durable) {
			copy(out[lo:hi], n.durable[lo:])
		}
	}
	return out
}

// LoseUnsynced does what a failed fsync does on Linux: the dirty pages are taken for clean and stay readable, and no later
// Sync writes them unless they are written to again.
func (f *memFile) LoseUnsynced() {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	n := f.n
	if n.dir || f.shut {
		return
	}
	if n.lost == nil {
		n.lost = map[int]struct{}{}
	}
	for b := range n.dirty {
		n.lost[b] = struct{}{}
	}
	n.durable = n.withoutLost()
	n.dirty, n.older, n.resized = nil, nil, false
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
