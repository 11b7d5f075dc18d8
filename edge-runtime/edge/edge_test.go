package edge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// folder writes an artifact that negates a vector, and returns its layers.
func folder(t *testing.T, golden bool) (string, *artifact.Model) {
	t.Helper()
	x := &ir.Value{Name: "x", Type: ir.Type{DType: ir.F32, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{{Sym: "N"}}}}}
	y := &ir.Value{Name: "y", Type: x.Type}
	res, err := codegen.Compile(&ir.Graph{Name: "neg", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Neg", Name: "negate", Ins: []*ir.Value{x}, Outs: []*ir.Value{y}}}}}, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dim := []artifact.Dim{{Size: -1, Sym: "N"}}
	ins := []artifact.Port{{Name: "x", Kind: "tensor", DType: "f32", Shape: dim, Ranked: true}}
	outs := []artifact.Port{{Name: "y", Kind: "tensor", DType: "f32", Shape: dim, Ranked: true}}
	ref := artifact.FileRef{Path: "model/model.wasm", Digest: artifact.DigestOf(res.Module), Size: int64(len(res.Module))}
	iface := artifact.Interface{Schema: artifact.InterfaceSchema, Name: "neg", Version: "1", ABI: abi.Version, MinRuntime: "0.1.0", Compiler: "test",
		Inputs: ins, Outputs: outs, State: []artifact.StateVar{}, Module: ref, Nodes: res.Nodes,
		Steps:  []artifact.Step{{Kind: "model", Name: "neg", File: ref, Inputs: ins, Outputs: outs}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: 1 << 16, Max: 16 << 20}}
	doc, err := artifact.Canonical(iface)
	if err != nil {
		t.Fatal(err)
	}
	g, err := artifact.Canonical(artifact.Golden{Schema: artifact.GoldenSchema, Vectors: []artifact.GoldenVector{{Name: "one",
		Inputs:   []artifact.GoldenTensor{probe.ToGolden("x", Of([]float32{1, -2}))},
		Expected: []artifact.GoldenTensor{probe.ToGolden("y", Of([]float32{-1, 2}))}}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	m := &artifact.Model{}
	add := func(role artifact.Role, path string, b []byte) {
		f := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
		m.Layers = append(m.Layers, artifact.Layer{Role: role, Path: path, Digest: artifact.DigestOf(b), Size: int64(len(b))})
	}
	add(artifact.RoleModule, "model/model.wasm", res.Module)
	add(artifact.RoleInterface, "interface.json", doc)
	if golden {
		add(artifact.RoleGolden, "golden.json", g)
	}
	return dir, m
}

func runtimeFor(t *testing.T) *Runtime {
	t.Helper()
	r, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	return r
}

func TestLoadProbePredict(t *testing.T) {
	dir, am := folder(t, true)
	r := runtimeFor(t)
	m, err := r.Load(t.Context(), Dir(dir, am))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	out, busy, err := m.PredictTimed(t.Context(), map[string]Tensor{"x": Of([]float32{3, 0.5})})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := Values[float32](out["y"]); err != nil || v[0] != -3 || v[1] != -0.5 || busy <= 0 {
		t.Errorf("%v %v, %v", v, err, busy)
	}
	for _, in := range []map[string]Tensor{{}, {"z": Of([]float32{1})}, {"x": Of([]float32{1}), "z": Of([]float32{1})}} {
		var ie *engine.InputError
		if _, err := m.Predict(t.Context(), in); !errors.As(err, &ie) {
			t.Errorf("inputs %v: error %v", in, err)
		}
	}
}

// A device without golden vectors has proven nothing, and one changed byte of any layer is noticed.
func TestLoadRefuses(t *testing.T) {
	dir, am := folder(t, false)
	m, err := runtimeFor(t).Load(t.Context(), Dir(dir, am))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "no golden vectors") {
		t.Errorf("probe: %v", err)
	}
	for _, l := range am.Layers {
		f := filepath.Join(dir, filepath.FromSlash(l.Path))
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-3] ^= 1
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := runtimeFor(t).Load(t.Context(), Dir(dir, am)); !errors.Is(err, engine.ErrIntegrity) {
			t.Errorf("%s altered: %v", l.Path, err)
		}
		b[len(b)-3] ^= 1
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range am.Layers {
		less := &artifact.Model{Layers: append(append([]artifact.Layer{}, am.Layers[:i]...), am.Layers[i+1:]...)}
		if _, err := runtimeFor(t).Load(t.Context(), Dir(dir, less)); err == nil {
			t.Errorf("loaded without %s", am.Layers[i].Path)
		}
	}
}
