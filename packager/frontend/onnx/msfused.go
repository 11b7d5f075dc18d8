package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Operators of com.microsoft that ONNX Runtime's optimiser fuses from others, and small ones of its own.

// as runs a handler of ONNX's own domain with the rules of the given opset.
func as(ver int64, fn handler) handler {
	return func(o *op) []*ir.Value {
		o.ver = ver
		return fn(o)
	}
}

func msFusedOps() map[string]handler {
	return map[string]handler{
		"SkipLayerNormalization": skipNorm(false), "SkipSimplifiedLayerNormalization": skipNorm(true), "EmbedLayerNormalization": embedNorm,
		"BiasGelu": wide(func(o *op) []*ir.Value { return one(o.erfGelu(o.emit("Add", nil, o.need(0), o.need(1)))) }),
		"Gelu":     wide(func(o *op) []*ir.Value { return one(o.erfGelu(o.need(0))) }),
		"FastGelu": wide(func(o *op) []*ir.Value {
			x := o.need(0)
			if b := o.in(1); b != nil {
				x = o.emit("Add", nil, x, b)
			}
			return one(o.tanhGelu(x))
		}),
		"QuickGelu": wide(func(o *op) []*ir.Value {
			x := o.need(0)
			return one(o.emit("Mul", nil, x, o.emit("Sigmoid", nil, o.emit("Mul", nil, x, o.like(x, o.attrFloat("alpha", 1.702))))))
		}),
		"BiasAdd": func(o *op) []*ir.Value {
			return one(o.emit("Add", nil, o.emit("Add", nil, o.need(0), o.need(1)), o.need(2)))
		},
		"FusedMatMul": fusedMatMul, "TransposeMatMul": fusedMatMul,
		"FusedGemm": func(o *op) []*ir.Value {
			y := gemm(o)[0]
			act := o.attrStr("activation", "")
			return one(o.activated(y, act, o.params("activation_alpha", "activation_beta")))
		},
		"FusedConv": func(o *op) []*ir.Value {
			x, w := o.need(0), o.need(1)
			a := o.convAttrs(x, w)
			if o.err != nil {
				return nil
			}
			y := o.emit("Conv", a, x, w, o.in(2))
			if z := o.in(3); z != nil {
				y = o.emit("Add", nil, y, z)
			}
			var p []float64
			for _, v := range o.attrFloats("activation_params") {
				p = append(p, float64(v))
			}
			return one(o.activated(y, o.attrStr("activation", ""), p))
		},
		"NhwcMaxPool": func(o *op) []*ir.Value {
			return one(o.lastChannels(o.need(0), func(x *ir.Value) *ir.Value {
				o.ins[0] = x
				if v := maxPool(o); len(v) > 0 {
					return v[0]
				}
				return x
			}))
		},
		"ExpandDims": func(o *op) []*ir.Value {
			return one(o.emit("Unsqueeze", nil, o.need(0), o.listOf(o.need(1))))
		},
		"Range": func(o *op) []*ir.Value {
			start, delta := o.need(0), o.in(2)
			flat := func(v *ir.Value) *ir.Value { return o.emit("Reshape", nil, v, o.ints()) }
			if delta == nil {
				delta = o.like(start, 1)
			}
			return one(o.emit("Range", nil, flat(start), flat(o.need(1)), flat(delta)))
		},
		"Pad": as(13, func(o *op) []*ir.Value {
			if rank(o.need(1)) == 2 {
				o.ins[1] = o.flat(o.i64(o.ins[1]))
			}
			return pad(o)
		}),
		"Trilu": as(14, func(o *op) []*ir.Value {
			return one(o.emit("Trilu", ir.Attrs{"upper": o.attrInt("upper", 1)}, o.need(0), o.i64(o.in(1))))
		}),
		"GatherND": func(o *op) []*ir.Value {
			return one(o.emit("GatherND", ir.Attrs{"batch_dims": 0}, o.need(0), o.i64(o.need(1))))
		},
		"GridSample": as(16, gridSample), "CDist": cdist, "UnfoldTensor": unfoldTensor, "Inverse": wide(inverse), "MurmurHash3": murmurHash3,
		"Unique": func(o *op) []*ir.Value { // in the order of first occurrence
			x := o.flat(o.need(0))
			u := o.emitN("UniqueRows", ir.Attrs{"sorted": 0}, 3, x)
			return []*ir.Value{o.emit("Gather", ir.Attrs{"axis": 0}, x, u[0]), u[1], u[2]}
		},
		"ConvTransposeWithDynamicPads": func(o *op) []*ir.Value {
			pads := o.i64(o.in(2))
			p, ok := o.known(pads)
			if pads != nil && !ok {
				return o.lacks("padding known only at run time")
			}
			attrs := append([]attrProto(nil), o.p.attrs...)
			o.p = &nodeProto{ins: o.p.ins, outs: o.p.outs, name: o.p.name, op: o.p.op, domain: o.p.domain,
				attrs: append(attrs, attrProto{name: "pads", typ: attrInts, ints: p})}
			o.ins = []*ir.Value{o.need(0), o.need(1), o.in(3)}
			return convTranspose(o)
		},
		"SparseToDenseMatMul": func(o *op) []*ir.Value { return o.lacks("sparse tensors") },
		"BeamSearch":          generation, "GreedySearch": generation, "Sampling": generation, "WhisperBeamSearch": generation,
	}
}

