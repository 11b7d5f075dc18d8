package kernel

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

func floatVec(v func(t T, a, b E) E) func(d DT) func(a, b E) E {
	return func(d DT) func(a, b E) E {
		if d.ABI != abi.F32 && d.ABI != abi.F64 {
			return nil
		}
		return func(a, b E) E { return v(d.C, a, b) }
	}
}

func boolOut(DT) DT { return dtOf(abi.Bool) }

func cmp(name string, f func(d DT, a, b E) E) Op2 {
	return Op2{Name: name, Out: boolOut, Scalar: func(k *K, d DT, a, b E) E { return f(d, a, b) }}
}

// Op2s are the two-operand operators by ir name.
func Op2s() map[string]Op2 {
	ops := []Op2{
		{Name: "Add", Scalar: func(k *K, d DT, a, b E) E { return a.Add(b) }, Vec: floatVec(asm.VAdd)},
		{Name: "Sub", Scalar: func(k *K, d DT, a, b E) E { return a.Sub(b) }, Vec: floatVec(asm.VSub)},
		{Name: "Mul", Scalar: func(k *K, d DT, a, b E) E { return a.Mul(b) }, Vec: floatVec(asm.VMul)},
		{Name: "Div", Scalar: divide, Vec: floatVec(asm.VDiv), Cost: 5, Bad: byZero},
		{Name: "Min", Scalar: func(k *K, d DT, a, b E) E {
			if d.Float {
				return a.Min(b)
			}
			return asm.Select(d.Lt(b, a), b, a)
		}, Vec: floatVec(asm.VMin), Cost: 2},
		{Name: "Max", Scalar: func(k *K, d DT, a, b E) E {
			if d.Float {
				return a.Max(b)
			}
			return asm.Select(d.Lt(a, b), b, a)
		}, Vec: floatVec(asm.VMax), Cost: 2},
		{Name: "And", Scalar: func(k *K, d DT, a, b E) E { return a.And(b) }},
		{Name: "Or", Scalar: func(k *K, d DT, a, b E) E { return a.Or(b) }},
		{Name: "Xor", Scalar: func(k *K, d DT, a, b E) E { return a.Xor(b) }},
		cmp("Equal", func(d DT, a, b E) E { return a.Eq(b) }),
		cmp("Less", func(d DT, a, b E) E { return d.Lt(a, b) }),
		cmp("Greater", func(d DT, a, b E) E { return d.Lt(b, a) }),
		cmp("LessOrEqual", func(d DT, a, b E) E {
			if d.Float {
				return a.Le(b)
			}
			return d.Lt(b, a).Eqz()
		}),
		cmp("GreaterOrEqual", func(d DT, a, b E) E {
			if d.Float {
				return a.Ge(b)
			}
			return d.Lt(a, b).Eqz()
		}),
	}
	m := map[string]Op2{}
	for _, o := range ops {
		m[o.Name] = o
	}
	return m
}

// byZero is an integer divisor of 0.
func byZero(d DT, _, b E) E {
	if d.Float {
		return E{}
	}
	return b.Eqz()
}

// divide truncates; MIN / -1 = MIN, and x / 0 = 0 where no caller refused it.
func divide(k *K, d DT, a, b E) E {
	switch {
	case d.Float:
		return a.Div(b)
	case !d.Signed:
		return asm.Cond(b.Eqz(), asm.Const(d.C, 0), a.DivU(b))
	}
	return asm.Cond(b.Eqz(), asm.Const(d.C, 0), asm.Cond(b.EqI(-1), asm.Const(d.C, 0).Sub(a), a.DivS(b)))
}

