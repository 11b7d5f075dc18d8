package facts

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
)

func inputSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(input.SchemaJSON()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(input.Schema, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(input.Schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fileds are the types whose statements fill sections.
func fileds() []string {
	return []string{evidence.TypeProvenance, evidence.TypeCycloneDX, evidence.TypeSPDX, evidence.TypeSPDX23, evidence.TypeVulns, evidence.TypeTestResult,
		evidence.TypeEvaluation, evidence.TypeDataset, evidence.TypeApproval, evidence.TypeException, evidence.TypeVSA}
}

// believe files predicates as if they had verified.
func believe(base input.Input, layers []artifact.Layer, env input.Environment, es ...*verify.Evidence) (input.Input, []error) {
	in := base
	c := &collector{in: &in, env: env, layers: layers, now: policytest.Now()}
	var errs []error
	for _, e := range es {
		where := ""
		if e.PredicateType == evidence.TypeVSA {
			if v, err := evidence.ParseVSA(e.Predicate); err == nil {
				where = v.Waybill.Environment
			}
		}
		errs = append(errs, c.file(e, where))
	}
	c.settleBills()
	c.settleScans()
	in.Normalize()
	return in, errs
}

// invariant is what holds of any statement that verified.
type invariant struct {
	base   input.Input
	start  []byte // base, canonical
	layers []artifact.Layer
	d      artifact.Digest
	schema *jsonschema.Schema
	seeds  []seed
}

type seed struct {
	typ string
	doc any
}

func newInvariant(t testing.TB) *invariant {
	t.Helper()
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	x := &invariant{base: collected(t, w, d, seam{}), d: d, schema: inputSchema(t)}
	m, err := artifact.ParseModel(w.Manifests[d])
	if err != nil {
		t.Fatal(err)
	}
	x.layers = m.Layers
	if x.start, err = x.base.Canonical(); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds() {
		if !k.silent {
			x.seeds = append(x.seeds, seed{k.typ, k.predicate(t, w, d)})
		}
	}
	x.seeds = append(x.seeds,
		seed{evidence.TypeCycloneDX, vulnerable("2026-11-20T00:00:00Z", vulnerability("CVE-1", "high", "resolved", "x", "pkg:npm/%40a/b@1?x#y"),
			map[string]any{"id": "CVE-2", "ratings": []any{map[string]any{"score": 9.8, "method": "CVSSv31"}}, "affects": []any{map[string]any{"ref": "y", "versions": []any{map[string]any{"version": "2", "status": "unaffected"}}}}})},
		seed{evidence.TypeCycloneDX, map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.6", "vulnerabilities": []any{vulnerability("CVE-1", "", "not_affected", "urn:cdx:x/1#x")}}},
		seed{evidence.TypeSPDX, map[string]any{"@graph": []any{map[string]any{"type": "CreationInfo", "specVersion": "3.0.1", "created": "2026-11-20T00:00:00Z"},
			map[string]any{"type": "software_Package", "spdxId": "a", "name": "x", "verifiedUsing": []any{map[string]any{"algorithm": "sha256", "hashValue": d.Hex()}}},
			map[string]any{"type": "Relationship", "from": "a", "to": []any{"b"}, "relationshipType": "hasConcludedLicense"},
			map[string]any{"spdxId": "b", "simplelicensing_licenseExpression": "MIT"}}}},
		seed{evidence.TypeVSA, verdictOn("staging", evidence.Failed, "", policytest.Now())},
		seed{evidence.TypeEvaluation, evidence.Evaluation{At: policytest.Now(), Metrics: []evidence.Metric{{Name: "p99_ms", Value: 1, Direction: "lower", Slice: "all", N: 3, CI: []float64{1, 2},
			DatasetDigest: somePolicy, Stage: "on-device", DeviceClass: "edge-s"}}}},
	)
	return x
}

// believed is a predicate as if it had verified.
func believed(d artifact.Digest, typ string, predicate []byte) *verify.Evidence {
	e := &verify.Evidence{Bundle: artifact.DigestOf(predicate), PredicateType: typ, Subject: d, Predicate: predicate, KeyID: "k", KeyName: "k", Role: "publisher",
		TimeSource: verify.TimeNone}
	if at := evidence.ClaimedTime(&evidence.Statement{PredicateType: typ, Predicate: predicate}); !at.IsZero() {
		e.At, e.TimeSource = at.UTC(), verify.TimeClaimed
	}
	return e
}

// check: the document that comes of a statement satisfies its schema, so that no statement can turn a decision into an error; a
// statement that is refused leaves nothing behind; and two at once do not depend on their order. It tells whether the statement was taken.
func (x *invariant) check(t *testing.T, typ string, predicate []byte) bool {
	t.Helper()
	if len(predicate) > 1<<16 || evidence.ValidatePredicate(typ, predicate) != nil {
		return false // the verifier refuses it
	}
	e := believed(x.d, typ, predicate)
	in, errs := believe(x.base, x.layers, x.base.Environment, e)
	doc, err := in.Canonical()
	if err != nil {
		t.Fatalf("%s: a document that cannot be written: %v\n%s", typ, err, predicate)
	}
	if errs[0] != nil {
		if !bytes.Equal(doc, x.start) {
			t.Fatalf("%s: refused (%v), and something of it is there\n%s", typ, errs[0], predicate)
		}
		return false
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.schema.Validate(v); err != nil {
		t.Fatalf("%s: the document is not valid: %v\n%s", typ, err, predicate)
	}
	other := *e
	other.Bundle = artifact.DigestOf([]byte("other"))
	one, _ := believe(x.base, x.layers, x.base.Environment, e, &other)
	two, _ := believe(x.base, x.layers, x.base.Environment, &other, e)
	a, err1 := one.Canonical()
	b, err2 := two.Canonical()
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Fatalf("%s: the order of two statements matters: %v %v", typ, err1, err2)
	}
	return true
}

// Every member of every kind of statement, put to a sixth of many other values, the next sixth at the next member: what is
// taken gives a valid document.
func TestStatementsGiveValidDocuments(t *testing.T) {
	x := newInvariant(t)
	values := []any{"", " ", "x", "PASSED", "sha256:x", "\u0000\u202e", "9999-12-31T23:59:59-23:00", "0000-01-01T00:00:00Z", "2026-02-03T04:05:06.789+07:00", strings.Repeat("y", input.MaxText+1),
		-1, 0, 1.5, 1e300, math.MaxInt64, true, nil, []any{}, []any{"", "x"}, map[string]any{}, map[string]any{"": "x", "uri": "git+https://h/p", "digest": map[string]any{"sha1": "x"}}}
	n, taken, at := 0, 0, 0
	for _, s := range x.seeds {
		b, err := json.Marshal(s.doc)
		if err != nil {
			t.Fatal(err)
		}
		if !x.check(t, s.typ, b) {
			t.Fatalf("%s: the seed is not taken", s.typ)
		}
		var doc map[string]any
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		leaves(doc, func(set func(any), v any) {
			at++
			for i, y := range values {
				if (i+at)%6 != 0 {
					continue
				}
				set(y)
				b, err := json.Marshal(doc)
				if err != nil {
					t.Fatal(err)
				}
				n++
				if x.check(t, s.typ, b) {
					taken++
				}
			}
			set(v)
		})
	}
	t.Logf("%d statements, %d taken", n, taken)
	if n < 1500 || taken < n/10 || taken > n*9/10 {
		t.Errorf("%d statements, %d taken", n, taken)
	}
}

// The same for whatever the fuzzer makes of the statements.
func FuzzStatements(f *testing.F) {
	x := newInvariant(f)
	types := fileds()
	for _, s := range x.seeds {
		b, err := json.Marshal(s.doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(slices.Index(types, s.typ)), b)
	}
	f.Fuzz(func(t *testing.T, n uint8, predicate []byte) { x.check(t, types[int(n)%len(types)], predicate) })
}
