package codegen_test

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// window makes attributes of a sliding window over n spatial dims, and the sizes of its kernel and of an input.
func (g *generator) window(n int) (at attrs, kernel, in []int64) {
	at = attrs{}
	kernel, in = make([]int64, n), make([]int64, n)
	dil := fill(n, 1)
	for i := range n {
		kernel[i] = 1 + int64(g.n(3))
		if g.one(4) {
			dil[i] = 2
		}
		in[i] = (kernel[i]-1)*dil[i] + 1 + int64(g.n(6))
		if g.one(12) {
			in[i] = int64(g.n(4))
		}
	}
	if g.bit() == 0 {
		at["dilations"] = dil
	} else {
		for i := range dil {
			dil[i] = 1
		}
	}
	if g.bit() == 0 {
		at["strides"] = g.between(n, 1, 3)
	}
	switch g.n(4) {
	case 0:
		at["auto_pad"] = choose(g, "SAME_UPPER", "SAME_LOWER", "VALID")
	case 1, 2:
		p := make([]int64, 2*n)
		for i := range p {
			p[i] = int64(g.n(int(kernel[i%n])))
		}
		at["pads"] = p
	}
	return at, kernel, in
}

// spatialRank is 1 to 3, mostly 2.
func (g *generator) spatialRank() int { return choose(g, 1, 1, 2, 2, 2, 3) }

func plus(at attrs, more attrs) attrs {
	for k, v := range more {
		at[k] = v
	}
	return at
}

