package trees_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// FuzzImportAndRun reads a file of any format, compiles what is a small model and runs it in the interpreter: no panic, and
// what was imported runs.
func FuzzImportAndRun(f *testing.F) {
	for _, n := range []string{"xgboost/testdata/depth0.json", "xgboost/testdata/categorical_onehot_ubj.ubj", "xgboost/testdata/v1.0_dart.model",
		"lightgbm/testdata/stump.txt", "lightgbm/testdata/linear_missing.txt", "lightgbm/testdata/categorical_zero.txt"} {
		b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(n)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := build.Import(build.Source{Path: "model", Data: b})
		if err != nil || len(g.Body.Params) != 1 || g.Body.Params[0].Name != "X" || len(g.Body.Nodes) > 50 {
			return
		}
		s := g.Body.Params[0].Type.Shape
		if s.Rank() != 2 || !s.Dims[1].IsStatic() || s.Dims[1].N > 1000 {
			return
		}
		x := make([]float64, 3*s.Dims[1].N)
		for i := range x {
			x[i] = []float64{0, math.NaN(), -1.5, 3, math.Inf(1)}[i%5]
		}
		in := ir.TensorVal(ir.FloatData(g.Body.Params[0].Type.DType, []int64{3, s.Dims[1].N}, x))
		if _, err := interp.Run(t.Context(), g, map[string]*ir.Val{"X": in}); err != nil {
			t.Error(err)
		}
		if _, err := codegen.Compile(g, codegen.Options{}); err != nil {
			t.Error(err)
		}
	})
}
