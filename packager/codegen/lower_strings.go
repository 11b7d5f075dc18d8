package codegen

import (
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func stringLowering() map[string]lowerer {
	return map[string]lowerer{
		"StringConcat": func(c *compiler, n *ir.Node) error {
			t := &temps{c: c}
			ins := c.ins(n)
			pair := []*operand{t.explode(ins[0]), t.explode(ins[1])}
			a, b := t.new(), t.new()
			c.step(kernel.PickText(false), []*operand{a}, pair)
			c.step(kernel.PickText(true), []*operand{b}, pair)
			t.free(c.step(kernel.JoinTexts(), c.outs(n), []*operand{a, b}))
			return nil
		},
		"StringSplit": func(c *compiler, n *ir.Node) error {
			text, at := c.textBlob([]string{n.Str("delimiter")})
			as := []attr{{v: uint64(at[0][0]) | uint64(at[0][1])<<32, b: text}, ai(n.Int("maxsplit"))}
			t := &temps{c: c}
			refs := t.explode(c.ins(n)[0])
			counts := c.define(n.Out(1))
			if counts == nil {
				counts = t.new()
			}
			s := c.step(kernel.SplitCount(), []*operand{counts}, []*operand{refs}, as...)
			if y := c.define(n.Out(0)); y != nil {
				parts := t.new()
				c.step(kernel.SplitParts(), []*operand{parts}, []*operand{refs, counts}, as...)
				s = c.step(kernel.Implode(), []*operand{y}, []*operand{parts})
			}
			t.free(s)
			return nil
		},
		"NumberToText": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			t := &temps{c: c}
			refs := t.new()
			c.step(kernel.NumberText(d), []*operand{refs}, c.ins(n))
			t.free(c.step(kernel.Implode(), c.outs(n), []*operand{refs}))
			return nil
		},
		"TextToNumber": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Outs[0])
			if err != nil {
				return err
			}
			t := &temps{c: c}
			refs := t.explode(c.ins(n)[0])
			t.free(c.step(kernel.TextNumber(d), append(c.outs(n), t.new()), []*operand{refs}))
			return nil
		},
		"RegexFullMatch": func(c *compiler, n *ir.Node) error {
			d, err := compileDFA(`\A(?:` + n.Str("pattern") + `)\z`)
			if err != nil {
				return unsupported(n, "%v", err)
			}
			if d.classes > 255 {
				return unsupported(n, "the pattern tells %d classes of characters apart, at most 255", d.classes)
			}
			t := &temps{c: c}
			refs := t.explode(c.ins(n)[0])
			t.free(c.step(kernel.FullMatch(), c.outs(n), []*operand{refs}, ab(d.lay(c))))
			return nil
		},
	}
}
