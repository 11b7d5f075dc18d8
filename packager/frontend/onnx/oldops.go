package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Operators that ONNX had as experiments in its first operator sets, and MaxRoiPool.

func oldOps() map[string]handler {
	// of applies f to input 0 with two float attributes.
	of := func(a string, da float32, b string, db float32, f func(o *op, x, a, b *ir.Value) *ir.Value) handler {
		return wide(func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			x := o.need(0)
			return one(f(o, x, o.like(x, o.attrFloat(a, da)), o.like(x, o.attrFloat(b, db))))
		})
	}
	mul := func(o *op, a, b *ir.Value) *ir.Value { return o.emit("Mul", nil, a, b) }
	return map[string]handler{
		"Affine": of("alpha", 1, "beta", 0, func(o *op, x, a, b *ir.Value) *ir.Value { return o.emit("Add", nil, mul(o, x, a), b) }),
		"Scale":  of("scale", 1, "scale", 1, func(o *op, x, a, _ *ir.Value) *ir.Value { return mul(o, x, a) }),
		"ScaledTanh": of("alpha", 1, "beta", 1, func(o *op, x, a, b *ir.Value) *ir.Value {
			return mul(o, o.emit("Tanh", nil, mul(o, x, b)), a)
		}),
		"ParametricSoftplus": of("alpha", 1, "beta", 1, func(o *op, x, a, b *ir.Value) *ir.Value { return mul(o, o.softplus(mul(o, x, b)), a) }),
		"ImageScaler":        wide(imageScaler), "Crop": crop, "ATen": aten, "MaxRoiPool": wide(maxRoiPool),
		"DynamicSlice": func(o *op) []*ir.Value {
			axes := o.i64(o.in(3))
			return one(o.emit("Slice", nil, o.need(0), o.i64(o.need(1)), o.i64(o.need(2)), axes))
		},
		"GivenTensorFill": givenTensorFill, "ConstantFill": constantFill,
	}
}

func aten(o *op) []*ir.Value {
	return o.lacks("the function %q of PyTorch", o.attrStr("operator", ""))
}

// imageScaler is X * scale + bias of each channel (dim 1).
func imageScaler(o *op) []*ir.Value {
	x, bias := o.need(0), o.attrFloats("bias")
	y := o.emit("Mul", nil, x, o.like(x, o.attrFloat("scale", 1)))
	if len(bias) == 0 {
		return one(y)
	}
	v := make([]float64, len(bias))
	for i, b := range bias {
		v[i] = float64(b)
	}
	return one(o.emit("Add", nil, y, o.konst(ir.FloatData(x.Type.DType, []int64{int64(len(v)), 1, 1}, v))))
}

// crop takes border (left, top, right, bottom) off an image [N,C,H,W], or what scale (height, width) says from left and top on.
func crop(o *op) []*ir.Value {
	b, scale := o.attrInts("border"), o.attrInts("scale")
	if len(b) != 4 || len(scale) != 0 && len(scale) != 2 {
		return o.fail("border %v, scale %v", b, scale)
	}
	x := o.need(0)
	if r := o.needRank(x); o.err == nil && r != 4 {
		return o.fail("input of rank %d, want 4", r)
	}
	end := o.join(o.calc("Sub", o.sizes(x, 2, 3), o.ints(b[3])), o.calc("Sub", o.sizes(x, 3, 4), o.ints(b[2])))
	if len(scale) == 2 {
		end = o.ints(b[1]+scale[0], b[0]+scale[1])
	}
	return one(o.emit("Slice", nil, x, o.ints(b[1], b[0]), end, o.ints(2, 3), o.ints(1, 1)))
}

func givenTensorFill(o *op) []*ir.Value {
	o.ignore("input_as_shape")
	v, shape := o.attrFloats("values"), o.attrInts("shape")
	if len(o.ins) > 0 || o.hasAttr("extra_shape") {
		return o.lacks("a shape that is not an attribute")
	}
	return one(o.emit("Identity", nil, o.konst(ir.F32s(append([]int64{}, shape...), append([]float32{}, v...)))))
}

