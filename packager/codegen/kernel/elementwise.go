package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Broadcast walk: prep leaves the collapsed loop nest in the scratch area, innermost dim first.
const (
	bcND      = CtxScratch      // u32 number of dims, at least 1
	bcDims    = CtxScratch + 16 // u32[8]
	bcStrides = CtxScratch + 48 // u32[8] per operand, in elements
)

// prepBroadcast makes the output's dims from n operands, allocates it as out and writes the walk.
func prepBroadcast(n int, out DT, cost int64) func(k *K) {
	return func(k *K) {
		o := k.Out(0)
		var in, off, run, d, last []V
		r := k.Let(asm.C(0))
		for i := 0; i < n; i++ {
			in = append(in, k.In(i))
			k.If(Rank(in[i]).GtU(r.E), func() { k.Set(r, Rank(in[i])) })
			off = append(off, k.Local(asm.I32))
			run = append(run, k.Let(asm.C(1)))
			d = append(d, k.Local(asm.I64))
			last = append(last, k.Local(asm.I32))
		}
		for i := range in {
			k.Set(off[i], r.Sub(Rank(in[i])))
		}
		dimOf := func(i int, j V) {
			k.Set(d[i], asm.CL(1))
			k.If(j.GeU(off[i].E), func() { k.Set(d[i], Dim(in[i], j.Sub(off[i].E))) })
		}
		k.SetRank(o, r.E)
		j := k.Local(asm.I32)
		e := k.Local(asm.I64)
		k.Up(j, r.E, func() {
			k.Set(e, asm.CL(1))
			for i := range in {
				dimOf(i, j)
				k.If(d[i].NeI(1), func() {
					k.Check(e.EqI(1).Or(e.Eq(d[i].E)), abi.ErrShape, e.E, d[i].E)
					k.Set(e, d[i].E)
				})
			}
			k.SetDim(o, j.E, e.E)
		})
		k.Alloc(o, out)
		nd := k.Let(asm.C(0))
		p := k.Let(k.Ctx.E)
		ok := k.Local(asm.I32)
		k.For(j, asm.C(0), asm.C(0), 1, func() {})
		k.Set(j, r.E)
		k.While(j.E, func() {
			k.Inc(j, -1)
			k.Set(e, Dim(o, j.E))
			for i := range in {
				dimOf(i, j)
			}
			k.If(e.NeI(1), func() {
				k.Set(ok, nd.NeI(0))
				for i := range in {
					k.Set(last[i], asm.Select(d[i].EqI(1), asm.C(0), run[i].E))
				}
				k.Set(p, k.Ctx.Add(nd.SubI(1).ShlI(2)))
				k.If(ok.E, func() {
					for i := range in {
						k.Set(ok, ok.And(last[i].Eq(asm.L32(p.E, uint32(bcStrides+32*i)).Mul(asm.L32(p.E, bcDims)))))
					}
				})
				k.If(ok.E, func() {
					k.Put(asm.M32, p.E, bcDims, asm.L32(p.E, bcDims).Mul(e.Wrap()))
				}, func() {
					k.Inc(p, 4)
					k.Put(asm.M32, p.E, bcDims, e.Wrap())
					for i := range in {
						k.Put(asm.M32, p.E, uint32(bcStrides+32*i), last[i].E)
					}
					k.Inc(nd, 1)
				})
			})
			for i := range in {
				k.Set(run[i], run[i].Mul(d[i].Wrap()))
			}
		})
		k.If(nd.Eqz(), func() {
			k.Put(asm.M32, k.Ctx.E, bcDims, asm.C(1))
			for i := range in {
				k.Put(asm.M32, k.Ctx.E, uint32(bcStrides+32*i), asm.C(0))
			}
			k.Set(nd, asm.C(1))
		})
		k.Put(asm.M32, k.Ctx.E, bcND, nd.E)
		k.Work(k.Numel(o), k.runCost(cost))
	}
}

// runCost is what an element of a walk costs: cost, and its share of what starting a run takes.
func (k *K) runCost(cost int64) E {
	return asm.CL(24).DivU(asm.L32(k.Ctx.E, bcDims).ExtU().AddI(1)).AddI(cost)
}

