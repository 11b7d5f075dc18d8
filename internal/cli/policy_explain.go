package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyExplainCommand() Command {
	flags := []ucli.Flag{
		&ucli.BoolFlag{Name: "source", Usage: "print the rule's Rego, too"},
		&ucli.StringFlag{Name: "facts", Usage: "tell what the rule says about these facts: a `FILE` that waybill facts wrote"},
		&ucli.StringFlag{Name: "ref", Usage: "tell what the rule says about this artifact, with --env: a `REF`"},
	}
	for _, f := range environmentFlags() {
		if s, ok := f.(*ucli.StringFlag); ok && s.Name == "env" {
			own := *s
			own.Required = false
			f = &own
		}
		if f.Names()[0] != "policy" {
			flags = append(flags, f)
		}
	}
	return Command{
		Name: "explain", Summary: "explain one rule: what it demands, why, and how to meet it", Args: "RULE [PATH]", Min: 1, Max: 2,
		Long: `What a rule demands, why, how to meet it, in which profiles it denies, what it must deny and must pass by its fixtures,
and where it is written. With --facts, or --ref and --env, it asks the rule about an artifact and goes through its
conditions in order: which hold, which do not, which read something that is missing, and the values that they read.`,
		Examples: []string{"waybill policy explain MET-001", "waybill policy explain MET-001 --source",
			"waybill policy explain MET-001 --facts facts.json", "waybill policy explain MET-001 --ref churn:1.0 --env prod"},
		Flags: flags,
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound}, Run: runPolicyExplain,
	}
}

type policyExplainJSON struct {
	Schema string `json:"schema"`
	rego.RuleInfo
	File   string            `json:"file"` // "" for the engine's own rule
	Line   int               `json:"line"`
	Source string            `json:"source"`
	Deny   []string          `json:"deny"` // what fixtures must deny
	Pass   []string          `json:"pass"`
	Facts  *rego.Explanation `json:"facts"` // null without facts
}

