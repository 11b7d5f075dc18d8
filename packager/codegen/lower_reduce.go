package codegen

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func reduceLowering() map[string]lowerer {
	red := func(op kernel.ReduceOp) lowerer {
		return elems(func(d kernel.DT) *kernel.Kernel { return kernel.Reduce(op, d) }, "keepdims")
	}
	arg := func(max bool) lowerer {
		return func(c *compiler, n *ir.Node) error {
			return elems(func(d kernel.DT) *kernel.Kernel {
				return kernel.Arg(max, n.Int("select_last_index") != 0, d)
			}, "axis", "keepdims")(c, n)
		}
	}
	return map[string]lowerer{
		"ReduceSum":  red(kernel.ReduceSum),
		"ReduceMean": red(kernel.ReduceMean),
		"ReduceProd": red(kernel.ReduceProd),
		"ReduceMax":  red(kernel.ReduceMax),
		"ReduceMin":  red(kernel.ReduceMin),
		"ArgMax":     arg(true),
		"ArgMin":     arg(false),
		"Softmax": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			if d.Half() {
				return c.inF32(n, d, func(outs, ins []*operand) *step {
					return c.step(kernel.Softmax(dtypeOf(abi.F32)), outs, ins, ai(n.Int("axis")))
				})
			}
			c.step(kernel.Softmax(d), c.outs(n), c.ins(n), ai(n.Int("axis")))
			return nil
		},
		"TopK": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			outs := c.outs(n)
			var spare *operand
			for i := 0; i < 2; i++ {
				if i >= len(outs) {
					outs = append(outs, nil)
				}
				if outs[i] == nil {
					spare = c.newSlot()
					outs[i] = spare
				}
			}
			s := c.step(kernel.TopK(n.Int("largest") != 0, d), outs, c.ins(n), ai(n.Int("axis")))
			if spare != nil {
				s.frees = append(s.frees, spare.slot)
			}
			return nil
		},
	}
}
