// Package faultproxy stands between a client and a real registry in tests, forwards everything, counts it, and breaks
// what a plan tells it to break: connections that are cut, stall, drip or never end, bytes that are altered, answers whose
// headers lie, requests that arrive and whose answer is lost.
package faultproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/internal/ratelimit"
)

// Kind is a way to fail.
type Kind int

// Faults of answers. N is an offset in the body of the answer unless said otherwise.
const (
	None      Kind = iota
	Cut            // the connection ends after N bytes of the body (-1: before the status line)
	Stall          // after N bytes nothing comes any more, and the connection stays open
	Corrupt        // the byte at N is flipped
	Truncate       // a whole answer, by its headers, of N bytes
	Length         // Content-Length says N more than comes (less, when N is negative: then more comes)
	Range          // Content-Range starts N too late, the body is the right one
	Total          // Content-Range says a total N too large
	Whole          // the range of the request is ignored: 200 and everything
	Shift          // the body is that of a range N bytes further on, and Content-Range says so
	ShiftLie       // the same, and Content-Range says what was asked for
	Duplicate      // the first N bytes come twice; the length is that of the right answer
	Drip           // one byte at a time, N in all, each after Wait; then the connection ends
	Endless        // after the body zero bytes for ever, under no Content-Length
	Answer         // Status, with Header; the request does not reach the registry
	Lost           // the request is carried out, the connection ends before its answer
)

// Faults of requests with a body. N is an offset in the body of the request.
const (
	CutRequest     Kind = iota + 100 // the connection ends, on both sides, after N bytes
	StallRequest                     // after N bytes nothing more is read, until Wait is over or the proxy is closed
	CorruptRequest                   // the byte at N reaches the registry flipped
)

// Fault is what happens to one request. The zero Fault lets it through.
type Fault struct {
	Kind   Kind
	N      int64
	Status int         // of Answer
	Header http.Header // added to the answer (Retry-After, Location)
	Wait   time.Duration
}

// Unavailable is a 503 that asks to come back after so many seconds.
func Unavailable(seconds int) Fault {
	return Fault{Kind: Answer, Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {strconv.Itoa(seconds)}}}
}

// Redirect is a 307 to another place.
func Redirect(to string) Fault {
	return Fault{Kind: Answer, Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {to}}}
}

// Plan says what happens to a request; n counts from 0 the requests that the proxy got. It is called for one request at
// a time, before the body is read.
type Plan func(r *http.Request, n int) Fault

// Match picks requests.
type Match func(r *http.Request) bool

// Blobs are downloads of blobs.
func Blobs(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
}

// Uploads are requests that carry the bytes of a blob.
func Uploads(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/blobs/uploads/") && r.ContentLength != 0 &&
		(r.Method == http.MethodPatch || r.Method == http.MethodPut || r.Method == http.MethodPost)
}

// Times applies faults, in their order, to the first requests that match.
func Times(m Match, faults ...Fault) Plan {
	i := 0
	return func(r *http.Request, _ int) Fault {
		if i >= len(faults) || !m(r) {
			return Fault{}
		}
		i++
		return faults[i-1]
	}
}

// Always applies f to every request that matches.
func Always(m Match, f Fault) Plan {
	return func(r *http.Request, _ int) Fault {
		if !m(r) {
			return Fault{}
		}
		return f
	}
}

// Random breaks a share p of the requests that match, each with one of the faults, at an offset below size; the seed
// decides everything but the order in which requests arrive.
func Random(seed uint64, m Match, p float64, size int64, faults ...Fault) Plan {
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	return func(r *http.Request, _ int) Fault {
		if !m(r) || rng.Float64() >= p {
			return Fault{}
		}
		f := faults[rng.IntN(len(faults))]
		if f.N == 0 && f.Kind != Answer {
			f.N = 1 + rng.Int64N(max(size-1, 1))
		}
		return f
	}
}

// Record is one request that the proxy saw.
type Record struct {
	Method string
	Path   string // with the query
	Range  string // header of the request
	Status int    // that the client was given; 0 when the connection ended before
	In     int64  // bytes of the request's body that came from the client
	Out    int64  // bytes of the answer's body that went to the client
	Fault  Kind
}

