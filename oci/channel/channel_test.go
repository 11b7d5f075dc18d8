package channel_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

var (
	digestA = artifact.DigestOf([]byte("model A"))
	digestB = artifact.DigestOf([]byte("model B"))
	digestC = artifact.DigestOf([]byte("model C"))
)

func first(t *testing.T, w *verifytest.World) *channel.Head {
	t.Helper()
	r, err := channel.Next(nil, w.Change(verifytest.Target("1.0", digestA)))
	if err != nil {
		t.Fatal(err)
	}
	h, _ := w.SignRecord(trust.RoleDeployer, r)
	return h
}

func next(t *testing.T, w *verifytest.World, prev *channel.Head, version string, d artifact.Digest) *channel.Head {
	t.Helper()
	r, err := channel.Next(prev, w.Change(verifytest.Target(version, d)))
	if err != nil {
		t.Fatal(err)
	}
	h, _ := w.SignRecord(trust.RoleDeployer, r)
	return h
}

// edited is a copy of h's record, changed and signed again by a deployer.
func edited(w *verifytest.World, h *channel.Head, f func(*channel.Record)) *channel.Head {
	r := *h.Record
	f(&r)
	out, _ := w.SignRecord(trust.RoleDeployer, &r)
	return out
}

func TestFollowsAttacks(t *testing.T) {
	w := verifytest.New(t)
	h1 := first(t, w)
	h2 := next(t, w, h1, "2.0", digestB)
	h3 := next(t, w, h2, "3.0", digestC)
	for _, c := range []struct {
		name, check string
		want        error
		prev, next  *channel.Head
		refresher   bool
	}{
		{"older record replayed", "stale", channel.ErrStale, h2, h1, false},
		{"older generation replayed", "stale", channel.ErrStale, edited(w, h2, func(r *channel.Record) { r.Generation = 2 }), h3, false},
		{"fork at the same seq", "fork", channel.ErrFork, h2, edited(w, h2, func(r *channel.Record) { r.Target.Version = "2.1" }), false},
		{"record of another channel", "channel", channel.ErrChannel, h1, edited(w, h2, func(r *channel.Record) { r.Channel = "canary" }), false},
		{"fast-forward", "jump", channel.ErrFastForward, h1, edited(w, h2, func(r *channel.Record) { r.Seq = 2 + channel.MaxJump }), false},
		{"fast-forward on first contact", "jump", channel.ErrFastForward, nil, edited(w, h2, func(r *channel.Record) { r.Seq = 1 + channel.MaxJump }), false},
		{"refresher changes the target", "refresher", channel.ErrRefresher, h1, h2, true},
		{"refresher changes the rollout", "refresher", channel.ErrRefresher, h1, edited(w, h1, func(r *channel.Record) {
			r.Seq, r.Prev, r.Expires, r.Rollout = 2, h1.Bundle, r.Expires.Add(time.Hour), &channel.Rollout{ID: "x", Percent: 1}
		}), true},
		{"refresher opens a channel", "refresher", channel.ErrRefresher, nil, h1, true},
		{"refresher opens a generation", "refresher", channel.ErrRefresher, h1, edited(w, h2, func(r *channel.Record) { r.Generation = 2 }), true},
		{"refresher extends without end", "refresher", channel.ErrRefresher, h1, edited(w, h1, func(r *channel.Record) {
			r.Seq, r.Prev, r.Expires = 2, h1.Bundle, r.Expires.Add(1e6*time.Hour)
		}), true},
		{"refresher shortens", "refresher", channel.ErrRefresher, h1, edited(w, h1, func(r *channel.Record) {
			r.Seq, r.Prev, r.Expires = 2, h1.Bundle, r.Expires.Add(-time.Hour)
		}), true},
		{"refresher freezes", "refresher", channel.ErrRefresher, h1, frozen(t, w, h1), true},
		{"refresher takes a freeze away", "refresher", channel.ErrRefresher, frozen(t, w, h1), edited(w, h1, func(r *channel.Record) {
			r.Seq, r.Prev, r.Expires = 3, frozen(t, w, h1).Bundle, r.Expires.Add(time.Hour)
		}), true},
		{"refresher gives the freeze another reason", "refresher", channel.ErrRefresher, frozen(t, w, h1), edited(w, frozen(t, w, h1), func(r *channel.Record) {
			r.Seq, r.Prev, r.Expires, r.Freeze = 3, frozen(t, w, h1).Bundle, r.Expires.Add(time.Hour), &channel.Freeze{Reason: "y"}
		}), true},
		{"record from before a freeze replayed", "stale", channel.ErrStale, frozen(t, w, h1), h1, false},
		{"fork that leaves the freeze out", "fork", channel.ErrFork, frozen(t, w, h1), edited(w, frozen(t, w, h1), func(r *channel.Record) { r.Freeze = nil }), false},
		{"earlier phase replayed", "stale", channel.ErrStale, phase(t, w, phase(t, w, h1, 10), 50), phase(t, w, h1, 10), false},
		{"refresher lowers the percentage", "refresher", channel.ErrRefresher, phase(t, w, h1, 10), edited(w, phase(t, w, h1, 10), func(r *channel.Record) {
			r.Seq, r.Prev, r.Expires, r.Rollout = 3, phase(t, w, h1, 10).Bundle, r.Expires.Add(time.Hour), &channel.Rollout{ID: "p", Percent: 5}
		}), true},
		{"refresher gives the rollout another name", "refresher", channel.ErrRefresher, phase(t, w, h1, 10), edited(w, phase(t, w, h1, 10), func(r *channel.Record) {
			r.Seq, r.Prev, r.Expires, r.Rollout = 3, phase(t, w, h1, 10).Bundle, r.Expires.Add(time.Hour), &channel.Rollout{ID: "q", Percent: 10}
		}), true},
		{"a frozen rollback that repeats another one", "rollback", channel.ErrRollback, h2, edited(w, h3, func(r *channel.Record) {
			r.Rollback, r.Freeze = &channel.Rollback{From: digestA, Reason: "x"}, &channel.Freeze{Reason: "x"}
		}), false},
		{"rollback from something else", "rollback", channel.ErrRollback, h2, edited(w, h3, func(r *channel.Record) {
			r.Target, r.Rollback = h1.Record.Target, &channel.Rollback{From: digestC, Reason: "x"}
		}), false},
		{"rollback to something that was never there", "rollback", channel.ErrRollback, h2, edited(w, h3, func(r *channel.Record) {
			r.Rollback = &channel.Rollback{From: digestB, Reason: "x"}
		}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := channel.Follows(c.prev, c.next, c.refresher); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if _, err := channel.FollowsWithout(c.check, c.prev, c.next, c.refresher); err != nil {
				t.Errorf("refused without check %q too: %v", c.check, err)
			}
		})
	}
}

