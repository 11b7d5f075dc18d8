package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
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
			&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing file"}),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"load", "copy"},
		Run:   runSave,
	}
}

type archiveJSON struct {
	Schema    string         `json:"schema"`
	File      string         `json:"file"`
	Artifacts []namedJSON    `json:"artifacts"`
	Evidence  []evidenceJSON `json:"evidence"`
	Blobs     int            `json:"blobs"`
	Bytes     int64          `json:"bytes"`
}

type namedJSON struct {
	Name   string          `json:"name"`
	Digest artifact.Digest `json:"digest"`
}

func archiveOf(verb, file string, a registry.Archive) archiveJSON {
	out := archiveJSON{Schema: schemaBase + verb + "/v1", File: file, Artifacts: []namedJSON{}, Evidence: evidenceList(a.Referrers), Blobs: a.Blobs, Bytes: a.Bytes}
	for _, e := range a.Artifacts {
		out.Artifacts = append(out.Artifacts, namedJSON{e.Ref, e.Digest})
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
		name := ""
		if ref.Digest == "" && ref.Kind == registry.KindLayout {
			name = ref.Target()
		} else if ref.Digest == "" {
			name = path.Base(ref.Repo) + ":" + ref.Target()
		}
		items = append(items, registry.SaveItem{From: p.Place, Target: ref.Target(), Name: name})
	}
	var a registry.Archive
	var err error
	if file == "-" {
		a, err = registry.Save(ctx, c.Env.Stdout, items, c.Bool("no-evidence"))
	} else {
		a, err = saveFile(ctx, c.Abs(file), items, c.Bool("no-evidence"), c.Bool("force"))
	}
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(archiveOf("save", file, a))
	}
	c.UI.Field("saved", "%s, %s, %s in %s", ui.Plural(len(a.Artifacts), "artifact"), ui.Plural(len(a.Referrers), "statement"), ui.Bytes(a.Bytes), file)
	if file != "-" {
		for _, e := range a.Artifacts {
			c.UI.Data("%s", nameAt(e))
		}
	}
	return nil
}

// nameAt writes an entry as name@digest, or the digest alone.
func nameAt(e store.Entry) string {
	if r, err := registry.ParseRef(e.Ref); err == nil && e.Ref != "" {
		return r.WithDigest(e.Digest).String()
	}
	return string(e.Digest)
}

// saveFile writes the archive beside its place and renames it when it is complete.
func saveFile(ctx context.Context, file string, items []registry.SaveItem, noEvidence, force bool) (registry.Archive, error) {
	if _, err := os.Lstat(file); err == nil && !force {
		return registry.Archive{}, diag.New(diag.Usage, "%s exists", file).Hint("add --force, or choose another --out")
	}
	f, err := fsx.CreateTemp(fsx.OS{}, filepath.Dir(file), filepath.Base(file), 0o644)
	if err != nil {
		return registry.Archive{}, diag.Wrap(diag.Failure, err, "save")
	}
	w := bufio.NewWriterSize(f, 1<<20)
	a, err := registry.Save(ctx, w, items, noEvidence)
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
			return a, err
		}
		return a, diag.Wrap(diag.Failure, err, "save %s", file)
	}
	return a, fsx.OS{}.SyncDir(filepath.Dir(file))
}

func loadCommand() Command {
	return Command{
		Name: "load", Group: Ship, Summary: "read a file made by save into the local store",
		Args: "FILE", Min: 1, Max: 1,
		Long: `Every blob is hashed; names are set only when all that they need is there. Use - to read from stdin. Nothing in
the file is trusted by being in it: run waybill verify on what was loaded.`,
		Examples: []string{"waybill load churn.tar", "waybill load churn.tar --name candidate:1.0", "cat churn.tar | waybill load -"},
		Flags:    []ucli.Flag{&ucli.StringFlag{Name: "name", Usage: "give the only artifact of the file `NAME:TAG`"}},
		Exits:    []diag.Code{diag.Verification, diag.NotFound},
		See:      []string{"save", "verify"},
		Run:      runLoad,
	}
}

func runLoad(ctx context.Context, c *Call) error {
	rename := c.String("name")
	if rename != "" {
		r, err := registry.ParseRef(rename)
		if err != nil {
			return err
		}
		if r.Kind != registry.KindLocal || r.Digest != "" {
			return diag.New(diag.Usage, "load: --name %s is not a name in the local store", rename)
		}
		rename = r.Repo + ":" + r.Target()
	}
	in := c.Env.Stdin
	if c.Args[0] != "-" {
		f, err := os.Open(c.Abs(c.Args[0]))
		if errors.Is(err, os.ErrNotExist) {
			return diag.Wrap(diag.NotFound, err, "load").Hint("waybill save NAME:TAG --out %s", c.Args[0])
		}
		if err != nil {
			return diag.Wrap(diag.Failure, err, "load")
		}
		defer f.Close()
		in = bufio.NewReaderSize(f, 1<<20)
	}
	s, err := c.openStore(ctx, true)
	if err != nil {
		return err
	}
	defer s.Close()
	a, err := registry.Load(ctx, readerCtx{ctx, in}, s, rename)
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(archiveOf("load", c.Args[0], a))
	}
	c.UI.Field("loaded", "%s, %s, %s", ui.Plural(len(a.Artifacts), "artifact"), ui.Plural(len(a.Referrers), "statement"), ui.Bytes(a.Bytes))
	for _, e := range a.Artifacts {
		c.UI.Data("%s", nameAt(e))
	}
	return nil
}

// readerCtx ends a long read when the call is cancelled.
type readerCtx struct {
	ctx context.Context
	r   io.Reader
}

func (r readerCtx) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
