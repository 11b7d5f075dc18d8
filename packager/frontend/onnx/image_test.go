package onnx

import (
	"context"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestImageConversions runs operators that are made of others on examples worked out by hand, with sizes known to the compiler
// and with sizes known only at run time.
func TestImageConversions(t *testing.T) {
	eq := func(s string, ins string) []byte { return node("Einsum "+ins+" -> y", attrS("equation", s)) }
	square := ir.F32s([]int64{2, 2}, []float32{1, 2, 3, 4})
	four := ir.F32s([]int64{1, 4, 1, 1}, []float32{1, 2, 3, 4})
	line := ir.F32s([]int64{1, 1, 3}, []float32{3, 4, 0})
	wave := ir.F32s([]int64{1, 4, 1}, []float32{1, 2, 3, 4})
	half := ir.F32s([]int64{1, 3, 2}, []float32{10, 0, -2, 2, -2, 0})
	wide := ir.F32s([]int64{1, 1, 1, 2}, []float32{1, 2})
	for _, c := range []struct {
		name  string
		opset int64
		node  []byte
		x     *ir.Data
		want  []float64
		fixed int // dims from here on are known to the compiler
	}{
		{"diagonal", 12, eq("ii->i", "x"), square, []float64{1, 4}, 2},
		{"trace", 12, eq("ii", "x"), square, []float64{5}, 2},
		{"transposed", 12, eq("ij->ji", "x"), square, []float64{1, 3, 2, 4}, 2},
		{"product", 12, eq("ij,jk", "x x"), square, []float64{7, 10, 15, 22}, 2},
		{"inner", 12, eq("ij, ij ->", "x x"), square, []float64{30}, 2},
		{"batches", 12, eq("...i,...i->...", "x x"), square, []float64{5, 25}, 2},
		{"three", 12, eq("ij,jk,kl->il", "x x x"), square, []float64{37, 54, 81, 118}, 2},
		{"outer", 12, eq("ij,kl->ikjl", "x x"), ir.F32s([]int64{1, 2}, []float32{2, 3}), []float64{4, 6, 6, 9}, 2},
		{"two sums", 12, eq("ij,kj->", "x x"), square, []float64{4*4 + 6*6}, 2},
		{"depth to space", 13, node("DepthToSpace x -> y", attrI("blocksize", 2)), four, []float64{1, 2, 3, 4}, 4},
		{"space to depth", 13, node("SpaceToDepth x -> y", attrI("blocksize", 2)), ir.F32s([]int64{1, 1, 2, 4}, []float32{1, 2, 3, 4, 5, 6, 7, 8}),
			[]float64{1, 3, 2, 4, 5, 7, 6, 8}, 4},
		{"lp pool", 18, node("LpPool x -> y", attrIs("kernel_shape", 2)), line, []float64{5, 4}, 3},
		{"lp pool of order 3", 18, node("LpPool x -> y", attrIs("kernel_shape", 1), attrI("p", 3)), line, []float64{3, 4, 0}, 3},
		{"global lp pool", 2, node("GlobalLpPool x -> y"), line, []float64{5}, 3},
		{"global lp pool of opset 1", 1, node("GlobalLpPool x -> y", attrF("p", 1)), line, []float64{7}, 3},
		{"transform", 17, node("DFT x -> y", attrI("axis", 1)), wave, []float64{10, 0, -2, 2, -2, 0, -2, -2}, 2},
		{"one-sided transform", 17, node("DFT x -> y", attrI("axis", 1), attrI("onesided", 1)), wave, []float64{10, 0, -2, 2, -2, 0}, 2},
		{"one-sided back", 17, node("DFT x -> y", attrI("axis", 1), attrI("onesided", 1), attrI("inverse", 1)), half, []float64{1, 2, 3, 4}, 2},
		{"upsample of opset 7", 7, node("Upsample x -> y", attrFs("scales", 1, 1, 1, 2)), wide, []float64{1, 1, 2, 2}, 4},
		{"upsample of opset 1", 1, node("Upsample x -> y", attrF("width_scale", 2), attrF("height_scale", 2), attrS("mode", "bilinear")), wide,
			[]float64{1, 1.5, 2, 2, 1, 1.5, 2, 2}, 4},
		{"determinant", 11, node("Det x -> y"), square, []float64{-2}, 2},
	} {
		for _, dynamic := range []bool{false, true} {
			dims := append([]int64{}, c.x.Dims...)
			for i := range dims[:c.fixed] {
				if dynamic {
					dims[i] = -1
				}
			}
			g := graphParts{nodes: [][]byte{c.node}, ins: [][]byte{info("x", 1, dims...)}, outs: [][]byte{info("y", 1)}}
			parsed, err := Parse(model(c.opset, g), "")
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			out, err := interp.Run(context.Background(), parsed, map[string]*ir.Val{"x": ir.TensorVal(c.x)})
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			got := out["y"].Tensor.Floats()
			ok := len(got) == len(c.want)
			for i := 0; ok && i < len(got); i++ {
				ok = math.Abs(got[i]-c.want[i]) < 1e-5
			}
			if !ok {
				t.Errorf("%s (dynamic %t): %v, want %v", c.name, dynamic, got, c.want)
			}
		}
	}
}
