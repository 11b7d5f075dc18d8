package trust_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

const issuer = "https://token.actions.githubusercontent.com"

func identity(role trust.Role, subject, pattern string) trust.Identity {
	s := subject + pattern
	return trust.Identity{
		ID: trust.IdentityID(issuer, s, pattern != ""), Name: "ci", Role: role, Issuer: issuer, Subject: subject, SubjectPattern: pattern,
		Scope: trust.Scope{Models: []string{"churn"}, Envs: []string{"*"}, Channels: []string{"*"}},
	}
}

func TestSubjectPattern(t *testing.T) {
	const flow = "https://github.com/org/repo/.github/workflows/"
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{flow + "release.yml@refs/tags/v*", flow + "release.yml@refs/tags/v1.2.3", true},
		{flow + "release.yml@refs/tags/v*", flow + "release.yml@refs/tags/v", true},
		{flow + "release.yml@refs/tags/v*", flow + "release.yml@refs/heads/v1", false},
		{flow + "release.yml@refs/tags/v*", flow + "release.yml@refs/tags/v1/x", false},
		{flow + "release.yml@refs/tags/v*", "https://evil.example/?" + flow + "release.yml@refs/tags/v1", false}, // prefix
		{flow + "release.yml@refs/tags/v*", flow + "release.yml@refs/tags/v1@x", false},
		{flow + "*.yml@refs/heads/main", flow + "a.yml@refs/heads/main", true},
		{flow + "*.yml@refs/heads/main", flow + "a.yml@refs/heads/main2", false},                 // suffix
		{flow + "*.yml@refs/heads/main", flow + "a.yml@refs/heads/x.yml@refs/heads/main", false}, // a second @ inside the star
		{flow + "*.yml@refs/heads/main", flow + "sub/a.yml@refs/heads/main", false},              // a deeper path
		{flow + "*.yml@refs/heads/main", strings.ToUpper(flow) + "a.yml@refs/heads/main", false}, // case
		{flow + "*.yml@refs/heads/main", flow + "a.yml@refs/heads/main\n", false},                // a line break at the end
		{"*@example.com", "ci@example.com", true},
		{"*@example.com", "ci@example.com.evil.example", false},
		{"*@example.com", "ci@evil.example@example.com", false},
		{"*@example.com", "x/ci@example.com", false},
		{"ci-*-bot@example.com", "ci-a-b-bot@example.com", true},
		{"ci-*-bot@example.com", "ci-bot@example.com", false},
		{"a*b*c@example.com", "aXbYc@example.com", true},
		{"a*b*c@example.com", "abc@example.com", true},
		{"a*b*c@example.com", "acb@example.com", false},
	} {
		if got := identity(trust.RolePublisher, "", c.pattern).Matches(issuer, c.subject); got != c.want {
			t.Errorf("%q against %q: %v", c.subject, c.pattern, got)
		}
	}
	exact := identity(trust.RolePublisher, "ci@example.com", "")
	for _, c := range []struct {
		issuer, subject string
		want            bool
	}{
		{issuer, "ci@example.com", true}, {issuer, "ci@example.comm", false}, {issuer, "xci@example.com", false}, {issuer, "*", false},
		{issuer + "/", "ci@example.com", false}, {"", "ci@example.com", false}, {issuer, "", false},
	} {
		if got := exact.Matches(c.issuer, c.subject); got != c.want {
			t.Errorf("%q of %q: %v", c.subject, c.issuer, got)
		}
	}
}

// withIdentity is a valid document with identities.
func withIdentity(t *testing.T, ids ...trust.Identity) *trust.Document {
	t.Helper()
	d := verifytest.New(t).Doc
	d.Identities = ids
	d.Keyless = &trust.Keyless{TrustedRoot: artifact.DigestOf([]byte("{}")), Logs: 1, Timestamps: 1}
	return d
}

