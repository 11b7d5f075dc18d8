package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Matrix products: BLK over k for each output element (docs/numerics.md), vectorised over columns.

// blockTerms is the length of the blocks of a blocked sum.
const blockTerms = 16

// Scratch of a product.
const (
	mmM  = CtxScratch
	mmK  = CtxScratch + 4
	mmN  = CtxScratch + 8
	mmAM = CtxScratch + 12 // element strides
	mmAK = CtxScratch + 16
	mmBK = CtxScratch + 20
	mmBN = CtxScratch + 24
	mmNB = CtxScratch + 28 // column blocks per row
	mmND = CtxScratch + 32 // leading dims
	mmD  = CtxScratch + 64 // u32[8], innermost first
	mmSA = CtxScratch + 96
	mmSB = CtxScratch + 128
	mmCM = CtxScratch + 160 // element strides of C in Gemm
	mmCN = CtxScratch + 164

	mmBlock = 64 // columns of a unit
)

// blockProduct(pa, sak, pb, sbk, sbn, pc, n, kk, cont) writes n elements of one output row: pc[j] = BLK over k of a[k]*b[k][j], going on
// with pc[j] when cont is 1 (not for 16-bit floats, whose sums do not fit there). Strides are in bytes.
func (l *Lib) blockProduct(d DT) uint32 {
	i32 := asm.I32
	return l.Fn("block_product."+d.Name, []T{i32, i32, i32, i32, i32, i32, i32, i32, i32}, nil, func(f *asm.Fn) {
		pa, sak, pb, sbk, sbn, pc, n, kk, cont := f.Param(0), f.Param(1), f.Param(2), f.Param(3), f.Param(4), f.Param(5), f.Param(6), f.Param(7), f.Param(8)
		a, b, k, left := f.Local(i32), f.Local(i32), f.Local(i32), f.Local(i32)
		es := int64(1) << d.Shift
		blocks := func(start, step, end func()) {
			f.Set(a, pa.E)
			f.Set(b, pb.E)
			f.Set(left, kk.E)
			f.While(left.E, func() {
				f.Set(k, asm.Select(left.LtU(asm.C(blockTerms)), left.E, asm.C(blockTerms)))
				f.Set(left, left.Sub(k.E))
				start()
				f.While(k.E, func() {
					step()
					f.Set(a, a.Add(sak.E))
					f.Set(b, b.Add(sbk.E))
					f.Inc(k, -1)
				})
				end()
			})
		}
		if d.ABI == abi.F32 || d.ABI == abi.F64 {
			lanes := 16 / es
			f.If(sbn.EqI(es), func() {
				for _, w := range []int{4, 1} {
					var acc, sum []V
					for i := 0; i < w; i++ {
						acc, sum = append(acc, f.Local(asm.V128)), append(sum, f.Local(asm.V128))
					}
					s := f.Local(asm.V128)
					f.While(n.GeS(asm.C(int64(w)*lanes)), func() {
						for i := range sum {
							f.Set(sum[i], asm.VC(d.C, 0))
						}
						f.If(cont.E, func() {
							for i := range sum {
								f.Set(sum[i], asm.MV.At(pc.E, uint32(16*i)))
							}
						})
						blocks(func() {
							for i := range acc {
								f.Set(acc[i], asm.VC(d.C, 0))
							}
						}, func() {
							f.Set(s, asm.Splat(d.Mem.At(a.E, 0)))
							for i := range acc {
								f.Set(acc[i], asm.VAdd(d.C, acc[i].E, asm.VMul(d.C, s.E, asm.MV.At(b.E, uint32(16*i)))))
							}
						}, func() {
							for i := range acc {
								f.Set(sum[i], asm.VAdd(d.C, sum[i].E, acc[i].E))
							}
						})
						for i := range sum {
							f.Put(asm.MV, pc.E, uint32(16*i), sum[i].E)
						}
						f.Inc(pc, int64(w)*16)
						f.Inc(pb, int64(w)*16)
						f.Inc(n, -int64(w)*lanes)
					})
				}
			})
		}
		x, sum := f.Local(d.C), f.Local(d.C)
		f.While(n.GtS(asm.C(0)), func() {
			f.Set(sum, asm.Const(d.C, 0))
			f.If(cont.E, func() { f.Set(sum, l.load(d, pc.E, 0)) })
			blocks(func() { f.Set(x, asm.Const(d.C, 0)) }, func() {
				f.Set(x, x.Add(l.load(d, a.E, 0).Mul(l.load(d, b.E, 0))))
			}, func() { f.Set(sum, sum.Add(x.E)) })
			l.store(f, d, pc.E, 0, sum.E)
			f.Inc(pc, es)
			f.Set(pb, pb.Add(sbn.E))
			f.Inc(n, -1)
		})
	})
}

