package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Attention operators of com.microsoft, which ONNX Runtime's transformer optimiser writes.

func msAttentionOps() map[string]handler {
	return map[string]handler{
		"Attention": wide(msAttention), "MultiHeadAttention": wide(multiHeadAttention), "QAttention": qAttention,
		"GroupQueryAttention": wide(groupQueryAttention), "RotaryEmbedding": wide(msRotary),
	}
}

// halves cuts the last dim of v at the given sizes.
func (o *op) halves(v *ir.Value, sizes ...int64) []*ir.Value {
	return o.emitN("Split", ir.Attrs{"axis": -1, "num_outputs": len(sizes)}, len(sizes), v, o.ints(sizes...))
}

// width gives the size of a dim that must be known.
func (o *op) width(v *ir.Value, axis int) int64 {
	if s := v.Type.Shape; s.Ranked {
		if axis < 0 {
			axis += len(s.Dims)
		}
		if axis >= 0 && axis < len(s.Dims) && s.Dims[axis].IsStatic() {
			return s.Dims[axis].N
		}
	}
	o.lacks("a hidden size known only at run time")
	return 1
}

// attend is softmax(q k' * scale + mask + bias) v for q, k, v [batch, heads, sequence, size]; the result is [batch, sequence, heads*size].
func (o *op) attend(q, k, v, mask, bias *ir.Value) (y, scores *ir.Value) {
	s := o.emit("MatMul", nil, q, o.emit("Transpose", ir.Attrs{"perm": []int64{0, 1, 3, 2}}, k))
	s = o.emit("Mul", nil, s, o.headScale(q))
	if mask != nil {
		s = o.emit("Add", nil, s, mask)
	}
	if bias != nil {
		s = o.emit("Add", nil, s, bias)
	}
	y = o.emit("MatMul", nil, o.emit("Softmax", ir.Attrs{"axis": -1}, s), v)
	return o.merged(y), s
}

// headScale is the attribute scale, by default 1/sqrt(head size), in f32.
func (o *op) headScale(q *ir.Value) *ir.Value {
	if scale := o.attrFloat("scale", 0); scale != 0 {
		return o.scalar(ir.F32, scale)
	}
	size := o.size(q, 3)
	if n, ok := o.known(size); ok {
		return o.scalar(ir.F32, 1/math.Sqrt(float64(n[0])))
	}
	return o.cast(o.emit("Div", nil, o.scalar(ir.F64, 1), o.emit("Sqrt", nil, o.cast(size, ir.F64))), ir.F32)
}

// merged turns [batch, heads, seq, size] into [batch, seq, heads*size].
func (o *op) merged(y *ir.Value) *ir.Value {
	y = o.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1, 3}}, y)
	return o.reshape(y, o.size(y, 0), o.size(y, 1), o.arith("Mul", o.size(y, 2), o.size(y, 3)))
}

// msMask is what a mask_index or key_padding_mask adds to the scores [batch, heads, sq, skv]: mask_filter_value where a key
// is hidden, the lowest number where a causal one comes later. nil when nothing is hidden.
func (o *op) msMask(mask, batch, sq, skv, past *ir.Value, causal bool) *ir.Value {
	filter := float64(float32(o.attrFloat("mask_filter_value", -10000)))
	zero := func() *ir.Value { return o.scalar(ir.F32, 0) }
	var m *ir.Value
	hide := func(shown *ir.Value, axes ...int64) {
		if len(axes) > 0 {
			shown = o.emit("Unsqueeze", nil, shown, o.ints(axes...))
		}
		m = o.emit("Where", nil, shown, zero(), o.scalar(ir.F32, filter))
	}
	if mask != nil {
		key := o.upTo(skv, 0)
		raw := o.i64(mask)
		positive := func(v *ir.Value) *ir.Value { return o.emit("Greater", nil, v, o.like(v, 0)) }
		switch r := o.needRank(mask); r {
		case 1:
			n := mask.Type.Shape.Dims[0]
			b, known := o.known(batch)
			double := known && n.IsStatic() && n.N == 2*b[0]
			if known && n.IsStatic() && !double && n.N != b[0] {
				o.lacks("a mask of %d entries for a batch of %d", n.N, b[0])
				return nil
			}
			end := raw
			if double {
				end = o.cut(raw, 0, o.ints(0), batch, 1)
			}
			shown := o.emit("Less", nil, key, o.trail(end, 1))
			if double {
				start := o.cut(raw, 0, batch, o.ints(math.MaxInt64), 1)
				shown = o.emit("And", nil, shown, o.emit("GreaterOrEqual", nil, key, o.trail(start, 1)))
			}
			hide(shown, 1, 2)
		case 2:
			hide(positive(raw), 1, 2)
		case 3:
			hide(positive(raw), 1)
		case 4:
			hide(positive(o.cut(o.cut(raw, 2, past, o.arith("Add", past, sq), 1), 3, o.ints(0), skv, 1)))
		default:
			if o.err == nil {
				o.fail("a mask of rank %d", r)
			}
			return nil
		}
	}
	if causal {
		at := o.emit("Add", nil, o.upTo(sq, 1), past)
		later := o.emit("Greater", nil, o.upTo(skv, 0), at)
		if m == nil {
			m = zero()
		}
		m = o.emit("Where", nil, later, o.scalar(ir.F32, -math.MaxFloat32), m)
	}
	return m
}

