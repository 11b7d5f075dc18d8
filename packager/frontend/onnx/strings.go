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
