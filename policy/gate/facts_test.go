package gate_test

import (
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/policytest"
)

// 100 MB of junk beside a sound release: denied with the reason, and the sound evidence among it allows nothing.
func TestTooMuchEvidenceDenies(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	if o := decide(t, w, request(w, p, d, "prod")); !o.Decision.Allow {
		t.Fatalf("denied: %+v", o.Decision.Violations)
	}
	junk := make([]byte, artifact.MaxBundle)
	for range 100 {
		w.Attached[d] = append(w.Attached[d], junk)
	}
	o := decide(t, w, request(w, p, d, "prod"))
	denied(t, o, "ID-002", "SIG-001")
	if len(o.InputBytes) > 64<<10 || len(o.Used) > 1 {
		t.Errorf("input of %d bytes, %d bundles used", len(o.InputBytes), len(o.Used))
	}
}

// A clock behind the evidence denies, wherever the later time stands.
func TestClockInThePastDenies(t *testing.T) {
	for name, later := range map[string]func(w *policytest.World, d artifact.Digest){
		"a scan": func(w *policytest.World, d artifact.Digest) {
			w.Attach(t, trust.RoleEvaluator, evidence.TypeVulns, d, policytest.Scan(policytest.Now().AddDate(0, 0, 1)))
		},
		"the trust document": func(w *policytest.World, _ artifact.Digest) { w.Trust.Issued = policytest.Now().AddDate(0, 0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			w, p := world(t)
			d := w.Release(t, policytest.Default(), 0.98, 0.1)
			later(w, d)
			denied(t, decide(t, w, request(w, p, d, "prod")), "TIME-001")
		})
	}
}
