package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// More quantised operators of com.microsoft.

func msQuantMoreOps() map[string]handler {
	// around dequantises X (inputs 0 to 2), applies f in f32 and quantises with inputs 3 and 4.
	around := func(f func(o *op, x *ir.Value) *ir.Value) handler {
		return func(o *op) []*ir.Value {
			d := o.need(0).Type.DType
			x := o.dequant(o.need(0), o.perTensor(o.need(1)), o.perTensor(o.in(2)), ir.F32)
			if o.err != nil {
				return nil
			}
			y := f(o, x)
			if o.err != nil {
				return nil
			}
			return one(o.quant(y, o.perTensor(o.need(3)), o.perTensor(o.in(4)), d, ir.F32, true))
		}
	}
	return map[string]handler{
		"QGemm": qGemm, "MatMulNBits": matMulNBits, "GatherBlockQuantized": gatherBlockQuantized, "DynamicQuantizeLSTM": quantizedLSTM,
		"QEmbedLayerNormalization": qEmbedNorm,
		"QLinearSoftmax": around(func(o *op, x *ir.Value) *ir.Value {
			o.ver = o.attrInt("opset", 13)
			o.ins[0] = x
			return softmax(o)[0]
		}),
		"QLinearAveragePool": around(func(o *op, x *ir.Value) *ir.Value {
			pool := func(x *ir.Value) *ir.Value {
				o.ins[0] = x
				if y := averagePool(o); len(y) > 0 {
					return y[0]
				}
				return x
			}
			if o.attrInt("channels_last", 0) != 0 {
				return o.lastChannels(x, pool)
			}
			return pool(x)
		}),
		"QLinearReduceMean": around(func(o *op, x *ir.Value) *ir.Value {
			var axes *ir.Value
			if o.hasAttr("axes") {
				axes = o.ints(o.attrInts("axes")...)
			}
			return o.emit("ReduceMean", ir.Attrs{"keepdims": o.attrInt("keepdims", 1)}, x, axes)
		}),
		"QLinearConv": func(o *op) []*ir.Value {
			plain := quantOps()["QLinearConv"]
			if o.attrInt("channels_last", 0) == 0 {
				return plain(o)
			}
			return one(o.lastChannels(o.need(0), func(x *ir.Value) *ir.Value {
				o.ins[0] = x
				if y := plain(o); len(y) > 0 {
					return y[0]
				}
				return x
			}))
		},
		"QLinearWhere": func(o *op) []*ir.Value {
			x := o.dequant(o.need(1), o.perTensor(o.need(2)), o.perTensor(o.in(3)), ir.F32)
			y := o.dequant(o.need(4), o.perTensor(o.need(5)), o.perTensor(o.in(6)), ir.F32)
			z := o.emit("Where", nil, o.need(0), x, y)
			return one(o.quant(z, o.perTensor(o.need(7)), o.perTensor(o.in(8)), o.need(1).Type.DType, ir.F32, true))
		},
		"MatMulInteger16": func(o *op) []*ir.Value { return one(o.matMulInteger(o.need(0), o.need(1), nil, nil)) },
		"MulInteger": func(o *op) []*ir.Value {
			side := func(i, zp int) *ir.Value {
				v := o.cast(o.need(i), ir.I32)
				if z := o.in(zp); z != nil {
					v = o.emit("Sub", nil, v, o.cast(o.perTensor(z), ir.I32))
				}
				return v
			}
			return one(o.emit("Mul", nil, side(0, 1), side(2, 3)))
		},
		"ReduceSumInteger": func(o *op) []*ir.Value {
			x := o.need(0)
			d := ir.I32
			if !x.Type.DType.IsSigned() {
				d = ir.U32
			}
			return one(o.emit("ReduceSum", ir.Attrs{"keepdims": o.attrInt("keepdims", 1)}, o.cast(x, d), o.ints(o.attrInts("axes")...)))
		},
	}
}

