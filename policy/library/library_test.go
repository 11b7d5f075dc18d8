package library_test

import (
	"context"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

func compile(t testing.TB) *rego.Policy {
	t.Helper()
	b, err := library.Default()
	if err != nil {
		t.Fatal(err)
	}
	p, err := rego.Compile(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every rule has a fixture that it must deny and one that it must pass, and behaves so.
func TestFixtures(t *testing.T) {
	p := compile(t)
	cases, err := library.Cases(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	deny, pass := map[string]int{}, map[string]int{}
	for _, c := range cases {
		t.Run(c.Rule+"/"+string(c.Want)+"/"+c.Name, func(t *testing.T) {
			if err := c.Check(p.Evaluate(context.Background(), c.Doc)); err != nil {
				t.Error(err)
			}
		})
		switch c.Want {
		case decision.Pass:
			pass[c.Rule]++
		case decision.Fail:
			deny[c.Rule]++
		}
	}
	for _, r := range p.Rules() {
		if deny[r.ID] == 0 || pass[r.ID] == 0 {
			t.Errorf("rule %s: %d deny and %d pass fixtures", r.ID, deny[r.ID], pass[r.ID])
		}
		delete(deny, r.ID)
	}
	for id := range deny {
		t.Errorf("fixtures for %s, which is no rule", id)
	}
}
