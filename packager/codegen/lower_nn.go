package codegen

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func nnLowering() map[string]lowerer {
	return map[string]lowerer{
		"MatMul": lowerMatMul,
		"RNN":    lowerRNN(kernel.RNN),
		"GRU":    lowerRNN(kernel.GRU),
		"LSTM":   lowerRNN(kernel.LSTM),
		"BatchNormalization": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			c.step(kernel.BatchNorm(d), c.outs(n), c.ins(n), af(n.Float("epsilon")))
			return nil
		},
		"Gemm": lowerGemm,
		"Conv": lowerConv,
		"MaxPool": func(c *compiler, n *ir.Node) error {
			kind := kernel.MaxPool
			if n.Out(1) != nil {
				kind = kernel.MaxPoolIndices
			}
			return lowerPool(c, n, kind, n.Int("ceil_mode")&1|n.Int("storage_order")&1<<1)
		},
		"AveragePool": func(c *compiler, n *ir.Node) error {
			return lowerPool(c, n, kernel.AveragePool, n.Int("ceil_mode")&1|n.Int("count_include_pad")&1<<2)
		},
	}
}

func lowerPool(c *compiler, n *ir.Node, kind kernel.PoolKind, flags int64) error {
	d, err := c.dt(n, n.Ins[0])
	if err != nil {
		return err
	}
	as, err := windowAttrs(n, 1, flags)
	if err != nil {
		return err
	}
	outs := c.outs(n)
	t := &temps{c: c}
	if outs[0] == nil { // only the indices are used
		outs[0] = t.new()
	}
	t.free(c.step(kernel.Pool(kind, d), outs, c.ins(n), as...))
	return nil
}

// windowAttrs lays the attributes of a sliding window out as package kernel reads them.
func windowAttrs(n *ir.Node, group, flags int64) ([]attr, error) {
	ks, st, pads, dil := n.Ints("kernel_shape"), n.Ints("strides"), n.Ints("pads"), n.Ints("dilations")
	sp := len(ks)
	if sp < 1 || sp > 3 {
		return nil, unsupported(n, "%d spatial dims", sp)
	}
	auto := map[string]int64{"NOTSET": 0, "SAME_UPPER": 1, "SAME_LOWER": 2}[n.Str("auto_pad")]
	as := []attr{ai(group), ai(auto), ai(flags), ai(int64(sp))}
	for i := 0; i < 3-sp; i++ {
		as = append(as, ai(1), ai(1), ai(0), ai(0), ai(1), ai(0), ai(0), ai(0))
	}
	for i := 0; i < sp; i++ {
		as = append(as, ai(ks[i]), ai(st[i]), ai(pads[i]), ai(pads[i+sp]), ai(dil[i]), ai(0), ai(0), ai(0))
	}
	return as, nil
}

func lowerGemm(c *compiler, n *ir.Node) error {
	d, err := c.dt(n, n.Ins[0])
	if err != nil {
		return err
	}
	alpha, beta := n.Float("alpha"), n.Float("beta")
	scaled := alpha != 1 || beta != 1
	if packable(n.Ins[1]) && d.ABI == abi.F32 {
		b, terms, cols := c.packed(n, n.Ins[1], n.Int("transB") != 0)
		ins := []*operand{c.operand(n.Ins[0]), b}
		hasC := n.In(2) != nil && beta != 0
		if hasC {
			ins = append(ins, c.operand(n.Ins[2]))
		}
		t := &temps{c: c}
		k := kernel.Gemm(d, n.Int("transA") != 0, false, hasC, scaled, true)
		rows := int64(-1)
		if y, ok := n.Outs[0].Type.Shape.Static(); ok {
			rows = y[0]
		}
		t.free(c.step(k, append(c.outs(n), c.scratch(t, rows, terms, cols)), ins, af(alpha), af(beta), ai(terms), ai(cols)))
		return nil
	}
	ins := c.ins(n)
	tb := n.Int("transB") != 0
	if b := n.Ins[1]; tb && b.Const != nil && len(b.Const.Dims) == 2 && !d.Half() {
		// A constant is turned once and for all, so that columns lie side by side.
		ins[1] = c.constant(c.transposed(b.Const))
		tb = false
		c.note(n, "weights transposed at compile time")
	}
	hasC := n.In(2) != nil && beta != 0
	if !hasC {
		ins = ins[:2]
	}
	emit := func(d kernel.DT, outs, ins []*operand) *step {
		return c.step(kernel.Gemm(d, n.Int("transA") != 0, tb, hasC, scaled, false), outs, ins, af(alpha), af(beta))
	}
	if d.Half() {
		return c.inF32(n, d, func(outs, ins []*operand) *step {
			if !hasC {
				ins = ins[:2]
			}
			return emit(dtypeOf(abi.F32), outs, ins)
		})
	}
	emit(d, c.outs(n), ins)
	return nil
}

// transposed swaps the dims of a constant matrix; the result is made once per constant.
func (c *compiler) transposed(d *ir.Data) *ir.Data {
	if t, ok := c.turned[d]; ok {
		return t
	}
	t := &ir.Data{DType: d.DType, Dims: []int64{d.Dims[1], d.Dims[0]}, Bytes: transpose2(d)}
	c.turned[d] = t
	return t
}

func transpose2(d *ir.Data) []byte {
	r, q := int(d.Dims[0]), int(d.Dims[1])
	es := d.DType.Bits() / 8
	out := make([]byte, len(d.Bytes))
	for i := 0; i < r; i++ {
		for j := 0; j < q; j++ {
			copy(out[(j*r+i)*es:(j*r+i+1)*es], d.Bytes[(i*q+j)*es:])
		}
	}
	return out
}
