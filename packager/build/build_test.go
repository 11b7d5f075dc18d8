package build_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/project"
)

// oracleRunner answers with the reference interpreter, changed by alter: what runs modules is not this package's
// business, so the tests bring a second interpreter and break it where they want to see a refusal. The real engine is
// driven by internal/cli's scripts.
type oracleRunner struct {
	t     *testing.T
	graph *ir.Graph
	alter func([]artifact.GoldenTensor)
}

func (o oracleRunner) Run(ctx context.Context, m build.Module, calls [][]artifact.GoldenTensor) ([][]artifact.GoldenTensor, error) {
	var out [][]artifact.GoldenTensor
	for _, c := range calls {
		ins := map[string]*ir.Val{}
		for _, t := range c {
			ins[t.Name] = ir.TensorVal(&ir.Data{DType: ir.DTypeByName(t.DType), Dims: t.Shape, Bytes: t.Data, Strings: t.Strings})
		}
		got, err := interp.Run(ctx, o.graph, ins)
		if err != nil {
			return nil, err
		}
		var res []artifact.GoldenTensor
		for _, p := range m.Interface.Outputs {
			d := got[p.Name].Tensor
			res = append(res, artifact.GoldenTensor{Name: p.Name, Kind: "tensor", DType: d.DType.String(), Shape: d.Dims, Data: append([]byte{}, d.Bytes...), Strings: d.Strings})
		}
		if o.alter != nil {
			o.alter(res)
		}
		out = append(out, res)
	}
	return out, nil
}

func load(t *testing.T, dir string) (*build.Input, *build.Model, *build.Vectors) {
	t.Helper()
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
		t.Fatal(err)
	}
	v, err := in.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	return in, m, v
}

const example = "../../examples/breast-cancer/v1"

