package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/deploy"
)

// kubeconfig is what of the format is read. Methods of logging in that are not here are named when they are met, not skipped.
type kubeconfig struct {
	Current  string `yaml:"current-context"`
	Clusters []struct {
		Name    string `yaml:"name"`
		Cluster struct {
			Server     string `yaml:"server"`
			CA         string `yaml:"certificate-authority"`
			CAData     string `yaml:"certificate-authority-data"`
			Insecure   bool   `yaml:"insecure-skip-tls-verify"`
			ServerName string `yaml:"tls-server-name"`
			Proxy      string `yaml:"proxy-url"`
		} `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		Name string `yaml:"name"`
		User user   `yaml:"user"`
	} `yaml:"users"`
	Contexts []struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster string `yaml:"cluster"`
			User    string `yaml:"user"`
		} `yaml:"context"`
	} `yaml:"contexts"`
}

type user struct {
	Token        string   `yaml:"token"`
	TokenFile    string   `yaml:"tokenFile"`
	Cert         string   `yaml:"client-certificate"`
	CertData     string   `yaml:"client-certificate-data"`
	Key          string   `yaml:"client-key"`
	KeyData      string   `yaml:"client-key-data"`
	Username     string   `yaml:"username"`
	AuthProvider any      `yaml:"auth-provider"`
	Exec         *program `yaml:"exec"`
}

// program prints a credential: the way of EKS, GKE and AKS.
type program struct {
	APIVersion string   `yaml:"apiVersion"`
	Command    string   `yaml:"command"`
	Args       []string `yaml:"args"`
	Env        []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
}

// access is how a cluster is spoken to.
type access struct {
	server    string
	transport http.RoundTripper
	token     func(ctx context.Context) (string, error)
}

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// findAccess reads the first of KUBECONFIG that has the context, else ~/.kube/config; in a pod without either, its service account.
func findAccess(getenv func(string) string, name string) (*access, error) {
	var files []string
	for _, f := range filepath.SplitList(getenv("KUBECONFIG")) {
		if f != "" {
			files = append(files, f)
		}
	}
	if files == nil {
		host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
		home := getenv("HOME")
		if home == "" {
			home = getenv("USERPROFILE")
		}
		f := filepath.Join(home, ".kube", "config")
		if _, err := os.Stat(f); errors.Is(err, fs.ErrNotExist) && host != "" && name == "" {
			return fromPod(net.JoinHostPort(host, port), serviceAccount)
		}
		files = []string{f}
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var k kubeconfig
		if err := yaml.Unmarshal(raw, &k); err != nil {
			return nil, fmt.Errorf("%s is no kubeconfig", f) // the library's text quotes the file
		}
		want := name
		if want == "" {
			want = k.Current
		}
		for _, x := range k.Contexts {
			if x.Name == want && want != "" {
				a, err := k.access(filepath.Dir(f), x.Context.Cluster, x.Context.User)
				if err != nil {
					return nil, fmt.Errorf("%s: context %s: %w", f, want, err)
				}
				return a, nil
			}
		}
	}
	if name == "" {
		name = "that is the current one"
	}
	return nil, fmt.Errorf("%w: no context %s in %s", deploy.ErrUnauthorized, name, strings.Join(files, ", "))
}

func fromPod(host, dir string) (*access, error) {
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", deploy.ErrUnauthorized, err)
	}
	tr, err := transport(ca, nil, "", "")
	if err != nil {
		return nil, err
	}
	return &access{server: "https://" + host, transport: tr, token: fileToken(filepath.Join(dir, "token"))}, nil
}

// fileToken reads the file each time: it is rotated.
func fileToken(file string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		raw, err := os.ReadFile(file)
		return strings.TrimSpace(string(raw)), err
	}
}

func (k *kubeconfig) access(dir, cluster, name string) (*access, error) {
	a := &access{}
	var ca []byte
	var serverName, proxy string
	for _, x := range k.Clusters {
		if x.Name != cluster {
			continue
		}
		c := x.Cluster
		u, err := url.Parse(c.Server)
		switch {
		case err != nil || u.Host == "" || u.User != nil:
			return nil, errors.New("the cluster's server is no address")
		case c.Insecure:
			return nil, errors.New("insecure-skip-tls-verify: anybody in between could take the credentials; give the certificate authority")
		case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
			return nil, fmt.Errorf("%s: credentials go over https only", u.Redacted())
		}
		a.server, serverName, proxy = strings.TrimSuffix(c.Server, "/"), c.ServerName, c.Proxy
		if ca, err = data(dir, c.CAData, c.CA); err != nil {
			return nil, fmt.Errorf("certificate-authority: %w", err)
		}
	}
	if a.server == "" {
		return nil, fmt.Errorf("there is no cluster %q", cluster)
	}
	var u *user
	for i := range k.Users {
		if k.Users[i].Name == name {
			u = &k.Users[i].User
		}
	}
	if u == nil {
		return nil, fmt.Errorf("%w: there is no user %q", deploy.ErrUnauthorized, name)
	}
	var pair *tls.Certificate
	cert, err := data(dir, u.CertData, u.Cert)
	if err != nil {
		return nil, fmt.Errorf("client-certificate: %w", err)
	}
	key, err := data(dir, u.KeyData, u.Key)
	if err != nil {
		return nil, fmt.Errorf("client-key: %w", err)
	}
	if cert != nil {
		p, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%w: client-certificate: %w", deploy.ErrUnauthorized, err)
		}
		pair = &p
	}
	switch {
	case u.TokenFile != "":
		a.token = fileToken(within(dir, u.TokenFile))
	case u.Token != "":
		a.token = func(context.Context) (string, error) { return u.Token, nil }
	case u.Exec != nil:
		a.token = u.Exec.asker(dir)
	case pair == nil:
		return nil, fmt.Errorf("%w: user %q has neither token, tokenFile, exec nor client-certificate, which are the ways that are known here", deploy.ErrUnauthorized, name)
	}
	tr, err := transport(ca, pair, serverName, proxy)
	a.transport = tr
	return a, err
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func within(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// data is a member that is given in place, in base64, or as a file; nil: neither.
func data(dir, inline, file string) ([]byte, error) {
	if inline != "" {
		raw, err := base64.StdEncoding.DecodeString(inline)
		if err != nil {
			return nil, errors.New("not base64") // the library's text is harmless, but this may be a key
		}
		return raw, nil
	}
	if file == "" {
		return nil, nil
	}
	return os.ReadFile(within(dir, file))
}

func transport(ca []byte, pair *tls.Certificate, serverName, proxy string) (*http.Transport, error) {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	tr.ResponseHeaderTimeout = time.Minute
	if ca != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, errors.New("the certificate authority holds no certificate")
		}
		tr.TLSClientConfig.RootCAs = pool
	}
	if pair != nil {
		tr.TLSClientConfig.Certificates = []tls.Certificate{*pair}
	}
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil {
			return nil, errors.New("proxy-url is no address")
		}
		tr.Proxy = http.ProxyURL(u)
	}
	return tr, nil
}

// asker runs the program for a token and keeps it until a minute before it expires.
func (p *program) asker(dir string) func(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var token string
	var until time.Time
	return func(ctx context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if token != "" && time.Now().Before(until) {
			return token, nil
		}
		command := p.Command
		if strings.ContainsAny(command, `/\`) { // relative to the kubeconfig, as kubectl takes it
			command = within(dir, command)
		}
		cmd := exec.CommandContext(ctx, command, p.Args...)
		cmd.Env = os.Environ()
		for _, e := range p.Env {
			cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
		}
		cmd.Env = append(cmd.Env, fmt.Sprintf(`KUBERNETES_EXEC_INFO={"apiVersion":%q,"kind":"ExecCredential","spec":{"interactive":false}}`, p.APIVersion))
		cmd.WaitDelay = 5 * time.Second
		var out bytes.Buffer
		cmd.Stdout = &out // what it writes to its error output may quote credentials
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			return "", fmt.Errorf("%s: %w", p.Command, err)
		}
		var c struct {
			Status struct {
				Token   string    `json:"token"`
				Expires time.Time `json:"expirationTimestamp"`
			} `json:"status"`
		}
		if err := json.Unmarshal(out.Bytes(), &c); err != nil || c.Status.Token == "" {
			return "", fmt.Errorf("%s gives no token", p.Command)
		}
		token, until = c.Status.Token, c.Status.Expires.Add(-time.Minute)
		if c.Status.Expires.IsZero() {
			until = time.Now().Add(time.Hour)
		}
		return token, nil
	}
}
