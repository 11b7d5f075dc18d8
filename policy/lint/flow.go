package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// polarity is which side of a rule must not be taken when something is missing.
type polarity bool

const (
	mustFire    polarity = true  // deny: not to fire is open
	mustNotFire polarity = false // allow: to fire is open
)

var (
	denies  = regexp.MustCompile(`^(deny|denied|violation|violations|warn|block|blocked|reject|rejected|refuse|refused|forbid|forbidden)(_.*)?$`)
	allowed = regexp.MustCompile(`^(is_)?(allow|allowed|pass|passed|permit|permitted|accept|accepted|admit|admitted|authz|authorized|authorised|approve|approved|grant|granted|compliant)(_.*)?$`)
)

const (
	ourRules = "data.waybill.rules."
	ours     = "data.waybill."
)

// scopeOf is how the analysis came to where it is.
type scopeOf struct {
	pol     polarity
	covered []path    // cannot be missing here: proven beside it, or denied by another rule
	root    *ast.Rule // the rule that decides
	name    string    // and what to call it
	warn    bool      // it only warns
	flip    *ast.Expr // the negation in an allowing rule below which a body must fire
	flipOf  *ast.Rule
	demands bool // the body demands something beside what stands here
}

type flow struct {
	*linter
	rules  map[string][]*ast.Rule // by the ground path of the document
	guards []path
	seen   map[string]bool
	visit  map[*ast.Rule]bool
	counts []path // collections that the deciding rule counts
	depth  int
	proof  bool // something must be proven
}

// flow follows every rule that decides.
func (l *linter) flow() {
	f := &flow{linter: l, rules: map[string][]*ast.Rule{}, seen: map[string]bool{}, visit: map[*ast.Rule]bool{}}
	var all []*ast.Rule
	names := make([]string, 0, len(l.compiler.Modules))
	for n := range l.compiler.Modules {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		for _, r := range l.compiler.Modules[n].Rules {
			k := r.Module.Package.Path.Extend(r.Head.Ref().GroundPrefix()).String()
			f.rules[k] = append(f.rules[k], r)
			if !isTest(n) {
				all = append(all, r)
			}
		}
	}
	f.findGuards(all)
	var denial *ast.Rule
	for _, r := range all {
		sc, ok := f.root(r)
		if !ok {
			continue
		}
		if sc.pol == mustFire {
			if denial == nil && !sc.warn {
				denial = r
			}
		} else {
			f.allowedByDefault(r, sc)
			f.proof = true
			if hasOnlyAbsence(f, r) {
				f.at(r.Head.Location, Finding{Code: "FO-013", Rule: sc.name, Message: sc.name + " holds as soon as nothing denies; nothing must be proven"})
			}
		}
		f.enter(r, sc)
	}
	if denial != nil && !f.proof {
		name := ruleName(denial)
		f.at(denial.Head.Location, Finding{Code: "FO-013", Rule: name, Message: "the policy only denies: with empty facts nothing denies"})
	}
	for _, r := range all { // what no deciding rule uses
		pkg := r.Module.Package.Path.String()
		if f.visit[r] || len(r.Head.Args) > 0 || strings.HasPrefix(pkg+".", ours) {
			continue
		}
		pol := polarity(r.Head.RuleKind() == ast.MultiValue)
		f.enter(r, scopeOf{pol: pol, root: r, name: ruleName(r), warn: true, covered: f.guards})
	}
}

func ruleName(r *ast.Rule) string {
	return strings.TrimPrefix(r.Module.Package.Path.Extend(r.Head.Ref().GroundPrefix()).String(), "data.")
}

func lastName(r *ast.Rule) string {
	ref := r.Head.Ref().GroundPrefix()
	switch v := ref[len(ref)-1].Value.(type) {
	case ast.String:
		return string(v)
	case ast.Var:
		return string(v)
	}
	return ""
}

// root tells whether a rule decides by itself, and how.
func (f *flow) root(r *ast.Rule) (scopeOf, bool) {
	pkg, name := r.Module.Package.Path.String(), lastName(r)
	sc := scopeOf{root: r, name: ruleName(r), covered: f.guards}
	if len(r.Head.Args) > 0 {
		return sc, false
	}
	switch {
	case strings.HasPrefix(pkg, ourRules):
		if name == "pass" || name == "skip" {
			return sc, true
		}
		sc.pol = mustFire // what fail says counts only where pass proves nothing
		return sc, name == "fail" && f.alwaysTrue(pkg+".pass")
	case strings.HasPrefix(pkg+".", ours):
		return sc, false
	case denies.MatchString(name):
		sc.pol, sc.warn = mustFire, strings.HasPrefix(name, "warn")
		return sc, true
	case allowed.MatchString(name):
		return sc, true
	}
	return sc, false
}

