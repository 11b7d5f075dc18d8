package onnx

import (
	"math"
	"sync"

	"github.com/waybill-ml/waybill/packager/ir"
)

// gradient is Gradient of ai.onnx.preview.training: the derivatives of the sum of y's elements with respect to xs. The
// nodes between xs, zs and y are evaluated with the node's inputs in the place of xs and zs, and differentiated in
// reverse, into canonical nodes; so a Gradient of a Gradient works too. An x on which y does not depend gives zeros.
func gradient(o *op) []*ir.Value {
	xs, zs, name := o.attrStrs("xs"), o.attrStrs("zs"), o.attrStr("y", "")
	if len(xs) == 0 || len(o.ins) != len(xs)+len(zs) {
		return o.fail("%d inputs for %d xs and %d zs", len(o.ins), len(xs), len(zs))
	}
	t := &tape{o: o, adj: map[*ir.Value]*ir.Value{}, now: map[*ir.Value]*ir.Value{}, live: map[*ir.Value]bool{}}
	var wrt []*ir.Value
	for i, s := range append(append([]string{}, xs...), zs...) {
		v := o.sc.find(s)
		if v == nil {
			return o.fail("there is no value %q", s)
		}
		in := o.need(i)
		if o.err == nil && (in.Type.Kind != ir.Tensor || i < len(xs) && !in.Type.DType.IsFloat()) {
			return o.fail("a derivative with respect to %q, which is %s", s, in.Type)
		}
		t.now[v] = in
		if i < len(xs) {
			t.live[in] = true
			wrt = append(wrt, in)
		}
	}
	y := o.sc.find(name)
	if y == nil {
		return o.fail("there is no value %q", name)
	}
	if o.err != nil {
		return nil
	}
	nodes := t.forward(y)
	y = t.value(y)
	if o.err != nil {
		return nil
	}
	if t.live[y] {
		one := o.like(y, 1)
		if r := y.Type.Shape; !r.Ranked || r.Rank() > 0 {
			one = o.emit("Expand", nil, one, o.emit("Shape", nil, y))
		}
		t.adj[y] = one
	}
	for i := len(nodes) - 1; i >= 0 && o.err == nil; i-- {
		t.backward(nodes[i])
	}
	var outs []*ir.Value
	for _, x := range wrt {
		g := t.adj[x]
		if g == nil && o.err == nil {
			g = o.emit("Expand", nil, o.like(x, 0), o.emit("Shape", nil, x))
		}
		outs = append(outs, g)
	}
	return outs
}

// tape differentiates a list of canonical nodes.
type tape struct {
	o    *op
	now  map[*ir.Value]*ir.Value // what stands for a value of the model
	adj  map[*ir.Value]*ir.Value // derivative of y with respect to it
	live map[*ir.Value]bool      // depends on xs, differentiably
}

func (t *tape) value(v *ir.Value) *ir.Value {
	if w, ok := t.now[v]; ok {
		return w
	}
	return v
}

