package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func indexOps() map[string]handler {
	return map[string]handler{
		"Concat": concat, "Slice": slice, "Gather": gather, "Pad": pad, "Split": split, "Tile": tile, "OneHot": oneHot,
	}
}

func concat(o *op) []*ir.Value {
	if !o.hasAttr("axis") && o.ver >= 4 {
		return o.fail("attribute \"axis\" is missing")
	}
	axis := o.attrInt("axis", 1)
	ins := make([]*ir.Value, len(o.ins))
	for i := range ins {
		ins[i] = o.need(i)
	}
	if len(ins) == 0 {
		return o.fail("no inputs")
	}
	return one(o.emit("Concat", ir.Attrs{"axis": axis}, ins...))
}

func slice(o *op) []*ir.Value {
	x := o.need(0)
	starts, ends, axes := o.listIn(1, "starts", 10), o.listIn(2, "ends", 10), o.listIn(3, "axes", 10)
	var steps *ir.Value
	if o.ver >= 10 {
		steps = o.i64(o.in(4))
	}
	if starts == nil || ends == nil {
		return o.fail("starts or ends are missing")
	}
	n := -1
	if d := starts.Type.Shape; d.Rank() == 1 && d.Dims[0].IsStatic() && d.Dims[0].N <= ir.MaxRank {
		n = int(d.Dims[0].N)
	}
	if n >= 0 && axes == nil {
		a := make([]int64, n)
		for i := range a {
			a[i] = int64(i)
		}
		axes = o.ints(a...)
	}
	if n >= 0 && steps == nil {
		s := make([]int64, n)
		for i := range s {
			s[i] = 1
		}
		steps = o.ints(s...)
	}
	return one(o.emit("Slice", nil, x, starts, ends, axes, steps))
}

func gather(o *op) []*ir.Value {
	return one(o.emit("Gather", ir.Attrs{"axis": o.attrInt("axis", 0)}, o.need(0), o.i64(o.need(1))))
}

func pad(o *op) []*ir.Value {
	x, mode := o.need(0), o.attrStr("mode", "constant")
	if o.ver >= 11 {
		return one(o.emit("Pad", ir.Attrs{"mode": mode}, x, o.i64(o.need(1)), o.in(2), o.i64(o.in(3))))
	}
	name := "pads"
	if o.ver < 2 {
		name = "paddings"
	}
	if !o.hasAttr(name) {
		return o.fail("attribute %q is missing", name)
	}
	pads := o.ints(o.attrInts(name)...)
	return one(o.emit("Pad", ir.Attrs{"mode": mode}, x, pads, o.scalar(x.Type.DType, o.attrFloat("value", 0))))
}

func split(o *op) []*ir.Value {
	x, n := o.need(0), len(o.p.outs)
	axis := o.attrInt("axis", 0)
	sizes := o.listIn(1, "split", 13)
	if o.ver >= 18 && o.hasAttr("num_outputs") {
		if k := o.attrInt("num_outputs", 0); k != int64(n) {
			return o.fail("num_outputs is %d, but there are %d outputs", k, n)
		}
	}
	if r := rank(x); sizes == nil && r >= 0 {
		a, err := ir.Axis(axis, r)
		if err != nil {
			return o.fail("%w", err)
		}
		if d := x.Type.Shape.Dims[a]; d.IsStatic() && n > 0 {
			if o.ver < 18 && d.N%int64(n) != 0 {
				return o.fail("dim %d of size %d does not split into %d equal parts", a, d.N, n)
			}
			chunk := (d.N + int64(n) - 1) / int64(n)
			s := make([]int64, n)
			for i := range s {
				s[i] = max(min(chunk, d.N-int64(i)*chunk), 0)
			}
			sizes = o.ints(s...)
		}
	}
	return o.emitN("Split", ir.Attrs{"axis": axis, "num_outputs": n}, n, x, sizes)
}

func tile(o *op) []*ir.Value {
	if o.ver < 6 {
		// One dim, named by the third input, is repeated as often as the second one says.
		axis, ok := o.known(o.i64(o.need(2)))
		r := o.needRank(o.need(0))
		if o.err != nil || !ok || len(axis) != 1 {
			return o.lacks("an axis known only at run time")
		}
		k, err := ir.Axis(axis[0], r)
		if err != nil {
			return o.fail("%w", err)
		}
		parts := make([]*ir.Value, r)
		for i := range parts {
			parts[i] = o.ints(1)
		}
		parts[k] = o.listOf(o.need(1))
		return one(o.emit("Tile", nil, o.need(0), o.shape(parts...)))
	}
	return one(o.emit("Tile", nil, o.need(0), o.i64(o.need(1))))
}

func oneHot(o *op) []*ir.Value {
	return one(o.emit("OneHot", ir.Attrs{"axis": o.attrInt("axis", -1)}, o.i64(o.need(0)), o.i64(o.need(1)), o.need(2)))
}
