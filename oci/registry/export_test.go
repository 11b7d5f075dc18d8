package registry

import (
	"context"
	"io"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// SetChunks makes uploads of at least min bytes go in chunks of size.
func (r *Remote) SetChunks(min, size int64) { r.chunkMin, r.chunkSize = min, size }

// Saw and Known are the memory of where blobs are.
func (t *Transfers) Saw(d artifact.Digest, host, repo string) { t.seen(d, host, repo) }

// Known lists repositories.
func (t *Transfers) Known(d artifact.Digest, host string) []string { return t.known(d, host) }

// OpenArchiveWithout is OpenArchive with one check left out, to see an attack succeed.
func OpenArchiveWithout(ctx context.Context, check string, r io.Reader, s *store.Store, progress func(int64)) (*Opened, error) {
	return openArchive(ctx, r, s, progress, check)
}

// ExtractUnchecked is Extract without the check of the paths.
func ExtractUnchecked(ctx context.Context, r Repository, layers []artifact.Layer, dir string) (ExtractResult, error) {
	return extract(ctx, r, layers, dir, ExtractOptions{})
}

// Unlimited takes away the limits of answers that are read into memory.
func (r *Remote) Unlimited() { r.gate.rules.limit = func(int64) int64 { return 1 << 40 } }
