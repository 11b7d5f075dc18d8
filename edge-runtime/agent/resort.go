package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/schedule"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// The last resort. What ended the process again and again while it was loaded is passed over as long as something else can serve.
// When nothing else can, the device looks at the channel, which may have what rescues it, and loads the artifact all the same:
// power cuts look like an artifact that kills, and a verified artifact that may serve is better than none that does. Each further
// death makes the next wait longer, up to a bound. What is waited for follows from the number of deaths in the durable document and
// from the time that this process has run, so neither a reboot nor the date shortens it.

// heldError says that an artifact is passed over because the process ended while it was loaded.
type heldError struct{ deaths int }

func (e *heldError) Error() string {
	return fmt.Sprintf("the process ended %d times while it was loaded", e.deaths)
}

func isHeld(err error) bool {
	var h *heldError
	return errors.As(err, &h)
}

// errRescue ends the download of what may replace a held artifact: that one is loaded meanwhile, the download goes on afterwards.
var errRescue = errors.New("the download takes long while nothing serves")

// rescueTime is how long it may take.
const rescueTime = 5 * time.Minute

// heldBack is an artifact that could serve and is passed over.
type heldBack struct {
	slot    state.Slot
	over    int // deaths beyond the number at which it began to be passed over
	factory bool
}

// heldBack lists what is passed over, the one with the fewest deaths first, and how many deaths there were beyond the first ones.
func (f *follower) heldBack() (out []heldBack, over int) {
	c := f.state()
	if c.Current != nil {
		for _, s := range c.Slots() {
			n, held := c.Loading[s.Digest]
			if held && n >= f.a.deadly() && !s.Committed.IsZero() && f.usable(c, s) == nil {
				out = append(out, heldBack{slot: s, over: n - f.a.deadly()})
			}
		}
	}
	want := f.cfg.Factory
	if t := c.FactoryTries; t != nil && want.Digest == t.Digest && t.Crashes >= f.a.cfg.MaxCrashes &&
		!slices.ContainsFunc(out, func(h heldBack) bool { return h.slot.Digest == want.Digest }) {
		s := state.Slot{Digest: want.Digest, Name: f.cfg.Model, Epoch: want.Epoch}
		if f.usable(c, s) == nil {
			out = append(out, heldBack{slot: s, over: t.Crashes - f.a.cfg.MaxCrashes, factory: true})
		}
	}
	slices.SortStableFunc(out, func(a, b heldBack) int { return cmp.Compare(a.over, b.over) })
	for _, h := range out {
		over += h.over
	}
	return out, over
}

