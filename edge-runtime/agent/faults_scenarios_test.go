package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// scenario is one thing that a device does, starting from a durable state, with what may come out of it.
type scenario struct {
	name     string
	world    *world
	base     *fsx.Mem // durable state before
	trust    []byte   // provisioned
	trustRef channel.TrustRef
	edit     func(*Config)
	local    func() Local
	carrier  func(*faultDevice, Carrier) Carrier // around each channel's, made anew at each start
	shadow   []shadow.Result                     // of the shadow run that the channel asks for; nil: none
	reports  bool                                // they wait in a spool on the device's disk
	told     []report.Item                       // that were made before the start; the last one waits
	files    int                                 // of a journal whose files have fileBytes; 0: the product's bounds

	models []string // served names, in the order of the channels
	// act is what the device does. Without a fault it returns nil, or an error when refuses is set.
	act     func(ctx context.Context, d *faultDevice) error
	refuses bool
	old     map[string]artifact.Digest // by model: what serves before
	next    map[string]artifact.Digest // what serves when act returned nil
	ends    map[string]artifact.Digest // what serves in the end after a fault and some polls, if not next
	also    []artifact.Digest          // may serve too
	trial   map[string]artifact.Digest // what goes on trial, if not next
	unpins  bool                       // the scenario may take a pin away
	large   artifact.Digest            // a layer of largeSize bytes that is fetched
	ahead   int64                      // bytes of it that are not on the device at the start
	// overtaken says that the channel is frozen during the trial, after which nothing is held against the candidate.
	overtaken bool
	deadly    bool                       // what serves has ended the process before
	ended     func(d *faultDevice) error // tells what is missing in the end, after a fault and some polls
	texts     map[artifact.Digest]string // of the module of each artifact

	floor *state.Doc // document at the start
	ops   int        // operations of a run without faults
}

func (s *scenario) end(model string) artifact.Digest {
	if d, ok := s.ends[model]; ok {
		return d
	}
	return s.next[model]
}

const largeSize = 1 << 20

// setup builds a scenario.
type setup struct {
	*scenario
	t testing.TB
	d *faultDevice // on base
}

// begin makes a device that has committed each of texts in turn.
func begin(t testing.TB, name string, texts ...string) *setup {
	t.Helper()
	w := newWorld(t)
	s := &setup{t: t, scenario: &scenario{
		name: name, world: w, base: newDeviceFS(t), trust: w.Trust(), trustRef: w.TrustRef(), models: []string{"churn"},
		old: map[string]artifact.Digest{}, next: map[string]artifact.Digest{}, texts: map[artifact.Digest]string{}, act: pollAct,
	}}
	for _, text := range texts {
		s.commit(text)
	}
	return s
}

func pollAct(ctx context.Context, d *faultDevice) error { return d.poll(ctx) }

func (s *setup) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// device gives the device on base, started.
func (s *setup) device() *faultDevice {
	s.t.Helper()
	if s.d == nil {
		d, err := s.boot(s.t.Context(), s.base, &tape{}, mutant{})
		s.must(err)
		s.d = d
	}
	return s.d
}

func (s *setup) target(text string) channel.Target {
	target := s.world.model(text)
	s.texts[target.Digest] = text
	return target
}

// commit publishes text and lets the device take it.
func (s *setup) commit(text string) {
	s.t.Helper()
	s.publish(text)
	s.must(s.device().poll(s.t.Context()))
}

// publish makes text the channel's target; it serves next.
func (s *setup) publish(text string, edit ...func(*channel.Change)) channel.Target {
	s.t.Helper()
	target := s.target(text)
	c := s.world.change(target)
	for _, e := range edit {
		e(&c)
	}
	s.world.publish(c)
	s.next["churn"] = target.Digest
	return target
}

