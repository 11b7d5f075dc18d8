package interp

import (
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Numbers as text (docs/numerics.md, section 3.2), by the standard library and exact rationals.

var errText = valuef("a text is no number")

func (c *call) numberToText() (*tensor, error) {
	x := c.t(0)
	out, err := alloc(ir.String, x.dims)
	if err != nil {
		return nil, err
	}
	for i := range out.strs {
		switch {
		case x.f64 != nil:
			out.strs[i] = layText(x.f64[i], 64, x.dt)
		case x.f32 != nil:
			out.strs[i] = layText(float64(x.f32[i]), 32, x.dt)
		case x.dt == ir.U64:
			out.strs[i] = strconv.FormatUint(uint64(x.ints[i]), 10)
		default:
			out.strs[i] = strconv.FormatInt(x.ints[i], 10)
		}
	}
	return out, nil
}

// layText writes the shortest digits that give v back in its type.
func layText(v float64, bits int, d ir.DType) string {
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	s := strconv.FormatFloat(v, 'e', -1, bits)
	if d == ir.F16 || d == ir.BF16 {
		for p := 0; p < 20; p++ {
			s = strconv.FormatFloat(v, 'e', p, 64)
			back, err := narrow(s, d)
			if err == nil && back == v {
				break
			}
			// The closest decimal may lie outside of the narrower half of the interval at a power of two; a neighbour may not.
			if t, ok := neighbour(s, v, d); ok {
				s = t
				break
			}
		}
	}
	// Of two decimals as close, the even one: what rounding to that many digits gives, where it gives v back.
	if m, _, _ := strings.Cut(strings.TrimPrefix(s, "-"), "e"); bits == 64 || d == ir.F32 {
		t := strconv.FormatFloat(v, 'e', max(len(m)-2, 0), 64)
		if back, err := strconv.ParseFloat(t, bits); err == nil && back == v {
			s = t
		}
	}
	sign, digits := "", s
	if strings.HasPrefix(s, "-") {
		sign, digits = "-", s[1:]
	}
	mant, e, _ := strings.Cut(digits, "e")
	exp, _ := strconv.Atoi(e)
	mant = strings.ReplaceAll(mant, ".", "")
	switch {
	case v == 0:
		return sign + "0.0"
	case exp >= -4 && exp < 0:
		return sign + "0." + strings.Repeat("0", -exp-1) + mant
	case exp >= 0 && exp < 16 && len(mant) <= exp+1:
		return sign + mant + strings.Repeat("0", exp+1-len(mant)) + ".0"
	case exp >= 0 && exp < 16:
		return sign + mant[:exp+1] + "." + mant[exp+1:]
	}
	if len(mant) > 1 {
		mant = mant[:1] + "." + mant[1:]
	}
	w := strconv.Itoa(exp)
	if exp >= 0 {
		w = "+" + w
	}
	if len(w) < 3 {
		w = w[:1] + "0" + w[1:]
	}
	return sign + mant + "e" + w
}

// neighbour looks for a decimal of as many digits as s, one up, that gives v back.
func neighbour(s string, v float64, d ir.DType) (string, bool) {
	mant, e, _ := strings.Cut(s, "e")
	neg := strings.HasPrefix(mant, "-")
	n, err := strconv.Atoi(strings.TrimPrefix(strings.ReplaceAll(mant, ".", ""), "-"))
	if err != nil {
		return "", false
	}
	m := strconv.Itoa(n + 1)
	if len(m) > 1 {
		m = m[:1] + "." + m[1:]
	}
	if neg {
		m = "-" + m
	}
	t := m + "e" + e
	back, err := narrow(t, d)
	return t, err == nil && back == v
}

func (c *call) textToNumber() (*tensor, error) {
	x, to := c.t(0), c.n.DType("to")
	out, err := alloc(to, x.dims)
	if err != nil {
		return nil, err
	}
	for i, s := range x.strs {
		s = strings.Trim(s, " \t\n\v\f\r")
		if to.IsInt() {
			if v, ok := integer(s, to); ok {
				out.ints[i] = v
				continue
			}
		}
		d := to
		if !to.IsFloat() {
			d = ir.F64
		}
		f, err := narrow(s, d)
		if err != nil {
			return nil, err
		}
		switch {
		case to == ir.F64:
			out.f64[i] = f
		case to.IsFloat():
			out.f32[i] = float32(f)
		case to == ir.Bool:
			if f != 0 {
				out.ints[i] = 1
			}
		default:
			out.ints[i] = saturate(to, f)
		}
	}
	return out, nil
}

// integer reads a sign and digits, saturated to the type.
func integer(s string, d ir.DType) (int64, bool) {
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+")
	if len(s)-len(digits) > 1 || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return 0, false
	}
	if s[0] == '-' {
		n.Neg(n)
	}
	lo, hi := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(d.Bits()))
	if d.IsSigned() {
		hi.Rsh(hi, 1)
		lo.Neg(hi)
	}
	hi.Sub(hi, big.NewInt(1))
	if n.Cmp(lo) < 0 {
		n = lo
	}
	if n.Cmp(hi) > 0 {
		n = hi
	}
	if d == ir.U64 {
		return int64(n.Uint64()), true
	}
	return n.Int64(), true
}

