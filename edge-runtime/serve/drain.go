package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// begin counts a request from its arrival, or refuses it.
func (s *Server) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusing {
		return &httpError{status: http.StatusServiceUnavailable, err: errors.New("the server is shutting down"), retry: time.Second}
	}
	s.open++
	return nil
}

// finish ends what begin began.
func (s *Server) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.open == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// Drain makes the server unready, goes on for Config.DrainDelay so that whoever balances load hears of it, refuses new
// inferences with 503 and waits for those that have arrived.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	first := !s.draining
	s.draining = true
	s.mu.Unlock()
	s.changed()
	if first && s.cfg.DrainDelay > 0 {
		t := time.NewTimer(s.cfg.DrainDelay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.refusing = true
	var idle chan struct{}
	if s.open > 0 {
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle = s.idle
	}
	s.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return diag.Errorf("drain: requests are still running: %w", context.Cause(ctx))
	}
}

// Close takes every model out of service, ends the sessions and waits until the models are closed, or ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.draining, s.refusing = true, true
	s.mu.Unlock()
	s.sessions.Close()
	for _, n := range s.Names() {
		_, gone := s.Remove(n)
		select {
		case <-gone:
		case <-ctx.Done():
			return diag.Errorf("close %s: %w", n, context.Cause(ctx))
		}
	}
	return nil
}

// Serve answers on l, and on others when there are any, until ctx ends, then drains for at most grace and closes the
// listeners and the connections. REST and gRPC (HTTP/2 without TLS) share each listener. It returns nil after a clean end.
func (s *Server) Serve(ctx context.Context, l net.Listener, grace time.Duration, others ...net.Listener) error {
	// Streams have no end of their own: what is left of them after the drain ends with base.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	routes := s.Handler()
	if s.cfg.Wrap != nil {
		routes = s.cfg.Wrap(routes)
	}
	h := &http.Server{
		Handler:           routes,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       s.cfg.BodyTimeout, // handlers of bodies and streams set their own
		WriteTimeout:      s.cfg.BodyTimeout + s.cfg.Timeout + time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 256, SendPingTimeout: 30 * time.Second},
	}
	h.Protocols.SetHTTP1(true)
	h.Protocols.SetUnencryptedHTTP2(true)
	all := append([]net.Listener{l}, others...)
	done := make(chan error, len(all))
	for _, l := range all {
		go func() {
			if err := h.Serve(limitConns(l, s.cfg.MaxConns)); !errors.Is(err, http.ErrServerClosed) {
				done <- diag.Errorf("serve on %s: %w", l.Addr(), err)
			}
		}()
	}
	select {
	case err := <-done:
		return errors.Join(err, h.Close())
	case <-ctx.Done():
	}
	end, stop := context.WithTimeout(context.Background(), grace)
	defer stop()
	err := s.Drain(end)
	s.sessions.Close() // nobody can go on with one
	cancel()
	if e := h.Shutdown(end); e != nil {
		err = errors.Join(err, e, h.Close())
	}
	return err
}

// limitConns lets at most n connections of l be open; further ones wait in the system's queue.
func limitConns(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, room: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &limitedConn{Conn: c, l: l}, nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	l    *limited
	once sync.Once
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.l.room })
	return err
}
