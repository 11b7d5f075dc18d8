package codegen

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func controlLowering() map[string]lowerer {
	return map[string]lowerer{"If": lowerIf, "Loop": lowerLoop, "Scan": lowerScan}
}

// lowerIf jumps: cond false -> else; each branch moves its results into the node's output slots.
func lowerIf(c *compiler, n *ir.Node) error {
	node := c.node
	outs := c.outs(n)
	var els, end label
	c.step(kernel.JumpIfFalse(), nil, c.ins(n)[:1], al(&els))
	branch := func(r *ir.Region) error {
		if err := c.region(r); err != nil {
			return err
		}
		own := map[*ir.Value]bool{}
		for _, m := range r.Nodes {
			for _, v := range m.Outs {
				own[v] = true
			}
		}
		for i, v := range r.Results {
			c.node = node
			if outs[i] != nil {
				c.step(kernel.Alias(), []*operand{outs[i]}, []*operand{c.operand(v)})
			}
		}
		// Released after all moves: a value may be a result twice.
		s := c.step(kernel.Nop(), nil, nil)
		done := map[*ir.Value]bool{}
		for _, v := range r.Results {
			if own[v] && !done[v] {
				done[v] = true
				s.frees = append(s.frees, c.slots[v].slot)
			}
		}
		return nil
	}
	if err := branch(n.Regions[0]); err != nil {
		return err
	}
	c.step(kernel.Jump(), nil, nil, al(&end))
	c.here(&els)
	if err := branch(n.Regions[1]); err != nil {
		return err
	}
	c.here(&end)
	c.step(kernel.Nop(), nil, nil)
	return nil
}

// bodyLoop is the common frame of Loop and Scan: slots for the iteration number, its limit and the condition, and
// the jumps around a body.
type bodyLoop struct {
	c                 *compiler
	t                 temps
	node              int
	iter, limit, cond *operand
	iterNext          *operand
	top, end          label
	accs              []*operand
	grow              *operand
}

func newBodyLoop(c *compiler) *bodyLoop {
	l := &bodyLoop{c: c, t: temps{c: c}, node: c.node}
	l.iter, l.limit, l.cond, l.iterNext, l.grow = l.t.new(), l.t.new(), l.t.new(), l.t.new(), l.t.new()
	c.sized(l.iter, "iteration", 8, nil)
	c.sized(l.limit, "limit", 8, nil)
	c.sized(l.cond, "condition", 1, nil)
	c.sized(l.iterNext, "next iteration", 8, nil)
	return l
}

// begin opens the loop: everything after it repeats.
func (l *bodyLoop) begin() {
	l.c.here(&l.top)
	l.c.step(kernel.LoopTest(), nil, []*operand{l.iter, l.limit, l.cond}, al(&l.end))
}

// accumulator makes an empty stack of elements of type ty.
func (l *bodyLoop) accumulator(n *ir.Node, ty ir.Type, whole *ir.Value) error {
	d, err := kernel.StorageOf(abi.DType(ty.DType))
	if err != nil || ty.Kind != ir.Tensor {
		return unsupported(n, "a scan output of type %s", ty)
	}
	acc := l.t.new()
	l.accs = append(l.accs, acc)
	if whole != nil {
		l.c.sized(acc, "stack", infoOf(whole).bytes, nil)
	}
	as := []attr{ai(int64(len(ty.Shape.Dims)))}
	for _, x := range ty.Shape.Dims {
		as = append(as, ai(x.N)) // 0 where it is not known: no iteration, no elements
	}
	l.c.step(kernel.StackInit(d), []*operand{acc}, nil, as...)
	return nil
}

// body lowers the region and moves its results on: states[i] takes results[first+i], accumulator j takes results[first+len(states)+j]. cond, when
// set, takes results[0].
func (l *bodyLoop) body(r *ir.Region, states []*operand, first int) error {
	c := l.c
	if err := c.region(r); err != nil {
		return err
	}
	c.node = l.node
	// All are read before any is written: a result may be another state.
	var moved []*operand
	for i := range states {
		m := l.t.new()
		moved = append(moved, m)
		c.step(kernel.Alias(), []*operand{m}, []*operand{c.operand(r.Results[first+i])})
	}
	if first == 1 {
		m := l.t.new()
		c.step(kernel.Alias(), []*operand{m}, []*operand{c.operand(r.Results[0])})
		c.step(kernel.Alias(), []*operand{l.cond}, []*operand{m}).frees = []int{m.slot}
	}
	for j, acc := range l.accs {
		v := r.Results[first+len(states)+j]
		d, err := kernel.StorageOf(abi.DType(v.Type.DType))
		if err != nil {
			return &Unsupported{Op: "Loop", Node: v.Name, Reason: err.Error()}
		}
		c.step(kernel.StackPush(d), []*operand{acc, l.grow}, []*operand{c.operand(v)})
	}
	for i, s := range states {
		c.step(kernel.Alias(), []*operand{s}, []*operand{moved[i]}).frees = []int{moved[i].slot}
	}
	c.step(kernel.LoopNext(), []*operand{l.iterNext}, []*operand{l.iter})
	jump := c.step(kernel.Alias(), []*operand{l.iter}, []*operand{l.iterNext})
	jump.frees = append(jump.frees, l.iterNext.slot)
	done := map[*ir.Value]bool{}
	for _, m := range r.Nodes {
		for _, v := range m.Outs {
			done[v] = v == nil
		}
	}
	for _, v := range r.Results {
		if f, own := done[v]; own && !f {
			done[v] = true
			jump.frees = append(jump.frees, c.slots[v].slot)
		}
	}
	c.step(kernel.Jump(), nil, nil, al(&l.top))
	c.here(&l.end)
	return nil
}

