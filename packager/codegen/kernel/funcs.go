package kernel

import (
	"math"

	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Elementary functions of docs/numerics.md, section 2. The f32 ones exist as four-lane functions; the scalar form
// is lane 0 of the same code, so a vector loop and its tail cannot differ.

var negInf = math.Inf(-1)

var (
	v1 = []T{asm.V128}
	d1 = []T{asm.F64}
)

type vf struct{ *asm.Fn }

func vmul(a, b E) E  { return asm.VMul(asm.F32, a, b) }
func vadd(a, b E) E  { return asm.VAdd(asm.F32, a, b) }
func vsub(a, b E) E  { return asm.VSub(asm.F32, a, b) }
func vc(v float64) E { return asm.VC(asm.F32, v) }
func (f vf) vhorner(x E, cs ...float64) V {
	p := f.Let(vc(cs[0]))
	for _, c := range cs[1:] {
		f.Set(p, vadd(vmul(p.E, x), vc(c)))
	}
	return p
}

func (l *Lib) vexp32() uint32 {
	return l.Fn("exp_f32x4", v1, v1, func(fn *asm.Fn) {
		f := vf{fn}
		x := f.Param(0)
		f.Set(x, asm.VPMin(asm.F32, x.E, vc(104)))
		f.Set(x, asm.VPMax(asm.F32, x.E, vc(-104)))
		n := f.Let(asm.VNearest(asm.F32, vmul(x.E, vc(0x1.715476p+0))))
		r := f.Let(vsub(x.E, vmul(n.E, vc(0x1.63p-1))))
		f.Set(r, vsub(r.E, vmul(n.E, vc(-0x1.bd0106p-13))))
		p := f.vhorner(r.E, 0x1.a0d2cep-13, 0x1.6e879cp-10, 0x1.11121p-7, 0x1.555382p-5, 0x1.555554p-3, 0x1p-1)
		y := f.Let(vadd(vadd(vmul(p.E, vmul(r.E, r.E)), r.E), vc(1)))
		k := f.Let(asm.VTruncSat32S(n.E))
		k1 := f.Let(asm.VI32ShrS(k.E, asm.C(1)))
		pow2 := func(e E) E { return asm.VI32Shl(asm.VI32Add(e, asm.VC32(127)), asm.C(23)) }
		f.Return(vmul(vmul(y.E, pow2(k1.E)), pow2(asm.VI32Sub(k.E, k1.E))))
	})
}

func (l *Lib) vlog32() uint32 {
	return l.Fn("log_f32x4", v1, v1, func(fn *asm.Fn) {
		f := vf{fn}
		x := f.Param(0)
		tiny := f.Let(asm.VLt(asm.F32, x.E, vc(0x1p-126)))
		b := f.Let(asm.VSelect(vmul(x.E, vc(0x1p23)), x.E, tiny.E))
		e := f.Let(asm.VI32Sub(asm.VI32ShrU(b.E, asm.C(23)), asm.VC32(126)))
		f.Set(e, asm.VI32Sub(e.E, asm.VAnd(tiny.E, asm.VC32(23))))
		m := f.Let(asm.VOr(asm.VAnd(b.E, asm.VC32(0x7fffff)), asm.VC32(0x3f000000)))
		low := f.Let(asm.VLt(asm.F32, m.E, vc(0x1.6a09e6p-1)))
		f.Set(e, asm.VI32Add(e.E, low.E)) // the mask is -1
		f.Set(m, asm.VSelect(vadd(m.E, m.E), m.E, low.E))
		f.Set(m, vsub(m.E, vc(1)))
		z := f.Let(vmul(m.E, m.E))
		y := f.vhorner(m.E, 0x1.204376p-4, -0x1.d7a37p-4, 0x1.de4a34p-4, -0x1.fcba9ep-4, 0x1.23d37ep-3,
			-0x1.555cap-3, 0x1.999d58p-3, -0x1.fffff8p-3, 0x1.555554p-2)
		f.Set(y, vmul(vmul(y.E, m.E), z.E))
		fe := f.Let(asm.VConvert32S(e.E))
		f.Set(y, vadd(y.E, vmul(fe.E, vc(-0x1.bd0106p-13))))
		f.Set(y, vsub(y.E, vmul(vc(0.5), z.E)))
		f.Set(y, vadd(vadd(m.E, y.E), vmul(fe.E, vc(0x1.63p-1))))
		// Special cases, the strongest last: +inf, zero, negative, NaN.
		f.Set(y, asm.VSelect(x.E, y.E, asm.VGt(asm.F32, x.E, vc(math.MaxFloat32))))
		f.Set(y, asm.VSelect(vc(negInf), y.E, asm.VFEq(asm.F32, x.E, vc(0))))
		f.Set(y, asm.VSelect(asm.VC32(0x7fc00000), y.E, asm.VLt(asm.F32, x.E, vc(0))))
		f.Return(asm.VSelect(y.E, asm.VC32(0x7fc00000), asm.VFEq(asm.F32, x.E, x.E)))
	})
}

func (l *Lib) vtanh32() uint32 {
	return l.Fn("tanh_f32x4", v1, v1, func(fn *asm.Fn) {
		f := vf{fn}
		x := f.Param(0)
		t := f.Let(asm.VAbs(asm.F32, x.E))
		s := f.Let(vmul(x.E, x.E))
		p := f.vhorner(s.E, -0x1.75e1d4p-8, 0x1.52269cp-6, -0x1.b83c5ap-5, 0x1.110726p-3, -0x1.555532p-2)
		f.Set(p, vadd(vmul(vmul(p.E, s.E), x.E), x.E))
		e := f.Let(asm.Call(asm.V128, l.vexp32(), vadd(t.E, t.E)))
		r := f.Let(vsub(vc(1), asm.VDiv(asm.F32, vc(2), vadd(e.E, vc(1)))))
		f.Set(r, asm.VOr(r.E, asm.VAnd(x.E, asm.VC32(0x80000000))))
		f.Return(asm.VSelect(p.E, r.E, asm.VLt(asm.F32, t.E, vc(0.625))))
	})
}

func (l *Lib) vsigmoid32() uint32 {
	return l.Fn("sigmoid_f32x4", v1, v1, func(fn *asm.Fn) {
		f := vf{fn}
		x := f.Param(0)
		e := f.Let(asm.Call(asm.V128, l.vexp32(), asm.VOr(x.E, asm.VC32(0x80000000))))
		d := f.Let(vadd(vc(1), e.E))
		neg := asm.VLt(asm.F32, x.E, vc(0))
		f.Return(asm.VDiv(asm.F32, asm.VSelect(e.E, vc(1), neg), d.E))
	})
}

func (l *Lib) verf32() uint32 {
	return l.Fn("erf_f32x4", v1, v1, func(fn *asm.Fn) {
		f := vf{fn}
		x := f.Param(0)
		t := f.Let(asm.VAbs(asm.F32, x.E))
		far := f.Let(asm.VGt(asm.F32, t.E, vc(0x1.dbp-1)))
		s := f.Let(vmul(x.E, x.E))
		p := f.vhorner(s.E, -0x1.38ep-11, 0x1.471a58p-8, -0x1.b691b2p-6, 0x1.ce1c44p-4, -0x1.8127p-2, 0x1.06eba8p-3)
		f.Set(p, vadd(vmul(p.E, x.E), x.E))
		f.Set(t, asm.VPMin(asm.F32, t.E, vc(4)))
		f.Set(s, vmul(t.E, t.E))
		r := f.Let(vadd(vmul(vc(-0x1.22p-16), t.E), vc(0x1.91cfb2p-12)))
		u := f.Let(vadd(vmul(vc(-0x1.fd1438p-9), t.E), vc(0x1.8d6342p-6)))
		f.Set(r, vadd(vmul(r.E, s.E), u.E))
		for _, c := range []float64{-0x1.b55cb8p-4, -0x1.450aap-1, -0x1.079d0cp-3} {
			f.Set(r, vadd(vmul(r.E, t.E), vc(c)))
		}
		f.Set(r, vsub(vmul(r.E, t.E), t.E))
		f.Set(r, vsub(vc(1), asm.Call(asm.V128, l.vexp32(), r.E)))
		f.Set(r, asm.VOr(r.E, asm.VAnd(x.E, asm.VC32(0x80000000))))
		f.Return(asm.VSelect(r.E, p.E, far.E))
	})
}

func horner64(f *asm.Fn, x E, cs ...float64) V {
	p := f.Let(asm.CD(cs[0]))
	for _, c := range cs[1:] {
		f.Set(p, p.Mul(x).Add(asm.CD(c)))
	}
	return p
}

func (l *Lib) exp64() uint32 {
	return l.Fn("exp_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		hiC, loC := f.Let(asm.CD(710)), f.Let(asm.CD(-746))
		f.Set(x, asm.PMin(x.E, hiC.E))
		f.Set(x, asm.PMax(x.E, loC.E))
		n := f.Let(x.Mul(asm.CD(0x1.71547652b82fep+0)).Nearest())
		hi := f.Let(x.Sub(n.Mul(asm.CD(0x1.62e42feep-1))))
		lo := f.Let(n.Mul(asm.CD(0x1.a39ef35793c76p-33)))
		r := f.Let(hi.Sub(lo.E))
		t := f.Let(r.Mul(r.E))
		q := horner64(f, t.E, 0x1.6376972bea4dp-25, -0x1.bbd41c5d26bf1p-20, 0x1.1566aaf25de2cp-14, -0x1.6c16c16bebd93p-9, 0x1.5555555555555p-3)
		c := f.Let(r.Sub(t.Mul(q.E)))
		y := f.Let(asm.CD(1).Sub(lo.Sub(r.Mul(c.E).Div(asm.CD(2).Sub(c.E))).Sub(hi.E)))
		k := f.Let(n.TruncSat(asm.I64, true))
		k1 := f.Let(k.ShrSI(1))
		pow2 := func(e E) E { return e.AddI(1023).ShlI(52).Bits() }
		f.Return(y.Mul(pow2(k1.E)).Mul(pow2(k.Sub(k1.E))))
	})
}

