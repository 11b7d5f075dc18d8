package cli

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

func copyFlags(more ...ucli.Flag) []ucli.Flag {
	return placeFlags(transferFlags(append(more,
		&ucli.BoolFlag{Name: "no-evidence", Usage: "leave attached evidence (signatures, verdicts, ...) behind"},
		&ucli.BoolFlag{Name: "dry-run", Usage: "send nothing, show what would be sent"})...)...)
}

func pushCommand() Command {
	return Command{
		Name: "push", Group: Ship, Summary: "copy an artifact and its evidence to a registry",
		Args: "REF DEST", Min: 2, Max: 2,
		Long: `Sends what the registry does not have yet, then everything that is attached to the artifact, and sets the tag
last: who sees the tag finds all of it. Pushing again completes a push that broke off. Without a tag, DEST gets
that of REF.`,
		Examples: []string{
			"waybill push churn:1.0 reg.example/ml/churn:1.0",
			"waybill push churn:1.0 127.0.0.1:5000/ml/churn --dry-run",
		},
		Flags: copyFlags(),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"pull", "copy", "registry serve"},
		Run: func(ctx context.Context, c *Call) error {
			r, err := registry.ParseRef(c.Args[1])
			if err != nil {
				return err
			}
			if r.Kind == registry.KindLocal {
				return diag.New(diag.Usage, "push: %s names no registry", c.Args[1]).
					Hint("waybill push %s HOST/%s", c.Args[0], c.Args[1]).Hint("waybill copy %s %s", c.Args[0], c.Args[1])
			}
			return runCopy(ctx, c, "push", c.Args[0], r)
		},
	}
}

func copyCommand() Command {
	return Command{
		Name: "copy", Group: Ship, Summary: "copy an artifact and its evidence between any two places",
		Args: "SRC DEST", Min: 2, Max: 2,
		Long: `SRC and DEST are each a name in the local store, a repository in a registry, or layout:PATH. The copy is byte
for byte, so digests and signatures stay valid. Inside one registry blobs are mounted, not sent.`,
		Examples: []string{
			"waybill copy reg.example/ml/churn:1.0 mirror.example/ml/churn:1.0",
			"waybill copy reg.example/ml/churn@sha256:7c1f... layout:./stick:1.0",
		},
		Flags: copyFlags(),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"push", "pull", "save"},
		Run: func(ctx context.Context, c *Call) error {
			r, err := registry.ParseRef(c.Args[1])
			if err != nil {
				return err
			}
			return runCopy(ctx, c, "copy", c.Args[0], r)
		},
	}
}

func pullCommand() Command {
	return Command{
		Name: "pull", Group: Ship, Summary: "bring an artifact and its evidence here: to the store, or files to a folder",
		Args: "REF [NAME]", Min: 1, Max: 2,
		Long: `Into the local store the artifact goes as NAME, by default the last part of the repository's name with the same
tag. With --out its files go into a folder instead, and only there; --role, given once or more often, picks which.
Everything is hashed, also what is there already and therefore not fetched; what does not have its digest is refused
and leaves no file. A pull that broke off goes on where it stopped when it is run again: until then its parts lie
beside their files, as .NAME.partial, or in the store, where store prune removes them. Every repetition is shown with
its reason. With --verify nothing is fetched unless a publisher whom the trust document knows has released the
digest and its rules are met; what is fetched is that digest, whatever the tag names by then.`,
		Examples: []string{
			"waybill pull reg.example/ml/churn:1.0",
			"waybill pull reg.example/ml/churn:1.0 candidate:1.0",
			"waybill pull reg.example/ml/churn:1.0 --out ./churn --role module --role interface",
			"waybill pull reg.example/ml/churn:1.0 --verify --trust trust.signed",
			"waybill pull reg.example/ml/churn:1.0 --limit-rate 10M --jobs 8",
		},
		Flags: copyFlags(
			&ucli.StringFlag{Name: "out", Usage: "write the files into `DIR`, not into the store"},
			&ucli.StringSliceFlag{Name: "role", Usage: "with --out: only files of `ROLE` (module, weights, interface, step, golden, baseline, source, doc)"},
			&ucli.BoolFlag{Name: "force", Usage: "with --out: overwrite files"},
			&ucli.BoolFlag{Name: "verify", Usage: "fetch only what verifies against --trust"},
			trustFlag(), trustDigestFlag()),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"push", "verify", "inspect"},
		Run:   runPull,
	}
}

