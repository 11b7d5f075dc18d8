package audit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/facts"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
)

// Options of Show.
type Options struct {
	Trust    *trust.Document
	Now      time.Time
	Policies []gate.Evaluator // at hand for replaying decisions
	// Find looks for a policy that is not among Policies, by its digest; nil when there is none. It is asked once per verdict,
	// and may be nil itself.
	Find func(ctx context.Context, policy artifact.Digest) gate.Evaluator
	// Certificates verifies bundles that hold a certificate; nil: pinned keys only.
	Certificates verify.Certificates
}

// item is one attached bundle, read and verified.
type item struct {
	Statement
	e    *verify.Evidence // nil when it did not verify
	why  verify.Reason    // of one that did not verify
	note string           // "valid until ..." and the like
}

// record is one verified channel record.
type record struct {
	*channel.Record
	bundle artifact.Digest
	by     string // name of the key
	key    string // its id
}

// status is one verified report of a device.
type status struct {
	*evidence.Status
	bundle artifact.Digest
}

// auditor holds what was found while a report is written.
type auditor struct {
	o        Options
	at       time.Time // the time at which signatures are checked
	digest   artifact.Digest
	in       input.Input // the artifact's own facts, gathered as the gate does
	raws     [][]byte    // every bundle attached to the artifact
	items    []item
	records  []record
	statuses []status
	failed   []string // why records or reports could not be used
	r        *Report
}

// Show writes the report on one digest. An error means that the artifact itself could not be read.
func Show(ctx context.Context, src Source, digest artifact.Digest, o Options) (*Report, error) {
	a := &auditor{o: o, digest: digest, r: newReport(), at: o.Now.UTC()}
	if o.Trust.Expired(a.at) {
		a.at = o.Trust.Expires.Add(-time.Second)
	}
	td, err := o.Trust.Digest()
	if err != nil {
		return nil, err
	}
	a.r.Digest, a.r.At, a.r.Trust = digest, o.Now.UTC().Truncate(time.Second), TrustRef{o.Trust.Version, td}
	// The artifact's facts are the gate's own, so that an audit cannot see another artifact than the gate did.
	f, err := facts.Collect(ctx, src, noChannel{}, facts.Request{Ref: string(digest), Pinned: true, Digest: digest, Trust: o.Trust,
		Environment: input.Environment{Name: "audit", Namespace: "audit", Channel: "audit"}, Context: input.Context{Time: a.at}, Certificates: o.Certificates})
	if err != nil {
		return nil, err
	}
	a.in = f.Input
	a.r.Name, a.r.Version = a.in.Model.Name, a.in.Model.Version
	raws, err := src.Bundles(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("list evidence of %s: %w", digest.Short(), err)
	}
	a.raws = raws
	a.read(raws)
	if err := a.fleet(ctx, src); err != nil {
		return nil, err
	}
	a.what()
	a.who()
	a.when()
	a.data()
	a.quality()
	a.code()
	if err := a.policy(ctx); err != nil {
		return nil, err
	}
	a.where()
	a.gaps()
	a.cite()
	return a.r, nil
}

// noChannel is for the facts of the artifact alone.
type noChannel struct{}

func (noChannel) Record(context.Context, string) ([]byte, error) { return nil, nil }

// read verifies everything attached to the artifact, each statement as what it says it is.
func (a *auditor) read(raws [][]byte) {
	seen := map[artifact.Digest]bool{}
	for _, raw := range raws {
		d := artifact.DigestOf(raw)
		if seen[d] {
			continue
		}
		seen[d] = true
		a.items = append(a.items, a.open(raw, d, a.digest))
	}
	slices.SortFunc(a.items, func(x, y item) int { return cmp(x.PredicateType+string(x.Bundle), y.PredicateType+string(y.Bundle)) })
	for _, x := range a.items {
		a.r.Statements = append(a.r.Statements, x.Statement)
	}
}

