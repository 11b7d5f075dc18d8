package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/source"
)

// inspectPolicyJSON is what inspect says about a policy artifact.
type inspectPolicyJSON struct {
	Digest artifact.Digest `json:"digest"` // of the policy: what environments pin
	Files  []string        `json:"files"`
	Rules  []rego.RuleInfo `json:"rules"`
	Error  string          `json:"error,omitempty"` // why it does not compile

	bundle *bundle.Bundle
}

// resolved lets a graph be read by digest.
type resolved struct{ graph }

// Resolve implements source.Repository for digests.
func (r resolved) Resolve(ctx context.Context, digest string) (artifact.Descriptor, error) {
	_, d, err := r.Manifest(ctx, artifact.Digest(digest))
	return d, err
}

func (c *Call) describePolicy(ctx context.Context, p graph, d artifact.Digest, out *inspectJSON) error {
	a, err := source.Read(ctx, resolved{p}, string(d), "")
	if err != nil {
		return err
	}
	m := a.Bundle.Meta()
	out.Name, out.Version, out.Reason = m.Name, m.Version, "it is a policy"
	out.Policy = &inspectPolicyJSON{Digest: a.Bundle.Digest(), Files: a.Bundle.Names(), Rules: []rego.RuleInfo{}, bundle: a.Bundle}
	rules, err := c.rulesOf(ctx, a.Bundle)
	if err != nil {
		out.Policy.Error = err.Error()
		return nil //nolint:nilerr // it can be looked at all the same
	}
	out.Policy.Rules = rules
	return nil
}

func printInspectPolicy(u *ui.UI, p *inspectPolicyJSON) {
	field := func(label, format string, args ...any) { u.Data("  %-10s %s", label, fmt.Sprintf(format, args...)) }
	field("policy", "%s", p.Digest)
	if p.Error != "" {
		field("unusable", "%s", plain(p.Error))
		return
	}
	by := map[string]int{}
	for _, r := range p.Rules {
		by[r.Level]++
	}
	field("rules", "%d: %d deny, %d warn", len(p.Rules), by["deny"], by["warn"])
}

type policyDiffJSON struct {
	Schema string           `json:"schema"`
	A      diffSideJSON     `json:"a"`
	B      diffSideJSON     `json:"b"`
	Same   bool             `json:"same"` // the same policy
	Before artifact.Digest  `json:"before"`
	After  artifact.Digest  `json:"after"`
	Files  []policyFileDiff `json:"files"`
	Rules  []policyRuleDiff `json:"rules"`
}

type policyFileDiff struct {
	Path string `json:"path"`
	Kind string `json:"kind"` // added, removed, changed
}

type policyRuleDiff struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`   // added, removed, looser, stricter, changed
	Before string `json:"before"` // level and severity
	After  string `json:"after"`
}

// diffPolicies tells what changes for whoever pins b in place of a.
func diffPolicies(c *Call, a, b *inspectJSON) error {
	for _, o := range []*inspectJSON{a, b} {
		if o.Policy == nil {
			return diag.New(diag.Usage, "diff: one is a policy, the other is none: %s", o.Target).Hint("waybill inspect %s", o.Target)
		}
	}
	side := func(o *inspectJSON) diffSideJSON { return diffSideJSON{o.Target, o.Ref, o.Digest, o.Name, o.Version} }
	d := policyDiffJSON{Schema: schemaBase + "policy-diff/v1", A: side(a), B: side(b), Same: a.Policy.Digest == b.Policy.Digest, Before: a.Policy.Digest, After: b.Policy.Digest,
		Files: []policyFileDiff{}, Rules: ruleDiff(a.Policy.Rules, b.Policy.Rules)}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.Policy.Files, b.Policy.Files)))) {
		x, inA := a.Policy.bundle.File(n)
		y, inB := b.Policy.bundle.File(n)
		switch {
		case !inA:
			d.Files = append(d.Files, policyFileDiff{n, "added"})
		case !inB:
			d.Files = append(d.Files, policyFileDiff{n, "removed"})
		case string(x) != string(y):
			d.Files = append(d.Files, policyFileDiff{n, "changed"})
		}
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(d); err != nil {
			return err
		}
	} else {
		d.print(c.UI)
	}
	if c.Bool("exit-code") && !d.Same {
		return diag.New(diag.Failure, "diff: %s and %s differ", c.Args[0], c.Args[1])
	}
	return nil
}

func ruleDiff(before, after []rego.RuleInfo) []policyRuleDiff {
	text := func(r rego.RuleInfo) string {
		s := r.Level + ", " + r.Severity
		if r.Mandatory {
			s += ", mandatory"
		}
		for _, p := range slices.Sorted(maps.Keys(r.Profiles)) {
			s += ", " + p + ": " + r.Profiles[p]
		}
		return s
	}
	byID := map[string]rego.RuleInfo{}
	for _, r := range before {
		byID[r.ID] = r
	}
	out := []policyRuleDiff{}
	for _, r := range after {
		was, ok := byID[r.ID]
		delete(byID, r.ID)
		switch {
		case !ok:
			out = append(out, policyRuleDiff{r.ID, "added", "", text(r)})
		case text(was) != text(r):
			kind := "changed"
			switch {
			case was.Level == "deny" && r.Level != "deny" || was.Mandatory && !r.Mandatory:
				kind = "looser"
			case was.Level != "deny" && r.Level == "deny" || !was.Mandatory && r.Mandatory:
				kind = "stricter"
			}
			out = append(out, policyRuleDiff{r.ID, kind, text(was), text(r)})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		out = append(out, policyRuleDiff{id, "removed", text(byID[id]), ""})
	}
	slices.SortStableFunc(out, func(x, y policyRuleDiff) int { return strings.Compare(x.ID, y.ID) })
	return out
}

func (d policyDiffJSON) print(u *ui.UI) {
	u.Data("%s -> %s", u.Out.Bold(strings.TrimSpace(d.A.Name+" "+d.A.Version)+" sha256:"+d.Before.Short()), u.Out.Bold(strings.TrimSpace(d.B.Name+" "+d.B.Version)+" sha256:"+d.After.Short()))
	if d.Same {
		u.Data("  the same")
		return
	}
	var rows [][]string
	for _, r := range d.Rules {
		what := r.Kind
		if r.Kind == "removed" || r.Kind == "looser" {
			what = u.Out.Red(r.Kind)
		}
		text := r.Before + " -> " + r.After
		switch r.Kind {
		case "added":
			text = r.After
		case "removed":
			text = r.Before
		}
		rows = append(rows, []string{"  " + plain(r.ID), what, plain(text)})
	}
	for _, f := range d.Files {
		rows = append(rows, []string{"  " + plain(f.Path), f.Kind, "file"})
	}
	ui.Table(u.Out, false, rows)
}
