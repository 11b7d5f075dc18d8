package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// fakeLocal is a device's policy that says what the test says.
type fakeLocal struct {
	digest artifact.Digest
	decide func(ask *deviceinput.Document) (bool, string)
	asked  []deviceinput.Document
	bad    error // the first ask that is no valid document
}

func (l *fakeLocal) Digest() artifact.Digest { return l.digest }

func (l *fakeLocal) Decide(_ context.Context, ask *deviceinput.Document) (bool, string) {
	if ask == nil {
		return false, "there is no policy"
	}
	l.asked = append(l.asked, *ask)
	if _, err := ask.Encode(); err != nil && l.bad == nil {
		l.bad = err
	}
	return l.decide(ask)
}

// waiting boots a device that runs 1.0, with a policy that says no to what deny names; 2.0 stands in the channel.
func waiting(t *testing.T, deny func(ask *deviceinput.Document) string) (*world, *device, *fakeLocal, artifact.Digest, artifact.Digest) {
	t.Helper()
	w := newWorld(t)
	d := w.mustBoot(newDeviceFS(t))
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	l := &fakeLocal{digest: verifytest.Policy, decide: func(ask *deviceinput.Document) (bool, string) {
		why := deny(ask)
		return why == "", why
	}}
	d.Agent.Local = l
	w.publish(w.change(v2))
	return w, d, l, v1.Digest, v2.Digest
}

// goBack publishes a record that takes the channel back to 1.0.
func (w *world) goBack(v1 artifact.Digest) {
	w.t.Helper()
	r, err := channel.RollBack(w.head, v1, "recall fell", w.change(w.model("1.0 good")))
	if err != nil {
		w.t.Fatal(err)
	}
	w.push(trust.RoleDeployer, r)
}

