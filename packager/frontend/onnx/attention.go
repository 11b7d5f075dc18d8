package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

func attentionOps() map[string]handler {
	return map[string]handler{
		"Attention": attention, "RotaryEmbedding": wide(rotaryEmbedding), "TensorScatter": tensorScatter,
		"CausalConvWithState": causalConv, "LinearAttention": linearAttention,
	}
}

// heads turns [batch, seq, heads*size] into [batch, heads, seq, size].
func (o *op) heads(v *ir.Value, n int64) *ir.Value {
	h := o.ints(n)
	v = o.reshape(v, o.size(v, 0), o.size(v, 1), h, o.parts(o.size(v, 2), h))
	return o.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1, 3}}, v)
}

// attention is scaled dot product attention of opsets 23 to 25: both layouts, shared key heads, a cache inside or outside,
// masks, causal and sliding windows, softcap and the choice of the fourth output.
func attention(o *op) []*ir.Value {
	qt, vt := o.need(0).Type.DType, o.need(2).Type.DType
	work := ir.F32
	if qt == ir.F64 || vt == ir.F64 {
		work = ir.F64
	}
	for i, v := range o.ins {
		if v != nil && v.Type.DType.IsFloat() {
			o.ins[i] = o.cast(v, work)
		}
	}
	q, k, v := o.need(0), o.need(1), o.need(2)
	pastK, pastV, nonpad := o.in(4), o.in(5), o.i64(o.in(6))
	r := o.needRank(q)
	if o.err == nil && (r != 3 && r != 4 || rank(k) != r || rank(v) != r) {
		return o.fail("Q, K and V have ranks %d, %d and %d, want 3 or 4 for all", r, rank(k), rank(v))
	}
	if (pastK == nil) != (pastV == nil) {
		return o.fail("past_key and past_value come together")
	}
	if pastK != nil && nonpad != nil {
		return o.fail("nonpad_kv_seqlen does not go with past_key")
	}
	nq, nkv := o.attrInt("q_num_heads", 0), o.attrInt("kv_num_heads", 0)
	if r == 3 && (nq < 1 || nkv < 1) {
		return o.fail("q_num_heads is %d and kv_num_heads %d for inputs of rank 3", nq, nkv)
	}
	if o.err != nil {
		return nil
	}
	if r == 3 {
		q, k, v = o.heads(q, nq), o.heads(k, nkv), o.heads(v, nkv)
	}
	if pastK != nil {
		k = o.emit("Concat", ir.Attrs{"axis": 2}, pastK, k)
		v = o.emit("Concat", ir.Attrs{"axis": 2}, pastV, v)
	}
	outs := []*ir.Value{nil, o.statistic(1, k, qt), o.statistic(2, v, vt), nil}
	h := o.heading(q, k)
	bias := o.attentionBias(h.sq, h.skv, pastK, nonpad, work)
	qk := o.scores(h, q, k, o.rootScale(q, work))
	shown := qk
	mode := o.attrInt("qk_matmul_output_mode", 0)
	if limit := o.attrFloat("softcap", 0); limit > 0 {
		l := o.like(qk, limit)
		qk = o.emit("Mul", nil, o.emit("Tanh", nil, o.emit("Div", nil, qk, l)), l)
	}
	if mode == 1 {
		shown = qk
	}
	if bias != nil {
		qk = o.emit("Add", nil, qk, bias)
	}
	if mode == 2 {
		shown = qk
	}
	p := o.maskedSoftmax(qk, bias)
	switch mode {
	case 0, 1, 2:
	case 3:
		shown = p
	default:
		return o.fail("qk_matmul_output_mode %d", mode)
	}
	outs[3] = o.statistic(3, shown, qt)
	y := o.weigh(h, p, v)
	if r == 3 {
		y = o.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1, 3}}, y)
		y = o.reshape(y, h.batch, h.sq, o.arith("Mul", h.hq, o.size(v, 3)))
	}
	outs[0] = o.cast(y, qt)
	return outs
}

// heading holds the sizes of an attention, as lists of one; shared tells that several query heads have one key head.
type heading struct {
	batch, hq, hkv, sq, skv *ir.Value
	shared                  bool
}

