package kernel

import (
	"math"

	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Circular and hyperbolic functions of docs/numerics.md, section 2.3, in f64.

// fn64 applies an f64 function, also to f32 operands.
func fn64(name string, cost int64, s func(l *Lib) uint32) Op1 {
	return Op1{Name: name, Cost: cost, Scalar: func(k *K, d DT, a E) E {
		if d.C == asm.F32 {
			return asm.Call(asm.F64, s(k.L), a.Promote()).Demote()
		}
		return asm.Call(asm.F64, s(k.L), a)
	}}
}

// TrigOps are the circular and hyperbolic operators.
func TrigOps() []Op1 {
	circ := func(name string) Op1 {
		return fn64(name, 40, func(l *Lib) uint32 { return l.circular(name) })
	}
	return []Op1{
		circ("Sin"), circ("Cos"), circ("Tan"),
		fn64("Asin", 26, (*Lib).asin64), fn64("Acos", 26, (*Lib).acos64), fn64("Atan", 18, (*Lib).atan64),
		fn64("Sinh", 24, (*Lib).sinh64), fn64("Cosh", 24, (*Lib).cosh64),
		fn64("Asinh", 36, (*Lib).asinh64), fn64("Acosh", 36, (*Lib).acosh64), fn64("Atanh", 30, (*Lib).atanh64),
	}
}

// twoOverPi(i) is word i of the binary digits of 2/pi, behind one word of zeros. Small angles need the first words only.
func (l *Lib) twoOverPi() uint32 {
	return l.Fn("two_over_pi", []T{asm.I32}, []T{asm.I64}, func(f *asm.Fn) {
		i := f.Param(0)
		for n, w := range []uint64{0,
			0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561, 0xb7246e3a424dd2e0, 0x06492eea09d1921c,
			0xfe1deb1cb129a73e, 0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b, 0x1ff897ffde05980f,
			0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d, 0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08,
			0x56033046fc7b6bab} {
			f.If(i.EqI(int64(n)), func() { f.Return(asm.CL(int64(w))) })
		}
		f.Return(asm.CL(0))
	})
}

// mulHi is the upper half of the 128-bit product.
func (l *Lib) mulHi() uint32 {
	return l.Fn("mul_hi_u64", []T{asm.I64, asm.I64}, []T{asm.I64}, func(f *asm.Fn) {
		a, b := f.Param(0), f.Param(1)
		const m = 1<<32 - 1
		a0, a1 := f.Let(a.AndI(m)), f.Let(a.ShrUI(32))
		b0, b1 := f.Let(b.AndI(m)), f.Let(b.ShrUI(32))
		t := f.Let(a1.Mul(b0.E).Add(a0.Mul(b0.E).ShrUI(32)))
		w := f.Let(t.AndI(m).Add(a0.Mul(b1.E)))
		f.Return(a1.Mul(b1.E).Add(t.ShrUI(32)).Add(w.ShrUI(32)))
	})
}

// reduceAngle writes t = q*pi/2 + z for a finite t >= 0.
func (l *Lib) reduceAngle(f *asm.Fn, t V) (q, z V) {
	q, z = f.Local(asm.I64), f.Let(t.E)
	f.If(t.Ge(asm.CD(0x1.921fb54442d18p-1)), func() {
		b := f.Let(t.Bits())
		m := f.Let(b.AndI(1<<52 - 1).Or(asm.CL(1 << 52)))
		off := f.Let(b.ShrUI(52).SubI(1075 - 62))
		d, s := f.Let(off.ShrUI(6).Wrap()), f.Let(off.AndI(63))
		var w, x [4]V
		for i := range w {
			w[i] = f.Let(asm.Call(asm.I64, l.twoOverPi(), d.AddI(int64(i))))
		}
		for i := range 3 {
			x[i] = f.Let(w[i].Shl(s.E).Or(w[i+1].ShrUI(1).ShrU(asm.CL(63).Sub(s.E))))
		}
		h2 := f.Let(asm.Call(asm.I64, l.mulHi(), x[2].E, m.E))
		lo := f.Let(x[1].Mul(m.E).Add(h2.E))
		hi := f.Let(x[0].Mul(m.E).Add(asm.Call(asm.I64, l.mulHi(), x[1].E, m.E)).Add(lo.LtU(h2.E).ExtU()))
		f.Set(q, hi.ShrUI(62))
		f.Set(hi, hi.ShlI(2).Or(lo.ShrUI(62)))
		f.Set(lo, lo.ShlI(2))
		neg := f.Let(hi.LtS(asm.CL(0)))
		f.If(neg.E, func() {
			f.Inc(q, 1)
			f.Set(hi, hi.Xor(asm.CL(-1)))
			f.Set(lo, lo.Xor(asm.CL(-1)))
		})
		lz := f.Let(hi.Or(asm.CL(1)).Clz())
		f.Set(hi, hi.Shl(lz.E).Or(lo.ShrUI(1).ShrU(asm.CL(63).Sub(lz.E))))
		f.Set(z, hi.ToF(asm.F64, false).Mul(asm.CL(1023-64).Sub(lz.E).ShlI(52).Bits()).Mul(asm.CD(0x1.921fb54442d18p+0)))
		f.If(neg.E, func() { f.Set(z, z.Neg()) })
	})
	return q, z
}

func (l *Lib) sinPoly() uint32 {
	return l.Fn("sin_poly", d1, d1, func(f *asm.Fn) {
		z := f.Param(0)
		s := f.Let(z.Mul(z.E))
		p := horner64(f, s.E, 0x1.5d93a5acfd57cp-33, -0x1.ae5e68a2b9cebp-26, 0x1.71de357b1fe7dp-19, -0x1.a01a019c161d5p-13, 0x1.111111110f8a6p-7,
			-0x1.5555555555549p-3)
		f.Return(z.Add(z.Mul(s.E).Mul(p.E)))
	})
}

func (l *Lib) cosPoly() uint32 {
	return l.Fn("cos_poly", d1, d1, func(f *asm.Fn) {
		z := f.Param(0)
		s := f.Let(z.Mul(z.E))
		p := horner64(f, s.E, -0x1.8fae9be8838d4p-37, 0x1.1ee9ebdb4b1c4p-29, -0x1.27e4f809c52adp-22, 0x1.a01a019cb159p-16, -0x1.6c16c16c15177p-10,
			0x1.555555555554cp-5)
		h := f.Let(asm.CD(0.5).Mul(s.E))
		w := f.Let(asm.CD(1).Sub(h.E))
		f.Return(w.Add(asm.CD(1).Sub(w.E).Sub(h.E).Add(s.Mul(s.Mul(p.E)))))
	})
}

// circular is Sin, Cos or Tan.
func (l *Lib) circular(op string) uint32 {
	return l.Fn(op+"_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		f.If(t.Le(asm.CD(math.MaxFloat64)).Eqz(), func() { f.Return(asm.CD(math.NaN())) })
		q, z := l.reduceAngle(f, t)
		y := f.Local(asm.F64)
		sin, cos := asm.Call(asm.F64, l.sinPoly(), z.E), asm.Call(asm.F64, l.cosPoly(), z.E)
		if op == "Tan" {
			s, c := f.Let(sin), f.Let(cos)
			f.If(q.AndI(1).Wrap(), func() { f.Set(y, c.Neg().Div(s.E)) }, func() { f.Set(y, s.Div(c.E)) })
		} else {
			if op == "Cos" {
				f.Inc(q, 1)
			}
			f.If(q.AndI(1).Wrap(), func() { f.Set(y, cos) }, func() { f.Set(y, sin) })
			f.If(q.AndI(2).Wrap(), func() { f.Set(y, y.Neg()) })
		}
		if op != "Cos" {
			f.If(x.Bits().LtS(asm.CL(0)), func() { f.Set(y, y.Neg()) })
		}
		f.Return(y.E)
	})
}

