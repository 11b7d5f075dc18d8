package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/oms"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// An OMS bundle counts for an artifact only when it lists exactly the artifact's files and a publisher signed it.
func TestOMSBundle(t *testing.T) {
	w := verifytest.New(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := trust.KeyID(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := trust.EncodePublic(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	all := trust.Scope{Models: []string{"*"}, Envs: []string{"*"}, Channels: []string{"*"}}
	as := func(r trust.Role, scope trust.Scope) *trust.Document {
		d := *w.Doc
		d.Keys = append(append([]trust.Key{}, w.Doc.Keys...), trust.Key{ID: id, Name: "ec", Role: r, Public: string(public), Scope: scope})
		return &d
	}
	layer := func(p, content string) artifact.Layer {
		return artifact.Layer{Role: artifact.RoleDoc, Path: p, Digest: artifact.DigestOf([]byte(content))}
	}
	ls := []artifact.Layer{layer("a", "1"), layer("b", "2")}
	sign := func(s *evidence.Statement) []byte {
		payload, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(evidence.PAE(evidence.PayloadType, payload))
		sig, err := ecdsa.SignASN1(rand.Reader, ec, h[:])
		if err != nil {
			t.Fatal(err)
		}
		hint, err := oms.Hint(&ec.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := evidence.EncodeHinted(hint, payload, sig)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	list, err := oms.New("churn", ls)
	if err != nil {
		t.Fatal(err)
	}
	release, err := evidence.NewStatement(evidence.TypeRelease, "churn", digestA, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	raw := sign(list)
	want := Want{PredicateType: evidence.TypeOMS, Subject: digestA, Layers: ls, Model: "churn", Now: w.Now}
	e, err := Bundle(raw, as(trust.RolePublisher, all), want)
	if err != nil || e.Subject != digestA || e.KeyID != id {
		t.Fatalf("%+v %v", e, err)
	}
	for _, c := range []struct {
		name   string
		raw    []byte
		doc    *trust.Document
		layers []artifact.Layer
		typ    string
		reason Reason
		skip   string
	}{
		{"another file", raw, as(trust.RolePublisher, all), []artifact.Layer{layer("a", "1"), layer("b", "3")}, evidence.TypeOMS, WrongSubject, "subject"},
		{"a file more", raw, as(trust.RolePublisher, all), append([]artifact.Layer{layer("c", "3")}, ls...), evidence.TypeOMS, WrongSubject, "subject"},
		{"no manifest to compare with", raw, as(trust.RolePublisher, all), nil, evidence.TypeOMS, WrongSubject, "subject"},
		{"a key that nobody named", raw, w.Doc, ls, evidence.TypeOMS, WrongSigner, ""},
		{"a key of another role", raw, as(trust.RoleEvaluator, all), ls, evidence.TypeOMS, WrongRole, "role"},
		{"a key of another model", raw, as(trust.RolePublisher, trust.Scope{Models: []string{"other"}}), ls, evidence.TypeOMS, OutOfScope, "scope"},
		{"taken for a release", raw, as(trust.RolePublisher, all), ls, evidence.TypeRelease, WrongPredicate, ""},
		{"a release with such a hint", sign(release), as(trust.RolePublisher, all), ls, evidence.TypeRelease, BadBundle, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := want
			x.Layers, x.PredicateType = c.layers, c.typ
			if _, err := Bundle(c.raw, c.doc, x); ReasonOf(err) != c.reason {
				t.Errorf("reason %q (%v), want %q", ReasonOf(err), err, c.reason)
			}
			if c.skip != "" {
				if _, fail := (verifier{skip: c.skip}).bundle(c.raw, c.doc, x); fail != nil {
					t.Errorf("without the check it still fails: %v", fail)
				}
			}
		})
	}
}
