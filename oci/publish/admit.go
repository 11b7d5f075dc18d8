package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Referrers lists what is attached to a digest.
type Referrers interface {
	Reader
	Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error)
}

// Bundles reads every sigstore bundle attached to a digest, ordered by the digest of its manifest. A referrer whose bytes
// are not what they claim proves nothing and is left out; one that can't be read for another reason is an error, since
// it might be a denial.
func Bundles(ctx context.Context, r Referrers, subject artifact.Digest) ([][]byte, error) {
	refs, err := r.Referrers(ctx, subject)
	if err != nil {
		return nil, err
	}
	if len(refs) > artifact.MaxReferrers {
		return nil, diag.New(diag.Verification, "%s has %d referrers, more than the limit of %d", subject.Short(), len(refs), artifact.MaxReferrers)
	}
	var out [][]byte
	for _, ref := range refs {
		b, _, err := layer0(ctx, r, string(ref.Digest), artifact.MediaTypeBundle, artifact.MaxBundle)
		if diag.CodeOf(err) == diag.Verification {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// Need says what a target must prove before it may be published.
type Need struct {
	Ref         string // with the digest, for hints
	Digest      artifact.Digest
	Model       string
	Env         string
	ResourceURI string
	Policies    []artifact.Digest // nil: those of the trust document
	Releases    int               // distinct publisher keys; 0 means 1
	Bases       []evidence.Basis  // states of the channel that the verdict may rest on; nil: any earlier state (rollback)
	Record      *channel.Record   // with Bases nil: the record that will pin the verdict
	Late        bool              // accept a verdict past its notAfter (rollback)
	Classes     []string          // device classes that the record is for; the verdict must cover each. Empty: devices ask for their own
	// Certificates verifies bundles that hold a certificate; nil: pinned keys only.
	Certificates verify.Certificates
}

// Proof is the evidence to pin: the releases, one per publisher key, then the verdict.
type Proof struct {
	Refs    []channel.EvidenceRef
	Raw     [][]byte
	Verdict *evidence.VSA
}

// Admit looks through the bundles of a target for the evidence that a device will demand. No release is a verification
// failure (exit code 3); no verdict that allows this publication is a denial (exit code 4). The newest verdict of the
// gate for the environment decides: a denial after a pass withdraws it.
//
// The gate's verdicts must form a chain without a gap: one that names a verdict which is not attached any more is no ground
// for a publication, whatever it says itself.
func Admit(bundles [][]byte, doc *trust.Document, n Need, now time.Time) (*Proof, error) {
	return admission{}.admit(bundles, doc, n, now)
}

// admission carries the name of a check that a test leaves out, to see that the attack then succeeds.
type admission struct{ skip string }

func (a admission) on(check string) bool { return a.skip != check }

func (a admission) admit(bundles [][]byte, doc *trust.Document, n Need, now time.Time) (*Proof, error) {
	p := &Proof{}
	keys := map[string]bool{}
	need := max(n.Releases, 1)
	if r, ok := doc.Rule(evidence.TypeRelease); ok {
		need = max(need, r.Require)
	}
	var whyNot []string
	for _, raw := range bundles {
		e, err := verify.Bundle(raw, doc, verify.Want{PredicateType: evidence.TypeRelease, Subject: n.Digest, Model: n.Model, Now: now, Certificates: n.Certificates})
		if err != nil {
			if r := verify.ReasonOf(err); r != verify.WrongPredicate {
				whyNot = append(whyNot, artifact.DigestOf(raw).Short()+": "+err.Error())
			}
			continue
		}
		if !keys[e.KeyID] || !a.on("distinct-keys") {
			keys[e.KeyID] = true
			p.add(raw, e)
		}
	}
	if a.on("release") && len(keys) < need {
		d := diag.New(diag.Verification, "%s is released by %d publisher keys, %d are needed", n.Digest.Short(), len(keys), need).
			Hint("waybill sign %s --key publisher.key", n.Ref).Hint("waybill trust show --role publisher")
		for _, w := range whyNot {
			d.Line("%s", w)
		}
		return nil, d
	}
	raw, vsa, err := a.verdict(bundles, doc, n, now)
	if err != nil {
		return nil, err
	}
	w := a.want(n, now)
	var last error
	for _, b := range bases(n) {
		if w.Basis = b; !a.on("basis") {
			w.Basis, w.Record = nil, nil
		}
		e, err := a.covers(raw, doc, w, n.Classes)
		if err == nil {
			p.add(raw, e)
			p.Verdict = vsa
			return p, nil
		}
		last = err
	}
	return nil, denied(last, n)
}

// covers verifies the verdict for every device class of the record.
func (a admission) covers(raw []byte, doc *trust.Document, w verify.VSAWant, classes []string) (*verify.Evidence, error) {
	_, e, err := verify.VSA(raw, doc, w)
	if err != nil || !a.on("classes") {
		return e, err
	}
	for _, c := range classes {
		w.DeviceClass = c
		if _, _, err := verify.VSA(raw, doc, w); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (p *Proof) add(raw []byte, e *verify.Evidence) {
	p.Raw = append(p.Raw, raw)
	p.Refs = append(p.Refs, channel.EvidenceRef{PredicateType: e.PredicateType, Subject: e.Subject, Digest: e.Bundle, Size: int64(len(raw))})
}

// verdict finds the newest verdict of the gate on this digest for this environment, whatever it says.
func (a admission) verdict(bundles [][]byte, doc *trust.Document, n Need, now time.Time) ([]byte, *evidence.VSA, error) {
	found, others := verify.Verdicts(bundles, doc, a.want(n, now))
	if len(found) == 0 {
		d := denied(errors.New("there is no verdict of the gate"), n)
		for _, o := range others {
			d.Line("%s: %s", o.Bundle.Short(), o.Why)
		}
		return nil, nil, d
	}
	chain := evidence.ChainOf(found, bundles)
	if a.on("chain") && !chain.Complete() {
		d := diag.Wrap(diag.Denied, fmt.Errorf("the chain of the gate's verdicts is broken: %d of them taken away", len(chain.MissingDigests())), "%s may not ship to %s", n.Digest.Short(), n.Env)
		for _, g := range chain.Missing {
			d.Line("%s is not attached; %s came after it", g.Digest, g.By.Short())
		}
		return nil, nil, d.Line("a pass counts only with all the verdicts before it: attach what is missing again, or release a new version").
			Hint("waybill gate %s --attach FILE", n.Ref)
	}
	newest := chain.Newest()
	if !a.on("newest") {
		if i := slices.IndexFunc(chain.Verdicts, func(v evidence.Verdict) bool { return v.VSA.VerificationResult == evidence.Passed }); i >= 0 {
			newest = &chain.Verdicts[i]
		}
	}
	for _, raw := range bundles {
		if artifact.DigestOf(raw) == newest.Bundle {
			return raw, newest.VSA, nil
		}
	}
	return nil, nil, errors.New("unreachable: the verdict came from these bundles")
}

func (a admission) want(n Need, now time.Time) verify.VSAWant {
	w := verify.VSAWant{
		Certificates: n.Certificates,
		Subject:      n.Digest, ResourceURI: n.ResourceURI, Model: n.Model, Env: n.Env, PinnedPolicies: n.Policies, Now: now,
		Record: n.Record, IgnoreExpiry: n.Late || !a.on("not-after"),
	}
	if !a.on("policy") {
		w.PinnedPolicies = nil
	}
	return w
}

func bases(n Need) []*evidence.Basis {
	if n.Bases == nil {
		return []*evidence.Basis{nil}
	}
	var out []*evidence.Basis
	for _, b := range slices.Clone(n.Bases) {
		out = append(out, &b)
	}
	return out
}

func denied(cause error, n Need) *diag.Error {
	return diag.Wrap(diag.Denied, cause, "%s may not ship to %s", n.Digest.Short(), n.Env).
		Hint("waybill gate %s --env %s --key gate.key", n.Ref, n.Env)
}

// Bases lists the states that a verdict may rest on now: the head, and the records before it that the head only
// refreshed, since a refresh changes nothing that the gate looks at.
func Bases(ctx context.Context, r Reader, st *State, name string, doc *trust.Document, now time.Time) ([]evidence.Basis, error) {
	if st.Head == nil {
		return []evidence.Basis{{Channel: name}}, nil
	}
	var out []evidence.Basis
	for e := st.Head; ; {
		out = append(out, evidence.Basis{Channel: name, Seq: e.Record.Seq, Champion: e.Record.Target.Digest})
		if e.Record.Seq == 1 || len(out) == 64 {
			return out, nil
		}
		prev, err := Record(ctx, r, name, e.Record.Seq-1, doc, now)
		if err != nil {
			// What can't be verified any more, because of a rotation for example, is no state to rest on.
			if diag.CodeOf(err) == diag.Verification || diag.CodeOf(err) == diag.NotFound {
				return out, nil
			}
			return nil, err
		}
		if !channel.SameContent(prev.Record, e.Record) || prev.Bundle != e.Record.Prev {
			return out, nil
		}
		e = prev
	}
}
