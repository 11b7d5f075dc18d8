package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func controlOps() map[string]handler {
	return map[string]handler{"If": ifOp, "Loop": loop, "Scan": scan}
}

func (o *op) sub(p *graphProto, params []ir.Type) *ir.Region {
	if o.err != nil {
		return nil
	}
	r, err := o.im.subgraph(p, o.sc, params)
	if err != nil {
		if o.err == nil {
			o.err = err
		}
		return nil
	}
	ir.SetCaptures(r)
	return r
}

func ifOp(o *op) []*ir.Value {
	cond := o.need(0)
	th, el := o.attrGraph("then_branch"), o.attrGraph("else_branch")
	if o.err != nil {
		return nil
	}
	if len(th.inputs) != 0 || len(el.inputs) != 0 {
		return o.fail("a branch has inputs")
	}
	a, b := o.sub(th, nil), o.sub(el, nil)
	if o.err != nil {
		return nil
	}
	o.bodyCaptures(a, b)
	return o.emitRegions("If", nil, len(o.p.outs), []*ir.Region{a, b}, cond)
}

// bodyCaptures sets the regions' own captures, which SetCaptures leaves to the node that holds them.
func (o *op) bodyCaptures(rs ...*ir.Region) {
	ir.SetCaptures(&ir.Region{Nodes: []*ir.Node{{Regions: rs}}})
}

// bodyType is the type of a body's parameter: what flows in, with the rank and sizes left open unless the model
// declares them, since later turns may bring other sizes.
func (o *op) bodyType(p valueInfo, in ir.Type) ir.Type {
	if p.typ != nil {
		if t, err := o.im.convType(p.typ, ""); err == nil && t.Compatible(in) {
			return t
		}
	}
	return loose(in)
}

func loop(o *op) []*ir.Value {
	body := o.attrGraph("body")
	if o.err != nil {
		return nil
	}
	if len(o.ins) < 2 {
		return o.fail("%d inputs, want at least 2", len(o.ins))
	}
	if len(body.inputs) != len(o.ins) {
		return o.fail("the body takes %d inputs for %d of the node", len(body.inputs), len(o.ins))
	}
	params := []ir.Type{ir.TensorOf(ir.I64, ir.StaticShape()), ir.TensorOf(ir.Bool, ir.StaticShape())}
	for i := 2; i < len(o.ins); i++ {
		params = append(params, o.bodyType(body.inputs[i], o.need(i).Type))
	}
	r := o.sub(body, params)
	if o.err != nil {
		return nil
	}
	o.bodyCaptures(r)
	return o.emitRegions("Loop", nil, len(o.p.outs), []*ir.Region{r}, o.ins...)
}

func scan(o *op) []*ir.Value {
	if o.ver < 9 {
		return scan8(o)
	}
	body, n := o.attrGraph("body"), o.attrInt("num_scan_inputs", 0)
	if o.err != nil {
		return nil
	}
	states := len(o.ins) - int(n)
	outs := len(body.outputs) - states
	if n < 1 || states < 0 || outs < 0 || len(body.inputs) != len(o.ins) {
		return o.fail("num_scan_inputs is %d, with %d inputs; the body takes %d and gives %d values", n, len(o.ins), len(body.inputs), len(body.outputs))
	}
	list := func(name string, want int) []int64 {
		v := o.attrInts(name)
		if len(v) == 0 {
			v = make([]int64, want)
		}
		return v
	}
	axes := list("scan_input_axes", int(n))
	attrs := ir.Attrs{"num_scan_inputs": n, "scan_input_axes": axes, "scan_input_directions": list("scan_input_directions", int(n)),
		"scan_output_axes": list("scan_output_axes", outs), "scan_output_directions": list("scan_output_directions", outs)}
	if len(axes) != int(n) {
		return o.fail("%d scan_input_axes for %d scan inputs", len(axes), n)
	}
	var params []ir.Type
	for i := range o.ins {
		t := o.need(i).Type
		if i < states {
			params = append(params, o.bodyType(body.inputs[i], t))
			continue
		}
		s := t.Shape
		if s.Ranked {
			a, err := ir.Axis(axes[i-states], s.Rank())
			if err != nil {
				return o.fail("%w", err)
			}
			s = ir.ShapeOf(append(append([]ir.Dim{}, s.Dims[:a]...), s.Dims[a+1:]...)...)
		}
		params = append(params, ir.TensorOf(t.DType, s))
	}
	r := o.sub(body, params)
	if o.err != nil {
		return nil
	}
	o.bodyCaptures(r)
	return o.emitRegions("Scan", attrs, len(o.p.outs), []*ir.Region{r}, o.ins...)
}

// within makes an op that adds nodes to region r, of a node that o lowers.
func (o *op) within(r *ir.Region) *op {
	p := &nodeProto{op: o.p.op, name: o.p.name, domain: o.p.domain}
	return &op{im: o.im, r: r, sc: o.sc, p: p, ver: o.ver, read: map[string]bool{}, fresh: map[*ir.Value]bool{}}
}

// scan8 is Scan of opset 8, which had a batch as first dim of everything: a Scan over the batch around the one over the sequence.
func scan8(o *op) []*ir.Value {
	body, n := o.attrGraph("body"), int(o.attrInt("num_scan_inputs", 0))
	if o.err != nil {
		return nil
	}
	if o.in(0) != nil {
		return o.lacks("Scan of opset 8 with sequence_lens")
	}
	ins := o.ins[min(1, len(o.ins)):]
	states := len(ins) - n
	outs := len(body.outputs) - states
	if n < 1 || states < 0 || outs < 0 || len(body.inputs) != len(ins) {
		return o.fail("num_scan_inputs is %d, with %d inputs; the body takes %d and gives %d values", n, len(ins), len(body.inputs), len(body.outputs))
	}
	dirs := o.attrInts("directions")
	if len(dirs) == 0 {
		dirs = make([]int64, n)
	}
	tail := func(t ir.Type) ir.Type {
		if t.Shape.Rank() < 1 {
			return ir.TensorOf(t.DType, ir.Unranked())
		}
		return ir.TensorOf(t.DType, ir.ShapeOf(t.Shape.Dims[1:]...))
	}
	batch := &ir.Region{}
	var params []ir.Type
	for i := range ins {
		t := tail(o.need(i + 1).Type)
		batch.Params = append(batch.Params, &ir.Value{Name: o.im.unique(o.p.name+"~row", false), Type: t})
		if i < states {
			params = append(params, o.bodyType(body.inputs[i], t))
		} else {
			params = append(params, tail(t))
		}
	}
	r := o.sub(body, params)
	if o.err != nil {
		return nil
	}
	zeros := func(n int) []int64 { return make([]int64, n) }
	o.bodyCaptures(r)
	in := o.within(batch)
	batch.Results = in.emitRegions("Scan", ir.Attrs{"num_scan_inputs": n, "scan_input_axes": zeros(n), "scan_input_directions": dirs,
		"scan_output_axes": zeros(outs), "scan_output_directions": zeros(outs)}, states+outs, []*ir.Region{r}, batch.Params...)
	if in.err != nil {
		return o.fail("%w", in.err)
	}
	ir.SetCaptures(batch)
	o.bodyCaptures(batch)
	return o.emitRegions("Scan", ir.Attrs{"num_scan_inputs": len(ins), "scan_input_axes": zeros(len(ins)), "scan_input_directions": zeros(len(ins)),
		"scan_output_axes": zeros(states + outs), "scan_output_directions": zeros(states + outs)}, states+outs, []*ir.Region{batch}, ins...)
}
