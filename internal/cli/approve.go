package cli

import (
	"context"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

func approveCommand() Command {
	return Command{
		Name: "approve", Group: Trust, Summary: "approve an artifact, or sign an exception to a rule for it",
		Args: "REF", Min: 1, Max: 1,
		Long: `Signs, with an approver key, that a person approves this digest in a role, or that one rule of the policy is waived for
it. Both end at a date. The approval counts only in the roles that the trust document gives to the key.`,
		Examples: []string{
			`waybill approve churn:1.0 --role ml-lead --reason "metrics reviewed" --key approver.key`,
			`waybill approve churn:1.0 --exception QUAL-002 --reason "region north is retired" --for 30d --key approver.key`,
		},
		Flags: placeFlags(append(authorFlags("approver"),
			&ucli.StringFlag{Name: "role", Usage: "approve as `ROLE`, such as ml-lead"},
			&ucli.StringFlag{Name: "exception", Usage: "waive the rule with this `ID` instead"},
			&ucli.StringFlag{Name: "reason", Required: true, Usage: "`TEXT` that an auditor will read"},
			&ucli.StringFlag{Name: "for", Value: "90d", Usage: "how `LONG` it counts: 90d, 12h"},
			&ucli.StringFlag{Name: "ticket", Usage: "`ID` of the ticket behind an exception"},
			dryRunFlag(),
		)...),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"attest", "gate", "trust show"},
		Run:   runApprove,
	}
}

func runApprove(ctx context.Context, c *Call) error {
	role, rule := c.String("role"), c.String("exception")
	if (role == "") == (rule == "") {
		return diag.New(diag.Usage, "approve needs either --role or --exception").
			Hint("waybill approve %s --role ml-lead --reason TEXT --key approver.key", c.Args[0])
	}
	if c.String("ticket") != "" && rule == "" {
		return diag.New(diag.Usage, "--ticket belongs to --exception")
	}
	d, err := days("for", c.String("for"))
	if err != nil {
		return err
	}
	now := c.Env.Now().UTC().Truncate(time.Second)
	if rule != "" {
		return c.attest(ctx, "approve", evidence.TypeException, evidence.Exception{
			Rule: rule, Reason: c.String("reason"), At: now, Expires: now.Add(d), Ticket: c.String("ticket"),
		}, trust.RoleApprover)
	}
	return c.attest(ctx, "approve", evidence.TypeApproval, evidence.Approval{
		Role: role, Reason: c.String("reason"), At: now, Expires: now.Add(d),
	}, trust.RoleApprover)
}
