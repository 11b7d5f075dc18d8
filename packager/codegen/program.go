package codegen

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/plan"
	"github.com/waybill-ml/waybill/packager/wasmenc"
)

// blob is a piece of constant memory whose address is fixed by layout.
type blob struct {
	bytes  []byte
	align  uint32
	tensor bool // goes to the weights image when there is one
	addr   uint32
	fix    func(b []byte) // fills in addresses of other blobs; may be nil
}

// label is a place in the program.
type label struct {
	step int
	set  bool
}

// operand is an input or output of a step: a slot or a constant. nil is absent.
type operand struct {
	slot int // index, when desc is nil
	desc *blob
}

// attr is one 8-byte attribute slot of a step.
type attr struct {
	v  uint64
	b  *blob  // address of b plus v
	lb *label // address of a record
}

func ai(v int64) attr   { return attr{v: uint64(v)} }
func af(v float64) attr { return attr{v: math.Float64bits(v)} }
func ab(b *blob) attr   { return attr{b: b} }
func al(l *label) attr  { return attr{lb: l} }

type step struct {
	k     *kernel.Kernel
	idx   kernel.Indexes
	node  int
	outs  []*operand
	ins   []*operand
	attrs []attr
	frees []int // slots
	addr  uint32
}

type compiler struct {
	g      *ir.Graph
	table  map[string]lowerer
	opt    Options
	mod    *wasmenc.Module
	lib    *kernel.Lib
	slots  map[*ir.Value]*operand
	consts map[*ir.Data]*operand
	turned map[*ir.Data]*ir.Data // transposed constants
	packs  map[packing]*ir.Data  // packed constants
	nslots int
	known  map[int]slotInfo // of slots whose value is known better than its type tells
	syms   map[string]int
	blobs  []*blob
	steps  []*step
	nodes  []string
	node   int // index of the node being lowered
	notes  []Note
}

// Compile compiles a graph that ir.Verify accepts. A graph that needs something the compiler lacks gives an
// *Unsupported.
func Compile(g *ir.Graph, opt Options) (*Result, error) {
	if opt.WeightsAbove == 0 {
		opt.WeightsAbove = DefaultWeightsAbove
	}
	if opt.ParallelMin == 0 {
		opt.ParallelMin = 16 * kernel.DefaultBudget
	}
	m := wasmenc.New()
	c := &compiler{g: g, table: lowerings(), opt: opt, mod: m, lib: kernel.NewLib(m), slots: map[*ir.Value]*operand{},
		consts: map[*ir.Data]*operand{}, turned: map[*ir.Data]*ir.Data{}, packs: map[packing]*ir.Data{}, syms: map[string]int{}, nodes: []string{"inputs"}, known: map[int]slotInfo{}}
	if opt.UnitMost > 0 {
		c.lib.UnitMost = opt.UnitMost
	}
	table, err := c.inputs()
	if err != nil {
		return nil, err
	}
	reserve := c.step(kernel.Reserve(), nil, nil, ai(0))
	for i, v := range g.Body.Params {
		if isString(v) {
			c.step(kernel.CheckStrings(), nil, []*operand{c.operand(v)}, ai(int64(i)))
		}
		if v.Type.Kind != ir.Tensor {
			own := c.newSlot()
			c.step(kernel.Adopt(listType(v.Type)), []*operand{own}, []*operand{c.operand(v)}, ai(int64(i)))
			c.slots[v] = own
		}
	}
	for _, v := range g.Body.Params {
		if b := v.Type.DType.Bits(); b > 0 && b < 8 {
			d, err := kernel.StorageOf(abi.DType(v.Type.DType))
			if err != nil {
				return nil, err
			}
			packed := c.slots[v]
			c.slots[v] = c.newSlot()
			c.step(kernel.Unpack(d), []*operand{c.slots[v]}, []*operand{packed})
		}
	}
	if err := c.region(g.Body); err != nil {
		return nil, err
	}
	if err := c.outputs(); err != nil {
		return nil, err
	}
	mem, places, err := c.plan(reserve)
	if err != nil {
		return nil, err
	}
	return c.finish(table, places, mem)
}

