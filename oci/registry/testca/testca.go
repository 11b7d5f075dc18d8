// Package testca makes certificates for tests.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority that only the test knows, with one certificate for servers (on loopback,
// and as registry.example and thief.test) and one for a client.
type CA struct {
	File string // its certificate, PEM
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority.
func New(t testing.TB) *CA {
	t.Helper()
	ca := &CA{dir: t.TempDir()}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	ca.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.File = ca.write(t, "ca.pem", "CERTIFICATE", der)
	ca.issue(t, "server", x509.ExtKeyUsageServerAuth)
	ca.issue(t, "client", x509.ExtKeyUsageClientAuth)
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (ca *CA) issue(t testing.TB, name string, use x509.ExtKeyUsage) {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, DNSNames: []string{"localhost", "registry.example", "thief.test"},
	}, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ca.write(t, name+".pem", "CERTIFICATE", der)
	ca.write(t, name+".key", "PRIVATE KEY", raw)
}

func (ca *CA) write(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	p := filepath.Join(ca.dir, name)
	if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// Server names the files of the servers' certificate and key.
func (ca *CA) Server() (cert, key string) {
	return filepath.Join(ca.dir, "server.pem"), filepath.Join(ca.dir, "server.key")
}

// Client names the files of the client's certificate and key.
func (ca *CA) Client() (cert, key string) {
	return filepath.Join(ca.dir, "client.pem"), filepath.Join(ca.dir, "client.key")
}

// Pool holds the authority.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// ServerConfig is of a server; clients makes it ask for the client certificate.
func (ca *CA) ServerConfig(t testing.TB, clients bool) *tls.Config {
	t.Helper()
	c, err := tls.LoadX509KeyPair(ca.Server())
	if err != nil {
		t.Fatal(err)
	}
	o := &tls.Config{Certificates: []tls.Certificate{c}}
	if clients {
		o.ClientCAs, o.ClientAuth = ca.Pool(), tls.RequireAndVerifyClientCert
	}
	return o
}

// CertsDir makes a folder in docker's layout of certificates (certs.d) for one registry.
func (ca *CA) CertsDir(t testing.TB, host string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, host), 0o755); err != nil {
		t.Fatal(err)
	}
	cert, key := ca.Client()
	for from, to := range map[string]string{ca.File: "ca.crt", cert: "client.cert", key: "client.key"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, host, to), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