// qGemm is alpha * (A*B + C) with 8-bit A and B and i32 C: in f32, or quantised again where y_scale is given.
func qGemm(o *op) []*ir.Value {
	a, b := o.need(0), o.need(3)
	swap := func(v *ir.Value, on int64) *ir.Value {
		if on == 0 {
			return v
		}
		return o.emit("Transpose", ir.Attrs{"perm": []int64{1, 0}}, v)
	}
	acc := o.matMulInteger(swap(a, o.attrInt("transA", 0)), swap(b, o.attrInt("transB", 0)), o.perTensor(o.in(2)), o.in(5))
	if c := o.in(6); c != nil {
		acc = o.emit("Add", nil, acc, o.cast(c, ir.I32))
	}
	scale := o.emit("Mul", nil, o.perTensor(o.need(1)), o.perTensor(o.need(4)))
	if alpha := o.attrFloat("alpha", 1); alpha != 1 {
		scale = o.emit("Mul", nil, scale, o.like(scale, alpha))
	}
	y := o.cast(acc, ir.F32)
	if o.in(7) == nil {
		return one(o.emit("Mul", nil, y, scale))
	}
	d := a.Type.DType
	zp := o.perTensor(o.in(8))
	if zp != nil {
		d = zp.Type.DType
	}
	m := o.emit("Div", nil, scale, o.perTensor(o.need(7)))
	return one(o.toQuantised(o.emit("Mul", nil, y, m), zp, d))
}

// unpacked spreads packed integers of 2, 4 or 8 bits, the low ones first, into bytes; each row of the last dim keeps its first
// `keep` entries.
func unpacked(b []byte, row, bits, keep int) []byte {
	per := 8 / bits
	out := make([]byte, 0, len(b)/max(row, 1)*keep)
	for at := 0; at+row <= len(b) && row > 0; at += row {
		for i := 0; i < keep; i++ {
			out = append(out, b[at+i/per]>>(i%per*bits)&(1<<bits-1))
		}
	}
	return out
}

// matMulNBits multiplies by a constant matrix [N, blocks, bytes] of 2, 4 or 8-bit integers with a scale, and a zero point, per
// block of K. The matrix is dequantised: (q - zero point) * scale.
func matMulNBits(o *op) []*ir.Value {
	o.ignore("accuracy_level") // a permission to compute less exactly
	n, k, bits, block := o.attrInt("N", 0), o.attrInt("K", 0), o.attrInt("bits", 4), o.attrInt("block_size", 0)
	if bits != 2 && bits != 4 && bits != 8 {
		return o.lacks("%d bits", bits)
	}
	if n < 1 || k < 1 || block < 16 || block > 1<<16 || n > 1<<31 || k > 1<<31 {
		return o.fail("N %d, K %d, block_size %d", n, k, block)
	}
	if g := o.in(4); g != nil {
		return o.lacks("g_idx")
	}
	d := o.need(0).Type.DType
	o.widen()
	a, b, scales, zp := o.need(0), o.need(1), o.need(2), o.in(3)
	blocks := (k + block - 1) / block
	row := blocks * block * bits / 8
	if b.Const == nil || b.Const.DType != ir.U8 {
		return o.lacks("weights that are not constant bytes")
	}
	if int64(len(b.Const.Bytes)) != n*row {
		return o.fail("%d bytes of weights for N %d, K %d", len(b.Const.Bytes), n, k)
	}
	w := &ir.Data{DType: ir.U8, Dims: []int64{n, blocks, block}, Bytes: unpacked(b.Const.Bytes, int(row), int(bits), int(blocks*block))}
	each := func(v *ir.Value) *ir.Value { return o.emit("Reshape", nil, v, o.ints(n, blocks, 1)) }
	var zero *ir.Value
	switch {
	case zp == nil:
		zero = o.scalar(ir.F32, float64(int64(1)<<(bits-1)))
	case zp.Type.DType == ir.U8:
		bytes := (blocks*bits + 7) / 8
		if zp.Const == nil || int64(len(zp.Const.Bytes)) != n*bytes {
			return o.lacks("zero points that are not constant, or not %d bytes", n*bytes)
		}
		z := unpacked(zp.Const.Bytes, int(bytes), int(bits), int(blocks))
		zero = each(o.cast(o.konst(&ir.Data{DType: ir.U8, Dims: []int64{n * blocks}, Bytes: z}), ir.F32))
	default:
		zero = each(o.cast(zp, ir.F32))
	}
	m := o.emit("Mul", nil, o.emit("Sub", nil, o.cast(o.konst(w), ir.F32), zero), each(scales))
	m = o.emit("Reshape", nil, m, o.ints(n, blocks*block))
	if blocks*block != k {
		m = o.cut(m, 1, o.ints(0), o.ints(k), 1)
	}
	y := o.emit("MatMul", nil, a, o.emit("Transpose", ir.Attrs{"perm": []int64{1, 0}}, m))
	if bias := o.in(5); bias != nil {
		y = o.emit("Add", nil, y, bias)
	}
	return one(o.cast(y, d))
}

