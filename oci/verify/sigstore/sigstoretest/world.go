// Package sigstoretest makes, for tests, what a sigstore deployment makes: certificates of an authority, timestamps, log
// entries of Rekor v1 and v2, the trusted root that names them, and bundles. The cryptography is real and the keys are
// new each time; it also makes what no real deployment would, one wrong thing at a time.
package sigstoretest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// T is the part of testing.TB that the package needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// World is one deployment: an authority for certificates, one for timestamps, a log of either version.
type World struct {
	Now   time.Time
	CA    *Authority
	TSA   *Authority // with a leaf of its own, which signs timestamps
	LogV1 *ecdsa.PrivateKey
	LogV2 ed25519.PrivateKey
}

// Authority is a root certificate with what it signs with.
type Authority struct {
	Root, Leaf *x509.Certificate
	Key        *ecdsa.PrivateKey
}

// Names of the parts in the trusted root. The host of a log is the origin of its checkpoints.
const (
	HostV1 = "rekor.test"
	HostV2 = "log.test"
	URITSA = "https://tsa.test/api/v1/timestamp"
)

// New makes a deployment that is trusted from a day before now on. Its authorities' certificates are valid for decades: a
// timestamp carries the machine's time beside the one that it states.
func New(t T, now time.Time) *World {
	t.Helper()
	w := &World{Now: now.Truncate(time.Second), LogV1: newKey(t, elliptic.P256())}
	_, k, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	w.LogV2 = k
	w.CA, w.TSA = w.authority(t, "test authority"), w.authority(t, "test timestamps")
	// A timestamp authority signs with a leaf whose only, critical purpose that is (RFC 3161, section 2.3).
	eku, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	must(t, err)
	key := newKey(t, elliptic.P256())
	w.TSA.Leaf = w.TSA.issue(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test timestamps leaf"}, NotBefore: w.Now.AddDate(-20, 0, 0), NotAfter: w.Now.AddDate(50, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: eku}},
	}, key.Public())
	w.TSA.Key = key
	return w
}

func (w *World) authority(t T, name string) *Authority {
	t.Helper()
	a := &Authority{Key: newKey(t, elliptic.P256())}
	tpl := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: w.Now.AddDate(-20, 0, 0), NotAfter: w.Now.AddDate(50, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, a.Key.Public(), a.Key)
	must(t, err)
	a.Root, err = x509.ParseCertificate(der)
	must(t, err)
	return a
}

func (a *Authority) issue(t T, tpl *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.Root, pub, a.Key)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	return c
}

// TrustedRoot is the trusted_root.json of the deployment.
func (w *World) TrustedRoot(t T) []byte {
	t.Helper()
	return Parts{
		Start: w.Now.Add(-24 * time.Hour), FulcioURL: "https://fulcio.test", CA: []*x509.Certificate{w.CA.Root},
		TSAURL: URITSA, TSA: []*x509.Certificate{w.TSA.Leaf, w.TSA.Root},
		Logs: []Log{{"https://" + HostV1, w.LogV1.Public()}, {"https://" + HostV2, w.LogV2.Public()}},
	}.TrustedRoot(t)
}

// Parts are what a trusted root names. Chains go from the leaf to the root.
type Parts struct {
	Start             time.Time // of everything's validity
	FulcioURL, TSAURL string
	CA, TSA           []*x509.Certificate
	Logs              []Log
}

// Log is a transparency log: ECDSA P-256, or Ed25519, whose id then depends on the host.
type Log struct {
	URL string
	Key crypto.PublicKey
}

// TrustedRoot writes the trusted_root.json.
func (p Parts) TrustedRoot(t T) []byte {
	t.Helper()
	valid := map[string]string{"start": p.Start.UTC().Format(time.RFC3339)}
	chain := func(cs []*x509.Certificate) map[string]any {
		var list []map[string]string
		for _, c := range cs {
			list = append(list, map[string]string{"rawBytes": b64(c.Raw)})
		}
		return map[string]any{"certificates": list}
	}
	var logs []any
	for _, l := range p.Logs {
		der, err := x509.MarshalPKIXPublicKey(l.Key)
		must(t, err)
		u, err := url.Parse(l.URL)
		must(t, err)
		sum := sha256.Sum256(der)
		id, details := sum[:], "PKIX_ECDSA_P256_SHA_256"
		if k, ok := l.Key.(ed25519.PublicKey); ok {
			id, details = noteID(u.Hostname(), k), "PKIX_ED25519"
		}
		logs = append(logs, map[string]any{
			"baseUrl": l.URL, "hashAlgorithm": "SHA2_256", "logId": map[string]string{"keyId": b64(id)},
			"publicKey": map[string]any{"rawBytes": b64(der), "keyDetails": details, "validFor": valid},
		})
	}
	raw, err := json.MarshalIndent(map[string]any{
		"mediaType":              "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"certificateAuthorities": []any{map[string]any{"uri": p.FulcioURL, "certChain": chain(p.CA), "validFor": valid}},
		"timestampAuthorities":   []any{map[string]any{"uri": p.TSAURL, "certChain": chain(p.TSA), "validFor": valid}},
		"tlogs":                  logs,
	}, "", "  ")
	must(t, err)
	return raw
}

