package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// recover brings a channel up after a start: an interrupted intent is settled, then the committed artifact serves, or as a last
// resort the factory's.
func (f *follower) recover(ctx context.Context) error {
	return f.orFactory(ctx, f.recoverCommitted(ctx))
}

// orFactory looks after the factory artifact once what is committed was tried, with err as its outcome.
func (f *follower) orFactory(ctx context.Context, err error) error {
	ferr := f.factory(ctx)
	if ferr != nil {
		f.a.Log.Error("the factory artifact can't be used", "channel", f.cfg.Name, "error", ferr)
	}
	if f.live != nil {
		return nil
	}
	return errors.Join(err, ferr)
}

func (f *follower) recoverCommitted(ctx context.Context) error {
	f.a.doc.Lock()
	if !f.a.Store.Unsure() {
		f.a.flush()
	}
	f.a.doc.Unlock()
	in := f.state().Intent
	if in != nil && in.Kind == state.Rollback {
		// A rollback that a person asked for is carried through, unless the process keeps ending in it.
		err := f.resumeRollback(ctx, in)
		if err == nil {
			return nil
		}
		f.a.Log.Error("an interrupted rollback can't be finished", "channel", f.cfg.Name, "error", err)
		in = f.state().Intent
	}
	if in != nil {
		if err := f.interrupted(in); err != nil {
			// It can't be written down now (the disk is full); what is committed serves all the same.
			f.a.Log.Error("an interrupted activation can't be settled yet", "channel", f.cfg.Name, "error", err)
			f.owed = func() error { return f.interrupted(in) }
		}
	}
	return f.serveCommitted(ctx)
}

// interrupted settles an activation that a crash or power cut ended. In its trial it counts as failed; before that it
// may be tried again, a few times.
func (f *follower) interrupted(in *state.Intent) error {
	now := f.a.now().Truncate(time.Second)
	crashes := f.state().Crashes + 1
	if in.Step != state.Trial && crashes < f.a.cfg.MaxCrashes {
		e := f.about(KindInterrupted, in.Candidate, in.Seq, "the device restarted while it was "+string(in.Step))
		return f.change(func(c *state.Channel) error { c.Intent, c.Crashes = nil, crashes; return nil }, e)
	}
	reason := "the device restarted during the trial"
	if in.Step != state.Trial {
		reason = fmt.Sprintf("the device restarted %d times while activating it, last while it was %s", crashes, in.Step)
	}
	note := state.Note{At: now, From: in.Candidate.Digest, Seq: in.Seq, Reason: reason}
	e := f.about(KindRolledBack, in.Candidate, in.Seq, reason)
	e.Digest, e.From = "", in.Candidate.Digest
	if in.Target != nil {
		note.To, e.Digest = in.Target.Digest, in.Target.Digest
	}
	f.unsent = true
	q := f.about(KindQuarantined, in.Candidate, in.Seq, reason)
	q.Data = facts{Generation: in.Generation}.data()
	return f.change(func(c *state.Channel) error {
		fail(c, in, reason, now, false)
		c.LastRollback = &note
		return nil
	}, e, q)
}

// converge makes the server answer with what the document says, after a save whose outcome was open.
func (f *follower) converge(ctx context.Context) error {
	if f.a.Store.Unsure() {
		if err := f.a.update(func(*state.Doc) error { return nil }); err != nil {
			return err
		}
	}
	c := f.state()
	if c.Intent != nil && f.owed != nil {
		// How it ended must not be forgotten: a digest that failed is not tried again.
		if err := f.owed(); err != nil {
			return err
		}
		c = f.state()
	}
	f.owed = nil
	if c.Intent != nil {
		// No activation is under way here, or the lock would be held: this one could not be ended.
		e := f.about(KindInterrupted, c.Intent.Candidate, c.Intent.Seq, "it could not be written down before how it ended")
		if err := f.change(func(c *state.Channel) error { c.Intent = nil; return nil }, e); err != nil {
			return err
		}
		c = f.state()
	}
	if c.Current != nil && f.live != nil && f.live.slot.Digest == c.Current.Digest {
		return nil
	}
	err := f.serveCommitted(ctx)
	if f.live == nil && f.cfg.Factory.Digest != "" {
		err = f.orFactory(ctx, err)
	}
	if err != nil && f.live == nil {
		f.a.Log.Error("nothing serves", "channel", f.cfg.Name, "error", err) // the way out of it is what the channel brings
		return nil
	}
	return err
}