func runPolicyExplain(ctx context.Context, c *Call) error {
	p, fsys, err := c.compilePolicy(ctx, c.Arg(1))
	if err != nil {
		return err
	}
	r, err := findRule(p, c.Args[0])
	if err != nil {
		return err
	}
	out := policyExplainJSON{Schema: schemaBase + "policy-explain/v1", RuleInfo: r, Deny: []string{}, Pass: []string{}}
	out.File, out.Line, out.Source = ruleSource(p.Bundle(), r)
	var cases []library.Case
	if c.Arg(1) == "" {
		cases, err = library.Cases(p.Bundle().Digest(), r.ID)
	} else if fsys != nil {
		cases, err = library.CasesIn(fsys, p.Bundle().Digest(), "baseline", r.ID)
	}
	if err != nil {
		return diag.Wrap(diag.Failure, err, "policy %s", policySource(c.Arg(1)))
	}
	for _, x := range cases {
		switch {
		case x.Rule != r.ID:
		case x.Want == decision.Fail:
			out.Deny = append(out.Deny, x.Name)
		case x.Want == decision.Pass:
			out.Pass = append(out.Pass, x.Name)
		}
	}
	doc, err := c.factsToExplain(ctx)
	if err != nil {
		return err
	}
	if doc != nil {
		if out.Facts, err = p.Explain(ctx, r.ID, doc); err != nil {
			return diag.Wrap(diag.Failure, err, "policy explain %s", r.ID)
		}
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.printRule(out)
	if out.Facts != nil {
		c.printExplanation(r, out.Facts)
	}
	if c.Bool("source") {
		if out.Source == "" {
			c.UI.Say("the engine itself applies this rule; there is no Rego")
			return nil
		}
		c.UI.Data("")
		for i, l := range strings.Split(strings.TrimRight(out.Source, "\n"), "\n") {
			c.UI.Data("%4d  %s", i+1, strings.ReplaceAll(l, "\t", "    "))
		}
	}
	return nil
}

func findRule(p *rego.Policy, id string) (rego.RuleInfo, error) {
	var ids []string
	for _, r := range p.Rules() {
		if strings.EqualFold(r.ID, id) {
			return r, nil
		}
		ids = append(ids, r.ID)
	}
	e := diag.New(diag.NotFound, "policy %s has no rule %q", policyName(p.Bundle()), id)
	if near := diag.Nearest(strings.ToUpper(id), ids); near != "" {
		return rego.RuleInfo{}, e.Hint("waybill policy explain %s", near)
	}
	return rego.RuleInfo{}, e.Hint("waybill policy list")
}

// factsToExplain reads or collects the facts that the flags name; nil when they name none.
func (c *Call) factsToExplain(ctx context.Context) ([]byte, error) {
	file, ref := c.String("facts"), c.String("ref")
	switch {
	case file != "" && ref != "":
		return nil, diag.New(diag.Usage, "--facts and --ref exclude each other")
	case file != "":
		b, err := readSmall(c.Abs(file), input.MaxBytes)
		if err != nil {
			return nil, fileError(err, "facts", file, "waybill facts REF --env ENV > "+file)
		}
		return b, nil
	case ref == "":
		return nil, nil
	case c.String("env") == "":
		return nil, diag.New(diag.Usage, "--ref needs --env").Hint("waybill policy explain RULE --ref %s --env ENV", ref)
	}
	rq, place, err := c.gateRequest(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	src := facts.FromRepository(place)
	r, err := gate.Facts(ctx, src, src, rq)
	if err != nil {
		return nil, err
	}
	return r.Input.Canonical()
}

func (c *Call) printRule(o policyExplainJSON) {
	c.UI.Data("%s  %s", o.ID, o.Title)
	level := "a failure denies, unless the environment lowers it or an exception covers it"
	switch {
	case o.Mandatory:
		level = "a failure always denies"
	case o.Level == "warn":
		level = "a failure warns"
	}
	field := func(name, text string) {
		if text == "" {
			return
		}
		for i, l := range wrap(text, 84) {
			c.UI.Data("  %-10s %s", map[bool]string{true: name}[i == 0], l)
		}
	}
	field("severity", o.Severity+"; "+level)
	field("category", o.Category)
	field("demands", o.Description)
	field("fix", o.Remediation)
	for i, l := range o.Standards {
		c.UI.Data("  %-10s %s", map[bool]string{true: "standards"}[i == 0], l)
	}
	field("profiles", profilesText(o.RuleInfo))
	field("denies", strings.Join(o.Deny, "; "))
	field("passes", strings.Join(o.Pass, "; "))
	if o.File != "" {
		field("source", fmt.Sprintf("%s:%d", o.File, o.Line))
	}
}

// profilesText writes "baseline deny, strict deny".
func profilesText(r rego.RuleInfo) string {
	var out []string
	for _, p := range sortedKeys(r.Profiles) {
		out = append(out, p+" "+r.Profiles[p])
	}
	return strings.Join(out, ", ")
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// printExplanation goes through the conditions in the order of the text.
func (c *Call) printExplanation(r rego.RuleInfo, x *rego.Explanation) {
	word := map[decision.Status]string{decision.Pass: c.UI.Out.Green("passes"), decision.Fail: c.UI.Out.Red("fails"), decision.Errored: c.UI.Out.Red("could not be evaluated"),
		decision.Skipped: c.UI.Out.Yellow("has nothing to say"), decision.Excepted: c.UI.Out.Yellow("fails, and an exception covers it")}[x.Status]
	c.UI.Data("")
	c.UI.Data("for these facts %s %s", r.ID, word)
	if x.Detail != "" {
		c.UI.Data("  because    %s", x.Detail)
	}
	for _, f := range x.Findings {
		c.UI.Data("  finding    %s", f)
	}
	if x.Status == decision.Skipped && len(x.Findings) == 0 && len(x.Clauses) == 0 {
		for _, v := range x.Decision.Violations {
			c.UI.Data("  denied     %s: %s", v.ID, v.Message)
		}
	}
	shown := map[string]bool{}
	for _, k := range x.Clauses {
		head := "it passes when all of this holds"
		switch {
		case k.Helper:
			head = k.Name + " holds when all of this holds"
		case k.Name == "skip":
			head = "it has nothing to say when all of this holds"
		case k.Name != "pass":
			head = "it denies when all of this holds"
		}
		if shown[k.Name] {
			head = "or when all of this holds"
		}
		shown[k.Name] = true
		c.UI.Data("")
		c.UI.Data("  %s  (%s:%d)", head, k.File, k.Line)
		for _, q := range k.Conditions {
			mark := map[string]string{rego.Holds: c.UI.Out.Green("yes"), rego.HoldsNot: c.UI.Out.Red("NO"), rego.Undefined: c.UI.Out.Red("MISSING"), rego.NotReached: c.UI.Out.Dim("-")}[q.Outcome]
			c.UI.Data("    %-8s %s%s", mark, strings.Repeat("  ", q.Depth), q.Plain)
			if q.Outcome == rego.NotReached {
				continue
			}
			for _, v := range q.Values {
				c.UI.Data("    %-8s %s  %s = %s", "", strings.Repeat("  ", q.Depth), v.Name, v.Value)
			}
		}
	}
	if len(x.Clauses) > 0 {
		c.UI.Say("yes: it holds   NO: it does not   MISSING: it reads something that is not there   -: not looked at, something before it did not hold")
	}
}

// ruleSource is the file that defines a rule's package, and the line of the package; "" for the engine's own rule.
func ruleSource(b *bundle.Bundle, r rego.RuleInfo) (file string, line int, text string) {
	if r.Package == "" {
		return "", 0, ""
	}
	for _, n := range b.Names() {
		src, _ := b.File(n)
		for i, l := range strings.Split(string(src), "\n") {
			if strings.TrimSpace(l) == "package "+strings.TrimPrefix(r.Package, "data.") {
				return n, i + 1, string(src)
			}
		}
	}
	return "", 0, ""
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
