package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// A committed artifact can end the process while it is loaded: after an update of this program, of the system, of the machine's
// memory. The first start that does not come to an end is only counted; from the next one on each load is written down before
// it begins, so that a digest that keeps ending the process is passed over.

// Start finishes or undoes what a restart interrupted and serves the committed artifact of each channel. An error means that a
// channel has a committed artifact and nothing on the device could be served for it; the agent may run all the same.
func (a *Agent) Start(ctx context.Context) error {
	a.began = time.Now()
	a.beginStart()
	a.leave()
	var errs []error
	for _, f := range a.followers {
		f.mu.Lock()
		errs = append(errs, f.recover(ctx))
		f.takeUp()
		f.mu.Unlock()
	}
	if a.careful.Load() {
		a.endStart() // many short lives in a row are no failing start
	}
	a.lastResorts(ctx, errs)
	a.reserve()
	return errors.Join(errs...)
}

// beginStart counts this start until endStart.
func (a *Agent) beginStart() {
	doc := a.Store.Doc()
	something := doc.Starts > 0
	for _, c := range doc.Channels {
		something = something || c.Current != nil || c.Intent != nil
	}
	if !something {
		return // nothing will be loaded
	}
	a.careful.Store(doc.Starts > 0)
	if err := a.update(func(d *state.Doc) error { d.Starts++; return nil }); err != nil {
		a.Log.Error("a start that fails could not be told from others", "error", err) // the disk is full: serve all the same
	}
}

// endStart says that the start came to its end: everything that serves was loaded. It is written down with the first thing that
// happens after it, not before the first request.
func (a *Agent) endStart() {
	if a.Store.Unsure() || a.Store.Doc().Starts == 0 {
		return
	}
	a.careful.Store(false)
	err := a.update(func(d *state.Doc) error {
		d.Starts = 0
		for _, c := range d.Channels {
			a.settle(c)
			for dig, n := range c.Loading {
				if _, here := c.Committed(dig); n < a.deadly() || !here {
					delete(c.Loading, dig)
				}
			}
		}
		return nil
	})
	if err != nil {
		a.Log.Error("the end of the start can't be written down", "error", err)
	}
}

// reserve gives the ballast its space back once there is some.
func (a *Agent) reserve() {
	a.disk.Lock()
	defer a.disk.Unlock()
	if err := a.Store.Ballast().Ensure(); err != nil {
		a.Log.Warn("no space could be reserved", "error", err)
	}
}

// settle forgets what counted against artifacts whose load has come to an end since, one way or the other.
func (a *Agent) settle(c *state.Channel) {
	for dig := range c.Loading {
		if _, ok := a.ended.Load(dig); ok {
			delete(c.Loading, dig)
		}
	}
}

// deadly is how many loads that were written down and never ended it takes to pass an artifact over: the start before them was
// not counted.
func (a *Agent) deadly() int { return max(a.cfg.MaxCrashes-1, 1) }

// loadCounted is loadCommitted that, after a start that did not come to its end, counts how often the process
// ends in it.
func (f *follower) loadCounted(ctx context.Context, s state.Slot) (*loaded, error) {
	n := f.state().Loading[s.Digest]
	if n >= f.a.deadly() {
		return nil, &heldError{n + 1}
	}
	if n == 0 && !f.a.careful.Load() {
		return f.loadCommitted(ctx, s)
	}
	if err := f.begun(s.Digest); err != nil {
		f.a.Log.Error("a load can't be written down", "channel", f.cfg.Name, "error", err)
	}
	l, err := f.loadCommitted(ctx, s)
	f.a.ended.Store(s.Digest, true)
	return l, err
}

// begun writes down that an artifact is about to be loaded; whoever finds that after a restart knows that it did not end.
func (f *follower) begun(dig artifact.Digest, events ...journal.Entry) error {
	f.a.ended.Delete(dig)
	return f.a.update(func(d *state.Doc) error {
		for _, c := range d.Channels {
			f.a.settle(c) // what another channel loaded before has not ended the process
		}
		c := d.Channel(f.cfg.Name)
		if c.Loading == nil {
			c.Loading = map[artifact.Digest]int{}
		}
		c.Loading[dig]++
		return nil
	}, events...)
}

// leave lets go of what only channels need that this device no longer follows, and of artifacts of another model than the one that
// a channel now has. The numbers that never fall stay: whoever follows such a channel again is no easier to deceive.
func (a *Agent) leave() {
	for name, c := range a.Store.Doc().Channels {
		f := a.follower(name)
		if c.Current == nil && c.Previous == nil && c.Factory == nil && len(c.Kept) == 0 && c.Intent == nil {
			continue
		}
		why := "this device no longer follows the channel"
		if f != nil {
			if c.Current == nil || c.Current.Name == f.cfg.Model {
				continue
			}
			why = fmt.Sprintf("the channel has model %q now", f.cfg.Model)
		}
		e := (&follower{cfg: Channel{Name: name}}).entry(KindLeft)
		if c.Current != nil {
			e.Digest = c.Current.Digest
		}
		e.Seq, e.Reason = c.Seq, why
		err := a.update(func(d *state.Doc) error {
			c := d.Channel(name)
			c.Current, c.Previous, c.Factory, c.Kept, c.Intent, c.Waiting, c.Loading = nil, nil, nil, nil, nil, nil, nil
			c.Tag, c.Crashes = "", 0
			return nil
		}, e)
		if err != nil {
			a.Log.Error("what a channel left behind can't be let go", "channel", name, "error", err)
		}
	}
}
