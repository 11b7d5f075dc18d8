package config

import (
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/registry"
)

// Report is one place that the signed status goes to.
type Report struct {
	To   string `json:"to"`             // registry, file or http
	Repo string `json:"repo,omitempty"` // registry: another repository of each channel's registry; "": the model's
	Path string `json:"path,omitempty"` // file: the folder
	URL  string `json:"url,omitempty"`  // http: what is POSTed to; the other fields are for it too
	// TokenFile holds a bearer token, mode 0600; it is read for each report.
	TokenFile  string   `json:"token_file,omitempty"`
	CAFile     string   `json:"ca_file,omitempty"`
	ClientCert string   `json:"client_cert,omitempty"`
	ClientKey  string   `json:"client_key,omitempty"`
	PlainHTTP  bool     `json:"plain_http,omitempty"` // allow http to hosts other than this machine
	Every      Duration `json:"every,omitzero"`       // a report at least so often, changed or not; the shortest of all counts, default 24h
}

// defaultEvery is how long a device is silent at most when nothing changes.
const defaultEvery = 24 * time.Hour

func (r *Report) paths() []*string {
	return []*string{&r.Path, &r.TokenFile, &r.CAFile, &r.ClientCert, &r.ClientKey}
}

func CheckReports(rs []Report) error {
	seen := map[string]bool{}
	for i, r := range rs {
		at := fmt.Sprintf("reports[%d]", i)
		http := r.URL != "" || r.TokenFile != "" || r.CAFile != "" || r.ClientCert != "" || r.ClientKey != "" || r.PlainHTTP
		switch {
		case r.To == "registry" && (http || r.Path != ""):
			return diag.Errorf("%s: the registry is that of each channel, with its credential; it takes no other keys than repo and every", at)
		case r.To == "registry" && r.Repo != "" && !registry.ValidRepo(r.Repo):
			return diag.Errorf("%s.repo: %q is not a repository name", at, r.Repo)
		case r.To != "registry" && r.Repo != "":
			return diag.Errorf("%s: repo is for the registry", at)
		case r.To == "file" && (http || r.Path == ""):
			return diag.Errorf("%s: a file needs path, and nothing else", at)
		case r.To == "http" && (r.Path != "" || r.URL == ""):
			return diag.Errorf("%s: http needs url", at)
		case r.To != "registry" && r.To != "file" && r.To != "http":
			return diag.Errorf("%s.to: %q is not registry, file or http", at, r.To)
		case r.ClientKey != "" && r.ClientCert == "":
			return diag.Errorf("%s: client_key without client_cert", at)
		case r.Every != 0 && time.Duration(r.Every) < time.Minute:
			return diag.Errorf("%s.every: less than a minute", at)
		}
		if r.To == "http" {
			if err := report.CheckURL(r.URL, func(host string) bool { return r.PlainHTTP || registry.Loopback(host) }); err != nil {
				return diag.Errorf("%s.url: %w", at, err)
			}
		}
		if id := r.To + r.Path + r.URL; seen[id] {
			return diag.Errorf("%s: given twice", at)
		} else {
			seen[id] = true
		}
	}
	return nil
}

// ReportEvery is the shortest interval of all.
func (c *Config) ReportEvery() time.Duration {
	every := defaultEvery
	for _, r := range c.Reports {
		if r.Every != 0 {
			every = min(every, time.Duration(r.Every))
		}
	}
	return every
}

func (r *Report) HTTP() (*report.HTTP, error) {
	t, err := registry.TLSOptions{CAFile: r.CAFile, CertFile: r.ClientCert, KeyFile: r.ClientKey}.ForURL(r.URL)
	if err != nil {
		return nil, err
	}
	h := &report.HTTP{URL: r.URL, Transport: t, UserAgent: "waybill-edge/" + version.Number}
	if r.TokenFile != "" {
		h.Token = func() (string, error) {
			if err := Private(r.TokenFile, "the token"); err != nil {
				return "", err
			}
			return ReadSecret(r.TokenFile)
		}
	}
	return h, nil
}
