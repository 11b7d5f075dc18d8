package cli

import (
	"context"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/source"
)

func policyPackCommand() Command {
	return Command{
		Name: "pack", Summary: "put a policy into the local store as an artifact, or write it as one file", Args: "[PATH]", Max: 1,
		Long: `Compiles the policy first: what does not compile is not packed. Without --out the policy goes into the local store, as
name:version of its policy.json or as --tag, ready to be signed and pushed. With --out it becomes one file, a tar.

Two digests name it. The policy digest is that of the tar: environments pin it, verdicts name it, and the same files give it
on every machine. The manifest digest is that of the artifact: references and signatures are about it. Each follows from the
other. Tests (_test.rego), fixtures and texts are no part of either.

With --device the rules of package waybill.device become the one file that waybill-edge evaluates before it takes a model
(docs/device-policy.md); what could allow because a reading failed is refused, with file and line.`,
		Examples: []string{"waybill policy pack ./policy", "waybill policy pack ./policy --tag governance:2.3", "waybill policy pack ./policy --out policy.tar",
			"waybill policy pack ./policy --device --out device-policy.wasm"},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "tag", Usage: "`NAME:VERSION` in the local store (default: those of policy.json)"},
			&ucli.StringFlag{Name: "out", Usage: "write this `FILE`, not into the store"},
			&ucli.BoolFlag{Name: "force", Usage: "with --out: overwrite an existing file"},
			&ucli.BoolFlag{Name: "device", Usage: "compile the device-local part (package waybill.device) to the WebAssembly module that devices evaluate"},
			dryRunFlag(),
		},
		See:   []string{"policy push", "sign", "policy verify", "policy eval"},
		Exits: []diag.Code{diag.NotFound}, Run: runPolicyPack,
	}
}

type policyPackJSON struct {
	Schema   string          `json:"schema"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Digest   artifact.Digest `json:"digest"`   // of the policy: what environments pin
	Manifest artifact.Digest `json:"manifest"` // of the artifact: what references and signatures name
	Bytes    int             `json:"bytes"`    // of the tar
	Rules    int             `json:"rules"`
	File     string          `json:"file,omitempty"`
	Ref      string          `json:"ref,omitempty"`
	Tag      string          `json:"tag,omitempty"`
	DryRun   bool            `json:"dryRun"`
}

func runPolicyPack(ctx context.Context, c *Call) error {
	if c.Bool("device") {
		return packDevice(ctx, c)
	}
	p, _, err := c.compilePolicy(ctx, c.Arg(0))
	if err != nil {
		return err
	}
	b := p.Bundle()
	x, err := b.Image()
	if err != nil {
		return err
	}
	res := policyPackJSON{Schema: schemaBase + "policy-pack/v1", Name: b.Meta().Name, Version: b.Meta().Version, Digest: b.Digest(),
		Manifest: x.Descriptor.Digest, Bytes: len(b.Tar()), Rules: len(p.Rules()), DryRun: c.Bool("dry-run")}
	if c.String("out") != "" {
		if c.String("tag") != "" {
			return diag.New(diag.Usage, "policy pack: --out and --tag exclude each other")
		}
		res.File = c.Abs(c.String("out"))
		if err := c.writeNew(res.File, b.Tar(), 0o644, c.Bool("force")); err != nil {
			return err
		}
		if c.UI.JSON {
			return c.UI.PrintJSON(res)
		}
		c.UI.Say("policy %s, %s in %s", policyName(b), ui.Plural(len(p.Rules()), "rule"), filepath.Base(res.File))
		c.UI.Data("%s", b.Digest())
		return nil
	}
	if c.Bool("force") {
		return diag.New(diag.Usage, "policy pack: --force needs --out")
	}
	ref, err := c.policyTag(b)
	if err != nil {
		return err
	}
	if !res.DryRun {
		place, err := c.openPlace(ctx, ref, true)
		if err != nil {
			return err
		}
		defer place.Close()
		if _, err := source.Write(ctx, place, b, ref.Tag); err != nil {
			return err
		}
	}
	res.Ref, res.Tag = ref.WithDigest(res.Manifest).String(), ref.String()
	if c.UI.JSON {
		return c.UI.PrintJSON(res)
	}
	c.sayPolicy(b, res.Manifest, res.Rules)
	if res.DryRun {
		c.UI.Say("dry run: %s was not written", ref)
	} else {
		c.UI.Field("stored as", "%s", ref)
	}
	c.UI.Data("%s", res.Ref)
	return nil
}

// sayPolicy shows both digests of a policy.
func (c *Call) sayPolicy(b *bundle.Bundle, manifest artifact.Digest, rules int) {
	m := b.Meta()
	c.UI.Field("policy", "%s %s, %s", nameOrNone(m.Name), m.Version, ui.Plural(rules, "rule"))
	c.UI.Field("digest", "%s   (of the policy: what environments pin)", b.Digest())
	c.UI.Field("manifest", "%s   (of the artifact: what is signed)", manifest)
}

func nameOrNone(s string) string {
	if s == "" {
		return "without a name"
	}
	return s
}

// policyTag is the reference in the local store that a policy gets.
func (c *Call) policyTag(b *bundle.Bundle) (registry.Ref, error) {
	m := b.Meta()
	s := c.String("tag")
	if s == "" {
		if m.Name == "" || m.Version == "" {
			return registry.Ref{}, diag.New(diag.Usage, "the policy has no name and version of its own").
				Line(`a policy.json beside the rules names it: {"name": "governance", "version": "1.0"}`).
				Hint("waybill policy pack %s --tag governance:1.0", c.Arg(0))
		}
		s = m.Name + ":" + m.Version
	}
	r, err := registry.ParseRef(s)
	if err != nil {
		return r, err
	}
	if r.Kind != registry.KindLocal || r.Digest != "" || r.Tag == "" {
		return r, diag.New(diag.Usage, "--tag %s: NAME:VERSION in the local store is expected", s).Hint("waybill policy pack %s --tag governance:1.0", c.Arg(0))
	}
	return r, nil
}
