package devicekey_test

import (
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// checkStatus has k sign a status and looks at the signature with the public key alone.
func checkStatus(t *testing.T, k *devicekey.Key) {
	t.Helper()
	d := artifact.DigestOf([]byte("x"))
	s, err := evidence.NewStatement(evidence.TypeStatus, "churn", d, evidence.Status{
		Device: k.KeyID(), Class: "edge-s", Labels: map[string]string{}, Channel: "prod", Model: "churn", State: "committed",
		Running: d, At: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Runtime: "0.1.0", Events: []evidence.StatusEvent{},
		Journal: evidence.JournalHead{Head: d}, Trust: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := k.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	pub, id, err := trust.ParsePublic(pem)
	if err != nil || id != k.KeyID() {
		t.Fatalf("public key of %s: %v", id, err)
	}
	if !verify.Signature(pub, evidence.PayloadType, b.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig) {
		t.Error("the status does not verify")
	}
}
