package cli

import (
	"context"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyListCommand() Command {
	return Command{
		Name: "list", Summary: "list the rules of a policy", Args: "[PATH]", Max: 1,
		Long: `Every rule with its category, severity, whether it denies or warns, in each profile of the policy, and its title.
"always" is a rule that no profile, environment or exception lowers.`,
		Examples: []string{"waybill policy list", "waybill policy list --profile edge --category security", "waybill policy list ./policy --output json"},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "profile", Usage: "only the rules that this `PROFILE` does not turn off, with their level in it"},
			&ucli.StringFlag{Name: "category", Usage: "only the rules of this `CATEGORY`"},
		},
		Exits: []diag.Code{diag.NotFound}, Run: runPolicyList,
	}
}

type policyListJSON struct {
	Schema   string          `json:"schema"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Digest   artifact.Digest `json:"digest"`
	Profiles []string        `json:"profiles"`
	Rules    []rego.RuleInfo `json:"rules"`
}

func runPolicyList(ctx context.Context, c *Call) error {
	p, _, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	profiles, profile, category := p.Profiles(), c.String("profile"), c.String("category")
	if profile != "" && !slices.Contains(profiles, profile) {
		return unknownName("profile", profile, profiles)
	}
	if category != "" && !slices.Contains(rego.Categories(), category) {
		return unknownName("category", category, rego.Categories())
	}
	rules := slices.DeleteFunc(p.Rules(), func(r rego.RuleInfo) bool {
		return category != "" && r.Category != category || profile != "" && levelIn(r, profile) == "off"
	})
	b := p.Bundle()
	if c.UI.JSON {
		return c.UI.PrintJSON(policyListJSON{schemaBase + "policy-list/v1", b.Meta().Name, b.Meta().Version, b.Digest(), profiles, rules})
	}
	head := []string{"rule", "category", "severity"}
	switch {
	case profile != "":
		head = append(head, profile)
	case len(profiles) > 0:
		head = append(head, profiles...)
	default:
		head = append(head, "level")
	}
	rows := [][]string{append(head, "title")}
	for _, r := range rules {
		row := []string{r.ID, r.Category, r.Severity}
		switch {
		case profile != "":
			row = append(row, levelIn(r, profile))
		case len(profiles) > 0:
			for _, n := range profiles {
				row = append(row, levelIn(r, n))
			}
		default:
			row = append(row, levelIn(r, ""))
		}
		rows = append(rows, append(row, r.Title))
	}
	ui.Table(c.UI.Out, true, rows)
	c.UI.Say("%s of policy %s", ui.Plural(len(rules), "rule"), policyName(b))
	return nil
}

// levelIn is what a failure of the rule does in a profile.
func levelIn(r rego.RuleInfo, profile string) string {
	if r.Mandatory {
		return "always"
	}
	if l, ok := r.Profiles[profile]; ok {
		return l
	}
	return r.Level
}

func unknownName(what, got string, known []string) error {
	e := diag.New(diag.NotFound, "the policy has no %s %q", what, got).Line("it has: %s", strings.Join(known, ", "))
	if near := diag.Nearest(got, known); near != "" {
		return e.Hint("--%s %s", what, near)
	}
	return e.Hint("waybill policy list")
}
