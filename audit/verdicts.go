package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/gate"
)

// verdict is one verified VSA with the record that it pins.
type verdict struct {
	item
	v      *evidence.VSA
	record *item // nil when it is not attached
}

// policy tells each verdict, holds it against its record, replays the record, and follows the chain.
func (a *auditor) policy(ctx context.Context) error {
	records := map[artifact.Digest]item{} // by the digest of the decision in them
	for _, x := range a.of(evidence.TypeDecision) {
		if _, _, d, err := gate.Recorded(x.e.Predicate); err == nil {
			records[d] = x
		}
	}
	var vs []verdict
	for _, x := range a.of(evidence.TypeVSA) {
		v, err := evidence.ParseVSA(x.e.Predicate)
		if err != nil {
			continue // it verified, so it parses
		}
		w := verdict{item: x, v: v}
		if r, ok := records[v.Waybill.DecisionDigest]; ok {
			w.record = &r
		}
		vs = append(vs, w)
	}
	chains := a.chains(vs)
	place := map[artifact.Digest]int{}
	for _, env := range slices.Sorted(maps.Keys(chains)) {
		for _, o := range chains[env].Verdicts {
			place[o.Bundle] = len(place)
		}
	}
	slices.SortFunc(vs, func(x, y verdict) int { return place[x.Bundle] - place[y.Bundle] })
	if len(vs) == 0 {
		a.line("POLICY", Missing, nil, "no gate has decided about this digest")
	}
	for _, x := range vs {
		if err := a.verdict(ctx, x); err != nil {
			return err
		}
	}
	a.chain(chains)
	return nil
}

func (a *auditor) verdict(ctx context.Context, x verdict) error {
	w := x.v.Waybill
	basis := "channel " + w.Basis.Channel + " empty"
	if w.Basis.Seq > 0 {
		basis = fmt.Sprintf("channel %s seq %d (%s)", w.Basis.Channel, w.Basis.Seq, w.Basis.Champion.Short())
	}
	policy := strings.TrimPrefix(x.v.Policy.URI, "waybill:policy/") + " (sha256:" + w.PolicyDigest.Short() + ")"
	text := fmt.Sprintf("policy %s denied it for %s: %s", policy, w.Environment, strings.Join(w.Violations, ", "))
	if x.v.VerificationResult == evidence.Passed {
		text = fmt.Sprintf("policy %s allowed it for %s until %s, against %s", policy, w.Environment, day(w.NotAfter), basis)
		if len(w.Exceptions) > 0 {
			text += "; waived: " + strings.Join(w.Exceptions, ", ")
		}
	}
	a.line("POLICY", Proven, one(x.Bundle), "%s", text)
	if x.record == nil {
		a.line("POLICY", Missing, one(x.Bundle), "the record of this decision is not attached: nothing to replay")
		return nil
	}
	rp := Replay{Record: x.record.Bundle, Verdict: x.Bundle, Policy: w.PolicyDigest}
	defer func() { a.r.Replays = append(a.r.Replays, rp) }()
	if why := disagree(x); why != "" {
		rp.Note = why
		a.line("POLICY", Contradicted, []artifact.Digest{x.Bundle, x.record.Bundle}, "the verdict and its record disagree: %s", why)
		return nil
	}
	if p := a.evaluator(ctx, w.PolicyDigest); p != nil {
		r, err := gate.Again(ctx, x.record.e.Predicate, p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			rp.Note = err.Error()
			a.line("POLICY", Contradicted, one(x.record.Bundle), "the record cannot be replayed: %v", err)
			return nil
		}
		rp.Done, rp.Result = true, r
		switch {
		case !r.Same:
			rp.Note = strings.Join(r.Changes, "; ")
			a.line("POLICY", Contradicted, one(x.record.Bundle), "replayed: another decision comes out (%s)", rp.Note)
		case r.Input != w.InputDigest:
			rp.Note = "the verdict binds another input"
			a.line("POLICY", Contradicted, one(x.record.Bundle), "replayed: %s", rp.Note)
		default:
			a.line("POLICY", Proven, one(x.record.Bundle), "replayed from its record: the same decision (%s)", r.Replayed.Short())
		}
		return nil
	}
	rp.Note = "the policy is not at hand"
	a.line("POLICY", Claimed, one(x.record.Bundle), "not replayed: policy sha256:%s is not at hand", w.PolicyDigest.Short())
	return nil
}

// evaluator gives the policy with that digest, nil when it is not at hand.
func (a *auditor) evaluator(ctx context.Context, d artifact.Digest) gate.Evaluator {
	for _, p := range a.o.Policies {
		if p.Bundle().Digest() == d {
			return p
		}
	}
	if a.o.Find == nil {
		return nil
	}
	return a.o.Find(ctx, d)
}

// disagree tells how a verdict contradicts the record that it pins; "" when it does not.
func disagree(x verdict) string {
	if why := gate.Disagree(x.v, x.record.e.Predicate); why != "" {
		return why
	}
	if x.record.KeyID != x.KeyID {
		return "they are signed by different keys"
	}
	return ""
}

// chains follows the verdicts of each environment.
func (a *auditor) chains(vs []verdict) map[string]*evidence.Chain {
	byEnv := map[string][]evidence.Verdict{}
	for _, x := range vs {
		env := x.v.Waybill.Environment
		byEnv[env] = append(byEnv[env], evidence.Verdict{Bundle: x.Bundle, VSA: x.v})
	}
	out := map[string]*evidence.Chain{}
	for env, list := range byEnv {
		out[env] = evidence.ChainOf(list, a.raws)
	}
	return out
}

// chain tells whether a verdict was taken away: each names the one before it, per environment.
func (a *auditor) chain(chains map[string]*evidence.Chain) {
	whole := true
	var all []artifact.Digest
	for _, env := range slices.Sorted(maps.Keys(chains)) {
		c := chains[env]
		for _, g := range c.Missing {
			whole = false
			a.line("POLICY", Contradicted, one(g.By), "a verdict for %s was removed: sha256:%s came before this one", env, g.Digest.Short())
		}
		if n := len(c.Heads); n > 1 {
			whole = false
			a.line("POLICY", Contradicted, c.Heads, "%d verdicts for %s stand side by side: gates at once, or a verdict was hidden from one; the next verdict joins them", n, env)
		}
		for _, v := range c.Verdicts {
			all = append(all, v.Bundle)
		}
	}
	if whole && len(all) > 1 {
		a.line("POLICY", Proven, all, "%d verdicts form a whole chain: none was removed", len(all))
	}
}
