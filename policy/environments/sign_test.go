package environments_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/policytest"
)

func TestSignedFile(t *testing.T) {
	w := policytest.New(t, artifact.DigestOf([]byte("policy")))
	now := policytest.Now()
	one, err := environments.Sign(t.Context(), w.EnvDoc, w.Keys[trust.RoleRoot], nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := environments.Verify(one, w.Trust, now)
	if err != nil || s.Keys[0] != "root team" || s.Bundle != artifact.DigestOf(bytes.TrimSpace(one)) {
		t.Fatalf("%+v %v", s, err)
	}
	for name, sign := range map[string]trust.Role{"by the gate": trust.RoleGate, "by a publisher": trust.RolePublisher} {
		raw, err := environments.Sign(t.Context(), w.EnvDoc, w.Keys[sign], nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := environments.Verify(raw, w.Trust, now); verify.ReasonOf(err) != verify.WrongRole {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := environments.Verify(one, w.Trust, now.AddDate(2, 0, 0)); err == nil {
		t.Error("an expired trust document vouches")
	}
	if _, err := environments.Verify(nil, w.Trust, now); err == nil {
		t.Error("an empty file verifies")
	}
	for _, at := range []int{10, len(one) / 2, len(one) - 30} {
		b := bytes.Clone(one)
		b[at] ^= 1
		if _, err := environments.Verify(b, w.Trust, now); err == nil {
			t.Errorf("byte %d flipped and it verifies", at)
		}
	}
	forged := policytest.Resign(t, bytes.TrimSpace(one), func(p map[string]any) { p["version"] = 2 })
	if _, err := environments.Verify(forged, w.Trust, now); err == nil {
		t.Error("a forged document verifies")
	}
}

func TestThreshold(t *testing.T) {
	w := policytest.New(t, artifact.DigestOf([]byte("policy")))
	now := policytest.Now()
	first := w.Keys[trust.RoleRoot]
	second, stranger := policytest.NewKey(t), policytest.NewKey(t)
	all := []string{"*"}
	w.Trust.Keys = append(w.Trust.Keys, trust.Key{ID: second.ID, Name: "second root", Role: trust.RoleRoot, Public: second.PEM, Scope: trust.Scope{Models: all, Envs: all, Channels: all}})
	w.Trust.Threshold = 2
	add := func(k *policytest.Key, to []byte) []byte {
		t.Helper()
		raw, err := environments.Sign(t.Context(), w.EnvDoc, k, to)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	one := add(first, nil)
	if _, err := environments.Verify(one, w.Trust, now); err == nil || !strings.Contains(err.Error(), "1 of the 2") {
		t.Errorf("one signature: %v", err)
	}
	if twice := add(first, one); bytes.Count(twice, []byte("\n")) != 1 {
		t.Error("the same key counts twice")
	}
	if doubled := append(bytes.Clone(one), add(first, nil)...); true {
		if _, err := environments.Verify(doubled, w.Trust, now); err == nil {
			t.Error("two signatures of one key meet a threshold of two")
		}
	}
	if _, err := environments.Verify(add(stranger, one), w.Trust, now); err == nil {
		t.Error("a stranger's signature counts")
	}
	both := add(second, one)
	s, err := environments.Verify(add(stranger, both), w.Trust, now)
	if err != nil || len(s.Keys) != 2 {
		t.Errorf("two roots and a stranger: %+v %v", s, err)
	}
	other := *w.EnvDoc
	other.Version++
	mixed, err := environments.Sign(t.Context(), &other, second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := environments.Verify(append(bytes.Clone(one), mixed...), w.Trust, now); err == nil {
		t.Error("signatures over two documents verify")
	}
	if replaced, err := environments.Sign(t.Context(), &other, second, both); err != nil || bytes.Count(replaced, []byte("\n")) != 1 {
		t.Errorf("signatures over an older document are kept: %v", err)
	}
}
