package lint_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/waybill-ml/waybill/policy/lint"
)

// open is a policy that fails open: it lets good pass, denies bad, and lets the facts without the value pass as well.
type open struct {
	name    string
	code    string
	rego    string
	good    string
	bad     string
	missing string
	data    string
	manual  string // a safe form, where lint describes it and cannot write it
}

const goodX, badX, noX = `{"x": "a1"}`, `{"x": "b1"}`, `{}`

var opens = []open{
	{name: "negated builtin", code: "FO-001", rego: `deny if not regex.match("^a", input.x)`, good: goodX, bad: badX, missing: noX},
	{name: "negated startswith", code: "FO-001", rego: `deny contains "no" if not startswith(input.x, "a")`, good: goodX, bad: badX, missing: noX},
	{name: "negated nested calls", code: "FO-001", rego: `deny if not startswith(lower(trim_space(input.x)), "a")`, good: goodX, bad: badX, missing: noX},
	{name: "negated membership", code: "FO-001", rego: `deny if not input.b.c in {"a"}`, good: `{"b":{"c":"a"}}`, bad: `{"b":{"c":"z"}}`, missing: `{"b":{}}`},
	{name: "negated count", code: "FO-001", rego: `deny if not count(input.list) > 1`, good: `{"list":[1,2]}`, bad: `{"list":[1]}`, missing: `{}`},
	{name: "negated function", code: "FO-001", rego: "deny if not good(input.x)\ngood(v) if startswith(v, \"a\")", good: goodX, bad: badX, missing: noX},
	{name: "not equal", code: "FO-002", rego: `deny if input.x != "a1"`, good: goodX, bad: badX, missing: noX},
	{name: "threshold", code: "FO-002", rego: `deny if input.score < 0.8`, good: `{"score":0.9}`, bad: `{"score":0.1}`, missing: `{}`},
	{name: "arithmetic", code: "FO-002", rego: `deny if input.a + input.b > 3`, good: `{"a":1,"b":1}`, bad: `{"a":3,"b":1}`, missing: `{"a":3}`},
	{name: "equality", code: "FO-002", rego: `deny contains msg if { input.risk == "high"; msg := "risk" }`, good: `{"risk":"low"}`, bad: `{"risk":"high"}`, missing: `{}`},
	{name: "index", code: "FO-002", rego: `deny if input.list[0] != "a"`, good: `{"list":["a"]}`, bad: `{"list":["b"]}`, missing: `{"list":[]}`,
		manual: "deny if not first\nfirst if input.list[0] == \"a\""},
	{name: "key in a variable", code: "FO-002", rego: "deny if {\n\tk := \"x\"\n\tinput[k] != \"a1\"\n}", good: goodX, bad: badX, missing: noX},
	{name: "local variable", code: "FO-004", rego: "deny if {\n\tx := input.x\n\tx != \"a1\"\n}", good: goodX, bad: badX, missing: noX},
	{name: "import of the input", code: "FO-002", rego: "import input.spec as s\n\ndeny if s.x != \"a1\"", good: `{"spec":{"x":"a1"}}`, bad: `{"spec":{"x":"q"}}`, missing: `{"spec":{}}`},
	{name: "flag", code: "FO-004", rego: `deny if input.insecure`, good: `{"insecure":false}`, bad: `{"insecure":true}`, missing: `{}`},
	{name: "builtin", code: "FO-004", rego: `deny if startswith(input.x, "b")`, good: goodX, bad: badX, missing: noX},
	{name: "membership", code: "FO-004", rego: `deny if input.x in {"b1"}`, good: goodX, bad: badX, missing: noX},
	{name: "iteration", code: "FO-003", rego: "deny contains c if {\n\tsome c in input.list\n\tc == \"bad\"\n}", good: `{"list":["ok"]}`, bad: `{"list":["bad"]}`, missing: `{}`},
	{name: "fields of elements", code: "FO-002", rego: "deny contains \"image\" if {\n\tsome c in input.list\n\tc.image != \"a\"\n}\n\ndeny contains \"none\" if not has_list\n\nhas_list if input.list != null", good: `{"list":[{"image":"a"}]}`, bad: `{"list":[{"image":"b"}]}`, missing: `{"list":[{"name":"c"}]}`},
	{name: "wildcard", code: "FO-002", rego: `deny if input.list[_].x == "bad"`, good: `{"list":[{"x":"ok"}]}`, bad: `{"list":[{"x":"bad"}]}`, missing: `{"list":[{}]}`},
	{name: "keys and values", code: "FO-003", rego: "deny if {\n\tsome k, v in input.labels\n\tk == \"bad\"\n\tv == 1\n}", good: `{"labels":{"a":1}}`, bad: `{"labels":{"bad":1}}`, missing: `{}`},
	{name: "helper rule", code: "FO-002", rego: "deny if bad\n\nbad if input.x != \"a1\"", good: goodX, bad: badX, missing: noX},
	{name: "helper with default", code: "FO-002", rego: "deny if bad\n\ndefault bad := false\n\nbad if input.x == \"b1\"", good: goodX, bad: badX, missing: noX},
	{name: "the input as an argument", code: "FO-002", rego: "deny if wrong(input)\n\nwrong(i) if i.x != \"a1\"", good: goodX, bad: badX, missing: noX},
	{name: "two functions deep", code: "FO-002", rego: "deny if outer(input.spec)\n\nouter(s) if inner(s.x)\n\ninner(x) if x.y != \"a\"\n\ndeny if not spec\n\nspec if input.spec.x != null", good: `{"spec":{"x":{"y":"a"}}}`, bad: `{"spec":{"x":{"y":"b"}}}`, missing: `{"spec":{"x":{}}}`},
	{name: "set rule", code: "FO-003", rego: "deny contains x if some x in offences\n\noffences contains v.id if {\n\tsome v in input.vulns\n\tv.severity == \"critical\"\n}", good: `{"vulns":[{"id":"1","severity":"low"}]}`, bad: `{"vulns":[{"id":"1","severity":"critical"}]}`, missing: `{}`},
	{name: "comprehension counted", code: "FO-003", rego: `deny if count([v | some v in input.vulns; v.severity == "critical"]) > 0`, good: `{"vulns":[{"severity":"low"}]}`, bad: `{"vulns":[{"severity":"critical"}]}`, missing: `{}`},
	{name: "negation in a comprehension", code: "FO-001", rego: "deny if count([v | some v in input.vulns; not startswith(v.id, \"ok\")]) > 0\n\ndeny if not listed\n\nlisted if input.vulns != null", good: `{"vulns":[{"id":"ok1"}]}`, bad: `{"vulns":[{"id":"b"}]}`, missing: `{"vulns":[{}]}`},
	{name: "every in a denial", code: "FO-002", rego: "deny if every x in input.list { x.ok != true }\n\ndeny if not listed\n\nlisted if input.list != null", good: `{"list":[{"ok":true}]}`, bad: `{"list":[{"ok":false}]}`, missing: `{"list":[{"ok":false},{}]}`},
	{name: "message", code: "FO-014", rego: "deny contains msg if {\n\tnot good\n\tmsg := sprintf(\"%s is bad\", [input.name])\n}\n\ngood if input.x == \"a1\"", good: `{"x":"a1","name":"n"}`, bad: `{"x":"b","name":"n"}`, missing: `{"x":"b"}`},
	{name: "message in the head", code: "FO-014", rego: "deny contains sprintf(\"%s is bad\", [input.name]) if not good\n\ngood if input.x == \"a1\"", good: `{"x":"a1","name":"n"}`, bad: `{"x":"b","name":"n"}`, missing: `{"x":"b"}`},
	{name: "threshold in data", code: "FO-010", rego: "deny if input.score < data.limits.min\n\ndeny if not scored\n\nscored if input.score != null", good: `{"score":0.9}`, bad: `{"score":0.1}`, missing: `{"score":0.1}`, data: `{}`},
	{name: "threshold by a key", code: "FO-010", rego: "deny if input.score < data.limits[input.env]\n\ndeny if not scored\n\nscored if { input.score != null; input.env != null }", good: `{"score":0.9,"env":"p"}`, bad: `{"score":0.1,"env":"p"}`, missing: `{"score":0.1,"env":"q"}`, data: `{"limits":{"p":0.5}}`},
	{name: "missing else", code: "FO-012", rego: "deny if input.score < limit\n\nlimit := 0.5 if input.env == \"p\"\n\ndeny if not scored\n\nscored if { input.score != null; input.env != null }", good: `{"score":0.9,"env":"p"}`, bad: `{"score":0.1,"env":"p"}`, missing: `{"score":0.1,"env":"q"}`},
	{name: "function without else", code: "FO-012", rego: "deny if input.score < limit(input.env)\n\nlimit(e) := 0.5 if e == \"p\"\n\ndeny if not scored\n\nscored if { input.score != null; input.env != null }", good: `{"score":0.9,"env":"p"}`, bad: `{"score":0.1,"env":"p"}`, missing: `{"score":0.1,"env":"q"}`},
	{name: "boolean compared with false", code: "FO-012", rego: "deny if ok == false\n\nok if input.x == \"a1\"\n\nok := false if input.x == \"b1\"", good: goodX, bad: badX, missing: noX, manual: "deny if not ok\n\nok if input.x == \"a1\""},
	{name: "table", code: "FO-016", rego: "levels := {\"low\": 1, \"high\": 9}\n\ndeny if levels[input.x] > 5\n\ndeny if not has\n\nhas if input.x != null", good: `{"x":"low"}`, bad: `{"x":"high"}`, missing: `{"x":"critical"}`},
	{name: "default that passes", code: "FO-008", rego: `deny if object.get(input, "signed", true) == false`, good: `{"signed":true}`, bad: `{"signed":false}`, missing: `{}`},
	{name: "default below a path", code: "FO-008", rego: `deny if object.get(input, ["a", "b"], "none") == "bad"`, good: `{"a":{"b":"x"}}`, bad: `{"a":{"b":"bad"}}`, missing: `{}`},
	{name: "allow by a default", code: "FO-008", rego: "default allow := false\n\nallow if object.get(input, \"signed\", true) == true", good: `{"signed":true}`, bad: `{"signed":false}`, missing: `{}`},
	{name: "negated value", code: "FO-005", rego: "default allow := false\n\nallow if not input.blocked", good: `{"blocked":false}`, bad: `{"blocked":true}`, missing: `{}`},
	{name: "negated equality", code: "FO-005", rego: "default allow := false\n\nallow if not input.x == \"b1\"", good: goodX, bad: badX, missing: noX},
	{name: "negated helper", code: "FO-005", rego: "default allow := false\n\nallow if not evil\n\nevil if startswith(input.x, \"b\")", good: goodX, bad: badX, missing: noX},
	{name: "pass of ours", code: "FO-005", rego: "default allow := false\n\nallow if not evil(input)\n\nevil(i) if i.x == \"b1\"", good: goodX, bad: badX, missing: noX},
	{name: "none counted", code: "FO-007", rego: "default allow := false\n\nallow if count([v | some v in input.vulns; v.severity == \"critical\"]) == 0", good: `{"vulns":[{"severity":"low"}]}`, bad: `{"vulns":[{"severity":"critical"}]}`, missing: `{}`},
	{name: "no denial", code: "FO-007", rego: "default allow := false\n\nallow if count(offences) == 0\n\noffences contains v if {\n\tsome v in input.vulns\n\tv == \"bad\"\n}", good: `{"vulns":["ok"]}`, bad: `{"vulns":["bad"]}`, missing: `{}`},
	{name: "set difference", code: "FO-003", rego: "deny if count(wanted - {\"a\"}) > 0\n\nwanted := {x | some x in input.want}", good: `{"want":["a"]}`, bad: `{"want":["b"]}`, missing: `{}`},
	{name: "every of none", code: "FO-006", rego: "default allow := false\n\nallow if every x in input.list { x == \"ok\" }", good: `{"list":["ok"]}`, bad: `{"list":["bad"]}`, missing: `{"list":[]}`},
	{name: "every over a filter", code: "FO-007", rego: "default allow := false\n\nallow if {\n\tcount(input.list) > 0\n\tevery x in wanted { x.ok == true }\n}\n\nwanted contains x if {\n\tsome x in input.list\n\tx.kind == \"k\"\n}", good: `{"list":[{"kind":"k","ok":true}]}`, bad: `{"list":[{"kind":"k","ok":false}]}`, missing: `{"list":[{"ok":false}]}`},
	{name: "glob", code: "FO-009", rego: "deny if glob.match(\"*-NC-*\", [], input.x)\n\ndeny if not has\n\nhas if input.x != null", good: `{"x":"MIT"}`, bad: `{"x":"CC-NC-1"}`, missing: `{"x":"CC-BY-NC-4.0"}`},
	{name: "allow by default", code: "FO-011", rego: "default allow := true\n\nallow := false if input.x == \"b1\"", good: goodX, bad: badX, missing: noX, manual: "default allow := false\n\nallow if input.x == \"a1\""},
	{name: "allow unless denied", code: "FO-013", rego: "default allow := false\n\nallow if not deny\n\ndeny if input.x == \"b1\"", good: goodX, bad: badX, missing: noX, manual: "default allow := false\n\nallow if input.x == \"a1\""},
	{name: "nested package", code: "FO-002", rego: "import data.lib.checks as c\n\ndeny if c.wrong", good: goodX, bad: badX, missing: noX, data: "lib"},
	{name: "refs through a rule", code: "FO-002", rego: "meta := input.meta\n\ndeny if meta.x != \"a\"\n\ndeny if not has\n\nhas if input.meta != null", good: `{"meta":{"x":"a"}}`, bad: `{"meta":{"x":"b"}}`, missing: `{"meta":{}}`},
}

