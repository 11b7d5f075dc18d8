package ir

import (
	"strings"
	"testing"
)

func TestBuilderInfersAndVerifies(t *testing.T) {
	b := NewBuilder()
	x := b.Param("x", TensorOf(F32, ShapeOf(Symbol("N"), Static(4))))
	w := b.Const("w", F32s([]int64{3, 4}, make([]float32, 12)))
	y := b.Op("y", "Gemm", Attrs{"transB": 1}, x, w)
	s := b.Op("s", "Shape", nil, y)
	n := b.Op("n", "Gather", nil, s, b.Const("zero", I64s([]int64{1}, []int64{0})))
	m := b.Op("m", "Concat", Attrs{"axis": 0}, n, b.Const("minus", I64s([]int64{1}, []int64{-1})), b.Const("one", I64s([]int64{1}, []int64{1})))
	r := b.Op("r", "Reshape", nil, y, m)
	g, err := b.Graph("g", r)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Type.String(); got != "f32[N,3,1]" {
		t.Errorf("r is %s", got)
	}
	g.Body.Nodes[0].Outs[0].Type = TensorOf(F64, Unranked())
	if err := Verify(g); err == nil || !strings.Contains(err.Error(), "f64") {
		t.Errorf("wrong declared type: %v", err)
	}
}
