package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Resize runs in steps: a plan for all axes, then for each axis a table of taps and its application.

// Columns of a plan, one row of five f64 per dim of X.
const (
	rpM   = 0  // output size
	rpS   = 8  // scale
	rpW   = 16 // output size before rounding
	rpA   = 24 // roi
	rpB   = 32
	rpRow = 40
)

// How Resize maps coordinates.
const (
	CoordHalfPixel = iota
	CoordSymmetric
	CoordPytorch
	CoordCorners
	CoordAsymmetric
	CoordCrop
	CoordHalfPixelNN
)

// How Resize samples.
const (
	SampleFloor = iota // the four nearest modes
	SampleCeil
	SamplePreferFloor
	SamplePreferCeil
	SampleLinear
	SampleCubic
)

// Sampler is a variant of Resize.
type Sampler struct {
	Coord, Mode       int
	Antialias, Inside bool // Inside is exclude_outside
}

func (s Sampler) nearest() bool { return s.Mode <= SamplePreferCeil }

// ResizePlan makes the plan from X, roi, scales and sizes. Attributes: 0 policy (0 stretch, 1 not_larger, 2 not_smaller),
// 1 number of axes, then the axes.
func ResizePlan() *Kernel {
	return &Kernel{Name: "Resize.plan", NOut: 1, Run: func(k *K) {
		x, p := k.In(0), k.Out(0)
		r := k.Let(Rank(x))
		k.SetRank(p, asm.C(2))
		k.SetDimC(p, 0, r.ExtU())
		k.SetDimC(p, 1, asm.CL(rpRow/8))
		k.Alloc(p, dtOf(abi.F64))
		base := k.Let(Data(p))
		i, d, row := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
		put := func(off uint32, v E) { k.Put(asm.MF64, row.E, off, v) }
		k.Up(d, r.E, func() {
			k.Set(row, base.Add(d.MulI(rpRow)))
			put(rpM, Dim(x, d.E).ToF(asm.F64, true))
			put(rpW, Dim(x, d.E).ToF(asm.F64, true))
			put(rpS, asm.CD(1))
			put(rpA, asm.CD(0))
			put(rpB, asm.CD(1))
		})
		na := k.Let(k.Attr32(1))
		n, m := k.Local(asm.I64), k.Local(asm.I64)
		s, all := k.Local(asm.F64), k.Local(asm.F64)
		axis := func() {
			k.Set(d, asm.L32(asm.L32(k.Rec.E, RecAttrs).Add(i.ShlI(3)), 16))
			k.Check(d.LtU(r.E), abi.ErrRank, r.ExtU(), d.ExtU())
			k.Set(row, base.Add(d.MulI(rpRow)))
			k.Set(n, Dim(x, d.E))
		}
		size := func() {
			k.Check(asm.MF64.At(row.E, rpM).Lt(asm.CD(1<<31)), abi.ErrOverflow, n.E, i.ExtU())
		}
		k.If(k.HasIn(2), func() {
			sc := k.In(2)
			k.Check(k.Numel(sc).Eq(na.ExtU()), abi.ErrShape, k.Numel(sc), na.ExtU())
			f := k.Local(asm.F32)
			k.Up(i, na.E, func() {
				axis()
				k.Set(f, asm.MF32.At(Data(sc).Add(i.ShlI(2)), 0))
				k.Check(f.Gt(asm.CF(0)), abi.ErrValue, i.ExtU(), n.E)
				put(rpS, f.Promote())
				put(rpW, f.Mul(n.ToF(asm.F32, true)).Promote())
				put(rpM, asm.MF64.At(row.E, rpW).Floor())
				size()
			})
		}, func() {
			sz := k.In(3)
			k.Check(k.Numel(sz).Eq(na.ExtU()), abi.ErrShape, k.Numel(sz), na.ExtU())
			k.Up(i, na.E, func() {
				axis()
				k.Set(m, asm.L64(Data(sz).Add(i.ShlI(3)), 0))
				k.Check(m.GeS(asm.CL(0)).And(n.NeI(0).Or(m.Eqz())), abi.ErrShape, n.E, m.E)
				k.Set(s, asm.CD(1))
				k.If(n.NeI(0), func() { k.Set(s, m.ToF(asm.F64, true).Div(n.ToF(asm.F64, true))) })
				put(rpS, s.E)
				put(rpM, m.ToF(asm.F64, true))
				put(rpW, m.ToF(asm.F64, true))
				k.If(i.Eqz(), func() { k.Set(all, s.E) })
				k.If(k.Attr32(0).EqI(1), func() { k.Set(all, asm.PMin(all.E, s.E)) }, func() { k.Set(all, asm.PMax(all.E, s.E)) })
				size()
			})
			k.If(k.Attr32(0), func() {
				k.Up(i, na.E, func() {
					axis()
					put(rpS, all.E)
					put(rpW, all.Mul(n.ToF(asm.F64, true)))
					put(rpM, asm.MF64.At(row.E, rpW).Add(asm.CD(0.5)).Floor())
					size()
				})
			})
		})
		k.If(k.HasIn(1), func() {
			roi := k.In(1)
			k.Check(k.Numel(roi).Eq(na.ExtU().ShlI(1)), abi.ErrShape, k.Numel(roi), na.ExtU())
			k.Up(i, na.E, func() {
				axis()
				put(rpA, asm.MF64.At(Data(roi).Add(i.ShlI(3)), 0))
				put(rpB, asm.MF64.At(Data(roi).Add(i.Add(na.E).ShlI(3)), 0))
			})
		})
	}}
}

