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

func tensorLowering() map[string]lowerer {
	return map[string]lowerer{
		"Identity":  plain(kernel.Alias()),
		"Shape":     plain(kernel.Shape(), "start", "end"),
		"Size":      plain(kernel.Size()),
		"Reshape":   plain(kernel.Reshape(), "allowzero"),
		"Flatten":   plain(kernel.Flatten(), "axis"),
		"Squeeze":   plain(kernel.Squeeze()),
		"Unsqueeze": plain(kernel.Unsqueeze()),
		"Expand":    elems(kernel.Expand),
		"Slice":     elems(kernel.Slice),
		"Concat":    elems(kernel.Concat, "axis"),
		"Gather":    elems(kernel.Gather, "axis"),
		"Tile":      elems(kernel.Tile),
		"Range":     elems(kernel.Range),
		"OneHot": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[2])
			if err != nil {
				return err
			}
			c.step(kernel.OneHot(d), c.outs(n), c.ins(n), ai(n.Int("axis")))
			return nil
		},
		"Pad": func(c *compiler, n *ir.Node) error {
			mode, ok := map[string]int{"constant": kernel.PadConstant, "edge": kernel.PadEdge, "reflect": kernel.PadReflect, "wrap": kernel.PadWrap}[n.Str("mode")]
			if !ok {
				return unsupported(n, "mode %q", n.Str("mode"))
			}
			return elems(func(d kernel.DT) *kernel.Kernel { return kernel.Pad(mode, d) })(c, n)
		},
		"Transpose": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			perm := n.Ints("perm")
			as := []attr{ai(int64(len(perm)))}
			for _, p := range perm {
				as = append(as, ai(p))
			}
			c.step(kernel.Transpose(d, len(perm) > 0), c.outs(n), c.ins(n), as...)
			return nil
		},
		"Split": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			for i, o := range n.Outs {
				if o == nil && i > 0 {
					continue
				}
				out := c.define(o)
				if out == nil {
					out = c.newSlot() // the first part is always cut: it checks the sizes
				}
				s := c.step(kernel.SplitPart(d, n.In(1) != nil), []*operand{out}, c.ins(n), ai(n.Int("axis")), ai(int64(i)), ai(n.Int("num_outputs")))
				if o == nil {
					s.frees = append(s.frees, out.slot)
				}
			}
			return nil
		},
		"ConstantOfShape": func(c *compiler, n *ir.Node) error {
			v := n.Data("value")
			d, err := kernel.DTypeOf(abi.DType(v.DType))
			if err != nil {
				return unsupported(n, "%v", err)
			}
			var b [8]byte
			copy(b[:], v.Bytes)
			c.step(kernel.ConstantOfShape(d), c.outs(n), c.ins(n), ai(int64(binary.LittleEndian.Uint64(b[:]))))
			return nil
		},
	}
}

func controlLowering() map[string]lowerer {
	return map[string]lowerer{"If": lowerIf}
}

// lowerIf jumps: cond false -> else; each branch moves its results into the node's output slots.
func lowerIf(c *compiler, n *ir.Node) error {
	node := c.node
	outs := c.outs(n)
	var els, end label
	c.step(kernel.JumpIfFalse(), nil, c.ins(n)[:1], al(&els))
	branch := func(r *ir.Region) error {
		if err := c.region(r); err != nil {
			return err
		}
		own := map[*ir.Value]bool{}
		for _, m := range r.Nodes {
			for _, v := range m.Outs {
				own[v] = true
			}
		}
		for i, v := range r.Results {
			c.node = node
			if outs[i] != nil {
				c.step(kernel.Alias(), []*operand{outs[i]}, []*operand{c.operand(v)})
			}
		}
		// Released after all moves: a value may be a result twice.
		s := c.step(kernel.Nop(), nil, nil)
		done := map[*ir.Value]bool{}
		for _, v := range r.Results {
			if own[v] && !done[v] {
				done[v] = true
				s.frees = append(s.frees, c.slots[v].slot)
			}
		}
		return nil
	}
	if err := branch(n.Regions[0]); err != nil {
		return err
	}
	c.step(kernel.Jump(), nil, nil, al(&end))
	c.here(&els)
	if err := branch(n.Regions[1]); err != nil {
		return err
	}
	c.here(&end)
	c.step(kernel.Nop(), nil, nil)
	return nil
}
