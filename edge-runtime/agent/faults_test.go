package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// scenario is one thing that a device does, starting from a durable state, with what may come out of it.
type scenario struct {
	name  string
	base  *fsx.Mem  // durable state before
	reg   *registry // what the carrier holds
	world *world
	act   func(d *device) error
	old   artifact.Digest // what serves before
	next  artifact.Digest // what serves when act returned nil; old when it never succeeds
	maxed int             // operations of a run without faults
	seq   int64           // floor before
}

// scenarios prepares the states once; each run works on copies.
func scenarios(t *testing.T) []*scenario {
	t.Helper()
	var out []*scenario
	add := func(name string, committed []string, next string, act func(w *world, d *device) error) {
		w, m := newWorld(t), newDeviceFS(t)
		s := &scenario{name: name, world: w}
		var last channel.Target
		var digests []artifact.Digest
		if len(committed) > 0 {
			d := w.mustBoot(m)
			for _, v := range committed {
				last = w.model(v)
				w.publish(w.change(last))
				if err := d.pollOnce(); err != nil {
					t.Fatal(err)
				}
				digests = append(digests, last.Digest)
			}
			s.old, s.seq = last.Digest, w.head.Record.Seq
		}
		s.next = s.old
		if next != "" {
			target := w.model(next)
			if r := w.head; r != nil && target.Digest == digests[0] && len(digests) > 1 {
				rec, err := channel.RollBack(r, target.Digest, "recall fell", w.change(target))
				if err != nil {
					t.Fatal(err)
				}
				w.push(trust.RoleDeployer, rec)
			} else {
				c := w.change(target)
				c.EpochFloor, c.Target.Epoch = 1, 1
				w.publish(c)
			}
			if next != "9.0 slow" {
				s.next = target.Digest
			}
		}
		if name == "rollback on the device" {
			s.next = digests[len(digests)-2]
		}
		s.base, s.reg = m, w.reg
		s.act = func(d *device) error { return act(w, d) }
		out = append(out, s)
	}
	poll := func(_ *world, d *device) error { return d.pollOnce() }
	add("first install", nil, "1.0 good", poll)
	add("update", []string{"1.0 good"}, "2.0 good", poll)
	add("update with sweep", []string{"1.0 a", "2.0 a", "3.0 a", "4.0 a", "5.0 a", "6.0 a", "7.0 a"}, "8.0 good", poll)
	add("automatic rollback", []string{"1.0 good"}, "9.0 slow", poll)
	add("rollback by record", []string{"1.0 good", "2.0 good"}, "1.0 good", poll)
	add("rollback on the device", []string{"1.0 good", "2.0 good"}, "", func(_ *world, d *device) error {
		_, err := d.Rollback(context.Background(), "prod", "")
		return err
	})
	add("update that waited", []string{"1.0 good"}, "2.0 good", func(_ *world, d *device) error {
		for _, no := range []deviceinput.Action{deviceinput.Download, deviceinput.Activate, ""} {
			d.Agent.Local = &fakeLocal{digest: verifytest.Policy, decide: func(ask *deviceinput.Document) (bool, string) { return ask.Action != no, "not now" }}
			if err := d.pollOnce(); err != nil {
				return err
			}
		}
		return nil
	})
	return out
}

