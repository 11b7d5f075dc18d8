// Package verifytest makes signed evidence for tests: one fixed Ed25519 key per role, derived from public seeds, so that
// everything it makes is deterministic and worthless outside of tests. It signs whatever it is told to, also what the
// real signers refuse.
package verifytest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

// T is the part of testing.TB that the package needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Key is a test key. It signs any statement.
type Key struct {
	Priv   ed25519.PrivateKey
	ID     string
	Public string // PEM
	Name   string
	Role   trust.Role
}

// NewKey derives the key of a name; equal names give equal keys.
func NewKey(t T, name string, role trust.Role) Key {
	t.Helper()
	seed := sha256.Sum256([]byte("waybill TEST-ONLY key " + name))
	priv := ed25519.NewKeyFromSeed(seed[:])
	id, err := trust.KeyID(priv.Public())
	if err != nil {
		t.Fatalf("test key: %v", err)
	}
	pub, err := trust.EncodePublic(priv.Public())
	if err != nil {
		t.Fatalf("test key: %v", err)
	}
	return Key{Priv: priv, ID: id, Public: string(pub), Name: name, Role: role}
}

// Entry is the key as it stands in a trust document, in scope for everything.
func (k Key) Entry() trust.Key {
	e := trust.Key{
		ID: k.ID, Name: k.Name, Role: k.Role, Public: k.Public,
		Scope: trust.Scope{Models: []string{"*"}, Envs: []string{"*"}, Channels: []string{"*"}},
	}
	if k.Role == trust.RoleApprover {
		e.ApproverRoles = []string{"ml-lead"}
	}
	return e
}

// SignPayload signs raw payload bytes and gives the bundle.
func (k Key) SignPayload(t T, payload []byte) []byte {
	t.Helper()
	b, err := evidence.EncodeBundle(k.ID, payload, ed25519.Sign(k.Priv, evidence.PAE(evidence.PayloadType, payload)))
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return b
}

// Sign makes and signs a statement. predicate may break the rules of its type.
func (k Key) Sign(t T, predicateType, name string, subject artifact.Digest, predicate any) []byte {
	t.Helper()
	p, err := json.Marshal(predicate)
	if err != nil {
		t.Fatalf("predicate: %v", err)
	}
	s := evidence.Statement{
		Type:          evidence.StatementType,
		Subject:       []evidence.Subject{{Name: name, Digest: map[string]string{"sha256": subject.Hex()}}},
		PredicateType: predicateType, Predicate: p,
	}
	payload, err := s.Encode()
	if err != nil {
		t.Fatalf("statement: %v", err)
	}
	return k.SignPayload(t, payload)
}

// World is a trust document with one key per role, and the fixed time that everything in it is made at.
type World struct {
	t    T
	Now  time.Time
	Keys map[trust.Role]Key
	Doc  *trust.Document
}

// Policy is the digest of the policy that the world pins.
const Policy = artifact.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")

// New makes a world: model "churn", environment and channel "prod", valid for a year.
func New(t T) *World {
	t.Helper()
	w := &World{t: t, Now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), Keys: map[trust.Role]Key{}}
	w.Doc = &trust.Document{
		Schema: trust.Schema, Version: 1, Generation: 1, Threshold: 1,
		Issued: w.Now.Add(-24 * time.Hour), Expires: w.Now.Add(365 * 24 * time.Hour),
		Keys: []trust.Key{}, Policies: []artifact.Digest{Policy}, Revoked: []string{}, Denied: []artifact.Digest{},
	}
	for _, r := range trust.Roles() {
		k := NewKey(t, string(r), r)
		w.Keys[r] = k
		if r == trust.RolePolicy {
			continue // newer than the committed fixtures, whose records name the digest of this document
		}
		w.Doc.Keys = append(w.Doc.Keys, k.Entry())
	}
	if err := w.Doc.Validate(); err != nil {
		t.Fatalf("test trust document: %v", err)
	}
	return w
}

// SignTrust signs a document with each key, one bundle per line.
func SignTrust(t T, d *trust.Document, keys ...Key) []byte {
	t.Helper()
	raw, err := d.Encode()
	if err != nil {
		t.Fatalf("trust document: %v", err)
	}
	var lines [][]byte
	for _, k := range keys {
		lines = append(lines, k.Sign(t, evidence.TypeTrust, "trust", artifact.DigestOf(raw), json.RawMessage(raw)))
	}
	return append(bytes.Join(lines, []byte("\n")), '\n')
}

