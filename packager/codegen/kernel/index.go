package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Kernels that pick and place elements by computed positions. Scratch:
const (
	ixCopy    = CtxScratch + 0  // i32: units that copy the data first
	ixInner   = CtxScratch + 4  // i32: elements of a slice
	ixTuple   = CtxScratch + 8  // i32: length of an index tuple
	ixAxis    = CtxScratch + 12 // i32
	ixBatch   = CtxScratch + 16 // i32: number of batch dims
	ixPer     = CtxScratch + 20 // i32: tuples of one batch
	ixStrides = CtxScratch + 32 // i32[8]: element strides of the data
	ixChunk   = 10              // log2 of the bytes that one unit copies
)

// note keeps a number for the range function.
func (k *K) note(off uint32, v E) { k.Put(asm.M32, k.Ctx.E, off, v) }

// noted reads it.
func (k *K) noted(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }

// Trilu keeps a triangle of the last two dims; attribute 0 is upper, input 1 may hold k. A unit is a row.
func Trilu(d DT) *Kernel {
	return &Kernel{Name: nameBits("Trilu", d), NOut: 1, PrepName: "Trilu." + d.Name,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			r := k.Let(Rank(x))
			k.Check(r.GeU(asm.C(2)), abi.ErrRank, r.ExtU(), asm.CL(2))
			k.If(k.HasIn(1), func() {
				t := k.In(1)
				k.Check(k.Numel(t).EqI(1), abi.ErrShape, k.Numel(t), asm.CL(1))
			})
			k.CopyDims(y, x)
			k.Alloc(y, d)
			rows := k.prodDims(x, asm.C(0), r.SubI(1))
			cols := k.Let(Dim(x, r.SubI(1)))
			k.If(cols.Eqz(), func() { k.Set(rows, asm.CL(0)) })
			k.rowBytes(rows.E, cols.ShlI(d.Shift))
		},
		Range: func(k *K, lo, hi V) {
			x := k.In(0)
			r := k.Let(Rank(x))
			n, m := k.Let(Dim(x, r.SubI(2)).Wrap()), k.Let(Dim(x, r.SubI(1)).Wrap())
			diag := k.Let(asm.CL(0))
			k.If(k.HasIn(1), func() { k.Set(diag, asm.L64(Data(k.In(1)), 0)) })
			k.If(diag.GtS(asm.CL(1<<40)), func() { k.Set(diag, asm.CL(1<<40)) })
			k.If(diag.LtS(asm.CL(-1<<40)), func() { k.Set(diag, asm.CL(-1<<40)) })
			c, p, q := k.Local(asm.I64), k.Local(asm.I32), k.Local(asm.I32)
			cut, whole := k.Local(asm.I32), k.Let(m.ShlI(d.Shift))
			upper := k.Let(k.Attr32(0))
			k.pieceUnits(lo, hi, whole, func(u, from, to V) {
				// The first column behind the triangle's edge: upper zeroes what is before, lower what is from there on.
				k.Set(c, u.RemU(n.E).ExtU().Add(diag.E))
				k.If(upper.Eqz(), func() { k.Set(c, c.AddI(1)) })
				k.If(c.LtS(asm.CL(0)), func() { k.Set(c, asm.CL(0)) })
				k.If(c.GtS(m.ExtU()), func() { k.Set(c, m.ExtU()) })
				k.Set(cut, c.Wrap().ShlI(d.Shift))
				k.If(cut.LtU(from.E), func() { k.Set(cut, from.E) })
				k.If(cut.GtU(to.E), func() { k.Set(cut, to.E) })
				k.Set(p, Data(x).Add(u.Mul(whole.E)))
				k.Set(q, Data(k.Out(0)).Add(u.Mul(whole.E)))
				k.If(upper.E, func() {
					k.MemFill(q.Add(from.E), asm.C(0), cut.Sub(from.E))
					k.MemCopy(q.Add(cut.E), p.Add(cut.E), to.Sub(cut.E))
				}, func() {
					k.MemCopy(q.Add(from.E), p.Add(from.E), cut.Sub(from.E))
					k.MemFill(q.Add(cut.E), asm.C(0), to.Sub(cut.E))
				})
			})
		},
	}
}

