package cli

import (
	"context"
	"regexp"
	"slices"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

func attestCommand() Command {
	return Command{
		Name: "attest", Group: Trust, Summary: "sign a statement about an artifact: metrics, data sets, provenance",
		Args: "REF", Min: 1, Max: 1,
		Long: `Signs a JSON document about the artifact's digest and stores it beside the artifact. The document is checked against
the rules of its type before anything is signed. Types of an evaluator key: evaluation, dataset, test-result, vulns. Types of
a publisher key: provenance, cyclonedx, spdx, spdx-2.3, vulns. Types of an approver key: approval, exception (waybill approve
makes them from flags). Verdicts are made by waybill gate.

Any other document goes with --type custom --predicate-type URI, or with the URI as --type. The trust document must let the
key's role sign that type: waybill trust rule.

A statement that the same key has signed before is not attached a second time.`,
		Examples: []string{
			"waybill attest churn:1.0 --type evaluation --predicate eval.json --key evaluator.key",
			"waybill attest churn:1.0 --type dataset --predicate datasets.json --key evaluator.key",
			"waybill attest churn:1.0 --type cyclonedx --predicate bom.json --key publisher.key",
			"waybill attest churn:1.0 --type vulns --predicate scan.json --key evaluator.key",
			"waybill attest churn:1.0 --type https://example.com/review/v1 --predicate review.json --key evaluator.key",
		},
		Flags: placeFlags(append(authorFlags("evaluator, publisher or approver"),
			&ucli.StringFlag{Name: "type", Aliases: []string{"t"}, Required: true, Usage: "`TYPE` of the statement, as above"},
			&ucli.StringFlag{Name: "predicate-type", Usage: "`URI` of the type, with --type custom"},
			&ucli.StringFlag{Name: "predicate", Aliases: []string{"p"}, Required: true, Usage: "JSON `FILE` with what the statement says, - for stdin"},
			dryRunFlag(),
		)...),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"sign", "approve", "gate", "verify", "trust rule"},
		Run:   runAttest,
	}
}

func attestable() []string {
	return []string{"evaluation", "dataset", "test-result", "vulns", "provenance", "cyclonedx", "spdx", "spdx-2.3", "approval", "exception"}
}

func runAttest(ctx context.Context, c *Call) error {
	typ, err := c.predicateType()
	if err != nil {
		return err
	}
	name := c.String("predicate")
	raw, err := c.readInput(name, artifact.MaxBundle/2)
	if err != nil {
		return err
	}
	if err := evidence.ValidatePredicate(typ, raw); err != nil {
		return diag.Wrap(diag.Usage, err, "what the statement says").At(locate(name, raw, err)).Hint("docs/format.md describes every predicate")
	}
	predicate, err := typed(typ, raw)
	if err != nil {
		return err
	}
	return c.attest(ctx, "attest", typ, predicate, trust.MaySign(typ)...)
}

// predicateType reads --type and --predicate-type.
func (c *Call) predicateType() (string, error) {
	t, uri := c.String("type"), c.String("predicate-type")
	if (t == "custom") != (uri != "") {
		return "", diag.New(diag.Usage, "--predicate-type goes with --type custom, and --type custom with it").
			Hint("waybill attest %s --type custom --predicate-type https://example.com/review/v1 --predicate FILE --key KEY", c.Args[0])
	}
	custom := t == "custom" || strings.Contains(t, "://")
	if t == "custom" {
		t = uri
	}
	typ, known := evidence.TypeByName(t)
	switch {
	case known && slices.Contains(attestable(), evidence.NameOf(typ)):
		return typ, nil
	case !known && custom:
		if err := evidence.CustomType(t); err != nil {
			return "", diag.Wrap(diag.Usage, err, "--type").Hint("waybill attest %s --type https://example.com/review/v1 --predicate FILE --key KEY", c.Args[0])
		}
		return t, nil
	}
	e := diag.New(diag.Usage, "--type %s: attest makes %s, or custom", t, strings.Join(attestable(), ", "))
	switch typ {
	case evidence.TypeRelease:
		e.Hint("waybill sign %s --key publisher.key", c.Args[0])
	case evidence.TypeOMS:
		e.Hint("waybill sign %s --oms --key publisher.key", c.Args[0])
	case evidence.TypeVSA, evidence.TypeDecision:
		e.Hint("waybill gate %s --env ENV --key gate.key", c.Args[0])
	default:
		e.Hint("waybill attest %s --type evaluation --predicate eval.json --key evaluator.key", c.Args[0])
	}
	return "", e
}

var memberPath = regexp.MustCompile(`(?:^|: )((?:[A-Za-z0-9_$-]+)(?:\[[0-9]+\])?(?:\.[A-Za-z0-9_$-]+(?:\[[0-9]+\])?)*): `)

// locate finds the place in a JSON file that an error is about: where its syntax breaks, or the member whose path the
// message begins with.
func locate(file string, raw []byte, err error) diag.Loc {
	at := diag.Loc{File: file}
	if line, col, ok := strictjson.Broken(raw); ok {
		at.Line, at.Col = line, col
		return at
	}
	for _, m := range memberPath.FindAllStringSubmatch(err.Error(), -1) {
		if line, col, ok := strictjson.Locate(raw, m[1]); ok {
			at.Line, at.Col = line, col
		}
	}
	return at
}