func (f *flow) alwaysTrue(doc string) bool {
	for _, r := range f.rules[doc] {
		if !r.Default && len(r.Head.Args) == 0 && trivial(r.Body) && r.Head.Value != nil && r.Head.Value.Equal(ast.BooleanTerm(true)) {
			return true
		}
	}
	return false
}

func trivial(b ast.Body) bool {
	for _, e := range b {
		t, ok := e.Terms.(*ast.Term)
		if !ok || e.Negated || !t.Equal(ast.BooleanTerm(true)) {
			return false
		}
	}
	return true
}

func (f *flow) allowedByDefault(r *ast.Rule, sc scopeOf) {
	if r.Head.Value == nil || !trivial(r.Body) || r.Head.RuleKind() == ast.MultiValue || lastName(r) == "skip" {
		return
	}
	if v, ok := r.Head.Value.Value.(ast.Boolean); ok && bool(v) {
		fd := Finding{Code: "FO-011", Rule: sc.name, Message: sc.name + " is true without a condition"}
		if r.Default {
			fd.Message = "the default of " + sc.name + " is true"
			fd.Fix, fd.Edits = f.defaultFalse(r)
		}
		f.at(r.Head.Location, fd)
	}
}

// hasOnlyAbsence tells of an allowing rule whose conditions are all negations of denials, or counts of them that are zero.
func hasOnlyAbsence(f *flow, r *ast.Rule) bool {
	if r.Default || len(r.Body) == 0 || trivial(r.Body) {
		return false
	}
	uses := false
	for _, e := range r.Body {
		if e.IsEvery() {
			return false
		}
		denial := false
		ast.WalkRefs(e, func(ref ast.Ref) bool {
			for _, x := range f.rulesOf(ref) {
				denial = denial || denies.MatchString(lastName(x))
			}
			return false
		})
		uses = uses || denial
		if !denial && !e.Negated && !e.Generated && !isCountZero(e) {
			return false
		}
	}
	return uses
}

func isCountZero(e *ast.Expr) bool {
	for _, o := range e.Operands() {
		if isLiteral(o) && emptyOrZero(o) {
			return true
		}
	}
	return false
}

// rulesOf finds the rules whose document a reference reads or lies below.
func (f *flow) rulesOf(ref ast.Ref) []*ast.Rule {
	rs, _ := f.rulesAt(ref)
	return rs
}

func (f *flow) rulesAt(ref ast.Ref) ([]*ast.Rule, int) {
	if len(ref) == 0 || !ref[0].Equal(ast.DefaultRootDocument) {
		return nil, 0
	}
	for i := 2; i <= len(ref); i++ {
		if i > 1 {
			if _, ok := ref[i-1].Value.(ast.String); !ok {
				return nil, 0
			}
		}
		if rs := f.rules[ref[:i].String()]; len(rs) > 0 {
			return rs, i
		}
	}
	return nil, 0
}

// enter analyses one rule that decides.
func (f *flow) enter(r *ast.Rule, sc scopeOf) {
	f.counts = f.countedAll(r)
	f.rule(r, nil, sc)
}

// countedAll are the collections that any clause of r's document counts.
func (f *flow) countedAll(r *ast.Rule) []path {
	var out []path
	for _, x := range f.rules[r.Module.Package.Path.Extend(r.Head.Ref().GroundPrefix()).String()] {
		out = append(out, f.countedPaths(x)...)
	}
	return out
}

// countedPaths are the collections that a rule's body counts, or whose elements it finds.
func (f *flow) countedPaths(r *ast.Rule) []path {
	var out []path
	s := newScope(nil)
	var walk func(b ast.Body, s *scope)
	walk = func(b ast.Body, s *scope) {
		for _, e := range b {
			f.bind(e, s)
			if e.IsCall() && e.Operator().String() == "count" {
				v := f.term(e.Operand(0), s)
				if v.path != nil {
					out = append(out, v.path)
				}
				for _, p := range v.parts {
					if p.of.base != nil {
						out = append(out, p.of.base)
					}
				}
			}
			if ev, ok := e.Terms.(*ast.Every); ok {
				walk(ev.Body, newScope(s))
			}
		}
	}
	walk(r.Body, s)
	return out
}

