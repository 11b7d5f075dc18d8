package interp

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// blockTerms is the length of the blocks of a blocked sum (docs/numerics.md, BLK).
const blockTerms = 16

// dot adds a[ia(k)] * b[ib(k)] in blocks.
func dot[T float32 | float64](n int, a []T, ia func(int) int, b []T, ib func(int) int) T {
	var total T
	for lo := 0; lo < n; lo += blockTerms {
		var acc T
		for k := lo; k < min(n, lo+blockTerms); k++ {
			acc += T(a[ia(k)] * b[ib(k)])
		}
		total += acc
	}
	return total
}

func dotInt(n int, a []int64, ia func(int) int, b []int64, ib func(int) int) int64 {
	var acc int64
	for k := 0; k < n; k++ {
		acc += a[ia(k)] * b[ib(k)]
	}
	return acc
}

// product fills out[i] with the dot product of one row and one column.
func product(out *tensor, i, n int, a *tensor, ia func(int) int, b *tensor, ib func(int) int) {
	switch {
	case out.f32 != nil:
		out.f32[i] = dot(n, a.f32, ia, b.f32, ib)
	case out.f64 != nil:
		out.f64[i] = dot(n, a.f64, ia, b.f64, ib)
	default:
		out.ints[i] = wrap(out.dt, dotInt(n, a.ints, ia, b.ints, ib))
	}
}

func (t *tensor) roundHalf() *tensor {
	for i := range t.f32 {
		t.f32[i] = half(t.dt, t.f32[i])
	}
	return t
}

func (c *call) matMul() (*tensor, error) {
	a, b := c.t(0), c.t(1)
	if len(a.dims) == 0 || len(b.dims) == 0 {
		return nil, fmt.Errorf("operands of rank 0")
	}
	x, y := a.dims, b.dims
	if len(x) == 1 {
		x = []int64{1, x[0]}
	}
	if len(y) == 1 {
		y = []int64{y[0], 1}
	}
	m, k, n := int(x[len(x)-2]), int(x[len(x)-1]), int(y[len(y)-1])
	if y[len(y)-2] != int64(k) {
		return nil, fmt.Errorf("inner dims %d and %d", k, y[len(y)-2])
	}
	lead, err := broadcast(x[:len(x)-2], y[:len(y)-2])
	if err != nil {
		return nil, err
	}
	dims := append([]int64{}, lead...)
	if len(a.dims) > 1 {
		dims = append(dims, int64(m))
	}
	if len(b.dims) > 1 {
		dims = append(dims, int64(n))
	}
	out, err := alloc(a.dt, dims)
	if err != nil {
		return nil, err
	}
	la, lb := spread(x[:len(x)-2], lead), spread(y[:len(y)-2], lead)
	at := 0
	for p := range la {
		for i := 0; i < m; i++ {
			for j := 0; j < n; j++ {
				ra, rb := la[p]*m*k+i*k, lb[p]*k*n+j
				product(out, at, k, a, func(q int) int { return ra + q }, b, func(q int) int { return rb + q*n })
				at++
			}
		}
	}
	return out.roundHalf(), nil
}

func (c *call) gemm() (*tensor, error) {
	a, b, bias := c.t(0), c.t(1), c.t(2)
	if len(a.dims) != 2 || len(b.dims) != 2 {
		return nil, fmt.Errorf("operands of rank %d and %d", len(a.dims), len(b.dims))
	}
	m, k, sa, ska := int(a.dims[0]), int(a.dims[1]), int(a.dims[1]), 1
	if c.n.Int("transA") != 0 {
		m, k, sa, ska = k, m, 1, int(a.dims[1])
	}
	k2, n, skb, sb := int(b.dims[0]), int(b.dims[1]), int(b.dims[1]), 1
	if c.n.Int("transB") != 0 {
		k2, n, skb, sb = n, k2, 1, int(b.dims[1])
	}
	if k != k2 {
		return nil, fmt.Errorf("inner dims %d and %d", k, k2)
	}
	out, err := alloc(a.dt, []int64{int64(m), int64(n)})
	if err != nil {
		return nil, err
	}
	alpha, beta := c.n.Float("alpha"), c.n.Float("beta")
	var ib []int
	if bias != nil && beta != 0 {
		if d, err := broadcast(bias.dims, out.dims); err != nil || len(d) != 2 || d[0] != out.dims[0] || d[1] != out.dims[1] {
			return nil, fmt.Errorf("C of %v does not broadcast to %v", bias.dims, out.dims)
		}
		ib = spread(bias.dims, out.dims)
	}
	for i := 0; i < m; i++ {
		for j := 0; j < n; j++ {
			at := i*n + j
			product(out, at, k, a, func(q int) int { return i*sa + q*ska }, b, func(q int) int { return j*sb + q*skb })
			switch {
			case out.f32 != nil:
				out.f32[at] = scaled(out.f32[at], float32(alpha))
				if ib != nil {
					out.f32[at] += scaled(bias.f32[ib[at]], float32(beta))
				}
			case out.f64 != nil:
				out.f64[at] = scaled(out.f64[at], alpha)
				if ib != nil {
					out.f64[at] += scaled(bias.f64[ib[at]], beta)
				}
			default:
				v := out.ints[at] * int64(alpha)
				if ib != nil {
					v += bias.ints[ib[at]] * int64(beta)
				}
				out.ints[at] = wrap(out.dt, v)
			}
		}
	}
	return out.roundHalf(), nil
}

