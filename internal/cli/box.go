package cli

import (
	"context"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// evaluator gives a policy that can decide: in a process of its own where this program can start itself again, which is
// wherever it runs as a program. The builtin policy is no exception: what it reads was written by others.
func (c *Call) evaluator(b *bundle.Bundle) gate.Evaluator {
	if c.Env.Box != nil {
		return box.New(*c.Env.Box, b, box.Limits{})
	}
	return &here{b: b}
}

// rulesOf compiles a policy that may be anybody's, and lists its rules. A policy that the compiler does not survive is an error.
func (c *Call) rulesOf(ctx context.Context, b *bundle.Bundle) ([]rego.RuleInfo, error) {
	if c.Env.Box == nil {
		p, err := rego.Compile(ctx, b)
		if err != nil {
			return nil, err
		}
		return p.Rules(), nil
	}
	said, err := box.New(*c.Env.Box, b, box.Limits{}).Describe(ctx)
	if err != nil {
		return nil, err
	}
	return said.Rules, nil
}

// here compiles and evaluates a policy in this process.
type here struct {
	b     *bundle.Bundle
	rules []rego.RuleInfo
}

func (h *here) Bundle() *bundle.Bundle { return h.b }

func (h *here) Rules() []rego.RuleInfo { return h.rules }

func (h *here) Evaluate(ctx context.Context, doc []byte) decision.Decision {
	p, err := rego.Compile(ctx, h.b)
	if err != nil {
		d := decision.New(string(h.b.Digest()), string(artifact.DigestOf(doc)))
		d.Error = err.Error()
		return d
	}
	h.rules = p.Rules()
	return p.Evaluate(ctx, doc)
}
