package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/channel"
)

// two is a device with two versions committed.
func two(t *testing.T) (w *world, m *fsx.Mem, d *device, v1, v2 channel.Target) {
	t.Helper()
	w, m = newWorld(t), newDeviceFS(t)
	d = w.mustBoot(m)
	v1, v2 = w.model("1.0 good"), w.model("2.0 good")
	for _, v := range []channel.Target{v1, v2} {
		w.publish(w.change(v))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	return w, m, d, v1, v2
}

// With not one byte free the journal is written, the status told, and a rollback by hand and an automatic one are carried out and
// durable; the reserve that this took comes back when there is space. Without the reserve none of it works.
func TestNothingFree(t *testing.T) {
	for _, reserve := range []bool{true, false} {
		w, m, d, v1, v2 := two(t)
		if !reserve {
			d.Store.Ballast().Release()
		}
		m.SetCapacity(m.Used())
		if _, err := json.Marshal(d.Status()); err != nil {
			t.Error(err)
		}
		_, err := d.Rollback(t.Context(), "", "")
		if !reserve {
			if err == nil {
				t.Error("the mutant without a reserve went back on a full disk: the test proves nothing")
			}
			if d.server.current() != v2.Digest {
				t.Error("something else serves than the document says")
			}
			continue
		}
		if err != nil || d.server.current() != v1.Digest {
			t.Fatalf("rollback by hand: %v", err)
		}
		if got := kinds(t, d); !strings.HasSuffix(got, KindRolledBack) {
			t.Errorf("journal: %s", got)
		}
		verifyJournal(t, w, m, d)
		again := w.mustBoot(m)
		if again.server.current() != v1.Digest || len(again.Store.Doc().Outbox) > 0 && again.Journal.Serial() < again.Store.Doc().Events {
			t.Error("a restart undid it, or lost what was decided")
		}
		if _, err := m.Stat(stateDir + "/ballast"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the reserve was not needed: %v", err)
		}
		m.SetCapacity(0)
		_ = again.pollOnce()
		if info, err := m.Stat(stateDir + "/ballast"); err != nil || info.Size() < 1<<18 {
			t.Errorf("the reserve does not come back: %v", err)
		}
	}
}

// The disk fills up while a bad model is on trial: it is undone, that is durable, and the reason is kept.
func TestAutomaticRollbackWithNothingFree(t *testing.T) {
	w, m, d, _, v2 := two(t)
	w.publish(w.change(w.model("3.0 slow")))
	full := false
	d.clock.onSleep = func() {
		if !full {
			full = true
			m.SetCapacity(m.Used())
		}
	}
	if err := d.pollOnce(); !IsRolledBack(err) || !full || d.server.current() != v2.Digest {
		t.Fatalf("poll: %v", err)
	}
	again := w.mustBoot(m)
	c := again.channel()
	if again.server.current() != v2.Digest || c.LastRollback == nil || !strings.Contains(c.LastRollback.Reason, "latency budget") || len(c.Quarantine) != 1 {
		t.Errorf("after a restart: %+v", c)
	}
	verifyJournal(t, w, m, again)
}

// A digest that failed is tried once more, and only once, when the channel names it under a new seq.
func TestQuarantineEndsWithANewSeq(t *testing.T) {
	w, _, d, _, v2 := two(t)
	bad := w.model("3.0 slow")
	for n := range 3 {
		w.publish(w.change(bad))
		swaps := len(d.server.seen)
		if err := d.pollOnce(); !IsRolledBack(err) {
			t.Fatalf("seq %d: %v", n, err)
		}
		if got := len(d.server.seen) - swaps; got != 2 { // there and back
			t.Errorf("seq %d: %d switches", n, got)
		}
		for range 3 {
			if err := d.pollOnce(); err != nil || len(d.server.seen)-swaps != 2 {
				t.Errorf("seq %d is tried again: %v", n, err)
			}
		}
	}
	if d.server.current() != v2.Digest || len(d.channel().Rollbacks) != 3 {
		t.Error("v2 does not serve")
	}
}

// After a rollback by hand the floors stand, the same record is not activated again, and the next one is.
func TestFloorsAfterRollback(t *testing.T) {
	w, m, d, v1, _ := two(t)
	before := d.channel()
	if _, err := d.Rollback(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*device{d, w.mustBoot(m)} {
		c := x.channel()
		if c.Seq != before.Seq || c.Generation != before.Generation || c.EpochFloor != before.EpochFloor || c.Record != before.Record {
			t.Errorf("a floor moved: %+v", c)
		}
		if err := x.pollOnce(); err != nil || x.server.current() != v1.Digest {
			t.Errorf("the record of before was activated again: %v", err)
		}
	}
	v3 := w.model("3.0 good")
	w.publish(w.change(v3))
	if d = w.mustBoot(m); d.pollOnce() != nil || d.server.current() != v3.Digest {
		t.Error("the next record is not taken")
	}
}