// msAttention projects one input to queries, keys and values by one matrix, and attends.
func msAttention(o *op) []*ir.Value {
	x, w := o.need(0), o.need(1)
	qkv := o.emit("MatMul", nil, x, w)
	if b := o.in(2); b != nil {
		qkv = o.emit("Add", nil, qkv, b)
	}
	return o.selfAttention(x, qkv, o.in(3), o.in(4), o.in(5), o.in(6))
}

// selfAttention finishes Attention and QAttention from the joint projection [batch, seq, q+k+v].
func (o *op) selfAttention(x, qkv, maskIn, past, bias, pastLen *ir.Value) []*ir.Value {
	o.ignore("rotary_embedding_dim")
	if o.attrInt("do_rotary", 0) != 0 || o.attrInt("past_present_share_buffer", 0) != 0 || pastLen != nil {
		return o.lacks("rotary embedding inside of it, or a shared buffer for past and present")
	}
	n := o.attrInt("num_heads", 0)
	if o.needRank(x); o.err == nil && (rank(x) != 3 || n < 1) {
		return o.fail("input of rank %d with %d heads", rank(x), n)
	}
	sizes := append([]int64{}, o.attrInts("qkv_hidden_sizes")...)
	if len(sizes) == 0 {
		all := o.width(qkv, -1)
		sizes = []int64{all / 3, all / 3, all / 3}
	}
	if o.err != nil {
		return nil
	}
	if len(sizes) != 3 || sizes[0] != sizes[1] || sizes[0]+sizes[1]+sizes[2] != o.width(qkv, -1) {
		return o.fail("qkv_hidden_sizes %v", sizes)
	}
	p := o.halves(qkv, sizes...)
	q, k, v := o.heads(p[0], n), o.heads(p[1], n), o.heads(p[2], n)
	pastSize, present := o.ints(0), (*ir.Value)(nil)
	if past != nil {
		part := func(i int64) *ir.Value {
			return o.emit("Gather", ir.Attrs{"axis": 0}, past, o.scalar(ir.I64, float64(i)))
		}
		pk := part(0)
		if o.err != nil {
			return nil
		}
		pastSize = o.size(pk, 2)
		k, v = o.emit("Concat", ir.Attrs{"axis": 2}, pk, k), o.emit("Concat", ir.Attrs{"axis": 2}, part(1), v)
	}
	if o.asked(1) {
		zero := o.ints(0)
		present = o.emit("Concat", ir.Attrs{"axis": 0}, o.emit("Unsqueeze", nil, k, zero), o.emit("Unsqueeze", nil, v, zero))
	}
	mask := o.msMask(maskIn, o.size(q, 0), o.size(q, 2), o.size(k, 2), pastSize, o.attrInt("unidirectional", 0) != 0)
	y, _ := o.attend(q, k, v, mask, bias)
	return []*ir.Value{y, present}
}

// qAttention is Attention with an 8-bit projection.
func qAttention(o *op) []*ir.Value {
	x, w := o.need(0), o.need(1)
	acc := o.cast(o.matMulInteger(x, w, o.in(6), o.in(7)), ir.F32)
	y := o.emit("Mul", nil, acc, o.emit("Mul", nil, o.perTensor(o.cast(o.need(3), ir.F32)), o.perTensor(o.cast(o.need(4), ir.F32))))
	y = o.emit("Add", nil, y, o.cast(o.need(2), ir.F32))
	if o.err != nil {
		return nil
	}
	outs := o.selfAttention(x, y, o.in(5), o.cast(o.in(8), ir.F32), nil, nil)
	for i, v := range outs {
		outs[i] = o.cast(v, o.need(2).Type.DType)
	}
	return outs
}

