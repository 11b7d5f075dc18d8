package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// report files a value that may be missing where that opens the rule.
func (f *flow) report(r *ast.Rule, loc *ast.Location, code string, m *missing, sc scopeOf, soft bool) {
	se := f.sourceExpr(loc)
	if code == "" {
		code = f.classify(r, se, m, sc)
	}
	fd := Finding{Code: code, Rule: sc.name, Missing: m.text}
	if sc.warn {
		fd.Severity = Warning
	}
	there := m.text + " is missing"
	if m.never {
		there = m.text + " is missing (the schema of the facts has no such value)"
	}
	if m.code == "FO-012" {
		there = "no condition of " + m.text + " holds"
	}
	switch {
	case soft:
		fd.Message = fmt.Sprintf("%s negates an expression over %s, which may be missing", sc.name, m.text)
	case sc.flip != nil:
		fd.Message = fmt.Sprintf("%s can hold when %s", sc.name, there)
	case sc.pol == mustFire:
		fd.Message = fmt.Sprintf("%s does not fire when %s", sc.name, there)
	default:
		fd.Message = fmt.Sprintf("%s can hold when %s", sc.name, there)
	}
	if f.visit[r] && r.Module.Package.Path.String()+lastName(r) != sc.root.Module.Package.Path.String()+lastName(sc.root) {
		fd.Message += " (through " + ruleName(r) + ")"
	}
	fd.Fix, fd.Edits = f.fix(r, se, fd.Code, m, sc)
	f.at(loc, fd)
}

// classify tells what kind of expression reads the missing value.
func (f *flow) classify(r *ast.Rule, se *ast.Expr, m *missing, sc scopeOf) string {
	switch {
	case len(m.what) > 0 && m.what[0] == "data":
		return "FO-010"
	case sc.flip != nil && (sc.flip.Negated || se != nil && se.Negated):
		return "FO-005"
	case sc.flip != nil:
		return "FO-007"
	case se == nil:
		return "FO-014"
	case se.Negated:
		return "FO-001"
	}
	if _, ok := se.Terms.(*ast.SomeDecl); ok {
		return "FO-003"
	}
	if se.IsEvery() {
		return "FO-003"
	}
	if se.IsCall() {
		switch se.Operator().String() {
		case "equal", "neq", "gt", "gte", "lt", "lte", "eq":
			return "FO-002"
		case "assign":
			if sr := f.sourceRule(r); sr != nil && sr.Head.Key != nil && sr.Head.Key.Equal(se.Operand(0)) {
				return "FO-014"
			}
		}
	}
	return "FO-004"
}

// sourceExpr is the innermost expression of the text that holds a place.
func (l *linter) sourceExpr(loc *ast.Location) *ast.Expr {
	if loc == nil {
		return nil
	}
	var best *ast.Expr
	for _, e := range l.exprs[loc.File] {
		at, n := e.Location.Offset, len(e.Location.Text)
		if loc.Offset >= at && loc.Offset < at+n && string(e.Location.Text) != "default" && (best == nil || n <= len(best.Location.Text)) {
			best = e
		}
	}
	return best
}

func (l *linter) sourceRule(r *ast.Rule) *ast.Rule {
	if r.Location == nil {
		return nil
	}
	m := l.source[r.Location.File]
	if m == nil {
		return nil
	}
	for _, x := range m.Rules {
		for y := x; y != nil; y = y.Else {
			if y.Location != nil && y.Location.Offset == r.Location.Offset {
				return y
			}
		}
	}
	return nil
}

func (l *linter) sourceText(loc *ast.Location, or string) string {
	if loc == nil || len(loc.Text) == 0 {
		return or
	}
	return string(loc.Text)
}

var inverse = map[string]string{"equal": "!=", "neq": "==", "gt": "<=", "gte": "<", "lt": ">=", "lte": ">"}

