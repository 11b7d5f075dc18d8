package verify

import (
	"bytes"
	"fmt"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// MaxTrustSignatures bounds the bundles in a trust file.
const MaxTrustSignatures = 32

// TrustSubject is the name of the subject of a trust statement.
const TrustSubject = "trust"

// TrustBundle verifies the trust document that follows current: version + 1, signed by the root thresholds of the current
// and of the new document. raw is one sigstore bundle per line, each with one signature over the same statement. A
// device walks every version. Expiry is not checked here: an expired document must still be able to hand over.
func TrustBundle(raw []byte, current *trust.Document) (*trust.Document, error) {
	d, err := verifier{}.trustNext(raw, current)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// TrustPinned verifies the first trust document that a device or a command sees, against the version and digest that
// provisioning gave. It must meet its own threshold.
func TrustPinned(raw []byte, version int, digest artifact.Digest) (*trust.Document, error) {
	d, err := verifier{}.trustPinned(raw, version, digest)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// TrustSelf reads a trust document that meets its own threshold. It proves nothing about who made it, and serves the
// commands that show a file and write the pin; devices use TrustPinned.
func TrustSelf(raw []byte) (*trust.Document, error) {
	d, bundles, err := openTrust(raw)
	if err != nil {
		return nil, err
	}
	if err := (verifier{}).threshold(d, bundles, d, "its own"); err != nil {
		return nil, err
	}
	return d, nil
}

func (v verifier) trustPinned(raw []byte, version int, digest artifact.Digest) (*trust.Document, *Error) {
	d, bundles, err := openTrust(raw)
	if err != nil {
		return nil, err
	}
	if v.on("pin-version") && d.Version != version {
		return nil, refuse(BadTrust, "trust document has version %d, the pinned one is %d", d.Version, version)
	}
	got, derr := d.Digest()
	if derr != nil {
		return nil, refuse(BadTrust, "%w", derr)
	}
	if v.on("pin-digest") && got != digest {
		return nil, refuse(BadTrust, "trust document version %d has digest %s, the pinned one is %s", d.Version, got, digest)
	}
	if err := v.threshold(d, bundles, d, "its own"); err != nil {
		return nil, err
	}
	return d, nil
}

func (v verifier) trustNext(raw []byte, current *trust.Document) (*trust.Document, *Error) {
	if current == nil {
		return nil, refuse(BadTrust, "no trust document to follow")
	}
	next, bundles, err := openTrust(raw)
	if err != nil {
		return nil, err
	}
	if v.on("rotation") {
		if err := next.Follows(current); err != nil {
			return nil, refuse(BadTrust, "%w", err)
		}
	}
	if v.on("old-threshold") {
		if err := v.threshold(current, bundles, next, fmt.Sprintf("version %d's", current.Version)); err != nil {
			return nil, err
		}
	}
	if v.on("new-threshold") {
		if err := v.threshold(next, bundles, next, "its own"); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// openTrust parses a trust file: every line a bundle over the same payload, a trust statement about its own document.
func openTrust(raw []byte) (*trust.Document, []*evidence.Bundle, *Error) {
	if len(raw) > artifact.MaxBundle {
		return nil, nil, refuse(BadBundle, "trust file of %d bytes is larger than the limit of %d", len(raw), artifact.MaxBundle)
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	if len(lines) == 1 && len(lines[0]) == 0 {
		return nil, nil, refuse(NoBundle, "no trust document")
	}
	if len(lines) > MaxTrustSignatures {
		return nil, nil, refuse(BadBundle, "trust file has %d lines, more than %d", len(lines), MaxTrustSignatures)
	}
	var bundles []*evidence.Bundle
	for i, line := range lines {
		b, err := evidence.ParseBundle(line)
		if err != nil {
			return nil, nil, refuse(BadBundle, "trust file line %d: %w", i+1, err)
		}
		if i > 0 && !bytes.Equal(b.DSSEEnvelope.Payload, bundles[0].DSSEEnvelope.Payload) {
			return nil, nil, refuse(BadBundle, "trust file line %d signs another statement than line 1", i+1)
		}
		bundles = append(bundles, b)
	}
	s, err := evidence.ParseStatement(bundles[0].DSSEEnvelope.Payload)
	if err != nil {
		return nil, nil, refuse(BadBundle, "trust file: %w", err)
	}
	if s.PredicateType != evidence.TypeTrust {
		return nil, nil, refuse(WrongPredicate, "a %s statement, not a trust document", name(s.PredicateType))
	}
	d, err := trust.Parse(s.Predicate)
	if err != nil {
		return nil, nil, refuse(BadTrust, "%w", err)
	}
	digest, err := d.Digest()
	if err != nil || digest != s.SubjectDigest() || s.Subject[0].Name != TrustSubject {
		return nil, nil, refuse(WrongSubject, "trust statement is not about its own document")
	}
	return d, bundles, nil
}

// threshold counts the distinct root keys of doc, not revoked by it, whose signature fits.
func (v verifier) threshold(doc *trust.Document, bundles []*evidence.Bundle, next *trust.Document, whose string) *Error {
	signed := map[string]bool{}
	for _, b := range bundles {
		id, err := b.KeyID()
		if err != nil {
			continue
		}
		k, ok := doc.Lookup(id)
		if !ok || v.on("root-role") && k.Role != trust.RoleRoot || doc.IsRevoked(id) {
			continue
		}
		pub, _, err := trust.ParsePublic([]byte(k.Public))
		if err != nil || v.on("signature") && !Signature(pub, b.DSSEEnvelope.PayloadType, b.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig) {
			continue
		}
		signed[id] = true
	}
	if len(signed) < doc.Threshold {
		return refuse(BadTrust, "trust document version %d has %d of the %d root signatures that %s threshold needs", next.Version, len(signed), doc.Threshold, whose)
	}
	return nil
}
