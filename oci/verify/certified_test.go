package verify_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/sigstore"
	"github.com/waybill-ml/waybill/oci/verify/sigstore/sigstoretest"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

const (
	issuer = "https://ci.example"
	flow   = "https://ci.example/ml/churn/release.yml@refs/tags/v1"
)

func identity(role trust.Role, subject string) trust.Identity {
	pattern := strings.Contains(subject, "*")
	i := trust.Identity{
		ID: trust.IdentityID(issuer, subject, pattern), Name: "workflow", Role: role, Issuer: issuer, Subject: subject,
		Scope: trust.Scope{Models: []string{"churn"}, Envs: []string{"*"}, Channels: []string{"*"}},
	}
	if pattern {
		i.Subject, i.SubjectPattern = "", subject
	}
	return i
}

// keyless is a deployment and a document that trusts these identities under it.
func keyless(t *testing.T, ids ...trust.Identity) (*sigstoretest.World, *trust.Document, verify.Want) {
	t.Helper()
	now := time.Now()
	w := sigstoretest.New(t, now)
	root := w.TrustedRoot(t)
	d := verifytest.New(t).Doc
	d.Issued, d.Expires = now.Add(-time.Hour), now.Add(time.Hour)
	d.Identities = ids
	d.Keyless = &trust.Keyless{TrustedRoot: artifact.DigestOf(root), TrustedRootJSON: string(root), Logs: 1, Timestamps: 1}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	return w, d, verify.Want{
		PredicateType: evidence.TypeRelease, Subject: artifact.DigestOf([]byte("model")), Model: "churn", Now: now, Certificates: sigstore.With(),
	}
}

func payload(t *testing.T, typ string, subject artifact.Digest) []byte {
	t.Helper()
	s := evidence.Statement{
		Type: evidence.StatementType, Subject: []evidence.Subject{{Name: "churn", Digest: map[string]string{"sha256": subject.Hex()}}},
		PredicateType: typ, Predicate: json.RawMessage("{}"),
	}
	p, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIdentityAttacks(t *testing.T) {
	model, other := artifact.DigestOf([]byte("model")), artifact.DigestOf([]byte("other"))
	exact := []trust.Identity{identity(trust.RolePublisher, flow)}
	for name, c := range map[string]struct {
		ids             []trust.Identity
		issuer, subject string
		typ             string
		digest          artifact.Digest
		change          func(*trust.Document, *verify.Want)
		want            verify.Reason
		without         string
	}{
		"wrong subject":              {subject: "https://ci.example/ml/churn/release.yml@refs/heads/main", want: verify.WrongSigner, without: "identity"},
		"wrong issuer":               {issuer: "https://ci.evil.example", want: verify.WrongSigner, without: "identity"},
		"issuer with a slash more":   {issuer: issuer + "/", want: verify.WrongSigner, without: "identity"},
		"subject with something on":  {subject: flow + ".1", want: verify.WrongSigner, without: "identity"},
		"subject in a longer one":    {subject: "https://evil.example/" + flow, want: verify.WrongSigner, without: "identity"},
		"replayed to another digest": {digest: other, want: verify.WrongSubject, without: "subject"},
		"another predicate":          {typ: evidence.TypeCycloneDX, want: verify.WrongPredicate, without: "predicate"},
		"pattern, suffix": {
			ids: []trust.Identity{identity(trust.RolePublisher, "https://ci.example/ml/churn/release.yml@refs/tags/v*")}, subject: flow + "/../../heads/main", want: verify.WrongSigner, without: "identity",
		},
		"pattern, prefix": {
			ids: []trust.Identity{identity(trust.RolePublisher, "*@example.com")}, subject: "ci@evil.example@example.com", want: verify.WrongSigner, without: "identity",
		},
		"two roles": {
			ids:  []trust.Identity{identity(trust.RolePublisher, flow), identity(trust.RoleGate, "https://ci.example/ml/churn/*@refs/tags/v1")},
			want: verify.WrongRole, without: "one-role",
		},
		"revoked": {change: func(d *trust.Document, _ *verify.Want) { d.Revoked = []string{d.Identities[0].ID} }, want: verify.Revoked, without: "revoked"},
		"revoked through a wider pattern": {
			ids:    []trust.Identity{identity(trust.RolePublisher, flow), identity(trust.RolePublisher, "https://ci.example/ml/churn/*@refs/tags/v1")},
			change: func(d *trust.Document, _ *verify.Want) { d.Revoked = []string{d.Identities[1].ID} }, want: verify.Revoked, without: "revoked",
		},
		"another role":  {ids: []trust.Identity{identity(trust.RoleEvaluator, flow)}, want: verify.WrongRole, without: "role"},
		"another model": {change: func(_ *trust.Document, w *verify.Want) { w.Model = "fraud" }, want: verify.OutOfScope, without: "scope"},
		"denied digest": {change: func(d *trust.Document, _ *verify.Want) { d.Denied = []artifact.Digest{model} }, want: verify.Revoked, without: "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			ids := c.ids
			if ids == nil {
				ids = exact
			}
			w, doc, want := keyless(t, ids...)
			s := sigstoretest.Signing{Issuer: issuer, Subject: flow, Payload: payload(t, evidence.TypeRelease, model)}
			if c.issuer != "" {
				s.Issuer = c.issuer
			}
			if c.subject != "" {
				s.Subject = c.subject
			}
			if c.typ != "" {
				s.Payload = payload(t, c.typ, model)
			}
			if c.digest != "" {
				s.Payload = payload(t, evidence.TypeRelease, c.digest)
			}
			if c.change != nil {
				c.change(doc, &want)
			}
			raw := w.Sign(t, s)
			_, err := verify.Bundle(raw, doc, want)
			if got := verify.ReasonOf(err); got != c.want {
				t.Fatalf("got %v (%s), want %s", err, got, c.want)
			}
			e, err := verify.BundleWithout(c.without, raw, doc, want)
			if err != nil && !(c.without == "predicate" && verify.ReasonOf(err) == verify.BadBundle) { // its predicate is no bill of materials
				t.Errorf("without the check %q the attack is still refused: %v", c.without, err)
			}
			if err == nil && e.Certified == nil {
				t.Error("no word about the certificate")
			}
		})
	}
}

