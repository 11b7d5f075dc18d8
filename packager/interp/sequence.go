package interp

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
)

// place reads input i as a position in [-n, n), or the absent one.
func (c *call) place(i int, n, absent int64) (int64, error) {
	t := c.t(i)
	if t == nil {
		return absent, nil
	}
	if t.len() != 1 {
		return 0, fmt.Errorf("the position has %d elements", t.len())
	}
	return at(t.ints[0], n)
}

func sequence(elems []*value) []*value { return []*value{{kind: ir.Sequence, elems: elems}} }

func (c *call) sequenceInsert() ([]*value, error) {
	s := c.ins[0].elems
	n := int64(len(s))
	k := n
	if t := c.t(2); t != nil && t.len() == 1 && t.ints[0] != n {
		var err error
		if k, err = at(t.ints[0], n); err != nil {
			return nil, err
		}
	} else if t != nil && t.len() != 1 {
		return nil, fmt.Errorf("the position has %d elements", t.len())
	}
	out := append([]*value{}, s[:k]...)
	return sequence(append(append(out, c.ins[1]), s[k:]...)), nil
}

func (c *call) sequenceErase() ([]*value, error) {
	s := c.ins[0].elems
	if len(s) == 0 {
		return nil, indexf("the sequence is empty")
	}
	k, err := c.place(1, int64(len(s)), int64(len(s)-1))
	if err != nil {
		return nil, err
	}
	return sequence(append(append([]*value{}, s[:k]...), s[k+1:]...)), nil
}

func (c *call) sequenceAt() ([]*value, error) {
	k, err := c.place(1, int64(len(c.ins[0].elems)), 0)
	if err != nil {
		return nil, err
	}
	return []*value{c.ins[0].elems[k]}, nil
}

func (c *call) concatFromSequence() ([]*value, error) {
	s := c.ins[0].elems
	if len(s) == 0 {
		return nil, indexf("the sequence is empty")
	}
	if c.n.Int("new_axis") != 0 {
		var ts []*tensor
		for _, e := range s {
			ts = append(ts, e.t)
		}
		t, err := stack(ts, c.n.Int("axis"), false, ir.Type{})
		return tensors(t), err
	}
	t, err := (&call{n: c.n, m: c.m, ins: s}).concat()
	return tensors(t), err
}

func (c *call) splitToSequence() ([]*value, error) {
	x := c.t(0)
	axis, err := axisOf(c.n.Int("axis"), len(x.dims))
	if err != nil {
		return nil, err
	}
	n, keep := x.dims[axis], true
	var sizes []int64
	switch t := c.t(1); {
	case t == nil:
		keep = c.n.Int("keepdims") != 0
		for i := int64(0); i < n; i++ {
			sizes = append(sizes, 1)
		}
	case len(t.dims) == 0:
		if t.ints[0] <= 0 {
			return nil, fmt.Errorf("parts of size %d", t.ints[0])
		}
		for i := int64(0); i < n; i += min(t.ints[0], n) {
			sizes = append(sizes, min(t.ints[0], n-i))
		}
	default:
		sum := int64(0)
		for _, v := range t.ints {
			if v < 0 || v > n {
				return nil, fmt.Errorf("parts of sizes %v", t.ints)
			}
			sum += v
		}
		if sizes = t.ints; sum != n {
			return nil, fmt.Errorf("parts of sizes %v of %d", t.ints, n)
		}
	}
	var out []*value
	start := int64(0)
	src := make([]int64, len(x.dims))
	for _, size := range sizes {
		dims := append([]int64{}, x.dims...)
		dims[axis] = size
		t, err := x.pickBy(dims, nil, func(ix []int64) []int64 {
			copy(src, ix)
			src[axis] += start
			return src
		})
		if err != nil {
			return nil, err
		}
		if !keep {
			t.dims = append(append([]int64{}, x.dims[:axis]...), x.dims[axis+1:]...)
		}
		out = append(out, tensors(t)...)
		start += size
	}
	return sequence(out), nil
}

// lists evaluates the operators on sequences and optionals.
func (c *call) lists() ([]*value, error) {
	flag := func(b bool) []*value {
		t := &tensor{dt: ir.Bool, dims: []int64{}, ints: []int64{0}}
		if b {
			t.ints[0] = 1
		}
		return tensors(t)
	}
	switch c.n.Op {
	case "SequenceConstruct":
		return sequence(c.ins), nil
	case "SequenceEmpty":
		return sequence(nil), nil
	case "SequenceInsert":
		return c.sequenceInsert()
	case "SequenceErase":
		return c.sequenceErase()
	case "SequenceAt":
		return c.sequenceAt()
	case "SequenceLength":
		t, err := scalarInt(int64(len(c.ins[0].elems)))
		return tensors(t), err
	case "ConcatFromSequence":
		return c.concatFromSequence()
	case "SplitToSequence":
		return c.splitToSequence()
	case "Optional":
		v := &value{kind: ir.Optional}
		if len(c.ins) > 0 && c.ins[0] != nil {
			v.elems = []*value{c.ins[0]}
		}
		return []*value{v}, nil
	case "OptionalHasElement":
		return flag(len(c.ins[0].elems) > 0), nil
	}
	if len(c.ins[0].elems) == 0 {
		return nil, valuef("the optional holds nothing")
	}
	return c.ins[0].elems[:1], nil
}
