package trees

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// Link is the function that turns raw margins into predictions.
type Link int

// Links.
const (
	Identity   Link = iota
	Exp             // e^x
	Log1pExp        // log(1 + e^x)
	SignSquare      // sign(x) x²
	Logistic        // 1 / (1 + e^(-Scale x)), of a number that is no class probability
	Step            // 1 where x > 0, else 0
	Binary          // label, and probabilities [1-p, p] with p as in Logistic
	BinaryRaw       // the same with p = x
	Softmax         // label, and probabilities
	OneVsAll        // label, and p as in Logistic for each class
)

// Graph makes the outputs of a model and with them the graph.
type Graph struct {
	b *ir.Builder
	X *ir.Value // the input, [N, features]
	d ir.DType
}

// NewGraph starts a graph with its one input X.
func NewGraph(d ir.DType, features int) *Graph {
	b := ir.NewBuilder()
	x := b.Param("X", ir.TensorOf(d, ir.ShapeOf(ir.Symbol("N"), ir.Static(int64(features)))))
	return &Graph{b: b, X: x, d: d}
}

// Op adds an operation.
func (g *Graph) Op(name, op string, a ir.Attrs, ins ...*ir.Value) *ir.Value {
	return g.b.Op(name, op, a, ins...)
}

// Reals makes a constant of f64 or f32, as d says.
func (g *Graph) Reals(name string, d ir.DType, dims []int64, v []float64) *ir.Value {
	return g.b.Const(name, ir.FloatData(d, dims, v))
}

func (g *Graph) scalar(name string, v float64) *ir.Value {
	return g.Reals(name, ir.F64, nil, []float64{v})
}

// Ints makes a constant vector of i64.
func (g *Graph) Ints(name string, v ...int64) *ir.Value {
	return g.b.Const(name, ir.I64s([]int64{int64(len(v))}, v))
}

// Cast changes the element type; the same type gives v itself.
func (g *Graph) Cast(name string, v *ir.Value, d ir.DType) *ir.Value {
	if v.Type.DType == d {
		return v
	}
	return g.b.Op(name, "Cast", ir.Attrs{"to": d}, v)
}

// Finish adds the outputs for the raw margins s [N, outputs]. A classifier has label (i64 [N]), probabilities [N, classes]
// and margin; everything else has prediction, and margin when a link other than Identity lies between. prediction and
// margin are [N] for one output. The links are computed in f64 and rounded once to the input's type. raw is what margin
// shows; usually s itself.
func (g *Graph) Finish(s, raw *ir.Value, outputs int, link Link, scale float64) (*ir.Graph, error) {
	wide := g.Cast("margin.f64", s, ir.F64)
	flat := func(name string, v *ir.Value) *ir.Value {
		if outputs == 1 {
			return g.b.Op(name, "Reshape", nil, v, g.Ints(name+".shape", -1))
		}
		return g.b.Op(name, "Identity", nil, v)
	}
	narrow := func(name string, v *ir.Value) *ir.Value { return g.Cast(name, v, g.d) }
	logistic := func() *ir.Value {
		x := wide
		if scale != 1 {
			x = g.b.Op("scaled", "Mul", nil, x, g.scalar("scale", scale))
		}
		return g.b.Op("sigmoid", "Sigmoid", nil, x)
	}
	margin := flat("margin", raw)
	var p *ir.Value
	switch link {
	case Identity:
		if raw == s {
			return g.b.Graph("trees", flat("prediction", s))
		}
		p = wide
	case Exp:
		p = g.b.Op("exp", "Exp", nil, wide)
	case Log1pExp:
		p = g.log1pExp(wide)
	case SignSquare:
		p = g.b.Op("square", "Mul", nil, wide, g.b.Op("abs", "Abs", nil, wide))
	case Logistic:
		p = logistic()
	case Step:
		p = g.b.Op("step", "Cast", ir.Attrs{"to": ir.F64}, g.b.Op("positive", "Greater", nil, wide, g.scalar("zero", 0)))
	case Binary, BinaryRaw:
		p := wide
		if link == Binary {
			p = logistic()
		}
		p1 := narrow("p1", p)
		one := g.Reals("one", g.d, nil, []float64{1})
		probs := g.b.Op("probabilities", "Concat", ir.Attrs{"axis": 1}, g.b.Op("p0", "Sub", nil, one, p1), p1)
		above := g.b.Op("above", "Greater", nil, p1, g.Reals("half", g.d, nil, []float64{0.5}))
		label := g.b.Op("label", "Reshape", nil, g.b.Op("class", "Cast", ir.Attrs{"to": ir.I64}, above), g.Ints("label.shape", -1))
		return g.b.Graph("trees", label, probs, margin)
	case Softmax, OneVsAll:
		if link == Softmax {
			p = g.b.Op("softmax", "Softmax", ir.Attrs{"axis": 1}, wide)
		} else {
			p = logistic()
		}
		probs := g.b.Op("probabilities", "Identity", nil, narrow("p", p))
		label := g.b.Op("label", "ArgMax", ir.Attrs{"axis": 1, "keepdims": 0}, s)
		return g.b.Graph("trees", label, probs, margin)
	}
	return g.b.Graph("trees", flat("prediction", narrow("p", p)), margin)
}

// log1pExp is max(x, 0) + log(1 + e), with e = exp(-|x|). Where 1 + e has lost digits of e, log(1 + e) * e/((1 + e) - 1)
// makes up for them; where it has lost all, e itself is the logarithm.
func (g *Graph) log1pExp(x *ir.Value) *ir.Value {
	one := g.scalar("one", 1)
	e := g.b.Op("e", "Exp", nil, g.b.Op("minus", "Neg", nil, g.b.Op("size", "Abs", nil, x)))
	u := g.b.Op("u", "Add", nil, one, e)
	ratio := g.b.Op("ratio", "Div", nil, e, g.b.Op("kept", "Sub", nil, u, one))
	l := g.b.Op("log1p", "Where", nil, g.b.Op("tiny", "Equal", nil, u, one), e, g.b.Op("corrected", "Mul", nil, g.b.Op("log", "Log", nil, u), ratio))
	return g.b.Op("softplus", "Add", nil, g.b.Op("ramp", "Max", nil, x, g.scalar("none", 0)), l)
}

// Columns gives the names of the features as the columns of X when they can be: one each, all different, and not more
// than an interface document takes.
func Columns(names []string, features int) []string {
	if len(names) != features {
		return nil
	}
	seen, size := make(map[string]bool, len(names)), 0
	for _, n := range names {
		if size += len(n); n == "" || seen[n] || size > 1<<20 || len(seen) > 1<<15 {
			return nil
		}
		seen[n] = true
	}
	return names
}

// Logit is the margin of a probability, in f32 like XGBoost's.
func Logit(p float32) float64 {
	return -float64(float32(Log(float64(1/p - 1))))
}
