// Package rapitest is a local server of AWS Lambda's Runtime API for tests: it hands events out, takes answers, keeps the state of each event and
// writes down what the runtime did. It answers the calls of runtimes (2018-06-01) and the registration of extensions (2020-01-01).
package rapitest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// MaxAnswer is what Lambda takes of an answer.
const MaxAnswer = 6291556

// Event is one that a runtime shall answer.
type Event struct {
	Payload []byte
	Timeout time.Duration     // 0: a minute
	Header  map[string]string // instead of, or beside, those that the server sets; "" removes one
	// Status answers the runtime's first post about the event, instead of the server's own judgement; 0: none.
	Status int
}

// Result is what became of an event.
type Result struct {
	ID       string
	Deadline time.Time   // that the platform keeps
	Response []byte      // of /response
	Error    []byte      // of /error
	Header   http.Header // of the post
	Posts    int         // that came for it
}

// Failure is the body of /error and /init/error.
type Failure struct {
	Message string `json:"errorMessage"`
	Type    string `json:"errorType"`
	Stack   []struct {
		Path  string `json:"path"`
		Line  int    `json:"line"`
		Label string `json:"label"`
	} `json:"stackTrace"`
}

// Failure reads Error.
func (r *Result) Failure(tb testing.TB) Failure {
	tb.Helper()
	var f Failure
	if err := json.Unmarshal(r.Error, &f); err != nil {
		tb.Fatalf("the error %q: %v (response %q)", r.Error, err, r.Response)
	}
	return f
}

type pending struct {
	Event
	id       string
	deadline time.Time
	result   Result
	done     chan struct{} // closed when it was answered, in whatever way
	given    bool
	settled  bool
}

// Server is the Runtime API. It is safe for concurrent use.
type Server struct {
	Addr string // host:port, for AWS_LAMBDA_RUNTIME_API

	mu       sync.Mutex
	queue    []*pending
	all      map[string]*pending
	wake     chan struct{} // closed and made anew at each change
	asking   int           // runtimes that wait for an event
	held     int           // events given and not answered
	most     int
	nextCode int
	init     []byte
	ext      []string
	misuse   []string
}

// Start serves on loopback until tb ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{Addr: l.Addr().String(), all: map[string]*pending{}, wake: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", s.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{what}", s.post)
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", s.initError)
	mux.HandleFunc("POST /2020-01-01/extension/register", s.register)
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.misuse = append(s.misuse, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		http.NotFound(w, r)
	})
	ctx, cancel := context.WithCancel(context.Background())
	h := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() { _ = h.Serve(l) }()
	tb.Cleanup(func() { cancel(); _ = h.Close() })
	return s
}

// changed wakes whoever waits; s.mu is held.
func (s *Server) changed() {
	close(s.wake)
	s.wake = make(chan struct{})
}

// wait blocks until ok, asked with s.mu held, or ctx ends.
func (s *Server) wait(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		if ok() {
			s.mu.Unlock()
			return nil
		}
		wake := s.wake
		s.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Send queues an event and gives its id.
func (s *Server) Send(e Event) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Timeout == 0 {
		e.Timeout = time.Minute
	}
	p := &pending{Event: e, id: fmt.Sprintf("8476a536-e9f4-11e8-9739-%012d", len(s.all)+1), done: make(chan struct{})}
	s.all[p.id] = p
	s.queue = append(s.queue, p)
	s.changed()
	return p.id
}

// Await gives the result of an event.
func (s *Server) Await(tb testing.TB, id string) *Result {
	tb.Helper()
	s.mu.Lock()
	p := s.all[id]
	s.mu.Unlock()
	t := time.NewTimer(time.Minute)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		tb.Fatalf("event %s was not answered", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := p.result
	return &r
}

// Invoke is Send and Await.
func (s *Server) Invoke(tb testing.TB, e Event) *Result {
	tb.Helper()
	return s.Await(tb, s.Send(e))
}

// WaitAsking waits until n runtimes ask for an event at once.
func (s *Server) WaitAsking(tb testing.TB, n int) {
	tb.Helper()
	s.must(tb, fmt.Sprintf("%d runtimes that ask", n), func() bool { return s.asking >= n })
}

// WaitHeld waits until n events are worked on at once.
func (s *Server) WaitHeld(tb testing.TB, n int) {
	tb.Helper()
	s.must(tb, fmt.Sprintf("%d events that are worked on", n), func() bool { return s.held >= n })
}

func (s *Server) must(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.wait(ctx, ok); err != nil {
		tb.Fatalf("there never were %s", what)
	}
}

// WaitInit waits for the runtime's report that it cannot start.
func (s *Server) WaitInit(tb testing.TB) Failure {
	tb.Helper()
	s.must(tb, "reports of /init/error", func() bool { return s.init != nil })
	var f Failure
	if err := json.Unmarshal(s.init, &f); err != nil {
		tb.Fatalf("%s: %v", s.init, err)
	}
	return f
}

// Most is the largest number of events that were worked on at once.
func (s *Server) Most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// Extensions lists the names that registered.
func (s *Server) Extensions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.ext...)
}

