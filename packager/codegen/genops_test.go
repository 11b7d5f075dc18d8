package codegen_test

import (
	"slices"

	"github.com/waybill-ml/waybill/packager/ir"
)

// attempt chooses an operator with inputs and attributes that mostly fit.
func (g *generator) attempt() bool {
	switch g.n(14) {
	case 0, 1, 2:
		return g.unary()
	case 3, 4, 5:
		return g.binary()
	case 6, 7:
		return g.reduction()
	case 8, 9:
		return g.move()
	case 10, 11:
		return g.index()
	case 12:
		return g.product()
	}
	return g.controlOf(choose(g, "If", "Loop", "Scan"))
}

func isFloat(d ir.DType) bool { return d.IsFloat() }
func anyType(ir.DType) bool   { return true }
func isNumber(d ir.DType) bool {
	return slices.Contains(numeric, d)
}

func (g *generator) unary() bool {
	switch g.n(9) {
	case 0:
		to := append([]ir.DType{ir.Bool}, numeric...)
		return g.add("Cast", ir.Attrs{"to": to[g.n(len(to))]}, 1, g.any())
	case 1:
		x := g.any()
		to := append([]ir.DType{ir.Bool}, numeric...)
		return g.add("BitCast", ir.Attrs{"to": to[g.n(len(to))]}, 1, x)
	case 2:
		return g.add(choose(g, "Neg", "Abs", "Sign", "Relu"), nil, 1, g.number())
	case 3:
		x, ok := g.ranks(g.dtype(), 0, func(d ir.DType) bool { return d.IsInt() })
		return ok && g.add("BitwiseNot", nil, 1, x)
	case 4:
		x, ok := g.ranks(ir.Bool, 0, func(d ir.DType) bool { return d == ir.Bool })
		return ok && g.add("Not", nil, 1, x)
	}
	x, ok := g.ranks(g.floatType(), 0, isFloat)
	return ok && g.add(choose(g, "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Sin", "Cos", "Tan", "Asin",
		"Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"), nil, 1, x)
}

func (g *generator) binary() bool {
	switch g.n(8) {
	case 0:
		c, ok := g.ranks(ir.Bool, 0, func(d ir.DType) bool { return d == ir.Bool })
		x := g.any()
		return ok && g.add("Where", nil, 1, c, x, g.like(x.d))
	case 1:
		x, ok := g.ranks(ir.Bool, 0, func(d ir.DType) bool { return d == ir.Bool })
		return ok && g.add(choose(g, "And", "Or", "Xor", "Equal"), nil, 1, x, g.like(x.d))
	case 2:
		x, ok := g.ranks(g.dtype(), 0, func(d ir.DType) bool { return d.IsInt() })
		if !ok {
			return false
		}
		if g.one(3) {
			return g.add("BitShift", ir.Attrs{"direction": choose(g, "LEFT", "RIGHT")}, 1, x, g.like(x.d))
		}
		return g.add(choose(g, "BitwiseAnd", "BitwiseOr", "BitwiseXor"), nil, 1, x, g.like(x.d))
	case 3:
		x := g.number()
		return g.add("Mod", ir.Attrs{"fmod": g.bit()}, 1, x, g.like(x.d))
	}
	x := g.number()
	return g.add(choose(g, "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"), nil, 1, x, g.like(x.d))
}

func (g *generator) reduction() bool {
	switch g.n(6) {
	case 0:
		x, ok := g.ranks(g.floatType(), 1, isFloat)
		return ok && g.add("Softmax", ir.Attrs{"axis": g.axis(len(x.d.Dims))}, 1, x)
	case 1:
		x, ok := g.ranks(g.dtype(), 1, isNumber)
		return ok && g.add(choose(g, "ArgMax", "ArgMin"), ir.Attrs{"axis": g.axis(len(x.d.Dims)), "keepdims": g.bit(), "select_last_index": g.bit()}, 1, x)
	case 2:
		x, ok := g.ranks(g.dtype(), 1, isNumber)
		if !ok {
			return false
		}
		a := g.axis(len(x.d.Dims))
		k := g.n(int(x.d.Dims[(a+int64(len(x.d.Dims)))%int64(len(x.d.Dims))]) + 1)
		return g.add("TopK", ir.Attrs{"axis": a, "largest": g.bit(), "sorted": g.bit()}, 2, x, g.list(int64(k)))
	case 3:
		x, ok := g.ranks(g.dtype(), 1, isNumber)
		return ok && g.add(choose(g, "CumSum", "CumProd"), ir.Attrs{"exclusive": g.bit(), "reverse": g.bit()}, 1, x, g.list(g.axis(len(x.d.Dims))))
	}
	x := g.number()
	op, at := choose(g, "ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"), ir.Attrs{"keepdims": g.bit()}
	if r := len(x.d.Dims); r > 0 && !g.one(4) {
		axes := []int64{g.axis(r)}
		if g.one(2) {
			axes = append(axes, g.axis(r))
		}
		return g.add(op, at, 1, x, g.list(axes...))
	}
	return g.add(op, at, 1, x)
}

