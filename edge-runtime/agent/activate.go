package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/redact"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// maxKept bounds former artifacts kept beside current and previous.
const maxKept = 4

// drainTime is how long a replaced model may finish its requests before it is closed under them.
const drainTime = 30 * time.Second

// drainSoon is how long an activation or a rollback waits for that.
const drainSoon = 100 * time.Millisecond

// errShutdown ends an activation because the agent stops; errByHand because a person rolls back.
var (
	errShutdown = errors.New("the agent is stopping")
	errByHand   = errors.New("rolled back on this device")
)

// failedTrial is a verdict on the artifact: it must not be tried again under this record.
type failedTrial struct {
	err  error
	hand bool // a person's decision
}

func (e *failedTrial) Error() string { return e.err.Error() }
func (e *failedTrial) Unwrap() error { return e.err }

// activate takes the device from what it serves to target, or leaves it where it is. Its intent, with the way back, is
// durable before anything is done, and again before each step.
func (f *follower) activate(ctx context.Context, r *channel.Record, target state.Slot, tag artifact.Digest) error {
	in := state.Intent{
		Kind: state.Update, Step: state.Fetching, Candidate: target,
		Generation: r.Generation, Seq: r.Seq, Tag: tag, EpochFloor: r.EpochFloor, Started: f.a.now(),
	}
	for _, t := range r.Keep {
		in.Keep = append(in.Keep, slotOf(t, 0))
	}
	for _, e := range r.Evidence {
		in.Blobs = append(in.Blobs, state.Blob{Digest: e.Digest, Size: e.Size})
	}
	if r.Rollback != nil {
		in.Reason = r.Rollback.Reason
	}
	err := f.change(func(c *state.Channel) error {
		if c.Current != nil {
			t := *c.Current
			in.Target = &t
		}
		c.Intent = &in
		return nil
	})
	if err != nil {
		return err
	}
	next, err := f.prepare(ctx, r, &in)
	if err != nil {
		return f.giveUp(ctx, r, &in, err)
	}
	if err := f.inShadow(ctx, &in, next); err != nil {
		return f.giveUp(ctx, r, &in, errors.Join(err, f.retire(next, nil)))
	}
	if err := f.lookAgain(ctx, &in); err != nil {
		return f.giveUp(ctx, r, &in, errors.Join(err, f.retire(next, nil)))
	}
	if err := f.onTrial(ctx, r, &in, next); err != nil {
		return f.giveUp(ctx, r, &in, err)
	}
	return nil
}

// step makes the next step durable before it is taken.
func (f *follower) step(in *state.Intent, to state.Step, events ...journal.Entry) error {
	in.Step = to
	return f.a.update(func(d *state.Doc) error {
		c := d.Channel(f.cfg.Name)
		f.a.attest(d, f.attested)
		if c.Intent == nil || c.Intent.Candidate.Digest != in.Candidate.Digest {
			return errors.New("the intent is gone")
		}
		c.Intent.Step, c.Intent.Candidate.Proof = to, in.Candidate.Proof
		return nil
	}, events...)
}

