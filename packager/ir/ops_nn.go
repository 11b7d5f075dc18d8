package ir

import "fmt"

// Neural network operators. Spatial attributes (kernel_shape, strides, dilations: one per spatial dim; pads: begins then
// ends) are always complete. auto_pad is NOTSET wherever the spatial sizes are known at compile time; SAME_UPPER and
// SAME_LOWER stay only for sizes known later, and pads are then zeros.

func nnOps() []OpDef {
	spatial := func() []AttrDef {
		return []AttrDef{need("kernel_shape", AttrInts), need("strides", AttrInts), need("pads", AttrInts), need("dilations", AttrInts),
			attr("auto_pad", "NOTSET")}
	}
	return []OpDef{
		{Name: "MatMul", Doc: "numpy.matmul: 1-D operands get a dim of 1 that is removed again; leading dims broadcast.",
			Ins: params("A B"), Outs: params("Y"), infer: inferMatMul},
		{Name: "Gemm", Doc: "alpha * A' * B' + beta * C, where ' transposes for transA and transB; C broadcasts one way to [M,N]. " +
			"A and B are 2-D.",
			Ins: params("A B C?"), Outs: params("Y"),
			Attrs: []AttrDef{attr("alpha", 1.0), attr("beta", 1.0), attr("transA", 0), attr("transB", 0)}, infer: inferGemm},
		{Name: "Conv", Doc: "Cross-correlation of X [N,C,spatial...] with W [M,C/group,kernel...], plus B [M]. 1 to 3 spatial dims.",
			Ins: params("X W B?"), Outs: params("Y"), Attrs: append(spatial(), attr("group", 1)), infer: inferConv},
		{Name: "MaxPool", Doc: "Maximum over the window; padding never wins. Indices: flat positions in X (row-major, or column-major for " +
			"storage_order 1), the first element of the maximum. The first NaN wins.",
			Ins: params("X"), Outs: params("Y Indices?"), Attrs: append(spatial(), attr("ceil_mode", 0), attr("storage_order", 0)),
			infer: inferPool},
		{Name: "AveragePool", Doc: "Mean over the window: the sum in row-major order divided by the count. count_include_pad counts explicit " +
			"padding, but not the part of a ceil_mode window that sticks out beyond it.",
			Ins: params("X"), Outs: params("Y"), Attrs: append(spatial(), attr("ceil_mode", 0), attr("count_include_pad", 0)),
			infer: inferPool},
		{Name: "BatchNormalization", Doc: "Inference form, per channel c = dim 1: s = scale / sqrt(var + epsilon), Y = X*s + (bias - mean*s).",
			Ins: params("X scale bias mean var"), Outs: params("Y"), Attrs: []AttrDef{attr("epsilon", float32(1e-5))}, infer: inferBatchNorm},
		rnn("RNN", "Vanilla recurrent layer.", "X W R B? sequence_lens? initial_h?", "Y? Y_h?"),
		rnn("GRU", "Gated recurrent unit, gates z r h.", "X W R B? sequence_lens? initial_h?", "Y? Y_h?", attr("linear_before_reset", 0)),
		rnn("LSTM", "Long short-term memory, gates i o f c, peepholes P (i o f).", "X W R B? sequence_lens? initial_h? initial_c? P?",
			"Y? Y_h? Y_c?", attr("input_forget", 0)),
	}
}

func rnn(name, doc, ins, outs string, extra ...AttrDef) OpDef {
	return OpDef{Name: name,
		Doc: doc + " X [seq,batch,in], W [dirs,gates*hidden,in], R [dirs,gates*hidden,hidden], B [dirs,2*gates*hidden], Y [seq,dirs," +
			"batch,hidden] (frontends transpose layout 1 away). activations: the full list, with activation_alpha and " +
			"activation_beta of the same length. clip 0 means none. sequence_lens is i32: steps beyond a length give zeros in Y and leave the state.",
		Ins: params(ins), Outs: params(outs),
		Attrs: append([]AttrDef{attr("direction", "forward"), need("hidden_size", AttrInt), need("activations", AttrStrings),
			need("activation_alpha", AttrFloats), need("activation_beta", AttrFloats), attr("clip", 0.0)}, extra...),
		infer: inferRNN}
}

