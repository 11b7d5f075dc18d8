package onnx

import (
	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Sequences and optionals.

func sequenceOps() map[string]handler {
	t := map[string]handler{
		"SequenceConstruct": func(o *op) []*ir.Value {
			for i := range o.ins {
				o.need(i)
			}
			return one(o.emit("SequenceConstruct", nil, o.ins...))
		},
		"SequenceEmpty": func(o *op) []*ir.Value {
			d := o.attrInt("dtype", int64(ir.F32))
			if d < 1 || d > 255 || !ir.DType(d).Valid() {
				return o.lacks("dtype %d", d)
			}
			return one(o.emit("SequenceEmpty", ir.Attrs{"dtype": ir.DType(d)}))
		},
		"SequenceInsert": func(o *op) []*ir.Value {
			return one(o.emit("SequenceInsert", nil, o.need(0), o.need(1), o.i64(o.in(2))))
		},
		"SequenceErase":  func(o *op) []*ir.Value { return one(o.emit("SequenceErase", nil, o.need(0), o.i64(o.in(1)))) },
		"SequenceAt":     func(o *op) []*ir.Value { return one(o.emit("SequenceAt", nil, o.need(0), o.i64(o.need(1)))) },
		"SequenceLength": func(o *op) []*ir.Value { return one(o.emit("SequenceLength", nil, o.need(0))) },
		"ConcatFromSequence": func(o *op) []*ir.Value {
			if !o.hasAttr("axis") {
				return o.fail("attribute \"axis\" is missing")
			}
			return one(o.emit("ConcatFromSequence", ir.Attrs{"axis": o.attrInt("axis", 0), "new_axis": o.attrInt("new_axis", 0)}, o.need(0)))
		},
		"SplitToSequence": func(o *op) []*ir.Value {
			split := o.in(1)
			// The specification ignores keepdims beside a split, but PyTorch writes unbind as split = 1 with keepdims = 0, and ONNX Runtime
			// removes the dim then.
			if v, ok := o.known(split); ok && split.Type.Shape.Rank() == 0 && v[0] == 1 {
				split = nil
			}
			return one(o.emit("SplitToSequence", ir.Attrs{"axis": o.attrInt("axis", 0), "keepdims": o.attrInt("keepdims", 1)}, o.need(0), o.i64(split)))
		},
		"SequenceMap": sequenceMap,
		"Optional":    optional,
		"OptionalHasElement": func(o *op) []*ir.Value {
			x := o.in(0)
			if x == nil || x.Type.Kind != ir.Optional {
				return one(o.konst(ir.Bools([]int64{}, []bool{x != nil})))
			}
			return one(o.emit("OptionalHasElement", nil, x))
		},
		"OptionalGetElement": func(o *op) []*ir.Value {
			x := o.need(0)
			if x.Type.Kind != ir.Optional {
				return one(x)
			}
			return one(o.emit("OptionalGetElement", nil, x))
		},
	}
	for _, name := range []string{"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"} {
		t[name] = func(o *op) []*ir.Value { return o.draws("random draws") }
	}
	return t
}

func optional(o *op) []*ir.Value {
	x := o.in(0)
	a := o.find("type", attrType)
	if x != nil || o.err != nil {
		return one(o.emit("Optional", nil, x))
	}
	if a == nil || a.tp == nil {
		return o.fail("neither an input nor a type is given")
	}
	t, err := o.im.convType(a.tp, "")
	if err != nil {
		return o.fail("%w", err)
	}
	// The attribute is the type of the element, though some exporters write the optional itself.
	if t.Kind == ir.Optional {
		t = *t.Elem
	}
	return one(o.emit("Optional", ir.Attrs{"elem": t.String()}))
}

// loose is t with the sizes of tensors left open, for values that change from turn to turn.
func loose(t ir.Type) ir.Type {
	if t.Kind == ir.Tensor {
		return ir.TensorOf(t.DType, ir.Unranked())
	}
	if t.Elem != nil {
		e := loose(*t.Elem)
		t.Elem = &e
	}
	return t
}

// sequenceMap is a Loop over positions: the body's parameters become the elements at that position, its results are put into new sequences.
func sequenceMap(o *op) []*ir.Value {
	body := o.attrGraph("body")
	if o.err != nil {
		return nil
	}
	if len(body.inputs) != len(o.ins) || len(body.outputs) != len(o.p.outs) {
		return o.fail("the body takes %d and gives %d values for %d and %d of the node", len(body.inputs), len(body.outputs), len(o.ins), len(o.p.outs))
	}
	seq := o.need(0)
	if seq.Type.Kind != ir.Sequence {
		return o.fail("input 0 is %s, want a sequence", seq.Type)
	}
	var types []ir.Type
	for i := range o.ins {
		t := o.need(i).Type
		if t.Kind == ir.Sequence {
			t = *t.Elem
		}
		types = append(types, t)
	}
	r := o.sub(body, types)
	if o.err != nil {
		return nil
	}
	limit := o.emit("SequenceLength", nil, seq)
	outer := &ir.Region{}
	param := func(name string, t ir.Type) *ir.Value {
		v := &ir.Value{Name: o.im.unique(o.p.name+"~"+name, false), Type: t}
		outer.Params = append(outer.Params, v)
		return v
	}
	at, on := param("at", ir.TensorOf(ir.I64, ir.StaticShape())), param("on", ir.TensorOf(ir.Bool, ir.StaticShape()))
	in := o.within(outer)
	for i, x := range o.ins {
		n := &ir.Node{ID: o.im.nodes, Op: "Identity", Name: o.p.name, Attrs: map[string]ir.Attr{}, Ins: []*ir.Value{x}, Outs: []*ir.Value{r.Params[i]}}
		if x.Type.Kind == ir.Sequence {
			n.Op, n.Ins = "SequenceAt", []*ir.Value{x, at}
		}
		o.im.nodes++
		outer.Nodes = append(outer.Nodes, n)
	}
	outer.Nodes = append(outer.Nodes, r.Nodes...)
	outer.Results = []*ir.Value{on}
	loopIns := []*ir.Value{limit, nil}
	for _, v := range r.Results {
		if v.Type.Kind != ir.Tensor {
			return o.lacks("a body that gives %s", v.Type)
		}
		carried := o.emit("SequenceEmpty", ir.Attrs{"dtype": v.Type.DType})
		loopIns = append(loopIns, carried)
		p := param("out", carried.Type)
		outer.Results = append(outer.Results, in.emit("SequenceInsert", nil, p, v))
	}
	if in.err != nil {
		return o.fail("%w", in.err)
	}
	ir.SetCaptures(outer)
	o.bodyCaptures(outer)
	return o.emitRegions("Loop", nil, len(r.Results), []*ir.Region{outer}, loopIns...)
}

// maxInline bounds how deeply functions may call each other.
const maxInline = 32

// inline converts a node that calls a function of the model: the function's nodes, with the call's values and attributes in place of its
// parameters.
func (im *importer) inline(n *nodeProto, f *functionProto, r *ir.Region, sc *scope) error {
	o := im.newOp(r, sc, n)
	if im.inlined++; im.inlined > maxInline {
		return o.unsupported("functions call each other too deeply, or themselves", "")
	}
	defer func() { im.inlined-- }()
	if len(n.ins) > len(f.ins) || len(n.outs) > len(f.outs) {
		return o.fail2("function %s takes %d and gives %d values, the call has %d and %d", f.name, len(f.ins), len(f.outs), len(n.ins), len(n.outs))
	}
	inner := &scope{vals: map[string]*ir.Value{}}
	absent := map[string]bool{}
	for i, name := range f.ins {
		if i >= len(n.ins) || n.ins[i] == "" {
			absent[name] = true
			continue
		}
		v := sc.find(n.ins[i])
		if v == nil {
			return o.fail2("input %q is not computed before it", n.ins[i])
		}
		inner.vals[name] = v
	}
	attrs := map[string]attrProto{}
	for _, a := range f.defaults {
		attrs[a.name] = a
	}
	for _, a := range n.attrs {
		attrs[a.name] = a
	}
	opsets := im.opsets
	im.opsets = map[string]int64{}
	for _, s := range f.opsets {
		im.opsets[domain(s.domain)] = s.version
	}
	defer func() { im.opsets = opsets }()
	g := &graphProto{name: f.name, nodes: bindAttrs(f.nodes, attrs, absent)}
	for i := range g.nodes {
		if g.nodes[i].name == "" {
			g.nodes[i].name = g.nodes[i].op
		}
		g.nodes[i].name = n.name + "/" + g.nodes[i].name
	}
	if err := im.body(g, r, inner, false); err != nil {
		return err
	}
	for i, name := range n.outs {
		if name == "" {
			continue
		}
		v := inner.vals[f.outs[i]]
		if v == nil {
			return o.fail2("output %q of function %s is not computed", f.outs[i], f.name)
		}
		if sc.vals[name] != nil {
			return o.fail2("value %q is computed twice", name)
		}
		sc.vals[name] = v
	}
	return nil
}

// bindAttrs copies nodes with references to a function's attributes replaced by the call's, and its absent inputs left out.
func bindAttrs(nodes []nodeProto, attrs map[string]attrProto, absent map[string]bool) []nodeProto {
	out := make([]nodeProto, len(nodes))
	for i, n := range nodes {
		ins := append([]string{}, n.ins...)
		for j, name := range ins {
			if absent[name] {
				ins[j] = ""
			}
		}
		n.ins = ins
		as := n.attrs
		n.attrs = nil
		for _, a := range as {
			if a.ref != "" {
				v, ok := attrs[a.ref]
				if !ok {
					continue // the operator's own default holds
				}
				v.name = a.name
				a = v
			}
			if a.g != nil {
				g := *a.g
				g.nodes = bindAttrs(g.nodes, attrs, absent)
				a.g = &g
			}
			n.attrs = append(n.attrs, a)
		}
		out[i] = n
	}
	return out
}

// fail2 is an error about the node.
func (o *op) fail2(format string, args ...any) error {
	o.fail(format, args...)
	return &frontend.FormatError{Format: frontend.ONNX, Err: o.err}
}
