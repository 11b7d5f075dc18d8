package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Sliding windows. Attribute slots: 0 group, 1 auto_pad (0 none, 1 SAME_UPPER, 2 SAME_LOWER), 2 flag of the operator, 3 number of
// spatial dims, then per spatial dim i of three (missing leading dims have kernel 1): 4+8i kernel, +1 stride, +2 begin, +3 end, +4 dilation.
// Inputs of 1 and 2 spatial dims are treated as 3 with leading dims of 1.
const (
	wAttrGroup   = 0
	wAttrAuto    = 1
	wAttrFlag    = 2
	wAttrSpatial = 3
	wAttrDims    = 4
	wAttrStep    = 8

	// Scratch, per spatial dim i: input size, output size, kernel, stride, begin padding, dilation.
	wsIn  = CtxScratch
	wsOut = CtxScratch + 12
	wsK   = CtxScratch + 24
	wsS   = CtxScratch + 36
	wsP   = CtxScratch + 48
	wsD   = CtxScratch + 60
	wsC   = CtxScratch + 72 // channels
	wsM   = CtxScratch + 76 // output channels
	wsG   = CtxScratch + 80 // groups
	wsE   = CtxScratch + 84 // end padding, per spatial dim
	wsOne = CtxScratch + 96 // u32: a 1x1 convolution without padding and strides
)

// windowDims computes the output's spatial dims into y and the scratch. sp is the number of spatial dims of the source
// rank; ceil selects the ceil_mode of pools.
func (k *K) windowDims(x, y V) {
	r := k.Let(Rank(x))
	k.Check(r.Eq(k.Attr32(wAttrSpatial).AddI(2)), abi.ErrRank, r.ExtU(), k.Attr(wAttrSpatial).AddI(2))
	k.CopyDims(y, x)
	n, out, ks, st, b, e, dl, span, free := k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64),
		k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64)
	for i := 0; i < 3; i++ {
		at := func(j int) E { return k.Attr(wAttrDims + wAttrStep*i + j) }
		dim := k.Let(r.AddI(int64(i - 3))) // position of the dim in x; < 2 when it is not there
		k.Set(n, asm.CL(1))
		k.If(dim.GeS(asm.C(2)), func() { k.Set(n, Dim(x, dim.E)) })
		k.Set(ks, at(0))
		k.Set(st, at(1))
		k.Set(b, at(2))
		k.Set(e, at(3))
		k.Set(dl, at(4))
		k.Set(span, ks.SubI(1).Mul(dl.E).AddI(1))
		k.If(asm.And2(k.Attr32(wAttrAuto), dim.GeS(asm.C(2))), func() {
			k.Set(out, n.Add(st.E).SubI(1).DivS(st.E))
			k.Set(free, out.SubI(1).Mul(st.E).Add(span.E).Sub(n.E))
			k.If(free.LtS(asm.CL(0)), func() { k.Set(free, asm.CL(0)) })
			k.Set(b, free.ShrSI(1))
			k.If(k.Attr32(wAttrAuto).EqI(2), func() { k.Set(b, free.Sub(b.E)) })
			k.Set(e, free.Sub(b.E))
		}, func() {
			k.Set(free, n.Add(b.E).Add(e.E).Sub(span.E))
			k.Set(out, asm.CL(0))
			k.If(free.GeS(asm.CL(0)), func() {
				k.Set(out, free.DivS(st.E).AddI(1))
				k.If(asm.And2(k.Attr32(wAttrFlag).AndI(1), free.RemS(st.E).NeI(0).And(out.Mul(st.E).LtS(n.Add(b.E)))), func() { k.Inc(out, 1) })
			}, func() {
				// Rounded up, the quotient is 0 as long as less than a stride is missing: one window, which sticks out.
				fits := free.Add(st.E).GtS(asm.CL(0)).And(n.Add(b.E).GtS(asm.CL(0)))
				k.If(asm.And2(k.Attr32(wAttrFlag).AndI(1), fits), func() { k.Set(out, asm.CL(1)) })
			})
		})
		// Automatic padding of nothing gives nothing.
		k.Check(out.GtS(asm.CL(0)).Or(asm.And2(k.Attr32(wAttrAuto), n.Eqz())), abi.ErrShape, n.E, span.E)
		o := uint32(4 * i)
		for _, v := range []struct {
			off uint32
			v   V
		}{{wsIn, n}, {wsOut, out}, {wsK, ks}, {wsS, st}, {wsP, b}, {wsD, dl}, {wsE, e}} {
			k.Put(asm.M32, k.Ctx.E, v.off+o, v.v.Wrap())
		}
		k.If(dim.GeS(asm.C(2)), func() { k.SetDim(y, dim.E, out.E) })
		k.If(out.Eqz(), func() { k.Put(asm.M32, k.Ctx.E, wsOut+o, asm.C(1)) }) // kernels divide by it; there are no units
	}
}