func inferMatMul(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.sameDType(0, 1); err != nil {
		return err
	}
	if err := c.want(0, numeric(c.dtype(0)), "a number"); err != nil {
		return err
	}
	a, b := c.shape(0), c.shape(1)
	if !a.Ranked || !b.Ranked {
		c.set(0, c.dtype(0), Unranked())
		return nil
	}
	if a.Rank() == 0 || b.Rank() == 0 {
		return fmt.Errorf("operands %s and %s, want rank 1 or more", a, b)
	}
	x, y := a.Dims, b.Dims
	if len(x) == 1 {
		x = []Dim{Static(1), x[0]}
	}
	if len(y) == 1 {
		y = []Dim{y[0], Static(1)}
	}
	k1, k2 := x[len(x)-1], y[len(y)-2]
	if k1.IsStatic() && k2.IsStatic() && k1.N != k2.N {
		return fmt.Errorf("operands %s and %s: inner dims %d and %d differ", a, b, k1.N, k2.N)
	}
	lead, err := Broadcast(ShapeOf(x[:len(x)-2]...), ShapeOf(y[:len(y)-2]...))
	if err != nil {
		return err
	}
	out := lead.Dims
	if a.Rank() > 1 {
		out = append(out, x[len(x)-2])
	}
	if b.Rank() > 1 {
		out = append(out, y[len(y)-1])
	}
	c.set(0, c.dtype(0), ShapeOf(out...))
	return nil
}

func inferGemm(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.sameDType(0, 1, 2); err != nil {
		return err
	}
	if err := c.want(0, numeric(c.dtype(0)), "a number"); err != nil {
		return err
	}
	dims := func(i int, trans string) (Dim, Dim, error) {
		s := c.shape(i)
		if !s.Ranked {
			return Unknown(), Unknown(), nil
		}
		if s.Rank() != 2 {
			return Dim{}, Dim{}, fmt.Errorf("input %d is %s, want rank 2", i, s)
		}
		if c.n.Int(trans) != 0 {
			return s.Dims[1], s.Dims[0], nil
		}
		return s.Dims[0], s.Dims[1], nil
	}
	m, k1, err := dims(0, "transA")
	if err != nil {
		return err
	}
	k2, n, err := dims(1, "transB")
	if err != nil {
		return err
	}
	if k1.IsStatic() && k2.IsStatic() && k1.N != k2.N {
		return fmt.Errorf("inner dims %d and %d differ", k1.N, k2.N)
	}
	out := ShapeOf(m, n)
	if c.has(2) {
		if s := c.shape(2); s.Ranked {
			if s.Rank() > 2 {
				return fmt.Errorf("C is %s, want rank 2 at most", s)
			}
			for i := range s.Dims {
				d, o := s.Dims[i], out.Dims[2-s.Rank()+i]
				if d.IsStatic() && o.IsStatic() && d.N != 1 && d.N != o.N {
					return fmt.Errorf("C is %s, does not broadcast to %s", s, out)
				}
			}
		}
	}
	c.set(0, c.dtype(0), out)
	return nil
}

// window holds the spatial attributes of one dim.
type window struct{ kernel, stride, begin, end, dilation int64 }

