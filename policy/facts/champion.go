package facts

import (
	"context"
	"fmt"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

// champion looks up what the channel names now, verifies the record and reads the champion's own verified evaluation and
// verdicts for this environment.
func (c *collector) champion(ctx context.Context, src Source, chans Channels) evidence.Basis {
	ch := input.Champion{Channel: c.env.Channel, Metrics: []input.Metric{}}
	defer func() {
		ch.Reason = clip(ch.Reason, maxNote)
		c.in.Champion = ch
	}()
	basis := evidence.Basis{Channel: c.env.Channel}
	raw, err := chans.Record(ctx, c.env.Channel)
	if err != nil {
		ch.Reason = "the channel could not be read: " + err.Error()
		return basis
	}
	if raw == nil {
		ch.Verified = true
		return basis
	}
	rec, e, err := verify.Record(raw, c.doc, c.now)
	if verify.ReasonOf(err) == verify.PastGeneration {
		ch.Verified = true // the roots have reset the channel: nothing is in it yet
		return basis
	}
	if err == nil && c.on("same-channel") {
		err = sameChannel(rec, c.env, c.in.Model.Name)
	}
	if err != nil {
		ch.Reason = "the channel's record: " + err.Error()
		ch.Record = string(artifact.DigestOf(raw))
		return basis
	}
	c.newest(rec.Issued)
	basis.Seq, basis.Champion = rec.Seq, rec.Target.Digest
	ch.Version, ch.Epoch, ch.EpochFloor = rec.Target.Version, rec.Target.Epoch, rec.EpochFloor
	ch.Seq, ch.Digest, ch.Record = rec.Seq, string(rec.Target.Digest), string(e.Bundle)
	c.used = append(c.used, e.Bundle)
	raws, err := src.Bundles(ctx, rec.Target.Digest)
	if err != nil {
		ch.Reason = "the champion's evidence could not be listed: " + err.Error()
		return basis
	}
	if err := c.within(raws); err != nil {
		ch.Reason = "the champion's evidence: " + err.Error()
		return basis
	}
	ch.Verified = true
	var past []evidence.Verdict
	order, by := distinct(raws)
	for _, d := range order {
		b := by[d]
		typ, _, env := peek(b)
		if typ != evidence.TypeEvaluation && (typ != evidence.TypeVSA || env != c.env.Name) {
			continue
		}
		ev, err := c.verifyBundle(b, c.doc, c.want(rec.Target.Name, rec.Target.Digest, typ))
		if err != nil {
			continue // what is not verified is no figure to compare with; too few of them deny
		}
		if typ == evidence.TypeVSA {
			if v, err := c.parseVerdict(ev, env); err == nil {
				past = append(past, evidence.Verdict{Bundle: ev.Bundle, VSA: v})
				c.used = append(c.used, ev.Bundle)
			}
			continue
		}
		if err := add(c.seam, &ch.Metrics, ev, metrics); err != nil {
			continue
		}
		c.used = append(c.used, ev.Bundle)
	}
	if v := evidence.ChainOf(past, raws).Newest(); v != nil {
		ch.Verdict = v.VSA.VerificationResult
	}
	return basis
}

func sameChannel(r *channel.Record, env input.Environment, model string) error {
	switch {
	case r.Channel != env.Channel:
		return fmt.Errorf("it is for channel %s, not %s", r.Channel, env.Channel)
	case r.Env != env.Name:
		return fmt.Errorf("it is for environment %s, not %s", r.Env, env.Name)
	case r.Target.Name != model:
		return fmt.Errorf("the channel carries model %s, not %s", r.Target.Name, model)
	}
	return nil
}
