package codegen_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
)

// The compiled module must give the reference interpreter's bits: on models and operator cases (the module from the optimised
// graph, the interpreter on the graph as imported), and operator by operator on special values.

// heavy names models that the plain interpreter takes long for.
var heavy = []string{"light_", "bodypix", "ppocr", "super_res", "ultraface", "yunet", "fastest", "basic_pitch", "blaze", "squeezenet_fp32", "magika", "nnsplit"}

func TestOracleOnModels(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: hundreds of models are compiled")
	}
	dir := corpora(t)
	compared := 0
	for _, pat := range []string{"models/*", "models-sklearn/*", "onnx-node/*"} {
		ms, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pat)))
		if err != nil || len(ms) == 0 {
			t.Fatalf("no models: %v", err)
		}
		for _, m := range ms {
			if slices.ContainsFunc(heavy, func(h string) bool { return strings.HasPrefix(filepath.Base(m), h) }) {
				continue
			}
			g, err := onnx.Read(context.Background(), filepath.Join(m, "model.onnx"))
			if err != nil {
				continue // the frontend's own tests judge that
			}
			t.Run(filepath.Base(m), func(t *testing.T) { compared += oracleModel(t, m, g) })
		}
	}
	if compared < 400 {
		t.Errorf("only %d outputs were compared", compared)
	}
}

