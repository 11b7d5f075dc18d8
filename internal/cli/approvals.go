package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/people"
)

func approvalsCommand() Command {
	return Command{
		Name: "approvals", Group: Trust, Summary: "show who has approved an artifact for an environment, and who is missing",
		Args: "REF", Min: 1, Max: 1,
		Long: `Verifies the approvals, rejections and exceptions of the artifact and lists each with its role, its end and, where it
does not count, the reason. Then says what the environment still misses. Roles come from the trust document; one person counts
once, whatever the number of keys; authors do not count. It only reads: what decides is waybill gate.`,
		Examples: []string{
			"waybill approvals reg.example/ml/churn:1.0 --env prod",
			"waybill approvals churn:1.0 --env prod --output json",
		},
		Flags: environmentFlags(),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"approve", "gate", "env show", "trust show"},
		Run:   runApprovals,
	}
}

// approvalsJSON is the result of approvals.
type approvalsJSON struct {
	Schema      string          `json:"schema"`
	Ref         string          `json:"ref"`
	Digest      artifact.Digest `json:"digest"`
	Environment string          `json:"environment"`
	people.Tally
	Exceptions []exceptionJSON     `json:"exceptions"`
	Failed     []input.Attestation `json:"failed"` // approvals and exceptions that do not verify, with the reason
}

type exceptionJSON struct {
	input.Exception
	Effect bool   `json:"effect"` // unless the rule is mandatory in the policy
	Why    string `json:"why"`
}

func runApprovals(ctx context.Context, c *Call) error {
	rq, place, err := c.gateRequest(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer place.Close()
	src := facts.FromRepository(place)
	r, err := gate.Facts(ctx, src, src, rq)
	if err != nil {
		return err
	}
	in := r.Input
	out := approvalsJSON{Schema: schemaBase + "approvals/v1", Ref: rq.Ref, Digest: rq.Digest, Environment: in.Environment.Name,
		Tally: people.Count(in), Exceptions: []exceptionJSON{}, Failed: []input.Attestation{}}
	for _, x := range in.Exceptions {
		w := people.Waives(in, x)
		out.Exceptions = append(out.Exceptions, exceptionJSON{x, w == "", w})
	}
	for _, a := range in.Attestations {
		if !a.Verified && (a.PredicateType == evidence.TypeApproval || a.PredicateType == evidence.TypeException) {
			out.Failed = append(out.Failed, a)
		}
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.showApprovals(out)
	return nil
}

func (c *Call) showApprovals(o approvalsJSON) {
	u := c.UI
	var roles []string
	for _, r := range o.Roles {
		roles = append(roles, r.Role)
	}
	u.Data("%s for %s: demanded %s", digestRef(o.Ref, o.Digest), o.Environment, heading(o.Minimum, roles))
	row := func(state, role string, s input.Signer, until time.Time, text string) {
		u.Data("  %-9s %-16s %-20s until %s  %s", state, role, s.Name, until.UTC().Format(time.DateOnly), text)
	}
	for _, a := range o.Approvals {
		if a.Counts {
			row("counts", a.Role, a.Signer, a.Expires, a.Reason)
		} else {
			row("no", a.Role, a.Signer, a.Expires, strings.Join(a.Why, "; "))
		}
	}
	for _, a := range o.Rejected {
		row("REJECTS", a.Role, a.Signer, a.Expires, a.Reason)
	}
	for _, x := range o.Exceptions {
		if x.Effect {
			row("waives", x.Rule, x.Signer, x.Expires, x.Reason)
		} else {
			row("no", x.Rule, x.Signer, x.Expires, x.Why)
		}
	}
	for _, a := range o.Failed {
		u.Data("  %-9s %-16s %s", "no", evidence.NameOf(a.PredicateType), a.Reason)
	}
	var missing []string
	if n := o.Minimum - o.People; n > 0 {
		missing = append(missing, fmt.Sprintf("%d of %d people", n, o.Minimum))
	}
	for _, r := range o.Roles {
		if len(r.By) == 0 {
			missing = append(missing, "role "+r.Role)
		}
	}
	switch {
	case len(missing) > 0:
		u.Data("missing: %s", strings.Join(missing, ", "))
	case len(o.Rejected) > 0:
		u.Data("rejected: nothing passes while that stands")
	default:
		u.Data("complete")
	}
}
