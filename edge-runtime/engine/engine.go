// Package engine runs Waybill modules on wazero: it checks a module against the ABI, maps its weights, keeps a pool of
// instances, and drives bind, resume and part until the outputs are there. Deadlines and cancellation are checked
// between resumes, and memory grows there, so a model never blocks the process for long.
//
// One Engine serves a process; one Model is one artifact. Both are safe for concurrent use.
package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Mode selects how modules are executed. The bits of the outputs do not depend on it.
type Mode int

// Modes. Auto takes the compiler where the CPU has one and the system lets a process make memory executable
// (checked by running a function), else the interpreter.
const (
	Auto Mode = iota
	Compiler
	Interpreter
)

// String returns the name that ParseMode reads.
func (m Mode) String() string {
	switch m {
	case Compiler:
		return "compiler"
	case Interpreter:
		return "interpreter"
	}
	return "auto"
}

// ParseMode reads "auto", "compiler" or "interpreter"; "" is Auto.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{Auto, Compiler, Interpreter} {
		if s == m.String() || s == "" {
			return m, nil
		}
	}
	return 0, diag.Errorf("unknown engine mode %q: auto, compiler or interpreter", s)
}

// interpreterBudget keeps a resume at about 2 ms under the interpreter.
const interpreterBudget = 40_000

// maxPages keeps a memory below 4 GiB, so that its size fits a u32.
const maxPages = 65535

// Config of an engine. The zero value is usable: Auto, no compile cache, 1 GiB of linear memory per instance.
type Config struct {
	Mode Mode
	// CacheDir keeps native code between runs. It must belong to this process's user alone; entries are authenticated
	// with CacheSecret, which is then required (at least 16 bytes, secret to this device).
	CacheDir    string
	CacheSecret []byte
	// Baked is code that is tried before the cache.
	Baked Baked
	// CacheLimit bounds the cache in bytes; what was not used for longest goes first. 0 means 256 MiB.
	CacheLimit int64
	// MemoryLimit bounds the linear memory of one instance in bytes. 0 means 1 GiB.
	MemoryLimit uint64
	// OutputLimit bounds the bytes copied out of one call. 0 means MemoryLimit.
	OutputLimit uint64
	// TimeLimit bounds one call, from the moment an instance is free, whatever its context says. 0 means a minute, ten under the
	// interpreter; below 0 there is none.
	TimeLimit time.Duration
	// Instances bounds how many calls of one model run at once; further calls wait. 0 means the number of cores.
	Instances int
	// Threads bounds how many parts of a parallel section run at once within one call. 0 means the number of cores.
	Threads int
	// Budget is handed to guests as CtxBudget: the work of one resume, about a nanosecond of compiled code per unit. 0
	// leaves it to them (about 1 ms), less under the interpreter, which is some fifty times slower.
	Budget uint32
	// Poison fills the arena with a pattern before each call: a debugging aid that shows reads of memory that the
	// module never wrote.
	Poison bool
	// Resumed, when not nil, is told of each resume: the step of the chain, the node that was at work when it returned ("" when
	// the guest names none) and the time it took. It may be called concurrently.
	Resumed func(step, node string, took time.Duration)
	// Log receives what user steps write to stdout and stderr, a line at a time, and cache entries that were dropped.
	// It may be called concurrently. nil discards.
	Log func(step, line string)
}

// Engine makes models. Close it after its models.
type Engine struct {
	cfg  Config
	mode Mode // resolved: Compiler or Interpreter

	mu     sync.Mutex
	closed bool
	models map[*Model]struct{}

	fuel   int64             // of a step; tests take less
	bare   bool              // tests leave the meter out
	opened func(*cacheEntry) // tests break an opened cache entry with it
}

// New checks cfg and resolves Auto: the compiler is asked for by name, also where wazero itself would not choose it (Android), once a
// function of it has run.
func New(ctx context.Context, cfg Config) (*Engine, error) { return newWith(ctx, cfg, tryCompiler) }