func copyExample(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a copy with spaces")
	if err := os.CopyFS(dir, os.DirFS(example)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The same project gives the same manifest in another folder and another store, and the bundle reads back strictly.
func TestReproducible(t *testing.T) {
	var digests []artifact.Digest
	for _, dir := range []string{example, copyExample(t)} {
		in, m, v := load(t, dir)
		rec, err := build.Record(t.Context(), m, v, nil, oracleRunner{t: t, graph: &m.Source})
		if err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"), store.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		packed, err := build.Pack(t.Context(), in, m, rec.Doc(), st, build.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, packed.Digest)
		if packed.Ref != "breast-cancer:1.0.0" || packed.Files != 5 {
			t.Errorf("packed %+v", packed)
		}
		d, err := st.Resolve(t.Context(), packed.Ref)
		if err != nil || d.Digest != packed.Digest {
			t.Fatalf("tag: %v %v", d, err)
		}
		b, _, err := st.Manifest(t.Context(), packed.Digest)
		if err != nil {
			t.Fatal(err)
		}
		model, err := artifact.ParseModel(b)
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, l := range model.Layers {
			paths = append(paths, l.Path+"="+string(l.Role)+"="+l.Personal)
		}
		if got := strings.Join(paths, " "); got != "docs/MODEL_CARD.md=doc= golden.json=golden=none interface.json=interface= module.wasm=module= source/model.onnx=source=none" {
			t.Errorf("layers: %s", got)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("two folders, two digests: %s and %s", digests[0], digests[1])
	}
}

// A single bit between module and interpreter, or more than the tolerance between module and framework, stops pack.
func TestRecordRefuses(t *testing.T) {
	_, m, v := load(t, example)
	flip := func(out []artifact.GoldenTensor) { out[1].Data[0] ^= 1 }
	_, err := build.Record(t.Context(), m, v, nil, oracleRunner{t: t, graph: &m.Source, alter: flip})
	if err == nil || !strings.Contains(err.Error(), "differs from the reference interpreter") {
		t.Errorf("one bit: %v", err)
	}
	tight := []artifact.Tolerance{{Output: "probabilities"}}
	_, err = build.Record(t.Context(), m, v, tight, oracleRunner{t: t, graph: &m.Source})
	if err == nil || !strings.Contains(diag.Render(err), "differs from the framework's own") {
		t.Errorf("tolerance zero: %v", err)
	}
	_, err = build.Record(t.Context(), m, v, []artifact.Tolerance{{Output: "probs"}}, oracleRunner{t: t, graph: &m.Source})
	if diag.CodeOf(err) != diag.Usage {
		t.Errorf("tolerance of no output: %v", err)
	}
	rec, err := build.Record(t.Context(), m, v, nil, oracleRunner{t: t, graph: &m.Source})
	if err != nil {
		t.Fatal(err)
	}
	if rec.Vectors != 4 || rec.References != 4 || len(rec.Worst) != 2 || rec.Worst[1].MaxAbs == 0 || rec.Worst[1].MaxAbs > 1e-6 {
		t.Errorf("recorded %+v", rec.Worst)
	}
	for _, g := range rec.Golden.Vectors {
		if len(g.Expected) != 2 || len(g.Reference) != 2 || len(g.Tolerance) != 2 {
			t.Errorf("vector %s is not complete", g.Name)
		}
	}
}

func TestProjectFacts(t *testing.T) {
	dir := copyExample(t)
	b, err := os.ReadFile(filepath.Join(dir, project.FileName))
	if err != nil {
		t.Fatal(err)
	}
	add := func(s string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, project.FileName), append(append([]byte{}, b...), s...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add("limits: {timeout: 250ms, max_batch: 64, memory: 1MiB}\nowner: someone\nepoch: 2\n")
	in, m, _ := load(t, dir)
	if m.Interface.Limits != (artifact.Limits{TimeoutMS: 250, MaxBatch: 64}) || len(m.Interface.Inputs[0].Columns) != 30 {
		t.Errorf("interface %+v", m.Interface)
	}
	if m.Interface.Memory.Max != 1<<20 {
		t.Errorf("the host may give %d bytes, the limit is 1 MiB", m.Interface.Memory.Max)
	}
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"), store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	p, err := build.Pack(t.Context(), in, m, nil, st, build.PackOptions{WithoutSource: true, Tag: "x"})
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := st.Manifest(t.Context(), p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	model, err := artifact.ParseModel(raw)
	if err != nil || model.Manifest.Annotations[build.AnnotationEpoch] != "2" || p.Ref != "breast-cancer:x" || len(model.ByRole(artifact.RoleDoc)) != 1 || len(model.ByRole(artifact.RoleSource)) != 0 {
		t.Errorf("%v %+v", err, model)
	}

	for s, want := range map[string]string{
		"state: [{input: X, output: label}]\n":                                                                                                                                                   "output \"label\" is label i64",
		"state: [{input: Z, output: label}]\n":                                                                                                                                                   "state of input \"Z\": the model has no such input",
		"steps: [{name: a, file: golden.json, inputs: [zzz], outputs: [{name: y, type: f32}]}]\n":                                                                                                "neither an output of what runs before it nor declared with a type",
		"steps: [{name: a, file: golden.json, inputs: [{name: r, type: f64}], outputs: [{name: X, type: string, shape: [N, 30]}]}]\n":                                                            "does not fit the value of that name",
		"steps: [{name: a, file: golden.json, inputs: [{name: r, type: f64}], outputs: [{name: X, type: f32, shape: [N, 7]}]}]\n":                                                                "does not fit the value of that name",
		"steps: [{name: a, file: golden.json, when: after, inputs: [label, probabilities], outputs: [{name: y, type: f32}], keep: [labels]}]\n":                                                  "keep: \"labels\" is no input",
		"steps: [{name: a, file: nope.wasm, when: after, inputs: [label], outputs: [{name: y, type: f32}]}]\n":                                                                                   "nope.wasm does not exist",
		"steps: [{name: a, file: golden.json, when: after, inputs: [label], outputs: [{name: y, type: f32}]}, {name: b, file: golden.json, inputs: [label], outputs: [{name: y, type: f32}]}]\n": "stands behind one that runs after",
		"limits: {memory: 1kB}\n":                                "limits.memory is 1000 bytes, the model takes at least",
		"owner: x\nlimits: {max_batch: 1}\nmetrics: nope.json\n": "nope.json does not exist",
	} {
		add(s)
		err := func() error {
			p, err := project.Load(dir)
			if err != nil {
				return err
			}
			in, err := build.Read(t.Context(), p)
			if err != nil {
				return err
			}
			_, err = in.Compile(t.Context(), codegen.Options{})
			return err
		}()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	model, err := os.ReadFile(filepath.Join(example, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		code diag.Code
	}{
		{"cut.onnx", model[:len(model)-1], diag.Failure},
		{"empty.onnx", nil, diag.Usage},
		{"text.txt", []byte("hello\n"), diag.Usage},
		{"model.gguf", []byte("GGUF\x03\x00\x00\x00"), diag.Unsupported},
		{"p.onnx", []byte("version https://git-lfs.github.com/spec/v1\n"), diag.Usage},
	} {
		if _, err := build.Import(build.Source{Path: c.name, Data: c.data}); diag.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// Every truncation is an error or a model, never a crash.
	for i := 0; i < len(model); i += 37 {
		_, _ = build.Compile(t.Context(), build.Source{Path: "cut.onnx", Data: model[:i]}, build.Options{Name: "x", Version: "1"})
	}
}

func FuzzParseVectors(f *testing.F) {
	f.Add([]byte(`{"schema":"https://github.com/waybill-ml/waybill/schema/vectors/v1","vectors":[{"name":"a","inputs":[{"name":"Y","datatype":"FP32","shape":[1],"data":[1]}]}]}`))
	f.Add([]byte(`{"schema":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := build.ParseVectors(b)
		if err == nil && len(v.Vectors) == 0 {
			t.Error("no vectors and no error")
		}
	})
}
