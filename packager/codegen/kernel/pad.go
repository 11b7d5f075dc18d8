package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Element maps: each output element takes its value from one input element, found dim by dim, or from a fill value.

const (
	pdBefore = CtxScratch + 64  // i32[8]
	pdStride = CtxScratch + 96  // i32[8] element strides of the input
	pdRank   = CtxScratch + 128 // u32
	pdFirst  = CtxScratch + 144 // i32[8] what negative pads leave of the input: its first element
	pdLeft   = CtxScratch + 176 // i32[8] and the number of elements
)

// Pad modes.
const (
	PadConstant = iota
	PadEdge
	PadReflect
	PadWrap
)

// Pad takes pads (begins, ends) in input 1, the fill value in input 2, axes in input 3.
func Pad(mode int, d DT) *Kernel {
	b := bitsDT(d)
	return &Kernel{Name: fmt.Sprintf("Pad%d.%s", mode, b.Name), NOut: 1, Parallel: true, PrepName: fmt.Sprintf("Pad%d.%s", mode, d.Name),
		Prep: func(k *K) {
			x, pads, y := k.In(0), k.In(1), k.Out(0)
			k.CopyDims(y, x)
			k.strides(x, pdStride)
			r := k.Let(Rank(x))
			k.Put(asm.M32, k.Ctx.E, pdRank, r.E)
			k.MemFill(k.Ctx.AddI(pdBefore), asm.C(0), asm.C(32))
			n := k.Let(k.Numel(pads).Wrap().ShrUI(1))
			axes := k.Let(asm.C(0))
			k.If(k.HasIn(3), func() {
				v := k.In(3)
				k.Check(k.Numel(v).Eq(n.ExtU()), abi.ErrShape, k.Numel(v), n.ExtU())
				k.Set(axes, Data(v))
			}, func() { k.Check(n.Eq(r.E), abi.ErrShape, n.ExtU(), r.ExtU()) })
			k.Check(k.Numel(pads).Eq(n.ExtU().ShlI(1)), abi.ErrShape, k.Numel(pads), n.ExtU())
			i := k.Local(asm.I32)
			if mode != PadConstant {
				k.MemFill(k.Ctx.AddI(pdFirst), asm.C(0), asm.C(32))
				k.Up(i, r.E, func() { k.Put(asm.M32, k.Ctx.Add(i.ShlI(2)), pdLeft, Dim(x, i.E).Wrap()) })
			}
			a, lo, hi, dim := k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64)
			first, left := k.Local(asm.I64), k.Local(asm.I64)
			lim := asm.CL(1<<31 - 1)
			k.Up(i, n.E, func() {
				k.Set(a, i.ExtU())
				k.If(axes.E, func() { k.Set(a, asm.L64(axes.Add(i.ShlI(3)), 0)) })
				k.Index(a, r.ExtU())
				k.Set(lo, asm.L64(Data(pads).Add(i.ShlI(3)), 0))
				k.Set(hi, asm.L64(Data(pads).Add(i.Add(n.E).ShlI(3)), 0))
				for _, v := range []V{lo, hi} {
					k.Check(v.LtS(lim).And(v.GtS(asm.CL(-1<<31))), abi.ErrValue, a.E, v.E)
				}
				k.Set(dim, Dim(x, a.Wrap()))
				if mode != PadConstant {
					// Negative pads crop first. There must be something to take from; a reflection needs no bound, it bounces.
					k.Set(first, asm.CL(0))
					k.If(lo.LtS(asm.CL(0)), func() { k.Set(first, asm.CL(0).Sub(lo.E)) })
					k.Set(left, dim.Sub(first.E))
					k.If(hi.LtS(asm.CL(0)), func() { k.Set(left, left.Add(hi.E)) })
					k.Check(left.GtS(asm.CL(0)).Or(dim.Add(lo.E).Add(hi.E).LeS(asm.CL(0))), abi.ErrShape, dim.E, lo.E)
					k.Put(asm.M32, k.Ctx.Add(a.Wrap().ShlI(2)), pdFirst, first.Wrap())
					k.Put(asm.M32, k.Ctx.Add(a.Wrap().ShlI(2)), pdLeft, left.Wrap())
				}
				k.Put(asm.M32, k.Ctx.Add(a.Wrap().ShlI(2)), pdBefore, lo.Wrap())
				k.SetDim(y, a.Wrap(), dim.Add(lo.E).Add(hi.E))
			})
			if mode == PadConstant {
				k.If(k.HasIn(2), func() {
					v := k.In(2)
					k.Check(k.Numel(v).EqI(1), abi.ErrShape, k.Numel(v), asm.CL(1))
				})
			}
			k.Alloc(y, d)
			k.Work(k.Numel(y), asm.CL(20))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			dx, po := k.Let(Data(x)), k.Let(Data(y).Add(lo.ShlI(d.Shift)))
			r := k.Let(asm.L32(k.Ctx.E, pdRank))
			fill := k.Let(asm.Const(b.C, 0))
			if mode == PadConstant {
				k.If(k.HasIn(2), func() { k.Set(fill, b.Mem.At(Data(k.In(2)), 0)) })
			}
			u, q, j, off, t, n, in, o := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.While(u.LtU(hi.E), func() {
				k.Set(q, u.E)
				k.Set(off, asm.C(0))
				k.Set(in, asm.C(1))
				k.Set(j, r.E)
				k.While(j.E, func() {
					k.Inc(j, -1)
					k.Set(o, Dim(y, j.E).Wrap())
					k.Set(n, Dim(x, j.E).Wrap())
					k.Set(t, q.RemU(o.E).Sub(asm.L32(k.Ctx.Add(j.ShlI(2)), pdBefore)))
					if mode != PadConstant { // counted from the first element that is left
						k.Set(n, asm.L32(k.Ctx.Add(j.ShlI(2)), pdLeft))
						k.Set(t, t.Sub(asm.L32(k.Ctx.Add(j.ShlI(2)), pdFirst)))
					}
					k.Set(q, q.DivU(o.E))
					switch mode {
					case PadConstant:
						k.Set(in, in.And(t.LtU(n.E)))
					case PadEdge:
						k.If(t.LtS(asm.C(0)), func() { k.Set(t, asm.C(0)) })
						k.If(t.GeS(n.E), func() { k.Set(t, n.SubI(1)) })
					case PadWrap:
						k.Set(t, t.RemS(n.E))
						k.If(t.LtS(asm.C(0)), func() { k.Set(t, t.Add(n.E)) })
					case PadReflect:
						// Period 2(n-1); a single element reflects onto itself.
						k.If(n.EqI(1), func() { k.Set(t, asm.C(0)) }, func() {
							per := n.SubI(1).ShlI(1)
							k.Set(t, t.RemS(per))
							k.If(t.LtS(asm.C(0)), func() { k.Set(t, t.Add(per)) })
							k.If(t.GeS(n.E), func() { k.Set(t, per.Sub(t.E)) })
						})
					}
					if mode != PadConstant {
						k.Set(t, t.Add(asm.L32(k.Ctx.Add(j.ShlI(2)), pdFirst)))
					}
					k.Set(off, off.Add(t.Mul(asm.L32(k.Ctx.Add(j.ShlI(2)), pdStride))))
				})
				if mode == PadConstant {
					k.If(in.E, func() { k.Put(b.Mem, po.E, 0, b.Mem.At(dx.Add(off.ShlI(d.Shift)), 0)) },
						func() { k.Put(b.Mem, po.E, 0, fill.E) })
				} else {
					k.Put(b.Mem, po.E, 0, b.Mem.At(dx.Add(off.ShlI(d.Shift)), 0))
				}
				k.Inc(po, 1<<d.Shift)
				k.Inc(u, 1)
			})
		},
	}
}

