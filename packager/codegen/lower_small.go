package codegen

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func smallLowering() map[string]lowerer {
	return map[string]lowerer{
		"CastSmall": func(c *compiler, n *ir.Node) error {
			d, err := c.store(n, n.Ins[0])
			if err != nil {
				return err
			}
			e, err := c.store(n, n.Outs[0])
			if err != nil {
				return err
			}
			c.step(kernel.Encode(d, e, n.Int("saturate") != 0, n.Str("round_mode")), c.outs(n), c.ins(n))
			return nil
		},
	}
}

// store is dt for steps that move or convert elements: it also knows the types that nothing computes with.
func (c *compiler) store(n *ir.Node, v *ir.Value) (kernel.DT, error) {
	if v.Type.Kind != ir.Tensor {
		return kernel.DT{}, unsupported(n, "value %q of type %s", v.Name, v.Type)
	}
	d, err := kernel.StorageOf(abi.DType(v.Type.DType))
	if err != nil {
		return d, unsupported(n, "value %q: %v", v.Name, err)
	}
	return d, nil
}

func lowerCast(c *compiler, n *ir.Node) error {
	d, err := c.store(n, n.Ins[0])
	if err != nil {
		return err
	}
	e, err := c.store(n, n.Outs[0])
	if err != nil {
		return err
	}
	outs, ins := c.outs(n), c.ins(n)
	if !d.SmallFloat() {
		c.step(kernel.Cast(d, e), outs, ins)
		return nil
	}
	if e.ABI == abi.F32 {
		c.step(kernel.Decode(d), outs, ins)
		return nil
	}
	t := &temps{c: c}
	w := c.wide(t, n.Ins[0])
	c.step(kernel.Decode(d), []*operand{w}, ins)
	t.free(c.step(kernel.Cast(dtypeOf(abi.F32), e), outs, []*operand{w}))
	return nil
}

// unpacked spreads the elements of a constant to a byte each where they share bytes.
func unpacked(d *ir.Data) []byte {
	if b := d.DType.Bits(); b == 0 || b >= 8 {
		return d.Bytes
	}
	out := make([]byte, d.Len())
	for i := range out {
		out[i] = byte(d.Int(i))
	}
	return out
}
