package store

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// partialMark ends the names of the files of a download that may go on later.
const partialMark = ".partial"

// Partial prepares the download of a blob: it names, below Dir, the file in which the blob may grow over several processes
// and the place that it takes when all of it is there and has been hashed. Files with the first name and any suffix belong to
// the download too. Prune removes them when no process counts on the blob and they have not been written to for a while
// (PruneOptions.Partials); until then they stay, so that a download that broke off can go on. The store is held until Close, as by Hold.
func (s *Store) Partial(ctx context.Context, d artifact.Digest) (partial, final string, err error) {
	if err := checkDigest(d); err != nil {
		return "", "", err
	}
	if err := s.Hold(ctx); err != nil {
		return "", "", err
	}
	if err := s.pin(d); err != nil { // before the blob has its name
		return "", "", err
	}
	for _, dir := range []string{s.path("blobs", "sha256"), s.path(ingestDir)} {
		if err := s.mkdir(dir); err != nil {
			return "", "", s.writeError(err, "write to store")
		}
	}
	return filepath.Join(ingestDir, d.Hex()+partialMark), filepath.Join("blobs", "sha256", d.Hex()), nil
}

// partialOf tells which blob a file that Partial named, with or without a suffix, belongs to.
func partialOf(base string) (artifact.Digest, bool) {
	hex, _, ok := strings.Cut(base, partialMark)
	d, err := artifact.ParseDigest("sha256:" + hex)
	return d, ok && err == nil
}