// rule analyses one rule under sc, its else included.
func (f *flow) rule(r *ast.Rule, args []val, sc scopeOf) {
	f.visit[r] = true
	if f.depth > 64 {
		return
	}
	var key strings.Builder
	fmt.Fprintf(&key, "%p %t %p ", r, sc.pol, sc.flip)
	for _, a := range args {
		fmt.Fprintf(&key, "%s|%v|%v|%v;", a.path.key(), a.dflt, a.lit, a.maybe != nil)
	}
	for _, c := range sc.covered {
		key.WriteString(c.key() + "\x01")
	}
	if f.seen[key.String()] {
		return
	}
	f.seen[key.String()] = true
	f.depth++
	defer func() { f.depth-- }()
	if r.Default {
		return
	}
	s := newScope(nil)
	bindArgs(r, args, s)
	f.body(r, r.Body, s, sc)
	if sc.pol == mustFire {
		for _, t := range []*ast.Term{r.Head.Key, r.Head.Value} {
			if t != nil {
				f.use(t, s, sc, &ast.Expr{Location: t.Location}, r)
			}
		}
	}
	if r.Else != nil {
		f.rule(r.Else, args, sc)
	}
}

func bindArgs(r *ast.Rule, args []val, s *scope) {
	for i, a := range r.Head.Args {
		if v, ok := a.Value.(ast.Var); ok {
			if i < len(args) {
				x := args[i]
				x.maybe = nil // an argument that is missing never gets here
				s.vars[v] = x
			} else {
				s.vars[v] = val{}
			}
		}
	}
}

// body analyses a conjunction. The variables it binds end up in s.
func (f *flow) body(r *ast.Rule, b ast.Body, s *scope, sc scopeOf) {
	inner := sc
	if sc.pol == mustNotFire {
		// What a body proves beside an expression cannot be missing in it.
		probe := newScope(s)
		inner.covered = append(slices.Clone(sc.covered), f.proven(b, probe)...)
		inner.demands = sc.demands || demands(b)
	}
	for _, e := range b {
		f.expr(r, e, s, inner)
	}
}

// demands tells whether a body has a condition of its own that is neither an every nor a negation.
func demands(b ast.Body) bool {
	for _, e := range b {
		if e.Negated || e.IsEvery() || e.Generated || e.IsCall() && e.Operator().String() == ast.Equality.Name && !literalOperand(e) {
			continue
		}
		if t, ok := e.Terms.(*ast.Term); ok && isLiteral(t) {
			continue
		}
		return true
	}
	return false
}

func literalOperand(e *ast.Expr) bool {
	return slices.ContainsFunc(e.Operands(), isLiteral)
}

// expr analyses one expression and binds what it binds.
func (f *flow) expr(r *ast.Rule, e *ast.Expr, s *scope, sc scopeOf) {
	for _, w := range e.With {
		f.use(w.Value, s, sc, e, r)
		if strings.HasPrefix(w.Target.String(), "input") {
			f.at(w.Location, Finding{Code: "FO-015", Rule: sc.name, Message: "with " + w.Target.String() + ": the rule judges a document that was not verified"})
		}
	}
	if ev, ok := e.Terms.(*ast.Every); ok {
		f.every(r, e, ev, s, sc)
		return
	}
	if e.Negated {
		f.negated(r, e, s, sc)
		return
	}
	f.positive(r, e, s, sc)
}

func (f *flow) negated(r *ast.Rule, e *ast.Expr, s *scope, sc scopeOf) {
	inner := sc
	inner.pol = !sc.pol
	if sc.pol == mustNotFire && sc.flip == nil {
		inner.flip, inner.flipOf = e, r
	}
	x := *e
	x.Negated = false
	if sc.pol == mustFire {
		f.proof = f.proof || sc.flip == nil && !sc.warn
		inner.flip = nil
		f.negatesInput(r, &x, s, sc)
	}
	f.positive(r, &x, newScope(s), inner)
}

