package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/edge-runtime/sense"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// runtime loads artifacts with the engine.
type runtime struct {
	engine *engine.Engine
	cfg    *config.Engine
}

// model is a loaded artifact with the vectors that it must reproduce.
type model struct {
	*engine.Model
	golden *artifact.Golden
	tap    atomic.Pointer[shadow.Run] // that sees copies of the requests answered, nil without one
}

// Load implements agent.Runtime.
func (r runtime) Load(ctx context.Context, b agent.Bundle) (agent.Model, error) {
	var (
		iface   artifact.Interface
		golden  artifact.Golden
		module  []byte
		steps   []engine.StepModule
		weights engine.WeightsSource
		layer   artifact.Layer // of the weights
	)
	for _, l := range b.Layers {
		if l.Role == artifact.RoleWeights {
			layer, weights = l, r.cfg.Source(b.Path(l.Digest)) // hashed by the engine, by chunks on all cores
			continue
		}
		if l.Role == artifact.RoleBaseline {
			continue // for drift, which this version does not watch
		}
		raw, err := b.Read(l)
		if err != nil {
			return nil, err
		}
		switch l.Role {
		case artifact.RoleModule:
			module = raw
		case artifact.RoleStep:
			steps = append(steps, engine.StepModule{Path: l.Path, Code: raw})
		case artifact.RoleInterface:
			if err := strictjson.DecodeOpen(raw, &iface); err != nil {
				return nil, fmt.Errorf("interface document: %w", err)
			}
			if iface.Schema == artifact.BundledSchema {
				return nil, errors.New("it was bundled as it is (compile: false): it has no module to run")
			}
			if iface.Schema != artifact.InterfaceSchema {
				return nil, fmt.Errorf("interface document: schema is %q, this version reads %q", iface.Schema, artifact.InterfaceSchema)
			}
		case artifact.RoleGolden:
			if err := json.Unmarshal(raw, &golden); err != nil {
				return nil, fmt.Errorf("golden vectors: %w", err)
			}
			if golden.Schema != artifact.GoldenSchema {
				return nil, fmt.Errorf("golden vectors: schema is %q, this version reads %q", golden.Schema, artifact.GoldenSchema)
			}
		}
	}
	if layer.Digest != "" {
		if err := sameWeights(iface.Weights, layer); err != nil {
			return nil, err
		}
	}
	m, err := r.engine.Load(ctx, module, weights, &iface, steps...)
	if err != nil {
		return nil, err
	}
	return &model{Model: m, golden: &golden}, nil
}

// Probe implements agent.Model.
func (m *model) Probe(ctx context.Context, measure bool) (state.Proof, error) {
	e := probe.Effort{Timeout: callTimeout}
	if ms := m.Interface().Limits.TimeoutMS; ms > 0 {
		e.Timeout = min(e.Timeout, time.Duration(ms)*time.Millisecond)
	}
	if measure {
		e.Calls, e.Budget = measureCalls, measureTime
	}
	r, err := probe.Measure(ctx, m.Model, m.golden, e)
	if err == nil {
		err = r.Err()
	}
	return state.Proof{
		Vectors: r.Vectors, Calls: r.Calls, Memory: r.PeakMemory,
		First: time.Duration(r.FirstNS), P50: time.Duration(r.P50NS), P99: time.Duration(r.P99NS),
	}, err
}

// How long a call of a golden vector may take where the interface document has no limit of its own, as for requests; and how
// much is done to tell a new model's times.
const (
	callTimeout  = 30 * time.Second
	measureCalls = 200
	measureTime  = time.Second
)

// lease is what the server gets: it hands the model back instead of closing it, since the agent may need it again.
type lease struct{ *model }

// Run implements serve.Runner.
func (l lease) Run(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
	outs, _, err := l.RunTimed(ctx, ins)
	return outs, err
}

// RunTimed is the model's, and hands copies of what was answered to a shadow run.
func (l lease) RunTimed(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, time.Duration, error) {
	outs, took, err := l.model.RunTimed(ctx, ins)
	if run := l.tap.Load(); run != nil && err == nil {
		run.Offer(ctx, ins, outs, took)
	}
	return outs, took, err
}