func constantFill(o *op) []*ir.Value {
	d := ir.DType(o.attrInt("dtype", int64(ir.F32)))
	shape := o.in(0)
	extra := o.attrInts("extra_shape")
	switch {
	case shape == nil:
		shape = o.ints(o.attrInts("shape")...)
	case o.attrInt("input_as_shape", 0) != 0:
		shape = o.i64(shape)
	default:
		shape = o.emit("Shape", nil, shape)
	}
	if len(extra) > 0 {
		shape = o.join(shape, o.ints(extra...))
	}
	return one(o.emit("Expand", nil, o.scalar(d, o.attrFloat("value", 0)), shape))
}

// maxRoiPool: each row of rois is (image, x1, y1, x2, y2); a cell takes the maximum of the pixels that it touches, 0 when there
// are none. Corners are scaled and rounded (halves away from zero), ends count.
func maxRoiPool(o *op) []*ir.Value {
	x, rois := o.need(0), o.need(1)
	pooled, scale := o.attrInts("pooled_shape"), o.attrFloat("spatial_scale", 1)
	if len(pooled) != 2 || pooled[0] < 1 || pooled[1] < 1 || pooled[0] > 1<<16 || pooled[1] > 1<<16 {
		return o.fail("pooled_shape %v", pooled)
	}
	if r := o.needRank(x); o.err == nil && (r != 4 || rank(rois) != 2) {
		return o.fail("ranks %d and %d, want 4 and 2", r, rank(rois))
	}
	if o.err != nil {
		return nil
	}
	d := x.Type.DType
	row := o.body([]ir.Type{ir.TensorOf(d, ir.ShapeOf(ir.Static(5)))}, func(in *op, p []*ir.Value) []*ir.Value {
		f := func(name string, a, b *ir.Value) *ir.Value { return in.emit(name, nil, a, b) }
		c := func(v float64) *ir.Value { return in.scalar(d, v) }
		at := func(i int64) *ir.Value { return in.cut(p[0], 0, in.ints(i), in.ints(i+1), 1) }
		image := in.emit("Gather", ir.Attrs{"axis": 0}, x, in.emit("Squeeze", nil, in.cast(at(0), ir.I64), in.ints(0))) // [C,H,W]
		corner := func(i int64) *ir.Value {                                                                             // rounded, halves away from zero
			v := f("Mul", at(i), c(scale))
			return f("Mul", in.emit("Sign", nil, v), in.emit("Floor", nil, f("Add", in.emit("Abs", nil, v), c(0.5))))
		}
		// inside gives which elements of a dim of `size` each of n cells between two corners takes: [n, size].
		inside := func(a, b *ir.Value, n int64, size *ir.Value) *ir.Value {
			cell := f("Div", f("Max", f("Add", f("Sub", b, a), c(1)), c(1)), c(float64(n)))
			i := in.cast(in.trail(in.ints(from(0, int(n))...), 1), d)
			lo := f("Add", in.emit("Floor", nil, f("Mul", i, cell)), a)
			hi := f("Add", in.emit("Ceil", nil, f("Mul", f("Add", i, c(1)), cell)), a)
			k := in.cast(in.upTo(size, 0), d)
			return f("And", f("GreaterOrEqual", k, lo), f("Less", k, hi))
		}
		cols := inside(corner(1), corner(3), pooled[1], in.size(x, 3)) // [PW, W]
		rows := inside(corner(2), corner(4), pooled[0], in.size(x, 2)) // [PH, H]
		least := in.scalar(d, math.Inf(-1))
		most := func(mask, v *ir.Value) *ir.Value { // over the last dim of v, for each row of the mask
			v = in.emit("Where", nil, mask, in.emit("Unsqueeze", nil, v, in.ints(2)), least)
			return in.emit("ReduceMax", ir.Attrs{"keepdims": 0}, v, in.ints(3))
		}
		y := most(cols, image)                                                      // [C,H,PW]
		y = most(rows, in.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1}}, y)) // [C,PW,PH]
		y = in.emit("Where", nil, f("Equal", y, least), c(0), y)                    // empty
		return []*ir.Value{in.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1}}, y)}
	})
	if o.err != nil {
		return nil
	}
	o.bodyCaptures(row)
	z := []int64{0}
	return o.emitRegions("Scan", ir.Attrs{"num_scan_inputs": 1, "scan_input_axes": z, "scan_input_directions": z, "scan_output_axes": z, "scan_output_directions": z},
		1, []*ir.Region{row}, rois)
}
