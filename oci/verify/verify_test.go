package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

var (
	digestA = artifact.DigestOf([]byte("model A"))
	digestB = artifact.DigestOf([]byte("model B"))
)

func clone(t *testing.T, d *trust.Document) *trust.Document {
	t.Helper()
	raw, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c, err := trust.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func edit(d *trust.Document, r trust.Role, f func(*trust.Key)) {
	i := slices.IndexFunc(d.Keys, func(k trust.Key) bool { return k.Role == r })
	f(&d.Keys[i])
}

// attack is one way to get something past Bundle: check is the one check that stands in its way.
type attack struct {
	name   string
	check  string
	reason Reason
	raw    []byte
	doc    *trust.Document
	want   Want
}

func bundleAttacks(t *testing.T, w *verifytest.World) []attack {
	t.Helper()
	pub := w.Keys[trust.RolePublisher]
	release := w.Release("churn", digestA)
	want := Want{PredicateType: evidence.TypeRelease, Subject: digestA, Model: "churn", Now: w.Now}
	approval := func(at, expires time.Time, role string) []byte {
		return w.Keys[trust.RoleApprover].Sign(t, evidence.TypeApproval, "churn", digestA,
			evidence.Approval{Role: role, Reason: "reviewed", At: at, Expires: expires})
	}
	wantApproval := Want{PredicateType: evidence.TypeApproval, Subject: digestA, Model: "churn", Env: "prod", Now: w.Now}

	altered := slices.Clone(release)
	var b evidence.Bundle
	if err := json.Unmarshal(altered, &b); err != nil {
		t.Fatal(err)
	}
	b.DSSEEnvelope.Payload = bytes.Replace(b.DSSEEnvelope.Payload, []byte(digestA.Hex()), []byte(digestB.Hex()), 1)
	altered, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	scoped, revoked, denied, expired := clone(t, w.Doc), clone(t, w.Doc), clone(t, w.Doc), clone(t, w.Doc)
	edit(scoped, trust.RolePublisher, func(k *trust.Key) { k.Scope.Models = []string{"fraud-*"} })
	revoked.Revoked = append(revoked.Revoked, pub.ID)
	denied.Denied = append(denied.Denied, digestA)
	expired.Expires = w.Now
	noEnv := clone(t, w.Doc)
	edit(noEnv, trust.RoleApprover, func(k *trust.Key) { k.Scope.Envs = []string{"staging"} })

	st := evidence.Status{
		Device: w.Keys[trust.RoleGate].ID, Class: "edge-s", Labels: map[string]string{}, Channel: "prod", Model: "churn", Seq: 1,
		State: "committed", Running: digestA, At: w.Now, Runtime: "0.1.0", Events: []evidence.StatusEvent{},
		Journal: evidence.JournalHead{Entries: 1, Head: digestB}, Trust: 1,
	}
	wantStatus := Want{PredicateType: evidence.TypeStatus, Subject: digestA, Model: "churn", Channel: "prod", Now: w.Now}

	withSubject := func(d artifact.Digest) Want { x := want; x.Subject = d; return x }
	return []attack{
		{"statement altered after signing", "signature", Altered, altered, w.Doc, withSubject(digestB)},
		{"bundle of another digest attached", "subject", WrongSubject, release, w.Doc, withSubject(digestB)},
		{"another statement of the same key", "predicate", WrongPredicate,
			pub.Sign(t, evidence.TypeProvenance, "churn", digestA, map[string]any{"buildDefinition": map[string]any{}, "runDetails": map[string]any{}}), w.Doc, want},
		{"release signed by the gate", "role", WrongRole, w.Keys[trust.RoleGate].Sign(t, evidence.TypeRelease, "churn", digestA, struct{}{}), w.Doc, want},
		{"key of another model", "scope", OutOfScope, release, scoped, want},
		{"approver of another environment", "scope", OutOfScope, approval(w.Now.Add(-time.Hour), w.Now.Add(time.Hour), "ml-lead"), noEnv, wantApproval},
		{"no model asked for", "scope", OutOfScope, release, w.Doc, Want{PredicateType: evidence.TypeRelease, Subject: digestA, Now: w.Now}},
		{"revoked key", "revoked", Revoked, release, revoked, want},
		{"denied digest", "denied", Revoked, release, denied, want},
		{"expired trust document", "trust-expiry", Expired, release, expired, want},
		{"expired approval", "expiry", Expired, approval(w.Now.Add(-2*time.Hour), w.Now, "ml-lead"), w.Doc, wantApproval},
		{"approval in a role that the key may not fill", "approver-role", WrongRole,
			approval(w.Now.Add(-time.Hour), w.Now.Add(time.Hour), "risk-officer"), w.Doc, wantApproval},
		{"expired exception", "expiry", Expired, w.Keys[trust.RoleApprover].Sign(t, evidence.TypeException, "churn", digestA,
			evidence.Exception{Rule: "QUAL-001", Reason: "known", At: w.Now.Add(-2 * time.Hour), Expires: w.Now}), w.Doc,
			Want{PredicateType: evidence.TypeException, Subject: digestA, Model: "churn", Env: "prod", Now: w.Now}},
		{"status of another device", "device", WrongSigner, w.Keys[trust.RoleDevice].Sign(t, evidence.TypeStatus, "churn", digestA, st), w.Doc, wantStatus},
	}
}

// Each attack is refused for its reason, and succeeds once the check against it is gone: so each check is needed, and
// each test would notice its loss.
func TestBundleAttacks(t *testing.T) {
	w := verifytest.New(t)
	for _, a := range bundleAttacks(t, w) {
		t.Run(a.name, func(t *testing.T) {
			_, err := Bundle(a.raw, a.doc, a.want)
			if got := ReasonOf(err); got != a.reason {
				t.Fatalf("reason %q (%v), want %q", got, err, a.reason)
			}
			if diag.CodeOf(err) != diag.Verification {
				t.Errorf("exit code %d", diag.CodeOf(err))
			}
			if _, err := (verifier{skip: a.check}).bundle(a.raw, a.doc, a.want); err != nil {
				t.Errorf("refused without check %q too: %v", a.check, err)
			}
		})
	}
}

func TestBundleAccepts(t *testing.T) {
	w := verifytest.New(t)
	raw := w.Release("churn", digestA)
	e, err := Bundle(raw, w.Doc, Want{PredicateType: evidence.TypeRelease, Role: trust.RolePublisher, Subject: digestA, Model: "churn", Now: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	pub := w.Keys[trust.RolePublisher]
	if e.Bundle != artifact.DigestOf(raw) || e.Subject != digestA || e.SubjectName != "churn" || e.KeyID != pub.ID ||
		e.KeyName != pub.Name || e.Role != trust.RolePublisher || string(e.Predicate) != "{}" {
		t.Errorf("evidence %+v", e)
	}
}

func TestBundleRefusesMalformed(t *testing.T) {
	w := verifytest.New(t)
	good := w.Release("churn", digestA)
	pub := w.Keys[trust.RolePublisher]
	want := Want{PredicateType: evidence.TypeRelease, Subject: digestA, Model: "churn", Now: w.Now}
	stranger := verifytest.NewKey(t, "stranger", trust.RolePublisher)
	payload := func(s string) []byte { return pub.SignPayload(t, []byte(s)) }
	stmt := func(subject string) string {
		return `{"_type":"https://in-toto.io/Statement/v1","subject":` + subject + `,"predicateType":"` + evidence.TypeRelease + `","predicate":{}}`
	}
	sub := `{"name":"churn","digest":{"sha256":"` + digestA.Hex() + `"}}`
	replace := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("fixture has no %s", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	for _, c := range []struct {
		name   string
		raw    []byte
		reason Reason
	}{
		{"empty", nil, NoBundle},
		{"no JSON", []byte("hello"), BadBundle},
		{"truncated", good[:len(good)/2], BadBundle},
		{"trailing data", append(slices.Clone(good), " {}"...), BadBundle},
		{"too large", append(slices.Clone(good), bytes.Repeat([]byte(" "), artifact.MaxBundle)...), BadBundle},
		{"unknown field", replace(`{"mediaType"`, `{"x":1,"mediaType"`), BadBundle},
		{"field twice", replace(`{"mediaType"`, `{"mediaType":"y","mediaType"`), BadBundle},
		{"field in another case", replace(`"dsseEnvelope"`, `"DSSEEnvelope"`), BadBundle},
		{"old media type", replace(`bundle.v0.3+json`, `bundle.v0.2+json`), BadBundle},
		{"other payload type", replace(evidence.PayloadType, "text/plain"), BadBundle},
		{"two signatures", replace(`"signatures":[`, `"signatures":[{"sig":"AAAA"},`), SeveralSignatures},
		{"no signature", func() []byte {
			i, j := bytes.Index(good, []byte(`"signatures":[`)), bytes.LastIndexByte(good, ']')
			return slices.Concat(good[:i], []byte(`"signatures":[`), good[j:])
		}(), SeveralSignatures},
		{"certificate", replace(`"verificationMaterial":{`, `"verificationMaterial":{"certificate":{"rawBytes":"AAAA"},`), BadBundle},
		{"no hint", replace(`"hint":"`, `"hint":"!`), BadBundle},
		{"unknown key", stranger.Sign(t, evidence.TypeRelease, "churn", digestA, struct{}{}), WrongSigner},
		{"no statement", payload(`[]`), BadBundle},
		{"no subject", payload(stmt(`[]`)), BadBundle},
		{"two subjects", payload(stmt(`[` + sub + `,` + sub + `]`)), BadBundle},
		{"two digests", payload(stmt(`[{"name":"churn","digest":{"sha256":"` + digestA.Hex() + `","sha512":"00"}}]`)), BadBundle},
		{"upper-case digest", payload(stmt(`[{"digest":{"sha256":"` + string(bytes.ToUpper([]byte(digestA.Hex()))) + `"}}]`)), BadBundle},
		{"statement v0.2", payload(string(bytes.Replace([]byte(stmt(`[`+sub+`]`)), []byte("Statement/v1"), []byte("Statement/v0.2"), 1))), BadBundle},
		{"predicate twice", payload(`{"_type":"https://in-toto.io/Statement/v1","subject":[` + sub + `],"predicateType":"` + evidence.TypeProvenance + `","predicateType":"` + evidence.TypeRelease + `","predicate":{}}`), BadBundle},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Bundle(c.raw, w.Doc, want)
			if got := ReasonOf(err); got != c.reason {
				t.Fatalf("reason %q (%v), want %q", got, err, c.reason)
			}
			var d *diag.Error
			if !errors.As(err, &d) || d.Code != diag.Verification {
				t.Errorf("not a verification error: %v", err)
			}
		})
	}
	if _, err := Bundle(good, w.Doc, Want{PredicateType: evidence.TypeRelease, Subject: digestA, Model: "churn"}); ReasonOf(err) != Expired {
		t.Errorf("without a time: %v", err)
	}
	if _, err := Bundle(good, nil, want); ReasonOf(err) != BadTrust {
		t.Errorf("without a trust document: %v", err)
	}
}

func TestAllReportsBoth(t *testing.T) {
	w := verifytest.New(t)
	good, other, bad := w.Release("churn", digestA), w.Release("churn", digestB), []byte("junk")
	vsa := w.SignVSA(digestA, w.VSA())
	ok, failed := All([][]byte{good, other, bad, vsa}, w.Doc, Want{Subject: digestA, Model: "churn", Env: "prod", Now: w.Now})
	if len(ok) != 2 || ok[0].PredicateType != evidence.TypeRelease || ok[1].PredicateType != evidence.TypeVSA {
		t.Errorf("verified %+v", ok)
	}
	if len(failed) != 2 || failed[0].Err.Reason != WrongSubject || failed[0].Subject != digestB || failed[0].KeyID == "" || failed[1].Err.Reason != BadBundle {
		t.Errorf("failed %+v", failed)
	}
}

func TestVSAAttacks(t *testing.T) {
	w := verifytest.New(t)
	want := VSAWant{Subject: digestA, ResourceURI: "waybill:ml/churn", Model: "churn", Env: "prod", DeviceClass: "edge-s", Now: w.Now,
		Basis: &evidence.Basis{Channel: "prod"}}
	if _, _, err := VSA(w.SignVSA(digestA, w.VSA()), w.Doc, want); err != nil {
		t.Fatal(err)
	}
	rec, err := channel.Next(nil, w.Change(verifytest.Target("1.0", digestA)))
	if err != nil {
		t.Fatal(err)
	}
	onDevice := want
	onDevice.Basis, onDevice.Record = nil, rec
	if _, _, err := VSA(w.SignVSA(digestA, w.VSA()), w.Doc, onDevice); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, check string
		reason      Reason
		change      func(*evidence.VSA)
		want        VSAWant
	}{
		{"denial", "result+level", Refused, func(v *evidence.VSA) {
			v.VerificationResult, v.VerifiedLevels, v.Waybill.Violations = evidence.Failed, []string{"FAILED"}, []string{"QUAL-001"}
		}, want},
		{"verdict for staging", "env", Refused, func(v *evidence.VSA) { v.Waybill.Environment = "staging" }, want},
		{"verdict for another class", "class", Refused, func(v *evidence.VSA) { v.Waybill.DeviceClasses = []string{"edge-l"} }, want},
		{"verdict on another model", "resource", Refused, func(v *evidence.VSA) { v.ResourceURI = "waybill:ml/fraud" }, want},
		{"another verifier", "verifier-id", Refused, func(v *evidence.VSA) { v.Verifier.ID = "https://example.com/gate" }, want},
		{"no level of the environment", "level", Refused, func(v *evidence.VSA) { v.VerifiedLevels = []string{"SLSA_BUILD_LEVEL_3", "WAYBILL_CLASS_EDGE_S"} }, want},
		{"no level of the class", "level", Refused, func(v *evidence.VSA) { v.VerifiedLevels = []string{"WAYBILL_ENV_PROD"} }, want},
		{"policy that is not pinned", "policy", Refused, func(v *evidence.VSA) {
			v.Policy.Digest, v.Waybill.PolicyDigest = map[string]string{"sha256": digestB.Hex()}, digestB
		}, want},
		{"expired verdict", "not-after", Expired, func(v *evidence.VSA) { v.Waybill.NotAfter = w.Now }, want},
		{"channel moved on", "basis", Refused, func(v *evidence.VSA) { v.Waybill.Basis.Seq, v.Waybill.Basis.Champion = 4, digestB }, want},
		{"verdict later than its record", "basis", Refused, func(v *evidence.VSA) { v.Waybill.Basis.Seq, v.Waybill.Basis.Champion = 1, digestB }, onDevice},
		{"verdict against another channel", "basis", Refused, func(v *evidence.VSA) { v.Waybill.Basis.Channel = "canary" }, onDevice},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := w.VSA()
			c.change(v)
			raw := w.SignVSA(digestA, v)
			if _, _, err := VSA(raw, w.Doc, c.want); ReasonOf(err) != c.reason {
				t.Fatalf("got %v, want %q", err, c.reason)
			}
			if _, _, err := (verifier{skip: c.check}).vsa(raw, w.Doc, c.want); err != nil {
				t.Errorf("refused without check %q too: %v", c.check, err)
			}
		})
	}
	// The pair counts: the gate's id under another role's key is no verdict either.
	evaluator := w.Keys[trust.RoleEvaluator].Sign(t, evidence.TypeVSA, "churn", digestA, w.VSA())
	if _, _, err := VSA(evaluator, w.Doc, want); ReasonOf(err) != WrongRole {
		t.Errorf("the gate's id, an evaluator's key: %v", err)
	}
	if _, _, err := (verifier{skip: "role"}).vsa(evaluator, w.Doc, want); err != nil {
		t.Errorf("refused without the check too: %v", err)
	}
	v := w.VSA()
	v.Waybill.NotAfter = w.Now
	late := want
	late.IgnoreExpiry = true
	if _, _, err := VSA(w.SignVSA(digestA, v), w.Doc, late); err != nil {
		t.Errorf("IgnoreExpiry: %v", err)
	}
}

