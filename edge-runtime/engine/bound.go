package engine

import (
	"context"
	"errors"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/waybill-ml/waybill/edge-runtime/engine/meter"
	"github.com/waybill-ml/waybill/internal/diag"
)

// A call into native code holds its core and, once a garbage collection wants to begin, the process, until it returns, and nothing can
// interrupt it. wazero can compile code that looks at the context in every turn of a loop, but that costs 21 ns a turn. So a model
// is compiled with a meter, which costs a fraction of a nanosecond a turn and ends a step at a multiple of what steps of our
// compiler do. A call that was ended so is made once more, in code that looks at the context: an honest model that had much to do
// in one step is slow there and right, one that loops ends when its time is over, and holds up nobody meanwhile.
//
// That holds whoever compiled the model: the runtime puts the meter in, the signature of a publisher is no part of it.

// stepFuel is what one call from the host may spend, in units of about an instruction: some ten times the longest step that our
// compiler makes. fuelPerByte is added for each byte of the inputs, since a text is taken in one step.
const (
	stepFuel    = 1 << 26
	fuelPerByte = 256
)

// Reasons why a metered module was ended.
var (
	errSpent = errors.New("it did not come to an end")
	errStack = errors.New("its calls nest too deep")
)

// bound rewrites code so that it can be kept within its limits.
func (e *Engine) bound(g *guest, code []byte) ([]byte, error) {
	g.watched = g.watched || !g.ours || e.mode == Interpreter
	if !g.ours {
		return meter.Rewrite(code, meter.Options{Grow: true, Watch: true})
	}
	if e.mode == Interpreter { // which has a bound for nested calls of its own, and can be interrupted at little cost
		return meter.Rewrite(code, meter.Options{Watch: true})
	}
	if e.bare {
		return code, nil
	}
	g.metered = true
	if g.watched {
		return meter.Rewrite(code, meter.Options{Count: true, Fuel: 1 << 62, Watch: true})
	}
	g.source = code
	return meter.Rewrite(code, meter.Options{Count: true, Fuel: e.fuel})
}

// meter finds the meter of a new instance.
func (inst *instance) meter(g *guest) {
	if !g.metered {
		return
	}
	inst.spent, _ = inst.mod.ExportedGlobal(meter.Spent).(api.MutableGlobal)
	if !g.watched {
		inst.fuel, _ = inst.mod.ExportedGlobal(meter.Fuel).(api.MutableGlobal)
		inst.filled = g.eng.fuel
	}
}

// refuel sets what each step of a call with inputs of so many bytes may spend.
func (inst *instance) refuel(g *guest, bytes uint64) {
	if inst.fuel == nil {
		return
	}
	if f := g.eng.fuel + int64(bytes)*fuelPerByte; f != inst.filled {
		inst.fuel.Set(uint64(f))
		inst.filled = f
	}
}

// why tells whether it was the meter that ended a call.
func (inst *instance) why(err error) error {
	if inst.spent != nil {
		switch inst.spent.Get() {
		case meter.OutOfFuel:
			return errSpent
		case meter.OutOfStack:
			return errStack
		}
	}
	return err
}

// limited is ctx with the limit of a call, where wazero looks at it.
func (g *guest) limited(ctx context.Context, until time.Time) (context.Context, context.CancelFunc) {
	if !g.watched || until.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadlineCause(ctx, until, ErrTimeLimit)
}

// again makes a call that was too long for the meter once more, in code that ends with its context.
func (g *guest) again(ctx context.Context, ins []Tensor, until time.Time) ([]Tensor, error) {
	if ctx.Err() != nil {
		return nil, diag.Errorf("%s: %w", g.name, context.Cause(ctx))
	}
	slow, err := g.twin(ctx)
	if err != nil {
		return nil, err
	}
	inst, err := slow.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return slow.on(ctx, inst, ins, until)
}

// twin compiles the module so that its calls end with their context. The twin shares the slots and the weights of g.
func (g *guest) twin(ctx context.Context) (*guest, error) {
	g.slowOnce.Lock()
	defer g.slowOnce.Unlock()
	if g.slow != nil {
		return g.slow, nil
	}
	s := &guest{
		eng: g.eng, name: g.name, ours: g.ours, reentrant: g.reentrant, careful: true, watched: true, limit: g.limit, weights: g.weights,
		want: g.want, nodes: g.nodes, inputs: g.inputs, outputs: g.outputs, slots: g.slots,
	}
	// Not the caller's context: the next call needs the twin too.
	if err := g.eng.compileGuest(context.WithoutCancel(ctx), s, g.source); err != nil {
		return nil, diag.Errorf("compile it with interruptions: %w", err)
	}
	g.slow = s
	return s, nil
}