// newWith is New with the probe for executable memory.
func newWith(ctx context.Context, cfg Config, probe func(context.Context) error) (*Engine, error) {
	if cfg.MemoryLimit == 0 {
		cfg.MemoryLimit = 1 << 30
	}
	cfg.MemoryLimit = min(cfg.MemoryLimit, maxPages<<16)
	if cfg.OutputLimit == 0 {
		cfg.OutputLimit = cfg.MemoryLimit
	}
	if cfg.CacheLimit <= 0 {
		cfg.CacheLimit = 256 << 20
	}
	if cfg.Instances <= 0 {
		cfg.Instances = runtime.GOMAXPROCS(0)
	}
	if cfg.Threads <= 0 {
		cfg.Threads = runtime.GOMAXPROCS(0)
	}
	if cfg.Log == nil {
		cfg.Log = func(string, string) {}
	}
	if cfg.CacheDir != "" && len(cfg.CacheSecret) < minSecret {
		return nil, diag.Errorf("the compile cache %s needs a device secret of at least %d bytes", cfg.CacheDir, minSecret)
	}
	e := &Engine{cfg: cfg, mode: cfg.Mode, models: map[*Model]struct{}{}, fuel: stepFuel}
	if cfg.Mode != Interpreter {
		err := probe(ctx)
		if err != nil && cfg.Mode == Compiler {
			return nil, diag.Errorf("this machine cannot run compiled code: %w", err)
		}
		e.mode = Compiler
		if err != nil {
			e.mode = Interpreter
			cfg.Log("engine", fmt.Sprintf("models are interpreted, some fifty times slower: this machine cannot run compiled code: %v", err))
		}
	}
	if e.mode == Interpreter && e.cfg.Budget == 0 {
		e.cfg.Budget = interpreterBudget
	}
	if e.cfg.TimeLimit == 0 {
		e.cfg.TimeLimit = time.Minute
		if e.mode == Interpreter {
			e.cfg.TimeLimit *= 10
		}
	}
	return e, nil
}

// until is when the time of a call that begins at start is over.
func (e *Engine) until(start time.Time) time.Time {
	if e.cfg.TimeLimit < 0 {
		return time.Time{}
	}
	return start.Add(e.cfg.TimeLimit)
}

// Mode tells what Auto became: Compiler or Interpreter.
func (e *Engine) Mode() Mode { return e.mode }

// TimeLimit tells the bound of one call; below 0 there is none.
func (e *Engine) TimeLimit() time.Duration { return e.cfg.TimeLimit }

// Close closes the models that are still open.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	var all []*Model
	for m := range e.models {
		all = append(all, m)
	}
	e.mu.Unlock()
	var errs []error
	for _, m := range all {
		errs = append(errs, m.Close(ctx))
	}
	return errors.Join(errs...)
}

// probeModule is (module (func (export "f") (result i32) i32.const 42)).
var probeModule = []byte("\x00asm\x01\x00\x00\x00\x01\x05\x01\x60\x00\x01\x7f\x03\x02\x01\x00\x07\x05\x01\x01f\x00\x00\x0a\x06\x01\x04\x00\x41\x2a\x0b")

// tryCompiler compiles and calls a function. Where the system forbids executable memory (as Android's SELinux rules may)
// or the CPU lacks what the compiler needs, wazero reports it or panics; both become an error.
func tryCompiler(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = diag.Errorf("%v", r)
		}
	}()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	defer func() { _ = rt.Close(ctx) }()
	m, err := rt.Instantiate(ctx, probeModule)
	if err != nil {
		return err
	}
	r, err := m.ExportedFunction("f").Call(ctx)
	if err != nil {
		return err
	}
	if len(r) != 1 || r[0] != 42 {
		return diag.Errorf("a compiled function returned %v, not 42", r)
	}
	return nil
}

// runtimeConfig is the configuration of one module's runtime. watched: it looks at the context in every turn of a loop.
func (e *Engine) runtimeConfig(watched bool, limit uint64) wazero.RuntimeConfig {
	var c wazero.RuntimeConfig
	if e.mode == Compiler {
		c = wazero.NewRuntimeConfigCompiler()
	} else {
		c = wazero.NewRuntimeConfigInterpreter()
	}
	return c.WithCoreFeatures(api.CoreFeaturesV2).
		WithMemoryLimitPages(uint32(limit >> 16)).
		WithDebugInfoEnabled(false).
		WithCloseOnContextDone(watched)
}

// compileContext lets wazero compile functions on all cores.
func compileContext(ctx context.Context) context.Context {
	return experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
}