// scaled leaves the product out for a factor of 1.
func scaled[T float32 | float64](v, by T) T {
	if by == 1 {
		return v
	}
	return T(v * by)
}

// axisWindow is one spatial dim of a window operator.
type axisWindow struct{ in, out, kernel, stride, begin, dilation int64 }

// windows resolves the spatial attributes for the input's sizes.
func (c *call) windows(dims []int64, ceil bool) ([]axisWindow, error) {
	k, s, p, d := c.n.Ints("kernel_shape"), c.n.Ints("strides"), c.n.Ints("pads"), c.n.Ints("dilations")
	if len(dims) != len(k) {
		return nil, fmt.Errorf("%d spatial dims for a kernel of %d", len(dims), len(k))
	}
	out := make([]axisWindow, len(k))
	for i := range k {
		w := axisWindow{in: dims[i], kernel: k[i], stride: s[i], begin: p[i], dilation: d[i]}
		end := p[i+len(k)]
		span := (w.kernel-1)*w.dilation + 1
		if auto := c.n.Str("auto_pad"); auto != "NOTSET" {
			w.out = (w.in + w.stride - 1) / w.stride
			total := max((w.out-1)*w.stride+span-w.in, 0)
			w.begin = total / 2
			if auto == "SAME_LOWER" {
				w.begin = total - total/2
			}
		} else {
			free := w.in + w.begin + end - span
			w.out = floorDiv(free, w.stride) + 1
			if ceil && free%w.stride != 0 && w.out*w.stride < w.in+w.begin {
				w.out++
			}
			if w.out < 1 {
				return nil, fmt.Errorf("spatial dim %d of size %d is smaller than the window", i, w.in)
			}
		}
		out[i] = w
	}
	return out, nil
}

// tap is one element of a window: where it lies in the kernel and in the input, as flat spatial indices.
type tap struct{ kernel, input int }

// taps lists the elements of the window at an output position that lie inside the input, in row-major order.
func taps(ws []axisWindow, pos []int64) []tap {
	kd := make([]int64, len(ws))
	for i, w := range ws {
		kd[i] = w.kernel
	}
	var out []tap
	_ = each(kd, func(flat int, ix []int64) error {
		at := int64(0)
		for i, w := range ws {
			x := pos[i]*w.stride - w.begin + ix[i]*w.dilation
			if x < 0 || x >= w.in {
				return nil
			}
			at = at*w.in + x
		}
		out = append(out, tap{flat, int(at)})
		return nil
	})
	return out
}

// tapCache remembers the taps of each output position, which all channels share.
type tapCache struct {
	ws   []axisWindow
	list map[int][]tap
}

func newTapCache(ws []axisWindow) *tapCache { return &tapCache{ws, map[int][]tap{}} }

func (c *tapCache) get(pos []int64) []tap {
	k := 0
	for i, w := range c.ws {
		k = k*int(w.out) + int(pos[i])
	}
	ts, ok := c.list[k]
	if !ok {
		ts = taps(c.ws, pos)
		c.list[k] = ts
	}
	return ts
}

func spatialOut(ws []axisWindow) []int64 {
	out := make([]int64, len(ws))
	for i, w := range ws {
		out[i] = w.out
	}
	return out
}

func prod(d []int64) int {
	n := 1
	for _, v := range d {
		n *= int(v)
	}
	return n
}

