package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// rulesDoc renders docs/rules.md from the METADATA of the builtin policy.
func rulesDoc() string {
	b, err := library.Default()
	if err != nil {
		panic(err) // embedded
	}
	p, err := rego.Compile(context.Background(), b)
	if err != nil {
		panic(err) // the tests of the library compile it
	}
	rules, profiles := p.Rules(), p.Profiles()
	var w strings.Builder
	fmt.Fprintf(&w, "# The rules of the builtin policy\n\nGenerated from the METADATA of policy %s %s by `go generate ./internal/cli`; do not edit. [policy.md](policy.md) tells how rules are evaluated,\n", b.Meta().Name, b.Meta().Version)
	w.WriteString("`waybill policy explain RULE` prints one of them here, with its source and with what it says about an artifact.\n\n")
	fmt.Fprintf(&w, "%d rules. A failure denies, warns, or the rule is off, by the profile of the environment; *always* is a rule that no profile, environment or\nexception lowers.\n", len(rules))
	cats := append(rego.Categories(), "")
	for _, cat := range cats {
		var in []rego.RuleInfo
		for _, r := range rules {
			if r.Category == cat {
				in = append(in, r)
			}
		}
		if len(in) == 0 {
			continue
		}
		fmt.Fprintf(&w, "\n## %s\n\n| rule | demands | severity | %s | standards |\n|---|---|---|%s---|\n", ruleHeading(cat), strings.Join(profiles, " | "), strings.Repeat("---|", len(profiles)))
		for _, r := range in {
			fmt.Fprintf(&w, "| [%s](#%s) | %s | %s |", r.ID, strings.ToLower(r.ID), cell(r.Title), r.Severity)
			for _, n := range profiles {
				fmt.Fprintf(&w, " %s |", levelIn(r, n))
			}
			fmt.Fprintf(&w, " %s |\n", cell(strings.Join(r.Standards, "; ")))
		}
		for _, r := range in {
			fmt.Fprintf(&w, "\n### %s\n\n**%s.** %s\n\n", r.ID, strings.TrimSuffix(r.Title, "."), r.Description)
			fmt.Fprintf(&w, "- Fix: %s\n- Standards: %s\n", r.Remediation, strings.Join(r.Standards, "; "))
			if r.Mandatory {
				w.WriteString("- Mandatory: no profile, environment or exception lowers it.\n")
			} else {
				w.WriteString("- Exceptions: where the environment lists the rule.\n")
			}
			if r.Since != "" {
				fmt.Fprintf(&w, "- Since: %s\n", r.Since)
			}
		}
	}
	return w.String()
}

func ruleHeading(category string) string {
	if category == "" {
		return "The engine itself"
	}
	return strings.ToUpper(category[:1]) + category[1:]
}
