package lambdaapi_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdaurl"

	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi"
	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi/rapitest"
)

func serveHTTP(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// mirror answers with what it was asked.
func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch r.URL.Path {
	case "/binary":
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(append([]byte{0xff, 0}, body...))
		return
	case "/large":
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 2<<20))
		return
	case "/huge":
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 7<<20))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Connection", "close")
	w.Header().Add("Set-Cookie", "a=1")
	w.Header().Add("Set-Cookie", "b=2")
	w.Header().Add("Vary", "x")
	w.Header().Add("Vary", "y")
	w.WriteHeader(http.StatusTeapot)
	_ = json.NewEncoder(w).Encode(seen{
		r.Method, r.URL.Path, r.URL.RawQuery, r.Host, r.RemoteAddr, r.Header, string(body), r.ContentLength,
	})
}

type seen struct {
	Method, Path, Query, Host, Remote string
	Header                            http.Header
	Body                              string
	Length                            int64
}

// run starts the loop in this process.
func run(t *testing.T, h http.HandlerFunc, edit ...func(*lambdaapi.Config)) *rapitest.Server {
	t.Helper()
	s := rapitest.Start(t)
	cfg := lambdaapi.Config{API: s.Addr, Handler: h, Concurrency: 2, Model: func() (string, error) { return "churn", nil }}
	for _, e := range edit {
		e(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- lambdaapi.Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the end: %v", err)
		}
	})
	return s
}

// strict reads b into v and refuses members that v's type, the platform's own, does not have.
func strict(t *testing.T, b []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
}

func send(t *testing.T, s *rapitest.Server, event any) []byte {
	t.Helper()
	b, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	r := s.Invoke(t, rapitest.Event{Payload: b})
	if r.Response == nil {
		t.Fatalf("error %s", r.Error)
	}
	return r.Response
}

func mirrored(t *testing.T, body string) seen {
	t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return s
}

const inferPath, body = "/v2/models/churn/infer", `{"inputs":[{"name":"x"}]}`

func TestGateway(t *testing.T) {
	s := run(t, mirror)
	for _, encoded := range []bool{false, true} {
		e := events.APIGatewayProxyRequest{
			Resource: "/{proxy+}", Path: inferPath, HTTPMethod: "POST", Body: body,
			Headers:                         map[string]string{"content-type": "application/json", "X-Many": "2"},
			MultiValueHeaders:               map[string][]string{"content-type": {"application/json"}, "X-Many": {"1", "2"}, "Host": {"api.example"}, "Connection": {"close"}},
			MultiValueQueryStringParameters: map[string][]string{"q": {"a b", "&"}},
			RequestContext:                  events.APIGatewayProxyRequestContext{Stage: "prod", Identity: events.APIGatewayRequestIdentity{SourceIP: "192.0.2.1"}},
		}
		if encoded {
			e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString([]byte(body)), true
		}
		var a events.APIGatewayProxyResponse
		strict(t, send(t, s, e), &a)
		m := mirrored(t, a.Body)
		if a.StatusCode != http.StatusTeapot || m.Method != "POST" || m.Path != inferPath || m.Query != "q=a+b&q=%26" || m.Host != "api.example" || m.Remote != "192.0.2.1" ||
			m.Body != body || m.Length != int64(len(body)) || len(m.Header["X-Many"]) != 2 || m.Header["Connection"] != nil || m.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%+v", m)
		}
		if m.Header.Get("X-Amzn-Trace-Id") == "" || m.Header.Get("X-Request-Id") == "" {
			t.Errorf("the platform's names of the call are lost: %v", m.Header)
		}
		if len(a.MultiValueHeaders["Set-Cookie"]) != 2 || a.MultiValueHeaders["Connection"] != nil || a.IsBase64Encoded {
			t.Errorf("%+v", a)
		}
	}
}

// The shortest form, for Invoke: any path of the server.
func TestInvokePath(t *testing.T) {
	s := run(t, mirror)
	var a events.APIGatewayProxyResponse
	strict(t, send(t, s, map[string]any{"httpMethod": "GET", "path": "/v2/models/a%2Fb/ready", "headers": nil, "body": nil}), &a)
	if m := mirrored(t, a.Body); m.Method != "GET" || m.Path != "/v2/models/a/b/ready" || m.Length != 0 {
		t.Errorf("%+v", m)
	}
}

