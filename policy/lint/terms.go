package lint

import (
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// use evaluates a term where its value is needed, and reports it when it may be missing and that opens the rule.
func (f *flow) use(t *ast.Term, s *scope, sc scopeOf, e *ast.Expr, r *ast.Rule) val {
	v := f.term(t, s)
	if v.maybe != nil && sc.pol == mustFire && !covered(sc.covered, v.maybe.what) {
		loc := t.Location
		if loc == nil || len(loc.Text) == 0 {
			loc = e.Location
		}
		f.report(r, loc, v.maybe.code, v.maybe, sc, false)
	}
	v.maybe = nil
	if _, bare := e.Terms.(*ast.Term); !bare && len(v.flag) > 0 && !boolean(v.flag) {
		f.called(v.flag, v.args, sc)
		if sc.pol == mustFire && !f.total(v.flag) {
			f.partial(r, e, v.flag, sc)
		}
	}
	for _, p := range v.through() {
		f.collection(p, sc, e, r)
	}
	return v
}

// boolean tells of rules that are true or nothing, or say false.
func boolean(rs []*ast.Rule) bool {
	for _, r := range rs {
		for x := r; x != nil; x = x.Else {
			if x.Head.Value == nil {
				continue
			}
			if _, ok := x.Head.Value.Value.(ast.Boolean); !ok {
				return false
			}
		}
	}
	return true
}

// through are the collections that a reference went through to get here.
func (v val) through() []part {
	if v.fields == nil {
		return nil
	}
	return v.fields[throughKey].parts
}

const throughKey = "\x00through"

func (v val) withThrough(ps []part) val {
	if len(ps) > 0 {
		v.fields = map[string]val{throughKey: {parts: ps}}
	}
	return v
}

// term evaluates a term without reporting.
func (f *flow) term(t *ast.Term, s *scope) val {
	switch x := t.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number:
		return val{lit: t}
	case ast.String:
		return val{lit: t, text: true}
	case ast.Var:
		if v, ok := s.lookup(x); ok {
			return v
		}
		return val{}
	case ast.Ref:
		return f.ref(x, s)
	case *ast.ArrayComprehension:
		return f.comprehension(x.Body, x.Term, s)
	case *ast.SetComprehension:
		return f.comprehension(x.Body, x.Term, s)
	case *ast.ObjectComprehension:
		return f.comprehension(x.Body, x.Value, s)
	}
	if isLiteral(t) {
		return val{lit: t}
	}
	out := val{}
	each := func(x *ast.Term) val {
		v := f.term(x, s)
		if out.maybe == nil {
			out.maybe = v.maybe
		}
		out.parts = append(out.parts, v.parts...)
		return v
	}
	switch x := t.Value.(type) {
	case *ast.Array:
		x.Foreach(func(y *ast.Term) { each(y) })
	case ast.Set:
		x.Foreach(func(y *ast.Term) { each(y) })
	case ast.Object:
		out.fields = map[string]val{}
		x.Foreach(func(k, y *ast.Term) {
			v := each(y)
			if key, ok := k.Value.(ast.String); ok {
				out.fields[string(key)] = v
			}
		})
	}
	return out
}

func (f *flow) comprehension(b ast.Body, t *ast.Term, s *scope) val {
	c := &collection{body: b, sc: s}
	v := val{parts: []part{{of: c}}}
	in := newScope(s)
	for _, e := range b {
		f.bind(e, in)
	}
	el := f.term(t, in)
	el.maybe = nil
	c.base = el.path.base()
	if el.path == nil || len(c.base) == len(el.path) {
		c.base = generator(b, in)
	}
	v.elem = &el
	return v
}

// generator finds the collection that a body goes through first.
func generator(b ast.Body, s *scope) path {
	for _, e := range b {
		if e.IsCall() && e.Operator().String() == ast.Equality.Name {
			if v, ok := e.Operand(0).Value.(ast.Var); ok {
				if x, ok := s.vars[v]; ok && len(x.path) > 0 && wild(x.path[len(x.path)-1]) {
					return x.path.base()
				}
			}
		}
	}
	return nil
}

