package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func ramp(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i) / 4
	}
	return v
}

func modes(t *testing.T, f func(t *testing.T, mode Mode)) {
	for _, m := range []Mode{Compiler, Interpreter} {
		t.Run(m.String(), func(t *testing.T) {
			if m == Compiler {
				if err := tryCompiler(t.Context()); err != nil {
					t.Skipf("no compiler on this machine: %v", err)
				}
			}
			f(t, m)
		})
	}
}

// The doubler goes through every status: need-memory, parallel, more, done.
func TestRunAllStatuses(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		for _, threads := range []int{1, 3} {
			e := newEngine(t, Config{Mode: mode, Threads: threads, Poison: true})
			code := doubler().bytes()
			m := mustLoad(t, e, code, vectorIface(code))
			for _, n := range []int{0, 1, 3, 7, 50000, 3} {
				in := ramp(n)
				outs, err := m.Run(t.Context(), []Tensor{Of(in)})
				if err != nil {
					t.Fatalf("n=%d: %v", n, err)
				}
				got, err := Values[float32](outs[0])
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != n {
					t.Fatalf("n=%d: %d results", n, len(got))
				}
				for i := range got {
					if got[i] != 2*in[i] {
						t.Fatalf("n=%d: y[%d]=%v, want %v", n, i, got[i], 2*in[i])
					}
				}
			}
			if p := m.PeakMemory(); p < 400000 {
				t.Errorf("peak memory %d after a call that needs more than 400000", p)
			}
		}
	})
}

func TestConcurrentRuns(t *testing.T) {
	e := newEngine(t, Config{Instances: 3})
	code := doubler().bytes()
	m := mustLoad(t, e, code, vectorIface(code))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := range 50 {
				in := ramp(1 + (g*37+k)%300)
				outs, err := m.Run(t.Context(), []Tensor{Of(in)})
				if err != nil {
					t.Error(err)
					return
				}
				got, _ := Values[float32](outs[0])
				for i := range in {
					if got[i] != 2*in[i] {
						t.Errorf("wrong answer")
						return
					}
				}
			}
		}()
	}
	wg.Wait()
}

func TestInputErrors(t *testing.T) {
	e := newEngine(t, Config{})
	code := doubler().bytes()
	ifc := vectorIface(code)
	ifc.Limits.MaxBatch = 100
	m := mustLoad(t, e, code, ifc)
	for _, c := range []struct {
		name string
		ins  []Tensor
		want string
	}{
		{"count", nil, "1 inputs, 0 were given"},
		{"dtype", []Tensor{Of([]float64{1})}, "element type is f64, the model has f32"},
		{"rank", []Tensor{Of([]float32{1}, 1, 1)}, "rank 2"},
		{"bytes", []Tensor{{DType: abi.F32, Shape: []int64{3}, Data: make([]byte, 8)}}, "needs 12 bytes, there are 8"},
		{"negative", []Tensor{{DType: abi.F32, Shape: []int64{-3}}}, "negative"},
		{"overflow", []Tensor{{DType: abi.F32, Shape: []int64{1 << 40, 1 << 40}}}, "too many"},
		{"kind", []Tensor{{Kind: abi.Sequence}}, "sequence"},
		{"batch", []Tensor{Of(ramp(101))}, "at most 100"},
	} {
		_, err := m.Run(t.Context(), c.ins)
		var in *InputError
		if !errors.As(err, &in) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want an InputError with %q", c.name, err, c.want)
		}
	}
}

// The host's own shape check is passed by an interface that leaves the rank open; then the guest's record speaks.
func TestGuestErrorRecord(t *testing.T) {
	e := newEngine(t, Config{})
	code := doubler().bytes()
	ifc := vectorIface(code)
	ifc.Inputs[0].Ranked = false
	ifc.Inputs[0].Shape = nil
	m := mustLoad(t, e, code, ifc)
	_, err := m.Run(t.Context(), []Tensor{Of([]float32{1, 2}, 1, 2)})
	var g *GuestError
	if !errors.As(err, &g) || g.Code != abi.ErrRank || !g.InputFault() {
		t.Fatalf("error %v", err)
	}
	if want := `test: Mul second: input "x" has rank 2`; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %q, want it to start with %q", err, want)
	}
	if _, err := m.Run(t.Context(), []Tensor{Of(ramp(4))}); err != nil {
		t.Errorf("after a guest error: %v", err)
	}
}

