package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Program says where the compiler laid things for the machine.
type Program struct {
	Start      uint32 // address of the first record
	BindRec    uint32 // address of a record-shaped header for errors of bind
	NumInputs  int
	NumOutputs int
	InputTable uint32 // address of NumInputs input specs
	NumSlots   int    // inputs first
	NumSyms    int
	HeapBase   uint32
	Weights    uint32 // base of the weights image, 0 without one
	Parallel   bool   // announce parallel sections
	ParMin     int64  // work below which a section is not worth announcing
	PlanTable  uint32 // address of NumSlots plan entries
	PlanSize   uint32 // bytes of the arena's planned part; the heap begins behind it
}

// Layout of an input spec.
const (
	SpecKind  = 0  // abi.Kind
	SpecDType = 4  // abi.DType
	SpecRank  = 8  // or abi.AnyRank
	SpecShift = 12 // log2 of the element size; 0xff for strings; SpecPacked + n where n elements share a byte
	SpecDims  = 16 // MaxRank i64: >= 0 exact, -1 anything, -2-s symbol s
	SpecMax   = 80 // MaxRank i64: greatest size, 0 for none
	SpecSize  = 144

	SpecPacked = 0x100
)

// CtxSize is the size of a context block.
func (p *Program) CtxSize() uint32 {
	return uint32(CtxSlots + p.NumSlots*abi.DescSize + (p.NumSyms*8+15)/16*16)
}

func (p *Program) symsOff() int64 { return int64(CtxSlots + p.NumSlots*abi.DescSize) }

// Machine emits the exported functions and returns nothing: they are exports.
func (l *Lib) Machine(p Program) {
	m := l.M
	export := func(name string, params, results []T, build func(f *asm.Fn)) {
		m.Export(name, l.Fn(name, params, results, build))
	}
	i32 := []T{asm.I32}
	export(abi.ExportABI, nil, i32, func(f *asm.Fn) { f.Return(asm.C(abi.Version)) })
	export(abi.ExportCtx, nil, i32, func(f *asm.Fn) { f.Return(asm.C(int64(p.CtxSize()))) })
	export(abi.ExportHeap, nil, i32, func(f *asm.Fn) { f.Return(asm.C(int64(p.HeapBase))) })
	if p.Weights != 0 {
		export(abi.ExportWeights, nil, i32, func(f *asm.Fn) { f.Return(asm.C(int64(p.Weights))) })
	}
	export(abi.ExportBind, i32, i32, func(f *asm.Fn) { l.bind(f, p) })
	export(abi.ExportResume, i32, i32, func(f *asm.Fn) { l.resume(f, p) })
	export(abi.ExportPart, []T{asm.I32, asm.I32}, i32, func(f *asm.Fn) { l.part(f, p) })
	l.buildAlloc(p)
}