// Misuse lists calls that the Runtime API does not have, and posts about events that were not given.
func (s *Server) Misuse() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.misuse...)
}

// FailNext lets calls of /next be answered with a status from now on.
func (s *Server) FailNext(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextCode = status
	s.changed()
}

func (s *Server) next(w http.ResponseWriter, r *http.Request) {
	var p *pending
	var code int
	s.mu.Lock()
	s.asking++
	s.changed()
	s.mu.Unlock()
	err := s.wait(r.Context(), func() bool {
		if code = s.nextCode; code != 0 {
			s.asking--
			return true
		}
		if len(s.queue) == 0 || r.Context().Err() != nil {
			return false
		}
		p, s.queue = s.queue[0], s.queue[1:]
		p.given, p.deadline = true, time.Now().Add(p.Timeout)
		s.asking--
		s.held++
		s.most = max(s.most, s.held)
		s.changed()
		return true
	})
	switch {
	case err != nil:
		s.mu.Lock()
		s.asking--
		s.mu.Unlock()
		return
	case code != 0:
		problem(w, code, "Told")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	for k, v := range map[string]string{
		"Lambda-Runtime-Aws-Request-Id":       p.id,
		"Lambda-Runtime-Deadline-Ms":          strconv.FormatInt(p.deadline.UnixMilli(), 10),
		"Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:churn",
		"Lambda-Runtime-Trace-Id":             "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
	} {
		h.Set(k, v)
	}
	for k, v := range p.Header {
		h.Set(k, v)
		if v == "" {
			h.Del(k)
		}
	}
	_, _ = w.Write(p.Payload)
}

func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		problem(w, http.StatusBadRequest, "InvalidBody")
		return
	}
	id, what := r.PathValue("id"), r.PathValue("what")
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.all[id]
	if p == nil || !p.given || p.settled || what != "response" && what != "error" {
		s.misuse = append(s.misuse, r.Method+" "+r.URL.Path)
		problem(w, http.StatusBadRequest, "InvalidRequestID")
		return
	}
	p.result.ID, p.result.Header, p.result.Deadline = id, r.Header, p.deadline
	p.result.Posts++
	if p.Status != 0 && p.result.Posts == 1 {
		if p.Status != http.StatusRequestEntityTooLarge { // after which an error is still taken
			s.settle(p)
		}
		problem(w, p.Status, "Told")
		return
	}
	if len(body) > MaxAnswer {
		problem(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge")
		return
	}
	if time.Now().After(p.deadline) {
		s.settle(p)
		problem(w, http.StatusForbidden, "InvalidStateTransition")
		return
	}
	if what == "response" {
		p.result.Response = body
	} else {
		p.result.Error = body
	}
	s.settle(p)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}

// settle ends an event; s.mu is held.
func (s *Server) settle(p *pending) {
	p.settled = true
	s.held--
	close(p.done)
	s.changed()
}

func (s *Server) initError(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.init = body
	s.changed()
	s.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	var b struct {
		Events []string `json:"events"`
	}
	name := r.Header.Get("Lambda-Extension-Name")
	if json.NewDecoder(r.Body).Decode(&b) != nil || name == "" || len(b.Events) > 0 && strings.Join(b.Events, ",") != "INVOKE" {
		problem(w, http.StatusBadRequest, "InvalidEvent")
		return
	}
	s.mu.Lock()
	s.ext = append(s.ext, name)
	s.changed()
	s.mu.Unlock()
	w.Header().Set("Lambda-Extension-Identifier", "3fa85f64-5717-4562-b3fc-2c963f66afa6")
	_, _ = io.WriteString(w, `{"functionName":"churn","functionVersion":"1","handler":"waybill"}`)
}

func problem(w http.ResponseWriter, status int, kind string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errorMessage":"%d","errorType":%q}`, status, kind)
}
