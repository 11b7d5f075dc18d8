package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// moreScenarios adds what a device does beside updates from one channel: its factory artifact, comparisons on copies of requests,
// frozen channels, reports that wait, a journal of several files, rotated root keys and records that keep much.
func moreScenarios(t testing.TB, add func(*setup)) {
	factoryScenarios(t, add)
	shadowScenarios(t, add)
	freezeScenarios(t, add)
	reportScenarios(t, add)
	journalScenarios(t, add)
	keyScenarios(t, add)
	deathScenarios(t, add)
}

// factory gives the device an artifact that it was delivered with.
func (s *setup) factory(text string) artifact.Digest {
	s.t.Helper()
	fac := s.world.factory(text)
	s.texts[fac.Digest] = text
	s.edit = withFactory(fac)
	s.d = nil
	return fac.Digest
}

// factoryIs tells whether the document names d as the factory artifact.
func factoryIs(d artifact.Digest) func(*faultDevice) error {
	return func(dev *faultDevice) error {
		if c := dev.channel(); c.Factory == nil || c.Factory.Digest != d {
			return fmt.Errorf("the factory artifact is %+v, not %s", c.Factory, d.Short())
		}
		return nil
	}
}

func unreachable(*faultDevice, Carrier) Carrier { r := newRegistry(); r.down = true; return r }

func factoryScenarios(t testing.TB, add func(*setup)) {
	s := begin(t, "factory-first-start")
	fac := s.factory("0.1 good")
	s.next["churn"], s.carrier = fac, unreachable
	s.act = func(_ context.Context, d *faultDevice) error { return at(d, fac) }
	s.ended = factoryIs(fac)
	add(s)

	s = begin(t, "factory-update-from-it")
	fac = s.factory("0.1 good")
	s.device()
	s.publish("1.0 good")
	s.ended = factoryIs(fac)
	add(s)

	s = begin(t, "factory-update-with-sweep")
	fac = s.factory("0.1 good")
	for n := range 7 {
		s.commit(fmt.Sprintf("%d.0 a", n+1))
	}
	s.publish("8.0 good")
	s.ended = factoryIs(fac)
	add(s)

	s = begin(t, "factory-after-a-failed-trial")
	fac = s.factory("0.1 good")
	s.device()
	bad := s.publish("1.0 slow")
	s.next["churn"], s.refuses, s.trial = "", true, map[string]artifact.Digest{"churn": bad.Digest}
	s.ended = factoryIs(fac)
	add(s)

	s = begin(t, "factory-by-hand")
	fac = s.factory("0.1 good")
	s.commit("1.0 good")
	s.commit("2.0 good")
	s.next["churn"], s.ends = fac, map[string]artifact.Digest{"churn": s.target("2.0 good").Digest}
	s.act = func(ctx context.Context, d *faultDevice) error {
		_, err := d.Rollback(ctx, "prod", fac)
		return err
	}
	s.ended = factoryIs(fac)
	add(s)

	// What was activated has rotted: with no channel in reach the factory artifact serves, with one what it names is fetched again.
	for _, reach := range []bool{false, true} {
		s = begin(t, map[bool]string{false: "factory-as-the-last-resort", true: "factory-until-fetched-again"}[reach])
		fac = s.factory("0.1 good")
		s.commit("1.0 good")
		s.commit("2.0 good")
		for _, text := range []string{"1.0 good", "2.0 good"} {
			path := s.device().blobs.Path(artifact.DigestOf([]byte(text)))
			s.must(fsx.WriteFileAtomic(s.base, path, []byte(strings.Replace(text, "good", "g00d", 1)), 0o400))
		}
		s.old["churn"], s.next["churn"] = fac, s.target("2.0 good").Digest
		if !reach {
			s.next["churn"], s.carrier = fac, unreachable
			from := newRegistry() // what it was copied from is gone too
			from.down = true
			with := s.edit
			s.edit = func(c *Config) { with(c); c.Channels[0].Factory.Source = from }
			s.act = func(_ context.Context, d *faultDevice) error { return at(d, fac) }
		}
		s.ended = factoryIs(fac)
		add(s)
	}

	// The operator delivers another one: it is proved and kept, and what serves goes on.
	s = begin(t, "factory-replaced")
	fac = s.factory("0.1 good")
	s.device()
	second := s.factory("0.2 good")
	s.next["churn"], s.carrier = fac, unreachable
	s.act = func(context.Context, *faultDevice) error { return nil }
	s.ended = factoryIs(second)
	add(s)
}

