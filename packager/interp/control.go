package interp

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
)

// maxTurns bounds loops, so that a graph without an exit ends in an error.
const maxTurns = 1 << 24

// body runs a region with the given parameters and returns its results.
func (c *call) body(r *ir.Region, params []*value) ([]*value, error) {
	if len(params) != len(r.Params) {
		return nil, fmt.Errorf("the body takes %d values, got %d", len(r.Params), len(params))
	}
	for i, p := range r.Params {
		c.m.vals[p] = params[i]
	}
	if err := c.m.region(r); err != nil {
		return nil, err
	}
	out := make([]*value, len(r.Results))
	for i, v := range r.Results {
		x, err := c.m.get(v)
		if err != nil {
			return nil, err
		}
		out[i] = x
	}
	return out, nil
}

func truth(t *tensor) (bool, error) {
	if t.dt != ir.Bool || t.len() != 1 {
		return false, fmt.Errorf("the condition is %s%v, want one bool", t.dt, t.dims)
	}
	return t.ints[0] != 0, nil
}

func (c *call) ifOp() ([]*value, error) {
	yes, err := truth(c.t(0))
	if err != nil {
		return nil, err
	}
	if yes {
		return c.body(c.n.Regions[0], nil)
	}
	return c.body(c.n.Regions[1], nil)
}

func (c *call) loop() ([]*value, error) {
	limit, on := int64(maxTurns), true
	if t := c.t(0); t != nil {
		if t.len() != 1 {
			return nil, fmt.Errorf("M has %d elements", t.len())
		}
		limit = t.ints[0]
	}
	if t := c.t(1); t != nil {
		var err error
		if on, err = truth(t); err != nil {
			return nil, err
		}
	}
	var carried []*value
	if len(c.ins) > 2 {
		carried = append(carried, c.ins[2:]...)
	}
	n := len(carried)
	scans := make([][]*tensor, len(c.n.Regions[0].Results)-1-n)
	for i := int64(0); on && i < limit; i++ {
		if i >= maxTurns {
			return nil, tooMuchf("more than %d turns", maxTurns)
		}
		it, _ := scalarInt(i)
		params := append(tensors(it, &tensor{dt: ir.Bool, dims: []int64{}, ints: []int64{1}}), carried...)
		res, err := c.body(c.n.Regions[0], params)
		if err != nil {
			return nil, err
		}
		if on, err = truth(res[0].t); err != nil {
			return nil, err
		}
		carried = append([]*value{}, res[1:1+n]...)
		for k := range scans {
			scans[k] = append(scans[k], res[1+n+k].t)
		}
	}
	out := carried
	for k, s := range scans {
		t, err := stack(s, 0, false, c.n.Regions[0].Results[1+n+k].Type)
		if err != nil {
			return nil, err
		}
		out = append(out, tensors(t)...)
	}
	return out, nil
}

// stack joins tensors of equal dims along a new axis; t gives the type of an element when there is none.
func stack(ts []*tensor, axis int64, backwards bool, typ ir.Type) (*tensor, error) {
	if len(ts) == 0 {
		dims := []int64{}
		for _, d := range typ.Shape.Dims {
			if d.IsStatic() {
				dims = append(dims, d.N)
			} else {
				dims = append(dims, 0)
			}
		}
		a, err := axisOf(axis, len(dims)+1)
		if err != nil {
			return nil, err
		}
		dims = append(dims[:a:a], append([]int64{0}, dims[a:]...)...)
		return alloc(typ.DType, dims)
	}
	a, err := axisOf(axis, len(ts[0].dims)+1)
	if err != nil {
		return nil, err
	}
	dims := append([]int64{}, ts[0].dims[:a]...)
	dims = append(dims, int64(len(ts)))
	dims = append(dims, ts[0].dims[a:]...)
	out, err := alloc(ts[0].dt, dims)
	if err != nil {
		return nil, err
	}
	st := strides(dims)
	for i, t := range ts {
		if fmt.Sprint(t.dims) != fmt.Sprint(ts[0].dims) {
			return nil, fmt.Errorf("scan outputs of dims %v and %v", ts[0].dims, t.dims)
		}
		if backwards {
			i = len(ts) - 1 - i
		}
		_ = each(t.dims, func(flat int, ix []int64) error {
			k := i * st[a]
			for d, v := range ix {
				if d < a {
					k += int(v) * st[d]
				} else {
					k += int(v) * st[d+1]
				}
			}
			out.set(k, t, flat)
			return nil
		})
	}
	return out, nil
}

func (c *call) scan() ([]*value, error) {
	r := c.n.Regions[0]
	ns := int(c.n.Int("num_scan_inputs"))
	states := append([]*value{}, c.ins[:len(c.ins)-ns]...)
	axes, dirs := c.n.Ints("scan_input_axes"), c.n.Ints("scan_input_directions")
	length := int64(-1)
	at := make([]int, ns)
	for i := 0; i < ns; i++ {
		t := c.t(len(states) + i)
		a, err := axisOf(axes[i], len(t.dims))
		if err != nil {
			return nil, err
		}
		at[i] = a
		if length >= 0 && t.dims[a] != length {
			return nil, fmt.Errorf("scan inputs of lengths %d and %d", length, t.dims[a])
		}
		length = t.dims[a]
	}
	n := len(states)
	scans := make([][]*tensor, len(r.Results)-n)
	for k := int64(0); k < length; k++ {
		params := append([]*value{}, states...)
		for i := 0; i < ns; i++ {
			t := c.t(n + i)
			pos := k
			if dirs[i] != 0 {
				pos = length - 1 - k
			}
			dims := append(append([]int64{}, t.dims[:at[i]]...), t.dims[at[i]+1:]...)
			src := make([]int64, len(t.dims))
			e, err := t.pickBy(dims, nil, func(ix []int64) []int64 {
				copy(src, ix[:at[i]])
				src[at[i]] = pos
				copy(src[at[i]+1:], ix[at[i]:])
				return src
			})
			if err != nil {
				return nil, err
			}
			params = append(params, tensors(e)...)
		}
		res, err := c.body(r, params)
		if err != nil {
			return nil, err
		}
		states = append([]*value{}, res[:n]...)
		for i := range scans {
			scans[i] = append(scans[i], res[n+i].t)
		}
	}
	outAxes, outDirs := c.n.Ints("scan_output_axes"), c.n.Ints("scan_output_directions")
	out := states
	for i, s := range scans {
		t, err := stack(s, outAxes[i], outDirs[i] != 0, r.Results[n+i].Type)
		if err != nil {
			return nil, err
		}
		out = append(out, tensors(t)...)
	}
	return out, nil
}