func (c *call) conv() (*tensor, error) {
	x, w, bias := c.t(0), c.t(1), c.t(2)
	if len(x.dims) != len(w.dims) || len(x.dims) < 3 {
		return nil, fmt.Errorf("X of %v with W of %v", x.dims, w.dims)
	}
	ws, err := c.windows(x.dims[2:], false)
	if err != nil {
		return nil, err
	}
	group := c.n.Int("group")
	m, cg := w.dims[0], w.dims[1]
	if x.dims[1] != cg*group || m%group != 0 {
		return nil, fmt.Errorf("%d channels and %d filters in %d groups of %d", x.dims[1], m, group, cg)
	}
	for i, k := range c.n.Ints("kernel_shape") {
		if w.dims[2+i] != k {
			return nil, fmt.Errorf("kernel_shape is %v, W has dims %v", c.n.Ints("kernel_shape"), w.dims)
		}
	}
	if bias != nil && (len(bias.dims) != 1 || bias.dims[0] != m) {
		return nil, fmt.Errorf("B of %v for %d filters", bias.dims, m)
	}
	sp := spatialOut(ws)
	out, err := alloc(x.dt, append([]int64{x.dims[0], m}, sp...))
	if err != nil {
		return nil, err
	}
	inSize, kSize, positions := prod(x.dims[2:]), prod(w.dims[2:]), prod(sp)
	perGroup := int(m / group)
	err = each(sp, func(at int, pos []int64) error {
		if err := c.m.ctx.Err(); err != nil {
			return err
		}
		ts := taps(ws, pos)
		for b := 0; b < int(x.dims[0]); b++ {
			for f := 0; f < int(m); f++ {
				xb := (b*int(x.dims[1]) + f/perGroup*int(cg)) * inSize
				wb, to := f*int(cg)*kSize, (b*int(m)+f)*positions+at
				if x.f32 != nil {
					out.f32[to] = convSum(ts, x.f32[xb:], w.f32[wb:], int(cg), inSize, kSize)
					if bias != nil {
						out.f32[to] += bias.f32[f]
					}
				} else {
					out.f64[to] = convSum(ts, x.f64[xb:], w.f64[wb:], int(cg), inSize, kSize)
					if bias != nil {
						out.f64[to] += bias.f64[f]
					}
				}
			}
		}
		return nil
	})
	return out.roundHalf(), err
}

// convSum adds the products of the taps in blocks. Terms are numbered over all positions of the kernel, then channels, so
// that the blocks are the same at the borders.
func convSum[T float32 | float64](ts []tap, x, w []T, channels, inSize, kSize int) T {
	var total, acc T
	block := 0
	for _, t := range ts {
		for ch := 0; ch < channels; ch++ {
			if b := (t.kernel*channels + ch) / blockTerms; b != block {
				total, acc, block = total+acc, 0, b
			}
			acc += T(x[ch*inSize+t.input] * w[ch*kSize+t.kernel])
		}
	}
	return total + acc
}

func (c *call) maxPool() ([]*tensor, error) {
	x := c.t(0)
	if len(x.dims) < 3 {
		return nil, fmt.Errorf("X of %v", x.dims)
	}
	ws, err := c.windows(x.dims[2:], c.n.Int("ceil_mode") != 0)
	if err != nil {
		return nil, err
	}
	dims := append([]int64{x.dims[0], x.dims[1]}, spatialOut(ws)...)
	out, err := alloc(x.dt, dims)
	if err != nil {
		return nil, err
	}
	ind, err := alloc(ir.I64, dims)
	if err != nil {
		return nil, err
	}
	size := prod(x.dims[2:])
	colMajor := c.n.Int("storage_order") != 0
	at := newTapCache(ws)
	err = each(dims, func(flat int, ix []int64) error {
		base := int(ix[0]*x.dims[1]+ix[1]) * size
		best := -1
		for _, t := range at.get(ix[2:]) {
			if i := t.input; best < 0 || !x.isNaN(base+best) && (x.isNaN(base+i) || x.before(base+best, base+i)) {
				best = i
			}
		}
		if best < 0 { // the window lies in the padding altogether
			out.setLowest(flat)
			ind.ints[flat] = -1
			return nil
		}
		out.set(flat, x, base+best)
		if colMajor {
			best = transposed(best, x.dims[2:])
		}
		ind.ints[flat] = int64(base + best)
		return nil
	})
	return []*tensor{out, ind}, err
}

