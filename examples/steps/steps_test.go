// Package steps_test builds the example steps with their own toolchains and runs them in the engine.
package steps_test

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// missing skips, or fails where everything must be at hand.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func build(t *testing.T, dir, tool string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "step.wasm")
	for i, a := range args {
		if a == "OUT" {
			args[i] = out
		}
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", tool, args, err, b)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// load makes code the one step before a model that has nothing to do with it.
func load(t *testing.T, code []byte, in, out []artifact.Port) *engine.Model {
	t.Helper()
	b := ir.NewBuilder()
	x := b.Param("seed", ir.Type{DType: ir.F32, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{{N: 1}}}})
	g, err := b.Graph("m", b.Op("negated", "Neg", nil, x))
	if err != nil {
		t.Fatal(err)
	}
	c, err := codegen.Compile(g, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seed := artifact.Port{Name: "seed", Kind: "tensor", DType: "f32", Ranked: true, Shape: []artifact.Dim{{Size: 1}}}
	negated := seed
	negated.Name = "negated"
	f := &artifact.Interface{Schema: artifact.InterfaceSchema, Name: "m", Version: "1", ABI: abi.Version, Nodes: c.Nodes,
		Inputs: append([]artifact.Port{seed}, in...), Outputs: out,
		Module: artifact.FileRef{Path: "m", Digest: artifact.DigestOf(c.Module)},
		Memory: artifact.Memory{Heap: c.HeapBase, Context: c.CtxSize, Arena: 1 << 16},
		Steps: []artifact.Step{
			{Kind: "step", Name: "step", File: artifact.FileRef{Path: "s", Digest: artifact.DigestOf(code)}, Inputs: in, Outputs: out},
			{Kind: "model", Name: "m", Inputs: []artifact.Port{seed}, Outputs: []artifact.Port{negated}},
		}}
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	m, err := e.Load(t.Context(), c.Module, engine.WeightsSource{}, f, engine.StepModule{Path: "s", Code: code})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func port(name, dtype string) artifact.Port {
	return artifact.Port{Name: name, Kind: "tensor", DType: dtype}
}

func run(t *testing.T, m *engine.Model, in engine.Tensor) []engine.Tensor {
	t.Helper()
	outs, err := m.Run(t.Context(), []engine.Tensor{engine.Of([]float32{1}, 1), in})
	if err != nil {
		t.Fatal(err)
	}
	return outs
}

func refuses(t *testing.T, m *engine.Model, in engine.Tensor, code abi.Code) {
	t.Helper()
	_, err := m.Run(t.Context(), []engine.Tensor{engine.Of([]float32{1}, 1), in})
	var g *engine.GuestError
	if !errors.As(err, &g) || g.Code != code {
		t.Errorf("error %v, want code %d", err, code)
	}
}

func values[T engine.Number](t *testing.T, x engine.Tensor) []T {
	t.Helper()
	v, err := engine.Values[T](x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestC(t *testing.T) {
	clang, err := exec.LookPath("clang")
	if err != nil {
		missing(t, "no clang on this machine: it builds the step in C (Debian: apt install clang lld)")
	}
	if _, err := exec.LookPath("wasm-ld"); err != nil {
		missing(t, "no wasm-ld on this machine: it links the step in C (Debian: apt install lld)")
	}
	code := build(t, "c", clang, "--target=wasm32", "-O2", "-Wall", "-Wextra", "-Werror", "-nostdlib", "-ffreestanding", "-mbulk-memory", "-Wl,--no-entry", "-o", "OUT", "step.c")
	m := load(t, code, []artifact.Port{port("x", "f64")}, []artifact.Port{port("y", "f32")})
	got := run(t, m, engine.Of([]float64{1, -9, math.NaN(), math.Inf(1), 0.5, -0.25}, 2, 3))
	want := []float32{0.25, -1, 0, 1, 0.125, -0.0625}
	if !engine.Equal(got[0], engine.Of(want, 2, 3)) {
		t.Errorf("got %v, want %v", values[float32](t, got[0]), want)
	}
	big := make([]float64, 3<<20) // several resumes, and an arena that must grow
	for i := range big {
		big[i] = float64(i%9) - 4
	}
	for i, v := range values[float32](t, run(t, m, engine.Of(big))[0]) {
		if v != float32(i%9-4)/4 {
			t.Fatalf("element %d is %v", i, v)
		}
	}
	if got := run(t, m, engine.Of([]float64{}, 0, 4)); len(values[float32](t, got[0])) != 0 {
		t.Error("an empty tensor did not stay empty")
	}
}

func TestRust(t *testing.T) {
	// A rustup toolchain without the target hides the system's that has it.
	rustc := ""
	for _, c := range []string{"rustc", "/usr/bin/rustc"} {
		p, err := exec.LookPath(c)
		if err != nil {
			continue
		}
		dir, err := exec.CommandContext(t.Context(), p, "--print", "target-libdir", "--target", "wasm32-unknown-unknown").Output()
		if err != nil || len(dir) == 0 {
			continue
		}
		if _, err := os.Stat(string(dir[:len(dir)-1])); err == nil {
			rustc = p
			break
		}
	}
	if rustc == "" {
		missing(t, "no rustc with the target wasm32-unknown-unknown on this machine: it builds the step in Rust (Debian: apt install rustc libstd-rust-dev-wasm32)")
	}
	code := build(t, "rust", rustc, "--edition", "2021", "--target", "wasm32-unknown-unknown", "-O", "-C", "panic=abort", "-C", "lto", "-o", "OUT", "step.rs")
	m := load(t, code, []artifact.Port{port("scores", "f32")}, []artifact.Port{port("best", "i64"), port("score", "f32"), port("margin", "f32")})
	for range 2 { // started anew for each call
		got := run(t, m, engine.Of([]float32{0.25, 0.5, 0.125, 2, 1, 1.5, -1, -1, -1}, 3, 3))
		if !engine.Equal(got[0], engine.Of([]int64{1, 0, 0})) || !engine.Equal(got[1], engine.Of([]float32{0.5, 2, -1})) ||
			!engine.Equal(got[2], engine.Of([]float32{0.25, 0.5, 0})) {
			t.Errorf("got %v %v %v", values[int64](t, got[0]), values[float32](t, got[1]), values[float32](t, got[2]))
		}
	}
	big := make([]float32, 1<<21)
	for i := range 1 << 20 {
		big[2*i+i%2] = 1
	}
	for i, v := range values[int64](t, run(t, m, engine.Of(big, 1<<20, 2))[0]) {
		if v != int64(i%2) {
			t.Fatalf("row %d: %d", i, v)
		}
	}
	refuses(t, m, engine.Of([]float32{1}, 1), abi.ErrRank)
	refuses(t, m, engine.Of([]float32{1}, 1, 1), abi.ErrDim)
	if got := run(t, m, engine.Of([]float32{}, 0, 4)); len(values[int64](t, got[0])) != 0 {
		t.Error("no rows gave some")
	}
}

func TestAssemblyScript(t *testing.T) {
	asc, err := filepath.Abs(filepath.Join("assemblyscript", "node_modules", ".bin", "asc"))
	if err == nil {
		_, err = os.Stat(asc)
	}
	if err != nil {
		if asc, err = exec.LookPath("asc"); err != nil {
			missing(t, "no AssemblyScript compiler: it builds the step in AssemblyScript (npm install in examples/steps/assemblyscript)")
		}
	}
	code := build(t, "assemblyscript", asc, "step.ts", "--runtime", "minimal", "--optimize", "--outFile", "OUT")
	m := load(t, code, []artifact.Port{port("text", "string")}, []artifact.Port{port("input", "string")})
	in := []string{"  Hello\t World \n", "", " ", "ÄB c", "x"}
	want := []string{"hello world", "", "", "Äb c", "x"}
	if got := run(t, m, engine.OfStrings(in, 5, 1)); !engine.Equal(got[0], engine.OfStrings(want, 5, 1)) {
		t.Errorf("got %q", got[0].Strings)
	}
	long := make([]string, 20000)
	for i := range long {
		long[i] = "  A  lot of\r\nTEXT "
	}
	for i, s := range run(t, m, engine.OfStrings(long))[0].Strings {
		if s != "a lot of text" {
			t.Fatalf("string %d is %q", i, s)
		}
	}
}
