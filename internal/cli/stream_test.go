package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// TestModels runs the models of testdata/models, each of which once did not compile or ran wrong, against ONNX Runtime's outputs.
func TestModels(t *testing.T) {
	root, err := filepath.Abs("testdata/models")
	if err != nil {
		t.Fatal(err)
	}
	env, out, errs := testEnv(t, nil)
	code := Run(t.Context(), env, []string{"test", "--suite", root, "--output", "json"})
	var res testJSON
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		t.Fatal(err, errs.String())
	}
	if code != 0 || res.Passed != 5 || len(res.Cases) != 5 {
		t.Errorf("exit code %d: %s", code, out)
	}
}

const streamYAML = `name: lstm
version: "1"
license: Apache-2.0
model: {file: model.onnx, personal_data: none}
golden: {file: golden.json, personal_data: none}
state:
  - {input: h, output: h_out}
  - {input: c, output: c_out, init: c.json}
limits:
  dims: {frames: 4}
`

const (
	streamX      = `[1,0.5,-1, 0.25,2,0, -0.5,0,1, 3,-2,1]`
	streamC      = `{"datatype":"FP32","shape":[1,1,4],"data":[0.5,-0.25,0,1]}`
	streamGolden = `{"schema":"https://github.com/waybill-ml/waybill/schema/vectors/v1","vectors":[{"name":"first","inputs":[
{"name":"x","datatype":"FP32","shape":[4,1,3],"data":` + streamX + `},
{"name":"h","datatype":"FP32","shape":[1,1,4],"data":[0,0,0,0]},
{"name":"c","datatype":"FP32","shape":[1,1,4],"data":[0.5,-0.25,0,1]}]}]}`
)