// Mod is the remainder: fmod takes the sign of the dividend, the other form that of the divisor.
func Mod(fmod bool) Op2 {
	if fmod {
		return Op2{Name: "FMod", Cost: 20, Worst: farApart, Bad: byZero, Scalar: func(k *K, d DT, a, b E) E {
			switch {
			case d.Float && d.C == asm.F64:
				return asm.Call(asm.F64, k.L.fmod64(), a, b)
			case d.Float:
				return asm.Call(asm.F64, k.L.fmod64(), a.Promote(), b.Promote()).Demote()
			case !d.Signed:
				return asm.Cond(b.Eqz(), asm.Const(d.C, 0), a.RemU(b))
			}
			return asm.Cond(b.Eqz(), asm.Const(d.C, 0), a.RemS(b))
		}}
	}
	return Op2{Name: "Mod", Cost: 20, Worst: farApart, Bad: byZero, Scalar: func(k *K, d DT, a, b E) E {
		switch {
		case d.Float:
			x, y, z := a, b, asm.Const(d.C, 0)
			m := func(x, y E) E {
				if d.C == asm.F64 {
					return asm.Call(asm.F64, k.L.fmod64(), x, y)
				}
				return asm.Call(asm.F64, k.L.fmod64(), x.Promote(), y.Promote()).Demote()
			}
			r := k.Let(m(x, y))
			k.If(r.Eq(z), func() { k.Set(r, z.CopySign(y)) }, func() {
				k.If(r.Lt(z).Ne(y.Lt(z)), func() { k.Set(r, r.Add(y)) })
			})
			return r.E
		case !d.Signed:
			return asm.Cond(b.Eqz(), asm.Const(d.C, 0), a.RemU(b))
		}
		r := k.Let(asm.Cond(b.Eqz(), asm.Const(d.C, 0), a.RemS(b)))
		k.If(asm.And2(r.NeI(0), r.Xor(b).LtS(asm.Const(d.C, 0))), func() { k.Set(r, r.Add(b)) })
		return r.E
	}}
}

// fmod64 is the exact truncated remainder, by long division on the significands.
func (l *Lib) fmod64() uint32 {
	return l.Fn("fmod_f64", []T{asm.F64, asm.F64}, d1, func(f *asm.Fn) {
		x, y := f.Param(0), f.Param(1)
		a, b := f.Let(x.Abs()), f.Let(y.Abs())
		inf := asm.CD(-negInf)
		f.If(a.Lt(inf).And(b.Gt(asm.CD(0))).Eqz(), func() { f.Return(asm.CD(math.NaN())) })
		t := f.Local(asm.F64)
		f.While(a.Ge(b.E), func() {
			// The largest b*2^k not above a: by exponents, one too large at most.
			f.Set(t, b.E)
			f.While(t.Add(t.E).Le(a.E), func() {
				// Doubling by leaps keeps this loop short: at most 11 rounds of squaring steps each.
				s := f.Let(asm.CD(2))
				f.While(t.Mul(s.E).Mul(s.E).Le(a.E).And(s.Lt(asm.CD(0x1p512))), func() { f.Set(s, s.Mul(s.E)) })
				f.Set(t, t.Mul(s.E))
			})
			f.Set(a, a.Sub(t.E))
		})
		f.Return(a.CopySign(x.E))
	})
}

