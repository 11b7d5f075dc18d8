package rego

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
)

// What users bring for conftest and Gatekeeper, and how it is read here: docs/policy.md.

// ours tells the packages that are written for this gate from those that users bring.
func ours(m *ast.Module) bool {
	p := m.Package.Path.String()
	return p == "data.waybill" || strings.HasPrefix(p, "data.waybill.")
}

func anyUsers(modules map[string]*ast.Module) bool {
	for _, m := range modules {
		if !ours(m) {
			return true
		}
	}
	return false
}

// parseModule reads Rego v1, with or without "import rego.v1", and else Rego v0 (deny[msg] { ... }), which only users'
// packages may be written in. A file that is neither is refused with what v1 says about it.
func parseModule(name, src string, caps *ast.Capabilities) (*ast.Module, error) {
	o := ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1, Capabilities: caps}
	m, err := ast.ParseModuleWithOpts(name, src, o)
	if err == nil {
		return m, nil
	}
	o.RegoVersion = ast.RegoV0
	if old, v0err := ast.ParseModuleWithOpts(name, src, o); v0err == nil && !ours(old) {
		return old, nil
	}
	return nil, err
}

// userPackage is what the rules of one package of a user share.
type userPackage struct {
	path       string // a.b, without data.
	exception  *rego.PreparedEvalQuery
	review     bool // it, or a helper, reads input.review
	parameters bool // it, or a helper, reads input.parameters
}

// userPackages are those of one policy.
type userPackages struct {
	exceptions         map[string]bool // packages with a rule named exception
	review, parameters map[string]bool // packages that read input.review, input.parameters
	rules              map[string]bool // packages with deny, violation or warn
	done               map[string]*userPackage
	strict             bool // errors of builtins are errors
}

func newUserPackages(modules map[string]*ast.Module, strict bool) *userPackages {
	u := &userPackages{strict: strict, exceptions: map[string]bool{}, review: map[string]bool{}, parameters: map[string]bool{}, rules: map[string]bool{}, done: map[string]*userPackage{}}
	for _, m := range modules {
		if ours(m) {
			continue
		}
		pkg := m.Package.Path.String()
		for _, r := range m.Rules {
			switch name := ruleName(r); {
			case name == "exception" && len(r.Head.Args) == 0:
				u.exceptions[pkg] = true
			case userRule.MatchString(name):
				u.rules[pkg] = true
			}
		}
		ast.WalkRefs(m, func(ref ast.Ref) bool {
			if len(ref) > 1 && ref[0].Equal(ast.InputRootDocument) {
				switch ref[1].Value {
				case ast.String("review"):
					u.review[pkg] = true
				case ast.String("parameters"):
					u.parameters[pkg] = true
				}
			}
			return false
		})
	}
	return u
}

func ruleName(r *ast.Rule) string {
	return strings.Trim(r.Head.Ref()[0].Value.String(), `"`)
}

// reads tells whether pkg, or a package without rules of its own (a helper, which may be anybody's), is in set.
func (u *userPackages) reads(set map[string]bool, pkg string) bool {
	for p := range set {
		if p == pkg || !u.rules[p] {
			return true
		}
	}
	return false
}

func (u *userPackages) prepare(ctx context.Context, pkg string, c *ast.Compiler, store storage.Store) (*userPackage, error) {
	if x, ok := u.done[pkg]; ok {
		return x, nil
	}
	x := &userPackage{path: strings.TrimPrefix(pkg, "data."), review: u.reads(u.review, pkg), parameters: u.reads(u.parameters, pkg)}
	if u.exceptions[pkg] {
		q, err := prepare(ctx, pkg+".exception", c, store, u.strict)
		if err != nil {
			return nil, fmt.Errorf("%s.exception: %w", x.path, err)
		}
		x.exception = &q
	}
	u.done[pkg] = x
	return x, nil
}