func (l *Lib) log64() uint32 {
	return l.Fn("log_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		f.If(x.Ge(asm.CD(0)).Eqz(), func() { f.Return(asm.CD(math.NaN())) })
		f.If(x.Eq(asm.CD(0)), func() { f.Return(asm.CD(negInf)) })
		f.If(x.Gt(asm.CD(math.MaxFloat64)), func() { f.Return(x.E) })
		e := f.Local(asm.I64)
		f.If(x.Lt(asm.CD(0x1p-1022)), func() {
			f.Set(x, x.Mul(asm.CD(0x1p54)))
			f.Set(e, asm.CL(-54))
		})
		b := f.Let(x.Bits())
		f.Set(e, e.Add(b.ShrUI(52)).SubI(1022))
		m := f.Let(b.AndI(1<<52 - 1).Or(asm.CL(0x3fe0000000000000)).Bits())
		f.If(m.Lt(asm.CD(0x1.6a09e667f3bcdp-1)), func() {
			f.Set(m, m.Add(m.E))
			f.Inc(e, -1)
		})
		g := f.Let(m.Sub(asm.CD(1)))
		k := f.Let(e.ToF(asm.F64, true))
		s := f.Let(g.Div(asm.CD(2).Add(g.E)))
		s2 := f.Let(s.Mul(s.E))
		s4 := f.Let(s2.Mul(s2.E))
		t1 := horner64(f, s4.E, 0x1.2f112df3e5244p-3, 0x1.7466496cb03dep-3, 0x1.2492494229359p-2, 0x1.5555555555593p-1)
		t2 := horner64(f, s4.E, 0x1.39a09d078c69fp-3, 0x1.c71c51d8e78afp-3, 0x1.999999997fa04p-2)
		r := f.Let(s2.Mul(t1.E).Add(s4.Mul(t2.E)))
		h := f.Let(asm.CD(0.5).Mul(g.E).Mul(g.E))
		f.Return(k.Mul(asm.CD(0x1.62e42feep-1)).Sub(
			h.Sub(s.Mul(h.Add(r.E)).Add(k.Mul(asm.CD(0x1.a39ef35793c76p-33)))).Sub(g.E)))
	})
}

