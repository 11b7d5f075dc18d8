package interp

import (
	"errors"
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// sampling runs the operators that read at computed positions.
func (c *call) sampling() ([]*value, error) {
	var t *tensor
	var err error
	switch c.n.Op {
	case "Sample":
		t, err = c.sample()
	case "NonMaxSuppression":
		t, err = c.suppress()
	case "Det":
		t, err = c.det()
	case "RoiAlign":
		t, err = c.roiAlign()
	}
	if err != nil {
		return nil, err
	}
	return tensors(t), nil
}

func mirror(x, lo, hi float64) float64 {
	r := hi - lo
	d, below := x-hi, x < lo
	if below {
		d = lo - x
	}
	if !below && !(x > hi) {
		return x
	}
	if r == 0 {
		return lo
	}
	k := math.Trunc(d / r)
	e := d - mul64(k, r)
	odd := k-mul64(2, math.Floor(mul64(k, 0.5))) != 0
	if below == odd {
		return hi - e
	}
	return lo + e
}

// sampleTap is one element along a dim; index -1 is nothing.
type sampleTap struct {
	index int64
	w     float64
}

func (c *call) sampleTaps(x float64, n int64) []sampleTap {
	mode, pad := c.n.Str("mode"), c.n.Str("padding_mode")
	lo, hi := -0.5, float64(n)-0.5
	if c.n.Int("align_corners") != 0 {
		lo, hi = 0, float64(n-1)
	}
	if mode == "nearest" {
		x = math.RoundToEven(x)
	}
	switch {
	case pad == "border" && (x < lo || x > hi):
		x = pmax(pmin(x, float64(n-1)), 0)
	case pad == "reflection":
		x = mirror(x, lo, hi)
	}
	base := math.Floor(x)
	frac := x - base
	first, last := int64(0), int64(1)
	switch mode {
	case "nearest":
		last = 0
	case "cubic":
		first, last = -1, 2
	}
	key := resample{mode: "cubic", cubic: -0.75}
	var out []sampleTap
	for j := first; j <= last; j++ {
		i := position(base) + j
		if i < 0 || i >= n {
			switch pad {
			case "zeros":
				i = -1
			case "reflection":
				i = position(mirror(float64(i), lo, hi))
			}
			if pad != "zeros" {
				i = max(min(i, n-1), 0)
			}
		}
		w := 1.0
		switch {
		case mode == "cubic":
			w = key.weight(abs64(float64(j) - frac))
		case mode == "linear" && j == 0:
			w = 1 - frac
		case mode == "linear":
			w = frac
		}
		out = append(out, sampleTap{i, w})
	}
	return out
}

func (c *call) sample() (*tensor, error) {
	x, p := c.t(0), c.t(1)
	sp := len(x.dims) - 2
	if sp < 1 || len(p.dims) != 3 || p.dims[2] != int64(sp) || p.dims[0] != x.dims[0] {
		return nil, fmt.Errorf("X of %v with positions of %v", x.dims, p.dims)
	}
	out, err := alloc(x.dt, []int64{x.dims[0], x.dims[1], p.dims[1]})
	if err != nil {
		return nil, err
	}
	size := prod(x.dims[2:])
	if out.len() > 0 && size == 0 {
		return nil, errors.New("an empty image")
	}
	for b := 0; b < int(x.dims[0]) && out.len() > 0; b++ {
		for q := 0; q < int(p.dims[1]); q++ {
			taps := make([][]sampleTap, sp)
			for i := range taps {
				taps[i] = c.sampleTaps(p.f64[(b*int(p.dims[1])+q)*sp+i], x.dims[2+i])
			}
			for ch := 0; ch < int(x.dims[1]); ch++ {
				from := (b*int(x.dims[1]) + ch) * size
				to := (b*int(x.dims[1])+ch)*int(p.dims[1]) + q
				if x.f32 != nil {
					out.f32[to] = nested(x.f32[from:from+size], taps, x.dims[2:])
				} else {
					out.f64[to] = nested(x.f64[from:from+size], taps, x.dims[2:])
				}
			}
		}
	}
	return out, nil
}

func nested[T float32 | float64](x []T, taps [][]sampleTap, dims []int64) T {
	if len(taps) == 0 {
		return x[0]
	}
	inner := len(x) / int(dims[0])
	var acc T
	for _, t := range taps[0] {
		if t.index >= 0 {
			acc += T(nested(x[int(t.index)*inner:(int(t.index)+1)*inner], taps[1:], dims[1:]) * T(t.w))
		}
	}
	return acc
}

func (c *call) det() (*tensor, error) {
	x := c.t(0)
	r := len(x.dims)
	if r < 2 || x.dims[r-1] != x.dims[r-2] {
		return nil, fmt.Errorf("X of %v", x.dims)
	}
	n := int(x.dims[r-1])
	out, err := alloc(x.dt, x.dims[:r-2])
	if err != nil {
		return nil, err
	}
	for u := 0; u < out.len(); u++ {
		a := make([][]float64, n)
		for i := range a {
			a[i] = make([]float64, n)
			for j := range a[i] {
				if x.f32 != nil {
					a[i][j] = float64(x.f32[(u*n+i)*n+j])
				} else {
					a[i][j] = x.f64[(u*n+i)*n+j]
				}
			}
		}
		det := 1.0
		for k := 0; k < n; k++ {
			best := k
			for i := k + 1; i < n; i++ {
				if abs64(a[best][k]) < abs64(a[i][k]) {
					best = i
				}
			}
			if best != k {
				det = -det
				a[best], a[k] = a[k], a[best]
			}
			det = mul64(det, a[k][k])
			for i := k + 1; i < n && a[k][k] != 0; i++ {
				f := a[i][k] / a[k][k]
				for j := k + 1; j < n; j++ {
					a[i][j] -= mul64(f, a[k][j])
				}
			}
		}
		if out.f32 != nil {
			out.f32[u] = float32(det)
		} else {
			out.f64[u] = det
		}
	}
	return out, nil
}

// edges gives the bounds of a box along x (0) or y (1).
func edges(b []float32, axis int, centre bool) (float32, float32) {
	if centre {
		h := b[2+axis] / 2
		return b[axis] - h, b[axis] + h
	}
	lo, hi := b[1-axis], b[3-axis]
	if lo >= hi {
		return hi, lo
	}
	return lo, hi
}

func overlaps(a, b []float32, centre bool, limit float32) bool {
	inter, areaA, areaB := float32(1), float32(1), float32(1)
	for axis := 0; axis < 2; axis++ {
		al, ah := edges(a, axis, centre)
		bl, bh := edges(b, axis, centre)
		lo, hi := pmax(al, bl), pmin(ah, bh)
		if hi <= lo {
			return false
		}
		inter, areaA, areaB = mul(inter, hi-lo), mul(areaA, ah-al), mul(areaB, bh-bl)
	}
	union := areaA + areaB - inter
	if inter <= 0 || areaA <= 0 || areaB <= 0 || union <= 0 {
		return false
	}
	return inter/union > limit
}

func (c *call) suppress() (*tensor, error) {
	boxes, scores, order := c.t(0), c.t(1), c.t(2)
	if len(boxes.dims) != 3 || len(scores.dims) != 3 || boxes.dims[2] != 4 || boxes.dims[0] != scores.dims[0] || boxes.dims[1] != scores.dims[2] ||
		order.len() != scores.len() {
		return nil, fmt.Errorf("boxes of %v with scores of %v", boxes.dims, scores.dims)
	}
	for i := 3; i < 6; i++ {
		if t := c.t(i); t != nil && t.len() != 1 {
			return nil, fmt.Errorf("input %d has %d elements", i, t.len())
		}
	}
	most, limit := int64(0), float32(0)
	if t := c.t(3); t != nil {
		most = t.ints[0]
	}
	if t := c.t(4); t != nil {
		limit = t.f32[0]
	}
	n, classes := int(scores.dims[2]), int(scores.dims[1])
	centre := c.n.Int("center_point_box") != 0
	var rows []int64
	for b := 0; b < int(scores.dims[0]); b++ {
		box := func(i int64) []float32 { return boxes.f32[(b*n+int(i))*4:][:4] }
		for cl := 0; cl < classes; cl++ {
			var chosen []int64
			for i := 0; i < n && int64(len(chosen)) < most; i++ {
				at := (b*classes+cl)*n + i
				if t := c.t(5); t != nil && !(scores.f32[at] > t.f32[0]) {
					continue
				}
				cand := order.ints[at]
				if cand < 0 || cand >= int64(n) {
					return nil, indexf("box %d of %d", cand, n)
				}
				keep := true
				for _, o := range chosen {
					keep = keep && !overlaps(box(cand), box(o), centre, limit)
				}
				if keep {
					chosen = append(chosen, cand)
					rows = append(rows, int64(b), int64(cl), cand)
				}
			}
		}
	}
	out, err := alloc(ir.I64, []int64{int64(len(rows) / 3), 3})
	if err == nil {
		copy(out.ints, rows)
	}
	return out, err
}

func (c *call) roiAlign() (*tensor, error) {
	x, rois, batch := c.t(0), c.t(1), c.t(2)
	oh, ow := c.n.Int("output_height"), c.n.Int("output_width")
	if len(x.dims) != 4 || len(rois.dims) != 2 || rois.dims[1] != 4 || batch.len() != int(rois.dims[0]) {
		return nil, fmt.Errorf("X of %v with regions of %v", x.dims, rois.dims)
	}
	out, err := alloc(x.dt, []int64{rois.dims[0], x.dims[1], oh, ow})
	if err != nil {
		return nil, err
	}
	if x.len() == 0 && out.len() > 0 {
		return nil, errors.New("an empty image")
	}
	return out, each(out.dims, func(at int, ix []int64) error {
		b := batch.ints[ix[0]]
		if b < 0 {
			b += x.dims[0]
		}
		if b < 0 || b >= x.dims[0] {
			return indexf("image %d of %d", b, x.dims[0])
		}
		plane := int(b*x.dims[1]+ix[1]) * int(x.dims[2]*x.dims[3])
		ws, err := c.roiSamples(rois.f64[ix[0]*4:][:4], x.dims[2:], ix[2:])
		if err != nil {
			return err
		}
		if x.f32 != nil {
			out.f32[at] = roiPool(x.f32[plane:], ws, c.n.Str("mode") == "max")
		} else {
			out.f64[at] = roiPool(x.f64[plane:], ws, c.n.Str("mode") == "max")
		}
		return nil
	})
}

// roiSample is one bilinear sample; outside it is nothing.
type roiSample struct {
	outside bool
	at      [4]int
	w       [4]float64
}

func (c *call) roiSamples(roi []float64, size, bin []int64) ([]roiSample, error) {
	scale, half := c.n.Float("spatial_scale"), c.n.Int("half_pixel") != 0
	outs := []int64{c.n.Int("output_height"), c.n.Int("output_width")}
	var start, step [2]float64
	var grid [2]int64
	for i := 0; i < 2; i++ {
		shift := 0.0
		if half {
			shift = 0.5
		}
		a, b := mul64(roi[1-i], scale)-shift, mul64(roi[3-i], scale)-shift
		span := b - a
		if !half {
			span = pmax(span, 1)
		}
		start[i], step[i] = a, span/float64(outs[i])
		grid[i] = c.n.Int("sampling_ratio")
		if grid[i] <= 0 {
			grid[i] = max(position(math.Ceil(step[i])), 0)
		}
	}
	if grid[0]*grid[1] > 1<<16 {
		return nil, tooMuchf("%d by %d samples in a bin", grid[0], grid[1])
	}
	var out []roiSample
	for iy := int64(0); iy < grid[0]; iy++ {
		for jx := int64(0); jx < grid[1]; jx++ {
			var s roiSample
			var lo, hi [2]int64
			var l [2]float64
			for i, g := range []int64{iy, jx} {
				p := start[i] + mul64(float64(bin[i]), step[i]) + mul64(float64(g)+0.5, step[i])/float64(grid[i])
				if !(p >= -1 && p <= float64(size[i])) {
					s.outside = true
					continue
				}
				p = pmax(p, 0)
				lo[i] = int64(p)
				hi[i] = lo[i] + 1
				if lo[i] >= size[i]-1 {
					lo[i] = size[i] - 1
					hi[i], p = lo[i], float64(lo[i])
				}
				l[i] = p - float64(lo[i])
			}
			for n := 0; n < 4 && !s.outside; n++ {
				y, fy, xx, fx := lo[0], 1-l[0], lo[1], 1-l[1]
				if n >= 2 {
					y, fy = hi[0], l[0]
				}
				if n%2 == 1 {
					xx, fx = hi[1], l[1]
				}
				s.at[n], s.w[n] = int(y*size[1]+xx), mul64(fy, fx)
			}
			out = append(out, s)
		}
	}
	return out, nil
}

func roiPool[T float32 | float64](x []T, ws []roiSample, largest bool) T {
	var acc T
	for k, s := range ws {
		var v T
		for n := 0; n < 4 && !s.outside; n++ {
			p := T(x[s.at[n]] * T(s.w[n]))
			switch {
			case n == 0:
				v = p
			case largest:
				v = pmax(v, p)
			default:
				v += p
			}
		}
		switch {
		case largest && k == 0:
			acc = v
		case largest:
			acc = pmax(acc, v)
		case !s.outside:
			acc += v
		}
	}
	if largest {
		return acc
	}
	return acc / T(max(len(ws), 1))
}
