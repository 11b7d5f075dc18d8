package registry

import (
	"context"
	"os"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fetch"
)

// Received tells how bytes came here from a registry.
type Received struct {
	Fetched  int64 `json:"bytesFetched"` // over the network, of attempts that were in vain too
	Resumed  int64 `json:"bytesResumed"` // that an earlier run had brought
	Restarts int   `json:"restarts"`     // blobs whose pieces were wrong and that were fetched again as a whole
}

func (r *Received) add(f fetch.Result) {
	r.Fetched += f.Fetched
	r.Resumed += f.Resumed
	r.Restarts += f.Restarts
}

// toFile brings a blob of the registry to a file below root, in parallel ranges and over several processes if need be.
func (r *Remote) toFile(ctx context.Context, d artifact.Descriptor, t fetch.Target, bytes func(int64), replace func(string) error) (fetch.Result, error) {
	return fetch.File(ctx, blobs{r}, d, t, fetch.Options{
		Slots: r.slots, Progress: bytes, Replace: replace, Durable: true,
		Say: func(what, why string) { r.notify(Notice{What: what, Why: why}) },
	})
}

// pull brings a blob of a registry into the store, going on where an earlier process stopped. Two processes that pull the same
// blob at once fetch it once.
func (l *Local) pull(ctx context.Context, src *Remote, d artifact.Descriptor, bytes func(int64)) (fetch.Result, error) {
	if err := checkDescriptor(d); err != nil {
		return fetch.Result{}, err
	}
	if ok, err := l.ready(ctx, d); ok || err != nil {
		if ok && bytes != nil {
			bytes(d.Size)
		}
		return fetch.Result{Present: ok}, err
	}
	partial, final, err := l.s.Partial(ctx, d.Digest)
	if err != nil {
		return fetch.Result{}, err
	}
	root, err := os.OpenRoot(l.s.Dir())
	if err != nil {
		return fetch.Result{}, diag.Wrap(diag.Failure, err, "write to store %s", l.s.Dir())
	}
	defer root.Close()
	return src.toFile(ctx, d, fetch.Target{Root: root, Name: final, Partial: partial}, bytes, nil)
}
