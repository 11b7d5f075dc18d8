package codegen_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

// ONNX operators that the frontend composes of simpler ones: worked results, and the interpreter's bits for every type,
// with sizes known at compile time or not.

func field(num protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
}

func number(num protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), uint64(v))
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// body is a GraphProto of one node "op in0 in1 -> out", whose first input is its parameter.
type body struct{ op, param, other, out string }

// attribute makes an AttributeProto of an int, float64, string, []int64 or body.
func attribute(name string, v any) []byte {
	b := field(1, []byte(name))
	switch v := v.(type) {
	case int:
		b = join(b, number(3, int64(v)), number(20, 2))
	case float64:
		b = append(b, protowire.AppendFixed32(protowire.AppendTag(nil, 2, protowire.Fixed32Type), math.Float32bits(float32(v)))...)
		b = append(b, number(20, 1)...)
	case string:
		b = join(b, field(4, []byte(v)), number(20, 3))
	case []int64:
		for _, x := range v {
			b = append(b, number(8, x)...)
		}
		b = append(b, number(20, 7)...)
	case body:
		n := join(field(1, []byte(v.param)), field(1, []byte(v.other)), field(2, []byte(v.out)), field(4, []byte(v.op)))
		g := join(field(1, n), field(2, []byte("body")), field(11, field(1, []byte(v.param))), field(12, field(1, []byte(v.out))))
		b = join(b, field(6, g), number(20, 5))
	default:
		panic(fmt.Sprintf("attribute of type %T", v))
	}
	return b
}

// composed is a model of one node; ins may hold nil for absent inputs.
type composed struct {
	op    string // "domain.name" outside the default domain
	opset int64
	attrs map[string]any
	ins   []*ir.Data
	outs  int
	fixed bool        // sizes must be known at compile time
	want  [][]float64 // nil: not checked; a nil entry is an output that is not asked for
}

func (c composed) model(static bool) []byte {
	dom, name := "", c.op
	if i := strings.LastIndex(name, "."); i >= 0 {
		dom, name = name[:i], name[i+1:]
	}
	n := join(field(4, []byte(name)), field(7, []byte(dom)))
	var g []byte
	for i, d := range c.ins {
		name := fmt.Sprintf("in%d", i)
		if d == nil {
			n = append(n, field(1, nil)...)
			continue
		}
		n = append(n, field(1, []byte(name))...)
		var shape []byte
		for _, s := range d.Dims {
			if static {
				shape = append(shape, field(1, number(1, s))...)
			} else {
				shape = append(shape, field(1, nil)...)
			}
		}
		t := join(number(1, int64(d.DType)), field(2, shape))
		g = append(g, field(11, join(field(1, []byte(name)), field(2, field(1, t))))...)
	}
	for i := 0; i < max(c.outs, len(c.want), 1); i++ {
		if i < len(c.want) && c.want[i] == nil {
			n = append(n, field(2, nil)...)
			continue
		}
		name := []byte(fmt.Sprintf("out%d", i))
		n = append(n, field(2, name)...)
		g = append(g, field(12, field(1, name))...)
	}
	for name, v := range c.attrs {
		n = append(n, field(5, attribute(name, v))...)
	}
	g = join(field(1, n), field(2, []byte("composed")), g)
	sets := field(8, number(2, max(c.opset, 18)))
	if dom == "" {
		sets = field(8, number(2, c.opset))
	} else {
		sets = append(sets, field(8, join(field(1, []byte(dom)), number(2, c.opset)))...)
	}
	return join(number(1, 10), field(7, g), sets)
}

