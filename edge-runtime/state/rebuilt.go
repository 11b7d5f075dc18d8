package state

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
)

const (
	damagedSuffix = ".damaged"
	damagedKept   = 8 // documents that were put aside; a disk that loses them again and again must not fill up with them
)

// Rebuilt says that this state was put together again after every document was lost, and what it rests on.
type Rebuilt struct {
	At      time.Time `json:"at"`
	Why     string    `json:"why"`
	From    []string  `json:"from"`              // what proved something
	Lacking []string  `json:"lacking,omitempty"` // what nothing proves any more, and what is done about it
	// Through is the highest number of a document that was lost: those are put aside.
	Through uint64 `json:"through"`
}

// dropDamaged removes the oldest of the documents that were put aside before.
func (s *Store) dropDamaged() {
	es, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return
	}
	var names []string
	for _, e := range es {
		if strings.HasPrefix(e.Name(), docPrefix) && strings.HasSuffix(e.Name(), damagedSuffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	for _, name := range names[:max(0, len(names)-damagedKept)] {
		_ = s.fs.Remove(filepath.Join(s.dir, name))
	}
}

// Replace makes doc the state of dir, which has no document that can be read. The document is durable before the damaged
// ones get other names (state.<serial>.damaged), so that at no moment the directory looks like that of a new device; an interrupted
// call may be repeated or not. doc.Rebuilt must be set. The caller owns dir (Lock).
func Replace(fsys fsx.FS, dir string, doc *Doc) error {
	s := newStore(fsys, dir)
	err := s.load()
	switch {
	case err != nil && !errors.Is(err, ErrDamaged):
		return err
	case err == nil && s.doc.Serial > 0:
		return diag.Errorf("replace the state: document %d can be read", s.doc.Serial)
	}
	s.dropDamaged()
	next := doc.Clone()
	next.Schema = Schema
	next.Rebuilt = copyOf(doc.Rebuilt)
	next.Rebuilt.Through = s.last
	err = s.write(next)
	if errors.Is(err, syscall.ENOSPC) && s.ballast.Release() {
		err = s.write(next)
	}
	if err != nil {
		return diag.Errorf("replace the state: %w", err)
	}
	s.doc = next
	s.prune()
	return nil
}
