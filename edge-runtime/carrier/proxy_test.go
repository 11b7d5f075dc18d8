package carrier

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	ociserver "github.com/waybill-ml/waybill/oci/server"
)

// connectProxy is a proxy as companies have it: CONNECT only, perhaps with a password, to where the test says.
type connectProxy struct {
	to       map[string]string // address by host:port
	user, pw string

	mu    sync.Mutex
	asked []string
}

// ServeHTTP implements http.Handler.
func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	if p.user != "" && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.pw)) {
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	to, ok := p.to[r.Host]
	if r.Method != http.MethodConnect || !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	up, err := net.Dial("tcp", to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer up.Close()
	c, b, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(up, b); _ = up.(*net.TCPConn).CloseWrite() }()
	_, _ = io.Copy(c, up)
}

// fetchBoth looks at a channel in a mirror and in a registry whose names nobody resolves, as a device does, and reads content.
func fetchBoth(ctx context.Context) error {
	ca := os.Getenv("WAYBILL_TEST_CA")
	blob := artifact.Descriptor{MediaType: "application/octet-stream", Digest: artifact.Digest(os.Getenv("WAYBILL_TEST_BLOB")), Size: 11}
	tr, err := registry.TransportFor("mirror.invalid", registry.TLSOptions{CAFile: ca}, 0)
	if err != nil {
		return err
	}
	m, err := NewMirror("https://mirror.invalid/churn", MirrorOptions{Names: []string{"churn"}, Transport: tr})
	if err != nil {
		return err
	}
	r, err := registry.NewRemote("reg.invalid", "ml/churn", registry.RemoteOptions{Connections: 1, TLS: registry.TLSOptions{CAFile: ca}, Retry: registry.RetryPolicy{Attempts: 1}})
	if err != nil {
		return err
	}
	for _, p := range []Place{m, NewRegistry(r)} {
		ds, err := p.Heads(ctx, "channel-prod")
		if err != nil {
			return err
		}
		rc, err := p.Open(ctx, blob, 4)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(rc)
		_ = rc.Close()
		if err != nil || string(b) != "content" || len(ds) != 1 {
			return fmt.Errorf("%q, %v, %v", b, ds, err)
		}
	}
	return nil
}

// The proxy of the environment (HTTPS_PROXY, NO_PROXY) is used for mirrors and registries, with its password; what it refuses is
// told without that. Go reads these variables once in a process, so each case is one.
func TestProxyOfTheEnvironment(t *testing.T) {
	if os.Getenv("WAYBILL_TEST_BLOB") != "" {
		if err := fetchBoth(t.Context()); err != nil {
			fmt.Println("failed:", err)
			return
		}
		fmt.Println("fetched")
		return
	}
	s := newShelf()
	blob := s.put([]byte("the content"))
	manifest := []byte(`{"n":1}`)
	s.tag("churn:channel-prod", manifest)
	dir := t.TempDir()
	s.folder(t, filepath.Join(dir, "churn"))
	reg, err := ociserver.New(t.TempDir(), ociserver.Options{Public: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reg.Close() })
	ca, srv := authority(t, "mirror.invalid", "reg.invalid")
	mirror, regs := srv(http.FileServer(http.Dir(dir))), srv(reg)
	local, err := registry.NewRemote(plain(t, reg), "ml/churn", registry.RemoteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, local, []byte("the content"))
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, user, env, no string
		refuse              bool
		want                string
		asked               int
	}{
		{name: "open", want: "fetched", asked: 2},
		{name: "with a password", user: "device:pa55", env: "device:pa55@", want: "fetched", asked: 2},
		{name: "with a wrong password", user: "device:pa55", env: "device:wr0ng@", want: "Proxy Authentication Required", asked: 1},
		{name: "that refuses", refuse: true, want: "Forbidden", asked: 1},
		{name: "not for these", no: ".invalid", want: "failed: ", asked: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &connectProxy{to: map[string]string{"mirror.invalid:443": mirror, "reg.invalid:443": regs}}
			if c.refuse {
				p.to = nil
			}
			p.user, p.pw, _ = strings.Cut(c.user, ":")
			h := httptest.NewServer(p)
			defer h.Close()
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "-test.run=^TestProxyOfTheEnvironment$", "-test.v=false")
			cmd.Env = append(os.Environ(), "HTTPS_PROXY=http://"+c.env+h.Listener.Addr().String(), "https_proxy=", "NO_PROXY="+c.no, "no_proxy=", "WAYBILL_TEST_CA="+file, "WAYBILL_TEST_BLOB="+string(blob.Digest), "DOCKER_CONFIG="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			line, _ := bufio.NewReader(strings.NewReader(string(out))).ReadString('\n')
			if !strings.Contains(line, c.want) || strings.Contains(string(out), "pa55") || strings.Contains(string(out), "wr0ng") {
				t.Errorf("it says %s", out)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			slices.Sort(p.asked) // a connection more or less is the transport's business
			if len(slices.Compact(p.asked)) != c.asked {
				t.Errorf("the proxy was asked %q", p.asked)
			}
		})
	}
}

// A network with IPv6 alone: addresses in brackets, as mirror and as registry.
func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	s := newShelf()
	blob := s.put([]byte("the content"))
	head := s.tag("churn:channel-prod", []byte(`{"n":1}`))
	dir := t.TempDir()
	s.folder(t, dir)
	reg, err := ociserver.New(t.TempDir(), ociserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reg.Close() })
	mux := http.NewServeMux()
	mux.Handle("/v2/", reg)
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	m, err := NewMirror("http://"+l.Addr().String(), MirrorOptions{Names: []string{"churn"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.client.CloseIdleConnections)
	if ds, err := m.Heads(t.Context(), "channel-prod"); err != nil || ds[0] != head {
		t.Fatal(ds, err)
	}
	r, err := registry.NewRemote(l.Addr().String(), "ml/churn", registry.RemoteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, r, []byte("the content"))
	if _, err := registry.ParseRef(l.Addr().String() + "/ml/churn:1.0"); err != nil {
		t.Error(err)
	}
	for _, p := range []Place{m, NewRegistry(r)} {
		if ds, err := p.Heads(t.Context(), "channel-prod"); err != nil || len(ds) != 1 {
			t.Errorf("%v %v", ds, err)
		}
		if b, err := read(t, p, blob, 4); err != nil || string(b) != "content" {
			t.Errorf("%q %v", b, err)
		}
	}
}

// authority makes a certificate for names; serve starts servers that have it and gives their addresses.
func authority(t *testing.T, names ...string) (der []byte, serve func(http.Handler) string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if der, err = x509.CreateCertificate(rand.Reader, x, x, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	return der, func(h http.Handler) string {
		s := httptest.NewUnstartedServer(h)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
}

// plain serves without TLS.
func plain(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// fill puts content and a record's manifest into a registry.
func fill(t *testing.T, r *registry.Remote, content []byte) {
	t.Helper()
	layer, err := registry.PushBytes(t.Context(), r, "application/octet-stream", content)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := registry.PushBytes(t.Context(), r, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	if err != nil {
		t.Fatal(err)
	}
	m, err := json.Marshal(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: "x/y", Config: empty, Layers: []artifact.Descriptor{layer}})
	if err == nil {
		_, err = r.PushManifest(t.Context(), m, artifact.MediaTypeManifest, "channel-prod")
	}
	if err != nil {
		t.Fatal(err)
	}
}
