package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Scratch of NonMaxSuppression. The counters move on as units are done, which happens in order.
const (
	nmN     = CtxScratch      // u32 boxes
	nmC     = CtxScratch + 4  // u32 classes
	nmMax   = CtxScratch + 8  // u32 most boxes of a class
	nmCount = CtxScratch + 12 // u32 rows so far
	nmFirst = CtxScratch + 16 // u32 first row of the class
	nmIoU   = CtxScratch + 20 // f32
	nmScore = CtxScratch + 24 // f32
	nmUse   = CtxScratch + 28 // u32: there is a score threshold
)

// overlap(a, b, centre, limit) tells whether boxes a and b have an intersection over union above limit.
func (l *Lib) overlap() uint32 {
	return l.Fn("overlap", []T{asm.I32, asm.I32, asm.I32, asm.F32}, []T{asm.I32}, func(f *asm.Fn) {
		p, q, centre, limit := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		at := func(p V, i int) E { return asm.MF32.At(p.E, uint32(4*i)) }
		v := func() V { return f.Local(asm.F32) }
		// bounds of a box along x (0) or y (1)
		bounds := func(p V, axis int) (V, V) {
			lo, hi, t := v(), v(), v()
			f.If(centre.E, func() {
				f.Set(t, at(p, 2+axis).Div(asm.CF(2)))
				f.Set(lo, at(p, axis).Sub(t.E))
				f.Set(hi, at(p, axis).Add(t.E))
			}, func() {
				f.Set(lo, at(p, 1-axis))
				f.Set(hi, at(p, 3-axis))
				f.If(lo.Ge(hi.E), func() {
					f.Set(t, lo.E)
					f.Set(lo, hi.E)
					f.Set(hi, t.E)
				})
			})
			return lo, hi
		}
		area := []V{f.Let(asm.CF(1)), f.Let(asm.CF(1))}
		inter := f.Let(asm.CF(1))
		for axis := 0; axis < 2; axis++ {
			al, ah := bounds(p, axis)
			bl, bh := bounds(q, axis)
			lo, hi := f.Let(asm.PMax(al.E, bl.E)), f.Let(asm.PMin(ah.E, bh.E))
			f.If(hi.Le(lo.E), func() { f.Return(asm.C(0)) })
			f.Set(inter, inter.Mul(hi.Sub(lo.E)))
			f.Set(area[0], area[0].Mul(ah.Sub(al.E)))
			f.Set(area[1], area[1].Mul(bh.Sub(bl.E)))
		}
		union := f.Let(area[0].Add(area[1].E).Sub(inter.E))
		zero := asm.CF(0)
		f.If(inter.Le(zero).Or(area[0].Le(zero)).Or(area[1].Le(zero)).Or(union.Le(zero)), func() { f.Return(asm.C(0)) })
		f.Return(inter.Div(union.E).Gt(limit.E))
	})
}

