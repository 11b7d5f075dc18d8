package serve

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// compile makes a model of one graph: params are its inputs, results its outputs.
func compile(t testing.TB, e *engine.Engine, name string, params, results []*ir.Value, state []artifact.StateVar, nodes ...*ir.Node) *engine.Model {
	t.Helper()
	res, err := codegen.Compile(&ir.Graph{Name: name, Body: &ir.Region{Params: params, Results: results, Nodes: nodes}}, codegen.Options{})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	ports := func(vs []*ir.Value) (ps []artifact.Port) {
		for _, v := range vs {
			p := artifact.Port{Name: v.Name, Kind: "tensor", DType: v.Type.DType.String(), Ranked: true}
			for _, d := range v.Type.Shape.Dims {
				if d.Sym != "" || d.Any {
					p.Shape = append(p.Shape, artifact.Dim{Size: -1, Sym: d.Sym})
				} else {
					p.Shape = append(p.Shape, artifact.Dim{Size: d.N})
				}
			}
			ps = append(ps, p)
		}
		return ps
	}
	ref := artifact.FileRef{Path: "m.wasm", Digest: artifact.DigestOf(res.Module)}
	ins, outs := ports(params), ports(results)
	m, err := e.Load(t.Context(), res.Module, engine.WeightsSource{}, &artifact.Interface{Schema: artifact.InterfaceSchema, Name: name, Version: "1",
		ABI: abi.Version, Inputs: ins, Outputs: outs, Module: ref, Nodes: res.Nodes, State: state,
		Steps:  []artifact.Step{{Kind: "model", Name: name, File: ref, Inputs: ins, Outputs: outs}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: uint64(res.ArenaHint), Max: 16 << 20}})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

func irType(d ir.DType, dims ...ir.Dim) ir.Type {
	return ir.Type{DType: d, Shape: ir.Shape{Ranked: true, Dims: dims}}
}

// twice compiles y = x followed by x, which the compiler does for every element type.
func twice(t testing.TB, e *engine.Engine, dtype string) *engine.Model {
	t.Helper()
	a, _ := abi.ParseDType(dtype)
	d := ir.DType(a) // the numbers are the same
	x := &ir.Value{Name: "x", Type: irType(d, ir.Dim{Sym: "N"}, ir.Dim{N: 2})}
	y := &ir.Value{Name: "y", Type: irType(d, ir.Dim{Any: true}, ir.Dim{N: 2})}
	return compile(t, e, dtype, []*ir.Value{x}, []*ir.Value{y}, nil,
		&ir.Node{ID: 1, Op: "Concat", Name: "twice", Ins: []*ir.Value{x, x}, Outs: []*ir.Value{y}, Attrs: map[string]ir.Attr{"axis": ir.AttrOf(0)}})
}

// runningSum compiles a stream's model: y = x + s, and the square of y is s of the next call.
func runningSum(t testing.TB, e *engine.Engine, first float32) *engine.Model {
	return runningSumBy(t, e, first, "Add")
}

func runningSumBy(t testing.TB, e *engine.Engine, first float32, op string) *engine.Model {
	t.Helper()
	v := func(name string) *ir.Value { return &ir.Value{Name: name, Type: irType(ir.F32, ir.Dim{N: 3})} }
	x, s, y, next := v("x"), v("s"), v("y"), v("s_out")
	return compile(t, e, "sum", []*ir.Value{x, s}, []*ir.Value{y, next},
		[]artifact.StateVar{{Input: "s", Output: "s_out", Shape: []int64{3}, Init: engine.Of([]float32{first, first, first}).Data}},
		&ir.Node{ID: 1, Op: op, Name: "y", Ins: []*ir.Value{x, s}, Outs: []*ir.Value{y}},
		&ir.Node{ID: 2, Op: "Mul", Name: "next", Ins: []*ir.Value{y, y}, Outs: []*ir.Value{next}})
}

// tritonPython finds a Python with Triton's clients, or ends the test.
func tritonPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("WAYBILL_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import tritonclient.http.aio, tritonclient.grpc.aio").CombinedOutput(); err != nil {
		why := fmt.Sprintf("%s has no tritonclient[http,grpc] (WAYBILL_PYTHON names another Python): %v %s", python, err, out)
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	return python
}

// TestTritonClient lets Triton's own clients (http, grpc, asyncio, streaming) ask compiled models of every datatype, and compares with
// what the engine gives, bit for bit.
func TestTritonClient(t *testing.T) {
	python := tritonPython(t)
	e := newEngine(t)
	s := New(Config{Log: testLog(t)})
	type tensor struct {
		Name        string  `json:"name"`
		Datatype    string  `json:"datatype"`
		Shape       []int64 `json:"shape"`
		Input       string  `json:"input"`
		Output      string  `json:"output"`
		OutputShape []int64 `json:"output_shape"`
	}
	var spec struct {
		Models []tensor `json:"models"`
		Stream struct {
			Name    string   `json:"name"`
			Shape   []int64  `json:"shape"`
			Inputs  []string `json:"inputs"`
			Outputs []string `json:"outputs"`
		} `json:"stream"`
	}
	for _, c := range allTypes {
		m := twice(t, e, c.dtype)
		d, _ := abi.ParseDType(c.dtype)
		for _, rows := range []int64{1, 3} {
			x := engine.Tensor{DType: d, Shape: []int64{rows, 2}}
			for range rows {
				if d == abi.String {
					x.Strings = append(x.Strings, "", "é\"\n")
				} else {
					x.Data = append(x.Data, elements(d)...)
				}
			}
			y, err := m.Run(t.Context(), []engine.Tensor{x})
			if err != nil {
				t.Fatalf("%s: %v", c.dtype, err)
			}
			spec.Models = append(spec.Models, tensor{c.dtype, c.oip, x.Shape, hex.EncodeToString(encodeBytes(&x)), hex.EncodeToString(encodeBytes(&y[0])), y[0].Shape})
		}
		s.Swap(c.dtype, Model{artifact.DigestOf([]byte(c.dtype)), m})
	}
	sum := runningSum(t, e, 0.5)
	first, err := engine.InitialState(sum.Interface())
	if err != nil {
		t.Fatal(err)
	}
	state := first[0]
	spec.Stream.Name, spec.Stream.Shape = "sum", []int64{3}
	for i := range 12 {
		x := engine.Of([]float32{float32(i) / 8, -0.25, 1e-3})
		y, err := sum.Run(t.Context(), []engine.Tensor{x, state})
		if err != nil {
			t.Fatal(err)
		}
		state = y[1]
		spec.Stream.Inputs = append(spec.Stream.Inputs, hex.EncodeToString(x.Data))
		spec.Stream.Outputs = append(spec.Stream.Outputs, hex.EncodeToString(y[0].Data))
	}
	s.Swap("sum", Model{digestN(1), sum})
	url, _ := serveOn(t, s)
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cases.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, filepath.Join("testdata", "triton_client.py"), strings.TrimPrefix(url, "http://"), file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "checks: ") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// tool finds a program, or ends the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not here", name)
		}
		t.Skipf("%s is not here", name)
	}
	return path
}

