package sigstore

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	check "github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/sigstore/sigstoretest"
)

// replaced is a trusted root with some of its parts exchanged.
type replaced struct {
	root.TrustedMaterial
	cas  []root.CertificateAuthority
	tsas []root.TimestampingAuthority
}

func (r replaced) FulcioCertificateAuthorities() []root.CertificateAuthority {
	if r.cas != nil {
		return r.cas
	}
	return r.TrustedMaterial.FulcioCertificateAuthorities()
}

func (r replaced) TimestampingAuthorities() []root.TimestampingAuthority {
	if r.tsas != nil {
		return r.tsas
	}
	return r.TrustedMaterial.TimestampingAuthorities()
}

// anyChain takes every certificate for one of the authority's; anyTime asks about its first second, whenever it was used.
type anyChain struct{}

func (anyChain) Verify(c *x509.Certificate, _ time.Time) ([][]*x509.Certificate, error) {
	return [][]*x509.Certificate{{c}}, nil
}

type anyTime struct{ root.CertificateAuthority }

func (a anyTime) Verify(c *x509.Certificate, _ time.Time) ([][]*x509.Certificate, error) {
	return a.CertificateAuthority.Verify(c, c.NotBefore)
}

// anyTSA believes every timestamp without asking who signed it.
type anyTSA struct{}

func (anyTSA) Verify(raw, _ []byte) (*root.Timestamp, error) {
	ts, err := timestamp.ParseResponse(raw)
	if err != nil {
		return nil, err
	}
	return &root.Timestamp{Time: ts.Time, URI: "anybody"}, nil
}

func noChain(r root.TrustedMaterial, o []verify.VerifierOption, _ *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption) {
	return replaced{TrustedMaterial: r, cas: []root.CertificateAuthority{anyChain{}}}, o
}

func noValidity(r root.TrustedMaterial, o []verify.VerifierOption, _ *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption) {
	var cas []root.CertificateAuthority
	for _, ca := range r.FulcioCertificateAuthorities() {
		cas = append(cas, anyTime{ca})
	}
	return replaced{TrustedMaterial: r, cas: cas}, o
}

func noTime(r root.TrustedMaterial, _ []verify.VerifierOption, _ *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption) {
	return r, []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithCurrentTime()}
}

func noTSA(r root.TrustedMaterial, o []verify.VerifierOption, _ *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption) {
	return replaced{TrustedMaterial: r, tsas: []root.TimestampingAuthority{anyTSA{}}}, o
}

func noLog(r root.TrustedMaterial, _ []verify.VerifierOption, _ *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption) {
	return r, []verify.VerifierOption{verify.WithSignedTimestamps(1)}
}

func noLogNoTime(r root.TrustedMaterial, _ []verify.VerifierOption, _ *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption) {
	return r, []verify.VerifierOption{verify.WithCurrentTime()}
}

func noSCT(r root.TrustedMaterial, _ []verify.VerifierOption, _ *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption) {
	return r, []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1)}
}