// Scratch of the table.
const (
	rtN     = CtxScratch      // u32 input size
	rtM     = CtxScratch + 4  // u32 output size
	rtT     = CtxScratch + 8  // u32 taps per output
	rtFirst = CtxScratch + 12 // i32 offset of the first tap
	rtPlan  = CtxScratch + 16 // u32 row of the plan
	rtScale = CtxScratch + 24 // f64 scale of the weights' argument
)

// ResizeTaps makes the tables of axis attr0 from X and the plan: indices [m,T] (i32, -1 first: extrapolate) and weights
// [m,T] (f64). attr1 is the cubic coefficient.
func ResizeTaps(v Sampler) *Kernel {
	return &Kernel{Name: fmt.Sprintf("Resize.taps.%d.%d.%t.%t", v.Coord, v.Mode, v.Antialias, v.Inside), NOut: 2,
		Prep: func(k *K) {
			x, p, yi, yw := k.In(0), k.In(1), k.Out(0), k.Out(1)
			row := k.Let(Data(p).Add(k.Attr32(0).MulI(rpRow)))
			n := k.Let(Dim(x, k.Attr32(0)))
			k.Check(n.LeS(asm.CL(1<<31-1)), abi.ErrOverflow, n.E, asm.CL(0))
			m := k.Let(asm.MF64.At(row.E, rpM).TruncSat(asm.I64, true))
			k.Check(n.NeI(0).Or(m.Eqz()), abi.ErrShape, n.E, m.E)
			taps, first := k.Let(asm.CL(1)), k.Let(asm.CL(0))
			c := k.Let(asm.CD(1))
			switch v.Mode {
			case SampleLinear:
				k.Set(taps, asm.CL(2))
			case SampleCubic:
				k.Set(taps, asm.CL(4))
				k.Set(first, asm.CL(-1))
			}
			if v.Antialias && !v.nearest() {
				k.Set(c, asm.MF64.At(row.E, rpS))
				one := k.Let(asm.CD(1))
				k.Set(c, asm.PMin(c.E, one.E))
				k.If(m.NeI(0), func() {
					k.Set(first, asm.CD(-float64(v.Mode-SampleLinear+1)).Div(c.E).Floor().TruncSat(asm.I64, true).AddI(1))
					k.Check(first.GtS(asm.CL(-1<<28)), abi.ErrOverflow, first.E, m.E)
					k.Set(taps, asm.CL(1).Sub(first.E).ShlI(1))
				})
			}
			for _, y := range []V{yi, yw} {
				k.SetRank(y, asm.C(2))
				k.SetDimC(y, 0, m.E)
				k.SetDimC(y, 1, taps.E)
			}
			k.Alloc(yi, dtOf(abi.I32))
			k.Alloc(yw, dtOf(abi.F64))
			k.Put(asm.M32, k.Ctx.E, rtN, n.Wrap())
			k.Put(asm.M32, k.Ctx.E, rtM, m.Wrap())
			k.Put(asm.M32, k.Ctx.E, rtT, taps.Wrap())
			k.Put(asm.M32, k.Ctx.E, rtFirst, first.Wrap())
			k.Put(asm.M32, k.Ctx.E, rtPlan, row.E)
			k.Put(asm.MF64, k.Ctx.E, rtScale, c.E)
			k.Work(m.E, taps.MulI(12).AddI(30))
		},
		Range: func(k *K, lo, hi V) { k.resizeTaps(v, lo, hi) },
	}
}