// generation refuses whole decoding loops.
func generation(o *op) []*ir.Value {
	o.err = o.unsupported("it runs a decoder until an end token comes", "export the encoder and the decoder step as models of their own, and loop around the step: "+
		"optimum-cli export onnx --model MODEL --task text-generation-with-past OUT")
	return nil
}

// params lists the float attributes that the node has, in the order of the names; absent ones end the list.
func (o *op) params(names ...string) []float64 {
	o.ignore("activation_gamma")
	o.ignore(names...)
	var p []float64
	for _, n := range names {
		if !o.hasAttr(n) {
			break
		}
		p = append(p, o.attrFloat(n, 0))
	}
	return p
}

// activated applies an activation by name; p are its parameters, those missing take the operator's defaults.
func (o *op) activated(x *ir.Value, name string, p []float64) *ir.Value {
	arg := func(i int, def float64) *ir.Value {
		if i < len(p) {
			def = p[i]
		}
		return o.like(x, def)
	}
	val := func(i int, def float64) float64 {
		if i < len(p) {
			return p[i]
		}
		return def
	}
	switch name {
	case "":
		return x
	case "Relu", "Tanh", "Sigmoid":
		return o.emit(name, nil, x)
	case "LeakyRelu":
		return o.negativePart(x, o.emit("Mul", nil, x, arg(0, float64(float32(0.01)))))
	case "Elu":
		return o.negativePart(x, o.expm1(x, val(0, 1)))
	case "HardSigmoid":
		return o.hardSigmoid(x, val(0, float64(float32(0.2))), val(1, 0.5))
	case "Clip":
		return o.emit("Min", nil, o.emit("Max", nil, x, arg(0, -math.MaxFloat32)), arg(1, math.MaxFloat32))
	case "ThresholdedRelu":
		return o.emit("Where", nil, o.emit("Greater", nil, x, arg(0, 1)), x, o.like(x, 0))
	case "Softplus":
		return o.softplus(x)
	case "Softsign":
		return o.emit("Div", nil, x, o.emit("Add", nil, o.like(x, 1), o.emit("Abs", nil, x)))
	case "HardSwish":
		return o.emit("Mul", nil, x, o.hardSigmoid(x, float64(float32(1)/6), 0.5))
	}
	o.lacks("activation %q", name)
	return x
}

// erfGelu and tanhGelu are the two forms of Gelu.
func (o *op) erfGelu(x *ir.Value) *ir.Value {
	root := 0x1.6a09e6p-1
	if x.Type.DType == ir.F64 {
		root = 0x1.6a09e667f3bcdp-1
	}
	t := o.emit("Erf", nil, o.emit("Mul", nil, x, o.like(x, root)))
	return o.emit("Mul", nil, o.emit("Mul", nil, x, o.like(x, 0.5)), o.emit("Add", nil, t, o.like(x, 1)))
}

