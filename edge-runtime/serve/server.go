// Package serve answers the Open Inference Protocol V2 over REST and swaps models under traffic without dropping a
// request: a request runs to its end on the model it began with, and a replaced model is closed after its last one.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/monitor"
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
	MaxBody     int64         // bytes of a request body; 0 means 32 MiB
	Timeout     time.Duration // per request; a model's own limit may be shorter; 0 means 30 s
	MaxInFlight int           // requests worked on at once, beyond which 429 is answered; 0 means 256
	Window      int           // latencies kept for the percentiles of Stats; 0 means 1024
	Metrics     *monitor.Metrics
	// Log receives one line per failure of the server's own (status 500 and above). nil discards.
	Log func(line string)
}

// Server holds the active model of each name. All methods are safe for concurrent use.
type Server struct {
	cfg      Config
	inFlight chan struct{}
	draining atomic.Bool

	mu    sync.RWMutex
	names map[string]*atomic.Pointer[slot]
}

// slot is one activation of a model, counted by reference: one for being active, one per request.
type slot struct {
	name  string
	model Model
	ports codecPorts
	stats *window
	refs  atomic.Int64
	gone  chan struct{} // closed after the runner was
}

// New makes a server without models: alive, not ready.
func New(cfg Config) *Server {
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 32 << 20
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 256
	}
	if cfg.Window <= 0 {
		cfg.Window = 1024
	}
	if cfg.Metrics == nil {
		cfg.Metrics = monitor.New()
	}
	if cfg.Log == nil {
		cfg.Log = func(string) {}
	}
	return &Server{cfg: cfg, inFlight: make(chan struct{}, cfg.MaxInFlight), names: map[string]*atomic.Pointer[slot]{}}
}

// Swap makes m the model that answers under name and returns the digest it replaced ("" for none). Requests that are
// running finish on the old model, which is closed after the last of them; the channel is closed when that has
// happened. The server owns m.Runner from here on.
func (s *Server) Swap(name string, m Model) (old artifact.Digest, released <-chan struct{}) {
	n := &slot{name: name, model: m, ports: newCodecPorts(m.Runner.Interface()), stats: newWindow(s.cfg.Window), gone: make(chan struct{})}
	n.refs.Store(1)
	prev := s.pointer(name).Swap(n)
	s.cfg.Metrics.Swap(name)
	s.cfg.Metrics.Active(name, string(m.Digest), true)
	return s.retire(prev, m.Digest)
}

// Remove takes name out of service; see Swap for what happens to its model.
func (s *Server) Remove(name string) (old artifact.Digest, released <-chan struct{}) {
	return s.retire(s.pointer(name).Swap(nil), "")
}

func (s *Server) retire(prev *slot, next artifact.Digest) (artifact.Digest, <-chan struct{}) {
	if prev == nil {
		c := make(chan struct{})
		close(c)
		return "", c
	}
	if prev.model.Digest != next {
		s.cfg.Metrics.Active(prev.name, string(prev.model.Digest), false)
	}
	prev.release(s.cfg.Log)
	return prev.model.Digest, prev.gone
}

func (s *Server) pointer(name string) *atomic.Pointer[slot] {
	s.mu.RLock()
	p := s.names[name]
	s.mu.RUnlock()
	if p != nil {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.names[name]; p == nil {
		p = new(atomic.Pointer[slot])
		s.names[name] = p
	}
	return p
}

// acquire returns the active slot of name with a reference that the caller releases, or nil.
func (s *Server) acquire(name string) *slot {
	s.mu.RLock()
	p := s.names[name]
	s.mu.RUnlock()
	if p == nil {
		return nil
	}
	for {
		sl := p.Load()
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
func (sl *slot) release(log func(string)) {
	if sl.refs.Add(-1) > 0 {
		return
	}
	go func() {
		if err := sl.model.Runner.Close(context.Background()); err != nil {
			log(fmt.Sprintf("close %s@%s: %v", sl.name, sl.model.Digest, err))
		}
		close(sl.gone)
	}()
}

// Active returns the digest that answers under name, "" when there is none.
func (s *Server) Active(name string) artifact.Digest {
	if sl := s.acquire(name); sl != nil {
		defer sl.release(s.cfg.Log)
		return sl.model.Digest
	}
	return ""
}

// Names lists the names that have an active model.
func (s *Server) Names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for n, p := range s.names {
		if p.Load() != nil {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

// Ready tells whether requests are being answered: there is a model and the server does not drain.
func (s *Server) Ready() bool { return !s.draining.Load() && len(s.Names()) > 0 }

// Stats returns the counters of the activation that answers under name, since the swap or the last ResetStats.
func (s *Server) Stats(name string) (Stats, bool) {
	sl := s.acquire(name)
	if sl == nil {
		return Stats{}, false
	}
	defer sl.release(s.cfg.Log)
	st := sl.stats.snapshot()
	st.Digest = sl.model.Digest
	return st, true
}

// ResetStats starts the counters of name's active model anew.
func (s *Server) ResetStats(name string) {
	if sl := s.acquire(name); sl != nil {
		sl.stats.reset()
		sl.release(s.cfg.Log)
	}
}

// Drain makes the server unready and refuses new inferences with 503, then waits for the running ones.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	for i := range cap(s.inFlight) {
		select {
		case s.inFlight <- struct{}{}:
		case <-ctx.Done():
			for range i {
				<-s.inFlight
			}
			return fmt.Errorf("drain: requests are still running: %w", context.Cause(ctx))
		}
	}
	for range cap(s.inFlight) {
		<-s.inFlight
	}
	return nil
}

// Close takes every model out of service and waits until they are closed, or ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.draining.Store(true)
	for _, n := range s.Names() {
		_, gone := s.Remove(n)
		select {
		case <-gone:
		case <-ctx.Done():
			return fmt.Errorf("close %s: %w", n, context.Cause(ctx))
		}
	}
	return nil
}

// Serve answers on l until ctx ends, then drains for at most grace and closes the listener and the connections. It
// returns nil after a clean end.
func (s *Server) Serve(ctx context.Context, l net.Listener, grace time.Duration) error {
	h := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      s.cfg.Timeout + time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := s.Drain(end)
	if e := h.Shutdown(end); e != nil {
		err = errors.Join(err, e, h.Close())
	}
	return err
}
