package ir

import "fmt"

// Operators that pick and place elements by computed positions. Indices are i64; a negative one counts from the end, one out
// of range is a run-time error.

func indexOps() []OpDef {
	return []OpDef{
		{Name: "Trilu", Doc: "The upper (upper=1: columns from row+k on) or lower (columns up to row+k) triangle of the last two dims; other " +
			"elements become 0. k (one i64) is 0 when absent.",
			Ins: params("input k?"), Outs: params("output"), Attrs: []AttrDef{attr("upper", 1)}, infer: inferTrilu},
		{Name: "GatherElements", Doc: "Y[i] = X[i with indices[i] in place of the index on axis]; Y has the shape of indices, whose other dims " +
			"are at most those of X.",
			Ins: params("X indices"), Outs: params("Y"), Attrs: []AttrDef{attr("axis", 0)}, infer: inferGatherElements},
		{Name: "GatherND", Doc: "Each tuple of the last dim of indices names a slice of X behind the batch_dims leading dims, which both share.",
			Ins: params("X indices"), Outs: params("Y"), Attrs: []AttrDef{attr("batch_dims", 0)}, infer: inferGatherND},
		{Name: "ScatterElements", Doc: "A copy of data in which each update, in row-major order, replaces (reduction none) the element that " +
			"GatherElements would read, or is combined with it as `old op update` (add, mul, max, min).",
			Ins: params("data indices updates"), Outs: params("Y"), Attrs: []AttrDef{attr("axis", 0), attr("reduction", "none")},
			infer: inferScatterElements},
		{Name: "ScatterND", Doc: "A copy of data in which each slice of updates, in row-major order, replaces or is combined with the slice " +
			"that its tuple in indices names. Indices are checked for slices that have elements.",
			Ins: params("data indices updates"), Outs: params("Y"), Attrs: []AttrDef{attr("reduction", "none")}, infer: inferScatterND},
		{Name: "NonZero", Doc: "The positions of the elements that are not 0 (NaN is not), as columns of an i64 [rank, count], in row-major order.",
			Ins: params("X"), Outs: params("Y"), infer: inferNonZero},
		{Name: "UniqueRows", Doc: "The different slices of X along its first dim. indices: the first occurrence of each, ordered by content " +
			"(sorted=1: element by element, NaN equal to NaN and above all numbers, zeros equal, strings by bytes) or by occurrence. " +
			"inverse: for each slice its place in indices. counts: how often each occurs. ONNX's Unique is a Gather by indices.",
			Ins: params("X"), Outs: params("indices inverse counts"), Attrs: []AttrDef{attr("sorted", 1)}, infer: inferUniqueRows},
		{Name: "ReverseSequence", Doc: "Reverses the first sequence_lens[b] slices along time_axis of each batch b; the axes are 0 and 1 in either order.",
			Ins: params("input sequence_lens"), Outs: params("Y"), Attrs: []AttrDef{attr("batch_axis", 1), attr("time_axis", 0)},
			infer: inferReverseSequence},
		{Name: "EyeLike", Doc: "1 where column = row + k, else 0, of element type dtype and with the dims of input (rank 2).",
			Ins: params("input"), Outs: params("output"), Attrs: []AttrDef{attr("k", 0), need("dtype", AttrDType)}, infer: inferEyeLike},
	}
}

func inferTrilu(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if r := c.shape(0).Rank(); r >= 0 && r < 2 {
		return fmt.Errorf("input has rank %d, want at least 2", r)
	}
	c.set(0, c.dtype(0), c.shape(0))
	return c.i64(1)
}

func (c *inferer) indices() error {
	if err := c.tensors(); err != nil {
		return err
	}
	return c.want(1, c.dtype(1) == I64, "i64")
}

func (c *inferer) elementAxis() error {
	s, ix := c.shape(0), c.shape(1)
	r := max(s.Rank(), ix.Rank())
	if r < 0 {
		return nil
	}
	axis, err := Axis(c.n.Int("axis"), r)
	if err != nil {
		return err
	}
	if !s.Ranked || !ix.Ranked {
		return nil
	}
	if s.Rank() != ix.Rank() {
		return fmt.Errorf("data of rank %d and indices of rank %d", s.Rank(), ix.Rank())
	}
	for i, d := range ix.Dims {
		if e := s.Dims[i]; i != axis && d.IsStatic() && e.IsStatic() && d.N > e.N {
			return fmt.Errorf("indices %s do not fit data %s", ix, s)
		}
	}
	return nil
}

func inferGatherElements(c *inferer) error {
	if err := c.indices(); err != nil {
		return err
	}
	c.set(0, c.dtype(0), c.shape(1))
	return c.elementAxis()
}

