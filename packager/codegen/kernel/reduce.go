package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// sum8(p, n, stride) sums n elements in eight lanes (S8 of docs/numerics.md); stride is in bytes.
func (l *Lib) sum8(d DT) uint32 {
	return l.Fn("sum8."+d.Name, []T{asm.I32, asm.I32, asm.I32}, []T{d.C}, func(f *asm.Fn) {
		p, n, st := f.Param(0), f.Param(1), f.Param(2)
		var a [8]V
		for i := range a {
			a[i] = f.Local(d.C)
		}
		if d.ABI == abi.F32 {
			f.If(st.EqI(4).And(n.GeS(asm.C(8))), func() {
				v, w := f.Let(asm.VC(asm.F32, 0)), f.Let(asm.VC(asm.F32, 0))
				f.While(n.GeS(asm.C(8)), func() {
					f.Set(v, vadd(v.E, asm.MV.At(p.E, 0)))
					f.Set(w, vadd(w.E, asm.MV.At(p.E, 16)))
					f.Inc(p, 32)
					f.Inc(n, -8)
				})
				for i := 0; i < 4; i++ {
					f.Set(a[i], v.Lane(asm.F32, byte(i)))
					f.Set(a[i+4], w.Lane(asm.F32, byte(i)))
				}
			})
		}
		f.While(n.GeS(asm.C(8)), func() {
			for i := range a {
				f.Set(a[i], a[i].Add(l.load(d, p.E, 0)))
				f.Set(p, p.Add(st.E))
			}
			f.Inc(n, -8)
		})
		f.Block(func(done asm.Label) {
			for i := 0; i < 7; i++ {
				f.BrIf(done, n.LeS(asm.C(int64(i))))
				f.Set(a[i], a[i].Add(l.load(d, p.E, 0)))
				f.Set(p, p.Add(st.E))
			}
		})
		f.Return(fold8(a))
	})
}

func fold8(a [8]V) E {
	return a[0].Add(a[4].E).Add(a[2].Add(a[6].E)).Add(a[1].Add(a[5].E).Add(a[3].Add(a[7].E)))
}

// Reductions: kept and reduced loop nests in the scratch, innermost dim first, strides in elements.
const (
	rdNK = CtxScratch
	rdNR = CtxScratch + 4
	rdN  = CtxScratch + 8  // elements per output
	rdKD = CtxScratch + 32 // u32[8]
	rdKS = CtxScratch + 64
	rdRD = CtxScratch + 96
	rdRS = CtxScratch + 128
)

// reducePrep sizes the output for the axes in input 1 (absent or empty: all); attr0 is keepdims.
func reducePrep(d DT, cost int64) func(k *K) { // cost of an element
	return func(k *K) {
		x, y := k.In(0), k.Out(0)
		r := k.Let(Rank(x))
		mask := k.Let(asm.C(0))
		k.If(k.HasIn(1), func() { k.Set(mask, k.axesMask(k.In(1), r.E).E) })
		k.If(mask.Eqz(), func() { k.Set(mask, asm.C(255)) })
		i, j := k.Local(asm.I32), k.Let(asm.C(0))
		k.Up(i, r.E, func() {
			k.If(mask.ShrU(i.E).AndI(1), func() {
				k.If(k.Attr32(0), func() {
					k.SetDim(y, j.E, asm.CL(1))
					k.Inc(j, 1)
				})
			}, func() {
				k.SetDim(y, j.E, Dim(x, i.E))
				k.Inc(j, 1)
			})
		})
		k.SetRank(y, j.E)
		k.Alloc(y, d)
		nk, nr, s, n := k.Let(asm.C(0)), k.Let(asm.C(0)), k.Let(asm.C(1)), k.Let(asm.CL(1))
		p := k.Local(asm.I32)
		push := func(cnt V, dims, strides uint32, e E) {
			k.Set(p, k.Ctx.Add(cnt.SubI(1).ShlI(2)))
			k.If(asm.And2(cnt.E, s.Eq(asm.L32(p.E, strides).Mul(asm.L32(p.E, dims)))), func() {
				k.Put(asm.M32, p.E, dims, asm.L32(p.E, dims).Mul(e))
			}, func() {
				k.Put(asm.M32, p.E, dims+4, e)
				k.Put(asm.M32, p.E, strides+4, s.E)
				k.Inc(cnt, 1)
			})
		}
		k.Set(i, r.E)
		e := k.Local(asm.I64)
		k.While(i.E, func() {
			k.Inc(i, -1)
			k.Set(e, Dim(x, i.E))
			k.If(mask.ShrU(i.E).AndI(1), func() {
				k.Set(n, n.Mul(e.E))
				k.If(e.NeI(1), func() { push(nr, rdRD, rdRS, e.Wrap()) })
			}, func() {
				k.If(e.NeI(1), func() { push(nk, rdKD, rdKS, e.Wrap()) })
			})
			k.Set(s, s.Mul(e.Wrap()))
		})
		k.If(nr.Eqz(), func() {
			k.Put(asm.M32, k.Ctx.E, rdRD, n.Wrap())
			k.Put(asm.M32, k.Ctx.E, rdRS, asm.C(1))
			k.Set(nr, asm.C(1))
		})
		k.Put(asm.M32, k.Ctx.E, rdNK, nk.E)
		k.Put(asm.M32, k.Ctx.E, rdNR, nr.E)
		k.Put(asm.M32, k.Ctx.E, rdN, n.Wrap())
		k.lineWork(k.Numel(y), n.E, asm.CL(cost), asm.CL(8*cost+12))
	}
}

