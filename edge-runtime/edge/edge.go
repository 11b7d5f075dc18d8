// Package edge is the API for Go programs that embed a model: open a release, predict, close. It is a thin layer over
// verification, the engine and the golden probe; updates and serving are packages of their own.
//
//	m, err := edge.Open(ctx, edge.Release{From: "churn.tar", Model: "churn", Trust: "trust.jsonl", TrustDigest: "sha256:..."})
//	defer m.Close(ctx)
//	out, err := m.Predict(ctx, map[string]edge.Tensor{"x": edge.Of(row, 1, 30)})
//
// Runtime, Files and Load are the parts of it, for programs that bring bytes in another way.
package edge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Names of the engine that callers need.
type (
	// Config of the engine.
	Config = engine.Config
	// Tensor is a value.
	Tensor = engine.Tensor
	// Number is an element type of Of.
	Number = engine.Number
)

// Of makes a tensor from numbers.
func Of[T Number](v []T, shape ...int64) Tensor { return engine.Of(v, shape...) }

// OfStrings makes a string tensor.
func OfStrings(v []string, shape ...int64) Tensor { return engine.OfStrings(v, shape...) }

// Values returns a tensor's numbers.
func Values[T Number](t Tensor) ([]T, error) { return engine.Values[T](t) }

// Runtime loads models. It is safe for concurrent use; close it last.
type Runtime struct{ eng *engine.Engine }

// New starts a runtime.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	e, err := engine.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Runtime{eng: e}, nil
}

// Mode tells how modules are executed here.
func (r *Runtime) Mode() engine.Mode { return r.eng.Mode() }

// Close closes the models that are still open.
func (r *Runtime) Close(ctx context.Context) error { return r.eng.Close(ctx) }

// Files gives the layers of one artifact. The manifest they come from must have been verified.
type Files struct {
	Layers []artifact.Layer
	Read   func(l artifact.Layer) ([]byte, error) // content; Load checks its digest
	Path   func(d artifact.Digest) string         // file of a layer, for mapping the weights; nil: Read gives them
	// CopyWeights reads the weights instead of mapping the file; see engine.WeightsSource.
	CopyWeights bool

	same func(got, want artifact.Digest) bool // nil: they are equal
}

// Model is a loaded artifact. It is safe for concurrent use.
type Model struct {
	*engine.Model
	golden func() ([]byte, error) // nil without a golden layer
}

// ErrNotCompiled says that an artifact was bundled as it is (compile: false): there is no module in it, so no device runs it.
var ErrNotCompiled = errors.New("the artifact was bundled as it is (compile: false): it has no module to run")

// Load reads, checks and compiles an artifact for this machine (target any).
func (r *Runtime) Load(ctx context.Context, f Files) (*Model, error) {
	var iface artifact.Interface
	var module []byte
	var weights engine.WeightsSource
	var layer artifact.Layer // of the weights
	var golden func() ([]byte, error)
	byPath := map[string]artifact.Layer{}
	for _, l := range f.Layers {
		switch l.Role {
		case artifact.RoleInterface:
			b, err := read(f, l)
			if err != nil {
				return nil, err
			}
			if len(b) > artifact.MaxInterface {
				return nil, fmt.Errorf("the interface document has %d bytes, more than %d", len(b), artifact.MaxInterface)
			}
			if err := strictjson.DecodeOpen(b, &iface); err != nil {
				return nil, fmt.Errorf("interface document: %w", err)
			}
		case artifact.RoleModule:
			if l.Target == artifact.TargetWeb {
				continue
			}
			b, err := read(f, l)
			if err != nil {
				return nil, err
			}
			module = b
		case artifact.RoleWeights:
			layer = l
			if f.Path != nil {
				weights = engine.WeightsSource{Path: f.Path(l.Digest), Copy: f.CopyWeights}
				continue
			}
			b, err := read(f, l)
			if err != nil {
				return nil, err
			}
			weights = engine.WeightsSource{Bytes: b}
		case artifact.RoleStep:
			byPath[l.Path] = l
		case artifact.RoleGolden:
			golden = func() ([]byte, error) { return read(f, l) }
		}
	}
	if iface.Schema == artifact.BundledSchema {
		return nil, ErrNotCompiled
	}
	if iface.Schema != artifact.InterfaceSchema {
		return nil, fmt.Errorf("the artifact has no interface document of schema %s", artifact.InterfaceSchema)
	}
	if w := iface.Weights; w != nil && layer.Digest != "" && w.Digest != layer.Digest {
		return nil, fmt.Errorf("%w: layer %s has digest %s, the interface document says %s", engine.ErrIntegrity, layer.Path, layer.Digest, w.Digest)
	}
	if module == nil {
		return nil, errors.New("the artifact has no module for this target")
	}
	var steps []engine.StepModule
	for _, st := range iface.Steps {
		if st.Kind == "model" {
			continue
		}
		l, ok := byPath[st.File.Path]
		if !ok {
			return nil, fmt.Errorf("the artifact has no layer %s, which step %s needs", st.File.Path, st.Name)
		}
		b, err := read(f, l)
		if err != nil {
			return nil, err
		}
		steps = append(steps, engine.StepModule{Path: st.File.Path, Code: b})
	}
	m, err := r.eng.Load(ctx, module, weights, &iface, steps...)
	if err != nil {
		return nil, err
	}
	return &Model{Model: m, golden: golden}, nil
}