// windowRecipes are convolutions and pools.
func windowRecipes() map[string]recipe {
	conv := func(g *generator) (at attrs, x, w []int64) {
		at, k, in := g.window(g.spatialRank())
		group := choose[int64](g, 1, 1, 1, 2, 3)
		cg, mg := choose[int64](g, 1, 1, 2, 3, 5), choose[int64](g, 1, 2, 3, 4, 8)
		if group > 1 || g.bit() == 0 {
			at["group"] = group
		} else {
			group = 1
		}
		if g.bit() == 0 {
			at["kernel_shape"] = k
		}
		return at, append([]int64{choose(g, 1, g.dim()), group * cg}, in...), append([]int64{group * mg, cg}, k...)
	}
	pool := func(g *generator) (attrs, []int64) {
		at, k, in := g.window(g.spatialRank())
		at["kernel_shape"] = k
		if g.bit() == 0 {
			at["ceil_mode"] = g.bit()
		}
		return at, append([]int64{choose(g, 1, g.dim()), choose[int64](g, 1, 2, 3)}, in...)
	}
	zero := func(g *generator, dt ir.DType, dims ...int64) made { return g.value(g.plain(dt, dims...)) }
	return map[string]recipe{
		"Conv": func(g *generator) bool {
			at, x, w := conv(g)
			dt := choose(g, ir.F32, ir.F32, ir.F32, ir.F64, ir.F16, ir.BF16)
			return g.on("Conv", 1, at, g.of(dt, x...), g.of(dt, w...), g.maybe(func() made { return g.fresh(dt, w[0]) }))
		},
		"ConvInteger": func(g *generator) bool {
			at, x, w := conv(g)
			dx, dw := choose(g, ir.U8, ir.I8), choose(g, ir.U8, ir.I8)
			return g.on("ConvInteger", 1, at, g.of(dx, x...), g.of(dw, w...), g.maybe(func() made { return zero(g, dx) }),
				g.maybe(func() made { return zero(g, dw, choose(g, []int64{}, []int64{w[0]})...) }))
		},
		"QLinearConv": func(g *generator) bool {
			at, x, w := conv(g)
			dx, dw, dy := choose(g, ir.U8, ir.I8), choose(g, ir.U8, ir.I8), choose(g, ir.U8, ir.I8)
			per := choose(g, []int64{}, []int64{w[0]})
			return g.on("QLinearConv", 1, at, g.of(dx, x...), g.real(ir.F32, 0.25), zero(g, dx), g.of(dw, w...), g.scale(per...), zero(g, dw, per...), g.real(ir.F32, choose(g, 0.5, 3, 0.01)),
				zero(g, dy), g.maybe(func() made { return g.fresh(ir.I32, w[0]) }))
		},
		"ConvTranspose": func(g *generator) bool {
			at, x, w := conv(g)
			dt := choose(g, ir.F32, ir.F32, ir.F64, ir.F16)
			n := len(x) - 2
			w[0], w[1] = x[1], choose[int64](g, 1, 2, 4)
			if g.one(3) {
				at["output_padding"] = g.between(n, 0, 1)
			}
			if g.one(5) {
				at["output_shape"] = g.between(n, 1, 9)
			}
			group := int64(1)
			if v, ok := at["group"].(int64); ok {
				group = v
			}
			return g.on("ConvTranspose", 1, at, g.of(dt, x...), g.of(dt, w...), g.maybe(func() made { return g.fresh(dt, w[1]*group) }))
		},
		"DeformConv": func(g *generator) bool {
			n := 2
			at, k, in := g.window(n)
			delete(at, "auto_pad")
			for i := range in {
				in[i] = max(in[i], 1)
			}
			group, og, cg := choose[int64](g, 1, 1, 2), choose[int64](g, 1, 1, 2), choose[int64](g, 1, 2)
			at["group"], at["offset_group"] = group, og
			out, cells := make([]int64, n), int64(1)
			for i := range n {
				s, d, p := int64(1), int64(1), int64(0)
				if v, ok := at["strides"].([]int64); ok {
					s = v[i]
				}
				if v, ok := at["dilations"].([]int64); ok {
					d = v[i]
				}
				if v, ok := at["pads"].([]int64); ok {
					p = v[i] + v[i+n]
				}
				out[i] = max((in[i]+p-d*(k[i]-1)-1)/s+1, 0)
				cells *= k[i]
			}
			dt, b, m := choose(g, ir.F32, ir.F32, ir.F64, ir.F16), 1+int64(g.n(2)), group*choose[int64](g, 1, 2)
			return g.on("DeformConv", 1, at, g.of(dt, append([]int64{b, group * cg * og}, in...)...), g.of(dt, append([]int64{m, cg * og}, k...)...),
				g.value(g.plain(dt, append([]int64{b, og * cells * int64(n)}, out...)...)), g.maybe(func() made { return g.fresh(dt, m) }),
				g.maybe(func() made { return g.fresh(dt, append([]int64{b, og * cells}, out...)...) }))
		},
		"MaxPool": func(g *generator) bool {
			at, x := pool(g)
			if g.one(3) {
				at["storage_order"] = g.bit()
			}
			return g.on("MaxPool", -2, at, g.of(choose(g, ir.F32, ir.F64, ir.F16, ir.I8, ir.U8, ir.BF16), x...))
		},
		"AveragePool": func(g *generator) bool {
			at, x := pool(g)
			return g.on("AveragePool", 1, plus(at, g.some(attrs{"count_include_pad": g.bit()})), g.of(choose(g, ir.F32, ir.F32, ir.F64, ir.F16), x...))
		},
		"LpPool": func(g *generator) bool {
			at, x := pool(g)
			return g.on("LpPool", 1, plus(at, g.some(attrs{"p": 1 + g.n(3)})), g.of(choose(g, ir.F32, ir.F64, ir.F16), x...))
		},
		"MaxUnpool": func(g *generator) bool {
			n := 1 + g.n(2)
			k, d := g.between(n, 1, 3), append([]int64{1, 1 + int64(g.n(2))}, g.between(n, 1, 3)...)
			total, _ := ir.Elements(d)
			area := d[1]
			for i := range n {
				area *= (d[i+2]-1)*k[i] + k[i]
			}
			return g.on("MaxUnpool", 1, attrs{"kernel_shape": k, "strides": k}, g.of(g.f32or64(), d...), g.value(ir.I64s(d, g.between(int(total), 0, area-1))))
		},
		"GlobalAveragePool": func(g *generator) bool { return g.on("GlobalAveragePool", 1, nil, g.flt(3)) },
		"GlobalMaxPool":     func(g *generator) bool { return g.on("GlobalMaxPool", 1, nil, g.flt(3)) },
		"GlobalLpPool":      func(g *generator) bool { return g.on("GlobalLpPool", 1, g.some(attrs{"p": 1 + g.n(3)}), g.flt(3)) },
	}
}