// forward gives the nodes from which y comes, back to xs and zs, in order; those that see a replaced value are copied.
func (t *tape) forward(y *ir.Value) []*ir.Node {
	o := t.o
	made := map[*ir.Value]*ir.Node{}
	for _, n := range o.r.Nodes {
		for _, v := range n.Outs {
			if v != nil {
				made[v] = n
			}
		}
	}
	wanted := map[*ir.Node]bool{}
	todo := []*ir.Value{y}
	for len(todo) > 0 {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		n := made[v]
		if _, stop := t.now[v]; stop || n == nil || wanted[n] {
			continue
		}
		wanted[n] = true
		for _, in := range n.Ins {
			if in != nil {
				todo = append(todo, in)
			}
		}
		for _, r := range n.Regions {
			todo = append(todo, r.Captures...)
		}
	}
	var out []*ir.Node
	for _, n := range append([]*ir.Node(nil), o.r.Nodes...) {
		if !wanted[n] {
			continue
		}
		copied, live := false, false
		ins := make([]*ir.Value, len(n.Ins))
		for i, in := range n.Ins {
			if ins[i] = in; in != nil {
				ins[i] = t.value(in)
				copied, live = copied || ins[i] != in, live || t.live[ins[i]]
			}
		}
		for _, r := range n.Regions {
			for _, c := range r.Captures {
				if w := t.value(c); w != c || t.live[w] {
					o.lacks("the derivative through %s (node %q)", n.Op, n.Name)
					return nil
				}
			}
		}
		if copied {
			if len(n.Regions) > 0 {
				o.lacks("%s (node %q) between other values than those of the graph", n.Op, n.Name)
				return nil
			}
			a := ir.Attrs{}
			for k, v := range n.Attrs {
				a[k] = v
			}
			outs := o.emitN(n.Op, a, len(n.Outs), ins...)
			if o.err != nil {
				return nil
			}
			for i, v := range n.Outs {
				if v != nil {
					t.now[v] = outs[i]
				}
			}
			n = o.r.Nodes[len(o.r.Nodes)-1]
		}
		for _, v := range n.Outs {
			if v != nil && live && v.Type.Kind == ir.Tensor && v.Type.DType.IsFloat() {
				t.live[v] = true
			}
		}
		out = append(out, n)
	}
	return out
}

// backward adds what a node's outputs hand to its inputs.
func (t *tape) backward(n *ir.Node) {
	gs := make([]*ir.Value, len(n.Outs))
	some := false
	for i, v := range n.Outs {
		if v != nil {
			gs[i] = t.adj[v]
			some = some || gs[i] != nil
		}
	}
	if !some {
		return
	}
	rule, ok := derivatives()[n.Op]
	if !ok || len(n.Regions) > 0 {
		t.o.lacks("the derivative of %s (node %q)", n.Op, n.Name)
		return
	}
	for i, in := range n.Ins {
		if in == nil || !t.live[in] {
			continue
		}
		g := rule(t, n, i, gs)
		if t.o.err != nil {
			return
		}
		if g == nil {
			continue
		}
		if old := t.adj[in]; old != nil {
			g = t.o.emit("Add", nil, old, g)
		}
		t.adj[in] = g
	}
}

// fit undoes broadcasting: g, which has the shape of the result, is summed over the dims that x lacks or has with size 1.
func (t *tape) fit(g, x *ir.Value) *ir.Value {
	o := t.o
	a, b := g.Type.Shape, x.Type.Shape
	if !a.Ranked || !b.Ranked {
		o.lacks("a derivative of values whose rank is known only at run time")
		return g
	}
	lead := a.Rank() - b.Rank()
	axes, open := from(0, lead), false
	for i, d := range b.Dims {
		other := a.Dims[lead+i]
		switch {
		case d.IsStatic() && d.N == 1:
			if !other.IsStatic() || other.N != 1 {
				axes = append(axes, int64(lead+i))
			}
		case !d.IsStatic() && !d.Same(other):
			open = true
		}
	}
	if !open && len(axes) == 0 {
		return g
	}
	list := o.ints(axes...)
	if open { // which dims are 1 is seen at run time; a first dim of 1 keeps the list from being empty
		sizes := []*ir.Value{o.ints(1)}
		for i := 0; i < lead; i++ {
			sizes = append(sizes, o.ints(1))
		}
		sizes = append(sizes, o.emit("Shape", nil, x))
		is := o.emit("Equal", nil, o.emit("Concat", ir.Attrs{"axis": 0}, sizes...), o.ints(1))
		list = o.emit("Reshape", nil, o.emit("NonZero", nil, is), o.ints(-1))
		g = o.emit("Unsqueeze", nil, g, o.ints(0))
	}
	g = o.emit("ReduceSum", ir.Attrs{"keepdims": 1}, g, list)
	return t.shaped(g, x)
}