// gatherBlockQuantized gathers rows of a table of 4 or 8-bit integers and dequantises them block by block.
func gatherBlockQuantized(o *op) []*ir.Value {
	data, idx, scales, zp := o.need(0), o.i64(o.need(1)), o.need(2), o.in(3)
	r := o.needRank(data)
	if o.err != nil {
		return nil
	}
	axis, err := ir.Axis(o.attrInt("gather_axis", 0), r)
	q, err2 := ir.Axis(o.attrInt("quantize_axis", 1), r)
	if err != nil || err2 != nil || axis == q {
		return o.fail("gather_axis %d, quantize_axis %d for rank %d", axis, q, r)
	}
	bits, block := o.attrInt("bits", 4), o.attrInt("block_size", 128)
	if block < 16 || block > 1<<16 {
		return o.fail("block_size %d", block)
	}
	unpack := func(v *ir.Value) *ir.Value {
		if v == nil || v.Type.DType != ir.U8 || bits == 8 {
			return v
		}
		if v.Const == nil || bits != 4 || q != r-1 {
			o.lacks("packed data of %d bits that is not constant, or quantised along another axis than the last", bits)
			return v
		}
		row := v.Const.Dims[r-1]
		dims := append(append([]int64{}, v.Const.Dims[:r-1]...), 2*row)
		return o.konst(&ir.Data{DType: ir.U8, Dims: dims, Bytes: unpacked(v.Const.Bytes, int(row), 4, int(2*row))})
	}
	packed := data.Type.DType == ir.U8
	data = unpack(data)
	take := func(v *ir.Value) *ir.Value { return o.emit("Gather", ir.Attrs{"axis": axis}, v, idx) }
	if o.err != nil {
		return nil
	}
	x, s := take(o.cast(data, ir.I32)), take(scales)
	var z *ir.Value
	if zp != nil {
		zp = unpack(zp)
		// A packed row of an odd number of blocks has an entry too many.
		if n := scales.Type.Shape; packed && n.Ranked && n.Dims[q].IsStatic() {
			zp = o.cut(zp, q, o.ints(0), o.ints(n.Dims[q].N), 1)
		}
		z = take(o.cast(zp, ir.I32))
	} else if packed {
		z = o.scalar(ir.I32, float64(int64(1)<<(bits-1)))
	}
	at := q
	if q > axis {
		at = q + rank(idx) - 1
	}
	sb := o.aligned(x, o.cast(s, ir.F32), int64(at), block)
	if z != nil {
		if rank(z) > 0 {
			z = o.aligned(x, z, int64(at), block)
		}
		x = o.emit("Sub", nil, x, z)
	}
	return one(o.cast(o.emit("Mul", nil, o.cast(x, ir.F32), sb), scales.Type.DType))
}

// qEmbedNorm is EmbedLayerNormalization of quantised tables.
func qEmbedNorm(o *op) []*ir.Value {
	plain := []*ir.Value{o.need(0), o.in(1)}
	for i := 2; i < 7; i++ {
		v := o.in(i)
		if v != nil {
			v = o.dequant(v, o.perTensor(o.need(i+6)), o.perTensor(o.in(i+11)), ir.F32)
		}
		plain = append(plain, v)
	}
	o.ins = append(plain, o.in(7))
	return embedNorm(o)
}

