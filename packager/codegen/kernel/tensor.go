package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Scratch of strided views: raw strides in elements per output dim, and the element offset of the first one.
const (
	vwBase = CtxScratch + 8   // i32
	vwRaw  = CtxScratch + 512 // i32[8]
)

// collapse(ctx, desc) turns the raw strides of desc's dims into the walk of one operand (elementwise.go).
func (l *Lib) collapse() uint32 {
	return l.Fn("collapse", []T{asm.I32, asm.I32}, nil, func(f *asm.Fn) {
		ctx, d := f.Param(0), f.Param(1)
		j := f.Let(Rank(d))
		nd := f.Let(asm.C(0))
		e, s, p := f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32)
		f.While(j.E, func() {
			f.Inc(j, -1)
			f.Set(e, Dim(d, j.E).Wrap())
			f.Set(s, asm.L32(ctx.Add(j.ShlI(2)), vwRaw))
			f.If(e.NeI(1), func() {
				f.Set(p, ctx.Add(nd.SubI(1).ShlI(2)))
				f.If(asm.And2(nd.E, s.Eq(asm.L32(p.E, bcStrides).Mul(asm.L32(p.E, bcDims)))), func() {
					f.Put(asm.M32, p.E, bcDims, asm.L32(p.E, bcDims).Mul(e.E))
				}, func() {
					f.Put(asm.M32, p.E, bcDims+4, e.E)
					f.Put(asm.M32, p.E, bcStrides+4, s.E)
					f.Inc(nd, 1)
				})
			})
		})
		f.If(nd.Eqz(), func() {
			f.Put(asm.M32, ctx.E, bcDims, asm.C(1))
			f.Put(asm.M32, ctx.E, bcStrides, asm.C(0))
			f.Set(nd, asm.C(1))
		})
		f.Put(asm.M32, ctx.E, bcND, nd.E)
	})
}

// strides writes the row-major element strides of d to the scratch at off (i32[8]).
func (k *K) strides(d V, off uint32) {
	j := k.Let(Rank(d))
	s := k.Let(asm.C(1))
	k.While(j.E, func() {
		k.Inc(j, -1)
		k.Put(asm.M32, k.Ctx.Add(j.ShlI(2)), off, s.E)
		k.Set(s, s.Mul(Dim(d, j.E).Wrap()))
	})
}

// view is the kernel of an operator whose output is a strided view of input 0, copied: prep sets the output's dims
// (not yet allocated), raw strides and base.
func view(name string, d DT, prep func(k *K, x, y V)) *Kernel {
	b := bitsDT(d)
	return &Kernel{
		Name: "view." + b.Name, NOut: 1, Parallel: true, PrepName: name + "." + d.Name,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			prep(k, x, y)
			k.Alloc(y, d)
			k.CallStmt(k.L.collapse(), k.Ctx.E, y.E)
			k.Work(k.Numel(y), k.runCost(2).Add(asm.L32(k.Ctx.E, bcStrides).NeI(1).ExtU().MulI(5)))
		},
		Range: func(k *K, lo, hi V) {
			dx := k.Let(Data(k.In(0)).Add(asm.L32(k.Ctx.E, vwBase).ShlI(d.Shift)))
			do := k.Let(Data(k.Out(0)))
			p, po, end, st := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.walk(1, lo, hi, func(pos, n V, off, str []V) {
				k.Set(p, dx.Add(off[0].ShlI(d.Shift)))
				k.Set(po, do.Add(pos.ShlI(d.Shift)))
				k.If(str[0].EqI(1), func() { k.MemCopy(po.E, p.E, n.ShlI(d.Shift)) }, func() {
					k.Set(end, po.Add(n.ShlI(d.Shift)))
					k.Set(st, str[0].ShlI(d.Shift))
					k.While(po.LtU(end.E), func() {
						k.Put(b.Mem, po.E, 0, b.Mem.At(p.E, 0))
						k.Inc(po, 1<<d.Shift)
						k.Set(p, p.Add(st.E))
					})
				})
			})
		},
	}
}

const rawTmp = CtxScratch + 544 // i32[8]: strides of the input

