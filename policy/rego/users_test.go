package rego_test

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/rego"
)

// Policies as users have them for conftest and Gatekeeper, in the words of both versions of Rego.
const (
	conftestV0 = `package main

import data.lib.messages

name := input.model.name

deny[msg] {
	not input.model.owner
	msg = sprintf("%s has no owner", [name])
}

deny[msg] {
	input.artifact.size > data.limits.size
	msg := messages.too_large(name, input.artifact.size)
}

warn[msg] {
	some i
	input.datasets[i].personalData == "yes"
	msg = sprintf("%s holds personal data", [input.datasets[i].name])
}

deny_license[{"msg": msg, "details": {"license": l}, "metadata": {"team": "legal"}}] {
	l := input.model.licenses[_]
	unused := 1
	not allowed(l)
	msg := sprintf("license %s", [l])
}

allowed(l) {
	l == data.licenses[_]
}
`
	conftestLib = `package lib.messages

too_large(name, size) = msg {
	msg = sprintf("%s is too large: %d bytes", [name, size])
}
`
	conftestFuture = `package team.quality

import future.keywords.contains
import future.keywords.if
import future.keywords.in

deny contains msg if {
	some m in input.metrics
	m.slice == "all"
	m.value < data.quality.floor
	msg := sprintf("%s is %v", [m.name, m.value])
}
`
	conftestV1 = `package main

import rego.v1

violation contains {"msg": msg} if {
	input.artifact.size > 1
	msg := "more than a byte"
}
`
	conftestExceptions = `package main

deny_size[msg] {
	input.artifact.size > 1
	msg := "too large"
}

deny_other[msg] {
	msg := "other"
}

deny[msg] {
	msg := "plain"
}

exception[rules] {
	input.model.name == data.waived
	rules := ["size", ""]
}
`
	gatekeeper = `package modelrequiredowner

violation[{"msg": msg, "details": {"missing": missing}}] {
	provided := {k | input.review.object.model[k]; input.review.object.model[k] != ""}
	required := {k | k := input.parameters.fields[_]}
	missing := required - provided
	count(missing) > 0
	msg := sprintf("you must provide %v", [missing])
}
`
	gatekeeperKind = `package k8scontainers

import input.review

violation contains {"msg": msg} if {
	review.kind.kind == "Pod"
	msg := "no pods"
}

violation contains {"msg": msg} if {
	review.kind.kind == "Model"
	review.object.artifact.size > 1
	msg := sprintf("%s: %s", [review.operation, review.name])
}
`
)

