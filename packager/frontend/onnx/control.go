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
		return o.lacks("Scan before opset 9")
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