func (l *Lib) bind(f *asm.Fn, p Program) {
	ctx := f.Param(0)
	fail := func(code abi.Code, a, b E) {
		f.Return(asm.Call(asm.I32, l.fail(), ctx.E, asm.C(int64(p.BindRec)), asm.C(int64(code)), a, b))
	}
	f.Put(asm.M32, ctx.E, abi.CtxErrCode, asm.C(0))
	f.Put(asm.M32, ctx.E, abi.CtxErrNode, asm.C(0))
	f.Put(asm.M32, ctx.E, CtxParRec, asm.C(0))
	f.If(asm.L32(ctx.E, abi.CtxMagic).NeI(abi.CtxMagicValue), func() { fail(abi.ErrABI, asm.CL(0), asm.CL(0)) })
	f.If(asm.L32(ctx.E, abi.CtxNumInputs).NeI(int64(p.NumInputs)), func() {
		fail(abi.ErrABI, asm.CL(1), asm.L32(ctx.E, abi.CtxNumInputs).ExtU())
	})
	f.If(asm.L32(ctx.E, abi.CtxNumOutputs).NeI(int64(p.NumOutputs)), func() {
		fail(abi.ErrABI, asm.CL(2), asm.L32(ctx.E, abi.CtxNumOutputs).ExtU())
	})
	f.If(asm.L32(ctx.E, abi.CtxArenaBase).AndI(15), func() {
		fail(abi.ErrABI, asm.CL(3), asm.L32(ctx.E, abi.CtxArenaBase).ExtU())
	})
	f.MemFill(ctx.AddI(CtxSlots), asm.C(0), asm.C(int64(p.NumSlots*abi.DescSize)))
	if p.NumSyms > 0 {
		f.MemFill(ctx.AddI(p.symsOff()), asm.C(0xff), asm.C(int64(p.NumSyms*8)))
	}
	if p.NumInputs > 0 {
		in := f.Local(asm.I32)
		i, j := f.Local(asm.I32), f.Local(asm.I32)
		spec := f.Local(asm.I32)
		n, x, s := f.Local(asm.I64), f.Local(asm.I64), f.Local(asm.I64)
		sp := f.Local(asm.I32)
		f.Up(i, asm.C(int64(p.NumInputs)), func() {
			f.Set(in, asm.L32(ctx.E, abi.CtxInputs).Add(i.MulI(abi.DescSize)))
			f.Set(spec, i.MulI(SpecSize).AddI(int64(p.InputTable)))
			f.If(asm.L32(in.E, abi.DescKind).Ne(asm.L32(spec.E, SpecKind)), func() {
				fail(abi.ErrDType, i.ExtU(), asm.L32(in.E, abi.DescKind).ExtU())
			})
			f.If(asm.L32(in.E, abi.DescKind).Eqz(), func() {
				f.If(asm.L32(in.E, abi.DescDType).Ne(asm.L32(spec.E, SpecDType)), func() {
					fail(abi.ErrDType, i.ExtU(), asm.L32(in.E, abi.DescDType).ExtU())
				})
				f.If(asm.L32(in.E, abi.DescRank).GtU(asm.C(abi.MaxRank)), func() {
					fail(abi.ErrRank, i.ExtU(), asm.L32(in.E, abi.DescRank).ExtU())
				})
				f.If(asm.And2(asm.L32(spec.E, SpecRank).NeI(abi.AnyRank), asm.L32(spec.E, SpecRank).Ne(asm.L32(in.E, abi.DescRank))), func() {
					fail(abi.ErrRank, i.ExtU(), asm.L32(in.E, abi.DescRank).ExtU())
				})
				f.Set(n, asm.CL(1))
				f.For(j, asm.C(0), Rank(in), 1, func() {
					f.Set(x, Dim(in, j.E))
					f.If(asm.Or2(x.LtS(asm.CL(0)), x.GtS(asm.CL(1<<31-1))), func() {
						fail(abi.ErrDim, i.MulI(abi.MaxRank).Add(j.E).ExtU(), x.E)
					})
					f.Set(n, n.Mul(x.E))
					f.If(n.GtS(asm.CL(1<<31-1)), func() { fail(abi.ErrOverflow, n.E, x.E) })
					f.If(asm.L32(spec.E, SpecRank).NeI(abi.AnyRank), func() {
						f.Set(s, asm.L64(spec.Add(j.ShlI(3)), SpecDims))
						f.If(asm.And2(s.GeS(asm.CL(0)), s.Ne(x.E)), func() {
							fail(abi.ErrDim, i.MulI(abi.MaxRank).Add(j.E).ExtU(), x.E)
						})
						f.If(s.LtS(asm.CL(-1)), func() {
							f.Set(sp, ctx.AddI(p.symsOff()).Add(asm.CL(-2).Sub(s.E).Wrap().ShlI(3)))
							f.If(asm.L64(sp.E, 0).LtS(asm.CL(0)), func() { f.Put(asm.M64, sp.E, 0, x.E) })
							f.If(asm.L64(sp.E, 0).Ne(x.E), func() {
								fail(abi.ErrDim, i.MulI(abi.MaxRank).Add(j.E).ExtU(), x.E)
							})
						})
						f.Set(s, asm.L64(spec.Add(j.ShlI(3)), SpecMax))
						f.If(asm.And2(s.NeI(0), x.GtS(s.E)), func() {
							fail(abi.ErrDim, i.MulI(abi.MaxRank).Add(j.E).ExtU(), x.E)
						})
					})
				})
				f.If(asm.L32(spec.E, SpecShift).EqI(0xff), func() {
					// Strings: offsets first; the program's own check reads them before any use.
					f.If(asm.L32(in.E, abi.DescBytes).ExtU().LtU(n.AddI(1).ShlI(2)), func() {
						fail(abi.ErrString, i.ExtU(), asm.L32(in.E, abi.DescBytes).ExtU())
					})
				}, func() {
					f.Set(s, asm.L32(spec.E, SpecShift).ExtU())
					f.If(s.GeS(asm.CL(SpecPacked)), func() {
						f.Set(s, s.SubI(SpecPacked))
						f.Set(s, n.Add(s.E).SubI(1).DivS(s.E))
					}, func() { f.Set(s, n.Shl(s.E)) })
					f.If(asm.L32(in.E, abi.DescBytes).ExtU().Ne(s.E), func() {
						fail(abi.ErrShape, i.ExtU(), asm.L32(in.E, abi.DescBytes).ExtU())
					})
				})
			})
			slot := f.Let(ctx.AddI(CtxSlots).Add(i.MulI(abi.DescSize)))
			f.MemCopy(slot.E, in.E, asm.C(abi.DescSize))
			f.Put(asm.M32, slot.E, abi.DescFlags, asm.C(0))
		})
	}
	if p.NumOutputs > 0 {
		f.MemFill(asm.L32(ctx.E, abi.CtxOutputs), asm.C(0), asm.C(int64(p.NumOutputs*abi.DescSize)))
		i := f.Local(asm.I32)
		f.Up(i, asm.C(int64(p.NumOutputs)), func() {
			f.Put(asm.M32, asm.L32(ctx.E, abi.CtxOutputs).Add(i.MulI(abi.DescSize)), abi.DescRank, asm.C(abi.AnyRank))
		})
	}
	for _, at := range []uint32{CtxHeap, CtxTop} {
		f.Put(asm.M32, ctx.E, at, asm.L32(ctx.E, abi.CtxArenaBase).AddI(int64(p.PlanSize)))
	}
	f.Put(asm.M32, ctx.E, CtxPC, asm.C(int64(p.Start)))
	f.Put(asm.M32, ctx.E, CtxPhase, asm.C(0))
	f.Put(asm.M64, ctx.E, CtxCursor, asm.CL(0))
	f.Put(asm.M32, ctx.E, CtxState, asm.C(StateBound))
	f.Return(asm.C(int64(abi.Done)))
}

