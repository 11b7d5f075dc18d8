package library_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/people"
	"github.com/waybill-ml/waybill/policy/rego"
)

// What package people says about approvals and exceptions is what the rules say, over every fixture: APP-001 passes
// exactly when enough people approve in every role, APP-005 exactly when no rejection stands, each reason why an approval
// does not count is the rule's, and an exception waives exactly where EXC-001 and EXC-002 find nothing.
func TestPeopleAgreeWithRules(t *testing.T) {
	p := compile(t)
	cases := cases(t)
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

// Each check on approvals taken out of the policy in turn: the attack that it stops then passes.
func TestWithoutAPeopleCheckTheAttackSucceeds(t *testing.T) {
	full := compile(t)
	ada := input.Signer{KeyID: "a1", Name: "Ada <ada@example.com>", Role: "approver", Kind: "key"}
	attacks := []struct {
		name, out, in string // of people.rego: text taken out, and what stands there instead
		change        func(in *input.Input)
	}{
		{"author", "\tnot is_author(a.signer)\n", "", func(in *input.Input) { in.Approvals[0].Signer.Name = "release team" }},
		{"named author", "is_author(s) if count(who(s) & author_marks) > 0\n", "", func(in *input.Input) { in.Model.Authors = []string{"ada@example.com"} }},
		{"environment", "for_here(x) if x.environment == input.environment.name", "for_here(x) if x.environment != \"\"", func(in *input.Input) { in.Approvals[0].Environment = "staging" }},
		{"role", "\ta.granted == true\n", "", func(in *input.Input) { in.Approvals[0].Granted = false }},
		{"in force", "\tin_force(a)\n", "", func(in *input.Input) { in.Approvals[0].Expires = in.Context.Time }},
		{"taken back", "\tnot taken_back(a)\n", "", func(in *input.Input) {
			no := in.Approvals[0]
			no.Rejected, no.At, no.Expires = true, no.At.Add(1e9), in.Context.Time
			in.Approvals = append(in.Approvals, no)
		}},
		{"one name", "same_person(a, b) if count(who(a) & who(b)) > 0\n", "", func(in *input.Input) {
			in.Environment.Approvals.Minimum = 2
			again := in.Approvals[0]
			again.Bundle, again.Signer.KeyID, again.Signer.Name = in.Champion.Digest, "a2", "ada@EXAMPLE.com"
			in.Approvals = append(in.Approvals, again)
		}},
		{"one key", "same_person(a, b) if a.keyId == b.keyId\n", "", func(in *input.Input) {
			in.Environment.Approvals.Minimum = 2
			again := in.Approvals[0]
			again.Bundle, again.Signer.Name = in.Champion.Digest, "somebody else"
			in.Approvals = append(in.Approvals, again)
		}},
		{"rejection", "\tr.rejected == true\n\tr.granted == true\n", "\tr.rejected == true\n\tr.granted == false\n", func(in *input.Input) {
			no := in.Approvals[0]
			no.Rejected, no.Role, no.Signer = true, "risk", input.Signer{KeyID: "b1", Name: "Bob", Role: "approver", Kind: "key"}
			in.Approvals = append(in.Approvals, no)
		}},
		{"the same person ends it", "\ta.role == r.role\n\tsame_person(a.signer, r.signer)\n", "\tr.role == a.role\n", func(in *input.Input) {
			no := in.Approvals[0]
			no.Rejected, no.At, no.Signer = true, no.At.Add(-1e9), input.Signer{KeyID: "b1", Name: "Bob", Role: "approver", Kind: "key"}
			in.Approvals = append(in.Approvals, no)
		}},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			evaluate := func(p *rego.Policy, change func(*input.Input)) decision.Decision {
				t.Helper()
				doc, err := library.Base(p.Bundle().Digest())
				if err != nil {
					t.Fatal(err)
				}
				in, err := input.Parse(doc)
				if err != nil {
					t.Fatal(err)
				}
				in.Environment.Profile, in.Environment.Approvals = "baseline", input.ApprovalDemand{Minimum: 1, Roles: []string{"ml-lead"}}
				in.Approvals = in.Approvals[:1]
				in.Approvals[0].Signer = ada
				change(&in)
				in.Normalize()
				b, err := in.Canonical()
				if err != nil {
					t.Fatal(err)
				}
				return p.Evaluate(context.Background(), b)
			}
			if d := evaluate(full, func(*input.Input) {}); !d.Allow {
				t.Fatalf("without the attack: %v %s", d.Violations, d.Error)
			}
			if d := evaluate(full, a.change); d.Allow {
				t.Fatal("the attack passes the policy as it is")
			}
			files := fstest.MapFS{}
			for _, n := range full.Bundle().Names() {
				c, _ := full.Bundle().File(n)
				if n == "people.rego" {
					if !strings.Contains(string(c), a.out) {
						t.Fatalf("people.rego has no %q", a.out)
					}
					c = []byte(strings.ReplaceAll(string(c), a.out, a.in))
				}
				files[n] = &fstest.MapFile{Data: c}
			}
			b, err := bundle.FromFS(files)
			if err != nil {
				t.Fatal(err)
			}
			p, err := rego.Compile(context.Background(), b)
			if err != nil {
				t.Fatal(err)
			}
			if d := evaluate(p, a.change); !d.Allow {
				t.Errorf("without the check the attack fails: %v %s", d.Violations, d.Error)
			}
		})
	}
}