// inputs gives the parameters slots 0..n-1 and makes the table that bind checks them against.
func (c *compiler) inputs() (*blob, error) {
	table := c.blob(make([]byte, len(c.g.Body.Params)*kernel.SpecSize), 16)
	for i, v := range c.g.Body.Params {
		c.slots[v] = c.newSlot()
		b := table.bytes[i*kernel.SpecSize:]
		put32 := func(off int, x uint32) { binary.LittleEndian.PutUint32(b[off:], x) }
		put64 := func(off int, x int64) { binary.LittleEndian.PutUint64(b[off:], uint64(x)) }
		if v.Type.Kind != ir.Tensor {
			l := listType(v.Type)
			if !checkable(l) {
				return nil, &Unsupported{Op: "input", Node: v.Name, Reason: "type " + v.Type.String() + " as a model input"}
			}
			put32(kernel.SpecKind, uint32(l.Kind))
			continue
		}
		put32(kernel.SpecDType, uint32(v.Type.DType))
		shift := uint32(0xff)
		if v.Type.DType != ir.String {
			d, err := kernel.StorageOf(abi.DType(v.Type.DType))
			if err != nil {
				return nil, &Unsupported{Op: "input", Node: v.Name, Reason: err.Error()}
			}
			shift = uint32(d.Shift)
			if d.Bits < 8 {
				shift = kernel.SpecPacked | uint32(d.PerByte())
			}
		}
		put32(kernel.SpecShift, shift)
		if !v.Type.Shape.Ranked {
			put32(kernel.SpecRank, abi.AnyRank)
			continue
		}
		put32(kernel.SpecRank, uint32(len(v.Type.Shape.Dims)))
		for j, d := range v.Type.Shape.Dims {
			x := d.N
			switch {
			case d.Any:
				x = -1
			case d.Sym != "":
				s, ok := c.syms[d.Sym]
				if !ok {
					s = len(c.syms)
					c.syms[d.Sym] = s
				}
				x = int64(-2 - s)
			}
			put64(kernel.SpecDims+8*j, x)
			put64(kernel.SpecMax+8*j, d.Max)
		}
	}
	return table, nil
}

// outputs emits the steps that hand the results to the host.
func (c *compiler) outputs() error {
	c.node = 0
	for i, v := range c.g.Body.Results {
		tmp := c.newSlot()
		c.known[tmp.slot] = hostForm(v)
		k, err := kernel.Output(v.Type.Kind == ir.Tensor, abi.DType(v.Type.DType))
		if err != nil {
			return &Unsupported{Op: "output", Node: v.Name, Reason: err.Error()}
		}
		if l := listType(v.Type); v.Type.Kind != ir.Tensor && l != nil {
			k = kernel.Detach(detached(l))
		}
		c.step(k, []*operand{tmp}, []*operand{c.operand(v)})
		c.step(kernel.Publish(), nil, []*operand{tmp}, ai(int64(i)))
	}
	c.step(kernel.Halt(), nil, nil)
	return nil
}

func (c *compiler) newSlot() *operand {
	c.nslots++
	return &operand{slot: c.nslots - 1}
}

// blob adds constant memory.
func (c *compiler) blob(b []byte, align uint32) *blob {
	x := &blob{bytes: b, align: align}
	c.blobs = append(c.blobs, x)
	return x
}

// operand finds the slot or constant of a value; nil for nil.
func (c *compiler) operand(v *ir.Value) *operand {
	if v == nil {
		return nil
	}
	if v.Const != nil {
		return c.constant(v.Const)
	}
	o, ok := c.slots[v]
	if !ok {
		panic(fmt.Sprintf("codegen: value %q is used before it is made; Verify would have said so", v.Name))
	}
	return o
}

