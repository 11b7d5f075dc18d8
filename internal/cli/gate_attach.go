package cli

import (
	"bytes"
	"context"
	"slices"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
)

// attestVerdict signs record and verdict, writes them to --out, and attaches them.
func (c *Call) attestVerdict(ctx context.Context, place *openPlace, k author, o *gate.Outcome, out *gateJSON) error {
	verdict, record, err := o.Attest(ctx, k)
	if err != nil {
		return err
	}
	out.Signer, out.Identity = k.KeyID(), identityOf(k)
	if f := c.String("out"); f != "" {
		lines := slices.Concat(record, []byte("\n"), verdict, []byte("\n"))
		if err := c.writeNew(c.Abs(f), lines, 0o644, c.Bool("force")); err != nil {
			return err
		}
		out.Out = f
	}
	if c.Bool("no-attach") {
		return nil
	}
	// The record goes first: a verdict never stands without what it was reached from.
	if _, err := place.Attach(ctx, o.Manifest, record, evidence.TypeDecision); err != nil {
		return notAttached(err, out)
	}
	out.Record = artifact.DigestOf(record)
	if _, err := place.Attach(ctx, o.Manifest, verdict, evidence.TypeVSA); err != nil {
		return notAttached(err, out)
	}
	out.Verdict = artifact.DigestOf(verdict)
	return nil
}

// notAttached says where the verdict is, or how to keep one.
func notAttached(err error, out *gateJSON) error {
	ref := digestRef(out.Ref, out.Digest)
	d := diag.Wrap(diag.CodeOf(err), err, "attach the verdict to %s", ref)
	if out.Out != "" {
		return d.Line("it is kept in %s", out.Out).Hint("waybill gate %s --attach %s", ref, out.Out)
	}
	return d.Hint("waybill gate %s --env %s --key gate.key --out verdict.jsonl --no-attach   (and later --attach verdict.jsonl)", ref, out.Environment)
}

// lookAside warns when another gate decided at the same time, without having seen this verdict. It asks after the verdict is
// attached: until then nobody can tell. That it cannot ask is no failure, since whoever publishes asks again.
func (c *Call) lookAside(ctx context.Context, src facts.Source, rq gate.Request, o *gate.Outcome, mine artifact.Digest) {
	bundles, err := src.Bundles(ctx, rq.Digest)
	if err != nil {
		c.UI.Why("whether another gate decided at the same time could not be asked: %v", err)
		return
	}
	found, _ := verify.Verdicts(bundles, rq.Trust, verify.VSAWant{
		Subject: rq.Digest, ResourceURI: o.Input.Artifact.ResourceURI, Model: o.Input.Model.Name, Env: rq.Environment, Now: rq.Now, Certificates: rq.Certificates,
	})
	chain := evidence.ChainOf(found, bundles)
	for _, h := range chain.Heads {
		if h != mine && len(chain.Heads) > 1 {
			c.UI.Warn("another gate decided at the same time: %s; a denial of the two counts until a next verdict joins them", h)
		}
	}
}

type gateAttachJSON struct {
	Schema  string            `json:"schema"`
	Ref     string            `json:"ref"`
	Digest  artifact.Digest   `json:"digest"`
	Bundles []artifact.Digest `json:"bundles"` // attached now, in that order
	There   []artifact.Digest `json:"there"`   // attached before
	DryRun  bool              `json:"dryRun"`
}

// runGateAttach attaches what --out kept, after verifying that it is what a gate signed about this artifact.
func runGateAttach(ctx context.Context, c *Call) error {
	doc, err := c.loadTrust()
	if err != nil {
		return err
	}
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	file := c.String("attach")
	raw, err := c.readFile(file, 2*artifact.MaxBundle+2)
	if err != nil {
		return err
	}
	s, err := c.subject(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	p, err := openPair(raw)
	if err != nil {
		return diag.Wrap(diag.CodeOf(err), err, "%s", file).Hint("waybill gate %s --env ENV --key gate.key --out FILE --no-attach", s.Pinned())
	}
	for _, x := range []struct {
		typ string
		raw []byte
	}{{evidence.TypeDecision, p.record}, {evidence.TypeVSA, p.verdict}} {
		if _, err := verify.Bundle(x.raw, doc, verify.Want{PredicateType: x.typ, Subject: s.Desc.Digest, Model: s.Name, AnyScope: true, Now: c.Env.Now(), Certificates: certs}); err != nil {
			return diag.Wrap(diag.Verification, err, "%s: %s", file, evidence.NameOf(x.typ)).Line("nothing was attached")
		}
	}
	if why := gate.Disagree(p.vsa, p.predicate); why != "" {
		return diag.New(diag.Verification, "%s: verdict and record disagree: %s", file, why).Line("nothing was attached")
	}
	there, err := facts.FromRepository(s.Place).Bundles(ctx, s.Desc.Digest)
	if err != nil {
		return err
	}
	out := gateAttachJSON{Schema: schemaBase + "gate-attach/v1", Ref: s.Pinned(), Digest: s.Desc.Digest, Bundles: []artifact.Digest{}, There: []artifact.Digest{}, DryRun: c.Bool("dry-run")}
	for _, x := range []struct {
		typ string
		raw []byte
	}{{evidence.TypeDecision, p.record}, {evidence.TypeVSA, p.verdict}} {
		d := artifact.DigestOf(x.raw)
		if slices.ContainsFunc(there, func(b []byte) bool { return bytes.Equal(b, x.raw) }) {
			out.There = append(out.There, d)
			continue
		}
		if !out.DryRun {
			if _, err := s.Place.Attach(ctx, s.Desc, x.raw, x.typ); err != nil {
				return err
			}
		}
		out.Bundles = append(out.Bundles, d)
		c.UI.Field(evidence.NameOf(x.typ), "%s", d)
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.UI.Data("%s", s.Pinned())
	return nil
}

// pair is a record and the verdict that pins it, in bundles.
type pair struct {
	record, verdict []byte
	predicate       []byte // of the record
	vsa             *evidence.VSA
}

// openPair reads what --out writes: a record and a verdict, one bundle per line. No signature is checked.
func openPair(raw []byte) (*pair, error) {
	p := &pair{}
	for line := range bytes.Lines(raw) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		typ, predicate, err := statementIn(line)
		switch {
		case err != nil:
			return nil, diag.Wrap(diag.Verification, err, "a line")
		case typ == evidence.TypeDecision && p.record == nil:
			p.record, p.predicate = bytes.Clone(line), predicate
		case typ == evidence.TypeVSA && p.verdict == nil:
			p.verdict = bytes.Clone(line)
			if p.vsa, err = evidence.ParseVSA(predicate); err != nil {
				return nil, err
			}
		default:
			return nil, diag.New(diag.Usage, "a second %s statement, or one that no gate makes", evidence.NameOf(typ))
		}
	}
	if p.record == nil || p.verdict == nil {
		return nil, diag.New(diag.Usage, "not a record and a verdict, one bundle per line")
	}
	return p, nil
}

// statementIn gives type and predicate of the statement in a bundle, unverified.
func statementIn(raw []byte) (typ string, predicate []byte, err error) {
	b, err := evidence.OpenBundle(raw)
	if err != nil {
		return "", nil, err
	}
	st, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return "", nil, err
	}
	return st.PredicateType, st.Predicate, nil
}
