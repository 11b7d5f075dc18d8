package interp

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

func (c *call) shape() (*tensor, error) {
	d := c.t(0).dims
	r := int64(len(d))
	clamp := func(v int64) int64 {
		if v < 0 {
			v += r
		}
		return min(max(v, 0), r)
	}
	a, b := clamp(c.n.Int("start")), clamp(c.n.Int("end"))
	b = max(a, b)
	return &tensor{dt: ir.I64, dims: []int64{b - a}, ints: append([]int64{}, d[a:b]...)}, nil
}

func (c *call) reshape() (*tensor, error) {
	x, want := c.t(0), c.t(1).ints
	if len(want) > ir.MaxRank {
		return nil, fmt.Errorf("rank %d is over %d", len(want), ir.MaxRank)
	}
	dims := append([]int64{}, want...)
	minus, rest := -1, int64(1)
	for i, d := range dims {
		switch {
		case d == -1 && minus < 0:
			minus = i
			continue
		case d == 0 && c.n.Int("allowzero") == 0:
			if i >= len(x.dims) {
				return nil, fmt.Errorf("shape %v copies dim %d of rank %d", want, i, len(x.dims))
			}
			dims[i] = x.dims[i]
		case d < 0:
			return nil, fmt.Errorf("shape %v", want)
		}
	}
	for i, d := range dims {
		if i != minus {
			if d != 0 && rest > maxElements/d {
				return nil, tooMuchf("shape %v is too large", want)
			}
			rest *= d
		}
	}
	if minus >= 0 {
		n := int64(x.len())
		if rest == 0 || n%rest != 0 {
			return nil, fmt.Errorf("%d elements do not fit shape %v", n, want)
		}
		dims[minus] = n / rest
	}
	return x.reshaped(dims)
}

func (c *call) flatten() (*tensor, error) {
	x := c.t(0)
	axis := c.n.Int("axis")
	if axis < 0 {
		axis += int64(len(x.dims))
	}
	if axis < 0 || axis > int64(len(x.dims)) {
		return nil, indexf("axis %d for rank %d", axis, len(x.dims))
	}
	a, b := int64(1), int64(1)
	for i, d := range x.dims {
		if int64(i) < axis {
			a *= d
		} else {
			b *= d
		}
	}
	return x.reshaped([]int64{a, b})
}

func (c *call) squeeze() (*tensor, error) {
	x := c.t(0)
	drop := make([]bool, len(x.dims))
	if a := c.t(1); a != nil {
		ax, err := axesOf(a.ints, len(x.dims))
		if err != nil {
			return nil, err
		}
		for _, k := range ax {
			if x.dims[k] != 1 {
				return nil, fmt.Errorf("dim %d is %d, not 1", k, x.dims[k])
			}
			drop[k] = true
		}
	} else {
		for i, d := range x.dims {
			drop[i] = d == 1
		}
	}
	dims := []int64{}
	for i, d := range x.dims {
		if !drop[i] {
			dims = append(dims, d)
		}
	}
	return x.reshaped(dims)
}

func (c *call) unsqueeze() (*tensor, error) {
	x, a := c.t(0), c.t(1)
	r := len(x.dims) + len(a.ints)
	ax, err := axesOf(a.ints, r)
	if err != nil {
		return nil, err
	}
	if r > ir.MaxRank {
		return nil, fmt.Errorf("rank %d is over %d", r, ir.MaxRank)
	}
	one := make([]bool, r)
	for _, k := range ax {
		one[k] = true
	}
	dims, k := make([]int64, r), 0
	for i := range dims {
		if one[i] {
			dims[i] = 1
		} else {
			dims[i] = x.dims[k]
			k++
		}
	}
	return x.reshaped(dims)
}

func (c *call) concat() (*tensor, error) {
	first := c.t(0)
	axis, err := axisOf(c.n.Int("axis"), len(first.dims))
	if err != nil {
		return nil, err
	}
	dims := append([]int64{}, first.dims...)
	dims[axis] = 0
	for i := range c.ins {
		d := c.t(i).dims
		if len(d) != len(dims) {
			return nil, fmt.Errorf("ranks %d and %d", len(dims), len(d))
		}
		for k := range d {
			if k != axis && d[k] != dims[k] {
				return nil, fmt.Errorf("dims %v and %v do not join along %d", first.dims, d, axis)
			}
		}
		dims[axis] += d[axis]
	}
	out, err := alloc(first.dt, dims)
	if err != nil {
		return nil, err
	}
	st, start := strides(dims), int64(0)
	for i := range c.ins {
		t := c.t(i)
		err := each(t.dims, func(flat int, ix []int64) error {
			k := 0
			for d, v := range ix {
				if d == axis {
					v += start
				}
				k += int(v) * st[d]
			}
			out.set(k, t, flat)
			return nil
		})
		if err != nil {
			return nil, err
		}
		start += t.dims[axis]
	}
	return out, nil
}

