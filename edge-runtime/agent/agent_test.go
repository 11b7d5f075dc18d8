package agent

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

func kinds(t *testing.T, d *device) string {
	t.Helper()
	es, err := d.Journal.Tail(0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		if e.Kind != journal.KindCheckpoint {
			out = append(out, e.Kind)
		}
	}
	return strings.Join(out, " ")
}

func verifyJournal(t *testing.T, w *world, fsys fsx.FS, d *device) {
	t.Helper()
	if _, err := journal.Verify(fsys, stateDir+"/journal.log", d.Store.Doc().Journal, journalSigner{w.key}); err != nil {
		t.Errorf("journal: %v", err)
	}
}

func TestUpdateThenRestart(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	if err := d.pollOnce(); err != nil || d.server.current() != "" {
		t.Fatalf("empty channel: %v", err)
	}
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	if d.server.current() != v1.Digest {
		t.Fatal("v1 does not serve")
	}
	opens := w.reg.opens
	if err := d.pollOnce(); err != nil || w.reg.opens != opens {
		t.Errorf("an unchanged tag was fetched again: %v", err)
	}
	v2 := w.model("2.0 good")
	w.publish(w.change(v2))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	c := d.channel()
	if c.Current.Digest != v2.Digest || c.Previous.Digest != v1.Digest || c.Intent != nil || c.Seq != 2 {
		t.Errorf("state %+v", c)
	}
	if d.runtime.opened != 2 || d.runtime.closed != 1 {
		t.Errorf("models opened %d, closed %d", d.runtime.opened, d.runtime.closed)
	}
	if got := kinds(t, d); got != "record fetched trial committed record fetched trial committed" {
		t.Errorf("journal: %s", got)
	}
	if d.server.none != 0 {
		t.Error("a switch left nothing in service")
	}
	verifyJournal(t, w, m, d)

	w.reg.down = true
	again := w.mustBoot(m)
	if again.server.current() != v2.Digest {
		t.Error("after a restart without network v2 does not serve")
	}
	for _, r := range d.reports {
		b, err := evidence.ParseBundle(r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if err := evidence.ValidatePredicate(evidence.TypeStatus, s.Predicate); err != nil {
			t.Error(err)
		}
	}
	if len(d.reports) < 4 { // trial and committed, twice
		t.Errorf("%d reports", len(d.reports))
	}
}

func TestAutomaticRollback(t *testing.T) {
	for text, reason := range map[string]string{
		"3.0 slow":       "latency budget: p99 1s over 5ms",
		"3.0 failing":    "error budget: 50 of 100",
		"3.0 wrong":      "golden vectors",
		"3.0 unloadable": "invalid module",
		"3.0 sluggish":   "latency budget: p99 4s over 5ms in 100 calls of golden vectors",
		"3.0 large":      "memory budget: 1073741824 bytes after the golden vectors, over 67108864",
	} {
		t.Run(text, func(t *testing.T) {
			w, m := newWorld(t), newDeviceFS(t)
			d := w.mustBoot(m)
			v1, bad := w.model("1.0 good"), w.model(text)
			w.publish(w.change(v1))
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			w.publish(w.change(bad))
			if err := d.pollOnce(); err == nil || !strings.Contains(err.Error(), reason) {
				t.Fatalf("poll: %v", err)
			}
			c := d.channel()
			if d.server.current() != v1.Digest || c.Current.Digest != v1.Digest || c.Intent != nil || c.Seq != 2 {
				t.Fatalf("after the rollback: %+v", c)
			}
			if c.LastRollback == nil || c.LastRollback.From != bad.Digest || c.LastRollback.To != v1.Digest || !strings.Contains(c.LastRollback.Reason, reason) {
				t.Errorf("note %+v", c.LastRollback)
			}
			swaps := len(d.server.seen)
			if err := d.pollOnce(); err != nil || len(d.server.seen) != swaps {
				t.Errorf("the quarantined digest was tried again: %v", err)
			}
			again := w.mustBoot(m)
			if err := again.pollOnce(); err != nil || again.server.current() != v1.Digest {
				t.Errorf("tried again after a restart: %v", err)
			}
			if s := d.Status().Channels[0]; len(s.Quarantine) != 1 || s.State != StateCommitted {
				t.Errorf("status %+v", s)
			}
			// The next seq lifts the quarantine.
			w.publish(w.change(w.model("4.0 good")))
			if err := again.pollOnce(); err != nil || len(again.channel().Quarantine) != 0 {
				t.Errorf("next record: %v, %+v", err, again.channel().Quarantine)
			}
			verifyJournal(t, w, m, again)
		})
	}
}

func TestFirstTrialFailsLeavesNothing(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	w.publish(w.change(w.model("1.0 slow")))
	if err := d.pollOnce(); err == nil {
		t.Fatal("committed")
	}
	if d.server.current() != "" || d.channel().Current != nil {
		t.Error("a failed first artifact serves")
	}
	if d.runtime.opened != d.runtime.closed {
		t.Error("a model leaked")
	}
}

func TestManualRollback(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	var ts []channel.Target
	for _, v := range []string{"1.0 good", "2.0 good", "3.0 good"} {
		ts = append(ts, w.model(v))
		w.publish(w.change(ts[len(ts)-1]))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	w.reg.down = true
	res, err := d.Rollback(ctx, "", "")
	if err != nil || res.From.Digest != ts[2].Digest || res.To.Digest != ts[1].Digest || d.server.current() != ts[1].Digest {
		t.Fatalf("rollback: %+v, %v", res, err)
	}
	w.reg.down = false
	if err := d.pollOnce(); err != nil || d.server.current() != ts[1].Digest {
		t.Fatalf("the record that was rolled back from came again: %v", err)
	}
	if _, err := d.Rollback(ctx, "prod", ts[0].Digest); err != nil || d.server.current() != ts[0].Digest {
		t.Fatalf("rollback --to: %v", err)
	}
	if _, err := d.Rollback(ctx, "prod", artifact.DigestOf([]byte("never seen"))); !errors.Is(err, ErrNoTarget) {
		t.Errorf("unknown digest: %v", err)
	} else if !strings.Contains(err.Error(), "these can be gone back to: 2.0 "+string(ts[1].Digest)+", 3.0 "+string(ts[2].Digest)) && !strings.Contains(err.Error(), "these can be gone back to: 3.0 "+string(ts[2].Digest)) {
		t.Errorf("the choices are not listed: %v", err)
	}
	if _, err := d.Rollback(ctx, "other", ""); !errors.Is(err, ErrNoChannel) {
		t.Errorf("unknown channel: %v", err)
	}
	// A file that was changed on the disk is no way back.
	if err := fsx.WriteFileAtomic(m, d.blobs.Path(artifact.DigestOf([]byte("3.0 good"))), []byte("3.0 evil"), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Rollback(ctx, "prod", ts[2].Digest); err == nil || d.server.current() != ts[0].Digest || d.channel().Intent != nil {
		t.Errorf("rollback to an altered file: %v", err)
	}
	again := w.mustBoot(m)
	if again.server.current() != ts[0].Digest {
		t.Error("a restart undid the rollback")
	}
	// The channel moves on and takes the device along.
	v4 := w.model("4.0 good")
	w.publish(w.change(v4))
	if err := again.pollOnce(); err != nil || again.server.current() != v4.Digest {
		t.Errorf("next record: %v", err)
	}
}

func TestRollbackDuringTrial(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	answer := make(chan error, 1)
	started := false
	d.clock.onSleep = func() {
		if started {
			time.Sleep(time.Millisecond) // lets the other goroutine cancel
			return
		}
		started = true
		go func() {
			res, err := d.Rollback(context.Background(), "prod", "")
			if err == nil && (res.From.Digest != v2.Digest || res.To.Digest != v1.Digest) {
				err = errors.New("wrong result")
			}
			answer <- err
		}()
	}
	if err := d.pollOnce(); !errors.Is(err, errByHand) {
		t.Fatalf("poll: %v", err)
	}
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if d.server.current() != v1.Digest || d.channel().Current.Digest != v1.Digest {
		t.Error("v1 does not serve")
	}
}

func TestRemoteRollbackWorksOfflineAndExpired(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	r, err := channel.RollBack(w.head, v1.Digest, "recall fell", w.change(v1))
	if err != nil {
		t.Fatal(err)
	}
	w.push(trust.RoleDeployer, r)
	d.clock.advance(30 * 24 * time.Hour) // the record has expired meanwhile
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest {
		t.Fatalf("rollback by record: %v", err)
	}
	if n := d.channel().LastRollback; n == nil || n.Reason != "recall fell" || n.From != v2.Digest {
		t.Errorf("note %+v", n)
	}
}

func TestNotForThisDevice(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	c := w.change(v2)
	c.Audience.Classes = []string{"edge-xl"}
	w.publish(c)
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest || d.channel().LastRefusal != nil {
		t.Errorf("audience: %v, %+v", err, d.channel().LastRefusal)
	}
	c = w.change(v2)
	c.Rollout = &channel.Rollout{ID: "r1", Percent: 0}
	w.publish(c)
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest {
		t.Errorf("rollout at 0 %%: %v", err)
	}
	c.Rollout = &channel.Rollout{ID: "r1", Percent: 100}
	c.Evidence = w.change(v2).Evidence
	w.publish(c)
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Errorf("rollout at 100 %%: %v", err)
	}
}

func TestRefreshThatSkipsARecord(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	r, err := channel.Extend(w.head, w.Now.Add(time.Hour), w.Now.Add(7*24*time.Hour+time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	w.push(trust.RoleRefresher, r)
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest || d.channel().Seq != 2 {
		t.Errorf("a device that saw only the refresh: %v, seq %d", err, d.channel().Seq)
	}
}

func TestTrustWalk(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	boot := *w.Doc // devices are provisioned with version 1
	raw1 := w.Trust()
	ref1 := w.TrustRef()
	next := boot
	next.Version, next.Issued = 2, boot.Issued.Add(time.Hour)
	next.Denied = []artifact.Digest{v1.Digest}
	w.Doc = &next
	w.publish(w.change(v2))
	if err := d.pollOnce(); verify.ReasonOf(err) != verify.TrustBehind {
		t.Fatalf("without the document: %v", err)
	}
	w.tag(w.Trust(), TrustTag(2))
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest || d.Trust().Version != 2 {
		t.Fatalf("with it: %v, trust version %d", err, d.Trust().Version)
	}
	if _, err := d.Rollback(context.Background(), "", ""); err == nil || !strings.Contains(err.Error(), "denies") {
		t.Errorf("rollback to a denied digest: %v", err)
	}
	again, err := w.boot(m, w.reg, func(c *Config) { c.TrustFile, c.TrustVersion, c.TrustDigest = raw1, ref1.Version, ref1.Digest })
	if err != nil || again.Trust().Version != 2 {
		t.Fatalf("restart: %v", err)
	}
}

func TestStorm(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m, func(c *Config) { c.MaxRollbacks = 2 })
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	bad := w.model("2.0 slow")
	for range 2 {
		w.publish(w.change(bad))
		if err := d.pollOnce(); err == nil {
			t.Fatal("committed")
		}
	}
	swaps := len(d.server.seen)
	w.publish(w.change(bad))
	if err := d.pollOnce(); err == nil || len(d.server.seen) != swaps {
		t.Errorf("a third try within the window: %v", err)
	}
	d.clock.advance(2 * time.Hour)
	if err := d.pollOnce(); err == nil || len(d.server.seen) == swaps {
		t.Errorf("held for ever: %v", err)
	}
}

func TestSpace(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m, func(c *Config) { c.Reserve = 1 << 20 })
	w.publish(w.change(w.model("1.0 good")))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	m.SetCapacity(m.Used() + 1<<20 + 100)
	v2 := w.model("2.0 good " + strings.Repeat("x", 10000))
	w.publish(w.change(v2))
	if err := d.pollOnce(); err == nil || !strings.Contains(err.Error(), "no room on the disk") {
		t.Errorf("no space: %v", err)
	}
	m.SetCapacity(0)
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Errorf("with space again: %v", err)
	}
}

func TestStatusJSON(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	w.publish(w.change(w.model("1.0 good")))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d.Status())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"agentRunning":true`, `"state":"committed"`, `"quarantine":[]`, `"kept":[]`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("status lacks %s: %s", want, b)
		}
	}
}

func TestJudge(t *testing.T) {
	trial := Trial{MinRequests: 10, MaxErrorRate: 0.1, P50: 2 * time.Millisecond, P99: 5 * time.Millisecond}
	for _, c := range []struct {
		name string
		s    Stats
		over bool
		ok   bool
	}{
		{"nobody asked", Stats{}, true, true},
		{"too few to judge", Stats{Requests: 9, Errors: 9, P99: time.Second}, true, true},
		{"errors", Stats{Requests: 10, Errors: 2}, false, false},
		{"errors within the budget", Stats{Requests: 10, Errors: 1}, true, true},
		{"one hiccup early on", Stats{Requests: 20, P99: time.Second}, false, true},
		{"slow at the end", Stats{Requests: 20, P99: time.Second}, true, false},
		{"slow for a hundred requests", Stats{Requests: 100, P99: time.Second}, false, false},
		{"half of them slow", Stats{Requests: 10, P50: 3 * time.Millisecond, P99: 3 * time.Millisecond}, false, false},
		{"median at the budget", Stats{Requests: 10, P50: 2 * time.Millisecond, P99: 3 * time.Millisecond}, false, true},
		{"at the budget", Stats{Requests: 1000, P99: 5 * time.Millisecond}, true, true},
	} {
		if err := trial.judge(c.s, c.over); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := (Trial{}).judge(Stats{Requests: 5, P99: time.Hour}, true); err != nil {
		t.Errorf("no budget: %v", err)
	}
}

// stuck is a Reporter that never answers in time, then fails.
type stuck struct{ release chan struct{} }

func (s stuck) Report(context.Context, state.Slot, []byte) error {
	<-s.release
	return errors.New("no write access")
}

// A report that hangs or fails delays no trial and changes nothing that serves.
func TestReportsChangeNothing(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	s := stuck{make(chan struct{})}
	d := w.mustBoot(m, func(c *Config) { c.Channels[0].Reporter = s })
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	watched := false
	d.clock.onSleep = func() {
		if !watched {
			watched = true // the trial goes on although the report about it hangs
			close(s.release)
		}
	}
	if err := d.pollOnce(); err != nil || !watched || d.server.current() != v1.Digest || d.channel().Current == nil {
		t.Fatalf("poll: %v, watched %v", err, watched)
	}
	if _, err := fsx.ReadFile(m, stateDir+"/status-prod.json", artifact.MaxBundle); err != nil {
		t.Errorf("the signed status on the device: %v", err)
	}
	if f := d.followers[0]; !f.sendFailed.Load() {
		t.Error("the failure is forgotten: nothing would be sent again")
	}
}
