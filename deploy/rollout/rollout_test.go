package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

var (
	one, two, three = artifact.DigestOf([]byte("1")), artifact.DigestOf([]byte("2")), artifact.DigestOf([]byte("3"))
	errBroken       = errors.New("broken")
)

// place is a target in memory; the interface's own behaviour is the suite's business, this one only keeps what serves.
type place struct {
	name     string
	runs     artifact.Digest
	before   artifact.Digest
	planErr  error
	applyErr error // before the switch
	lost     error // after the switch
	backErr  error
	seeErr   error
	tuned    bool   // by hand
	meddle   func() // called after Apply
	calls    *[]string
	ctxErrs  []error
}

func (p *place) note(what string) { *p.calls = append(*p.calls, p.name+" "+what) }

func (p *place) Status(ctx context.Context) (*deploy.Status, error) {
	p.ctxErrs = append(p.ctxErrs, ctx.Err())
	if p.seeErr != nil {
		return nil, p.seeErr
	}
	s := &deploy.Status{}
	if p.runs != "" {
		s.Shares = []deploy.Share{{Digest: p.runs, Weight: 100}}
	}
	if p.before != "" {
		s.Kept = []deploy.Share{{Digest: p.before}}
	}
	return s, nil
}

func (p *place) Plan(_ context.Context, r deploy.Release) (*deploy.Plan, error) {
	pl := &deploy.Plan{Release: r, From: p.runs}
	if p.runs != r.Digest {
		pl.Changes = []deploy.Change{{Field: "traffic", Old: string(p.runs), New: string(r.Digest)}}
	}
	if p.tuned {
		pl.Changes = append(pl.Changes, deploy.Change{Field: "memory", Old: "128", New: "512"})
	}
	return pl, p.planErr
}

func (p *place) Apply(ctx context.Context, pl *deploy.Plan) (*deploy.Outcome, error) {
	p.note("apply")
	if p.applyErr != nil {
		return nil, p.applyErr
	}
	o := &deploy.Outcome{Digest: pl.Release.Digest, Previous: p.runs, Image: "reg.example/m@" + string(two), IDs: map[string]string{"revision": "7"}, Weight: 100, Changed: len(pl.Changes) > 0}
	if o.Changed {
		p.before, p.runs = p.runs, pl.Release.Digest
	}
	if p.meddle != nil {
		p.meddle()
	}
	if p.lost != nil {
		return nil, p.lost
	}
	return o, ctx.Err()
}

func (p *place) Rollback(ctx context.Context, to artifact.Digest, _ time.Duration) (*deploy.Outcome, error) {
	p.note("rollback")
	p.ctxErrs = append(p.ctxErrs, ctx.Err())
	if p.backErr != nil {
		return nil, p.backErr
	}
	if to == "" {
		to = p.before
	}
	o := &deploy.Outcome{Digest: to, Previous: p.runs, IDs: map[string]string{"revision": "6"}, Weight: 100, Changed: to != p.runs}
	p.runs, p.before = to, p.runs
	return o, nil
}

// book is a Recorder that checks what it is given.
type book struct {
	t    *testing.T
	said []evidence.Deployment
	err  error
}

func (b *book) Record(_ context.Context, d evidence.Deployment) error {
	raw, err := json.Marshal(d)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := evidence.ParseDeployment(raw); err != nil {
		b.t.Errorf("%s is no deployment/v1: %v", raw, err)
	}
	if b.err != nil {
		return b.err
	}
	b.said = append(b.said, d)
	return nil
}

func (b *book) Recorded(_ context.Context, env, target string, d artifact.Digest, others []artifact.Digest) (bool, error) {
	for _, x := range slices.Backward(b.said) {
		if x.Env == env && x.Target == target && (x.Digest == d || slices.Contains(others, x.Digest)) {
			return x.Digest == d, nil
		}
	}
	return false, nil
}

func (b *book) text() string {
	var out []string
	for _, d := range b.said {
		out = append(out, fmt.Sprintf("%s %s %s", d.Action, d.Target, map[artifact.Digest]string{one: "1", two: "2", three: "3"}[d.Digest]))
	}
	return strings.Join(out, ", ")
}

func now() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC) }

func places(ps ...*place) (out []Place, calls *[]string) {
	calls = &[]string{}
	for i, p := range ps {
		p.name, p.calls = string(rune('a'+i)), calls
		out = append(out, Place{Name: p.name, Target: p, Release: deploy.Release{Digest: two}})
	}
	return out, calls
}

