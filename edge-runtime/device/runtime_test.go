package device

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

// An artifact that this program cannot run as it was meant: for a newer runtime, for a version that is none, for another ABI, with
// vectors of another schema. Signed or not, it is refused before a call; the same artifact without that one thing loads and answers.
func TestArtifactOfAnotherRuntime(t *testing.T) {
	raw, err := examples.BreastCancer.ReadFile("breast-cancer/v1/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(t.Context(), build.Source{Path: "model.onnx", Data: raw}, build.Options{Name: "churn", Version: "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(t.Context())
	rt := runtime{engine: e, cfg: &config.Engine{}}
	load := func(edit func(i *artifact.Interface), schema string) (agent.Model, error) {
		iface := *m.Interface
		edit(&iface)
		doc, err := artifact.Canonical(iface)
		if err != nil {
			t.Fatal(err)
		}
		golden, err := artifact.Canonical(artifact.Golden{Schema: schema, Vectors: []artifact.GoldenVector{}})
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{"model.wasm": m.Code, "interface.json": doc, "golden.json": golden}
		return rt.Load(t.Context(), agent.Bundle{
			Layers: []artifact.Layer{{Role: artifact.RoleGolden, Path: "golden.json"}, {Role: artifact.RoleInterface, Path: "interface.json"}, {Role: artifact.RoleModule, Path: "model.wasm"}},
			Read:   func(l artifact.Layer) ([]byte, error) { return files[l.Path], nil },
		})
	}
	sound := func(t *testing.T, edit func(i *artifact.Interface)) {
		t.Helper()
		x, err := load(edit, artifact.GoldenSchema)
		if err != nil {
			t.Fatalf("without it: %v", err)
		}
		if _, err := x.(*model).Run(t.Context(), []engine.Tensor{engine.Of(make([]float32, 30), 1, 30)}); err != nil {
			t.Errorf("without it: %v", err)
		}
		if err := x.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	same := func(*artifact.Interface) {}
	for name, c := range map[string]struct {
		edit, without func(i *artifact.Interface)
		schema        string
		want          string
	}{
		"a newer runtime":              {func(i *artifact.Interface) { i.MinRuntime = "99.0.0" }, func(i *artifact.Interface) { i.MinRuntime = "0.0.1" }, artifact.GoldenSchema, "needs waybill-edge 99.0.0"},
		"a version that is none":       {func(i *artifact.Interface) { i.MinRuntime = "next" }, same, artifact.GoldenSchema, "needs waybill-edge next"},
		"another ABI":                  {func(i *artifact.Interface) { i.ABI++ }, same, artifact.GoldenSchema, "of the ABI"},
		"no ABI":                       {func(i *artifact.Interface) { i.ABI = 0 }, same, artifact.GoldenSchema, "of the ABI"},
		"a document of another schema": {func(i *artifact.Interface) { i.Schema += "0" }, same, artifact.GoldenSchema, "interface document: schema"},
		"vectors of another schema":    {same, same, artifact.GoldenSchema + "0", "golden vectors: schema"},
	} {
		t.Run(name, func(t *testing.T) {
			if x, err := load(c.edit, c.schema); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
				if err == nil {
					_ = x.Close(t.Context())
				}
			}
			sound(t, c.without)
		})
	}
}
