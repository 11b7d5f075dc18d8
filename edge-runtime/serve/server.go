// Package serve answers the Open Inference Protocol V2 over REST and gRPC and swaps models under traffic without dropping a
// request: a request runs to its end on the model it began with, and a replaced model is closed after its last one.
package serve

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/admit"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/monitor"
	"github.com/waybill-ml/waybill/edge-runtime/session"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Runner is a loaded model; *engine.Model is one. Close is called once, after the last request.
type Runner interface {
	Interface() *artifact.Interface
	Run(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error)
	Close(ctx context.Context) error
}

// Model is what Swap activates: a runner and the digest of the artifact (its manifest) that it came from.
type Model struct {
	Digest artifact.Digest
	Runner Runner
}

// Config of a server. The zero value is usable.
type Config struct {
	MaxBody     int64         // bytes of a request, after decompression; 0 means 32 MiB
	MaxBuffered int64         // bytes of all requests that are held at once; 0 means 4 * MaxBody
	MaxInFlight int           // requests worked on at once; 0 means twice the cores, at least 4
	MaxQueue    int           // requests that wait for their turn; beyond them 429 is answered. 0 means 256, less than 0 none
	MaxConns    int           // connections per listener, beyond which new ones wait; 0 means 1024
	Timeout     time.Duration // from a request that has arrived in whole to its answer; a model's own limit may be shorter; 0 means 30 s
	BodyTimeout time.Duration // for a client to send one request; 0 means 30 s
	DrainDelay  time.Duration // between becoming unready and refusing requests when the server stops
	Sessions    session.Config
	Window      int // latencies kept for the percentiles of Stats; 0 means 1024
	Metrics     *monitor.Metrics
	// Wrap, when not nil, puts the paths of a platform in front of the routes that Serve answers.
	Wrap func(http.Handler) http.Handler
	// Log receives a line for each failure of the server's own (status 500 and above, but not 503), and one for each request
	// when it takes lines of the level debug; their attributes are fields of the Elastic Common Schema. nil discards.
	Log *slog.Logger
}

// Server holds the active model of each name. All methods are safe for concurrent use.
type Server struct {
	cfg      Config
	gate     *admit.Gate
	sessions *session.Store
	buffered atomic.Int64 // bytes of requests that are held

	mu       sync.RWMutex
	names    map[string]*entry
	expected map[string]bool
	watchers map[*func()]struct{} // told when readiness may have changed
	open     int                  // requests between arrival and answer
	draining bool                 // unready
	refusing bool                 // and no new requests
	idle     chan struct{}        // closed when refusing and open is 0; nil before
}

// entry is what the server knows under one name.
type entry struct {
	active  atomic.Pointer[slot]
	metrics *monitor.Name
}

// slot is one activation of a model, counted by reference: one for being active, one per request and session.
type slot struct {
	name     string
	model    Model
	ports    codecPorts
	stats    *window
	metrics  *monitor.Model
	queue    *monitor.Name
	replaced atomic.Int64 // Unix nanoseconds, 0 while it is active
	refs     atomic.Int64
	gone     chan struct{} // closed after the runner was
	server   *Server
}

// Digest implements session.Owner.
func (sl *slot) Digest() string { return string(sl.model.Digest) }

// Retain implements session.Owner.
func (sl *slot) Retain() bool { return sl.retain() }

// Release implements session.Owner.
func (sl *slot) Release() { sl.release() }

// New makes a server without models: alive, not ready.
func New(cfg Config) *Server {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.MaxBody, 32<<20)
	def(&cfg.MaxBuffered, 4*cfg.MaxBody)
	def((*int64)(&cfg.Timeout), int64(30*time.Second))
	def((*int64)(&cfg.BodyTimeout), int64(30*time.Second))
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = max(4, 2*runtime.GOMAXPROCS(0))
	}
	switch {
	case cfg.MaxQueue == 0:
		cfg.MaxQueue = 256
	case cfg.MaxQueue < 0:
		cfg.MaxQueue = 0
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 1024
	}
	if cfg.Window <= 0 {
		cfg.Window = 1024
	}
	if cfg.Metrics == nil {
		cfg.Metrics = monitor.New()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Sessions.Started, cfg.Sessions.Ended = cfg.Metrics.SessionStarted, cfg.Metrics.SessionEnded
	s := &Server{
		cfg: cfg, gate: admit.New(cfg.MaxInFlight, cfg.MaxQueue), sessions: session.New(cfg.Sessions),
		names: map[string]*entry{}, expected: map[string]bool{}, watchers: map[*func()]struct{}{},
	}
	s.gauges()
	return s
}