func TestHTTPAPI(t *testing.T) {
	s := run(t, mirror)
	for stage, path := range map[string]string{"$default": inferPath, "prod": "/prod" + inferPath, "v2": "/v2" + inferPath, "": inferPath, "pro": inferPath} {
		e := events.APIGatewayV2HTTPRequest{
			Version: "2.0", RouteKey: "$default", RawPath: path, RawQueryString: "a=1&a=2", Cookies: []string{"x=1", "y=2"}, Body: body,
			Headers: map[string]string{"content-type": "application/json", "host": "api.example"},
			RequestContext: events.APIGatewayV2HTTPRequestContext{Stage: stage, DomainName: "other.example",
				HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: "PUT", Path: path, SourceIP: "192.0.2.1"}},
		}
		var a events.APIGatewayV2HTTPResponse
		strict(t, send(t, s, e), &a)
		m := mirrored(t, a.Body)
		if a.StatusCode != http.StatusTeapot || m.Method != "PUT" || m.Path != inferPath || m.Query != "a=1&a=2" || m.Host != "api.example" || m.Header.Get("Cookie") != "x=1; y=2" || m.Body != body {
			t.Errorf("stage %q: %+v", stage, m)
		}
		if len(a.Cookies) != 2 || a.Headers["Set-Cookie"] != "" || a.Headers["Vary"] != "x, y" {
			t.Errorf("%+v", a)
		}
	}
}

// Function URLs, beside the official adapter of http.Handler: the same request arrives, and the same answer goes out.
func TestFunctionURL(t *testing.T) {
	s := run(t, mirror)
	for _, path := range []string{inferPath, "/binary"} {
		e := events.LambdaFunctionURLRequest{
			Version: "2.0", RawPath: path, RawQueryString: "p=1", Body: base64.StdEncoding.EncodeToString([]byte(body)), IsBase64Encoded: true,
			Headers: map[string]string{"content-type": "application/json", "x-amzn-trace-id": "Root=1"},
			RequestContext: events.LambdaFunctionURLRequestContext{DomainName: "abc.lambda-url.us-east-1.on.aws",
				HTTP: events.LambdaFunctionURLRequestContextHTTPDescription{Method: "POST", Path: path, SourceIP: "192.0.2.1"}},
		}
		var ours events.LambdaFunctionURLResponse
		strict(t, send(t, s, e), &ours)
		theirs, err := lambdaurl.Wrap(http.HandlerFunc(mirror))(t.Context(), &e)
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(theirs.Body)
		if err != nil {
			t.Fatal(err)
		}
		got := []byte(ours.Body)
		if ours.IsBase64Encoded {
			if got, err = base64.StdEncoding.DecodeString(ours.Body); err != nil {
				t.Fatal(err)
			}
		}
		if ours.IsBase64Encoded != (path == "/binary") || ours.StatusCode != theirs.StatusCode || fmt.Sprint(ours.Cookies) != fmt.Sprint(theirs.Cookies) || ours.Headers["Content-Type"] != theirs.Headers["Content-Type"] {
			t.Errorf("%+v, official %+v", ours, theirs)
		}
		if path == "/binary" {
			if !bytes.Equal(got, want) {
				t.Errorf("%q, official %q", got, want)
			}
			continue
		}
		a, b := mirrored(t, string(got)), mirrored(t, string(want))
		a.Header.Del("X-Request-Id")                      // ours alone
		a.Length, b.Length = int64(len(a.Body)), a.Length // theirs does not know it
		if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
			t.Errorf("arrived\n%+v, with the official adapter\n%+v", a, b)
		}
	}
}

func TestLoadBalancer(t *testing.T) {
	s := run(t, mirror)
	for _, many := range []bool{false, true} {
		e := events.ALBTargetGroupRequest{
			HTTPMethod: "POST", Path: inferPath, Body: body,
			RequestContext: events.ALBTargetGroupRequestContext{ELB: events.ELBContext{TargetGroupArn: "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/t/1"}},
		}
		if many {
			e.MultiValueHeaders = map[string][]string{"content-type": {"application/json"}, "host": {"alb.example"}}
			e.MultiValueQueryStringParameters = map[string][]string{"q": {"a%20b"}}
		} else {
			e.Headers = map[string]string{"content-type": "application/json", "host": "alb.example"}
			e.QueryStringParameters = map[string]string{"q": "a%20b"}
		}
		var a events.ALBTargetGroupResponse
		strict(t, send(t, s, e), &a)
		m := mirrored(t, a.Body)
		if a.StatusCode != http.StatusTeapot || a.StatusDescription != "418 I'm a teapot" || m.Query != "q=a+b" || m.Host != "alb.example" || m.Body != body {
			t.Errorf("%+v %+v", a, m)
		}
		if (a.MultiValueHeaders != nil) != many || (a.Headers != nil) == many {
			t.Errorf("the headers are not in the form of the request: %+v", a)
		}
		e.Path = "/large" // more than a load balancer takes, though not more than Lambda
		strict(t, send(t, s, e), &a)
		if a.StatusCode != http.StatusInternalServerError || !strings.Contains(a.Body, "takes 1048576") {
			t.Errorf("%d %.100s", a.StatusCode, a.Body)
		}
	}
}