func states(r *Rollout) string {
	var out []string
	for _, s := range r.Steps {
		out = append(out, string(s.State))
	}
	return strings.Join(out, ", ")
}

func TestApply(t *testing.T) {
	broken := func(runs artifact.Digest) *place { return &place{runs: runs, applyErr: errBroken} }
	for name, c := range map[string]struct {
		ps     []*place
		states string
		runs   []artifact.Digest
		calls  string
		said   string
		errs   []string // parts of the error; nil: none
	}{
		"all": {[]*place{{runs: one}, {}}, "applied, applied", []artifact.Digest{two, two}, "a apply, b apply", "apply a 2, apply b 2", nil},
		"the last fails": {[]*place{{runs: one}, {runs: three}, broken(one), {runs: one}}, "rolled back, rolled back, failed, skipped", []artifact.Digest{one, three, one, one},
			"a apply, b apply, c apply, b rollback, a rollback", "apply a 2, apply b 2, rollback b 3, rollback a 1", []string{"c: broken"}},
		"the first fails": {[]*place{broken(one), {runs: one}}, "failed, skipped", []artifact.Digest{one, one}, "a apply", "", []string{"a: broken"}},
		"its answer is lost after the switch": {[]*place{{runs: one}, {runs: one, lost: errBroken}}, "rolled back, failed", []artifact.Digest{one, one},
			"a apply, b apply, b rollback, a rollback", "apply a 2, rollback b 1, rollback a 1", []string{"b: broken"}},
		"nothing ran there before": {[]*place{{}, broken(one)}, "left, failed", []artifact.Digest{two, one}, "a apply, b apply", "apply a 2", []string{"b: broken", "a could not be rolled back: no revision"}},
		"the way back fails": {[]*place{{runs: one}, {runs: one, backErr: deploy.ErrGone}, broken(one)}, "rolled back, left, failed", []artifact.Digest{one, two, one},
			"a apply, b apply, c apply, b rollback, a rollback", "apply a 2, apply b 2, rollback a 1", []string{"c: broken", "b could not be rolled back: the platform no longer has"}},
		"it cannot be seen": {[]*place{{runs: one}, {runs: one, lost: errBroken, seeErr: deploy.ErrUnavailable}}, "rolled back, failed", []artifact.Digest{one, two},
			"a apply, b apply, a rollback", "apply a 2, rollback a 1", []string{"b: broken", "b could not be rolled back: what runs there cannot be read"}},
		"another was faster with the same": {[]*place{{runs: one}, {runs: one, lost: deploy.ErrConflict}}, "rolled back, failed", []artifact.Digest{one, two},
			"a apply, b apply, a rollback", "apply a 2, rollback a 1", []string{"b: somebody else"}},
	} {
		ps, calls := places(c.ps...)
		b := &book{t: t}
		r, err := Plan(t.Context(), "prod", ps, now)
		if err != nil {
			t.Fatal(err)
		}
		err = r.Apply(t.Context(), b)
		if (err == nil) != (c.errs == nil) {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range c.errs {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", name, err, want)
			}
		}
		var runs []artifact.Digest
		for _, p := range c.ps {
			runs = append(runs, p.runs)
		}
		if states(r) != c.states || !slices.Equal(runs, c.runs) || strings.Join(*calls, ", ") != c.calls || b.text() != c.said {
			t.Errorf("%s: states %s, calls %v, evidence %s, runs %v", name, states(r), *calls, b.text(), runs)
		}
	}
}

// What somebody else deployed in the meantime is not taken away by the way back.
func TestUndoLeavesOthersAlone(t *testing.T) {
	first := &place{runs: one}
	first.meddle = func() {}
	last := &place{runs: one, applyErr: errBroken}
	ps, calls := places(first, last)
	r, err := Plan(t.Context(), "prod", ps, now)
	if err != nil {
		t.Fatal(err)
	}
	first.meddle = func() { first.runs = three }
	err = r.Apply(t.Context(), &book{t: t})
	if !errors.Is(err, deploy.ErrConflict) || !errors.Is(err, errBroken) || first.runs != three || states(r) != "left, failed" {
		t.Errorf("%v; %s; it runs %s; %v", err, states(r), first.runs, *calls)
	}
}

