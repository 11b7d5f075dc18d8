package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

func loadCommand() Command {
	return Command{
		Name: "load", Group: Ship, Summary: "read a file made by save into the local store",
		Args: "FILE", Min: 1, Max: 1,
		Long: `The whole file is read and checked before anything enters the store: every digest, everything that a manifest needs,
nothing but files of an OCI layout, nothing after its end. Then all of it enters in one step, or nothing does. Use - to
read from stdin.

Nothing in the file is trusted by being in it. With --trust (or --trust-digest, the digest of a trust document in the
file) everything is also verified first: the trust documents follow yours version by version, environments and channel
records are signed by who may, no digest is denied, no statement altered or about another digest; with
--require-evidence every model must be released by a publisher. --papers DIR then writes trust document, environments
and policies where gate and verify find them. A channel's tag never goes back to an older record.`,
		Examples: []string{"waybill load churn.tar", "waybill load churn.tar --name candidate:1.0", "cat churn.tar | waybill load -",
			"waybill load site.tar --trust trust.signed --require-evidence --papers ."},
		Flags: []ucli.Flag{&ucli.StringFlag{Name: "name", Usage: "give the artifact that the file is about `NAME:TAG`"},
			&ucli.StringFlag{Name: "trust", Usage: "verify everything under this signed trust document `FILE` and what follows it", EnvVars: []string{"WAYBILL_TRUST"}},
			trustDigestFlag(),
			&ucli.BoolFlag{Name: "require-evidence", Usage: "refuse a model without the release of a publisher"},
			&ucli.StringFlag{Name: "papers", Usage: "write trust document, environments and policies of the file into `DIR`"},
			&ucli.BoolFlag{Name: "force", Usage: "overwrite other files in the folder of --papers"},
			dryRunFlag()},
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"save", "verify"},
		Run:   runLoad,
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
	l, err := c.inspectArchive(ctx, o)
	if err != nil {
		return err
	}
	moved, err := c.moves(ctx, s, o, ls)
	if err != nil {
		return err
	}
	papers, err := c.papersOf(l, c.String("papers"))
	if err != nil {
		return err
	}
	if !c.Bool("dry-run") {
		if err := o.Commit(ctx, ls); err != nil {
			return err
		}
		if err := c.writePapers(papers, c.String("papers")); err != nil {
			return err
		}
	}
	a := o.Holds(ls)
	if c.UI.JSON {
		return c.UI.PrintJSON(loadJSON{archiveOf("load", c.Args[0], a, c.Bool("dry-run")), l.trustVersion(), l.verified, l.failed, l.unsigned, l.records, append([]string{}, slices.Sorted(maps.Keys(papers))...)})
	}
	if c.Bool("dry-run") {
		c.UI.Say("dry run: nothing was written")
	}
	if o.Ignored > 0 {
		c.UI.Warn("%s in the file belong to no manifest; they were left out", ui.Plural(o.Ignored, "blob"))
	}
	l.report(c)
	for _, p := range slices.Sorted(maps.Keys(papers)) {
		c.UI.Field("paper", "%s", filepath.Join(c.String("papers"), p))
	}
	for _, m := range moved {
		c.UI.Field("moved", "%s", m)
	}
	c.UI.Field("loaded", "%s, %s", contents(a), ui.Bytes(a.Bytes))
	c.printArtifacts(a, o.Main())
	return nil
}

// loadJSON is what load prints. TrustVersion is 0 when nobody's signature was asked.
type loadJSON struct {
	archiveJSON
	TrustVersion int            `json:"trustVersion"`
	Verified     []verifiedJSON `json:"verified"`
	Failed       []failedJSON   `json:"failed"`
	Unsigned     int            `json:"unsigned"`
	Records      int            `json:"channelRecords"`
	Papers       []string       `json:"papers"`
}

// moves tells which names of the store would change, and binds the change to where they are now. Tags that never move
// (records, trust documents) must not, and a channel's tag does not go back. s is nil when there is no store yet.
func (c *Call) moves(ctx context.Context, s *store.Store, o *registry.Opened, ls []store.Listing) ([]string, error) {
	var out []string
	for i, l := range ls {
		if l.Ref == "" {
			continue
		}
		var now artifact.Descriptor
		if s != nil {
			var err error
			if now, err = s.Resolve(ctx, l.Ref); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		ls[i].Expect = &now.Digest
		if now.Digest == "" || now.Digest == l.Digest {
			continue
		}
		_, tag, _ := strings.Cut(l.Ref, ":")
		switch doc, _ := o.Doc(l.Digest); doc.Descriptor.ArtifactType {
		case publish.MediaTypeTrust:
			return nil, diag.New(diag.Verification, "load: the store has another trust document as %s", l.Ref).Hint("waybill load FILE --name OTHER:TAG")
		case artifact.MediaTypeChannel:
			back, err := c.older(ctx, s, o, l, now.Digest)
			if err != nil {
				return nil, err
			}
			if _, moving := channelTag(tag); !moving {
				return nil, diag.New(diag.Verification, "load: the store has another record as %s: the channel was forked", l.Ref)
			}
			if back {
				c.UI.Warn("%s stays where it is: the store has a newer record of this channel", l.Ref)
				ls[i].Ref, ls[i].Expect = "", nil
				continue
			}
		}
		out = append(out, fmt.Sprintf("%s  was sha256:%s, is sha256:%s", l.Ref, now.Digest.Short(), l.Digest.Short()))
	}
	return out, nil
}

// older tells whether the record in the archive is older than that of the store.
func (c *Call) older(ctx context.Context, s *store.Store, o *registry.Opened, l store.Listing, now artifact.Digest) (bool, error) {
	theirs, _, err := o.Manifest(ctx, l.Digest)
	if err != nil {
		return false, err
	}
	ours, _, err := s.Manifest(ctx, now)
	if err != nil {
		return false, err
	}
	_, a, err := recordIn(ctx, o, theirs)
	if err != nil {
		return false, diag.Wrap(diag.Verification, err, "load: %s", l.Ref)
	}
	_, b, err := recordIn(ctx, s, ours)
	if err != nil {
		return false, diag.Wrap(diag.Verification, err, "load: %s in the store", l.Ref)
	}
	return a.Seq < b.Seq, nil
}

func (l *arrived) trustVersion() int {
	if l.doc == nil {
		return 0
	}
	return l.doc.Version
}