func (l *Lib) resume(f *asm.Fn, p Program) {
	ctx := f.Param(0)
	f.If(asm.L32(ctx.E, CtxState).NeI(StateBound), func() {
		f.Return(asm.Call(asm.I32, l.fail(), ctx.E, asm.C(int64(p.BindRec)), asm.C(int64(abi.ErrState)),
			asm.L32(ctx.E, CtxState).ExtU(), asm.CL(0)))
	})
	left := f.Let(asm.L32(ctx.E, abi.CtxBudget).ExtU())
	f.If(left.Eqz(), func() { f.Set(left, asm.CL(DefaultBudget)) })
	budget := f.Let(left.E)
	f.Put(asm.M32, ctx.E, CtxParRec, asm.C(0))
	rec := f.Local(asm.I32)
	st := f.Local(asm.I32)
	cur, total, cost, n := f.Local(asm.I64), f.Local(asm.I64), f.Local(asm.I64), f.Local(asm.I64)
	i, r := f.Local(asm.I32), f.Local(asm.I32)
	run := f.Local(asm.I32)
	f.Loop(func(next asm.Label) {
		f.Set(rec, asm.L32(ctx.E, CtxPC))
		// Should the step trap, or a host ask where the time goes: this is the node at work.
		f.Put(asm.M32, ctx.E, abi.CtxErrNode, asm.L32(rec.E, RecNode))
		f.If(asm.L32(ctx.E, CtxPhase).Eqz(), func() {
			f.Put(asm.M32, ctx.E, CtxSerial, asm.C(0))
			f.If(asm.L32(rec.E, RecPrep), func() {
				f.Set(st, f.CallIndirect(sigPrep, asm.L32(rec.E, RecPrep), ctx.E, rec.E))
				f.If(st.E, func() { f.Return(st.E) })
			})
			f.Put(asm.M32, ctx.E, CtxPhase, asm.C(1))
			f.Put(asm.M64, ctx.E, CtxCursor, asm.CL(0))
		})
		f.Set(run, asm.L32(rec.E, RecRun))
		f.Set(st, asm.C(stNext))
		f.If(asm.L32(rec.E, RecKind).Eqz(), func() {
			f.Put(asm.M64, ctx.E, CtxLeft, left.E)
			f.Set(st, f.CallIndirect(sigPrep, run.E, ctx.E, rec.E))
			f.Set(left, asm.L64(ctx.E, CtxLeft).SubI(100))
			f.If(asm.And2(st.NeI(stNext), st.NeI(stJump)), func() {
				f.If(st.EqI(stHalt), func() {
					f.Put(asm.M32, ctx.E, CtxState, asm.C(StateDone))
					f.Return(asm.C(int64(abi.Done)))
				})
				f.Return(st.E)
			})
		}, func() {
			f.Set(total, asm.L64(ctx.E, CtxTotal))
			f.Set(cost, asm.L64(ctx.E, CtxCost))
			f.Set(cur, asm.L64(ctx.E, CtxCursor))
			if p.Parallel {
				f.If(asm.And2(asm.L32(rec.E, RecKind).EqI(KindParallel).And(asm.L32(ctx.E, CtxSerial).Eqz()), asm.And2(cur.Eqz(), total.GtS(asm.CL(1)))), func() {
					// cost and total are below 2^31 each, so the product fits.
					f.If(total.Mul(cost.E).GeS(asm.CL(p.ParMin)), func() {
						f.Set(n, asm.CL(min(p.ParMin/4, DefaultBudget)).DivS(cost.E))
						f.If(n.LtS(asm.CL(1)), func() { f.Set(n, asm.CL(1)) })
						// At most 2^20 parts.
						f.Set(cur, total.ShrSI(20).AddI(1))
						f.If(n.LtS(cur.E), func() { f.Set(n, cur.E) })
						f.Put(asm.M64, ctx.E, CtxChunk, n.E)
						f.Put(asm.M32, ctx.E, abi.CtxWant, total.Add(n.E).SubI(1).DivS(n.E).Wrap())
						f.Put(asm.M32, ctx.E, CtxParRec, rec.E)
						f.Put(asm.M64, ctx.E, CtxCursor, total.E)
						f.Return(asm.C(int64(abi.Parallel)))
					})
				})
			}
			f.While(cur.LtS(total.E), func() {
				f.If(left.LeS(asm.CL(0)), func() {
					f.Put(asm.M64, ctx.E, CtxCursor, cur.E)
					f.Return(asm.C(int64(abi.More)))
				})
				f.Set(n, left.DivS(cost.E))
				f.If(n.LtS(asm.CL(1)), func() {
					// A unit that is more than what is left waits, unless it is the first of this resume.
					f.If(left.Ne(budget.E), func() {
						f.Put(asm.M64, ctx.E, CtxCursor, cur.E)
						f.Return(asm.C(int64(abi.More)))
					})
					f.Set(n, asm.CL(1))
				})
				f.If(n.GtS(total.Sub(cur.E)), func() { f.Set(n, total.Sub(cur.E)) })
				f.Set(st, f.CallIndirect(sigRange, run.E, ctx.E, rec.E, cur.Wrap(), cur.Add(n.E).Wrap()))
				f.If(st.E, func() { f.Return(st.E) })
				f.Set(cur, cur.Add(n.E))
				f.Set(left, left.Sub(n.Mul(cost.E)))
			})
			f.Set(left, left.SubI(100))
		})
		// The step is done: release what nobody needs any more, then move on.
		f.Set(i, asm.L32(rec.E, RecNFree))
		f.If(i.E, func() {
			f.Set(r, rec.Add(asm.L32(rec.E, RecSize)))
			f.While(i.E, func() {
				f.Inc(r, -4)
				f.CallStmt(l.release(), ctx.Add(asm.L32(r.E, 0)))
				f.Inc(i, -1)
			})
		})
		f.Put(asm.M32, ctx.E, CtxPhase, asm.C(0))
		f.If(st.NeI(stJump), func() { f.Put(asm.M32, ctx.E, CtxPC, rec.Add(asm.L32(rec.E, RecSize))) })
		f.BrIf(next, left.GtS(asm.CL(0)))
	})
	f.Return(asm.C(int64(abi.More)))
}

func (l *Lib) part(f *asm.Fn, p Program) {
	ctx, i := f.Param(0), f.Param(1)
	bad := func(a E) {
		f.Return(asm.Call(asm.I32, l.fail(), ctx.E, asm.C(int64(p.BindRec)), asm.C(int64(abi.ErrState)), a, asm.CL(1)))
	}
	if !p.Parallel {
		bad(i.ExtU())
		return
	}
	rec := f.Let(asm.L32(ctx.E, CtxParRec))
	f.If(asm.Or2(rec.Eqz(), i.GeU(asm.L32(ctx.E, abi.CtxWant))), func() { bad(i.ExtU()) })
	lo := f.Let(i.ExtU().Mul(asm.L64(ctx.E, CtxChunk)))
	hi := f.Let(lo.Add(asm.L64(ctx.E, CtxChunk)))
	f.If(hi.GtS(asm.L64(ctx.E, CtxTotal)), func() { f.Set(hi, asm.L64(ctx.E, CtxTotal)) })
	f.Return(f.CallIndirect(sigRange, asm.L32(rec.E, RecRun), ctx.E, rec.E, lo.Wrap(), hi.Wrap()))
}
