package ir

import (
	"fmt"
	"math"
)

// Shape and data movement. Index-like inputs (shape, starts, indices, axes, pads, repeats, split) are always
// i64: frontends cast i32. Attribute axes lie in [-rank, rank-1] (use Axis). All accept every element type,
// strings too.

func tensorOps() []OpDef {
	return []OpDef{
		{Name: "Shape", Doc: "The sizes of dims start to end-1, i64. Negative bounds count from the end, both are clamped.",
			Ins: params("X"), Outs: params("shape"), Attrs: []AttrDef{attr("start", 0), attr("end", int64(math.MaxInt64))},
			infer: inferShape},
		{Name: "Size", Doc: "The number of elements, i64 scalar.", Ins: params("X"), Outs: params("size"), infer: func(c *inferer) error {
			c.set(0, I64, StaticShape())
			if s := c.shape(0); s.Ranked {
				n := Static(1)
				for _, d := range s.Dims {
					n = mulDim(n, d)
				}
				c.setElems(0, []Dim{n})
			}
			return c.tensors()
		}},
		{Name: "Reshape", Doc: "The same elements with another shape. An entry of 0 copies the input's dim when allowzero is 0; one -1 is " +
			"computed. A count that does not fit is a run-time error.",
			Ins: params("X shape"), Outs: params("Y"), Attrs: []AttrDef{attr("allowzero", 0)}, infer: inferReshape},
		{Name: "Flatten", Doc: "[product of dims before axis, product of the rest]; axis lies in [-rank, rank], and is negative only where the rank is not known.",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{attr("axis", 1)}, infer: inferFlatten},
		{Name: "Squeeze", Doc: "Removes the dims of size 1 named by axes (absent: all that are 1).",
			Ins: params("X axes?"), Outs: params("Y"), infer: inferSqueeze},
		{Name: "Unsqueeze", Doc: "Inserts dims of size 1 so that they stand at axes of the result.",
			Ins: params("X axes"), Outs: params("Y"), infer: inferUnsqueeze},
		{Name: "Concat", Doc: "Joins along axis; other dims must be equal (a run-time error where only then known).",
			Ins: params("inputs*"), Outs: params("Y"), Attrs: []AttrDef{need("axis", AttrInt)}, infer: inferConcat},
		{Name: "Slice", Doc: "For axes[k] (absent: k): starts[k] to ends[k] by steps[k] (absent: 1; never 0). Negative bounds count from the " +
			"end, then clamp to [0, n] for a positive step, [-1, n-1] for a negative one (ONNX 13).",
			Ins: params("X starts ends axes? steps?"), Outs: params("Y"), infer: inferSlice},
		{Name: "Gather", Doc: "Y[..., i..., ...] = X[..., indices[i...], ...] along axis. A negative index counts from the end; one out of " +
			"range is a run-time error. Indices are i64.",
			Ins: params("X indices"), Outs: params("Y"), Attrs: []AttrDef{attr("axis", 0)}, infer: inferGather},
		{Name: "Expand", Doc: "X broadcast against shape (both ways, as numpy does).",
			Ins: params("X shape"), Outs: params("Y"), infer: inferExpand},
		{Name: "ConstantOfShape", Doc: "A tensor of the given shape filled with the one element of value.",
			Ins: params("shape"), Outs: params("Y"), Attrs: []AttrDef{attr("value", F32s([]int64{1}, []float32{0}))}, infer: func(c *inferer) error {
				if err := c.i64(0); err != nil {
					return err
				}
				if c.n.Data("value").Len() != 1 {
					return fmt.Errorf("value has %d elements, want 1", c.n.Data("value").Len())
				}
				s := c.shapeFrom(0)
				c.set(0, c.n.Data("value").DType, s)
				v := c.n.Data("value")
				if n, ok := s.Static(); ok && len(n) == 1 && n[0] >= 0 && n[0] <= maxTracked && (v.DType == I64 || v.DType == I32) {
					e := make([]Dim, n[0])
					for i := range e {
						e[i] = Static(v.Int(0))
					}
					c.setElems(0, e)
				}
				return nil
			}},
		{Name: "Transpose", Doc: "Y's dim i is X's dim perm[i]. An empty perm reverses (only while the rank is unknown).",
			Ins: params("X"), Outs: params("Y"), Attrs: []AttrDef{attr("perm", []int64{})}, infer: inferTranspose},
		{Name: "Pad", Doc: "pads = begins then ends of axes (absent: all dims). Negative pads crop. Modes constant (value absent: 0, false or " +
			"empty), reflect, edge, wrap.",
			Ins: params("X pads value? axes?"), Outs: params("Y"), Attrs: []AttrDef{attr("mode", "constant")}, infer: inferPad},
		{Name: "Split", Doc: "Cuts along axis into the sizes of split; absent, into as many equal parts as there are outputs (num_outputs), the " +
			"last one smaller when they do not divide.",
			Ins: params("X split?"), Outs: params("outputs*"), Attrs: []AttrDef{attr("axis", 0), need("num_outputs", AttrInt)}, infer: inferSplit},
		{Name: "Tile", Doc: "X repeated repeats[i] times along dim i.", Ins: params("X repeats"), Outs: params("Y"), infer: inferTile},
		{Name: "Range", Doc: "start, start+delta, ... up to but without limit: element i is start + i*delta (two roundings), their number " +
			"max(ceil((limit-start)/delta), 0).",
			Ins: params("start limit delta"), Outs: params("Y"), infer: func(c *inferer) error {
				if err := c.sameDType(0, 1, 2); err != nil {
					return err
				}
				c.set(0, c.dtype(0), ShapeOf(Unknown()))
				a, ok1 := c.known(0)
				b, ok2 := c.known(1)
				d, ok3 := c.known(2)
				if ok1 && ok2 && ok3 && len(a) == 1 && len(b) == 1 && len(d) == 1 && d[0] != 0 {
					n := (b[0] - a[0]) / d[0]
					if (b[0]-a[0])%d[0] != 0 && ((b[0]-a[0] > 0) == (d[0] > 0)) {
						n++
					}
					c.set(0, c.dtype(0), StaticShape(max(n, 0)))
				}
				return nil
			}},
		{Name: "OneHot", Doc: "A new dim of size depth at axis, values[1] where it equals the index (negative ones count from the end), else " +
			"values[0]; an index out of [-depth, depth-1] gives only values[0]. indices and depth are i64.",
			Ins: params("indices depth values"), Outs: params("Y"), Attrs: []AttrDef{attr("axis", -1)}, infer: inferOneHot},
	}
}

