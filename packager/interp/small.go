package interp

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// smallForm describes a float of few bits with a sign bit: section 3.2 of docs/numerics.md.
type smallForm struct {
	mant, bias int
	max        int64 // bit pattern of the largest value
	nan, over  int64 // of NaN, and of what lies beyond max when it does not saturate
	sign       int64
	noNegZero  bool
}

func formOf(d ir.DType) smallForm {
	switch d {
	case ir.F8E4M3FN:
		return smallForm{3, 7, 0x7e, 0x7f, 0x7f, 0x80, false}
	case ir.F8E4M3FNUZ:
		return smallForm{3, 8, 0x7f, 0x80, 0x80, 0x80, true}
	case ir.F8E5M2:
		return smallForm{2, 15, 0x7b, 0x7e, 0x7c, 0x80, false}
	case ir.F8E5M2FNUZ:
		return smallForm{2, 16, 0x7f, 0x80, 0x80, 0x80, true}
	}
	return smallForm{1, 1, 7, 8, 7, 8, false} // f4e2m1
}

func fromSmall(d ir.DType, c int64) float64 {
	if d == ir.F8E8M0 {
		if c == 255 {
			return math.NaN()
		}
		return pow2d(int(c) - 127)
	}
	f := formOf(d)
	mag := c & (f.sign - 1)
	switch {
	case f.noNegZero && c == 0x80, d == ir.F8E4M3FN && mag == 0x7f, d == ir.F8E5M2 && mag > 0x7c:
		return math.NaN()
	case d == ir.F8E5M2 && mag == 0x7c:
		if c&f.sign != 0 {
			return math.Inf(-1)
		}
		return math.Inf(1)
	}
	e, m := int(mag>>f.mant), mag&(1<<f.mant-1)
	if e == 0 {
		e = 1
	} else {
		m |= 1 << f.mant
	}
	v := mul64(float64(m), pow2d(e-f.bias-f.mant))
	if c&f.sign != 0 {
		return -v
	}
	return v
}

func toSmall(d ir.DType, x float64, saturate bool, mode string) int64 {
	if d == ir.F8E8M0 {
		return toE8M0(float32(x), saturate, mode)
	}
	f := formOf(d)
	if x != x {
		return f.nan
	}
	var s int64
	if math.Signbit(x) {
		s = f.sign
	}
	a := abs64(x)
	code := f.max + 1
	switch {
	case a >= 0x1p300:
	case a < pow2d(1-f.bias):
		code = int64(math.RoundToEven(mul64(a, pow2d(f.mant+f.bias-1))))
	default:
		e := int(math.Float64bits(a)>>52) - 1023
		m := int64(math.RoundToEven(mul64(a, pow2d(f.mant-e))))
		code = int64(e+f.bias-1)<<f.mant + m
	}
	if code > f.max {
		if !saturate {
			return f.over | s
		}
		code = f.max
	}
	if code == 0 && f.noNegZero {
		return 0
	}
	return code | s
}

// toE8M0 keeps the exponent: the sign is dropped, infinity and NaN give NaN.
func toE8M0(x float32, saturate bool, mode string) int64 {
	b := math.Float32bits(x)
	e, frac := int64(b>>23&255), b&0x7fffff
	if e == 255 {
		return 255
	}
	up := mode == "up" && frac > 0
	if mode == "nearest" {
		// Half way goes up, except for half of the smallest power.
		up = frac > 0x400000 || frac == 0x400000 && e > 0
	}
	if up && !(saturate && e == 254) {
		e++
	}
	return e
}

func (c *call) castSmall() (*tensor, error) {
	a, to := c.t(0), c.n.DType("to")
	out, err := alloc(to, a.dims)
	if err != nil {
		return nil, err
	}
	sat, mode := c.n.Int("saturate") != 0, c.n.Str("round_mode")
	for i := range out.ints {
		var f float64
		switch {
		case a.dt.IsSmallFloat():
			f = fromSmall(a.dt, a.ints[i])
		case a.f32 != nil:
			f = float64(a.f32[i])
		case a.f64 != nil:
			f = a.f64[i]
		case a.dt == ir.U64:
			f = float64(uint64(a.ints[i]))
		default:
			f = float64(a.ints[i])
		}
		out.ints[i] = toSmall(to, f, sat, mode)
	}
	return out, nil
}