// negatesInput warns where a denial negates an expression over a value that may be missing, and not a helper.
func (f *flow) negatesInput(r *ast.Rule, e *ast.Expr, s *scope, sc scopeOf) {
	if _, bare := e.Terms.(*ast.Term); bare { // not input.x: plainly asks whether it is there
		return
	}
	var m *missing
	ast.WalkTerms(e, func(t *ast.Term) bool {
		if _, ok := t.Value.(ast.Ref); ok && m == nil && len(f.rulesOf(t.Value.(ast.Ref))) == 0 {
			m = f.term(t, s).maybe
		}
		return m != nil
	})
	if m == nil || covered(sc.covered, m.what) || m.code != "" {
		return
	}
	f.report(r, e.Location, "FO-018", m, sc, true)
}

func (f *flow) every(r *ast.Rule, e *ast.Expr, ev *ast.Every, s *scope, sc scopeOf) {
	dom := f.use(ev.Domain, s, sc, e, r)
	for _, p := range dom.parts { // the fewer elements, the more easily it holds
		p.neg = !p.neg
		f.collection(p, sc, e, r)
	}
	in := newScope(s)
	el := f.element(dom, ev.Value)
	if v, ok := ev.Value.Value.(ast.Var); ok {
		in.vars[v] = el
	}
	if ev.Key != nil {
		if v, ok := ev.Key.Value.(ast.Var); ok {
			in.vars[v] = val{}
		}
	}
	f.body(r, ev.Body, in, sc)
	if sc.pol == mustNotFire {
		f.vacuous(r, e, ev, dom, s, sc)
	}
}

// vacuous reports an every that holds because there is nothing to hold for.
func (f *flow) vacuous(r *ast.Rule, e *ast.Expr, ev *ast.Every, dom val, s *scope, sc scopeOf) {
	base := dom.path
	if base == nil && (dom.lit != nil || len(dom.fields) > 0) {
		return // a table that is written down
	}
	if f.schema != nil && sc.demands && strings.HasPrefix(r.Module.Package.Path.String(), ourRules) {
		return // the schema gives every list, and something else must be proven
	}
	if base == nil {
		for _, p := range dom.parts {
			if p.of.base != nil {
				base = p.of.base
			}
		}
	}
	if base != nil {
		// The platform team's own demands: an empty list demands nothing.
		if c, _ := f.schema.child("environment"); c != nil && len(base) > 1 && base[0] == "input" && base[1] == "environment" {
			return
		}
		// Lists within the elements of what the schema demands are often rightly empty.
		if slices.ContainsFunc(base, wild) && base[0] == "input" && f.schema != nil {
			return
		}
		for _, c := range append(slices.Clone(f.counts), f.countedAll(r)...) {
			if slices.Equal(c.base(), base.base()) {
				return
			}
		}
		for _, c := range sc.covered {
			if len(c) > len(base) && slices.Equal(c[:len(base)], base) && wild(c[len(base)]) && c[len(base)] != "[*]" {
				return
			}
		}
	}
	name := f.sourceText(ev.Domain.Location, "the collection")
	fd := Finding{Code: "FO-006", Rule: sc.name, Missing: name, Message: fmt.Sprintf("%s holds when %s is empty", sc.name, name)}
	for _, seg := range base {
		if wild(seg) { // a list within each element is often rightly empty
			fd.Severity = Warning
		}
	}
	if sc.warn {
		fd.Severity = Warning
	}
	fd.Fix, fd.Edits = f.fixEvery(e, name)
	f.at(e.Location, fd)
}

// element is what going through v meets.
func (f *flow) element(v val, as *ast.Term) val {
	if v.elem != nil {
		x := *v.elem
		return x
	}
	out := val{}
	if v.path != nil {
		name := "_"
		if as != nil {
			name = as.String()
		}
		out.path, out.node = v.path.add("["+name+"]"), v.node.element()
	}
	for _, p := range v.parts {
		if x, ok := f.elementOf(p.of); ok {
			return x
		}
	}
	return out
}