// fits checks that an index tensor goes with data along an axis, and keeps axis and strides.
func (k *K) fits(x, ix V) {
	k.Check(Rank(x).Eq(Rank(ix)), abi.ErrRank, Rank(x).ExtU(), Rank(ix).ExtU())
	ax := k.axis(0, Rank(x))
	i := k.Local(asm.I32)
	k.Up(i, Rank(x), func() {
		k.If(i.Ne(ax.E), func() {
			k.Check(Dim(ix, i.E).LeS(Dim(x, i.E)), abi.ErrShape, Dim(ix, i.E), Dim(x, i.E))
		})
	})
	k.note(ixAxis, ax.E)
	k.strides(x, ixStrides)
}

// elementAt gives the data's element that index i (checked and normalised here) of element u of the index tensor names.
func (k *K) elementAt(x, ix V, u E, i V) V {
	ax := k.noted(ixAxis)
	k.Index(i, Dim(x, ax.E))
	off, t, q, j, n := k.Let(asm.C(0)), k.Let(u), k.Local(asm.I32), k.Let(Rank(ix)), k.Local(asm.I32)
	k.While(j.E, func() {
		k.Inc(j, -1)
		k.Set(n, Dim(ix, j.E).Wrap())
		k.Set(q, t.DivU(n.E))
		k.Set(off, off.Add(asm.L32(k.Ctx.Add(j.ShlI(2)), ixStrides).Mul(asm.Select(j.Eq(ax.E), i.Wrap(), t.Sub(q.Mul(n.E))))))
		k.Set(t, q.E)
	})
	return off
}

// GatherElements takes i64 indices along axis attr0.
func GatherElements(d DT) *Kernel {
	b := bitsDT(d)
	return &Kernel{Name: nameBits("GatherElements", d), NOut: 1, PrepName: "GatherElements." + d.Name,
		Prep: func(k *K) {
			x, ix, y := k.In(0), k.In(1), k.Out(0)
			k.fits(x, ix)
			k.CopyDims(y, ix)
			k.Alloc(y, d)
			k.Work(k.Numel(y), asm.CL(30))
		},
		Range: func(k *K, lo, hi V) {
			x, ix, y := k.In(0), k.In(1), k.Out(0)
			u, v := k.Let(lo.E), k.Local(asm.I64)
			k.While(u.LtU(hi.E), func() {
				k.Set(v, asm.L64(Data(ix).Add(u.ShlI(3)), 0))
				off := k.elementAt(x, ix, u.E, v)
				k.Put(b.Mem, Data(y).Add(u.ShlI(d.Shift)), 0, b.Mem.At(Data(x).Add(off.ShlI(d.Shift)), 0))
				k.Inc(u, 1)
			})
		},
	}
}

// prepCopy gives output 0 the form of the data; the first units of the range copy it. n more units follow.
func (k *K) prepCopy(x, y V, d DT, n E) {
	k.CopyDims(y, x)
	k.Alloc(y, d)
	cu := k.Let(Bytes(x).ShrUI(ixChunk).AddI(1))
	k.note(ixCopy, cu.E)
	total := k.Let(cu.ExtU().Add(n))
	k.Check(total.LeS(asm.CL(1<<31-1)), abi.ErrMemory, total.E, asm.CL(0))
	k.Work(total.E, asm.CL(40))
}

// copyUnits does the copying units of [lo, hi) and returns the first unit behind them.
func (k *K) copyUnits(x, y V, lo, hi V) V {
	cu, u := k.noted(ixCopy), k.Let(lo.E)
	from, to := k.Local(asm.I32), k.Local(asm.I32)
	k.If(lo.LtU(cu.E), func() {
		k.Set(u, asm.Select(hi.LtU(cu.E), hi.E, cu.E))
		k.Set(from, lo.ShlI(ixChunk))
		// The last unit ends at or behind the data.
		k.Set(to, asm.Select(u.Eq(cu.E), Bytes(x), u.ShlI(ixChunk)))
		k.MemCopy(Data(y).Add(from.E), Data(x).Add(from.E), to.Sub(from.E))
	})
	return u
}

// combine puts the element at q into the one at p; red is "none" or an operator of Op2s.
func (k *K) combine(d DT, red string, p, q V) {
	if red == "none" {
		b := bitsDT(d)
		k.Put(b.Mem, p.E, 0, b.Mem.At(q.E, 0))
		return
	}
	x, y := k.Let(k.Load(d, p.E, 0)), k.Let(k.Load(d, q.E, 0))
	k.Store(d, p.E, 0, Op2s()[red].Scalar(k, d, x.E, y.E))
}

