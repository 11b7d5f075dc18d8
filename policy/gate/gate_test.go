package gate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/policytest"
	"github.com/waybill-ml/waybill/policy/rego"
)

// compiled is the default policy; compiling takes a while, so once.
var compiled = sync.OnceValues(func() (*rego.Policy, error) {
	b, err := library.Default()
	if err != nil {
		return nil, err
	}
	return rego.Compile(context.Background(), b)
})

func world(t *testing.T) (*policytest.World, *rego.Policy) {
	t.Helper()
	p, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	return policytest.New(t, p.Bundle().Digest()), p
}

func request(w *policytest.World, p *rego.Policy, d artifact.Digest, env string) gate.Request {
	return gate.Request{Ref: "reg.example/ml/churn@" + string(d), Pinned: true, Digest: d, Environment: env, Environments: w.Environments,
		Trust: w.Trust, Policy: p, Now: policytest.Now(), TimeSource: "host", Version: "0.1.0"}
}

func decide(t *testing.T, w *policytest.World, rq gate.Request) *gate.Outcome {
	t.Helper()
	o, err := gate.Decide(context.Background(), w, w, rq)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func vsa(t *testing.T, o *gate.Outcome) *evidence.VSA {
	t.Helper()
	v, err := o.VSA()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func denied(t *testing.T, o *gate.Outcome, want ...string) {
	t.Helper()
	if o.Decision.Allow {
		t.Fatal("allowed")
	}
	got := decision.IDs(o.Decision.Violations)
	for _, id := range want {
		if !slices.Contains(got, id) {
			t.Errorf("violations %v, want %s: %+v", got, id, o.Decision.Violations)
		}
	}
}

func TestFirstReleasePasses(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	o := decide(t, w, request(w, p, d, "prod"))
	if !o.Decision.Allow {
		t.Fatalf("denied: %+v", o.Decision.Violations)
	}
	if o.Basis != (evidence.Basis{Channel: "prod"}) {
		t.Errorf("basis %+v", o.Basis)
	}
	verdict, record, err := o.Attest(t.Context(), w.Keys[trust.RoleGate])
	if err != nil {
		t.Fatal(err)
	}
	want := verify.VSAWant{Subject: d, ResourceURI: "waybill:ml/churn", Model: "churn", Env: "prod", DeviceClass: "edge-s", Now: policytest.Now(), Basis: &o.Basis}
	v, _, err := verify.VSA(verdict, w.Trust, want)
	if err != nil {
		t.Fatal(err)
	}
	if v.Waybill.InputDigest != o.InputDigest || v.Waybill.DecisionDigest != o.DecisionDigest || len(v.InputAttestations) != 5 {
		t.Errorf("verdict %+v", v)
	}
	want.Env = "staging"
	if _, _, err := verify.VSA(verdict, w.Trust, want); err == nil {
		t.Error("a verdict for prod serves staging")
	}
	st, _, err := open(record)
	if err != nil {
		t.Fatal(err)
	}
	r, err := gate.Again(context.Background(), st.Predicate, p)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Same || r.Replayed != o.DecisionDigest || r.Input != o.InputDigest {
		t.Errorf("replay %+v", r)
	}
}

func open(raw []byte) (*evidence.Statement, string, error) {
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil, "", err
	}
	id, err := b.KeyID()
	if err != nil {
		return nil, "", err
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	return s, id, err
}

func TestChampion(t *testing.T) {
	w, p := world(t)
	v1 := w.Release(t, policytest.Default(), 0.98, 0.1)
	w.Publish(t, "prod", 1, v1, nil)
	m := policytest.Default()
	m.Version = "2.0.0"
	better := w.Release(t, m, 0.99, 0.09)
	o := decide(t, w, request(w, p, better, "prod"))
	if !o.Decision.Allow {
		t.Fatalf("denied: %+v", o.Decision.Violations)
	}
	if o.Basis.Seq != 1 || o.Basis.Champion != v1 {
		t.Errorf("basis %+v", o.Basis)
	}
	m.Version = "2.1.0"
	worse := w.Release(t, m, 0.96, 0.1)
	denied(t, decide(t, w, request(w, p, worse, "prod")), "MET-002")

	t.Run("champion without evaluation", func(t *testing.T) {
		keep := w.Attached[v1]
		defer func() { w.Attached[v1] = keep }()
		w.Attached[v1] = nil
		denied(t, decide(t, w, request(w, p, better, "prod")), "MET-002")
	})
	t.Run("channel unreadable", func(t *testing.T) {
		defer func() { w.ChannelErr = nil }()
		w.ChannelErr = errors.New("connection refused")
		o := decide(t, w, request(w, p, better, "prod"))
		denied(t, o, "MET-002")
		if !strings.Contains(o.Decision.Violations[0].Message, "connection refused") {
			t.Error(o.Decision.Violations[0].Message)
		}
	})
	for name, change := range map[string]func(*channel.Record){
		"another environment": func(r *channel.Record) { r.Env = "staging" },
		"another model":       func(r *channel.Record) { r.Target.Name = "other" },
		"newer trust":         func(r *channel.Record) { r.Trust.Version++ },
	} {
		t.Run("record of "+name, func(t *testing.T) {
			w.Publish(t, "prod", 2, v1, change)
			denied(t, decide(t, w, request(w, p, better, "prod")), "MET-002")
		})
	}
	t.Run("record signed by the publisher", func(t *testing.T) {
		st, _, err := open(w.Channels["prod"])
		if err != nil {
			t.Fatal(err)
		}
		if w.Channels["prod"], err = w.Keys[trust.RolePublisher].Sign(t.Context(), st); err != nil {
			t.Fatal(err)
		}
		denied(t, decide(t, w, request(w, p, better, "prod")), "MET-002")
	})
}

// Each way to go wrong is denied, by the rule that is about it.
func TestDenials(t *testing.T) {
	for name, c := range map[string]struct {
		model func(*policytest.Model)
		world func(*testing.T, *policytest.World, artifact.Digest)
		rq    func(*gate.Request)
		rule  string
	}{
		"by tag":            {rq: func(r *gate.Request) { r.Pinned, r.Ref = false, "reg.example/ml/churn:1.0" }, rule: "ID-001"},
		"unsigned":          {world: drop(evidence.TypeRelease), rule: "SIG-001"},
		"no evaluation":     {world: drop(evidence.TypeEvaluation), rule: "MET-001"},
		"no dataset":        {world: drop(evidence.TypeDataset), rule: "DATA-001"},
		"no approval":       {world: drop(evidence.TypeApproval), rule: "APP-001"},
		"license":           {model: func(m *policytest.Model) { m.License = "CC-BY-NC-4.0" }, rule: "LIC-001"},
		"imports":           {model: func(m *policytest.Model) { m.Module = policytest.WasmImporting("env", "system") }, rule: "WASM-001"},
		"no wasm":           {model: func(m *policytest.Model) { m.Module = []byte("\x7fELF and so on") }, rule: "WASM-001"},
		"pickle":            {model: func(m *policytest.Model) { m.Source = []byte("\x80\x04\x95cos\nsystem\n") }, rule: "FMT-001"},
		"text pickle":       {model: func(m *policytest.Model) { m.Source = []byte("cos\nsystem\n(S'id'\ntR.") }, rule: "FMT-001"},
		"pickle by name":    {model: func(m *policytest.Model) { m.SourcePath = "model.pkl" }, rule: "FMT-001"},
		"golden undeclared": {model: func(m *policytest.Model) { m.GoldenPersonal = "" }, rule: "DATA-005"},
		"golden disagrees":  {model: func(m *policytest.Model) { m.Reference = 0.5 }, rule: "GOLD-001"},
		"layer altered": {world: func(t *testing.T, w *policytest.World, d artifact.Digest) {
			l := w.Layer(t, d, artifact.RoleSource)
			b := bytes.Clone(w.Blobs[l.Digest])
			b[0] ^= 1
			w.Blobs[l.Digest] = b
		}, rule: "ID-002"},
		"layer longer": {world: func(t *testing.T, w *policytest.World, d artifact.Digest) {
			l := w.Layer(t, d, artifact.RoleSource)
			w.Blobs[l.Digest] = append(bytes.Clone(w.Blobs[l.Digest]), 0)
		}, rule: "ID-002"},
		"layer missing": {world: func(t *testing.T, w *policytest.World, d artifact.Digest) {
			delete(w.Blobs, w.Layer(t, d, artifact.RoleSource).Digest)
		}, rule: "ID-002"},
		"evidence unreadable": {world: func(_ *testing.T, w *policytest.World, _ artifact.Digest) { w.EvidenceErr = errors.New("timeout") }, rule: "ID-002"},
		"denied digest":       {world: func(_ *testing.T, w *policytest.World, d artifact.Digest) { w.Trust.Denied = append(w.Trust.Denied, d) }, rule: "SIG-005"},
		"revoked publisher": {world: func(_ *testing.T, w *policytest.World, _ artifact.Digest) {
			w.Trust.Revoked = append(w.Trust.Revoked, w.Keys[trust.RolePublisher].ID)
		}, rule: "SIG-001"},
		"expired trust": {rq: func(r *gate.Request) { r.Now = r.Now.AddDate(2, 0, 0) }, rule: "SIG-006"},
		"policy not pinned": {world: func(_ *testing.T, w *policytest.World, _ artifact.Digest) {
			w.Trust.Policies = []artifact.Digest{artifact.DigestOf(nil)}
		}, rule: "POL-001"},
		"approved by the publisher": {world: func(t *testing.T, w *policytest.World, d artifact.Digest) {
			drop(evidence.TypeApproval)(t, w, d)
			w.Attach(t, trust.RolePublisher, evidence.TypeApproval, d, evidence.Approval{Role: "ml-lead", Reason: "x", At: policytest.Now(), Expires: policytest.Now().AddDate(0, 1, 0)})
		}, rule: "APP-001"},
		"approved in a role that is not the approver's": {world: func(t *testing.T, w *policytest.World, d artifact.Digest) {
			drop(evidence.TypeApproval)(t, w, d)
			w.Attach(t, trust.RoleApprover, evidence.TypeApproval, d, evidence.Approval{Role: "risk-officer", Reason: "x", At: policytest.Now(), Expires: policytest.Now().AddDate(0, 1, 0)})
		}, rule: "APP-001"},
		"evaluated by the publisher": {world: func(t *testing.T, w *policytest.World, d artifact.Digest) {
			drop(evidence.TypeEvaluation)(t, w, d)
			w.Attach(t, trust.RolePublisher, evidence.TypeEvaluation, d, policytest.Evaluation(0.99, 0.01))
		}, rule: "MET-001"},
		"one evaluator where the trust document asks for two": {world: func(_ *testing.T, w *policytest.World, _ artifact.Digest) {
			w.Trust.Rules = []trust.Rule{{PredicateType: evidence.TypeEvaluation, Require: 2}}
		}, rule: "ID-002"},
		"an evaluation older than the trust document allows": {world: func(_ *testing.T, w *policytest.World, _ artifact.Digest) {
			w.Trust.Rules = []trust.Rule{{PredicateType: evidence.TypeEvaluation, MaxAge: "1m"}}
		}, rq: func(rq *gate.Request) { rq.Now = rq.Now.Add(time.Hour) }, rule: "MET-001"},
		"a second, bad evaluation": {world: func(t *testing.T, w *policytest.World, d artifact.Digest) {
			w.Attach(t, trust.RoleEvaluator, evidence.TypeEvaluation, d, policytest.Evaluation(0.5, 0.9))
		}, rule: "MET-001"},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := world(t)
			m := policytest.Default()
			if c.model != nil {
				c.model(&m)
			}
			d := w.Release(t, m, 0.98, 0.1)
			if c.world != nil {
				c.world(t, w, d)
			}
			rq := request(w, p, d, "prod")
			if c.rq != nil {
				c.rq(&rq)
			}
			o := decide(t, w, rq)
			denied(t, o, c.rule)
			if _, _, err := o.Attest(t.Context(), w.Keys[trust.RoleGate]); err != nil {
				t.Errorf("the denial cannot be attested: %v", err)
			}
		})
	}
}

