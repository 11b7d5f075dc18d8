package keyless

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Services are the servers that a signature is made with.
type Services struct {
	Fulcio string // certificate authority
	Rekor  []Log
	TSA    []string // RFC 3161 authorities, full URLs
}

// Log is a transparency log.
type Log struct {
	URL     string
	Version uint32 // of Rekor's API: 1 or 2
}

// Public are the public-good services of the Sigstore project. Its log of version 1 states the time; newer logs change
// their name each year and stand in the project's signing configuration only.
func Public() Services {
	return Services{
		Fulcio: "https://fulcio.sigstore.dev", Rekor: []Log{{"https://rekor.sigstore.dev", 1}}, TSA: []string{"https://timestamp.sigstore.dev/api/v1/timestamp"},
	}
}

// FromConfig chooses the services that a sigstore signing_config.json (v0.2) names, as of now.
func FromConfig(raw []byte, now time.Time) (Services, error) {
	var s Services
	c, err := root.NewSigningConfigFromJSON(raw)
	if err != nil {
		return s, fmt.Errorf("parse signing configuration: %w", err)
	}
	ca, err := root.SelectService(c.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions, now)
	if err != nil {
		return s, fmt.Errorf("signing configuration: certificate authority: %w", err)
	}
	s.Fulcio = ca.URL
	if urls := c.RekorLogURLs(); len(urls) > 0 {
		logs, err := root.SelectServices(urls, c.RekorLogURLsConfig(), sign.RekorAPIVersions, now)
		if err != nil {
			return s, fmt.Errorf("signing configuration: log: %w", err)
		}
		for _, l := range logs {
			s.Rekor = append(s.Rekor, Log{l.URL, l.MajorAPIVersion})
		}
	}
	if urls := c.TimestampAuthorityURLs(); len(urls) > 0 {
		tsas, err := root.SelectServices(urls, c.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, now)
		if err != nil {
			return s, fmt.Errorf("signing configuration: timestamp authority: %w", err)
		}
		for _, t := range tsas {
			s.TSA = append(s.TSA, t.URL)
		}
	}
	return s, nil
}

// Check refuses services that cannot make a signature that verifies, and ones that would get the token in the clear.
func (s Services) Check() error {
	for _, u := range s.urls() {
		p, err := url.Parse(u)
		if err != nil || p.Host == "" {
			return diag.New(diag.Usage, "%q is not the URL of a service", u)
		}
		if err := secure("the service", p); err != nil {
			return err
		}
	}
	v1 := slices.ContainsFunc(s.Rekor, func(l Log) bool { return l.Version == 1 })
	switch {
	case s.Fulcio == "":
		return diag.New(diag.Usage, "no certificate authority is named").Hint("pass --fulcio-url, or --signing-config FILE")
	case len(s.TSA) == 0 && len(s.Rekor) == 0:
		return diag.New(diag.Usage, "nothing would say when the certificate was used").Hint("pass --timestamp-url, or --signing-config FILE")
	case len(s.TSA) == 0 && !v1:
		return diag.New(diag.Usage, "a log of Rekor v2 states no time: a timestamp authority is needed too").Hint("pass --timestamp-url, or --signing-config FILE")
	}
	return nil
}

func (s Services) urls() []string {
	var out []string
	if s.Fulcio != "" {
		out = append(out, s.Fulcio)
	}
	for _, l := range s.Rekor {
		out = append(out, l.URL)
	}
	return append(out, s.TSA...)
}

// Hosts lists what Sign will contact, in that order, each once.
func (s Services) Hosts() []string {
	var out []string
	for _, u := range s.urls() {
		if p, err := url.Parse(u); err == nil && !slices.Contains(out, p.Host) {
			out = append(out, p.Host)
		}
	}
	return out
}

// secure refuses plain http to other machines: a token would be sent in the clear.
func secure(what string, u *url.URL) error {
	host := u.Hostname()
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme == "https" || u.Scheme == "http" && loopback {
		return nil
	}
	return diag.New(diag.Usage, "%s %s://%s is not https, and not on this machine", what, u.Scheme, u.Host).
		Hint("use %s", "https://"+strings.TrimPrefix(u.Host, "//"))
}
