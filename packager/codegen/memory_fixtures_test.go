package codegen_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/plan"
)

// planned are graphs whose sizes are all known: how much their plans take beyond their bound, and that they take nothing else, is
// checked, and that the results are the interpreter's.
var planned = []struct {
	name string
	make func(b *ir.Builder, r *rng) []*ir.Value
}{
	{"residual", func(b *ir.Builder, r *rng) []*ir.Value {
		at := ir.Attrs{"kernel_shape": []int{3, 3}, "strides": []int{1, 1}, "pads": []int{1, 1, 1, 1}, "dilations": []int{1, 1}}
		y := b.Param("x", f32t(st(1, 8, 12, 12)...))
		for i := range 4 {
			z := b.Op(fmt.Sprint("conv", i), "Conv", at, y, b.Const(fmt.Sprint("w", i), r.f32s(8, 8, 3, 3)))
			z = b.Op(fmt.Sprint("relu", i), "Relu", nil, z)
			y = b.Op(fmt.Sprint("add", i), "Add", nil, z, y)
		}
		return []*ir.Value{y}
	}},
	{"dense", func(b *ir.Builder, r *rng) []*ir.Value {
		y := b.Param("x", f32t(st(1, 4, 10, 10)...))
		for i := range int64(5) {
			at := ir.Attrs{"kernel_shape": []int{3, 3}, "strides": []int{1, 1}, "pads": []int{1, 1, 1, 1}, "dilations": []int{1, 1}}
			z := b.Op(fmt.Sprint("conv", i), "Conv", at, y, b.Const(fmt.Sprint("w", i), r.f32s(4, 4+4*i, 3, 3)))
			y = b.Op(fmt.Sprint("cat", i), "Concat", ir.Attrs{"axis": 1}, y, z)
		}
		return []*ir.Value{y}
	}},
	{"views and twice a result", func(b *ir.Builder, r *rng) []*ir.Value {
		x := b.Param("x", f32t(st(6, 4)...))
		y := b.Op("neg", "Neg", nil, x)
		v := b.Op("flat", "Reshape", nil, y, b.Const("shape", ir.I64s([]int64{1}, []int64{24})))
		z := b.Op("exp", "Exp", nil, v)
		return []*ir.Value{x, v, z, z}
	}},
	{"lstm", func(b *ir.Builder, r *rng) []*ir.Value {
		x := b.Param("x", f32t(st(7, 2, 5)...))
		return b.Node([]string{"y", "h", "c"}, "LSTM", ir.Attrs{"hidden_size": 6, "activations": []string{"Sigmoid", "Tanh", "Tanh"},
			"activation_alpha": []float64{0, 0, 0}, "activation_beta": []float64{0, 0, 0}}, nil, x, b.Const("w", r.f32s(1, 24, 5)), b.Const("r", r.f32s(1, 24, 6)))[1:2]
	}},
	{"branches", func(b *ir.Builder, r *rng) []*ir.Value {
		x := b.Param("x", f32t(st(20, 20)...))
		y := b.Op("neg", "Neg", nil, x)
		flag := b.Op("flag", "Less", nil, b.Op("sum", "ReduceSum", ir.Attrs{"keepdims": 0}, y), b.Const("zero", ir.F32s(nil, []float32{0})))
		th, el := b.Sub(), b.Sub()
		a := th.Op("a2", "Exp", nil, th.Op("a1", "MatMul", nil, y, y))
		e := el.Op("e2", "Tanh", nil, el.Op("e1", "Add", nil, y, x))
		return append(b.Node([]string{"z"}, "If", nil, []*ir.Region{th.Region(a), el.Region(e)}, flag), y)
	}},
	// Two states that change places with each other, and a sum: values of up to three turns are held while one is made.
	{"loop", func(b *ir.Builder, r *rng) []*ir.Value {
		x := b.Param("x", f32t(st(9, 9)...))
		body := b.Sub()
		i, cond := body.Param("i", ir.TensorOf(ir.I64, ir.StaticShape())), body.Param("c", ir.TensorOf(ir.Bool, ir.StaticShape()))
		s, t, u := body.Param("s", f32t(st(9, 9)...)), body.Param("t", f32t(st(9, 9)...)), body.Param("u", f32t(st(9, 9)...))
		n := body.Op("next", "Add", nil, body.Op("half", "Mul", nil, s, body.Const("k", ir.F32s(nil, []float32{0.5}))), u)
		fi := body.Op("fi", "Cast", ir.Attrs{"to": ir.F32}, i)
		return b.Node([]string{"s'", "t'", "u'"}, "Loop", nil, []*ir.Region{body.Region(cond, n, s, body.Op("t+", "Add", nil, t, fi))},
			b.Const("m", ir.I64s(nil, []int64{7})), nil, x, b.Op("nx", "Neg", nil, x), b.Op("ex", "Exp", nil, x))
	}},
	{"scan", func(b *ir.Builder, r *rng) []*ir.Value {
		x, h := b.Param("x", f32t(st(11, 3, 8)...)), b.Param("h", f32t(st(3, 8)...))
		body := b.Sub()
		s, e := body.Param("s", f32t(st(3, 8)...)), body.Param("e", f32t(st(3, 8)...))
		n := body.Op("n", "Tanh", nil, body.Op("m", "Add", nil, body.Op("p", "MatMul", nil, s, body.Const("w", r.f32s(8, 8))), e))
		return b.Node([]string{"last", "all"}, "Scan", ir.Attrs{"num_scan_inputs": 1, "scan_input_axes": []int{0}, "scan_input_directions": []int{0},
			"scan_output_axes": []int{1}, "scan_output_directions": []int{1}}, []*ir.Region{body.Region(n, n)}, h, x)
	}},
}

func TestPlansOfFixtures(t *testing.T) {
	for _, c := range planned {
		t.Run(c.name, func(t *testing.T) {
			r := rng(11)
			b := ir.NewBuilder()
			g, err := b.Graph("g", c.make(b, &r)...)
			if err != nil {
				t.Fatal(err)
			}
			m := compile(t, g, codegen.Options{})
			p := m.res.Memory
			t.Logf("arena %d, bound %d, %d values", p.Size, p.Bound, len(p.Values))
			if !p.Exact || len(p.Loose) > 0 || p.Size == 0 {
				t.Errorf("exact %v, from the heap: %q", p.Exact, p.Loose)
			}
			if float64(p.Size) > 1.1*float64(p.Bound) {
				t.Errorf("the plan takes %d bytes where %d are in use at a time", p.Size, p.Bound)
			}
			if turns := slices.ContainsFunc(p.Values, func(v plan.Value) bool { return v.Turns > 1 }); turns != (c.name == "loop" || c.name == "scan") {
				t.Errorf("values that take turns: %v", turns)
			}
			var ins []*ir.Data
			for _, v := range g.Body.Params {
				d, _ := v.Type.Shape.Static()
				ins = append(ins, r.f32s(d...))
			}
			for _, arena := range []uint32{0, m.res.ArenaHint} {
				m.arena, m.budget = arena, 100
				against(t, m, ins)
				if arena == 0 && m.needs != 1 {
					t.Errorf("%d need-memory without an arena", m.needs)
				}
			}
		})
	}
}
