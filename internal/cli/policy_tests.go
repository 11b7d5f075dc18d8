package cli

import (
	"context"
	"fmt"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyTestCommand() Command {
	return Command{
		Name: "test", Summary: "run a policy's tests", Args: "[PATH]", Max: 1,
		Long: `For the builtin policy, every rule's fixtures: documents that it must deny, and documents that it must pass. For a
folder, the test_ rules of its *_test.rego files, as OPA runs them, with the capabilities of the gate.`,
		Examples: []string{"waybill policy test", "waybill policy test ./policy"},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyTest,
	}
}

type policyTestJSON struct {
	Schema string           `json:"schema"`
	Passed int              `json:"passed"`
	Failed int              `json:"failed"`
	Cases  []policyTestCase `json:"cases"`
}

type policyTestCase struct {
	Name   string `json:"name"`
	Status string `json:"status"` // passed, failed
	Detail string `json:"detail"`
}

func runPolicyTest(ctx context.Context, c *Call) error {
	p, fsys, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	out := policyTestJSON{Schema: schemaBase + "policy-test/v1", Cases: []policyTestCase{}}
	add := func(name, detail string) {
		t := policyTestCase{Name: name, Status: "passed", Detail: detail}
		if detail != "" {
			t.Status = "failed"
			out.Failed++
		} else {
			out.Passed++
		}
		out.Cases = append(out.Cases, t)
	}
	if c.Arg(0) == "" {
		cases, err := library.Cases(p.Bundle().Digest())
		if err != nil {
			return err
		}
		for _, x := range cases {
			kind := "must deny"
			if x.Want == decision.Pass {
				kind = "must pass"
			}
			detail := ""
			if err := x.Check(p.Evaluate(ctx, x.Doc)); err != nil {
				detail = err.Error()
			}
			add(fmt.Sprintf("%s %s: %s", x.Rule, kind, x.Name), detail)
		}
	} else {
		if fsys == nil {
			return diag.New(diag.Usage, "policy test: %s is a packed policy; tests stand beside its source", c.Arg(0))
		}
		rs, err := rego.RunTests(ctx, fsys, rego.DefaultTimeout)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "policy test %s", c.Arg(0))
		}
		for _, r := range rs {
			detail := r.Reason
			if detail != "" {
				detail = fmt.Sprintf("%s:%d: %s", r.File, r.Line, r.Reason)
			}
			add(r.Name, detail)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(out.Cases) == 0 {
		return diag.New(diag.Failure, "policy test: %s has no tests", c.Arg(0)).Hint("write test_ rules in a file ending in _test.rego")
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		for _, t := range out.Cases {
			if t.Status == "failed" {
				c.UI.Data("%s  %s", c.UI.Out.Red("failed"), t.Name)
				c.UI.Data("        %s", t.Detail)
			}
		}
		c.UI.Data("%d passed, %d failed", out.Passed, out.Failed)
	}
	if out.Failed > 0 {
		return diag.New(diag.Failure, "policy test: %d of %d failed", out.Failed, len(out.Cases))
	}
	return nil
}
