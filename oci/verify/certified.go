package verify

import (
	"crypto"
	"errors"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Certificates verifies what a bundle signed with a short-lived certificate brings along. oci/verify/sigstore has the
// implementation; this package has none, so that devices can do without it.
type Certificates interface {
	// Certified checks raw offline against the trusted root that k names: the certificate's chain, that it was valid when
	// it was used, by a trusted source of time, the log entries and certificate transparency that k demands, and the
	// signature over the envelope. raw has passed evidence.OpenBundle. Refusals are made by Refuse.
	Certified(raw []byte, k trust.Keyless) (*Certified, error)
	// Stamped verifies the timestamps in a bundle that a key signed, and gives the time that they prove; "" as the source
	// when the bundle has none.
	Stamped(raw []byte, k trust.Keyless) (time.Time, TimeSource, error)
}

// Certified is what a certificate proved about one signature.
type Certified struct {
	Issuer  string           // of the OIDC token that the certificate was given for
	Subject string           // the certificate's one subject alternative name
	Public  crypto.PublicKey // the certificate's key
	Times   []Time           // when it was used, each by a trusted source; at least one
	Logs    []string         // ids (hex) of the trusted logs that hold the signature
}

// Time is one trusted statement of when a signature was made.
type Time struct {
	At     time.Time
	Source TimeSource // TimeRFC3161, or TimeLog for the integrated time of Rekor v1
	URI    string     // of the authority or log, as the trusted root names it
}

// Refuse makes a refusal for Certificates to return.
func Refuse(r Reason, format string, args ...any) error { return refuse(r, format, args...) }

// certified is signed for a bundle with a certificate: what the trusted root proves first, then which identities of the
// trust document the certificate names, then everything that holds for keys.
func (v verifier) certified(raw []byte, b *evidence.Bundle, s *evidence.Statement, doc *trust.Document, want Want) (*Evidence, *Error) {
	what := name(want.PredicateType)
	switch {
	case want.Certificates == nil:
		e := refuse(WrongSigner, "%s is signed with a certificate; this build checks pinned keys only", what)
		e.err.Hint("go build -tags keyless ./cmd/waybill-edge")
		return nil, e
	case doc.Keyless == nil:
		return nil, helpSigner(refuse(WrongSigner, "%s is signed with a certificate, and trust document version %d names no identities", what, doc.Version), doc, want)
	}
	c, err := want.Certificates.Certified(raw, *doc.Keyless)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, refuse(BadBundle, "%s: %w", what, err)
	}
	// The same bytes were read by two parsers; what counts is the payload read here, under the certificate's key.
	if v.on("signature") && !Signature(c.Public, b.DSSEEnvelope.PayloadType, b.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig) {
		return nil, refuse(Altered, "%s: the signature of %s does not fit the statement, or is of another algorithm than ECDSA P-256 and Ed25519", what, c.Subject)
	}
	if len(c.Times) == 0 {
		return nil, refuse(NoTime, "%s: nothing says when the certificate of %s was used", what, c.Subject)
	}
	ids := doc.IdentitiesOf(c.Issuer, c.Subject)
	if !v.on("identity") {
		ids = doc.Identities
	}
	if len(ids) == 0 {
		return nil, helpSigner(refuse(WrongSigner, "%s is signed by %s of %s, whom trust document version %d does not know", what, c.Subject, c.Issuer, doc.Version), doc, want)
	}
	for _, i := range ids { // patterns may overlap: every one that fits must agree
		if i.Role != ids[0].Role && v.on("one-role") {
			return nil, refuse(WrongRole, "%s: %s of %s fits identities of two roles, %s and %s", what, c.Subject, c.Issuer, ids[0].Role, i.Role)
		}
		if doc.IsRevoked(i.ID) && v.on("revoked") {
			return nil, refuse(Revoked, "%s: %w: identity %s (%s), version %d", what, trust.ErrRevoked, short(i.ID), i.Name, doc.Version)
		}
	}
	var fail *Error
	for _, i := range ids {
		e, f := v.said(b, s, doc, i.Key(), want)
		if f == nil {
			e.Certified, e.Bundle = c, artifact.DigestOf(raw)
			e.At, e.TimeSource = c.Times[0].At.UTC(), c.Times[0].Source
			if f = v.obeys(e, i.Key(), doc, want.Now); f == nil {
				return e, nil
			}
		}
		f.KeyID = i.ID
		fail = f
	}
	return nil, fail
}
