package lint

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/waybill-ml/waybill/internal/diag"
)

var (
	ruleID     = regexp.MustCompile(`^[A-Z]+-[0-9]{3}$`)
	severities = []string{"critical", "high", "medium", "low"}
	profiles   = []string{"baseline", "strict", "eu-high-risk", "edge"}
	categories = []string{"identity", "provenance", "data", "quality", "security", "target", "rollout", "people"}
	customKeys = []string{"id", "severity", "remediation", "standards", "category", "since", "level", "mandatory", "profiles"}
)

// metadata checks what explains a rule: it is there, complete, spelt right, and its id is its own.
func (l *linter) metadata() {
	ids := map[string]*ast.Location{}
	for _, n := range l.names() {
		m := l.source[n]
		if m == nil || isTest(n) {
			continue
		}
		pkg := m.Package.Path.String()
		mine := strings.HasPrefix(pkg, ourRules)
		var meta *ast.Annotations
		for _, a := range m.Annotations {
			if a.Scope == "package" {
				meta = a
				continue
			}
			if id, ok := a.Custom["id"].(string); ok && a.Scope != "package" {
				l.identify(ids, id, a.Location)
			}
			if mine && len(a.Custom) > 0 {
				l.at(a.Location, Finding{Code: "QA-007", Message: "METADATA of scope " + a.Scope + " is not read; the gate reads that of the package"})
			}
		}
		if meta == nil {
			if mine {
				l.at(m.Package.Location, Finding{Code: "QA-002", Message: "no METADATA with scope: package"})
			}
			continue
		}
		if id, ok := meta.Custom["id"].(string); ok {
			l.identify(ids, id, meta.Location)
		}
		if mine {
			l.complete(m, meta)
		}
	}
}

func (l *linter) identify(ids map[string]*ast.Location, id string, loc *ast.Location) {
	if first, dup := ids[id]; dup {
		l.at(loc, Finding{Code: "QA-003", Message: fmt.Sprintf("id %s is that of %s:%d", id, first.File, first.Row)})
		return
	}
	ids[id] = loc
}

func (l *linter) complete(m *ast.Module, meta *ast.Annotations) {
	loc := meta.Location
	need := func(ok bool, format string, args ...any) {
		if !ok {
			l.at(loc, Finding{Code: "QA-002", Message: fmt.Sprintf(format, args...), Missing: fmt.Sprintf(format, args...)})
		}
	}
	text := func(k string) string { s, _ := meta.Custom[k].(string); return strings.TrimSpace(s) }
	id := text("id")
	need(meta.Title != "", "METADATA lacks title")
	need(strings.TrimSpace(meta.Description) != "", "METADATA lacks description")
	need(text("remediation") != "", "METADATA lacks custom.remediation")
	list, _ := meta.Custom["standards"].([]any)
	need(len(list) > 0, "METADATA lacks custom.standards")
	need(ruleID.MatchString(id), "custom.id %q does not look like MET-001", id)
	if ruleID.MatchString(id) {
		want := ourRules + strings.ToLower(strings.ReplaceAll(id, "-", "_"))
		need(m.Package.Path.String() == want, "rule %s belongs into package %s", id, strings.TrimPrefix(want, "data."))
	}
	need(slices.Contains(severities, text("severity")), "custom.severity %q is none of %s", text("severity"), strings.Join(severities, ", "))
	level := text("level")
	need(level == "" || level == "deny" || level == "warn", "custom.level %q is neither deny nor warn", level)
	if c := text("category"); c != "" {
		need(slices.Contains(categories, c), "custom.category %q is none of %s", c, strings.Join(categories, ", "))
	}
	mandatory, _ := meta.Custom["mandatory"].(bool)
	need(!mandatory || level != "warn", "a mandatory rule cannot only warn")
	keys := make([]string, 0, len(meta.Custom))
	for k := range meta.Custom {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if !slices.Contains(customKeys, k) {
			f := Finding{Code: "QA-007", Missing: k, Message: "nobody reads custom." + k}
			if near := diag.Nearest(k, customKeys); near != "" {
				f.Fix = "did you mean " + near + "?"
			}
			l.at(loc, f)
		}
	}
	set, ok := meta.Custom["profiles"].(map[string]any)
	if _, there := meta.Custom["profiles"]; there && !ok {
		l.at(loc, Finding{Code: "QA-008", Message: "custom.profiles is no table of profile and level"})
	}
	names := make([]string, 0, len(set))
	for k := range set {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, p := range names {
		v, _ := set[p].(string)
		if !slices.Contains([]string{"deny", "warn", "off"}, v) {
			l.at(loc, Finding{Code: "QA-008", Missing: p, Message: fmt.Sprintf("profile %s: level %q is none of deny, warn, off", p, fmt.Sprint(set[p]))})
		}
		if mandatory && (v == "warn" || v == "off") {
			l.at(loc, Finding{Code: "QA-008", Missing: p, Message: fmt.Sprintf("profile %s lowers a mandatory rule to %s", p, v), Fix: "leave the profile out"})
		}
		if !slices.Contains(profiles, p) {
			if near := diag.Nearest(p, profiles); near != "" {
				l.at(loc, Finding{Code: "QA-008", Missing: p, Message: "there is no profile " + p, Fix: "did you mean " + near + "?"})
			}
		}
	}
}
