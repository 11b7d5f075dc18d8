package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func activations() map[string]handler {
	t := map[string]handler{
		"Softmax":    softmax,
		"LogSoftmax": logSoftmax,
		"LeakyRelu": func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			x := o.need(0)
			return one(o.negativePart(x, o.emit("Mul", nil, x, o.like(x, o.attrFloat("alpha", 0.01)))))
		},
		"PRelu": func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			x, slope := o.need(0), o.need(1)
			if r := rank(x); o.ver < 7 && rank(slope) == 1 && r > 2 { // one slope per channel
				axes := make([]int64, r-2)
				for i := range axes {
					axes[i] = int64(i + 1)
				}
				slope = o.emit("Unsqueeze", nil, slope, o.ints(axes...))
			}
			return one(o.negativePart(x, o.emit("Mul", nil, x, slope)))
		},
		"Elu": func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			x := o.need(0)
			return one(o.negativePart(x, o.expm1(x, o.attrFloat("alpha", 1))))
		},
		"Selu": func(o *op) []*ir.Value {
			o.ignore("consumed_inputs")
			x := o.need(0)
			y := o.negativePart(x, o.expm1(x, o.attrFloat("alpha", 1.67326319217681884765625)))
			return one(o.emit("Mul", nil, y, o.like(x, o.attrFloat("gamma", 1.05070102214813232421875))))
		},
		"Celu": func(o *op) []*ir.Value {
			x, alpha := o.need(0), o.attrFloat("alpha", 1)
			e := o.emit("Exp", nil, o.emit("Div", nil, x, o.like(x, alpha)))
			return one(o.negativePart(x, o.emit("Mul", nil, o.emit("Sub", nil, e, o.like(x, 1)), o.like(x, alpha))))
		},
		"Softplus": func(o *op) []*ir.Value { return one(o.softplus(o.need(0))) },
		"Mish": func(o *op) []*ir.Value {
			x := o.need(0)
			return one(o.emit("Mul", nil, x, o.emit("Tanh", nil, o.softplus(x))))
		},
		"Swish": func(o *op) []*ir.Value {
			x := o.need(0)
			return one(o.emit("Mul", nil, x, o.emit("Sigmoid", nil, o.emit("Mul", nil, x, o.like(x, o.attrFloat("alpha", 1))))))
		},
		"SwiGLU": func(o *op) []*ir.Value {
			a, b := o.need(0), o.need(1)
			if x, y := a.Type.Shape, b.Type.Shape; x.Ranked && y.Ranked {
				for i := range x.Dims {
					if len(x.Dims) != len(y.Dims) || x.Dims[i].IsStatic() && y.Dims[i].IsStatic() && x.Dims[i].N != y.Dims[i].N {
						return o.fail("inputs of shapes %s and %s, which must be equal", x, y)
					}
				}
			}
			gate := o.emit("Sigmoid", nil, o.emit("Mul", nil, a, o.like(a, o.attrFloat("alpha", 1))))
			return one(o.emit("Mul", nil, o.emit("Mul", nil, a, gate), b))
		},
		"Gelu": gelu,
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
	for name, fn := range t {
		if name != "Softmax" { // has kernels of its own for 16-bit floats
			t[name] = wide(fn)
		}
	}
	t["Hardmax"], t["Shrink"] = hardmax, shrink
	return t
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

// softplus is max(x, 0) + log(1 + e^-|x|).
func (o *op) softplus(x *ir.Value) *ir.Value {
	e := o.emit("Exp", nil, o.emit("Neg", nil, o.emit("Abs", nil, x)))
	return o.emit("Add", nil, o.emit("Relu", nil, x), o.emit("Log", nil, o.emit("Add", nil, e, o.like(x, 1))))
}

// gelu follows docs/numerics.md section 3, in both forms.
func gelu(o *op) []*ir.Value {
	x := o.need(0)
	c, k, root := 0x1.988454p-1, 0x1.6e4e26p-5, 0x1.6a09e6p-1
	if x.Type.DType == ir.F64 {
		c, k, root = 0x1.9884533d43651p-1, 0x1.6e4e26d4801f7p-5, 0x1.6a09e667f3bcdp-1
	}
	var t *ir.Value
	switch kind := o.attrStr("approximate", "none"); kind {
	case "none":
		t = o.emit("Erf", nil, o.emit("Mul", nil, x, o.like(x, root)))
	case "tanh":
		cube := o.emit("Mul", nil, o.emit("Mul", nil, x, x), x)
		in := o.emit("Add", nil, x, o.emit("Mul", nil, cube, o.like(x, k)))
		t = o.emit("Tanh", nil, o.emit("Mul", nil, in, o.like(x, c)))
	default:
		return o.lacks("approximate %q", kind)
	}
	return one(o.emit("Mul", nil, o.emit("Mul", nil, x, o.like(x, 0.5)), o.emit("Add", nil, t, o.like(x, 1))))
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

func logSoftmax(o *op) []*ir.Value { return o.alongAxis(o.logSoftmax) }

// logSoftmax is (x - max) - log(sum(e^(x - max))).
func (o *op) logSoftmax(x *ir.Value, axis int64) *ir.Value {
	s := o.emit("Sub", nil, x, o.emit("ReduceMax", ir.Attrs{"keepdims": 1}, x, o.ints(axis)))
	sum := o.emit("ReduceSum", ir.Attrs{"keepdims": 1}, o.emit("Exp", nil, s), o.ints(axis))
	return o.emit("Sub", nil, s, o.emit("Log", nil, sum))
}

// hardmax is 1 at the first largest element along the axis and 0 elsewhere.
func hardmax(o *op) []*ir.Value {
	return o.alongAxis(func(x *ir.Value, axis int64) *ir.Value {
		r := o.needRank(x)
		a, err := ir.Axis(axis, max(r, 0))
		if err != nil {
			o.fail("%w", err)
		}
		if o.err != nil {
			return x
		}
		best := o.emit("ArgMax", ir.Attrs{"axis": axis, "keepdims": 1, "select_last_index": 0}, x)
		return o.cast(o.emit("Equal", nil, best, o.upTo(o.size(x, a), r-1-a)), x.Type.DType)
	})
}

// shrink is x + bias below -lambd, x - bias above lambd and 0 between. Integers are computed as floats and cut off.
func shrink(o *op) []*ir.Value {
	d := o.need(0).Type.DType
	work := d
	switch {
	case d.IsInt() && d.Bits() > 16:
		work = ir.F64
	case d != ir.F64:
		work = ir.F32
	}
	x, l, b := o.cast(o.need(0), work), o.attrFloat("lambd", 0.5), o.attrFloat("bias", 0)
	high := o.emit("Where", nil, o.emit("Greater", nil, x, o.like(x, l)), o.emit("Sub", nil, x, o.like(x, b)), o.like(x, 0))
	low := o.emit("Where", nil, o.emit("Less", nil, x, o.like(x, -l)), o.emit("Add", nil, x, o.like(x, b)), high)
	return one(o.cast(low, d))
}
