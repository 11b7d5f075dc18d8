package devicekey_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
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
	sig, err := k.SignRaw("journal", []byte("head"))
	if err != nil {
		t.Fatal(err)
	}
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

// p256 is a key file of the other kind, as tokens and TPMs have it.
func p256(t *testing.T) []byte {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"Waybill-Role": "device"}, Bytes: der})
}

// Journal checkpoints and status reports work with an ECDSA P-256 key as with an Ed25519 key.
func TestP256(t *testing.T) {
	raw := p256(t)
	k, err := devicekey.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := k.Encode(); err != nil || !bytes.Equal(again, raw) {
		t.Errorf("written again it is another file: %v", err)
	}
	pub, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := k.SignRaw("journal", []byte("head"))
	if err != nil {
		t.Fatal(err)
	}
	if err := devicekey.VerifyRaw(pub, "journal", []byte("head"), sig); err != nil {
		t.Error(err)
	}
	if devicekey.VerifyRaw(pub, "journal", []byte("other"), sig) == nil {
		t.Error("the signature of another message verified")
	}
	checkStatus(t, k)
}

// exchanged is a token whose key was replaced behind its name after it was opened.
type exchanged struct{ was, is *devicekey.Key }

func (e exchanged) Public() crypto.PublicKey {
	pem, _ := e.was.Public()
	pub, _, _ := trust.ParsePublic(pem)
	return pub
}

func (e exchanged) Sign(m []byte) ([]byte, error) { return e.is.SignRaw("x", m) }

func TestExchangedKeyDoesNotSign(t *testing.T) {
	var keys [2]*devicekey.Key
	for i := range keys {
		k, err := devicekey.Generate(nil)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k
	}
	k, err := devicekey.New(exchanged{keys[0], keys[1]})
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := k.SignRaw("journal", []byte("head")); err == nil || sig != nil {
		t.Errorf("signed with another key: %v", err)
	}
	if _, err := k.Encode(); err == nil {
		t.Error("a key on a token was encoded")
	}
}

func TestOpenRefuses(t *testing.T) {
	for uri, want := range map[string]string{
		"tpm:0x81000001": "tpm2-pkcs11",
		"pkcs11:token=waybill;object=device?pin-value=1234": "pin-source",
		"pkcs11:object=device":                              "names no token",
		"device.key":                                        "is not a URI",
	} {
		_, err := devicekey.Open(t.Context(), uri, func(string) string { return "" })
		if diag.CodeOf(err) != diag.Usage || !strings.Contains(diag.Render(err), want) || strings.Contains(diag.Render(err), "1234") {
			t.Errorf("%s: %v, want %q", uri, err, want)
		}
	}
}