func (l *Lib) tanh64() uint32 {
	return l.Fn("tanh_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		f.If(t.Lt(asm.CD(0.625)), func() {
			s := f.Let(x.Mul(x.E))
			p := horner64(f, s.E, -0x1.edc5baafd6f4bp-1, -0x1.8d26a0e26682dp+6, -0x1.93ac030580563p+10)
			q := horner64(f, s.E, 1, 0x1.c33f28a581b86p+6, 0x1.176fa0e5535fap+11, 0x1.2ec102442040cp+12)
			f.Return(x.Add(x.Mul(s.E).Mul(p.Div(q.E))))
		})
		r := f.Let(asm.CD(1).Sub(asm.CD(2).Div(asm.Call(asm.F64, l.exp64(), t.Add(t.E)).Add(asm.CD(1)))))
		f.Return(r.Bits().Or(x.Bits().And(asm.CL(math.MinInt64))).Bits())
	})
}

func (l *Lib) sigmoid64() uint32 {
	return l.Fn("sigmoid_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		e := f.Let(asm.Call(asm.F64, l.exp64(), x.Abs().Neg()))
		f.Return(asm.Select(x.Lt(asm.CD(0)), e.E, asm.CD(1)).Div(asm.CD(1).Add(e.E)))
	})
}

func fromBits(us ...uint64) []float64 {
	// Highest coefficient first, as Horner takes them.
	out := make([]float64, len(us))
	for i, u := range us {
		out[len(us)-1-i] = math.Float64frombits(u)
	}
	return out
}

