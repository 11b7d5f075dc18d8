package jsbundle

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

// world is an artifact in memory, and the engine that says what it answers.
type world struct {
	manifest []byte
	blobs    map[artifact.Digest][]byte
	iface    *artifact.Interface
	golden   artifact.Golden
	model    *engine.Model
}

// Blob implements Source.
func (w *world) Blob(_ context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	b, ok := w.blobs[d.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// packed makes an artifact of a compiled model and records golden vectors with these calls.
func packed(t *testing.T, m *build.Model, calls ...[]artifact.GoldenTensor) *world {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	var weights engine.WeightsSource
	if m.Weights != nil {
		weights.Path = filepath.Join(t.TempDir(), "weights.bin")
		if err := os.WriteFile(weights.Path, m.Weights, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{iface: m.Interface, blobs: map[artifact.Digest][]byte{}}
	if w.model, err = e.Load(t.Context(), m.Code, weights, m.Interface); err != nil {
		t.Fatal(err)
	}
	w.golden.Schema = artifact.GoldenSchema
	for _, in := range calls {
		out, err := probe.Call(t.Context(), w.model, in)
		if err != nil {
			t.Fatal(err)
		}
		w.golden.Vectors = append(w.golden.Vectors, artifact.GoldenVector{Name: "v", Inputs: in, Expected: out})
	}
	golden, err := artifact.Canonical(w.golden)
	if err != nil {
		t.Fatal(err)
	}
	iface, err := artifact.Canonical(m.Interface)
	if err != nil {
		t.Fatal(err)
	}
	var ls []artifact.Layer
	add := func(role artifact.Role, path string, b []byte) {
		l := artifact.Layer{Role: role, Path: path, Digest: artifact.DigestOf(b), Size: int64(len(b))}
		if role == artifact.RoleModule {
			l.Target = artifact.TargetAny
		}
		if role == artifact.RoleGolden {
			l.Personal = artifact.PersonalNone
		}
		w.blobs[l.Digest] = b
		ls = append(ls, l)
	}
	add(artifact.RoleModule, m.Interface.Module.Path, m.Code)
	if m.Weights != nil {
		add(artifact.RoleWeights, m.Interface.Weights.Path, m.Weights)
	}
	add(artifact.RoleInterface, "waybill.interface.json", iface)
	if len(calls) > 0 {
		add(artifact.RoleGolden, "golden.json", golden)
	}
	if w.manifest, _, err = artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: m.Interface.Name, Version: m.Interface.Version}}, ls, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// row is one patient of the breast-cancer example.
func row(fill float32) []artifact.GoldenTensor {
	v := make([]float32, 30)
	for i := range v {
		v[i] = fill + float32(i)*0.37
	}
	return []artifact.GoldenTensor{probe.ToGolden("x", engine.Of(v, 1, 30))}
}

// example is the artifact of an example, with two golden vectors.
func example(t *testing.T) *world {
	t.Helper()
	onnx, err := examples.BreastCancer.ReadFile("breast-cancer/v1/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(t.Context(), build.Source{Path: "model.onnx", Data: onnx}, build.Options{Name: "churn", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	calls := [][]artifact.GoldenTensor{row(1), row(-2.5)}
	for i := range calls {
		calls[i][0].Name = m.Interface.Inputs[0].Name
	}
	return packed(t, m, calls...)
}

// server answers with the runtime itself.
func (w *world) server(t *testing.T) string {
	t.Helper()
	return w.serverWith(t, serve.Config{}, keep{w.model})
}

// serverWith answers within other bounds, or with another runner.
func (w *world) serverWith(t *testing.T, c serve.Config, r serve.Runner) string {
	t.Helper()
	s := serve.New(c)
	s.Swap(w.iface.Name, serve.Model{Digest: artifact.DigestOf(w.manifest), Runner: r})
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	return h.URL
}

// keep does not let the server close the model, which other tests use.
type keep struct{ *engine.Model }

func (keep) Close(context.Context) error { return nil }

// bundle builds the bundle of w.
func (w *world) bundle(t *testing.T, o Options) (*Bundle, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	b, err := Build(t.Context(), dir, w.manifest, w, o)
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

// ask sends a request and reads the answer.
func ask(t *testing.T, method, url string, header map[string]string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, b
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
