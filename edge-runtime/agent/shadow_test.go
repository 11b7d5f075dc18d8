package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// fakeShadower gives what results says, one after the other, and then the last again.
type fakeShadower struct {
	results []shadow.Result
	err     error
	pairs   [][2]artifact.Digest // live, candidate
	stopped int
}

func (s *fakeShadower) Shadow(live, candidate Model, _ Shadow) (ShadowRun, error) {
	s.pairs = append(s.pairs, [2]artifact.Digest{live.(*fakeModel).digest, candidate.(*fakeModel).digest})
	return s, s.err
}

func (s *fakeShadower) Result() shadow.Result {
	r := s.results[0]
	if len(s.results) > 1 {
		s.results = s.results[1:]
	}
	return r
}

func (s *fakeShadower) Stop() { s.stopped++ }

// shadowed is a device with v1 committed and v2 published, whose channel wants a shadow run.
func shadowed(t *testing.T, sh *fakeShadower, edit ...func(*Shadow)) (w *world, m *fsx.Mem, d *device, v1, v2 channel.Target) {
	w, m = newWorld(t), newDeviceFS(t)
	w.shadows = sh
	d = w.mustBoot(m, func(c *Config) {
		c.Channels[0].Shadow = Shadow{Requests: 200, Duration: 5 * time.Minute, Sample: 1}
		for _, e := range edit {
			e(&c.Channels[0].Shadow)
		}
	})
	v1, v2 = w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	if got := reasons(t, d, KindShadow); len(sh.pairs) != 0 || len(got) != 1 || !strings.HasPrefix(got[0], "skipped: nothing serves") {
		t.Fatalf("first install: %v, %v", sh.pairs, got)
	}
	w.publish(w.change(v2))
	return w, m, d, v1, v2
}

func reasons(t *testing.T, d *device, kind string) (out []string) {
	t.Helper()
	es, err := d.Journal.Tail(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if e.Kind == kind {
			out = append(out, e.Reason)
		}
	}
	return out
}

func TestShadowPasses(t *testing.T) {
	sh := &fakeShadower{results: []shadow.Result{{Compared: 10}, {Compared: 199, Different: 1}, {Seen: 220, Compared: 205, Different: 2, Largest: 0.25, Dropped: 15}}}
	w, m, d, v1, v2 := shadowed(t, sh, func(s *Shadow) { s.MaxDifferent = 0.01 })
	state := ""
	d.clock.onSleep = func() {
		if s := d.Status().Channels[0]; state == "" {
			state = s.State
			if s.Shadow == nil || s.Candidate.Digest != v2.Digest || d.server.current() != v1.Digest {
				t.Errorf("status in the shadow run: %+v", s)
			}
		}
	}
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Fatalf("poll: %v", err)
	}
	if state != "shadow" || sh.stopped != 1 || len(sh.pairs) != 1 || sh.pairs[0] != [2]artifact.Digest{v1.Digest, v2.Digest} {
		t.Errorf("state %q, stopped %d, pairs %v", state, sh.stopped, sh.pairs)
	}
	got := reasons(t, d, KindShadow)
	if len(got) != 3 || got[2] != "passed: 205 of 220 live requests compared, 2 differ (largest difference 0.25), 15 dropped; p99 0s against 0s" {
		t.Errorf("journal: %q", got)
	}
	// What passed here before is not compared again.
	r, err := channel.RollBack(w.head, v1.Digest, "recall fell", w.change(v1))
	if err != nil {
		t.Fatal(err)
	}
	w.push("deployer", r)
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest || len(sh.pairs) != 1 {
		t.Errorf("rollback by record: %v, %v", err, sh.pairs)
	}
	verifyJournal(t, w, m, d)
}

func TestShadowFails(t *testing.T) {
	for want, sh := range map[string]*fakeShadower{
		"shadow: 3 of 50 answers differ, at most 0.01 allowed; largest difference of a number 0.25; first: output y, element 3: 1 against 2": {
			results: []shadow.Result{{Compared: 10}, {Compared: 50, Different: 3, Largest: 0.25, First: "output y, element 3: 1 against 2"}}}, // cannot be made good by 150 more
		"shadow: p99 40ms against 10ms of the live model in 200 requests, more than 2 times": {results: []shadow.Result{{Compared: 200, P99: 40 * time.Millisecond, LiveP99: 10 * time.Millisecond}}},
		"shadow: it cannot be compared with":                                                 {err: errors.New("other inputs")},
	} {
		w, m, d, v1, v2 := shadowed(t, sh, func(s *Shadow) { s.MaxDifferent, s.P99Ratio = 0.01, 2 })
		if err := d.pollOnce(); !IsRolledBack(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("poll: %v, want %s", err, want)
		}
		c := d.channel()
		if d.server.current() != v1.Digest || c.Barred(v2.Digest, 1, 2) == "" || !strings.Contains(c.LastRollback.Reason, want) || c.Intent != nil {
			t.Errorf("after it: %+v", c)
		}
		if d.runtime.opened != d.runtime.closed+1 {
			t.Errorf("models opened %d, closed %d", d.runtime.opened, d.runtime.closed)
		}
		if sh.err == nil && sh.stopped != 1 {
			t.Errorf("stopped %d times", sh.stopped)
		}
		verifyJournal(t, w, m, d)
	}
}

