package rego

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/waybill-ml/waybill/policy/decision"
)

// Outcomes of a condition over one facts document.
const (
	Holds      = "holds"
	HoldsNot   = "does not hold"
	Undefined  = "undefined" // something that it reads is missing
	NotReached = "not reached"
)

// Explanation tells why one rule said what it said.
type Explanation struct {
	Decision decision.Decision `json:"-"`
	Status   decision.Status   `json:"status"`
	Level    string            `json:"level"`
	Detail   string            `json:"detail"`
	Findings []string          `json:"findings"`
	// Clauses are the ways in which the rule can be met (one is enough), then the helpers that did not hold on the way.
	// For a rule in conftest's shape they are the ways in which it denies.
	Clauses []Clause `json:"clauses"`
}

// Clause is one rule body: all of its conditions must hold.
type Clause struct {
	Name       string      `json:"name"`
	File       string      `json:"file"`
	Line       int         `json:"line"`
	Holds      bool        `json:"holds"`
	Helper     bool        `json:"helper"`
	Conditions []Condition `json:"conditions"`
}

// Condition is one expression of a clause.
type Condition struct {
	Line    int     `json:"line"`
	Text    string  `json:"text"`
	Plain   string  `json:"plain"` // the same in words
	Outcome string  `json:"outcome"`
	Values  []Value `json:"values"` // what it read
	Depth   int     `json:"depth"`  // below an every
}

// Value is something that a condition read, in the evaluation that decided it.
type Value struct {
	Name  string `json:"name"`
	Value string `json:"value"` // JSON, shortened; "missing" when there is none
}

// maxShown bounds the clauses and the length of a value.
const (
	maxShown = 24
	maxValue = 100
)

// Explain evaluates one rule over doc, the canonical bytes of a facts document, and follows its conditions.
func (p *Policy) Explain(ctx context.Context, id string, doc []byte) (*Explanation, error) {
	i := slices.IndexFunc(p.rules, func(r rule) bool { return r.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("policy has no rule %q", id)
	}
	r := p.rules[i]
	x := &Explanation{Decision: p.Evaluate(ctx, doc), Findings: []string{}, Clauses: []Clause{}}
	for _, row := range x.Decision.Rules {
		if row.ID == id {
			x.Status, x.Level, x.Detail = row.Status, row.Level, row.Detail
		}
	}
	for _, rs := range [][]decision.Result{x.Decision.Violations, x.Decision.Warnings, x.Decision.Exceptions} {
		for _, f := range rs {
			if f.ID == id {
				x.Findings = append(x.Findings, f.Message)
			}
		}
	}
	if _, problems := p.check(doc); len(problems) > 0 || id == SchemaRule {
		return x, nil // no rule was asked
	}
	value, err := ast.ValueFromReader(bytes.NewReader(doc))
	if err != nil {
		return nil, fmt.Errorf("read facts: %w", err)
	}
	modules, _, err := parse(p.bundle, Capabilities())
	if err != nil {
		return nil, err
	}
	t := &follower{exprs: map[string][]*ast.Expr{}, seen: map[*ast.Expr]*follow{}, entered: map[string]bool{}, input: value}
	for n, m := range modules {
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.Location != nil && len(e.Location.Text) > 0 && string(e.Location.Text) != "default" {
				t.exprs[n] = append(t.exprs[n], e)
			}
			return false
		})
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	// Errors are in the decision already; what was followed up to there is still of use.
	_, _ = r.query.Eval(ctx, rego.EvalParsedInput(value), rego.EvalQueryTracer(t), rego.EvalRuleIndexing(false), rego.EvalEarlyExit(false))
	t.clauses(x, r, modules)
	return x, ctx.Err()
}

// follow is what happened to one expression of the text.
type follow struct {
	evals, fails, parts int
	locals              map[string]ast.Value // in the evaluation that failed, or in the last one
}

// follower is a tracer that counts evaluations of the expressions as they are written.
type follower struct {
	exprs   map[string][]*ast.Expr
	seen    map[*ast.Expr]*follow
	entered map[string]bool
	input   ast.Value
}