// Signing is one signature to make. The zero value of each field but the first three is the honest one.
type Signing struct {
	Issuer  string
	Subject string // a URI when it holds "://", else an address
	Payload []byte // the statement

	Also     string         // a second subject alternative name
	Curve    elliptic.Curve // of the certificate's key; default P-256
	From     time.Time      // NotBefore of the certificate, which is valid for ten minutes; default a minute before Now
	At       time.Time      // when it was signed; default Now
	RekorV1  bool           // an entry of Rekor v1, with integrated time, in place of one of v2
	NoLog    bool
	NoTime   bool   // no RFC 3161 timestamp
	LogOther []byte // log a signature over this payload instead
	BadSET   bool   // alter the signed entry timestamp
	CA       *Authority
	TSA      *Authority
	Host     string // origin of the checkpoint; default the log's
}

// Sign makes a bundle v0.3.
func (w *World) Sign(t T, s Signing) []byte {
	t.Helper()
	if s.Curve == nil {
		s.Curve = elliptic.P256()
	}
	if s.From.IsZero() {
		s.From = w.Now.Add(-time.Minute)
	}
	if s.At.IsZero() {
		s.At = w.Now
	}
	if s.CA == nil {
		s.CA = w.CA
	}
	if s.TSA == nil {
		s.TSA = w.TSA
	}
	key := newKey(t, s.Curve)
	leaf := s.CA.issue(t, certificate(t, s), key.Public())
	sig := sign(t, key, evidence.PAE(evidence.PayloadType, s.Payload))
	logged, loggedSig := s.Payload, sig
	if s.LogOther != nil {
		logged, loggedSig = s.LogOther, sign(t, key, evidence.PAE(evidence.PayloadType, s.LogOther))
	}
	material := map[string]any{"certificate": map[string]string{"rawBytes": b64(leaf.Raw)}}
	if !s.NoLog {
		entry := w.entryV2(t, leaf, logged, loggedSig, s)
		if s.RekorV1 {
			entry = w.entryV1(t, leaf, logged, loggedSig, s)
		}
		material["tlogEntries"] = []any{entry}
	}
	if !s.NoTime {
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]string{"signedTimestamp": b64(s.TSA.stamp(t, sig, s.At))}}}
	}
	raw, err := json.Marshal(map[string]any{
		"mediaType":            artifact.MediaTypeBundle,
		"verificationMaterial": material,
		"dsseEnvelope": map[string]any{
			"payload": b64(s.Payload), "payloadType": evidence.PayloadType, "signatures": []any{map[string]string{"sig": b64(sig)}},
		},
	})
	must(t, err)
	return raw
}

// Stamp adds a timestamp of the deployment's authority to a bundle that a key signed.
func (w *World) Stamp(t T, raw []byte, at time.Time) []byte {
	t.Helper()
	b, err := evidence.ParseBundle(raw)
	must(t, err)
	b.VerificationMaterial.TimestampVerificationData, err = json.Marshal(map[string]any{
		"rfc3161Timestamps": []any{map[string]string{"signedTimestamp": b64(w.TSA.stamp(t, b.DSSEEnvelope.Signatures[0].Sig, at))}},
	})
	must(t, err)
	out, err := json.Marshal(b)
	must(t, err)
	return out
}

// certificate is what Fulcio writes: the token's issuer in an extension, its subject as the only alternative name.
func certificate(t T, s Signing) *x509.Certificate {
	t.Helper()
	issuer, err := asn1.MarshalWithParams(s.Issuer, "utf8")
	must(t, err)
	tpl := &x509.Certificate{
		SerialNumber: serial(t), NotBefore: s.From, NotAfter: s.From.Add(10 * time.Minute), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}},
	}
	for _, n := range []string{s.Subject, s.Also} {
		switch {
		case n == "":
		case strings.Contains(n, "://"):
			u, err := url.Parse(n)
			must(t, err)
			tpl.URIs = append(tpl.URIs, u)
		default:
			tpl.EmailAddresses = append(tpl.EmailAddresses, n)
		}
	}
	return tpl
}

// stamp is the RFC 3161 response for a signature.
func (a *Authority) stamp(t T, sig []byte, at time.Time) []byte {
	t.Helper()
	h := sha256.Sum256(sig)
	ts := timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: h[:], Time: at, Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2},
		AddTSACertificate: true, SerialNumber: serial(t),
	}
	raw, err := ts.CreateResponseWithOpts(a.Leaf, a.Key, crypto.SHA256)
	must(t, err)
	return raw
}

