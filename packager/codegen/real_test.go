package codegen_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/pass"
)

// realModels lists the folders of the real models.
func realModels(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(corpora(t), "models*", "*", "model.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for i := range files {
		files[i] = filepath.Dir(files[i])
	}
	return files
}

// compileCopy compiles a copy of a model in a new folder.
func compileCopy(t *testing.T, dir string, procs int) *codegen.Result {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	to := t.TempDir()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g, err := onnx.Read(context.Background(), filepath.Join(to, "model.onnx"))
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
	return res
}

// TestRealModelBytes compiles every real model in two folders, with one and with two threads: the bytes must be equal.
func TestRealModelBytes(t *testing.T) {
	for _, dir := range realModels(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			a, b := compileCopy(t, dir, 1), compileCopy(t, dir, 2)
			if !bytes.Equal(a.Module, b.Module) {
				t.Error("the modules differ")
			}
			if !bytes.Equal(a.Weights, b.Weights) || a.WeightsBase != b.WeightsBase {
				t.Error("the weights differ")
			}
		})
	}
}
