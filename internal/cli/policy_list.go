package cli

import (
	"context"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyListCommand() Command {
	return Command{
		Name: "list", Summary: "list the rules of a policy", Args: "[PATH]", Max: 1,
		Long:     "Every rule with its severity, whether it denies or warns, and its title.",
		Examples: []string{"waybill policy list", "waybill policy list ./policy --output json"},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyList,
	}
}

type policyListJSON struct {
	Schema  string          `json:"schema"`
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Digest  artifact.Digest `json:"digest"`
	Rules   []rego.RuleInfo `json:"rules"`
}

func runPolicyList(ctx context.Context, c *Call) error {
	p, _, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	b := p.Bundle()
	if c.UI.JSON {
		return c.UI.PrintJSON(policyListJSON{schemaBase + "policy-list/v1", b.Meta().Name, b.Meta().Version, b.Digest(), p.Rules()})
	}
	rows := [][]string{{"rule", "severity", "level", "title"}}
	for _, r := range p.Rules() {
		level := r.Level
		if r.Mandatory {
			level = "always"
		}
		rows = append(rows, []string{r.ID, r.Severity, level, r.Title})
	}
	ui.Table(c.UI.Out, true, rows)
	c.UI.Say("%s of policy %s", ui.Plural(len(p.Rules()), "rule"), policyName(b))
	return nil
}