// fix writes a safe form, and the edits that make it, where it can.
func (f *flow) fix(r *ast.Rule, se *ast.Expr, code string, m *missing, sc scopeOf) (string, []Edit) {
	switch {
	case code == "FO-008":
		return f.fixDefault(se)
	case sc.flip != nil:
		return f.fixAllow(m, sc)
	case sc.pol != mustFire:
		return "", nil
	case se != nil && se.Negated && code != "FO-005":
		text := strings.TrimSpace(strings.TrimPrefix(string(se.Location.Text), "not"))
		return f.viaHelper(se, text)
	case se != nil && se.IsCall() && inverse[se.Operator().String()] != "" && len(se.Operands()) == 2 && !strings.Contains(string(se.Location.Text), "[_]"):
		if text, ok := inverted(se); ok {
			return f.viaHelper(se, text)
		}
	}
	return f.addGuard(m, sc)
}

// inverted writes the opposite of a comparison.
func inverted(e *ast.Expr) (string, bool) {
	text := string(e.Location.Text)
	b := e.Operand(1).Location
	if b == nil || b.Offset <= e.Location.Offset || b.Offset-e.Location.Offset >= len(text) {
		return "", false
	}
	left, right := strings.TrimSpace(text[:b.Offset-e.Location.Offset]), text[b.Offset-e.Location.Offset:]
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} {
		if l, ok := strings.CutSuffix(left, op); ok {
			return strings.TrimSpace(l) + " " + inverse[e.Operator().String()] + " " + right, true
		}
	}
	return "", false
}

// viaHelper replaces an expression by the negation of a helper that states what must hold.
func (f *flow) viaHelper(se *ast.Expr, holds string) (string, []Edit) {
	args := f.freeVars(se)
	name := f.newName(se.Location.File, "acceptable") // deny_ok would be a denial by its name
	head := name
	if len(args) > 0 {
		head += "(" + strings.Join(args, ", ") + ")"
	}
	helper := head + " if " + holds
	if strings.Contains(holds, "\n") || strings.Contains(holds, ";") {
		helper = head + " if {\n\t" + holds + "\n}"
	}
	return "write \"not " + head + "\" there, and add:\n" + helper, []Edit{
		{File: se.Location.File, Start: se.Location.Offset, End: se.Location.Offset + len(se.Location.Text), New: "not " + head},
		f.appendTo(se.Location.File, helper),
	}
}