// define gives an output value its slot; nil for nil.
func (c *compiler) define(v *ir.Value) *operand {
	if v == nil {
		return nil
	}
	o, ok := c.slots[v]
	if !ok {
		o = c.newSlot()
		c.slots[v] = o
	}
	return o
}

// constant lays a tensor down with a descriptor of its own.
func (c *compiler) constant(d *ir.Data) *operand {
	if o, ok := c.consts[d]; ok {
		return o
	}
	raw, aux := unpacked(d), uint32(0)
	if d.DType == ir.String {
		raw, aux = stringBytes(d.Strings)
	}
	t := c.blob(raw, abi.TensorLine)
	t.tensor = true
	desc := c.blob(make([]byte, abi.DescSize), abi.Align)
	desc.fix = func(b []byte) {
		le := binary.LittleEndian
		le.PutUint32(b[abi.DescKind:], uint32(abi.Tensor))
		le.PutUint32(b[abi.DescDType:], uint32(d.DType))
		le.PutUint32(b[abi.DescRank:], uint32(len(d.Dims)))
		for i, n := range d.Dims {
			le.PutUint64(b[abi.DescDims+8*i:], uint64(n))
		}
		le.PutUint32(b[abi.DescData:], t.addr)
		le.PutUint32(b[abi.DescBytes:], uint32(len(raw)))
		le.PutUint32(b[abi.DescCap:], uint32(len(raw)))
		le.PutUint32(b[abi.DescAux:], aux)
	}
	o := &operand{desc: desc}
	c.consts[d] = o
	return o
}

// stringBytes is the ABI's form of string elements: offsets[n+1], then the text.
func stringBytes(ss []string) ([]byte, uint32) {
	var off, text []byte
	for _, s := range ss {
		off = binary.LittleEndian.AppendUint32(off, uint32(len(text)))
		text = append(text, s...)
	}
	off = binary.LittleEndian.AppendUint32(off, uint32(len(text)))
	return append(off, text...), uint32(len(text))
}

// step appends a record.
func (c *compiler) step(k *kernel.Kernel, outs, ins []*operand, attrs ...attr) *step {
	for len(outs) < k.NOut {
		outs = append(outs, nil)
	}
	for len(outs) > k.NOut && outs[len(outs)-1] == nil {
		outs = outs[:len(outs)-1]
	}
	s := &step{k: k, idx: c.lib.Use(k), node: c.node, outs: outs, ins: ins, attrs: attrs}
	c.steps = append(c.steps, s)
	return s
}

// here sets l to the next step.
func (c *compiler) here(l *label) { l.step, l.set = len(c.steps), true }

func (c *compiler) note(n *ir.Node, format string, args ...any) {
	c.notes = append(c.notes, Note{Node: n.Name, Op: n.Op, Text: fmt.Sprintf(format, args...)})
}