// quantizedLSTM is an LSTM with 8-bit weights W [dirs, in, 4*hidden] and R [dirs, hidden, 4*hidden]. The whole input, and the
// hidden state at each step, are quantised as DynamicQuantizeLinear does.
func quantizedLSTM(o *op) []*ir.Value {
	x := o.need(0)
	dir := o.attrStr("direction", "forward")
	h := o.attrInt("hidden_size", 0)
	dirs := 1
	if dir == "bidirectional" {
		dirs = 2
	}
	for i, a := range o.attrStrs("activations") {
		if want := []string{"Sigmoid", "Tanh", "Tanh"}[i%3]; canonicalActivation(a) != want {
			return o.lacks("activation %q", a)
		}
	}
	o.ignore("activation_alpha", "activation_beta")
	if o.in(4) != nil || o.in(7) != nil || o.attrFloat("clip", 0) != 0 || o.attrInt("input_forget", 0) != 0 {
		return o.lacks("sequence_lens, peepholes, clip or input_forget")
	}
	if r := o.needRank(x); o.err == nil && (r != 3 || h < 1) {
		return o.fail("input of rank %d with hidden_size %d", r, h)
	}
	if o.err != nil {
		return nil
	}
	// side gives entry d of a tensor that has one per direction.
	side := func(v *ir.Value, d int) *ir.Value {
		if v == nil {
			return nil
		}
		return o.emit("Squeeze", nil, o.cut(v, 0, o.ints(int64(d)), o.ints(int64(d)+1), 1), o.ints(0))
	}
	// times is x*w with x quantised on the fly.
	times := func(in *op, x, w, scale, zp *ir.Value) *ir.Value {
		q := in.dynamicQuantized(x)
		if in.err != nil {
			return x
		}
		acc := in.cast(in.matMulInteger(q[0], w, q[2], zp), ir.F32)
		return in.emit("Mul", nil, acc, in.emit("Mul", nil, q[1], scale))
	}
	start := func(i, d int) *ir.Value {
		if v := o.in(i); v != nil {
			return side(v, d)
		}
		return o.zeros(ir.F32, o.shape(o.size(x, 1), o.ints(h)))
	}
	var ys, hs, cs []*ir.Value
	for d := 0; d < dirs; d++ {
		w, r := side(o.need(1), d), side(o.need(2), d)
		ws, wz := side(o.need(8), d), side(o.in(9), d)
		rs, rz := side(o.need(10), d), side(o.in(11), d)
		xw := times(o, x, w, ws, wz)
		var bias *ir.Value
		if b := side(o.in(3), d); b != nil {
			p := o.halves(b, 4*h, 4*h)
			bias = o.emit("Add", nil, p[0], p[1])
		}
		h0, c0 := start(5, d), start(6, d)
		if o.err != nil {
			return nil
		}
		if o.needRank(xw); o.err != nil {
			return nil
		}
		// The differences of the recurrent weights are the same at every step.
		r = o.cast(r, ir.I32)
		if rz != nil {
			r = o.emit("Sub", nil, r, o.cast(o.perTensor(rz), ir.I32))
		}
		step := ir.TensorOf(ir.F32, ir.ShapeOf(xw.Type.Shape.Dims[1:]...))
		body := o.body([]ir.Type{h0.Type, c0.Type, step}, func(in *op, p []*ir.Value) []*ir.Value {
			g := in.emit("Add", nil, p[2], times(in, p[0], r, rs, nil))
			if bias != nil {
				g = in.emit("Add", nil, g, bias)
			}
			parts := in.halves(g, h, h, h, h) // i o f c
			act := func(name string, v *ir.Value) *ir.Value { return in.emit(name, nil, v) }
			i, out, f, cell := act("Sigmoid", parts[0]), act("Sigmoid", parts[1]), act("Sigmoid", parts[2]), act("Tanh", parts[3])
			c := in.emit("Add", nil, in.emit("Mul", nil, f, p[1]), in.emit("Mul", nil, i, cell))
			hn := in.emit("Mul", nil, out, act("Tanh", c))
			return []*ir.Value{hn, c, in.emit("Identity", nil, hn)}
		})
		if o.err != nil {
			return nil
		}
		o.bodyCaptures(body)
		back := int64(0)
		if dir == "reverse" || d == 1 {
			back = 1
		}
		z, b := []int64{0}, []int64{back}
		out := o.emitRegions("Scan", ir.Attrs{"num_scan_inputs": 1, "scan_input_axes": z, "scan_input_directions": b, "scan_output_axes": z,
			"scan_output_directions": b}, 3, []*ir.Region{body}, h0, c0, xw)
		first := o.ints(0)
		hs, cs = append(hs, o.emit("Unsqueeze", nil, out[0], first)), append(cs, o.emit("Unsqueeze", nil, out[1], first))
		ys = append(ys, o.emit("Unsqueeze", nil, out[2], o.ints(1)))
	}
	joined := func(v []*ir.Value, axis int) *ir.Value {
		if len(v) == 1 {
			return v[0]
		}
		return o.emit("Concat", ir.Attrs{"axis": axis}, v...)
	}
	return []*ir.Value{joined(ys, 1), joined(hs, 0), joined(cs, 0)}
}
