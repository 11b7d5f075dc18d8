package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// gate is the way to one registry. It finds out whether the registry speaks TLS, answers what it asks about who is there
// (RFC 7617, and the distribution project's token authentication), and gives credentials to nobody else: neither to where
// an answer redirects, nor to where an upload or the next page of a list is said to be, nor to a token server that is not
// the registry's own.
type gate struct {
	host   string // with port where it has one; what requests are sent to
	plain  bool   // http may be tried
	creds  func(ctx context.Context) (Login, error)
	next   http.RoundTripper // repeats what may be repeated
	once   http.RoundTripper // repeats nothing
	retry  RetryPolicy
	agent  string
	trusts []string // hosts of token servers besides the registry's own
	// askAgain asks creds at every login instead of once.
	askAgain bool
	rules    rules

	mu     sync.Mutex
	base   *url.URL  // "https://host"; nil before the registry answered
	ask    challenge // what the registry asks
	auth   *Login
	tokens map[string]token // by scopes
}

// rules are who gets what. They are values so that tests can show what each of them keeps out.
type rules struct {
	own      func(a, b *url.URL) bool                           // a is on the registry b: it gets the credentials
	realm    func(g *gate, u *url.URL) error                    // the token server u may have the credentials
	redirect func(req *http.Request, via []*http.Request) error // of requests to a registry
	login    func(req *http.Request, via []*http.Request) error // of requests that hold credentials, or decide who gets them
	limit    func(max int64) int64                              // bytes of an answer that is read into memory
}

func strict() rules {
	return rules{own: sameOrigin, realm: checkRealm, redirect: checkRedirect, login: sameOriginOnly, limit: func(max int64) int64 { return max }}
}

type token struct {
	value string
	until time.Time // when another is fetched, somewhat before it ends
}

// challenge is one WWW-Authenticate header field (RFC 9110, 11.6.1).
type challenge struct {
	scheme string // "basic", "bearer", or "" for none
	params map[string]string
}

type scopesKey struct{}

// withScopes tells the gate what a request needs.
func withScopes(ctx context.Context, scopes []string) context.Context {
	return context.WithValue(ctx, scopesKey{}, scopes)
}

// client sends requests through the gate and follows redirects, but never from https to http.
func (g *gate) client() *http.Client {
	return &http.Client{Transport: g, CheckRedirect: g.rules.redirect}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	last := via[len(via)-1].URL
	if last.Scheme == "https" && req.URL.Scheme != "https" {
		return refusedError{fmt.Sprintf("%s redirects from https to %s://%s", last.Host, req.URL.Scheme, req.URL.Host)}
	}
	req.Header.Del("Referer") // an upload's address is nobody else's business
	return nil
}

// refusedError is what a server asks for and does not get.
type refusedError struct{ why string }

func (e refusedError) Error() string { return "refused: " + e.why }

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

// resolve reads an address that the registry gave in an answer: absolute, or relative to the request. A registry behind a
// proxy that ends TLS often names itself with http; that becomes the https by which it was reached.
func (g *gate) resolve(resp *http.Response, s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || s == "" || resp.Request == nil || u.User != nil {
		return nil, fmt.Errorf("registry %s: %q is no address", g.host, plainText(s, 80))
	}
	base, err := g.ready(resp.Request.Context())
	if err != nil {
		return nil, err
	}
	u = resp.Request.URL.ResolveReference(u)
	if base.Scheme == "https" && u.Scheme == "http" && strings.EqualFold(u.Hostname(), base.Hostname()) && (u.Port() == "" || u.Port() == base.Port()) {
		u.Scheme, u.Host = base.Scheme, base.Host
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, refusedError{fmt.Sprintf("registry %s names an address that is no web address", g.host)}
	case base.Scheme == "https" && u.Scheme == "http":
		return nil, refusedError{fmt.Sprintf("registry %s points from https to http://%s", g.host, u.Host)}
	}
	return u, nil
}