// shapeFrom reads a shape out of the i64 list input i. Entries that are not known become Any.
func (c *inferer) shapeFrom(i int) Shape {
	if e, ok := c.elems(i); ok {
		out := make([]Dim, len(e))
		copy(out, e)
		return ShapeOf(out...)
	}
	if n := c.length1(i); n >= 0 && n <= MaxRank {
		return unknownDims(n)
	}
	return Unranked()
}

func inferShape(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	s := c.shape(0)
	if !s.Ranked {
		c.set(0, I64, ShapeOf(Unknown()))
		return nil
	}
	r := int64(s.Rank())
	clamp := func(v int64) int64 {
		if v < 0 {
			v += r
		}
		return min(max(v, 0), r)
	}
	a, b := clamp(c.n.Int("start")), clamp(c.n.Int("end"))
	b = max(a, b)
	c.set(0, I64, StaticShape(b-a))
	c.setElems(0, append([]Dim(nil), s.Dims[a:b]...))
	return nil
}

func inferReshape(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	in := c.shape(0)
	e, ok := c.elems(1)
	if !ok {
		c.set(0, c.dtype(0), c.shapeFrom(1))
		return nil
	}
	out := make([]Dim, len(e))
	minus := -1
	for i, d := range e {
		switch {
		case !d.IsStatic():
			out[i] = Dim{Sym: d.Sym, Any: d.Any, Max: d.Max}
			// A symbol that is not known to be positive could be 0 or -1 only if the model computed it; sizes never are.
		case d.N == -1:
			if minus >= 0 {
				return fmt.Errorf("shape has more than one -1")
			}
			minus = i
			out[i] = Unknown()
		case d.N == 0 && c.n.Int("allowzero") == 0:
			if !in.Ranked {
				out[i] = Unknown()
			} else if i >= in.Rank() {
				return fmt.Errorf("shape entry %d is 0, but the input has rank %d", i, in.Rank())
			} else {
				out[i] = in.Dims[i]
			}
		case d.N < 0:
			return fmt.Errorf("shape entry %d is %d", i, d.N)
		default:
			out[i] = d
		}
	}
	if in.Ranked {
		if err := solveReshape(in.Dims, out, minus); err != nil {
			return err
		}
	}
	c.set(0, c.dtype(0), ShapeOf(out...))
	if el, ok := c.elems(0); ok && len(out) <= 1 {
		c.setElems(0, el)
	}
	return nil
}

