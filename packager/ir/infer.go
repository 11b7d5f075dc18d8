package ir

import (
	"fmt"
	"math"
)

// Facts remembers, for small integer tensors of rank 0 or 1, the elements as dims: a size known to the compiler,
// a symbol, or Any. It lets shape arithmetic (Shape, Gather, Concat, Reshape) keep symbols.
type Facts struct{ vals map[*Value][]Dim }

// NewFacts starts with nothing but constants.
func NewFacts() *Facts { return &Facts{vals: map[*Value][]Dim{}} }

// maxTracked bounds the tensors whose elements are followed.
const maxTracked = 64

// Elems gives the elements of an integer value as dims, where they are followed.
func (f *Facts) Elems(v *Value) ([]Dim, bool) {
	if v == nil {
		return nil, false
	}
	if d := v.Const; d != nil {
		if (d.DType != I64 && d.DType != I32) || len(d.Dims) > 1 || d.Len() > maxTracked {
			return nil, false
		}
		out := make([]Dim, d.Len())
		for i := range out {
			out[i] = Static(d.Int(i))
		}
		return out, true
	}
	e, ok := f.vals[v]
	return e, ok
}

// Known gives the elements of an integer value when all are known to the compiler.
func (f *Facts) Known(v *Value) ([]int64, bool) {
	if v != nil && v.Const != nil && (v.Const.DType == I64 || v.Const.DType == I32) {
		return v.Const.Ints(), true
	}
	e, ok := f.Elems(v)
	if !ok {
		return nil, false
	}
	out := make([]int64, len(e))
	for i, d := range e {
		if !d.IsStatic() {
			return nil, false
		}
		out[i] = d.N
	}
	return out, true
}

// inferer is the view that an operator's inference has of one node.
type inferer struct {
	n   *Node
	f   *Facts
	out []Type
}

// Infer gives the types of the node's outputs, one per entry of n.Outs, from its inputs' types and constants,
// after checking the node's form against the table. Bodies of regions must carry types already.
func Infer(n *Node) ([]Type, error) { return InferWith(n, NewFacts()) }

// InferWith is Infer with facts about the inputs; facts about the outputs are added to f.
func InferWith(n *Node, f *Facts) ([]Type, error) {
	d, ok := Op(n.Op)
	if !ok {
		return nil, fmt.Errorf("operator %q is not in the table", n.Op)
	}
	if err := d.checkForm(n); err != nil {
		return nil, err
	}
	c := &inferer{n: n, f: f, out: make([]Type, len(n.Outs))}
	if err := d.infer(c); err != nil {
		return nil, err
	}
	for i, o := range n.Outs {
		if o == nil {
			continue
		}
		if r := c.out[i].Shape.Rank(); c.out[i].Kind == Tensor && r > MaxRank {
			return nil, fmt.Errorf("output %d has rank %d, over %d", i, r, MaxRank)
		}
		for _, dm := range c.out[i].Shape.Dims {
			if dm.IsStatic() && dm.N < 0 {
				return nil, fmt.Errorf("output %d has the negative dim %d", i, dm.N)
			}
		}
	}
	return c.out, nil
}

// InferGraph computes the type of every value of the graph from its parameters, and returns the facts found.
func InferGraph(g *Graph) (*Facts, error) {
	f := NewFacts()
	return f, inferRegion(g.Body, f)
}

func inferRegion(r *Region, f *Facts) error {
	for _, n := range r.Nodes {
		for _, sub := range n.Regions {
			if err := inferRegion(sub, f); err != nil {
				return err
			}
		}
		types, err := InferWith(n, f)
		if err != nil {
			return NodeError(n, err)
		}
		for i, o := range n.Outs {
			if o != nil {
				o.Type = types[i]
			}
		}
	}
	return nil
}

// NodeError wraps err with the node's name and operator.
func NodeError(n *Node, err error) error {
	return fmt.Errorf("node %q (%s): %w", n.Name, n.Op, err)
}

func (c *inferer) has(i int) bool { return c.n.In(i) != nil }

func (c *inferer) typ(i int) Type { return c.n.Ins[i].Type }

func (c *inferer) shape(i int) Shape { return c.n.Ins[i].Type.Shape }

func (c *inferer) dtype(i int) DType { return c.n.Ins[i].Type.DType }

// tensors checks that every present input is a tensor.
func (c *inferer) tensors() error {
	for i, v := range c.n.Ins {
		if v != nil && v.Type.Kind != Tensor {
			return fmt.Errorf("input %d is %s, want a tensor", i, v.Type)
		}
	}
	return nil
}

func (c *inferer) elems(i int) ([]Dim, bool) { return c.f.Elems(c.n.In(i)) }

func (c *inferer) known(i int) ([]int64, bool) { return c.f.Known(c.n.In(i)) }

// set gives output i a tensor type, when somebody asked for it.
func (c *inferer) set(i int, d DType, s Shape) {
	if i < len(c.out) {
		c.out[i] = TensorOf(d, s)
	}
}