func (c composed) run(t *testing.T) {
	for _, static := range []bool{true, false} {
		if c.fixed && !static {
			continue
		}
		t.Run(fmt.Sprintf("%s/%d/static=%v", c.op, c.opset, static), func(t *testing.T) {
			g, err := onnx.Parse(c.model(static), "")
			if err != nil {
				t.Fatal(err)
			}
			var ins []*ir.Data
			for _, d := range c.ins {
				if d != nil {
					ins = append(ins, d)
				}
			}
			m := compile(t, g, codegen.Options{})
			against(t, m, ins)
			m.budget, m.arena = 3, 0
			against(t, m, ins)
			if c.want == nil {
				return
			}
			got, err := m.run(ins...)
			if err != nil {
				t.Fatal(err)
			}
			k := 0
			for i, want := range c.want {
				if want == nil {
					continue
				}
				if len(want) != int(got[k].Len()) {
					t.Fatalf("output %d: %v has %d elements, want %v", i, got[k].Dims, got[k].Len(), want)
				}
				for j, w := range want {
					if v := asFloat(got[k], j); v != w && !(math.Abs(v-w) <= 1e-6*max(1, math.Abs(w))) && !(math.IsNaN(v) && math.IsNaN(w)) {
						t.Errorf("output %d: element %d is %v, want %v", i, j, v, w)
					}
				}
				k++
			}
		})
	}
}

// asFloat gives a number of any type.
func asFloat(d *ir.Data, i int) float64 {
	if d.DType.IsFloat() {
		return d.Float(i)
	}
	return float64(d.Int(i))
}

func f32(dims []int64, v ...float32) *ir.Data { return ir.F32s(dims, v) }
func i64(v ...int64) *ir.Data                 { return ir.I64s([]int64{int64(len(v))}, v) }

