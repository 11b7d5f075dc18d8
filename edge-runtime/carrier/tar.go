package carrier

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// maxEntries bounds the entries of an archive on a stick: one channel has some dozens.
const maxEntries = 20_000

// archive is the table of contents of a tar of an OCI layout, as `waybill save` writes it. The content stays where it is.
type archive struct {
	*index
	blobs map[artifact.Digest]extent
}

// extent is where a blob lies in the file.
type extent struct{ at, size int64 }

// readArchive walks over the headers of r, which is size bytes long. Content is skipped, not read, and nothing is believed
// but that a blob of that name may lie there: whoever reads it hashes it. Entries that a layout does not have end it.
func readArchive(ctx context.Context, r io.ReadSeeker, size int64) (*archive, error) {
	a := &archive{blobs: map[artifact.Digest]extent{}}
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("no archive of an OCI layout: %w", err)
		}
		if n >= maxEntries {
			return nil, fmt.Errorf("the archive has more than %d entries", maxEntries)
		}
		name, err := registry.LayoutEntry(h)
		if err != nil {
			return nil, fmt.Errorf("no archive of an OCI layout: %w", err)
		}
		at, err := r.Seek(0, io.SeekCurrent) // the tar reader reads no further than the header
		if err != nil {
			return nil, err
		}
		hex, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		switch {
		case h.Size < 0 || at+h.Size > size:
			return nil, fmt.Errorf("the archive ends in the middle of %s", h.Name)
		case isBlob:
			d, err := artifact.ParseDigest("sha256:" + hex)
			if err != nil {
				return nil, fmt.Errorf("no archive of an OCI layout: %s: %w", h.Name, err)
			}
			if _, twice := a.blobs[d]; twice {
				return nil, fmt.Errorf("%s stands in the archive twice", name)
			}
			a.blobs[d] = extent{at, h.Size}
		case name == "index.json":
			if a.index != nil || h.Size > artifact.MaxManifest {
				return nil, errors.New("index.json is too large or stands in the archive twice")
			}
			raw, err := io.ReadAll(io.LimitReader(t, artifact.MaxManifest))
			if err != nil {
				return nil, fmt.Errorf("index.json: %w", err)
			}
			if a.index, err = parseIndex(raw); err != nil {
				return nil, err
			}
		}
	}
	if a.index == nil {
		return nil, errors.New("no archive of an OCI layout: it has no index.json")
	}
	return a, nil
}