// Who gives up in the middle gets everything taken back, with a context that still works.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first, second := &place{runs: one}, &place{runs: one}
	ps, _ := places(first, second)
	r, err := Plan(ctx, "prod", ps, now)
	if err != nil {
		t.Fatal(err)
	}
	second.meddle = cancel
	err = r.Apply(ctx, &book{t: t})
	if !errors.Is(err, context.Canceled) || first.runs != one || second.runs != one || states(r) != "rolled back, failed" {
		t.Errorf("%v; %s", err, states(r))
	}
	for _, e := range slices.Concat(first.ctxErrs, second.ctxErrs) {
		if e != nil {
			t.Errorf("the way back was gone with a context that is over: %v", e)
		}
	}
}

func TestPlanNamesAll(t *testing.T) {
	ps, calls := places(&place{planErr: deploy.ErrForbidden}, &place{runs: one}, &place{planErr: deploy.ErrUnauthorized})
	_, err := Plan(t.Context(), "prod", ps, now)
	if !errors.Is(err, deploy.ErrForbidden) || !errors.Is(err, deploy.ErrUnauthorized) || !strings.Contains(err.Error(), "a: ") || !strings.Contains(err.Error(), "c: ") || len(*calls) != 0 {
		t.Errorf("%v; %v", err, *calls)
	}
}

// A move that could not be recorded stands, is an error, and is recorded by the next run, once.
func TestUnrecorded(t *testing.T) {
	p := &place{runs: one}
	ps, _ := places(p)
	b := &book{t: t, err: errBroken}
	for i, want := range []string{"", "apply a 2", "apply a 2"} {
		r, err := Plan(t.Context(), "prod", ps, now)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[int]int{0: 1}[i]; r.Pending() != want {
			t.Errorf("run %d: %d pending", i, r.Pending())
		}
		err = r.Apply(t.Context(), b)
		if (i == 0) != errors.Is(err, errBroken) || p.runs != two || b.text() != want {
			t.Errorf("run %d: %v; evidence %q", i, err, b.text())
		}
		b.err = nil
	}
	if d := b.said[0]; d.Env != "prod" || d.IDs["revision"] != "7" || d.IDs["image"] != "reg.example/m@"+string(two) || !d.At.Equal(now().Truncate(time.Second)) || d.Previous != "" {
		t.Errorf("%+v", d)
	}
}

func TestRollback(t *testing.T) {
	bad := &place{runs: two, backErr: deploy.ErrGone}
	ps, calls := places(&place{runs: two, before: one}, bad, &place{runs: two, before: three})
	b := &book{t: t}
	out, err := Rollback(t.Context(), "prod", ps, "", b, now)
	if !errors.Is(err, deploy.ErrGone) || !strings.Contains(err.Error(), "b: ") || strings.Join(*calls, ", ") != "a rollback, b rollback, c rollback" || b.text() != "rollback a 1, rollback c 3" {
		t.Errorf("%v; %v; %s", err, *calls, b.text())
	}
	if len(out) != 3 || out[0].Outcome.Digest != one || out[1].Err == nil || b.said[0].Previous != two {
		t.Errorf("%+v", out)
	}
	b.said, bad.backErr = nil, nil
	if _, err := Rollback(t.Context(), "prod", ps, one, b, now); err != nil || b.text() != "rollback b 1, rollback c 1" {
		t.Errorf("%v; %s", err, b.text())
	}
}

// canary is a place with a canary under way.
type canary struct {
	*place
	shares     []deploy.Share
	promoteErr error
}

func (c *canary) Status(context.Context) (*deploy.Status, error) {
	c.note("status")
	return &deploy.Status{Exists: true, Shares: c.shares}, nil
}

func (c *canary) Promote(ctx context.Context, _ time.Duration) (*deploy.Outcome, error) {
	c.note("promote")
	if c.promoteErr != nil {
		return nil, c.promoteErr
	}
	return &deploy.Outcome{Digest: two, Previous: one, IDs: map[string]string{"revision": "8"}, Weight: 100, Changed: true}, nil
}

