package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// BitOps are the two-operand operators on bits by ir name.
func BitOps() []Op2 {
	return []Op2{
		{Name: "BitwiseAnd", Scalar: func(k *K, d DT, a, b E) E { return a.And(b) }},
		{Name: "BitwiseOr", Scalar: func(k *K, d DT, a, b E) E { return a.Or(b) }},
		{Name: "BitwiseXor", Scalar: func(k *K, d DT, a, b E) E { return a.Xor(b) }},
	}
}

// BitShift shifts integers; WebAssembly takes the count modulo the width, the operator does not. Signed ones keep their sign to the right.
func BitShift(left bool) Op2 {
	return Op2{Name: fmt.Sprintf("BitShift.%t", left), Cost: 2, Scalar: func(k *K, d DT, a, b E) E {
		v, beyond := a.ShrU(b), asm.Const(d.C, 0)
		switch {
		case left:
			v = a.Shl(b)
		case d.Signed:
			v, beyond = a.ShrS(b), a.ShrSI(int64(d.Bits-1))
		}
		// A negative count is a large one when taken as unsigned.
		return asm.Select(b.LtU(asm.Const(d.C, int64(d.Bits))), v, beyond)
	}}
}

// BitwiseNot flips all bits.
func BitwiseNot() Op1 {
	return Op1{Name: "BitwiseNot", Scalar: func(k *K, d DT, a E) E { return a.Xor(asm.Const(d.C, -1)) }}
}

// BitCast copies bits from d to e, types of the same width; NaNs become canonical.
func BitCast(d, e DT) *Kernel {
	raw := map[int64]DT{0: dtOf(abi.U8), 1: dtOf(abi.U16), 2: dtOf(abi.U32), 3: dtOf(abi.U64)}[d.Shift]
	return &Kernel{
		Name: fmt.Sprintf("BitCast.%s.%s", d.Name, e.Name), NOut: 1, Parallel: true,
		PrepName: "same." + e.Name + ".2", Prep: PrepSame(e, 2),
		Range: func(k *K, lo, hi V) {
			px := k.Let(Data(k.In(0)).Add(lo.ShlI(d.Shift)))
			po := k.Let(Data(k.Out(0)).Add(lo.ShlI(d.Shift)))
			end := k.Let(po.Add(hi.Sub(lo.E).ShlI(d.Shift)))
			v := k.Local(raw.C)
			k.While(po.LtU(end.E), func() {
				k.Set(v, raw.Mem.At(px.E, 0))
				if d.Float {
					// [exponent all ones, quiet NaN] of the type.
					lim := map[abi.DType][2]int64{abi.F16: {0x7c00, 0x7e00}, abi.BF16: {0x7f80, 0x7fc0}, abi.F32: {0x7f800000, 0x7fc00000},
						abi.F64: {0x7ff0000000000000, 0x7ff8000000000000}}[d.ABI]
					mask := int64(uint64(1)<<(d.Bits-1) - 1)
					k.If(v.AndI(mask).GtU(asm.Const(raw.C, lim[0])), func() { k.Set(v, asm.Const(raw.C, lim[1])) })
				}
				if e.ABI == abi.Bool {
					k.Set(v, v.NeI(0))
				}
				if e.Bits < 8 {
					k.Set(v, e.narrow(v.E))
				}
				k.Put(raw.Mem, po.E, 0, v.E)
				k.Inc(po, 1<<d.Shift)
				k.Inc(px, 1<<d.Shift)
			})
		},
	}
}

// Cumulative is CumSum, or CumProd, along the axis in input 1.
func Cumulative(prod, exclusive, reverse bool, d DT) *Kernel {
	return &Kernel{
		Name: fmt.Sprintf("Cumulative.%t.%t.%t.%s", prod, exclusive, reverse, d.Name), NOut: 1, Parallel: true,
		PrepName: "cumulative." + d.Name,
		Prep: func(k *K) {
			x, a, y := k.In(0), k.In(1), k.Out(0)
			k.CopyDims(y, x)
			k.Alloc(y, d)
			k.Check(k.Numel(a).EqI(1), abi.ErrShape, k.Numel(a), asm.CL(1))
			ax := k.Let(asm.L64(Data(a), 0))
			k.Index(ax, Rank(x).ExtU())
			in := k.prodDims(x, ax.Wrap().AddI(1), Rank(x))
			out := k.prodDims(x, asm.C(0), ax.Wrap())
			k.Put(asm.M32, k.Ctx.E, lnN, Dim(x, ax.Wrap()).Wrap())
			k.Put(asm.M32, k.Ctx.E, lnInner, in.Wrap())
			lines := k.Let(out.Mul(in.E))
			k.If(k.Numel(x).Eqz(), func() { k.Set(lines, asm.CL(0)) })
			k.lineWork(lines.E, Dim(x, ax.Wrap()), asm.CL(lineCost(d, 3)), asm.CL(12))
		},
		Range: func(k *K, lo, hi V) {
			dx, dy := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0)))
			px, py, st, j := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			acc, v := k.Local(d.C), k.Local(d.C)
			k.linePieces(lo, hi, func(u, o, i, first, n, stride, from, to V) {
				k.Set(st, stride.ShlI(d.Shift))
				k.Set(px, first.ShlI(d.Shift))
				if reverse {
					k.Set(px, px.Add(n.SubI(1).Mul(st.E)))
					k.Set(st, asm.C(0).Sub(st.E))
				}
				k.Set(px, px.Add(from.Mul(st.E)))
				k.Set(py, dy.Add(px.E))
				k.Set(px, dx.Add(px.E))
				start := asm.Const(d.C, 0)
				if prod {
					start = asm.Const(d.C, 1)
				}
				k.Set(acc, start)
				k.If(from.E, func() { k.Set(acc, k.kept(d, 0)) })
				k.For(j, from.E, to.E, 1, func() {
					k.Set(v, k.Load(d, px.E, 0))
					if exclusive {
						k.Store(d, py.E, 0, acc.E)
					}
					if prod {
						k.Set(acc, acc.Mul(v.E))
					} else {
						k.Set(acc, acc.Add(v.E))
					}
					if !exclusive {
						k.Store(d, py.E, 0, acc.E)
					}
					k.Set(px, px.Add(st.E))
					k.Set(py, py.Add(st.E))
				})
				k.If(to.Ne(n.E), func() { k.keep(d, 0, acc) })
			})
		},
	}
}
