package cli_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
	"github.com/waybill-ml/waybill/oci/registry/testca"
)

// caller runs the program as a process of its own, with nothing of the user's: the flags of access have variables, and
// what reads the environment (proxies, credential helpers) reads the process's.
type caller struct {
	dir string
	env []string
}

// newCaller packs tiny:1.0.0 into a fresh store.
func newCaller(t *testing.T) *caller {
	t.Helper()
	dir := t.TempDir()
	c := &caller{dir: dir, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "USERPROFILE=" + dir, "TMPDIR=" + dir, "TMP=" + dir, "SystemRoot=" + os.Getenv("SystemRoot"),
		"WAYBILL_HOME=" + filepath.Join(dir, "home"), "DOCKER_CONFIG=" + filepath.Join(dir, "docker"),
	}}
	bundle, err := filepath.Abs("../../packager/build/testdata/bundle/gguf")
	if err != nil {
		t.Fatal(err)
	}
	if code, out := c.run(t, nil, "", "pack", bundle); code != 0 {
		t.Fatalf("pack: exit code %d\n%s", code, out)
	}
	return c
}

// run gives the exit code and everything that was said.
func (c *caller) run(t *testing.T, env []string, stdin string, args ...string) (int, string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	x := exec.CommandContext(ctx, "waybill", args...)
	x.Dir, x.Env, x.Stdin = c.dir, append(slices.Clone(c.env), env...), strings.NewReader(stdin)
	var out bytes.Buffer
	x.Stdout, x.Stderr = &out, &out
	err := x.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("waybill %s: %v", strings.Join(args, " "), err)
	}
	return x.ProcessState.ExitCode(), out.String()
}

// accessCase is one push; {host} in its words stands for the registry's address.
type accessCase struct {
	name  string
	env   []string
	stdin string
	flags string
	code  int
	say   []string // in what was said
}

func (c *caller) check(t *testing.T, host string, cases []accessCase) {
	t.Helper()
	for i, x := range cases {
		var env []string
		for _, e := range x.env {
			env = append(env, strings.ReplaceAll(e, "{host}", host))
		}
		// A repository of its own, so that each has something to send.
		args := append([]string{"push", "tiny:1.0.0", fmt.Sprintf("%s/team/tiny%d:1", host, i)}, strings.Fields(strings.ReplaceAll(x.flags, "{host}", host))...)
		code, out := c.run(t, env, x.stdin, args...)
		if code != x.code {
			t.Errorf("%s: exit code %d, want %d\n%s", x.name, code, x.code, out)
		}
		for _, s := range x.say {
			if s = strings.ReplaceAll(s, "{host}", host); !strings.Contains(out, s) {
				t.Errorf("%s: does not say %q\n%s", x.name, s, out)
			}
		}
		for _, secret := range []string{servertest.Password, servertest.RefreshToken, "not the password"} {
			if strings.Contains(out, secret) {
				t.Errorf("%s: shows the secret %q\n%s", x.name, secret, out)
			}
		}
	}
}