// Conv convolves X [N,C,...] with W [M,C/g,...], plus B [M] when hasB. A unit is one output row: (n, m, d, h).
func Conv(d DT, hasB bool) *Kernel {
	name := "Conv." + d.Name
	if hasB {
		name += ".b"
	}
	return &Kernel{Name: name, NOut: 1, Parallel: true,
		Prep: func(k *K) {
			x, w, y := k.In(0), k.In(1), k.Out(0)
			k.windowDims(x, y)
			k.Check(Rank(w).Eq(Rank(x)), abi.ErrRank, Rank(w).ExtU(), Rank(x).ExtU())
			k.SetDimC(y, 1, DimC(w, 0))
			k.Check(DimC(w, 1).Mul(k.Attr(wAttrGroup)).Eq(DimC(x, 1)), abi.ErrShape, DimC(w, 1), DimC(x, 1))
			k.Check(DimC(w, 0).RemS(k.Attr(wAttrGroup)).Eqz(), abi.ErrShape, DimC(w, 0), k.Attr(wAttrGroup))
			taps := k.Let(DimC(w, 1))
			for i := 0; i < 3; i++ {
				dim := k.Let(Rank(x).AddI(int64(i - 3)))
				k.If(dim.GeS(asm.C(2)), func() {
					k.Check(Dim(w, dim.E).Eq(k.Attr(wAttrDims+wAttrStep*i)), abi.ErrShape, Dim(w, dim.E), k.Attr(wAttrDims+wAttrStep*i))
					k.Set(taps, taps.Mul(Dim(w, dim.E)))
				})
			}
			if hasB {
				b := k.In(2)
				k.Check(k.Numel(b).Eq(DimC(w, 0)), abi.ErrShape, k.Numel(b), DimC(w, 0))
			}
			k.Put(asm.M32, k.Ctx.E, wsC, DimC(x, 1).Wrap())
			k.Put(asm.M32, k.Ctx.E, wsM, DimC(w, 0).Wrap())
			k.Put(asm.M32, k.Ctx.E, wsG, k.Attr32(wAttrGroup))
			k.Alloc(y, d)
			// A 1x1 convolution is a product over the whole plane as one row.
			one := k.Let(asm.C(1))
			for i := uint32(0); i < 3; i++ {
				at := func(off uint32) E { return asm.L32(k.Ctx.E, off+4*i) }
				k.Set(one, one.And(at(wsK).EqI(1)).And(at(wsS).EqI(1)).And(at(wsP).Or(at(wsE)).Eqz()))
			}
			k.Put(asm.M32, k.Ctx.E, wsOne, one.E)
			k.If(one.E, func() {
				plane := k.Let(asm.L32(k.Ctx.E, wsOut).Mul(asm.L32(k.Ctx.E, wsOut+4)).Mul(asm.L32(k.Ctx.E, wsOut+8)))
				for _, off := range []uint32{wsIn, wsOut} {
					k.Put(asm.M32, k.Ctx.E, off, asm.C(1))
					k.Put(asm.M32, k.Ctx.E, off+4, asm.C(1))
					k.Put(asm.M32, k.Ctx.E, off+8, plane.E)
				}
			})
			// Trailing dims of one column mean nothing: the rows are those of the dim before.
			for range 2 {
				at := func(off uint32) E { return asm.L32(k.Ctx.E, off+8) }
				k.If(at(wsIn).EqI(1).And(at(wsOut).EqI(1)).And(at(wsK).EqI(1)).And(at(wsP).Eqz()), func() {
					for _, off := range []uint32{wsIn, wsOut, wsK, wsS, wsP, wsD} {
						k.Put(asm.M32, k.Ctx.E, off+8, asm.L32(k.Ctx.E, off+4))
						k.Put(asm.M32, k.Ctx.E, off+4, asm.L32(k.Ctx.E, off))
						trivial := int64(1)
						if off == wsP {
							trivial = 0
						}
						k.Put(asm.M32, k.Ctx.E, off, asm.C(trivial))
					}
				})
			}
			ow := k.Let(asm.L32(k.Ctx.E, wsOut+8).ExtU())
			per := k.Let(taps.AddI(4))
			// About two elements a nanosecond side by side, and half of one otherwise.
			k.If(asm.L32(k.Ctx.E, wsS+8).EqI(1).And(ow.GeS(asm.CL(4))), func() { k.Set(per, per.ShrSI(1)) }, func() { k.Set(per, per.ShlI(1)) })
			pieces, cost := k.cutBy(4, ow.E, per.MulI(lineCost(d, 1)))
			k.Work(k.Numel(y).DivS(ow.E).Mul(pieces.E), cost.AddI(40))
		},
		Range: func(k *K, lo, hi V) { k.convRange(d, hasB, lo, hi) },
	}
}