// ScatterElements places updates (input 2) by indices (input 1) along axis attr0 into a copy of input 0.
func ScatterElements(d DT, red string) *Kernel {
	return &Kernel{Name: "ScatterElements." + d.Name + "." + red, NOut: 1, PrepName: "ScatterElements." + d.Name,
		Prep: func(k *K) {
			x, ix, up, y := k.In(0), k.In(1), k.In(2), k.Out(0)
			k.fits(x, ix)
			k.Check(Rank(ix).Eq(Rank(up)), abi.ErrRank, Rank(ix).ExtU(), Rank(up).ExtU())
			i := k.Local(asm.I32)
			k.Up(i, Rank(ix), func() { k.Check(Dim(ix, i.E).Eq(Dim(up, i.E)), abi.ErrShape, Dim(ix, i.E), Dim(up, i.E)) })
			k.prepCopy(x, y, d, k.Numel(ix))
		},
		Range: func(k *K, lo, hi V) {
			x, ix, y := k.In(0), k.In(1), k.Out(0)
			ups := k.Let(Data(k.In(2)))
			u := k.copyUnits(x, y, lo, hi)
			cu := k.noted(ixCopy)
			e, v, p, q := k.Local(asm.I32), k.Local(asm.I64), k.Local(asm.I32), k.Local(asm.I32)
			k.While(u.LtU(hi.E), func() {
				k.Set(e, u.Sub(cu.E))
				k.Set(v, asm.L64(Data(ix).Add(e.ShlI(3)), 0))
				off := k.elementAt(x, ix, e.E, v)
				k.Set(p, Data(y).Add(off.ShlI(d.Shift)))
				k.Set(q, ups.Add(e.ShlI(d.Shift)))
				k.combine(d, red, p, q)
				k.Inc(u, 1)
			})
		},
	}
}

// tuples checks index tuples against the data with batch leading dims shared, and keeps what finds slices.
func (k *K) tuples(x, ix V, batch E) {
	b := k.Let(batch)
	r := k.Let(Rank(ix))
	k.Check(r.GtU(b.E), abi.ErrRank, r.ExtU(), b.ExtU())
	n := k.Let(Dim(ix, r.SubI(1)))
	k.Check(n.GeS(asm.CL(1)).And(n.LeS(Rank(x).ExtU().Sub(b.ExtU()))), abi.ErrShape, n.E, Rank(x).ExtU())
	i := k.Local(asm.I32)
	k.Up(i, b.E, func() { k.Check(Dim(x, i.E).Eq(Dim(ix, i.E)), abi.ErrShape, Dim(x, i.E), Dim(ix, i.E)) })
	k.note(ixTuple, n.Wrap())
	k.note(ixBatch, b.E)
	k.note(ixInner, k.prodDims(x, b.Add(n.Wrap()), Rank(x)).Wrap())
	k.note(ixPer, k.prodDims(ix, b.E, r.SubI(1)).Wrap())
	k.strides(x, ixStrides)
}

// sliceAt gives the first element of the slice that tuple t names. Slices are not empty.
func (k *K) sliceAt(x, ix V, t E) V {
	n, b := k.noted(ixTuple), k.noted(ixBatch)
	v, p, j := k.Local(asm.I64), k.Let(Data(ix).Add(t.Mul(n.E).ShlI(3))), k.Local(asm.I32)
	off := k.Let(asm.C(0))
	k.If(b.E, func() {
		// The batch number is an index into the leading dims, taken together.
		k.Set(off, t.DivU(asm.L32(k.Ctx.E, ixPer)).Mul(asm.L32(k.Ctx.Add(b.SubI(1).ShlI(2)), ixStrides)))
	})
	k.Up(j, n.E, func() {
		k.Set(v, asm.L64(p.Add(j.ShlI(3)), 0))
		k.Index(v, Dim(x, b.Add(j.E)))
		k.Set(off, off.Add(v.Wrap().Mul(asm.L32(k.Ctx.Add(b.Add(j.E).ShlI(2)), ixStrides))))
	})
	return off
}

