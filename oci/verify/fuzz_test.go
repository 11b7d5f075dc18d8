package verify

import (
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// No mutation of a signed bundle may verify with other content: what comes out is what the key signed.
func FuzzBundle(f *testing.F) {
	w := verifytest.New(f)
	good := w.Release("churn", digestA)
	f.Add(good)
	f.Add(w.SignVSA(digestA, w.VSA()))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
	e, err := Bundle(good, w.Doc, Want{PredicateType: evidence.TypeRelease, Subject: digestA, Model: "churn", Now: w.Now})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Bundle(raw, w.Doc, Want{PredicateType: evidence.TypeRelease, Subject: digestA, Model: "churn", Now: w.Now})
		if err != nil {
			if ReasonOf(err) == "" {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		if got.Payload != e.Payload || got.Bundle != artifact.DigestOf(raw) {
			t.Fatalf("verified something else: %+v", got)
		}
	})
}

func FuzzRecord(f *testing.F) {
	w := verifytest.New(f)
	r, err := channel.Next(nil, w.Change(verifytest.Target("1.0", digestA)))
	if err != nil {
		f.Fatal(err)
	}
	_, good := w.SignRecord(trust.RoleDeployer, r)
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, _, err := Record(raw, w.Doc, w.Now)
		if err == nil && !channel.SameContent(got, r) {
			t.Fatalf("verified something else: %+v", got)
		}
	})
}

func FuzzTrust(f *testing.F) {
	w := verifytest.New(f)
	f.Add(w.Trust())
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := TrustSelf(raw)
		if err != nil {
			return
		}
		if err := d.Validate(); err != nil {
			t.Fatalf("verified but invalid: %v", err)
		}
	})
}
