package facts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/input"
)

// MaxDocument bounds what a document takes of the record of a decision, which holds it without white space, together with
// the references to what it rests on, which the verdict lists. See decision.MaxBytes for the sum: a denial is always
// attested, so what a gate decides about has to fit into what it signs, whoever attached how much.
const MaxDocument = 288 << 10

const (
	referenceBytes = 96 // of one digest among a verdict's inputAttestations: 89 and a little
	maxKept        = 16 // problems that stay beside the one about size
)

// size is what the document and its references take of a record or a verdict.
func (r *Result) size() (int, error) {
	doc, err := r.Input.Canonical()
	if err != nil {
		return 0, err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, doc); err != nil {
		return 0, err
	}
	return b.Len() + referenceBytes*len(r.Used), nil
}

// bound leaves whole parts of the document out while it is larger than limit, the ones that strangers can fill first, and
// says so as a problem, which denies. No list is cut: a part of one would let whoever filled it choose what a policy sees.
// Equal documents stay equal.
func (r *Result) bound(limit int) error {
	n, err := r.size()
	if err != nil || n <= limit {
		return err
	}
	was := r.counts()
	for _, step := range []struct {
		what string
		drop func(*Result)
	}{
		{"all evidence", dropEvidence}, {"what the artifact says of itself", dropArtifact}, {"the environment's demands and the lists of trust", dropDemands},
	} {
		step.drop(r)
		was.parts = append(was.parts, step.what)
		full := r.Input.Artifact.Problems
		r.Input.Artifact.Problems = append(full[:len(full):len(full)], input.Note{Code: input.LeftOut, Text: clip(was.text(n, limit), maxNote)})
		r.Input.Normalize()
		now, err := r.size()
		if err != nil || now <= limit {
			return err
		}
		r.Input.Artifact.Problems = full
	}
	return errors.New("the facts do not fit into a record even with every list left out")
}

// counted is how much there was.
type counted struct {
	parts []string
	lists string
}

func (r *Result) counts() counted {
	in := &r.Input
	return counted{lists: fmt.Sprintf("%d signatures, %d attestations, %d metrics, %d data sets, %d provenances, %d tests, %d vulnerabilities, %d approvals, %d exceptions, %d verdicts, %d metrics of the champion, %d layers, %d problems",
		len(in.Signatures), len(in.Attestations), len(in.Metrics), len(in.Datasets), len(in.Provenance), len(in.Tests), len(in.Vulnerabilities.Findings),
		len(in.Approvals), len(in.Exceptions), len(in.Verdicts), len(in.Champion.Metrics), len(in.Artifact.Layers), len(in.Artifact.Problems))}
}

func (c counted) text(n, limit int) string {
	s := fmt.Sprintf("the facts have %d bytes, more than the %d that a record of the decision holds; left out: ", n, limit)
	for i, p := range c.parts {
		if i > 0 {
			s += ", "
		}
		s += p
	}
	return s + " (there were " + c.lists + ")"
}

func dropEvidence(r *Result) {
	in := &r.Input
	in.Provenance, in.Signatures, in.Attestations, in.Metrics, in.Datasets, in.Tests = nil, nil, nil, nil, nil, nil
	in.Approvals, in.Exceptions, in.Verdicts = nil, nil, nil
	in.SBOM, in.Vulnerabilities = input.SBOM{}, input.Vulnerabilities{}
	in.ModelCard = input.ModelCard{Present: in.ModelCard.Present, Path: in.ModelCard.Path, Digest: in.ModelCard.Digest}
	m := &in.Model
	m.Declared, m.Owner, m.Risk, m.Status, m.Trained, m.BaseModels = "", "", "", "", "", nil
	ch := &in.Champion
	ch.Metrics, ch.Verdict = nil, ""
	if ch.Verified && ch.Seq > 0 {
		ch.Verified, ch.Reason = false, "left out: the facts were too large"
	}
	r.Used = nil
	if ch.Seq > 0 {
		r.Used = []artifact.Digest{artifact.Digest(ch.Record)}
	}
}

func dropArtifact(r *Result) {
	in := &r.Input
	in.Artifact.Layers = nil
	if p := in.Artifact.Problems; len(p) > maxKept {
		in.Artifact.Problems = p[:maxKept:maxKept]
	}
	in.Model = input.Model{Name: clip(in.Model.Name, maxNote), Version: clip(in.Model.Version, maxNote), Epoch: in.Model.Epoch}
	in.Build, in.ModelCard = input.Build{}, input.ModelCard{}
	in.Context.RequestedRef = clip(in.Context.RequestedRef, maxNote)
	in.Champion.Version = clip(in.Champion.Version, maxNote)
}

func dropDemands(r *Result) {
	in := &r.Input
	in.Trust.Revoked, in.Trust.Policies = nil, nil
	e := in.Environment
	in.Environment = input.Environment{Name: e.Name, Version: e.Version, Profile: e.Profile, Digest: e.Digest, Verified: e.Verified,
		Reason: clip(e.Reason, maxNote), Namespace: e.Namespace, Channel: e.Channel, PolicyDigest: e.PolicyDigest, MinTrust: e.MinTrust,
		NotAfterDays: e.NotAfterDays, Signers: e.Signers, After: e.After}
	// The next verdict follows the newest one; what else there is to join or to miss, later ones say.
	if c := r.Chain; len(c.Heads)+len(c.Missing) > maxKept {
		r.Chain = &evidence.Chain{Verdicts: c.Verdicts, Heads: c.Heads[:min(1, len(c.Heads))]}
		in.VerdictChain = input.VerdictChain{Heads: texts(r.Chain.Heads)}
	}
}
