package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Numbers as text and back, exactly: integers of many words (little-endian u32) lie in a scratch area that is part of an
// output, so every context has its own.

// big_mul(a, words, m, c): a = a*m + c; what does not fit is lost.
func (l *Lib) bigMul() uint32 {
	return l.Fn("big_mul", []T{asm.I32, asm.I32, asm.I32, asm.I32}, nil, func(f *asm.Fn) {
		p, m := f.Let(f.Param(0).E), f.Param(2)
		end := f.Let(p.Add(f.Param(1).ShlI(2)))
		t := f.Let(f.Param(3).ExtU())
		f.While(p.LtU(end.E), func() {
			f.Set(t, t.Add(asm.L32(p.E, 0).ExtU().Mul(m.ExtU())))
			f.Put(asm.M32, p.E, 0, t.Wrap())
			f.Set(t, t.ShrUI(32))
			f.Inc(p, 4)
		})
	})
}

// big_cmp(a, b, words) is -1, 0 or 1.
func (l *Lib) bigCmp() uint32 {
	return l.Fn("big_cmp", []T{asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		a, b, i := f.Param(0), f.Param(1), f.Let(f.Param(2).ShlI(2))
		x, y := f.Local(asm.I32), f.Local(asm.I32)
		f.While(i.NeI(0), func() {
			f.Inc(i, -4)
			f.Set(x, asm.L32(a.Add(i.E), 0))
			f.Set(y, asm.L32(b.Add(i.E), 0))
			f.If(x.Ne(y.E), func() { f.Return(asm.Select(x.LtU(y.E), asm.C(-1), asm.C(1))) })
		})
		f.Return(asm.C(0))
	})
}

// big_add(d, a, b, words): d = a + b. big_sub: d = a - b, which is not negative.
func (l *Lib) bigSum(sub bool) uint32 {
	name := "big_add"
	if sub {
		name = "big_sub"
	}
	return l.Fn(name, []T{asm.I32, asm.I32, asm.I32, asm.I32}, nil, func(f *asm.Fn) {
		d, a, b := f.Param(0), f.Param(1), f.Param(2)
		i, end, t := f.Let(asm.C(0)), f.Let(f.Param(3).ShlI(2)), f.Let(asm.CL(0))
		f.While(i.LtU(end.E), func() {
			x, y := asm.L32(a.Add(i.E), 0).ExtU(), asm.L32(b.Add(i.E), 0).ExtU()
			if sub {
				f.Set(t, t.Add(x).Sub(y))
			} else {
				f.Set(t, t.Add(x).Add(y))
			}
			f.Put(asm.M32, d.Add(i.E), 0, t.Wrap())
			f.Set(t, t.ShrSI(32))
			f.Inc(i, 4)
		})
	})
}

// big_put(a, words, v, n): a = v << n, which fits.
func (l *Lib) bigPut() uint32 {
	return l.Fn("big_put", []T{asm.I32, asm.I32, asm.I64, asm.I32}, nil, func(f *asm.Fn) {
		a, v, n := f.Param(0), f.Param(2), f.Param(3)
		f.MemFill(a.E, asm.C(0), f.Param(1).ShlI(2))
		p, s := f.Let(a.Add(n.ShrUI(5).ShlI(2))), f.Let(n.AndI(31).ExtU())
		low, high := f.Let(v.AndI(0xffffffff).Shl(s.E)), f.Let(v.ShrUI(32).Shl(s.E))
		f.Set(high, high.Add(low.ShrUI(32)))
		f.Put(asm.M32, p.E, 0, low.Wrap())
		f.If(high.NeI(0), func() {
			f.Put(asm.M32, p.E, 4, high.Wrap())
			f.If(high.ShrUI(32).NeI(0), func() { f.Put(asm.M32, p.E, 8, high.ShrUI(32).Wrap()) })
		})
	})
}