func (s *Server) gauges() {
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	m := s.cfg.Metrics
	m.Gauge("waybill_requests_queued", func() float64 { return float64(s.gate.Waiting()) })
	m.Gauge("waybill_sessions", func() float64 { n, _ := s.sessions.Usage(); return float64(n) })
	m.Gauge("waybill_session_bytes", func() float64 { _, n := s.sessions.Usage(); return float64(n) })
	m.Gauge("waybill_ready", func() float64 { return truth(s.Ready()) })
	m.Gauge("waybill_live", func() float64 { return truth(s.stuck() == nil) })
}

// Swap makes m the model that answers under name and returns the digest it replaced ("" for none). Requests that are
// running finish on the old model, which is closed after the last of them; the channel is closed when that has
// happened. The server owns m.Runner from here on.
func (s *Server) Swap(name string, m Model) (old artifact.Digest, released <-chan struct{}) {
	e := s.entry(name)
	n := &slot{
		name: name, model: m, ports: newCodecPorts(m.Runner.Interface()), stats: newWindow(s.cfg.Window),
		metrics: s.cfg.Metrics.Model(name, string(m.Digest)), queue: e.metrics, gone: make(chan struct{}), server: s,
	}
	n.refs.Store(1)
	prev := e.active.Swap(n)
	s.cfg.Metrics.Swap(name)
	s.cfg.Metrics.Active(name, string(m.Digest), true)
	return s.retire(prev, name, m.Digest)
}

// Remove takes name out of service; see Swap for what happens to its model.
func (s *Server) Remove(name string) (old artifact.Digest, released <-chan struct{}) {
	return s.retire(s.entry(name).active.Swap(nil), name, "")
}

func (s *Server) retire(prev *slot, name string, next artifact.Digest) (artifact.Digest, <-chan struct{}) {
	s.sessions.Replace(name, string(next))
	s.changed()
	if prev == nil {
		c := make(chan struct{})
		close(c)
		return "", c
	}
	prev.replaced.Store(time.Now().UnixNano())
	if prev.model.Digest != next {
		s.cfg.Metrics.Active(prev.name, string(prev.model.Digest), false)
	}
	prev.release()
	return prev.model.Digest, prev.gone
}

func (s *Server) entry(name string) *entry {
	s.mu.RLock()
	e := s.names[name]
	s.mu.RUnlock()
	if e != nil {
		return e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.names[name]; e == nil {
		e = &entry{metrics: s.cfg.Metrics.Name(name)}
		s.names[name] = e
	}
	return e
}

// acquire returns the active slot of name with a reference that the caller releases, or nil.
func (s *Server) acquire(name string) *slot {
	s.mu.RLock()
	e := s.names[name]
	s.mu.RUnlock()
	if e == nil {
		return nil
	}
	for {
		sl := e.active.Load()
		if sl == nil || sl.retain() {
			return sl
		}
		// It was replaced and closed between the two: the pointer has moved on.
	}
}

// retain adds a reference unless the last one is gone.
func (sl *slot) retain() bool {
	for {
		n := sl.refs.Load()
		if n == 0 {
			return false
		}
		if sl.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a reference back; the last one closes the runner.
func (sl *slot) release() {
	if sl.refs.Add(-1) > 0 {
		return
	}
	go func() {
		if err := sl.model.Runner.Close(context.Background()); err != nil {
			sl.server.cfg.Log.Error("close a model", "model", sl.name, "digest", string(sl.model.Digest), "error", err)
		}
		sl.server.cfg.Metrics.Released(sl.name, time.Since(time.Unix(0, sl.replaced.Load())))
		close(sl.gone)
	}()
}

// Active returns the digest that answers under name, "" when there is none.
func (s *Server) Active(name string) artifact.Digest {
	if sl := s.acquire(name); sl != nil {
		defer sl.release()
		return sl.model.Digest
	}
	return ""
}

// Metrics are those that /metrics shows.
func (s *Server) Metrics() *monitor.Metrics { return s.cfg.Metrics }

// Names lists the names that have an active model.
func (s *Server) Names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for n, e := range s.names {
		if e.active.Load() != nil {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

// Stats returns the counters of the activation that answers under name, since the swap or the last ResetStats.
func (s *Server) Stats(name string) (Stats, bool) {
	sl := s.acquire(name)
	if sl == nil {
		return Stats{}, false
	}
	defer sl.release()
	st := sl.stats.snapshot()
	st.Digest = sl.model.Digest
	return st, true
}

// ResetStats starts the counters of name's active model anew.
func (s *Server) ResetStats(name string) {
	if sl := s.acquire(name); sl != nil {
		sl.stats.reset()
		sl.release()
	}
}
