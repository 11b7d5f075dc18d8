package carrier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// Registry is a repository in a registry.
type Registry struct {
	repo *registry.Remote

	mu   sync.Mutex
	seen map[string]registry.Seen // by tag
}

// NewRegistry makes a place of a repository. Its retries should be few: a Set has other places, and a schedule more time.
func NewRegistry(repo *registry.Remote) *Registry {
	return &Registry{repo: repo, seen: map[string]registry.Seen{}}
}

// maxSeen bounds the tags that are remembered; a device asks for a handful.
const maxSeen = 64

// Heads implements Place with a conditional HEAD.
func (r *Registry) Heads(ctx context.Context, tag string) ([]artifact.Digest, error) {
	r.mu.Lock()
	was := r.seen[tag]
	r.mu.Unlock()
	now, err := r.repo.Poll(ctx, tag, was)
	if err != nil {
		return nil, pacedByRegistry(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) >= maxSeen {
		clear(r.seen)
	}
	r.seen[tag] = now
	return []artifact.Digest{now.Digest}, nil
}

// Open implements Place.
func (r *Registry) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	if d.MediaType == artifact.MediaTypeManifest {
		raw, _, err := r.repo.GetBounded(ctx, string(d.Digest), artifact.MaxManifest)
		if err != nil {
			r.forget(d.Digest)
			return nil, pacedByRegistry(err)
		}
		return io.NopCloser(bytes.NewReader(raw[min(offset, int64(len(raw))):])), nil
	}
	rc, err := r.repo.BlobFrom(ctx, d, offset)
	if err != nil {
		return nil, pacedByRegistry(err)
	}
	return rc, nil
}

// forget drops what was said about a digest that cannot be had: a digest that was altered on its way, kept with the entity tag
// of the right one, would be confirmed for ever.
func (r *Registry) forget(d artifact.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for tag, s := range r.seen {
		if s.Digest == d {
			delete(r.seen, tag)
		}
	}
}

func pacedByRegistry(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	wait, limited := registry.Paced(err)
	return paced(err, wait, limited)
}
