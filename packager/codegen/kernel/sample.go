package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// How Sample treats positions outside of the input.
const (
	OutsideZeros = iota
	OutsideBorder
	OutsideReflect
)

// Scratch of Sample.
const (
	smN     = CtxScratch // u32 per spatial dim
	smC     = CtxScratch + 12
	smP     = CtxScratch + 16
	smPlane = CtxScratch + 20
)

// reflect(x, lo, hi) mirrors x at the borders until it lies between them.
func (l *Lib) reflect() uint32 {
	return l.Fn("reflect", []T{asm.F64, asm.F64, asm.F64}, d1, func(f *asm.Fn) {
		x, lo, hi := f.Param(0), f.Param(1), f.Param(2)
		r := f.Let(hi.Sub(lo.E))
		d, q, e := f.Local(asm.F64), f.Local(asm.F64), f.Local(asm.F64)
		odd := f.Local(asm.I32)
		fold := func(dist E) {
			f.If(r.Eq(asm.CD(0)), func() { f.Return(lo.E) })
			f.Set(d, dist)
			f.Set(q, d.Div(r.E).Trunc())
			f.Set(e, d.Sub(q.Mul(r.E)))
			f.Set(odd, q.Sub(asm.CD(2).Mul(q.Mul(asm.CD(0.5)).Floor())).Ne(asm.CD(0)))
		}
		f.If(x.Lt(lo.E), func() {
			fold(lo.Sub(x.E))
			f.Return(asm.Select(odd.E, hi.Sub(e.E), lo.Add(e.E)))
		})
		f.If(x.Gt(hi.E), func() {
			fold(x.Sub(hi.E))
			f.Return(asm.Select(odd.E, lo.Add(e.E), hi.Sub(e.E)))
		})
		f.Return(x.E)
	})
}

// position(x) is x as an index: bounded, NaN gives 0.
func (l *Lib) position() uint32 {
	return l.Fn("position", d1, []T{asm.I64}, func(f *asm.Fn) {
		x, lim, low := f.Param(0), f.Let(asm.CD(1<<31)), f.Let(asm.CD(-1<<31))
		f.Set(x, asm.PMin(x.E, lim.E))
		f.Set(x, asm.PMax(x.E, low.E))
		f.Return(x.TruncSat(asm.I64, true))
	})
}

// keys(t) is the weight of cubic convolution with A = -0.75 at distance t.
func (l *Lib) keys() uint32 {
	return l.Fn("keys", d1, d1, func(f *asm.Fn) {
		const a = -0.75
		t := f.Param(0)
		f.If(t.Le(asm.CD(1)), func() {
			f.Return(asm.CD(a + 2).Mul(t.E).Sub(asm.CD(a + 3)).Mul(t.E).Mul(t.E).Add(asm.CD(1)))
		})
		f.If(t.Lt(asm.CD(2)), func() {
			f.Return(asm.CD(a).Mul(t.E).Sub(asm.CD(5 * a)).Mul(t.E).Add(asm.CD(8 * a)).Mul(t.E).Sub(asm.CD(4 * a)))
		})
		f.Return(asm.CD(0))
	})
}