// elementOf is what a collection made by rules holds, where that is one kind of value.
func (f *flow) elementOf(c *collection) (val, bool) {
	var out val
	found := false
	for _, r := range c.rules {
		if r.Head.Key == nil {
			return val{}, false
		}
		s := newScope(nil)
		bindArgs(r, c.args, s)
		for _, e := range r.Body {
			f.bind(e, s)
		}
		v := f.term(r.Head.Key, s)
		v.maybe = nil
		v.path = v.path.anonymous()
		if found && v.path.key() != out.path.key() {
			return val{text: v.text && out.text}, true
		}
		out, found = v, true
	}
	return out, found
}

// valueOf is the value of a complete rule or function, where it is one kind of value.
func (f *flow) valueOf(rs []*ast.Rule, args []val) val {
	if f.depth > 64 {
		return val{}
	}
	f.depth++
	defer func() { f.depth-- }()
	if len(rs) > 0 && rs[0].Head.RuleKind() == ast.MultiValue {
		c := &collection{rules: rs, args: args}
		v := val{parts: []part{{of: c}}}
		if el, ok := f.elementOf(c); ok {
			v.elem = &el
			c.base = el.path.base()
			if el.path == nil || len(c.base) == len(el.path) {
				s := newScope(nil)
				for _, e := range rs[0].Body {
					f.bind(e, s)
				}
				c.base = generator(rs[0].Body, s)
			}
		}
		return v
	}
	out := val{}
	n := 0
	for _, r := range rs {
		for x := r; x != nil; x = x.Else {
			n++
			if x.Head.Value == nil {
				continue
			}
			s := newScope(nil)
			bindArgs(x, args, s)
			for _, e := range x.Body {
				f.bind(e, s)
			}
			v := f.term(x.Head.Value, s)
			if n == 1 {
				out = v
			} else {
				out = val{parts: append(out.parts, v.parts...), text: out.text && v.text}
			}
		}
	}
	out.maybe = nil // found in the rule itself
	if n == 1 && !boolean(rs) && f.total(rs) && out.lit != nil {
		return out // a constant
	}
	out.lit = nil
	out.flag, out.args = rs, args
	return out
}

// ref follows a reference as far as anything is known.
func (f *flow) ref(ref ast.Ref, s *scope) val {
	if rs, n := f.rulesAt(ref); len(rs) > 0 {
		v := f.valueOf(rs, nil)
		if n == len(ref) {
			return v
		}
		var thr []part
		thr = append(thr, v.parts...)
		if rs[0].Head.DocKind() == ast.PartialObjectDoc {
			thr = append(thr, part{of: &collection{rules: rs}})
		} else if len(v.flag) > 0 {
			thr = append(thr, part{of: &collection{rules: v.flag, args: v.args}})
		}
		flag := v.flag
		v.flag = nil
		out := f.down(v, ref[:n].String(), ref[n:], s)
		if rs[0].Head.RuleKind() != ast.MultiValue && len(flag) > 0 && !f.total(flag) && out.maybe == nil {
			out.maybe = &missing{text: ruleName(flag[0]), code: "FO-012"}
		}
		return out.withThrough(thr)
	}
	head := ref[0]
	switch {
	case head.Equal(ast.InputRootDocument):
		return f.down(val{path: path{"input"}, node: f.schema}, "input", ref[1:], s)
	case head.Equal(ast.DefaultRootDocument):
		return f.dataRef(ref, s)
	}
	v := f.term(head, s)
	if v.maybe != nil {
		return v
	}
	thr := slices.Clone(v.parts)
	if len(ref) == 1 {
		return v
	}
	out := f.down(v, f.nameOf(head), ref[1:], s)
	return out.withThrough(thr)
}

// nameOf is what the text calls a local variable.
func (f *flow) nameOf(t *ast.Term) string {
	if v, ok := t.Value.(ast.Var); ok {
		if w, ok := f.compiler.RewrittenVars[v]; ok {
			return string(w)
		}
	}
	return t.String()
}

