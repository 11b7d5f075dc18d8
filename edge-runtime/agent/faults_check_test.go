package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// The invariants. Each violation begins with its name.
//
//	I1  whatever served before, something serves after: in the process that met the fault, after the restart, and after a restart
//	    on a disk that is still full or read-only
//	I2  what serves is the old artifact or the new one, the whole of it, and the one that the document names
//	I3  what was acknowledged is there after the power cut
//	I4  seq, generation, epoch floor, time floor and trust version never fall; quarantine and pin are not lost
//	I5  every artifact that a rollback may go to is whole
//	I6  the journal verifies, and what it acknowledged is a prefix of it
//	I7  a few polls lead to the end state
//	I8  after a restart there is no half state: no intent, no temporary file
//	I9  no file is left that nothing names
//	IA  what failed its trial, or was on trial when the process died, is not tried again
//	IB  a rollback by hand works, and survives another power cut
//	IC  every decision is in the journal, and the last final one is signed
//	ID  a report that was put away waits until it was taken, whole, and the last one tells what serves
//	IE  what the scenario itself has to leave is there

// faultServer serves several models and remembers what it ever served.
type faultServer struct {
	mu    sync.Mutex
	names map[string]*fakeServer
	seen  map[artifact.Digest]bool
}

func (s *faultServer) of(name string) *fakeServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == nil {
		s.names[name] = &fakeServer{}
	}
	return s.names[name]
}

// Swap implements Server.
func (s *faultServer) Swap(name string, slot state.Slot, m Model) (<-chan struct{}, error) {
	gone, err := s.of(name).Swap(name, slot, m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m != nil && err == nil {
		s.seen[slot.Digest] = true
	}
	return gone, err
}

// Stats implements Server.
func (s *faultServer) Stats(name string) Stats { return s.of(name).Stats(name) }

// serving gives the digest behind name and the text of the module that was loaded for it.
func (s *faultServer) serving(name string) (artifact.Digest, string) {
	one := s.of(name)
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.live == nil {
		return "", ""
	}
	return one.live.digest, one.live.text
}

// times is how often a digest was put into service as name.
func (s *faultServer) times(name string, d artifact.Digest) (n int) {
	one := s.of(name)
	one.mu.Lock()
	defer one.mu.Unlock()
	for _, seen := range one.seen {
		if seen == d {
			n++
		}
	}
	return n
}

// faultDevice is a process under test.
type faultDevice struct {
	*Agent
	server  *faultServer
	clock   *fakeClock
	shadows *fakeShadower // nil: the scenario has no shadow run
	spool   *report.Spool // nil: the scenario has no reports
	tape    *tape
}

// Report implements Reporter.
func (*faultDevice) Report(context.Context, state.Slot, []byte) error { return nil }

func (d *faultDevice) channel() *state.Channel { return d.Store.Doc().Channel("prod") }

// poll looks at every channel once.
func (d *faultDevice) poll(ctx context.Context) error {
	var errs []error
	for _, f := range d.followers {
		errs = append(errs, f.look(ctx, true))
	}
	d.handed()
	return errors.Join(errs...)
}

// tape is what a run hears from outside of its processes.
type tape struct {
	fetched int64 // bytes of the scenario's large layer
	told    reports
}

// counted counts the bytes that a carrier gives of the digests that it is told to watch.
type counted struct {
	Carrier
	of    artifact.Digest
	bytes *int64
}

func (c counted) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := c.Carrier.Open(ctx, d, offset)
	if err != nil || d.Digest != c.of {
		return r, err
	}
	return countingReader{r, c.bytes}, nil
}

type countingReader struct {
	io.ReadCloser
	n *int64
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	*c.n += int64(n)
	return n, err
}

