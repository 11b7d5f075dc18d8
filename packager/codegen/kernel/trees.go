package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Layout of a tree ensemble in the data segment. Children are byte offsets of nodes, or ~leaf.
const (
	TreeFeature = 0 // u32 byte offset of the feature in a row
	TreeFlags   = 4 // mode | missing << 8
	TreeTrue    = 8
	TreeFalse   = 12
	TreeThresh  = 16 // f32 or f64
	TreeNode    = 24

	LeafTarget = 0 // u32 byte offset of the target's accumulator
	LeafWeight = 8 // f64
	LeafEntry  = 16

	// A linear entry is beside each leaf entry: byte offsets of its first coefficient and of the end, the constant.
	LinearBegin = 0
	LinearEnd   = 4
	LinearConst = 8  // f64
	LinearEntry = 16 // as large as LeafEntry: they share their offsets

	LinearFeature = 0 // u32 byte offset in a row
	LinearWeight  = 8 // f64
	LinearCoef    = 16
)

// treeBlock is the number of rows that meet a tree before the next tree comes.
const treeBlock = 128

// Attribute slots of TreeEnsemble.
const (
	TreeAttrNodes = iota
	TreeAttrRoots // u32: byte offset of a node, or ~leaf
	TreeAttrNRoots
	TreeAttrBegins  // u32 per leaf and one more: byte offsets of entries; unused with one entry per leaf
	TreeAttrEntries // LeafEntry each
	TreeAttrTargets
	TreeAttrBase // f64 per target, or 0
	TreeAttrFeatures
	TreeAttrCost
	TreeAttrLinear // LinearEntry for each leaf entry
	TreeAttrCoefs  // LinearCoef each
)

// TreeVariant chooses the kernel of an ensemble.
type TreeVariant struct {
	Mode    int  // the one mode of all nodes, or -1
	Missing bool // some node sends NaN to the true side
	Single  bool // each leaf has exactly one entry
	Agg     string
	Narrow  bool // sums are rounded to f32 at each step and start at the base values
	Linear  bool // some leaf is linear
}