// solveReshape fills the dim at minus, when the rest of the sizes cancel out, and checks static counts.
func solveReshape(in, out []Dim, minus int) error {
	left, lok := int64(1), true
	var syms []Dim
	for _, d := range in {
		switch {
		case d.Any:
			return nil
		case d.Sym != "":
			syms = append(syms, d)
		default:
			if left, lok = mul64(left, d.N); !lok {
				return fmt.Errorf("dims overflow")
			}
		}
	}
	right := int64(1)
	for i, d := range out {
		if i == minus {
			continue
		}
		switch {
		case d.Any:
			return nil
		case d.Sym != "":
			found := false
			for k, s := range syms {
				if s.Same(d) {
					syms = append(syms[:k:k], syms[k+1:]...)
					found = true
					break
				}
			}
			if !found {
				return nil
			}
		default:
			if right, lok = mul64(right, d.N); !lok {
				return fmt.Errorf("dims overflow")
			}
		}
	}
	if minus < 0 {
		if len(syms) == 0 && left != right {
			return fmt.Errorf("%d elements do not fit into %d", left, right)
		}
		return nil
	}
	if right == 0 || left == 0 {
		return nil
	}
	switch {
	case len(syms) == 0:
		if left%right != 0 {
			return fmt.Errorf("%d elements do not divide by %d", left, right)
		}
		out[minus] = Static(left / right)
	case len(syms) == 1 && left == right:
		out[minus] = syms[0]
	}
	return nil
}

func inferFlatten(c *inferer) error {
	s := c.shape(0)
	if !s.Ranked {
		c.set(0, c.dtype(0), unknownDims(2))
		return c.tensors()
	}
	axis := c.n.Int("axis")
	if axis < 0 {
		axis += int64(s.Rank())
	}
	if axis < 0 || axis > int64(s.Rank()) {
		return fmt.Errorf("axis %d is out of range for rank %d", axis, s.Rank())
	}
	a, b := Static(1), Static(1)
	for i, d := range s.Dims {
		if int64(i) < axis {
			a = mulDim(a, d)
		} else {
			b = mulDim(b, d)
		}
	}
	c.set(0, c.dtype(0), ShapeOf(a, b))
	return c.tensors()
}