// streamer runs commands in one folder with one home.
func streamer(t *testing.T) (dir string, run func(stdin string, args ...string) (code int, stdout, stderr string)) {
	dir, home := t.TempDir(), t.TempDir()
	put(t, dir, "waybill.yaml", streamYAML)
	put(t, dir, "c.json", streamC)
	put(t, dir, "golden.json", streamGolden)
	model, err := os.ReadFile("testdata/models/lstm/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "model.onnx", string(model))
	return dir, func(stdin string, args ...string) (int, string, string) {
		env, out, errs := testEnv(t, map[string]string{"WAYBILL_HOME": home})
		env.Stdin, env.Dir = strings.NewReader(stdin), dir
		return Run(t.Context(), env, args), out.String(), errs.String()
	}
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func decodeJSON[T any](t *testing.T, s string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return v
}

// A small LSTM goes through pack, inspect, predict and serve: its state starts with the declared value, flows from request to request
// and gives bit for bit what one long call gives; a dim above its bound is refused with input, dim, bound and value.
func TestStreamingStateAndBounds(t *testing.T) {
	dir, run := streamer(t)
	if code, _, errs := run("", "pack"); code != 0 {
		t.Fatal(errs)
	}
	code, out, errs := run("", "test", "lstm:1")
	if code != 0 {
		t.Fatal(out, errs)
	}
	code, out, errs = run("", "inspect", "lstm:1", "--output", "json")
	if code != 0 {
		t.Fatal(errs)
	}
	f := decodeJSON[struct{ Interface artifact.Interface }](t, out)
	if s := f.Interface.State; len(s) != 2 || s[0].Input != "h" || s[0].Output != "h_out" || len(s[0].Init) != 0 || len(s[0].Shape) != 3 ||
		s[1].Input != "c" || len(s[1].Init) != 16 || f.Interface.Inputs[0].Shape[0].Max != 4 || f.Interface.Inputs[0].Shape[0].Sym != "frames" {
		t.Errorf("interface %+v %+v", s, f.Interface.Inputs)
	}

	whole := `{"inputs":[{"name":"x","datatype":"FP32","shape":[4,1,3],"data":` + streamX + `}]}`
	code, out, errs = run(whole, "predict", "lstm:1", "-", "--output", "json")
	if code != 0 {
		t.Fatal(errs)
	}
	all := decodeJSON[v2Response](t, out)
	var parts string
	frames := decodeJSON[[]float64](t, streamX)
	for i := 0; i < 12; i += 3 {
		b, err := json.Marshal(frames[i : i+3])
		if err != nil {
			t.Fatal(err)
		}
		parts += `{"id":"` + string(rune('a'+i/3)) + `","inputs":[{"name":"x","datatype":"FP32","shape":[1,1,3],"data":` + string(b) + `}]}` + "\n"
	}
	code, out, errs = run(parts, "predict", "lstm:1", "-", "--stream")
	if code != 0 {
		t.Fatal(errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d answers", len(lines))
	}
	var y []float64
	for i, l := range lines {
		r := decodeJSON[v2Response](t, l)
		if r.ID != string(rune('a'+i)) {
			t.Errorf("answer %d has id %q", i, r.ID)
		}
		y = append(y, decodeJSON[[]float64](t, string(r.Outputs[0].Data))...)
		for _, k := range []int{1, 2} {
			got, want := decodeJSON[[]float32](t, string(r.Outputs[k].Data)), decodeJSON[[]float32](t, string(all.Outputs[k].Data))
			if i == 3 && !slices.Equal(got, want) {
				t.Errorf("the state after four calls is %v, after one it is %v", got, want)
			}
		}
	}
	want := decodeJSON[[]float64](t, string(all.Outputs[0].Data))
	for i := range want {
		if y[i] != want[i] {
			t.Errorf("frame %d: %v in pieces, %v at once", i/2, y[i], want[i])
		}
	}
	if code, _, errs = run(whole, "predict", filepath.Join(dir, "model.onnx"), "-", "--stream"); code != int(diag.Usage) || !strings.Contains(errs, "no streaming state") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs = run(parts+"{", "predict", "lstm:1", "-", "--stream"); code != int(diag.Usage) || !strings.Contains(errs, "request 5") {
		t.Errorf("%d %s", code, errs)
	}

	long := `{"inputs":[{"name":"x","datatype":"FP32","shape":[5,1,3],"data":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}]}`
	code, _, errs = run(long, "predict", "lstm:1", "-")
	refusal := []string{`"x"`, "dimension 0 (frames) is 5", "at most 4"}
	for _, s := range refusal {
		if code != int(diag.Usage) || !strings.Contains(errs, s) {
			t.Errorf("exit code %d: %s lacks %s", code, errs, s)
		}
	}
	served(t, dir, whole, long, string(all.Outputs[0].Data), refusal)
}

// served asks the inference server the same.
func served(t *testing.T, dir, whole, long, want string, refusal []string) {
	env, _, _ := testEnv(t, nil)
	env.Dir = dir
	target, err := openProject(t.Context(), &Call{Env: env, UI: newUI(env, "text", "never", true, false)}, dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := runner{engine.Config{}}.load(t.Context(), target.Module)
	if err != nil {
		t.Fatal(err)
	}
	s := serve.New(serve.Config{})
	s.Swap("lstm", serve.Model{Digest: artifact.DigestOf([]byte("lstm")), Runner: l.Model})
	h := httptest.NewServer(s.Handler())
	defer h.Close()
	post := func(body string) (int, string) {
		c := http.Client{Timeout: time.Minute}
		r, err := c.Post(h.URL+"/v2/models/lstm/infer", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	code, body := post(whole)
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	got, first := decodeJSON[[]float32](t, string(decodeJSON[v2Response](t, body).Outputs[0].Data)), decodeJSON[[]float32](t, want)
	if !slices.Equal(got, first) {
		t.Errorf("the server says %v, predict %v", got, first)
	}
	code, body = post(long)
	for _, s := range refusal {
		if text, err := json.Marshal(s); code != 400 || err != nil || !strings.Contains(body, strings.Trim(string(text), `"`)) {
			t.Errorf("%d %s lacks %s", code, body, s)
		}
	}
}

// What does not fit is refused at pack, with the place in waybill.yaml.
func TestStateRefused(t *testing.T) {
	dir, run := streamer(t)
	for _, c := range []struct{ old, new, want string }{
		{"input: h,", "input: hh,", `state of input "hh": the model has no such input; it has "x", "h", "c"`},
		{"output: h_out", "output: y_out", `the model has no output "y_out"`},
		{"output: h_out", "output: y", `but output "y" is`},
		{"{input: h, output: h_out}", "{input: c, output: h_out}", "declared twice"},
		{"{input: h, output: h_out}", "{input: x, output: y}", "output \"y\" is"},
		{"init: c.json", "init: wrong.json", "wrong.json holds f32[1,1,5]"},
		{"init: c.json", "init: missing.json", "missing.json does not exist"},
		{"{frames: 4}", "{frame: 4}", `no input has a dimension "frame"`},
	} {
		put(t, dir, "wrong.json", `{"datatype":"FP32","shape":[1,1,5],"data":[1,2,3,4,5]}`)
		put(t, dir, "waybill.yaml", strings.Replace(streamYAML, c.old, c.new, 1))
		code, out, errs := run("", "pack")
		if code == 0 || out != "" || !strings.Contains(errs, c.want) || !strings.Contains(errs, "waybill.yaml:") {
			t.Errorf("%s: exit code %d, %s", c.new, code, errs)
		}
	}
}