func (k *K) convRange(d DT, hasB bool, lo, hi V) {
	s := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
	sh := d.Shift
	es := int64(1) << sh
	var in, out, ker, str, pad, dil [3]V
	for i := 0; i < 3; i++ {
		o := uint32(4 * i)
		in[i], out[i], ker[i], str[i], pad[i], dil[i] = s(wsIn+o), s(wsOut+o), s(wsK+o), s(wsS+o), s(wsP+o), s(wsD+o)
	}
	c, m, g := s(wsC), s(wsM), s(wsG)
	cg := k.Let(c.DivU(g.E))
	mg := k.Let(m.DivU(g.E))
	dx, dw, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.Out(0)))
	var db V
	if hasB {
		db = k.Let(Data(k.In(2)))
	}
	L := func() V { return k.Local(asm.I32) }
	q, oh, od, oc, n, ic, kd, kh, kw, id, ih, px, pw, po, ow, iw0, t := L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
	xb, wb, iw, bl, kn, b := L(), L(), L(), L(), L(), L()
	taps := k.Let(cg.Mul(ker[0].E).Mul(ker[1].E).Mul(ker[2].E))
	plane := k.Let(in[0].Mul(in[1].E).Mul(in[2].E))
	vec := d.ABI == abi.F32 || d.ABI == abi.F64
	lanes := int64(16) / es
	// Columns [first, last) need no bounds check for any tap.
	first := k.Let(pad[2].Add(str[2].E).SubI(1).DivS(str[2].E))
	last := k.Let(in[2].SubI(1).Sub(ker[2].SubI(1).Mul(dil[2].E)).Add(pad[2].E))
	k.If(last.LtS(asm.C(0)), func() { k.Set(last, asm.C(0)) }, func() { k.Set(last, last.DivS(str[2].E).AddI(1)) })
	k.If(pad[2].LtS(asm.C(0)), func() { k.Set(first, asm.C(0)) })
	k.If(first.GtS(out[2].E), func() { k.Set(first, out[2].E) })
	k.If(last.GtS(out[2].E), func() { k.Set(last, out[2].E) })
	one := s(wsOne)
	wstep := k.Let(str[2].ShlI(sh))
	dstep := k.Let(dil[2].ShlI(sh))
	pstep := k.Let(plane.ShlI(sh))
	kstep := k.Let(ker[0].Mul(ker[1].E).Mul(ker[2].E).ShlI(sh))

	// runs goes through the sum's terms in order: body adds the next kn of them, whose elements lie at px and b, plane and
	// kstep bytes apart; flush ends a block. Terms in the padding are counted but left out. inside says whether
	// column iw of the row is there, nil that all are.
	runs := func(inside func() E, body, flush func()) {
		// some adds n terms, whose elements are xs and bs bytes apart; skip counts n that are left out.
		some := func(n V, xs, bs E) {
			k.While(n.E, func() {
				k.Set(kn, asm.Select(n.LtU(bl.E), n.E, bl.E))
				k.Set(n, n.Sub(kn.E))
				k.Set(bl, bl.Sub(kn.E))
				k.While(kn.E, func() {
					body()
					k.Set(px, px.Add(xs))
					k.Set(b, b.Add(bs))
					k.Inc(kn, -1)
				})
				k.If(bl.Eqz(), func() {
					flush()
					k.Set(bl, asm.C(blockTerms))
				})
			})
		}
		skip := func(n V) {
			k.If(n.LtU(bl.E), func() { k.Set(bl, bl.Sub(n.E)) }, func() {
				flush()
				k.Set(bl, asm.C(blockTerms).Sub(n.Sub(bl.E).RemU(asm.C(blockTerms))))
			})
		}
		k.Set(pw, wb.E)
		k.Set(bl, asm.C(blockTerms))
		k.Up(kd, ker[0].E, func() {
			k.Set(id, od.Mul(str[0].E).Sub(pad[0].E).Add(kd.Mul(dil[0].E)))
			k.Up(kh, ker[1].E, func() {
				k.Set(ih, oh.Mul(str[1].E).Sub(pad[1].E).Add(kh.Mul(dil[1].E)))
				row := id.LtU(in[0].E).And(ih.LtU(in[1].E))
				if inside == nil {
					// All columns are there, and with one channel the taps of a row are one run.
					k.If(cg.EqI(1), func() {
						k.If(row, func() {
							k.Set(px, xb.Add(id.Mul(in[1].E).Add(ih.E).Mul(in[2].E).Add(iw0.E).ShlI(sh)))
							k.Set(b, pw.E)
							k.Set(ic, ker[2].E)
							some(ic, dstep.E, asm.C(es))
						}, func() { skip(ker[2]) })
						k.Set(pw, pw.Add(ker[2].ShlI(sh)))
						k.Set(kw, ker[2].E)
					}, func() { k.Set(kw, asm.C(0)) })
				} else {
					k.Set(kw, asm.C(0))
				}
				k.While(kw.LtU(ker[2].E), func() {
					k.Set(iw, iw0.Add(kw.Mul(dil[2].E)))
					here := row
					if inside != nil {
						here = here.And(inside())
					}
					k.If(here, func() {
						k.Set(px, xb.Add(id.Mul(in[1].E).Add(ih.E).Mul(in[2].E).Add(iw.E).ShlI(sh)))
						k.Set(b, pw.E)
						k.Set(ic, cg.E)
						some(ic, pstep.E, kstep.E)
					}, func() { skip(cg) })
					k.Inc(pw, es)
					k.Inc(kw, 1)
				})
			})
		})
		flush()
	}
	bias := func() E { return k.Load(d, db.Add(oc.ShlI(sh)), 0) }

	begin, vecs := L(), L() // columns at the start and in the middle that belong to the piece
	k.pieceUnits(lo, hi, out[2], func(u, from, to V) {
		k.Set(begin, asm.Select(first.LtS(to.E), first.E, to.E))
		k.Set(vecs, asm.Select(last.LtS(to.E), last.E, to.E))
		k.Set(q, u.E)
		split := func(v V, by V) {
			k.Set(t, q.DivU(by.E))
			k.Set(v, q.Sub(t.Mul(by.E)))
			k.Set(q, t.E)
		}
		split(oh, out[1])
		split(od, out[0])
		split(oc, m)
		k.Set(n, q.E)
		k.Set(po, dy.Add(u.Mul(out[2].E).ShlI(sh)))
		k.Set(xb, dx.Add(n.Mul(c.E).Add(oc.DivU(mg.E).Mul(cg.E)).Mul(plane.E).ShlI(sh)))
		k.Set(wb, dw.Add(oc.Mul(taps.E).ShlI(sh)))
		k.Set(ow, from.E)
		if !d.Half() {
			k.If(one.E, func() {
				k.Set(t, po.Add(from.ShlI(sh)))
				k.Set(ow, to.Sub(from.E))
				k.CallStmt(k.L.blockProduct(d), wb.E, asm.C(es), xb.Add(from.ShlI(sh)), plane.ShlI(sh), asm.C(es), t.E, ow.E, cg.E, asm.C(0))
				if hasB {
					k.CallStmt(k.L.addScalar(d), t.E, ow.E, bias())
				}
				k.Set(ow, to.E)
			})
		}
		x, sum := k.Local(d.C), k.Local(d.C)
		scalar := func(limit E) {
			k.While(ow.LtS(limit), func() {
				k.Set(x, asm.Const(d.C, 0))
				k.Set(sum, asm.Const(d.C, 0))
				k.Set(iw0, ow.Mul(str[2].E).Sub(pad[2].E))
				runs(func() E { return iw.LtU(in[2].E) }, func() {
					k.Set(x, x.Add(k.Load(d, px.E, 0).Mul(k.Load(d, b.E, 0))))
				}, func() {
					k.Set(sum, sum.Add(x.E))
					k.Set(x, asm.Const(d.C, 0))
				})
				if hasB {
					k.Set(sum, sum.Add(bias()))
				}
				k.Store(d, po.Add(ow.ShlI(sh)), 0, sum.E)
				k.Inc(ow, 1)
			})
		}
		scalar(begin.E)
		if vec {
			// side computes len(acc) sums side by side while the columns last.
			side := func(w int, cols int64, t T, zero E, step func(acc []V), put func(sum []V)) {
				var acc, sum []V
				for i := 0; i < w; i++ {
					acc, sum = append(acc, k.Local(t)), append(sum, k.Local(t))
				}
				add := func(a, b E) E {
					if t == asm.V128 {
						return asm.VAdd(d.C, a, b)
					}
					return a.Add(b)
				}
				k.While(ow.AddI(cols).LeS(vecs.E), func() {
					for i := range acc {
						k.Set(acc[i], zero)
						k.Set(sum[i], zero)
					}
					k.Set(iw0, ow.Mul(str[2].E).Sub(pad[2].E))
					runs(nil, func() { step(acc) }, func() {
						for i := range acc {
							k.Set(sum[i], add(sum[i].E, acc[i].E))
							k.Set(acc[i], zero)
						}
					})
					put(sum)
					k.Inc(ow, cols)
				})
			}
			sp := k.Local(asm.V128)
			k.If(str[2].EqI(1), func() {
				for _, w := range []int{4, 1} {
					side(w, int64(w)*lanes, asm.V128, asm.VC(d.C, 0), func(acc []V) {
						k.Set(sp, asm.Splat(d.Mem.At(b.E, 0)))
						for i := range acc {
							k.Set(acc[i], asm.VAdd(d.C, acc[i].E, asm.VMul(d.C, asm.MV.At(px.E, uint32(16*i)), sp.E)))
						}
					}, func(sum []V) {
						if hasB {
							k.Set(sp, asm.Splat(bias()))
						}
						for i := range sum {
							if hasB {
								k.Set(sum[i], asm.VAdd(d.C, sum[i].E, sp.E))
							}
							k.Put(asm.MV, po.Add(ow.ShlI(sh)), uint32(16*i), sum[i].E)
						}
					})
				}
			}, func() {
				// Strided: four outputs at a time, so that their sums overlap.
				wv, q := k.Local(d.C), L()
				side(4, 4, d.C, asm.Const(d.C, 0), func(acc []V) {
					k.Set(wv, d.Mem.At(b.E, 0))
					k.Set(q, px.E)
					for i := range acc {
						k.Set(acc[i], acc[i].Add(d.Mem.At(q.E, 0).Mul(wv.E)))
						if i < 3 {
							k.Set(q, q.Add(wstep.E))
						}
					}
				}, func(sum []V) {
					for i := range sum {
						if hasB {
							k.Set(sum[i], sum[i].Add(bias()))
						}
						k.Put(d.Mem, po.Add(ow.ShlI(sh)), uint32(int64(i)*es), sum[i].E)
					}
				})
			})
		}
		scalar(to.E)
	})
}

