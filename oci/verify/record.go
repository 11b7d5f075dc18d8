package verify

import (
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Record verifies a channel record: signed by a deployer or a refresher whose scope covers model, environment and
// channel, subject and record agreeing, made under this trust document or an earlier one of the same generation.
//
// It does not decide whether the record takes the place of the one before (channel.Follows, with
// Evidence.Role == trust.RoleRefresher) nor whether this device may activate its target now (Record.Admit, which
// checks expiry): an expired record must still be comparable.
func Record(raw []byte, doc *trust.Document, now time.Time) (*channel.Record, *Evidence, error) {
	r, e, err := verifier{}.record(raw, doc, now)
	if err != nil {
		return nil, nil, err
	}
	return r, e, nil
}

func (v verifier) record(raw []byte, doc *trust.Document, now time.Time) (*channel.Record, *Evidence, *Error) {
	if len(raw) == 0 {
		return nil, nil, refuse(NoBundle, "no channel record")
	}
	if len(raw) > 4*artifact.MaxRecord { // base64 and the envelope around a statement of MaxRecord
		return nil, nil, refuse(BadBundle, "channel record bundle of %d bytes is larger than the limit of %d", len(raw), 4*artifact.MaxRecord)
	}
	b, s, err := v.open(raw)
	if err != nil {
		return nil, nil, badBundle(err)
	}
	if len(b.DSSEEnvelope.Payload) > artifact.MaxRecord {
		return nil, nil, refuse(BadBundle, "channel record of %d bytes is larger than the limit of %d", len(b.DSSEEnvelope.Payload), artifact.MaxRecord)
	}
	if s.PredicateType != evidence.TypeChannel {
		return nil, nil, refuse(WrongPredicate, "a %s statement, not a channel record", name(s.PredicateType))
	}
	// The record names the scope that its signer must cover; nothing of it is used before the signature holds.
	r, err := channel.Parse(s.Predicate)
	if err != nil {
		return nil, nil, refuse(BadBundle, "%w", err)
	}
	// Only the document that the record was made under, or a later one, can judge it: this one may be expired by then, or give
	// the signer another scope. Nothing is believed of the record: the newer document has to be found and to verify.
	if doc != nil && v.on("trust-version") && r.Trust.Version > doc.Version {
		return nil, nil, refuse(TrustBehind, "record %s seq %d was made under trust document version %d, this is version %d",
			r.Channel, r.Seq, r.Trust.Version, doc.Version)
	}
	// A record of a generation that the roots have closed says nothing any more, whoever signed it and whatever became of the key.
	if doc != nil && v.on("generation") && r.Generation < doc.Generation {
		return nil, nil, refuse(PastGeneration, "record %s seq %d is of generation %d, the roots have opened generation %d since", r.Channel, r.Seq, r.Generation, doc.Generation)
	}
	e, fail := v.opened(raw, b, s, doc, Want{
		PredicateType: evidence.TypeChannel, Subject: r.Target.Digest,
		Model: r.Target.Name, Env: r.Env, Channel: r.Channel, Now: now,
	})
	if fail != nil {
		return nil, nil, fail
	}
	switch {
	case v.on("record-subject") && e.SubjectName != channel.SubjectName(r.Channel):
		return nil, nil, refuse(WrongSubject, "channel record has the subject %q, not %q", e.SubjectName, channel.SubjectName(r.Channel))
	case v.on("generation") && r.Generation > doc.Generation:
		return nil, nil, refuse(BadTrust, "record %s seq %d is of generation %d, the trust document of %d", r.Channel, r.Seq, r.Generation, doc.Generation)
	}
	if d, err := doc.Digest(); v.on("trust-digest") && r.Trust.Version == doc.Version && (err != nil || d != r.Trust.Digest) {
		return nil, nil, refuse(BadTrust, "record %s seq %d was made under another trust document version %d (%s)",
			r.Channel, r.Seq, r.Trust.Version, r.Trust.Digest.Short())
	}
	return r, e, nil
}

// VSAWant says which verdict is needed.
type VSAWant struct {
	Subject        artifact.Digest
	ResourceURI    string            // waybill:<namespace>/<model>
	Model          string            // for the scope of the gate's key
	Env            string            //
	DeviceClass    string            // empty: not a device, classes are not checked
	PinnedPolicies []artifact.Digest // nil: those of the trust document
	Now            time.Time         //

	// Basis, when set, must be the verdict's basis exactly: the publisher's check that the channel has not moved on.
	Basis *evidence.Basis
	// Record, when set, is the record that pins the verdict: the device's check that the verdict was reached for its
	// channel, against a state before it.
	Record *channel.Record
	// IgnoreExpiry lets a verdict past its notAfter through; only a rollback to a target that the channel keeps asks so.
	IgnoreExpiry bool
	Certificates Certificates // as in Want
}

// VSA verifies the gate's verdict on a digest: signed by a gate key in scope, about this digest and resource, PASSED,
// for this environment and device class, under a pinned policy, in time, on the right basis.
func VSA(raw []byte, doc *trust.Document, want VSAWant) (*evidence.VSA, *Evidence, error) {
	a, e, err := verifier{}.vsa(raw, doc, want)
	if err != nil {
		return nil, nil, err
	}
	return a, e, nil
}

func (v verifier) vsa(raw []byte, doc *trust.Document, want VSAWant) (*evidence.VSA, *Evidence, *Error) {
	e, fail := v.bundle(raw, doc, Want{
		PredicateType: evidence.TypeVSA, Subject: want.Subject, Model: want.Model, Env: want.Env, Now: want.Now, Certificates: want.Certificates,
	})
	if fail != nil {
		return nil, nil, fail
	}
	a := e.vsa
	if a == nil { // only in a verifier that does not compare the predicate type
		return nil, nil, refuse(WrongPredicate, "a %s statement, not a verdict", name(e.PredicateType))
	}
	if fail := v.verdict(a, doc, want); fail != nil {
		fail.KeyID = e.KeyID
		return nil, nil, fail
	}
	return a, e, nil
}

func (v verifier) verdict(a *evidence.VSA, doc *trust.Document, want VSAWant) *Error {
	x := a.Waybill
	pinned := want.PinnedPolicies
	if pinned == nil {
		pinned = doc.Policies
	}
	switch {
	case v.on("verifier-id") && a.Verifier.ID != evidence.GateID:
		return refuse(Refused, "the verdict is of verifier %q, not %q", a.Verifier.ID, evidence.GateID)
	case v.on("resource") && a.ResourceURI != want.ResourceURI:
		return refuse(Refused, "the verdict is about %q, not %q", a.ResourceURI, want.ResourceURI)
	case v.on("result") && a.VerificationResult != evidence.Passed:
		return refuse(Refused, "the verdict is %s: %s", a.VerificationResult, orNone(x.Violations))
	case v.on("env") && x.Environment != want.Env:
		return refuse(Refused, "the verdict is for environment %s, not %s", x.Environment, want.Env)
	case v.on("class") && want.DeviceClass != "" && !contains(x.DeviceClasses, want.DeviceClass) && !contains(x.DeviceClasses, "*"):
		return refuse(Refused, "the verdict is for device classes %s, not %s", orNone(x.DeviceClasses), want.DeviceClass)
	case v.on("level") && !contains(a.VerifiedLevels, evidence.EnvironmentLevel(want.Env)):
		return refuse(Refused, "the verdict has the levels %s, not %s", orNone(a.VerifiedLevels), evidence.EnvironmentLevel(want.Env))
	case v.on("level") && want.DeviceClass != "" && !contains(a.VerifiedLevels, evidence.ClassLevel(want.DeviceClass)) && !contains(a.VerifiedLevels, evidence.ClassLevel("*")):
		return refuse(Refused, "the verdict has the levels %s, not %s", orNone(a.VerifiedLevels), evidence.ClassLevel(want.DeviceClass))
	case v.on("policy") && !contains(pinned, x.PolicyDigest):
		return refuse(Refused, "the verdict was reached with policy %s, which is not one of the %d pinned ones", x.PolicyDigest.Short(), len(pinned))
	case v.on("not-after") && !want.IgnoreExpiry && !want.Now.Before(x.NotAfter):
		return refuse(Expired, "the verdict was valid until %s", x.NotAfter.Format(time.RFC3339))
	case v.on("basis") && want.Basis != nil && x.Basis != *want.Basis:
		return refuse(Refused, "the verdict was reached against channel %s seq %d (%s), which is now %s seq %d (%s)",
			x.Basis.Channel, x.Basis.Seq, orFirst(x.Basis.Champion), want.Basis.Channel, want.Basis.Seq, orFirst(want.Basis.Champion))
	}
	if r := want.Record; r != nil && v.on("basis") {
		if x.Basis.Channel != r.Channel || x.Basis.Seq >= r.Seq {
			return refuse(Refused, "the verdict was reached against channel %s seq %d, it can't stand behind %s seq %d",
				x.Basis.Channel, x.Basis.Seq, r.Channel, r.Seq)
		}
	}
	return nil
}

func contains[T comparable](list []T, x T) bool {
	for _, e := range list {
		if e == x {
			return true
		}
	}
	return false
}

func orFirst(d artifact.Digest) string {
	if d == "" {
		return "empty"
	}
	return d.Short()
}