func (o *op) tanhGelu(x *ir.Value) *ir.Value {
	c, k := 0x1.988454p-1, 0x1.6e4e26p-5
	cube := o.emit("Mul", nil, o.square(x), x)
	t := o.emit("Tanh", nil, o.emit("Mul", nil, o.emit("Add", nil, x, o.emit("Mul", nil, cube, o.like(x, k))), o.like(x, c)))
	return o.emit("Mul", nil, o.emit("Mul", nil, x, o.like(x, 0.5)), o.emit("Add", nil, t, o.like(x, 1)))
}

// normed is LayerNormalization over the last dim, or RMSNormalization when simple; beta may be nil.
func (o *op) normed(x, gamma, beta *ir.Value, epsilon float32, simple bool) (y, mean, inv *ir.Value) {
	last, keep, d := o.ints(-1), ir.Attrs{"keepdims": 1}, x
	if !simple {
		mean = o.emit("ReduceMean", keep, x, last)
		d = o.emit("Sub", nil, x, mean)
	}
	inv = o.inverse(o.emit("ReduceMean", keep, o.square(d), last), epsilon)
	y = o.emit("Mul", nil, o.emit("Mul", nil, d, inv), gamma)
	if beta != nil {
		y = o.emit("Add", nil, y, beta)
	}
	return y, mean, inv
}

// skipNorm normalises input + skip + bias over the last dim; the fourth output is that sum.
func skipNorm(simple bool) handler {
	return wide(func(o *op) []*ir.Value {
		s := o.emit("Add", nil, o.need(0), o.need(1))
		gamma, beta, bias := o.need(2), o.in(3), o.in(4)
		if simple {
			beta, bias = nil, o.in(3)
		}
		if bias != nil {
			s = o.emit("Add", nil, s, bias)
		}
		y, mean, inv := o.normed(s, gamma, beta, 1e-12, simple)
		return []*ir.Value{y, mean, inv, s}
	})
}

// simplifiedNorm is ONNX Runtime's own name for RMSNormalization, in ONNX's domain.
func simplifiedNorm(o *op) []*ir.Value {
	o.ver = 23
	y := rmsNorm(o)
	if o.asked(1) {
		return o.lacks("the second output")
	}
	return y
}

// embedNorm adds word, position and segment embeddings and normalises them. The second output counts the mask's ones.
func embedNorm(o *op) []*ir.Value {
	o.ignore("mask_index_type")
	ids, seg := o.i64(o.need(0)), o.i64(o.in(1))
	if r := o.needRank(ids); o.err == nil && r != 2 {
		return o.fail("input_ids of rank %d", r)
	}
	d := o.need(2).Type.DType
	o.widen()
	look := func(table, at *ir.Value) *ir.Value { return o.emit("Gather", ir.Attrs{"axis": 0}, table, at) }
	var pos *ir.Value
	if p := o.i64(o.in(8)); p != nil {
		pos = look(o.need(3), p)
	} else {
		pos = o.cut(o.need(3), 0, o.ints(0), o.size(ids, 1), 1)
	}
	s := o.emit("Add", nil, look(o.need(2), ids), pos)
	if seg != nil {
		s = o.emit("Add", nil, s, look(o.need(4), seg))
	}
	y, _, _ := o.normed(s, o.need(5), o.need(6), 1e-12, false)
	var index *ir.Value
	if o.asked(1) {
		if m := o.in(7); m != nil {
			index = o.emit("ReduceSum", ir.Attrs{"keepdims": 0}, o.cast(m, ir.I32), o.ints(1))
		} else {
			index = o.zeros(ir.I32, o.size(ids, 0))
		}
	}
	return []*ir.Value{o.cast(y, d), index, o.statistic(2, s, d)}
}

