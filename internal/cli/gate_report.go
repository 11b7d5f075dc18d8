package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/report"
)

// rulesPage is where the builtin rules are explained.
const rulesPage = "https://github.com/waybill-ml/waybill/blob/main/docs/rules.md#"

func reportFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringSliceFlag{Name: "report", Usage: "write a report `FORMAT=FILE`: github, gitlab, junit, markdown or sarif; FORMAT alone: to stderr"},
		&ucli.StringFlag{Name: "report-at", Usage: "`FILE` of the repository at which reports show their findings", Value: "waybill.yaml"},
	}
}

// reportTarget is one report that was asked for.
type reportTarget struct {
	format report.Format
	path   string // "" for stderr
}

// reportTargets reads --report before anything else is done: a report that cannot be written must not cost a verdict.
func (c *Call) reportTargets() ([]reportTarget, error) {
	var out []reportTarget
	seen := map[string]bool{}
	for _, s := range c.Strings("report") {
		name, path, file := strings.Cut(s, "=")
		f := report.Format(name)
		if !slices.Contains(report.Formats(), f) {
			var names []string
			for _, x := range report.Formats() {
				names = append(names, string(x))
			}
			e := diag.New(diag.Usage, "gate: --report %q: unknown format %q", s, name)
			if n := diag.Nearest(name, names); n != "" {
				return nil, e.Hint("did you mean --report %s=FILE?", n)
			}
			return nil, e.Hint("formats: %s", strings.Join(names, ", "))
		}
		if file && path == "" {
			return nil, diag.New(diag.Usage, "gate: --report %q: the file is missing", s).Hint("--report %s=FILE, or --report %s for stderr", name, name)
		}
		if path != "" {
			path = c.Abs(path)
			if seen[path] {
				return nil, diag.New(diag.Usage, "gate: --report: %s is given twice", path)
			}
			seen[path] = true
			if err := checkReportPath(path); err != nil {
				return nil, err
			}
		}
		out = append(out, reportTarget{f, path})
	}
	return out, nil
}

func checkReportPath(path string) error {
	dir, err := os.Stat(filepath.Dir(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diag.New(diag.NotFound, "gate: --report: the folder %s does not exist", filepath.Dir(path)).Hint("mkdir -p %s", filepath.Dir(path))
	case err != nil:
		return diag.Wrap(diag.Failure, err, "gate: --report")
	case !dir.IsDir():
		return diag.New(diag.Usage, "gate: --report: %s is no folder", filepath.Dir(path))
	}
	if i, err := os.Stat(path); err == nil && i.IsDir() {
		return diag.New(diag.Usage, "gate: --report: %s is a folder", path)
	}
	return nil
}

// writeReports writes each report; the first failure is told, the others are tried all the same.
func (c *Call) writeReports(to []reportTarget, r *report.Report) error {
	r.File = c.String("report-at")
	var first error
	for _, t := range to {
		var b bytes.Buffer
		err := report.Write(&b, t.format, r)
		switch {
		case err != nil:
		case t.path == "":
			_, err = c.UI.Err.Write(b.Bytes())
		default:
			err = fsx.WriteFileAtomic(fsx.OS{}, t.path, b.Bytes(), 0o644)
		}
		if err != nil && first == nil {
			first = diag.Wrap(diag.Failure, err, "gate: the %s report could not be written", t.format)
		}
	}
	return first
}

// reportOf makes the report of a decision.
func reportOf(o *gate.Outcome, out gateJSON) *report.Report {
	meta := o.Policy.Bundle().Meta()
	r := &report.Report{
		Tool: o.Input.Context.GateVersion, Ref: digestRef(out.Ref, out.Digest), Digest: string(out.Digest), Model: o.Input.Model.Name, Version: o.Input.Model.Version,
		Policy: strings.TrimSpace(meta.Name + " " + meta.Version), Profile: o.Input.Environment.Profile, Time: o.Input.Context.Time, NotAfter: out.NotAfter,
		Verdict: string(out.Verdict), Record: string(out.Record), Decision: o.Decision,
	}
	fill := func(rs []decision.Result) []decision.Result {
		rs = slices.Clone(rs)
		for i := range rs {
			rs[i].Remediation = remedy(rs[i].Remediation, out)
		}
		return rs
	}
	r.Decision.Violations, r.Decision.Warnings, r.Decision.Exceptions = fill(o.Decision.Violations), fill(o.Decision.Warnings), fill(o.Decision.Exceptions)
	r.Rules = ruleRows(o.Policy.Rules(), o.Policy.Bundle().Digest(), out)
	return r
}

func ruleRows(rules []rego.RuleInfo, policy artifact.Digest, out gateJSON) []report.Rule {
	own, err := library.Default()
	builtin := err == nil && own.Digest() == policy
	var rows []report.Rule
	for _, x := range rules {
		row := report.Rule{ID: x.ID, Title: x.Title, Description: x.Description, Severity: x.Severity, Remediation: remedy(x.Remediation, out),
			Category: x.Category, Standards: slices.Clone(x.Standards), Mandatory: x.Mandatory}
		if builtin {
			row.Help = rulesPage + strings.ToLower(x.ID)
		}
		rows = append(rows, row)
	}
	return rows
}

// reportOfError is the report of a denial that no policy came to: the pinned policy was not at hand, or is broken.
func reportOfError(rq gate.Request, cause error) *report.Report {
	d := decision.New("", "")
	d.Environment, d.Error = rq.Environment, cause.Error()
	if e, ok := rq.Environments.Document.Environments[rq.Environment]; ok {
		d.PolicyDigest = string(e.Policy.Digest)
	}
	d.Close()
	return &report.Report{Tool: rq.Version, Ref: digestRef(rq.Ref, rq.Digest), Digest: string(rq.Digest), Time: rq.Now, Decision: d}
}
