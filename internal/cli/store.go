package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

func storeCommand() Command {
	dir := func(more ...ucli.Flag) []ucli.Flag {
		return append(more, &ucli.StringFlag{Name: "store", Usage: "work on the OCI layout in `DIR`, not on the local store"})
	}
	return Command{
		Name: "store", Group: Ship, Summary: "list, clean and check the local store",
		Sub: []Command{
			{
				Name: "ls", Summary: "list what is in the store",
				Examples: []string{"waybill store ls", "waybill store ls --all --output json"},
				Flags:    dir(&ucli.BoolFlag{Name: "all", Usage: "also what has no tag, such as attached evidence"}),
				Run:      runStoreLs,
			},
			{
				Name: "rm", Summary: "remove a tag, or an artifact by digest with its tags and evidence",
				Args: "REF...", Min: 1, Max: -1,
				Long: `An artifact that loses its last tag goes with everything attached to it. Disk space is freed by waybill store
prune.`,
				Examples: []string{"waybill store rm churn:1.0", "waybill store rm churn@sha256:7c1f..."},
				Flags:    dir(&ucli.BoolFlag{Name: "dry-run", Usage: "remove nothing, show what would go"}),
				Exits:    []diag.Code{diag.NotFound},
				Run:      runStoreRm,
			},
			{
				Name: "prune", Summary: "delete what nothing in the store needs",
				Long: `Deletes blobs that no listed artifact needs and what interrupted commands left behind. What commands that run
now count on stays. Of files that the store refers to, only the references go.`,
				Examples: []string{"waybill store prune --dry-run", "waybill store prune --untagged"},
				Flags: dir(&ucli.BoolFlag{Name: "untagged", Usage: "also artifacts without a tag that are attached to nothing kept"},
					&ucli.DurationFlag{Name: "partial-age", Value: 24 * time.Hour, Usage: "keep downloads that broke off less than `TIME` ago"},
					&ucli.BoolFlag{Name: "dry-run", Usage: "delete nothing, show what would go"}),
				Run: runStorePrune,
			},
			{
				Name: "verify", Summary: "hash everything in the store again",
				Long: `Finds blobs that were altered or lost, and files that the store refers to and that were changed since. With
--repair, altered blobs and useless references are deleted, so that the next pull or pack brings them again. Signatures
are checked by waybill verify.`,
				Examples: []string{"waybill store verify", "waybill store verify --repair"},
				Flags:    dir(&ucli.BoolFlag{Name: "repair", Usage: "delete altered blobs, and entries whose manifest is lost"}),
				Exits:    []diag.Code{diag.Verification},
				Run:      runStoreVerify,
			},
			{
				Name: "stat", Summary: "show where the store is and how much it holds",
				Examples: []string{"waybill store stat"},
				Flags:    dir(),
				Run:      runStoreStat,
			},
			storeOwnCommand(),
		},
	}
}