func (c *inferer) windows(rank int) ([]window, error) {
	sp := rank - 2
	if sp < 1 {
		return nil, fmt.Errorf("input has rank %d, want at least 3", rank)
	}
	k, s, p, d := c.n.Ints("kernel_shape"), c.n.Ints("strides"), c.n.Ints("pads"), c.n.Ints("dilations")
	if len(k) != sp || len(s) != sp || len(d) != sp || len(p) != 2*sp {
		return nil, fmt.Errorf("kernel %v, strides %v, dilations %v or pads %v do not fit %d spatial dims", k, s, d, p, sp)
	}
	out := make([]window, sp)
	for i := range out {
		out[i] = window{k[i], s[i], p[i], p[i+sp], d[i]}
		const lim = 1 << 31
		if k[i] < 1 || s[i] < 1 || d[i] < 1 || k[i] >= lim || s[i] >= lim || d[i] >= lim || p[i] >= lim || p[i+sp] >= lim ||
			p[i] <= -lim || p[i+sp] <= -lim {
			return nil, fmt.Errorf("kernel %v, strides %v, dilations %v or pads %v out of range", k, s, d, p)
		}
	}
	switch m := c.n.Str("auto_pad"); m {
	case "NOTSET", "SAME_UPPER", "SAME_LOWER":
	default:
		return nil, fmt.Errorf("auto_pad %q", m)
	}
	return out, nil
}

// PoolSize is the number of output positions along a spatial dim of size n: the kernel spans (kernel-1)*dilation+1,
// same selects SAME padding (pads ignored), ceil the ceil_mode of pools, which drops a last window that would start
// in the end padding.
func PoolSize(n, kernel, stride, begin, end, dilation int64, same, ceil bool) int64 {
	if same {
		return (n + stride - 1) / stride
	}
	span := (kernel-1)*dilation + 1
	free := n + begin + end - span
	if free < 0 {
		// The quotient rounded up is 0 here: one window, which sticks out.
		if ceil && free > -stride && n+begin > 0 {
			return 1
		}
		return 0
	}
	out := free/stride + 1
	if ceil && free%stride != 0 && out*stride < n+begin {
		out++
	}
	return out
}

func (c *inferer) spatialDims(s Shape, ceil bool) ([]Dim, error) {
	ws, err := c.windows(s.Rank())
	if err != nil {
		return nil, err
	}
	same := c.n.Str("auto_pad") != "NOTSET"
	out := make([]Dim, len(ws))
	for i, w := range ws {
		d := s.Dims[i+2]
		switch {
		case d.IsStatic():
			n := PoolSize(d.N, w.kernel, w.stride, w.begin, w.end, w.dilation, same, ceil)
			if n <= 0 {
				return nil, fmt.Errorf("spatial dim %d of size %d is smaller than the window", i, d.N)
			}
			out[i] = Static(n)
		case w.stride == 1 && (same || w.begin+w.end == (w.kernel-1)*w.dilation):
			out[i] = d
		default:
			out[i] = Unknown()
		}
	}
	return out, nil
}

func inferConv(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.sameDType(0, 1, 2); err != nil {
		return err
	}
	if err := c.want(0, float(c.dtype(0)), "a float"); err != nil {
		return err
	}
	x, w := c.shape(0), c.shape(1)
	rank := len(c.n.Ints("kernel_shape")) + 2
	if !x.Ranked {
		x = unknownDims(rank)
	}
	if !w.Ranked {
		w = unknownDims(rank)
	}
	if x.Rank() != w.Rank() {
		return fmt.Errorf("X is %s, W is %s: ranks differ", x, w)
	}
	sp, err := c.spatialDims(x, false)
	if err != nil {
		return err
	}
	g := c.n.Int("group")
	if g < 1 {
		return fmt.Errorf("group %d", g)
	}
	if ch, wc := x.Dims[1], w.Dims[1]; ch.IsStatic() && wc.IsStatic() && ch.N != wc.N*g {
		return fmt.Errorf("%d channels, but W takes %d in %d groups", ch.N, wc.N, g)
	}
	if m := w.Dims[0]; m.IsStatic() && m.N%g != 0 {
		return fmt.Errorf("%d filters do not divide into %d groups", m.N, g)
	}
	if c.has(2) && c.shape(2).Ranked {
		if b := c.shape(2); b.Rank() != 1 || b.Dims[0].IsStatic() && w.Dims[0].IsStatic() && b.Dims[0].N != w.Dims[0].N {
			return fmt.Errorf("B is %s for %s filters", b, w.Dims[0])
		}
	}
	for i, k := range c.n.Ints("kernel_shape") {
		if d := w.Dims[i+2]; d.IsStatic() && d.N != k {
			return fmt.Errorf("kernel_shape[%d] is %d, W has %d", i, k, d.N)
		}
	}
	c.set(0, c.dtype(0), ShapeOf(append([]Dim{x.Dims[0], w.Dims[0]}, sp...)...))
	return nil
}