func TestRecordAttacks(t *testing.T) {
	w := verifytest.New(t)
	r, err := channel.Next(nil, w.Change(verifytest.Target("1.0", digestA)))
	if err != nil {
		t.Fatal(err)
	}
	_, good := w.SignRecord(trust.RoleDeployer, r)
	if got, e, err := Record(good, w.Doc, w.Now); err != nil || got.Target != r.Target || e.Role != trust.RoleDeployer {
		t.Fatalf("%v %v %v", got, e, err)
	}
	deployer := w.Keys[trust.RoleDeployer]
	sign := func(k verifytest.Key, subject artifact.Digest, name string, change func(*channel.Record)) []byte {
		c := *r
		if change != nil {
			change(&c)
		}
		return k.Sign(t, evidence.TypeChannel, name, subject, &c)
	}
	staging := clone(t, w.Doc)
	staging.Version = 2 // a record made under version 1 stays good
	edit(staging, trust.RoleDeployer, func(k *trust.Key) { k.Scope.Channels = []string{"staging"} })
	// a document that differs from the one the record names, at the same version
	other := clone(t, w.Doc)
	other.Expires = other.Expires.Add(time.Hour)
	for _, c := range []struct {
		name, check string
		reason      Reason
		raw         []byte
		doc         *trust.Document
	}{
		{"signed by the publisher", "role", WrongRole, sign(w.Keys[trust.RolePublisher], digestA, "channel:prod", nil), w.Doc},
		{"deployer of another channel", "scope", OutOfScope, good, staging},
		{"subject is another digest", "subject", WrongSubject, sign(deployer, digestB, "channel:prod", nil), w.Doc},
		{"subject is another channel", "record-subject", WrongSubject, sign(deployer, digestA, "channel:staging", nil), w.Doc},
		{"newer trust document", "trust-version", TrustBehind, sign(deployer, digestA, "channel:prod", func(r *channel.Record) { r.Trust.Version = 2 }), w.Doc},
		{"another trust document of the same version", "trust-digest", BadTrust, good, other},
		{"another generation", "generation", BadTrust, sign(deployer, digestA, "channel:prod", func(r *channel.Record) { r.Generation = 2 }), w.Doc},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := Record(c.raw, c.doc, w.Now); ReasonOf(err) != c.reason {
				t.Fatalf("got %v, want %q", err, c.reason)
			}
			if _, _, err := (verifier{skip: c.check}).record(c.raw, c.doc, w.Now); err != nil {
				t.Errorf("refused without check %q too: %v", c.check, err)
			}
		})
	}
	if _, _, err := Record(append(slices.Clone(good), bytes.Repeat([]byte(" "), 5*artifact.MaxRecord)...), w.Doc, w.Now); ReasonOf(err) != BadBundle {
		t.Errorf("oversized record: %v", err)
	}
}

