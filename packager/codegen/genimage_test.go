package codegen_test

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// imageRecipes sample, resize and choose boxes.
func imageRecipes() map[string]recipe {
	return map[string]recipe{
		"Resize": func(g *generator) bool {
			x := g.of(choose(g, ir.F32, ir.F32, ir.F64, ir.F16, ir.U8, ir.I32), g.somedims(1+g.n(4))...)
			r := len(x.d.Dims)
			coord := choose(g, "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize", "half_pixel")
			at := attrs{"mode": choose(g, "nearest", "linear", "cubic"), "coordinate_transformation_mode": coord}
			for k, v := range g.some(attrs{"nearest_mode": choose(g, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"), "cubic_coeff_a": choose(g, -0.5, -0.75), "exclude_outside": g.bit(),
				"extrapolation_value": g.float(), "antialias": g.n(4) / 3}) {
				at[k] = v
			}
			axes := make([]int64, r)
			for i := range axes {
				axes[i] = int64(i)
			}
			if g.one(3) {
				axes = g.perm(r)[:1+g.n(r)]
				at["axes"] = axes
			}
			n := len(axes)
			roi := made{}
			if coord == "tf_crop_and_resize" {
				v := make([]float32, 2*n)
				for i := range v {
					v[i] = float32(choose(g, 0, 0.25, 0.5, 1, 1.25, -0.1))
				}
				roi = g.value(ir.F32s([]int64{int64(2 * n)}, v))
			}
			if g.bit() == 0 {
				if g.one(3) && coord != "tf_crop_and_resize" {
					at["keep_aspect_ratio_policy"] = choose(g, "stretch", "not_larger", "not_smaller")
				}
				return g.on("Resize", 1, at, x, roi, made{}, g.list(g.between(n, 1, 7)...))
			}
			s := make([]float32, n)
			for i := range s {
				s[i] = float32(choose(g, 1, 2, 0.5, 1.5, 0.3, 0.7, 3, 1))
			}
			return g.on("Resize", 1, at, x, roi, g.value(ir.F32s([]int64{int64(n)}, s)))
		},
		"Upsample": func(g *generator) bool {
			x := g.of(choose(g, ir.F32, ir.F32, ir.F64), g.somedims(4)...)
			return g.on("Upsample@9", 1, attrs{"mode": choose(g, "nearest", "linear")}, x, g.value(ir.F32s([]int64{4}, []float32{1, 1, choose[float32](g, 1, 2, 1.5), choose[float32](g, 1, 2, 3)})))
		},
		"GridSample": func(g *generator) bool {
			n := choose(g, 2, 2, 2, 1, 3)
			mode := choose(g, "nearest", "linear", "cubic")
			if n == 3 && mode == "cubic" {
				mode = "linear"
			}
			b := g.dim()
			at := plus(g.some(attrs{"padding_mode": choose(g, "zeros", "border", "reflection"), "align_corners": g.bit()}), attrs{"mode": mode})
			x := g.of(choose(g, ir.F32, ir.F32, ir.F64, ir.F16), append([]int64{b, 1 + int64(g.n(3))}, g.between(n, 1, 5)...)...)
			d := append(append([]int64{b}, g.somedims(n)...), int64(n))
			return g.on("GridSample", 1, at, x, g.fresh(choose(g, ir.F32, x.d.DType), d...))
		},
		"AffineGrid": func(g *generator) bool {
			n := 2 + g.n(2)
			b := g.dim()
			return g.on("AffineGrid", 1, g.some(attrs{"align_corners": g.bit()}), g.of(choose(g, ir.F32, ir.F64, ir.F16), b, int64(n), int64(n+1)),
				g.list(append([]int64{b, 2}, g.between(n, 1, 4)...)...))
		},
		"RoiAlign": func(g *generator) bool {
			dt, b, n := choose(g, ir.F32, ir.F32, ir.F64, ir.F16), 1+int64(g.n(2)), g.dim()
			rois := make([]float64, 4*n)
			for i := range rois {
				rois[i] = g.float()*4 + 3*float64(i%4/2)
			}
			at := g.some(attrs{"mode": choose(g, "avg", "max"), "output_height": 1 + g.n(3), "output_width": 1 + g.n(3), "sampling_ratio": g.n(3), "spatial_scale": choose(g, 1.0, 0.5),
				"coordinate_transformation_mode": choose(g, "half_pixel", "output_half_pixel")})
			box := &ir.Data{DType: dt, Dims: []int64{n, 4}}
			for _, v := range rois {
				box.Bytes = append(box.Bytes, encode(dt, v, 1)...)
			}
			return g.on("RoiAlign", 1, at, g.of(dt, b, 1+int64(g.n(2)), 1+int64(g.n(6)), 1+int64(g.n(6))), g.value(box), g.value(ir.I64s([]int64{n}, g.between(int(n), 0, b-1))))
		},
		"NonMaxSuppression": func(g *generator) bool {
			b, n, c := g.dim(), g.dim(), g.dim()
			boxes := make([]float32, b*n*4)
			for i := range boxes {
				boxes[i] = float32(g.n(9)) / 2
			}
			f := func(v float32) made { return g.value(ir.F32s(choose(g, []int64{}, []int64{1}), []float32{v})) }
			return g.on("NonMaxSuppression", 1, g.some(attrs{"center_point_box": g.bit()}), g.value(ir.F32s([]int64{b, n, 4}, boxes)), g.of(ir.F32, b, c, n),
				g.maybe(func() made { return g.list(int64(g.n(5))) }), g.maybe(func() made { return f(choose[float32](g, 0, 0.3, 0.5)) }), g.maybe(func() made { return f(choose[float32](g, 0, 0.1, -1)) }))
		},
	}
}

// signalRecipes are transforms and windows.
func signalRecipes() map[string]recipe {
	t := map[string]recipe{
		"DFT": func(g *generator) bool {
			r := 2 + g.n(2)
			d := append(g.between(r-1, 1, 6), choose[int64](g, 1, 2))
			axis := g.n(r - 1)
			inverse, one := g.bit(), g.n(3)/2
			if inverse == 1 && one == 1 {
				d[r-1] = 2
			} else if one == 1 {
				d[r-1] = 1
			}
			at := attrs{"inverse": inverse, "onesided": one}
			x := g.of(choose(g, ir.F32, ir.F32, ir.F64, ir.F16), d...)
			length := g.maybe(func() made { return g.scalar(int64(1 + g.n(8))) })
			if g.one(3) {
				at["axis"] = axis
				return g.on("DFT@17", 1, at, x, length)
			}
			return g.on("DFT", 1, at, x, length, g.maybe(func() made { return g.scalar(int64(axis - r*g.bit())) }))
		},
		"STFT": func(g *generator) bool {
			dt, n, step := choose(g, ir.F32, ir.F32, ir.F64), int64(1+g.n(6)), int64(1+g.n(4))
			signal := g.of(dt, append([]int64{1 + int64(g.n(2)), n + int64(g.n(9))}, choose(g, []int64{1}, []int64{1}, []int64{2})...)...)
			one := g.bit()
			if signal.d.Dims[2] == 2 {
				one = 0
			}
			win := g.maybe(func() made { return g.fresh(dt, n) })
			length := made{}
			if win.v == nil || g.bit() == 0 {
				length = g.scalar(n)
			}
			return g.on("STFT", 1, attrs{"onesided": one}, signal, g.scalar(step), win, length)
		},
		"MelWeightMatrix": func(g *generator) bool {
			rate := choose[int64](g, 16, 1000, 8192)
			return g.on("MelWeightMatrix", 1, g.some(attrs{"output_datatype": choose(g, ir.F32, ir.F64, ir.F16)}), g.scalar(int64(1+g.n(6))), g.scalar(choose[int64](g, 4, 8, 16, 32)), g.scalar(rate),
				g.real(ir.F32, 0), g.real(ir.F32, float64(rate)/2))
		},
	}
	for _, op := range []string{"HannWindow", "HammingWindow", "BlackmanWindow"} {
		t[op] = func(g *generator) bool {
			return g.on(op, 1, g.some(attrs{"periodic": g.bit(), "output_datatype": choose(g, ir.F32, ir.F64, ir.F16, ir.I32, ir.BF16)}), g.wholes(nil, int64(g.n(9))))
		}
	}
	return t
}

// quantRecipes quantise.
func quantRecipes() map[string]recipe {
	byteType := func(g *generator) ir.DType { return choose(g, ir.U8, ir.I8) }
	// scaled makes scales and zero points for x: for all, per element of an axis, or per block.
	scaled := func(g *generator, dims []int64) (at attrs, per []int64) {
		r := len(dims)
		at = attrs{}
		switch {
		case r == 0 || g.one(3):
			return at, choose(g, []int64{}, []int64{1})
		case g.bit() == 0:
			a := g.n(r)
			at["axis"] = a - r*g.bit()
			return at, []int64{dims[a]}
		}
		a, b := g.n(r), int64(1+g.n(3))
		at["axis"], at["block_size"] = a, b
		per = append([]int64{}, dims...)
		per[a] = (per[a] + b - 1) / b
		return at, per
	}
	stored := []ir.DType{ir.U8, ir.I8, ir.U16, ir.I16, ir.U4, ir.I4, ir.U2, ir.I2, ir.F8E4M3FN, ir.F8E4M3FNUZ, ir.F8E5M2, ir.F8E5M2FNUZ, ir.F4E2M1}
	zero := func(g *generator, d ir.DType, per ...int64) made {
		if !d.IsInt() && g.one(2) {
			return g.value(&ir.Data{DType: d, Dims: per, Bytes: make([]byte, len(g.bits(d, per...).Bytes))})
		}
		return g.fresh(d, per...)
	}
	quantize := func(op string) recipe {
		return func(g *generator) bool {
			x := g.flt(0)
			at, per := scaled(g, x.d.Dims)
			d := stored[g.n(len(stored))]
			if op != "QuantizeLinear" {
				delete(at, "block_size")
				if len(per) > 1 {
					per = []int64{}
				}
				d = byteType(g)
			}
			var zp made
			if g.bit() == 0 {
				zp = zero(g, d, per...)
			} else if op == "QuantizeLinear" {
				at["output_dtype"] = d
			}
			if op == "QuantizeLinear" {
				at = plus(at, g.some(attrs{"saturate": g.bit(), "precision": choose(g, 0, 1, 10, 11, 16)}))
			}
			return g.on(op, 1, at, x, g.scaleOf(choose(g, x.d.DType, ir.F32), per...), zp)
		}
	}
	dequantize := func(op string) recipe {
		return func(g *generator) bool {
			d := append(stored, ir.I32)[g.n(len(stored)+1)]
			if op != "DequantizeLinear" {
				d = byteType(g)
			}
			dims := g.dims()
			at, per := scaled(g, dims)
			if op != "DequantizeLinear" {
				delete(at, "block_size")
				if len(per) > 1 {
					per = []int64{}
				}
			}
			if op == "DequantizeLinear" && g.one(3) {
				at["output_dtype"] = choose(g, ir.F32, ir.F16, ir.BF16, ir.F64)
			}
			return g.on(op, 1, at, g.of(d, dims...), g.scaleOf(choose(g, ir.F32, ir.F16, ir.BF16), per...), g.maybe(func() made { return zero(g, d, per...) }))
		}
	}
	matDims := func(g *generator) (a, b []int64) {
		m, k, n := g.dim(), choose(g, g.dim(), 20), g.dim()
		a, b = []int64{m, k}, []int64{k, n}
		if g.one(3) {
			a = append([]int64{g.dim()}, a...)
		}
		return a, b
	}
	t := map[string]recipe{
		"QuantizeLinear":                 quantize("QuantizeLinear"),
		"com.microsoft.QuantizeLinear":   quantize("com.microsoft.QuantizeLinear"),
		"DequantizeLinear":               dequantize("DequantizeLinear"),
		"com.microsoft.DequantizeLinear": dequantize("com.microsoft.DequantizeLinear"),
		"DynamicQuantizeLinear":          func(g *generator) bool { return g.on("DynamicQuantizeLinear", -3, nil, g.of(ir.F32, g.dims()...)) },
		"MatMulInteger": func(g *generator) bool {
			a, b := matDims(g)
			da, db := byteType(g), byteType(g)
			return g.on("MatMulInteger", 1, nil, g.of(da, a...), g.of(db, b...), g.maybe(func() made { return g.fresh(da, choose(g, []int64{}, []int64{a[len(a)-2]})...) }),
				g.maybe(func() made { return g.fresh(db, choose(g, []int64{}, []int64{b[1]})...) }))
		},
		"QLinearMatMul": func(g *generator) bool {
			a, b := matDims(g)
			da, db, dy := byteType(g), byteType(g), byteType(g)
			per := choose(g, []int64{}, []int64{b[1]})
			return g.on("QLinearMatMul", 1, nil, g.of(da, a...), g.scale(), g.fresh(da), g.of(db, b...), g.scale(per...), g.fresh(db, per...), g.scale(), g.fresh(dy))
		},
		"com.microsoft.DynamicQuantizeMatMul": func(g *generator) bool {
			a, b := matDims(g)
			db := byteType(g)
			per := choose(g, []int64{}, []int64{1}, []int64{b[1]})
			return g.on("com.microsoft.DynamicQuantizeMatMul", 1, nil, g.of(ir.F32, a...), g.of(db, b...), g.scale(per...), g.maybe(func() made { return g.fresh(db, per...) }),
				g.maybe(func() made { return g.fresh(ir.F32, b[1]) }))
		},
		"com.microsoft.MatMulIntegerToFloat": func(g *generator) bool {
			a, b := matDims(g)
			da, db := byteType(g), byteType(g)
			per := choose(g, []int64{}, []int64{1}, []int64{b[1]})
			return g.on("com.microsoft.MatMulIntegerToFloat", 1, nil, g.of(da, a...), g.of(db, b...), g.scale(), g.scale(per...), g.maybe(func() made { return g.fresh(da) }),
				g.maybe(func() made { return g.fresh(db, per...) }), g.maybe(func() made { return g.fresh(ir.F32, b[1]) }))
		},
		"com.microsoft.QLinearConcat": func(g *generator) bool {
			d, dims := byteType(g), g.somedims(1+g.n(3))
			a := g.n(len(dims))
			ins := []made{g.scale(), g.fresh(d)}
			for range 1 + g.n(3) {
				dims[a] = g.dim()
				ins = append(ins, g.of(d, append([]int64{}, dims...)...), g.scale(), g.fresh(d))
			}
			return g.on("com.microsoft.QLinearConcat", 1, attrs{"axis": a}, ins...)
		},
	}
	for _, op := range []string{"QLinearAdd", "QLinearMul"} {
		t["com.microsoft."+op] = func(g *generator) bool {
			x := g.fresh(byteType(g), g.dims()...)
			d := x.d.DType
			return g.on("com.microsoft."+op, 1, nil, x, g.scale(), g.fresh(d), g.like(x.d), g.scale(), g.fresh(d), g.scale(), g.fresh(d))
		}
	}
	for _, op := range []string{"QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool"} {
		t["com.microsoft."+op] = func(g *generator) bool {
			d, at, r := byteType(g), attrs{}, g.n(4)
			switch op {
			case "QLinearLeakyRelu":
				at["alpha"] = 0.2
			case "QLinearGlobalAveragePool":
				r = 3 + g.n(2)
				at["channels_last"] = 0
			}
			return g.on("com.microsoft."+op, 1, g.some(at), g.of(d, g.somedims(r)...), g.scale(), g.fresh(d), g.scale(), g.fresh(d))
		}
	}
	return t
}
