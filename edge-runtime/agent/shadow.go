package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Shadow says what a new artifact has to answer like before its trial, on copies of live requests.
type Shadow struct {
	Requests     int64         // compared ones that end it; 0: no shadow run
	Duration     time.Duration // that ends it at the latest
	Sample       float64       // part of the live requests that is copied
	MaxDifferent float64       // 0.01: one answer in a hundred may differ
	RTol, ATol   float64       // of floating-point outputs; both 0: bit for bit
	P99Ratio     float64       // over that of the live model, from earlyP99 requests on; 0: no limit
}

// Shadower shows copies of live requests to a model that does not serve.
type Shadower interface {
	// Shadow compares candidate with live, which serves, until Stop. An error is one of the pair of models.
	Shadow(live, candidate Model, s Shadow) (ShadowRun, error)
}

// ShadowRun is a comparison under way; *shadow.Run is one.
type ShadowRun interface {
	Result() shadow.Result
	Stop()
}

// inShadow compares next with what serves, when the channel asks for that. An error that is a *failedTrial is the verdict.
func (f *follower) inShadow(ctx context.Context, in *state.Intent, next *loaded) error {
	s := f.cfg.Shadow
	if s.Requests == 0 || !in.Candidate.Committed.IsZero() {
		return nil // not wanted, or it answered here before
	}
	if f.live == nil {
		return f.step(in, state.Shadow, f.about(KindShadow, in.Candidate, in.Seq, "skipped: nothing serves that it could be compared with"))
	}
	begins := f.about(KindShadow, in.Candidate, in.Seq, fmt.Sprintf("against %s, up to %d requests in %s", f.live.slot.Digest.Short(), s.Requests, s.Duration))
	if err := f.step(in, state.Shadow, begins); err != nil {
		return err
	}
	run, err := f.a.Shadows.Shadow(f.live.model, next.model, s)
	if err != nil {
		return &failedTrial{err: fmt.Errorf("shadow: it cannot be compared with %s: %w", f.live.slot.Digest.Short(), err)}
	}
	f.shadowed.Store(&run)
	defer f.shadowed.Store(nil)
	err = f.watchShadow(ctx, s, run, in)
	run.Stop()
	if err != nil {
		return err
	}
	return f.change(func(*state.Channel) error { return nil }, f.about(KindShadow, in.Candidate, in.Seq, "passed: "+tell(run.Result())))
}

func (f *follower) watchShadow(ctx context.Context, s Shadow, run ShadowRun, in *state.Intent) error {
	const looks = 200
	every := min(max(s.Duration/looks, time.Millisecond), time.Second)
	end := f.a.Clock.Up() + s.Duration
	for {
		if err := f.a.Clock.Sleep(ctx, every); err != nil {
			return cause(ctx)
		}
		if err := f.lookAgain(ctx, in); err != nil {
			return err
		}
		res := run.Result()
		over := res.Compared >= s.Requests || f.a.Clock.Up() >= end
		if err := s.judge(res, over); err != nil {
			return &failedTrial{err: err}
		}
		if over {
			return nil
		}
	}
}

// judge compares what was seen with what is allowed; over tells that the run is. Before that only what cannot be made good any
// more counts.
func (s Shadow) judge(r shadow.Result, over bool) error {
	of := r.Compared
	if !over {
		of = max(s.Requests, of)
	}
	switch {
	case float64(r.Different) > s.MaxDifferent*float64(of):
		return fmt.Errorf("shadow: %d of %d answers differ, at most %g allowed; largest difference of a number %g; first: %s", r.Different, r.Compared, s.MaxDifferent, r.Largest, r.First)
	case over && s.P99Ratio > 0 && r.Compared-r.Failed >= earlyP99 && float64(r.P99) > s.P99Ratio*float64(r.LiveP99):
		return fmt.Errorf("shadow: p99 %s against %s of the live model in %d requests, more than %g times", r.P99, r.LiveP99, r.Compared, s.P99Ratio)
	}
	return nil
}

func tell(r shadow.Result) string {
	return fmt.Sprintf("%d of %d live requests compared, %d differ (largest difference %g), %d dropped; p99 %s against %s", r.Compared, r.Seen, r.Different, r.Largest, r.Dropped, r.P99, r.LiveP99)
}

// fits makes sure that a new artifact has the memory it asks for beside the one that serves, as far as both are known: a process
// that is killed for its memory serves nothing. Weights are mapped from their file and do not count.
func (f *follower) fits(m *artifact.Model) error {
	if f.a.Memory == nil {
		return nil
	}
	free, ok := f.a.Memory()
	if !ok {
		return nil
	}
	for _, l := range deviceLayers(m) {
		if l.Role != artifact.RoleInterface {
			continue
		}
		iface, err := f.iface(l)
		if err != nil {
			return nil // Load says what is wrong with it
		}
		need := needs(iface)
		if need > free {
			return fmt.Errorf("%w: it needs %d bytes of memory beside the model that serves, %d are free", ErrTransient, need, free)
		}
	}
	return nil
}

// needs is the memory that a model takes to run one call, without its weights.
func needs(i *artifact.Interface) uint64 {
	n := uint64(i.Memory.Heap) + max(i.Memory.Arena, i.Memory.Planned)
	if i.Weights != nil {
		n -= min(n, uint64(max(i.Weights.Size, 0)))
	}
	return n
}

var errNoShadower = errors.New("a shadow run is configured and nothing here can run one")
