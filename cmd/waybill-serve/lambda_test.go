package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi/rapitest"
)

// On Lambda the process answers events with what it answers over HTTP, byte for byte, and ends at SIGTERM.
func TestLambda(t *testing.T) {
	x := ship(t)
	api := rapitest.Start(t)
	s := started(t, append(x.env(), "AWS_LAMBDA_RUNTIME_API="+api.Addr, "AWS_LAMBDA_MAX_CONCURRENCY=2"))
	web := started(t, append(x.env(), "AWS_LAMBDA_RUNTIME_API="+api.Addr, "WAYBILL_VARIANT=plain"))
	code, _, want := call(t, "POST", web.url+"/v2/models/churn/infer", "application/json", question(t))
	if code != 200 {
		t.Fatalf("%d %s", code, want)
	}

	r := api.Invoke(t, rapitest.Event{Payload: question(t)})
	if !bytes.Equal(r.Response, want) {
		t.Errorf("invoke: %s %s, over HTTP %s", r.Response, r.Error, want)
	}
	e, err := json.Marshal(events.LambdaFunctionURLRequest{
		Version: "2.0", RawPath: "/v2/models/churn/infer", Body: string(question(t)), Headers: map[string]string{"content-type": "application/json"},
		RequestContext: events.LambdaFunctionURLRequestContext{HTTP: events.LambdaFunctionURLRequestContextHTTPDescription{Method: "POST"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var a events.LambdaFunctionURLResponse
	if err := json.Unmarshal(api.Invoke(t, rapitest.Event{Payload: e}).Response, &a); err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != 200 || a.Body != string(want) || a.Headers["Waybill-Digest"] != string(x.target.Digest) {
		t.Errorf("function URL: %+v", a)
	}
	if f := api.Invoke(t, rapitest.Event{Payload: []byte(`{"inputs":[{"name":"Y","datatype":"FP32","shape":[1],"data":[1]}]}`)}).Failure(t); f.Type != "Waybill.BadRequest" || !strings.Contains(f.Message, `"Y"`) {
		t.Errorf("%+v", f)
	}
	if f := api.Invoke(t, rapitest.Event{Payload: []byte(`{"model_name":"other","inputs":[]}`)}).Failure(t); f.Type != "Waybill.NotFound" {
		t.Errorf("%+v", f)
	}
	if runtime.GOOS == "windows" {
		return // without SIGTERM
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.log)
	}
}

// What keeps the process from serving is what the function's caller sees.
func TestLambdaInitError(t *testing.T) {
	x := ship(t)
	for name, c := range map[string]struct {
		env  string
		kind string
		code int
	}{
		"trust": {"WAYBILL_TRUST_DIGEST=sha256:" + strings.Repeat("0", 64), "Waybill.NotVerified", 3},
		"usage": {"WAYBILL_MODEL=", "Waybill.Usage", 2},
		"gone":  {"WAYBILL_ARTIFACT=" + filepath.Join(x.dir, "none"), "Waybill.NotFound", 7},
	} {
		t.Run(name, func(t *testing.T) {
			api := rapitest.Start(t)
			s := launch(t, append(x.env(), c.env, "AWS_LAMBDA_RUNTIME_API="+api.Addr))
			if code := s.wait(); code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, s.log)
			}
			if f := api.WaitInit(t); f.Type != c.kind || f.Message == "" {
				t.Errorf("%+v", f)
			}
		})
	}
	if s := launch(t, append(x.env(), "WAYBILL_VARIANT=lambda")); s.wait() != 2 || !strings.Contains(s.log.String(), "AWS_LAMBDA_RUNTIME_API is not set") {
		t.Errorf("without a Runtime API: %s", s.log)
	}
}
