package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// patterns finds what can be told from the text alone, whether or not a rule that decides uses it.
func (l *linter) patterns() {
	for _, n := range l.names() {
		m := l.source[n]
		if m == nil || isTest(n) {
			continue
		}
		device := strings.HasPrefix(m.Package.Path.String()+".", ourDevice+".")
		ast.WalkExprs(m, func(e *ast.Expr) bool { l.expression(m, e); return false })
		ast.WalkTerms(m, func(t *ast.Term) bool {
			if c, ok := t.Value.(ast.Call); ok {
				l.call(c[0], c[1:], t.Location, device)
			}
			return false
		})
		l.shadows(m)
		if device {
			l.device(m)
		}
	}
}

func (l *linter) expression(m *ast.Module, e *ast.Expr) {
	if !e.IsCall() {
		return
	}
	device := strings.HasPrefix(m.Package.Path.String()+".", ourDevice+".")
	ts := e.Terms.([]*ast.Term)
	loc := ts[0].Location
	if loc == nil {
		loc = e.Location
	}
	l.call(ts[0], ts[1:], loc, device)
}

// call checks one call of a builtin.
func (l *linter) call(op *ast.Term, args []*ast.Term, loc *ast.Location, device bool) {
	name := op.Value.String()
	b := ast.BuiltinMap[name]
	if b == nil {
		return
	}
	if b.IsNondeterministic() {
		l.at(loc, Finding{Code: "QA-005", Message: name + " gives another result each time"})
	}
	if b.IsDeprecated() {
		l.at(loc, Finding{Code: "QA-004", Message: name + " is deprecated"})
	}
	if device && !slices.Contains(l.deviceBuiltins(), name) {
		l.at(loc, Finding{Code: "DP-002", Message: "the host on the device does not implement " + name})
	}
	switch name {
	case "glob.match":
		if len(args) > 1 {
			if a, ok := args[1].Value.(*ast.Array); ok && a.Len() == 0 {
				f := Finding{Code: "FO-009", Message: "glob.match with [] takes the dot for a delimiter", Fix: "write null for []"}
				if al := args[1].Location; al != nil && strings.HasPrefix(string(l.files[loc.File][al.Offset:]), "[]") {
					f.Edits = []Edit{{File: loc.File, Start: al.Offset, End: al.Offset + 2, New: "null"}}
				}
				l.at(loc, f)
			}
		}
	case "sprintf":
		if len(args) == 2 {
			l.sprintf(args, loc)
		}
	}
}

func (l *linter) sprintf(args []*ast.Term, loc *ast.Location) {
	format, ok := args[0].Value.(ast.String)
	list, isList := args[1].Value.(*ast.Array)
	if !ok || !isList {
		return
	}
	verbs, indexed := 0, false
	s := string(format)
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		for i++; i < len(s) && strings.ContainsRune("+-# 0123456789.*[]", rune(s[i])); i++ {
			indexed = indexed || s[i] == '[' || s[i] == '*'
		}
		if i < len(s) && s[i] != '%' {
			verbs++
		}
	}
	if !indexed && verbs != list.Len() {
		l.at(loc, Finding{Code: "QA-009", Message: fmt.Sprintf("sprintf has %d verbs and %d values", verbs, list.Len())})
	}
}

// shadows finds local names that hide the documents, an import, a builtin or a rule.
func (l *linter) shadows(m *ast.Module) {
	rules := map[string]bool{}
	for _, r := range m.Rules {
		rules[r.Head.Ref()[0].String()] = true
	}
	imports := map[string]bool{}
	for _, i := range m.Imports {
		imports[string(i.Name())] = true
	}
	check := func(t *ast.Term) {
		v, ok := t.Value.(ast.Var)
		if !ok {
			return
		}
		n, what := string(v), ""
		switch {
		case n == "input" || n == "data":
			what = "the document " + n
		case imports[n]:
			what = "the import " + n
		case rules[n]:
			what = "the rule " + n
		case ast.BuiltinMap[n] != nil:
			what = "the builtin " + n
		default:
			return
		}
		l.at(t.Location, Finding{Code: "QA-006", Message: "the local name " + n + " hides " + what})
	}
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if e.IsAssignment() && e.Operand(0) != nil {
			check(e.Operand(0))
		}
		if d, ok := e.Terms.(*ast.SomeDecl); ok {
			for _, s := range d.Symbols {
				if c, ok := s.Value.(ast.Call); ok {
					for _, a := range c[1 : len(c)-1] {
						check(a)
					}
					continue
				}
				check(s)
			}
		}
		return false
	})
	for _, r := range m.Rules {
		for _, a := range r.Head.Args {
			check(a)
		}
	}
}

// device checks the shape of a policy for devices: nothing is allowed but by a rule that says so.
func (l *linter) device(m *ast.Module) {
	begins, allows := false, (*ast.Rule)(nil)
	for _, r := range m.Rules {
		switch name := lastName(r); {
		case name == "allow" && r.Default:
			begins = r.Head.Value != nil && isFalse(r.Head.Value)
		case name == "allow":
			allows = r
			if r.Head.RuleKind() == ast.MultiValue || r.Head.Value != nil && !r.Head.Value.Equal(ast.BooleanTerm(true)) {
				l.at(r.Head.Location, Finding{Code: "DP-004", Message: "allow must be true or undefined; every allow rule is positive"})
			}
			if r.Else != nil {
				l.at(r.Else.Head.Location, Finding{Code: "DP-004", Message: "allow has an else; write rules that are true on their own"})
			}
		case denies.MatchString(name):
			l.at(r.Head.Location, Finding{Code: "DP-004", Rule: name, Message: name + " is never asked on a device"})
		}
	}
	if allows != nil && !begins {
		l.at(m.Package.Location, Finding{Code: "DP-001", Message: "the package does not say default allow := false", Fix: "default allow := false"})
	}
}

func (l *linter) deviceBuiltins() []string {
	if l.opts.DeviceBuiltins != nil {
		return append(slices.Clone(l.opts.DeviceBuiltins), "eq", "assign", "equal")
	}
	return nativeWasm
}