// freeVars are the local variables of an expression, in order.
func (f *flow) freeVars(e *ast.Expr) []string {
	m := f.source[e.Location.File]
	outer := map[string]bool{"input": true, "data": true}
	for _, i := range m.Imports {
		outer[string(i.Name())] = true
	}
	for _, mod := range f.source {
		if mod.Package.Path.Equal(m.Package.Path) {
			for _, r := range mod.Rules {
				if v, ok := r.Head.Ref()[0].Value.(ast.Var); ok {
					outer[string(v)] = true
				}
			}
		}
	}
	var out []string
	skip := map[string]bool{}
	note := func(t *ast.Term) bool {
		switch x := t.Value.(type) {
		case ast.Call:
			if op, ok := x[0].Value.(ast.Ref); ok {
				skip[op[0].String()] = ast.BuiltinMap[op.String()] != nil
			}
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			return true
		case ast.Var:
			n := string(x)
			if !outer[n] && !skip[n] && !x.IsWildcard() && !x.IsGenerated() && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
		return false
	}
	terms := []*ast.Term{}
	switch t := e.Terms.(type) {
	case *ast.Term:
		terms = append(terms, t)
	case []*ast.Term:
		terms = append(terms, t[1:]...)
	}
	for _, t := range terms {
		ast.WalkTerms(t, note)
	}
	return out
}

func (f *flow) newName(file, base string) string {
	taken := map[string]bool{}
	if m := f.source[file]; m != nil {
		for _, mod := range f.source {
			if mod.Package.Path.Equal(m.Package.Path) {
				for _, r := range mod.Rules {
					taken[r.Head.Ref()[0].String()] = true
				}
			}
		}
	}
	name := base
	for i := 2; taken[name]; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	return name
}

func (f *flow) appendTo(file, text string) Edit {
	n := len(f.files[file])
	nl := "\n"
	if n > 0 && f.files[file][n-1] != '\n' {
		nl = "\n\n"
	}
	return Edit{File: file, Start: n, End: n, New: nl + text + "\n"}
}

// proof writes conditions under which a value is there: the loops around it, and the condition itself.
func proof(p path) (vars, over []string, last string) {
	at := ""
	for i, s := range p {
		switch {
		case i == 0:
			at = s
		case wild(s):
			v := fmt.Sprintf("x%d", len(vars)+1)
			vars, over = append(vars, v), append(over, at)
			at = v
		case plainKey(s):
			at += "." + s
		default:
			at += "[" + quote(s) + "]"
		}
	}
	return vars, over, at
}

// addGuard adds a rule that denies where the value is missing.
func (f *flow) addGuard(m *missing, sc scopeOf) (string, []Edit) {
	p := m.what
	if len(p) < 2 || sc.root.Location == nil {
		return "", nil
	}
	if wild(p[len(p)-1]) {
		p = p.base()
	}
	sr := f.sourceRule(sc.root)
	if sr == nil {
		return "", nil
	}
	file := sc.root.Location.File
	head := lastName(sc.root)
	if sr.Head.Key != nil {
		msg := quote(p.String() + " is missing")
		if _, ok := sr.Head.Key.Value.(ast.Object); ok {
			msg = `{"msg": ` + msg + "}"
		}
		head += " contains " + msg
	}
	vars, over, last := proof(p)
	name := f.newName(file, "has_"+strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, strings.TrimSuffix(strings.ReplaceAll(p.String()[strings.Index(p.String(), ".")+1:], "[_]", ""), "]")))
	var b strings.Builder
	if len(vars) == 0 {
		fmt.Fprintf(&b, "%s if not %s\n\n%s if %s != null", head, name, name, last)
	} else {
		x := vars[len(vars)-1]
		fmt.Fprintf(&b, "%s if {\n", head)
		for i, v := range vars {
			fmt.Fprintf(&b, "\tsome %s in %s\n", v, over[i])
		}
		fmt.Fprintf(&b, "\tnot %s(%s)\n}\n\n%s(%s) if %s != null", name, x, name, x, last)
	}
	return "add a rule that denies where it is missing:\n" + b.String(), []Edit{f.appendTo(file, b.String())}
}

// fixAllow puts the proof in front of the negation in the rule that allows.
func (f *flow) fixAllow(m *missing, sc scopeOf) (string, []Edit) {
	se := f.sourceExpr(sc.flip.Location)
	if se == nil || len(m.what) < 2 {
		return "", nil
	}
	text := string(se.Location.Text)
	if se.Negated {
		x := *se
		x.Negated = false
		if inner, ok := f.plain(&x, text, m); ok {
			return "demand the good value: " + inner, []Edit{{File: se.Location.File, Start: se.Location.Offset, End: se.Location.Offset + len(text), New: inner}}
		}
	}
	if len(m.what) > 0 && m.what[0] != "input" && m.what[0] != "data" {
		return "", nil
	}
	p := m.what
	if wild(p[len(p)-1]) {
		p = p.base()
	}
	vars, over, last := proof(p)
	var b strings.Builder
	for i, v := range vars {
		if i == 0 {
			fmt.Fprintf(&b, "count(%s) > 0\n\t", over[0])
		}
		fmt.Fprintf(&b, "every %s in %s { ", v, over[i])
	}
	b.WriteString(last + " != null")
	b.WriteString(strings.Repeat(" }", len(vars)))
	return "prove first that it is there:\n" + b.String(), []Edit{f.conjoin(se, b.String())}
}