func (c *inferer) setElems(i int, e []Dim) {
	if o := c.n.Out(i); o != nil && len(e) <= maxTracked {
		c.f.vals[o] = e
	}
}

func (c *inferer) want(i int, ok bool, what string) error {
	if !ok {
		return fmt.Errorf("input %d is %s, want %s", i, c.dtype(i), what)
	}
	return nil
}

// sameDType checks that the given present inputs have one element type.
func (c *inferer) sameDType(idx ...int) error {
	first := -1
	for _, i := range idx {
		if !c.has(i) {
			continue
		}
		if first < 0 {
			first = i
		} else if c.dtype(i) != c.dtype(first) {
			return fmt.Errorf("inputs %d and %d have different element types %s and %s", first, i, c.dtype(first), c.dtype(i))
		}
	}
	return nil
}

// i64 checks that input i, when present, is an i64 tensor of rank 0 or 1.
func (c *inferer) i64(i int) error {
	if !c.has(i) {
		return nil
	}
	if c.dtype(i) != I64 {
		return fmt.Errorf("input %d is %s, want i64", i, c.dtype(i))
	}
	if r := c.shape(i).Rank(); r > 1 {
		return fmt.Errorf("input %d has rank %d, want 0 or 1", i, r)
	}
	return nil
}

// Axis maps an axis in [-rank, rank-1] to [0, rank-1].
func Axis(axis int64, rank int) (int, error) {
	if axis < -int64(rank) || axis >= int64(rank) {
		return 0, fmt.Errorf("axis %d is out of range for rank %d", axis, rank)
	}
	if axis < 0 {
		axis += int64(rank)
	}
	return int(axis), nil
}

// Axes maps a list of axes like Axis and refuses doubled ones.
func Axes(axes []int64, rank int) ([]int, error) {
	out := make([]int, len(axes))
	seen := map[int]bool{}
	for i, a := range axes {
		k, err := Axis(a, rank)
		if err != nil {
			return nil, err
		}
		if seen[k] {
			return nil, fmt.Errorf("axis %d is given twice", a)
		}
		seen[k] = true
		out[i] = k
	}
	return out, nil
}

// BroadcastDim applies the numpy rule to one pair of dims.
func BroadcastDim(a, b Dim) (Dim, error) {
	switch {
	case a.IsStatic() && b.IsStatic():
		if a.N == b.N || b.N == 1 {
			return a, nil
		}
		if a.N == 1 {
			return b, nil
		}
		return Dim{}, fmt.Errorf("dims %d and %d do not broadcast", a.N, b.N)
	case a.IsStatic() && a.N == 1:
		return b, nil
	case b.IsStatic() && b.N == 1:
		return a, nil
	case a.IsStatic():
		return a, nil
	case b.IsStatic():
		return b, nil
	case a.Same(b):
		return a, nil
	}
	return Unknown(), nil
}

// Broadcast applies the numpy rule to two shapes.
func Broadcast(a, b Shape) (Shape, error) {
	if !a.Ranked || !b.Ranked {
		return Unranked(), nil
	}
	n := max(len(a.Dims), len(b.Dims))
	out := make([]Dim, n)
	for i := 0; i < n; i++ {
		x, y := Static(1), Static(1)
		if k := i - n + len(a.Dims); k >= 0 {
			x = a.Dims[k]
		}
		if k := i - n + len(b.Dims); k >= 0 {
			y = b.Dims[k]
		}
		d, err := BroadcastDim(x, y)
		if err != nil {
			return Shape{}, fmt.Errorf("shapes %s and %s: %w", a, b, err)
		}
		out[i] = d
	}
	return ShapeOf(out...), nil
}

func mulDim(a, b Dim) Dim {
	switch {
	case a.IsStatic() && b.IsStatic():
		if n, ok := mul64(a.N, b.N); ok {
			return Static(n)
		}
	case a.IsStatic() && a.N == 1:
		return b
	case b.IsStatic() && b.N == 1:
		return a
	}
	return Unknown()
}

func addDim(a, b Dim) Dim {
	switch {
	case a.IsStatic() && b.IsStatic():
		s := a.N + b.N
		if (s > a.N) == (b.N > 0) {
			return Static(s)
		}
	case a.IsStatic() && a.N == 0:
		return b
	case b.IsStatic() && b.N == 0:
		return a
	}
	return Unknown()
}

func mul64(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	p := a * b
	if p/b != a || (a == -1 && b == math.MinInt64) || (b == -1 && a == math.MinInt64) {
		return 0, false
	}
	return p, true
}

// unknownDims gives a ranked shape of n data-dependent dims.
func unknownDims(n int) Shape {
	s := Shape{Ranked: true, Dims: make([]Dim, n)}
	for i := range s.Dims {
		s.Dims[i] = Unknown()
	}
	return s
}

// length1 gives the static length of the rank-1 input i, -1 when unknown.
func (c *inferer) length1(i int) int {
	if e, ok := c.elems(i); ok {
		return len(e)
	}
	if s := c.shape(i); s.Rank() == 1 && s.Dims[0].IsStatic() {
		return int(min(s.Dims[0].N, 1<<20))
	}
	return -1
}