// boot starts the agent of the scenario as waybill-edge does. The device is nil when it could not start at all; an error beside a
// device says that a channel serves nothing.
func (s *scenario) boot(ctx context.Context, fsys fsx.FS, heard *tape, mu mutant) (*faultDevice, error) {
	d := &faultDevice{server: &faultServer{names: map[string]*fakeServer{}, seen: map[artifact.Digest]bool{}}, clock: &fakeClock{now: s.world.Now}, tape: heard}
	if mu.fs != nil {
		fsys = mu.fs(fsys)
	}
	store, err := state.Open(fsys, stateDir)
	if err != nil {
		return nil, err
	}
	_ = store.Clean(func(string) bool { return true })
	var signer journal.Signer = journalSigner{s.world.key}
	if mu.signer != nil {
		signer = mu.signer
	}
	j, damaged, err := journal.Open(fsys, filepath.Join(stateDir, "journal.log"), store.Doc().Journal, signer, d.clock.Now())
	if err == nil && damaged != nil {
		err = damaged // no fault may damage it
	}
	if err != nil {
		return nil, err
	}
	if s.files > 0 {
		j.Bound(fileBytes, s.files)
	}
	cfg := Config{
		Class: "edge-s", Labels: map[string]string{"site": "a"}, Version: "0.1.0",
		TrustFile: s.trust, TrustVersion: s.trustRef.Version, TrustDigest: s.trustRef.Digest,
		Channels: []Channel{{
			Name: "prod", Env: "prod", Model: "churn", ResourceURI: "waybill:ml/churn", Interval: time.Minute,
			Trial:   Trial{Duration: time.Minute, MinRequests: 10, MaxErrorRate: 0.01, P99: 5 * time.Millisecond},
			Carrier: s.world.reg, Reporter: d,
		}},
	}
	if s.edit != nil {
		s.edit(&cfg)
	}
	for i := range cfg.Channels {
		if s.carrier != nil {
			cfg.Channels[i].Carrier = s.carrier(d, cfg.Channels[i].Carrier)
		}
		cfg.Channels[i].Carrier = counted{cfg.Channels[i].Carrier, s.large, &heard.fetched}
	}
	if s.reports {
		d.openSpool(fsys, &cfg)
	}
	deps := Deps{
		FS: fsys, Store: store, Journal: j, Runtime: &fakeRuntime{}, Server: d.server, Signer: s.world.key, Clock: d.clock,
		Log: slog.New(slog.DiscardHandler),
	}
	if s.local != nil {
		deps.Local = s.local()
	}
	if s.shadow != nil {
		d.shadows = &fakeShadower{results: slices.Clone(s.shadow)}
		deps.Shadows = d.shadows
	}
	if d.Agent, err = New(ctx, cfg, deps); err != nil {
		return nil, err
	}
	if mu.agent != nil {
		mu.agent(d.Agent)
	}
	err = d.Start(ctx)
	if err != nil && s.deadly {
		// What ended the process before has its turn after a bounded wait, and what the channel offers instead at once.
		d.Agent.began = d.Agent.began.Add(-24 * time.Hour)
		_ = d.poll(ctx)
		err = nil
		for _, f := range d.followers {
			if f.live == nil {
				err = errors.Join(err, fmt.Errorf("%s serves nothing, a day after the start", f.cfg.Model))
			}
		}
	}
	return d, err
}

// outcome of one run.
type outcome struct {
	violations []string
	fired      string
	boot       time.Duration // of the restart
	large      bool          // the scenario fetches one file of largeSize bytes, and it came
	lost       bool          // the cut took something that was not synced
	again      int64         // bytes of it that came twice
}

// known is what was acknowledged, and so must never be less.
type known struct {
	doc  *state.Doc
	head journal.Head
}

// learn takes what a process has acknowledged. After a failed save the document in memory may be one that is not durable.
func (k *known) learn(d *faultDevice, dead bool) {
	if d == nil {
		return
	}
	if !d.Store.Unsure() || dead {
		k.doc = d.Store.Doc()
	}
	if h := d.Journal.Head(); h.Entries > k.head.Entries {
		k.head = h
	}
}

