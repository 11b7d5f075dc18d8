package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func mlSVM() map[string]handler {
	return map[string]handler{"SVMClassifier": svmClassifier, "SVMRegressor": svmRegressor}
}

// kernel gives the kernel of x [N,F] with every row of v, [N,rows].
func (o *op) kernel(x *ir.Value, v []float32, rows int) *ir.Value {
	kind, p := o.attrStr("kernel_type", "LINEAR"), o.attrFloats("kernel_params")
	if rows < 1 || len(v)%rows != 0 {
		o.fail("%d values for %d support vectors", len(v), rows)
		return x
	}
	for len(p) < 3 {
		p = append(p, 0)
	}
	features := len(v) / rows
	c := func(f float32) *ir.Value { return o.like(x, float64(f)) }
	dot := func() *ir.Value {
		return o.emit("Gemm", ir.Attrs{"transB": 1}, x, o.konst(ir.F32s([]int64{int64(rows), int64(features)}, v)))
	}
	scaled := func() *ir.Value { return o.emit("Add", nil, o.emit("Mul", nil, dot(), c(p[0])), c(p[1])) }
	switch kind {
	case "LINEAR":
		return dot()
	case "POLY":
		return o.emit("Pow", nil, scaled(), c(p[2]))
	case "SIGMOID":
		return o.emit("Tanh", nil, scaled())
	case "RBF":
		// The sum over features runs in order, as the product with a vector of ones does.
		d := o.emit("Sub", nil, o.emit("Unsqueeze", nil, x, o.ints(1)), o.konst(ir.F32s([]int64{1, int64(rows), int64(features)}, v)))
		ones := make([]float32, features)
		for i := range ones {
			ones[i] = 1
		}
		s := o.emit("MatMul", nil, o.emit("Mul", nil, d, d), o.konst(f32List(ones)))
		return o.emit("Exp", nil, o.emit("Mul", nil, s, c(-p[0])))
	}
	o.lacks("kernel %q", kind)
	return x
}

// weighted sums the kernels k [N,vectors] with each row of coefficients, in f64, and adds rho: [N,len(rho)].
func (o *op) weighted(k *ir.Value, coef, rho []float32) *ir.Value {
	wide := func(v []float32, dims ...int64) *ir.Value {
		out := make([]float64, len(v))
		for i, x := range v {
			out[i] = float64(x)
		}
		return o.konst(ir.F64s(dims, out))
	}
	n := int64(len(rho))
	s := o.emit("Gemm", ir.Attrs{"transB": 1}, o.cast(k, ir.F64), wide(coef, n, int64(len(coef))/n), wide(rho, n))
	return o.cast(s, ir.F32)
}

// svmClassifier: one score per pair of classes (i, j), the sum of coefficients times kernels over the support vectors of
// both, plus rho; a score above 0 is a vote for i, else for j. The label is the first class with the most votes.
func svmClassifier(o *op) []*ir.Value {
	classes, kind := o.classes("classlabels_ints"), o.attrStr("post_transform", "NONE")
	coef, rho, per := o.attrFloats("coefficients"), o.attrFloats("rho"), o.attrInts("vectors_per_class")
	vectors := o.attrFloats("support_vectors")
	probA, probB := o.attrFloats("prob_a"), o.attrFloats("prob_b")
	n, total := len(per), int64(0)
	start := make([]int64, n)
	for i, k := range per {
		start[i] = total
		if k < 0 || k > 1<<31 {
			return o.fail("vectors_per_class %v", per)
		}
		total += k
	}
	if total == 0 {
		return o.linearSVM(classes, coef, rho, kind)
	}
	pairs := n * (n - 1) / 2
	if n < 2 || classes.Len() != int64(n) || int64(len(coef)) != total*int64(n-1) || len(rho) != pairs {
		return o.fail("%d classes, %d labels, %d coefficients, %d rho", n, classes.Len(), len(coef), len(rho))
	}
	x := o.rows()
	k := o.kernel(x, vectors, int(total))
	// One column of weights per pair: the coefficients of the vectors of both classes, zero elsewhere.
	w := make([]float32, int(total)*pairs)
	vote, base := make([]float32, pairs*n), make([]float32, n)
	p := 0
	for i := 0; i < n-1; i++ {
		for j := i + 1; j < n; j++ {
			for s := start[i]; s < start[i]+per[i]; s++ {
				w[int64(p)*total+s] = coef[total*int64(j-1)+s]
			}
			for s := start[j]; s < start[j]+per[j]; s++ {
				w[int64(p)*total+s] = coef[total*int64(i)+s]
			}
			vote[p*n+i], vote[p*n+j] = 1, -1
			base[j]++
			p++
		}
	}
	s := o.weighted(k, w, rho)
	won := o.emit("Cast", ir.Attrs{"to": ir.F32}, o.emit("Greater", nil, s, o.like(s, 0)))
	votes := o.emit("Gemm", nil, won, o.konst(ir.F32s([]int64{int64(pairs), int64(n)}, vote)), o.konst(f32List(base)))
	label := o.labelOf(votes, classes)
	if len(probA) > 0 {
		if len(probA) != pairs || len(probB) != pairs {
			return o.fail("%d prob_a and %d prob_b for %d pairs of classes", len(probA), len(probB), pairs)
		}
		return []*ir.Value{label, o.post(o.coupled(s, probA, probB, n), kind, n)}
	}
	if n > 2 {
		return []*ir.Value{label, o.post(s, kind, pairs)}
	}
	first := o.emit("Neg", nil, s)
	if kind != "NONE" {
		first = o.emit("Sub", nil, o.like(s, 1), s)
	}
	return []*ir.Value{label, o.emit("Concat", ir.Attrs{"axis": 1}, first, s)}
}

// svmRegressor is the sum of coefficients times kernels, plus rho; one_class gives 1 above 0, else -1.
func svmRegressor(o *op) []*ir.Value {
	coef, rho := o.attrFloats("coefficients"), o.attrFloats("rho")
	vectors, n := o.attrFloats("support_vectors"), int(o.attrInt("n_supports", 0))
	oneClass, kind := o.attrInt("one_class", 0), o.attrStr("post_transform", "NONE")
	if len(rho) < 1 || len(coef) == 0 || n > 0 && len(coef) != n {
		return o.fail("%d support vectors with %d coefficients and %d rho", n, len(coef), len(rho))
	}
	k := o.rows()
	if n > 0 {
		k = o.kernel(k, vectors, n)
	} else { // linear: the coefficients are those of the features
		o.ignore("kernel_type", "kernel_params")
	}
	rho = rho[:1]
	s := o.weighted(k, coef, rho)
	if oneClass != 0 {
		return one(o.emit("Where", nil, o.emit("Greater", nil, s, o.like(s, 0)), o.like(s, 1), o.like(s, -1)))
	}
	return one(o.post(s, kind, 1))
}
