// Package gate decides whether a digest may ship to an environment and says so in signed form: verified evidence -> facts
// -> JSON Schema -> Rego -> decision -> SLSA VSA and the full decision as statements. Denials are stated too. It holds no
// key and no connection: the consumer hands in where to read, and who signs.
package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

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
	d, db, err := evaluate(ctx, rq.Policy, doc)
	if err != nil {
		return nil, err
	}
	return &Outcome{
		Input: r.Input, InputBytes: doc, InputDigest: artifact.DigestOf(doc),
		Decision: d, DecisionBytes: db, DecisionDigest: artifact.DigestOf(db),
		Basis: r.Basis, Used: append(r.Used, rq.Environments.Bundle), Chain: r.Chain, Manifest: r.Manifest, Policy: rq.Policy,
	}, nil
}

// evaluate gives a decision and its canonical bytes, small enough to be recorded whatever the evaluator says.
func evaluate(ctx context.Context, p Evaluator, doc []byte) (decision.Decision, []byte, error) {
	d := p.Evaluate(ctx, doc).Within(decision.MaxBytes)
	if err := ctx.Err(); err != nil {
		return decision.Decision{}, nil, err
	}
	b, err := d.Canonical()
	return d, b, err
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
	if len(verdict) > artifact.MaxBundle {
		return nil, nil, fmt.Errorf("the verdict has %d bytes, more than a bundle may have (%d)", len(verdict), artifact.MaxBundle)
	}
	return verdict, record, nil
}
