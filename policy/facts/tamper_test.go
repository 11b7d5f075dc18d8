package facts

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
)

// proofKind is one type of evidence with a statement that fills its section of the facts.
type proofKind struct {
	typ       string
	role      trust.Role
	predicate func(t testing.TB, w *policytest.World, d artifact.Digest) any
	env       bool // the environments of the signer's scope limit it
	silent    bool // it fills no section but its own entry
}

func kinds() []proofKind {
	fixed := func(v any) func(testing.TB, *policytest.World, artifact.Digest) any {
		return func(testing.TB, *policytest.World, artifact.Digest) any { return v }
	}
	at := policytest.Now().Add(-time.Hour)
	return []proofKind{
		{typ: evidence.TypeRelease, role: trust.RolePublisher, predicate: fixed(map[string]any{}), silent: true},
		{typ: evidence.TypeEvaluation, role: trust.RoleEvaluator, predicate: fixed(policytest.Evaluation(0.98, 0.1))},
		{typ: evidence.TypeDataset, role: trust.RoleEvaluator, predicate: fixed(policytest.Datasets())},
		{typ: evidence.TypeTestResult, role: trust.RoleEvaluator, predicate: fixed(policytest.TestsOn("edge-s", "smoke"))},
		{typ: evidence.TypeVulns, role: trust.RoleEvaluator, predicate: fixed(policytest.Scan(at, "CVE-2026-0001"))},
		{typ: evidence.TypeProvenance, role: trust.RolePublisher, predicate: fixed(policytest.Provenance())},
		{typ: evidence.TypeCycloneDX, role: trust.RolePublisher, predicate: func(t testing.TB, w *policytest.World, d artifact.Digest) any { return w.BOM(t, d) }},
		{typ: evidence.TypeSPDX, role: trust.RolePublisher, predicate: func(t testing.TB, w *policytest.World, d artifact.Digest) any { return w.SPDX(t, d) }},
		{typ: evidence.TypeSPDX23, role: trust.RolePublisher, predicate: func(t testing.TB, w *policytest.World, d artifact.Digest) any { return w.SPDX(t, d) }},
		{typ: evidence.TypeApproval, role: trust.RoleApprover, predicate: fixed(evidence.Approval{Role: "ml-lead", Reason: "reviewed", At: at, Expires: at.AddDate(0, 1, 0)}), env: true},
		{typ: evidence.TypeException, role: trust.RoleApprover, predicate: fixed(evidence.Exception{Rule: "MET-004", Reason: "agreed", At: at, Expires: at.AddDate(0, 1, 0)}), env: true},
		{typ: evidence.TypeVSA, role: trust.RoleGate, predicate: func(_ testing.TB, _ *policytest.World, d artifact.Digest) any {
			return verdictOn("prod", evidence.Passed, "", at)
		}, env: true},
	}
}

func verdictOn(env, result string, prev artifact.Digest, at time.Time) evidence.VSA {
	v := evidence.VSA{Verifier: evidence.Verifier{ID: evidence.GateID, Version: map[string]string{"waybill": "0.1.0"}}, TimeVerified: at, ResourceURI: "waybill:ml/churn",
		Policy: evidence.PolicyRef{URI: "waybill:policy/governance@1", Digest: map[string]string{"sha256": somePolicy.Hex()}}, InputAttestations: []evidence.Reference{},
		VerificationResult: result, VerifiedLevels: []string{"WAYBILL_ENV_" + strings.ToUpper(env)}, SLSAVersion: "1.0",
		Waybill: evidence.VSAExtension{Environment: env, DeviceClasses: []string{}, NotAfter: at.AddDate(0, 3, 0), PolicyDigest: somePolicy, InputDigest: somePolicy,
			DecisionDigest: somePolicy, Basis: evidence.Basis{Channel: env}, Violations: []string{}, Warnings: []string{}, Exceptions: []string{}, Prev: prev}}
	if result == evidence.Failed {
		v.VerifiedLevels, v.Waybill.Violations = []string{"FAILED"}, []string{"MET-001"}
	}
	return v
}

// said is the document without the list of evidence and without what names no statement: what statements have put into it.
func said(in input.Input) input.Input {
	in.Signatures, in.Attestations, in.Context.Newest, in.Trust = nil, nil, time.Time{}, input.Trust{}
	return in
}

// tampering is one world with one statement of a kind.
type tampering struct {
	proofKind
	w      *policytest.World
	d      artifact.Digest
	bundle []byte
	bare   input.Input // facts without the statement
	whole  input.Input // facts with it
}

