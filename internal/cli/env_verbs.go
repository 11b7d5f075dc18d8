package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"text/template"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/library"
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
				Long:     "One environment for each NAME (default: prod), each following the one before, with the builtin policy's digest.",
				Examples: []string{"waybill env init", "waybill env init staging prod --namespace ml"},
				Flags: []ucli.Flag{
					&ucli.StringFlag{Name: "out", Value: environmentsYAML, Usage: "`FILE` to write"},
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
each key: signatures over the same document are collected in the file, one per line.`,
				Examples: []string{"waybill env sign environments.yaml --key root.key"},
				Flags: []ucli.Flag{
					&ucli.StringFlag{Name: "key", Usage: "root private key `FILE`", Required: true},
					&ucli.StringFlag{Name: "out", Value: environmentsSigned, Usage: "`FILE` to write"},
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
		},
	}
}

var envTemplate = template.Must(template.New("env").Parse(`# What each environment demands of a model. Sign it after every change:
#   waybill env sign {{.File}} --key root.key
version: 1
environments:
{{- range .Envs}}
  {{.Name}}:
    namespace: {{$.Namespace}}            # verdicts are about waybill:{{$.Namespace}}/<model>
    channel: {{.Name}}
    policy:
      source: builtin        # or a folder or tar beside this file
      digest: {{$.Policy}}
    {{- if .After}}
    after: {{.After}}           # its gate must have let the digest pass
    {{- end}}
    notAfterDays: 90         # a verdict is good for so long
    deviceClasses:
      - {name: edge-s, memory: 256MiB}
    metrics:                 # min: higher is better; max: lower is better
      - {name: roc_auc, min: 0.9, maxRegression: 0.005, minN: 100}
    licenses:
      models: [Apache-2.0, MIT, BSD-3-Clause]
      datasets: [CC-BY-4.0, CC0-1.0]
    evidence: [evaluation, dataset]
    approvals: {minimum: 0, roles: []}
    exceptions: {roles: [], rules: []}
{{- end}}
`))

func runEnvInit(_ context.Context, c *Call) error {
	names := c.Args
	if len(names) == 0 {
		names = []string{"prod"}
	}
	b, err := library.Default()
	if err != nil {
		return err
	}
	type env struct{ Name, After string }
	data := struct {
		File, Namespace, Policy string
		Envs                    []env
	}{File: c.String("out"), Namespace: c.String("namespace"), Policy: string(b.Digest())}
	for i, n := range names {
		e := env{Name: n}
		if i > 0 {
			e.After = names[i-1]
		}
		data.Envs = append(data.Envs, e)
	}
	var buf bytes.Buffer
	if err := envTemplate.Execute(&buf, data); err != nil {
		return fmt.Errorf("env init: %w", err)
	}
	out := c.Abs(c.String("out"))
	// What it writes must be what it reads: bad names end here, and no file is left.
	if _, err := environments.ParseYAML(c.String("out"), buf.Bytes()); err != nil {
		return diag.Wrap(diag.Usage, err, "env init")
	}
	if err := c.writeNew(out, buf.Bytes(), 0o644, c.Bool("force")); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(map[string]any{"schema": schemaBase + "env-init/v1", "file": out, "environments": names, "policyDigest": b.Digest()})
	}
	c.UI.Say("next: edit it, then waybill env sign %s --key root.key", c.String("out"))
	c.UI.Data("%s", out)
	return nil
}

// readEnvironmentsYAML parses a file of the user.
func (c *Call) readEnvironmentsYAML(path string) (*environments.Document, error) {
	raw, err := readSmall(c.Abs(path), environments.MaxBytes)
	if err != nil {
		return nil, fileError(err, "environments file", path, "waybill env init")
	}
	return environments.ParseYAML(path, raw)
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

func showEnvironment(u *ui.UI, name string, e environments.Environment) {
	row := func(label, format string, args ...any) { u.Data("  %-12s %s", label, fmt.Sprintf(format, args...)) }
	u.Data("\n%s", u.Out.Bold(name))
	row("models", "waybill:%s/<model>", e.Namespace)
	row("channel", "%s", e.Channel)
	row("policy", "%s (%s)", e.Policy.Digest, e.Policy.Source)
	if e.After != "" {
		row("after", "%s", e.After)
	}
	for _, m := range e.Metrics {
		bound := "at least"
		v := m.Min
		if v == nil {
			bound, v = "at most", m.Max
		}
		row("metric", "%s on %s %s %g, at most %g worse than the champion", m.Name, m.Slice, bound, *v, m.MaxRegression)
	}
	for _, c := range e.DeviceClasses {
		row("class", "%s, %s of linear memory", c.Name, ui.Bytes(int64(c.Memory)))
	}
	row("licenses", "models %s; data %s", orNone(e.Licenses.Models), orNone(e.Licenses.Datasets))
	row("approvals", "%d, roles %s", e.Approvals.Minimum, orNone(e.Approvals.Roles))
	row("evidence", "%s", orNone(e.Evidence))
	row("verdicts", "good for %d days", e.NotAfterDays)
	if len(e.Enforce) > 0 {
		row("lowered", "%v", e.Enforce)
	}
	if len(e.Targets) > 0 {
		row("targets", "%s", ui.Plural(len(e.Targets), "target"))
	}
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}
