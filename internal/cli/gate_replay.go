package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/open-policy-agent/opa/v1/version"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
)

type replayJSON struct {
	Schema  string          `json:"schema"`
	Record  artifact.Digest `json:"record"`  // the bundle that was replayed
	Signer  string          `json:"signer"`  // key id of the gate that recorded it; "" when --trust was not there to check
	Verdict artifact.Digest `json:"verdict"` // the bundle beside it that names this decision; "" when there is none
	gate.Replay
}

// runReplay evaluates a recorded decision again.
func runReplay(ctx context.Context, c *Call) error {
	rec, err := c.recorded(ctx)
	if err != nil {
		return err
	}
	out := replayJSON{Schema: schemaBase + "gate-replay/v1", Record: artifact.DigestOf(rec.raw)}
	doc, certs, err := c.replayTrust()
	if err != nil {
		return err
	}
	if doc != nil {
		e, err := verify.Bundle(rec.raw, doc, verify.Want{
			PredicateType: evidence.TypeDecision, Subject: rec.subject, AnyScope: true, Now: c.Env.Now(), Certificates: certs,
		})
		if err != nil {
			return err
		}
		out.Signer = e.KeyID
	}
	v, err := c.verdictBeside(rec, doc, certs, &out)
	if err != nil {
		return err
	}
	policy, _, _, err := gate.Recorded(rec.predicate)
	if err != nil {
		return diag.Wrap(diag.Verification, err, "replay")
	}
	b, err := c.replayPolicy(ctx, policy)
	if err != nil {
		return err
	}
	r, err := gate.Again(ctx, rec.predicate, c.evaluator(b))
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
		u.Say("recorded %s  input %s  policy %s", r.Recorded.Short(), r.Input.Short(), policyName(b))
		for _, x := range r.Changes {
			u.Say("  %s", x)
		}
		if r.Same {
			u.Say("  %s  the same decision comes out", u.Err.Green("SAME"))
		}
		u.Data("%s", r.Replayed)
	}
	if !r.Same {
		d := diag.New(diag.Verification, "replay: another decision comes out: %s, recorded %s", r.Replayed, r.Recorded)
		if v != nil && v.Verifier.Version["opa"] != version.Version {
			d.Line("it was recorded with OPA %s, this is %s", v.Verifier.Version["opa"], version.Version)
		}
		if doc == nil {
			d.Line("the record's signature was not checked: it may have been altered").Hint("give the trust document: --trust FILE")
		}
		return d
	}
	return nil
}

