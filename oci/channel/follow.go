package channel

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Head is an accepted record with the digest of the bundle bytes that carried it.
type Head struct {
	Record *Record
	Bundle artifact.Digest
}

// Kind says how a record relates to the accepted one before it.
type Kind int

// Kinds.
const (
	Same    Kind = iota // the same bytes again: nothing to do
	Refresh             // the same content, valid for longer
	Halts               // the same content, frozen
	Lifts               // the same content, no longer frozen; the evidence may be newer
	Update              // something else: activate its target
)

// Step is the outcome of Follows. Alarms are facts that a person should see although the record is accepted.
type Step struct {
	Kind   Kind
	Alarms []string
}

// Follows decides whether next may take the place of prev (nil: nothing was accepted yet). byRefresher tells that a
// refresher's key signed next: it must repeat prev's content, so a device that missed the record which introduced the
// content fetches that one first (SeqTag). A refused fork leaves prev in place; whatever comes at seq + 1 is accepted.
// Records are compared by (generation, seq); the caller has checked generation against the trust document.
func Follows(prev, next *Head, byRefresher bool) (Step, error) {
	return rules{}.follows(prev, next, byRefresher)
}

func (u rules) follows(prev, next *Head, byRefresher bool) (Step, error) {
	n := next.Record
	if prev == nil {
		if u.on("refresher") && byRefresher {
			return Step{}, diag.Errorf("%w: no record was accepted before", ErrRefresher)
		}
		if u.on("jump") && n.Seq > MaxJump {
			return Step{}, diag.Errorf("%w: the first record seen has seq %d", ErrFastForward, n.Seq)
		}
		return Step{Kind: Update}, nil
	}
	p := prev.Record
	switch {
	case u.on("channel") && n.Channel != p.Channel:
		return Step{}, diag.Errorf("%w: %q, not %q", ErrChannel, n.Channel, p.Channel)
	case u.on("stale") && n.Generation < p.Generation:
		return Step{}, diag.Errorf("%w: generation %d, accepted %d", ErrStale, n.Generation, p.Generation)
	}
	if n.Generation > p.Generation {
		if u.on("jump") && n.Seq > MaxJump && n.Seq-p.Seq > MaxJump {
			return Step{}, diag.Errorf("%w: seq %d opens generation %d", ErrFastForward, n.Seq, n.Generation)
		}
		if u.on("refresher") && byRefresher {
			return Step{}, diag.Errorf("%w: it can't open generation %d", ErrRefresher, n.Generation)
		}
		return Step{Kind: Update}, nil
	}
	switch {
	case next.Bundle == prev.Bundle:
		return Step{Kind: Same}, nil
	case u.on("stale") && n.Seq < p.Seq:
		return Step{}, diag.Errorf("%w: seq %d, accepted %d", ErrStale, n.Seq, p.Seq)
	case u.on("fork") && n.Seq == p.Seq:
		return Step{}, diag.Errorf("%w %d: %s, accepted %s", ErrFork, n.Seq, next.Bundle.Short(), prev.Bundle.Short())
	case u.on("jump") && n.Seq-p.Seq > MaxJump:
		return Step{}, diag.Errorf("%w: from seq %d to %d", ErrFastForward, p.Seq, n.Seq)
	}
	var s Step
	chained := n.Seq == p.Seq+1 && n.Prev == prev.Bundle
	if n.Seq == p.Seq+1 && !chained {
		s.Alarms = append(s.Alarms, fmt.Sprintf("the channel was forked at seq %d: seq %d follows %s, this device accepted %s",
			p.Seq, n.Seq, n.Prev.Short(), prev.Bundle.Short()))
	}
	if u.on("refresher") && byRefresher {
		if err := refreshes(p, n); err != nil {
			return Step{}, err
		}
	}
	if u.on("rollback") && chained && n.Rollback != nil && !SameContent(p, n) && !repeats(p, n) {
		if err := rollsBack(p, n); err != nil {
			return Step{}, err
		}
	}
	switch {
	case SameContent(p, n):
		s.Kind = Refresh
	case halts(p, n):
		s.Kind = Halts
	case lifts(p, n):
		s.Kind = Lifts
	default:
		s.Kind = Update
	}
	return s, nil
}

// SameContent tells whether two records say the same to a device, apart from seq, times and prev.
func SameContent(a, b *Record) bool {
	eqPtr := func(x, y *Rollout) bool { return x == y || x != nil && y != nil && *x == *y }
	eqBack := func(x, y *Rollback) bool { return x == y || x != nil && y != nil && *x == *y }
	eqFreeze := func(x, y *Freeze) bool { return x == y || x != nil && y != nil && *x == *y }
	return a.Schema == b.Schema && a.Channel == b.Channel && a.Generation == b.Generation && a.Env == b.Env &&
		slices.Equal(a.Audience.Classes, b.Audience.Classes) && maps.Equal(a.Audience.Labels, b.Audience.Labels) &&
		a.Target == b.Target && slices.Equal(a.Evidence, b.Evidence) && a.EpochFloor == b.EpochFloor &&
		slices.Equal(a.Keep, b.Keep) && eqBack(a.Rollback, b.Rollback) && a.Trust == b.Trust && eqPtr(a.Rollout, b.Rollout) &&
		eqFreeze(a.Freeze, b.Freeze)
}