// address is the registry's host with its port.
func (g *gate) address() string {
	u := url.URL{Scheme: "https", Host: g.host}
	return net.JoinHostPort(u.Hostname(), portOf(&u))
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

// RoundTrip implements http.RoundTripper.
func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	base, err := g.ready(req.Context())
	if err != nil {
		closeBody(req)
		return nil, err
	}
	first := req.Clone(req.Context())
	first.Header.Del("Authorization")
	first.Header.Set("User-Agent", g.agent)
	if !g.rules.own(req.URL, base) || (req.Host != "" && req.Host != req.URL.Host) {
		return g.next.RoundTrip(first)
	}
	scopes, _ := req.Context().Value(scopesKey{}).([]string)
	if err := g.authorize(req.Context(), first, scopes, ""); err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := g.next.RoundTrip(first)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	// The registry wants more than its first answer said, or the token is spent.
	ask := challengeOf(resp.Header)
	if ask.scheme == "" || (req.Body != nil && req.Body != http.NoBody && req.GetBody == nil) {
		return resp, nil
	}
	again := first.Clone(req.Context())
	if again.GetBody != nil {
		if again.Body, err = again.GetBody(); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
	}
	sent := first.Header.Get("Authorization")
	g.forget(ask, scopes, sent)
	if err := g.authorize(req.Context(), again, scopes, ask.params["scope"]); err != nil {
		closeBody(again)
		_ = resp.Body.Close()
		return nil, err
	}
	if again.Header.Get("Authorization") == sent {
		closeBody(again)
		return resp, nil // the same answer would follow
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody) // so that the connection can be used again
	_ = resp.Body.Close()
	return g.next.RoundTrip(again)
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// ready asks the registry once whether it speaks TLS and what it wants to know.
func (g *gate) ready(ctx context.Context) (*url.URL, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.base != nil {
		return g.base, nil
	}
	schemes := []string{"https"}
	if g.plain {
		schemes = append(schemes, "http")
	}
	for attempt := 1; ; attempt++ {
		var err error
		for i, s := range schemes {
			u := &url.URL{Scheme: s, Host: g.host}
			answered, perr := g.ping(ctx, u, len(schemes) == 1)
			if perr == nil {
				g.base = u
				return u, nil
			}
			if i == 0 || !answered { // an answer to http that is none means that https was right
				err = perr
			}
			// Who answers in TLS, or shows a certificate that is not believed, is not asked without.
			if answered || speaksTLS(perr) || ctx.Err() != nil {
				break
			}
		}
		// With two schemes nothing was repeated yet.
		if len(schemes) == 1 || attempt >= g.retry.Attempts || ctx.Err() != nil || !transient(err) {
			return nil, err
		}
		if serr := sleep(ctx, g.retry.backoff(attempt)); serr != nil {
			return nil, serr
		}
	}
}

// speaksTLS: a handshake took place, though it led to nothing.
func speaksTLS(err error) bool {
	var refused refusedError
	var op *net.OpError
	return untrusted(err) || errors.As(err, &refused) || errors.As(err, &op) && op.Op == "remote error" // a TLS alert
}

// ping reads the challenge of a registry (distribution-spec, end-1). answered tells whether anything came back.
func (g *gate) ping(ctx context.Context, base *url.URL, repeat bool) (answered bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String()+"/v2/", nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("User-Agent", g.agent)
	t := g.once
	if repeat {
		t = g.next
	}
	resp, err := (&http.Client{Transport: t, CheckRedirect: g.rules.login}).Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		g.ask = challenge{}
	case http.StatusUnauthorized:
		g.ask = challengeOf(resp.Header)
	default:
		return true, loginError(resp)
	}
	return true, nil
}

// loginError keeps what a login ends with apart from what the request itself could have ended with: a token server that
// answers 404 does not say that a manifest does not exist.
func loginError(resp *http.Response) error {
	e := statusError(resp)
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return e
	}
	return &loginFailure{e.Error(), e.Wait, e.Status == http.StatusTooManyRequests}
}

func sameOriginOnly(req *http.Request, via []*http.Request) error {
	if !sameOrigin(req.URL, via[0].URL) {
		return refusedError{fmt.Sprintf("%s redirects to %s, which gets no credentials", via[0].URL.Host, req.URL.Host)}
	}
	return checkRedirect(req, via)
}

