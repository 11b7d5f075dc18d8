package rego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/waybill-ml/waybill/policy/bundle"
)

// TestStatus is the outcome of a unit test.
type TestStatus string

// Outcomes of a unit test. Errored is a failure: nobody knows what the test would have said.
const (
	TestPassed  TestStatus = "passed"
	TestFailed  TestStatus = "failed"
	TestErrored TestStatus = "error"
	TestSkipped TestStatus = "skipped" // todo_test_...
)

// SubTest is one case of a parametrised test (test_x[name] if ...), by its path of names.
type SubTest struct {
	Name string `json:"name"`
	Pass bool   `json:"pass"`
}

// TestResult is the outcome of one test_ rule of a policy's *_test.rego files.
type TestResult struct {
	Name     string // package.test_name
	File     string
	Line     int
	Status   TestStatus
	Reason   string // why not passed
	Output   string // of print
	Duration time.Duration
	Sub      []SubTest
}

// TestOptions say what to run.
type TestOptions struct {
	Filter  *regexp.Regexp // on package.test_name; nil runs all
	Timeout time.Duration  // of each test; 0 means DefaultTimeout
	Cover   *Coverage      // filled when not nil
}

// RunTests runs the unit tests (*_test.rego) that stand beside a policy, in OPA's own shape, with the capabilities and the
// strictness of the gate: tests and policy compile strictly, builtins that fail are errors. No test is an empty list.
func RunTests(ctx context.Context, fsys fs.FS, o TestOptions) ([]TestResult, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	b, err := bundle.FromFS(fsys)
	if err != nil {
		return nil, err
	}
	modules, data, err := parse(b, Capabilities())
	if err != nil {
		return nil, err
	}
	tests, err := parseTests(fsys)
	if err != nil || len(tests) == 0 {
		return []TestResult{}, err
	}
	strict := !anyUsers(modules)
	for n, m := range tests {
		modules[n] = m
	}
	store := inmem.NewFromObject(data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{Write: true}) // the runner compiles, and may migrate
	if err != nil {
		return nil, fmt.Errorf("policy test: %w", err)
	}
	defer store.Abort(ctx, txn)
	// One test at a time: a policy that needs the whole machine must not make its neighbours run out of time.
	r := tester.NewRunner().SetCompiler(ast.NewCompiler().WithCapabilities(Capabilities()).WithStrict(strict).WithEnablePrintStatements(true)).
		SetStore(store).SetModules(modules).SetTimeout(o.Timeout).RaiseBuiltinErrors(true).SetDefaultRegoVersion(ast.RegoV1).SetParallel(1)
	if o.Cover != nil {
		r.SetCoverageQueryTracer(o.Cover.cov).SetCoverageRuns(nil)
	}
	if o.Filter != nil {
		r.Filter(o.Filter.String())
	}
	ch, err := r.RunTests(ctx, txn)
	if err != nil {
		return nil, fmt.Errorf("policy test: %w", err)
	}
	out := []TestResult{}
	for r := range ch {
		out = append(out, testResult(r, o.Timeout))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, ctx.Err()
}

// parseTests reads the *_test.rego files of a folder; those in folders that no policy has are left out as there.
func parseTests(fsys fs.FS) (map[string]*ast.Module, error) {
	out := map[string]*ast.Module{}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "fixtures" || strings.HasPrefix(d.Name(), ".") && p != ".") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, "_test.rego") {
			return nil
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s: not a regular file", p)
		}
		raw, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		if len(raw) > bundle.MaxBytes {
			return fmt.Errorf("%s is larger than %d bytes", p, bundle.MaxBytes)
		}
		m, err := parseModule(p, string(raw), Capabilities())
		if err != nil {
			return err
		}
		out[p] = m
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("policy test: %w", err)
	}
	return out, nil
}

func testResult(r *tester.Result, timeout time.Duration) TestResult {
	t := TestResult{Name: strings.TrimPrefix(r.Package, "data.") + "." + r.Name, Status: TestPassed, Output: string(r.Output), Duration: r.Duration}
	if r.Location != nil {
		t.File, t.Line = r.Location.File, r.Location.Row
	}
	var failed []string
	for name, sub := range r.SubResults.Iter {
		if len(sub.SubResults) > 0 {
			continue
		}
		n := strings.Join(name, "/")
		t.Sub = append(t.Sub, SubTest{Name: n, Pass: !sub.Fail})
		if sub.Fail {
			failed = append(failed, n)
		}
	}
	switch {
	case r.Error != nil:
		t.Status, t.Reason = TestErrored, oneLine(r.Error)
		if strings.Contains(t.Reason, "eval_cancel_error") {
			t.Reason = fmt.Sprintf("ran longer than %s", timeout)
		}
	case r.Skip:
		t.Status, t.Reason = TestSkipped, "todo_"
	case len(failed) > 0:
		t.Status, t.Reason = TestFailed, "not true for "+strings.Join(failed, ", ")
	case r.Fail:
		t.Status, t.Reason = TestFailed, "the test is not true"
	}
	return t
}

// Coverage tells which lines of a policy ran. Not safe for concurrent use.
type Coverage struct{ cov *cover.Cover }

// NewCoverage returns one that nothing ran under yet.
func NewCoverage() *Coverage { return &Coverage{cov: cover.New()} }

// FileCoverage counts the lines of one file that hold a rule's head or an expression.
type FileCoverage struct {
	File    string  `json:"file"`
	Covered int     `json:"covered"`
	Lines   int     `json:"lines"`
	Percent float64 `json:"percent"`
	Missing []int   `json:"missing"` // lines that never ran
}

// Report returns the coverage of the files of b, and of all together in percent. A policy without lines is covered.
func (c *Coverage) Report(b *bundle.Bundle) ([]FileCoverage, float64, error) {
	modules, _, err := parse(b, Capabilities())
	if err != nil {
		return nil, 0, err
	}
	rep := c.cov.Report(modules)
	out := []FileCoverage{}
	covered, lines := 0, 0
	for _, n := range b.Names() {
		m, ok := modules[n]
		if !ok || len(m.Rules) == 0 {
			continue
		}
		fr := rep.Files[n]
		f := FileCoverage{File: n, Covered: fr.CoveredLines, Lines: fr.CoveredLines + fr.NotCoveredLines, Percent: fr.Coverage, Missing: []int{}}
		seen := map[int]bool{}
		for _, r := range fr.NotCovered {
			for row := r.Start.Row; row <= r.End.Row; row++ {
				if !seen[row] && !fr.IsCovered(row) {
					seen[row] = true
					f.Missing = append(f.Missing, row)
				}
			}
		}
		sort.Ints(f.Missing)
		covered, lines = covered+f.Covered, lines+f.Lines
		out = append(out, f)
	}
	if lines == 0 {
		return out, 100, nil
	}
	return out, 100 * float64(covered) / float64(lines), nil
}

// Cover evaluates every rule over a facts document for its coverage only; documents that Evaluate refuses cover nothing.
func (p *Policy) Cover(ctx context.Context, doc []byte, c *Coverage) error {
	if _, problems := p.check(doc); len(problems) > 0 {
		return nil
	}
	value, err := ast.ValueFromReader(bytes.NewReader(doc))
	if err != nil {
		return fmt.Errorf("read facts: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	for _, r := range p.rules {
		if r.ID == SchemaRule {
			continue
		}
		_, err := r.query.Eval(ctx, rego.EvalParsedInput(value), rego.EvalQueryTracer(c.cov), rego.EvalRuleIndexing(false), rego.EvalEarlyExit(false))
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
	return nil
}
