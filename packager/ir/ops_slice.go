package ir

import (
	"fmt"
	"math"
)

// Inference of the operators that cut tensors up and put them together: Slice, Gather, Pad, Split, Tile and their like.

// SliceBounds applies the rules of Slice to one axis of size n: the first index and the number of elements.
// step must not be 0.
func SliceBounds(start, end, step, n int64) (first, count int64) {
	if start < 0 {
		start += n
	}
	if end < 0 {
		end += n
	}
	if step > 0 {
		start, end = min(max(start, 0), n), min(max(end, 0), n)
		if end <= start {
			return start, 0
		}
		return start, (end-start-1)/step + 1
	}
	start, end = min(max(start, 0), n-1), min(max(end, -1), n-1)
	if start <= end {
		return max(start, 0), 0
	}
	step = max(step, -math.MaxInt64) // -MinInt64 would overflow
	return start, (start-end-1)/-step + 1
}

func inferSlice(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	for i := 1; i < 5; i++ {
		if err := c.i64(i); err != nil {
			return err
		}
	}
	in := c.shape(0)
	if !in.Ranked {
		c.set(0, c.dtype(0), in)
		return nil
	}
	starts, ok1 := c.elems(1)
	ends, ok2 := c.elems(2)
	axes, ok3 := c.known(3)
	steps, ok4 := c.known(4)
	if !c.has(3) {
		if n := c.length1(1); n >= 0 && n <= in.Rank() {
			ok3 = true
			for i := 0; i < n; i++ {
				axes = append(axes, int64(i))
			}
		}
	}
	if !ok3 {
		c.set(0, c.dtype(0), unknownDims(in.Rank()))
		return nil
	}
	ax, err := Axes(axes, in.Rank())
	if err != nil {
		return err
	}
	out := in.Clone()
	exact := ok1 && ok2
	if exact && (len(starts) != len(ax) || len(ends) != len(ax)) || c.has(4) && ok4 && len(steps) != len(ax) {
		return fmt.Errorf("%d axes with %d starts, %d ends, %d steps", len(ax), len(starts), len(ends), len(steps))
	}
	for k, a := range ax {
		step := int64(1)
		if c.has(4) {
			if !ok4 {
				out.Dims[a] = Unknown()
				exact = false
				continue
			}
			step = steps[k]
		}
		if step == 0 {
			return fmt.Errorf("step 0")
		}
		if !ok1 || !ok2 {
			out.Dims[a] = Unknown()
			continue
		}
		out.Dims[a] = sliceDim(in.Dims[a], starts[k], ends[k], step)
	}
	c.set(0, c.dtype(0), out)
	if e, ok := c.elems(0); ok && exact && in.Rank() == 1 && len(ax) == 1 && starts[0].IsStatic() && ends[0].IsStatic() {
		step := int64(1)
		if c.has(4) {
			step = steps[0]
		}
		first, n := SliceBounds(starts[0].N, ends[0].N, step, int64(len(e)))
		var part []Dim
		for i := int64(0); i < n; i++ {
			part = append(part, e[first+i*step])
		}
		c.setElems(0, part)
	}
	return nil
}

func sliceDim(d, start, end Dim, step int64) Dim {
	if d.IsStatic() && start.IsStatic() && end.IsStatic() {
		_, n := SliceBounds(start.N, end.N, step, d.N)
		return Static(n)
	}
	// The whole dim: [0, a bound beyond any size) by 1; or [0, the dim itself).
	if step == 1 && start.IsStatic() && start.N == 0 && (end.IsStatic() && end.N >= math.MaxInt32 || end.Same(d)) {
		return d
	}
	if step == -1 && start.IsStatic() && start.N == -1 && end.IsStatic() && end.N <= -math.MaxInt32 {
		return d
	}
	return Unknown()
}

func inferGather(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(1, c.dtype(1) == I64, "i64"); err != nil {
		return err
	}
	s, ix := c.shape(0), c.shape(1)
	if !s.Ranked || !ix.Ranked {
		c.set(0, c.dtype(0), Unranked())
		return nil
	}
	axis, err := Axis(c.n.Int("axis"), s.Rank())
	if err != nil {
		return err
	}
	var out []Dim
	out = append(out, s.Dims[:axis]...)
	out = append(out, ix.Dims...)
	out = append(out, s.Dims[axis+1:]...)
	c.set(0, c.dtype(0), ShapeOf(out...))
	e, ok := c.elems(0)
	k, ok2 := c.known(1)
	if ok && ok2 && s.Rank() == 1 && ix.Rank() <= 1 {
		var part []Dim
		for _, i := range k {
			if i < 0 {
				i += int64(len(e))
			}
			if i < 0 || i >= int64(len(e)) {
				return fmt.Errorf("index %d is out of range for %d elements", i, len(e))
			}
			part = append(part, e[i])
		}
		c.setElems(0, part)
	}
	return nil
}

func inferExpand(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	s, err := Broadcast(c.shape(0), c.shapeFrom(1))
	c.set(0, c.dtype(0), s)
	return err
}

// permutation checks that perm holds each of 0 to its length - 1 once.
func permutation(perm []int64) ([]int, error) {
	for _, p := range perm {
		if p < 0 {
			return nil, fmt.Errorf("perm %v is no permutation", perm)
		}
	}
	ax, err := Axes(perm, len(perm))
	if err != nil {
		return nil, fmt.Errorf("perm %v is no permutation: %w", perm, err)
	}
	return ax, nil
}

