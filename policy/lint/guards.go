package lint

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// What the truth of a body proves about the input, and what a policy therefore denies when it is missing.

// proven are the values that must be there for a body to be true.
func (f *flow) proven(b ast.Body, s *scope) []path {
	if f.depth > 64 {
		return nil
	}
	f.depth++
	defer func() { f.depth-- }()
	var out []path
	note := func(t *ast.Term) {
		if ref, ok := t.Value.(ast.Ref); ok {
			if v := f.term(t, s); v.path != nil {
				out = append(out, v.path)
			}
			if rs, n := f.rulesAt(ref); len(rs) > 0 && n == len(ref) && rs[0].Head.RuleKind() != ast.MultiValue {
				out = append(out, f.provenRules(rs, nil)...)
			}
			if v := f.term(t, s); len(v.through()) > 0 {
				for _, p := range v.through() {
					if !p.neg && p.of.body != nil {
						out = append(out, f.proven(p.of.body, newScope(p.of.sc))...)
					}
				}
			}
		}
	}
	for _, e := range b {
		if e.Negated || len(e.With) > 0 {
			continue
		}
		if ev, ok := e.Terms.(*ast.Every); ok {
			note(ev.Domain)
			dom := f.term(ev.Domain, s)
			if dom.path != nil {
				in := newScope(s)
				if v, ok := ev.Value.Value.(ast.Var); ok {
					in.vars[v] = val{path: dom.path.add("[*]"), node: dom.node.element()}
				}
				out = append(out, f.proven(ev.Body, in)...)
			}
			continue
		}
		f.bind(e, s)
		if t, ok := e.Terms.(*ast.Term); ok {
			note(t)
			continue
		}
		if !e.IsCall() {
			continue
		}
		if op := e.Operator().String(); op == "object.get" {
			continue
		}
		var args []val
		for _, o := range e.Operands() {
			note(o)
			args = append(args, f.term(o, s))
		}
		if rs := f.rulesOf(e.Operator()); len(rs) > 0 {
			n := min(len(args), len(rs[0].Head.Args))
			out = append(out, f.provenRules(rs, args[:n])...)
		}
		// object.get(x, k, d) compared so that d does not pass proves k.
		if isComparison(e.Operator().String()) && len(args) == 2 {
			out = append(out, defaultRefuted(e, args)...)
		}
	}
	return out
}

// defaultRefuted is the value whose default does not meet a comparison.
func defaultRefuted(e *ast.Expr, args []val) []path {
	for i := range 2 {
		if args[i].dflt != nil && args[1-i].lit != nil && args[i].dfltOf != nil {
			ts := []*ast.Term{args[0].lit, args[1].lit}
			ts[i] = args[i].dflt
			op := e.Operator()
			if op.String() == ast.Equality.Name {
				op = ast.Equal.Ref()
			}
			if got := constant(op, ts); got != nil && isFalse(got) {
				return []path{args[i].dfltOf}
			}
		}
	}
	return nil
}

// provenRules is what every way of meeting a rule proves.
func (f *flow) provenRules(rs []*ast.Rule, args []val) []path {
	var out []path
	first := true
	for _, r := range rs {
		if r.Default {
			if r.Head.Value != nil && !isFalse(r.Head.Value) {
				return nil
			}
			continue
		}
		for x := r; x != nil; x = x.Else {
			if x.Head.Value != nil && isFalse(x.Head.Value) {
				continue
			}
			s := newScope(nil)
			bindArgs(x, args, s)
			got := f.proven(x.Body, s)
			if first {
				out, first = got, false
				continue
			}
			out = slices.DeleteFunc(out, func(p path) bool {
				return !slices.ContainsFunc(got, func(q path) bool { return q.demands(p) })
			})
		}
	}
	return out
}

// findGuards collects what the policy denies when it is missing: rules with nothing but a negated proof, perhaps for
// every element of a collection, or a default of object.get that is denied.
func (f *flow) findGuards(all []*ast.Rule) {
	for _, r := range all {
		sc, ok := f.root(r)
		if !ok || sc.pol != mustFire || sc.warn || r.Else != nil {
			continue
		}
		f.guards = append(f.guards, f.guard(r)...)
	}
}

func (f *flow) guard(r *ast.Rule) []path {
	s := newScope(nil)
	var negated *ast.Expr
	var out []path
	every := map[ast.Var]bool{}
	for _, e := range r.Body {
		if e.Negated {
			if negated != nil || len(e.With) > 0 {
				return nil
			}
			negated = e
			continue
		}
		if e.IsEvery() || len(e.With) > 0 {
			return nil
		}
		if t, ok := e.Terms.(*ast.Term); ok && t.Equal(ast.BooleanTerm(true)) {
			continue
		}
		if !e.IsCall() {
			return nil
		}
		for i, o := range e.Operands() {
			if v := f.term(o, s); v.maybe != nil {
				// Going through what may be missing: the collection needs a guard of its own.
				x, isVar := e.Operand(0).Value.(ast.Var)
				if p := v.path; isVar && i == 1 && e.Operator().String() == ast.Equality.Name && len(p) > 0 && wild(p[len(p)-1]) {
					every[x] = true
					continue
				}
				return nil
			}
		}
		if f.bind(e, s) {
			continue
		}
		var args []val
		for _, o := range e.Operands() {
			args = append(args, f.term(o, s))
		}
		if isComparison(e.Operator().String()) && len(args) == 2 {
			if p := defaultMet(e, args); p != nil {
				out = append(out, p)
				continue
			}
		}
		return nil
	}
	if negated == nil {
		return universal(out)
	}
	if len(out) > 0 {
		return nil // both must hold; neither alone is denied
	}
	x := *negated
	x.Negated = false
	return universal(f.proven(ast.NewBody(&x), s))
}

// defaultMet is the value whose default meets a comparison.
func defaultMet(e *ast.Expr, args []val) path {
	for i := range 2 {
		if args[i].dflt != nil && args[1-i].lit != nil {
			ts := []*ast.Term{args[0].lit, args[1].lit}
			ts[i] = args[i].dflt
			op := e.Operator()
			if op.String() == ast.Equality.Name {
				op = ast.Equal.Ref()
			}
			if got := constant(op, ts); got != nil && !isFalse(got) {
				return args[i].dfltOf
			}
		}
	}
	return nil
}

// universal turns "the element in hand" into "every element".
func universal(ps []path) []path {
	for i, p := range ps {
		q := slices.Clone(p)
		for j := range q {
			if wild(q[j]) {
				q[j] = "[*]"
			}
		}
		ps[i] = q
	}
	return ps
}
