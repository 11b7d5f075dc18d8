package device

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Lint finds what keeps a policy from being safe on a device. The WebAssembly target has no strict errors: an expression
// over a reading that failed, or a builtin that failed, is undefined. An undefined expression may make `allow` false and
// must never make it true, so nothing that turns undefined into a value may lie between a reading and `allow`: no negation,
// no comprehension, no default, no else, no set that is smaller for it, no object.get with a value of its own, no `with`.
// `allow` itself is false by default and true otherwise.
// What the compiler refuses is a finding, too; an error means that files do not parse, or that none is for devices.
func Lint(fs Files) (Findings, error) {
	modules, found, err := parse(fs)
	if err != nil || len(found) > 0 {
		return found, err
	}
	c, found := check(modules)
	if len(found) > 0 {
		return found, nil
	}
	return lint(c), nil
}

// taint is how a value depends on what may be missing.
type taint int

const (
	clean    taint = iota
	reading        // a member that may be absent, or what was computed from one
	whole          // an object that shows by its members what is absent
	labelled       // the labels: what is absent there was not configured, which no failure causes
)

func worst(a, b taint) taint {
	switch {
	case a == clean:
		return b
	case b == clean:
		return a
	case a == labelled && b == labelled:
		return labelled
	}
	return max(min(a, whole), min(b, whole))
}

type linter struct {
	c     *ast.Compiler
	rules map[string][]*ast.Rule // by path: data.waybill.device.allow
	// value is the taint of a rule's value or definedness, params those of a function's parameters.
	value  map[string]taint
	params map[string][]taint
	found  Findings
	seen   map[string]bool
}

func lint(c *ast.Compiler) Findings {
	l := &linter{c: c, rules: map[string][]*ast.Rule{}, value: map[string]taint{}, params: map[string][]taint{}, seen: map[string]bool{}}
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			p := r.Ref().GroundPrefix().String()
			l.rules[p] = append(l.rules[p], r)
			l.params[p] = make([]taint, len(r.Head.Args))
		}
	}
	l.allowShape()
	// The least solution: taints only grow.
	for changed := true; changed; {
		changed = false
		for _, p := range sortedKeys(l.rules) {
			for _, r := range l.rules[p] {
				if l.spread(p, r) {
					changed = true
				}
			}
		}
	}
	for _, p := range l.reachable("data." + Package + ".allow") {
		for _, r := range l.rules[p] {
			l.inspect(p, r)
		}
	}
	slices.SortFunc(l.found, func(a, b Finding) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Column != b.Column {
			return a.Column - b.Column
		}
		return strings.Compare(a.Msg, b.Msg)
	})
	return slices.Compact(l.found)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (l *linter) report(code string, loc *ast.Location, fix, format string, args ...any) {
	f := Finding{Code: code, Msg: fmt.Sprintf(format, args...), Fix: fix}
	if loc != nil {
		f.File, f.Line, f.Column = loc.File, loc.Row, loc.Col
	}
	l.found = append(l.found, f)
}

// allowShape checks that allow is false by default and can otherwise only be true.
func (l *linter) allowShape() {
	rules := l.rules["data."+Package+".allow"]
	defaulted := false
	for _, r := range rules {
		switch v := r.Head.Value; {
		case len(r.Head.Args) > 0 || r.Head.Key != nil || len(r.Head.Ref()) != 1:
			l.report(codeShape, r.Location, "write `allow if { ... }`", "allow must be a plain rule, neither a function nor a set or object")
		case r.Default:
			defaulted = true
			if !v.Equal(ast.BooleanTerm(false)) {
				l.report(codeDefault, r.Location, "default allow := false", "the default of allow must be false, not %s", v)
			}
		case v == nil || !v.Equal(ast.BooleanTerm(true)):
			l.report(codeShape, r.Location, "write `allow if { ... }`; false is what it is by default", "allow may only be true where its body holds")
		}
		if r.Else != nil {
			l.report(codeShape, r.Else.Location, "write a rule of its own for each way to be allowed", "allow has an else")
		}
	}
	if len(rules) == 0 {
		l.report(codeDefault, l.first(), "write `default allow := false` and rules `allow if { ... }`", "there is no allow in package "+Package)
	} else if !defaulted {
		l.report(codeDefault, rules[0].Location, "default allow := false", "`default allow := false` is missing")
	}
	asked := append(l.reachable("data."+Package+".allow"), l.reachable("data."+Package+".reasons")...)
	for _, p := range sortedKeys(l.rules) {
		if what, ok := strings.CutPrefix(p, "data."+Package+"."); ok && denies.MatchString(what) && !slices.Contains(asked, p) {
			l.report(codeShape, l.rules[p][0].Location, "make what must not be a condition of allow, turned round", "%s is never asked: a device asks for allow and reasons alone", what)
		}
	}
}