// Tile repeats input 0 by the counts in input 1.
func Tile(d DT) *Kernel {
	b := bitsDT(d)
	return &Kernel{Name: nameBits("Tile", d), NOut: 1, Parallel: true, PrepName: "Tile." + d.Name,
		Prep: func(k *K) {
			x, rep, y := k.In(0), k.In(1), k.Out(0)
			k.CopyDims(y, x)
			k.strides(x, pdStride)
			r := k.Let(Rank(x))
			k.Check(k.Numel(rep).Eq(r.ExtU()), abi.ErrShape, k.Numel(rep), r.ExtU())
			i := k.Local(asm.I32)
			n := k.Local(asm.I64)
			k.Up(i, r.E, func() {
				k.Set(n, asm.L64(Data(rep).Add(i.ShlI(3)), 0))
				k.Check(n.GeS(asm.CL(0)).And(n.LeS(asm.CL(1<<31-1))), abi.ErrValue, i.ExtU(), n.E)
				k.SetDim(y, i.E, Dim(x, i.E).Mul(n.E))
			})
			k.Alloc(y, d)
			k.Work(k.Numel(y), asm.CL(20))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			dx, po, r := k.Let(Data(x)), k.Let(Data(y).Add(lo.ShlI(d.Shift))), k.Let(Rank(x))
			u, q, j, off, o := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.While(u.LtU(hi.E), func() {
				k.Set(q, u.E)
				k.Set(off, asm.C(0))
				k.Set(j, r.E)
				k.While(j.E, func() {
					k.Inc(j, -1)
					k.Set(o, Dim(y, j.E).Wrap())
					k.Set(off, off.Add(q.RemU(o.E).RemU(Dim(x, j.E).Wrap()).Mul(asm.L32(k.Ctx.Add(j.ShlI(2)), pdStride))))
					k.Set(q, q.DivU(o.E))
				})
				k.Put(b.Mem, po.E, 0, b.Mem.At(dx.Add(off.ShlI(d.Shift)), 0))
				k.Inc(po, 1<<d.Shift)
				k.Inc(u, 1)
			})
		},
	}
}

