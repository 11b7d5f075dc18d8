package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
)

const (
	noNode   = 0xFFFFFFFF // CtxErrNode before the guest names one
	maxParts = 1 << 20
)

// call is one inference on one instance.
type call struct {
	g    *guest
	inst *instance

	until time.Time // when the time of the call is over; zero: never

	block uint64 // address of the context block
	outs  uint64 // address of the output descriptors
	arena uint64
}

// do lays the call out in guest memory, drives the state machine and reads the outputs.
func (c *call) do(ctx context.Context, ins []Tensor) ([]Tensor, error) {
	if c.inst.sandbox != nil {
		ctx = context.WithValue(ctx, sandboxKey{}, c.inst.sandbox)
	}
	if err := ctx.Err(); err != nil {
		return nil, c.canceled(ctx)
	}
	fixed := roundUp(c.inst.ctxSize, abi.TensorLine) + roundUp(uint64(len(ins)+c.g.outputs)*abi.DescSize, abi.TensorLine)
	var data uint64
	for i := range ins {
		n, err := inputSize(&ins[i])
		if err != nil {
			return nil, &InputError{c.inputName(i), err}
		}
		data += n + abi.TensorLine
	}
	c.inst.refuel(c.g, data)
	base, arenaSize, err := c.place(ctx, fixed+data)
	if err != nil {
		return nil, err
	}
	mem, err := c.memory()
	if err != nil {
		return nil, err
	}
	l := layout{next: base}
	c.block = l.take(c.inst.ctxSize, abi.TensorLine)
	inDesc := l.take(uint64(len(ins)+c.g.outputs)*abi.DescSize, abi.TensorLine)
	c.outs = inDesc + uint64(len(ins))*abi.DescSize
	clear(mem[c.block:l.next])
	breathe := breather(ctx, c.until)
	for i := range ins {
		if err := putValue(breathe, mem, inDesc+uint64(i)*abi.DescSize, &l, &ins[i]); err != nil {
			c.unplace(ctx, base)
			if end := c.ended(err); end != nil {
				return nil, end
			}
			return nil, &InputError{c.inputName(i), err}
		}
	}
	h := mem[c.block : c.block+abi.CtxHeader]
	le.PutUint32(h[abi.CtxMagic:], abi.CtxMagicValue)
	if c.g.info.heap {
		c.arena = roundUp(base+fixed+data, abi.TensorLine)
		le.PutUint32(h[abi.CtxArenaBase:], uint32(c.arena))
		le.PutUint32(h[abi.CtxArenaSize:], uint32(arenaSize))
		if c.g.eng.cfg.Poison {
			for i := range mem[c.arena:] {
				mem[c.arena+uint64(i)] = 0xA5
			}
		}
	}
	le.PutUint32(h[abi.CtxNumInputs:], uint32(len(ins)))
	le.PutUint32(h[abi.CtxInputs:], uint32(inDesc))
	le.PutUint32(h[abi.CtxNumOutputs:], uint32(c.g.outputs))
	le.PutUint32(h[abi.CtxOutputs:], uint32(c.outs))
	le.PutUint32(h[abi.CtxBudget:], c.g.eng.cfg.Budget)
	le.PutUint32(h[abi.CtxErrNode:], noNode)
	if err := c.drive(ctx, breathe); err != nil {
		c.unplace(ctx, base)
		return nil, err
	}
	outs, err := c.read(breathe)
	c.unplace(ctx, base)
	return outs, err
}

func (c *call) inputName(i int) string {
	if i < len(c.g.inputs) {
		return c.g.inputs[i]
	}
	return ""
}

// place finds room for size bytes: at the heap of a guest that leaves memory to the host, with an arena behind it, or
// from the guest's allocator. It returns the address and the arena's size.
func (c *call) place(ctx context.Context, size uint64) (base, arena uint64, err error) {
	if c.g.info.heap {
		base = roundUp(c.inst.heap, abi.TensorLine)
		at := roundUp(base+size, abi.TensorLine)
		if err := c.g.ensure(c.inst, at+max(c.g.want.Arena, abi.PageSize)); err != nil {
			return 0, 0, err
		}
		return base, (uint64(c.inst.mem.Size()) - at) &^ (abi.Align - 1), nil
	}
	size += abi.TensorLine
	if size > c.g.limit {
		return 0, 0, diag.Errorf("%s: the inputs need %d bytes: %w (%d bytes)", c.g.name, size, ErrMemoryLimit, c.g.limit)
	}
	p, err := c.invoke(ctx, c.inst.alloc, size, 0)
	if err != nil {
		return 0, 0, err
	}
	if p == 0 {
		return 0, 0, diag.Errorf("%s: the module could not allocate %d bytes: %w", c.g.name, size, ErrMemoryLimit)
	}
	if p%abi.Align != 0 || uint64(p)+size > uint64(c.inst.mem.Size()) {
		return 0, 0, &ProtocolError{c.g.name, diag.Errorf("%s(%d) returned %d, which is unaligned or outside of the memory", abi.ExportAlloc, size, p)}
	}
	return uint64(p), 0, nil
}