// replayTrust is the trust document of --trust; nil when the flag was not given and there is none, which is told.
func (c *Call) replayTrust() (*trust.Document, verify.Certificates, error) {
	doc, err := c.loadTrust()
	if diag.CodeOf(err) == diag.NotFound && !c.IsSet("trust") {
		c.UI.Warn("the record's signature was not checked: there is no trust document here (--trust FILE)")
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	certs, err := c.certificates()
	return doc, certs, err
}

// recordedDecision is a recorded decision and the bundles that it was found among.
type recordedDecision struct {
	raw       []byte
	subject   artifact.Digest
	predicate []byte
	verdict   artifact.Digest // that was asked for in its place; "" when it was the record
	beside    [][]byte
	attached  bool // beside are the bundles attached to the artifact
}

// verdictBeside finds the verdicts that pin this record and holds them against it. Only verified ones count where there is a
// trust document.
func (c *Call) verdictBeside(rec *recordedDecision, doc *trust.Document, certs verify.Certificates, out *replayJSON) (*evidence.VSA, error) {
	_, in, dec, err := gate.Recorded(rec.predicate)
	if err != nil {
		return nil, diag.Wrap(diag.Verification, err, "replay")
	}
	var found *evidence.VSA
	for _, raw := range rec.beside {
		typ, predicate, err := statementIn(raw)
		if err != nil || typ != evidence.TypeVSA {
			continue
		}
		v, err := evidence.ParseVSA(predicate)
		d := artifact.DigestOf(raw)
		if err != nil || d != rec.verdict && v.Waybill.DecisionDigest != dec && v.Waybill.InputDigest != in {
			continue
		}
		if doc != nil {
			if _, err := verify.Bundle(raw, doc, verify.Want{PredicateType: evidence.TypeVSA, Subject: rec.subject, AnyScope: true, Now: c.Env.Now(), Certificates: certs}); err != nil {
				if d == rec.verdict {
					return nil, err
				}
				continue
			}
		}
		if why := gate.Disagree(v, rec.predicate); why != "" {
			return nil, diag.New(diag.Verification, "replay: verdict %s and the record disagree: %s", d, why)
		}
		found, out.Verdict = v, d
	}
	if found == nil && rec.attached {
		c.UI.Warn("no verdict that is attached names this decision")
	}
	return found, nil
}

// recorded finds the record that --replay names: by its own digest or its verdict's, or in a file.
func (c *Call) recorded(ctx context.Context) (*recordedDecision, error) {
	name := c.String("replay")
	d, err := artifact.ParseDigest(name)
	if err != nil {
		if len(c.Args) > 0 {
			return nil, diag.New(diag.Usage, "replay: with REF, --replay takes the digest of an attached bundle, not %q", name).
				Hint("waybill gate %s --replay sha256:...   (the digests: waybill audit show %s)", c.Args[0], c.Args[0])
		}
		raw, err := readSmall(c.Abs(name), 2*artifact.MaxBundle+2)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrInvalid) {
			return nil, diag.New(diag.NotFound, "replay: %s is neither a file nor a digest", name).Hint("waybill gate REF --replay sha256:...")
		}
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "replay")
		}
		return pick(bundlesIn(raw), "")
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
			r, err := pick(raws, d)
			if err != nil {
				return nil, err
			}
			r.attached = true
			if r.subject != model.Digest {
				return nil, diag.New(diag.Verification, "replay: the record is about %s, not about %s", r.subject, model.Digest)
			}
			return r, nil
		}
	}
	return nil, diag.New(diag.NotFound, "replay: no bundle %s is attached to %s", d, c.Args[0]).Hint("waybill audit show %s", c.Args[0])
}

// bundlesIn splits a file: one bundle, or one per line.
func bundlesIn(raw []byte) [][]byte {
	if _, err := evidence.OpenBundle(raw); err == nil {
		return [][]byte{raw}
	}
	var out [][]byte
	for line := range bytes.Lines(raw) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, line)
		}
	}
	return out
}

// pick chooses the record among bundles: the one with digest want, or the one that the verdict want names. With want "" the
// first bundle is what is asked for.
func pick(raws [][]byte, want artifact.Digest) (*recordedDecision, error) {
	var raw []byte
	for _, x := range raws {
		if want == "" || artifact.DigestOf(x) == want {
			raw = x
			break
		}
	}
	typ, predicate, err := statementIn(raw)
	switch {
	case err != nil:
		return nil, diag.Wrap(diag.Verification, err, "replay")
	case typ == evidence.TypeDecision:
		return newRecorded(raw, predicate, "", raws)
	case typ != evidence.TypeVSA:
		return nil, diag.New(diag.Usage, "replay: this bundle holds a %s statement, neither a recorded decision nor a verdict", evidence.NameOf(typ)).
			Hint("the record stands beside the verdict: waybill audit show REF")
	}
	v, err := evidence.ParseVSA(predicate)
	if err != nil {
		return nil, diag.Wrap(diag.Verification, err, "replay")
	}
	verdict := artifact.DigestOf(raw)
	for _, x := range raws {
		typ, predicate, err := statementIn(x)
		if err != nil || typ != evidence.TypeDecision {
			continue
		}
		if _, _, dec, err := gate.Recorded(predicate); err == nil && dec == v.Waybill.DecisionDigest {
			return newRecorded(x, predicate, verdict, raws)
		}
	}
	return nil, diag.New(diag.NotFound, "replay: the record of verdict %s, decision %s, is not beside it", verdict, v.Waybill.DecisionDigest).
		Hint("the record stands beside the verdict: waybill audit show REF")
}

func newRecorded(raw, predicate []byte, verdict artifact.Digest, beside [][]byte) (*recordedDecision, error) {
	b, err := evidence.OpenBundle(raw)
	if err != nil {
		return nil, diag.Wrap(diag.Verification, err, "replay")
	}
	st, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return nil, diag.Wrap(diag.Verification, err, "replay")
	}
	return &recordedDecision{raw: raw, subject: st.SubjectDigest(), predicate: predicate, verdict: verdict, beside: beside}, nil
}
