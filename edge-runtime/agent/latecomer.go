package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// errUnchained says that a number's tag does not hold the record that the one above follows.
var errUnchained = errors.New("it is not the record that the next one follows")

// before finds what a device that runs nothing yet may have while the accepted record r is not for it: the newest target before
// that was, if r keeps it. The records on the way back are those whose digests the accepted one leads to, so a carrier cannot
// choose among them, and each must verify. What comes back is r for that target, with the evidence that its own record pinned:
// it expires with r, and r's floor holds. nil: there is none.
func (f *follower) before(ctx context.Context, r *channel.Record, device channel.Device) (*channel.Record, error) {
	above := r
	for range f.a.checks.walk {
		if above.Seq <= 1 || above.Generation != r.Generation || !slices.ContainsFunc(r.Keep, func(t channel.Target) bool { return t.Digest != r.Target.Digest }) {
			return nil, nil
		}
		b, err := f.chained(ctx, above)
		if err != nil {
			return nil, fmt.Errorf("record seq %d: %w", above.Seq-1, err)
		}
		above = b
		if b.Generation != r.Generation || b.Target.Digest == r.Target.Digest || !slices.Contains(r.Keep, b.Target) {
			continue
		}
		x := *r
		x.Target, x.Evidence, x.Audience, x.Rollout, x.Rollback = b.Target, b.Evidence, b.Audience, b.Rollout, nil
		err = f.a.checks.admit(&x, f.a.now(), device)
		if errors.Is(err, channel.ErrAudience) || errors.Is(err, channel.ErrRollout) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &x, nil
	}
	return nil, nil
}

// chained reads the record that above follows.
func (f *follower) chained(ctx context.Context, above *channel.Record) (*channel.Record, error) {
	tag, err := f.cfg.Carrier.Resolve(ctx, channel.SeqTag(f.cfg.Name, above.Seq-1))
	if err != nil {
		return nil, errors.Join(ErrTransient, err)
	}
	raw, err := f.fetchRecord(ctx, tag)
	if err != nil {
		return nil, err
	}
	if !f.a.checks.blob(artifact.DigestOf(raw), above.Prev) {
		return nil, errUnchained
	}
	b, _, err := f.verifyRecord(ctx, raw)
	if err != nil {
		return nil, err
	}
	if b.Channel != f.cfg.Name || b.Env != f.cfg.Env || b.Target.Name != f.cfg.Model {
		return nil, errUnchained
	}
	return b, nil
}
