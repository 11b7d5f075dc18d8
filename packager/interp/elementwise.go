package interp

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// pair broadcasts the first two inputs and makes the result.
func (c *call) pair(dt ir.DType) (a, b, out *tensor, ia, ib []int, err error) {
	a, b = c.t(0), c.t(1)
	dims, err := broadcast(a.dims, b.dims)
	if err != nil {
		return
	}
	if out, err = alloc(dt, dims); err != nil {
		return
	}
	return a, b, out, spread(a.dims, dims), spread(b.dims, dims), nil
}

func (c *call) arith() (*tensor, error) {
	a, b, out, ia, ib, err := c.pair(c.t(0).dt)
	if err != nil {
		return nil, err
	}
	op := c.n.Op
	if op == "Mod" && c.n.Int("fmod") == 0 {
		op = "FloorMod"
	}
	for i := range ia {
		x, y := ia[i], ib[i]
		switch {
		case out.f32 != nil:
			v, err := arithFloat(op, a.f32[x], b.f32[y])
			if err != nil {
				return nil, err
			}
			out.f32[i] = half(a.dt, v)
		case out.f64 != nil:
			if out.f64[i], err = arithFloat(op, a.f64[x], b.f64[y]); err != nil {
				return nil, err
			}
		default:
			v, err := c.arithInt(a.dt, a.ints[x], b.ints[y])
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			out.ints[i] = wrap(a.dt, v)
		}
	}
	return out, nil
}

// half rounds to the storage type of an f16 or bf16 operator.
func half(d ir.DType, v float32) float32 {
	switch d {
	case ir.F16:
		return fromF16(toF16(v))
	case ir.BF16:
		return math.Float32frombits(uint32(toBF16(v)) << 16)
	}
	return v
}

func arithFloat[T float32 | float64](op string, a, b T) (T, error) {
	switch op {
	case "Add":
		return a + b, nil
	case "Sub":
		return a - b, nil
	case "Mul":
		return T(a * b), nil
	case "Div":
		return a / b, nil
	case "Min":
		return min(a, b), nil
	case "Max":
		return max(a, b), nil
	case "Mod":
		// The remainder of f32 operands is exact in f64, and so in f32.
		return T(math.Mod(float64(a), float64(b))), nil
	case "FloorMod":
		r := T(math.Mod(float64(a), float64(b)))
		switch {
		case r == 0:
			return T(math.Copysign(0, float64(b))), nil
		case (r < 0) != (b < 0):
			r += b
		}
		return r, nil
	}
	return 0, fmt.Errorf("%s of floats", op)
}

var errZero = valuef("division by zero")

func (c *call) arithInt(d ir.DType, a, b int64) (int64, error) {
	u := d == ir.U64
	switch c.n.Op {
	case "Add":
		return a + b, nil
	case "Sub":
		return a - b, nil
	case "Mul":
		return a * b, nil
	case "Div":
		switch {
		case b == 0:
			return 0, errZero
		case u:
			return int64(uint64(a) / uint64(b)), nil
		case b == -1:
			return -a, nil
		}
		return a / b, nil
	case "Mod":
		switch {
		case b == 0:
			return 0, errZero
		case u:
			return int64(uint64(a) % uint64(b)), nil
		case b == -1:
			return 0, nil
		}
		r := a % b
		if c.n.Int("fmod") == 0 && r != 0 && (r < 0) != (b < 0) {
			r += b
		}
		return r, nil
	case "Min":
		if less(d, b, a) {
			return b, nil
		}
		return a, nil
	case "Max":
		if less(d, a, b) {
			return b, nil
		}
		return a, nil
	case "And":
		return a & b, nil
	case "Or":
		return a | b, nil
	case "Xor":
		return a ^ b, nil
	}
	return 0, fmt.Errorf("%s of integers", c.n.Op)
}

// less compares integers of type d.
func less(d ir.DType, a, b int64) bool {
	if d == ir.U64 {
		return uint64(a) < uint64(b)
	}
	return a < b
}

func (c *call) pow() (*tensor, error) {
	a, b, out, ia, ib, err := c.pair(c.t(0).dt)
	if err != nil {
		return nil, err
	}
	exp := func(k int) float64 {
		switch {
		case b.f32 != nil:
			return float64(b.f32[k])
		case b.f64 != nil:
			return b.f64[k]
		}
		return float64(b.ints[k])
	}
	for i := range ia {
		switch {
		case out.f32 != nil:
			out.f32[i] = half(a.dt, float32(pow64(float64(a.f32[ia[i]]), exp(ib[i]))))
		case out.f64 != nil:
			out.f64[i] = pow64(a.f64[ia[i]], exp(ib[i]))
		default:
			if out.ints[i], err = powInt(a.dt, a.ints[ia[i]], b.ints[ib[i]], b.dt); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
		}
	}
	return out, nil
}

