package cli

import (
	"context"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
)

func policyDigestCommand() Command {
	return Command{
		Name: "digest", Summary: "print the digest that environments pin", Args: "[PATH]", Max: 1,
		Long:     "The same files give the same digest on every machine. Tests and fixtures are no part of it.",
		Examples: []string{"waybill policy digest", "waybill policy digest ./policy"},
		Exits:    []diag.Code{diag.NotFound}, Run: runPolicyDigest,
	}
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
