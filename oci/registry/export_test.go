package registry

import "github.com/waybill-ml/waybill/oci/artifact"

// SetChunks makes uploads of at least min bytes go in chunks of size.
func (r *Remote) SetChunks(min, size int64) { r.chunkMin, r.chunkSize = min, size }

// Saw and Known are the memory of where blobs are.
func (t *Transfers) Saw(d artifact.Digest, host, repo string) { t.seen(d, host, repo) }

// Known lists repositories.
func (t *Transfers) Known(d artifact.Digest, host string) []string { return t.known(d, host) }
