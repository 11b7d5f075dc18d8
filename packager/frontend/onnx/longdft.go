package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// factors splits a length into a*b, neither over maxDFT and as close as they come; ok is false where that cannot be.
func factors(n int64) (a, b int64, ok bool) {
	for a = int64(math.Sqrt(float64(n))); a > 1; a-- {
		if n%a == 0 {
			return a, n / a, n/a <= maxDFT
		}
	}
	return 0, 0, false
}

// turns gives the cosine and the sine (negative for the forward direction) of 2 pi (j*k mod n)/n for j < rows, k < cols, in f64 cast to d.
func (o *op) turns(rows, cols, n int64, inverse bool, d ir.DType) (cos, sin *ir.Value) {
	j := o.trail(o.indices(o.ints(rows), ir.I64), 1)
	k := o.indices(o.ints(cols), ir.I64)
	t := o.emit("Mod", ir.Attrs{"fmod": 0}, o.emit("Mul", nil, j, k), o.ints(n))
	angle := o.emit("Div", nil, o.emit("Mul", nil, o.cast(t, ir.F64), o.f64(2*math.Pi)), o.f64(float64(n)))
	s := o.emit("Sin", nil, angle)
	if !inverse {
		s = o.emit("Neg", nil, s)
	}
	return o.cast(o.emit("Cos", nil, angle), d), o.cast(s, d)
}

// longDFT transforms the last dim, of n = a*b elements, of re and im (nil for 0) by a transform over the a rows of b, a turn of each
// element, and one over the columns (Cooley and Tukey): products with matrices of a*a and b*b.
func (o *op) longDFT(re, im *ir.Value, a, b int64, inverse bool) (*ir.Value, *ir.Value) {
	d, r := re.Type.DType, rank(re)
	f := func(name string, x, y *ir.Value) *ir.Value { return o.emit(name, nil, x, y) }
	grid := func(v *ir.Value) *ir.Value {
		if v == nil {
			return nil
		}
		return o.emit("Reshape", ir.Attrs{"allowzero": 1}, v, o.join(o.sizes(v, 0, r-1), o.ints(a, b)))
	}
	// times is the complex product of x and y by the operator; xi may be nil.
	times := func(name string, xr, xi, yr, yi *ir.Value, swap bool) (*ir.Value, *ir.Value) {
		m := func(x, y *ir.Value) *ir.Value {
			if swap {
				x, y = y, x
			}
			return f(name, x, y)
		}
		zr, zi := m(xr, yr), m(xr, yi)
		if xi != nil {
			zr, zi = f("Sub", zr, m(xi, yi)), f("Add", zi, m(xi, yr))
		}
		return zr, zi
	}
	xr, xi := grid(re), grid(im)
	cr, ci := o.turns(a, a, a, inverse, d)
	xr, xi = times("MatMul", xr, xi, cr, ci, true)
	tr, ti := o.turns(a, b, a*b, inverse, d)
	xr, xi = times("Mul", xr, xi, tr, ti, false)
	br, bi := o.turns(b, b, b, inverse, d)
	xr, xi = times("MatMul", xr, xi, br, bi, false)
	perm := append(from(0, r-1), int64(r), int64(r-1))
	flat := func(v *ir.Value) *ir.Value {
		v = o.emit("Transpose", ir.Attrs{"perm": perm}, v)
		return o.emit("Reshape", ir.Attrs{"allowzero": 1}, v, o.join(o.sizes(v, 0, r-1), o.ints(a*b)))
	}
	return flat(xr), flat(xi)
}

// longTransform is the end of transform for long lengths: y [..., rows, 1 or 2] has the transformed dim last but one, and perm brought it there.
func (o *op) longTransform(y *ir.Value, perm []int64, length, rows, cols *ir.Value, split []int64, inverse bool) *ir.Value {
	r, d := rank(y), y.Type.DType
	part := func(i int64) *ir.Value {
		v := o.emit("Squeeze", nil, o.stretch(y, r-1, o.ints(i), o.ints(i+1)), o.ints(int64(r-1)))
		return o.emit("Pad", ir.Attrs{"mode": "constant"}, v, o.join(o.ints(0), o.calc("Sub", length, rows)), nil, o.ints(int64(r-2)))
	}
	re, im := part(0), (*ir.Value)(nil)
	if y.Type.Shape.Dims[r-1].N == 2 {
		im = part(1)
	}
	re, im = o.longDFT(re, im, split[0], split[1], inverse)
	out := []*ir.Value{re, im}
	for i, v := range out {
		v = o.stretch(v, r-2, o.ints(0), cols)
		if inverse {
			v = o.emit("Div", nil, v, o.cast(length, d))
		}
		out[i] = o.emit("Unsqueeze", nil, v, o.ints(int64(r-1)))
	}
	back := make([]int64, r)
	for i, p := range perm {
		back[p] = int64(i)
	}
	return o.permuted(o.emit("Concat", ir.Attrs{"axis": r - 1}, out...), back)
}
