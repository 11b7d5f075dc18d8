package ir

import "fmt"

// Element-wise operators. Two-input ones broadcast as numpy does. Integer arithmetic wraps. Which rounding and
// which polynomial a float operator uses is fixed by docs/numerics.md.

func mathOps() []OpDef {
	bin := func(name, doc string, ok func(DType) bool, what string) OpDef {
		return OpDef{Name: name, Doc: doc, Ins: params("A B"), Outs: params("C"), infer: binaryOp(ok, what, Invalid)}
	}
	cmp := func(name, doc string, ok func(DType) bool, what string) OpDef {
		return OpDef{Name: name, Doc: doc, Ins: params("A B"), Outs: params("C"), infer: binaryOp(ok, what, Bool)}
	}
	un := func(name, doc string, ok func(DType) bool, what string) OpDef {
		return OpDef{Name: name, Doc: doc, Ins: params("X"), Outs: params("Y"), infer: unaryOp(ok, what)}
	}
	return []OpDef{
		bin("Add", "A + B.", numeric, "a number"),
		bin("Sub", "A - B.", numeric, "a number"),
		bin("Mul", "A * B.", numeric, "a number"),
		bin("Div", "A / B. Integers truncate toward zero; MinInt / -1 gives MinInt; an integer division by 0 is a run-time error.",
			numeric, "a number"),
		{Name: "Pow", Doc: "A to the power B; the result has A's element type. Frontends cast B to A's type, except that an " +
			"integer exponent of a float base stays i64 or i32 (section 2 of docs/numerics.md, in f64). Integer " +
			"bases wrap; for a negative exponent they give 0, except 1 and -1 (and 0: a run-time error).",
			Ins: params("A B"), Outs: params("C"), infer: inferPow},
		{Name: "Mod", Doc: "Remainder of A / B. fmod=0: the sign of B. fmod=1: C's fmod, the sign of A. An integer " +
			"B of 0 is a run-time error; MinInt mod -1 is 0.",
			Ins: params("A B"), Outs: params("C"), Attrs: []AttrDef{attr("fmod", 0)}, infer: func(c *inferer) error {
				return binaryOp(numeric, "a number", Invalid)(c)
			}},
		bin("Min", "The smaller one; NaN if either is NaN (the compiled form has two inputs: frontends chain more, left to right). "+
			"Of -0 and +0 the smaller is -0.", numeric, "a number"),
		bin("Max", "The larger one; NaN if either is NaN. Of -0 and +0 the larger is +0.", numeric, "a number"),
		bin("And", "Logical and.", isBool, "bool"),
		bin("Or", "Logical or.", isBool, "bool"),
		bin("Xor", "Logical exclusive or.", isBool, "bool"),
		cmp("Equal", "A == B; false when either is NaN. Strings compare by bytes.", anyDType, "any"),
		cmp("Less", "A < B; false when either is NaN.", numeric, "a number"),
		cmp("LessOrEqual", "A <= B; false when either is NaN.", numeric, "a number"),
		cmp("Greater", "A > B; false when either is NaN.", numeric, "a number"),
		cmp("GreaterOrEqual", "A >= B; false when either is NaN.", numeric, "a number"),
		un("Not", "Logical not.", isBool, "bool"),
		un("Neg", "-X (the sign bit flips, also of 0 and NaN); integers wrap.", numeric, "a number"),
		un("Abs", "|X| (the sign bit is cleared); MinInt stays.", numeric, "a number"),
		un("Sign", "-1, 0 or 1; NaN stays NaN; -0 gives 0.", numeric, "a number"),
		un("Floor", "Largest integer not above X.", float, "a float"),
		un("Ceil", "Smallest integer not below X.", float, "a float"),
		un("Round", "Nearest integer, halves to even.", float, "a float"),
		un("Sqrt", "Square root, correctly rounded.", float, "a float"),
		un("Exp", "e^X.", float, "a float"),
		un("Log", "Natural logarithm.", float, "a float"),
		un("Erf", "Error function.", float, "a float"),
		un("Sigmoid", "1 / (1 + e^-X).", float, "a float"),
		un("Tanh", "Hyperbolic tangent.", float, "a float"),
		un("Relu", "+0 where X < 0, else X (NaN and -0 stay).", numeric, "a number"),
		{Name: "Identity", Doc: "X. Passes remove it except between a parameter and a result.",
			Ins: params("X"), Outs: params("Y"), infer: func(c *inferer) error {
				c.out[0] = c.n.Ins[0].Type
				if e, ok := c.elems(0); ok {
					c.setElems(0, e)
				}
				return nil
			}},
		{Name: "Cast", Doc: "Conversion to the element type `to`. Float to integer truncates toward zero; out of range and NaN give " +
			"the result of docs/numerics.md (saturating, NaN gives 0). To bool: not equal to 0. Bool to a number: 0 or 1. " +
			"Integer to integer wraps. NumberToText and TextToNumber serve strings.",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{need("to", AttrDType)}, infer: inferCast},
		{Name: "Where", Doc: "X where Condition, else Y; all three broadcast.",
			Ins: params("Condition X Y"), Outs: params("Z"), infer: inferWhere},
		{Name: "Softmax", Doc: "e^(x-max) / sum along the single axis (ONNX 13 semantics; frontends reshape for older ones).",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{attr("axis", -1)}, infer: func(c *inferer) error {
				if err := unaryOp(float, "a float")(c); err != nil {
					return err
				}
				if s := c.shape(0); s.Ranked {
					_, err := Axis(c.n.Int("axis"), s.Rank())
					return err
				}
				return nil
			}},
	}
}

