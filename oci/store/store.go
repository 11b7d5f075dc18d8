// Package store is the local content store: an OCI image layout (image-spec 1.1, image-layout) that several processes
// may use at once and that survives a crash at any moment. Only locks of the kernel are used, which end with their process (lease.go).
//
// A blob is written to a file of its own below .ingest, hashed on the way, synced and renamed to its digest, so a name
// below blobs/ always had the right content once. index.json is replaced atomically under a file lock. Nothing that is
// read is trusted: every read is hashed and fails when the content is not what its name says.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// AnnotationRef is where a layout's index keeps the tag of a manifest. The store of the command line writes
// "name:tag" there, a layout given by path just "tag".
const AnnotationRef = "org.opencontainers.image.ref.name"

const (
	layoutFile = "oci-layout"
	layoutJSON = `{"imageLayoutVersion":"1.0.0"}`
	indexFile  = "index.json"
	lockFile   = ".waybill.lock" // exclusive: while index.json is changed and while prune runs
	ingestDir  = ".ingest"
	maxIndex   = 64 << 20
)

// LockFunc takes an advisory lock, as fsx.Lock does.
type LockFunc func(ctx context.Context, path string, shared bool) (release func() error, err error)

// Options configure Open.
type Options struct {
	FS     fsx.FS   // nil: fsx.OS{}
	Lock   LockFunc // nil: fsx.Lock
	Create bool     // make the layout when there is none
	// References allows blobs that are files elsewhere on this machine: for the command line's own store. Never set it
	// for a layout that others made, which could name any file here, nor on devices, whose blobs must not change.
	References bool
}

// Store is an open layout. It is safe for concurrent use, and so are several Stores on one directory, in one process or
// in many. Close it to let prune run in other processes.
type Store struct {
	fs   fsx.FS
	lock LockFunc
	dir  string

	references bool

	leaseMu sync.Mutex
	lease   *lease // nil when nothing is held

	mu   sync.Mutex
	info map[artifact.Digest]Doc // of manifests, which never change; content was hashed before it got here
}

// DefaultDir is the store of the command line: $WAYBILL_HOME/store, else waybill/store in the platform's folder for user
// data: $XDG_DATA_HOME or ~/.local/share, on macOS ~/Library/Application Support, on Windows %LocalAppData%.
func DefaultDir() (string, error) {
	if h := os.Getenv("WAYBILL_HOME"); h != "" {
		return filepath.Join(h, "store"), nil
	}
	if x := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "waybill", "store"), nil
	}
	if l := os.Getenv("LocalAppData"); runtime.GOOS == "windows" && l != "" {
		return filepath.Join(l, "waybill", "store"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", diag.Wrap(diag.Failure, err, "find the local store").Hint("set WAYBILL_HOME to a directory of yours")
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support", "waybill", "store"), nil
	}
	return filepath.Join(home, ".local", "share", "waybill", "store"), nil
}

// Open opens the layout in dir. Without Options.Create a missing one is diag.NotFound.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	s := &Store{fs: o.FS, lock: o.Lock, dir: dir, references: o.References, info: map[artifact.Digest]Doc{}}
	if s.fs == nil {
		s.fs = fsx.OS{}
	}
	if s.lock == nil {
		s.lock = fsx.Lock
	}
	b, err := fsx.ReadFile(s.fs, s.path(layoutFile), 4096)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.Create:
		if err := s.create(ctx); err != nil {
			return nil, s.writeError(err, "create store")
		}
		return s, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "%s is not an OCI image layout (it has no %s)", dir, layoutFile).
			Hint("waybill pack")
	case err != nil:
		return nil, diag.Wrap(diag.Failure, err, "open store %s", dir)
	}
	var l struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(b, &l); err != nil || l.Version != "1.0.0" {
		return nil, diag.New(diag.Failure, "open store %s: %s does not say imageLayoutVersion 1.0.0", dir, layoutFile)
	}
	return s, nil
}