func powInt(d ir.DType, x, n int64, nd ir.DType) (int64, error) {
	if n < 0 && nd != ir.U64 {
		switch x {
		case 0:
			return 0, errZero
		case 1:
			return 1, nil
		case -1:
			if n&1 == 0 {
				return 1, nil
			}
			return wrap(d, -1), nil
		}
		return 0, nil
	}
	r := int64(1)
	for u := uint64(n); u > 0; u >>= 1 {
		if u&1 == 1 {
			r *= x
		}
		x *= x
	}
	return wrap(d, r), nil
}

func (c *call) compare() (*tensor, error) {
	a, b, out, ia, ib, err := c.pair(ir.Bool)
	if err != nil {
		return nil, err
	}
	for i := range ia {
		x, y := ia[i], ib[i]
		var lt, eq, gt bool
		switch {
		case a.f32 != nil:
			lt, eq, gt = a.f32[x] < b.f32[y], a.f32[x] == b.f32[y], a.f32[x] > b.f32[y]
		case a.f64 != nil:
			lt, eq, gt = a.f64[x] < b.f64[y], a.f64[x] == b.f64[y], a.f64[x] > b.f64[y]
		case a.strs != nil:
			eq = a.strs[x] == b.strs[y]
		default:
			lt, eq, gt = less(a.dt, a.ints[x], b.ints[y]), a.ints[x] == b.ints[y], less(a.dt, b.ints[y], a.ints[x])
		}
		var v bool
		switch c.n.Op {
		case "Equal":
			v = eq
		case "Less":
			v = lt
		case "LessOrEqual":
			v = lt || eq
		case "Greater":
			v = gt
		case "GreaterOrEqual":
			v = gt || eq
		}
		if v {
			out.ints[i] = 1
		}
	}
	return out, nil
}

func (c *call) unary() (*tensor, error) {
	a := c.t(0)
	out, err := alloc(a.dt, a.dims)
	if err != nil {
		return nil, err
	}
	for i := range out.f32 {
		out.f32[i] = half(a.dt, unary32(c.n.Op, a.f32[i]))
	}
	for i := range out.f64 {
		out.f64[i] = unary64(c.n.Op, a.f64[i])
	}
	for i := range out.ints {
		v := a.ints[i]
		neg := v < 0 && a.dt != ir.U64
		switch c.n.Op {
		case "Not":
			v ^= 1
		case "Neg":
			v = -v
		case "Abs":
			if neg {
				v = -v
			}
		case "Sign":
			switch {
			case neg:
				v = -1
			case v != 0:
				v = 1
			}
		case "Relu":
			if neg {
				v = 0
			}
		default:
			return nil, fmt.Errorf("%s of %s", c.n.Op, a.dt)
		}
		out.ints[i] = wrap(a.dt, v)
	}
	return out, nil
}

func unary32(op string, x float32) float32 {
	switch op {
	case "Exp":
		return exp32(x)
	case "Log":
		return log32(x)
	case "Erf":
		return erf32(x)
	case "Sigmoid":
		return sigmoid32(x)
	case "Tanh":
		return tanh32(x)
	}
	// The rest is exact in f64, and Sqrt of an f32 rounds correctly through it.
	return float32(unary64(op, float64(x)))
}

func unary64(op string, x float64) float64 {
	switch op {
	case "Neg":
		return -x
	case "Abs":
		return abs64(x)
	case "Sign":
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		case x == 0:
			return 0
		}
		return x
	case "Floor":
		return math.Floor(x)
	case "Ceil":
		return math.Ceil(x)
	case "Round":
		return math.RoundToEven(x)
	case "Sqrt":
		return math.Sqrt(x)
	case "Exp":
		return exp64(x)
	case "Log":
		return log64(x)
	case "Erf":
		return erf64(x)
	case "Sigmoid":
		return sigmoid64(x)
	case "Tanh":
		return tanh64(x)
	case "Relu":
		if x < 0 {
			return 0
		}
		return x
	}
	return trig64(op, x)
}

func (c *call) where() (*tensor, error) {
	cond, a, b := c.t(0), c.t(1), c.t(2)
	dims, err := broadcast(cond.dims, a.dims, b.dims)
	if err != nil {
		return nil, err
	}
	out, err := alloc(a.dt, dims)
	if err != nil {
		return nil, err
	}
	ic, ia, ib := spread(cond.dims, dims), spread(a.dims, dims), spread(b.dims, dims)
	for i := range ic {
		src, k := b, ib[i]
		if cond.ints[ic[i]] != 0 {
			src, k = a, ia[i]
		}
		switch {
		case out.f32 != nil:
			out.f32[i] = src.f32[k]
		case out.f64 != nil:
			out.f64[i] = src.f64[k]
		case out.strs != nil:
			out.strs[i] = src.strs[k]
		default:
			out.ints[i] = src.ints[k]
		}
	}
	return out, nil
}