func numeric(d DType) bool  { return d.IsFloat() || d.IsInt() }
func float(d DType) bool    { return d.IsFloat() }
func isBool(d DType) bool   { return d == Bool }
func anyDType(d DType) bool { return d.Valid() }

// binaryOp infers a broadcasting operator whose inputs share an element type that ok accepts; out is the result's
// element type, Invalid for that of the inputs.
func binaryOp(ok func(DType) bool, what string, out DType) func(*inferer) error {
	return func(c *inferer) error {
		if err := c.tensors(); err != nil {
			return err
		}
		if err := c.sameDType(0, 1); err != nil {
			return err
		}
		if err := c.want(0, ok(c.dtype(0)), what); err != nil {
			return err
		}
		s, err := Broadcast(c.shape(0), c.shape(1))
		if err != nil {
			return err
		}
		d := out
		if d == Invalid {
			d = c.dtype(0)
		}
		c.set(0, d, s)
		c.followArith()
		return nil
	}
}

// followArith tracks integer arithmetic on sizes.
func (c *inferer) followArith() {
	var op func(a, b Dim) Dim
	switch c.n.Op {
	case "Add":
		op = addDim
	case "Mul":
		op = mulDim
	case "Sub":
		op = func(a, b Dim) Dim {
			if b.IsStatic() && b.N != -b.N || b.IsStatic() && b.N == 0 {
				return addDim(a, Static(-b.N))
			}
			if a.Same(b) {
				return Static(0)
			}
			return Unknown()
		}
	case "Div":
		op = func(a, b Dim) Dim {
			switch {
			case b.IsStatic() && b.N == 1:
				return a
			case a.IsStatic() && b.IsStatic() && b.N > 0:
				return Static(a.N / b.N)
			}
			return Unknown()
		}
	default:
		return
	}
	if d := c.dtype(0); d != I64 {
		return
	}
	a, ok1 := c.elems(0)
	b, ok2 := c.elems(1)
	s := c.out[0].Shape
	if !ok1 || !ok2 || s.Rank() > 1 || !s.Ranked {
		return
	}
	n := max(len(a), len(b))
	if len(a) != n && len(a) != 1 || len(b) != n && len(b) != 1 {
		return
	}
	out := make([]Dim, n)
	for i := range out {
		out[i] = op(a[i%len(a)], b[i%len(b)])
	}
	c.setElems(0, out)
}

func unaryOp(ok func(DType) bool, what string) func(*inferer) error {
	return func(c *inferer) error {
		if err := c.tensors(); err != nil {
			return err
		}
		if err := c.want(0, ok(c.dtype(0)), what); err != nil {
			return err
		}
		c.set(0, c.dtype(0), c.shape(0))
		return nil
	}
}

func inferPow(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	a, b := c.dtype(0), c.dtype(1)
	if !numeric(a) || (b != a && !(a.IsFloat() && (b == I64 || b == I32))) {
		return fmt.Errorf("base %s with exponent %s", a, b)
	}
	s, err := Broadcast(c.shape(0), c.shape(1))
	c.set(0, a, s)
	return err
}

func inferCast(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	to := c.n.DType("to")
	if !to.Valid() {
		return fmt.Errorf("cast to the unknown element type %d", to)
	}
	if to.IsSmallFloat() {
		return fmt.Errorf("cast to %s is CastSmall", to)
	}
	if (to == String) != (c.dtype(0) == String) {
		return fmt.Errorf("cast from %s to %s", c.dtype(0), to)
	}
	c.set(0, to, c.shape(0))
	if e, ok := c.elems(0); ok && (to == I64 || to == I32) {
		c.setElems(0, e)
	}
	return nil
}

func inferWhere(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, c.dtype(0) == Bool, "bool"); err != nil {
		return err
	}
	if err := c.sameDType(1, 2); err != nil {
		return err
	}
	s, err := Broadcast(c.shape(1), c.shape(2))
	if err != nil {
		return err
	}
	if s, err = Broadcast(c.shape(0), s); err != nil {
		return err
	}
	c.set(0, c.dtype(1), s)
	return nil
}
