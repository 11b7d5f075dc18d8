package cli

import (
	"context"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyShowCommand() Command {
	return Command{
		Name: "show", Summary: "explain one rule: what it demands, and how to meet it", Args: "RULE [PATH]", Min: 1, Max: 2,
		Long:     "Title, description, remediation and the standards behind a rule; with --source its Rego too.",
		Examples: []string{"waybill policy show MET-001", "waybill policy show MET-001 --source"},
		Flags:    []ucli.Flag{&ucli.BoolFlag{Name: "source", Usage: "print the rule's Rego"}},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyShow,
	}
}

type policyShowJSON struct {
	Schema string `json:"schema"`
	rego.RuleInfo
	Source string `json:"source"`
}

func runPolicyShow(ctx context.Context, c *Call) error {
	p, _, err := c.compilePolicy(ctx, c.Arg(1))
	if err != nil {
		return err
	}
	var ids []string
	for _, r := range p.Rules() {
		ids = append(ids, r.ID)
		if !strings.EqualFold(r.ID, c.Args[0]) {
			continue
		}
		src := ruleSource(p.Bundle(), r)
		if c.UI.JSON {
			return c.UI.PrintJSON(policyShowJSON{schemaBase + "policy-show/v1", r, src})
		}
		c.UI.Data("%s  %s", r.ID, r.Title)
		level := "a failure denies, unless the environment lowers it or an exception covers it"
		switch {
		case r.Mandatory:
			level = "a failure always denies"
		case r.Level == "warn":
			level = "a failure warns"
		}
		c.UI.Data("  %-10s %s; %s", "severity", r.Severity, level)
		for i, l := range wrap(r.Description, 84) {
			c.UI.Data("  %-10s %s", map[bool]string{true: "demands"}[i == 0], l)
		}
		for i, l := range wrap(r.Remediation, 84) {
			c.UI.Data("  %-10s %s", map[bool]string{true: "fix"}[i == 0], l)
		}
		for i, l := range r.Standards {
			c.UI.Data("  %-10s %s", map[bool]string{true: "standards"}[i == 0], l)
		}
		if c.Bool("source") {
			if src == "" {
				c.UI.Say("the engine itself applies this rule; there is no Rego")
			}
			c.UI.Data("\n%s", strings.TrimRight(src, "\n"))
		}
		return nil
	}
	e := diag.New(diag.NotFound, "policy %s has no rule %q", policyName(p.Bundle()), c.Args[0])
	if near := diag.Nearest(strings.ToUpper(c.Args[0]), ids); near != "" {
		return e.Hint("waybill policy show %s", near)
	}
	return e.Hint("waybill policy list")
}

// ruleSource is the file that defines a rule's package; "" for the engine's own rule.
func ruleSource(b *bundle.Bundle, r rego.RuleInfo) string {
	for _, n := range b.Names() {
		src, _ := b.File(n)
		if r.Package != "" && strings.Contains(string(src), "\npackage "+strings.TrimPrefix(r.Package, "data.")+"\n") {
			return string(src)
		}
	}
	return ""
}

// wrap breaks text at spaces.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, w := range strings.Fields(s) {
		if line != "" && len(line)+1+len(w) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(lines, line)
}