// Every attack on what a certificate brings along is refused with its reason, and succeeds when the one check against it
// is left out.
func TestAttacks(t *testing.T) {
	both := trust.Keyless{Logs: 1, Timestamps: 1}
	for name, c := range map[string]struct {
		k      trust.Keyless
		attack func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World // which deployment signs; nil: the right one
		want   check.Reason
		text   string
		gone   checker
	}{
		"certificate of an unknown authority": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.CA = sigstoretest.New(t, s.Now).CA
			return nil
		}, check.WrongSigner, "no authority in the trusted root", checker{weaken: noChain}},
		"used after the certificate ran out": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.From = s.Now.Add(-time.Hour)
			return nil
		}, check.Expired, "was used on", checker{weaken: noValidity}},
		"used before the certificate was made": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.At = s.Now.Add(-time.Hour)
			return nil
		}, check.Expired, "was used on", checker{weaken: noValidity}},
		"no timestamp": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.NoTime = true
			return nil
		}, check.NoTime, "timestamp", checker{weaken: noTime}},
		"integrated time in place of a timestamp": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.NoTime, g.RekorV1 = true, true
			return nil
		}, check.NoTime, "timestamp", checker{weaken: noTime}},
		"rekor v2 gives no time": {trust.Keyless{Logs: 1}, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.NoTime = true
			return nil
		}, check.NoTime, "timestamp", checker{weaken: noTime}},
		"timestamp by an unknown authority": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.TSA = sigstoretest.New(t, s.Now).TSA
			return nil
		}, check.NoTime, "timestamp", checker{weaken: noTSA}},
		"no log entry": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.NoLog = true
			return nil
		}, check.NotLogged, "not enough verified log entries", checker{weaken: noLog}},
		"log entry for another bundle": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.LogOther = statement(t, evidence.TypeRelease, artifact.DigestOf([]byte("another model")))
			return nil
		}, check.NotLogged, "log", checker{weaken: noLog}},
		"log entry of rekor v1 for another bundle": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.RekorV1, g.LogOther = true, statement(t, evidence.TypeRelease, artifact.DigestOf([]byte("another model")))
			return nil
		}, check.NotLogged, "log", checker{weaken: noLog}},
		"entry of another log": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			w := sigstoretest.New(t, s.Now)
			g.CA, g.TSA = s.CA, s.TSA
			return w
		}, check.NotLogged, "not enough verified log entries", checker{weaken: noLog}},
		"checkpoint of another origin": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.Host = "other.test"
			return nil
		}, check.NotLogged, "log", checker{weaken: noLog}},
		"bad signed entry timestamp": {trust.Keyless{Logs: 1}, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.RekorV1, g.NoTime, g.BadSET = true, true, true
			return nil
		}, check.NotLogged, "not enough verified log entries", checker{weaken: noLogNoTime}},
		"no certificate transparency": {trust.Keyless{Logs: 1, Timestamps: 1, SCTs: 1}, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			return nil
		}, check.WrongSigner, "SCT", checker{weaken: noSCT}},
		"a second name": {both, func(t *testing.T, s *scene, g *sigstoretest.Signing) *sigstoretest.World {
			g.Also = "somebody@evil.example"
			return nil
		}, check.WrongSigner, "2 subject alternative names", checker{names: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, c.k)
			g := sigstoretest.Signing{Issuer: issuer, Subject: subject, Payload: s.payload}
			w := c.attack(t, s, &g)
			if w == nil {
				w = s.World
			}
			raw := w.Sign(t, g)
			_, err := check.Bundle(raw, s.doc, s.want)
			if check.ReasonOf(err) != c.want || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v (%s), want %s with %q", err, check.ReasonOf(err), c.want, c.text)
			}
			weak := s.want
			weak.Certificates = weakened{c.gone}
			if _, err := check.Bundle(raw, s.doc, weak); err != nil {
				t.Errorf("with the check left out the attack is still refused, so something else was tested: %v", err)
			}
		})
	}
}

// weakened is Verifier with a check left out.
type weakened struct{ c checker }

func (w weakened) Certified(raw []byte, k trust.Keyless) (*check.Certified, error) {
	r, err := With().root(k)
	if err != nil {
		return nil, err
	}
	return w.c.certified(raw, r, k)
}

func (weakened) Stamped([]byte, trust.Keyless) (time.Time, check.TimeSource, error) {
	return time.Time{}, "", nil
}

