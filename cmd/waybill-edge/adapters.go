package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"golang.org/x/mod/semver"
)

// runtime loads artifacts with the engine.
type runtime struct {
	engine *engine.Engine
	cfg    *engineConfig
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
			layer, weights = l, r.cfg.source(b.Path(l.Digest)) // hashed by the engine, by chunks on all cores
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
	if need := iface.MinRuntime; need != "" && semver.Compare("v"+version.Number, "v"+need) < 0 {
		return nil, fmt.Errorf("it needs waybill-edge %s, this is %s", need, version.Number)
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

// journalKey signs and checks journal checkpoints with the device key.
type journalKey struct{ key *devicekey.Key }

const journalPurpose = "journal"

// ID implements journal.Signer.
func (k journalKey) ID() string { return k.key.KeyID() }

// Sign implements journal.Signer.
func (k journalKey) Sign(m []byte) ([]byte, error) { return k.key.SignRaw(journalPurpose, m) }

// Check implements journal.Checker.
func (k journalKey) Check(device string, message, signature []byte) error {
	if device != k.key.KeyID() {
		return fmt.Errorf("signed by device %.12s, this is device %.12s", device, k.key.KeyID())
	}
	pub, err := k.key.Public()
	if err != nil {
		return err
	}
	return devicekey.VerifyRaw(pub, journalPurpose, message, signature)
}

// clock is the real one.
type clock struct{}

// Now implements agent.Clock.
func (clock) Now() time.Time { return time.Now() }

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
