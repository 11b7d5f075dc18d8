package codegen_test

import (
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
)

func TestStringOps(t *testing.T) {
	words := ir.Strs([]int64{2, 3}, []string{"a b", "", " ä\u3000ö\u00a0 x  ", "--a--b-", "-", "a\x1cb\nc"})
	for _, c := range []opCase{
		{name: "same", op: "StringConcat", ins: []*ir.Data{words, words}},
		{name: "broadcast", op: "StringConcat", ins: []*ir.Data{words, ir.Strs([]int64{2, 1}, []string{"é", ""})}},
		{name: "scalar", op: "StringConcat", ins: []*ir.Data{ir.Strs([]int64{}, []string{"x"}), words}},
		{name: "empty", op: "StringConcat", ins: []*ir.Data{ir.Strs([]int64{0}, nil), ir.Strs([]int64{1}, []string{"x"})}},
		{name: "blank", op: "StringSplit", outs: 2, ins: []*ir.Data{words}},
		{name: "blank limit", op: "StringSplit", outs: 2, at: ir.Attrs{"maxsplit": 1}, ins: []*ir.Data{words}},
		{name: "blank none", op: "StringSplit", outs: 2, at: ir.Attrs{"maxsplit": 0}, ins: []*ir.Data{words}},
		{name: "dash", op: "StringSplit", outs: 2, at: ir.Attrs{"delimiter": "-"}, ins: []*ir.Data{words}},
		{name: "dashes", op: "StringSplit", outs: 2, at: ir.Attrs{"delimiter": "--", "maxsplit": 1}, ins: []*ir.Data{words}},
		{name: "nothing", op: "StringSplit", outs: 2, ins: []*ir.Data{ir.Strs([]int64{2, 0}, nil)}},
		{name: "only blank", op: "StringSplit", outs: 2, ins: []*ir.Data{ir.Strs([]int64{1}, []string{" \t"})}},
		{name: "any", op: "RegexFullMatch", at: ir.Attrs{"pattern": ".*"}, ins: []*ir.Data{words}},
		{name: "part", op: "RegexFullMatch", at: ir.Attrs{"pattern": "a|a b|-"}, ins: []*ir.Data{words}},
		{name: "empty", op: "RegexFullMatch", at: ir.Attrs{"pattern": ""}, ins: []*ir.Data{words}},
		{name: "line", op: "RegexFullMatch", at: ir.Attrs{"pattern": `(?s)a.b$\n.`}, ins: []*ir.Data{words}},
	} {
		c.name = c.op + " " + c.name
		c.run(t)
	}
}
