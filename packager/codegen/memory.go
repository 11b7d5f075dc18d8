package codegen

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/plan"
)

// slotInfo is what the compiler knows of a slot's own memory. The zero value knows nothing.
type slotInfo struct {
	name  string
	bytes int64
	dims  []int64 // nil when they are not known; set only for slots of values
}

// maxPlanned is the size from which on a value is left to the heap, which reports it when it is really needed.
const maxPlanned = math.MaxInt32

// infoOf is what a value's type tells.
func infoOf(v *ir.Value) slotInfo {
	s := slotInfo{name: v.Name}
	if v.Type.Kind != ir.Tensor || v.Type.DType == ir.String {
		return s
	}
	dims, ok := v.Type.Shape.Static()
	if !ok {
		return s
	}
	n, ok := ir.Elements(dims)
	d, err := kernel.StorageOf(abi.DType(v.Type.DType))
	if !ok || err != nil || n > maxPlanned>>d.Shift {
		return s
	}
	s.dims, s.bytes = dims, max(n<<d.Shift, 1)
	return s
}

// hostForm is the slot in which output v is made ready for the host: small elements share bytes there.
func hostForm(v *ir.Value) slotInfo {
	s := infoOf(v)
	s.name, s.dims = "output "+v.Name, nil
	if b := int64(v.Type.DType.Bits()); s.bytes > 0 && b > 0 && b < 8 {
		s.bytes = (s.bytes*b + 7) / 8
	}
	return s
}

// sized tells the plan what a slot of a lowering's own needs; bytes below 1 tell nothing. dims may be nil.
func (c *compiler) sized(o *operand, what string, bytes int64, dims []int64) *operand {
	if o != nil && o.desc == nil && bytes > 0 && bytes <= maxPlanned {
		c.known[o.slot] = slotInfo{name: what + " of " + c.nodes[c.node], bytes: bytes, dims: dims}
	}
	return o
}

// slotInfos collects what is known of all slots.
func (c *compiler) slotInfos() ([]slotInfo, error) {
	out := make([]slotInfo, c.nslots)
	add := func(v *ir.Value) {
		o := c.slots[v]
		if v == nil || o == nil || o.desc != nil {
			return
		}
		x, have := infoOf(v), out[o.slot]
		switch {
		case have.name == "":
			out[o.slot] = x
		case have.bytes == 0 || x.bytes == 0:
			// Two values take turns in the slot, and one of them has no known size.
			out[o.slot] = slotInfo{name: have.name}
		default:
			have.bytes = max(have.bytes, x.bytes)
			if !slices.Equal(have.dims, x.dims) {
				have.dims = nil
			}
			out[o.slot] = have
		}
	}
	var region func(r *ir.Region)
	region = func(r *ir.Region) {
		for _, v := range r.Params {
			add(v)
		}
		for _, n := range r.Nodes {
			for _, v := range n.Outs {
				if v != nil {
					add(v)
				}
			}
			for _, s := range n.Regions {
				region(s)
			}
		}
	}
	region(c.g.Body)
	for s, x := range c.known {
		if out[s].name == "" {
			out[s] = x
		}
	}
	return out, nil
}