func TestComposedByHand(t *testing.T) {
	once.Skip(t)
	inf := math.Inf(-1)
	col := func(v ...float32) *ir.Data { return f32([]int64{1, 1, int64(len(v)), 1}, v...) }
	row := func(v ...float32) *ir.Data { return f32([]int64{1, int64(len(v))}, v...) }
	steps := func(v ...float32) *ir.Data { return f32([]int64{1, int64(len(v)), 1}, v...) }
	one := func(v ...float64) [][]float64 { return [][]float64{v} }
	type at = map[string]any
	for _, c := range []composed{
		// Equal scores: the mean of the values that a query sees.
		{op: "Attention", opset: 23, ins: []*ir.Data{col(1, 1), col(0, 0), col(1, 3)}, want: one(2, 2)},
		{op: "Attention", opset: 23, attrs: at{"is_causal": 1}, ins: []*ir.Data{col(1, 1), col(0, 0), col(1, 3)}, want: one(1, 2)},
		{op: "Attention", opset: 23, attrs: at{"is_causal": 1}, ins: []*ir.Data{col(1), col(0, 0), col(1, 3), nil, col(0), col(5)},
			want: [][]float64{{3}, {0, 0, 0}, {5, 1, 3}}}, // the query stands at position 1
		{op: "Attention", opset: 23, ins: []*ir.Data{col(1, 1), col(0, 0), col(1, 3), ir.Bools([]int64{2, 2}, []bool{false, true, false, false})},
			want: one(3, 0)}, // the second row sees nothing
		{op: "Attention", opset: 24, ins: []*ir.Data{col(1), col(0, 0, 0), col(1, 3, 9), nil, nil, nil, i64(2)}, want: one(2)},
		{op: "Attention", opset: 24, ins: []*ir.Data{col(1), col(0, 0, 0), col(1, 3, 9), row(0, 0)}, want: one(2)}, // a short mask hides the rest
		{op: "Attention", opset: 25, attrs: at{"left_window_size": 0, "right_window_size": 1}, ins: []*ir.Data{col(1, 1, 1), col(0, 0, 0), col(1, 3, 9)}, want: one(2, 6, 9)},
		{op: "Attention", opset: 23, attrs: at{"scale": 4.0, "softcap": 2.0, "qk_matmul_output_mode": 1}, ins: []*ir.Data{col(1), col(0.25), col(7)},
			want: [][]float64{{7}, nil, nil, {2 * math.Tanh(0.5)}}},
		{op: "Attention", opset: 23, attrs: at{"qk_matmul_output_mode": 2}, ins: []*ir.Data{col(2), col(3, 4), col(1, 1), row(1, float32(inf))},
			want: [][]float64{{1}, nil, nil, {7, inf}}},
		{op: "Attention", opset: 23, attrs: at{"q_num_heads": 2, "kv_num_heads": 1}, ins: []*ir.Data{f32([]int64{1, 1, 2}, 5, 6), f32([]int64{1, 2, 1}, 0, 0), f32([]int64{1, 2, 1}, 1, 3)},
			want: one(2, 2)},
		// Probabilities of a half each, added to themselves.
		{op: "ai.onnx.preview.FlexAttention", opset: 1, attrs: at{"prob_mod": body{"Add", "p", "p", "r"}}, ins: []*ir.Data{col(1), col(1, 1), col(1, 3)}, want: one(4)},
		// A body that sees a value from outside: the query divides the scores.
		{op: "ai.onnx.preview.FlexAttention", opset: 1, attrs: at{"score_mod": body{"Div", "s", "in0", "r"}, "scale": 1.0}, ins: []*ir.Data{col(2), col(0, 0), col(1, 3)}, want: one(2)},
		{op: "LayerNormalization", opset: 17, attrs: at{"epsilon": 0.0, "stash_type": 11}, ins: []*ir.Data{row(1, 3), f32([]int64{2}, 1, 10)}, want: [][]float64{{-1, 10}, {2}, {1}}},
		{op: "RotaryEmbedding", opset: 23, ins: []*ir.Data{f32([]int64{1, 1, 1, 4}, 1, 2, 3, 4), f32([]int64{1, 1, 2}, 0, 1), f32([]int64{1, 1, 2}, 1, 0)}, want: one(-3, 2, 1, 4)},
		{op: "RotaryEmbedding", opset: 23, attrs: at{"interleaved": 1, "num_heads": 2, "rotary_embedding_dim": 2},
			ins: []*ir.Data{f32([]int64{1, 1, 6}, 1, 2, 3, 4, 5, 6), f32([]int64{2, 1}, 9, 0), f32([]int64{2, 1}, 9, 1), ir.I64s([]int64{1, 1}, []int64{1})}, want: one(-2, 1, 3, -5, 4, 6)},
		{op: "TensorScatter", opset: 24, ins: []*ir.Data{f32([]int64{2, 3, 1}, 1, 2, 3, 4, 5, 6), f32([]int64{2, 1, 1}, 8, 9), i64(2, 0)}, want: one(1, 2, 8, 9, 5, 6)},
		{op: "TensorScatter", opset: 24, attrs: at{"mode": "circular"}, ins: []*ir.Data{f32([]int64{1, 3, 1}, 1, 2, 3), f32([]int64{1, 2, 1}, 8, 9), i64(5)}, want: one(9, 2, 8)},
		{op: "CausalConvWithState", opset: 27, fixed: true, ins: []*ir.Data{f32([]int64{1, 1, 3}, 1, 2, 3), f32([]int64{1, 1, 2}, 1, 10)}, want: [][]float64{{10, 21, 32}, {3}}},
		{op: "CausalConvWithState", opset: 27, fixed: true, ins: []*ir.Data{f32([]int64{1, 1, 1}, 1), f32([]int64{1, 1, 3}, 1, 10, 100), f32([]int64{1}, 5), f32([]int64{1, 1, 2}, 7, 8)},
			want: [][]float64{{192}, {8, 1}}},
		{op: "LinearAttention", opset: 27, attrs: at{"q_num_heads": 1, "kv_num_heads": 1, "update_rule": "linear"}, ins: []*ir.Data{steps(1, 2), steps(1, 3), steps(2, 5)},
			want: [][]float64{{2, 34}, {17}}},
		{op: "LinearAttention", opset: 27, attrs: at{"q_num_heads": 1, "kv_num_heads": 1, "update_rule": "delta"},
			ins: []*ir.Data{steps(1, 2), steps(1, 3), steps(2, 5), nil, nil, steps(1, 0.5)}, want: [][]float64{{2, 1}, {0.5}}},
		{op: "LinearAttention", opset: 27, attrs: at{"q_num_heads": 2, "kv_num_heads": 1, "update_rule": "gated", "scale": 2.0},
			ins: []*ir.Data{f32([]int64{1, 1, 2}, 1, 10), steps(1), steps(2), f32([]int64{1, 1, 1, 1}, 4), steps(-0.6931472)}, want: [][]float64{{8, 80}, {4}}},
		{op: "LayerNormalization", opset: 17, attrs: at{"epsilon": 0.0}, ins: []*ir.Data{row(1, 3), f32([]int64{2}, 1, 10), f32([]int64{2}, 0, 5)}, want: [][]float64{{-1, 15}, {2}, {1}}},
		{op: "RMSNormalization", opset: 23, attrs: at{"epsilon": 0.0}, ins: []*ir.Data{row(3, 4), f32([]int64{2}, 1, 2)}, want: one(3/math.Sqrt(12.5), 8/math.Sqrt(12.5))},
		{op: "InstanceNormalization", opset: 6, attrs: at{"epsilon": 0.0}, ins: []*ir.Data{f32([]int64{1, 2, 2}, 1, 3, 10, 30), f32([]int64{2}, 1, 2), f32([]int64{2}, 0, 1)}, want: one(-1, 1, -1, 3)},
		{op: "GroupNormalization", opset: 18, attrs: at{"epsilon": 0.0, "num_groups": 1}, ins: []*ir.Data{f32([]int64{1, 2, 1}, 1, 3), f32([]int64{1}, 2), f32([]int64{1}, 1)}, want: one(-1, 3)},
		{op: "GroupNormalization", opset: 21, attrs: at{"epsilon": 0.0, "num_groups": 1}, ins: []*ir.Data{f32([]int64{1, 2, 1}, 1, 3), f32([]int64{2}, 2, 5), f32([]int64{2}, 1, 0)}, want: one(-1, 5)},
		{op: "MeanVarianceNormalization", opset: 13, attrs: at{"axes": []int64{1}}, ins: []*ir.Data{row(1, 3)}, want: one(-1, 1)},
		{op: "LpNormalization", opset: 22, ins: []*ir.Data{f32([]int64{2, 2}, 3, -4, 0, 0)}, want: one(0.6, -0.8, 0, 0)},
		{op: "LpNormalization", opset: 22, attrs: at{"p": 1, "axis": 0}, ins: []*ir.Data{f32([]int64{2, 2}, 1, -4, -3, 0)}, want: one(0.25, -1, -0.75, 0)},
		{op: "LRN", opset: 13, attrs: at{"size": 3, "alpha": 3.0, "beta": 1.0}, ins: []*ir.Data{f32([]int64{1, 3, 1}, 1, 2, 3)}, want: one(1.0/6, 2.0/15, 3.0/14)},
		{op: "LRN", opset: 13, attrs: at{"size": 2, "alpha": 2.0, "beta": 1.0}, ins: []*ir.Data{f32([]int64{1, 2, 1, 1, 2}, 1, 2, 3, 4)}, want: one(1.0/11, 2.0/21, 3.0/10, 4.0/17)},
		{op: "BatchNormalization", opset: 15, attrs: at{"training_mode": 1, "epsilon": 0.0, "momentum": 0.5},
			ins: []*ir.Data{f32([]int64{2, 1}, 1, 3), f32([]int64{1}, 2), f32([]int64{1}, 1), f32([]int64{1}, 4), f32([]int64{1}, 9)}, want: [][]float64{{-1, 3}, {3}, {5}}},
		{op: "BatchNormalization", opset: 7, attrs: at{"epsilon": 0.0}, ins: []*ir.Data{f32([]int64{1, 1, 2}, 1, 3), f32([]int64{1}, 2), f32([]int64{1}, 1), f32([]int64{1}, 1), f32([]int64{1}, 4)}, want: one(1, 3)},
		{op: "Hardmax", opset: 13, attrs: at{"axis": 0}, ins: []*ir.Data{f32([]int64{2, 2}, 1, 5, 1, 6)}, want: one(1, 0, 0, 1)},
		{op: "Hardmax", opset: 11, attrs: at{"axis": 1}, ins: []*ir.Data{f32([]int64{1, 2, 2}, 1, 5, 1, 6)}, want: one(0, 0, 0, 1)},
		{op: "Shrink", opset: 9, attrs: at{"lambd": 1.0, "bias": 0.5}, ins: []*ir.Data{row(-2, -1, 0.5, 1, 2)}, want: one(-1.5, 0, 0, 0, 1.5)},
		{op: "SwiGLU", opset: 28, ins: []*ir.Data{row(0, 40), row(3, 2)}, want: one(0, 80)},
		{op: "NegativeLogLikelihoodLoss", opset: 13, attrs: at{"ignore_index": -1}, ins: []*ir.Data{f32([]int64{2, 2}, 0.5, 2, 1, 3), i64(1, -1)}, want: one(-2)},
		{op: "NegativeLogLikelihoodLoss", opset: 13, attrs: at{"reduction": "none"},
			ins: []*ir.Data{f32([]int64{1, 2, 2}, 1, 2, 3, 4), ir.I64s([]int64{1, 2}, []int64{1, 0}), f32([]int64{2}, 10, 100)}, want: one(-300, -20)},
		{op: "NegativeLogLikelihoodLoss", opset: 13, ins: []*ir.Data{f32([]int64{2, 2}, 1, 2, 3, 4), i64(1, 0), f32([]int64{2}, 1, 3)}, want: one(-9.0 / 4)},
		{op: "SoftmaxCrossEntropyLoss", opset: 13, attrs: at{"reduction": "sum"}, ins: []*ir.Data{f32([]int64{2, 2}, 0, 0, 5, 5), i64(0, 1)},
			want: [][]float64{{2 * math.Ln2}, {-math.Ln2, -math.Ln2, -math.Ln2, -math.Ln2}}},
	} {
		c.run(t)
	}
}