// big_bits(a, words) is the number of bits up to the highest one.
func (l *Lib) bigBits() uint32 {
	return l.Fn("big_bits", []T{asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		a, i, x := f.Param(0), f.Let(f.Param(1).E), f.Local(asm.I32)
		f.While(i.NeI(0), func() {
			f.Inc(i, -1)
			f.Set(x, asm.L32(a.Add(i.ShlI(2)), 0))
			f.If(x.E, func() { f.Return(i.ShlI(5).AddI(32).Sub(x.Clz())) })
		})
		f.Return(asm.C(0))
	})
}

// big_shl(a, words, n): a = a << n, which fits.
func (l *Lib) bigShl() uint32 {
	return l.Fn("big_shl", []T{asm.I32, asm.I32, asm.I32}, nil, func(f *asm.Fn) {
		a, i, n := f.Param(0), f.Let(f.Param(1).E), f.Param(2)
		skip, s := f.Let(n.ShrUI(5)), f.Let(n.AndI(31).ExtU())
		hi, lo := f.Local(asm.I64), f.Local(asm.I64)
		word := func(v V, at E) {
			f.Set(v, asm.CL(0))
			f.If(at.GeS(asm.C(0)), func() { f.Set(v, asm.L32(a.Add(at.ShlI(2)), 0).ExtU()) })
		}
		f.While(i.NeI(0), func() {
			f.Inc(i, -1)
			word(hi, i.Sub(skip.E))
			word(lo, i.Sub(skip.E).SubI(1))
			f.Put(asm.M32, a.Add(i.ShlI(2)), 0, hi.ShlI(32).Or(lo.E).Shl(s.E).ShrUI(32).Wrap())
		})
	})
}

// put_uint(p, v) writes v in decimal and gives the end.
func (l *Lib) putUint() uint32 {
	return l.Fn("put_uint", []T{asm.I32, asm.I64}, []T{asm.I32}, func(f *asm.Fn) {
		p, v := f.Param(0), f.Param(1)
		n, t := f.Let(asm.C(1)), f.Let(v.E)
		f.While(t.GtU(asm.CL(9)), func() {
			f.Set(t, t.DivU(asm.CL(10)))
			f.Inc(n, 1)
		})
		end := f.Let(p.Add(n.E))
		at := f.Let(end.E)
		f.While(at.Ne(p.E), func() {
			f.Inc(at, -1)
			f.Put(asm.M8U, at.E, 0, v.RemU(asm.CL(10)).Wrap().AddI('0'))
			f.Set(v, v.DivU(asm.CL(10)))
		})
		f.Return(end.E)
	})
}

// Sizes of the areas of a text output: each element has a slot, and the scratch lies behind all of them.
const (
	numSlot      = 32                        // bytes; "-2.2250738585072014e-308" has 24
	formatWords  = 40                        // of one big integer when formatting
	formatDigits = 5 * 4 * formatWords       // offset of the digits in the scratch
	formatBytes  = formatDigits + 32         // scratch for formatting
	parseWords   = 128                       // of one big integer when parsing
	parseBytes   = 2*4*parseWords + 16       // scratch for parsing
	maxDigits    = 800                       // more digits than decide any rounding
	parseFailed  = int64(0x7ff8000000000001) // no number
)