func shadowScenarios(t testing.TB, add func(*setup)) {
	passes := []shadow.Result{{Compared: 10}, {Seen: 220, Compared: 205, Different: 1}}
	fails := []shadow.Result{{Compared: 10}, {Compared: 50, Different: 30, Largest: 0.25, First: "output y, element 3: 1 against 2"}}
	compared := func(name string, results []shadow.Result) (*setup, artifact.Digest) {
		s := begin(t, name, "1.0 good")
		s.shadow = results
		s.edit = func(c *Config) {
			c.Channels[0].Shadow = Shadow{Requests: 200, Duration: 5 * time.Minute, Sample: 1, MaxDifferent: 0.01}
		}
		s.d = nil
		return s, s.publish("2.0 good").Digest
	}
	inShadow := func(n int) func(*state.Doc, *fsx.Mem) bool {
		return func(doc *state.Doc, _ *fsx.Mem) bool {
			c := doc.Channel("prod")
			return c.Intent != nil && c.Intent.Step == state.Shadow && c.Crashes == n
		}
	}
	s, _ := compared("shadow-passes", passes)
	add(s)

	s, v2 := compared("shadow-differs", fails)
	s.next["churn"], s.refuses = "", true
	s.ended = func(d *faultDevice) error {
		if c := d.channel(); c.Barred(v2, c.Generation, c.Seq) == "" {
			return errors.New("what differs from what serves may be tried again")
		}
		return nil
	}
	add(s)

	s, _ = compared("shadow-interrupted", passes)
	s.cutWhen(func(d *faultDevice) { _ = d.poll(t.Context()) }, inShadow(0))
	add(s)

	s, v2 = compared("shadow-crash-loop", passes)
	for n := range 3 {
		s.cutWhen(func(d *faultDevice) { _ = d.poll(t.Context()) }, inShadow(n))
	}
	s.next["churn"] = ""
	s.ended = func(d *faultDevice) error {
		if c := d.channel(); c.Barred(v2, c.Generation, c.Seq) == "" {
			return errors.New("what the device died over three times may be tried again")
		}
		return nil
	}
	add(s)
}

// late is a carrier whose channel moves on while the device is in the middle of a trial, or at the third look.
type late struct {
	Carrier
	d      *faultDevice
	before artifact.Digest // the record's manifest at first
	seq    int64           // of the record that comes
	looks  *int
}

func (l late) Resolve(ctx context.Context, tag string) (artifact.Digest, error) {
	d, err := l.Carrier.Resolve(ctx, tag)
	if err != nil || tag != channel.Tag("prod") {
		return d, err
	}
	c := l.d.channel()
	if c.Seq >= l.seq || c.Intent != nil && c.Intent.Step == state.Trial || *l.looks >= 2 {
		return d, nil
	}
	*l.looks++
	return l.before, nil
}

func freezeScenarios(t testing.TB, add func(*setup)) {
	frozen := func(reason string) func(*faultDevice) error {
		return func(d *faultDevice) error {
			if f := d.channel().Frozen; (f == nil) != (reason == "") || f != nil && f.Reason != reason {
				return fmt.Errorf("frozen is %+v, want %q", f, reason)
			}
			return nil
		}
	}
	s := begin(t, "freeze", "1.0 good")
	s.publish("2.0 good")
	s.world.freeze("labels are wrong")
	s.next["churn"], s.ended = "", frozen("labels are wrong")
	add(s)

	s = begin(t, "freeze-lifted", "1.0 good")
	s.publish("2.0 good")
	s.world.freeze("labels are wrong")
	s.must(s.device().poll(t.Context()))
	s.world.lift()
	s.ended = frozen("")
	add(s)

	s = begin(t, "freeze-in-a-trial", "1.0 good")
	s.publish("2.0 good")
	tag := s.world.reg.tags[channel.Tag("prod")]
	seq := s.world.freeze("wrong in the field").Record.Seq
	s.edit = func(c *Config) { c.Channels[0].Interval = 10 * time.Second }
	s.carrier = func(d *faultDevice, c Carrier) Carrier { return late{c, d, tag, seq, new(int)} }
	s.next["churn"], s.overtaken = "", true
	s.also = []artifact.Digest{s.target("2.0 good").Digest}
	s.ended = frozen("wrong in the field")
	add(s)

	s = begin(t, "freeze-and-rollback", "1.0 good", "2.0 good")
	s.world.freeze("p99")
	s.must(s.device().poll(t.Context()))
	v1 := s.target("1.0 good")
	c := s.world.change(channel.Target{Digest: v1.Digest})
	c.Freeze = s.world.head.Record.Freeze
	r, err := channel.RollBack(s.world.head, v1.Digest, "p99 over budget", c)
	s.must(err)
	s.world.push(trust.RoleDeployer, r)
	s.next["churn"], s.ended = v1.Digest, frozen("p99")
	add(s)
}

func reportScenarios(t testing.TB, add func(*setup)) {
	reporting := func(name string) *setup {
		s := begin(t, name)
		s.reports = true
		s.commit("1.0 good")
		s.publish("2.0 good")
		return s
	}
	add(reporting("report-waits"))

	s := reporting("report-is-taken")
	s.act = func(ctx context.Context, d *faultDevice) error {
		err := d.poll(ctx)
		d.deliver(ctx)
		return err
	}
	add(s)

	s = reporting("report-is-replaced")
	v1 := s.target("1.0 good").Digest
	s.act = func(ctx context.Context, d *faultDevice) error {
		if err := d.poll(ctx); err != nil {
			return err
		}
		_, err := d.Rollback(ctx, "prod", "")
		return err
	}
	s.ends, s.next["churn"] = map[string]artifact.Digest{"churn": s.next["churn"]}, v1
	s.also = []artifact.Digest{s.ends["churn"]}
	add(s)
}