// Transpose permutes by attributes 0..rank-1; no attributes mean the reverse.
func Transpose(d DT, hasPerm bool) *Kernel {
	name := "Transpose"
	if !hasPerm {
		name = "Reverse"
	}
	return view(name, d, func(k *K, x, y V) {
		k.strides(x, rawTmp)
		k.Put(asm.M32, k.Ctx.E, vwBase, asm.C(0))
		k.SetRank(y, Rank(x))
		i, p := k.Local(asm.I32), k.Local(asm.I32)
		r := k.Let(Rank(x))
		if hasPerm {
			k.Check(r.ExtU().Eq(k.Attr(0)), abi.ErrRank, r.ExtU(), k.Attr(0))
		}
		k.Up(i, r.E, func() {
			if hasPerm {
				k.Set(p, asm.L32(asm.L32(k.Rec.E, RecAttrs).Add(i.ShlI(3)), 8))
			} else {
				k.Set(p, r.SubI(1).Sub(i.E))
			}
			k.SetDim(y, i.E, Dim(x, p.E))
			k.Put(asm.M32, k.Ctx.Add(i.ShlI(2)), vwRaw, asm.L32(k.Ctx.Add(p.ShlI(2)), rawTmp))
		})
	})
}

// Expand broadcasts input 0 against the shape in input 1.
func Expand(d DT) *Kernel {
	return view("Expand", d, func(k *K, x, y V) {
		s := k.In(1)
		k.strides(x, rawTmp)
		k.Put(asm.M32, k.Ctx.E, vwBase, asm.C(0))
		rx := k.Let(Rank(x))
		rs := k.Let(k.Numel(s).Wrap())
		k.Check(rs.LeU(asm.C(abi.MaxRank)), abi.ErrRank, rs.ExtU(), asm.CL(0))
		r := k.Let(asm.Select(rx.GtU(rs.E), rx.E, rs.E))
		k.SetRank(y, r.E)
		i, q := k.Local(asm.I32), k.Local(asm.I32)
		a, b := k.Local(asm.I64), k.Local(asm.I64)
		st := k.Local(asm.I32)
		k.Up(i, r.E, func() {
			k.Set(a, asm.CL(1))
			k.Set(b, asm.CL(1))
			k.Set(st, asm.C(0))
			k.Set(q, i.Sub(r.Sub(rx.E)))
			k.If(q.GeS(asm.C(0)), func() {
				k.Set(a, Dim(x, q.E))
				k.If(a.NeI(1), func() { k.Set(st, asm.L32(k.Ctx.Add(q.ShlI(2)), rawTmp)) })
			})
			k.Set(q, i.Sub(r.Sub(rs.E)))
			k.If(q.GeS(asm.C(0)), func() { k.Set(b, asm.L64(Data(s).Add(q.ShlI(3)), 0)) })
			k.Check(a.EqI(1).Or(b.EqI(1)).Or(a.Eq(b.E)), abi.ErrShape, a.E, b.E)
			k.SetDim(y, i.E, asm.Select(a.EqI(1), b.E, a.E))
			k.Put(asm.M32, k.Ctx.Add(i.ShlI(2)), vwRaw, st.E)
		})
	})
}