// serveCommitted loads the current artifact and serves it; if it can't be, the next best that passed here before. What ended the
// process again and again is passed over: lastResort is for that.
func (f *follower) serveCommitted(ctx context.Context) error {
	c := f.state()
	if c.Current == nil {
		return nil // nothing was ever activated
	}
	var errs []error
	var broken, held []artifact.Digest
	for _, s := range c.Slots() {
		if s.Committed.IsZero() {
			continue
		}
		if err := f.usable(c, s); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", s.Name, s.Digest.Short(), err))
			continue
		}
		l, err := f.loadCounted(ctx, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", s.Name, s.Digest.Short(), err))
			if isHeld(err) {
				held = append(held, s.Digest)
			} else {
				broken = append(broken, s.Digest)
			}
			f.a.Log.Error("a committed artifact can't be served", "channel", f.cfg.Name, "digest", string(s.Digest), "error", err)
			continue
		}
		return f.fallBack(ctx, c, l, errs, append(broken, held...))
	}
	kept := func(d artifact.Digest) bool {
		return c.Previous != nil && c.Previous.Digest == d || slices.ContainsFunc(c.Kept, func(s state.Slot) bool { return s.Digest == d })
	}
	if c.Tag != "" || slices.ContainsFunc(broken, kept) {
		// The channel's target is fetched again; what is current stays on record as the one that served.
		err := f.change(func(c *state.Channel) error { c.Tag = ""; c.Forget(broken); return nil })
		if err != nil {
			errs = append(errs, err)
		}
	}
	return fmt.Errorf("channel %s: nothing on this device can be served: %w", f.cfg.Name, errors.Join(errs...))
}

// usable says why a committed artifact must not serve, whether or not it could. What is current goes on until it is replaced.
func (f *follower) usable(c *state.Channel, s state.Slot) error {
	switch {
	case f.a.denied(s.Digest) && (c.Current == nil || s.Digest != c.Current.Digest):
		return errors.New("the trust document denies it")
	case s.Epoch < c.EpochFloor:
		return fmt.Errorf("epoch %d is below the security floor %d", s.Epoch, c.EpochFloor)
	}
	return nil
}

// fallBack serves l, which is what c names as current or, when errs say why that is not possible, the next best; failed is then
// no longer gone back to.
func (f *follower) fallBack(ctx context.Context, c *state.Channel, l *loaded, errs []error, failed []artifact.Digest) error {
	if err := f.serve(l); err != nil {
		return errors.Join(append(errs, err, l.model.Close(ctx))...)
	}
	s := l.slot
	if s.Digest == c.Current.Digest {
		return nil
	}
	why := clip(errors.Join(errs...).Error())
	e := f.about(KindFallback, s, c.Seq, why)
	e.From, e.Data = c.Current.Digest, facts{Target: &s}.data()
	f.unsent = true
	now := f.a.now().Truncate(time.Second)
	err := f.change(func(c *state.Channel) error {
		if c.Current == nil {
			return errors.New("the document has changed")
		}
		from := c.Current.Digest
		promote(c, s, now, nil)
		c.LastRollback = &state.Note{At: now, From: from, To: s.Digest, Seq: c.Seq, Reason: why}
		c.Tag = "" // the channel's target is activated anew: fetched again, probed again
		c.Forget(failed)
		return nil
	}, e)
	if err != nil {
		f.a.Log.Error("the fallback can't be written down", "channel", f.cfg.Name, "error", err)
	}
	return nil
}

// loadCommitted is load for what passed here before: one read that failed, or gave a wrong byte, is no reason to leave it.
func (f *follower) loadCommitted(ctx context.Context, s state.Slot) (l *loaded, err error) {
	for range 3 {
		l, err = f.load(ctx, s, false)
		if err == nil || !transient(err) && !errors.Is(err, state.ErrDigest) || ctx.Err() != nil {
			break
		}
	}
	return l, err
}

// serve makes l live and closes what was.
func (f *follower) serve(l *loaded) error {
	drained, err := f.a.Server.Swap(f.cfg.Model, l.slot, l.model)
	if err != nil {
		return err
	}
	before := f.live
	f.live = l
	if before == nil {
		return nil
	}
	if err := f.retire(before, drained); err != nil {
		f.a.Log.Warn("close the model before", "error", err)
	}
	return nil
}

