package lint

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

// path names a value by the way to it from input or data. A segment is a key, "[v]" for the elements that variable v goes
// through, or "[*]" for every element.
type path []string

func (p path) add(seg string) path { return append(p[:len(p):len(p)], seg) }

func wild(seg string) bool { return strings.HasPrefix(seg, "[") }

// String writes the path as Rego would, with [_] for elements.
func (p path) String() string {
	var b strings.Builder
	for i, s := range p {
		switch {
		case wild(s):
			b.WriteString("[_]")
		case i == 0:
			b.WriteString(s)
		case plainKey(s):
			b.WriteString("." + s)
		default:
			b.WriteString("[" + strconv.Quote(s) + "]")
		}
	}
	return b.String()
}

func plainKey(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func (p path) key() string { return strings.Join(p, "\x00") }

// anonymous forgets which variables go through the collections.
func (p path) anonymous() path {
	if p == nil {
		return nil
	}
	q := make(path, len(p))
	for i, s := range p {
		if q[i] = s; wild(s) && s != "[*]" {
			q[i] = "[_]"
		}
	}
	return q
}

// base drops the elements at the end: the collection itself.
func (p path) base() path {
	for len(p) > 0 && wild(p[len(p)-1]) {
		p = p[:len(p)-1]
	}
	return p
}

// demands tells whether knowing that g is defined means that p is: p lies on the way to g.
func (g path) demands(p path) bool {
	if len(p) > len(g) || len(p) == 0 {
		return false
	}
	for i, s := range p {
		if g[i] != s && (g[i] != "[*]" || !wild(s)) {
			return false
		}
	}
	for _, s := range g[len(p):] {
		if s == "[*]" { // says nothing about a collection without elements
			return false
		}
	}
	return true
}

func covered(guards []path, p path) bool {
	for _, g := range guards {
		if g.demands(p) {
			return true
		}
	}
	return false
}

// missing is why a value may be undefined.
type missing struct {
	what  path   // nil when it is no path of input or data
	text  string // what to call it
	code  string // "" to be told from the expression
	never bool   // the schema has no such value
}

// part is a collection that a value is made of; negative when the value shrinks as it grows.
type part struct {
	of  *collection
	neg bool
}

// collection is a set or list whose members are made by rules or by a comprehension.
type collection struct {
	rules []*ast.Rule
	args  []val
	body  ast.Body // of a comprehension, with its scope
	sc    *scope
	base  path // of what it goes through, when known
}

// val is what the analysis knows about a value.
type val struct {
	path   path // when it is a value of input or data as it is
	node   *node
	lit    *ast.Term // when it is always this value
	dflt   *ast.Term // when it is this value where something is missing, and that is dfltOf
	dfltOf path
	parts  []part // collections that it is made of
	elem   *val   // its elements, when it was built
	flag   []*ast.Rule
	args   []val // with which flag was called
	maybe  *missing
	fields map[string]val
	text   bool // a text for certain
}

// scope holds what is known about the variables of a body.
type scope struct {
	parent *scope
	vars   map[ast.Var]val
	gens   map[ast.Var]string // the collection that a variable goes through
}

func newScope(parent *scope) *scope {
	return &scope{parent: parent, vars: map[ast.Var]val{}, gens: map[ast.Var]string{}}
}

func (s *scope) lookup(v ast.Var) (val, bool) {
	for ; s != nil; s = s.parent {
		if x, ok := s.vars[v]; ok {
			return x, true
		}
	}
	return val{}, false
}

func (s *scope) gen(v ast.Var) (string, bool) {
	for ; s != nil; s = s.parent {
		if x, ok := s.gens[v]; ok {
			return x, true
		}
	}
	return "", false
}

// constant evaluates a call over literals; nil when it is undefined.
func constant(op ast.Ref, args []*ast.Term) *ast.Term {
	out := ast.VarTerm("out")
	call := ast.NewExpr(append([]*ast.Term{ast.NewTerm(op)}, append(append([]*ast.Term{}, args...), out)...))
	rs, err := rego.New(rego.ParsedQuery(ast.NewBody(call)), rego.StrictBuiltinErrors(true)).Eval(context.Background())
	if err != nil || len(rs) != 1 {
		return nil
	}
	b, err := json.Marshal(rs[0].Bindings["out"])
	if err != nil {
		return nil
	}
	v, err := ast.ValueFromReader(strings.NewReader(string(b)))
	if err != nil {
		return nil
	}
	return ast.NewTerm(v)
}

func isLiteral(t *ast.Term) bool { return t.IsGround() && !hasRef(t) }

func hasRef(t *ast.Term) bool {
	found := false
	ast.WalkTerms(t, func(x *ast.Term) bool {
		switch x.Value.(type) {
		case ast.Ref, ast.Var, ast.Call, *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			found = true
		}
		return found
	})
	return found
}

func isFalse(t *ast.Term) bool { b, ok := t.Value.(ast.Boolean); return ok && !bool(b) }

// emptyOrZero tells whether a literal is what a collection without members, or its count, is equal to.
func emptyOrZero(t *ast.Term) bool {
	switch v := t.Value.(type) {
	case ast.Number:
		return v.Equal(ast.Number("0"))
	case ast.Set:
		return v.Len() == 0
	case *ast.Array:
		return v.Len() == 0
	case ast.Object:
		return v.Len() == 0
	}
	return false
}