// forged hands out a signer without having checked anything.
type forged struct{ c verify.Certified }

func (f forged) Certified([]byte, trust.Keyless) (*verify.Certified, error) { c := f.c; return &c, nil }

func (forged) Stamped([]byte, trust.Keyless) (time.Time, verify.TimeSource, error) {
	return time.Time{}, "", nil
}

// Whatever the verifier of certificates says, the signature over the payload is checked here again, and a time is needed.
func TestCertifiedIsNotBelieved(t *testing.T) {
	w, doc, want := keyless(t, identity(trust.RolePublisher, flow))
	raw := w.Sign(t, sigstoretest.Signing{Issuer: issuer, Subject: flow, Payload: payload(t, evidence.TypeRelease, want.Subject)})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := forged{verify.Certified{Issuer: issuer, Subject: flow, Public: key.Public(), Times: []verify.Time{{At: want.Now, Source: verify.TimeRFC3161}}}}
	want.Certificates = f
	if _, err := verify.Bundle(raw, doc, want); verify.ReasonOf(err) != verify.Altered {
		t.Errorf("another key: %v", err)
	}
	if _, err := verify.BundleWithout("signature", raw, doc, want); err != nil {
		t.Errorf("without the signature: %v", err)
	}
	real, err := sigstore.With().Certified(raw, *doc.Keyless)
	if err != nil {
		t.Fatal(err)
	}
	real.Times = nil
	want.Certificates = forged{*real}
	if _, err := verify.Bundle(raw, doc, want); verify.ReasonOf(err) != verify.NoTime {
		t.Errorf("no time: %v", err)
	}
}

// A build without the verifier of certificates says so; a document without identities trusts none.
func TestPinnedKeysOnly(t *testing.T) {
	w, doc, want := keyless(t, identity(trust.RolePublisher, flow))
	raw := w.Sign(t, sigstoretest.Signing{Issuer: issuer, Subject: flow, Payload: payload(t, evidence.TypeRelease, want.Subject)})
	light := want
	light.Certificates = nil
	if _, err := verify.Bundle(raw, doc, light); verify.ReasonOf(err) != verify.WrongSigner || !strings.Contains(err.Error(), "this build checks pinned keys only") {
		t.Errorf("got %v", err)
	}
	doc.Identities, doc.Keyless = nil, nil
	if _, err := verify.Bundle(raw, doc, want); verify.ReasonOf(err) != verify.WrongSigner || !strings.Contains(err.Error(), "names no identities") {
		t.Errorf("got %v", err)
	}
}

// An identity's id in the hint to a key opens nothing: there is no key behind it.
func TestIdentityAsKeyHint(t *testing.T) {
	_, doc, want := keyless(t, identity(trust.RolePublisher, flow))
	k := verifytest.NewKey(t, "attacker", trust.RolePublisher)
	k.ID = doc.Identities[0].ID
	raw := k.SignPayload(t, payload(t, evidence.TypeRelease, want.Subject))
	if _, err := verify.Bundle(raw, doc, want); verify.ReasonOf(err) != verify.WrongSigner {
		t.Errorf("got %v", err)
	}
}
