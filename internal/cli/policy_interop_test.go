package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// tool finds a program that only some machines have.
func policyTool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not installed, and WAYBILL_REQUIRE_TOOLS is set", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return p
}

// runTool runs a program and returns its stdout; what it exits with is the caller's affair.
func runTool(t *testing.T, dir, name string, args ...string) (stdout []byte, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	if err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%s: %v\n%s", name, err, errb.String())
	}
	if len(out.Bytes()) == 0 && err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, errb.String())
	}
	return out.Bytes(), cmd.ProcessState.ExitCode()
}

func writeTree(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for n, b := range files {
		p := filepath.Join(dir, filepath.FromSlash(n))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// libraryCases are the fixtures that a rule was asked about, with the rule's package name.
func libraryCases(t *testing.T) (*bundle.Bundle, *rego.Policy, []library.Case) {
	t.Helper()
	b, err := library.Default()
	if err != nil {
		t.Fatal(err)
	}
	p, err := rego.Compile(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := library.Cases(b.Digest())
	if err != nil {
		t.Fatal(err)
	}
	return b, p, slices.DeleteFunc(cases, func(c library.Case) bool { return c.Rule == rego.SchemaRule })
}

func rulePackage(id string) string { return strings.ToLower(strings.ReplaceAll(id, "-", "_")) }

// TestOPARunsTheLibrary asks the real opa about every fixture: each rule says what it says in the gate.
func TestOPARunsTheLibrary(t *testing.T) {
	opa := policyTool(t, "opa")
	b, p, cases := libraryCases(t)
	infos := p.Rules()
	cases = slices.DeleteFunc(cases, func(c library.Case) bool { // a profile that turns the rule off is the gate's affair
		var in struct {
			Environment struct{ Profile string }
		}
		if err := json.Unmarshal(c.Doc, &in); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(infos, func(r rego.RuleInfo) bool { return r.ID == c.Rule })
		return i < 0 || levelIn(infos[i], in.Environment.Profile) == "off"
	})
	dir := t.TempDir()
	files := map[string][]byte{}
	for _, n := range b.Names() {
		if strings.HasSuffix(n, ".rego") || filepath.Base(n) == "data.json" {
			files["policy/"+n], _ = b.File(n)
		}
	}
	var docs []any
	for _, c := range cases {
		docs = append(docs, map[string]any{"rule": rulePackage(c.Rule), "doc": json.RawMessage(c.Doc)})
	}
	raw, err := json.Marshal(map[string]any{"cases": docs})
	if err != nil {
		t.Fatal(err)
	}
	files["cases/cases.json"] = raw
	var compare strings.Builder // one reference for each rule, since they are fixed
	compare.WriteString("package compare\n")
	seen := map[string]bool{}
	for _, c := range cases {
		if n := rulePackage(c.Rule); !seen[n] {
			seen[n] = true
			fmt.Fprintf(&compare, "\nresults[i] := r if {\n\tsome i, c in data.cases\n\tc.rule == %q\n\tr := data.waybill.rules.%s with input as c.doc\n}\n", n, n)
		}
	}
	files["policy/compare.rego"] = []byte(compare.String())
	writeTree(t, dir, files)
	out, code := runTool(t, dir, opa, "eval", "--data", "policy", "--data", "cases/cases.json", "--strict-builtin-errors", "--format", "json",
		"[r | some i in numbers.range(0, count(data.cases) - 1); r := data.compare.results[i]]")
	if code != 0 {
		t.Fatalf("opa eval: %d\n%s", code, out)
	}
	var res struct {
		Result []struct {
			Expressions []struct {
				Value []struct {
					Pass bool    `json:"pass"`
					Fail []any   `json:"fail"`
					Skip *string `json:"skip"`
				} `json:"value"`
			} `json:"expressions"`
		} `json:"result"`
	}
	if err := json.Unmarshal(out, &res); err != nil || len(res.Result) != 1 {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	got := res.Result[0].Expressions[0].Value
	if len(got) != len(cases) {
		t.Fatalf("%d of %d fixtures have a result", len(got), len(cases))
	}
	for i, g := range got {
		st := decision.Fail
		switch {
		case g.Skip != nil:
			st = decision.Skipped
		case g.Pass && len(g.Fail) == 0:
			st = decision.Pass
		}
		if st != cases[i].Want {
			t.Errorf("%s %q: opa says %s, the gate %s", cases[i].Rule, cases[i].Name, st, cases[i].Want)
		}
	}
	t.Logf("opa agrees on %d fixtures of %d rules", len(got), len(seen))
}

// TestConftestRunsTheLibrary asks the real conftest, through the adapter, about a document that each rule denies, and one
// that it passes.
func TestConftestRunsTheLibrary(t *testing.T) {
	conftest := policyTool(t, "conftest")
	b, p, cases := libraryCases(t)
	dir := t.TempDir()
	files := map[string][]byte{}
	for _, n := range b.Names() {
		files["policy/"+n], _ = b.File(n)
	}
	adapter, err := p.Conftest()
	if err != nil {
		t.Fatal(err)
	}
	files["policy/"+rego.ConftestFile] = []byte(adapter)
	args := []string{"test", "--no-color", "--output", "json", "-p", "policy"}
	asked := map[string]library.Case{}
	seen := map[string]bool{}
	for i, c := range cases {
		if k := c.Rule + string(c.Want); seen[k] {
			continue
		} else {
			seen[k] = true
		}
		name := fmt.Sprintf("facts%d.json", i)
		files[name], asked[name] = c.Doc, c
		args = append(args, name)
	}
	writeTree(t, dir, files)
	out, _ := runTool(t, dir, conftest, args...)
	type finding struct {
		Msg      string         `json:"msg"`
		Metadata map[string]any `json:"metadata"`
	}
	var res []struct {
		Filename string    `json:"filename"`
		Failures []finding `json:"failures"`
		Warnings []finding `json:"warnings"`
	}
	if err := json.Unmarshal(out, &res); err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	if len(res) != len(asked) {
		t.Fatalf("%d results for %d documents", len(res), len(asked))
	}
	for _, r := range res {
		c := asked[r.Filename]
		d := p.Evaluate(t.Context(), c.Doc)
		ids := func(list []string) string { slices.Sort(list); return strings.Join(slices.Compact(list), " ") }
		var want, got []string
		for _, v := range append(d.Violations, d.Warnings...) {
			want = append(want, v.ID)
		}
		for _, f := range append(r.Failures, r.Warnings...) {
			id, _ := f.Metadata["id"].(string)
			if id == "" {
				id = f.Msg
			}
			got = append(got, id)
		}
		for _, e := range d.Exceptions { // which conftest does not know
			want = append(want, e.ID)
		}
		if ids(want) != ids(got) {
			t.Errorf("%s %q: conftest says %q, the gate %q", c.Rule, c.Name, ids(got), ids(want))
		}
	}
	t.Logf("conftest agrees on %d documents", len(res))
}

// TestUnitTestsAgree runs one user's unit tests with opa test, conftest verify and policy test.
func TestUnitTestsAgree(t *testing.T) {
	opa, conftest := policyTool(t, "opa"), policyTool(t, "conftest")
	dir := t.TempDir()
	writeTree(t, dir, map[string][]byte{
		"policy/main.rego":      []byte("package main\n\ndeny contains \"large\" if input.artifact.size > 10\n"),
		"policy/main_test.rego": []byte("package main\n\ntest_large if count(deny) == 1 with input as {\"artifact\": {\"size\": 11}}\n\ntest_wrong if count(deny) == 1 with input as {\"artifact\": {\"size\": 1}}\n"),
	})
	got, err := rego.RunTests(t.Context(), os.DirFS(filepath.Join(dir, "policy")), rego.TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]bool{}
	for _, r := range got {
		ours[r.Name[strings.LastIndexByte(r.Name, '.')+1:]] = r.Status == rego.TestPassed
	}
	out, code := runTool(t, dir, opa, "test", "policy", "--format", "json")
	var theirs []struct {
		Name string `json:"name"`
		Fail bool   `json:"fail"`
	}
	if err := json.Unmarshal(out, &theirs); err != nil || code == 0 {
		t.Fatalf("exit %d %v\n%s", code, err, out)
	}
	for _, r := range theirs {
		if ours[r.Name] == r.Fail {
			t.Errorf("%s: opa says failed %t, policy test passed %t", r.Name, r.Fail, ours[r.Name])
		}
	}
	out, code = runTool(t, dir, conftest, "verify", "--no-color", "-p", "policy", "--output", "json")
	if code == 0 || !strings.Contains(string(out), "test_wrong") {
		t.Errorf("conftest verify: exit %d\n%s", code, out)
	}
	if len(ours) != 2 || len(theirs) != 2 {
		t.Errorf("%v %v", ours, theirs)
	}
}