// deathsOf is what a Status tells of deaths; nil when nothing is passed over.
func deathsOf(c *state.Channel) map[artifact.Digest]int {
	out := map[artifact.Digest]int{}
	for d, n := range c.Loading {
		if _, here := c.Committed(d); here && c.Intent == nil {
			out[d] = n + 1 // the first one was not counted
		}
	}
	if t := c.FactoryTries; t != nil && t.Crashes > 0 {
		out[t.Digest] = t.Crashes
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// device is this channel on this device, for the schedule.
func (f *follower) device() schedule.Device {
	return schedule.Device{ID: f.a.Signer.KeyID(), Channel: f.cfg.Name, Interval: f.cfg.Interval}
}

// service is what this channel has to offer. The caller holds f.mu.
func (f *follower) service() schedule.Service {
	switch {
	case f.live != nil:
		return schedule.Serving
	case f.state().Current != nil:
		return schedule.Lost
	}
	return schedule.New
}

// again is how long it is until what is held back is loaded once more; 0: nothing is waited for. The caller holds f.mu.
func (f *follower) again() time.Duration {
	if f.live != nil {
		return 0
	}
	hs, over := f.heldBack()
	if len(hs) == 0 {
		return 0
	}
	return max(f.device().Again(over)-time.Since(f.a.began), 0)
}

// lastResort loads what is held back when nothing serves and its time has come, unless the channel has something else to offer,
// which looked says was tried. The caller holds f.mu.
func (f *follower) lastResort(ctx context.Context, looked bool) error {
	if f.live != nil {
		return nil
	}
	hs, _ := f.heldBack()
	if len(hs) == 0 {
		return nil
	}
	f.againAt.Store(nil)
	if left := f.again(); left > 0 && f.hand != urgent {
		at := f.a.Clock.Now().Add(left)
		f.againAt.Store(&at)
		return &waitsAgain{why: fmt.Sprintf("channel %s: nothing serves; %s is loaded again in %s", f.cfg.Name, hs[0].slot.Digest.Short(), left.Round(time.Second))}
	}
	if !looked && f.offersElse(ctx, hs) {
		f.a.Log.Warn("nothing serves, and the channel has something else", "channel", f.cfg.Name)
		return nil
	}
	var errs []error
	for _, h := range hs {
		if ctx.Err() != nil {
			break
		}
		if err := f.loadHeld(ctx, h); err != nil {
			errs = append(errs, err)
			continue
		}
		if f.live != nil {
			return nil
		}
	}
	return fmt.Errorf("channel %s: nothing on this device can be served: %w", f.cfg.Name, errors.Join(errs...))
}

// lastResorts is lastResort for every channel after a start; errs, by channel, are why each serves nothing, nil once it does. The
// channels are looked at side by side, so that carriers that hang cost the time of one.
func (a *Agent) lastResorts(ctx context.Context, errs []error) {
	var wg sync.WaitGroup
	found := make([]bool, len(a.followers))
	for i, f := range a.followers {
		wg.Go(func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if hs, _ := f.heldBack(); f.live == nil && len(hs) > 0 && f.again() == 0 {
				found[i] = f.offersElse(ctx, hs)
			}
		})
	}
	wg.Wait()
	for i, f := range a.followers {
		f.mu.Lock()
		if !found[i] { // else the first poll comes at once
			errs[i] = errors.Join(errs[i], f.lastResort(ctx, true))
		}
		if f.live != nil {
			errs[i] = nil
		}
		f.mu.Unlock()
	}
}

// loadHeld loads an artifact that is held back, and serves it.
func (f *follower) loadHeld(ctx context.Context, h heldBack) error {
	c, d := f.state(), h.slot.Digest
	deaths := f.a.cfg.MaxCrashes + h.over
	why := fmt.Sprintf("the process ended %d times over it and nothing else on this device can be served: it is loaded all the same", deaths)
	f.a.Log.Error("the last resort", "channel", f.cfg.Name, "digest", string(d), "deaths", deaths)
	alarm := f.about(KindAlarm, h.slot, c.Seq, why)
	if h.factory {
		if err := f.change(func(*state.Channel) error { return nil }, alarm); err != nil {
			f.a.Log.Error("the last resort can't be written down", "channel", f.cfg.Name, "error", err)
		}
		return f.takeFactory(ctx, true)
	}
	if err := f.begun(d, alarm); err != nil {
		f.a.Log.Error("a load can't be written down", "channel", f.cfg.Name, "error", err)
	}
	l, err := f.loadCommitted(ctx, h.slot)
	f.a.ended.Store(d, true)
	if err == nil {
		why := fmt.Errorf("%s %s: the process ended too often over it", c.Current.Name, c.Current.Digest.Short())
		err = f.fallBack(ctx, c, l, []error{why}, nil)
	}
	if werr := f.change(func(c *state.Channel) error {
		f.a.settle(c)
		if err != nil {
			c.Tag = "" // what the channel names is fetched and activated anew
		}
		return nil
	}); werr != nil {
		f.a.Log.Error("the end of a load can't be written down", "channel", f.cfg.Name, "error", werr)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", h.slot.Name, d.Short(), err)
	}
	return nil
}

// pollOrResort is poll; before it, and when nothing serves after it, what is held back has its turn.
func (f *follower) pollOrResort(ctx context.Context) error {
	defer func() {
		if f.live != nil {
			f.againAt.Store(nil)
		}
	}()
	first := f.lastResort(ctx, false)
	if f.live != nil {
		return f.poll(ctx)
	}
	if hs, _ := f.heldBack(); len(hs) == 0 {
		return errors.Join(f.poll(ctx), first)
	}
	rescue, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(rescueTime, func() {
		if in := f.state().Intent; in == nil || in.Step == state.Fetching {
			cancel(errRescue)
		}
	})
	defer timer.Stop()
	err := f.poll(rescue)
	if f.live != nil || ctx.Err() != nil {
		return err
	}
	last := f.lastResort(ctx, true)
	var w *waitsAgain
	if errors.As(last, &w) {
		w.poll = err
		return w
	}
	return errors.Join(err, last)
}

// waitsAgain says that nothing serves until what is held back is loaded again, beside how the poll ended.
type waitsAgain struct {
	why  string
	poll error
}

func (e *waitsAgain) Error() string {
	if e.poll != nil {
		return e.why + "; " + e.poll.Error()
	}
	return e.why
}

func (e *waitsAgain) Unwrap() error { return e.poll }

// ofPoll is how a poll ended, apart from what serves.
func ofPoll(err error) error {
	var w *waitsAgain
	if errors.As(err, &w) {
		return w.poll
	}
	return err
}

// offersElse tells whether the channel names an artifact that this device may take and that is none of those held back. It takes no
// longer than Config.LookFirst, whatever carriers do, and accepts nothing: a poll does that.
func (f *follower) offersElse(ctx context.Context, hs []heldBack) bool {
	if f.a.cfg.LookFirst < 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, f.a.cfg.LookFirst)
	defer cancel()
	f.alive()
	found := make(chan []sighting, 1)
	go func() {
		var out []sighting
		tags, err := f.places.Look(ctx, channel.Tag(f.cfg.Name), true)
		for _, t := range tags {
			if raw, rerr := f.fetchRecord(ctx, t); rerr == nil {
				out = append(out, sighting{t, raw})
			}
		}
		if err != nil {
			f.a.Log.Debug("look at the channel", "channel", f.cfg.Name, "error", err)
		}
		found <- out
	}()
	var seen []sighting
	select {
	case seen = <-found:
	case <-ctx.Done():
		return false
	}
	c := f.state()
	var best *channel.Record
	for _, s := range seen {
		r, _, err := f.verifyRecord(ctx, s.raw)
		if err != nil || f.a.checks.place(r, &f.cfg) != nil || r.Generation < c.Generation || r.Generation == c.Generation && r.Seq < c.Seq {
			continue
		}
		if best == nil || r.Generation > best.Generation || r.Generation == best.Generation && r.Seq > best.Seq {
			best = r
		}
	}
	if best == nil || slices.ContainsFunc(hs, func(h heldBack) bool { return h.slot.Digest == best.Target.Digest }) {
		return false
	}
	device := channel.Device{ID: f.a.Signer.KeyID(), Class: f.a.cfg.Class, Labels: f.a.cfg.Labels, Floor: c.EpochFloor}
	return !f.a.denied(best.Target.Digest) && c.Barred(best.Target.Digest, best.Generation, best.Seq) == "" && f.a.checks.admit(best, f.a.now(), device) == nil
}

// isHeldBack tells whether target is held back while nothing serves: activating it anew would load it before its time.
func (f *follower) isHeldBack(target artifact.Digest) bool {
	if f.live != nil {
		return false
	}
	hs, _ := f.heldBack()
	return slices.ContainsFunc(hs, func(h heldBack) bool { return h.slot.Digest == target })
}
