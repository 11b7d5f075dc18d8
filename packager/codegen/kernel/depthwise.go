package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Scratch of a depthwise convolution.
const (
	dwRows   = CtxScratch + 192 // output rows of a unit
	dwStrips = CtxScratch + 196 // units per plane
	dwWidth  = CtxScratch + 200 // floats of a phase of a row
	dwTaps   = CtxScratch + 204

	dwCost = 200000 // of a unit, about
)

// Depthwise is Conv of f32 over at most two spatial dims with one channel per group, constant finite weights and no negative padding.
// Inputs X, W [M,1,kernel...], and B when hasB; output 1 is scratch. A unit is some rows of one output plane. It copies the
// input rows with their padding, columns sorted by phase (column mod stride), so that every tap is a run of neighbours.
func Depthwise(hasB bool) *Kernel {
	name := "Depthwise"
	if hasB {
		name += ".b"
	}
	return &Kernel{Name: name, NOut: 2,
		Prep: func(k *K) {
			x, y, t := k.In(0), k.Out(0), k.Out(1)
			k.windowDims(x, y)
			m, g := k.Let(k.Attr(wAttrM)), k.Let(k.Attr(wAttrGroup))
			k.Check(Rank(x).Eq(k.Attr32(wAttrRank)), abi.ErrRank, Rank(x).ExtU(), k.Attr(wAttrRank))
			k.Check(g.Eq(DimC(x, 1)), abi.ErrShape, g.E, DimC(x, 1))
			k.SetDimC(y, 1, m.E)
			if hasB {
				b := k.In(2)
				k.Check(k.Numel(b).Eq(m.E), abi.ErrShape, k.Numel(b), m.E)
			}
			k.Put(asm.M32, k.Ctx.E, wsC, DimC(x, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, wsM, m.Wrap())
			k.Put(asm.M32, k.Ctx.E, wsG, g.Wrap())
			k.Alloc(y, dtOf(abi.F32))
			at := func(off uint32, i int) V { return k.Let(asm.L32(k.Ctx.E, off+4*uint32(i)).ExtU()) }
			oh, ow, kh, kw, sh, sw, dh, dw := at(wsOut, 1), at(wsOut, 2), at(wsK, 1), at(wsK, 2), at(wsS, 1), at(wsS, 2), at(wsD, 1), at(wsD, 2)
			taps := k.Let(kh.Mul(kw.E))
			wide := k.Let(ow.AddI(15).AndI(-16))
			width := k.Let(wide.Add(kw.SubI(1).Mul(dw.E).DivS(sw.E)).AddI(1))
			each := k.Let(wide.Mul(taps.AddI(8).Add(sw.E)).ShrSI(2).AddI(20))
			rows := k.Let(asm.CL(dwCost).DivS(each.E))
			k.If(rows.LtS(asm.CL(1)), func() { k.Set(rows, asm.CL(1)) })
			k.If(rows.GtS(oh.E), func() { k.Set(rows, oh.E) })
			strips := k.Let(oh.Add(rows.E).SubI(1).DivS(rows.E))
			for _, v := range []struct {
				off uint32
				v   V
			}{{dwRows, rows}, {dwStrips, strips}, {dwWidth, width}, {dwTaps, taps}} {
				k.Put(asm.M32, k.Ctx.E, v.off, v.v.Wrap())
			}
			height := k.Let(rows.SubI(1).Mul(sh.E).Add(kh.SubI(1).Mul(dh.E)).AddI(1))
			// DepthwiseScratch counts the same.
			k.AllocBytes(t, height.Mul(sw.E).Mul(width.E).Add(taps.MulI(5)).AddI(32).ShlI(2))
			k.Put(asm.M32, t.E, abi.DescKind, asm.C(0))
			k.SetRank(t, asm.C(0))
			k.Work(DimC(x, 0).Mul(m.E).Mul(strips.E), rows.Mul(each.E).ShlI(1))
		},
		Range: func(k *K, lo, hi V) { k.depthwiseRange(hasB, lo, hi) },
	}
}

func (k *K) depthwiseRange(hasB bool, lo, hi V) {
	s := func(off uint32, i int) V { return k.Let(asm.L32(k.Ctx.E, off+4*uint32(i))) }
	ih, iw, oh, ow, kh, kw := s(wsIn, 1), s(wsIn, 2), s(wsOut, 1), s(wsOut, 2), s(wsK, 1), s(wsK, 2)
	sh, sw, ph, pw, dh, dw := s(wsS, 1), s(wsS, 2), s(wsP, 1), s(wsP, 2), s(wsD, 1), s(wsD, 2)
	c, m, g := s(wsC, 0), s(wsM, 0), s(wsG, 0)
	per, strips, width, taps := s(dwRows, 0), s(dwStrips, 0), s(dwWidth, 0), s(dwTaps, 0)
	mg := k.Let(m.DivU(g.E))
	dx, dwt, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.Out(0)))
	L := func() V { return k.Local(asm.I32) }
	// Scratch: spread weights, one odd end of a row, the taps' offsets, rows.
	spread := k.Let(Data(k.Out(1)))
	end := k.Let(spread.Add(taps.ShlI(4)))
	offs := k.Let(end.AddI(64))
	img := k.Let(offs.Add(taps.ShlI(2)))
	line := k.Let(sw.Mul(width.E).ShlI(2)) // bytes of a copied row
	i, j, p, q, col := L(), L(), L(), L(), L()
	k.Set(p, offs.E)
	k.Up(i, kh.E, func() {
		k.Up(j, kw.E, func() {
			k.Set(q, j.Mul(dw.E))
			k.Put(asm.M32, p.E, 0, i.Mul(dh.E).Mul(line.E).Add(q.RemU(sw.E).Mul(width.E).Add(q.DivU(sw.E)).ShlI(2)))
			k.Inc(p, 4)
		})
	})
	u, oc, plane, row, rows, x0, y0, base, cols, left, n, wp, r := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
	bias, sp := k.Local(asm.V128), k.Local(asm.V128)
	k.While(u.LtU(hi.E), func() {
		k.Set(plane, u.DivU(strips.E))
		k.Set(row, u.Sub(plane.Mul(strips.E)).Mul(per.E))
		k.Set(rows, oh.Sub(row.E))
		k.If(rows.GtU(per.E), func() { k.Set(rows, per.E) })
		k.Set(oc, plane.RemU(m.E))
		k.Set(x0, dx.Add(plane.DivU(m.E).Mul(c.E).Add(oc.DivU(mg.E)).Mul(ih.Mul(iw.E)).ShlI(2)))
		k.Set(y0, dy.Add(plane.Mul(oh.E).Add(row.E).Mul(ow.E).ShlI(2)))
		k.CallStmt(k.L.spreadRun(), spread.E, asm.C(16), dwt.Add(oc.Mul(taps.E).ShlI(2)), asm.C(4), taps.E)
		if hasB {
			k.Set(bias, asm.Splat(asm.MF32.At(Data(k.In(2)).Add(oc.ShlI(2)), 0)))
		}
		// Copy the rows.
		k.Set(n, rows.SubI(1).Mul(sh.E).Add(kh.SubI(1).Mul(dh.E)).AddI(1))
		k.MemFill(img.E, asm.C(0), n.Mul(line.E))
		k.Up(i, n.E, func() {
			k.Set(r, row.Mul(sh.E).Sub(ph.E).Add(i.E))
			k.If(r.LtU(ih.E), func() {
				k.Set(base, img.Add(i.Mul(line.E)))
				k.Set(p, x0.Add(r.Mul(iw.E).ShlI(2)))
				k.If(sw.EqI(1), func() {
					k.Set(cols, asm.Select(iw.LtS(width.Sub(pw.E)), iw.E, width.Sub(pw.E)))
					k.MemCopy(base.Add(pw.ShlI(2)), p.E, cols.ShlI(2))
				}, func() {
					k.Set(q, pw.RemU(sw.E))
					k.Set(j, pw.DivU(sw.E))
					k.Up(col, iw.E, func() {
						k.If(j.LtU(width.E), func() {
							k.Put(asm.MF32, base.Add(q.Mul(width.E).Add(j.E).ShlI(2)), 0, asm.MF32.At(p.E, 0))
						})
						k.Inc(p, 4)
						k.Inc(q, 1)
						k.If(q.Eq(sw.E), func() {
							k.Set(q, asm.C(0))
							k.Inc(j, 1)
						})
					})
				})
			})
		})
		k.Up(r, rows.E, func() {
			k.Set(base, img.Add(r.Mul(sh.E).Mul(line.E)))
			k.Set(cols, ow.E)
			group := func(w int) {
				var acc, sum []V
				for range w {
					acc, sum = append(acc, k.Local(asm.V128)), append(sum, k.Local(asm.V128))
				}
				for i := range sum {
					k.Set(sum[i], vc(0))
				}
				k.Set(p, offs.E)
				k.Set(wp, spread.E)
				k.Set(left, taps.E)
				k.While(left.E, func() {
					k.Set(n, asm.Select(left.LtU(asm.C(blockTerms)), left.E, asm.C(blockTerms)))
					k.Set(left, left.Sub(n.E))
					for i := range acc {
						k.Set(acc[i], vc(0))
					}
					k.While(n.E, func() {
						k.Set(q, base.Add(asm.L32(p.E, 0)))
						k.Set(sp, asm.MV.At(wp.E, 0))
						k.Do(asm.M8U.At(q.E, uint32(16*w-1)))
						for i := range acc {
							k.Set(acc[i], vadd(acc[i].E, vmul(sp.E, asm.MV.At(q.E, uint32(16*i)))))
						}
						k.Inc(p, 4)
						k.Inc(wp, 16)
						k.Inc(n, -1)
					})
					for i := range sum {
						k.Set(sum[i], vadd(sum[i].E, acc[i].E))
					}
				})
				if hasB {
					for i := range sum {
						k.Set(sum[i], vadd(sum[i].E, bias.E))
					}
				}
				k.If(cols.GeU(asm.C(int64(4*w))), func() {
					for i := range sum {
						k.Put(asm.MV, y0.E, uint32(16*i), sum[i].E)
					}
					k.Inc(y0, int64(16*w))
					k.Inc(base, int64(16*w))
					k.Inc(cols, int64(-4*w))
				}, func() {
					for i := range sum {
						k.Put(asm.MV, end.E, uint32(16*i), sum[i].E)
					}
					k.MemCopy(y0.E, end.E, cols.ShlI(2))
					k.Set(y0, y0.Add(cols.ShlI(2)))
					k.Set(cols, asm.C(0))
				})
			}
			k.While(cols.GtU(asm.C(8)), func() { group(4) })
			k.If(cols.E, func() { group(2) })
		})
		k.Inc(u, 1)
	})
}
