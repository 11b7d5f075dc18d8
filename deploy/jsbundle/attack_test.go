package jsbundle

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

// other is the module of another model with the same interface.
func other(t *testing.T) *build.Model {
	t.Helper()
	onnx, err := examples.BreastCancer.ReadFile("breast-cancer/v2/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(t.Context(), build.Source{Path: "model.onnx", Data: onnx}, build.Options{Name: "churn", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// edit alters a file of a bundle.
func edit(t *testing.T, dir, name string, f func(b []byte) []byte) {
	t.Helper()
	p := filepath.Join(dir, name)
	raw, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	out := f(bytes.Clone(raw))
	if bytes.Equal(out, raw) {
		t.Fatalf("%s was not altered", name)
	}
	if err := os.WriteFile(p, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

func replaced(from, to string) func(b []byte) []byte {
	return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(from), []byte(to)) }
}

// A bundle of which a part was exchanged does not run in Node; with the check taken out it does.
func TestNodeRefuses(t *testing.T) {
	node := tool(t, "node")
	w := example(t)
	evil := other(t)
	module := func([]byte) []byte { return evil.Code }
	for _, c := range []struct {
		name, file string
		f          func(b []byte) []byte
		want       string
	}{
		{"module", "model.wasm", module, "the module has digest"},
		{"interface", "interface.json", replaced(`"version": "1.0.0"`, `"version": "1.0.1"`), "interface.json has digest"},
		{"manifest", "manifest.json", replaced("waybill.interface.json", "waybill.interface.jsom"), "manifest.json has digest"},
		{"golden vectors", "golden.json", replaced(`"name": "v"`, `"name": "w"`), "golden.json has digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, dir := w.bundle(t, Options{})
			edit(t, dir, c.file, c.f)
			out, err := exec.CommandContext(t.Context(), node, filepath.Join(dir, "node.mjs"), "--listen", "127.0.0.1:0").CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "listening") {
				t.Errorf("%v: %s, want %q", err, out, c.want)
			}
		})
	}
	t.Run("another artifact than the caller wants", func(t *testing.T) {
		_, dir := w.bundle(t, Options{})
		script := `import('./node.mjs').then((m) => m.load({ digest: 'sha256:` + strings.Repeat("0", 64) + `' })).then(() => console.log('loaded'), (e) => console.log(e.message));`
		cmd := exec.CommandContext(t.Context(), node, "-e", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "manifest.json has digest") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("without the check", func(t *testing.T) {
		_, dir := w.bundle(t, Options{})
		edit(t, dir, "model.wasm", module)
		edit(t, dir, "waybill.mjs", replaced("if (got !== want)", "if (false)"))
		edit(t, dir, "node.mjs", replaced("prove: Boolean(facts.golden)", "prove: false"))
		url, _ := nodeServer(t, dir)
		if status, differs := answer(t, w, url); status != http.StatusOK || !differs {
			t.Errorf("the exchanged module answers %d, other bits: %v: the check protects nothing", status, differs)
		}
	})
}

// answer asks for the first golden vector.
func answer(t *testing.T, w *world, url string) (status int, differs bool) {
	t.Helper()
	v := w.golden.Vectors[0]
	h, body := request(t, v.Inputs)
	status, head, b := ask(t, http.MethodPost, url+"/v2/models/churn/infer", h, body)
	if status != http.StatusOK {
		return status, false
	}
	var want []byte
	for _, g := range v.Expected {
		x, err := probe.FromGolden(g)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, x.Data...)
	}
	return status, !bytes.Equal(b[atoi(t, head.Get("Inference-Header-Content-Length")):], want)
}

// A Worker with another module, which it cannot see, never answers; with the proof taken out it does. Documents are checked by digest.
func TestWorkerRefuses(t *testing.T) {
	tool(t, os.Getenv("WAYBILL_WORKERD"), "workerd")
	w := example(t)
	evil := other(t)
	module := func([]byte) []byte { return evil.Code }
	refused := func(t *testing.T, dir string) {
		t.Helper()
		url, log := workerd(t, dir)
		for range 2 { // it does not come round
			if status, _ := answer(t, w, url); status != http.StatusServiceUnavailable {
				t.Errorf("it answers %d: %s", status, log)
			}
		}
		if status, _, b := ask(t, http.MethodGet, url+"/v2/health/ready", nil, nil); status != http.StatusServiceUnavailable {
			t.Errorf("ready: %d %s", status, b)
		}
	}
	for _, c := range []struct {
		file string
		f    func(b []byte) []byte
	}{
		{"model.wasm", module},
		{"interface.json", replaced(`"version": "1.0.0"`, `"version": "1.0.1"`)},
		{"manifest.json", replaced("waybill.interface.json", "waybill.interface.jsom")},
		{"golden.json", replaced(`"name": "v"`, `"name": "w"`)},
		{"artifact.mjs", replaced(string(artifact.DigestOf(w.manifest)), string(artifact.DigestOf(nil)))},
	} {
		t.Run(c.file, func(t *testing.T) {
			_, dir := w.bundle(t, Options{})
			edit(t, dir, c.file, c.f)
			refused(t, dir)
		})
	}
	t.Run("without the proof", func(t *testing.T) {
		_, dir := w.bundle(t, Options{})
		edit(t, dir, "model.wasm", module)
		edit(t, dir, "bundle.mjs", replaced("if (compiled || prove)", "if (false)"))
		url, _ := workerd(t, dir)
		if status, differs := answer(t, w, url); status != http.StatusOK || !differs {
			t.Errorf("the exchanged module answers %d, other bits: %v: the proof protects nothing", status, differs)
		}
	})
}
