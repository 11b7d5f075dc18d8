package channel_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// A freeze repeats everything, is found as such, may be refreshed, rolled back under, and lifted; a lift changes nothing but the
// evidence.
func TestHaltAndLift(t *testing.T) {
	w := verifytest.New(t)
	h2 := phase(t, w, first(t, w), 25)
	at := func(n int) (time.Time, time.Time) {
		return w.Now.Add(time.Duration(n) * time.Minute), w.Now.Add(7*24*time.Hour + time.Duration(n)*time.Minute)
	}
	sign := func(role trust.Role, r *channel.Record, err error) *channel.Head {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		h, _ := w.SignRecord(role, r)
		return h
	}
	kind := func(p, n *channel.Head, refresher bool, want channel.Kind) {
		t.Helper()
		if s, err := channel.Follows(p, n, refresher); err != nil || s.Kind != want || len(s.Alarms) != 0 {
			t.Fatalf("seq %d after %d: %+v %v, want kind %d", n.Record.Seq, p.Record.Seq, s, err, want)
		}
	}
	from, to := at(1)
	r, err := channel.Halt(h2, "x", from, to, w.TrustRef())
	h3 := sign(trust.RoleDeployer, r, err)
	kind(h2, h3, false, channel.Halts)
	if r.Target != h2.Record.Target || *r.Rollout != *h2.Record.Rollout || len(r.Keep) != len(h2.Record.Keep) || r.Seq != 3 || r.Prev != h2.Bundle {
		t.Errorf("%+v", r)
	}
	from, to = at(2)
	r, err = channel.Extend(h3, from, to)
	h4 := sign(trust.RoleRefresher, r, err)
	kind(h3, h4, true, channel.Refresh)
	if r.Freeze == nil {
		t.Fatal("the refresh lost the freeze")
	}
	from, to = at(3)
	r, err = channel.Halt(h4, "x, ticket 7", from, to, w.TrustRef())
	h5 := sign(trust.RoleDeployer, r, err)
	kind(h4, h5, false, channel.Halts)
	c := w.Change(channel.Target{Digest: digestA})
	c.Freeze = h5.Record.Freeze
	r, err = channel.RollBack(h5, digestA, "y", c)
	h6 := sign(trust.RoleDeployer, r, err)
	kind(h5, h6, false, channel.Update)
	from, to = at(4)
	r, err = channel.Halt(h6, "after the rollback", from, to, w.TrustRef())
	h7 := sign(trust.RoleDeployer, r, err)
	kind(h6, h7, false, channel.Halts)
	if r.Rollback == nil || r.Rollback.From != digestB {
		t.Errorf("a device that missed the rollback would not hear of it: %+v", r.Rollback)
	}
	newer := append([]channel.EvidenceRef{}, h7.Record.Evidence...)
	newer[1].Digest = digestC
	from, to = at(5)
	r, err = channel.Lift(h7, newer, from, to, w.TrustRef())
	h8 := sign(trust.RoleDeployer, r, err)
	kind(h7, h8, false, channel.Lifts)
	if _, err := channel.Lift(h8, newer, from, to, w.TrustRef()); err == nil {
		t.Error("lifted twice")
	}
	kind(h2, h8, false, channel.Update) // a device that missed all of it
}

func TestReach(t *testing.T) {
	for i := range channel.Buckets + 1 {
		p := float64(i) / 100
		if got := (&channel.Rollout{ID: "x", Percent: p}).Reach(); got != i {
			t.Fatalf("%v %% reaches %d buckets, want %d", p, got, i)
		}
	}
	if n := (*channel.Rollout)(nil).Reach(); n != channel.Buckets {
		t.Errorf("no rollout reaches %d", n)
	}
	w := verifytest.New(t)
	for p, ok := range map[float64]bool{0: true, 0.01: true, 12.34: true, 99.99: true, 100: true, 0.001: false, 33.333: false} {
		c := w.Change(verifytest.Target("1.0", digestA))
		c.Rollout = &channel.Rollout{ID: "x", Percent: p}
		if _, err := channel.Next(nil, c); (err == nil) != ok {
			t.Errorf("%v %%: %v", p, err)
		}
	}
}