// refreshes holds a refresher to its job. Its window may not be longer than the one it extends: a stolen refresher key
// would otherwise freeze a channel for ever with one signature.
func refreshes(p, n *Record) error {
	switch {
	case !SameContent(p, n):
		return diag.Errorf("%w: seq %d differs from the accepted seq %d in more", ErrRefresher, n.Seq, p.Seq)
	case !n.Expires.After(p.Expires):
		return diag.Errorf("%w: seq %d expires no later", ErrRefresher, n.Seq)
	case n.Expires.Sub(n.Issued) > p.Expires.Sub(p.Issued):
		return diag.Errorf("%w: seq %d is valid for longer than a record of this channel", ErrRefresher, n.Seq)
	}
	return nil
}

func rollsBack(p, n *Record) error {
	if n.Rollback.From != p.Target.Digest {
		return diag.Errorf("%w: it goes back from %s, the channel is at %s", ErrRollback, n.Rollback.From.Short(), p.Target.Digest.Short())
	}
	if !slices.ContainsFunc(p.Keep, func(t Target) bool { return t == n.Target }) {
		return diag.Errorf("%w: %s is not among the %d targets that the channel keeps", ErrRollback, n.Target.Digest.Short(), len(p.Keep))
	}
	return nil
}

// Change is what a publisher decides for the next record; everything else follows from the record before.
type Change struct {
	Channel    string
	Env        string
	Generation int
	Issued     time.Time
	Expires    time.Time
	Audience   Audience
	Target     Target
	Evidence   []EvidenceRef
	EpochFloor int64
	Trust      TrustRef
	Rollout    *Rollout
	Rollback   *Rollback // set by RollBack only
	Freeze     *Freeze   // the channel stays frozen; nil ends a freeze
	KeepMax    int       // how many former targets to keep; 0 means 3
}

// Next makes the record that follows prev (nil for the first one of a channel): seq + 1, former targets kept. It
// validates the result and checks it with Follows.
func Next(prev *Head, c Change) (*Record, error) {
	r := &Record{
		Schema: Schema, Channel: c.Channel, Generation: c.Generation, Seq: 1, Env: c.Env,
		Issued: c.Issued.UTC().Truncate(time.Millisecond), Expires: c.Expires.UTC().Truncate(time.Second),
		Audience: c.Audience, Target: c.Target, Evidence: c.Evidence, EpochFloor: c.EpochFloor, Keep: []Target{},
		Rollback: c.Rollback, Trust: c.Trust, Rollout: c.Rollout, Freeze: c.Freeze,
	}
	if r.Audience.Classes == nil {
		r.Audience.Classes = []string{}
	}
	if r.Audience.Labels == nil {
		r.Audience.Labels = map[string]string{}
	}
	if prev != nil {
		r.Seq, r.Prev = prev.Record.Seq+1, prev.Bundle
		if prev.Record.Generation == c.Generation { // what a closed generation kept is nothing to go back to
			r.Keep = keep(prev.Record, r, c.KeepMax)
		}
	}
	return r, finish(prev, r)
}

// RollBack makes the record that sends the channel back to one of the targets it keeps. c.Target is looked up by
// digest; c.Rollback is made from reason.
func RollBack(prev *Head, to artifact.Digest, reason string, c Change) (*Record, error) {
	i := slices.IndexFunc(prev.Record.Keep, func(t Target) bool { return t.Digest == to })
	if i < 0 {
		return nil, diag.Errorf("%w: %s is not among the %d targets that channel %s keeps", ErrRollback, to.Short(), len(prev.Record.Keep), prev.Record.Channel)
	}
	c.Target = prev.Record.Keep[i]
	c.Rollback = &Rollback{From: prev.Record.Target.Digest, Reason: reason}
	return Next(prev, c)
}

// Extend makes the refresh of prev: the same content at seq + 1, valid until expires.
func Extend(prev *Head, issued, expires time.Time) (*Record, error) {
	r := *prev.Record
	r.Seq, r.Prev = prev.Record.Seq+1, prev.Bundle
	// Not in whole seconds: a refresh within the second of the record before must extend it all the same.
	r.Issued, r.Expires = issued.UTC().Truncate(time.Millisecond), expires.UTC().Truncate(time.Millisecond)
	if err := refreshes(prev.Record, &r); err != nil {
		return nil, err
	}
	return &r, finish(prev, &r)
}

func finish(prev *Head, r *Record) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if o := r.Rollout; o != nil && math.Abs(o.Percent*(Buckets/100)-float64(o.Reach())) > 1e-6 {
		return diag.Errorf("rollout.percent %v has more than two decimals", o.Percent)
	}
	_, err := Follows(prev, &Head{Record: r}, false)
	return err
}

// keep lists the former targets, newest first, without the new target and what the floor forbids.
func keep(prev, next *Record, most int) []Target {
	if most <= 0 {
		most = 3
	}
	out := []Target{}
	for _, t := range append([]Target{prev.Target}, prev.Keep...) {
		dup := slices.ContainsFunc(out, func(o Target) bool { return o.Digest == t.Digest })
		if !dup && t.Digest != next.Target.Digest && t.Epoch >= next.EpochFloor && len(out) < most {
			out = append(out, t)
		}
	}
	return out
}
