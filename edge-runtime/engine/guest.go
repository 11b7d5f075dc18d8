package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// guest is one compiled module of a chain and its pool of instances.
type guest struct {
	eng       *Engine
	name      string
	ours      bool // a model: works in bounded steps, imports nothing
	careful   bool // the slow twin of another guest, whose weights it shares
	watched   bool // wazero looks at the context in every turn of a loop
	metered   bool // counts what it does
	reentrant bool // instances are used again after a call
	info      guestInfo
	limit     uint64 // bytes of linear memory
	weights   *weightsImage
	want      artifact.Memory // what the interface document says; zero for steps
	nodes     []string
	inputs    []string // names, for error texts
	outputs   int

	source   []byte     // for slow; nil for what is watched
	slowOnce sync.Mutex // guards slow
	slow     *guest     // the same module, watched; see careful

	cache    wazero.CompilationCache // nil without one
	rt       wazero.Runtime
	compiled wazero.CompiledModule

	slots chan struct{} // one token per running call
	mu    sync.Mutex
	idle  []*instance
	done  bool
	peak  atomic.Uint64
}

// instance is one instantiation with its own memory, used by one call at a time.
type instance struct {
	mod          api.Module
	mem          api.Memory
	bind, resume api.Function
	alloc, free  api.Function
	parts        []api.Function // one per worker: an api.Function is not safe for concurrent use
	ctxSize      uint64
	heap         uint64
	fuel, spent  api.MutableGlobal // of the meter; nil without one
	filled       int64             // what fuel is set to
	sandbox      *sandbox
	stack        [2]uint64
}

// compileGuest compiles code and checks it against the ABI.
func (e *Engine) compileGuest(ctx context.Context, g *guest, code []byte) (err error) {
	defer func() {
		if err != nil {
			g.closeRuntime(ctx)
		}
	}()
	bounded, unbounded := e.bound(g, code)
	if unbounded != nil {
		bounded = code // wazero, or the check of its imports, says what is wrong with it
	}
	var entry *cacheEntry
	if e.cfg.Baked.Dir != "" && e.mode == Compiler {
		entry = e.openBaked(bounded, !g.watched)
	}
	if entry == nil && e.cfg.CacheDir != "" && e.mode == Compiler {
		if entry, err = e.openCache(bounded, !g.watched); err != nil {
			return diag.Errorf("compile cache: %w", err)
		}
	}
	err = e.compile(ctx, g, bounded, entry)
	if err != nil && entry != nil {
		// wazero fails when it cannot write its cache. That must not keep a model from running.
		_ = g.rt.Close(ctx)
		_ = g.cache.Close(ctx)
		g.rt, g.cache = nil, nil
		cached := err
		if err = e.compile(ctx, g, bounded, nil); err == nil {
			e.cfg.Log("compile cache", fmt.Sprintf("not used: %v", cached))
		}
		entry.discard()
		entry = nil
	}
	if err != nil {
		return err
	}
	if g.info, err = checkModule(g.compiled, code, g.ours); err != nil {
		entry.discard()
		return diag.Errorf("%s: %w", g.name, err)
	}
	if unbounded != nil {
		entry.discard()
		return diag.Errorf("%s: the module cannot be bounded: %w", g.name, unbounded)
	}
	if g.info.minMemory > g.limit {
		entry.discard()
		return diag.Errorf("%s: the module starts with %d bytes of memory: %w (%d bytes)", g.name, g.info.minMemory, ErrMemoryLimit, g.limit)
	}
	switch {
	case entry == nil:
	case entry.baked:
		e.cfg.Log("compile cache", fmt.Sprintf("%s: the code that came along is used", g.name))
	default:
		if err := entry.seal(); err != nil {
			e.cfg.Log("compile cache", fmt.Sprintf("entry not kept: %v", err))
		}
		entry.touch()
		prune(e.cfg.CacheDir, entry.dir, e.cfg.CacheLimit)
	}
	if g.slots == nil {
		g.slots = make(chan struct{}, e.cfg.Instances)
	}
	return nil
}