// Range counts from input 0 to input 1 by input 2.
func Range(d DT) *Kernel {
	return &Kernel{Name: "Range." + d.Name, NOut: 1,
		Prep: func(k *K) {
			y := k.Out(0)
			for i := 0; i < 3; i++ {
				v := k.In(i)
				k.Check(k.Numel(v).EqI(1), abi.ErrShape, k.Numel(v), asm.CL(1))
			}
			s, l, st := k.Let(k.Load(d, Data(k.In(0)), 0)), k.Let(k.Load(d, Data(k.In(1)), 0)), k.Let(k.Load(d, Data(k.In(2)), 0))
			n := k.Let(asm.CL(0))
			if d.Float {
				q := k.Let(l.Sub(s.E).Div(st.E))
				k.Check(q.Eq(q.E), abi.ErrValue, asm.CL(0), asm.CL(0))
				k.Set(n, q.Ceil().TruncSat(asm.I64, true))
			} else {
				k.Check(st.Ne(asm.Const(d.C, 0)), abi.ErrValue, asm.CL(0), asm.CL(0))
				a, b, c := k.Let(widen64(d, s.E)), k.Let(widen64(d, l.E)), k.Let(widen64(d, st.E))
				k.If(c.GtS(asm.CL(0)), func() {
					k.If(b.GtS(a.E), func() { k.Set(n, b.Sub(a.E).SubI(1).DivU(c.E).AddI(1)) })
				}, func() {
					k.If(a.GtS(b.E), func() { k.Set(n, a.Sub(b.E).SubI(1).DivU(asm.CL(0).Sub(c.E)).AddI(1)) })
				})
			}
			k.If(n.LtS(asm.CL(0)), func() { k.Set(n, asm.CL(0)) })
			k.SetRank(y, asm.C(1))
			k.SetDimC(y, 0, n.E)
			k.Alloc(y, d)
			k.Work(n.E, asm.CL(2))
		},
		Range: func(k *K, lo, hi V) {
			s, st := k.Let(k.Load(d, Data(k.In(0)), 0)), k.Let(k.Load(d, Data(k.In(2)), 0))
			p, i := k.Let(Data(k.Out(0)).Add(lo.ShlI(d.Shift))), k.Let(lo.E)
			k.While(i.LtU(hi.E), func() {
				v := i.E
				if d.Float {
					v = v.ToF(d.C, false)
				} else if d.C == asm.I64 {
					v = v.ExtU()
				}
				k.Store(d, p.E, 0, s.Add(v.Mul(st.E)))
				k.Inc(p, 1<<d.Shift)
				k.Inc(i, 1)
			})
		},
	}
}

