package ir

import "fmt"

// Sampling operators of images: resizing and transposed convolution.

func imageOps() []OpDef {
	return []OpDef{
		{Name: "Resize", Doc: "X resampled along axes (distinct, not negative, at least one). scales (f32) or sizes (i64) has one entry per axis; roi (f64, " +
			"starts then ends) serves tf_crop_and_resize only. Without sizes a dim of n becomes floor(f32(scale*n)). linear and cubic take f32 " +
			"and f64 only, nearest every type, tf_crop_and_resize f32 and f64 only. Frontends widen other types.",
			Ins: params("X roi? scales? sizes?"), Outs: params("Y"),
			Attrs: []AttrDef{attr("mode", "nearest"), attr("coordinate_transformation_mode", "half_pixel"), attr("nearest_mode", "round_prefer_floor"),
				attr("cubic_coeff_a", -0.75), attr("exclude_outside", 0), attr("extrapolation_value", 0.0), attr("antialias", 0),
				need("axes", AttrInts), attr("keep_aspect_ratio_policy", "stretch")}, infer: inferResize},
		{Name: "ConvTranspose", Doc: "The transpose of Conv: X [N,C,spatial...], W [C,M/group,kernel...], B [M]; f32 and f64. A dim of n has the full " +
			"size stride*(n-1) + output_padding + (kernel-1)*dilation + 1. It becomes output_shape where given, else n*stride with auto_pad SAME_*, " +
			"else the full size less pads. In the first two cases pads are what is over (never negative), halved, the larger half at the end for " +
			"SAME_UPPER and at the beginning otherwise.",
			Ins: params("X W B?"), Outs: params("Y"),
			Attrs: []AttrDef{need("kernel_shape", AttrInts), need("strides", AttrInts), need("pads", AttrInts), need("dilations", AttrInts),
				attr("auto_pad", "NOTSET"), need("output_padding", AttrInts), attr("output_shape", []int64{}), attr("group", 1)},
			infer: inferConvTranspose},
	}
}

func oneOf(what, s string, list ...string) error {
	for _, l := range list {
		if s == l {
			return nil
		}
	}
	return fmt.Errorf("%s %q", what, s)
}

// wide checks that input i is f32 or f64.
func (c *inferer) wide(i int) error {
	return c.want(i, c.dtype(i) == F32 || c.dtype(i) == F64, "f32 or f64")
}

