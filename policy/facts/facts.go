// Package facts turns an artifact, its evidence and the state of a channel into the facts document of policy/input. It is
// the only place where a policy's facts are made: bytes are hashed, signatures verified (oci/verify), documents parsed
// strictly. What does not verify becomes a fact with its reason and never an error, so that the policy denies and says
// why. Everything read is bounded.
package facts

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

// Source is where an artifact and its evidence live. Nothing that it returns is believed.
type Source interface {
	// Manifest returns the manifest bytes with that digest.
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, error)
	// Blob opens a blob; the reader ends after size bytes or fails.
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
	// Bundles returns every sigstore bundle attached to a digest, in any order.
	Bundles(ctx context.Context, subject artifact.Digest) ([][]byte, error)
}

// Channels gives the record that a channel's moving tag names now.
type Channels interface {
	// Record returns the record's bundle, or nil when the channel has none yet. An error means: not known.
	Record(ctx context.Context, channel string) ([]byte, error)
}

// Request is one question.
type Request struct {
	Ref         string          // as the user wrote it
	Pinned      bool            // Ref named the digest
	Digest      artifact.Digest // of the model manifest
	Trust       *trust.Document
	Environment input.Environment // verified by the caller; Reason says why not
	Context     input.Context     // Time must be set; the references are filled in here
	// Certificates verifies bundles that hold a certificate; nil: pinned keys only.
	Certificates verify.Certificates
}

// Result is the document and what it rests on.
type Result struct {
	Input    input.Input
	Used     []artifact.Digest // every bundle that verified and speaks in the document, sorted
	Chain    *evidence.Chain   // of the verified verdicts on this digest for this environment
	Manifest artifact.Descriptor
	Basis    evidence.Basis
}

// Collect answers. An error means that not even the artifact could be read: there is nothing to decide about.
func Collect(ctx context.Context, src Source, chans Channels, rq Request) (*Result, error) {
	raw, err := src.Manifest(ctx, rq.Digest)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", rq.Digest.Short(), err)
	}
	model, err := verify.Manifest(raw, rq.Digest)
	if err != nil {
		return nil, err
	}
	in := input.New()
	in.Context = rq.Context
	in.Context.RequestedRef, in.Context.Pinned = rq.Ref, rq.Pinned
	in.Environment = rq.Environment
	if err := trustFacts(&in, rq); err != nil {
		return nil, err
	}
	c := &collector{in: &in, doc: rq.Trust, now: rq.Context.Time, env: rq.Environment, certs: rq.Certificates, layers: model.Layers}
	if err := c.artifact(ctx, src, model, rq); err != nil {
		return nil, err
	}
	if err := c.evidence(ctx, src, rq.Digest); err != nil {
		return nil, err
	}
	basis := c.champion(ctx, src, chans)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in.Normalize()
	slices.Sort(c.used)
	return &Result{
		Input: in, Used: slices.Compact(c.used), Chain: evidence.ChainOf(c.past, c.raws), Basis: basis,
		Manifest: artifact.Descriptor{MediaType: model.Manifest.MediaType, Digest: rq.Digest, Size: int64(len(raw)), ArtifactType: model.Manifest.ArtifactType},
	}, nil
}

func trustFacts(in *input.Input, rq Request) error {
	d, err := rq.Trust.Digest()
	if err != nil {
		return fmt.Errorf("trust document: %w", err)
	}
	t := input.Trust{Version: rq.Trust.Version, Generation: rq.Trust.Generation, Digest: string(d), Expires: rq.Trust.Expires,
		Denied: rq.Trust.IsDenied(rq.Digest), Revoked: slices.Clone(rq.Trust.Revoked)}
	for _, p := range rq.Trust.Policies {
		t.Policies = append(t.Policies, string(p))
	}
	in.Context.Newest = rq.Trust.Issued
	t.Pinned = slices.Contains(t.Policies, rq.Environment.PolicyDigest)
	in.Trust = t
	return nil
}

// collector fills one document. It is used by one goroutine.
type collector struct {
	in     *input.Input
	doc    *trust.Document
	now    time.Time
	env    input.Environment
	certs  verify.Certificates
	layers []artifact.Layer
	used   []artifact.Digest
	raws   [][]byte           // every attached bundle
	past   []evidence.Verdict // on this digest for this environment

	proven []verify.Evidence // about the artifact itself
}

func (c *collector) problem(code, format string, args ...any) {
	c.in.Artifact.Problems = append(c.in.Artifact.Problems, input.Note{Code: code, Text: fmt.Sprintf(format, args...)})
}

// want is what a bundle about a digest of a model must prove here.
func (c *collector) want(model string, subject artifact.Digest, predicateType string) verify.Want {
	return verify.Want{PredicateType: predicateType, Subject: subject, Model: model, Env: c.env.Name, Channel: c.env.Channel, Now: c.now, Certificates: c.certs}
}

