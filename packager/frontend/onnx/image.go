package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func imageOps() map[string]handler {
	return map[string]handler{
		"Resize": resize, "Upsample": upsample, "ConvTranspose": convTranspose,
	}
}

// widened computes f in f32 for 16-bit floats and rounds its result once; other types pass through.
func (o *op) widened(f func(d ir.DType) *ir.Value) *ir.Value {
	d := o.need(0).Type.DType
	if d == ir.F16 || d == ir.BF16 {
		return o.cast(f(ir.F32), d)
	}
	return f(d)
}

// empty tells that an optional input is absent, which old models express by an empty tensor.
func empty(v *ir.Value) bool {
	if v == nil {
		return true
	}
	s := v.Type.Shape
	return s.Rank() == 1 && s.Dims[0].IsStatic() && s.Dims[0].N == 0
}

func resize(o *op) []*ir.Value {
	x := o.need(0)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	a := ir.Attrs{"mode": o.attrStr("mode", "nearest")}
	if o.ver < 11 {
		a["coordinate_transformation_mode"], a["nearest_mode"] = "asymmetric", "floor"
		return o.resample(x, nil, o.need(1), nil, nil, a)
	}
	coord := o.attrStr("coordinate_transformation_mode", "half_pixel")
	a["coordinate_transformation_mode"] = coord
	a["nearest_mode"] = o.attrStr("nearest_mode", "round_prefer_floor")
	a["cubic_coeff_a"] = o.attrFloat("cubic_coeff_a", -0.75)
	a["exclude_outside"] = o.attrInt("exclude_outside", 0)
	a["extrapolation_value"] = o.attrFloat("extrapolation_value", 0)
	a["antialias"] = o.attrInt("antialias", 0)
	a["keep_aspect_ratio_policy"] = o.attrStr("keep_aspect_ratio_policy", "stretch")
	if a["antialias"] != int64(0) && a["mode"] == "nearest" {
		a["antialias"] = int64(0)
	}
	var axes []int64
	if o.hasAttr("axes") {
		for _, v := range o.attrInts("axes") {
			k, err := ir.Axis(v, r)
			if err != nil {
				return o.fail("%w", err)
			}
			axes = append(axes, int64(k))
		}
	}
	roi, scales, sizes := o.in(1), o.in(2), o.in(3)
	if coord != "tf_crop_and_resize" {
		roi = nil
	} else if empty(roi) {
		return o.fail("tf_crop_and_resize without roi")
	}
	if !empty(sizes) {
		scales = nil
	} else {
		sizes = nil
		if empty(scales) {
			return o.fail("neither scales nor sizes are given")
		}
	}
	return o.resample(x, roi, scales, sizes, axes, a)
}

// resample emits a Resize on types that it takes.
func (o *op) resample(x, roi, scales, sizes *ir.Value, axes []int64, a ir.Attrs) []*ir.Value {
	if o.err != nil {
		return nil
	}
	if len(axes) == 0 {
		for i := 0; i < rank(x); i++ {
			axes = append(axes, int64(i))
		}
	}
	if len(axes) == 0 {
		return one(o.emit("Identity", nil, x))
	}
	a["axes"] = axes
	d := x.Type.DType
	if d == ir.String {
		return o.lacks("tensors of strings")
	}
	wide := d
	if a["mode"] != "nearest" || a["coordinate_transformation_mode"] == "tf_crop_and_resize" {
		switch d {
		case ir.F32, ir.F64:
		case ir.I32, ir.U32, ir.I64, ir.U64:
			wide = ir.F64
		default:
			wide = ir.F32
		}
	}
	if roi != nil {
		roi = o.cast(roi, ir.F64)
	}
	y := o.emit("Resize", a, o.cast(x, wide), roi, o.cast(scales, ir.F32), o.i64(sizes))
	if wide != d && (d.IsInt() || d == ir.Bool) {
		y = o.emit("Round", nil, y)
	}
	return one(o.cast(y, d))
}

// upsample is Resize of opset 10: scales is an attribute up to opset 8, two attributes in opset 1.
func upsample(o *op) []*ir.Value {
	x := o.need(0)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	mode := o.attrStr("mode", "nearest")
	if mode == "bilinear" {
		mode = "linear"
	}
	var scales *ir.Value
	switch {
	case o.ver >= 9:
		scales = o.need(1)
	case o.hasAttr("scales"):
		s := o.attrFloats("scales")
		scales = o.konst(ir.F32s([]int64{int64(len(s))}, append([]float32{}, s...)))
	default:
		if r != 4 {
			return o.fail("input of rank %d, want 4", r)
		}
		scales = o.konst(ir.F32s([]int64{4}, []float32{1, 1, float32(o.attrFloat("height_scale", 1)), float32(o.attrFloat("width_scale", 1))}))
	}
	return o.resample(x, nil, scales, nil, nil, ir.Attrs{"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})
}

func convTranspose(o *op) []*ir.Value {
	x, w := o.need(0), o.need(1)
	kernel := o.attrInts("kernel_shape")
	if s := w.Type.Shape; len(kernel) == 0 && s.Ranked {
		for _, d := range s.Dims[min(2, len(s.Dims)):] {
			if !d.IsStatic() {
				return o.lacks("a kernel whose size is known only at run time")
			}
			kernel = append(kernel, d.N)
		}
	}
	n := len(kernel)
	if n > 3 {
		return o.lacks("%d spatial dims", n)
	}
	if r := rank(x); n < 1 || r >= 0 && r != n+2 {
		return o.fail("input of rank %d with a kernel of %d dims", r, n)
	}
	list := func(name string, k int, def int64) []int64 {
		v := o.attrInts(name)
		for len(v) == 0 && k > 0 {
			v = make([]int64, k)
			for i := range v {
				v[i] = def
			}
		}
		return v
	}
	a := ir.Attrs{"kernel_shape": kernel, "strides": list("strides", n, 1), "dilations": list("dilations", n, 1), "pads": list("pads", 2*n, 0),
		"output_padding": list("output_padding", n, 0), "output_shape": append([]int64{}, o.attrInts("output_shape")...), "group": o.attrInt("group", 1)}
	switch auto := o.attrStr("auto_pad", "NOTSET"); auto {
	case "", "NOTSET":
		a["auto_pad"] = "NOTSET"
	case "VALID":
		a["auto_pad"], a["pads"] = "NOTSET", make([]int64, 2*n)
	case "SAME_UPPER", "SAME_LOWER":
		a["auto_pad"], a["pads"] = auto, make([]int64, 2*n)
	default:
		return o.fail("auto_pad %q", auto)
	}
	if os := a["output_shape"].([]int64); len(os) == n+2 {
		a["output_shape"] = os[2:] // old exporters name all dims
	}
	return one(o.widened(func(d ir.DType) *ir.Value {
		return o.emit("ConvTranspose", a, o.cast(x, d), o.cast(w, d), o.cast(o.in(2), d))
	}))
}