// drop removes all evidence of one type.
func drop(typ string) func(*testing.T, *policytest.World, artifact.Digest) {
	return func(t *testing.T, w *policytest.World, d artifact.Digest) {
		n := len(w.Attached[d])
		w.Attached[d] = slices.DeleteFunc(slices.Clone(w.Attached[d]), func(b []byte) bool {
			s, _, err := open(b)
			return err == nil && s.PredicateType == typ
		})
		if len(w.Attached[d]) != n-1 {
			t.Fatalf("dropped %d bundles", n-len(w.Attached[d]))
		}
	}
}

// Changing any value of any signed predicate, with the old signature kept, denies.
func TestEveryMutationOfSignedFactsDenies(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	if !decide(t, w, request(w, p, d, "prod")).Decision.Allow {
		t.Fatal("the start is denied already")
	}
	orig := w.Attached[d]
	n := 0
	for i := range orig {
		st, _, err := open(orig[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range leaves(t, st.Predicate) {
			w.Attached[d] = slices.Clone(orig)
			w.Attached[d][i] = policytest.Resign(t, orig[i], func(m map[string]any) { mutate(m, path) })
			o := decide(t, w, request(w, p, d, "prod"))
			if o.Decision.Allow {
				t.Errorf("%s: %v changed and the gate allows", evidence.NameOf(st.PredicateType), path)
			}
			n++
		}
	}
	// The signature's bytes themselves, at a few places, and the subject.
	for i := range orig {
		for _, at := range []int{len(orig[i]) / 3, len(orig[i]) / 2, len(orig[i]) - 20} {
			w.Attached[d] = slices.Clone(orig)
			b := bytes.Clone(orig[i])
			b[at] ^= 1
			w.Attached[d][i] = b
			if decide(t, w, request(w, p, d, "prod")).Decision.Allow {
				t.Errorf("bundle %d: byte %d flipped and the gate allows", i, at)
			}
			n++
		}
	}
	t.Logf("%d mutations", n)
	if n < 40 {
		t.Errorf("only %d mutations were tried", n)
	}
}

// Evidence of one artifact proves nothing about another.
func TestEvidenceOfAnotherArtifact(t *testing.T) {
	w, p := world(t)
	a := w.Release(t, policytest.Default(), 0.98, 0.1)
	m := policytest.Default()
	m.Version = "6.6.6"
	b := w.Add(t, m)
	w.Attached[b] = w.Attached[a]
	denied(t, decide(t, w, request(w, p, b, "prod")), "SIG-001", "MET-001", "DATA-001", "APP-001")
}

func TestChainOfVerdicts(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.5, 0.9)
	o := decide(t, w, request(w, p, d, "prod"))
	denied(t, o, "MET-001")
	verdict, record, err := o.Attest(t.Context(), w.Keys[trust.RoleGate])
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := verify.VSA(verdict, w.Trust, verify.VSAWant{Subject: d, ResourceURI: "waybill:ml/churn", Model: "churn", Env: "prod", Now: policytest.Now()}); verify.ReasonOf(err) != verify.Refused {
		t.Errorf("a denial verifies as a permission: %v", err)
	}
	w.Attached[d] = append(w.Attached[d], verdict, record)
	rq := request(w, p, d, "prod")
	rq.Now = rq.Now.Add(time.Minute)
	again := decide(t, w, rq)
	if v := vsa(t, again); v.Waybill.Prev != artifact.DigestOf(verdict) {
		t.Errorf("prev is %q", v.Waybill.Prev)
	}
	if other := decide(t, w, request(w, p, d, "staging")); len(other.Chain.Heads) != 0 {
		t.Errorf("the chain of prod leaks into staging: %q", other.Chain.Heads)
	}
}

func TestExceptionIsReportedAndBoundsTheVerdict(t *testing.T) {
	w, p := world(t)
	m := policytest.Default()
	d := w.Release(t, m, 0.98, 0.1)
	drop(evidence.TypeEvaluation)(t, w, d)
	ev := policytest.Evaluation(0.98, 0.1)
	ev.Metrics[0].N = 5
	w.Attach(t, trust.RoleEvaluator, evidence.TypeEvaluation, d, ev)
	denied(t, decide(t, w, request(w, p, d, "prod")), "MET-004")
	until := policytest.Now().AddDate(0, 0, 7)
	w.Attach(t, trust.RoleApprover, evidence.TypeException, d, evidence.Exception{Rule: "MET-004", Reason: "small test set", At: policytest.Now().Add(-time.Hour), Expires: until})
	o := decide(t, w, request(w, p, d, "prod"))
	if !o.Decision.Allow || len(o.Decision.Exceptions) != 1 {
		t.Fatalf("%+v", o.Decision)
	}
	v, err := o.VSA()
	if err != nil {
		t.Fatal(err)
	}
	if !v.Waybill.NotAfter.Equal(until) || !slices.Equal(v.Waybill.Exceptions, []string{"MET-004"}) {
		t.Errorf("verdict %+v", v.Waybill)
	}
	// The same waiver by the publisher, or for a rule that may not be waived, does nothing.
	w.Attach(t, trust.RoleApprover, evidence.TypeException, d, evidence.Exception{Rule: "SIG-001", Reason: "x", At: policytest.Now().Add(-time.Hour), Expires: until})
	drop(evidence.TypeRelease)(t, w, d)
	denied(t, decide(t, w, request(w, p, d, "prod")), "SIG-001")
}

func TestReplayUnderAnotherPolicyAndOfAForgedRecord(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	o := decide(t, w, request(w, p, d, "prod"))
	_, record, err := o.Attest(t.Context(), w.Keys[trust.RoleGate])
	if err != nil {
		t.Fatal(err)
	}
	st, _, err := open(record)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(st.Predicate, []byte(`"value":0.98`), []byte(`"value":0.11`), 1)
	if bytes.Equal(forged, st.Predicate) {
		t.Fatal("nothing was forged")
	}
	r, err := gate.Again(context.Background(), forged, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Same || r.Allow || len(r.Changes) == 0 {
		t.Errorf("a forged input replays: %+v", r)
	}
	other := bytes.Replace(st.Predicate, []byte(fmt.Sprintf(`"policy":"%s"`, p.Bundle().Digest())), []byte(fmt.Sprintf(`"policy":"%s"`, artifact.DigestOf(nil))), 1)
	if _, err := gate.Again(context.Background(), other, p); !errors.Is(err, gate.ErrPolicy) {
		t.Errorf("%v", err)
	}
}

func TestUnreadableArtifactIsAnError(t *testing.T) {
	w, p := world(t)
	if _, err := gate.Decide(context.Background(), w, w, request(w, p, artifact.DigestOf([]byte("nothing")), "prod")); err == nil {
		t.Error("a decision about nothing")
	}
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := gate.Decide(ctx, w, w, request(w, p, d, "prod")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