// runs walks elements [u, hi) of the slices one after another: each is called with the slice's place in the data, the element
// behind base where the run begins and its length.
func (k *K) runs(x, ix, u V, base E, hi V, each func(off, at, n V)) {
	inner, bs := k.noted(ixInner), k.Let(base)
	at, t, n := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	k.While(u.LtU(hi.E), func() {
		k.Set(at, u.Sub(bs.E))
		k.Set(t, at.DivU(inner.E))
		off := k.sliceAt(x, ix, t.E)
		k.Set(n, inner.Sub(at.Sub(t.Mul(inner.E))))
		k.If(n.GtU(hi.Sub(u.E)), func() { k.Set(n, hi.Sub(u.E)) })
		k.Set(off, off.Add(at.Sub(t.Mul(inner.E))))
		each(off, at, n)
		k.Set(u, u.Add(n.E))
	})
}

// GatherND picks slices of input 0 by tuples; attribute 0 is the number of batch dims.
func GatherND(d DT) *Kernel {
	return &Kernel{Name: nameBits("GatherND", d), NOut: 1, PrepName: "GatherND." + d.Name,
		Prep: func(k *K) {
			x, ix, y := k.In(0), k.In(1), k.Out(0)
			k.tuples(x, ix, k.Attr32(0))
			from := k.Let(asm.L32(k.Ctx.E, ixBatch).Add(asm.L32(k.Ctx.E, ixTuple)))
			lead := k.Let(Rank(ix).SubI(1))
			r := k.Let(lead.Add(Rank(x).Sub(from.E)))
			k.Check(r.LeU(asm.C(abi.MaxRank)), abi.ErrRank, r.ExtU(), asm.CL(abi.MaxRank))
			k.SetRank(y, r.E)
			i := k.Local(asm.I32)
			k.Up(i, r.E, func() {
				k.If(i.LtU(lead.E), func() { k.SetDim(y, i.E, Dim(ix, i.E)) }, func() {
					k.SetDim(y, i.E, Dim(x, i.Sub(lead.E).Add(from.E)))
				})
			})
			k.Alloc(y, d)
			k.Work(k.Numel(y), asm.CL(30).DivS(asm.L32(k.Ctx.E, ixInner).ExtU().AddI(1)).AddI(1))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			u := k.Let(lo.E)
			k.runs(x, k.In(1), u, asm.C(0), hi, func(off, at, n V) {
				k.MemCopy(Data(y).Add(at.ShlI(d.Shift)), Data(x).Add(off.ShlI(d.Shift)), n.ShlI(d.Shift))
			})
		},
	}
}

// ScatterND places the slices of input 2 by tuples (input 1) into a copy of input 0.
func ScatterND(d DT, red string) *Kernel {
	return &Kernel{Name: "ScatterND." + d.Name + "." + red, NOut: 1, PrepName: "ScatterND." + d.Name,
		Prep: func(k *K) {
			x, ix, up, y := k.In(0), k.In(1), k.In(2), k.Out(0)
			k.tuples(x, ix, asm.C(0))
			lead, n := k.Let(Rank(ix).SubI(1)), k.noted(ixTuple)
			want := k.Let(lead.Add(Rank(x)).Sub(n.E))
			k.Check(Rank(up).Eq(want.E), abi.ErrRank, Rank(up).ExtU(), want.ExtU())
			i, e := k.Local(asm.I32), k.Local(asm.I64)
			k.Up(i, want.E, func() {
				k.If(i.LtU(lead.E), func() { k.Set(e, Dim(ix, i.E)) }, func() { k.Set(e, Dim(x, i.Sub(lead.E).Add(n.E))) })
				k.Check(Dim(up, i.E).Eq(e.E), abi.ErrShape, Dim(up, i.E), e.E)
			})
			k.prepCopy(x, y, d, k.Numel(up))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			ups := k.Let(Data(k.In(2)))
			u := k.copyUnits(x, y, lo, hi)
			p, q, end := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.runs(x, k.In(1), u, asm.L32(k.Ctx.E, ixCopy), hi, func(off, at, n V) {
				k.Set(p, Data(y).Add(off.ShlI(d.Shift)))
				k.Set(q, ups.Add(at.ShlI(d.Shift)))
				k.Set(end, q.Add(n.ShlI(d.Shift)))
				k.While(q.LtU(end.E), func() {
					k.combine(d, red, p, q)
					k.Inc(p, 1<<d.Shift)
					k.Inc(q, 1<<d.Shift)
				})
			})
		},
	}
}