func (s *scenario) run(ctx context.Context, r faultRun, mu mutant) (out outcome) {
	rng := rand.New(rand.NewPCG(r.seed, 17))
	heard := &tape{}
	heard.told.put, heard.told.acked = slices.Clone(s.told), len(s.told)
	mem := s.base.CrashClone(100, rng)
	mem.IgnoreSyncs(mu.lazy)
	f := fsx.NewFaulty(mem)
	f.Arm(r.at, r.kind)
	low := known{doc: s.floor}
	bad := func(format string, args ...any) {
		out.violations = append(out.violations, fmt.Sprintf(format, args...))
	}

	defer func() {
		if p := recover(); p != nil {
			bad("I1 panic: %v\n%s", p, debug.Stack())
		}
	}()
	acked, tried := false, map[artifact.Digest]bool{}
	d, err := s.boot(ctx, f, heard, mu)
	if d != nil && err == nil {
		err := s.act(ctx, d)
		d.handed()
		acked = err == nil && !f.Dead() && !s.refuses
		for range r.stay {
			if f.Dead() {
				break
			}
			_ = d.poll(ctx)
		}
		s.serves(d, "in the process that met the fault", !f.Dead() && !d.Store.Unsure() && !r.kind.Lasts(), bad)
		for dig := range d.server.seen {
			tried[dig] = f.Dead()
		}
		for model, failed := range s.trial {
			if n := d.server.times(model, failed); n > 1 {
				bad("IA %s failed and went on trial %d times in one process", failed.Short(), n)
			}
		}
		if d.shadows != nil && d.shadows.stopped != len(d.shadows.pairs) {
			bad("IE %d shadow runs began, %d were ended", len(d.shadows.pairs), d.shadows.stopped)
		}
	} else if s.old[s.models[0]] != "" && !f.Dead() && (d != nil && r.kind != fsx.DeadDisk || r.kind == fsx.FullDisk || r.kind == fsx.ReadOnly) {
		bad("I1 nothing serves after the start: %v", err)
	}
	out.fired = f.Fired()
	low.learn(d, f.Dead())
	crashed := mem.Crash(r.cut, rng)
	if r.again > 0 {
		f2 := fsx.NewFaulty(crashed)
		crashed.IgnoreSyncs(mu.lazy)
		f2.Arm(r.again, r.kind)
		d2, err := s.boot(ctx, f2, heard, mu)
		if d2 != nil && err == nil {
			_ = d2.poll(ctx)
		}
		out.fired += ", then " + f2.Fired()
		low.learn(d2, f2.Dead())
		crashed = crashed.Crash(r.cut, rng)
	}
	if (r.kind == fsx.FullDisk || r.kind == fsx.ReadOnly) && s.old[s.models[0]] != "" {
		f3 := fsx.NewFaulty(crashed.CrashClone(100, rng))
		f3.Arm(1, r.kind)
		d3, err := s.boot(ctx, f3, &tape{}, mu)
		if d3 == nil || err != nil {
			bad("I1 no start while the disk stays %s: %v", r.kind, err)
		} else {
			s.serves(d3, "while the disk stays "+r.kind.String(), false, bad)
		}
	}
	began := time.Now()
	again, err := s.boot(ctx, crashed, heard, mu)
	out.boot = time.Since(began)
	if again == nil || err != nil {
		bad("I1 no start after the fault: %v", err)
		return out
	}
	s.check(ctx, r, again, crashed, low, acked, tried, bad)
	if s.reports {
		again.deliver(ctx)
		heard.told.check(bad)
	}
	s.finish(ctx, again, crashed, mu, r.again > 0, rng, bad)
	if s.large != "" && again.server.seen[s.next[s.models[0]]] && r.again == 0 {
		out.large, out.lost, out.again = true, r.cut.Percent < 100 || r.cut.Zeros, heard.fetched-s.ahead
	}
	return out
}

// serves checks I1 and I2 in a process; settled says that the document and what serves must agree.
func (s *scenario) serves(d *faultDevice, when string, settled bool, bad func(string, ...any)) {
	for i, model := range s.models {
		cur, text := d.server.serving(model)
		ok := cur == s.old[model] || cur == s.next[model]
		for _, a := range s.also {
			ok = ok || cur == a
		}
		switch {
		case s.old[model] != "" && cur == "":
			bad("I1 nothing serves as %s %s", model, when)
		case !ok:
			bad("I2 %s serves as %s %s", cur.Short(), model, when)
		case cur != "" && text != s.texts[cur]:
			bad("I2 %s serves with other content %s", cur.Short(), when)
		}
		c := d.followers[i].state()
		if settled && c.Intent == nil && c.Current != nil && c.Current.Digest != cur {
			bad("I2 %s serves, the document says %s, %s", cur.Short(), c.Current.Digest.Short(), when)
		}
	}
}

