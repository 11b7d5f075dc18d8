package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// Quantised operators are written out in the operators that docs/numerics.md names in their rows.

func quantOps() map[string]handler {
	return map[string]handler{
		"QuantizeLinear":        quantizeLinear,
		"DequantizeLinear":      dequantizeLinear,
		"DynamicQuantizeLinear": dynamicQuantize,
		"MatMulInteger": func(o *op) []*ir.Value {
			return one(o.matMulInteger(o.need(0), o.need(1), o.in(2), o.in(3)))
		},
		"ConvInteger": func(o *op) []*ir.Value {
			return one(o.convInteger(o.need(0), o.need(1), o.in(2), o.in(3), nil))
		},
		"QLinearMatMul": func(o *op) []*ir.Value {
			a, b := o.need(0), o.need(3)
			acc := o.matMulInteger(a, b, o.in(2), o.in(5))
			sa := o.perRow(a, o.cast(o.need(1), ir.F32))
			return one(o.requantize(acc, sa, o.perTensor(o.cast(o.need(4), ir.F32)), o.need(6), o.in(7), a))
		},
		"QLinearConv": func(o *op) []*ir.Value {
			x, w := o.need(0), o.need(3)
			acc := o.convInteger(x, w, o.in(2), o.in(5), o.in(8))
			sw := o.perChannel(w, o.cast(o.need(4), ir.F32), rank(w)-2) // the channel is dim 1 of the output
			return one(o.requantize(acc, o.perTensor(o.cast(o.need(1), ir.F32)), sw, o.need(6), o.in(7), x))
		},
	}
}

func msQuantOps() map[string]handler {
	// binary takes A, A_scale, A_zero_point, B, B_scale, B_zero_point, C_scale, C_zero_point.
	binary := func(name string) handler {
		return func(o *op) []*ir.Value {
			a := o.dequant(o.need(0), o.perTensor(o.need(1)), o.perTensor(o.in(2)), ir.F32)
			b := o.dequant(o.need(3), o.perTensor(o.need(4)), o.perTensor(o.in(5)), ir.F32)
			return one(o.quant(o.emit(name, nil, a, b), o.perTensor(o.need(6)), o.perTensor(o.in(7)), o.need(0).Type.DType, ir.F32, true))
		}
	}
	// unary takes X, X_scale, X_zero_point, Y_scale, Y_zero_point.
	unary := func(f func(o *op, x *ir.Value) *ir.Value) handler {
		return func(o *op) []*ir.Value {
			x := o.dequant(o.need(0), o.perTensor(o.need(1)), o.perTensor(o.in(2)), ir.F32)
			return one(o.quant(f(o, x), o.perTensor(o.need(3)), o.perTensor(o.in(4)), o.need(0).Type.DType, ir.F32, true))
		}
	}
	return map[string]handler{
		"QuantizeLinear":   quantizeLinear,
		"DequantizeLinear": dequantizeLinear,
		"QLinearAdd":       binary("Add"),
		"QLinearMul": func(o *op) []*ir.Value {
			a, b := o.need(0), o.need(3)
			acc := o.emit("Mul", nil, o.difference(a, o.perTensor(o.in(2))), o.difference(b, o.perTensor(o.in(5))))
			sa, sb := o.perTensor(o.need(1)), o.perTensor(o.need(4))
			return one(o.requantize(acc, sa, sb, o.need(6), o.in(7), a))
		},
		"QLinearSigmoid": unary(func(o *op, x *ir.Value) *ir.Value { return o.emit("Sigmoid", nil, x) }),
		"QLinearLeakyRelu": unary(func(o *op, x *ir.Value) *ir.Value {
			return o.negativePart(x, o.emit("Mul", nil, x, o.like(x, o.attrFloat("alpha", 0.01))))
		}),
		"QLinearGlobalAveragePool": unary(func(o *op, x *ir.Value) *ir.Value {
			r := o.needRank(x)
			axes := from(2, r)
			if o.attrInt("channels_last", 0) != 0 {
				axes = from(1, r-1)
			}
			return o.emit("ReduceMean", ir.Attrs{"keepdims": 1}, x, o.ints(axes...))
		}),
		// Y_scale, Y_zero_point, then X, X_scale, X_zero_point of each part.
		"QLinearConcat": func(o *op) []*ir.Value {
			if len(o.ins) < 5 || len(o.ins)%3 != 2 {
				return o.fail("%d inputs", len(o.ins))
			}
			var parts []*ir.Value
			for i := 2; i < len(o.ins); i += 3 {
				parts = append(parts, o.dequant(o.need(i), o.perTensor(o.need(i+1)), o.perTensor(o.need(i+2)), ir.F32))
			}
			y := o.emit("Concat", ir.Attrs{"axis": o.attrInt("axis", 1)}, parts...)
			return one(o.quant(y, o.perTensor(o.need(0)), o.perTensor(o.need(1)), o.need(2).Type.DType, ir.F32, true))
		},
		"DynamicQuantizeMatMul": func(o *op) []*ir.Value {
			q := o.dynamicQuantized(o.need(0))
			if o.err != nil {
				return nil
			}
			acc := o.cast(o.matMulInteger(q[0], o.need(1), q[2], o.in(3)), ir.F32)
			y := o.emit("Mul", nil, acc, o.emit("Mul", nil, q[1], o.perTensor(o.need(2))))
			if bias := o.in(4); bias != nil {
				y = o.emit("Add", nil, y, bias)
			}
			return one(y)
		},
		"MatMulIntegerToFloat": func(o *op) []*ir.Value {
			a, b := o.need(0), o.need(1)
			acc := o.cast(o.matMulInteger(a, b, o.in(4), o.in(5)), ir.F32)
			y := o.emit("Mul", nil, acc, o.emit("Mul", nil, o.perRow(a, o.need(2)), o.perTensor(o.need(3))))
			if bias := o.in(6); bias != nil {
				y = o.emit("Add", nil, y, bias)
			}
			return one(y)
		},
	}
}

