// Package rego evaluates a policy over a facts document with OPA as a library and turns the outcome into a decision.
//
// It is built to fail closed. The JSON Schema comes first, so that a missing fact is a denial and never an undefined
// expression. A rule of ours must prove `pass`; the absence of a violation proves nothing. Errors of builtins are errors
// (OPA's default makes the rule vanish). Builtins whose result may differ between two runs are not there. Time is bounded.
// Whatever goes wrong is a decision with allow=false and the reason.
//
// # Rules
//
// A rule is a package below waybill.rules with package METADATA (title, description, custom.id, custom.severity,
// custom.remediation, custom.standards, optionally custom.level "warn", custom.mandatory, custom.category, custom.since and
// custom.profiles) that defines
//
//	pass   true when the rule is proven          (default pass := false)
//	fail   set of {"msg": text, "evidence": [bundle digests]}
//	skip   optional text: why the rule has nothing to say here
//
// It passes when pass is true and fail is empty. Packages elsewhere are taken as users write them for conftest and
// Gatekeeper: deny, violation and warn (deny_x, ...) as sets of texts or of objects with msg.
package rego

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/input"
)

// DefaultTimeout bounds one evaluation, all rules together.
const DefaultTimeout = 10 * time.Second

// rulesPrefix is the path of the packages that hold rules of our shape.
const rulesPrefix = "data.waybill.rules."

// SchemaRule is the id of the rule that the engine itself applies, before any Rego.
const SchemaRule = "INPUT-000"

// RuleInfo describes one rule.
type RuleInfo struct {
	ID          string   `json:"id"`
	Title       string   `json:"title"`
	Description string   `json:"description"`
	Severity    string   `json:"severity"` // critical, high, medium, low
	Remediation string   `json:"remediation"`
	Standards   []string `json:"standards"`
	Level       string   `json:"level"`     // deny, or warn: reported, never denying
	Mandatory   bool     `json:"mandatory"` // cannot be excepted or lowered
	Package     string   `json:"package"`
	Category    string   `json:"category"` // one of Categories, or "" in a policy that does not sort its rules
	Since       string   `json:"since"`    // version of the policy that brought the rule; "" when not told
	// Profiles gives the level per profile: deny, warn or off. In a profile that is not listed the rule has its own Level.
	Profiles map[string]string `json:"profiles"`
}

// rule is RuleInfo with its compiled query.
type rule struct {
	RuleInfo
	query rego.PreparedEvalQuery
	user  *userPackage // of a deny, violation or warn set in the user's shape; nil for a rule of ours
}

// Policy is a compiled policy. Immutable; safe for concurrent use.
type Policy struct {
	bundle  *bundle.Bundle
	schema  *jsonschema.Schema
	rules   []rule
	names   []string // of its profiles, sorted
	store   storage.Store
	data    map[string]any      // of data.json files; never changed
	paths   map[string]struct{} // of the documents that rules define, like "main/deny"
	timeout time.Duration
	memory  int64
	without map[string]bool
}

// on tells whether a safety check is made. All are; only tests of this package can leave one out, to see what it stops.
func (p *Policy) on(check string) bool { return !p.without[check] }

// Option changes how a policy is compiled.
type Option func(*options)

type options struct {
	timeout time.Duration
	memory  int64
	without map[string]bool // checks that a test leaves out
}

// WithTimeout bounds one evaluation; the default is DefaultTimeout.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithMemory bounds what one evaluation may add to the heap, in bytes; the default is DefaultMemory.
func WithMemory(bytes int64) Option { return func(o *options) { o.memory = bytes } }

// clocked are builtins that OPA does not mark, and that look at the clock all the same: whether a certificate is valid now.
// Go has done all cryptography before a policy runs.
var clocked = [...]string{"crypto.x509.parse_and_verify_certificates", "crypto.x509.parse_and_verify_certificates_with_options"}

// Capabilities are OPA's without the builtins whose result is not a function of their arguments, and without network.
func Capabilities() *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion()
	caps.Builtins = slices.DeleteFunc(slices.Clone(caps.Builtins), func(b *ast.Builtin) bool { return b.IsNondeterministic() || slices.Contains(clocked[:], b.Name) })
	caps.AllowNet = []string{}
	return caps
}