// set copies element k of src to element i.
func (t *tensor) set(i int, src *tensor, k int) {
	switch {
	case t.f32 != nil:
		t.f32[i] = src.f32[k]
	case t.f64 != nil:
		t.f64[i] = src.f64[k]
	case t.strs != nil:
		t.strs[i] = src.strs[k]
	default:
		t.ints[i] = src.ints[k]
	}
}

// pickBy gathers with a function from the result's index to the source's; nil means fill.
func (t *tensor) pickBy(dims []int64, fill *tensor, f func(ix []int64) []int64) (*tensor, error) {
	out, err := alloc(t.dt, dims)
	if err != nil {
		return nil, err
	}
	st := strides(t.dims)
	err = each(dims, func(flat int, ix []int64) error {
		src := f(ix)
		if src == nil {
			out.set(flat, fill, 0)
			return nil
		}
		k := 0
		for d, v := range src {
			k += int(v) * st[d]
		}
		out.set(flat, t, k)
		return nil
	})
	return out, err
}

func (c *call) slice() (*tensor, error) {
	x, starts, ends := c.t(0), c.t(1).ints, c.t(2).ints
	axes := make([]int64, len(starts))
	steps := make([]int64, len(starts))
	for i := range axes {
		axes[i], steps[i] = int64(i), 1
	}
	if t := c.t(3); t != nil {
		axes = t.ints
	}
	if t := c.t(4); t != nil {
		steps = t.ints
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || len(steps) != len(starts) {
		return nil, fmt.Errorf("%d starts, %d ends, %d axes, %d steps", len(starts), len(ends), len(axes), len(steps))
	}
	ax, err := axesOf(axes, len(x.dims))
	if err != nil {
		return nil, err
	}
	dims := append([]int64{}, x.dims...)
	first, step := make([]int64, len(dims)), make([]int64, len(dims))
	for i := range step {
		step[i] = 1
	}
	for k, a := range ax {
		if steps[k] == 0 {
			return nil, valuef("step 0")
		}
		first[a], dims[a] = sliceBounds(starts[k], ends[k], steps[k], x.dims[a])
		step[a] = steps[k]
	}
	src := make([]int64, len(dims))
	return x.pickBy(dims, nil, func(ix []int64) []int64 {
		for d, v := range ix {
			src[d] = first[d] + v*step[d]
		}
		return src
	})
}

// sliceBounds follows ONNX 13's text, element by element.
func sliceBounds(start, end, step, n int64) (first, count int64) {
	if start < 0 {
		start += n
	}
	if end < 0 {
		end += n
	}
	lo, hi := int64(0), n
	if step < 0 {
		lo, hi = -1, n-1
	}
	start, end = min(max(start, max(lo, 0)), hi), min(max(end, lo), hi)
	if n == 0 {
		return 0, 0
	}
	for i := start; step > 0 && i < end || step < 0 && i > end; i += step {
		count++
		if step > 0 && step > end-i || step < 0 && step < end-i {
			break
		}
	}
	return start, count
}

func (c *call) gather() (*tensor, error) {
	x, ind := c.t(0), c.t(1)
	axis, err := axisOf(c.n.Int("axis"), len(x.dims))
	if err != nil {
		return nil, err
	}
	n := x.dims[axis]
	for _, i := range ind.ints {
		if i < -n || i >= n {
			return nil, indexf("index %d is out of range for dim of size %d", i, n)
		}
	}
	dims := append([]int64{}, x.dims[:axis]...)
	dims = append(dims, ind.dims...)
	dims = append(dims, x.dims[axis+1:]...)
	st := strides(ind.dims)
	src := make([]int64, len(x.dims))
	r := len(ind.dims)
	return x.pickBy(dims, nil, func(ix []int64) []int64 {
		k := 0
		for d := 0; d < r; d++ {
			k += int(ix[axis+d]) * st[d]
		}
		copy(src, ix[:axis])
		src[axis] = (ind.ints[k] + n) % n
		copy(src[axis+1:], ix[axis+r:])
		return src
	})
}

func (c *call) expand() (*tensor, error) {
	x := c.t(0)
	dims, err := broadcast(x.dims, c.t(1).ints)
	if err != nil {
		return nil, err
	}
	if _, err := alloc(ir.Bool, dims); err != nil {
		return nil, err
	}
	return x.take(dims, spread(x.dims, dims), nil)
}

func (c *call) constantOfShape() (*tensor, error) {
	v, err := fromData(c.n.Data("value"))
	if err != nil {
		return nil, err
	}
	out, err := alloc(v.dt, c.t(0).ints)
	if err != nil {
		return nil, err
	}
	for i := 0; i < out.len(); i++ {
		out.set(i, v, 0)
	}
	return out, nil
}

func (c *call) transpose() (*tensor, error) {
	x, perm := c.t(0), c.n.Ints("perm")
	if len(perm) == 0 {
		for i := len(x.dims) - 1; i >= 0; i-- {
			perm = append(perm, int64(i))
		}
	}
	ax, err := axesOf(perm, len(x.dims))
	if err != nil || len(ax) != len(x.dims) {
		return nil, fmt.Errorf("perm %v for rank %d", perm, len(x.dims))
	}
	dims, src := make([]int64, len(ax)), make([]int64, len(ax))
	for i, a := range ax {
		dims[i] = x.dims[a]
	}
	return x.pickBy(dims, nil, func(ix []int64) []int64 {
		for i, a := range ax {
			src[a] = ix[i]
		}
		return src
	})
}

func (c *call) pad() (*tensor, error) {
	x, pads, mode := c.t(0), c.t(1).ints, c.n.Str("mode")
	r := len(x.dims)
	axes := make([]int64, r)
	for i := range axes {
		axes[i] = int64(i)
	}
	if t := c.t(3); t != nil {
		axes = t.ints
	}
	ax, err := axesOf(axes, r)
	if err != nil {
		return nil, err
	}
	if len(pads) != 2*len(ax) {
		return nil, fmt.Errorf("%d pads for %d axes", len(pads), len(ax))
	}
	begin := make([]int64, r)
	dims := append([]int64{}, x.dims...)
	first, left := make([]int64, r), append([]int64{}, x.dims...)
	for k, a := range ax {
		b, e := pads[k], pads[k+len(ax)]
		if max(b, e) >= math.MaxInt32 || min(b, e) <= math.MinInt32 {
			return nil, valuef("pads %v", pads)
		}
		begin[a] = b
		dims[a] += b + e
		// Negative pads crop first.
		first[a] = max(-b, 0)
		left[a] -= first[a] + max(-e, 0)
		if mode != "constant" && left[a] <= 0 && dims[a] > 0 {
			return nil, fmt.Errorf("there is nothing to pad from")
		}
	}
	fill := c.t(2)
	if fill == nil {
		if fill, err = alloc(x.dt, []int64{1}); err != nil {
			return nil, err
		}
	}
	src := make([]int64, r)
	return x.pickBy(dims, fill, func(ix []int64) []int64 {
		for d, v := range ix {
			i, n := v-begin[d], x.dims[d]
			if mode != "constant" {
				i, n = i-first[d], left[d]
			}
			if i < 0 || i >= n {
				switch mode {
				case "constant":
					return nil
				case "edge":
					i = min(max(i, 0), n-1)
				case "reflect":
					// Pads beyond the dim go back and forth (as numpy's): a single element reflects onto itself.
					if n == 1 {
						i = 0
						break
					}
					for i < 0 || i >= n {
						if i < 0 {
							i = -i
						} else {
							i = 2*(n-1) - i
						}
					}
				case "wrap":
					i = ((i % n) + n) % n
				}
			}
			if mode != "constant" {
				i += first[d]
			}
			src[d] = i
		}
		return src
	})
}

func (c *call) split() ([]*tensor, error) {
	x := c.t(0)
	axis, err := axisOf(c.n.Int("axis"), len(x.dims))
	if err != nil {
		return nil, err
	}
	n := x.dims[axis]
	var sizes []int64
	if t := c.t(1); t != nil {
		sizes = t.ints
	} else {
		parts := c.n.Int("num_outputs")
		chunk := (n + parts - 1) / parts
		for i := int64(0); i < parts; i++ {
			sizes = append(sizes, max(min(chunk, n-i*chunk), 0))
		}
	}
	if len(sizes) != len(c.n.Outs) {
		return nil, fmt.Errorf("%d sizes for %d outputs", len(sizes), len(c.n.Outs))
	}
	var sum int64
	for _, s := range sizes {
		if s < 0 || s > n {
			return nil, valuef("sizes %v for a dim of %d", sizes, n)
		}
		sum += s
	}
	if sum != n {
		return nil, fmt.Errorf("sizes %v for a dim of %d", sizes, n)
	}
	var outs []*tensor
	start := int64(0)
	for _, s := range sizes {
		dims := append([]int64{}, x.dims...)
		dims[axis] = s
		src, from := make([]int64, len(dims)), start
		t, err := x.pickBy(dims, nil, func(ix []int64) []int64 {
			copy(src, ix)
			src[axis] += from
			return src
		})
		if err != nil {
			return nil, err
		}
		outs = append(outs, t)
		start += s
	}
	return outs, nil
}

func (c *call) tile() (*tensor, error) {
	x, rep := c.t(0), c.t(1).ints
	if len(rep) != len(x.dims) {
		return nil, fmt.Errorf("%d repeats for rank %d", len(rep), len(x.dims))
	}
	dims := make([]int64, len(rep))
	for i, r := range rep {
		if r < 0 || r > math.MaxInt32 {
			return nil, valuef("repeats %v", rep)
		}
		dims[i] = r * x.dims[i]
	}
	src := make([]int64, len(dims))
	return x.pickBy(dims, nil, func(ix []int64) []int64 {
		for d, v := range ix {
			src[d] = v % x.dims[d]
		}
		return src
	})
}

func (c *call) rng() (*tensor, error) {
	a, b, d := c.t(0), c.t(1), c.t(2)
	if a.len() != 1 || b.len() != 1 || d.len() != 1 {
		return nil, fmt.Errorf("start, limit and delta must be scalars")
	}
	switch {
	case a.dt == ir.F32:
		return rangeFloat(a.dt, a.f32[0], b.f32[0], d.f32[0], func(t *tensor) []float32 { return t.f32 })
	case a.dt == ir.F64:
		return rangeFloat(a.dt, a.f64[0], b.f64[0], d.f64[0], func(t *tensor) []float64 { return t.f64 })
	case !a.dt.IsInt():
		return nil, c.unsupported(a.dt.String())
	}
	if d.ints[0] == 0 {
		return nil, errZero
	}
	out := &tensor{dt: a.dt, dims: []int64{0}, ints: []int64{}}
	for v := a.ints[0]; d.ints[0] > 0 && v < b.ints[0] || d.ints[0] < 0 && v > b.ints[0]; v += d.ints[0] {
		if out.dims[0]++; out.dims[0] > maxElements {
			return nil, tooMuchf("too many elements")
		}
		out.ints = append(out.ints, wrap(a.dt, v))
	}
	return out, nil
}

func rangeFloat[T float32 | float64](dt ir.DType, a, b, d T, get func(*tensor) []T) (*tensor, error) {
	n := (b - a) / d
	if n != n || n > maxElements {
		return nil, valuef("range from %v to %v by %v", a, b, d)
	}
	k := int64(0)
	if n > 0 {
		k = int64(n)
		if T(k) < n {
			k++
		}
	}
	out, err := alloc(dt, []int64{k})
	if err != nil {
		return nil, err
	}
	for i := range get(out) {
		get(out)[i] = a + T(T(i)*d)
	}
	return out, nil
}

func (c *call) oneHot() (*tensor, error) {
	ind, depth, vals := c.t(0), c.t(1).ints, c.t(2)
	if len(depth) != 1 || vals.len() != 2 {
		return nil, fmt.Errorf("%d depths, %d values", len(depth), vals.len())
	}
	if depth[0] < 0 {
		return nil, valuef("depth %d", depth[0])
	}
	axis, err := axisOf(c.n.Int("axis"), len(ind.dims)+1)
	if err != nil {
		return nil, err
	}
	dims := append([]int64{}, ind.dims[:axis]...)
	dims = append(dims, depth[0])
	dims = append(dims, ind.dims[axis:]...)
	st := strides(ind.dims)
	src := []int64{0}
	vals, err = vals.reshaped([]int64{2})
	if err != nil {
		return nil, err
	}
	return vals.pickBy(dims, nil, func(ix []int64) []int64 {
		k := 0
		for d, v := range ix {
			switch {
			case d < axis:
				k += int(v) * st[d]
			case d > axis:
				k += int(v) * st[d-1]
			}
		}
		v := ind.ints[k]
		if v < 0 {
			v += depth[0]
		}
		src[0] = 0
		if v == ix[axis] {
			src[0] = 1
		}
		return src
	})
}