// run performs the scenario with one fault, cuts the power, restarts, and returns what is wrong then.
func (s *scenario) run(at int, kind fsx.Fault, again, percent int, lazy bool, rng *rand.Rand) (violations []string, fired string) {
	bad := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }
	mem := s.base.CrashClone(100, rng)
	mem.IgnoreSyncs(lazy)
	f := fsx.NewFaulty(mem)
	f.Arm(at, kind)
	acked, ok := false, false
	head := journal.Head{}
	d, err := s.world.boot(f, s.reg)
	if err == nil {
		ok = s.act(d) == nil
		acked = ok && d.channel().Current != nil && !f.Dead()
		head = d.Journal.Head()
		// I1, in the living process: whatever happened, what serves is a digest that is allowed to.
		if cur := d.server.current(); cur != s.old && cur != s.next || cur == "" && s.old != "" {
			bad("I1 after the fault %q serves", cur.Short())
		}
	} else if d != nil && s.old != "" && !f.Dead() && d.server.current() != s.old {
		bad("I1 start failed and nothing serves: %v", err)
	}
	fired = f.Fired()
	before := state.Channel{}
	if d != nil {
		before = *d.channel()
	}
	crashed := mem.CrashClone(percent, rng)
	if again > 0 {
		// A second fault, while recovering from the first.
		f2 := fsx.NewFaulty(crashed)
		f2.Arm(again, kind)
		if d2, err := s.world.boot(f2, s.reg); err == nil {
			_ = d2.pollOnce()
		}
		crashed = crashed.CrashClone(percent, rng)
	}
	d3, err := s.world.boot(crashed, s.reg)
	if err != nil {
		bad("I1 no start after the fault: %v", err)
		return violations, fired
	}
	c := d3.channel()
	// I1 and I2: exactly one artifact serves, the old or the new one, and it is the one the document names.
	switch cur := d3.server.current(); {
	case cur != s.old && cur != s.next:
		bad("I2 %s serves", cur.Short())
	case s.old != "" && cur == "":
		bad("I1 nothing serves")
	case c.Current != nil && c.Current.Digest != cur:
		bad("I2 %s serves, the document says %s", cur.Short(), c.Current.Digest.Short())
	}
	// I3: what was acknowledged is there.
	if acked && again == 0 && (c.Current == nil || c.Current.Digest != s.next) {
		bad("I3 acknowledged %s, found %+v", s.next.Short(), c.Current)
	}
	// I4: floors never fall below what an acknowledged save had, nor below the start.
	if c.Seq < s.seq || ok && again == 0 && (c.Seq < before.Seq || c.EpochFloor < before.EpochFloor) {
		bad("I4 seq %d epoch %d, before %d %d", c.Seq, c.EpochFloor, before.Seq, before.EpochFloor)
	}
	// I5: every artifact that a rollback may go to is whole.
	for _, slot := range c.Slots() {
		if slot.Committed.IsZero() {
			continue
		}
		if _, err := d3.followers[0].checkBlobs(context.Background(), slot); err != nil {
			bad("I5 %s: %v", slot.Version, err)
		}
	}
	// I6: the journal verifies, and what it had acknowledged is a prefix of it.
	known := d3.Store.Doc().Journal
	if again == 0 && !lazy && head.Entries > known.Entries {
		known = head
	}
	if _, err := journal.Verify(crashed, stateDir+"/journal.log", known, journalSigner{s.world.key}); err != nil {
		bad("I6 %v", err)
	}
	if c.Intent != nil {
		bad("half state after a restart: intent %s at %s", c.Intent.Kind, c.Intent.Step)
	}
	// I7: it ends, within a few polls, in the state that the channel asks for, or in the old one for good reason.
	for range 4 {
		_ = d3.pollOnce()
	}
	c = d3.channel()
	_, barred := c.Quarantine[string(s.next)]
	if cur := d3.server.current(); cur != s.next && !barred && c.Pinned == nil && s.name != "rollback on the device" {
		bad("I7 %s serves after four polls", cur.Short())
	}
	return violations, fired
}

func faultRuns(t *testing.T) int {
	if v := os.Getenv("WAYBILL_FAULT_RUNS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("WAYBILL_FAULT_RUNS: %v", err)
		}
		return n
	}
	if testing.Short() {
		return 500
	}
	return 1000
}

// TestFaults fails every file system operation of every scenario in turn, kills the process there, cuts the power with 0, 50
// and 100 % of the unsynced data surviving, sometimes a second time during the recovery, and checks the invariants after the
// restart. WAYBILL_FAULT_RUNS sets the number of runs.
func TestFaults(t *testing.T) {
	budget := faultRuns(t)
	kindsOf := []fsx.Fault{fsx.Kill, fsx.EIO, fsx.ENOSPC, fsx.ShortWrite, fsx.KillAfter}
	ss := scenarios(t)
	total := 0
	for _, s := range ss {
		rng := rand.New(rand.NewPCG(1, 1))
		f := fsx.NewFaulty(s.base.CrashClone(100, rng))
		d, err := s.world.boot(f, s.reg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.act(d); (err == nil) != (s.next != s.old) {
			t.Fatalf("%s without faults: %v", s.name, err)
		}
		s.maxed = f.Count()
		total += s.maxed
	}
	runs, violations := 0, 0
	seed := uint64(0)
	// First each operation once per kind as far as the budget goes, then random double faults.
	for pass := 0; runs < budget; pass++ {
		for _, s := range ss {
			share := max(budget*s.maxed/total, s.maxed/2)
			for i := 0; i < share && runs < budget; i++ {
				seed++
				rng := rand.New(rand.NewPCG(seed, uint64(pass)))
				at := i%s.maxed + 1
				kind := kindsOf[(i/s.maxed+pass+at)%len(kindsOf)]
				again := 0
				if pass > 0 || i >= 5*s.maxed {
					at, kind = rng.IntN(s.maxed)+1, kindsOf[rng.IntN(len(kindsOf))]
					if rng.IntN(2) == 0 {
						again = rng.IntN(60) + 1
					}
				}
				percent := []int{0, 50, 100}[rng.IntN(3)]
				vs, fired := s.run(at, kind, again, percent, false, rng)
				runs++
				for _, v := range vs {
					violations++
					if violations <= 20 {
						t.Errorf("%s: %v at operation %d (%s), again %d, %d %% kept, seed %d: %s", s.name, kind, at, fired, again, percent, seed, v)
					}
				}
			}
		}
	}
	fmt.Printf("faults: %d runs, %d violations\n", runs, violations)
}

// TestFaultsCatchMissingFsync runs the same checks on a file system whose Sync does nothing: they must find it.
func TestFaultsCatchMissingFsync(t *testing.T) {
	caught := map[string]bool{}
	for _, s := range scenarios(t) {
		for seed := range uint64(12) {
			rng := rand.New(rand.NewPCG(seed, 7))
			vs, _ := s.run(1<<30, fsx.NoFault, 0, int(seed%2)*50, true, rng)
			for _, v := range vs {
				caught[v[:2]] = true
			}
		}
	}
	if len(caught) == 0 {
		t.Fatal("the mutant without fsync was not caught")
	}
	t.Logf("caught by %v", caught)
}

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
