package rego_test

import (
	"context"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

func TestExplain(t *testing.T) {
	src := rule("X-001", `default pass := false

pass if {
	input.artifact.size > 10
	every l in input.artifact.layers {
		fine(l)
	}
	input.nothing.here == 1
	input.artifact.digest != ""
}

pass if input.artifact.size < 0

fine(l) if {
	l.digestVerified == true
	l.role != "interface"
}

fail contains {"msg": "why"} if not pass`)
	p, err := compile(t, []string{"a.rego", src})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.Explain(context.Background(), "X-001", doc)
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Clauses) != 3 || !x.Clauses[2].Helper || x.Clauses[2].Name != "fine(l)" {
		t.Fatalf("%+v", x.Clauses)
	}
	want := []string{
		"holds: input.artifact.size is more than 10",
		"does not hold: for every l of input.artifact.layers:",
		"does not hold: fine(l)",
		"not reached: input.nothing.here is 1",
		"not reached: input.artifact.digest is not \"\"",
	}
	var got []string
	for _, c := range x.Clauses[0].Conditions {
		got = append(got, c.Outcome+": "+c.Plain)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if c := x.Clauses[2].Conditions[1]; c.Outcome != rego.HoldsNot || len(c.Values) == 0 || c.Values[0].Value != `"interface"` {
		t.Errorf("%+v", c)
	}
	if c := x.Clauses[1].Conditions[0]; c.Outcome != rego.HoldsNot || x.Clauses[1].Holds {
		t.Errorf("%+v", c)
	}
}

// TestExplainAgrees goes through fixtures of builtin rules, every fifth kind: a rule that passes has a clause that holds, and one
// that is denied has none.
func TestExplainAgrees(t *testing.T) {
	b, err := library.Default()
	if err != nil {
		t.Fatal(err)
	}
	p, err := rego.Compile(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := library.Cases(b.Digest())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, c := range cases {
		if seen[c.Rule+string(c.Want)]++; seen[c.Rule+string(c.Want)] > 1 || len(seen)%5 != 0 {
			continue
		}
		x, err := p.Explain(context.Background(), c.Rule, c.Doc)
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Clauses) == 0 {
			continue // the facts were refused
		}
		holds := false
		for _, k := range x.Clauses {
			holds = holds || !k.Helper && k.Name == "pass" && k.Holds
		}
		if x.Status == decision.Pass && !holds {
			t.Errorf("%s %q passes and no clause holds: %+v", c.Rule, c.Name, x.Clauses)
		}
		if x.Status == decision.Fail && holds {
			t.Errorf("%s %q fails and a clause holds: %+v", c.Rule, c.Name, x.Clauses)
		}
	}
	if len(seen) < 60 {
		t.Errorf("only %d kinds of fixtures", len(seen))
	}
}
