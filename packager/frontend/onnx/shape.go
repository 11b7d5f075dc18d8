package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

func shapeOps() map[string]handler {
	return map[string]handler{
		"Shape": func(o *op) []*ir.Value {
			return one(o.emit("Shape", ir.Attrs{"start": o.attrLong("start", 0), "end": o.attrLong("end", math.MaxInt64)}, o.need(0)))
		},
		"Size":    func(o *op) []*ir.Value { return one(o.emit("Size", nil, o.need(0))) },
		"Reshape": reshape,
		"Flatten": func(o *op) []*ir.Value {
			x, axis := o.need(0), o.attrInt("axis", 1)
			if r := rank(x); axis < 0 && r >= 0 {
				axis += int64(r)
			}
			return one(o.emit("Flatten", ir.Attrs{"axis": axis}, x))
		},
		"Squeeze":   squeeze,
		"Unsqueeze": unsqueeze,
		"Expand":    func(o *op) []*ir.Value { return one(o.emit("Expand", nil, o.need(0), o.i64(o.need(1)))) },
		"ConstantOfShape": func(o *op) []*ir.Value {
			v := o.attrTensor("value")
			if v == nil {
				v = ir.F32s([]int64{1}, []float32{0})
			}
			return one(o.emit("ConstantOfShape", ir.Attrs{"value": v}, o.i64(o.need(0))))
		},
		"Transpose": transpose,
		"Range":     func(o *op) []*ir.Value { return one(o.emit("Range", nil, o.need(0), o.need(1), o.need(2))) },
	}
}

// listIn gives what became an input at opset `since` and was an attribute before; nil when absent in both forms.
func (o *op) listIn(i int, attr string, since int64) *ir.Value {
	if o.ver >= since {
		return o.i64(o.in(i))
	}
	if !o.hasAttr(attr) {
		o.read[attr] = true
		return nil
	}
	return o.ints(o.attrInts(attr)...)
}

func reshape(o *op) []*ir.Value {
	o.ignore("consumed_inputs")
	shape := o.listIn(1, "shape", 5)
	if shape == nil {
		return o.fail("the shape is missing")
	}
	return one(o.emit("Reshape", ir.Attrs{"allowzero": o.attrInt("allowzero", 0)}, o.need(0), shape))
}

func squeeze(o *op) []*ir.Value {
	x, axes := o.need(0), o.listIn(1, "axes", 13)
	if axes == nil && x.Type.Shape.Ranked {
		// Static shapes say which dims are 1; with symbols the choice is left to run time.
		var ones []int64
		static := true
		for i, d := range x.Type.Shape.Dims {
			static = static && d.IsStatic()
			if d.IsStatic() && d.N == 1 {
				ones = append(ones, int64(i))
			}
		}
		if static {
			axes = o.ints(ones...)
		}
	}
	return one(o.emit("Squeeze", nil, x, axes))
}

func unsqueeze(o *op) []*ir.Value {
	x, axes := o.need(0), o.listIn(1, "axes", 13)
	if axes == nil {
		return o.fail("axes are missing")
	}
	return one(o.emit("Unsqueeze", nil, x, axes))
}

func transpose(o *op) []*ir.Value {
	x, perm := o.need(0), o.attrInts("perm")
	if r := rank(x); len(perm) == 0 && r >= 0 {
		for i := r - 1; i >= 0; i-- {
			perm = append(perm, int64(i))
		}
	}
	return one(o.emit("Transpose", ir.Attrs{"perm": append([]int64{}, perm...)}, x))
}
