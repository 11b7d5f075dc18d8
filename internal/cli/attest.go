package cli

import (
	"context"
	"encoding/json"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

func attestCommand() Command {
	return Command{
		Name: "attest", Group: Trust, Summary: "sign a statement about an artifact: metrics, data sets, provenance",
		Args: "REF", Min: 1, Max: 1,
		Long: `Signs a JSON document about the artifact's digest and stores it beside the artifact. The document is checked against
the rules of its type before anything is signed. Types of an evaluator key: evaluation, dataset, test-result. Types of a
publisher key: provenance, cyclonedx, oms. Approvals are made by waybill approve, verdicts by waybill gate.`,
		Examples: []string{
			"waybill attest churn:1.0 --type evaluation --predicate eval.json --key evaluator.key",
			"waybill attest churn:1.0 --type dataset --predicate datasets.json --key evaluator.key",
			"waybill attest churn:1.0 --type cyclonedx --predicate bom.json --key publisher.key",
		},
		Flags: placeFlags(
			&ucli.StringFlag{Name: "type", Aliases: []string{"t"}, Required: true, Usage: "`TYPE` of the statement: " + strings.Join(attestable(), ", ")},
			&ucli.StringFlag{Name: "predicate", Aliases: []string{"p"}, Required: true, Usage: "JSON `FILE` with what the statement says, - for stdin"},
			keyFlag("evaluator or publisher"), dryRunFlag(),
		),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"sign", "approve", "gate", "verify"},
		Run:   runAttest,
	}
}

func attestable() []string {
	return []string{"evaluation", "dataset", "test-result", "provenance", "cyclonedx", "oms"}
}

func runAttest(ctx context.Context, c *Call) error {
	typ, ok := evidence.TypeByName(c.String("type"))
	if roles := trust.RolesFor(typ); !ok || len(roles) != 1 || roles[0] != trust.RoleEvaluator && roles[0] != trust.RolePublisher || typ == evidence.TypeRelease {
		e := diag.New(diag.Usage, "--type %s: attest makes %s", c.String("type"), strings.Join(attestable(), ", "))
		switch typ {
		case evidence.TypeRelease:
			e.Hint("waybill sign %s --key publisher.key", c.Args[0])
		case evidence.TypeApproval, evidence.TypeException:
			e.Hint("waybill approve %s --role ROLE --reason TEXT --key approver.key", c.Args[0])
		case evidence.TypeVSA, evidence.TypeDecision:
			e.Hint("waybill gate %s --env ENV --key gate.key", c.Args[0])
		default:
			e.Hint("waybill attest %s --type evaluation --predicate eval.json --key evaluator.key", c.Args[0])
		}
		return e
	}
	raw, err := c.readInput(c.String("predicate"), artifact.MaxBundle/2)
	if err != nil {
		return err
	}
	if err := evidence.ValidatePredicate(typ, raw); err != nil {
		return diag.Wrap(diag.Usage, err, "%s", c.String("predicate")).Hint("docs/format.md describes every predicate")
	}
	return c.attest(ctx, "attest", typ, json.RawMessage(raw), trust.RolesFor(typ)...)
}