// Sample reads X at positions: taps is 1 (nearest), 2 (linear) or 4 (cubic). A unit is one position in all channels.
func Sample(d DT, sp, taps, outside int, align bool) *Kernel {
	return &Kernel{Name: fmt.Sprintf("Sample.%s.%d.%d.%d.%t", d.Name, sp, taps, outside, align), NOut: 1, Parallel: true,
		PrepName: fmt.Sprintf("Sample.%s.%d.%d", d.Name, sp, taps),
		Prep: func(k *K) {
			x, p, y := k.In(0), k.In(1), k.Out(0)
			k.Check(Rank(x).EqI(int64(sp+2)).And(Rank(p).EqI(3)), abi.ErrRank, Rank(x).ExtU(), Rank(p).ExtU())
			k.Check(DimC(p, 0).Eq(DimC(x, 0)).And(DimC(p, 2).EqI(int64(sp))), abi.ErrShape, DimC(p, 0), DimC(p, 2))
			k.SetRank(y, asm.C(3))
			k.SetDimC(y, 0, DimC(x, 0))
			k.SetDimC(y, 1, DimC(x, 1))
			k.SetDimC(y, 2, DimC(p, 1))
			k.Alloc(y, d)
			all := int64(1)
			plane := k.Let(asm.CL(1))
			for i := 0; i < sp; i++ {
				k.Put(asm.M32, k.Ctx.E, smN+uint32(4*i), DimC(x, i+2).Wrap())
				k.Set(plane, plane.Mul(DimC(x, i+2)))
				all *= int64(taps)
			}
			k.Check(plane.NeI(0).Or(k.Numel(y).Eqz()), abi.ErrShape, plane.E, k.Numel(y))
			k.Put(asm.M32, k.Ctx.E, smC, DimC(x, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, smP, DimC(p, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, smPlane, plane.Wrap())
			total := k.Let(DimC(p, 0).Mul(DimC(p, 1)))
			k.If(k.Numel(y).Eqz(), func() { k.Set(total, asm.CL(0)) })
			k.Work(total.E, DimC(x, 1).MulI(3*all+4).AddI(int64(60*sp)))
		},
		Range: func(k *K, lo, hi V) { k.sample(d, sp, taps, outside, align, lo, hi) },
	}
}

func (k *K) sample(d DT, sp, taps, outside int, align bool, lo, hi V) {
	at := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
	c, p, plane := at(smC), at(smP), at(smPlane)
	var n, stride []V
	for i := 0; i < sp; i++ {
		n = append(n, at(smN+uint32(4*i)))
	}
	for i := 0; i < sp; i++ {
		s := k.Let(asm.C(1 << d.Shift))
		for j := i + 1; j < sp; j++ {
			k.Set(s, s.Mul(n[j].E))
		}
		stride = append(stride, s)
	}
	dx, dp, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.Out(0)))
	u, ch, src, dst := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	x, base, frac, low, high := k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64), k.Local(asm.F64)
	ix := k.Local(asm.I64)
	off := make([][]V, sp) // byte offsets, -1 for nothing
	w := make([][]V, sp)
	for i := range off {
		for j := 0; j < taps; j++ {
			off[i] = append(off[i], k.Local(asm.I32))
			w[i] = append(w[i], k.Local(d.C))
		}
	}
	first := 0
	if taps == 4 {
		first = -1
	}
	var nest func(i int, addr E) V
	nest = func(i int, addr E) V {
		acc := k.Local(d.C)
		k.Set(acc, asm.Const(d.C, 0))
		for j := 0; j < taps; j++ {
			term := func() {
				if i == sp-1 {
					k.Set(acc, acc.Add(k.Load(d, addr.Add(off[i][j].E), 0).Mul(w[i][j].E)))
					return
				}
				v := nest(i+1, addr.Add(off[i][j].E))
				k.Set(acc, acc.Add(v.Mul(w[i][j].E)))
			}
			if outside == OutsideZeros {
				k.If(off[i][j].GeS(asm.C(0)), term)
			} else {
				term()
			}
		}
		return acc
	}
	k.While(u.LtU(hi.E), func() {
		for i := 0; i < sp; i++ {
			nf := n[i].ToF(asm.F64, false)
			k.Set(x, asm.MF64.At(dp.Add(u.MulI(int64(8*sp))), uint32(8*i)))
			if taps == 1 {
				k.Set(x, x.Nearest())
			}
			if align {
				k.Set(low, asm.CD(0))
				k.Set(high, nf.Sub(asm.CD(1)))
			} else {
				k.Set(low, asm.CD(-0.5))
				k.Set(high, nf.Sub(asm.CD(0.5)))
			}
			switch outside {
			case OutsideBorder:
				k.If(x.Lt(low.E).Or(x.Gt(high.E)), func() {
					k.Set(base, nf.Sub(asm.CD(1)))
					k.Set(frac, asm.CD(0))
					k.Set(x, asm.PMin(x.E, base.E))
					k.Set(x, asm.PMax(x.E, frac.E))
				})
			case OutsideReflect:
				k.Set(x, asm.Call(asm.F64, k.L.reflect(), x.E, low.E, high.E))
			}
			k.Set(base, x.Floor())
			k.Set(frac, x.Sub(base.E))
			for j := 0; j < taps; j++ {
				k.Set(ix, asm.Call(asm.I64, k.L.position(), base.E).AddI(int64(j+first)))
				k.Set(off[i][j], asm.C(-1))
				clamp := func() {
					k.If(ix.GeS(n[i].ExtU()), func() { k.Set(ix, n[i].ExtU().SubI(1)) })
					k.If(ix.LtS(asm.CL(0)), func() { k.Set(ix, asm.CL(0)) })
				}
				switch outside {
				case OutsideBorder:
					clamp()
				case OutsideReflect:
					k.If(ix.LtS(asm.CL(0)).Or(ix.GeS(n[i].ExtU())), func() {
						k.Set(ix, asm.Call(asm.I64, k.L.position(), asm.Call(asm.F64, k.L.reflect(), ix.ToF(asm.F64, true), low.E, high.E)))
					})
					clamp()
				}
				k.If(ix.GeS(asm.CL(0)).And(ix.LtS(n[i].ExtU())), func() { k.Set(off[i][j], ix.Wrap().Mul(stride[i].E)) })
				var wt E
				switch {
				case taps == 1:
					wt = asm.CD(1)
				case taps == 2 && j == 0:
					wt = asm.CD(1).Sub(frac.E)
				case taps == 2:
					wt = frac.E
				default:
					wt = asm.Call(asm.F64, k.L.keys(), asm.CD(float64(j+first)).Sub(frac.E).Abs())
				}
				if d.C == asm.F32 {
					wt = wt.Demote()
				}
				k.Set(w[i][j], wt)
			}
		}
		k.Set(src, u.DivU(p.E))
		k.Set(dst, dy.Add(src.Mul(c.E).Sub(src.E).Mul(p.E).Add(u.E).ShlI(d.Shift)))
		k.Set(src, dx.Add(src.Mul(c.E).Mul(plane.E).ShlI(d.Shift)))
		k.Up(ch, c.E, func() {
			k.Store(d, dst.E, 0, nest(0, src.E).E)
			k.Set(dst, dst.Add(p.ShlI(d.Shift)))
			k.Set(src, src.Add(plane.ShlI(d.Shift)))
		})
		k.Inc(u, 1)
	})
}

