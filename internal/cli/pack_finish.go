package cli

import (
	"context"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
)

// checkFlag reads --check: the digest that the project must give, "" without the flag.
func checkFlag(c *Call) (artifact.Digest, error) {
	s := c.String("check")
	if s == "" {
		return "", nil
	}
	if _, d, ok := strings.Cut(s, "@"); ok { // a reference that pack has printed
		s = d
	}
	d, err := artifact.ParseDigest(s)
	if err != nil {
		return "", diag.Wrap(diag.Usage, err, "--check").Hint("waybill pack --check sha256:..., with all 64 digits, as waybill pack prints it")
	}
	return d, nil
}

// packBundle packs a project whose files are bundled as they are.
func packBundle(ctx context.Context, c *Call, p *project.Project, from *fetched, check artifact.Digest, start time.Time) error {
	b, err := build.List(ctx, p)
	if err != nil {
		return err
	}
	c.UI.Field("files", "%s, %s, bundled as they are", ui.Plural(b.Files(), "file"), ui.Bytes(b.Bytes()))
	for _, m := range b.Members() {
		c.UI.Why("  %-9s %s", m.Role, m.Path)
	}
	if len(b.LeftOut) > 0 {
		c.UI.Field("left out", "%s", shortList(b.LeftOut, 4))
	}
	out := packJSON{
		Schema: schemaBase + "pack/v1", Name: p.Name, Version: p.Version, Kind: "files", Comparison: []packComparison{}, LeftOut: b.LeftOut,
	}
	return finishPack(ctx, c, p, from, &out, check, start, func(st build.Store) (*build.Packed, error) {
		packed, err := withBar(c, "reading", func(o build.PackOptions) (*build.Packed, error) { return b.Pack(ctx, st, o) })
		if err != nil {
			return nil, err
		}
		out.Facts = &packed.Config.Model
		sayFacts(c, packed)
		return packed, nil
	})
}

// withBar runs pack with the options that the flags give and a line of progress.
func withBar(c *Call, label string, pack func(build.PackOptions) (*build.Packed, error)) (*build.Packed, error) {
	o := build.PackOptions{WithoutSource: c.Bool("without-source"), Tag: c.String("tag")}
	bar := c.UI.Progress(label, 0, c.Env.Now)
	defer bar.Done()
	o.Begin, o.Progress = bar.Begin, bar.Add
	return pack(o)
}

// sayFacts tells what the headers said.
func sayFacts(c *Call, packed *build.Packed) {
	m := packed.Config.Model
	parts := []string{m.Format}
	for _, s := range []string{m.Architecture, m.ParamSize, m.Precision, m.Quantization} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	c.UI.Field("weights", "%s", strings.Join(parts, ", "))
	for _, f := range packed.Bundled.Files {
		if f.Pickle != "" {
			c.UI.Warn("%s %s, which allow_pickle permits: a gate denies it unless its policy says otherwise", f.Path, f.Pickle)
		}
	}
}

// shortList names at most n of a list.
func shortList(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:n], ", ") + " and " + ui.Plural(len(list)-n, "other")
}

// finishPack writes the bundle with pack into the local store, or with --dry-run and --check nowhere, and prints the outcome.
func finishPack(ctx context.Context, c *Call, p *project.Project, from *fetched, out *packJSON, check artifact.Digest, start time.Time,
	pack func(build.Store) (*build.Packed, error),
) error {
	dry := c.Bool("dry-run") || check != ""
	var st build.Store = build.DryStore{}
	if !dry {
		s, err := c.openStore(ctx, true)
		if err != nil {
			return err
		}
		defer s.Close()
		st = from.store(s)
	}
	clock := c.Env.Now()
	epoch, err := sourceDateEpoch(c)
	if err != nil {
		return err
	}
	packed, err := pack(st)
	if err != nil {
		return err
	}
	statements, err := writeDown(ctx, c, p, from, packed, st, epoch)
	if err != nil {
		return err
	}
	out.Statements, out.From = statements, from.json()
	out.Tag, out.Digest, out.Layers = packed.Ref, string(packed.Digest), layerList(packed.Layers)
	out.Files, out.Bytes, out.Seconds = packed.Files, packed.Bytes, c.Env.Now().Sub(start).Round(time.Microsecond).Seconds()
	pinned := p.Name + "@" + string(packed.Digest)
	if check != "" && packed.Digest != check {
		return diag.New(diag.Verification, "%s gives another digest", p.File).Line("want %s", check).Line("got  %s", packed.Digest).
			Hint("waybill diff %s@%s %s@%s   (what differs, once this project is packed too)", p.Name, check, p.Name, packed.Digest)
	}
	if !dry {
		out.Ref = pinned
		c.UI.Field("bundle", "%s, %s, hashed once   %s", ui.Plural(packed.Files, "file"), ui.Bytes(packed.Bytes), ui.Duration(c.Env.Now().Sub(clock)))
		c.UI.Field("beside it", "%s: unsigned until waybill sign", noteNames(statements))
		c.UI.Field("tagged", "%s", packed.Ref)
	} else {
		for _, l := range packed.Layers {
			c.UI.Field(string(l.Role), "%s  %s  sha256:%s", l.Path, ui.Bytes(l.Size), l.Digest.Short())
		}
		c.UI.Field("bundle", "%s, %s, would be %s: nothing was written", ui.Plural(packed.Files, "file"), ui.Bytes(packed.Bytes), packed.Digest)
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	if !dry || check != "" {
		c.UI.Data("%s", pinned)
	}
	return nil
}

// writeDown makes provenance and bill of materials of a bundle, and stores them beside it unless st keeps nothing.
func writeDown(ctx context.Context, c *Call, p *project.Project, from *fetched, packed *build.Packed, st build.Store, epoch *time.Time) ([]notesJSON, error) {
	o := build.Origin{Epoch: epoch, Dir: p.Dir}
	if from != nil {
		o.Source, o.Dir = &from.model.Source, from.dir
	}
	if o.Dir != "" { // else the project file lies nowhere
		var err error
		if o.Commit, err = lineage.Git(ctx, o.Dir, p.File); err != nil {
			return nil, err
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		o.Build = info
	}
	list, err := packed.Statements(o)
	if err != nil {
		return nil, err
	}
	if n, ok := st.(build.Notebook); ok {
		if err := packed.Attach(ctx, n, list); err != nil {
			return nil, err
		}
	}
	var out []notesJSON
	for _, s := range list {
		b, err := artifact.BuildStatement(packed.Desc, s.Raw, s.PredicateType)
		if err != nil {
			return nil, err
		}
		out = append(out, notesJSON{s.PredicateType, artifact.DigestOf(b), artifact.DigestOf(s.Raw), int64(len(s.Raw))})
	}
	return out, nil
}

// sourceDateEpoch reads SOURCE_DATE_EPOCH (reproducible-builds.org): seconds since 1970; nil when it is not set.
func sourceDateEpoch(c *Call) (*time.Time, error) {
	s := c.Env.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 253402300799 { // the end of the year 9999
		return nil, diag.New(diag.Usage, "SOURCE_DATE_EPOCH is %q, not a number of seconds since 1970", s).Hint("export SOURCE_DATE_EPOCH=$(git log -1 --format=%%ct)")
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}