// list makes output y an i64 list with room for n elements and none of them yet.
func (k *K) list(y V, n E) {
	k.AllocBytes(y, n.ShlI(3))
	k.Put(asm.M32, y.E, abi.DescKind, asm.C(int64(abi.Tensor)))
	k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(abi.I64)))
	k.SetRank(y, asm.C(1))
	k.setLen(y, asm.C(0))
}

// setLen states the number of elements of a list.
func (k *K) setLen(y V, n E) {
	c := k.Let(n)
	k.SetDimC(y, 0, c.ExtU())
	k.Put(asm.M32, y.E, abi.DescBytes, c.ShlI(3))
}

// NonZeroFlat lists the row-major positions of the elements that are not 0.
func NonZeroFlat(d DT) *Kernel {
	return &Kernel{Name: "NonZeroFlat." + d.Name, NOut: 1,
		Prep: func(k *K) {
			x := k.In(0)
			k.list(k.Out(0), k.Numel(x))
			k.Work(k.Numel(x), asm.CL(3))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			u, c := k.Let(lo.E), k.Let(DimC(y, 0).Wrap())
			zero := asm.Const(d.C, 0)
			if d.Float {
				zero = asm.CFloat(d.C, 0)
			}
			k.While(u.LtU(hi.E), func() {
				k.If(k.Load(d, Data(x).Add(u.ShlI(d.Shift)), 0).Ne(zero), func() {
					k.Put(asm.M64, Data(y).Add(c.ShlI(3)), 0, u.ExtU())
					k.Inc(c, 1)
				})
				k.Inc(u, 1)
			})
			k.setLen(y, c.E)
		},
	}
}

// Unravel turns positions (input 0) in a tensor with the dims of input 1 into columns of indices.
func Unravel() *Kernel {
	return &Kernel{Name: "unravel", NOut: 1,
		Prep: func(k *K) {
			p, x, y := k.In(0), k.In(1), k.Out(0)
			k.SetRank(y, asm.C(2))
			k.SetDimC(y, 0, Rank(x).ExtU())
			k.SetDimC(y, 1, DimC(p, 0))
			k.Alloc(y, dtOf(abi.I64))
			k.Work(DimC(p, 0), Rank(x).ExtU().MulI(5).AddI(5))
		},
		Range: func(k *K, lo, hi V) {
			p, x, y := k.In(0), k.In(1), k.Out(0)
			n := k.Let(DimC(p, 0).Wrap())
			u, j, t, q, e := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.While(u.LtU(hi.E), func() {
				k.Set(t, asm.L64(Data(p).Add(u.ShlI(3)), 0).Wrap())
				k.Set(j, Rank(x))
				k.While(j.E, func() {
					k.Inc(j, -1)
					k.Set(e, Dim(x, j.E).Wrap())
					k.Set(q, t.DivU(e.E))
					k.Put(asm.M64, Data(y).Add(j.Mul(n.E).Add(u.E).ShlI(3)), 0, t.Sub(q.Mul(e.E)).ExtU())
					k.Set(t, q.E)
				})
				k.Inc(u, 1)
			})
		},
	}
}

