package onnx

import "github.com/waybill-ml/waybill/packager/ir"

func bitOps() map[string]handler {
	t := map[string]handler{
		"BitwiseNot": unaryOp("BitwiseNot"),
		"BitShift": func(o *op) []*ir.Value {
			o.maxIns(2)
			return one(o.emit("BitShift", ir.Attrs{"direction": o.attrStr("direction", "")}, o.need(0), o.need(1)))
		},
		"BitCast": func(o *op) []*ir.Value {
			n := o.attrInt("to", 0)
			x, to := o.need(0), ir.DType(n)
			if n < 1 || n > 255 || !to.Valid() || to == ir.String || x.Type.DType == ir.String {
				return o.lacks("bits of %s as element type %d", x.Type.DType, n)
			}
			return one(o.emit("BitCast", ir.Attrs{"to": to}, x))
		},
		"CumSum":  cumulative("CumSum"),
		"CumProd": cumulative("CumProd"),
	}
	for _, name := range []string{"BitwiseAnd", "BitwiseOr", "BitwiseXor"} {
		t[name] = func(o *op) []*ir.Value {
			o.maxIns(2)
			return one(o.emit(name, nil, o.need(0), o.need(1)))
		}
	}
	return t
}

func cumulative(name string) handler {
	return func(o *op) []*ir.Value {
		a := ir.Attrs{"exclusive": o.attrInt("exclusive", 0), "reverse": o.attrInt("reverse", 0)}
		return one(o.emit(name, a, o.need(0), o.i64(o.need(1))))
	}
}