func (l *Lib) erf64() uint32 {
	pp := fromBits(0x3FC06EBA8214DB68, 0xBFD4CD7D691CB913, 0xBF9D2A51DBD7194F, 0xBF77A291236668E4, 0xBEF8EAD6120016AC)
	qq := fromBits(0x3FF0000000000000, 0x3FD97779CDDADC09, 0x3FB0A54C5536CEBA, 0x3F74D022C4D36B0F, 0x3F215DC9221C1A10, 0xBED09C4342A26120)
	pa := fromBits(0xBF6359B8BEF77538, 0x3FDA8D00AD92B34D, 0xBFD7D240FBB8C3F1, 0x3FD45FCA805120E4, 0xBFBC63983D3E28EC, 0x3FA22A36599795EB, 0xBF61BF380A96073F)
	qa := fromBits(0x3FF0000000000000, 0x3FBB3E6618EEE323, 0x3FE14AF092EB6F33, 0x3FB2635CD99FE9A7, 0x3FC02660E763351F, 0x3F8BEDC26B51DD1C, 0x3F888B545735151D)
	ra := fromBits(0xBF843412600D6435, 0xBFE63416E4BA7360, 0xC0251E0441B0E726, 0xC04F300AE4CBA38D, 0xC0644CB184282266, 0xC067135CEBCCABB2, 0xC054526557E4D2F2, 0xC023A0EFC69AC25C)
	sa := fromBits(0x3FF0000000000000, 0x4033A6B9BD707687, 0x4061350C526AE721, 0x407B290DD58A1A71, 0x40842B1921EC2868, 0x407AD02157700314, 0x405B28A3EE48AE2C, 0x401A47EF8E484A93, 0xBFAEEFF2EE749A62)
	rb := fromBits(0xBF84341239E86F4A, 0xBFE993BA70C285DE, 0xC031C209555F995A, 0xC064145D43C5ED98, 0xC083EC881375F228, 0xC09004616A2E5992, 0xC07E384E9BDC383F)
	sb := fromBits(0x3FF0000000000000, 0x403E568B261D5190, 0x40745CAE221B9F0A, 0x409802EB189D5118, 0x40A8FFB7688C246A, 0x40A3F219CEDF3BE6, 0x407DA874E79FE763, 0xC03670E242712D62)
	erx := math.Float64frombits(0x3FEB0AC160000000)
	return l.Fn("erf_f64", d1, d1, func(f *asm.Fn) {
		x := f.Param(0)
		t := f.Let(x.Abs())
		y := f.Local(asm.F64)
		f.If(x.Ne(x.E), func() { f.Return(asm.CD(math.NaN())) })
		f.Block(func(done asm.Label) {
			f.If(t.Lt(asm.CD(0.84375)), func() {
				z := f.Let(t.Mul(t.E))
				f.Set(y, t.Add(t.Mul(horner64(f, z.E, pp...).Div(horner64(f, z.E, qq...).E))))
				f.Br(done)
			})
			f.If(t.Lt(asm.CD(1.25)), func() {
				s := f.Let(t.Sub(asm.CD(1)))
				f.Set(y, asm.CD(erx).Add(horner64(f, s.E, pa...).Div(horner64(f, s.E, qa...).E)))
				f.Br(done)
			})
			f.Set(y, asm.CD(1))
			f.BrIf(done, t.Ge(asm.CD(6)))
			s := f.Let(asm.CD(1).Div(t.Mul(t.E)))
			q := f.Local(asm.F64)
			f.If(t.Lt(asm.CD(0x1.6db6db6db6db7p+1)), func() {
				f.Set(q, horner64(f, s.E, ra...).Div(horner64(f, s.E, sa...).E))
			}, func() {
				f.Set(q, horner64(f, s.E, rb...).Div(horner64(f, s.E, sb...).E))
			})
			z := f.Let(t.Bits().AndI(-1 << 32).Bits())
			g := f.Let(asm.Call(asm.F64, l.exp64(), z.Neg().Mul(z.E).Sub(asm.CD(0.5625))).
				Mul(asm.Call(asm.F64, l.exp64(), z.Sub(t.E).Mul(z.Add(t.E)).Add(q.E))))
			f.Set(y, asm.CD(1).Sub(g.Div(t.E)))
		})
		f.Return(y.CopySign(x.E))
	})
}

