package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

func verifyCommand() Command {
	return Command{
		Name: "verify", Group: Trust, Summary: "verify content and evidence of an artifact against the trust document",
		Args: "REF", Min: 1, Max: 1,
		Long: `Reads every file of the artifact and compares its digest, then verifies every statement attached to it against the
trust document: signature, role, scope, subject, type and time. It fails (exit code 3) unless a publisher has released
this digest, and unless as many different signers as the rules of the trust document, and --require, ask for have signed
each type. With --env it also demands a passing, unexpired verdict of the gate for that environment (else exit
code 4). Nothing is asked of a network but the artifact itself.

For each statement it says who signed it, when and by whose word: "claimed" is the signer's own, "none" is that it names no
time. Only a timestamp that an authority signed proves one.`,
		Examples: []string{
			"waybill verify reg.example/ml/churn@sha256:...",
			"waybill verify churn:1.0 --trust trust.signed --env prod",
			"waybill verify churn:1.0 --require evaluation --require approval=2 --output json",
		},
		Flags: append(trustFlags(), environmentsFlag(),
			&ucli.StringFlag{Name: "env", Usage: "demand a verdict for environment `ENV` too"},
			&ucli.StringSliceFlag{Name: "require", Usage: "demand a statement of `TYPE`, or TYPE=N of N different signers; may be repeated"},
			&ucli.BoolFlag{Name: "no-content", Usage: "verify statements only, do not read the files"},
		),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:   []string{"trust show", "sign", "gate", "audit"},
		Run:   runVerify,
	}
}

type verifyJSON struct {
	Schema   string           `json:"schema"`
	Ref      string           `json:"ref"`
	Subject  artifact.Digest  `json:"subject"`
	Model    string           `json:"model"`
	Version  string           `json:"version"`
	OK       bool             `json:"ok"`
	Trust    int              `json:"trustVersion"`
	Files    int              `json:"files"`
	Verified []verifiedJSON   `json:"verified"`
	Failed   []failedJSON     `json:"failed"`
	Verdict  *artifact.Digest `json:"verdict,omitempty"` // that allows it, with --env
	Gate     *verdictJSON     `json:"gate,omitempty"`    // where it stands, with --env
	Demands  []demandJSON     `json:"demands"`
	Reason   verify.Reason    `json:"reason,omitempty"` // why not ok; empty when ok, or for a denial by the policy
}

type verifiedJSON struct {
	PredicateType string          `json:"predicateType"`
	Bundle        artifact.Digest `json:"bundle"`
	KeyID         string          `json:"keyId"`
	KeyName       string          `json:"keyName"`
	Role          trust.Role      `json:"role"`
	Says          string          `json:"says"` // in short: "PASSED for prod", "as ml-lead"; "" where the type says it all

	At         *time.Time        `json:"at,omitempty"` // when it was said; absent with timeSource none
	TimeSource verify.TimeSource `json:"timeSource"`   // none, claimed, rfc3161, log

	Certificate *certificateJSON `json:"certificate,omitempty"` // of a signature without a key
}

// says tells in a few words what a verified statement says: a denial is as well signed as a pass.
func says(e verify.Evidence) string {
	switch e.PredicateType {
	case evidence.TypeVSA:
		if v, err := evidence.ParseVSA(e.Predicate); err == nil {
			return v.VerificationResult + " for " + v.Waybill.Environment
		}
	case evidence.TypeApproval:
		if a, err := evidence.ParseApproval(e.Predicate); err == nil {
			return "as " + a.Role
		}
	case evidence.TypeException:
		if x, err := evidence.ParseException(e.Predicate); err == nil {
			return "to " + x.Rule
		}
	case evidence.TypeStatus:
		if s, err := evidence.ParseStatus(e.Predicate); err == nil {
			return s.State + " on " + s.Device[:12]
		}
	case evidence.TypeDeployment:
		if d, err := evidence.ParseDeployment(e.Predicate); err == nil {
			return d.Action + " to " + d.Target
		}
	}
	return ""
}