// prepare fetches, verifies, admits, loads and probes the candidate. What serves is not touched.
func (f *follower) prepare(ctx context.Context, r *channel.Record, in *state.Intent) (*loaded, error) {
	// What passed here before was verified then, and the way back must not depend on the network.
	if in.Candidate.Committed.IsZero() {
		m, err := f.fetch(ctx, r, in.Candidate)
		if err != nil {
			return nil, err
		}
		var size int64
		for _, l := range deviceLayers(m) {
			size += l.Size
		}
		fetched := f.about(KindFetched, in.Candidate, in.Seq, fmt.Sprintf("%d files, %d bytes", len(deviceLayers(m)), size))
		if err := f.step(in, state.Fetched, fetched); err != nil {
			return nil, err
		}
		// Again, after a download that may have taken long and with the trust document of now.
		if err := f.verifyEvidence(r, in.Candidate); err != nil {
			return nil, err
		}
		if err := f.step(in, state.Verified); err != nil {
			return nil, err
		}
		device := channel.Device{ID: f.a.Signer.KeyID(), Class: f.a.cfg.Class, Labels: f.a.cfg.Labels, Floor: f.state().EpochFloor}
		if err := f.a.checks.admit(r, f.a.now(), device); err != nil {
			return nil, err
		}
		if err := f.step(in, state.Admitted); err != nil {
			return nil, err
		}
		if err := errors.Join(f.window(deviceinput.Activate, r, in.Candidate), f.permitted(ctx, deviceinput.Activate, in.Candidate, m)); err != nil {
			return nil, err
		}
		if err := f.compiles(m); err != nil {
			return nil, err
		}
	}
	if m, err := f.manifest(in.Candidate); err != nil {
		return nil, err
	} else if err := f.fits(m); err != nil {
		return nil, err
	}
	if err := f.step(in, state.Staged); err != nil {
		return nil, err
	}
	next, err := f.load(ctx, in.Candidate, in.Candidate.Committed.IsZero())
	if err != nil {
		if errors.Is(err, state.ErrDigest) {
			err = errors.Join(ErrTransient, err) // it had its digest when it was fetched: this disk's fault, not the artifact's
		}
		if transient(err) || ctx.Err() != nil {
			return nil, err
		}
		return nil, &failedTrial{err: err}
	}
	in.Candidate.Proof = next.slot.Proof
	return next, nil
}

