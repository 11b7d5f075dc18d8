package library_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	wrego "github.com/waybill-ml/waybill/policy/rego"
)

// full tells whether sweeps run over everything (make nightly) or over a sample.
func full() bool { return os.Getenv("WAYBILL_POLICY_SWEEP") == "full" }

// picked tells whether a sweep looks at this rule. WAYBILL_POLICY_RULE names some (separated by commas), all of whose mutants
// are then tried.
func picked(id string) bool {
	only := os.Getenv("WAYBILL_POLICY_RULE")
	return only == "" || slices.Contains(strings.Split(only, ","), id)
}

// oneRule is the source of a rule with the helpers, apart from everything else.
type oneRule struct {
	info  wrego.RuleInfo
	src   []byte
	lib   map[string]*ast.Module // helpers
	cases []example
}

// example is a fixture with its document parsed once.
type example struct {
	library.Case
	value ast.Value
}

// everyRule reads them once for all tests, which leave them as they are.
var everyRule = sync.OnceValues(func() ([]oneRule, error) {
	p, err := whole()
	if err != nil {
		return nil, err
	}
	cases, err := allCases()
	if err != nil {
		return nil, err
	}
	lib := map[string]*ast.Module{}
	for _, n := range p.Bundle().Names() {
		if strings.HasSuffix(n, ".rego") && !strings.Contains(n, "/") {
			src, _ := p.Bundle().File(n)
			if lib[n], err = parse(src); err != nil {
				return nil, err
			}
		}
	}
	var out []oneRule
	for _, r := range p.Rules() {
		if r.ID == wrego.SchemaRule || !picked(r.ID) {
			continue
		}
		src, ok := p.Bundle().File("rules/" + strings.ToLower(strings.ReplaceAll(r.ID, "-", "_")) + ".rego")
		if !ok {
			return nil, fmt.Errorf("no file for %s", r.ID)
		}
		x := oneRule{info: r, src: src, lib: lib}
		for _, c := range cases {
			if c.Rule != r.ID || strings.HasPrefix(c.Message, "off in") {
				continue // where a rule is off, its source has no part in it
			}
			v, err := ast.ValueFromReader(strings.NewReader(string(c.Doc)))
			if err != nil {
				return nil, fmt.Errorf("%s/%s: %w", c.Rule, c.Name, err)
			}
			x.cases = append(x.cases, example{c, v})
		}
		out = append(out, x)
	}
	return out, nil
})

