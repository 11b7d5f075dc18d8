package serve

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/admit"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/session"
	"github.com/waybill-ml/waybill/internal/diag"
)

const statusClientClosedRequest = 499 // as nginx logs it: the client went away, nobody reads the answer

// httpError is an answer other than success. gRPC maps the status.
type httpError struct {
	status int
	err    error
	retry  time.Duration // when to come back, 0 when that is not worth telling
	reason string        // for the metrics, when no model worked on the request
}

func (e *httpError) Error() string { return e.err.Error() }
func (e *httpError) Unwrap() error { return e.err }

func fail(status int, format string, args ...any) *httpError {
	return &httpError{status: status, err: diag.Errorf(format, args...)}
}

// incoming is one inference request as a protocol brings it, its tensors not decoded yet: which model they are for may
// depend on the session.
type incoming struct {
	protocol       string // as in the metrics
	model, version string
	arrived        time.Time
	params         params
	decode         func(ports *codecPorts) (*request, error)
	// encode makes the answer; it is called once, before anything of the request takes effect.
	encode func(sl *slot, req *request, outs []engine.Tensor) error
}

// params are the request's parameters that mean something here.
type params struct {
	sequence   string // id of the session, "" for none
	start, end bool
	timeout    time.Duration // the client's own, 0 for none
}

// errClientTimeout ends a request whose client set a shorter time than the server's.
var errClientTimeout = diag.Errorf("the time that the request allows itself has passed: %w", context.DeadlineExceeded)

// errTimeout ends a request that took too long.
var errTimeout = diag.Errorf("the request took longer than the server allows: %w", context.DeadlineExceeded)

// errModelTimeout ends an inference that took longer than the model says it may.
var errModelTimeout = diag.Errorf("the inference took longer than limits.timeoutMs of the model: %w", context.DeadlineExceeded)

// infer answers one inference. The model is taken once: whatever is swapped meanwhile, the request sees one digest, which
// is told to see as soon as it is known. ctx is the client's: it ends when nobody waits for the answer any more.
func (s *Server) infer(ctx context.Context, in *incoming, see func(sl *slot)) error {
	client := ctx
	cause, timeout := errTimeout, s.cfg.Timeout
	if t := in.params.timeout; t > 0 && t < timeout {
		cause, timeout = errClientTimeout, t
	}
	ctx, cancel := context.WithDeadlineCause(ctx, time.Now().Add(timeout), cause)
	defer cancel()

	sl, lease, err := s.choose(ctx, in)
	if err != nil {
		return s.turnedAway(client, "", err)
	}
	defer sl.release()
	if lease != nil {
		defer lease.Release()
	}
	see(sl)
	sl.queue.InFlight.Inc()
	defer sl.queue.InFlight.Dec()

	req, err := in.decode(&sl.ports)
	if err == nil && lease != nil {
		err = sl.ports.resume(req, lease.State())
	}
	if err != nil {
		return sl.lost(client, nil, err, 0)
	}
	waited := time.Now()
	ticket, err := s.gate.Enter(ctx, sl.name)
	if err != nil {
		return s.turnedAway(client, sl.name, err)
	}
	sl.queue.Queue.Observe(time.Since(waited))
	outs, took, err := sl.run(ctx, req.inputs)
	s.gate.Leave(ticket, err == nil)
	if err == nil {
		err = in.encode(sl, req, outs)
	}
	if err == nil && lease != nil {
		err = lease.Commit(sl.ports.carried(outs), in.params.end)
	}
	if err != nil {
		return sl.lost(client, ctx, err, took)
	}
	sl.stats.answered(took)
	sl.metrics.Answered(http.StatusOK)
	sl.metrics.Inference.Observe(took)
	sl.queue.Requests[in.protocol].Observe(time.Since(in.arrived))
	return nil
}

// choose finds the model of a request and, when it belongs to a session, waits for the session's turn. The caller releases both.
func (s *Server) choose(ctx context.Context, in *incoming) (*slot, *session.Lease, error) {
	sl, err := s.find(in.model, in.version)
	if in.params.sequence == "" || err != nil {
		return sl, nil, err
	}
	if len(sl.ports.state) == 0 {
		sl.release()
		return nil, nil, fail(http.StatusBadRequest, "model %q has no state to carry from call to call: sequence_id means nothing to it", in.model)
	}
	var lease *session.Lease
	if in.params.start {
		lease, err = s.sessions.Start(in.model, in.params.sequence, sl, sl.ports.begin())
		if now := s.Active(in.model); err == nil && now != sl.model.Digest {
			s.sessions.Replace(in.model, string(now)) // it was swapped just now
		}
	} else {
		lease, err = s.sessions.Join(ctx, in.model, in.params.sequence, sl)
	}
	if err != nil {
		sl.release()
		return nil, nil, err
	}
	own := lease.Owner().(*slot)
	if own != sl {
		sl.release()
		sl = own
		if !sl.retain() { // the lease's session holds a reference of its own
			lease.Release()
			return nil, nil, engine.ErrClosed
		}
		if v := in.version; v != "" && !sl.answersTo(v) {
			lease.Release()
			sl.release()
			return nil, nil, fail(http.StatusNotFound, "the session began with version %s of model %q, not %q", sl.version(), in.model, v)
		}
	}
	return sl, lease, nil
}