// evidence verifies every bundle attached to the artifact and files what each says.
func (c *collector) evidence(ctx context.Context, src Source, subject artifact.Digest) error {
	raws, err := src.Bundles(ctx, subject)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.problem("evidence", "attached evidence could not be listed: %v", err)
		return nil
	}
	if len(raws) > artifact.MaxReferrers {
		c.problem("evidence", "%d bundles are attached, limit %d", len(raws), artifact.MaxReferrers)
		return nil
	}
	c.raws = raws
	seen := map[artifact.Digest]bool{}
	for _, raw := range raws {
		d := artifact.DigestOf(raw)
		if seen[d] {
			continue
		}
		seen[d] = true
		c.bundle(raw, d, subject)
	}
	for _, d := range verify.Demands(c.proven, c.doc) {
		// A verdict can't be demanded before there is one.
		if !d.Met() && d.PredicateType != evidence.TypeVSA {
			c.problem("evidence", "%v", verify.Short(d, subject))
		}
	}
	return nil
}

func (c *collector) bundle(raw []byte, d, subject artifact.Digest) {
	typ, about, env := peek(raw)
	switch typ {
	case evidence.TypeStatus, evidence.TypeDeployment, evidence.TypeDecision:
		return // what devices and targets report, and full records of decisions, are no ground for a verdict
	}
	w := c.want(c.in.Model.Name, subject, typ)
	w.Layers = c.layers
	if typ == evidence.TypeVSA && env != "" {
		w.Env = env // an earlier environment's gate speaks for that environment; its key must be in scope there
	}
	a := input.Attestation{PredicateType: typ, Bundle: string(d), Subject: string(about), TimeSource: string(verify.TimeNone)}
	e, err := verify.Bundle(raw, c.doc, w)
	if err == nil {
		err = c.file(e, env)
	}
	if err != nil {
		a.Reason = err.Error()
	} else {
		a.Verified = true
		a.Signer, a.At, a.TimeSource = signer(e), stated(e.At), string(e.TimeSource)
		c.newest(e.At)
		c.proven = append(c.proven, *e)
		c.used = append(c.used, d)
	}
	if typ == evidence.TypeRelease {
		c.in.Signatures = append(c.in.Signatures, a)
	} else {
		c.in.Attestations = append(c.in.Attestations, a)
	}
}

// newest keeps the latest time that something verified names: no clock may be behind it.
func (c *collector) newest(t time.Time) {
	if t.After(c.in.Context.Newest) {
		c.in.Context.Newest = t
	}
}

// stated writes a time that may not be there.
func stated(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Second).Format(time.RFC3339)
}

// peek reads type, subject and, for a verdict, environment of a bundle without believing them: they only choose what is
// asked of the verifier.
func peek(raw []byte) (typ string, subject artifact.Digest, env string) {
	b, err := evidence.OpenBundle(raw)
	if err != nil {
		return "", "", ""
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return "", "", ""
	}
	if s.PredicateType == evidence.TypeVSA {
		if v, err := evidence.ParseVSA(s.Predicate); err == nil {
			env = v.Waybill.Environment
		}
	}
	return s.PredicateType, s.SubjectDigest(), env
}

func signer(e *verify.Evidence) input.Signer {
	s := input.Signer{KeyID: e.KeyID, Name: e.KeyName, Role: string(e.Role), Kind: "key"}
	if e.Certified != nil {
		s.Kind, s.Issuer, s.Subject = "identity", e.Certified.Issuer, e.Certified.Subject
	}
	return s
}

// file puts what a verified statement says into the document.
func (c *collector) file(e *verify.Evidence, env string) error {
	b := string(e.Bundle)
	switch e.PredicateType {
	case evidence.TypeEvaluation:
		ms, err := metrics(e)
		if err != nil {
			return err
		}
		c.in.Metrics = append(c.in.Metrics, ms...)
	case evidence.TypeDataset:
		ds, err := evidence.ParseDatasets(e.Predicate)
		if err != nil {
			return err
		}
		for _, x := range ds.Datasets {
			c.in.Datasets = append(c.in.Datasets, input.Dataset{Name: x.Name, Role: x.Role, Digest: string(x.Digest), URI: x.URI,
				License: x.License, Rows: x.Rows, PersonalData: x.PersonalData, Bundle: b})
		}
	case evidence.TypeApproval:
		a, err := evidence.ParseApproval(e.Predicate)
		if err != nil {
			return err
		}
		c.in.Approvals = append(c.in.Approvals, input.Approval{Role: a.Role, Granted: slices.Contains(e.ApproverRoles, a.Role),
			Reason: a.Reason, At: a.At, Expires: a.Expires, Bundle: b, Signer: signer(e), Environment: a.Environment, Rejected: a.Rejects()})
	case evidence.TypeException:
		x, err := evidence.ParseException(e.Predicate)
		if err != nil {
			return err
		}
		c.in.Exceptions = append(c.in.Exceptions, input.Exception{Rule: x.Rule, Reason: x.Reason, At: x.At, Expires: x.Expires,
			Ticket: x.Ticket, Bundle: b, Roles: slices.Clone(e.ApproverRoles), Signer: signer(e), Environment: x.Environment})
	case evidence.TypeCycloneDX:
		return c.bom(e)
	case evidence.TypeVSA:
		return c.verdict(e, env)
	}
	return nil
}