// read gets a layer and checks it against its digest.
func read(f Files, l artifact.Layer) ([]byte, error) {
	b, err := f.Read(l)
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", l.Path, err)
	}
	eq := f.same
	if eq == nil {
		eq = same
	}
	if d := artifact.DigestOf(b); !eq(d, l.Digest) {
		return nil, fmt.Errorf("%w: layer %s has digest %s, the manifest says %s", engine.ErrIntegrity, l.Path, d, l.Digest)
	}
	return b, nil
}

// Dir gives the layers of m from a folder that holds them under their file paths.
func Dir(dir string, m *artifact.Model) Files {
	file := func(l artifact.Layer) string { return filepath.Join(dir, filepath.FromSlash(l.Path)) }
	return Files{
		Layers: m.OnDevice(),
		Read:   func(l artifact.Layer) ([]byte, error) { return os.ReadFile(file(l)) },
		Path: func(d artifact.Digest) string {
			for _, l := range m.Layers {
				if l.Digest == d {
					return file(l)
				}
			}
			return ""
		},
	}
}

// Probe runs the golden vectors of the artifact and fails unless every output is reproduced bit for bit. An artifact
// without golden vectors fails too: it proves nothing.
func (m *Model) Probe(ctx context.Context) error {
	rep, err := m.Golden(ctx)
	if err != nil {
		return err
	}
	return rep.Err()
}

// Golden is Probe with the report.
func (m *Model) Golden(ctx context.Context) (probe.Report, error) {
	if m.golden == nil {
		return probe.Report{}, nil
	}
	b, err := m.golden()
	if err != nil {
		return probe.Report{}, err
	}
	if len(b) > artifact.MaxGolden {
		return probe.Report{}, fmt.Errorf("the golden vectors have %d bytes, more than %d", len(b), artifact.MaxGolden)
	}
	var g artifact.Golden
	if err := strictjson.DecodeOpen(b, &g); err != nil {
		return probe.Report{}, fmt.Errorf("golden vectors: %w", err)
	}
	return probe.Run(ctx, m.Model, &g)
}

// Predict runs the model on named inputs and returns its outputs by name.
func (m *Model) Predict(ctx context.Context, in map[string]Tensor) (map[string]Tensor, error) {
	out, _, err := m.PredictTimed(ctx, in)
	return out, err
}

// PredictTimed is Predict that also tells how long the modules worked.
func (m *Model) PredictTimed(ctx context.Context, in map[string]Tensor) (map[string]Tensor, time.Duration, error) {
	iface := m.Interface()
	ins := make([]Tensor, len(iface.Inputs))
	for i, p := range iface.Inputs {
		t, ok := in[p.Name]
		if !ok {
			return nil, 0, &engine.InputError{Input: p.Name, Err: errors.New("it is missing")}
		}
		ins[i] = t
	}
	if len(in) != len(ins) {
		for n := range in {
			if !hasPort(iface.Inputs, n) {
				return nil, 0, &engine.InputError{Input: n, Err: errors.New("the model has no such input")}
			}
		}
	}
	outs, busy, err := m.RunTimed(ctx, ins)
	if err != nil {
		return nil, busy, err
	}
	res := make(map[string]Tensor, len(outs))
	for i, p := range iface.Outputs {
		res[p.Name] = outs[i]
	}
	return res, busy, nil
}

func hasPort(ports []artifact.Port, name string) bool {
	for _, p := range ports {
		if p.Name == name {
			return true
		}
	}
	return false
}
