package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"os"
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
		Name: "save", Group: Ship, Summary: "write artifacts with their evidence into one file or a folder",
		Args: "REF...", Min: 1, Max: -1,
		Long: `For places without a network. The file is a tar of an OCI image layout, which other tools read too. The same
artifacts give the same bytes. Use --out - to write to stdout. What is attached to an artifact always travels along.

With --folder it becomes an OCI image layout in a folder, for a stick or behind any web server of files (a mirror that
devices follow). What the folder holds already stays, also other models; names are set last, all at once.

With --with-evidence the file also holds what judging needs: the signed trust document (with its revoked keys and denied
digests), its earlier versions and its trusted root, the signed environments, every policy that they pin, and with
--channel the newest records of a channel, its target and the targets before it with their evidence.`,
		Examples: []string{
			"waybill save churn:1.0 --out churn.tar",
			"waybill save reg.example/ml/churn:1.0 reg.example/ml/ppe:3.1 --out stick.tar",
			"waybill save reg.example/ml/churn:2.0 --with-evidence --channel prod --previous 2 --out site.tar",
			"waybill save reg.example/ml/churn:2.0 --with-evidence --channel prod --folder /srv/mirror",
		},
		Flags: placeFlags(
			&ucli.StringFlag{Name: "out", Usage: "write `FILE` (- is stdout)"},
			&ucli.StringFlag{Name: "folder", Usage: "write an OCI layout into `DIR`, or add to the one there, in place of a file"},
			&ucli.BoolFlag{Name: "no-evidence", Usage: "leave attached evidence behind"},
			&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing file"},
			dryRunFlag(),
			&ucli.BoolFlag{Name: "with-evidence", Usage: "add trust document, environments and policies"},
			trustFlag(), trustDigestFlag(), environmentsFlag(),
			&ucli.StringFlag{Name: "trusted-root", Usage: "trusted root `FILE` of the trust document, when it does not contain it"},
			&ucli.StringSliceFlag{Name: "policy", Usage: "folder or tar with a pinned policy that is not where its environment says: `PATH`; may be repeated"},
			&ucli.StringFlag{Name: "channel", Usage: "with --with-evidence: add channel `NAME` of the first REF's repository"},
			&ucli.IntFlag{Name: "previous", Value: 1, Usage: "with --channel: how `MANY` targets before the newest one"}),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"load", "copy", "verify"},
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
	kit := c.Bool("with-evidence")
	switch {
	case (file == "") == (c.String("folder") == ""):
		return diag.New(diag.Usage, "save: give either --out FILE or --folder DIR").Hint("waybill save %s --out FILE", c.Args[0])
	case file == "" && c.Bool("force"):
		return diag.New(diag.Usage, "save: --force is for files; a folder is added to")
	case kit && c.Bool("no-evidence"):
		return diag.New(diag.Usage, "save: --with-evidence and --no-evidence exclude each other")
	case !kit && (c.IsSet("channel") || c.IsSet("previous")):
		return diag.New(diag.Usage, "save: --channel and --previous need --with-evidence").Hint("waybill save %s --with-evidence --channel NAME --out FILE", c.Args[0])
	case c.Int("previous") < 0 || c.IsSet("previous") && !c.IsSet("channel"):
		return diag.New(diag.Usage, "save: --previous is a number of targets of a --channel")
	}
	var items, along []registry.SaveItem
	for i, a := range c.Args {
		ref, p, err := c.openArg(ctx, a)
		if err != nil {
			return err
		}
		defer p.Close()
		base, err := c.baseOf(ctx, ref, p.Place)
		if err != nil {
			return err
		}
		items = append(items, registry.SaveItem{From: p.Place, Target: ref.Target(), Name: savedName(ref, base)})
		if kit && i == 0 {
			if along, err = c.withEvidence(ctx, p.Place, base); err != nil {
				return err
			}
		}
	}
	items = append(items, along...)
	o := registry.SaveOptions{NoReferrers: c.Bool("no-evidence")}
	plan, err := registry.Plan(ctx, items, o)
	if err != nil {
		return err
	}
	bar := c.UI.Progress("save", plan.Archive.Bytes, c.Env.Now)
	o.Progress = bar.Add
	switch {
	case file == "":
		file = c.String("folder")
		err = saveFolder(ctx, c.Abs(file), file, plan, o, c.Bool("dry-run"))
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
	c.UI.Field("saved", "%s, %s in %s", contents(a), ui.Bytes(a.Bytes), file)
	if file != "-" || c.Bool("dry-run") {
		c.printArtifacts(a, plan.Main())
	}
	return nil
}

