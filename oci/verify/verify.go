// Package verify turns untrusted bytes into verified facts: sigstore bundles against a trust document, channel records,
// gate verdicts, trust documents and manifests. It is offline by construction (nothing here opens a file or a
// connection), uses the standard library's cryptography only, and fails closed: a nil error is the only yes.
//
// Signatures with keys carry no trusted time. now is the caller's clock, or its time floor when that is later.
package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Reason tells apart why something did not verify. The texts are part of the JSON output of the commands.
type Reason string

// Reasons.
const (
	NoBundle       Reason = "no-bundle"       // nothing to verify
	BadBundle      Reason = "bad-bundle"      // not a well-formed bundle, statement or predicate
	WrongPredicate Reason = "wrong-predicate" // another predicate type than the one asked for
	WrongSigner    Reason = "wrong-signer"    // the key is not in the trust document
	WrongRole      Reason = "wrong-role"      // the key has a role that may not say this
	OutOfScope     Reason = "out-of-scope"    // the key may say it, but not about this model, environment or channel
	WrongSubject   Reason = "wrong-subject"   // a statement about another digest
	Altered        Reason = "altered"         // the signature or the digest does not fit the bytes
	Expired        Reason = "expired"         // the statement or the trust document is past its time
	Revoked        Reason = "revoked"         // the key is revoked, or the digest denied
	Refused        Reason = "refused"         // the verdict is FAILED, or not one for this place
	TrustBehind    Reason = "trust-behind"    // made under a newer trust document than the one at hand
	BadTrust       Reason = "bad-trust"       // the trust document does not follow or meet its thresholds

	SeveralSignatures Reason = "several-signatures" // a bundle with no signature, or more than one
	UnknownAlgorithm  Reason = "unknown-algorithm"  // a key of a kind that is not accepted
	NoTime            Reason = "no-time"            // a rule, or a certificate, needs a time or a verified one, and it is not there
	TooFew            Reason = "too-few"            // fewer different signers than the rule asks for
	PastGeneration    Reason = "past-generation"    // a channel record from before the root reset the channels
	NotLogged         Reason = "not-logged"         // no log entry for this signature by as many trusted logs as are needed
)

// Error is a refusal. errors.As finds it, and through it the *diag.Error with exit code 3.
type Error struct {
	Reason Reason
	KeyID  string // of the key that the bundle names; empty when it was not read
	err    *diag.Error
}

// Error gives the text for people.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives the *diag.Error.
func (e *Error) Unwrap() error { return e.err }

// ReasonOf gives the reason of a refusal, or "" when err is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// help adds a hint.
func (e *Error) help(format string, args ...any) *Error {
	e.err.Hint(format, args...)
	return e
}

func refuse(r Reason, format string, args ...any) *Error {
	cause := fmt.Errorf(format, args...)
	return &Error{Reason: r, err: &diag.Error{Code: diag.Verification, What: string(r), Err: cause}}
}

// Want says what the caller expects a bundle to prove. All of it is compared exactly.
type Want struct {
	PredicateType string          // must be set
	Subject       artifact.Digest // must be set
	Role          trust.Role      // empty: any role that trust.RolesFor gives to the predicate type
	Model         string          // what trust.Dimensions asks for must be set
	Env           string          //
	Channel       string          //
	AnyScope      bool            // audit only: prove who said it, without asking where the key may say so
	Now           time.Time       // must be set

	// Layers are those of the subject's manifest. An OMS statement, which lists files, must list exactly these; without them
	// none verifies.
	Layers []artifact.Layer

	// Stamp verifies the timestamps in a bundle and gives the time that they prove and who proves it; "" as the source when
	// the bundle has none. nil: what Certificates says; nothing on the light path can prove a time.
	Stamp func(raw []byte) (at time.Time, source TimeSource, err error)

	// Certificates verifies bundles that hold a certificate. Without it only pinned keys count.
	Certificates Certificates
}

// TimeSource tells what the time of a statement rests on.
type TimeSource string

// Time sources. A claimed time is the signer's own word: it shows honest mistakes, and no lie.
const (
	TimeNone    TimeSource = "none"    // the statement names no time
	TimeClaimed TimeSource = "claimed" // the statement names it itself
	TimeRFC3161 TimeSource = "rfc3161" // a timestamp authority of the trusted root signed it
	TimeLog     TimeSource = "log"     // a transparency log of the trusted root signed it
)

// Verified tells whether somebody other than the signer vouches for the time.
func (s TimeSource) Verified() bool { return s == TimeRFC3161 || s == TimeLog }