// scale makes positive finite f32 values.
func (g *generator) scale(dims ...int64) made { return g.scaleOf(ir.F32, dims...) }

func (g *generator) scaleOf(dt ir.DType, dims ...int64) made {
	n, _ := ir.Elements(dims)
	d := &ir.Data{DType: dt, Dims: dims}
	for range n {
		d.Bytes = append(d.Bytes, encode(dt, math.Abs(g.float())*2+0.01, g.u())...)
	}
	return g.value(d)
}

// normRecipes are normalisations.
func normRecipes() map[string]recipe {
	eps := func(g *generator) attrs { return g.some(attrs{"epsilon": choose(g, 1e-5, 0.1, 0.0)}) }
	return map[string]recipe{
		"BatchNormalization": func(g *generator) bool {
			dt, d := g.floatType(), append([]int64{g.dim(), 1 + int64(g.n(4))}, g.somedims(g.n(3))...)
			c := func() made { return g.fresh(dt, d[1]) }
			if g.one(4) {
				return g.on("BatchNormalization", -3, plus(eps(g), attrs{"training_mode": 1, "momentum": 0.7}), g.of(dt, d...), c(), c(), c(), g.scaleOf(dt, d[1]))
			}
			return g.on("BatchNormalization", 1, eps(g), g.of(dt, d...), c(), c(), c(), g.scaleOf(dt, d[1]))
		},
		"InstanceNormalization": func(g *generator) bool {
			dt, d := g.floatType(), append([]int64{g.dim(), 1 + int64(g.n(4))}, g.somedims(1+g.n(2))...)
			return g.on("InstanceNormalization", 1, eps(g), g.of(dt, d...), g.fresh(dt, d[1]), g.fresh(dt, d[1]))
		},
		"GroupNormalization": func(g *generator) bool {
			n := 1 + int64(g.n(3))
			dt, d := g.floatType(), append([]int64{g.dim(), n * (1 + int64(g.n(3)))}, g.somedims(1+g.n(2))...)
			per := d[1]
			op := "GroupNormalization"
			if g.one(3) {
				op, per = op+"@18", n
			}
			return g.on(op, 1, plus(eps(g), attrs{"num_groups": n}), g.of(dt, d...), g.fresh(dt, per), g.fresh(dt, per))
		},
		"LayerNormalization": func(g *generator) bool {
			x := g.flt(1)
			a := g.n(len(x.d.Dims))
			part := x.d.Dims[a:]
			return g.on("LayerNormalization", -3, plus(plus(eps(g), g.some(attrs{"stash_type": choose(g, 1, 1, 11)})), attrs{"axis": a}), x, g.fresh(x.d.DType, part...),
				g.maybe(func() made { return g.fresh(x.d.DType, part...) }))
		},
		"RMSNormalization": func(g *generator) bool {
			x := g.flt(1)
			a := g.n(len(x.d.Dims))
			return g.on("RMSNormalization", 1, plus(eps(g), attrs{"axis": a - len(x.d.Dims)}), x, g.fresh(x.d.DType, x.d.Dims[a:]...))
		},
		"MeanVarianceNormalization": func(g *generator) bool {
			x := g.flt(1)
			return g.on("MeanVarianceNormalization", 1, attrs{"axes": g.perm(len(x.d.Dims))[:1+g.n(len(x.d.Dims))]}, x)
		},
		"LpNormalization": func(g *generator) bool {
			x := g.flt(1)
			return g.on("LpNormalization", 1, g.some(attrs{"axis": g.axis(len(x.d.Dims)), "p": 1 + g.n(2)}), x)
		},
		"LRN": func(g *generator) bool {
			return g.on("LRN", 1, plus(g.some(attrs{"alpha": 0.1, "beta": 0.5, "bias": 2.0}), attrs{"size": 1 + g.n(4)}), g.fresh(g.floatType(), g.somedims(2+g.n(3))...))
		},
	}
}

