package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Attributes of a packed convolution behind those of the window: filters, channels per group, rank.
const (
	wAttrM    = wAttrDims + 3*wAttrStep
	wAttrCG   = wAttrM + 1
	wAttrRank = wAttrM + 2
)

// ConvPacked is Conv of f32 with constant finite weights, as a product: the rows are output positions of an image and group, the terms
// those of docs/numerics.md (position in the kernel, then channel; zeros for the padding), the columns filters. Inputs X, the
// panels group after group, and B when hasB; output 1 is scratch.
func ConvPacked(hasB bool) *Kernel {
	name := "ConvPacked"
	if hasB {
		name += ".b"
	}
	return &Kernel{Name: name, NOut: 2,
		Prep: func(k *K) {
			x, y, t := k.In(0), k.Out(0), k.Out(1)
			k.windowDims(x, y)
			m, cg, g := k.Let(k.Attr(wAttrM)), k.Let(k.Attr(wAttrCG)), k.Let(k.Attr(wAttrGroup))
			k.Check(Rank(x).Eq(k.Attr32(wAttrRank)), abi.ErrRank, Rank(x).ExtU(), k.Attr(wAttrRank))
			k.Check(cg.Mul(g.E).Eq(DimC(x, 1)), abi.ErrShape, cg.E, DimC(x, 1))
			k.SetDimC(y, 1, m.E)
			if hasB {
				b := k.In(2)
				k.Check(k.Numel(b).Eq(m.E), abi.ErrShape, k.Numel(b), m.E)
			}
			k.Put(asm.M32, k.Ctx.E, wsC, DimC(x, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, wsM, m.Wrap())
			k.Put(asm.M32, k.Ctx.E, wsG, g.Wrap())
			k.Alloc(y, dtOf(abi.F32))
			at := func(off uint32, i int) E { return asm.L32(k.Ctx.E, off+4*uint32(i)) }
			three := func(off uint32) E { return at(off, 0).Mul(at(off, 1)).Mul(at(off, 2)).ExtU() }
			// Without padding and strides, a 1x1 convolution is over the plane as one row.
			one := k.Let(asm.C(1))
			for i := 0; i < 3; i++ {
				k.Set(one, one.And(at(wsK, i).EqI(1)).And(at(wsS, i).EqI(1)).And(at(wsP, i).Or(at(wsE, i)).Eqz()))
			}
			positions := k.Let(three(wsOut))
			k.If(one.E, func() {
				for _, off := range []uint32{wsIn, wsOut} {
					k.Put(asm.M32, k.Ctx.E, off, asm.C(1))
					k.Put(asm.M32, k.Ctx.E, off+4, asm.C(1))
					k.Put(asm.M32, k.Ctx.E, off+8, positions.Wrap())
				}
			})
			terms := k.Let(cg.Mul(three(wsK)))
			k.packedWork(t, k.Let(DimC(x, 0).Mul(g.E)), positions, terms, k.Let(m.DivS(g.E)))
		},
		Range: func(k *K, lo, hi V) { k.convPackedRange(hasB, lo, hi) },
	}
}

func (k *K) convPackedRange(hasB bool, lo, hi V) {
	s := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
	var in, out, ker, str, pad, dil [3]V
	for i := 0; i < 3; i++ {
		o := uint32(4 * i)
		in[i], out[i], ker[i], str[i], pad[i], dil[i] = s(wsIn+o), s(wsOut+o), s(wsK+o), s(wsS+o), s(wsP+o), s(wsD+o)
	}
	c, m, g, terms, blocks, panels := s(wsC), s(wsM), s(wsG), s(ppK), s(ppBlk), s(ppNP)
	cg, mg := k.Let(c.DivU(g.E)), k.Let(m.DivU(g.E))
	plane := k.Let(in[0].Mul(in[1].E).Mul(in[2].E))
	positions := k.Let(out[0].Mul(out[1].E).Mul(out[2].E))
	dx, dw, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.Out(0)))
	var db V
	if hasB {
		db = k.Let(Data(k.In(2)))
	}
	pstep := k.Let(plane.ShlI(2))
	L := func() V { return k.Local(asm.I32) }
	grp, img, xb, od, oh, ow, kd, kh, kw, id, ih, iw, dst, r, side, od0, oh0, ow0 := L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
	split := func(image V) {
		k.Set(img, image.DivU(g.E))
		k.Set(grp, image.Sub(img.Mul(g.E)))
	}
	weights := func(image V) E {
		return dw.Add(image.RemU(g.E).Mul(panels.E).Mul(blocks.E).MulI(blockTerms * panelBytes))
	}
	source := func() E { return xb.Add(id.Mul(in[1].E).Add(ih.E).Mul(in[2].E).Add(iw.E).ShlI(2)) }
	fill := func(t packedTile) {
		step := int64(16 * t.mr)
		split(t.image)
		k.Set(xb, dx.Add(img.Mul(c.E).Add(grp.Mul(cg.E)).Mul(plane.E).ShlI(2)))
		k.Set(ow0, t.row.RemU(out[2].E))
		k.Set(oh0, t.row.DivU(out[2].E))
		k.Set(od0, oh0.DivU(out[1].E))
		k.Set(oh0, oh0.RemU(out[1].E))
		k.Set(dst, t.a.E)
		// Neighbours of one row lie side by side in the input too.
		neighbours := k.Let(str[2].EqI(1).And(t.rows.EqI(int64(t.mr))).And(ow0.AddI(int64(t.mr)).LeU(out[2].E)))
		k.Up(kd, ker[0].E, func() {
			k.Up(kh, ker[1].E, func() {
				k.Up(kw, ker[2].E, func() {
					k.Set(side, asm.C(0))
					k.If(neighbours.E, func() {
						k.Set(id, od0.Mul(str[0].E).Sub(pad[0].E).Add(kd.Mul(dil[0].E)))
						k.Set(ih, oh0.Mul(str[1].E).Sub(pad[1].E).Add(kh.Mul(dil[1].E)))
						k.Set(iw, ow0.Sub(pad[2].E).Add(kw.Mul(dil[2].E)))
						k.If(id.LtU(in[0].E).And(ih.LtU(in[1].E)), func() {
							k.If(iw.GeS(asm.C(0)).And(iw.AddI(int64(t.mr)).LeS(in[2].E)), func() {
								k.CallStmt(k.L.spreadSide(t.mr), dst.E, source(), pstep.E, cg.E)
								k.Set(side, asm.C(1))
							})
						}, func() {
							k.MemFill(dst.E, asm.C(0), cg.MulI(step))
							k.Set(side, asm.C(1))
						})
					})
					k.If(side.Eqz(), func() {
						k.Set(od, od0.E)
						k.Set(oh, oh0.E)
						k.Set(ow, ow0.E)
						k.Up(r, t.rows.E, func() {
							k.Set(id, od.Mul(str[0].E).Sub(pad[0].E).Add(kd.Mul(dil[0].E)))
							k.Set(ih, oh.Mul(str[1].E).Sub(pad[1].E).Add(kh.Mul(dil[1].E)))
							k.Set(iw, ow.Mul(str[2].E).Sub(pad[2].E).Add(kw.Mul(dil[2].E)))
							k.If(id.LtU(in[0].E).And(ih.LtU(in[1].E)).And(iw.LtU(in[2].E)), func() {
								k.CallStmt(k.L.spreadRun(), dst.Add(r.ShlI(4)), asm.C(step), source(), pstep.E, cg.E)
							}, func() {
								k.CallStmt(k.L.zeroRun(), dst.Add(r.ShlI(4)), asm.C(step), cg.E)
							})
							k.Inc(ow, 1)
							k.If(ow.Eq(out[2].E), func() {
								k.Set(ow, asm.C(0))
								k.Inc(oh, 1)
								k.If(oh.Eq(out[1].E), func() {
									k.Set(oh, asm.C(0))
									k.Inc(od, 1)
								})
							})
						})
					})
					k.Set(dst, dst.Add(cg.MulI(step)))
				})
			})
		})
		k.zeroRest(t, terms)
	}
	col, last, src, py, q := L(), L(), L(), L(), L()
	b := k.Local(asm.F32)
	store := func(t packedTile) {
		split(t.image)
		k.Set(col, t.panel.ShlI(3))
		k.Set(last, col.Add(t.np.ShlI(3)))
		k.If(last.GtU(mg.E), func() { k.Set(last, mg.E) })
		k.Set(q, img.Mul(m.E).Add(grp.Mul(mg.E)).Add(col.E))
		k.Set(py, dy.Add(q.Mul(positions.E).Add(t.row.E).ShlI(2)))
		if hasB {
			k.Set(q, db.Add(grp.Mul(mg.E).Add(col.E).ShlI(2)))
		}
		k.Set(src, t.sums.E)
		k.While(col.LtU(last.E), func() {
			sum := func(at E, off uint32) E {
				if hasB {
					return asm.MF32.At(at, off).Add(b.E)
				}
				return asm.MF32.At(at, off)
			}
			if hasB {
				k.Set(b, asm.MF32.At(q.E, 0))
				k.Inc(q, 4)
			}
			k.If(t.rows.EqI(int64(t.mr)), func() {
				for i := 0; i < t.mr; i++ {
					k.Put(asm.MF32, py.E, uint32(4*i), sum(src.E, uint32(i*panelBytes)))
				}
			}, func() {
				k.Up(r, t.rows.E, func() {
					k.Put(asm.MF32, py.Add(r.ShlI(2)), 0, sum(src.Add(r.MulI(panelBytes)), 0))
				})
			})
			k.Set(py, py.Add(positions.ShlI(2)))
			k.Inc(src, 4)
			k.Inc(col, 1)
			// The next panel lies behind the other rows of this one.
			k.If(col.AndI(PanelCols-1).Eqz(), func() { k.Inc(src, int64((t.mr-1)*panelBytes)) })
		})
	}
	k.packedRange(lo, hi, weights, fill, store)
}