func (l *Lib) atan64() uint32 {
	return l.Fn("atan_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		u, hi, lo := f.Let(t.E), f.Local(asm.F64), f.Local(asm.F64)
		part := func(v E, h, o float64) {
			f.Set(u, v)
			f.Set(hi, asm.CD(h))
			f.Set(lo, asm.CD(o))
		}
		c := asm.CD
		near := f.Let(t.Lt(c(0.4375)))
		f.If(near.Eqz(), func() {
			f.If(t.Lt(c(0.6875)), func() {
				part(t.Add(t.E).Sub(c(1)).Div(c(2).Add(t.E)), 0x1.dac670561bb4fp-2, 0x1.a2b7f222f65e2p-56)
			}, func() {
				f.If(t.Lt(c(1.1875)), func() {
					part(t.Sub(c(1)).Div(t.Add(c(1))), 0x1.921fb54442d18p-1, 0x1.1a62633145c07p-55)
				}, func() {
					f.If(t.Lt(c(2.4375)), func() {
						part(t.Sub(c(1.5)).Div(c(1).Add(c(1.5).Mul(t.E))), 0x1.f730bd281f69bp-1, 0x1.007887af0cbbdp-56)
					}, func() {
						part(c(-1).Div(t.E), 0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54)
					})
				})
			})
		})
		s := f.Let(u.Mul(u.E))
		p := horner64(f, s.E, 0x1.0ad3ae322da11p-6, -0x1.2b4442c6a6c2fp-5, 0x1.97b4b24760debp-5, -0x1.dde2d52defd9ap-5, 0x1.10d66a0d03d51p-4,
			-0x1.3b0f2af749a6dp-4, 0x1.745cdc54c206ep-4, -0x1.c71c6fe231671p-4, 0x1.24924920083ffp-3, -0x1.999999998ebc4p-3, 0x1.555555555550dp-2)
		f.Set(p, s.Mul(p.E))
		f.If(near.E, func() { f.Return(u.Sub(u.Mul(p.E)).CopySign(x.E)) })
		f.Return(hi.Sub(u.Mul(p.E).Sub(lo.E).Sub(u.E)).CopySign(x.E))
	})
}

