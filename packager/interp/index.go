package interp

import (
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/waybill-ml/waybill/packager/ir"
)

// at maps an index in [-n, n) to [0, n).
func at(i, n int64) (int64, error) {
	if i < -n || i >= n {
		return 0, indexf("index %d is out of range for dim of size %d", i, n)
	}
	if i < 0 {
		i += n
	}
	return i, nil
}

func (t *tensor) clone() *tensor {
	c := *t
	c.f32 = append([]float32(nil), t.f32...)
	c.f64 = append([]float64(nil), t.f64...)
	c.ints = append([]int64(nil), t.ints...)
	c.strs = append([]string(nil), t.strs...)
	if t.len() == 0 {
		z, err := alloc(t.dt, t.dims)
		if err == nil {
			return z
		}
	}
	return &c
}

func (c *call) trilu() (*tensor, error) {
	x, k := c.t(0), int64(0)
	if t := c.t(1); t != nil {
		if t.len() != 1 {
			return nil, fmt.Errorf("k has %d elements", t.len())
		}
		k = min(max(t.ints[0], -1<<40), 1<<40)
	}
	r := len(x.dims)
	if r < 2 {
		return nil, fmt.Errorf("rank %d", r)
	}
	upper := c.n.Int("upper") != 0
	zero, err := alloc(x.dt, []int64{1})
	if err != nil {
		return nil, err
	}
	return x.pickBy(x.dims, zero, func(ix []int64) []int64 {
		row, col := ix[r-2], ix[r-1]
		if upper && col < row+k || !upper && col > row+k {
			return nil
		}
		return ix
	})
}

// elementAt gives the flat position in dims that index ix of an index tensor names along axis.
func elementAt(dims, ix []int64, axis int, i int64) (int, error) {
	i, err := at(i, dims[axis])
	if err != nil {
		return 0, err
	}
	st, k := strides(dims), 0
	for d, v := range ix {
		if d == axis {
			v = i
		}
		k += int(v) * st[d]
	}
	return k, nil
}

func fits(data, ix []int64, axis int) error {
	for d := range ix {
		if d != axis && ix[d] > data[d] {
			return fmt.Errorf("data of %v and indices of %v", data, ix)
		}
	}
	return nil
}

func (c *call) gatherElements() (*tensor, error) {
	x, ix := c.t(0), c.t(1)
	if len(x.dims) != len(ix.dims) {
		return nil, fmt.Errorf("data of %v and indices of %v", x.dims, ix.dims)
	}
	axis, err := axisOf(c.n.Int("axis"), len(x.dims))
	if err != nil {
		return nil, err
	}
	if err := fits(x.dims, ix.dims, axis); err != nil {
		return nil, err
	}
	out, err := alloc(x.dt, ix.dims)
	if err != nil {
		return nil, err
	}
	return out, each(ix.dims, func(flat int, pos []int64) error {
		k, err := elementAt(x.dims, pos, axis, ix.ints[flat])
		if err == nil {
			out.set(flat, x, k)
		}
		return err
	})
}