func (c *caller) file(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// credentialHelper is the program docker-credential-waybilltest: it knows the one user of the registries of the tests, by
// password, or, when HELPER_IDENTITY is set, by an identity token (the protocol of docker-credential-helpers).
func credentialHelper() {
	host, err := io.ReadAll(os.Stdin)
	if err != nil || len(os.Args) != 2 || os.Args[1] != "get" || string(bytes.TrimSpace(host)) != os.Getenv("HELPER_KNOWS") {
		fmt.Println("credentials not found in native keychain")
		os.Exit(1)
	}
	answer := map[string]string{"ServerURL": string(host), "Username": servertest.User, "Secret": servertest.Password}
	if os.Getenv("HELPER_IDENTITY") != "" {
		answer["Username"], answer["Secret"] = "<token>", servertest.RefreshToken
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		os.Exit(1)
	}
}

// Every way to say who is there: flags, variables, files of docker and podman, a credential helper; and what is said when
// it is wrong.
func TestAccessCredentials(t *testing.T) {
	once.Skip(t)
	c := newCaller(t)
	for _, auth := range []servertest.Auth{servertest.Basic, servertest.Token} {
		t.Run(string(auth), func(t *testing.T) {
			s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded, Auth: auth})
			login := base64.StdEncoding.EncodeToString([]byte(servertest.User + ":" + servertest.Password))
			auths := c.file(t, "auth-"+string(auth)+".json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.Host, login))
			wrong := c.file(t, "wrong-"+string(auth)+".json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.Host, base64.StdEncoding.EncodeToString([]byte("robot:not the password"))))
			config := c.file(t, "config-"+string(auth)+"/config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.Host, login))
			helper := c.file(t, "helper-"+string(auth)+"/config.json", fmt.Sprintf(`{"credHelpers":{%q:"waybilltest"}}`, s.Host))
			store := c.file(t, "store-"+string(auth)+"/config.json", `{"credsStore":"waybilltest"}`)
			absent := c.file(t, "absent-"+string(auth)+"/config.json", fmt.Sprintf(`{"credHelpers":{%q:"waybill-that-is-not-there"}}`, s.Host))
			hint := []string{"access refused", "hint: docker login {host}"}
			user, password := "WAYBILL_REGISTRY_USERNAME="+servertest.User, "WAYBILL_REGISTRY_PASSWORD="+servertest.Password
			cases := []accessCase{
				{name: "nobody", code: 6, say: hint},
				{name: "stdin", flags: "--username robot --password-stdin", stdin: servertest.Password + "\n"},
				{name: "stdin, as Windows ends lines", flags: "--username robot --password-stdin", stdin: servertest.Password + "\r\n"},
				{name: "wrong password", flags: "--username robot --password-stdin", stdin: "not the password\n", code: 6, say: hint},
				{name: "wrong user", flags: "--username nobody --password-stdin", stdin: servertest.Password, code: 6, say: hint},
				{name: "no password on stdin", flags: "--username robot --password-stdin", code: 2, say: []string{"nothing came on stdin"}},
				{name: "too much on stdin", flags: "--username robot --password-stdin", stdin: strings.Repeat("x", 64<<10+1), code: 2, say: []string{"at most 65536 bytes"}},
				{name: "no user", flags: "--password-stdin", stdin: servertest.Password, code: 2, say: []string{"--password-stdin needs --username"}},
				{name: "no password", flags: "--username robot", code: 2, say: []string{"hint: waybill push --username robot --password-stdin"}},
				{name: "variables", env: []string{user, password}},
				{name: "variables, wrong", env: []string{user, "WAYBILL_REGISTRY_PASSWORD=not the password"}, code: 6, say: hint},
				{name: "flag before variable", flags: "--username nobody", env: []string{user, password}, code: 6, say: hint},
				{name: "credentials of another registry", env: []string{user, password, "WAYBILL_REGISTRY_HOST=registry.example"}, code: 6, say: hint},
				{name: "another registry's by name, this one's by file", flags: "--username nobody --registry-host registry.example", env: []string{password, "DOCKER_CONFIG=" + filepath.Dir(config)}},
				{name: "docker's auths", env: []string{"DOCKER_CONFIG=" + filepath.Dir(config)}},
				{name: "helper", env: []string{"DOCKER_CONFIG=" + filepath.Dir(helper), "HELPER_KNOWS={host}"}},
				{name: "helper of all registries", env: []string{"DOCKER_CONFIG=" + filepath.Dir(store), "HELPER_KNOWS={host}"}},
				{name: "helper that knows nothing", env: []string{"DOCKER_CONFIG=" + filepath.Dir(helper)}, code: 6, say: hint},
				{name: "helper that is not there", env: []string{"DOCKER_CONFIG=" + filepath.Dir(absent)}, code: 6, say: []string{"credential helper", "waybill-that-is-not-there"}},
				{name: "REGISTRY_AUTH_FILE", env: []string{"REGISTRY_AUTH_FILE=" + auths}},
				{name: "REGISTRY_AUTH_FILE before docker's", env: []string{"REGISTRY_AUTH_FILE=" + wrong, "DOCKER_CONFIG=" + filepath.Dir(config)}, code: 6, say: hint},
				{name: "variables before REGISTRY_AUTH_FILE", env: []string{"REGISTRY_AUTH_FILE=" + wrong, user, password}},
				{name: "REGISTRY_AUTH_FILE that is no JSON", env: []string{"REGISTRY_AUTH_FILE=" + c.file(t, "broken.json", "{")}, code: 6, say: []string{"read the credentials in", "broken.json"}},
			}
			if auth == servertest.Token {
				cases = append(cases,
					accessCase{name: "identity token of a helper", env: []string{"DOCKER_CONFIG=" + filepath.Dir(helper), "HELPER_KNOWS={host}", "HELPER_IDENTITY=1"}},
					accessCase{name: "token", env: []string{"WAYBILL_REGISTRY_TOKEN=" + tokenFor(t, s, fmt.Sprintf("team/tiny%d", len(cases)+1))}},
					accessCase{name: "token of another repository", env: []string{"WAYBILL_REGISTRY_TOKEN=" + tokenFor(t, s, "team/other")}, code: 6, say: hint},
				)
			}
			c.check(t, s.Host, cases)
		})
	}
}

// tokenFor asks the token server, as the registry's challenge says, for a token that may push to repo.
func tokenFor(t *testing.T, s *servertest.Server, repo string) string {
	t.Helper()
	get := func(u, user, password string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := (&http.Client{Transport: s.Transport(t)}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	challenge := get(s.URL("/v2/"), "", "").Header.Get("WWW-Authenticate")
	service := regexp.MustCompile(`service="([^"]*)"`).FindStringSubmatch(challenge)
	if service == nil {
		t.Fatalf("challenge %q", challenge)
	}
	q := url.Values{"service": {service[1]}, "scope": {"repository:" + repo + ":pull,push"}}
	var answer struct{ Token string }
	if err := json.NewDecoder(get(s.Tokens.URL+"?"+q.Encode(), servertest.User, servertest.Password).Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatal(answer, err)
	}
	return answer.Token
}

// A private authority and a certificate of the client, by flags, by variables and in docker's folders.
func TestAccessCertificates(t *testing.T) {
	once.Skip(t)
	c := newCaller(t)
	for _, mutual := range []bool{false, true} {
		t.Run(fmt.Sprintf("mutual=%v", mutual), func(t *testing.T) {
			s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded, TLS: true, ClientTLS: mutual})
			cert, key := s.CA.Client()
			without, say := 0, []string(nil)
			if mutual {
				without, say = 6, []string{"cannot reach registry {host}"} // the alert that says why may be lost with the connection
			}
			ca := "WAYBILL_CA_FILE=" + s.CA.File
			c.check(t, s.Host, []accessCase{
				{name: "nothing", code: 6, say: []string{"certificate is not believed", "--ca-file", "hint: openssl s_client -connect {host}"}},
				{name: "authority", flags: "--ca-file " + s.CA.File, code: without, say: say},
				{name: "another authority", flags: "--ca-file " + testca.New(t).File, code: 6, say: []string{"certificate is not believed"}},
				{name: "plain http does not make up for it", flags: "--plain-http", code: 6, say: []string{"certificate is not believed"}},
				{name: "certificate", flags: "--ca-file " + s.CA.File + " --client-cert " + cert + " --client-key " + key},
				{name: "variables", env: []string{ca, "WAYBILL_CLIENT_CERT=" + cert, "WAYBILL_CLIENT_KEY=" + key}},
				{name: "key alone", env: []string{ca}, flags: "--client-key " + key, code: 2, say: []string{"no certificate"}},
				{name: "certificate without its key", env: []string{ca}, flags: "--client-cert " + cert, code: 2, say: []string{"client certificate"}},
				{name: "an authority that is none", flags: "--ca-file " + key, code: 2, say: []string{"no certificate in PEM form"}},
				{name: "an authority that is not there", flags: "--ca-file " + s.CA.File + ".no", code: 2, say: []string{"ca.pem.no"}},
			})
			if runtime.GOOS == "windows" {
				return // a folder's name has no colon there
			}
			config := t.TempDir()
			if err := os.CopyFS(filepath.Join(config, "docker", "certs.d"), os.DirFS(s.CA.CertsDir(t, s.Host))); err != nil {
				t.Fatal(err)
			}
			c.check(t, s.Host, []accessCase{{name: "docker's folder", env: []string{"XDG_CONFIG_HOME=" + config}}})
		})
	}
}

// webProxy is an HTTP proxy that brings every name to one server.
type webProxy struct {
	*httptest.Server
	target  string
	tunnels bool // CONNECT is allowed

	mu   sync.Mutex
	seen []string // method and host of each request
}

func newWebProxy(t *testing.T, target string, tunnels bool) *webProxy {
	t.Helper()
	p := &webProxy{target: target, tunnels: tunnels}
	plain := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Host = target }}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+r.Host)
		p.mu.Unlock()
		switch {
		case r.Method != http.MethodConnect:
			plain.ServeHTTP(w, r)
		case !p.tunnels:
			w.WriteHeader(http.StatusForbidden)
		default:
			p.tunnel(w)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *webProxy) tunnel(w http.ResponseWriter) {
	there, err := net.Dial("tcp", p.target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(there, buffered)
		_ = there.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(here, there)
	_ = here.Close()
	<-done
}

// since forgets and returns what was asked for.
func (p *webProxy) since() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen
	p.seen = nil
	return s
}