func (c *call) cast() (*tensor, error) {
	a, to := c.t(0), c.n.DType("to")
	if a.dt == ir.String || to == ir.String {
		return nil, c.unsupported("strings")
	}
	out, err := alloc(to, a.dims)
	if err != nil {
		return nil, err
	}
	for i := 0; i < a.len(); i++ {
		var f float64
		switch {
		case a.dt.IsSmallFloat():
			f = fromSmall(a.dt, a.ints[i])
		case a.f32 != nil:
			f = float64(a.f32[i])
		case a.f64 != nil:
			f = a.f64[i]
		default:
			castInt(out, i, a.dt, a.ints[i])
			continue
		}
		switch {
		case to == ir.F16:
			out.f32[i] = fromF16(f16From64(f))
		case to == ir.BF16:
			out.f32[i] = math.Float32frombits(uint32(bf16From64(f)) << 16)
		case to == ir.F32:
			out.f32[i] = float32(f)
		case to == ir.F64:
			out.f64[i] = f
		case to == ir.Bool:
			if f != 0 {
				out.ints[i] = 1
			}
		case to.Bits() < 8: // low bits of what i32 holds
			out.ints[i] = wrap(to, saturate(ir.I32, f))
		default:
			out.ints[i] = saturate(to, f)
		}
	}
	return out, nil
}

func castInt(out *tensor, i int, from ir.DType, v int64) {
	switch {
	case out.dt == ir.Bool:
		if v != 0 {
			out.ints[i] = 1
		}
	case out.ints != nil:
		out.ints[i] = wrap(out.dt, v)
	case out.dt == ir.F64:
		if from == ir.U64 {
			out.f64[i] = float64(uint64(v))
		} else {
			out.f64[i] = float64(v)
		}
	default:
		f := float32(v)
		if from == ir.U64 {
			f = float32(uint64(v))
		}
		if out.dt != ir.F32 { // half types: one rounding from the integer; those beyond 2^24 round the same from f64
			d := float64(v)
			if from == ir.U64 {
				d = float64(uint64(v))
			}
			if out.dt == ir.F16 {
				f = fromF16(f16From64(d))
			} else {
				f = math.Float32frombits(uint32(bf16From64(d)) << 16)
			}
		}
		out.f32[i] = f
	}
}

// toOdd rounds an f64 to f32 to odd, so that a further rounding to a narrower type is right.
func toOdd(f float64) float32 {
	v := float32(f)
	if float64(v) == f || f != f || v > math.MaxFloat32 || v < -math.MaxFloat32 {
		return v
	}
	b := math.Float32bits(v)
	if abs64(float64(v)) > abs64(f) {
		b--
	}
	return math.Float32frombits(b | 1)
}

func f16From64(f float64) uint16 { return toF16(toOdd(f)) }

func bf16From64(f float64) uint16 { return toBF16(toOdd(f)) }

// saturate truncates toward zero and clamps to the range of an integer type; NaN gives 0.
func saturate(d ir.DType, f float64) int64 {
	if f != f {
		return 0
	}
	bits := d.Bits()
	if d.IsUnsigned() {
		if f <= 0 {
			return 0
		}
		if f >= pow2d(bits) {
			return wrap(d, -1)
		}
		if bits == 64 && f >= 0x1p63 {
			return int64(uint64(f-0x1p63)) | math.MinInt64
		}
		return int64(f)
	}
	lim := pow2d(bits - 1)
	if f >= lim {
		return int64(uint64(1)<<(bits-1) - 1)
	}
	if f <= -lim {
		return -int64(uint64(1)<<(bits-2)) - int64(uint64(1)<<(bits-2))
	}
	return int64(f)
}

func (c *call) softmax() (*tensor, error) {
	a := c.t(0)
	out, err := alloc(a.dt, a.dims)
	if err != nil {
		return nil, err
	}
	axis, err := axisOf(c.n.Int("axis"), len(a.dims))
	if err != nil {
		return nil, err
	}
	rows(a.dims, axis, func(at func(int) int, n int) {
		if a.f32 != nil {
			softmaxRow(a.f32, out.f32, at, n, exp32)
		} else {
			softmaxRow(a.f64, out.f64, at, n, exp64)
		}
	})
	for i := range out.f32 {
		out.f32[i] = half(a.dt, out.f32[i])
	}
	return out, nil
}

// rows calls f for each line along the axis; at gives the flat index of its k-th element.
func rows(dims []int64, axis int, f func(at func(int) int, n int)) {
	n, inner, outer := int(dims[axis]), 1, 1
	for _, d := range dims[axis+1:] {
		inner *= int(d)
	}
	for _, d := range dims[:axis] {
		outer *= int(d)
	}
	for o := 0; o < outer; o++ {
		for i := 0; i < inner; i++ {
			base := o*n*inner + i
			f(func(k int) int { return base + k*inner }, n)
		}
	}
}

func softmaxRow[T float32 | float64](in, out []T, at func(int) int, n int, exp func(T) T) {
	m := T(math.Inf(-1))
	for k := 0; k < n; k++ {
		m = pmax(m, in[at(k)])
	}
	var s sum8[T]
	for k := 0; k < n; k++ {
		e := exp(in[at(k)] - m)
		out[at(k)] = e
		s.push(e)
	}
	t := s.total()
	for k := 0; k < n; k++ {
		out[at(k)] = out[at(k)] / t
	}
}
