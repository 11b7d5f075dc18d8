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
func reducePrep(d DT, cost int64) func(k *K) {
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
		k.Work(k.Numel(y), n.AddI(8).MulI(cost))
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
	return &Kernel{Name: "Reduce" + string(op) + "." + d.Name, NOut: 1, Parallel: true,
		PrepName: "reduce." + d.Name, Prep: reducePrep(d, 1),
		Range: func(k *K, lo, hi V) {
			L := func() V { return k.Local(asm.I32) }
			dx := k.Let(Data(k.In(0)))
			po := k.Let(Data(k.Out(0)).Add(lo.ShlI(d.Shift)))
			nk, nr, n := k.Let(asm.L32(k.Ctx.E, rdNK)), k.Let(asm.L32(k.Ctx.E, rdNR)), k.Let(asm.L32(k.Ctx.E, rdN))
			d0, s0 := k.Let(asm.L32(k.Ctx.E, rdRD)), k.Let(asm.L32(k.Ctx.E, rdRS).ShlI(d.Shift))
			u, q, t, j, c, base, p, run, outer, left := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L()
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
			acc := k.Local(d.C)
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
			k.While(u.LtU(hi.E), func() {
				k.Set(q, u.E)
				k.Set(base, asm.C(0))
				decompose(q, nk, 0, rdKD, rdKS, base)
				k.Set(p, dx.Add(base.ShlI(d.Shift)))
				k.Set(run, d0.E)
				k.Set(outer, asm.C(0))
				k.Set(left, n.E)
				if sums {
					k.If(nr.EqI(1), func() {
						k.Set(acc, asm.Call(d.C, k.L.sum8(d), p.E, n.E, s0.E))
					}, func() {
						for i := range a {
							k.Set(a[i], asm.Const(d.C, 0))
						}
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
				}
				k.Store(d, po.E, 0, acc.E)
				k.Inc(po, 1<<d.Shift)
				k.Inc(u, 1)
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
			k.Work(lines.E, Dim(x, ax.E).MulI(12).AddI(20))
		},
		Range: func(k *K, lo, hi V) {
			dx, dy := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0)))
			px, py, st, j := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			m, v, s := k.Local(d.C), k.Local(d.C), k.Local(d.C)
			k.lines(lo, hi, func(u, o, i, first, n, stride V) {
				k.Set(st, stride.ShlI(d.Shift))
				k.Set(px, dx.Add(first.ShlI(d.Shift)))
				k.Set(m, asm.CFloat(d.C, negInf))
				k.Up(j, n.E, func() {
					k.Set(v, k.Load(d, px.E, 0))
					k.Set(m, asm.Select(m.Lt(v.E), v.E, m.E))
					k.Set(px, px.Add(st.E))
				})
				k.Set(px, dx.Add(first.ShlI(d.Shift)))
				k.Set(py, dy.Add(first.ShlI(d.Shift)))
				k.Set(j, n.E)
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
				k.Set(py, dy.Add(first.ShlI(d.Shift)))
				k.Set(s, asm.Call(d.C, k.L.sum8(d), py.E, n.E, st.E))
				k.Up(j, n.E, func() {
					k.Store(d, py.E, 0, k.Load(d, py.E, 0).Div(s.E))
					k.Set(py, py.Add(st.E))
				})
			})
		},
	}
}

// Arg is ArgMax or ArgMin along axis attr0; attr1 keepdims. The first NaN wins; last prefers the last of equals.
func Arg(max, last bool, d DT) *Kernel {
	return &Kernel{Name: fmt.Sprintf("Arg.%t.%t.%s", max, last, d.Name), NOut: 1, PrepName: "arg", Parallel: true,
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
			k.Work(lines.E, Dim(x, ax.E).MulI(2).AddI(4))
		},
		Range: func(k *K, lo, hi V) {
			dx, dy := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0)))
			p, j, best := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			m, v := k.Local(d.C), k.Local(d.C)
			k.lines(lo, hi, func(u, o, i, first, n, stride V) {
				k.Set(p, dx.Add(first.ShlI(d.Shift)))
				k.Set(m, k.Load(d, p.E, 0))
				k.Set(best, asm.C(0))
				k.For(j, asm.C(1), n.E, 1, func() {
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
				})
				k.Put(asm.M64, dy.Add(u.ShlI(3)), 0, best.ExtU())
			})
		},
	}
}

