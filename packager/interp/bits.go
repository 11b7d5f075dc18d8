package interp

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
)

// bitwise is BitwiseAnd, BitwiseOr, BitwiseXor and BitShift.
func (c *call) bitwise() (*tensor, error) {
	a, b, out, ia, ib, err := c.pair(c.t(0).dt)
	if err != nil {
		return nil, err
	}
	for i := range ia {
		x, y := a.ints[ia[i]], b.ints[ib[i]]
		switch c.n.Op {
		case "BitwiseAnd":
			x &= y
		case "BitwiseOr":
			x |= y
		case "BitwiseXor":
			x ^= y
		default:
			switch n := uint64(y); { // a negative count is a large one
			case n >= uint64(a.dt.Bits()):
				if c.n.Str("direction") == "RIGHT" && a.dt.IsSigned() && x < 0 {
					x = -1
				} else {
					x = 0
				}
			case c.n.Str("direction") == "LEFT":
				x <<= n
			case a.dt.IsSigned():
				x >>= n
			default:
				x = int64(uint64(x) >> n)
			}
		}
		out.ints[i] = wrap(a.dt, x)
	}
	return out, nil
}

func (c *call) bitwiseNot() (*tensor, error) {
	a := c.t(0)
	out, err := alloc(a.dt, a.dims)
	if err != nil {
		return nil, err
	}
	for i, v := range a.ints {
		out.ints[i] = wrap(a.dt, ^v)
	}
	return out, nil
}

func (c *call) bitCast() (*tensor, error) {
	d := c.t(0).data(true)
	d.DType = c.n.DType("to")
	t, err := fromData(d)
	if err != nil {
		return nil, err
	}
	if d.DType == ir.Bool {
		for i, v := range t.ints {
			if v != 0 {
				t.ints[i] = 1
			}
		}
	}
	return t, nil
}

// cumulative is CumSum and CumProd.
func (c *call) cumulative() (*tensor, error) {
	x, ax := c.t(0), c.t(1).ints
	if len(ax) != 1 {
		return nil, fmt.Errorf("axis has %d elements", len(ax))
	}
	axis, err := axisOf(ax[0], len(x.dims))
	if err != nil {
		return nil, err
	}
	out, err := alloc(x.dt, x.dims)
	if err != nil {
		return nil, err
	}
	if x.len() == 0 {
		return out, nil
	}
	prod, excl, rev := c.n.Op == "CumProd", c.n.Int("exclusive") != 0, c.n.Int("reverse") != 0
	rows(x.dims, axis, func(at func(int) int, n int) {
		if rev {
			fwd := at
			at = func(k int) int { return fwd(n - 1 - k) }
		}
		switch {
		case x.f32 != nil:
			run(x.f32, out.f32, at, n, prod, excl)
		case x.f64 != nil:
			run(x.f64, out.f64, at, n, prod, excl)
		default:
			run(x.ints, out.ints, at, n, prod, excl)
		}
	})
	for i := range out.f32 {
		out.f32[i] = half(x.dt, out.f32[i])
	}
	for i := range out.ints {
		out.ints[i] = wrap(x.dt, out.ints[i])
	}
	return out, nil
}

func run[T float32 | float64 | int64](in, out []T, at func(int) int, n int, prod, excl bool) {
	var acc T
	if prod {
		acc = 1
	}
	for k := 0; k < n; k++ {
		if excl {
			out[at(k)] = acc
		}
		if prod {
			acc = T(acc * in[at(k)])
		} else {
			acc += in[at(k)]
		}
		if !excl {
			out[at(k)] = acc
		}
	}
}