// Proxy is a running proxy. It is an http.Handler too, for tests that want TLS or a server of their own.
type Proxy struct {
	target *url.URL
	next   *http.Transport
	l      net.Listener
	srv    *http.Server
	closed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	mu    sync.Mutex
	plan  Plan
	n     int
	rate  *ratelimit.Limiter
	seen  []*Record
	in    int64
	out   int64
	conns map[net.Conn]bool // hijacked
}

// New makes a proxy in front of target ("http://127.0.0.1:1234"), not yet listening. plan may be nil.
func New(target string, plan Plan) (*Proxy, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("target %q is not a URL: %w", target, err)
	}
	return &Proxy{
		target: u, plan: plan, closed: make(chan struct{}), conns: map[net.Conn]bool{},
		next: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32},
	}, nil
}

// Start makes a proxy that listens on a free port of this machine. Close it.
func Start(target string, plan Plan) (*Proxy, error) {
	p, err := New(target, plan)
	if err != nil {
		return nil, err
	}
	if p.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	p.srv = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		_ = p.srv.Serve(p.l) // ends with Close
	}()
	return p, nil
}

// Host is host:port of a started proxy.
func (p *Proxy) Host() string { return p.l.Addr().String() }

// Close ends every connection and frees the port.
func (p *Proxy) Close() {
	p.once.Do(func() {
		close(p.closed)
		p.mu.Lock()
		for c := range p.conns {
			_ = c.Close() // that is the point
		}
		p.mu.Unlock()
		if p.srv != nil {
			_ = p.srv.Close()
		}
	})
	p.wg.Wait()
	p.next.CloseIdleConnections()
}

// SetPlan replaces the plan from the next request on.
func (p *Proxy) SetPlan(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// SetRate paces the answers, all together, to so many bytes in a second; 0 does not.
func (p *Proxy) SetRate(bytesPerSecond int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = ratelimit.New(bytesPerSecond)
}

// Bytes tells how many bytes of bodies came from clients and went to them, requests still under way included.
func (p *Proxy) Bytes() (in, out int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in, p.out
}

// Requests lists the requests in the order in which they arrived, with what has been counted until now.
func (p *Proxy) Requests() []Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Record, len(p.seen))
	for i, r := range p.seen {
		out[i] = *r
	}
	return out
}

// Reset forgets what was counted.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.in, p.out = nil, 0, 0
}

// Count counts the requests that match, and the bytes of their bodies.
func (p *Proxy) Count(match func(Record) bool) (requests int, in, out int64) {
	for _, r := range p.Requests() {
		if match(r) {
			requests++
			in += r.In
			out += r.Out
		}
	}
	return requests, in, out
}

// exchange is one request on its way.
type exchange struct {
	p   *Proxy
	f   Fault
	rec *Record // guarded by p.mu
}

func (x *exchange) status(code int) {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.rec.Status = code
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	x := &exchange{p: p, rec: &Record{Method: r.Method, Path: r.URL.RequestURI(), Range: r.Header.Get("Range")}}
	if p.plan != nil {
		x.f = p.plan(r, p.n)
	}
	x.rec.Fault = x.f.Kind
	p.n++
	rate := p.rate
	p.seen = append(p.seen, x.rec)
	p.mu.Unlock()
	x.serve(w, r, rate)
}