// ReduceOp names a reduction.
type ReduceOp string

// Reductions.
const (
	ReduceSum  ReduceOp = "Sum"
	ReduceMean ReduceOp = "Mean"
	ReduceProd ReduceOp = "Prod"
	ReduceMax  ReduceOp = "Max"
	ReduceMin  ReduceOp = "Min"
)

// Reduce folds the axes in input 1.
func Reduce(op ReduceOp, d DT) *Kernel {
	sums := op == ReduceSum || op == ReduceMean
	cost := lineCost(d, 3)
	if sums && d.ABI == abi.F32 {
		cost = 2
	}
	return &Kernel{Name: "Reduce" + string(op) + "." + d.Name, NOut: 1, Parallel: true,
		PrepName: costName("reduce."+d.Name, cost), Prep: reducePrep(d, cost),
		Range: func(k *K, lo, hi V) {
			L := func() V { return k.Local(asm.I32) }
			dx := k.Let(Data(k.In(0)))
			py := k.Let(Data(k.Out(0)))
			nk, nr, n := k.Let(asm.L32(k.Ctx.E, rdNK)), k.Let(asm.L32(k.Ctx.E, rdNR)), k.Let(asm.L32(k.Ctx.E, rdN))
			d0, s0 := k.Let(asm.L32(k.Ctx.E, rdRD)), k.Let(asm.L32(k.Ctx.E, rdRS).ShlI(d.Shift))
			q, t, j, c, base, p, run, outer, left := L(), L(), L(), L(), L(), L(), L(), L(), L()
			decompose := func(idx V, n V, first int64, dims, strides uint32, into V) {
				// into += sum over dims first.. of (digit of idx) * stride
				k.Set(c, k.Ctx.AddI(first*4))
				k.For(j, asm.C(first), n.E, 1, func() {
					k.Set(t, idx.E)
					k.Set(idx, idx.DivU(asm.L32(c.E, dims)))
					k.Set(t, t.Sub(idx.Mul(asm.L32(c.E, dims))))
					k.Set(into, into.Add(t.Mul(asm.L32(c.E, strides))))
					k.Inc(c, 4)
				})
			}
			acc, i, cut := k.Local(d.C), L(), L()
			var a [8]V
			for i := range a {
				a[i] = k.Local(d.C)
			}
			// next moves p to the following term of a nest with several dims.
			next := func() {
				k.Set(p, p.Add(s0.E))
				k.Inc(run, -1)
				k.If(run.Eqz(), func() {
					k.Inc(outer, 1)
					k.Set(q, outer.E)
					k.Set(p, base.E)
					decompose(q, nr, 1, rdRD, rdRS, p)
					k.Set(p, dx.Add(p.ShlI(d.Shift)))
					k.Set(run, d0.E)
				})
			}
			k.pieceUnits(lo, hi, n, func(u, from, to V) {
				k.Set(q, u.E)
				k.Set(base, asm.C(0))
				decompose(q, nk, 0, rdKD, rdKS, base)
				k.Set(p, dx.Add(base.ShlI(d.Shift)))
				k.Set(run, d0.E)
				k.Set(outer, asm.C(0))
				k.Set(left, to.Sub(from.E))
				k.If(from.E, func() {
					// Go on in the middle.
					k.Set(outer, from.DivU(d0.E))
					k.Set(t, from.Sub(outer.Mul(d0.E)))
					k.Set(run, d0.Sub(t.E))
					k.Set(i, t.Mul(s0.E))
					k.Set(q, outer.E)
					k.Set(p, base.E)
					decompose(q, nr, 1, rdRD, rdRS, p)
					k.Set(p, dx.Add(p.ShlI(d.Shift)).Add(i.E))
				})
				k.Set(cut, left.Ne(n.E))
				if sums {
					k.If(nr.EqI(1), func() {
						k.If(cut.E, func() {
							k.If(from.Eqz(), k.clearSum)
							k.CallStmt(k.L.sumMore(d), p.E, left.E, s0.E, k.Ctx.AddI(pcState))
							k.If(to.Eq(n.E), func() { k.Set(acc, k.keptSum(d, 0)) })
						}, func() {
							k.Set(acc, asm.Call(d.C, k.L.sum8(d), p.E, n.E, s0.E))
						})
					}, func() {
						for i := range a {
							k.Set(a[i], asm.Const(d.C, 0))
						}
						k.If(from.E, func() {
							for i := range a {
								k.Set(a[i], k.kept(d, uint32(stateSize*i)))
							}
						})
						k.Block(func(done asm.Label) {
							k.Loop(func(top asm.Label) {
								for i := range a {
									k.BrIf(done, left.Eqz())
									k.Set(a[i], a[i].Add(k.Load(d, p.E, 0)))
									k.Inc(left, -1)
									k.If(left.E, func() { next() })
								}
								k.Br(top)
							})
						})
						k.If(to.Ne(n.E), func() {
							for i := range a {
								k.keep(d, uint32(stateSize*i), a[i])
							}
						})
						k.Set(acc, fold8(a))
					})
					if op == ReduceMean {
						if d.Float {
							k.Set(acc, acc.Div(n.ToF(d.C, false)))
						} else {
							k.Check(n.NeI(0), abi.ErrValue, n.ExtU(), asm.CL(0)) // the mean of nothing is no integer
							k.Set(acc, divide(k, d, acc.E, cntAs(d, n)))
						}
					}
				} else {
					switch op {
					case ReduceProd:
						k.Set(acc, asm.Const(d.C, 1))
					case ReduceMax:
						k.Set(acc, d.Lowest())
					case ReduceMin:
						k.Set(acc, d.Highest())
					}
					k.If(from.E, func() { k.Set(acc, k.kept(d, 0)) })
					v := a[0]
					k.While(left.E, func() {
						k.Set(v, k.Load(d, p.E, 0))
						switch {
						case op == ReduceProd:
							k.Set(acc, acc.Mul(v.E))
						case op == ReduceMax && d.Float:
							k.Set(acc, acc.Max(v.E))
						case op == ReduceMin && d.Float:
							k.Set(acc, acc.Min(v.E))
						case op == ReduceMax:
							k.Set(acc, asm.Select(d.Lt(acc.E, v.E), v.E, acc.E))
						default:
							k.Set(acc, asm.Select(d.Lt(v.E, acc.E), v.E, acc.E))
						}
						k.Inc(left, -1)
						k.If(left.E, func() { next() })
					})
					k.If(to.Ne(n.E), func() { k.keep(d, 0, acc) })
				}
				k.If(to.Eq(n.E), func() { k.Store(d, py.Add(u.ShlI(d.Shift)), 0, acc.E) })
			})
		},
	}
}

