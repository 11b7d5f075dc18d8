package codegen_test

import "strconv"

// trainingRecipes are the operators of ai.onnx.preview.training.
func trainingRecipes() map[string]recipe {
	const dom = "ai.onnx.preview.training."
	// optimizer makes n tensors with their gradients and lists of states.
	optimizer := func(g *generator, op string, states int, at attrs) bool {
		n := 1 + g.n(2)
		dt := g.floatType()
		var dims [][]int64
		for range n {
			dims = append(dims, g.somedims(g.n(3)))
		}
		ins := []made{g.real(g.f32or64(), 0.1), g.scalar(int64(g.n(4)))}
		for k := range states + 2 {
			for _, d := range dims {
				if k >= 2 && op != "Momentum" {
					ins = append(ins, g.scaleOf(dt, d...))
				} else {
					ins = append(ins, g.of(dt, d...))
				}
			}
		}
		return g.on(dom+op, -n*(states+1), at, ins...)
	}
	return map[string]recipe{
		dom + "Adagrad": func(g *generator) bool {
			return optimizer(g, "Adagrad", 1, g.some(attrs{"norm_coefficient": 0.1, "epsilon": 1e-3, "decay_factor": 0.5}))
		},
		dom + "Adam": func(g *generator) bool {
			return optimizer(g, "Adam", 2, g.some(attrs{"norm_coefficient": 0.1, "norm_coefficient_post": 0.2, "epsilon": 1e-3, "alpha": 0.8, "beta": 0.9}))
		},
		dom + "Momentum": func(g *generator) bool {
			return optimizer(g, "Momentum", 1, plus(g.some(attrs{"norm_coefficient": 0.1}), attrs{"alpha": 0.9, "beta": 0.3, "mode": choose(g, "standard", "nesterov")}))
		},
		dom + "Gradient": func(g *generator) bool {
			x := g.flt(0)
			y := g.like(x.d)
			if x.v == y.v || x.v.Const != nil {
				return false
			}
			last := x.v.Name
			n := 1 + g.n(4)
			for i := range n {
				out := "lead" + strconv.Itoa(i)
				if g.bit() == 0 {
					g.lead = append(g.lead, pbNode(choose(g, "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"), nil, []string{last, choose(g, x, y).v.Name}, []string{out}))
				} else {
					g.lead = append(g.lead, pbNode(choose(g, "Neg", "Exp", "Tanh", "Sigmoid", "Sqrt", "Log", "Sin", "Cos", "Relu", "Abs", "Round"), nil, []string{last}, []string{out}))
				}
				last = out
			}
			at := attrs{"xs": []string{x.v.Name}, "y": last}
			if y.v.Const == nil && g.bit() == 0 {
				at["xs"] = []string{x.v.Name, y.v.Name}
				return g.on(dom+"Gradient", -2, at, x, y)
			}
			at["zs"] = []string{y.v.Name}
			return g.on(dom+"Gradient", 1, at, x, y)
		},
	}
}
