package registry

import (
	"context"
	"errors"
	"fmt"
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
	Attempts int           // in all, at least 1; a transfer of a blob that got on starts to count anew
	Wait     time.Duration // before the second attempt; doubles, with jitter
	MaxWait  time.Duration // of one wait; a Retry-After above it ends the attempts
}

// DefaultRetry is what the zero policy means: six attempts within about a quarter of a minute.
func DefaultRetry() RetryPolicy {
	return RetryPolicy{Attempts: 6, Wait: 500 * time.Millisecond, MaxWait: 30 * time.Second}
}

// defaultStall is how long a transfer may bring no byte.
const defaultStall = 30 * time.Second

// Notice is something that happened on the way and that did not end the work. Users see it as a line, once each.
type Notice struct {
	What string        // what was being done: "GET manifests/1.0", "blob sha256:0123456789ab at 3 of 10 bytes"
	Why  string        // what went wrong, or what is waited for
	Wait time.Duration // before the next attempt
	Next int           // number of the next attempt; 0: this is no repetition
	Of   int           // attempts in all
}

// String is the line.
func (n Notice) String() string {
	s := n.What + ": " + n.Why
	if n.Next > 0 {
		s += fmt.Sprintf("; attempt %d of %d in %s", n.Next, n.Of, n.Wait.Round(10*time.Millisecond))
	}
	return s
}

// NewTransport makes an HTTP transport for registries: system proxies and certificates, keep-alive, and an end for
// connections that stall.
func NewTransport() *http.Transport { return newTransport(0) }

// maxHeader bounds the header of an answer.
const maxHeader = 256 << 10

// newTransport keeps unused connections for the time of idle; 0 means a minute.
func newTransport(idle time.Duration) *http.Transport {
	d := &net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}
	limit := idleLimit
	if idle > 0 {
		limit = max(limit, idle+time.Minute)
		d.KeepAlive = max(d.KeepAlive, min(idle/4, 2*time.Minute))
	} else {
		idle = time.Minute
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &idleConn{c, defaultStall, limit}, nil
		},
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        idle,
		TLSClientConfig:        tlsConfig(),
		MaxResponseHeaderBytes: maxHeader,
		TLSHandshakeTimeout:    15 * time.Second,
		ExpectContinueTimeout:  time.Second,
	}
}

// retrier repeats requests that may be repeated, after failures that may pass. It gives every attempt a fresh body.
type retrier struct {
	next   http.RoundTripper
	policy RetryPolicy
	notify func(Notice)
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
		n := Notice{What: req.Method + " " + req.URL.Host + req.URL.Path, Wait: wait, Next: attempt + 1, Of: t.policy.Attempts}
		if err != nil {
			n.Why = err.Error()
		} else {
			n.Why = resp.Status
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
			_ = resp.Body.Close()
		}
		t.notify(n)
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
	if wait, ok := retryAfter(resp.Header, time.Now()); ok {
		return wait, wait <= p.MaxWait
	}
	return p.backoff(attempt), true
}

// retryAfter reads Retry-After (RFC 9110, 10.2.3): seconds, or a date, which is compared with the server's own clock
// when it tells it. The wait is never negative and at most a century.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	const most = 100 * 365 * 24 * time.Hour
	if v != "" && strings.Trim(v, "0123456789") == "" {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil || s > int64(most/time.Second) {
			return most, true
		}
		return time.Duration(s) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	if d, err := http.ParseTime(h.Get("Date")); err == nil {
		now = d
	}
	return min(max(at.Sub(now), 0), most), true
}

func (p RetryPolicy) backoff(attempt int) time.Duration {
	d := p.MaxWait
	if shift := max(attempt-1, 0); shift < 32 && p.Wait<<shift>>shift == p.Wait {
		d = min(p.Wait<<shift, p.MaxWait)
	}
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
	return errors.Is(err, errStalled) || errors.As(err, &ne) && ne.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		(errors.As(err, &op) && (op.Op == "read" || op.Op == "write" || op.Op == "readfrom"))
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