// Pow raises base type d to an exponent of type e, whose result has type d.
func Pow(d, e DT) *Kernel {
	op := Op2{Name: "Pow", Cost: 40, Scalar: func(k *K, _ DT, a, b E) E {
		wide := func(d DT, x E) E {
			switch d.C {
			case asm.F64:
				return x
			case asm.F32:
				return x.Promote()
			}
			return x.ToF(asm.F64, d.Signed)
		}
		if !d.Float {
			return asm.Call(asm.I64, k.L.powInt(), widen64(d, a), widen64(e, b), asm.C(b2i(e.Signed)))
		}
		r := asm.Call(asm.F64, k.L.pow64(), wide(d, a), wide(e, b))
		if d.C == asm.F32 {
			return r.Demote()
		}
		return r
	}}
	if !d.Float {
		op.Bad = func(_ DT, a, b E) E {
			if !e.Signed || e.Float {
				return E{}
			}
			return a.Eqz().And(b.LtS(asm.Const(b.T, 0)))
		}
		inner := op.Scalar
		op.Scalar = func(k *K, x DT, a, b E) E {
			if d.C == asm.I32 {
				return inner(k, x, a, b).Wrap()
			}
			return inner(k, x, a, b)
		}
	}
	return binary(op, d, e)
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func widen64(d DT, x E) E {
	if x.T == asm.I64 {
		return x
	}
	if d.Signed {
		return x.ExtS()
	}
	return x.ExtU()
}

// powInt(x, n, signed) is wrapping square and multiply; a negative n gives 0 except for x = 1 and -1.
func (l *Lib) powInt() uint32 {
	return l.Fn("pow_int", []T{asm.I64, asm.I64, asm.I32}, []T{asm.I64}, func(f *asm.Fn) {
		x, n := f.Param(0), f.Param(1)
		r := f.Let(asm.CL(1))
		f.If(f.Param(2).And(n.LtS(asm.CL(0))), func() {
			f.If(x.EqI(1), func() { f.Return(asm.CL(1)) })
			f.If(x.EqI(-1), func() { f.Return(asm.Select(n.AndI(1).Wrap(), asm.CL(-1), asm.CL(1))) })
			f.Return(asm.CL(0))
		})
		f.While(n.NeI(0), func() {
			f.If(n.AndI(1).Wrap(), func() { f.Set(r, r.Mul(x.E)) })
			f.Set(n, n.ShrUI(1))
			f.Set(x, x.Mul(x.E))
		})
		f.Return(r.E)
	})
}

// fn1 applies an f32x4 function and an f64 function.
func fn1(name string, cost int64, v func(l *Lib) uint32, s func(l *Lib) uint32) Op1 {
	return Op1{Name: name, Cost: cost,
		Scalar: func(k *K, d DT, a E) E {
			if d.C == asm.F32 {
				return asm.Call(asm.V128, v(k.L), asm.Splat(a)).Lane(asm.F32, 0)
			}
			return asm.Call(asm.F64, s(k.L), a)
		},
		Vec:   func(k *K, d DT, a E) E { return asm.Call(asm.V128, v(k.L), a) },
		VecOK: func(d DT) bool { return d.ABI == abi.F32 },
	}
}

// Op1s are the one-operand operators by ir name.
func Op1s() map[string]Op1 {
	fvec := func(v func(t T, a E) E) func(k *K, d DT, a E) E {
		return func(k *K, d DT, a E) E { return v(d.C, a) }
	}
	ops := []Op1{
		{Name: "Not", Scalar: func(k *K, d DT, a E) E { return a.Eqz() }},
		{Name: "Neg", Scalar: func(k *K, d DT, a E) E {
			if d.Float {
				return a.Neg()
			}
			return asm.Const(d.C, 0).Sub(a)
		}, Vec: fvec(asm.VNeg)},
		{Name: "Abs", Scalar: func(k *K, d DT, a E) E {
			switch {
			case d.Float:
				return a.Abs()
			case !d.Signed:
				return a
			}
			return asm.Select(a.LtS(asm.Const(d.C, 0)), asm.Const(d.C, 0).Sub(a), a)
		}, Vec: fvec(asm.VAbs)},
		{Name: "Sign", Scalar: func(k *K, d DT, a E) E {
			z := asm.Const(d.C, 0)
			switch {
			case d.Float:
				return asm.Select(a.Ne(a), a, a.Gt(z).Sub(a.Lt(z)).ToF(d.C, true))
			case !d.Signed:
				return asm.Select(a.Eqz(), z, asm.Const(d.C, 1))
			}
			return asm.Select(a.LtS(z), asm.Const(d.C, -1), asm.Select(a.Eqz(), z, asm.Const(d.C, 1)))
		}},
		{Name: "Floor", Scalar: func(k *K, d DT, a E) E { return a.Floor() }, Vec: fvec(asm.VFloor)},
		{Name: "Ceil", Scalar: func(k *K, d DT, a E) E { return a.Ceil() }, Vec: fvec(asm.VCeil)},
		{Name: "Round", Scalar: func(k *K, d DT, a E) E { return a.Nearest() }, Vec: fvec(asm.VNearest)},
		{Name: "Sqrt", Scalar: func(k *K, d DT, a E) E { return a.Sqrt() }, Vec: fvec(asm.VSqrt), Cost: 4},
		{Name: "Relu", Scalar: func(k *K, d DT, a E) E {
			z := asm.Const(d.C, 0)
			return asm.Select(d.Lt(a, z), z, a)
		}, Vec: func(k *K, d DT, a E) E { return asm.VPMax(d.C, a, asm.VC(d.C, 0)) }},
		fn1("Exp", 6, (*Lib).vexp32, (*Lib).exp64),
		fn1("Log", 10, (*Lib).vlog32, (*Lib).log64),
		fn1("Tanh", 8, (*Lib).vtanh32, (*Lib).tanh64),
		fn1("Sigmoid", 8, (*Lib).vsigmoid32, (*Lib).sigmoid64),
		fn1("Erf", 16, (*Lib).verf32, (*Lib).erf64),
	}
	m := map[string]Op1{}
	for _, o := range ops {
		m[o.Name] = o
	}
	return m
}

// convert changes a value of compute type from d to e by the Cast rules.
func (k *K) convert(d, e DT, x E) E {
	switch {
	case e.ABI == abi.Bool:
		return x.Ne(asm.Const(d.C, 0))
	case d.Float && e.Float:
		switch {
		case d.C == e.C:
			return x
		case d.C == asm.F32:
			return x.Promote()
		}
		return x.Demote()
	case d.Float:
		if e.Bits < 8 {
			return x.TruncSat(asm.I32, true)
		}
		if e.Bits >= 32 {
			return x.TruncSat(e.C, e.Signed)
		}
		v := k.Let(x.TruncSat(asm.I32, true))
		lo, hi := int64(0), int64(1)<<e.Bits-1
		if e.Signed {
			lo, hi = -1<<(e.Bits-1), 1<<(e.Bits-1)-1
		}
		k.If(v.LtS(asm.C(lo)), func() { k.Set(v, asm.C(lo)) })
		k.If(v.GtS(asm.C(hi)), func() { k.Set(v, asm.C(hi)) })
		return v.E
	case e.Float:
		return x.ToF(e.C, d.Signed)
	case d.C == e.C:
		return x
	case d.C == asm.I64:
		return x.Wrap()
	case d.Signed:
		return x.ExtS()
	}
	return x.ExtU()
}

// Cast converts elements from d to e.
func Cast(d, e DT) *Kernel {
	return &Kernel{
		Name: fmt.Sprintf("Cast.%s.%s", d.Name, e.Name), NOut: 1, Parallel: true, InPlace: []int{0},
		PrepName: "same." + e.Name + ".2", Prep: PrepSame(e, 2),
		Range: func(k *K, lo, hi V) {
			px := k.Let(Data(k.In(0)).Add(lo.ShlI(d.Shift)))
			po := k.Let(Data(k.Out(0)).Add(lo.ShlI(e.Shift)))
			end := k.Let(po.Add(hi.Sub(lo.E).ShlI(e.Shift)))
			x := k.Local(d.C)
			k.While(po.LtU(end.E), func() {
				k.Set(x, k.Load(d, px.E, 0))
				switch {
				// One rounding from f64 to f16; bf16 is reached from f64 through an odd rounding that keeps it single.
				case e.ABI == abi.F16 && d.C == asm.F64:
					k.Put(asm.M16U, po.E, 0, asm.Call(asm.I32, k.L.f64to16(), x.E))
				case e.ABI == abi.F16 && d.C == asm.I64, e.ABI == abi.F16 && d.C == asm.I32:
					k.Put(asm.M16U, po.E, 0, asm.Call(asm.I32, k.L.f64to16(), x.ToF(asm.F64, d.Signed)))
				case e.ABI == abi.BF16 && d.C == asm.F64:
					k.Put(asm.M16U, po.E, 0, asm.Call(asm.I32, k.L.f64toBF16(), x.E))
				case e.ABI == abi.BF16 && (d.C == asm.I64 || d.C == asm.I32):
					k.Put(asm.M16U, po.E, 0, asm.Call(asm.I32, k.L.f64toBF16(), x.ToF(asm.F64, d.Signed)))
				default:
					k.Store(e, po.E, 0, k.convert(d, e, x.E))
				}
				k.Inc(po, 1<<e.Shift)
				k.Inc(px, 1<<d.Shift)
			})
		},
	}
}

// f64toBF16 rounds once: to f32 with the inexact bit kept sticky (round to odd), then to bf16.
func (l *Lib) f64toBF16() uint32 {
	return l.Fn("f64_to_bf16", d1, []T{asm.I32}, func(f *asm.Fn) {
		x := f.Param(0)
		y := f.Let(x.Demote())
		b := f.Let(y.Bits())
		f.If(And2Finite(x, y).And(y.Promote().Ne(x.E)), func() {
			// Step back to the neighbour toward zero when the conversion rounded away, then set the sticky bit.
			f.If(y.Promote().Abs().Gt(x.Abs()), func() { f.Set(b, b.SubI(1)) })
			f.Set(b, b.Or(asm.C(1)))
		})
		f.Return(asm.Call(asm.I32, l.f32toBF16(), b.Bits()))
	})
}

// And2Finite is 1 when x is a number and not infinite.
func And2Finite(x, _ V) E { return x.Abs().Lt(asm.CD(-negInf)) }

// Where chooses by a bool; it copies bits, so one kernel serves all types of a width.
func Where(d DT) *Kernel {
	bits := map[int64]DT{0: dtOf(abi.U8), 1: dtOf(abi.U16), 2: dtOf(abi.U32), 3: dtOf(abi.U64)}[d.Shift]
	return &Kernel{
		Name: "Where." + bits.Name, NOut: 1, Parallel: true, InPlace: []int{1, 2},
		PrepName: "broadcast3." + d.Name, Prep: prepBroadcast(3, d, 2),
		Range: func(k *K, lo, hi V) {
			dc, da, db, do := k.Let(Data(k.In(0))), k.Let(Data(k.In(1))), k.Let(Data(k.In(2))), k.Let(Data(k.Out(0)))
			c, a, b, po, end := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.walk(3, lo, hi, func(pos, n V, off, str []V) {
				k.Set(c, dc.Add(off[0].E))
				k.Set(a, da.Add(off[1].ShlI(d.Shift)))
				k.Set(b, db.Add(off[2].ShlI(d.Shift)))
				k.Set(po, do.Add(pos.ShlI(d.Shift)))
				k.Set(end, po.Add(n.ShlI(d.Shift)))
				k.While(po.LtU(end.E), func() {
					k.Put(bits.Mem, po.E, 0, bits.Mem.At(asm.Select(asm.M8U.At(c.E, 0), a.E, b.E), 0))
					k.Inc(po, 1<<d.Shift)
					k.Set(c, c.Add(str[0].E))
					k.Set(a, a.Add(str[1].ShlI(d.Shift)))
					k.Set(b, b.Add(str[2].ShlI(d.Shift)))
				})
			})
		},
	}
}

// farApart is what a remainder costs whose operands are as far apart as they can be: a step for each bit.
func farApart(d DT) int64 {
	switch {
	case d.ABI == abi.F64:
		return 6000
	case d.ABI == abi.F32 || d.ABI == abi.BF16:
		return 1000
	case d.Float:
		return 150
	}
	return 0
}
