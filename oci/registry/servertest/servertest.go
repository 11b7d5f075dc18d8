// Package servertest starts registries for tests, on loopback: the embedded one, Debian's docker-registry 2.8 and CNCF
// distribution v3, each open, behind a password, behind a token server, and with a certificate of its own authority.
package servertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/registry/testca"
	"github.com/waybill-ml/waybill/oci/server"
)

// Kind is a registry.
type Kind string

// Kinds. The last two are other people's programs: a test that wants one skips where it is not installed, unless
// WAYBILL_REQUIRE_TOOLS is set.
const (
	Embedded       Kind = "embedded"
	DockerRegistry Kind = "docker-registry" // 2.8: no referrers API, and an upload broken inside a chunk is lost
	Distribution   Kind = "distribution"    // v3: no referrers API either, but resumes uploads at any byte
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{Embedded, DockerRegistry, Distribution} }

// Auth is how a registry asks who is there.
type Auth string

// Ways of asking.
const (
	Open  Auth = "open"
	Basic Auth = "basic"
	Token Auth = "token"
)

// The only user that the registries here know.
const (
	User     = "robot"
	Password = "correct horse"
	// htpasswd is that user with a bcrypt hash of that password.
	htpasswd = User + ":$2a$04$4DITmb6JM2/CVR0JoOJvuep/Biaxw/OdMtPq1mJNEl3q0QpFl9pNe\n"
)

// Options choose what Start starts.
type Options struct {
	Kind      Kind
	Auth      Auth // "": Open
	TLS       bool
	ClientTLS bool                            // with TLS: ask for a certificate of the client
	Wrap      func(http.Handler) http.Handler // around the embedded registry, inside of authentication; may be nil
}

func (o Options) String() string {
	s := string(o.Kind) + "-" + string(o.Auth)
	if o.TLS {
		s += "-tls"
	}
	if o.ClientTLS {
		s += "-mutual"
	}
	return s
}

// Server is a running registry. It ends with the test.
type Server struct {
	Options
	Host   string       // 127.0.0.1:port
	Root   string       // where it keeps its data
	CA     *testca.CA   // nil without TLS
	Tokens *TokenServer // nil unless Auth is Token
}

// start limits how long a registry may take to answer, on a machine that has other work.
const start = 2 * time.Minute

// Start runs a registry until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Auth == "" {
		o.Auth = Open
	}
	s := &Server{Options: o, Root: t.TempDir()}
	if o.TLS {
		s.CA = testca.New(t)
	}
	if o.Auth == Token {
		s.Tokens = NewTokenServer(t, s.CA)
	}
	if o.Kind == Embedded {
		s.embedded(t)
	} else {
		s.program(t)
	}
	return s
}

// URL is the address of path on the server.
func (s *Server) URL(path string) string {
	if s.TLS {
		return "https://" + s.Host + path
	}
	return "http://" + s.Host + path
}

// Transport makes a transport that trusts the server, and shows a client certificate where it wants one.
func (s *Server) Transport(t testing.TB) *http.Transport {
	t.Helper()
	tr := &http.Transport{}
	if s.CA != nil {
		tr.TLSClientConfig = &tls.Config{RootCAs: s.CA.Pool()}
		if s.ClientTLS {
			c, err := tls.LoadX509KeyPair(s.CA.Client())
			if err != nil {
				t.Fatal(err)
			}
			tr.TLSClientConfig.Certificates = []tls.Certificate{c}
		}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func (s *Server) embedded(t testing.TB) {
	reg, err := server.New(s.Root, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = reg
	if s.Wrap != nil {
		h = s.Wrap(h)
	}
	switch s.Auth {
	case Basic:
		h = basicAuth(h)
	case Token:
		h = s.Tokens.guard(h)
	}
	hs := httptest.NewUnstartedServer(h)
	if s.TLS {
		hs.TLS = s.CA.ServerConfig(t, s.ClientTLS)
		hs.StartTLS()
	} else {
		hs.Start()
	}
	s.Host = hs.Listener.Addr().String()
	t.Cleanup(func() { hs.Close(); reg.Close() })
}

func basicAuth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != User || p != Password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// binary finds the program of a kind, or ends the test.
func binary(t testing.TB, k Kind) string {
	t.Helper()
	name, want := "docker-registry", "docker/distribution"
	if k == Distribution {
		name, want = "registry", "distribution/v3"
	}
	missing := t.Skipf
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
		missing = t.Fatalf
	}
	path, err := exec.LookPath(name)
	if err != nil {
		missing("%s is not installed", name)
	}
	out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		missing("%s is not the %s registry: %s", path, k, bytes.TrimSpace(out))
	}
	return path
}

// program runs a registry as a process. It takes its port from its configuration, so a free one is looked for first,
// and another one when somebody else was faster.
func (s *Server) program(t testing.TB) {
	t.Helper()
	path := binary(t, s.Kind)
	dir := t.TempDir()
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails, by its contract
	for attempt := 1; ; attempt++ {
		s.Host = freePort(t)
		config := filepath.Join(dir, "config.yml")
		if err := os.WriteFile(config, []byte(s.config(t, dir, hex.EncodeToString(nonce[:]))), 0o600); err != nil {
			t.Fatal(err)
		}
		log := &bytes.Buffer{}
		cmd := exec.Command(path, "serve", config)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		if err := s.await(t, hex.EncodeToString(nonce[:]), ended); err == nil {
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				<-ended
				if t.Failed() {
					t.Logf("%s said:\n%s", s.Kind, tail(log.String()))
				}
			})
			return
		} else if _ = cmd.Process.Kill(); attempt == 5 {
			<-ended
			t.Fatalf("%s does not start: %v\n%s", s.Kind, err, tail(log.String()))
		}
		<-ended
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await asks until this very registry answers: its configuration makes it send the nonce.
func (s *Server) await(t testing.TB, nonce string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(t.Context(), start)
	defer cancel()
	c := &http.Client{Transport: s.Transport(t)}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL("/v2/"), nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.Header.Get("Servertest") == nonce {
				return nil
			}
			err = errors.New("another program answers")
		}
		pause := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ended:
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return err
		case <-pause.C:
		}
	}
}

// config is in the form that both programs read. Paths are written with %q, which YAML reads as Go does.
func (s *Server) config(t testing.TB, dir, nonce string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n")
	fmt.Fprintf(&b, "storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\n", s.Root)
	fmt.Fprintf(&b, "http:\n  addr: %q\n  secret: of-this-test\n  headers: {Servertest: [%q]}\n", s.Host, nonce)
	if s.TLS {
		cert, key := s.CA.Server()
		fmt.Fprintf(&b, "  tls:\n    certificate: %q\n    key: %q\n", cert, key)
		if s.ClientTLS {
			fmt.Fprintf(&b, "    clientcas: [%q]\n", s.CA.File)
		}
	}
	switch s.Auth {
	case Basic:
		p := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(p, []byte(htpasswd), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "auth: {htpasswd: {realm: test, path: %q}}\n", p)
	case Token:
		fmt.Fprintf(&b, "auth: {token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %q}}\n",
			s.Tokens.URL, service, issuer, s.Tokens.certFile)
	}
	return b.String()
}
