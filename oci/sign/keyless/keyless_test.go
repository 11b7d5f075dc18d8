package keyless

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

func jwt(claims map[string]any) string {
	b, _ := json.Marshal(claims)
	return "e30." + base64.RawURLEncoding.EncodeToString(b) + ".c2ln"
}

func TestTokens(t *testing.T) {
	now := time.Now()
	good := func() map[string]any {
		return map[string]any{"iss": "https://ci.example", "sub": "job", "aud": "sigstore", "exp": now.Add(time.Minute).Unix()}
	}
	with := func(k string, v any) map[string]any {
		m := good()
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
		return m
	}
	for name, c := range map[string]struct {
		claims map[string]any
		raw    string
		issuer string
		want   string // part of the error; empty: good
	}{
		"good":             {claims: good()},
		"audience in list": {claims: with("aud", []string{"x", "sigstore"})},
		"issuer asked for": {claims: good(), issuer: "https://ci.example"},
		"other issuer":     {claims: good(), issuer: "https://ci.evil.example", want: "it is of https://ci.example, not of"},
		"other audience":   {claims: with("aud", "kubernetes"), want: "made for the audience kubernetes, not for sigstore"},
		"no audience":      {claims: with("aud", nil), want: "audience"},
		"expired":          {claims: with("exp", now.Add(-time.Second).Unix()), want: "it expired at"},
		"no expiry":        {claims: with("exp", nil), want: "no time of expiry"},
		"not yet":          {claims: with("nbf", now.Add(time.Hour).Unix()), want: "valid from"},
		"no subject":       {claims: with("sub", nil), want: "no subject"},
		"no issuer":        {claims: with("iss", nil), want: "no issuer"},
		"not a token":      {raw: "hunter2-secret", want: "not a JSON web token"},
		"not base64":       {raw: "a.$$hunter2-secret.c", want: "not a JSON web token"},
		"not JSON":         {raw: "a." + base64.RawURLEncoding.EncodeToString([]byte("hunter2-secret")) + ".c", want: "claims"},
		"huge":             {raw: strings.Repeat("hunter2-secret", 10000), want: "larger than"},
	} {
		raw := c.raw
		if raw == "" {
			raw = jwt(c.claims)
		}
		tok, err := FindToken(t.Context(), Env{Token: raw, Issuer: c.issuer, Now: now})
		switch {
		case c.want == "" && (err != nil || tok.Issuer != "https://ci.example" || tok.Subject != "job"):
			t.Errorf("%s: %+v, %v", name, tok, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || diag.CodeOf(err) != diag.Usage):
			t.Errorf("%s: %v", name, err)
		case err != nil && (strings.Contains(err.Error(), raw) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: the message shows the token: %v", name, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(jwt(map[string]any{"iss": "a", "sub": "b", "aud": []string{"sigstore"}, "exp": 1e10}))
	f.Add(jwt(map[string]any{"iss": 1, "exp": "x"}))
	f.Add("..")
	f.Fuzz(func(t *testing.T, raw string) {
		if tok, err := readToken(raw, "fuzz", "", time.Unix(1, 0)); err == nil && (tok.Issuer == "" || tok.Subject == "" || tok.Expires.Before(time.Unix(1, 0))) {
			t.Errorf("%+v", tok)
		}
	})
}

// The runner's endpoint: the token that opens it goes there only, a job without the permission is told so, and what the
// endpoint says wrong ends nowhere.
func TestGitHub(t *testing.T) {
	const secret = "the request token"
	now := time.Now()
	var answer func(w http.ResponseWriter, r *http.Request)
	var stolen atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(fmt.Sprint(r.Header), secret) {
			stolen.Add(1)
		}
	}))
	defer thief.Close()
	runner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret || r.URL.Query().Get("audience") != Audience || r.URL.Query().Get("api-version") != "2.0" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		answer(w, r)
	}))
	defer runner.Close()
	find := func(url, bearer string) (*Token, error) {
		return FindToken(t.Context(), Env{Now: now, Getenv: func(k string) string {
			return map[string]string{"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": bearer}[k]
		}})
	}
	value := func(v string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]string{"value": v})
		}
	}
	at := runner.URL + "/token?api-version=2.0"
	answer = value(jwt(map[string]any{"iss": "https://gh", "sub": "job", "aud": "sigstore", "exp": now.Add(time.Minute).Unix()}))
	if tok, err := find(at, secret); err != nil || tok.Source != "GitHub Actions" {
		t.Errorf("%+v, %v", tok, err)
	}
	var n atomic.Int32
	good := answer
	answer = func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) < 3 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		good(w, r)
	}
	if _, err := find(at, secret); err != nil {
		t.Errorf("busy twice: %v", err)
	}
	for name, c := range map[string]struct {
		url, bearer string
		answer      func(http.ResponseWriter, *http.Request)
		code        diag.Code
		want        string
	}{
		"no permission":  {"", "", nil, diag.Usage, "id-token: write"},
		"no bearer":      {at, "", nil, diag.Usage, "id-token: write"},
		"plain http":     {"http://runner.example/token", secret, nil, diag.Usage, "not https"},
		"refused":        {at, "another", nil, diag.Registry, "400"},
		"always busy":    {at, secret, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) }, diag.Registry, "503"},
		"no value":       {at, secret, value(""), diag.Registry, "no token"},
		"no token in it": {at, secret, value("x"), diag.Usage, "not a JSON web token"},
		"endless":        {at, secret, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 8<<20)) }, diag.Registry, "more than"},
		"wrong audience": {at, secret, value(jwt(map[string]any{"iss": "https://gh", "sub": "job", "aud": "api", "exp": now.Add(time.Minute).Unix()})), diag.Usage, "audience"},
		"redirect elsewhere": {at, secret, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL, http.StatusFound)
		}, diag.Registry, "redirects"},
	} {
		answer = c.answer
		_, err := find(c.url, c.bearer)
		if err == nil || diag.CodeOf(err) != c.code {
			t.Errorf("%s: %v (code %d)", name, err, diag.CodeOf(err))
			continue
		}
		text := diag.Render(err)
		if !strings.Contains(text, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(text, secret) || strings.Contains(text, runner.URL+"/token") {
			t.Errorf("%s: the message shows what belongs to the runner: %v", name, err)
		}
	}
	if stolen.Load() != 0 {
		t.Error("the request token went to another host")
	}
}