// shaped gives g the shape of x, which has as many elements.
func (t *tape) shaped(g, x *ir.Value) *ir.Value {
	if s, ok := x.Type.Shape.Static(); ok {
		return t.o.emit("Reshape", ir.Attrs{"allowzero": 1}, g, t.o.ints(s...))
	}
	return t.o.emit("Reshape", ir.Attrs{"allowzero": 1}, g, t.o.emit("Shape", nil, x))
}

// spread repeats g, reduced over axes (absent: all), along them to the shape of x.
func (t *tape) spread(n *ir.Node, g *ir.Value) *ir.Value {
	o, x := t.o, n.Ins[0]
	if axes := n.In(1); n.Int("keepdims") == 0 && axes != nil {
		g = o.emit("Unsqueeze", nil, g, axes)
	}
	return o.emit("Expand", nil, g, o.emit("Shape", nil, x))
}

// placed adds g into zeros where the node took its elements from. move runs the node on the positions of x's elements.
func (t *tape) placed(x, g *ir.Value, move func(at *ir.Value) *ir.Value) *ir.Value {
	o := t.o
	count := o.emit("Size", nil, x)
	at := o.emit("Range", nil, o.scalar(ir.I64, 0), count, o.scalar(ir.I64, 1))
	at = o.flat(move(t.shaped(at, x)))
	// One place more takes what comes from nowhere.
	zeros := o.zeros(x.Type.DType, o.emit("Reshape", nil, o.emit("Add", nil, count, o.scalar(ir.I64, 1)), o.ints(1)))
	sum := o.emit("ScatterElements", ir.Attrs{"axis": 0, "reduction": "add"}, zeros, at, o.flat(g))
	return t.shaped(o.cut(sum, 0, o.ints(0), o.ints(-1), 1), x)
}

// derivative gives what output derivatives gs (nil where y does not depend) contribute to input i.
type derivative = func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value

