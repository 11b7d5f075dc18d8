package cli

import (
	"cmp"
	"context"
	"slices"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
)

func gateCommand() Command {
	return Command{
		Name: "gate", Group: Govern, Summary: "let the policy of an environment decide, and attach the signed verdict",
		Args: "REF", Min: 0, Max: 1,
		Long: `Verifies all evidence, evaluates the policy that the signed environments document pins, and attaches the verdict
(SLSA VSA) and the full record of the decision to the artifact, signed by the gate's key or identity; denials too. Whatever
is missing, or goes wrong in the policy, is a denial: exit code 4. A tag is resolved once; the verdict binds the digest.

Each verdict names the one before it. One that was taken away is missed by the next, which says so, and no pass whose chain
has a gap can be published.

Where the registry takes nothing, --out FILE keeps record and verdict, and --attach FILE attaches them later, from any machine.
With --replay, evaluates a recorded decision again, from a file or from the evidence of REF, and compares the digests.`,
		Examples: []string{
			"waybill gate reg.example/ml/churn@sha256:7c1f... --env prod --key gate.key",
			"waybill gate churn@sha256:7c1f... --env prod --dry-run     # decide, sign and attach nothing",
			"waybill gate reg.example/ml/churn@sha256:7c1f... --env prod --keyless",
			"waybill gate reg.example/ml/churn@sha256:7c1f... --replay sha256:0b77...",
		},
		Flags: gateFlags(),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:   []string{"facts", "policy", "env", "audit"},
		Run:   runGate,
	}
}

// gateFlags are environmentFlags with --env optional, since --replay and --attach need none, and those of who signs.
func gateFlags() []ucli.Flag {
	fs := environmentFlags()
	fs[0] = &ucli.StringFlag{Name: "env", Usage: "`ENVIRONMENT` of environments.yaml", EnvVars: []string{"WAYBILL_ENV"}}
	who := signerFlags("gate")
	who[0].(*ucli.StringFlag).EnvVars = []string{"WAYBILL_GATE_KEY"}
	return slices.Concat(fs, who, reportFlags(), []ucli.Flag{
		&ucli.BoolFlag{Name: "dry-run", Usage: "decide, but sign and attach nothing"},
		&ucli.BoolFlag{Name: "fail-on-warn", Usage: "exit with code 4 when the policy allows with warnings; the verdict stays a pass"},
		&ucli.StringFlag{Name: "out", Usage: "also write record and verdict to `FILE`, one bundle per line"},
		&ucli.BoolFlag{Name: "no-attach", Usage: "with --out: do not attach them"},
		&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing --out file"},
		&ucli.StringFlag{Name: "attach", Usage: "attach record and verdict that --out wrote to `FILE`, decide nothing"},
		&ucli.StringFlag{Name: "replay", Usage: "evaluate a recorded decision again: `BUNDLE` is a file, or the digest of one attached to REF"},
	})
}

// gateJSON is the result of gate. Verdict and Record are empty after --dry-run, and when they could not be attached.
type gateJSON struct {
	Schema         string             `json:"schema"`
	Allow          bool               `json:"allow"`
	Ref            string             `json:"ref"`
	Digest         artifact.Digest    `json:"digest"`
	Environment    string             `json:"environment"`
	Policy         artifact.Digest    `json:"policyDigest"`
	Basis          evidence.Basis     `json:"basis"`
	Input          artifact.Digest    `json:"inputDigest"`
	DecisionDigest artifact.Digest    `json:"decisionDigest"`
	NotAfter       time.Time          `json:"notAfter"`
	Verdict        artifact.Digest    `json:"verdict"`
	Record         artifact.Digest    `json:"record"`
	Prev           artifact.Digest    `json:"prev"`
	Chain          input.VerdictChain `json:"chain"` // of the verdicts before this one
	Signer         string             `json:"signer"`
	Identity       *identityJSON      `json:"identity,omitempty"` // who signed without a key
	Out            string             `json:"out,omitempty"`      // the file of --out
	Decision       decision.Decision  `json:"decision"`
}