// addScalar(p, n, x) adds x to n elements.
func (l *Lib) addScalar(d DT) uint32 {
	return l.Fn("add_scalar."+d.Name, []T{asm.I32, asm.I32, d.C}, nil, func(f *asm.Fn) {
		p, n, x := f.Param(0), f.Param(1), f.Param(2)
		if d.ABI == abi.F32 || d.ABI == abi.F64 {
			lanes := int64(16) >> d.Shift
			v := f.Let(asm.Splat(x.E))
			f.While(n.GeS(asm.C(lanes)), func() {
				f.Put(asm.MV, p.E, 0, asm.VAdd(d.C, asm.MV.At(p.E, 0), v.E))
				f.Inc(p, 16)
				f.Inc(n, -lanes)
			})
		}
		f.While(n.E, func() {
			l.store(f, d, p.E, 0, l.load(d, p.E, 0).Add(x.E))
			f.Inc(p, 1<<d.Shift)
			f.Inc(n, -1)
		})
	})
}

// PoolKind tells pools apart.
type PoolKind int

// Pools.
const (
	MaxPool PoolKind = iota
	MaxPoolIndices
	AveragePool
)

// Pool is MaxPool (with or without indices; attr flag bit 1: column-major indices) or AveragePool (flag bit 2: count the padding).
func Pool(kind PoolKind, d DT) *Kernel {
	nout := 1
	if kind == MaxPoolIndices {
		nout = 2
	}
	return &Kernel{Name: fmt.Sprintf("Pool%d.%s", kind, d.Name), NOut: nout, Parallel: true,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			k.windowDims(x, y)
			k.Alloc(y, d)
			if kind == MaxPoolIndices {
				z := k.Out(1)
				k.CopyDims(z, y)
				k.Alloc(z, dtOf(abi.I64))
			}
			ow := k.Let(asm.L32(k.Ctx.E, wsOut+8).ExtU())
			taps := k.Let(asm.L32(k.Ctx.E, wsK).Mul(asm.L32(k.Ctx.E, wsK+4)).Mul(asm.L32(k.Ctx.E, wsK+8)).ExtU())
			// Several nanoseconds an element: every tap is tested against the borders.
			pieces, cost := k.cutBy(1, ow.E, taps.AddI(2).MulI(lineCost(d, 6)))
			k.Work(k.Numel(y).DivS(ow.E).Mul(pieces.E), cost.AddI(20))
		},
		Range: func(k *K, lo, hi V) {
			s := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
			sh := d.Shift
			var in, out, ker, str, pad, dil, end [3]V
			for i := 0; i < 3; i++ {
				o := uint32(4 * i)
				in[i], out[i], ker[i], str[i], pad[i], dil[i], end[i] = s(wsIn+o), s(wsOut+o), s(wsK+o), s(wsS+o), s(wsP+o), s(wsD+o), s(wsE+o)
			}
			dx, dy := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0)))
			var dz V
			if kind == MaxPoolIndices {
				dz = k.Let(Data(k.Out(1)))
			}
			L := func() V { return k.Local(asm.I32) }
			q, oh, od, t, ow, xb := L(), L(), L(), L(), L(), L()
			var kk, ii [3]V
			for i := range kk {
				kk[i], ii[i] = L(), L()
			}
			plane := k.Let(in[0].Mul(in[1].E).Mul(in[2].E))
			acc, v := k.Local(d.C), k.Local(d.C)
			cnt, idx, pos := L(), L(), L()
			k.pieceUnits(lo, hi, out[2], func(u, from, to V) {
				k.Set(q, u.DivU(out[1].E))
				k.Set(oh, u.Sub(q.Mul(out[1].E)))
				k.Set(t, q.DivU(out[0].E))
				k.Set(od, q.Sub(t.Mul(out[0].E)))
				k.Set(xb, t.Mul(plane.E))
				o := [3]V{od, oh, ow}
				k.For(ow, from.E, to.E, 1, func() {
					if kind == AveragePool {
						k.Set(acc, asm.Const(d.C, 0))
					} else {
						k.Set(acc, d.Lowest())
					}
					k.Set(cnt, asm.C(0))
					k.Set(idx, asm.C(-1))
					var loop func(i int)
					loop = func(i int) {
						if i == 3 {
							if kind == AveragePool {
								// Positions inside the padded input count when the padding counts.
								inside := asm.C(1)
								padded := asm.C(1)
								for j := range ii {
									inside = inside.And(ii[j].LtU(in[j].E))
									padded = padded.And(ii[j].LtS(in[j].Add(end[j].E)))
								}
								k.If(inside, func() {
									k.Set(acc, acc.Add(k.Load(d, dx.Add(xb.Add(ii[0].Mul(in[1].E).Add(ii[1].E).Mul(in[2].E).Add(ii[2].E)).ShlI(sh)), 0)))
									k.Inc(cnt, 1)
								}, func() {
									k.If(k.Attr32(wAttrFlag).AndI(4), func() { k.If(padded, func() { k.Inc(cnt, 1) }) })
								})
								return
							}
							inside := ii[0].LtU(in[0].E).And(ii[1].LtU(in[1].E)).And(ii[2].LtU(in[2].E))
							k.If(inside, func() {
								k.Set(pos, xb.Add(ii[0].Mul(in[1].E).Add(ii[1].E).Mul(in[2].E).Add(ii[2].E)))
								k.Set(v, k.Load(d, dx.Add(pos.ShlI(sh)), 0))
								better := d.Lt(acc.E, v.E)
								if d.Float {
									// The first NaN wins and stays.
									better = asm.Select(acc.Ne(acc.E), asm.C(0), better.Or(v.Ne(v.E)))
								}
								k.If(better.Or(idx.EqI(-1)), func() {
									k.Set(acc, v.E)
									k.Set(idx, pos.E)
								})
							})
							return
						}
						k.Up(kk[i], ker[i].E, func() {
							k.Set(ii[i], o[i].Mul(str[i].E).Sub(pad[i].E).Add(kk[i].Mul(dil[i].E)))
							loop(i + 1)
						})
					}
					loop(0)
					if kind == AveragePool {
						if d.Float {
							k.Set(acc, acc.Div(cnt.ToF(d.C, true)))
						} else {
							k.Set(acc, divide(k, d, acc.E, cntAs(d, cnt)))
						}
					}
					k.Set(t, u.Mul(out[2].E).Add(ow.E))
					k.Store(d, dy.Add(t.ShlI(sh)), 0, acc.E)
					if kind == MaxPoolIndices {
						k.If(k.Attr32(wAttrFlag).AndI(2), func() {
							// Column-major within the spatial dims: position p = (d*H + h)*W + w becomes d + D*(h + H*w).
							k.If(idx.GeS(asm.C(0)), func() {
								base := k.Let(idx.DivU(plane.E).Mul(plane.E))
								r := k.Let(idx.Sub(base.E))
								w := k.Let(r.RemU(in[2].E))
								h := k.Let(r.DivU(in[2].E).RemU(in[1].E))
								dd := k.Let(r.DivU(in[2].Mul(in[1].E)))
								k.Set(idx, base.Add(dd.Add(in[0].Mul(h.Add(in[1].Mul(w.E))))))
							})
						})
						k.Put(asm.M64, dz.Add(t.ShlI(3)), 0, idx.ExtS())
					}
				})
			})
		},
	}
}

func cntAs(d DT, cnt V) E {
	if d.C == asm.I64 {
		return cnt.ExtU()
	}
	return cnt.E
}