// setLowest gives element i the value that every other one beats.
func (t *tensor) setLowest(i int) {
	switch {
	case t.f32 != nil:
		t.f32[i] = float32(math.Inf(-1))
	case t.f64 != nil:
		t.f64[i] = math.Inf(-1)
	case t.dt == ir.Bool || !t.dt.IsSigned():
		t.ints[i] = 0
	default:
		t.ints[i] = wrapLow(t.dt, math.MinInt64)
	}
}

// wrapLow maps the start value of an integer maximum to the type's lowest value.
func wrapLow(d ir.DType, v int64) int64 {
	if v == math.MinInt64 && d.IsSigned() && d.Bits() < 64 {
		return -1 << (d.Bits() - 1)
	}
	return v
}

// transposed turns a row-major index of dims into the column-major one.
func transposed(i int, dims []int64) int {
	out, st := 0, prod(dims)
	for d := len(dims) - 1; d >= 0; d-- {
		n := int(dims[d])
		st /= n
		out += i % n * st
		i /= n
	}
	return out
}

func (c *call) averagePool() (*tensor, error) {
	x := c.t(0)
	if len(x.dims) < 3 {
		return nil, fmt.Errorf("X of %v", x.dims)
	}
	ws, err := c.windows(x.dims[2:], c.n.Int("ceil_mode") != 0)
	if err != nil {
		return nil, err
	}
	out, err := alloc(x.dt, append([]int64{x.dims[0], x.dims[1]}, spatialOut(ws)...))
	if err != nil {
		return nil, err
	}
	size, pads := prod(x.dims[2:]), c.n.Ints("pads")
	include := c.n.Int("count_include_pad") != 0
	at := newTapCache(ws)
	err = each(out.dims, func(flat int, ix []int64) error {
		base := int(ix[0]*x.dims[1]+ix[1]) * size
		n, a32, a64 := 0, float32(0), float64(0)
		for _, t := range at.get(ix[2:]) {
			n++
			if x.f32 != nil {
				a32 += x.f32[base+t.input]
			} else {
				a64 += x.f64[base+t.input]
			}
		}
		if include {
			n = 1
			for i, w := range ws {
				inside := 0
				for k := int64(0); k < w.kernel; k++ {
					end := pads[i+len(ws)]
					if c.n.Str("auto_pad") != "NOTSET" {
						end = max((w.out-1)*w.stride+(w.kernel-1)*w.dilation+1-w.in-w.begin, 0)
					}
					if p := ix[2+i]*w.stride - w.begin + k*w.dilation; p >= -w.begin && p < w.in+end {
						inside++
					}
				}
				n *= inside
			}
		}
		if x.f32 != nil {
			out.f32[flat] = a32 / float32(n)
		} else {
			out.f64[flat] = a64 / float64(n)
		}
		return nil
	})
	return out.roundHalf(), err
}

func (c *call) batchNorm() (*tensor, error) {
	x := c.t(0)
	if len(x.dims) < 2 {
		return nil, fmt.Errorf("X of %v", x.dims)
	}
	for i := 1; i < 5; i++ {
		if c.t(i).len() != int(x.dims[1]) {
			return nil, fmt.Errorf("input %d has %d elements for %d channels", i, c.t(i).len(), x.dims[1])
		}
	}
	out, err := alloc(x.dt, x.dims)
	if err != nil {
		return nil, err
	}
	eps, inner := c.n.Float("epsilon"), prod(x.dims[2:])
	for i := 0; i < out.len(); i++ {
		ch := i / max(inner, 1) % int(x.dims[1])
		if x.f32 != nil {
			a := c.t(1).f32[ch] / float32(math.Sqrt(float64(c.t(4).f32[ch]+float32(eps))))
			b := c.t(2).f32[ch] - mul(c.t(3).f32[ch], a)
			out.f32[i] = mul(x.f32[i], a) + b
		} else {
			a := c.t(1).f64[ch] / math.Sqrt(c.t(4).f64[ch]+eps)
			b := c.t(2).f64[ch] - mul64(c.t(3).f64[ch], a)
			out.f64[i] = mul64(x.f64[i], a) + b
		}
	}
	return out.roundHalf(), nil
}

// floorDiv is a/b rounded down; b > 0.
func floorDiv(a, b int64) int64 {
	if a < 0 {
		return -((b - 1 - a) / b)
	}
	return a / b
}