// fusedMatMul multiplies alpha * A * B. transBatch moves the first dim behind the other batch dims, trans swaps the last two.
func fusedMatMul(o *op) []*ir.Value {
	side := func(i int, which string) *ir.Value {
		v, batch, swap := o.need(i), o.attrInt("transBatch"+which, 0) != 0, o.attrInt("trans"+which, 0) != 0
		if !batch && !swap {
			return v
		}
		r := o.needRank(v)
		if o.err != nil || r < 2 {
			return v
		}
		perm := from(0, r)
		if batch {
			perm = append(append(from(1, r-1), 0), int64(r-1))
		}
		if swap {
			perm[r-1], perm[r-2] = perm[r-2], perm[r-1]
		}
		return o.permuted(v, perm)
	}
	a, b := side(0, "A"), side(1, "B")
	y := o.emit("MatMul", nil, a, b)
	if alpha := o.attrFloat("alpha", 1); alpha != 1 {
		y = o.emit("Mul", nil, y, o.like(y, alpha))
	}
	return one(y)
}

// lastChannels runs f on x with dim 1 as channels where the model has them last.
func (o *op) lastChannels(x *ir.Value, f func(x *ir.Value) *ir.Value) *ir.Value {
	r := o.needRank(x)
	if o.err != nil {
		return x
	}
	if r < 2 {
		o.fail("input of rank %d", r)
		return x
	}
	there := append([]int64{0, int64(r - 1)}, from(1, r-1)...)
	back := append(append([]int64{0}, from(2, r)...), 1)
	y := f(o.permuted(x, there))
	if o.err != nil {
		return x
	}
	return o.permuted(y, back)
}

// cdist gives the distances of the rows of A and B; metric euclidean or sqeuclidean.
func cdist(o *op) []*ir.Value {
	a, b := o.emit("Unsqueeze", nil, o.need(0), o.ints(1)), o.emit("Unsqueeze", nil, o.need(1), o.ints(0))
	s := o.emit("ReduceSum", ir.Attrs{"keepdims": 0}, o.square(o.emit("Sub", nil, a, b)), o.ints(2))
	switch m := o.attrStr("metric", "sqeuclidean"); m {
	case "sqeuclidean":
	case "euclidean":
		s = o.emit("Sqrt", nil, s)
	default:
		return o.lacks("metric %q", m)
	}
	return one(s)
}

// unfoldTensor takes windows of `size` elements every `step` along a dim; they become a new last dim.
func unfoldTensor(o *op) []*ir.Value {
	x, size, step := o.need(0), o.attrInt("size", 0), o.attrInt("step", 1)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	k, err := ir.Axis(o.attrInt("dim", -1), r)
	if err != nil || size < 1 || step < 1 {
		return o.fail("dim %d, size %d, step %d for rank %d", o.attrInt("dim", -1), size, step, r)
	}
	count := o.calc("Add", o.calc("Div", o.calc("Sub", o.size(x, k), o.ints(size)), o.ints(step)), o.ints(1))
	at := o.emit("Add", nil, o.emit("Mul", nil, o.trail(o.upTo(count, 0), 1), o.ints(step)), o.ints(from(0, int(min(size, 1<<20)))...))
	y := o.emit("Gather", ir.Attrs{"axis": k}, x, at)
	perm := append(append(from(0, k+1), from(k+2, r+1)...), int64(k+1))
	return one(o.permuted(y, perm))
}

