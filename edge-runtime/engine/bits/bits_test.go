package bits

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

var update = flag.Bool("update", false, "write testdata/bits.json")

// fixture holds the hash of every case's outputs. A change of it changes predictions that were recorded: it needs a
// reason in docs/numerics.md.
const fixture = "testdata/bits.json"

type testCase struct {
	name string
	job  func(t *testing.T) Job
}

func cases() []testCase {
	return []testCase{
		{"go-step", goStepJob},
		{"step-audio", audioJob},
		{"step-image", imageJob},
		{"step-text", textJob},
		{"models/silero_vad_v5", func(t *testing.T) Job { return corpusJob(t, "models/silero_vad_v5") }},
		{"models/mnist_8", func(t *testing.T) Job { return corpusJob(t, "models/mnist_8") }},
		{"models-sklearn/text_tfidf_logreg", func(t *testing.T) Job { return corpusJob(t, "models-sklearn/text_tfidf_logreg") }},
	}
}

// recorded tells whether the fixture has bits for a case: then the compiler must be able to do it.
func recorded(t *testing.T, name string) bool {
	t.Helper()
	_, ok := load(t)[name]
	return ok
}

func load(t *testing.T) map[string]string {
	t.Helper()
	want := map[string]string{}
	if b, err := os.ReadFile(fixture); err == nil {
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return want
}

// TestSameBits runs every case on every host there is and compares the bits with each other and with the fixture.
func TestSameBits(t *testing.T) {
	want := load(t)
	hosts := allHosts(t)
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			j := c.job(t)
			var first Result
			var from string
			for _, h := range hosts {
				t.Run(h.name, func(t *testing.T) {
					h.needed(t)
					res := h.run(t, j)
					if len(res.Calls) != len(j.Calls) {
						t.Fatalf("%d results for %d calls", len(res.Calls), len(j.Calls))
					}
					if from == "" {
						first, from = res, h.name
					} else if d := diff(t, res, first); d != "" {
						t.Errorf("differs from %s: %s", from, d)
					}
					got, err := Hash(res)
					if err != nil {
						t.Fatal(err)
					}
					if *update {
						want[c.name] = got
					} else if want[c.name] != got {
						t.Errorf("outputs hash to %s, the fixture says %q", got, want[c.name])
					}
				})
			}
		})
	}
	if *update && !t.Failed() {
		b, err := json.MarshalIndent(want, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fixture, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// diff describes the first difference of two results.
func diff(t *testing.T, got, want Result) string {
	t.Helper()
	for i := range want.Calls {
		if len(got.Calls[i]) != len(want.Calls[i]) {
			return fmt.Sprintf("call %d has %d outputs, not %d", i, len(got.Calls[i]), len(want.Calls[i]))
		}
		for k := range want.Calls[i] {
			a, err := probe.FromGolden(got.Calls[i][k])
			if err != nil {
				t.Fatal(err)
			}
			b, err := probe.FromGolden(want.Calls[i][k])
			if err != nil {
				t.Fatal(err)
			}
			if d := probe.Diff(a, b); d != "" {
				return fmt.Sprintf("call %d, output %s: %s", i, want.Calls[i][k].Name, d)
			}
		}
	}
	return ""
}

type host struct {
	name string
	skip string
	slow bool // skipped because nobody asked for it
	run  func(t *testing.T, j Job) Result
}

// needed skips the test when the host is not here, or fails it where all programs must be.
func (h host) needed(t *testing.T) {
	t.Helper()
	if h.skip != "" && !h.slow && os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
		t.Fatal(h.skip)
	}
	if h.skip != "" {
		t.Skip(h.skip)
	}
}

func allHosts(t *testing.T) []host {
	return []host{
		{name: "interpreter", run: func(t *testing.T, j Job) Result { return here(t, engine.Interpreter, j) }},
		compilerHost(t),
		{name: "poisoned", run: func(t *testing.T, j Job) Result { return poisoned(t, j) }},
		emulated(t, "arm64", "aarch64", "compiler"),
		slow(t, "riscv64", "riscv64"),
		slow(t, "arm", "arm"),
		nodeHost(),
	}
}

func here(t *testing.T, mode engine.Mode, j Job) Result {
	t.Helper()
	return with(t, engine.Config{Mode: mode, Instances: 1, TimeLimit: -1}, j)
}

// poisoned fills unused memory and runs parts on several threads: neither may show in the outputs.
func poisoned(t *testing.T, j Job) Result {
	t.Helper()
	return with(t, engine.Config{Poison: true, Threads: 3, Budget: 1000, TimeLimit: -1}, j)
}

func with(t *testing.T, cfg engine.Config, j Job) Result {
	t.Helper()
	e, err := engine.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Run(t.Context(), e, j)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return res
}

func compilerHost(t *testing.T) host {
	h := host{name: "compiler-" + runtime.GOARCH, run: func(t *testing.T, j Job) Result { return here(t, engine.Compiler, j) }}
	if e, err := engine.New(t.Context(), engine.Config{Mode: engine.Compiler}); err != nil {
		h.skip = err.Error()
	} else if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return h
}

// emulated runs bitsrun, built for another architecture, under qemu's user emulation.
func emulated(t *testing.T, goarch, qemu, mode string) host {
	h := host{name: mode + "-" + goarch}
	emu, err := exec.LookPath("qemu-" + qemu + "-static")
	if err != nil {
		emu, err = exec.LookPath("qemu-" + qemu)
	}
	goTool, goErr := exec.LookPath("go")
	switch {
	case runtime.GOOS != "linux":
		h.skip = "user emulation is for Linux"
		return h
	case err != nil:
		h.skip = "qemu-" + qemu + "-static is not installed"
		return h
	case goErr != nil:
		h.skip = "no go command to cross-build with"
		return h
	}
	bin := filepath.Join(t.TempDir(), "bitsrun-"+goarch)
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-o", bin, "./bitsrun")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cross-build: %v\n%s", err, b)
	}
	h.run = func(t *testing.T, j Job) Result { return external(t, j, emu, bin, mode) }
	return h
}