// input gives the document as the package expects it. One that reads input.review or input.parameters was written for
// Gatekeeper: it finds the facts under review.object too, and the parameters of its constraint, which are the data at
// parameters.<package>. Missing parameters are an error, since a comparison with nothing would pass.
func (x *userPackage) input(facts ast.Value, data map[string]any) (ast.Value, error) {
	if !x.review && !x.parameters {
		return facts, nil
	}
	obj, ok := facts.(ast.Object)
	if !ok {
		return nil, errors.New("the facts are no object")
	}
	out := ast.NewObjectWithCapacity(obj.Len() + 2)
	obj.Foreach(func(k, v *ast.Term) { out.Insert(k, v) })
	if x.review {
		text := func(path ...string) *ast.Term {
			ref := make(ast.Ref, len(path))
			for i, p := range path {
				ref[i] = ast.StringTerm(p)
			}
			if v, err := obj.Find(ref); err == nil {
				return ast.NewTerm(v)
			}
			return ast.StringTerm("")
		}
		out.Insert(ast.StringTerm("review"), ast.ObjectTerm(
			ast.Item(ast.StringTerm("object"), ast.NewTerm(facts)),
			ast.Item(ast.StringTerm("name"), text("model", "name")),
			ast.Item(ast.StringTerm("namespace"), text("environment", "namespace")),
			ast.Item(ast.StringTerm("operation"), text("context", "action")),
			ast.Item(ast.StringTerm("kind"), ast.ObjectTerm(
				ast.Item(ast.StringTerm("group"), ast.StringTerm("waybill")),
				ast.Item(ast.StringTerm("version"), ast.StringTerm("v1")),
				ast.Item(ast.StringTerm("kind"), ast.StringTerm("Model")),
			)),
		))
	}
	if x.parameters {
		all, _ := data["parameters"].(map[string]any)
		mine, ok := all[x.path]
		if !ok {
			return nil, fmt.Errorf("package %s reads input.parameters, and there are none: set data.parameters.%s in environments.yaml or in data.json", x.path, x.path)
		}
		v, err := ast.InterfaceToValue(mine)
		if err != nil {
			return nil, fmt.Errorf("parameters.%s: %w", x.path, err)
		}
		out.Insert(ast.StringTerm("parameters"), ast.NewTerm(v))
	}
	return out, nil
}

// excepts tells whether the package's own exception rule names the rule, as conftest reads it: a set of lists of names
// without deny_ or violation_; "" means the rule that is called just that.
func (x *userPackage) excepts(ctx context.Context, name string, opts []rego.EvalOption) (bool, error) {
	if x.exception == nil {
		return false, nil
	}
	rs, err := x.exception.Eval(ctx, opts...)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("%s.exception: %s", x.path, oneLine(err))
	}
	if len(rs) == 0 {
		return false, nil
	}
	shape := fmt.Errorf("%s.exception must be a set of lists of names (exception contains rules if { rules := [...] })", x.path)
	sets, ok := rs[0].Expressions[0].Value.([]any)
	if !ok {
		return false, shape
	}
	_, short, _ := strings.Cut(name, "_")
	found := false
	for _, s := range sets {
		list, ok := s.([]any)
		if !ok {
			return false, shape
		}
		for _, n := range list {
			t, ok := n.(string)
			if !ok {
				return false, shape
			}
			found = found || t == short
		}
	}
	return found, nil
}

// userFindings reads deny, violation and warn as conftest and Gatekeeper do: a set of texts, or of objects with msg. A
// partial object counts as the set of its values, each named by its key where the value is only true.
func userFindings(v any) ([]finding, error) {
	var list []any
	switch t := v.(type) {
	case []any:
		list = t
	case map[string]any:
		for k, x := range t {
			if x == true {
				x = k
			}
			list = append(list, x)
		}
	default:
		return nil, errors.New("deny, violation and warn must be sets (deny contains msg if { ... })")
	}
	var out []finding
	for _, x := range list {
		switch t := x.(type) {
		case string:
			if strings.TrimSpace(t) == "" {
				return nil, errors.New("a finding is an empty text")
			}
			out = append(out, finding{msg: shorten(t)})
		case map[string]any:
			f, err := toFinding(t)
			if err != nil {
				return nil, err
			}
			out = append(out, f)
		default:
			return nil, errors.New(shorten(fmt.Sprintf("a finding is neither a text nor an object with msg: %v", x)))
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].msg < out[j].msg })
	out = slices.CompactFunc(out, func(a, b finding) bool { return a.msg == b.msg && slices.Equal(a.evidence, b.evidence) })
	return sorted(out), nil
}