// ReverseSequence: attribute 0 is 1 when time is the second axis. A unit is one slice behind the first two dims.
func ReverseSequence(d DT) *Kernel {
	return &Kernel{Name: nameBits("ReverseSequence", d), NOut: 1, PrepName: "ReverseSequence." + d.Name,
		Prep: func(k *K) {
			x, lens, y := k.In(0), k.In(1), k.Out(0)
			k.Check(Rank(x).GeU(asm.C(2)), abi.ErrRank, Rank(x).ExtU(), asm.CL(2))
			batch := k.Let(Dim(x, asm.C(1).Sub(k.Attr32(0))))
			k.Check(k.Numel(lens).Eq(batch.E), abi.ErrShape, k.Numel(lens), batch.E)
			k.CopyDims(y, x)
			k.Alloc(y, d)
			in := k.prodDims(x, asm.C(2), Rank(x))
			k.note(ixInner, in.Wrap().ShlI(d.Shift))
			total := k.Let(DimC(x, 0).Mul(DimC(x, 1)))
			k.If(in.Eqz(), func() { k.Set(total, asm.CL(0)) })
			k.rowBytes(total.E, in.ShlI(d.Shift))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			lens, in := k.Let(Data(k.In(1))), k.noted(ixInner)
			n := k.Let(DimC(x, 1).Wrap())
			time := k.Let(k.Attr32(0))
			i, j, t, b, src := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			l := k.Local(asm.I64)
			k.pieceUnits(lo, hi, in, func(u, from, to V) {
				k.Set(i, u.DivU(n.E))
				k.Set(j, u.Sub(i.Mul(n.E)))
				k.Set(t, asm.Select(time.E, j.E, i.E))
				k.Set(b, asm.Select(time.E, i.E, j.E))
				k.Set(l, asm.L64(lens.Add(b.ShlI(3)), 0))
				k.Check(l.GeS(asm.CL(0)).And(l.LeS(Dim(x, time.E))), abi.ErrValue, l.E, Dim(x, time.E))
				k.If(t.ExtU().LtS(l.E), func() { k.Set(t, l.Wrap().SubI(1).Sub(t.E)) })
				k.Set(src, asm.Select(time.E, i.Mul(n.E).Add(t.E), t.Mul(n.E).Add(j.E)))
				k.MemCopy(Data(y).Add(u.Mul(in.E)).Add(from.E), Data(x).Add(src.Mul(in.E)).Add(from.E), to.Sub(from.E))
			})
		},
	}
}

// EyeLike writes ones on diagonal attr0. A unit is a row.
func EyeLike(d DT) *Kernel {
	return &Kernel{Name: "EyeLike." + d.Name, NOut: 1,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			k.Check(Rank(x).EqI(2), abi.ErrRank, Rank(x).ExtU(), asm.CL(2))
			k.CopyDims(y, x)
			k.Alloc(y, d)
			k.rowBytes(DimC(x, 0), DimC(x, 1).ShlI(d.Shift))
		},
		Range: func(k *K, lo, hi V) {
			y := k.Out(0)
			c, m := k.Local(asm.I64), k.Let(DimC(y, 1).Wrap())
			p, bytes := k.Local(asm.I32), k.Let(m.ShlI(d.Shift))
			v := asm.Const(d.C, 1)
			if d.Float {
				v = asm.CFloat(d.C, 1)
			}
			k.pieceUnits(lo, hi, bytes, func(u, from, to V) {
				k.Set(p, Data(y).Add(u.Mul(m.E).ShlI(d.Shift)))
				k.MemFill(p.Add(from.E), asm.C(0), to.Sub(from.E))
				k.Set(c, u.ExtU().Add(k.Attr(0)))
				k.If(c.GeS(asm.CL(0)).And(c.LtS(m.ExtU())), func() { // only then is c small enough to be shifted
					k.Set(c, c.ShlI(d.Shift))
					k.If(c.GeS(from.ExtU()).And(c.LtS(to.ExtU())), func() { k.Store(d, p.Add(c.Wrap()), 0, v) })
				})
			})
		},
	}
}

// Scratch of the sort behind Unique.
const (
	uqRow    = CtxScratch + 0  // i32: elements of a row
	uqPasses = CtxScratch + 4  // i32
	uqLeft   = CtxScratch + 8  // i32: next of the left run
	uqRight  = CtxScratch + 12 // i32: next of the right run
	uqGroups = CtxScratch + 16 // i32: groups found so far
)

// compareRows(data, m, a, b) orders rows of m elements: -1, 0, 1. NaN is above all numbers and equal to itself.
func (l *Lib) compareRows(d DT, strings bool) uint32 {
	return l.Fn(fmt.Sprintf("compare_rows.%s.%t", d.Name, strings), []T{asm.I32, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		size := f.Let(f.Param(1).ShlI(d.Shift))
		p := f.Let(f.Param(0).Add(f.Param(2).Mul(size.E)))
		q := f.Let(f.Param(0).Add(f.Param(3).Mul(size.E)))
		end := f.Let(p.Add(size.E))
		x, y, c := f.Local(d.C), f.Local(d.C), f.Local(asm.I32)
		f.While(p.LtU(end.E), func() {
			f.Set(x, l.load(d, p.E, 0))
			f.Set(y, l.load(d, q.E, 0))
			switch {
			case strings:
				f.Set(c, asm.Call(asm.I32, l.compareRefs(), x.E, y.E))
			case d.Float:
				f.Set(c, x.Gt(y.E).Sub(x.Lt(y.E)))
				f.If(c.Eqz(), func() { f.Set(c, x.Ne(x.E).Sub(y.Ne(y.E))) })
			default:
				f.Set(c, d.Lt(y.E, x.E).Sub(d.Lt(x.E, y.E)))
			}
			f.If(c.E, func() { f.Return(c.E) })
			f.Inc(p, 1<<d.Shift)
			f.Inc(q, 1<<d.Shift)
		})
		f.Return(asm.C(0))
	})
}