// digits(scratch, m, e, p) writes the shortest decimal digits of m * 2^e that round to it in a format of p bits, the closest
// of those (of two the one whose last digit is even), at scratch + formatDigits. It returns (count << 16) | (k + 0x8000), the value being 0.digits * 10^k. min tells
// that e is the least exponent. (Steele and White's free-format algorithm.)
func (l *Lib) shortest() uint32 {
	return l.Fn("shortest", []T{asm.I32, asm.I64, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		s, m, e, p, least := f.Param(0), f.Param(1), f.Param(2), f.Param(3), f.Param(4)
		area := func(i int64) V { return f.Let(s.AddI(i * 4 * formatWords)) }
		r, q, lo, hi, sum := area(0), area(1), area(2), area(3), area(4)
		mag := f.Let(asm.Select(e.LtS(asm.C(0)), asm.C(0).Sub(e.E), e.E))
		w := f.Let(mag.AddI(53 + 75).ShrUI(5).AddI(1))
		// At a power of two the gap below is half of the one above.
		t := f.Let(asm.And2(m.Eq(asm.CL(1).Shl(p.SubI(1).ExtU())), least.Eqz()))
		put := func(a V, v, n E) { f.CallStmt(l.bigPut(), a.E, w.E, v, n) }
		mul := func(a V) { f.CallStmt(l.bigMul(), a.E, w.E, asm.C(10), asm.C(0)) }
		cmp := func(a, b V) E { return asm.Call(asm.I32, l.bigCmp(), a.E, b.E, w.E) }
		up, down := f.Let(asm.Select(e.GtS(asm.C(0)), e.E, asm.C(0))), f.Let(asm.Select(e.LtS(asm.C(0)), mag.E, asm.C(0)))
		put(r, m.E, up.Add(t.E).AddI(1))
		put(q, asm.CL(1), down.Add(t.E).AddI(1))
		put(lo, asm.CL(1), up.E)
		put(hi, asm.CL(1), up.Add(t.E))
		even := f.Let(m.AndI(1).Eqz())
		// over: the upper bound reaches q.
		over := func() E {
			f.CallStmt(l.bigSum(false), sum.E, r.E, hi.E, w.E)
			return cmp(sum, q).GtS(asm.C(0).Sub(even.E))
		}
		k, c := f.Let(asm.C(0)), f.Local(asm.I32)
		f.While(cmp(r, q).GeS(asm.C(0)), func() {
			mul(q)
			f.Inc(k, 1)
		})
		f.Set(c, asm.C(1))
		f.While(c.E, func() {
			f.CallStmt(l.bigPut(), sum.E, w.E, asm.CL(0), asm.C(0))
			f.CallStmt(l.bigSum(false), sum.E, sum.E, r.E, w.E)
			mul(sum)
			f.Set(c, cmp(sum, q).LtS(asm.C(0)))
			f.If(c.E, func() {
				mul(r)
				mul(lo)
				mul(hi)
				f.Inc(k, -1)
			})
		})
		d, n, low, high := f.Local(asm.I32), f.Let(asm.C(0)), f.Local(asm.I32), f.Local(asm.I32)
		f.Loop(func(top asm.Label) {
			mul(r)
			mul(lo)
			mul(hi)
			f.Set(d, asm.C('0'))
			f.While(cmp(r, q).GeS(asm.C(0)), func() {
				f.CallStmt(l.bigSum(true), r.E, r.E, q.E, w.E)
				f.Inc(d, 1)
			})
			f.Set(low, cmp(r, lo).LtS(even.E))
			f.Set(high, over())
			f.If(high.E, func() {
				f.If(low.E, func() {
					f.CallStmt(l.bigSum(false), sum.E, r.E, r.E, w.E)
					f.Set(d, d.Add(cmp(sum, q).GeS(d.AndI(1).Eqz()))) // of two as close the even digit; '0' is even
				}, func() { f.Inc(d, 1) })
			})
			f.If(d.EqI('0'+10), func() { // the first digit, 9, became 10
				f.Set(d, asm.C('1'))
				f.Inc(k, 1)
			})
			f.Put(asm.M8U, s.Add(n.E), formatDigits, d.E)
			f.Inc(n, 1)
			f.If(low.Or(high.E).Eqz(), func() { f.Br(top) })
		})
		f.Return(n.ShlI(16).Or(k.AddI(0x8000)))
	})
}

