// Package lint finds policies that fail open: rules that say nothing, or yes, when a fact is missing.
//
// Rego is silent about what is not there. A comparison with a missing value is undefined, an undefined expression makes
// its rule vanish, and the negation of an undefined expression is true. So `deny if input.risk != "low"` does not deny
// when nobody stated a risk. The analysis follows each rule that decides (deny, violation, warn; allow, pass) through
// OPA's compiled modules, in which imports are resolved, nested calls are taken apart and references are lifted out of
// negations exactly as the evaluator sees them, and asks of every expression: what if this value is missing? The JSON
// Schema of the input says which values cannot be.
package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	pathpkg "path"
	"slices"
	"sort"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Severity of a finding.
type Severity string

// The two severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one place where a policy is open or wrong.
type Finding struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Column   int      `json:"column"`
	Rule     string   `json:"rule"`    // the rule that decides, "" where none does
	Missing  string   `json:"missing"` // the value whose absence opens the rule, "" where there is none
	Message  string   `json:"message"`
	Why      string   `json:"why"`
	Fix      string   `json:"fix"` // a form that is safe, or what to do; never empty
	Edits    []Edit   `json:"edits"`
	// Suppressed findings are listed and do not count; Reason is what the comment says.
	Suppressed bool   `json:"suppressed"`
	Reason     string `json:"reason"`
}

// Edit replaces the bytes [Start,End) of a file.
type Edit struct {
	File  string `json:"file"`
	Start int    `json:"start"`
	End   int    `json:"end"`
	New   string `json:"new"`
}

// Options say against what a policy is read.
type Options struct {
	// Schema is the JSON Schema of the input. Values that it demands cannot be missing. Nil: every value may be. Packages
	// below waybill.device have an input of their own, whose schema policy/device knows.
	Schema []byte
}

// Files is a policy's text by path: *.rego and data.json; others are ignored.
type Files map[string][]byte