// denies matches what reads like a rule that denies, which on a device nobody asks.
var denies = regexp.MustCompile(`^(deny|denied|violation|violations|warn|block|blocked|reject|rejected|refuse|refused|forbid|forbidden)(_.*)?$`)

// first is the place of the first file's package.
func (l *linter) first() *ast.Location {
	for _, n := range sortedKeys(l.c.Modules) {
		if n != generated {
			return l.c.Modules[n].Package.Location
		}
	}
	return nil
}

// defined tells whether path, or something above or below it, is a rule of the device's.
func (l *linter) defined(path string) bool {
	for p := range l.rules {
		if p == path || strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[") || strings.HasPrefix(path, p+".") || strings.HasPrefix(path, p+"[") {
			return true
		}
	}
	return false
}

// scope is what is known of the variables of one rule.
type scope map[ast.Var]taint

// spread computes r's taints from what is known so far and tells whether anything grew.
func (l *linter) spread(p string, r *ast.Rule) (grew bool) {
	s := l.scope(p, r)
	total := clean
	for _, body := range bodies(r) {
		total = worst(total, l.of(s, body))
	}
	for e := r; e != nil; e = e.Else {
		if e.Head.Value != nil {
			total = worst(total, l.of(s, e.Head.Value))
		}
		if e.Head.Key != nil {
			total = worst(total, l.of(s, e.Head.Key))
		}
		total = worst(total, l.of(s, refArgs(e.Head.Reference)))
	}
	if t := worst(l.value[p], total); t != l.value[p] {
		l.value[p], grew = t, true
	}
	// Parameters take on what calls hand over.
	l.calls(r, func(fn string, args []*ast.Term) {
		ps, ok := l.params[fn]
		if !ok {
			return
		}
		for i, a := range args[:min(len(args), len(ps))] {
			if t := worst(ps[i], l.of(s, a)); t != ps[i] {
				ps[i], grew = t, true
			}
		}
	})
	return grew
}

// refArgs are the parts of a rule's head behind its name.
func refArgs(r ast.Ref) []*ast.Term {
	if len(r) < 2 {
		return nil
	}
	return r[1:]
}

// bodies lists the bodies of a rule and of its else branches.
func bodies(r *ast.Rule) []ast.Body {
	var out []ast.Body
	for ; r != nil; r = r.Else {
		out = append(out, r.Body)
	}
	return out
}

// calls visits every call in r: operator path and operands.
func (l *linter) calls(r *ast.Rule, visit func(fn string, args []*ast.Term)) {
	ast.WalkExprs(r, func(e *ast.Expr) bool {
		if e.IsCall() {
			visit(e.Operator().String(), e.Operands())
		}
		return false
	})
	ast.WalkTerms(r, func(t *ast.Term) bool {
		if call, ok := t.Value.(ast.Call); ok && len(call) > 0 {
			visit(call[0].String(), call[1:])
		}
		return false
	})
}

// scope finds the taints of r's variables: whatever meets something tainted in one expression is tainted.
func (l *linter) scope(p string, r *ast.Rule) scope {
	s := scope{}
	for e := r; e != nil; e = e.Else {
		for i, a := range e.Head.Args {
			if i < len(l.params[p]) {
				t := l.params[p][i]
				ast.WalkVars(a, func(v ast.Var) bool { s[v] = worst(s[v], t); return false })
			}
		}
	}
	for changed := true; changed; {
		changed = false
		raise := func(v ast.Var, t taint) {
			if v == ast.InputRootDocument.Value || v == ast.DefaultRootDocument.Value {
				return
			}
			if w := worst(s[v], t); w != s[v] {
				s[v], changed = w, true
			}
		}
		ast.WalkExprs(r, func(e *ast.Expr) bool {
			switch x := e.Terms.(type) {
			case *ast.SomeDecl:
				return false
			case *ast.Every:
				t := l.elements(l.of(s, x.Domain))
				for _, v := range []*ast.Term{x.Key, x.Value} {
					if v != nil {
						ast.WalkVars(v, func(v ast.Var) bool { raise(v, t); return false })
					}
				}
				return false
			}
			if e.Negated {
				return false // binds nothing
			}
			t := l.flow(s, e)
			if t == clean {
				return false
			}
			for _, o := range l.bound(e) {
				ast.WalkVars(o, func(v ast.Var) bool { raise(v, t); return false })
			}
			return false
		})
	}
	return s
}

// bound are the terms of an expression whose variables it may give a value: both sides of a unification, and what a call
// puts its result into.
func (l *linter) bound(e *ast.Expr) []*ast.Term {
	if !e.IsCall() {
		if t, ok := e.Terms.(*ast.Term); ok {
			return []*ast.Term{t}
		}
		return nil
	}
	fn, args := e.Operator().String(), e.Operands()
	switch ps, ok := l.params[fn]; {
	case fn == ast.Equality.Name || fn == ast.Assign.Name:
		return args
	case ok:
		return args[min(len(ps), len(args)):]
	}
	if b, ok := ast.BuiltinMap[fn]; ok {
		return args[min(b.Decl.Arity(), len(args)):]
	}
	return args
}

// elements is the taint of what iterating over a value gives.
func (l *linter) elements(t taint) taint {
	if t == clean {
		return clean
	}
	return reading
}

// flow is the taint that an expression's variables take on.
func (l *linter) flow(s scope, e *ast.Expr) taint {
	if e.IsCall() && e.Operator().String() == ast.ObjectGet.Name {
		if args := e.Operands(); len(args) > 3 && l.of(s, args[0]) == labelled && l.of(s, args[1:3]) == clean {
			return clean // a label, or the value that the author gives for it
		}
	}
	t := l.of(s, e)
	if t == labelled && e.IsCall() && e.Operator().String() != ast.Equality.Name && e.Operator().String() != ast.Assign.Name {
		return reading // of labels something was computed
	}
	return t
}

// of is the worst taint of anything in node, nested bodies included.
func (l *linter) of(s scope, node any) taint {
	total := clean
	if ts, ok := node.([]*ast.Term); ok {
		for _, t := range ts {
			total = worst(total, l.of(s, t))
		}
		return total
	}
	vis := ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			total = worst(total, l.ref(s, x))
			for _, t := range x[1:] { // x[0] is the root
				if _, ok := t.Value.(ast.Var); ok {
					continue // an index; what it holds came from elsewhere
				}
				total = worst(total, l.of(s, t))
			}
			return true
		case ast.Var:
			total = worst(total, s[x])
		case *ast.Expr:
			if x.IsCall() {
				total = worst(total, worst(l.value[x.Operator().String()], l.of(s, x.Operands())))
				for _, w := range x.With {
					total = worst(total, l.of(s, w.Value))
				}
				return true
			}
		case ast.Call:
			if len(x) > 0 {
				total = worst(total, worst(l.value[x[0].String()], l.of(s, []*ast.Term(x[1:]))))
				return true
			}
		}
		return false
	})
	vis.Walk(node)
	return total
}