func (t *follower) Enabled() bool { return true }

func (t *follower) Config() topdown.TraceConfig { return topdown.TraceConfig{PlugLocalVars: true} }

func (t *follower) TraceEvent(ev topdown.Event) {
	e, ok := ev.Node.(*ast.Expr)
	if !ok || ev.Location == nil || (ev.Op != topdown.EvalOp && ev.Op != topdown.FailOp) {
		return
	}
	src := t.source(ev.Location)
	if src == nil {
		return
	}
	f := t.seen[src]
	if f == nil {
		f = &follow{}
		t.seen[src] = f
	}
	main := e.Location != nil && e.Location.Offset == src.Location.Offset && len(e.Location.Text) == len(src.Location.Text) && !e.Generated
	switch {
	case ev.Op == topdown.FailOp && main:
		f.fails++
	case ev.Op == topdown.FailOp:
		f.parts++
	case main:
		f.evals++
	}
	if ev.Op == topdown.FailOp && f.fails+f.parts > 1 || ev.Locals == nil {
		return // the first failure tells
	}
	if f.locals == nil || ev.Op == topdown.FailOp || f.fails+f.parts == 0 {
		f.locals = map[string]ast.Value{}
		ev.Locals.Iter(func(k, v ast.Value) bool {
			if name, ok := k.(ast.Var); ok {
				if m, ok := ev.LocalMetadata[name]; ok {
					f.locals[string(m.Name)] = v
				}
			}
			return false
		})
	}
}

// source is the innermost expression of the text at a place.
func (t *follower) source(loc *ast.Location) *ast.Expr {
	var best *ast.Expr
	for _, e := range t.exprs[loc.File] {
		if loc.Offset >= e.Location.Offset && loc.Offset < e.Location.Offset+len(e.Location.Text) && (best == nil || len(e.Location.Text) <= len(best.Location.Text)) {
			best = e
		}
	}
	return best
}

// outcome of an expression; below an every, and in a helper, it must hold each time.
func (f *follow) outcome(each bool) string {
	switch {
	case f == nil || f.evals+f.fails+f.parts == 0:
		return NotReached
	case f.evals > f.fails && (!each || f.fails+f.parts == 0):
		return Holds
	}
	return HoldsNot
}

// clauses writes down the rule's own bodies in the order of the text, then the helpers that stopped it.
func (t *follower) clauses(x *Explanation, r rule, modules map[string]*ast.Module) {
	var helpers []Clause
	names := make([]string, 0, len(modules))
	for n := range modules {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		m := modules[n]
		own := m.Package.Path.String() == r.Package
		for _, top := range m.Rules {
			for y := top; y != nil; y = y.Else {
				name := y.Head.Ref().String()
				main := own && (r.user == nil && (name == "pass" || name == "skip") || r.user != nil && strings.HasSuffix(r.ID, "/"+name))
				if y.Default || !main && own && (name == "fail") {
					continue
				}
				c := Clause{Name: name, File: n, Line: y.Location.Row, Holds: true, Helper: !main, Conditions: []Condition{}}
				t.conditions(&c, y.Body, 0)
				reached, stopped := false, false
				for _, k := range c.Conditions {
					reached = reached || k.Outcome != NotReached
					stopped = stopped || k.Outcome == HoldsNot || k.Outcome == Undefined
					if k.Depth == 0 && k.Outcome != Holds {
						c.Holds = false
					}
				}
				switch {
				case main && len(c.Conditions) > 0:
					x.Clauses = append(x.Clauses, c)
				case !main && reached && stopped:
					if len(y.Head.Args) > 0 {
						var args []string
						for _, a := range y.Head.Args {
							args = append(args, a.String())
						}
						c.Name += "(" + strings.Join(args, ", ") + ")"
					}
					helpers = append(helpers, c)
				}
			}
		}
	}
	// Helpers of the rule's own package say more than shared ones.
	sort.SliceStable(helpers, func(i, j int) bool {
		return modules[helpers[i].File].Package.Path.String() == r.Package && modules[helpers[j].File].Package.Path.String() != r.Package
	})
	x.Clauses = append(x.Clauses, helpers[:min(len(helpers), maxShown)]...)
}