// unplace gives the block of place back. An instance that is closed after the call needs no tidying.
func (c *call) unplace(ctx context.Context, base uint64) {
	if c.inst.free != nil && c.g.reentrant {
		_, _ = c.invoke(ctx, c.inst.free, base, 0)
	}
}

// memory returns the whole linear memory; the slice is stale after the next growth.
func (c *call) memory() ([]byte, error) {
	mem, ok := c.inst.mem.Read(0, c.inst.mem.Size())
	if !ok {
		return nil, &ProtocolError{c.g.name, errors.New("the memory cannot be read")}
	}
	return mem, nil
}

// header returns the context block's header.
func (c *call) header() []byte {
	h, _ := c.inst.mem.Read(uint32(c.block), abi.CtxHeader)
	return h
}

// invoke calls f with up to two parameters and returns its i32 result.
func (c *call) invoke(ctx context.Context, f api.Function, a, b uint64) (uint32, error) {
	c.inst.stack[0], c.inst.stack[1] = a, b
	if err := f.CallWithStack(ctx, c.inst.stack[:]); err != nil {
		return 0, c.trap(ctx, err)
	}
	return uint32(c.inst.stack[0]), nil
}

func (c *call) trap(ctx context.Context, err error) error {
	// close-on-context ends a step by closing its module.
	var exit *sys.ExitError
	if errors.As(err, &exit) && ctx.Err() != nil {
		return &TrapError{Step: c.g.name, Err: c.canceled(ctx)}
	}
	t := &TrapError{Step: c.g.name, Err: c.inst.why(err)}
	if c.block != 0 {
		if h := c.header(); h != nil {
			t.Node = c.node(le.Uint32(h[abi.CtxErrNode:]))
		}
	}
	return t
}

// ended is what a call returns whose breathing was cut short, nil for any other error.
func (c *call) ended(err error) error {
	var s *stopped
	if !errors.As(err, &s) {
		return nil
	}
	return diag.Errorf("%s: %w", c.g.name, s.cause)
}

func (c *call) canceled(ctx context.Context) error {
	return diag.Errorf("%s: %w", c.g.name, context.Cause(ctx))
}

func (c *call) node(i uint32) string {
	if i < uint32(len(c.g.nodes)) {
		return c.g.nodes[i]
	}
	return ""
}

// drive runs bind and then resume until it is done.
func (c *call) drive(ctx context.Context, breathe func() error) error {
	s, err := c.invoke(ctx, c.inst.bind, c.block, 0)
	if err != nil {
		return err
	}
	switch st := abi.Status(s); st {
	case abi.Done, abi.More:
	case abi.NeedMemory:
		if err := c.grow(); err != nil {
			return err
		}
	case abi.Failed:
		return c.failure()
	default:
		return &ProtocolError{c.g.name, diag.Errorf("bind returned status %d", s)}
	}
	if ctx.Err() != nil {
		return c.canceled(ctx)
	}
	for {
		s, err := c.resume(ctx)
		if err != nil {
			return err
		}
		switch abi.Status(s) {
		case abi.Done:
			return nil
		case abi.More:
		case abi.Parallel:
			err = c.parallel(ctx, breathe)
		case abi.NeedMemory:
			err = c.grow()
		case abi.Failed:
			err = c.failure()
		default:
			err = &ProtocolError{c.g.name, diag.Errorf("resume returned status %d", s)}
		}
		if err != nil {
			return err
		}
		if err := breathe(); err != nil {
			return c.ended(err)
		}
	}
}

// resume does one bounded piece of work.
func (c *call) resume(ctx context.Context) (uint32, error) {
	tell := c.g.eng.cfg.Resumed
	if tell == nil {
		return c.invoke(ctx, c.inst.resume, c.block, 0)
	}
	start := time.Now()
	s, err := c.invoke(ctx, c.inst.resume, c.block, 0)
	took := time.Since(start)
	if err == nil {
		tell(c.g.name, c.node(le.Uint32(c.header()[abi.CtxErrNode:])), took)
	}
	return s, err
}