// Slice takes starts, ends, axes (may be absent) and steps (may be absent) as i64 lists.
func Slice(d DT) *Kernel {
	return view("Slice", d, func(k *K, x, y V) {
		starts, ends := k.In(1), k.In(2)
		k.strides(x, vwRaw)
		k.CopyDims(y, x)
		base := k.Let(asm.C(0))
		n := k.Let(k.Numel(starts).Wrap())
		i, ax := k.Local(asm.I32), k.Local(asm.I32)
		s, e, st, dim, a, t := k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64)
		axes, steps := k.Let(asm.C(0)), k.Let(asm.C(0))
		k.Check(k.Numel(ends).Eq(n.ExtU()), abi.ErrShape, k.Numel(ends), n.ExtU())
		k.If(k.HasIn(3), func() {
			v := k.In(3)
			k.Check(k.Numel(v).Eq(n.ExtU()), abi.ErrShape, k.Numel(v), n.ExtU())
			k.Set(axes, Data(v))
		})
		k.If(k.HasIn(4), func() {
			v := k.In(4)
			k.Check(k.Numel(v).Eq(n.ExtU()), abi.ErrShape, k.Numel(v), n.ExtU())
			k.Set(steps, Data(v))
		})
		k.Up(i, n.E, func() {
			k.Set(a, i.ExtU())
			k.If(axes.E, func() { k.Set(a, asm.L64(axes.Add(i.ShlI(3)), 0)) })
			k.Index(a, Rank(x).ExtU())
			k.Set(ax, a.Wrap())
			k.Set(st, asm.CL(1))
			k.If(steps.E, func() { k.Set(st, asm.L64(steps.Add(i.ShlI(3)), 0)) })
			k.Check(st.NeI(0), abi.ErrValue, a.E, asm.CL(0))
			k.Set(s, asm.L64(Data(starts).Add(i.ShlI(3)), 0))
			k.Set(e, asm.L64(Data(ends).Add(i.ShlI(3)), 0))
			k.Set(dim, Dim(x, ax.E))
			clamp := func(v V, lo, hi E) {
				k.If(v.LtS(asm.CL(0)), func() { k.Set(v, v.Add(dim.E)) })
				k.If(v.LtS(lo), func() { k.Set(v, lo) })
				k.If(v.GtS(hi), func() { k.Set(v, hi) })
			}
			k.If(st.GtS(asm.CL(0)), func() {
				clamp(s, asm.CL(0), dim.E)
				clamp(e, asm.CL(0), dim.E)
				// ceil((e-s)/st) without overflow for any step.
				k.Set(t, asm.CL(0))
				k.If(e.GtS(s.E), func() { k.Set(t, e.Sub(s.E).SubI(1).DivS(st.E).AddI(1)) })
			}, func() {
				clamp(s, asm.CL(0), dim.SubI(1))
				clamp(e, asm.CL(-1), dim.SubI(1))
				k.Set(t, asm.CL(0))
				k.If(s.GtS(e.E), func() {
					// -st overflows for the smallest i64; one element remains either way.
					k.If(st.EqI(-1<<63), func() { k.Set(t, asm.CL(1)) }, func() {
						k.Set(t, s.Sub(e.E).SubI(1).DivS(asm.CL(0).Sub(st.E)).AddI(1))
					})
				})
			})
			k.SetDim(y, ax.E, t.E)
			k.Set(base, base.Add(s.Wrap().Mul(asm.L32(k.Ctx.Add(ax.ShlI(2)), vwRaw))))
			k.Put(asm.M32, k.Ctx.Add(ax.ShlI(2)), vwRaw, asm.L32(k.Ctx.Add(ax.ShlI(2)), vwRaw).Mul(st.Wrap()))
		})
		k.Put(asm.M32, k.Ctx.E, vwBase, base.E)
	})
}

// SplitPart is output number attr1 of a Split along axis attr0: sizes in input 1, or equal parts, attr2 of them.
func SplitPart(d DT, sizes bool) *Kernel {
	name := "SplitEqual"
	if sizes {
		name = "SplitSizes"
	}
	return view(name, d, func(k *K, x, y V) {
		ax := k.axis(0, Rank(x))
		k.strides(x, vwRaw)
		k.CopyDims(y, x)
		n := k.Let(Dim(x, ax.E))
		start, size := k.Let(asm.CL(0)), k.Let(asm.CL(0))
		if sizes {
			s := k.In(1)
			i := k.Local(asm.I32)
			sum, v := k.Let(asm.CL(0)), k.Local(asm.I64)
			k.Check(k.Numel(s).Eq(k.Attr(2)), abi.ErrShape, k.Numel(s), k.Attr(2))
			k.Up(i, k.Numel(s).Wrap(), func() {
				k.Set(v, asm.L64(Data(s).Add(i.ShlI(3)), 0))
				k.Check(v.GeS(asm.CL(0)).And(v.LeS(n.E)), abi.ErrValue, i.ExtU(), v.E)
				k.If(i.Eq(k.Attr32(1)), func() {
					k.Set(start, sum.E)
					k.Set(size, v.E)
				})
				k.Set(sum, sum.Add(v.E))
			})
			k.Check(sum.Eq(n.E), abi.ErrShape, sum.E, n.E)
		} else {
			each := k.Let(n.Add(k.Attr(2)).SubI(1).DivS(k.Attr(2)))
			k.Set(start, each.Mul(k.Attr(1)))
			k.Set(size, each.E)
			k.If(start.GtS(n.E), func() { k.Set(start, n.E) })
			k.If(size.GtS(n.Sub(start.E)), func() { k.Set(size, n.Sub(start.E)) })
		}
		k.SetDim(y, ax.E, size.E)
		k.Put(asm.M32, k.Ctx.E, vwBase, start.Wrap().Mul(asm.L32(k.Ctx.Add(ax.ShlI(2)), vwRaw)))
	})
}