func variant(bind, resume, part []byte) []byte {
	return mod{fns: frame(testHeap, bind, resume, part), min: 2}.bytes()
}

// A trap names the node the guest was at, and the next call gets a fresh instance.
func TestTrapDiscardsInstance(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		// The address 600 counts calls in this instance: a call into a used instance traps differently.
		resume := cat(get(0), con(1), store(abi.CtxErrNode),
			con(600), load(0), ifThen(fail(70, 0, conL(0), conL(0))),
			con(600), con(1), store(0), trap)
		code := variant(con(0), resume, con(0))
		m := mustLoad(t, newEngine(t, Config{Mode: mode}), code, vectorIface(code))
		for range 3 {
			_, err := m.Run(t.Context(), []Tensor{Of(ramp(1))})
			var tr *TrapError
			if !errors.As(err, &tr) || tr.Node != "Mul second" {
				t.Fatalf("error %v, want a trap at node Mul second", err)
			}
		}
	})
}

func TestProtocolErrors(t *testing.T) {
	outAt := func(data, bytes int64) []byte { return cat(putOut(con(data), con(bytes)), con(0)) }
	for _, c := range []struct {
		name   string
		resume []byte
		part   []byte
		want   string
	}{
		{"status", con(9), con(0), "status 9"},
		{"no parts", cat(get(0), con(0), store(abi.CtxWant), con(2)), con(0), "section of 0 parts"},
		{"too many parts", cat(get(0), con(-1), store(abi.CtxWant), con(2)), con(0), "section of 4294967295 parts"},
		{"part status", cat(get(0), con(2), store(abi.CtxWant), con(2)), con(1), "part returned status 1"},
		{"no memory wanted", cat(get(0), con(0), store(abi.CtxWant), con(3)), con(0), "asks for 0 bytes"},
		{"data outside", outAt(-16, 8), con(0), "outside of the memory"},
		{"length", outAt(0, 4), con(0), "needs 8 bytes, the module says 4"},
		{"no output", con(0), con(0), "unknown element type 0"},
		{"no error code", cat(get(0), con(0), store(abi.CtxErrCode), con(4)), con(0), "unknown error 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code := variant(con(0), c.resume, c.part)
			m := mustLoad(t, newEngine(t, Config{}), code, vectorIface(code))
			_, err := m.Run(t.Context(), []Tensor{Of(ramp(2))})
			var p *ProtocolError
			if !errors.As(err, &p) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want a ProtocolError with %q", err, c.want)
			}
		})
	}
}