// perTensor makes a scalar of a vector of one element; others stay (beside a matrix, a vector stands for its columns).
func (o *op) perTensor(v *ir.Value) *ir.Value {
	if v == nil || rank(v) != 1 || !v.Type.Shape.Dims[0].IsStatic() || v.Type.Shape.Dims[0].N != 1 {
		return v
	}
	return o.emit("Reshape", nil, v, o.ints())
}

// perRow turns a vector of one element per row of a into a column.
func (o *op) perRow(a, v *ir.Value) *ir.Value {
	if v = o.perTensor(v); v == nil || rank(v) != 1 {
		return v
	}
	if rank(a) == 1 {
		o.fail("a vector of scales or zero points for an operand of rank 1")
	}
	return o.emit("Unsqueeze", nil, v, o.ints(1))
}

// perChannel puts the vector v (one element per index of an axis that `after` dims follow) in place for broadcasting.
func (o *op) perChannel(x, v *ir.Value, after int) *ir.Value {
	if v = o.perTensor(v); v == nil || rank(v) == 0 {
		return v
	}
	if rank(v) != 1 || rank(x) < 0 {
		o.lacks("scales or zero points of rank %d for an operand of rank %d", rank(v), rank(x))
		return v
	}
	if after <= 0 {
		return v
	}
	axes := make([]int64, after)
	for i := range axes {
		axes[i] = int64(i + 1)
	}
	return o.emit("Unsqueeze", nil, v, o.ints(axes...))
}

// maxBlocked bounds the table from elements to blocks that is made while importing.
const maxBlocked = 1 << 24

// aligned broadcasts scales or zero points v to x: one for all, one per index of axis, or one per block of that axis.
func (o *op) aligned(x, v *ir.Value, axis, block int64) *ir.Value {
	if v == nil {
		return nil
	}
	if block <= 0 {
		if v = o.perTensor(v); rank(v) == 0 {
			return v
		}
	}
	r := o.needRank(x)
	if rank(v) < 0 {
		o.lacks("scales whose rank is known only at run time")
	}
	if o.err != nil {
		return v
	}
	ax, err := ir.Axis(axis, r)
	if err != nil {
		o.fail("%w", err)
		return v
	}
	if block <= 0 {
		return o.perChannel(x, v, r-ax-1)
	}
	if rank(v) != r {
		o.fail("blocked scales of rank %d for an input of rank %d", rank(v), r)
		return v
	}
	// Element i of the axis belongs to block i / block.
	var idx *ir.Value
	if d := x.Type.Shape.Dims[ax]; d.IsStatic() && d.N > maxBlocked {
		o.lacks("blocks along an axis of %d elements", d.N)
		return v
	} else if d.IsStatic() {
		list := make([]int64, d.N)
		for i := range list {
			list[i] = int64(i) / block
		}
		idx = o.ints(list...)
	} else {
		n := o.emit("Reshape", nil, o.emit("Shape", ir.Attrs{"start": int64(ax), "end": int64(ax) + 1}, x), o.ints())
		zero, step := o.scalar(ir.I64, 0), o.scalar(ir.I64, 1)
		idx = o.emit("Div", nil, o.emit("Range", nil, zero, n, step), o.scalar(ir.I64, float64(block)))
	}
	return o.emit("Gather", ir.Attrs{"axis": int64(ax)}, v, idx)
}