// attentionRecipes are attention and its kin.
func attentionRecipes() map[string]recipe {
	return map[string]recipe{
		"Attention": func(g *generator) bool {
			dt, b, sq, sk, hd, vd := choose(g, ir.F32, ir.F32, ir.F64, ir.F16, ir.BF16), 1+int64(g.n(2)), g.dim(), g.dim(), 1+int64(g.n(4)), 1+int64(g.n(4))
			kv := 1 + int64(g.n(2))
			q := kv * (1 + int64(g.n(2)))
			at := g.some(attrs{"is_causal": g.bit(), "scale": 0.5, "softcap": choose(g, 0.0, 2.0), "softmax_precision": choose(g, 1, 11, 10)})
			at["qk_matmul_output_mode"] = g.n(4)
			past := int64(0)
			var pk, pv, pad made
			switch g.n(4) {
			case 0:
				past = g.dim()
				pk, pv = g.fresh(dt, b, kv, past, hd), g.fresh(dt, b, kv, past, vd)
			case 1:
				pad = g.list(g.between(int(b), 0, sk)...)
			}
			mask := g.maybe(func() made {
				d := []int64{sq, sk + past}
				for _, n := range []int64{q, b}[:g.n(3)] {
					d = append([]int64{choose(g, 1, n)}, d...)
				}
				return g.fresh(choose(g, ir.Bool, dt), d...)
			})
			op := g.ver("Attention", 23, 28)
			if pad.v != nil {
				op = "Attention"
			}
			outs := choose(g, 1, -4)
			if g.bit() == 0 {
				return g.on(op, outs, at, g.of(dt, b, q, sq, hd), g.of(dt, b, kv, sk, hd), g.of(dt, b, kv, sk, vd), mask, pk, pv, pad)
			}
			at["q_num_heads"], at["kv_num_heads"] = q, kv
			return g.on(op, outs, at, g.of(dt, b, sq, q*hd), g.of(dt, b, sk, kv*hd), g.of(dt, b, sk, kv*vd), mask, pk, pv, pad)
		},
		"ai.onnx.preview.FlexAttention": func(g *generator) bool {
			dt, b, sq, sk, hd, vd := choose(g, ir.F32, ir.F32, ir.F64, ir.F16), 1+int64(g.n(2)), 1+g.dim(), 1+g.dim(), 1+int64(g.n(4)), 1+int64(g.n(4))
			kv := 1 + int64(g.n(2))
			q := kv * (1 + int64(g.n(2)))
			at := g.some(attrs{"scale": 0.5, "softmax_precision": choose(g, 1, 11)})
			body := func() onnxGraph {
				return pbBody([][]byte{pbNode(choose(g, "Tanh", "Neg", "Abs", "Sigmoid"), nil, []string{"s"}, []string{"t"})}, map[string]ir.Type{"s": ir.TensorOf(dt, ir.Unranked())}, []string{"s"}, []string{"t"}, nil)
			}
			if g.bit() == 0 {
				at["score_mod"] = body()
			}
			if g.bit() == 0 {
				at["prob_mod"] = body()
			}
			return g.on("ai.onnx.preview.FlexAttention", 1, at, g.of(dt, b, q, sq, hd), g.of(dt, b, kv, sk, hd), g.of(dt, b, kv, sk, vd))
		},
		"RotaryEmbedding": func(g *generator) bool {
			dt, b, h, s := choose(g, ir.F32, ir.F16, ir.BF16, ir.F64), 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(4))
			size := 2 * (1 + int64(g.n(3)))
			rot := size
			at := g.some(attrs{"interleaved": g.bit()})
			if g.one(3) && size > 2 {
				rot = size - 2
				at["rotary_embedding_dim"] = rot
			}
			x := g.of(dt, b, h, s, size)
			if g.bit() == 0 {
				at["num_heads"] = h
				x = g.of(dt, b, s, h*size)
			}
			if g.bit() == 0 {
				n := 2 + s
				return g.on("RotaryEmbedding", 1, at, x, g.fresh(dt, n, rot/2), g.fresh(dt, n, rot/2), g.value(ir.I64s([]int64{b, s}, g.between(int(b*s), 0, n-1))))
			}
			return g.on("RotaryEmbedding", 1, at, x, g.fresh(dt, b, s, rot/2), g.fresh(dt, b, s, rot/2))
		},
		"CausalConvWithState": func(g *generator) bool {
			dt, b, c, n, k := choose(g, ir.F32, ir.F64, ir.F16), 1+int64(g.n(2)), 1+int64(g.n(4)), g.dim(), 1+int64(g.n(4))
			return g.on("CausalConvWithState", -2, g.some(attrs{"activation": choose(g, "none", "silu", "swish")}), g.of(dt, b, c, n), g.of(dt, c, 1, k),
				g.maybe(func() made { return g.fresh(dt, c) }), g.maybe(func() made { return g.fresh(dt, b, c, k-1) }))
		},
		"LinearAttention": func(g *generator) bool {
			dt, b, n := choose(g, ir.F32, ir.F64, ir.F16), 1+int64(g.n(2)), g.dim()
			kv, dk, dv := 1+int64(g.n(2)), 1+int64(g.n(3)), 1+int64(g.n(3))
			q := kv * (1 + int64(g.n(2)))
			rule := choose(g, "linear", "gated", "delta", "gated_delta")
			var decay, beta made
			if rule == "gated" || rule == "gated_delta" {
				decay = g.fresh(dt, b, n, kv*choose(g, 1, dk))
			}
			if rule == "delta" || rule == "gated_delta" {
				beta = g.fresh(dt, b, n, choose(g, 1, kv))
			}
			return g.on("LinearAttention", -2, plus(g.some(attrs{"scale": 0.5}), attrs{"q_num_heads": q, "kv_num_heads": kv, "update_rule": rule}), g.of(dt, b, n, q*dk), g.of(dt, b, n, kv*dk),
				g.of(dt, b, n, kv*dv), g.maybe(func() made { return g.fresh(dt, b, kv, dk, dv) }), decay, beta)
		},
	}
}