// RollbackResult tells what a rollback changed.
type RollbackResult struct {
	Channel string     `json:"channel"`
	From    state.Slot `json:"from"`
	To      state.Slot `json:"to"`
}

// Errors of Rollback; errors.Is tells them apart.
var (
	ErrNoChannel = errors.New("this device does not follow that channel")
	ErrNoTarget  = errors.New("there is nothing to go back to")
)

// Rollback takes channel back to the artifact before, or to the digest to, which must have been committed here and still be
// kept. It needs no network, verifies the files again, and bars the channel's present record: the device stays there until
// the channel moves on. A trial under way ends as failed; with to empty that is all, if something served before it.
func (a *Agent) Rollback(ctx context.Context, channel string, to artifact.Digest) (RollbackResult, error) {
	a.endStart()
	if channel == "" && len(a.followers) == 1 {
		channel = a.followers[0].cfg.Name
	}
	f := a.follower(channel)
	if f == nil {
		return RollbackResult{}, fmt.Errorf("%w: %q", ErrNoChannel, channel)
	}
	res, sent, err := f.rollback(ctx, to)
	if sent != nil { // one that finds its way at once is out when the command returns, one that does not holds nobody up
		timer := time.NewTimer(rollbackReport)
		defer timer.Stop()
		select {
		case <-sent:
		case <-timer.C:
		}
	}
	return res, err
}

// rollbackReport is how long a rollback by hand waits for its report to be handed over.
const rollbackReport = 250 * time.Millisecond

// rollback ends what is under way and goes back; sent is closed when the report about it was handed over.
func (f *follower) rollback(ctx context.Context, to artifact.Digest) (res RollbackResult, sent <-chan struct{}, err error) {
	f.attempt.Lock()
	stopped := f.cancel != nil
	if stopped {
		f.cancel(errByHand)
	}
	var candidate state.Slot
	if in := f.state().Intent; stopped && in != nil {
		candidate = in.Candidate
	}
	f.attempt.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.converge(ctx); err != nil {
		return res, nil, err
	}
	c := f.state()
	if stopped && to == "" && candidate.Digest != "" && c.Current != nil && c.Current.Digest != candidate.Digest {
		if _, barred := c.Quarantine[string(candidate.Digest)]; barred {
			f.report(ctx)
			return RollbackResult{Channel: f.cfg.Name, From: candidate, To: *c.Current}, f.sent, nil
		}
	}
	s, err := f.rollbackTarget(c, to)
	if err != nil {
		return res, nil, err
	}
	in := state.Intent{Kind: state.Rollback, Step: state.Staged, Candidate: s, Target: c.Current, Generation: c.Generation, Seq: c.Seq, Started: f.a.now(), Reason: errByHand.Error()}
	if err := f.change(func(c *state.Channel) error { c.Intent = &in; return nil }); err != nil {
		return res, nil, err
	}
	if err := f.rollTo(ctx, &in); err != nil {
		return res, nil, err
	}
	f.report(ctx)
	return RollbackResult{Channel: f.cfg.Name, From: *in.Target, To: s}, f.sent, nil
}

func (f *follower) rollbackTarget(c *state.Channel, to artifact.Digest) (state.Slot, error) {
	if c.Current == nil {
		return state.Slot{}, fmt.Errorf("%w: nothing was activated on channel %s", ErrNoTarget, c.Name)
	}
	if to == "" {
		if c.Previous == nil {
			return state.Slot{}, fmt.Errorf("%w: %s is the only artifact on channel %s", ErrNoTarget, c.Current.Digest.Short(), c.Name)
		}
		to = c.Previous.Digest
	}
	s, ok := c.Committed(to)
	switch {
	case !ok:
		return s, fmt.Errorf("%w: %s was never committed on channel %s, or is no longer kept; %s", ErrNoTarget, to, c.Name, f.choices(c))
	case s.Digest == c.Current.Digest:
		return s, fmt.Errorf("%w: %s is what runs", ErrNoTarget, to.Short())
	case f.a.denied(to):
		return s, fmt.Errorf("the trust document denies %s", to.Short())
	case s.Epoch < c.EpochFloor:
		return s, fmt.Errorf("%s has epoch %d, below the security floor %d of this device", to.Short(), s.Epoch, c.EpochFloor)
	}
	return s, nil
}