func TestTrust(t *testing.T) {
	w := verifytest.New(t)
	raw := w.Trust()
	pin := w.TrustRef()
	if d, err := TrustPinned(raw, 1, pin.Digest); err != nil || d.Version != 1 {
		t.Fatal(err)
	}
	rootA, rootB := w.Keys[trust.RoleRoot], verifytest.NewKey(t, "root-2", trust.RoleRoot)
	next := clone(t, w.Doc)
	next.Version, next.Threshold = 2, 2
	next.Keys = append(next.Keys, rootB.Entry())
	gate := w.Keys[trust.RoleGate]
	replaced := clone(t, next) // version 2 under roots that version 1 doesn't know
	replaced.Threshold = 1
	replaced.Revoked = []string{rootA.ID}

	if d, err := TrustBundle(verifytest.SignTrust(t, next, rootA, rootB), w.Doc); err != nil || d.Version != 2 {
		t.Fatalf("rotation: %v", err)
	}
	skipped := clone(t, next)
	skipped.Version = 3
	revokedBefore := clone(t, w.Doc)
	revokedBefore.Revoked = []string{gate.ID}
	retiredBefore, pinnedBefore := clone(t, w.Doc), clone(t, w.Doc)
	until := w.Now.Add(-time.Hour)
	edit(retiredBefore, trust.RoleGate, func(k *trust.Key) { k.Until = &until })
	pinnedBefore.Environments = &trust.EnvironmentsPin{Version: 2}
	for _, c := range []struct {
		name, check string
		run         func(v verifier) *Error
		reason      Reason
	}{
		{"other document under the pin", "pin-digest", func(v verifier) *Error {
			_, err := v.trustPinned(verifytest.SignTrust(t, func() *trust.Document { d := clone(t, w.Doc); d.Expires = d.Expires.Add(1e9); return d }(), rootA), 1, pin.Digest)
			return err
		}, BadTrust},
		{"other version under the pin", "pin-version", func(v verifier) *Error { _, err := v.trustPinned(raw, 2, pin.Digest); return err }, BadTrust},
		{"signed by the new roots only", "old-threshold", func(v verifier) *Error {
			_, err := v.trustNext(verifytest.SignTrust(t, replaced, rootB), w.Doc)
			return err
		}, BadTrust},
		{"signed by the old roots only", "new-threshold", func(v verifier) *Error {
			_, err := v.trustNext(verifytest.SignTrust(t, next, rootA), w.Doc)
			return err
		}, BadTrust},
		{"the same root twice", "new-threshold", func(v verifier) *Error {
			_, err := v.trustNext(verifytest.SignTrust(t, next, rootA, rootA), w.Doc)
			return err
		}, BadTrust},
		{"signed by the gate", "root-role", func(v verifier) *Error {
			d := clone(t, w.Doc)
			d.Version = 2
			_, err := v.trustNext(verifytest.SignTrust(t, d, gate), w.Doc)
			return err
		}, BadTrust},
		{"a version skipped", "rotation", func(v verifier) *Error {
			_, err := v.trustNext(verifytest.SignTrust(t, skipped, rootA, rootB), w.Doc)
			return err
		}, BadTrust},
		{"a revoked key comes back", "rotation", func(v verifier) *Error {
			d := clone(t, w.Doc)
			d.Version = 2
			_, err := v.trustNext(verifytest.SignTrust(t, d, rootA), revokedBefore)
			return err
		}, BadTrust},
		{"a retired key comes back", "rotation", func(v verifier) *Error {
			d := clone(t, w.Doc)
			d.Version = 2
			_, err := v.trustNext(verifytest.SignTrust(t, d, rootA), retiredBefore)
			return err
		}, BadTrust},
		{"the pin of the environments lowered", "rotation", func(v verifier) *Error {
			d := clone(t, w.Doc)
			d.Version, d.Environments = 2, &trust.EnvironmentsPin{Version: 1}
			_, err := v.trustNext(verifytest.SignTrust(t, d, rootA), pinnedBefore)
			return err
		}, BadTrust},
		{"a forged signature", "signature", func(v verifier) *Error {
			forged := rootA
			forged.Priv = gate.Priv
			d := clone(t, w.Doc)
			d.Version = 2
			_, err := v.trustNext(verifytest.SignTrust(t, d, forged), w.Doc)
			return err
		}, BadTrust},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(verifier{}); err == nil || err.Reason != c.reason {
				t.Fatalf("got %v, want %q", err, c.reason)
			}
			if err := c.run(verifier{skip: c.check}); err != nil {
				t.Errorf("refused without check %q too: %v", c.check, err)
			}
		})
	}
	mixed := append(slices.Clone(raw), verifytest.SignTrust(t, next, rootB)...)
	if _, err := TrustPinned(mixed, 1, pin.Digest); ReasonOf(err) != BadBundle {
		t.Errorf("lines over two statements: %v", err)
	}
	if _, err := TrustPinned([]byte("\n"), 1, pin.Digest); ReasonOf(err) != NoBundle {
		t.Errorf("empty file: %v", err)
	}
}

