package codegen_test

import (
	"math"
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
)

// TestMicrosoftByHand works small cases of the operators of com.microsoft out by hand, and compares bits with the interpreter.
func TestMicrosoftByHand(t *testing.T) {
	type at = map[string]any
	one := func(v ...float64) [][]float64 { return [][]float64{v} }
	t3 := func(b, s, h int64, v ...float32) *ir.Data { return f32([]int64{b, s, h}, v...) }
	vec := func(v ...float32) *ir.Data { return f32([]int64{int64(len(v))}, v...) }
	i32 := func(dims []int64, v ...int64) *ir.Data { return ir.IntData(ir.I32, dims, v) }
	u8 := func(dims []int64, v ...int64) *ir.Data { return ir.IntData(ir.U8, dims, v) }
	scalar := func(v float32) *ir.Data { return f32([]int64{}, v) }
	// Queries and keys are 0, so each query sees the mean of its values: the third column of the projection.
	w := f32([]int64{1, 3}, 0, 0, 1)
	for _, c := range []composed{
		{op: "com.microsoft.Attention", fixed: true, attrs: at{"num_heads": 1}, ins: []*ir.Data{t3(1, 2, 1, 1, 3), w, vec(0, 0, 5)}, want: one(7, 7)},
		{op: "com.microsoft.Attention", fixed: true, attrs: at{"num_heads": 1, "unidirectional": 1}, ins: []*ir.Data{t3(1, 2, 1, 1, 3), w, vec(0, 0, 5)}, want: one(6, 7)},
		{op: "com.microsoft.Attention", fixed: true, attrs: at{"num_heads": 1}, ins: []*ir.Data{t3(1, 2, 1, 1, 3), w, nil, i32([]int64{1}, 1)}, want: one(1, 1)},
		{op: "com.microsoft.Attention", fixed: true, attrs: at{"num_heads": 1}, ins: []*ir.Data{t3(1, 2, 1, 1, 3), w, nil, i32([]int64{2}, 2, 1)}, want: one(3, 3)},
		{op: "com.microsoft.Attention", fixed: true, attrs: at{"num_heads": 1}, ins: []*ir.Data{t3(1, 2, 1, 1, 3), w, nil, i32([]int64{1, 2}, 0, 1)}, want: one(3, 3)},
		{op: "com.microsoft.Attention", fixed: true, attrs: at{"num_heads": 1, "unidirectional": 1}, ins: []*ir.Data{t3(1, 1, 1, 1), w, nil, nil, f32([]int64{2, 1, 1, 1, 1}, 0, 4)},
			want: [][]float64{{2.5}, {0, 0, 4, 1}}},
		{op: "com.microsoft.MultiHeadAttention", attrs: at{"num_heads": 2}, ins: []*ir.Data{t3(1, 1, 2, 1, 1), t3(1, 2, 2, 0, 0, 0, 0), t3(1, 2, 2, 1, 10, 3, 30)}, want: one(2, 20)},
		{op: "com.microsoft.MultiHeadAttention", attrs: at{"num_heads": 1, "scale": 2.0}, ins: []*ir.Data{t3(1, 1, 1, 1), t3(1, 2, 1, 0, float32(math.Log(3))/2), t3(1, 2, 1, 1, 5)}, want: one(4)},
		{op: "com.microsoft.MultiHeadAttention", attrs: at{"num_heads": 1}, ins: []*ir.Data{f32([]int64{1, 2, 1, 3, 1}, 0, 0, 2, 0, 0, 4)}, want: one(3, 3)},
		{op: "com.microsoft.QAttention", fixed: true, attrs: at{"num_heads": 1}, ins: []*ir.Data{u8([]int64{1, 2, 1}, 12, 16), ir.IntData(ir.I8, []int64{1, 3}, []int64{0, 0, 4}), vec(0, 0, 1), scalar(0.5),
			scalar(0.25), nil, ir.IntData(ir.U8, []int64{}, []int64{10})}, want: one(3, 3)},
		{op: "com.microsoft.GroupQueryAttention", attrs: at{"num_heads": 2, "kv_num_heads": 1}, ins: []*ir.Data{t3(1, 1, 2, 1, 1), t3(1, 1, 1, 0), t3(1, 1, 1, 4),
			f32([]int64{1, 1, 2, 1}, 0, 0), f32([]int64{1, 1, 2, 1}, 1, 1), i32([]int64{1}, 2), i32([]int64{}, 3)}, want: [][]float64{{2, 2}, {0, 0, 0}, {1, 1, 4}}},
		{op: "com.microsoft.GroupQueryAttention", attrs: at{"num_heads": 1, "kv_num_heads": 1, "local_window_size": 1}, ins: []*ir.Data{t3(1, 3, 1, 1, 1, 1), t3(1, 3, 1, 0, 0, 0), t3(1, 3, 1, 1, 3, 9),
			nil, nil, i32([]int64{1}, 2), i32([]int64{}, 3)}, want: [][]float64{{1, 2, 6}, {0, 0, 0}, {1, 3, 9}}},
		{op: "com.microsoft.RotaryEmbedding", fixed: true, ins: []*ir.Data{t3(1, 1, 2, 3, 4), ir.I64s([]int64{1, 1}, []int64{1}), f32([]int64{2, 1}, 1, 0), f32([]int64{2, 1}, 0, 1)}, want: one(-4, 3)},
		{op: "com.microsoft.SkipLayerNormalization", attrs: at{"epsilon": 0.0}, ins: []*ir.Data{t3(1, 1, 2, 1, 1), t3(1, 1, 2, 0, 2), vec(1, 10), vec(0, 5)}, want: one(-1, 15)},
		{op: "com.microsoft.SkipSimplifiedLayerNormalization", attrs: at{"epsilon": 0.0}, ins: []*ir.Data{t3(1, 1, 2, 1, 1), t3(1, 1, 2, 2, 2), vec(1, 10), vec(0, 1)},
			want: [][]float64{{3 / math.Sqrt(12.5), 40 / math.Sqrt(12.5)}}},
		{op: "com.microsoft.EmbedLayerNormalization", attrs: at{"epsilon": 0.0}, ins: []*ir.Data{i32([]int64{1, 1}, 1), i32([]int64{1, 1}, 0), f32([]int64{2, 2}, 9, 9, 0, 1), f32([]int64{1, 2}, 1, 1),
			f32([]int64{1, 2}, 0, 1), vec(1, 1), vec(0, 3), i32([]int64{1, 1}, 1)}, want: [][]float64{{-1, 4}, {1}}},
		{op: "com.microsoft.FusedMatMul", attrs: at{"transA": 1, "alpha": 0.5}, ins: []*ir.Data{f32([]int64{2, 1}, 1, 2), f32([]int64{2, 1}, 4, 6)}, want: one(8)},
		{op: "com.microsoft.FusedGemm", attrs: at{"activation": "LeakyRelu", "activation_alpha": 0.5, "transB": 1}, ins: []*ir.Data{f32([]int64{1, 2}, 1, -2), f32([]int64{1, 2}, 3, 4), vec(1)}, want: one(-2)},
		{op: "com.microsoft.FusedConv", fixed: true, attrs: at{"activation": "Relu"}, ins: []*ir.Data{t3(1, 1, 2, 1, 2), t3(1, 1, 1, -3), vec(1), t3(1, 1, 2, 0, 7)}, want: one(0, 2)},
		{op: "com.microsoft.Inverse", ins: []*ir.Data{t3(2, 2, 2, 0, 2, 1, 0, 4, 0, 0, 0.5)}, want: one(0, 1, 0.5, 0, 0.25, 0, 0, 2)},
		{op: "com.microsoft.CDist", attrs: at{"metric": "euclidean"}, ins: []*ir.Data{f32([]int64{1, 2}, 0, 0), f32([]int64{2, 2}, 3, 4, 0, 2)}, want: one(5, 2)},
		{op: "com.microsoft.UnfoldTensor", attrs: at{"size": 2, "step": 2, "dim": 0}, ins: []*ir.Data{vec(1, 2, 3, 4, 5)}, want: one(1, 2, 3, 4)},
		{op: "com.microsoft.Unique", ins: []*ir.Data{vec(3, 1, 3)}, want: [][]float64{{3, 1}, {0, 1, 0}, {2, 1}}},
		{op: "com.microsoft.NhwcMaxPool", fixed: true, attrs: at{"kernel_shape": []int64{2, 1}}, ins: []*ir.Data{u8([]int64{1, 2, 1, 2}, 1, 9, 4, 3)}, want: one(4, 9)},
		{op: "com.microsoft.MurmurHash3", ins: []*ir.Data{i32([]int64{2}, 3, 4)}, want: one(847579505, 1889779975)},
		{op: "com.microsoft.QGemm", attrs: at{"transB": 1}, ins: []*ir.Data{u8([]int64{1, 2}, 12, 8), scalar(0.5), u8([]int64{}, 10), ir.IntData(ir.I8, []int64{1, 2}, []int64{3, 1}), scalar(0.25), nil, i32([]int64{1}, 4)}, want: one(1)},
		{op: "com.microsoft.QLinearSoftmax", attrs: at{"opset": 13, "axis": -1}, ins: []*ir.Data{u8([]int64{1, 2}, 7, 7), scalar(0.5), u8([]int64{}, 7), scalar(0.125), u8([]int64{}, 3)}, want: one(7, 7)},
		{op: "com.microsoft.QLinearWhere", ins: []*ir.Data{ir.Bools([]int64{2}, []bool{true, false}), u8([]int64{2}, 10, 10), scalar(0.5), u8([]int64{}, 8), u8([]int64{2}, 9, 9), scalar(1), u8([]int64{}, 0), scalar(0.5), u8([]int64{}, 1)}, want: one(3, 19)},
		{op: "SimplifiedLayerNormalization", opset: 17, attrs: at{"epsilon": 0.0}, ins: []*ir.Data{f32([]int64{1, 2}, 3, 4), vec(1, 2)}, want: one(3/math.Sqrt(12.5), 8/math.Sqrt(12.5))},
	} {
		c.opset = max(c.opset, 1)
		c.run(t)
	}
}

