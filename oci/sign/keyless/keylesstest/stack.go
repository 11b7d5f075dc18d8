// Package keylesstest starts the real servers of keyless signing on loopback for tests: Fulcio, a timestamp authority and
// Rekor v2, with an OIDC provider of its own. The servers are the released programs; only the provider is made here.
package keylesstest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/verify/sigstore/sigstoretest"
)

// T is the part of testing.TB that the package needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// programs are the servers, as .ci/run installs them: fulcio 1.8.8, timestamp-authority 2.1.3, rekor-tiles 2.3.0.
func programs() []string { return []string{"fulcio", "timestamp-server", "rekor-server-posix"} }

// Stack is a running deployment.
type Stack struct {
	*Issuer
	Fulcio, Rekor, TSA string // URLs; TSA with its path
	Dir                string // holds trusted_root.json and signing_config.json
	TrustedRoot        []byte
	SigningConfig      []byte
}

// up is how long a server may take to come up: a machine may be busy with more than this.
const up = 2 * time.Minute

// Start starts everything, and ends it with the test. Without the programs the test is skipped, unless
// WAYBILL_REQUIRE_TOOLS is set.
func Start(t T) *Stack {
	t.Helper()
	for _, p := range programs() {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
				t.Fatalf("%s is not installed, and WAYBILL_REQUIRE_TOOLS is set", p)
			}
			t.Skipf("%s is not installed; .ci/run shows how", p)
		}
	}
	dir, err := os.MkdirTemp("", "wb") // short: a socket's path must fit into 108 bytes
	if err != nil {
		t.Fatalf("stack: %v", err)
	}
	s := &Stack{Issuer: NewIssuer(t), Dir: dir}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.timestamps(t)
	key := s.log(t)
	s.authority(t)
	s.documents(t, key)
	return s
}

// server starts a program on ports that are free now. Another process may take one first; then the program ends, and
// others are tried. ready is asked until it says yes.
func server(t T, name string, ports int, args func(p []string) []string, ready func(p []string) bool) []string {
	t.Helper()
	var last string
	for range 5 {
		p := freePorts(t, ports)
		cmd := exec.Command(name, args(p)...)
		out, err := os.CreateTemp("", "wb-log")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatalf("start %s: %v", name, err)
		}
		gone := make(chan struct{})
		go func() { _ = cmd.Wait(); close(gone) }()
		stop := func() {
			_ = cmd.Process.Kill()
			<-gone
			_ = out.Close()
			_ = os.Remove(out.Name())
		}
		if await(t, gone, func() bool { return ready(p) }) {
			t.Cleanup(stop)
			return p
		}
		raw, _ := os.ReadFile(out.Name())
		last = string(raw[max(0, len(raw)-2000):])
		stop()
	}
	t.Fatalf("%s does not come up: %s", name, last)
	return nil
}

// await asks until yes, the process's end, or the limit.
func await(t T, gone <-chan struct{}, ready func() bool) bool {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(up)
	for {
		select {
		case <-gone:
			return false
		case <-end:
			return false
		case <-t.Context().Done():
			return false
		case <-tick.C:
			if ready() {
				select {
				case <-gone: // somebody else answers at this port
					return false
				default:
					return true
				}
			}
		}
	}
}

func freePorts(t T, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a port: %v", err)
		}
		defer l.Close() // all at once, so that none is handed out twice
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports
}

// get reads an answer of at most 1 MiB.
func get(url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return b, err
}

func answers(url string) bool {
	_, err := get(url)
	return err == nil
}

// metrics is where timestamp-server 2.1.3 answers with its metrics; it cannot be told another place, and ends when that is
// taken.
const metrics = ":2112"

func (s *Stack) timestamps(t T) {
	t.Helper()
	// Packages are tested at the same time: one timestamp-server after the other.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	release, err := fsx.Lock(ctx, filepath.Join(os.TempDir(), "waybill-test-timestamp-server.lock"), false)
	if err != nil {
		t.Fatalf("wait for another test's timestamp-server: %v", err)
	}
	t.Cleanup(func() { _ = release() })
	if !await(t, nil, func() bool {
		l, err := net.Listen("tcp", metrics)
		return err == nil && l.Close() == nil
	}) {
		t.Fatalf("timestamp-server needs the port %s for its metrics, and another program has it", metrics)
	}
	p := server(t, "timestamp-server", 1, func(p []string) []string {
		return []string{"serve", "--host", "127.0.0.1", "--port", p[0], "--timestamp-signer", "memory", "--disable-ntp-monitoring"}
	}, func(p []string) bool {
		return answers("http://127.0.0.1:"+p[0]+"/api/v1/timestamp/certchain") && answers("http://127.0.0.1"+metrics+"/metrics")
	})
	s.TSA = "http://127.0.0.1:" + p[0] + "/api/v1/timestamp"
}