// check is what must hold at once after the restart.
func (s *scenario) check(ctx context.Context, r faultRun, d *faultDevice, disk *fsx.Mem, low known, acked bool, tried map[artifact.Digest]bool, bad func(string, ...any)) {
	s.serves(d, "after the restart", true, bad)
	doc := d.Store.Doc()
	if doc.Trust.Version < low.doc.Trust.Version || doc.TimeFloor.Before(low.doc.TimeFloor) {
		bad("I4 trust version %d and time %s, acknowledged %d and %s", doc.Trust.Version, doc.TimeFloor, low.doc.Trust.Version, low.doc.TimeFloor)
	}
	if doc.Events < low.doc.Events || doc.Serial < low.doc.Serial {
		bad("I3 document %d with %d events, acknowledged %d with %d", doc.Serial, doc.Events, low.doc.Serial, low.doc.Events)
	}
	for i, model := range s.models {
		f := d.followers[i]
		c, was := doc.Channel(f.cfg.Name), low.doc.Channel(f.cfg.Name)
		// Also what a later poll of the same process, or the process between, committed.
		start := s.floor.Channel(f.cfg.Name).Current
		reached := was.Current != nil && was.Current.Digest == s.next[model] && (start == nil || start.Digest != s.next[model])
		if (acked || reached) && (c.Current == nil || c.Current.Digest != s.next[model]) {
			bad("I3 acknowledged %s as %s, found %+v", s.next[model].Short(), model, c.Current)
		}
		if c.Generation < was.Generation || c.Generation == was.Generation && c.Seq < was.Seq || c.EpochFloor < was.EpochFloor {
			bad("I4 generation %d seq %d epoch %d, acknowledged %d %d %d", c.Generation, c.Seq, c.EpochFloor, was.Generation, was.Seq, was.EpochFloor)
		}
		if c.Seq == was.Seq && c.Generation == was.Generation {
			for q := range was.Quarantine {
				if _, ok := c.Quarantine[q]; !ok {
					bad("I4 the quarantine of %.19s is lost", q)
				}
			}
			if was.Pinned != nil && c.Pinned == nil && !s.unpins {
				bad("I4 the pin is lost")
			}
			if was.Frozen != nil && c.Frozen == nil {
				bad("I4 the freeze is lost")
			}
		}
		for _, slot := range c.Slots() {
			if slot.Committed.IsZero() {
				continue
			}
			if _, err := f.checkBlobs(ctx, slot); err != nil {
				bad("I5 %s of %s: %v", slot.Version, model, err)
			}
		}
		if c.Intent != nil {
			bad("I8 after a restart: intent %s at %s", c.Intent.Kind, c.Intent.Step)
		}
		// What went on trial and was not committed when the process died.
		next := s.next[model]
		if target, ok := s.trial[model]; ok {
			next = target
		}
		if _, before := s.floor.Channel(f.cfg.Name).Committed(next); tried[next] && !before && next != s.old[model] && c.Current != nil && c.Current.Digest != next {
			if c.Barred(next, c.Generation, c.Seq) == "" && !(s.overtaken && c.Frozen != nil) {
				bad("IA %s was on trial when the process died and may be tried again", next.Short())
			}
		}
	}
	names, err := disk.ReadDir(stateDir)
	if err != nil {
		bad("I8 %v", err)
	}
	for _, e := range names {
		if fsx.IsTemp(e.Name()) {
			bad("I8 %s is left", e.Name())
		}
	}
	head := doc.Journal
	if low.head.Entries > head.Entries {
		head = low.head
	}
	if _, err := journal.Verify(disk, filepath.Join(stateDir, "journal.log"), head, journalSigner{s.world.key}); err != nil {
		bad("I6 %v", err)
	}
}