func (g *generator) perm(n int) []int64 {
	p := make([]int64, n)
	for i := range p {
		p[i] = int64(i)
	}
	for i := range p {
		j := g.n(n)
		p[i], p[j] = p[j], p[i]
	}
	return p
}

func (g *generator) move() bool {
	x := g.any()
	r, dims := len(x.d.Dims), x.d.Dims
	switch g.n(15) {
	case 0:
		return g.add("Shape", ir.Attrs{"start": g.n(9) - 4, "end": g.n(9) - 4}, 1, x)
	case 1:
		return g.add("Size", nil, 1, x)
	case 2:
		to := slices.Clone(dims)
		if r > 0 {
			for i, p := range g.perm(r) {
				to[i] = dims[p]
			}
			if g.bit() == 0 {
				to[g.n(r)] = -1
			}
		} else {
			to = choose(g, nil, []int64{1}, []int64{-1, 1}, []int64{2})
		}
		if r > 1 && g.one(3) {
			to = []int64{-1, dims[r-1]}
		}
		return g.add("Reshape", ir.Attrs{"allowzero": g.bit()}, 1, x, g.list(to...))
	case 3:
		return g.add("Flatten", ir.Attrs{"axis": g.n(2*r+1) - r}, 1, x)
	case 4:
		if g.one(3) {
			return g.add("Squeeze", nil, 1, x)
		}
		return g.add("Squeeze", nil, 1, x, g.list(g.axis(r)))
	case 5:
		return g.add("Unsqueeze", nil, 1, x, g.list(g.axis(r+1)))
	case 6:
		if r == 0 {
			return false
		}
		a := g.axis(r)
		vals := []made{x}
		for range g.n(3) {
			d := slices.Clone(dims)
			d[(a+int64(r))%int64(r)] = int64(g.n(4))
			vals = append(vals, g.fresh(x.d.DType, d...))
		}
		return g.add("Concat", ir.Attrs{"axis": a}, 1, vals...)
	case 7:
		if r == 0 {
			return false
		}
		var starts, ends, axes, steps []int64
		for _, a := range g.perm(r)[:1+g.n(r)] {
			starts = append(starts, int64(g.n(13)-6))
			ends = append(ends, choose(g, int64(g.n(13)-6), 1<<62, -1<<62))
			steps = append(steps, choose[int64](g, 1, 1, 2, -1, -2, 3))
			axes = append(axes, a-int64(r*g.bit()))
		}
		return g.add("Slice", nil, 1, x, g.list(starts...), g.list(ends...), g.list(axes...), g.list(steps...))
	case 8:
		to := slices.Clone(dims)
		for i := range to {
			if to[i] == 1 {
				to[i] = int64(g.n(4))
			}
		}
		if g.bit() == 0 {
			to = append([]int64{int64(1 + g.n(3))}, to...)
		}
		return g.add("Expand", nil, 1, x, g.list(to...))
	case 9:
		return g.add("Transpose", ir.Attrs{"perm": g.perm(r)}, 1, x)
	case 10:
		if r == 0 {
			return false
		}
		pads := make([]int64, 2*r)
		for i := range pads {
			pads[i] = int64(g.n(5) - 1)
		}
		at := ir.Attrs{"mode": choose(g, "constant", "constant", "reflect", "edge", "wrap")}
		if g.bit() == 0 {
			return g.add("Pad", at, 1, x, g.list(pads...), g.fresh(x.d.DType))
		}
		return g.add("Pad", at, 1, x, g.list(pads...))
	case 11:
		if r == 0 {
			return false
		}
		a, parts := g.axis(r), 1+g.n(3)
		at := ir.Attrs{"axis": a, "num_outputs": parts}
		if g.bit() == 0 {
			return g.add("Split", at, parts, x)
		}
		left, sizes := dims[(a+int64(r))%int64(r)], []int64{}
		for i := range parts {
			n := int64(g.n(int(left) + 1))
			if i == parts-1 {
				n = left
			}
			sizes, left = append(sizes, n), left-n
		}
		return g.add("Split", at, parts, x, g.list(sizes...))
	case 12:
		rep := make([]int64, r)
		for i := range rep {
			rep[i] = choose[int64](g, 0, 1, 1, 2, 3)
		}
		return g.add("Tile", nil, 1, x, g.list(rep...))
	case 13:
		dt := choose(g, ir.F32, ir.F64, ir.I64, ir.I32)
		return g.add("Range", nil, 1, g.value(g.plain(dt)), g.value(g.plain(dt)), g.value(g.plain(dt)))
	}
	return g.add("ConstantOfShape", ir.Attrs{"value": g.tensor(g.dtype(), 1)}, 1, g.list(g.dims()...))
}

