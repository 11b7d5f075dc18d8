package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Scratch of TopK, behind the lines'.
const (
	tkK      = CtxScratch + 8  // u32 K
	tkPasses = CtxScratch + 12 // u32 passes of the sort
	tkRuns   = CtxScratch + 16 // u32 units of a pass
	tkOut    = CtxScratch + 20 // u32 units that write the results

	tkInsert = 64 // greatest K whose results are kept in order while a line goes by
	tkRun    = 16 // elements of a unit when the whole line is sorted
)

// TopK gives the best K (input 1) along axis attr0, best first, ties by index; NaN is the largest. Few are inserted into their
// sorted head; for many the line's indices are merge-sorted in output 2, which is scratch.
func TopK(largest bool, d DT) *Kernel {
	return &Kernel{Name: fmt.Sprintf("TopK.%t.%s", largest, d.Name), NOut: 3, PrepName: "topk." + d.Name, Parallel: true,
		Prep: func(k *K) {
			x, kk, t := k.In(0), k.In(1), k.Out(2)
			ax, lines := k.linePrep(x)
			k.Check(k.Numel(kk).EqI(1), abi.ErrShape, k.Numel(kk), asm.CL(1))
			n, most := k.Let(asm.L64(Data(kk), 0)), k.Let(Dim(x, ax.E))
			k.Check(n.GeS(asm.CL(0)).And(n.LeS(most.E)), abi.ErrValue, n.E, most.E)
			for i, dt := range []DT{d, dtOf(abi.I64)} {
				y := k.Out(i)
				k.CopyDims(y, x)
				k.SetDim(y, ax.E, n.E)
				k.Alloc(y, dt)
			}
			k.note(tkK, n.Wrap())
			k.If(n.Eqz(), func() { k.Set(lines, asm.CL(0)) })
			k.If(n.LeS(asm.CL(tkInsert)), func() {
				// At worst every element moves all of the head.
				k.lineWork(lines.E, most.E, n.MulI(lineCost(d, 6)).AddI(lineCost(d, 6)), asm.CL(20))
				k.Return(asm.C(0))
			})
			k.AllocBytes(t, most.ShlI(3)) // two lists, between which the passes go back and forth
			k.Put(asm.M32, t.E, abi.DescKind, asm.C(0))
			k.SetRank(t, asm.C(0))
			p := k.Let(asm.CL(0))
			k.While(asm.CL(1).Shl(p.E).LtS(most.E), func() { k.Inc(p, 1) })
			runs, out := k.Let(most.AddI(tkRun-1).ShrSI(4)), k.Let(n.AddI(tkRun-1).ShrSI(4))
			k.note(tkPasses, p.Wrap())
			k.note(tkRuns, runs.Wrap())
			k.note(tkOut, out.Wrap())
			k.Put(asm.M32, k.Ctx.E, CtxSerial, asm.C(1))
			total := k.Let(lines.Mul(runs.Mul(p.AddI(1)).Add(out.E)))
			k.Check(total.LeS(asm.CL(1<<31-1)), abi.ErrMemory, total.E, asm.CL(0))
			k.Work(total.E, asm.CL(tkRun*lineCost(d, 25)))
		},
		Range: func(k *K, lo, hi V) {
			kk := k.noted(tkK)
			k.If(kk.LeU(asm.C(tkInsert)), func() { k.topInsert(largest, d, kk, lo, hi) }, func() { k.topSort(largest, d, kk, lo, hi) })
		},
	}
}

// before tells whether a stands before b in the order of TopK.
func before(largest bool, d DT, a, b V) E {
	if !largest {
		a, b = b, a
	}
	lt := d.Lt(b.E, a.E)
	if d.Float {
		// NaN above all: a is NaN and b is not.
		lt = lt.Or(a.Ne(a.E).And(b.Eq(b.E)))
	}
	return lt
}

// topInsert keeps the sorted head of each line; elements come by rising index, so equals stay behind earlier ones.
func (k *K) topInsert(largest bool, d DT, kk, lo, hi V) {
	dx, dv, di := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0))), k.Let(Data(k.Out(1)))
	p, j, q, cnt, base := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	v, w := k.Local(d.C), k.Local(d.C)
	k.linePieces(lo, hi, func(u, o, i, first, n, stride, from, to V) {
		k.Set(base, o.Mul(kk.E).Mul(stride.E).Add(i.E))
		at := func(q E) E { return base.Add(q.Mul(stride.E)) }
		// The head has as many elements as have gone by, at most K.
		k.Set(cnt, asm.Select(from.LtU(kk.E), from.E, kk.E))
		k.For(j, from.E, to.E, 1, func() {
			k.Set(p, dx.Add(first.Add(j.Mul(stride.E)).ShlI(d.Shift)))
			k.Set(v, k.Load(d, p.E, 0))
			k.Set(q, cnt.E)
			k.Block(func(done asm.Label) {
				k.Loop(func(top asm.Label) {
					k.BrIf(done, q.Eqz())
					k.Set(w, k.Load(d, dv.Add(at(q.SubI(1)).ShlI(d.Shift)), 0))
					k.BrIf(done, before(largest, d, v, w).Eqz())
					k.If(q.LtU(kk.E), func() {
						k.Store(d, dv.Add(at(q.E).ShlI(d.Shift)), 0, w.E)
						k.Put(asm.M64, di.Add(at(q.E).ShlI(3)), 0, asm.L64(di.Add(at(q.SubI(1)).ShlI(3)), 0))
					})
					k.Inc(q, -1)
					k.Br(top)
				})
			})
			k.If(q.LtU(kk.E), func() {
				k.Store(d, dv.Add(at(q.E).ShlI(d.Shift)), 0, v.E)
				k.Put(asm.M64, di.Add(at(q.E).ShlI(3)), 0, j.ExtU())
				k.If(cnt.LtU(kk.E), func() { k.Inc(cnt, 1) })
			})
		})
	})
}