// finish lays everything out and encodes the module.
func (c *compiler) finish(table, places *blob, mem *plan.Map) (*Result, error) {
	const page = abi.PageSize
	tensors := int64(0)
	for _, b := range c.blobs {
		if b.tensor {
			tensors += (int64(len(b.bytes)) + abi.TensorLine - 1) &^ (abi.TensorLine - 1)
		}
	}
	var weights []byte
	base := uint32(1024) // address 0 stays unused, so that a null pointer reads nothing of value
	weightsBase := uint32(0)
	split := c.opt.WeightsAbove >= 0 && tensors > c.opt.WeightsAbove
	if tensors > 1<<32-64*page {
		return nil, &Unsupported{Op: "model", Node: c.g.Name, Reason: fmt.Sprintf("%d bytes of constants do not fit in 32-bit memory", tensors)}
	}
	if split {
		weightsBase = page
		weights = make([]byte, 0, (tensors+page-1)&^(page-1))
		for _, b := range c.blobs {
			if b.tensor {
				for len(weights)%abi.TensorLine != 0 {
					weights = append(weights, 0)
				}
				b.addr = weightsBase + uint32(len(weights))
				weights = append(weights, b.bytes...)
			}
		}
		weights = append(weights, make([]byte, (page-len(weights)%page)%page)...)
		base = weightsBase + uint32(len(weights))
	}
	pos := base
	for _, b := range c.blobs {
		if split && b.tensor {
			continue
		}
		pos = (pos + b.align - 1) &^ (b.align - 1)
		b.addr = pos
		pos += uint32(len(b.bytes))
	}
	pos = (pos + 15) &^ 15
	attrBase := pos
	for _, s := range c.steps {
		pos += uint32(8 * len(s.attrs))
	}
	bindRec := pos
	pos += kernel.RecRefs
	for _, s := range c.steps {
		s.addr = pos
		pos += uint32(kernel.RecRefs + 4*(len(s.outs)+len(s.ins)+len(s.frees)))
	}
	end := pos
	data := make([]byte, end-base)
	le := binary.LittleEndian
	for _, b := range c.blobs {
		if b.fix != nil {
			b.fix(b.bytes)
		}
		if !(split && b.tensor) {
			copy(data[b.addr-base:], b.bytes)
		}
	}
	ap := attrBase
	for _, s := range c.steps {
		r := data[s.addr-base:]
		le.PutUint32(r[kernel.RecPrep:], s.idx.Prep)
		le.PutUint32(r[kernel.RecSize:], uint32(kernel.RecRefs+4*(len(s.outs)+len(s.ins)+len(s.frees))))
		le.PutUint32(r[kernel.RecNode:], uint32(s.node))
		le.PutUint32(r[kernel.RecNIn:], uint32(len(s.ins)))
		le.PutUint32(r[kernel.RecRun:], s.idx.Run)
		le.PutUint32(r[kernel.RecAttrs:], ap)
		le.PutUint32(r[kernel.RecKind:], s.idx.Kind)
		le.PutUint32(r[kernel.RecNFree:], uint32(len(s.frees)))
		off := kernel.RecRefs
		for _, o := range append(append([]*operand{}, s.outs...), s.ins...) {
			le.PutUint32(r[off:], o.ref())
			off += 4
		}
		for _, f := range s.frees {
			le.PutUint32(r[off:], slotRef(f))
			off += 4
		}
		for _, a := range s.attrs {
			v := a.v
			if a.b != nil {
				v += uint64(a.b.addr)
			}
			if a.lb != nil {
				if !a.lb.set || a.lb.step >= len(c.steps) {
					panic("codegen: label without a place")
				}
				v = uint64(c.steps[a.lb.step].addr)
			}
			le.PutUint64(data[ap-base:], v)
			ap += 8
		}
	}
	heap := (end + page - 1) &^ (page - 1)
	start := bindRec + kernel.RecRefs
	prog := kernel.Program{Start: start, BindRec: bindRec, NumInputs: len(c.g.Body.Params), NumOutputs: len(c.g.Body.Results),
		InputTable: table.addr, NumSlots: c.nslots, NumSyms: len(c.syms), HeapBase: heap, Weights: weightsBase,
		Parallel: c.opt.Parallel, ParMin: c.opt.ParallelMin, PlanTable: places.addr, PlanSize: uint32(mem.Size)}
	c.lib.Machine(prog)
	m := c.mod
	m.MemoryName = abi.ExportMemory
	m.MinPages, m.MaxPages = heap/page, 65536
	m.Table = true
	m.Data = []wasmenc.Data{{Offset: base, Bytes: data}}
	wasm, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode module: %w", err)
	}
	return &Result{Module: wasm, Weights: weights, WeightsBase: weightsBase, Nodes: c.nodes, HeapBase: heap,
		CtxSize: prog.CtxSize(), ArenaHint: arenaHint(mem), Memory: mem, Notes: c.notes}, nil
}

const page64 = int64(abi.PageSize)

func slotRef(i int) uint32 { return uint32(kernel.CtxSlots + i*abi.DescSize) }

func (o *operand) ref() uint32 {
	switch {
	case o == nil:
		return 0
	case o.desc != nil:
		return o.desc.addr + 1
	}
	return slotRef(o.slot)
}
