package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

func saveCommand() Command {
	return Command{
		Name: "save", Group: Ship, Summary: "write artifacts with their evidence into one file",
		Args: "REF...", Min: 1, Max: -1,
		Long: `For places without a network. The file is a tar of an OCI image layout, which other tools read too. The same
artifacts give the same bytes. Use --out - to write to stdout.`,
		Examples: []string{
			"waybill save churn:1.0 --out churn.tar",
			"waybill save reg.example/ml/churn:1.0 reg.example/ml/ppe:3.1 --out stick.tar",
		},
		Flags: placeFlags(
			&ucli.StringFlag{Name: "out", Required: true, Usage: "write `FILE` (- is stdout)"},
			&ucli.BoolFlag{Name: "no-evidence", Usage: "leave attached evidence behind"},
			&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing file"},
			dryRunFlag()),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"load", "copy"},
		Run:   runSave,
	}
}

type archiveJSON struct {
	Schema    string         `json:"schema"`
	File      string         `json:"file"`
	DryRun    bool           `json:"dryRun"`
	Artifacts []namedJSON    `json:"artifacts"`
	Evidence  []evidenceJSON `json:"evidence"`
	Blobs     int            `json:"blobs"`
	Bytes     int64          `json:"bytes"`
}

type namedJSON struct {
	Name         string          `json:"name"`
	Digest       artifact.Digest `json:"digest"`
	ArtifactType string          `json:"artifactType"`
}

func archiveOf(verb, file string, a registry.Archive, dryRun bool) archiveJSON {
	out := archiveJSON{Schema: schemaBase + verb + "/v1", File: file, DryRun: dryRun, Artifacts: []namedJSON{}, Evidence: evidenceList(a.Referrers), Blobs: a.Blobs, Bytes: a.Bytes}
	for _, e := range a.Artifacts {
		out.Artifacts = append(out.Artifacts, namedJSON{e.Ref, e.Digest, e.ArtifactType})
	}
	return out
}

func runSave(ctx context.Context, c *Call) error {
	file := c.String("out")
	if file == "-" && c.UI.JSON {
		return diag.New(diag.Usage, "save: --out - and --output json both want stdout")
	}
	var items []registry.SaveItem
	for _, a := range c.Args {
		ref, p, err := c.openArg(ctx, a)
		if err != nil {
			return err
		}
		defer p.Close()
		items = append(items, registry.SaveItem{From: p.Place, Target: ref.Target(), Name: archiveNameOf(ref)})
	}
	o := registry.SaveOptions{NoReferrers: c.Bool("no-evidence")}
	plan, err := registry.Plan(ctx, items, o)
	if err != nil {
		return err
	}
	bar := c.UI.Progress("save", plan.Archive.Bytes, c.Env.Now)
	o.Progress = bar.Add
	switch {
	case c.Bool("dry-run"):
		err = checkNew(c.Abs(file), file, c.Bool("force"))
	case file == "-":
		err = plan.Write(ctx, c.Env.Stdout, o)
	default:
		err = saveFile(ctx, c.Abs(file), file, plan, o, c.Bool("force"))
	}
	bar.Done()
	if err != nil {
		return err
	}
	a := plan.Archive
	if c.UI.JSON {
		return c.UI.PrintJSON(archiveOf("save", file, a, c.Bool("dry-run")))
	}
	if c.Bool("dry-run") {
		c.UI.Say("dry run: nothing was written")
	}
	c.UI.Field("saved", "%s, %s, %s in %s", ui.Plural(len(a.Artifacts), "artifact"), ui.Plural(len(a.Referrers), "statement"), ui.Bytes(a.Bytes), file)
	if file != "-" || c.Bool("dry-run") {
		for _, e := range a.Artifacts {
			c.UI.Data("%s", nameAt(e))
		}
	}
	return nil
}

// archiveNameOf is the name that an artifact gets in an archive; "" for one that was given by digest alone.
func archiveNameOf(ref registry.Ref) string {
	switch {
	case ref.Digest != "" && ref.Tag == "":
		return ""
	case ref.Kind == registry.KindLayout: // which has no name of its own
		return cmp.Or(ref.Tag, registry.DefaultTag)
	case ref.Kind == registry.KindLocal:
		return ref.Repo + ":" + cmp.Or(ref.Tag, registry.DefaultTag)
	}
	return path.Base(ref.Repo) + ":" + cmp.Or(ref.Tag, registry.DefaultTag)
}

// nameAt writes an entry as name@digest, or the digest alone.
func nameAt(e store.Entry) string {
	if r, err := registry.ParseRef(e.Ref); err == nil && e.Ref != "" {
		return r.WithDigest(e.Digest).String()
	}
	return string(e.Digest)
}

// checkNew refuses to write over a file without --force.
func checkNew(file, shown string, force bool) error {
	if _, err := os.Lstat(file); err == nil && !force && shown != "-" {
		return diag.New(diag.Usage, "%s exists", shown).Hint("add --force, or choose another --out")
	}
	return nil
}

// saveFile writes the archive beside its place and renames it when it is complete.
func saveFile(ctx context.Context, file, shown string, plan *registry.SavePlan, o registry.SaveOptions, force bool) error {
	if err := checkNew(file, shown, force); err != nil {
		return err
	}
	f, err := fsx.CreateTemp(fsx.OS{}, filepath.Dir(file), filepath.Base(file), 0o644)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "save")
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = plan.Write(ctx, w, o)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsx.OS{}.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		var de *diag.Error
		if errors.As(err, &de) {
			return err
		}
		return diag.Wrap(diag.Failure, err, "save %s", shown)
	}
	return fsx.OS{}.SyncDir(filepath.Dir(file))
}