func frozen(t *testing.T, w *verifytest.World, h *channel.Head) *channel.Head {
	t.Helper()
	r, err := channel.Halt(h, "x", w.Now.Add(time.Minute), w.Now.Add(7*24*time.Hour), w.TrustRef())
	if err != nil {
		t.Fatal(err)
	}
	out, _ := w.SignRecord(trust.RoleDeployer, r)
	return out
}

// phase sends B to percent of the devices after h.
func phase(t *testing.T, w *verifytest.World, h *channel.Head, percent float64) *channel.Head {
	t.Helper()
	c := w.Change(verifytest.Target("2.0", digestB))
	c.Rollout = &channel.Rollout{ID: "p", Percent: percent}
	r, err := channel.Next(h, c)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := w.SignRecord(trust.RoleDeployer, r)
	return out
}

func TestFollowsAccepts(t *testing.T) {
	w := verifytest.New(t)
	h1 := first(t, w)
	h2 := next(t, w, h1, "2.0", digestB)
	fork := edited(w, h2, func(r *channel.Record) { r.Target.Version = "2.1" })
	h3 := next(t, w, h2, "3.0", digestC)
	r, err := channel.Extend(h2, w.Now.Add(time.Hour), w.Now.Add(8*24*time.Hour-23*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	refresh, _ := w.SignRecord(trust.RoleRefresher, r)
	r, err = channel.RollBack(h2, digestA, "latency", w.Change(channel.Target{Digest: digestA}))
	if err != nil {
		t.Fatal(err)
	}
	back, _ := w.SignRecord(trust.RoleDeployer, r)
	r, err = channel.Extend(back, w.Now.Add(time.Hour), w.Now.Add(7*24*time.Hour+time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	backRefresh, _ := w.SignRecord(trust.RoleRefresher, r)
	for _, c := range []struct {
		name       string
		prev, next *channel.Head
		refresher  bool
		kind       channel.Kind
		alarms     int
	}{
		{"first", nil, h1, false, channel.Update, 0},
		{"same bytes", h2, h2, false, channel.Same, 0},
		{"next", h1, h2, false, channel.Update, 0},
		{"two missed", h1, h3, false, channel.Update, 0},
		{"after the losing side of a fork", fork, h3, false, channel.Update, 1},
		{"refresh", h2, refresh, true, channel.Refresh, 0},
		{"rollback", h2, back, false, channel.Update, 0},
		{"refresh of a rollback", back, backRefresh, true, channel.Refresh, 0},
		{"new generation starts at 1", h3, edited(w, h1, func(r *channel.Record) { r.Generation = 2 }), false, channel.Update, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := channel.Follows(c.prev, c.next, c.refresher)
			if err != nil || s.Kind != c.kind || len(s.Alarms) != c.alarms {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
	if back.Record.Seq != 3 || back.Record.Target.Version != "1.0" || back.Record.Rollback.From != digestB {
		t.Errorf("rollback record %+v", back.Record)
	}
	if k := back.Record.Keep; len(k) != 1 || k[0].Digest != digestB {
		t.Errorf("keep after rollback %+v", k)
	}
	if k := h3.Record.Keep; len(k) != 2 || k[0].Digest != digestB || k[1].Digest != digestA {
		t.Errorf("keep %+v", k)
	}
	if _, err := channel.RollBack(h2, digestC, "x", w.Change(channel.Target{Digest: digestC})); !errors.Is(err, channel.ErrRollback) {
		t.Errorf("rollback to an unknown digest: %v", err)
	}
}

func TestKeepDropsWhatTheFloorForbids(t *testing.T) {
	w := verifytest.New(t)
	h1 := first(t, w)
	target := verifytest.Target("2.0", digestB)
	target.Epoch = 1
	c := w.Change(target)
	c.EpochFloor = 1
	r, err := channel.Next(h1, c)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Keep) != 0 {
		t.Errorf("keep %+v", r.Keep)
	}
}

func TestAdmit(t *testing.T) {
	w := verifytest.New(t)
	dev := channel.Device{ID: "d1", Class: "edge-s", Labels: map[string]string{"site": "north"}}
	for _, c := range []struct {
		name, check string
		want        error
		now         time.Time
		change      func(*channel.Record)
		dev         func(*channel.Device)
	}{
		{"expired", "expiry", channel.ErrExpired, w.Now.Add(7 * 24 * time.Hour), nil, nil},
		{"no time", "expiry", channel.ErrExpired, time.Time{}, nil, nil},
		{"other class", "audience", channel.ErrAudience, w.Now, func(r *channel.Record) { r.Audience.Classes = []string{"edge-l"} }, nil},
		{"other label", "audience", channel.ErrAudience, w.Now, func(r *channel.Record) { r.Audience.Labels = map[string]string{"site": "south"} }, nil},
		{"missing label", "audience", channel.ErrAudience, w.Now, func(r *channel.Record) { r.Audience.Labels = map[string]string{"ring": ""} }, nil},
		{"frozen", "freeze", channel.ErrFrozen, w.Now, func(r *channel.Record) { r.Freeze = &channel.Freeze{Reason: "x"} }, nil},
		{"not yet", "rollout", channel.ErrRollout, w.Now, func(r *channel.Record) { r.Rollout = &channel.Rollout{ID: "r"} }, nil},
		{"below the device's floor", "epoch", channel.ErrEpoch, w.Now, nil, func(d *channel.Device) { d.Floor = 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, d := *first(t, w).Record, dev
			if c.change != nil {
				c.change(&r)
			}
			if c.dev != nil {
				c.dev(&d)
			}
			if err := r.Admit(c.now, d); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err := channel.AdmitWithout(c.check, &r, c.now, d); err != nil {
				t.Errorf("refused without check %q too: %v", c.check, err)
			}
		})
	}
	r := first(t, w).Record
	r.Audience = channel.Audience{Classes: []string{"edge-m", "edge-s"}, Labels: map[string]string{"site": "north"}}
	r.Rollout = &channel.Rollout{ID: "r", Percent: 100}
	if err := r.Admit(w.Now, dev); err != nil {
		t.Error(err)
	}
}

func TestBucket(t *testing.T) {
	// computed apart: int(sha256(b"r1\0device-7").hexdigest(), 16) % 10000
	for _, c := range []struct {
		id, device string
		want       int
	}{{"r1", "device-7", 3851}, {"", "", 8157}} {
		if got := channel.Bucket(c.id, c.device); got != c.want {
			t.Errorf("Bucket(%q, %q) = %d, want %d", c.id, c.device, got, c.want)
		}
	}
	in := 0
	o := &channel.Rollout{ID: "phase-1", Percent: 10}
	for i := range 10000 {
		d := fmt.Sprintf("device-%d", i)
		if o.Includes(d) {
			in++
			if !(&channel.Rollout{ID: "phase-1", Percent: 50}).Includes(d) {
				t.Fatalf("%s left the rollout when it grew", d)
			}
		}
	}
	if in < 850 || in > 1150 {
		t.Errorf("10 %% of 10000 devices are %d", in)
	}
}

func TestValidate(t *testing.T) {
	w := verifytest.New(t)
	h2 := next(t, w, first(t, w), "2.0", digestB)
	for name, f := range map[string]func(*channel.Record){
		"schema":            func(r *channel.Record) { r.Schema = "x" },
		"dotted channel":    func(r *channel.Record) { r.Channel = "prod.5" },
		"seq 0":             func(r *channel.Record) { r.Seq = 0 },
		"no prev":           func(r *channel.Record) { r.Prev = "" },
		"prev at seq 1":     func(r *channel.Record) { r.Seq = 1 },
		"expires":           func(r *channel.Record) { r.Expires = r.Issued },
		"target digest":     func(r *channel.Record) { r.Target.Digest = "sha256:12" },
		"target size":       func(r *channel.Record) { r.Target.Size = artifact.MaxManifest + 1 },
		"epoch below floor": func(r *channel.Record) { r.EpochFloor = 1 },
		"keep twice":        func(r *channel.Record) { r.Keep = append(r.Keep, r.Keep[0]) },
		"keep the target":   func(r *channel.Record) { r.Keep = []channel.Target{r.Target} },
		"no evidence":       func(r *channel.Record) { r.Evidence = nil },
		"no verdict":        func(r *channel.Record) { r.Evidence = r.Evidence[:1] },
		"evidence subject":  func(r *channel.Record) { r.Evidence[0].Subject = digestA },
		"evidence size":     func(r *channel.Record) { r.Evidence[0].Size = artifact.MaxBundle + 1 },
		"rollback to self":  func(r *channel.Record) { r.Rollback = &channel.Rollback{From: digestB, Reason: "x"} },
		"rollback reason":   func(r *channel.Record) { r.Rollback = &channel.Rollback{From: digestA, Reason: " "} },
		"percent":           func(r *channel.Record) { r.Rollout = &channel.Rollout{ID: "x", Percent: 101} },
		"freeze reason":     func(r *channel.Record) { r.Freeze = &channel.Freeze{Reason: "\n"} },
		"freeze text":       func(r *channel.Record) { r.Freeze = &channel.Freeze{Reason: strings.Repeat("x", channel.MaxReason+1)} },
		"trust version":     func(r *channel.Record) { r.Trust.Version = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			r := *h2.Record
			r.Evidence = append([]channel.EvidenceRef{}, r.Evidence...)
			r.Keep = append([]channel.Target{}, r.Keep...)
			f(&r)
			if err := r.Validate(); err == nil || !strings.HasPrefix(err.Error(), "channel record: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	w := verifytest.New(f)
	r, err := channel.Next(nil, w.Change(verifytest.Target("1.0", digestA)))
	if err != nil {
		f.Fatal(err)
	}
	raw, err := artifact.Canonical(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	h, _ := w.SignRecord(trust.RoleDeployer, r)
	c := w.Change(verifytest.Target("2.0", digestB))
	c.Rollout, c.Freeze = &channel.Rollout{ID: "r", Percent: 12.34}, &channel.Freeze{Reason: "x"}
	if r, err = channel.Next(h, c); err != nil {
		f.Fatal(err)
	}
	if raw, err = artifact.Canonical(r); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	h, _ = w.SignRecord(trust.RoleDeployer, r)
	if r, err = channel.RollBack(h, digestA, "recall fell", w.Change(verifytest.Target("1.0", digestA))); err != nil {
		f.Fatal(err)
	}
	if raw, err = artifact.Canonical(r); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)                     // goes back and keeps something
	for _, x := range [][2]string{ // one change each to a record that is valid
		{`"seq":`, `"seq":-`}, {`"seq":`, `"seq":9223372036854775807,"was":`}, {`"seq":`, `"seq":1e3,"was":`}, {`"generation":1`, `"generation":0`},
		{`"schema":`, `"schema":"x","schema":`}, {`"keep":[`, `"keep":[null,`}, {`"keep":[`, `"keep":{"0":[`}, {`"expires":"`, `"expires":"9999-12-31T23:59:60Z`}, {`"issued":"`, `"issued":"0000-`},
		{`sha256:`, `sha512:`}, {`sha256:`, `sha256:..`}, {`"env":"`, `"env":"\ud800`}, {`"labels":{`, `"labels":{"":"",`}, {`{`, "{ "}, {`}`, "}\n"}, {`:`, ":" + strings.Repeat("[", 2000)},
	} {
		f.Add([]byte(strings.Replace(string(raw), x[0], x[1], 1)))
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := channel.Parse(raw)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("parsed but invalid: %v", err)
		}
		out, err := artifact.Canonical(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := channel.Parse(out); err != nil || !channel.SameContent(r, again) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}

// A refresh in the very second of the record before still extends it.
func TestExtendWithinASecond(t *testing.T) {
	w := verifytest.New(t)
	h := first(t, w)
	r, err := channel.Extend(h, h.Record.Issued.Add(100*time.Millisecond), h.Record.Expires.Add(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Expires.After(h.Record.Expires) {
		t.Errorf("expires %s, before it was %s", r.Expires, h.Record.Expires)
	}
}