// entryV2 is a hashedrekord entry of Rekor v2, the first of its log.
func (w *World) entryV2(t T, leaf *x509.Certificate, payload, sig []byte, s Signing) map[string]any {
	t.Helper()
	details, sum := "PKIX_ECDSA_P256_SHA_256", digest(s.Curve, evidence.PAE(evidence.PayloadType, payload))
	algorithm := "SHA2_256"
	if s.Curve == elliptic.P384() {
		details, algorithm = "PKIX_ECDSA_P384_SHA_384", "SHA2_384"
	}
	body := canonical(t, map[string]any{
		"apiVersion": "0.0.2", "kind": "hashedrekord",
		"spec": map[string]any{"hashedRekordV002": map[string]any{
			"data": map[string]string{"algorithm": algorithm, "digest": b64(sum)},
			"signature": map[string]any{"content": b64(sig), "verifier": map[string]any{
				"keyDetails": details, "x509Certificate": map[string]string{"rawBytes": b64(leaf.Raw)},
			}},
		}},
	})
	host := HostV2
	if s.Host != "" {
		host = s.Host
	}
	leafHash := sha256.Sum256(append([]byte{0}, body...))
	text := fmt.Sprintf("%s\n1\n%s\n", host, b64(leafHash[:]))
	return entry(w.idV2(), "hashedrekord", "0.0.2", body, leafHash[:], note(text, host, noteID(host, w.LogV2.Public().(ed25519.PublicKey))[:4], ed25519.Sign(w.LogV2, []byte(text))))
}

// entryV1 is a dsse entry of Rekor v1, the first of its log, with the log's promise and time.
func (w *World) entryV1(t T, leaf *x509.Certificate, payload, sig []byte, s Signing) map[string]any {
	t.Helper()
	sum := sha256.Sum256(payload)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	body := canonical(t, map[string]any{
		"apiVersion": "0.0.1", "kind": "dsse",
		"spec": map[string]any{
			"envelopeHash": map[string]string{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])},
			"payloadHash":  map[string]string{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])},
			"signatures":   []any{map[string]string{"signature": b64(sig), "verifier": b64(certPEM)}},
		},
	})
	leafHash := sha256.Sum256(append([]byte{0}, body...))
	text := fmt.Sprintf("%s - 4711\n1\n%s\n", HostV1, b64(leafHash[:]))
	h := sha256.Sum256(w.derV1(t))
	e := entry(w.idV1(t), "dsse", "0.0.1", body, leafHash[:], note(text, HostV1, h[:4], sign(t, w.LogV1, []byte(text))))
	set := sign(t, w.LogV1, canonical(t, map[string]any{
		"body": b64(body), "integratedTime": s.At.Unix(), "logID": hex.EncodeToString(w.idV1(t)), "logIndex": 0,
	}))
	if s.BadSET {
		set[len(set)-1] ^= 1
	}
	e["integratedTime"] = fmt.Sprint(s.At.Unix())
	e["inclusionPromise"] = map[string]string{"signedEntryTimestamp": b64(set)}
	return e
}

func entry(id []byte, kind, version string, body, leafHash []byte, checkpoint string) map[string]any {
	return map[string]any{
		"logIndex": "0", "logId": map[string]string{"keyId": b64(id)}, "kindVersion": map[string]string{"kind": kind, "version": version},
		"inclusionProof": map[string]any{
			"logIndex": "0", "treeSize": "1", "rootHash": b64(leafHash), "hashes": []string{}, "checkpoint": map[string]string{"envelope": checkpoint},
		},
		"canonicalizedBody": b64(body),
	}
}

// note is a signed note (C2SP signed-note).
func note(text, name string, hash, sig []byte) string {
	return text + "\n\u2014 " + name + " " + b64(append(bytes.Clone(hash), sig...)) + "\n"
}

// noteID is the id of an Ed25519 note key; its first four bytes stand before a signature.
func noteID(name string, k ed25519.PublicKey) []byte {
	h := sha256.Sum256(append([]byte(name+"\n\x01"), k...))
	return h[:]
}

func (w *World) idV2() []byte { return noteID(HostV2, w.LogV2.Public().(ed25519.PublicKey)) }

func (w *World) derV1(t T) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(w.LogV1.Public())
	must(t, err)
	return der
}

func (w *World) idV1(t T) []byte {
	t.Helper()
	h := sha256.Sum256(w.derV1(t))
	return h[:]
}

func digest(c elliptic.Curve, msg []byte) []byte {
	h := crypto.SHA256
	if c == elliptic.P384() {
		h = crypto.SHA384
	}
	d := h.New()
	d.Write(msg)
	return d.Sum(nil)
}

func sign(t T, k *ecdsa.PrivateKey, msg []byte) []byte {
	t.Helper()
	sig, err := ecdsa.SignASN1(rand.Reader, k, digest(k.Curve, msg))
	must(t, err)
	return sig
}

func newKey(t T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	must(t, err)
	return k
}

func serial(t T) *big.Int {
	t.Helper()
	var b [8]byte
	_, err := rand.Read(b[:])
	must(t, err)
	return new(big.Int).SetUint64(binary.BigEndian.Uint64(b[:]) >> 1)
}

// canonical is RFC 8785 for what stands here: sorted keys, no characters that need escaping.
func canonical(t T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return raw
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func must(t T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("sigstoretest: %v", err)
	}
}
