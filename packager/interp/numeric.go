package interp

import "math"

// Elementary functions by docs/numerics.md section 2. Every product that meets a sum is converted explicitly, which
// forbids fusing.

func mul(a, b float32) float32   { return float32(a * b) }
func mul64(a, b float64) float64 { return float64(a * b) }

func pmin[T float32 | float64](a, b T) T {
	if b < a {
		return b
	}
	return a
}

func pmax[T float32 | float64](a, b T) T {
	if a < b {
		return b
	}
	return a
}

// horner evaluates coefficients from the highest degree down.
func horner(x float32, cs ...float32) float32 {
	p := cs[0]
	for _, c := range cs[1:] {
		p = mul(p, x) + c
	}
	return p
}

func horner64(x float64, cs ...float64) float64 {
	p := cs[0]
	for _, c := range cs[1:] {
		p = mul64(p, x) + c
	}
	return p
}

// pow2f is 2^k for -126 <= k <= 127.
func pow2f(k int) float32 { return math.Float32frombits(uint32(k+127) << 23) }

// pow2d is 2^k for -1022 <= k <= 1023.
func pow2d(k int) float64 { return math.Float64frombits(uint64(k+1023) << 52) }

func exp32(x float32) float32 {
	x = pmin(x, 104)
	x = pmax(x, -104)
	n := float32(math.RoundToEven(float64(mul(x, 0x1.715476p+0))))
	r := x - mul(n, 0x1.63p-1)
	r = r - mul(n, -0x1.bd0106p-13)
	p := horner(r, 0x1.a0d2cep-13, 0x1.6e879cp-10, 0x1.11121p-7, 0x1.555382p-5, 0x1.555554p-3, 0x1p-1)
	y := (mul(p, mul(r, r)) + r) + 1
	k := 0
	if n == n {
		k = int(n)
	}
	k1 := k >> 1
	return mul(mul(y, pow2f(k1)), pow2f(k-k1))
}

func log32(x float32) float32 {
	switch {
	case x != x || x < 0:
		return float32(math.NaN())
	case x == 0:
		return float32(math.Inf(-1))
	case x > math.MaxFloat32:
		return x
	}
	e := 0
	if x < 0x1p-126 {
		x, e = mul(x, 0x1p23), -23
	}
	b := math.Float32bits(x)
	e += int(b>>23) - 126
	m := math.Float32frombits(b&0x7fffff | 0x3f000000)
	if m < 0x1.6a09e6p-1 {
		e, m = e-1, m+m
	}
	m = m - 1
	z := mul(m, m)
	y := horner(m, 0x1.204376p-4, -0x1.d7a37p-4, 0x1.de4a34p-4, -0x1.fcba9ep-4, 0x1.23d37ep-3, -0x1.555cap-3, 0x1.999d58p-3,
		-0x1.fffff8p-3, 0x1.555554p-2)
	y = mul(mul(y, m), z)
	f := float32(e)
	y = y + mul(f, -0x1.bd0106p-13)
	y = y - mul(0.5, z)
	return (m + y) + mul(f, 0x1.63p-1)
}

func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// sign32 gives v the sign bit of x.
func sign32(v, x float32) float32 {
	return math.Float32frombits(math.Float32bits(v)&^(1<<31) | math.Float32bits(x)&(1<<31))
}

func tanh32(x float32) float32 {
	t := abs32(x)
	if t < 0.625 {
		s := mul(x, x)
		p := horner(s, -0x1.75e1d4p-8, 0x1.52269cp-6, -0x1.b83c5ap-5, 0x1.110726p-3, -0x1.555532p-2)
		return mul(mul(p, s), x) + x
	}
	return sign32(1-2/(exp32(t+t)+1), x)
}

func sigmoid32(x float32) float32 {
	e := exp32(-abs32(x))
	d := 1 + e
	if x < 0 {
		return e / d
	}
	return 1 / d
}

func erf32(x float32) float32 {
	t := abs32(x)
	if t > 0x1.dbp-1 {
		t = pmin(t, 4)
		s := mul(t, t)
		r := mul(-0x1.22p-16, t) + 0x1.91cfb2p-12
		u := mul(-0x1.fd1438p-9, t) + 0x1.8d6342p-6
		r = mul(r, s) + u
		for _, c := range []float32{-0x1.b55cb8p-4, -0x1.450aap-1, -0x1.079d0cp-3} {
			r = mul(r, t) + c
		}
		r = mul(r, t) - t
		r = 1 - exp32(r)
		return sign32(r, x)
	}
	s := mul(x, x)
	r := horner(s, -0x1.38ep-11, 0x1.471a58p-8, -0x1.b691b2p-6, 0x1.ce1c44p-4, -0x1.8127p-2, 0x1.06eba8p-3)
	return mul(r, x) + x
}

