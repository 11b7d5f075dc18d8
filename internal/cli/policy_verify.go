package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/lint"
	"github.com/waybill-ml/waybill/policy/source"
)

func policyVerifyCommand() Command {
	return Command{
		Name: "verify", Summary: "verify a policy: form, signature, pin, and that the gate can apply it", Args: "POLICY", Min: 1, Max: 1,
		Long: `POLICY is a reference, a folder, a tar, or builtin. In this order: it is in canonical form, with the manifest that its files
give; a policy key of the trust document whose scope covers policy/NAME has signed it (the builtin one is part of this
program and needs none); it is pinned, by --digest, by the trust document, or by an environment of the signed
environments; it compiles with the capabilities of the gate, and lint finds no error. What fails gives exit code 3 and the reason.

Statements about a folder are read from policy.sigstore.jsonl in it, about a tar from FILE.sigstore.jsonl, as
policy pull --out writes them, else from the local store.`,
		Examples: []string{
			"waybill policy verify reg.example/policies/governance:2.3",
			"waybill policy verify ./policy --env prod",
			"waybill policy verify governance:2.3 --digest sha256:91ab... --output json",
		},
		Flags: append(trustFlags(), environmentsFlag(),
			&ucli.StringFlag{Name: "env", Usage: "environment `ENV` must pin it"},
			&ucli.StringFlag{Name: "digest", Usage: "it must have this policy `DIGEST`, which counts as a pin"}),
		See:   []string{"policy push", "trust show", "env show"},
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound}, Run: runPolicyVerify,
	}
}

type policyVerifyJSON struct {
	Schema   string           `json:"schema"`
	Ref      string           `json:"ref"`
	Name     string           `json:"name"`
	Version  string           `json:"version"`
	Digest   artifact.Digest  `json:"digest"`
	Manifest artifact.Digest  `json:"manifest"`
	OK       bool             `json:"ok"`
	Reason   source.Reason    `json:"reason,omitempty"` // why not
	Trust    int              `json:"trustVersion"`
	Verified []verifiedJSON   `json:"verified"`
	PinnedBy []string         `json:"pinnedBy"`
	Rules    int              `json:"rules"` // 0: it was not compiled
	Lint     *policyLintCount `json:"lint,omitempty"`
}

// policyLintCount are findings that are not suppressed.
type policyLintCount struct {
	Errors   int `json:"errors"`
	Warnings int `json:"warnings"`
}

// More reasons of policy verify.
const (
	policyUnpinned source.Reason = "unpinned"
	policyUnusable source.Reason = "does-not-compile"
	policyDenied   source.Reason = "denied"
	policyOpen     source.Reason = "lint"
)

// policyRefusal is a refusal of this verb with its reason.
type policyRefusal struct {
	reason source.Reason
	error
}

func (e *policyRefusal) Unwrap() error { return e.error }

func runPolicyVerify(ctx context.Context, c *Call) error {
	doc, err := c.loadTrust()
	if err != nil {
		return err
	}
	out := policyVerifyJSON{Schema: schemaBase + "policy-verify/v1", Ref: c.Args[0], Trust: doc.Version, Verified: []verifiedJSON{}, PinnedBy: []string{}}
	p, err := c.openPolicyAt(ctx, c.Args[0])
	if source.ReasonOf(err) != "" {
		return c.endPolicyVerify(&out, err)
	}
	if err != nil {
		return err
	}
	defer p.Close()
	m := p.Bundle.Meta()
	out.Ref, out.Name, out.Version, out.Digest, out.Manifest = p.named(), m.Name, m.Version, p.Bundle.Digest(), p.Desc.Digest
	return c.endPolicyVerify(&out, c.judgePolicy(ctx, p, doc, &out))
}

func (c *Call) judgePolicy(ctx context.Context, p *openedPolicy, doc *trust.Document, out *policyVerifyJSON) error {
	if err := deniedPolicy(p, doc); err != nil {
		return err
	}
	if c.Args[0] != source.Builtin {
		ok, err := c.policySigned(ctx, p, doc)
		for _, e := range ok {
			out.Verified = append(out.Verified, verifiedOf(e))
		}
		if err != nil {
			return err
		}
	}
	if err := c.policyPins(p, doc, out); err != nil {
		return err
	}
	rules, err := c.rulesOf(ctx, p.Bundle)
	if err != nil {
		return &policyRefusal{policyUnusable, diag.Wrap(diag.Verification, err, "the gate cannot apply %s", p.named())}
	}
	out.Rules = len(rules)
	files := lint.Files{}
	for _, n := range p.Bundle.Names() {
		files[n], _ = p.Bundle.File(n)
	}
	found, err := lint.Run(files, lint.Options{Schema: input.SchemaJSON()})
	if err != nil {
		return &policyRefusal{policyOpen, diag.Wrap(diag.Verification, err, "lint of %s", p.named())}
	}
	errs, warnings, _ := lint.Count(found)
	out.Lint = &policyLintCount{errs, warnings}
	if errs == 0 {
		return nil
	}
	e := diag.New(diag.Verification, "%s may let pass what it should deny: lint finds %s", p.named(), ui.Plural(errs, "error"))
	for _, f := range found {
		if f.Severity == lint.Error && !f.Suppressed {
			_ = e.Line("%s:%d: %s %s", f.File, f.Line, f.Code, f.Message)
		}
	}
	return &policyRefusal{policyOpen, e.Hint("waybill policy pull %s --out DIR, then waybill policy lint DIR", c.Args[0])}
}