// difference is x - zp in i32.
func (o *op) difference(x, zp *ir.Value) *ir.Value {
	d := o.cast(x, ir.I32)
	if zp == nil {
		return d
	}
	return o.emit("Sub", nil, d, o.cast(zp, ir.I32))
}

// dequant is (x - zp) * scale in f32, the difference in i32 for integers; scale and zp broadcast to x.
func (o *op) dequant(x, scale, zp *ir.Value, to ir.DType) *ir.Value {
	d := x
	if x.Type.DType.IsInt() {
		d = o.difference(x, zp)
	}
	y := o.emit("Mul", nil, o.cast(d, ir.F32), o.cast(scale, ir.F32))
	return o.cast(y, to)
}

// toQuantised rounds a float to an integer type: nearest even, plus the zero point, saturated; NaN gives the lowest value.
func (o *op) toQuantised(y, zp *ir.Value, d ir.DType) *ir.Value {
	if !d.IsInt() || d.Bits() > 16 {
		o.lacks("quantisation to %s", d)
		return y
	}
	lo, hi := int64(0), int64(1)<<d.Bits()-1
	if d.IsSigned() {
		lo, hi = -1<<(d.Bits()-1), 1<<(d.Bits()-1)-1
	}
	// Bounds of fewer than 2^17 are exact in f32, and so is the cast of a narrower float.
	if y.Type.DType != ir.F64 {
		y = o.cast(y, ir.F32)
	}
	low, high := o.like(y, float64(lo)), o.like(y, float64(hi))
	if zp != nil {
		z := o.cast(zp, y.Type.DType)
		low, high = o.emit("Sub", nil, low, z), o.emit("Sub", nil, high, z)
	}
	// What is not above the low bound becomes it, so NaN does.
	y = o.emit("Where", nil, o.emit("Less", nil, low, y), y, low)
	v := o.cast(o.emit("Round", nil, o.emit("Min", nil, y, high)), ir.I32)
	if zp != nil {
		v = o.emit("Add", nil, v, o.cast(zp, ir.I32))
	}
	return o.cast(v, d)
}

// quant divides in p and rounds to d; scale and zp broadcast to x.
func (o *op) quant(x, scale, zp *ir.Value, d, p ir.DType, saturate bool) *ir.Value {
	y := o.emit("Div", nil, o.cast(x, p), o.cast(scale, p))
	if d.IsInt() {
		return o.toQuantised(y, zp, d)
	}
	if !d.IsSmallFloat() {
		o.lacks("quantisation to %s", d)
		return y
	}
	return o.castSmall(y, d, saturate)
}

func quantizeLinear(o *op) []*ir.Value {
	x, scale, zp := o.need(0), o.need(1), o.in(2)
	axis, block := o.attrInt("axis", 1), o.attrInt("block_size", 0)
	saturate := o.attrInt("saturate", 1) != 0
	d := ir.DType(o.attrInt("output_dtype", 0))
	if zp != nil {
		if d != ir.Invalid && d != zp.Type.DType {
			return o.fail("output_dtype is %s, the zero point has %s", d, zp.Type.DType)
		}
		d = zp.Type.DType
	}
	if d == ir.Invalid {
		d = ir.U8
	}
	p := ir.DType(o.attrInt("precision", 0))
	if p == ir.Invalid {
		if p = scale.Type.DType; !p.IsFloat() {
			p = ir.F32
		}
	}
	if !p.IsFloat() || !d.Valid() {
		return o.lacks("quantisation to %s in %s", d, p)
	}
	return one(o.quant(x, o.aligned(x, scale, axis, block), o.aligned(x, zp, axis, block), d, p, saturate))
}