func (s *Store) create(ctx context.Context) error {
	for _, d := range []string{s.path("blobs", "sha256"), s.path(ingestDir)} {
		if err := s.mkdir(d); err != nil {
			return err
		}
	}
	release, err := s.lock(ctx, s.path(lockFile), false)
	if err != nil {
		return err
	}
	defer release()
	if _, err := s.fs.Stat(s.path(indexFile)); errors.Is(err, fs.ErrNotExist) {
		if err := s.writeIndex(artifact.Index{}); err != nil {
			return err
		}
	}
	// The layout file comes last: it says that the rest is there.
	return fsx.WriteFileAtomic(s.fs, s.path(layoutFile), []byte(layoutJSON), 0o644)
}

// mkdir makes a directory and its parents, durably.
func (s *Store) mkdir(dir string) error {
	var made []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := s.fs.Stat(d); err == nil || filepath.Dir(d) == d {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made = append(made, d)
	}
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range made {
		if err := s.fs.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

// Dir returns the directory of the layout.
func (s *Store) Dir() string { return s.dir }

// Close lets go of what the Store holds. It may be used again afterwards.
func (s *Store) Close() error {
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	return s.dropLease()
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// BlobPath is the file of a blob, for a digest that artifact.ParseDigest took. Its content must not be trusted, nor
// changed.
func (s *Store) BlobPath(d artifact.Digest) string { return s.path("blobs", "sha256", d.Hex()) }

// Entry is one line of the index: a manifest, and its tag or "".
type Entry struct {
	artifact.Descriptor
	Ref string
}

// Entries lists the index, sorted by tag, then digest. A manifest with several tags stands several times.
func (s *Store) Entries(context.Context) ([]Entry, error) {
	x, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(x.Manifests))
	for _, d := range x.Manifests {
		out = append(out, entryOf(d))
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Ref != out[j].Ref {
			return out[i].Ref < out[j].Ref
		}
		return out[i].Digest < out[j].Digest
	})
	return out, nil
}

func entryOf(d artifact.Descriptor) Entry {
	ref := d.Annotations[AnnotationRef]
	d.Annotations = nil
	return Entry{d, ref}
}

func (s *Store) readIndex() (artifact.Index, error) {
	b, err := fsx.ReadFile(s.fs, s.path(indexFile), maxIndex)
	if err != nil {
		return artifact.Index{}, diag.Wrap(diag.Failure, err, "read the index of store %s", s.dir)
	}
	var x artifact.Index
	if err := json.Unmarshal(b, &x); err != nil {
		return x, diag.Wrap(diag.Failure, err, "the index of store %s is damaged", s.dir)
	}
	for _, d := range x.Manifests {
		if _, err := artifact.ParseDigest(string(d.Digest)); err != nil {
			return x, diag.Wrap(diag.Failure, err, "the index of store %s is damaged", s.dir)
		}
	}
	return x, nil
}

// writeIndex is called with the lock held.
func (s *Store) writeIndex(x artifact.Index) error {
	x.SchemaVersion, x.MediaType = 2, artifact.MediaTypeIndex
	if x.Manifests == nil {
		x.Manifests = []artifact.Descriptor{}
	}
	sort.SliceStable(x.Manifests, func(i, j int) bool {
		a, b := x.Manifests[i], x.Manifests[j]
		if a.Digest != b.Digest {
			return a.Digest < b.Digest
		}
		return a.Annotations[AnnotationRef] < b.Annotations[AnnotationRef]
	})
	b, err := artifact.Canonical(x)
	if err != nil {
		return err
	}
	return fsx.WriteFileAtomic(s.fs, s.path(indexFile), b, 0o644)
}

// update changes the index under the lock: read, change, replace. When change fails, nothing is written.
func (s *Store) update(ctx context.Context, change func(x *artifact.Index) error) error {
	return s.locked(ctx, false, func() error {
		x, err := s.readIndex()
		if err != nil {
			return err
		}
		if err := change(&x); err != nil {
			return err
		}
		if err := s.writeIndex(x); err != nil {
			return s.writeError(err, "update the index of store")
		}
		return nil
	})
}
