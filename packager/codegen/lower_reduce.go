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
			t := &temps{c: c}
			for len(outs) < 2 {
				outs = append(outs, nil)
			}
			for i, o := range outs {
				if o == nil {
					outs[i] = t.new()
				}
			}
			t.free(c.step(kernel.TopK(n.Int("largest") != 0, d), append(outs, t.new()), c.ins(n), ai(n.Int("axis"))))
			return nil
		},
	}
}
