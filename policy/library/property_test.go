package library_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

func decode(t testing.TB, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// objects calls f for each object in v with its path and keys in order.
func objects(v any, path string, f func(path string, o map[string]any, key string)) {
	switch x := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			objects(x[k], path+"/"+k, f)
			f(path, x, k)
		}
	case []any:
		for i, e := range x {
			objects(e, path+"/"+strconv.Itoa(i), f)
		}
	}
}

func canonical(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// profiles of the default policy.
func profiles() []string { return []string{"baseline", "strict", "eu-high-risk", "edge"} }

// under gives a document another profile.
func under(t testing.TB, doc []byte, profile string) []byte {
	t.Helper()
	in, err := input.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	in.Environment.Profile = profile
	b, err := in.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The base document passes in every profile, so that what the properties below find is never vacuous: all rules but a few
// that say so have something to judge.
func TestBasePassesInEveryProfile(t *testing.T) {
	p := compile(t)
	base, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	for _, profile := range profiles() {
		d := p.Evaluate(context.Background(), under(t, base, profile))
		if !d.Allow || len(d.Warnings) > 0 {
			t.Errorf("%s: %+v %+v", profile, d.Violations, d.Warnings)
		}
		n := map[decision.Status]int{}
		levels := map[string]int{}
		for _, r := range d.Rules {
			n[r.Status]++
			levels[r.Level]++
			if r.Status == decision.Skipped && r.Level != "off" {
				t.Logf("%s: %s skipped: %s", profile, r.ID, r.Detail)
			}
		}
		t.Logf("%s: %d rules, levels %v, outcomes %v", profile, len(d.Rules), levels, n)
		if got := slices.Sorted(maps.Keys(levels)); levels["deny"] == 0 {
			t.Errorf("%s: %v", profile, got)
		}
	}
	if got := p.Profiles(); !slices.Equal(got, slices.Sorted(slices.Values(profiles()))) {
		t.Errorf("profiles %v", got)
	}
}

// Dropping any one key of a passing or denied document denies, in every profile. The base document loses each of its keys in
// turn; the other fixtures a sample, from a different start each, so that together they cover every key many times.
func TestDroppingAnyKeyNeverAllows(t *testing.T) {
	p := compile(t)
	digest := p.Bundle().Digest()
	base, err := library.Base(digest)
	if err != nil {
		t.Fatal(err)
	}
	cases := cases(t)
	type doc struct {
		name  string
		rule  string
		bytes []byte
		every int
	}
	var docs []doc
	for i, profile := range profiles() {
		every := 4 // each profile a quarter, from another start
		if full() {
			every = 1
		}
		docs = append(docs, doc{"base/" + profile + strings.Repeat(" ", i), "", under(t, base, profile), every})
	}
	for _, c := range cases {
		every := 601
		if full() {
			every = 1
		}
		docs = append(docs, doc{c.Rule + "/" + c.Name, c.Rule, c.Doc, every})
	}
	dropped := 0
	for i, c := range docs {
		n := i % c.every
		objects(decode(t, c.bytes), "", func(path string, _ map[string]any, key string) {
			if n++; n%c.every != 0 {
				return
			}
			dropped++
			d := p.Evaluate(context.Background(), rootOf(t, c.bytes, path, key))
			if d.Allow {
				t.Errorf("%s: allowed without %s/%s", c.name, path, key)
			}
			if c.rule != rego.SchemaRule && status(d, rego.SchemaRule) != decision.Fail {
				t.Errorf("%s: the schema does not miss %s/%s", c.name, path, key)
			}
		})
	}
	t.Logf("%d documents, %d dropped keys", len(docs), dropped)
	if dropped < 1500 {
		t.Errorf("only %d keys were dropped", dropped)
	}
}

// rootOf gives the document without one key.
func rootOf(t testing.TB, doc []byte, path, key string) []byte {
	t.Helper()
	v := decode(t, doc)
	at := v
	for _, seg := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		if seg == "" {
			continue
		}
		switch x := at.(type) {
		case map[string]any:
			at = x[seg]
		case []any:
			i, err := strconv.Atoi(seg)
			if err != nil {
				t.Fatal(err)
			}
			at = x[i]
		}
	}
	delete(at.(map[string]any), key)
	return canonical(t, v)
}

// The schema is what closes the holes: without it, Rego alone would let some incomplete documents through. This is the
// attack that the check stops; it must succeed when the check is gone.
func TestWithoutTheSchemaADroppedKeyCanAllow(t *testing.T) {
	p := compile(t)
	base, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	in, err := input.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	// A scan's findings are dropped: to the type it looks like "none found".
	in.Vulnerabilities.Findings = []input.Finding{{ID: "CVE-2026-0001", Severity: "critical", Package: "x"}}
	with, _ := in.Canonical()
	if p.Evaluate(context.Background(), with).Allow {
		t.Fatal("a critical finding passes")
	}
	cut := rootOf(t, with, "/vulnerabilities", "findings")
	if p.Evaluate(context.Background(), cut).Allow {
		t.Error("the schema lets a document without findings through")
	}
	lax, err := input.Parse(cut) // what a gate without a schema would make of it
	if err != nil {
		t.Fatal(err)
	}
	lax.Normalize()
	b, _ := lax.Canonical()
	if !p.Evaluate(context.Background(), b).Allow {
		t.Error("the attack fails without the check; this test no longer shows what the schema is for")
	}
}

// Mandatory rules can be neither lowered nor excepted; the others can, and it shows.
func TestEnforcement(t *testing.T) {
	p := compile(t)
	cases := cases(t)
	mandatory, level := map[string]bool{}, map[string]map[string]string{}
	for _, r := range p.Rules() {
		mandatory[r.ID], level[r.ID] = r.Mandatory, r.Profiles
	}
	tried := map[string]int{}
	for _, c := range cases {
		if c.Want != decision.Fail || c.Rule == "INPUT-000" {
			continue
		}
		if tried[c.Rule]++; !full() && (tried[c.Rule] > 1 || len(tried)%3 != 0) {
			continue
		}
		for _, set := range []string{"warn", "off"} {
			in, err := input.Parse(c.Doc)
			if err != nil {
				t.Fatal(err)
			}
			in.Environment.Enforce = []input.Enforcement{{Rule: c.Rule, Level: set}}
			in.Normalize()
			b, _ := in.Canonical()
			d := p.Evaluate(context.Background(), b)
			got := status(d, c.Rule)
			switch {
			case mandatory[c.Rule] && (got != decision.Fail || d.Allow):
				t.Errorf("%s/%s: mandatory, and %s makes it %s", c.Rule, c.Name, set, got)
			case !mandatory[c.Rule] && set == "off" && got != decision.Skipped:
				t.Errorf("%s/%s: off gives %s", c.Rule, c.Name, got)
			case !mandatory[c.Rule] && set == "warn" && !slices.ContainsFunc(d.Warnings, func(r decision.Result) bool { return r.ID == c.Rule }):
				t.Errorf("%s/%s: warn gives no warning (%s)", c.Rule, c.Name, got)
			}
		}
		// A waiver for every rule, signed by the right role: only rules that may be waived give way.
		in, _ := input.Parse(c.Doc)
		if len(in.Exceptions) > 0 {
			continue // it is about exceptions, which change below
		}
		in.Environment.Exceptions = input.ExceptionDemand{Roles: []string{"ml-lead"}, Rules: []string{c.Rule}}
		in.Exceptions = []input.Exception{{Rule: c.Rule, Reason: "agreed", At: in.Context.Time.AddDate(0, 0, -1), Expires: in.Context.Time.AddDate(0, 0, 1),
			Bundle: in.Artifact.Digest, Roles: []string{"ml-lead"}, Signer: input.Signer{KeyID: "waiver", Name: "someone else", Role: "approver", Kind: "key"}}}
		in.Normalize()
		b, _ := in.Canonical()
		d := p.Evaluate(context.Background(), b)
		got := status(d, c.Rule)
		if mandatory[c.Rule] && (got == decision.Excepted || d.Allow) {
			t.Errorf("%s/%s: mandatory, and excepted", c.Rule, c.Name)
		}
		if !mandatory[c.Rule] && level[c.Rule][in.Environment.Profile] == "deny" && (got != decision.Excepted || len(d.Exceptions) == 0) {
			t.Errorf("%s/%s: a sound exception gives %s", c.Rule, c.Name, got)
		}
	}
}

func status(d decision.Decision, id string) decision.Status {
	for _, r := range d.Rules {
		if r.ID == id {
			return r.Status
		}
	}
	return ""
}

func BenchmarkEvaluate(b *testing.B) {
	p := compile(b)
	doc, err := library.Base(p.Bundle().Digest())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if d := p.Evaluate(context.Background(), doc); !d.Allow {
			b.Fatal(fmt.Sprint(d.Violations))
		}
	}
}