func (k *K) resizeTaps(v Sampler, lo, hi V) {
	at := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
	n, m, taps, first, row := at(rtN), at(rtM), at(rtT), at(rtFirst), at(rtPlan)
	plan := func(off uint32) V { return k.Let(asm.MF64.At(row.E, off)) }
	s, w, a, b := plan(rpS), plan(rpW), plan(rpA), plan(rpB)
	nf, mf := k.Let(n.ToF(asm.F64, false)), k.Let(m.ToF(asm.F64, false))
	n1 := k.Let(nf.Sub(asm.CD(1)))
	c := k.Let(asm.MF64.At(k.Ctx.E, rtScale))
	o, j := k.Let(lo.E), k.Local(asm.I32)
	pi := k.Let(Data(k.Out(0)).Add(lo.Mul(taps.E).ShlI(2)))
	pw := k.Let(Data(k.Out(1)).Add(lo.Mul(taps.E).ShlI(3)))
	x, fl, rr, t, g, sum, of := k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64)
	idx := k.Local(asm.I64)
	q := k.Local(asm.I32)
	coef := k.Let(k.AttrF(1))
	half := asm.CD(0.5)
	lim, low := k.Let(asm.CD(1<<31)), k.Let(asm.CD(-1<<31))
	// whole turns a float into an index.
	whole := func(e E) {
		k.Set(g, e)
		k.Set(g, asm.PMin(g.E, lim.E))
		k.Set(g, asm.PMax(g.E, low.E))
		k.Set(idx, g.TruncSat(asm.I64, true))
	}
	clamp := func() {
		k.If(idx.GeS(n.ExtU()), func() { k.Set(idx, n.ExtU().SubI(1)) })
		k.If(idx.LtS(asm.CL(0)), func() { k.Set(idx, asm.CL(0)) })
	}
	skip := func() {
		k.Set(pi, pi.Add(taps.ShlI(2)))
		k.Set(pw, pw.Add(taps.ShlI(3)))
		k.Inc(o, 1)
	}
	single := func(i E) {
		// One tap of weight 1, the rest nothing.
		k.MemFill(pw.E, asm.C(0), taps.ShlI(3))
		k.MemFill(pi.E, asm.C(0), taps.ShlI(2))
		k.Put(asm.M32, pi.E, 0, i)
		k.Put(asm.MF64, pw.E, 0, asm.CD(1))
	}
	k.Block(func(done asm.Label) {
		k.Loop(func(next asm.Label) {
			k.BrIf(done, o.GeU(hi.E))
			if v.Coord != CoordCrop {
				k.If(s.Eq(asm.CD(1)).And(mf.Eq(nf.E)), func() {
					single(o.E)
					skip()
					k.Br(next)
				})
			}
			k.Set(of, o.ToF(asm.F64, false))
			mid := of.Add(half).Div(s.E)
			switch v.Coord {
			case CoordHalfPixel:
				k.Set(x, mid.Sub(half))
			case CoordHalfPixelNN:
				k.Set(x, mid)
			case CoordAsymmetric:
				k.Set(x, of.Div(s.E))
			case CoordPytorch:
				k.Set(x, mid.Sub(half))
				k.If(w.Eq(asm.CD(1)), func() { k.Set(x, asm.CD(-0.5)) })
			case CoordCorners:
				k.Set(x, asm.CD(0))
				k.If(w.Ne(asm.CD(1)), func() { k.Set(x, of.Mul(n1.E).Div(w.Sub(asm.CD(1)))) })
			case CoordSymmetric:
				k.Set(x, nf.Div(asm.CD(2)).Mul(asm.CD(1).Sub(mf.Div(w.E))).Add(mid).Sub(half))
			case CoordCrop:
				k.If(w.Eq(asm.CD(1)), func() { k.Set(x, b.Sub(a.E).Mul(n1.E).Div(asm.CD(2))) }, func() {
					k.Set(x, of.Mul(b.Sub(a.E)).Mul(n1.E).Div(w.Sub(asm.CD(1))))
				})
				k.Set(x, x.Add(a.Mul(n1.E)))
				k.If(x.Lt(asm.CD(0)).Or(x.Gt(n1.E)), func() {
					single(asm.C(-1))
					skip()
					k.Br(next)
				})
			}
			if v.nearest() {
				switch v.Mode {
				case SampleFloor:
					whole(x.Floor())
				case SampleCeil:
					whole(x.Ceil())
				case SamplePreferFloor:
					whole(x.Sub(half).Ceil())
				default:
					whole(x.Add(half).Floor())
				}
				clamp()
				k.Put(asm.M32, pi.E, 0, idx.Wrap())
				k.Put(asm.MF64, pw.E, 0, asm.CD(1))
				skip()
				k.Br(next)
				return
			}
			k.Set(fl, x.Floor())
			k.Set(rr, x.Sub(fl.E))
			k.Set(sum, asm.CD(0))
			k.Up(j, taps.E, func() {
				k.Set(q, j.Add(first.E))
				k.Set(t, q.ToF(asm.F64, true).Sub(rr.E).Mul(c.E).Abs())
				k.Set(g, asm.CD(0))
				if v.Mode == SampleLinear {
					k.If(t.Lt(asm.CD(1)), func() { k.Set(g, asm.CD(1).Sub(t.E)) })
				} else {
					k.If(t.Le(asm.CD(1)), func() {
						k.Set(g, coef.Add(asm.CD(2)).Mul(t.E).Sub(coef.Add(asm.CD(3))).Mul(t.E).Mul(t.E).Add(asm.CD(1)))
					}, func() {
						k.If(t.Lt(asm.CD(2)), func() {
							k.Set(g, coef.Mul(t.E).Sub(asm.CD(5).Mul(coef.E)).Mul(t.E).Add(asm.CD(8).Mul(coef.E)).Mul(t.E).Sub(asm.CD(4).Mul(coef.E)))
						})
					})
				}
				k.Set(t, g.E)
				whole(fl.E)
				k.Set(idx, idx.Add(q.ExtS()))
				if v.Inside {
					k.If(idx.LtS(asm.CL(0)).Or(idx.GeS(n.ExtU())), func() { k.Set(t, asm.CD(0)) })
				}
				clamp()
				k.Set(sum, sum.Add(t.E))
				k.Put(asm.M32, pi.Add(j.ShlI(2)), 0, idx.Wrap())
				k.Put(asm.MF64, pw.Add(j.ShlI(3)), 0, t.E)
			})
			if v.Antialias || v.Inside {
				k.If(sum.Ne(asm.CD(0)), func() {
					k.Up(j, taps.E, func() {
						k.Set(q, pw.Add(j.ShlI(3)))
						k.Put(asm.MF64, q.E, 0, asm.MF64.At(q.E, 0).Div(sum.E))
					})
				})
			}
			skip()
			k.Br(next)
		})
	})
}