// inverse inverts the matrices X [...,n,n] by elimination with partial pivoting, one column at a turn. A singular one gives
// infinities or NaN.
func inverse(o *op) []*ir.Value {
	x := o.need(0)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	if r < 2 {
		return o.fail("input of rank %d", r)
	}
	n := o.size(x, r-1)
	d := x.Type.DType
	idx := o.upTo(n, 0)
	eye := o.cast(o.emit("Equal", nil, o.trail(idx, 1), idx), d)
	m := o.reshape(x, o.ints(-1), n, n)
	both := o.emit("Concat", ir.Attrs{"axis": 2}, m, o.emit("Expand", nil, eye, o.emit("Shape", nil, m)))
	turns := o.emit("Squeeze", nil, n, o.ints(0))
	out := o.repeatN(turns, []*ir.Value{both}, func(in *op, i *ir.Value, v []*ir.Value) (*ir.Value, []*ir.Value) {
		f := func(name string, a, b *ir.Value) *ir.Value { return in.emit(name, nil, a, b) }
		a := v[0]
		at := in.emit("Unsqueeze", nil, i, in.ints(0))
		column := in.emit("Gather", ir.Attrs{"axis": 2}, a, at) // [batch, n, 1]
		size := in.emit("Where", nil, in.emit("Unsqueeze", nil, f("GreaterOrEqual", idx, i), in.ints(1)), in.emit("Abs", nil, column), in.scalar(d, -1))
		best := in.emit("ArgMax", ir.Attrs{"axis": 1, "keepdims": 1, "select_last_index": 0}, size) // [batch, 1, 1]
		rows := in.emit("Expand", nil, best, in.emit("Shape", nil, in.cut(a, 1, in.ints(0), in.ints(1), 1)))
		pivot := in.emit("GatherElements", ir.Attrs{"axis": 1}, a, rows)
		old := in.emit("Gather", ir.Attrs{"axis": 1}, a, at)
		row := in.emit("Unsqueeze", nil, idx, in.ints(1))
		isBest, isI := f("Equal", row, best), f("Equal", row, i)
		a = in.emit("Where", nil, isBest, old, a)
		pivot = f("Div", pivot, in.emit("Gather", ir.Attrs{"axis": 2}, pivot, at))
		a = in.emit("Where", nil, isI, pivot, a)
		column = in.emit("Gather", ir.Attrs{"axis": 2}, a, at)
		return nil, []*ir.Value{in.emit("Where", nil, isI, a, f("Sub", a, f("Mul", column, pivot)))}
	})
	y := o.cut(out[0], 2, n, o.ints(math.MaxInt64), 1)
	return one(o.emit("Reshape", ir.Attrs{"allowzero": 1}, y, o.emit("Shape", nil, x)))
}

// murmurHash3 hashes each number of X: 32 bits as one block, 64 bits as two, the low half first.
func murmurHash3(o *op) []*ir.Value {
	x := o.need(0)
	if o.err != nil {
		return nil
	}
	u := func(v uint32) *ir.Value { return o.konst(ir.IntData(ir.U32, []int64{}, []int64{int64(v)})) }
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	shift := func(v *ir.Value, by uint32, dir string) *ir.Value {
		return o.emit("BitShift", ir.Attrs{"direction": dir}, v, o.konst(ir.IntData(v.Type.DType, []int64{}, []int64{int64(by)})))
	}
	rotate := func(v *ir.Value, by uint32) *ir.Value {
		return f("BitwiseOr", shift(v, by, "LEFT"), shift(v, 32-by, "RIGHT"))
	}
	var blocks []*ir.Value
	switch d := x.Type.DType; d {
	case ir.I32, ir.U32, ir.F32:
		blocks = []*ir.Value{o.emit("BitCast", ir.Attrs{"to": ir.U32}, x)}
	case ir.I64, ir.U64, ir.F64:
		w := o.emit("BitCast", ir.Attrs{"to": ir.U64}, x)
		blocks = []*ir.Value{o.cast(w, ir.U32), o.cast(shift(w, 32, "RIGHT"), ir.U32)}
	default:
		return o.lacks("elements of %s", d)
	}
	h := u(uint32(o.attrInt("seed", 0)))
	for _, b := range blocks {
		k := f("Mul", rotate(f("Mul", b, u(0xcc9e2d51)), 15), u(0x1b873593))
		h = f("Add", f("Mul", rotate(f("BitwiseXor", h, k), 13), u(5)), u(0xe6546b64))
	}
	h = f("BitwiseXor", h, u(uint32(4*len(blocks))))
	for _, s := range []struct{ by, mul uint32 }{{16, 0x85ebca6b}, {13, 0xc2b2ae35}} {
		h = f("Mul", f("BitwiseXor", h, shift(h, s.by, "RIGHT")), u(s.mul))
	}
	h = f("BitwiseXor", h, shift(h, 16, "RIGHT"))
	if o.attrInt("positive", 1) == 0 {
		h = o.emit("BitCast", ir.Attrs{"to": ir.I32}, h)
	}
	return one(h)
}