func oneRules(t testing.TB) []oneRule {
	t.Helper()
	out, err := everyRule()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// module parses the rule anew, so that a mutant can be made in place.
func (x oneRule) module(t testing.TB) *ast.Module {
	t.Helper()
	m, err := parse(x.src)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func parse(src []byte) (*ast.Module, error) {
	return ast.ParseModuleWithOpts("rule.rego", string(src), ast.ParserOptions{RegoVersion: ast.RegoV1})
}

// noticed evaluates the rule's fixtures with a changed module. It gives the first fixture that does not hold any more, "" for
// a mutant that nobody notices, and false for one that does not compile.
func (x oneRule) noticed(t testing.TB, m *ast.Module) (string, bool) {
	t.Helper()
	c := ast.NewCompiler()
	modules := map[string]*ast.Module{"rules": m}
	for n, helpers := range x.lib {
		modules[n] = helpers.Copy() // compiling changes a module
	}
	if c.Compile(modules); c.Failed() {
		return "", false
	}
	ctx := context.Background()
	q, err := rego.New(rego.Query(x.info.Package), rego.Compiler(c), rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	if err != nil {
		return "", false
	}
	for _, e := range x.cases {
		rs, err := q.Eval(ctx, rego.EvalParsedInput(e.value))
		if err != nil || len(rs) != 1 {
			return e.Name, true
		}
		if !holds(e.Case, rs[0].Expressions[0].Value) {
			return e.Name, true
		}
	}
	return "", true
}

// holds wants both halves of a rule to say what the fixture says: a denied document is not proven, and the message names it.
// The gate denies when either half does, so this is stricter than what the gate needs.
func holds(c library.Case, v any) bool {
	doc, _ := v.(map[string]any)
	pass, _ := doc["pass"].(bool)
	fails, _ := doc["fail"].([]any)
	skip, skips := doc["skip"].(string)
	if skips || c.Want == decision.Skipped {
		return skips && c.Want == decision.Skipped && strings.Contains(skip, c.Message) && !pass && len(fails) == 0
	}
	if c.Want == decision.Pass {
		return pass && len(fails) == 0
	}
	if pass {
		return false
	}
	if len(fails) == 0 {
		return strings.Contains("not proven", c.Message)
	}
	for _, f := range fails {
		o, _ := f.(map[string]any)
		if msg, _ := o["msg"].(string); strings.Contains(msg, c.Message) {
			return true
		}
	}
	return false
}

// Both halves of each rule agree with its fixtures: pass is false wherever a document is denied, and fail names the reason.
// So neither half leans on the other.
func TestBothHalvesOfARule(t *testing.T) {
	n := 0
	for _, x := range oneRules(t) {
		if name, ok := x.noticed(t, x.module(t)); !ok || name != "" {
			t.Errorf("%s: compiles %t, fixture %q", x.info.ID, ok, name)
		}
		n += len(x.cases)
	}
	t.Logf("%d fixtures", n)
}

// mutant is one change to a rule's source.
type mutant struct {
	what string // for people: what was changed and where
	make func(m *ast.Module)
}

var swaps = map[string][]string{"gte": {"gt", "lt"}, "gt": {"gte", "lte"}, "lte": {"lt", "gt"}, "lt": {"lte", "gte"},
	"equal": {"neq"}, "neq": {"equal"}, "plus": {"minus"}, "minus": {"plus"}, "internal.member_2": nil}

// mutants lists the changes to a rule: each condition dropped, each comparison replaced, each clause of a rule taken away.
func mutants(m *ast.Module) []mutant {
	var out []mutant
	i := 0
	ast.WalkBodies(m, func(b ast.Body) bool {
		for j := range b {
			body, expr := i, j
			if isTrue(b[j]) || b[j].IsSome() {
				continue // what was never written, and declarations
			}
			out = append(out, mutant{fmt.Sprintf("without %s", oneLine(b[j])), func(m *ast.Module) {
				at(m, body)[expr] = ast.NewExpr(ast.BooleanTerm(true))
			}})
			if b[j].Negated {
				out = append(out, mutant{fmt.Sprintf("not taken away from %s", oneLine(b[j])), func(m *ast.Module) {
					at(m, body)[expr].Negated = false
				}})
			}
		}
		i++
		return false
	})
	k := 0
	eachCall(m, func(op *ast.Term) {
		call := k
		k++
		for _, to := range swaps[op.Value.String()] {
			out = append(out, mutant{fmt.Sprintf("%s for %s", to, op.Value), func(m *ast.Module) {
				n := 0
				eachCall(m, func(op *ast.Term) {
					if n == call {
						op.Value = ast.Ref{ast.VarTerm(to)}
					}
					n++
				})
			}})
		}
	})
	names := map[string]int{}
	for _, r := range m.Rules {
		names[r.Head.Name.String()]++
	}
	for j, r := range m.Rules {
		if r.Default || names[r.Head.Name.String()] < 2 {
			continue
		}
		out = append(out, mutant{fmt.Sprintf("without a clause of %s", r.Head.Name), func(m *ast.Module) {
			m.Rules = slices.Delete(m.Rules, j, j+1)
		}})
	}
	seen := map[string]int{}
	for i := range out {
		seen[out[i].what]++
		if n := seen[out[i].what]; n > 1 {
			out[i].what += fmt.Sprintf(" #%d", n)
		}
	}
	return out
}

// eachCall calls f with the operator of every call of a builtin, in expressions and in terms.
func eachCall(m *ast.Module, f func(op *ast.Term)) {
	ast.WalkNodes(m, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.Expr:
			if ts, ok := x.Terms.([]*ast.Term); ok && len(ts) > 0 {
				f(ts[0])
			}
		case *ast.Term:
			if c, ok := x.Value.(ast.Call); ok {
				f(c[0])
			}
		}
		return false
	})
}

func at(m *ast.Module, n int) ast.Body {
	var found ast.Body
	i := 0
	ast.WalkBodies(m, func(b ast.Body) bool {
		if i == n {
			found = b
		}
		i++
		return false
	})
	return found
}

func isTrue(e *ast.Expr) bool {
	t, ok := e.Terms.(*ast.Term)
	return ok && t.Value.Compare(ast.Boolean(true)) == 0
}

func oneLine(n fmt.Stringer) string { return strings.Join(strings.Fields(n.String()), " ") }

// survivors are the mutants that no fixture notices, each with the reason why none can: mostly conditions that only say once
// more what another one demands. The list may shrink and not grow.
func survivors(t testing.TB) map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/survivors.json")
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]string
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEachSurvivorHasAReason(t *testing.T) {
	for id, why := range survivors(t) {
		if strings.TrimSpace(why) == "" {
			t.Errorf("%s: no reason is stated", id)
		}
	}
}

// line is a rule in the table of docs/policy-evidence.md.
type line struct {
	rule                             wrego.RuleInfo
	mutants, noticed, stillborn, lax int
}

