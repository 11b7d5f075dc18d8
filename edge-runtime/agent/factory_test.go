package agent

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// factory makes an artifact with the module text that a publisher released, outside of any channel.
func (w *world) factory(text string) Factory {
	w.t.Helper()
	src := newRegistry()
	real := w.reg
	w.reg = src
	target := w.model(text)
	w.reg = real
	return Factory{Digest: target.Digest, Releases: []artifact.Digest{src.put(w.Release("churn", target.Digest))}, Source: src}
}

func withFactory(f Factory) func(*Config) {
	return func(c *Config) { c.Channels[0].Factory = f }
}

// A device serves its factory artifact before it has seen any network, a record takes over, and a rollback by hand may go back
// to it. It is never swept and takes no place among what is kept.
func TestFactoryServesFirst(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	fac := w.factory("0.1 good")
	w.reg.down = true
	d := w.mustBoot(m, withFactory(fac))
	c := d.channel()
	if d.server.current() != fac.Digest || c.Current == nil || c.Current.Digest != fac.Digest || c.Factory == nil || c.Factory.Proof == nil || c.Seq != 0 {
		t.Fatalf("first boot: %+v", c)
	}
	if s := d.Status().Channels[0]; s.State != StateCommitted || s.Factory == nil {
		t.Errorf("status %+v", s)
	}
	opens := fac.Source.(*registry).opens
	again := w.mustBoot(m, withFactory(fac))
	if again.server.current() != fac.Digest || fac.Source.(*registry).opens != opens {
		t.Error("it was copied a second time")
	}
	w.reg.down = false
	var ts []channel.Target
	for i := range 8 {
		ts = append(ts, w.model(fmt.Sprintf("%d.0 good", i+1)))
		w.publish(w.change(ts[i]))
		if err := again.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	c = again.channel()
	if again.server.current() != ts[7].Digest || len(c.Kept) != maxKept || c.Factory.Digest != fac.Digest {
		t.Errorf("after eight updates: %+v", c)
	}
	for _, k := range c.Kept {
		if k.Digest == fac.Digest {
			t.Error("the factory artifact takes a place among the kept ones")
		}
	}
	w.reg.down = true
	if _, err := again.Rollback(t.Context(), "", fac.Digest); err != nil || again.server.current() != fac.Digest {
		t.Errorf("rollback by hand: %v", err)
	}
	if got := kinds(t, again); !strings.HasPrefix(got, "factory factory record fetched") {
		t.Errorf("journal: %s", got)
	}
	verifyJournal(t, w, m, again)
}

// A failed first update goes back to the factory artifact, also by way of a crash.
func TestFactoryIsTheWayBack(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	fac := w.factory("0.1 good")
	d := w.mustBoot(m, withFactory(fac))
	w.publish(w.change(w.model("1.0 slow")))
	if err := d.pollOnce(); !IsRolledBack(err) || d.server.current() != fac.Digest {
		t.Fatalf("a failed trial: %v", err)
	}
	if n := d.channel().LastRollback; n == nil || n.To != fac.Digest {
		t.Errorf("note %+v", n)
	}
	w.publish(w.change(w.model("2.0 good")))
	var crashed *fsx.Mem
	d.clock.onSleep = func() {
		if crashed == nil {
			crashed = m.CrashClone(0, rand.New(rand.NewPCG(1, 1)))
		}
	}
	_ = d.pollOnce()
	if again := w.mustBoot(crashed, withFactory(fac)); again.server.current() != fac.Digest {
		t.Error("after a crash in the first trial something else serves")
	}
}

// rot alters the module of every artifact with one of these texts on the device.
func rot(t *testing.T, m *fsx.Mem, d *device, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := fsx.WriteFileAtomic(m, d.blobs.Path(artifact.DigestOf([]byte(text))), []byte(strings.Replace(text, "good", "evil", 1)), 0o400); err != nil {
			t.Fatal(err)
		}
	}
}

// The last resort: everything that was activated has rotted. Even when the copy of the factory artifact has too, it is copied anew.
func TestFactoryIsTheLastResort(t *testing.T) {
	for _, texts := range [][]string{{"1.0 good", "2.0 good"}, {"1.0 good", "2.0 good", "0.1 good"}} {
		w, m := newWorld(t), newDeviceFS(t)
		fac := w.factory("0.1 good")
		d := w.mustBoot(m, withFactory(fac))
		v1, v2 := w.model("1.0 good"), w.model("2.0 good")
		for _, v := range []channel.Target{v1, v2} {
			w.publish(w.change(v))
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
		}
		rot(t, m, d, texts...)
		w.reg.down = true
		again := w.mustBoot(m, withFactory(fac))
		c := again.channel()
		if again.server.current() != fac.Digest || c.LastRollback == nil || c.LastRollback.From != v2.Digest || !strings.Contains(kinds(t, again), KindFallback) {
			t.Fatalf("%v: %s, %+v", texts, again.server.current().Short(), c)
		}
		if c.Seq != 2 {
			t.Errorf("seq fell to %d", c.Seq)
		}
		w.reg.down = false
		again.clock.advance(time.Minute)
		if err := again.pollOnce(); err != nil || again.server.current() != v2.Digest {
			t.Errorf("the channel's target was not fetched again: %v", err)
		}
	}
}