// A trusted root of another deployment in place of the one that the trust document names by digest.
func TestTrustedRootSwapped(t *testing.T) {
	s := newScene(t, trust.Keyless{Logs: 1, Timestamps: 1})
	evil := sigstoretest.New(t, s.Now)
	raw := evil.Sign(t, sigstoretest.Signing{Issuer: issuer, Subject: subject, Payload: s.payload})
	k := *s.doc.Keyless
	k.TrustedRootJSON = ""
	s.doc.Keyless = &k
	w := s.want
	w.Certificates = With(evil.TrustedRoot(t))
	if _, err := check.Bundle(raw, s.doc, w); check.ReasonOf(err) != check.BadTrust {
		t.Fatalf("got %v", err)
	}
	// Filed under the digest that the document names, it would do.
	w.Certificates = &Verifier{files: map[artifact.Digest][]byte{k.TrustedRoot: evil.TrustedRoot(t)}}
	if _, err := check.Bundle(raw, s.doc, w); check.ReasonOf(err) != check.BadTrust {
		t.Fatalf("under a wrong digest: %v", err)
	}
	r, err := ParseRoot(evil.TrustedRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	w.Certificates = &Verifier{roots: map[artifact.Digest]*root.TrustedRoot{k.TrustedRoot: r}}
	if _, err := check.Bundle(raw, s.doc, w); err != nil {
		t.Errorf("without the comparison of digests the attack is still refused: %v", err)
	}
}

// A bundle with two signatures, one under another algorithm, and bytes changed after signing.
func TestMalformedBundles(t *testing.T) {
	s := newScene(t, trust.Keyless{Logs: 1, Timestamps: 1})
	good := s.Sign(t, sigstoretest.Signing{Issuer: issuer, Subject: subject, Payload: s.payload})
	if _, err := check.Bundle(good, s.doc, s.want); err != nil {
		t.Fatal(err)
	}
	change := func(f func(b map[string]any)) []byte {
		var b map[string]any
		if err := json.Unmarshal(good, &b); err != nil {
			t.Fatal(err)
		}
		f(b)
		raw, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	at := func(b any, path ...string) map[string]any {
		m := b.(map[string]any)
		for _, p := range path {
			m = m[p].(map[string]any)
		}
		return m
	}
	for name, c := range map[string]struct {
		raw  []byte
		want check.Reason
	}{
		"two signatures": {change(func(b map[string]any) {
			e := at(b, "dsseEnvelope")
			e["signatures"] = append(e["signatures"].([]any), e["signatures"].([]any)[0])
		}), check.SeveralSignatures},
		"a key beside the certificate": {change(func(b map[string]any) {
			at(b, "verificationMaterial")["publicKey"] = map[string]any{"hint": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
		}), check.BadBundle},
		"a certificate chain": {change(func(b map[string]any) {
			m := at(b, "verificationMaterial")
			m["x509CertificateChain"] = map[string]any{"certificates": []any{m["certificate"]}}
			delete(m, "certificate")
		}), check.BadBundle},
		"no certificate in it": {change(func(b map[string]any) { at(b, "verificationMaterial")["certificate"] = map[string]any{} }), check.BadBundle},
		"a message signature too": {change(func(b map[string]any) {
			b["messageSignature"] = map[string]any{"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": "AA=="}, "signature": "AA=="}
		}), check.BadBundle},
		"another payload": {change(func(b map[string]any) {
			at(b, "dsseEnvelope")["payload"] = statement(t, evidence.TypeRelease, artifact.DigestOf([]byte("another model")))
		}), check.NotLogged},
		"another algorithm": {s.Sign(t, sigstoretest.Signing{Issuer: issuer, Subject: subject, Payload: s.payload, Curve: elliptic.P384()}), check.Altered},
	} {
		if _, err := check.Bundle(c.raw, s.doc, s.want); check.ReasonOf(err) != c.want {
			t.Errorf("%s: got %v (%s), want %s", name, err, check.ReasonOf(err), c.want)
		}
	}
	// With the log not asked, a changed payload meets the signature itself.
	k := *s.doc.Keyless
	k.Logs = 0
	s.doc.Keyless = &k
	other := statement(t, evidence.TypeRelease, artifact.DigestOf([]byte("another model")))
	raw := change(func(b map[string]any) { at(b, "dsseEnvelope")["payload"] = other })
	w := s.want
	w.Subject = artifact.DigestOf([]byte("another model"))
	if _, err := check.Bundle(raw, s.doc, w); check.ReasonOf(err) != check.Altered {
		t.Errorf("another payload, no log: %v", err)
	}
}

func FuzzCertified(f *testing.F) {
	now := time.Now()
	w := sigstoretest.New(f, now)
	raw := w.TrustedRoot(f)
	k := trust.Keyless{TrustedRoot: artifact.DigestOf(raw), TrustedRootJSON: string(raw), Logs: 1, Timestamps: 1}
	for _, s := range []sigstoretest.Signing{{}, {RekorV1: true}, {NoLog: true}, {NoTime: true}} {
		s.Issuer, s.Subject, s.Payload = issuer, subject, []byte(`{"_type":"x"}`)
		f.Add(w.Sign(f, s))
	}
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":""}}}`))
	v := With()
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := v.Certified(b, k); err == nil && (c.Subject == "" || c.Issuer == "" || len(c.Times) == 0 || c.Public == nil) {
			t.Errorf("certified without saying who and when: %+v", c)
		}
	})
}
