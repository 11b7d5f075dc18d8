package onnx

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
)

// corpora gives the folder of the shared models, or skips.
func corpora(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: the shared models are needed")
	}
	return dir
}

// TestRealModels reads every real model: each becomes a verified graph or names the operator that is missing.
func TestRealModels(t *testing.T) {
	dir := corpora(t)
	var files []string
	for _, p := range []string{"models/*/model.onnx", "models-sklearn/*/model.onnx"} {
		m, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(p)))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, m...)
	}
	if len(files) < 60 {
		t.Fatalf("only %d models in %s", len(files), dir)
	}
	ok := 0
	for _, f := range files {
		_, err := Read(context.Background(), f)
		var u *frontend.UnsupportedError
		switch {
		case err == nil:
			ok++
		case errors.As(err, &u):
			t.Logf("%s: %v", filepath.Base(filepath.Dir(f)), err)
		default:
			t.Errorf("%s: %v", filepath.Base(filepath.Dir(f)), err)
		}
	}
	if ok < 50 {
		t.Errorf("only %d of %d models could be read", ok, len(files))
	}
}