// choices lists for people what can be gone back to.
func (f *follower) choices(c *state.Channel) string {
	var list []string
	for _, s := range c.Slots() {
		if s.Committed.IsZero() || s.Digest == c.Current.Digest || f.a.denied(s.Digest) || s.Epoch < c.EpochFloor {
			continue
		}
		list = append(list, strings.TrimSpace(s.Version+" "+string(s.Digest)))
	}
	if len(list) == 0 {
		return "there is nothing that could be gone back to"
	}
	return "these can be gone back to: " + strings.Join(list, ", ")
}

// rollTo carries a rollback intent out: verify, load, probe, swap, commit.
func (f *follower) rollTo(ctx context.Context, in *state.Intent) error {
	abort := func(err error) error {
		e := f.about(KindFailed, in.Candidate, in.Seq, clip("rollback: "+err.Error()))
		return errors.Join(err, f.change(func(c *state.Channel) error { c.Intent = nil; return nil }, e))
	}
	l, err := f.loadCommitted(ctx, in.Candidate)
	if err != nil {
		return abort(err)
	}
	before := f.live
	drained, err := f.a.Server.Swap(f.cfg.Model, l.slot, l.model)
	if err != nil {
		return abort(errors.Join(err, l.model.Close(ctx)))
	}
	f.live = l
	if err := f.commitRollback(in); err != nil {
		// It serves and could not be written down: go back to what the document says.
		if before != nil {
			gone, serr := f.a.Server.Swap(f.cfg.Model, before.slot, before.model)
			if serr == nil {
				f.live = before
				return errors.Join(err, f.retire(l, gone))
			}
			err = errors.Join(err, serr)
		}
		return err
	}
	if before != nil {
		if err := f.retire(before, drained); err != nil {
			f.a.Log.Warn("close the model before", "error", err)
		}
	}
	return nil
}

func (f *follower) commitRollback(in *state.Intent) error {
	now := f.a.now().Truncate(time.Second)
	var err error
	for range 3 {
		if c := f.state(); c.Intent == nil && c.Current != nil && c.Current.Digest == in.Candidate.Digest {
			if err = f.change(func(*state.Channel) error { return nil }); err == nil {
				return nil
			}
			continue
		}
		e := journal.Entry{Kind: KindRolledBack, Channel: f.cfg.Name, Digest: in.Candidate.Digest, Seq: in.Seq, Reason: in.Reason}
		e.Data = facts{Generation: in.Generation, Target: &in.Candidate, Pinned: true}.data()
		note := state.Note{At: now, To: in.Candidate.Digest, Seq: in.Seq, Reason: in.Reason}
		if in.Target != nil {
			e.From, note.From = in.Target.Digest, in.Target.Digest
		}
		f.unsent = true
		err = f.change(func(c *state.Channel) error {
			promote(c, in.Candidate, now, nil)
			c.Pinned = &state.Pin{Generation: c.Generation, Seq: c.Seq, At: now}
			c.Intent, c.LastRollback, c.Crashes = nil, &note, 0
			return nil
		}, e)
		if err == nil {
			return nil
		}
	}
	return err
}

// resumeRollback finishes a rollback that a restart interrupted. When that fails, a few restarts were in the middle of it, or its
// target is denied by now, the intent is ended.
func (f *follower) resumeRollback(ctx context.Context, in *state.Intent) error {
	crashes := f.state().Crashes + 1
	var err error
	switch {
	case crashes >= f.a.cfg.MaxCrashes:
		err = fmt.Errorf("the device restarted %d times in the middle of it", crashes)
	case f.a.denied(in.Candidate.Digest): // by a document that came since
		err = fmt.Errorf("the trust document denies %s", in.Candidate.Digest.Short())
	}
	if err != nil {
		e := f.about(KindFailed, in.Candidate, in.Seq, "rollback: "+err.Error())
		return errors.Join(err, f.change(func(c *state.Channel) error { c.Intent, c.Crashes = nil, 0; return nil }, e))
	}
	if err := f.change(func(c *state.Channel) error { c.Crashes = crashes; return nil }); err != nil {
		f.a.Log.Error("a restart in a rollback can't be counted", "channel", f.cfg.Name, "error", err)
	}
	return f.rollTo(ctx, in)
}
