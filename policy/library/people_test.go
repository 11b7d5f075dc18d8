package library_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/people"
)

// What package people says about approvals and exceptions is what the rules say, over every fixture: APP-001 passes
// exactly when enough people approve in every role, APP-005 exactly when no rejection stands, each reason why an approval
// does not count is the rule's, and an exception waives exactly where EXC-001 and EXC-002 find nothing.
func TestPeopleAgreeWithRules(t *testing.T) {
	p := compile(t)
	cases, err := library.Cases(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	n, yes, no := 0, 0, 0
	for _, c := range cases {
		if !strings.HasPrefix(c.Rule, "APP-") && !strings.HasPrefix(c.Rule, "EXC-") && !strings.HasPrefix(c.Rule, "DATA-003") {
			continue
		}
		in, err := input.Parse(c.Doc)
		if err != nil {
			t.Fatal(err)
		}
		d := p.Evaluate(context.Background(), c.Doc)
		n++
		tally := people.Count(in)
		filled := tally.People >= tally.Minimum
		for _, r := range tally.Roles {
			filled = filled && len(r.By) > 0
		}
		if filled {
			yes++
		} else {
			no++
		}
		if filled != (status(d, "APP-001") == decision.Pass) {
			t.Errorf("%s/%s: people %v, APP-001 %s", c.Rule, c.Name, tally, status(d, "APP-001"))
		}
		if (len(tally.Rejected) == 0) != (status(d, "APP-005") == decision.Pass) {
			t.Errorf("%s/%s: rejections %v, APP-005 %s", c.Rule, c.Name, tally.Rejected, status(d, "APP-005"))
		}
		if !filled {
			said := messages(d, "APP-001")
			for _, a := range tally.Approvals {
				for _, w := range a.Why {
					if !slices.ContainsFunc(said, func(m string) bool { return strings.HasSuffix(m, "as "+a.Role+" does not count: "+w) }) {
						t.Errorf("%s/%s: people say %q, APP-001 says %q", c.Rule, c.Name, w, said)
					}
				}
			}
		}
		waive := true
		for _, x := range in.Exceptions {
			waive = waive && people.Waives(in, x) == ""
		}
		rules := status(d, "EXC-001") == decision.Pass && status(d, "EXC-002") == decision.Pass
		if len(in.Exceptions) > 0 && waive != rules {
			t.Errorf("%s/%s: exceptions waive: %v, EXC-001 %s, EXC-002 %s", c.Rule, c.Name, waive, status(d, "EXC-001"), status(d, "EXC-002"))
		}
	}
	if n < 60 || yes < 20 || no < 10 {
		t.Errorf("only %d documents, %d with enough approvals, %d without", n, yes, no)
	}
}

func messages(d decision.Decision, id string) []string {
	var out []string
	for _, rs := range [][]decision.Result{d.Violations, d.Warnings} {
		for _, r := range rs {
			if r.ID == id {
				out = append(out, r.Message)
			}
		}
	}
	return out
}

// An exception that is for another environment, too long, the author's own, without a reason or by the wrong role leaves
// the denial standing; the sound one lifts it, and shows.
func TestExceptionsThatHaveNoEffect(t *testing.T) {
	p := compile(t)
	doc, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	evaluate := func(change func(*input.Input, *input.Exception)) decision.Decision {
		t.Helper()
		in, err := input.Parse(doc)
		if err != nil {
			t.Fatal(err)
		}
		in.Model.Status = "retired" // DECOM-001
		in.Environment.Exceptions = input.ExceptionDemand{Roles: []string{"ml-lead"}, Rules: []string{"DECOM-001", "RISK-001"}, MaxDays: 30}
		x := input.Exception{Rule: "DECOM-001", Reason: "agreed", Ticket: "T-1", At: in.Context.Time.AddDate(0, 0, -1), Expires: in.Context.Time.AddDate(0, 0, 7), Environment: "prod",
			Bundle: in.Artifact.Digest, Roles: []string{"ml-lead"}, Signer: input.Signer{KeyID: "k", Name: "ada", Role: "approver", Kind: "key"}}
		change(&in, &x)
		in.Exceptions = []input.Exception{x}
		in.Normalize()
		b, err := in.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		return p.Evaluate(context.Background(), b)
	}
	if d := evaluate(func(*input.Input, *input.Exception) {}); !d.Allow || status(d, "DECOM-001") != decision.Excepted || len(d.Exceptions) == 0 {
		t.Fatalf("a sound exception: allow %v, DECOM-001 %s, %v", d.Allow, status(d, "DECOM-001"), d.Violations)
	}
	for name, change := range map[string]func(*input.Input, *input.Exception){
		"another environment": func(_ *input.Input, x *input.Exception) { x.Environment = "staging" },
		"too long":            func(in *input.Input, x *input.Exception) { x.Expires = x.At.AddDate(0, 0, 31) },
		"the author's name":   func(_ *input.Input, x *input.Exception) { x.Signer.Name = "Release Team" },
		"a named author":      func(in *input.Input, x *input.Exception) { in.Model.Authors = []string{"Ada <ada@example.com>"} },
		"the author's mail": func(in *input.Input, x *input.Exception) {
			in.Model.Authors = []string{"A. Example <ada@example.com>"}
			x.Signer.Kind, x.Signer.Issuer, x.Signer.Subject = "identity", "https://id.example.com", "ADA@example.com"
		},
		"no reason":        func(_ *input.Input, x *input.Exception) { x.Reason = " " },
		"another role":     func(_ *input.Input, x *input.Exception) { x.Roles = []string{"product-owner"} },
		"not to be waived": func(in *input.Input, _ *input.Exception) { in.Environment.Exceptions.Rules = []string{"AGE-001"} },
		"ended":            func(in *input.Input, x *input.Exception) { x.Expires = in.Context.Time },
		"mandatory rule":   func(in *input.Input, x *input.Exception) { in.Model.Risk, x.Rule = "prohibited", "RISK-001" },
	} {
		if d := evaluate(change); d.Allow || len(d.Exceptions) != 0 {
			t.Errorf("%s: allow %v, exceptions %v", name, d.Allow, d.Exceptions)
		}
	}
}
