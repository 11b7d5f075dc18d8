// Package rollout brings one release to the targets of an environment: all are planned before any is touched, they are applied in
// order, and when one fails, those that were changed go back to what they ran. Each move is recorded as a deployment/v1 statement.
package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// Place is a target with its name in the environment, and what shall run there.
type Place struct {
	Name    string
	Target  deploy.Target
	Release deploy.Release
}

// Recorder keeps evidence of moves: it signs, and attaches to the artifact that d.Digest names.
type Recorder interface {
	Record(ctx context.Context, d evidence.Deployment) error
	// Recorded tells whether there is a statement that digest was brought to the target of this environment, and none of the others
	// was brought there after it.
	Recorded(ctx context.Context, env, target string, digest artifact.Digest, others []artifact.Digest) (bool, error)
}

// State is how a target came out of a rollout.
type State string

// States.
const (
	Planned    State = "planned"
	Unchanged  State = "unchanged"   // it runs the release already
	Applied    State = "applied"     //
	Failed     State = "failed"      // it runs what it ran before, or Step.Undo says why that is not known
	RolledBack State = "rolled back" // it was applied, and went back because another failed
	Left       State = "left"        // it was applied, and could not go back, or somebody else changed it since
	Skipped    State = "skipped"     // another failed before its turn
)

// Step is one target's part.
type Step struct {
	Place
	State   State
	Plan    *deploy.Plan
	Outcome *deploy.Outcome // of Apply
	Err     error           // why it failed
	Undo    error           // why it could not go back
	Unsaid  error           // why a move could not be recorded
}

// Rollout is under way: made by Plan, moved once by Apply. It is not safe for concurrent use.
type Rollout struct {
	Env   string
	Steps []*Step
	Now   func() time.Time
	Poll  time.Duration // between looks at a platform whose change still goes on after it failed here; 0: 5 s
}

// Plan reads all targets. One that cannot be planned makes it an error, which names each of them.
func Plan(ctx context.Context, env string, places []Place, now func() time.Time) (*Rollout, error) {
	r := &Rollout{Env: env, Now: now}
	var errs []error
	for _, p := range places {
		plan, err := p.Target.Plan(ctx, p.Release)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
			continue
		}
		s := &Step{Place: p, State: Planned, Plan: plan}
		if len(plan.Changes) == 0 {
			s.State = Unchanged
		}
		r.Steps = append(r.Steps, s)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

// Pending counts the targets that Apply would change.
func (r *Rollout) Pending() int {
	n := 0
	for _, s := range r.Steps {
		if s.State == Planned {
			n++
		}
	}
	return n
}

// undoTime bounds the way back, which is gone even when the caller gave up.
const undoTime = 15 * time.Minute

// Apply changes the targets in order. The error says which one failed and what became of the others; the steps have the detail.
// Moves that could not be recorded make it an error too, but are not taken back: the next run records them.
func (r *Rollout) Apply(ctx context.Context, rec Recorder) error {
	for i, s := range r.Steps {
		if s.State == Unchanged {
			r.catchUp(ctx, s, rec)
			continue
		}
		s.Outcome, s.Err = s.Target.Apply(ctx, s.Plan)
		if s.Err == nil {
			s.State = Applied
			if s.Outcome.Changed {
				s.Unsaid = r.record(ctx, rec, s.Name, "apply", s.Outcome)
			}
			continue
		}
		s.State = Failed
		for _, later := range r.Steps[i+1:] {
			later.State = Skipped
		}
		r.undo(context.WithoutCancel(ctx), r.Steps[:i+1], rec)
		break
	}
	return r.err()
}

// catchUp records a target that runs the release without a statement: the one of an earlier run was lost.
func (r *Rollout) catchUp(ctx context.Context, s *Step, rec Recorder) {
	var others []artifact.Digest
	st, err := s.Target.Status(ctx)
	if err == nil {
		for _, x := range slices.Concat(st.Shares, st.Kept) {
			if x.Digest != "" && x.Digest != s.Release.Digest && !slices.Contains(others, x.Digest) {
				others = append(others, x.Digest)
			}
		}
	}
	there := false
	if err == nil {
		there, err = rec.Recorded(ctx, r.Env, s.Name, s.Release.Digest, others)
	}
	if err != nil {
		s.Unsaid = err
		return
	}
	if there {
		return
	}
	// A plan without Changes calls nothing; its outcome has the platform's ids.
	if s.Outcome, s.Err = s.Target.Apply(ctx, s.Plan); s.Err != nil {
		s.Unsaid, s.Err = s.Err, nil
		return
	}
	s.Unsaid = r.record(ctx, rec, s.Name, "apply", s.Outcome)
}

// undo takes the changed ones of steps back, the last first. The last step is the one that failed: its answer may have been lost
// after the platform acted.
func (r *Rollout) undo(ctx context.Context, steps []*Step, rec Recorder) {
	ctx, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	for i, s := range slices.Backward(steps) {
		failed := i == len(steps)-1
		if !failed && (s.State != Applied || !s.Outcome.Changed) || failed && errors.Is(s.Err, deploy.ErrConflict) {
			continue // it was not changed, or by somebody else
		}
		r.back(ctx, s, failed, rec)
	}
}

// back takes one target back to what its plan was made from.
func (r *Rollout) back(ctx context.Context, s *Step, failed bool, rec Recorder) {
	leave := func(err error) {
		if !failed {
			s.State = Left
		}
		s.Undo = err
	}
	now, err := r.settled(ctx, s)
	if err != nil {
		leave(fmt.Errorf("what runs there cannot be read: %w", err))
		return
	}
	ours := slices.ContainsFunc(now.Shares, func(x deploy.Share) bool { return x.Digest == s.Release.Digest })
	switch {
	case failed && !ours && !now.Settled && now.Exists:
		s.Undo = fmt.Errorf("%w: it may still come to its end, with the new release", deploy.ErrBusy)
		return
	case failed && !ours:
		return // as it should be: the old one serves
	case !ours:
		leave(fmt.Errorf("%w: it runs %s now", deploy.ErrConflict, orNothing(now.Running())))
		return
	case s.Plan.From == s.Release.Digest && failed:
		return // what ran before serves
	case s.Plan.From == s.Release.Digest:
		leave(errSettings)
		return
	case s.Plan.From == "":
		leave(fmt.Errorf("%w: nothing of Waybill's ran there before", deploy.ErrNotFound))
		return
	}
	o, err := s.Target.Rollback(ctx, s.Plan.From, s.Release.Wait)
	if err != nil {
		leave(err)
		return
	}
	if !failed {
		s.State = RolledBack
	}
	if o.Changed {
		s.Unsaid = errors.Join(s.Unsaid, r.record(ctx, rec, s.Name, "rollback", o))
	}
}

// settled reads what runs when no change is under way any more: one that cannot be called off, whose wait was over here, may still
// come to its end there. When it does not within the time that a way back has, what is read then counts.
func (r *Rollout) settled(ctx context.Context, s *Step) (*deploy.Status, error) {
	end := time.NewTimer(cmp.Or(s.Release.Wait, settleTime))
	defer end.Stop()
	tick := time.NewTicker(cmp.Or(r.Poll, 5*time.Second))
	defer tick.Stop()
	for {
		now, err := s.Target.Status(ctx)
		if err != nil || now.Settled || !now.Exists {
			return now, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end.C:
			return now, nil
		case <-tick.C:
		}
	}
}

// errSettings: a platform's revisions can be given the traffic back, what was set before is not known any more.
var errSettings = errors.New("the artifact is the one that ran before, but its settings stay as they were deployed now")

// settleTime is waited for a change that goes on, where the release names no time.
const settleTime = 5 * time.Minute

func orNothing(d artifact.Digest) string {
	if d == "" {
		return "something that is not Waybill's"
	}
	return d.Short()
}

func (r *Rollout) record(ctx context.Context, rec Recorder, target, action string, o *deploy.Outcome) error {
	if err := rec.Record(ctx, Statement(r.Env, target, action, r.Now(), o)); err != nil {
		return fmt.Errorf("record the %s: %w", action, err)
	}
	return nil
}

// Statement is what an outcome says as evidence. The image that the platform resolved and a weight below 100 stand among the ids.
func Statement(env, target, action string, at time.Time, o *deploy.Outcome) evidence.Deployment {
	ids := map[string]string{}
	maps.Copy(ids, o.IDs)
	if o.Image != "" {
		ids["image"] = o.Image
	}
	if o.URL != "" {
		ids["url"] = o.URL
	}
	if o.Weight > 0 && o.Weight < 100 {
		ids["weight"] = fmt.Sprint(o.Weight)
	}
	d := evidence.Deployment{Target: target, Action: action, Env: env, Digest: o.Digest, At: at.UTC().Truncate(time.Second), IDs: ids}
	if o.Previous != o.Digest {
		d.Previous = o.Previous
	}
	return d
}

// err puts the steps' errors into one.
func (r *Rollout) err() error {
	var errs []error
	for _, s := range r.Steps {
		if s.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, s.Err))
		}
		if s.Undo != nil {
			errs = append(errs, fmt.Errorf("%s could not be rolled back: %w", s.Name, s.Undo))
		}
		if s.Unsaid != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, s.Unsaid))
		}
	}
	return errors.Join(errs...)
}

