package cli

import (
	"context"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/source"
)

func policyPushCommand() Command {
	return Command{
		Name: "push", Summary: "bring a policy and its signatures to a registry", Args: "POLICY DEST", Min: 2, Max: 2,
		Long: `POLICY is an artifact (governance:2.3 in the local store, layout:PATH, a registry's), a folder, a tar, or builtin. It is
compiled first. With --key a policy key signs it on the way: that these rules are yours. The tag comes last, so that who
sees it finds the signatures too; without a tag DEST gets the policy's version. Pushing again completes what broke off.`,
		Examples: []string{
			"waybill policy push governance:2.3 reg.example/policies/governance:2.3",
			"waybill policy push ./policy reg.example/policies/governance --key policy.key",
		},
		Flags: placeFlags(transferFlags(
			&ucli.StringFlag{Name: "key", Aliases: []string{"k"}, Usage: "sign with this key `FILE` of a policy owner, or the URI of its key in a KMS or token"},
			trustAtHandFlag(), trustDigestFlag(),
			&ucli.BoolFlag{Name: "dry-run", Usage: "send nothing, show what would be sent"})...),
		See:   []string{"policy pack", "sign", "policy pull"},
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound}, Run: runPolicyPush,
	}
}

type policyPushJSON struct {
	Schema    string          `json:"schema"`
	Ref       string          `json:"ref"` // destination, by digest
	Tag       string          `json:"tag"`
	Digest    artifact.Digest `json:"digest"`   // of the policy
	Manifest  artifact.Digest `json:"manifest"` // of the artifact
	Name      string          `json:"name"`
	Version   string          `json:"version"`
	Rules     int             `json:"rules"`
	Referrers []evidenceJSON  `json:"evidence"`
	Signed    artifact.Digest `json:"signed,omitempty"` // the bundle that --key made
	KeyID     string          `json:"keyId,omitempty"`
	DryRun    bool            `json:"dryRun"`
}

func runPolicyPush(ctx context.Context, c *Call) error {
	dst, err := registry.ParseRef(c.Args[1])
	if err != nil {
		return err
	}
	if dst.Digest != "" {
		return diag.New(diag.Usage, "policy push: a digest cannot be chosen at the destination").Hint("waybill policy push %s %s", c.Args[0], dst.Name())
	}
	p, err := c.openPolicyAt(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer p.Close()
	rules, err := c.rulesOf(ctx, p.Bundle)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "%s", p.named())
	}
	if dst.Tag == "" {
		if dst.Tag = p.Bundle.Meta().Version; dst.Tag == "" {
			return diag.New(diag.Usage, "policy push: the policy has no version that could be the tag").Hint("waybill policy push %s %s:1.0", c.Args[0], dst.Name())
		}
	}
	var key author
	if c.String("key") != "" {
		if key, err = c.policyAuthor(ctx, p); err != nil {
			return err
		}
	}
	out := policyPushJSON{Schema: schemaBase + "policy-push/v1", Ref: dst.WithDigest(p.Desc.Digest).String(), Tag: dst.Tag, Digest: p.Bundle.Digest(), Manifest: p.Desc.Digest,
		Name: p.Bundle.Meta().Name, Version: p.Bundle.Meta().Version, Rules: len(rules), Referrers: []evidenceJSON{}, DryRun: c.Bool("dry-run")}
	if err := c.pushPolicy(ctx, p, dst, key, &out); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.sayPolicy(p.Bundle, p.Desc.Digest, out.Rules)
	if out.DryRun {
		c.UI.Say("dry run: nothing was sent to %s", dst)
	} else {
		c.UI.Field("evidence", "%s attached", ui.Plural(len(out.Referrers), "statement"))
	}
	c.UI.Data("%s", out.Ref)
	return nil
}

