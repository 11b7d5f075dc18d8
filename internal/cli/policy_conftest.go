package cli

import (
	"context"
	"os"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyConftestCommand() Command {
	return Command{
		Name: "conftest", Summary: "write a policy as a folder that conftest runs", Args: "[PATH]", Max: 1,
		Long: `Writes the policy's files and, for the rules below waybill.rules, an adapter in package main with deny and warn, so that
conftest says about a facts document what these rules say. It is a preview for pull requests: conftest neither verifies
facts nor knows their schema or exceptions. Rules in conftest's own shape run as they are.`,
		Examples: []string{"waybill policy conftest --out rules && conftest test facts.json -p rules -d rules"},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "out", Value: "conftest", Usage: "`FOLDER` to write; it must not exist"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.NotFound}, Run: runPolicyConftest,
	}
}

func runPolicyConftest(ctx context.Context, c *Call) error {
	p, _, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	adapter, err := p.Conftest()
	if err != nil {
		return err
	}
	out := c.Abs(c.String("out"))
	if _, err := os.Lstat(out); err == nil {
		return diag.New(diag.Usage, "%s exists", c.String("out")).Hint("choose another folder with --out")
	}
	b := p.Bundle()
	files := map[string][]byte{}
	for _, n := range b.Names() {
		files[n], _ = b.File(n)
	}
	if adapter != "" {
		if _, taken := files[rego.ConftestFile]; taken {
			return diag.New(diag.Failure, "the policy has a file %s of its own", rego.ConftestFile)
		}
		files[rego.ConftestFile] = []byte(adapter)
	}
	if c.dry(c.String("out"), b.Tar()) {
		return nil
	}
	// Whole or not at all: written beside it, then renamed.
	tmp := out + ".part"
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", c.String("out"))
	}
	defer os.RemoveAll(tmp)
	for n, text := range files {
		path := filepath.Join(tmp, filepath.FromSlash(n))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return diag.Wrap(diag.Failure, err, "write %s", n)
		}
		if err := fsx.WriteFileAtomic(fsx.OS{}, path, text, 0o644); err != nil {
			return diag.Wrap(diag.Failure, err, "write %s", n)
		}
	}
	if err := os.Rename(tmp, out); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", c.String("out"))
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "policy-conftest/v1", "folder": out, "files": len(files), "digest": b.Digest()})
	}
	c.UI.Say("policy %s for conftest, %s", policyName(b), ui.Plural(len(files), "file"))
	c.UI.Data("%s", c.String("out"))
	return nil
}