// moveCost is what it costs to move an element with all its operands to or from slow memory, and to round it to 16 bits.
func moveCost(out DT, in ...DT) int64 {
	bytes, cost := int64(1)<<out.Shift, int64(0)
	for _, d := range in {
		bytes += 1 << d.Shift
		if d.Half() {
			cost += 5
		}
	}
	if out.Half() {
		cost += 12
	}
	return cost + (bytes+5)/6
}

// walk runs row for each run of the innermost dim within elements [lo, hi): pos is the first element's index in the
// output, n the length of the run, off the operands' element offsets, str their element strides within the run.
func (k *K) walk(operands int, lo, hi V, row func(pos, n V, off, str []V)) {
	nd := k.Let(asm.L32(k.Ctx.E, bcND))
	inner := k.Let(asm.L32(k.Ctx.E, bcDims))
	pos := k.Let(lo.E)
	q, col, n, j, p := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	t := k.Local(asm.I32)
	var off, str []V
	for i := 0; i < operands; i++ {
		off = append(off, k.Local(asm.I32))
		str = append(str, k.Let(asm.L32(k.Ctx.E, uint32(bcStrides+32*i))))
	}
	k.While(pos.LtU(hi.E), func() {
		k.Set(q, pos.DivU(inner.E))
		k.Set(col, pos.Sub(q.Mul(inner.E)))
		for i := range off {
			k.Set(off[i], col.Mul(str[i].E))
		}
		k.Set(p, k.Ctx.E)
		k.For(j, asm.C(1), nd.E, 1, func() {
			k.Inc(p, 4)
			k.Set(t, q.E)
			k.Set(q, q.DivU(asm.L32(p.E, bcDims)))
			k.Set(t, t.Sub(q.Mul(asm.L32(p.E, bcDims))))
			for i := range off {
				k.Set(off[i], off[i].Add(t.Mul(asm.L32(p.E, uint32(bcStrides+32*i)))))
			}
		})
		k.Set(n, inner.Sub(col.E))
		k.If(n.GtU(hi.Sub(pos.E)), func() { k.Set(n, hi.Sub(pos.E)) })
		row(pos, n, off, str)
		k.Set(pos, pos.Add(n.E))
	})
}

// Op2 is an element-wise operator of two operands: Scalar in the compute type (a and b are variables), Vec on v128 lanes or nil.
type Op2 struct {
	Name   string
	Out    func(DT) DT // nil: the operands' type
	Scalar func(k *K, d DT, a, b E) E
	Vec    func(d DT) func(a, b E) E // nil or returning nil: no vector form
	Cost   int64
	Worst  func(DT) int64 // what an element may cost on top; nil: nothing
	// Bad, when not nil, is the condition under which an element is ErrValue; it may return an empty E for never.
	Bad func(d DT, a, b E) E
}

// Binary is the kernel of an Op2 for operands of d.
func Binary(op Op2, d DT) *Kernel { return binary(op, d, d) }