func TestManifest(t *testing.T) {
	raw, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: "1.0"}}, []artifact.Layer{
		{Role: artifact.RoleInterface, Path: "interface.json", Digest: digestA, Size: 10},
		{Role: artifact.RoleModule, Path: "model.wasm", Digest: digestB, Size: 10, Target: artifact.TargetAny},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Manifest(raw, artifact.DigestOf(raw)); err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(raw, []byte(digestB.Hex()), []byte(digestA.Hex()), 1)
	if _, err := Manifest(altered, artifact.DigestOf(raw)); ReasonOf(err) != Altered {
		t.Errorf("altered manifest: %v", err)
	}
	if _, err := (verifier{skip: "digest"}).manifest(altered, artifact.DigestOf(raw)); err != nil {
		t.Errorf("refused without the check too: %v", err)
	}
	if _, err := Manifest([]byte("{}"), artifact.DigestOf([]byte("{}"))); ReasonOf(err) != Altered {
		t.Errorf("no manifest: %v", err)
	}
}

func BenchmarkBundle(b *testing.B) {
	w := verifytest.New(b)
	raw := w.Release("churn", digestA)
	want := Want{PredicateType: evidence.TypeRelease, Subject: digestA, Model: "churn", Now: w.Now}
	for b.Loop() {
		if _, err := Bundle(raw, w.Doc, want); err != nil {
			b.Fatal(err)
		}
	}
}
