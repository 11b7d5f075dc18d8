package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/environments"
)

func envCommand() Command {
	return Command{
		Name: "env", Group: Govern, Summary: "write, sign and check what each environment demands",
		Long: `environments.yaml belongs to the platform team: for each environment the pinned policy, the thresholds, allowed
licenses, approvals, device classes and the channel. gate reads only the signed form.`,
		Examples: []string{"waybill env init dev prod", "waybill env sign environments.yaml --key root.key", "waybill env show prod"},
		See:      []string{"gate", "policy", "trust"},
		Sub: []Command{
			{
				Name: "init", Summary: "write an environments.yaml to start from", Args: "[NAME...]", Max: -1,
				Long: `One environment for each NAME (default: prod), each following the one before, with the builtin policy's digest and the
demands that suit the profile. Every other key stands there too, as a comment.`,
				Examples: []string{"waybill env init", "waybill env init staging prod --namespace ml --profile strict"},
				Flags: []ucli.Flag{
					&ucli.StringFlag{Name: "out", Value: environmentsYAML, Usage: "`FILE` to write"},
					&ucli.StringFlag{Name: "profile", Value: environments.DefaultProfile, Usage: "start for this `PROFILE` of the builtin policy: " + strings.Join(envProfiles(), ", ")},
					&ucli.StringFlag{Name: "namespace", Value: "ml", Usage: "`PATH` that the models' names stand under"},
					&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing file"},
					dryRunFlag(),
				},
				Run: runEnvInit,
			},
			{
				Name: "show", Summary: "show what environments demand", Args: "[NAME]", Max: 1,
				Long:     "Reads the signed file after verifying it, or with --file an unsigned environments.yaml.",
				Examples: []string{"waybill env show", "waybill env show prod --output json", "waybill env show --file environments.yaml"},
				Flags: []ucli.Flag{
					&ucli.StringFlag{Name: "file", Usage: "read this YAML `FILE` instead of the signed one"},
					&ucli.StringFlag{Name: "environments", Value: environmentsSigned, Usage: "signed environments `FILE`", EnvVars: []string{"WAYBILL_ENVIRONMENTS"}},
					trustFlag(), trustDigestFlag(),
				},
				Exits: []diag.Code{diag.Verification, diag.NotFound},
				Run:   runEnvShow,
			},
			{
				Name: "sign", Summary: "sign environments.yaml with a root key", Args: "[FILE]", Max: 1,
				Long: `Checks the file, and writes the signed form. Where the trust document wants several root signatures, sign again with
each key: signatures over the same document are collected in the file, one per line. With --add it must hold the same
document already: the second root signs what the first one signed, and nothing else.

Refused: a version that is signed already with other content or that the trust document has left behind, rules that the
pinned policy does not have or that are mandatory, a profile that it does not have. Warned of: demands that nobody can meet,
bounds on the wrong side, a trust document about to expire, a policy that is not at hand.`,
				Examples: []string{"waybill env sign environments.yaml --key root.key", "waybill env sign environments.yaml --key root2.key --add"},
				Flags: []ucli.Flag{
					&ucli.StringFlag{Name: "key", Usage: "root private key `FILE`", Required: true},
					&ucli.StringFlag{Name: "out", Value: environmentsSigned, Usage: "`FILE` to write"},
					&ucli.BoolFlag{Name: "add", Usage: "add a signature to the same document, never begin another"},
					trustAtHandFlag(), trustDigestFlag(),
					dryRunFlag(),
				},
				Exits: []diag.Code{diag.NotFound},
				Run:   runEnvSign,
			},
			{
				Name: "verify", Summary: "verify the signed environments against the trust document", Args: "[FILE]", Max: 1,
				Long:     "Prints the digest of the document, and says who signed it.",
				Examples: []string{"waybill env verify", "waybill env verify environments.signed --trust trust.signed"},
				Flags:    []ucli.Flag{trustFlag(), trustDigestFlag()},
				Exits:    []diag.Code{diag.Verification, diag.NotFound},
				Run:      runEnvVerify,
			},
			envDiffCommand(),
		},
	}
}

