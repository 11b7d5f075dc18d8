package interp

import (
	"fmt"
	"math"
	"sort"

	"github.com/waybill-ml/waybill/packager/ir"
)

func (c *call) reduce() (*tensor, error) {
	x := c.t(0)
	var axes []int64
	if t := c.t(1); t != nil {
		axes = t.ints
	}
	if len(axes) == 0 {
		for i := range x.dims {
			axes = append(axes, int64(i))
		}
	}
	ax, err := axesOf(axes, len(x.dims))
	if err != nil {
		return nil, err
	}
	gone := make([]bool, len(x.dims))
	for _, a := range ax {
		gone[a] = true
	}
	kept, dims := make([]int64, len(x.dims)), []int64{}
	count := int64(1)
	for i, d := range x.dims {
		kept[i] = d
		switch {
		case gone[i]:
			kept[i] = 1
			count *= d
			if c.n.Int("keepdims") != 0 {
				dims = append(dims, 1)
			}
		default:
			dims = append(dims, d)
		}
	}
	out, err := alloc(x.dt, dims)
	if err != nil {
		return nil, err
	}
	// Elements of each result, in row-major order of the input.
	groups := make([][]int, out.len())
	for flat, k := range spread(kept, x.dims) {
		groups[k] = append(groups[k], flat)
	}
	for i, g := range groups {
		switch {
		case x.f32 != nil:
			out.f32[i] = half(x.dt, reduceFloat(c.n.Op, x.f32, g, float32(count)))
		case x.f64 != nil:
			out.f64[i] = reduceFloat(c.n.Op, x.f64, g, float64(count))
		default:
			if out.ints[i], err = c.reduceInt(x, g); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func reduceFloat[T float32 | float64](op string, x []T, g []int, count T) T {
	switch op {
	case "ReduceProd":
		p := T(1)
		for _, k := range g {
			p = T(p * x[k])
		}
		return p
	case "ReduceMax":
		m := T(math.Inf(-1))
		for _, k := range g {
			m = max(m, x[k])
		}
		return m
	case "ReduceMin":
		m := T(math.Inf(1))
		for _, k := range g {
			m = min(m, x[k])
		}
		return m
	}
	var s sum8[T]
	for _, k := range g {
		s.push(x[k])
	}
	if op == "ReduceMean" {
		return s.total() / count
	}
	return s.total()
}

func (c *call) reduceInt(x *tensor, g []int) (int64, error) {
	d := x.dt
	var v int64
	switch c.n.Op {
	case "ReduceProd":
		v = 1
	case "ReduceMax":
		v = wrapLow(d, math.MinInt64)
		if d == ir.Bool || d.IsUnsigned() {
			v = 0
		}
	case "ReduceMin":
		switch {
		case d == ir.Bool:
			v = 1
		case d.IsUnsigned():
			v = wrap(d, -1)
		default:
			v = int64(uint64(1)<<(d.Bits()-1) - 1)
		}
	}
	for _, k := range g {
		e := x.ints[k]
		switch c.n.Op {
		case "ReduceProd":
			v *= e
		case "ReduceMax":
			if less(d, v, e) {
				v = e
			}
		case "ReduceMin":
			if less(d, e, v) {
				v = e
			}
		default:
			v += e
		}
	}
	v = wrap(d, v)
	if c.n.Op == "ReduceMean" {
		if len(g) == 0 {
			return 0, errZero
		}
		if d == ir.U64 {
			return int64(uint64(v) / uint64(len(g))), nil
		}
		return v / int64(len(g)), nil
	}
	return v, nil
}

// before compares elements i and k of t: value i is smaller.
func (t *tensor) before(i, k int) bool {
	switch {
	case t.f32 != nil:
		return t.f32[i] < t.f32[k]
	case t.f64 != nil:
		return t.f64[i] < t.f64[k]
	}
	return less(t.dt, t.ints[i], t.ints[k])
}

func (t *tensor) isNaN(i int) bool {
	return t.f32 != nil && t.f32[i] != t.f32[i] || t.f64 != nil && t.f64[i] != t.f64[i]
}

func (c *call) arg() (*tensor, error) {
	x := c.t(0)
	axis, err := axisOf(c.n.Int("axis"), len(x.dims))
	if err != nil {
		return nil, err
	}
	if x.dims[axis] == 0 && x.len() == 0 && prodBut(x.dims, axis) > 0 {
		return nil, fmt.Errorf("the axis is empty")
	}
	dims := append([]int64{}, x.dims...)
	dims[axis] = 1
	if c.n.Int("keepdims") == 0 {
		dims = append(dims[:axis], dims[axis+1:]...)
	}
	out, err := alloc(ir.I64, dims)
	if err != nil {
		return nil, err
	}
	last, largest, i := c.n.Int("select_last_index") != 0, c.n.Op == "ArgMax", 0
	rows(x.dims, axis, func(at func(int) int, n int) {
		best := 0
		for k := 1; k < n; k++ {
			a, b := at(best), at(k)
			if !largest {
				a, b = b, a
			}
			old, now := x.isNaN(at(best)), x.isNaN(at(k))
			switch {
			case old: // the first NaN stays
			case now, x.before(a, b), last && !x.before(b, a):
				best = k
			}
		}
		out.ints[i] = int64(best)
		i++
	})
	return out, nil
}

func prodBut(dims []int64, axis int) int {
	n := 1
	for i, d := range dims {
		if i != axis {
			n *= int(d)
		}
	}
	return n
}

func (c *call) topK() ([]*tensor, error) {
	x := c.t(0)
	axis, err := axisOf(c.n.Int("axis"), len(x.dims))
	if err != nil {
		return nil, err
	}
	ks := c.t(1).ints
	if len(ks) != 1 {
		return nil, fmt.Errorf("K has %d elements", len(ks))
	}
	if ks[0] < 0 || ks[0] > x.dims[axis] {
		return nil, valuef("K %d of %d", ks[0], x.dims[axis])
	}
	dims := append([]int64{}, x.dims...)
	dims[axis] = ks[0]
	vals, err := alloc(x.dt, dims)
	if err != nil {
		return nil, err
	}
	ind, err := alloc(ir.I64, dims)
	if err != nil {
		return nil, err
	}
	var targets []func(int) int
	rows(dims, axis, func(at func(int) int, _ int) { targets = append(targets, at) })
	if len(targets) == 0 || ks[0] == 0 {
		return []*tensor{vals, ind}, nil
	}
	largest, row := c.n.Int("largest") != 0, 0
	rows(x.dims, axis, func(at func(int) int, n int) {
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		sort.SliceStable(order, func(p, q int) bool {
			a, b := at(order[p]), at(order[q])
			if na, nb := x.isNaN(a), x.isNaN(b); na || nb { // NaN is the largest
				return na && !nb && largest || nb && !na && !largest
			}
			if largest {
				return x.before(b, a)
			}
			return x.before(a, b)
		})
		for i := 0; i < int(ks[0]); i++ {
			vals.set(targets[row](i), x, at(order[i]))
			ind.ints[targets[row](i)] = int64(order[i])
		}
		row++
	})
	return []*tensor{vals, ind}, nil
}
