package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

func reduceOps() map[string]handler {
	t := map[string]handler{"TopK": topK, "ArgMax": arg("ArgMax"), "ArgMin": arg("ArgMin")}
	plain := func(name string) func(o *op, x, axes *ir.Value, keep int64) *ir.Value {
		return func(o *op, x, axes *ir.Value, keep int64) *ir.Value {
			return o.emit(name, ir.Attrs{"keepdims": keep}, x, axes)
		}
	}
	for _, name := range []string{"ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"} {
		t[name] = reduce(name, nil, plain(name))
	}
	square := func(o *op, x *ir.Value) *ir.Value { return o.emit("Mul", nil, x, x) }
	abs := func(o *op, x *ir.Value) *ir.Value { return o.emit("Abs", nil, x) }
	sum := plain("ReduceSum")
	t["ReduceSumSquare"] = reduce("ReduceSumSquare", square, sum)
	t["ReduceL1"] = reduce("ReduceL1", abs, sum)
	t["ReduceL2"] = reduce("ReduceL2", square, func(o *op, x, axes *ir.Value, keep int64) *ir.Value {
		return o.emit("Sqrt", nil, sum(o, x, axes, keep))
	})
	t["ReduceLogSum"] = reduce("ReduceLogSum", nil, func(o *op, x, axes *ir.Value, keep int64) *ir.Value {
		return o.emit("Log", nil, sum(o, x, axes, keep))
	})
	t["ReduceLogSumExp"] = reduce("ReduceLogSumExp", nil, logSumExp)
	return t
}

// logSumExp is max + log(sum(e^(x - max))), where an infinite max counts as 0.
func logSumExp(o *op, x, axes *ir.Value, keep int64) *ir.Value {
	finite := func(m *ir.Value) *ir.Value {
		inf := o.emit("Equal", nil, o.emit("Abs", nil, m), o.like(m, math.Inf(1)))
		return o.emit("Where", nil, inf, o.like(m, 0), m)
	}
	m := finite(o.emit("ReduceMax", ir.Attrs{"keepdims": 1}, x, axes))
	s := o.emit("ReduceSum", ir.Attrs{"keepdims": keep}, o.emit("Exp", nil, o.emit("Sub", nil, x, m)), axes)
	if keep == 0 {
		m = finite(o.emit("ReduceMax", ir.Attrs{"keepdims": 0}, x, axes))
	}
	return o.emit("Add", nil, o.emit("Log", nil, s), m)
}

// reduce serves the reductions: axes became an input at opset 18 (ReduceSum: 13). With noop_with_empty_axes and no
// axes nothing is reduced, but the element-wise part of the operator still applies.
func reduce(name string, each func(*op, *ir.Value) *ir.Value, f func(o *op, x, axes *ir.Value, keep int64) *ir.Value) handler {
	since := int64(18)
	if name == "ReduceSum" {
		since = 13
	}
	plain := func(o *op) []*ir.Value {
		x, axes := o.need(0), o.listIn(1, "axes", since)
		keep := o.attrInt("keepdims", 1)
		noop := int64(0)
		if o.ver >= since {
			noop = o.attrInt("noop_with_empty_axes", 0)
		}
		empty := axes == nil
		if axes != nil {
			a, ok := o.known(axes)
			if n, static := axes.Type.Shape.Static(); !ok && static && len(n) == 1 && n[0] == 0 {
				ok = true
			}
			if !ok && noop != 0 {
				// Whether there are axes is seen at run time.
				if each != nil {
					x = each(o, x)
				}
				branch := func(g func(in *op) *ir.Value) *ir.Region {
					r := &ir.Region{}
					in := o.within(r)
					r.Results = []*ir.Value{g(in)}
					if in.err != nil {
						o.fail("%w", in.err)
					}
					ir.SetCaptures(r)
					return r
				}
				none := o.emit("Equal", nil, o.emit("Size", nil, axes), o.konst(ir.I64s([]int64{}, []int64{0})))
				th := branch(func(in *op) *ir.Value { return unreduced(in, name, in.emit("Identity", nil, x)) })
				el := branch(func(in *op) *ir.Value { return f(in, x, axes, keep) })
				if o.err != nil {
					return nil
				}
				o.bodyCaptures(th, el)
				return o.emitRegions("If", nil, 1, []*ir.Region{th, el}, none)
			}
			if empty = ok && len(a) == 0; empty {
				axes = nil
			}
		}
		if each != nil {
			x = each(o, x)
		}
		if empty && noop != 0 {
			return one(unreduced(o, name, x))
		}
		return one(f(o, x, axes, keep))
	}
	switch name {
	case "ReduceL2", "ReduceLogSum", "ReduceLogSumExp":
		return func(o *op) []*ir.Value { // of integers: in f64, and back by the rule of Cast
			d := o.need(0).Type.DType
			if !d.IsInt() || d.Bits() < 8 || o.err != nil {
				return wide(plain)(o)
			}
			o.ins[0] = o.cast(o.ins[0], ir.F64)
			y := plain(o)
			if o.err != nil {
				return nil
			}
			return one(o.cast(y[0], d))
		}
	case "ReduceL1", "ReduceSumSquare":
		return wide(plain)
	}
	return plain
}

// unreduced is what a reduction over no axes leaves of x.
func unreduced(o *op, name string, x *ir.Value) *ir.Value {
	switch name {
	case "ReduceL2":
		return o.emit("Sqrt", nil, x)
	case "ReduceLogSum":
		return o.emit("Log", nil, x)
	}
	return x
}

func arg(name string) handler {
	return func(o *op) []*ir.Value {
		a := ir.Attrs{"axis": o.attrInt("axis", 0), "keepdims": o.attrInt("keepdims", 1), "select_last_index": o.attrInt("select_last_index", 0)}
		return one(o.emit(name, a, o.need(0)))
	}
}

func topK(o *op) []*ir.Value {
	k := o.i64(o.in(1))
	if o.ver < 10 {
		if !o.hasAttr("k") {
			return o.fail("attribute \"k\" is missing")
		}
		k = o.ints(o.attrInt("k", 0))
	}
	if k == nil {
		return o.fail("K is missing")
	}
	return o.emitN("TopK", ir.Attrs{"axis": o.attrInt("axis", -1), "largest": o.attrInt("largest", 1), "sorted": o.attrInt("sorted", 1)}, 2, o.need(0), k)
}
