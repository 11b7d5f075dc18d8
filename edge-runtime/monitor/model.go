package monitor

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// keptDigests is how many digests of one model keep their series: a device that is updated for years must not grow by each.
const keptDigests = 8

// Histogram counts durations in the buckets of docs/metrics.md. It is safe for concurrent use and allocates nothing.
type Histogram struct {
	counts [len(buckets) + 1]atomic.Uint64
	nanos  atomic.Int64
}

// Observe adds one duration.
func (h *Histogram) Observe(d time.Duration) {
	s := d.Seconds()
	i := 0
	for i < len(buckets) && s > buckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.nanos.Add(int64(d))
}

// Count is the number of observations.
func (h *Histogram) Count() (n uint64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// write writes the histogram's samples; labels are written already and stand between the braces.
func (h *Histogram) write(w io.Writer, name, labels string) {
	sep := ""
	if labels != "" {
		sep = ","
	}
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
		le := "+Inf"
		if i < len(buckets) {
			le = strconv.FormatFloat(buckets[i], 'g', -1, 64)
		}
		fmt.Fprintf(w, "%s_bucket{%s%sle=%q} %d\n", name, labels, sep, le, n)
	}
	fmt.Fprintf(w, "%s_sum{%s} %s\n%s_count{%s} %d\n", name, labels,
		strconv.FormatFloat(float64(h.nanos.Load())/1e9, 'g', -1, 64), name, labels, n)
}

// Model is the series of one activation: handles that are looked up once and not for each request.
type Model struct {
	m             *Metrics
	model, digest string
	Inference     *Histogram // time of the modules of answered requests
	codes         sync.Map   // int -> *metrics.Counter
}

// Name is the series of one name that models serve under, whatever digest.
type Name struct {
	InFlight *metrics.Counter // a gauge
	Queue    *Histogram       // time between arrival and the start of the work
	Requests map[string]*Histogram
}

// Protocols are the values of the label protocol.
var protocols = [...]string{"rest", "grpc"}

// Model returns the series of digest under the name model, and forgets those of digests that are long gone.
func (m *Metrics) Model(model, digest string) *Model {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.digests[model]
	for i, d := range kept {
		if d.digest == digest {
			m.digests[model] = append(append(kept[:i:i], kept[i+1:]...), d)
			return d
		}
	}
	d := &Model{m: m, model: model, digest: digest, Inference: m.histogram("waybill_inference_seconds", "model", model, "digest", digest)}
	kept = append(kept, d)
	for len(kept) > keptDigests {
		m.forget(kept[0])
		kept = kept[1:]
	}
	m.digests[model] = kept
	return d
}

// Answered counts one inference request that was answered with an HTTP status (or what stands for it over gRPC).
func (d *Model) Answered(status int) {
	c, ok := d.codes.Load(status)
	if !ok {
		c, _ = d.codes.LoadOrStore(status, d.m.set.GetOrCreateCounter(d.requests(status)))
	}
	c.(*metrics.Counter).Inc()
}

func (d *Model) requests(status int) string {
	return series("waybill_requests_total", "model", d.model, "digest", d.digest, "code", strconv.Itoa(status))
}

// forget drops the series of a digest. m.mu is held.
func (m *Metrics) forget(d *Model) {
	d.codes.Range(func(code, _ any) bool {
		m.set.UnregisterMetric(d.requests(code.(int)))
		return true
	})
	m.set.UnregisterMetric(series("waybill_model_active", "model", d.model, "digest", d.digest))
	name := strings.TrimSuffix(strings.TrimPrefix(series("", "model", d.model, "digest", d.digest), "{"), "}")
	m.hists.Delete(histKey{"waybill_inference_seconds", name})
}

// Name returns the series of a name.
func (m *Metrics) Name(model string) *Name {
	n := &Name{
		InFlight: m.set.GetOrCreateCounter(series("waybill_requests_in_flight", "model", model)),
		Queue:    m.histogram("waybill_queue_seconds", "model", model),
		Requests: map[string]*Histogram{},
	}
	for _, p := range protocols {
		n.Requests[p] = m.histogram("waybill_request_seconds", "model", model, "protocol", p)
	}
	return n
}

// Rejected counts an inference request that was turned away before any model worked on it. model must be a name that is
// configured, or "": what clients make up must not become series.
func (m *Metrics) Rejected(model, reason string) {
	m.set.GetOrCreateCounter(series("waybill_rejected_total", "model", model, "reason", reason)).Inc()
}

// Released records how long after its replacement a model was let go by its last request.
func (m *Metrics) Released(model string, d time.Duration) {
	m.histogram("waybill_swap_drain_seconds", "model", model).Observe(d)
}

// SessionStarted counts a stream whose state the server keeps.
func (m *Metrics) SessionStarted(model string) {
	m.set.GetOrCreateCounter(series("waybill_sessions_started_total", "model", model)).Inc()
}

// SessionEnded counts a stream's end by its reason.
func (m *Metrics) SessionEnded(model, reason string) {
	m.set.GetOrCreateCounter(series("waybill_sessions_ended_total", "model", model, "reason", reason)).Inc()
}

// Gauge registers a gauge without labels whose value f gives. A second one of the same name replaces the first.
func (m *Metrics) Gauge(name string, f func() float64) {
	m.set.UnregisterMetric(name)
	m.set.NewGauge(name, f)
}

type histKey struct{ name, labels string }

func (m *Metrics) histogram(name string, labels ...string) *Histogram {
	k := histKey{name, strings.TrimSuffix(strings.TrimPrefix(series("", labels...), "{"), "}")}
	if h, ok := m.hists.Load(k); ok {
		return h.(*Histogram)
	}
	h, _ := m.hists.LoadOrStore(k, &Histogram{})
	return h.(*Histogram)
}