// Trust is the world's signed trust document, and TrustRef what records name it by.
func (w *World) Trust() []byte { return SignTrust(w.t, w.Doc, w.Keys[trust.RoleRoot]) }

// TrustRef names the world's trust document.
func (w *World) TrustRef() channel.TrustRef {
	d, err := w.Doc.Digest()
	if err != nil {
		w.t.Fatalf("trust digest: %v", err)
	}
	return channel.TrustRef{Version: w.Doc.Version, Digest: d}
}

// Release signs a release of a digest as the publisher.
func (w *World) Release(model string, subject artifact.Digest) []byte {
	return w.Keys[trust.RolePublisher].Sign(w.t, evidence.TypeRelease, model, subject, struct{}{})
}

// VSA gives a PASSED verdict on churn for prod, against a channel without records; change it and sign it with SignVSA.
func (w *World) VSA() *evidence.VSA {
	return &evidence.VSA{
		Verifier:           evidence.Verifier{ID: evidence.GateID, Version: map[string]string{"waybill": "0.1.0"}},
		TimeVerified:       w.Now.Add(-time.Hour),
		ResourceURI:        "waybill:ml/churn",
		Policy:             evidence.PolicyRef{URI: "oci://registry.test/policy", Digest: map[string]string{"sha256": Policy.Hex()}},
		InputAttestations:  []evidence.Reference{},
		VerificationResult: evidence.Passed,
		VerifiedLevels:     []string{"WAYBILL_ENV_PROD", "WAYBILL_CLASS_EDGE_S"},
		SLSAVersion:        "1.0",
		Waybill: evidence.VSAExtension{
			Environment: "prod", DeviceClasses: []string{"edge-s"}, NotAfter: w.Now.Add(30 * 24 * time.Hour),
			PolicyDigest: Policy, InputDigest: artifact.DigestOf([]byte("input")), DecisionDigest: artifact.DigestOf([]byte("decision")),
			Basis:      evidence.Basis{Channel: "prod", Seq: 0},
			Violations: []string{}, Warnings: []string{}, Exceptions: []string{},
		},
	}
}

// SignVSA signs a verdict as the gate.
func (w *World) SignVSA(subject artifact.Digest, v *evidence.VSA) []byte {
	return w.Keys[trust.RoleGate].Sign(w.t, evidence.TypeVSA, "churn", subject, v)
}

// Target describes a version of churn by digest.
func Target(version string, digest artifact.Digest) channel.Target {
	return channel.Target{Name: "churn", Repo: "ml/churn", Digest: digest, Size: 1000, Version: version}
}

// Ref pins a bundle.
func Ref(predicateType string, subject artifact.Digest, bundle []byte) channel.EvidenceRef {
	return channel.EvidenceRef{PredicateType: predicateType, Subject: subject, Digest: artifact.DigestOf(bundle), Size: int64(len(bundle))}
}

// Change is the publisher's input for the next record of channel prod; the bundles are the world's for that target.
func (w *World) Change(target channel.Target) channel.Change {
	rel, vsa := w.Release("churn", target.Digest), w.SignVSA(target.Digest, w.VSA())
	return channel.Change{
		Channel: "prod", Env: "prod", Generation: 1, Issued: w.Now, Expires: w.Now.Add(7 * 24 * time.Hour), Target: target,
		Evidence: []channel.EvidenceRef{Ref(evidence.TypeRelease, target.Digest, rel), Ref(evidence.TypeVSA, target.Digest, vsa)},
		Trust:    w.TrustRef(),
	}
}

// SignRecord signs a record with the key of a role and gives it as an accepted head with its bundle.
func (w *World) SignRecord(role trust.Role, r *channel.Record) (*channel.Head, []byte) {
	b := w.Keys[role].Sign(w.t, evidence.TypeChannel, channel.SubjectName(r.Channel), r.Target.Digest, r)
	return &channel.Head{Record: r, Bundle: artifact.DigestOf(b)}, b
}