func (x *exchange) serve(w http.ResponseWriter, r *http.Request, rate *ratelimit.Limiter) {
	if x.f.Kind == Cut && x.f.N < 0 {
		x.hangUp(w)
		return
	}
	if x.f.Kind == Answer {
		h := w.Header()
		for k, v := range x.f.Header {
			h[k] = v
		}
		x.status(x.f.Status)
		w.WriteHeader(x.f.Status)
		return
	}
	resp, err := x.forward(r)
	if err != nil {
		// Cut on purpose, or the registry is gone: either way the client sees a connection that ends.
		x.hangUp(w)
		return
	}
	defer resp.Body.Close()
	if x.f.Kind == Lost {
		x.hangUp(w)
		return
	}
	body := rate.Reader(r.Context(), resp.Body)
	if x.f.Kind == None || x.f.Kind == Whole || x.f.Kind >= CutRequest {
		h := w.Header()
		for k, v := range resp.Header {
			h[k] = v
		}
		x.status(resp.StatusCode)
		w.WriteHeader(resp.StatusCode)
		if _, err := io.Copy(&counter{x, w, http.NewResponseController(w).Flush}, body); err != nil {
			panic(http.ErrAbortHandler) // the registry broke off: the client must not take it for the end
		}
		return
	}
	x.broken(w, resp, body)
}

// forward sends the request on, its body as the fault wants it.
func (x *exchange) forward(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = x.p.target.Scheme, x.p.target.Host
	out.RequestURI = "" // Host stays that of the proxy, so that absolute locations lead back to it
	out.Close = false
	if r.ContentLength != 0 {
		out.Body = io.NopCloser(&requestBody{x: x, ctx: r.Context(), r: r.Body})
	} else {
		out.Body = http.NoBody
	}
	switch x.f.Kind {
	case Whole:
		out.Header.Del("Range")
	case Shift, ShiftLie:
		if from, to, ok := parseRange(r.Header.Get("Range")); ok {
			v := fmt.Sprintf("bytes=%d-", from+x.f.N)
			if to >= 0 {
				v += strconv.FormatInt(to+x.f.N, 10)
			}
			out.Header.Set("Range", v)
		}
	}
	return x.p.next.RoundTrip(out)
}

// parseRange reads "bytes=a-b" and "bytes=a-"; to is -1 when it is open.
func parseRange(s string) (from, to int64, ok bool) {
	a, b, ok := strings.Cut(strings.TrimPrefix(s, "bytes="), "-")
	from, err := strconv.ParseInt(a, 10, 64)
	if !ok || err != nil {
		return 0, 0, false
	}
	if to, err = strconv.ParseInt(b, 10, 64); err != nil {
		to = -1
	}
	return from, to, true
}

// broken writes an answer by hand, since no HTTP server would write such a one.
func (x *exchange) broken(w http.ResponseWriter, resp *http.Response, body io.Reader) {
	conn, bw, err := x.hijack(w)
	if err != nil {
		return
	}
	defer x.drop(conn)
	f, h, length := x.f, resp.Header.Clone(), resp.ContentLength
	var tail io.Reader
	switch f.Kind {
	case Truncate:
		length = min(max(length, 0), f.N)
		body = io.LimitReader(body, length)
	case Length:
		length = max(length+f.N, 0)
	case Range, Total, ShiftLie:
		h.Set("Content-Range", lie(h.Get("Content-Range"), f))
	case Corrupt:
		body = &flip{r: body, at: f.N}
	case Duplicate:
		body = &repeat{r: body, n: f.N}
		if length >= 0 {
			body = io.LimitReader(body, length)
		}
	case Endless:
		length, tail = -1, zeros{}
	}
	h.Del("Content-Length")
	if length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	h.Set("Connection", "close")
	fmt.Fprintf(bw, "HTTP/1.1 %d %s\r\n", resp.StatusCode, http.StatusText(resp.StatusCode))
	_ = h.Write(bw) // a client that is gone shows in the next flush
	_, _ = bw.WriteString("\r\n")
	if bw.Flush() != nil {
		return
	}
	x.status(resp.StatusCode)
	out := &counter{x, bw, bw.Flush}
	switch f.Kind {
	case Cut:
		_, _ = io.CopyN(out, body, f.N)
	case Stall:
		_, _ = io.CopyN(out, body, f.N)
		x.wait(conn)
	case Drip:
		for range f.N {
			if _, err := io.CopyN(out, body, 1); err != nil {
				return
			}
			select {
			case <-x.p.closed:
				return
			case <-time.After(f.Wait):
			}
		}
	default:
		_, err := io.Copy(out, body)
		if err == nil && tail != nil {
			_, _ = io.Copy(out, tail) // until the client has had enough
		}
	}
}