// ReadFS collects the Rego and data files of a folder. Folders named fixtures and hidden ones are left out.
func ReadFS(fsys fs.FS) (Files, error) {
	out := Files{}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "fixtures" || (strings.HasPrefix(d.Name(), ".") && p != ".") {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".rego") || pathpkg.Base(p) == "data.json" {
			b, err := fs.ReadFile(fsys, p)
			if err != nil {
				return err
			}
			out[p] = b
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return out, nil
}

// Run checks a policy. What does not parse or compile is a finding, too. Findings come ordered by place. An error means
// that the options or data files cannot be read. Unit tests (*_test.rego) are compiled along and not judged.
func Run(files Files, o Options) ([]Finding, error) {
	l := &linter{files: files, source: map[string]*ast.Module{}, exprs: map[string][]*ast.Expr{}, data: map[string]any{}}
	var err error
	if l.schema, err = parseSchema(o.Schema); err != nil {
		return nil, err
	}
	if err := l.readData(); err != nil {
		return nil, err
	}
	if l.parse() {
		l.metadata()
		l.patterns()
		if l.compile() {
			l.flow()
			l.device()
		}
	}
	return l.finish(), nil
}

// Count tells how many findings count as errors and as warnings.
func Count(fs []Finding) (errs, warnings, suppressed int) {
	for _, f := range fs {
		switch {
		case f.Suppressed:
			suppressed++
		case f.Severity == Error:
			errs++
		default:
			warnings++
		}
	}
	return errs, warnings, suppressed
}

// Apply makes the edits of one finding; files is not changed.
func Apply(files Files, f Finding) Files {
	out := Files{}
	for n, b := range files {
		out[n] = b
	}
	edits := slices.Clone(f.Edits)
	sort.Slice(edits, func(i, j int) bool { return edits[i].Start > edits[j].Start })
	for _, e := range edits {
		b := out[e.File]
		out[e.File] = slices.Concat(b[:e.Start], []byte(e.New), b[e.End:])
	}
	return out
}

type linter struct {
	files    Files
	schema   *node
	data     map[string]any
	source   map[string]*ast.Module // as parsed, for places and texts
	exprs    map[string][]*ast.Expr // of source, by file
	compiler *ast.Compiler
	findings []Finding
}

func (l *linter) readData() error {
	for n, b := range l.files {
		if pathpkg.Base(n) != "data.json" {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var v map[string]any
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
		at := l.data
		if dir := pathpkg.Dir(n); dir != "." {
			for _, seg := range strings.Split(dir, "/") {
				next, ok := at[seg].(map[string]any)
				if !ok {
					next = map[string]any{}
					at[seg] = next
				}
				at = next
			}
		}
		for k, x := range v {
			at[k] = x
		}
	}
	return nil
}

func isTest(file string) bool { return strings.HasSuffix(file, "_test.rego") }

func (l *linter) names() []string {
	var out []string
	for n := range l.files {
		if strings.HasSuffix(n, ".rego") {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// parse fills source; false when a file does not parse.
func (l *linter) parse() bool {
	ok := true
	for _, n := range l.names() {
		m, v0, err := parseModule(n, l.files[n])
		if err != nil {
			l.astErrors(err, "QA-001")
			ok = false
			continue
		}
		if v0 {
			l.at(m.Package.Location, Finding{Code: "QA-011", Message: "the file is written in Rego v0"})
		}
		l.source[n] = m
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.Location != nil && len(e.Location.Text) > 0 {
				l.exprs[n] = append(l.exprs[n], e)
			}
			return false
		})
	}
	return ok
}

// parseModule reads what the gate reads: Rego v1, and v0 in packages of users; v0 tells which it was.
func parseModule(name string, b []byte) (m *ast.Module, v0 bool, err error) {
	o := ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1, Capabilities: ast.CapabilitiesForThisVersion()}
	if m, err = ast.ParseModuleWithOpts(name, string(b), o); err == nil {
		return m, false, nil
	}
	o.RegoVersion = ast.RegoV0
	if old, v0err := ast.ParseModuleWithOpts(name, string(b), o); v0err == nil && !isOurs(old) {
		return old, true, nil
	}
	return nil, false, err
}

// isOurs tells whether a package is one of rules of our shape, or a helper of them.
func isOurs(m *ast.Module) bool {
	p := m.Package.Path.String()
	return p == "data.waybill" || strings.HasPrefix(p, "data.waybill.")
}

// compile compiles twice: strictly for what OPA itself finds wrong, then without for the analysis.
func (l *linter) compile() bool {
	modules := func() map[string]*ast.Module {
		ms := map[string]*ast.Module{}
		for n := range l.source {
			if m, _, err := parseModule(n, l.files[n]); err == nil {
				ms[n] = m
			}
		}
		return ms
	}
	loose := ast.NewCompiler().WithCapabilities(ast.CapabilitiesForThisVersion()).SetErrorLimit(0)
	if loose.Compile(modules()); loose.Failed() {
		l.astErrors(loose.Errors, "QA-001")
		return false
	}
	l.compiler = loose
	for _, m := range l.source {
		if !isOurs(m) {
			return true // the gate is as lenient with packages of users as conftest is
		}
	}
	strict := ast.NewCompiler().WithCapabilities(ast.CapabilitiesForThisVersion()).SetErrorLimit(0).WithStrict(true)
	if strict.Compile(modules()); strict.Failed() {
		l.astErrors(strict.Errors, "QA-001")
	}
	return true
}

// astErrors files OPA's own errors, which name places.
func (l *linter) astErrors(err error, code string) {
	var many ast.Errors
	if !errors.As(err, &many) {
		l.add(Finding{Code: code, Message: err.Error()})
		return
	}
	for _, e := range many {
		c := code
		if strings.Contains(e.Message, "deprecated") {
			c = "QA-004"
		} else if strings.Contains(e.Message, "must not shadow") {
			c = "QA-006"
		}
		f := Finding{Code: c, Message: e.Message}
		if e.Location != nil {
			f.File, f.Line, f.Column = e.Location.File, e.Location.Row, e.Location.Col
		}
		l.add(f)
	}
}

// add files a finding with what its code says; the first at a place about a value counts.
func (l *linter) add(f Finding) {
	d := describe(f.Code)
	if f.Severity == "" {
		f.Severity = d.Severity
	}
	if f.Why == "" {
		f.Why = d.Why
	}
	if f.Fix == "" {
		f.Fix = d.Fix
	}
	if f.Edits == nil {
		f.Edits = []Edit{}
	}
	for i, g := range l.findings {
		if g.Code == f.Code && g.File == f.File && g.Line == f.Line && g.Column == f.Column && g.Missing == f.Missing {
			if g.Severity == Warning && f.Severity == Error {
				l.findings[i] = f
			}
			return
		}
	}
	l.findings = append(l.findings, f)
}

func (l *linter) at(loc *ast.Location, f Finding) {
	if loc != nil {
		f.File, f.Line, f.Column = loc.File, loc.Row, loc.Col
	}
	l.add(f)
}

// finish applies the comments that suppress, and orders.
func (l *linter) finish() []Finding {
	l.suppress()
	sort.SliceStable(l.findings, func(i, j int) bool {
		a, b := l.findings[i], l.findings[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		if a.Column != b.Column {
			return a.Column < b.Column
		}
		return a.Code < b.Code
	})
	if l.findings == nil {
		return []Finding{}
	}
	return l.findings
}
