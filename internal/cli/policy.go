package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyCommand() Command {
	return Command{
		Name: "policy", Group: Govern, Summary: "look at, test and pack the rules of the gate",
		Long: `A policy is a folder of Rego and data.json. Its digest is what environments pin, what devices accept and what every
verdict names. Without PATH the verbs mean the builtin policy.`,
		Examples: []string{"waybill policy list", "waybill policy show MET-001", "waybill policy digest"},
		See:      []string{"gate", "env"},
		Sub:      []Command{policyListCommand(), policyShowCommand(), policyTestCommand(), policyDigestCommand(), policyPackCommand()},
	}
}

func policyListCommand() Command {
	return Command{
		Name: "list", Summary: "list the rules of a policy", Args: "[PATH]", Max: 1,
		Long:     "Every rule with its severity, whether it denies or warns, and its title.",
		Examples: []string{"waybill policy list", "waybill policy list ./policy --output json"},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyList,
	}
}

func policyShowCommand() Command {
	return Command{
		Name: "show", Summary: "explain one rule: what it demands, and how to meet it", Args: "RULE [PATH]", Min: 1, Max: 2,
		Long:     "Title, description, remediation and the standards behind a rule; with --source its Rego too.",
		Examples: []string{"waybill policy show MET-001", "waybill policy show MET-001 --source"},
		Flags:    []ucli.Flag{&ucli.BoolFlag{Name: "source", Usage: "print the rule's Rego"}},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyShow,
	}
}

func policyTestCommand() Command {
	return Command{
		Name: "test", Summary: "run a policy's tests", Args: "[PATH]", Max: 1,
		Long: `For the builtin policy, every rule's fixtures: documents that it must deny, and documents that it must pass. For a
folder, the test_ rules of its *_test.rego files, as OPA runs them, with the capabilities of the gate.`,
		Examples: []string{"waybill policy test", "waybill policy test ./policy"},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyTest,
	}
}

func policyDigestCommand() Command {
	return Command{
		Name: "digest", Summary: "print the digest that environments pin", Args: "[PATH]", Max: 1,
		Long:     "The same files give the same digest on every machine. Tests and fixtures are no part of it.",
		Examples: []string{"waybill policy digest", "waybill policy digest ./policy"},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyDigest,
	}
}

func policyPackCommand() Command {
	return Command{
		Name: "pack", Summary: "write a policy as one file with a deterministic digest", Args: "[PATH]", Max: 1,
		Long:     "Compiles the policy first: what does not compile is not packed. The file's sha256 is the policy's digest.",
		Examples: []string{"waybill policy pack --out policy.tar", "waybill policy pack ./policy --out policy.tar"},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "out", Value: "policy.tar", Usage: "`FILE` to write"},
			&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing file"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.NotFound}, Run: runPolicyPack,
	}
}

// compilePolicy opens and compiles a policy for a look at it.
func (c *Call) compilePolicy(ctx context.Context, path string) (*rego.Policy, fs.FS, error) {
	b, fsys, err := c.openPolicy(path)
	if err != nil {
		return nil, nil, err
	}
	p, err := rego.Compile(ctx, b)
	if err != nil {
		return nil, nil, diag.Wrap(diag.Failure, err, "%s", policySource(path))
	}
	return p, fsys, nil
}

type policyListJSON struct {
	Schema  string          `json:"schema"`
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Digest  artifact.Digest `json:"digest"`
	Rules   []rego.RuleInfo `json:"rules"`
}

func runPolicyList(ctx context.Context, c *Call) error {
	p, _, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	b := p.Bundle()
	if c.UI.JSON {
		return c.UI.PrintJSON(policyListJSON{schemaBase + "policy-list/v1", b.Meta().Name, b.Meta().Version, b.Digest(), p.Rules()})
	}
	rows := [][]string{{"rule", "severity", "level", "title"}}
	for _, r := range p.Rules() {
		level := r.Level
		if r.Mandatory {
			level = "always"
		}
		rows = append(rows, []string{r.ID, r.Severity, level, r.Title})
	}
	ui.Table(c.UI.Out, true, rows)
	c.UI.Say("%s of policy %s", ui.Plural(len(p.Rules()), "rule"), policyName(b))
	return nil
}

type policyShowJSON struct {
	Schema string `json:"schema"`
	rego.RuleInfo
	Source string `json:"source"`
}

func runPolicyShow(ctx context.Context, c *Call) error {
	p, _, err := c.compilePolicy(ctx, c.Arg(1))
	if err != nil {
		return err
	}
	var ids []string
	for _, r := range p.Rules() {
		ids = append(ids, r.ID)
		if !strings.EqualFold(r.ID, c.Args[0]) {
			continue
		}
		src := ruleSource(p.Bundle(), r)
		if c.UI.JSON {
			return c.UI.PrintJSON(policyShowJSON{schemaBase + "policy-show/v1", r, src})
		}
		c.UI.Data("%s  %s", r.ID, r.Title)
		level := "a failure denies, unless the environment lowers it or an exception covers it"
		switch {
		case r.Mandatory:
			level = "a failure always denies"
		case r.Level == "warn":
			level = "a failure warns"
		}
		c.UI.Data("  %-10s %s; %s", "severity", r.Severity, level)
		for i, l := range wrap(r.Description, 84) {
			c.UI.Data("  %-10s %s", map[bool]string{true: "demands"}[i == 0], l)
		}
		for i, l := range wrap(r.Remediation, 84) {
			c.UI.Data("  %-10s %s", map[bool]string{true: "fix"}[i == 0], l)
		}
		for i, l := range r.Standards {
			c.UI.Data("  %-10s %s", map[bool]string{true: "standards"}[i == 0], l)
		}
		if c.Bool("source") {
			if src == "" {
				c.UI.Say("the engine itself applies this rule; there is no Rego")
			}
			c.UI.Data("\n%s", strings.TrimRight(src, "\n"))
		}
		return nil
	}
	e := diag.New(diag.NotFound, "policy %s has no rule %q", policyName(p.Bundle()), c.Args[0])
	if near := diag.Nearest(strings.ToUpper(c.Args[0]), ids); near != "" {
		return e.Hint("waybill policy show %s", near)
	}
	return e.Hint("waybill policy list")
}