// lie makes the Content-Range that the fault wants.
func lie(s string, f Fault) string {
	var from, to, total int64
	if _, err := fmt.Sscanf(s, "bytes %d-%d/%d", &from, &to, &total); err != nil {
		return s
	}
	switch f.Kind {
	case Range:
		from, to = from+f.N, to+f.N
	case Total:
		total += f.N
	case ShiftLie:
		from, to = from-f.N, to-f.N
	}
	return fmt.Sprintf("bytes %d-%d/%d", from, to, total)
}

func (x *exchange) hijack(w http.ResponseWriter) (net.Conn, *bufio.Writer, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(fmt.Errorf("faultproxy needs HTTP/1: %w", err))
	}
	_ = conn.SetDeadline(time.Time{}) // of the server that gave it away
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	select {
	case <-x.p.closed:
		_ = conn.Close()
		return nil, nil, net.ErrClosed
	default:
	}
	x.p.conns[conn] = true
	return conn, rw.Writer, nil
}

func (x *exchange) drop(conn net.Conn) {
	_ = conn.Close()
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	delete(x.p.conns, conn)
}

func (x *exchange) hangUp(w http.ResponseWriter) {
	if conn, _, err := x.hijack(w); err == nil {
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // what still comes from the client is not waited for
		}
		x.drop(conn)
	}
}

// wait keeps a connection open until the client gives it up, or the proxy is closed.
func (x *exchange) wait(conn net.Conn) {
	_, _ = io.Copy(io.Discard, conn)
}

type counter struct {
	x     *exchange
	w     io.Writer
	flush func() error
}

func (c *counter) Write(b []byte) (int, error) {
	// Counted before they are sent: a client that has them finds them counted.
	c.x.p.mu.Lock()
	c.x.rec.Out += int64(len(b))
	c.x.p.out += int64(len(b))
	c.x.p.mu.Unlock()
	n, err := c.w.Write(b)
	if err == nil {
		err = c.flush() // a cut comes after what was sent
	}
	return n, err
}

var errCut = errors.New("cut")

// requestBody is read by the transport that forwards.
type requestBody struct {
	x   *exchange
	ctx context.Context // of the request whose body this is
	r   io.Reader
	at  int64
}

func (b *requestBody) Read(p []byte) (int, error) {
	f := b.x.f
	if (f.Kind == CutRequest || f.Kind == StallRequest) && b.at < f.N {
		p = p[:min(int64(len(p)), f.N-b.at)]
	}
	if f.Kind == CutRequest && b.at >= f.N {
		return 0, errCut
	}
	if f.Kind == StallRequest && b.at == f.N {
		var over <-chan time.Time
		if f.Wait > 0 {
			over = time.After(f.Wait)
		}
		select {
		case <-over:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		case <-b.x.p.closed:
			return 0, errCut
		}
	}
	n, err := b.r.Read(p)
	if f.Kind == CorruptRequest && b.at <= f.N && f.N < b.at+int64(n) {
		p[f.N-b.at] ^= 0xff
	}
	b.at += int64(n)
	b.x.p.mu.Lock()
	b.x.rec.In += int64(n)
	b.x.p.in += int64(n)
	b.x.p.mu.Unlock()
	return n, err
}

type flip struct {
	r      io.Reader
	at, to int64
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if f.to <= f.at && f.at < f.to+int64(n) {
		p[f.at-f.to] ^= 0xff
	}
	f.to += int64(n)
	return n, err
}

// repeat gives the first n bytes twice.
type repeat struct {
	r    io.Reader
	n    int64
	kept []byte
	sent int
}

func (d *repeat) Read(p []byte) (int, error) {
	if left := d.n - int64(len(d.kept)); left > 0 {
		n, err := d.r.Read(p[:min(int64(len(p)), left)])
		d.kept = append(d.kept, p[:n]...)
		return n, err
	}
	if d.sent < len(d.kept) {
		n := copy(p, d.kept[d.sent:])
		d.sent += n
		return n, nil
	}
	return d.r.Read(p)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
