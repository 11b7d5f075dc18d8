package lambdaapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	invocations = "/2018-06-01/runtime/invocation/"
	initError   = "/2018-06-01/runtime/init/error"
	register    = "/2020-01-01/extension/register"
	nextEvent   = "/2020-01-01/extension/event/next"
	agentName   = "waybill-lambdaapi"
)

// client of the Runtime API. It knows no proxy and has no timeouts: the process sleeps between events. The API is plain HTTP on
// the same machine, so each call has a connection of its own, and net/http's client, half a megabyte with its pool, TLS and HTTP/2, stays
// out of the image.
type client struct {
	api string
}

// event is what /next gave.
type event struct {
	id, trace, arn string
	payload        []byte
	deadline       time.Time
	head           http.Header
}

// check reads the headers that can be damaged.
func (e *event) check() error {
	ms, err := strconv.ParseInt(e.head.Get("Lambda-Runtime-Deadline-Ms"), 10, 64)
	if err != nil {
		return fmt.Errorf("the deadline is no number of milliseconds: %w", err)
	}
	e.deadline = time.UnixMilli(ms)
	for _, h := range []string{"Client-Context", "Cognito-Identity"} {
		var object map[string]json.RawMessage
		if v := e.head.Get("Lambda-Runtime-" + h); v != "" {
			if err := json.Unmarshal([]byte(v), &object); err != nil {
				return fmt.Errorf("the header Lambda-Runtime-%s is no JSON object: %w", h, err)
			}
		}
	}
	return nil
}

// refused is an answer of the Runtime API other than success.
type refused struct {
	call   string
	status int
	text   string
}

// Error implements error.
func (r *refused) Error() string {
	return fmt.Sprintf("the Runtime API answers %s with %d%s", r.call, r.status, r.text)
}

// next waits for an event, as long as ctx lets it.
func (c *client) next(ctx context.Context) (*event, error) {
	status, head, body, err := c.do(ctx, http.MethodGet, invocations+"next", nil, nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &refused{"next", status, excerpt(body)}
	}
	e := &event{
		id: head.Get("Lambda-Runtime-Aws-Request-Id"), trace: head.Get("Lambda-Runtime-Trace-Id"),
		arn: head.Get("Lambda-Runtime-Invoked-Function-Arn"), payload: body, head: head,
	}
	if e.id == "" || strings.ContainsAny(e.id, "/?#%") {
		return nil, fmt.Errorf("the Runtime API gave an event with the request id %q", e.id)
	}
	return e, nil
}

func (c *client) respond(ctx context.Context, id string, body []byte) error {
	return c.post(ctx, "response", invocations+id+"/response", body, nil)
}

func (c *client) fail(ctx context.Context, id string, f failure) error {
	return c.post(ctx, "error", invocations+id+"/error", f.json(), f.headers())
}

func (c *client) post(ctx context.Context, call, path string, body []byte, head http.Header) error {
	status, _, text, err := c.do(ctx, http.MethodPost, path, body, head)
	if err == nil && status != http.StatusAccepted {
		err = &refused{call, status, excerpt(text)}
	}
	return err
}

func (c *client) do(ctx context.Context, method, path string, body []byte, head http.Header) (status int, h http.Header, b []byte, err error) {
	fail := func(err error) (int, http.Header, []byte, error) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, nil, nil, fmt.Errorf("%s %s of the Runtime API: %w", method, path, err)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+c.api+path, bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range head {
		r.Header[k] = v
	}
	r.Header.Set("User-Agent", agentName)
	r.Close = true
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.api)
	if err != nil {
		return fail(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() { stop(); _ = conn.Close() }()
	// Who is told in the middle of a large answer that it is too large cannot write its rest, and still reads the reason.
	werr := r.Write(conn)
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return fail(errors.Join(werr, err))
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err = io.ReadAll(resp.Body); err != nil {
		return fail(err)
	}
	return resp.StatusCode, resp.Header, b, nil
}

// register makes the process an internal extension without events, and waits for one in the background, for ever: without that
// the platform takes it for not yet started.
func (c *client) register(ctx context.Context) error {
	status, head, body, err := c.do(ctx, http.MethodPost, register, []byte(`{"events":[]}`), http.Header{"Lambda-Extension-Name": {"waybill-signals"}})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return &refused{"register", status, excerpt(body)}
	}
	id := head.Get("Lambda-Extension-Identifier")
	go func() {
		_, _, _, _ = c.do(ctx, http.MethodGet, nextEvent, nil, http.Header{"Lambda-Extension-Identifier": {id}})
	}()
	return nil
}

// excerpt of an answer's text, for an error.
func excerpt(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return ": " + strconv.Quote(string(b[:min(len(b), 200)]))
}

// failure is the body of /error.
type failure struct {
	Message string  `json:"errorMessage"`
	Type    string  `json:"errorType"`
	Stack   []frame `json:"stackTrace,omitempty"`
}

type frame struct {
	Path  string `json:"path"`
	Line  int    `json:"line"`
	Label string `json:"label"`
}

func (f failure) json() []byte {
	b, err := json.Marshal(f)
	if err != nil { // strings and numbers only
		panic(err)
	}
	return b
}

// headers: the type once more, and the cause as X-Ray shows it.
func (f failure) headers() http.Header {
	dir, _ := os.Getwd()
	stack := f.Stack
	if stack == nil {
		stack = []frame{}
	}
	paths := []string{}
	seen := map[string]bool{}
	for _, s := range stack {
		if !seen[s.Path] {
			seen[s.Path] = true
			paths = append(paths, s.Path)
		}
	}
	type exception struct {
		Type    string  `json:"type"`
		Message string  `json:"message"`
		Stack   []frame `json:"stack"`
	}
	h := http.Header{"Lambda-Runtime-Function-Error-Type": {f.Type}}
	cause, err := json.Marshal(struct {
		Dir        string      `json:"working_directory"`
		Exceptions []exception `json:"exceptions"`
		Paths      []string    `json:"paths"`
	}{dir, []exception{{f.Type, f.Message, stack}}, paths})
	if err == nil && len(cause) < 16<<10 { // of headers a server takes so much
		h["Lambda-Runtime-Function-Xray-Error-Cause"] = []string{string(cause)}
	}
	return h
}

// panicFailure tells of a panic with the stack below it; call it in the deferred function.
func panicFailure(v any) *failure {
	f := &failure{Message: fmt.Sprint(v), Type: typeName(v)}
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)]) // Callers, this, the deferred function, runtime's panic
	for {
		fr, more := frames.Next()
		if fr.Function != "" {
			label := fr.Function[strings.LastIndexByte(fr.Function, '/')+1:]
			pkg, label, _ := strings.Cut(label, ".")
			f.Stack = append(f.Stack, frame{pkg + "/" + fr.File[strings.LastIndexAny(fr.File, `/\`)+1:], fr.Line, label})
		}
		if !more {
			return f
		}
	}
}

func typeName(v any) string {
	t := reflect.TypeOf(v)
	if t == nil {
		return "Panic"
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

// InitError tells the platform that the process cannot serve, before Run was called: kind is of the form Category.Reason, and
// err is what the caller sees. The process exits after it. An error is that of telling.
func InitError(ctx context.Context, cfg Config, kind string, err error) error {
	if err == nil {
		return errors.New("no error to report")
	}
	c := &client{api: cfg.API}
	f := failure{Type: kind, Message: err.Error()}
	return c.post(ctx, "init/error", initError, f.json(), f.headers())
}
