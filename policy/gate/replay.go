package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
)

// Replay is the outcome of evaluating a recorded input again.
type Replay struct {
	Policy   artifact.Digest `json:"policy"`
	Input    artifact.Digest `json:"input"`    // of the recorded input
	Recorded artifact.Digest `json:"recorded"` // of the recorded decision
	Replayed artifact.Digest `json:"replayed"` // of the new one
	Same     bool            `json:"same"`
	Allow    bool            `json:"allow"` // of the new decision
	Changes  []string        `json:"changes"`
}

// ErrPolicy says that the record was made with another policy than the one at hand.
var ErrPolicy = errors.New("recorded under another policy")

// Again evaluates the input of a decision/v1 predicate with the policy that it was recorded under. It proves nothing
// about who recorded it; verify the bundle for that.
func Again(ctx context.Context, predicate []byte, p Evaluator) (*Replay, error) {
	rec, old, doc, err := open(predicate)
	if err != nil {
		return nil, err
	}
	if rec.Policy != p.Bundle().Digest() {
		return nil, fmt.Errorf("%w: %s, this one is %s", ErrPolicy, rec.Policy, p.Bundle().Digest())
	}
	oldBytes, err := old.Canonical()
	if err != nil {
		return nil, err
	}
	now, newBytes, err := evaluate(ctx, p, doc)
	if err != nil {
		return nil, err
	}
	r := &Replay{Policy: rec.Policy, Input: artifact.DigestOf(doc), Recorded: artifact.DigestOf(oldBytes), Replayed: artifact.DigestOf(newBytes),
		Same: bytes.Equal(oldBytes, newBytes), Allow: now.Allow, Changes: changes(old, now)}
	return r, nil
}

// Recorded gives what a decision/v1 predicate was reached with: the digests of its policy, of its input and of its decision,
// each taken from the bytes and not from what they say of themselves.
func Recorded(predicate []byte) (policy, in, dec artifact.Digest, err error) {
	rec, d, doc, err := open(predicate)
	if err != nil {
		return "", "", "", err
	}
	b, err := d.Canonical()
	if err != nil {
		return "", "", "", err
	}
	return rec.Policy, artifact.DigestOf(doc), artifact.DigestOf(b), nil
}

func open(predicate []byte) (*evidence.Decision, decision.Decision, []byte, error) {
	rec, err := evidence.ParseDecision(predicate)
	if err != nil {
		return nil, decision.Decision{}, nil, err
	}
	in, err := input.Parse(rec.Input)
	if err != nil {
		return nil, decision.Decision{}, nil, fmt.Errorf("recorded input: %w", err)
	}
	doc, err := in.Canonical()
	if err != nil {
		return nil, decision.Decision{}, nil, err
	}
	d, err := decision.Parse(rec.Decision)
	if err != nil {
		return nil, decision.Decision{}, nil, fmt.Errorf("recorded decision: %w", err)
	}
	return rec, d, doc, nil
}

// Disagree tells how a verdict contradicts the record that it pins, a decision/v1 predicate; "" when it does not.
func Disagree(v *evidence.VSA, predicate []byte) string {
	policy, in, dec, err := Recorded(predicate)
	if err != nil {
		return err.Error()
	}
	_, d, _, err := open(predicate)
	if err != nil {
		return err.Error()
	}
	x := v.Waybill
	switch {
	case d.Allow != (v.VerificationResult == evidence.Passed):
		return fmt.Sprintf("the record says allow %t, the verdict %s", d.Allow, v.VerificationResult)
	case policy != x.PolicyDigest || d.PolicyDigest != string(x.PolicyDigest):
		return "they name different policies"
	case in != x.InputDigest || d.InputDigest != string(x.InputDigest):
		return "they name different inputs"
	case dec != x.DecisionDigest:
		return "they name different decisions"
	case d.Environment != x.Environment:
		return "they are for different environments"
	case !slices.Equal(decision.IDs(d.Violations), x.Violations):
		return "they list different violations"
	case !slices.Equal(decision.IDs(d.Warnings), x.Warnings):
		return "they list different warnings"
	case !slices.Equal(decision.IDs(d.Exceptions), x.Exceptions):
		return "they list different exceptions"
	}
	return ""
}

// changes lists the rules whose outcome differs, for people.
func changes(old, now decision.Decision) []string {
	out := []string{}
	if old.Allow != now.Allow {
		out = append(out, fmt.Sprintf("allow: recorded %t, now %t", old.Allow, now.Allow))
	}
	if old.Error != now.Error {
		out = append(out, fmt.Sprintf("error: recorded %q, now %q", old.Error, now.Error))
	}
	if old.InputDigest != now.InputDigest {
		out = append(out, fmt.Sprintf("input digest: recorded %s, now %s", old.InputDigest, now.InputDigest))
	}
	was := map[string]decision.Status{}
	for _, r := range old.Rules {
		was[r.ID] = r.Status
	}
	for _, r := range now.Rules {
		if was[r.ID] != r.Status {
			out = append(out, fmt.Sprintf("%s: recorded %q, now %q", r.ID, was[r.ID], r.Status))
		}
		delete(was, r.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(was)) {
		out = append(out, fmt.Sprintf("%s: recorded, not there now", id))
	}
	return out
}