// putFloat(p, scratch, negative, m, e, prec, least) writes m * 2^e: as digits with a point where 1e-4 <= |x| < 1e16, with an
// exponent otherwise. It gives the end.
func (l *Lib) putFloat() uint32 {
	return l.Fn("put_float", []T{asm.I32, asm.I32, asm.I64, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		p, s, m := f.Param(0), f.Param(1), f.Param(2)
		char := func(c int64) {
			f.Put(asm.M8U, p.E, 0, asm.C(c))
			f.Inc(p, 1)
		}
		f.If(m.Eqz(), func() {
			char('0')
			char('.')
			char('0')
			f.Return(p.E)
		})
		got := f.Let(asm.Call(asm.I32, l.shortest(), s.E, m.E, f.Param(3).E, f.Param(4).E, f.Param(5).E))
		n, k := f.Let(got.ShrUI(16)), f.Let(got.AndI(0xffff).SubI(0x8000))
		at := f.Let(s.AddI(formatDigits))
		copyN := func(c E) {
			v := f.Let(c)
			f.MemCopy(p.E, at.E, v.E)
			f.Set(p, p.Add(v.E))
			f.Set(at, at.Add(v.E))
		}
		zeros := func(c E) {
			v := f.Let(c)
			f.MemFill(p.E, asm.C('0'), v.E)
			f.Set(p, p.Add(v.E))
		}
		f.If(asm.And2(k.GtS(asm.C(-4)), k.LeS(asm.C(0))), func() { // 0.0001 and up
			char('0')
			char('.')
			zeros(asm.C(0).Sub(k.E))
			copyN(n.E)
			f.Return(p.E)
		})
		f.If(asm.And2(k.GtS(asm.C(0)), k.LeS(asm.C(16))), func() {
			f.If(n.LeS(k.E), func() {
				copyN(n.E)
				zeros(k.Sub(n.E))
				char('.')
				char('0')
			}, func() {
				copyN(k.E)
				char('.')
				copyN(n.Sub(k.E))
			})
			f.Return(p.E)
		})
		copyN(asm.C(1))
		f.If(n.GtS(asm.C(1)), func() {
			char('.')
			copyN(n.SubI(1))
		})
		char('e')
		f.Inc(k, -1)
		f.If(k.LtS(asm.C(0)), func() {
			char('-')
			f.Set(k, asm.C(0).Sub(k.E))
		}, func() { char('+') })
		f.If(k.LtS(asm.C(10)), func() { char('0') })
		f.Return(asm.Call(asm.I32, l.putUint(), p.E, k.ExtU()))
	})
}

// floatForm gives the significand bits, the exponent bits and the bias of a float type.
func floatForm(d DT) (prec, width, bias int64) {
	switch d.ABI {
	case abi.F16:
		return 11, 16, 15
	case abi.BF16:
		return 8, 16, 127
	case abi.F32:
		return 24, 32, 127
	}
	return 53, 64, 1023
}

// NumberText writes the texts of numbers: references into the output itself.
func NumberText(d DT) *Kernel {
	return &Kernel{Name: "number_text." + d.Name, NOut: 1,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			k.CopyDims(y, x)
			n := k.Let(k.Numel(x))
			k.AllocBytes(y, n.MulI(8+numSlot).AddI(formatBytes))
			k.Put(asm.M32, y.E, abi.DescKind, asm.C(0))
			k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(abi.U64)))
			cost := int64(60)
			if d.Float {
				cost = 6000
			}
			k.Work(n.E, asm.CL(cost))
		},
		Range: func(k *K, lo, hi V) {
			n := k.Let(k.Numel(k.In(0)).Wrap())
			refs := k.Let(Data(k.Out(0)))
			texts := k.Let(refs.Add(n.ShlI(3)))
			scratch := k.Let(texts.Add(n.MulI(numSlot)))
			src := k.Let(Data(k.In(0)))
			i, p, q := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32)
			k.While(i.LtU(hi.E), func() {
				k.Set(p, texts.Add(i.MulI(numSlot)))
				k.Set(q, p.E)
				at := src.Add(i.ShlI(d.Shift))
				if d.Float {
					k.floatText(d, at, q, scratch)
				} else {
					k.intText(d, at, q)
				}
				k.Put(asm.M64, refs.Add(i.ShlI(3)), 0, mkRef(p.E, q.Sub(p.E)))
				k.Inc(i, 1)
			})
		},
	}
}

func (k *K) intText(d DT, at E, q V) {
	v := k.Let(widen64(d, k.Load(d, at, 0)))
	if d.Signed {
		k.If(v.LtS(asm.CL(0)), func() {
			k.Put(asm.M8U, q.E, 0, asm.C('-'))
			k.Inc(q, 1)
			k.Set(v, asm.CL(0).Sub(v.E))
		})
	}
	k.Set(q, asm.Call(asm.I32, k.L.putUint(), q.E, v.E))
}

