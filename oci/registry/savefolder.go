package registry

import (
	"bytes"
	"context"
	"io"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// Missing is the number of bytes of the plan that s does not have; a nil s has nothing.
func (p *SavePlan) Missing(s *store.Store) (n int64, err error) {
	for _, d := range p.order {
		if s != nil {
			if size, ok, err := s.Has(d); err != nil {
				return 0, err
			} else if ok && size == p.size(d) {
				continue
			}
		}
		n += p.size(d)
	}
	return n, nil
}

func (p *SavePlan) size(d artifact.Digest) int64 {
	if b, ok := p.s.manifests[d]; ok {
		return int64(len(b))
	}
	return p.s.blobs[d].d.Size
}

// Into adds what was planned to the layout s, under the same names as in an archive. Content comes first, hashed on the way,
// and what is there already is left alone; then all names are set in one step, so that whoever reads the layout meanwhile, a
// web server for one, finds what was there before or all of what is new. What the layout holds besides stays. On an error
// before that step nothing of it is left behind.
func (p *SavePlan) Into(ctx context.Context, s *store.Store, o SaveOptions) error {
	missing, err := p.Missing(s)
	if err != nil {
		return err
	}
	if o.Start != nil {
		o.Start(missing)
	}
	if err := s.Hold(ctx); err != nil {
		return err
	}
	var staged []*store.Staged
	defer func() {
		for _, g := range staged {
			_ = g.Close()
		}
	}()
	for _, d := range p.order {
		if size, ok, err := s.Keep(ctx, d); err != nil {
			return err
		} else if ok && size == p.size(d) {
			continue
		}
		g, err := p.stage(ctx, s, d, o.Progress)
		if err != nil {
			return err
		}
		staged = append(staged, g)
	}
	for _, g := range staged {
		if err := g.Commit(); err != nil {
			return err
		}
	}
	var ls []store.Listing
	for _, m := range p.index.Manifests {
		ls = append(ls, store.Listing{Digest: m.Digest, Ref: entryRef(m)})
	}
	return s.List(ctx, ls)
}

func (p *SavePlan) stage(ctx context.Context, s *store.Store, d artifact.Digest, progress func(int64)) (*store.Staged, error) {
	want, r := artifact.Descriptor{Digest: d, Size: p.size(d)}, io.ReadCloser(nil)
	if b, ok := p.s.manifests[d]; ok {
		r = io.NopCloser(bytes.NewReader(b))
	} else {
		from := p.s.blobs[d]
		var err error
		if r, err = from.r.Blob(ctx, from.d); err != nil {
			return nil, err
		}
	}
	defer r.Close() // only read
	return s.Stage(ctx, &countReader{r, progress}, want, "what is saved")
}