// Evidence is a verified statement about one digest.
type Evidence struct {
	Bundle        artifact.Digest // of the bundle bytes: what a report cites
	PredicateType string
	Subject       artifact.Digest
	SubjectName   string
	Predicate     json.RawMessage
	Payload       artifact.Digest // of the signed statement
	KeyID         string
	KeyName       string
	Role          trust.Role
	ApproverRoles []string // approval roles that the key may fill

	At         time.Time // when it was said, UTC; zero with TimeNone
	TimeSource TimeSource

	// Certified says who the certificate named and when; nil when a pinned key signed. KeyID is then the identity's id.
	Certified *Certified

	vsa *evidence.VSA // the parsed predicate of a verdict, else nil
}

// Failure is a bundle that did not verify, with what it claims. Nothing in it but Bundle and Err is proven.
type Failure struct {
	Bundle        artifact.Digest
	PredicateType string
	Subject       artifact.Digest
	KeyID         string
	Err           *Error
}

// Bundle verifies one sigstore bundle: well-formed, one signature by a key that the trust document knows, of a role that
// may say this, in scope, not revoked, with the predicate type and the one subject that want names, within its time.
func Bundle(raw []byte, doc *trust.Document, want Want) (*Evidence, error) {
	e, err := verifier{}.bundle(raw, doc, want)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// All verifies every bundle about one subject, each against its own predicate type, in the order given: the verified
// ones, and the ones that did not with the reason. want.PredicateType is not read.
func All(raws [][]byte, doc *trust.Document, want Want) (verified []Evidence, failed []Failure) {
	for _, raw := range raws {
		w := want
		f := Failure{Bundle: artifact.DigestOf(raw)}
		if b, s, err := (verifier{}).open(raw); err == nil {
			w.PredicateType = s.PredicateType
			f.PredicateType, f.Subject = s.PredicateType, s.SubjectDigest()
			f.KeyID, _ = b.KeyID()
		}
		e, err := verifier{}.bundle(raw, doc, w)
		if err != nil {
			f.Err = err
			failed = append(failed, f)
			continue
		}
		verified = append(verified, *e)
	}
	return verified, failed
}

// Manifest checks the digest of model manifest bytes and reads them with every rule of artifact.ParseModel.
func Manifest(raw []byte, want artifact.Digest) (*artifact.Model, error) {
	m, err := verifier{}.manifest(raw, want)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// verifier carries the name of a check that a test leaves out, to see that the attack then succeeds.
type verifier struct{ skip string }

// on tells whether a check is made; skip may name several, joined by "+".
func (v verifier) on(check string) bool {
	return v.skip == "" || !slices.Contains(strings.Split(v.skip, "+"), check)
}

func (v verifier) manifest(raw []byte, want artifact.Digest) (*artifact.Model, *Error) {
	if len(raw) > artifact.MaxManifest {
		return nil, refuse(Altered, "manifest of %d bytes is larger than the limit of %d", len(raw), artifact.MaxManifest)
	}
	if got := artifact.DigestOf(raw); v.on("digest") && got != want {
		return nil, refuse(Altered, "manifest has digest %s, not %s", got, want)
	}
	m, err := artifact.ParseModel(raw)
	if err != nil {
		return nil, refuse(Altered, "manifest %s: %w", want.Short(), err)
	}
	return m, nil
}

func (v verifier) bundle(raw []byte, doc *trust.Document, want Want) (*Evidence, *Error) {
	if len(raw) == 0 {
		return nil, refuse(NoBundle, "no %s bundle for %s", name(want.PredicateType), want.Subject.Short())
	}
	b, s, err := v.open(raw)
	if err != nil {
		return nil, badBundle(err)
	}
	return v.opened(raw, b, s, doc, want)
}

// opened is bundle for one that open has parsed.
func (v verifier) opened(raw []byte, b *evidence.Bundle, s *evidence.Statement, doc *trust.Document, want Want) (*Evidence, *Error) {
	if want.Now.IsZero() {
		return nil, refuse(Expired, "no time to verify at")
	}
	if doc == nil {
		return nil, refuse(BadTrust, "no trust document")
	}
	if b.Certified() {
		return v.certified(raw, b, s, doc, want)
	}
	e, fail := v.signed(b, s, doc, want)
	if fail == nil {
		e.Bundle = artifact.DigestOf(raw)
		fail = v.ruled(e, raw, doc, want)
	}
	if fail != nil {
		fail.KeyID, _ = b.KeyID()
		return nil, fail
	}
	return e, nil
}

// signed checks everything about a parsed bundle. The signature comes before the meaning, so that a reason other than
// Altered, WrongSigner, WrongRole or Revoked always rests on what the key's owner really said.
func (v verifier) signed(b *evidence.Bundle, s *evidence.Statement, doc *trust.Document, want Want) (*Evidence, *Error) {
	what := name(want.PredicateType)
	id, err := signerOf(b, s, doc)
	if err != nil {
		return nil, refuse(BadBundle, "%w", err)
	}
	key, ok := doc.Lookup(id)
	if !ok {
		return nil, helpSigner(refuse(WrongSigner, "%s is signed by key %s, which trust document version %d does not know", what, short(id), doc.Version), doc, want)
	}
	pub, err := v.public(key)
	if err != nil {
		return nil, refuse(UnknownAlgorithm, "key %s (%s): %w", short(id), key.Name, err)
	}
	if v.on("signature") && !Signature(pub, b.DSSEEnvelope.PayloadType, b.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig) {
		return nil, refuse(Altered, "%s: the signature of key %s (%s) does not fit the statement", what, short(id), key.Name)
	}
	return v.said(b, s, doc, key, want)
}

// said checks what a statement says and whether its signer, a key or an identity shown as one, may say it. The
// signature has been checked.
func (v verifier) said(b *evidence.Bundle, s *evidence.Statement, doc *trust.Document, key trust.Key, want Want) (*Evidence, *Error) {
	what := name(want.PredicateType)
	if v.on("predicate") && s.PredicateType != want.PredicateType {
		return nil, refuse(WrongPredicate, "a %s statement, not a %s", name(s.PredicateType), what)
	}
	subject, fail := v.about(s, want)
	if fail != nil {
		return nil, fail
	}
	if fail := v.allowed(s, doc, key, want); fail != nil {
		return nil, fail
	}
	if v.on("denied") && doc.IsDenied(subject) {
		return nil, refuse(Revoked, "trust document version %d denies %s", doc.Version, subject.Short())
	}
	vsa, err := validate(s)
	if err != nil {
		return nil, refuse(BadBundle, "%w", err)
	}
	if fail := v.meaning(s, key, want); fail != nil {
		return nil, fail
	}
	return &Evidence{
		PredicateType: s.PredicateType,
		Subject:       subject,
		SubjectName:   s.Subject[0].Name,
		Predicate:     s.Predicate,
		Payload:       artifact.DigestOf(b.DSSEEnvelope.Payload),
		KeyID:         key.ID,
		KeyName:       key.Name,
		Role:          key.Role,
		ApproverRoles: key.ApproverRoles,
		TimeSource:    TimeNone,
		vsa:           vsa,
	}, nil
}

// validate is evidence.ValidatePredicate that keeps the verdict which it parsed: devices look into one each time.
func validate(s *evidence.Statement) (*evidence.VSA, error) {
	if s.PredicateType != evidence.TypeVSA {
		return nil, evidence.ValidatePredicate(s.PredicateType, s.Predicate)
	}
	v, err := evidence.ParseVSA(s.Predicate)
	if err != nil {
		return nil, fmt.Errorf("predicate %s: %w", s.PredicateType, err)
	}
	return v, nil
}

// allowed asks the trust document: role, scope, revocation, its own expiry.
func (v verifier) allowed(s *evidence.Statement, doc *trust.Document, key trust.Key, want Want) *Error {
	what := name(s.PredicateType)
	roles := doc.RolesFor(s.PredicateType)
	if v.on("custom") && len(roles) == 0 {
		return refuse(WrongRole, "trust document version %d lets nobody sign %s", doc.Version, what).help("waybill trust rule trust.yaml %s --role evaluator", s.PredicateType)
	}
	if want.Role != "" {
		if !slices.Contains(roles, want.Role) {
			return refuse(WrongRole, "no %s key may sign a %s", want.Role, what)
		}
		roles = []trust.Role{want.Role}
	}
	role := key.Role
	if v.on("role") && len(roles) > 0 && !slices.Contains(roles, role) {
		return helpSigner(refuse(WrongRole, "%s is signed by key %s (%s), %s key, not %s key", what, short(key.ID), key.Name, role.Article(), join(roles)), doc, want)
	}
	model, env, channel := trust.Dimensions(s.PredicateType)
	ask := trust.Ask{KeyID: key.ID, Role: role, At: want.Now}
	if !want.AnyScope && v.on("scope") {
		for _, d := range []struct {
			used        bool
			value       string
			into        *string
			description string
		}{{model, want.Model, &ask.Model, "model"}, {env, want.Env, &ask.Env, "environment"}, {channel, want.Channel, &ask.Channel, "channel"}} {
			if !d.used {
				continue
			}
			if d.value == "" { // an empty question must not become a yes
				return refuse(OutOfScope, "%s: no %s to check the scope of key %s against", what, d.description, short(key.ID))
			}
			*d.into = d.value
		}
	}
	err := doc.Allows(ask)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, trust.ErrExpired):
		if !v.on("trust-expiry") {
			return nil
		}
		return refuse(Expired, "%w", err)
	case errors.Is(err, trust.ErrRevoked):
		if !v.on("revoked") {
			return nil
		}
		return refuse(Revoked, "%s: %w", what, err)
	case errors.Is(err, trust.ErrScope):
		return helpSigner(refuse(OutOfScope, "%s: %w", what, err), doc, want)
	case errors.Is(err, trust.ErrRole):
		return refuse(WrongRole, "%s: %w", what, err)
	}
	return refuse(WrongSigner, "%s: %w", what, err)
}

