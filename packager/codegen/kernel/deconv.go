package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Attributes of ConvTranspose after those of a window: one output size per dim of three (0: computed), then output padding.
const (
	dAttrShape = wAttrDims + 3*wAttrStep
	dAttrPad   = dAttrShape + 3
)

// ConvTranspose is the transpose of Conv. Attribute wAttrFlag is 1 when output sizes are given. A unit is one output row.
func ConvTranspose(d DT, hasB bool) *Kernel {
	name := "ConvTranspose." + d.Name
	if hasB {
		name += ".b"
	}
	return &Kernel{Name: name, NOut: 1, Parallel: true,
		Prep: func(k *K) {
			x, w, y := k.In(0), k.In(1), k.Out(0)
			r := k.Let(Rank(x))
			k.Check(r.Eq(k.Attr32(wAttrSpatial).AddI(2)).And(Rank(w).Eq(r.E)), abi.ErrRank, r.ExtU(), Rank(w).ExtU())
			k.Check(DimC(w, 0).Eq(DimC(x, 1)).And(DimC(x, 1).RemS(k.Attr(wAttrGroup)).Eqz()), abi.ErrShape, DimC(x, 1), DimC(w, 0))
			k.CopyDims(y, x)
			m := k.Let(DimC(w, 1).Mul(k.Attr(wAttrGroup)))
			k.SetDimC(y, 1, m.E)
			n, out, full, over, b := k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64)
			taps := k.Let(DimC(w, 1))
			for i := 0; i < 3; i++ {
				at := func(j int) E { return k.Attr(wAttrDims + wAttrStep*i + j) }
				dim := k.Let(r.AddI(int64(i - 3)))
				there := dim.GeS(asm.C(2))
				k.Set(n, asm.CL(1))
				k.If(there, func() {
					k.Set(n, Dim(x, dim.E))
					k.Check(Dim(w, dim.E).Eq(at(0)), abi.ErrShape, Dim(w, dim.E), at(0))
				})
				// Each factor is below 2^31.
				k.Set(full, at(1).Mul(n.SubI(1)).Add(k.Attr(dAttrPad+i)).Add(at(0).SubI(1).Mul(at(4))).AddI(1))
				k.Set(b, at(2))
				k.Set(out, full.Sub(b.E).Sub(at(3)))
				k.If(there.And(k.Attr32(wAttrFlag).Or(k.Attr32(wAttrAuto)).NeI(0)), func() {
					k.If(k.Attr32(wAttrFlag), func() { k.Set(out, k.Attr(dAttrShape+i)) }, func() { k.Set(out, n.Mul(at(1))) })
					k.Set(over, full.Sub(out.E))
					k.If(over.LtS(asm.CL(0)), func() { k.Set(over, asm.CL(0)) })
					k.Set(b, over.ShrSI(1))
					k.If(k.Attr32(wAttrAuto).NeI(1), func() { k.Set(b, over.Sub(b.E)) })
				})
				k.Check(out.GtS(asm.CL(0)).And(out.LeS(asm.CL(1<<31-1))).And(n.GtS(asm.CL(0))), abi.ErrShape, n.E, out.E)
				k.Check(b.LeS(asm.CL(1<<31-1)), abi.ErrOverflow, b.E, out.E)
				o := uint32(4 * i)
				for _, v := range []struct {
					off uint32
					e   E
				}{{wsIn, n.E}, {wsOut, out.E}, {wsK, at(0)}, {wsS, at(1)}, {wsP, b.E}, {wsD, at(4)}} {
					k.Put(asm.M32, k.Ctx.E, v.off+o, v.e.Wrap())
				}
				k.If(there, func() { k.SetDim(y, dim.E, out.E) })
			}
			if hasB {
				b := k.In(2)
				k.Check(k.Numel(b).Eq(m.E), abi.ErrShape, k.Numel(b), m.E)
			}
			k.Put(asm.M32, k.Ctx.E, wsC, DimC(x, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, wsM, m.Wrap())
			k.Put(asm.M32, k.Ctx.E, wsG, k.Attr32(wAttrGroup))
			k.Alloc(y, d)
			// A row takes, for each channel, about kernel/stride source rows per dim and kernel passes over each.
			s := func(off uint32) E { return asm.L32(k.Ctx.E, off).ExtU() }
			k.Set(taps, s(wsC).DivU(s(wsG)))
			for i := uint32(0); i < 2; i++ {
				k.Set(taps, taps.Mul(s(wsK+4*i).Add(s(wsS+4*i)).SubI(1).DivU(s(wsS+4*i))))
			}
			k.Set(taps, taps.Mul(s(wsK+8)).Mul(s(wsIn+8).ShlI(1).AddI(8)))
			k.Work(k.Numel(y).DivS(s(wsOut+8)), taps.Add(s(wsOut+8)))
		},
		Range: func(k *K, lo, hi V) { k.deconvRange(d, hasB, lo, hi) },
	}
}