// positive analyses an expression that is not negated (any more).
func (f *flow) positive(r *ast.Rule, e *ast.Expr, s *scope, sc scopeOf) {
	if t, ok := e.Terms.(*ast.Term); ok {
		v := f.use(t, s, sc, e, r)
		if len(v.flag) > 0 {
			f.called(v.flag, v.args, sc)
		}
		if v.dflt != nil {
			f.defaulted(r, e, v.dflt, v.dfltOf, sc)
		}
		if v.lit != nil && isFalse(v.lit) && v.maybe == nil {
			f.at(e.Location, Finding{Code: "FO-017", Rule: sc.name, Message: "the condition is always false"})
		}
		return
	}
	if !e.IsCall() {
		return
	}
	op := e.Operator()
	if rs := f.rulesOf(op); len(rs) > 0 { // a function of the policy
		var args []val
		arity := len(rs[0].Head.Args)
		for i, o := range e.Operands() {
			if i < arity {
				args = append(args, f.use(o, s, sc, e, r))
			}
		}
		if out := e.Operand(arity); out != nil {
			f.bind(e, s)
			if sc.pol == mustFire && !f.total(rs) {
				f.partial(r, e, rs, sc)
			}
		}
		f.called(rs, args, sc)
		return
	}
	bound := f.bind(e, s)
	b := ast.BuiltinMap[op.String()]
	n := len(e.Operands())
	if b != nil {
		n = min(n, b.Decl.Arity())
	}
	var vals []val
	for i := 0; i < n; i++ {
		if op.String() == ast.Equality.Name && i < 2 {
			if v, ok := e.Operand(i).Value.(ast.Var); ok {
				if x, known := s.lookup(v); known {
					vals = append(vals, x)
				} else {
					vals = append(vals, val{})
				}
				continue
			}
		}
		vals = append(vals, f.use(e.Operand(i), s, sc, e, r))
	}
	f.relation(r, e, vals, bound, sc)
}

// called analyses the rules that a condition rests on.
func (f *flow) called(rs []*ast.Rule, args []val, sc scopeOf) {
	for _, x := range rs {
		f.rule(x, args, sc)
	}
}

// relation judges a comparison, a unification or a call by what its operands are made of.
func (f *flow) relation(r *ast.Rule, e *ast.Expr, vals []val, bound bool, sc scopeOf) {
	op := e.Operator().String()
	sign := func(i int, other *ast.Term) bool { // whether the expression becomes less true as operand i grows
		switch op {
		case "lt", "lte":
			return i == 0
		case "gt", "gte":
			return i == 1
		case "eq", "equal":
			return other != nil && emptyOrZero(other)
		case "neq":
			return other == nil || !emptyOrZero(other)
		}
		return false
	}
	if isComparison(op) && !bound && len(vals) >= 2 {
		for i := 0; i < 2; i++ {
			var other *ast.Term
			if o := vals[1-i]; o.lit != nil {
				other = o.lit
			}
			for _, p := range vals[i].parts {
				p.neg = p.neg != sign(i, other)
				f.collection(p, sc, e, r)
			}
			if len(vals[i].flag) > 0 { // the truth of rules, compared
				x := sc
				if (op == "eq" || op == "equal") && other != nil && isFalse(other) || op == "neq" && other != nil && !isFalse(other) {
					x.pol = !sc.pol
				}
				f.called(vals[i].flag, vals[i].args, x)
				if sc.pol == mustFire && !f.total(vals[i].flag) {
					f.partial(r, e, vals[i].flag, sc)
				}
			}
		}
		f.constantRelation(r, e, vals, sc)
		return
	}
	if op == "internal.member_2" || op == "internal.member_3" {
		for _, v := range vals {
			for _, p := range v.parts {
				f.collection(p, sc, e, r)
			}
		}
	}
	if b := ast.BuiltinMap[op]; b != nil && len(e.Operands()) == b.Decl.Arity() { // a call as a condition
		f.constantRelation(r, e, vals, sc)
	}
}

func isComparison(op string) bool {
	switch op {
	case "eq", "equal", "neq", "gt", "gte", "lt", "lte":
		return true
	}
	return false
}

// constantRelation judges a condition whose operands are literals, or literals where something is missing.
func (f *flow) constantRelation(r *ast.Rule, e *ast.Expr, vals []val, sc scopeOf) {
	var args []*ast.Term
	var of path
	all := true
	for _, v := range vals {
		switch {
		case v.lit != nil:
			args = append(args, v.lit)
		case v.dflt != nil:
			args = append(args, v.dflt)
			of = v.dfltOf
			all = false
		default:
			f.enumRelation(r, e, vals, sc)
			return
		}
	}
	op := e.Operator()
	if op.String() == ast.Equality.Name {
		op = ast.Equal.Ref()
	}
	got := constant(op, args)
	if all {
		if got == nil || isFalse(got) {
			f.at(e.Location, Finding{Code: "FO-017", Rule: sc.name, Message: "the condition is always false"})
		}
		return
	}
	if got == nil {
		got = ast.BooleanTerm(false)
	}
	f.defaulted(r, e, got, of, sc)
}

