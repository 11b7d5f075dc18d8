package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// normOps are the normalisations; docs/numerics.md fixes the order of their steps.
func normOps() map[string]handler {
	return map[string]handler{
		"LayerNormalization":           layerNorm,
		"RMSNormalization":             rmsNorm,
		"SimplifiedLayerNormalization": simplifiedNorm,
		"InstanceNormalization":        wide(instanceNorm),
		"GroupNormalization":           groupNorm,
		"MeanVarianceNormalization": wide(func(o *op) []*ir.Value {
			x, axes := o.need(0), []int64{0, 2, 3}
			if o.hasAttr("axes") {
				axes = o.attrInts("axes")
			}
			d, v := o.moments(x, axes)
			std := o.emit("Add", nil, o.emit("Sqrt", nil, v), o.like(x, 1e-9))
			return one(o.emit("Div", nil, d, std))
		}),
		"LpNormalization": wide(lpNorm),
		"LRN":             wide(lrn),
	}
}

// moments gives x - mean and the mean of its square over the axes, which are kept with size 1.
func (o *op) moments(x *ir.Value, axes []int64) (d, v *ir.Value) {
	keep, list := ir.Attrs{"keepdims": 1}, o.ints(axes...)
	d = o.emit("Sub", nil, x, o.emit("ReduceMean", keep, x, list))
	return d, o.emit("ReduceMean", keep, o.emit("Mul", nil, d, d), list)
}

// inverse is 1/sqrt(v + epsilon).
func (o *op) inverse(v *ir.Value, def float32) *ir.Value {
	root := o.emit("Sqrt", nil, o.emit("Add", nil, v, o.like(v, o.attrFloat("epsilon", def))))
	return o.emit("Div", nil, o.like(v, 1), root)
}

// stash gives the precision that a normalisation of x computes in: f64 where x or stash_type asks for it, else f32, also
// where stash_type names a 16-bit type.
func (o *op) stash(x *ir.Value) ir.DType {
	st := ir.DType(o.attrInt("stash_type", 1))
	switch st {
	case ir.F32, ir.F64, ir.F16, ir.BF16:
	default:
		o.fail("stash_type %d is no float type", st)
	}
	if st == ir.F64 || x.Type.DType == ir.F64 {
		return ir.F64
	}
	return ir.F32
}

// layerNorm normalises over the dims from axis on: d = x - mean, inv = 1/sqrt(mean(d*d) + epsilon), (d*inv)*scale + bias.
func layerNorm(o *op) []*ir.Value {
	d, r := o.need(0).Type.DType, o.needRank(o.need(0))
	work := o.stash(o.need(0))
	if o.err != nil {
		return nil
	}
	x, scale, bias := o.cast(o.need(0), work), o.cast(o.need(1), work), o.cast(o.in(2), work)
	first, err := ir.Axis(o.attrInt("axis", -1), r)
	if err != nil {
		return o.fail("%w", err)
	}
	axes, keep := o.ints(from(first, r)...), ir.Attrs{"keepdims": 1}
	mean := o.emit("ReduceMean", keep, x, axes)
	diff := o.emit("Sub", nil, x, mean)
	inv := o.inverse(o.emit("ReduceMean", keep, o.emit("Mul", nil, diff, diff), axes), 1e-5)
	y := o.emit("Mul", nil, o.emit("Mul", nil, diff, inv), scale)
	if bias != nil {
		y = o.emit("Add", nil, y, bias)
	}
	st := ir.DType(o.attrInt("stash_type", 1))
	return []*ir.Value{o.cast(y, d), o.statistic(1, mean, st), o.statistic(2, inv, st)}
}

// statistic gives an optional output in the type that the node promises for it.
func (o *op) statistic(i int, v *ir.Value, d ir.DType) *ir.Value {
	if !o.asked(i) {
		return nil
	}
	return o.cast(v, d)
}

// rmsNorm is (x * inv) * scale with inv = 1/sqrt(mean(x*x) + epsilon); the result has scale's type.
func rmsNorm(o *op) []*ir.Value {
	d, r := o.need(1).Type.DType, o.needRank(o.need(0))
	work := o.stash(o.need(0))
	if o.err != nil {
		return nil
	}
	x, scale := o.cast(o.need(0), work), o.cast(o.need(1), work)
	first, err := ir.Axis(o.attrInt("axis", -1), r)
	if err != nil {
		return o.fail("%w", err)
	}
	v := o.emit("ReduceMean", ir.Attrs{"keepdims": 1}, o.emit("Mul", nil, x, x), o.ints(from(first, r)...))
	y := o.emit("Mul", nil, x, o.inverse(v, 1e-5))
	return one(o.cast(o.emit("Mul", nil, y, scale), d))
}

