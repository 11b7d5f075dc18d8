package lambdaapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi"
	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi/rapitest"
)

// TestMain lets the test binary be a function: ours, or the same one on the official client.
func TestMain(m *testing.M) {
	switch os.Getenv("LAMBDAAPI_TEST_FUNCTION") {
	case "ours":
		os.Exit(ours())
	case "official":
		lambda.StartWithOptions(func(ctx context.Context, raw json.RawMessage) (any, error) {
			dl, _ := ctx.Deadline()
			id := ""
			if lc, ok := lambdacontext.FromContext(ctx); ok {
				id = lc.AwsRequestID
			}
			out, err := act(ctx, raw, dl, id)
			if err != nil {
				return nil, err
			}
			return json.RawMessage(out), nil
		}, lambda.WithEnableSIGTERM())
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func ours() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, ok := lambdaapi.FromEnv(os.Getenv)
	if !ok {
		return 4
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Model = func() (string, error) { return "churn", nil }
	cfg.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		dl, _ := r.Context().Deadline()
		out, err := act(r.Context(), raw, dl, r.Header.Get("X-Request-Id"))
		if err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(out)
	})
	if err := lambdaapi.Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// act is the function: it does what its event says.
func act(ctx context.Context, raw []byte, deadline time.Time, id string) ([]byte, error) {
	var e struct {
		Do   string `json:"do"`
		Text string `json:"text"`
		Size int    `json:"size"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	switch e.Do {
	case "error":
		return nil, errors.New(e.Text)
	case "panic":
		panic(e.Text)
	case "nil":
		var p *http.Request
		return []byte(p.Host), nil
	case "until": // the deadline
		<-ctx.Done()
		return nil, context.Cause(ctx)
	case "meet": // all of Size events at once
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, e.Text, nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		_ = resp.Body.Close()
	}
	return json.Marshal(map[string]any{
		"text": e.Text, "trace": os.Getenv("_X_AMZN_TRACE_ID"), "deadline": deadline.UnixMilli(), "id": id, "pad": strings.Repeat("x", e.Size),
	})
}

// function is a running one.
type function struct {
	cmd *exec.Cmd
	err bytes.Buffer
}

func start(t *testing.T, kind string, s *rapitest.Server, env ...string) *function {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &function{cmd: exec.Command(exe)}
	// A proxy that is not there: the Runtime API is never asked through one.
	f.cmd.Env = append(os.Environ(), append([]string{
		"LAMBDAAPI_TEST_FUNCTION=" + kind, "AWS_LAMBDA_RUNTIME_API=" + s.Addr, "HTTP_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1", "NO_PROXY=",
	}, env...)...)
	f.cmd.Stdout, f.cmd.Stderr = io.Discard, &f.err
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.cmd.Process.Kill(); _ = f.cmd.Wait() })
	return f
}

// exit waits for the end and gives the exit code.
func (f *function) exit(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(time.Minute, func() { _ = f.cmd.Process.Kill() })
	defer timer.Stop()
	err := f.cmd.Wait()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	return f.cmd.ProcessState.ExitCode()
}

// both runs a test against ours and the official client.
func both(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range []string{"official", "ours"} {
		t.Run(kind, func(t *testing.T) { test(t, kind) })
	}
}

func plain(format string, args ...any) []byte {
	return []byte(`{"inputs":[],` + fmt.Sprintf(format, args...) + `}`)
}

// Answers, errors, headers and what follows them: the two are told apart by nothing here.
func TestSameAsOfficial(t *testing.T) {
	both(t, func(t *testing.T, kind string) {
		s := rapitest.Start(t)
		start(t, kind, s)
		for i := range 3 { // one process answers one after the other
			trace := fmt.Sprintf("Root=1-%d", i)
			before := time.Now().UnixMilli()
			r := s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo","text":"é<%d>"`, i), Header: map[string]string{"Lambda-Runtime-Trace-Id": trace}, Timeout: 30 * time.Second})
			var got struct {
				Text, Trace, ID string
				Deadline        int64
			}
			if err := json.Unmarshal(r.Response, &got); err != nil {
				t.Fatalf("%s: %v (%s)", r.Response, err, r.Error)
			}
			late := time.Now().UnixMilli() + 30000
			if got.Text != fmt.Sprintf("é<%d>", i) || got.Trace != trace || got.ID != r.ID || got.Deadline < before+29000 || got.Deadline > late {
				t.Errorf("%+v, deadline between %d and %d", got, before+29000, late)
			}
			if ct := r.Header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
		}
		r := s.Invoke(t, rapitest.Event{Payload: plain(`"do":"error","text":"bad shape"`)})
		if f := r.Failure(t); f.Message != "bad shape" || f.Type == "" || len(f.Stack) != 0 {
			t.Errorf("%s", r.Error)
		}
		var xray struct {
			Dir        *string `json:"working_directory"`
			Exceptions []struct{ Type, Message string }
			Paths      []string
		}
		if err := json.Unmarshal([]byte(r.Header.Get("Lambda-Runtime-Function-Xray-Error-Cause")), &xray); err != nil || len(xray.Exceptions) != 1 || xray.Exceptions[0].Message != "bad shape" || xray.Dir == nil || xray.Paths == nil {
			t.Errorf("cause for X-Ray: %+v, %v", xray, err)
		}
		// Damaged headers are errors of their event, and the next one is answered.
		for k, v := range map[string]string{"Lambda-Runtime-Deadline-Ms": "soon", "Lambda-Runtime-Client-Context": "{", "Lambda-Runtime-Cognito-Identity": "[1"} {
			r := s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo"`), Header: map[string]string{k: v}})
			if f := r.Failure(t); f.Message == "" || f.Type == "" {
				t.Errorf("%s: %s", k, r.Error)
			}
		}
		r = s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo","text":"after"`), Header: map[string]string{"Lambda-Runtime-Client-Context": `{"custom":{}}`, "Lambda-Runtime-Cognito-Identity": `{"cognitoIdentityId":"x"}`}})
		if !bytes.Contains(r.Response, []byte(`"after"`)) {
			t.Errorf("%s %s", r.Response, r.Error)
		}
		if m := s.Misuse(); len(m) > 0 {
			t.Errorf("calls that nobody takes: %q", m)
		}
		if x := s.Extensions(); len(x) != 1 {
			t.Errorf("extensions %q", x)
		}
	})
}