// Concat joins its inputs along axis attr0.
func Concat(d DT) *Kernel {
	const inner, outer = CtxScratch, CtxScratch + 8
	return &Kernel{
		Name: nameBits("Concat", d), NOut: 1, Parallel: true, PrepName: "Concat." + d.Name,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			ax := k.axis(0, Rank(x))
			k.CopyDims(y, x)
			sum := k.Let(Dim(x, ax.E))
			i, j := k.Local(asm.I32), k.Local(asm.I32)
			n := k.Let(k.NIn())
			k.For(i, asm.C(1), n.E, 1, func() {
				v := k.InAt(i.E)
				k.Check(Rank(v).Eq(Rank(x)), abi.ErrRank, i.ExtU(), Rank(v).ExtU())
				k.For(j, asm.C(0), Rank(x), 1, func() {
					k.If(j.Ne(ax.E), func() { k.Check(Dim(v, j.E).Eq(Dim(x, j.E)), abi.ErrShape, Dim(v, j.E), Dim(x, j.E)) })
				})
				k.Set(sum, sum.Add(Dim(v, ax.E)))
			})
			k.SetDim(y, ax.E, sum.E)
			k.Alloc(y, d)
			in := k.prodDims(y, ax.AddI(1), Rank(y))
			out := k.prodDims(y, asm.C(0), ax.E)
			k.Put(asm.M32, k.Ctx.E, inner, in.Wrap())
			k.Put(asm.M32, k.Ctx.E, outer, ax.E)
			k.If(k.Numel(y).Eqz(), func() { k.Set(out, asm.CL(0)) })
			// A byte costs a quarter of a unit: what is copied is read and written, and may be touched for the first time.
			row := k.Let(sum.Mul(in.E).ShlI(d.Shift))
			pieces, cost := k.cut(row.ShrSI(2).AddI(1), asm.CL(1))
			k.Work(out.Mul(pieces.E), cost.Add(n.ExtU().ShlI(3)).AddI(8))
		},
		Range: func(k *K, lo, hi V) {
			y := k.Out(0)
			in := k.Let(asm.L32(k.Ctx.E, inner).ShlI(d.Shift))
			ax := k.Let(asm.L32(k.Ctx.E, outer))
			row := k.Let(Dim(y, ax.E).Wrap().Mul(in.E))
			n := k.Let(k.NIn())
			o, i, po, sz, j := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.If(k.noted(pcCount).NeI(1), func() {
				k.concatPieces(ax, in, row, n, lo, hi)
				k.Return(asm.C(0))
			})
			// Input by input, so that descriptors are read once per range.
			k.Set(j, asm.C(0))
			k.Up(i, n.E, func() {
				v := k.InAt(i.E)
				src := k.Let(Data(v))
				k.Set(sz, Dim(v, ax.E).Wrap().Mul(in.E))
				k.Set(po, Data(y).Add(lo.Mul(row.E)).Add(j.E))
				k.Set(src, src.Add(lo.Mul(sz.E)))
				k.For(o, lo.E, hi.E, 1, func() {
					k.If(sz.EqI(1<<d.Shift), func() {
						b := bitsDT(d)
						k.Put(b.Mem, po.E, 0, b.Mem.At(src.E, 0))
					}, func() { k.MemCopy(po.E, src.E, sz.E) })
					k.Set(po, po.Add(row.E))
					k.Set(src, src.Add(sz.E))
				})
				k.Set(j, j.Add(sz.E))
			})
		},
	}
}

// concatPieces does units [lo, hi) of rows that are cut: each is some bytes of an output row.
func (k *K) concatPieces(ax, in, row, n, lo, hi V) {
	dy := k.Let(Data(k.Out(0)))
	words := k.Let(row.ShrUI(2).AddI(1))
	i, at, sz, a, b := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	k.pieceUnits(lo, hi, words, func(u, from, to V) {
		k.Set(from, from.ShlI(2))
		k.Set(to, asm.Select(to.Eq(words.E), row.E, to.ShlI(2)))
		k.Set(at, asm.C(0))
		k.Up(i, n.E, func() {
			v := k.InAt(i.E)
			k.Set(sz, Dim(v, ax.E).Wrap().Mul(in.E))
			k.Set(a, asm.Select(from.GtU(at.E), from.E, at.E))
			k.Set(b, asm.Select(to.LtU(at.Add(sz.E)), to.E, at.Add(sz.E)))
			k.If(a.LtU(b.E), func() {
				k.MemCopy(dy.Add(u.Mul(row.E)).Add(a.E), Data(v).Add(u.Mul(sz.E)).Add(a.Sub(at.E)), b.Sub(a.E))
			})
			k.Set(at, at.Add(sz.E))
		})
	})
}