func (l *Lib) asin64() uint32 {
	return l.Fn("asin_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		f.Return(asm.Call(asm.F64, l.atan64(), x.Div(asm.CD(1).Sub(x.E).Mul(asm.CD(1).Add(x.E)).Sqrt())))
	})
}

func (l *Lib) acos64() uint32 {
	return l.Fn("acos_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		f.Return(asm.CD(2).Mul(asm.Call(asm.F64, l.atan64(), asm.CD(1).Sub(x.E).Div(asm.CD(1).Add(x.E)).Sqrt())))
	})
}

// halfExp returns (0.5*e)*e for e = exp(t/2), which overflows only where the result does.
func (l *Lib) halfExp(f *asm.Fn, t V) E {
	e := f.Let(asm.Call(asm.F64, l.exp64(), asm.CD(0.5).Mul(t.E)))
	return asm.CD(0.5).Mul(e.E).Mul(e.E)
}

func (l *Lib) sinh64() uint32 {
	return l.Fn("sinh_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		f.If(t.Lt(asm.CD(1)), func() {
			s := f.Let(t.Mul(t.E))
			p := horner64(f, s.E, 0x1.2f49b46814157p-57, 0x1.952c77030ad4ap-49, 0x1.ae7f3e733b81fp-41, 0x1.6124613a86d09p-33, 0x1.ae64567f544e4p-26,
				0x1.71de3a556c734p-19, 0x1.a01a01a01a01ap-13, 0x1.1111111111111p-7, 0x1.5555555555555p-3)
			f.Return(t.Add(t.Mul(s.E).Mul(p.E)).CopySign(x.E))
		})
		f.If(t.Le(asm.CD(709)), func() {
			e := f.Let(asm.Call(asm.F64, l.exp64(), t.E))
			f.Return(asm.CD(0.5).Mul(e.E).Sub(asm.CD(0.5).Div(e.E)).CopySign(x.E))
		})
		f.Return(l.halfExp(f, t).CopySign(x.E))
	})
}

func (l *Lib) cosh64() uint32 {
	return l.Fn("cosh_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		f.If(t.Le(asm.CD(709)), func() {
			e := f.Let(asm.Call(asm.F64, l.exp64(), t.E))
			f.Return(asm.CD(0.5).Mul(e.E).Add(asm.CD(0.5).Div(e.E)))
		})
		f.Return(l.halfExp(f, t))
	})
}

func (l *Lib) log1p64() uint32 {
	return l.Fn("log1p_f64", d1, d1, func(f *asm.Fn) {
		u := f.Param(0)
		w := f.Let(asm.CD(1).Add(u.E))
		f.If(w.Eq(asm.CD(1)).Or(w.Gt(asm.CD(math.MaxFloat64))), func() { f.Return(u.E) })
		f.Return(asm.Call(asm.F64, l.log64(), w.E).Mul(u.Div(w.Sub(asm.CD(1)))))
	})
}

const ln2 = 0x1.62e42fefa39efp-1

func (l *Lib) asinh64() uint32 {
	return l.Fn("asinh_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		f.If(t.Ge(asm.CD(0x1p28)), func() {
			f.Return(asm.Call(asm.F64, l.log64(), t.E).Add(asm.CD(ln2)).CopySign(x.E))
		})
		s := f.Let(t.Mul(t.E))
		u := t.Add(s.Div(asm.CD(1).Add(asm.CD(1).Add(s.E).Sqrt())))
		f.Return(asm.Call(asm.F64, l.log1p64(), u).CopySign(x.E))
	})
}

func (l *Lib) acosh64() uint32 {
	return l.Fn("acosh_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		f.If(x.Lt(asm.CD(1)), func() { f.Return(asm.CD(math.NaN())) })
		f.If(x.Ge(asm.CD(0x1p28)), func() { f.Return(asm.Call(asm.F64, l.log64(), x.E).Add(asm.CD(ln2))) })
		u := f.Let(x.Sub(asm.CD(1)))
		f.Return(asm.Call(asm.F64, l.log1p64(), u.Add(u.Mul(u.Add(asm.CD(2))).Sqrt())))
	})
}

func (l *Lib) atanh64() uint32 {
	return l.Fn("atanh_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		f.Return(asm.CD(0.5).Mul(asm.Call(asm.F64, l.log1p64(), t.Add(t.E).Div(asm.CD(1).Sub(t.E)))).CopySign(x.E))
	})
}