// oracleModel compares one model's compiled outputs with the interpreter's and gives their number.
func oracleModel(t *testing.T, dir string, plain *ir.Graph) int {
	g, err := onnx.Read(context.Background(), filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pass.Run(context.Background(), g); err != nil {
		t.Fatal(err)
	}
	var unsupported *codegen.Unsupported
	if _, err := codegen.Compile(g, codegen.Options{}); errors.As(err, &unsupported) {
		t.Skip(err)
	}
	m := compile(t, g, codegen.Options{})
	ins, _ := readSet(t, plain, filepath.Join(dir, "test_data_set_0"))
	in := map[string]*ir.Val{}
	for i, p := range plain.Body.Params {
		if p.Type.Kind != ir.Tensor || ins[i] == nil {
			t.Skip("an input is no tensor")
		}
		in[p.Name] = ir.TensorVal(ins[i])
	}
	got, err1 := m.run(ins...)
	want, err2 := interp.Run(context.Background(), plain, in)
	if (err1 == nil) != (err2 == nil) {
		t.Fatalf("compiled: %v, interpreted: %v", err1, err2)
	}
	n := 0
	for i, r := range g.Body.Results {
		if err1 != nil || r.Type.Kind != ir.Tensor {
			continue
		}
		n++
		if d := bitsDiffer(got[i], want[r.Name].Tensor); d != "" {
			t.Errorf("output %q: %s", r.Name, d)
		}
	}
	return n
}

// bitsDiffer describes where two tensors are not the same bit for bit.
func bitsDiffer(got, want *ir.Data) string {
	if got.DType != want.DType || !slices.Equal(got.Dims, want.Dims) {
		return fmt.Sprintf("%s%v, want %s%v", got.DType, got.Dims, want.DType, want.Dims)
	}
	if !slices.Equal(got.Strings, want.Strings) {
		return fmt.Sprintf("%q, want %q", got.Strings, want.Strings)
	}
	var out []string
	w := max(want.DType.Bits()/8, 1)
	for i := 0; i+w <= len(want.Bytes); i += w {
		if a, b := got.Bytes[i:i+w], want.Bytes[i:i+w]; !slices.Equal(a, b) {
			out = append(out, fmt.Sprintf("element %d has the bytes %x, want %x", i/w, a, b))
		}
	}
	if len(out) > 4 {
		out = append(out[:4], fmt.Sprintf("and %d more", len(out)-4))
	}
	return strings.Join(out, "; ")
}

// specials gives n values of a type, among them all the odd ones.
func specials(dt ir.DType, n int, rng *rand.Rand) *ir.Data {
	odd := []float64{0, math.Copysign(0, -1), 1, -1, math.Inf(1), math.Inf(-1), math.NaN(), 0.5, -0.5, 1e-40, -1e-40, 1e-310, 3.4e38, -3.4e38, 1e300,
		2, -2, 88, -88, 104, -104, 89, 0.625, -0.625, 1.5, 2.5, -2.5, 1e10, 127.5, 255.5, 256, -129, 2147483648, 4294967296, 9.3e18, 1.9e19, -9.3e18,
		65504, 65520, 0.9277, 1.25, 6, 2.857142}
	edge := []int64{0, 1, -1, 2, -2, 127, 128, -128, 255, 32767, -32768, 65535, math.MaxInt32, math.MinInt32, math.MaxUint32, math.MaxInt64, math.MinInt64}
	fl, in := make([]float64, n), make([]int64, n)
	for i := range fl {
		switch i % 3 {
		case 0:
			fl[i], in[i] = odd[rng.IntN(len(odd))], edge[rng.IntN(len(edge))]
		case 1:
			fl[i], in[i] = rng.NormFloat64()*4, int64(rng.IntN(200)-100)
		default:
			fl[i], in[i] = math.Float64frombits(rng.Uint64()), int64(rng.Uint64())
			if dt == ir.F32 {
				fl[i] = float64(math.Float32frombits(rng.Uint32()))
			}
		}
		if dt == ir.Bool {
			in[i] &= 1
		}
	}
	if dt == ir.F32 || dt == ir.F64 {
		return ir.FloatData(dt, []int64{int64(n)}, fl)
	}
	return ir.IntData(dt, []int64{int64(n)}, in)
}

func TestOracleOnSpecialValues(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: hundreds of modules are compiled")
	}
	rng := rand.New(rand.NewPCG(7, 9))
	types := []ir.DType{ir.F32, ir.F64, ir.I64, ir.I32, ir.I8, ir.U64, ir.U8, ir.Bool}
	ran := 0
	// check runs one operator on x and, when y is set, on y as its second input; outs tells which output to compare.
	check := func(op string, a ir.Attrs, out int, x, y *ir.Data, rest ...*ir.Data) {
		t.Helper()
		b := ir.NewBuilder()
		params, list := []*ir.Value{}, []*ir.Data{x}
		in := map[string]*ir.Val{"x": ir.TensorVal(x)}
		params = append(params, b.Param("x", ir.TensorOf(x.DType, symbols(x, "A", "B"))))
		if y != nil {
			params = append(params, b.Param("y", ir.TensorOf(y.DType, symbols(y, map[bool]string{true: "A", false: "B"}[len(y.Dims) == 1], "C"))))
			list, in["y"] = append(list, y), ir.TensorVal(y)
		}
		for i, d := range rest {
			params = append(params, b.Const(fmt.Sprint("c", i), d))
		}
		names := make([]string, out+1)
		names[out] = "z"
		z := b.Ops(names, op, a, params...)[out]
		g, err := b.Graph("g", z)
		if err != nil {
			return // the operator does not take this type
		}
		name := fmt.Sprintf("%s %v %s", op, a, x.DType)
		var unsupported *codegen.Unsupported
		if _, err := codegen.Compile(g, codegen.Options{}); errors.As(err, &unsupported) {
			t.Logf("%s: %v", name, err)
			return
		}
		ran++
		got, err1 := compile(t, g, codegen.Options{}).run(list...)
		want, err2 := interp.Run(context.Background(), g, in)
		if (err1 == nil) != (err2 == nil) {
			t.Errorf("%s: compiled: %v, interpreted: %v", name, err1, err2)
		} else if err1 == nil {
			if d := bitsDiffer(got[0], want["z"].Tensor); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
	shaped := func(d *ir.Data, dims ...int64) *ir.Data { return &ir.Data{DType: d.DType, Dims: dims, Bytes: d.Bytes} }
	list := func(v ...int64) *ir.Data { return ir.I64s([]int64{int64(len(v))}, v) }
	for _, d := range types {
		x, y := specials(d, 400, rng), specials(d, 400, rng)
		for _, op := range []string{"Not", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Relu"} {
			check(op, nil, 0, x, nil)
		}
		for _, to := range types {
			check("Cast", ir.Attrs{"to": to}, 0, x, nil)
		}
		for _, op := range []string{"Add", "Sub", "Mul", "Min", "Max", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"} {
			check(op, nil, 0, x, y)
		}
		check("Div", nil, 0, x, y) // integers divide by zero: both must fail
		check("Div", nil, 0, x, mapped(y, func(v int64) int64 { return v | 1 }))
		check("Pow", nil, 0, x, y)
		check("Pow", nil, 0, x, mapped(y, func(v int64) int64 { return v & 15 }))
		for fmod := 0; fmod < 2; fmod++ {
			check("Mod", ir.Attrs{"fmod": fmod}, 0, x, mapped(y, func(v int64) int64 { return v | 1 }))
		}
		m := shaped(x, 8, 50)
		for axis := int64(0); axis < 2; axis++ {
			for _, op := range []string{"ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"} {
				check(op, nil, 0, m, nil, list(axis))
			}
			check("Softmax", ir.Attrs{"axis": axis}, 0, m, nil)
			for flag := 0; flag < 2; flag++ {
				check("ArgMax", ir.Attrs{"axis": axis, "select_last_index": flag}, 0, m, nil)
				check("ArgMin", ir.Attrs{"axis": axis, "select_last_index": flag}, 0, m, nil)
				check("TopK", ir.Attrs{"axis": axis, "largest": flag}, 0, m, nil, list(5))
				check("TopK", ir.Attrs{"axis": axis, "largest": flag}, 1, m, nil, list(5))
			}
		}
		img := shaped(x, 1, 2, 10, 20)
		for flag := 0; flag < 2; flag++ {
			pool := ir.Attrs{"kernel_shape": []int{3, 2}, "strides": []int{2, 2}, "pads": []int{1, 0, 1, 1}, "dilations": []int{1, 2}, "ceil_mode": 1}
			check("MaxPool", pool, flag, img, nil)
			pool["count_include_pad"] = flag
			check("AveragePool", pool, 0, img, nil)
		}
		check("MatMul", nil, 0, m, shaped(y, 50, 8))
		check("Gemm", ir.Attrs{"alpha": 3.0, "beta": 2.0}, 0, m, shaped(y, 50, 8), specials(d, 8, rng))
	}
	if ran < 250 {
		t.Errorf("only %d operators ran", ran)
	}
}

// symbols gives the shape of d with the first dims left to run time.
func symbols(d *ir.Data, names ...string) ir.Shape {
	s := ir.StaticShape(d.Dims...)
	for i := range s.Dims {
		if i < len(names) && len(d.Dims) <= 2 {
			s.Dims[i] = ir.Symbol(names[i])
		}
	}
	return s
}

// mapped applies f to the elements of an integer tensor; floats stay.
func mapped(d *ir.Data, f func(int64) int64) *ir.Data {
	if !d.DType.IsInt() {
		return d
	}
	v := d.Ints()
	for i := range v {
		v[i] = f(v[i])
	}
	return ir.IntData(d.DType, d.Dims, v)
}
