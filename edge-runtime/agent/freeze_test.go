package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
)

// freeze publishes the record that freezes the channel, lift the one that ends it.
func (w *world) freeze(reason string) *channel.Head {
	w.t.Helper()
	h := w.head.Record
	r, err := channel.Halt(w.head, reason, h.Issued.Add(time.Second), h.Expires.Add(time.Second), h.Trust)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.push(trust.RoleDeployer, r)
}

func (w *world) lift() *channel.Head {
	w.t.Helper()
	h := w.head.Record
	r, err := channel.Lift(w.head, h.Evidence, h.Issued.Add(time.Second), h.Expires.Add(time.Second), h.Trust)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.push(trust.RoleDeployer, r)
}

func (w *world) refresh() *channel.Head {
	w.t.Helper()
	h := w.head.Record
	r, err := channel.Extend(w.head, h.Issued.Add(time.Second), h.Expires.Add(time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.push(trust.RoleRefresher, r)
}

func (d *device) poll(t *testing.T) {
	t.Helper()
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
}

func (d *device) serves(t *testing.T, want channel.Target) {
	t.Helper()
	c := d.channel()
	if got := d.server.current(); got != want.Digest || c.Current == nil || c.Current.Digest != want.Digest {
		t.Fatalf("serves %s, current %+v, want %s %s", got.Short(), c.Current, want.Version, want.Digest.Short())
	}
}

func (d *device) journaled(t *testing.T, kind, reason string) {
	t.Helper()
	es, err := d.History(100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if e.Kind == kind && strings.Contains(e.Reason, reason) {
			return
		}
	}
	t.Errorf("no journal entry %q with %q in %+v", kind, reason, es)
}

// A frozen channel: what runs goes on, nothing is activated, a restart and refreshes change nothing about it, and the record
// that lifts the freeze lets the target in.
func TestFreeze(t *testing.T) {
	w := newWorld(t)
	v1, v2 := w.model("1.0"), w.model("2.0")
	w.publish(w.change(v1))
	m := newDeviceFS(t)
	d := w.mustBoot(m)
	d.poll(t)
	w.publish(w.change(v2))
	w.freeze("labels are wrong")
	d.poll(t)
	d.serves(t, v1)
	d.journaled(t, KindFrozen, "labels are wrong")
	w.refresh()
	d = w.mustBoot(m)
	d.poll(t)
	d.serves(t, v1)
	c := d.channel()
	if c.Frozen == nil || c.Frozen.Seq != 3 || c.Seq != 4 || c.LastRefusal != nil {
		t.Fatalf("state %+v, frozen %+v", c, c.Frozen)
	}
	if s := d.Status().Channels[0]; s.Frozen == nil || s.Frozen.Reason != "labels are wrong" {
		t.Errorf("status %+v", s)
	}
	w.lift()
	d.poll(t)
	d.serves(t, v2)
	d.journaled(t, KindThawed, "labels are wrong")
	if d.channel().Frozen != nil {
		t.Error("still frozen")
	}
}

// The check is what keeps the target out, and a refresher's key can't take the freeze away.
func TestFreezeAttacks(t *testing.T) {
	w := newWorld(t)
	v1, v2 := w.model("1.0"), w.model("2.0")
	w.publish(w.change(v1))
	d := w.mustBoot(newDeviceFS(t))
	d.poll(t)
	w.publish(w.change(v2))
	w.freeze("stop")
	d.poll(t)
	r := *w.head.Record
	r.Seq, r.Prev, r.Freeze, r.Expires = r.Seq+1, w.head.Bundle, nil, r.Expires.Add(time.Second)
	w.push(trust.RoleRefresher, &r)
	if err := d.pollOnce(); !IsRefused(err) || !strings.Contains(err.Error(), "refresher may only extend") {
		t.Fatalf("a refresher lifted the freeze: %v", err)
	}
	d.serves(t, v1)
	d.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
		return channel.Step{Kind: channel.Update}, nil
	}
	d.poll(t)
	d.serves(t, v2)

	w = newWorld(t)
	v1, v2 = w.model("1.0"), w.model("2.0")
	w.publish(w.change(v1))
	d = w.mustBoot(newDeviceFS(t))
	d.poll(t)
	w.publish(w.change(v2))
	w.freeze("stop")
	d.checks.admit = func(*channel.Record, time.Time, channel.Device) error { return nil }
	d.poll(t)
	d.serves(t, v2)
}

// A frozen channel can go back: devices that had the target return to it, and nobody else activates it.
func TestRollbackOfAFrozenChannel(t *testing.T) {
	w := newWorld(t)
	v1, v2 := w.model("1.0"), w.model("2.0")
	w.publish(w.change(v1))
	had := w.mustBoot(newDeviceFS(t))
	had.poll(t)
	w.publish(w.change(v2))
	had.poll(t)
	late := w.mustBoot(newDeviceFS(t))
	late.poll(t)
	had.serves(t, v2)
	late.serves(t, v2)
	w.freeze("p99")
	had.poll(t)
	c := w.change(channel.Target{Digest: v1.Digest})
	c.Freeze = w.head.Record.Freeze
	r, err := channel.RollBack(w.head, v1.Digest, "p99 over budget", c)
	if err != nil {
		t.Fatal(err)
	}
	w.push(trust.RoleDeployer, r)
	had.poll(t)
	late.poll(t)
	had.serves(t, v1)
	late.serves(t, v2)
	if had.channel().Frozen == nil || late.channel().Frozen == nil {
		t.Error("the rollback thawed the channel")
	}
	// Frozen anew with other words, and a device that hears of the rollback only then.
	w.freeze("p99, under investigation")
	had.poll(t)
	had.serves(t, v1)
	w.lift()
	late.poll(t)
	late.serves(t, v1)
}

// A trial is given up when the freeze arrives, at the next interval: what ran before runs, nothing is held against the model.
func TestFreezeDuringTrial(t *testing.T) {
	for name, c := range map[string]struct {
		then func(w *world)
		want string
	}{
		"frozen":            {func(w *world) { w.freeze("wrong in the field") }, "frozen meanwhile: wrong in the field"},
		"frozen, full disk": {func(w *world) { w.freeze("wrong in the field") }, ""},
		"another target":    {func(w *world) { w.publish(w.change(w.model("3.0"))) }, "moved on to 3.0"},
		"rolled back":       {func(w *world) { w.back("broken") }, "moved on to 1.0"},
		"refreshed":         {func(w *world) { w.refresh() }, ""},
		"gone":              {func(w *world) { w.reg.down = true }, ""},
		"somebody's forge":  {func(w *world) { w.tag([]byte("{}"), channel.Tag("prod")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v1, v2 := w.model("1.0"), w.model("2.0")
			w.publish(w.change(v1))
			m := newDeviceFS(t)
			d := w.mustBoot(m, func(cfg *Config) { cfg.Channels[0].Interval = 10 * time.Second })
			d.poll(t)
			w.publish(w.change(v2))
			slept := 0
			d.clock.onSleep = func() {
				if slept++; slept == 20 {
					if d.server.current() != v2.Digest {
						t.Error("not on trial")
					}
					if c.then(w); name == "frozen, full disk" {
						m.SetCapacity(m.Used())
					}
				}
			}
			err := d.pollOnce()
			d.clock.onSleep = nil
			s := d.channel()
			if name == "frozen, full disk" {
				// Whether or not the freeze can be kept, nothing is committed under it.
				d.serves(t, v1)
				if s.Intent != nil || (err == nil) != (s.Frozen != nil) {
					t.Fatalf("%v, %+v", err, s)
				}
				m.SetCapacity(0)
				d.poll(t)
				if d.serves(t, v1); d.channel().Frozen == nil {
					t.Error("not frozen when there was room again")
				}
				return
			}
			if c.want == "" {
				d.serves(t, v2)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.LastRollback == nil || !strings.Contains(s.LastRollback.Reason, c.want) && name != "rolled back" {
				t.Fatalf("rolled back: %+v", s.LastRollback)
			}
			d.journaled(t, KindRolledBack, c.want)
			if len(s.Quarantine) != 0 || len(s.Rollbacks) != 0 || s.Intent != nil {
				t.Errorf("held against the model: %+v", s)
			}
			switch name {
			case "frozen":
				d.serves(t, v1)
				w.lift()
				d.poll(t)
				d.serves(t, v2)
			case "another target":
				if d.channel().Current.Version != "3.0" {
					t.Errorf("the newer record was not taken: %+v", d.channel().Current)
				}
			case "rolled back":
				d.serves(t, v1)
			}
		})
	}
}

// back publishes a rollback to the target before.
func (w *world) back(reason string) {
	w.t.Helper()
	to := w.head.Record.Keep[0].Digest
	r, err := channel.RollBack(w.head, to, reason, w.change(channel.Target{Digest: to, Name: "churn"}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.push(trust.RoleDeployer, r)
}

// The power goes after the freeze was accepted and before the trial was given up: the old model serves, and the thaw gives
// the new one its chance again.
func TestFreezeThenPowerCut(t *testing.T) {
	w := newWorld(t)
	v1, v2 := w.model("1.0"), w.model("2.0")
	w.publish(w.change(v1))
	m := newDeviceFS(t)
	d := w.mustBoot(m)
	d.poll(t)
	w.publish(w.change(v2))
	r := w.head.Record
	in := state.Intent{Kind: state.Update, Step: state.Trial, Candidate: slotOf(v2, r.Seq), Target: d.channel().Current, Generation: r.Generation, Seq: r.Seq}
	f := d.followers[0]
	w.freeze("stop")
	raw := w.reg.blobs[w.head.Bundle]
	if err := f.change(func(c *state.Channel) error { c.Intent = &in; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := f.accept(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	d = w.mustBoot(m)
	d.serves(t, v1)
	d.poll(t)
	d.serves(t, v1)
	w.lift()
	d.poll(t)
	d.serves(t, v2)
}

// What a person rolled back here, and what failed here, stays so while the channel only repeats itself.
func TestRefreshAndFreezeAreNoNewOrder(t *testing.T) {
	w := newWorld(t)
	v1, v2 := w.model("1.0"), w.model("2.0")
	w.publish(w.change(v1))
	d := w.mustBoot(newDeviceFS(t))
	d.poll(t)
	w.publish(w.change(v2))
	d.poll(t)
	if _, err := d.Rollback(t.Context(), "prod", ""); err != nil {
		t.Fatal(err)
	}
	for _, again := range []func(){func() { w.refresh() }, func() { w.freeze("x") }, func() { w.refresh() }} {
		again()
		d.poll(t)
		d.serves(t, v1)
	}
	w.lift() // a person's decision, later than the one on this device
	d.poll(t)
	d.serves(t, v2)

	w = newWorld(t)
	v1, bad := w.model("1.0"), w.model("2.0 failing")
	w.publish(w.change(v1))
	d = w.mustBoot(newDeviceFS(t))
	d.poll(t)
	w.publish(w.change(bad))
	if err := d.pollOnce(); !IsRolledBack(err) {
		t.Fatal(err)
	}
	for range 3 {
		w.refresh()
		d.poll(t)
	}
	d.serves(t, v1)
	if n := len(d.channel().Rollbacks); n != 1 {
		t.Errorf("tried %d times under refreshes of one record", n)
	}
}

// A gradual rollout on devices: out of the phase they keep what they have, in it they take the target once and keep it; an older
// phase put back by the registry is stale; a phase that is abandoned leads back without a trial.
func TestPhases(t *testing.T) {
	w := newWorld(t)
	v1, v2 := w.model("1.0"), w.model("2.0")
	w.publish(w.change(v1))
	d := w.mustBoot(newDeviceFS(t))
	d.poll(t)
	at := float64(channel.Bucket("canary", d.Signer.KeyID())) / 100
	phase := func(percent float64) artifact.Digest {
		c := w.change(v2)
		c.Rollout = &channel.Rollout{ID: "canary", Percent: percent}
		w.publish(c)
		return w.reg.tags[channel.Tag("prod")]
	}
	phase(0)
	d.poll(t)
	d.serves(t, v1)
	small := phase(at) // buckets below this device's
	d.poll(t)
	d.serves(t, v1)
	late := w.mustBoot(newDeviceFS(t)) // joins outside of the phase: it gets what the others there run
	late.poll(t)
	late.serves(t, v1)
	phase(at + 0.01)
	d.poll(t)
	late.poll(t)
	d.serves(t, v2)
	late.serves(t, v2)
	w.reg.tags[channel.Tag("prod")] = small
	if err := d.pollOnce(); !errors.Is(err, channel.ErrStale) {
		t.Fatalf("an older phase was taken: %v", err)
	}
	d.serves(t, v2)
	phase(100)
	d.poll(t)
	d.serves(t, v2)
	swaps := len(d.server.seen)
	w.publish(w.change(v1)) // abandoned
	d.poll(t)
	d.serves(t, v1)
	if len(d.server.seen) != swaps+1 || d.channel().LastRollback != nil {
		t.Errorf("%d swaps, %+v", len(d.server.seen)-swaps, d.channel().LastRollback)
	}
}

// A device that joins outside of the phase, or of the audience, takes the target before, under the accepted record's own bounds and
// from no other record than those that it leads back to.
func TestLatecomer(t *testing.T) {
	for name, c := range map[string]struct {
		then func(w *world, d *device)
		want string // version that serves; "" nothing
		err  string
	}{
		"outside":                       {func(*world, *device) {}, "1.0", ""},
		"refreshed since":               {func(w *world, _ *device) { w.refresh(); w.refresh() }, "1.0", ""},
		"record expired":                {func(_ *world, d *device) { d.clock.advance(8 * 24 * time.Hour) }, "", "expired"},
		"frozen":                        {func(w *world, _ *device) { w.freeze("x") }, "", ""},
		"another under a tag":           {func(w *world, _ *device) { w.reg.tags["channel-prod.1"] = w.reg.tags["channel-prod.2"] }, "", "not the record that the next one follows"},
		"a former record's tag is gone": {func(w *world, _ *device) { delete(w.reg.tags, "channel-prod.1") }, "", "not exist"},
		"not kept any more": {func(w *world, _ *device) {
			r := *w.head.Record
			r.Seq, r.Prev, r.Keep = r.Seq+1, w.head.Bundle, []channel.Target{}
			w.push(trust.RoleDeployer, &r)
		}, "", ""},
		"below a raised floor": {func(w *world, _ *device) {
			r := *w.head.Record
			r.Seq, r.Prev, r.Keep, r.EpochFloor, r.Target.Epoch = r.Seq+1, w.head.Bundle, []channel.Target{}, 1, 1
			w.push(trust.RoleDeployer, &r)
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v1, v2 := w.model("1.0"), w.model("2.0")
			w.publish(w.change(v1))
			ch := w.change(v2)
			ch.Rollout = &channel.Rollout{ID: "canary", Percent: 0}
			w.publish(ch)
			d := w.mustBoot(newDeviceFS(t))
			c.then(w, d)
			err := d.pollOnce()
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("got %v", err)
			}
			if c.want == "" {
				if got := d.server.current(); got != "" {
					t.Fatalf("serves %s", got)
				}
				return
			}
			d.serves(t, v1)
			w.publish(w.change(v2))
			d.poll(t)
			d.serves(t, v2)
		})
	}
	// Without the chain's digests a carrier chooses the record.
	w := newWorld(t)
	v1, old, v2 := w.model("1.0"), w.model("0.5"), w.model("2.0")
	w.publish(w.change(old))
	w.publish(w.change(v1))
	ch := w.change(v2)
	ch.Rollout = &channel.Rollout{ID: "canary", Percent: 0}
	w.publish(ch)
	w.reg.tags["channel-prod.2"] = w.reg.tags["channel-prod.1"]
	d := w.mustBoot(newDeviceFS(t))
	if err := d.pollOnce(); !errors.Is(err, errUnchained) {
		t.Fatalf("got %v", err)
	}
	d.checks.blob = func(_, _ artifact.Digest) bool { return true }
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	d.serves(t, old)
}