// combine puts element k of src into element i of t by the reduction.
func (t *tensor) combine(reduction string, i int, src *tensor, k int) error {
	op := map[string]string{"add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}[reduction]
	switch {
	case op == "":
		t.set(i, src, k)
	case t.f32 != nil:
		v, err := arithFloat(op, t.f32[i], src.f32[k])
		t.f32[i] = half(t.dt, v)
		return err
	case t.f64 != nil:
		v, err := arithFloat(op, t.f64[i], src.f64[k])
		t.f64[i] = v
		return err
	default:
		v, err := (&call{n: &ir.Node{Op: op}}).arithInt(t.dt, t.ints[i], src.ints[k])
		t.ints[i] = wrap(t.dt, v)
		return err
	}
	return nil
}

func (c *call) scatterElements() (*tensor, error) {
	x, ix, up := c.t(0), c.t(1), c.t(2)
	if len(x.dims) != len(ix.dims) {
		return nil, fmt.Errorf("data of %v and indices of %v", x.dims, ix.dims)
	}
	axis, err := axisOf(c.n.Int("axis"), len(x.dims))
	if err != nil {
		return nil, err
	}
	if err := fits(x.dims, ix.dims, axis); err != nil {
		return nil, err
	}
	if fmt.Sprint(ix.dims) != fmt.Sprint(up.dims) {
		return nil, fmt.Errorf("indices of %v and updates of %v", ix.dims, up.dims)
	}
	out := x.clone()
	return out, each(ix.dims, func(flat int, pos []int64) error {
		k, err := elementAt(x.dims, pos, axis, ix.ints[flat])
		if err != nil {
			return err
		}
		return out.combine(c.n.Str("reduction"), k, up, flat)
	})
}

// slices reads the index tuples of GatherND and ScatterND: the start of each named slice in x, and the size of a slice. Updates,
// of ScatterND, must have the dims of what the tuples name.
func slices(x, ix, up *tensor, batch int) (starts []int, size int, rest []int64, err error) {
	r := len(ix.dims) - 1
	if r < batch || len(x.dims) < batch {
		return nil, 0, nil, fmt.Errorf("X of %v, indices of %v, %d batch dims", x.dims, ix.dims, batch)
	}
	k := int(ix.dims[r])
	if k < 1 || batch+k > len(x.dims) {
		return nil, 0, nil, fmt.Errorf("index tuples of %d for X of %v", k, x.dims)
	}
	for d := 0; d < batch; d++ {
		if x.dims[d] != ix.dims[d] {
			return nil, 0, nil, fmt.Errorf("batch dims of %v and %v", x.dims, ix.dims)
		}
	}
	rest = x.dims[batch+k:]
	if up != nil {
		if want := append(append([]int64{}, ix.dims[:r]...), rest...); fmt.Sprint(want) != fmt.Sprint(up.dims) {
			return nil, 0, nil, fmt.Errorf("updates of %v, want %v", up.dims, want)
		}
	}
	n, _ := ir.Elements(rest)
	size = int(n)
	if size == 0 {
		return nil, 0, rest, nil
	}
	st := strides(x.dims)
	err = each(ix.dims[:r], func(flat int, pos []int64) error {
		s := 0
		for d := 0; d < batch; d++ {
			s += int(pos[d]) * st[d]
		}
		for j := 0; j < k; j++ {
			i, err := at(ix.ints[flat*k+j], x.dims[batch+j])
			if err != nil {
				return err
			}
			s += int(i) * st[batch+j]
		}
		starts = append(starts, s)
		return nil
	})
	return starts, size, rest, err
}

func (c *call) gatherND() (*tensor, error) {
	x, ix := c.t(0), c.t(1)
	starts, size, rest, err := slices(x, ix, nil, int(c.n.Int("batch_dims")))
	if err != nil {
		return nil, err
	}
	out, err := alloc(x.dt, append(append([]int64{}, ix.dims[:len(ix.dims)-1]...), rest...))
	if err != nil {
		return nil, err
	}
	for i, s := range starts {
		for e := 0; e < size; e++ {
			out.set(i*size+e, x, s+e)
		}
	}
	return out, nil
}

func (c *call) scatterND() (*tensor, error) {
	x, ix, up := c.t(0), c.t(1), c.t(2)
	starts, size, _, err := slices(x, ix, up, 0)
	if err != nil {
		return nil, err
	}
	out := x.clone()
	for i, s := range starts {
		for e := 0; e < size; e++ {
			if err := out.combine(c.n.Str("reduction"), s+e, up, i*size+e); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (c *call) nonZero() (*tensor, error) {
	x := c.t(0)
	var hits [][]int64
	err := each(x.dims, func(flat int, ix []int64) error {
		var zero bool
		switch {
		case x.f32 != nil:
			zero = x.f32[flat] == 0
		case x.f64 != nil:
			zero = x.f64[flat] == 0
		case x.ints != nil:
			zero = x.ints[flat] == 0
		default:
			return c.unsupported(x.dt.String())
		}
		if !zero {
			hits = append(hits, append([]int64{}, ix...))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out, err := alloc(ir.I64, []int64{int64(len(x.dims)), int64(len(hits))})
	if err != nil {
		return nil, err
	}
	for i, h := range hits {
		for d, v := range h {
			out.ints[d*len(hits)+i] = v
		}
	}
	return out, nil
}

// order compares two elements: numbers by value with NaN last and zeros equal, strings by bytes.
func (t *tensor) order(i, k int) int {
	cmp := func(lt, gt bool) int {
		switch {
		case lt:
			return -1
		case gt:
			return 1
		}
		return 0
	}
	float := func(a, b float64) int {
		if a != a || b != b {
			return cmp(b != b && a == a, a != a && b == b)
		}
		return cmp(a < b, a > b)
	}
	switch {
	case t.f32 != nil:
		return float(float64(t.f32[i]), float64(t.f32[k]))
	case t.f64 != nil:
		return float(t.f64[i], t.f64[k])
	case t.strs != nil:
		return strings.Compare(t.strs[i], t.strs[k])
	}
	return cmp(less(t.dt, t.ints[i], t.ints[k]), less(t.dt, t.ints[k], t.ints[i]))
}

func (c *call) uniqueRows() ([]*tensor, error) {
	x := c.t(0)
	if len(x.dims) == 0 {
		return nil, fmt.Errorf("X has rank 0")
	}
	n, m := int(x.dims[0]), 0
	if n > 0 {
		m = x.len() / n
	}
	cmp := func(a, b int) int {
		for e := 0; e < m; e++ {
			if o := x.order(a*m+e, b*m+e); o != 0 {
				return o
			}
		}
		return 0
	}
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	sort.SliceStable(rows, func(a, b int) bool { return cmp(rows[a], rows[b]) < 0 })
	var groups [][]int // the first of each is its first occurrence
	for i, r := range rows {
		if i == 0 || cmp(rows[i-1], r) != 0 {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], r)
	}
	if c.n.Int("sorted") == 0 {
		sort.Slice(groups, func(a, b int) bool { return groups[a][0] < groups[b][0] })
	}
	g := int64(len(groups))
	first, inverse, counts := ir.I64s([]int64{g}, make([]int64, g)), make([]int64, n), make([]int64, g)
	firsts := make([]int64, g)
	for i, rs := range groups {
		firsts[i], counts[i] = int64(rs[0]), int64(len(rs))
		for _, r := range rs {
			inverse[r] = int64(i)
		}
	}
	return []*tensor{{dt: ir.I64, dims: first.Dims, ints: firsts}, {dt: ir.I64, dims: []int64{int64(n)}, ints: inverse},
		{dt: ir.I64, dims: first.Dims, ints: counts}}, nil
}

func (c *call) reverseSequence() (*tensor, error) {
	x, lens := c.t(0), c.t(1)
	b, t := int(c.n.Int("batch_axis")), int(c.n.Int("time_axis"))
	if len(x.dims) < 2 || int64(lens.len()) != x.dims[b] {
		return nil, fmt.Errorf("input of %v and %d lengths", x.dims, lens.len())
	}
	if x.len() > 0 {
		for _, l := range lens.ints {
			if l < 0 || l > x.dims[t] {
				return nil, valuef("length %d of %d", l, x.dims[t])
			}
		}
	}
	src := make([]int64, len(x.dims))
	return x.pickBy(x.dims, nil, func(ix []int64) []int64 {
		copy(src, ix)
		if l := lens.ints[ix[b]]; ix[t] < l {
			src[t] = l - 1 - ix[t]
		}
		return src
	})
}

func (c *call) eyeLike() (*tensor, error) {
	x, k := c.t(0), c.n.Int("k")
	if len(x.dims) != 2 {
		return nil, fmt.Errorf("input of %v", x.dims)
	}
	out, err := alloc(c.n.DType("dtype"), x.dims)
	if err != nil {
		return nil, err
	}
	if k > math.MaxInt32 || k < -math.MaxInt32 {
		return out, nil
	}
	return out, each(x.dims, func(flat int, ix []int64) error {
		if ix[1] == ix[0]+k {
			switch {
			case out.f32 != nil:
				out.f32[flat] = 1
			case out.f64 != nil:
				out.f64[flat] = 1
			default:
				out.ints[flat] = 1
			}
		}
		return nil
	})
}