func runPull(ctx context.Context, c *Call) error {
	src, err := registry.ParseRef(c.Args[0])
	if err != nil {
		return err
	}
	if c.Bool("verify") {
		// From here on the digest that was verified is named, not the tag: the tag may move.
		if c.Args[0], err = c.verifiedRef(ctx, c.Args[0]); err != nil {
			return err
		}
	}
	if c.String("out") != "" {
		if len(c.Args) > 1 {
			return diag.New(diag.Usage, "pull: NAME and --out exclude each other")
		}
		return runExtract(ctx, c)
	}
	if len(c.Strings("role")) > 0 || c.Bool("force") {
		return diag.New(diag.Usage, "pull: --role and --force need --out").Hint("waybill pull %s --out DIR", c.Args[0])
	}
	dst := registry.Ref{Kind: registry.KindLocal, Repo: path.Base(src.Repo), Tag: src.Tag}
	switch {
	case len(c.Args) > 1:
		if dst, err = registry.ParseRef(c.Args[1]); err != nil {
			return err
		}
		if dst.Kind != registry.KindLocal {
			return diag.New(diag.Usage, "pull: %s is not a name in the local store", c.Args[1]).Hint("waybill copy %s %s", c.Args[0], c.Args[1])
		}
	case src.Kind == registry.KindLocal:
		return diag.New(diag.Usage, "pull: %s is in the local store already", c.Args[0]).Hint("waybill inspect %s", c.Args[0])
	case src.Kind == registry.KindLayout:
		return diag.New(diag.Usage, "pull: a layout has no name; say which name it gets").Hint("waybill pull %s NAME:TAG", c.Args[0])
	}
	return runCopy(ctx, c, "pull", c.Args[0], dst)
}

type copyJSON struct {
	Schema    string          `json:"schema"`
	Ref       string          `json:"ref"` // destination, by digest
	Digest    artifact.Digest `json:"digest"`
	Tag       string          `json:"tag,omitempty"`
	DryRun    bool            `json:"dryRun"`
	Referrers []evidenceJSON  `json:"evidence"`
	Sent      int             `json:"blobsSent"`
	SentBytes int64           `json:"bytesSent"`
	Mounted   int             `json:"blobsMounted"`
	Present   int             `json:"blobsPresent"`
	registry.Received
	Retries int64 `json:"retries"`
}

type evidenceJSON struct {
	Digest        artifact.Digest `json:"digest"` // of the manifest that carries it
	ArtifactType  string          `json:"artifactType"`
	PredicateType string          `json:"predicateType,omitempty"` // as declared, not verified
}

func evidenceList(ds []artifact.Descriptor) []evidenceJSON {
	out := []evidenceJSON{}
	for _, d := range ds {
		if isNote(d) {
			continue // nobody signed it: it is none
		}
		out = append(out, evidenceJSON{d.Digest, d.ArtifactType, d.Annotations[artifact.AnnotationBundlePredicate]})
	}
	return out
}