func TestUsersRego(t *testing.T) {
	for name, c := range map[string]struct {
		files  []string
		change func(*input.Input)
		allow  bool
		rows   map[string]decision.Status
		say    []string // in order, of violations, then warnings, then exceptions
	}{
		"conftest v0, nothing found": {
			files: []string{"main.rego", conftestV0, "lib/messages.rego", conftestLib, "limits/data.json", `{"size": 1e12}`, "data.json", `{"licenses": ["Apache-2.0", "MIT"]}`},
			change: func(in *input.Input) {
				in.Model.Licenses = []string{"MIT"}
				for i := range in.Datasets {
					in.Datasets[i].PersonalData = "none"
				}
			},
			allow: true, rows: map[string]decision.Status{"main/deny": decision.Pass, "main/warn": decision.Pass, "main/deny_license": decision.Pass},
		},
		"conftest v0, all found": {
			files: []string{"main.rego", conftestV0, "lib/messages.rego", conftestLib, "limits/data.json", `{"size": 1}`, "data.json", `{"licenses": ["MIT"]}`},
			change: func(in *input.Input) {
				in.Model.Licenses, in.Model.Name, in.Artifact.Size = []string{"GPL-3.0-only"}, "churn", 77
				in.Datasets = in.Datasets[:1]
				in.Datasets[0].PersonalData, in.Datasets[0].Name = "yes", "people"
			},
			rows: map[string]decision.Status{"main/deny": decision.Fail, "main/warn": decision.Fail, "main/deny_license": decision.Fail},
			say:  []string{"churn is too large: 77 bytes", "license GPL-3.0-only", "people holds personal data"},
		},
		"conftest, future keywords": {
			files: []string{"q.rego", conftestFuture, "quality/data.json", `{"floor": 2}`}, change: func(in *input.Input) {
				in.Metrics = in.Metrics[:1]
				in.Metrics[0].Slice, in.Metrics[0].Value = "all", 1
			},
			rows: map[string]decision.Status{"team/quality/deny": decision.Fail},
		},
		"conftest, import rego.v1": {files: []string{"a.rego", conftestV1}, rows: map[string]decision.Status{"main/violation": decision.Fail}, say: []string{"more than a byte"}},
		"both versions in one policy": {files: []string{"a.rego", conftestV1, "b.rego", conftestFuture, "c/c.rego", conftestLib, "data.json", `{"quality": {"floor": -1}}`},
			rows: map[string]decision.Status{"main/violation": decision.Fail, "team/quality/deny": decision.Pass}},
		"conftest exceptions": {
			files: []string{"a.rego", conftestExceptions, "data.json", `{"waived": "churn"}`}, change: func(in *input.Input) { in.Model.Name = "churn" },
			rows: map[string]decision.Status{"main/deny": decision.Excepted, "main/deny_size": decision.Excepted, "main/deny_other": decision.Fail},
			say:  []string{"other", "plain (excepted by the policy itself: main.exception)", "too large (excepted by the policy itself: main.exception)"},
		},
		"conftest exceptions that do not apply": {
			files: []string{"a.rego", conftestExceptions, "data.json", `{"waived": "other"}`}, change: func(in *input.Input) { in.Model.Name = "churn" },
			rows: map[string]decision.Status{"main/deny": decision.Fail, "main/deny_size": decision.Fail, "main/deny_other": decision.Fail},
		},
		"exception of another shape": {
			files: []string{"a.rego", "package main\ndeny contains \"no\" if true\nexception := true"},
			rows:  map[string]decision.Status{"main/deny": decision.Errored}, say: []string{"the rule could not be evaluated: main.exception must be a set of lists"},
		},
		"gatekeeper, parameters in the policy": {
			files: []string{"a.rego", gatekeeper, "parameters/data.json", `{"modelrequiredowner": {"fields": ["owner", "nothing"]}}`},
			rows:  map[string]decision.Status{"modelrequiredowner/violation": decision.Fail}, say: []string{`you must provide {"nothing"}`},
		},
		"gatekeeper, parameters of the environment": {
			files:  []string{"a.rego", gatekeeper, "parameters/data.json", `{"modelrequiredowner": {"fields": ["owner", "nothing"]}}`},
			change: func(in *input.Input) { in.Environment.Data = params("modelrequiredowner", "fields", "owner") },
			allow:  true, rows: map[string]decision.Status{"modelrequiredowner/violation": decision.Pass},
		},
		"gatekeeper, no parameters": {
			files: []string{"a.rego", gatekeeper}, rows: map[string]decision.Status{"modelrequiredowner/violation": decision.Errored},
			say: []string{"the rule could not be evaluated: package modelrequiredowner reads input.parameters, and there are none: set data.parameters.modelrequiredowner"},
		},
		"gatekeeper, parameters read by a helper": {
			files: []string{"a.rego", "package a\nviolation contains {\"msg\": \"no\"} if data.lib.p == 1", "lib.rego", "package lib\np := input.parameters.x"},
			rows:  map[string]decision.Status{"a/violation": decision.Errored},
		},
		"gatekeeper, review": {
			files: []string{"a.rego", gatekeeperKind}, change: func(in *input.Input) { in.Model.Name = "churn"; in.Context.Action = "promote" },
			rows: map[string]decision.Status{"k8scontainers/violation": decision.Fail}, say: []string{"promote: churn"},
		},
		"partial object": {
			files: []string{"a.rego", "package main\ndeny[k] := v if { some k, v in {\"a\": \"first\", \"b\": {\"msg\": \"second\"}, \"third\": true} }"},
			rows:  map[string]decision.Status{"main/deny": decision.Fail}, say: []string{"first", "second", "third"},
		},
		"partial object of numbers": {files: []string{"a.rego", "package main\ndeny[k] := 1 if some k in [\"a\"]"}, rows: map[string]decision.Status{"main/deny": decision.Errored}},
		"a complete rule":           {files: []string{"a.rego", "package main\ndeny := \"no\" if input.artifact.size < 0"}, rows: map[string]decision.Status{"main/deny": decision.Errored}, say: []string{"the rule could not be evaluated: the rule is undefined"}},
		"an empty text":             {files: []string{"a.rego", "package main\ndeny contains \" \" if true"}, rows: map[string]decision.Status{"main/deny": decision.Errored}},
		"a function named deny":     {files: []string{"a.rego", "package main\ndeny_all(x) if x\nwarn contains \"w\" if deny_all(true)"}, allow: true, rows: map[string]decision.Status{"main/warn": decision.Fail}, say: []string{"w"}},
		"print and trace are no help and no harm": {files: []string{"a.rego", "package main\ndeny contains \"no\" if { print(\"x\", input); trace(\"y\"); input.artifact.size < 0 }"}, allow: true,
			rows: map[string]decision.Status{"main/deny": decision.Pass}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := compile(t, c.files)
			if err != nil {
				t.Fatal(err)
			}
			if c.change == nil {
				c.change = func(*input.Input) {}
			}
			d := evaluateIn(t, p, c.change)
			if d.Allow != c.allow {
				t.Errorf("allow %t", d.Allow)
			}
			for id, st := range c.rows {
				if got := row(t, d, id); got.Status != st {
					t.Errorf("%s: %+v, want %s", id, got, st)
				}
			}
			if len(d.Rules) != len(c.rows)+1 {
				t.Errorf("rules %+v", d.Rules)
			}
			all := append(append(append([]decision.Result{}, d.Violations...), d.Warnings...), d.Exceptions...)
			for i, s := range c.say {
				if i >= len(all) || !strings.HasPrefix(all[i].Message, s) {
					t.Errorf("says %+v, want %q", all, c.say)
					break
				}
			}
			if c.say != nil && len(all) != len(c.say) {
				t.Errorf("says %+v, want %q", all, c.say)
			}
		})
	}
}