// deniedPolicy refuses a policy that the trust document has taken back, by either of its digests.
func deniedPolicy(p *openedPolicy, doc *trust.Document) error {
	for _, d := range []artifact.Digest{p.Bundle.Digest(), p.Desc.Digest} {
		if doc.IsDenied(d) {
			return &policyRefusal{policyDenied, diag.New(diag.Verification, "trust document version %d denies policy %s", doc.Version, d)}
		}
	}
	return nil
}

// policySigned demands the word of a policy key, from what is attached, what lies beside the files, or what the local store has.
func (c *Call) policySigned(ctx context.Context, p *openedPolicy, doc *trust.Document) ([]verify.Evidence, error) {
	certs, err := c.certificates()
	if err != nil {
		return nil, err
	}
	bundles, err := p.bundles(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(bundles) == 0 && p.Place == nil {
		if bundles, err = c.storedSignatures(ctx, p.Desc.Digest); err != nil {
			return nil, err
		}
	}
	ok, err := source.Signed(p.Bundle, bundles, doc, c.Env.Now(), certs)
	if err != nil {
		e := diag.Wrap(diag.CodeOf(err), err, "%s", p.named())
		if p.Place == nil { // a folder or file is signed as an artifact; the local store keeps the signature
			return nil, e.Hint("waybill policy pack %s --tag NAME:1", p.named()).Hint("waybill sign NAME:1 --key policy.key")
		}
		return nil, e.Hint("waybill sign %s --key policy.key", p.named())
	}
	return ok, nil
}

// storedSignatures are the statements about a manifest that the local store has.
func (c *Call) storedSignatures(ctx context.Context, manifest artifact.Digest) ([][]byte, error) {
	place, err := c.place(ctx, registry.Ref{Kind: registry.KindLocal, Repo: "policy"})
	if err != nil {
		return nil, err
	}
	defer place.Close()
	o := &openedPolicy{Place: place, Desc: artifact.Descriptor{Digest: manifest}}
	return o.bundles(ctx, c)
}

// policyPins finds who pins the policy.
func (c *Call) policyPins(p *openedPolicy, doc *trust.Document, out *policyVerifyJSON) error {
	d := p.Bundle.Digest()
	if s := c.String("digest"); s != "" {
		want, err := artifact.ParseDigest(s)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "--digest")
		}
		if want != d {
			return &policyRefusal{source.WrongDigest, diag.New(diag.Verification, "%s is policy %s, not %s", p.named(), d, want)}
		}
		out.PinnedBy = append(out.PinnedBy, "--digest")
	}
	if slices.Contains(doc.Policies, d) {
		out.PinnedBy = append(out.PinnedBy, fmt.Sprintf("trust document version %d", doc.Version))
	}
	s, err := c.loadEnvironments(doc)
	if diag.CodeOf(err) == diag.NotFound && !c.IsSet("environments") && c.String("env") == "" {
		s, err = nil, nil
	}
	if err != nil {
		return err
	}
	if s != nil {
		for _, name := range s.Document.Names() {
			pin := s.Document.Environments[name].Policy.Digest
			if pin == d {
				out.PinnedBy = append(out.PinnedBy, "environment "+name)
			} else if name == c.String("env") {
				return &policyRefusal{source.WrongDigest, diag.New(diag.Verification, "environment %s pins policy %s; %s is %s", name, pin, p.named(), d)}
			}
		}
	}
	if len(out.PinnedBy) > 0 {
		return nil
	}
	return &policyRefusal{policyUnpinned, diag.New(diag.Verification, "nothing pins policy %s: neither trust document version %d nor an environment", d, doc.Version).
		Hint("waybill policy verify %s --digest %s", c.Args[0], d).Hint("waybill trust add trust.yaml --policy %s", d)}
}

// endPolicyVerify prints what was found, also about what is refused.
func (c *Call) endPolicyVerify(out *policyVerifyJSON, refusal error) error {
	out.OK = refusal == nil
	var r *policyRefusal
	switch {
	case refusal == nil:
	case errors.As(refusal, &r):
		out.Reason = r.reason
	default:
		if out.Reason = source.ReasonOf(refusal); out.Reason == "" {
			return refusal // nothing was judged: it could not be read
		}
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
		return refusal
	}
	if out.Digest != "" {
		c.UI.Field("policy", "%s %s", nameOrNone(out.Name), out.Version)
		c.UI.Field("digest", "%s", out.Digest)
		c.UI.Field("manifest", "%s", out.Manifest)
	}
	for _, v := range out.Verified {
		c.UI.Field(c.UI.Err.Green("proven"), "%-12s %s  by %s", evidence.NameOf(v.PredicateType), v.Bundle.Short(), v.who())
	}
	if refusal != nil {
		return refusal
	}
	c.UI.Field("pinned by", "%s", strings.Join(out.PinnedBy, ", "))
	c.UI.Field("compiles", "%s; lint: no error, %s", ui.Plural(out.Rules, "rule"), ui.Plural(out.Lint.Warnings, "warning"))
	c.UI.Data("%s", out.Ref)
	return nil
}