// down goes from v along the rest of a reference.
func (f *flow) down(v val, name string, rest ast.Ref, s *scope) val {
	for _, seg := range rest {
		if v.lit != nil && isLiteral(seg) && !isVar(seg) { // a table with a fixed key
			next, err := v.lit.Value.Find(ast.Ref{seg})
			if err != nil {
				return val{maybe: &missing{text: name + "[" + seg.String() + "]", code: "FO-016"}}
			}
			v = val{lit: ast.NewTerm(next)}
			continue
		}
		key, isKey := "", false
		switch x := seg.Value.(type) {
		case ast.String:
			key, isKey = string(x), true
		case ast.Number:
			el := f.element(v, seg)
			el.path = v.path.index(x.String())
			el.maybe = v.maybe
			if el.maybe == nil {
				el.maybe = &missing{what: el.path, text: name + "[" + x.String() + "]"}
			}
			v, name = el, name+"["+x.String()+"]"
			continue
		case ast.Var:
			b, bound := s.lookup(x)
			if bound && b.lit != nil {
				if str, ok := b.lit.Value.(ast.String); ok {
					key, isKey = string(str), true
					break
				}
			}
			at := v.path.key() + name
			g, going := s.gen(x)
			m := v.maybe
			if bound && (!going || g != at) { // a look-up with a key from elsewhere
				el := f.element(v, seg)
				el.maybe = m
				if m == nil {
					el.maybe = &missing{text: name + "[...]", code: "FO-016"}
				}
				v, name = el, name+"[...]"
				continue
			}
			s.gens[x] = at
			if _, ok := s.lookup(x); !ok {
				s.vars[x] = val{}
			}
			v = f.element(v, seg)
			v.maybe, name = m, name+"[_]"
			continue
		}
		if !isKey {
			v = val{maybe: &missing{text: name + "[...]", code: "FO-016"}}
			continue
		}
		if sub, ok := v.fields[key]; ok {
			v, name = sub, name+"."+key
			continue
		}
		c, sure := v.node.child(key)
		next := val{node: c, maybe: v.maybe}
		if v.path != nil {
			next.path = v.path.add(key)
		}
		name += "." + key
		if next.maybe == nil && !sure {
			next.maybe = &missing{what: next.path, text: name, never: v.node.never(key)}
			if next.path != nil {
				next.maybe.text = next.path.String()
			} else if v.elem == nil && v.node == nil {
				next.maybe.text = name
			}
		} else if next.maybe != nil && next.path != nil {
			next.maybe = &missing{what: next.path, text: next.path.String(), never: next.maybe.never, code: next.maybe.code}
		}
		next.text = c.is("string")
		v = next
	}
	return v
}

func (p path) index(i string) path {
	if p == nil {
		return nil
	}
	return p.add(i)
}

func isVar(t *ast.Term) bool { _, ok := t.Value.(ast.Var); return ok }

// dataRef reads the data files. What is in them is there; what is not may come from nowhere.
func (f *flow) dataRef(ref ast.Ref, s *scope) val {
	p := path{"data"}
	at := any(f.data)
	var m *missing
	for i, seg := range ref[1:] {
		switch x := seg.Value.(type) {
		case ast.String:
			p = p.add(string(x))
		case ast.Var:
			if b, ok := s.lookup(x); ok && b.lit != nil {
				if str, ok := b.lit.Value.(ast.String); ok {
					p = p.add(string(str))
					break
				}
			}
			_, bound := s.lookup(x)
			g, going := s.gen(x)
			key := p.key() + "data"
			if bound && (!going || g != key) {
				return val{path: p.add("[" + x.String() + "]"), maybe: &missing{text: p.String() + "[...]", code: "FO-010"}}
			}
			s.gens[x] = key
			if !bound {
				s.vars[x] = val{}
			}
			p = p.add("[" + x.String() + "]")
		default:
			return val{maybe: &missing{text: p.String() + "[...]", code: "FO-010"}}
		}
		last := p[len(p)-1]
		if wild(last) {
			at = nil // what lies below differs from element to element
			if m == nil && i < len(ref)-2 {
				m = &missing{what: p, text: p.String()}
			}
			continue
		}
		o, isObj := at.(map[string]any)
		next, ok := o[last]
		if !isObj || !ok {
			if m == nil || len(m.what) < len(p) {
				m = &missing{what: p, text: p.String()}
			}
		}
		at = next
	}
	if m != nil && wild(p[len(p)-1]) && len(m.what) == len(p) {
		m = nil
	}
	return val{path: p, maybe: m}
}

