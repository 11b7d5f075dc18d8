package gate

import (
	"context"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/rego"
)

// Evaluator is a policy that can decide: *rego.Policy in this process, *box.Box in one of its own. Evaluate always gives a
// decision over the canonical bytes of a facts document; whatever goes wrong is a denial with its reason. Both give equal
// bytes for equal policies and documents.
type Evaluator interface {
	Evaluate(ctx context.Context, doc []byte) decision.Decision
	Bundle() *bundle.Bundle
	// Rules lists the policy's rules, for reports; empty before a policy that is compiled late was, and when it does not compile.
	Rules() []rego.RuleInfo
}