func dequantizeLinear(o *op) []*ir.Value {
	x, scale, zp := o.need(0), o.need(1), o.in(2)
	axis, block := o.attrInt("axis", 1), o.attrInt("block_size", 0)
	to := ir.DType(o.attrInt("output_dtype", 0))
	if to == ir.Invalid {
		to = scale.Type.DType
	}
	if !to.IsFloat() {
		return o.lacks("dequantisation to %s", to)
	}
	return one(o.dequant(x, o.aligned(x, scale, axis, block), o.aligned(x, zp, axis, block), to))
}

func dynamicQuantize(o *op) []*ir.Value { return o.dynamicQuantized(o.need(0)) }

// dynamicQuantized gives x in u8, its scale and its zero point.
func (o *op) dynamicQuantized(x *ir.Value) []*ir.Value {
	zero := o.like(x, 0)
	hi := o.emit("Max", nil, o.emit("ReduceMax", ir.Attrs{"keepdims": 0}, x), zero)
	lo := o.emit("Min", nil, o.emit("ReduceMin", ir.Attrs{"keepdims": 0}, x), zero)
	width := o.emit("Where", nil, o.emit("Equal", nil, hi, lo), o.like(x, 1), o.emit("Sub", nil, hi, lo))
	scale := o.emit("Div", nil, width, o.like(x, 255))
	zp := o.emit("Sub", nil, zero, o.emit("Div", nil, lo, scale))
	zp = o.emit("Min", nil, o.emit("Max", nil, zp, zero), o.like(x, 255))
	zp = o.cast(o.emit("Round", nil, zp), ir.U8)
	return []*ir.Value{o.quant(x, scale, zp, ir.U8, x.Type.DType, true), scale, zp}
}

func (o *op) matMulInteger(a, b, azp, bzp *ir.Value) *ir.Value {
	x, y := o.cast(a, ir.I32), o.cast(b, ir.I32)
	if azp != nil {
		x = o.emit("Sub", nil, x, o.cast(o.perRow(a, azp), ir.I32))
	}
	if bzp != nil {
		y = o.emit("Sub", nil, y, o.cast(o.perTensor(bzp), ir.I32))
	}
	return o.emit("MatMul", nil, x, y)
}

// convInteger sums products of 8-bit differences, padding left out. The sums are exact in f64: fewer than 2^36 products of
// less than 2^17 each.
func (o *op) convInteger(x, w, xzp, wzp, bias *ir.Value) *ir.Value {
	diff := func(v, zp *ir.Value) *ir.Value {
		return o.cast(o.difference(v, zp), ir.F64)
	}
	if x.Type.DType.Bits() != 8 || w.Type.DType.Bits() != 8 {
		o.lacks("a convolution of %s with %s", x.Type.DType, w.Type.DType)
		return x
	}
	xf := diff(x, o.perTensor(xzp))
	wf := diff(w, o.perChannel(w, wzp, rank(w)-1))
	a := o.convAttrs(x, w)
	if o.err != nil {
		return x
	}
	y := o.emit("Conv", a, xf, wf, o.cast(bias, ir.F64))
	return o.cast(o.cast(y, ir.I64), ir.I32)
}

// requantize is acc * (sa*sb/sy) rounded to the type of the zero point, or of like.
func (o *op) requantize(acc, sa, sb, sy, zp, like *ir.Value) *ir.Value {
	d := like.Type.DType
	if zp != nil {
		d = zp.Type.DType
	}
	m := o.emit("Div", nil, o.emit("Mul", nil, sa, sb), o.perTensor(o.cast(sy, ir.F32)))
	return o.toQuantised(o.emit("Mul", nil, o.cast(acc, ir.F32), m), o.perTensor(zp), d)
}

// castSmall converts to a float type of 8 bits or fewer.
func (o *op) castSmall(y *ir.Value, d ir.DType, saturate bool) *ir.Value {
	a := ir.Attrs{"to": d, "saturate": 0}
	if saturate {
		a["saturate"] = 1
	}
	return o.emit("CastSmall", a, y)
}