// compile makes g's runtime and compiles code in it, with the cache of entry unless that is nil.
func (e *Engine) compile(ctx context.Context, g *guest, code []byte, entry *cacheEntry) (err error) {
	cfg := e.runtimeConfig(g.watched, g.limit)
	if entry != nil {
		g.cache = entry.cache
		cfg = cfg.WithCompilationCache(entry.cache)
	}
	g.rt = wazero.NewRuntimeWithConfig(ctx, cfg)
	if !g.ours {
		if err := instantiateHost(ctx, g.rt); err != nil {
			return err
		}
	}
	if g.compiled, err = g.rt.CompileModule(compileContext(ctx), code); err != nil {
		return diag.Errorf("%s: not a module that this runtime can compile: %w", g.name, err)
	}
	return nil
}

func (g *guest) closeRuntime(ctx context.Context) {
	if g.rt != nil {
		_ = g.rt.Close(ctx)
	}
	if g.cache != nil {
		_ = g.cache.Close(ctx)
	}
	if !g.careful {
		g.weights.close()
	}
}

// instantiate makes a fresh instance, its weights in place.
func (g *guest) instantiate(ctx context.Context) (_ *instance, err error) {
	limit := g.limit
	if g.info.maxMemory != 0 {
		limit = min(limit, g.info.maxMemory)
	}
	lm, err := newMemory(limit, g.weights)
	if err != nil {
		return nil, diag.Errorf("%s: %w", g.name, err)
	}
	first := max(g.info.minMemory, abi.PageSize)
	if lm.Reallocate(min(first, limit)) == nil {
		lm.Free()
		return nil, diag.Errorf("%s: the system has no %d bytes of memory for another instance", g.name, first)
	}
	ctx, cancel := g.limited(ctx, g.eng.until(time.Now()))
	defer cancel()
	inst := &instance{}
	if !g.ours {
		inst.sandbox = newSandbox(g.name, g.eng.cfg.Log)
		ctx = context.WithValue(ctx, sandboxKey{}, inst.sandbox)
	}
	handed := false
	actx := experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory {
		handed = true
		return lm
	}))
	// Anonymous, so that many instances of one module may live in a runtime.
	mc := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	if g.info.initialize {
		mc = mc.WithStartFunctions("_initialize")
	}
	inst.mod, err = g.rt.InstantiateModule(actx, g.compiled, mc)
	if err != nil {
		if !handed {
			lm.Free()
		}
		if ctx.Err() != nil {
			return nil, diag.Errorf("%s: start an instance: %w", g.name, context.Cause(ctx))
		}
		return nil, &TrapError{Step: g.name, Err: diag.Errorf("start an instance: %w", err)}
	}
	defer func() {
		if err != nil {
			_ = inst.mod.Close(ctx)
		}
	}()
	inst.mem = inst.mod.ExportedMemory(abi.ExportMemory)
	inst.meter(g)
	inst.bind = inst.mod.ExportedFunction(abi.ExportBind)
	inst.resume = inst.mod.ExportedFunction(abi.ExportResume)
	v, err := g.constant(ctx, inst, abi.ExportABI)
	if err != nil {
		return nil, err
	}
	if v != abi.Version {
		return nil, &ProtocolError{g.name, diag.Errorf("the module speaks version %d of the ABI, this runtime version %d", v, abi.Version)}
	}
	if inst.ctxSize, err = g.constant(ctx, inst, abi.ExportCtx); err != nil {
		return nil, err
	}
	if inst.ctxSize < abi.CtxHeader || inst.ctxSize > 1<<24 {
		return nil, &ProtocolError{g.name, diag.Errorf("a context of %d bytes; it must have %d to %d", inst.ctxSize, abi.CtxHeader, 1<<24)}
	}
	if !g.info.heap {
		inst.alloc = inst.mod.ExportedFunction(abi.ExportAlloc)
		inst.free = inst.mod.ExportedFunction(abi.ExportFree)
		return inst, nil
	}
	if inst.heap, err = g.constant(ctx, inst, abi.ExportHeap); err != nil {
		return nil, err
	}
	if g.ours && (inst.heap != uint64(g.want.Heap) || inst.ctxSize != uint64(g.want.Context)) {
		return nil, &ProtocolError{g.name, diag.Errorf("heap %d and context %d differ from the interface document's %d and %d",
			inst.heap, inst.ctxSize, g.want.Heap, g.want.Context)}
	}
	return inst, g.placeWeights(ctx, inst, lm)
}

