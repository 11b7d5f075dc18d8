package features_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/features"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/project"
)

// model is Y = X * 1, with an inner value that bears a feature's name.
func model(t *testing.T, dtype ir.DType, cols int64) *ir.Graph {
	t.Helper()
	b := ir.NewBuilder()
	x := b.Param("X", ir.Type{DType: dtype, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{{Sym: "N"}, {N: cols}}}})
	y := b.Op("age", "Neg", nil, x)
	g, err := b.Graph("m", b.Op("Y", "Neg", nil, y))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func mapping(t *testing.T, yaml string) *project.FeatureMap {
	t.Helper()
	p, err := project.Parse("waybill.yaml", []byte("name: x\nversion: 1\nlicense: MIT\nmodel: m.onnx\n"+yaml))
	if err != nil {
		t.Fatal(err)
	}
	return p.Mapping
}

const spec = `features:
  - {name: age, default: 40}
  - income
  - {name: color, type: category, values: [red, green, blue], encode: onehot, unknown: ignore}
  - {name: size, type: category, values: [s, m, l], default: m}
  - {name: kind, type: category, values: [a, b], unknown: default, default: b}
  - {name: id, required: true}
`

func column(v ...float64) *ir.Val { return ir.TensorVal(ir.F64s([]int64{int64(len(v)), 1}, v)) }
func texts(v ...string) *ir.Val   { return ir.TensorVal(ir.Strs([]int64{int64(len(v)), 1}, v)) }

func record(change map[string]*ir.Val) map[string]*ir.Val {
	in := map[string]*ir.Val{"age": column(math.NaN(), 3), "income": column(math.NaN(), -2.5), "color": texts("green", "pink"),
		"size": texts("", "l"), "kind": texts("zzz", "a"), "id": column(math.Copysign(0, -1), 7)}
	for k, v := range change {
		in[k] = v
	}
	return in
}

func TestApply(t *testing.T) {
	for _, dtype := range []ir.DType{ir.F32, ir.F64} {
		g := model(t, dtype, 8)
		if err := features.Apply(g, mapping(t, spec)); err != nil {
			t.Fatal(err)
		}
		out, err := interp.Run(t.Context(), g, record(nil))
		if err != nil {
			t.Fatal(err)
		}
		want := []float64{40, math.NaN(), 0, 1, 0, 1, 1, math.Copysign(0, -1), 3, -2.5, 0, 0, 0, 2, 0, 7}
		y := out["Y"].Tensor
		ran := compiled(t, g)
		if got, err := ran(record(nil)); err != nil || !bytes.Equal(got, y.Bytes) {
			t.Errorf("%s: the compiled module gives %x, the interpreter %x (%v)", dtype, got, y.Bytes, err)
		}
		for i, w := range want {
			var got float64
			if dtype == ir.F64 {
				got = math.Float64frombits(binary.LittleEndian.Uint64(y.Bytes[8*i:]))
			} else {
				got = float64(math.Float32frombits(binary.LittleEndian.Uint32(y.Bytes[4*i:])))
			}
			if got != w && !(math.IsNaN(got) && math.IsNaN(w)) || math.Signbit(got) != math.Signbit(w) && w == 0 {
				t.Errorf("%s: element %d is %v, want %v", dtype, i, got, w)
			}
		}
		for name, bad := range map[string]*ir.Val{"size": texts("s", "xxl"), "id": column(1, math.NaN())} {
			if _, err := interp.Run(t.Context(), g, record(map[string]*ir.Val{name: bad})); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("a bad %s passed: %v", name, err)
			}
			var failed *engine.GuestError
			if _, err := ran(record(map[string]*ir.Val{name: bad})); !errors.As(err, &failed) || !strings.Contains(failed.Node, name) {
				t.Errorf("a bad %s passed the module: %v", name, err)
			}
		}
	}
}

// compiled runs g in the engine.
func compiled(t *testing.T, g *ir.Graph) func(map[string]*ir.Val) ([]byte, error) {
	t.Helper()
	c, err := codegen.Compile(g, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ports := func(vs []*ir.Value) (out []artifact.Port) {
		for _, v := range vs {
			out = append(out, artifact.Port{Name: v.Name, Kind: "tensor", DType: v.Type.DType.String()})
		}
		return out
	}
	f := &artifact.Interface{ABI: abi.Version, Name: "m", Inputs: ports(g.Body.Params), Outputs: ports(g.Body.Results), Nodes: c.Nodes,
		Module: artifact.FileRef{Digest: artifact.DigestOf(c.Module)}, Memory: artifact.Memory{Heap: c.HeapBase, Context: c.CtxSize, Arena: 1 << 16}}
	f.Steps = []artifact.Step{{Kind: "model", Name: "m", Inputs: f.Inputs, Outputs: f.Outputs}}
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	m, err := e.Load(t.Context(), c.Module, engine.WeightsSource{}, f)
	if err != nil {
		t.Fatal(err)
	}
	return func(in map[string]*ir.Val) ([]byte, error) {
		var ins []engine.Tensor
		for _, p := range f.Inputs {
			d := in[p.Name].Tensor
			if d.DType == ir.String {
				ins = append(ins, engine.OfStrings(d.Strings, d.Dims...))
				continue
			}
			v := make([]float64, len(d.Bytes)/8)
			for i := range v {
				v[i] = math.Float64frombits(binary.LittleEndian.Uint64(d.Bytes[8*i:]))
			}
			ins = append(ins, engine.Of(v, d.Dims...))
		}
		outs, err := m.Run(t.Context(), ins)
		if err != nil {
			return nil, err
		}
		return outs[0].Data, nil
	}
}

func TestApplyRefuses(t *testing.T) {
	for _, c := range []struct {
		yaml, want string
		cols       int64
	}{
		{spec, "no input of the model has the 8 columns", 7},
		{"features: [{name: Y}]\n", "has the name of another input or output", 1},
		{"features: {input: Z, columns: [a]}\n", `the model has no input "Z"`, 1},
		{"features: {input: X, columns: [a, b]}\n", "it has 1 columns, the features fill 2", 1},
	} {
		err := features.Apply(model(t, ir.F32, c.cols), mapping(t, c.yaml))
		if err == nil || !strings.Contains(diag.Render(err), c.want) || !strings.Contains(diag.Render(err), "waybill.yaml:") {
			t.Errorf("%q: %v", c.yaml, err)
		}
	}
	// A feature may bear the name of the input that it replaces.
	if err := features.Apply(model(t, ir.F32, 1), mapping(t, "features: [{name: X}]\n")); err != nil {
		t.Error(err)
	}
}