func (o *op) heading(q, k *ir.Value) heading {
	h := heading{batch: o.size(q, 0), hq: o.size(q, 1), hkv: o.size(k, 1), sq: o.size(q, 2), skv: o.size(k, 2)}
	a, ok1 := o.known(h.hq)
	b, ok2 := o.known(h.hkv)
	h.shared = !ok1 || !ok2 || a[0] != b[0]
	return h
}

// scores is (q*root)(k*root)', [batch, query heads, queries, keys].
func (o *op) scores(h heading, q, k, root *ir.Value) *ir.Value {
	qs := o.emit("Mul", nil, q, root)
	ks := o.emit("Mul", nil, o.emit("Transpose", ir.Attrs{"perm": []int64{0, 1, 3, 2}}, k), root)
	if !h.shared {
		return o.emit("MatMul", nil, qs, ks)
	}
	qs = o.reshape(qs, h.batch, h.hkv, o.parts(h.hq, h.hkv), h.sq, o.size(q, 3))
	return o.reshape(o.emit("MatMul", nil, qs, o.emit("Unsqueeze", nil, ks, o.ints(2))), h.batch, h.hq, h.sq, h.skv)
}

// weigh is the sum of the values by the probabilities p.
func (o *op) weigh(h heading, p, v *ir.Value) *ir.Value {
	if !h.shared {
		return o.emit("MatMul", nil, p, v)
	}
	p = o.reshape(p, h.batch, h.hkv, o.parts(h.hq, h.hkv), h.sq, h.skv)
	y := o.emit("MatMul", nil, p, o.emit("Unsqueeze", nil, v, o.ints(2)))
	return o.reshape(y, h.batch, h.hq, h.sq, o.size(v, 3))
}

// rootScale is the square root of the scale, by default of 1/sqrt(head size).
func (o *op) rootScale(q *ir.Value, work ir.DType) *ir.Value {
	if o.hasAttr("scale") {
		return o.scalar(work, math.Sqrt(o.attrFloat("scale", 0)))
	}
	size := o.size(q, 3)
	if n, ok := o.known(size); ok {
		return o.scalar(work, math.Sqrt(1/math.Sqrt(float64(n[0]))))
	}
	root := o.emit("Sqrt", nil, o.cast(size, ir.F64))
	return o.cast(o.emit("Sqrt", nil, o.emit("Div", nil, o.scalar(ir.F64, 1), root)), work)
}

// attentionBias is what is added to the scores: the mask, and -inf where causality, the window or the padding hide a key.
// nil when there is nothing to add. Query i stands at position i + offset.
func (o *op) attentionBias(sq, skv, past, nonpad *ir.Value, work ir.DType) *ir.Value {
	var allowed *ir.Value
	and := func(c *ir.Value) {
		if allowed != nil {
			c = o.emit("And", nil, allowed, c)
		}
		allowed = c
	}
	causal := o.attrInt("is_causal", 0) != 0
	left, right := o.attrInt("left_window_size", -1), o.attrInt("right_window_size", -1)
	if left < -1 || right < -1 {
		o.fail("window sizes %d and %d", left, right)
		return nil
	}
	key := o.upTo(skv, 0)
	if nonpad != nil { // one length for each sample: [batch, 1, 1, 1]
		nonpad = o.emit("Unsqueeze", nil, nonpad, o.ints(1, 2, 3))
	}
	if causal || left >= 0 || right >= 0 {
		pos := o.upTo(sq, 1)
		switch {
		case past != nil:
			pos = o.emit("Add", nil, pos, o.size(past, 2))
		case nonpad != nil:
			pos = o.emit("Add", nil, pos, o.emit("Sub", nil, nonpad, sq))
		}
		back := o.emit("Sub", nil, pos, key)
		if causal {
			right = 0
		}
		if left >= 0 {
			and(o.emit("LessOrEqual", nil, back, o.scalar(ir.I64, float64(left))))
		}
		if right >= 0 {
			and(o.emit("GreaterOrEqual", nil, back, o.scalar(ir.I64, float64(-right))))
		}
	}
	if nonpad != nil {
		and(o.emit("Less", nil, key, nonpad))
	}
	bias := o.attentionMask(skv, work)
	if allowed == nil {
		return bias
	}
	hidden := o.minusInf(allowed, work)
	if bias == nil {
		return hidden
	}
	return o.emit("Add", nil, bias, hidden)
}