// Lines along one axis: scratch of Softmax, ArgMax, TopK.
const (
	lnN     = CtxScratch     // elements of a line
	lnInner = CtxScratch + 4 // elements after the axis
)

// linePrep writes the lines along axis attr0 of input 0 to the scratch and returns their number.
func (k *K) linePrep(x V) (ax, lines V) {
	ax = k.axis(0, Rank(x))
	in := k.prodDims(x, ax.AddI(1), Rank(x))
	out := k.prodDims(x, asm.C(0), ax.E)
	k.Put(asm.M32, k.Ctx.E, lnN, Dim(x, ax.E).Wrap())
	k.Put(asm.M32, k.Ctx.E, lnInner, in.Wrap())
	return ax, k.Let(out.Mul(in.E))
}

// lines runs body for each line in [lo, hi): first is the element index of its first element in the input, stride the
// elements between neighbours.
func (k *K) lines(lo, hi V, body func(u, o, i, first, n, stride V)) {
	n, in := k.Let(asm.L32(k.Ctx.E, lnN)), k.Let(asm.L32(k.Ctx.E, lnInner))
	u, o, i, first := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	k.While(u.LtU(hi.E), func() {
		k.Set(o, u.DivU(in.E))
		k.Set(i, u.Sub(o.Mul(in.E)))
		k.Set(first, o.Mul(n.E).Mul(in.E).Add(i.E))
		body(u, o, i, first, n, in)
		k.Inc(u, 1)
	})
}