// TopK gives the best K (input 1) along axis attr0, best first, ties by index; NaN is the largest.
func TopK(largest bool, d DT) *Kernel {
	before := func(a, b V) E { // a stands before b
		x, y := a, b
		if !largest {
			x, y = b, a
		}
		lt := d.Lt(y.E, x.E)
		if d.Float {
			// NaN above all: x is NaN and y is not.
			lt = lt.Or(x.Ne(x.E).And(y.Eq(y.E)))
		}
		return lt
	}
	return &Kernel{Name: fmt.Sprintf("TopK.%t.%s", largest, d.Name), NOut: 2, PrepName: "topk." + d.Name, Parallel: true,
		Prep: func(k *K) {
			x, kk := k.In(0), k.In(1)
			ax, lines := k.linePrep(x)
			k.Check(k.Numel(kk).EqI(1), abi.ErrShape, k.Numel(kk), asm.CL(1))
			n := k.Let(asm.L64(Data(kk), 0))
			k.Check(n.GeS(asm.CL(0)).And(n.LeS(Dim(x, ax.E))), abi.ErrValue, n.E, Dim(x, ax.E))
			for i, dt := range []DT{d, dtOf(abi.I64)} {
				y := k.Out(i)
				k.CopyDims(y, x)
				k.SetDim(y, ax.E, n.E)
				k.Alloc(y, dt)
			}
			k.Put(asm.M32, k.Ctx.E, lnInner+4, n.Wrap())
			k.If(n.Eqz(), func() { k.Set(lines, asm.CL(0)) })
			k.Work(lines.E, Dim(x, ax.E).MulI(4).Add(n.Mul(n.E)))
		},
		Range: func(k *K, lo, hi V) {
			dx, dv, di := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0))), k.Let(Data(k.Out(1)))
			kk := k.Let(asm.L32(k.Ctx.E, lnInner+4))
			p, j, q, cnt, base := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			v, w := k.Local(d.C), k.Local(d.C)
			k.lines(lo, hi, func(u, o, i, first, n, stride V) {
				// Insertion into the sorted head; elements come by rising index, so equals stay behind earlier ones.
				k.Set(base, o.Mul(kk.E).Mul(stride.E).Add(i.E))
				at := func(q E) E { return base.Add(q.Mul(stride.E)) }
				k.Set(cnt, asm.C(0))
				k.Up(j, n.E, func() {
					k.Set(p, dx.Add(first.Add(j.Mul(stride.E)).ShlI(d.Shift)))
					k.Set(v, k.Load(d, p.E, 0))
					k.Set(q, cnt.E)
					k.Block(func(done asm.Label) {
						k.Loop(func(top asm.Label) {
							k.BrIf(done, q.Eqz())
							k.Set(w, k.Load(d, dv.Add(at(q.SubI(1)).ShlI(d.Shift)), 0))
							k.BrIf(done, before(v, w).Eqz())
							k.If(q.LtU(kk.E), func() {
								k.Store(d, dv.Add(at(q.E).ShlI(d.Shift)), 0, w.E)
								k.Put(asm.M64, di.Add(at(q.E).ShlI(3)), 0, asm.L64(di.Add(at(q.SubI(1)).ShlI(3)), 0))
							})
							k.Inc(q, -1)
							k.Br(top)
						})
					})
					k.If(q.LtU(kk.E), func() {
						k.Store(d, dv.Add(at(q.E).ShlI(d.Shift)), 0, v.E)
						k.Put(asm.M64, di.Add(at(q.E).ShlI(3)), 0, j.ExtU())
						k.If(cnt.LtU(kk.E), func() { k.Inc(cnt, 1) })
					})
				})
			})
		},
	}
}
