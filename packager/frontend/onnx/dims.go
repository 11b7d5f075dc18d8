package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// Arithmetic on i64 lists at conversion time where the values are known, at run time where not.

// sizes gives dims from to to-1 of v as a list.
func (o *op) sizes(v *ir.Value, from, to int) *ir.Value {
	if s := v.Type.Shape; s.Ranked && to <= len(s.Dims) {
		var out []int64
		static := true
		for _, d := range s.Dims[from:to] {
			static = static && d.IsStatic()
			out = append(out, d.N)
		}
		if static {
			return o.ints(out...)
		}
	}
	return o.emit("Shape", ir.Attrs{"start": from, "end": to}, v)
}

// calc applies Add, Sub, Mul, Div, Max or Min to two lists, of which either may have one element.
func (o *op) calc(name string, a, b *ir.Value) *ir.Value {
	x, okx := o.known(a)
	y, oky := o.known(b)
	if okx && oky && len(x) > 0 && len(y) > 0 && (len(x) == len(y) || len(x) == 1 || len(y) == 1) {
		out := make([]int64, max(len(x), len(y)))
		for i := range out {
			p, q := x[i%len(x)], y[i%len(y)]
			switch name {
			case "Add":
				out[i] = p + q
			case "Sub":
				out[i] = p - q
			case "Mul":
				out[i] = p * q
			case "Div":
				if q == 0 {
					o.fail("division by zero")
					return a
				}
				out[i] = p / q
			case "Max":
				out[i] = max(p, q)
			case "Min":
				out[i] = min(p, q)
			}
		}
		return o.ints(out...)
	}
	return o.emit(name, nil, a, b)
}

// join concatenates lists.
func (o *op) join(vs ...*ir.Value) *ir.Value {
	var out []int64
	for i, v := range vs {
		x, ok := o.known(v)
		if !ok {
			return o.emit("Concat", ir.Attrs{"axis": 0}, vs...)
		}
		out = append(out, x...)
		if i == len(vs)-1 {
			return o.ints(out...)
		}
	}
	return o.ints()
}

// product multiplies the entries of a list into a list of one.
func (o *op) product(v *ir.Value) *ir.Value {
	if x, ok := o.known(v); ok {
		p := int64(1)
		for _, n := range x {
			p *= n
		}
		return o.ints(p)
	}
	return o.emit("ReduceProd", ir.Attrs{"keepdims": 1}, v, o.ints(0))
}

// scalarOf makes a list of one a scalar.
func (o *op) scalarOf(v *ir.Value) *ir.Value {
	if x, ok := o.known(v); ok && len(x) == 1 {
		return o.konst(ir.I64s([]int64{}, x))
	}
	return o.emit("Reshape", ir.Attrs{"allowzero": 0}, v, o.ints())
}

// listOf makes a scalar, or a list of one, a list of one of i64.
func (o *op) listOf(v *ir.Value) *ir.Value {
	v = o.i64(v)
	if x, ok := o.known(v); ok && len(x) == 1 {
		return o.ints(x...)
	}
	return o.emit("Reshape", ir.Attrs{"allowzero": 0}, v, o.ints(1))
}

// shaped gives v other dims.
func (o *op) shaped(v *ir.Value, dims ...*ir.Value) *ir.Value {
	return o.emit("Reshape", ir.Attrs{"allowzero": 1}, v, o.join(dims...))
}

// permuted transposes v unless perm leaves it as it is.
func (o *op) permuted(v *ir.Value, perm []int64) *ir.Value {
	for i, p := range perm {
		if p != int64(i) {
			return o.emit("Transpose", ir.Attrs{"perm": perm}, v)
		}
	}
	return v
}

// stretch takes elements from to to-1 of an axis.
func (o *op) stretch(v *ir.Value, axis int, from, to *ir.Value) *ir.Value {
	return o.emit("Slice", nil, v, from, to, o.ints(int64(axis)), o.ints(1))
}

// indices gives 0, 1, .. n-1 (n a list of one) as f64 or i64.
func (o *op) indices(n *ir.Value, d ir.DType) *ir.Value {
	zero, step := o.konst(ir.I64s([]int64{}, []int64{0})), o.konst(ir.I64s([]int64{}, []int64{1}))
	return o.cast(o.emit("Range", nil, zero, o.scalarOf(n), step), d)
}

// f64 makes an f64 scalar.
func (o *op) f64(v float64) *ir.Value { return o.konst(ir.F64s([]int64{}, []float64{v})) }