// exp is e^x in d's compute type.
func (k *K) exp(d DT, x E) E {
	if d.C == asm.F32 {
		return asm.Call(asm.V128, k.L.vexp32(), asm.Splat(x)).Lane(asm.F32, 0)
	}
	return asm.Call(asm.F64, k.L.exp64(), x)
}

// Softmax works along axis attr0.
func Softmax(d DT) *Kernel {
	return &Kernel{Name: "Softmax." + d.Name, NOut: 1, Parallel: true,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			k.CopyDims(y, x)
			k.Alloc(y, d)
			ax, lines := k.linePrep(x)
			k.If(k.Numel(x).Eqz(), func() { k.Set(lines, asm.CL(0)) })
			pieces := k.lineWork(lines.E, Dim(x, ax.E), asm.CL(lineCost(d, 20)), asm.CL(40))
			k.If(pieces.NeI(1), func() { k.Put(asm.M64, k.Ctx.E, CtxTotal, asm.L64(k.Ctx.E, CtxTotal).ShlI(2)) })
		},
		Range: func(k *K, lo, hi V) { k.softmax(d, lo, hi) },
	}
}

// softmax goes four times over each line: maximum, exponentials, sum, division. The passes over a cut line follow each other piece by piece.
func (k *K) softmax(d DT, lo, hi V) {
	dx, dy := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0)))
	px, py, j, p, q := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	m, v, s := k.Local(d.C), k.Local(d.C), k.Local(d.C)
	n, stride, count, ln := k.noted(lnN), k.noted(lnInner), k.noted(pcCount), k.noted(pcLen)
	st := k.Let(stride.ShlI(d.Shift))
	at := func(first, from V) {
		k.Set(p, dx.Add(first.ShlI(d.Shift)).Add(from.Mul(st.E)))
		k.Set(q, dy.Add(first.ShlI(d.Shift)).Add(from.Mul(st.E)))
	}
	most := func(from, to V) {
		k.Set(px, p.E)
		k.For(j, from.E, to.E, 1, func() {
			k.Set(v, k.Load(d, px.E, 0))
			k.Set(m, asm.Select(m.Lt(v.E), v.E, m.E))
			k.Set(px, px.Add(st.E))
		})
	}
	exps := func(from, to V) {
		k.Set(px, p.E)
		k.Set(py, q.E)
		k.Set(j, to.Sub(from.E))
		if d.ABI == abi.F32 {
			k.If(st.EqI(4), func() {
				k.While(j.GeS(asm.C(4)), func() {
					k.Put(asm.MV, py.E, 0, asm.Call(asm.V128, k.L.vexp32(), vsub(asm.MV.At(px.E, 0), asm.Splat(m.E))))
					k.Inc(px, 16)
					k.Inc(py, 16)
					k.Inc(j, -4)
				})
			})
		}
		k.While(j.E, func() {
			k.Store(d, py.E, 0, k.exp(d, k.Load(d, px.E, 0).Sub(m.E)))
			k.Set(px, px.Add(st.E))
			k.Set(py, py.Add(st.E))
			k.Inc(j, -1)
		})
	}
	divide := func(from, to V) {
		k.Set(py, q.E)
		k.For(j, from.E, to.E, 1, func() {
			k.Store(d, py.E, 0, k.Load(d, py.E, 0).Div(s.E))
			k.Set(py, py.Add(st.E))
		})
	}
	low := asm.CFloat(d.C, negInf)
	k.If(count.EqI(1), func() {
		zero := k.Let(asm.C(0))
		k.lines(lo, hi, func(u, o, i, first, n, stride V) {
			at(first, zero)
			k.Set(m, low)
			most(zero, n)
			exps(zero, n)
			k.Set(s, asm.Call(d.C, k.L.sum8(d), q.E, n.E, st.E))
			divide(zero, n)
		})
	}, func() {
		w, u, o, first, from, to, pass := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
		sum := uint32(stateSize)
		k.While(w.LtU(hi.E), func() {
			k.Set(pass, w.DivU(count.E))
			k.Set(from, w.Sub(pass.Mul(count.E)).Mul(ln.E))
			k.Set(u, pass.ShrUI(2))
			k.Set(pass, pass.AndI(3))
			k.Set(to, n.E)
			k.If(to.Sub(from.E).GtU(ln.E), func() { k.Set(to, from.Add(ln.E)) })
			k.Set(o, u.DivU(stride.E))
			k.Set(first, o.Mul(n.SubI(1)).Mul(stride.E).Add(u.E))
			at(first, from)
			k.Set(m, low)
			k.If(pass.Or(from.E), func() { k.Set(m, k.kept(d, 0)) })
			k.If(pass.Eqz(), func() {
				most(from, to)
				k.keep(d, 0, m)
			})
			k.If(pass.EqI(1), func() { exps(from, to) })
			k.If(pass.EqI(2), func() {
				k.If(from.Eqz(), func() { k.MemFill(k.Ctx.AddI(int64(pcState+sum)), asm.C(0), asm.C(8*stateSize)) })
				k.CallStmt(k.L.sumMore(d), q.E, to.Sub(from.E), st.E, k.Ctx.AddI(int64(pcState+sum)))
			})
			k.If(pass.EqI(3), func() {
				k.Set(s, k.keptSum(d, sum))
				divide(from, to)
			})
			k.Inc(w, 1)
		})
	})
}

