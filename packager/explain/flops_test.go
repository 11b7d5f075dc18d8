package explain

import (
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
)

func TestFlops(t *testing.T) {
	val := func(dims ...ir.Dim) *ir.Value { return &ir.Value{Type: ir.TensorOf(ir.F32, ir.ShapeOf(dims...))} }
	s, n := ir.Static, ir.Symbol("N")
	trees := ir.Attrs{"roots": []int64{0, ^int64(4), 2}, "node_true": []int64{1, ^int64(0), ^int64(2)}, "node_false": []int64{^int64(1), ^int64(3), ^int64(5)}}
	cases := []struct {
		name  string
		op    string
		attrs ir.Attrs
		ins   []*ir.Value
		out   *ir.Value
		want  string
	}{
		// Two directions, hidden 5, 3 inputs: W has 2*20*3 and R 2*20*5 elements, each met once a step and row.
		{"LSTM", "LSTM", ir.Attrs{"hidden_size": 5}, []*ir.Value{val(s(7), n, s(3)), val(s(2), s(20), s(3)), val(s(2), s(20), s(5))}, nil, "4480*N"},
		// Ways of 2, 0 and 1 comparisons, and three weights.
		{"trees", "ml.TreeEnsemble", trees, []*ir.Value{val(n, s(4))}, nil, "6*N"},
		{"nearest", "Resize", ir.Attrs{"mode": "nearest", "antialias": 0, "axes": []int64{2, 3}}, []*ir.Value{val(s(1), s(1), s(2), s(2))}, val(s(1), s(1), s(4), s(4)), "0"},
		{"linear", "Resize", ir.Attrs{"mode": "linear", "antialias": 0, "axes": []int64{2, 3}}, []*ir.Value{val(s(1), s(1), s(2), s(2))}, val(s(1), s(1), s(4), s(4)), "128"},
		{"unknown", "NonZero", nil, []*ir.Value{val(n)}, val(s(1), ir.Unknown()), "?"},
	}
	for _, c := range cases {
		node := &ir.Node{Op: c.op, Attrs: map[string]ir.Attr{}, Ins: c.ins, Outs: []*ir.Value{c.out}}
		for k, v := range c.attrs {
			node.Attrs[k] = ir.AttrOf(v)
		}
		if got := flops(node).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
