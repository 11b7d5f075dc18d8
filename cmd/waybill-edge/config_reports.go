package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
)

// reportConfig is one place that the signed status goes to.
type reportConfig struct {
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
	Every      duration `json:"every,omitzero"`       // a report at least so often, changed or not; the shortest of all counts, default 24h
}

// defaultEvery is how long a device is silent at most when nothing changes.
const defaultEvery = 24 * time.Hour

func (r *reportConfig) paths() []*string {
	return []*string{&r.Path, &r.TokenFile, &r.CAFile, &r.ClientCert, &r.ClientKey}
}

func checkReports(rs []reportConfig) error {
	seen := map[string]bool{}
	for i, r := range rs {
		at := fmt.Sprintf("reports[%d]", i)
		http := r.URL != "" || r.TokenFile != "" || r.CAFile != "" || r.ClientCert != "" || r.ClientKey != "" || r.PlainHTTP
		switch {
		case r.To == "registry" && (http || r.Path != ""):
			return fmt.Errorf("%s: the registry is that of each channel, with its credential; it takes no other keys than repo and every", at)
		case r.To == "registry" && r.Repo != "" && !registry.ValidRepo(r.Repo):
			return fmt.Errorf("%s.repo: %q is not a repository name", at, r.Repo)
		case r.To != "registry" && r.Repo != "":
			return fmt.Errorf("%s: repo is for the registry", at)
		case r.To == "file" && (http || r.Path == ""):
			return fmt.Errorf("%s: a file needs path, and nothing else", at)
		case r.To == "http" && (r.Path != "" || r.URL == ""):
			return fmt.Errorf("%s: http needs url", at)
		case r.To != "registry" && r.To != "file" && r.To != "http":
			return fmt.Errorf("%s.to: %q is not registry, file or http", at, r.To)
		case r.ClientKey != "" && r.ClientCert == "":
			return fmt.Errorf("%s: client_key without client_cert", at)
		case r.Every != 0 && time.Duration(r.Every) < time.Minute:
			return fmt.Errorf("%s.every: less than a minute", at)
		}
		if r.To == "http" {
			if err := report.CheckURL(r.URL, func(host string) bool { return r.PlainHTTP || registry.Loopback(host) }); err != nil {
				return fmt.Errorf("%s.url: %w", at, err)
			}
		}
		if id := r.To + r.Path + r.URL; seen[id] {
			return fmt.Errorf("%s: given twice", at)
		} else {
			seen[id] = true
		}
	}
	return nil
}

// reportEvery is the shortest interval of all.
func (c *config) reportEvery() time.Duration {
	every := defaultEvery
	for _, r := range c.Reports {
		if r.Every != 0 {
			every = min(every, time.Duration(r.Every))
		}
	}
	return every
}

// aside is another repository on the registry of each channel.
func (c *config) aside(repo string) (map[string]*registry.Remote, error) {
	out := map[string]*registry.Remote{}
	for _, ch := range c.Channels {
		ch.Repo = repo
		r, err := ch.remote()
		if err != nil {
			return nil, err
		}
		out[ch.Name] = r
	}
	return out, nil
}

// sinks are the places of the configuration. repos are the registries by channel; a channel with no_reports is not
// reported anywhere.
func (c *config) sinks(fsys fsx.FS, repos map[string]*registry.Remote, log *slog.Logger) []report.Sink {
	rs := c.Reports
	if rs == nil {
		rs = []reportConfig{{To: "registry"}}
	}
	var out []report.Sink
	for i, r := range rs {
		switch r.To {
		case "registry":
			if r.Repo != "" {
				aside, err := c.aside(r.Repo)
				if err != nil {
					log.Error("a report goes nowhere", "reports", i, "error", err)
					continue
				}
				repos = aside
			}
			out = append(out, registrySink(repos))
		case "file":
			out = append(out, report.Folder{FS: fsys, Path: r.Path})
		case "http":
			s, err := r.http()
			if err != nil { // a certificate that is gone must not keep the device from running
				log.Error("a report goes nowhere", "reports", i, "error", err)
				continue
			}
			out = append(out, s)
		}
	}
	return out
}

func (r *reportConfig) http() (*report.HTTP, error) {
	t, err := registry.TLSOptions{CAFile: r.CAFile, CertFile: r.ClientCert, KeyFile: r.ClientKey}.ForURL(r.URL)
	if err != nil {
		return nil, err
	}
	h := &report.HTTP{URL: r.URL, Transport: t, UserAgent: "waybill-edge/" + version.Number}
	if r.TokenFile != "" {
		h.Token = func() (string, error) {
			if err := private(r.TokenFile, "the token"); err != nil {
				return "", err
			}
			return readSecret(r.TokenFile)
		}
	}
	return h, nil
}

