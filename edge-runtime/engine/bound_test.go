package engine

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine/meter"
)

func call1(i int) []byte { return append([]byte{0x10}, uleb(uint64(i))...) }

var (
	drop    = []byte{0x1a}
	grow    = []byte{0x40, 0}
	divU    = []byte{0x6e}
	forever = cat([]byte{0x03, 0x40, 0x0c, 0}, end) // loop: br 0
)

// Indexes of the functions of frame.
const (
	fnBind   = 3
	fnResume = 4
	fnPart   = 5
)

// turns counts down from n in the first local after two parameters, or after one.
func turns(n int64, at int) []byte {
	return cat(con(n), set(at), []byte{0x03, 0x40}, get(at), con(1), []byte{0x6b}, append([]byte{0x22}, uleb(uint64(at))...), []byte{0x0d, 0}, end)
}

// evilWhenAsked gives a module that does evil where it is told to, when the first input is not zero, and answers otherwise.
func evilWhenAsked(where string, evil []byte) mod {
	asked := cat(in(), load(abi.DescData), load(0), ifThen(evil))
	answer := cat(putOut(cat(in(), load(abi.DescData)), cat(in(), load(abi.DescBytes))), con(0))
	bind, resume, part := con(0), answer, con(0)
	switch where {
	case "bind":
		bind = cat(asked, con(0))
	case "resume":
		resume = cat(asked, answer)
	case "part":
		resume = cat(
			get(0), load(stState), con(0), eq, ifThen(cat(get(0), con(1), store(stState), get(0), con(4), store(abi.CtxWant), ret(int64(abi.Parallel)))),
			answer)
		bind = cat(get(0), con(0), store(stState), con(0))
		part = cat(asked, con(0))
	}
	return mod{fns: frame(testHeap, bind, resume, part), min: 2, max: 16}
}

var asked, peaceful = []Tensor{Of([]float32{1})}, []Tensor{Of([]float32{0})}

// hostile modules and what ends them. Those that loop are ended by the caller's context only.
var hostile = []struct {
	name, where string
	evil        []byte
	want        func(error) bool
	says        string
	loops       bool
}{
	{name: "loop in bind", where: "bind", evil: forever, loops: true},
	{name: "loop in resume", where: "resume", evil: forever, loops: true},
	{name: "loop in part", where: "part", evil: forever, loops: true},
	{name: "calls in a loop", where: "resume", evil: cat([]byte{0x03, 0x40}, get(0), call1(fnBind), drop, []byte{0x0c, 0}, end), loops: true},
	{name: "calls that double", where: "resume", evil: doubling(), loops: true},
	{name: "never done", where: "resume", evil: ret(int64(abi.More)), loops: true},
	{name: "parallel sections without end", where: "resume", evil: cat(get(0), con(3), store(abi.CtxWant), ret(int64(abi.Parallel))), loops: true},
	{name: "grows in a loop", where: "resume", evil: cat([]byte{0x03, 0x40}, con(1), grow, drop, []byte{0x0c, 0}, end), loops: true},
	{name: "fills in a loop", where: "resume", evil: cat([]byte{0x03, 0x40}, con(2048), con(1), con(100000), []byte{0xfc, 11, 0, 0x0c, 0}, end), loops: true},
	{name: "recursion", where: "resume", evil: cat(get(0), call1(fnResume), drop), want: isTrap, says: "nest too deep"},
	{name: "recursion in part", where: "part", evil: cat(get(0), get(1), call1(fnPart), drop), want: isTrap, says: "nest too deep"},
	{name: "unreachable", where: "resume", evil: trap, want: isTrap, says: "unreachable"},
	{name: "unreachable in part", where: "part", evil: trap, want: isTrap, says: "unreachable"},
	{name: "out of bounds", where: "resume", evil: cat(con(-8), load(0), drop), want: isTrap, says: "out of bounds"},
	{name: "store out of bounds", where: "bind", evil: cat(con(-8), con(1), store(0)), want: isTrap, says: "out of bounds"},
	{name: "division by zero", where: "resume", evil: cat(con(1), con(0), divU, drop), want: isTrap, says: "divide by zero"},
	{name: "memory that did not grow", where: "resume", evil: cat(con(1), grow, con(-1), ne, ifThen(ret(int64(abi.Done))), trap), want: isTrap, says: "unreachable"},
	{name: "all memory", where: "resume", evil: cat(get(0), con(-1), store(abi.CtxWant), ret(int64(abi.NeedMemory))), want: func(err error) bool { return errors.Is(err, ErrMemoryLimit) }},
	{name: "always more memory", where: "resume", evil: cat(get(0), con(4096), store(abi.CtxWant), ret(int64(abi.NeedMemory))), want: func(err error) bool { return errors.Is(err, ErrMemoryLimit) }},
	{name: "two thousand million parts", where: "resume", evil: cat(get(0), con(-1<<31), store(abi.CtxWant), ret(int64(abi.Parallel))), want: isProtocol, says: "2147483648 parts"},
	{name: "an impossible status", where: "bind", evil: ret(77), want: isProtocol, says: "status 77"},
}