// fileBytes is how long a file of the journal is in scenarios with several.
const fileBytes = 1500

func journalScenarios(t testing.TB, add func(*setup)) {
	for _, files := range []int{100, 2} {
		s := begin(t, fmt.Sprintf("journal-in-files-of-which-%d-are-kept", files))
		s.files = files
		s.commit("1.0 good")
		s.commit("2.0 good")
		s.publish("3.0 good")
		add(s)
	}
	s := begin(t, "journal-files-alone")
	s.files = 3
	s.commit("1.0 good")
	s.act = func(_ context.Context, d *faultDevice) error {
		f := d.followers[0]
		for i := range 16 {
			if err := f.change(func(*state.Channel) error { return nil }, f.about(KindAlarm, state.Slot{}, 1, fmt.Sprint("event ", i, strings.Repeat(" and more", 20)))); err != nil {
				return err
			}
		}
		return nil
	}
	add(s)
}

func keyScenarios(t testing.TB, add func(*setup)) {
	// The root keys are rotated: a second root and a threshold of two, then the first one is revoked for a third.
	s := begin(t, "trust-rotates-the-root", "1.0 good")
	first := s.world.Keys[trust.RoleRoot]
	b, c := verifytest.NewKey(t, "root B", trust.RoleRoot), verifytest.NewKey(t, "root C", trust.RoleRoot)
	s.trustSigned(func(d *trust.Document) { d.Keys, d.Threshold = append(d.Keys, b.Entry()), 2 }, first, b)
	s.trustSigned(func(d *trust.Document) { d.Keys, d.Revoked = append(d.Keys, c.Entry()), append(d.Revoked, first.ID) }, first, b, c)
	s.publish("2.0 good")
	s.ended = func(d *faultDevice) error {
		if pin := d.Store.Doc().Trust; pin.Version != 3 || d.Trust().Version != 3 {
			return fmt.Errorf("trust document %d is on the disk, %d in force; want 3", pin.Version, d.Trust().Version)
		}
		return nil
	}
	add(s)

	// Everybody's keys change at once, in one document: the record after it is signed by a deployer that was not known before.
	s = begin(t, "trust-changes-every-key", "1.0 good")
	old, fresh := s.world.Keys, map[trust.Role]verifytest.Key{}
	for role := range old {
		if role != trust.RoleRoot && role != trust.RolePolicy { // a policy key is in no document here
			fresh[role] = verifytest.NewKey(t, "new "+string(role), role)
		}
	}
	s.trustStep(func(d *trust.Document) {
		for role, k := range fresh {
			d.Keys = append(d.Keys, k.Entry())
			d.Revoked = append(d.Revoked, old[role].ID)
		}
		d.Generation = 2
	})
	for role, k := range fresh {
		s.world.Keys[role] = k
	}
	s.publish("2.0 good", func(c *channel.Change) { c.Generation = 2 })
	add(s)

	// A record that names more to keep than a device keeps by itself, and then one that names none of it.
	many := []string{"1.0 a", "2.0 a", "3.0 a", "4.0 a", "5.0 a", "6.0 a", "7.0 a", "8.0 a"}
	s = begin(t, "record-keeps-eight", many...)
	s.publish("9.0 good", func(c *channel.Change) { c.KeepMax = channel.MaxKeep })
	add(s)
}

// trustSigned publishes the next version of the trust document, signed by keys.
func (s *setup) trustSigned(change func(*trust.Document), keys ...verifytest.Key) {
	s.t.Helper()
	s.world.Doc = version(s.t, s.world.Doc, change)
	s.world.tag(verifytest.SignTrust(s.t, s.world.Doc, keys...), TrustTag(s.world.Doc.Version))
}

// deaths lets n starts in a row end in the middle of a load.
func (s *setup) deaths(n int) {
	s.t.Helper()
	s.deadly = true
	for range n {
		func() {
			defer func() { _ = recover() }()
			_, _ = s.boot(s.t.Context(), s.base, &tape{}, mutant{agent: func(a *Agent) { a.Runtime = crashing{} }})
			s.t.Errorf("%s: a start that loaded nothing", s.name)
		}()
	}
	s.d = nil
}

// deathScenarios are starts that ended the process again and again: what is left to serve is served, the only artifact too.
func deathScenarios(t testing.TB, add func(*setup)) {
	for _, n := range []int{2, 6} {
		s := begin(t, fmt.Sprintf("only-artifact-after-%d-deaths", n), "1.0 good")
		s.deaths(n)
		v1 := s.target("1.0 good").Digest
		s.act = func(_ context.Context, d *faultDevice) error { return at(d, v1) }
		add(s)
	}
	s := begin(t, "only-artifact-after-deaths-and-an-update", "1.0 good")
	s.deaths(6)
	s.publish("2.0 good")
	s.also = []artifact.Digest{s.next["churn"]}
	add(s)
}
