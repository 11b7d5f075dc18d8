package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
)

const (
	docPrefix = "state."
	maxDoc    = 8 << 20
	keepDocs  = 2 // the newest and the one before it
	readTries = 3 // before a document counts as damaged
)

// ErrDamaged says that a state document exists and none can be read.
var ErrDamaged = errors.New("the state of this device is damaged")

// ErrSchema says that a document is whole and of a version that this program can't read.
var ErrSchema = errors.New("it was written by another version")

// Store keeps the Doc of one directory. Each save writes a new file state.<serial>, syncs it, names it, syncs the
// directory, and only then removes older ones, so that at every moment a whole document is there. It is safe for
// concurrent use; one process at a time owns a directory (Lock).
type Store struct {
	fs      fsx.FS
	dir     string
	ballast *Ballast
	flights *flights

	mu     sync.Mutex
	doc    *Doc
	last   uint64 // highest serial that a file may have
	unsure bool   // a save failed: the visible document may be the new or the old one
	named  bool   // the directories' names are durable
	notes  []string
}

// Open reads the newest whole document of dir, making the directory when it is missing. A newer document that is
// damaged is passed over and mentioned by Notes; if there are only damaged ones, the error matches ErrDamaged.
func Open(fsys fsx.FS, dir string) (*Store, error) {
	for _, d := range []string{dir, filepath.Join(dir, "blobs"), filepath.Join(dir, "blobs", "sha256"), filepath.Join(dir, "tmp")} {
		if err := fsys.MkdirAll(d, 0o700); err != nil {
			return nil, diag.Errorf("make the state directory: %w", err)
		}
	}
	s := newStore(fsys, dir)
	if err := s.load(); err != nil {
		return nil, err
	}
	// The document read may be one whose last sync failed or never happened. When it cannot be made durable now (the disk is
	// full), the device must serve all the same: the next Update tries again.
	if s.doc.Serial > 0 {
		_ = s.save(s.doc.Clone())
	}
	return s, nil
}

func newStore(fsys fsx.FS, dir string) *Store {
	return &Store{fs: fsys, dir: dir, flights: newFlights(), ballast: &Ballast{fs: fsys, path: filepath.Join(dir, "ballast"), size: ballastSize}}
}

// syncDirs makes the names of the state directory and its folders durable, once.
func (s *Store) syncDirs() error {
	if s.named {
		return nil
	}
	for _, d := range []string{filepath.Dir(s.dir), s.dir, filepath.Join(s.dir, "blobs")} {
		err := s.fs.SyncDir(d)
		if errors.Is(err, fs.ErrPermission) && d == filepath.Dir(s.dir) {
			err = nil // another user's folder: it was there before, and so was ours
		}
		if err != nil {
			return diag.Errorf("make the state directory durable: %w", err)
		}
	}
	s.named = true
	return nil
}

// ReadOnly reads the newest whole document of dir without owning or changing it.
func ReadOnly(fsys fsx.FS, dir string) (*Doc, error) {
	s := &Store{fs: fsys, dir: dir}
	if err := s.load(); err != nil {
		return nil, err
	}
	if s.doc.Serial == 0 {
		return nil, diag.Errorf("no state in %s: %w", dir, fs.ErrNotExist)
	}
	return s.doc, nil
}

// Dir is the state directory.
func (s *Store) Dir() string { return s.dir }

// Notes are the damages that Open passed over.
func (s *Store) Notes() []string { return slices.Clone(s.notes) }

// Ballast is the reserve of this store.
func (s *Store) Ballast() *Ballast { return s.ballast }

// Doc returns a copy of the current document. After a failed Update it is what a restart would most likely read.
func (s *Store) Doc() *Doc {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doc.Clone()
}

// Unsure reports that the last Update failed, so that Doc may or may not survive a power cut.
func (s *Store) Unsure() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsure
}

// Update applies fn to a copy of the document and makes the result durable. fn may refuse by returning an error, then
// nothing changes. When Update returns another error the change may or may not have happened: the caller must do
// nothing that relies on either, and look at Doc again. A full disk is met by giving up the ballast once.
func (s *Store) Update(fn func(*Doc) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsure {
		if err := s.load(); err != nil {
			return err
		}
	}
	next := s.doc.Clone()
	if err := fn(next); err != nil {
		return err
	}
	return s.save(next)
}