// done finishes the scenario: what the document says now is what serves before.
func (s *setup) done() *scenario {
	s.t.Helper()
	if s.d != nil {
		s.told = s.d.tape.told.put
	}
	if doc, err := state.ReadOnly(s.base, stateDir); err == nil {
		s.floor = doc
		names := []string{"prod"}
		if len(s.models) > 1 {
			names = []string{"c1", "c2"}
		}
		for i, m := range s.models {
			if c := doc.Channel(names[i]).Current; c != nil && s.old[m] == "" {
				s.old[m] = c.Digest
			}
		}
	} else {
		s.floor = &state.Doc{Channels: map[string]*state.Channel{}}
	}
	for _, m := range s.models {
		if s.next[m] == "" {
			s.next[m] = s.old[m]
		}
	}
	f := fsx.NewFaulty(s.base.CrashClone(100, nil))
	heard := &tape{}
	d, err := s.boot(s.t.Context(), f, heard, mutant{})
	s.must(err)
	if err := s.act(s.t.Context(), d); (err != nil) != s.refuses {
		s.t.Fatalf("%s without faults: %v", s.name, err)
	}
	for _, m := range s.models {
		if cur, _ := d.server.serving(m); cur != s.next[m] {
			s.t.Fatalf("%s without faults serves %s", s.name, cur.Short())
		}
	}
	d.handed()
	if s.ended != nil {
		s.must(s.ended(d))
	}
	s.ops, s.ahead = f.Count(), heard.fetched
	s.d = nil
	return s.scenario
}

// cutWhen replaces base by what a kill leaves as soon as the document is in a state that want accepts.
func (s *setup) cutWhen(act func(d *faultDevice), want func(doc *state.Doc, disk *fsx.Mem) bool) {
	s.t.Helper()
	disk := s.base.CrashClone(100, nil)
	var cut *fsx.Mem
	look := func() {
		if cut != nil {
			return
		}
		if doc, err := state.ReadOnly(disk, stateDir); err == nil && want(doc, disk) {
			cut = disk.CrashClone(100, nil)
		}
	}
	watched := &layer{
		FS:      disk,
		syncDir: func(name string) error { err := disk.SyncDir(name); look(); return err },
		write:   func(_ string, p []byte) []byte { look(); return p },
	}
	if d, err := s.boot(s.t.Context(), watched, &tape{}, mutant{}); err == nil {
		act(d)
	}
	if cut == nil {
		s.t.Fatalf("%s: no operation leaves the state that it begins with", s.name)
	}
	s.base = cut
}

var prepared struct {
	sync.Mutex
	all []*scenario
}

// allScenarios prepares the states once for all tests; each run works on copies.
func allScenarios(t testing.TB) []*scenario {
	t.Helper()
	prepared.Lock()
	defer prepared.Unlock()
	if prepared.all == nil {
		prepared.all = scenarios(t)
	}
	return prepared.all
}

