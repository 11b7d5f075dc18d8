package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// trainingOps are the operators of ai.onnx.preview.training: they compute from their inputs alone, as all others do.
func trainingOps() map[string]handler {
	return map[string]handler{"Gradient": gradient, "Adagrad": optimizer(1, adagrad), "Adam": optimizer(2, adam), "Momentum": optimizer(1, momentum)}
}

// optimizer serves operators with the inputs R, T, all X, all gradients, and `states` lists of states. The outputs are
// all new X and then the lists of new states. f gets X, the gradient (with the term of norm_coefficient) and the states.
func optimizer(states int, f func(o *op, r, t, x, g *ir.Value, s []*ir.Value) []*ir.Value) handler {
	return func(o *op) []*ir.Value {
		n := len(o.ins) - 2
		if n < 1 || n%(states+2) != 0 {
			return o.fail("%d inputs", len(o.ins))
		}
		n /= states + 2
		norm := o.attrFloat("norm_coefficient", 0)
		outs := make([]*ir.Value, n*(states+1))
		r, t := o.need(0), o.need(1)
		for i := 0; i < n; i++ {
			x, g := o.need(2+i), o.need(2+n+i)
			if !x.Type.DType.IsFloat() {
				return o.fail("X is %s", x.Type)
			}
			g = o.emit("Add", nil, o.emit("Mul", nil, x, o.like(x, norm)), g)
			var s []*ir.Value
			for k := 0; k < states; k++ {
				s = append(s, o.need(2+(2+k)*n+i))
			}
			for k, v := range f(o, o.cast(r, x.Type.DType), t, x, g, s) {
				outs[k*n+i] = v
			}
			if o.err != nil {
				return nil
			}
		}
		return outs
	}
}

// adagrad: r = R / (1 + T*decay), H' = H + G*G, X' = X - r*G/(sqrt(H') + epsilon).
func adagrad(o *op, r, t, x, g *ir.Value, s []*ir.Value) []*ir.Value {
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	decay := f("Add", f("Mul", o.cast(t, x.Type.DType), o.like(x, o.attrFloat("decay_factor", 0))), o.like(x, 1))
	h := f("Add", s[0], f("Mul", g, g))
	d := f("Add", o.emit("Sqrt", nil, h), o.like(x, o.attrFloat("epsilon", 1e-6)))
	return []*ir.Value{f("Sub", x, f("Div", f("Mul", f("Div", r, decay), g), d)), h}
}

// adam: V' = alpha*V + (1-alpha)*G, H' = beta*H + (1-beta)*G*G, X' = (1-post)*(X - r*V'/(sqrt(H') + epsilon)), where
// r = R*sqrt(1-beta^T)/(1-alpha^T) for T above 0.
func adam(o *op, r, t, x, g *ir.Value, s []*ir.Value) []*ir.Value {
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	alpha, beta := o.like(x, o.attrFloat("alpha", 0.9)), o.like(x, o.attrFloat("beta", 0.999))
	one := o.like(x, 1)
	v := f("Add", f("Mul", alpha, s[0]), f("Mul", f("Sub", one, alpha), g))
	h := f("Add", f("Mul", beta, s[1]), f("Mul", f("Sub", one, beta), f("Mul", g, g)))
	tf := o.cast(t, x.Type.DType)
	rest := func(b *ir.Value) *ir.Value { return f("Sub", one, f("Pow", b, tf)) }
	later := f("Div", f("Mul", r, o.emit("Sqrt", nil, rest(beta))), rest(alpha))
	r = o.emit("Where", nil, f("Greater", tf, o.like(x, 0)), later, r)
	d := f("Add", o.emit("Sqrt", nil, h), o.like(x, o.attrFloat("epsilon", 1e-6)))
	y := f("Sub", x, f("Div", f("Mul", r, v), d))
	post := o.like(x, 1-float64(float32(o.attrFloat("norm_coefficient_post", 0))))
	return []*ir.Value{f("Mul", post, y), v, h}
}

// momentum: V' = alpha*V + b*G with b = 1 when T is 0, else beta; X' = X - R*V', nesterov: X - R*(G + alpha*V').
func momentum(o *op, r, t, x, g *ir.Value, s []*ir.Value) []*ir.Value {
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	alpha := o.like(x, o.attrFloat("alpha", 0))
	first := f("Greater", t, o.like(t, 0))
	b := o.emit("Where", nil, first, o.like(x, o.attrFloat("beta", 0)), o.like(x, 1))
	v := f("Add", f("Mul", alpha, s[0]), f("Mul", b, g))
	step := v
	switch mode := o.attrStr("mode", ""); mode {
	case "standard":
	case "nesterov":
		step = f("Add", g, f("Mul", alpha, v))
	default:
		return o.fail("mode %q", mode)
	}
	if !o.hasAttr("alpha") || !o.hasAttr("beta") {
		return o.fail("alpha or beta is missing")
	}
	return []*ir.Value{f("Sub", x, f("Mul", r, step)), v}
}