// TreeEnsemble walks tables; sums are f64 per target in the order of the trees. Output 1 holds the accumulators.
func TreeEnsemble(v TreeVariant, d DT) *Kernel {
	return &Kernel{
		Name: fmt.Sprintf("trees.%d.%t.%t.%s.%t.%t.%s", v.Mode, v.Missing, v.Single, v.Agg, v.Narrow, v.Linear, d.Name), NOut: 2, Parallel: true,
		PrepName: "trees." + d.Name,
		Prep: func(k *K) {
			x, y, acc := k.In(0), k.Out(0), k.Out(1)
			k.Check(Rank(x).EqI(2), abi.ErrRank, Rank(x).ExtU(), asm.CL(2))
			k.Check(DimC(x, 1).GeS(k.Attr(TreeAttrFeatures)), abi.ErrShape, DimC(x, 1), k.Attr(TreeAttrFeatures))
			for i, o := range []V{y, acc} {
				k.SetRank(o, asm.C(2))
				k.SetDimC(o, 0, DimC(x, 0))
				k.SetDimC(o, 1, k.Attr(TreeAttrTargets))
				k.Alloc(o, []DT{d, dtOf(abi.F64)}[i])
			}
			roots := k.Let(k.Attr(TreeAttrNRoots))
			k.lineWork(DimC(x, 0), roots.E, k.Attr(TreeAttrCost).DivS(roots.AddI(1)).AddI(1), k.Attr(TreeAttrTargets).ShlI(2).AddI(30))
		},
		Range: func(k *K, lo, hi V) {
			x, y, acc := k.In(0), k.Out(0), k.Out(1)
			a := func(i int) V { return k.Let(k.Attr32(i)) }
			nodes, roots, nroots, begins, entries, targets, base := a(TreeAttrNodes), a(TreeAttrRoots), a(TreeAttrNRoots),
				a(TreeAttrBegins), a(TreeAttrEntries), a(TreeAttrTargets), a(TreeAttrBase)
			width := k.Let(DimC(x, 1).Wrap().ShlI(d.Shift))
			row, u, next := k.Local(asm.I32), k.Local(asm.I32), k.Let(lo.E)
			count, ln := k.noted(pcCount), k.noted(pcLen)
			L := func() V { return k.Local(asm.I32) }
			node, p, pa, py, j, r, e, end, at := L(), L(), L(), L(), L(), L(), L(), L(), L()
			val := k.Local(d.C)
			w, s := k.Local(asm.F64), k.Local(asm.F64)
			rbegin, rend, from, to := L(), L(), L(), L()
			start := 0.0
			if v.Agg == "MIN" || v.Agg == "MAX" {
				start = negInf - negInf // NaN: no leaf has named the target yet
			}
			add := func() {
				k.Set(w, asm.MF64.At(e.E, LeafWeight))
				if v.Linear {
					linearLeaf(k, d, e, entries, row, w)
				}
				k.Set(at, pa.Add(asm.L32(e.E, LeafTarget)))
				k.Set(s, asm.MF64.At(at.E, 0))
				switch v.Agg {
				case "MIN":
					k.Set(s, asm.Select(s.Ne(s.E).Or(w.Lt(s.E)), w.E, s.E))
				case "MAX":
					k.Set(s, asm.Select(s.Ne(s.E).Or(w.Gt(s.E)), w.E, s.E))
				default:
					k.Set(s, s.Add(w.E))
					if v.Narrow { // the f64 sum of two f32 rounds to the f32 sum
						k.Set(s, s.Demote().Promote())
					}
				}
				k.Put(asm.MF64, at.E, 0, s.E)
			}
			thr := func() E { return d.Mem.At(p.E, TreeThresh) }
			compare := func(mode int) E {
				switch mode {
				case 0:
					return val.Le(thr())
				case 1:
					return val.Lt(thr())
				case 2:
					return val.Ge(thr())
				case 3:
					return val.Gt(thr())
				case 4:
					return val.Eq(thr())
				}
				return val.Ne(thr())
			}
			c := L()
			// Blocks of rows, tree by tree: a tree's nodes stay in the cache, and each row still meets the trees in order.
			blk, v0, row0 := L(), L(), L()
			k.While(next.LtU(hi.E), func() {
				k.If(count.EqI(1), func() {
					k.Set(u, next.E)
					k.Set(blk, u.AddI(treeBlock))
					k.If(blk.GtU(hi.E), func() { k.Set(blk, hi.E) })
					k.Set(next, blk.E)
					k.Set(from, asm.C(0))
					k.Set(to, nroots.E)
				}, func() {
					// Some trees of one row.
					k.Set(u, next.DivU(count.E))
					k.Set(blk, u.AddI(1))
					k.Set(from, next.Sub(u.Mul(count.E)).Mul(ln.E))
					k.Set(to, from.Add(ln.E))
					k.If(to.GtU(nroots.E), func() { k.Set(to, nroots.E) })
					k.Inc(next, 1)
				})
				k.Set(rbegin, roots.Add(from.ShlI(2)))
				k.Set(rend, roots.Add(to.ShlI(2)))
				k.Set(row, Data(x).Add(u.Mul(width.E)))
				k.Set(pa, Data(acc).Add(u.Mul(targets.E).ShlI(3)))
				k.Set(j, blk.Sub(u.E).Mul(targets.E))
				k.If(from.E, func() { k.Set(j, asm.C(0)) })
				k.Set(at, asm.C(0))
				k.While(j.E, func() {
					k.Put(asm.MF64, pa.E, 0, asm.CD(start))
					if v.Narrow {
						k.If(base.E, func() { k.Put(asm.MF64, pa.E, 0, asm.MF64.At(base.Add(at.E), 0).Demote().Promote()) })
						k.Inc(at, 8)
						k.If(at.Eq(targets.ShlI(3)), func() { k.Set(at, asm.C(0)) })
					}
					k.Inc(pa, 8)
					k.Inc(j, -1)
				})
				k.Set(r, rbegin.E)
				k.Set(row0, row.E)
				k.While(r.LtU(rend.E), func() {
					k.Set(row, row0.E)
					k.Set(pa, Data(acc).Add(u.Mul(targets.E).ShlI(3)))
					k.Set(v0, u.E)
					k.While(v0.LtU(blk.E), func() {
						k.Set(node, asm.L32(r.E, 0))
						k.While(node.GeS(asm.C(0)), func() {
							k.Set(p, nodes.Add(node.E))
							k.Set(val, d.Mem.At(row.Add(asm.L32(p.E, TreeFeature)), 0))
							if v.Mode >= 0 {
								k.Set(c, compare(v.Mode))
							} else {
								m := k.Let(asm.L32(p.E, TreeFlags).AndI(255))
								k.Set(c, compare(5))
								for i := 4; i >= 0; i-- {
									k.If(m.EqI(int64(i)), func() { k.Set(c, compare(i)) })
								}
							}
							if v.Missing {
								k.If(asm.And2(val.Ne(val.E), asm.L32(p.E, TreeFlags).ShrUI(8)), func() { k.Set(c, asm.C(1)) })
							}
							k.Set(node, asm.L32(p.Add(c.Eqz().ShlI(2)), TreeTrue))
						})
						k.Set(node, node.Xor(asm.C(-1)))
						if v.Single {
							k.Set(e, entries.Add(node.ShlI(4)))
							add()
						} else {
							k.Set(e, entries.Add(asm.L32(begins.Add(node.ShlI(2)), 0)))
							k.Set(end, entries.Add(asm.L32(begins.Add(node.ShlI(2)), 4)))
							k.While(e.LtU(end.E), func() {
								add()
								k.Inc(e, LeafEntry)
							})
						}
						k.Set(row, row.Add(width.E))
						k.Set(pa, pa.Add(targets.ShlI(3)))
						k.Inc(v0, 1)
					})
					k.Inc(r, 4)
				})
				k.Set(pa, Data(acc).Add(u.Mul(targets.E).ShlI(3)))
				k.If(to.Ne(nroots.E), func() { k.Set(u, blk.E) })
				k.While(u.LtU(blk.E), func() {
					k.Set(py, Data(y).Add(u.Mul(targets.E).ShlI(d.Shift)))
					k.Up(j, targets.E, func() {
						k.Set(s, asm.MF64.At(pa.Add(j.ShlI(3)), 0))
						switch v.Agg {
						case "MIN", "MAX":
							k.If(s.Ne(s.E), func() { k.Set(s, asm.CD(0)) })
						case "AVERAGE":
							k.Set(s, s.Div(nroots.ToF(asm.F64, false)))
						}
						if !v.Narrow {
							k.If(base.E, func() { k.Set(s, s.Add(asm.MF64.At(base.Add(j.ShlI(3)), 0))) })
						}
						if d.C == asm.F32 {
							k.Put(d.Mem, py.Add(j.ShlI(2)), 0, s.Demote())
						} else {
							k.Put(d.Mem, py.Add(j.ShlI(3)), 0, s.E)
						}
					})
					k.Set(pa, pa.Add(targets.ShlI(3)))
					k.Inc(u, 1)
				})
			})
		},
	}
}

// linearLeaf replaces the weight w of the entry at e by its linear form of the row, unless that has no coefficients or
// needs a feature that is NaN.
func linearLeaf(k *K, d DT, e, entries, row, w V) {
	lin := k.Let(k.Attr32(TreeAttrLinear).Add(e.Sub(entries.E)))
	p := k.Let(k.Attr32(TreeAttrCoefs).Add(asm.L32(lin.E, LinearBegin)))
	end := k.Let(k.Attr32(TreeAttrCoefs).Add(asm.L32(lin.E, LinearEnd)))
	k.If(p.LtU(end.E), func() {
		sum := k.Let(asm.MF64.At(lin.E, LinearConst))
		nan := k.Let(asm.C(0))
		k.While(p.LtU(end.E), func() {
			x := k.Let(d.Mem.At(row.Add(asm.L32(p.E, LinearFeature)), 0))
			k.Set(nan, nan.Or(x.Ne(x.E)))
			k.Set(sum, sum.Add(asm.MF64.At(p.E, LinearWeight).Mul(x.E)))
			k.Inc(p, LinearCoef)
		})
		k.Set(w, asm.Select(nan.E, w.E, sum.E))
	})
}