func (c *inferer) reduction() error {
	if err := c.sameDType(0, 2); err != nil {
		return err
	}
	switch r := c.n.Str("reduction"); r {
	case "none":
		return nil
	case "add", "mul", "max", "min":
		return c.want(0, numeric(c.dtype(0)), "a number")
	default:
		return fmt.Errorf("reduction %q", r)
	}
}

func inferScatterElements(c *inferer) error {
	if err := c.indices(); err != nil {
		return err
	}
	c.set(0, c.dtype(0), c.shape(0))
	if err := c.elementAxis(); err != nil {
		return err
	}
	if !TensorOf(F32, c.shape(1)).Compatible(TensorOf(F32, c.shape(2))) {
		return fmt.Errorf("indices %s and updates %s", c.shape(1), c.shape(2))
	}
	return c.reduction()
}

// tuple splits the static length of index tuples off indices; -1 when it is not known.
func (c *inferer) tuple(batch int) (int, error) {
	s, ix := c.shape(0), c.shape(1)
	if !ix.Ranked {
		return -1, nil
	}
	if ix.Rank() < 1+batch {
		return 0, fmt.Errorf("indices have rank %d, want at least %d", ix.Rank(), 1+batch)
	}
	d := ix.Dims[ix.Rank()-1]
	if !d.IsStatic() || !s.Ranked {
		return -1, nil
	}
	if d.N < 1 || d.N > int64(s.Rank()-batch) {
		return 0, fmt.Errorf("index tuples of %d for rank %d and %d batch dims", d.N, s.Rank(), batch)
	}
	return int(d.N), nil
}

func inferGatherND(c *inferer) error {
	if err := c.indices(); err != nil {
		return err
	}
	b := c.n.Int("batch_dims")
	if b < 0 || b >= MaxRank {
		return fmt.Errorf("batch_dims is %d", b)
	}
	k, err := c.tuple(int(b))
	if err != nil {
		return err
	}
	if k < 0 {
		c.set(0, c.dtype(0), Unranked())
		return nil
	}
	ix := c.shape(1)
	out := append([]Dim(nil), ix.Dims[:ix.Rank()-1]...)
	out = append(out, c.shape(0).Dims[int(b)+k:]...)
	c.set(0, c.dtype(0), ShapeOf(out...))
	return nil
}

func inferScatterND(c *inferer) error {
	if err := c.indices(); err != nil {
		return err
	}
	c.set(0, c.dtype(0), c.shape(0))
	k, err := c.tuple(0)
	if err != nil {
		return err
	}
	if ix := c.shape(1); k >= 0 {
		want := append([]Dim(nil), ix.Dims[:ix.Rank()-1]...)
		want = append(want, c.shape(0).Dims[k:]...)
		if !TensorOf(F32, ShapeOf(want...)).Compatible(TensorOf(F32, c.shape(2))) {
			return fmt.Errorf("updates %s, want %s", c.shape(2), ShapeOf(want...))
		}
	}
	return c.reduction()
}

func inferNonZero(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, c.dtype(0) != String, "a number or bool"); err != nil {
		return err
	}
	r := Unknown()
	if n := c.shape(0).Rank(); n >= 0 {
		r = Static(int64(n))
	}
	c.set(0, I64, ShapeOf(r, Unknown()))
	return nil
}

func inferUniqueRows(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	n := Unknown()
	if s := c.shape(0); s.Ranked {
		if s.Rank() == 0 {
			return fmt.Errorf("X has rank 0")
		}
		n = s.Dims[0]
	}
	c.set(0, I64, ShapeOf(Unknown()))
	c.set(1, I64, ShapeOf(n))
	c.set(2, I64, ShapeOf(Unknown()))
	return nil
}

func inferReverseSequence(c *inferer) error {
	if err := c.indices(); err != nil {
		return err
	}
	if b, t := c.n.Int("batch_axis"), c.n.Int("time_axis"); b+t != 1 || b*t != 0 {
		return fmt.Errorf("batch_axis %d and time_axis %d, want 0 and 1", b, t)
	}
	if r := c.shape(0).Rank(); r >= 0 && r < 2 {
		return fmt.Errorf("input has rank %d, want at least 2", r)
	}
	if err := c.i64(1); err != nil {
		return err
	}
	c.set(0, c.dtype(0), c.shape(0))
	return nil
}

func inferEyeLike(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	d := c.n.DType("dtype")
	if !numeric(d) && d != Bool {
		return fmt.Errorf("dtype is %s", d)
	}
	s := c.shape(0)
	if r := s.Rank(); r >= 0 && r != 2 {
		return fmt.Errorf("input has rank %d, want 2", r)
	}
	if !s.Ranked {
		s = unknownDims(2)
	}
	c.set(0, d, s)
	return nil
}
