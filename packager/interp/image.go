package interp

import (
	"errors"
	"fmt"
	"math"
)

// image runs the operators that sample images.
func (c *call) image() ([]*value, error) {
	var t *tensor
	var err error
	switch c.n.Op {
	case "Resize":
		t, err = c.resize()
	case "ConvTranspose":
		t, err = c.convTranspose()
	}
	if err != nil {
		return nil, err
	}
	return tensors(t), nil
}

// resample is one axis of a Resize.
type resample struct {
	n, m    int64
	s, w    float64
	a, b    float64
	mode    string
	coord   string
	nearest string
	cubic   float64
	anti    bool
	inside  bool
}

func (c *call) resize() (*tensor, error) {
	x, roi, scales, sizes := c.t(0), c.t(1), c.t(2), c.t(3)
	axes := c.n.Ints("axes")
	plan := make([]resample, len(axes))
	if scales != nil && scales.len() != len(axes) || sizes != nil && sizes.len() != len(axes) || roi != nil && roi.len() != 2*len(axes) {
		return nil, fmt.Errorf("roi, scales or sizes do not fit %d axes", len(axes))
	}
	policy := c.n.Str("keep_aspect_ratio_policy")
	for i, a := range axes {
		if a >= int64(len(x.dims)) {
			return nil, fmt.Errorf("axis %d of %v", a, x.dims)
		}
		r := resample{n: x.dims[a], s: 1, b: 1, mode: c.n.Str("mode"), coord: c.n.Str("coordinate_transformation_mode"), nearest: c.n.Str("nearest_mode"),
			cubic: c.n.Float("cubic_coeff_a"), anti: c.n.Int("antialias") != 0, inside: c.n.Int("exclude_outside") != 0}
		if scales != nil {
			f := scales.f32[i]
			if !(f > 0) {
				return nil, valuef("scale %g", f)
			}
			r.s, r.w = float64(f), float64(mul(f, float32(r.n)))
			if !(r.w < 1<<31) {
				return nil, tooMuchf("the result is too large")
			}
			r.m = int64(math.Floor(r.w))
		} else {
			r.m = sizes.ints[i]
			if r.m < 0 || r.n == 0 && r.m > 0 {
				return nil, fmt.Errorf("size %d from %d", r.m, r.n)
			}
			if r.n != 0 {
				r.s = float64(r.m) / float64(r.n)
			}
			r.w = float64(r.m)
		}
		if roi != nil {
			r.a, r.b = roi.f64[i], roi.f64[len(axes)+i]
		}
		plan[i] = r
	}
	if sizes != nil && policy != "stretch" {
		s := plan[0].s
		for _, r := range plan {
			if policy == "not_larger" {
				s = pmin(s, r.s)
			} else {
				s = pmax(s, r.s)
			}
		}
		for i := range plan {
			r := &plan[i]
			r.s, r.w = s, mul64(s, float64(r.n))
			if r.w > 1<<31 {
				return nil, tooMuchf("the result is too large")
			}
			r.m = int64(math.Floor(r.w + 0.5))
		}
	}
	out := x
	for a := int64(len(x.dims)) - 1; a >= 0; a-- {
		for i, b := range axes {
			if a != b {
				continue
			}
			var err error
			if out, err = plan[i].apply(out, int(a), c.n.Float("extrapolation_value")); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// taps gives the elements and weights of output o; nil indices ask for the extrapolation value.
func (r *resample) taps(o int64) ([]int64, []float64) {
	if r.coord != "tf_crop_and_resize" && r.s == 1 && r.m == r.n {
		return []int64{o}, []float64{1}
	}
	n1, of := float64(r.n-1), float64(o)
	middle := (of + 0.5) / r.s
	var x float64
	switch r.coord {
	case "half_pixel":
		x = middle - 0.5
	case "tf_half_pixel_for_nn":
		x = middle
	case "asymmetric":
		x = of / r.s
	case "pytorch_half_pixel":
		x = middle - 0.5
		if r.w == 1 {
			x = -0.5
		}
	case "align_corners":
		if r.w != 1 {
			x = mul64(of, n1) / (r.w - 1)
		}
	case "half_pixel_symmetric":
		x = mul64(float64(r.n)/2, 1-float64(r.m)/r.w) + middle - 0.5
	case "tf_crop_and_resize":
		if r.w == 1 {
			x = mul64(r.b-r.a, n1) / 2
		} else {
			x = mul64(mul64(of, r.b-r.a), n1) / (r.w - 1)
		}
		x += mul64(r.a, n1)
		if x < 0 || x > n1 {
			return nil, nil
		}
	}
	clamp := func(i int64) int64 { return max(min(i, r.n-1), 0) }
	if r.mode == "nearest" {
		switch r.nearest {
		case "floor":
			x = math.Floor(x)
		case "ceil":
			x = math.Ceil(x)
		case "round_prefer_floor":
			x = math.Ceil(x - 0.5)
		default:
			x = math.Floor(x + 0.5)
		}
		return []int64{clamp(position(x))}, []float64{1}
	}
	support, first, last := int64(1), int64(0), int64(1)
	if r.mode == "cubic" {
		support, first, last = 2, -1, 2
	}
	scale := 1.0
	if r.anti {
		scale = pmin(r.s, 1)
		first = int64(math.Floor(-float64(support)/scale)) + 1
		last = 1 - first
	}
	base := math.Floor(x)
	frac := x - base
	var idx []int64
	var w []float64
	sum := 0.0
	for i := first; i <= last; i++ {
		v := r.weight(abs64(mul64(float64(i)-frac, scale)))
		at := position(base) + i
		if r.inside && (at < 0 || at >= r.n) {
			v = 0
		}
		sum += v
		idx, w = append(idx, clamp(at)), append(w, v)
	}
	if (r.anti || r.inside) && sum != 0 {
		for i := range w {
			w[i] /= sum
		}
	}
	return idx, w
}

// position turns a float into an index that cannot overflow.
func position(x float64) int64 {
	if x != x {
		return 0
	}
	return int64(pmax(pmin(x, 1<<31), -1<<31))
}

func (r *resample) weight(t float64) float64 {
	switch {
	case r.mode == "linear" && t < 1:
		return 1 - t
	case r.mode == "linear":
		return 0
	case t <= 1:
		return mul64(mul64(mul64(r.cubic+2, t)-(r.cubic+3), t), t) + 1
	case t < 2:
		return mul64(mul64(mul64(r.cubic, t)-mul64(5, r.cubic), t)+mul64(8, r.cubic), t) - mul64(4, r.cubic)
	}
	return 0
}

func (r *resample) apply(x *tensor, axis int, fill float64) (*tensor, error) {
	dims := append([]int64{}, x.dims...)
	dims[axis] = r.m
	out, err := alloc(x.dt, dims)
	if err != nil {
		return nil, err
	}
	outer, inner := prod(x.dims[:axis]), prod(x.dims[axis+1:])
	for o := int64(0); o < r.m && out.len() > 0; o++ {
		idx, w := r.taps(o)
		for p := 0; p < outer; p++ {
			for e := 0; e < inner; e++ {
				to := (p*int(r.m)+int(o))*inner + e
				from := func(j int) int { return (p*int(r.n)+int(idx[j]))*inner + e }
				switch {
				case idx == nil && out.f32 != nil:
					out.f32[to] = float32(fill)
				case idx == nil && out.f64 != nil:
					out.f64[to] = float64(float32(fill))
				case idx == nil:
					return nil, errors.New("extrapolation of integers")
				case r.mode == "nearest":
					out.set(to, x, from(0))
				case out.f32 != nil:
					out.f32[to] = weighted(x.f32, w, from)
				default:
					out.f64[to] = weighted(x.f64, w, from)
				}
			}
		}
	}
	return out, nil
}

// weighted sums the taps whose weight is not 0, from the first product on.
func weighted[T float32 | float64](x []T, w []float64, from func(int) int) T {
	var acc T
	started := false
	for j, f := range w {
		if v := T(f); v != 0 {
			p := T(x[from(j)] * v)
			if started {
				acc += p
			} else {
				acc, started = p, true
			}
		}
	}
	return acc
}

func (c *call) convTranspose() (*tensor, error) {
	x, w, bias := c.t(0), c.t(1), c.t(2)
	k, s, p, d := c.n.Ints("kernel_shape"), c.n.Ints("strides"), c.n.Ints("pads"), c.n.Ints("dilations")
	op, os, auto, group := c.n.Ints("output_padding"), c.n.Ints("output_shape"), c.n.Str("auto_pad"), c.n.Int("group")
	if len(x.dims) != len(k)+2 || len(w.dims) != len(k)+2 || x.dims[1] != w.dims[0] || x.dims[1]%group != 0 {
		return nil, fmt.Errorf("X of %v with W of %v in %d groups", x.dims, w.dims, group)
	}
	perGroup := w.dims[1]
	dims := []int64{x.dims[0], perGroup * group}
	begin := make([]int64, len(k))
	for i := range k {
		n := x.dims[i+2]
		if n < 1 || w.dims[i+2] != k[i] {
			return nil, fmt.Errorf("X of %v with W of %v", x.dims, w.dims)
		}
		full := s[i]*(n-1) + op[i] + (k[i]-1)*d[i] + 1
		out := full - p[i] - p[i+len(k)]
		begin[i] = p[i]
		if len(os) > 0 || auto != "NOTSET" {
			out = n * s[i]
			if len(os) > 0 {
				out = os[i]
			}
			over := max(full-out, 0)
			begin[i] = over - over/2
			if auto == "SAME_UPPER" {
				begin[i] = over / 2
			}
		}
		if out < 1 {
			return nil, fmt.Errorf("spatial dim %d of size %d gives %d", i, n, out)
		}
		dims = append(dims, out)
	}
	if bias != nil && bias.len() != int(dims[1]) {
		return nil, fmt.Errorf("%d biases for %d channels", bias.len(), dims[1])
	}
	out, err := alloc(x.dt, dims)
	if err != nil {
		return nil, err
	}
	inSize, kSize, outSize := prod(x.dims[2:]), prod(k), prod(dims[2:])
	cg := int(x.dims[1] / group)
	return out, each(dims[2:], func(at int, pos []int64) error {
		if err := c.m.ctx.Err(); err != nil {
			return err
		}
		var ts []tap
		_ = each(k, func(flat int, kp []int64) error {
			from := int64(0)
			for i := range kp {
				v := pos[i] + begin[i] - kp[i]*d[i]
				if v < 0 || v%s[i] != 0 || v/s[i] >= x.dims[i+2] {
					return nil
				}
				from = from*x.dims[i+2] + v/s[i]
			}
			ts = append(ts, tap{flat, int(from)})
			return nil
		})
		for b := 0; b < int(dims[0]); b++ {
			for f := 0; f < int(dims[1]); f++ {
				g, fg := f/int(perGroup), f%int(perGroup)
				to := (b*int(dims[1])+f)*outSize + at
				if x.f32 != nil {
					out.f32[to] = deconvSum(ts, x.f32[(b*int(x.dims[1])+g*cg)*inSize:], w.f32, g*cg, cg, int(perGroup), fg, inSize, kSize)
					if bias != nil {
						out.f32[to] += bias.f32[f]
					}
				} else {
					out.f64[to] = deconvSum(ts, x.f64[(b*int(x.dims[1])+g*cg)*inSize:], w.f64, g*cg, cg, int(perGroup), fg, inSize, kSize)
					if bias != nil {
						out.f64[to] += bias.f64[f]
					}
				}
			}
		}
		return nil
	})
}

func deconvSum[T float32 | float64](ts []tap, x, w []T, first, channels, perGroup, f, inSize, kSize int) T {
	var acc T
	for ch := 0; ch < channels; ch++ {
		wc := w[((first+ch)*perGroup+f)*kSize:]
		for _, t := range ts {
			acc += T(x[ch*inSize+t.input] * wc[t.kernel])
		}
	}
	return acc
}