// grpcurl with our .proto, as docs/serving.md says.
func TestGrpcurl(t *testing.T) {
	grpcurl := tool(t, "grpcurl")
	s := New(Config{})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, _ := serveOn(t, s)
	call := func(method, data string) (string, error) {
		out, err := exec.CommandContext(t.Context(), grpcurl, "-plaintext", "-import-path", filepath.Join("..", "oip"), "-proto", "inference.proto", "-d", data,
			strings.TrimPrefix(url, "http://"), "inference.GRPCInferenceService/"+method).CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct{ method, data, want string }{
		{"ServerReady", `{}`, `"ready": true`},
		{"ModelMetadata", `{"name": "m"}`, string(dig)},
		{"ModelInfer", `{"model_name": "m", "inputs": [{"name": "x", "datatype": "INT64", "shape": [2], "contents": {"int64_contents": [7, -8]}}]}`, `"-8"`},
		{"ModelStreamInfer", `{"model_name": "m", "inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [9]}}]}`, `"9"`},
	} {
		if out, err := call(c.method, c.data); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v %s", c.method, err, out)
		}
	}
	if out, err := call("ModelInfer", `{"model_name": "other"}`); err == nil || !strings.Contains(out, "NotFound") {
		t.Errorf("another model: %v %s", err, out)
	}
}

// curl: JSON, a raw body, and the status of an error.
func TestCurl(t *testing.T) {
	curl := tool(t, "curl")
	s := New(Config{})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, _ := serveOn(t, s)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-d", oneInt, "-H", "Content-Type: application/json", url + "/v2/models/m/infer"}, `"data":[1]`},
		{[]string{"--compressed", "--http2-prior-knowledge", "-d", oneInt, "-H", "Content-Type: application/json", url + "/v2/models/m/infer"}, `"data":[1]`},
		{[]string{"--data-binary", "12345678", "-H", "Content-Type: application/octet-stream", "-H", headerLength + ": 0", url + "/v2/models/m/infer"}, "12345678"},
		{[]string{"-w", "%{http_code}", url + "/v2/models/other"}, "404"},
		{[]string{url + "/metrics"}, "waybill_ready 1"},
	} {
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "--noproxy", "*"}, c.args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("curl %v: %v %s", c.args, err, out)
		}
	}
}
