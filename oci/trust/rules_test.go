package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

func TestAllows(t *testing.T) {
	w := verifytest.New(t)
	d := w.Doc
	dep := w.Keys[trust.RoleDeployer]
	i := slices.IndexFunc(d.Keys, func(k trust.Key) bool { return k.Role == trust.RoleDeployer })
	d.Keys[i].Scope = trust.Scope{Models: []string{"churn", "fraud-*"}, Envs: []string{"prod"}, Channels: []string{}}
	ok := trust.Ask{KeyID: dep.ID, Role: trust.RoleDeployer, Model: "fraud-eu", Env: "prod", At: w.Now}
	if err := d.Allows(ok); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*trust.Ask)
		want   error
	}{
		{"unknown key", func(a *trust.Ask) { a.KeyID = strings.Repeat("0", 64) }, trust.ErrUnknownKey},
		{"other role", func(a *trust.Ask) { a.Role = trust.RoleGate }, trust.ErrRole},
		{"other model", func(a *trust.Ask) { a.Model = "vision" }, trust.ErrScope},
		{"model with a slash", func(a *trust.Ask) { a.Model = "fraud-eu/x" }, trust.ErrScope},
		{"other environment", func(a *trust.Ask) { a.Env = "staging" }, trust.ErrScope},
		{"empty scope list", func(a *trust.Ask) { a.Channel = "prod" }, trust.ErrScope},
		{"expired", func(a *trust.Ask) { a.At = d.Expires }, trust.ErrExpired},
		{"no time", func(a *trust.Ask) { a.At = time.Time{} }, trust.ErrExpired},
	} {
		a := ok
		c.change(&a)
		if err := d.Allows(a); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	d.Revoked = []string{dep.ID}
	if err := d.Allows(ok); !errors.Is(err, trust.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
}

func TestValidateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*trust.Document)
		says   string
	}{
		"schema":              {func(d *trust.Document) { d.Schema = "x" }, "schema"},
		"version":             {func(d *trust.Document) { d.Version = 0 }, "version 0"},
		"generation":          {func(d *trust.Document) { d.Generation = 0 }, "generation 0"},
		"expires":             {func(d *trust.Document) { d.Expires = d.Issued }, "expires"},
		"threshold":           {func(d *trust.Document) { d.Threshold = 0 }, "threshold"},
		"too few roots":       {func(d *trust.Document) { d.Threshold = 2 }, "cannot meet"},
		"only root revoked":   {func(d *trust.Document) { d.Revoked = []string{d.Keys[0].ID} }, "cannot meet"},
		"unknown role":        {func(d *trust.Document) { d.Keys[1].Role = "admin" }, "role"},
		"no name":             {func(d *trust.Document) { d.Keys[1].Name = "" }, "name is empty"},
		"id of another key":   {func(d *trust.Document) { d.Keys[1].ID = d.Keys[2].ID }, "is not that of the public key"},
		"two roles":           {func(d *trust.Document) { k := d.Keys[1]; k.Role = trust.RoleGate; d.Keys = append(d.Keys, k) }, "one key has one role"},
		"bad pattern":         {func(d *trust.Document) { d.Keys[1].Scope.Models = []string{"["} }, "pattern"},
		"approver roles":      {func(d *trust.Document) { d.Keys[1].ApproverRoles = []string{"x"} }, "approverRoles"},
		"policy":              {func(d *trust.Document) { d.Policies = []artifact.Digest{"sha256:1"} }, "digest"},
		"revoked":             {func(d *trust.Document) { d.Revoked = []string{"x"} }, "not a key id"},
		"not a public key":    {func(d *trust.Document) { d.Keys[1].Public = "x" }, "PEM"},
		"two keys in one":     {func(d *trust.Document) { d.Keys[1].Public += d.Keys[2].Public }, "PEM"},
		"denied is no digest": {func(d *trust.Document) { d.Denied = []artifact.Digest{"x"} }, "digest"},
	} {
		t.Run(name, func(t *testing.T) {
			d := verifytest.New(t).Doc
			c.change(d)
			if err := d.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestOnlyPinnedAlgorithms(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range []any{&p384.PublicKey, &r.PublicKey} {
		if _, err := trust.KeyID(pub); err == nil {
			t.Errorf("%T got an id", pub)
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := trust.ParsePublic(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); err == nil {
			t.Errorf("%T was parsed", pub)
		}
	}
}

// Every predicate type that the verifier knows has roles and every role signs something: the table is closed.
func TestRolesFor(t *testing.T) {
	used := map[trust.Role]bool{}
	for _, n := range []string{"release", "provenance", "vsa", "cyclonedx", "oms", "test-result", "evaluation", "dataset", "approval",
		"exception", "decision", "deployment", "channel", "status", "trust", "environments", "policy", "vulns", "spdx", "spdx-2.3"} {
		typ, ok := evidence.TypeByName(n)
		if !ok || len(trust.RolesFor(typ)) == 0 {
			t.Errorf("%s has no role", n)
		}
		for _, r := range trust.RolesFor(typ) {
			used[r] = true
		}
	}
	for _, r := range trust.Roles() {
		if !used[r] {
			t.Errorf("role %s signs nothing", r)
		}
	}
	if trust.RolesFor("https://example.com/x") != nil {
		t.Error("an unknown predicate type has roles")
	}
}

func TestDigestIgnoresHowListsAreWritten(t *testing.T) {
	d := verifytest.New(t).Doc
	want, err := d.Digest()
	if err != nil {
		t.Fatal(err)
	}
	d.Revoked, d.Denied = nil, nil
	d.Issued = d.Issued.In(time.FixedZone("x", 3600))
	if got, err := d.Digest(); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func FuzzParse(f *testing.F) {
	raw, err := verifytest.New(f).Doc.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := trust.Parse(raw)
		if err != nil {
			return
		}
		a, err := d.Digest()
		if err != nil {
			t.Fatal(err)
		}
		out, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := trust.Parse(out)
		if err != nil {
			t.Fatalf("does not survive a round trip: %v", err)
		}
		if b, err := again.Digest(); err != nil || a != b {
			t.Fatalf("digest %s becomes %s (%v)", a, b, err)
		}
	})
}