func cmp(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// open verifies one bundle about a subject. Evidence that ran out since is verified at the time that it was made for, and
// says so.
func (a *auditor) open(raw []byte, d, subject artifact.Digest) item {
	x := item{why: verify.BadBundle, Statement: Statement{Bundle: d}}
	b, err := evidence.OpenBundle(raw)
	if err != nil {
		x.Reason = err.Error()
		return x
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		x.Reason = err.Error()
		return x
	}
	x.PredicateType, x.Name = s.PredicateType, evidence.NameOf(s.PredicateType)
	x.KeyID, _ = b.KeyID()
	w := verify.Want{PredicateType: s.PredicateType, Subject: subject, Model: a.in.Model.Name, Now: a.at, Certificates: a.o.Certificates}
	if s.PredicateType == evidence.TypeOMS && subject == a.digest {
		for _, l := range a.in.Artifact.Layers {
			w.Layers = append(w.Layers, artifact.Layer{Path: l.Path, Digest: artifact.Digest(l.Digest)})
		}
	}
	_, env, ch := trust.Dimensions(s.PredicateType)
	switch {
	case s.PredicateType == evidence.TypeVSA:
		if v, err := evidence.ParseVSA(s.Predicate); err == nil {
			w.Env = v.Waybill.Environment
		}
	case s.PredicateType == evidence.TypeStatus:
		if st, err := evidence.ParseStatus(s.Predicate); err == nil {
			w.Channel = st.Channel
		}
	case s.PredicateType == evidence.TypeDeployment:
		if dp, err := evidence.ParseDeployment(s.Predicate); err == nil {
			w.Env = dp.Env
		}
	case env || ch:
		w.AnyScope = true // the statement does not name the environment; who said it is what counts here
	}
	e, err := verify.Bundle(raw, a.o.Trust, w)
	if verify.ReasonOf(err) == verify.Expired {
		if until, ok := ran(s); ok {
			w.Now = until
			if e, err = verify.Bundle(raw, a.o.Trust, w); err == nil {
				x.note = "valid until " + day(until)
			}
		}
	}
	if err != nil {
		x.Reason, x.why = err.Error(), verify.ReasonOf(err)
		return x
	}
	x.e, x.Verified, x.KeyName, x.Role = e, true, e.KeyName, string(e.Role)
	return x
}

// ran gives the last moment at which a statement with an expiry counted.
func ran(s *evidence.Statement) (time.Time, bool) {
	switch s.PredicateType {
	case evidence.TypeApproval:
		if p, err := evidence.ParseApproval(s.Predicate); err == nil {
			return p.Expires.Add(-time.Second), true
		}
	case evidence.TypeException:
		if p, err := evidence.ParseException(s.Predicate); err == nil {
			return p.Expires.Add(-time.Second), true
		}
	}
	return time.Time{}, false
}

// fleet reads every channel record, and the reports of devices about every digest that a channel has named: a device that
// left this digest reports under the one that it runs now.
func (a *auditor) fleet(ctx context.Context, src Source) error {
	raws, err := src.Records(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.failed = append(a.failed, "the channels could not be read: "+err.Error())
	}
	subjects := map[artifact.Digest]bool{a.digest: true}
	for _, raw := range raws {
		r, e, err := verify.Record(raw, a.o.Trust, a.at)
		if err != nil {
			a.failed = append(a.failed, "a channel record ("+artifact.DigestOf(raw).Short()+"): "+err.Error())
			continue
		}
		if r.Target.Name != a.in.Model.Name {
			continue
		}
		a.records = append(a.records, record{r, e.Bundle, e.KeyName, e.KeyID})
		subjects[r.Target.Digest] = true
		for _, k := range r.Keep {
			subjects[k.Digest] = true
		}
		if r.Rollback != nil {
			subjects[r.Rollback.From] = true
		}
	}
	slices.SortFunc(a.records, func(x, y record) int {
		if c := cmp(x.Channel, y.Channel); c != 0 {
			return c
		}
		return int(x.Seq - y.Seq)
	})
	var order []string
	for s := range subjects {
		order = append(order, string(s))
	}
	slices.Sort(order)
	for _, s := range order {
		raws, err := src.Bundles(ctx, artifact.Digest(s))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			a.failed = append(a.failed, "reports about "+artifact.Digest(s).Short()+" could not be read: "+err.Error())
		}
		for _, raw := range raws {
			a.report(raw, artifact.Digest(s), artifact.Digest(s) == a.digest)
		}
	}
	raws, unread, err := src.Reports(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		a.failed = append(a.failed, "the reports of devices could not be read: "+err.Error())
	}
	if unread > 0 {
		a.failed = append(a.failed, fmt.Sprintf("%d reports of devices were not read, beside %d that were", unread, len(raws)))
	}
	for _, raw := range raws {
		// A report is about what the device runs, which may be a digest that no channel names any more.
		if subject := subjectOf(raw); subject != "" {
			a.report(raw, subject, false)
		}
	}
	slices.SortFunc(a.statuses, func(x, y status) int {
		if c := cmp(x.Device+x.Channel, y.Device+y.Channel); c != 0 {
			return c
		}
		if c := x.At.Compare(y.At); c != 0 {
			return c
		}
		return cmp(string(x.bundle), string(y.bundle))
	})
	return nil
}

