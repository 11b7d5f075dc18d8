package devicekey_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

func TestKey(t *testing.T) {
	k, err := devicekey.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := k.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := devicekey.Parse(raw)
	if err != nil || again.KeyID() != k.KeyID() {
		t.Fatalf("%v", err)
	}
	pub, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	w := verifytest.New(t)
	w.Doc.Keys = append(w.Doc.Keys, trust.Key{ID: k.KeyID(), Name: "device 1", Role: trust.RoleDevice, Public: string(pub),
		Scope: trust.Scope{Models: []string{"*"}, Channels: []string{"prod"}}})
	if err := w.Doc.Validate(); err != nil {
		t.Fatal(err)
	}
	d := artifact.DigestOf([]byte("x"))
	st := evidence.Status{Device: k.KeyID(), Class: "edge-s", Labels: map[string]string{}, Channel: "prod", Model: "churn", State: "committed",
		Running: d, At: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Runtime: "0.1.0", Events: []evidence.StatusEvent{},
		Journal: evidence.JournalHead{Head: d}, Trust: 1}
	s, err := evidence.NewStatement(evidence.TypeStatus, "churn", d, st)
	if err != nil {
		t.Fatal(err)
	}
	b, err := again.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	want := verify.Want{PredicateType: evidence.TypeStatus, Subject: d, Model: "churn", Channel: "prod", Now: w.Now}
	if e, err := verify.Bundle(b, w.Doc, want); err != nil || e.KeyName != "device 1" {
		t.Errorf("%v", err)
	}
	rel, err := evidence.NewStatement(evidence.TypeRelease, "churn", d, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(rel); err == nil {
		t.Error("a device key signed a release")
	}
}

func TestSignRaw(t *testing.T) {
	k, err := devicekey.Generate(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	sig := k.SignRaw("journal", []byte("head"))
	if err := devicekey.VerifyRaw(pub, "journal", []byte("head"), sig); err != nil {
		t.Error(err)
	}
	for _, c := range [][2]string{{"state", "head"}, {"journal", "other"}, {"journa", "l\x00head"}} {
		if devicekey.VerifyRaw(pub, c[0], []byte(c[1]), sig) == nil {
			t.Errorf("%q over %q verified", c[0], c[1])
		}
	}
}

func TestParseRefuses(t *testing.T) {
	k, err := devicekey.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := k.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"public key": string(pub), "nothing": "", "other role": strings.Replace(string(raw), "device", "gate", 1),
		"no role": strings.Replace(string(raw), "Waybill-Role: device\n\n", "", 1), "more after it": string(raw) + "x",
	} {
		if _, err := devicekey.Parse([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := devicekey.Generate(strings.NewReader("short")); err == nil {
		t.Error("a key from 5 bytes")
	}
}
