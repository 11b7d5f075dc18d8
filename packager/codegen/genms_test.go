package codegen_test

import (
	"slices"

	"github.com/waybill-ml/waybill/packager/ir"
)

const msDomain = "com.microsoft."

// fusedRecipes are the operators that ONNX Runtime's optimisers write.
func fusedRecipes() map[string]recipe {
	t := map[string]recipe{}
	ms := func(name string, r recipe) { t[msDomain+name] = r }
	norm := func(simple bool, name string) recipe {
		return func(g *generator) bool {
			dt, d := choose(g, ir.F32, ir.F32, ir.F16, ir.F64), g.somedims(2+g.n(2))
			last := d[len(d)-1]
			ins := []made{g.of(dt, d...), g.of(dt, d...), g.fresh(dt, last)}
			if !simple {
				ins = append(ins, g.maybe(func() made { return g.fresh(dt, last) }))
			}
			return g.on(msDomain+name, -4, g.some(attrs{"epsilon": 0.01}), append(ins, g.maybe(func() made { return g.fresh(dt, last) }))...)
		}
	}
	ms("SkipLayerNormalization", norm(false, "SkipLayerNormalization"))
	ms("SkipSimplifiedLayerNormalization", norm(true, "SkipSimplifiedLayerNormalization"))
	t["SimplifiedLayerNormalization"] = func(g *generator) bool {
		x := g.flt(1)
		return g.on("SimplifiedLayerNormalization", 1, g.some(attrs{"epsilon": 0.01}), x, g.fresh(x.d.DType, x.d.Dims[len(x.d.Dims)-1]))
	}
	embed := func(g *generator, quantised bool) bool {
		d := choose(g, ir.F32, ir.F32, ir.F16)
		if quantised {
			d = ir.U8
		}
		b, s, h, n := 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(5)), int64(6)
		ids := func(limit int64) made { return g.wholes([]int64{b, s}, g.between(int(b*s), 0, limit-1)...) }
		ins := []made{ids(n), ids(2), g.of(d, n, h), g.of(d, s+2, h), g.of(d, 2, h), g.of(d, h), g.of(d, h), g.maybe(func() made { return g.value(ir.IntData(ir.I32, []int64{b, s}, g.between(int(b*s), 0, 1))) })}
		if quantised {
			for range 5 {
				ins = append(ins, g.scale())
			}
			for range 5 {
				ins = append(ins, g.fresh(d))
			}
			return g.on(msDomain+"QEmbedLayerNormalization", choose(g, 1, 2), nil, ins...)
		}
		return g.on(msDomain+"EmbedLayerNormalization", -3, nil, append(ins, g.maybe(func() made { return ids(s + 2) }))...)
	}
	ms("EmbedLayerNormalization", func(g *generator) bool { return embed(g, false) })
	ms("QEmbedLayerNormalization", func(g *generator) bool { return embed(g, true) })
	ms("BiasGelu", func(g *generator) bool {
		x := g.flt(1)
		return g.on(msDomain+"BiasGelu", 1, nil, x, g.fresh(x.d.DType, x.d.Dims[len(x.d.Dims)-1]))
	})
	ms("Gelu", func(g *generator) bool { return g.on(msDomain+"Gelu", 1, nil, g.flt(0)) })
	ms("QuickGelu", func(g *generator) bool { return g.on(msDomain+"QuickGelu", 1, g.some(attrs{"alpha": 0.5}), g.flt(0)) })
	ms("FastGelu", func(g *generator) bool {
		x := g.flt(1)
		return g.on(msDomain+"FastGelu", 1, nil, x, g.maybe(func() made { return g.fresh(x.d.DType, x.d.Dims[len(x.d.Dims)-1]) }))
	})
	ms("BiasAdd", func(g *generator) bool {
		dt, d := g.floatType(), g.somedims(3)
		return g.on(msDomain+"BiasAdd", 1, nil, g.of(dt, d...), g.fresh(dt, d[2]), g.of(dt, d...))
	})
	for _, op := range []string{"FusedMatMul", "TransposeMatMul"} {
		ms(op, func(g *generator) bool {
			dt, b, m, k, n := choose(g, ir.F32, ir.F64, ir.F16), g.dim(), g.dim(), g.dim(), g.dim()
			x, y, ta, tb := []int64{m, k}, []int64{k, n}, g.bit(), g.bit()
			if ta == 1 {
				slices.Reverse(x)
			}
			if tb == 1 {
				slices.Reverse(y)
			}
			at := attrs{"transA": ta, "transB": tb, "alpha": choose(g, 1.0, 0.5)}
			if g.bit() == 0 {
				x, y = append([]int64{b}, x...), append([]int64{b}, y...)
			}
			if op == "FusedMatMul" && g.one(4) && len(x) == 3 {
				at["transBatchA"] = 1 // the batch stands behind the first dim
				x = []int64{x[1], b, x[2]}
				if ta == 1 {
					x = []int64{k, b, m}
				}
				if ta == 1 {
					return false
				}
			}
			return g.on(msDomain+op, 1, g.some(at), g.of(dt, x...), g.of(dt, y...))
		})
	}
	act := func(g *generator) string {
		return choose(g, "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "HardSigmoid", "Clip", "ThresholdedRelu", "Softplus", "Softsign", "HardSwish")
	}
	ms("FusedGemm", func(g *generator) bool {
		m, k, n := g.dim(), g.dim(), g.dim()
		at := g.some(attrs{"alpha": 0.5, "beta": 2.0, "activation_alpha": 0.25})
		at["activation"] = act(g)
		return g.on(msDomain+"FusedGemm", 1, at, g.of(ir.F32, m, k), g.of(ir.F32, k, n), g.maybe(func() made { return g.fresh(ir.F32, n) }))
	})
	ms("FusedConv", func(g *generator) bool {
		at, k, in := g.window(g.spatialRank())
		c, m := choose[int64](g, 1, 2, 4), choose[int64](g, 1, 3, 8)
		at["activation"] = act(g)
		if g.bit() == 0 {
			at["activation_params"] = []float64{0.25, 0.75}
		}
		return g.on(msDomain+"FusedConv", 1, at, g.of(ir.F32, append([]int64{1, c}, in...)...), g.of(ir.F32, append([]int64{m, c}, k...)...), g.maybe(func() made { return g.fresh(ir.F32, m) }),
			g.maybe(func() made { return g.fresh(ir.F32, 1) }))
	})
	ms("NhwcMaxPool", func(g *generator) bool {
		at, k, in := g.window(g.spatialRank())
		at["kernel_shape"] = k
		return g.on(msDomain+"NhwcMaxPool", 1, at, g.of(choose(g, ir.U8, ir.I8), append(append([]int64{1}, in...), 1+int64(g.n(3)))...))
	})
	ms("ExpandDims", func(g *generator) bool {
		x := g.thing(0)
		return g.on(msDomain+"ExpandDims", 1, nil, x, g.value(ir.IntData(ir.I32, nil, []int64{g.axis(len(x.d.Dims) + 1)})))
	})
	ms("Range", func(g *generator) bool {
		dt := choose(g, ir.F32, ir.F64, ir.I32, ir.I64)
		return g.on(msDomain+"Range", 1, nil, g.real(dt, float64(g.n(5))), g.real(dt, float64(g.n(20))), g.maybe(func() made { return g.real(dt, 2) }))
	})
	ms("Pad", func(g *generator) bool {
		x := g.of(choose(g, ir.F32, ir.F64), g.somedims(1+g.n(3))...)
		r := len(x.d.Dims)
		return g.on(msDomain+"Pad", 1, g.some(attrs{"mode": choose(g, "constant", "reflect", "edge")}), x, g.list(g.between(2*r, -1, 2)...), g.maybe(func() made { return g.fresh(x.d.DType) }))
	})
	ms("Trilu", func(g *generator) bool {
		return g.on(msDomain+"Trilu", 1, g.some(attrs{"upper": g.bit()}), g.num(2), g.maybe(func() made { return g.scalar(int64(g.n(5) - 2)) }))
	})
	ms("GatherND", func(g *generator) bool {
		x := g.thing(1)
		return g.on(msDomain+"GatherND", 1, nil, x, g.indices(slices.Min(x.d.Dims), int64(g.n(4)), 1))
	})
	ms("GridSample", func(g *generator) bool {
		b := g.dim()
		return g.on(msDomain+"GridSample", 1, g.some(attrs{"mode": choose(g, "bilinear", "nearest", "bicubic"), "padding_mode": choose(g, "zeros", "border", "reflection"), "align_corners": g.bit()}),
			g.of(ir.F32, b, 2, 1+int64(g.n(4)), 1+int64(g.n(4))), g.fresh(ir.F32, b, g.dim(), g.dim(), 2))
	})
	ms("CDist", func(g *generator) bool {
		k := g.dim()
		dt := g.f32or64()
		return g.on(msDomain+"CDist", 1, g.some(attrs{"metric": choose(g, "euclidean", "sqeuclidean")}), g.of(dt, g.dim(), k), g.of(dt, g.dim(), k))
	})
	ms("UnfoldTensor", func(g *generator) bool {
		x := g.thing(1)
		a := g.n(len(x.d.Dims))
		return g.on(msDomain+"UnfoldTensor", 1, attrs{"dim": a, "size": 1 + g.n(int(max(x.d.Dims[a], 1))), "step": 1 + g.n(3)}, x)
	})
	ms("Inverse", func(g *generator) bool {
		n := g.dim()
		return g.on(msDomain+"Inverse", 1, nil, g.of(choose(g, ir.F32, ir.F64, ir.F16), append(g.somedims(g.n(2)), n, n)...))
	})
	ms("MurmurHash3", func(g *generator) bool {
		return g.on(msDomain+"MurmurHash3", 1, g.some(attrs{"seed": 7, "positive": g.bit()}), g.of(choose(g, ir.I32, ir.U32, ir.I64, ir.U64, ir.F32, ir.F64), g.dims()...))
	})
	ms("Unique", func(g *generator) bool {
		return g.on(msDomain+"Unique", -3, nil, g.of(choose(g, ir.F32, ir.I64, ir.I8), g.dim()))
	})
	ms("ConvTransposeWithDynamicPads", func(g *generator) bool {
		c, m := choose[int64](g, 1, 2), choose[int64](g, 1, 3)
		return g.on(msDomain+"ConvTransposeWithDynamicPads", 1, g.some(attrs{"strides": g.between(2, 1, 2)}), g.of(ir.F32, 1, c, 1+int64(g.n(4)), 1+int64(g.n(4))), g.of(ir.F32, c, m, 2, 3),
			g.maybe(func() made { return g.list(g.between(4, 0, 1)...) }), g.maybe(func() made { return g.fresh(ir.F32, m) }))
	})
	return t
}