func inferPool(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	ok, what := numeric(c.dtype(0)), "a number"
	if c.n.Op == "AveragePool" {
		ok, what = float(c.dtype(0)), "a float"
	}
	if err := c.want(0, ok, what); err != nil {
		return err
	}
	x := c.shape(0)
	if !x.Ranked {
		x = unknownDims(len(c.n.Ints("kernel_shape")) + 2)
	}
	sp, err := c.spatialDims(x, c.n.Int("ceil_mode") != 0)
	if err != nil {
		return err
	}
	out := ShapeOf(append([]Dim{x.Dims[0], x.Dims[1]}, sp...)...)
	c.set(0, c.dtype(0), out)
	c.set(1, I64, out)
	return nil
}

func inferBatchNorm(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.sameDType(0, 1, 2, 3, 4); err != nil {
		return err
	}
	if err := c.want(0, float(c.dtype(0)), "a float"); err != nil {
		return err
	}
	if r := c.shape(0).Rank(); r == 0 || r == 1 {
		return fmt.Errorf("X has rank %d, want at least 2", r)
	}
	c.set(0, c.dtype(0), c.shape(0))
	return nil
}

func inferRNN(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.sameDType(0, 1, 2, 3, 5, 6, 7); err != nil {
		return err
	}
	if err := c.want(0, float(c.dtype(0)), "a float"); err != nil {
		return err
	}
	if c.has(4) {
		if err := c.want(4, c.dtype(4) == I32, "i32"); err != nil {
			return err
		}
	}
	dirs, acts := int64(1), map[string]int{"RNN": 1, "GRU": 2, "LSTM": 3}[c.n.Op]
	switch d := c.n.Str("direction"); d {
	case "forward", "reverse":
	case "bidirectional":
		dirs, acts = 2, 2*acts
	default:
		return fmt.Errorf("direction %q", d)
	}
	if n := len(c.n.Strs("activations")); n != acts || len(c.n.Floats("activation_alpha")) != n || len(c.n.Floats("activation_beta")) != n {
		return fmt.Errorf("%d activations, %d alphas, %d betas, want %d", n, len(c.n.Floats("activation_alpha")), len(c.n.Floats("activation_beta")), acts)
	}
	seq, batch, hid := Unknown(), Unknown(), Static(c.n.Int("hidden_size"))
	if hid.N < 1 {
		return fmt.Errorf("hidden_size %d", hid.N)
	}
	if x := c.shape(0); x.Ranked {
		if x.Rank() != 3 {
			return fmt.Errorf("X is %s, want rank 3", x)
		}
		seq, batch = x.Dims[0], x.Dims[1]
	}
	gates := map[string]int64{"RNN": 1, "GRU": 3, "LSTM": 4}[c.n.Op]
	for i := 1; i <= 2; i++ {
		w := c.shape(i)
		if w.Ranked && (w.Rank() != 3 || w.Dims[0].IsStatic() && w.Dims[0].N != dirs || w.Dims[1].IsStatic() && w.Dims[1].N != gates*hid.N) {
			return fmt.Errorf("input %d is %s, want [%d,%d,...]", i, w, dirs, gates*hid.N)
		}
	}
	c.set(0, c.dtype(0), ShapeOf(seq, Static(dirs), batch, hid))
	c.set(1, c.dtype(0), ShapeOf(Static(dirs), batch, hid))
	c.set(2, c.dtype(0), ShapeOf(Static(dirs), batch, hid))
	return nil
}
