package bounds_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
)

// exactly checks that a graph runs within the memory that its interface document states, and not with a page less. It reports
// whether the document states it exactly.
func exactly(t *testing.T, g *ir.Graph) bool {
	t.Helper()
	res, err := codegen.Compile(g, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mem := build.MemoryOf(g, res)
	if !mem.Exact {
		return false
	}
	var ins []engine.Tensor
	for _, v := range g.Body.Params {
		d, _ := v.Type.Shape.Static()
		n, _ := ir.Elements(d)
		ins = append(ins, engine.Tensor{DType: abi.DType(v.Type.DType), Shape: d, Data: make([]byte, (int(n)*v.Type.DType.Bits()+7)/8)})
	}
	if _, err := loadMemory(t, g, engine.Config{MemoryLimit: mem.Max}, mem).Run(t.Context(), ins); err != nil {
		t.Errorf("with %d bytes: %v", mem.Max, err)
	}
	if mem.Planned <= abi.PageSize {
		return true // the least arena that a host gives is more
	}
	_, err = loadMemory(t, g, engine.Config{MemoryLimit: mem.Max - abi.PageSize}, mem).Run(t.Context(), ins)
	if !errors.Is(err, engine.ErrMemoryLimit) {
		t.Errorf("with %d bytes: %v, want %v", mem.Max-abi.PageSize, err, engine.ErrMemoryLimit)
	}
	return true
}

func TestMemoryIsExact(t *testing.T) {
	for _, size := range []int64{1, 64, 127, 128, 1000} {
		b := ir.NewBuilder()
		x := b.Param("x", ir.TensorOf(ir.F32, ir.StaticShape(size, size)))
		k := b.Param("k", ir.TensorOf(ir.I8, ir.StaticShape(size)))
		y := b.Op("p", "MatMul", nil, x, b.Op("t", "Transpose", ir.Attrs{"perm": []int{1, 0}}, x))
		y = b.Op("e", "Exp", nil, b.Op("a", "Add", nil, y, b.Op("f", "Cast", ir.Attrs{"to": ir.F32}, k)))
		g, err := b.Graph("g", y, x)
		if err != nil {
			t.Fatal(err)
		}
		if !exactly(t, g) {
			t.Errorf("size %d: not exact", size)
		}
	}
	b := ir.NewBuilder()
	g, err := b.Graph("g", b.Op("y", "Neg", nil, b.Param("x", ir.TensorOf(ir.F32, ir.ShapeOf(ir.Symbol("N"))))))
	if err != nil {
		t.Fatal(err)
	}
	if exactly(t, g) {
		t.Error("exact whatever N is")
	}
}

// TestMemoryOfRealModelsIsExact does the same with all real models of static shape.
func TestMemoryOfRealModelsIsExact(t *testing.T) {
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: the shared models are needed")
	}
	files, err := filepath.Glob(filepath.Join(dir, "models*", "*", "model.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no models: %v", err)
	}
	exact := 0
	for _, f := range files {
		t.Run(filepath.Base(filepath.Dir(f)), func(t *testing.T) {
			g, err := onnx.Read(context.Background(), f)
			if err != nil {
				t.Fatal(err)
			}
			if err := pass.Run(context.Background(), g); err != nil {
				t.Fatal(err)
			}
			if exactly(t, g) {
				exact++
			}
		})
	}
	t.Logf("%d of %d models state their memory exactly", exact, len(files))
	if exact < 10 {
		t.Error("too few to show anything")
	}
}