// UniqueSort gives the numbers of the rows of input 0 (u32), in a stable order: a bottom-up merge sort, a unit writes one number. Its
// block holds two lists, between which the passes go back and forth; the last one writes the first.
func UniqueSort(d DT, strings bool) *Kernel {
	return &Kernel{Name: fmt.Sprintf("UniqueSort.%s.%t", d.Name, strings), NOut: 1,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			k.Check(Rank(x), abi.ErrRank, asm.CL(0), asm.CL(1))
			n := k.Let(DimC(x, 0))
			k.Check(n.LtS(asm.CL(1<<25)), abi.ErrMemory, n.E, asm.CL(0))
			k.AllocBytes(y, n.ShlI(3))
			k.Put(asm.M32, y.E, abi.DescKind, asm.C(0))
			k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(abi.U32)))
			k.SetRank(y, asm.C(1))
			k.SetDimC(y, 0, n.E)
			m := k.prodDims(x, asm.C(1), Rank(x))
			p := k.Let(asm.CL(0))
			k.While(asm.CL(1).Shl(p.E).LtS(n.E), func() { k.Inc(p, 1) })
			k.note(uqRow, m.Wrap())
			k.note(uqPasses, p.Wrap())
			k.Work(n.Mul(p.AddI(1)), m.MulI(4).AddI(12))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			n, passes, m := k.Let(DimC(y, 0).Wrap()), k.noted(uqPasses), k.noted(uqRow)
			left, right := k.noted(uqLeft), k.noted(uqRight)
			u, p, i, w, b, mid, end := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			src, dst, take := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			half := func(parity E) E { return Data(y).Add(parity.AndI(1).Mul(n.ShlI(2))) }
			least := func(a E) E { return asm.Select(a.LtU(n.E), a, n.E) }
			k.While(u.LtU(hi.E), func() {
				k.If(u.LtU(n.E), func() { k.Put(asm.M32, half(passes.E).Add(u.ShlI(2)), 0, u.E) }, func() {
					k.Set(p, u.DivU(n.E).SubI(1))
					k.Set(i, u.RemU(n.E))
					k.Set(src, half(passes.Sub(p.E)))
					k.Set(dst, half(passes.Sub(p.E).SubI(1)))
					k.Set(w, asm.C(1).Shl(p.E))
					k.Set(b, i.And(asm.C(0).Sub(w.ShlI(1))))
					k.Set(mid, least(b.Add(w.E)))
					k.Set(end, least(b.Add(w.ShlI(1))))
					k.If(i.Eq(b.E), func() {
						k.Set(left, b.E)
						k.Set(right, mid.E)
					})
					k.Set(take, asm.C(0))
					k.If(left.LtU(mid.E), func() {
						k.Set(take, right.GeU(end.E))
						k.If(take.Eqz(), func() {
							k.Set(take, asm.Call(asm.I32, k.L.compareRows(d, strings), Data(x), m.E,
								asm.L32(src.Add(left.ShlI(2)), 0), asm.L32(src.Add(right.ShlI(2)), 0)).LeS(asm.C(0)))
						})
					})
					k.If(take.E, func() {
						k.Put(asm.M32, dst.Add(i.ShlI(2)), 0, asm.L32(src.Add(left.ShlI(2)), 0))
						k.Inc(left, 1)
					}, func() {
						k.Put(asm.M32, dst.Add(i.ShlI(2)), 0, asm.L32(src.Add(right.ShlI(2)), 0))
						k.Inc(right, 1)
					})
				})
				k.Inc(u, 1)
			})
			k.note(uqLeft, left.E)
			k.note(uqRight, right.E)
		},
	}
}

