package cli

import (
	"context"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
)

// notesJSON is an unsigned statement that pack left beside an artifact: no evidence until somebody signs it.
type notesJSON struct {
	PredicateType string          `json:"predicateType"`
	Digest        artifact.Digest `json:"digest"` // of its manifest
	Statement     artifact.Digest `json:"statement,omitempty"`
	Size          int64           `json:"size"`
}

func isNote(d artifact.Descriptor) bool { return d.ArtifactType == artifact.MediaTypeStatement }

// notesOf lists the unsigned statements among referrers.
func notesOf(ds []artifact.Descriptor) []notesJSON {
	var out []notesJSON
	for _, d := range ds {
		if isNote(d) {
			out = append(out, notesJSON{PredicateType: d.Annotations[artifact.AnnotationPredicate], Digest: d.Digest, Size: d.Size})
		}
	}
	return out
}

// noteNames names them for people: "provenance, cyclonedx".
func noteNames(list []notesJSON) string {
	var names []string
	for _, n := range list {
		names = append(names, evidence.NameOf(n.PredicateType))
	}
	return strings.Join(names, ", ")
}

// notes reads the statements that pack left for the publisher to sign: provenance and bill of materials about exactly this
// digest, made by a pack in this machine's own store. Others are left alone, and it is said: whoever may write to a registry
// may attach a false one, and a signature would make it true.
func (c *Call) notes(ctx context.Context, s *subject) ([]*evidence.Statement, error) {
	refs, err := s.Place.Referrers(ctx, s.Desc.Digest)
	if err != nil {
		return nil, err
	}
	var out []*evidence.Statement
	for _, r := range refs {
		if !isNote(r) {
			continue
		}
		made, err := madeHere(ctx, s, r.Digest)
		if err != nil {
			return nil, err
		}
		if !made {
			c.UI.Field("left alone", "the unsigned statement %s: not made by pack in this machine's store", r.Digest.Short())
			continue
		}
		st, why, err := readNote(ctx, s, r)
		if err != nil {
			return nil, err
		}
		if why != "" {
			c.UI.Why("the unsigned statement %s is left alone: %s", r.Digest.Short(), why)
			continue
		}
		out = append(out, st)
	}
	return out, nil
}

// signNotes signs the statements that notes gave and attaches them.
func (c *Call) signNotes(ctx context.Context, doc *trust.Document, k author, s *subject, notes []*evidence.Statement) error {
	for _, n := range notes {
		if _, ok := k.(*guest); !ok {
			if err := c.ready(doc, k, n.PredicateType, s.Name, ""); err != nil {
				return err
			}
		}
		d, err := s.attach(ctx, k, n.PredicateType, n.Predicate)
		if err != nil {
			return err
		}
		c.UI.Field(evidence.NameOf(n.PredicateType), "signed too, attached %s", d)
	}
	return nil
}

// madeHere tells whether pack put the statement into the user's own store. A layout is somebody's folder: its word counts
// for nothing.
func madeHere(ctx context.Context, s *subject, d artifact.Digest) (bool, error) {
	l, ok := s.Place.Place.(*registry.Local)
	if !ok || s.Ref.Kind != registry.KindLocal {
		return false, nil
	}
	return l.Store().MadeHere(ctx, d)
}

// readNote reads one unsigned statement, or tells why it is none that a publisher signs.
func readNote(ctx context.Context, s *subject, r artifact.Descriptor) (st *evidence.Statement, why string, err error) {
	raw, _, err := s.Place.Manifest(ctx, r.Digest)
	if diag.CodeOf(err) == diag.Verification {
		return nil, err.Error(), nil
	}
	if err != nil {
		return nil, "", err
	}
	layer, typ, err := artifact.ParseStatementManifest(raw)
	if err != nil {
		return nil, err.Error(), nil
	}
	if typ != evidence.TypeProvenance && typ != evidence.TypeCycloneDX {
		return nil, "a publisher does not sign " + evidence.NameOf(typ), nil
	}
	b, err := registry.ReadBlob(ctx, s.Place, layer, artifact.MaxBundle/2)
	if diag.CodeOf(err) == diag.Verification {
		return nil, err.Error(), nil
	}
	if err != nil {
		return nil, "", err
	}
	st, err = evidence.ParseStatement(b)
	if err == nil {
		err = evidence.ValidatePredicate(st.PredicateType, st.Predicate)
	}
	switch {
	case err != nil:
		return nil, err.Error(), nil
	case st.PredicateType != typ:
		return nil, "it calls itself " + typ + " and is " + st.PredicateType, nil
	case st.SubjectDigest() != s.Desc.Digest:
		return nil, "it is about " + string(st.SubjectDigest()), nil
	case st.Subject[0].Name != s.Name:
		return nil, "it is about a model named " + st.Subject[0].Name, nil
	}
	return st, "", nil
}
