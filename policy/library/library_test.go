package library_test

import (
	"context"
	"sync"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// whole is the default policy, compiled once for all tests, and its fixtures. They only read them.
var whole = sync.OnceValues(func() (*rego.Policy, error) {
	b, err := library.Default()
	if err != nil {
		return nil, err
	}
	return rego.Compile(context.Background(), b)
})

var allCases = sync.OnceValues(func() ([]library.Case, error) {
	p, err := whole()
	if err != nil {
		return nil, err
	}
	return library.Cases(p.Bundle().Digest())
})

func compile(t testing.TB) *rego.Policy {
	t.Helper()
	p, err := whole()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func cases(t testing.TB) []library.Case {
	t.Helper()
	out, err := allCases()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// evaluated is a fixture and what the default policy says about it.
type evaluated struct {
	library.Case
	decision decision.Decision
}

// outcomes evaluates every fixture once for all tests. They only read it.
var outcomes = sync.OnceValues(func() ([]evaluated, error) {
	p, err := whole()
	if err != nil {
		return nil, err
	}
	cases, err := allCases()
	if err != nil {
		return nil, err
	}
	var out []evaluated
	for _, c := range cases {
		out = append(out, evaluated{c, p.Evaluate(context.Background(), c.Doc)})
	}
	return out, nil
})

func fixtures(t testing.TB) []evaluated {
	t.Helper()
	out, err := outcomes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Every rule has a fixture that it must deny and one that it must pass, and behaves so.
func TestFixtures(t *testing.T) {
	p := compile(t)
	deny, pass := map[string]int{}, map[string]int{}
	for _, c := range fixtures(t) {
		t.Run(c.Rule+"/"+string(c.Want)+"/"+c.Name, func(t *testing.T) {
			if err := c.Check(c.decision); err != nil {
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
