package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	ociregistry "github.com/waybill-ml/waybill/oci/registry"
	ociserver "github.com/waybill-ml/waybill/oci/server"
)

// wire is a network in memory, so that a test's clock stands still while it works and jumps while it waits.
type wire struct {
	mu    sync.Mutex
	hosts map[string]*wireListener
}

type wireListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *wireListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *wireListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *wireListener) Addr() net.Addr { return &net.TCPAddr{} }

func (w *wire) listen(host string) net.Listener {
	l := &wireListener{conns: make(chan net.Conn), done: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[host] = l
	return l
}

func (w *wire) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	w.mu.Lock()
	l := w.hosts[addr]
	w.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}}
	}
	a, b := net.Pipe()
	select {
	case l.conns <- b:
		return a, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const (
	netUser, netPassword = "device", "S3cret-of-the-registry"
	regHost, mirrorHost  = "reg.example", "mirror.example"
	evilHost             = "evil.example"
	otherAddr            = "192.0.2.1:443" // where a wrong answer of the name service leads: a stranger with a certificate of its own
	lateAddr             = "192.0.2.2:443" // a server whose certificate is past its time
)

// netWorld is a publisher's registry, which wants a password, a mirror of it, and a host that is up to no good.
type netWorld struct {
	*world
	wire  *wire
	roots *x509.CertPool
	stop  []func()
	dir   string           // of the mirror
	proto string           // that the servers speak: http/1.1 or h2
	other *tls.Certificate // of the stranger

	mu     sync.Mutex
	leaked []string // what showed a credential elsewhere
	sent   map[string]int64
}

func newNetWorld(t *testing.T, proto string) *netWorld {
	t.Helper()
	n := &netWorld{proto: proto, world: newWorld(t), wire: &wire{hosts: map[string]*wireListener{}}, roots: x509.NewCertPool(), dir: t.TempDir(), sent: map[string]int64{}}
	t.Cleanup(n.close)
	cert := n.certificate(t, n.Now.AddDate(1, 0, 0))
	n.roots.AddCert(cert.Leaf)
	late := n.certificate(t, n.Now.AddDate(0, 0, -1)) // believed, but for its time
	n.roots.AddCert(late.Leaf)
	reg, err := ociserver.New(t.TempDir(), ociserver.Options{Public: true})
	if err != nil {
		t.Fatal(err)
	}
	n.stop = append(n.stop, func() { _ = reg.Close() })
	locked := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pw, ok := r.BasicAuth(); !ok || user != netUser || pw != netPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reg.ServeHTTP(w, r)
	})
	n.serve(cert, regHost+":443", faulty(locked))
	n.serve(nil, regHost+":80", http.HandlerFunc(n.stranger))
	n.serve(cert, mirrorHost+":443", n.nosy(faulty(http.FileServer(http.Dir(n.dir)))))
	n.serve(nil, mirrorHost+":80", http.HandlerFunc(n.stranger))
	n.serve(cert, evilHost+":443", http.HandlerFunc(n.stranger))
	n.other = n.certificate(t, n.Now.AddDate(1, 0, 0))
	n.serve(n.other, otherAddr, http.HandlerFunc(n.stranger))
	n.serve(late, lateAddr, http.HandlerFunc(n.stranger))
	return n
}

func (n *netWorld) close() {
	for _, f := range n.stop {
		f()
	}
}

func (n *netWorld) certificate(t *testing.T, until time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: n.Now.AddDate(-1, 0, 0), NotAfter: until, DNSNames: []string{regHost, mirrorHost, evilHost},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, x, x, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (n *netWorld) serve(cert *tls.Certificate, addr string, h http.Handler) {
	l := n.wire.listen(addr)
	s := &http.Server{Handler: h, ErrorLog: discardLog()}
	start := s.Serve
	if cert != nil {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{n.proto}}
		if n.proto == "http/1.1" {
			s.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		start = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = start(l) }()
	n.stop = append(n.stop, func() { _ = s.Close(); <-done })
}

// nosy notes credentials that the mirror must not see.
func (n *netWorld) nosy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.note(r)
		next.ServeHTTP(w, r)
	})
}

func (n *netWorld) note(r *http.Request) {
	all := fmt.Sprint(r.Header, r.URL)
	if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || strings.Contains(all, netPassword) {
		n.mu.Lock()
		n.leaked = append(n.leaked, r.Host+" saw "+all)
		n.mu.Unlock()
	}
}

// stranger is wherever a redirect leads.
func (n *netWorld) stranger(w http.ResponseWriter, r *http.Request) {
	n.note(r)
	w.Header().Set("WWW-Authenticate", `Basic realm="come on"`)
	if r.Header.Get("Authorization") == "" && r.URL.Query().Get("x") == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, "<html>all your data</html>")
}

// transport is the production one on this network.
func (n *netWorld) transport(clock func() time.Time) *http.Transport {
	tr := ociregistry.NewTransport()
	tr.Proxy, tr.DialContext = nil, n.wire.dial
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: n.roots, Time: clock, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	return tr
}

type netKeychain struct{}