// meaning checks what a predicate says against time and key, where the type has such a rule.
func (v verifier) meaning(s *evidence.Statement, key trust.Key, want Want) *Error {
	switch s.PredicateType {
	case evidence.TypeApproval:
		a, err := evidence.ParseApproval(s.Predicate)
		if err != nil {
			return refuse(BadBundle, "%w", err)
		}
		if v.on("approver-role") && !slices.Contains(key.ApproverRoles, a.Role) {
			return refuse(WrongRole, "approval as %s by key %s (%s), which may approve as %s", a.Role, short(key.ID), key.Name, orNone(key.ApproverRoles))
		}
		if v.on("expiry") && !want.Now.Before(a.Expires) {
			return refuse(Expired, "approval as %s expired on %s", a.Role, a.Expires.Format(time.RFC3339))
		}
	case evidence.TypeException:
		x, err := evidence.ParseException(s.Predicate)
		if err != nil {
			return refuse(BadBundle, "%w", err)
		}
		if v.on("expiry") && !want.Now.Before(x.Expires) {
			return refuse(Expired, "exception to %s expired on %s", x.Rule, x.Expires.Format(time.RFC3339))
		}
	case evidence.TypeStatus:
		st, err := evidence.ParseStatus(s.Predicate)
		if err != nil {
			return refuse(BadBundle, "%w", err)
		}
		if v.on("device") && st.Device != key.ID {
			return refuse(WrongSigner, "status of device %s is signed by key %s", short(st.Device), short(key.ID))
		}
		if v.on("subject") && st.Subject() != s.SubjectDigest() {
			return refuse(WrongSubject, "status says that %s runs, its subject is %s", st.Running.Short(), s.SubjectDigest().Short())
		}
	case evidence.TypeDeployment:
		d, err := evidence.ParseDeployment(s.Predicate)
		if err != nil {
			return refuse(BadBundle, "%w", err)
		}
		if v.on("subject") && d.Digest != s.SubjectDigest() {
			return refuse(WrongSubject, "deployment of %s has the subject %s", d.Digest.Short(), s.SubjectDigest().Short())
		}
		if v.on("scope") && !want.AnyScope && d.Env != want.Env {
			return refuse(OutOfScope, "deployment to environment %s, not %s", d.Env, want.Env)
		}
	}
	return nil
}