func inferSqueeze(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	s := c.shape(0)
	axes, ok := c.known(1)
	switch {
	case !s.Ranked || c.has(1) && !ok:
		if n := c.squeezedRank(s); n >= 0 {
			c.set(0, c.dtype(0), unknownDims(n))
		} else {
			c.set(0, c.dtype(0), Unranked())
		}
		return nil
	case !c.has(1):
		var out []Dim
		for _, d := range s.Dims {
			if !d.IsStatic() {
				c.set(0, c.dtype(0), Unranked())
				return nil
			}
			if d.N != 1 {
				out = append(out, d)
			}
		}
		c.set(0, c.dtype(0), ShapeOf(out...))
	default:
		ax, err := Axes(axes, s.Rank())
		if err != nil {
			return err
		}
		drop := map[int]bool{}
		for _, a := range ax {
			if d := s.Dims[a]; d.IsStatic() && d.N != 1 {
				return fmt.Errorf("dim %d is %d, not 1", a, d.N)
			}
			drop[a] = true
		}
		var out []Dim
		for i, d := range s.Dims {
			if !drop[i] {
				out = append(out, d)
			}
		}
		c.set(0, c.dtype(0), ShapeOf(out...))
	}
	if e, ok := c.elems(0); ok {
		c.setElems(0, e)
	}
	return nil
}

func (c *inferer) squeezedRank(s Shape) int {
	if !s.Ranked || !c.has(1) {
		return -1
	}
	if n := c.length1(1); n >= 0 && n <= s.Rank() {
		return s.Rank() - n
	}
	return -1
}

func inferUnsqueeze(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	s := c.shape(0)
	axes, ok := c.known(1)
	if !s.Ranked || !ok {
		if n := c.length1(1); s.Ranked && n >= 0 && n+s.Rank() <= MaxRank {
			c.set(0, c.dtype(0), unknownDims(n+s.Rank()))
		} else {
			c.set(0, c.dtype(0), Unranked())
		}
		return nil
	}
	r := s.Rank() + len(axes)
	if r > MaxRank {
		return fmt.Errorf("rank %d is over %d", r, MaxRank)
	}
	ax, err := Axes(axes, r)
	if err != nil {
		return err
	}
	one := map[int]bool{}
	for _, a := range ax {
		one[a] = true
	}
	out := make([]Dim, 0, r)
	k := 0
	for i := 0; i < r; i++ {
		if one[i] {
			out = append(out, Static(1))
		} else {
			out = append(out, s.Dims[k])
			k++
		}
	}
	c.set(0, c.dtype(0), ShapeOf(out...))
	if e, ok := c.elems(0); ok && r <= 1 {
		c.setElems(0, e)
	}
	return nil
}

func inferConcat(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	var out Shape
	for i := range c.n.Ins {
		if err := c.sameDType(0, i); err != nil {
			return err
		}
		s := c.shape(i)
		if !s.Ranked {
			continue
		}
		if !out.Ranked {
			out = s.Clone()
			continue
		}
		if s.Rank() != out.Rank() {
			return fmt.Errorf("inputs have ranks %d and %d", out.Rank(), s.Rank())
		}
	}
	if !out.Ranked {
		c.set(0, c.dtype(0), out)
		return nil
	}
	axis, err := Axis(c.n.Int("axis"), out.Rank())
	if err != nil {
		return err
	}
	sum := Static(0)
	for i := range c.n.Ins {
		s := c.shape(i)
		if !s.Ranked {
			sum = Unknown()
			continue
		}
		for k, d := range s.Dims {
			switch {
			case k == axis:
				sum = addDim(sum, d)
			case out.Dims[k].IsStatic():
				if d.IsStatic() && d.N != out.Dims[k].N {
					return fmt.Errorf("dim %d is %d in one input and %d in another", k, out.Dims[k].N, d.N)
				}
			case d.IsStatic() || out.Dims[k].Any:
				out.Dims[k] = d
			}
		}
	}
	out.Dims[axis] = sum
	c.set(0, c.dtype(0), out)
	if out.Rank() == 1 {
		var all []Dim
		for i := range c.n.Ins {
			e, ok := c.elems(i)
			if !ok {
				if n := c.length1(i); n >= 0 && n <= maxTracked && c.dtype(i).IsInt() {
					e = unknownDims(n).Dims
				} else {
					return nil
				}
			}
			all = append(all, e...)
		}
		c.setElems(0, all)
	}
	return nil
}