// doubling is a function that calls itself twice, eighty deep: no loop, and no end either.
func doubling() []byte {
	// part(ctx, n) calls part(ctx, n-1) twice.
	return cat(get(0), con(80), call1(fnPart), drop)
}

func hostileModule(i int) mod {
	h := hostile[i]
	m := evilWhenAsked(h.where, h.evil)
	if h.name == "calls that double" {
		step := cat(get(0), get(1), con(1), []byte{0x6b}, call1(fnPart), drop)
		m.fns[fnPart].body = cat(get(1), ifThen(cat(step, step)), con(0))
	}
	if h.where == "resume" && strings.HasPrefix(h.name, "calls in") {
		m.fns[fnBind].body = con(0)
	}
	return m
}

func isTrap(err error) bool     { var t *TrapError; return errors.As(err, &t) }
func isProtocol(err error) bool { var p *ProtocolError; return errors.As(err, &p) }

// Whatever a module does, it ends its own call, for the right reason, and the next call works.
func TestHostileModules(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		for i, h := range hostile {
			t.Run(h.name, func(t *testing.T) {
				e := newEngine(t, Config{Mode: mode, Threads: 2, MemoryLimit: 8 << 20})
				code := hostileModule(i).bytes()
				m := mustLoad(t, e, code, vectorIface(code))
				for range 2 {
					ctx, cancel := context.WithCancel(t.Context())
					if h.loops {
						time.AfterFunc(5*time.Millisecond, cancel)
					}
					_, err := m.Run(ctx, asked)
					cancel()
					switch {
					case h.loops && !errors.Is(err, context.Canceled):
						t.Errorf("%v, want the cancellation", err)
					case h.loops:
					case mode == Interpreter && strings.Contains(h.says, "nest"):
						if !isTrap(err) {
							t.Errorf("%v", err)
						}
					case !h.want(err) || !strings.Contains(err.Error(), h.says):
						t.Errorf("%v, want %q", err, h.says)
					}
					outs, err := m.Run(t.Context(), peaceful)
					if err != nil || !Equal(outs[0], peaceful[0]) {
						t.Errorf("the call after it: %v", err)
					}
				}
				if p := m.PeakMemory(); p > 8<<20 {
					t.Errorf("%d bytes of memory", p)
				}
			})
		}
	})
}

// The limit of the engine ends what a caller without a deadline lets run.
func TestTimeLimit(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		for i, h := range hostile {
			if !h.loops {
				continue
			}
			e := newEngine(t, Config{Mode: mode, MemoryLimit: 8 << 20, TimeLimit: 10 * time.Millisecond})
			code := hostileModule(i).bytes()
			m := mustLoad(t, e, code, vectorIface(code))
			if _, err := m.Run(t.Context(), asked); !errors.Is(err, ErrTimeLimit) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", h.name, err)
			}
		}
		loop := variant(con(0), cat(forever, con(0)), con(0))
		m, err := loadStep(t, Config{Mode: mode, TimeLimit: 10 * time.Millisecond}, loop)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Run(t.Context(), asked); !errors.Is(err, ErrTimeLimit) {
			t.Errorf("a step: %v", err)
		}
	})
}