// multiHeadAttention attends over separate, or packed, queries, keys and values.
func multiHeadAttention(o *op) []*ir.Value {
	q, k, v, n := o.need(0), o.in(1), o.in(2), o.attrInt("num_heads", 0)
	bias, past := o.in(3), o.in(6)
	if o.in(8) != nil || o.in(9) != nil {
		return o.lacks("a shared buffer for past and present")
	}
	if r := o.needRank(q); o.err == nil && (n < 1 || r != 3 && r != 5) {
		return o.fail("query of rank %d with %d heads", r, n)
	}
	if o.err != nil {
		return nil
	}
	// part takes slice i of dim 3 of [batch, seq, heads, parts, size].
	part := func(x *ir.Value, i int64) *ir.Value {
		return o.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1, 3}}, o.emit("Gather", ir.Attrs{"axis": 3}, x, o.scalar(ir.I64, float64(i))))
	}
	var bq, bk, bv *ir.Value
	if bias != nil {
		all, d := o.width(bias, 0), int64(0)
		if rank(q) == 5 {
			d = all / 3
		} else {
			d = o.width(q, -1)
		}
		if o.err != nil {
			return nil
		}
		if 2*d > all {
			return o.fail("bias of %d for a hidden size of %d", all, d)
		}
		p := o.halves(bias, d, d, all-2*d)
		bq, bk, bv = p[0], p[1], p[2]
	}
	// split adds the bias [heads*size] and separates the heads; done values have them apart already.
	split := func(x, b *ir.Value) *ir.Value {
		if b != nil {
			x = o.emit("Add", nil, x, b)
		}
		return o.heads(x, n)
	}
	apart := func(x, b *ir.Value) *ir.Value {
		if b == nil {
			return x
		}
		return o.emit("Add", nil, x, o.emit("Unsqueeze", nil, o.reshape(b, o.ints(n), o.parts(o.size(b, 0), o.ints(n))), o.ints(1)))
	}
	switch {
	case rank(q) == 5:
		q, k, v = apart(part(q, 0), bq), apart(part(q, 1), bk), apart(part(q, 2), bv)
	case k != nil && rank(k) == 5:
		q, k, v = split(q, bq), apart(part(k, 0), bk), apart(part(k, 1), bv)
	case k == nil || v == nil:
		return o.fail("key or value is missing")
	case rank(k) == 4:
		q = split(q, bq) // keys and values were prepared before, with their bias
	default:
		q, k, v = split(q, bq), split(k, bk), split(v, bv)
	}
	if o.err != nil {
		return nil
	}
	pastSize := o.ints(0)
	if past != nil {
		pastSize = o.size(past, 2)
		k, v = o.emit("Concat", ir.Attrs{"axis": 2}, past, k), o.emit("Concat", ir.Attrs{"axis": 2}, o.need(7), v)
	}
	mask := o.msMask(o.in(4), o.size(q, 0), o.size(q, 2), o.size(k, 2), pastSize, o.attrInt("unidirectional", 0) != 0)
	y, s := o.attend(q, k, v, mask, o.in(5))
	return []*ir.Value{y, k, v, s}
}

// turned rotates the first part of x's last dim: x [batch, heads, seq, size], cos and sin [batch or 1, 1, seq, half].
func (o *op) turned(x, cos, sin *ir.Value, part int64, interleaved bool) *ir.Value {
	size := o.width(x, 3)
	if part == 0 || part > size || part%2 != 0 {
		o.fail("a rotary dim of %d for a head of %d", part, size)
		return x
	}
	zero, end, half := o.ints(0), o.ints(part), o.ints(part/2)
	var a, b *ir.Value
	if interleaved {
		a, b = o.cut(x, 3, zero, end, 2), o.cut(x, 3, o.ints(1), end, 2)
	} else {
		a, b = o.cut(x, 3, zero, half, 1), o.cut(x, 3, half, end, 1)
	}
	re := o.emit("Sub", nil, o.emit("Mul", nil, a, cos), o.emit("Mul", nil, b, sin))
	im := o.emit("Add", nil, o.emit("Mul", nil, b, cos), o.emit("Mul", nil, a, sin))
	var y *ir.Value
	if interleaved {
		last := o.ints(4)
		y = o.emit("Concat", ir.Attrs{"axis": 4}, o.emit("Unsqueeze", nil, re, last), o.emit("Unsqueeze", nil, im, last))
		y = o.reshape(y, o.size(x, 0), o.size(x, 1), o.size(x, 2), end)
	} else {
		y = o.emit("Concat", ir.Attrs{"axis": 3}, re, im)
	}
	if part == size {
		return y
	}
	return o.emit("Concat", ir.Attrs{"axis": 3}, y, o.cut(x, 3, end, o.ints(math.MaxInt64), 1))
}

