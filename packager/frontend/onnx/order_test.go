package onnx

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
)

func modelOf(nodes ...nodeProto) *modelProto {
	float := &typeProto{kind: "tensor", elemType: 1, hasShape: true, dims: []dimProto{{value: 2, hasValue: true}}}
	yes := &typeProto{kind: "tensor", elemType: 9, hasShape: true}
	return &modelProto{opsets: []opsetProto{{"", 17}}, graph: &graphProto{name: "g",
		inputs: []valueInfo{{"x", float}, {"c", yes}}, outputs: []valueInfo{{"y", float}}, nodes: nodes}}
}

func TestNodesOutOfOrder(t *testing.T) {
	// The body of the If reads t, which the last node of the file makes.
	branch := func(op string) *graphProto {
		return &graphProto{name: op, outputs: []valueInfo{{op, nil}}, nodes: []nodeProto{{ins: []string{"t"}, outs: []string{op}, op: op}}}
	}
	g, err := importModel(modelOf(
		nodeProto{ins: []string{"z"}, outs: []string{"y"}, op: "Exp"},
		nodeProto{ins: []string{"x"}, outs: []string{"a"}, op: "Sin"},
		nodeProto{ins: []string{"c"}, outs: []string{"z"}, op: "If", attrs: []attrProto{
			{name: "then_branch", typ: attrGraph, g: branch("Neg")}, {name: "else_branch", typ: attrGraph, g: branch("Abs")}}},
		nodeProto{ins: []string{"a"}, outs: []string{"t"}, op: "Tanh"},
	), "")
	if err != nil {
		t.Fatal(err)
	}
	var ops []string
	for _, n := range g.Body.Nodes {
		ops = append(ops, n.Op)
	}
	if got := strings.Join(ops, " "); got != "Sin Tanh If Exp" {
		t.Errorf("order %s", got)
	}
	if err := ir.Verify(g); err != nil {
		t.Error(err)
	}
}

func TestNodesInOrderStay(t *testing.T) {
	nodes := []nodeProto{{ins: []string{"x"}, outs: []string{"b"}}, {ins: []string{"x"}, outs: []string{"a"}}, {ins: []string{"a", "b"}, outs: []string{"y"}}}
	for i, n := range ordered(nodes, func(s string) bool { return s == "x" }) {
		if n != &nodes[i] {
			t.Errorf("node %d moved", i)
		}
	}
}

func TestCycle(t *testing.T) {
	for _, m := range []*modelProto{
		modelOf(nodeProto{ins: []string{"b"}, outs: []string{"a"}, op: "Neg"}, nodeProto{ins: []string{"a"}, outs: []string{"b"}, op: "Neg"},
			nodeProto{ins: []string{"b"}, outs: []string{"y"}, op: "Neg"}),
		modelOf(nodeProto{ins: []string{"y"}, outs: []string{"y"}, op: "Neg"}),
		modelOf(nodeProto{ins: []string{"nowhere"}, outs: []string{"y"}, op: "Neg"}),
	} {
		if _, err := importModel(m, ""); err == nil || !strings.Contains(err.Error(), "is not computed before it") {
			t.Errorf("%v", err)
		}
	}
}