// forget drops what the registry did not take.
func (g *gate) forget(ask challenge, scopes []string, sent string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ask = ask
	for k, t := range g.tokens {
		if "Bearer "+t.value == sent {
			delete(g.tokens, k)
		}
	}
}

// authorize sets the header that the registry wants to see. extra is the scope that an answer named.
func (g *gate) authorize(ctx context.Context, req *http.Request, scopes []string, extra string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ask.scheme == "" {
		return nil
	}
	if g.auth == nil || g.askAgain {
		a, err := g.creds(ctx)
		if err != nil {
			return err
		}
		g.auth = &a
	}
	a := g.auth
	switch {
	case a.RegistryToken != "":
		req.Header.Set("Authorization", "Bearer "+a.RegistryToken)
	case g.ask.scheme == "basic":
		if a.Username != "" || a.Password != "" {
			req.SetBasicAuth(a.Username, a.Password)
		} else if a.Auth != "" {
			req.Header.Set("Authorization", "Basic "+a.Auth)
		}
	case g.ask.scheme == "bearer":
		want := slices.Clone(scopes)
		for s := range strings.FieldsSeq(extra) {
			if !slices.ContainsFunc(want, func(w string) bool { return covers(w, s) }) {
				want = append(want, s)
			}
		}
		key := strings.Join(want, " ")
		t, ok := g.tokens[key]
		if !ok || time.Now().After(t.until) {
			var err error
			if t, err = g.fetch(ctx, want); err != nil {
				return err
			}
			g.tokens[key] = t
		}
		if len(want) > len(scopes) {
			g.tokens[strings.Join(scopes, " ")] = t // the next request need not be refused first
		}
		req.Header.Set("Authorization", "Bearer "+t.value)
	}
	return nil
}

// covers tells whether scope a contains scope b, whatever the order of the actions.
func covers(a, b string) bool {
	ai, bi := strings.LastIndex(a, ":"), strings.LastIndex(b, ":")
	if ai < 0 || bi < 0 || a[:ai] != b[:bi] {
		return a == b
	}
	have := strings.Split(a[ai+1:], ",")
	for _, x := range strings.Split(b[bi+1:], ",") {
		if !slices.Contains(have, x) {
			return false
		}
	}
	return true
}

const (
	maxToken     = 1 << 20
	defaultLife  = 60 * time.Second // of a token that does not say (token authentication, "expires_in")
	tokenClient  = "waybill"
	tokenReserve = 10 // the last tenth of a token's life is not used
)

