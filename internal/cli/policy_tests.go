package cli

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/report"
)

func policyTestCommand() Command {
	return Command{
		Name: "test", Summary: "run a policy's tests", Args: "[PATH]", Max: 1,
		Long: `Runs the test_ rules of a folder's *_test.rego files, as OPA runs them, and its fixtures: fixtures/RULE.json holds
documents that a rule must deny, and documents that it must pass. Both run with the capabilities and the strictness of
the gate. Without PATH, the fixtures of the builtin policy. A policy without tests fails.

A rule below waybill.rules without a fixture that it must deny and one that it must pass is reported; --strict fails.`,
		Examples: []string{"waybill policy test", "waybill policy test ./policy --run 'main\\.'", "waybill policy test ./policy --coverage --threshold 90 --junit tests.xml"},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "run", Usage: "only tests whose package.test_name or fixture matches `REGEX`"},
			&ucli.BoolFlag{Name: "coverage", Usage: "tell which lines of the policy ran"},
			&ucli.Float64Flag{Name: "threshold", Usage: "fail when less than `PERCENT` of the lines ran"},
			&ucli.DurationFlag{Name: "timeout", Value: rego.DefaultTimeout, Usage: "`TIME` that one test may take"},
			&ucli.BoolFlag{Name: "strict", Usage: "fail where a rule lacks a fixture, too"},
			&ucli.StringFlag{Name: "junit", Usage: "write JUnit XML to this `FILE`, too"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.NotFound}, Run: runPolicyTest,
	}
}

type policyTestJSON struct {
	Schema   string              `json:"schema"`
	Passed   int                 `json:"passed"`
	Failed   int                 `json:"failed"` // errors included
	Skipped  int                 `json:"skipped"`
	Cases    []policyTestCase    `json:"cases"`
	Lacking  []string            `json:"lacking"`  // rules without a fixture that they must deny, or must pass
	Coverage *policyCoverageJSON `json:"coverage"` // null unless asked for
}

type policyTestCase struct {
	Name   string         `json:"name"`
	Kind   string         `json:"kind"`   // test, fixture
	Status string         `json:"status"` // passed, failed, error, skipped
	File   string         `json:"file"`
	Line   int            `json:"line"`
	Detail string         `json:"detail"`
	Output string         `json:"output"`
	Millis float64        `json:"ms"`
	Cases  []rego.SubTest `json:"cases"`
}

type policyCoverageJSON struct {
	Percent float64             `json:"percent"`
	Files   []rego.FileCoverage `json:"files"`
}

