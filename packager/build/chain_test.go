package build_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/project"
)

// chained compiles the example with steps around its model. The modules are never run here.
func chained(t *testing.T, steps string) (*artifact.Interface, *build.Model, error) {
	t.Helper()
	dir := copyExample(t)
	for _, n := range []string{"a.wasm", "b.wasm"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := filepath.Join(dir, project.FileName)
	b, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if i := strings.Index(text, "\nfeatures:"); i >= 0 { // the chain's first input has other columns
		text = text[:i+1]
	}
	if err := os.WriteFile(f, []byte(text+"\n"+steps), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := project.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	in, err := build.Read(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	m, err := in.Compile(t.Context(), codegen.Options{})
	if err != nil {
		return nil, nil, err
	}
	return m.Interface, m, nil
}

func names(ports []artifact.Port) string {
	var s []string
	for _, p := range ports {
		s = append(s, build.PortText(p))
	}
	return strings.Join(s, "; ")
}

func TestChain(t *testing.T) {
	plain, _, err := chained(t, "")
	if err != nil {
		t.Fatal(err)
	}
	in, label, prob := plain.Inputs[0].Name, plain.Outputs[0].Name, plain.Outputs[1].Name
	for _, c := range []struct{ what, steps, inputs, outputs string }{
		{"before", "steps: [{name: a, file: a.wasm, inputs: [{name: raw, type: f64, shape: [N, 30]}], outputs: [{name: " + in + ", type: f32, shape: [N, 30]}, {name: peak, type: f64, shape: [N]}]}]",
			"raw f64[N,30]", "peak f64[N]; " + names(plain.Outputs)},
		{"the same name before and behind", "steps: [{name: a, file: a.wasm, inputs: [" + in + "], outputs: [{name: " + in + ", type: f32, shape: [N, 30]}]}]",
			names(plain.Inputs), names(plain.Outputs)},
		{"after", "steps: [{name: b, file: b.wasm, when: after, inputs: [" + prob + "], outputs: [{name: best, type: i64, shape: [N]}]}]",
			names(plain.Inputs), names(plain.Outputs[:1]) + "; best i64[N]"},
		{"kept", "steps: [{name: b, file: b.wasm, when: after, inputs: [" + prob + ", " + label + "], keep: [" + prob + "], outputs: [{name: best, type: i64, shape: [N]}]}]",
			names(plain.Inputs), names(plain.Outputs[1:]) + "; best i64[N]"},
		{"replaced", "steps: [{name: b, file: b.wasm, when: after, inputs: [" + prob + "], outputs: [{name: " + prob + ", type: f32, shape: [N]}]}]",
			names(plain.Inputs), names(plain.Outputs[:1]) + "; " + prob + " f32[N]"},
		{"around, with another input", "steps: [{name: a, file: a.wasm, inputs: [" + in + "], outputs: [{name: " + in + ", type: f32, shape: [N, 30]}]}, " +
			"{name: b, file: b.wasm, when: after, inputs: [" + prob + ", {name: threshold, type: f32, shape: []}], outputs: [{name: over, type: bool, shape: [N]}]}]",
			names(plain.Inputs) + "; threshold f32[]", names(plain.Outputs[:1]) + "; over bool[N]"},
	} {
		f, m, err := chained(t, c.steps)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got := names(f.Inputs); got != c.inputs {
			t.Errorf("%s: inputs %s, want %s", c.what, got, c.inputs)
		}
		if got := names(f.Outputs); got != c.outputs {
			t.Errorf("%s: outputs %s, want %s", c.what, got, c.outputs)
		}
		if len(f.Steps) != len(m.Steps)+1 {
			t.Errorf("%s: %d steps, %d files", c.what, len(f.Steps), len(m.Steps))
		}
	}
	if _, _, err := chained(t, "steps: [{name: b, file: b.wasm, when: after, inputs: ["+prob+", "+label+"], outputs: [{name: y, type: f32}]}, {name: a, file: a.wasm, when: after, inputs: [y], outputs: [{name: z, type: f32}]}]"); err != nil {
		t.Error(err)
	}
}

func TestTokenizerRefused(t *testing.T) {
	dir := copyExample(t)
	f := filepath.Join(dir, project.FileName)
	b, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, "\nsteps:\n  - {name: words, builtin: text, config: {tokenizer: t.json}, inputs: [{name: text, type: string, shape: [N]}], outputs: [{name: ids, type: i64, shape: [N, L]}]}\n"...)
	if err := os.WriteFile(f, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "t.json"), []byte("{\n  \"model\": {\"type\": \"Letters\"}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := project.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = build.Read(t.Context(), p); diag.CodeOf(err) != diag.Unsupported || !strings.Contains(diag.Render(err), "t.json:2:21") ||
		!strings.Contains(err.Error(), "model.type") {
		t.Errorf("%v", err)
	}
}