// bind records what a positive expression sets, and tells whether it set anything.
func (f *flow) bind(e *ast.Expr, s *scope) bool {
	if e.Negated || !e.IsCall() {
		if t, ok := e.Terms.(*ast.Term); ok && !e.Negated {
			f.term(t, s) // registers what it goes through
		}
		return false
	}
	op := e.Operator()
	if op.String() == ast.Equality.Name && len(e.Operands()) == 2 {
		for i := range 2 {
			a, b := e.Operand(i), e.Operand(1-i)
			if v, ok := a.Value.(ast.Var); ok {
				if _, known := s.lookup(v); !known {
					x := f.term(b, s)
					x.maybe = nil
					x.fields = without(x.fields)
					s.vars[v] = x
					return true
				}
			}
		}
		f.term(e.Operand(0), s)
		f.term(e.Operand(1), s)
		bound := false
		for i := range 2 {
			switch e.Operand(i).Value.(type) {
			case *ast.Array, ast.Object:
				ast.WalkVars(e.Operand(i), func(v ast.Var) bool {
					if _, known := s.lookup(v); !known {
						s.vars[v] = val{}
						bound = true
					}
					return false
				})
			}
		}
		return bound
	}
	n := len(e.Operands())
	if n == 0 {
		return false
	}
	last, ok := e.Operand(n - 1).Value.(ast.Var)
	if !ok {
		ast.WalkVars(e.Operand(n-1), func(v ast.Var) bool {
			if _, known := s.lookup(v); !known {
				s.vars[v] = val{}
			}
			return false
		})
		return false
	}
	if _, known := s.lookup(last); known {
		return false
	}
	var args []val
	for i := range n - 1 {
		args = append(args, f.term(e.Operand(i), s))
	}
	if rs := f.rulesOf(op); len(rs) > 0 {
		if n-1 != len(rs[0].Head.Args) {
			return false
		}
		s.vars[last] = f.valueOf(rs, args)
		return true
	}
	b := ast.BuiltinMap[op.String()]
	if b == nil || n-1 != b.Decl.Arity() {
		s.vars[last] = val{}
		return false
	}
	s.vars[last] = f.call(b, args, e)
	return true
}

func without(m map[string]val) map[string]val {
	if _, ok := m[throughKey]; ok {
		return nil
	}
	return m
}

// call is the value of a builtin.
func (f *flow) call(b *ast.Builtin, args []val, e *ast.Expr) val {
	out := val{}
	if b.Decl.Result() == types.S {
		out.text = true
	}
	switch b.Name {
	case "object.get":
		return f.objectGet(args, e)
	case "minus":
		for i, a := range args {
			for _, p := range a.parts {
				out.parts = append(out.parts, part{of: p.of, neg: p.neg != (i == 1)})
			}
		}
		if len(args) == 2 && args[0].lit != nil && len(out.parts) == 0 {
			break
		}
		if args[0].elem != nil {
			out.elem = args[0].elem
		}
		return out
	case "split", "regex.split":
		out.elem = &val{text: true}
	}
	for _, a := range args {
		out.parts = append(out.parts, a.parts...)
		if a.elem != nil && (b.Name == "and" || b.Name == "sort" || b.Name == "array.slice") {
			out.elem = a.elem
		}
	}
	var lits []*ast.Term
	var of path
	for _, a := range args {
		switch {
		case a.lit != nil:
			lits = append(lits, a.lit)
		case a.dflt != nil:
			lits = append(lits, a.dflt)
			of = a.dfltOf
		}
	}
	if len(lits) == len(args) && !b.IsNondeterministic() {
		if got := constant(b.Ref(), lits); got != nil {
			if of == nil {
				out.lit = got
			} else {
				out.dflt, out.dfltOf = got, of
			}
		}
	}
	return out
}

// objectGet is a look-up that has a value for what is missing.
func (f *flow) objectGet(args []val, _ *ast.Expr) val {
	if len(args) != 3 || args[1].lit == nil {
		return val{}
	}
	var keys []*ast.Term
	switch k := args[1].lit.Value.(type) {
	case ast.String:
		keys = []*ast.Term{args[1].lit}
	case *ast.Array:
		k.Foreach(func(x *ast.Term) { keys = append(keys, x) })
	default:
		return val{}
	}
	v := f.down(args[0], "value", keys, newScope(nil))
	if args[0].path == nil && args[0].node == nil && v.maybe != nil && v.maybe.what == nil {
		parts := make(path, 0, len(keys)+1)
		parts = append(parts, "value")
		for _, k := range keys {
			if s, ok := k.Value.(ast.String); ok {
				parts = append(parts, string(s))
			}
		}
		v.path = parts
	}
	if v.maybe == nil {
		return v
	}
	if args[2].lit == nil {
		return val{}
	}
	return val{path: v.path, node: v.node, dflt: args[2].lit, dfltOf: v.path}
}

func quote(s string) string { return strconv.Quote(s) }

func firstLine(s string) string {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return s[:i] + " ..."
	}
	return s
}
