package rego_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// rule wraps a body into a complete rule of ours.
func rule(id, body string) string {
	return "# METADATA\n# title: T\n# description: D\n# custom:\n#   id: " + id + "\n#   severity: high\n#   remediation: R\n#   standards: [S]\n" +
		"package waybill.rules." + strings.ToLower(strings.ReplaceAll(id, "-", "_")) + "\n\n" + body
}

func files(kv ...string) *fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = &fstest.MapFile{Data: []byte(kv[i+1])}
	}
	return &m
}

func compile(t *testing.T, kv []string, opts ...rego.Option) (*rego.Policy, error) {
	t.Helper()
	b, err := bundle.FromFS(files(kv...))
	if err != nil {
		return nil, err
	}
	return rego.Compile(context.Background(), b, opts...)
}

func evaluate(t *testing.T, opts []rego.Option, kv ...string) decision.Decision {
	t.Helper()
	p, err := compile(t, kv, opts...)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	return p.Evaluate(context.Background(), doc)
}

func TestOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		allow bool
		st    decision.Status
		msg   string
	}{
		"pass":               {[]string{"a.rego", rule("X-001", "pass := true\nfail := set()")}, true, decision.Pass, ""},
		"fail":               {[]string{"a.rego", rule("X-001", "pass := false\nfail contains {\"msg\": \"why\"}")}, false, decision.Fail, "why"},
		"not proven":         {[]string{"a.rego", rule("X-001", "default pass := false\npass if input.nothing.here == 1\nfail := set()")}, false, decision.Fail, "not proven"},
		"pass and fail":      {[]string{"a.rego", rule("X-001", "pass := true\nfail contains {\"msg\": \"why\"}")}, false, decision.Fail, "why"},
		"skip":               {[]string{"a.rego", rule("X-001", "pass := false\nfail := set()\nskip := \"nothing to say\"")}, true, decision.Skipped, ""},
		"skip and fail":      {[]string{"a.rego", rule("X-001", "pass := false\nfail contains {\"msg\": \"why\"}\nskip := \"x\"")}, false, decision.Errored, "skips and judges"},
		"pass undefined":     {[]string{"a.rego", rule("X-001", "pass if input.nothing\nfail := set()")}, false, decision.Errored, "does not define pass"},
		"pass is text":       {[]string{"a.rego", rule("X-001", "pass := \"true\"\nfail := set()")}, false, decision.Errored, "does not define pass"},
		"no fail":            {[]string{"a.rego", rule("X-001", "pass := true")}, false, decision.Errored, "does not define fail"},
		"fail without msg":   {[]string{"a.rego", rule("X-001", "pass := true\nfail contains {\"text\": \"x\"}")}, false, decision.Errored, "no msg"},
		"bad time":           {[]string{"a.rego", rule("X-001", "pass := true\nfail contains {\"msg\": \"m\"} if time.parse_rfc3339_ns(\"soon\") > 0")}, false, decision.Errored, "time.parse_rfc3339_ns"},
		"division by zero":   {[]string{"a.rego", rule("X-001", "pass := true\nfail contains {\"msg\": \"m\"} if 1 / count(input.exceptions) > 0")}, false, decision.Errored, "divide by zero"},
		"conflict":           {[]string{"a.rego", rule("X-001", "pass := x if some x in [true, false]\nfail := set()")}, false, decision.Errored, "conflict"},
		"conftest set":       {[]string{"a.rego", "package main\ndeny contains \"no\" if input.artifact.size > 0"}, false, decision.Fail, "no"},
		"conftest pass":      {[]string{"a.rego", "package main\ndeny contains \"no\" if input.artifact.size < 0"}, true, decision.Pass, ""},
		"conftest object":    {[]string{"a.rego", "package main\ndeny_size contains {\"msg\": \"no\", \"n\": 1} if true"}, false, decision.Fail, "no"},
		"gatekeeper":         {[]string{"a.rego", "package k8s\nviolation contains {\"msg\": \"no\", \"details\": {}} if true"}, false, decision.Fail, "no"},
		"conftest warn":      {[]string{"a.rego", "package main\nwarn contains \"hm\" if true"}, true, decision.Fail, "hm"},
		"deny is no set":     {[]string{"a.rego", "package main\ndeny if true"}, false, decision.Errored, "must be sets"},
		"deny holds numbers": {[]string{"a.rego", "package main\ndeny contains 1 if true"}, false, decision.Errored, "neither a text"},
		"data":               {[]string{"a.rego", "package main\ndeny contains \"no\" if input.artifact.size > data.limits.max", "limits/data.json", `{"max": 10}`}, false, decision.Fail, "no"},
		"data missing":       {[]string{"a.rego", rule("X-001", "default pass := false\npass if input.artifact.size > data.limits.max\nfail := set()")}, false, decision.Fail, "not proven"},
	} {
		t.Run(name, func(t *testing.T) {
			d := evaluate(t, nil, c.files...)
			if d.Allow != c.allow {
				t.Errorf("allow is %t: %+v", d.Allow, d)
			}
			var got decision.Status
			for _, r := range d.Rules {
				if r.ID != rego.SchemaRule {
					got = r.Status
				}
			}
			if got != c.st {
				t.Errorf("status %s, want %s: %+v", got, c.st, d.Violations)
			}
			if all := append(d.Violations, d.Warnings...); c.msg != "" && (len(all) == 0 || !strings.Contains(all[0].Message, c.msg)) {
				t.Errorf("says %+v, want %q", all, c.msg)
			}
		})
	}
}

