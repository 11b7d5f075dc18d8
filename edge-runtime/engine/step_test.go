package engine

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// goStep builds examples/steps/go with the toolchain that runs the tests.
func goStep(t *testing.T) []byte {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command on this machine: it builds the example step")
	}
	out := filepath.Join(t.TempDir(), "step.wasm")
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s", "-o", out, "../../examples/steps/go")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the example step: %v\n%s", err, b)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// chain puts a step before the doubler: matrix m -> (x, peak), x -> y.
func chain(step, model []byte) *artifact.Interface {
	i := iface(model, nil, nil)
	i.Inputs = []artifact.Port{port("m", "f64", -1, -1)}
	i.Outputs = []artifact.Port{port("y", "f32", -1), port("peak", "f64", -1)}
	m := i.Steps[0]
	m.Inputs, m.Outputs = []artifact.Port{port("v", "f32", -1)}, []artifact.Port{port("y", "f32", -1)}
	i.Inputs = append(i.Inputs, port("v", "f32", -1))
	i.Steps = []artifact.Step{{Kind: "step", Name: "standardize",
		File:   artifact.FileRef{Path: "steps/standardize.wasm", Digest: artifact.DigestOf(step), Size: int64(len(step))},
		Inputs: []artifact.Port{port("m", "f64", -1, -1)}, Outputs: []artifact.Port{port("x", "f64", -1, -1), port("peak", "f64", -1)}}, m}
	return i
}

type lines struct {
	mu sync.Mutex
	l  []string
}

func (l *lines) add(step, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.l = append(l.l, step+": "+line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.l, "\n")
}

func TestGoStepInChain(t *testing.T) {
	step, model := goStep(t), doubler().bytes()
	modes(t, func(t *testing.T, mode Mode) {
		if mode == Interpreter && testing.Short() {
			t.Skip("the interpreter takes a while to start a Go guest")
		}
		var log lines
		e := newEngine(t, Config{Mode: mode, Log: log.add})
		m, err := e.Load(t.Context(), model, WeightsSource{}, chain(step, model), StepModule{"steps/standardize.wasm", step})
		if err != nil {
			t.Fatal(err)
		}
		in := Of([]float64{1, 10, 2, 20, 6, 30}, 3, 2)
		var first []Tensor
		for k := range 3 { // each call in a fresh instance: the same bits, the same log
			outs, err := m.Run(t.Context(), []Tensor{in, Of([]float32{1, 2})})
			if err != nil {
				t.Fatal(err)
			}
			if k == 0 {
				first = outs
			}
			for i := range outs {
				if !Equal(outs[i], first[i]) {
					t.Errorf("call %d: output %d differs", k, i)
				}
			}
		}
		peak, err := Values[float64](first[1])
		if err != nil {
			t.Fatal(err)
		}
		std1 := math.Sqrt((4 + 1 + 9) / 3.0)
		want := []float64{math.Sqrt(1.5), 1 / std1, 3 / std1}
		for i := range want {
			if math.Abs(peak[i]-want[i]) > 1e-12 {
				t.Errorf("peak[%d]=%v, want %v", i, peak[i], want[i])
			}
		}
		if got := log.String(); strings.Count(got, "standardize: standardize: 3 rows, 2 columns") != 3 {
			t.Errorf("log %q", got)
		}
		// A wrong rank is the step's own error record.
		ifc := chain(step, model)
		ifc.Inputs[0].Ranked, ifc.Inputs[0].Shape = false, nil
		m2, err := e.Load(t.Context(), model, WeightsSource{}, ifc, StepModule{"steps/standardize.wasm", step})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m2.Run(t.Context(), []Tensor{Of([]float64{1}), Of([]float32{1})})
		var g *GuestError
		if !errors.As(err, &g) || g.Code != abi.ErrRank || g.Input != "m" {
			t.Errorf("error %v", err)
		}
	})
}

func TestStepIntegrity(t *testing.T) {
	model := doubler().bytes()
	step := []byte("not the step")
	ifc := chain([]byte("the step"), model)
	e := newEngine(t, Config{})
	if _, err := e.Load(t.Context(), model, WeightsSource{}, ifc, StepModule{"steps/standardize.wasm", step}); !errors.Is(err, ErrIntegrity) {
		t.Errorf("error %v", err)
	}
	if _, err := e.Load(t.Context(), model, WeightsSource{}, ifc); err == nil || !strings.Contains(err.Error(), "was not given") {
		t.Errorf("error %v", err)
	}
}

