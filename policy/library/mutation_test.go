package library_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// second names rules that stop nothing of their own, with what stops the same.
var second = map[string]string{"SIG-001": "SIG-002 counts the same signatures"}

// Rules are packages of their own, so a document that only one rule denies passes when that rule is gone. Every rule has
// such a fixture, or it stops nothing of its own; the exception is named with the rule that stops the same.
func TestEachRuleIsWhatStopsIt(t *testing.T) {
	p := compile(t)
	alone, all := map[string]int{}, map[string]int{}
	for _, c := range fixtures(t) {
		if c.Want != decision.Fail {
			continue
		}
		all[c.Rule]++
		d := c.decision
		if slices.Equal(decision.IDs(d.Violations), []string{c.Rule}) || slices.Equal(decision.IDs(d.Warnings), []string{c.Rule}) {
			alone[c.Rule]++
		}
	}
	for _, r := range p.Rules() {
		t.Logf("%d of %d denied documents would pass without %s", alone[r.ID], all[r.ID], r.ID)
		switch {
		case alone[r.ID] == 0 && second[r.ID] == "":
			t.Errorf("%s stops nothing of its own", r.ID)
		case alone[r.ID] > 0 && second[r.ID] != "":
			t.Errorf("%s: %s no longer holds", r.ID, second[r.ID])
		}
	}
}

// The rule really taken out: the attack succeeds.
func TestWithoutARuleTheAttackSucceeds(t *testing.T) {
	whole := compile(t)
	for _, r := range whole.Rules() {
		if r.ID == rego.SchemaRule || second[r.ID] != "" || !full() && !slices.Contains([]string{"FMT-001", "MET-002"}, r.ID) {
			continue
		}
		p := without(t, whole.Bundle(), r)
		cases, err := library.Cases(p.Bundle().Digest())
		if err != nil {
			t.Fatal(err)
		}
		freed := 0
		for _, c := range cases {
			if c.Rule == r.ID && c.Want == decision.Fail && p.Evaluate(context.Background(), c.Doc).Allow {
				freed++
			}
		}
		if freed == 0 {
			t.Errorf("without %s nothing passes that it stops", r.ID)
		}
	}
}

// without compiles a policy that lacks one rule.
func without(t *testing.T, b *bundle.Bundle, r rego.RuleInfo) *rego.Policy {
	t.Helper()
	gone := "rules/" + strings.ToLower(strings.ReplaceAll(r.ID, "-", "_")) + ".rego"
	files := fstest.MapFS{}
	for _, n := range b.Names() {
		if n != gone {
			c, _ := b.File(n)
			files[n] = &fstest.MapFile{Data: c}
		}
	}
	if len(files) != len(b.Names())-1 {
		t.Fatalf("no file %s", gone)
	}
	less, err := bundle.FromFS(files)
	if err != nil {
		t.Fatal(err)
	}
	if less.Digest() == b.Digest() {
		t.Fatal("taking a rule out leaves the digest")
	}
	p, err := rego.Compile(context.Background(), less)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
