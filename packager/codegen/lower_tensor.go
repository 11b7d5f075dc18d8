package codegen

import (
	"encoding/binary"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

// plain lowers a node to one step whose kernel does not look at elements.
func plain(k *kernel.Kernel, attrs ...string) lowerer {
	return func(c *compiler, n *ir.Node) error {
		var as []attr
		for _, a := range attrs {
			as = append(as, ai(n.Int(a)))
		}
		c.step(k, c.outs(n), c.ins(n), as...)
		return nil
	}
}

// elems lowers like simple, with integer attributes.
func elems(k func(d kernel.DT) *kernel.Kernel, attrs ...string) lowerer {
	return func(c *compiler, n *ir.Node) error {
		d, err := c.dt(n, n.Ins[0])
		if err != nil {
			return err
		}
		var as []attr
		for _, a := range attrs {
			as = append(as, ai(n.Int(a)))
		}
		c.step(k(d), c.outs(n), c.ins(n), as...)
		return nil
	}
}

// moves lowers an operator that moves elements of the inputs in data (nil: all) with integer attributes.
func moves(data []int, k func(d kernel.DT) *kernel.Kernel, attrs ...string) lowerer {
	return func(c *compiler, n *ir.Node) error {
		var as []attr
		for _, a := range attrs {
			as = append(as, ai(n.Int(a)))
		}
		return c.moved(n, data, k, as...)
	}
}

func tensorLowering() map[string]lowerer {
	return map[string]lowerer{
		"Allowed":   plain(kernel.Allowed(), "what"),
		"Identity":  plain(kernel.Alias()),
		"Shape":     plain(kernel.Shape(), "start", "end"),
		"Size":      plain(kernel.Size()),
		"Reshape":   plain(kernel.Reshape(), "allowzero"),
		"Flatten":   plain(kernel.Flatten(), "axis"),
		"Squeeze":   plain(kernel.Squeeze()),
		"Unsqueeze": plain(kernel.Unsqueeze()),
		"Expand":    moves([]int{0}, kernel.Expand),
		"Slice":     moves([]int{0}, kernel.Slice),
		"Concat":    moves(nil, kernel.Concat, "axis"),
		"Gather":    moves([]int{0}, kernel.Gather, "axis"),
		"Tile":      moves([]int{0}, kernel.Tile),
		"Range":     elems(kernel.Range),
		"OneHot": func(c *compiler, n *ir.Node) error {
			return c.moved(n, []int{2}, kernel.OneHot, ai(n.Int("axis")))
		},
		"Pad": func(c *compiler, n *ir.Node) error {
			mode, ok := map[string]int{"constant": kernel.PadConstant, "edge": kernel.PadEdge, "reflect": kernel.PadReflect, "wrap": kernel.PadWrap}[n.Str("mode")]
			if !ok {
				return unsupported(n, "mode %q", n.Str("mode"))
			}
			return c.moved(n, []int{0, 2}, func(d kernel.DT) *kernel.Kernel { return kernel.Pad(mode, d) })
		},
		"Transpose": func(c *compiler, n *ir.Node) error {
			perm := n.Ints("perm")
			as := []attr{ai(int64(len(perm)))}
			for _, p := range perm {
				as = append(as, ai(p))
			}
			return c.moved(n, []int{0}, func(d kernel.DT) *kernel.Kernel { return kernel.Transpose(d, len(perm) > 0) }, as...)
		},
		"Split": func(c *compiler, n *ir.Node) error {
			d := u64DT()
			t := &temps{c: c}
			ins := c.ins(n)
			if isString(n.Ins[0]) {
				ins[0] = t.explode(ins[0])
			} else {
				var err error
				if d, err = c.store(n, n.Ins[0]); err != nil {
					return err
				}
			}
			var last *step
			for i, o := range n.Outs {
				if o == nil && i > 0 {
					continue
				}
				part := c.define(o)
				if part == nil || isString(n.Ins[0]) {
					part = t.new() // the first part is always cut: it checks the sizes
				}
				last = c.step(kernel.SplitPart(d, n.In(1) != nil), []*operand{part}, ins, ai(n.Int("axis")), ai(int64(i)), ai(n.Int("num_outputs")))
				if o != nil && isString(n.Ins[0]) {
					last = c.step(kernel.Implode(), []*operand{c.define(o)}, []*operand{part})
				}
			}
			if last != nil {
				t.free(last)
			}
			return nil
		},
		"ConstantOfShape": func(c *compiler, n *ir.Node) error {
			v := n.Data("value")
			if v.DType == ir.String {
				text, at := c.textBlob(v.Strings)
				t := &temps{c: c}
				refs := t.new()
				c.step(kernel.ConstantOfShape(u64DT()), []*operand{refs}, c.ins(n), attr{v: uint64(at[0][0]) | uint64(at[0][1])<<32, b: text})
				t.free(c.step(kernel.Implode(), c.outs(n), []*operand{refs}))
				return nil
			}
			d, err := kernel.StorageOf(abi.DType(v.DType))
			if err != nil {
				return unsupported(n, "%v", err)
			}
			var b [8]byte
			copy(b[:], unpacked(v))
			c.step(kernel.ConstantOfShape(d), c.outs(n), c.ins(n), ai(int64(binary.LittleEndian.Uint64(b[:]))))
			return nil
		},
	}
}
