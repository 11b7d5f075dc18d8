// Package monitor keeps the runtime's metrics and writes them in Prometheus' text format. Names and labels are a
// contract with dashboards: see docs/metrics.md.
package monitor

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Metrics is one process's set of metrics. It is safe for concurrent use.
type Metrics struct {
	set *metrics.Set
}

// New makes an empty set.
func New() *Metrics { return &Metrics{set: metrics.NewSet()} }

// buckets are the upper bounds of the latency histogram in seconds.
var buckets = [...]float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Request counts one inference request of model (the artifact's digest) that was answered with an HTTP status.
func (m *Metrics) Request(model, digest string, status int) {
	m.set.GetOrCreateCounter(series("waybill_requests_total", "model", model, "digest", digest, "code", fmt.Sprint(status))).Inc()
}

// Inference records the time that one successful inference took, without queueing and network.
func (m *Metrics) Inference(model, digest string, d time.Duration) {
	s := d.Seconds()
	l := []string{"model", model, "digest", digest}
	for _, b := range buckets {
		c := m.set.GetOrCreateCounter(series("waybill_inference_seconds_bucket", append(l, "le", fmt.Sprint(b))...))
		if s <= b {
			c.Inc()
		}
	}
	m.set.GetOrCreateCounter(series("waybill_inference_seconds_bucket", append(l, "le", "+Inf")...)).Inc()
	m.set.GetOrCreateCounter(series("waybill_inference_seconds_count", l...)).Inc()
	m.set.GetOrCreateFloatCounter(series("waybill_inference_seconds_sum", l...)).Add(s)
}

// InFlight adds to the number of requests being worked on.
func (m *Metrics) InFlight(model string, delta int) {
	m.set.GetOrCreateCounter(series("waybill_requests_in_flight", "model", model)).Add(delta)
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

// types are the TYPE lines of the families above.
const types = "# TYPE waybill_requests_total counter\n" +
	"# TYPE waybill_inference_seconds histogram\n" +
	"# TYPE waybill_requests_in_flight gauge\n" +
	"# TYPE waybill_swaps_total counter\n" +
	"# TYPE waybill_model_active gauge\n"

// Write writes all metrics, those of the Go process included. A TYPE line without samples is legal.
func (m *Metrics) Write(w io.Writer) {
	_, _ = io.WriteString(w, types)
	m.set.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
}

// ServeHTTP answers a scrape.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	m.Write(w)
}
