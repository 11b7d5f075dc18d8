package trees

import "math"

// Log is the natural logarithm by the algorithm of docs/numerics.md section 2 (f64), for base scores: math.Log differs between
// architectures, and a model packed on two machines must not. NaN below zero, -Inf at zero.
func Log(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	case math.IsInf(x, 1):
		return x
	}
	e := 0
	if x < 0x1p-1022 {
		x, e = x*0x1p54, -54
	}
	b := math.Float64bits(x)
	e += int(b>>52) - 1022
	m := math.Float64frombits(b&(1<<52-1) | 0x3fe0000000000000)
	if m < 0x1.6a09e667f3bcdp-1 {
		m, e = m+m, e-1
	}
	// The conversions round each product on its own, where Go would fuse it with the sum.
	f, k := m-1, float64(e)
	s := f / (2 + f)
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	odd, even := 0x1.2f112df3e5244p-3, 0x1.39a09d078c69fp-3
	for _, c := range []float64{0x1.7466496cb03dep-3, 0x1.2492494229359p-2, 0x1.5555555555593p-1} {
		odd = c + float64(s4*odd)
	}
	for _, c := range []float64{0x1.c71c51d8e78afp-3, 0x1.999999997fa04p-2} {
		even = c + float64(s4*even)
	}
	r := float64(s2*odd) + float64(s4*even)
	h := float64(float64(0.5*f) * f)
	return float64(k*0x1.62e42feep-1) - ((h - (float64(s*(h+r)) + float64(k*0x1.a39ef35793c76p-33))) - f)
}