func TestPlain(t *testing.T) {
	s := run(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case bytes.Contains(body, []byte("binary")):
			_, _ = w.Write([]byte{0xff})
		case bytes.Contains(body, []byte("busy")):
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"error":"too many"}`)
		default:
			_ = json.NewEncoder(w).Encode(map[string]string{"path": r.URL.EscapedPath(), "type": r.Header.Get("Content-Type"), "body": string(body)})
		}
	})
	for event, path := range map[string]string{
		`{"inputs":[]}`: "/v2/models/churn/infer",
		` {"model_name":"a/b","model_version":"1.0","inputs":[1]}`: "/v2/models/a%2Fb/versions/1.0/infer",
	} {
		r := s.Invoke(t, rapitest.Event{Payload: []byte(event)})
		var got struct{ Path, Type, Body string }
		strict(t, r.Response, &got)
		if got.Path != path || got.Type != "application/json" || got.Body != event {
			t.Errorf("%s: %+v", event, got)
		}
	}
	for event, want := range map[string]string{
		`{"inputs":["binary"]}`: "Waybill.BinaryAnswer",
		`{"inputs":["busy"]}`:   "Waybill.TooManyRequests",
		`{}`:                    "Waybill.BadRequest",
		`[1]`:                   "Waybill.BadRequest",
		``:                      "Waybill.BadRequest",
		`{"inputs":`:            "Waybill.BadRequest",
		`null`:                  "Waybill.BadRequest",
		`{"source":"aws.events","detail-type":"Scheduled Event"}`:          "Waybill.BadRequest",
		`{"httpMethod":1,"path":"/"}`:                                      "Waybill.BadRequest",
		`{"version":"2.0","requestContext":{"http":{"method":7}}}`:         "Waybill.BadRequest",
		`{"version":"3.0","requestContext":{"http":{"method":"GET"}}}`:     "Waybill.BadRequest",
		`{"Records":[{"eventSource":"aws:sqs","body":"{\"inputs\":[]}"}]}`: "Waybill.BadRequest",
	} {
		r := s.Invoke(t, rapitest.Event{Payload: []byte(event)})
		if f := r.Failure(t); f.Type != want || f.Message == "" || r.Header.Get("Lambda-Runtime-Function-Error-Type") != want {
			t.Errorf("%s: %+v", event, f)
		}
	}
}

// Without a model of its own a function asks for the name.
func TestPlainWithoutModel(t *testing.T) {
	for _, model := range []func() (string, error){nil, func() (string, error) { return "", errors.New("two models serve") }} {
		s := run(t, mirror, func(c *lambdaapi.Config) { c.Model = model })
		if f := s.Invoke(t, rapitest.Event{Payload: []byte(`{"inputs":[]}`)}).Failure(t); !strings.Contains(f.Message, "model_name") {
			t.Errorf("%+v", f)
		}
	}
}

// What is wrong with an HTTP event is answered as HTTP.
func TestBadHTTPEvents(t *testing.T) {
	s := run(t, mirror)
	for event, status := range map[string]int{
		`{"httpMethod":"POST","path":"/x","body":"!","isBase64Encoded":true}`: 400,
		`{"httpMethod":"P T","path":"/x"}`:                                    400,
		`{"httpMethod":"GET","path":"x"}`:                                     400,
		`{"version":"2.0","rawPath":"/x","body":"!","isBase64Encoded":true,"requestContext":{"http":{"method":"POST"}}}`:         400,
		`{"httpMethod":"POST","path":"/x","body":"!","isBase64Encoded":true,"requestContext":{"elb":{}},"multiValueHeaders":{}}`: 400,
		`{"httpMethod":"GET","path":"/huge"}`: 500,
		`{"httpMethod":"GET","path":"/%zz"}`:  418,
	} {
		r := s.Invoke(t, rapitest.Event{Payload: []byte(event)})
		var a struct {
			StatusCode int
			Body       string
		}
		if err := json.Unmarshal(r.Response, &a); err != nil || a.StatusCode != status || status != 418 && !strings.Contains(a.Body, `{"error":"`) {
			t.Errorf("%s: %s %s", event, r.Response, r.Error)
		}
	}
}

func TestHEAD(t *testing.T) {
	s := run(t, mirror)
	var a events.APIGatewayProxyResponse
	strict(t, send(t, s, map[string]any{"httpMethod": "HEAD", "path": "/v2"}), &a)
	if a.StatusCode != http.StatusTeapot || a.Body != "" {
		t.Errorf("%+v", a)
	}
}