func (s *Stack) log(t T) ed25519.PublicKey {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("log key: %v", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("log key: %v", err)
	}
	file := filepath.Join(s.Dir, "log.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatalf("log key: %v", err)
	}
	p := server(t, "rekor-server-posix", 3, func(p []string) []string {
		return []string{
			"serve", "--http-address", "127.0.0.1", "--http-port", p[0], "--grpc-address", "127.0.0.1", "--grpc-port", p[1], "--http-metrics-port", p[2],
			"--hostname", "127.0.0.1", "--storage-dir", filepath.Join(s.Dir, "log-"+p[0]), "--signer-filepath", file,
			"--checkpoint-interval", "200ms", "--batch-max-age", "50ms",
		}
	}, func(p []string) bool { return answers("http://127.0.0.1:" + p[0] + "/healthz") })
	s.Rekor = "http://127.0.0.1:" + p[0]
	return pub
}

func (s *Stack) authority(t T) {
	t.Helper()
	issuers := map[string]any{}
	for name, kind := range map[string]string{"/email": "email", "/github": "github-workflow", "/gitlab": "gitlab-pipeline"} {
		issuers[s.URL+name] = map[string]string{"IssuerURL": s.URL + name, "ClientID": "sigstore", "Type": kind}
	}
	raw, err := json.Marshal(map[string]any{"OIDCIssuers": issuers}) // Fulcio reads JSON too, under other names
	if err != nil {
		t.Fatalf("fulcio: %v", err)
	}
	file := filepath.Join(s.Dir, "fulcio.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatalf("fulcio: %v", err)
	}
	p := server(t, "fulcio", 3, func(p []string) []string {
		return []string{
			"serve", "--host", "127.0.0.1", "--port", p[0], "--grpc-host", "127.0.0.1", "--grpc-port", p[1], "--metrics-port", p[2], "--ca", "ephemeralca",
			"--ct-log-url", "", "--config-path", file, "--legacy-unix-domain-socket", filepath.Join(s.Dir, "fulcio-"+p[0]),
		}
	}, func(p []string) bool { return answers("http://127.0.0.1:" + p[0] + "/api/v2/trustBundle") })
	s.Fulcio = "http://127.0.0.1:" + p[0]
}

// documents asks the servers for their certificates and writes the trusted root and the signing configuration.
func (s *Stack) documents(t T, log ed25519.PublicKey) {
	t.Helper()
	raw, err := get(s.Fulcio + "/api/v2/trustBundle")
	if err != nil {
		t.Fatalf("fulcio's certificates: %v", err)
	}
	var bundle struct {
		Chains []struct {
			Certificates []string `json:"certificates"`
		} `json:"chains"`
	}
	if err := json.Unmarshal(raw, &bundle); err != nil || len(bundle.Chains) != 1 {
		t.Fatalf("fulcio's certificates: %v, %s", err, raw)
	}
	var ca []*x509.Certificate
	for _, c := range bundle.Chains[0].Certificates {
		ca = append(ca, certificates(t, []byte(c))...)
	}
	chain, err := get(s.TSA + "/certchain")
	if err != nil {
		t.Fatalf("the timestamp authority's certificates: %v", err)
	}
	start := time.Now().Add(-time.Hour)
	s.TrustedRoot = sigstoretest.Parts{
		Start: start, FulcioURL: s.Fulcio, CA: ca, TSAURL: s.TSA, TSA: certificates(t, chain), Logs: []sigstoretest.Log{{URL: s.Rekor, Key: log}},
	}.TrustedRoot(t)
	s.SigningConfig = s.config(t, start, true)
	for name, raw := range map[string][]byte{"trusted_root.json": s.TrustedRoot, "signing_config.json": s.SigningConfig} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), raw, 0o600); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// config writes a signing_config.json.
func (s *Stack) config(t T, start time.Time, log bool) []byte {
	t.Helper()
	service := func(url string, version int) []any {
		return []any{map[string]any{"url": url, "majorApiVersion": version, "operator": "test", "validFor": map[string]string{"start": start.UTC().Format(time.RFC3339)}}}
	}
	c := map[string]any{
		"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
		"caUrls":    service(s.Fulcio, 1), "oidcUrls": service(s.URL+"/email", 1),
		"tsaUrls": service(s.TSA, 1), "tsaConfig": map[string]string{"selector": "ANY"},
	}
	if log {
		c["rekorTlogUrls"], c["rekorTlogConfig"] = service(s.Rekor, 2), map[string]string{"selector": "ANY"}
	}
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		t.Fatalf("signing configuration: %v", err)
	}
	return raw
}

// WithoutLog is a signing configuration with the certificate authority and the timestamp authority alone.
func (s *Stack) WithoutLog(t T) []byte {
	t.Helper()
	return s.config(t, time.Now().Add(-time.Hour), false)
}

// StrangerRoot is the trusted root of a deployment that signed nothing.
func StrangerRoot(t T) []byte {
	t.Helper()
	return sigstoretest.New(t, time.Now()).TrustedRoot(t)
}

func certificates(t T, raw []byte) []*x509.Certificate {
	t.Helper()
	var out []*x509.Certificate
	for b, rest := pem.Decode(raw); b != nil; b, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatalf("certificate: %v", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		t.Fatalf("no certificate in %s", fmt.Sprintf("%.100q", raw))
	}
	return out
}