// Gather takes i64 indices along axis attr0.
func Gather(d DT) *Kernel {
	const outer, inner, cnt, dim = CtxScratch, CtxScratch + 4, CtxScratch + 8, CtxScratch + 12
	b := bitsDT(d)
	return &Kernel{
		Name: nameBits("Gather", d), NOut: 1, PrepName: "Gather." + d.Name,
		Prep: func(k *K) {
			x, ix, y := k.In(0), k.In(1), k.Out(0)
			ax := k.axis(0, Rank(x))
			ri := k.Let(Rank(ix))
			r := k.Let(Rank(x).SubI(1).Add(ri.E))
			k.Check(r.LeU(asm.C(abi.MaxRank)), abi.ErrRank, r.ExtU(), asm.CL(abi.MaxRank))
			k.SetRank(y, r.E)
			i := k.Local(asm.I32)
			k.Up(i, r.E, func() {
				k.If(i.LtU(ax.E), func() { k.SetDim(y, i.E, Dim(x, i.E)) }, func() {
					k.If(i.LtU(ax.Add(ri.E)), func() { k.SetDim(y, i.E, Dim(ix, i.Sub(ax.E))) }, func() {
						k.SetDim(y, i.E, Dim(x, i.Sub(ri.E).AddI(1)))
					})
				})
			})
			k.Alloc(y, d)
			in := k.prodDims(x, ax.AddI(1), Rank(x))
			out := k.prodDims(x, asm.C(0), ax.E)
			k.Put(asm.M32, k.Ctx.E, outer, out.Wrap())
			k.Put(asm.M32, k.Ctx.E, inner, in.Wrap().ShlI(d.Shift))
			k.Put(asm.M32, k.Ctx.E, cnt, k.Numel(ix).Wrap())
			k.Put(asm.M32, k.Ctx.E, dim, Dim(x, ax.E).Wrap())
			pieces, cost := k.cut(in.ShlI(d.Shift), asm.CL(1))
			k.Work(out.Mul(k.Numel(ix)).Mul(pieces.E), cost.ShrSI(2).AddI(10))
		},
		Range: func(k *K, lo, hi V) {
			x, ix := k.Let(Data(k.In(0))), k.Let(Data(k.In(1)))
			in, c, n := k.Let(asm.L32(k.Ctx.E, inner)), k.Let(asm.L32(k.Ctx.E, cnt)), k.Let(asm.L32(k.Ctx.E, dim))
			v := k.Local(asm.I64)
			p, o, j, po, u := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.If(k.noted(pcCount).NeI(1), func() {
				// A unit is some bytes of a slice.
				k.pieceUnits(lo, hi, in, func(u, from, to V) {
					k.Set(o, u.DivU(c.E))
					k.Set(v, asm.L64(ix.Add(u.Sub(o.Mul(c.E)).ShlI(3)), 0))
					k.Index(v, n.ExtU())
					k.Set(p, x.Add(o.Mul(n.E).Add(v.Wrap()).Mul(in.E)))
					k.MemCopy(Data(k.Out(0)).Add(u.Mul(in.E)).Add(from.E), p.Add(from.E), to.Sub(from.E))
				})
				k.Return(asm.C(0))
			})
			k.Set(o, lo.DivU(c.E))
			k.Set(j, lo.Sub(o.Mul(c.E)))
			k.Set(po, Data(k.Out(0)).Add(lo.Mul(in.E)))
			k.Set(u, lo.E)
			k.While(u.LtU(hi.E), func() {
				k.Set(v, asm.L64(ix.Add(j.ShlI(3)), 0))
				k.Index(v, n.ExtU())
				k.Set(p, x.Add(o.Mul(n.E).Add(v.Wrap()).Mul(in.E)))
				k.If(in.EqI(1<<d.Shift), func() { k.Put(b.Mem, po.E, 0, b.Mem.At(p.E, 0)) }, func() { k.MemCopy(po.E, p.E, in.E) })
				k.Set(po, po.Add(in.E))
				k.Inc(j, 1)
				k.If(j.Eq(c.E), func() {
					k.Set(j, asm.C(0))
					k.Inc(o, 1)
				})
				k.Inc(u, 1)
			})
		},
	}
}