// derivatives is the table of rules by canonical operator. It is built once and never changed.
var derivatives = sync.OnceValue(func() map[string]derivative {
	return map[string]derivative{
		"Identity": pass, "Neg": along(func(o *op, g, x, y *ir.Value) *ir.Value { return o.emit("Neg", nil, g) }),
		"Cast": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
			return t.o.cast(gs[0], n.Ins[0].Type.DType)
		},
		"Sign": none, "Floor": none, "Ceil": none, "Round": none,
		"Abs": times(func(o *op, x, y *ir.Value) *ir.Value { return o.emit("Sign", nil, x) }),
		"Exp": times(func(o *op, x, y *ir.Value) *ir.Value { return y }),
		"Log": along(func(o *op, g, x, y *ir.Value) *ir.Value { return o.emit("Div", nil, g, x) }),
		"Sqrt": along(func(o *op, g, x, y *ir.Value) *ir.Value {
			return o.emit("Div", nil, o.emit("Mul", nil, g, o.like(g, 0.5)), y)
		}),
		"Tanh": times(func(o *op, x, y *ir.Value) *ir.Value { return o.emit("Sub", nil, o.like(y, 1), o.square(y)) }),
		"Sigmoid": times(func(o *op, x, y *ir.Value) *ir.Value {
			return o.emit("Mul", nil, y, o.emit("Sub", nil, o.like(y, 1), y))
		}),
		"Relu": along(func(o *op, g, x, y *ir.Value) *ir.Value {
			return o.emit("Where", nil, o.emit("Greater", nil, x, o.like(x, 0)), g, o.like(g, 0))
		}),
		"Erf": times(func(o *op, x, y *ir.Value) *ir.Value {
			return o.emit("Mul", nil, o.emit("Exp", nil, o.emit("Neg", nil, o.square(x))), o.like(x, 2/math.Sqrt(math.Pi)))
		}),
		"Sin":  times(func(o *op, x, y *ir.Value) *ir.Value { return o.emit("Cos", nil, x) }),
		"Cos":  times(func(o *op, x, y *ir.Value) *ir.Value { return o.emit("Neg", nil, o.emit("Sin", nil, x)) }),
		"Tan":  times(func(o *op, x, y *ir.Value) *ir.Value { return o.emit("Add", nil, o.like(y, 1), o.square(y)) }),
		"Sinh": times(func(o *op, x, y *ir.Value) *ir.Value { return o.emit("Cosh", nil, x) }),
		"Cosh": times(func(o *op, x, y *ir.Value) *ir.Value { return o.emit("Sinh", nil, x) }),
		"Asin": over(func(o *op, x *ir.Value) *ir.Value {
			return o.emit("Sqrt", nil, o.emit("Sub", nil, o.like(x, 1), o.square(x)))
		}),
		"Acos": over(func(o *op, x *ir.Value) *ir.Value {
			return o.emit("Neg", nil, o.emit("Sqrt", nil, o.emit("Sub", nil, o.like(x, 1), o.square(x))))
		}),
		"Atan": over(func(o *op, x *ir.Value) *ir.Value { return o.emit("Add", nil, o.like(x, 1), o.square(x)) }),
		"Asinh": over(func(o *op, x *ir.Value) *ir.Value {
			return o.emit("Sqrt", nil, o.emit("Add", nil, o.like(x, 1), o.square(x)))
		}),
		"Acosh": over(func(o *op, x *ir.Value) *ir.Value {
			return o.emit("Sqrt", nil, o.emit("Sub", nil, o.square(x), o.like(x, 1)))
		}),
		"Atanh": over(func(o *op, x *ir.Value) *ir.Value { return o.emit("Sub", nil, o.like(x, 1), o.square(x)) }),
		"Add":   func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value { return t.fit(gs[0], n.Ins[i]) },
		"Sub": func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
			g := gs[0]
			if i == 1 {
				g = t.o.emit("Neg", nil, g)
			}
			return t.fit(g, n.Ins[i])
		},
		"Mul": func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
			return t.fit(t.o.emit("Mul", nil, gs[0], n.Ins[1-i]), n.Ins[i])
		},
		"Div": func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
			g := t.o.emit("Div", nil, gs[0], n.Ins[1])
			if i == 1 {
				g = t.o.emit("Neg", nil, t.o.emit("Mul", nil, g, t.o.emit("Div", nil, n.Ins[0], n.Ins[1])))
			}
			return t.fit(g, n.Ins[i])
		},
		"Pow": powDerivative,
		"Max": chosen("GreaterOrEqual"), "Min": chosen("LessOrEqual"),
		"Where": func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
			a, b := gs[0], t.o.like(gs[0], 0)
			if i == 2 {
				a, b = b, a
			}
			return t.fit(t.o.emit("Where", nil, n.Ins[0], a, b), n.Ins[i])
		},
		"MatMul": matMulDerivative, "Gemm": gemmDerivative,
		"ReduceSum": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value { return t.spread(n, gs[0]) },
		"ReduceMean": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
			o := t.o
			c := o.emit("Div", nil, o.emit("Size", nil, n.Ins[0]), o.emit("Size", nil, gs[0]))
			return t.spread(n, o.emit("Div", nil, gs[0], o.cast(c, gs[0].Type.DType)))
		},
		"ReduceMax": extreme, "ReduceMin": extreme,
		"Softmax": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
			o, y := t.o, n.Outs[0]
			p := o.emit("Mul", nil, gs[0], y)
			s := o.emit("ReduceSum", ir.Attrs{"keepdims": 1}, p, o.ints(n.Int("axis")))
			return o.emit("Sub", nil, p, o.emit("Mul", nil, y, s))
		},
		"Reshape": reshaped, "Flatten": reshaped, "Squeeze": reshaped, "Unsqueeze": reshaped,
		"Transpose": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
			perm := n.Ints("perm")
			back := make([]int64, len(perm))
			for i, p := range perm {
				back[p] = int64(i)
			}
			return t.o.emit("Transpose", ir.Attrs{"perm": back}, gs[0])
		},
		"Expand": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value { return t.fit(gs[0], n.Ins[0]) },
		"Concat": func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
			o := t.o
			r := o.needRank(n.Ins[i])
			if o.err != nil {
				return nil
			}
			k, err := ir.Axis(n.Int("axis"), r)
			if err != nil {
				o.fail("%w", err)
				return nil
			}
			start := o.ints(0)
			for _, v := range n.Ins[:i] {
				start = o.arith("Add", start, o.size(v, k))
			}
			return o.cut(gs[0], k, start, o.arith("Add", start, o.size(n.Ins[i], k)), 1)
		},
		"Split": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
			parts := make([]*ir.Value, len(gs))
			for i, g := range gs {
				if parts[i] = g; g == nil {
					if n.Outs[i] == nil {
						t.o.lacks("the derivative of a Split with an output that nobody uses")
						return nil
					}
					parts[i] = t.o.zeros(n.Outs[i].Type.DType, t.o.emit("Shape", nil, n.Outs[i]))
				}
			}
			return t.o.emit("Concat", ir.Attrs{"axis": n.Int("axis")}, parts...)
		},
		"Slice": moved, "Gather": moved, "GatherElements": moved, "GatherND": moved, "Tile": moved,
		"Pad": func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
			if i != 0 {
				t.o.lacks("the derivative with respect to the padding of Pad (node %q)", n.Name)
				return nil
			}
			return t.placed(n.Ins[0], gs[0], func(at *ir.Value) *ir.Value {
				return t.o.emit("Pad", ir.Attrs{"mode": n.Str("mode")}, at, n.Ins[1], t.o.emit("Size", nil, n.Ins[0]), n.In(3))
			})
		},
		"Trilu": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
			return t.o.emit("Trilu", ir.Attrs{"upper": n.Int("upper")}, gs[0], n.In(1))
		},
		"CumSum": func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
			return t.o.emit("CumSum", ir.Attrs{"exclusive": n.Int("exclusive"), "reverse": 1 - n.Int("reverse")}, gs[0], n.Ins[1])
		},
		"BatchNormalization": func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
			o := t.o
			if i != 0 {
				o.lacks("the derivative with respect to the statistics of BatchNormalization (node %q)", n.Name)
				return nil
			}
			v := n.Ins[4]
			s := o.emit("Div", nil, n.Ins[1], o.emit("Sqrt", nil, o.emit("Add", nil, v, o.like(v, n.Float("epsilon")))))
			return o.emit("Mul", nil, gs[0], o.trail(s, o.needRank(n.Ins[0])-2))
		},
	}
})

