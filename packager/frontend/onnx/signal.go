package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

func signalOps() map[string]handler {
	return map[string]handler{
		"DFT": dft, "STFT": stft, "MelWeightMatrix": melWeightMatrix,
		"HannWindow": window(func(o *op, turn func(float64) *ir.Value) *ir.Value {
			s := o.emit("Sin", nil, turn(math.Pi))
			return o.emit("Mul", nil, s, s)
		}),
		"HammingWindow": window(func(o *op, turn func(float64) *ir.Value) *ir.Value {
			c := o.emit("Mul", nil, o.emit("Cos", nil, turn(2*math.Pi)), o.f64(21.0/46))
			return o.emit("Sub", nil, o.f64(25.0/46), c)
		}),
		"BlackmanWindow": window(func(o *op, turn func(float64) *ir.Value) *ir.Value {
			a := o.emit("Mul", nil, o.emit("Cos", nil, turn(2*math.Pi)), o.f64(-0.5))
			b := o.emit("Mul", nil, o.emit("Cos", nil, turn(4*math.Pi)), o.f64(0.08))
			return o.emit("Add", nil, o.emit("Add", nil, a, b), o.f64(0.42))
		}),
	}
}

// outType is the attribute output_datatype.
func (o *op) outType() ir.DType {
	d := ir.DType(o.attrInt("output_datatype", int64(ir.F32)))
	if !d.Valid() || d.Bits() == 0 {
		o.fail("output_datatype %d", d)
	}
	return d
}

// window computes in f64 and casts; turn gives i*angle/N.
func window(f func(o *op, turn func(float64) *ir.Value) *ir.Value) handler {
	return func(o *op) []*ir.Value {
		size := o.listOf(o.need(0))
		n := size
		if o.attrInt("periodic", 1) == 0 {
			n = o.calc("Sub", size, o.ints(1))
		}
		d := o.outType()
		if o.err != nil {
			return nil
		}
		i, nf := o.indices(size, ir.F64), o.cast(n, ir.F64)
		return one(o.cast(f(o, func(angle float64) *ir.Value {
			return o.emit("Div", nil, o.emit("Mul", nil, i, o.f64(angle)), nf)
		}), d))
	}
}

// maxDFT bounds the length of a transform, which is a product with a matrix of its square.
const maxDFT = 4096

func dft(o *op) []*ir.Value {
	x := o.need(0)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	if r < 2 {
		return o.fail("input of rank %d, want at least 2", r)
	}
	axis := int64(-2)
	inverse, onesided := o.attrInt("inverse", 0) != 0, o.attrInt("onesided", 0) != 0
	length := o.in(1)
	if length != nil {
		length = o.listOf(length)
	}
	if o.ver < 20 {
		axis = o.attrInt("axis", 1)
	} else if v := o.in(2); v != nil {
		a, ok := o.known(v)
		if !ok || len(a) != 1 {
			return o.dftAlong(x, o.listOf(v), length, inverse, onesided)
		}
		axis = a[0]
	}
	k, err := ir.Axis(axis, r)
	if err != nil || k == r-1 {
		return o.fail("axis %d for rank %d", axis, r)
	}
	return one(o.widened(func(d ir.DType) *ir.Value { return o.transform(o.cast(x, d), k, length, inverse, onesided) }))
}

// dftAlong transforms along an axis known only at run time: the dims before it and behind it are merged.
func (o *op) dftAlong(x, axis, length *ir.Value, inverse, onesided bool) []*ir.Value {
	r := rank(x)
	at := make([]int64, r-1)
	for i := range at {
		at[i] = int64(i)
	}
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	axis = o.emit("Where", nil, f("Less", axis, o.ints(0)), f("Add", axis, o.ints(int64(r))), axis)
	pos, dims, last := o.ints(at...), o.sizes(x, 0, r-1), o.sizes(x, r-1, r)
	merged := func(rel string) *ir.Value {
		return o.product(o.emit("Where", nil, f(rel, pos, axis), dims, o.ints(1)))
	}
	n := o.emit("Gather", ir.Attrs{"axis": 0}, dims, axis)
	y := o.shaped(x, merged("Less"), n, merged("Greater"), last)
	return one(o.widened(func(d ir.DType) *ir.Value {
		if o.err != nil {
			return y
		}
		z := o.transform(o.cast(y, d), 1, length, inverse, onesided)
		if o.err != nil {
			return z
		}
		return o.shaped(z, o.emit("Where", nil, f("Equal", pos, axis), o.sizes(z, 1, 2), dims), o.sizes(z, 3, 4))
	}))
}