func runGate(ctx context.Context, c *Call) error {
	switch {
	case c.IsSet("replay") && c.IsSet("attach"):
		return diag.New(diag.Usage, "--replay and --attach exclude each other")
	case c.IsSet("replay"):
		return runReplay(ctx, c)
	case len(c.Args) == 0:
		return diag.New(diag.Usage, "gate: REF is missing").Hint("waybill gate REF --env ENV --key gate.key")
	case c.IsSet("attach"):
		return runGateAttach(ctx, c)
	}
	reports, err := c.reportTargets()
	if err != nil {
		return err
	}
	k, err := c.gateAuthor(ctx)
	if err != nil {
		return err
	}
	rq, place, err := c.gateRequest(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer place.Close()
	rq.Policy, err = c.pinnedPolicy(ctx, rq.Environments, rq.Environment)
	if err != nil {
		if reportErr := c.writeReports(reports, reportOfError(rq, err)); reportErr != nil {
			c.UI.Warn("%v", reportErr)
		}
		return err
	}
	src := facts.FromRepository(place)
	o, err := gate.Decide(ctx, src, src, rq)
	if err != nil {
		return err
	}
	if g, ok := k.(*guest); ok {
		g.env = rq.Environment // who that is stands in the certificate; it is asked before anything is attached
	} else if k != nil {
		for _, typ := range []string{evidence.TypeDecision, evidence.TypeVSA} {
			if err := c.ready(rq.Trust, k, typ, o.Input.Model.Name, rq.Environment); err != nil {
				return err
			}
		}
	}
	vsa, err := o.VSA()
	if err != nil {
		return err
	}
	out := gateJSON{
		Schema: schemaBase + "gate/v1", Allow: o.Decision.Allow, Ref: rq.Ref, Digest: rq.Digest, Environment: rq.Environment,
		Policy: o.Policy.Bundle().Digest(), Basis: o.Basis, Input: o.InputDigest, DecisionDigest: o.DecisionDigest,
		NotAfter: vsa.Waybill.NotAfter, Prev: vsa.Waybill.Prev, Chain: o.Input.VerdictChain, Decision: o.Decision,
	}
	var attachErr error
	if k != nil {
		attachErr = c.attestVerdict(ctx, place, k, o, &out)
	}
	reportErr := c.writeReports(reports, reportOf(o, out))
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		c.reportDecision(o, out, attachErr)
		c.UI.Data("%s", digestRef(rq.Ref, rq.Digest))
	}
	if out.Verdict != "" {
		c.lookAside(ctx, src, rq, o, out.Verdict)
	}
	switch {
	case !o.Decision.Allow:
		if reportErr != nil {
			c.UI.Warn("%v", reportErr)
		}
		return deniedError(o, rq, attachErr)
	case attachErr != nil || reportErr != nil:
		return cmp.Or(attachErr, reportErr)
	case c.Bool("fail-on-warn") && len(o.Decision.Warnings) > 0:
		return warnedError(o, rq)
	}
	return nil
}

// gateAuthor is who signs; nil for a dry run. A wrong key or passphrase, or a missing token, is found before anything is
// decided: a decision that cannot be attested helps nobody.
func (c *Call) gateAuthor(ctx context.Context) (author, error) {
	ref, env := c.Args[0], c.String("env")
	switch {
	case env == "":
		return nil, diag.New(diag.Usage, "gate: --env is missing").Hint("waybill gate %s --env ENV --key gate.key", ref)
	case c.Bool("no-attach") && c.String("out") == "":
		return nil, diag.New(diag.Usage, "--no-attach goes with --out FILE: the verdict would be lost")
	case c.Bool("dry-run"):
		return nil, nil
	case c.String("key") == "" && !c.Bool("keyless"):
		return nil, diag.New(diag.Usage, "gate: --key is missing").Hint("waybill gate %s --env %s --key gate.key   (or --keyless, or --dry-run)", ref, env)
	}
	return c.author(ctx, trust.RoleGate)
}
