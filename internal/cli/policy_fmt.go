package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/policy/bundle"
)

func policyFmtCommand() Command {
	return Command{
		Name: "fmt", Summary: "format Rego as OPA does", Args: "[PATH|-]", Max: 1,
		Long: `Rewrites the .rego files of a folder (default: here), or one file, in OPA's form; - reads stdin and writes stdout. Line
ends stay what they are. A file that does not parse is left alone, and the others are formatted. Files in the old syntax
(Rego v0) are an error, unless --rego-v1 asks to convert them.`,
		Examples: []string{"waybill policy fmt ./policy", "waybill policy fmt ./policy --check", "waybill policy fmt - < main.rego"},
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "check", Usage: "write nothing; list what is not formatted and fail"},
			&ucli.BoolFlag{Name: "diff", Usage: "write nothing; print what would change"},
			&ucli.BoolFlag{Name: "rego-v1", Usage: "convert files in the syntax of Rego v0"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.NotFound}, Run: runPolicyFmt,
	}
}

type policyFmtJSON struct {
	Schema  string   `json:"schema"`
	Files   int      `json:"files"`
	Changed []string `json:"changed"`
	Failed  []string `json:"failed"`
}

// formatRego brings a file into OPA's form with the line ends that it has.
func formatRego(name string, src []byte, convert bool) ([]byte, error) {
	crlf := bytes.Contains(src, []byte("\r\n"))
	text := bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	opts := format.Opts{RegoVersion: ast.RegoV1, ParserOptions: &ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true}}
	out, err := format.SourceWithOpts(name, text, opts)
	if err != nil {
		v0 := format.Opts{RegoVersion: ast.RegoV1, ParserOptions: &ast.ParserOptions{RegoVersion: ast.RegoV0, ProcessAnnotation: true}}
		old, v0err := format.SourceWithOpts(name, text, v0)
		switch {
		case v0err != nil:
			return nil, err // neither syntax
		case !convert:
			return nil, errors.New("is in the syntax of Rego v0 (convert it with --rego-v1)")
		}
		out = old
	}
	if crlf {
		out = bytes.ReplaceAll(out, []byte("\n"), []byte("\r\n"))
	}
	return out, nil
}

func runPolicyFmt(_ context.Context, c *Call) error {
	if c.Arg(0) == "-" {
		src, err := io.ReadAll(io.LimitReader(c.Env.Stdin, bundle.MaxBytes+1))
		if err != nil {
			return diag.Wrap(diag.Failure, err, "read stdin")
		}
		if len(src) > bundle.MaxBytes {
			return diag.New(diag.Usage, "stdin is larger than %d bytes", bundle.MaxBytes)
		}
		out, err := formatRego("stdin", src, c.Bool("rego-v1"))
		if err != nil {
			return diag.Wrap(diag.Failure, err, "stdin")
		}
		if c.Bool("check") || c.Bool("diff") {
			return c.compareFormatted("stdin", src, out)
		}
		if _, err := c.UI.Out.Write(out); err != nil {
			return fmt.Errorf("write stdout: %w", err)
		}
		return nil
	}
	root := c.Arg(0)
	if root == "" {
		root = "."
	}
	names, err := regoFiles(c.Abs(root))
	if err != nil {
		return fileError(err, "policy", root, "waybill policy fmt PATH")
	}
	if len(names) == 0 {
		return diag.New(diag.Usage, "policy fmt: there is no .rego file in %s", root)
	}
	res := policyFmtJSON{Schema: schemaBase + "policy-fmt/v1", Files: len(names), Changed: []string{}, Failed: []string{}}
	quiet := c.Bool("check") || c.Bool("diff")
	for _, n := range names {
		show := n
		if rel, err := filepath.Rel(c.Abs("."), n); err == nil {
			show = filepath.ToSlash(rel)
		}
		src, out, perm, err := readFormatted(n, show, c.Bool("rego-v1"))
		if err != nil {
			c.UI.Warn("%s: %v", show, err)
			res.Failed = append(res.Failed, show)
			continue
		}
		if bytes.Equal(src, out) {
			continue
		}
		res.Changed = append(res.Changed, show)
		switch {
		case c.UI.JSON:
		case c.Bool("diff"):
			c.UI.Data("%s", lineDiff(show, src, out))
		default:
			c.UI.Data("%s", show)
		}
		if quiet || c.dry(show, out) {
			continue
		}
		if err := fsx.WriteFileAtomic(fsx.OS{}, n, out, perm); err != nil {
			return diag.Wrap(diag.Failure, err, "write %s", show)
		}
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(res); err != nil {
			return err
		}
	}
	switch {
	case len(res.Failed) > 0:
		return diag.New(diag.Failure, "policy fmt: %s could not be formatted: %s", ui.Plural(len(res.Failed), "file"), strings.Join(res.Failed, ", "))
	case quiet && len(res.Changed) > 0:
		return diag.New(diag.Failure, "policy fmt: %s of %d not formatted", ui.Plural(len(res.Changed), "file"), res.Files).Hint("waybill policy fmt %s", root)
	}
	return nil
}