// pushPolicy copies the artifact with what is attached to it, or makes it of the files, signs it, and tags it last.
func (c *Call) pushPolicy(ctx context.Context, p *openedPolicy, dst registry.Ref, key author, out *policyPushJSON) error {
	place, err := c.openPlace(ctx, dst, !out.DryRun)
	if err != nil {
		return err
	}
	defer place.Close()
	if out.DryRun {
		return nil
	}
	if p.Place != nil {
		bar := c.UI.Progress("push", 0, c.Env.Now)
		_, err := registry.Copy(ctx, place.Place, p.Place.Place, string(p.Desc.Digest), registry.CopyOptions{Jobs: c.Int("jobs"), Bytes: bar.Add})
		bar.Done()
		if err != nil {
			return c.again(ctx, err)
		}
	} else {
		if _, err := source.Write(ctx, place, p.Bundle, ""); err != nil {
			return err
		}
		bundles, err := c.sidecar(p.path)
		if err != nil {
			return err
		}
		for _, raw := range bundles {
			if _, err := place.Attach(ctx, p.Desc, raw, evidence.TypePolicy); err != nil {
				return err
			}
		}
	}
	if key != nil {
		s := policySubject(p)
		s.Ref, s.Place = dst, place
		if out.Signed, err = c.signPolicyAt(ctx, s, key, p); err != nil {
			return err
		}
		out.KeyID = key.KeyID()
	}
	refs, err := place.Referrers(ctx, p.Desc.Digest)
	if err != nil {
		return err
	}
	out.Referrers = evidenceList(refs)
	raw, _, err := place.Manifest(ctx, p.Desc.Digest)
	if err != nil {
		return err
	}
	_, err = place.PushManifest(ctx, raw, artifact.MediaTypeManifest, dst.Tag)
	return err
}

// policySubject is the policy as something that is signed.
func policySubject(p *openedPolicy) *subject {
	m := p.Bundle.Meta()
	return &subject{Ref: p.Ref, Place: p.Place, Desc: p.Desc, Name: source.ScopeOf(m.Name), Version: m.Version}
}

// policyAuthor opens the key, or with --keyless the identity, that signs a policy, and refuses one whose word would not count.
func (c *Call) policyAuthor(ctx context.Context, p *openedPolicy) (author, error) {
	if _, err := source.Statement(p.Bundle); err != nil {
		return nil, err
	}
	k, err := c.author(ctx, trust.RolePolicy)
	if err != nil {
		return nil, err
	}
	doc, err := c.trustAtHand()
	if err != nil {
		return nil, err
	}
	if _, ok := k.(*guest); ok {
		return k, nil
	}
	return k, c.ready(doc, k, evidence.TypePolicy, source.ScopeOf(p.Bundle.Meta().Name), "")
}

func (c *Call) signPolicyAt(ctx context.Context, s *subject, k author, p *openedPolicy) (artifact.Digest, error) {
	st, err := source.Statement(p.Bundle)
	if err != nil {
		return "", err
	}
	return s.attach(ctx, k, evidence.TypePolicy, st.Predicate)
}

// signPolicy is sign for a policy artifact.
func (c *Call) signPolicy(ctx context.Context, p *openedPolicy) error {
	if c.Bool("oms") {
		return diag.New(diag.Usage, "sign: --oms lists the files of a model, %s is a policy", c.Args[0]).Hint("waybill sign %s --key policy.key", c.Args[0])
	}
	k, err := c.policyAuthor(ctx, p)
	if err != nil {
		return err
	}
	s := policySubject(p)
	if c.Bool("dry-run") {
		st, err := source.Statement(p.Bundle)
		if err != nil {
			return err
		}
		return c.printDry("sign", s, k, st)
	}
	b, err := c.signPolicyAt(ctx, s, k, p)
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.printAttached("sign", s, k, evidence.TypePolicy, b)
	}
	m := p.Bundle.Meta()
	c.UI.Field("policy", "%s %s", m.Name, m.Version)
	c.UI.Field("digest", "%s", p.Bundle.Digest())
	c.UI.Field("signed by", "%s", signedBy(k))
	c.UI.Field("attached", "%s", b)
	c.UI.Data("%s", s.Pinned())
	return nil
}

// asPolicy opens the argument of sign when it is a policy artifact, else gives nil. It looks only when a policy key is about to
// sign or the role is not known yet: a model costs no request more.
func (c *Call) asPolicy(ctx context.Context, arg string) (*openedPolicy, error) {
	if !c.Bool("keyless") && !c.isPolicyKey(c.String("key")) {
		return nil, nil
	}
	ref, place, err := c.repository(ctx, arg)
	if err != nil {
		return nil, err
	}
	p := &openedPolicy{Ref: ref, Place: place, path: arg}
	d, err := place.Resolve(ctx, ref.Target())
	if err == nil {
		var typ string
		if typ, err = artifactType(ctx, place, d.Digest); err == nil && typ != policyArtifactType {
			p.Close()
			return nil, nil
		}
	}
	if err == nil {
		var a *source.Artifact
		if a, err = source.Read(ctx, place, string(d.Digest), ""); err == nil {
			p.Bundle, p.Desc = a.Bundle, a.Descriptor
			return p, nil
		}
	}
	p.Close()
	return nil, err
}
