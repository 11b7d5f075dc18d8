package onnx

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestQuantised runs quantised operators on numbers worked out by hand.
func TestQuantised(t *testing.T) {
	f := func(v ...float32) *ir.Data { return ir.F32s([]int64{int64(len(v))}, v) }
	u8 := func(v ...int64) *ir.Data { return ir.IntData(ir.U8, []int64{int64(len(v))}, v) }
	i8 := func(v ...int64) *ir.Data { return ir.IntData(ir.I8, []int64{int64(len(v))}, v) }
	of := func(d *ir.Data, dims ...int64) *ir.Data {
		return &ir.Data{DType: d.DType, Dims: append([]int64{}, dims...), Bytes: d.Bytes}
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name  string
		opset int64
		node  []byte
		ins   []*ir.Data
		out   ir.DType
		want  []float64
	}{
		{"per axis, and NaN", 13, node("QuantizeLinear i0 i1 i2 -> y", attrI("axis", 0)),
			[]*ir.Data{of(f(1, 2.5, -3, nan), 2, 2), f(0.5, 1), u8(10, 3)}, ir.U8, []float64{12, 15, 0, 0}},
		{"saturated, ties to even", 13, node("QuantizeLinear i0 i1 i2 -> y"),
			[]*ir.Data{f(1e30, -1e30, 0.5, 1.5), of(f(1)), of(i8(5))}, ir.I8, []float64{127, -128, 5, 7}},
		{"beyond every bound, i16", 21, node("QuantizeLinear i0 i1 i2 -> y"),
			[]*ir.Data{f(inf, -inf, nan, -3.4e38, 3.4e38, 32759.5, -32776.5), of(f(1)), of(ir.IntData(ir.I16, []int64{1}, []int64{8}))}, ir.I16,
			[]float64{32767, -32768, -32768, -32768, 32767, 32767, -32768}},
		{"a mask of the lowest float, u16", 21, node("QuantizeLinear i0 i1 i2 -> y"),
			[]*ir.Data{f(-math.MaxFloat32, 0, -1.7014118e38, nan), of(f(5.192376e33)), of(ir.IntData(ir.U16, []int64{1}, []int64{65535}))}, ir.U16,
			[]float64{0, 65535, 32767, 0}},
		{"such a mask back", 21, node("DequantizeLinear i0 i1 i2 -> y"),
			[]*ir.Data{ir.IntData(ir.U16, []int64{3}, []int64{0, 65535, 65534}), of(f(5.192376e33)), of(ir.IntData(ir.U16, []int64{1}, []int64{65535}))},
			ir.F32, []float64{math.Inf(-1), 0, float64(-float32(5.192376e33))}},
		{"no number in a vendor product", 13, node("com.microsoft.QLinearMul i0 i1 i2 i3 i4 i5 i6 i7 -> y"),
			[]*ir.Data{i8(3, 4), of(f(inf)), of(i8(3)), i8(5), of(f(1)), of(i8(3)), of(f(1)), of(i8(-10))}, ir.I8, []float64{-128, 127}},
		{"vendor product with a factor whose scale overflows", 13, node("com.microsoft.QLinearMul i0 i1 i2 i3 i4 i5 i6 i7 -> y"),
			[]*ir.Data{i8(0, 2, 0), of(f(1)), of(i8(0)), i8(-128, -128, 127), of(f(1.3344406e36)), of(i8(127)), of(f(1.3344406e36)), of(i8(7))}, ir.I8,
			[]float64{7, -128, 7}},
		{"no zero point", 10, node("QuantizeLinear i0 i1 -> y"), []*ir.Data{f(300, 7, -1), of(f(1))}, ir.U8, []float64{255, 7, 0}},
		{"output type", 21, node("QuantizeLinear i0 i1 -> y", attrI("output_dtype", int64(ir.I16))), []*ir.Data{f(40000, -7), of(f(1))}, ir.I16,
			[]float64{32767, -7}},
		{"blocks", 21, node("DequantizeLinear i0 i1 i2 -> y", attrI("axis", 1), attrI("block_size", 2)),
			[]*ir.Data{of(u8(1, 2, 3), 1, 3), of(f(2, 10), 1, 2), of(u8(1, 0), 1, 2)}, ir.F32, []float64{0, 2, 30}},
		{"one scale in a vector beside a vector", 13, node("DequantizeLinear i0 i1 -> y"), []*ir.Data{u8(1, 2), f(3)}, ir.F32, []float64{3, 6}},
		{"dequantised i32", 13, node("DequantizeLinear i0 i1 -> y"), []*ir.Data{ir.I32s([]int64{1}, []int32{-9}), of(f(0.5))}, ir.F32, []float64{-4.5}},
		{"matmul, scales and zero points per row", 21, node("QLinearMatMul i0 i1 i2 i3 i4 i5 i6 i7 -> y"),
			[]*ir.Data{of(u8(3, 1, 2, 2), 2, 2), f(0.5, 1), u8(1, 2), of(u8(4, 9), 2, 1), of(f(2)), of(u8(1)), of(f(0.5)), of(u8(7))}, ir.U8, []float64{19, 7}},
		{"convolution per channel, padding counts as zero", 10, node("QLinearConv i0 i1 i2 i3 i4 i5 i6 i7 i8 -> y", attrIs("pads", 1, 0)),
			[]*ir.Data{of(u8(1, 2, 3), 1, 1, 3), of(f(1)), of(u8(1)), of(u8(1, 1, 2, 3), 2, 1, 2), f(1, 2), u8(0, 1), of(f(1)), of(u8(0)),
				ir.I32s([]int64{2}, []int32{10, -1})}, ir.U8, []float64{10, 11, 13, 0, 2, 8}},
		{"integer matmul, zero points per column", 10, node("MatMulInteger i0 i1 i2 i3 -> y"),
			[]*ir.Data{of(u8(5, 6), 1, 2), of(i8(1, 2, 3, 4), 2, 2), of(u8(5)), i8(1, 0)}, ir.I32, []float64{2, 4}},
		{"dynamic", 11, node("DynamicQuantizeLinear i0 -> y s z"), []*ir.Data{f(-1, 0, 254)}, ir.U8, []float64{0, 1, 255}},
		{"dynamic, all zero", 11, node("DynamicQuantizeLinear i0 -> y s z"), []*ir.Data{f(0, 0)}, ir.U8, []float64{0, 0}},
		{"vendor sum", 13, node("com.microsoft.QLinearAdd i0 i1 i2 i3 i4 i5 i6 i7 -> y"),
			[]*ir.Data{u8(4), of(f(0.5)), of(u8(0)), u8(3), of(f(1)), of(u8(1)), of(f(0.25)), of(u8(1))}, ir.U8, []float64{17}},
		{"vendor join", 13, node("com.microsoft.QLinearConcat i0 i1 i2 i3 i4 i5 i6 i7 -> y", attrI("axis", 0)),
			[]*ir.Data{of(f(0.5)), of(u8(1)), u8(4), of(f(0.5)), of(u8(0)), u8(3), of(f(1)), of(u8(1))}, ir.U8, []float64{5, 5}},
		{"vendor matmul of floats", 13, node("com.microsoft.DynamicQuantizeMatMul i0 i1 i2 i3 i4 -> y"),
			[]*ir.Data{of(f(-1, 254), 1, 2), of(u8(3, 2), 2, 1), of(f(0.5)), of(u8(1)), f(10)}, ir.F32, []float64{136}},
	} {
		// Once with the sizes known to the compiler, once with sizes that only the call tells.
		for _, dynamic := range []bool{false, true} {
			g := graphParts{nodes: [][]byte{c.node}, outs: [][]byte{info("y", int64(c.out))}}
			in := map[string]*ir.Val{}
			for i, d := range c.ins {
				name, dims := fmt.Sprintf("i%d", i), slices.Clone(d.Dims)
				if i == 0 && dynamic {
					for j := range dims {
						dims[j] = -1
					}
				}
				g.ins = append(g.ins, info(name, int64(d.DType), dims...))
				in[name] = ir.TensorVal(d)
			}
			parsed, err := Parse(model(c.opset, g), "")
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			out, err := interp.Run(context.Background(), parsed, in)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			y := out["y"].Tensor
			if y.DType != c.out {
				t.Errorf("%s: type %s", c.name, y.DType)
				continue
			}
			var got []float64
			for i := range int(y.Len()) {
				if c.out == ir.F32 {
					got = append(got, y.Float(i))
				} else {
					got = append(got, float64(y.Int(i)))
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s (dynamic: %t): %v, want %v", c.name, dynamic, got, c.want)
			}
		}
	}
}