// Compile parses and compiles every file of b. It takes some tens of milliseconds; callers keep the result.
func Compile(ctx context.Context, b *bundle.Bundle, opts ...Option) (*Policy, error) {
	o := options{timeout: DefaultTimeout, memory: DefaultMemory}
	for _, f := range opts {
		f(&o)
	}
	schema, err := compileSchema()
	if err != nil {
		return nil, err
	}
	caps := Capabilities()
	if o.without["capabilities"] {
		caps = ast.CapabilitiesForThisVersion()
	}
	modules, data, err := parse(b, caps)
	if err != nil {
		return nil, err
	}
	// Ours are held to OPA's strict mode. What users bring has to run as it is under conftest, which does not ask for it.
	compiler := ast.NewCompiler().WithCapabilities(caps).WithStrict(!anyUsers(modules))
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fmt.Errorf("policy: %w", compiler.Errors)
	}
	p := &Policy{bundle: b, schema: schema, timeout: o.timeout, memory: o.memory, without: o.without}
	p.rules = []rule{{RuleInfo: schemaRuleInfo()}}
	found, err := findRules(modules)
	if err != nil {
		return nil, err
	}
	p.data, p.paths = data, rulePaths(modules)
	if at := p.collides(data); at != "" && p.on("data") {
		return nil, fmt.Errorf("policy: data.json defines %s, which is a rule", at)
	}
	p.store = inmem.NewFromObject(data)
	users := newUserPackages(modules, p.on("strict"))
	for _, r := range found {
		q := r.Package
		if r.user != nil {
			q = r.ID
			r.ID = strings.ReplaceAll(strings.TrimPrefix(r.ID, "data."), ".", "/")
			if r.user, err = users.prepare(ctx, r.Package, compiler, p.store); err != nil {
				return nil, fmt.Errorf("policy: %w", err)
			}
		}
		if r.query, err = prepare(ctx, q, compiler, p.store, p.on("strict")); err != nil {
			return nil, fmt.Errorf("policy: rule %s: %w", r.ID, err)
		}
		p.rules = append(p.rules, r)
	}
	if len(p.rules) > maxRules {
		return nil, fmt.Errorf("policy has %d rules, limit %d", len(p.rules), maxRules)
	}
	if len(p.rules) == 1 {
		return nil, errors.New("policy has no rule: nothing below waybill.rules, and no deny, violation or warn")
	}
	sort.Slice(p.rules, func(i, j int) bool { return p.rules[i].ID < p.rules[j].ID })
	for i := 1; i < len(p.rules); i++ {
		if p.rules[i].ID == p.rules[i-1].ID {
			return nil, fmt.Errorf("policy: rule id %s is used twice", p.rules[i].ID)
		}
	}
	p.names = profileNames(p.rules)
	return p, nil
}

// prepare makes a query for one document. Errors of builtins are errors, not undefined.
func prepare(ctx context.Context, q string, c *ast.Compiler, store storage.Store, strict bool) (rego.PreparedEvalQuery, error) {
	return rego.New(rego.Query(q), rego.Compiler(c), rego.Store(store), rego.Capabilities(c.Capabilities()),
		rego.StrictBuiltinErrors(strict), rego.Strict(true)).PrepareForEval(ctx)
}

// Bundle is the policy that was compiled.
func (p *Policy) Bundle() *bundle.Bundle { return p.bundle }

// Rules lists every rule by id, the engine's own included.
func (p *Policy) Rules() []RuleInfo {
	out := make([]RuleInfo, len(p.rules))
	for i, r := range p.rules {
		out[i] = r.RuleInfo
		out[i].Standards = slices.Clone(r.Standards)
		out[i].Profiles = maps.Clone(r.Profiles)
	}
	return out
}

func parse(b *bundle.Bundle, caps *ast.Capabilities) (map[string]*ast.Module, map[string]any, error) {
	modules, data := map[string]*ast.Module{}, map[string]any{}
	for _, n := range b.Names() {
		c, _ := b.File(n)
		switch {
		case strings.HasSuffix(n, ".rego"):
			m, err := parseModule(n, string(c), caps)
			if err != nil {
				return nil, nil, fmt.Errorf("policy: %w", err)
			}
			modules[n] = m
		case path.Base(n) == "data.json":
			d := json.NewDecoder(bytes.NewReader(c))
			d.UseNumber()
			var v map[string]any
			if err := d.Decode(&v); err != nil {
				return nil, nil, fmt.Errorf("policy: %s: %w", n, err)
			}
			if err := merge(data, path.Dir(n), v); err != nil {
				return nil, nil, fmt.Errorf("policy: %s: %w", n, err)
			}
		}
	}
	return modules, data, nil
}

// merge puts v into data below the directory it came from, as OPA's bundles do.
func merge(data map[string]any, dir string, v map[string]any) error {
	at := data
	if dir != "." {
		for _, seg := range strings.Split(dir, "/") {
			next, ok := at[seg].(map[string]any)
			if !ok {
				if _, taken := at[seg]; taken {
					return fmt.Errorf("%s is a value already", seg)
				}
				next = map[string]any{}
				at[seg] = next
			}
			at = next
		}
	}
	for k, x := range v {
		if _, dup := at[k]; dup {
			return fmt.Errorf("%s is defined twice", k)
		}
		at[k] = x
	}
	return nil
}

var userRule = regexp.MustCompile(`^(deny|violation|warn)(_[A-Za-z0-9_]+)?$`)