// finishProduct allocates y and states the work from M, K, N in the scratch.
func (k *K) finishProduct(y V, d DT, m, kk, n V, batches E) {
	k.Alloc(y, d)
	k.Put(asm.M32, k.Ctx.E, mmM, m.Wrap())
	k.Put(asm.M32, k.Ctx.E, mmK, kk.Wrap())
	k.Put(asm.M32, k.Ctx.E, mmN, n.Wrap())
	nb := k.Let(n.AddI(mmBlock - 1).DivS(asm.CL(mmBlock)))
	k.Put(asm.M32, k.Ctx.E, mmNB, nb.Wrap())
	w := k.Let(n.E)
	k.If(w.GtS(asm.CL(mmBlock)), func() { k.Set(w, asm.CL(mmBlock)) })
	// Side by side some columns a nanosecond, one after the other one in about two.
	per := k.Let(w.MulI(2 * lineCost(d, 1)))
	if d.ABI == abi.F32 || d.ABI == abi.F64 {
		k.If(asm.And2(w.GeS(asm.CL(4)), asm.L32(k.Ctx.E, mmBN).EqI(1)), func() { k.Set(per, w.ShrSI(4-d.Shift).MulI(2).AddI(2)) })
	}
	units := k.Let(batches.Mul(m.E).Mul(nb.E))
	if d.Half() {
		// Their sums cannot be kept in the output.
		k.Put(asm.M32, k.Ctx.E, pcCount, asm.C(1))
		k.Put(asm.M32, k.Ctx.E, pcLen, kk.Wrap())
		k.Work(units.E, kk.AddI(8).Mul(per.E))
		return
	}
	k.lineWork(units.E, kk.E, per.E, w.AddI(40))
}

// MatMul is numpy's matmul.
func MatMul(d DT) *Kernel {
	return &Kernel{Name: "MatMul." + d.Name, NOut: 1, Parallel: true,
		Prep: func(k *K) {
			a, b, y := k.In(0), k.In(1), k.Out(0)
			ra, rb := k.Let(Rank(a)), k.Let(Rank(b))
			k.Check(ra.NeI(0).And(rb.NeI(0)), abi.ErrRank, ra.ExtU(), rb.ExtU())
			m, kk, n := k.Let(asm.CL(1)), k.Local(asm.I64), k.Let(asm.CL(1))
			la, lb := k.Let(asm.C(0)), k.Let(asm.C(0)) // leading dims
			k.Set(kk, Dim(a, ra.SubI(1)))
			k.If(ra.GtU(asm.C(1)), func() {
				k.Set(m, Dim(a, ra.SubI(2)))
				k.Set(la, ra.SubI(2))
			})
			kb := k.Let(Dim(b, asm.C(0)))
			k.If(rb.GtU(asm.C(1)), func() {
				k.Set(kb, Dim(b, rb.SubI(2)))
				k.Set(n, Dim(b, rb.SubI(1)))
				k.Set(lb, rb.SubI(2))
			})
			k.Check(kk.Eq(kb.E), abi.ErrShape, kk.E, kb.E)
			r := k.Let(asm.Select(la.GtU(lb.E), la.E, lb.E))
			k.Put(asm.M32, k.Ctx.E, mmND, r.E)
			i, q := k.Let(r.E), k.Local(asm.I32)
			da, db, e := k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I64)
			p := k.Let(k.Ctx.E)
			sa, sb := k.Let(m.Mul(kk.E)), k.Let(kk.Mul(n.E))
			batches := k.Let(asm.CL(1))
			k.While(i.E, func() {
				k.Inc(i, -1)
				k.Set(da, asm.CL(1))
				k.Set(db, asm.CL(1))
				k.Set(q, i.Sub(r.Sub(la.E)))
				k.If(q.GeS(asm.C(0)), func() { k.Set(da, Dim(a, q.E)) })
				k.Set(q, i.Sub(r.Sub(lb.E)))
				k.If(q.GeS(asm.C(0)), func() { k.Set(db, Dim(b, q.E)) })
				k.Check(da.EqI(1).Or(db.EqI(1)).Or(da.Eq(db.E)), abi.ErrShape, da.E, db.E)
				k.Set(e, asm.Select(da.EqI(1), db.E, da.E))
				k.SetDim(y, i.E, e.E)
				k.Put(asm.M32, p.E, mmD, e.Wrap())
				k.Put(asm.M32, p.E, mmSA, asm.Select(da.EqI(1), asm.CL(0), sa.E).Wrap())
				k.Put(asm.M32, p.E, mmSB, asm.Select(db.EqI(1), asm.CL(0), sb.E).Wrap())
				k.Set(sa, sa.Mul(da.E))
				k.Set(sb, sb.Mul(db.E))
				k.Set(batches, batches.Mul(e.E))
				k.Inc(p, 4)
			})
			k.Set(i, r.E)
			k.If(ra.GtU(asm.C(1)), func() {
				k.SetDim(y, i.E, m.E)
				k.Inc(i, 1)
			})
			k.If(rb.GtU(asm.C(1)), func() {
				k.SetDim(y, i.E, n.E)
				k.Inc(i, 1)
			})
			k.SetRank(y, i.E)
			k.Put(asm.M32, k.Ctx.E, mmAM, kk.Wrap())
			k.Put(asm.M32, k.Ctx.E, mmAK, asm.C(1))
			k.Put(asm.M32, k.Ctx.E, mmBK, n.Wrap())
			k.Put(asm.M32, k.Ctx.E, mmBN, asm.C(1))
			k.finishProduct(y, d, m, kk, n, batches.E)
		},
		Range: func(k *K, lo, hi V) { k.productRange(d, lo, hi, nil) },
	}
}

