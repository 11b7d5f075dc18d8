package facts

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
)

func problems(in input.Input) string {
	var s []string
	for _, p := range in.Artifact.Problems {
		s = append(s, p.Code+": "+p.Text)
	}
	return strings.Join(s, "\n")
}

// Each check of the collector is taken out in turn, and the attack that it stops then comes through.
func TestWithoutEachCheck(t *testing.T) {
	now := policytest.Now()
	for _, c := range []struct {
		skip    string
		attack  func(t *testing.T, w *policytest.World, d artifact.Digest)
		through func(in input.Input) bool // the attack has come through
	}{
		{"layer", func(t *testing.T, w *policytest.World, d artifact.Digest) {
			l := w.Layer(t, d, artifact.RoleModule)
			other := slices.Clone(w.Blobs[l.Digest])
			other[len(other)-1] ^= 1
			w.Blobs[l.Digest] = other
		}, func(in input.Input) bool {
			return problems(in) == "" && !slices.ContainsFunc(in.Artifact.Layers, func(l input.Layer) bool { return !l.DigestVerified })
		}},
		{"config", func(t *testing.T, w *policytest.World, d artifact.Digest) {
			m, err := artifact.ParseModel(w.Manifests[d])
			if err != nil {
				t.Fatal(err)
			}
			c := m.Manifest.Config.Digest
			w.Blobs[c] = bytes.Replace(w.Blobs[c], []byte("Apache-2.0"), []byte("GPL-3.0000"), 1)
		}, func(in input.Input) bool { return slices.Contains(in.Model.Licenses, "GPL-3.0000") }},
		{"gate-id", func(t *testing.T, w *policytest.World, d artifact.Digest) {
			v := verdictOn("staging", evidence.Passed, "", now.Add(-time.Hour))
			v.Verifier.ID = "https://example.com/another-gate"
			w.Attach(t, trust.RoleGate, evidence.TypeVSA, d, v)
		}, func(in input.Input) bool { return len(in.Verdicts) > 0 }},
		{"fits", func(t *testing.T, w *policytest.World, d artifact.Digest) {
			e := policytest.Evaluation(0.98, 0.1)
			e.Metrics[0].Slice = strings.Repeat("x", input.MaxText+1)
			w.Attach(t, trust.RoleEvaluator, evidence.TypeEvaluation, d, e)
		}, func(in input.Input) bool { return len(in.Metrics) > 0 }},
		{"limits", func(t *testing.T, w *policytest.World, d artifact.Digest) {
			for i := range MaxBundles + 1 {
				w.Attached[d] = append(w.Attached[d], fmt.Appendf(nil, "junk %d", i))
			}
		}, func(in input.Input) bool {
			return strings.Contains(problems(in), fmt.Sprintf("%d attestations", MaxBundles+1))
		}},
		{"same-channel", func(t *testing.T, w *policytest.World, d artifact.Digest) {
			// somebody moves the tag of this channel to a sound record of another one
			w.Publish(t, "staging", 3, d, nil)
			w.Channels["prod"] = w.Channels["staging"]
		}, func(in input.Input) bool { return in.Champion.Verified && in.Champion.Seq == 3 }},
	} {
		t.Run(c.skip, func(t *testing.T) {
			w := policytest.New(t, somePolicy)
			d := w.Add(t, policytest.Default())
			c.attack(t, w, d)
			if c.through(collected(t, w, d, seam{})) {
				t.Error("the attack comes through")
			}
			if !c.through(collected(t, w, d, seam{skip: c.skip})) {
				t.Error("without the check the attack fails too: this proves nothing")
			}
		})
	}
}

// A verdict for another environment is not taken for one of this, whatever the bundle's label says.
func TestVerdictsAndTheirChain(t *testing.T) {
	now := policytest.Now()
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	first := w.Attach(t, trust.RoleGate, evidence.TypeVSA, d, verdictOn("prod", evidence.Failed, "", now.Add(-3*time.Hour)))
	second := w.Attach(t, trust.RoleGate, evidence.TypeVSA, d, verdictOn("prod", evidence.Passed, first, now.Add(-2*time.Hour)))
	w.Attach(t, trust.RoleGate, evidence.TypeVSA, d, verdictOn("staging", evidence.Passed, "", now.Add(-4*time.Hour)))
	in := collected(t, w, d, seam{})
	same(t, "chain", in.VerdictChain, input.VerdictChain{Complete: true, Missing: []string{}, Heads: []string{string(second)}})
	if len(in.Verdicts) != 3 || in.Verdicts[2].Environment != "staging" {
		t.Errorf("%+v", in.Verdicts)
	}
	w.Attached[d] = w.Attached[d][1:] // the denial is taken away
	in = collected(t, w, d, seam{})
	same(t, "chain with a gap", in.VerdictChain, input.VerdictChain{Complete: false, Missing: []string{string(first)}, Heads: []string{string(second)}})
}

