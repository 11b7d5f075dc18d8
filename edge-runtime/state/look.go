package state

import (
	"io/fs"
	"slices"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
)

// Look reads the newest whole document of dir like ReadOnly, and tells which newer ones it had to pass over.
func Look(fsys fsx.FS, dir string) (doc *Doc, notes []string, err error) {
	s := &Store{fs: fsys, dir: dir}
	if err := s.load(); err != nil {
		return nil, s.notes, err
	}
	if s.doc.Serial == 0 {
		return nil, s.notes, diag.Errorf("no state in %s: %w", dir, fs.ErrNotExist)
	}
	return s.doc, slices.Clone(s.notes), nil
}

// BlobsAt is the content store below dir, for looking at it without owning the state.
func BlobsAt(fsys fsx.FS, dir string) *Blobs { return (&Store{fs: fsys, dir: dir}).Blobs() }
