package cli

import (
	"context"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
)

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
