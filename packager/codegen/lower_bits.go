package codegen

import (
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func bitsLowering() map[string]lowerer {
	cum := func(prod bool) lowerer {
		return func(c *compiler, n *ir.Node) error {
			return simple(func(d kernel.DT) *kernel.Kernel {
				return kernel.Cumulative(prod, n.Int("exclusive") != 0, n.Int("reverse") != 0, d)
			})(c, n)
		}
	}
	t := map[string]lowerer{
		"CumSum": cum(false), "CumProd": cum(true),
		"BitwiseNot": simple(func(d kernel.DT) *kernel.Kernel { return kernel.Unary(kernel.BitwiseNot(), d) }),
		"BitShift": func(c *compiler, n *ir.Node) error {
			return simple(func(d kernel.DT) *kernel.Kernel {
				return kernel.Binary(kernel.BitShift(n.Str("direction") == "LEFT"), d)
			})(c, n)
		},
		"BitCast": func(c *compiler, n *ir.Node) error {
			d, err := c.store(n, n.Ins[0])
			if err != nil {
				return err
			}
			e, err := c.store(n, n.Outs[0])
			if err != nil {
				return err
			}
			c.step(kernel.BitCast(d, e), c.outs(n), c.ins(n))
			return nil
		},
	}
	for _, op := range kernel.BitOps() {
		t[op.Name] = simple(func(d kernel.DT) *kernel.Kernel { return kernel.Binary(op, d) })
	}
	return t
}
