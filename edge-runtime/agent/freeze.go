package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// A frozen channel: nothing is activated. What passed here before is gone back to when the record rolls back, as under an
// expired record. An activation under way is given up, its trial too: until it is committed, what runs here is what ran before.

// overtaken ends an activation because the channel has moved on from the record that asked for it. It is no verdict on the
// artifact: nothing is quarantined, and a later record may ask for it again.
type overtaken struct{ why string }

func (e *overtaken) Error() string { return e.why }

func isOvertaken(err error) bool {
	var o *overtaken
	return errors.As(err, &o)
}

// freezes are the journal entries for what an accepted record r does to the freeze known so far.
func (f *follower) freezes(was *state.Frozen, r *channel.Record) []journal.Entry {
	e := f.entry(KindFrozen)
	e.Digest, e.Seq = r.Target.Digest, r.Seq
	switch {
	case r.Freeze != nil && (was == nil || was.Reason != r.Freeze.Reason):
		e.Reason = r.Freeze.Reason
	case r.Freeze == nil && was != nil:
		e.Kind, e.Reason = KindThawed, "frozen since seq "+fmt.Sprint(was.Seq)+": "+was.Reason
	default:
		return nil
	}
	return []journal.Entry{e}
}

// frozenBy is what the document keeps of the freeze in r, which followed was.
func frozenBy(was *state.Frozen, r *channel.Record) *state.Frozen {
	switch {
	case r.Freeze == nil:
		return nil
	case was != nil && was.Reason == r.Freeze.Reason:
		return was
	}
	return &state.Frozen{Since: r.Issued.UTC(), Seq: r.Seq, Reason: r.Freeze.Reason}
}

// stands keeps a quarantine and a rollback by hand in force when the record only says again what it said before: a refresh or
// a freeze is no reason to try once more what failed here.
func stands(c *state.Channel, kind channel.Kind, r *channel.Record) {
	if kind != channel.Refresh && kind != channel.Halts {
		return
	}
	for d, q := range c.Quarantine {
		if q.Generation == r.Generation && q.Seq == c.Seq {
			q.Seq = r.Seq
			c.Quarantine[d] = q
		}
	}
	if p := c.Pinned; p != nil && p.Generation == r.Generation && p.Seq == c.Seq {
		pin := *p
		pin.Seq = r.Seq
		c.Pinned = &pin
	}
}

// frozen tells whether a record that Admit refuses because of its freeze leaves anything to do here, which is going back to
// what passed before. nil: do it. Another error says why not.
func (f *follower) frozen(r *channel.Record, device channel.Device, committed bool) error {
	if r.Rollback == nil || !committed {
		return fmt.Errorf("%w: %s", channel.ErrFrozen, r.Freeze.Reason)
	}
	x := *r
	x.Freeze = nil
	err := f.a.checks.admit(&x, f.a.now(), device)
	if errors.Is(err, channel.ErrExpired) {
		return nil
	}
	return err
}

// lookTime bounds one look.
const lookTime = 10 * time.Second

// lookAgain asks, in the middle of an activation and at most once in a polling interval, whether the channel has moved on: frozen,
// or on to another target. A channel that can't be reached changes nothing.
func (f *follower) lookAgain(ctx context.Context, in *state.Intent) error {
	f.alive()
	now := f.a.Clock.Up()
	if now < f.looked+f.cfg.Interval {
		return nil
	}
	f.looked = now
	ctx, cancel := context.WithTimeout(ctx, lookTime) // what is on trial is not judged meanwhile
	defer cancel()
	tags, err := f.places.Look(ctx, channel.Tag(f.cfg.Name), false)
	if err != nil {
		return nil
	}
	seen, _ := f.choose(ctx, tags, in.Tag, f.lookTag)
	if seen == nil {
		return nil // what is wrong with a record is said by the next poll
	}
	tag, raw := seen.tag, seen.raw
	if raw == nil {
		if raw, err = f.fetchRecord(ctx, tag); err != nil {
			f.a.Log.Debug("look at the channel", "channel", f.cfg.Name, "error", err)
			return nil
		}
	}
	r, err := f.accept(ctx, raw)
	if full := (*notKept)(nil); err != nil && !errors.As(err, &full) { // a full disk is no reason to commit what was frozen
		// The next poll says so; an activation is not ended by what does not verify.
		f.a.Log.Debug("look at the channel", "channel", f.cfg.Name, "error", err)
		return nil
	}
	f.lookTag = tag
	switch {
	case r.Freeze != nil:
		return &overtaken{fmt.Sprintf("the channel was frozen meanwhile: %s", r.Freeze.Reason)}
	case r.Target.Digest != in.Candidate.Digest:
		return &overtaken{fmt.Sprintf("the channel moved on to %s %s with seq %d", r.Target.Version, r.Target.Digest.Short(), r.Seq)}
	case f.a.denied(in.Candidate.Digest):
		return &overtaken{fmt.Sprintf("the trust document denies %s", in.Candidate.Digest.Short())}
	}
	return nil
}

// standDown ends an activation that was overtaken; what served before serves already.
func (f *follower) standDown(in *state.Intent, err error) error {
	now := f.a.now().Truncate(time.Second)
	why := clip(err.Error())
	e := f.about(KindInterrupted, in.Candidate, in.Seq, why)
	onTrial := f.state().Intent != nil && f.state().Intent.Step == state.Trial
	var note *state.Note
	if onTrial {
		note = &state.Note{At: now, From: in.Candidate.Digest, Seq: in.Seq, Reason: why}
		e = f.about(KindRolledBack, in.Candidate, in.Seq, why)
		e.From, e.Digest = in.Candidate.Digest, ""
		if in.Target != nil {
			note.To, e.Digest = in.Target.Digest, in.Target.Digest
		}
		f.unsent = true
	}
	cerr := f.change(func(c *state.Channel) error {
		c.Intent, c.Waiting, c.Crashes = nil, nil, 0
		if note != nil {
			c.LastRollback = note
		}
		return nil
	}, e)
	f.tidy()
	return errors.Join(err, cerr)
}

// takeNewest is take, again while the channel moves on in the middle of it.
func (f *follower) takeNewest(ctx context.Context, s sighting) (artifact.Digest, error) {
	const most = 8
	for n := 1; ; n++ {
		f.looked, f.lookTag = f.a.Clock.Up(), ""
		err := f.take(ctx, s)
		if err == nil && f.state().Tag == s.tag {
			f.settled = f.state().Record
		}
		if !isOvertaken(err) || ctx.Err() != nil {
			return s.tag, err
		}
		f.a.Log.Info("overtaken", "channel", f.cfg.Name, "reason", err)
		if n == most {
			return s.tag, fmt.Errorf("%w: the channel moved on %d times during one poll", ErrTransient, n)
		}
		tags, rerr := f.places.Look(ctx, channel.Tag(f.cfg.Name), false)
		if rerr != nil {
			return s.tag, fmt.Errorf("look up channel %s: %w", f.cfg.Name, rerr)
		}
		next, rerr := f.choose(ctx, tags)
		if next == nil {
			return s.tag, rerr
		}
		s = *next
	}
}
