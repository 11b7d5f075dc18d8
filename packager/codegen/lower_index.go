package codegen

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Operators that pick and place elements by computed positions.

func indexLowering() map[string]lowerer {
	reduced := func(k func(d kernel.DT, red string) *kernel.Kernel, attrs ...string) lowerer {
		return func(c *compiler, n *ir.Node) error {
			red := map[string]string{"none": "none", "add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}[n.Str("reduction")]
			var as []attr
			for _, a := range attrs {
				as = append(as, ai(n.Int(a)))
			}
			return c.moved(n, []int{0, 2}, func(d kernel.DT) *kernel.Kernel { return k(d, red) }, as...)
		}
	}
	return map[string]lowerer{
		"Trilu":           elems(kernel.Trilu, "upper"),
		"GatherElements":  moves([]int{0}, kernel.GatherElements, "axis"),
		"GatherND":        moves([]int{0}, kernel.GatherND, "batch_dims"),
		"ScatterElements": reduced(kernel.ScatterElements, "axis"),
		"ScatterND":       reduced(kernel.ScatterND),
		"ReverseSequence": moves([]int{0}, kernel.ReverseSequence, "time_axis"),
		"NonZero": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			t := &temps{c: c}
			x, flat := c.ins(n)[0], t.new()
			c.step(kernel.NonZeroFlat(d), []*operand{flat}, []*operand{x})
			t.free(c.step(kernel.Unravel(), c.outs(n), []*operand{flat, x}))
			return nil
		},
		"EyeLike": func(c *compiler, n *ir.Node) error {
			d, err := kernel.DTypeOf(abi.DType(n.DType("dtype")))
			if err != nil {
				return unsupported(n, "%v", err)
			}
			c.step(kernel.EyeLike(d), c.outs(n), c.ins(n), ai(n.Int("k")))
			return nil
		},
		"UniqueRows": lowerUniqueRows,
	}
}

func lowerUniqueRows(c *compiler, n *ir.Node) error {
	t := &temps{c: c}
	x, str, d := c.ins(n)[0], isString(n.Ins[0]), u64DT()
	if str {
		x = t.explode(x)
	} else {
		var err error
		if d, err = c.dt(n, n.Ins[0]); err != nil {
			return err
		}
	}
	order := t.new()
	c.step(kernel.UniqueSort(d, str), []*operand{order}, []*operand{x})
	outs := make([]*operand, 3)
	for i := range outs {
		if outs[i] = c.define(n.Out(i)); outs[i] == nil {
			outs[i] = t.new()
		}
	}
	groups := outs
	if n.Int("sorted") == 0 {
		groups = []*operand{t.new(), t.new(), t.new()}
	}
	s := c.step(kernel.UniqueGroups(d, str), groups, []*operand{x, order})
	if n.Int("sorted") == 0 {
		s = c.step(kernel.UniqueByPlace(), append(outs, t.new()), groups)
	}
	t.free(s)
	return nil
}