func runCopy(ctx context.Context, c *Call, verb, srcArg string, dstRef registry.Ref) error {
	srcRef, src, err := c.openArg(ctx, srcArg)
	if err != nil {
		return err
	}
	defer src.Close()
	if dstRef.Digest != "" {
		return diag.New(diag.Usage, "%s: a digest cannot be chosen at the destination", verb).Hint("waybill %s %s %s", verb, srcArg, dstRef.Name())
	}
	if dstRef.Tag == "" && srcRef.Digest == "" {
		dstRef.Tag = srcRef.Target()
	}
	dst, err := c.openPlace(ctx, dstRef, !c.Bool("dry-run"))
	if err != nil {
		return err
	}
	defer dst.Close()
	p := c.UI.Progress(verb, 0, c.Env.Now)
	res, err := registry.Copy(ctx, dst.Place, src.Place, srcRef.Target(), registry.CopyOptions{
		Tag: dstRef.Tag, NoReferrers: c.Bool("no-evidence"), Jobs: c.Int("jobs"), DryRun: c.Bool("dry-run"),
		Bytes: p.Add,
	})
	p.Done()
	if err != nil {
		return c.again(ctx, err)
	}
	out := copyJSON{
		Schema: schemaBase + verb + "/v1", Ref: dstRef.WithDigest(res.Descriptor.Digest).String(), Digest: res.Descriptor.Digest, Tag: dstRef.Tag,
		DryRun: c.Bool("dry-run"), Referrers: evidenceList(res.Referrers),
		Sent: res.Sent, SentBytes: res.SentBytes, Mounted: res.Mounted, Present: res.Present,
		Received: res.Received, Retries: c.moved.retries.Load(),
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	head := ""
	if out.DryRun {
		head = "dry run: "
	}
	c.UI.Say("%s%s -> %s", head, srcRef, dstRef)
	parts := []string{ui.Plural(res.Sent, "blob") + " sent, " + ui.Bytes(res.SentBytes)}
	if res.Mounted > 0 {
		parts = append(parts, ui.Plural(res.Mounted, "blob")+" mounted")
	}
	if res.Present > 0 {
		parts = append(parts, ui.Count(int64(res.Present))+" already there")
	}
	if res.Resumed > 0 {
		parts = append(parts, ui.Bytes(res.Resumed)+" of an earlier run")
	}
	c.UI.Field("content", "%s", strings.Join(parts, "; "))
	if !c.Bool("no-evidence") {
		c.UI.Field("evidence", "%s attached", ui.Plural(len(evidenceList(res.Referrers)), "statement"))
		if notes := notesOf(res.Referrers); len(notes) > 0 {
			c.UI.Field("unsigned", "%s", noteNames(notes))
		}
	}
	c.UI.Data("%s", out.Ref)
	return nil
}

type extractJSON struct {
	Schema string          `json:"schema"`
	Ref    string          `json:"ref"`
	Digest artifact.Digest `json:"digest"`
	Dir    string          `json:"dir"`
	DryRun bool            `json:"dryRun"`
	Files  []layerJSON     `json:"files"`
	registry.ExtractResult
	Retries int64 `json:"retries"`
}

func runExtract(ctx context.Context, c *Call) error {
	ref, r, err := c.openArg(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer r.Close()
	m, d, err := registry.ReadModel(ctx, r, ref.Target())
	if err != nil {
		return err
	}
	layers := m.Layers
	if roles := c.Strings("role"); len(roles) > 0 {
		for _, role := range roles {
			if !slices.ContainsFunc(artifact.Roles(), func(i artifact.RoleInfo) bool { return string(i.Role) == role }) {
				return diag.New(diag.Usage, "pull: %q is no role", role).Hint("waybill pull --help")
			}
			if len(m.ByRole(artifact.Role(role))) == 0 {
				return diag.New(diag.NotFound, "%s has no file of role %s", ref, role).Hint("waybill inspect %s", c.Args[0])
			}
		}
		layers = slices.DeleteFunc(slices.Clone(layers), func(l artifact.Layer) bool { return !slices.Contains(roles, string(l.Role)) })
	}
	var total int64
	for _, l := range layers {
		total += l.Size
	}
	out := extractJSON{Schema: schemaBase + "pull/v1", Ref: ref.WithDigest(d.Digest).String(), Digest: d.Digest, Dir: c.String("out"),
		DryRun: c.Bool("dry-run"), Files: layerList(layers)}
	if !out.DryRun {
		p := c.UI.Progress("pull", total, c.Env.Now)
		out.ExtractResult, err = registry.Extract(ctx, r.Place, layers, c.Abs(c.String("out")),
			registry.ExtractOptions{Force: c.Bool("force"), Jobs: c.Int("jobs"), Bytes: p.Add})
		p.Done()
		if err != nil {
			return c.again(ctx, err)
		}
		out.Retries = c.moved.retries.Load()
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	for _, l := range layers {
		c.UI.Field(string(l.Role), "%s  %s", l.Path, ui.Bytes(l.Size))
	}
	if !out.DryRun {
		line := fmt.Sprintf("%s written, %s fetched", ui.Plural(out.Written, "file"), ui.Bytes(out.Fetched))
		if out.Present > 0 {
			line += fmt.Sprintf("; %d already there", out.Present)
		}
		if out.Resumed > 0 {
			line += "; " + ui.Bytes(out.Resumed) + " of an earlier run"
		}
		c.UI.Field("content", "%s", line)
	}
	c.UI.Data("%s", out.Ref)
	return nil
}