// scaled is (d*inv)*scale + bias, with one scale and bias per channel (dim 1 of rank r).
func (o *op) scaled(d, inv, scale, bias *ir.Value, r int) *ir.Value {
	y := o.emit("Mul", nil, o.emit("Mul", nil, d, inv), o.trail(scale, r-2))
	return o.emit("Add", nil, y, o.trail(bias, r-2))
}

func instanceNorm(o *op) []*ir.Value {
	o.ignore("consumed_inputs")
	x, scale, bias := o.need(0), o.need(1), o.need(2)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	if r < 3 {
		return o.fail("input has rank %d, want at least 3", r)
	}
	d, v := o.moments(x, from(2, r))
	return one(o.scaled(d, o.inverse(v, 1e-5), scale, bias, r))
}

// groupNorm normalises groups of channels. Up to opset 20 scale and bias were per group, since 21 they are per channel.
func groupNorm(o *op) []*ir.Value {
	x, scale, bias := o.need(0), o.need(1), o.need(2)
	r := o.needRank(x)
	if !o.hasAttr("num_groups") {
		return o.fail("attribute \"num_groups\" is missing")
	}
	t := x.Type.DType
	work := o.stash(x)
	if o.err != nil {
		return nil
	}
	x, scale, bias = o.cast(x, work), o.cast(scale, work), o.cast(bias, work)
	if r < 2 {
		return o.fail("input has rank %d, want at least 2", r)
	}
	groups := o.ints(o.attrInt("num_groups", 1))
	o.parts(o.size(x, 1), groups) // the channels must divide
	g := o.reshape(x, o.size(x, 0), groups, o.parts(o.count(x, 1), groups))
	back := make([]*ir.Value, r)
	for i := range back {
		back[i] = o.size(x, i)
	}
	d, v := o.moments(g, []int64{2})
	inv := o.inverse(v, 1e-5)
	if o.ver < 21 {
		return one(o.cast(o.reshape(o.scaled(d, inv, scale, bias, 3), back...), t))
	}
	y := o.reshape(o.emit("Mul", nil, d, inv), back...)
	y = o.emit("Mul", nil, y, o.trail(scale, r-2))
	return one(o.cast(o.emit("Add", nil, y, o.trail(bias, r-2)), t))
}

// lpNorm divides by the norm along the axis; where that is 0 the result is 0.
func lpNorm(o *op) []*ir.Value {
	x, axis := o.need(0), o.ints(o.attrInt("axis", -1))
	keep := ir.Attrs{"keepdims": 1}
	var norm *ir.Value
	switch p := o.attrInt("p", 2); p {
	case 1:
		norm = o.emit("ReduceSum", keep, o.emit("Abs", nil, x), axis)
	case 2:
		norm = o.emit("Sqrt", nil, o.emit("ReduceSum", keep, o.emit("Mul", nil, x, x), axis))
	default:
		return o.fail("p is %d, want 1 or 2", p)
	}
	return one(o.emit("Where", nil, o.emit("Equal", nil, norm, o.like(x, 0)), o.like(x, 0), o.emit("Div", nil, x, norm)))
}

// lrn is x / (bias + alpha * mean)^beta, where mean is the mean of x*x over size channels, those outside counting as 0.
// The window runs over dim 1 as over a spatial dim of a tensor with one channel.
func lrn(o *op) []*ir.Value {
	x := o.need(0)
	r, n := o.needRank(x), o.attrInt("size", 0)
	if o.err != nil {
		return nil
	}
	if n < 1 || r < 2 {
		return o.fail("size %d for an input of rank %d", n, r)
	}
	sq := o.emit("Mul", nil, x, x)
	flat := r > 4
	if flat { // pools have up to three spatial dims
		sq = o.reshape(sq, o.size(x, 0), o.size(x, 1), o.count(x, 2))
	}
	sp := min(r, 4) - 1
	if flat {
		sp = 2
	}
	kernel, ones, pads := make([]int64, sp), make([]int64, sp), make([]int64, 2*sp)
	for i := range kernel {
		kernel[i], ones[i] = 1, 1
	}
	kernel[0], pads[0], pads[sp] = n, (n-1)/2, n-1-(n-1)/2
	mean := o.emit("AveragePool", ir.Attrs{"kernel_shape": kernel, "strides": ones, "dilations": ones, "pads": pads, "count_include_pad": 1},
		o.emit("Unsqueeze", nil, sq, o.ints(1)))
	mean = o.emit("Squeeze", nil, mean, o.ints(1))
	if flat {
		mean = o.emit("Reshape", ir.Attrs{"allowzero": 1}, mean, o.emit("Shape", nil, x))
	}
	base := o.emit("Add", nil, o.emit("Mul", nil, mean, o.like(x, o.attrFloat("alpha", 1e-4))), o.like(x, o.attrFloat("bias", 1)))
	return one(o.emit("Div", nil, x, o.emit("Pow", nil, base, o.like(x, o.attrFloat("beta", 0.75)))))
}
