package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

// layout packs an example into an OCI layout folder and returns its digest.
func layout(t *testing.T, dir string, row []float32) string {
	t.Helper()
	ctx := t.Context()
	raw, err := examples.BreastCancer.ReadFile("breast-cancer/v1/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(ctx, build.Source{Path: "model.onnx", Data: raw}, build.Options{Name: "churn", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(ctx, engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	loaded, err := e.Load(ctx, m.Code, engine.WeightsSource{}, m.Interface)
	if err != nil {
		t.Fatal(err)
	}
	in := edge.Of(row, 1, int64(len(row)))
	outs, err := loaded.Run(ctx, []engine.Tensor{in})
	if err != nil {
		t.Fatal(err)
	}
	v := artifact.GoldenVector{Name: "row", Inputs: []artifact.GoldenTensor{probe.ToGolden(m.Interface.Inputs[0].Name, in)}}
	for i, o := range outs {
		v.Expected = append(v.Expected, probe.ToGolden(m.Interface.Outputs[i].Name, o))
	}
	put := func(b []byte) artifact.Digest {
		d := artifact.DigestOf(b)
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Hex()), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	doc := func(v any) []byte {
		b, err := artifact.Canonical(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	var layers []artifact.Layer
	for _, x := range []struct {
		path string
		role artifact.Role
		data []byte
	}{{"golden.json", artifact.RoleGolden, doc(artifact.Golden{Schema: artifact.GoldenSchema, Vectors: []artifact.GoldenVector{v}})},
		{"interface.json", artifact.RoleInterface, doc(m.Interface)}, {"model.wasm", artifact.RoleModule, m.Code}} {
		l := artifact.Layer{Role: x.role, Path: x.path, Digest: put(x.data), Size: int64(len(x.data))}
		switch x.role {
		case artifact.RoleModule:
			l.Target = artifact.TargetAny
		case artifact.RoleGolden:
			l.Personal = artifact.PersonalNone
		}
		layers = append(layers, l)
	}
	manifest, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: "1"}}, layers, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(put(manifest))
}

func TestEmbed(t *testing.T) {
	dir, row := t.TempDir(), make([]float32, 30)
	digest := layout(t, dir, row)
	out, err := predict(t.Context(), dir, digest, row)
	if err != nil || len(out) == 0 {
		t.Fatalf("%v, %v", out, err)
	}
	if _, err := predict(t.Context(), dir, "v1", row); err == nil {
		t.Error("a tag was taken for a digest")
	}
	// One byte of any file, the manifest too, and nothing is loaded.
	files, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := predict(t.Context(), dir, digest, row); err == nil {
			t.Errorf("%s was changed and loaded", filepath.Base(f))
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The page shows the function as it is compiled here.
func TestDocsShowTheExample(t *testing.T) {
	src, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/edge.md")
	if err != nil {
		t.Fatal(err)
	}
	_, fn, ok := strings.Cut(string(src), "\nfunc predict(")
	if !ok || !strings.Contains(strings.ReplaceAll(string(page), "\r", ""), "func predict("+strings.TrimSpace(strings.ReplaceAll(fn, "\r", ""))) {
		t.Error("docs/edge.md shows another function than examples/embed/main.go")
	}
}
