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
	return collect(ctx, src, chans, rq, seam{})
}

func collect(ctx context.Context, src Source, chans Channels, rq Request, s seam) (*Result, error) {
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
	c := &collector{in: &in, doc: rq.Trust, now: rq.Context.Time, env: rq.Environment, certs: rq.Certificates, layers: model.Layers, seam: s}
	if err := c.artifact(ctx, src, model, rq); err != nil {
		return nil, err
	}
	if err := c.evidence(ctx, src, rq.Digest); err != nil {
		return nil, err
	}
	basis := c.champion(ctx, src, chans)
	chain := evidence.ChainOf(c.past, c.raws)
	in.VerdictChain = input.VerdictChain{Complete: chain.Complete(), Missing: texts(chain.MissingDigests()), Heads: texts(chain.Heads)}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in.Normalize()
	slices.Sort(c.used)
	out := &Result{
		Input: in, Used: slices.Compact(c.used), Chain: chain, Basis: basis,
		Manifest: artifact.Descriptor{MediaType: model.Manifest.MediaType, Digest: rq.Digest, Size: int64(len(raw)), ArtifactType: model.Manifest.ArtifactType},
	}
	if s.on("size") {
		err = out.bound(MaxDocument)
	}
	return out, err
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

	bills []*bill   // verified bills of materials
	scans []*scan   // verified scans for vulnerabilities
	vex   []opinion // what verified documents say about findings

	seam
}

// seam lets a test leave a step out, to see that what the step stops then comes through.
type seam struct {
	skip   string                                                               // a step
	bundle func([]byte, *trust.Document, verify.Want) (*verify.Evidence, error) // nil: verify.Bundle
}

func (s seam) on(step string) bool { return s.skip != step }

func (s seam) verifyBundle(raw []byte, doc *trust.Document, w verify.Want) (*verify.Evidence, error) {
	if s.bundle != nil {
		return s.bundle(raw, doc, w)
	}
	return verify.Bundle(raw, doc, w)
}

func (c *collector) problem(code, format string, args ...any) {
	c.in.Artifact.Problems = append(c.in.Artifact.Problems, input.Note{Code: code, Text: clip(fmt.Sprintf(format, args...), maxNote)})
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
	if err := c.within(raws); err != nil {
		c.problem("evidence", "%v", err)
		return nil
	}
	c.raws = raws
	order, by := distinct(raws)
	for _, d := range order {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.read(by[d], d, subject)
	}
	c.settleBills()
	c.settleScans()
	for _, d := range verify.Demands(c.proven, c.doc) {
		// A verdict can't be demanded before there is one.
		if !d.Met() && d.PredicateType != evidence.TypeVSA {
			c.problem("evidence", "%v", verify.Short(d, subject))
		}
	}
	return nil
}

func (c *collector) read(raw []byte, d, subject artifact.Digest) {
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
	a := input.Attestation{PredicateType: clip(typ, evidence.MaxType), Bundle: string(d), Subject: string(about), TimeSource: string(verify.TimeNone)}
	e, err := c.verifyBundle(raw, c.doc, w)
	if err == nil {
		err = c.file(e, env)
	}
	if err != nil {
		a.Reason = clip(err.Error(), maxNote)
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

func texts(ds []artifact.Digest) []string {
	out := make([]string, len(ds))
	for i, d := range ds {
		out[i] = string(d)
	}
	return out
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
