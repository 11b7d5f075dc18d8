package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// TLSOptions are certificates besides the system's.
type TLSOptions struct {
	CAFile   string   // PEM: authorities that are believed too
	CertFile string   // PEM: shown to the registry itself and to no other host
	KeyFile  string   // of CertFile; "" means that it is in the same file
	Dirs     []string // each may have a folder for the registry in docker's layout: HOST/*.crt, *.cert with *.key
}

// CertDirs are the folders in which docker and podman look: for everybody, and for the user with this configuration
// folder (XDG_CONFIG_HOME or ~/.config; "" for none).
func CertDirs(userConfig string) []string {
	dirs := []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	if userConfig != "" {
		dirs = append([]string{filepath.Join(userConfig, "containers", "certs.d"), filepath.Join(userConfig, "docker", "certs.d")}, dirs...)
	}
	return dirs
}

// transport is NewTransport with the certificates of o for a registry. A registry that redirects elsewhere does not make
// us introduce ourselves there: only requests to host show the client certificate.
func (o TLSOptions) transport(host string, idle time.Duration) (http.RoundTripper, error) {
	if o.KeyFile != "" && o.CertFile == "" {
		return nil, diag.New(diag.Usage, "there is a key for a client certificate, and no certificate")
	}
	files, err := o.files(host)
	if err != nil {
		return nil, err
	}
	if o.CAFile == "" && o.CertFile == "" && len(files) == 0 {
		return newTransport(idle), nil
	}
	base := tlsConfig()
	add := func(file string) error {
		b, err := os.ReadFile(file)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "read the certificate authority in %s", file)
		}
		if base.RootCAs == nil {
			if base.RootCAs, err = x509.SystemCertPool(); err != nil {
				base.RootCAs = x509.NewCertPool() // a machine without any
			}
		}
		if !base.RootCAs.AppendCertsFromPEM(b) {
			return diag.New(diag.Usage, "%s has no certificate in PEM form", file).Hint("openssl x509 -in %s -noout -subject", file)
		}
		return nil
	}
	if o.CAFile != "" {
		if err := add(o.CAFile); err != nil {
			return nil, err
		}
	}
	var client []tls.Certificate
	pair := func(cert, key string) error {
		c, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "read the client certificate %s with key %s", cert, key)
		}
		client = append(client, c)
		return nil
	}
	if o.CertFile != "" {
		key := o.KeyFile
		if key == "" {
			key = o.CertFile
		}
		if err := pair(o.CertFile, key); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".crt") {
			err = add(f)
		} else {
			err = pair(f, strings.TrimSuffix(f, ".cert")+".key")
		}
		if err != nil {
			return nil, err
		}
	}
	others := newTransport(idle)
	others.TLSClientConfig = base
	if len(client) == 0 {
		return others, nil
	}
	own := newTransport(idle)
	own.TLSClientConfig = base.Clone()
	own.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(sessions) // a session holds who we said we are
	own.TLSClientConfig.Certificates = client
	return &introducer{host: host, own: own, others: others}, nil
}

// ForURL is a transport with these certificates for something else than a registry: the client certificate is shown to the
// host of the URL and to no other.
func (o TLSOptions) ForURL(s string) (http.RoundTripper, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, diag.New(diag.Usage, "not a web address")
	}
	return o.transport(u.Host, 0)
}

// sessions is how many TLS sessions are remembered: a connection that is taken up again costs no certificates.
const sessions = 8

func tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(sessions)}
}

// TransportFor makes the transport that a Remote of host would have: with o, and unused connections kept for the time of idle.
func TransportFor(host string, o TLSOptions, idle time.Duration) (http.RoundTripper, error) {
	return o.transport(host, idle)
}

// files lists the certificates in the first of the folders that has some for host.
func (o TLSOptions) files(host string) (files []string, err error) {
	for _, d := range o.Dirs {
		dir := filepath.Join(d, host)
		es, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
			continue
		}
		if err != nil {
			return nil, diag.Wrap(diag.Usage, err, "read the certificates for %s", host)
		}
		for _, e := range es {
			if x := filepath.Ext(e.Name()); x == ".crt" || x == ".cert" {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
		if len(files) > 0 {
			break
		}
	}
	return files, nil
}

type introducer struct {
	host        string
	own, others http.RoundTripper
}

func (i *introducer) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.EqualFold(r.URL.Host, i.host) {
		return i.own.RoundTrip(r)
	}
	return i.others.RoundTrip(r)
}

// untrusted tells certificates that were not believed from other failures of a handshake.
func untrusted(err error) bool {
	var v *tls.CertificateVerificationError
	return errors.As(err, &v)
}
