package rego

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// plain writes a condition in words, for readers who do not know Rego. What has no words stays as it is written.
func plain(e *ast.Expr) string {
	s := plainExpr(e)
	if e.Negated {
		return "not the case: " + s
	}
	return s
}

func plainExpr(e *ast.Expr) string {
	switch t := e.Terms.(type) {
	case *ast.Term:
		s := plainTerm(t)
		if _, ok := t.Value.(ast.Ref); ok {
			return s + " is true"
		}
		if _, ok := t.Value.(ast.Var); ok {
			return s + " holds"
		}
		return s
	case *ast.Every:
		return "for every " + t.Value.String() + " of " + plainTerm(t.Domain) + ":"
	case *ast.SomeDecl:
		for _, x := range t.Symbols {
			if c, ok := x.Value.(ast.Call); ok && len(c) > 2 {
				return "some " + plainTerm(c[len(c)-2]) + " of " + plainTerm(c[len(c)-1])
			}
		}
	case []*ast.Term:
		return plainCall(t)
	}
	return firstOf(string(e.Location.Text))
}

func plainCall(t []*ast.Term) string {
	args := make([]string, 0, len(t)-1)
	for _, a := range t[1:] {
		args = append(args, plainTerm(a))
	}
	two := len(args) == 2
	infix := map[string]string{"equal": "is", "eq": "is", "neq": "is not", "gt": "is more than", "gte": "is at least", "lt": "is less than",
		"lte": "is at most", "startswith": "begins with", "endswith": "ends with", "contains": "contains", "internal.member_2": "is in",
		"plus": "plus", "minus": "minus", "mul": "times", "div": "divided by", "assign": "is called here", "and": "common with", "or": "joined with"}
	op := t[0].Value.String()
	switch {
	case op == "assign" && two:
		return args[0] + " stands for " + args[1]
	case op == "regex.match" && two:
		return args[1] + " matches " + args[0]
	case op == "glob.match" && len(args) == 3:
		return args[2] + " matches " + args[0]
	case op == "count" && len(args) == 1:
		return "the number of " + args[0]
	case op == "max" || op == "min":
		return "the " + map[string]string{"max": "greatest", "min": "least"}[op] + " of " + strings.Join(args, ", ")
	case infix[op] != "" && two:
		return args[0] + " " + infix[op] + " " + args[1]
	}
	return op + "(" + strings.Join(args, ", ") + ")"
}

func plainTerm(t *ast.Term) string {
	switch x := t.Value.(type) {
	case ast.Call:
		return plainCall(x)
	case ast.Ref:
		return strings.TrimPrefix(x.String(), "data.waybill.")
	}
	s := t.String()
	if t.Location != nil && len(t.Location.Text) > 0 && len(t.Location.Text) < len(s) {
		s = string(t.Location.Text)
	}
	return firstOf(s)
}
