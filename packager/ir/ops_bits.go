package ir

import "fmt"

// bitOps are the operators on bits, and running sums and products.
func bitOps() []OpDef {
	ints := func(d DType) bool { return d.IsInt() && d.Bits() >= 8 }
	bin := func(name, doc string) OpDef {
		return OpDef{Name: name, Doc: doc, Ins: params("A B"), Outs: params("C"), infer: binaryOp(ints, "an integer", Invalid)}
	}
	cum := func(name, doc string) OpDef {
		return OpDef{Name: name, Doc: doc + " along axis (one element, i64, may be negative). exclusive leaves the element itself out; reverse goes from the end.",
			Ins: params("X axis"), Outs: params("Y"), Attrs: []AttrDef{attr("exclusive", 0), attr("reverse", 0)}, infer: inferCumulative}
	}
	return []OpDef{
		bin("BitwiseAnd", "Bits of A and B."),
		bin("BitwiseOr", "Bits of A or B."),
		bin("BitwiseXor", "Bits of A exclusive-or B."),
		{Name: "BitwiseNot", Doc: "All bits flipped.", Ins: params("X"), Outs: params("Y"), infer: unaryOp(ints, "an integer")},
		{Name: "BitShift", Doc: "A shifted by B bits; zeros come in, from the left copies of the sign bit of signed integers. A negative count, or one of the width or more, leaves only what comes in. direction is LEFT or RIGHT.",
			Ins: params("A B"), Outs: params("C"), Attrs: []AttrDef{need("direction", AttrString)}, infer: func(c *inferer) error {
				if s := c.n.Str("direction"); s != "LEFT" && s != "RIGHT" {
					return fmt.Errorf("direction %q", s)
				}
				return binaryOp(ints, "an integer", Invalid)(c)
			}},
		{Name: "BitCast", Doc: "The same bits as elements of the type `to`, which has the same width. NaNs of X are canonical first; to bool: not 0.",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{need("to", AttrDType)}, infer: func(c *inferer) error {
				if err := c.tensors(); err != nil {
					return err
				}
				from, to := c.dtype(0), c.n.DType("to")
				if from.Bits() == 0 || from.Bits() != to.Bits() {
					return fmt.Errorf("bits of %s as %s", from, to)
				}
				c.set(0, to, c.shape(0))
				return nil
			}},
		cum("CumSum", "Running sums"),
		cum("CumProd", "Running products"),
	}
}

func inferCumulative(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	if err := c.want(0, numeric(c.dtype(0)), "a number"); err != nil {
		return err
	}
	if s := c.shape(0); s.Ranked {
		if s.Rank() == 0 {
			return fmt.Errorf("a scalar has no axis")
		}
		if a, ok := c.known(1); ok {
			if len(a) != 1 {
				return fmt.Errorf("axis has %d elements, want 1", len(a))
			}
			if _, err := Axis(a[0], s.Rank()); err != nil {
				return err
			}
		}
	}
	c.set(0, c.dtype(0), c.shape(0))
	return nil
}