// angles looks positions [batch, seq] up in a cache [positions, half]: [batch, 1, seq, half].
func (o *op) angles(cache, pos *ir.Value) *ir.Value {
	return o.emit("Unsqueeze", nil, o.emit("Gather", ir.Attrs{"axis": 0}, cache, pos), o.ints(1))
}

func msRotary(o *op) []*ir.Value {
	x, pos, cos, sin := o.need(0), o.i64(o.need(1)), o.need(2), o.need(3)
	o.ignore("is_packed_batching")
	if o.attrFloat("scale", 1) != 1 {
		return o.lacks("a scale other than 1")
	}
	r, n := o.needRank(x), o.attrInt("num_heads", 0)
	if o.err != nil {
		return nil
	}
	half := o.width(cos, 1)
	y := x
	if r == 3 {
		if n == 0 {
			n = o.width(x, 2) / (2 * half)
		}
		y = o.heads(x, n)
	} else if r != 4 {
		return o.fail("input of rank %d", r)
	}
	// One entry: the position of the first element of every row.
	if d := pos.Type.Shape; rank(pos) == 1 || d.Ranked && len(d.Dims) == 0 {
		pos = o.emit("Unsqueeze", nil, o.emit("Add", nil, o.upTo(o.size(y, 2), 0), o.emit("Reshape", nil, pos, o.ints(1))), o.ints(0))
	}
	y = o.turned(y, o.angles(cos, pos), o.angles(sin, pos), 2*half, o.attrInt("interleaved", 0) != 0)
	o.ignore("rotary_embedding_dim")
	if r == 3 {
		y = o.merged(y)
	}
	return one(y)
}

