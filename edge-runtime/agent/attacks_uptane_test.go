package agent

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// The rows of the TUF and Uptane lists that attacks_test.go does not have: what happens when keys are stolen, and attacks that
// play with time, with other devices' messages, and with parts of artifacts.

// noEvidence leaves both statements about the artifact unchecked.
func noEvidence(a *Agent) {
	a.checks.bundle = func([]byte, *trust.Document, verify.Want) (*verify.Evidence, error) { return nil, nil }
	a.checks.vsa = func([]byte, *trust.Document, verify.VSAWant) (*evidence.VSA, *verify.Evidence, error) {
		return nil, nil, nil
	}
	a.checks.enough = func([]verify.Evidence, *trust.Document, artifact.Digest, ...string) error { return nil }
}

// stolenKeys are the rows in which the attacker holds some of the keys.
func stolenKeys(t *testing.T) []attack {
	// forge publishes a record by the deployer's key whose evidence is signed by other keys.
	forge := func(w *world, evil channel.Target, release, verdict trust.Role) {
		c := w.change(evil)
		v := w.VSA()
		v.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: w.head.Record.Seq, Champion: w.head.Record.Target.Digest}
		for i, e := range c.Evidence {
			var b []byte
			switch e.PredicateType {
			case evidence.TypeRelease:
				b = w.Keys[release].Sign(t, evidence.TypeRelease, "churn", evil.Digest, struct{}{})
			case evidence.TypeVSA:
				b = w.Keys[verdict].Sign(t, evidence.TypeVSA, "churn", evil.Digest, v)
			}
			w.reg.put(b)
			c.Evidence[i] = verifytest.Ref(e.PredicateType, evil.Digest, b)
		}
		r, err := channel.Next(w.head, c)
		if err != nil {
			t.Fatal(err)
		}
		w.push(trust.RoleDeployer, r)
	}
	return []attack{
		{"the deployer's key alone", func(w *world, _ *device, evil channel.Target) {
			forge(w, evil, trust.RoleDeployer, trust.RoleDeployer)
		}, "wrong-role", noEvidence},
		{"the keys of publisher and deployer, without the gate's", func(w *world, _ *device, evil channel.Target) {
			forge(w, evil, trust.RolePublisher, trust.RolePublisher)
		}, "wrong-role", noEvidence},
		{"the keys of gate and deployer, without the publisher's", func(w *world, _ *device, evil channel.Target) {
			forge(w, evil, trust.RoleGate, trust.RoleGate)
		}, "wrong-role", noEvidence},
		{"the keys of publisher and gate, without the deployer's", func(w *world, _ *device, evil channel.Target) {
			r, err := channel.Next(w.head, w.change(evil))
			if err != nil {
				t.Fatal(err)
			}
			w.push(trust.RoleGate, r)
		}, "wrong-role", func(a *Agent) { a.checks.record = forged }},
		{"parts of two releases mixed into one artifact, under the evidence of one of them", func(w *world, _ *device, evil channel.Target) {
			// evil stands for the mixture: a digest that nobody released.
			old := w.head.Record.Target.Digest
			c := w.change(evil)
			v := w.VSA()
			v.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: w.head.Record.Seq, Champion: old}
			for i, e := range c.Evidence {
				b := w.Release("churn", old)
				if e.PredicateType == evidence.TypeVSA {
					b = w.SignVSA(old, v)
				}
				w.reg.put(b)
				c.Evidence[i] = verifytest.Ref(e.PredicateType, evil.Digest, b)
			}
			r, err := channel.Next(w.head, c)
			if err != nil {
				t.Fatal(err)
			}
			w.push(trust.RoleDeployer, r)
		}, "wrong-subject", noEvidence},
		{"the record of another environment's channel under this one's tag", func(w *world, _ *device, evil channel.Target) {
			c := w.change(evil)
			c.Env = "staging"
			r, err := channel.Next(w.head, c)
			if err != nil {
				t.Fatal(err)
			}
			w.push(trust.RoleDeployer, r)
		}, "staging", func(a *Agent) {
			a.checks.place = func(*channel.Record, *Channel) error { return nil }
			noEvidence(a) // the verdict is bound to the environment as well
			a.checks.record = forged
			a.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
				return channel.Step{Kind: channel.Update}, nil
			}
		}},
	}
}