// grow makes the arena Ctx.Want bytes larger.
func (c *call) grow() error {
	h := c.header()
	want := uint64(le.Uint32(h[abi.CtxWant:]))
	if !c.g.info.heap || want == 0 {
		return &ProtocolError{c.g.name, diag.Errorf("it asks for %d bytes, which the host cannot give", want)}
	}
	size := uint64(le.Uint32(h[abi.CtxArenaSize:])) + want
	// In steps of an eighth of what is there, so that a guest that asks for little by little does not grow each time.
	room := roundUp(c.arena+size, abi.PageSize)
	if extra := min(room+room/8, c.g.limit); extra > room {
		if err := c.g.ensure(c.inst, extra); err == nil {
			room = extra
		}
	}
	if err := c.g.ensure(c.inst, c.arena+size); err != nil {
		return err
	}
	room = (uint64(c.inst.mem.Size()) - c.arena) &^ (abi.Align - 1)
	if c.g.eng.cfg.Poison {
		mem, err := c.memory()
		if err != nil {
			return err
		}
		old := uint64(le.Uint32(h[abi.CtxArenaSize:]))
		for i := range mem[c.arena+old:] {
			mem[c.arena+old+uint64(i)] = 0xA5
		}
	}
	le.PutUint32(c.header()[abi.CtxArenaSize:], uint32(room))
	return nil
}

// failure turns the guest's error record into an error.
func (c *call) failure() error {
	h := c.header()
	e := &GuestError{
		Step: c.g.name,
		Code: abi.Code(le.Uint32(h[abi.CtxErrCode:])),
		Node: c.node(le.Uint32(h[abi.CtxErrNode:])),
		A:    int64(le.Uint64(h[abi.CtxErrA:])),
		B:    int64(le.Uint64(h[abi.CtxErrB:])),
	}
	switch e.Code {
	case abi.ErrDType, abi.ErrRank, abi.ErrString:
		if e.A >= 0 && e.A < int64(len(c.g.inputs)) {
			e.Input = c.g.inputs[e.A]
		}
	case abi.ErrABI, abi.ErrState, abi.ErrNone:
		return &ProtocolError{c.g.name, e}
	}
	return e
}

// parallel calls part(i) for every part, on several threads where the engine may.
func (c *call) parallel(ctx context.Context, breathe func() error) error {
	n := le.Uint32(c.header()[abi.CtxWant:])
	if n == 0 || n > maxParts {
		return &ProtocolError{c.g.name, diag.Errorf("a parallel section of %d parts", n)}
	}
	workers := min(int(n), c.g.eng.cfg.Threads)
	if c.g.watched {
		workers = 1 // the first call that its context ends frees the memory under all others (wazero's FailIfClosed)
	}
	for len(c.inst.parts) < workers {
		c.inst.parts = append(c.inst.parts, c.inst.mod.ExportedFunction(abi.ExportPart))
	}
	var next atomic.Uint32
	work := func(f api.Function) error {
		var stack [2]uint64
		for {
			i := next.Add(1) - 1
			if i >= n {
				return nil
			}
			if err := breathe(); err != nil {
				return c.ended(err)
			}
			stack[0], stack[1] = c.block, uint64(i)
			if err := f.CallWithStack(ctx, stack[:]); err != nil {
				next.Store(n)
				return c.trap(ctx, err)
			}
			switch s := abi.Status(uint32(stack[0])); s {
			case abi.Done:
			case abi.Failed:
				next.Store(n)
				return c.failure()
			default:
				next.Store(n)
				return &ProtocolError{c.g.name, diag.Errorf("part returned status %d", s)}
			}
		}
	}
	if workers == 1 {
		return work(c.inst.parts[0])
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[w] = work(c.inst.parts[w])
		}()
	}
	errs[0] = work(c.inst.parts[0])
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// read copies the outputs out of guest memory.
func (c *call) read(breathe func() error) ([]Tensor, error) {
	mem, err := c.memory()
	if err != nil {
		return nil, err
	}
	r := reader{mem: mem, budget: int64(c.g.eng.cfg.OutputLimit), breathe: breathe}
	out := make([]Tensor, c.g.outputs)
	for i := range out {
		if out[i], err = r.value(c.outs+uint64(i)*abi.DescSize, 0); err != nil {
			if end := c.ended(err); end != nil {
				return nil, end
			}
			return nil, &ProtocolError{c.g.name, diag.Errorf("output %d: %w", i, err)}
		}
	}
	return out, nil
}