// indices makes positions of an axis of n; rarely one that is out of range.
func (g *generator) indices(n int64, dims ...int64) made {
	c, _ := ir.Elements(dims)
	v := make([]int64, c)
	for i := range v {
		if n > 0 {
			v[i] = int64(g.n(int(2*n))) - n
		}
		if g.one(60) {
			v[i] = n
		}
	}
	return g.value(ir.I64s(dims, v))
}

func (g *generator) index() bool {
	x, ok := g.ranks(g.dtype(), 1, anyType)
	if !ok {
		return false
	}
	r, dims := len(x.d.Dims), x.d.Dims
	a := g.axis(r)
	p := int((a + int64(r)) % int64(r))
	sub := slices.Clone(dims)
	sub[p] = int64(g.n(5))
	switch g.n(10) {
	case 0, 1:
		return g.add("Gather", ir.Attrs{"axis": a}, 1, x, g.indices(dims[p], g.ranked(g.n(3))...))
	case 2:
		return g.add("GatherElements", ir.Attrs{"axis": a}, 1, x, g.indices(dims[p], sub...))
	case 3:
		red := choose(g, "none", "add", "mul", "max", "min")
		return g.add("ScatterElements", ir.Attrs{"axis": a, "reduction": red}, 1, x, g.indices(dims[p], sub...), g.fresh(x.d.DType, sub...))
	case 4:
		return g.add("GatherND", nil, 1, x, g.indices(slices.Min(dims), int64(g.n(4)), int64(r)))
	case 5:
		n := int64(g.n(4))
		red := choose(g, "none", "add", "mul", "max", "min")
		return g.add("ScatterND", ir.Attrs{"reduction": red}, 1, x, g.indices(slices.Min(dims), n, 1), g.fresh(x.d.DType, append([]int64{n}, dims[1:]...)...))
	case 6:
		return g.add("NonZero", nil, 1, x)
	case 7:
		return g.add("UniqueRows", ir.Attrs{"sorted": g.bit()}, 3, x)
	case 8:
		if g.bit() == 0 {
			return g.add("Trilu", ir.Attrs{"upper": g.bit()}, 1, x, g.value(ir.I64s(nil, []int64{int64(g.n(7) - 3)})))
		}
		return g.add("EyeLike", ir.Attrs{"k": g.n(5) - 2, "dtype": g.dtype()}, 1, x)
	}
	depth := int64(g.n(5))
	return g.add("OneHot", ir.Attrs{"axis": g.axis(3)}, 1, g.indices(depth, g.ranked(2)...), g.value(ir.I64s(nil, []int64{depth})), g.fresh(g.dtype(), 2))
}

func (g *generator) product() bool {
	if g.bit() == 0 {
		dt := choose(g, ir.F32, ir.F32, ir.F64)
		d := g.ranked(5)
		m, k, n := d[0], d[1], d[2]
		a, b := []int64{m, k}, []int64{k, n}
		ta, tb := g.bit(), g.bit()
		if ta == 1 {
			a = []int64{k, m}
		}
		if tb == 1 {
			b = []int64{n, k}
		}
		at := ir.Attrs{"alpha": choose(g, 1.0, 0.5, -3.0), "beta": choose(g, 1.0, 0.0, 2.0), "transA": ta, "transB": tb}
		vals := []made{g.fresh(dt, a...), g.fresh(dt, b...)}
		if g.bit() == 0 {
			vals = append(vals, g.fresh(dt, choose(g, []int64{}, []int64{n}, []int64{m, 1}, []int64{m, n})...))
		}
		return g.add("Gemm", at, 1, vals...)
	}
	x, ok := g.ranks(choose(g, ir.F32, ir.F32, ir.F64, ir.I32, ir.I64), 1, isNumber)
	if !ok {
		return false
	}
	r := len(x.d.Dims)
	b := []int64{x.d.Dims[r-1]}
	if !g.one(4) {
		b = append(b, int64(g.n(6)))
	}
	if r > 2 && len(b) == 2 && g.bit() == 0 {
		b = append(slices.Clone(x.d.Dims[:r-2]), b...)
	}
	return g.add("MatMul", nil, 1, x, g.fresh(x.d.DType, b...))
}