func runEnvSign(ctx context.Context, c *Call) error {
	file := c.Arg(0)
	if file == "" {
		file = environmentsYAML
	}
	d, err := c.readEnvironmentsYAML(file)
	if err != nil {
		return err
	}
	out := c.Abs(c.String("out"))
	old, err := readSmall(out, 2*environments.MaxBytes*environments.MaxSignatures)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diag.Wrap(diag.Failure, err, "read %s", out)
	}
	var before *environments.Document
	if len(old) > 0 {
		if before, err = environments.Unverified(old); err != nil {
			return diag.Wrap(diag.Usage, err, "%s is there and holds no signed environments", c.String("out")).Hint("choose another file with --out")
		}
	}
	if c.Bool("add") {
		if err := sameDocument(d, before, c.String("out")); err != nil {
			return err
		}
	}
	if err := c.checkEnvironments(ctx, d, before); err != nil {
		return err
	}
	key, err := c.openKey(ctx, c.String("key"), trust.RoleRoot)
	if err != nil {
		return err
	}
	signed, err := environments.Sign(ctx, d, key, old)
	if err != nil {
		return err
	}
	if err := c.writeNew(out, signed, 0o644, true); err != nil {
		return err
	}
	digest, err := d.Digest()
	if err != nil {
		return err
	}
	n := bytes.Count(signed, []byte("\n"))
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "env-sign/v1", "file": out, "version": d.Version, "digest": digest, "signatures": n, "environments": d.Names()})
	}
	c.UI.Say("environments version %d (%s), %s in %s", d.Version, strings.Join(d.Names(), ", "), ui.Plural(n, "signature"), filepath.Base(out))
	c.UI.Data("%s", digest)
	return nil
}

// sameDocument refuses a second signature over something else than the first.
func sameDocument(d, before *environments.Document, out string) error {
	if before == nil {
		return diag.New(diag.NotFound, "env sign --add: there is no %s to add to", out).Hint("leave --add away for the first signature")
	}
	x, err := d.Digest()
	if err != nil {
		return err
	}
	y, err := before.Digest()
	if err != nil {
		return err
	}
	if x != y {
		return diag.New(diag.Verification, "env sign --add: %s holds version %d (%s), this file is version %d (%s)", out, before.Version, y.Short(), d.Version, x.Short()).
			Hint("waybill env diff %s FILE", out)
	}
	return nil
}

func runEnvVerify(_ context.Context, c *Call) error {
	doc, err := c.loadTrust()
	if err != nil {
		return err
	}
	file := c.Arg(0)
	if file == "" {
		file = environmentsSigned
	}
	raw, err := readSmall(c.Abs(file), 2*environments.MaxBytes*environments.MaxSignatures)
	if err != nil {
		return fileError(err, "signed environments", file, "waybill env sign "+environmentsYAML+" --key root.key")
	}
	s, err := environments.Verify(raw, doc, c.Env.Now())
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "env-verify/v1", "version": s.Document.Version, "digest": s.Digest, "bundle": s.Bundle, "signedBy": s.Keys, "environments": s.Document.Names()})
	}
	c.UI.Say("environments version %d (%s), signed by %s, trust document version %d", s.Document.Version, strings.Join(s.Document.Names(), ", "), strings.Join(s.Keys, ", "), doc.Version)
	c.UI.Data("%s", s.Digest)
	return nil
}

func runEnvShow(_ context.Context, c *Call) error {
	var d *environments.Document
	state := "not signed"
	if f := c.String("file"); f != "" {
		var err error
		if d, err = c.readEnvironmentsYAML(f); err != nil {
			return err
		}
	} else {
		doc, err := c.loadTrust()
		if err != nil {
			return err
		}
		path := c.Abs(c.String("environments"))
		raw, err := readSmall(path, 2*environments.MaxBytes*environments.MaxSignatures)
		if err != nil {
			return fileError(err, "signed environments", path, "waybill env show --file "+environmentsYAML)
		}
		s, err := environments.Verify(raw, doc, c.Env.Now())
		if err != nil {
			return err
		}
		d, state = s.Document, "signed by "+strings.Join(s.Keys, ", ")
	}
	names := d.Names()
	if n := c.Arg(0); n != "" {
		if _, err := d.Facts(n); err != nil {
			return diag.Wrap(diag.NotFound, err, "env show").Hint("waybill env show")
		}
		names = []string{n}
	}
	if c.UI.JSON {
		envs := map[string]environments.Environment{}
		for _, n := range names {
			envs[n] = d.Environments[n]
		}
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "env-show/v1", "version": d.Version, "signed": c.String("file") == "", "environments": envs})
	}
	c.UI.Data("environments version %d, %s", d.Version, state)
	for _, n := range names {
		showEnvironment(c.UI, n, d.Environments[n])
	}
	return nil
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}
