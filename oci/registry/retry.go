package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RetryPolicy bounds repetitions.
type RetryPolicy struct {
	Attempts int           // in all, at least 1
	Wait     time.Duration // before the second attempt; doubles, with jitter
	MaxWait  time.Duration // of one wait; a Retry-After above it ends the attempts
}

// DefaultRetry is what the zero policy means: four attempts within about four seconds.
func DefaultRetry() RetryPolicy {
	return RetryPolicy{Attempts: 4, Wait: 500 * time.Millisecond, MaxWait: 30 * time.Second}
}

// idleLimit ends a connection on which nothing moved in either direction.
const idleLimit = 2 * time.Minute

// NewTransport makes an HTTP transport for registries: system proxies and certificates, keep-alive, and an end for
// connections that stall.
func NewTransport() *http.Transport {
	d := &net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &idleConn{c}, nil
		},
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// idleConn moves its deadline with every transfer, so that a long one lives and a stalled one ends.
type idleConn struct{ net.Conn }

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(idleLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(idleLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// retrier repeats requests that may be repeated, after failures that may pass. It gives every attempt a fresh body.
type retrier struct {
	next   http.RoundTripper
	policy RetryPolicy
}

func (t *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	defer func() {
		if req.Body != nil && req.GetBody != nil {
			_ = req.Body.Close() // the original is never sent
		}
	}()
	for attempt := 1; ; attempt++ {
		r := req
		if req.GetBody != nil && req.Body != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			r = req.Clone(req.Context())
			r.Body = body
		}
		resp, err := t.next.RoundTrip(r)
		wait, again := t.policy.next(attempt, req, resp, err)
		if !again {
			return resp, err
		}
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
			_ = resp.Body.Close()
		}
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

// next decides whether there is another attempt and how long to wait before it.
func (p RetryPolicy) next(attempt int, req *http.Request, resp *http.Response, err error) (time.Duration, bool) {
	if attempt >= p.Attempts || req.Context().Err() != nil || !repeatable(req) {
		return 0, false
	}
	if err != nil {
		return p.backoff(attempt), transient(err)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return 0, false
	}
	if ra := resp.Header.Get("Retry-After"); ra != "" {
		wait := time.Duration(-1)
		if s, err := strconv.Atoi(ra); err == nil && s >= 0 && s < 1<<20 {
			wait = time.Duration(s) * time.Second
		} else if at, err := http.ParseTime(ra); err == nil {
			wait = max(time.Until(at), 0)
		}
		if wait >= 0 {
			return wait, wait <= p.MaxWait
		}
	}
	return p.backoff(attempt), true
}

func (p RetryPolicy) backoff(attempt int) time.Duration {
	d := min(p.Wait<<(attempt-1), p.MaxWait)
	if d <= 0 {
		return 0
	}
	return d/2 + rand.N(d/2+1)
}

// repeatable: sending it twice has the effect of sending it once. A PUT into an upload session is not, since a failed
// one leaves the session in an unknown state: PushBlob starts a new session instead.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return true
	case http.MethodPut:
		return strings.Contains(r.URL.Path, "/manifests/") && r.Header.Get("If-Match") == "" && r.Header.Get("If-None-Match") == ""
	case http.MethodPost:
		return strings.HasSuffix(r.URL.Path, "/blobs/uploads/")
	}
	return false
}

// transient: the network failed in a way that may pass. A refused connection or an unknown host does not pass in a
// second, and a user waits for the message.
func transient(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return op.Timeout()
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		(errors.As(err, &op) && (op.Op == "read" || op.Op == "write"))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