// What the factory artifact has to be, and what is said when it is not. Nothing serves then, and the channel is followed.
func TestFactoryRefused(t *testing.T) {
	for want, edit := range map[string]func(w *world, f *Factory){
		"the trust document denies it": func(w *world, f *Factory) {
			doc := *w.Doc
			doc.Denied = []artifact.Digest{f.Digest}
			w.Doc = &doc
		},
		"no release is given": func(_ *world, f *Factory) { f.Releases = nil },
		"golden vectors":      func(w *world, f *Factory) { *f = w.factory("0.1 wrong") },
		"invalid module":      func(w *world, f *Factory) { *f = w.factory("0.1 unloadable") },
		"release: ": func(w *world, f *Factory) { // of something else
			f.Releases = []artifact.Digest{f.Source.(*registry).put(w.Release("churn", artifact.DigestOf([]byte("other"))))}
		},
		"content does not match its digest": func(w *world, f *Factory) {
			f.Source.(*registry).blobs[artifact.DigestOf([]byte("0.1 good"))] = []byte("0.1 evil")
		},
	} {
		w, m := newWorld(t), newDeviceFS(t)
		fac := w.factory("0.1 good")
		edit(w, &fac)
		d, err := w.boot(m, w.reg, withFactory(fac))
		if err == nil || !strings.Contains(err.Error(), want) || d.server.current() != "" {
			t.Errorf("%s: %v, %s serves", want, err, d.server.current().Short())
			continue
		}
		if n := d.channel().LastRefusal; n == nil || n.To != fac.Digest || !strings.Contains(n.Reason, want) {
			t.Errorf("%s: note %+v", want, n)
		}
		entries := d.Journal.Head().Entries
		v1 := w.model("1.0 good")
		w.publish(w.change(v1))
		if err := d.pollOnce(); err == nil || d.server.current() != "" {
			_ = err
		}
		if d.Journal.Head().Entries > entries+12 {
			t.Errorf("%s: said again and again", want)
		}
	}
}

// Below the epoch floor the factory artifact is no way back any more, and is not served as a last resort.
func TestFactoryBelowTheFloor(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	fac := w.factory("0.1 good")
	d := w.mustBoot(m, withFactory(fac))
	v1 := w.model("1.0 good")
	c := w.change(v1)
	c.Target.Epoch, c.EpochFloor = 3, 3
	w.publish(c)
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Rollback(t.Context(), "", fac.Digest); err == nil || !strings.Contains(err.Error(), "below the security floor 3") {
		t.Errorf("rollback: %v", err)
	}
	rot(t, m, d, "1.0 good")
	w.reg.down = true
	again, err := w.boot(m, w.reg, withFactory(fac))
	if err == nil || again.server.current() != "" || !strings.Contains(err.Error(), "below the security floor 3") {
		t.Errorf("last resort: %v", err)
	}
	if again.channel().EpochFloor != 3 {
		t.Error("the floor fell")
	}
	fac.Epoch = 3
	if again = w.mustBoot(m, withFactory(fac)); again.server.current() != fac.Digest {
		t.Error("with the epoch that the operator now gives it, it does not serve")
	}
}

// A record that names what serves from the factory raises its epoch with the floor, so that a restart still serves it.
func TestRecordOfTheFactoryArtifact(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	fac := w.factory("0.1 good")
	d := w.mustBoot(m, withFactory(fac))
	target := w.model("0.1 good")
	if target.Digest != fac.Digest {
		t.Fatal("not the same artifact")
	}
	c := w.change(target)
	c.Target.Epoch, c.EpochFloor = 2, 2
	w.publish(c)
	if err := d.pollOnce(); err != nil || d.channel().EpochFloor != 2 {
		t.Fatal(err)
	}
	if again := w.mustBoot(m, withFactory(fac)); again.server.current() != fac.Digest {
		t.Error("a restart serves nothing")
	}
	// A record that goes back to the factory artifact, which never had one, is checked like any other.
	w, m = newWorld(t), newDeviceFS(t)
	d = w.mustBoot(m, withFactory(fac))
	w.publish(w.change(w.model("1.0 good")))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	c = w.change(w.model("0.1 good"))
	c.Evidence[1].Digest = w.reg.put([]byte("{}"))
	c.Evidence[1].Size = 2
	w.publish(c)
	if err := d.pollOnce(); !IsRefused(err) {
		t.Errorf("without a verdict: %v", err)
	}
}

