package codegen_test

import (
	"slices"

	"github.com/waybill-ml/waybill/packager/ir"
)

// plainRecipes are element by element, or reductions.
func plainRecipes() map[string]recipe {
	t := map[string]recipe{}
	for _, op := range []string{"Abs", "Neg", "Sign", "Relu"} {
		t[op] = func(g *generator) bool { return g.on(op, 1, nil, g.num(0)) }
	}
	for _, op := range []string{"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Round", "Sigmoid", "Sin", "Sinh",
		"Sqrt", "Tan", "Tanh", "Reciprocal", "Softplus", "Softsign", "Mish", "HardSwish"} {
		t[op] = func(g *generator) bool { return g.on(op, 1, nil, g.flt(0)) }
	}
	for op, at := range map[string]func(*generator) attrs{
		"Celu":               func(g *generator) attrs { return attrs{"alpha": choose(g, 1.0, 0.5, 2.0, -1.0)} },
		"Elu":                func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0]} },
		"Selu":               func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0], "gamma": g.reals(1)[0]} },
		"Affine":             func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0], "beta": g.reals(1)[0]} },
		"ScaledTanh":         func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0], "beta": g.reals(1)[0]} },
		"ParametricSoftplus": func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0], "beta": g.reals(1)[0]} },
		"Scale":              func(g *generator) attrs { return attrs{"scale": g.reals(1)[0]} },
		"ImageScaler":        func(g *generator) attrs { return attrs{"scale": g.reals(1)[0]} },
		"LeakyRelu":          func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0]} },
		"ThresholdedRelu":    func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0]} },
		"HardSigmoid":        func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0], "beta": g.reals(1)[0]} },
		"Swish":              func(g *generator) attrs { return attrs{"alpha": g.reals(1)[0]} },
		"Gelu":               func(g *generator) attrs { return attrs{"approximate": choose(g, "none", "tanh")} },
	} {
		t[op] = func(g *generator) bool { return g.on(op, 1, g.some(at(g)), g.flt(0)) }
	}
	for _, op := range []string{"Add", "Sub", "Mul", "Div", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"} {
		t[op] = func(g *generator) bool {
			if g.one(6) && op != "LessOrEqual" && op != "GreaterOrEqual" { // broadcasting of old: the shape of B stands somewhere inside that of A
				x := g.num(1)
				a := g.n(len(x.d.Dims))
				n := 1 + g.n(len(x.d.Dims)-a)
				return g.on(op+"@6", 1, attrs{"broadcast": 1, "axis": a}, x, g.fresh(x.d.DType, x.d.Dims[a:a+n]...))
			}
			x := g.num(0)
			return g.on(op, 1, nil, x, g.like(x.d))
		}
	}
	for _, op := range []string{"And", "Or", "Xor"} {
		t[op] = func(g *generator) bool { x := g.boolean(0); return g.on(op, 1, nil, x, g.like(x.d)) }
	}
	t["Not"] = func(g *generator) bool { return g.on("Not", 1, nil, g.boolean(0)) }
	for _, op := range []string{"Min", "Max", "Sum", "Mean"} {
		t[op] = func(g *generator) bool {
			x := g.num(0)
			if op == "Sum" || op == "Mean" {
				x = g.flt(0)
			}
			ins := []made{x}
			for range g.n(4) {
				ins = append(ins, g.like(x.d))
			}
			return g.on(op, 1, nil, ins...)
		}
	}
	for _, op := range []string{"BitwiseAnd", "BitwiseOr", "BitwiseXor"} {
		t[op] = func(g *generator) bool { x := g.integer(0); return g.on(op, 1, nil, x, g.like(x.d)) }
	}
	t["BitwiseNot"] = func(g *generator) bool { return g.on("BitwiseNot", 1, nil, g.integer(0)) }
	t["BitShift"] = func(g *generator) bool {
		x := g.integer(0)
		return g.on("BitShift", 1, attrs{"direction": choose(g, "LEFT", "RIGHT")}, x, g.like(x.d))
	}
	t["BitCast"] = func(g *generator) bool {
		x := g.thing(0)
		to := append(append([]ir.DType{ir.Bool}, numeric...), storedTypes...)
		to = slices.DeleteFunc(to, func(d ir.DType) bool { return d.Bits() != x.d.DType.Bits() })
		if len(to) == 0 {
			return false
		}
		return g.on("BitCast", 1, attrs{"to": to[g.n(len(to))]}, x)
	}
	anyTo := func(g *generator) ir.DType {
		to := append(append([]ir.DType{ir.Bool, ir.String, ir.String}, numeric...), storedTypes...)
		return to[g.n(len(to))]
	}
	t["Cast"] = func(g *generator) bool {
		return g.on("Cast", 1, g.some(attrs{"to": anyTo(g), "saturate": g.bit(), "round_mode": choose(g, "up", "down", "nearest")}), g.thing(0))
	}
	t["CastLike"] = func(g *generator) bool {
		return g.on("CastLike", 1, g.some(attrs{"saturate": g.bit(), "round_mode": choose(g, "up", "down", "nearest")}), g.thing(0), g.fresh(anyTo(g), g.somedims(g.n(3))...))
	}
	t["Clip"] = func(g *generator) bool {
		x := g.num(0)
		bound := func() made { return g.fresh(x.d.DType) }
		return g.on("Clip", 1, nil, x, g.maybe(bound), g.maybe(bound))
	}
	t["Where"] = func(g *generator) bool {
		c, x := g.boolean(0), g.thing(0)
		return g.on("Where", 1, nil, c, x, g.like(x.d))
	}
	t["Mod"] = func(g *generator) bool {
		x := g.num(0)
		return g.on("Mod", 1, attrs{"fmod": g.bit()}, x, g.like(x.d))
	}
	t["Pow"] = func(g *generator) bool {
		x := g.num(0)
		if g.one(3) {
			return g.on("Pow", 1, nil, x, g.fresh(g.dtype(), choose(g, []int64{}, []int64{1}, x.d.Dims)...))
		}
		return g.on("Pow", 1, nil, x, g.like(x.d))
	}
	t["PRelu"] = func(g *generator) bool {
		x := g.flt(1)
		r := len(x.d.Dims)
		return g.on("PRelu", 1, nil, x, g.fresh(x.d.DType, x.d.Dims[g.n(r):]...))
	}
	t["Shrink"] = func(g *generator) bool {
		return g.on("Shrink", 1, g.some(attrs{"bias": g.reals(1)[0], "lambd": g.reals(1)[0]}), g.num(0))
	}
	t["SwiGLU"] = func(g *generator) bool {
		x := g.flt(0)
		return g.on("SwiGLU", 1, g.some(attrs{"alpha": g.reals(1)[0]}), x, g.of(x.d.DType, x.d.Dims...))
	}
	t["IsNaN"] = func(g *generator) bool {
		if g.one(5) {
			return g.on("IsNaN", 1, nil, g.fresh(choose(g, ir.F8E4M3FN, ir.F8E4M3FNUZ, ir.F8E5M2, ir.F8E5M2FNUZ), g.dims()...))
		}
		return g.on("IsNaN", 1, nil, g.flt(0))
	}
	t["IsInf"] = func(g *generator) bool {
		return g.on("IsInf", 1, g.some(attrs{"detect_positive": g.bit(), "detect_negative": g.bit()}), g.flt(0))
	}
	t["Identity"] = func(g *generator) bool { return g.on("Identity", 1, nil, g.thing(0)) }
	t["Dropout"] = func(g *generator) bool {
		if g.one(2) {
			return g.on("Dropout", -2, nil, g.flt(0))
		}
		// Only the run tells that nothing is to be drawn.
		return g.on("Dropout", -2, nil, g.flt(0), g.real(ir.F32, 0.5), g.value(ir.Bools([]int64{}, []bool{false})))
	}
	t["Constant"] = func(g *generator) bool {
		return g.on("Constant", 1, choose(g, attrs{"value": g.data(g.dtype(), g.somedims(g.n(3))...)}, attrs{"value_float": g.float()}, attrs{"value_floats": g.reals(3)},
			attrs{"value_int": g.n(9)}, attrs{"value_ints": g.between(2, -3, 3)}, attrs{"value_string": "é"}, attrs{"value_strings": []string{"a", ""}}))
	}
	for _, op := range []string{"Softmax", "LogSoftmax", "Hardmax"} {
		t[op] = func(g *generator) bool {
			x := g.flt(1)
			return g.on(g.ver(op, 1, 28), 1, g.some(attrs{"axis": g.n(len(x.d.Dims))}), x)
		}
	}
	for _, op := range []string{"ArgMax", "ArgMin"} {
		t[op] = func(g *generator) bool {
			x := g.num(1)
			return g.on(op, 1, g.some(attrs{"axis": g.axis(len(x.d.Dims)), "keepdims": g.bit(), "select_last_index": g.bit()}), x)
		}
	}
	for _, op := range []string{"CumSum", "CumProd"} {
		t[op] = func(g *generator) bool {
			x := g.num(1)
			return g.on(op, 1, g.some(attrs{"exclusive": g.bit(), "reverse": g.bit()}), x, g.wholes(nil, g.axis(len(x.d.Dims))))
		}
	}
	for _, op := range []string{"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"} {
		t[op] = func(g *generator) bool {
			x := g.num(0)
			if (op == "ReduceMax" || op == "ReduceMin") && g.one(5) {
				x = g.boolean(1)
			}
			r := len(x.d.Dims)
			at := g.some(attrs{"keepdims": g.bit()})
			if r > 0 && g.one(4) {
				at["axes"] = []int64{int64(g.n(r))}
				return g.on(op+"@11", 1, at, x)
			}
			if g.one(3) {
				at["noop_with_empty_axes"] = g.bit()
			}
			var axes made
			switch {
			case g.one(4):
			case g.one(8):
				axes = g.list()
			case r > 0:
				axes = g.list(g.perm(r)[:1+g.n(r)]...)
			}
			return g.on(op, 1, at, x, axes)
		}
	}
	t["TopK"] = func(g *generator) bool {
		x := g.num(1)
		a := g.axis(len(x.d.Dims))
		n := x.d.Dims[(a+int64(len(x.d.Dims)))%int64(len(x.d.Dims))]
		return g.on("TopK", -2, g.some(attrs{"axis": a, "largest": g.bit(), "sorted": g.bit()}), x, g.list(int64(g.n(int(n)+1))))
	}

	t["MatMul"] = func(g *generator) bool {
		dt := choose(g, ir.F32, ir.F64, ir.F16, ir.BF16, ir.I32, ir.I64, ir.U32, ir.U64)
		m, k, n := g.dim(), choose(g, g.dim(), 17, 33), g.dim()
		a, b := []int64{m, k}, []int64{k, n}
		if g.one(3) {
			a = append([]int64{choose(g, 1, g.dim())}, a...)
		}
		if g.one(3) {
			b = append(slices.Clone(a[:len(a)-2]), b...)
		}
		switch {
		case g.one(6):
			a = []int64{k}
		case g.one(6):
			b = []int64{k}
		}
		return g.on("MatMul", 1, nil, g.of(dt, a...), g.of(dt, b...))
	}
	t["Gemm"] = func(g *generator) bool {
		dt := choose(g, ir.F32, ir.F64, ir.F16, ir.BF16, ir.I32, ir.I64)
		m, k, n := g.dim(), choose(g, g.dim(), 20), choose(g, g.dim(), 9)
		a, b, ta, tb := []int64{m, k}, []int64{k, n}, g.bit(), g.bit()
		if ta == 1 {
			slices.Reverse(a)
		}
		if tb == 1 {
			slices.Reverse(b)
		}
		c := g.maybe(func() made {
			return g.fresh(dt, choose(g, []int64{}, []int64{n}, []int64{m, 1}, []int64{m, n}, []int64{1, n})...)
		})
		return g.on("Gemm", 1, g.some(attrs{"alpha": choose(g, 1.0, 0.5, -2.0), "beta": choose(g, 1.0, 0.0, 3.0), "transA": ta, "transB": tb}), g.of(dt, a...), g.of(dt, b...), c)
	}
	t["Einsum"] = func(g *generator) bool {
		dt := choose(g, ir.F32, ir.F64, ir.I32, ir.I64, ir.F16)
		i, j, k, l := g.dim(), g.dim(), g.dim(), g.dim()
		of := func(d ...int64) made { return g.of(dt, d...) }
		switch g.n(10) {
		case 0:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "ij,jk->ik", "ij,jk", " i j , j k -> k i ", "ij,jk->", "ij,jk->j")}, of(i, j), of(j, k))
		case 1:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "ij->ji", "ij->i", "ij->", "ij->j", "...->...")}, of(i, j))
		case 2:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "ii->i", "ii->", "ii")}, of(i, i))
		case 3:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "bij,bjk->bik", "bij,bjk->ik", "...ij,...jk->...ik")}, of(l, i, j), of(l, j, k))
		case 4:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "i,j->ij", "i,j->ji", "i,j->")}, of(i), of(j))
		case 5:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "i,i->", "i,i->i", "i,i")}, of(i), of(i))
		case 6:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "ij,jk,kl->il", "ij,jk,kl->jl")}, of(i, j), of(j, k), of(k, l))
		case 7:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "...i,i->...", "...i,i")}, of(j, k, i), of(i))
		case 8:
			return g.on("Einsum", 1, attrs{"equation": choose(g, "bhqd,bhkd->bhqk", "bqhd,bkhd->bhqk")}, of(i, j, k, l), of(i, j, k, l))
		}
		return g.on("Einsum", 1, attrs{"equation": choose(g, "iij->ij", "iij->j", "iji->j")}, of(i, i, i))
	}
	t["Det"] = func(g *generator) bool {
		n := g.dim()
		return g.on("Det", 1, nil, g.of(g.f32or64(), append(g.somedims(g.n(2)), n, n)...))
	}
	for _, op := range []string{"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"} {
		t[op] = func(g *generator) bool {
			dt, c := g.floatType(), 1+int64(g.n(4))
			d := append([]int64{g.dim()}, g.somedims(g.n(3))...)
			n, _ := ir.Elements(d)
			at := attrs{"reduction": choose(g, "none", "mean", "sum")}
			if g.one(3) {
				at["ignore_index"] = g.n(int(c))
			}
			outs := 1
			if op == "SoftmaxCrossEntropyLoss" {
				outs = -2
			}
			return g.on(op, outs, g.some(at), g.of(dt, append([]int64{d[0], c}, d[1:]...)...), g.wholes(d, g.between(int(n), 0, c-1)...), g.maybe(func() made { return g.fresh(dt, c) }))
		}
	}
	return t
}