func TestDeadlineBetweenResumes(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		code := variant(con(0), con(int64(abi.More)), con(0)) // never done
		m := mustLoad(t, newEngine(t, Config{Mode: mode}), code, vectorIface(code))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := m.Run(ctx, []Tensor{Of(ramp(1))})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func TestMemoryLimit(t *testing.T) {
	code := variant(con(0), cat(get(0), con(1<<20), store(abi.CtxWant), con(int64(abi.NeedMemory))), con(0)) // never enough
	m := mustLoad(t, newEngine(t, Config{MemoryLimit: 8 << 20}), code, vectorIface(code))
	_, err := m.Run(t.Context(), []Tensor{Of(ramp(1))})
	if !errors.Is(err, ErrMemoryLimit) {
		t.Errorf("error %v, want ErrMemoryLimit", err)
	}
	if p := m.PeakMemory(); p > 8<<20 {
		t.Errorf("peak memory %d exceeds the limit", p)
	}
	big := doubler()
	big.min = 4096
	code = big.bytes()
	_, err = newEngine(t, Config{MemoryLimit: 8 << 20}).Load(t.Context(), code, WeightsSource{}, vectorIface(code))
	if err == nil {
		t.Error("a module that starts above the limit was loaded")
	}
}

func TestLoadRefuses(t *testing.T) {
	edit := func(f func(m *mod)) []byte { m := doubler(); f(&m); return m.bytes() }
	drop := func(name string) []byte {
		return edit(func(m *mod) {
			var keep []fn
			for _, f := range m.fns {
				if f.name != name {
					keep = append(keep, f)
				}
			}
			m.fns = keep
		})
	}
	for _, c := range []struct {
		name string
		code []byte
		want string
	}{
		{"not wasm", []byte("\x7fELF"), "not a module"},
		{"truncated", doubler().bytes()[:200], "not a module"},
		{"import", edit(func(m *mod) { m.imports = [][2]string{{"env", "gettimeofday"}} }), "imports env.gettimeofday; a model may import nothing"},
		{"allowed for steps only", edit(func(m *mod) { m.imports = [][2]string{{wasiModule, "sched_yield"}} }), "a model may import nothing"},
		{"start", edit(func(m *mod) { m.fns = append([]fn{{"go", 0, 0, 0, nil}}, m.fns...); m.start = true }), "start function"},
		{"initialize", edit(func(m *mod) { m.fns = append(m.fns, fn{"_initialize", 0, 0, 0, nil}) }), "_initialize"},
		{"memory", edit(func(m *mod) { m.noMemory = true }), "memory"},
		{"bind", drop(abi.ExportBind), abi.ExportBind},
		{"heap", drop(abi.ExportHeap), "no Waybill guest"},
		{"both", edit(func(m *mod) { m.fns = append(m.fns, fn{abi.ExportAlloc, 1, 1, 0, con(0)}) }), "both"},
		{"signature", edit(func(m *mod) { m.fns[3].params = 2 }), "wrong signature"},
		{"abi version", edit(func(m *mod) { m.fns[0].body = con(7) }), "version 7 of the ABI"},
		{"ctx", edit(func(m *mod) { m.fns[1].body = con(8) }), "context of 8 bytes"},
		{"heap differs", edit(func(m *mod) { m.fns[2].body = con(2048) }), "differ from the interface document"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t, Config{})
			_, err := e.Load(t.Context(), c.code, WeightsSource{}, vectorIface(c.code))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoadChecksDocument(t *testing.T) {
	e := newEngine(t, Config{})
	code := doubler().bytes()
	for _, c := range []struct {
		name string
		edit func(i *artifact.Interface)
		want string
	}{
		{"digest", func(i *artifact.Interface) { i.Module.Digest = artifact.DigestOf([]byte("x")) }, "does not match its digest"},
		{"abi", func(i *artifact.Interface) { i.ABI = 2 }, "version 2 of the ABI"},
		{"no model", func(i *artifact.Interface) { i.Steps = nil }, "lists 0 models"},
		{"kind", func(i *artifact.Interface) { i.Steps[0].Kind = "magic" }, "unknown kind"},
		{"wiring", func(i *artifact.Interface) { i.Steps[0].Inputs = []artifact.Port{port("z", "f32", -1)} }, `needs "z"`},
		{"output", func(i *artifact.Interface) { i.Outputs = []artifact.Port{port("z", "f32", -1)} }, "provided by no step"},
		{"twice", func(i *artifact.Interface) { i.Inputs = append(i.Inputs, i.Inputs[0]) }, "twice"},
		{"weights", func(i *artifact.Interface) {
			i.Weights = &artifact.Weights{FileRef: artifact.FileRef{Path: "w", Size: 65536}}
		}, "needs its weights"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ifc := vectorIface(code)
			c.edit(ifc)
			_, err := e.Load(t.Context(), code, WeightsSource{}, ifc)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestClose(t *testing.T) {
	code := doubler().bytes()
	e := newEngine(t, Config{})
	m := mustLoad(t, e, code, vectorIface(code))
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context(), []Tensor{Of(ramp(1))}); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