// fetch gets a token from the registry's token server. It is called with the lock held.
func (g *gate) fetch(ctx context.Context, scopes []string) (token, error) {
	realm, err := g.realm()
	if err != nil {
		return token{}, err
	}
	form := url.Values{}
	if s := g.ask.params["service"]; s != "" {
		form.Set("service", s)
	}
	var req *http.Request
	if a := g.auth; a.IdentityToken != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", a.IdentityToken)
		form.Set("client_id", tokenClient)
		form.Set("scope", strings.Join(scopes, " "))
		if req, err = http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode())); err != nil {
			return token{}, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		q := realm.Query()
		for k, v := range form {
			q[k] = v
		}
		q["scope"] = scopes
		realm.RawQuery = q.Encode()
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil); err != nil {
			return token{}, err
		}
		if a.Username != "" || a.Password != "" {
			req.SetBasicAuth(a.Username, a.Password)
		} else if a.Auth != "" {
			req.Header.Set("Authorization", "Basic "+a.Auth)
		}
	}
	req.Header.Set("User-Agent", g.agent)
	now := time.Now()
	resp, err := (&http.Client{Transport: g.next, CheckRedirect: g.rules.login}).Do(req)
	if err != nil {
		return token{}, fmt.Errorf("token server %s: %w", realm.Host, trimURL(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return token{}, loginError(resp)
	}
	b, err := readAll(io.NopCloser(resp.Body), g.rules.limit(maxToken))
	if err != nil {
		return token{}, fmt.Errorf("token server %s: %w", realm.Host, err)
	}
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal(b, &t); err != nil { // the text may be a token: it is not shown
		return token{}, fmt.Errorf("token server %s: the answer is not JSON", realm.Host)
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	if t.Token == "" {
		return token{}, fmt.Errorf("token server %s: the answer has no token", realm.Host)
	}
	life := defaultLife
	if t.ExpiresIn > 0 {
		life = time.Duration(min(t.ExpiresIn, 1<<20)) * time.Second
	}
	return token{t.Token, now.Add(life - life/tokenReserve)}, nil
}

// realm is the address of the token server, if it may have the credentials.
func (g *gate) realm() (*url.URL, error) {
	u, err := url.Parse(g.ask.params["realm"])
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		return nil, refusedError{fmt.Sprintf("registry %s names no usable token server", g.host)}
	}
	return u, g.rules.realm(g, u)
}

func checkRealm(g *gate, u *url.URL) error {
	if g.base.Scheme == "https" && u.Scheme != "https" {
		return refusedError{fmt.Sprintf("registry %s wants the credentials sent to %s without TLS", g.host, u.Host)}
	}
	if !related(g.base.Hostname(), u.Hostname()) && !slices.ContainsFunc(g.trusts, func(t string) bool {
		return strings.EqualFold(t, u.Host) || strings.EqualFold(t, u.Hostname())
	}) {
		return refusedError{fmt.Sprintf("registry %s wants the credentials sent to %s, which is not under its domain", g.host, u.Host)}
	}
	return nil
}

// related: the token server of registry.example.com is on that host, on example.com or on another host below it, as with
// docker.io, gitlab.com and the clouds. The registry says where it is through a connection that was authenticated, and it
// could ask for the password itself; the rule keeps out what an intruder into one answer would write there.
func related(registry, server string) bool {
	registry, server = strings.ToLower(registry), strings.ToLower(server)
	if registry == server || Loopback(registry) && Loopback(server) {
		return true
	}
	if net.ParseIP(registry) != nil || net.ParseIP(server) != nil {
		return false
	}
	parent := registry
	if strings.Count(registry, ".") >= 2 {
		_, parent, _ = strings.Cut(registry, ".")
	}
	return strings.Contains(parent, ".") && (server == parent || strings.HasSuffix(server, "."+parent))
}

// challengeOf picks what can be answered: a token before a password.
func challengeOf(h http.Header) challenge {
	var found challenge
	for _, v := range h.Values("WWW-Authenticate") {
		for _, c := range parseChallenges(v) {
			if c.scheme == "bearer" || c.scheme == "basic" && found.scheme == "" {
				found = c
			}
		}
	}
	return found
}

// parseChallenges reads one WWW-Authenticate field, which may hold several challenges (RFC 9110, 11.6.1). What it cannot
// read ends the list. Of a parameter that comes twice the first counts.
func parseChallenges(s string) []challenge {
	var out []challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		word, rest := tokenOf(s)
		if word == "" {
			return out
		}
		after := strings.TrimLeft(rest, " \t")
		if v, ok := strings.CutPrefix(after, "="); ok { // a parameter of the last challenge
			if len(out) == 0 {
				return out
			}
			value, rest, ok := valueOf(strings.TrimLeft(v, " \t"))
			if !ok {
				return out
			}
			p := out[len(out)-1].params
			if k := strings.ToLower(word); p[k] == "" {
				p[k] = value
			}
			s = rest
			continue
		}
		out = append(out, challenge{strings.ToLower(word), map[string]string{}})
		s = rest
	}
}

func tokenOf(s string) (word, rest string) {
	i := 0
	for i < len(s) && (s[i] == '-' || s[i] == '_' || s[i] == '.' || s[i] >= '0' && s[i] <= '9' || s[i] >= 'A' && s[i] <= 'Z' || s[i] >= 'a' && s[i] <= 'z') {
		i++
	}
	return s[:i], s[i:]
}

func valueOf(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = tokenOf(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}
