package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Holding says whose memory the outputs of a kernel hold.
type Holding int

// Kinds of holding.
const (
	HoldsOwn    Holding = iota // each output gets memory of its own (Alloc, AllocBytes)
	HoldsInput                 // output 0 becomes another holder of input 0's memory
	HoldsOrCopy                // the same if the memory is the program's own, else output 0 gets a copy
	HoldsMore                  // output 0 goes on holding what it holds or moves into output 1's memory, which then holds nothing
	HoldsAny                   // the outputs are lists that hold inputs, or elements of lists
)

// An entry of the plan's table, one for each slot.
const (
	planOffset = 0 // u32, from the arena's base
	planCap    = 4 // u32 bytes there, 0 when the slot is not planned
	planSpan   = 8 // u32 bytes of all places of the slot, which it takes in turn

	// PlanEntry is the size of an entry. It is a slot's size shifted right by planShift.
	PlanEntry = 12
	planShift = 3
)

// Reserve asks for the plan's memory, attr0 bytes, at once.
func Reserve() *Kernel {
	return &Kernel{Name: "reserve", Run: func(k *K) {
		need, have := k.Let(k.Attr(0)), k.Let(asm.L32(k.Ctx.E, abi.CtxArenaSize).ExtU())
		k.Check(need.Add(asm.L32(k.Ctx.E, abi.CtxArenaBase).ExtU()).LeU(asm.CL(1<<32-1)), abi.ErrMemory, need.E, asm.CL(0))
		k.If(need.GtU(have.E), func() {
			k.Put(asm.M32, k.Ctx.E, abi.CtxWant, need.Sub(have.E).Wrap())
			k.Return(asm.C(int64(abi.NeedMemory)))
		})
	}}
}

// alloc(ctx, rec, desc, bytes) gives desc a block of its own; its old one is released first, so that a step that is
// repeated after need-memory does not leak.
func (l *Lib) alloc() uint32 {
	if l.allocFn == nil {
		l.allocFn = asm.NewFn(l.M, "alloc", []T{asm.I32, asm.I32, asm.I32, asm.I64}, []T{asm.I32})
	}
	return l.allocFn.Index()
}