// productRange does units [lo, hi): 64 columns of one row each. after, when not nil, finishes the block at pc (row, first column, columns).
func (k *K) productRange(d DT, lo, hi V, after func(pc, row, col, n V)) {
	s := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
	m, kk, n, nb, nd := s(mmM), s(mmK), s(mmN), s(mmNB), s(mmND)
	am, ak, bk, bn := s(mmAM), s(mmAK), s(mmBK), s(mmBN)
	da, db, dy := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.Out(0)))
	q, row, col, w, bat, pa, pb, pc, j, t, p := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32),
		k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	sh := d.Shift
	k.pieceUnits(lo, hi, kk, func(u, from, to V) {
		k.Set(q, u.DivU(nb.E))
		k.Set(col, u.Sub(q.Mul(nb.E)).MulI(mmBlock))
		k.Set(bat, q.DivU(m.E))
		k.Set(row, q.Sub(bat.Mul(m.E)))
		k.Set(w, n.Sub(col.E))
		k.If(w.GtU(asm.C(mmBlock)), func() { k.Set(w, asm.C(mmBlock)) })
		k.Set(pc, dy.Add(q.Mul(n.E).Add(col.E).ShlI(sh)))
		k.Set(pa, row.Mul(am.E))
		k.Set(pb, col.Mul(bn.E))
		k.Set(p, k.Ctx.E)
		k.Up(j, nd.E, func() {
			k.Set(t, bat.E)
			k.Set(bat, bat.DivU(asm.L32(p.E, mmD)))
			k.Set(t, t.Sub(bat.Mul(asm.L32(p.E, mmD))))
			k.Set(pa, pa.Add(t.Mul(asm.L32(p.E, mmSA))))
			k.Set(pb, pb.Add(t.Mul(asm.L32(p.E, mmSB))))
			k.Inc(p, 4)
		})
		k.Set(pa, pa.Add(from.Mul(ak.E)))
		k.Set(pb, pb.Add(from.Mul(bk.E)))
		k.CallStmt(k.L.blockProduct(d), da.Add(pa.ShlI(sh)), ak.ShlI(sh), db.Add(pb.ShlI(sh)), bk.ShlI(sh), bn.ShlI(sh), pc.E, w.E, to.Sub(from.E), from.NeI(0))
		if after != nil {
			k.If(to.Eq(kk.E), func() { after(pc, row, col, w) })
		}
	})
}

