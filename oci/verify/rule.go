package verify

import (
	"fmt"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// skew is how far a statement's time may lie ahead of the verifier's clock.
const skew = 5 * time.Minute

// ruled finds out when a statement was made and holds it against the document's rule for its type and against the
// retirement of its key. An audit (AnyScope) does so too: a rule tells what counts now.
func (v verifier) ruled(e *Evidence, raw []byte, doc *trust.Document, want Want) *Error {
	stamp := want.Stamp
	if stamp == nil && want.Certificates != nil && doc.Keyless != nil {
		stamp = func(raw []byte) (time.Time, TimeSource, error) { return want.Certificates.Stamped(raw, *doc.Keyless) }
	}
	if stamp != nil {
		at, source, err := stamp(raw)
		if err != nil {
			return refuse(Altered, "%s: timestamp: %w", name(e.PredicateType), err)
		}
		if source.Verified() && !at.IsZero() {
			e.At, e.TimeSource = at.UTC(), source
		}
	}
	if !e.TimeSource.Verified() {
		e.At, e.TimeSource = claimed(e)
	}
	k, _ := doc.Signer(e.KeyID)
	return v.obeys(e, k, doc, want.Now)
}

func claimed(e *Evidence) (time.Time, TimeSource) {
	if e.vsa != nil {
		return e.vsa.TimeVerified.UTC(), TimeClaimed
	}
	at := evidence.ClaimedTime(&evidence.Statement{PredicateType: e.PredicateType, Predicate: e.Predicate})
	if at.IsZero() {
		return time.Time{}, TimeNone
	}
	return at.UTC(), TimeClaimed
}

// Obeys holds verified evidence against the document's rule for its predicate type: who may sign, how old it may be, whether
// its time must be verified. e.KeyID names the key, or the identity for evidence that was signed keyless. Bundle has done
// so already; it is for verifiers beside it.
func Obeys(e *Evidence, doc *trust.Document, now time.Time) error {
	k, _ := doc.Signer(e.KeyID)
	if err := (verifier{}).obeys(e, k, doc, now); err != nil {
		return err
	}
	return nil
}

func (v verifier) obeys(e *Evidence, k trust.Key, doc *trust.Document, now time.Time) *Error {
	what := name(e.PredicateType)
	if k.Until != nil && v.on("retired") {
		switch until := k.Until.Format(time.RFC3339); {
		case e.TimeSource == TimeNone:
			return refuse(Revoked, "%s: key %s (%s) is retired since %s, and nothing tells when it signed this", what, short(k.ID), k.Name, until)
		case !e.At.Before(*k.Until):
			return refuse(Revoked, "%s: key %s (%s) is retired since %s and signed this at %s (%s)", what, short(k.ID), k.Name, until,
				e.At.Format(time.RFC3339), e.TimeSource)
		}
	}
	r, ok := doc.Rule(e.PredicateType)
	if !ok {
		return nil
	}
	if v.on("rule-signers") && len(r.Signers) > 0 && !slices.Contains(r.Signers, e.KeyID) {
		return refuse(WrongSigner, "%s: key %s (%s) is not among the %d signers that the rule of trust document version %d names",
			what, short(e.KeyID), e.KeyName, len(r.Signers), doc.Version).help("waybill trust show")
	}
	if v.on("rule-timestamp") && r.Timestamp && !e.TimeSource.Verified() {
		return refuse(NoTime, "%s: the rule of trust document version %d asks for a verified timestamp; its time is %s", what, doc.Version, e.TimeSource)
	}
	age := r.Age()
	if age == 0 || !v.on("rule-age") {
		return nil
	}
	switch {
	case e.TimeSource == TimeNone:
		return refuse(NoTime, "%s may be at most %s old, and nothing tells when it was made", what, r.MaxAge)
	case e.At.After(now.Add(skew)):
		return refuse(Expired, "%s claims to be made at %s, which is to come", what, e.At.Format(time.RFC3339))
	case !now.Before(e.At.Add(age)):
		return refuse(Expired, "%s was made at %s (%s), more than %s ago", what, e.At.Format(time.RFC3339), e.TimeSource, r.MaxAge)
	}
	return nil
}

// Demand is what a rule asks for and what there is.
type Demand struct {
	PredicateType string
	Require       int
	Signers       []string // key ids that signed verified statements of the type, each once, sorted
	Of            int      // how many the rule names; 0: every key of the roles
}

// Met tells whether enough have signed.
func (d Demand) Met() bool { return len(d.Signers) >= d.Require }

// Demands counts the different signers of verified evidence for every rule of the document that requires some, in the
// order of the rules. One key counts once, however often it signed. types limits it to some predicate types; none: all.
func Demands(evs []Evidence, doc *trust.Document, types ...string) []Demand {
	var out []Demand
	for _, r := range doc.Rules {
		if r.Require < 1 || len(types) > 0 && !slices.Contains(types, r.PredicateType) {
			continue
		}
		out = append(out, Count(evs, r.PredicateType, r.Require, len(r.Signers)))
	}
	return out
}

// Count counts the different signers of verified evidence of one predicate type.
func Count(evs []Evidence, predicateType string, require, of int) Demand {
	d := Demand{PredicateType: predicateType, Require: require, Of: of}
	for _, e := range evs {
		if e.PredicateType == predicateType && !slices.Contains(d.Signers, e.KeyID) {
			d.Signers = append(d.Signers, e.KeyID)
		}
	}
	slices.Sort(d.Signers)
	return d
}

// Enough refuses when a rule's signers are too few; subject stands in the message.
func Enough(evs []Evidence, doc *trust.Document, subject artifact.Digest, types ...string) error {
	if err := (verifier{}).enough(evs, doc, subject, types...); err != nil {
		return err
	}
	return nil
}

func (v verifier) enough(evs []Evidence, doc *trust.Document, subject artifact.Digest, types ...string) *Error {
	for _, d := range Demands(evs, doc, types...) {
		if v.on("require") && !d.Met() {
			return Short(d, subject)
		}
	}
	return nil
}

// Missing is the refusal where nothing of a type is attached: no bundle at all, or only statements of other types.
func Missing(predicateType string, others int) *Error {
	what := name(predicateType)
	if predicateType == evidence.TypeRelease {
		what = "release signature"
	}
	if others == 0 {
		return refuse(NoBundle, "no %s is attached", what)
	}
	return refuse(WrongPredicate, "no %s is attached, only %d statements of other types", what, others)
}

// Short is the refusal of a demand that is not met.
func Short(d Demand, subject artifact.Digest) *Error {
	of := ""
	if d.Of > 0 {
		of = fmt.Sprintf(" of the %d named", d.Of)
	}
	return refuse(TooFew, "%s: signed by %d, %d are needed%s, for %s", name(d.PredicateType), len(d.Signers), d.Require, of, subject.Short()).
		help("waybill trust show")
}
