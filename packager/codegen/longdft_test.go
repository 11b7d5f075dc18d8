package codegen_test

import (
	"math"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestLongDFT transforms an impulse of 4,100 elements, which takes two stages: a circle, whose points are known.
func TestLongDFT(t *testing.T) {
	once.Skip(t)
	const n = 4100
	x := make([]float32, n)
	x[1] = 1
	var want []float64
	for k := 0; k < n; k++ {
		s, c := math.Sincos(2 * math.Pi * float64(k) / n)
		want = append(want, c, -s)
	}
	composed{op: "DFT", opset: 17, attrs: map[string]any{"axis": 1}, fixed: true, ins: []*ir.Data{f32([]int64{1, n, 1}, x...)}, want: [][]float64{want}}.run(t)
}