// OneHot spreads i64 indices along axis attr0 of the result: values in input 2 (off, on), depth in input 1.
func OneHot(d DT) *Kernel {
	b := bitsDT(d)
	const depth, inner = CtxScratch, CtxScratch + 4
	return &Kernel{Name: nameBits("OneHot", d), NOut: 1, PrepName: "OneHot." + d.Name, Parallel: true,
		Prep: func(k *K) {
			x, dp, v, y := k.In(0), k.In(1), k.In(2), k.Out(0)
			k.Check(k.Numel(dp).EqI(1).And(k.Numel(v).EqI(2)), abi.ErrShape, k.Numel(dp), k.Numel(v))
			n := k.Let(asm.L64(Data(dp), 0))
			k.Check(n.GeS(asm.CL(0)), abi.ErrValue, n.E, asm.CL(0))
			r := k.Let(Rank(x).AddI(1))
			k.Check(r.LeU(asm.C(abi.MaxRank)), abi.ErrRank, r.ExtU(), asm.CL(abi.MaxRank))
			ax := k.axis(0, r.E)
			i := k.Local(asm.I32)
			k.SetRank(y, r.E)
			k.Up(i, r.E, func() {
				k.If(i.Eq(ax.E), func() { k.SetDim(y, i.E, n.E) }, func() {
					k.If(i.LtU(ax.E), func() { k.SetDim(y, i.E, Dim(x, i.E)) }, func() { k.SetDim(y, i.E, Dim(x, i.SubI(1))) })
				})
			})
			k.Alloc(y, d)
			in := k.prodDims(x, ax.E, Rank(x))
			k.Put(asm.M32, k.Ctx.E, depth, n.Wrap())
			k.Put(asm.M32, k.Ctx.E, inner, in.Wrap())
			k.Work(k.Numel(y), asm.CL(8))
		},
		Range: func(k *K, lo, hi V) {
			x := k.Let(Data(k.In(0)))
			off, on := k.Let(b.Mem.At(Data(k.In(2)), 0)), k.Let(b.Mem.At(Data(k.In(2)).AddI(1<<d.Shift), 0))
			n, in := k.Let(asm.L32(k.Ctx.E, depth)), k.Let(asm.L32(k.Ctx.E, inner))
			p, u, i, j, q := k.Let(Data(k.Out(0)).Add(lo.ShlI(d.Shift))), k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			v := k.Local(asm.I64)
			k.While(u.LtU(hi.E), func() {
				k.Set(q, u.DivU(in.E))
				k.Set(i, u.Sub(q.Mul(in.E)))
				k.Set(j, q.RemU(n.E))
				k.Set(q, q.DivU(n.E))
				k.Set(v, asm.L64(x.Add(q.Mul(in.E).Add(i.E).ShlI(3)), 0))
				k.If(v.LtS(asm.CL(0)), func() { k.Set(v, v.Add(n.ExtU())) })
				k.Put(b.Mem, p.E, 0, asm.Select(v.Eq(j.ExtU()), on.E, off.E))
				k.Inc(p, 1<<d.Shift)
				k.Inc(u, 1)
			})
		},
	}
}

// BatchNorm normalises channels (dim 1) with scale, bias, mean, var; attr0 is epsilon.
func BatchNorm(d DT) *Kernel {
	const ch, plane = CtxScratch, CtxScratch + 4
	return &Kernel{Name: "BatchNorm." + d.Name, NOut: 1, Parallel: true,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			k.Check(Rank(x).GeU(asm.C(2)), abi.ErrRank, Rank(x).ExtU(), asm.CL(2))
			k.CopyDims(y, x)
			k.Alloc(y, d)
			for i := 1; i < 5; i++ {
				v := k.In(i)
				k.Check(k.Numel(v).Eq(DimC(x, 1)), abi.ErrShape, k.Numel(v), DimC(x, 1))
			}
			in := k.prodDims(x, asm.C(2), Rank(x))
			k.Put(asm.M32, k.Ctx.E, ch, DimC(x, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, plane, in.Wrap())
			pieces, cost := k.cut(in.E, asm.CL(lineCost(d, 1)))
			k.Work(DimC(x, 0).Mul(DimC(x, 1)).Mul(pieces.E), cost.AddI(30))
		},
		Range: func(k *K, lo, hi V) {
			c, n := k.Let(asm.L32(k.Ctx.E, ch)), k.Let(asm.L32(k.Ctx.E, plane))
			var in [5]V
			for i := range in {
				in[i] = k.Let(Data(k.In(i)))
			}
			y := k.Let(Data(k.Out(0)))
			i, p, q, end := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			a, b := k.Local(d.C), k.Local(d.C)
			eps := k.Let(k.AttrT(d.C, 0))
			at := func(j int) E { return k.Load(d, in[j].Add(i.ShlI(d.Shift)), 0) }
			k.pieceUnits(lo, hi, n, func(u, from, to V) {
				k.Set(i, u.RemU(c.E))
				k.Set(a, at(1).Div(at(4).Add(eps.E).Sqrt()))
				k.Set(b, at(2).Sub(at(3).Mul(a.E)))
				k.Set(p, in[0].Add(u.Mul(n.E).Add(from.E).ShlI(d.Shift)))
				k.Set(q, y.Add(u.Mul(n.E).Add(from.E).ShlI(d.Shift)))
				k.Set(end, q.Add(to.Sub(from.E).ShlI(d.Shift)))
				if d.ABI == abi.F32 || d.ABI == abi.F64 {
					va, vb := k.Let(asm.Splat(a.E)), k.Let(asm.Splat(b.E))
					k.While(q.AddI(16).LeU(end.E), func() {
						k.Put(asm.MV, q.E, 0, asm.VAdd(d.C, asm.VMul(d.C, asm.MV.At(p.E, 0), va.E), vb.E))
						k.Inc(p, 16)
						k.Inc(q, 16)
					})
				}
				k.While(q.LtU(end.E), func() {
					k.Store(d, q.E, 0, k.Load(d, p.E, 0).Mul(a.E).Add(b.E))
					k.Inc(p, 1<<d.Shift)
					k.Inc(q, 1<<d.Shift)
				})
			})
		},
	}
}
