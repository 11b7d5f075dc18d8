package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// causalConv is a depthwise convolution over the past state (zeros when absent) and the input, laid end to end; the new
// state is the last kernel-1 positions of that.
func causalConv(o *op) []*ir.Value {
	x, past := o.need(0), o.in(3)
	d := x.Type.DType
	w := o.need(1)
	ws := w.Type.Shape
	if o.err == nil && (rank(x) != 3 || ws.Rank() != 3) {
		return o.lacks("input and weight must be of rank 3, and are of rank %d and %d", rank(x), ws.Rank())
	}
	if o.err != nil {
		return nil
	}
	if !ws.Dims[0].IsStatic() || !ws.Dims[2].IsStatic() {
		return o.lacks("a kernel whose size is known only at run time")
	}
	channels, k := ws.Dims[0].N, ws.Dims[2].N
	if k < 1 {
		return o.fail("the kernel is empty")
	}
	kept := o.ints(k - 1)
	if past == nil {
		past = o.zeros(d, o.shape(o.size(x, 0), o.size(x, 1), kept))
	}
	x = o.emit("Concat", ir.Attrs{"axis": 2}, past, x)
	state := x
	if k > 1 {
		state = o.cut(x, 2, o.ints(1-k), o.ints(math.MaxInt64), 1)
	} else {
		state = o.cut(x, 2, o.ints(0), o.ints(0), 1)
	}
	o.widen()
	if d == ir.F16 || d == ir.BF16 {
		x = o.cast(x, ir.F32)
	}
	a := ir.Attrs{"kernel_shape": []int64{k}, "strides": []int64{1}, "pads": []int64{0, 0}, "dilations": []int64{1}, "group": channels}
	y := o.emit("Conv", a, x, o.need(1), o.in(2))
	switch act := o.attrStr("activation", "none"); act {
	case "none":
	case "silu", "swish":
		y = o.emit("Mul", nil, y, o.emit("Sigmoid", nil, y))
	default:
		return o.fail("activation %q", act)
	}
	return []*ir.Value{o.cast(y, d), state}
}

// linearAttention runs its recurrence as a Scan over time, with a state [batch, kv heads, key size, value size].
func linearAttention(o *op) []*ir.Value {
	d, st := o.need(0).Type.DType, o.need(0).Type.DType
	if past := o.in(3); past != nil {
		st = past.Type.DType
	}
	work := ir.F32
	if d == ir.F64 {
		work = ir.F64
	}
	for i, v := range o.ins {
		o.ins[i] = o.cast(v, work)
	}
	q, k, v, state, decay, beta := o.need(0), o.need(1), o.need(2), o.in(3), o.in(4), o.in(5)
	o.ignore("chunk_size")
	nq, nkv, rule := o.attrInt("q_num_heads", 0), o.attrInt("kv_num_heads", 0), o.attrStr("update_rule", "gated_delta")
	gated := rule == "gated" || rule == "gated_delta"
	delta := rule == "delta" || rule == "gated_delta"
	switch {
	case !gated && !delta && rule != "linear":
		return o.fail("update_rule %q", rule)
	case nq < 1 || nkv < 1 || nq%nkv != 0:
		return o.fail("%d query heads do not divide into %d groups", nq, nkv)
	case gated != (decay != nil) || delta != (beta != nil):
		return o.fail("update_rule %q: decay and beta do not fit it", rule)
	}
	for _, x := range []*ir.Value{q, k, v, decay, beta} {
		if x != nil && o.err == nil && rank(x) != 3 {
			return o.lacks("an input of rank %d, it must be 3", rank(x))
		}
	}
	if o.err != nil {
		return nil
	}
	h, one1 := o.ints(nkv), o.ints(1)
	batch, time := o.size(q, 0), o.size(q, 1)
	dk, dv := o.parts(o.size(k, 2), h), o.parts(o.size(v, 2), h)
	split := func(x *ir.Value, sizes ...*ir.Value) *ir.Value {
		return o.reshape(x, append([]*ir.Value{batch, time, h}, sizes...)...)
	}
	// One turn sees [batch, kv heads, rows, columns] of each.
	scans := []*ir.Value{split(q, o.ints(nq/nkv), dk), split(k, one1, dk), split(k, dk, one1), split(v, one1, dv)}
	if gated {
		scans = append(scans, split(decay, o.parts(o.size(decay, 2), h), one1))
	}
	if delta {
		scans = append(scans, o.reshape(beta, batch, time, o.size(beta, 2), one1, one1))
	}
	if state == nil {
		state = o.zeros(work, o.shape(batch, h, dk, dv))
	}
	scale := o.attrFloat("scale", 0)
	factor := o.scalar(work, scale)
	if scale == 0 {
		if n, ok := o.known(dk); ok {
			factor = o.scalar(work, 1/math.Sqrt(float64(n[0])))
		} else {
			factor = o.cast(o.emit("Div", nil, o.scalar(ir.F64, 1), o.emit("Sqrt", nil, o.cast(dk, ir.F64))), work)
		}
	}
	if o.err != nil {
		return nil
	}
	body, outer := &ir.Region{}, o.r
	param := func(t ir.Type) *ir.Value {
		p := &ir.Value{Name: o.im.unique(o.p.name+"~turn", false), Type: t}
		body.Params = append(body.Params, p)
		return p
	}
	turn := func(dims ...ir.Dim) *ir.Value { // sizes of later turns are only as sure as those of the first
		for i, d := range dims {
			if !d.IsStatic() {
				dims[i] = ir.Unknown()
			}
		}
		return param(ir.TensorOf(work, ir.ShapeOf(dims...)))
	}
	if rank(state) != 4 {
		return o.lacks("a state of rank %d, it must be 4", rank(state))
	}
	s := turn(append([]ir.Dim{}, state.Type.Shape.Dims...)...)
	var in []*ir.Value
	for _, x := range scans {
		dims := x.Type.Shape.Dims // ranked: reshaped above
		in = append(in, turn(append(append([]ir.Dim{}, dims[0]), dims[2:]...)...))
	}
	o.r = body
	qs, row, column, value := in[0], in[1], in[2], in[3]
	if gated {
		s = o.emit("Mul", nil, s, o.emit("Exp", nil, in[4]))
	}
	if delta {
		seen := o.emit("MatMul", nil, row, s)
		value = o.emit("Mul", nil, in[len(in)-1], o.emit("Sub", nil, value, seen))
	}
	s = o.emit("Add", nil, s, o.emit("Mul", nil, column, value))
	y := o.emit("Mul", nil, o.emit("MatMul", nil, qs, s), factor)
	o.r = outer
	if o.err != nil {
		return nil
	}
	body.Results = []*ir.Value{s, y}
	ir.SetCaptures(body)
	o.bodyCaptures(body)
	ones, zeros := make([]int64, len(scans)), make([]int64, len(scans))
	for i := range ones {
		ones[i] = 1
	}
	a := ir.Attrs{"num_scan_inputs": len(scans), "scan_input_axes": ones, "scan_input_directions": zeros,
		"scan_output_axes": []int64{1}, "scan_output_directions": []int64{0}}
	res := o.emitRegions("Scan", a, 2, []*ir.Region{body}, append([]*ir.Value{state}, scans...)...)
	out := o.reshape(res[1], batch, time, o.arith("Mul", o.ints(nq), dv))
	return []*ir.Value{o.cast(out, d), o.cast(res[0], st)}
}
