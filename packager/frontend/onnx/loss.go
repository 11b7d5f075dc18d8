package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// lossOps are the two losses of ONNX: models use them as scores.
func lossOps() map[string]handler {
	return map[string]handler{
		"NegativeLogLikelihoodLoss": wide(func(o *op) []*ir.Value {
			return one(o.nll(o.need(0)))
		}),
		"SoftmaxCrossEntropyLoss": wide(func(o *op) []*ir.Value {
			lp := o.logSoftmax(o.need(0), 1)
			return []*ir.Value{o.nll(lp), lp}
		}),
	}
}

// nll is -x[n, target] * weight[target] at each position (0 where the target is ignore_index), reduced. Class scores
// are chosen by comparison with the class numbers; a target that is no class fails when its weight is looked up.
func (o *op) nll(x *ir.Value) *ir.Value {
	target, weight := o.i64(o.need(1)), o.in(2)
	r := o.needRank(x)
	reduction := o.attrStr("reduction", "mean")
	if r < 2 && o.err == nil {
		o.fail("input has rank %d, want at least 2", r)
	}
	if o.err != nil {
		return x
	}
	d := x.Type.DType
	classes := o.size(x, 1)
	if weight == nil {
		one := o.cast(o.konst(ir.F32s([]int64{1}, []float32{1})), d)
		weight = o.emit("Expand", nil, one, classes)
	}
	var ignored *ir.Value
	if o.hasAttr("ignore_index") {
		ignored = o.emit("Equal", nil, target, o.scalar(ir.I64, float64(o.attrLong("ignore_index", 0))))
		target = o.emit("Where", nil, ignored, o.scalar(ir.I64, 0), target)
	}
	w := o.emit("Gather", ir.Attrs{"axis": 0}, weight, target)
	negative := o.emit("Less", nil, target, o.scalar(ir.I64, 0))
	class := o.emit("Where", nil, negative, o.emit("Add", nil, target, classes), target)
	chosen := o.emit("Equal", nil, o.emit("Unsqueeze", nil, class, o.ints(1)), o.upTo(classes, r-2))
	picked := o.emit("Where", nil, chosen, x, o.like(x, 0))
	loss := o.emit("Mul", nil, o.emit("Neg", nil, o.emit("ReduceSum", ir.Attrs{"keepdims": 0}, picked, o.ints(1))), w)
	if ignored != nil {
		loss = o.emit("Where", nil, ignored, o.like(x, 0), loss)
		w = o.emit("Where", nil, ignored, o.like(x, 0), w)
	}
	all := ir.Attrs{"keepdims": 0}
	switch reduction {
	case "none":
		return loss
	case "sum":
		return o.emit("ReduceSum", all, loss)
	case "mean":
		return o.emit("Div", nil, o.emit("ReduceSum", all, loss), o.emit("ReduceSum", all, w))
	}
	o.fail("reduction %q", reduction)
	return x
}
