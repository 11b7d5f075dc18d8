package gate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
	"github.com/waybill-ml/waybill/policy/rego"
)

// recorded checks that an outcome is attested, that verdict and record belong together, and that a replay agrees.
func recorded(t *testing.T, w *policytest.World, o *gate.Outcome) {
	t.Helper()
	verdict, record := attest(t, w, o)
	d := artifact.Digest(o.Input.Artifact.Digest)
	if len(record) > artifact.MaxBundle || len(verdict) > artifact.MaxBundle {
		t.Fatalf("record of %d, verdict of %d bytes", len(record), len(verdict))
	}
	for typ, raw := range map[string][]byte{evidence.TypeVSA: verdict, evidence.TypeDecision: record} {
		if _, err := verify.Bundle(raw, w.Trust, verify.Want{PredicateType: typ, Subject: d, Model: "churn", Env: "prod", Channel: "prod", Now: policytest.Now()}); err != nil {
			t.Fatal(err)
		}
		if _, err := artifact.BuildReferrer(o.Manifest, raw, typ); err != nil {
			t.Fatal(err)
		}
	}
	st, _, err := open(record)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gate.Again(t.Context(), st.Predicate, o.Policy)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Same || r.Allow || r.Replayed != o.DecisionDigest || r.Input != o.InputDigest {
		t.Errorf("replay %+v", r)
	}
	v := vsa(t, o)
	if why := gate.Disagree(v, st.Predicate); why != "" || v.VerificationResult != evidence.Failed {
		t.Errorf("%s, %s", v.VerificationResult, why)
	}
	t.Logf("record of %d bytes, verdict of %d", len(record), len(verdict))
}

// flood attaches statements of an evaluator's with so many metrics each.
func flood(t *testing.T, w *policytest.World, d artifact.Digest, statements, metrics int) {
	t.Helper()
	e := policytest.Evaluation(0.98, 0.1)
	one := e.Metrics[0]
	for len(e.Metrics) < metrics {
		e.Metrics = append(e.Metrics, one)
	}
	for i := range statements {
		e.Note = fmt.Sprint(i)
		w.Attach(t, trust.RoleEvaluator, evidence.TypeEvaluation, d, e)
	}
}

// Whoever may sign evaluations cannot keep a denial from being attested by signing too many; nor can whoever may attach junk.
func TestFloodIsAttested(t *testing.T) {
	for name, attack := range map[string]func(t *testing.T, w *policytest.World, d artifact.Digest){
		"signed metrics": func(t *testing.T, w *policytest.World, d artifact.Digest) { flood(t, w, d, 12, 300) },
		"junk": func(_ *testing.T, w *policytest.World, d artifact.Digest) {
			for i := range 1200 {
				w.Attached[d] = append(w.Attached[d], fmt.Appendf(nil, "junk %d", i))
			}
		},
		"metrics of the champion": func(t *testing.T, w *policytest.World, _ artifact.Digest) {
			m := policytest.Default()
			m.Version = "0.9.0"
			old := w.Release(t, m, 0.97, 0.1)
			flood(t, w, old, 2, 1000)
			w.Publish(t, "prod", 1, old, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := world(t)
			d := w.Release(t, policytest.Default(), 0.98, 0.1)
			attack(t, w, d)
			o := decide(t, w, request(w, p, d, "prod"))
			denied(t, o, "ID-002", rego.SchemaRule)
			if !strings.Contains(fmt.Sprint(o.Input.Artifact.Problems), input.LeftOut) {
				t.Errorf("problems %+v", o.Input.Artifact.Problems)
			}
			recorded(t, w, o)
		})
	}
}

// The facts as they were before they were bounded leave the denial without a verdict.
func TestUnboundedFactsAreNotAttested(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	o := decide(t, w, request(w, p, d, "prod"))
	for range 11 {
		o.Input.Metrics = append(o.Input.Metrics, o.Input.Metrics...)
	}
	doc, err := o.Input.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	o.InputBytes, o.InputDigest = doc, artifact.DigestOf(doc)
	if v, r, err := o.Attest(t.Context(), w.Keys[trust.RoleGate]); err == nil {
		t.Errorf("record of %d, verdict of %d bytes: this proves nothing", len(r), len(v))
	}
}

// loud is a policy in which everything fails at length.
type loud struct{ *rego.Policy }

func (l loud) Evaluate(_ context.Context, doc []byte) decision.Decision {
	d := decision.New(string(l.Bundle().Digest()), string(artifact.DigestOf(doc)))
	d.Environment = "prod"
	for _, r := range l.Rules() {
		d.Rules = append(d.Rules, decision.Rule{ID: r.ID, Title: r.Title, Severity: r.Severity, Status: decision.Fail, Level: "deny"})
		for i := range 64 {
			d.Violations = append(d.Violations, decision.Result{ID: r.ID, Severity: r.Severity, Message: fmt.Sprintf("%02d ", i) + strings.Repeat("\x01", 500),
				Remediation: r.Remediation, Evidence: []string{strings.Repeat("e", 200)}, Standards: r.Standards})
		}
	}
	d.Close()
	return d
}

// The largest facts beside the loudest decision fit into one record.
func TestWorstRecordIsAttested(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	flood(t, w, d, 2, 260)
	rq := request(w, p, d, "prod")
	rq.Policy = loud{p}
	o := decide(t, w, rq)
	if len(o.Input.Metrics) < 520 || len(o.DecisionBytes) > decision.MaxBytes || len(decision.IDs(o.Decision.Violations)) != len(p.Rules()) {
		t.Errorf("%d metrics, a decision of %d bytes, %d rules violated", len(o.Input.Metrics), len(o.DecisionBytes), len(decision.IDs(o.Decision.Violations)))
	}
	recorded(t, w, o)
}