// Another digest in the configuration replaces the old one, and what serves is not touched; a broken new one leaves the old one.
func TestFactoryReplaced(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	one, two, bad := w.factory("0.1 good"), w.factory("0.2 good"), w.factory("0.3 wrong")
	w.mustBoot(m, withFactory(one))
	d := w.mustBoot(m, withFactory(bad))
	if c := d.channel(); d.server.current() != one.Digest || c.Factory.Digest != one.Digest || c.LastRefusal == nil {
		t.Errorf("a broken new one: %+v", c)
	}
	d = w.mustBoot(m, withFactory(two))
	if c := d.channel(); d.server.current() != one.Digest || c.Factory.Digest != two.Digest || c.Current.Digest != one.Digest {
		t.Errorf("a new one: %+v", c)
	}
	if d.runtime.opened != d.runtime.closed+1 {
		t.Errorf("models opened %d, closed %d", d.runtime.opened, d.runtime.closed)
	}
	for i := range 8 {
		w.publish(w.change(w.model(fmt.Sprintf("%d.0 good", i+1))))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	if d.blobs.Has(one.Digest, 1) || !d.blobs.Has(two.Digest, d.channel().Factory.Size) {
		t.Error("the wrong one was swept")
	}
	d = w.mustBoot(m)
	if d.channel().Factory != nil {
		t.Error("still there although the configuration names none")
	}
}

// A factory artifact whose loading ends the process does so a few times, and then later and later.
func TestFactoryCrashLoop(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	fac := w.factory("0.1 good")
	crashes := 0
	for range 6 {
		func() {
			defer func() {
				if recover() != nil {
					crashes++
				}
			}()
			w.runtime = crashing{}
			_, _ = w.boot(m, w.reg, withFactory(fac))
		}()
	}
	w.runtime = nil
	d, err := w.boot(m, w.reg, withFactory(fac))
	// The fourth was the last resort; the next one comes later, and neither start loads it at once.
	if crashes != 4 || err == nil || !strings.Contains(err.Error(), "is loaded again in") || d.server.current() != "" {
		t.Errorf("%d crashes, %v", crashes, err)
	}
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); d.server.current() != v1.Digest {
		t.Errorf("the channel is not followed: %v", err)
	}
	other := w.factory("0.2 good")
	if again := w.mustBoot(m, withFactory(other)); again.channel().Factory == nil {
		t.Error("another factory artifact was not taken")
	}
}

// Power cuts and failing operations at every step of the import: the device comes up, with the factory artifact as soon as nothing
// fails, and nothing else ever serves.
func TestFactoryEveryOperation(t *testing.T) {
	w := newWorld(t)
	fac := w.factory("0.1 good")
	count := func(m *fsx.Mem) int {
		f := fsx.NewFaulty(m)
		f.Arm(0, fsx.NoFault)
		if _, err := w.boot(f, w.reg, withFactory(fac)); err != nil {
			t.Fatal(err)
		}
		return f.Count()
	}
	steps := count(newDeviceFS(t))
	for _, kind := range []fsx.Fault{fsx.Kill, fsx.KillAfter, fsx.EIO, fsx.ENOSPC, fsx.ShortWrite} {
		for at := 1; at <= steps; at++ {
			m := newDeviceFS(t)
			f := fsx.NewFaulty(m)
			f.Arm(at, kind)
			rng := rand.New(rand.NewPCG(uint64(at), uint64(kind)))
			d, err := w.boot(f, w.reg, withFactory(fac))
			if err == nil && !f.Dead() && d.server.current() != fac.Digest {
				t.Errorf("%v at %d (%s): start succeeded and %q serves", kind, at, f.Fired(), d.server.current())
			}
			crashed := m.CrashClone([]int{0, 50, 100}[at%3], rng)
			again, err := w.boot(crashed, w.reg, withFactory(fac))
			if err != nil || again.server.current() != fac.Digest {
				t.Fatalf("%v at %d (%s), restart: %v", kind, at, f.Fired(), err)
			}
			if _, err := journal.Verify(crashed, stateDir+"/journal.log", again.Store.Doc().Journal, journalSigner{w.key}); err != nil {
				t.Errorf("%v at %d: %v", kind, at, err)
			}
		}
	}
	t.Logf("%d operations", steps)
}