// An artifact that the trust document denies is not activated, whatever is signed about it, from the moment that the device knows
// the document.
func TestDeniedArtifact(t *testing.T) {
	for _, known := range []bool{false, true} { // whether the device has the document that revokes
		w, m := newWorld(t), newDeviceFS(t)
		d := w.mustBoot(m)
		w.publish(w.change(w.model("1.0 good")))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		serving := d.server.current()
		evil := w.model("6.6 evil")
		change := w.change(evil)
		r, err := channel.Next(w.head, change)
		if err != nil {
			t.Fatal(err)
		}
		_, raw := w.SignRecord(trust.RoleDeployer, r)
		if known {
			next := *w.Doc
			next.Version, next.Issued = 2, next.Issued.Add(time.Hour)
			next.Denied = []artifact.Digest{evil.Digest}
			w.Doc = &next
			w.tag(w.Trust(), TrustTag(2))
			f := d.followers[0]
			if moved, err := f.nextTrust(t.Context()); err != nil || !moved {
				t.Fatalf("the document that denies: %v, %v", moved, err)
			}
		}
		w.tag(raw, channel.Tag("prod"), channel.SeqTag("prod", r.Seq))
		err = d.pollOnce()
		switch {
		case known && (err == nil || !strings.Contains(err.Error(), "denies") || d.server.current() != serving):
			t.Errorf("denied by the trust document, and %s serves: %v", d.server.current().Short(), err)
		case !known && (err != nil || d.server.current() != evil.Digest):
			t.Errorf("a device that knows nothing of it refuses all the same: %v", err)
		}
	}
}

// The newest record has expired here; an older one with a longer life has not. It is refused all the same: what was
// accepted is remembered beyond its end (python-tuf#1498 forgot it).
func TestReplayAfterExpiry(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, m := newWorld(t), newDeviceFS(t)
		d := w.mustBoot(m)
		v1, v2 := w.model("1.0 good"), w.model("2.0 good")
		c := w.change(v1)
		c.Expires = w.Now.Add(30 * 24 * time.Hour)
		w.publish(c)
		long := w.reg.tags[channel.Tag("prod")]
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		w.publish(w.change(v2)) // a week
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		d.clock.advance(8 * 24 * time.Hour)
		if st := d.Status(); !st.Channels[0].Stale || d.server.current() != v2.Digest {
			t.Fatalf("after the record's end: stale %v, %s serves", st.Channels[0].Stale, d.server.current().Short())
		}
		w.reg.tags[channel.Tag("prod")] = long
		if open {
			d.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
				return channel.Step{Kind: channel.Same}, nil // what has expired counts for nothing
			}
		}
		err := d.pollOnce()
		switch {
		case open && (err != nil || d.server.current() != v1.Digest):
			t.Errorf("without the memory the replay fails all the same: %v", err)
		case !open && (err == nil || !strings.Contains(err.Error(), "older than the one accepted") || d.server.current() != v2.Digest):
			t.Errorf("replay: %v", err)
		}
		if got := d.channel().Seq; got != 2 {
			t.Errorf("seq fell to %d", got)
		}
	}
}

// A record for other devices, replayed to this one: by class, by label, by the share of a rollout.
func TestReplayToAnotherDevice(t *testing.T) {
	for name, edit := range map[string]func(*channel.Change){
		"class":   func(c *channel.Change) { c.Audience.Classes = []string{"edge-xl"} },
		"label":   func(c *channel.Change) { c.Audience.Labels = map[string]string{"site": "b"} },
		"rollout": func(c *channel.Change) { c.Rollout = &channel.Rollout{ID: "r1", Percent: 0} },
	} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, m := newWorld(t), newDeviceFS(t)
				d := w.mustBoot(m)
				v1, evil := w.model("1.0 good"), w.model("6.6 evil")
				w.publish(w.change(v1))
				if err := d.pollOnce(); err != nil {
					t.Fatal(err)
				}
				c := w.change(evil)
				edit(&c)
				w.publish(c)
				if open {
					d.checks.admit = func(*channel.Record, time.Time, channel.Device) error { return nil }
				}
				want := v1.Digest
				if open {
					want = evil.Digest
				}
				if err := d.pollOnce(); err != nil || d.server.current() != want {
					t.Errorf("check left out %v: %s serves, %v", open, d.server.current().Short(), err)
				}
			}
		})
	}
}

