package serve

import "math"

// toF16 rounds to the nearest IEEE half, ties to even. It starts from the float64, so that nothing is rounded twice.
func toF16(v float64) uint16 {
	sign := uint16(0)
	if math.Signbit(v) {
		sign, v = 0x8000, -v
	}
	switch {
	case v != v:
		return 0x7e00
	case v == 0:
		return sign
	case math.IsInf(v, 1):
		return sign | 0x7c00
	}
	// Units of the last place: 2^-24 for subnormals, growing with the exponent. Scaling by a power of two is exact.
	_, e := math.Frexp(v)
	ulp := max(e-11, -24)
	n := math.RoundToEven(math.Ldexp(v, -ulp))
	if ulp == -24 {
		return sign | uint16(n) // a carry into the normals lands on the right bits
	}
	bits := uint32(ulp+24)<<10 + uint32(n)
	if bits >= 0x7c00 {
		return sign | 0x7c00
	}
	return sign | uint16(bits)
}

// fromF16 widens exactly.
func fromF16(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	e, m := int(h>>10&0x1f), float64(h&0x3ff)
	switch e {
	case 0:
		return sign * math.Ldexp(m, -24)
	case 31:
		if m != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(m+1024, e-25)
}

// toBF16 rounds to the nearest, ties to even.
func toBF16(v float32) uint16 {
	b := math.Float32bits(v)
	if v != v {
		return 0x7fc0
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