// find returns the active slot of a name and version ("" for any), with a reference.
func (s *Server) find(name, version string) (*slot, error) {
	sl := s.acquire(name)
	if sl == nil {
		return nil, fail(http.StatusNotFound, "there is no model %q here; there is %s", name, listNames(s.Names()))
	}
	if version != "" && !sl.answersTo(version) {
		sl.release()
		return nil, fail(http.StatusNotFound, "model %q has version %s here, not %q", name, sl.version(), version)
	}
	return sl, nil
}

func (sl *slot) version() string { return sl.model.Runner.Interface().Version }

func (sl *slot) answersTo(version string) bool {
	return version == sl.version() || version == string(sl.model.Digest)
}

// timedRunner is a Runner that knows how long it worked, without queueing.
type timedRunner interface {
	RunTimed(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, time.Duration, error)
}

// run does the inference within the model's own time limit; took is the time of the modules alone, without the wait for an
// instance where the runner can tell.
func (sl *slot) run(ctx context.Context, ins []engine.Tensor) (outs []engine.Tensor, took time.Duration, err error) {
	if ms := sl.model.Runner.Interface().Limits.TimeoutMS; ms > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(ms)*time.Millisecond, errModelTimeout)
		defer cancel()
	}
	if timed, ok := sl.model.Runner.(timedRunner); ok {
		return timed.RunTimed(ctx, ins)
	}
	start := time.Now()
	outs, err = sl.model.Runner.Run(ctx, ins)
	return outs, time.Since(start), err
}

// turnedAway makes the answer to a request that no model worked on, and counts it. name is "" when the request named no
// model that is here.
func (s *Server) turnedAway(client context.Context, name string, err error) error {
	he := &httpError{status: http.StatusInternalServerError, err: err}
	var busy *admit.Busy
	var own *httpError
	switch {
	case errors.As(err, &own):
		he = own
	case left(client):
		he.status, he.reason = statusClientClosedRequest, "client"
	case errors.As(err, &busy):
		he.status, he.retry, he.reason = http.StatusTooManyRequests, busy.RetryAfter, busy.Reason
	case errors.Is(err, session.ErrGone):
		he.status, he.reason = http.StatusGone, "session"
	case errors.Is(err, session.ErrFull):
		he.status, he.retry, he.reason = http.StatusTooManyRequests, time.Second, "session"
	case errors.Is(err, session.ErrTooLarge):
		he.status, he.reason = http.StatusRequestEntityTooLarge, "session"
	case errors.Is(err, context.DeadlineExceeded):
		he.status, he.reason = http.StatusGatewayTimeout, "deadline"
	case errors.Is(err, engine.ErrClosed):
		he.status = http.StatusServiceUnavailable
	}
	if he.reason != "" {
		s.cfg.Metrics.Rejected(name, he.reason)
	}
	s.cfg.Metrics.Request(name, "", he.status)
	return he
}

// left tells whether nobody waits for the answer; a client whose own deadline passed is told so.
func left(client context.Context) bool { return errors.Is(client.Err(), context.Canceled) }

// lost makes the answer to a request that the model did not answer, and counts it against the model when it is to blame.
// ctx is nil before the model was asked.
func (sl *slot) lost(client, ctx context.Context, err error, took time.Duration) error {
	he := &httpError{status: http.StatusInternalServerError, err: err}
	var own *httpError
	var in *engine.InputError
	var g *engine.GuestError
	switch {
	case errors.As(err, &own):
		he = own
	case left(client):
		he.status = statusClientClosedRequest
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, engine.ErrTimeLimit):
		he.status = http.StatusGatewayTimeout
	case ctx == nil, errors.As(err, &in), errors.As(err, &g) && g.InputFault():
		he.status = http.StatusBadRequest
	case errors.Is(err, engine.ErrMemoryLimit), errors.Is(err, session.ErrTooLarge):
		he.status = http.StatusRequestEntityTooLarge
	case errors.Is(err, engine.ErrClosed):
		he.status, he.retry = http.StatusServiceUnavailable, time.Second
	}
	switch {
	case he.status == statusClientClosedRequest:
	case he.status == http.StatusGatewayTimeout && (client.Err() != nil || errors.Is(err, errClientTimeout)):
		sl.stats.clientFault() // who allows the model no time must not make it look slow
	default:
		sl.stats.lost(he.status, took)
	}
	sl.metrics.Answered(he.status)
	return he
}