func (k *K) floatText(d DT, at E, q, scratch V) {
	prec, width, bias := floatForm(d)
	var b V
	switch width {
	case 64:
		b = k.Let(asm.L64(at, 0))
	case 32:
		b = k.Let(asm.L32(at, 0).ExtU())
	default:
		b = k.Let(asm.M16U.At(at, 0).ExtU())
	}
	top := int64(1)<<(width-prec) - 1
	m, e := k.Let(b.AndI(1<<(prec-1)-1)), k.Let(b.ShrUI(prec-1).AndI(top).Wrap())
	word := func(s string) {
		for i := range s {
			k.Put(asm.M8U, q.E, uint32(i), asm.C(int64(s[i])))
		}
		k.Inc(q, int64(len(s)))
	}
	sign := func() {
		k.If(b.ShrUI(width-1).NeI(0), func() {
			k.Put(asm.M8U, q.E, 0, asm.C('-'))
			k.Inc(q, 1)
		})
	}
	k.If(e.EqI(top), func() {
		k.If(m.NeI(0), func() { word("nan") }, func() {
			sign()
			word("inf")
		})
	}, func() {
		sign()
		least := k.Let(e.LeU(asm.C(1)))
		k.If(e.NeI(0), func() {
			k.Set(m, m.Or(asm.CL(1<<(prec-1))))
			k.Inc(e, -1)
		})
		k.Set(q, asm.Call(asm.I32, k.L.putFloat(), q.E, scratch.E, m.E, e.AddI(1-bias-(prec-1)), asm.C(prec), least.E))
	})
}