// Close ends the lease; the agent closes the model.
func (lease) Close(context.Context) error { return nil }

// server swaps models for the agent.
type server struct {
	*serve.Server
	models *models // those that serve
}

// Swap implements agent.Server.
func (s server) Swap(name string, slot state.Slot, m agent.Model) (<-chan struct{}, error) {
	if m == nil {
		s.models.set(name, nil)
		_, released := s.Server.Remove(name)
		return released, nil
	}
	x, ok := m.(*model)
	if !ok {
		return nil, fmt.Errorf("serve %s: a model of type %T", name, m)
	}
	s.models.set(name, x)
	_, released := s.Server.Swap(name, serve.Model{Digest: slot.Digest, Runner: lease{x}})
	return released, nil
}

// Shadow implements agent.Shadower.
func (s server) Shadow(live, candidate agent.Model, cfg agent.Shadow) (agent.ShadowRun, error) {
	l, c := live.(*model), candidate.(*model)
	timeout := callTimeout
	if ms := c.Interface().Limits.TimeoutMS; ms > 0 {
		timeout = min(timeout, time.Duration(ms)*time.Millisecond)
	}
	run, err := shadow.Start(c.Model, l.Interface(), shadow.Config{Sample: cfg.Sample, RTol: cfg.RTol, ATol: cfg.ATol, Timeout: timeout})
	if err != nil {
		return nil, err
	}
	l.tap.Store(run)
	return &tapped{run, l}, nil
}

// tapped is a shadow run that takes its tap along when it stops.
type tapped struct {
	*shadow.Run
	live *model
}

// Stop implements agent.ShadowRun.
func (t *tapped) Stop() {
	t.live.tap.CompareAndSwap(t.Run, nil)
	t.Run.Stop()
}

// Stats implements agent.Server.
func (s server) Stats(name string) agent.Stats {
	st, ok := s.Server.Stats(name)
	if !ok {
		return agent.Stats{}
	}
	return agent.Stats{Requests: int64(st.OK + st.Failed), Errors: int64(st.Failed), P50: st.P50, P99: st.P99}
}

// clock is the real one.
type clock struct{}

// Now implements agent.Clock.
func (clock) Now() time.Time { return time.Now() }

// started is where the time of the process begins.
var started = time.Now()

// Up implements agent.Clock.
func (clock) Up() time.Duration { return time.Since(started) }

// Sleep implements agent.Clock.
func (clock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sameWeights compares the weights that the interface document describes with the layer of the manifest.
func sameWeights(w *artifact.Weights, l artifact.Layer) error {
	if w != nil && w.Digest != l.Digest {
		return fmt.Errorf("%w: layer %s has digest %s, the interface document says %s", engine.ErrIntegrity, l.Path, l.Digest, w.Digest)
	}
	return nil
}

// carriers is what the agent sees of a set.
type carriers struct{ *carrier.Set }

var _ agent.Places = carriers{}

// Carriers tells the state of the places.
func (c carriers) Carriers() []agent.CarrierStatus {
	var out []agent.CarrierStatus
	for _, s := range c.States() {
		out = append(out, agent.CarrierStatus(s))
	}
	return out
}

func shadowOf(s *config.Shadow) agent.Shadow {
	if s == nil {
		return agent.Shadow{}
	}
	return agent.Shadow{
		Requests: s.Requests, Duration: time.Duration(s.Duration), Sample: *s.Sample, MaxDifferent: s.MaxDifferent,
		RTol: s.RTol, ATol: s.ATol, P99Ratio: s.P99Ratio,
	}
}

// freeMemory is the memory that the system says a new model could have.
func freeMemory() (free uint64, known bool) {
	m := sense.Source{Root: os.DirFS("/")}.Memory()
	if !m.Known {
		return 0, false
	}
	return uint64(*m.FreeBytes), true
}

func factoryOf(f *config.Factory) agent.Factory {
	if f == nil {
		return agent.Factory{}
	}
	return agent.Factory{Digest: f.Digest, Releases: f.Release, Epoch: f.Epoch, Source: carrier.NewFolder(f.Source)}
}
