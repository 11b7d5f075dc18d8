// Package lambdaapi speaks AWS Lambda's Runtime API (2018-06-01): it asks the platform for events, turns each into an HTTP request,
// lets a handler answer it and gives the answer back in the form that the sender of the event reads. So an image needs no adapter beside
// the server, and what Lambda answers is what the server answers.
//
// Events that it knows are those of API Gateway (REST and HTTP APIs, payloads 1.0 and 2.0), of function URLs, of Application Load
// Balancers, and a request of the Open Inference Protocol as the event itself, for callers of Invoke.
package lambdaapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// EnvAPI names the variable with the address of the Runtime API. Where it is set, the process runs on Lambda.
const EnvAPI = "AWS_LAMBDA_RUNTIME_API"

// Config of Run.
type Config struct {
	API     string       // host:port of the Runtime API, without a scheme
	Handler http.Handler // that answers; called by Concurrency goroutines at once
	// Model names the model that an event without a model_name is for; an error becomes the answer. nil: such events are refused.
	Model       func() (string, error)
	Concurrency int           // events worked on at once; less than 2: one after the other
	Grace       time.Duration // for running events when ctx ends; 0 means 10 s
	// Signals registers an internal extension without events: Lambda sends SIGTERM before it kills to those that have one alone. When
	// it cannot be registered, that is logged and Run goes on.
	Signals bool
	Log     *slog.Logger // nil discards
}

// FromEnv is the part of a Config that the platform says, and whether this process runs on Lambda at all.
func FromEnv(getenv func(string) string) (Config, bool) {
	c := Config{API: getenv(EnvAPI), Concurrency: 1, Signals: true}
	if n, err := strconv.Atoi(getenv("AWS_LAMBDA_MAX_CONCURRENCY")); err == nil && n > 1 {
		c.Concurrency = n
	}
	return c, c.API != ""
}

// Run answers events until ctx ends, and then waits for running ones, at most Grace; that is nil. Any other end is an error, after
// which the process exits, so that the platform starts a new one: the Runtime API did not answer, said that it cannot recover (500), or
// the handler panicked (the event was answered with the stack).
//
// An answer that is larger than the platform takes becomes an error of its event, and one that the platform does not want any more (400
// or 403: the event ran out of time) is dropped; both are logged, and the next event is asked for.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 10 * time.Second
	}
	n := max(1, cfg.Concurrency)
	c := &client{api: cfg.API}
	if cfg.Signals {
		if err := c.register(ctx); err != nil {
			cfg.Log.Warn("no SIGTERM before the end: the internal extension could not be registered", "error", err)
		}
	}
	asking, stop := context.WithCancelCause(ctx) // ends /next, never an event
	defer stop(nil)
	working, kill := context.WithCancel(context.WithoutCancel(ctx)) // ends events
	defer kill()

	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := (&loop{cfg: cfg, c: c, alone: n == 1}).run(asking, working); err != nil {
				stop(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-asking.Done():
		t := time.NewTimer(cfg.Grace)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
			kill()
			<-done
		}
	}
	if ctx.Err() != nil && errors.Is(context.Cause(asking), context.Cause(ctx)) {
		return nil
	}
	return context.Cause(asking)
}

// loop is one of the goroutines that ask for events.
type loop struct {
	cfg   Config
	c     *client
	alone bool
}

// run returns nil when asking ended.
func (l *loop) run(asking, working context.Context) error {
	for {
		ev, err := l.c.next(asking)
		if err != nil && asking.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.one(working, ev); err != nil {
			return err
		}
	}
}

// one answers one event; its error ends the process.
func (l *loop) one(ctx context.Context, ev *event) error {
	log := l.cfg.Log.With("request", ev.id)
	if l.alone { // what libraries for tracing read; with several events at once it would be another one's
		_ = os.Setenv("_X_AMZN_TRACE_ID", ev.trace)
	}
	if err := ev.check(); err != nil {
		log.Warn("the platform's headers are damaged", "error", err)
		return l.settle(log, l.c.fail(ctx, ev.id, failure{Type: "Runtime.InvalidEvent", Message: err.Error()}))
	}
	call, cancel := context.WithDeadline(ctx, ev.deadline.Add(-margin(time.Until(ev.deadline))))
	ans, panicked := l.answer(call, ev)
	cancel()
	if ans.fault != nil {
		log.Warn("the event failed", "type", ans.fault.Type, "error", ans.fault.Message)
		err := l.settle(log, l.c.fail(ctx, ev.id, *ans.fault))
		if panicked {
			return errors.Join(fmt.Errorf("the server panicked: %s", ans.fault.Message), err)
		}
		return err
	}
	err := l.c.respond(ctx, ev.id, ans.body)
	var re *refused
	if errors.As(err, &re) && re.status == http.StatusRequestEntityTooLarge {
		log.Warn("the answer is larger than the platform takes", "bytes", len(ans.body))
		err = l.c.fail(ctx, ev.id, failure{Type: "Function.ResponseSizeTooLarge", Message: fmt.Sprintf("the answer of %d bytes is larger than Lambda takes", len(ans.body))})
	}
	return l.settle(log, err)
}

// settle tells an answer that nobody wants any more from one that ends the process.
func (l *loop) settle(log *slog.Logger, err error) error {
	var re *refused
	if errors.As(err, &re) && (re.status == http.StatusBadRequest || re.status == http.StatusForbidden || re.status == http.StatusRequestEntityTooLarge) {
		log.Warn("the platform did not take the answer", "status", re.status)
		return nil
	}
	return err
}

// answer maps the event, calls the handler and maps back. A panic becomes a fault with its stack.
func (l *loop) answer(ctx context.Context, ev *event) (ans answer, panicked bool) {
	defer func() {
		if v := recover(); v != nil {
			ans, panicked = answer{fault: panicFailure(v)}, true
		}
	}()
	form, r, err := mapEvent(ctx, ev, l.cfg.Model)
	if err != nil {
		return form.refuse(err), false
	}
	w := &recorder{header: http.Header{}}
	l.cfg.Handler.ServeHTTP(w, r)
	return form.answer(w, r.Method == http.MethodHead), false
}

// margin is what an event's time is cut by, so that the server's own 504 arrives before the platform ends the process.
func margin(left time.Duration) time.Duration {
	return max(0, min(left/10, 500*time.Millisecond))
}