// A clock that jumps far ahead and comes back costs nothing but the time in between: what it said is never written down.
func TestClockFarAhead(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, m := newWorld(t), newDeviceFS(t)
		d := w.mustBoot(m)
		v1, v2 := w.model("1.0 good"), w.model("2.0 good")
		w.publish(w.change(v1))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		const years = 50 * 365 * 24 * time.Hour
		d.clock.advance(years)
		w.publish(w.change(v2))
		if err := d.pollOnce(); err == nil || d.server.current() != v1.Digest {
			t.Fatalf("fifty years later: %v", err)
		}
		if open { // the mutant: the clock is believed for good
			if err := d.Store.Update(func(s *state.Doc) error { s.TimeFloor = d.clock.Now(); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		d.clock.advance(-years)
		w.publish(w.change(v2))
		err := d.pollOnce()
		switch {
		case open && (err == nil || d.server.current() != v1.Digest):
			t.Error("a floor from the clock itself does no harm: the test shows nothing")
		case !open && (err != nil || d.server.current() != v2.Digest):
			t.Errorf("after the clock came back: %v", err)
		}
	}
}

// A registry that withholds: what runs goes on, and once the record has expired the status says so. Nothing else can be done.
func TestDropRequest(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.reg.down = true
	for day := range 9 {
		d.clock.advance(24 * time.Hour)
		if err := d.pollOnce(); err == nil {
			t.Fatal("a registry that is down answered")
		}
		if stale := d.Status().Channels[0].Stale; stale != (day >= 6) || d.server.current() != v1.Digest {
			t.Errorf("after %d days: stale %v, %s serves", day+1, stale, d.server.current().Short())
		}
	}
}

// A bundle of which a part is withheld: nothing of it is activated, and the former one serves, until the part comes.
func TestPartialBundle(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	part := artifact.DigestOf([]byte("2.0 good"))
	held := w.reg.blobs[part]
	delete(w.reg.blobs, part)
	opened := d.runtime.opened
	for range 3 {
		if err := d.pollOnce(); err == nil || d.server.current() != v1.Digest || d.runtime.opened != opened {
			t.Fatalf("with a part missing: %v, %s serves", err, d.server.current().Short())
		}
	}
	// Without the rule that everything is here first, the loader meets an artifact with a hole: it must be the fetch that stops it.
	raw := w.reg.blobs[v2.Digest]
	man, err := verify.Manifest(raw, v2.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(deviceLayers(man), func(l artifact.Layer) bool { return l.Digest == part && !d.blobs.Has(l.Digest, l.Size) }) {
		t.Error("the part is here: the test shows nothing")
	}
	w.reg.blobs[part] = held
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Errorf("with the part: %v", err)
	}
}

// asking notes what is asked of a carrier.
type asking struct {
	*registry
	mu   sync.Mutex
	seen []artifact.Digest
}

func (a *asking) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	a.mu.Lock()
	a.seen = append(a.seen, d.Digest)
	a.mu.Unlock()
	return a.registry.Open(ctx, d, offset)
}

// What a device fetches is the closed set that is signed: record, evidence, manifest, layers for devices. A manifest that points
// elsewhere (urls) or brings further layers is not followed there, even when a publisher signed it.
func TestExtraneousDependencies(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	target := w.model("1.0 good")
	var man map[string]any
	if err := json.Unmarshal(w.reg.blobs[target.Digest], &man); err != nil {
		t.Fatal(err)
	}
	layers := man["layers"].([]any)
	for _, l := range layers {
		l.(map[string]any)["urls"] = []string{"http://203.0.113.1/evil"}
	}
	extra := w.reg.put([]byte("extra"))
	man["layers"] = append(layers, map[string]any{"mediaType": "application/octet-stream", "digest": extra, "size": 5, "urls": []string{"http://203.0.113.1/more"}})
	raw, err := json.Marshal(man)
	if err != nil {
		t.Fatal(err)
	}
	evil := target
	evil.Digest, evil.Size, evil.Version = w.reg.put(raw), int64(len(raw)), "1.0"
	head := w.publish(w.change(evil))
	carrier := &asking{registry: w.reg}
	d := w.mustBoot(m, func(c *Config) { c.Channels[0].Carrier = carrier })
	err = d.pollOnce()
	if err == nil || d.server.current() != "" {
		t.Errorf("a manifest that is not the one its configuration describes: %v", err)
	}
	allowed := map[artifact.Digest]bool{evil.Digest: true, head.Bundle: true, w.reg.tags[channel.Tag("prod")]: true}
	for _, e := range head.Record.Evidence {
		allowed[e.Digest] = true
	}
	for _, got := range carrier.seen {
		if !allowed[got] {
			t.Errorf("%s was fetched", got)
		}
	}
	// The sound manifest brings exactly its own layers.
	carrier.seen = nil
	head = w.publish(w.change(target))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	model, err := verify.Manifest(w.reg.blobs[target.Digest], target.Digest)
	if err != nil {
		t.Fatal(err)
	}
	allowed = map[artifact.Digest]bool{target.Digest: true, head.Bundle: true, w.reg.tags[channel.Tag("prod")]: true}
	for _, e := range head.Record.Evidence {
		allowed[e.Digest] = true
	}
	for _, l := range deviceLayers(model) {
		allowed[l.Digest] = true
	}
	for _, got := range carrier.seen {
		if !allowed[got] {
			t.Errorf("%s was fetched", got)
		}
	}
	if len(carrier.seen) < len(deviceLayers(model)) {
		t.Errorf("%d fetches", len(carrier.seen))
	}
}

// A model whose health flaps, published again and again: after a few automatic rollbacks the device stays where it is.
func TestRollbackStorm(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, m := newWorld(t), newDeviceFS(t)
		const most, tries = 3, 8
		d := w.mustBoot(m, func(c *Config) {
			if c.MaxRollbacks = most; open {
				c.MaxRollbacks = 1 << 30
			}
		})
		v1, bad := w.model("1.0 good"), w.model("2.0 failing")
		w.publish(w.change(v1))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		before, trials := len(d.server.seen), 0
		for range tries {
			w.publish(w.change(bad))
			if err := d.pollOnce(); err == nil {
				t.Fatal("committed")
			}
		}
		for _, s := range d.server.seen[before:] {
			if s == bad.Digest {
				trials++
			}
		}
		want := most
		if open {
			want = tries
		}
		if trials != want || d.server.current() != v1.Digest {
			t.Errorf("limit left out %v: %d trials, want %d; %s serves", open, trials, want, d.server.current().Short())
		}
	}
}