// ruleSource is the file that defines a rule's package; "" for the engine's own rule.
func ruleSource(b *bundle.Bundle, r rego.RuleInfo) string {
	for _, n := range b.Names() {
		src, _ := b.File(n)
		if r.Package != "" && strings.Contains(string(src), "\npackage "+strings.TrimPrefix(r.Package, "data.")+"\n") {
			return string(src)
		}
	}
	return ""
}

// wrap breaks text at spaces.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, w := range strings.Fields(s) {
		if line != "" && len(line)+1+len(w) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(lines, line)
}

type policyTestJSON struct {
	Schema string           `json:"schema"`
	Passed int              `json:"passed"`
	Failed int              `json:"failed"`
	Cases  []policyTestCase `json:"cases"`
}

type policyTestCase struct {
	Name   string `json:"name"`
	Status string `json:"status"` // passed, failed
	Detail string `json:"detail"`
}

func runPolicyTest(ctx context.Context, c *Call) error {
	p, fsys, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	out := policyTestJSON{Schema: schemaBase + "policy-test/v1", Cases: []policyTestCase{}}
	add := func(name, detail string) {
		t := policyTestCase{Name: name, Status: "passed", Detail: detail}
		if detail != "" {
			t.Status = "failed"
			out.Failed++
		} else {
			out.Passed++
		}
		out.Cases = append(out.Cases, t)
	}
	if c.Arg(0) == "" {
		cases, err := library.Cases(p.Bundle().Digest())
		if err != nil {
			return err
		}
		for _, x := range cases {
			kind := "must deny"
			if x.Want == decision.Pass {
				kind = "must pass"
			}
			detail := ""
			if err := x.Check(p.Evaluate(ctx, x.Doc)); err != nil {
				detail = err.Error()
			}
			add(fmt.Sprintf("%s %s: %s", x.Rule, kind, x.Name), detail)
		}
	} else {
		if fsys == nil {
			return diag.New(diag.Usage, "policy test: %s is a packed policy; tests stand beside its source", c.Arg(0))
		}
		rs, err := rego.RunTests(ctx, fsys, rego.DefaultTimeout)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "policy test %s", c.Arg(0))
		}
		for _, r := range rs {
			detail := r.Reason
			if detail != "" {
				detail = fmt.Sprintf("%s:%d: %s", r.File, r.Line, r.Reason)
			}
			add(r.Name, detail)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(out.Cases) == 0 {
		return diag.New(diag.Failure, "policy test: %s has no tests", c.Arg(0)).Hint("write test_ rules in a file ending in _test.rego")
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		for _, t := range out.Cases {
			if t.Status == "failed" {
				c.UI.Data("%s  %s", c.UI.Out.Red("failed"), t.Name)
				c.UI.Data("        %s", t.Detail)
			}
		}
		c.UI.Data("%d passed, %d failed", out.Passed, out.Failed)
	}
	if out.Failed > 0 {
		return diag.New(diag.Failure, "policy test: %d of %d failed", out.Failed, len(out.Cases))
	}
	return nil
}

func runPolicyDigest(_ context.Context, c *Call) error {
	b, _, err := c.openPolicy(c.Arg(0))
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "policy-digest/v1", "name": b.Meta().Name, "version": b.Meta().Version, "digest": b.Digest()})
	}
	c.UI.Why("policy %s, %s", policyName(b), ui.Plural(len(b.Names()), "file"))
	c.UI.Data("%s", b.Digest())
	return nil
}

func runPolicyPack(ctx context.Context, c *Call) error {
	p, _, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	out := c.Abs(c.String("out"))
	if err := c.writeNew(out, p.Bundle().Tar(), 0o644, c.Bool("force")); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "policy-pack/v1", "file": out, "bytes": len(p.Bundle().Tar()), "digest": p.Bundle().Digest()})
	}
	c.UI.Say("policy %s, %s in %s", policyName(p.Bundle()), ui.Plural(len(p.Rules()), "rule"), filepath.Base(out))
	c.UI.Data("%s", p.Bundle().Digest())
	return nil
}

// writeNew writes a file whole or not at all. An existing one is replaced only when force says so.
func (c *Call) writeNew(path string, b []byte, perm os.FileMode, force bool) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return diag.New(diag.Usage, "%s exists", path).Hint("--force replaces it")
	}
	if c.dry(path, b) {
		return nil
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, path, b, perm); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", path)
	}
	return nil
}