// Arg is ArgMax or ArgMin along axis attr0; attr1 keepdims. The first NaN wins; last prefers the last of equals.
func Arg(max, last bool, d DT) *Kernel {
	return &Kernel{Name: fmt.Sprintf("Arg.%t.%t.%s", max, last, d.Name), NOut: 1, PrepName: costName("arg", lineCost(d, 4)), Parallel: true,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			ax, lines := k.linePrep(x)
			k.Check(Dim(x, ax.E).NeI(0).Or(lines.E.Eqz()), abi.ErrShape, ax.ExtU(), asm.CL(0))
			i, j := k.Local(asm.I32), k.Let(asm.C(0))
			k.For(i, asm.C(0), Rank(x), 1, func() {
				k.If(i.Ne(ax.E), func() {
					k.SetDim(y, j.E, Dim(x, i.E))
					k.Inc(j, 1)
				}, func() {
					k.If(k.Attr32(1), func() {
						k.SetDim(y, j.E, asm.CL(1))
						k.Inc(j, 1)
					})
				})
			})
			k.SetRank(y, j.E)
			k.Alloc(y, dtOf(abi.I64))
			k.lineWork(lines.E, Dim(x, ax.E), asm.CL(lineCost(d, 4)), asm.CL(12))
		},
		Range: func(k *K, lo, hi V) {
			dx, dy := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0)))
			p, j, best := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			m, v := k.Local(d.C), k.Local(d.C)
			k.linePieces(lo, hi, func(u, o, i, first, n, stride, from, to V) {
				k.Set(p, dx.Add(first.Add(from.Mul(stride.E)).ShlI(d.Shift)))
				k.Set(m, k.Load(d, p.E, 0))
				k.Set(best, asm.C(0))
				k.Set(j, asm.C(1))
				k.If(from.E, func() {
					k.Set(m, k.kept(d, 0))
					k.Set(best, asm.L32(k.Ctx.E, pcState+stateSize))
					k.Set(j, from.E)
					k.Set(p, p.Sub(stride.ShlI(d.Shift)))
				})
				k.While(j.LtU(to.E), func() {
					k.Set(p, p.Add(stride.ShlI(d.Shift)))
					k.Set(v, k.Load(d, p.E, 0))
					better := d.Lt(m.E, v.E)
					if !max {
						better = d.Lt(v.E, m.E)
					}
					if last {
						better = better.Or(v.Eq(m.E))
					}
					if d.Float {
						better = asm.Select(m.Ne(m.E), asm.C(0), better.Or(v.Ne(v.E)))
					}
					k.If(better, func() {
						k.Set(m, v.E)
						k.Set(best, j.E)
					})
					k.Inc(j, 1)
				})
				k.If(to.Eq(n.E), func() { k.Put(asm.M64, dy.Add(u.ShlI(3)), 0, best.ExtU()) }, func() {
					k.keep(d, 0, m)
					k.Put(asm.M32, k.Ctx.E, pcState+stateSize, best.E)
				})
			})
		},
	}
}