func newTampering(t *testing.T, k proofKind) *tampering {
	t.Helper()
	x := &tampering{proofKind: k, w: policytest.New(t, somePolicy)}
	x.d = x.w.Add(t, policytest.Default())
	x.bare = collected(t, x.w, x.d, seam{})
	x.bundle = x.w.Statement(t, k.role, k.typ, "churn", x.d, k.predicate(t, x.w, x.d))
	x.whole = x.with(t, x.bundle, seam{})
	if a := x.entry(t, x.whole); !a.Verified || a.Signer.Role != string(k.role) {
		t.Fatalf("the statement itself does not count: %+v", a)
	}
	if !k.silent && reflect.DeepEqual(said(x.whole), said(x.bare)) {
		t.Fatal("the statement says nothing")
	}
	return x
}

func (x *tampering) with(t testing.TB, bundle []byte, s seam) input.Input {
	t.Helper()
	x.w.Attached[x.d] = [][]byte{bundle}
	return collected(t, x.w, x.d, s)
}

func (x *tampering) entry(t testing.TB, in input.Input) input.Attestation {
	t.Helper()
	all := slices.Concat(in.Signatures, in.Attestations)
	if len(all) != 1 {
		t.Fatalf("%d entries", len(all))
	}
	return all[0]
}

// fails demands that the bundle stands among the evidence with a reason, and nowhere else.
func (x *tampering) fails(t *testing.T, what string, bundle []byte) {
	t.Helper()
	in := x.with(t, bundle, seam{})
	a := x.entry(t, in)
	if a.Verified || a.Reason == "" || a.Signer != (input.Signer{}) || a.At != "" || a.Bundle != string(artifact.DigestOf(bundle)) {
		t.Errorf("%s: %+v", what, a)
	}
	if !reflect.DeepEqual(said(in), said(x.bare)) {
		t.Errorf("%s: what it says is in the facts", what)
	}
	if !in.Context.Newest.Equal(x.bare.Context.Newest) {
		t.Errorf("%s: its time counts", what)
	}
}

// parts takes a bundle apart.
func parts(t testing.TB, bundle []byte) (payload, sig []byte, key string) {
	t.Helper()
	b, err := evidence.ParseBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = b.KeyID(); err != nil {
		t.Fatal(err)
	}
	return b.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig, key
}

