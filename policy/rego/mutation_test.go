package rego_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// Each safety check of the engine, with what it stops. With the check the document is denied for its reason; without it
// the same document passes, so nothing else stops it.
func TestEachCheckIsWhatStopsIt(t *testing.T) {
	passing := []string{"a.rego", rule("X-001", "pass := true\nfail := set()")}
	for check, c := range map[string]struct {
		files []string
		opts  []rego.Option
		doc   func([]byte) []byte // of the canonical document
		in    func(*input.Input)  // before it
		want  string              // of the denial
	}{
		"schema":    {files: passing, in: func(in *input.Input) { in.Artifact.Digest = "sha1:1" }, want: "/artifact/digest"},
		"canonical": {files: passing, doc: func(b []byte) []byte { return append(b, '\n') }, want: "canonical form"},
		"policy digest": {files: passing, in: func(in *input.Input) { in.Environment.PolicyDigest = string(artifact.DigestOf(nil)) },
			want: "the environment pins policy"},
		"profile": {files: passing, in: func(in *input.Input) { in.Environment.Profile = "lax" }, want: `profile "lax"`},
		"left out": {files: passing, in: func(in *input.Input) {
			in.Artifact.Problems = []input.Note{{Code: input.LeftOut, Text: "all evidence was left out"}}
		}, want: "all evidence was left out"},
		// Without strictness the rule that cannot be evaluated is just not there.
		"strict":    {files: []string{"a.rego", "package main\ndeny contains \"old\" if time.parse_rfc3339_ns(input.model.name) < 0"}, want: "time.parse_rfc3339_ns"},
		"undefined": {files: []string{"a.rego", "package main\ndeny := \"no\" if input.artifact.size < 0"}, want: "undefined"},
		"mandatory": {files: []string{"a.rego", with(rule("X-001", failing), "mandatory: true")},
			in: func(in *input.Input) { in.Environment.Enforce = []input.Enforcement{{Rule: "X-001", Level: "off"}} }, want: "no"},
		"timeout": {files: []string{"a.rego", rule("X-001", "default pass := false\npass if count([1 | some i in numbers.range(1, 700); some j in numbers.range(1, 700); i * j == -1]) == 0\nfail := set()")},
			opts: []rego.Option{rego.WithTimeout(time.Millisecond)}, want: "ran longer than 1ms"},
		"memory": {files: []string{"a.rego", rule("X-001", "default pass := false\npass if count([[i, j] | some i in numbers.range(1, 600); some j in numbers.range(1, 600)]) > 0\nfail := set()")},
			opts: []rego.Option{rego.WithMemory(1 << 20), rego.WithTimeout(time.Minute)}, want: "more than 1 MiB"},
		"data": {files: []string{"a.rego", "package main\ndeny contains \"no\" if input.artifact.size > data.main.limit", "main/data.json", `{"limit": 1e12}`},
			in: func(in *input.Input) { in.Environment.Data = map[string]any{"main": map[string]any{"deny": []any{}}} }, want: "which is a rule"},
	} {
		t.Run(check, func(t *testing.T) {
			for _, left := range []bool{false, true} {
				opts := c.opts
				if left {
					opts = append(opts, rego.Without(check))
				}
				p, err := compile(t, c.files, opts...)
				if err != nil {
					t.Fatal(err)
				}
				doc, err := library.Base(p.Bundle().Digest())
				if err != nil {
					t.Fatal(err)
				}
				in, err := input.Parse(doc)
				if err != nil {
					t.Fatal(err)
				}
				if c.in != nil {
					c.in(&in)
				}
				if doc, err = in.Canonical(); err != nil {
					t.Fatal(err)
				}
				if c.doc != nil {
					doc = c.doc(doc)
				}
				d := p.Evaluate(context.Background(), doc)
				if left {
					if !d.Allow {
						t.Errorf("denied without the check too, which shows nothing: %+v", d.Violations)
					}
					continue
				}
				if d.Allow || len(d.Violations) == 0 || !strings.Contains(d.Violations[0].Message, c.want) {
					t.Errorf("allow %t: %+v, want %q", d.Allow, d.Violations, c.want)
				}
			}
		})
	}
}

// Without the restriction on builtins a policy may allow at one time and deny at another.
func TestWithoutCapabilitiesTheClockDecides(t *testing.T) {
	files := []string{"a.rego", rule("X-001", "default pass := false\npass if time.now_ns() > 0\nfail := set()")}
	if _, err := compile(t, files); err == nil || !strings.Contains(err.Error(), "undefined function time.now_ns") {
		t.Errorf("%v", err)
	}
	p, err := compile(t, files, rego.Without("capabilities"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	if !p.Evaluate(context.Background(), doc).Allow {
		t.Error("the check stops nothing")
	}
}
