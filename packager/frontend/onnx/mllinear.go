package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func mlLinear() map[string]handler {
	return map[string]handler{"LinearClassifier": linearClassifier, "LinearRegressor": linearRegressor}
}

// rows makes the model input [N,F] in f32; a 1-D input is one row.
func (o *op) rows() *ir.Value {
	x := o.cast(o.need(0), ir.F32)
	if rank(x) == 1 {
		x = o.emit("Unsqueeze", nil, x, o.ints(0))
	}
	return x
}

// scores is x * coefficients' + intercepts for the given number of targets.
func (o *op) linear(x *ir.Value, coef, icept []float32, targets int) *ir.Value {
	if targets < 1 || len(coef)%targets != 0 || len(coef) == 0 || len(icept) != 0 && len(icept) != targets {
		o.fail("%d coefficients and %d intercepts for %d targets", len(coef), len(icept), targets)
		return x
	}
	w := o.konst(ir.F32s([]int64{int64(targets), int64(len(coef) / targets)}, coef))
	var b *ir.Value
	if len(icept) > 0 {
		b = o.konst(f32List(icept))
	}
	return o.emit("Gemm", ir.Attrs{"transB": 1}, x, w, b)
}

// post applies a post transform to [N,C] scores in f32. With one column only PROBIT changes anything, as in ONNX
// Runtime.
func (o *op) post(s *ir.Value, kind string, columns int) *ir.Value {
	if columns == 1 && kind != "PROBIT" {
		switch kind {
		case "NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO":
			return s
		}
	}
	switch kind {
	case "NONE":
		return s
	case "LOGISTIC":
		return o.emit("Sigmoid", nil, s)
	case "SOFTMAX":
		return o.emit("Softmax", ir.Attrs{"axis": -1}, s)
	case "SOFTMAX_ZERO":
		return o.softmaxZero(s)
	case "PROBIT":
		return o.probit(s)
	}
	o.lacks("post transform %q", kind)
	return s
}

// softmaxZero is softmax in which scores near 0 count as e^-max times themselves and do not enter the sum.
func (o *op) softmaxZero(s *ir.Value) *ir.Value {
	m := o.emit("ReduceMax", ir.Attrs{"keepdims": 1}, s, o.ints(-1))
	far := o.emit("Greater", nil, o.emit("Abs", nil, s), o.like(s, float64(float32(0.0000001))))
	e := o.emit("Exp", nil, o.emit("Sub", nil, s, m))
	sum := o.emit("ReduceSum", ir.Attrs{"keepdims": 1}, o.emit("Where", nil, far, e, o.like(s, 0)), o.ints(-1))
	near := o.emit("Mul", nil, s, o.emit("Exp", nil, o.emit("Neg", nil, m)))
	return o.emit("Div", nil, o.emit("Where", nil, far, e, near), sum)
}

// probit is sqrt(2) * erfinv(2x - 1) with ONNX Runtime's approximation of erfinv.
func (o *op) probit(s *ir.Value) *ir.Value {
	c := func(v float32) *ir.Value { return o.like(s, float64(v)) }
	x := o.emit("Sub", nil, o.emit("Mul", nil, s, c(2)), c(1))
	neg := o.emit("Less", nil, x, c(0))
	l := o.emit("Log", nil, o.emit("Mul", nil, o.emit("Sub", nil, c(1), x), o.emit("Add", nil, c(1), x)))
	v := o.emit("Add", nil, o.emit("Mul", nil, l, c(0.5)), c(float32(2)/float32(float32(3.14159)*float32(0.147))))
	v2 := o.emit("Mul", nil, l, c(float32(1)/float32(0.147)))
	root := o.emit("Sqrt", nil, o.emit("Sub", nil, o.emit("Mul", nil, v, v), v2))
	y := o.emit("Sqrt", nil, o.emit("Sub", nil, root, v))
	return o.emit("Mul", nil, o.emit("Where", nil, neg, o.emit("Neg", nil, y), y), c(1.41421356))
}

// classes reads the labels: strings or integers.
func (o *op) classes(intAttr string) *ir.Data {
	ints, strs := o.attrInts(intAttr), o.attrStrs("classlabels_strings")
	if len(strs) > 0 {
		return strList(strs)
	}
	return i64List(ints)
}

// labelOf picks the label of the largest score, the first of equals.
func (o *op) labelOf(scores *ir.Value, classes *ir.Data) *ir.Value {
	best := o.emit("ArgMax", ir.Attrs{"axis": 1, "keepdims": 0}, scores)
	return o.emit("Gather", ir.Attrs{"axis": 0}, o.konst(classes), best)
}

// chooseLabel picks yes or no, one-element tensors, by a bool column [N,1].
func (o *op) chooseLabel(cond *ir.Value, yes, no *ir.Data) *ir.Value {
	two := &ir.Data{DType: yes.DType, Dims: []int64{2}, Bytes: append(append([]byte(nil), no.Bytes...), yes.Bytes...),
		Strings: append(append([]string(nil), no.Strings...), yes.Strings...)}
	if yes.DType == ir.String {
		two.Bytes = nil
	} else {
		two.Strings = nil
	}
	i := o.emit("Reshape", nil, o.emit("Cast", ir.Attrs{"to": ir.I64}, cond), o.ints(-1))
	return o.emit("Gather", ir.Attrs{"axis": 0}, o.konst(two), i)
}

// linearClassifier: one target with two labels compares the raw score with 0; its scores become [1-s, s], for LOGISTIC
// the sigmoids of [-s, s].
func linearClassifier(o *op) []*ir.Value {
	o.ignore("multi_class")
	classes := o.classes("classlabels_ints")
	coef, icept := o.attrFloats("coefficients"), o.attrFloats("intercepts")
	kind := o.attrStr("post_transform", "NONE")
	n := len(icept)
	if n == 0 {
		n = int(classes.Len())
	}
	s := o.linear(o.rows(), coef, icept, n)
	if n == 1 {
		yes, no := ir.I64s([]int64{1}, []int64{1}), ir.I64s([]int64{1}, []int64{0})
		if classes.DType == ir.String {
			yes, no = ir.Strs([]int64{1}, []string{"1"}), ir.Strs([]int64{1}, []string{"0"})
		}
		two := classes.Len() == 2
		if two {
			yes, no = pick(classes, []int{1}), pick(classes, []int{0})
		}
		label := o.chooseLabel(o.emit("Greater", nil, s, o.like(s, 0)), yes, no)
		if !two {
			return []*ir.Value{label, o.post(s, kind, 1)}
		}
		switch kind {
		case "PROBIT":
			s = o.probit(s)
		case "LOGISTIC":
			return []*ir.Value{label, o.post(o.emit("Concat", ir.Attrs{"axis": 1}, o.emit("Neg", nil, s), s), kind, 2)}
		}
		return []*ir.Value{label, o.emit("Concat", ir.Attrs{"axis": 1}, o.emit("Sub", nil, o.like(s, 1), s), s)}
	}
	if classes.Len() != int64(n) {
		return o.fail("%d labels for %d targets", classes.Len(), n)
	}
	return []*ir.Value{o.labelOf(s, classes), o.post(s, kind, n)}
}

func linearRegressor(o *op) []*ir.Value {
	targets := int(o.attrInt("targets", 1))
	s := o.linear(o.rows(), o.attrFloats("coefficients"), o.attrFloats("intercepts"), targets)
	return one(o.post(s, o.attrStr("post_transform", "NONE"), targets))
}