// topSort sorts the indices of each line bottom up, stably, and writes the first K. A unit is tkRun elements of a pass; the first pass
// writes the numbers, the last ones the results. Where the two runs of a merge stand goes from unit to unit.
func (k *K) topSort(largest bool, d DT, kk, lo, hi V) {
	dx, dv, di, t := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0))), k.Let(Data(k.Out(1))), k.Let(Data(k.Out(2)))
	n, stride, passes, runs, out := k.noted(lnN), k.noted(lnInner), k.noted(tkPasses), k.noted(tkRuns), k.noted(tkOut)
	L := func() V { return k.Local(asm.I32) }
	sorting := k.Let(passes.AddI(1).Mul(runs.E))
	line := k.Let(sorting.Add(out.E))
	left, right := k.Let(asm.L32(k.Ctx.E, pcState)), k.Let(asm.L32(k.Ctx.E, pcState+4))
	u, l, r, pass, i, end, o, first, base, src, dst, w, b, mid, stop, take, ix, p := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
	x, y := k.Local(d.C), k.Local(d.C)
	half := func(parity E) E { return t.Add(parity.AndI(1).Mul(n.ShlI(2))) }
	load := func(ix E) E { return k.Load(d, first.Add(ix.Mul(stride.E).ShlI(d.Shift)), 0) }
	least := func(a E) E { return asm.Select(a.LtU(n.E), a, n.E) }
	k.While(u.LtU(hi.E), func() {
		k.Set(l, u.DivU(line.E))
		k.Set(r, u.Sub(l.Mul(line.E)))
		k.Set(o, l.DivU(stride.E))
		k.Set(i, l.Sub(o.Mul(stride.E)))
		k.Set(first, dx.Add(o.Mul(n.E).Mul(stride.E).Add(i.E).ShlI(d.Shift)))
		k.Set(base, o.Mul(kk.E).Mul(stride.E).Add(i.E))
		k.If(r.GeU(sorting.E), func() {
			k.Set(i, r.Sub(sorting.E).MulI(tkRun))
			k.Set(end, i.AddI(tkRun))
			k.If(end.GtU(kk.E), func() { k.Set(end, kk.E) })
			k.While(i.LtU(end.E), func() {
				k.Set(ix, asm.L32(t.Add(i.ShlI(2)), 0))
				k.Set(p, base.Add(i.Mul(stride.E)))
				k.Store(d, dv.Add(p.ShlI(d.Shift)), 0, load(ix.E))
				k.Put(asm.M64, di.Add(p.ShlI(3)), 0, ix.ExtU())
				k.Inc(i, 1)
			})
		}, func() {
			k.Set(pass, r.DivU(runs.E))
			k.Set(i, r.Sub(pass.Mul(runs.E)).MulI(tkRun))
			k.Set(end, least(i.AddI(tkRun)))
			k.Set(dst, half(passes.Sub(pass.E)))
			k.Set(src, half(passes.Sub(pass.E).AddI(1)))
			k.If(pass.Eqz(), func() {
				k.While(i.LtU(end.E), func() {
					k.Put(asm.M32, dst.Add(i.ShlI(2)), 0, i.E)
					k.Inc(i, 1)
				})
			}, func() {
				k.Set(w, asm.C(1).Shl(pass.SubI(1)))
				k.While(i.LtU(end.E), func() {
					k.Set(b, i.And(asm.C(0).Sub(w.ShlI(1))))
					k.Set(mid, least(b.Add(w.E)))
					k.Set(stop, least(b.Add(w.ShlI(1))))
					k.If(i.Eq(b.E), func() {
						k.Set(left, b.E)
						k.Set(right, mid.E)
					})
					k.Set(take, asm.C(0))
					k.If(left.LtU(mid.E), func() {
						k.Set(take, right.GeU(stop.E))
						k.If(take.Eqz(), func() {
							k.Set(x, load(asm.L32(src.Add(right.ShlI(2)), 0)))
							k.Set(y, load(asm.L32(src.Add(left.ShlI(2)), 0)))
							k.Set(take, before(largest, d, x, y).Eqz())
						})
					})
					k.If(take.E, func() {
						k.Set(ix, left.E)
						k.Inc(left, 1)
					}, func() {
						k.Set(ix, right.E)
						k.Inc(right, 1)
					})
					k.Put(asm.M32, dst.Add(i.ShlI(2)), 0, asm.L32(src.Add(ix.ShlI(2)), 0))
					k.Inc(i, 1)
				})
			})
		})
		k.Inc(u, 1)
	})
	k.Put(asm.M32, k.Ctx.E, pcState, left.E)
	k.Put(asm.M32, k.Ctx.E, pcState+4, right.E)
}