// contents counts what an archive holds.
func contents(a registry.Archive) string {
	papers := 0
	for _, e := range a.Artifacts {
		if registry.IsPaper(e.Descriptor) {
			papers++
		}
	}
	s := ui.Plural(len(a.Artifacts)-papers, "artifact") + ", " + ui.Plural(len(a.Referrers), "statement")
	if papers > 0 {
		s += ", " + ui.Plural(papers, "paper")
	}
	return s
}

// printArtifacts writes the references of artifacts to stdout. Where an archive is about one of them (main), that is the
// only one, and what came along is told on stderr.
func (c *Call) printArtifacts(a registry.Archive, main artifact.Digest) {
	done := map[artifact.Digest]bool{}
	for _, e := range a.Artifacts {
		switch {
		case registry.IsPaper(e.Descriptor):
			c.UI.Why("%s  %s", e.Ref, e.Digest)
		case main != "" && e.Digest != main:
			c.UI.Field("also", "%s  %s", e.Ref, e.Digest)
		case !done[e.Digest]:
			done[e.Digest] = true
			c.UI.Data("%s", nameAt(e))
		}
	}
}

// savedName is the name that an artifact gets in an archive; "" for one that was given by digest alone.
func savedName(ref registry.Ref, base string) string {
	if ref.Digest != "" && ref.Tag == "" {
		return ""
	}
	tag := cmp.Or(ref.Tag, registry.DefaultTag)
	if base == "" {
		return tag
	}
	return base + ":" + tag
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

// tarExtra is what an archive has besides its blobs: a header and padding for each, at most, and the index.
func tarExtra(a registry.Archive) int64 {
	return int64(a.Blobs+8)*2048 + int64(len(a.Artifacts)+len(a.Referrers))*512
}

// roomFor compares what is to be written with what is free below dir, or below what exists of it. A file system that does not
// tell has room.
func roomFor(dir, shown string, need int64) error {
	for {
		free, err := fsx.OS{}.FreeBytes(dir)
		if err == nil && uint64(max(need, 0)) > free {
			return diag.New(diag.Failure, "save %s: it needs %s, %s are free in %s, %s are missing", shown, ui.Bytes(need), ui.Bytes(int64(free)), dir, ui.Bytes(need-int64(free))).
				Hint("df -h %s", dir)
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, os.ErrNotExist) || up == dir {
			return nil
		}
		dir = up
	}
}

// saveFolder adds to the layout in dir. One that was made for it is removed again when that fails.
func saveFolder(ctx context.Context, dir, shown string, plan *registry.SavePlan, o registry.SaveOptions, dry bool) (err error) {
	s, err := store.Open(ctx, dir, store.Options{})
	fresh := diag.CodeOf(err) == diag.NotFound
	if err != nil && !fresh {
		return err
	}
	if fresh {
		s = nil
		if es, err := os.ReadDir(dir); err == nil && len(es) > 0 {
			// A stick with other files on it: the layout goes into a folder of its own.
			return diag.New(diag.Usage, "save: %s has other files in it and is no OCI layout", shown).Hint("waybill save ... --folder %s", filepath.Join(shown, "waybill"))
		}
	}
	need, err := plan.Missing(s)
	if err == nil {
		err = roomFor(dir, shown, need+int64(len(plan.Archive.Artifacts)+len(plan.Archive.Referrers))*1024)
	}
	if err != nil || dry {
		return err
	}
	if fresh {
		_, serr := os.Stat(dir)
		defer func() {
			if err != nil {
				clearFolder(dir, os.IsNotExist(serr))
			}
		}()
		if s, err = store.Open(ctx, dir, store.Options{Create: true}); err != nil {
			return err
		}
	}
	defer func() {
		if cerr := s.Close(); err == nil {
			err = cerr
		}
	}()
	return plan.Into(ctx, s, o)
}

// clearFolder removes what was made in a folder that was empty, or the folder where it was not there.
func clearFolder(dir string, whole bool) {
	if whole {
		_ = os.RemoveAll(dir)
		return
	}
	es, _ := os.ReadDir(dir)
	for _, e := range es {
		_ = os.RemoveAll(filepath.Join(dir, e.Name()))
	}
}

// saveFile writes the archive beside its place and renames it when it is complete.
func saveFile(ctx context.Context, file, shown string, plan *registry.SavePlan, o registry.SaveOptions, force bool) error {
	if err := checkNew(file, shown, force); err != nil {
		return err
	}
	if err := roomFor(filepath.Dir(file), shown, plan.Archive.Bytes+tarExtra(plan.Archive)); err != nil {
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
