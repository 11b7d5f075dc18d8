package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// Regions that handlers write themselves, not the model.

// body makes a region that o's node will hold: its parameters have the given types, f adds the nodes and gives the results.
func (o *op) body(types []ir.Type, f func(in *op, p []*ir.Value) []*ir.Value) *ir.Region {
	r := &ir.Region{}
	for _, t := range types {
		r.Params = append(r.Params, &ir.Value{Name: o.im.unique(o.p.name+"~in", false), Type: t})
	}
	if o.err != nil {
		return r
	}
	in := o.within(r)
	r.Results = f(in, r.Params)
	if in.err != nil {
		o.fail("%w", in.err)
		return r
	}
	ir.SetCaptures(r)
	return r
}

// repeat is repeatN for a known number of turns.
func (o *op) repeat(turns int64, carried []*ir.Value, f func(in *op, turn *ir.Value, v []*ir.Value) (*ir.Value, []*ir.Value)) []*ir.Value {
	return o.repeatN(o.scalar(ir.I64, float64(turns)), carried, f)
}

// repeatN runs a Loop of at most `turns` (i64 scalar) turns over the carried values, which keep their types. f gives whether
// to go on (nil: always) and the new values.
func (o *op) repeatN(turns *ir.Value, carried []*ir.Value, f func(in *op, turn *ir.Value, v []*ir.Value) (*ir.Value, []*ir.Value)) []*ir.Value {
	types := []ir.Type{ir.TensorOf(ir.I64, ir.StaticShape()), ir.TensorOf(ir.Bool, ir.StaticShape())}
	for _, v := range carried {
		types = append(types, v.Type)
	}
	r := o.body(types, func(in *op, p []*ir.Value) []*ir.Value {
		on, vs := f(in, p[0], p[2:])
		if on == nil {
			on = in.emit("Identity", nil, p[1])
		}
		return append([]*ir.Value{on}, vs...)
	})
	if o.err != nil {
		return carried
	}
	o.bodyCaptures(r)
	ins := append([]*ir.Value{turns, o.konst(ir.Bools([]int64{}, []bool{true}))}, carried...)
	return o.emitRegions("Loop", nil, len(carried), []*ir.Region{r}, ins...)
}
