// Package gate decides whether a digest may ship to an environment and says so in signed form: verified evidence -> facts
// -> JSON Schema -> Rego -> decision -> SLSA VSA and the full decision as statements. Denials are stated too. It holds no
// key and no connection: the consumer hands in where to read, and who signs.
package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/version"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/input"
)

// Signer signs a statement into a sigstore bundle. The gate's key does, and no other.
type Signer interface {
	Sign(context.Context, *evidence.Statement) ([]byte, error)
}

// Request is one question to the gate.
type Request struct {
	Ref          string
	Pinned       bool // Ref named the digest
	Digest       artifact.Digest
	Environment  string
	Environments *environments.Signed // verified against Trust
	Trust        *trust.Document
	Policy       Evaluator
	Now          time.Time
	TimeSource   string // host, or pinned when the user set the time
	Version      string // of this program
	// Certificates verifies bundles that hold a certificate; nil: pinned keys only.
	Certificates verify.Certificates
}

// Outcome is the decision and all that it was reached from.
type Outcome struct {
	Input       input.Input
	InputBytes  []byte // canonical
	InputDigest artifact.Digest

	Decision       decision.Decision
	DecisionBytes  []byte // canonical
	DecisionDigest artifact.Digest

	Basis    evidence.Basis
	Used     []artifact.Digest // verified bundles that speak in the input
	Chain    *evidence.Chain   // of the verdicts before this one
	Manifest artifact.Descriptor
	Policy   Evaluator
}

// Facts collects the document that Decide would evaluate.
func Facts(ctx context.Context, src facts.Source, chans facts.Channels, rq Request) (*facts.Result, error) {
	env, err := rq.Environments.Document.Facts(rq.Environment)
	if err != nil {
		return nil, err
	}
	env.Digest, env.Verified = string(rq.Environments.Bundle), true
	return facts.Collect(ctx, src, chans, facts.Request{
		Ref: rq.Ref, Pinned: rq.Pinned, Digest: rq.Digest, Trust: rq.Trust, Environment: env,
		Context:      input.Context{Time: rq.Now.UTC().Truncate(time.Second), TimeSource: rq.TimeSource, Gate: evidence.GateID, GateVersion: rq.Version, Action: "promote"},
		Certificates: rq.Certificates,
	})
}

// Decide reaches a decision. An error means that there was nothing to decide about: the artifact could not be read, or
// ctx ended. Everything else, errors of the policy included, is a denial in the outcome.
func Decide(ctx context.Context, src facts.Source, chans facts.Channels, rq Request) (*Outcome, error) {
	r, err := Facts(ctx, src, chans, rq)
	if err != nil {
		return nil, err
	}
	doc, err := r.Input.Canonical()
	if err != nil {
		return nil, err
	}
	d := rq.Policy.Evaluate(ctx, doc)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	db, err := d.Canonical()
	if err != nil {
		return nil, err
	}
	return &Outcome{
		Input: r.Input, InputBytes: doc, InputDigest: artifact.DigestOf(doc),
		Decision: d, DecisionBytes: db, DecisionDigest: artifact.DigestOf(db),
		Basis: r.Basis, Used: append(r.Used, rq.Environments.Bundle), Chain: r.Chain, Manifest: r.Manifest, Policy: rq.Policy,
	}, nil
}

// Attest signs the outcome, permission or denial alike: the full decision, and the verdict that pins it.
func (o *Outcome) Attest(ctx context.Context, s Signer) (verdict, record []byte, err error) {
	subject, name := artifact.Digest(o.Input.Artifact.Digest), o.Input.Model.Name
	st, err := evidence.NewStatement(evidence.TypeDecision, name, subject,
		evidence.Decision{Input: json.RawMessage(o.InputBytes), Decision: json.RawMessage(o.DecisionBytes), Policy: o.Policy.Bundle().Digest()})
	if err != nil {
		return nil, nil, err
	}
	if record, err = s.Sign(ctx, st); err != nil {
		return nil, nil, err
	}
	if len(record) > artifact.MaxBundle {
		return nil, nil, fmt.Errorf("the record of the decision has %d bytes, more than a bundle may have (%d)", len(record), artifact.MaxBundle)
	}
	vsa, err := o.VSA()
	if err != nil {
		return nil, nil, err
	}
	if st, err = evidence.NewStatement(evidence.TypeVSA, name, subject, vsa); err != nil {
		return nil, nil, err
	}
	if verdict, err = s.Sign(ctx, st); err != nil {
		return nil, nil, err
	}
	return verdict, record, nil
}

// VSA gives the predicate of the verdict.
func (o *Outcome) VSA() (*evidence.VSA, error) {
	env, pol := o.Input.Environment, o.Policy.Bundle()
	meta := pol.Meta()
	v := &evidence.VSA{
		Verifier:           evidence.Verifier{ID: evidence.GateID, Version: map[string]string{"waybill": o.Input.Context.GateVersion, "opa": version.Version}},
		TimeVerified:       o.Input.Context.Time,
		ResourceURI:        o.Input.Artifact.ResourceURI,
		Policy:             evidence.PolicyRef{URI: "waybill:policy/" + nameOr(meta.Name) + "@" + nameOr(meta.Version), Digest: map[string]string{"sha256": pol.Digest().Hex()}},
		InputAttestations:  []evidence.Reference{},
		VerificationResult: evidence.Failed,
		VerifiedLevels:     []string{evidence.Failed},
		SLSAVersion:        "1.0",
		Waybill: evidence.VSAExtension{
			Environment: env.Name, DeviceClasses: []string{}, NotAfter: o.notAfter(), PolicyDigest: pol.Digest(),
			InputDigest: o.InputDigest, DecisionDigest: o.DecisionDigest, Basis: o.Basis,
			Violations: decision.IDs(o.Decision.Violations), Warnings: decision.IDs(o.Decision.Warnings), Exceptions: decision.IDs(o.Decision.Exceptions),
		},
	}
	if hs := o.Chain.Heads; len(hs) > 0 {
		v.Waybill.Prev, v.Waybill.Merges = hs[0], slices.Sorted(slices.Values(hs[1:]))
	}
	v.Waybill.Missing = o.Chain.MissingDigests()
	for _, c := range env.DeviceClasses {
		v.Waybill.DeviceClasses = append(v.Waybill.DeviceClasses, c.Name)
	}
	for _, u := range slices.Compact(slices.Sorted(slices.Values(o.Used))) {
		v.InputAttestations = append(v.InputAttestations, evidence.Reference{Digest: map[string]string{"sha256": u.Hex()}})
	}
	if o.Decision.Allow {
		v.VerificationResult = evidence.Passed
		v.VerifiedLevels = []string{"WAYBILL_ENV_" + level(env.Name)}
		for _, c := range v.Waybill.DeviceClasses {
			v.VerifiedLevels = append(v.VerifiedLevels, "WAYBILL_CLASS_"+level(c))
		}
	}
	return v, nil
}

func nameOr(s string) string {
	if s == "" {
		return "unnamed"
	}
	return s
}

func level(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}

// notAfter is the environment's span from now, cut short by the first applied exception that runs out: what was waived
// until a day must not stay allowed for longer.
func (o *Outcome) notAfter() time.Time {
	now := o.Input.Context.Time
	end := now.AddDate(0, 0, o.Input.Environment.NotAfterDays)
	applied := decision.IDs(o.Decision.Exceptions)
	for _, x := range o.Input.Exceptions {
		if slices.Contains(applied, x.Rule) && x.Expires.After(now) && x.Expires.Before(end) {
			end = x.Expires
		}
	}
	return end
}
