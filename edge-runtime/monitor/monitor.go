// Package monitor keeps the runtime's metrics and writes them in Prometheus' text format. Names and labels are a
// contract with dashboards: see docs/metrics.md.
package monitor

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// Metrics is one process's set of metrics. It is safe for concurrent use.
type Metrics struct {
	set   *metrics.Set
	hists sync.Map // histKey -> *Histogram

	mu      sync.Mutex
	more    []func(*Exposition)
	digests map[string][]*Model // by name, the one that serves last
}

// New makes an empty set.
func New() *Metrics { return &Metrics{set: metrics.NewSet(), digests: map[string][]*Model{}} }

// buckets are the upper bounds of the latency histograms in seconds.
var buckets = [...]float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Request counts one inference request that reached no model.
func (m *Metrics) Request(model, digest string, status int) {
	m.set.GetOrCreateCounter(series("waybill_requests_total", "model", model, "digest", digest, "code", fmt.Sprint(status))).Inc()
}

// Swap counts a change of the active digest.
func (m *Metrics) Swap(model string) {
	m.set.GetOrCreateCounter(series("waybill_swaps_total", "model", model)).Inc()
}

// Active marks digest as the one that serves model (1) or no longer serves it (0).
func (m *Metrics) Active(model, digest string, on bool) {
	var v uint64
	if on {
		v = 1
	}
	m.set.GetOrCreateCounter(series("waybill_model_active", "model", model, "digest", digest)).Set(v)
}

// Set gives access to the set, for packages that add series of their own (prefix waybill_).
func (m *Metrics) Set() *metrics.Set { return m.set }

// series formats a name with label pairs.
func series(name string, labels ...string) string {
	var b strings.Builder
	b.WriteString(name)
	b.WriteByte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(labels[i])
		b.WriteString(`="`)
		b.WriteString(escape.Replace(labels[i+1]))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// families are the metrics of this package, in the order of docs/metrics.md.
var families = [...]struct{ name, kind, help string }{
	{"waybill_requests_total", "counter", "Inference requests by status; digest is empty when no model was reached."},
	{"waybill_rejected_total", "counter", "Inference requests turned away before a model worked on them, by reason."},
	{"waybill_request_seconds", "histogram", "Time from arrival to answer of answered inference requests."},
	{"waybill_queue_seconds", "histogram", "Time that inference requests waited for their turn."},
	{"waybill_inference_seconds", "histogram", "Time that the modules worked for an answered request, without queueing and network."},
	{"waybill_requests_in_flight", "gauge", "Inference requests being worked on or waiting."},
	{"waybill_requests_queued", "gauge", "Inference requests waiting for their turn."},
	{"waybill_swaps_total", "counter", "Activations."},
	{"waybill_swap_drain_seconds", "histogram", "Time from the replacement of a model to the end of its last request or session."},
	{"waybill_model_active", "gauge", "1 for the digest that serves, 0 for those that did."},
	{"waybill_sessions", "gauge", "Streams whose state the server keeps."},
	{"waybill_session_bytes", "gauge", "Memory of the streams' states."},
	{"waybill_sessions_started_total", "counter", "Streams begun."},
	{"waybill_sessions_ended_total", "counter", "Streams ended, by reason."},
	{"waybill_ready", "gauge", "1 when every configured model serves and the server does not drain."},
	{"waybill_live", "gauge", "1 while requests can make progress."},
}

// Write writes all metrics, those of the Go process included. Families without samples show their TYPE line alone.
func (m *Metrics) Write(w io.Writer) {
	var b bytes.Buffer
	m.set.WritePrometheus(&b)
	m.hists.Range(func(k, h any) bool {
		h.(*Histogram).write(&b, k.(histKey).name, k.(histKey).labels)
		return true
	})
	byFamily := map[string][]string{}
	var rest []string
	for line := range strings.Lines(b.String()) {
		name := line[:max(0, strings.IndexAny(line, "{ "))]
		if f := familyOf(name); f != "" {
			byFamily[f] = append(byFamily[f], line)
		} else {
			rest = append(rest, line)
		}
	}
	for _, f := range families {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		for _, line := range byFamily[f.name] {
			_, _ = io.WriteString(w, line)
		}
	}
	for _, line := range rest {
		_, _ = io.WriteString(w, line)
	}
	m.mu.Lock()
	more := m.more
	m.mu.Unlock()
	e := &Exposition{w: w}
	for _, f := range more {
		f(e)
	}
	writeProcess(e)
}

// familyOf tells which of the families a sample belongs to, "" for none.
func familyOf(sample string) string {
	for _, f := range families {
		if rest, ok := strings.CutPrefix(sample, f.name); ok {
			switch rest {
			case "", "_bucket", "_sum", "_count":
				return f.name
			}
		}
	}
	return ""
}

// ServeHTTP answers a scrape.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	m.Write(w)
}
