package onnx

import (
	"regexp"

	"github.com/waybill-ml/waybill/packager/ir"
)

func stringOps() map[string]handler {
	return map[string]handler{
		"StringConcat": func(o *op) []*ir.Value { return one(o.emit("StringConcat", nil, o.need(0), o.need(1))) },
		"StringSplit": func(o *op) []*ir.Value {
			limit := int64(-1)
			if o.hasAttr("maxsplit") {
				limit = o.attrInt("maxsplit", -1)
			}
			return o.emitN("StringSplit", ir.Attrs{"delimiter": o.attrStr("delimiter", ""), "maxsplit": limit}, 2, o.need(0))
		},
		"RegexFullMatch": func(o *op) []*ir.Value {
			p := o.attrStr("pattern", "")
			if _, err := regexp.Compile(p); err != nil {
				return o.lacks("the expression %q (RE2 syntax): %v", p, err)
			}
			return one(o.emit("RegexFullMatch", ir.Attrs{"pattern": p}, o.need(0)))
		},
	}
}

// castText converts between texts and numbers; types below 8 bits and floats of 8 bits or fewer go through f32 and i32.
func (o *op) castText(x *ir.Value, to ir.DType, saturate int64, mode string) *ir.Value {
	if to == ir.String {
		switch d := x.Type.DType; {
		case d.IsSmallFloat():
			x = o.cast(x, ir.F32)
		case d.Bits() < 8:
			x = o.cast(x, ir.I32)
		}
		return o.emit("NumberToText", nil, x)
	}
	switch {
	case to.IsSmallFloat():
		return o.emit("CastSmall", ir.Attrs{"to": to, "saturate": saturate, "round_mode": mode}, o.emit("TextToNumber", ir.Attrs{"to": ir.F32}, x))
	case to.Bits() < 8:
		return o.cast(o.emit("TextToNumber", ir.Attrs{"to": ir.I32}, x), to)
	}
	return o.emit("TextToNumber", ir.Attrs{"to": to}, x)
}