// moreAttentionRecipes are the attention operators of com.microsoft.
func moreAttentionRecipes() map[string]recipe {
	t := map[string]recipe{}
	ms := func(name string, r recipe) { t[msDomain+name] = r }
	mask := func(g *generator, b, sq, skv int64) made {
		ints := func(lo, hi int64, d ...int64) made {
			n, _ := ir.Elements(d)
			return g.value(ir.IntData(ir.I32, d, g.between(int(n), lo, hi)))
		}
		switch g.n(4) {
		case 0:
			return ints(0, skv, b)
		case 1:
			return ints(0, 1, b, skv)
		case 2:
			return ints(0, 1, b, sq, skv)
		}
		return made{}
	}
	ms("Attention", func(g *generator) bool {
		dt, b, s, n, h := choose(g, ir.F32, ir.F32, ir.F16), 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(2)), 1+int64(g.n(3))
		in, past := g.dim(), int64(0)
		var p made
		if g.one(3) {
			past = g.dim()
			p = g.fresh(dt, 2, b, n, past, h)
		}
		at := g.some(attrs{"unidirectional": g.bit(), "scale": 0.5, "mask_filter_value": -100.0})
		at["num_heads"] = n
		return g.on(msDomain+"Attention", -2, at, g.of(dt, b, s, in), g.of(dt, in, 3*n*h), g.maybe(func() made { return g.fresh(dt, 3*n*h) }), mask(g, b, s, s+past), p,
			g.maybe(func() made { return g.fresh(dt, b, n, s, s+past) }))
	})
	ms("QAttention", func(g *generator) bool {
		b, s, n, h, in := 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(2)), 1+int64(g.n(3)), g.dim()
		return g.on(msDomain+"QAttention", -2, plus(g.some(attrs{"unidirectional": g.bit()}), attrs{"num_heads": n}), g.of(ir.U8, b, s, in), g.of(choose(g, ir.U8, ir.I8), in, 3*n*h), g.fresh(ir.F32, 3*n*h),
			g.scale(), g.scale(), mask(g, b, s, s), g.maybe(func() made { return g.fresh(ir.U8) }))
	})
	ms("MultiHeadAttention", func(g *generator) bool {
		dt, b, sq, sk, n, h, v := choose(g, ir.F32, ir.F32, ir.F16), 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(3)), 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(3))
		at := g.some(attrs{"unidirectional": g.bit(), "scale": 0.5})
		at["num_heads"] = n
		op := msDomain + "MultiHeadAttention"
		if g.one(4) {
			return g.on(op, 1, at, g.of(dt, b, sq, n, 3, h), made{}, made{}, g.maybe(func() made { return g.fresh(dt, 3*n*h) }), mask(g, b, sq, sq))
		}
		past := int64(0)
		var pk, pv made
		if g.one(3) {
			past = g.dim()
			pk, pv = g.fresh(dt, b, n, past, h), g.fresh(dt, b, n, past, v)
		}
		return g.on(op, -4, at, g.of(dt, b, sq, n*h), g.of(dt, b, sk, n*h), g.of(dt, b, sk, n*v), g.maybe(func() made { return g.fresh(dt, 2*n*h+n*v) }), mask(g, b, sq, sk+past),
			g.maybe(func() made { return g.fresh(dt, 1, n, sq, sk+past) }), pk, pv)
	})
	ms("GroupQueryAttention", func(g *generator) bool {
		dt, b, s, nk, h := choose(g, ir.F32, ir.F32, ir.F16), 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(2)), 2*(1+int64(g.n(2)))
		nq := nk * (1 + int64(g.n(2)))
		total := s
		past := int64(0)
		var pk, pv made
		if g.bit() == 0 {
			past = 1 + int64(g.n(4))
			pk, pv = g.fresh(dt, b, nk, past, h), g.fresh(dt, b, nk, past, h)
			total = s + past
		}
		at := g.some(attrs{"scale": 0.5, "softcap": 2.0, "local_window_size": 1 + g.n(3), "rotary_interleaved": g.bit()})
		at["num_heads"], at["kv_num_heads"] = nq, nk
		lens := g.value(ir.IntData(ir.I32, []int64{b}, g.between(int(b), s-1, total-1)))
		var cos, sin made
		if g.bit() == 0 {
			at["do_rotary"] = 1
			cos, sin = g.fresh(dt, total+2, h/2), g.fresh(dt, total+2, h/2)
		}
		q, k, v := g.of(dt, b, s, nq*h), g.of(dt, b, s, nk*h), g.of(dt, b, s, nk*h)
		if g.one(4) {
			q, k, v = g.of(dt, b, s, (nq+2*nk)*h), made{}, made{}
		}
		return g.on(msDomain+"GroupQueryAttention", 3, at, q, k, v, pk, pv, lens, g.value(ir.IntData(ir.I32, nil, []int64{total})), cos, sin)
	})
	ms("RotaryEmbedding", func(g *generator) bool {
		dt, b, n, s, h := choose(g, ir.F32, ir.F16), 1+int64(g.n(2)), 1+int64(g.n(2)), 1+int64(g.n(3)), 2*(1+int64(g.n(2)))
		pos := g.value(ir.I64s([]int64{b, s}, g.between(int(b*s), 0, s+1)))
		if g.bit() == 0 {
			pos = g.list(1)
		}
		x := choose(g, []int64{b, n, s, h}, []int64{b, s, n * h})
		return g.on(msDomain+"RotaryEmbedding", 1, plus(g.some(attrs{"interleaved": g.bit()}), attrs{"num_heads": n}), g.of(dt, x...), pos, g.fresh(dt, s+2, h/2), g.fresh(dt, s+2, h/2))
	})
	return t
}

