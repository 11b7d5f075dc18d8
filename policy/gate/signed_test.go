package gate_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/policytest"
)

// kinds are all statements that an environment can demand of an artifact.
func kinds() []string {
	return []string{evidence.TypeRelease, evidence.TypeEvaluation, evidence.TypeDataset, evidence.TypeApproval, evidence.TypeProvenance,
		evidence.TypeCycloneDX, evidence.TypeVulns, evidence.TypeTestResult}
}

// Where every kind of evidence is demanded, any one field of any signed statement changed without a new signature denies; so
// does the statement under another predicate type, for another name or digest, and a statement that is gone.
func TestEveryFieldOfEveryStatementIsSigned(t *testing.T) {
	w, p := world(t)
	env := w.EnvDoc.Environments["prod"]
	env.Evidence = kinds()
	w.EnvDoc.Environments["prod"] = env
	w.SetEnvironments(t, w.EnvDoc)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	w.Prove(t, d)
	if o := decide(t, w, request(w, p, d, "prod")); !o.Decision.Allow {
		t.Fatalf("the start is denied already: %+v", o.Decision.Violations)
	}
	orig, n := w.Attached[d], map[string]int{}
	try := func(i int, b []byte, typ, what string) {
		t.Helper()
		w.Attached[d] = slices.Clone(orig)
		if b == nil {
			w.Attached[d] = slices.Delete(w.Attached[d], i, i+1)
		} else {
			w.Attached[d][i] = b
		}
		if decide(t, w, request(w, p, d, "prod")).Decision.Allow {
			t.Errorf("%s: %s changed and the gate allows", evidence.NameOf(typ), what)
		}
		n[evidence.NameOf(typ)]++
	}
	seen := map[string]bool{}
	for i := range orig {
		st, id, err := open(orig[i])
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := evidence.ParseBundle(orig[i])
		if err != nil {
			t.Fatal(err)
		}
		payload := bundle.DSSEEnvelope.Payload
		seen[st.PredicateType] = true
		// The bundle written anew with nothing changed still counts: it is the change that denies below.
		same, err := evidence.EncodeBundle(id, payload, bundle.DSSEEnvelope.Signatures[0].Sig)
		if err != nil {
			t.Fatal(err)
		}
		w.Attached[d] = slices.Clone(orig)
		w.Attached[d][i] = same
		if o := decide(t, w, request(w, p, d, "prod")); !o.Decision.Allow {
			t.Errorf("%s, written anew, is denied: %+v", st.PredicateType, o.Decision.Violations)
		}
		for _, path := range leaves(t, st.Predicate) {
			try(i, policytest.Resign(t, orig[i], func(m map[string]any) { mutate(m, path) }), st.PredicateType, "a field")
		}
		for _, from := range []string{st.PredicateType, "churn", st.SubjectDigest().Hex()} {
			to := "a" + from[1:]
			if to == from {
				to = "b" + from[1:]
			}
			changed := bytes.Replace(payload, []byte(from), []byte(to), 1)
			if bytes.Equal(changed, payload) {
				t.Fatalf("%s: no %q in the payload", st.PredicateType, from)
			}
			b, err := evidence.EncodeBundle(id, changed, bundle.DSSEEnvelope.Signatures[0].Sig)
			if err != nil {
				t.Fatal(err)
			}
			try(i, b, st.PredicateType, "the statement")
		}
		try(i, nil, st.PredicateType, "that it is there")
	}
	total := 0
	for _, k := range kinds() {
		if !seen[k] {
			t.Errorf("no %s among the evidence", k)
		}
		t.Logf("%s: %d changes", evidence.NameOf(k), n[evidence.NameOf(k)])
		total += n[evidence.NameOf(k)]
	}
	t.Logf("%d changes, each denies", total)
	if total < 120 {
		t.Errorf("only %d changes were tried", total)
	}
	w.Attached[d] = orig
	if !decide(t, w, request(w, p, d, "prod")).Decision.Allow {
		t.Error("the untouched evidence is denied afterwards")
	}
}
