package facts

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
)

// Signed evidence that would not fit into the record of a decision is left out as a whole, in the open; without the bound it
// all comes in.
func TestSignedFlood(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	e := policytest.Evaluation(0.98, 0.1)
	one := e.Metrics[0]
	for len(e.Metrics) < 1200 {
		e.Metrics = append(e.Metrics, one)
	}
	w.Attach(t, trust.RoleEvaluator, evidence.TypeEvaluation, d, e)
	in := collected(t, w, d, seam{})
	if len(in.Metrics) != 0 || len(in.Attestations) != 0 || !strings.Contains(problems(in), input.LeftOut+": the facts have ") ||
		!strings.Contains(problems(in), "1 attestations, 1200 metrics") {
		t.Errorf("%d metrics; %s", len(in.Metrics), problems(in))
	}
	if in := collected(t, w, d, seam{skip: "size"}); len(in.Metrics) != 1200 || problems(in) != "" {
		t.Errorf("without the bound: %d metrics; %s", len(in.Metrics), problems(in))
	}
}

// Each part that can be large is left out in its turn, the same way each time, and what remains fits.
func TestBoundLeavesOutInOrder(t *testing.T) {
	long := strings.Repeat("\x01", input.MaxText)
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint(i, long))
		}
		return out
	}
	for _, c := range []struct {
		name string
		fill func(r *Result)
		gone []string // what the problem says was left out
	}{
		{"nothing", func(*Result) {}, nil},
		{"metrics", func(r *Result) { r.Input.Metrics = make([]input.Metric, 4000) }, []string{"all evidence"}},
		{"a model card", func(r *Result) { r.Input.ModelCard.UseCases = many(40) }, []string{"all evidence"}},
		{"references", func(r *Result) { r.Used = make([]artifact.Digest, 4000) }, []string{"all evidence"}},
		{"the champion", func(r *Result) { r.Input.Champion.Metrics = make([]input.Metric, 4000) }, []string{"all evidence"}},
		{"layers", func(r *Result) {
			for i := range 50 {
				r.Input.Artifact.Layers = append(r.Input.Artifact.Layers, input.Layer{Path: fmt.Sprint(i, long)})
			}
		}, []string{"all evidence", "what the artifact says"}},
		{"problems", func(r *Result) {
			for i := range 200 {
				r.Input.Artifact.Problems = append(r.Input.Artifact.Problems, input.Note{Code: "layer", Text: clip(fmt.Sprint(i, long), maxNote)})
			}
		}, []string{"all evidence", "what the artifact says", "200 problems"}},
		{"data of the environment", func(r *Result) { r.Input.Environment.Data = map[string]any{"x": many(40)} }, []string{"what the artifact says", "the environment's demands"}},
		{"everything", func(r *Result) {
			in := &r.Input
			in.Trust.Revoked, in.Model.Authors, in.Context.RequestedRef, in.VerdictChain.Missing = many(20), many(20), long, many(20)
			for i := range 4000 {
				d := artifact.DigestOf(fmt.Append(nil, i))
				r.Chain.Heads = append(r.Chain.Heads, d)
				r.Chain.Missing = append(r.Chain.Missing, evidence.Gap{Digest: d})
			}
		}, []string{"what the artifact says", "the environment's demands"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			make := func() *Result {
				r := &Result{Input: input.New(), Chain: &evidence.Chain{}}
				c.fill(r)
				r.Input.Normalize()
				if err := r.bound(MaxDocument); err != nil {
					t.Fatal(err)
				}
				return r
			}
			r := make()
			if n, err := r.size(); err != nil || n > MaxDocument {
				t.Errorf("%d bytes, %v", n, err)
			}
			if (c.gone == nil) != (problems(r.Input) == "") || strings.Count(problems(r.Input), input.LeftOut+":") > 1 {
				t.Errorf("problems %q", problems(r.Input))
			}
			for _, s := range c.gone {
				if !strings.Contains(problems(r.Input), s) {
					t.Errorf("%q does not say %q", problems(r.Input), s)
				}
			}
			if len(r.Chain.Heads) > 1 || len(r.Chain.MissingDigests()) > 0 {
				t.Errorf("chain of %d heads", len(r.Chain.Heads))
			}
			a, _ := r.Input.Canonical()
			if b, _ := make().Input.Canonical(); !bytes.Equal(a, b) {
				t.Error("another document the second time")
			}
		})
	}
}
