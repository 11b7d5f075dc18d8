package project

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/steps"
)

const minimal = "name: churn\nversion: 1.10\nlicense: apache-2.0\nmodel: model.onnx\n"

func TestMinimal(t *testing.T) {
	p, err := Parse("waybill.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := Project{File: "waybill.yaml", Name: "churn", Version: "1.10", License: "Apache-2.0",
		Model: File{Path: "model.onnx", Loc: diag.Loc{File: "waybill.yaml", Line: 4, Col: 8}}, Compile: true}
	p.files = nil
	if !reflect.DeepEqual(*p, want) {
		t.Errorf("got %+v", p)
	}
}

func TestEverything(t *testing.T) {
	p, err := Parse("waybill.yaml", []byte(minimal+`owner: fraud team
epoch: 3
personal_data: none
golden:
  file: ./tests/golden.json
  personal_data: "yes"
  tolerance:
    - output: probabilities
      atol: 1e-6
steps:
  - name: tokenize
    file: steps/tokenize.wasm
    reentrant: true
    inputs:
      - {name: text, type: string, shape: [N]}
    outputs:
      - {name: ids, type: i64, shape: [N, -1]}
      - {name: count, type: i64, shape: []}
  - name: top
    file: steps/top.wasm
    when: after
    inputs: [probabilities, {name: extra, type: f32}]
    outputs: [{name: best, type: f32, shape: [N, 3]}]
    keep: [probabilities]
features: [age, income, 7]
metrics: evaluation.json
datasets: dataset.json
state:
  - {input: h, output: h_out, init: -0.5}
  - {input: c, output: c_out, init: state/c.json}
docs: [README.md]
limits:
  timeout: 250ms
  max_batch: 64
  dims: {seq: 128, "unk__1": 7}
`))
	if err != nil {
		t.Fatal(err)
	}
	if p.Owner != "fraud team" || p.Epoch != 3 || p.Model.PersonalData != "none" || p.Golden.PersonalData != "yes" ||
		p.Golden.Path != "tests/golden.json" || !reflect.DeepEqual(p.Golden.Tolerance, []artifact.Tolerance{{Output: "probabilities", ATol: 1e-6}}) ||
		p.Steps[0].Name != "tokenize" || !reflect.DeepEqual(strip(p.Steps), wantSteps) || strings.Join(p.Features, " ") != "age income 7" || p.State[0].Output != "h_out" ||
		p.State[0].Fill != -0.5 || p.State[1].File != "state/c.json" || p.Limits.Timeout != 250*time.Millisecond || p.Limits.MaxBatch != 64 ||
		len(p.Limits.Dims) != 2 || p.Limits.Dims[0].Symbol != "seq" || p.Limits.Dims[0].Max != 128 || p.Limits.Dims[1].Symbol != "unk__1" || p.Docs[0] != "README.md" {
		t.Errorf("got %+v %+v", p, p.Golden)
	}
	if len(p.files) != 8 {
		t.Errorf("files: %v", p.files)
	}
}

func TestDeclared(t *testing.T) {
	p, err := Parse("waybill.yaml", []byte(minimal+`owner: fraud team <fraud@example.com>
risk: high
status: active
trained: 2026-10-01
base_models:
  - {name: base, version: 2, digest: "sha256:`+strings.Repeat("9", 64)+`", license: apache-2.0, uri: "https://models.example/base"}
  - name: teacher
considerations:
  users: [analysts]
  fairness:
    - {group: new customers, harms: fewer offers, mitigation: floor}
    - group: others
  energy: [{activity: training, kwh: 12.5}, {activity: inference, kwh: 0}]
  oversight: a person reads each refusal
`))
	if err != nil {
		t.Fatal(err)
	}
	trained := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	if p.Risk != "high" || p.Status != "active" || !p.Trained.Equal(trained) {
		t.Errorf("%+v", p)
	}
	want := []BaseModel{{"base", "2", artifact.Digest("sha256:" + strings.Repeat("9", 64)), "Apache-2.0", "https://models.example/base"}, {Name: "teacher"}}
	if !reflect.DeepEqual(p.BaseModels, want) {
		t.Errorf("%+v", p.BaseModels)
	}
	if c := p.Considerations; !reflect.DeepEqual(c.Fairness, []Fairness{{"new customers", "fewer offers", "floor"}, {Group: "others"}}) ||
		!reflect.DeepEqual(c.Energy, []Energy{{"training", 12.5}, {"inference", 0}}) || c.Oversight != "a person reads each refusal" {
		t.Errorf("%+v", c)
	}
	if p, err := Parse("waybill.yaml", []byte(minimal+"trained: \"2026-10-01T14:00:00+02:00\"\n")); err != nil || !p.Trained.Equal(trained.Add(12*time.Hour)) {
		t.Errorf("%v %+v", err, p)
	}
}