// parse(ref, scratch, prec, least, top) gives the bits of the f64 that holds the text's value rounded to prec bits, the last of
// them not below 2^least, infinite from 2^top on; parseFailed for what is no number.
func (l *Lib) parseFloat() uint32 {
	return l.Fn("parse_float", []T{asm.I64, asm.I32, asm.I32, asm.I32, asm.I32}, []T{asm.I64}, func(f *asm.Fn) {
		ref, s, prec, least, top := f.Param(0), f.Param(1), f.Param(2), f.Param(3), f.Param(4)
		p := f.Let(refAddr(ref.E))
		end := f.Let(p.Add(refLen(ref.E)))
		fail := func() { f.Return(asm.CL(parseFailed)) }
		trimText(f, p, end)
		neg, c := f.Let(asm.CL(0)), f.Local(asm.I32)
		f.If(p.GeU(end.E), fail)
		f.Set(c, asm.M8U.At(p.E, 0))
		f.If(c.EqI('-').Or(c.EqI('+')), func() {
			f.Set(neg, c.EqI('-').ExtU().ShlI(63))
			f.Inc(p, 1)
		})
		// inf, infinity and nan, in any case
		is := func(w string) E {
			e := end.Sub(p.E).EqI(int64(len(w)))
			for i := range w {
				e = asm.And2(e, asm.M8U.At(p.E, uint32(i)).Or(asm.C(0x20)).EqI(int64(w[i])))
			}
			return e
		}
		f.If(asm.Or2(is("inf"), is("infinity")), func() { f.Return(neg.Or(asm.CL(0x7ff0000000000000))) })
		f.If(is("nan"), func() { f.Return(asm.CL(0x7ff8000000000000)) })

		n := f.Let(s.E)
		d := f.Let(s.AddI(4 * parseWords))
		// Digits: count of kept ones, decimal exponent of the last kept one; whether there were any, and dropped ones that are not 0.
		count, exp, any, dropped, dot := f.Let(asm.C(0)), f.Let(asm.C(0)), f.Let(asm.C(0)), f.Let(asm.C(0)), f.Let(asm.C(0))
		words := f.Let(asm.C(2))
		f.MemFill(n.E, asm.C(0), asm.C(4*parseWords))
		digit := func() E { return c.SubI('0').LtU(asm.C(10)) }
		f.Block(func(out asm.Label) {
			f.Loop(func(next asm.Label) {
				f.BrIf(out, p.GeU(end.E))
				f.Set(c, asm.M8U.At(p.E, 0))
				f.If(digit(), func() {
					f.Set(any, asm.C(1))
					f.If(count.LtS(asm.C(maxDigits)), func() {
						f.If(count.Or(c.SubI('0')).NeI(0), func() {
							f.Inc(count, 1)
							f.Set(words, count.MulI(107).ShrUI(10).AddI(2))
							f.CallStmt(l.bigMul(), n.E, words.E, asm.C(10), c.SubI('0'))
						})
						f.Set(exp, exp.Sub(dot.E))
					}, func() {
						f.Set(dropped, dropped.Or(c.NeI('0')))
						f.Set(exp, exp.AddI(1).Sub(dot.E))
					})
					f.Inc(p, 1)
					f.Br(next)
				})
				f.If(c.EqI('.').And(dot.Eqz()), func() {
					f.Set(dot, asm.C(1))
					f.Inc(p, 1)
					f.Br(next)
				})
			})
		})
		f.If(any.Eqz(), fail)
		x, xneg := f.Let(asm.C(0)), f.Let(asm.C(0))
		f.If(p.LtU(end.E), func() {
			f.If(asm.M8U.At(p.E, 0).Or(asm.C(0x20)).NeI('e'), fail)
			f.Inc(p, 1)
			f.If(p.GeU(end.E), fail)
			f.Set(c, asm.M8U.At(p.E, 0))
			f.If(c.EqI('-').Or(c.EqI('+')), func() {
				f.Set(xneg, c.EqI('-'))
				f.Inc(p, 1)
			})
			f.If(p.GeU(end.E), fail)
			f.While(p.LtU(end.E), func() {
				f.Set(c, asm.M8U.At(p.E, 0))
				f.If(digit().Eqz(), fail)
				f.If(x.LtS(asm.C(1<<26)), func() { f.Set(x, x.MulI(10).Add(c.SubI('0'))) })
				f.Inc(p, 1)
			})
			f.Set(exp, exp.Add(asm.Select(xneg.E, asm.C(0).Sub(x.E), x.E)))
		})
		f.If(count.Eqz(), func() { f.Return(neg.E) })
		f.If(dropped.E, func() { // one more digit stands for all of them
			f.Inc(count, 1)
			f.Set(words, count.MulI(107).ShrUI(10).AddI(2))
			f.CallStmt(l.bigMul(), n.E, words.E, asm.C(10), asm.C(1))
			f.Inc(exp, -1)
		})
		f.If(count.Add(exp.E).GtS(asm.C(310)), func() { f.Return(neg.Or(asm.CL(0x7ff0000000000000))) })
		f.If(count.Add(exp.E).LtS(asm.C(-330)), func() { f.Return(neg.E) })
		up, down := asm.Select(exp.GtS(asm.C(0)), exp.E, asm.C(0)), f.Let(asm.Select(exp.LtS(asm.C(0)), asm.C(0).Sub(exp.E), asm.C(0)))
		a := f.Let(count.Add(up))
		f.Set(words, asm.Select(a.GtS(down.E), a.E, down.E).MulI(107).ShrUI(10).AddI(6))
		f.CallStmt(l.bigPut(), d.E, words.E, asm.CL(1), asm.C(0))
		f.While(exp.GtS(asm.C(0)), func() {
			f.CallStmt(l.bigMul(), n.E, words.E, asm.C(10), asm.C(0))
			f.Inc(exp, -1)
		})
		f.While(exp.LtS(asm.C(0)), func() {
			f.CallStmt(l.bigMul(), d.E, words.E, asm.C(10), asm.C(0))
			f.Inc(exp, 1)
		})
		// Equal lengths, then 64 bits of the quotient, which is between 1/2 and 2; e2 is the weight of the last bit.
		diff := f.Let(asm.Call(asm.I32, l.bigBits(), n.E, words.E).Sub(asm.Call(asm.I32, l.bigBits(), d.E, words.E)))
		f.If(diff.LtS(asm.C(0)), func() { f.CallStmt(l.bigShl(), n.E, words.E, asm.C(0).Sub(diff.E)) },
			func() { f.CallStmt(l.bigShl(), d.E, words.E, diff.E) })
		q, i := f.Let(asm.CL(0)), f.Local(asm.I32)
		f.Up(i, asm.C(64), func() {
			f.Set(q, q.ShlI(1))
			f.If(asm.Call(asm.I32, l.bigCmp(), n.E, d.E, words.E).GeS(asm.C(0)), func() {
				f.CallStmt(l.bigSum(true), n.E, n.E, d.E, words.E)
				f.Set(q, q.Or(asm.CL(1)))
			})
			f.CallStmt(l.bigMul(), n.E, words.E, asm.C(2), asm.C(0))
		})
		sticky := f.Let(asm.Call(asm.I32, l.bigBits(), n.E, words.E).NeI(0))
		zeros := f.Let(q.Clz())
		f.Set(q, q.Shl(zeros.E))
		e2 := f.Let(diff.SubI(63).Sub(zeros.Wrap()))
		last := f.Let(e2.AddI(64).Sub(prec.E)) // weight of the last kept bit
		f.If(last.LtS(least.E), func() { f.Set(last, least.E) })
		cut := f.Let(last.Sub(e2.E))
		f.If(cut.GtS(asm.C(64)), func() { f.Return(neg.E) })
		m, rest := f.Let(asm.CL(0)), f.Let(q.E)
		f.If(cut.LtS(asm.C(64)), func() {
			f.Set(m, q.ShrU(cut.ExtU()))
			f.Set(rest, q.Shl(asm.CL(64).Sub(cut.ExtU())))
		})
		half := asm.CL(-1 << 63)
		f.If(rest.GtU(half).Or(rest.Eq(half).And(sticky.Or(m.AndI(1).NeI(0)))), func() { f.Inc(m, 1) })
		// m * 2^last in two exact steps.
		f.Set(a, last.ShrSI(1))
		pow := func(e E) E { return e.ExtS().AddI(1023).ShlI(52).Bits() }
		y := f.Let(m.ToF(asm.F64, false).Mul(pow(a.E)).Mul(pow(last.Sub(a.E))))
		f.If(top.LtS(asm.C(1024)), func() {
			f.If(y.Ge(pow(top.E)), func() { f.Set(y, asm.CL(0x7ff0000000000000).Bits()) })
		})
		f.Return(y.Bits().Or(neg.E))
	})
}

