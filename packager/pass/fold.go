package pass

import (
	"context"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// maxGrown is how many bytes a folded constant may have when it is larger than what it is made of.
const maxGrown = 64 << 10

// fold makes types as precise as inference can, and turns values into constants where they are known: sizes that
// follow from static shapes, and operators whose inputs are constants. Float constants are moved, never computed.
func fold(ctx context.Context, g *ir.Graph) (bool, error) {
	f := &folder{ctx: ctx, facts: ir.NewFacts()}
	if err := f.region(g.Body); err != nil {
		return false, err
	}
	if f.changed {
		ir.SetCaptures(g.Body)
	}
	return f.changed, nil
}

type folder struct {
	ctx     context.Context
	facts   *ir.Facts
	changed bool
}

func (f *folder) region(r *ir.Region) error {
	kept := r.Nodes[:0:0]
	for _, n := range r.Nodes {
		for _, sub := range n.Regions {
			if err := f.region(sub); err != nil {
				return err
			}
		}
		types, err := ir.InferWith(n, f.facts)
		if err != nil {
			return ir.NodeError(n, err)
		}
		for i, o := range n.Outs {
			if o != nil && !o.Type.Equal(types[i]) {
				if t := refine(o.Type, types[i]); !t.Equal(o.Type) {
					o.Type, f.changed = t, true
				}
			}
		}
		if f.fromFacts(n) || f.fromConstants(n) {
			f.changed = true
			continue
		}
		kept = append(kept, n)
	}
	r.Nodes = kept
	return nil
}

// refine combines what was known with what is inferred now: the more precise of each dim.
func refine(old, now ir.Type) ir.Type {
	if old.Kind != ir.Tensor || now.Kind != ir.Tensor || !old.Shape.Ranked {
		return now
	}
	if !now.Shape.Ranked || len(now.Shape.Dims) != len(old.Shape.Dims) {
		return old
	}
	s := now.Shape.Clone()
	for i, d := range s.Dims {
		if o := old.Shape.Dims[i]; d.Any || !d.IsStatic() && o.IsStatic() {
			s.Dims[i] = o
		}
	}
	return ir.TensorOf(now.DType, s)
}

// constant turns an output into a constant; the node that made it goes away.
func constant(o *ir.Value, d *ir.Data) {
	o.Const, o.Type = d, d.Type()
}

// fromFacts folds integer results whose elements shape inference knows, like Shape of a static shape.
func (f *folder) fromFacts(n *ir.Node) bool {
	var data []*ir.Data
	for _, o := range n.Outs {
		if o == nil {
			data = append(data, nil)
			continue
		}
		v, ok := f.facts.Known(o)
		if !ok || o.Const != nil || o.Type.Kind != ir.Tensor || o.Type.DType != ir.I64 && o.Type.DType != ir.I32 {
			return false
		}
		dims, ok := o.Type.Shape.Static()
		if !ok || len(dims) > 1 || len(dims) == 1 && dims[0] != int64(len(v)) || len(dims) == 0 && len(v) != 1 {
			return false
		}
		data = append(data, ir.IntData(o.Type.DType, dims, v))
	}
	if len(data) == 0 {
		return false
	}
	for i, o := range n.Outs {
		if o != nil {
			constant(o, data[i])
		}
	}
	return true
}

// moves lists the operators that only move elements, which are folded for floats too.
func moves(op string) bool {
	switch op {
	case "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Gather", "Expand", "ConstantOfShape", "Transpose", "Split", "Tile",
		"Identity", "Where":
		return true
	}
	return false
}

func exact(d ir.DType) bool { return d == ir.Bool || d == ir.String || d.IsInt() && d.Bits() >= 8 }

// fromConstants evaluates a node whose inputs are all constants.
func (f *folder) fromConstants(n *ir.Node) bool {
	if len(n.Regions) > 0 || len(n.Outs) == 0 {
		return false
	}
	var ins []*ir.Data
	size := 0
	for _, v := range n.Ins {
		if v == nil {
			ins = append(ins, nil)
			continue
		}
		if v.Const == nil || !exact(v.Type.DType) && !moves(n.Op) {
			return false
		}
		ins = append(ins, v.Const)
		size += dataSize(v.Const)
	}
	for _, o := range n.Outs {
		if o == nil {
			continue
		}
		if o.Type.Kind != ir.Tensor || !exact(o.Type.DType) && !moves(n.Op) {
			return false
		}
		if dims, ok := o.Type.Shape.Static(); ok {
			if c, ok := ir.Elements(dims); !ok || c > int64(max(size, maxGrown)) {
				return false
			}
		}
	}
	outs, err := interp.Eval(f.ctx, n, ins)
	if err != nil {
		return false // it fails when it runs, with the same error
	}
	for i, o := range n.Outs {
		if o != nil && (i >= len(outs) || dataSize(outs[i]) > max(size, maxGrown)) {
			return false
		}
	}
	for i, o := range n.Outs {
		if o != nil {
			constant(o, outs[i])
		}
	}
	return true
}

func dataSize(d *ir.Data) int {
	n := len(d.Bytes)
	for _, s := range d.Strings {
		n += len(s) + 4
	}
	return n
}
