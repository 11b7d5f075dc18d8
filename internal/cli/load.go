package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

func loadCommand() Command {
	return Command{
		Name: "load", Group: Ship, Summary: "read a file made by save into the local store",
		Args: "FILE", Min: 1, Max: 1,
		Long: `The whole file is read and checked before anything enters the store: every digest, everything that a manifest needs,
nothing but files of an OCI layout, nothing after its end. Then all of it enters in one step, or nothing does. Use - to
read from stdin. Nothing in the file is trusted by being in it: run waybill verify on what was loaded.`,
		Examples: []string{"waybill load churn.tar", "waybill load churn.tar --name candidate:1.0", "cat churn.tar | waybill load -"},
		Flags:    []ucli.Flag{&ucli.StringFlag{Name: "name", Usage: "give the artifact that the file is about `NAME:TAG`"}, dryRunFlag()},
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
	in, size := c.Env.Stdin, int64(0)
	if c.Args[0] != "-" {
		f, err := os.Open(c.Abs(c.Args[0]))
		if errors.Is(err, os.ErrNotExist) {
			return diag.Wrap(diag.NotFound, err, "load").Hint("waybill save NAME:TAG --out %s", c.Args[0])
		}
		if err != nil {
			return diag.Wrap(diag.Failure, err, "load")
		}
		defer f.Close()
		if fi, err := f.Stat(); err == nil {
			size = fi.Size()
		}
		in = bufio.NewReaderSize(f, 1<<20)
	}
	s, err := c.openStore(ctx, !c.Bool("dry-run"))
	switch {
	case err == nil:
		defer s.Close()
	case c.Bool("dry-run") && diag.CodeOf(err) == diag.NotFound: // a store that does not exist yet is an empty one
		s = nil
	default:
		return err
	}
	into := s
	if c.Bool("dry-run") {
		into = nil
	}
	bar := c.UI.Progress("load", size, c.Env.Now)
	o, err := registry.OpenArchive(ctx, in, into, bar.Add)
	bar.Done()
	if err != nil {
		return err
	}
	defer o.Close()
	ls, err := o.Listings(rename)
	if err != nil {
		return err
	}
	moved, err := c.moves(ctx, s, ls)
	if err != nil {
		return err
	}
	if !c.Bool("dry-run") {
		if err := o.Commit(ctx, ls); err != nil {
			return err
		}
	}
	a := o.Holds(ls)
	if c.UI.JSON {
		return c.UI.PrintJSON(archiveOf("load", c.Args[0], a, c.Bool("dry-run")))
	}
	if c.Bool("dry-run") {
		c.UI.Say("dry run: nothing was written")
	}
	if o.Ignored > 0 {
		c.UI.Warn("%s in the file belong to no manifest; they were left out", ui.Plural(o.Ignored, "blob"))
	}
	for _, m := range moved {
		c.UI.Field("moved", "%s", m)
	}
	c.UI.Field("loaded", "%s, %s, %s", ui.Plural(len(a.Artifacts), "artifact"), ui.Plural(len(a.Referrers), "statement"), ui.Bytes(a.Bytes))
	for _, e := range a.Artifacts {
		c.UI.Data("%s", nameAt(e))
	}
	return nil
}

// moves tells which names of the store would change, and binds the change to where they are now. s is nil when there is
// no store yet.
func (c *Call) moves(ctx context.Context, s *store.Store, ls []store.Listing) ([]string, error) {
	var out []string
	for i, l := range ls {
		if l.Ref == "" {
			continue
		}
		var now artifact.Digest
		if s != nil {
			d, err := s.Resolve(ctx, l.Ref)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			now = d.Digest
		}
		ls[i].Expect = &now
		if now != "" && now != l.Digest {
			out = append(out, fmt.Sprintf("%s  was sha256:%s, is sha256:%s", l.Ref, now.Short(), l.Digest.Short()))
		}
	}
	return out, nil
}