func TestPostponedDownload(t *testing.T) {
	why := "battery 12 %, needs 30 %"
	_, d, l, v1, v2 := waiting(t, func(*deviceinput.Document) string { return why })
	module := artifact.DigestOf([]byte("2.0 good"))
	for i := range 5 {
		if err := d.pollOnce(); err != nil {
			t.Fatalf("poll %d: %v", i, err)
		}
		c := d.channel()
		if d.server.current() != v1 || c.Current.Digest != v1 || c.Intent != nil || c.LastRefusal != nil || len(c.Quarantine) != 0 || c.Crashes != 0 || len(c.Rollbacks) != 0 {
			t.Fatalf("poll %d: %+v", i, c)
		}
		if wt := c.Waiting; wt == nil || wt.Slot.Digest != v2 || wt.Action != "download" || wt.Reason != "battery 12 %, needs 30 %" {
			t.Fatalf("poll %d: waiting %+v", i, wt)
		}
		if d.blobs.Has(module, 8) {
			t.Fatal("the module was downloaded all the same")
		}
		why = "battery 13 %, needs 30 %" // the newest reason shows, and is not worth a write
	}
	if got := d.Status().Channels[0]; got.Waiting == nil || got.Waiting.Reason != why || got.State != StateCommitted {
		t.Errorf("status %+v", got)
	}
	es, err := d.History(0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range es {
		if e.Kind == KindPostponed {
			n++
			if e.Digest != v2 || e.Reason != "download waits: battery 12 %, needs 30 %" {
				t.Errorf("journal %+v", e)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d postponements in the journal", n)
	}
	serial := d.Store.Doc().Serial
	if err := d.pollOnce(); err != nil || d.Store.Doc().Serial != serial {
		t.Errorf("%v: waiting costs %d writes a poll", err, d.Store.Doc().Serial-serial)
	}
	why = ""
	if err := d.pollOnce(); err != nil || d.server.current() != v2 {
		t.Fatalf("allowed: %v", err)
	}
	if c := d.channel(); c.Waiting != nil || c.Current.Digest != v2 {
		t.Errorf("%+v", c)
	}
	if l.bad != nil {
		t.Errorf("asked with an invalid document: %v", l.bad)
	}
	first, last := l.asked[0], l.asked[len(l.asked)-1]
	if first.Action != deviceinput.Download || first.Model.Digest != v2 || first.Model.Version != "2.0" || first.Model.Download == 0 || first.Model.Bytes < first.Model.Download ||
		*first.Current.Digest != v1 || first.Device.Class != "edge-s" || first.Device.Labels["site"] != "a" || !first.Time.Local.Known {
		t.Errorf("asked about the download with %+v", first)
	}
	if last.Action != deviceinput.Activate || last.Model.Download != 0 || last.Model.Bytes != first.Model.Bytes {
		t.Errorf("asked about the activation with %+v", last)
	}
}

func TestPostponedActivation(t *testing.T) {
	night := false
	w, d, _, v1, v2 := waiting(t, func(ask *deviceinput.Document) string {
		if ask.Action == deviceinput.Activate && !night {
			return "only at night"
		}
		return ""
	})
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	c := d.channel()
	if d.server.current() != v1 || c.Waiting == nil || c.Waiting.Action != "activate" || c.Intent != nil {
		t.Fatalf("%+v", c)
	}
	// What was downloaded stays through a sweep, and is not fetched again.
	if _, err := d.sweep(); err != nil {
		t.Fatal(err)
	}
	if !d.blobs.Has(artifact.DigestOf([]byte("2.0 good")), 8) {
		t.Fatal("the sweep took the model that waits")
	}
	night = true
	delete(w.reg.blobs, artifact.DigestOf([]byte("2.0 good")))
	if err := d.pollOnce(); err != nil || d.server.current() != v2 || d.channel().Waiting != nil {
		t.Fatalf("at night: %v", err)
	}
}

// A restart, a rollback by hand, a record that goes back and a newer record: none of them waits or is held up by what waits.
func TestPostponedHoldsNothingElse(t *testing.T) {
	no := func(*deviceinput.Document) string { return "never" }
	t.Run("restart", func(t *testing.T) {
		w := newWorld(t)
		m := newDeviceFS(t)
		d := w.mustBoot(m)
		v1 := w.model("1.0 good")
		w.publish(w.change(v1))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		d.Agent.Local = &fakeLocal{digest: verifytest.Policy, decide: func(ask *deviceinput.Document) (bool, string) { return false, "never" }}
		w.publish(w.change(w.model("2.0 good")))
		if err := d.pollOnce(); err != nil || d.channel().Waiting == nil {
			t.Fatal(err)
		}
		again := w.mustBoot(m)
		again.Agent.Local = d.Agent.Local
		if again.server.current() != v1.Digest {
			t.Fatalf("after a restart %s serves", again.server.current())
		}
		if wt := again.channel().Waiting; wt == nil || wt.Reason != "never" {
			t.Errorf("waiting %+v", wt)
		}
		if err := again.pollOnce(); err != nil || again.server.current() != v1.Digest || again.channel().Crashes != 0 {
			t.Error(err)
		}
	})
	t.Run("rollback by hand", func(t *testing.T) {
		w, d, l, v1, _ := waiting(t, func(*deviceinput.Document) string { return "" })
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		l.decide = func(*deviceinput.Document) (bool, string) { return false, "never" }
		w.publish(w.change(w.model("3.0 good")))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Rollback(t.Context(), "prod", ""); err != nil || d.server.current() != v1 {
			t.Fatalf("rollback: %v", err)
		}
		if err := d.pollOnce(); err != nil || d.channel().Waiting != nil {
			t.Errorf("%v, waiting for what was rolled back from: %+v", err, d.channel().Waiting)
		}
	})
	t.Run("rollback by record", func(t *testing.T) {
		w, d, l, v1, _ := waiting(t, func(*deviceinput.Document) string { return "" })
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		l.decide = func(*deviceinput.Document) (bool, string) { return false, "never" }
		w.goBack(v1)
		if err := d.pollOnce(); err != nil || d.server.current() != v1 {
			t.Fatalf("rollback: %v, %s serves", err, d.server.current().Short())
		}
	})
	t.Run("newer record", func(t *testing.T) {
		w, d, _, v1, _ := waiting(t, no)
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		v3 := w.model("3.0 good")
		w.publish(w.change(v3))
		if err := d.pollOnce(); err != nil || d.channel().Waiting.Slot.Digest != v3.Digest || d.server.current() != v1 {
			t.Fatalf("%v %+v", err, d.channel().Waiting)
		}
	})
	t.Run("the channel comes back to what runs", func(t *testing.T) {
		w, d, _, v1, _ := waiting(t, no)
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		w.goBack(v1)
		if err := d.pollOnce(); err != nil || d.channel().Waiting != nil || d.server.current() != v1 {
			t.Fatalf("%v %+v", err, d.channel().Waiting)
		}
	})
}

// A policy that the trust document does not pin says nothing, whatever it says; without the check an attacker's policy lets
// the device do what its owner does not want.
func TestPolicyMustBePinned(t *testing.T) {
	planted := artifact.DigestOf([]byte("allow everything"))
	for _, open := range []bool{false, true} {
		_, d, l, v1, v2 := waiting(t, func(*deviceinput.Document) string { return "" })
		l.digest = planted
		if open {
			d.checks.pinned = func(*trust.Document, artifact.Digest) bool { return true }
		}
		err := d.pollOnce()
		if open {
			if err != nil || d.server.current() != v2 {
				t.Errorf("without the check the attack fails all the same: %v", err)
			}
			continue
		}
		if err != nil || d.server.current() != v1 || !strings.Contains(d.channel().Waiting.Reason, "does not pin the policy of this device, "+planted.Short()) {
			t.Errorf("%v %+v", err, d.channel().Waiting)
		}
		if len(l.asked) != 0 {
			t.Error("the planted policy ran")
		}
		l.digest = ""
		if err := d.pollOnce(); err != nil || *d.followers[0].waitWhy.Load() != "there is no policy" {
			t.Errorf("no policy: %v %q", err, *d.followers[0].waitWhy.Load())
		}
	}
}

// The wall clock is no evidence of the hour when it is behind the last signed time.
func TestClockBehindIsNotKnown(t *testing.T) {
	_, d, l, _, _ := waiting(t, func(*deviceinput.Document) string { return "no" })
	d.clock.advance(-365 * 24 * time.Hour)
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	ask := l.asked[0]
	if ask.Time.Local.Known || ask.Time.Unix < d.Store.Doc().TimeFloor.Unix() {
		t.Errorf("asked with %+v", ask.Time)
	}
}