// narrow reads a decimal number, or inf, infinity or nan in any case, and rounds it once to the float type d.
func narrow(s string, d ir.DType) (float64, error) {
	body, neg := s, false
	if body != "" && (body[0] == '-' || body[0] == '+') {
		neg, body = body[0] == '-', body[1:]
	}
	sign := func(v float64) (float64, error) {
		if neg {
			v = -v
		}
		return v, nil
	}
	switch strings.ToLower(body) {
	case "inf", "infinity":
		return sign(math.Inf(1))
	case "nan":
		return math.NaN(), nil
	}
	mant, e, has := strings.Cut(strings.ToLower(body), "e")
	whole, frac, _ := strings.Cut(mant, ".")
	if whole+frac == "" || strings.Trim(whole+frac, "0123456789") != "" {
		return 0, errText
	}
	exp := 0
	if has {
		digits := e
		if digits != "" && (digits[0] == '-' || digits[0] == '+') {
			digits = digits[1:]
		}
		if digits == "" || strings.Trim(digits, "0123456789") != "" {
			return 0, errText
		}
		if digits = strings.TrimLeft(digits, "0"); len(digits) > 8 {
			digits = "99999999"
		}
		exp, _ = strconv.Atoi("0" + digits)
		if e[0] == '-' {
			exp = -exp
		}
	}
	all := strings.TrimLeft(whole+frac, "0")
	exp -= len(frac)
	switch {
	case all == "" || len(all)+exp < -330:
		return sign(0)
	case len(all)+exp > 310:
		return sign(math.Inf(1))
	}
	n, _ := new(big.Int).SetString(all, 10)
	r := new(big.Rat).SetInt(n)
	p := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exp, -exp))), nil)
	if exp < 0 {
		r.SetFrac(n, p)
	} else {
		r.Mul(r, new(big.Rat).SetInt(p))
	}
	switch d {
	case ir.F64:
		v, _ := r.Float64()
		return sign(v)
	case ir.F32:
		v, _ := r.Float32()
		return sign(float64(v))
	}
	// To odd in f64 first, so that the second rounding sees which side the number is on.
	v, exact := r.Float64()
	if !exact && math.Float64bits(v)&1 == 0 && !math.IsInf(v, 0) {
		to := math.Inf(1)
		if new(big.Rat).SetFloat64(v).Cmp(r) > 0 {
			to = 0
		}
		v = math.Nextafter(v, to)
	}
	if d == ir.F16 {
		return sign(float64(fromF16(f16From64(v))))
	}
	return sign(float64(math.Float32frombits(uint32(bf16From64(v)) << 16)))
}