// Proxies come from the environment, and this machine is never asked through one. Plain http to another machine needs the
// flag: without it no request leaves, though the proxy would bring it.
func TestAccessProxy(t *testing.T) {
	c := newCaller(t)
	count := func(seen []string, method string) (n int) {
		for _, s := range seen {
			if strings.HasPrefix(s, method+" registry.example:5000") {
				n++
			}
		}
		return n
	}
	const name = "registry.example:5000"
	// The embedded registry answers to names of this machine only.
	renamed := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Host = "127.0.0.1"
			next.ServeHTTP(w, r)
		})
	}

	t.Run("plain", func(t *testing.T) {
		s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded, Wrap: renamed})
		p := newWebProxy(t, s.Host, false)
		env := []string{"HTTP_PROXY=" + p.URL, "HTTPS_PROXY=" + p.URL}
		c.check(t, name, []accessCase{{name: "without the flag", env: env, code: 6, say: []string{"cannot reach registry {host}", "hint: curl -sSf https://{host}/v2/"}}})
		if seen := p.since(); count(seen, "CONNECT") == 0 || count(seen, "CONNECT") != len(seen) {
			t.Errorf("without --plain-http: %q", seen)
		}
		c.check(t, name, []accessCase{{name: "with the flag", env: env, flags: "--plain-http"}})
		if seen := p.since(); count(seen, "GET") == 0 || count(seen, "PUT") == 0 {
			t.Errorf("with --plain-http: %q", seen)
		}
		c.check(t, name, []accessCase{{name: "with the variable", env: append(env, "WAYBILL_PLAIN_HTTP=true"), flags: "--no-evidence"}})
		if seen := p.since(); count(seen, "GET") == 0 {
			t.Errorf("with WAYBILL_PLAIN_HTTP: %q", seen)
		}
		c.check(t, s.Host, []accessCase{{name: "loopback", env: env}})
		if seen := p.since(); len(seen) != 0 {
			t.Errorf("loopback through the proxy: %q", seen)
		}
	})
	t.Run("tls", func(t *testing.T) {
		s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded, TLS: true, Wrap: renamed})
		p := newWebProxy(t, s.Host, true)
		env := []string{"HTTPS_PROXY=" + p.URL, "WAYBILL_CA_FILE=" + s.CA.File}
		c.check(t, name, []accessCase{{name: "tunnel", env: env}})
		if seen := p.since(); count(seen, "CONNECT") == 0 || count(seen, "CONNECT") != len(seen) {
			t.Errorf("not by a tunnel: %q", seen)
		}
		c.check(t, s.Host, []accessCase{{name: "loopback", env: env}})
		if seen := p.since(); len(seen) != 0 {
			t.Errorf("loopback through the proxy: %q", seen)
		}
		p = newWebProxy(t, s.Host, false)
		c.check(t, name, []accessCase{{name: "the proxy refuses", env: []string{"HTTPS_PROXY=" + p.URL}, code: 6, say: []string{"cannot reach registry {host}", "Forbidden"}}})
	})
}