func TestRefusedPolicies(t *testing.T) {
	ok := "pass := true\nfail := set()"
	for name, c := range map[string]struct {
		files []string
		want  string
	}{
		"parse error":       {[]string{"a.rego", "package main\ndeny contains"}, "a.rego:2"},
		"clock":             {[]string{"a.rego", rule("X-001", ok+"\nx := time.now_ns()")}, "time.now_ns"},
		"network":           {[]string{"a.rego", rule("X-001", ok+"\nx := http.send({\"url\": \"http://example.com\", \"method\": \"get\"})")}, "http.send"},
		"random":            {[]string{"a.rego", rule("X-001", ok+"\nx := rand.intn(\"a\", 3)")}, "rand.intn"},
		"uuid":              {[]string{"a.rego", rule("X-001", ok+"\nx := uuid.rfc4122(\"a\")")}, "uuid.rfc4122"},
		"name lookup":       {[]string{"a.rego", rule("X-001", ok+"\nx := net.lookup_ip_addr(\"a\")")}, "net.lookup_ip_addr"},
		"token":             {[]string{"a.rego", rule("X-001", ok+"\nx := io.jwt.decode_verify(\"a\", {})")}, "io.jwt.decode_verify"},
		"certificate":       {[]string{"a.rego", rule("X-001", ok+"\nx := crypto.x509.parse_and_verify_certificates(\"a\")")}, "crypto.x509.parse_and_verify_certificates"},
		"schema from afar":  {[]string{"a.rego", rule("X-001", ok+"\nx := json.match_schema({}, {\"$ref\": \"http://example.com\"})")}, "json.match_schema"},
		"clock, Rego v0":    {[]string{"a.rego", "package main\ndeny[msg] { time.now_ns() > 0; msg := \"x\" }"}, "time.now_ns"},
		"runtime":           {[]string{"a.rego", rule("X-001", ok+"\nx := opa.runtime()")}, "opa.runtime"},
		"no metadata":       {[]string{"a.rego", "package waybill.rules.x_001\n" + ok}, "no METADATA"},
		"no remediation":    {[]string{"a.rego", strings.Replace(rule("X-001", ok), "#   remediation: R\n", "", 1)}, "lacks"},
		"severity":          {[]string{"a.rego", strings.Replace(rule("X-001", ok), "severity: high", "severity: bad", 1)}, "severity"},
		"id and package":    {[]string{"a.rego", strings.Replace(rule("X-001", ok), "id: X-001", "id: X-002", 1)}, "must be in package"},
		"mandatory warning": {[]string{"a.rego", strings.Replace(rule("X-001", ok), "#   severity: high", "#   severity: high\n#   level: warn\n#   mandatory: true", 1)}, "cannot only warn"},
		"two files":         {[]string{"a.rego", rule("X-001", ok), "b.rego", "package waybill.rules.x_001\nother := 1"}, "b.rego: no METADATA"},
		"no rule":           {[]string{"a.rego", "package waybill.lib\nx := 1"}, "has no rule"},
		"recursion":         {[]string{"a.rego", rule("X-001", ok+"\na if b\nb if a")}, "recursive"},
		"data twice":        {[]string{"a.rego", rule("X-001", ok), "data.json", `{"a":{"x":1}}`, "a/data.json", `{"x":2}`}, "defined twice"},
		"bad data":          {[]string{"a.rego", rule("X-001", ok), "data.json", `{"a":`}, "data.json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(t, c.files)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTimeoutDenies(t *testing.T) {
	slow := "default pass := false\npass if count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i * j == -1]) == 0\nfail := set()"
	d := evaluate(t, []rego.Option{rego.WithTimeout(50 * time.Millisecond)}, "a.rego", rule("X-001", slow), "b.rego", rule("X-002", "pass := true\nfail := set()"))
	if d.Allow || len(d.Violations) == 0 || !strings.Contains(d.Violations[0].Message, "ran longer than 50ms") {
		t.Errorf("%+v", d)
	}
}

func TestCancelledContextDenies(t *testing.T) {
	p, err := compile(t, []string{"a.rego", rule("X-001", "pass := true\nfail := set()")})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if p.Evaluate(ctx, doc).Allow {
		t.Error("allowed")
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	p, err := compile(t, []string{"a.rego", rule("X-001", "pass := true\nfail := set()")})
	if err != nil {
		t.Fatal(err)
	}
	base, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Evaluate(context.Background(), base); !d.Allow {
		t.Fatalf("%+v", d)
	}
	for name, doc := range map[string]string{
		"empty":         "",
		"no object":     "[]",
		"empty object":  "{}",
		"two documents": string(base) + "{}",
		"white space":   string(base) + "\n",
		"a key twice":   strings.Replace(string(base), `"schema":`, `"trust": {}, "schema":`, 1),
		"other case":    strings.Replace(string(base), `"schema":`, `"Schema":`, 1),
		"too large":     strings.Repeat(" ", input.MaxBytes) + string(base),
	} {
		t.Run(name, func(t *testing.T) {
			d := p.Evaluate(context.Background(), []byte(doc))
			if d.Allow || len(d.Violations) == 0 || d.Violations[0].ID != rego.SchemaRule {
				t.Errorf("%+v", d)
			}
			if len(d.Rules) != 2 {
				t.Errorf("rules: %+v", d.Rules)
			}
		})
	}
}

func FuzzEvaluate(f *testing.F) {
	b, err := bundle.FromFS(files("a.rego", rule("X-001", "pass := true\nfail := set()")))
	if err != nil {
		f.Fatal(err)
	}
	p, err := rego.Compile(context.Background(), b)
	if err != nil {
		f.Fatal(err)
	}
	base, err := library.Base(b.Digest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(base)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		d := p.Evaluate(context.Background(), doc)
		if !d.Allow {
			return
		}
		in, err := input.Parse(doc)
		if err != nil {
			t.Fatal("allowed a document that does not parse")
		}
		if c, _ := in.Canonical(); string(c) != string(doc) {
			t.Fatal("allowed a document that is not canonical")
		}
	})
}

// What is left out, one by one: OPA marks most itself, and a version of OPA that marks more or less should be looked at.
func TestBuiltinsThatAreNotThere(t *testing.T) {
	have := map[string]bool{}
	for _, b := range rego.Capabilities().Builtins {
		have[b.Name] = true
	}
	var gone []string
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		if !have[b.Name] {
			gone = append(gone, b.Name)
		}
	}
	slices.Sort(gone)
	want := []string{"crypto.x509.parse_and_verify_certificates", "crypto.x509.parse_and_verify_certificates_with_options", "http.send", "io.jwt.decode_verify",
		"io.jwt.encode_sign", "io.jwt.encode_sign_raw", "json.match_schema", "json.verify_schema", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "time.now_ns", "uuid.rfc4122"}
	if !slices.Equal(gone, want) {
		t.Errorf("left out: %v\nwant: %v", gone, want)
	}
}