func join(t testing.TB, payload, sig []byte, key string) []byte {
	t.Helper()
	b, err := evidence.EncodeBundle(key, payload, sig)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func flip(b []byte, bit int) []byte {
	b = slices.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

// Each kind of evidence, tampered with in each way, never says anything in the facts.
func TestTamperedEvidenceSaysNothing(t *testing.T) {
	cases := 0
	for _, k := range kinds() {
		t.Run(evidence.NameOf(k.typ), func(t *testing.T) {
			x := newTampering(t, k)
			payload, sig, key := parts(t, x.bundle)
			try := func(what string, bundle []byte) {
				cases++
				x.fails(t, what, bundle)
			}
			step := max(len(payload)*8/64, 1)
			for bit := 0; bit < len(payload)*8; bit += step | 1 {
				try(fmt.Sprintf("bit %d of the payload", bit), join(t, flip(payload, bit), sig, key))
			}
			for bit := 0; bit < len(sig)*8; bit += 37 {
				try(fmt.Sprintf("bit %d of the signature", bit), join(t, payload, flip(sig, bit), key))
			}
			try("no signature", join(t, payload, nil, key))
			stranger := policytest.NewKey(t)
			for _, r := range append(trust.Roles(), "stranger") {
				who := x.w.Keys[r]
				if who == nil {
					who = stranger
				}
				s, err := evidence.ParseStatement(payload)
				if err != nil {
					t.Fatal(err)
				}
				b, err := who.Sign(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(trust.RolesFor(k.typ), r) {
					try("signed by "+string(r), b)
				}
				if r != k.role {
					_, other, _ := parts(t, b)
					try("the name of one key on the signature of another", join(t, payload, other, key))
					try("the signature under another name", join(t, payload, sig, who.ID))
				}
			}
			sign := func(change func(*evidence.Statement)) []byte {
				s, err := evidence.ParseStatement(payload)
				if err != nil {
					t.Fatal(err)
				}
				change(s)
				b, err := x.w.Keys[k.role].Sign(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			other := artifact.DigestOf([]byte("another artifact"))
			try("about another digest", sign(func(s *evidence.Statement) { s.Subject[0].Digest["sha256"] = other.Hex() }))
			try("about two", sign(func(s *evidence.Statement) { s.Subject = append(s.Subject, s.Subject[0]) }))
			for _, o := range kinds() {
				if o.typ == k.typ || k.silent || strings.HasPrefix(k.typ, evidence.TypeSPDX) && strings.HasPrefix(o.typ, evidence.TypeSPDX) {
					continue
				}
				in := x.with(t, sign(func(s *evidence.Statement) { s.PredicateType = o.typ }), seam{})
				cases++
				if !reflect.DeepEqual(said(in), said(x.bare)) {
					t.Errorf("called a %s it speaks", o.typ)
				}
			}
			// The trust document changes, the bundle stays.
			again := func(what string, change func(*trust.Document, *trust.Key)) {
				t.Helper()
				before := *x.w.Trust
				defer func() { *x.w.Trust = before }()
				doc := before
				doc.Keys = slices.Clone(before.Keys)
				i := slices.IndexFunc(doc.Keys, func(e trust.Key) bool { return e.ID == key })
				change(&doc, &doc.Keys[i])
				*x.w.Trust = doc
				try(what, x.bundle)
			}
			again("revoked", func(d *trust.Document, e *trust.Key) { d.Revoked = []string{e.ID} })
			again("retired before it signed", func(_ *trust.Document, e *trust.Key) {
				until := policytest.Now().AddDate(-1, 0, 0)
				e.Until = &until
			})
			again("expired trust", func(d *trust.Document, _ *trust.Key) { d.Expires = policytest.Now().Add(-time.Second) })
			again("denied digest", func(d *trust.Document, _ *trust.Key) { d.Denied = []artifact.Digest{x.d} })
			again("a scope of other models", func(_ *trust.Document, e *trust.Key) { e.Scope.Models = []string{"other-*"} })
			again("another role", func(_ *trust.Document, e *trust.Key) { e.Role = trust.RoleDevice })
			again("gone from trust", func(d *trust.Document, e *trust.Key) {
				d.Keys = slices.DeleteFunc(d.Keys, func(k trust.Key) bool { return k.ID == key })
			})
			if k.env {
				again("a scope of other environments", func(_ *trust.Document, e *trust.Key) { e.Scope.Envs = []string{"staging"} })
			}
		})
	}
	t.Logf("%d tampered bundles of %d kinds", cases, len(kinds()))
	if cases < 1500 {
		t.Errorf("only %d", cases)
	}
}

// leaves calls f for every value in a document with a function that replaces it.
func leaves(v any, f func(set func(any), v any)) {
	switch x := v.(type) {
	case map[string]any:
		for _, k := range sortedKeys(x) {
			f(func(y any) { x[k] = y }, x[k])
			leaves(x[k], f)
		}
	case []any:
		for i := range x {
			f(func(y any) { x[i] = y }, x[i])
			leaves(x[i], f)
		}
	}
}

func sortedKeys(m map[string]any) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// Every mutation of what a signed statement says, under the old signature, moves the facts towards failed and nowhere else.
// Without the verifier the same mutations do change the facts: the test sees what it looks for.
func TestMutatedFactsFail(t *testing.T) {
	believe := seam{bundle: func(raw []byte, doc *trust.Document, w verify.Want) (*verify.Evidence, error) {
		b, err := evidence.OpenBundle(raw)
		if err != nil {
			return nil, err
		}
		s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
		if err != nil {
			return nil, err
		}
		id, _ := b.KeyID()
		return &verify.Evidence{Bundle: artifact.DigestOf(raw), PredicateType: s.PredicateType, Subject: s.SubjectDigest(), Predicate: s.Predicate,
			KeyID: id, KeyName: "x", Role: "x", TimeSource: verify.TimeNone}, nil
	}}
	mutations := 0
	for _, k := range kinds() {
		if k.silent {
			continue
		}
		t.Run(evidence.NameOf(k.typ), func(t *testing.T) {
			x := newTampering(t, k)
			payload, sig, key := parts(t, x.bundle)
			var doc map[string]any
			if err := json.Unmarshal(payload, &doc); err != nil {
				t.Fatal(err)
			}
			// spoken is what a bundle says when anyone is believed, without its own digest.
			spoken := func(bundle []byte) string {
				b, err := json.Marshal(said(x.with(t, bundle, believe)))
				if err != nil {
					t.Fatal(err)
				}
				return strings.ReplaceAll(string(b), string(artifact.DigestOf(bundle)), "it")
			}
			believed, changed := spoken(x.bundle), 0
			try := func() {
				b, err := json.Marshal(doc)
				if err != nil {
					t.Fatal(err)
				}
				forged := join(t, b, sig, key)
				mutations++
				x.fails(t, "mutated", forged)
				if mutations%2 == 0 && spoken(forged) != believed {
					changed++
				}
			}
			at := 0
			leaves(doc["predicate"], func(set func(any), v any) {
				at++
				for i, y := range []any{"x", 0, true, nil, []any{}, map[string]any{}, "2026-01-01T00:00:00Z"} {
					if (i+at)%2 == 0 && !reflect.DeepEqual(y, v) {
						set(y)
						try()
					}
				}
				set(v)
			})
			if changed < 4 {
				t.Errorf("without the verifier only %d mutations change the facts", changed)
			}
		})
	}
	t.Logf("%d mutations", mutations)
	if mutations < 1000 {
		t.Errorf("only %d", mutations)
	}
}
