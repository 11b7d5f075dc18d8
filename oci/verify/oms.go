package verify

import (
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/oms"
	"github.com/waybill-ml/waybill/oci/trust"
)

// signerOf gives the id of the key that a bundle names. An OMS bundle names it by the hash of its PEM form, which only
// the trust document can turn into an id; another statement with such a hint has none.
func signerOf(b *evidence.Bundle, s *evidence.Statement, doc *trust.Document) (string, error) {
	hint, ok := b.PEMHint()
	if !ok || s.PredicateType != evidence.TypeOMS {
		return b.KeyID()
	}
	for _, k := range doc.Keys {
		pub, _, err := trust.ParsePublic([]byte(k.Public))
		if err != nil {
			continue // refused where such a key is looked at
		}
		if h, err := oms.Hint(pub); err == nil && h == hint {
			return k.ID, nil
		}
	}
	return hint, nil // unknown, and told by the name that the bundle has for it
}

// about compares what a statement is about with what was asked for, and gives that digest. OMS's subject is a hash over
// its list of files; it is about the artifact when the list is that of the artifact's layers.
func (v verifier) about(s *evidence.Statement, want Want) (artifact.Digest, *Error) {
	if s.PredicateType != evidence.TypeOMS {
		if v.on("subject") && (want.Subject == "" || s.SubjectDigest() != want.Subject) {
			return "", refuse(WrongSubject, "%s is about %s, not about %s", name(want.PredicateType), s.SubjectDigest().Short(), want.Subject.Short())
		}
		return s.SubjectDigest(), nil
	}
	p, err := oms.Check(s)
	if err != nil {
		return "", refuse(BadBundle, "%w", err)
	}
	if !v.on("subject") {
		return want.Subject, nil
	}
	if len(want.Layers) == 0 {
		return "", refuse(WrongSubject, "oms lists files, and there is no manifest to compare them with")
	}
	if err := p.Matches(want.Layers); err != nil {
		return "", refuse(WrongSubject, "oms is about other files than %s has: %w", want.Subject.Short(), err)
	}
	return want.Subject, nil
}