// Signature checks a DSSE signature with one of the pinned algorithms: ECDSA P-256 with SHA-256 (ASN.1), Ed25519, and
// Ed25519ph with SHA-512, which cosign makes with an Ed25519 key. RFC 8032 keeps the last two apart by a prefix, so that
// neither can be taken for the other.
func Signature(pub crypto.PublicKey, payloadType string, payload, sig []byte) bool {
	msg := evidence.PAE(payloadType, payload)
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		h := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(k, h[:], sig)
	case ed25519.PublicKey:
		if ed25519.Verify(k, msg, sig) {
			return true
		}
		h := sha512.Sum512(msg)
		return ed25519.VerifyWithOptions(k, h[:], sig, &ed25519.Options{Hash: crypto.SHA512}) == nil
	}
	return false
}

// helpSigner adds who could have signed.
func helpSigner(e *Error, doc *trust.Document, want Want) *Error {
	roles := doc.RolesFor(want.PredicateType)
	if want.Role != "" {
		roles = []trust.Role{want.Role}
	}
	for _, r := range roles {
		var ids []string
		for _, k := range doc.KeysOf(r) {
			if want.Model == "" || k.InScope(want.Model, "", "") == nil {
				ids = append(ids, short(k.ID)+" ("+k.Name+")")
			}
		}
		for _, i := range doc.Identities {
			if i.Role == r && !doc.IsRevoked(i.ID) && (want.Model == "" || i.Key().InScope(want.Model, "", "") == nil) {
				ids = append(ids, short(i.ID)+" ("+i.Subject+i.SubjectPattern+" of "+i.Issuer+")")
			}
		}
		of := ""
		if want.Model != "" {
			of = fmt.Sprintf(" for %q", want.Model)
		}
		e.err.Line("trust document version %d names %d %s keys%s: %s", doc.Version, len(ids), r, of, orNone(ids))
		e.err.Hint("waybill trust show --role %s", r)
	}
	return e
}

func name(predicateType string) string {
	if predicateType == "" {
		return "statement"
	}
	return evidence.NameOf(predicateType)
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func join(roles []trust.Role) string {
	var s []string
	for _, r := range roles {
		s = append(s, r.Article())
	}
	return strings.Join(s, " or ")
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}
