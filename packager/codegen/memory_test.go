package codegen_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/pass"
)

// TestPlansOfRealModels compares every real model's plan with its lower bound.
func TestPlansOfRealModels(t *testing.T) {
	for _, dir := range realModels(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			g, err := onnx.Read(context.Background(), filepath.Join(dir, "model.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			if err := pass.Run(context.Background(), g); err != nil {
				t.Fatal(err)
			}
			res, err := codegen.Compile(g, codegen.Options{Parallel: true})
			if err != nil {
				t.Fatal(err)
			}
			m := res.Memory
			ratio := 1.0
			if m.Bound > 0 {
				ratio = float64(m.Size) / float64(m.Bound)
			}
			t.Logf("arena %d, bound %d, ratio %.3f, %d values, exact %v, %d loose", m.Size, m.Bound, ratio, len(m.Values), m.Exact, len(m.Loose))
			if len(m.Loose) > 0 && len(m.Values) > len(m.Loose) {
				t.Logf("loose: %.40q", m.Loose)
			}
			if ratio > 1.1 {
				t.Errorf("the plan takes %d bytes where %d are in use at a time", m.Size, m.Bound)
			}
		})
	}
}