// Det gives determinants of the matrices in input 0 by elimination in f64; output 1 is working space. A unit is a step on a row.
func Det(d DT) *Kernel {
	return &Kernel{Name: "Det." + d.Name, NOut: 2,
		Prep: func(k *K) {
			x, y, t := k.In(0), k.Out(0), k.Out(1)
			r := k.Let(Rank(x))
			k.Check(r.GeU(asm.C(2)), abi.ErrRank, r.ExtU(), asm.CL(2))
			n := k.Let(Dim(x, r.SubI(1)))
			k.Check(n.Eq(Dim(x, r.SubI(2))), abi.ErrShape, n.E, Dim(x, r.SubI(2)))
			k.CopyDims(y, x)
			k.SetRank(y, r.SubI(2))
			k.Alloc(y, d)
			k.SetRank(t, asm.C(2))
			k.SetDimC(t, 0, n.E)
			k.SetDimC(t, 1, n.E)
			k.Alloc(t, dtOf(abi.F64))
			k.Put(asm.M32, k.Ctx.E, CtxScratch, n.Wrap())
			// Of each matrix: its rows are copied, then for each column one pivot is chosen and the rows below lose a multiple of it.
			steps := k.Let(n.Mul(n.AddI(1)))
			k.If(n.Eqz(), func() { k.Set(steps, asm.CL(1)) })
			k.Put(asm.M32, k.Ctx.E, CtxScratch+4, steps.Wrap())
			k.Check(steps.LeS(asm.CL(1<<31-1)), abi.ErrMemory, steps.E, asm.CL(0))
			total := k.Let(k.Numel(y).Mul(steps.E))
			k.Check(total.LeS(asm.CL(1<<31-1)), abi.ErrMemory, total.E, asm.CL(0))
			k.Work(total.E, n.MulI(3).AddI(20))
		},
		Range: func(k *K, lo, hi V) {
			n, steps := k.Let(asm.L32(k.Ctx.E, CtxScratch)), k.Let(asm.L32(k.Ctx.E, CtxScratch+4))
			a := k.Let(Data(k.Out(1)))
			L := func() V { return k.Local(asm.I32) }
			w, u, s, i, j, c, r, best, p, q, src, row := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), k.Let(n.ShlI(3))
			det, top, f, t := k.Let(asm.MF64.At(k.Ctx.E, pcState)), k.Let(asm.MF64.At(k.Ctx.E, pcState+8)), k.Local(asm.F64), k.Local(asm.F64)
			cell := func(r, c E) E { return a.Add(r.Mul(row.E)).Add(c.ShlI(3)) }
			get := func(r, c E) E { return asm.MF64.At(cell(r, c), 0) }
			copyRow := func() {
				k.Set(p, cell(r.E, asm.C(0)))
				k.Set(src, Data(k.In(0)).Add(u.Mul(n.E).Add(r.E).Mul(n.E).ShlI(d.Shift)))
				k.Up(i, n.E, func() {
					v := k.Load(d, src.Add(i.ShlI(d.Shift)), 0)
					if d.C == asm.F32 {
						v = v.Promote()
					}
					k.Put(asm.MF64, p.Add(i.ShlI(3)), 0, v)
				})
			}
			pivot := func() {
				k.Set(best, c.E)
				k.For(i, c.AddI(1), n.E, 1, func() {
					k.If(get(best.E, c.E).Abs().Lt(get(i.E, c.E).Abs()), func() { k.Set(best, i.E) })
				})
				k.If(best.Ne(c.E), func() {
					k.Set(det, det.Neg())
					k.Up(j, n.E, func() {
						k.Set(p, cell(best.E, j.E))
						k.Set(q, cell(c.E, j.E))
						k.Set(t, asm.MF64.At(p.E, 0))
						k.Put(asm.MF64, p.E, 0, asm.MF64.At(q.E, 0))
						k.Put(asm.MF64, q.E, 0, t.E)
					})
				})
				k.Set(top, get(c.E, c.E))
				k.Set(det, det.Mul(top.E))
			}
			eliminate := func() {
				k.Set(i, c.Add(r.E))
				k.If(asm.And2(i.LtU(n.E), top.Ne(asm.CD(0))), func() {
					k.Set(f, get(i.E, c.E).Div(top.E))
					k.For(j, c.AddI(1), n.E, 1, func() {
						k.Put(asm.MF64, cell(i.E, j.E), 0, get(i.E, j.E).Sub(f.Mul(get(c.E, j.E))))
					})
				})
			}
			k.While(w.LtU(hi.E), func() {
				k.Set(u, w.DivU(steps.E))
				k.Set(s, w.Sub(u.Mul(steps.E)))
				k.If(s.Eqz(), func() { k.Set(det, asm.CD(1)) })
				k.If(n.E, func() {
					k.Set(c, s.DivU(n.E))
					k.Set(r, s.Sub(c.Mul(n.E)))
					k.If(c.Eqz(), copyRow, func() {
						k.Inc(c, -1)
						k.If(r.Eqz(), pivot, eliminate)
					})
				})
				k.If(s.AddI(1).Eq(steps.E), func() {
					v := det.E
					if d.C == asm.F32 {
						v = v.Demote()
					}
					k.Store(d, Data(k.Out(0)).Add(u.ShlI(d.Shift)), 0, v)
				})
				k.Inc(w, 1)
			})
			k.Put(asm.MF64, k.Ctx.E, pcState, det.E)
			k.Put(asm.MF64, k.Ctx.E, pcState+8, top.E)
		},
	}
}