func TestNoToken(t *testing.T) {
	_, err := FindToken(t.Context(), Env{Now: time.Now(), Getenv: func(string) string { return "" }})
	if diag.CodeOf(err) != diag.Usage || !strings.Contains(err.Error(), "no identity token") {
		t.Errorf("got %v", err)
	}
}

func TestServices(t *testing.T) {
	for name, c := range map[string]struct {
		s    Services
		want string
	}{
		"public":          {Public(), ""},
		"loopback":        {Services{"http://127.0.0.1:1", []Log{{"http://[::1]:2", 2}}, []string{"http://localhost:3/x"}}, ""},
		"no log":          {Services{"https://a.example", nil, []string{"https://b.example"}}, ""},
		"plain http":      {Services{"http://a.example", nil, []string{"https://b.example"}}, "not https"},
		"plain http log":  {Services{"https://a.example", []Log{{"http://b.example", 2}}, []string{"https://c.example"}}, "not https"},
		"nothing":         {Services{}, "no certificate authority"},
		"no time":         {Services{"https://a.example", nil, nil}, "nothing would say when"},
		"rekor v2 alone":  {Services{"https://a.example", []Log{{"https://b.example", 2}}, nil}, "states no time"},
		"rekor v1 alone":  {Services{"https://a.example", []Log{{"https://b.example", 1}}, nil}, ""},
		"not a URL":       {Services{"::", nil, []string{"https://b.example"}}, "not the URL"},
		"looks like loop": {Services{"http://127.0.0.1.evil.example", nil, []string{"https://b.example"}}, "not https"},
	} {
		err := c.s.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h := (Services{"https://a.example", []Log{{"https://b.example/x", 2}}, []string{"https://a.example/ts"}}).Hosts(); strings.Join(h, " ") != "a.example b.example" {
		t.Errorf("hosts: %v", h)
	}
	if _, err := FromConfig([]byte(`{"mediaType":"x"}`), time.Now()); err == nil {
		t.Error("a configuration of another type is read")
	}
	if _, err := FromConfig([]byte(`{`), time.Now()); err == nil {
		t.Error("half a configuration is read")
	}
}

// An authority that fails, answers nonsense or never stops gives an error that says what it was, and no bundle.
func TestBadServices(t *testing.T) {
	st, err := evidence.NewStatement(evidence.TypeRelease, "churn", artifact.DigestOf(nil), struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	tok := &Token{Raw: jwt(map[string]any{"iss": "https://ci.example", "sub": "job", "aud": "sigstore", "exp": 1}), Issuer: "https://ci.example", Subject: "job"}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string
	}{
		"refuses":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such issuer", http.StatusBadRequest) }, "no such issuer"},
		"fails":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "database down", http.StatusBadGateway) }, "database down"},
		"nonsense": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"x":1}`)) }, "no certificates"},
		"endless":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 8<<20)) }, "more than"},
		"not pem": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"signedCertificateEmbeddedSct":{"chain":{"certificates":["x"]}}}`))
		}, "certificate"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(c.answer))
		_, err := Sign(t.Context(), st, Services{Fulcio: srv.URL, TSA: []string{srv.URL}}, tok)
		srv.Close()
		if err == nil || diag.CodeOf(err) != diag.Registry || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), tok.Raw) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Stamp(t.Context(), "http://127.0.0.1:1/x", []byte("sig")); diag.CodeOf(err) != diag.Registry {
		t.Errorf("no authority: %v", err)
	}
}
