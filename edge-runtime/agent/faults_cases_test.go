package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// A restart at each step of a trial: the digest counts as failed, and is not tried again.
func TestCrashInTrialCountsAsFailed(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	var crashed *fsx.Mem
	d.clock.onSleep = func() {
		if crashed == nil {
			crashed = m.CrashClone(0, rand.New(rand.NewPCG(1, 1)))
		}
	}
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	again := w.mustBoot(crashed)
	if err := again.pollOnce(); err != nil || again.server.current() != v1.Digest {
		t.Fatalf("after a crash in the trial: %v", err)
	}
	if n := again.channel().LastRollback; n == nil || n.Reason != "the device restarted during the trial" {
		t.Errorf("note %+v", n)
	}
	if got := again.channel().Barred(v2.Digest, 1, 2); got == "" {
		t.Error("not in quarantine")
	}
}

// A digest that brings the device down while it is staged is given up after a few restarts: no boot loop.
func TestCrashLoopEnds(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	stores := d.Store.Doc().Serial
	for range 10 {
		d := w.mustBoot(m)
		d.Agent.Runtime = crashing{}
		func() {
			defer func() { _ = recover() }()
			_ = d.pollOnce()
		}()
	}
	d = w.mustBoot(m)
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest {
		t.Fatalf("after the loop: %v", err)
	}
	if n := d.channel().LastRollback; n == nil || d.channel().Barred(v2.Digest, 1, 2) == "" {
		t.Errorf("not given up: %+v", n)
	}
	if n := d.Store.Doc().Serial - stores; n > 80 {
		t.Errorf("%d documents written", n)
	}
}

type crashing struct{}

func (crashing) Load(context.Context, Bundle) (Model, error) { panic("the process dies here") }

// A full disk in the middle of an update leaves the old artifact, a rollback still works, and space heals it.
func TestFullDisk(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	var ts []channel.Target
	for _, v := range []string{"1.0 good", "2.0 good"} {
		ts = append(ts, w.model(v))
		w.publish(w.change(ts[len(ts)-1]))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	v3 := w.model("3.0 good")
	w.publish(w.change(v3))
	m.SetCapacity(m.Used())
	if err := d.pollOnce(); err == nil {
		t.Error("an update on a full disk")
	}
	if _, err := d.Rollback(context.Background(), "", ""); err != nil || d.server.current() != ts[0].Digest {
		t.Fatalf("rollback on a full disk: %v", err)
	}
	verifyJournal(t, w, m, d)
	again := w.mustBoot(m)
	if again.server.current() != ts[0].Digest {
		t.Error("a restart on a full disk serves something else")
	}
	m.SetCapacity(0)
	w.publish(w.change(v3))
	if err := again.pollOnce(); err != nil || again.server.current() != v3.Digest {
		t.Errorf("with space again: %v", err)
	}
}

// A committed artifact whose file rotted is replaced by the one before, and fetched again.
func TestFallback(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	for _, v := range []channel.Target{v1, v2} {
		w.publish(w.change(v))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	if err := fsx.WriteFileAtomic(m, d.blobs.Path(artifact.DigestOf([]byte("2.0 good"))), []byte("2.0 g00d"), 0o400); err != nil {
		t.Fatal(err)
	}
	again := w.mustBoot(m)
	if again.server.current() != v1.Digest {
		t.Fatal("no fallback")
	}
	again.clock.advance(time.Minute)
	if err := again.pollOnce(); err != nil || again.server.current() != v2.Digest {
		t.Errorf("not fetched again: %v", err)
	}
	if err := errors.Join(again.Close(context.Background())); err != nil {
		t.Error(err)
	}
}
