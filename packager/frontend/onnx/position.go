package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

// Operators that pick and place elements by computed positions.

func positionOps() map[string]handler {
	return map[string]handler{
		"Trilu": func(o *op) []*ir.Value {
			return one(o.emit("Trilu", ir.Attrs{"upper": o.attrInt("upper", 1)}, o.need(0), o.i64(o.in(1))))
		},
		"GatherElements": func(o *op) []*ir.Value {
			return one(o.emit("GatherElements", ir.Attrs{"axis": o.attrInt("axis", 0)}, o.need(0), o.i64(o.need(1))))
		},
		"GatherND": func(o *op) []*ir.Value {
			return one(o.emit("GatherND", ir.Attrs{"batch_dims": o.attrInt("batch_dims", 0)}, o.need(0), o.i64(o.need(1))))
		},
		"Scatter": scatter, "ScatterElements": scatter, // the first became the second at opset 11
		"ScatterND": func(o *op) []*ir.Value {
			return one(o.emit("ScatterND", ir.Attrs{"reduction": o.attrStr("reduction", "none")}, o.need(0), o.i64(o.need(1)), o.need(2)))
		},
		"NonZero":  func(o *op) []*ir.Value { return one(o.emit("NonZero", nil, o.need(0))) },
		"Compress": compress,
		"Unique":   unique,
		"EyeLike": func(o *op) []*ir.Value {
			x := o.need(0)
			d := o.attrInt("dtype", int64(x.Type.DType))
			if d < 1 || d > 255 || !ir.DType(d).Valid() {
				return o.lacks("dtype %d", d)
			}
			return one(o.emit("EyeLike", ir.Attrs{"k": o.attrInt("k", 0), "dtype": ir.DType(d)}, x))
		},
		"ReverseSequence": func(o *op) []*ir.Value {
			return one(o.emit("ReverseSequence", ir.Attrs{"batch_axis": o.attrInt("batch_axis", 1), "time_axis": o.attrInt("time_axis", 0)},
				o.need(0), o.i64(o.need(1))))
		},
	}
}

func scatter(o *op) []*ir.Value {
	return one(o.emit("ScatterElements", ir.Attrs{"axis": o.attrInt("axis", 0), "reduction": o.attrStr("reduction", "none")},
		o.need(0), o.i64(o.need(1)), o.need(2)))
}

// compress gathers by the positions where the condition holds.
func compress(o *op) []*ir.Value {
	x, cond := o.need(0), o.need(1)
	at := o.emit("Reshape", nil, o.emit("NonZero", nil, cond), o.ints(-1))
	if !o.hasAttr("axis") {
		o.ignore("axis")
		return one(o.emit("Gather", ir.Attrs{"axis": 0}, o.flat(x), at))
	}
	return one(o.emit("Gather", ir.Attrs{"axis": o.attrInt("axis", 0)}, x, at))
}

// flat is x as one row. Reshape to -1 alone also serves empty tensors.
func (o *op) flat(x *ir.Value) *ir.Value { return o.emit("Reshape", nil, x, o.ints(-1)) }

func unique(o *op) []*ir.Value {
	x, axis := o.need(0), int64(0)
	rows := x
	if o.hasAttr("axis") {
		r := o.needRank(x)
		if o.err != nil {
			return nil
		}
		a, err := ir.Axis(o.attrInt("axis", 0), r)
		if err != nil {
			return o.fail("%w", err)
		}
		axis = int64(a)
		perm := []int64{axis}
		for i := 0; i < r; i++ {
			if i != a {
				perm = append(perm, int64(i))
			}
		}
		if a != 0 {
			rows = o.emit("Transpose", ir.Attrs{"perm": perm}, x)
		}
	} else {
		x = o.flat(x)
		rows = x
	}
	u := o.emitN("UniqueRows", ir.Attrs{"sorted": o.attrInt("sorted", 1)}, 3, rows)
	y := o.emit("Gather", ir.Attrs{"axis": axis}, x, u[0])
	return []*ir.Value{y, u[0], u[1], u[2]}
}