// Scratch of the application.
const (
	raN     = CtxScratch
	raM     = CtxScratch + 4
	raT     = CtxScratch + 8
	raInner = CtxScratch + 12
	raParts = CtxScratch + 16 // pieces of an inner row
	raPiece = 1024            // elements of a piece
)

// ResizeApply applies the tables in inputs 1 and 2 to axis attr0 of X; attr1 is the extrapolation value. copies takes the first tap
// of each output only. A unit is a piece of an inner row.
func ResizeApply(d DT, copies bool) *Kernel {
	name := "Resize.apply." + d.Name
	if copies {
		name = "Resize.copy." + d.Name
	}
	return &Kernel{Name: name, NOut: 1, PrepName: "Resize.apply." + d.Name, Parallel: true,
		Prep: func(k *K) {
			x, ti, y := k.In(0), k.In(1), k.Out(0)
			ax := k.Let(k.Attr32(0))
			outer := k.prodDims(x, asm.C(0), ax.E)
			inner := k.prodDims(x, ax.AddI(1), Rank(x))
			k.CopyDims(y, x)
			k.SetDim(y, ax.E, DimC(ti, 0))
			k.Alloc(y, d)
			parts := k.Let(inner.AddI(raPiece - 1).DivS(asm.CL(raPiece)))
			k.Put(asm.M32, k.Ctx.E, raN, Dim(x, ax.E).Wrap())
			k.Put(asm.M32, k.Ctx.E, raM, DimC(ti, 0).Wrap())
			k.Put(asm.M32, k.Ctx.E, raT, DimC(ti, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, raInner, inner.Wrap())
			k.Put(asm.M32, k.Ctx.E, raParts, parts.Wrap())
			piece := k.Let(inner.E)
			k.If(piece.GtS(asm.CL(raPiece)), func() { k.Set(piece, asm.CL(raPiece)) })
			total := k.Let(outer.Mul(DimC(ti, 0)).Mul(parts.E))
			// The output has at least that many elements, unless it has none.
			k.If(k.Numel(y).Eqz(), func() { k.Set(total, asm.CL(0)) })
			k.Work(total.E, piece.AddI(2).Mul(DimC(ti, 1)).AddI(10))
		},
		Range: func(k *K, lo, hi V) {
			at := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
			n, m, taps, inner, parts := at(raN), at(raM), at(raT), at(raInner), at(raParts)
			dx, ti, tw, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.In(2))), k.Let(Data(k.Out(0)))
			L := func() V { return k.Local(asm.I32) }
			u, q, part, o, row, e, len, src, dst, j, idx, any, end := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
			w := k.Local(d.C)
			var ext V
			if d.C == asm.F32 || d.C == asm.F64 {
				ext = k.Let(k.AttrT(d.C, 1))
			} else {
				ext = k.Local(d.C)
			}
			k.While(u.LtU(hi.E), func() {
				k.Set(q, u.DivU(parts.E))
				k.Set(part, u.Sub(q.Mul(parts.E)))
				k.Set(row, q.DivU(m.E))
				k.Set(o, q.Sub(row.Mul(m.E)))
				k.Set(e, part.MulI(raPiece))
				k.Set(len, inner.Sub(e.E))
				k.If(len.GtS(asm.C(raPiece)), func() { k.Set(len, asm.C(raPiece)) })
				k.Set(dst, dy.Add(q.Mul(inner.E).Add(e.E).ShlI(d.Shift)))
				k.Set(idx, asm.L32(ti.Add(o.Mul(taps.E).ShlI(2)), 0))
				k.Set(end, dst.Add(len.ShlI(d.Shift)))
				from := func() { k.Set(src, dx.Add(row.Mul(n.E).Add(idx.E).Mul(inner.E).Add(e.E).ShlI(d.Shift))) }
				each := func(body func()) {
					k.While(dst.LtU(end.E), func() {
						body()
						k.Inc(src, 1<<d.Shift)
						k.Inc(dst, 1<<d.Shift)
					})
					k.Set(dst, end.Sub(len.ShlI(d.Shift)))
				}
				k.If(idx.LtS(asm.C(0)), func() {
					each(func() { k.Store(d, dst.E, 0, ext.E) })
				}, func() {
					if copies {
						from()
						b := bitsDT(d)
						k.If(len.EqI(1), func() { k.Put(b.Mem, dst.E, 0, b.Mem.At(src.E, 0)) }, func() {
							k.MemCopy(dst.E, src.E, len.ShlI(d.Shift))
						})
						return
					}
					k.Set(any, asm.C(0))
					k.Up(j, taps.E, func() {
						wv := asm.MF64.At(tw.Add(o.Mul(taps.E).Add(j.E).ShlI(3)), 0)
						if d.C == asm.F32 {
							wv = wv.Demote()
						}
						k.Set(w, wv)
						k.If(w.Ne(asm.Const(d.C, 0)), func() {
							k.Set(idx, asm.L32(ti.Add(o.Mul(taps.E).Add(j.E).ShlI(2)), 0))
							from()
							k.If(any.E, func() {
								each(func() { k.Store(d, dst.E, 0, k.Load(d, dst.E, 0).Add(k.Load(d, src.E, 0).Mul(w.E))) })
							}, func() {
								each(func() { k.Store(d, dst.E, 0, k.Load(d, src.E, 0).Mul(w.E)) })
							})
							k.Set(any, asm.C(1))
						})
					})
					k.If(any.Eqz(), func() { k.MemFill(dst.E, asm.C(0), len.ShlI(d.Shift)) })
				})
				k.Inc(u, 1)
			})
		},
	}
}