var wantSteps = []Step{
	{Name: "tokenize", File: "steps/tokenize.wasm", Reentrant: true,
		Inputs: []StepPort{{Name: "text", DType: "string", Ranked: true, Shape: []artifact.Dim{{Size: -1, Sym: "N"}}}},
		Outputs: []StepPort{{Name: "ids", DType: "i64", Ranked: true, Shape: []artifact.Dim{{Size: -1, Sym: "N"}, {Size: -1}}},
			{Name: "count", DType: "i64", Ranked: true, Shape: []artifact.Dim{}}}},
	{Name: "top", File: "steps/top.wasm", After: true, Inputs: []StepPort{{Name: "probabilities"}, {Name: "extra", DType: "f32"}},
		Outputs: []StepPort{{Name: "best", DType: "f32", Ranked: true, Shape: []artifact.Dim{{Size: -1, Sym: "N"}, {Size: 3}}}},
		Keep:    []string{"probabilities"}},
}

// strip drops the positions.
func strip(in []Step) []Step {
	var out []Step
	for _, s := range in {
		s.Loc = diag.Loc{}
		for _, ports := range [][]StepPort{s.Inputs, s.Outputs} {
			for i := range ports {
				ports[i].Loc = diag.Loc{}
			}
		}
		out = append(out, s)
	}
	return out
}

