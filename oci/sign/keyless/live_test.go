package keyless_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/sign/keyless"
	"github.com/waybill-ml/waybill/oci/sign/keyless/keylesstest"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/sigstore"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// The real servers: what is signed as a person, as a GitHub job and as a GitLab job verifies under a trust document with
// that identity, and under no other.
func TestRealServers(t *testing.T) {
	s := keylesstest.Start(t)
	services, err := keyless.FromConfig(s.SigningConfig, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.Claims = keylesstest.Workflow("org/repo", "release.yml", "refs/tags/v1.2")
	file := func(token string) keyless.Env { return keyless.Env{File: []byte(token + "\n"), Name: "token.jwt"} }
	env := func(m map[string]string) keyless.Env {
		return keyless.Env{Getenv: func(k string) string { return m[k] }}
	}
	in5 := time.Now().Add(5 * time.Minute)
	for name, c := range map[string]struct {
		env             keyless.Env
		issuer, subject string
	}{
		"person, token file": {file(s.Email("dev@example.com")), "/email", "dev@example.com"},
		"github": {env(map[string]string{
			"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": s.URL + "/runner?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": keylesstest.RunnerToken,
		}), "/github", "https://github.com/org/repo/.github/workflows/release.yml@refs/tags/*"},
		"gitlab": {env(map[string]string{"SIGSTORE_ID_TOKEN": s.Token("/gitlab", "sigstore", in5, keylesstest.Pipeline("group/project", ".gitlab-ci.yml", "main"))}),
			"/gitlab", "https://gitlab.com/group/project//.gitlab-ci.yml@refs/heads/main"},
	} {
		t.Run(name, func(t *testing.T) {
			c.env.Now = time.Now()
			if c.env.Getenv == nil {
				c.env.Getenv = func(string) string { return "" }
			}
			tok, err := keyless.FindToken(t.Context(), c.env)
			if err != nil {
				t.Fatal(err)
			}
			d := artifact.DigestOf([]byte(name))
			st, err := evidence.NewStatement(evidence.TypeRelease, "churn", d, struct{}{})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			raw, err := keyless.Sign(t.Context(), st, services, tok)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("signed in %v, bundle of %d bytes", time.Since(start).Round(time.Millisecond), len(raw))
			doc := document(t, s, c.issuer, c.subject)
			want := verify.Want{PredicateType: evidence.TypeRelease, Subject: d, Model: "churn", Now: time.Now(), Certificates: sigstore.With()}
			e, err := verify.Bundle(raw, doc, want)
			if err != nil {
				t.Fatal(err)
			}
			if e.TimeSource != verify.TimeRFC3161 || len(e.Certified.Logs) != 1 || e.Certified.Issuer != s.URL+c.issuer {
				t.Errorf("evidence: %+v, %+v", e, e.Certified)
			}
			if _, err := verify.Bundle(raw, document(t, s, c.issuer, "somebody@else.example"), want); verify.ReasonOf(err) != verify.WrongSigner {
				t.Errorf("under a document with another identity: %v", err)
			}
			other := s.URL + "/email"
			if c.issuer == "/email" {
				other = s.URL + "/github"
			}
			if _, err := verify.Bundle(raw, document(t, s, strings.TrimPrefix(other, s.URL), c.subject), want); verify.ReasonOf(err) != verify.WrongSigner {
				t.Errorf("under a document with another issuer: %v", err)
			}
		})
	}
	t.Run("refused by the authority", func(t *testing.T) {
		stranger := keylesstest.NewIssuer(t)
		tok, err := keyless.FindToken(t.Context(), keyless.Env{Token: stranger.Email("dev@example.com"), Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		st, err := evidence.NewStatement(evidence.TypeRelease, "churn", artifact.DigestOf(nil), struct{}{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keyless.Sign(t.Context(), st, services, tok); err == nil || strings.Contains(err.Error(), tok.Raw) {
			t.Errorf("got %v", err)
		} else {
			t.Log(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := keyless.Sign(ctx, st, services, tok); err == nil {
			t.Error("an ended context signs")
		}
	})
}

func document(t *testing.T, s *keylesstest.Stack, issuer, subject string) *trust.Document {
	t.Helper()
	d := verifytest.New(t).Doc
	d.Issued, d.Expires = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	pattern := strings.Contains(subject, "*")
	i := trust.Identity{
		ID: trust.IdentityID(s.URL+issuer, subject, pattern), Name: "ci", Role: trust.RolePublisher, Issuer: s.URL + issuer, Subject: subject,
		Scope: trust.Scope{Models: []string{"churn"}, Envs: []string{"*"}, Channels: []string{"*"}},
	}
	if pattern {
		i.Subject, i.SubjectPattern = "", subject
	}
	d.Identities = []trust.Identity{i}
	d.Keyless = &trust.Keyless{TrustedRoot: artifact.DigestOf(s.TrustedRoot), TrustedRootJSON: string(s.TrustedRoot), Logs: 1, Timestamps: 1}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	return d
}
