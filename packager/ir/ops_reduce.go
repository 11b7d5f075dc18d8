package ir

import "fmt"

// Reductions. axes is an i64 list; absent means all dims (an empty list too: frontends turn the noop form into
// Identity). Reductions over nothing: Sum 0, Prod 1, Max -inf or the type's lowest value, Min the opposite, Mean NaN.

func reduceOps() []OpDef {
	red := func(name, doc string) OpDef {
		return OpDef{Name: name, Doc: doc, Ins: params("X axes?"), Outs: params("Y"), Attrs: []AttrDef{attr("keepdims", 1)}, infer: inferReduce}
	}
	arg := func(name, doc string) OpDef {
		return OpDef{Name: name, Doc: doc + " The first one of equals, or the last for select_last_index; the first NaN wins over numbers.",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{attr("axis", 0), attr("keepdims", 1), attr("select_last_index", 0)},
			infer: inferArg}
	}
	return []OpDef{
		red("ReduceSum", "Sum, in the order of docs/numerics.md."),
		red("ReduceMean", "ReduceSum divided by the count (integers truncate)."),
		red("ReduceProd", "Product in row-major order of the reduced dims."),
		red("ReduceMax", "Maximum; NaN if any is. Bool: or."),
		red("ReduceMin", "Minimum; NaN if any is. Bool: and."),
		arg("ArgMax", "Index (i64) of the maximum along axis."),
		arg("ArgMin", "Index (i64) of the minimum along axis."),
		{Name: "TopK", Doc: "The k largest (largest=1) or smallest along axis, with their indices; equals in order of rising index. Always sorted: " +
			"best first (sorted=0 leaves the order open, so it is sorted too). NaN counts as the largest.",
			Ins: params("X K"), Outs: params("Values Indices"), Attrs: []AttrDef{attr("axis", -1), attr("largest", 1), attr("sorted", 1)},
			infer: inferTopK},
	}
}

func inferReduce(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	d := c.dtype(0)
	ok := numeric(d) || d == Bool && (c.n.Op == "ReduceMax" || c.n.Op == "ReduceMin")
	if c.n.Op == "ReduceMean" && d.IsInt() && d.Bits() < 32 {
		return fmt.Errorf("input 0 is %s, want a float or an integer of 32 bits or more", d)
	}
	if err := c.want(0, ok, "a number"); err != nil {
		return err
	}
	s, keep := c.shape(0), c.n.Int("keepdims") != 0
	axes, known := c.known(1)
	if !s.Ranked || c.has(1) && !known {
		switch {
		case s.Ranked && keep:
			c.set(0, d, unknownDims(s.Rank()))
		case s.Ranked && c.length1(1) > 0 && c.length1(1) <= s.Rank():
			c.set(0, d, unknownDims(s.Rank()-c.length1(1)))
		default:
			c.set(0, d, Unranked())
		}
		return nil
	}
	if len(axes) == 0 {
		for i := 0; i < s.Rank(); i++ {
			axes = append(axes, int64(i))
		}
	}
	ax, err := Axes(axes, s.Rank())
	if err != nil {
		return err
	}
	c.set(0, d, dropAxes(s, ax, keep))
	return nil
}

func dropAxes(s Shape, axes []int, keep bool) Shape {
	gone := map[int]bool{}
	for _, a := range axes {
		gone[a] = true
	}
	out := []Dim{}
	for i, d := range s.Dims {
		switch {
		case !gone[i]:
			out = append(out, d)
		case keep:
			out = append(out, Static(1))
		}
	}
	return ShapeOf(out...)
}

func inferArg(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, numeric(c.dtype(0)), "a number"); err != nil {
		return err
	}
	s, keep := c.shape(0), c.n.Int("keepdims") != 0
	if !s.Ranked {
		c.set(0, I64, s)
		return nil
	}
	a, err := Axis(c.n.Int("axis"), s.Rank())
	if err != nil {
		return err
	}
	c.set(0, I64, dropAxes(s, []int{a}, keep))
	return nil
}

func inferTopK(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	if err := c.want(0, numeric(c.dtype(0)), "a number"); err != nil {
		return err
	}
	s := c.shape(0)
	if !s.Ranked {
		c.set(0, c.dtype(0), s)
		c.set(1, I64, s)
		return nil
	}
	a, err := Axis(c.n.Int("axis"), s.Rank())
	if err != nil {
		return err
	}
	out := s.Clone()
	out.Dims[a] = Unknown()
	if k, ok := c.elems(1); ok {
		if len(k) != 1 {
			return fmt.Errorf("K has %d elements, want 1", len(k))
		}
		if d := s.Dims[a]; d.IsStatic() && k[0].IsStatic() && k[0].N > d.N {
			return fmt.Errorf("K is %d, the dim only %d", k[0].N, d.N)
		}
		out.Dims[a] = k[0]
	}
	c.set(0, c.dtype(0), out)
	c.set(1, I64, out)
	return nil
}