// plain writes the negation of a simple expression over the missing value without a negation.
func (f *flow) plain(e *ast.Expr, text string, m *missing) (string, bool) {
	body := strings.TrimSpace(strings.TrimPrefix(text, "not"))
	if strings.HasPrefix(body, "(") {
		return "", false
	}
	if t, ok := e.Terms.(*ast.Term); ok {
		ref, isRef := t.Value.(ast.Ref)
		if isRef && !strings.Contains(body, "[_]") && (ref[0].Equal(ast.InputRootDocument)) && strings.HasPrefix(m.text, body) {
			return body + " == false", true
		}
		return "", false
	}
	if e.IsCall() && inverse[e.Operator().String()] != "" && !strings.Contains(body, "[_]") {
		x := *e
		loc := *e.Location
		off := strings.Index(text, body)
		loc.Text = []byte(body)
		loc.Offset = e.Location.Offset + off
		x.Location = &loc
		return inverted(&x)
	}
	return "", false
}

// conjoin puts a condition in front of an expression.
func (f *flow) conjoin(se *ast.Expr, cond string) Edit {
	at, text := se.Location.Offset, string(se.Location.Text)
	e := Edit{File: se.Location.File, Start: at, End: at + len(text), New: cond + "\n\t" + text}
	before := strings.TrimRight(string(f.files[e.File][:at]), " \t\r\n")
	if strings.HasSuffix(before, "if") || strings.HasSuffix(before, "else") {
		e.New = "{\n\t" + cond + "\n\t" + text + "\n}"
	}
	return e
}

func (f *flow) fixEvery(e *ast.Expr, name string) (string, []Edit) {
	se := f.sourceExpr(e.Location)
	if se == nil || name == "the collection" {
		return "", nil
	}
	cond := "count(" + name + ") > 0"
	return "demand that there is something:\n" + cond + "\n" + firstLine(string(se.Location.Text)), []Edit{f.conjoin(se, cond)}
}

// fixDefault reads the value itself instead of object.get.
func (f *flow) fixDefault(se *ast.Expr) (string, []Edit) {
	var found *ast.Term
	if se != nil {
		ast.WalkTerms(se, func(t *ast.Term) bool {
			if c, ok := t.Value.(ast.Call); ok && c[0].String() == "object.get" && len(c) == 4 {
				found = t
			}
			return found != nil
		})
	}
	var args []*ast.Term
	var loc *ast.Location
	switch {
	case found != nil:
		args, loc = found.Value.(ast.Call)[1:], found.Location
	case se != nil && se.IsCall() && se.Operator().String() == "object.get":
		args, loc = se.Operands(), se.Location
	default:
		return "", nil
	}
	ref := args[0].String()
	switch k := args[1].Value.(type) {
	case ast.String:
		ref += "[" + k.String() + "]"
	case *ast.Array:
		k.Foreach(func(t *ast.Term) { ref += "[" + t.String() + "]" })
	default:
		return "", nil
	}
	full := string(f.files[loc.File][loc.Offset:])
	end := closing(full)
	if end < 0 || !strings.HasPrefix(full, "object.get(") {
		return "", nil
	}
	if se.Negated && found == nil {
		return "", nil
	}
	return "read the value itself: " + ref, []Edit{{File: loc.File, Start: loc.Offset, End: loc.Offset + end, New: ref}}
}

// closing is the length of text up to and with the parenthesis that closes its first one; -1 when there is none.
func closing(text string) int {
	depth, str := 0, byte(0)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case str != 0:
			if c == '\\' && str == '"' {
				i++
			} else if c == str {
				str = 0
			}
		case c == '"' || c == '`':
			str = c
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

func (f *flow) defaultFalse(r *ast.Rule) (string, []Edit) {
	sr := f.sourceRule(r)
	if sr == nil || sr.Head.Value == nil || sr.Head.Value.Location == nil {
		return "", nil
	}
	name := lastName(r)
	src := f.files[r.Location.File]
	at := r.Location.Offset
	line := string(src[at:])
	if i := strings.Index(line, "true"); strings.HasPrefix(line, "default") && i > 0 && !strings.Contains(line[:i], "\n") {
		return "default " + name + " := false", []Edit{{File: r.Location.File, Start: at + i, End: at + i + 4, New: "false"}}
	}
	return "default " + name + " := false", nil
}