func scenarios(t testing.TB) []*scenario {
	t.Helper()
	var out []*scenario
	add := func(s *setup) { out = append(out, s.done()) }
	byHand := func(to artifact.Digest) func(context.Context, *faultDevice) error {
		return func(ctx context.Context, d *faultDevice) error {
			_, err := d.Rollback(ctx, "prod", to)
			return err
		}
	}

	s := begin(t, "first-install")
	s.publish("1.0 good")
	add(s)

	s = begin(t, "update", "1.0 good")
	s.publish("2.0 good")
	add(s)

	s = begin(t, "update-again", "1.0 good", "2.0 good")
	s.publish("3.0 good")
	add(s)

	s = begin(t, "update-with-sweep", "1.0 a", "2.0 a", "3.0 a", "4.0 a", "5.0 a", "6.0 a", "7.0 a")
	s.publish("8.0 good")
	add(s)

	s = begin(t, "update-raises-epoch", "1.0 good")
	s.publish("2.0 good", func(c *channel.Change) { c.EpochFloor, c.Target.Epoch = 1, 1 })
	add(s)

	s = begin(t, "update-large", "1.0 good")
	text := "2.0 " + strings.Repeat("x", largeSize-4)
	s.large = artifact.DigestOf([]byte(text))
	s.publish(text)
	add(s)

	s = begin(t, "download-resumed", "1.0 good")
	s.large = artifact.DigestOf([]byte(text))
	s.publish(text)
	s.cutWhen(func(d *faultDevice) { _ = d.poll(t.Context()) }, func(doc *state.Doc, disk *fsx.Mem) bool {
		es, err := disk.ReadDir(stateDir + "/tmp")
		if err != nil || len(es) == 0 {
			return false
		}
		info, err := es[0].Info()
		return err == nil && info.Size() > largeSize/2
	})
	add(s)

	s = begin(t, "update-on-a-full-disk", "1.0 good")
	big := "2.0 " + strings.Repeat("y", 40<<10)
	s.publish(big)
	s.edit = func(c *Config) { c.Reserve = 4 << 10 }
	s.garbage(3, 30<<10)
	s.base.SetCapacity(s.base.Used() + 30<<10)
	add(s)

	for _, how := range []string{"slow", "failing", "wrong", "unloadable"} {
		s = begin(t, "automatic-rollback-"+how, "1.0 good", "2.0 good")
		bad := s.publish("9.0 " + how)
		s.next["churn"], s.refuses = "", true
		if how == "slow" || how == "failing" {
			s.trial = map[string]artifact.Digest{"churn": bad.Digest}
		}
		add(s)
	}

	s = begin(t, "rollback-by-record", "1.0 good", "2.0 good")
	s.rollbackRecord("1.0 good")
	add(s)

	s = begin(t, "rollback-by-hand", "1.0 good", "2.0 good")
	s.next["churn"] = s.target("1.0 good").Digest
	s.act = byHand("")
	s.ends = map[string]artifact.Digest{"churn": s.target("2.0 good").Digest}
	add(s)

	s = begin(t, "rollback-by-hand-to-digest", "1.0 good", "2.0 good", "3.0 good")
	s.next["churn"] = s.target("1.0 good").Digest
	s.act = byHand(s.next["churn"])
	s.ends = map[string]artifact.Digest{"churn": s.target("3.0 good").Digest}
	add(s)

	s = begin(t, "rollback-resumed", "1.0 good", "2.0 good")
	s.next["churn"] = s.target("1.0 good").Digest
	s.cutWhen(func(d *faultDevice) { _ = byHand("")(t.Context(), d) }, func(doc *state.Doc, _ *fsx.Mem) bool {
		in := doc.Channel("prod").Intent
		return in != nil && in.Kind == state.Rollback
	})
	v1 := s.next["churn"]
	s.act = func(_ context.Context, d *faultDevice) error { return at(d, v1) }
	add(s)

	s = begin(t, "update-resumed-in-trial", "1.0 good")
	s.publish("2.0 good")
	s.cutWhen(func(d *faultDevice) { _ = d.poll(t.Context()) }, func(doc *state.Doc, _ *fsx.Mem) bool {
		in := doc.Channel("prod").Intent
		return in != nil && in.Step == state.Trial
	})
	s.next["churn"] = ""
	add(s)

	s = begin(t, "crash-loop", "1.0 good")
	s.publish("2.0 good")
	for n := range 3 {
		s.cutWhen(func(d *faultDevice) { _ = d.poll(t.Context()) }, func(doc *state.Doc, _ *fsx.Mem) bool {
			c := doc.Channel("prod")
			return c.Intent != nil && c.Intent.Step == state.Staged && c.Crashes == n
		})
	}
	s.next["churn"] = ""
	add(s)

	// Its only artifact, after a start that did not come to its end: two more deaths, and it serves all the same.
	s = begin(t, "only-artifact-after-a-death", "1.0 good")
	s.cutWhen(func(*faultDevice) {}, func(doc *state.Doc, _ *fsx.Mem) bool { return doc.Starts == 1 })
	add(s)

	s = begin(t, "sweep-alone", "1.0 good", "2.0 good", "3.0 good")
	s.garbage(4, 2000)
	s.act = func(_ context.Context, d *faultDevice) error {
		d.disk.Lock()
		defer d.disk.Unlock()
		_, err := d.sweep()
		return err
	}
	add(s)

	s = begin(t, "journal-alone", "1.0 good")
	s.act = func(_ context.Context, d *faultDevice) error {
		f := d.followers[0]
		for i := range 6 {
			kind := KindAlarm
			if i%2 == 1 {
				kind = KindRefused // final: signed at once
			}
			if err := f.change(func(c *state.Channel) error { return nil }, f.about(kind, state.Slot{}, 1, fmt.Sprint("event ", i))); err != nil {
				return err
			}
		}
		if n := len(d.Store.Doc().Outbox); d.Journal.Serial() < d.Store.Doc().Events {
			return fmt.Errorf("%d events wait", n)
		}
		return nil
	}
	add(s)

	s = begin(t, "checkpoint-alone", "1.0 good")
	s.act = func(_ context.Context, d *faultDevice) error {
		for range 3 {
			if _, err := d.Journal.Append(journal.Entry{At: d.clock.Now(), Kind: KindAlarm}); err != nil {
				return err
			}
			if _, err := d.Journal.Checkpoint(d.clock.Now()); err != nil {
				return err
			}
		}
		return nil
	}
	add(s)

	s = begin(t, "trust-next", "1.0 good")
	s.trustStep(nil)
	s.publish("2.0 good")
	add(s)

	s = begin(t, "trust-walk-of-three", "1.0 good")
	for range 3 {
		s.trustStep(nil)
	}
	s.publish("2.0 good")
	add(s)

	s = begin(t, "trust-denies-what-runs", "1.0 good")
	runs := s.target("1.0 good").Digest
	s.trustStep(func(d *trust.Document) { d.Denied = append(d.Denied, runs) })
	s.publish("2.0 good")
	add(s)

	s = begin(t, "new-generation", "1.0 good")
	fresh, stolen := verifytest.NewKey(t, "deployer 2", trust.RoleDeployer), s.world.Keys[trust.RoleDeployer]
	s.trustStep(func(d *trust.Document) {
		d.Keys = append(d.Keys, fresh.Entry())
		d.Revoked, d.Generation = append(d.Revoked, stolen.ID), 2
	})
	s.world.Keys[trust.RoleDeployer] = fresh
	s.publish("2.0 good", func(c *channel.Change) { c.Generation = 2 })
	add(s)

	s = begin(t, "refresh", "1.0 good")
	r, err := channel.Extend(s.world.head, s.world.Now.Add(time.Hour), s.world.Now.Add(7*24*time.Hour+time.Hour))
	s.must(err)
	s.world.push(trust.RoleRefresher, r)
	add(s)

	s = begin(t, "expired-record", "1.0 good")
	s.publish("2.0 good", func(c *channel.Change) {
		c.Issued, c.Expires = s.world.Now.Add(-9*24*time.Hour), s.world.Now.Add(-2*24*time.Hour)
	})
	s.next["churn"], s.refuses = "", true
	add(s)

	s = begin(t, "fork-at-one-seq", "1.0 good")
	head := s.world.head
	s.commit("2.0 good")
	s.world.head = head
	s.publish("3.0 other")
	s.next["churn"], s.refuses = "", true
	add(s)

	s = begin(t, "fork-before", "1.0 good")
	head = s.world.head
	s.commit("2.0 good")
	s.world.head = head
	s.publish("3.0 other")
	s.publish("4.0 good")
	add(s)

	s = begin(t, "update-that-waited", "1.0 good")
	s.publish("2.0 good")
	s.local = func() Local { return waitsFor("") }
	s.act = func(ctx context.Context, d *faultDevice) error {
		for _, no := range []deviceinput.Action{deviceinput.Download, deviceinput.Activate, ""} {
			d.Agent.Local = waitsFor(no)
			if err := d.poll(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	add(s)

	s = begin(t, "fallback-from-damaged", "1.0 good", "2.0 good")
	s.must(fsx.WriteFileAtomic(s.base, s.device().blobs.Path(artifact.DigestOf([]byte("2.0 good"))), []byte("2.0 g00d"), 0o400))
	s.old["churn"] = s.target("1.0 good").Digest
	s.next["churn"] = s.target("2.0 good").Digest
	add(s)

	for _, breaks := range []bool{false, true} {
		s = begin(t, map[bool]string{false: "carrier-alters", true: "carrier-breaks"}[breaks], "1.0 good")
		s.publish("2.0 good")
		module := artifact.DigestOf([]byte("2.0 good"))
		s.carrier = func(_ *faultDevice, c Carrier) Carrier {
			return once{Carrier: c, mu: &sync.Mutex{}, done: map[artifact.Digest]bool{}, of: module, breaks: breaks}
		}
		s.act = func(ctx context.Context, d *faultDevice) error {
			_ = d.poll(ctx)
			return d.poll(ctx)
		}
		add(s)
	}

	for _, second := range []string{"2.0 good m2", "9.0 slow m2"} {
		add(twoChannels(t, second))
	}

	// The second channel commits and sweeps while the first is on trial.
	s = twoChannels(t, "2.0 good m2")
	s.name = "two-channels-at-once"
	s.act = func(ctx context.Context, d *faultDevice) error {
		first, second := d.followers[0], d.followers[1]
		var other error
		busy := false
		d.clock.onSleep = func() {
			if !busy {
				busy = true // its own trial sleeps too
				other = second.look(ctx, true)
			}
		}
		err := first.look(ctx, true)
		d.clock.onSleep = nil
		return errors.Join(err, other)
	}
	add(s)

	moreScenarios(t, add)
	return out
}

// at tells whether the device is committed to a digest.
func at(d *faultDevice, want artifact.Digest) error {
	c := d.followers[0].state()
	if c.Intent != nil || c.Current == nil || c.Current.Digest != want {
		return fmt.Errorf("not at %s", want.Short())
	}
	return nil
}

func waitsFor(no deviceinput.Action) *fakeLocal {
	return &fakeLocal{digest: verifytest.Policy, decide: func(ask *deviceinput.Document) (bool, string) { return ask.Action != no, "not now" }}
}

// garbage stores n blobs and partial downloads that nothing names.
func (s *setup) garbage(n, size int) {
	s.t.Helper()
	b := s.device().blobs
	rng := rand.New(rand.NewPCG(3, 3))
	for range n {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		_, err := b.Put(s.t.Context(), data)
		s.must(err)
		f, err := s.base.Create(stateDir+"/tmp/"+artifact.DigestOf(data[:9]).Hex(), 0o600)
		s.must(err)
		_, err = f.Write(data[:size/2])
		s.must(errors.Join(err, f.Sync(), f.Close(), s.base.SyncDir(stateDir+"/tmp")))
	}
}

// rollbackRecord publishes a record that goes back to text.
func (s *setup) rollbackRecord(text string) {
	s.t.Helper()
	target := s.target(text)
	r, err := channel.RollBack(s.world.head, target.Digest, "recall fell", s.world.change(target))
	s.must(err)
	s.world.push(trust.RoleDeployer, r)
	s.next["churn"] = target.Digest
}

// trustStep publishes the next version of the trust document.
func (s *setup) trustStep(change func(*trust.Document)) {
	s.t.Helper()
	s.world.Doc = version(s.t, s.world.Doc, change)
	s.world.tag(s.world.Trust(), TrustTag(s.world.Doc.Version))
}

// twoChannels has a device that follows two channels, both with an update; second is the second one's.
func twoChannels(t testing.TB, second string) *setup {
	t.Helper()
	base, ls, edit := lines(t, 2)
	s := begin(t, "two-channels")
	s.world, s.edit, s.models = base, edit, []string{"m1", "m2"}
	publish := func(i int, text string) artifact.Digest {
		target := ls[i].publish(text)
		s.texts[target.Digest] = text
		return target.Digest
	}
	for _, v := range []string{"1.0", "1.1"} {
		for i := range ls {
			publish(i, fmt.Sprintf("%s good m%d", v, i+1))
		}
		s.must(s.device().poll(t.Context()))
	}
	s.next["m1"] = publish(0, "2.0 good m1")
	if d := publish(1, second); strings.Contains(second, "slow") {
		s.name += "-one-fails"
		s.trial, s.refuses = map[string]artifact.Digest{"m2": d}, true
	} else {
		s.next["m2"] = d
	}
	return s
}