// plan lays out the arena: the values whose sizes are known have fixed places in its first part, for which the module asks before
// its first step; the rest comes from a heap behind them. It fills in what reserve asks for and returns the table that tells each slot's place.
func (c *compiler) plan(reserve *step) (*plan.Map, *blob, error) {
	info, err := c.slotInfos()
	if err != nil {
		return nil, nil, err
	}
	p := &plan.Program{Slots: make([]plan.Slot, c.nslots), Steps: make([]plan.Step, len(c.steps))}
	for i, x := range info {
		p.Slots[i].Bytes = x.bytes
		p.Slots[i].Foreign = i < len(c.g.Body.Params)
	}
	mem := &plan.Map{Exact: true, Values: []plan.Value{}, Loose: []string{}, Steps: []string{}}
	for i, s := range c.steps {
		p.Steps[i] = s.planned(info)
		mem.Steps = append(mem.Steps, c.nodes[s.node])
		mem.Exact = mem.Exact && s.k.Holds != kernel.HoldsAny
	}
	out := plan.Make(p)
	if err := out.Check(); err != nil {
		panic("codegen: the memory plan is wrong: " + err.Error())
	}
	if out.Size > 1<<32-64*page64 {
		return nil, nil, &Unsupported{Op: "model", Node: c.g.Name, Reason: fmt.Sprintf("its values take %d bytes at a time, which do not fit in 32-bit memory", out.Size)}
	}
	mem.Size, mem.Bound, mem.Peak = out.Size, out.Bound, out.Peak
	mem.Exact = mem.Exact && len(out.Loose) == 0
	table := make([]byte, c.nslots*kernel.PlanEntry)
	for _, b := range out.Blocks {
		binary.LittleEndian.PutUint32(table[b.Slot*kernel.PlanEntry:], uint32(b.Offset))
		binary.LittleEndian.PutUint32(table[b.Slot*kernel.PlanEntry+4:], uint32(b.Size/int64(b.Turns)))
		binary.LittleEndian.PutUint32(table[b.Slot*kernel.PlanEntry+8:], uint32(b.Size))
		v := plan.Value{Name: info[b.Slot].name, Offset: b.Offset, Bytes: b.Bytes, Turns: b.Turns, Live: b.Live}
		if b.Over >= 0 {
			v.Over = info[b.Over].name
		}
		mem.Values = append(mem.Values, v)
	}
	for _, s := range out.Loose {
		name := info[s].name
		if name == "" {
			name = fmt.Sprintf("slot %d", s)
		}
		mem.Loose = append(mem.Loose, name)
	}
	reserve.attrs[0] = ai(out.Size)
	return mem, c.blob(table, 16), nil
}

// planned tells the plan what a step does.
func (s *step) planned(info []slotInfo) plan.Step {
	p := plan.Step{Jump: plan.NoJump, Ends: s.k.Jumps, Free: s.frees}
	for _, a := range s.attrs {
		if a.lb != nil {
			p.Jump = a.lb.step
		}
	}
	slots := func(os []*operand) (out []int) {
		for _, o := range os {
			if o != nil && o.desc == nil {
				out = append(out, o.slot)
			}
		}
		return out
	}
	src := plan.Foreign
	if len(s.ins) > 0 && s.ins[0] != nil && s.ins[0].desc == nil {
		src = s.ins[0].slot
	}
	outs := slots(s.outs)
	switch s.k.Holds {
	case kernel.HoldsInput, kernel.HoldsOrCopy:
		for _, o := range outs {
			p.Share = append(p.Share, plan.Share{Dst: o, Src: src, Copy: s.k.Holds == kernel.HoldsOrCopy})
		}
	case kernel.HoldsMore:
		p.Grow = outs[:1]
		if info[outs[0]].bytes == 0 {
			p.Make = outs[1:]
		}
	case kernel.HoldsAny:
		p.Keep = slots(s.ins)
		for _, o := range outs {
			p.Share = append(p.Share, plan.Share{Dst: o, Src: plan.Foreign})
		}
	default:
		p.Make = outs
		p.Reuse = s.inPlace(info)
	}
	return p
}

// inPlace lists the slots of inputs over which output 0 may be laid as far as the kernel and the shapes go.
func (s *step) inPlace(info []slotInfo) (out []int) {
	if len(s.outs) == 0 || s.outs[0] == nil || info[s.outs[0].slot].dims == nil {
		return nil
	}
	y := info[s.outs[0].slot]
	for _, i := range s.k.InPlace {
		if i >= len(s.ins) || s.ins[i] == nil || s.ins[i].desc != nil {
			continue
		}
		x := s.ins[i].slot
		safe := info[x].dims != nil && slices.Equal(info[x].dims, y.dims) && info[x].bytes == y.bytes
		for j, o := range s.ins {
			if o != nil && o.desc == nil && o.slot == x && !slices.Contains(s.k.InPlace, j) {
				safe = false // the kernel looks at it in another way too
			}
		}
		if safe {
			out = append(out, x)
		}
	}
	return out
}

// heapHint is a first size of the heap with which small inferences need no growth.
const heapHint = 4 * page64

// arenaHint is the plan, and a first heap when something comes from there.
func arenaHint(m *plan.Map) uint32 {
	n := int64(0)
	if !m.Exact {
		n = heapHint
	}
	return uint32(min((m.Size+n+page64-1)&^(page64-1), 1<<32-page64))
}
