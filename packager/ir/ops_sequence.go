package ir

import "fmt"

// Sequences and optionals. Sequences hold tensors of one element type; positions are i64, a negative one counts from the end.

func sequenceOps() []OpDef {
	return []OpDef{
		{Name: "SequenceConstruct", Doc: "The sequence of the inputs.", Ins: params("inputs*"), Outs: params("output"), infer: inferSequenceConstruct},
		{Name: "SequenceEmpty", Doc: "The empty sequence of tensors of dtype.", Outs: params("output"), Attrs: []AttrDef{need("dtype", AttrDType)},
			infer: func(c *inferer) error {
				c.out[0] = SequenceOf(TensorOf(c.n.DType("dtype"), Unranked()))
				return nil
			}},
		{Name: "SequenceInsert", Doc: "The sequence with tensor before position (-n to n), at the end when that is absent.",
			Ins: params("seq tensor position?"), Outs: params("output"), infer: inferSequenceInsert},
		{Name: "SequenceErase", Doc: "The sequence without the element at position, without the last one when that is absent.",
			Ins: params("seq position?"), Outs: params("output"), infer: func(c *inferer) error {
				c.out[0] = c.typ(0)
				return c.sequence(1)
			}},
		{Name: "SequenceAt", Doc: "The element at position.", Ins: params("seq position"), Outs: params("tensor"), infer: func(c *inferer) error {
			if err := c.sequence(1); err != nil {
				return err
			}
			c.out[0] = *c.typ(0).Elem
			return nil
		}},
		{Name: "SequenceLength", Doc: "The number of elements, an i64 scalar.", Ins: params("seq"), Outs: params("length"), infer: func(c *inferer) error {
			c.set(0, I64, StaticShape())
			return c.sequence(-1)
		}},
		{Name: "ConcatFromSequence", Doc: "The elements joined along axis, or along a new axis. No elements are a run-time error.",
			Ins: params("seq"), Outs: params("concat_result"), Attrs: []AttrDef{need("axis", AttrInt), attr("new_axis", 0)}, infer: inferConcatFromSequence},
		{Name: "SplitToSequence", Doc: "The parts of input along axis: of the sizes in split (rank 1), of one size (rank 0; the last may be smaller), or, " +
			"when it is absent, of size 1, without that dim if keepdims is 0.",
			Ins: params("input split?"), Outs: params("output"), Attrs: []AttrDef{attr("axis", 0), attr("keepdims", 1)}, infer: inferSplitToSequence},
		{Name: "Optional", Doc: "An optional that holds input, or nothing when that is absent; elem is the text form of the type it may hold.",
			Ins: params("input?"), Outs: params("output"), Attrs: []AttrDef{attr("elem", "")}, infer: inferOptional},
		{Name: "OptionalHasElement", Doc: "Whether the optional holds a value: a bool scalar.", Ins: params("input"), Outs: params("output"), infer: func(c *inferer) error {
			if k := c.typ(0); k.Kind != Optional {
				return fmt.Errorf("input 0 is %s, want an optional", k)
			}
			c.set(0, Bool, StaticShape())
			return nil
		}},
		{Name: "OptionalGetElement", Doc: "What the optional holds; nothing is a run-time error.", Ins: params("input"), Outs: params("output"), infer: func(c *inferer) error {
			k := c.typ(0)
			if k.Kind != Optional {
				return fmt.Errorf("input 0 is %s, want an optional", k)
			}
			c.out[0] = *k.Elem
			return nil
		}},
	}
}

// ParseType reads the text form of a type, as Type.String writes it.
func ParseType(s string) (Type, error) {
	p := &parser{vals: map[string]*Value{}}
	if err := p.scan(s); err != nil {
		return Type{}, err
	}
	t, err := p.typ(0)
	if err == nil && p.peek().kind != 0 {
		err = fmt.Errorf("%q follows the type", p.peek().text)
	}
	return t, err
}

// sequence checks that input 0 is a sequence of tensors and input pos, when present, one i64.
func (c *inferer) sequence(pos int) error {
	if t := c.typ(0); t.Kind != Sequence || t.Elem == nil || t.Elem.Kind != Tensor {
		return fmt.Errorf("input 0 is %s, want a sequence of tensors", t)
	}
	if pos < 0 || !c.has(pos) {
		return nil
	}
	if t := c.typ(pos); t.Kind != Tensor {
		return fmt.Errorf("input %d is %s, want an i64", pos, t)
	}
	return c.i64(pos)
}

func inferSequenceConstruct(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	t := c.typ(0)
	for i := 1; i < len(c.n.Ins); i++ {
		var err error
		if t, err = Join(t, c.typ(i)); err != nil {
			return err
		}
	}
	c.out[0] = SequenceOf(t)
	return nil
}

func inferSequenceInsert(c *inferer) error {
	if err := c.sequence(2); err != nil {
		return err
	}
	t, err := Join(*c.typ(0).Elem, c.typ(1))
	if err != nil {
		return err
	}
	c.out[0] = SequenceOf(t)
	return nil
}

func inferConcatFromSequence(c *inferer) error {
	if err := c.sequence(-1); err != nil {
		return err
	}
	e := c.typ(0).Elem
	r, fresh := e.Shape.Rank(), c.n.Int("new_axis") != 0
	if r < 0 {
		c.set(0, e.DType, Unranked())
		return nil
	}
	if fresh {
		r++
	}
	a, err := Axis(c.n.Int("axis"), r)
	if err != nil {
		return err
	}
	dims := append([]Dim(nil), e.Shape.Dims[:a]...)
	dims = append(dims, Unknown())
	if !fresh {
		a++
	}
	c.set(0, e.DType, ShapeOf(append(dims, e.Shape.Dims[a:]...)...))
	return nil
}

func inferSplitToSequence(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	s := c.shape(0).Clone()
	if s.Ranked {
		a, err := Axis(c.n.Int("axis"), s.Rank())
		if err != nil {
			return err
		}
		switch {
		case c.has(1):
			s.Dims[a] = Unknown()
		case c.n.Int("keepdims") != 0:
			s.Dims[a] = Static(1)
		default:
			s.Dims = append(s.Dims[:a], s.Dims[a+1:]...)
		}
	}
	c.out[0] = SequenceOf(TensorOf(c.dtype(0), s))
	return nil
}

func inferOptional(c *inferer) error {
	if c.has(0) {
		c.out[0] = OptionalOf(c.typ(0))
		return nil
	}
	t, err := ParseType(c.n.Str("elem"))
	if err != nil {
		return fmt.Errorf("elem %q: %w", c.n.Str("elem"), err)
	}
	c.out[0] = OptionalOf(t)
	return nil
}
