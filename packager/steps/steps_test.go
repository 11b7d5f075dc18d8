package steps_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/steps"
)

// load makes code the one step before a model that has nothing to do with it.
func load(t testing.TB, cfg engine.Config, code []byte, in, out []artifact.Port) *engine.Model {
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
	seed, negated := port("seed", "f32"), port("negated", "f32")
	f := &artifact.Interface{Name: "m", ABI: abi.Version, Nodes: c.Nodes, Inputs: append([]artifact.Port{seed}, in...), Outputs: out,
		Module: artifact.FileRef{Path: "m", Digest: artifact.DigestOf(c.Module)},
		Memory: artifact.Memory{Heap: c.HeapBase, Context: c.CtxSize, Arena: 1 << 16},
		Steps: []artifact.Step{
			{Kind: "step", Name: "step", Reentrant: true, File: artifact.FileRef{Path: "s", Digest: artifact.DigestOf(code)}, Inputs: in, Outputs: out},
			{Kind: "model", Name: "m", Inputs: []artifact.Port{seed}, Outputs: []artifact.Port{negated}},
		}}
	e, err := engine.New(t.Context(), cfg)
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

func call(t testing.TB, m *engine.Model, in engine.Tensor) ([]engine.Tensor, error) {
	return m.Run(t.Context(), []engine.Tensor{engine.Of([]float32{1}, 1), in})
}

// The committed modules are what build.sh makes of the sources.
func TestRebuild(t *testing.T) {
	const want = "14.0.6"
	if runtime.GOOS == "windows" {
		t.Skip("build.sh needs bash")
	}
	v, err := exec.CommandContext(t.Context(), "clang", "-dumpversion").Output()
	if err != nil || strings.TrimSpace(string(v)) != want {
		t.Skipf("no clang %s on this machine (%q, %v): another one makes other bytes", want, v, err)
	}
	dir := t.TempDir()
	if b, err := exec.CommandContext(t.Context(), "bash", "build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, b)
	}
	have, err := filepath.Glob("*.wasm")
	if err != nil || len(have) == 0 {
		t.Fatal(have, err)
	}
	for _, f := range have {
		a, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from what its source gives: run packager/steps/build.sh", f)
		}
	}
}

func TestTopK(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ rows, cols, k int }{{1, 1, 1}, {3, 5, 2}, {2, 7, 7}, {0, 4, 1}, {700, 1000, 5}} {
		labels := make([]string, c.cols)
		for i := range labels {
			labels[i] = strings.Repeat("é", i%3) + "class " + strconv.Itoa(i)
		}
		scores := make([]float32, c.rows*c.cols)
		for i := range scores {
			scores[i] = float32(r.IntN(9)) // many are equal
			if r.IntN(8) == 0 {
				scores[i] = float32(math.NaN())
			}
		}
		var wantIndex []int64
		var wantNames []string
		var wantScore []float32
		for i := range c.rows {
			row := scores[i*c.cols : (i+1)*c.cols]
			order := make([]int, c.cols)
			for j := range order {
				order[j] = j
			}
			sort.SliceStable(order, func(a, b int) bool {
				x, y := row[order[a]], row[order[b]]
				return x > y || y != y && x == x
			})
			for _, j := range order[:c.k] {
				wantIndex, wantNames, wantScore = append(wantIndex, int64(j)), append(wantNames, labels[j]), append(wantScore, row[j])
			}
		}
		shape := []int64{int64(c.rows), int64(c.k)}
		for _, named := range []bool{true, false} {
			first, use := port("names", "string"), labels
			want := engine.OfStrings(wantNames, shape...)
			if !named {
				first, use, want = port("indices", "i64"), nil, engine.Of(wantIndex, shape...)
			}
			code, err := steps.TopK(int64(c.k), use)
			if err != nil {
				t.Fatal(err)
			}
			again, err := steps.TopK(int64(c.k), use)
			if err != nil || !bytes.Equal(code, again) {
				t.Error("two configurations of the same step differ")
			}
			m := load(t, engine.Config{Poison: true}, code, []artifact.Port{port("scores", "f32")}, []artifact.Port{first, port("best", "f32")})
			for range 2 {
				outs, err := call(t, m, engine.Of(scores, int64(c.rows), int64(c.cols)))
				if err != nil {
					t.Fatal(err)
				}
				if !engine.Equal(outs[0], want) {
					t.Errorf("%v: classes differ", c)
				}
				got, err := engine.Values[float32](outs[1])
				if err != nil || len(got) != len(wantScore) {
					t.Fatal(err)
				}
				for i := range got {
					if got[i] != wantScore[i] && (got[i] == got[i] || wantScore[i] == wantScore[i]) {
						t.Fatalf("%v: score %d is %v, want %v", c, i, got[i], wantScore[i])
					}
				}
			}
			if c.rows == 3 {
				one, err := call(t, m, engine.Of(scores[:c.cols], int64(c.cols)))
				if err != nil || len(one[1].Shape) != 1 {
					t.Errorf("one row: %v", err)
				}
				var g *engine.GuestError
				if _, err := call(t, m, engine.Of(scores[:1], 1, 1)); !errors.As(err, &g) || g.Code != abi.ErrDim {
					t.Errorf("one column: %v", err)
				}
				if _, err := call(t, m, engine.Of(scores[:1], 1, 1, 1)); !errors.As(err, &g) || g.Code != abi.ErrRank {
					t.Errorf("rank 3: %v", err)
				}
			}
		}
	}
	for _, c := range []struct {
		k      int64
		labels []string
	}{{0, nil}, {steps.MaxK + 1, nil}, {2, []string{"a"}}, {1, []string{"\xff"}}} {
		if _, err := steps.TopK(c.k, c.labels); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// wazero miscompiles remainders on arm64 (docs/RATIONALE.md), so no module has that instruction.
func TestNoRemainder(t *testing.T) {
	tool, err := exec.LookPath("llvm-objdump")
	if err != nil {
		t.Skip("no llvm-objdump to read the modules with")
	}
	for _, f := range []string{"audio.wasm", "image.wasm", "text.wasm", "topk.wasm"} {
		b, err := exec.CommandContext(t.Context(), tool, "-d", f).Output()
		if err != nil || !bytes.Contains(b, []byte("i32.add")) {
			t.Skipf("%s cannot read %s: %v", tool, f, err)
		}
		if bytes.Contains(b, []byte("rem_u")) || bytes.Contains(b, []byte("rem_s")) {
			t.Errorf("%s has a remainder instruction: write wb_rem in its source", f)
		}
	}
}