// placeWeights makes the memory hold the weights image.
func (g *guest) placeWeights(ctx context.Context, inst *instance, lm linearMemory) error {
	if g.weights == nil {
		if g.info.weights {
			return &ProtocolError{g.name, errors.New("it wants a weights image, the interface document names none")}
		}
		return nil
	}
	if g.info.weights {
		at, err := g.constant(ctx, inst, abi.ExportWeights)
		if err != nil {
			return err
		}
		if at != g.weights.base {
			return &ProtocolError{g.name, diag.Errorf("it wants its weights at %d, the interface document says %d", at, g.weights.base)}
		}
	}
	end := g.weights.base + g.weights.size
	if inst.heap < end {
		return &ProtocolError{g.name, diag.Errorf("the heap starts at %d, inside the weights that end at %d", inst.heap, end)}
	}
	if err := g.ensure(inst, end); err != nil {
		return err
	}
	if lm.hasWeights() {
		return nil
	}
	mem, _ := inst.mem.Read(0, inst.mem.Size())
	return g.weights.copyTo(mem)
}

// constant calls an export without parameters.
func (g *guest) constant(ctx context.Context, inst *instance, name string) (uint64, error) {
	inst.stack[0] = 0
	if err := inst.mod.ExportedFunction(name).CallWithStack(ctx, inst.stack[:1]); err != nil {
		return 0, &TrapError{Step: g.name, Err: diag.Errorf("%s: %w", name, inst.why(err))}
	}
	return uint64(uint32(inst.stack[0])), nil
}

// ensure grows the memory to at least size bytes. No guest function may run meanwhile.
func (g *guest) ensure(inst *instance, size uint64) error {
	have := uint64(inst.mem.Size())
	if size <= have {
		return nil
	}
	limit := g.limit
	if g.info.maxMemory != 0 {
		limit = min(limit, g.info.maxMemory)
	}
	if size > limit {
		return diag.Errorf("%s: the call needs %d bytes of memory: %w (%d bytes)", g.name, size, ErrMemoryLimit, limit)
	}
	if _, ok := inst.mem.Grow(uint32((size - have + abi.PageSize - 1) / abi.PageSize)); !ok {
		return diag.Errorf("%s: the system has no %d bytes of memory left: %w", g.name, size, ErrMemoryLimit)
	}
	return nil
}

// acquire waits for a free slot and gives a ready instance.
func (g *guest) acquire(ctx context.Context) (*instance, error) {
	select {
	case g.slots <- struct{}{}:
	default:
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, diag.Errorf("%s: wait for a free instance: %w", g.name, context.Cause(ctx))
		}
	}
	g.mu.Lock()
	if g.done {
		g.mu.Unlock()
		<-g.slots
		return nil, ErrClosed
	}
	if n := len(g.idle); n > 0 {
		inst := g.idle[n-1]
		g.idle = g.idle[:n-1]
		g.mu.Unlock()
		return inst, nil
	}
	g.mu.Unlock()
	inst, err := g.instantiate(ctx)
	if err != nil {
		<-g.slots
		return nil, err
	}
	return inst, nil
}

