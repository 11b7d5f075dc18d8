package onnx

import (
	"errors"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
)

// called is a model that calls function f of domain d once, with attribute slope.
func called(fs ...functionProto) *modelProto {
	float := &typeProto{kind: "tensor", elemType: 1, hasShape: true, dims: []dimProto{{value: 2, hasValue: true}}}
	return &modelProto{
		opsets:    []opsetProto{{"", 17}, {"d", 1}},
		functions: fs,
		graph: &graphProto{name: "g", inputs: []valueInfo{{"x", float}}, outputs: []valueInfo{{"y", float}},
			nodes: []nodeProto{{ins: []string{"x"}, outs: []string{"y"}, op: "f", domain: "d", name: "call",
				attrs: []attrProto{{name: "slope", typ: attrFloat, f: 0.25}}}}},
	}
}

func TestInline(t *testing.T) {
	f := functionProto{name: "f", domain: "d", ins: []string{"a", "unused"}, outs: []string{"b"}, opsets: []opsetProto{{"", 17}},
		nodes: []nodeProto{
			{ins: []string{"a"}, outs: []string{"x"}, op: "LeakyRelu", attrs: []attrProto{{name: "alpha", ref: "slope", typ: attrFloat}}},
			{ins: []string{"x", "", "unused"}, outs: []string{"b"}, op: "Clip"},
		}}
	g, err := importModel(called(f), "")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, n := range g.Body.Nodes {
		for _, v := range n.Ins {
			found = found || v != nil && v.Const != nil && v.Const.DType == 1 && v.Const.Len() == 1 && v.Const.Float(0) == 0.25
		}
		for _, a := range n.Attrs {
			found = found || a.Float == 0.25
		}
	}
	if !found {
		t.Error("the call's attribute did not reach the function's node")
	}
}

func TestInlineRecursion(t *testing.T) {
	f := functionProto{name: "f", domain: "d", ins: []string{"a"}, outs: []string{"b"}, opsets: []opsetProto{{"d", 1}},
		nodes: []nodeProto{{ins: []string{"a"}, outs: []string{"b"}, op: "f", domain: "d"}}}
	_, err := importModel(called(f), "")
	var u *frontend.UnsupportedError
	if !errors.As(err, &u) {
		t.Errorf("a function that calls itself: %v", err)
	}
}