func files(o open, src string) lint.Files {
	fs := lint.Files{"p.rego": []byte("package p\n\n" + src + "\n")}
	switch {
	case o.data == "lib":
		fs["lib.rego"] = []byte("package lib.checks\n\nwrong if input.x != \"a1\"\n")
	case o.data != "":
		fs["data.json"] = []byte(o.data)
	}
	return fs
}

// denied evaluates a policy as OPA does: a deny that fired, or an allow that did not.
func denied(t *testing.T, fs lint.Files, input string) bool {
	t.Helper()
	modules := map[string]*ast.Module{}
	data := map[string]any{}
	for n, b := range fs {
		if n == "data.json" {
			if err := json.Unmarshal(b, &data); err != nil {
				t.Fatal(err)
			}
			continue
		}
		m, err := ast.ParseModuleWithOpts(n, string(b), ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		modules[n] = m
	}
	c := ast.NewCompiler()
	if c.Compile(modules); c.Failed() {
		t.Fatalf("%v\n%s", c.Errors, fs["p.rego"])
	}
	var in any
	if err := json.Unmarshal([]byte(input), &in); err != nil {
		t.Fatal(err)
	}
	rs, err := rego.New(rego.Query("data.p"), rego.Compiler(c), rego.Store(inmem.NewFromObject(data)), rego.Input(in)).Eval(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	doc := rs[0].Expressions[0].Value.(map[string]any)
	if _, decides := modulesAllow(fs); decides {
		return doc["allow"] != true
	}
	switch d := doc["deny"].(type) {
	case bool:
		return d
	case []any:
		return len(d) > 0
	}
	return false
}

func modulesAllow(fs lint.Files) (string, bool) {
	s := string(fs["p.rego"])
	return s, strings.Contains(s, "\nallow ") || strings.Contains(s, "default allow")
}

func run(t *testing.T, fs lint.Files) []lint.Finding {
	t.Helper()
	got, err := lint.Run(fs, lint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func show(fs []lint.Finding) string {
	var b strings.Builder
	for _, f := range fs {
		fmt.Fprintf(&b, "  %s:%d:%d %s %s: %s [%s]\n", f.File, f.Line, f.Column, f.Code, f.Severity, f.Message, f.Missing)
	}
	return b.String()
}

// TestFailOpen shows for each pattern that it is open, that lint finds it, and that the form which lint writes is closed
// and that lint has nothing more to say about it.
func TestFailOpen(t *testing.T) {
	for _, o := range opens {
		t.Run(o.name, func(t *testing.T) {
			fs := files(o, o.rego)
			if denied(t, fs, o.good) || !denied(t, fs, o.bad) && o.bad != o.missing {
				t.Fatal("the policy does not do what it seems to do")
			}
			if denied(t, fs, o.missing) {
				t.Fatal("the policy is not open")
			}
			got := run(t, fs)
			if !slices.ContainsFunc(got, func(f lint.Finding) bool { return f.Code == o.code && f.Fix != "" && f.Why != "" && f.Line > 0 }) {
				t.Fatalf("no %s:\n%s", o.code, show(got))
			}
			safe := fs
			if o.manual != "" {
				safe = files(o, o.manual)
			} else {
				for range 8 {
					i := slices.IndexFunc(run(t, safe), func(f lint.Finding) bool { return len(f.Edits) > 0 })
					if i < 0 {
						break
					}
					safe = lint.Apply(safe, run(t, safe)[i])
				}
			}
			if rest := run(t, safe); len(rest) > 0 {
				t.Errorf("still found after its own advice:\n%s%s", show(rest), safe["p.rego"])
			}
			if !denied(t, safe, o.missing) {
				t.Errorf("still open:\n%s", safe["p.rego"])
			}
			if denied(t, safe, o.good) && o.data != "{}" || !denied(t, safe, o.bad) {
				t.Errorf("the safe form decides otherwise:\n%s", safe["p.rego"])
			}
		})
	}
}