func (t *follower) conditions(c *Clause, b ast.Body, depth int) {
	for _, e := range b {
		if e.Location == nil || len(e.Location.Text) == 0 {
			continue
		}
		if term, ok := e.Terms.(*ast.Term); ok && term.Equal(ast.BooleanTerm(true)) {
			continue
		}
		f := t.seen[e]
		k := Condition{Line: e.Location.Row, Text: firstOf(string(e.Location.Text)), Plain: plain(e), Outcome: f.outcome(depth > 0 || c.Helper), Values: []Value{}, Depth: depth}
		if f != nil {
			k.Values = t.values(e, f)
			if k.Outcome == HoldsNot && !e.Negated && slices.ContainsFunc(k.Values, func(v Value) bool { return v.Value == "missing" }) {
				k.Outcome = Undefined
			}
		}
		c.Conditions = append(c.Conditions, k)
		if ev, ok := e.Terms.(*ast.Every); ok {
			t.conditions(c, ev.Body, depth+1)
		}
	}
}

func firstOf(s string) string {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		s = strings.TrimSpace(s[:i]) + " ..."
	}
	return s
}

// values looks up what an expression reads: facts, and the local names in it.
func (t *follower) values(e *ast.Expr, f *follow) []Value {
	out := []Value{}
	add := func(name string, v ast.Value) {
		if slices.ContainsFunc(out, func(x Value) bool { return x.Name == name }) {
			return
		}
		text := "missing"
		if v != nil {
			text = short(v)
		}
		out = append(out, Value{name, text})
	}
	look := func(term *ast.Term) bool {
		switch x := term.Value.(type) {
		case ast.Ref:
			var from ast.Value
			if x[0].Equal(ast.InputRootDocument) {
				from = t.input
			} else if v, ok := x[0].Value.(ast.Var); ok {
				if from = f.locals[string(v)]; from == nil {
					return false
				}
			}
			if from == nil {
				return false
			}
			rest := x[1:]
			for i, seg := range rest { // up to what is not fixed
				if v, ok := seg.Value.(ast.Var); ok {
					b := f.locals[string(v)]
					if b == nil {
						rest = rest[:i]
						break
					}
					rest = slices.Concat(rest[:i], ast.Ref{ast.NewTerm(b)}, rest[i+1:])
				}
			}
			v, err := from.Find(rest)
			if err != nil {
				v = nil
			}
			add(x.String(), v)
			return true
		case ast.Var:
			if v := f.locals[string(x)]; v != nil {
				add(string(x), v)
			}
		}
		return false
	}
	switch ts := e.Terms.(type) {
	case *ast.Term:
		ast.WalkTerms(ts, look)
	case []*ast.Term:
		for _, x := range ts[1:] {
			ast.WalkTerms(x, look)
		}
	case *ast.Every:
		ast.WalkTerms(ts.Domain, look)
	case *ast.SomeDecl:
		for _, x := range ts.Symbols {
			if c, ok := x.Value.(ast.Call); ok {
				ast.WalkTerms(c[len(c)-1], look)
			}
		}
	}
	return out
}

// short writes a value as JSON that fits a line: lists and objects by their size when they are long.
func short(v ast.Value) string {
	s := v.String()
	if len(s) <= maxValue {
		return s
	}
	switch x := v.(type) {
	case *ast.Array:
		return fmt.Sprintf("a list of %d", x.Len())
	case ast.Set:
		return fmt.Sprintf("a set of %d", x.Len())
	case ast.Object:
		var parts []string
		x.Foreach(func(k, y *ast.Term) {
			switch y.Value.(type) {
			case ast.String, ast.Number, ast.Boolean:
				parts = append(parts, strings.Trim(k.String(), `"`)+" "+y.String())
			}
		})
		s = strings.Join(parts, ", ")
	}
	if r := []rune(s); len(r) > maxValue {
		s = string(r[:maxValue]) + "..."
	}
	return s
}
