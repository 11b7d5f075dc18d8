package evidence

import (
	"bytes"
	"encoding/json"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// GateID is the verifier.id of every VSA that Waybill's gate signs.
const GateID = "https://github.com/waybill-ml/waybill/gate/v1"

// NewStatement makes a statement about one digest. predicate is marshalled as it is, or taken over when it is a
// json.RawMessage; the result is validated as ParseStatement and ValidatePredicate would.
func NewStatement(predicateType, name string, subject artifact.Digest, predicate any) (*Statement, error) {
	raw, ok := predicate.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = marshal(predicate); err != nil {
			return nil, diag.Errorf("encode predicate %s: %w", predicateType, err)
		}
	}
	if _, err := artifact.ParseDigest(string(subject)); err != nil {
		return nil, diag.Errorf("statement subject: %w", err)
	}
	s := &Statement{
		Type:          StatementType,
		Subject:       []Subject{{Name: name, Digest: map[string]string{"sha256": subject.Hex()}}},
		PredicateType: predicateType,
		Predicate:     raw,
	}
	if err := ValidatePredicate(predicateType, raw); err != nil {
		return nil, err
	}
	return s, nil
}

// Encode gives the payload bytes: compact JSON, keys in the order of the type, no HTML escaping.
func (s *Statement) Encode() ([]byte, error) {
	b, err := marshal(s)
	if err != nil {
		return nil, diag.Errorf("encode statement: %w", err)
	}
	if len(b) > artifact.MaxBundle/2 {
		return nil, diag.Errorf("statement of %d bytes is too large for a bundle of at most %d bytes", len(b), artifact.MaxBundle)
	}
	return b, nil
}

// SubjectDigest gives the digest of the one subject.
func (s *Statement) SubjectDigest() artifact.Digest {
	return artifact.Digest("sha256:" + s.Subject[0].Digest["sha256"])
}

// ParseStatement reads a statement strictly: in-toto Statement v1 with exactly one subject that has exactly one digest,
// a sha256. Version 0.1, which cosign's attest writes, has the same members and is read too. The predicate is only checked
// to be an object; ValidatePredicate looks into it.
func ParseStatement(raw []byte) (*Statement, error) {
	var s Statement
	if err := strictjson.Decode(raw, &s); err != nil {
		return nil, diag.Errorf("parse in-toto statement: %w", err)
	}
	if s.Predicate == nil && s.PredicateType == TypeRelease {
		s.Predicate = json.RawMessage("{}") // cosign v2's sign leaves the empty predicate of this type out
	}
	switch {
	case s.Type != StatementType && s.Type != statementTypeV01:
		return nil, diag.Errorf("statement has _type %q, not %q", s.Type, StatementType)
	case len(s.Subject) != 1:
		return nil, diag.Errorf("statement has %d subjects, not 1", len(s.Subject))
	case len(s.Subject[0].Digest) != 1:
		return nil, diag.Errorf("statement subject has %d digests, not 1", len(s.Subject[0].Digest))
	case s.PredicateType == "":
		return nil, diag.Errorf("statement has no predicateType")
	}
	if _, err := artifact.ParseDigest("sha256:" + s.Subject[0].Digest["sha256"]); err != nil {
		return nil, diag.Errorf("statement subject: %w", err)
	}
	if p := bytes.TrimSpace(s.Predicate); len(p) == 0 || p[0] != '{' {
		return nil, diag.Errorf("statement predicate is not an object")
	}
	return &s, nil
}

// marshal is json.Marshal without HTML escaping and without the final newline.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
