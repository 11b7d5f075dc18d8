package kernel

import (
	"math"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Operators on shapes alone. Those that keep the elements share them with their input.

// Shape gives dims attr0 to attr1.
func Shape() *Kernel {
	return &Kernel{Name: "Shape", NOut: 1, Run: func(k *K) {
		x, y := k.In(0), k.Out(0)
		r := k.Let(Rank(x).ExtU())
		bound := func(a int) V {
			v := k.Let(k.Attr(a))
			k.If(v.LtS(asm.CL(0)), func() { k.Set(v, v.Add(r.E)) })
			k.If(v.LtS(asm.CL(0)), func() { k.Set(v, asm.CL(0)) })
			k.If(v.GtS(r.E), func() { k.Set(v, r.E) })
			return v
		}
		a, b := bound(0), bound(1)
		k.If(b.LtS(a.E), func() { k.Set(b, a.E) })
		k.SetRank(y, asm.C(1))
		k.SetDimC(y, 0, b.Sub(a.E))
		k.Alloc(y, dtOf(abi.I64))
		k.MemCopy(Data(y), x.Add(a.Wrap().ShlI(3)).AddI(abi.DescDims), b.Sub(a.E).Wrap().ShlI(3))
	}}
}

// Size gives the number of elements.
func Size() *Kernel {
	return &Kernel{Name: "Size", NOut: 1, Run: func(k *K) {
		x, y := k.In(0), k.Out(0)
		n := k.Let(k.Numel(x))
		k.SetRank(y, asm.C(0))
		k.Alloc(y, dtOf(abi.I64))
		k.Put(asm.M64, Data(y), 0, n.E)
	}}
}

// Reshape takes its dims from input 1; attr0 is allowzero.
func Reshape() *Kernel {
	return &Kernel{Name: "Reshape", NOut: 1, Holds: HoldsInput, Run: func(k *K) {
		x, s, y := k.In(0), k.In(1), k.Out(0)
		k.Check(k.Numel(s).LeS(asm.CL(abi.MaxRank)), abi.ErrRank, k.Numel(s), asm.CL(abi.MaxRank))
		r := k.Let(k.Numel(s).Wrap())
		src := k.Let(Data(s))
		n := k.Let(k.Numel(x))
		// The dims are read before the output is touched: it may release what the input holds on a repeat.
		k.Alias(y, x)
		known, minus := k.Let(asm.CL(1)), k.Let(asm.C(-1))
		i := k.Local(asm.I32)
		v := k.Local(asm.I64)
		k.Up(i, r.E, func() {
			k.Set(v, asm.L64(src.Add(i.ShlI(3)), 0))
			k.If(v.EqI(0).And(k.Attr(0).Eqz()), func() {
				k.Check(i.LtU(Rank(x)), abi.ErrShape, i.ExtU(), asm.CL(0))
				k.Set(v, Dim(x, i.E))
			})
			k.If(v.EqI(-1), func() {
				k.Check(minus.LtS(asm.C(0)), abi.ErrShape, i.ExtU(), asm.CL(-1))
				k.Set(minus, i.E)
			}, func() {
				k.Check(v.GeS(asm.CL(0)).And(v.LeS(asm.CL(math.MaxInt32))), abi.ErrShape, i.ExtU(), v.E)
				k.SetDim(y, i.E, v.E)
				k.Set(known, known.Mul(v.E))
				k.Check(known.LeS(asm.CL(math.MaxInt32)), abi.ErrShape, known.E, n.E)
			})
		})
		k.If(minus.GeS(asm.C(0)), func() {
			k.Check(asm.And2(known.NeI(0), asm.Cond(known.Eqz(), asm.C(0), n.RemS(known.E).Eqz())), abi.ErrShape, n.E, known.E)
			k.SetDim(y, minus.E, n.DivS(known.E))
			k.Set(known, n.E)
		})
		k.Check(known.Eq(n.E), abi.ErrShape, n.E, known.E)
		k.SetRank(y, r.E)
	}}
}

// Flatten makes two dims around axis attr0, which may equal the rank.
func Flatten() *Kernel {
	return &Kernel{Name: "Flatten", NOut: 1, Holds: HoldsInput, Run: func(k *K) {
		x, y := k.In(0), k.Out(0)
		a := k.Let(k.Attr(0))
		k.If(a.LtS(asm.CL(0)), func() { k.Set(a, a.Add(Rank(x).ExtU())) })
		k.Index(a, Rank(x).ExtU().AddI(1))
		p := k.prodDims(x, asm.C(0), a.Wrap())
		q := k.prodDims(x, a.Wrap(), Rank(x))
		k.Alias(y, x)
		k.SetRank(y, asm.C(2))
		k.SetDimC(y, 0, p.E)
		k.SetDimC(y, 1, q.E)
	}}
}

// axesMask gathers the axes of an i64 list input as bits, against rank r; an axis given twice is an error.
func (k *K) axesMask(ax V, r E) V {
	mask := k.Let(asm.C(0))
	i := k.Local(asm.I32)
	v := k.Local(asm.I64)
	n := k.Let(k.Numel(ax).Wrap())
	k.Up(i, n.E, func() {
		k.Set(v, asm.L64(Data(ax).Add(i.ShlI(3)), 0))
		k.Index(v, r.ExtU())
		k.Check(mask.ShrU(v.Wrap()).AndI(1).Eqz(), abi.ErrValue, v.E, i.ExtU())
		k.Set(mask, mask.Or(asm.C(1).Shl(v.Wrap())))
	})
	return mask
}

// Squeeze removes dims of size 1, those of input 1 or all.
func Squeeze() *Kernel {
	return &Kernel{Name: "Squeeze", NOut: 1, Holds: HoldsInput, Run: func(k *K) {
		x, y := k.In(0), k.Out(0)
		mask := k.Let(asm.C(0))
		i, j := k.Local(asm.I32), k.Let(asm.C(0))
		r := k.Let(Rank(x))
		k.If(k.HasIn(1), func() { k.Set(mask, k.axesMask(k.In(1), r.E).E) }, func() {
			k.Up(i, r.E, func() {
				k.If(Dim(x, i.E).EqI(1), func() { k.Set(mask, mask.Or(asm.C(1).Shl(i.E))) })
			})
		})
		k.Alias(y, x)
		k.Up(i, r.E, func() {
			k.If(mask.ShrU(i.E).AndI(1), func() {
				k.Check(Dim(x, i.E).EqI(1), abi.ErrShape, i.ExtU(), Dim(x, i.E))
			}, func() {
				k.SetDim(y, j.E, Dim(x, i.E))
				k.Inc(j, 1)
			})
		})
		k.SetRank(y, j.E)
	}}
}

// Unsqueeze inserts dims of size 1 at the axes in input 1.
func Unsqueeze() *Kernel {
	return &Kernel{Name: "Unsqueeze", NOut: 1, Holds: HoldsInput, Run: func(k *K) {
		x, ax, y := k.In(0), k.In(1), k.Out(0)
		r := k.Let(Rank(x).ExtU().Add(k.Numel(ax)))
		k.Check(r.LeS(asm.CL(abi.MaxRank)), abi.ErrRank, r.E, asm.CL(abi.MaxRank))
		rr := k.Let(r.Wrap())
		mask := k.axesMask(ax, rr.E)
		k.Alias(y, x)
		i, j := k.Local(asm.I32), k.Let(asm.C(0))
		k.Up(i, rr.E, func() {
			k.If(mask.ShrU(i.E).AndI(1), func() { k.SetDim(y, i.E, asm.CL(1)) }, func() {
				// A doubled axis leaves more places than dims.
				k.Check(j.LtU(Rank(x)), abi.ErrShape, i.ExtU(), asm.CL(0))
				k.SetDim(y, i.E, Dim(x, j.E))
				k.Inc(j, 1)
			})
		})
		k.SetRank(y, rr.E)
	}}
}

// dimsFrom reads the output's dims from an i64 list.
func (k *K) dimsFrom(y, s V) {
	k.Check(k.Numel(s).LeS(asm.CL(abi.MaxRank)), abi.ErrRank, k.Numel(s), asm.CL(abi.MaxRank))
	k.SetRank(y, k.Numel(s).Wrap())
	k.MemCopy(y.AddI(abi.DescDims), Data(s), k.Numel(s).Wrap().ShlI(3))
}

// ConstantOfShape fills the shape of input 0 with the element whose bits are attr0.
func ConstantOfShape(d DT) *Kernel {
	b := bitsDT(d)
	return &Kernel{Name: nameBits("ConstantOfShape", d), NOut: 1, PrepName: "ConstantOfShape." + d.Name,
		Prep: func(k *K) {
			y := k.Out(0)
			k.dimsFrom(y, k.In(0))
			k.Alloc(y, d)
			k.Work(k.Numel(y), asm.CL(1))
		},
		Range: func(k *K, lo, hi V) {
			p := k.Let(Data(k.Out(0)).Add(lo.ShlI(d.Shift)))
			end := k.Let(p.Add(hi.Sub(lo.E).ShlI(d.Shift)))
			v := k.Attr(0)
			if b.C == asm.I32 {
				v = v.Wrap()
			}
			x := k.Let(v)
			k.While(p.LtU(end.E), func() {
				k.Put(b.Mem, p.E, 0, x.E)
				k.Inc(p, 1<<d.Shift)
			})
		},
	}
}
