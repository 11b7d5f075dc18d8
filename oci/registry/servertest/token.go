package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/registry/testca"
)

const (
	issuer  = "token server of the test"
	service = "registry of the test"
	// RefreshToken is what the token server takes in place of the password (an identity token of docker's config).
	RefreshToken = "refresh of robot"
)

// TokenServer gives tokens as the distribution project's token authentication describes: for the password by GET, for
// the refresh token by POST. Everybody who is known gets what they ask for; without a name nothing.
type TokenServer struct {
	URL      string
	certFile string
	key      *ecdsa.PrivateKey
	cert     []byte

	mu     sync.Mutex
	scopes []string           // asked for, in order
	life   time.Duration      // of a token
	given  map[string]granted // to the embedded registry, which has no other way to read a token
}

type granted struct {
	access []access
	until  time.Time
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// NewTokenServer starts a token server, with a certificate of ca unless that is nil.
func NewTokenServer(t testing.TB, ca *testca.CA) *TokenServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &TokenServer{key: key, given: map[string]granted{}, life: time.Hour}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: issuer}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if s.cert, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, s.key.Public(), s.key); err != nil {
		t.Fatal(err)
	}
	s.certFile = filepath.Join(t.TempDir(), "token.pem")
	if err := os.WriteFile(s.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert}), 0o600); err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewUnstartedServer(s)
	if ca != nil {
		hs.TLS = ca.ServerConfig(t, false)
		hs.StartTLS()
	} else {
		hs.Start()
	}
	s.URL = hs.URL + "/token"
	t.Cleanup(hs.Close)
	return s
}

// SetLife makes the tokens given from now on live for d.
func (s *TokenServer) SetLife(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = d
}

// Scopes lists what was asked for so far.
func (s *TokenServer) Scopes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.scopes)
}

func (s *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	u, p, _ := r.BasicAuth()
	known := r.Method == http.MethodGet && u == User && p == Password ||
		r.Method == http.MethodPost && r.PostForm.Get("grant_type") == "refresh_token" && r.PostForm.Get("refresh_token") == RefreshToken
	if !known || r.Form.Get("service") != service {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var as []access
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, scope := range strings.Fields(strings.Join(r.Form["scope"], " ")) {
		s.scopes = append(s.scopes, scope)
		if f := strings.Split(scope, ":"); len(f) == 3 {
			as = append(as, access{f[0], f[1], strings.Split(f[2], ",")})
		}
	}
	now := time.Now()
	token := s.sign(map[string]any{
		"iss": issuer, "sub": User, "aud": service, "iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(),
		"exp": now.Add(s.life).Unix(), "jti": now.Format(time.RFC3339Nano), "access": as,
	})
	s.given[token] = granted{as, now.Add(s.life)}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": int(s.life.Seconds())})
}

// sign makes a JSON web token (RFC 7519) with ES256 and the certificate in its header.
func (s *TokenServer) sign(claims map[string]any) string {
	enc := func(v any) string {
		b, _ := json.Marshal(v) // of maps and strings
		return base64.RawURLEncoding.EncodeToString(b)
	}
	head := map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.cert)}}
	text := enc(head) + "." + enc(claims)
	sum := sha256.Sum256([]byte(text))
	r, x, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return ""
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	x.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// guard stands before the embedded registry.
func (s *TokenServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		repo, action := needs(r)
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		g, ok := s.given[token]
		s.mu.Unlock()
		if ok && time.Now().Before(g.until) && (repo == "" || slices.ContainsFunc(g.access, func(a access) bool {
			return a.Name == repo && slices.Contains(a.Actions, action)
		})) {
			next.ServeHTTP(w, r)
			return
		}
		c := `Bearer realm="` + s.URL + `",service="` + service + `"`
		if repo != "" {
			scope := action
			if action == "push" {
				scope = "pull,push"
			}
			c += `,scope="repository:` + repo + `:` + scope + `"`
		}
		w.Header().Set("WWW-Authenticate", c)
		w.WriteHeader(http.StatusUnauthorized)
	})
}

func needs(r *http.Request) (repo, action string) {
	rest, _ := strings.CutPrefix(r.URL.Path, "/v2/")
	for _, k := range []string{"/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		if i := strings.Index(rest, k); i >= 0 {
			repo = rest[:i]
			break
		}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return repo, "pull"
	}
	return repo, "push"
}
