package serve

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/waybill-ml/waybill/edge-runtime/oip"
)

// What curl -d and Python's urllib say of a body is taken for JSON, from programs: web pages are sent away, since a browser lets each
// of them post this type to the machine that it runs on.
func TestFormContentType(t *testing.T) {
	_, h := start(t, Config{}, echo(port("n", "i64", 1)))
	for origin, want := range map[string]int{"": http.StatusOK, "https://elsewhere.example": http.StatusUnsupportedMediaType, "null": http.StatusUnsupportedMediaType} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL+"/v2/models/m/infer", strings.NewReader(`{"inputs":[{"name":"n","datatype":"INT64","shape":[1],"data":[1]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("origin %q: %d, want %d", origin, res.StatusCode, want)
		}
	}
}

// A call that the protocol does not have is refused in gRPC's own form, so that clients show why.
func TestUnknownGRPCCall(t *testing.T) {
	s, _ := start(t, Config{}, echo(port("n", "i64", 1)))
	url, stop := serveOn(t, s)
	defer stop()
	c := connect.NewClient[oip.ServerLiveRequest, oip.ServerLiveResponse](h2c(t), url+"/"+serviceName+"/ModelConfig", connect.WithGRPC())
	_, err := c.CallUnary(context.WithoutCancel(t.Context()), connect.NewRequest(&oip.ServerLiveRequest{}))
	if connect.CodeOf(err) != connect.CodeUnimplemented || !strings.Contains(err.Error(), "no such call here") {
		t.Errorf("%v", err)
	}
}

// A client that is sent away because the server drains is told to come back on another connection: this one is about to be closed.
func TestDrainEndsConnections(t *testing.T) {
	s, h := start(t, Config{}, echo(port("n", "i64", 1)))
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(h.URL+"/v2/models/m/infer", "application/json", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || !res.Close || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d, close %v, %v", res.StatusCode, res.Close, res.Header)
	}
}
