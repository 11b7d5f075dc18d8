package rego_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// with adds lines below custom: in the METADATA of a rule.
func with(src string, lines ...string) string {
	return strings.Replace(src, "#   severity: high\n", "#   severity: high\n#   "+strings.Join(lines, "\n#   ")+"\n", 1)
}

const failing = "pass := false\nfail contains {\"msg\": \"no\"}"

// evaluateIn evaluates the base document after change.
func evaluateIn(t testing.TB, p *rego.Policy, change func(*input.Input)) decision.Decision {
	t.Helper()
	base, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	in, err := input.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	change(&in)
	in.Normalize()
	doc, err := in.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return p.Evaluate(context.Background(), doc)
}

func row(t testing.TB, d decision.Decision, id string) decision.Rule {
	t.Helper()
	for _, r := range d.Rules {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("no rule %s: %+v", id, d)
	return decision.Rule{}
}

func TestLevelInForce(t *testing.T) {
	const profiles = "profiles: {baseline: deny, edge: off, strict: warn}"
	for name, c := range map[string]struct {
		meta    []string
		profile string
		enforce string
		level   string
		status  decision.Status
		allow   bool
		detail  string
	}{
		"own level":                     {nil, "baseline", "", "deny", decision.Fail, false, ""},
		"own level warn":                {[]string{"level: warn"}, "baseline", "", "warn", decision.Fail, true, ""},
		"enforced down":                 {nil, "baseline", "warn", "warn", decision.Fail, true, ""},
		"enforced off":                  {nil, "baseline", "off", "off", decision.Skipped, true, "off in environment"},
		"profile off":                   {[]string{profiles}, "edge", "", "off", decision.Skipped, true, "off in profile edge"},
		"profile off is not raised":     {[]string{profiles}, "edge", "warn", "off", decision.Skipped, true, "off in profile edge"},
		"profile warns":                 {[]string{profiles}, "strict", "", "warn", decision.Fail, true, ""},
		"profile denies":                {[]string{"level: warn", profiles}, "baseline", "", "deny", decision.Fail, false, ""},
		"profile denies, enforced down": {[]string{"level: warn", profiles}, "baseline", "warn", "warn", decision.Fail, true, ""},
		"not listed, own level":         {[]string{"profiles: {strict: deny, baseline: deny}"}, "strict", "", "deny", decision.Fail, false, ""},
		"mandatory":                     {[]string{"mandatory: true"}, "baseline", "off", "deny", decision.Fail, false, ""},
		"mandatory, listed":             {[]string{"mandatory: true", "profiles: {edge: deny}"}, "edge", "warn", "deny", decision.Fail, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := compile(t, []string{"a.rego", with(rule("X-001", failing), c.meta...) + "\n"})
			if len(c.meta) == 0 {
				p, err = compile(t, []string{"a.rego", rule("X-001", failing)})
			}
			if err != nil {
				t.Fatal(err)
			}
			d := evaluateIn(t, p, func(in *input.Input) {
				in.Environment.Profile = c.profile
				in.Environment.Enforce = nil
				if c.enforce != "" {
					in.Environment.Enforce = []input.Enforcement{{Rule: "X-001", Level: c.enforce}}
				}
			})
			r := row(t, d, "X-001")
			if r.Level != c.level || r.Status != c.status || d.Allow != c.allow || !strings.Contains(r.Detail, c.detail) || c.detail == "" && r.Detail != "" {
				t.Errorf("%+v, allow %t", r, d.Allow)
			}
		})
	}
}

// A rule that a profile leaves out keeps its own level there, and a profile nobody defined is no way around any rule.
func TestProfiles(t *testing.T) {
	p, err := compile(t, []string{
		"a.rego", with(rule("X-001", failing), "category: data", "since: \"1.2\"", "profiles: {baseline: off, edge: off}"),
		"b.rego", with(rule("X-002", failing), "profiles: {strict: deny, baseline: warn}")})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Profiles(); !slices.Equal(got, []string{"baseline", "edge", "strict"}) {
		t.Errorf("profiles %v", got)
	}
	for _, r := range p.Rules() {
		if r.ID == "X-001" && (r.Category != "data" || r.Since != "1.2" || r.Profiles["edge"] != "off") {
			t.Errorf("%+v", r)
		}
	}
	for profile, allow := range map[string]bool{"baseline": true, "edge": false, "strict": false, "lax": false, "Baseline": false} {
		d := evaluateIn(t, p, func(in *input.Input) { in.Environment.Profile = profile })
		if d.Allow != allow {
			t.Errorf("profile %s: allow %t: %+v", profile, d.Allow, d.Violations)
		}
		if profile == "lax" && (len(d.Violations) != 1 || !strings.Contains(d.Violations[0].Message, `profile "lax"; this policy knows baseline, edge, strict`)) {
			t.Errorf("says %+v", d.Violations)
		}
	}
	bare, err := compile(t, []string{"a.rego", rule("X-001", "pass := true\nfail := set()")})
	if err != nil {
		t.Fatal(err)
	}
	if d := evaluateIn(t, bare, func(in *input.Input) { in.Environment.Profile = "strict" }); d.Allow || !strings.Contains(d.Violations[0].Message, "has no profiles") {
		t.Errorf("%+v", d)
	}
}

func TestRefusedProfileMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		meta []string
		want string
	}{
		"category":          {[]string{"category: weather"}, "custom.category weather is none of"},
		"category is list":  {[]string{"category: [data]"}, "custom.category [data]"},
		"since":             {[]string{"since: 1.0"}, "custom.since"},
		"since text":        {[]string{"since: soon"}, "custom.since soon"},
		"profiles no map":   {[]string{"profiles: [edge]"}, "no map"},
		"profile level":     {[]string{"profiles: {edge: maybe}"}, "custom.profiles.edge: maybe is none of"},
		"profile name":      {[]string{"profiles: {Edge: deny}"}, "no profile name"},
		"mandatory lowered": {[]string{"mandatory: true", "profiles: {edge: warn}"}, "a mandatory rule denies in every profile"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(t, []string{"a.rego", with(rule("X-001", failing), c.meta...)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