func (o *op) square(x *ir.Value) *ir.Value { return o.emit("Mul", nil, x, x) }

func pass(_ *tape, _ *ir.Node, _ int, gs []*ir.Value) *ir.Value { return gs[0] }

func none(*tape, *ir.Node, int, []*ir.Value) *ir.Value { return nil }

func reshaped(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
	return t.shaped(gs[0], n.Ins[0])
}

// along is a rule for a one-input operator y = f(x).
func along(f func(o *op, g, x, y *ir.Value) *ir.Value) derivative {
	return func(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value { return f(t.o, gs[0], n.Ins[0], n.Outs[0]) }
}

// times is along for g * f'(x).
func times(f func(o *op, x, y *ir.Value) *ir.Value) derivative {
	return along(func(o *op, g, x, y *ir.Value) *ir.Value { return o.emit("Mul", nil, g, f(o, x, y)) })
}

// over is along for g / f(x).
func over(f func(o *op, x *ir.Value) *ir.Value) derivative {
	return along(func(o *op, g, x, _ *ir.Value) *ir.Value { return o.emit("Div", nil, g, f(o, x)) })
}

// chosen hands all to the operand that was chosen, of equals to the first.
func chosen(first string) derivative {
	return func(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
		a, b := gs[0], t.o.like(gs[0], 0)
		if i == 1 {
			a, b = b, a
		}
		return t.fit(t.o.emit("Where", nil, t.o.emit(first, nil, n.Ins[0], n.Ins[1]), a, b), n.Ins[i])
	}
}

// extreme shares the derivative among all elements that equal the extreme one.
func extreme(t *tape, n *ir.Node, _ int, gs []*ir.Value) *ir.Value {
	o, x := t.o, n.Ins[0]
	is := o.cast(o.emit("Equal", nil, x, t.spread(n, n.Outs[0])), x.Type.DType)
	count := o.emit("ReduceSum", ir.Attrs{"keepdims": n.Int("keepdims")}, is, n.In(1))
	return o.emit("Mul", nil, is, t.spread(n, o.emit("Div", nil, gs[0], count)))
}

// moved is the rule of operators that only take elements from their first input.
func moved(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
	if i != 0 {
		return nil
	}
	return t.placed(n.Ins[0], gs[0], func(at *ir.Value) *ir.Value {
		a := ir.Attrs{}
		for k, v := range n.Attrs {
			a[k] = v
		}
		return t.o.emit(n.Op, a, append([]*ir.Value{at}, n.Ins[1:]...)...)
	})
}

// powDerivative: base: g*b*a^(b-1), 0 where b is 0; exponent: g*y*log(a), 0 where a is not above 0.
func powDerivative(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
	o, g, a, b := t.o, gs[0], n.Ins[0], n.Ins[1]
	if i == 1 {
		l := o.emit("Where", nil, o.emit("Greater", nil, a, o.like(a, 0)), o.emit("Log", nil, a), o.like(a, 0))
		return t.fit(o.cast(o.emit("Mul", nil, g, o.emit("Mul", nil, n.Outs[0], l)), b.Type.DType), b)
	}
	p := o.emit("Pow", nil, a, o.emit("Sub", nil, b, o.like(b, 1)))
	d := o.emit("Mul", nil, o.cast(b, a.Type.DType), p)
	d = o.emit("Where", nil, o.emit("Equal", nil, b, o.like(b, 0)), o.like(a, 0), d)
	return t.fit(o.emit("Mul", nil, g, d), a)
}

// matMulDerivative is g*B' and A'*g, with vectors as matrices of one row or column.
func matMulDerivative(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
	o, g, a, b := t.o, gs[0], n.Ins[0], n.Ins[1]
	ra, rb := o.needRank(a), o.needRank(b)
	if o.err != nil {
		return nil
	}
	if rb == 1 {
		b, g = o.emit("Unsqueeze", nil, b, o.ints(1)), o.emit("Unsqueeze", nil, g, o.ints(-1))
	}
	if ra == 1 {
		a, g = o.emit("Unsqueeze", nil, a, o.ints(0)), o.emit("Unsqueeze", nil, g, o.ints(-2))
	}
	swap := func(v *ir.Value) *ir.Value {
		r := rank(v)
		perm := from(0, r)
		perm[r-1], perm[r-2] = perm[r-2], perm[r-1]
		return o.emit("Transpose", ir.Attrs{"perm": perm}, v)
	}
	if i == 0 {
		return t.shaped(t.fit(o.emit("MatMul", nil, g, swap(b)), a), n.Ins[0])
	}
	return t.shaped(t.fit(o.emit("MatMul", nil, swap(a), g), b), n.Ins[1])
}

func gemmDerivative(t *tape, n *ir.Node, i int, gs []*ir.Value) *ir.Value {
	o, g, a, b := t.o, gs[0], n.Ins[0], n.Ins[1]
	ta, tb, alpha := n.Int("transA"), n.Int("transB"), n.Float("alpha")
	mul := func(x, y *ir.Value, tx, ty int64) *ir.Value {
		return o.emit("Gemm", ir.Attrs{"alpha": alpha, "transA": tx, "transB": ty}, x, y)
	}
	switch {
	case i == 0 && ta == 0:
		return mul(g, b, 0, 1-tb)
	case i == 0:
		return mul(b, g, tb, 1)
	case i == 1 && tb == 0:
		return mul(a, g, 1-ta, 0)
	case i == 1:
		return mul(g, a, 1, ta)
	}
	if beta := n.Float("beta"); beta != 1 {
		g = o.emit("Mul", nil, g, o.like(g, beta))
	}
	return t.fit(g, n.Ins[2])
}