func (c *Call) compareFormatted(name string, src, out []byte) error {
	if bytes.Equal(src, out) {
		return nil
	}
	if c.Bool("diff") {
		c.UI.Data("%s", lineDiff(name, src, out))
	} else {
		c.UI.Data("%s", name)
	}
	return diag.New(diag.Failure, "policy fmt: %s is not formatted", name)
}

func readFormatted(path, name string, convert bool) (src, out []byte, perm fs.FileMode, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, 0, errors.New("not a regular file")
	}
	if src, err = readSmall(path, bundle.MaxBytes); err != nil {
		return nil, nil, 0, err
	}
	out, err = formatRego(name, src, convert)
	return src, out, info.Mode().Perm(), err
}

// regoFiles lists the Rego files of a folder, hidden folders left out, or the one file.
func regoFiles(root string) ([]string, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{root}, nil
	}
	var out []string
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(p, ".rego") {
			out = append(out, p)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// lineDiff writes what changes as a unified diff without the lines far from a change.
func lineDiff(name string, a, b []byte) string {
	x, y := splitLines(a), splitLines(b)
	// Longest common subsequence; policies are small, and larger files are shown as one change.
	if len(x)*len(y) > 4<<20 {
		return fmt.Sprintf("--- %s\n+++ %s (formatted)\n@@ %d lines become %d @@", name, name, len(x), len(y))
	}
	lcs := make([][]int, len(x)+1)
	for i := range lcs {
		lcs[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				lcs[i][j] = lcs[i+1][j+1] + 1
			} else {
				lcs[i][j] = max(lcs[i+1][j], lcs[i][j+1])
			}
		}
	}
	type row struct {
		op   byte
		text string
		i, j int
	}
	var rows []row
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			rows = append(rows, row{' ', x[i], i, j})
			i, j = i+1, j+1
		case j >= len(y) || i < len(x) && lcs[i+1][j] >= lcs[i][j+1]:
			rows = append(rows, row{'-', x[i], i, j})
			i++
		default:
			rows = append(rows, row{'+', y[j], i, j})
			j++
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s (formatted)", name, name)
	const around = 3
	for at := 0; at < len(rows); {
		if rows[at].op == ' ' {
			at++
			continue
		}
		from, to, same := max(0, at-around), at, 0
		for to < len(rows) && same <= 2*around {
			if rows[to].op == ' ' {
				same++
			} else {
				same = 0
			}
			to++
		}
		to -= max(0, same-around)
		olds, news := 0, 0
		for _, r := range rows[from:to] {
			if r.op != '+' {
				olds++
			}
			if r.op != '-' {
				news++
			}
		}
		fmt.Fprintf(&out, "\n@@ -%d,%d +%d,%d @@", rows[from].i+1, olds, rows[from].j+1, news)
		for _, r := range rows[from:to] {
			fmt.Fprintf(&out, "\n%c%s", r.op, strings.TrimRight(r.text, "\r\n"))
		}
		at = to
	}
	return out.String()
}

func splitLines(b []byte) []string {
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}
