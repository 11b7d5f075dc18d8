package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/lint"
)

func policyLintCommand() Command {
	return Command{
		Name: "lint", Summary: "find rules that fail open, and what else is wrong with a policy", Args: "[PATH]", Max: 1,
		Long: `Follows every rule that decides through OPA's compiled form and asks of each value: what if it is missing? A denial that
does not fire then, and an allowance that does, is an error, with the place, the reason and a form that is safe. The
schema of the facts tells which values cannot be missing; --schema none takes every value for one that may be. Packages
below waybill.device are judged as policy pack --device does, against the input of a device.

A comment "# waybill:ignore FO-003 REASON" at or above a line suppresses one kind of finding there; it is listed all the
same. --strict fails on warnings, too.`,
		Examples: []string{"waybill policy lint ./policy", "waybill policy lint ./policy --strict --sarif lint.sarif", "waybill policy lint main.rego --schema none --output json"},
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "strict", Usage: "fail on warnings, too"},
			&ucli.StringFlag{Name: "schema", Value: "facts", Usage: "`SCHEMA` of the input: facts, none, or a JSON Schema file"},
			&ucli.StringFlag{Name: "sarif", Usage: "write SARIF 2.1.0 to this `FILE`, too"},
			&ucli.BoolFlag{Name: "codes", Usage: "list every kind of finding instead"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.NotFound}, Run: runPolicyLint,
	}
}

type policyLintJSON struct {
	Schema     string         `json:"schema"`
	Errors     int            `json:"errors"`
	Warnings   int            `json:"warnings"`
	Suppressed int            `json:"suppressed"`
	Findings   []lint.Finding `json:"findings"`
}

// readPolicyFiles reads the text of a policy: the builtin one, a folder, or one file. root is the folder that the names
// are relative to, "" for the builtin one.
func (c *Call) readPolicyFiles(arg string) (files lint.Files, root string, err error) {
	if arg == "" {
		files, err = lint.ReadFS(library.FS())
		return files, "", err
	}
	abs := c.Abs(arg)
	info, err := os.Stat(abs)
	if err != nil {
		return nil, "", fileError(err, "policy", arg, "waybill policy list")
	}
	if info.IsDir() {
		files, err = lint.ReadFS(os.DirFS(abs))
		if err == nil && !hasRego(files) {
			return nil, "", diag.New(diag.Usage, "policy %s has no .rego file", arg)
		}
		return files, arg, err
	}
	if !strings.HasSuffix(abs, ".rego") {
		return nil, "", diag.New(diag.Usage, "%s is neither a folder nor a .rego file", arg)
	}
	b, err := readSmall(abs, bundle.MaxBytes)
	if err != nil {
		return nil, "", fileError(err, "policy", arg, "waybill policy list")
	}
	return lint.Files{filepath.Base(abs): b}, filepath.Dir(arg), nil
}

func hasRego(files lint.Files) bool {
	for n := range files {
		if strings.HasSuffix(n, ".rego") {
			return true
		}
	}
	return false
}

func runPolicyLint(_ context.Context, c *Call) error {
	if c.Bool("codes") {
		return c.listLintCodes()
	}
	files, root, err := c.readPolicyFiles(c.Arg(0))
	if err != nil {
		return err
	}
	o := lint.Options{Schema: input.SchemaJSON()}
	switch s := c.String("schema"); s {
	case "facts":
	case "none":
		o.Schema = nil
	default:
		if o.Schema, err = readSmall(c.Abs(s), input.MaxBytes); err != nil {
			return fileError(err, "schema", s, "waybill policy lint --schema none")
		}
	}
	found, err := lint.Run(files, o)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "policy lint %s", policySource(c.Arg(0)))
	}
	for i := range found {
		if root != "" && found[i].File != "" {
			found[i].File = filepath.ToSlash(filepath.Join(root, filepath.FromSlash(found[i].File)))
			for j := range found[i].Edits {
				found[i].Edits[j].File = filepath.ToSlash(filepath.Join(root, filepath.FromSlash(found[i].Edits[j].File)))
			}
		}
	}
	if out := c.String("sarif"); out != "" {
		b, err := lint.SARIF(found, version.Number)
		if err != nil {
			return err
		}
		if path := c.Abs(out); !c.dry(path, b) {
			if err := fsx.WriteFileAtomic(fsx.OS{}, path, b, 0o644); err != nil {
				return diag.Wrap(diag.Failure, err, "write %s", out)
			}
		}
	}
	errs, warnings, suppressed := lint.Count(found)
	if c.UI.JSON {
		if err := c.UI.PrintJSON(policyLintJSON{schemaBase + "policy-lint/v1", errs, warnings, suppressed, found}); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			c.printFinding(f)
		}
		c.UI.Data("%s, %s, %d suppressed", ui.Plural(errs, "error"), ui.Plural(warnings, "warning"), suppressed)
	}
	switch {
	case errs > 0:
		return diag.New(diag.Failure, "policy lint: %s in %s", ui.Plural(errs, "error"), policySource(c.Arg(0)))
	case warnings > 0 && c.Bool("strict"):
		return diag.New(diag.Failure, "policy lint: %s in %s", ui.Plural(warnings, "warning"), policySource(c.Arg(0)))
	}
	return nil
}

func (c *Call) printFinding(f lint.Finding) {
	level := string(f.Severity)
	switch {
	case f.Suppressed:
		level = c.UI.Out.Dim("suppressed")
	case f.Severity == lint.Error:
		level = c.UI.Out.Red(level)
	default:
		level = c.UI.Out.Yellow(level)
	}
	c.UI.Data("%s:%d:%d  %s  %s  %s", f.File, f.Line, f.Column, f.Code, level, f.Message)
	if f.Suppressed {
		c.UI.Data("    reason  %s", f.Reason)
		return
	}
	for i, l := range wrap(f.Why, 84) {
		c.UI.Data("    %-6s  %s", map[bool]string{true: "why"}[i == 0], l)
	}
	for i, l := range strings.Split(strings.TrimRight(f.Fix, "\n"), "\n") {
		c.UI.Data("    %-6s  %s", map[bool]string{true: "fix"}[i == 0], strings.ReplaceAll(l, "\t", "  "))
	}
}

func (c *Call) listLintCodes() error {
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "policy-lint-codes/v1", "codes": lint.Codes()})
	}
	rows := [][]string{{"code", "severity", "finds"}}
	for _, x := range lint.Codes() {
		rows = append(rows, []string{x.ID, string(x.Severity), x.Title})
	}
	ui.Table(c.UI.Out, true, rows)
	return nil
}
