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
	rec, err := evidence.ParseDecision(predicate)
	if err != nil {
		return nil, err
	}
	if rec.Policy != p.Bundle().Digest() {
		return nil, fmt.Errorf("%w: %s, this one is %s", ErrPolicy, rec.Policy, p.Bundle().Digest())
	}
	in, err := input.Parse(rec.Input)
	if err != nil {
		return nil, fmt.Errorf("recorded input: %w", err)
	}
	doc, err := in.Canonical()
	if err != nil {
		return nil, err
	}
	old, err := decision.Parse(rec.Decision)
	if err != nil {
		return nil, fmt.Errorf("recorded decision: %w", err)
	}
	oldBytes, err := old.Canonical()
	if err != nil {
		return nil, err
	}
	now := p.Evaluate(ctx, doc)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	newBytes, err := now.Canonical()
	if err != nil {
		return nil, err
	}
	r := &Replay{Policy: rec.Policy, Input: artifact.DigestOf(doc), Recorded: artifact.DigestOf(oldBytes), Replayed: artifact.DigestOf(newBytes),
		Same: bytes.Equal(oldBytes, newBytes), Allow: now.Allow, Changes: changes(old, now)}
	return r, nil
}

// changes lists the rules whose outcome differs, for people.
func changes(old, now decision.Decision) []string {
	out := []string{}
	if old.Allow != now.Allow {
		out = append(out, fmt.Sprintf("allow: recorded %t, now %t", old.Allow, now.Allow))
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