// Every error says where it is.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{minimal + "gloden: g.json\n", `5:1: unknown key "gloden"` + "\n  did you mean \"golden\"?"},
		{minimal + "zzz: 1\n", `5:1: unknown key "zzz"` + "\n  known keys: name,"},
		{minimal + "name: again\n", `5:1: `},
		{minimal + "golden:\n  fiel: g.json\n", `6:3: unknown key "fiel"` + "\n  did you mean \"file\"?"},
		{minimal + "golden:\n  personal_data: none\n", `golden: key "file" is missing`},
		{minimal + "golden: [a]\n", `golden must be a mapping`},
		{minimal + "epoch: -1\n", "5:8: epoch is -1"},
		{minimal + "epoch: soon\n", "5:8: epoch must be a whole number, not text"},
		{minimal + "owner: true\n", "5:8: owner must be text, not true or false"},
		{minimal + "owner:\n", "owner must be text, not nothing"},
		{minimal + "features: [a, a]\n", `5:15: features: "a" is given twice`},
		{minimal + "limits: {timeout: 3}\n", "timeout must be a time like 500ms"},
		{minimal + "limits: {timeout: 2h}\n", "at most 1h"},
		{minimal + "limits: {max_batch: 0}\n", "max_batch is 0"},
		{minimal + "limits: {memory: 64 MB of it}\n", "memory must be a size like 64MiB"},
		{minimal + "limits: {memory: -1}\n", "memory must be a size"},
		{minimal + "limits: {memory: 5GiB}\n", "at most 4294967296 bytes"},
		{minimal + "limits: {memory: 9999999999999999999GiB}\n", "memory must be a size"},
		{minimal + "limits: {dims: {seq: 0}}\n", "dims.seq is 0"},
		{minimal + "limits: {dims: [seq]}\n", "dims must be a mapping"},
		{minimal + "limits: {dims: {seq: 4, seq: 5}}\n", "seq"},
		{minimal + "state: [{input: h, output: o, init: ../x.json}]\n", "init"},
		{minimal + "state: [{input: h, output: o, init: []}]\n", "init must be text"},
		{minimal + "personal_data: maybe\n", `5:16: personal_data is "maybe", allowed are none and yes`},
		{minimal + "steps: [{name: a, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `5:9: step: key "file" is missing`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x]}]\n", `5:9: step: key "outputs" is missing`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x], outputs: [y]}]\n", `5:56: output "y" needs a type`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x], outputs: []}]\n", `outputs is empty`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x, x], outputs: [{name: y, type: f32}]}]\n", `5:45: inputs: "x" is given twice`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x], outputs: [{name: y, type: float}]}]\n", `5:72: type is "float"`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [{name: x, shape: [2]}], outputs: [{name: y, type: f32}]}]\n", `a shape needs a type`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x], outputs: [{name: y, type: f32, shape: [-2]}]}]\n", `5:85: size is -2`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x], outputs: [{name: y, type: f32, shape: [1,1,1,1,1,1,1,1,1]}]}]\n", `at most 8 dimensions`},
		{minimal + "steps: [{name: a, file: a.wasm, when: later, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `5:39: when is "later", allowed are before and after`},
		{minimal + "steps: [{name: a, file: a.wasm, reentrant: 1, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `reentrant must be true or false`},
		{minimal + "steps: [{name: a, file: a.wasm, inputs: [x], outputs: [{name: y, type: f32}], keep: [z]}]\n", `keep: "z" is no input of the step`},
		{minimal + "steps: [{name: a, builtin: topq, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `5:28: builtin is "topq"`},
		{minimal + "steps: [{name: a, builtin: topk, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `builtin topk needs the key "config"`},
		{minimal + "steps: [{name: a, builtin: topk, config: {labels: [a]}, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `key "k" is missing`},
		{minimal + "steps: [{name: a, builtin: topk, config: {k: 0}, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `k is 0`},
		{minimal + "steps: [{name: a, file: a.wasm, config: {k: 1}, inputs: [x], outputs: [{name: y, type: f32}]}]\n", `config goes with builtin`},
		{minimal + "steps: [{name: a, builtin: image, config: {width: 4}, inputs: [{name: x, type: u8, shape: [n]}], outputs: [{name: y, type: f32}]}]\n", `"width" and "height" are needed`},
		{minimal + "steps: [{name: a, builtin: image, config: {width: 4, height: 5000}, inputs: [{name: x, type: u8, shape: [n]}], outputs: [{name: y, type: f32}]}]\n", `height is 5000`},
		{minimal + "steps: [{name: a, builtin: image, config: {width: 4, height: 4, mean: [1, 2]}, inputs: [{name: x, type: u8, shape: [n]}], outputs: [{name: y, type: f32}]}]\n", `mean has 2 numbers`},
		{minimal + "steps: [{name: a, builtin: image, config: {width: 4, height: 4, std: [1, 0, 1]}, inputs: [{name: x, type: u8, shape: [n]}], outputs: [{name: y, type: f32}]}]\n", `each must be above zero`},
		{minimal + "steps: [{name: a, builtin: image, config: {width: 4, height: 4, layout: chw}, inputs: [{name: x, type: u8, shape: [n]}], outputs: [{name: y, type: f32}]}]\n", `layout is "chw"`},
		{minimal + "features: [{name: a}, {name: a}]\n", `5:23: features: "a" is given twice`},
		{minimal + "features: [{nam: a}]\n", `did you mean "name"?`},
		{minimal + "features: [{type: number}]\n", `feature: key "name" is missing`},
		{minimal + "features: [{name: a, type: text}]\n", `5:28: type is "text"`},
		{minimal + "features: [{name: a, values: [x]}]\n", `feature "a" is a number: values goes with type: category`},
		{minimal + "features: [{name: a, type: category}]\n", `key "values" is missing`},
		{minimal + "features: [{name: a, type: category, values: []}]\n", `values is empty`},
		{minimal + "features: [{name: a, type: category, values: [red, blue], default: bleu}]\n", `did you mean "blue"?`},
		{minimal + "features: [{name: a, type: category, values: [x], unknown: default}]\n", `unknown: default needs a default`},
		{minimal + "features: [{name: a, default: .nan}]\n", `default must be a finite number`},
		{minimal + "features: [{name: a, default: 1, required: true}]\n", `is required, so it can have no default`},
		{minimal + "features: {input: X}\n", `key "columns" is missing`},
		{minimal + "docs: [../secret]\n", "../secret leaves the project folder"},
		{minimal + "docs: [/etc/passwd]\n", "/etc/passwd is an absolute path"},
		{minimal + "docs: ['C:\\docs\\a']\n", "docs entry: C:/docs/a is an absolute path"},
		{minimal + "docs: ['..\\a']\n", "docs entry: ../a leaves the project folder"},
		{minimal + "compile: no\n", "compile must be true or false, not text"},
		{minimal + "config: [a.json]\n", "waybill.yaml:5:9: config goes with compile: false"},
		{minimal + "compile: false\ngolden: g.json\n", "waybill.yaml:6:9: golden goes with a compiled model"},
		{minimal + "compile: false\nconfig: []\n", "config is empty"},
		{minimal + "compile: false\nconfig: [a, a]\n", "config: a is given twice"},
		{minimal + "compile: false\nconfig: [a]\ncode: [a]\n", "waybill.yaml:7:8: a is given twice: in line 6 too"},
		{minimal + "allow_pickle: model.pkl\n", "allow_pickle must be a list, not text"},
		{minimal + "considerations: {risk: [x]}\n", "unknown key \"risk\""},
		{minimal + "considerations: {risks: [{mitigation: x}]}\n", "risk: key \"name\" is missing"},
		{minimal + "risk: unlimited\n", `5:7: risk is "unlimited", allowed are minimal, limited, high, prohibited`},
		{minimal + "status: gone\n", `status is "gone", allowed are active, retired`},
		{minimal + "trained: spring\n", `5:10: trained is "spring", not a date`},
		{minimal + "trained: 2026-13-01\n", "not a date"},
		{minimal + "base_models: [{version: 1}]\n", "base model: key \"name\" is missing"},
		{minimal + "base_models: [{name: x, digest: abc}]\n", "digest: "},
		{minimal + "base_models: [{name: x, license: our own}]\n", "license: "},
		{minimal + "base_models: x\n", "base_models must be a list, not text"},
		{minimal + "considerations: {energy: [{activity: training}]}\n", "needs the keys \"activity\" and \"kwh\""},
		{minimal + "considerations: {energy: [{activity: cooking, kwh: 1}]}\n", `activity is "cooking"`},
		{minimal + "considerations: {energy: [{activity: training, kwh: -1}]}\n", "kwh must be a number that is not negative"},
		{minimal + "considerations: {fairness: [{harms: x}]}\n", "key \"group\" is missing"},
		{minimal + "considerations: {oversight: [x]}\n", "oversight must be text, not a list"},
		{minimal + "owner: &a x\n", "anchors are not allowed"},
		{minimal + "owner: !!str x\n", "tags are not allowed"},
		{strings.Replace(minimal, "apache-2.0", "Apache2.0", 1), `3:10: license: "Apache2.0" is not in the SPDX license list`},
		{strings.Replace(minimal, "apache-2.0", "Apache2.0", 1), `did you mean "Apache-2.0"?`},
		{strings.Replace(minimal, "churn", "Churn!", 1), `1:7: name: "Churn!" is not a name`},
		{strings.Replace(minimal, "1.10", "a b", 1), `2:10: version: "a b" is not a version`},
		{"name: x\nversion: 1\nlicense: MIT\n", `1:1: key "model" is missing`},
		{"", "empty"},
		{"- a\n", "1:1: must be a mapping"},
		{"name: [\n", "waybill.yaml:1"},
		{minimal + "---\nname: b\n", "only one YAML document"},
	} {
		_, err := Parse("waybill.yaml", []byte(c.in))
		if diag.CodeOf(err) != diag.Usage {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if got := diag.Render(err); !strings.Contains(got, c.want) || !strings.Contains(got, "waybill.yaml") {
			t.Errorf("%q\n got %s want %s", c.in, got, c.want)
		}
	}
}

func TestFeatures(t *testing.T) {
	p, err := Parse("waybill.yaml", []byte(minimal+`features:
  input: X
  columns:
    - age
    - {name: income, default: -1.5}
    - {name: color, type: category, values: [red, 7], encode: onehot, unknown: default, default: red}
    - {name: size, type: category, values: [s, m], unknown: ignore}
`))
	if err != nil {
		t.Fatal(err)
	}
	m := p.Mapping
	if m == nil || m.Input != "X" || len(m.Features) != 4 || p.Features != nil || *m.Features[1].Default != -1.5 ||
		m.Features[2].Columns() != 2 || *m.Features[2].DefaultValue != "red" || m.Features[2].Values[1] != "7" ||
		m.Features[3].Columns() != 1 || m.Features[3].Unknown != UnknownIgnore || m.Features[0].Category {
		t.Errorf("%+v", m)
	}
}

func TestImageStep(t *testing.T) {
	p, err := Parse("waybill.yaml", []byte(minimal+`steps:
  - name: picture
    builtin: image
    config: {width: 224, height: 112, mean: [123.675, 116.28, -1], std: [58.395, 57.12, 57.375], layout: nhwc, channels: bgr}
    inputs: [{name: file, type: u8, shape: [-1]}]
    outputs: [{name: X, type: f32, shape: [1, 112, 224, 3]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := steps.ImageConfig{Width: 224, Height: 112, Mean: [3]float64{123.675, 116.28, -1}, Std: [3]float64{58.395, 57.12, 57.375}, ChannelsLast: true, BGR: true}
	if p.Steps[0].Image == nil || *p.Steps[0].Image != want || len(p.files) != 1 {
		t.Errorf("%+v", p.Steps[0])
	}
}

func TestTextStep(t *testing.T) {
	const doc = minimal + `steps:
  - name: words
    builtin: text
    config: {tokenizer: tokenizer.json}
    inputs: [{name: text, type: string, shape: [N]}]
    outputs: [{name: X, type: i64, shape: [N, L]}]
`
	p, err := Parse("waybill.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if p.Steps[0].Tokenizer != "tokenizer.json" || len(p.files) != 2 || p.files[1].Path != "tokenizer.json" {
		t.Errorf("%+v, files %+v", p.Steps[0], p.files)
	}
	untyped := strings.Replace(doc, "{name: X, type: i64, shape: [N, L]}", "X", 1)
	if p, err := Parse("waybill.yaml", []byte(untyped)); err != nil || p.Steps[0].Outputs[0].DType != "" {
		t.Errorf("an output of the model's type: %+v, %v", p, err)
	}
	if _, err := Parse("waybill.yaml", []byte(strings.Replace(untyped, "builtin: text", "when: after\n    builtin: text", 1))); diag.CodeOf(err) != diag.Usage ||
		!strings.Contains(err.Error(), "needs a type") {
		t.Errorf("no type behind the model: %v", err)
	}
	if _, err := Parse("waybill.yaml", []byte(strings.Replace(doc, "tokenizer: tokenizer.json", "", 1))); diag.CodeOf(err) != diag.Usage {
		t.Errorf("no tokenizer: %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); diag.CodeOf(err) != diag.NotFound {
		t.Errorf("no project: %v", err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(FileName, minimal)
	var e *diag.Error
	if _, err := Load(dir); diag.CodeOf(err) != diag.NotFound || !errors.As(err, &e) || e.Loc.Line != 4 {
		t.Errorf("no model: %v", err)
	}
	write("model.onnx", "x")
	for _, p := range []string{dir, filepath.Join(dir, FileName)} {
		pr, err := Load(p)
		if err != nil || !filepath.IsAbs(pr.Dir) {
			t.Fatalf("%s: %v", p, err)
		}
		f, err := pr.Open("model.onnx")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if _, err := pr.Open("../x"); err == nil {
			t.Error("a file outside was opened")
		}
	}
	if runtime.GOOS == "windows" {
		t.Skip("links need privileges on Windows")
	}
	outside := filepath.Join(t.TempDir(), "secret.onnx")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "model.onnx")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "model.onnx")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); diag.CodeOf(err) != diag.Usage {
		t.Errorf("a link that leads out of the folder: %v", err)
	}
}

func TestInit(t *testing.T) {
	for in, want := range map[string]string{"My Model.v2.onnx": "my-model.v2", "a/b/Churn.onnx": "churn", "__.onnx": "model"} {
		if got := NameFor(in); got != want || CheckName(got) != nil {
			t.Errorf("%s: %s", in, got)
		}
	}
	text := Init("churn", "1.0", "LicenseRef-proprietary", "model.onnx", "", Facts{Kind: "ONNX, opset 17", Inputs: []string{"X f32[N,3]"}})
	p, err := Parse(FileName, []byte(text))
	if err != nil || p.Version != "1.0" || p.Golden != nil {
		t.Errorf("%v %+v\n%s", err, p, text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(minimal + "golden: {file: a, tolerance: [{output: b, rtol: 1e-3}]}\nlimits: {timeout: 1s}\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse("f", b)
		if err == nil && (p.Name == "" || p.Model.Path == "") {
			t.Errorf("accepted without name or model: %q", b)
		}
	})
}

// What Init offers as comments can be taken in as it stands.
func TestInitOffersWhatParses(t *testing.T) {
	text := Init("churn", "1.0.0", "MIT", "model.onnx", "", Facts{Kind: "ONNX, opset 17"})
	_, err := Parse("waybill.yaml", []byte(strings.ReplaceAll(text, "\n# ", "\n")))
	if err == nil || !strings.Contains(err.Error(), "oversight is empty") { // each text waits to be filled in
		t.Fatalf("%v", err)
	}
	p, err := Parse("waybill.yaml", []byte(strings.ReplaceAll(strings.ReplaceAll(text, "\n# ", "\n"), `""`, "x")))
	if err != nil || p.Risk != "limited" || p.Trained == nil || len(p.BaseModels) != 1 || p.Owner == "" || p.Considerations == nil {
		t.Errorf("%v %+v", err, p)
	}
}
