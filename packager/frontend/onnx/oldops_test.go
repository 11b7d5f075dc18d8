package onnx

import (
	"context"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestOldOperators works ONNX's early experiments, MaxRoiPool and the integer reductions out by hand.
func TestOldOperators(t *testing.T) {
	x := ir.F32s([]int64{1, 1, 3, 3}, []float32{1, 2, 3, 4, 5, 6, 7, 8, 9})
	for _, c := range []struct {
		name string
		node []byte
		want []float64
	}{
		{"affine", node("Affine x -> y", attrF("alpha", 2), attrF("beta", 1)), []float64{3, 5, 7, 9, 11, 13, 15, 17, 19}},
		{"scaled tanh", node("ScaledTanh x -> y", attrF("alpha", 2), attrF("beta", 0)), make([]float64, 9)},
		{"image scaler", node("ImageScaler x -> y", attrF("scale", 2), attrFs("bias", -1)), []float64{1, 3, 5, 7, 9, 11, 13, 15, 17}},
		{"crop", node("Crop x -> y", attrIs("border", 1, 0, 1, 2)), []float64{2}},
		{"crop to a size", node("Crop x -> y", attrIs("border", 1, 1, 0, 0), attrIs("scale", 1, 2)), []float64{5, 6}},
		{"fill", node("ConstantFill x -> y", attrF("value", 4)), []float64{4, 4, 4, 4, 4, 4, 4, 4, 4}},
		{"a given tensor", node("GivenTensorFill -> y", attrFs("values", 3, 4), attrIs("shape", 2)), []float64{3, 4}},
		{"dynamic slice", node("DynamicSlice x s e -> y"), []float64{4}},
		// One region of the whole picture in 2x2 cells, which overlap in the middle; one without a pixel in its last row.
		{"region", node("MaxRoiPool x r -> y", attrIs("pooled_shape", 2, 2)), []float64{5, 6, 8, 9, 9, 9, 0, 0}},
	} {
		g := graphParts{nodes: [][]byte{c.node}, ins: [][]byte{info("x", 1, 1, 1, 3, 3)}, outs: [][]byte{info("y", 1)}}
		in := map[string]*ir.Val{"x": ir.TensorVal(x)}
		if c.name == "dynamic slice" {
			g.ins = append(g.ins, info("s", 7, 4), info("e", 7, 4))
			in["s"], in["e"] = ir.TensorVal(ir.I64s([]int64{4}, []int64{0, 0, 1, 0})), ir.TensorVal(ir.I64s([]int64{4}, []int64{1, 1, 2, 1}))
		}
		if c.name == "region" {
			g.ins = append(g.ins, info("r", 1, -1, 5))
			in["r"] = ir.TensorVal(ir.F32s([]int64{2, 5}, []float32{0, 0, 0, 2, 2, 0, 1.6, 2.2, 2, 3.4}))
		}
		parsed, err := Parse(model(6, g), "")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		out, err := interp.Run(context.Background(), parsed, in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := out["y"].Tensor.Floats()
		ok := len(got) == len(c.want)
		for i := 0; ok && i < len(got); i++ {
			ok = math.Abs(got[i]-c.want[i]) < 1e-6
		}
		if !ok {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestVersions holds the table of docs/operators.md against the handlers.
func TestVersions(t *testing.T) {
	versions := Versions()
	for name := range Supported() {
		if len(versions[name]) == 0 {
			t.Errorf("%s has no operator set", name)
		}
	}
	if v := versions["Clip"]; len(v) != 5 || v[0] != 1 || v[4] != 13 {
		t.Errorf("Clip is of %v", v)
	}
}
