package cli

import (
	"context"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// longestApproval bounds the life of approvals and exceptions; a rejection lives as long, so that it outlives every
// approval that the same person gave before.
const longestApproval = 365 * 24 * time.Hour

func approveCommand() Command {
	return Command{
		Name: "approve", Group: Trust, Summary: "approve or reject an artifact, or sign an exception to a rule for it",
		Args: "REF", Min: 1, Max: 1,
		Long: `Signs, with an approver key or identity, that a person approves this digest in a role, rejects it (--reject), or waives
one rule of the policy for it (--exception). A tag is resolved once, and what is signed names the digest. All end at a date,
at most 365 days from now. With --env it is for that environment alone.

Refused before anything is signed, where the trust document is at hand: a role that it does not give to the signer, and an
author of the model, who may not approve: who has signed its release, or is named in its configuration, by key, name or
identity. An exception with --env must name a rule of that environment's policy that may be waived there, by this signer.

A rejection denies until it ends or the same person approves in the same role later; it takes back what that person approved
before.`,
		Examples: []string{
			`waybill approve churn:1.0 --role ml-lead --reason "metrics reviewed" --env prod --key approver.key`,
			`waybill approve churn:1.0 --role ml-lead --reject --reason "worse in region north" --key approver.key`,
			`waybill approve churn:1.0 --exception MET-004 --reason "few samples" --env prod --expires 30d --key approver.key`,
		},
		Flags: placeFlags(append(authorFlags("approver"),
			&ucli.StringFlag{Name: "role", Usage: "approve as `ROLE`, such as ml-lead"},
			&ucli.BoolFlag{Name: "reject", Usage: "say no, in that role"},
			&ucli.StringFlag{Name: "exception", Usage: "waive the rule with this `ID` instead"},
			&ucli.StringFlag{Name: "reason", Required: true, Usage: "`TEXT` that an auditor will read"},
			&ucli.StringFlag{Name: "env", Usage: "for this `ENVIRONMENT` alone; default: for any"},
			&ucli.StringFlag{Name: "expires", Aliases: []string{"for"}, Usage: "how long it counts: 90d, 12h, or the `DATE` when it ends; default: 90d, an exception 30d"},
			&ucli.StringFlag{Name: "ticket", Usage: "`ID` of the ticket behind an exception"},
			&ucli.StringFlag{Name: "environments", Value: environmentsSigned, Usage: "signed environments `FILE`, with --env", EnvVars: []string{"WAYBILL_ENVIRONMENTS"}},
			&ucli.StringFlag{Name: "policy", Usage: "pinned policy of --env, when it is not where environments.yaml says: `PATH`", EnvVars: []string{"WAYBILL_POLICY"}},
			dryRunFlag(),
		)...),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"approvals", "attest", "gate", "trust show"},
		Run:   runApprove,
	}
}

func runApprove(ctx context.Context, c *Call) error {
	role, rule := c.String("role"), c.String("exception")
	switch {
	case (role == "") == (rule == ""):
		return diag.New(diag.Usage, "approve needs either --role or --exception").
			Hint("waybill approve %s --role ml-lead --reason TEXT --key approver.key", c.Args[0])
	case c.String("ticket") != "" && rule == "":
		return diag.New(diag.Usage, "--ticket belongs to --exception")
	case c.Bool("reject") && rule != "":
		return diag.New(diag.Usage, "--reject belongs to --role").Hint("an exception that is no longer wanted ends with its date, or when it is deleted from the registry")
	case c.Bool("reject") && c.IsSet("expires"):
		return diag.New(diag.Usage, "a rejection counts for 365 days, longer than any approval before it").
			Hint("it ends earlier when the same person approves: waybill approve %s --role %s --reason TEXT --key approver.key", c.Args[0], role)
	case strings.TrimSpace(c.String("reason")) == "":
		return diag.New(diag.Usage, "--reason is empty: an auditor will read it")
	}
	now := c.Env.Now().UTC().Truncate(time.Second)
	until, err := c.until(now, rule != "")
	if err != nil {
		return err
	}
	if rule != "" {
		x := evidence.Exception{Rule: rule, Reason: c.String("reason"), At: now, Expires: until, Ticket: c.String("ticket"), Environment: c.String("env")}
		if strings.ContainsAny(rule, "*?[") {
			return diag.New(diag.Usage, "--exception %s: one exception waives one rule, not all that a pattern covers", rule).Hint("waybill policy list")
		}
		if c.String("env") != "" {
			w, err := c.waivable(ctx, x)
			if err != nil {
				return err
			}
			return c.attest(ctx, "approve", evidence.TypeException, w, trust.RoleApprover)
		}
		return c.attest(ctx, "approve", evidence.TypeException, x, trust.RoleApprover)
	}
	a := evidence.Approval{Role: role, Reason: c.String("reason"), At: now, Expires: until, Environment: c.String("env")}
	if c.Bool("reject") {
		a.Decision, a.Expires = evidence.Rejected, now.Add(longestApproval)
	}
	if err := c.roleDemanded(a); err != nil {
		return err
	}
	return c.attest(ctx, "approve", evidence.TypeApproval, a, trust.RoleApprover)
}

// until reads --expires: a length of time, a day or a time.
func (c *Call) until(now time.Time, exception bool) (time.Time, error) {
	s := c.String("expires")
	if s == "" {
		if s = "90d"; exception {
			s = "30d"
		}
	}
	end, err := time.Parse(time.RFC3339, s)
	if err != nil {
		end, err = time.Parse(time.DateOnly, s)
	}
	if err != nil {
		d, err := days("expires", s)
		if err != nil {
			return end, err
		}
		if d > longestApproval {
			return end, tooLong(s)
		}
		end = now.Add(d)
	}
	end = end.UTC().Truncate(time.Second)
	switch {
	case !end.After(now):
		return end, diag.New(diag.Usage, "--expires %s: that is over", s)
	case end.After(now.Add(longestApproval)):
		return end, tooLong(s)
	}
	return end, nil
}

func tooLong(s string) error {
	return diag.New(diag.Usage, "--expires %s: at most 365 days", s).Hint("who approved can approve again: --expires 365d")
}
