package codegen

import (
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func sampleLowering() map[string]lowerer {
	return map[string]lowerer{
		"Sample": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			sp := n.Ins[0].Type.Shape.Rank() - 2
			if sp < 1 {
				return unsupported(n, "the number of spatial dims is known only at run time")
			}
			taps := map[string]int{"nearest": 1, "linear": 2, "cubic": 4}[n.Str("mode")]
			outside := map[string]int{"zeros": kernel.OutsideZeros, "border": kernel.OutsideBorder, "reflection": kernel.OutsideReflect}[n.Str("padding_mode")]
			c.step(kernel.Sample(d, sp, taps, outside, n.Int("align_corners") != 0), c.outs(n), c.ins(n))
			return nil
		},
		"NonMaxSuppression": func(c *compiler, n *ir.Node) error {
			c.step(kernel.NonMaxSuppression(), c.outs(n), c.ins(n), ai(n.Int("center_point_box")))
			return nil
		},
		"Det": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			t := &temps{c: c}
			spare := t.new()
			if x, ok := n.Ins[0].Type.Shape.Static(); ok && len(x) > 1 && x[len(x)-1] < 1<<14 {
				c.sized(spare, "scratch", max(8*x[len(x)-1]*x[len(x)-1], 1), nil)
			}
			t.free(c.step(kernel.Det(d), append(c.outs(n), spare), c.ins(n)))
			return nil
		},
		"RoiAlign": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			c.step(kernel.RoiAlign(d, n.Str("mode") == "max"), c.outs(n), c.ins(n), ai(max(n.Int("sampling_ratio"), 0)), af(n.Float("spatial_scale")),
				ai(n.Int("half_pixel")), ai(n.Int("output_height")), ai(n.Int("output_width")))
			return nil
		},
	}
}