// Few requests within the time: the golden vectors and the trial decide, and the journal says how many there were.
func TestShadowWithoutRequests(t *testing.T) {
	sh := &fakeShadower{results: []shadow.Result{{Seen: 3, Compared: 3}}}
	_, _, d, _, v2 := shadowed(t, sh)
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Fatal(err)
	}
	if got := reasons(t, d, KindShadow); !strings.HasPrefix(got[len(got)-1], "passed: 3 of 3 live requests compared") {
		t.Errorf("journal: %q", got)
	}
}

func TestRollbackInShadow(t *testing.T) {
	sh := &fakeShadower{results: []shadow.Result{{Compared: 1}}}
	_, _, d, v1, v2 := shadowed(t, sh)
	answer := make(chan error, 1)
	began := false
	d.clock.onSleep = func() {
		if began {
			time.Sleep(time.Millisecond) // lets the other goroutine cancel
			return
		}
		began = true
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
	if err := <-answer; err != nil || d.server.current() != v1.Digest || sh.stopped != 1 {
		t.Errorf("%v, stopped %d", err, sh.stopped)
	}
}

// A process that dies in the shadow run is a crash: after a few the candidate is in quarantine.
func TestCrashInShadow(t *testing.T) {
	sh := &fakeShadower{results: []shadow.Result{{Compared: 1}}}
	w, m, d, v1, v2 := shadowed(t, sh)
	for n := 1; n <= 3; n++ {
		var crashed *fsx.Mem
		d.clock.onSleep = func() {
			if crashed == nil {
				crashed = m.CrashClone(0, rand.New(rand.NewPCG(1, 1)))
			}
		}
		_ = d.pollOnce()
		if crashed == nil {
			t.Fatalf("crash %d: no shadow run", n)
		}
		m = crashed
		d = w.mustBoot(m, func(c *Config) { c.Channels[0].Shadow = Shadow{Requests: 200, Duration: 5 * time.Minute, Sample: 1} })
		if d.server.current() != v1.Digest {
			t.Fatal("v1 does not serve after the crash")
		}
	}
	c := d.channel()
	if !strings.HasPrefix(c.Barred(v2.Digest, 1, 2), "the device restarted 3 times while activating it, last while it was shadow") {
		t.Errorf("quarantine %+v", c.Quarantine)
	}
}

// A model for which there is no memory is not loaded beside the one that serves; it is tried again later.
func TestNoMemory(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 hungry")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	free, known := uint64(1<<20), true
	d.Agent.Memory = func() (uint64, bool) { return free, known }
	w.publish(w.change(v2))
	opened := d.runtime.opened
	if err := d.pollOnce(); err == nil || !strings.Contains(err.Error(), "it needs 1065536 bytes of memory beside the model that serves, 1048576 are free") || d.runtime.opened != opened {
		t.Fatalf("without memory: %v", err)
	}
	if c := d.channel(); c.Barred(v2.Digest, 1, 2) != "" || d.server.current() != v1.Digest || c.Intent != nil {
		t.Errorf("a full memory is no verdict: %+v", c)
	}
	if free = 1 << 21; d.pollOnce() != nil || d.server.current() != v2.Digest {
		t.Error("not tried again")
	}
	v3 := w.model("3.0 hungry")
	w.publish(w.change(v3))
	if free, known = 0, false; d.pollOnce() != nil || d.server.current() != v3.Digest {
		t.Error("where nobody knows how much there is, nothing is refused")
	}
	iface := artifact.Interface{Memory: artifact.Memory{Heap: 5000, Arena: 1000, Planned: 3000}, Weights: &artifact.Weights{FileRef: artifact.FileRef{Size: 4000}}}
	if got := needs(&iface); got != 4000 {
		t.Errorf("it needs %d", got)
	}
	iface.Weights.Size = 1 << 40
	if got := needs(&iface); got != 0 {
		t.Errorf("weights larger than the heap: %d", got)
	}
}

func TestShadowNeedsOneToRunIt(t *testing.T) {
	w := newWorld(t)
	_, err := w.boot(newDeviceFS(t), w.reg, func(c *Config) { c.Channels[0].Shadow.Requests = 1 })
	if !errors.Is(err, errNoShadower) {
		t.Errorf("%v", err)
	}
}
