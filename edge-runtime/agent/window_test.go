package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/schedule"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
)

// windowed boots a device that runs 1.0, with windows that are closed at the world's time (a Sunday, 12:00); 2.0 stands in the
// channel.
func windowed(t *testing.T, edit ...func(*Channel)) (w *world, d *device, v1, v2 artifact.Digest) {
	t.Helper()
	windows, err := schedule.ParseWindows([]string{"Mon-Fri 02:00-05:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	w = newWorld(t)
	d = w.mustBoot(newDeviceFS(t))
	a, b := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(a))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	c := &d.followers[0].cfg
	c.Windows = windows
	for _, e := range edit {
		e(c)
	}
	w.publish(w.change(b))
	return w, d, a.Digest, b.Digest
}

func TestWindow(t *testing.T) {
	w, d, v1, v2 := windowed(t)
	for range 3 {
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	c := d.channel()
	if d.server.current() != v1 || c.Waiting == nil || c.Waiting.Action != "download" || !strings.Contains(c.Waiting.Reason, "2026-11-02T02:00:00Z") || c.Intent != nil {
		t.Fatalf("outside the window: %+v", c.Waiting)
	}
	if d.blobs.Has(v2, 0) || d.blobs.Missing(artifact.DigestOf([]byte("2.0 good")), 8) != 8 {
		t.Error("something of the model was downloaded")
	}
	if c.Seq != 2 {
		t.Error("the record itself is not accepted: what it says beside its target would be missed")
	}
	serial, opens := d.Store.Doc().Serial, w.reg.opens
	if err := d.pollOnce(); err != nil || d.Store.Doc().Serial != serial || w.reg.opens != opens {
		t.Errorf("%v: waiting costs %d writes and %d fetches a poll", err, d.Store.Doc().Serial-serial, w.reg.opens-opens)
	}
	f := d.followers[0]
	if f.opens.in != 14*time.Hour-time.Minute || f.opens.lasts != 3*time.Hour {
		t.Errorf("the schedule knows of a window in %s, for %s", f.opens.in, f.opens.lasts)
	}
	d.clock.advance(14 * time.Hour)
	if err := d.pollOnce(); err != nil || d.server.current() != v2 || d.channel().Waiting != nil {
		t.Fatalf("in the window: %v", err)
	}
}

// Files may come before, by their own switch.
func TestWindowDownload(t *testing.T) {
	_, d, v1, v2 := windowed(t, func(c *Channel) { c.Downloads = true })
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	if c := d.channel(); d.server.current() != v1 || c.Waiting == nil || c.Waiting.Action != "activate" || d.blobs.Missing(artifact.DigestOf([]byte("2.0 good")), 8) != 0 {
		t.Fatalf("%+v", c.Waiting)
	}
	d.clock.advance(14 * time.Hour)
	if err := d.pollOnce(); err != nil || d.server.current() != v2 {
		t.Fatal(err)
	}
}

// A person on site does not wait; one who only asks does.
func TestWindowByHand(t *testing.T) {
	_, d, v1, v2 := windowed(t)
	if err := d.followers[0].pollAs(t.Context(), asked); err != nil || d.server.current() != v1 {
		t.Fatal(err)
	}
	if err := d.followers[0].pollAs(t.Context(), urgent); err != nil || d.server.current() != v2 {
		t.Fatal(err)
	}
}

// Going back waits for no window: by record, by hand, by itself, and away from what is denied.
func TestWindowNeverDelaysGoingBack(t *testing.T) {
	t.Run("by record", func(t *testing.T) {
		w, d, v1, v2 := windowed(t)
		if err := d.followers[0].pollAs(t.Context(), urgent); err != nil || d.server.current() != v2 {
			t.Fatal(err)
		}
		w.goBack(v1)
		if err := d.pollOnce(); err != nil || d.server.current() != v1 {
			t.Fatalf("%v", err)
		}
	})
	t.Run("by record, to what was never here", func(t *testing.T) {
		w, d, v1, _ := windowed(t)
		v3 := w.model("3.0 good") // the device misses 2.0
		w.publish(w.change(v3))
		r, err := channel.RollBack(w.head, w.head.Record.Keep[0].Digest, "recall fell", w.change(w.model("2.0 good")))
		if err != nil {
			t.Fatal(err)
		}
		w.push(trust.RoleDeployer, r)
		if err := d.pollOnce(); err != nil || d.server.current() == v1 {
			t.Fatalf("%v", err)
		}
	})
	t.Run("by hand", func(t *testing.T) {
		_, d, v1, v2 := windowed(t)
		if err := d.followers[0].pollAs(t.Context(), urgent); err != nil || d.server.current() != v2 {
			t.Fatal(err)
		}
		if _, err := d.Rollback(t.Context(), "prod", ""); err != nil || d.server.current() != v1 {
			t.Fatal(err)
		}
	})
	t.Run("by itself", func(t *testing.T) {
		w, d, v1, _ := windowed(t)
		w.publish(w.change(w.model("3.0 failing")))
		d.clock.advance(14*time.Hour + 178*time.Minute + 30*time.Second) // its trial ends after the window
		if err := d.pollOnce(); !IsRolledBack(err) || d.server.current() != v1 {
			t.Fatalf("%v", err)
		}
	})
}

// A clock that is known to be wrong opens no window, unless the device was told to go on without one.
func TestWindowWithoutClock(t *testing.T) {
	for _, clockless := range []bool{false, true} {
		_, d, v1, v2 := windowed(t, func(c *Channel) { c.Clockless = clockless })
		d.clock.mu.Lock()
		d.clock.now = time.Date(1970, 1, 2, 3, 0, 0, 0, time.UTC) // a Friday, 03:00
		d.clock.mu.Unlock()
		err := d.pollOnce()
		want := v1
		if clockless {
			want = v2
		}
		if err != nil || d.server.current() != want {
			t.Errorf("clockless %v: %v, it serves %s", clockless, err, d.server.current())
		}
		if w := d.channel().Waiting; !clockless && (w == nil || !strings.Contains(w.Reason, "clock")) {
			t.Errorf("waiting %+v", w)
		}
	}
}

// The windows are closed for a week and what runs is denied: the device leaves it for what the channel names, with the next poll, also
// over a slow line. Its own policy is asked all the same: what it forbids could harm the device. While the channel still names
// what is denied, that goes on, since a device that serves nothing is no safer.
func TestWindowWhenDenied(t *testing.T) {
	t.Run("replaced at once", func(t *testing.T) {
		w, d, v1, v2 := windowed(t)
		if err := d.pollOnce(); err != nil || d.server.current() != v1 {
			t.Fatalf("the window is not closed: %v", err)
		}
		w.deny(t, v1)
		w.publish(w.change(w.model("2.0 good")))
		if err := d.pollOnce(); err != nil || d.server.current() != v2 {
			t.Errorf("%v, %s serves", err, d.server.current().Short())
		}
	})
	t.Run("the device was told nothing of it", func(t *testing.T) { // the same without the denial
		w, d, v1, _ := windowed(t)
		w.publish(w.change(w.model("2.0 good")))
		if err := d.pollOnce(); err != nil || d.server.current() != v1 {
			t.Errorf("%v, %s serves: the test proves nothing", err, d.server.current().Short())
		}
	})
	t.Run("its own policy holds", func(t *testing.T) {
		w, d, v1, v2 := windowed(t)
		w.deny(t, v1)
		w.publish(w.change(w.model("2.0 good")))
		d.Agent.Local = waitsFor(deviceinput.Activate)
		if err := d.pollOnce(); err != nil || d.server.current() != v1 || d.channel().Waiting == nil {
			t.Errorf("%v, %s serves", err, d.server.current().Short())
		}
		d.Agent.Local = waitsFor("")
		if err := d.pollOnce(); err != nil || d.server.current() != v2 {
			t.Errorf("%v, %s serves", err, d.server.current().Short())
		}
	})
	t.Run("the channel still names it", func(t *testing.T) {
		w, m := newWorld(t), newDeviceFS(t)
		d := w.mustBoot(m)
		v1 := w.model("1.0 good")
		w.publish(w.change(v1))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		w.deny(t, v1.Digest)
		w.refresh()
		if err := d.pollOnce(); !IsRefused(err) || d.server.current() != v1.Digest {
			t.Errorf("%v, %s serves", err, d.server.current().Short())
		}
		if again := w.mustBoot(m); again.server.current() != v1.Digest {
			t.Error("a restart serves nothing")
		}
	})
}

// A device that lost what it served takes the channel's target in a closed window: nothing that runs is disturbed. A new device waits.
func TestWindowWhenNothingServes(t *testing.T) {
	w, m, v1 := alone(t)
	dieTimes(t, w, m, 3, v1)
	v2 := w.model("2.0 good")
	w.publish(w.change(v2))
	windows, err := schedule.ParseWindows([]string{"Mon-Fri 02:00-05:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	closed := func(c *Config) { c.Channels[0].Windows = windows }
	w.runtime = newKillers(v1)
	d, _ := w.boot(m, w.reg, closed)
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Errorf("%v, %q serves", err, d.server.current())
	}
	fresh := w.mustBoot(newDeviceFS(t), closed)
	if err := fresh.pollOnce(); err != nil || fresh.server.current() != "" || fresh.channel().Waiting == nil {
		t.Errorf("a new device: %v, %q serves", err, fresh.server.current())
	}
}
