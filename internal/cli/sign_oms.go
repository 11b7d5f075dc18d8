package cli

import (
	"context"
	"path"
	"slices"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/oms"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

func omsFlag() ucli.Flag {
	return &ucli.BoolFlag{Name: "oms", Usage: "sign the list of files too, as OpenSSF Model Signing v1.0 (ECDSA keys only)"}
}

type omsSignJSON struct {
	statementJSON
	OMS   artifact.Digest `json:"oms,omitempty"` // bundle over the list of files; absent in a dry run
	Root  artifact.Digest `json:"root"`          // OMS's subject: hash over the digests of the files
	Files int             `json:"files"`
}

// signOMS signs the release and the list of files. Both come from the manifest: no blob is read, not even the config, so
// that the name in them is that of the repository. Only a key whose scope names models makes it look into the config.
func (c *Call) signOMS(ctx context.Context) error {
	if c.String("key") == "" {
		return diag.New(diag.Usage, "--oms signs with a key: --key is missing").Hint("waybill sign %s --oms --key publisher.key", c.Args[0])
	}
	k, err := c.key(ctx, trust.RolePublisher)
	if err != nil {
		return err
	}
	if err := k.CheckOMS(); err != nil {
		return err
	}
	s, err := c.listed(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	doc, err := c.trustAtHand()
	if err != nil {
		return err
	}
	if s.Ref.Kind == registry.KindLocal { // nothing is downloaded, and the name is better known
		if err := s.read(ctx); err != nil {
			return err
		}
	}
	notes, err := c.notes(ctx, s)
	if err != nil {
		return err
	}
	if doc != nil {
		if e, ok := doc.Lookup(k.KeyID()); ok && !slices.Contains(e.Scope.Models, "*") {
			if err := s.read(ctx); err != nil { // a scope goes by the model's name, which only the config tells
				return err
			}
		}
		for _, typ := range []string{evidence.TypeRelease, evidence.TypeOMS} {
			if err := c.ready(doc, k, typ, s.Name, ""); err != nil {
				return err
			}
		}
	}
	st, err := oms.New(s.Name, s.Model.Layers)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "sign the files of %s", s.Pinned())
	}
	out := omsSignJSON{
		statementJSON: statementJSON{
			Schema: schemaBase + "sign/v1", Ref: s.Pinned(), Subject: s.Desc.Digest, Model: s.Name,
			PredicateType: evidence.TypeRelease, KeyID: k.KeyID(), Role: k.Role(),
		},
		Root: st.SubjectDigest(), Files: len(s.Model.Layers),
	}
	if c.Bool("dry-run") {
		c.UI.Say("dry run: nothing was written")
	} else if err := s.attachOMS(ctx, k, st, &out); err != nil {
		return err
	} else if err := c.signNotes(ctx, doc, k, s, notes); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.UI.Field("model", "%s", s.Name)
	c.UI.Field("files", "%d, root %s", out.Files, out.Root)
	c.UI.Field("signed by", "%s key %s", k.Role(), k.KeyID()[:12])
	if out.OMS != "" {
		c.UI.Field("attached", "%s (release), %s (files)", out.Bundle.Short(), out.OMS.Short())
	}
	c.UI.Data("%s", s.Pinned())
	return nil
}

// attachOMS signs both before it writes either. It does not look for older bundles that say the same: those are blobs.
func (s *subject) attachOMS(ctx context.Context, k *sign.Key, st *evidence.Statement, out *omsSignJSON) error {
	rel, err := evidence.NewStatement(evidence.TypeRelease, s.Name, s.Desc.Digest, struct{}{})
	if err != nil {
		return diag.Wrap(diag.Usage, err, "make the statement")
	}
	release, err := k.Sign(ctx, rel)
	if err != nil {
		return err
	}
	list, err := k.SignOMS(ctx, st)
	if err != nil {
		return err
	}
	if _, err := s.Place.Attach(ctx, s.Desc, release, evidence.TypeRelease); err != nil {
		return err
	}
	out.Bundle = artifact.DigestOf(release)
	if _, err := s.Place.Attach(ctx, s.Desc, list, evidence.TypeOMS); err != nil {
		return err
	}
	out.OMS = artifact.DigestOf(list)
	return nil
}

// listed is subject without reading the config: name and version stand there, so the name is the repository's last part.
func (c *Call) listed(ctx context.Context, arg string) (*subject, error) {
	ref, p, err := c.repository(ctx, arg)
	if err != nil {
		return nil, err
	}
	s := &subject{Ref: ref, Place: p, Name: path.Base(repoPath(ref))}
	d, err := p.Resolve(ctx, ref.Target())
	if err == nil {
		var raw []byte
		if raw, s.Desc, err = p.Manifest(ctx, d.Digest); err == nil {
			s.Model, err = verify.Manifest(raw, s.Desc.Digest)
		}
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return s, nil
}
