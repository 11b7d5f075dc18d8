package interp

import (
	"math"
	"math/bits"
)

// Circular and hyperbolic functions by docs/numerics.md, section 2.3.

// twoOverPi holds the binary digits of 2/pi after the point, behind one word of zeros.
func twoOverPi() [20]uint64 {
	return [20]uint64{0,
		0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561, 0xb7246e3a424dd2e0, 0x06492eea09d1921c,
		0xfe1deb1cb129a73e, 0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b, 0x1ff897ffde05980f,
		0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d, 0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08,
		0x56033046fc7b6bab}
}

// reduceAngle gives t = q*pi/2 + z for a finite t >= 0, with q modulo 4 and |z| <= pi/4.
func reduceAngle(t float64) (q uint64, z float64) {
	if t < 0x1.921fb54442d18p-1 {
		return 0, t
	}
	b := math.Float64bits(t)
	m := b&(1<<52-1) | 1<<52
	off := uint(b>>52) - 1075 + 62
	w := twoOverPi()
	d, s := off/64, off%64
	at := func(i uint) uint64 { return w[d+i]<<s | w[d+i+1]>>1>>(63-s) }
	h2, _ := bits.Mul64(at(2), m)
	h1, l1 := bits.Mul64(at(1), m)
	lo, carry := bits.Add64(l1, h2, 0)
	hi := at(0)*m + h1 + carry
	q = hi >> 62
	hi, lo = hi<<2|lo>>62, lo<<2
	neg := hi>>63 == 1
	if neg {
		q, hi, lo = q+1, ^hi, ^lo
	}
	lz := bits.LeadingZeros64(hi | 1)
	top := hi<<lz | lo>>1>>(63-lz)
	z = mul64(mul64(float64(top), pow2d(-64-lz)), 0x1.921fb54442d18p+0)
	if neg {
		z = -z
	}
	return q & 3, z
}

func sinPoly(z float64) float64 {
	s := mul64(z, z)
	p := horner64(s, 0x1.5d93a5acfd57cp-33, -0x1.ae5e68a2b9cebp-26, 0x1.71de357b1fe7dp-19, -0x1.a01a019c161d5p-13, 0x1.111111110f8a6p-7,
		-0x1.5555555555549p-3)
	return z + mul64(mul64(z, s), p)
}

func cosPoly(z float64) float64 {
	s := mul64(z, z)
	p := horner64(s, -0x1.8fae9be8838d4p-37, 0x1.1ee9ebdb4b1c4p-29, -0x1.27e4f809c52adp-22, 0x1.a01a019cb159p-16, -0x1.6c16c16c15177p-10,
		0x1.555555555554cp-5)
	h := mul64(0.5, s)
	w := 1 - h
	return w + (((1 - w) - h) + mul64(s, mul64(s, p)))
}

func circular(op string, x float64) float64 {
	t := abs64(x)
	if !(t <= math.MaxFloat64) {
		return math.NaN()
	}
	q, z := reduceAngle(t)
	switch op {
	case "Sin", "Cos":
		if op == "Cos" {
			q++
		}
		y := sinPoly(z)
		if q&1 == 1 {
			y = cosPoly(z)
		}
		if q&2 == 2 {
			y = -y
		}
		if op == "Sin" && math.Signbit(x) {
			y = -y
		}
		return y
	}
	s, c := sinPoly(z), cosPoly(z)
	y := s / c
	if q&1 == 1 {
		y = -c / s
	}
	if math.Signbit(x) {
		y = -y
	}
	return y
}

func atan64(x float64) float64 {
	t := abs64(x)
	var u, hi, lo float64
	switch {
	case t < 0.4375:
		u = t
	case t < 0.6875:
		u, hi, lo = (t+t-1)/(2+t), 0x1.dac670561bb4fp-2, 0x1.a2b7f222f65e2p-56
	case t < 1.1875:
		u, hi, lo = (t-1)/(t+1), 0x1.921fb54442d18p-1, 0x1.1a62633145c07p-55
	case t < 2.4375:
		u, hi, lo = (t-1.5)/(1+mul64(1.5, t)), 0x1.f730bd281f69bp-1, 0x1.007887af0cbbdp-56
	default:
		u, hi, lo = -1/t, 0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54
	}
	s := mul64(u, u)
	p := mul64(s, horner64(s, 0x1.0ad3ae322da11p-6, -0x1.2b4442c6a6c2fp-5, 0x1.97b4b24760debp-5, -0x1.dde2d52defd9ap-5, 0x1.10d66a0d03d51p-4,
		-0x1.3b0f2af749a6dp-4, 0x1.745cdc54c206ep-4, -0x1.c71c6fe231671p-4, 0x1.24924920083ffp-3, -0x1.999999998ebc4p-3, 0x1.555555555550dp-2))
	if t < 0.4375 {
		return sign64(u-mul64(u, p), x)
	}
	return sign64(hi-((mul64(u, p)-lo)-u), x)
}

// log1p is log(1 + u); the quotient undoes the rounding of 1 + u.
func log1p64(u float64) float64 {
	w := 1 + u
	if w == 1 || w > math.MaxFloat64 {
		return u
	}
	return mul64(log64(w), u/(w-1))
}

func trig64(op string, x float64) float64 {
	const ln2 = 0x1.62e42fefa39efp-1
	t := abs64(x)
	switch op {
	case "Atan":
		return atan64(x)
	case "Asin":
		return atan64(x / math.Sqrt(mul64(1-x, 1+x)))
	case "Acos":
		return mul64(2, atan64(math.Sqrt((1-x)/(1+x))))
	case "Sinh":
		var y float64
		switch {
		case t < 1:
			s := mul64(t, t)
			p := horner64(s, 0x1.2f49b46814157p-57, 0x1.952c77030ad4ap-49, 0x1.ae7f3e733b81fp-41, 0x1.6124613a86d09p-33, 0x1.ae64567f544e4p-26,
				0x1.71de3a556c734p-19, 0x1.a01a01a01a01ap-13, 0x1.1111111111111p-7, 0x1.5555555555555p-3)
			y = t + mul64(mul64(t, s), p)
		case t <= 709:
			e := exp64(t)
			y = mul64(0.5, e) - 0.5/e
		default:
			e := exp64(mul64(0.5, t))
			y = mul64(mul64(0.5, e), e)
		}
		return sign64(y, x)
	case "Cosh":
		if t <= 709 {
			e := exp64(t)
			return mul64(0.5, e) + 0.5/e
		}
		e := exp64(mul64(0.5, t))
		return mul64(mul64(0.5, e), e)
	case "Asinh":
		if t >= 0x1p28 {
			return sign64(log64(t)+ln2, x)
		}
		s := mul64(t, t)
		return sign64(log1p64(t+s/(1+math.Sqrt(1+s))), x)
	case "Acosh":
		if x < 1 {
			return math.NaN()
		}
		if x >= 0x1p28 {
			return log64(x) + ln2
		}
		u := x - 1
		return log1p64(u + math.Sqrt(mul64(u, u+2)))
	case "Atanh":
		return sign64(mul64(0.5, log1p64((t+t)/(1-t))), x)
	case "Sin", "Cos", "Tan":
		return circular(op, x)
	}
	panic("interp: " + op)
}
