package agent

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
)

// Whatever the clock does, over restarts: the floor never falls, it is never later than what somebody signed, a model that served
// goes on serving, and with a right clock the device ends on the newest record.
func TestClockProperties(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w, m := newWorld(t), newDeviceFS(t)
		clock := w.Now
		boot := func() *device {
			d, err := w.boot(m, w.reg)
			if err != nil {
				t.Fatal(err)
			}
			d.clock.mu.Lock()
			d.clock.now = clock
			d.clock.mu.Unlock()
			return d
		}
		d := boot()
		issued, signed, floor := w.Now, w.Doc.Issued, time.Time{}
		installed := false
		for step := range 25 {
			switch rng.IntN(4) {
			case 0: // the clock is set to anything
				clock = []time.Time{time.Unix(rng.Int64N(1000), 0), w.Now.Add(time.Duration(rng.IntN(2000)-1000) * time.Hour), w.Now.AddDate(70, 0, 0), issued}[rng.IntN(4)].UTC()
				d.clock.mu.Lock()
				d.clock.now = clock
				d.clock.mu.Unlock()
			case 1:
				d = boot()
			case 2:
				issued = issued.Add(time.Duration(rng.IntN(100)) * time.Minute)
				c := w.change(w.model(fmt.Sprintf("%d.%d good", seed, step)))
				c.Issued, c.Expires = issued, issued.Add(7*24*time.Hour)
				w.publish(c)
				signed = later(signed, issued)
			case 3:
				_ = d.pollOnce()
			}
			now := d.Store.Doc().TimeFloor
			if now.Before(floor) || now.After(signed) {
				t.Fatalf("seed %d step %d: floor %s, before %s, signed %s", seed, step, now, floor, signed)
			}
			floor = now
			if installed && d.server.current() == "" {
				t.Fatalf("seed %d step %d: nothing serves with the clock at %s", seed, step, clock)
			}
			installed = d.server.current() != ""
		}
		if w.head == nil {
			continue
		}
		clock = issued
		d = boot()
		d.clock.advance(time.Hour)
		if err := d.pollOnce(); err != nil || d.server.current() != w.head.Record.Target.Digest {
			t.Errorf("seed %d: with a right clock: %v", seed, err)
		}
	}
}

// A clock that stands at 1970 after each start: the first record is taken on the word of the trust document's time, and expiry
// follows the signed times.
func TestNoClock(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	d.clock.now = time.Unix(42, 0)
	if s := d.Status(); s.Clock != ClockNone || s.ClockOK && !s.ClockFloor.IsZero() {
		t.Errorf("status %q %v", s.Clock, s.ClockOK)
	}
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest {
		t.Fatalf("first install at 1970: %v", err)
	}
	if f := d.Store.Doc().TimeFloor; !f.Equal(w.Now) {
		t.Errorf("floor %s", f)
	}
	d.clock.now = w.Now.Add(-time.Hour)
	if s := d.Status(); s.Clock != ClockBehind || s.ClockOK {
		t.Errorf("status %q", s.Clock)
	}
	d.clock.now = w.Now
	if s := d.Status(); s.Clock != ClockOK || !s.ClockOK {
		t.Errorf("status %q", s.Clock)
	}
	// The next record is issued after this one has expired: a later signed time alone ends it.
	old := w.change(w.model("2.0 good"))
	w.publish(old)
	raw := *w.Doc
	next := raw
	next.Version, next.Issued = 2, w.Now.Add(30*24*time.Hour)
	_ = d.Store.Update(func(doc *state.Doc) error { d.attest(doc, next.Issued); return nil })
	d.clock.now = time.Unix(42, 0)
	if err := d.pollOnce(); !IsRefused(err) || d.server.current() != v1.Digest {
		t.Errorf("an expired record under a clock at 1970: %v", err)
	}
}

// A clock far in the future refuses what is new and harms nothing for good; once it is right, all goes on.
func TestClockThatRanAhead(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m, func(c *Config) { c.MaxRollbacks = 1 })
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	d.clock.now = w.Now.AddDate(80, 0, 0)
	w.publish(w.change(w.model("2.0 good")))
	if err := d.pollOnce(); !IsRefused(err) || d.server.current() != v1.Digest {
		t.Fatalf("an expired record: %v", err)
	}
	if s := d.Status().Channels[0]; !s.Stale {
		t.Error("not stale")
	}
	// A rollback is noted at a time that never comes; with the clock right it must not hold the device.
	ahead := d.now()
	if err := d.Store.Update(func(doc *state.Doc) error {
		c := doc.Channel("prod")
		c.Rollbacks = append(c.Rollbacks, ahead)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	d.clock.now = w.Now.Add(time.Hour)
	again := w.mustBoot(m, func(c *Config) { c.MaxRollbacks = 1 })
	v3 := w.model("3.0 good")
	w.publish(w.change(v3))
	if err := again.pollOnce(); err != nil || again.server.current() != v3.Digest {
		t.Errorf("with the clock right again: %v", err)
	}
	if f := again.Store.Doc().TimeFloor; f.After(w.Now.Add(time.Hour)) {
		t.Errorf("the clock's word became the floor: %s", f)
	}
}

// A signer whose clock is far ahead cannot carry the floor past what the roots have signed.
func TestSignerFarAhead(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	c := w.change(w.model("1.0 good"))
	c.Issued = w.Doc.Expires.AddDate(50, 0, 0)
	c.Expires = c.Issued.Add(time.Hour)
	w.publish(c)
	_ = d.pollOnce()
	if f := d.Store.Doc().TimeFloor; f.After(w.Doc.Expires) {
		t.Errorf("floor %s", f)
	}
	c = w.change(w.model("2.0 good"))
	w.publish(c)
	if err := d.pollOnce(); err != nil || d.channel().Current == nil {
		t.Errorf("the record after it: %v", err)
	}
}