// registrySink keeps the newest report of each channel under a tag of this device, beside the model or in a repository of
// its own. It attaches nothing to the model: what is attached is read by every gate, and a fleet would fill the list.
type registrySink map[string]*registry.Remote

// ID implements report.Sink.
func (registrySink) ID() string { return "registry" }

// Send implements report.Sink.
func (s registrySink) Send(ctx context.Context, i report.Item) error {
	repo, ok := s[i.Channel]
	if !ok {
		return nil // a channel that is not followed any more
	}
	layer, err := registry.PushBytes(ctx, repo, artifact.MediaTypeBundle, i.Bundle)
	if err == nil {
		_, err = registry.PushBytes(ctx, repo, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	}
	if err != nil {
		return err
	}
	m, err := fleet.StatusManifest(layer, evidence.TypeStatus)
	if err == nil {
		_, err = repo.PushManifest(ctx, m, artifact.MediaTypeManifest, fleet.StatusTag(i.Channel, i.Device))
	}
	return err
}

// spooled hands the agent's reports of one channel to the spool.
type spooled struct {
	spool  *report.Spool
	device string
	name   string
}

// Report implements agent.Reporter. It waits for nobody.
func (s spooled) Report(_ context.Context, slot state.Slot, bundle []byte) error {
	i := report.Item{Device: s.device, Channel: s.name, Seq: slot.Seq, At: time.Now().UTC().Truncate(time.Second), Bundle: bundle}
	if st := statusOf(bundle); st != nil {
		i.Seq, i.At = st.Seq, st.At
	}
	return s.spool.Put(i)
}

// statusOf reads back what the agent signed; nil when that cannot be read.
func statusOf(bundle []byte) *evidence.Status {
	b, err := evidence.ParseBundle(bundle)
	if err != nil {
		return nil
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return nil
	}
	st, err := evidence.ParseStatus(s.Predicate)
	if err != nil {
		return nil
	}
	return st
}

// newSpool makes the spool and its reporters, by channel. Failing, it costs reports and nothing else.
func newSpool(cfg *config, device string, repos map[string]*registry.Remote, log *slog.Logger) (*report.Spool, map[string]agent.Reporter) {
	offline := true
	for _, c := range cfg.Channels {
		offline = offline && c.NoReports
	}
	if offline || cfg.Reports != nil && len(cfg.Reports) == 0 {
		return nil, nil
	}
	spool, err := report.Open(fsx.OS{}, filepath.Join(cfg.State, "spool"), cfg.sinks(fsx.OS{}, repos, log), report.Options{Log: log})
	if err != nil {
		log.Warn("reports that are not sent do not survive a restart", "error", err)
	}
	out := map[string]agent.Reporter{}
	for _, c := range cfg.Channels {
		if !c.NoReports {
			out[c.Name] = spooled{spool, device, c.Name}
		}
	}
	return spool, out
}

// postFlags say where a new device hands in its request.
type postFlags struct{ reportConfig }

func (o *postFlags) add(f *flags) {
	f.StringVar(&o.URL, "post", "", "`URL` that the request is POSTed to as JSON, once DIR is written")
	f.StringVar(&o.TokenFile, "post-token-file", "", "bearer token for it in `FILE`")
}

type poster struct{ *report.HTTP }

// poster is nil when nothing is to be posted.
func (o *postFlags) poster() (*poster, error) {
	if o.URL == "" {
		return nil, nil
	}
	o.To = "http"
	if err := checkReports([]reportConfig{o.reportConfig}); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "enroll: --post")
	}
	h, err := o.http()
	if err != nil {
		return nil, err
	}
	return &poster{h}, nil
}

// postWait bounds handing in a request.
const postWait = time.Minute

func (p *poster) post(ctx context.Context, r *fleet.Request) error {
	b, err := artifact.Canonical(r)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "enroll")
	}
	ctx, cancel := context.WithTimeout(ctx, postWait)
	defer cancel()
	if err := p.Post(ctx, b, "application/json", r.Device); err != nil {
		return diag.Wrap(diag.Registry, err, "hand in the request").Line("the device is enrolled; only the request was not handed in").
			Hint("run the same command again")
	}
	return nil
}