// TestMicrosoftTypes compares the interpreter's bits on random values with NaN and infinities in them.
func TestMicrosoftTypes(t *testing.T) {
	r := rng(23)
	type at = map[string]any
	for _, dt := range []ir.DType{ir.F32, ir.F16} {
		x := func(dims ...int64) *ir.Data { return r.tensor(dt, dims...) }
		for _, c := range []composed{
			{op: "com.microsoft.Attention", fixed: true, attrs: at{"num_heads": 2, "unidirectional": 1}, outs: 2, ins: []*ir.Data{x(2, 3, 4), x(4, 12), x(12), ir.IntData(ir.I32, []int64{2, 5}, []int64{1, 1, 0, 1, 1, 0, 1, 1, 1, 1}), x(2, 2, 2, 2, 2)}},
			{op: "com.microsoft.MultiHeadAttention", attrs: at{"num_heads": 2}, outs: 3, ins: []*ir.Data{x(2, 3, 4), x(2, 5, 4), x(2, 5, 6), x(14), nil, x(2, 1, 3, 5)}, fixed: true},
			{op: "com.microsoft.GroupQueryAttention", attrs: at{"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "softcap": 2.0}, outs: 3, fixed: true, ins: []*ir.Data{x(2, 1, 32), nil, nil, x(2, 2, 3, 4), x(2, 2, 3, 4),
				ir.IntData(ir.I32, []int64{2}, []int64{3, 1}), ir.IntData(ir.I32, []int64{}, []int64{4}), x(8, 2), x(8, 2)}},
			{op: "com.microsoft.FastGelu", ins: []*ir.Data{x(3, 5), x(5)}},
			{op: "com.microsoft.Inverse", ins: []*ir.Data{x(2, 3, 3)}},
			{op: "com.microsoft.SkipLayerNormalization", ins: []*ir.Data{x(2, 3, 4), x(3, 4), x(4), x(4), x(4)}},
		} {
			c.opset = 1
			c.run(t)
		}
	}
}
