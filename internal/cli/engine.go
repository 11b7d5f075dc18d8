package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

// runner runs compiled modules with the engine that devices run them with. It implements build.Runner.
type runner struct{ config engine.Config }

// newEngine makes the engine of a command. A call has no time limit of the engine's: who waits for it, can end it; devices and
// servers have one.
func newEngine(ctx context.Context, c engine.Config) (*engine.Engine, error) {
	if c.TimeLimit == 0 {
		c.TimeLimit = -1
	}
	return engine.New(ctx, c)
}

// loaded is a model in an engine of its own.
type loaded struct {
	*engine.Model
	engine *engine.Engine
}

// Close frees model and engine.
func (l *loaded) Close(ctx context.Context) error { return l.engine.Close(ctx) }

func (r runner) load(ctx context.Context, m build.Module) (*loaded, error) {
	e, err := newEngine(ctx, r.config)
	if err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	model, err := e.Load(ctx, m.Code, engine.WeightsSource{Bytes: m.Weights}, m.Interface, stepModules(m)...)
	if err != nil {
		_ = e.Close(ctx) // the first error is the one that matters
		return nil, fmt.Errorf("load the module: %w", err)
	}
	return &loaded{model, e}, nil
}

func stepModules(m build.Module) []engine.StepModule {
	var out []engine.StepModule
	for _, s := range m.Steps {
		out = append(out, engine.StepModule{Path: s.Path, Code: s.Code})
	}
	return out
}

// Run implements build.Runner.
func (r runner) Run(ctx context.Context, m build.Module, calls [][]artifact.GoldenTensor) ([][]artifact.GoldenTensor, error) {
	l, err := r.load(ctx, m)
	if err != nil {
		return nil, err
	}
	out := make([][]artifact.GoldenTensor, len(calls))
	for i, c := range calls {
		if out[i], err = l.call(ctx, c); err != nil {
			break
		}
	}
	if cerr := l.Close(ctx); err == nil {
		err = cerr
	}
	return out, err
}

// call runs one inference on named tensors.
func (l *loaded) call(ctx context.Context, named []artifact.GoldenTensor) ([]artifact.GoldenTensor, error) {
	f := l.Interface()
	ins, err := ordered(f.Inputs, named)
	if err != nil {
		return nil, err
	}
	outs, err := l.Run(ctx, ins)
	if err != nil {
		return nil, err
	}
	got := make([]artifact.GoldenTensor, len(outs))
	for i, o := range outs {
		got[i] = probe.ToGolden(f.Outputs[i].Name, o)
	}
	return got, nil
}

// ordered puts named tensors into the order of the ports; every port needs one, and there may be no others.
func ordered(ports []artifact.Port, named []artifact.GoldenTensor) ([]engine.Tensor, error) {
	by := map[string]artifact.GoldenTensor{}
	for _, t := range named {
		if _, dup := by[t.Name]; dup {
			return nil, fmt.Errorf("input %q is given twice", t.Name)
		}
		by[t.Name] = t
	}
	out := make([]engine.Tensor, len(ports))
	var names []string
	for i, p := range ports {
		names = append(names, p.Name)
		t, ok := by[p.Name]
		if !ok {
			return nil, fmt.Errorf("input %q is missing", p.Name)
		}
		delete(by, p.Name)
		var err error
		if out[i], err = probe.FromGolden(t); err != nil {
			return nil, fmt.Errorf("input %q: %w", p.Name, err)
		}
	}
	for n := range by {
		return nil, fmt.Errorf("the model has no input %q, its inputs are %q", n, names)
	}
	return out, nil
}

// checkSteps loads the steps of a project and tells where the project names one that the engine refuses.
func checkSteps(ctx context.Context, in *build.Input, m *build.Model) error {
	if len(m.Steps) == 0 {
		return nil
	}
	l, err := runner{}.load(ctx, m.Module)
	var st *engine.StepError
	if errors.As(err, &st) {
		return in.StepError(st.Step, st.Err)
	}
	if err != nil {
		return diag.Wrap(diag.Failure, err, "load the chain")
	}
	return l.Close(ctx)
}
