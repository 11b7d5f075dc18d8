package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry/testca"
)

// thief notes every secret that reaches it.
type thief struct {
	*httptest.Server
	mu    sync.Mutex
	loot  []string
	calls int
}

func newThief(t *testing.T, ca *testca.CA) *thief {
	x := &thief{}
	x.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		x.mu.Lock()
		defer x.mu.Unlock()
		x.calls++
		for _, s := range []string{r.Header.Get("Authorization"), string(b), r.Header.Get("Referer")} {
			if strings.Contains(s, "Basic") || strings.Contains(s, "Bearer") || strings.Contains(s, "refresh") || strings.Contains(s, "secret-state") {
				x.loot = append(x.loot, s)
			}
		}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			x.loot = append(x.loot, "certificate of "+r.TLS.PeerCertificates[0].Subject.CommonName)
		}
		w.Header().Set("Location", "/anywhere")
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"token":"of the thief","tags":[],"name":"ml/churn"}`)
	}))
	if ca != nil {
		x.TLS = ca.ServerConfig(t, false)
		x.TLS.ClientAuth = tls.RequestClientCert
		x.StartTLS()
	} else {
		x.Start()
	}
	t.Cleanup(x.Close)
	return x
}

func (x *thief) stolen() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.loot
}

func (x *thief) asked() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calls
}

// attack is what a registry, or an intruder into one of its answers, does to get a secret to the thief.
type attack struct {
	name     string
	tls      bool                                                                  // the registry has TLS
	thiefTLS bool                                                                  // so has the thief
	identity bool                                                                  // the secret is an identity token
	answer   func(w http.ResponseWriter, r *http.Request, thief, self string) bool // false: go on as usual
	call     func(ctx context.Context, r *Remote) error
	remove   func(r *rules) // the check
	refused  bool           // the call fails, and says so
}

// Secrets go to the registry and nowhere else. Each attack is run against the client as it is, and against one without
// the check that stops it: then the thief must have the secret, or the attack proves nothing.
func TestCredentialsStayHome(t *testing.T) {
	redirect := func(path string) func(w http.ResponseWriter, r *http.Request, thief, _ string) bool {
		return func(w http.ResponseWriter, r *http.Request, thief, _ string) bool {
			if !strings.Contains(r.URL.Path, path) {
				return false
			}
			http.Redirect(w, r, thief+"/blob?x=1", http.StatusTemporaryRedirect)
			return true
		}
	}
	challengeWith := func(format string) func(w http.ResponseWriter, r *http.Request, thief, self string) bool {
		return func(w http.ResponseWriter, r *http.Request, thief, self string) bool {
			if strings.HasPrefix(r.URL.Path, "/token") {
				http.Redirect(w, r, thief+"/token", http.StatusTemporaryRedirect)
				return true
			}
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
				return false
			}
			realm := strings.NewReplacer("THIEF", thief, "SELF", self).Replace(format)
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
	}
	blob := artifact.Descriptor{Digest: artifact.DigestOf([]byte("x")), Size: 1}
	pull := func(ctx context.Context, r *Remote) error {
		rc, err := r.Blob(ctx, blob)
		if err == nil {
			_, err = io.Copy(io.Discard, rc)
			_ = rc.Close()
		}
		return err
	}
	tags := func(ctx context.Context, r *Remote) error { _, err := r.Tags(ctx); return err }
	push := func(ctx context.Context, r *Remote) error {
		_, err := PushBytes(ctx, r, "application/octet-stream", []byte("x"))
		return err
	}
	anyOrigin := func(r *rules) { r.own = func(_, _ *url.URL) bool { return true } }
	anyRealm := func(r *rules) { r.realm = func(*gate, *url.URL) error { return nil } }
	follow := func(r *rules) {
		r.redirect = func(*http.Request, []*http.Request) error { return nil }
		r.login = r.redirect
	}
	location := func(w http.ResponseWriter, r *http.Request, thief, _ string) bool {
		if r.Method != http.MethodPost {
			return false
		}
		w.Header().Set("Location", thief+"/upload?_state=1")
		w.WriteHeader(http.StatusAccepted)
		return true
	}
	for _, a := range []attack{
		{name: "a download is redirected", answer: redirect("/blobs/"), call: pull, remove: anyOrigin},
		{name: "a download is redirected, TLS", tls: true, thiefTLS: true, answer: redirect("/blobs/"), call: pull, remove: anyOrigin},
		{name: "a download is redirected to http", tls: true, answer: redirect("/blobs/"), call: pull, refused: true,
			remove: func(r *rules) { follow(r); anyOrigin(r) }},
		{name: "an upload goes elsewhere", answer: location, call: push, remove: anyOrigin},
		{name: "an upload is redirected", answer: func(w http.ResponseWriter, r *http.Request, thief, self string) bool {
			if r.Method == http.MethodPost {
				return location(w, r, self, self)
			}
			return r.Method == http.MethodPut && redirect("/")(w, r, thief, self)
		}, call: push, remove: anyOrigin},
		{name: "the address of an upload in a referrer", tls: true, thiefTLS: true, call: push,
			answer: func(w http.ResponseWriter, r *http.Request, thief, self string) bool {
				if r.Method == http.MethodPost {
					w.Header().Set("Location", "/session?_state=secret-state")
					w.WriteHeader(http.StatusAccepted)
					return true
				}
				return r.Method == http.MethodPut && redirect("/")(w, r, thief, self)
			}, remove: follow},
		{name: "the next page is elsewhere", call: tags, refused: true, remove: anyOrigin,
			answer: func(w http.ResponseWriter, r *http.Request, thief, _ string) bool {
				if !strings.Contains(r.URL.Path, "/tags/") {
					return false
				}
				w.Header().Set("Link", `<`+thief+`/v2/ml/churn/tags/list?n=1>; rel="next"`)
				_, _ = io.WriteString(w, `{"name":"ml/churn","tags":["1"]}`)
				return true
			}},
		{name: "the token server is elsewhere", tls: true, thiefTLS: true, answer: challengeWith("THIEF/token"), call: pull, refused: true, remove: anyRealm},
		{name: "the token server has no TLS", tls: true, answer: challengeWith("THIEF/token"), call: pull, refused: true, remove: anyRealm},
		{name: "the token server redirects", tls: true, thiefTLS: true, answer: challengeWith("SELF/token"), call: pull, refused: true, identity: true, remove: follow},
		{name: "the token server redirects to http", tls: true, answer: challengeWith("SELF/token"), call: pull, refused: true, identity: true, remove: follow},
	} {
		t.Run(a.name, func(t *testing.T) {
			for _, careless := range []bool{false, true} {
				loot, asked, err := a.run(t, careless)
				switch {
				case careless && len(loot) == 0:
					t.Errorf("without the check the thief gets nothing either (%d requests, %v): the attack proves nothing", asked, err)
				case !careless && len(loot) > 0:
					t.Errorf("the thief has %q", loot)
				case !careless && a.refused && (err == nil || diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "refused")):
					t.Errorf("no word about it: %v", err)
				}
			}
		})
	}
}

func (a attack) run(t *testing.T, careless bool) (loot []string, asked int, err error) {
	ca := testca.New(t)
	thiefCA := ca
	if !a.thiefTLS {
		thiefCA = nil
	}
	x := newThief(t, thiefCA)
	_, thiefPort, _ := net.SplitHostPort(x.Listener.Addr().String())
	thiefURL := "http://thief.test:" + thiefPort
	if a.thiefTLS {
		thiefURL = "https://thief.test:" + thiefPort
	}
	var self string
	reg := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.answer(w, r, thiefURL, self) {
			return
		}
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case http.MethodPut:
			w.WriteHeader(http.StatusCreated)
		}
	}))
	if a.tls {
		reg.TLS = ca.ServerConfig(t, false)
		reg.StartTLS()
	} else {
		reg.Start()
	}
	defer reg.Close()
	_, port, _ := net.SplitHostPort(reg.Listener.Addr().String())
	host := "registry.example:" + port
	self = "http://" + host
	if a.tls {
		self = "https://" + host
	}
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool()},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { // every name is this machine
			_, p, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+p)
		},
	}
	defer tr.CloseIdleConnections()
	o := RemoteOptions{
		PlainHTTP: true, Transport: tr, Retry: RetryPolicy{Attempts: 1, MaxWait: time.Second},
		Keychain: Credentials{Host: host, Username: "robot", Password: "secret"},
	}
	if a.identity {
		o.Keychain = identity{}
	}
	r, err := NewRemote(host, "ml/churn", o)
	if err != nil {
		t.Fatal(err)
	}
	if careless {
		a.remove(&r.gate.rules)
		r.http = r.gate.client()
	}
	err = a.call(t.Context(), r)
	return x.stolen(), x.asked(), err
}

type identity struct{}

func (identity) Login(context.Context, string, string) (Login, error) {
	return Login{IdentityToken: "refresh of robot"}, nil
}

// The certificate of a client names its owner: only the registry sees it.
func TestClientCertificateStaysHome(t *testing.T) {
	for _, careless := range []bool{false, true} {
		ca := testca.New(t)
		x := newThief(t, ca)
		reg := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, x.URL+"/blob", http.StatusTemporaryRedirect)
			}
		}))
		reg.TLS = ca.ServerConfig(t, true)
		reg.StartTLS()
		defer reg.Close()
		host := strings.TrimPrefix(reg.URL, "https://")
		cert, key := ca.Client()
		tr, err := TLSOptions{CAFile: ca.File, CertFile: cert, KeyFile: key}.transport(host, 0)
		if err != nil {
			t.Fatal(err)
		}
		if i := tr.(*introducer); careless {
			i.others = i.own
		}
		r, err := NewRemote(host, "ml/churn", RemoteOptions{Transport: tr, Keychain: Credentials{}, Retry: RetryPolicy{Attempts: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if rc, err := r.Blob(t.Context(), artifact.Descriptor{Digest: artifact.DigestOf([]byte("x")), Size: 1}); err == nil {
			_, _ = io.Copy(io.Discard, rc)
			_ = rc.Close()
		}
		if x.asked() == 0 || (len(x.stolen()) > 0) != careless {
			t.Errorf("careless %v: %d requests, %q", careless, x.asked(), x.stolen())
		}
	}
}

// Without the client's certificate, the authority, or the right host, a registry with mutual TLS is out of reach, and the
// message says why.
func TestTLS(t *testing.T) {
	ca := testca.New(t)
	reg := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{"tags":["1"]}`) }))
	reg.TLS = ca.ServerConfig(t, true)
	reg.StartTLS()
	defer reg.Close()
	host := strings.TrimPrefix(reg.URL, "https://")
	cert, key := ca.Client()
	for _, c := range []struct {
		name string
		o    TLSOptions
		want string // of the error; "": none
	}{
		{"both", TLSOptions{CAFile: ca.File, CertFile: cert, KeyFile: key}, ""},
		{"docker's folder", TLSOptions{Dirs: []string{t.TempDir(), ca.CertsDir(t, host)}}, ""},
		{"no authority", TLSOptions{CertFile: cert, KeyFile: key}, "--ca-file"},
		{"another authority", TLSOptions{CAFile: testca.New(t).File, CertFile: cert, KeyFile: key}, "--ca-file"},
		{"no certificate", TLSOptions{CAFile: ca.File}, "certificate required"},
		{"a key alone", TLSOptions{CAFile: ca.File, KeyFile: key}, "no certificate"},
		{"a file that is none", TLSOptions{CAFile: key, CertFile: cert, KeyFile: key}, "no certificate in PEM form"},
		{"a file that is not there", TLSOptions{CAFile: ca.File + ".no"}, "certificate authority"},
	} {
		r, err := NewRemote(host, "ml/churn", RemoteOptions{TLS: c.o, Keychain: Credentials{}, Retry: RetryPolicy{Attempts: 1}})
		if err == nil {
			_, err = r.Tags(t.Context())
		}
		if c.want == "" && err != nil || c.want != "" && !strings.Contains(fmt.Sprint(diag.Render(err)), c.want) {
			t.Errorf("%s: %s", c.name, diag.Render(err))
		}
	}
}