// findRules lists the rules of all modules. For a user's rule ID holds the path of its document until it is compiled.
func findRules(modules map[string]*ast.Module) ([]rule, error) {
	names := make([]string, 0, len(modules))
	for n := range modules {
		names = append(names, n)
	}
	slices.Sort(names)
	seen := map[string]bool{}
	var out []rule
	for _, n := range names {
		m := modules[n]
		pkg := m.Package.Path.String()
		if strings.HasPrefix(pkg, rulesPrefix) {
			info, err := describe(m)
			if err != nil {
				return nil, fmt.Errorf("policy: %s: %w", n, err)
			}
			if seen[pkg] {
				return nil, fmt.Errorf("policy: %s: package %s is in two files", n, pkg)
			}
			seen[pkg] = true
			out = append(out, rule{RuleInfo: info})
			continue
		}
		if ours(m) {
			continue // helpers
		}
		for _, r := range m.Rules {
			name := r.Head.Ref()[0].Value.String()
			if name = strings.Trim(name, `"`); !userRule.MatchString(name) || seen[pkg+"."+name] {
				continue
			}
			if len(r.Head.Args) > 0 {
				continue // a function of that name
			}
			seen[pkg+"."+name] = true
			info := RuleInfo{ID: pkg + "." + name, Title: strings.TrimPrefix(pkg, "data.") + " " + name, Severity: "high", Level: "deny",
				Package: pkg, Standards: []string{}, Profiles: map[string]string{}, Remediation: "see the policy's own message"}
			if strings.HasPrefix(name, "warn") {
				info.Level, info.Severity = "warn", "low"
			}
			out = append(out, rule{RuleInfo: info, user: &userPackage{}})
		}
	}
	return out, nil
}

var ruleID = regexp.MustCompile(`^[A-Z]+-[0-9]{3}$`)

// describe reads the package METADATA of one of our rules; all of it is required, so that every denial can be explained.
func describe(m *ast.Module) (RuleInfo, error) {
	var meta *ast.Annotations
	for _, a := range m.Annotations {
		if a.Scope == "package" {
			meta = a
		}
	}
	if meta == nil {
		return RuleInfo{}, errors.New("no METADATA with scope: package")
	}
	text := func(k string) string { s, _ := meta.Custom[k].(string); return strings.TrimSpace(s) }
	r := RuleInfo{ID: text("id"), Title: meta.Title, Description: strings.TrimSpace(meta.Description), Severity: text("severity"),
		Remediation: text("remediation"), Level: text("level"), Package: m.Package.Path.String(), Standards: []string{}}
	if r.Level == "" {
		r.Level = "deny"
	}
	r.Mandatory, _ = meta.Custom["mandatory"].(bool)
	list, _ := meta.Custom["standards"].([]any)
	for _, s := range list {
		t, ok := s.(string)
		if !ok {
			return r, errors.New("METADATA custom.standards holds something that is no text")
		}
		r.Standards = append(r.Standards, t)
	}
	switch {
	case !ruleID.MatchString(r.ID):
		return r, fmt.Errorf("METADATA custom.id %q does not look like MET-001", r.ID)
	case r.Package != rulesPrefix+strings.ToLower(strings.ReplaceAll(r.ID, "-", "_")):
		return r, fmt.Errorf("rule %s must be in package %s", r.ID, strings.TrimPrefix(rulesPrefix, "data.")+strings.ToLower(strings.ReplaceAll(r.ID, "-", "_")))
	case r.Title == "" || r.Description == "" || r.Remediation == "" || len(r.Standards) == 0:
		return r, fmt.Errorf("METADATA of %s lacks title, description, custom.remediation or custom.standards", r.ID)
	case !slices.Contains([]string{"critical", "high", "medium", "low"}, r.Severity):
		return r, fmt.Errorf("METADATA of %s: custom.severity %q is none of critical, high, medium, low", r.ID, r.Severity)
	case r.Level != "deny" && r.Level != "warn":
		return r, fmt.Errorf("METADATA of %s: custom.level %q is neither deny nor warn", r.ID, r.Level)
	case r.Level == "warn" && r.Mandatory:
		return r, fmt.Errorf("METADATA of %s: a mandatory rule cannot only warn", r.ID)
	}
	if err := describeProfiles(&r, meta.Custom); err != nil {
		return r, fmt.Errorf("METADATA of %s: %w", r.ID, err)
	}
	return r, nil
}

func schemaRuleInfo() RuleInfo {
	return RuleInfo{
		ID: SchemaRule, Title: "Facts are complete", Severity: "critical", Level: "deny", Mandatory: true, Package: "",
		Description: "The facts document matches its closed JSON Schema and names this policy. It is checked before any rule runs, so that a missing fact denies instead of making a rule undefined.",
		Remediation: "look at the facts: waybill facts REF --env ENV",
		Standards:   []string{"NIST AI RMF MEASURE 2.1", "EU AI Act Annex IV 2(g)"},
		Category:    "identity", Since: "1.0", Profiles: map[string]string{},
	}
}

func compileSchema() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(input.SchemaJSON()))
	if err != nil {
		return nil, fmt.Errorf("input schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(input.Schema, doc); err != nil {
		return nil, fmt.Errorf("input schema: %w", err)
	}
	s, err := c.Compile(input.Schema)
	if err != nil {
		return nil, fmt.Errorf("input schema: %w", err)
	}
	return s, nil
}