func (k *K) deconvRange(d DT, hasB bool, lo, hi V) {
	s := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
	sh := d.Shift
	var in, out, ker, str, pad, dil [3]V
	for i := 0; i < 3; i++ {
		o := uint32(4 * i)
		in[i], out[i], ker[i], str[i], pad[i], dil[i] = s(wsIn+o), s(wsOut+o), s(wsK+o), s(wsS+o), s(wsP+o), s(wsD+o)
	}
	c, m, g := s(wsC), s(wsM), s(wsG)
	cg, mg := k.Let(c.DivU(g.E)), k.Let(m.DivU(g.E))
	dx, dw, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.Out(0)))
	L := func() V { return k.Local(asm.I32) }
	u, q, t, oh, od, oc, n, ic, kd, kh, kw, id, ih, gi := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
	px, pw, po, row, i0, i1, end, step := L(), L(), L(), L(), L(), L(), L(), L()
	wv := k.Local(d.C)
	ksize := k.Let(ker[0].Mul(ker[1].E).Mul(ker[2].E))
	plane := k.Let(in[0].Mul(in[1].E).Mul(in[2].E))
	k.Set(step, str[2].ShlI(sh))
	// source finds the input position that kernel position kk sends to output position o, or skips.
	source := func(dst, o, kk V, i int, body func()) {
		k.Set(t, o.Add(pad[i].E).Sub(kk.Mul(dil[i].E)))
		k.If(t.GeS(asm.C(0)), func() {
			k.Set(dst, t.DivU(str[i].E))
			k.If(dst.Mul(str[i].E).Eq(t.E).And(dst.LtU(in[i].E)), body)
		})
	}
	k.While(u.LtU(hi.E), func() {
		k.Set(q, u.E)
		split := func(v, by V) {
			k.Set(t, q.DivU(by.E))
			k.Set(v, q.Sub(t.Mul(by.E)))
			k.Set(q, t.E)
		}
		split(oh, out[1])
		split(od, out[0])
		split(oc, m)
		k.Set(n, q.E)
		k.Set(row, dy.Add(u.Mul(out[2].E).ShlI(sh)))
		k.MemFill(row.E, asm.C(0), out[2].ShlI(sh))
		k.Set(gi, oc.DivU(mg.E))
		k.Up(ic, cg.E, func() {
			k.Up(kd, ker[0].E, func() {
				source(id, od, kd, 0, func() {
					k.Up(kh, ker[1].E, func() {
						source(ih, oh, kh, 1, func() {
							k.Set(q, gi.Mul(cg.E).Add(ic.E)) // channel
							k.Set(pw, dw.Add(q.Mul(mg.E).Add(oc.Sub(gi.Mul(mg.E))).Mul(ksize.E).
								Add(kd.Mul(ker[1].E).Add(kh.E).Mul(ker[2].E)).ShlI(sh)))
							k.Set(px, dx.Add(n.Mul(c.E).Add(q.E).Mul(plane.E).Add(id.Mul(in[1].E).Add(ih.E).Mul(in[2].E)).ShlI(sh)))
							k.Up(kw, ker[2].E, func() {
								k.Set(wv, k.Load(d, pw.Add(kw.ShlI(sh)), 0))
								// Columns [i0, i1) of the source land inside the row.
								bound := func(v V, e E) {
									k.Set(t, e)
									k.Set(v, asm.C(0))
									k.If(t.GtS(asm.C(0)), func() { k.Set(v, t.SubI(1).DivU(str[2].E).AddI(1)) })
									k.If(v.GtS(in[2].E), func() { k.Set(v, in[2].E) })
								}
								bound(i0, pad[2].Sub(kw.Mul(dil[2].E)))
								bound(i1, out[2].Add(pad[2].E).Sub(kw.Mul(dil[2].E)))
								k.If(i0.LtS(i1.E), func() {
									k.Set(q, px.Add(i0.ShlI(sh)))
									k.Set(end, px.Add(i1.ShlI(sh)))
									k.Set(po, row.Add(i0.Mul(str[2].E).Sub(pad[2].E).Add(kw.Mul(dil[2].E)).ShlI(sh)))
									k.While(q.LtU(end.E), func() {
										k.Store(d, po.E, 0, k.Load(d, po.E, 0).Add(k.Load(d, q.E, 0).Mul(wv.E)))
										k.Set(po, po.Add(step.E))
										k.Inc(q, 1<<sh)
									})
								})
							})
						})
					})
				})
			})
		})
		if hasB {
			k.CallStmt(k.L.addScalar(d), row.E, out[2].E, k.Load(d, Data(k.In(2)).Add(oc.ShlI(sh)), 0))
		}
		k.Inc(u, 1)
	})
}
