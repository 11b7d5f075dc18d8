package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// coupled makes class probabilities [N,n] of the scores [N,pairs] of pairs of classes: each pair's by a sigmoid (Platt),
// then all of them coupled by the second method of Wu, Lin and Weng (2004), as libsvm does, in f32 and at most 100 turns.
func (o *op) coupled(s *ir.Value, a, b []float32, n int) *ir.Value {
	mul := func(in *op, x, y *ir.Value) *ir.Value { return in.emit("Mul", nil, x, y) }
	add := func(in *op, x, y *ir.Value) *ir.Value { return in.emit("Add", nil, x, y) }
	sub := func(in *op, x, y *ir.Value) *ir.Value { return in.emit("Sub", nil, x, y) }
	div := func(in *op, x, y *ir.Value) *ir.Value { return in.emit("Div", nil, x, y) }

	p := sub(o, o.like(s, 1), o.emit("Sigmoid", nil, add(o, mul(o, s, o.konst(f32List(a))), o.konst(f32List(b)))))
	tiny := float32(1e-7)
	p = o.emit("Min", nil, o.emit("Max", nil, p, o.like(s, float64(tiny))), o.like(s, float64(1-tiny)))
	// r[i,j]: the probability of class i where it is i or j; 0 for i = j.
	pairs := len(a)
	place, eye := make([]int64, n*n), make([]bool, n*n)
	k := 0
	for i := 0; i < n; i++ {
		place[i*n+i], eye[i*n+i] = int64(2*pairs), true
		for j := i + 1; j < n; j++ {
			place[i*n+j], place[j*n+i] = int64(k), int64(k+pairs)
			k++
		}
	}
	first := o.cut(p, 1, o.ints(0), o.ints(1), 1)
	all := o.emit("Concat", ir.Attrs{"axis": 1}, p, sub(o, o.like(s, 1), p), sub(o, first, first))
	side := []int64{int64(n), int64(n)}
	r := o.emit("Gather", ir.Attrs{"axis": 1}, all, o.konst(ir.I64s(side, place)))
	rt := o.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1}}, r)
	diag := o.emit("ReduceSum", ir.Attrs{"keepdims": 1}, mul(o, rt, rt), o.ints(2))
	q := o.emit("Where", nil, o.konst(ir.Bools(side, eye)), diag, o.emit("Neg", nil, mul(o, rt, r)))

	start := o.emit("Expand", nil, o.like(s, float64(1/float32(n))), o.shape(o.emit("Shape", ir.Attrs{"start": 0, "end": 1}, s), o.ints(int64(n))))
	return o.repeat(100, []*ir.Value{start}, func(in *op, _ *ir.Value, v []*ir.Value) (*ir.Value, []*ir.Value) {
		p := v[0]
		qp := in.emit("Squeeze", nil, in.emit("MatMul", nil, q, in.emit("Unsqueeze", nil, p, in.ints(2))), in.ints(2))
		pqp := in.emit("ReduceSum", ir.Attrs{"keepdims": 1}, mul(in, p, qp), in.ints(1))
		worst := in.emit("ReduceMax", ir.Attrs{"keepdims": 1}, in.emit("Abs", nil, sub(in, qp, pqp)), in.ints(1))
		open := in.emit("GreaterOrEqual", nil, worst, in.like(worst, float64(float32(0.005)/float32(n))))
		turned := in.repeat(int64(n), []*ir.Value{p, qp, pqp}, func(in *op, i *ir.Value, v []*ir.Value) (*ir.Value, []*ir.Value) {
			p, qp, pqp := v[0], v[1], v[2]
			at := in.emit("Unsqueeze", nil, i, in.ints(0))
			column := func(x *ir.Value) *ir.Value { return in.emit("Gather", ir.Attrs{"axis": 1}, x, at) }
			row := in.emit("Squeeze", nil, column(q), in.ints(1))
			qii, qpi, one := column(row), column(qp), in.like(p, 1)
			diff := div(in, sub(in, pqp, qpi), qii)
			here := in.cast(in.emit("Equal", nil, in.konst(i64List(from(0, n))), i), ir.F32)
			p = add(in, p, mul(in, diff, here))
			d := add(in, one, diff)
			next := add(in, pqp, mul(in, diff, add(in, mul(in, diff, qii), mul(in, in.like(p, 2), qpi))))
			return nil, []*ir.Value{div(in, p, d), div(in, add(in, qp, mul(in, diff, row)), d), div(in, div(in, next, d), d)}
		})
		more := in.emit("ReduceMax", ir.Attrs{"keepdims": 0}, open)
		return more, []*ir.Value{in.emit("Where", nil, open, turned[0], p)}
	})[0]
}

// linearSVM is SVMClassifier without support vectors: one row of coefficients per class, all with the first rho.
func (o *op) linearSVM(classes *ir.Data, coef, rho []float32, kind string) []*ir.Value {
	n := int(classes.Len())
	if n < 1 || len(rho) < 1 || len(coef) == 0 || len(coef)%n != 0 {
		return o.fail("%d coefficients and %d rho for %d classes", len(coef), len(rho), n)
	}
	o.ignore("kernel_type", "kernel_params") // always linear
	base := make([]float32, n)
	for i := range base {
		base[i] = rho[0]
	}
	s := o.linear(o.rows(), coef, base, n)
	return []*ir.Value{o.labelOf(s, classes), o.post(s, kind, n)}
}