// stepIface makes code the step of a chain whose model is the doubler.
func loadStep(t *testing.T, cfg Config, code []byte) (*Model, error) {
	t.Helper()
	model := doubler().bytes()
	i := iface(model, []artifact.Port{port("x", "f32", -1)}, []artifact.Port{port("y", "f32", -1)})
	st := artifact.Step{Kind: "step", Name: "step", File: artifact.FileRef{Path: "s", Digest: artifact.DigestOf(code)},
		Inputs: i.Inputs, Outputs: []artifact.Port{port("z", "f32", -1)}}
	i.Steps = append([]artifact.Step{st}, i.Steps...)
	return newEngine(t, cfg).Load(t.Context(), model, WeightsSource{}, i, StepModule{"s", code})
}

func TestStepImports(t *testing.T) {
	for _, c := range []struct{ mod, name, want string }{
		{wasiModule, "sock_accept", "not in the set"},
		{"env", "memcpy", "not in the set"},
		{"wasi_unstable", "fd_write", "not in the set"},
		{wasiModule, "proc_exit", "unknown signature"},
	} {
		m := doubler()
		m.imports = [][2]string{{c.mod, c.name}}
		_, err := loadStep(t, Config{}, m.bytes())
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.mod+"."+c.name) {
			t.Errorf("%s.%s: error %v, want %q", c.mod, c.name, err, c.want)
		}
	}
	m := doubler()
	m.fns = append(m.fns, fn{"_start", 0, 0, 0, nil})
	if _, err := loadStep(t, Config{}, m.bytes()); err == nil || !strings.Contains(err.Error(), "reactor") {
		t.Errorf("a command was loaded: %v", err)
	}
}

// A step that never returns is interrupted inside its loop; the model behind it stays usable.
func TestStepInterrupted(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		code := variant(con(0), cat([]byte{0x03, 0x40, 0x0c, 0}, end, con(0)), con(0)) // loop: br 0
		m, err := loadStep(t, Config{Mode: mode}, code)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		_, err = m.Run(ctx, []Tensor{Of(ramp(1))})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// A step that is not declared reentrant sees fresh memory in each call.
func TestStepIsReset(t *testing.T) {
	// Fails with code 70 when address 600 was written by an earlier call.
	resume := cat(con(600), load(0), ifThen(fail(70, 0, conL(0), conL(0))), con(600), con(1), store(0),
		putOut(cat(in(), load(abi.DescData)), cat(in(), load(abi.DescBytes))), con(0))
	m, err := loadStep(t, Config{Instances: 1}, variant(con(0), resume, con(0)))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := m.Run(t.Context(), []Tensor{Of(ramp(2))}); err != nil {
			t.Fatal(err)
		}
	}
	m.chain[0].reentrant = true // the test of the test: without the reset the second call fails
	_, _ = m.Run(t.Context(), []Tensor{Of(ramp(2))})
	var g *GuestError
	if _, err := m.Run(t.Context(), []Tensor{Of(ramp(2))}); !errors.As(err, &g) || g.Code != 70 {
		t.Errorf("a reentrant instance was reset: %v", err)
	}
}

// The random stream and the clock are constants of the specification.
func TestSandboxIsFixed(t *testing.T) {
	a, b := newSandbox("a", nil), newSandbox("b", nil)
	x, y := make([]byte, 100), make([]byte, 100)
	a.fill(x[:33])
	a.fill(x[33:])
	b.fill(y)
	if string(x) != string(y) {
		t.Error("the random stream depends on how it is read")
	}
	if a.tick() != clockStart+clockTick || a.tick() != clockStart+2*clockTick {
		t.Error("the clock does not start at its epoch")
	}
	var log lines
	s := newSandbox("s", log.add)
	s.write([]byte("one\ntw"))
	s.write([]byte("o\xff\n"))
	if log.String() != "s: one\ns: two\uFFFD" {
		t.Errorf("log %q", log.String())
	}
}