// UniqueGroups cuts the order (input 1) of the rows (input 0) where neighbours differ: outputs are the first row of each group, the group
// of each row and the groups' sizes, i64.
func UniqueGroups(d DT, strings bool) *Kernel {
	return &Kernel{Name: fmt.Sprintf("UniqueGroups.%s.%t", d.Name, strings), NOut: 3,
		Prep: func(k *K) {
			x, order := k.In(0), k.In(1)
			n := k.Let(DimC(order, 0))
			for i := 0; i < 3; i++ {
				k.list(k.Out(i), n.E)
			}
			k.setLen(k.Out(1), n.Wrap())
			m := k.prodDims(x, asm.C(1), Rank(x))
			k.note(uqRow, m.Wrap())
			k.note(uqGroups, asm.C(0))
			k.Work(n.E, m.MulI(4).AddI(16))
		},
		Range: func(k *K, lo, hi V) {
			x, order := k.In(0), k.Let(Data(k.In(1)))
			first, inverse, counts := k.Out(0), k.Out(1), k.Out(2)
			m, g := k.noted(uqRow), k.noted(uqGroups)
			u, e, fresh, p := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.While(u.LtU(hi.E), func() {
				k.Set(e, asm.L32(order.Add(u.ShlI(2)), 0))
				k.Set(fresh, u.Eqz())
				k.If(u.E, func() {
					k.Set(fresh, asm.Call(asm.I32, k.L.compareRows(d, strings), Data(x), m.E, asm.L32(order.Add(u.SubI(1).ShlI(2)), 0), e.E))
				})
				k.If(fresh.E, func() {
					k.Put(asm.M64, Data(first).Add(g.ShlI(3)), 0, e.ExtU())
					k.Put(asm.M64, Data(counts).Add(g.ShlI(3)), 0, asm.CL(0))
					k.Inc(g, 1)
				})
				k.Set(p, Data(counts).Add(g.SubI(1).ShlI(3)))
				k.Put(asm.M64, p.E, 0, asm.L64(p.E, 0).AddI(1))
				k.Put(asm.M64, Data(inverse).Add(e.ShlI(3)), 0, g.SubI(1).ExtU())
				k.Inc(u, 1)
			})
			k.note(uqGroups, g.E)
			k.setLen(first, g.E)
			k.setLen(counts, g.E)
		},
	}
}

// UniqueByPlace renumbers the groups by their first rows: inputs and outputs are as UniqueGroups', and a spare list.
func UniqueByPlace() *Kernel {
	return &Kernel{Name: "UniqueByPlace", NOut: 4,
		Prep: func(k *K) {
			n, g := k.Let(DimC(k.In(1), 0)), k.Let(DimC(k.In(0), 0))
			k.list(k.Out(0), g.E)
			k.list(k.Out(1), n.E)
			k.list(k.Out(2), g.E)
			k.list(k.Out(3), g.E)
			k.setLen(k.Out(0), g.Wrap())
			k.setLen(k.Out(1), n.Wrap())
			k.setLen(k.Out(2), g.Wrap())
			k.note(uqGroups, asm.C(0))
			k.Work(n.E, asm.CL(10))
		},
		Range: func(k *K, lo, hi V) {
			data := func(d V) V { return k.Let(Data(d)) }
			first, inverse, counts := data(k.In(0)), data(k.In(1)), data(k.In(2))
			first2, inverse2, counts2, name := data(k.Out(0)), data(k.Out(1)), data(k.Out(2)), data(k.Out(3))
			u, c, g := k.Let(lo.E), k.noted(uqGroups), k.Local(asm.I32)
			at := func(list V, i V) E { return list.Add(i.ShlI(3)) }
			k.While(u.LtU(hi.E), func() {
				k.Set(g, asm.L64(at(inverse, u), 0).Wrap())
				k.If(asm.L64(at(first, g), 0).Eq(u.ExtU()), func() {
					k.Put(asm.M64, at(name, g), 0, c.ExtU())
					k.Put(asm.M64, at(first2, c), 0, u.ExtU())
					k.Put(asm.M64, at(counts2, c), 0, asm.L64(at(counts, g), 0))
					k.Inc(c, 1)
				})
				k.Put(asm.M64, at(inverse2, u), 0, asm.L64(at(name, g), 0))
				k.Inc(u, 1)
			})
			k.note(uqGroups, c.E)
		},
	}
}