// buildAlloc emits alloc if anything calls it. A slot that the plan knows gets its place there, the rest blocks of the heap
// behind the plan.
func (l *Lib) buildAlloc(prog Program) {
	f := l.allocFn
	if f == nil {
		return
	}
	ctx, rec, d, want := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
	again := f.Let(asm.L32(d.E, abi.DescFlags).AndI(flagPlanned))
	f.CallStmt(l.release(), d.E)
	if prog.PlanSize > 0 {
		// Descriptors of list elements lie outside of the slots.
		at := f.Let(d.Sub(ctx.E).SubI(CtxSlots))
		f.If(at.LtU(asm.C(int64(prog.NumSlots*abi.DescSize))), func() {
			f.Set(at, at.ShrUI(planShift).AddI(int64(prog.PlanTable)))
			f.If(asm.And2(asm.L32(at.E, planCap), want.LeU(asm.L32(at.E, planCap).ExtU())), func() {
				first := f.Let(asm.L32(ctx.E, abi.CtxArenaBase).Add(asm.L32(at.E, planOffset)))
				f.If(asm.L32(at.E, planSpan).GtU(asm.L32(at.E, planCap)), func() {
					// The next place in turn, unless the step is repeated after need-memory: then the slot is not empty.
					last := f.Let(Data(d))
					f.If(last.Sub(first.E).LtU(asm.L32(at.E, planSpan)), func() {
						f.If(again.Eqz(), func() { f.Set(last, last.Add(asm.L32(at.E, planCap))) })
						f.If(last.Sub(first.E).LtU(asm.L32(at.E, planSpan)), func() { f.Set(first, last.E) })
					})
				})
				f.Put(asm.M32, d.E, abi.DescData, first.E)
				f.Put(asm.M32, d.E, abi.DescBytes, want.Wrap())
				f.Put(asm.M32, d.E, abi.DescCap, asm.L32(at.E, planCap))
				f.Put(asm.M32, d.E, abi.DescAux, asm.C(0))
				f.Put(asm.M32, d.E, abi.DescFlags, asm.C(flagPlanned))
				f.Return(asm.C(0))
			})
		})
	}
	f.If(want.GtU(asm.CL(0xffff0000)), func() {
		f.Return(asm.Call(asm.I32, l.fail(), ctx.E, rec.E, asm.C(int64(abi.ErrMemory)), want.E, asm.CL(0)))
	})
	n := f.Let(want.Wrap().AddI(15).AndI(-16))
	f.If(n.Eqz(), func() { f.Set(n, asm.C(16)) })
	p := f.Let(asm.L32(ctx.E, CtxHeap))
	top := f.Let(asm.L32(ctx.E, CtxTop))
	sz := f.Local(asm.I32)
	q := f.Local(asm.I32)
	give := func() {
		f.Put(asm.M32, p.E, blkSize, sz.E)
		f.Put(asm.M32, p.E, blkRefs, asm.C(1))
		f.Put(asm.M32, d.E, abi.DescData, p.AddI(blkHead))
		f.Put(asm.M32, d.E, abi.DescBytes, want.Wrap())
		f.Put(asm.M32, d.E, abi.DescCap, sz.E)
		f.Put(asm.M32, d.E, abi.DescAux, asm.C(0))
		f.Put(asm.M32, d.E, abi.DescFlags, asm.C(flagOwned))
		f.Return(asm.C(0))
	}
	f.Block(func(done asm.Label) {
		f.Loop(func(next asm.Label) {
			f.BrIf(done, p.GeU(top.E))
			f.Set(sz, asm.L32(p.E, blkSize))
			f.Set(q, p.Add(sz.E).AddI(blkHead))
			f.If(asm.L32(p.E, blkRefs).Eqz(), func() {
				// Merge the free blocks that follow.
				f.Block(func(stop asm.Label) {
					f.Loop(func(merge asm.Label) {
						f.BrIf(stop, q.GeU(top.E))
						f.BrIf(stop, asm.L32(q.E, blkRefs))
						f.Set(q, q.Add(asm.L32(q.E, blkSize)).AddI(blkHead))
						f.Br(merge)
					})
				})
				f.Set(sz, q.Sub(p.E).SubI(blkHead))
				f.Put(asm.M32, p.E, blkSize, sz.E)
				f.If(q.Eq(top.E), func() {
					f.Set(top, p.E)
					f.Br(done)
				})
				f.If(sz.GeU(n.E), func() {
					f.If(sz.Sub(n.E).GeU(asm.C(64)), func() {
						f.Set(q, p.Add(n.E).AddI(blkHead))
						f.Put(asm.M32, q.E, blkSize, sz.Sub(n.E).SubI(blkHead))
						f.Put(asm.M32, q.E, blkRefs, asm.C(0))
						f.Set(sz, n.E)
					})
					give()
				})
			})
			f.Set(p, q.E)
			f.Br(next)
		})
	})
	f.Put(asm.M32, ctx.E, CtxTop, top.E)
	f.Set(p, top.E)
	end := f.Let(p.ExtU().Add(n.ExtU()).AddI(blkHead))
	lim := f.Let(asm.L32(ctx.E, abi.CtxArenaBase).ExtU().Add(asm.L32(ctx.E, abi.CtxArenaSize).ExtU()))
	f.If(end.GtU(lim.E), func() {
		f.If(end.GtU(asm.CL(1<<32-1)), func() {
			f.Return(asm.Call(asm.I32, l.fail(), ctx.E, rec.E, asm.C(int64(abi.ErrMemory)), want.E, asm.CL(0)))
		})
		f.Put(asm.M32, ctx.E, abi.CtxWant, end.Sub(lim.E).Wrap())
		f.Return(asm.C(int64(abi.NeedMemory)))
	})
	f.Put(asm.M32, ctx.E, CtxTop, end.Wrap())
	f.Set(sz, n.E)
	give()
	f.Unreachable()
	f.Finish()
}
