package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// previewOps are operators of ai.onnx.preview, whose form may still change with its version.
func previewOps() map[string]handler {
	return map[string]handler{"FlexAttention": flexAttention}
}

// inline imports a body in place, with its inputs bound to args, and gives its outputs.
func (o *op) inline(p *graphProto, args ...*ir.Value) []*ir.Value {
	if o.err != nil {
		return args
	}
	if len(p.inputs) != len(args) {
		o.fail("body %q takes %d inputs, want %d", p.name, len(p.inputs), len(args))
		return args
	}
	sc := &scope{outer: o.sc, vals: map[string]*ir.Value{}}
	if o.err = o.im.initializers(p, sc, false); o.err != nil {
		return args
	}
	for i, in := range p.inputs {
		if in.name == "" || sc.vals[in.name] != nil {
			o.fail("input %d of body %q has no name of its own", i, p.name)
			return args
		}
		sc.vals[in.name] = args[i]
	}
	if o.err = o.im.body(p, o.r, sc, false); o.err != nil {
		return args
	}
	var outs []*ir.Value
	for _, out := range p.outputs {
		v := sc.find(out.name)
		if v == nil {
			o.fail("output %q of body %q is not computed by any node", out.name, p.name)
			return args
		}
		outs = append(outs, v)
	}
	return outs
}

// modify applies an optional subgraph that changes the scores or the probabilities and keeps their type.
func (o *op) modify(name string, x *ir.Value) *ir.Value {
	if !o.hasAttr(name) {
		return x
	}
	p := o.attrGraph(name)
	if o.err != nil {
		return x
	}
	outs := o.inline(p, x)
	if o.err == nil && (len(outs) != 1 || outs[0].Type.Kind != ir.Tensor || outs[0].Type.DType != x.Type.DType) {
		o.fail("%s must give one tensor of %s", name, x.Type.DType)
	}
	if o.err != nil {
		return x
	}
	return outs[0]
}

// flexAttention is attention whose scores and probabilities pass through subgraphs, in the softmax's precision.
func flexAttention(o *op) []*ir.Value {
	d := o.need(0).Type.DType
	o.widen()
	q, k, v := o.need(0), o.need(1), o.need(2)
	if o.err == nil && (rank(q) != 4 || rank(k) != 4 || rank(v) != 4) {
		return o.lacks("Q, K and V have ranks %d, %d and %d, want 4 for all", rank(q), rank(k), rank(v))
	}
	if o.err != nil {
		return nil
	}
	work, prec := q.Type.DType, q.Type.DType
	if o.hasAttr("softmax_precision") {
		switch p := ir.DType(o.attrInt("softmax_precision", 0)); p {
		case ir.F16, ir.BF16, ir.F32, ir.F64:
			prec = p
		default:
			return o.fail("softmax_precision %d is no float type", p)
		}
	}
	h := o.heading(q, k)
	s := o.modify("score_mod", o.cast(o.scores(h, q, k, o.rootScale(q, work)), prec))
	p := o.modify("prob_mod", o.emit("Softmax", ir.Attrs{"axis": -1}, s))
	return one(o.cast(o.weigh(h, p, o.cast(v, prec)), d))
}