// withStore runs f on the store of the call.
func withStore(ctx context.Context, c *Call, f func(s *store.Store) error) error {
	s, err := c.openStore(ctx, false)
	if diag.CodeOf(err) == diag.NotFound && c.String("store") == "" { // a local store that was never used is an empty one
		dir, derr := c.storeDir()
		if derr != nil {
			return derr
		}
		s, err = emptyStore(ctx, dir)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	return f(s)
}

type storeEntryJSON struct {
	Name         string          `json:"name"` // "" without a tag
	Digest       artifact.Digest `json:"digest"`
	MediaType    string          `json:"mediaType"`
	ArtifactType string          `json:"artifactType"`
	Bytes        int64           `json:"bytes"`          // of all that it needs
	Referred     int64           `json:"referenceBytes"` // of these, in files that the store refers to
	Evidence     int             `json:"evidence"`
}

func runStoreLs(ctx context.Context, c *Call) error {
	return withStore(ctx, c, func(s *store.Store) error {
		es, err := s.Entries(ctx)
		if err != nil {
			return err
		}
		refs, err := s.References(ctx)
		if err != nil {
			return err
		}
		outside := map[artifact.Digest]bool{}
		for _, r := range refs {
			outside[r.Digest] = true
		}
		list := []storeEntryJSON{}
		for _, e := range es {
			if e.Ref == "" && !c.Bool("all") {
				continue
			}
			b, d, err := s.Manifest(ctx, e.Digest)
			if err != nil {
				return err
			}
			doc, err := store.ParseDoc(b, d.MediaType)
			if err != nil {
				return diag.Wrap(diag.Failure, err, "read %s", e.Digest)
			}
			size, referred := d.Size, int64(0)
			for _, bl := range doc.Blobs {
				size += bl.Size
				if outside[bl.Digest] {
					referred += bl.Size
				}
			}
			refs, err := s.Referrers(ctx, e.Digest)
			if err != nil {
				return err
			}
			list = append(list, storeEntryJSON{e.Ref, e.Digest, d.MediaType, d.ArtifactType, size, referred, len(evidenceList(refs))})
		}
		if c.UI.JSON {
			return c.UI.PrintJSON(struct {
				Schema    string           `json:"schema"`
				Dir       string           `json:"dir"`
				Artifacts []storeEntryJSON `json:"artifacts"`
			}{schemaBase + "store-ls/v1", s.Dir(), list})
		}
		if len(list) == 0 {
			c.UI.Say("the store is empty: %s", s.Dir())
			return nil
		}
		rows := [][]string{{"NAME", "DIGEST", "SIZE", "EVIDENCE", "TYPE"}}
		for _, e := range list {
			name := e.Name
			if name == "" {
				name = "-"
			}
			rows = append(rows, []string{name, "sha256:" + e.Digest.Short(), ui.Bytes(e.Bytes), fmt.Sprint(e.Evidence), shortType(e.ArtifactType)})
		}
		ui.Table(c.UI.Out, true, rows)
		return nil
	})
}

// shortType names the artifact types that people meet.
func shortType(t string) string {
	switch t {
	case artifact.ArtifactType:
		return "model"
	case artifact.MediaTypeBundle:
		return "statement"
	case artifact.MediaTypeStatement:
		return "unsigned statement"
	case artifact.MediaTypeChannel:
		return "channel record"
	}
	return t
}

func runStoreRm(ctx context.Context, c *Call) error {
	return withStore(ctx, c, func(s *store.Store) error {
		type removed struct {
			Name    string            `json:"name"`
			Digest  artifact.Digest   `json:"digest"`
			Dropped []artifact.Digest `json:"dropped"` // with attached evidence
		}
		list := []removed{}
		for _, a := range c.Args {
			ref, err := registry.ParseRef(a)
			if err != nil {
				return err
			}
			if ref.Kind != registry.KindLocal {
				return diag.New(diag.Usage, "store rm: %s is not in the local store", a).Hint("waybill store ls")
			}
			p := registry.NewLocal(s, ref.Repo)
			if c.String("store") != "" && !strings.Contains(a, ":") {
				p = registry.NewLayout(s) // a layout's tags have no name in front
				ref.Tag = ref.Repo
			}
			d, err := p.Resolve(ctx, ref.Target())
			if err != nil {
				return err
			}
			out := removed{Name: a, Digest: d.Digest, Dropped: []artifact.Digest{}}
			switch {
			case c.Bool("dry-run"):
			case ref.Digest != "":
				if out.Dropped, err = s.Remove(ctx, d.Digest); err != nil {
					return err
				}
			default:
				key := ref.Repo + ":" + ref.Target()
				if ref.Tag == ref.Repo {
					key = ref.Repo
				}
				_, dropped, err := s.Untag(ctx, key)
				if err != nil {
					return err
				}
				if dropped {
					out.Dropped = append(out.Dropped, d.Digest)
				}
			}
			list = append(list, out)
		}
		if c.UI.JSON {
			return c.UI.PrintJSON(struct {
				Schema  string    `json:"schema"`
				DryRun  bool      `json:"dryRun"`
				Removed []removed `json:"removed"`
			}{schemaBase + "store-rm/v1", c.Bool("dry-run"), list})
		}
		for _, r := range list {
			c.UI.Data("%s@%s", strings.SplitN(strings.SplitN(r.Name, "@", 2)[0], ":", 2)[0], r.Digest)
		}
		return nil
	})
}

func runStorePrune(ctx context.Context, c *Call) error {
	return withStore(ctx, c, func(s *store.Store) error {
		rep, err := s.Prune(ctx, store.PruneOptions{Untagged: c.Bool("untagged"), DryRun: c.Bool("dry-run"), Partials: c.Duration("partial-age"), Now: c.Env.Now})
		if err != nil {
			return err
		}
		if c.UI.JSON {
			return c.UI.PrintJSON(struct {
				Schema string `json:"schema"`
				DryRun bool   `json:"dryRun"`
				store.PruneReport
			}{schemaBase + "store-prune/v1", c.Bool("dry-run"), rep})
		}
		verb := "freed"
		if c.Bool("dry-run") {
			verb = "would free"
		}
		c.UI.Say("%s %s: %s, %s, %s", verb, ui.Bytes(rep.Bytes), ui.Plural(len(rep.Manifests), "artifact"), ui.Plural(len(rep.Blobs), "blob"), ui.Plural(rep.Temp+rep.Partials, "temporary file"))
		if len(rep.InUse) > 0 {
			c.UI.Say("kept %s that other commands count on now", ui.Plural(len(rep.InUse), "blob"))
		}
		for _, d := range rep.Blobs {
			c.UI.Data("%s", d)
		}
		return nil
	})
}

func runStoreVerify(ctx context.Context, c *Call) error {
	return withStore(ctx, c, func(s *store.Store) error {
		u, err := s.Stat(ctx)
		if err != nil {
			u = store.Usage{} // a manifest cannot be read, which verify says better
		}
		bar := c.UI.Progress("verify", u.Bytes+u.ReferenceBytes, c.Env.Now)
		rep, err := s.Verify(ctx, c.Bool("repair"), bar.Add)
		bar.Done()
		if err != nil {
			return err
		}
		if c.UI.JSON {
			if err := c.UI.PrintJSON(struct {
				Schema string `json:"schema"`
				OK     bool   `json:"ok"`
				store.VerifyReport
			}{schemaBase + "store-verify/v1", len(rep.Problems) == 0, rep}); err != nil {
				return err
			}
		} else {
			c.UI.Say("%s in %s, %s in all", ui.Plural(rep.Manifests, "artifact"), ui.Plural(rep.Blobs, "blob"), ui.Bytes(rep.Bytes))
			for _, p := range rep.Problems {
				c.UI.Data("%s  %s", p.Digest, p.What)
				if p.Path != "" {
					c.UI.Say("  file       %s", p.Path)
				}
				if p.Got != "" {
					c.UI.Say("  it is now  %s", p.Got)
				}
				if len(p.Names) > 0 {
					c.UI.Say("  needed by  %s", strings.Join(p.Names, ", "))
				}
			}
		}
		if len(rep.Problems) == 0 {
			return nil
		}
		e := diag.New(diag.Verification, "store %s: %s", s.Dir(), ui.Plural(len(rep.Problems), "problem"))
		if !c.Bool("repair") {
			return e.Hint("waybill store verify --repair")
		}
		return e.Hint("waybill pull REF, or waybill pack, brings what is missing again")
	})
}

func runStoreStat(ctx context.Context, c *Call) error {
	return withStore(ctx, c, func(s *store.Store) error {
		u, err := s.Stat(ctx)
		if err != nil {
			return err
		}
		if c.UI.JSON {
			return c.UI.PrintJSON(struct {
				Schema string `json:"schema"`
				store.Usage
			}{schemaBase + "store-stat/v1", u})
		}
		ui.Table(c.UI.Out, false, [][]string{
			{"folder", u.Dir},
			{"tags", ui.Count(int64(u.Tags))},
			{"artifacts", ui.Count(int64(u.Manifests))},
			{"blobs", ui.Count(int64(u.Blobs)) + ", " + ui.Bytes(u.Bytes)},
			{"elsewhere", elsewhere(u)},
			{"unused", ui.Bytes(u.Unused)},
			{"free", ui.Bytes(int64(u.Free))},
		})
		return nil
	})
}

// elsewhere tells of files that the store refers to.
func elsewhere(u store.Usage) string {
	s := ui.Plural(u.References, "file") + ", " + ui.Bytes(u.ReferenceBytes)
	if u.Changed > 0 {
		s += fmt.Sprintf("; %d changed or gone (waybill store verify)", u.Changed)
	}
	return s
}