// What would loop before the first call is refused: a model may run nothing then, and constants are functions too. A step's start
// is ended.
func TestEndlessStart(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		for i := range 3 { // version, context, heap
			m := evilWhenAsked("resume", nil)
			m.fns[i].body = cat(forever, con(0))
			code := m.bytes()
			e := newEngine(t, Config{Mode: mode, TimeLimit: 10 * time.Millisecond})
			if _, err := e.Load(t.Context(), code, WeightsSource{}, vectorIface(code)); !isTrap(err) {
				t.Errorf("constant %d: %v", i, err)
			}
		}
		m := mod{fns: append([]fn{{"go", 0, 0, 0, forever}}, frame(testHeap, con(0), con(0), con(0))...), start: true, min: 1}
		if _, err := loadStep(t, Config{Mode: mode, TimeLimit: 10 * time.Millisecond}, m.bytes()); err == nil {
			t.Error("a step that never started was loaded")
		}
	})
}

// A module cannot make the host allocate a table of gigabytes.
func TestHugeTable(t *testing.T) {
	m := doubler()
	m.table = 100_000_000
	code := m.bytes()
	if _, err := newEngine(t, Config{}).Load(t.Context(), code, WeightsSource{}, vectorIface(code)); err == nil || !strings.Contains(err.Error(), "tables of 100000000 entries") {
		t.Errorf("model: %v", err)
	}
	if _, err := loadStep(t, Config{}, code); err == nil || !strings.Contains(err.Error(), "tables of 100000000 entries") {
		t.Errorf("step: %v", err)
	}
	m.table = 1000
	code = m.bytes()
	mustLoad(t, newEngine(t, Config{}), code, vectorIface(code))
}