// groupQueryAttention is causal attention with a cache, shared key heads and rotary embedding. seqlens_k holds one less than
// the number of keys of each sample, new ones included.
func groupQueryAttention(o *op) []*ir.Value {
	q, k, v := o.need(0), o.in(1), o.in(2)
	nq, nk := o.attrInt("num_heads", 0), o.attrInt("kv_num_heads", 0)
	if o.needRank(q); o.err == nil && (rank(q) != 3 || nq < 1 || nk < 1 || nq%nk != 0) {
		return o.fail("query of rank %d with %d heads and %d key heads", rank(q), nq, nk)
	}
	if o.attrInt("smooth_softmax", 0) > 0 || o.in(11) != nil || o.attrInt("qk_output", 0) != 0 {
		return o.lacks("a smooth softmax or an output of scores")
	}
	if o.err != nil {
		return nil
	}
	if k == nil {
		h := o.width(q, 2) / (nq + 2*nk)
		p := o.halves(q, nq*h, nk*h, nk*h)
		q, k, v = p[0], p[1], p[2]
	}
	if v == nil {
		return o.fail("value is missing")
	}
	q, k, v = o.heads(q, nq), o.heads(k, nk), o.heads(v, nk)
	sq := o.size(q, 2)
	keys := o.emit("Add", nil, o.emit("Reshape", nil, o.i64(o.need(5)), o.ints(-1)), o.ints(1)) // of each sample
	total := o.emit("Reshape", nil, o.i64(o.need(6)), o.ints(1))
	// A prompt starts at 0, whatever its padding.
	prompt := o.emit("Equal", nil, sq, total)
	before := o.emit("Where", nil, prompt, o.ints(0), o.emit("Sub", nil, keys, sq))
	row := o.emit("Add", nil, o.upTo(sq, 0), o.trail(before, 1)) // positions [batch, seq]
	if o.attrInt("do_rotary", 0) != 0 {
		cos, sin := o.need(7), o.need(8)
		half, inter := o.width(cos, 1), o.attrInt("rotary_interleaved", 0) != 0
		pos := row
		if ids := o.i64(o.in(9)); ids != nil {
			pos = ids
		}
		c, s := o.angles(cos, pos), o.angles(sin, pos)
		q, k = o.turned(q, c, s, 2*half, inter), o.turned(k, c, s, 2*half, inter)
	} else {
		o.ignore("rotary_interleaved")
	}
	pastK, pastV := o.in(3), o.in(4)
	room := total
	if pastK != nil {
		room = o.emit("Max", nil, total, o.size(pastK, 2))
	}
	pk, pv := o.cached(pastK, k, before, room), o.cached(pastV, v, before, room)
	seenK := o.cut(pk, 2, o.ints(0), total, 1)
	seenV := o.cut(pv, 2, o.ints(0), total, 1)
	key := o.upTo(total, 0)
	at := o.emit("Unsqueeze", nil, row, o.ints(2)) // [batch, seq, 1]
	shown := o.emit("LessOrEqual", nil, key, at)
	shown = o.emit("And", nil, shown, o.emit("Less", nil, key, o.emit("Unsqueeze", nil, keys, o.ints(1, 2))))
	if w := o.attrInt("local_window_size", -1); w >= 0 {
		shown = o.emit("And", nil, shown, o.emit("GreaterOrEqual", nil, key, o.emit("Sub", nil, at, o.scalar(ir.I64, float64(w)))))
	}
	if o.err != nil {
		return nil
	}
	group, h := o.ints(nq/nk), o.heading(q, k)
	five := func(x *ir.Value, rows *ir.Value) *ir.Value {
		return o.reshape(x, h.batch, o.ints(nk), group, rows, o.size(x, 3))
	}
	one5 := o.ints(2)
	kt := o.emit("Unsqueeze", nil, o.emit("Transpose", ir.Attrs{"perm": []int64{0, 1, 3, 2}}, seenK), one5)
	s := o.emit("MatMul", nil, five(q, sq), kt)
	s = o.emit("Mul", nil, s, o.headScale(q))
	if limit := o.attrFloat("softcap", 0); limit > 0 {
		l := o.like(s, limit)
		s = o.emit("Mul", nil, o.emit("Tanh", nil, o.emit("Div", nil, s, l)), l)
	}
	s = o.reshape(s, h.batch, o.ints(nq), sq, total)
	if b := o.in(10); b != nil {
		s = o.emit("Add", nil, s, b)
	}
	s = o.emit("Where", nil, o.emit("Unsqueeze", nil, shown, o.ints(1)), s, o.like(s, math.Inf(-1)))
	p := o.emit("Softmax", ir.Attrs{"axis": -1}, s)
	y := o.emit("MatMul", nil, o.reshape(p, h.batch, o.ints(nk), group, sq, total), o.emit("Unsqueeze", nil, seenV, one5))
	y = o.merged(o.reshape(y, h.batch, o.ints(nq), sq, o.size(v, 3)))
	return []*ir.Value{y, pk, pv}
}

// cached lays the new keys or values x [batch, heads, seq, size] behind the first `before` ones of the cache; room is the
// length of the result, whose rest is 0.
func (o *op) cached(past, x, before, room *ir.Value) *ir.Value {
	batch, heads, seq, size := o.size(x, 0), o.size(x, 1), o.size(x, 2), o.size(x, 3)
	all, old := x, o.ints(0)
	if past != nil {
		old = o.size(past, 2)
		all = o.emit("Concat", ir.Attrs{"axis": 2}, past, x)
	}
	all = o.emit("Concat", ir.Attrs{"axis": 2}, all, o.zeros(x.Type.DType, o.shape(batch, heads, o.ints(1), size)))
	t := o.upTo(room, 0)
	step := o.emit("Sub", nil, t, o.trail(before, 1)) // [batch, room]
	fresh := o.emit("And", nil, o.emit("GreaterOrEqual", nil, step, o.ints(0)), o.emit("Less", nil, step, seq))
	from := o.emit("Where", nil, fresh, o.emit("Add", nil, step, old), o.emit("Add", nil, old, seq)) // else the row of zeros
	from = o.emit("Where", nil, o.emit("Less", nil, step, o.ints(0)), t, from)
	from = o.emit("Expand", nil, o.emit("Unsqueeze", nil, from, o.ints(1, 3)), o.shape(batch, heads, room, size))
	return o.emit("GatherElements", ir.Attrs{"axis": 2}, all, from)
}
