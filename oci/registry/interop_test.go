package registry_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// Stock tools work on what we push, and what they attach is found.
func TestStockTools(t *testing.T) {
	host, _ := newServer(t, nil)
	r := remote(t, host, "ml/churn")
	m := newModel(t, "1.0")
	d := m.push(t, r, "1.0")
	if _, err := r.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	ref := host + "/ml/churn:1.0"
	run := func(t *testing.T, tool string, args ...string) string {
		t.Helper()
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
				t.Fatalf("%s is not installed", tool)
			}
			t.Skipf("%s is not installed", tool)
		}
		c := exec.CommandContext(t.Context(), tool, args...)
		c.Dir = t.TempDir()
		c.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	t.Run("oras", func(t *testing.T) {
		dir := t.TempDir()
		run(t, "oras", "pull", "--plain-http", ref, "-o", dir)
		for _, l := range []string{"model.wasm", "interface.json", "source/model.onnx"} {
			b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(l)))
			if err != nil || m.layers[artifact.DigestOf(b)] == nil {
				t.Errorf("%s: %v", l, err)
			}
		}
		if out := run(t, "oras", "discover", "--plain-http", ref); !strings.Contains(out, artifact.MediaTypeBundle) {
			t.Errorf("oras does not see the evidence:\n%s", out)
		}
		lay := filepath.Join(t.TempDir(), "lay")
		run(t, "oras", "cp", "-r", "--from-plain-http", ref, "--to-oci-layout", lay+":1.0")
		p, err := registry.Open(t.Context(), registry.Ref{Kind: registry.KindLayout, Path: lay}, registry.Options{})
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, p, "1.0")
		if refs, err := p.Referrers(t.Context(), m.digest); err != nil || len(refs) != 1 {
			t.Errorf("evidence in a layout made by oras: %v %v", refs, err)
		}
		note := filepath.Join(t.TempDir(), "note.txt")
		if err := os.WriteFile(note, []byte("looked at"), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "oras", "attach", "--plain-http", "--disable-path-validation", "--artifact-type", "application/x.note", ref, note)
		if refs, err := r.Referrers(t.Context(), m.digest); err != nil || len(refs) != 2 {
			t.Errorf("what oras attached: %v %v", refs, err)
		}
	})
	t.Run("crane", func(t *testing.T) {
		if out := run(t, "crane", "digest", ref); strings.TrimSpace(out) != string(m.digest) {
			t.Errorf("digest %s", out)
		}
		run(t, "crane", "validate", "--remote", ref)
		run(t, "crane", "cp", ref, host+"/ml/cranes:1")
		m.check(t, remote(t, host, "ml/cranes"), "1")
	})
	t.Run("skopeo", func(t *testing.T) {
		if out := run(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+ref); artifact.DigestOf([]byte(out)) != m.digest {
			t.Errorf("manifest %s", out)
		}
	})
}

// keychain has one user.
type keychain struct{ user, password string }

func (k keychain) Login(context.Context, string, string) (registry.Login, error) {
	return registry.Login{Username: k.user, Password: k.password}, nil
}

// A registry that asks for a token, as most do: the token endpoint takes the password, the registry the token.
func TestTokenAuth(t *testing.T) {
	var host string
	scopes := map[string]bool{}
	host, _ = newServer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				u, p, _ := r.BasicAuth()
				if u != "robot" || p != "secret" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				scope := strings.Join(r.URL.Query()["scope"], " ")
				scopes[scope] = true
				_ = json.NewEncoder(w).Encode(map[string]string{"token": base64.StdEncoding.EncodeToString([]byte(scope))})
			case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "):
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="test"`)
				w.WriteHeader(http.StatusUnauthorized)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	open := func(k registry.Keychain) *registry.Remote {
		o := fastOptions()
		o.Keychain = k
		r, err := registry.NewRemote(host, "ml/churn", o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open(keychain{"robot", "secret"})
	m := newModel(t, "1.0")
	m.push(t, r, "1.0")
	m.check(t, r, "1.0")
	for s := range scopes {
		if s != "repository:ml/churn:pull" && s != "repository:ml/churn:push,pull" {
			t.Errorf("asked for scope %q", s)
		}
	}
	for name, k := range map[string]registry.Keychain{"anonymous": anonymous{}, "wrong password": keychain{"robot", "guess"}} {
		_, err := open(k).Resolve(t.Context(), "1.0")
		if diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "hint: docker login "+host) {
			t.Errorf("%s: %s", name, diag.Render(err))
		}
		if strings.Contains(diag.Render(err), "guess") {
			t.Errorf("%s: the message shows the password: %s", name, diag.Render(err))
		}
		if refs, err := open(k).Referrers(t.Context(), m.digest); err == nil {
			t.Errorf("%s: refused access reads as no evidence: %v", name, refs)
		}
	}
}
