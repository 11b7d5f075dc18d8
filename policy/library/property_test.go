package library_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
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

// Dropping any one key of a passing or denied document denies. The base document loses each of its keys in turn; the other
// fixtures every 97th, from a different start each, so that together they cover every key many times.
func TestDroppingAnyKeyNeverAllows(t *testing.T) {
	p := compile(t)
	digest := p.Bundle().Digest()
	base, err := library.Base(digest)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := library.Cases(digest)
	if err != nil {
		t.Fatal(err)
	}
	dropped := 0
	for i, c := range append([]library.Case{{Rule: "base", Doc: base}}, cases...) {
		n := i
		objects(decode(t, c.Doc), "", func(path string, _ map[string]any, key string) {
			if n++; i > 0 && n%97 != 0 {
				return
			}
			dropped++
			d := p.Evaluate(context.Background(), rootOf(t, c.Doc, path, key))
			if d.Allow {
				t.Errorf("%s/%s: allowed without %s/%s", c.Rule, c.Name, path, key)
			}
			if c.Rule != rego.SchemaRule && status(d, rego.SchemaRule) != decision.Fail {
				t.Errorf("%s/%s: the schema does not miss %s/%s", c.Rule, c.Name, path, key)
			}
		})
	}
	t.Logf("%d documents, %d dropped keys", len(cases)+1, dropped)
	if dropped < 4000 {
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

// Shuffling keys and list elements of the source of a document changes nothing in the bytes of its decision.
func TestDecisionDoesNotDependOnOrder(t *testing.T) {
	p := compile(t)
	cases, err := library.Cases(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	n := 0
	for _, c := range cases {
		in, err := input.Parse(c.Doc)
		if err != nil {
			continue
		}
		want, err := p.Evaluate(context.Background(), c.Doc).Canonical()
		if err != nil {
			t.Fatal(err)
		}
		for range 1 {
			shuffle(r, &in)
			in.Normalize()
			b, err := in.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Evaluate(context.Background(), b).Canonical()
			if err != nil {
				t.Fatal(err)
			}
			if c.Rule != "INPUT-000" && !bytes.Equal(b, c.Doc) {
				t.Fatalf("%s/%s: normalising a shuffled document gives other bytes", c.Rule, c.Name)
			}
			if c.Rule != "INPUT-000" && !bytes.Equal(got, want) {
				t.Errorf("%s/%s: decision differs", c.Rule, c.Name)
			}
			n++
		}
	}
	if n < 200 {
		t.Errorf("only %d documents", n)
	}
}

func shuffle(r *rand.Rand, in *input.Input) {
	mix := func(n int, swap func(i, j int)) { r.Shuffle(n, swap) }
	mix(len(in.Metrics), func(i, j int) { in.Metrics[i], in.Metrics[j] = in.Metrics[j], in.Metrics[i] })
	mix(len(in.Attestations), func(i, j int) { in.Attestations[i], in.Attestations[j] = in.Attestations[j], in.Attestations[i] })
	mix(len(in.Signatures), func(i, j int) { in.Signatures[i], in.Signatures[j] = in.Signatures[j], in.Signatures[i] })
	mix(len(in.Approvals), func(i, j int) { in.Approvals[i], in.Approvals[j] = in.Approvals[j], in.Approvals[i] })
	mix(len(in.Datasets), func(i, j int) { in.Datasets[i], in.Datasets[j] = in.Datasets[j], in.Datasets[i] })
	mix(len(in.Artifact.Layers), func(i, j int) {
		in.Artifact.Layers[i], in.Artifact.Layers[j] = in.Artifact.Layers[j], in.Artifact.Layers[i]
	})
	mix(len(in.Environment.Metrics), func(i, j int) {
		in.Environment.Metrics[i], in.Environment.Metrics[j] = in.Environment.Metrics[j], in.Environment.Metrics[i]
	})
	mix(len(in.Model.Licenses), func(i, j int) {
		in.Model.Licenses[i], in.Model.Licenses[j] = in.Model.Licenses[j], in.Model.Licenses[i]
	})
}

// Mandatory rules can be neither lowered nor excepted; the others can, and it shows.
func TestEnforcement(t *testing.T) {
	p := compile(t)
	cases, err := library.Cases(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	mandatory := map[string]bool{}
	for _, r := range p.Rules() {
		mandatory[r.ID] = r.Mandatory
	}
	for _, c := range cases {
		if c.Want != decision.Fail || c.Rule == "INPUT-000" {
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
			Bundle: in.Artifact.Digest, Roles: []string{"ml-lead"}, Signer: input.Signer{KeyID: "k", Name: "ml lead", Role: "approver", Kind: "key"}}}
		in.Normalize()
		b, _ := in.Canonical()
		d := p.Evaluate(context.Background(), b)
		got := status(d, c.Rule)
		if mandatory[c.Rule] && (got == decision.Excepted || d.Allow) {
			t.Errorf("%s/%s: mandatory, and excepted", c.Rule, c.Name)
		}
		if !mandatory[c.Rule] && level(d, c.Rule) == "deny" && (got != decision.Excepted || len(d.Exceptions) == 0) {
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

// level is what was in force for a rule.
func level(d decision.Decision, id string) string {
	for _, r := range d.Rules {
		if r.ID == id {
			return r.Level
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
