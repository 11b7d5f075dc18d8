package codegen

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func imageLowering() map[string]lowerer {
	return map[string]lowerer{
		"Resize":        lowerResize,
		"ConvTranspose": lowerConvTranspose,
	}
}

// lowerResize makes a plan for all axes, then resamples one axis after the other, the last first.
func lowerResize(c *compiler, n *ir.Node) error {
	d, err := c.dt(n, n.Ins[0])
	if err != nil {
		return err
	}
	v := kernel.Sampler{Antialias: n.Int("antialias") != 0, Inside: n.Int("exclude_outside") != 0}
	coord := n.Str("coordinate_transformation_mode")
	v.Coord = map[string]int{"half_pixel": kernel.CoordHalfPixel, "half_pixel_symmetric": kernel.CoordSymmetric, "pytorch_half_pixel": kernel.CoordPytorch,
		"align_corners": kernel.CoordCorners, "asymmetric": kernel.CoordAsymmetric, "tf_crop_and_resize": kernel.CoordCrop,
		"tf_half_pixel_for_nn": kernel.CoordHalfPixelNN}[coord]
	mode := n.Str("mode")
	switch mode {
	case "linear":
		v.Mode = kernel.SampleLinear
	case "cubic":
		v.Mode = kernel.SampleCubic
	default:
		v.Antialias, v.Inside = false, false
		v.Mode = map[string]int{"floor": kernel.SampleFloor, "ceil": kernel.SampleCeil, "round_prefer_floor": kernel.SamplePreferFloor,
			"round_prefer_ceil": kernel.SamplePreferCeil}[n.Str("nearest_mode")]
	}
	axes, x := n.Ints("axes"), n.Ins[0].Type.Shape
	as := []attr{ai(map[string]int64{"stretch": 0, "not_larger": 1, "not_smaller": 2}[n.Str("keep_aspect_ratio_policy")]), ai(int64(len(axes)))}
	for _, a := range axes {
		as = append(as, ai(a))
	}
	ins := c.ins(n)
	for len(ins) < 4 {
		ins = append(ins, nil)
	}
	t := &temps{c: c}
	plan := t.new()
	dims, static := x.Static()
	out, known := n.Outs[0].Type.Shape.Static()
	static = static && known && len(out) == len(dims)
	if x.Ranked {
		c.sized(plan, "plan", kernel.ResizePlanBytes(int64(len(x.Dims))), nil)
	}
	c.step(kernel.ResizePlan(), []*operand{plan}, ins, as...)
	var todo []int64
	for a := int64(ir.MaxRank) - 1; a >= 0; a-- {
		for i, b := range axes {
			if a != b {
				continue
			}
			// An axis that keeps its size by a known scale of 1 is copied: nothing to do.
			same := false
			if sc := n.In(2); sc != nil && sc.Const != nil {
				same = sc.Const.Float(i) == 1
			} else if y := n.Outs[0].Type.Shape; n.Str("keep_aspect_ratio_policy") == "stretch" && sc == nil {
				same = x.Ranked && y.Ranked && x.Dims[a].Same(y.Dims[a])
			}
			if !same || coord == "tf_crop_and_resize" {
				todo = append(todo, a)
			}
		}
	}
	cur, outs := ins[0], c.outs(n)
	var last *step
	for i, a := range todo {
		idx, w := t.new(), t.new()
		if taps := kernel.ResizeTapsOf(v); static && taps > 0 {
			c.sized(idx, fmt.Sprintf("places on axis %d", a), max(4*taps*out[a], 1), nil)
			c.sized(w, fmt.Sprintf("weights on axis %d", a), max(8*taps*out[a], 1), nil)
		}
		c.step(kernel.ResizeTaps(v), []*operand{idx, w}, []*operand{cur, plan}, ai(a), af(n.Float("cubic_coeff_a")))
		to := outs[0]
		if i < len(todo)-1 {
			to = t.new()
			if static {
				dims[a] = out[a]
				if e, ok := ir.Elements(dims); ok && e <= maxPlanned>>d.Shift {
					c.sized(to, fmt.Sprintf("axis %d", a), max(e<<d.Shift, 1), nil)
				}
			}
		}
		last = c.step(kernel.ResizeApply(d, mode == "nearest"), []*operand{to}, []*operand{cur, idx, w}, ai(a), af(float64(float32(n.Float("extrapolation_value")))))
		last.frees = append(last.frees, idx.slot, w.slot)
		if i > 0 {
			last.frees = append(last.frees, cur.slot)
		}
		cur = to
	}
	if last == nil {
		last = c.step(kernel.Alias(), outs, ins[:1])
	}
	last.frees = append(last.frees, plan.slot)
	return nil
}

func lowerConvTranspose(c *compiler, n *ir.Node) error {
	d, err := c.dt(n, n.Ins[0])
	if err != nil {
		return err
	}
	os, op := n.Ints("output_shape"), n.Ints("output_padding")
	flag := int64(0)
	if len(os) > 0 {
		flag = 1
	}
	as, err := windowAttrs(n, n.Int("group"), flag)
	if err != nil {
		return err
	}
	for _, l := range [][]int64{os, op} {
		for i := 0; i < 3-len(op); i++ {
			as = append(as, ai(0))
		}
		for i := range op {
			if len(l) == 0 {
				as = append(as, ai(0))
			} else {
				as = append(as, ai(l[i]))
			}
		}
	}
	c.step(kernel.ConvTranspose(d, n.In(2) != nil), c.outs(n), c.ins(n), as...)
	return nil
}