func inferResize(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	tf := c.n.Str("coordinate_transformation_mode") == "tf_crop_and_resize"
	for _, e := range []error{
		oneOf("mode", c.n.Str("mode"), "nearest", "linear", "cubic"),
		oneOf("coordinate_transformation_mode", c.n.Str("coordinate_transformation_mode"), "half_pixel", "half_pixel_symmetric",
			"pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize", "tf_half_pixel_for_nn"),
		oneOf("nearest_mode", c.n.Str("nearest_mode"), "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
		oneOf("keep_aspect_ratio_policy", c.n.Str("keep_aspect_ratio_policy"), "stretch", "not_larger", "not_smaller"),
	} {
		if e != nil {
			return e
		}
	}
	if c.n.Str("mode") != "nearest" || tf {
		if err := c.wide(0); err != nil {
			return err
		}
	}
	if c.has(2) == c.has(3) {
		return fmt.Errorf("exactly one of scales and sizes is needed")
	}
	if c.has(2) {
		if err := c.want(2, c.dtype(2) == F32, "f32"); err != nil {
			return err
		}
	}
	if err := c.i64(3); err != nil {
		return err
	}
	if tf && !c.has(1) {
		return fmt.Errorf("tf_crop_and_resize needs roi")
	}
	if c.has(1) {
		if err := c.want(1, c.dtype(1) == F64, "f64"); err != nil {
			return err
		}
	}
	x, axes := c.shape(0), c.n.Ints("axes")
	seen := map[int64]bool{}
	for _, a := range axes {
		if a < 0 || a >= MaxRank || seen[a] || x.Ranked && a >= int64(x.Rank()) {
			return fmt.Errorf("axes %v do not fit %s", axes, x)
		}
		seen[a] = true
	}
	if len(axes) == 0 {
		return fmt.Errorf("no axes")
	}
	if !x.Ranked {
		c.set(0, c.dtype(0), Unranked())
		return nil
	}
	out := x.Clone()
	for _, a := range axes {
		out.Dims[a] = Unknown()
	}
	if d := c.n.In(2); d != nil && d.Const != nil {
		if int(d.Const.Len()) != len(axes) {
			return fmt.Errorf("%d scales for %d axes", d.Const.Len(), len(axes))
		}
		for i, a := range axes {
			s, n := float32(d.Const.Float(i)), x.Dims[a]
			switch {
			case !(s > 0):
				return fmt.Errorf("scale %g", s)
			case s == 1:
				out.Dims[a] = n
			case n.IsStatic():
				w := float32(s * float32(n.N))
				if !(w < 1<<31) {
					return fmt.Errorf("scale %g of a dim of %d", s, n.N)
				}
				out.Dims[a] = Static(int64(w))
			}
		}
	}
	if e, ok := c.elems(3); ok {
		if len(e) != len(axes) {
			return fmt.Errorf("%d sizes for %d axes", len(e), len(axes))
		}
		if c.n.Str("keep_aspect_ratio_policy") == "stretch" {
			for i, a := range axes {
				out.Dims[a] = e[i]
			}
		}
	}
	c.set(0, c.dtype(0), out)
	return nil
}

func inferConvTranspose(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.sameDType(0, 1, 2); err != nil {
		return err
	}
	if err := c.wide(0); err != nil {
		return err
	}
	sp := len(c.n.Ints("kernel_shape"))
	x, w := c.shape(0), c.shape(1)
	if !x.Ranked {
		x = unknownDims(sp + 2)
	}
	if !w.Ranked {
		w = unknownDims(sp + 2)
	}
	if x.Rank() != w.Rank() {
		return fmt.Errorf("X is %s, W is %s: ranks differ", x, w)
	}
	ws, err := c.windows(x.Rank())
	if err != nil {
		return err
	}
	op, os, g := c.n.Ints("output_padding"), c.n.Ints("output_shape"), c.n.Int("group")
	if len(op) != sp || len(os) != 0 && len(os) != sp || g < 1 {
		return fmt.Errorf("output_padding %v, output_shape %v or group %d do not fit %d spatial dims", op, os, g, sp)
	}
	if ch, wc := x.Dims[1], w.Dims[0]; ch.IsStatic() && wc.IsStatic() && (ch.N != wc.N || ch.N%g != 0) {
		return fmt.Errorf("%d channels in %d groups, but W takes %d", ch.N, g, wc.N)
	}
	out := ShapeOf(x.Dims[0], mulDim(w.Dims[1], Static(g)))
	for i, v := range ws {
		if d := w.Dims[i+2]; d.IsStatic() && d.N != v.kernel {
			return fmt.Errorf("kernel_shape[%d] is %d, W has %d", i, v.kernel, d.N)
		}
		if op[i] < 0 || op[i] >= 1<<31 {
			return fmt.Errorf("output_padding %v", op)
		}
		n := x.Dims[i+2]
		switch {
		case len(os) > 0:
			if os[i] < 1 || os[i] >= 1<<31 {
				return fmt.Errorf("output_shape %v", os)
			}
			out.Dims = append(out.Dims, Static(os[i]))
		case c.n.Str("auto_pad") != "NOTSET":
			out.Dims = append(out.Dims, mulDim(n, Static(v.stride)))
		case n.IsStatic():
			full := v.stride*(n.N-1) + op[i] + (v.kernel-1)*v.dilation + 1 - v.begin - v.end
			if n.N < 1 || n.N >= 1<<31 || full < 1 {
				return fmt.Errorf("spatial dim %d of size %d gives size %d", i, n.N, full)
			}
			out.Dims = append(out.Dims, Static(full))
		default:
			out.Dims = append(out.Dims, Unknown())
		}
	}
	c.set(0, c.dtype(0), out)
	return nil
}