func exp64(x float64) float64 {
	x = pmin(x, 710)
	x = pmax(x, -746)
	n := math.RoundToEven(mul64(x, 0x1.71547652b82fep+0))
	hi := x - mul64(n, 0x1.62e42feep-1)
	lo := mul64(n, 0x1.a39ef35793c76p-33)
	r := hi - lo
	t := mul64(r, r)
	q := horner64(t, 0x1.6376972bea4dp-25, -0x1.bbd41c5d26bf1p-20, 0x1.1566aaf25de2cp-14, -0x1.6c16c16bebd93p-9, 0x1.5555555555555p-3)
	c := r - mul64(t, q)
	y := 1 - ((lo - mul64(r, c)/(2-c)) - hi)
	k := 0
	if n == n {
		k = int(n)
	}
	k1 := k >> 1
	return mul64(mul64(y, pow2d(k1)), pow2d(k-k1))
}

func log64(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case x > math.MaxFloat64:
		return x
	}
	e := 0
	if x < 0x1p-1022 {
		x, e = mul64(x, 0x1p54), -54
	}
	b := math.Float64bits(x)
	e += int(b>>52) - 1022
	m := math.Float64frombits(b&(1<<52-1) | 0x3fe0000000000000)
	if m < 0x1.6a09e667f3bcdp-1 {
		m, e = m+m, e-1
	}
	f := m - 1
	k := float64(e)
	s := f / (2 + f)
	s2 := mul64(s, s)
	s4 := mul64(s2, s2)
	t1 := mul64(s2, 0x1.5555555555593p-1+mul64(s4, 0x1.2492494229359p-2+mul64(s4, 0x1.7466496cb03dep-3+mul64(s4, 0x1.2f112df3e5244p-3))))
	t2 := mul64(s4, 0x1.999999997fa04p-2+mul64(s4, 0x1.c71c51d8e78afp-3+mul64(s4, 0x1.39a09d078c69fp-3)))
	R := t1 + t2
	h := mul64(mul64(0.5, f), f)
	return mul64(k, 0x1.62e42feep-1) - ((h - (mul64(s, h+R) + mul64(k, 0x1.a39ef35793c76p-33))) - f)
}

func abs64(x float64) float64 { return math.Float64frombits(math.Float64bits(x) &^ (1 << 63)) }

func sign64(v, x float64) float64 {
	return math.Float64frombits(math.Float64bits(v)&^(1<<63) | math.Float64bits(x)&(1<<63))
}

func tanh64(x float64) float64 {
	t := abs64(x)
	if t < 0.625 {
		s := mul64(x, x)
		P := horner64(s, -0x1.edc5baafd6f4bp-1, -0x1.8d26a0e26682dp+6, -0x1.93ac030580563p+10)
		Q := horner64(s, 1, 0x1.c33f28a581b86p+6, 0x1.176fa0e5535fap+11, 0x1.2ec102442040cp+12)
		return x + mul64(mul64(x, s), P/Q)
	}
	return sign64(1-2/(exp64(t+t)+1), x)
}

func sigmoid64(x float64) float64 {
	e := exp64(-abs64(x))
	d := 1 + e
	if x < 0 {
		return e / d
	}
	return 1 / d
}

// erfPoly evaluates the bit patterns of section 2, given from degree 0 up.
func erfPoly(z float64, bits ...uint64) float64 {
	p := math.Float64frombits(bits[len(bits)-1])
	for i := len(bits) - 2; i >= 0; i-- {
		p = mul64(p, z) + math.Float64frombits(bits[i])
	}
	return p
}