func TestParseChallenges(t *testing.T) {
	for in, want := range map[string][]challenge{
		`Basic realm="x"`: {{"basic", map[string]string{"realm": "x"}}},
		`Bearer realm="https://a/t",service="s, \"q\"",scope="repository:a/b:pull,push"`: {{"bearer", map[string]string{"realm": "https://a/t", "service": `s, "q"`, "scope": "repository:a/b:pull,push"}}},
		`Negotiate, Basic realm=x , Bearer Realm = "y"`:                                  {{"negotiate", map[string]string{}}, {"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y"}}},
		`Bearer realm="a",realm="b"`:                                                     {{"bearer", map[string]string{"realm": "a"}}},
		`Bearer realm="never ends`:                                                       {{"bearer", map[string]string{}}},
		`realm="x"`:                                                                      nil,
		``:                                                                               nil,
	} {
		if got := parseChallenges(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{`Basic realm="x"`, `Bearer realm="https://a/t",scope="repository:a/b:pull,push"`, `a b=c, "`, `Bearer realm="\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges(s) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || c.params == nil {
				t.Fatalf("%q: %v", s, c)
			}
		}
	})
}

func TestRelated(t *testing.T) {
	for _, c := range []struct {
		registry, server string
		want             bool
	}{
		{"index.docker.io", "auth.docker.io", true}, {"registry.gitlab.com", "gitlab.com", true}, {"ghcr.io", "ghcr.io", true},
		{"registry.example.com", "auth.example.com", true}, {"localhost", "127.0.0.1", true}, {"ghcr.io", "auth.ghcr.io", true},
		{"registry.example.com", "example.org", false}, {"registry.example.com", "badexample.com", false}, {"ghcr.io", "evil.io", false},
		{"registry.example.com", "127.0.0.1", false}, {"10.0.0.1", "10.0.0.2", false}, {"registry", "other", false}, {"ghcr.io", "io", false},
	} {
		if related(c.registry, c.server) != c.want {
			t.Errorf("registry %s, token server %s: want %v", c.registry, c.server, c.want)
		}
	}
}
