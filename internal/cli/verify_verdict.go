package cli

import (
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/facts"
)

// verdictJSON is where an artifact stands with the gate of one environment: its newest verdict, and the chain behind it.
type verdictJSON struct {
	Environment string            `json:"environment"`
	Result      string            `json:"result"` // PASSED, FAILED; "" when there is no verdict
	Bundle      artifact.Digest   `json:"bundle"`
	At          *time.Time        `json:"at,omitempty"`
	NotAfter    *time.Time        `json:"notAfter,omitempty"`
	Policy      artifact.Digest   `json:"policyDigest"`
	Classes     []string          `json:"deviceClasses"`
	Basis       *evidence.Basis   `json:"basis,omitempty"`
	Violations  []string          `json:"violations"`
	Count       int               `json:"count"`   // of verdicts
	Missing     []artifact.Digest `json:"missing"` // named by others, not attached
	Heads       []artifact.Digest `json:"heads"`   // that no other follows, the newest first
}

// verdict wants the gate's verdict for an environment, whatever the channel's state is. What it found is told even when that
// is a refusal.
func (c *Call) verdict(bundles [][]byte, doc *trust.Document, s *subject, name string, certs verify.Certificates, out *verifyJSON) error {
	env, err := c.environment(name, doc)
	if err != nil {
		return err
	}
	uri := facts.ResourceURI(env.Namespace, s.Name)
	found, _ := verify.Verdicts(bundles, doc, verify.VSAWant{Subject: s.Desc.Digest, ResourceURI: uri, Model: s.Name, Env: name, Now: c.Env.Now(), Certificates: certs})
	out.Gate = verdictOf(name, evidence.ChainOf(found, bundles))
	p, err := publish.Admit(bundles, doc, publish.Need{
		Ref: s.Pinned(), Digest: s.Desc.Digest, Model: s.Name, Env: name, ResourceURI: uri,
		Policies: []artifact.Digest{env.Policy.Digest}, Releases: env.Signers, Certificates: certs,
	}, c.Env.Now())
	if err != nil {
		return err
	}
	out.Verdict = &p.Refs[len(p.Refs)-1].Digest
	return nil
}

func verdictOf(env string, chain *evidence.Chain) *verdictJSON {
	v := &verdictJSON{Environment: env, Classes: []string{}, Violations: []string{}, Count: len(chain.Verdicts), Missing: chain.MissingDigests(),
		Heads: append([]artifact.Digest{}, chain.Heads...)}
	if n := chain.Newest(); n != nil {
		x := n.VSA.Waybill
		v.Result, v.Bundle, v.At, v.NotAfter, v.Policy, v.Basis = n.VSA.VerificationResult, n.Bundle, &n.VSA.TimeVerified, &x.NotAfter, x.PolicyDigest, &x.Basis
		v.Classes, v.Violations = append(v.Classes, x.DeviceClasses...), append(v.Violations, x.Violations...)
	}
	return v
}

// chainText tells about the chain in a few words.
func (v *verdictJSON) chainText() string {
	t := fmt.Sprintf("%s, none missing", ui.Plural(v.Count, "verdict"))
	if n := len(v.Missing); n > 0 {
		t = fmt.Sprintf("%s, %d MISSING", ui.Plural(v.Count, "verdict"), n)
	}
	if n := len(v.Heads); n > 1 {
		t += fmt.Sprintf(", %d side by side", n)
	}
	return t
}

// printVerdict tells where the artifact stands.
func (c *Call) printVerdict(v *verdictJSON) {
	u := c.UI
	switch v.Result {
	case "":
		u.Field("verdict", "none for %s", v.Environment)
		return
	case evidence.Passed:
		u.Field("verdict", "%s for %s until %s, against %s", u.Err.Green(v.Result), v.Environment, v.NotAfter.Format(time.RFC3339), basisText(*v.Basis))
	default:
		u.Field("verdict", "%s for %s at %s: %s", u.Err.Red(v.Result), v.Environment, v.At.Format(time.RFC3339), orDash(v.Violations))
	}
	u.Field("chain", "%s", v.chainText())
}