type failedJSON struct {
	PredicateType string          `json:"predicateType"` // claimed
	Bundle        artifact.Digest `json:"bundle"`
	KeyID         string          `json:"keyId"` // claimed; "" when it was not read
	Reason        verify.Reason   `json:"reason"`
	Text          string          `json:"text"`
}

func runVerify(ctx context.Context, c *Call) error {
	doc, _, err := c.trustFile()
	if err != nil {
		return err
	}
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	s, err := c.subject(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	out := verifyJSON{
		Schema: schemaBase + "verify/v1", Ref: s.Pinned(), Subject: s.Desc.Digest, Model: s.Name, Version: s.Version, Trust: doc.Version,
		Verified: []verifiedJSON{}, Failed: []failedJSON{}, Demands: []demandJSON{},
	}
	asked, err := c.required()
	if err != nil {
		return err
	}
	if !c.Bool("no-content") {
		if out.Files, err = c.content(ctx, s); err != nil {
			if diag.CodeOf(err) != diag.Verification {
				return err
			}
			out.Reason = verify.Altered
			return c.endVerify(out, err)
		}
	}
	bundles, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return err
	}
	// Where an approver or the gate may say something is asked with --env; here it matters who said it.
	ok, failed := verify.All(bundles, doc, verify.Want{Subject: s.Desc.Digest, Layers: s.Model.Layers, Model: s.Name, AnyScope: true, Now: c.Env.Now(), Certificates: certs})
	for _, e := range ok {
		out.Verified = append(out.Verified, verifiedOf(e))
	}
	for _, f := range failed {
		out.Failed = append(out.Failed, failedOf(f))
	}
	refusal := released(bundles, doc, s, c, certs)
	if refusal != nil {
		refusal = noteLegacy(ctx, s, refusal)
	}
	if unmet := c.demands(&out, ok, doc, s, asked); refusal == nil {
		refusal = unmet
	}
	if env := c.String("env"); env != "" && refusal == nil {
		refusal = c.verdict(bundles, doc, s, env, certs, &out)
	}
	out.OK, out.Reason = refusal == nil, verify.ReasonOf(refusal)
	return c.endVerify(out, refusal)
}

// endVerify prints what was found, also about what is refused.
func (c *Call) endVerify(out verifyJSON, refusal error) error {
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
		return refusal
	}
	c.printVerified(out)
	if refusal != nil {
		return refusal
	}
	c.UI.Data("%s", out.Ref)
	return nil
}

func (c *Call) printVerified(out verifyJSON) {
	c.UI.Field("model", "%s %s", out.Model, out.Version)
	if out.Files > 0 {
		c.UI.Field("content", "%s, every digest right", ui.Plural(out.Files, "file"))
	}
	for _, v := range out.Verified {
		c.UI.Field(c.UI.Err.Green("proven"), "%-12s %s  by %s  %s  %s", evidence.NameOf(v.PredicateType), v.Bundle.Short(), v.who(), whenSaid(v), v.Says)
	}
	for _, f := range out.Failed {
		c.UI.Field(c.UI.Err.Red("refused"), "%-12s %s  %s", evidence.NameOf(f.PredicateType), f.Bundle.Short(), f.Text)
	}
	for _, d := range out.Demands {
		met := c.UI.Err.Green("met")
		if !d.Met {
			met = c.UI.Err.Red("not met")
		}
		c.UI.Field("demand", "%s: %d of %d signers, %s", evidence.NameOf(d.PredicateType), len(d.Signers), d.Require, met)
	}
	if out.Gate != nil {
		c.printVerdict(out.Gate)
	}
}

// content reads every file of the artifact and its config; the reader compares size and digest.
func (c *Call) content(ctx context.Context, s *subject) (int, error) {
	var total int64
	for _, l := range s.Model.Layers {
		total += l.Size
	}
	bar := c.UI.Progress("verify", total, c.Env.Now)
	defer bar.Done()
	for i, l := range s.Model.Layers {
		rc, err := s.Place.Blob(ctx, s.Model.Manifest.Layers[i])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", l.Path, err)
		}
		n, err := io.Copy(io.Discard, rc)
		if cerr := rc.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", l.Path, err)
		}
		bar.Add(n)
	}
	return len(s.Model.Layers), nil
}
