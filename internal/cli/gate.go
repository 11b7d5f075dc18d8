package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
)

func gateCommand() Command {
	return Command{
		Name: "gate", Group: Govern, Summary: "let the policy of an environment decide, and attach the signed verdict",
		Args: "REF", Min: 0, Max: 1,
		Long: `Verifies all evidence, evaluates the policy that the signed environments document pins, and attaches the verdict
(SLSA VSA) and the full record of the decision to the artifact, signed with the gate's key; denials too. Whatever is missing,
or goes wrong in the policy, is a denial: exit code 4.

With --replay, evaluates a recorded decision again, from a file or from the evidence of REF, and compares the digests.`,
		Examples: []string{
			"waybill gate reg.example/ml/churn@sha256:7c1f... --env prod --key gate.key",
			"waybill gate churn@sha256:7c1f... --env prod --dry-run     # decide, sign and attach nothing",
			"waybill gate reg.example/ml/churn@sha256:7c1f... --replay sha256:0b77...",
		},
		Flags: slices.Concat(gateEnvFlags(), reportFlags(), []ucli.Flag{
			&ucli.StringFlag{Name: "key", Usage: "private key `FILE` of the gate", EnvVars: []string{"WAYBILL_GATE_KEY"}},
			&ucli.BoolFlag{Name: "dry-run", Usage: "decide, but sign and attach nothing"},
			&ucli.StringFlag{Name: "replay", Usage: "evaluate again the decision recorded in this `BUNDLE` (a file, or the digest of one attached to REF)"},
		}),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:   []string{"facts", "policy", "env", "audit"},
		Run:   runGate,
	}
}

// gateEnvFlags are environmentFlags with --env optional, since --replay needs none.
func gateEnvFlags() []ucli.Flag {
	fs := environmentFlags()
	fs[0] = &ucli.StringFlag{Name: "env", Usage: "`ENVIRONMENT` of environments.yaml", EnvVars: []string{"WAYBILL_ENV"}}
	return fs
}

// gateJSON is the result of gate. Verdict and Record are empty after --dry-run.
type gateJSON struct {
	Schema         string            `json:"schema"`
	Allow          bool              `json:"allow"`
	Ref            string            `json:"ref"`
	Digest         artifact.Digest   `json:"digest"`
	Environment    string            `json:"environment"`
	Policy         artifact.Digest   `json:"policyDigest"`
	Basis          evidence.Basis    `json:"basis"`
	Input          artifact.Digest   `json:"inputDigest"`
	DecisionDigest artifact.Digest   `json:"decisionDigest"`
	NotAfter       time.Time         `json:"notAfter"`
	Verdict        artifact.Digest   `json:"verdict"`
	Record         artifact.Digest   `json:"record"`
	Prev           artifact.Digest   `json:"prev"`
	Decision       decision.Decision `json:"decision"`
}