func TestIdentitiesAreValidated(t *testing.T) {
	good := withIdentity(t, identity(trust.RolePublisher, "ci@example.com", ""), identity(trust.RoleEvaluator, "", "https://ci.example/ml/*"))
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	raw, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := trust.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := back.Encode(); string(again) != string(raw) {
		t.Error("Encode and Parse are not inverse")
	}
	for _, c := range []struct {
		name, want string
		change     func(*trust.Document)
	}{
		{"root", "not one that an identity", func(d *trust.Document) { d.Identities[0].Role = trust.RoleRoot }},
		{"device", "not one that an identity", func(d *trust.Document) { d.Identities[0].Role = trust.RoleDevice }},
		{"no keyless", "need keyless", func(d *trust.Document) { d.Keyless = nil }},
		{"two roles", "one identity has one role", func(d *trust.Document) {
			i := d.Identities[0]
			i.Role = trust.RoleGate
			d.Identities = append(d.Identities, i)
		}},
		{"id", "id ", func(d *trust.Document) { d.Identities[0].ID = d.Identities[1].ID }},
		{"issuer pattern", "issuer", func(d *trust.Document) { d.Identities[0].Issuer = "https://*.example" }},
		{"issuer", "issuer", func(d *trust.Document) { d.Identities[0].Issuer = "accounts.example" }},
		{"neither", "either", func(d *trust.Document) { d.Identities[0].Subject = "" }},
		{"both", "either", func(d *trust.Document) { d.Identities[0].SubjectPattern = "*@example.com" }},
		{"no time", "both 0", func(d *trust.Document) { d.Keyless.Logs, d.Keyless.Timestamps = 0, 0 }},
		{"negative", "-1", func(d *trust.Document) { d.Keyless.SCTs = -1 }},
		{"other root", "has digest", func(d *trust.Document) { d.Keyless.TrustedRootJSON = `{"a":1}` }},
		{"scope", "malformed", func(d *trust.Document) { d.Identities[0].Scope.Models = []string{"["} }},
		{"approver roles", "approverRoles", func(d *trust.Document) { d.Identities[0].ApproverRoles = []string{"ml-lead"} }},
		{"name", "name", func(d *trust.Document) { d.Identities[0].Name = "" }},
	} {
		d := withIdentity(t, identity(trust.RolePublisher, "ci@example.com", ""), identity(trust.RoleEvaluator, "", "https://ci.example/ml/*"))
		c.change(d)
		if err := d.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, p := range []string{
		"*", "**", "*@*", "ci@*", "ci@*.example.com", "ci@", "https://*", "https://*/ml/x", "https://*.example/ml/x", "http*://ci.example/ml/x",
		"https://ci.example*/ml/x", "https://ci.example/*", "https://ci.example/*/repo", "https://ci.example/org*", "https://ci.example/org/", "x**y", "plain", "*x",
	} {
		if err := withIdentity(t, identity(trust.RolePublisher, "", p)).Validate(); err == nil {
			t.Errorf("pattern %q is accepted", p)
		}
	}
}

func TestIdentityIsAskedLikeAKey(t *testing.T) {
	i := identity(trust.RolePublisher, "ci@example.com", "")
	d := withIdentity(t, i)
	at := d.Issued.Add(time.Hour)
	ask := trust.Ask{KeyID: i.ID, Role: trust.RolePublisher, Model: "churn", At: at}
	if err := d.Allows(ask); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.Lookup(i.ID); ok {
		t.Error("an identity is found as a key: a bundle could name it without a certificate")
	}
	other := ask
	other.Model = "fraud"
	if err := d.Allows(other); !errors.Is(err, trust.ErrScope) {
		t.Errorf("another model: %v", err)
	}
	other = ask
	other.Role = trust.RoleGate
	if err := d.Allows(other); !errors.Is(err, trust.ErrRole) {
		t.Errorf("another role: %v", err)
	}
	next := *d
	next.Version, next.Revoked = d.Version+1, []string{i.ID}
	if err := next.Allows(ask); !errors.Is(err, trust.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	third := next
	third.Version, third.Revoked = next.Version+1, nil
	if err := third.Follows(&next); err == nil {
		t.Error("a revoked identity came back")
	}
}
