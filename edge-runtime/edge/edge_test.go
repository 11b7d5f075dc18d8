package edge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func runtimeFor(t *testing.T) *Runtime {
	t.Helper()
	r, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(t.Context()) })
	return r
}

func TestLoadProbePredict(t *testing.T) {
	dir, am := folder(t, "Neg", -1, 2)
	r := runtimeFor(t)
	m, err := r.Load(t.Context(), Dir(dir, am))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	out, busy, err := m.PredictTimed(t.Context(), map[string]Tensor{"x": Of([]float32{3, 0.5})})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := Values[float32](out["y"]); err != nil || v[0] != -3 || v[1] != -0.5 || busy <= 0 {
		t.Errorf("%v %v, %v", v, err, busy)
	}
	for _, in := range []map[string]Tensor{{}, {"z": Of([]float32{1})}, {"x": Of([]float32{1}), "z": Of([]float32{1})}} {
		var ie *engine.InputError
		if _, err := m.Predict(t.Context(), in); !errors.As(err, &ie) {
			t.Errorf("inputs %v: error %v", in, err)
		}
	}
}

// A device without golden vectors has proven nothing, and one changed byte of any layer is noticed.
func TestLoadRefuses(t *testing.T) {
	dir, am := folder(t, "Neg")
	m, err := runtimeFor(t).Load(t.Context(), Dir(dir, am))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "no golden vectors") {
		t.Errorf("probe: %v", err)
	}
	for _, l := range am.Layers {
		f := filepath.Join(dir, filepath.FromSlash(l.Path))
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-3] ^= 1
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := runtimeFor(t).Load(t.Context(), Dir(dir, am)); !errors.Is(err, engine.ErrIntegrity) {
			t.Errorf("%s altered: %v", l.Path, err)
		}
		b[len(b)-3] ^= 1
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range am.Layers {
		less := &artifact.Model{Layers: append(append([]artifact.Layer{}, am.Layers[:i]...), am.Layers[i+1:]...)}
		if _, err := runtimeFor(t).Load(t.Context(), Dir(dir, less)); err == nil {
			t.Errorf("loaded without %s", am.Layers[i].Path)
		}
	}
}