func (l *Lib) pow64() uint32 {
	return l.Fn("pow_f64", []T{asm.F64, asm.F64}, d1, func(f *asm.Fn) {
		x, y := f.Param(0), f.Param(1)
		one, inf := asm.CD(1), asm.CD(-negInf)
		f.If(y.Eq(asm.CD(0)).Or(x.Eq(one)), func() { f.Return(one) })
		f.If(x.Ne(x.E).Or(y.Ne(y.E)), func() { f.Return(asm.CD(math.NaN())) })
		a := f.Let(x.Abs())
		ay := f.Let(y.Abs())
		f.If(y.Eq(asm.CD(0.5)).And(a.Lt(inf)), func() { f.Return(x.Add(asm.CD(0)).Sqrt()) })
		whole := f.Let(y.Eq(y.Trunc()).And(ay.Lt(inf)))
		f.If(whole.And(ay.Le(asm.CD(64))), func() {
			n := f.Let(ay.TruncSat(asm.I32, true))
			r := f.Let(one)
			b := f.Let(x.E)
			f.While(n.GtS(asm.C(0)), func() {
				f.If(n.AndI(1), func() { f.Set(r, r.Mul(b.E)) })
				f.Set(n, n.ShrUI(1))
				f.If(n.E, func() { f.Set(b, b.Mul(b.E)) })
			})
			f.If(y.Lt(asm.CD(0)), func() { f.Return(one.Div(r.E)) })
			f.Return(r.E)
		})
		f.If(ay.Eq(inf), func() {
			f.If(a.Eq(one), func() { f.Return(one) })
			f.Return(asm.Select(a.Lt(one).Eq(y.Gt(asm.CD(0))), asm.CD(0), inf))
		})
		odd := f.Let(asm.And2(whole.And(ay.Lt(asm.CD(0x1p53))), ay.TruncSat(asm.I64, true).Wrap().AndI(1)))
		f.If(a.Eq(asm.CD(0)).Or(a.Eq(inf)), func() {
			r := f.Let(asm.Select(a.Eq(asm.CD(0)).Eq(y.Lt(asm.CD(0))), inf, asm.CD(0)))
			f.If(odd.E, func() { f.Set(r, r.CopySign(x.E)) })
			f.Return(r.E)
		})
		f.If(x.Lt(asm.CD(0)).And(whole.Eqz()), func() { f.Return(asm.CD(math.NaN())) })
		r := f.Let(asm.Call(asm.F64, l.exp64(), y.Mul(asm.Call(asm.F64, l.log64(), a.E))))
		f.If(x.Lt(asm.CD(0)).And(odd.E), func() { f.Set(r, r.Neg()) })
		f.Return(r.E)
	})
}