// finish goes on after the restart: the end state is reached, a rollback by hand works, and nothing is left over.
func (s *scenario) finish(ctx context.Context, d *faultDevice, disk *fsx.Mem, mu mutant, twice bool, rng *rand.Rand, bad func(string, ...any)) {
	var last error
	for range 4 {
		last = d.poll(ctx)
	}
	// What the process died over three times in a row is given up, with the reason in the journal: two faults in a scenario that begins with one.
	gaveUp := false
	if told, err := d.History(64); err == nil && twice {
		gaveUp = slices.ContainsFunc(told, func(e journal.Entry) bool {
			return strings.Contains(e.Reason, "times while it was loaded") || strings.Contains(e.Reason, "times in the middle of it")
		})
	}
	for i, model := range s.models {
		c := d.followers[i].state()
		_, barred := c.Quarantine[string(s.end(model))]
		if cur, _ := d.server.serving(model); cur != s.end(model) && !barred && c.Pinned == nil && !gaveUp {
			bad("I7 %s serves as %s after four polls: %v", cur.Short(), model, last)
		}
	}
	if s.ended != nil && !gaveUp {
		if err := s.ended(d); err != nil {
			bad("IE %v; last poll: %v", err, last)
		}
	}
	if s.reports {
		d.deliver(ctx)
		d.tape.told.last(d, bad)
	}
	f := d.followers[0]
	c := f.state()
	if c.Previous != nil && c.Previous.Epoch >= c.EpochFloor && !d.Trust().IsDenied(c.Previous.Digest) {
		want := c.Previous.Digest
		if _, err := d.Rollback(ctx, f.cfg.Name, ""); err != nil {
			bad("IB rollback by hand: %v", err)
			return
		}
		if cur, text := d.server.serving(s.models[0]); cur != want || text != s.texts[cur] {
			bad("IB after a rollback by hand to %s serves %s", want.Short(), cur.Short())
		}
		if rng.IntN(4) == 0 {
			after, err := s.boot(ctx, disk.CrashClone(0, rng), &tape{}, mu)
			if after == nil || err != nil {
				bad("IB no start after a rollback by hand: %v", err)
				return
			}
			if cur, _ := after.server.serving(s.models[0]); cur != want {
				bad("IB %s serves after a rollback by hand to %s and a power cut", cur.Short(), want.Short())
			}
		}
	}
	path := filepath.Join(stateDir, "journal.log")
	rep, err := journal.Verify(disk, path, d.Journal.Head(), journalSigner{s.world.key})
	if err != nil {
		bad("I6 at the end: %v", err)
	}
	entries, err := journal.Read(disk, path, 0)
	if err != nil {
		bad("I6 at the end: %v", err)
	}
	noted, oldest := map[uint64]bool{}, uint64(1)
	if len(entries) > 0 && entries[0].Kind == journal.KindSegment {
		oldest = entries[0].Serial + 1 // older files are gone, as they should be
	}
	for _, e := range entries {
		noted[e.Serial] = true
		if final(e.Kind) && e.N > rep.Signed && e.Serial > 0 {
			bad("IC entry %d (%s) is not signed, %d are", e.N, e.Kind, rep.Signed)
		}
	}
	for n := oldest; n <= d.Store.Doc().Events; n++ {
		if !noted[n] {
			bad("IC decision %d is not in the journal", n)
		}
	}
	s.leftovers(d, disk, bad)
}

// leftovers checks I9 with its own list of what a device needs.
func (s *scenario) leftovers(d *faultDevice, disk *fsx.Mem, bad func(string, ...any)) {
	d.followers[0].tidy()
	need := map[string]bool{}
	doc := d.Store.Doc()
	name := func(d artifact.Digest) string { return strings.TrimPrefix(string(d), "sha256:") }
	need[name(doc.Trust.File)] = true
	for _, c := range doc.Channels {
		need[name(c.Record)] = true
		slots := c.Slots()
		if c.Waiting != nil {
			slots = append(slots, c.Waiting.Slot)
		}
		for _, slot := range slots {
			need[name(slot.Digest)] = true
			raw, err := fsx.ReadFile(disk, d.blobs.Path(slot.Digest), artifact.MaxManifest)
			if err != nil {
				continue // I5 has looked at those that matter
			}
			m, err := artifact.ParseModel(raw)
			if err != nil {
				bad("I9 manifest %s: %v", slot.Digest.Short(), err)
				continue
			}
			for _, l := range m.Layers {
				need[name(l.Digest)] = true
			}
		}
	}
	for _, dir := range []string{"blobs/sha256", "tmp"} {
		es, err := disk.ReadDir(filepath.Join(stateDir, filepath.FromSlash(dir)))
		if err != nil {
			bad("I9 %v", err)
		}
		for _, e := range es {
			if !need[e.Name()] {
				bad("I9 %s/%.12s is left", dir, e.Name())
			}
		}
	}
}

// once is a carrier whose first answer for a digest has one wrong byte, or breaks off in the middle.
type once struct {
	Carrier
	mu     *sync.Mutex
	done   map[artifact.Digest]bool
	of     artifact.Digest
	breaks bool
}

func (o once) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := o.Carrier.Open(ctx, d, offset)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil || d.Digest != o.of || o.done[d.Digest] {
		return r, err
	}
	o.done[d.Digest] = true
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if o.breaks {
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), broken{})), nil
	}
	b[len(b)/2] ^= 1
	return io.NopCloser(bytes.NewReader(b)), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
