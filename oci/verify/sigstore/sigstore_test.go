package sigstore

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	check "github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/sigstore/sigstoretest"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

const (
	issuer  = "https://ci.example"
	subject = "https://ci.example/ml/churn/release.yml@refs/tags/v1"
)

// scene is a deployment, a trust document with one publisher identity under it, and a statement for it to sign.
type scene struct {
	*sigstoretest.World
	root    []byte
	doc     *trust.Document
	digest  artifact.Digest
	payload []byte
	want    check.Want
}

func newScene(t *testing.T, k trust.Keyless, ids ...trust.Identity) *scene {
	t.Helper()
	now := time.Now()
	s := &scene{World: sigstoretest.New(t, now), digest: artifact.DigestOf([]byte("model"))}
	s.root = s.TrustedRoot(t)
	k.TrustedRoot, k.TrustedRootJSON = artifact.DigestOf(s.root), string(s.root)
	if ids == nil {
		ids = []trust.Identity{identity(trust.RolePublisher, subject, false)}
	}
	s.doc = verifytest.New(t).Doc
	s.doc.Issued, s.doc.Expires = now.Add(-time.Hour), now.Add(24*time.Hour)
	s.doc.Identities, s.doc.Keyless = ids, &k
	if err := s.doc.Validate(); err != nil {
		t.Fatal(err)
	}
	s.payload = statement(t, evidence.TypeRelease, s.digest)
	s.want = check.Want{PredicateType: evidence.TypeRelease, Subject: s.digest, Model: "churn", Now: now, Certificates: With()}
	return s
}

func identity(role trust.Role, subject string, pattern bool) trust.Identity {
	i := trust.Identity{
		ID: trust.IdentityID(issuer, subject, pattern), Name: "release workflow", Role: role, Issuer: issuer, Subject: subject,
		Scope: trust.Scope{Models: []string{"churn"}, Envs: []string{"*"}, Channels: []string{"*"}},
	}
	if pattern {
		i.Subject, i.SubjectPattern = "", subject
	}
	return i
}

func statement(t *testing.T, typ string, d artifact.Digest) []byte {
	t.Helper()
	st, err := evidence.NewStatement(typ, "churn", d, json.RawMessage("{}"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := st.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCertifiedBundle(t *testing.T) {
	for name, c := range map[string]struct {
		k    trust.Keyless
		s    sigstoretest.Signing
		src  check.TimeSource
		logs int
	}{
		"rekor v2 and timestamp":    {trust.Keyless{Logs: 1, Timestamps: 1}, sigstoretest.Signing{}, check.TimeRFC3161, 1},
		"rekor v1 and timestamp":    {trust.Keyless{Logs: 1, Timestamps: 1}, sigstoretest.Signing{RekorV1: true}, check.TimeRFC3161, 1},
		"rekor v1, integrated time": {trust.Keyless{Logs: 1}, sigstoretest.Signing{RekorV1: true, NoTime: true}, check.TimeLog, 1},
		"timestamp only":            {trust.Keyless{Timestamps: 1}, sigstoretest.Signing{NoLog: true}, check.TimeRFC3161, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, c.k)
			c.s.Issuer, c.s.Subject, c.s.Payload = issuer, subject, s.payload
			raw := s.Sign(t, c.s)
			e, err := check.Bundle(raw, s.doc, s.want)
			if err != nil {
				t.Fatal(err)
			}
			x := e.Certified
			if x == nil || x.Issuer != issuer || x.Subject != subject || len(x.Times) != 1 || x.Times[0].Source != c.src || !x.Times[0].At.Equal(s.Now) || len(x.Logs) != c.logs {
				t.Errorf("evidence: %+v", x)
			}
			if e.KeyID != s.doc.Identities[0].ID || e.Role != trust.RolePublisher || e.Bundle != artifact.DigestOf(raw) || e.Subject != s.digest || e.TimeSource != c.src || !e.At.Equal(s.Now) {
				t.Errorf("evidence: %+v", e)
			}
			// The trusted root by digest, the file handed over.
			byDigest := *s.doc
			k := *s.doc.Keyless
			k.TrustedRootJSON = ""
			byDigest.Keyless = &k
			w := s.want
			w.Certificates = With()
			if _, err := check.Bundle(raw, &byDigest, w); check.ReasonOf(err) != check.BadTrust {
				t.Errorf("without the trusted root at hand: %v", err)
			}
			w.Certificates = With(s.root)
			if _, err := check.Bundle(raw, &byDigest, w); err != nil {
				t.Errorf("with the trusted root at hand: %v", err)
			}
		})
	}
}

// A timestamp gives the statement of a key a verified time; one by a stranger, or for another signature, is refused.
func TestStampedKeyBundle(t *testing.T) {
	s := newScene(t, trust.Keyless{Timestamps: 1})
	k := verifytest.NewKey(t, "publisher", trust.RolePublisher)
	s.doc.Identities = nil
	plain := k.SignPayload(t, s.payload)
	e, err := check.Bundle(s.Stamp(t, plain, s.Now), s.doc, s.want)
	if err != nil || e.TimeSource != check.TimeRFC3161 || !e.At.Equal(s.Now) {
		t.Fatalf("%+v, %v", e, err)
	}
	if e, err := check.Bundle(plain, s.doc, s.want); err != nil || e.TimeSource != check.TimeNone {
		t.Errorf("without a timestamp: %+v, %v", e, err)
	}
	stranger := sigstoretest.New(t, s.Now)
	if _, err := check.Bundle(stranger.Stamp(t, plain, s.Now), s.doc, s.want); check.ReasonOf(err) != check.Altered {
		t.Errorf("timestamp by a stranger: %v", err)
	}
	s.doc.Keyless = nil
	if e, err := check.Bundle(s.Stamp(t, plain, s.Now), s.doc, s.want); err != nil || e.TimeSource != check.TimeNone {
		t.Errorf("a document without a trusted root: %+v, %v", e, err)
	}
}

// BenchmarkCertified is one whole verification: parsing, certificate, timestamp, log entry, identity, statement.
func BenchmarkCertified(b *testing.B) {
	now := time.Now()
	w := sigstoretest.New(b, now)
	root := w.TrustedRoot(b)
	d := verifytest.New(b).Doc
	d.Issued, d.Expires = now.Add(-time.Hour), now.Add(time.Hour)
	d.Identities = []trust.Identity{identity(trust.RolePublisher, subject, false)}
	d.Keyless = &trust.Keyless{TrustedRoot: artifact.DigestOf(root), TrustedRootJSON: string(root), Logs: 1, Timestamps: 1}
	digest := artifact.DigestOf([]byte("model"))
	st, err := evidence.NewStatement(evidence.TypeRelease, "churn", digest, struct{}{})
	if err != nil {
		b.Fatal(err)
	}
	payload, err := st.Encode()
	if err != nil {
		b.Fatal(err)
	}
	raw := w.Sign(b, sigstoretest.Signing{Issuer: issuer, Subject: subject, Payload: payload})
	want := check.Want{PredicateType: evidence.TypeRelease, Subject: digest, Model: "churn", Now: now, Certificates: With()}
	for b.Loop() {
		if _, err := check.Bundle(raw, d, want); err != nil {
			b.Fatal(err)
		}
	}
}