func inferTranspose(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	s, perm := c.shape(0), c.n.Ints("perm")
	if !s.Ranked {
		if len(perm) > 0 {
			if _, err := permutation(perm); err != nil {
				return err
			}
			c.set(0, c.dtype(0), unknownDims(len(perm)))
		} else {
			c.set(0, c.dtype(0), s)
		}
		return nil
	}
	if len(perm) == 0 {
		for i := s.Rank() - 1; i >= 0; i-- {
			perm = append(perm, int64(i))
		}
	}
	if len(perm) != s.Rank() {
		return fmt.Errorf("perm has %d entries for rank %d", len(perm), s.Rank())
	}
	ax, err := permutation(perm)
	if err != nil {
		return err
	}
	out := make([]Dim, len(ax))
	for i, a := range ax {
		out[i] = s.Dims[a]
	}
	c.set(0, c.dtype(0), ShapeOf(out...))
	return nil
}

func inferPad(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.sameDType(0, 2); err != nil {
		return err
	}
	for _, i := range []int{1, 3} {
		if err := c.i64(i); err != nil {
			return err
		}
	}
	switch m := c.n.Str("mode"); m {
	case "constant", "reflect", "edge", "wrap":
	default:
		return fmt.Errorf("mode %q", m)
	}
	s := c.shape(0)
	if !s.Ranked {
		c.set(0, c.dtype(0), s)
		return nil
	}
	pads, ok := c.known(1)
	axes, ok2 := c.known(3)
	if !c.has(3) {
		ok2 = true
		for i := 0; i < s.Rank(); i++ {
			axes = append(axes, int64(i))
		}
	}
	if !ok2 {
		c.set(0, c.dtype(0), unknownDims(s.Rank()))
		return nil
	}
	ax, err := Axes(axes, s.Rank())
	if err != nil {
		return err
	}
	out := s.Clone()
	if ok && len(pads) != 2*len(ax) {
		return fmt.Errorf("%d pads for %d axes", len(pads), len(ax))
	}
	for k, a := range ax {
		if !ok {
			out.Dims[a] = Unknown()
			continue
		}
		out.Dims[a] = addDim(addDim(out.Dims[a], Static(pads[k])), Static(pads[k+len(ax)]))
	}
	c.set(0, c.dtype(0), out)
	return nil
}

func inferSplit(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	s, n := c.shape(0), int64(len(c.n.Outs))
	if num := c.n.Int("num_outputs"); num != n {
		return fmt.Errorf("%d outputs, but num_outputs is %d", n, num)
	}
	if !s.Ranked {
		for i := range c.out {
			c.set(i, c.dtype(0), s)
		}
		return nil
	}
	axis, err := Axis(c.n.Int("axis"), s.Rank())
	if err != nil {
		return err
	}
	parts, ok := c.known(1)
	if ok && int64(len(parts)) != n {
		return fmt.Errorf("%d sizes for %d outputs", len(parts), n)
	}
	if d := s.Dims[axis]; !c.has(1) && d.IsStatic() {
		ok = true
		chunk := (d.N + n - 1) / n
		for i := int64(0); i < n; i++ {
			parts = append(parts, max(min(chunk, d.N-i*chunk), 0))
		}
	}
	if d := s.Dims[axis]; ok && d.IsStatic() {
		var sum int64
		for _, p := range parts {
			sum += p
		}
		if sum != d.N {
			return fmt.Errorf("sizes sum to %d, dim %d is %d", sum, axis, d.N)
		}
	}
	for i := range c.out {
		o := s.Clone()
		o.Dims[axis] = Unknown()
		if ok {
			o.Dims[axis] = Static(parts[i])
		}
		c.set(i, c.dtype(0), o)
	}
	return nil
}

func inferTile(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	s := c.shape(0)
	if !s.Ranked {
		c.set(0, c.dtype(0), s)
		return nil
	}
	rep, ok := c.elems(1)
	if !ok {
		c.set(0, c.dtype(0), unknownDims(s.Rank()))
		return nil
	}
	if len(rep) != s.Rank() {
		return fmt.Errorf("%d repeats for rank %d", len(rep), s.Rank())
	}
	out := make([]Dim, len(rep))
	for i, d := range s.Dims {
		out[i] = mulDim(d, rep[i])
	}
	c.set(0, c.dtype(0), ShapeOf(out...))
	return nil
}

func inferOneHot(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, c.dtype(0) == I64, "i64"); err != nil {
		return err
	}
	if err := c.i64(1); err != nil {
		return err
	}
	s := c.shape(0)
	if !s.Ranked {
		c.set(0, c.dtype(2), s)
		return nil
	}
	axis, err := Axis(c.n.Int("axis"), s.Rank()+1)
	if err != nil {
		return err
	}
	depth := Unknown()
	if e, ok := c.elems(1); ok && len(e) == 1 {
		depth = e[0]
	}
	out := append([]Dim(nil), s.Dims[:axis]...)
	out = append(out, depth)
	out = append(out, s.Dims[axis:]...)
	c.set(0, c.dtype(2), ShapeOf(out...))
	return nil
}