func binary(op Op2, d, d2 DT) *Kernel {
	out := d
	if op.Out != nil {
		out = op.Out(d)
	}
	var vec func(a, b E) E
	if op.Vec != nil && !d.Half() {
		vec = op.Vec(d)
	}
	cost := op.Cost + moveCost(out, d, d2)
	if op.Worst != nil {
		cost += op.Worst(d)
	}
	return &Kernel{
		Name: fmt.Sprintf("%s.%s.%s", op.Name, d.Name, d2.Name), NOut: 1, Parallel: true, InPlace: []int{0, 1},
		PrepName: fmt.Sprintf("broadcast2.%s.%d", out.Name, cost),
		Prep:     prepBroadcast(2, out, cost),
		Range: func(k *K, lo, hi V) {
			pa, pb, po, end := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			da, db, do := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.Out(0)))
			a, b := k.Local(d.C), k.Local(d2.C)
			var va, vb V
			if vec != nil {
				va, vb = k.Local(asm.V128), k.Local(asm.V128)
			}
			k.walk(2, lo, hi, func(pos, n V, off, str []V) {
				k.Set(pa, da.Add(off[0].ShlI(d.Shift)))
				k.Set(pb, db.Add(off[1].ShlI(d2.Shift)))
				k.Set(po, do.Add(pos.ShlI(out.Shift)))
				k.Set(end, po.Add(n.ShlI(out.Shift)))
				if vec != nil {
					vecLoop := func(x, y func() E, bumpA, bumpB bool) {
						k.While(po.AddI(16).LeU(end.E), func() {
							k.Put(asm.MV, po.E, 0, vec(x(), y()))
							k.Inc(po, 16)
							if bumpA {
								k.Inc(pa, 16)
							}
							if bumpB {
								k.Inc(pb, 16)
							}
						})
					}
					la := func() E { return asm.MV.At(pa.E, 0) }
					lb := func() E { return asm.MV.At(pb.E, 0) }
					k.If(str[0].EqI(1).And(str[1].EqI(1)), func() { vecLoop(la, lb, true, true) }, func() {
						k.If(str[0].EqI(1).And(str[1].Eqz()), func() {
							k.Set(vb, asm.Splat(d.Mem.At(pb.E, 0)))
							vecLoop(la, func() E { return vb.E }, true, false)
						}, func() {
							k.If(str[0].Eqz().And(str[1].EqI(1)), func() {
								k.Set(va, asm.Splat(d.Mem.At(pa.E, 0)))
								vecLoop(func() E { return va.E }, lb, false, true)
							})
						})
					})
				}
				k.While(po.LtU(end.E), func() {
					k.Set(a, k.Load(d, pa.E, 0))
					k.Set(b, k.Load(d2, pb.E, 0))
					if op.Bad != nil {
						if c := op.Bad(d, a.E, b.E); c.Code != nil {
							k.If(c, func() { k.Fail(abi.ErrValue, po.Sub(do.E).ShrUI(out.Shift).ExtU(), asm.CL(0)) })
						}
					}
					k.Store(out, po.E, 0, op.Scalar(k, d, a.E, b.E))
					k.Inc(po, 1<<out.Shift)
					k.Set(pa, pa.Add(str[0].ShlI(d.Shift)))
					k.Set(pb, pb.Add(str[1].ShlI(d2.Shift)))
				})
			})
		},
	}
}

// Op1 is an element-wise operator of one operand.
type Op1 struct {
	Name   string
	Scalar func(k *K, d DT, a E) E // a is a variable
	Vec    func(k *K, d DT, a E) E // f32 and f64 lanes; nil: none
	VecOK  func(d DT) bool         // which types have Vec; nil: f32 and f64
	Cost   int64
}

// PrepSame gives output 0 the dims of input 0 with type out.
func PrepSame(out DT, cost int64) func(k *K) {
	return func(k *K) {
		x, y := k.In(0), k.Out(0)
		k.CopyDims(y, x)
		k.Alloc(y, out)
		k.Work(k.Numel(y), asm.CL(cost))
	}
}

// Unary is the kernel of an Op1.
func Unary(op Op1, d DT) *Kernel {
	cost := op.Cost
	if d.C == asm.F64 || d.Half() {
		cost *= 2 // one at a time
	}
	cost += moveCost(d, d)
	vec := op.Vec != nil && (d.ABI == abi.F32 || d.ABI == abi.F64)
	if vec && op.VecOK != nil {
		vec = op.VecOK(d)
	}
	return &Kernel{
		Name: op.Name + "." + d.Name, NOut: 1, Parallel: true, InPlace: []int{0},
		PrepName: fmt.Sprintf("same.%s.%d", d.Name, cost),
		Prep:     PrepSame(d, cost),
		Range: func(k *K, lo, hi V) {
			px := k.Let(Data(k.In(0)).Add(lo.ShlI(d.Shift)))
			po := k.Let(Data(k.Out(0)).Add(lo.ShlI(d.Shift)))
			end := k.Let(po.Add(hi.Sub(lo.E).ShlI(d.Shift)))
			a := k.Local(d.C)
			if vec {
				v := k.Local(asm.V128)
				k.While(po.AddI(16).LeU(end.E), func() {
					k.Set(v, asm.MV.At(px.E, 0))
					k.Put(asm.MV, po.E, 0, op.Vec(k, d, v.E))
					k.Inc(po, 16)
					k.Inc(px, 16)
				})
			}
			k.While(po.LtU(end.E), func() {
				k.Set(a, k.Load(d, px.E, 0))
				k.Store(d, po.E, 0, op.Scalar(k, d, a.E))
				k.Inc(po, 1<<d.Shift)
				k.Inc(px, 1<<d.Shift)
			})
		},
	}
}