// transform is the discrete Fourier transform of axis k of x [..., 1 or 2] as products with matrices of cosines and sines.
func (o *op) transform(x *ir.Value, k int, length *ir.Value, inverse, onesided bool) *ir.Value {
	r, d := o.needRank(x), x.Type.DType
	if o.err != nil {
		return x
	}
	last := x.Type.Shape.Dims[r-1]
	if !last.IsStatic() {
		o.lacks("real or complex input is known only at run time")
		return x
	}
	if last.N != 1 && last.N != 2 {
		o.fail("last dim %d, want 1 or 2", last.N)
		return x
	}
	n := o.sizes(x, k, k+1)
	real := inverse && onesided // the result has no imaginary part
	if length == nil {
		length = n
		if real {
			length = o.calc("Mul", o.calc("Sub", n, o.ints(1)), o.ints(2))
		}
	}
	var split []int64
	if l, ok := o.known(length); ok && len(l) == 1 && (l[0] < 1 || l[0] > maxDFT) {
		if l[0] < 1 {
			o.fail("length %d", l[0])
			return x
		}
		a, b, ok := factors(l[0])
		if !ok || real {
			o.lacks("length %d, over %d and not a product of two numbers up to that (or the inverse of a one-sided spectrum)", l[0], maxDFT)
			return x
		}
		split = []int64{a, b}
	}
	half := o.calc("Add", o.calc("Div", length, o.ints(2)), o.ints(1))
	rows, cols := length, length
	if real {
		rows = half
	} else if onesided {
		cols = half
	}
	rows = o.calc("Min", n, rows)
	perm := make([]int64, 0, r)
	for i := 0; i < r-1; i++ {
		if i != k {
			perm = append(perm, int64(i))
		}
	}
	perm = append(perm, int64(k), int64(r-1))
	y := o.stretch(o.permuted(x, perm), r-2, o.ints(0), rows)
	part := func(i int64) *ir.Value {
		return o.emit("Squeeze", nil, o.stretch(y, r-1, o.ints(i), o.ints(i+1)), o.ints(int64(r-1)))
	}
	if split != nil {
		return o.longTransform(y, perm, length, rows, cols, split, inverse)
	}
	// The angle is 2 pi (j*k mod L)/L, the reduction exact.
	j, c := o.indices(rows, ir.I64), o.indices(cols, ir.I64)
	j = o.emit("Unsqueeze", nil, j, o.ints(1))
	turns := o.emit("Mod", ir.Attrs{"fmod": 0}, o.emit("Mul", nil, j, o.emit("Unsqueeze", nil, c, o.ints(0))), length)
	lf := o.cast(length, ir.F64)
	angle := o.emit("Div", nil, o.emit("Mul", nil, o.cast(turns, ir.F64), o.f64(2*math.Pi)), lf)
	cos, sin := o.emit("Cos", nil, angle), o.emit("Sin", nil, angle)
	if real {
		// The missing half mirrors the given one: all but the first and the middle frequency count twice.
		single := o.emit("Or", nil, o.emit("Equal", nil, j, o.ints(0)), o.emit("Equal", nil, o.emit("Mul", nil, j, o.ints(2)), length))
		w := o.emit("Where", nil, single, o.f64(1), o.f64(2))
		cos, sin = o.emit("Mul", nil, cos, w), o.emit("Mul", nil, sin, w)
	}
	cos, sin = o.cast(cos, d), o.cast(sin, d)
	mul := func(a, b *ir.Value) *ir.Value { return o.emit("MatMul", nil, a, b) }
	re := part(0)
	out := []*ir.Value{mul(re, cos)}
	if !real {
		out = append(out, mul(re, sin))
		if !inverse {
			out[1] = o.emit("Neg", nil, out[1])
		}
	}
	if last.N == 2 {
		im := part(1)
		first, second := "Add", "Add"
		if inverse {
			first = "Sub"
		}
		out[0] = o.emit(first, nil, out[0], mul(im, sin))
		if !real {
			out[1] = o.emit(second, nil, out[1], mul(im, cos))
		}
	}
	for i := range out {
		if inverse {
			out[i] = o.emit("Div", nil, out[i], o.cast(length, d))
		}
		out[i] = o.emit("Unsqueeze", nil, out[i], o.ints(int64(r-1)))
	}
	z := out[0]
	if len(out) > 1 {
		z = o.emit("Concat", ir.Attrs{"axis": r - 1}, out...)
	}
	back := make([]int64, r)
	for i, p := range perm {
		back[p] = int64(i)
	}
	return o.permuted(z, back)
}