// NonMaxSuppression chooses boxes; attr0 tells that boxes are given by their centre. A unit is one candidate.
func NonMaxSuppression() *Kernel {
	return &Kernel{Name: "NonMaxSuppression", NOut: 1,
		Prep: func(k *K) {
			b, s, o, y := k.In(0), k.In(1), k.In(2), k.Out(0)
			k.Check(Rank(b).EqI(3).And(Rank(s).EqI(3)).And(Rank(o).EqI(3)), abi.ErrRank, Rank(b).ExtU(), Rank(s).ExtU())
			k.Check(DimC(b, 2).EqI(4).And(DimC(b, 0).Eq(DimC(s, 0))).And(DimC(b, 1).Eq(DimC(s, 2))), abi.ErrShape, DimC(b, 1), DimC(s, 2))
			k.Check(k.Numel(s).Eq(k.Numel(o)), abi.ErrShape, k.Numel(s), k.Numel(o))
			one := func(i int) V {
				v := k.In(i)
				k.Check(k.Numel(v).EqI(1), abi.ErrShape, k.Numel(v), asm.CL(1))
				return k.Let(Data(v))
			}
			most := k.Let(asm.CL(0))
			k.If(k.HasIn(3), func() { k.Set(most, asm.L64(one(3).E, 0)) })
			k.If(most.LtS(asm.CL(0)), func() { k.Set(most, asm.CL(0)) })
			k.If(most.GtS(DimC(s, 2)), func() { k.Set(most, DimC(s, 2)) })
			put := func(off uint32, v E) { k.Put(asm.M32, k.Ctx.E, off, v) }
			for _, off := range []uint32{nmCount, nmFirst, nmIoU, nmScore, nmUse} {
				put(off, asm.C(0))
			}
			k.If(k.HasIn(4), func() { put(nmIoU, asm.L32(one(4).E, 0)) })
			k.If(k.HasIn(5), func() {
				put(nmScore, asm.L32(one(5).E, 0))
				put(nmUse, asm.C(1))
			})
			put(nmN, DimC(s, 2).Wrap())
			put(nmC, DimC(s, 1).Wrap())
			put(nmMax, most.Wrap())
			k.SetRank(y, asm.C(2))
			rows := k.Let(DimC(s, 0).Mul(DimC(s, 1)))
			k.If(DimC(s, 2).Eqz(), func() { k.Set(rows, asm.CL(0)) })
			k.Check(rows.LeS(asm.CL(1<<31-1)), abi.ErrOverflow, rows.E, most.E)
			k.SetDimC(y, 0, rows.Mul(most.E))
			k.SetDimC(y, 1, asm.CL(3))
			k.Alloc(y, dtOf(abi.I64))
			k.SetDimC(y, 0, asm.CL(0))
			k.Put(asm.M32, y.E, abi.DescBytes, asm.C(0))
			total := k.Let(k.Numel(s))
			k.If(most.Eqz(), func() { k.Set(total, asm.CL(0)) })
			k.Work(total.E, most.MulI(8).AddI(15))
		},
		Range: func(k *K, lo, hi V) {
			ld := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
			n, classes, most, count, first, use := ld(nmN), ld(nmC), ld(nmMax), ld(nmCount), ld(nmFirst), ld(nmUse)
			iou, thr := k.Let(asm.MF32.At(k.Ctx.E, nmIoU)), k.Let(asm.MF32.At(k.Ctx.E, nmScore))
			boxes, scores, order, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.In(2))), k.Let(Data(k.Out(0)))
			L := func() V { return k.Local(asm.I32) }
			u, i, q, batch, j, cand, base, keep, row := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L()
			ix := k.Local(asm.I64)
			k.While(u.LtU(hi.E), func() {
				k.Set(q, u.DivU(n.E))
				k.Set(i, u.Sub(q.Mul(n.E)))
				k.If(i.Eqz(), func() { k.Set(first, count.E) })
				k.Set(keep, count.Sub(first.E).LtU(most.E))
				k.If(keep.And(use.E), func() { k.Set(keep, asm.MF32.At(scores.Add(u.ShlI(2)), 0).Gt(thr.E)) })
				k.If(keep.E, func() {
					k.Set(batch, q.DivU(classes.E))
					k.Set(ix, asm.L64(order.Add(u.ShlI(3)), 0))
					k.Check(ix.GeS(asm.CL(0)).And(ix.LtS(n.ExtU())), abi.ErrIndex, ix.E, n.ExtU())
					k.Set(base, boxes.Add(batch.Mul(n.E).ShlI(4)))
					k.Set(cand, base.Add(ix.Wrap().ShlI(4)))
					k.Set(j, first.E)
					k.While(keep.And(j.LtU(count.E)), func() {
						k.Set(row, base.Add(asm.L64(dy.Add(j.MulI(24)), 16).Wrap().ShlI(4)))
						k.Set(keep, asm.Call(asm.I32, k.L.overlap(), cand.E, row.E, k.Attr32(0), iou.E).Eqz())
						k.Inc(j, 1)
					})
					k.If(keep.E, func() {
						k.Set(row, dy.Add(count.MulI(24)))
						k.Put(asm.M64, row.E, 0, batch.ExtU())
						k.Put(asm.M64, row.E, 8, q.Sub(batch.Mul(classes.E)).ExtU())
						k.Put(asm.M64, row.E, 16, ix.E)
						k.Inc(count, 1)
					})
				})
				k.Inc(u, 1)
			})
			k.Put(asm.M32, k.Ctx.E, nmCount, count.E)
			k.Put(asm.M32, k.Ctx.E, nmFirst, first.E)
			y := k.Out(0)
			k.SetDimC(y, 0, count.ExtU())
			k.Put(asm.M32, y.E, abi.DescBytes, count.MulI(24))
		},
	}
}

