package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/enroll"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/fleet"
)

// closedRegistry is a registry that wants a password, in front of a publisher's, and can be made to misbehave.
type closedRegistry struct {
	host string

	mu       sync.Mutex
	password string
	answer   http.HandlerFunc // instead of the registry; nil: the registry
	seen     int              // requests with a password
}

const deviceUser = "device"

func closeRegistry(t *testing.T, p *edgetest.Publisher, password string) *closedRegistry {
	t.Helper()
	g := &closedRegistry{password: password}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: p.Host})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		answer, want := g.answer, g.password
		u, pw, given := r.BasicAuth()
		if given {
			g.seen++
		}
		g.mu.Unlock()
		switch {
		case answer != nil && given:
			answer(w, r)
		case u != deviceUser || pw != want:
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "UNAUTHORIZED", "message": "not " + r.Header.Get("Authorization") + " nor " + pw}}})
		default:
			to.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.Close)
	g.host = strings.TrimPrefix(h.URL, "http://")
	return g
}

func (g *closedRegistry) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// provision writes a provisioning file for the closedRegistry registry and gives its path.
func (g *closedRegistry) provision(t *testing.T, p *edgetest.Publisher, dir string, edit func(*config.Provisioning)) string {
	t.Helper()
	ref := p.TrustRef()
	prov := config.Provisioning{
		Schema: config.SchemaProvisioning, Class: "edge-s", Listen: "127.0.0.1:0",
		Trust: config.ProvisionedTrust{Bundle: p.Trust(), Version: ref.Version, Digest: ref.Digest},
		Channels: []config.Channel{{
			Name: "prod", Env: "prod", Registry: g.host, Repo: "ml/churn", Model: edgetest.Model, ResourceURI: "waybill:ml/churn",
			Interval: config.Duration(time.Hour), Trial: config.Trial{Duration: config.Duration(50 * time.Millisecond), P99: config.Duration(time.Minute)},
		}},
	}
	edit(&prov)
	raw, err := json.Marshal(prov)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "provisioning.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A registry password lives in one file of the device and nowhere else, over a whole life with a log at debug level: in no
// output, log, state or journal, whatever the registry does with it. An exchanged one counts without a restart.
func TestSecretsStaySecret(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	const first, second, wrong = "first-S3cret-pw", "second-S3cret-pw", "wrong-S3cret-pw"
	g := closeRegistry(t, p, first)
	dir := t.TempDir()
	out := filepath.Join(dir, "edge")
	var said strings.Builder // everything that commands print
	cmd := func(args ...string) error {
		t.Helper()
		o, err := command1(t, args...)
		fmt.Fprintln(&said, o, err)
		return err
	}
	give := func(password string) []fleet.Credential {
		return []fleet.Credential{{Registry: g.host, Username: deviceUser, Password: fleet.Secret(password)}}
	}
	if err := cmd("enroll", "--out", out, "--provision", g.provision(t, p, dir, func(p *config.Provisioning) { p.Credentials = give(first) })); err != nil {
		t.Fatal(err)
	}
	d := &edge{t: t, dir: dir, cfg: filepath.Join(out, "config.json"), args: []string{"-v"}}
	kept := filepath.Join(out, config.CredentialFile)
	if info, err := os.Stat(kept); err != nil || goruntime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	p.Publish(p.Change(v1))
	d.start()
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	if c := d.status(); c.Current == nil || c.Current.Digest != v1.Digest {
		t.Fatalf("%+v", c)
	}

	// The registry misbehaves in every way that brings the password near a message.
	thief := 0
	stolen := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			thief++
		}
	}))
	defer stolen.Close()
	p.Publish(p.Change(v2))
	for name, answer := range map[string]http.HandlerFunc{
		"401": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="`+r.Header.Get("Authorization")+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":"X","message":%q}]}`, first+" "+r.Header.Get("Authorization"))
		},
		"403": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, first, r.Header.Get("Authorization"))
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, stolen.URL+"/?p="+first, http.StatusTemporaryRedirect)
		},
		"redirect to the name of it": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+first+".invalid/", http.StatusTemporaryRedirect)
		},
	} {
		g.set(func() { g.answer = answer })
		err := cmd("poll", "--config", d.cfg)
		if name[0] == '4' && (diag.CodeOf(err) != diag.Registry || !strings.Contains(err.Error(), "--credential FILE")) {
			t.Errorf("%s: code %d, %v", name, diag.CodeOf(err), err)
		}
		if err == nil {
			t.Errorf("%s: the poll worked", name)
		}
	}
	if thief != 0 {
		t.Error("another host got the password")
	}
	g.set(func() { g.answer, g.password = nil, second })
	if err := cmd("poll", "--config", d.cfg); diag.CodeOf(err) != diag.Registry {
		t.Errorf("a password that ended: %v", err)
	}

	// A new one counts at once, and nothing else of the device changes.
	was, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "new.json")
	for _, pw := range []string{wrong, second} {
		raw, err := json.Marshal(fleet.Credentials{Schema: fleet.SchemaCredentials, Credentials: give(pw)})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := cmd("enroll", "--out", out, "--credential", file); err != nil {
			t.Fatal(err)
		}
		if err := cmd("poll", "--config", d.cfg); (err == nil) != (pw == second) {
			t.Errorf("%s: %v", pw, err)
		}
	}
	if now, err := os.ReadFile(d.cfg); err != nil || string(now) != string(was) {
		t.Errorf("the configuration changed: %v\n%s\n%s", err, was, now)
	}
	if c := d.status(); c.Current == nil || c.Current.Digest != v2.Digest {
		t.Errorf("%+v", c)
	}
	for _, c := range []string{"status", "history", "verify-journal"} {
		if err := cmd(c, "--config", d.cfg); err != nil {
			t.Error(err)
		}
		_ = cmd(c, "--config", d.cfg, "--output", "json")
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}

	needles := []string{"S3cret"}
	for _, pw := range []string{first, second, wrong} {
		needles = append(needles, base64.StdEncoding.EncodeToString([]byte(deviceUser + ":" + pw))[:12], base64.StdEncoding.EncodeToString([]byte(pw))[:12])
	}
	look := func(where, text string) {
		for _, n := range needles {
			if i := strings.Index(text, n); i >= 0 {
				t.Errorf("%s holds the password: ...%s", where, text[max(0, i-80):min(len(text), i+40)])
			}
		}
	}
	look("what commands print", said.String())
	look("the log", d.log.String())
	if !strings.Contains(d.log.String(), "access refused") {
		t.Error("the log does not tell of the refusal: nothing was looked at")
	}
	err = filepath.WalkDir(out, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || path == kept {
			return err
		}
		b, err := os.ReadFile(path)
		look(path, string(b))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(kept); err != nil || !strings.Contains(string(b), second) || strings.Contains(string(b), first) {
		t.Errorf("the credential's own file: %v", err)
	}
}

// The ways to give a credential, what is refused, and that none of it tells the secret.
func TestCredentialInput(t *testing.T) {
	p := edgetest.NewPublisher(t)
	g := closeRegistry(t, p, "x")
	dir := t.TempDir()
	const secret = "S3cret-pw"
	write := func(name, text string, mode fs.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := fmt.Sprintf(`{"schema":%q,"credentials":[{"registry":%q,"token":%q}]}`, fleet.SchemaCredentials, g.host, secret)
	trust := write("trust.signed", string(p.Trust()), 0o600)
	follow := []string{"--class", "edge-s", "--trust", trust, "--trust-digest", string(p.TrustRef().Digest), "--follow", g.host + "/ml/churn"}
	plain := g.provision(t, p, dir, func(*config.Provisioning) {})
	n := 0
	for _, c := range []struct {
		name, want string
		code       diag.Code
		args       []string
	}{
		{"password by file", "", 0, append(follow[:len(follow):len(follow)], "--username", "d", "--password-file", write("pw", secret+"\n", 0o600))},
		{"token by file", "", 0, append(follow[:len(follow):len(follow)], "--token-file", write("tok", secret, 0o600))},
		{"a file of credentials", "", 0, []string{"--provision", plain, "--credential", write("good.json", good, 0o600)}},
		{"named by the channel", "", 0, []string{"--provision", g.provision(t, p, t.TempDir(), func(x *config.Provisioning) { x.Channels[0].Credential = filepath.Join(dir, "good.json") })}},
		{"a password without a name", "go together", diag.Usage, append(follow[:len(follow):len(follow)], "--password-file", filepath.Join(dir, "pw"))},
		{"no registry", "--follow", diag.Usage, []string{"--provision", plain, "--token-file", filepath.Join(dir, "tok")}},
		{"an empty file", "holds no secret", diag.Usage, append(follow[:len(follow):len(follow)], "--token-file", write("empty", "\n", 0o600))},
		{"two lines", "line break", diag.Usage, append(follow[:len(follow):len(follow)], "--token-file", write("two", secret+"\nx", 0o600))},
		{"two ways", "two ways", diag.Usage, []string{"--provision", g.provision(t, p, t.TempDir(), func(x *config.Provisioning) {
			x.Credentials = []fleet.Credential{{Registry: g.host, Username: "d", Password: secret, Token: secret}}
		})}},
		{"for another registry", "has no credential", diag.Usage, []string{"--provision", g.provision(t, p, t.TempDir(), func(x *config.Provisioning) {
			x.Channels[0].Credential = write("other.json", strings.Replace(good, g.host, "other.example", 1), 0o600)
		})}},
		{"damaged", "", diag.Usage, []string{"--provision", plain, "--credential", write("half.json", good[:len(good)-9], 0o600)}},
		{"a password in the host", "is not a host", diag.Usage, []string{"--provision", plain, "--credential", write("at.json", strings.Replace(good, g.host, "d:"+secret+"@"+g.host, 1), 0o600)}},
		{"read by others", "may be read by others", diag.Failure, []string{"--provision", plain, "--credential", write("open.json", good, 0o644)}},
	} {
		if c.name == "read by others" && goruntime.GOOS == "windows" {
			continue
		}
		if c.name == "two ways" {
			c.want = "a token, and a user name or password"
		}
		n++
		out := filepath.Join(dir, fmt.Sprint("edge", n))
		said, err := command1(t, append([]string{"enroll", "--out", out}, c.args...)...)
		if diag.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: code %d, %v, want %q", c.name, diag.CodeOf(err), err, c.want)
			continue
		}
		if err != nil && strings.Contains(err.Error(), secret) || strings.Contains(said, secret) {
			t.Errorf("%s: the message holds the secret: %v", c.name, err)
		}
		raw, rerr := os.ReadFile(filepath.Join(out, config.CredentialFile))
		if got := rerr == nil && strings.Contains(string(raw), secret); got != (err == nil) {
			t.Errorf("%s: the file is there: %v", c.name, got)
		}
		if cfg, cerr := os.ReadFile(filepath.Join(out, enroll.ConfigFile)); err == nil && (cerr != nil || strings.Contains(string(cfg), secret) || !strings.Contains(string(cfg), `"credential": "`+config.CredentialFile) && !strings.Contains(string(cfg), `"credential":"`+config.CredentialFile)) {
			t.Errorf("%s: %v\n%s", c.name, cerr, cfg)
		}
	}
	// [] takes it away again.
	out := filepath.Join(dir, "edge1")
	if _, err := command1(t, "enroll", "--out", out, "--provision", g.provision(t, p, t.TempDir(), func(x *config.Provisioning) { x.Credentials = []fleet.Credential{} })); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(out, config.CredentialFile)); err == nil {
		t.Error("the credential is still there")
	}
}