// Each condition of each rule is dropped in turn, each comparison replaced, each clause taken away: a fixture notices, or the
// mutant is in the list. A sample in a plain run, all with WAYBILL_POLICY_SWEEP=full and all of some rules with
// WAYBILL_POLICY_RULE; WAYBILL_POLICY_UPDATE=1 after a full sweep writes the list, where new survivors lack their reason yet,
// and docs/policy-evidence.md.
func TestEachConditionIsNeeded(t *testing.T) {
	known := survivors(t)
	some := os.Getenv("WAYBILL_POLICY_RULE") != ""
	update := full() && !some && os.Getenv("WAYBILL_POLICY_UPDATE") != ""
	left, lines, there := map[string]string{}, []line{}, map[string]bool{}
	var sum line
	for n, x := range oneRules(t) {
		l := line{rule: x.info}
		for i, mu := range mutants(x.module(t)) {
			id := x.info.ID + ": " + mu.what
			there[id] = true
			if !full() && !some && (i+n)%20 != 0 {
				continue
			}
			m := x.module(t)
			mu.make(m)
			by, ok := x.noticed(t, m)
			l.mutants++
			switch {
			case !ok:
				l.stillborn++
			case by != "":
				l.noticed++
				if _, listed := known[id]; listed && !update {
					t.Errorf("%s notices %s, which is listed as unnoticed", by, id)
				}
			default:
				l.lax++
				left[id] = known[id]
				if known[id] == "" && !update {
					t.Errorf("nobody notices %s", id)
				}
			}
		}
		sum.mutants, sum.noticed, sum.stillborn, sum.lax = sum.mutants+l.mutants, sum.noticed+l.noticed, sum.stillborn+l.stillborn, sum.lax+l.lax
		lines = append(lines, l)
	}
	for id := range known {
		if rule, _, _ := strings.Cut(id, ": "); picked(rule) && !there[id] && !update {
			t.Errorf("%s is listed as unnoticed, and there is no such mutant", id)
		}
	}
	t.Logf("%d mutants: %d noticed, %d do not compile, %d are not noticed", sum.mutants, sum.noticed, sum.stillborn, sum.lax)
	if !some && sum.noticed*10 < (sum.mutants-sum.stillborn)*7 {
		t.Errorf("only %d of %d mutants are noticed", sum.noticed, sum.mutants-sum.stillborn)
	}
	if update {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := e.Encode(left); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/survivors.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("../../docs/policy-evidence.md", table(t, lines, sum), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// table is docs/policy-evidence.md.
func table(t testing.TB, lines []line, sum line) []byte {
	t.Helper()
	type count struct{ deny, pass, skip, alone int }
	counts := map[string]count{}
	all := 0
	for _, c := range fixtures(t) {
		n := counts[c.Rule]
		switch c.Want {
		case decision.Fail:
			n.deny++
			if slices.Equal(decision.IDs(c.decision.Violations), []string{c.Rule}) || slices.Equal(decision.IDs(c.decision.Warnings), []string{c.Rule}) {
				n.alone++
			}
		case decision.Pass:
			n.pass++
		case decision.Skipped:
			n.skip++
		}
		counts[c.Rule] = n
		all++
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# What shows that the rules of the default policy work

Written by the library's tests: `+"`WAYBILL_POLICY_SWEEP=full WAYBILL_POLICY_UPDATE=1 go test ./policy/library -run TestEachConditionIsNeeded`"+`.

%d rules of the library have %d fixtures: documents that the rule must deny, must pass, or has nothing to say about. "alone"
counts the denied documents that no other rule denies: without the rule they would pass. A mutant is the rule with one
condition dropped, one comparison replaced or one clause taken away; it is noticed when a fixture's outcome or message
changes, in the half that proves (pass) or in the half that explains (fail). The gate denies when either half does. Mutants
that no fixture notices are listed with the reason in `+"`policy/library/testdata/survivors.json`"+`, which may only shrink: most repeat
what the same rule demands elsewhere. `+"`WAYBILL_POLICY_RULE=MET-004,AGE-001`"+` tries the mutants of these rules alone.

%d mutants: %d noticed, %d do not compile, %d not noticed.

| Rule | Title | Deny | Alone | Pass | Skip | Mutants | Noticed | Not noticed |
|---|---|--:|--:|--:|--:|--:|--:|--:|
`, len(lines), all, sum.mutants, sum.noticed, sum.stillborn, sum.lax)
	for _, l := range lines {
		n := counts[l.rule.ID]
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d |\n", l.rule.ID, l.rule.Title, n.deny, n.alone, n.pass, n.skip, l.mutants-l.stillborn, l.noticed, l.lax)
	}
	return []byte(b.String())
}