func (s *Store) save(next *Doc) error {
	next.Schema = Schema
	err := s.write(next)
	if errors.Is(err, syscall.ENOSPC) && s.ballast.Release() {
		err = s.write(next)
	}
	if err != nil {
		s.unsure = true
		if lerr := s.load(); lerr != nil {
			return diag.Errorf("save the state: %w (and reading it back: %w)", err, lerr)
		}
		return diag.Errorf("save the state: %w", err)
	}
	s.unsure = false
	s.doc = next
	s.prune()
	return nil
}

func (s *Store) write(next *Doc) error {
	if err := s.syncDirs(); err != nil {
		return err
	}
	s.last++
	next.Serial = s.last
	body, err := json.Marshal(next)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	data := append(append([]byte(hex.EncodeToString(sum[:])), '\n'), body...)
	return fsx.WriteFileAtomic(s.fs, s.file(next.Serial), data, 0o600)
}

func (s *Store) file(serial uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s%016d", docPrefix, serial))
}

// load reads the newest whole document into s.doc, or an empty one when there is none.
func (s *Store) load() error {
	serials, err := s.serials()
	if err != nil {
		return err
	}
	var bad error
	for _, n := range slices.Backward(serials) {
		s.last = max(s.last, n)
		doc, err := readDoc(s.fs, s.file(n), n)
		for try := 1; try < readTries && err != nil; try++ {
			doc, err = readDoc(s.fs, s.file(n), n) // passing one over lowers floors: not for a read that failed once
		}
		if err == nil {
			s.doc = doc
			return nil
		}
		var pe *fs.PathError
		if errors.As(err, &pe) { // could not be read, which says nothing about its content
			return diag.Errorf("read the state: %w", err)
		}
		if bad == nil || errors.Is(err, ErrSchema) {
			bad = err
		}
		s.notes = append(s.notes, fmt.Sprintf("state document %d: %v", n, err))
	}
	if bad != nil {
		return diag.Errorf("%w: %w", ErrDamaged, bad)
	}
	s.doc = &Doc{Schema: Schema, Channels: map[string]*Channel{}}
	return nil
}

func (s *Store) serials() ([]uint64, error) {
	es, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, diag.Errorf("list the state directory: %w", err)
	}
	var out []uint64
	for _, e := range es {
		if rest, ok := strings.CutPrefix(e.Name(), docPrefix); ok && len(rest) == 16 {
			if n, err := strconv.ParseUint(rest, 10, 64); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// prune removes documents that newer ones replace, and temporary files. Failing to do so is harmless.
func (s *Store) prune() {
	serials, err := s.serials()
	if err != nil {
		return
	}
	for i := 0; i < len(serials)-keepDocs; i++ {
		name := s.file(serials[i])
		if r := s.doc.Rebuilt; r != nil && serials[i] <= r.Through {
			_ = s.fs.Rename(name, name+damagedSuffix) // for whoever looks into it
			continue
		}
		_ = s.fs.Remove(name)
	}
}

func readDoc(fsys fsx.FS, path string, serial uint64) (*Doc, error) {
	b, err := fsx.ReadFile(fsys, path, maxDoc)
	if err != nil {
		return nil, err
	}
	return parseDoc(b, serial)
}

func parseDoc(b []byte, serial uint64) (*Doc, error) {
	sum, body, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return nil, errors.New("no checksum line")
	}
	got := sha256.Sum256(body)
	if hex.EncodeToString(got[:]) != string(sum) {
		return nil, errors.New("the checksum is wrong")
	}
	var d Doc
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, diag.Errorf("decode: %v", err)
	}
	if d.Schema != Schema {
		return nil, diag.Errorf("%w: schema %q, this version reads %q", ErrSchema, d.Schema, Schema)
	}
	if d.Serial != serial {
		return nil, diag.Errorf("it is number %d", d.Serial)
	}
	if d.Channels == nil {
		d.Channels = map[string]*Channel{}
	}
	return &d, nil
}

// Clean removes temporary files that a crash left in the state directory and below tmp, except those keep wants.
func (s *Store) Clean(keep func(name string) bool) error {
	es, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		if fsx.IsTemp(e.Name()) {
			if err := s.fs.Remove(filepath.Join(s.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	tmp := filepath.Join(s.dir, "tmp")
	if es, err = s.fs.ReadDir(tmp); err != nil {
		return err
	}
	for _, e := range es {
		if keep != nil && keep(e.Name()) {
			continue
		}
		if err := s.fs.Remove(filepath.Join(tmp, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
