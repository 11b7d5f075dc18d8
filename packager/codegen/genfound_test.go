package codegen_test

import (
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestFoundGraphs repeats, made small, what random graphs found once.
func TestFoundGraphs(t *testing.T) {
	once.Skip(t)
	for _, c := range []struct {
		name, text string
		ins        []*ir.Data
	}{
		{"the last of equal categories counts", `graph "g" {
			param x i64[*]
			y f32[*] = ml.OneHotEncoder(x) {cats=i64[4](2, -3, -1, -1), zeros=1} #0 "y"
			result y
		}`, []*ir.Data{i64d(17, -3, -1, 2)}},
		{"the last of equal texts counts", `graph "g" {
			param x string[*]
			y f32[*] = ml.OneHotEncoder(x) {cats=string[4]("b", "a", "b", "b"), zeros=1} #0 "y"
			result y
		}`, []*ir.Data{ir.Strs([]int64{2, 2}, []string{"a", "b", "", "b"})}},
		{"tokens of a row or of rows of rows only", `graph "g" {
			param x string[*]
			y string[*] = ms.Tokenizer(x) {mark=0, mincharnum=1, pad_value="pad", separators=strings[" "], tokenexp=""} #0 "y"
			result y
		}`, []*ir.Data{ir.Strs([]int64{1, 1, 1}, []string{"a b"})}},
		{"updates of another rank are found before their indices", `graph "g" {
			const u i64[2](4, 13)
			param i i64[?,?]
			param x i64[?,?,?]
			y i64[?,?,?] = ScatterND(x, i, u) {reduction="none"} #0 "y"
			result y
		}`, []*ir.Data{ir.I64s([]int64{2, 2}, make([]int64, 4)), ir.I64s([]int64{1, 0, 1}, nil)}},
		{"a tree needs its features wherever the rows go", `graph "g" {
			param x f32[?,?]
			y f32[?,1] = ml.TreeEnsemble(x) {accumulate="F64", aggregate="SUM", base_values=f64[0](), leaf_begin=[0, 1, 2, 3], leaf_target=[0, 0, 0], leaf_weight=f64[3](1, 2, 3), linear_begin=[], linear_coef=f64[0](), linear_const=f64[0](), linear_feature=[], n_targets=1, node_false=[1, -3], node_feature=[0, 2], node_missing_true=[0, 0], node_mode=[0, 0], node_threshold=f32[2](0, 0), node_true=[-1, -2], roots=[0]} #0 "y"
			result y
		}`, []*ir.Data{ir.F32s([]int64{1, 2}, []float32{-1, -1})}},
		{"a window of two dims over one", `graph "g" {
			param x f16[*]
			y f16[?,?,?,?] = AveragePool(x) {auto_pad="NOTSET", ceil_mode=0, count_include_pad=1, dilations=[1, 1], kernel_shape=[3, 1], pads=[2, 0, 2, 0], strides=[1, 1]} #0 "y"
			result y
		}`, []*ir.Data{{DType: ir.F16, Dims: []int64{1, 2, 3}, Bytes: make([]byte, 12)}}},
		{"elements of four bits in a sequence are packed for the host", `graph "g" {
			const c i4[1](hex:02)
			param x i4[?,N]
			s seq(i4[?,N]) = SequenceConstruct(x, x) #0 "s"
			y seq(i4[*]) = SequenceInsert(s, c) #1 "y"
			result y
		}`, []*ir.Data{{DType: ir.I4, Dims: []int64{1, 3}, Bytes: []byte{0xa1, 0x0c}}}},
		{"a window over nothing", `graph "g" {
			param x f16[?,?,?]
			y f16[?,?,?] = MaxPool(x) {auto_pad="SAME_UPPER", ceil_mode=0, dilations=[1], kernel_shape=[2], pads=[0, 0], storage_order=1, strides=[2]} #0 "y"
			result y
		}`, []*ir.Data{{DType: ir.F16, Dims: []int64{1, 1, 0}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := ir.Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			var ins []*ir.Val
			for _, d := range c.ins {
				ins = append(ins, ir.TensorVal(d))
			}
			for seed := range uint64(6) {
				if v := examine(g, ins, seed); v.bad != "" || v.unsupported != nil {
					t.Fatalf("options of seed %d: %s: %s, %v", seed, v.bad, v.detail, v.unsupported)
				}
			}
		})
	}
}
