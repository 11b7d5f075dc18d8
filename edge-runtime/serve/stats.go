package serve

import (
	"net/http"
	"sort"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Stats are the counters of one activation of a model. A trial compares them with its budgets. Latencies are those of
// inferences alone, without queueing and network, over the last Config.Window answered ones.
type Stats struct {
	Digest  artifact.Digest `json:"digest"`
	Since   time.Time       `json:"since"`
	OK      uint64          `json:"ok"`      // answered
	Failed  uint64          `json:"failed"`  // the model's or the server's fault: 5xx, deadline included
	Refused uint64          `json:"refused"` // the client's fault: 4xx of the inference itself
	Samples int             `json:"samples"` // latencies behind the percentiles
	P50     time.Duration   `json:"p50"`
	P99     time.Duration   `json:"p99"`
	Max     time.Duration   `json:"max"`
}

// window is a ring of latencies with counters.
type window struct {
	mu      sync.Mutex
	ring    []time.Duration
	next    int
	full    bool
	ok      uint64
	failed  uint64
	refused uint64
	since   time.Time
}

func newWindow(n int) *window { return &window{ring: make([]time.Duration, n), since: time.Now()} }

// answered counts a success with its latency.
func (w *window) answered(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ok++
	w.ring[w.next] = d
	if w.next++; w.next == len(w.ring) {
		w.next, w.full = 0, true
	}
}

// lost counts a failure by its HTTP status. A deadline's latency counts too: it is at least as long as the deadline.
func (w *window) lost(status int, d time.Duration) {
	if status == http.StatusGatewayTimeout {
		w.answered(d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case status == http.StatusGatewayTimeout:
		w.ok--
		w.failed++
	case status >= 500:
		w.failed++
	default:
		w.refused++
	}
}

func (w *window) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next, w.full, w.ok, w.failed, w.refused, w.since = 0, false, 0, 0, 0, time.Now()
}

func (w *window) snapshot() Stats {
	w.mu.Lock()
	n := w.next
	if w.full {
		n = len(w.ring)
	}
	s := Stats{Since: w.since, OK: w.ok, Failed: w.failed, Refused: w.refused, Samples: n}
	v := append([]time.Duration(nil), w.ring[:n]...)
	w.mu.Unlock()
	if n == 0 {
		return s
	}
	sort.Slice(v, func(i, j int) bool { return v[i] < v[j] })
	s.P50, s.P99, s.Max = v[rank(n, 50)], v[rank(n, 99)], v[n-1]
	return s
}

// rank is the index of the p-th percentile of n sorted values by the nearest-rank method.
func rank(n, p int) int { return (n*p+99)/100 - 1 }

// clientFault counts a request that its client is to blame for.
func (w *window) clientFault() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused++
}