// trimText moves p and end over white space of ASCII at both ends.
func trimText(f *asm.Fn, p, end V) {
	blank := func(c E) E { return c.EqI(' ').Or(c.SubI(9).LtU(asm.C(5))) }
	f.While(asm.And2(p.LtU(end.E), blank(asm.M8U.At(p.E, 0))), func() { f.Inc(p, 1) })
	f.While(asm.And2(p.LtU(end.E), blank(asm.M8U.At(end.SubI(1), 0))), func() { f.Inc(end, -1) })
}

// parse_int(ref, out) reads a text of a sign and digits only: it stores the magnitude, saturated to u64, at out, and gives 1, or 2
// when there is a minus; 0 for another text.
func (l *Lib) parseInt() uint32 {
	return l.Fn("parse_int", []T{asm.I64, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		ref, out := f.Param(0), f.Param(1)
		p := f.Let(refAddr(ref.E))
		end := f.Let(p.Add(refLen(ref.E)))
		trimText(f, p, end)
		kind, c, v := f.Let(asm.C(1)), f.Local(asm.I32), f.Local(asm.I64)
		f.If(p.GeU(end.E), func() { f.Return(asm.C(0)) })
		f.Set(c, asm.M8U.At(p.E, 0))
		f.If(c.EqI('-').Or(c.EqI('+')), func() {
			f.Set(kind, c.EqI('-').AddI(1))
			f.Inc(p, 1)
		})
		f.If(p.GeU(end.E), func() { f.Return(asm.C(0)) })
		full := f.Let(asm.C(0))
		f.While(p.LtU(end.E), func() {
			f.Set(c, asm.M8U.At(p.E, 0).SubI('0'))
			f.If(c.GeU(asm.C(10)), func() { f.Return(asm.C(0)) })
			// 10*v + c stays below 2^64
			f.If(v.GtU(asm.CL(-1).Sub(c.ExtU()).DivU(asm.CL(10))), func() { f.Set(full, asm.C(1)) })
			f.Set(v, v.MulI(10).Add(c.ExtU()))
			f.Inc(p, 1)
		})
		f.Put(asm.M64, out.E, 0, asm.Select(full.E, asm.CL(-1), v.E))
		f.Return(kind.E)
	})
}