func TestChampionsVerdict(t *testing.T) {
	now := policytest.Now()
	w := policytest.New(t, somePolicy)
	old := w.Release(t, policytest.Default(), 0.97, 0.1)
	m := policytest.Default()
	m.Version = "2.0.0"
	d := w.Release(t, m, 0.98, 0.1)
	w.Publish(t, "prod", 1, old, func(r *channel.Record) { r.EpochFloor, r.Target.Epoch = 1, 2 })
	ask := func() input.Champion { return collected(t, w, d, seam{}).Champion }
	if c := ask(); c.Verdict != "" || c.Epoch != 2 || c.EpochFloor != 1 || c.Version != "1.0.0" || len(c.Metrics) != 2 {
		t.Errorf("%+v", c)
	}
	w.Attach(t, trust.RoleGate, evidence.TypeVSA, old, verdictOn("staging", evidence.Failed, "", now.Add(-time.Hour)))
	if c := ask(); c.Verdict != "" {
		t.Errorf("of another environment: %+v", c)
	}
	first := w.Attach(t, trust.RoleGate, evidence.TypeVSA, old, verdictOn("prod", evidence.Passed, "", now.Add(-3*time.Hour)))
	if c := ask(); c.Verdict != evidence.Passed {
		t.Errorf("%+v", c)
	}
	w.Attach(t, trust.RoleGate, evidence.TypeVSA, old, verdictOn("prod", evidence.Failed, first, now.Add(-2*time.Hour)))
	if c := ask(); c.Verdict != evidence.Failed {
		t.Errorf("%+v", c)
	}
	forged := policytest.Resign(t, w.Attached[old][len(w.Attached[old])-1], func(p map[string]any) { p["verificationResult"] = evidence.Passed })
	w.Attached[old][len(w.Attached[old])-1] = forged
	if c := ask(); c.Verdict != evidence.Passed { // the forgery is no verdict; what is left is the pass before it
		t.Errorf("%+v", c)
	}
}

// The security epoch and the facts of the config come from the manifest that was hashed.
func TestContextNewest(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	if in := collected(t, w, d, seam{}); !in.Context.Newest.Equal(w.Trust.Issued) {
		t.Errorf("newest %s", in.Context.Newest)
	}
	later := policytest.Now().AddDate(0, 0, 3)
	w.Attach(t, trust.RoleEvaluator, evidence.TypeVulns, d, policytest.Scan(later))
	if in := collected(t, w, d, seam{}); !in.Context.Newest.Equal(later) {
		t.Errorf("newest %s, want %s", in.Context.Newest, later)
	}
}

// bounded is a source with as much evidence as an attacker likes.
type bounded struct {
	*policytest.World
	bundles [][]byte
}

func (b *bounded) Bundles(context.Context, artifact.Digest) ([][]byte, error) { return b.bundles, nil }

// 100 MB of evidence: nothing of it is read, the document stays small and says why, for the artifact and for the champion.
func TestHugeEvidence(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	w.Publish(t, "prod", 1, d, nil)
	src := &bounded{World: w, bundles: slices.Clone(w.Attached[d])}
	verified := 0
	s := seam{bundle: func(raw []byte, doc *trust.Document, want verify.Want) (*verify.Evidence, error) {
		verified++
		return verify.Bundle(raw, doc, want)
	}}
	for range 100 {
		src.bundles = append(src.bundles, make([]byte, artifact.MaxBundle))
	}
	r, err := collect(context.Background(), src, w, ask(t, w, d), s)
	if err != nil {
		t.Fatal(err)
	}
	if got := problems(r.Input); !strings.Contains(got, "evidence: the attached bundles have more than") {
		t.Errorf("problems %q", got)
	}
	if len(r.Input.Signatures)+len(r.Input.Attestations)+len(r.Input.Metrics) != 0 || verified != 0 {
		t.Errorf("%d bundles were looked at", verified)
	}
	if c := r.Input.Champion; c.Verified || !strings.Contains(c.Reason, "more than") || len(c.Metrics) != 0 {
		t.Errorf("%+v", c)
	}
	b, err := r.Input.Canonical()
	if err != nil || len(b) > 64<<10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// The largest lists that statements may bring stay within the limits of what is evaluated, before the bound on what is recorded;
// more of them fail as a whole.
func TestManyFacts(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	e := policytest.Evaluation(0.98, 0.1)
	one := e.Metrics[0]
	for len(e.Metrics) < 2000 {
		e.Metrics = append(e.Metrics, one)
	}
	for i := range 10 {
		e.Note = fmt.Sprint(i)
		w.Attach(t, trust.RoleEvaluator, evidence.TypeEvaluation, d, e)
	}
	in := collected(t, w, d, seam{skip: "size"})
	failed := 0
	for _, a := range in.Attestations {
		if !a.Verified {
			failed++
			if !strings.Contains(a.Reason, fmt.Sprint(input.MaxItems)) {
				t.Errorf("reason %q", a.Reason)
			}
		}
	}
	if len(in.Metrics) != 16000 || failed != 2 {
		t.Errorf("%d metrics, %d failed", len(in.Metrics), failed)
	}
	if b, err := in.Canonical(); err != nil || len(b) > input.MaxBytes {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// What an unverified bundle calls itself, and what verification says of it, is cut to a length.
func TestLongReasons(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	s := &evidence.Statement{Type: evidence.StatementType, PredicateType: "https://example.com/" + strings.Repeat("\u00e4\u202e", 50000), Predicate: []byte(`{}`),
		Subject: []evidence.Subject{{Digest: map[string]string{"sha256": d.Hex()}}}}
	b, err := policytest.NewKey(t).Sign(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	w.Attached[d] = [][]byte{b}
	a := collected(t, w, d, seam{}).Attestations[0]
	if n := len([]rune(a.PredicateType)); n != evidence.MaxType || len([]rune(a.Reason)) > maxNote || a.Verified {
		t.Errorf("%d, %+v", n, a.Reason)
	}
	for s, want := range map[string]string{"": "", "abc": "abc", "abcd": "ab…", "\xff\xff": "\uFFFD", "äöüß": "äö…"} {
		if got := clip(s, 3); got != want {
			t.Errorf("%q cut to %q, want %q", s, got, want)
		}
	}
}