// While a model loops, others are served and the garbage collector works; it is counted, not timed.
func TestLoopHoldsUpNobody(t *testing.T) {
	compilerOnly(t)
	e := newEngine(t, Config{Instances: 2})
	code := hostileModule(1).bytes() // loop in resume
	bad := mustLoad(t, e, code, vectorIface(code))
	code = doubler().bytes()
	good := mustLoad(t, e, code, vectorIface(code))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ended atomic.Bool
	done := make(chan error)
	go func() {
		_, err := bad.Run(ctx, asked)
		ended.Store(true)
		done <- err
	}()
	for range 200 {
		if _, err := good.Run(t.Context(), []Tensor{Of(ramp(10))}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		runtime.GC() // waits until no native code runs
	}
	if ended.Load() {
		t.Error("the loop ended by itself")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// endsLater is a context that ends when it was looked at twice: at the start of a call and before its first step.
type endsLater struct {
	context.Context
	looks atomic.Int32
}

func (c *endsLater) Err() error {
	if c.looks.Add(1) > 2 {
		return context.Canceled
	}
	return nil
}

// Without the meter a step runs on to its end, although its call was cancelled: the meter is what ends it.
func TestMeterIsWhatEndsALoop(t *testing.T) {
	compilerOnly(t)
	code := evilWhenAsked("resume", turns(1<<27, 1)).bytes()
	for _, bare := range []bool{false, true} {
		e := newEngine(t, Config{})
		e.bare = bare
		m := mustLoad(t, e, code, vectorIface(code))
		_, err := m.Run(&endsLater{Context: t.Context()}, asked)
		if bare && err != nil || !bare && err == nil {
			t.Errorf("meter left out %t: %v", bare, err)
		}
	}
}

// A step that is too long for the meter is done again and gives the right answer, also with several threads.
func TestLongStepIsDoneAgain(t *testing.T) {
	compilerOnly(t)
	e := newEngine(t, Config{Threads: 3})
	e.fuel = 200
	code := doubler().bytes()
	m := mustLoad(t, e, code, vectorIface(code))
	x := ramp(50000)
	for _, in := range [][]float32{x[:3], x} {
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				outs, err := m.Run(t.Context(), []Tensor{Of(in)})
				if err != nil {
					t.Error(err)
					return
				}
				got, _ := Values[float32](outs[0])
				for i := range in {
					if got[i] != 2*in[i] {
						t.Error("wrong answer")
						return
					}
				}
			}()
		}
		wg.Wait()
	}
	long := evilWhenAsked("resume", turns(100_000, 1)).bytes()
	m = mustLoad(t, e, long, vectorIface(long))
	if _, err := m.Run(t.Context(), asked); err != nil {
		t.Error(err)
	}
	if m.chain[0].slow == nil {
		t.Error("it was not done again: this test shows nothing")
	}
}

// No call of ten thousand leaves anything behind.
func TestHostileCallsLeaveNothing(t *testing.T) {
	compilerOnly(t)
	e := newEngine(t, Config{MemoryLimit: 4 << 20, Threads: 2, Instances: 4})
	var models []*Model
	var loops []bool
	for i, h := range hostile {
		if strings.HasPrefix(h.name, "recursion") {
			continue // their stacks are garbage by the megabyte: that they go is tested once, above
		}
		code := hostileModule(i).bytes()
		models, loops = append(models, mustLoad(t, e, code, vectorIface(code))), append(loops, h.loops)
	}
	calls := 0
	round := func(n int) {
		for i := range n {
			k := i % len(models)
			if loops[k] && i >= 2*len(models) {
				k = len(models) - 1 - i%4
			}
			ctx, cancel := context.WithCancel(t.Context())
			if loops[k] {
				time.AfterFunc(time.Millisecond, cancel)
			}
			if _, err := models[k].Run(ctx, asked); err == nil {
				t.Fatalf("%s went well", hostile[k].name)
			}
			cancel()
			calls++
		}
	}
	measure := func() (heap uint64, goroutines, maps int) {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		if b, err := os.ReadFile("/proc/self/maps"); err == nil {
			maps = strings.Count(string(b), "\n")
		}
		return s.HeapAlloc, runtime.NumGoroutine(), maps
	}
	round(500)
	heap, goroutines, maps := measure()
	round(9500)
	var h uint64
	var g, m int
	for range 100 { // goroutines of the last calls may be about to end
		if h, g, m = measure(); g <= goroutines && m <= maps+10 {
			break
		}
		runtime.Gosched()
	}
	t.Logf("%d calls: heap %d to %d kB, goroutines %d to %d, mappings %d to %d", calls, heap>>10, h>>10, goroutines, g, maps, m)
	if g > goroutines+3 || m > maps+30 || h > heap+4<<20 {
		t.Error("something stays")
	}
}

// FuzzMeter: whatever the rewriter lets pass wazero takes exactly if it takes the module itself.
func FuzzMeter(f *testing.F) {
	for i := range hostile {
		f.Add(hostileModule(i).bytes())
	}
	f.Add(doubler().bytes())
	f.Add(adder().bytes())
	big := doubler()
	big.table, big.data = 10, []byte("data")
	f.Add(big.bytes())
	start := mod{fns: append([]fn{{"go", 0, 0, 0, nil}}, frame(testHeap, con(0), con(0), con(0))...), start: true, min: 1}
	f.Add(start.bytes())
	rt := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(64))
	f.Fuzz(func(t *testing.T, code []byte) {
		for _, o := range []meter.Options{{Watch: true}, {Count: true, Fuel: 1000}, {Count: true, Watch: true}, {Grow: true}} {
			out, err := meter.Rewrite(code, o)
			if err != nil {
				continue
			}
			compiles := func(b []byte) error {
				c, err := rt.CompileModule(t.Context(), b)
				if err == nil {
					_ = c.Close(t.Context())
				}
				return err
			}
			before, after := compiles(code), compiles(out)
			if before == nil && after != nil {
				t.Errorf("%+v: a valid module became invalid: %v", o, after)
			}
			if before != nil && after == nil {
				t.Errorf("%+v: an invalid module became valid: %v", o, before)
			}
		}
	})
}