func erf64(x float64) float64 {
	if x != x {
		return x
	}
	t := abs64(x)
	var y float64
	switch {
	case t < 0.84375:
		z := mul64(t, t)
		pp := erfPoly(z, 0x3FC06EBA8214DB68, 0xBFD4CD7D691CB913, 0xBF9D2A51DBD7194F, 0xBF77A291236668E4, 0xBEF8EAD6120016AC)
		qq := erfPoly(z, 0x3FF0000000000000, 0x3FD97779CDDADC09, 0x3FB0A54C5536CEBA, 0x3F74D022C4D36B0F, 0x3F215DC9221C1A10, 0xBED09C4342A26120)
		y = t + mul64(t, pp/qq)
	case t < 1.25:
		s := t - 1
		pa := erfPoly(s, 0xBF6359B8BEF77538, 0x3FDA8D00AD92B34D, 0xBFD7D240FBB8C3F1, 0x3FD45FCA805120E4, 0xBFBC63983D3E28EC, 0x3FA22A36599795EB, 0xBF61BF380A96073F)
		qa := erfPoly(s, 0x3FF0000000000000, 0x3FBB3E6618EEE323, 0x3FE14AF092EB6F33, 0x3FB2635CD99FE9A7, 0x3FC02660E763351F, 0x3F8BEDC26B51DD1C, 0x3F888B545735151D)
		y = math.Float64frombits(0x3FEB0AC160000000) + pa/qa
	case t >= 6:
		y = 1
	default:
		s := 1 / mul64(t, t)
		var r, u float64
		if t < 0x1.6db6db6db6db7p+1 {
			r = erfPoly(s, 0xBF843412600D6435, 0xBFE63416E4BA7360, 0xC0251E0441B0E726, 0xC04F300AE4CBA38D, 0xC0644CB184282266, 0xC067135CEBCCABB2, 0xC054526557E4D2F2, 0xC023A0EFC69AC25C)
			u = erfPoly(s, 0x3FF0000000000000, 0x4033A6B9BD707687, 0x4061350C526AE721, 0x407B290DD58A1A71, 0x40842B1921EC2868, 0x407AD02157700314, 0x405B28A3EE48AE2C, 0x401A47EF8E484A93, 0xBFAEEFF2EE749A62)
		} else {
			r = erfPoly(s, 0xBF84341239E86F4A, 0xBFE993BA70C285DE, 0xC031C209555F995A, 0xC064145D43C5ED98, 0xC083EC881375F228, 0xC09004616A2E5992, 0xC07E384E9BDC383F)
			u = erfPoly(s, 0x3FF0000000000000, 0x403E568B261D5190, 0x40745CAE221B9F0A, 0x409802EB189D5118, 0x40A8FFB7688C246A, 0x40A3F219CEDF3BE6, 0x407DA874E79FE763, 0xC03670E242712D62)
		}
		z := math.Float64frombits(math.Float64bits(t) &^ (1<<32 - 1))
		g := mul64(exp64(mul64(-z, z)-0.5625), exp64(mul64(z-t, z+t)+r/u))
		y = 1 - g/t
	}
	return sign64(y, x)
}

func integral(y float64) bool { return abs64(y) < math.Inf(1) && math.Trunc(y) == y }

func pow64(x, y float64) float64 {
	inf := math.Inf(1)
	switch {
	case y == 0 || x == 1:
		return 1
	case x != x || y != y:
		return math.NaN()
	case y == 0.5 && abs64(x) < inf:
		return math.Sqrt(x + 0)
	case integral(y) && abs64(y) <= 64:
		r, b := 1.0, x
		for n := int(abs64(y)); n > 0; {
			if n&1 == 1 {
				r = mul64(r, b)
			}
			n >>= 1
			if n > 0 {
				b = mul64(b, b)
			}
		}
		if y < 0 {
			return 1 / r
		}
		return r
	case abs64(y) == inf:
		a := abs64(x)
		switch {
		case a == 1:
			return 1
		case (a < 1) == (y > 0):
			return 0
		}
		return inf
	}
	odd := abs64(y) < 0x1p53 && integral(y) && int64(y)&1 == 1
	if x == 0 || abs64(x) == inf {
		v := 0.0
		if (x == 0) == (y < 0) {
			v = inf
		}
		if math.Signbit(x) && odd {
			return -v
		}
		return v
	}
	if x < 0 && !integral(y) {
		return math.NaN()
	}
	r := exp64(mul64(y, log64(abs64(x))))
	if x < 0 && odd {
		return -r
	}
	return r
}

// sum8 adds in eight lanes (S8). push adds a term, total joins the lanes.
type sum8[T float32 | float64] struct {
	a [8]T
	n int
}

func (s *sum8[T]) push(v T) {
	s.a[s.n&7] += v
	s.n++
}

func (s *sum8[T]) total() T {
	a := &s.a
	return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
}