// release gives an instance back; a broken one, or one that must not be used again, is closed.
func (g *guest) release(inst *instance, healthy bool) {
	size := uint64(inst.mem.Size())
	for p := g.peak.Load(); size > p && !g.peak.CompareAndSwap(p, size); p = g.peak.Load() {
	}
	if inst.sandbox != nil && len(inst.sandbox.partial) > 0 {
		inst.sandbox.flush()
	}
	switch {
	case healthy && g.reentrant && !inst.mod.IsClosed():
		g.mu.Lock()
		g.idle = append(g.idle, inst)
		g.mu.Unlock()
		<-g.slots
	case g.reentrant:
		_ = inst.mod.Close(context.Background())
		<-g.slots
	default:
		go g.renew(inst)
	}
}

// renewTimeout bounds the start of an instance that nobody waits for.
const renewTimeout = 10 * time.Second

// renew replaces a used instance of a step by a fresh one while the caller goes on: starting a guest of Go takes
// milliseconds. It keeps the call's slot until it is done, so close waits for it.
func (g *guest) renew(used *instance) {
	defer func() { <-g.slots }()
	_ = used.mod.Close(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), renewTimeout)
	defer cancel()
	g.mu.Lock()
	done := g.done
	g.mu.Unlock()
	if done {
		return
	}
	fresh, err := g.instantiate(ctx)
	if err != nil {
		return // the next call tries again and reports it
	}
	g.mu.Lock()
	g.idle = append(g.idle, fresh)
	g.mu.Unlock()
}

// close waits for running calls, then frees everything. When ctx ends first, the rest happens in the background.
func (g *guest) close(ctx context.Context) error {
	g.mu.Lock()
	if g.done {
		g.mu.Unlock()
		return nil
	}
	g.done = true
	g.mu.Unlock()
	for i := range cap(g.slots) {
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			go func() {
				for range cap(g.slots) - i {
					g.slots <- struct{}{}
				}
				g.shutdown()
			}()
			return diag.Errorf("%s: calls are still running: %w", g.name, context.Cause(ctx))
		}
	}
	g.shutdown()
	return nil
}

func (g *guest) shutdown() {
	g.slowOnce.Lock()
	slow := g.slow
	g.slowOnce.Unlock()
	if slow != nil {
		for _, inst := range slow.idle {
			_ = inst.mod.Close(context.Background())
		}
		slow.idle = nil
		slow.closeRuntime(context.Background())
	}
	for _, inst := range g.idle {
		_ = inst.mod.Close(context.Background())
	}
	g.idle = nil
	g.closeRuntime(context.Background())
	for range cap(g.slots) { // let those who wait see ErrClosed
		<-g.slots
	}
}

// run performs one call: ins in, outputs out, and the time it took once an instance was free.
func (g *guest) run(ctx context.Context, ins []Tensor) ([]Tensor, time.Duration, error) {
	inst, err := g.acquire(ctx)
	if err != nil {
		return nil, 0, err
	}
	start := time.Now()
	until := g.eng.until(start)
	outs, err := g.on(ctx, inst, ins, until)
	if errors.Is(err, errSpent) && !g.watched {
		outs, err = g.again(ctx, ins, until)
	}
	return outs, time.Since(start), err
}

// on runs a call that ends at until on an instance, and gives the instance back.
func (g *guest) on(ctx context.Context, inst *instance, ins []Tensor, until time.Time) (_ []Tensor, err error) {
	healthy := false
	defer func() { g.release(inst, healthy) }()
	ctx, cancel := g.limited(ctx, until)
	defer cancel()
	c := call{g: g, inst: inst, until: until}
	outs, err := c.do(ctx, ins)
	healthy = err == nil || !broken(err)
	return outs, err
}

// broken tells whether an error leaves the instance in an unknown state.
func broken(err error) bool {
	var trap *TrapError
	var proto *ProtocolError
	return errors.As(err, &trap) || errors.As(err, &proto)
}
