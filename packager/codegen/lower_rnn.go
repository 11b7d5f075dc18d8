package codegen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func lowerRNN(cell kernel.Cell) lowerer {
	return func(c *compiler, n *ir.Node) error {
		d, err := c.dt(n, n.Ins[0])
		if err != nil {
			return err
		}
		v := kernel.RNNVariant{Cell: cell, Dirs: 1, Reverse: n.Str("direction") == "reverse"}
		if n.Str("direction") == "bidirectional" {
			v.Dirs = 2
		}
		as := []attr{af(n.Float("clip")), ai(n.Int("hidden_size"))}
		for i, a := range n.Strs("activations") {
			name := strings.ToLower(a)
			if !slices.Contains(kernel.Activations(), name) {
				return unsupported(n, "activation %q", a)
			}
			v.Acts = append(v.Acts, kernel.Act{Name: name})
			as = append(as, af(n.Floats("activation_alpha")[i]), af(n.Floats("activation_beta")[i]))
		}
		v.Clip = n.Float("clip") > 0
		v.HasB, v.HasLens, v.HasH, v.HasC, v.HasP = n.In(3) != nil, n.In(4) != nil, n.In(5) != nil, n.In(6) != nil, n.In(7) != nil
		switch cell {
		case kernel.LSTM:
			v.Flag = n.Int("input_forget") != 0
		case kernel.GRU:
			v.Flag = n.Int("linear_before_reset") != 0
		}
		emit := func(d kernel.DT, outs, ins []*operand) *step {
			var spare []int
			for len(outs) < 4 {
				outs = append(outs, nil)
			}
			for i := range outs {
				if outs[i] == nil {
					outs[i] = c.recurrentSpare(i, cell, v.Dirs, d, n)
					spare = append(spare, outs[i].slot)
				}
			}
			s := c.step(kernel.Recurrent(v, d), outs, ins, as...)
			s.frees = append(s.frees, spare...)
			return s
		}
		if d.Half() {
			return c.inF32(n, d, func(outs, ins []*operand) *step {
				return emit(dtypeOf(abi.F32), append([]*operand{}, outs...), ins)
			})
		}
		ins := c.ins(n)
		if w, r := n.Ins[1].Const, n.Ins[2].Const; w != nil && r != nil {
			v.Turned = true
			ins[1], ins[2] = c.constant(c.turnedEach(w)), c.constant(c.turnedEach(r))
			c.note(n, "weights transposed at compile time")
		}
		emit(d, c.outs(n), ins)
		return nil
	}
}

// recurrentSpare is a slot for output i of a recurrent kernel that nobody asked for: Y, Y_h, Y_c and the working row.
func (c *compiler) recurrentSpare(i int, cell kernel.Cell, dirs int, d kernel.DT, n *ir.Node) *operand {
	h := n.Int("hidden_size")
	if i == 3 {
		return c.sized(c.newSlot(), "scratch", kernel.RecurrentScratch(cell, h)<<d.Shift, nil)
	}
	x, ok := n.Ins[0].Type.Shape.Static()
	if !ok || len(x) != 3 {
		return c.newSlot()
	}
	dims := []int64{int64(dirs), x[1], h}
	if i == 0 {
		dims = append([]int64{x[0]}, dims...)
	}
	e, ok := ir.Elements(dims)
	if !ok || e > maxPlanned>>d.Shift {
		return c.newSlot()
	}
	return c.sized(c.newSlot(), fmt.Sprintf("unused output %d", i), max(e<<d.Shift, 1), nil)
}

// turnedEach transposes the matrices [1:] of a constant of rank 3.
func (c *compiler) turnedEach(d *ir.Data) *ir.Data {
	if t, ok := c.turned[d]; ok {
		return t
	}
	dirs := d.Dims[0]
	size := int64(len(d.Bytes))
	if dirs > 0 {
		size /= dirs
	}
	out := &ir.Data{DType: d.DType, Dims: []int64{dirs, d.Dims[2], d.Dims[1]}}
	for i := int64(0); i < dirs; i++ {
		m := &ir.Data{DType: d.DType, Dims: d.Dims[1:], Bytes: d.Bytes[i*size : (i+1)*size]}
		out.Bytes = append(out.Bytes, transpose2(m)...)
	}
	c.turned[d] = out
	return out
}