// stft gathers the frames, weighs them and transforms each.
func stft(o *op) []*ir.Value {
	x, win := o.need(0), o.in(2)
	if r := o.needRank(x); o.err != nil || r != 3 {
		return o.fail("signal of rank %d, want 3", r)
	}
	step := o.listOf(o.need(1))
	var length *ir.Value
	switch {
	case o.in(3) != nil:
		length = o.listOf(o.in(3))
	case win != nil:
		length = o.sizes(win, 0, 1)
	default:
		length = o.sizes(x, 1, 2)
	}
	onesided := o.attrInt("onesided", 1) != 0
	if o.err != nil {
		return nil
	}
	frames := o.calc("Add", o.calc("Div", o.calc("Sub", o.sizes(x, 1, 2), length), step), o.ints(1))
	starts := o.emit("Unsqueeze", nil, o.emit("Mul", nil, o.indices(frames, ir.I64), step), o.ints(1))
	at := o.emit("Add", nil, starts, o.emit("Unsqueeze", nil, o.indices(length, ir.I64), o.ints(0)))
	return one(o.widened(func(d ir.DType) *ir.Value {
		y := o.emit("Gather", ir.Attrs{"axis": 1}, o.cast(x, d), at)
		if win != nil {
			y = o.emit("Mul", nil, y, o.emit("Unsqueeze", nil, o.cast(win, d), o.ints(1)))
		}
		if o.err != nil {
			return y
		}
		return o.transform(y, 2, length, false, onesided)
	}))
}

// melWeightMatrix spreads triangles over the bins, in f64.
func melWeightMatrix(o *op) []*ir.Value {
	bins, length, rate := o.listOf(o.need(0)), o.listOf(o.need(1)), o.listOf(o.need(2))
	low, high := o.cast(o.need(3), ir.F64), o.cast(o.need(4), ir.F64)
	d := o.outType()
	if o.err != nil {
		return nil
	}
	ln10 := o.f64(math.Ln10)
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	mel := func(hz *ir.Value) *ir.Value {
		return f("Div", f("Mul", o.f64(2595), o.emit("Log", nil, f("Add", f("Div", hz, o.f64(700)), o.f64(1)))), ln10)
	}
	points := o.calc("Add", bins, o.ints(2))
	lo := mel(low)
	step := f("Div", f("Sub", mel(high), lo), o.cast(points, ir.F64))
	m := f("Add", f("Mul", o.indices(points, ir.F64), step), lo)
	hz := f("Mul", o.f64(700), f("Sub", o.emit("Exp", nil, f("Mul", f("Div", m, o.f64(2595)), ln10)), o.f64(1)))
	edge := o.emit("Floor", nil, f("Div", f("Mul", o.cast(o.calc("Add", length, o.ints(1)), ir.F64), hz), o.cast(rate, ir.F64)))
	pick := func(i int64) *ir.Value { return o.stretch(edge, 0, o.ints(i), o.calc("Add", bins, o.ints(i))) }
	left, mid, right := pick(0), pick(1), pick(2)
	j := o.emit("Unsqueeze", nil, o.indices(o.calc("Add", o.calc("Div", length, o.ints(2)), o.ints(1)), ir.F64), o.ints(1))
	zero, unit := o.f64(0), o.f64(1)
	where := func(c, a, b *ir.Value) *ir.Value { return o.emit("Where", nil, c, a, b) }
	up, down := f("Sub", mid, left), f("Sub", right, mid)
	peak := where(f("Equal", j, mid), unit, zero)
	rise := where(f("And", f("GreaterOrEqual", j, left), f("LessOrEqual", j, mid)), f("Div", f("Sub", j, left), up), zero)
	y := where(f("Equal", up, zero), peak, rise)
	falls := f("And", f("And", f("GreaterOrEqual", j, mid), f("Less", j, right)), f("Greater", down, zero))
	return one(o.cast(where(falls, f("Div", f("Sub", right, j), down), y), d))
}