func metrics(e *verify.Evidence) ([]input.Metric, error) {
	ev, err := evidence.ParseEvaluation(e.Predicate)
	if err != nil {
		return nil, err
	}
	var out []input.Metric
	for _, m := range ev.Metrics {
		out = append(out, input.Metric{Name: m.Name, Value: m.Value, Direction: m.Direction, Slice: m.Slice, N: m.N,
			CI: append([]float64{}, m.CI...), Dataset: string(m.DatasetDigest), At: ev.At, Bundle: string(e.Bundle), KeyID: e.KeyID})
	}
	return out, nil
}

func (c *collector) verdict(e *verify.Evidence, env string) error {
	v, err := evidence.ParseVSA(e.Predicate)
	if err != nil {
		return err
	}
	if v.Verifier.ID != evidence.GateID {
		return fmt.Errorf("the verdict is of verifier %q, not %q", v.Verifier.ID, evidence.GateID)
	}
	x := v.Waybill
	if x.Environment != env {
		return fmt.Errorf("the verdict is for environment %s, not %s", x.Environment, env)
	}
	c.in.Verdicts = append(c.in.Verdicts, input.Verdict{Environment: x.Environment, Result: v.VerificationResult, NotAfter: x.NotAfter,
		PolicyDigest: string(x.PolicyDigest), ResourceURI: v.ResourceURI, Bundle: string(e.Bundle), KeyID: e.KeyID, At: v.TimeVerified, Prev: string(x.Prev)})
	if env == c.env.Name {
		c.past = append(c.past, evidence.Verdict{Bundle: e.Bundle, VSA: v})
	}
	return nil
}

// champion looks up what the channel names now, verifies the record and reads the champion's own verified evaluation.
func (c *collector) champion(ctx context.Context, src Source, chans Channels) evidence.Basis {
	ch := input.Champion{Channel: c.env.Channel, Metrics: []input.Metric{}}
	defer func() { c.in.Champion = ch }()
	basis := evidence.Basis{Channel: c.env.Channel}
	raw, err := chans.Record(ctx, c.env.Channel)
	if err != nil {
		ch.Reason = "the channel could not be read: " + err.Error()
		return basis
	}
	if raw == nil {
		ch.Verified = true
		return basis
	}
	rec, e, err := verify.Record(raw, c.doc, c.now)
	if verify.ReasonOf(err) == verify.PastGeneration {
		ch.Verified = true // the roots have reset the channel: nothing is in it yet
		return basis
	}
	if err == nil {
		err = sameChannel(rec, c.env, c.in.Model.Name)
	}
	if err != nil {
		ch.Reason = "the channel's record: " + err.Error()
		ch.Record = string(artifact.DigestOf(raw))
		return basis
	}
	c.newest(rec.Issued)
	basis.Seq, basis.Champion = rec.Seq, rec.Target.Digest
	ch.Version, ch.Epoch, ch.EpochFloor = rec.Target.Version, rec.Target.Epoch, rec.EpochFloor
	ch.Seq, ch.Digest, ch.Record = rec.Seq, string(rec.Target.Digest), string(e.Bundle)
	c.used = append(c.used, e.Bundle)
	raws, err := src.Bundles(ctx, rec.Target.Digest)
	if err != nil {
		ch.Reason = "the champion's evidence could not be listed: " + err.Error()
		return basis
	}
	ch.Verified = true
	seen := map[artifact.Digest]bool{}
	for _, b := range raws {
		if typ, _, _ := peek(b); typ != evidence.TypeEvaluation || seen[artifact.DigestOf(b)] {
			continue
		}
		seen[artifact.DigestOf(b)] = true
		ev, err := verify.Bundle(b, c.doc, c.want(rec.Target.Name, rec.Target.Digest, evidence.TypeEvaluation))
		if err != nil {
			continue // what is not verified is no figure to compare with; too few of them deny
		}
		ms, err := metrics(ev)
		if err != nil {
			continue
		}
		ch.Metrics = append(ch.Metrics, ms...)
		c.used = append(c.used, ev.Bundle)
	}
	return basis
}

func sameChannel(r *channel.Record, env input.Environment, model string) error {
	switch {
	case r.Channel != env.Channel:
		return fmt.Errorf("it is for channel %s, not %s", r.Channel, env.Channel)
	case r.Env != env.Name:
		return fmt.Errorf("it is for environment %s, not %s", r.Env, env.Name)
	case r.Target.Name != model:
		return fmt.Errorf("the channel carries model %s, not %s", r.Target.Name, model)
	}
	return nil
}
