package registry

import (
	"context"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// CopyOptions refine Copy.
type CopyOptions struct {
	Tag         string      // to set at the destination; "" sets none
	NoReferrers bool        // leave attached evidence behind
	Jobs        int         // blobs at a time; 0: 4
	DryRun      bool        // send nothing; the result tells what would be sent
	Progress    func(Event) // called concurrently; may be nil
	Bytes       func(int64) // hears of bytes that are at the destination, also of those that were; called concurrently; may be nil
}

// Event is one finished blob or manifest of a copy.
type Event struct {
	Descriptor artifact.Descriptor
	How        string // "sent", "mounted", "present"
}

// CopyResult tells what a copy did.
type CopyResult struct {
	Descriptor artifact.Descriptor   `json:"descriptor"` // of the copied manifest
	Referrers  []artifact.Descriptor `json:"referrers"`  // carried along, of any depth
	Sent       int                   `json:"blobsSent"`
	SentBytes  int64                 `json:"bytesSent"`
	Mounted    int                   `json:"blobsMounted"`
	Present    int                   `json:"blobsPresent"`
	Received                         // when a registry was copied to a store
}

// Copy brings the manifest ref of src (a tag or digest), everything it needs, and everything attached to it to dst,
// byte for byte. What dst has is not sent again; blobs are hashed on the way. Manifests follow their blobs and the tag
// comes last, so a copy that breaks off leaves no tag that points at half an artifact. Copying again completes it.
func Copy(ctx context.Context, dst, src Repository, ref string, o CopyOptions) (CopyResult, error) {
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	c := &copier{dst: dst, src: src, o: o, done: map[artifact.Digest]bool{}}
	desc, err := src.Resolve(ctx, ref)
	if err != nil {
		return c.res, err
	}
	c.res.Descriptor, c.res.Referrers = desc, []artifact.Descriptor{}
	if err := c.tree(ctx, desc.Digest); err != nil {
		return c.res, err
	}
	if !o.NoReferrers {
		if err := c.referrers(ctx, desc.Digest); err != nil {
			return c.res, err
		}
	}
	if o.Tag != "" && !o.DryRun { // last: who sees the tag finds the evidence too
		b, desc, err := src.Manifest(ctx, desc.Digest)
		if err != nil {
			return c.res, err
		}
		if _, err := dst.PushManifest(ctx, b, desc.MediaType, o.Tag); err != nil {
			return c.res, err
		}
	}
	return c.res, nil
}

type copier struct {
	dst, src Repository
	o        CopyOptions

	mu   sync.Mutex
	res  CopyResult
	done map[artifact.Digest]bool
}

// first tells whether d has not been dealt with yet, and marks it.
func (c *copier) first(d artifact.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.done[d]
	c.done[d] = true
	return !was
}

// tree copies a manifest after all that it needs.
func (c *copier) tree(ctx context.Context, d artifact.Digest) error {
	if !c.first(d) {
		return nil
	}
	b, desc, err := c.src.Manifest(ctx, d)
	if err != nil {
		return err
	}
	doc, err := store.ParseDoc(b, desc.MediaType)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "copy %s", d)
	}
	for _, child := range doc.Children {
		if err := c.tree(ctx, child.Digest); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Jobs)
	for _, blob := range doc.Blobs {
		if c.first(blob.Digest) {
			g.Go(func() error { return c.blob(gctx, blob) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if c.o.DryRun {
		return nil
	}
	_, err = c.dst.PushManifest(ctx, b, desc.MediaType, "")
	return err
}

// haser is what the places here can do besides: look for a blob without touching it.
type haser interface {
	has(ctx context.Context, d artifact.Descriptor) (bool, error)
}

func (c *copier) blob(ctx context.Context, d artifact.Descriptor) error {
	how := "present"
	if c.o.DryRun {
		h, ok := c.dst.(haser)
		if !ok {
			return diag.New(diag.Failure, "dry run: %T cannot look for a blob", c.dst)
		}
		ok, err := h.has(ctx, d)
		if err != nil {
			return err
		}
		if !ok {
			how = "sent"
		}
		c.count(d, pushed{how, d.Size})
		return nil
	}
	if r, ok := c.dst.(*Remote); ok {
		return c.push(ctx, r, d)
	}
	if l, ok := c.dst.(*Local); ok {
		if r, ok := c.src.(*Remote); ok {
			f, err := l.pull(ctx, r, d, c.o.Bytes)
			c.mu.Lock()
			c.res.add(f)
			c.mu.Unlock()
			if err != nil {
				return err
			}
			if !f.Present {
				how = "sent"
			}
			r.transfers.seen(d.Digest, r.host, r.repo)
			c.count(d, pushed{how, d.Size})
			return nil
		}
	}
	err := c.dst.PushBlob(ctx, d, func() (io.ReadCloser, error) {
		how = "sent"
		return c.src.Blob(ctx, d)
	})
	if err != nil {
		return err
	}
	if c.o.Bytes != nil {
		c.o.Bytes(d.Size)
	}
	c.count(d, pushed{how, d.Size})
	return nil
}

// push brings a blob to a registry: straight from the file where it lies in one, mounted where that registry has it.
func (c *copier) push(ctx context.Context, r *Remote, d artifact.Descriptor) error {
	var from []string
	var src source = &streamSource{d: d, from: func() (io.ReadCloser, error) { return c.src.Blob(ctx, d) }}
	switch s := c.src.(type) {
	case *Local:
		if f, ok := s.file(d); ok {
			src = f
		}
	case *Remote:
		if s.host == r.host {
			from = append(from, s.repo)
		}
		s.transfers.seen(d.Digest, s.host, s.repo)
	}
	p, err := r.push(ctx, d, src, from, c.o.Bytes)
	if err != nil {
		return err
	}
	c.count(d, p)
	return nil
}

func (c *copier) count(d artifact.Descriptor, p pushed) {
	c.mu.Lock()
	switch p.how {
	case "sent":
		c.res.Sent++
		c.res.SentBytes += p.sent
	case "mounted":
		c.res.Mounted++
	default:
		c.res.Present++
	}
	c.mu.Unlock()
	if c.o.Progress != nil {
		c.o.Progress(Event{d, p.how})
	}
}

// referrers copies what is attached to d, and what is attached to that.
func (c *copier) referrers(ctx context.Context, d artifact.Digest) error {
	todo := []artifact.Digest{d}
	for len(todo) > 0 {
		subject := todo[0]
		todo = todo[1:]
		refs, err := c.src.Referrers(ctx, subject)
		if err != nil {
			return err
		}
		for _, r := range refs {
			if c.seen(r.Digest) {
				continue
			}
			if err := c.tree(ctx, r.Digest); err != nil {
				return err
			}
			c.res.Referrers = append(c.res.Referrers, r)
			if todo = append(todo, r.Digest); len(c.res.Referrers) > artifact.MaxReferrers {
				return diag.New(diag.Failure, "copy %s: more than %d referrers", d, artifact.MaxReferrers)
			}
		}
	}
	slices.SortFunc(c.res.Referrers, func(a, b artifact.Descriptor) int {
		if a.Digest < b.Digest {
			return -1
		}
		return 1
	})
	return nil
}

func (c *copier) seen(d artifact.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done[d]
}

// ReadModel reads the model manifest of a tag or digest, strictly (artifact.ParseModel).
func ReadModel(ctx context.Context, r Repository, tagOrDigest string) (*artifact.Model, artifact.Descriptor, error) {
	d, err := r.Resolve(ctx, tagOrDigest)
	if err != nil {
		return nil, d, err
	}
	b, d, err := r.Manifest(ctx, d.Digest)
	if err != nil {
		return nil, d, err
	}
	m, err := artifact.ParseModel(b)
	if err != nil {
		return nil, d, diag.Wrap(diag.Failure, err, "%s is no model artifact that this version reads", d.Digest)
	}
	return m, d, nil
}
