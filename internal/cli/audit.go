package cli

import (
	"bytes"
	"context"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/audit"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/rego"
)

func auditCommand() Command {
	return Command{
		Name: "audit", Group: Govern, Summary: "answer for an artifact: who, from what, under which policy, where",
		Long: `Every answer is proven (a signature by a key that may say so), claimed (said by somebody, proven by nothing), missing or
contradicted, with the digest of the bundle behind it.`,
		Examples: []string{"waybill audit show reg.example/ml/churn@sha256:7c1f..."},
		See:      []string{"gate", "verify", "trust"},
		Sub: []Command{{
			Name: "show", Summary: "report on one digest", Args: "REF|DIGEST", Min: 1, Max: 1,
			Long: `Reads the artifact, its evidence, the channels beside it and the devices' signed reports; verifies all of it against the
trust document; evaluates the recorded decisions again. A bare DIGEST is looked up in the local store, or with --in in that
repository. A contradiction in the evidence makes the exit code 3.`,
			Examples: []string{
				"waybill audit show reg.example/ml/churn@sha256:7c1f...",
				"waybill audit show sha256:7c1f... --in reg.example/ml/churn --html report.html",
				"waybill audit show churn:1.0 --output json",
			},
			Flags: append(trustFlags(),
				&ucli.StringFlag{Name: "in", Usage: "look for a bare DIGEST in this `REPOSITORY`"},
				&ucli.StringFlag{Name: "html", Usage: "also write the report as one page to `FILE`"},
				&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing --html file"},
				dryRunFlag(),
				&ucli.StringSliceFlag{Name: "policy", Usage: "folder or tar of a `POLICY` to replay decisions with, besides builtin and stored ones; may be repeated"},
			),
			Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
			Run:   runAuditShow,
		}},
	}
}

func runAuditShow(ctx context.Context, c *Call) error {
	doc, err := c.loadTrust()
	if err != nil {
		return err
	}
	place, d, err := c.auditPlace(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer place.Close()
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	o := audit.Options{Trust: doc, Now: c.Env.Now(), Certificates: certs}
	for _, path := range append([]string{""}, c.Strings("policy")...) {
		b, _, err := c.openPolicy(path)
		if err != nil {
			return err
		}
		if path != "" {
			o.Policies = append(o.Policies, c.evaluator(b))
			continue
		}
		// The builtin policy is compiled once, for any number of records; what it reads was signed by a gate.
		p, err := rego.Compile(ctx, b)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "policy %s", policySource(path))
		}
		o.Policies = append(o.Policies, p)
	}
	o.Find = func(ctx context.Context, policy artifact.Digest) gate.Evaluator {
		b, err := c.policyInStore(ctx, policy)
		if err != nil {
			c.UI.Why("policy %s from the local store: %v", policy.Short(), err)
			return nil
		}
		return c.evaluator(b)
	}
	r, err := audit.Show(ctx, audit.FromRepository(place), d, o)
	if err != nil {
		return err
	}
	if f := c.String("html"); f != "" {
		var page bytes.Buffer
		if err := r.HTML(&page); err != nil {
			return err
		}
		if err := c.writeNew(c.Abs(f), page.Bytes(), 0o644, c.Bool("force")); err != nil {
			return err
		}
		if !c.Bool("dry-run") {
			c.UI.Say("page written to %s", filepath.Base(f))
		}
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(r); err != nil {
			return err
		}
	} else {
		c.UI.Data("%s", r.Text(func(s audit.Status, w string) string { return paintStatus(c.UI.Out, s, w) }))
		c.UI.Data("%s", d)
	}
	if n := r.Counts[audit.Contradicted]; n > 0 {
		return diag.New(diag.Verification, "audit of %s: evidence contradicts %s", d.Short(), ui.Plural(n, "answer"))
	}
	return nil
}

func paintStatus(s *ui.Stream, st audit.Status, word string) string {
	if word == "" {
		return ""
	}
	switch st {
	case audit.Proven:
		return s.Green(word)
	case audit.Claimed:
		return s.Yellow(word)
	case audit.Contradicted:
		return s.Red(word)
	}
	return word
}

// auditPlace opens where a reference or a bare digest is to be found.
func (c *Call) auditPlace(ctx context.Context, arg string) (*openPlace, artifact.Digest, error) {
	d, err := artifact.ParseDigest(arg)
	if err != nil {
		place, _, desc, err := c.openModel(ctx, arg)
		return place, desc.Digest, err
	}
	if in := c.String("in"); in != "" {
		ref, err := registry.ParseRef(in)
		if err != nil {
			return nil, "", diag.Wrap(diag.Usage, err, "--in %s", in)
		}
		place, _, desc, err := c.openModel(ctx, ref.WithDigest(d).String())
		return place, desc.Digest, err
	}
	s, err := c.openStore(ctx, false)
	if err != nil {
		return nil, "", err
	}
	place := &openPlace{registry.NewLayout(s)}
	if _, err := place.Resolve(ctx, string(d)); err != nil {
		place.Close()
		return nil, "", diag.Wrap(diag.NotFound, err, "the local store has no %s", d).Hint("waybill audit show %s --in REGISTRY/REPOSITORY", d)
	}
	return place, d, nil
}