// deviceID is the id of the i-th device: hex SHA-256, like that of a key.
func deviceID(i int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "device key %d", i))
	return hex.EncodeToString(h[:])
}

// The buckets of 20,000 devices are even, and those of two rollouts independent of each other: Pearson's chi-square over 100
// cells, against the 0.999999 quantile by Wilson and Hilferty. A hash that is a little uneven would fail by far: see the mutants.
func TestBucketsAreEven(t *testing.T) {
	const n, cells = 20000, 100
	chi := func(cell func(i int) int) float64 {
		count := make([]float64, cells)
		for i := range n {
			count[cell(i)]++
		}
		x, want := 0.0, float64(n)/cells
		for _, c := range count {
			x += (c - want) * (c - want) / want
		}
		return x
	}
	const k = cells - 1
	limit := k * math.Pow(1-2.0/(9*k)+4.7534*math.Sqrt(2.0/(9*k)), 3)
	for _, id := range []string{"canary", "canary-2", "", "r\x01", "2026-11"} {
		if x := chi(func(i int) int { return channel.Bucket(id, deviceID(i)) / (channel.Buckets / cells) }); x > limit {
			t.Errorf("rollout %q: chi-square %.1f over %.1f", id, x, limit)
		}
		if x := chi(func(i int) int {
			return channel.Bucket(id, deviceID(i))/1000*10 + channel.Bucket(id+"'", deviceID(i))/1000
		}); x > limit {
			t.Errorf("rollouts %q and %q depend on each other: chi-square %.1f over %.1f", id, id+"'", x, limit)
		}
	}
	for name, mutant := range map[string]func(i int) int{
		"16 bits of the hash": func(i int) int {
			h := sha256.Sum256([]byte(deviceID(i)))
			return (int(h[0])*256 + int(h[1])) % 10000 / 100
		},
		"the device id itself": func(i int) int { return int(deviceID(i)[0]) % cells },
		"no rollout id":        func(i int) int { b := channel.Bucket("", deviceID(i)) / 1000; return b*10 + b },
	} {
		if x := chi(mutant); x <= limit {
			t.Errorf("%s: chi-square %.1f would pass", name, x)
		}
	}
}

// Who is in at p is in at every higher percentage, and at 0 nobody, at 100 everybody.
func TestPhasesGrow(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		id, dev := fmt.Sprintf("r%d", rng.IntN(5)), deviceID(i)
		p, q := rng.IntN(10001), rng.IntN(10001)
		if p > q {
			p, q = q, p
		}
		in := func(x int) bool { return (&channel.Rollout{ID: id, Percent: float64(x) / 100}).Includes(dev) }
		if in(p) && !in(q) || in(0) || !in(10000) {
			t.Fatalf("%s in %s: %d %v, %d %v", dev, id, p, in(p), q, in(q))
		}
	}
}