// Gemm: attr0 alpha, attr1 beta (floats); C, when there, broadcasts. packed: B is panels (f32), attributes 2 and 3 are K and N, and
// output 1 is scratch.
func Gemm(d DT, transA, transB, hasC, scaled, packed bool) *Kernel {
	name := "Gemm." + d.Name
	for _, v := range []struct {
		b bool
		s string
	}{{transA, ".ta"}, {transB, ".tb"}, {hasC, ".c"}, {scaled, ".s"}, {packed, ".p"}} {
		if v.b {
			name += v.s
		}
	}
	alpha := func(k *K, i int) E {
		if d.Float {
			return k.AttrT(d.C, i)
		}
		return k.AttrF(i).TruncSat(d.C, true)
	}
	nout := 1
	if packed {
		nout = 2
	}
	return &Kernel{Name: name, NOut: nout, Parallel: !packed,
		Prep: func(k *K) {
			a, b, y := k.In(0), k.In(1), k.Out(0)
			if packed {
				k.Check(Rank(a).EqI(2), abi.ErrRank, Rank(a).ExtU(), asm.CL(2))
			} else {
				k.Check(Rank(a).EqI(2).And(Rank(b).EqI(2)), abi.ErrRank, Rank(a).ExtU(), Rank(b).ExtU())
			}
			pick := func(x V, t bool, i int) E {
				if t {
					return DimC(x, 1-i)
				}
				return DimC(x, i)
			}
			m, kk := k.Let(pick(a, transA, 0)), k.Let(pick(a, transA, 1))
			kb, n := k.Local(asm.I64), k.Local(asm.I64)
			if packed {
				k.Set(kb, k.Attr(2))
				k.Set(n, k.Attr(3))
			} else {
				k.Set(kb, pick(b, transB, 0))
				k.Set(n, pick(b, transB, 1))
			}
			k.Check(kk.Eq(kb.E), abi.ErrShape, kk.E, kb.E)
			st := func(o1, o2 uint32, t bool, rows, cols E) {
				one := asm.C(1)
				if t {
					k.Put(asm.M32, k.Ctx.E, o1, one)
					k.Put(asm.M32, k.Ctx.E, o2, rows)
				} else {
					k.Put(asm.M32, k.Ctx.E, o1, cols)
					k.Put(asm.M32, k.Ctx.E, o2, one)
				}
			}
			if packed {
				st(ppAM, ppAK, transA, m.Wrap(), kk.Wrap())
			} else {
				st(mmAM, mmAK, transA, m.Wrap(), kk.Wrap())
				st(mmBK, mmBN, transB, kk.Wrap(), n.Wrap())
				k.Put(asm.M32, k.Ctx.E, mmND, asm.C(0))
			}
			if hasC {
				c := k.In(2)
				k.Check(Rank(c).LeU(asm.C(2)), abi.ErrRank, Rank(c).ExtU(), asm.CL(2))
				cm, cn := k.Let(asm.CL(1)), k.Let(asm.CL(1))
				k.If(Rank(c).EqI(2), func() { k.Set(cm, DimC(c, 0)) })
				k.If(Rank(c).NeI(0), func() { k.Set(cn, Dim(c, Rank(c).SubI(1))) })
				k.Check(cm.EqI(1).Or(cm.Eq(m.E)), abi.ErrShape, cm.E, m.E)
				k.Check(cn.EqI(1).Or(cn.Eq(n.E)), abi.ErrShape, cn.E, n.E)
				k.Put(asm.M32, k.Ctx.E, mmCM, asm.Select(cm.EqI(1), asm.CL(0), cn.E).Wrap())
				k.Put(asm.M32, k.Ctx.E, mmCN, asm.Select(cn.EqI(1), asm.C(0), asm.C(1)))
			}
			k.SetRank(y, asm.C(2))
			k.SetDimC(y, 0, m.E)
			k.SetDimC(y, 1, n.E)
			if packed {
				k.Alloc(y, d)
				k.packedWork(k.Out(1), k.Let(asm.CL(1)), m, kk, n)
				return
			}
			k.finishProduct(y, d, m, kk, n, asm.CL(1))
		},
		Range: func(k *K, lo, hi V) {
			run := func(after func(pc, row, col, n V)) {
				if !packed {
					k.productRange(d, lo, hi, after)
					return
				}
				w := k.Let(Data(k.In(1)))
				k.packedRange(lo, hi, func(V) E { return w.E }, k.fillRows, func(t packedTile) { k.storeRows(t, after) })
			}
			if !hasC && !scaled {
				run(nil)
				return
			}
			var dc, cm, cn V
			if hasC {
				dc, cm, cn = k.Let(Data(k.In(2))), k.Let(asm.L32(k.Ctx.E, mmCM)), k.Let(asm.L32(k.Ctx.E, mmCN))
			}
			var al, be V
			if scaled {
				al, be = k.Let(alpha(k, 0)), k.Let(alpha(k, 1))
			}
			p, end, c := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			x := k.Local(d.C)
			run(func(pc, row, col, n V) {
				k.Set(p, pc.E)
				k.Set(end, pc.Add(n.ShlI(d.Shift)))
				if hasC {
					k.Set(c, dc.Add(row.Mul(cm.E).Add(col.Mul(cn.E)).ShlI(d.Shift)))
				}
				k.While(p.LtU(end.E), func() {
					k.Set(x, k.Load(d, p.E, 0))
					if scaled {
						// Multiplying by exactly 1 changes nothing, so the general form serves alpha = 1 too.
						k.Set(x, al.Mul(x.E))
					}
					if hasC {
						v := k.Load(d, c.E, 0)
						if scaled {
							v = be.Mul(v)
						}
						k.Set(x, x.Add(v))
						k.Set(c, c.Add(cn.ShlI(d.Shift)))
					}
					k.Store(d, p.E, 0, x.E)
					k.Inc(p, 1<<d.Shift)
				})
			})
		},
	}
}
