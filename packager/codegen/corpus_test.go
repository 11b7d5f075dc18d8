package codegen_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

func corpora(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: the shared models are needed")
	}
	return dir
}

// TestModels runs the real models against their reference outputs.
func TestModels(t *testing.T) {
	dir := corpora(t)
	for _, pat := range []string{"models/*", "models-sklearn/*"} {
		ms, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pat)))
		if err != nil || len(ms) == 0 {
			t.Fatalf("no models: %v", err)
		}
		sort.Strings(ms)
		for _, m := range ms {
			t.Run(filepath.Base(m), func(t *testing.T) { runCases(t, m, codegen.Options{}) })
		}
	}
}

// runCases compiles dir/model.onnx and compares every test_data_set.
func runCases(t *testing.T, dir string, opt codegen.Options) {
	g, err := onnx.Read(context.Background(), filepath.Join(dir, "model.onnx"))
	var uf *frontend.UnsupportedError
	if errors.As(err, &uf) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	res, err := codegen.Compile(g, opt)
	var uc *codegen.Unsupported
	if errors.As(err, &uc) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := compile(t, g, opt)
	sets, _ := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
	for _, s := range sets {
		ins, outs := readSet(t, g, s)
		got, err := m.run(ins...)
		if err != nil {
			t.Fatalf("%s: %v", filepath.Base(s), err)
		}
		for i, want := range outs {
			if want == nil {
				continue
			}
			if err := near(got[i], want, 1e-3, 1e-5); err != nil {
				t.Errorf("%s: output %d (%s): %v", filepath.Base(s), i, g.Body.Results[i].Name, err)
			}
		}
	}
	t.Logf("module %d bytes, weights %d, ctx %d, slices %d, needs %d", len(res.Module), len(res.Weights), res.CtxSize, m.mores, m.needs)
}

func readSet(t testing.TB, g *ir.Graph, dir string) (ins, outs []*ir.Data) {
	t.Helper()
	byName := map[string]*ir.Data{}
	var order []*ir.Data
	for i := 0; ; i++ {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("input_%d.pb", i)))
		if err != nil {
			break
		}
		name, d, err := onnx.ReadTensor(b)
		if err != nil {
			t.Fatal(err)
		}
		byName[name] = d
		order = append(order, d)
	}
	for i, p := range g.Body.Params {
		d := byName[p.Name]
		if d == nil && i < len(order) {
			d = order[i]
		}
		ins = append(ins, d)
	}
	for i := range g.Body.Results {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("output_%d.pb", i)))
		if err != nil {
			outs = append(outs, nil)
			continue
		}
		if g.Body.Results[i].Type.Kind != ir.Tensor {
			outs = append(outs, nil)
			continue
		}
		_, d, err := onnx.ReadTensor(b)
		if err != nil {
			t.Fatal(err)
		}
		outs = append(outs, d)
	}
	return
}

// near compares like numpy.allclose, strings and integers exactly.
func near(got, want *ir.Data, rtol, atol float64) error {
	if got.DType != want.DType {
		return fmt.Errorf("dtype %s, want %s", got.DType, want.DType)
	}
	if fmt.Sprint(got.Dims) != fmt.Sprint(want.Dims) {
		return fmt.Errorf("dims %v, want %v", got.Dims, want.Dims)
	}
	n := int(want.Len())
	worst, at := 0.0, -1
	for i := 0; i < n; i++ {
		switch {
		case want.DType == ir.String:
			if got.Strings[i] != want.Strings[i] {
				return fmt.Errorf("element %d is %q, want %q", i, got.Strings[i], want.Strings[i])
			}
		case want.DType == ir.F32 || want.DType == ir.F64:
			a, b := got.Float(i), want.Float(i)
			if math.IsNaN(a) && math.IsNaN(b) || a == b {
				continue
			}
			if e := math.Abs(a-b) - rtol*math.Abs(b); !(e <= atol) && !(e <= worst) {
				worst, at = e, i
			}
		default:
			if got.Int(i) != want.Int(i) {
				return fmt.Errorf("element %d is %d, want %d", i, got.Int(i), want.Int(i))
			}
		}
	}
	if at >= 0 {
		return fmt.Errorf("element %d is %v, want %v", at, got.Float(at), want.Float(at))
	}
	return nil
}