// onTrial serves next on probation and commits it when it keeps to its budgets. On an error what served before serves
// again, and next is closed.
func (f *follower) onTrial(ctx context.Context, r *channel.Record, in *state.Intent, next *loaded) (err error) {
	before := f.live
	trial := f.cfg.Trial
	if !in.Candidate.Committed.IsZero() {
		trial = Trial{} // it has passed one
	}
	abandon := func(err error) error {
		f.live = before
		return errors.Join(err, f.retire(next, nil))
	}
	if err := f.step(in, state.Trial, f.about(KindTrial, in.Candidate, in.Seq, trial.String()+in.Candidate.Proof.String())); err != nil {
		return abandon(err)
	}
	drained, err := f.a.Server.Swap(f.cfg.Model, in.Candidate, next.model)
	if err != nil {
		return abandon(err)
	}
	f.live = next
	f.unsent = true
	back := func(err error) error {
		var gone <-chan struct{}
		var serr error
		if before != nil {
			gone, serr = f.a.Server.Swap(f.cfg.Model, before.slot, before.model)
		} else {
			gone, serr = f.a.Server.Swap(f.cfg.Model, state.Slot{}, nil)
		}
		f.live = before
		return errors.Join(err, serr, f.retire(next, gone))
	}
	if trial.Duration > 0 {
		f.report(ctx)
		if err := f.watch(ctx, trial, in); err != nil {
			return back(err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return back(cause(ctx))
	}
	if err := f.commit(in); err != nil {
		return back(fmt.Errorf("commit: %w", err))
	}
	next.slot = *f.state().Current
	if before != nil {
		if err := f.retire(before, drained); err != nil {
			f.a.Log.Warn("close the model before", "error", err)
		}
	}
	f.tidy()
	return nil
}

// String tells the budgets for the journal.
func (t Trial) String() string {
	if t.Duration == 0 {
		return "it passed a trial here before"
	}
	s := fmt.Sprintf("for %s, error rate at most %g", t.Duration, t.MaxErrorRate)
	if t.P50 > 0 {
		s += fmt.Sprintf(", p50 at most %s", t.P50)
	}
	if t.P99 > 0 {
		s += fmt.Sprintf(", p99 at most %s", t.P99)
	}
	return s
}

// watch judges the served candidate until its time is over: an error is the reason why it failed.
func (f *follower) watch(ctx context.Context, t Trial, in *state.Intent) error {
	const looks = 50
	every := max(t.Duration/looks, time.Millisecond)
	end := f.a.Clock.Up() + t.Duration
	f.trialEnd.Store(int64(end))
	defer f.trialEnd.Store(0)
	for {
		if err := f.a.Clock.Sleep(ctx, every); err != nil {
			return cause(ctx)
		}
		if err := f.lookAgain(ctx, in); err != nil {
			return err
		}
		over := f.a.Clock.Up() >= end
		if err := t.judge(f.a.Server.Stats(f.cfg.Model), over); err != nil {
			return &failedTrial{err: err}
		}
		if over {
			return nil
		}
	}
}

// proves judges what the golden vectors took on this device before anything serves. With too few calls for a percentile a model
// is over budget when even the fastest thing that is known of it is.
func (t Trial) proves(p state.Proof) error {
	switch {
	case t.Memory > 0 && p.Memory > t.Memory:
		return fmt.Errorf("memory budget: %d bytes after the golden vectors, over %d", p.Memory, t.Memory)
	case t.P50 > 0 && p.P50 > t.P50:
		return fmt.Errorf("latency budget: p50 %s over %s in %d calls of golden vectors", p.P50, t.P50, p.Calls)
	case t.P99 > 0 && p.P99 > t.P99 && (p.Calls >= earlyP99 || p.P50 > t.P99):
		return fmt.Errorf("latency budget: p99 %s over %s in %d calls of golden vectors", p.P99, t.P99, p.Calls)
	}
	return nil
}

// How many requests it takes to fail a trial by a percentile before its end. Of fewer than 100, p99 is the slowest one, and one
// hiccup of the device would condemn a good model; half of ten are no hiccup.
const (
	earlyP50 = 10
	earlyP99 = 100
)

// judge compares what the candidate has done with its budgets; over tells that the trial's time is.
func (t Trial) judge(s Stats, over bool) error {
	if s.Requests < max(t.MinRequests, 1) {
		return nil
	}
	if rate := float64(s.Errors) / float64(s.Requests); rate > t.MaxErrorRate {
		return fmt.Errorf("error budget: %d of %d requests failed, at most %g allowed", s.Errors, s.Requests, t.MaxErrorRate)
	}
	if t.P50 > 0 && s.P50 > t.P50 && (over || s.Requests >= earlyP50) {
		return fmt.Errorf("latency budget: p50 %s over %s in %d requests", s.P50.Round(time.Microsecond), t.P50, s.Requests)
	}
	if t.P99 > 0 && s.P99 > t.P99 && (over || s.Requests >= earlyP99) {
		return fmt.Errorf("latency budget: p99 %s over %s in %d requests", s.P99.Round(time.Microsecond), t.P99, s.Requests)
	}
	return nil
}

// cause tells why ctx ended.
func cause(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errByHand) {
		return &failedTrial{err: errByHand, hand: true}
	}
	return fmt.Errorf("%w: %w", ErrTransient, errShutdown)
}

// commit moves the pointer. The document decides: when saving fails, what is on disk is looked at again, and only a save that
// succeeded counts.
func (f *follower) commit(in *state.Intent) error {
	now := f.a.now().Truncate(time.Second)
	var err error
	for range 3 {
		e := f.about(KindCommitted, in.Candidate, in.Seq, in.Reason)
		e.Data = facts{Generation: in.Generation, EpochFloor: in.EpochFloor, Target: &in.Candidate, Attested: f.attested}.data()
		if in.Target != nil {
			e.From = in.Target.Digest
		}
		if in.Reason != "" {
			e.Kind = KindRolledBack // the channel went back on purpose
		}
		if c := f.state(); c.Intent == nil && c.Current != nil && c.Current.Digest == in.Candidate.Digest {
			// The save before this one reached the disk and failed after that; the event is in the outbox with it.
			if err = f.change(func(*state.Channel) error { return nil }); err == nil {
				return nil
			}
			continue
		}
		err = f.change(func(c *state.Channel) error {
			promote(c, in.Candidate, now, in.Keep)
			c.EpochFloor = max(c.EpochFloor, in.EpochFloor)
			c.Tag, c.Pinned, c.Intent, c.Waiting, c.Crashes = in.Tag, nil, nil, nil, 0
			if in.Reason != "" {
				c.LastRollback = &state.Note{At: now, From: e.From, To: in.Candidate.Digest, Seq: in.Seq, Reason: in.Reason}
			}
			return nil
		}, e)
		if err == nil {
			f.unsent = true
			return nil
		}
	}
	return err
}

// promote makes s current, and what was current previous; keep are the targets that the channel wants kept.
func promote(c *state.Channel, s state.Slot, now time.Time, keep []state.Slot) {
	if s.Committed.IsZero() {
		s.Committed = now
	}
	s.Since = now
	delete(c.Loading, s.Digest)
	old := c.Slots()
	if c.Current != nil && c.Current.Digest != s.Digest {
		c.Previous = c.Current
	}
	if c.Previous != nil && c.Previous.Digest == s.Digest {
		c.Previous = nil
	}
	c.Current = &s
	if c.Factory != nil && c.Factory.Digest == s.Digest && s.Seq > 0 { // a record has it too by now
		x := *c.Factory
		x.Seq, x.Epoch = s.Seq, max(x.Epoch, s.Epoch)
		c.Factory = &x
	}
	// What the channel names stays longest, then the newest.
	rank := func(o state.Slot) int {
		if i := slices.IndexFunc(keep, func(k state.Slot) bool { return k.Digest == o.Digest }); i >= 0 {
			return i
		}
		return len(keep)
	}
	c.Kept = nil
	for _, o := range old {
		factory := c.Factory != nil && c.Factory.Digest == o.Digest // it stays anyway
		if !factory && !o.Committed.IsZero() && o.Digest != s.Digest && (c.Previous == nil || o.Digest != c.Previous.Digest) {
			c.Kept = append(c.Kept, o)
		}
	}
	sort.SliceStable(c.Kept, func(i, j int) bool { return rank(c.Kept[i]) < rank(c.Kept[j]) })
	c.Kept = c.Kept[:min(len(c.Kept), max(maxKept, len(keep)))]
}

// giveUp ends an activation that did not come to be. What served before serves.
func (f *follower) giveUp(ctx context.Context, r *channel.Record, in *state.Intent, err error) error {
	now := f.a.now().Truncate(time.Second)
	var failed *failedTrial
	if errors.Is(context.Cause(ctx), errByHand) {
		failed = &failedTrial{err: errByHand, hand: true} // stopped before its trial began
	}
	var wait *postponed
	switch {
	case failed != nil || errors.As(err, &failed):
		return f.rolledBack(in, failed, err)
	case isOvertaken(err):
		return f.standDown(in, err)
	case errors.As(err, &wait):
		return f.postpone(r, in.Candidate, wait)
	case transient(err):
		kind, reason := KindFailed, err.Error()
		if errors.Is(err, errShutdown) || ctx.Err() != nil {
			kind, reason = KindInterrupted, errShutdown.Error()
			if errors.Is(context.Cause(ctx), errRescue) {
				reason = errRescue.Error()
			}
		}
		e := f.about(kind, in.Candidate, in.Seq, clip(reason))
		cerr := f.change(func(c *state.Channel) error { c.Intent = nil; return nil }, e)
		return errors.Join(err, cerr)
	}
	// The evidence or the bytes are not what they should be: refused, nothing was served.
	note := state.Note{At: now, Record: f.state().Record, To: in.Candidate.Digest, Seq: in.Seq, Reason: clip(err.Error())}
	last := f.state().LastRefusal
	var events []journal.Entry
	if last == nil || last.Record != note.Record || last.Reason != note.Reason {
		events = append(events, f.about(KindRefused, in.Candidate, in.Seq, note.Reason))
		f.unsent = true
	}
	cerr := f.change(func(c *state.Channel) error {
		c.Intent, c.Waiting = nil, nil
		c.LastRefusal = &note
		return nil
	}, events...)
	return errors.Join(&refusal{err}, cerr)
}

// rolledBack writes down that the candidate failed and why. The target of the intent is current: it never stopped to be.
func (f *follower) rolledBack(in *state.Intent, failed *failedTrial, err error) error {
	now := f.a.now().Truncate(time.Second)
	reason := clip(failed.Error())
	note := state.Note{At: now, From: in.Candidate.Digest, Seq: in.Seq, Reason: reason}
	e := f.about(KindRolledBack, in.Candidate, in.Seq, reason)
	e.From = in.Candidate.Digest
	e.Digest = ""
	if in.Target != nil {
		note.To, e.Digest = in.Target.Digest, in.Target.Digest
	}
	q := f.about(KindQuarantined, in.Candidate, in.Seq, reason)
	q.Data = facts{Generation: in.Generation}.data()
	f.unsent = true
	write := func() error {
		return f.change(func(c *state.Channel) error {
			fail(c, in, reason, now, failed.hand)
			c.LastRollback = &note
			return nil
		}, e, q)
	}
	cerr := write()
	if cerr != nil {
		f.owed = write
	}
	f.tidy()
	return errors.Join(err, cerr)
}

// fail ends the intent and bars its candidate under this record.
func fail(c *state.Channel, in *state.Intent, reason string, now time.Time, hand bool) {
	c.Intent, c.Waiting, c.Crashes = nil, nil, 0
	c.Tag = in.Tag
	if c.Quarantine == nil {
		c.Quarantine = map[string]state.Quarantine{}
	}
	q := state.Quarantine{Generation: in.Generation, Seq: in.Seq, Reason: reason, At: now}
	if c.Generation == q.Generation {
		q.Seq = max(q.Seq, c.Seq) // the record may have been refreshed during the trial
	}
	c.Quarantine[string(in.Candidate.Digest)] = q
	if hand {
		return
	}
	c.Rollbacks = append(c.Rollbacks, now)
	if n := len(c.Rollbacks) - 32; n > 0 {
		c.Rollbacks = c.Rollbacks[n:]
	}
}

// retire closes a model once its requests and sessions are done; gone is closed then, nil when it never served. Nobody waits
// long for that: what is not done soon goes on in the background, where Close of the agent waits for it.
func (f *follower) retire(l *loaded, gone <-chan struct{}) error {
	if l == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	if gone != nil {
		soon := time.NewTimer(drainSoon)
		defer soon.Stop()
		select {
		case <-gone:
		case <-soon.C:
			f.a.retiring.Go(func() {
				defer cancel()
				select {
				case <-gone:
				case <-ctx.Done():
				}
				if err := l.model.Close(ctx); err != nil {
					f.a.Log.Warn("close a model that was replaced", "channel", f.cfg.Name, "error", err)
				}
			})
			return nil
		}
	}
	defer cancel()
	return l.model.Close(ctx)
}

// tidy removes what is no longer needed and restores the reserve.
func (f *follower) tidy() {
	f.a.disk.Lock()
	defer f.a.disk.Unlock()
	if f.a.Store.Unsure() {
		return // the document on disk may still be the one before
	}
	if freed, err := f.a.sweep(); err != nil {
		f.a.Log.Warn("sweep", "error", err)
	} else if freed > 0 {
		f.a.Log.Info("swept", "bytes", freed)
	}
	if err := f.a.Store.Ballast().Ensure(); err != nil {
		f.a.Log.Warn("no space could be reserved", "error", err)
	}
}

// clip keeps reasons readable, journal lines small, and secrets out of both.
func clip(s string) string {
	s = (*redact.Redactor)(nil).Text(s)
	const most = 1000
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// IsRolledBack tells whether err says that an activation was undone, after it was loaded or on trial.
func IsRolledBack(err error) bool {
	var f *failedTrial
	return errors.As(err, &f)
}