// A panic answers the event with the stack and ends the process.
func TestPanicSameAsOfficial(t *testing.T) {
	for name, want := range map[string]struct{ event, message, kind string }{
		"value":   {`"do":"panic","text":"boom"`, "boom", "string"},
		"runtime": {`"do":"nil"`, "runtime error: invalid memory address or nil pointer dereference", "errorString"},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, kind string) {
				s := rapitest.Start(t)
				f := start(t, kind, s)
				r := s.Invoke(t, rapitest.Event{Payload: plain("%s", want.event)})
				if got := r.Failure(t); got.Message != want.message || got.Type != want.kind || len(got.Stack) == 0 {
					t.Errorf("%s", r.Error)
				}
				if !bytes.Contains(r.Error, []byte("oracle_test.go")) {
					t.Errorf("the stack does not show where it was: %s", r.Error)
				}
				if code := f.exit(t); code == 0 {
					t.Error("the process goes on, or says that all is well")
				}
			})
		})
	}
}

// What the Runtime API says to an answer: 500 and others end the process.
func TestRefusedSameAsOfficial(t *testing.T) {
	for _, status := range []int{500, 502, 418} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			both(t, func(t *testing.T, kind string) {
				s := rapitest.Start(t)
				f := start(t, kind, s)
				s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo"`), Status: status})
				if f.exit(t) == 0 {
					t.Error("the process says that all is well")
				}
			})
		})
	}
}

// A platform that does not give events ends the process.
func TestNextFailsSameAsOfficial(t *testing.T) {
	for _, status := range []int{403, 500} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			both(t, func(t *testing.T, kind string) {
				s := rapitest.Start(t)
				f := start(t, kind, s)
				s.WaitAsking(t, 1)
				s.FailNext(status)
				if f.exit(t) == 0 {
					t.Error("the process says that all is well")
				}
			})
		})
	}
}