// TextNumber reads numbers from references (input 0). Output 1 is scratch. A text that is no number is ErrValue with its index.
func TextNumber(d DT) *Kernel {
	return &Kernel{Name: "text_number." + d.Name, NOut: 2,
		Prep: func(k *K) {
			x, y, s := k.In(0), k.Out(0), k.Out(1)
			k.CopyDims(y, x)
			k.Alloc(y, d)
			k.SetRank(s, asm.C(1))
			k.SetDimC(s, 0, asm.CL(parseBytes))
			k.Alloc(s, dtOf(abi.U8))
			n := k.Let(k.Numel(x).Wrap())
			i, sum := k.Local(asm.I32), k.Let(asm.CL(0))
			k.Up(i, n.E, func() { k.Set(sum, sum.Add(refLen(asm.L64(Data(x).Add(i.ShlI(3)), 0)).ExtU())) })
			k.Work(n.ExtU(), sum.DivU(n.ExtU().AddI(1)).MulI(120).AddI(3000))
		},
		Range: func(k *K, lo, hi V) {
			src, dst, s := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0))), k.Let(Data(k.Out(1)))
			i, ref, bits, kind := k.Let(lo.E), k.Local(asm.I64), k.Local(asm.I64), k.Local(asm.I32)
			prec, _, bias := floatForm(dtOf(abi.F64))
			if d.Float {
				prec, _, bias = floatForm(d)
			}
			k.While(i.LtU(hi.E), func() {
				k.Set(ref, asm.L64(src.Add(i.ShlI(3)), 0))
				at := dst.Add(i.ShlI(d.Shift))
				read := func() {
					k.Set(bits, asm.Call(asm.I64, k.L.parseFloat(), ref.E, s.E, asm.C(prec), asm.C(2-bias-prec), asm.C(bias+1)))
					k.Check(bits.Ne(asm.CL(parseFailed)), abi.ErrValue, i.ExtU(), asm.CL(0))
				}
				switch {
				case d.Float:
					read()
					k.Store(d, at, 0, k.convert(dtOf(abi.F64), d, bits.Bits()))
				case d.ABI == abi.Bool:
					read()
					k.Store(d, at, 0, k.convert(dtOf(abi.F64), d, bits.Bits()))
				default:
					k.Set(kind, asm.Call(asm.I32, k.L.parseInt(), ref.E, s.E))
					k.If(kind.Eqz(), func() {
						read()
						k.Store(d, at, 0, k.convert(dtOf(abi.F64), d, bits.Bits()))
					}, func() {
						k.Set(bits, asm.L64(s.E, 0))
						k.clampInt(d, bits, kind.EqI(2))
						if d.C == asm.I64 {
							k.Store(d, at, 0, bits.E)
						} else {
							k.Store(d, at, 0, bits.Wrap())
						}
					})
				}
				k.Inc(i, 1)
			})
		},
	}
}

// clampInt makes the magnitude v, negative where neg holds, an integer of type d, saturated.
func (k *K) clampInt(d DT, v V, neg E) {
	hi := uint64(1)<<(d.Bits-1) - 1
	if !d.Signed {
		hi = hi<<1 | 1
	}
	k.If(neg, func() {
		if !d.Signed {
			k.Set(v, asm.CL(0))
			return
		}
		k.If(v.GtU(asm.CL(int64(hi+1))), func() { k.Set(v, asm.CL(int64(hi+1))) })
		k.Set(v, asm.CL(0).Sub(v.E))
	}, func() {
		k.If(v.GtU(asm.CL(int64(hi))), func() { k.Set(v, asm.CL(int64(hi))) })
	})
}