// TestComposedTypes compares every float type on values with NaN and infinities, and empty tensors.
func TestComposedTypes(t *testing.T) {
	once.Skip(t)
	r := rng(11)
	type at = map[string]any
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16, ir.BF16} {
		x := func(dims ...int64) *ir.Data { return r.tensor(dt, dims...) }
		for _, c := range []composed{
			{op: "Attention", opset: 24, attrs: at{"is_causal": 1, "softcap": 3.0}, outs: 4, ins: []*ir.Data{x(2, 4, 3, 4), x(2, 2, 3, 4), x(2, 2, 3, 5), x(3, 5), x(2, 2, 2, 4), x(2, 2, 2, 5)}},
			{op: "Attention", opset: 25, attrs: at{"left_window_size": 2, "softmax_precision": 10}, ins: []*ir.Data{x(2, 1, 3, 4), x(2, 1, 0, 4), x(2, 1, 0, 5)}},
			{op: "Attention", opset: 24, attrs: at{"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1}, ins: []*ir.Data{x(2, 3, 4), x(2, 5, 4), x(2, 5, 6), nil, nil, nil, i64(0, 4)}},
			{op: "ai.onnx.preview.FlexAttention", opset: 1, attrs: at{"softmax_precision": 11}, ins: []*ir.Data{x(2, 4, 3, 4), x(2, 2, 5, 4), x(2, 2, 5, 6)}},
			{op: "GroupNormalization", opset: 21, attrs: at{"num_groups": 2, "stash_type": 11}, ins: []*ir.Data{x(2, 4, 3), x(4), x(4)}},
			{op: "RotaryEmbedding", opset: 23, attrs: at{"interleaved": 1}, ins: []*ir.Data{x(2, 2, 3, 6), x(2, 3, 3), x(2, 3, 3)}},
			{op: "TensorScatter", opset: 24, attrs: at{"axis": 1, "mode": "circular"}, ins: []*ir.Data{x(2, 4, 3), x(2, 3, 3), i64(3, 1)}},
			{op: "TensorScatter", opset: 24, attrs: at{"axis": 3}, ins: []*ir.Data{x(2, 2, 2, 3), x(2, 2, 2, 0)}},
			{op: "LinearAttention", opset: 27, attrs: at{"q_num_heads": 4, "kv_num_heads": 2}, outs: 2, ins: []*ir.Data{x(2, 3, 12), x(2, 3, 6), x(2, 3, 4), nil, x(2, 3, 6), x(2, 3, 1)}},
			{op: "LinearAttention", opset: 27, attrs: at{"q_num_heads": 1, "kv_num_heads": 1, "update_rule": "linear"}, outs: 2, ins: []*ir.Data{x(2, 0, 3), x(2, 0, 3), x(2, 0, 4)}},
			{op: "CausalConvWithState", opset: 27, attrs: at{"activation": "silu"}, fixed: true, outs: 2, ins: []*ir.Data{x(2, 3, 4), x(3, 1, 3), x(3)}},
			{op: "LayerNormalization", opset: 17, attrs: at{"axis": -2}, outs: 3, ins: []*ir.Data{x(2, 3, 4), x(3, 4), x(4)}},
			{op: "RMSNormalization", opset: 23, attrs: at{"axis": 1}, ins: []*ir.Data{x(2, 3, 4), x(3, 1)}},
			{op: "InstanceNormalization", opset: 22, ins: []*ir.Data{x(2, 3, 2, 2), x(3), x(3)}},
			{op: "InstanceNormalization", opset: 6, ins: []*ir.Data{x(0, 3, 2), x(3), x(3)}},
			{op: "GroupNormalization", opset: 21, attrs: at{"num_groups": 2}, ins: []*ir.Data{x(2, 4, 3), x(4), x(4)}},
			{op: "GroupNormalization", opset: 18, attrs: at{"num_groups": 2}, ins: []*ir.Data{x(0, 4, 3, 2), x(2), x(2)}},
			{op: "MeanVarianceNormalization", opset: 9, ins: []*ir.Data{x(2, 3, 2, 2)}},
			{op: "LpNormalization", opset: 1, attrs: at{"axis": 1}, ins: []*ir.Data{x(2, 3, 2)}},
			{op: "LRN", opset: 1, attrs: at{"size": 5}, ins: []*ir.Data{x(2, 4, 3, 2)}},
			{op: "BatchNormalization", opset: 15, attrs: at{"training_mode": 1}, outs: 3, ins: []*ir.Data{x(2, 3, 2), x(3), x(3), x(3), x(3)}},
			{op: "BatchNormalization", opset: 7, attrs: at{"spatial": 0}, ins: []*ir.Data{x(2, 3, 2), x(3, 2), x(3, 2), x(3, 2), x(3, 2)}},
			{op: "Hardmax", opset: 13, ins: []*ir.Data{x(3, 7)}},
			{op: "Shrink", opset: 9, attrs: at{"bias": 0.25}, ins: []*ir.Data{x()}},
			{op: "SwiGLU", opset: 28, attrs: at{"alpha": -0.5}, ins: []*ir.Data{x(3, 5), x(3, 5)}},
			{op: "Gelu", opset: 20, attrs: at{"approximate": "tanh"}, ins: []*ir.Data{x(40)}},
			{op: "Mish", opset: 18, ins: []*ir.Data{x(40)}},
			{op: "NegativeLogLikelihoodLoss", opset: 12, attrs: at{"ignore_index": 1}, ins: []*ir.Data{x(2, 3, 2), ir.I64s([]int64{2, 2}, []int64{1, -1, 0, 2}), x(3)}},
			{op: "SoftmaxCrossEntropyLoss", opset: 12, attrs: at{"reduction": "none"}, outs: 2, ins: []*ir.Data{x(2, 3, 2), ir.I64s([]int64{2, 2}, []int64{1, 1, 0, 2})}},
		} {
			c.run(t)
		}
	}
	for _, dt := range []ir.DType{ir.I8, ir.U8, ir.I32, ir.I64} {
		composed{op: "Shrink", opset: 9, attrs: at{"lambd": 1.5, "bias": 1.0}, ins: []*ir.Data{r.tensor(dt, 20)}}.run(t)
		composed{op: "TensorScatter", opset: 24, ins: []*ir.Data{r.tensor(dt, 2, 3, 2), r.tensor(dt, 2, 2, 2), i64(1, 0)}}.run(t)
	}
}

// TestComposedErrors gives values that only run time shows to be wrong, and forms that are refused at once.
func TestComposedErrors(t *testing.T) {
	x := func(dims ...int64) *ir.Data { r := rng(5); return r.plain(ir.F32, dims...) }
	type at = map[string]any
	for _, c := range []composed{
		{op: "NegativeLogLikelihoodLoss", opset: 13, ins: []*ir.Data{x(2, 3), i64(0, 3)}},
		{op: "SoftmaxCrossEntropyLoss", opset: 13, ins: []*ir.Data{x(2, 3), i64(-4, 1)}},
		{op: "TensorScatter", opset: 24, ins: []*ir.Data{x(1, 3, 2), x(1, 2, 2), i64(2)}},
		{op: "TensorScatter", opset: 24, ins: []*ir.Data{x(1, 3, 2), x(1, 2, 2), i64(-1)}},
		{op: "RotaryEmbedding", opset: 23, ins: []*ir.Data{x(1, 1, 1, 4), x(3, 2), x(3, 2), ir.I64s([]int64{1, 1}, []int64{3})}},
	} {
		g, err := onnx.Parse(c.model(false), "")
		if err != nil {
			t.Errorf("%s: %v", c.op, err)
			continue
		}
		m := compile(t, g, codegen.Options{})
		var ge *guestError
		if _, err := m.run(c.ins...); !errors.As(err, &ge) {
			t.Errorf("%s: %v, want an error record", c.op, err)
		}
		against(t, m, c.ins)
	}
	for _, c := range []composed{
		{op: "Attention", opset: 23, ins: []*ir.Data{x(1, 2, 4), x(1, 2, 4), x(1, 2, 4)}},
		{op: "Attention", opset: 23, ins: []*ir.Data{x(1, 3, 2, 4), x(1, 2, 2, 4), x(1, 2, 2, 4)}},
		{op: "Attention", opset: 23, attrs: at{"qk_matmul_output_mode": 4}, ins: []*ir.Data{x(1, 2, 2, 4), x(1, 2, 2, 4), x(1, 2, 2, 4)}},
		{op: "ai.onnx.preview.FlexAttention", opset: 1, attrs: at{"score_mod": body{"Equal", "s", "s", "r"}}, ins: []*ir.Data{x(1, 1, 2, 4), x(1, 1, 2, 4), x(1, 1, 2, 4)}},
		{op: "ai.onnx.preview.FlexAttention", opset: 1, attrs: at{"score_mod": body{"Add", "s", "nowhere", "r"}}, ins: []*ir.Data{x(1, 1, 2, 4), x(1, 1, 2, 4), x(1, 1, 2, 4)}},
		{op: "LinearAttention", opset: 27, attrs: at{"q_num_heads": 3, "kv_num_heads": 2, "update_rule": "linear"}, ins: []*ir.Data{x(1, 2, 6), x(1, 2, 4), x(1, 2, 4)}},
		{op: "LinearAttention", opset: 27, attrs: at{"q_num_heads": 2, "kv_num_heads": 2}, ins: []*ir.Data{x(1, 2, 4), x(1, 2, 4), x(1, 2, 4)}},
		{op: "GroupNormalization", opset: 21, attrs: at{"num_groups": 3}, ins: []*ir.Data{x(1, 4, 2), x(4), x(4)}},
		{op: "TensorScatter", opset: 24, attrs: at{"axis": 0}, ins: []*ir.Data{x(1, 3, 2), x(1, 2, 2)}},
		{op: "LpNormalization", opset: 22, attrs: at{"p": 3}, ins: []*ir.Data{x(2, 2)}},
		{op: "LRN", opset: 13, attrs: at{"size": 0}, ins: []*ir.Data{x(2, 2, 2)}},
		{op: "SwiGLU", opset: 28, ins: []*ir.Data{x(2, 2), x(2, 1)}},
		{op: "CausalConvWithState", opset: 27, attrs: at{"activation": "relu"}, ins: []*ir.Data{x(1, 1, 3), x(1, 1, 2)}},
	} {
		if _, err := onnx.Parse(c.model(true), ""); err == nil {
			t.Errorf("%s %v was accepted", c.op, c.attrs)
		}
	}
}