// Back is one target's part of a rollback.
type Back struct {
	Name    string
	Outcome *deploy.Outcome
	Err     error
	Unsaid  error
}

// Rollback takes all targets back, to the digest to or, when it is empty, each to the one that served there before. One that fails
// does not keep the others from it: who rolls back is in trouble already.
func Rollback(ctx context.Context, env string, places []Place, to artifact.Digest, rec Recorder, now func() time.Time) ([]*Back, error) {
	r := &Rollout{Env: env, Now: now}
	out := make([]*Back, 0, len(places))
	var errs []error
	for _, p := range places {
		b := &Back{Name: p.Name}
		out = append(out, b)
		if b.Outcome, b.Err = p.Target.Rollback(ctx, to, p.Release.Wait); b.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, b.Err))
			continue
		}
		if b.Outcome.Changed {
			if b.Unsaid = r.record(ctx, rec, p.Name, "rollback", b.Outcome); b.Unsaid != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p.Name, b.Unsaid))
			}
		}
	}
	return out, errors.Join(errs...)
}

// Promote gives the running canary of each target all of its traffic. A target that has no canaries, or none under way, is left alone:
// its Back has no Outcome. One that fails does not keep the others from it, and leaves its canary where it was.
func Promote(ctx context.Context, env string, places []Place, rec Recorder, now func() time.Time) ([]*Back, error) {
	r := &Rollout{Env: env, Now: now}
	out := make([]*Back, 0, len(places))
	var errs []error
	for _, p := range places {
		b := &Back{Name: p.Name}
		out = append(out, b)
		t, ok := p.Target.(deploy.Promoter)
		if !ok {
			continue
		}
		st, err := p.Target.Status(ctx)
		if err == nil && len(st.Shares) < 2 {
			continue
		}
		if err == nil {
			b.Outcome, err = t.Promote(ctx, p.Release.Wait)
		}
		if b.Err = err; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
			continue
		}
		if b.Outcome.Changed {
			if b.Unsaid = r.record(ctx, rec, p.Name, "apply", b.Outcome); b.Unsaid != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p.Name, b.Unsaid))
			}
		}
	}
	return out, errors.Join(errs...)
}