// attentionMask is attn_mask as a bias. Keys beyond its last dim are hidden.
func (o *op) attentionMask(skv *ir.Value, work ir.DType) *ir.Value {
	mask := o.in(3)
	if mask == nil {
		return nil
	}
	r := o.needRank(mask)
	if o.err != nil {
		return nil
	}
	if r < 1 || r > 4 {
		o.fail("attn_mask has rank %d, want 1 to 4", r)
		return nil
	}
	if mask.Type.DType == ir.Bool {
		mask = o.minusInf(mask, work)
	}
	lack := o.arith("Max", o.arith("Sub", skv, o.size(mask, r-1)), o.ints(0))
	if n, ok := o.known(lack); ok && n[0] == 0 {
		return mask
	}
	return o.emit("Pad", ir.Attrs{"mode": "constant"}, mask, o.shape(o.ints(0), lack), o.scalar(work, math.Inf(-1)), o.ints(int64(r-1)))
}

// maskedSoftmax is the softmax of the last dim in the precision that softmax_precision names; a row whose scores, or
// whose biases, are all -inf gives zeros.
func (o *op) maskedSoftmax(qk, bias *ir.Value) *ir.Value {
	work, prec := qk.Type.DType, qk.Type.DType
	if o.hasAttr("softmax_precision") {
		switch d := ir.DType(o.attrInt("softmax_precision", 0)); d {
		case ir.F16, ir.BF16, ir.F32, ir.F64:
			prec = d
		default:
			o.fail("softmax_precision %d is no float type", d)
			return qk
		}
	}
	narrow := o.cast(qk, prec)
	p := o.cast(o.emit("Softmax", ir.Attrs{"axis": -1}, narrow), work)
	empty := func(v *ir.Value) *ir.Value {
		top := o.emit("ReduceMax", ir.Attrs{"keepdims": 1}, v, o.ints(-1))
		return o.emit("Equal", nil, top, o.like(top, math.Inf(-1)))
	}
	hidden := empty(o.cast(narrow, work))
	if bias != nil {
		hidden = o.emit("Or", nil, hidden, empty(bias))
	}
	return o.emit("Where", nil, hidden, o.like(p, 0), p)
}

// rotaryEmbedding rotates pairs of elements by the angles of their position: [cos*a - sin*b, sin*a + cos*b].
func rotaryEmbedding(o *op) []*ir.Value {
	x, cos, sin := o.need(0), o.need(1), o.need(2)
	r, n, inter := o.needRank(x), o.attrInt("num_heads", 0), o.attrInt("interleaved", 0) != 0
	if o.err != nil {
		return nil
	}
	y, seqAxis := x, 2
	switch {
	case r == 3 && n > 0:
		h := o.ints(n)
		y, seqAxis = o.reshape(x, o.size(x, 0), o.size(x, 1), h, o.parts(o.size(x, 2), h)), 1
	case r != 4:
		return o.fail("X has rank %d and num_heads is %d", r, n)
	}
	if ids := o.i64(o.in(3)); ids != nil {
		cos, sin = o.emit("Gather", ir.Attrs{"axis": 0}, cos, ids), o.emit("Gather", ir.Attrs{"axis": 0}, sin, ids)
	}
	heads := o.ints(int64(3 - seqAxis)) // the dim of the heads, which share the angles
	cos, sin = o.emit("Unsqueeze", nil, cos, heads), o.emit("Unsqueeze", nil, sin, heads)
	full := o.size(y, 3)
	part := full
	if d := o.attrInt("rotary_embedding_dim", 0); d != 0 {
		if k, ok := o.known(full); d < 0 || ok && d > k[0] {
			return o.fail("rotary_embedding_dim %d", d)
		}
		part = o.ints(d)
	}
	half := o.parts(part, o.ints(2))
	zero := o.ints(0)
	var a, b *ir.Value
	if inter {
		a, b = o.cut(y, 3, zero, part, 2), o.cut(y, 3, o.ints(1), part, 2)
	} else {
		a, b = o.cut(y, 3, zero, half, 1), o.cut(y, 3, half, part, 1)
	}
	re := o.emit("Sub", nil, o.emit("Mul", nil, cos, a), o.emit("Mul", nil, sin, b))
	im := o.emit("Add", nil, o.emit("Mul", nil, sin, a), o.emit("Mul", nil, cos, b))
	var turned *ir.Value
	if inter {
		last := o.ints(4)
		turned = o.emit("Concat", ir.Attrs{"axis": 4}, o.emit("Unsqueeze", nil, re, last), o.emit("Unsqueeze", nil, im, last))
		turned = o.reshape(turned, o.size(y, 0), o.size(y, 1), o.size(y, 2), part)
	} else {
		turned = o.emit("Concat", ir.Attrs{"axis": 3}, re, im)
	}
	if part != full {
		turned = o.emit("Concat", ir.Attrs{"axis": 3}, turned, o.cut(y, 3, part, o.ints(math.MaxInt64), 1))
	}
	if r == 3 {
		turned = o.reshape(turned, o.size(x, 0), o.size(x, 1), o.size(x, 2))
	}
	return one(turned)
}

