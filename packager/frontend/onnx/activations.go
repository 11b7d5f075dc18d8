package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func activations() map[string]handler {
	return map[string]handler{
		"Softmax":    softmax,
		"LogSoftmax": logSoftmax,
		"LeakyRelu": func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			x := o.need(0)
			return one(o.negativePart(x, o.emit("Mul", nil, x, o.like(x, o.attrFloat("alpha", 0.01)))))
		},
		"PRelu": func(o *op) []*ir.Value {
			x := o.need(0)
			return one(o.negativePart(x, o.emit("Mul", nil, x, o.need(1))))
		},
		"Elu": func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			x := o.need(0)
			return one(o.negativePart(x, o.expm1(x, o.attrFloat("alpha", 1))))
		},
		"ThresholdedRelu": func(o *op) []*ir.Value {
			x := o.need(0)
			return one(o.emit("Where", nil, o.emit("Greater", nil, x, o.like(x, o.attrFloat("alpha", 1))), x, o.like(x, 0)))
		},
		"HardSigmoid": func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			return one(o.hardSigmoid(o.need(0), o.attrFloat("alpha", 0.2), o.attrFloat("beta", 0.5)))
		},
		"HardSwish": func(o *op) []*ir.Value {
			x := o.need(0)
			return one(o.emit("Mul", nil, x, o.hardSigmoid(x, float64(float32(1)/6), 0.5)))
		},
		"Softsign": func(o *op) []*ir.Value {
			x := o.need(0)
			return one(o.emit("Div", nil, x, o.emit("Add", nil, o.like(x, 1), o.emit("Abs", nil, x))))
		},
	}
}

// like makes a scalar of v's element type.
func (o *op) like(v *ir.Value, x float64) *ir.Value { return o.scalar(v.Type.DType, x) }

// negativePart is y where x < 0, else x.
func (o *op) negativePart(x, y *ir.Value) *ir.Value {
	return o.emit("Where", nil, o.emit("Less", nil, x, o.like(x, 0)), y, x)
}

// expm1 is alpha * (e^x - 1).
func (o *op) expm1(x *ir.Value, alpha float64) *ir.Value {
	return o.emit("Mul", nil, o.emit("Sub", nil, o.emit("Exp", nil, x), o.like(x, 1)), o.like(x, alpha))
}

// hardSigmoid is max(0, min(1, alpha*x + beta)).
func (o *op) hardSigmoid(x *ir.Value, alpha, beta float64) *ir.Value {
	y := o.emit("Add", nil, o.emit("Mul", nil, x, o.like(x, alpha)), o.like(x, beta))
	return o.emit("Max", nil, o.emit("Min", nil, y, o.like(x, 1)), o.like(x, 0))
}

// alongAxis applies f to the softmax axis. Before opset 13 that axis and all after it were taken together: there f
// runs on the last axis of a flattened tensor.
func (o *op) alongAxis(f func(x *ir.Value, axis int64) *ir.Value) []*ir.Value {
	x := o.need(0)
	if o.ver >= 13 {
		return one(f(x, o.attrInt("axis", -1)))
	}
	axis, r := o.attrInt("axis", 1), rank(x)
	if axis == -1 || r >= 0 && axis == int64(r)-1 {
		return one(f(x, -1))
	}
	y := f(o.emit("Flatten", ir.Attrs{"axis": axis}, x), -1)
	shape := o.emit("Shape", nil, x)
	return one(o.emit("Reshape", ir.Attrs{"allowzero": 1}, y, shape))
}

func softmax(o *op) []*ir.Value {
	return o.alongAxis(func(x *ir.Value, axis int64) *ir.Value { return o.emit("Softmax", ir.Attrs{"axis": axis}, x) })
}

// logSoftmax is (x - max) - log(sum(e^(x - max))).
func logSoftmax(o *op) []*ir.Value {
	return o.alongAxis(func(x *ir.Value, axis int64) *ir.Value {
		s := o.emit("Sub", nil, x, o.emit("ReduceMax", ir.Attrs{"keepdims": 1}, x, o.ints(axis)))
		sum := o.emit("ReduceSum", ir.Attrs{"keepdims": 1}, o.emit("Exp", nil, s), o.ints(axis))
		return o.emit("Sub", nil, s, o.emit("Log", nil, sum))
	})
}