// enumRelation finds equalities with a value that the schema does not admit.
func (f *flow) enumRelation(r *ast.Rule, e *ast.Expr, vals []val, sc scopeOf) {
	if op := e.Operator().String(); (op != "eq" && op != "equal") || len(vals) != 2 {
		return
	}
	for i := range 2 {
		n, lit := vals[i].node, vals[1-i].lit
		if n == nil || lit == nil || vals[i].path == nil || vals[i].path[0] != "input" {
			continue
		}
		x, err := ast.JSON(lit.Value)
		if err != nil {
			continue
		}
		if num, ok := x.(interface{ Float64() (float64, error) }); ok {
			x, _ = num.Float64()
		}
		if !n.admits(x) {
			f.at(e.Location, Finding{Code: "FO-017", Rule: sc.name, Missing: vals[i].path.String(),
				Message: fmt.Sprintf("%s is never %s: the schema of the facts does not admit it", vals[i].path, lit)})
		}
	}
}

// defaulted judges what a default of object.get does.
func (f *flow) defaulted(r *ast.Rule, e *ast.Expr, got *ast.Term, of path, sc scopeOf) {
	fires := !isFalse(got)
	if fires == (sc.pol == mustFire) || covered(sc.covered, of) {
		return
	}
	f.report(r, e.Location, "FO-008", &missing{what: of, text: of.String()}, sc, false)
}

// collection analyses what makes the members of a collection.
func (f *flow) collection(p part, sc scopeOf, e *ast.Expr, r *ast.Rule) {
	if p.neg {
		sc.pol = !sc.pol
		if sc.pol == mustFire && sc.flip == nil {
			sc.flip, sc.flipOf = e, r
		}
		if sc.pol == mustNotFire {
			sc.flip = nil
		}
	}
	if p.of.body != nil {
		f.depth++
		if f.depth < 64 {
			f.body(r, p.of.body, newScope(p.of.sc), sc)
		}
		f.depth--
		return
	}
	f.called(p.of.rules, p.of.args, sc)
}

// partial reports a value that is undefined where none of its conditions holds.
func (f *flow) partial(r *ast.Rule, e *ast.Expr, rs []*ast.Rule, sc scopeOf) {
	name := ruleName(rs[0])
	f.report(r, e.Location, "FO-012", &missing{text: name, code: "FO-012"}, sc, false)
}

// total tells whether rules always have a value.
func (f *flow) total(rs []*ast.Rule) bool {
	for _, r := range rs {
		if r.Default || r.Head.RuleKind() == ast.MultiValue {
			return true
		}
		for x := r; x != nil; x = x.Else {
			if f.binding(x) {
				return true
			}
		}
		if r.Head.DocKind() == ast.PartialObjectDoc {
			return true
		}
	}
	return false
}

// binding tells of a body that sets values and has no condition.
func (f *flow) binding(r *ast.Rule) bool {
	set := map[ast.Var]bool{}
	for _, a := range r.Head.Args {
		if v, ok := a.Value.(ast.Var); ok {
			set[v] = true
		}
	}
	for _, e := range r.Body {
		if e.Negated {
			return false
		}
		if t, ok := e.Terms.(*ast.Term); ok {
			if !t.Equal(ast.BooleanTerm(true)) {
				return false
			}
			continue
		}
		if !e.IsCall() {
			return false
		}
		outs := 0
		for i, o := range e.Operands() {
			v, ok := o.Value.(ast.Var)
			if !ok || set[v] {
				continue
			}
			if e.Operator().String() == ast.Equality.Name || i == len(e.Operands())-1 && (e.Generated || i > 0) {
				set[v] = true
				outs++
			}
		}
		if outs == 0 {
			return false
		}
		if b := ast.BuiltinMap[e.Operator().String()]; b != nil && b.Name != ast.Equality.Name && len(e.Operands()) <= b.Decl.Arity() {
			return false
		}
	}
	return true
}
