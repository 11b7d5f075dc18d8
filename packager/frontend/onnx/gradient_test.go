package onnx

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// gradientModel is a graph of f32 inputs a [2,2] and b [2] that imports the training operators.
func gradientModel(nodes ...[]byte) []byte {
	g := graphParts{nodes: nodes, ins: [][]byte{info("a", 1, 2, 2), info("b", 1, 2)}, outs: [][]byte{info("da", 1), info("db", 1)}}
	return cat(model(17, g), pbBytes(8, cat(pbStr(1, "ai.onnx.preview.training"), pbInt(2, 1))))
}

func gradientOf(ins string, attrs ...[]byte) []byte {
	return node("ai.onnx.preview.training.Gradient "+ins+" -> da db", attrs...)
}

func TestGradient(t *testing.T) {
	a, b := []float32{1, 2, -3, 4}, []float32{0.5, 2}
	xs, y := attrSs("xs", "a", "b"), attrS("y", "y")
	tanh := func(x float64) float64 { v := math.Tanh(x); return 1 - v*v }
	for _, c := range []struct {
		name   string
		nodes  [][]byte
		da, db []float64
	}{
		{"broadcast product", [][]byte{node("Mul a b -> p"), node("Mul p a -> y"), gradientOf("a b", xs, y)}, []float64{1, 8, -3, 16}, []float64{10, 20}},
		{"quotient", [][]byte{node("Div a b -> y"), gradientOf("a b", xs, y)}, []float64{2, 0.5, 2, 0.5}, []float64{8, -1.5}},
		{"product with a vector", [][]byte{node("MatMul a b -> p"), node("Tanh p -> y"), gradientOf("a b", xs, y)},
			[]float64{0.5 * tanh(4.5), 2 * tanh(4.5), 0.5 * tanh(6.5), 2 * tanh(6.5)}, []float64{tanh(4.5) - 3*tanh(6.5), 2*tanh(4.5) + 4*tanh(6.5)}},
		{"power", [][]byte{node("Pow a b -> p"), node("ReduceMean p -> y", attrI("keepdims", 0), attrIs("axes", 0)), gradientOf("a b", xs, y)},
			[]float64{0.25, 2, math.NaN(), 4}, []float64{math.NaN(), (4*math.Log(2) + 16*math.Log(4)) / 2}},
		// b is fed with other values than the graph's, and is no x.
		{"substituted", [][]byte{node("Mul a b -> p"), node("Add b b -> c"), node("Neg p -> y"),
			node("ai.onnx.preview.training.Gradient a c -> da", attrSs("xs", "a"), attrSs("zs", "b"), y), node("Neg b -> db")}, []float64{-1, -4, -1, -4}, []float64{-0.5, -2}},
		// The derivative of a derivative, and of something that does not depend on b.
		{"twice", [][]byte{node("Mul a a -> p"), node("Mul p a -> y"), node("ai.onnx.preview.training.Gradient a -> d", attrSs("xs", "a"), y),
			gradientOf("a b", xs, attrS("y", "d"))}, []float64{6, 12, -18, 24}, []float64{0, 0}},
		{"rounded", [][]byte{node("Round a -> p"), node("Add p b -> y"), gradientOf("a b", xs, y)}, []float64{0, 0, 0, 0}, []float64{2, 2}},
	} {
		g, err := Parse(gradientModel(c.nodes...), "")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		out, err := interp.Run(context.Background(), g, map[string]*ir.Val{"a": ir.TensorVal(ir.F32s([]int64{2, 2}, a)), "b": ir.TensorVal(ir.F32s([]int64{2}, b))})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for name, want := range map[string][]float64{"da": c.da, "db": c.db} {
			got := out[name].Tensor.Floats()
			if len(got) != len(want) {
				t.Errorf("%s: %s is %v, want %v", c.name, name, got, want)
				continue
			}
			for i, w := range want {
				if math.IsNaN(w) != math.IsNaN(got[i]) || math.Abs(got[i]-w) > 1e-5 {
					t.Errorf("%s: %s is %v, want %v", c.name, name, got, want)
					break
				}
			}
		}
	}
}

// TestGradientRefused names the operator whose derivative is not known, and refuses values that do not exist.
func TestGradientRefused(t *testing.T) {
	xs := attrSs("xs", "a", "b")
	_, err := Parse(gradientModel(node("Det a -> p"), node("Mul p b -> y"), gradientOf("a b", xs, attrS("y", "y"))), "")
	var u *frontend.UnsupportedError
	if !errors.As(err, &u) || u.Op != "Gradient" || u.Reason != `the derivative of Det (node "Det_0")` {
		t.Errorf("%v", err)
	}
	for _, n := range [][]byte{gradientOf("a b", xs, attrS("y", "nowhere")), gradientOf("a", xs, attrS("y", "a")), gradientOf("a b", attrSs("xs", "a", "c"), attrS("y", "a"))} {
		if _, err := Parse(gradientModel(n), ""); err == nil {
			t.Error("a gradient of values that do not exist was accepted")
		}
	}
}