func params(pkg, name string, values ...any) map[string]any {
	return map[string]any{"parameters": map[string]any{pkg: map[string]any{name: values}}}
}

// Rules of ours are never read as Rego v0, nor is what neither version takes.
func TestOnlyUsersMayWriteRegoV0(t *testing.T) {
	for name, c := range map[string]struct{ src, want string }{
		"ours":    {rule("X-001", "default pass = false\npass { true }\nfail[x] { x := {\"msg\": \"m\"} }"), "rego_parse_error"},
		"helper":  {"package waybill.lib\nok { true }", "rego_parse_error"},
		"neither": {"package main\ndeny[msg] { msg := }", "a.rego:2"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := compile(t, []string{"a.rego", c.src}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Strict mode still holds for a policy that is only ours.
func TestOursAreHeldToStrictMode(t *testing.T) {
	if _, err := compile(t, []string{"a.rego", rule("X-001", "pass if { unused := 1; true }\nfail := set()")}); err == nil || !strings.Contains(err.Error(), "unused") {
		t.Errorf("%v", err)
	}
}

func TestEnvironmentData(t *testing.T) {
	src := "default pass := false\npass if { input.artifact.size <= data.limits.size; \"MIT\" in data.licenses; data.team.name == \"a\" }\nfail := set()"
	const own = `{"limits": {"size": 5, "other": 1}, "licenses": ["MIT"], "team": {"name": "a"}}`
	p, err := compile(t, []string{"a.rego", rule("X-001", src), "data.json", own})
	if err != nil {
		t.Fatal(err)
	}
	set := func(data map[string]any) decision.Decision {
		return evaluateIn(t, p, func(in *input.Input) {
			in.Artifact.Size, in.Environment.Data = 10, data
		})
	}
	obj := func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	for name, c := range map[string]struct {
		data  map[string]any
		allow bool
		say   string
	}{
		"none":                   {nil, false, "not proven"},
		"replaced":               {obj("limits", obj("size", 10)), true, ""},
		"fraction":               {obj("limits", obj("size", 9.5)), false, "not proven"},
		"more beside it":         {obj("limits", obj("size", 10), "else", []any{1}), true, ""},
		"a list as a whole":      {obj("limits", obj("size", 10), "licenses", []any{"Apache-2.0"}), false, "not proven"},
		"text for a number":      {obj("limits", obj("size", "10")), false, "the environment's data has a text at limits.size, the policy's data.json has a number"},
		"number for an object":   {obj("limits", 10), false, "has a number at limits, the policy's data.json has an object"},
		"null":                   {obj("limits", obj("size", nil)), false, "has null at limits.size"},
		"object for a list":      {obj("licenses", obj("MIT", true)), false, "has an object at licenses"},
		"a rule":                 {obj("waybill", obj("rules", obj("x_001", obj("pass", true)))), false, "may not define waybill"},
		"something where one is": {obj("waybill", 1), false, "may not define waybill"},
	} {
		t.Run(name, func(t *testing.T) {
			d := set(c.data)
			if d.Allow != c.allow {
				t.Errorf("%+v", d)
			}
			if c.say != "" && (len(d.Violations) != 1 || !strings.Contains(d.Violations[0].Message, c.say)) {
				t.Errorf("says %+v, want %q", d.Violations, c.say)
			}
			// Nothing of it stays for the next evaluation.
			if d := set(nil); d.Allow {
				t.Fatalf("the data of an environment stayed: %+v", d)
			}
		})
	}
}

// Data must not speak for a rule, whoever wrote it.
func TestDataIsNoRule(t *testing.T) {
	main := "package main\ndeny contains \"no\" if input.artifact.size > data.main.limit"
	if _, err := compile(t, []string{"a.rego", main, "data.json", `{"main": {"deny": []}}`}); err == nil || !strings.Contains(err.Error(), "main/deny, which is a rule") {
		t.Errorf("%v", err)
	}
	if _, err := compile(t, []string{"a.rego", main, "data.json", `{"main": 1}`}); err == nil || !strings.Contains(err.Error(), "which is a rule") {
		t.Errorf("%v", err)
	}
	p, err := compile(t, []string{"a.rego", main, "main/data.json", `{"limit": 1}`})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]map[string]any{
		"rule":    {"main": map[string]any{"deny": []any{}}},
		"package": {"main": []any{}},
	} {
		d := evaluateIn(t, p, func(in *input.Input) { in.Environment.Data = data })
		if d.Allow || len(d.Violations) != 1 || d.Violations[0].ID != rego.SchemaRule {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := evaluateIn(t, p, func(in *input.Input) { in.Environment.Data = map[string]any{"main": map[string]any{"limit": 1 << 40}} }); !d.Allow {
		t.Errorf("data beside a rule: %+v", d)
	}
}
