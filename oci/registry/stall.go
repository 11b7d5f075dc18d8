package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/waybill-ml/waybill/internal/ratelimit"
)

// errStalled is what a request ends with when nothing comes any more.
var errStalled = errors.New("nothing came for too long")

type stalledError struct{ limit time.Duration }

func (e stalledError) Error() string        { return "no byte came for " + e.limit.String() }
func (e stalledError) Is(target error) bool { return target == errStalled }

// stallGuard ends a download on which no byte comes for too long: before the answer, or between two reads of its body.
// The time in which the reader does something else does not count. Requests that send a body are left to the
// connection's own limit, since a registry may work on what it got.
type stallGuard struct {
	next  http.RoundTripper
	limit time.Duration
}

func (g *stallGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return g.next.RoundTrip(req)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	late := stalledError{g.limit}
	t := time.AfterFunc(g.limit, func() { cancel(late) })
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	t.Stop()
	if err != nil {
		if context.Cause(ctx) == error(late) {
			err = late
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &guarded{r: resp.Body, ctx: ctx, cancel: cancel, t: t, late: late}
	return resp, nil
}

type guarded struct {
	r      io.ReadCloser
	ctx    context.Context // of the request whose body this is
	cancel context.CancelCauseFunc
	t      *time.Timer
	late   stalledError
}

func (b *guarded) Read(p []byte) (int, error) {
	b.t.Reset(b.late.limit)
	n, err := b.r.Read(p)
	b.t.Stop()
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(b.ctx) == error(b.late) {
		err = b.late
	}
	return n, err
}

func (b *guarded) Close() error {
	b.t.Stop()
	err := b.r.Close()
	b.cancel(nil)
	return err
}

// pacer keeps all bodies together, in both directions, at the limit.
type pacer struct {
	next  http.RoundTripper
	limit *ratelimit.Limiter
}

func (p *pacer) RoundTrip(req *http.Request) (*http.Response, error) {
	if p.limit == nil {
		return p.next.RoundTrip(req)
	}
	if req.Body != nil && req.Body != http.NoBody {
		body := req.Body
		req = req.Clone(req.Context())
		req.Body = readCloser{p.limit.Reader(req.Context(), body), body}
	}
	resp, err := p.next.RoundTrip(req)
	if err == nil {
		resp.Body = readCloser{p.limit.Reader(req.Context(), resp.Body), resp.Body}
	}
	return resp, err
}

type readCloser struct {
	io.Reader
	io.Closer
}
