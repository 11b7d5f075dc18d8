package serve

import (
	"context"
	"sort"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// stuckAfter is how long past its deadline a call may run before it counts as stuck. A model works in bounded steps and a
// user's step is interrupted, so that in order this is a matter of milliseconds.
const stuckAfter = 15 * time.Second

// Expect declares the names that must have a model for the server to be ready. Without it any one model will do.
func (s *Server) Expect(names ...string) {
	s.mu.Lock()
	for _, n := range names {
		s.expected[n] = true
	}
	s.mu.Unlock()
	s.changed()
}

// Ready tells whether every model that is expected serves, at least one, and the server does not drain. It stays true while
// models are swapped.
func (s *Server) Ready() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.draining {
		return false
	}
	n := 0
	for name, e := range s.names {
		if e.active.Load() != nil {
			n++
		} else if s.expected[name] {
			return false
		}
	}
	for name := range s.expected {
		if s.names[name] == nil {
			return false
		}
	}
	return n > 0
}

// Missing lists the expected names without a model.
func (s *Server) Missing() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for name := range s.expected {
		if e := s.names[name]; e == nil || e.active.Load() == nil {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func (s *Server) isDraining() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.draining
}

// Healthy tells whether requests can make progress: nil, or why a restart is due. A watchdog asks it; it is what the
// liveness of the protocol answers. It goes the way of a request as far as it can without a model: through the locks and
// past the workers, each of which may be held by a call that has not ended long after its deadline. It returns when ctx
// ends, with an error.
func (s *Server) Healthy(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		for _, n := range s.Names() {
			s.Active(n)
		}
		s.sessions.Usage()
		done <- s.stuck()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return diag.Errorf("the server did not answer its own check: %w", context.Cause(ctx))
	}
}

// stuck tells whether every worker is held by a call that should have ended.
func (s *Server) stuck() error {
	if n, of := s.gate.Stuck(stuckAfter); n == of {
		return diag.Errorf("all %d workers are held by calls that run more than %s past their deadline", n, stuckAfter)
	}
	return nil
}

// watch calls f whenever readiness may have changed, until stop.
func (s *Server) watch(f func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[&f] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, &f)
	}
}

func (s *Server) changed() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for f := range s.watchers {
		(*f)() // does not block and does not come back here
	}
}

func listNames(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
