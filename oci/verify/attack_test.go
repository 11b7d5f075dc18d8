package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// The attacks on evidence that must fail, in one place. Each row is refused for its reason, and succeeds in a verifier
// without the one check that stands against it. Beside it: TestBundleAttacks, TestVSAAttacks, TestRecordAttacks, TestTrust
// (verify_test.go), certificates in sigstore/attacks_test.go; docs/threat-model.md lists all of them, with those on
// transfers, archives, registries and devices.
func TestAttacks(t *testing.T) {
	w := verifytest.New(t)
	for _, a := range slices.Concat(envelopeAttacks(t, w), statementAttacks(t, w), ruleAttacks(t, w)) {
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

func releaseWant(w *verifytest.World) Want {
	return Want{PredicateType: evidence.TypeRelease, Subject: digestA, Model: "churn", Now: w.Now}
}

// must replaces exactly one occurrence.
func must(t *testing.T, raw []byte, old, new string) []byte {
	t.Helper()
	if bytes.Count(raw, []byte(old)) != 1 {
		t.Fatalf("%q stands there %d times", old, bytes.Count(raw, []byte(old)))
	}
	return bytes.Replace(raw, []byte(old), []byte(new), 1)
}

// envelopeAttacks leave the signed statement alone and play with what is around it.
func envelopeAttacks(t *testing.T, w *verifytest.World) []attack {
	t.Helper()
	pub, want := w.Keys[trust.RolePublisher], releaseWant(w)
	good := w.Release("churn", digestA)
	b, err := evidence.ParseBundle(good)
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte(b.DSSEEnvelope.Payload)
	sig := base64.StdEncoding.EncodeToString(b.DSSEEnvelope.Signatures[0].Sig)
	text := base64.StdEncoding.EncodeToString(payload)

	// The last character of unpadded base64 has bits that a lenient decoder ignores: other bytes, the same signature.
	malleable := func(s string) string {
		body := strings.TrimRight(s, "=")
		if len(body) == len(s) {
			t.Fatal("the fixture has no padding")
		}
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
		last := strings.IndexByte(alphabet, body[len(body)-1])
		return body[:len(body)-1] + string(alphabet[last^1]) + s[len(body):]
	}
	// The same key signed the same bytes as something else than an in-toto statement.
	other := must(t, good, sig, base64.StdEncoding.EncodeToString(ed25519.Sign(pub.Priv, evidence.PAE("text/plain", payload))))
	bare := must(t, good, sig, base64.StdEncoding.EncodeToString(ed25519.Sign(pub.Priv, payload)))

	p384, der := p384Key(t)
	weak := clone(t, w.Doc)
	id := hex.EncodeToString(der[:])
	weak.Keys = append(weak.Keys, trust.Key{ID: id, Name: "p-384", Role: trust.RolePublisher, Public: p384.public, Scope: weak.Keys[0].Scope})

	return []attack{
		{"two signatures, the first one good", "strict-bundle", SeveralSignatures,
			must(t, good, `"signatures":[`, `"signatures":[{"sig":"`+sig+`"},`), w.Doc, want},
		{"data after the bundle", "strict-bundle", BadBundle, append(slices.Clone(good), `{"mediaType":"x"}`...), w.Doc, want},
		{"payload twice", "strict-bundle", BadBundle, must(t, good, `"payloadType":`, `"payload":"`+text+`","payloadType":`), w.Doc, want},
		{"payload again in another case", "strict-bundle", BadBundle, must(t, good, `"payloadType":`, `"PAYLOAD":"`+text+`","payloadType":`), w.Doc, want},
		{"a message signature beside the envelope", "strict-bundle", BadBundle,
			must(t, good, `"dsseEnvelope":`, `"messageSignature":{},"dsseEnvelope":`), w.Doc, want},
		{"base64 that is not canonical", "strict-bundle", BadBundle, must(t, good, sig, malleable(sig)), w.Doc, want},
		{"an older bundle format", "strict-bundle", BadBundle, must(t, good, "bundle.v0.3+json", "bundle.v0.1+json"), w.Doc, want},
		{"signed and shown as another payload type", "strict-bundle", BadBundle, must(t, other, evidence.PayloadType, "text/plain"), w.Doc, want},
		{"signed as another payload type, shown as in-toto", "signature", Altered, other, w.Doc, want},
		{"signed without the envelope's encoding", "signature", Altered, bare, w.Doc, want},
		{"the signature of another bundle", "signature", Altered, must(t, good, sig, otherSig(t, w)), w.Doc, want},
		{"a key of a kind that is not accepted", "algorithm+signature", UnknownAlgorithm, p384.sign(t, id, payload), weak, want},
	}
}

func otherSig(t *testing.T, w *verifytest.World) string {
	t.Helper()
	b, err := evidence.ParseBundle(w.Release("churn", digestB))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.DSSEEnvelope.Signatures[0].Sig)
}

type p384 struct {
	key    *ecdsa.PrivateKey
	public string
}

func p384Key(t *testing.T) (p384, [32]byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return p384{k, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, sha256.Sum256(der)
}

func (p p384) sign(t *testing.T, id string, payload []byte) []byte {
	t.Helper()
	h := sha256.Sum256(evidence.PAE(evidence.PayloadType, payload))
	sig, err := ecdsa.SignASN1(rand.Reader, p.key, h[:])
	if err != nil {
		t.Fatal(err)
	}
	raw, err := evidence.EncodeBundle(id, payload, sig)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// statementAttacks are signed by a key that may sign releases, or by one that may not, and say something else than what
// they are taken for.
func statementAttacks(t *testing.T, w *verifytest.World) []attack {
	t.Helper()
	pub, want := w.Keys[trust.RolePublisher], releaseWant(w)
	signed := func(s string) []byte { return pub.SignPayload(t, []byte(s)) }
	stmt := func(subject, typ string) string {
		return `{"_type":"https://in-toto.io/Statement/v1","subject":` + subject + `,` + typ + `,"predicate":{}}`
	}
	is := `"predicateType":"` + evidence.TypeRelease + `"`
	isnt := `"predicateType":"` + evidence.TypeProvenance + `"`
	a := `{"name":"churn","digest":{"sha256":"` + digestA.Hex() + `"}}`
	b := `{"name":"churn","digest":{"sha256":"` + digestB.Hex() + `"}}`
	denial := w.VSA()
	denial.VerificationResult, denial.VerifiedLevels, denial.Waybill.Violations = evidence.Failed, []string{"FAILED"}, []string{"QUAL-001"}
	custom := want
	custom.PredicateType = "https://example.com/review/v1"
	lookalike := want
	lookalike.Model = "сhurn" // Cyrillic es
	only := clone(t, w.Doc)
	edit(only, trust.RolePublisher, func(k *trust.Key) { k.Scope.Models = []string{"churn"} })
	inProd := want // as a careless caller might ask for everything at once
	inProd.Env = "prod"

	return []attack{
		{"a signed denial taken for a release", "predicate", WrongPredicate, w.SignVSA(digestA, denial), w.Doc, inProd},
		{"a signed pass taken for a release", "predicate", WrongPredicate, w.SignVSA(digestA, w.VSA()), w.Doc, inProd},
		{"a signature replayed from another digest", "subject", WrongSubject, w.Release("churn", digestB), w.Doc, want},
		{"two subjects", "strict-statement", BadBundle, signed(stmt(`[`+a+`,`+b+`]`, is)), w.Doc, want},
		{"two digests of one subject", "strict-statement", BadBundle,
			signed(stmt(`[{"name":"churn","digest":{"sha256":"`+digestA.Hex()+`","sha512":"00"}}]`, is)), w.Doc, want},
		{"a subject without sha256", "strict-statement+subject", BadBundle,
			signed(stmt(`[{"name":"churn","digest":{"sha512":"`+strings.Repeat("0", 128)+`"}}]`, is)), w.Doc, want},
		{"subject twice", "strict-statement", BadBundle, signed(stmt(`[`+b+`],"subject":[`+a+`]`, is)), w.Doc, want},
		{"predicate type twice", "strict-statement", BadBundle, signed(stmt(`[`+a+`]`, isnt+`,`+is)), w.Doc, want},
		{"predicate type again in another case", "strict-statement", BadBundle, signed(stmt(`[`+a+`]`, isnt+`,"PredicateType":"`+evidence.TypeRelease+`"`)), w.Doc, want},
		{"data after the statement", "strict-statement", BadBundle, signed(stmt(`[`+a+`]`, is) + `{}`), w.Doc, want},
		{"an unknown field in the statement", "strict-statement", BadBundle, signed(stmt(`[`+a+`]`, is+`,"notA":"release"`)), w.Doc, want},
		{"a custom type that nobody may sign", "custom", WrongRole, pub.Sign(t, custom.PredicateType, "churn", digestA, struct{}{}), w.Doc, custom},
		{"a model whose name only looks like the one in scope", "scope", OutOfScope, w.Release("сhurn", digestA), only, lookalike},
	}
}

// ruleAttacks get around what the trust document demands of a type.
func ruleAttacks(t *testing.T, w *verifytest.World) []attack {
	t.Helper()
	want := releaseWant(w)
	eval := func(at time.Time) []byte {
		return w.Keys[trust.RoleEvaluator].Sign(t, evidence.TypeEvaluation, "churn", digestA, evidence.Evaluation{Metrics: []evidence.Metric{}, At: at})
	}
	wantEval := want
	wantEval.PredicateType = evidence.TypeEvaluation
	ruled := func(r trust.Rule) *trust.Document {
		d := clone(t, w.Doc)
		d.Rules = []trust.Rule{r}
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		return d
	}
	second := verifytest.NewKey(t, "second publisher", trust.RolePublisher)
	two := clone(t, w.Doc)
	two.Keys = append(two.Keys, second.Entry())
	two.Rules = []trust.Rule{{PredicateType: evidence.TypeRelease, Signers: []string{second.ID}}}
	retired := clone(t, w.Doc)
	until := w.Now.Add(-time.Hour)
	for i := range retired.Keys {
		if r := retired.Keys[i].Role; r == trust.RolePublisher || r == trust.RoleEvaluator {
			retired.Keys[i].Until = &until
		}
	}
	for _, d := range []*trust.Document{two, retired} {
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	forged := wantEval
	forged.Stamp = func([]byte) (time.Time, TimeSource, error) { return w.Now.Add(-time.Minute), TimeClaimed, nil }
	age := ruled(trust.Rule{PredicateType: evidence.TypeEvaluation, MaxAge: "30d"})
	return []attack{
		{"a publisher that the rule does not name", "rule-signers", WrongSigner, w.Release("churn", digestA), two, want},
		{"a claimed time where a timestamp is needed", "rule-timestamp", NoTime, eval(w.Now), ruled(trust.Rule{PredicateType: evidence.TypeEvaluation, Timestamp: true}), wantEval},
		{"a time that nobody vouches for, passed off as a timestamp", "rule-timestamp", NoTime, eval(w.Now),
			ruled(trust.Rule{PredicateType: evidence.TypeEvaluation, Timestamp: true}), forged},
		{"an evaluation that is too old", "rule-age", Expired, eval(w.Now.Add(-30 * 24 * time.Hour)), age, wantEval},
		{"an evaluation from the future", "rule-age", Expired, eval(w.Now.Add(time.Hour)), age, wantEval},
		{"no time where there is a limit", "rule-age", NoTime, w.Release("churn", digestA), ruled(trust.Rule{PredicateType: evidence.TypeRelease, MaxAge: "30d"}), want},
		{"a retired key goes on signing", "retired", Revoked, eval(w.Now), retired, wantEval},
		{"a retired key signs what names no time", "retired", Revoked, w.Release("churn", digestA), retired, want},
	}
}

// What is refused as an attack is told apart from what is allowed.
func TestRulesAccept(t *testing.T) {
	w := verifytest.New(t)
	want := releaseWant(w)
	want.PredicateType = evidence.TypeEvaluation
	raw := w.Keys[trust.RoleEvaluator].Sign(t, evidence.TypeEvaluation, "churn", digestA, evidence.Evaluation{Metrics: []evidence.Metric{}, At: w.Now.Add(-20 * 24 * time.Hour)})
	d := clone(t, w.Doc)
	until := w.Now.Add(-10 * 24 * time.Hour)
	edit(d, trust.RoleEvaluator, func(k *trust.Key) { k.Until = &until })
	d.Rules = []trust.Rule{{PredicateType: evidence.TypeEvaluation, MaxAge: "30d", Require: 1, Signers: []string{w.Keys[trust.RoleEvaluator].ID}}}
	e, err := Bundle(raw, d, want)
	if err != nil || e.TimeSource != TimeClaimed || !e.At.Equal(w.Now.Add(-20*24*time.Hour)) {
		t.Errorf("%+v %v", e, err)
	}
	// A verified timestamp counts in place of the claim, both ways.
	d.Rules[0].Timestamp = true
	stamped := want
	stamped.Stamp = func([]byte) (time.Time, TimeSource, error) { return w.Now.Add(-15 * 24 * time.Hour), TimeRFC3161, nil }
	if e, err := Bundle(raw, d, stamped); err != nil || e.TimeSource != TimeRFC3161 || !e.At.Equal(w.Now.Add(-15*24*time.Hour)) {
		t.Errorf("%+v %v", e, err)
	}
	stamped.Stamp = func([]byte) (time.Time, TimeSource, error) { return w.Now, TimeRFC3161, nil }
	if _, err := Bundle(raw, d, stamped); ReasonOf(err) != Revoked {
		t.Errorf("a backdated claim of a retired key, with an honest timestamp: %v", err)
	}
	stamped.Stamp = func([]byte) (time.Time, TimeSource, error) { return time.Time{}, TimeNone, fmt.Errorf("forged") }
	if _, err := Bundle(raw, d, stamped); ReasonOf(err) != Altered {
		t.Errorf("a timestamp that does not verify: %v", err)
	}
	custom := releaseWant(w)
	custom.PredicateType = "https://example.com/review/v1"
	d.Rules = []trust.Rule{{PredicateType: custom.PredicateType, Roles: []trust.Role{trust.RoleApprover}}}
	if e, err := Bundle(w.Keys[trust.RoleApprover].Sign(t, custom.PredicateType, "churn", digestA, map[string]int{"x": 1}), d, custom); err != nil || e.TimeSource != TimeNone {
		t.Errorf("a custom type that the document allows: %v", err)
	}
	if _, err := Bundle(w.Keys[trust.RolePublisher].Sign(t, custom.PredicateType, "churn", digestA, struct{}{}), d, custom); ReasonOf(err) != WrongRole {
		t.Errorf("a custom type by another role: %v", err)
	}
}

func TestEnough(t *testing.T) {
	w := verifytest.New(t)
	d := clone(t, w.Doc)
	second := verifytest.NewKey(t, "second publisher", trust.RolePublisher)
	d.Keys = append(d.Keys, second.Entry())
	d.Rules = []trust.Rule{{PredicateType: evidence.TypeRelease, Require: 2}, {PredicateType: evidence.TypeEvaluation, Require: 1}}
	var evs []Evidence
	add := func(raw []byte) {
		t.Helper()
		e, err := Bundle(raw, d, releaseWant(w))
		if err != nil {
			t.Fatal(err)
		}
		evs = append(evs, *e)
	}
	add(w.Release("churn", digestA))
	add(w.Release("churn", digestA)) // once more by the same key
	add(w.Release("another name", digestA))
	err := Enough(evs, d, digestA, evidence.TypeRelease)
	if ReasonOf(err) != TooFew {
		t.Fatalf("one publisher three times where two are needed: %v", err)
	}
	if err := (verifier{skip: "require"}).enough(evs, d, digestA, evidence.TypeRelease); err != nil {
		t.Errorf("refused without the check too: %v", err)
	}
	add(second.Sign(t, evidence.TypeRelease, "churn", digestA, struct{}{}))
	if err := Enough(evs, d, digestA, evidence.TypeRelease); err != nil {
		t.Errorf("two publishers: %v", err)
	}
	if err := Enough(evs, d, digestA); ReasonOf(err) != TooFew {
		t.Errorf("no evaluation: %v", err)
	}
}

// Every role against every predicate type: what the table does not give is refused as another role's.
func TestRoleMatrix(t *testing.T) {
	w := verifytest.New(t)
	predicates := map[string]any{
		evidence.TypeRelease: struct{}{}, evidence.TypeProvenance: map[string]any{"buildDefinition": map[string]any{}, "runDetails": map[string]any{}},
		evidence.TypeCycloneDX:  map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.7"},
		evidence.TypeOMS:        nil, // its subject is a list of files: oms_test.go
		evidence.TypeEvaluation: evidence.Evaluation{Metrics: []evidence.Metric{}, At: w.Now},
		evidence.TypeDataset:    evidence.Datasets{Datasets: []evidence.Dataset{{Name: "d", Role: "train", Digest: digestB, License: "MIT", PersonalData: "none"}}},
		evidence.TypeTestResult: evidence.TestResult{Result: "PASSED", Configuration: []evidence.ResourceDescriptor{}},
		evidence.TypeApproval:   evidence.Approval{Role: "ml-lead", Reason: "r", At: w.Now, Expires: w.Now.Add(time.Hour)},
		evidence.TypeException:  evidence.Exception{Rule: "X", Reason: "r", At: w.Now, Expires: w.Now.Add(time.Hour)},
		evidence.TypeVSA:        w.VSA(), evidence.TypeDecision: evidence.Decision{Input: json.RawMessage("{}"), Decision: json.RawMessage("{}"), Policy: digestB},
		evidence.TypeDeployment: evidence.Deployment{Target: "x", Action: "apply", Env: "prod", Digest: digestA, At: w.Now, IDs: map[string]string{}},
		evidence.TypeChannel:    struct{}{}, evidence.TypeTrust: struct{}{}, evidence.TypeEnvironments: struct{}{},
		evidence.TypeStatus: evidence.Status{
			Device: w.Keys[trust.RoleDevice].ID, Class: "c", Labels: map[string]string{}, Channel: "prod", Model: "churn", State: "committed", Running: digestA,
			At: w.Now, Runtime: "1", Events: []evidence.StatusEvent{}, Journal: evidence.JournalHead{Head: digestB}, Trust: 1},
		evidence.TypePolicy:             evidence.Policy{Name: "governance", Digest: digestB},
		"https://example.com/review/v1": struct{}{},
	}
	doc := clone(t, w.Doc)
	doc.Rules = []trust.Rule{{PredicateType: "https://example.com/review/v1", Roles: []trust.Role{trust.RoleApprover}}}
	doc.Keys = append(doc.Keys, w.Keys[trust.RolePolicy].Entry())
	for typ, p := range predicates {
		allowed := 0
		for _, role := range trust.Roles() {
			may := slices.Contains(doc.RolesFor(typ), role)
			ready := doc.Ready(typ, trust.Ask{KeyID: w.Keys[role].ID, Role: role, Model: "churn", At: w.Now})
			if (ready == nil) != may {
				t.Errorf("%s by %s: signing: %v", evidence.NameOf(typ), role, ready)
			}
			if may {
				allowed++
			}
			if p == nil {
				continue
			}
			raw := w.Keys[role].Sign(t, typ, "churn", digestA, p)
			_, err := Bundle(raw, doc, Want{PredicateType: typ, Subject: digestA, Model: "churn", Env: "prod", Channel: "prod", Now: w.Now})
			switch {
			case may && err != nil:
				t.Errorf("%s by %s: %v", evidence.NameOf(typ), role, err)
			case !may && ReasonOf(err) != WrongRole:
				t.Errorf("%s by %s: %v", evidence.NameOf(typ), role, err)
			}
		}
		if allowed == 0 {
			t.Errorf("nobody may sign %s", evidence.NameOf(typ))
		}
	}
}

// More layers than were signed: a manifest with one more is another manifest.
func TestLayerSmuggledIn(t *testing.T) {
	layers := []artifact.Layer{
		{Role: artifact.RoleInterface, Path: "interface.json", Digest: digestA, Size: 10},
		{Role: artifact.RoleModule, Path: "model.wasm", Digest: digestB, Size: 10, Target: artifact.TargetAny},
	}
	cfg := artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: "1.0"}}
	signed, _, err := artifact.BuildModel(cfg, layers, nil)
	if err != nil {
		t.Fatal(err)
	}
	more, _, err := artifact.BuildModel(cfg, append(layers, artifact.Layer{Role: artifact.RoleStep, Path: "steps/extra.wasm", Digest: artifact.DigestOf([]byte("extra")), Size: 5}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Manifest(more, artifact.DigestOf(signed)); ReasonOf(err) != Altered {
		t.Errorf("a manifest with one layer more: %v", err)
	}
	if m, err := (verifier{skip: "digest"}).manifest(more, artifact.DigestOf(signed)); err != nil || len(m.Layers) != 3 {
		t.Errorf("without the check: %v", err)
	}
}