// report believes a device about itself, when its key may say it. listed tells that the bundle stands among the statements anyway.
func (a *auditor) report(raw []byte, subject artifact.Digest, listed bool) {
	d := artifact.DigestOf(raw)
	if slices.ContainsFunc(a.statuses, func(s status) bool { return s.bundle == d }) {
		return // attached to the digest, and under the device's tag
	}
	x := a.open(raw, d, subject)
	if x.PredicateType != evidence.TypeStatus {
		return
	}
	if !x.Verified {
		if !listed {
			a.failed = append(a.failed, "a device report ("+x.Bundle.Short()+"): "+x.Reason)
		}
		return
	}
	st, err := evidence.ParseStatus(x.e.Predicate)
	if err != nil || st.Model != a.in.Model.Name {
		return
	}
	a.statuses = append(a.statuses, status{st, x.Bundle})
}

// subjectOf is the digest that a bundle says it is about, not verified; "" when it says none.
func subjectOf(raw []byte) artifact.Digest {
	b, err := evidence.OpenBundle(raw)
	if err != nil {
		return ""
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return ""
	}
	return s.SubjectDigest()
}

// cite adds the records and device reports that lines rest on to the statements, so that each proof can be looked up.
func (a *auditor) cite() {
	cited := map[artifact.Digest]bool{}
	for _, s := range a.r.Sections {
		for _, l := range s.Lines {
			for _, p := range l.Proof {
				cited[p] = true
			}
		}
	}
	for _, x := range a.r.Statements {
		delete(cited, x.Bundle)
	}
	add := func(d artifact.Digest, typ, keyID string) {
		if !cited[d] {
			return
		}
		delete(cited, d)
		k, _ := a.o.Trust.Lookup(keyID) // it verified, so the key is known
		a.r.Statements = append(a.r.Statements, Statement{Bundle: d, PredicateType: typ, Name: evidence.NameOf(typ), Verified: true, KeyID: keyID, KeyName: k.Name, Role: string(k.Role)})
	}
	for _, r := range a.records {
		add(r.bundle, evidence.TypeChannel, r.key)
	}
	for _, s := range a.statuses {
		add(s.bundle, evidence.TypeStatus, s.Device)
	}
}

// of lists the verified statements of one type.
func (a *auditor) of(typ string) []item {
	var out []item
	for _, x := range a.items {
		if x.Verified && x.PredicateType == typ {
			out = append(out, x)
		}
	}
	return out
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