func runGate(ctx context.Context, c *Call) error {
	if c.IsSet("replay") {
		return runReplay(ctx, c)
	}
	switch {
	case len(c.Args) == 0:
		return diag.New(diag.Usage, "gate: REF is missing").Hint("waybill gate REF --env ENV --key gate.key")
	case c.String("env") == "":
		return diag.New(diag.Usage, "gate: --env is missing").Hint("waybill gate %s --env ENV --key gate.key", c.Args[0])
	case c.String("key") == "" && !c.Bool("dry-run"):
		return diag.New(diag.Usage, "gate: --key is missing").Hint("waybill gate %s --env %s --key gate.key   (or --dry-run)", c.Args[0], c.String("env"))
	}
	reports, err := c.reportTargets()
	if err != nil {
		return err
	}
	var key *sign.Key
	if k := c.String("key"); k != "" && !c.Bool("dry-run") {
		// A wrong key or passphrase is found before anything is decided: a decision that cannot be attested helps nobody.
		var err error
		if key, err = c.openKey(ctx, k, trust.RoleGate); err != nil {
			return err
		}
	}
	rq, place, err := c.gateRequest(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer place.Close()
	if rq.Policy, err = c.pinnedPolicy(ctx, rq.Environments, rq.Environment); err != nil {
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
	if key != nil {
		if err := c.ready(rq.Trust, key, evidence.TypeVSA, o.Input.Model.Name, rq.Environment); err != nil {
			return err
		}
	}
	vsa, err := o.VSA()
	if err != nil {
		return err
	}
	out := gateJSON{
		Schema: schemaBase + "gate/v1", Allow: o.Decision.Allow, Ref: rq.Ref, Digest: rq.Digest, Environment: rq.Environment,
		Policy: rq.Policy.Bundle().Digest(), Basis: o.Basis, Input: o.InputDigest, DecisionDigest: o.DecisionDigest,
		NotAfter: vsa.Waybill.NotAfter, Prev: vsa.Waybill.Prev, Decision: o.Decision,
	}
	var attachErr error
	if !c.Bool("dry-run") {
		attachErr = attachVerdict(ctx, place, key, o, &out)
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
	if !o.Decision.Allow {
		if reportErr != nil {
			c.UI.Warn("%v", reportErr)
		}
		return deniedError(o, rq, attachErr)
	}
	return cmp.Or(attachErr, reportErr)
}

func attachVerdict(ctx context.Context, place *openPlace, key *sign.Key, o *gate.Outcome, out *gateJSON) error {
	verdict, record, err := o.Attest(ctx, key)
	if err != nil {
		return err
	}
	// The record goes first: a verdict never stands without what it was reached from.
	if _, err := place.Attach(ctx, o.Manifest, record, evidence.TypeDecision); err != nil {
		return err
	}
	out.Record = artifact.DigestOf(record)
	if _, err := place.Attach(ctx, o.Manifest, verdict, evidence.TypeVSA); err != nil {
		return err
	}
	out.Verdict = artifact.DigestOf(verdict)
	return nil
}

// digestRef is the reference by digest, which the next command takes.
func digestRef(ref string, d artifact.Digest) string {
	if name, _, ok := strings.Cut(ref, "@"); ok {
		return name + "@" + string(d)
	}
	slash := strings.LastIndex(ref, "/")
	if i := strings.LastIndex(ref, ":"); i > slash {
		ref = ref[:i]
	}
	return ref + "@" + string(d)
}

// reportDecision tells the decision on stderr.
func (c *Call) reportDecision(o *gate.Outcome, out gateJSON, attachErr error) {
	u, d := c.UI, o.Decision
	basis := fmt.Sprintf("channel %s, no record yet", o.Basis.Channel)
	if o.Basis.Seq > 0 {
		basis = fmt.Sprintf("channel %s seq %d (%s)", o.Basis.Channel, o.Basis.Seq, o.Basis.Champion.Short())
	}
	u.Say("environment %s  policy %s  basis %s", out.Environment, policyName(o.Policy.Bundle()), basis)
	u.Say("")
	failed := decision.IDs(d.Violations)
	if d.Allow {
		u.Say("  %s  %d rules", u.Err.Green("ALLOWED"), len(d.Rules))
	} else {
		u.Say("  %s  %d of %d rules", u.Err.Red("DENIED"), len(failed), len(d.Rules))
	}
	if d.Error != "" {
		u.Say("  error: %s", d.Error)
	}
	c.reportResults(d.Violations, o, out, u.Err.Red)
	c.reportResults(d.Warnings, o, out, u.Err.Yellow)
	c.reportResults(d.Exceptions, o, out, u.Err.Yellow)
	u.Say("")
	count := map[decision.Status]int{}
	for _, r := range d.Rules {
		count[r.Status]++
	}
	line := fmt.Sprintf("%d rules passed", count[decision.Pass])
	if n := count[decision.Skipped]; n > 0 {
		line += fmt.Sprintf(", %d skipped", n)
	}
	if w := decision.IDs(d.Warnings); len(w) > 0 {
		line += fmt.Sprintf(", %s (%s)", ui.Plural(len(w), "warning"), strings.Join(w, ", "))
	}
	if x := decision.IDs(d.Exceptions); len(x) > 0 {
		line += fmt.Sprintf(", %s (%s)", ui.Plural(len(x), "exception"), strings.Join(x, ", "))
	}
	switch {
	case attachErr != nil:
		line += ". The verdict could NOT be attached"
	case out.Verdict != "":
		line += ". The verdict is attached: " + string(out.Verdict)
	default:
		line += ". Dry run: nothing was signed"
	}
	u.Say("  %s", line)
}

func (c *Call) reportResults(rs []decision.Result, o *gate.Outcome, out gateJSON, colour func(string) string) {
	signer := map[string]string{}
	for _, a := range slices.Concat(o.Input.Signatures, o.Input.Attestations) {
		if a.Verified {
			signer[a.Bundle] = evidence.NameOf(a.PredicateType) + " by " + a.Signer.Name
		} else {
			signer[a.Bundle] = evidence.NameOf(a.PredicateType) + ", not verified"
		}
	}
	for i, r := range rs {
		c.UI.Say("")
		c.UI.Say("  %s  %-8s  %s", colour(fmt.Sprintf("%-9s", r.ID)), r.Severity, r.Message)
		for _, e := range r.Evidence {
			who := ""
			if s := signer[e]; s != "" {
				who = " (" + s + ")"
			}
			c.UI.Say("  %-9s  evidence  %s%s", "", e, who)
		}
		if i+1 == len(rs) || rs[i+1].ID != r.ID {
			c.UI.Say("  %-9s  fix       %s", "", remedy(r.Remediation, out))
		}
	}
}

// remedy fills in what is known here.
func remedy(s string, out gateJSON) string {
	words := strings.Fields(s)
	for i, w := range words {
		switch w {
		case "REF":
			words[i] = digestRef(out.Ref, out.Digest)
		case "ENV":
			words[i] = out.Environment
		case "CHAMPION":
			words[i] = digestRef(out.Ref, out.Basis.Champion)
		}
	}
	return strings.Join(words, " ")
}

// deniedError is what ends a denial: the rules in one line, since the report has told them in full.
func deniedError(o *gate.Outcome, rq gate.Request, attachErr error) error {
	ids := decision.IDs(o.Decision.Violations)
	cause := fmt.Errorf("policy denies %s %s: %s", o.Input.Model.Name, o.Input.Model.Version, strings.Join(ids, ", "))
	if o.Decision.Error != "" {
		cause = fmt.Errorf("the policy could not be evaluated: %s", o.Decision.Error)
	}
	if attachErr != nil {
		cause = fmt.Errorf("%w; the denial could not be attached: %w", cause, attachErr)
	}
	e := diag.Wrap(diag.Denied, cause, "gate for %s", rq.Environment)
	if len(ids) > 0 {
		e.Hint("waybill policy show %s", ids[0])
	}
	return e
}

type replayJSON struct {
	Schema string `json:"schema"`
	Signer string `json:"signer"` // key id of the gate that recorded it; "" when --trust was not there to check
	gate.Replay
}

// runReplay evaluates a recorded decision again.
func runReplay(ctx context.Context, c *Call) error {
	raw, err := c.recorded(ctx)
	if err != nil {
		return err
	}
	b, err := evidence.OpenBundle(raw)
	if err != nil {
		return diag.Wrap(diag.Verification, err, "replay")
	}
	st, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return diag.Wrap(diag.Verification, err, "replay")
	}
	if st.PredicateType != evidence.TypeDecision {
		return diag.New(diag.Usage, "replay: this bundle holds a %s statement, not a decision", evidence.NameOf(st.PredicateType)).
			Hint("the record stands beside the verdict: waybill audit show REF")
	}
	out := replayJSON{Schema: schemaBase + "gate-replay/v1"}
	doc, err := c.loadTrust()
	switch {
	case err == nil:
		certs, err := c.certificates()
		if err != nil {
			return err
		}
		e, err := verify.Bundle(raw, doc, verify.Want{
			PredicateType: evidence.TypeDecision, Subject: st.SubjectDigest(), AnyScope: true, Now: c.Env.Now(), Certificates: certs,
		})
		if err != nil {
			return err
		}
		out.Signer = e.KeyID
	case diag.CodeOf(err) == diag.NotFound && !c.IsSet("trust"):
		c.UI.Warn("the record's signature was not checked: there is no trust document here (--trust FILE)")
	default:
		return err
	}
	pb, _, err := c.openPolicy(c.String("policy"))
	if err != nil {
		return err
	}
	r, err := gate.Again(ctx, st.Predicate, c.evaluator(pb))
	if errors.Is(err, gate.ErrPolicy) {
		return diag.Wrap(diag.NotFound, err, "replay").Hint("give the policy of the record: --policy PATH")
	}
	if err != nil {
		return diag.Wrap(diag.Verification, err, "replay")
	}
	out.Replay = *r
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		u := c.UI
		u.Say("recorded %s  input %s  policy %s", r.Recorded.Short(), r.Input.Short(), policyName(pb))
		for _, x := range r.Changes {
			u.Say("  %s", x)
		}
		if r.Same {
			u.Say("  %s  the same decision comes out", u.Err.Green("SAME"))
		}
		u.Data("%s", r.Replayed)
	}
	if !r.Same {
		return diag.New(diag.Verification, "replay: another decision comes out: %s, recorded %s", r.Replayed, r.Recorded)
	}
	return nil
}

// recorded finds the bundle that --replay names.
func (c *Call) recorded(ctx context.Context) ([]byte, error) {
	name := c.String("replay")
	d, err := artifact.ParseDigest(name)
	if err != nil {
		if len(c.Args) > 0 {
			return nil, diag.New(diag.Usage, "replay: with REF, --replay takes the digest of an attached bundle, not %q", name).
				Hint("waybill gate %s --replay sha256:...   (the digests: waybill audit show %s)", c.Args[0], c.Args[0])
		}
		raw, err := readSmall(c.Abs(name), artifact.MaxBundle)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrInvalid) {
			return nil, diag.New(diag.NotFound, "replay: %s is neither a file nor a digest", name).Hint("waybill gate REF --replay sha256:...")
		}
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "replay")
		}
		return raw, nil
	}
	if len(c.Args) == 0 {
		return nil, diag.New(diag.Usage, "replay: REF is missing: which artifact is %s attached to?", d.Short()).Hint("waybill gate REF --replay %s", d)
	}
	place, _, model, err := c.openModel(ctx, c.Args[0])
	if err != nil {
		return nil, err
	}
	defer place.Close()
	raws, err := facts.FromRepository(place).Bundles(ctx, model.Digest)
	if err != nil {
		return nil, err
	}
	for _, raw := range raws {
		if artifact.DigestOf(raw) == d {
			return raw, nil
		}
	}
	return nil, diag.New(diag.NotFound, "replay: no bundle %s is attached to %s", d, c.Args[0]).Hint("waybill audit show %s", c.Args[0])
}