// maxRoiGrid bounds the samples of one bin.
const maxRoiGrid = 1 << 16

// RoiAlign pools regions. Attributes: 0 sampling ratio, 1 scale, 2 half pixel, 3 and 4 output size. A unit is an output element.
func RoiAlign(d DT, max bool) *Kernel {
	name := "RoiAlign.avg." + d.Name
	if max {
		name = "RoiAlign.max." + d.Name
	}
	return &Kernel{Name: name, NOut: 1, PrepName: "RoiAlign." + d.Name, Parallel: true,
		Prep: func(k *K) {
			x, r, b, y := k.In(0), k.In(1), k.In(2), k.Out(0)
			k.Check(Rank(x).EqI(4).And(Rank(r).EqI(2)), abi.ErrRank, Rank(x).ExtU(), Rank(r).ExtU())
			k.Check(DimC(r, 1).EqI(4).And(k.Numel(b).Eq(DimC(r, 0))), abi.ErrShape, DimC(r, 1), k.Numel(b))
			k.SetRank(y, asm.C(4))
			k.SetDimC(y, 0, DimC(r, 0))
			k.SetDimC(y, 1, DimC(x, 1))
			k.SetDimC(y, 2, k.Attr(3))
			k.SetDimC(y, 3, k.Attr(4))
			k.Alloc(y, d)
			k.Check(k.Numel(x).NeI(0).Or(k.Numel(y).Eqz()), abi.ErrShape, k.Numel(x), k.Numel(y))
			grid := k.Let(k.Attr(0).Mul(k.Attr(0)))
			k.If(grid.Eqz(), func() { k.Set(grid, DimC(x, 2).Mul(DimC(x, 3)).DivU(k.Attr(3).Mul(k.Attr(4))).AddI(4)) })
			k.Work(k.Numel(y), grid.MulI(25).AddI(60))
		},
		Range: func(k *K, lo, hi V) {
			x := k.In(0)
			F := func() V { return k.Local(asm.F64) }
			L := func() V { return k.Local(asm.I32) }
			h, w, c := k.Let(DimC(x, 2).Wrap()), k.Let(DimC(x, 3).Wrap()), k.Let(DimC(x, 1).Wrap())
			oh, ow := k.Let(k.Attr32(3)), k.Let(k.Attr32(4))
			u, q, t, ph, pw, ch, base, roi := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L()
			ix := k.Local(asm.I64)
			start, bin := [2]V{F(), F()}, [2]V{F(), F()}
			grid := [2]V{k.Local(asm.I64), k.Local(asm.I64)}
			a, b := F(), F()
			pos, l1 := [2]V{F(), F()}, [2]V{F(), F()}
			low, high := [2]V{L(), L()}, [2]V{L(), L()}
			iy, jx, out, started := k.Local(asm.I64), k.Local(asm.I64), L(), L()
			acc, val, prod := k.Local(d.C), k.Local(d.C), k.Local(d.C)
			size := [2]V{h, w}
			k.While(u.LtU(hi.E), func() {
				k.Set(q, u.E)
				split := func(v, by V) {
					k.Set(t, q.DivU(by.E))
					k.Set(v, q.Sub(t.Mul(by.E)))
					k.Set(q, t.E)
				}
				split(pw, ow)
				split(ph, oh)
				split(ch, c)
				k.Set(roi, Data(k.In(1)).Add(q.ShlI(5)))
				k.Set(ix, asm.L64(Data(k.In(2)).Add(q.ShlI(3)), 0))
				k.Index(ix, DimC(x, 0))
				k.Set(base, Data(x).Add(ix.Wrap().Mul(c.E).Add(ch.E).Mul(h.Mul(w.E)).ShlI(d.Shift)))
				for i := 0; i < 2; i++ { // y, then x
					shift := asm.Select(k.Attr32(2), asm.CD(0.5), asm.CD(0))
					k.Set(a, asm.MF64.At(roi.E, uint32(8*(1-i))).Mul(k.AttrF(1)).Sub(shift))
					k.Set(b, asm.MF64.At(roi.E, uint32(8*(3-i))).Mul(k.AttrF(1)).Sub(shift))
					k.Set(start[i], a.E)
					k.Set(b, b.Sub(a.E))
					k.Set(a, asm.CD(1))
					k.If(k.Attr32(2).Eqz(), func() { k.Set(b, asm.PMax(b.E, a.E)) })
					n := oh
					if i == 1 {
						n = ow
					}
					k.Set(bin[i], b.Div(n.ToF(asm.F64, false)))
					k.Set(grid[i], k.Attr(0))
					k.If(grid[i].LeS(asm.CL(0)), func() { k.Set(grid[i], asm.Call(asm.I64, k.L.position(), bin[i].Ceil())) })
					k.If(grid[i].LtS(asm.CL(0)), func() { k.Set(grid[i], asm.CL(0)) })
				}
				k.Check(grid[0].Mul(grid[1].E).LeS(asm.CL(maxRoiGrid)), abi.ErrOverflow, grid[0].E, grid[1].E)
				k.Set(acc, asm.Const(d.C, 0))
				k.Set(started, asm.C(0))
				k.Up(iy, grid[0].E, func() {
					k.Up(jx, grid[1].E, func() {
						for i, s := range []V{iy, jx} {
							p := ph
							if i == 1 {
								p = pw
							}
							k.Set(pos[i], start[i].Add(p.ToF(asm.F64, false).Mul(bin[i].E)).
								Add(s.ToF(asm.F64, true).Add(asm.CD(0.5)).Mul(bin[i].E).Div(grid[i].ToF(asm.F64, true))))
						}
						k.Set(out, asm.C(0))
						for i := 0; i < 2; i++ {
							in := pos[i].Ge(asm.CD(-1)).And(pos[i].Le(size[i].ToF(asm.F64, false)))
							k.Set(out, out.Or(in.Eqz()))
						}
						k.Set(val, asm.Const(d.C, 0))
						k.If(out.Eqz(), func() {
							for i := 0; i < 2; i++ {
								k.Set(a, asm.CD(0))
								k.Set(pos[i], asm.PMax(pos[i].E, a.E))
								k.Set(low[i], pos[i].TruncSat(asm.I32, true))
								k.Set(high[i], low[i].AddI(1))
								k.If(low[i].GeS(size[i].SubI(1)), func() {
									k.Set(low[i], size[i].SubI(1))
									k.Set(high[i], low[i].E)
									k.Set(pos[i], low[i].ToF(asm.F64, true))
								})
								k.Set(l1[i], pos[i].Sub(low[i].ToF(asm.F64, true)))
							}
							for n := 0; n < 4; n++ {
								yy, xx := low[0], low[1]
								fy, fx := asm.CD(1).Sub(l1[0].E), asm.CD(1).Sub(l1[1].E)
								if n >= 2 {
									yy, fy = high[0], l1[0].E
								}
								if n%2 == 1 {
									xx, fx = high[1], l1[1].E
								}
								wt := fy.Mul(fx)
								if d.C == asm.F32 {
									wt = wt.Demote()
								}
								k.Set(prod, k.Load(d, base.Add(yy.Mul(w.E).Add(xx.E).ShlI(d.Shift)), 0).Mul(wt))
								switch {
								case n == 0:
									k.Set(val, prod.E)
								case max:
									k.Set(val, asm.PMax(val.E, prod.E))
								default:
									k.Set(val, val.Add(prod.E))
								}
							}
						})
						if max {
							k.If(started.E, func() { k.Set(acc, asm.PMax(acc.E, val.E)) }, func() { k.Set(acc, val.E) })
							k.Set(started, asm.C(1))
						} else {
							k.If(out.Eqz(), func() { k.Set(acc, acc.Add(val.E)) })
						}
					})
				})
				if !max {
					k.Set(ix, grid[0].Mul(grid[1].E))
					k.If(ix.Eqz(), func() { k.Set(ix, asm.CL(1)) })
					k.Set(acc, acc.Div(ix.ToF(d.C, true)))
				}
				k.Store(d, Data(k.Out(0)).Add(u.ShlI(d.Shift)), 0, acc.E)
				k.Inc(u, 1)
			})
		},
	}
}