// Login implements registry.Keychain.
func (netKeychain) Login(_ context.Context, host, _ string) (ociregistry.Login, error) {
	if host != regHost {
		return ociregistry.Login{}, nil
	}
	return ociregistry.Login{Username: netUser, Password: netPassword}, nil
}

func (n *netWorld) remote(t *testing.T, tr http.RoundTripper) *ociregistry.Remote {
	t.Helper()
	r, err := ociregistry.NewRemote(regHost, "ml/churn", ociregistry.RemoteOptions{
		Transport: tr, Keychain: netKeychain{}, Connections: 1, Retry: ociregistry.RetryPolicy{Attempts: 2, Wait: time.Second, MaxWait: 5 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// upload brings what the publisher has made so far into the registry and the mirror.
func (n *netWorld) upload(t *testing.T, extra ...[]byte) {
	t.Helper()
	tr := n.transport(func() time.Time { return n.Now })
	defer tr.CloseIdleConnections()
	repo := n.remote(t, tr)
	var manifests [][]byte
	blobs := append([][]byte{[]byte(artifact.EmptyConfig)}, extra...)
	for _, b := range n.reg.blobs {
		if m, err := artifact.ParseManifest(b); err == nil && m.SchemaVersion == 2 {
			manifests = append(manifests, b)
			continue
		}
		blobs = append(blobs, b)
	}
	lay := func(d artifact.Digest, b []byte) {
		path := filepath.Join(n.dir, "blobs", "sha256", d.Hex())
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range blobs {
		d, err := ociregistry.PushBytes(t.Context(), repo, "application/octet-stream", b)
		if err != nil {
			t.Fatal(err)
		}
		lay(d.Digest, b)
	}
	x := artifact.Index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex}
	for _, b := range manifests {
		d, err := repo.PushManifest(t.Context(), b, artifact.MediaTypeManifest, "")
		if err != nil {
			t.Fatal(err)
		}
		lay(d.Digest, b)
	}
	for tag, d := range n.reg.tags {
		b := n.reg.blobs[d]
		desc, err := repo.PushManifest(t.Context(), b, artifact.MediaTypeManifest, tag)
		if err != nil {
			t.Fatal(err)
		}
		desc.Annotations = map[string]string{ociregistry.AnnotationName: "churn:" + tag}
		x.Manifests = append(x.Manifests, desc)
	}
	ib, err := json.Marshal(x)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, "index.json"), ib, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// injector counts the requests of a device and spoils one, or all from one on.
type injector struct {
	next  http.RoundTripper
	proto string
	host  string // whose requests count; "": all
	jump  func(years int)
	sway  func(d time.Duration) // sets the clock to that much beside the right time, any number of times
	drop  func()                // closes unused connections, so that the next request needs a new one

	mu    sync.Mutex
	n     int
	at    int // from 1; 0: nothing is spoiled
	on    bool
	kind  string
	bytes int64

	leads string        // where the name service leads; "": to the right address
	takes time.Duration // how long it thinks
}

// dial is what the transport dials with.
func (i *injector) dial(w *wire) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		i.mu.Lock()
		leads, takes := i.leads, i.takes
		i.mu.Unlock()
		if takes > 0 {
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if leads != "" {
			addr = leads
		}
		return w.dial(ctx, network, addr)
	}
}

// names makes the next connection be looked up anew, with this outcome.
func (i *injector) names(leads string, takes time.Duration) {
	i.mu.Lock()
	i.leads, i.takes = leads, takes
	i.mu.Unlock()
	i.drop()
}

func (i *injector) arm(kind string, at int, on bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kind, i.at, i.on, i.n = kind, at, on, 0
}

const faultHeader = "X-Test-Fault"

// RoundTrip implements http.RoundTripper.
func (i *injector) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	if i.host == "" || r.URL.Host == i.host {
		i.n++
	}
	hit := i.at > 0 && (i.n == i.at || i.on && i.n > i.at) && (i.host == "" || r.URL.Host == i.host)
	kind, n := i.kind, i.n
	i.leads, i.takes = "", 0
	i.mu.Unlock()
	if !hit {
		return i.pass(r)
	}
	op := func(op string, err error) (*http.Response, error) {
		return nil, &net.OpError{Op: op, Net: "tcp", Err: err}
	}
	switch kind {
	case "DNS gone":
		return op("dial", &net.DNSError{Err: "no such host", Name: r.URL.Host, IsNotFound: true})
	case "refused":
		return op("dial", syscall.ECONNREFUSED)
	case "reset":
		return op("read", syscall.ECONNRESET)
	case "TLS error":
		return nil, &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
	case "DNS slow":
		i.names("", 30*time.Second)
		return i.pass(r)
	case "DNS leads elsewhere":
		i.names(otherAddr, 0)
		return i.pass(r)
	case "certificate expired":
		i.names(lateAddr, 0)
		return i.pass(r)
	case "clock to and fro":
		i.sway([]time.Duration{24 * time.Hour, -24 * time.Hour, 10 * time.Minute, -10 * time.Minute, 40 * 24 * time.Hour, 0}[n%6])
		return i.pass(r)
	case "clock +50 y":
		i.jump(50)
		return i.pass(r)
	case "clock -50 y":
		i.jump(-50)
		return i.pass(r)
	}
	x := r.Clone(r.Context())
	x.Header.Set(faultHeader, kind)
	return i.pass(x)
}

func (i *injector) pass(r *http.Request) (*http.Response, error) {
	resp, err := i.next.RoundTrip(r)
	if err == nil {
		if (resp.ProtoMajor == 2) != (i.proto == "h2") {
			return nil, fmt.Errorf("%s in place of %s", resp.Proto, i.proto)
		}
		resp.Body = &countedBody{resp.Body, i}
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	i *injector
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.i.mu.Lock()
	c.i.bytes += int64(n)
	c.i.mu.Unlock()
	return n, err
}

// faulty does to an answer what the request's header asks for.
func faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := r.Header.Get(faultHeader)
		r.Header.Del(faultHeader)
		if kind == "" {
			next.ServeHTTP(w, r)
			return
		}
		status, wait := 0, ""
		switch kind {
		case "401":
			status = http.StatusUnauthorized
		case "403", "404", "429", "500", "503":
			status, _ = strconv.Atoi(kind)
		case "429, in 2 minutes":
			status, wait = http.StatusTooManyRequests, "120"
		case "429, in 10 years":
			status, wait = http.StatusTooManyRequests, strconv.Itoa(10*365*24*3600)
		case "429, on a date in 10 years":
			status, wait = http.StatusTooManyRequests, time.Now().AddDate(10, 0, 0).UTC().Format(http.TimeFormat)
		case "503, in 10^20 seconds":
			status, wait = http.StatusServiceUnavailable, "100000000000000000000"
		case "503, on a date long past":
			status, wait = http.StatusServiceUnavailable, "Thu, 01 Jan 1970 00:00:00 GMT"
		case "closes the connection": // GOAWAY of HTTP/2
			w.Header().Set("Connection", "close")
			next.ServeHTTP(w, r)
			return
		case "503, on a date":
			status, wait = http.StatusServiceUnavailable, time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat)
		case "redirect loop":
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
			return
		case "redirect to another host":
			http.Redirect(w, r, "https://"+evilHost+r.URL.Path+"?x=1", http.StatusTemporaryRedirect)
			return
		case "redirect to http":
			http.Redirect(w, r, "http://"+r.Host+r.URL.Path+"?x=1", http.StatusTemporaryRedirect)
			return
		case "redirect to a file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
			return
		case "captive portal":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html><body>Please accept the terms of this network</body></html>")
			return
		case "gzip bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 16<<20))
			_ = z.Close()
			return
		case "headers of 1 MB":
			w.Header().Set("X-Junk", strings.Repeat("x", 1<<20))
			next.ServeHTTP(w, r)
			return
		case "stall before the answer":
			hang(r)
			return
		case "cut before the answer":
			panic(http.ErrAbortHandler)
		}
		if status != 0 {
			if wait != "" {
				w.Header().Set("Retry-After", wait)
			}
			w.WriteHeader(status)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		part := len(body)
		size := len(body)
		switch kind {
		case "cut after the header":
			part = 0
		case "cut after 1 byte":
			part = min(1, size)
		case "cut in the middle", "stall in the middle":
			part = size / 2
		case "closes the connection, then cut": // GOAWAY of HTTP/2 with an answer under way, which is not finished
			w.Header().Set("Connection", "close")
			part = size / 2
		case "cut at the last byte":
			part = max(size-1, 0)
		case "length too short":
			body, part, size = body[:size/2], size/2, size/2
		case "length too long":
			size += 10
		case "flipped bit":
			body = bytes.Clone(body)
			if size > 0 {
				body[size/2] ^= 0x10
			} else if d := w.Header().Get("Docker-Content-Digest"); d != "" {
				w.Header().Set("Docker-Content-Digest", string(artifact.DigestOf([]byte(d))))
			}
		case "endless":
			w.Header().Del("Content-Length")
			w.WriteHeader(rec.Code)
			for buf, n := make([]byte, 64<<10), 0; n < 256 && r.Method != http.MethodHead; n++ { // 16 MB are endless here
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
			return
		}
		if r.Method != http.MethodHead {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		w.WriteHeader(rec.Code)
		if kind == "1 byte/s" {
			for i := range body {
				if _, err := w.Write(body[i : i+1]); err != nil {
					return
				}
				if http.NewResponseController(w).Flush() != nil {
					return
				}
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
					return
				}
			}
			return
		}
		_, _ = w.Write(body[:part])
		_ = http.NewResponseController(w).Flush()
		switch {
		case strings.HasPrefix(kind, "stall"):
			hang(r)
		case strings.HasPrefix(kind, "cut"), strings.HasSuffix(kind, "then cut"), kind == "length too long":
			panic(http.ErrAbortHandler)
		}
	})
}

// hang waits until the client is gone; not for ever, since a client that already sent its next request is not seen to go.
func hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(24 * time.Hour):
	}
}