// ref is the taint of one reference.
func (l *linter) ref(s scope, r ast.Ref) taint {
	if len(r) == 0 {
		return clean
	}
	root, ok := r[0].Value.(ast.Var)
	if !ok {
		return l.of(s, r[0])
	}
	switch root {
	case ast.InputRootDocument.Value:
		return inputTaint(r[1:])
	case ast.DefaultRootDocument.Value:
		total := clean
		text := r.ConstantPrefix().String()
		for p := range l.rules {
			switch {
			case p == text || strings.HasPrefix(text, p+".") || strings.HasPrefix(text, p+"["):
				total = worst(total, l.value[p])
			}
		}
		if l.inner(text) { // an object of rules lacks those that are undefined
			return whole
		}
		return total
	}
	t := s[root]
	if t != clean && len(r) > 1 && t != labelled {
		return reading
	}
	if t == labelled && len(r) > 1 {
		return reading
	}
	return t
}

// inner tells whether path is above rules of which one rests on a reading.
func (l *linter) inner(path string) bool {
	for p, t := range l.value {
		if t != clean && (strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[")) {
			return true
		}
	}
	return false
}

// reachable lists the rules that the value of the rule at path rests on, itself included.
func (l *linter) reachable(path string) []string {
	seen := map[string]bool{}
	var walk func(string)
	walk = func(p string) {
		if seen[p] || l.rules[p] == nil {
			return
		}
		seen[p] = true
		for _, r := range l.rules[p] {
			ast.WalkRefs(r, func(ref ast.Ref) bool {
				if len(ref) == 0 || !ref[0].Equal(ast.DefaultRootDocument) {
					return false
				}
				text := ref.ConstantPrefix().String()
				for q := range l.rules {
					if q == text || strings.HasPrefix(q, text+".") || strings.HasPrefix(q, text+"[") || strings.HasPrefix(text, q+".") || strings.HasPrefix(text, q+"[") {
						walk(q)
					}
				}
				return false
			})
		}
	}
	walk(path)
	return sortedKeys(seen)
}

// inspect reports what makes r, on which allow rests, a value out of something missing.
func (l *linter) inspect(p string, r *ast.Rule) {
	s := l.scope(p, r)
	what := strings.TrimPrefix(p, "data."+Package+".")
	if what != "allow" && l.value[p] != clean {
		if r.Default {
			l.report(codeMissing, r.Location, "drop the default", "%s has a default and rests on a reading that may be missing: without the reading the default stands in for it", what)
		}
		if r.Else != nil {
			l.report(codeMissing, r.Else.Location, "write a rule of its own for each case", "%s has an else and rests on a reading that may be missing: without the reading the else stands in for it", what)
		}
		if r.Head.RuleKind() == ast.MultiValue || r.Head.Key != nil || !r.Head.Reference.IsGround() {
			l.report(codeMissing, r.Location, "write rules that hold when the readings are there", "%s is a set or object that is smaller when a reading is missing, and allow rests on it", what)
		}
	}
	ast.WalkExprs(r, func(e *ast.Expr) bool {
		if len(e.With) > 0 {
			l.report(codeMissing, e.Location, "drop the `with`, or keep it to the tests", "`with` replaces the readings of the device")
		}
		if e.Negated && l.of(s, e) != clean {
			l.report(codeMissing, e.Location, positive(e), "`not` over a value that may be missing holds when it is")
		}
		if x, ok := e.Terms.(*ast.Every); ok && l.of(s, x.Domain) == whole {
			l.report(codeMissing, e.Location, "name the readings one by one", "`every` over readings holds when they are missing")
		}
		if e.IsCall() {
			l.call(s, e.Operator().String(), e.Operands(), e.Location)
		}
		return false
	})
	ast.WalkTerms(r, func(t *ast.Term) bool {
		switch x := t.Value.(type) {
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			if l.of(s, t) != clean {
				l.report(codeMissing, t.Location, "write rules that hold when the readings are there", "a comprehension over a value that may be missing is empty when it is")
			}
		case ast.Call:
			if len(x) > 0 {
				l.call(s, x[0].String(), x[1:], t.Location)
			}
		case ast.Ref:
			if len(x) == 0 || !x[0].Equal(ast.DefaultRootDocument) {
				return false
			}
			switch text := x.ConstantPrefix().String(); {
			case !x.IsGround() && l.ref(s, x) != clean:
				l.report(codeMissing, t.Location, "name the rules one by one", "a rule named by a variable rests on readings that may be missing")
			case l.inner(text):
				l.report(codeMissing, t.Location, "name the rules one by one", "%s is an object of rules, which lacks those that rest on a missing reading", strings.TrimPrefix(text, "data."))
			case !l.defined(text):
				l.report(codeData, t.Location, "write the value into a package below "+Package, "%s is not on the device: a device has no data documents, and no other packages", text)
			}
		}
		return false
	})
}

// call reports builtins that are given a whole object of readings, or labels in a way that makes false of what is missing.
func (l *linter) call(s scope, fn string, args []*ast.Term, loc *ast.Location) {
	b, builtin := ast.BuiltinMap[fn]
	if !builtin || fn == ast.Equality.Name || fn == ast.Assign.Name {
		return
	}
	for i, a := range args[:min(len(args), b.Decl.Arity())] {
		switch t := l.of(s, a); {
		case t == labelled && fn == ast.ObjectGet.Name && i == 0:
		case t == labelled && (fn == ast.Member.Name || fn == ast.MemberWithKey.Name) && len(args) == b.Decl.Arity():
		case t == whole || t == labelled:
			l.report(codeMissing, loc, "name the readings one by one, each in a condition of its own", "%s sees which readings are missing, and may make a value of it", display(fn))
		}
	}
}

func display(fn string) string {
	switch fn {
	case ast.Member.Name, ast.MemberWithKey.Name:
		return "`in`"
	}
	return fn
}
