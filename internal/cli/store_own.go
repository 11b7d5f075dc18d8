package cli

import (
	"context"
	"slices"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

func storeOwnCommand() Command {
	return Command{
		Name: "own", Summary: "copy files that the store refers to into it",
		Args: "[REF...]", Max: -1,
		Long: `waybill pack refers to large files where they are, instead of copying them, unless the file system can share their
blocks. Before such a file is moved, changed or deleted, own takes it in: those of the artifacts named, or all.`,
		Examples: []string{"waybill store own", "waybill store own churn:1.0"},
		Flags:    []ucli.Flag{&ucli.BoolFlag{Name: "dry-run", Usage: "copy nothing, show what would be copied"}},
		Exits:    []diag.Code{diag.Verification, diag.NotFound},
		See:      []string{"pack", "store stat"},
		Run:      runStoreOwn,
	}
}

func runStoreOwn(ctx context.Context, c *Call) error {
	return withStore(ctx, c, func(s *store.Store) error {
		all, err := s.References(ctx)
		if err != nil {
			return err
		}
		if len(c.Args) > 0 {
			need := map[artifact.Digest]bool{}
			for _, a := range c.Args {
				ref, err := registry.ParseRef(a)
				if err != nil {
					return err
				}
				if ref.Kind != registry.KindLocal {
					return diag.New(diag.Usage, "store own: %s is not in the local store", a).Hint("waybill store ls")
				}
				blobs, err := blobsOf(ctx, s, ref)
				if err != nil {
					return err
				}
				for _, b := range blobs {
					need[b] = true
				}
			}
			all = slices.DeleteFunc(all, func(r store.Reference) bool { return !need[r.Digest] })
		}
		out := struct {
			Schema string            `json:"schema"`
			DryRun bool              `json:"dryRun"`
			Owned  []store.Reference `json:"owned"`
			Bytes  int64             `json:"bytes"`
		}{schemaBase + "store-own/v1", c.Bool("dry-run"), all, 0}
		for _, r := range all {
			out.Bytes += r.Size
			if !out.DryRun {
				if _, err := s.Own(ctx, r.Digest); err != nil {
					return err
				}
			}
		}
		if c.UI.JSON {
			return c.UI.PrintJSON(out)
		}
		verb := "copied"
		if out.DryRun {
			verb = "would copy"
		}
		c.UI.Say("%s %s, %s", verb, ui.Plural(len(all), "file"), ui.Bytes(out.Bytes))
		for _, r := range all {
			c.UI.Data("%s  %s", r.Digest, r.Path)
		}
		return nil
	})
}

// blobsOf lists the blobs of an artifact, of all manifests when it is an index.
func blobsOf(ctx context.Context, s *store.Store, ref registry.Ref) ([]artifact.Digest, error) {
	d, err := registry.NewLocal(s, ref.Repo).Resolve(ctx, ref.Target())
	if err != nil {
		return nil, err
	}
	var out []artifact.Digest
	todo := []artifact.Digest{d.Digest}
	for len(todo) > 0 {
		b, md, err := s.Manifest(ctx, todo[0])
		if err != nil {
			return nil, err
		}
		todo = todo[1:]
		doc, err := store.ParseDoc(b, md.MediaType)
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "read %s", md.Digest)
		}
		for _, bl := range doc.Blobs {
			out = append(out, bl.Digest)
		}
		for _, ch := range doc.Children {
			todo = append(todo, ch.Digest)
		}
	}
	return out, nil
}