// recurrentRecipes are LSTM, GRU and RNN.
func recurrentRecipes() map[string]recipe {
	t := map[string]recipe{}
	for op, gates := range map[string]int64{"LSTM": 4, "GRU": 3, "RNN": 1} {
		t[op] = func(g *generator) bool {
			dt, seq, b, in, h := choose(g, ir.F32, ir.F32, ir.F64, ir.F16), g.dim(), 1+int64(g.n(3)), g.dim(), 1+int64(g.n(4))
			dirs := int64(1)
			at := g.some(attrs{"clip": choose(g, 0.5, 2.0)})
			at["hidden_size"] = h
			if g.bit() == 0 {
				d := choose(g, "forward", "reverse", "bidirectional")
				at["direction"] = d
				if d == "bidirectional" {
					dirs = 2
				}
			}
			if g.one(3) {
				n := map[string]int{"LSTM": 3, "GRU": 2, "RNN": 1}[op] * int(dirs)
				var acts []string
				for range n {
					acts = append(acts, choose(g, "Sigmoid", "Tanh", "Relu", "HardSigmoid", "Elu", "Softsign", "Softplus", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "Affine"))
				}
				at["activations"] = acts
				if g.bit() == 0 {
					at["activation_alpha"], at["activation_beta"] = g.reals(n), g.reals(n)
				}
			}
			switch op {
			case "GRU":
				at["linear_before_reset"] = g.bit()
			case "LSTM":
				at["input_forget"] = g.bit()
			}
			layout := g.n(4) / 3
			swap := func(d ...int64) []int64 { return d }
			if layout == 1 {
				at["layout"] = 1
				swap = func(d ...int64) []int64 { d[0], d[1] = d[1], d[0]; return d }
			}
			state := func() made { return g.maybe(func() made { return g.fresh(dt, swap(dirs, b, h)...) }) }
			ins := []made{g.of(dt, swap(seq, b, in)...), g.of(dt, dirs, gates*h, in), g.of(dt, dirs, gates*h, h), g.maybe(func() made { return g.fresh(dt, dirs, 2*gates*h) }),
				g.maybe(func() made { return g.value(ir.IntData(ir.I32, []int64{b}, g.between(int(b), 0, seq))) }), state()}
			outs := -2
			if op == "LSTM" {
				outs = -3
				ins = append(ins, state(), g.maybe(func() made { return g.fresh(dt, dirs, 3*h) }))
			}
			return g.on(op, outs, at, ins...)
		}
	}
	return t
}
