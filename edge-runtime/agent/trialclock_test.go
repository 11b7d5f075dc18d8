package agent

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/channel"
)

// jumps are what somebody may set the clock to while a trial is on, from the time that it should show.
var jumps = map[string]func(now time.Time) time.Time{
	"stays":         func(now time.Time) time.Time { return now },
	"80 years on":   func(now time.Time) time.Time { return now.AddDate(80, 0, 0) },
	"50 years back": func(now time.Time) time.Time { return now.AddDate(-50, 0, 0) },
	"an hour on":    func(now time.Time) time.Time { return now.Add(time.Hour) },
	"an hour back":  func(now time.Time) time.Time { return now.Add(-time.Hour) },
}

func (c *fakeClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// trialOf boots a device that runs 1.0 and takes text next, with a trial of five minutes. at is called in each sleep of the trial,
// counted from 1.
func trialOf(t *testing.T, text string, at func(d *device, w *world, n int)) (w *world, d *device, v1, v2 channel.Target) {
	t.Helper()
	w = newWorld(t)
	d = w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Trial.Duration = 5 * time.Minute })
	v1, v2 = w.model("1.0 good"), w.model(text)
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	n := 0
	d.clock.onSleep = func() {
		n++
		at(d, w, n)
	}
	return w, d, v1, v2
}

// The clock is set in the middle of a trial: it lasts as long as it should, a model that begins to fail late in it is caught, and
// one that does not is committed.
func TestClockJumpsInATrial(t *testing.T) {
	for name, jump := range jumps {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", fails late ", fails), func(t *testing.T) {
				_, d, v1, v2 := trialOf(t, "2.0 good", func(d *device, _ *world, n int) {
					switch n {
					case 5:
						d.clock.set(jump(d.clock.Now()))
						if left := d.Status().Channels[0].TrialEnds.Sub(d.clock.Now()); left <= 4*time.Minute || left > 5*time.Minute {
							t.Errorf("status says that %s of the trial are left", left)
						}
					case 40:
						if fails {
							d.server.mu.Lock()
							d.server.live.text = "2.0 failing"
							d.server.mu.Unlock()
						}
					}
				})
				before := d.clock.Up()
				err := d.pollOnce()
				took := d.clock.Up() - before
				if fails {
					if !IsRolledBack(err) || d.server.current() != v1.Digest || took >= 5*time.Minute {
						t.Errorf("after %s: %v, %s serves", took, err, d.server.current().Short())
					}
					return
				}
				if err != nil || d.server.current() != v2.Digest || took < 5*time.Minute || took > 5*time.Minute+10*time.Second {
					t.Errorf("after %s: %v, %s serves", took, err, d.server.current().Short())
				}
			})
		}
	}
}

// wallClock measures durations with the clock on the wall.
type wallClock struct{ *fakeClock }

func (c wallClock) Up() time.Duration {
	return c.Now().Sub(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
}

// A trial that is measured with the clock on the wall lets a model pass that fails later, or does not end.
func TestTrialOnTheWallClock(t *testing.T) {
	_, d, v1, _ := trialOf(t, "2.0 good", func(d *device, _ *world, n int) {
		if n == 5 {
			d.clock.set(d.clock.Now().AddDate(80, 0, 0))
		}
		if n == 40 {
			d.server.mu.Lock()
			d.server.live.text = "2.0 failing"
			d.server.mu.Unlock()
		}
	})
	d.Agent.Clock = wallClock{d.clock}
	if err := d.pollOnce(); err != nil || d.server.current() == v1.Digest {
		t.Errorf("the model that fails late did not pass: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sleeps := 0
	_, d, _, _ = trialOf(t, "2.0 good", func(d *device, _ *world, n int) {
		if sleeps = n; n == 5 {
			d.clock.set(d.clock.Now().AddDate(-50, 0, 0))
		}
		if n == 10_000 {
			cancel()
		}
	})
	d.Agent.Clock = wallClock{d.clock}
	if err := d.followers[0].look(ctx, true); err == nil || sleeps < 10_000 {
		t.Errorf("the trial ended after %d looks: %v", sleeps, err)
	}
}

// Whatever the clock says meanwhile, a freeze ends a trial within an interval.
func TestFreezeInATrialAfterAJump(t *testing.T) {
	for name, jump := range jumps {
		var at time.Duration
		_, d, v1, _ := trialOf(t, "2.0 good", func(d *device, w *world, n int) {
			switch n {
			case 5:
				d.clock.set(jump(d.clock.Now()))
			case 6:
				w.freeze("looking into it")
				at = d.clock.Up()
			}
		})
		err := d.pollOnce()
		took := d.clock.Up() - at
		frozen := d.server.current() == v1.Digest && took <= time.Minute+10*time.Second
		// Eighty years on the trust document itself has expired by that clock: nothing new is believed, and the trial goes on.
		if want := name != "80 years on"; frozen != want {
			t.Errorf("%s: %v after %s, %s serves", name, err, took, d.server.current().Short())
		}
	}
}

// A record that is expired by a clock that jumped ends neither the trial under way nor what runs, over restarts as well; when the
// clock is right again all goes on.
func TestExpiredByAJump(t *testing.T) {
	m := newDeviceFS(t)
	w := newWorld(t)
	d := w.mustBoot(m)
	v1, v2, v3 := w.model("1.0 good"), w.model("2.0 good"), w.model("3.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	ahead := w.Now.AddDate(80, 0, 0)
	d.clock.onSleep = func() {
		d.clock.onSleep = nil
		d.clock.set(ahead)
		w.refresh() // fetched in the trial, and expired by this clock
	}
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Fatalf("the trial: %v", err)
	}
	right := w.Now.Add(time.Hour)
	w.Now = ahead
	for range 3 {
		d = w.mustBoot(m)
		_ = d.pollOnce()
		if d.server.current() != v2.Digest || len(d.channel().Quarantine) > 0 {
			t.Fatalf("a restart with the clock ahead: %s serves, %+v", d.server.current().Short(), d.channel().Quarantine)
		}
	}
	w.Now = right
	w.publish(w.change(v3))
	d = w.mustBoot(m)
	if err := d.pollOnce(); err != nil || d.server.current() != v3.Digest {
		t.Errorf("with the clock right again: %v", err)
	}
}

// realClock is the machine's, with a wall that can be set.
type realClock struct {
	*fakeClock
	born time.Time
}

func (c realClock) Up() time.Duration { return time.Since(c.born) }

func (c realClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	on := c.onSleep
	c.mu.Unlock()
	if on != nil {
		on()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The same in real time: a trial of a second lasts a second while the clock on the wall is set again and again.
func TestClockJumpsInARealTrial(t *testing.T) {
	w := newWorld(t)
	d := w.mustBoot(newDeviceFS(t))
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	d.Agent.Clock = realClock{d.clock, time.Now()}
	d.followers[0].cfg.Trial.Duration = time.Second
	n := 0
	d.clock.onSleep = func() {
		n++
		d.clock.set(w.Now.AddDate([]int{0, 80, -50}[n%3], 0, 0))
	}
	w.publish(w.change(v2))
	start := time.Now()
	err := d.pollOnce()
	if took := time.Since(start); err != nil || d.server.current() != v2.Digest || took < time.Second || n < 3 {
		t.Errorf("%v after %s and %d jumps: %s serves", err, took, n, d.server.current().Short())
	}
}
