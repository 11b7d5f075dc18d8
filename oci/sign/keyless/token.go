package keyless

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Audience is what an identity token must be made for.
const Audience = "sigstore"

const maxToken = 64 << 10

// Token is an OIDC identity token, read but not verified: the certificate authority does that. It is checked here so that
// a token that cannot work is refused before anything is sent anywhere. Raw is a secret and stands in no message.
type Token struct {
	Raw     string
	Source  string // where it came from, for messages
	Issuer  string
	Subject string
	Expires time.Time
}

// Env is where a token may come from.
type Env struct {
	Getenv func(string) string
	Token  string // handed over as it is; wins
	File   []byte // contents of a token file; wins over the environment
	Name   string // of the file, for messages
	Issuer string // the token must be of this issuer; empty: any
	Now    time.Time
}

// FindToken takes the token that was handed over, else the one in SIGSTORE_ID_TOKEN (GitLab CI), else asks GitHub Actions
// for one. It never asks a person.
func FindToken(ctx context.Context, e Env) (*Token, error) {
	raw, source := e.Token, "--identity-token"
	switch {
	case raw != "":
	case e.File != nil:
		raw, source = string(e.File), e.Name
	case e.Getenv("SIGSTORE_ID_TOKEN") != "":
		raw, source = e.Getenv("SIGSTORE_ID_TOKEN"), "SIGSTORE_ID_TOKEN"
	case e.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL") != "" || e.Getenv("GITHUB_ACTIONS") == "true":
		var err error
		source = "GitHub Actions"
		if raw, err = github(ctx, e.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), e.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")); err != nil {
			return nil, err
		}
	default:
		return nil, diag.New(diag.Usage, "there is no identity token to sign with").
			Line("GitHub Actions: give the job the permission id-token: write").
			Line("GitLab CI: id_tokens: SIGSTORE_ID_TOKEN: aud: %s", Audience).
			Line("elsewhere: --identity-token-file, with a token made for the audience %s", Audience).
			Hint("waybill sign REF --keyless --identity-token-file token.jwt")
	}
	return readToken(raw, source, e.Issuer, e.Now)
}

// readToken checks what an unverified token says of itself: audience, time and, when issuer is not empty, issuer.
func readToken(raw, source, issuer string, now time.Time) (*Token, error) {
	raw = strings.TrimSpace(raw)
	fail := func(format string, args ...any) error {
		return diag.New(diag.Usage, "identity token (%s): "+format, append([]any{source}, args...)...)
	}
	if len(raw) > maxToken {
		return nil, fail("larger than %d bytes", maxToken)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, fail("not a JSON web token")
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fail("not a JSON web token")
	}
	var c struct {
		Iss string      `json:"iss"`
		Sub string      `json:"sub"`
		Aud audiences   `json:"aud"`
		Exp json.Number `json:"exp"`
		Nbf json.Number `json:"nbf"`
	}
	if err := json.Unmarshal(claims, &c); err != nil {
		return nil, fail("its claims are not the JSON of a token")
	}
	exp, err := c.Exp.Float64()
	if err != nil {
		return nil, fail("it names no time of expiry")
	}
	t := &Token{Raw: raw, Source: source, Issuer: c.Iss, Subject: c.Sub, Expires: time.Unix(int64(exp), 0).UTC()}
	switch {
	case c.Iss == "" || c.Sub == "":
		return nil, fail("it names no issuer or no subject")
	case issuer != "" && c.Iss != issuer:
		return nil, fail("it is of %s, not of %s", c.Iss, issuer)
	case !slices.Contains(c.Aud, Audience):
		return nil, fail("it was made for the audience %s, not for %s", strings.Join(c.Aud, ", "), Audience)
	case !now.Before(t.Expires):
		return nil, fail("it expired at %s, now is %s", t.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if nbf, err := c.Nbf.Float64(); err == nil && now.Add(time.Minute).Before(time.Unix(int64(nbf), 0)) {
		return nil, fail("it is valid from %s on only", time.Unix(int64(nbf), 0).UTC().Format(time.RFC3339))
	}
	return t, nil
}

// audiences is one string or a list of them (RFC 7519, section 4.1.3).
type audiences []string

// UnmarshalJSON reads both forms.
func (a *audiences) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// github asks the runner for a token. The request token goes to the host that the runner named and to no other.
func github(ctx context.Context, endpoint, bearer string) (string, error) {
	if endpoint == "" || bearer == "" {
		return "", diag.New(diag.Usage, "GitHub Actions gives this job no identity token").
			Line("the job, or the workflow, needs: permissions: id-token: write").
			Hint("waybill sign REF --keyless --identity-token-file token.jwt")
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", diag.New(diag.Usage, "ACTIONS_ID_TOKEN_REQUEST_URL is not a URL")
	}
	if err := secure("ACTIONS_ID_TOKEN_REQUEST_URL", u); err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("audience", Audience)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", fmt.Errorf("ask GitHub Actions for a token: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/json")
	client := &http.Client{Transport: transport(ctx), Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the endpoint redirects; the token stays here")
	}}
	resp, err := client.Do(req)
	if err != nil {
		return "", diag.Wrap(diag.Registry, bare(err), "ask GitHub Actions for a token")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxToken+1))
	if err != nil {
		return "", diag.Wrap(diag.Registry, err, "ask GitHub Actions for a token")
	}
	var answer struct {
		Value string `json:"value"`
	}
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &answer) != nil || answer.Value == "" {
		return "", diag.New(diag.Registry, "GitHub Actions answered %s and gave no token", resp.Status)
	}
	return answer.Value, nil
}

// bare takes the URL off a client's error: it may carry what only the runner should know.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