// finish releases the frame after the outputs were moved out.
func (l *bodyLoop) finish() { l.t.free(l.c.step(kernel.Nop(), nil, nil)) }

func lowerLoop(c *compiler, n *ir.Node) error {
	r := n.Regions[0]
	outs := c.outs(n)
	l := newBodyLoop(c)
	carried := len(r.Params) - 2
	ins := append(c.ins(n), nil, nil)
	c.step(kernel.LoopInit(), []*operand{l.iter, l.limit, l.cond}, []*operand{ins[0], ins[1]})
	var states []*operand
	c.slots[r.Params[0]], c.slots[r.Params[1]] = l.iter, l.cond
	for i := 0; i < carried; i++ {
		s := l.t.new()
		states = append(states, s)
		c.slots[r.Params[2+i]] = s
		c.step(kernel.Alias(), []*operand{s}, []*operand{ins[2+i]})
	}
	for i, v := range r.Results[1+carried:] {
		if err := l.accumulator(n, v.Type, n.Out(carried+i)); err != nil {
			return err
		}
	}
	l.begin()
	if err := l.body(r, states, 1); err != nil {
		return err
	}
	for i, o := range outs {
		if o == nil {
			continue
		}
		src := append(append([]*operand{}, states...), l.accs...)[i]
		c.step(kernel.Alias(), []*operand{o}, []*operand{src})
	}
	l.finish()
	return nil
}

func lowerScan(c *compiler, n *ir.Node) error {
	r := n.Regions[0]
	outs := c.outs(n)
	l := newBodyLoop(c)
	k := int(n.Int("num_scan_inputs"))
	states := len(n.Ins) - k
	ins := c.ins(n)
	inAxes, inDirs := n.Ints("scan_input_axes"), n.Ints("scan_input_directions")
	outAxes, outDirs := n.Ints("scan_output_axes"), n.Ints("scan_output_directions")
	var as []attr
	for _, a := range inAxes {
		as = append(as, ai(a))
	}
	c.step(kernel.ScanInit(), []*operand{l.iter, l.limit, l.cond}, ins[states:], as...)
	var st []*operand
	for i := 0; i < states; i++ {
		s := l.t.new()
		st = append(st, s)
		c.slots[r.Params[i]] = s
		c.step(kernel.Alias(), []*operand{s}, []*operand{ins[i]})
	}
	for i, v := range r.Results[states:] {
		if err := l.accumulator(n, v.Type, n.Out(states+i)); err != nil {
			return err
		}
	}
	l.begin()
	back := c.sized(l.t.new(), "position from the end", 8, nil)
	c.step(kernel.ScanBack(), []*operand{back}, []*operand{l.iter, l.limit})
	for i := 0; i < k; i++ {
		v := n.Ins[states+i]
		d, err := c.dt(n, v)
		if err != nil {
			return err
		}
		s := l.t.new()
		c.slots[r.Params[states+i]] = s
		at := l.iter
		if inDirs[i] != 0 {
			at = back
		}
		c.step(kernel.Gather(d), []*operand{s}, []*operand{ins[states+i], at}, ai(inAxes[i]))
	}
	if err := l.body(r, st, 0); err != nil {
		return err
	}
	for i, o := range outs {
		if o == nil {
			continue
		}
		if i < states {
			c.step(kernel.Alias(), []*operand{o}, []*operand{st[i]})
			continue
		}
		j := i - states
		v := r.Results[i]
		d, err := c.dt(n, v)
		if err != nil {
			return err
		}
		src := l.accs[j]
		if outDirs[j] != 0 {
			rev := c.sized(l.t.new(), "stack from its end", infoOf(n.Outs[i]).bytes, nil)
			list := func(x int64) *operand { return c.constant(ir.I64s([]int64{1}, []int64{x})) }
			c.step(kernel.Slice(d), []*operand{rev}, []*operand{src, list(-1), list(-1 << 62), list(0), list(-1)})
			src = rev
		}
		rank := v.Type.Shape.Rank() + 1
		axis := outAxes[j]
		if axis != 0 && rank == 0 {
			return unsupported(n, "scan output axis %d of a value of unknown rank", axis)
		}
		if axis < 0 {
			axis += int64(rank)
		}
		if axis == 0 {
			c.step(kernel.Alias(), []*operand{o}, []*operand{src})
			continue
		}
		// Axis 0 moves to axis: the ones before it come forward.
		pa := []attr{ai(int64(rank))}
		for x := 0; x < rank; x++ {
			switch {
			case int64(x) < axis:
				pa = append(pa, ai(int64(x+1)))
			case int64(x) == axis:
				pa = append(pa, ai(0))
			default:
				pa = append(pa, ai(int64(x)))
			}
		}
		c.step(kernel.Transpose(d, true), []*operand{o}, []*operand{src}, pa...)
	}
	l.finish()
	return nil
}