// slow is an interpreter under an emulator: minutes, so only on demand.
func slow(t *testing.T, goarch, qemu string) host {
	if os.Getenv("WAYBILL_BITS_ALL") == "" {
		return host{name: "interpreter-" + goarch, slow: true, skip: "slow: set WAYBILL_BITS_ALL=1 to run it"}
	}
	return emulated(t, goarch, qemu, "interpreter")
}

func nodeHost() host {
	h := host{name: "node"}
	node, err := exec.LookPath("node")
	if err != nil {
		h.skip = "node is not installed"
		return h
	}
	h.run = func(t *testing.T, j Job) Result {
		return external(t, j, node, filepath.Join("..", "..", "web", "run.mjs"))
	}
	return h
}

// external hands the job to another program.
func external(t *testing.T, j Job, name string, args ...string) Result {
	t.Helper()
	in, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, errs.String())
	}
	var res Result
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		t.Fatalf("%s: %v\n%.400s", name, err, out.String())
	}
	return res
}

// compiled writes the files of a graph and describes them as an artifact.
func compiled(t *testing.T, g *ir.Graph) Job {
	t.Helper()
	res, err := codegen.Compile(g, codegen.Options{Parallel: true})
	var un *codegen.Unsupported
	if errors.As(err, &un) && !recorded(t, g.Name) {
		t.Skipf("no bits are recorded for %s yet: %v", g.Name, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	j := Job{Module: filepath.Join(dir, "model.wasm")}
	if err := os.WriteFile(j.Module, res.Module, 0o600); err != nil {
		t.Fatal(err)
	}
	ref := artifact.FileRef{Path: "model.wasm", Digest: artifact.DigestOf(res.Module), Size: int64(len(res.Module))}
	i := &artifact.Interface{Schema: artifact.InterfaceSchema, Name: g.Name, Version: "1", ABI: abi.Version, Module: ref,
		Nodes: res.Nodes, Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: uint64(res.ArenaHint)}}
	for _, p := range g.Body.Params {
		i.Inputs = append(i.Inputs, portOf(p))
	}
	for _, p := range g.Body.Results {
		i.Outputs = append(i.Outputs, portOf(p))
	}
	i.Steps = []artifact.Step{{Kind: "model", Name: "model", File: ref, Inputs: i.Inputs, Outputs: i.Outputs}}
	if res.Weights != nil {
		j.Weights = filepath.Join(dir, "weights.bin")
		if err := os.WriteFile(j.Weights, res.Weights, 0o600); err != nil {
			t.Fatal(err)
		}
		i.Weights = &artifact.Weights{Base: res.WeightsBase,
			FileRef: artifact.FileRef{Path: "weights.bin", Digest: artifact.DigestOf(res.Weights), Size: int64(len(res.Weights))}}
	}
	j.Interface = i
	return j
}

func portOf(v *ir.Value) artifact.Port {
	p := artifact.Port{Name: v.Name, Kind: "tensor", DType: v.Type.DType.String(), Ranked: v.Type.Shape.Ranked}
	for _, d := range v.Type.Shape.Dims {
		if d.Any || d.Sym != "" {
			p.Shape = append(p.Shape, artifact.Dim{Size: -1, Sym: d.Sym, Max: d.Max})
		} else {
			p.Shape = append(p.Shape, artifact.Dim{Size: d.N})
		}
	}
	return p
}

// corpusJob compiles a real model; its calls are the test data sets.
func corpusJob(t *testing.T, name string) Job {
	t.Helper()
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		t.Skip("WAYBILL_CORPORA is not set: the real models are not here")
	}
	dir := filepath.Join(root, filepath.FromSlash(name))
	g, err := onnx.Read(t.Context(), filepath.Join(dir, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	g.Name = name
	j := compiled(t, g)
	sets, err := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
	if err != nil || len(sets) == 0 {
		t.Fatalf("no test data in %s: %v", dir, err)
	}
	for _, s := range sets {
		var call []artifact.GoldenTensor
		for k, p := range g.Body.Params {
			b, err := os.ReadFile(filepath.Join(s, fmt.Sprintf("input_%d.pb", k)))
			if err != nil {
				t.Fatal(err)
			}
			_, d, err := onnx.ReadTensor(b)
			if err != nil {
				t.Fatal(err)
			}
			call = append(call, artifact.GoldenTensor{Name: p.Name, DType: d.DType.String(), Shape: append([]int64{}, d.Dims...),
				Data: d.Bytes, Strings: d.Strings})
		}
		j.Calls = append(j.Calls, call)
	}
	return j
}

// goStepJob puts the example step in front of a model that passes its inputs on.
func goStepJob(t *testing.T) Job {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command to build the example step with")
	}
	file := filepath.Join(t.TempDir(), "standardize.wasm")
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s", "-o", file, "../../../examples/steps/go")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the step: %v\n%s", err, b)
	}
	code, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dims := []ir.Dim{{Sym: "N"}, {Sym: "C"}}
	x := &ir.Value{Name: "x", Type: ir.Type{DType: ir.F64, Shape: ir.Shape{Ranked: true, Dims: dims}}}
	y := &ir.Value{Name: "y", Type: x.Type}
	j := compiled(t, &ir.Graph{Name: "step", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Neg", Name: "negate", Ins: []*ir.Value{x}, Outs: []*ir.Value{y}}}}})
	m := j.Interface.Inputs[0]
	m.Name = "m"
	peak := artifact.Port{Name: "peak", Kind: "tensor", DType: "f64", Ranked: true, Shape: []artifact.Dim{{Size: -1, Sym: "N"}}}
	j.Interface.Steps = append([]artifact.Step{{Kind: "step", Name: "standardize",
		File:   artifact.FileRef{Path: "steps/standardize.wasm", Digest: artifact.DigestOf(code), Size: int64(len(code))},
		Inputs: []artifact.Port{m}, Outputs: []artifact.Port{j.Interface.Inputs[0], peak}}}, j.Interface.Steps...)
	j.Interface.Inputs = []artifact.Port{m}
	j.Interface.Outputs = append(j.Interface.Outputs, peak)
	j.Steps = map[string]string{"steps/standardize.wasm": file}
	for _, rows := range []int{1, 7, 300} {
		v := make([]float64, rows*3)
		for i := range v { // a linear congruential generator: the same numbers everywhere
			v[i] = float64(uint32(i)*2654435761%100003)/977 - math.Pi
		}
		j.Calls = append(j.Calls, []artifact.GoldenTensor{probe.ToGolden("m", engine.Of(v, int64(rows), 3))})
	}
	return j
}

// The comparison must be able to fail: one bit in one output is a difference and another hash.
func TestOneBitIsADifference(t *testing.T) {
	v := []float32{1, 2, 3}
	a := Result{Calls: [][]artifact.GoldenTensor{{probe.ToGolden("y", engine.Of(v))}}}
	v[2] = math.Float32frombits(math.Float32bits(v[2]) ^ 1)
	b := Result{Calls: [][]artifact.GoldenTensor{{probe.ToGolden("y", engine.Of(v))}}}
	ha, err := Hash(a)
	if err != nil {
		t.Fatal(err)
	}
	hb, err := Hash(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(t, b, a); ha == hb || !strings.Contains(d, "element 2") {
		t.Errorf("hashes %s %s, difference %q", ha, hb, d)
	}
}
