package kubernetes

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

// TestMain is also the program that a kubeconfig names.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_EXEC") {
	case "":
		os.Exit(m.Run())
	case "token":
		if !strings.Contains(os.Getenv("KUBERNETES_EXEC_INFO"), `"kind":"ExecCredential"`) {
			os.Exit(3)
		}
		fmt.Printf(`{"kind":"ExecCredential","status":{"token":%q}}`, clusterToken)
	case "nothing":
		fmt.Print(`{"kind":"ExecCredential","status":{}}`)
	default:
		fmt.Fprint(os.Stderr, clusterToken)
		os.Exit(1)
	}
	os.Exit(0)
}

func open(t *testing.T, getenv func(string) string, more string) (deploy.Target, error) {
	t.Helper()
	list := []map[string]any{{"name": "a", "kind": "kubernetes", "image": "reg.example/ml/churn", "deployment": "churn", "namespace": "ml"}}
	if more != "" {
		list[0]["context"] = more
	}
	e, err := targets.Parse(list, []targets.Kind{Kind(getenv)})
	if err != nil {
		t.Fatal(err)
	}
	return e[0].Settings.Open(t.Context(), nil)
}

func TestAccess(t *testing.T) {
	c := newCluster(t)
	srv := httptest.NewTLSServer(c)
	defer srv.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(clusterToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(cluster, user string) func(string) string {
		f := filepath.Join(dir, "config")
		text := fmt.Sprintf("current-context: x\ncontexts:\n- {name: x, context: {cluster: c, user: u}}\nclusters:\n- {name: c, cluster: {%s}}\nusers:\n- {name: u, user: {%s}}\n", cluster, user)
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return env(map[string]string{"KUBECONFIG": strings.Join([]string{filepath.Join(dir, "absent"), f}, string(filepath.ListSeparator))})
	}
	good := fmt.Sprintf("server: %q, certificate-authority-data: %s", srv.URL, base64.StdEncoding.EncodeToString(ca))
	program := func(what string) string {
		return fmt.Sprintf("exec: {apiVersion: client.authentication.k8s.io/v1, command: '%s', args: [-test.run=NONE], env: [{name: TEST_EXEC, value: %s}]}", self, what)
	}
	for name, x := range map[string]struct {
		cluster, user string
		opens, status error // that Open and Status give
		says          string
	}{
		"token":              {good, fmt.Sprintf("token: %q", clusterToken), nil, nil, ""},
		"token file":         {good, "tokenFile: token", nil, nil, ""},
		"program":            {good, program("token"), nil, nil, ""},
		"wrong token":        {good, "token: other", nil, deploy.ErrUnauthorized, ""},
		"no token file":      {good, "tokenFile: absent", nil, deploy.ErrUnauthorized, ""},
		"program fails":      {good, program("fail"), nil, deploy.ErrUnauthorized, "exit status 1"},
		"program is silent":  {good, program("nothing"), nil, deploy.ErrUnauthorized, "gives no token"},
		"no way":             {good, "username: a", deploy.ErrUnauthorized, nil, "neither token"},
		"another authority":  {fmt.Sprintf("server: %q", srv.URL), "tokenFile: token", nil, errAny, "certificate does not verify"},
		"insecure":           {good + ", insecure-skip-tls-verify: true", "tokenFile: token", errAny, nil, "insecure-skip-tls-verify"},
		"without encryption": {"server: http://cluster.example", "tokenFile: token", errAny, nil, "https only"},
		"no server":          {"server: ''", "tokenFile: token", errAny, nil, "no address"},
		"broken authority":   {fmt.Sprintf("server: %q, certificate-authority-data: '%%'", srv.URL), "tokenFile: token", errAny, nil, "base64"},
		"broken certificate": {good, "client-certificate-data: YWJj, client-key-data: YWJj", deploy.ErrUnauthorized, nil, "client-certificate"},
	} {
		k, err := open(t, config(x.cluster, x.user), "")
		if (err == nil) != (x.opens == nil) || x.opens != nil && x.opens != errAny && !errors.Is(err, x.opens) {
			t.Errorf("%s: Open: %v", name, err)
			continue
		}
		if err == nil {
			_, err = k.Status(t.Context())
			if x.status == errAny && err != nil {
				err = errors.Join(err, errAny)
			}
			if !errors.Is(err, x.status) {
				t.Errorf("%s: Status: %v, want %v", name, err, x.status)
			}
		}
		if err != nil && (!strings.Contains(err.Error(), x.says) || strings.Contains(err.Error(), clusterToken)) {
			t.Errorf("%s: %v, want %q and no token", name, err, x.says)
		}
	}
	if _, err := open(t, config(good, "tokenFile: token"), "other"); !errors.Is(err, deploy.ErrUnauthorized) || !strings.Contains(err.Error(), "other") {
		t.Errorf("another context: %v", err)
	}
	if _, err := open(t, env(map[string]string{"HOME": filepath.Join(dir, "empty")}), ""); !errors.Is(err, deploy.ErrUnauthorized) {
		t.Errorf("nothing at all: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte("token: "+clusterToken+"\n: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, env(map[string]string{"KUBECONFIG": filepath.Join(dir, "config")}), ""); err == nil || strings.Contains(err.Error(), clusterToken) {
		t.Errorf("a broken file: %v", err)
	}
}

var errAny = errors.New("any")

func TestFromPod(t *testing.T) {
	srv := httptest.NewTLSServer(newCluster(t))
	defer srv.Close()
	dir := t.TempDir()
	_, err := fromPod(srv.Listener.Addr().String(), dir)
	if !errors.Is(err, deploy.ErrUnauthorized) {
		t.Errorf("without a service account: %v", err)
	}
	for name, raw := range map[string][]byte{"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), "token": []byte(clusterToken)} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := fromPod(net.JoinHostPort("127.0.0.1", strings.Split(srv.Listener.Addr().String(), ":")[1]), dir)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(Config{URL: a.server, Client: &http.Client{Transport: a.transport}, Token: a.token, Name: "churn", Namespace: "ml"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// A token does not follow a redirect to another host.
func TestNoRedirect(t *testing.T) {
	seen := make(chan string, 8)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("Authorization") }))
	defer thief.Close()
	srv := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	f := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("current-context: x\ncontexts:\n- {name: x, context: {cluster: c, user: u}}\nclusters:\n- {name: c, cluster: {server: %q}}\nusers:\n- {name: u, user: {token: %q}}\n", srv.URL, clusterToken)
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := open(t, env(map[string]string{"KUBECONFIG": f}), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Status(t.Context()); err == nil {
		t.Error("a redirect is taken for an answer")
	}
	if len(seen) != 0 {
		t.Error("the redirect was followed")
	}
}

func TestSettings(t *testing.T) {
	for key, bad := range map[string]any{"deployment": "Churn", "namespace": "a/b", "replicas": 0, "port": 70000, "arch": "s390x", "memory": "much", "cpu": "1.5", "colour": "red"} {
		m := map[string]any{"name": "a", "kind": "kubernetes", "image": "reg.example/m", "deployment": "churn", "namespace": "ml", key: bad}
		_, err := targets.Parse([]map[string]any{m}, []targets.Kind{Kind(os.Getenv)})
		var e *targets.Error
		if !errors.As(err, &e) || e.Path != "[0]."+key {
			t.Errorf("%s: %v", key, err)
		}
	}
}