func TestPromote(t *testing.T) {
	both := []deploy.Share{{Digest: one, Weight: 90}, {Digest: two, Weight: 10}}
	a, b, c, d := &place{}, &place{}, &place{}, &place{}
	ps, calls := places(a, b, c, d)
	ps[0].Target = &canary{place: a, shares: both, promoteErr: deploy.ErrUnhealthy}
	ps[1].Target = &canary{place: b, shares: both}
	ps[2].Target = &canary{place: c, shares: both[:1]}
	rec := &book{t: t}
	bs, err := Promote(t.Context(), "prod", ps, rec, now)
	if !errors.Is(err, deploy.ErrUnhealthy) || !strings.Contains(err.Error(), "a: ") {
		t.Errorf("%v", err)
	}
	if got := rec.text(); got != "apply b 2" {
		t.Errorf("recorded: %s", got)
	}
	if got := strings.Join(*calls, ", "); got != "a status, a promote, b status, b promote, c status" {
		t.Errorf("calls: %s", got)
	}
	if len(bs) != 4 || bs[0].Err == nil || bs[1].Outcome == nil || bs[2].Outcome != nil || bs[3].Outcome != nil {
		t.Errorf("%+v", bs)
	}
	rec.err = errors.New("no registry")
	ps[0].Target = &canary{place: a, shares: both}
	if bs, err = Promote(t.Context(), "prod", ps, rec, now); err == nil || bs[0].Unsaid == nil || bs[0].Err != nil {
		t.Errorf("a move that is not attested is no error: %v", err)
	}
}

// slow is a place whose change goes on after its Apply gave up.
type slow struct {
	*place
	reads int // until it ends, with the new release
}

func (s *slow) Status(ctx context.Context) (*deploy.Status, error) {
	st, err := s.place.Status(ctx)
	st.Exists = true
	if s.reads--; s.reads == 0 {
		s.before, s.runs = s.runs, two
	}
	st.Settled = s.reads < 0
	return st, err
}

// A platform that does not call a change off brings the new release to traffic after the deployment failed: it is waited for, and
// taken back. One that does not end is told of.
func TestChangeThatGoesOn(t *testing.T) {
	for reads, want := range map[int]artifact.Digest{3: one, 1 << 30: one} {
		a := &place{runs: one, applyErr: deploy.ErrUnhealthy}
		ps, _ := places(a)
		ps[0].Target, ps[0].Release.Wait = &slow{a, reads}, 200*time.Millisecond
		r, err := Plan(t.Context(), "prod", ps, now)
		if err != nil {
			t.Fatal(err)
		}
		r.Poll = time.Millisecond
		rec := &book{t: t}
		if err := r.Apply(t.Context(), rec); !errors.Is(err, deploy.ErrUnhealthy) {
			t.Errorf("%v", err)
		}
		if a.runs != want {
			t.Errorf("%d reads: it runs %s", reads, a.runs.Short())
		}
		if ends := reads < 10; ends != (r.Steps[0].Undo == nil) || !ends && !errors.Is(r.Steps[0].Undo, deploy.ErrBusy) || ends != (rec.text() == "rollback a 1") {
			t.Errorf("%d reads: %v, recorded %q", reads, r.Steps[0].Undo, rec.text())
		}
	}
}

// What was recorded long ago is not what happened since: back at the first release, without a statement, the next run makes one.
func TestRecordsTheWayBack(t *testing.T) {
	p := &place{runs: two, before: one}
	ps, _ := places(p)
	b := &book{t: t}
	for _, d := range []artifact.Digest{two, one} {
		b.said = append(b.said, evidence.Deployment{Target: "a", Env: "prod", Action: "apply", Digest: d})
	}
	for i, want := range []string{"apply a 2, apply a 1, apply a 2", "apply a 2, apply a 1, apply a 2"} {
		r, err := Plan(t.Context(), "prod", ps, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Apply(t.Context(), b); err != nil || b.text() != want {
			t.Errorf("run %d: %v; evidence %q", i, err, b.text())
		}
	}
}

// Settings that were set right stay so when another target fails, and the rollout says it.
func TestSettingsStay(t *testing.T) {
	first, last := &place{runs: two, tuned: true}, &place{runs: one, applyErr: errBroken}
	ps, calls := places(first, last)
	r, err := Plan(t.Context(), "prod", ps, now)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Apply(t.Context(), &book{t: t})
	if !errors.Is(err, errSettings) || !errors.Is(err, errBroken) || states(r) != "left, failed" || first.runs != two || slices.Contains(*calls, "a rollback") {
		t.Errorf("%v; %s; %v", err, states(r), *calls)
	}
}