func runPolicyTest(ctx context.Context, c *Call) error {
	threshold := c.Float("threshold")
	if threshold < 0 || threshold > 100 {
		return diag.New(diag.Usage, "--threshold %v is no percentage", threshold)
	}
	if c.Duration("timeout") <= 0 {
		return diag.New(diag.Usage, "--timeout must be more than nothing")
	}
	var filter *regexp.Regexp
	if s := c.String("run"); s != "" {
		var err error
		if filter, err = regexp.Compile(s); err != nil {
			return diag.Wrap(diag.Usage, err, "--run")
		}
	}
	p, fsys, err := c.compileTested(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	if fsys == nil {
		return diag.New(diag.Usage, "policy test: %s is a packed policy; tests stand beside its source", c.Arg(0))
	}
	var cov *rego.Coverage
	if c.Bool("coverage") || c.IsSet("threshold") {
		cov = rego.NewCoverage()
	}
	out := policyTestJSON{Schema: schemaBase + "policy-test/v1", Cases: []policyTestCase{}, Lacking: []string{}}
	units, err := rego.RunTests(ctx, fsys, rego.TestOptions{Filter: filter, Timeout: c.Duration("timeout"), Cover: cov})
	if err != nil {
		return diag.Wrap(diag.Failure, err, "policy test %s", policySource(c.Arg(0)))
	}
	for _, r := range units {
		t := policyTestCase{Name: r.Name, Kind: "test", Status: string(r.Status), File: r.File, Line: r.Line, Output: r.Output,
			Millis: float64(r.Duration.Microseconds()) / 1000, Cases: r.Sub}
		if t.Cases == nil {
			t.Cases = []rego.SubTest{}
		}
		if r.Reason != "" {
			t.Detail = fmt.Sprintf("%s:%d: %s", r.File, r.Line, r.Reason)
		}
		out.Cases = append(out.Cases, t)
	}
	if p != nil { // a policy for devices alone has no rules of the gate
		if err := c.runFixtures(ctx, p, fsys, filter, cov, &out); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, t := range out.Cases {
		switch t.Status {
		case "passed":
			out.Passed++
		case "skipped":
			out.Skipped++
		default:
			out.Failed++
		}
	}
	if out.Passed+out.Failed == 0 {
		if filter != nil {
			return diag.New(diag.Failure, "policy test: no test of %s matches %q", policySource(c.Arg(0)), filter)
		}
		return diag.New(diag.Failure, "policy test: %s has no tests", policySource(c.Arg(0))).
			Hint("write test_ rules in a file ending in _test.rego, or fixtures/RULE.json")
	}
	if cov != nil {
		files, percent, err := cov.Report(p.Bundle())
		if err != nil {
			return err
		}
		out.Coverage = &policyCoverageJSON{Percent: percent, Files: files}
	}
	if err := c.writeTestsJUnit(out); err != nil {
		return err
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		c.printTests(out)
	}
	switch {
	case out.Failed > 0:
		return diag.New(diag.Failure, "policy test: %d of %d failed", out.Failed, out.Passed+out.Failed)
	case out.Coverage != nil && out.Coverage.Percent < threshold:
		return diag.New(diag.Failure, "policy test: %.1f %% of the lines ran, demanded are %v %%", out.Coverage.Percent, threshold)
	case len(out.Lacking) > 0 && c.Bool("strict"):
		return diag.New(diag.Failure, "policy test: %s without a fixture that it must deny and one that it must pass", ui.Plural(len(out.Lacking), "rule"))
	}
	return nil
}

// runFixtures runs the documents that rules must deny and must pass.
func (c *Call) runFixtures(ctx context.Context, p *rego.Policy, fsys fs.FS, filter *regexp.Regexp, cov *rego.Coverage, out *policyTestJSON) error {
	var cases []library.Case
	var err error
	if c.Arg(0) == "" {
		cases, err = library.Cases(p.Bundle().Digest())
	} else {
		profile := "baseline"
		if names := p.Profiles(); slices.Contains(names, "strict") {
			profile = "strict"
		}
		cases, err = library.CasesIn(fsys, p.Bundle().Digest(), profile)
	}
	if err != nil {
		return diag.Wrap(diag.Failure, err, "policy test %s", policySource(c.Arg(0)))
	}
	has := map[string]map[decision.Status]bool{}
	for _, x := range cases {
		if has[x.Rule] == nil {
			has[x.Rule] = map[decision.Status]bool{}
		}
		has[x.Rule][x.Want] = true
		kind := map[decision.Status]string{decision.Fail: "must deny", decision.Pass: "must pass", decision.Skipped: "must skip"}[x.Want]
		t := policyTestCase{Name: fmt.Sprintf("%s %s: %s", x.Rule, kind, x.Name), Kind: "fixture", Status: "passed", File: "fixtures/" + x.Rule + ".json", Cases: []rego.SubTest{}}
		if filter != nil && !filter.MatchString(t.Name) {
			continue
		}
		at := time.Now()
		if err := x.Check(p.Evaluate(ctx, x.Doc)); err != nil {
			t.Status, t.Detail = "failed", t.File+": "+err.Error()
		}
		t.Millis = float64(time.Since(at).Microseconds()) / 1000
		if cov != nil {
			if err := p.Cover(ctx, x.Doc, cov); err != nil {
				return err
			}
		}
		out.Cases = append(out.Cases, t)
	}
	for _, r := range p.Rules() {
		if strings.HasPrefix(r.Package, "data.waybill.rules.") && (!has[r.ID][decision.Fail] || !has[r.ID][decision.Pass]) {
			out.Lacking = append(out.Lacking, r.ID)
		}
	}
	return nil
}

func (c *Call) writeTestsJUnit(out policyTestJSON) error {
	name := c.String("junit")
	if name == "" {
		return nil
	}
	var cases []report.TestCase
	for _, t := range out.Cases {
		class := "fixtures"
		if t.Kind == "test" {
			class = t.Name[:strings.LastIndexByte(t.Name, '.')]
		}
		cases = append(cases, report.TestCase{Class: class, Name: t.Name, Status: t.Status, Detail: t.Detail, Took: time.Duration(t.Millis * float64(time.Millisecond))})
	}
	b, err := report.TestsJUnit(policySource(c.Arg(0)), c.Env.Now(), cases)
	if err != nil {
		return err
	}
	path := c.Abs(name)
	if c.dry(path, b) {
		return nil
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, path, b, 0o644); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", name)
	}
	return nil
}

func (c *Call) printTests(out policyTestJSON) {
	verbose := c.Bool("verbose")
	for _, t := range out.Cases {
		bad := t.Status != "passed" && t.Status != "skipped"
		switch {
		case bad:
			c.UI.Data("%-7s %s", c.UI.Out.Red(t.Status), t.Name)
		case t.Status == "skipped":
			c.UI.Data("%-7s %s", c.UI.Out.Yellow(t.Status), t.Name)
		case verbose:
			c.UI.Data("%-7s %s  %.1f ms", c.UI.Out.Green(t.Status), t.Name, t.Millis)
		}
		if t.Detail != "" && (bad || verbose) {
			c.UI.Data("        %s", t.Detail)
		}
		for _, s := range t.Cases {
			if verbose || bad && !s.Pass {
				c.UI.Data("        %s  %s", map[bool]string{true: "passed", false: "failed"}[s.Pass], s.Name)
			}
		}
		if t.Output != "" && (bad || verbose) {
			for _, l := range strings.Split(strings.TrimRight(t.Output, "\n"), "\n") {
				c.UI.Data("        | %s", l)
			}
		}
	}
	if len(out.Lacking) > 0 {
		c.UI.Warn("no fixture that it must deny, or none that it must pass: %s", strings.Join(out.Lacking, ", "))
	}
	if out.Coverage != nil {
		rows := [][]string{{"file", "lines", "covered", "never ran"}}
		for _, f := range out.Coverage.Files {
			rows = append(rows, []string{f.File, fmt.Sprint(f.Lines), fmt.Sprintf("%.1f %%", f.Percent), ranges(f.Missing)})
		}
		ui.Table(c.UI.Out, true, rows)
		c.UI.Data("coverage %.1f %% of lines", out.Coverage.Percent)
	}
	if out.Skipped > 0 {
		c.UI.Data("%d passed, %d failed, %d skipped", out.Passed, out.Failed, out.Skipped)
		return
	}
	c.UI.Data("%d passed, %d failed", out.Passed, out.Failed)
}

// ranges writes line numbers as 3-5, 9.
func ranges(lines []int) string {
	var out []string
	for i := 0; i < len(lines); {
		j := i
		for j+1 < len(lines) && lines[j+1] == lines[j]+1 {
			j++
		}
		if i == j {
			out = append(out, fmt.Sprint(lines[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", lines[i], lines[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ", ")
}