// chain is a random honest history: publications, phases, refreshes, rollbacks, freezes, lifts, generations.
func chain(t testing.TB, w *verifytest.World, rng *rand.Rand, n int) (heads []*channel.Head, roles []trust.Role) {
	t.Helper()
	targets := make([]channel.Target, 5)
	changes := make([]channel.Change, 5)
	for i := range targets {
		targets[i] = verifytest.Target(fmt.Sprintf("%d.0", i), artifact.DigestOf([]byte{byte(i)}))
		changes[i] = w.Change(targets[i])
	}
	generation := 1
	var prev *channel.Head
	for len(heads) < n {
		i := rng.IntN(len(targets))
		c := changes[i]
		c.Generation = generation
		var r *channel.Record
		var err error
		role := trust.RoleDeployer
		from := w.Now.Add(time.Duration(len(heads)) * time.Second)
		to := from.Add(7 * 24 * time.Hour)
		c.Issued, c.Expires = from, to
		switch k := rng.IntN(12); {
		case prev == nil || k < 3:
			r, err = channel.Next(prev, c)
		case k < 5:
			c.Rollout = &channel.Rollout{ID: fmt.Sprint("r", rng.IntN(2)), Percent: float64(rng.IntN(10001)) / 100}
			r, err = channel.Next(prev, c)
		case k < 7:
			role = trust.RoleRefresher
			r, err = channel.Extend(prev, from, prev.Record.Expires.Add(time.Second))
			if err == nil && r.Expires.Sub(r.Issued) > prev.Record.Expires.Sub(prev.Record.Issued) {
				err = channel.ErrRefresher
			}
		case k < 8:
			if len(prev.Record.Keep) == 0 {
				continue
			}
			to := prev.Record.Keep[rng.IntN(len(prev.Record.Keep))].Digest
			c.Target.Digest, c.Freeze = to, prev.Record.Freeze
			e := w.Change(channel.Target{Digest: to})
			c.Evidence = e.Evidence
			r, err = channel.RollBack(prev, to, "back", c)
		case k < 10:
			r, err = channel.Halt(prev, fmt.Sprint("halt ", rng.IntN(2)), from, to, w.TrustRef())
		case k < 11:
			r, err = channel.Lift(prev, prev.Record.Evidence, from, to, w.TrustRef())
		default:
			generation++
			c.Generation = generation
			r, err = channel.Next(prev, c)
		}
		if err != nil {
			continue // the publisher is told so
		}
		h, _ := w.SignRecord(role, r)
		if _, err := channel.Follows(prev, h, role == trust.RoleRefresher); err != nil {
			t.Fatalf("record %d does not follow: %v\n%+v\n%+v", len(heads), err, prev.Record, r)
		}
		heads, roles, prev = append(heads, h), append(roles, role), h
	}
	return heads, roles
}

// Whatever a hostile carrier reorders, drops, replays or mixes in of two branches of a history, what a device has accepted never
// falls in (generation, seq), its content never changes at an equal seq, and a refresher never changes it.
func TestHostileCarrier(t *testing.T) {
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := verifytest.New(t)
		heads, roles := chain(t, w, rng, 12)
		// A second publisher whose records have the same numbers from some point on: a fork.
		other, otherRoles := chain(t, w, rng, 12)
		heads, roles = append(heads, other...), append(roles, otherRoles...)
		hostile(t, rng, heads, roles, "", true)
	}
}

// Without each of the checks the same walk finds a violation: the property is not empty.
func TestHostileCarrierFindsMutants(t *testing.T) {
	for _, check := range []string{"stale", "fork", "refresher"} {
		found := false
		for seed := range uint64(200) {
			rng := rand.New(rand.NewPCG(seed, 7))
			w := verifytest.New(t)
			heads, roles := chain(t, w, rng, 12)
			other, otherRoles := chain(t, w, rng, 12)
			if found = !hostile(t, rng, append(heads, other...), append(roles, otherRoles...), check, false); found {
				break
			}
		}
		if !found {
			t.Errorf("nothing noticed that %q was left out", check)
		}
	}
}

// hostile shows records to a device in a hostile order; false when an invariant broke.
func hostile(t *testing.T, rng *rand.Rand, heads []*channel.Head, roles []trust.Role, skip string, report bool) bool {
	t.Helper()
	var at *channel.Head
	seen := map[[2]int64]artifact.Digest{}
	for step := range 60 {
		i := rng.IntN(len(heads))
		next := heads[i]
		refresher := roles[i] == trust.RoleRefresher
		s, err := channel.FollowsWithout(skip, at, next, refresher)
		if err != nil || s.Kind == channel.Same {
			continue
		}
		key := [2]int64{int64(next.Record.Generation), next.Record.Seq}
		why := ""
		if at != nil {
			p, n := at.Record, next.Record
			switch was, ok := seen[key]; {
			case n.Generation < p.Generation || n.Generation == p.Generation && n.Seq < p.Seq:
				why = "it fell"
			case ok && was != next.Bundle:
				why = "other content at the same seq"
			case refresher && !channel.SameContent(p, n):
				why = "a refresher changed the content"
			}
		}
		if why != "" {
			if report {
				t.Errorf("step %d: %s", step, why)
			}
			return false
		}
		seen[key], at = next.Bundle, next
	}
	return true
}
