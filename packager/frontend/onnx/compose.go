package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Helpers of the operators that are composed of simpler ones.

// wide wraps a handler that computes in f32 or f64: 16-bit float inputs are widened exactly, and the outputs are rounded
// back once, to the type of input 0 (docs/numerics.md, section 1 rule 2).
func wide(fn handler) handler {
	return func(o *op) []*ir.Value {
		d := o.need(0).Type.DType
		o.widen()
		outs := fn(o)
		if d != ir.F16 && d != ir.BF16 {
			return outs
		}
		for i, v := range outs {
			if v != nil && v.Type.DType == ir.F32 {
				outs[i] = o.cast(v, d)
			}
		}
		return outs
	}
}

// widen casts the node's 16-bit float inputs to f32.
func (o *op) widen() {
	for i, v := range o.ins {
		if v != nil && (v.Type.DType == ir.F16 || v.Type.DType == ir.BF16) {
			o.ins[i] = o.cast(v, ir.F32)
		}
	}
}

// size gives the size of a dim of v as an i64 list of one; v is ranked, axis is not negative.
func (o *op) size(v *ir.Value, axis int) *ir.Value {
	if s := v.Type.Shape; axis >= 0 && axis < s.Rank() && s.Dims[axis].IsStatic() {
		return o.ints(s.Dims[axis].N)
	}
	return o.emit("Shape", ir.Attrs{"start": axis, "end": axis + 1}, v)
}

// shape joins lists of sizes, constant when all of them are.
func (o *op) shape(parts ...*ir.Value) *ir.Value {
	var all []int64
	for _, p := range parts {
		k, ok := o.known(p)
		if !ok {
			return o.emit("Concat", ir.Attrs{"axis": 0}, parts...)
		}
		all = append(all, k...)
	}
	return o.ints(all...)
}

// reshape gives v exactly the listed sizes; a 0 is an empty dim.
func (o *op) reshape(v *ir.Value, parts ...*ir.Value) *ir.Value {
	return o.emit("Reshape", ir.Attrs{"allowzero": 1}, v, o.shape(parts...))
}

// arith applies an integer operator to lists of one, at compile time when both are known.
func (o *op) arith(name string, a, b *ir.Value) *ir.Value {
	x, ok1 := o.known(a)
	y, ok2 := o.known(b)
	if !ok1 || !ok2 || len(x) != 1 || len(y) != 1 {
		return o.emit(name, nil, a, b)
	}
	switch name {
	case "Add":
		return o.ints(x[0] + y[0])
	case "Sub":
		return o.ints(x[0] - y[0])
	case "Mul":
		return o.ints(x[0] * y[0])
	case "Max":
		return o.ints(max(x[0], y[0]))
	}
	return o.emit(name, nil, a, b)
}

// parts divides a size by n. A size that n does not divide is an error: here when it is known, else at run time, when
// the sizes made from the quotient do not fit the tensor.
func (o *op) parts(size, n *ir.Value) *ir.Value {
	a, ok1 := o.known(size)
	b, ok2 := o.known(n)
	if ok1 && ok2 && len(a) == 1 && len(b) == 1 {
		if b[0] < 1 || a[0]%b[0] != 0 {
			o.fail("a dim of size %d does not split into %d equal parts", a[0], b[0])
			return size
		}
		return o.ints(a[0] / b[0])
	}
	if ok2 && b[0] < 1 {
		o.fail("a dim splits into %d equal parts", b[0])
		return size
	}
	return o.emit("Div", nil, size, n)
}

// count gives the product of v's sizes from axis `first` on, as a list of one.
func (o *op) count(v *ir.Value, first int) *ir.Value {
	n := o.ints(1)
	for i := first; i < rank(v); i++ {
		n = o.arith("Mul", n, o.size(v, i))
	}
	return n
}

// upTo is 0, 1, ... n-1 for a size n given as a list of one, followed by `ones` dims of size 1.
func (o *op) upTo(n *ir.Value, ones int) *ir.Value {
	limit := o.emit("Squeeze", nil, n, o.ints(0))
	v := o.emit("Range", nil, o.scalar(ir.I64, 0), limit, o.scalar(ir.I64, 1))
	return o.trail(v, ones)
}

// trail appends dims of size 1 to a list.
func (o *op) trail(v *ir.Value, ones int) *ir.Value {
	if ones <= 0 {
		return v
	}
	axes := make([]int64, ones)
	for i := range axes {
		axes[i] = int64(i + 1)
	}
	return o.emit("Unsqueeze", nil, v, o.ints(axes...))
}

// cut is v[start:end:step] along one axis.
func (o *op) cut(v *ir.Value, axis int, start, end *ir.Value, step int64) *ir.Value {
	return o.emit("Slice", nil, v, start, end, o.ints(int64(axis)), o.ints(step))
}

// minusInf is 0 where ok holds and -inf elsewhere.
func (o *op) minusInf(ok *ir.Value, d ir.DType) *ir.Value {
	return o.emit("Where", nil, ok, o.scalar(d, 0), o.scalar(d, math.Inf(-1)))
}

// zeros makes a tensor of zeros.
func (o *op) zeros(d ir.DType, sizes *ir.Value) *ir.Value {
	return o.cast(o.emit("ConstantOfShape", ir.Attrs{"value": ir.F32s([]int64{1}, []float32{0})}, sizes), d)
}

// from lists the axes first, first+1, ... last-1.
func from(first, last int) []int64 {
	v := []int64{}
	for i := first; i < last; i++ {
		v = append(v, int64(i))
	}
	return v
}
