package environments

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// SubjectName is the name of the subject of the signed statement.
const SubjectName = "environments"

// MaxSignatures bounds the bundles in a signed file.
const MaxSignatures = 32

// Signer signs a statement into a sigstore bundle; oci/sign has one for root keys.
type Signer interface {
	Sign(context.Context, *evidence.Statement) ([]byte, error)
}

// Signed is a verified file.
type Signed struct {
	Document *Document
	Digest   artifact.Digest // of the document
	Bundle   artifact.Digest // of the first bundle
	Keys     []string        // names of the root keys that signed, in order of the file
	Trust    *trust.Document // that it was verified under
}

// Sign signs d and appends the bundle to existing, a signed file that may be empty or hold signatures of other keys over
// the same document. A file over another document is replaced. One bundle per line.
func Sign(ctx context.Context, d *Document, s Signer, existing []byte) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	digest, err := d.Digest()
	if err != nil {
		return nil, err
	}
	st, err := evidence.NewStatement(evidence.TypeEnvironments, SubjectName, digest, d)
	if err != nil {
		return nil, err
	}
	payload, err := st.Encode()
	if err != nil {
		return nil, err
	}
	b, err := s.Sign(ctx, st)
	if err != nil {
		return nil, err
	}
	mine, err := evidence.ParseBundle(b)
	if err != nil {
		return nil, err
	}
	id, err := mine.KeyID()
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, line := range lines(existing) {
		old, err := evidence.ParseBundle(line)
		if err != nil || !bytes.Equal(old.DSSEEnvelope.Payload, payload) {
			out = nil
			break
		}
		if k, err := old.KeyID(); err == nil && k != id {
			out = append(out, line)
		}
	}
	return append(bytes.Join(append(out, b), []byte("\n")), '\n'), nil
}

func lines(raw []byte) [][]byte {
	var out [][]byte
	for _, l := range bytes.Split(raw, []byte("\n")) {
		if l = bytes.TrimSpace(l); len(l) > 0 {
			out = append(out, l)
		}
	}
	return out
}

// MediaType is the type of a signed file that travels as an artifact of its own.
const MediaType = "application/vnd.waybill.environments.v1+jsonl"

// Verify checks a signed file: every line a bundle over the same statement about its own document, and among them valid
// signatures of as many different root keys as the trust document's threshold. A signature that does not verify counts
// for nothing (it may be of a root key that was replaced).
func Verify(raw []byte, doc *trust.Document, now time.Time) (*Signed, error) {
	fail := func(err error, format string, args ...any) error {
		return diag.Wrap(diag.Verification, err, format, args...).Hint("waybill env sign environments.yaml --key root.key")
	}
	if len(raw) > 2*MaxBytes*MaxSignatures {
		return nil, fail(fmt.Errorf("%d bytes", len(raw)), "signed environments are too large")
	}
	ls := lines(raw)
	if len(ls) == 0 || len(ls) > MaxSignatures {
		return nil, fail(fmt.Errorf("%d signatures, at least 1 and at most %d are expected", len(ls), MaxSignatures), "signed environments")
	}
	var out *Signed
	var payload []byte
	var refused error
	keys := map[string]bool{}
	for i, l := range ls {
		b, err := evidence.ParseBundle(l)
		if err != nil {
			return nil, fail(err, "signed environments, line %d", i+1)
		}
		if i > 0 && !bytes.Equal(b.DSSEEnvelope.Payload, payload) {
			return nil, fail(fmt.Errorf("line %d signs another document than line 1", i+1), "signed environments")
		}
		payload = b.DSSEEnvelope.Payload
		st, err := evidence.ParseStatement(payload)
		if err != nil {
			return nil, fail(err, "signed environments, line %d", i+1)
		}
		e, err := verify.Bundle(l, doc, verify.Want{PredicateType: evidence.TypeEnvironments, Subject: st.SubjectDigest(), Role: trust.RoleRoot, Now: now})
		if err != nil {
			refused = fail(err, "signed environments, line %d", i+1)
			continue
		}
		if out == nil {
			d, err := ParseJSON(e.Predicate)
			if err != nil {
				return nil, fail(err, "signed environments")
			}
			digest, err := d.Digest()
			if err != nil || digest != e.Subject || e.SubjectName != SubjectName {
				return nil, fail(fmt.Errorf("the statement is not about its own document"), "signed environments")
			}
			out = &Signed{Document: d, Digest: digest, Bundle: e.Bundle, Trust: doc}
		}
		if !keys[e.KeyID] {
			keys[e.KeyID] = true
			out.Keys = append(out.Keys, e.KeyName)
		}
	}
	if out == nil {
		return nil, refused
	}
	if len(keys) < doc.Threshold {
		return nil, fail(fmt.Errorf("%d of the %d root signatures that trust document version %d asks for", len(keys), doc.Threshold, doc.Version), "signed environments")
	}
	if err := pinned(out, doc); err != nil {
		return nil, err
	}
	return out, nil
}

// Unverified reads the document of a signed file without asking who signed it: to compare, never to judge by.
func Unverified(raw []byte) (*Document, error) {
	ls := lines(raw)
	if len(ls) == 0 || len(ls) > MaxSignatures {
		return nil, fmt.Errorf("signed environments: %d signatures, at least 1 and at most %d are expected", len(ls), MaxSignatures)
	}
	b, err := evidence.ParseBundle(ls[0])
	if err != nil {
		return nil, fmt.Errorf("signed environments: %w", err)
	}
	st, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return nil, fmt.Errorf("signed environments: %w", err)
	}
	if st.PredicateType != evidence.TypeEnvironments {
		return nil, fmt.Errorf("signed environments: it is a %s", evidence.NameOf(st.PredicateType))
	}
	return ParseJSON(st.Predicate)
}

// pinned refuses a document that the trust document has left behind: everything that the roots ever signed stays signed, so
// only a pin tells an old document put back from the one in force.
func pinned(s *Signed, doc *trust.Document) error {
	p := doc.Environments
	switch {
	case p == nil:
		return nil
	case s.Document.Version < p.Version:
		return diag.New(diag.Verification, "environments version %d is older than version %d, the least that trust document version %d accepts",
			s.Document.Version, p.Version, doc.Version).
			Hint("get the signed environments of now; waybill env verify environments.signed says which version a file has")
	case s.Document.Version == p.Version && p.Digest != "" && s.Digest != p.Digest:
		return diag.New(diag.Verification, "environments version %d is %s; trust document version %d pins another document of that version, %s",
			s.Document.Version, s.Digest, doc.Version, p.Digest)
	}
	return nil
}
