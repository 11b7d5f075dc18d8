package monitor

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// Collect adds families that are worked out at each scrape, so that what is gone leaves no series behind.
func (m *Metrics) Collect(f func(*Exposition)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.more = append(m.more, f)
}

// Exposition writes families one after the other, each with its help and type.
type Exposition struct{ w io.Writer }

// Family begins a family; kind is counter or gauge.
func (e *Exposition) Family(name, kind, help string) {
	fmt.Fprintf(e.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// Sample writes one sample of the family begun last; labels are pairs of name and value.
func (e *Exposition) Sample(name string, v float64, labels ...string) {
	n := name
	if len(labels) > 0 {
		n = series(name, labels...)
	}
	fmt.Fprintf(e.w, "%s %s\n", n, strconv.FormatFloat(v, 'g', -1, 64))
}

// Gauge writes a family of one sample without labels.
func (e *Exposition) Gauge(name, help string, v float64) {
	e.Family(name, "gauge", help)
	e.Sample(name, v)
}

// processHelp are the process's metrics that dashboards know by these names, of those that the metrics package writes.
var processHelp = map[string][2]string{
	"process_cpu_seconds_total":     {"counter", "CPU time of the process."},
	"process_resident_memory_bytes": {"gauge", "Resident memory of the process."},
	"process_virtual_memory_bytes":  {"gauge", "Virtual memory of the process."},
	"process_open_fds":              {"gauge", "Open file descriptors of the process."},
	"process_max_fds":               {"gauge", "Most file descriptors that the process may open."},
	"process_start_time_seconds":    {"gauge", "Start of the process, Unix time."},
}

// writeProcess writes what the process and its Go runtime use, under the usual names.
func writeProcess(e *Exposition) {
	var b bytes.Buffer
	metrics.WriteProcessMetrics(&b)
	for line := range strings.Lines(b.String()) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if h, known := processHelp[name]; ok && known {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				e.Family(name, h[0], h[1])
				e.Sample(name, v)
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	e.Gauge("go_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
	e.Gauge("go_memstats_heap_alloc_bytes", "Bytes of live and not yet collected heap objects.", float64(m.HeapAlloc))
	e.Gauge("go_memstats_sys_bytes", "Bytes obtained from the system.", float64(m.Sys))
	e.Family("go_gc_cycles_total", "counter", "Garbage collections.")
	e.Sample("go_gc_cycles_total", float64(m.NumGC))
	e.Family("go_info", "gauge", "Version of Go.")
	e.Sample("go_info", 1, "version", runtime.Version())
}
