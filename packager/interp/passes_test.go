package interp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
)

// TestPassesKeepBits runs models before and after the passes: every output must have the same bits.
func TestPassesKeepBits(t *testing.T) {
	dir := corpora(t)
	files, err := filepath.Glob(filepath.Join(dir, "models*", "*", "model.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		if slices.Contains(slow, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var graphs []*ir.Graph
			for i := 0; i < 2; i++ {
				g, err := onnx.Read(context.Background(), f)
				var u *frontend.UnsupportedError
				if errors.As(err, &u) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				graphs = append(graphs, g)
			}
			if err := pass.Run(context.Background(), graphs[1]); err != nil {
				t.Fatal(err)
			}
			in := readInputs(t, graphs[0], filepath.Join(filepath.Dir(f), "test_data_set_0"))
			var outs []map[string]*ir.Val
			for _, g := range graphs {
				out, err := interp.Run(context.Background(), g, in)
				if err != nil {
					t.Fatal(err)
				}
				outs = append(outs, out)
			}
			for n := range outs[0] {
				if err := same(outs[0][n], outs[1][n]); err != nil {
					t.Errorf("output %q: %v", n, err)
				}
			}
		})
	}
}

func readInputs(t *testing.T, g *ir.Graph, set string) map[string]*ir.Val {
	t.Helper()
	in := map[string]*ir.Val{}
	for i, p := range g.Body.Params {
		b, err := os.ReadFile(filepath.Join(set, fmt.Sprintf("input_%d.pb", i)))
		if err != nil {
			t.Fatal(err)
		}
		name, v, err := onnx.ReadValue(b, p.Type)
		if err != nil {
			t.Fatalf("%s: input %q: %v", set, p.Name, err)
		}
		// Some vectors are numbered in another order than the model's inputs: the name inside decides.
		if !hasInput(g, name) {
			name = p.Name
		}
		in[name] = v
	}
	return in
}

// same compares values bit for bit.
func same(a, b *ir.Val) error {
	if a == nil || b == nil || a.Kind != b.Kind || len(a.Elems) != len(b.Elems) {
		return errors.New("different kinds or lengths")
	}
	for i := range a.Elems {
		if err := same(a.Elems[i], b.Elems[i]); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	if a.Tensor == nil {
		return nil
	}
	if a.Tensor.DType != b.Tensor.DType || !slices.Equal(a.Tensor.Dims, b.Tensor.Dims) || !slices.Equal(a.Tensor.Bytes, b.Tensor.Bytes) ||
		!slices.Equal(a.Tensor.Strings, b.Tensor.Strings) {
		return errors.New("different bits")
	}
	return nil
}
