package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/deploy/jsbundle"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

func bundleCommand() Command {
	return Command{
		Name: "bundle", Group: Ship, Summary: "write an artifact as JavaScript for Workers, Node and browsers",
		Args: "REF", Min: 1, Max: 1,
		Long: `Writes a folder with the artifact's own module, weights and documents, the loader, and an entry for each host: worker.mjs for
Cloudflare Workers and workerd, node.mjs as server and library, browser.mjs. Publishers must have released the artifact. What the
folder loads is held against the artifact's digest first, and the golden vectors are run; answers are bit for bit the runtime's.
The same artifact and the same Waybill give the same bytes. The folder appears whole or not at all.

With workers among the hosts, what Cloudflare would not take or not run is refused (exit code 5).`,
		Examples: []string{
			"waybill bundle churn:1.0 --out web",
			"waybill bundle reg.example/ml/churn@sha256:... --for node,browser --out web",
			"waybill bundle churn:1.0 --for workers --out worker",
		},
		Flags: append(trustFlags(),
			&ucli.StringSliceFlag{Name: "for", Usage: "`HOST`: workers, node, browser (default: all); may be repeated"},
			&ucli.StringFlag{Name: "out", Required: true, Usage: "`FOLDER` that is made; it must not exist, or be empty"},
			dryRunFlag(),
		),
		Exits: []diag.Code{diag.Verification, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"image", "deploy", "verify"},
		Run:   runBundle,
	}
}

type bundleJSON struct {
	Schema  string          `json:"schema"`
	Ref     string          `json:"ref"`
	Digest  artifact.Digest `json:"digest"`
	Model   string          `json:"model"`
	Version string          `json:"version"`
	DryRun  bool            `json:"dryRun"`
	Out     string          `json:"out"`
	Hosts   []string        `json:"hosts"`
	Files   []jsbundle.File `json:"files"`
}

func runBundle(ctx context.Context, c *Call) error {
	var hosts []string
	for _, h := range strings.Split(strings.Join(c.Strings("for"), ","), ",") {
		switch h {
		case "":
		case jsbundle.Workers, jsbundle.Node, jsbundle.Browser:
			hosts = append(hosts, h)
		default:
			e := diag.New(diag.Usage, "--for %s is none of workers, node, browser", h)
			if near := diag.Nearest(h, []string{jsbundle.Workers, jsbundle.Node, jsbundle.Browser}); near != "" {
				e.Hint("did you mean --for %s?", near)
			}
			return e
		}
	}
	doc, err := c.loadTrust()
	if err != nil {
		return err
	}
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	s, err := c.subject(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	if err := c.released(ctx, s.Place, s.Desc.Digest, s.Name, doc, certs); err != nil {
		return diag.Wrap(diag.Verification, err, "bundle %s", s.Pinned()).Hint("waybill sign %s --key publisher.key", s.Pinned())
	}
	manifest, _, err := s.Place.Manifest(ctx, s.Desc.Digest)
	if err != nil {
		return err
	}
	dir := c.Abs(c.String("out"))
	if es, err := os.ReadDir(dir); err == nil && len(es) > 0 {
		return diag.New(diag.Usage, "the folder %s is not empty", c.String("out")).Hint("waybill bundle %s --out %s-new", c.Args[0], c.String("out"))
	} else if info, serr := os.Stat(dir); serr == nil && !info.IsDir() {
		return diag.New(diag.Usage, "%s is a file", c.String("out"))
	}
	if c.Bool("dry-run") { // it is written elsewhere, and thrown away
		tmp, err := os.MkdirTemp("", "waybill-bundle-")
		if err != nil {
			return diag.Wrap(diag.Failure, err, "make a place to work in")
		}
		defer func() { _ = os.RemoveAll(tmp) }()
		dir = filepath.Join(tmp, "bundle")
	}
	b, err := jsbundle.Build(ctx, dir, manifest, s.Place, jsbundle.Options{Hosts: hosts, Limits: jsbundle.CloudflareLimits()})
	if err != nil {
		code := diag.CodeOf(err)
		var limit *jsbundle.LimitError
		if errors.As(err, &limit) {
			code = diag.Unsupported
		}
		return diag.Wrap(code, err, "bundle %s", s.Pinned())
	}
	if c.Bool("dry-run") {
		c.UI.Say("dry run: nothing was written")
	}
	out := bundleJSON{Schema: schemaBase + "bundle/v1", Ref: s.Pinned(), Digest: s.Desc.Digest, Model: s.Name, Version: s.Version, DryRun: c.Bool("dry-run"), Out: c.String("out"), Hosts: b.Hosts, Files: b.Files}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	total := int64(0)
	for _, f := range b.Files {
		total += f.Size
	}
	c.UI.Field("model", "%s %s", s.Name, s.Version)
	c.UI.Field("hosts", "%s", strings.Join(b.Hosts, ", "))
	c.UI.Field("files", "%s, %s", ui.Plural(len(b.Files), "file"), ui.Bytes(total))
	c.UI.Data("%s", c.String("out"))
	return nil
}

// released demands that as many publishers as the trust document wants, and one at least, have released the manifest d: an artifact, or the image of
// one.
func (c *Call) released(ctx context.Context, p *openPlace, d artifact.Digest, model string, doc *trust.Document, certs verify.Certificates) error {
	bundles, err := publish.Bundles(ctx, p, d)
	if err != nil {
		return err
	}
	evs, failed := verify.All(bundles, doc, verify.Want{Subject: d, Model: model, Now: c.Env.Now(), Certificates: certs})
	if verify.Count(evs, evidence.TypeRelease, 1, 1).Met() {
		if err = verify.Enough(evs, doc, d, evidence.TypeRelease); err == nil {
			return nil
		}
	} else {
		err = verify.Missing(evidence.TypeRelease, len(evs))
	}
	e := diag.Wrap(diag.Verification, err, "%s", d)
	for _, f := range failed {
		e.Line("%s: %v", f.Bundle.Short(), f.Err)
	}
	return e
}