// Managed instances: as many events at once as the platform says, and the trace id of none of them in the environment.
func TestConcurrencySameAsOfficial(t *testing.T) {
	both(t, func(t *testing.T, kind string) {
		s := rapitest.Start(t)
		meet := meeting(t, 4)
		start(t, kind, s, "AWS_LAMBDA_MAX_CONCURRENCY=4", "_X_AMZN_TRACE_ID=none")
		s.WaitAsking(t, 4)
		var ids []string
		for i := range 8 {
			ids = append(ids, s.Send(rapitest.Event{Payload: plain(`"do":"meet","text":%q,"size":%d`, meet, i)}))
		}
		for _, id := range ids {
			r := s.Await(t, id)
			if !bytes.Contains(r.Response, []byte(`"trace":"none"`)) || !bytes.Contains(r.Response, []byte(id)) {
				t.Errorf("%s %s", r.Response, r.Error)
			}
		}
		if s.Most() != 4 {
			t.Errorf("%d at once", s.Most())
		}
	})
}

// meeting is a server that answers when n wait, n after n.
func meeting(t *testing.T, n int) string {
	room := make(chan chan struct{})
	stop := make(chan struct{})
	go func() {
		for {
			var here []chan struct{}
			for len(here) < n {
				select {
				case c := <-room:
					here = append(here, c)
				case <-stop:
					return
				}
			}
			for _, c := range here {
				close(c)
			}
		}
	}()
	t.Cleanup(func() { close(stop) })
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		c := make(chan struct{})
		select {
		case room <- c:
			<-c
		case <-stop:
		case <-r.Context().Done():
		}
	})
}

// Where ours differs on purpose: what the platform does not want any more, or finds too large, costs the event and not the process.
func TestRefusedAndGoesOn(t *testing.T) {
	s := rapitest.Start(t)
	start(t, "ours", s)
	for _, status := range []int{400, 403, 413} {
		r := s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo"`), Status: status})
		if status == 413 {
			if f := r.Failure(t); f.Type != "Function.ResponseSizeTooLarge" || r.Posts != 2 || r.Header.Get("Lambda-Runtime-Function-Error-Type") != f.Type {
				t.Errorf("%+v, %d posts", f, r.Posts)
			}
		} else if r.Posts != 1 {
			t.Errorf("%d: %d posts", status, r.Posts)
		}
	}
	if f := s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo","size":%d`, rapitest.MaxAnswer)}).Failure(t); f.Type != "Function.ResponseSizeTooLarge" {
		t.Errorf("%+v", f)
	}
	// The server's own end comes before the platform's.
	r := s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo"`)})
	var got struct{ Deadline int64 }
	if err := json.Unmarshal(r.Response, &got); err != nil || r.Deadline.UnixMilli()-got.Deadline < 400 || r.Deadline.UnixMilli()-got.Deadline > 500 {
		t.Errorf("%s, the platform's deadline is %d (%v)", r.Response, r.Deadline.UnixMilli(), err)
	}
	r = s.Invoke(t, rapitest.Event{Payload: plain(`"do":"until"`), Header: map[string]string{"Lambda-Runtime-Deadline-Ms": "1"}})
	if f := r.Failure(t); !strings.Contains(f.Message, "deadline") {
		t.Errorf("%+v", f)
	}
	if r := s.Invoke(t, rapitest.Event{Payload: plain(`"do":"echo","text":"after"`)}); !bytes.Contains(r.Response, []byte("after")) {
		t.Errorf("%s %s", r.Response, r.Error)
	}
}

func TestInitError(t *testing.T) {
	s := rapitest.Start(t)
	err := lambdaapi.InitError(t.Context(), lambdaapi.Config{API: s.Addr}, "Waybill.NotVerified", errors.New("no release"))
	if f := s.WaitInit(t); err != nil || f.Type != "Waybill.NotVerified" || f.Message != "no release" {
		t.Errorf("%+v, %v", f, err)
	}
}
