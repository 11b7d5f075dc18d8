package publish

import (
	"context"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Guard is the lock under which a publisher works. Still makes sure, right before a tag is set, that it is held yet; by until
// the tag must be set (the zero time: at any time).
type Guard interface {
	Still(ctx context.Context) (until time.Time, err error)
}

// Guarded is p, but no tag is set without the lock: a publisher that was asleep for too long finds that another one works on
// the channel, and stops.
func Guarded(p Place, g Guard) Place { return &guarded{p, g} }

type guarded struct {
	Place
	g Guard
}

func (p *guarded) SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (artifact.Descriptor, bool, error) {
	until, err := p.g.Still(ctx)
	if err != nil {
		return artifact.Descriptor{}, false, diag.Wrap(diag.Failure, err, "set %s", tag).
			Line("nothing that devices follow was changed by this step").Hint("run the command again")
	}
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	return p.Place.SwapTag(ctx, b, mediaType, tag, old)
}
