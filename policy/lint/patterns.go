package lint

import (
	"fmt"
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
		ast.WalkExprs(m, func(e *ast.Expr) bool { l.expression(e); return false })
		ast.WalkTerms(m, func(t *ast.Term) bool {
			if c, ok := t.Value.(ast.Call); ok {
				l.call(c[0], c[1:], t.Location)
			}
			return false
		})
		l.shadows(m)
	}
}

func (l *linter) expression(e *ast.Expr) {
	if !e.IsCall() {
		return
	}
	ts := e.Terms.([]*ast.Term)
	loc := ts[0].Location
	if loc == nil {
		loc = e.Location
	}
	l.call(ts[0], ts[1:], loc)
}

// call checks one call of a builtin.
func (l *linter) call(op *ast.Term, args []*ast.Term, loc *ast.Location) {
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
