package device

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
)

// aside is another repository on the registry of each channel.
func aside(c *config.Config, repo string) (map[string]*registry.Remote, error) {
	out := map[string]*registry.Remote{}
	for _, ch := range c.Channels {
		ch.Repo = repo
		r, err := ch.Remote()
		if err != nil {
			return nil, err
		}
		out[ch.Name] = r
	}
	return out, nil
}

// sinks are the places of the configuration. repos are the registries by channel; a channel with no_reports is not
// reported anywhere.
func sinks(c *config.Config, fsys fsx.FS, repos map[string]*registry.Remote, log *slog.Logger) []report.Sink {
	rs := c.Reports
	if rs == nil {
		rs = []config.Report{{To: "registry"}}
	}
	var out []report.Sink
	for i, r := range rs {
		switch r.To {
		case "registry":
			if r.Repo != "" {
				aside, err := aside(c, r.Repo)
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
			s, err := r.HTTP()
			if err != nil { // a certificate that is gone must not keep the device from running
				log.Error("a report goes nowhere", "reports", i, "error", err)
				continue
			}
			out = append(out, s)
		}
	}
	return out
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
func newSpool(cfg *config.Config, device string, repos map[string]*registry.Remote, log *slog.Logger) (*report.Spool, map[string]agent.Reporter) {
	offline := true
	for _, c := range cfg.Channels {
		offline = offline && c.NoReports
	}
	if offline || cfg.Reports != nil && len(cfg.Reports) == 0 {
		return nil, nil
	}
	spool, err := report.Open(fsx.OS{}, filepath.Join(cfg.State, "spool"), sinks(cfg, fsx.OS{}, repos, log), report.Options{Log: log})
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