// moreQuantRecipes are further quantised operators of com.microsoft.
func moreQuantRecipes() map[string]recipe {
	t := map[string]recipe{}
	ms := func(name string, r recipe) { t[msDomain+name] = r }
	byteType := func(g *generator) ir.DType { return choose(g, ir.U8, ir.I8) }
	around := func(g *generator, name string, at attrs, dims ...int64) bool {
		d := byteType(g)
		return g.on(msDomain+name, 1, at, g.of(d, dims...), g.scale(), g.fresh(d), g.scale(), g.fresh(d))
	}
	ms("QLinearSoftmax", func(g *generator) bool {
		d := g.somedims(1 + g.n(3))
		return around(g, "QLinearSoftmax", attrs{"axis": g.n(len(d)), "opset": choose(g, 11, 13)}, d...)
	})
	ms("QLinearAveragePool", func(g *generator) bool {
		at, k, in := g.window(g.spatialRank())
		delete(at, "dilations")
		at["kernel_shape"], at["channels_last"] = k, g.bit()
		if at["channels_last"] == 1 {
			return around(g, "QLinearAveragePool", at, append(append([]int64{1}, in...), 2)...)
		}
		return around(g, "QLinearAveragePool", at, append([]int64{1, 2}, in...)...)
	})
	ms("QLinearReduceMean", func(g *generator) bool {
		d := g.somedims(1 + g.n(3))
		return around(g, "QLinearReduceMean", attrs{"axes": []int64{int64(g.n(len(d)))}, "keepdims": g.bit()}, d...)
	})
	ms("QLinearConv", func(g *generator) bool {
		c, m := choose[int64](g, 1, 2, 3), choose[int64](g, 1, 4)
		d, x, last := byteType(g), []int64{1, c, 2 + int64(g.n(4)), 2 + int64(g.n(4))}, g.bit()
		if last == 1 {
			x = []int64{1, x[2], x[3], c}
		}
		return g.on(msDomain+"QLinearConv", 1, plus(g.some(attrs{"pads": g.between(4, 0, 1)}), attrs{"channels_last": last}), g.of(d, x...), g.scale(), g.fresh(d), g.of(byteType(g), m, c, 2, 2), g.scale(), made{}, g.scale(), g.fresh(d),
			g.maybe(func() made { return g.fresh(ir.I32, m) }))
	})
	ms("QLinearWhere", func(g *generator) bool {
		c, d := g.boolean(0), byteType(g)
		return g.on(msDomain+"QLinearWhere", 1, nil, c, g.of(d, c.d.Dims...), g.scale(), g.fresh(d), g.fresh(d), g.scale(), g.fresh(d), g.scale(), g.fresh(d))
	})
	ms("MatMulInteger16", func(g *generator) bool {
		k := g.dim()
		return g.on(msDomain+"MatMulInteger16", 1, nil, g.of(choose(g, ir.I16, ir.U16), g.dim(), k), g.of(choose(g, ir.I16, ir.U16), k, g.dim()))
	})
	ms("MulInteger", func(g *generator) bool {
		d := byteType(g)
		x := g.of(d, g.dims()...)
		return g.on(msDomain+"MulInteger", 1, nil, x, g.maybe(func() made { return g.fresh(d) }), g.like(x.d), g.maybe(func() made { return g.fresh(d) }))
	})
	ms("ReduceSumInteger", func(g *generator) bool {
		d := g.somedims(1 + g.n(3))
		return g.on(msDomain+"ReduceSumInteger", 1, attrs{"axes": []int64{int64(g.n(len(d)))}, "keepdims": g.bit()}, g.of(byteType(g), d...))
	})
	ms("QGemm", func(g *generator) bool {
		m, k, n, ta, tb := g.dim(), g.dim(), g.dim(), g.bit(), g.bit()
		a, b := []int64{m, k}, []int64{k, n}
		if ta == 1 {
			slices.Reverse(a)
		}
		if tb == 1 {
			slices.Reverse(b)
		}
		da, db := byteType(g), byteType(g)
		ys, yz := made{}, made{}
		if g.bit() == 0 {
			ys, yz = g.scale(), g.fresh(da)
		}
		return g.on(msDomain+"QGemm", 1, attrs{"transA": ta, "transB": tb, "alpha": choose(g, 1.0, 0.5)}, g.of(da, a...), g.scale(), g.fresh(da), g.of(db, b...), g.scale(), g.fresh(db),
			g.maybe(func() made { return g.fresh(ir.I32, n) }), ys, yz)
	})
	constant := func(g *generator, d *ir.Data) made {
		m := made{v: &ir.Value{Name: g.name("c"), Type: d.Type(), Const: d}, d: d}
		g.pool = append(g.pool, m)
		return m
	}
	ms("MatMulNBits", func(g *generator) bool {
		n, k, bits, block := 1+int64(g.n(4)), choose[int64](g, 3, 16, 20, 40), choose[int64](g, 2, 4, 4, 8), int64(16)
		blocks := (k + block - 1) / block
		dt := choose(g, ir.F32, ir.F32, ir.F16)
		zp := g.maybe(func() made { return constant(g, g.tensor(ir.U8, n*((blocks*bits+7)/8))) })
		return g.on(msDomain+"MatMulNBits", 1, attrs{"N": n, "K": k, "bits": bits, "block_size": block}, g.of(dt, g.dim(), k), constant(g, g.tensor(ir.U8, n, blocks, block*bits/8)), g.fresh(dt, n*blocks), zp)
	})
	ms("GatherBlockQuantized", func(g *generator) bool {
		rows, cols := 1+int64(g.n(4)), choose[int64](g, 16, 20, 40)
		blocks := (cols + 15) / 16
		d := choose(g, ir.I4, ir.U4)
		return g.on(msDomain+"GatherBlockQuantized", 1, attrs{"block_size": 16, "quantize_axis": 1, "gather_axis": 0}, g.of(d, rows, cols), g.indices(rows, g.somedims(g.n(3))...), g.scaleOf(choose(g, ir.F32, ir.F16), rows, blocks),
			g.maybe(func() made { return g.fresh(d, rows, blocks) }))
	})
	ms("DynamicQuantizeLSTM", func(g *generator) bool {
		dir := choose(g, "forward", "reverse", "bidirectional")
		dirs := int64(1)
		if dir == "bidirectional" {
			dirs = 2
		}
		seq, b, in, h, d := 1+int64(g.n(3)), 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(3)), byteType(g)
		state := func() made { return g.maybe(func() made { return g.fresh(ir.F32, dirs, b, h) }) }
		return g.on(msDomain+"DynamicQuantizeLSTM", -3, attrs{"direction": dir, "hidden_size": h}, g.of(ir.F32, seq, b, in), g.of(d, dirs, in, 4*h), g.of(d, dirs, h, 4*h),
			g.maybe(func() made { return g.fresh(ir.F32, dirs, 8*h) }), made{}, state(), state(), made{}, g.scale(dirs), g.fresh(d, dirs), g.scale(dirs), g.fresh(d, dirs))
	})
	return t
}