// tensorScatter writes each sample's update into its cache from write_indices on: every position of the result is taken
// from the cache and the update laid end to end.
func tensorScatter(o *op) []*ir.Value {
	x, u, start := o.need(0), o.need(1), o.i64(o.in(2))
	r := o.needRank(x)
	mode := o.attrStr("mode", "linear")
	if mode != "linear" && mode != "circular" {
		return o.fail("mode %q", mode)
	}
	if o.err != nil {
		return nil
	}
	axis, err := ir.Axis(o.attrInt("axis", -2), r)
	if err != nil {
		return o.fail("%w", err)
	}
	if axis == 0 || rank(u) != r {
		return o.fail("axis %d for a cache of rank %d and an update of rank %d", axis, r, rank(u))
	}
	batch, n, m := o.size(x, 0), o.size(x, axis), o.size(u, axis)
	if start == nil {
		start = o.emit("ConstantOfShape", ir.Attrs{"value": ir.I64s([]int64{1}, []int64{0})}, batch)
	}
	zero := o.scalar(ir.I64, 0)
	var check *ir.Value
	if mode == "circular" {
		start = o.emit("Mod", ir.Attrs{"fmod": 0}, start, n)
	} else { // looked up in a list of zeros for the error that an index out of range gives
		room := o.arith("Add", o.arith("Sub", n, m), o.ints(1))
		list := o.emit("ConstantOfShape", ir.Attrs{"value": ir.I64s([]int64{1}, []int64{0})}, room)
		at := o.emit("Where", nil, o.emit("Less", nil, start, zero), room, start)
		check = o.trail(o.emit("Gather", ir.Attrs{"axis": 0}, list, at), 1)
	}
	key := o.upTo(n, 0)
	pos := o.emit("Sub", nil, key, o.trail(start, 1))
	if mode == "circular" {
		pos = o.emit("Mod", ir.Attrs{"fmod": 0}, pos, n)
	}
	written := o.emit("And", nil, o.emit("GreaterOrEqual", nil, pos, zero), o.emit("Less", nil, pos, m))
	from := o.emit("Where", nil, written, o.emit("Add", nil, pos, n), key)
	if check != nil {
		from = o.emit("Add", nil, from, check)
	}
	both := o.arith("Add", n, m)
	from = o.emit("Add", nil, from, o.emit("Mul", nil, o.upTo(batch, 1), both))

	perm, back := []int64{0, int64(axis)}, make([]int64, r)
	sizes := []*ir.Value{o.arith("Mul", batch, both)}
	for i := 1; i < r; i++ {
		if i != axis {
			perm = append(perm, int64(i))
			sizes = append(sizes, o.size(x, i))
		}
	}
	for i, p := range perm {
		back[p] = int64(i)
	}
	t := o.emit("Transpose", ir.Attrs{"perm": perm}, o.emit("Concat", ir.Attrs{"axis": axis}, x, u))
	y := o.emit("Gather", ir.Attrs{"axis": 0}, o.reshape(t, sizes...), from)
	return one(o.emit("Transpose", ir.Attrs{"perm": back}, y))
}
