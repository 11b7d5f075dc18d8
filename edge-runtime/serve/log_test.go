package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/waybill-ml/waybill/edge-runtime/ecslog"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/oip"
)

// testLog writes into the test's own output.
func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// complaint fails the test with each line.
type complaint struct{ t *testing.T }

// Write implements io.Writer.
func (c complaint) Write(b []byte) (int, error) {
	c.t.Error(strings.TrimSpace(string(b)))
	return len(b), nil
}

// written is a buffer that handlers write into while the test reads.
type written struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

// lines are those with the message, each checked against the schema.
func (w *written) lines(t *testing.T, message string) (out []map[string]any) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range bytes.Lines(w.b.Bytes()) {
		if err := ecslog.CheckLine(l); err != nil {
			t.Errorf("%v: %s", err, l)
		}
		var m map[string]any
		if err := json.Unmarshal(l, &m); err != nil {
			t.Fatal(err)
		}
		if m["labels"] != nil {
			t.Errorf("a field that the schema has no name for: %s", l)
		}
		if m["message"] == message {
			out = append(out, m)
		}
	}
	return out
}

// moody answers, or fails as a model that traps does.
func moody() *runner {
	r := echo(port("x", "i64", -1))
	r.f = func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
		if ins[0].Data[0] == 13 {
			return nil, errors.New("the model traps")
		}
		return ins, nil
	}
	return r
}

func logAt(w *written, level slog.Level) *slog.Logger {
	return ecslog.New(w, ecslog.Options{Level: level})
}

// Requests over REST: each is a line of the level debug with the schema's own fields; one that fails by the server's fault is a
// line at any level; what a client does wrong is none.
func TestRequestLog(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo} {
		w := &written{}
		s := New(Config{Log: logAt(w, level)})
		s.Swap("m", Model{dig, moody()})
		h := httptest.NewServer(s.Handler())
		infer := func(n int) int {
			body := strings.NewReader(`{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[` + strconv.Itoa(n) + `]}]}`)
			req, err := http.NewRequest(http.MethodPost, h.URL+"/v2/models/m/infer?token=S3cret-in-query", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("User-Agent", "probe/1.0 \u009b31m")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			return res.StatusCode
		}
		if a, b := infer(1), infer(13); a != http.StatusOK || b != http.StatusInternalServerError {
			t.Fatalf("%d, %d", a, b)
		}
		if res, err := http.Get(h.URL + "/nowhere%0Ainjected"); err != nil || res.StatusCode != http.StatusNotFound {
			t.Fatal(res, err)
		} else {
			_ = res.Body.Close()
		}
		h.Close()
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text := w.b.String(); strings.Contains(text, "S3cret") || strings.Contains(text, "\u009b") {
			t.Errorf("a query or a control character: %s", text)
		}
		failed := w.lines(t, "request failed")
		if len(failed) != 1 || failed[0]["http.response.status_code"] != 500. || failed[0]["url.path"] != "/v2/models/m/infer" || failed[0]["log.level"] != "error" ||
			!strings.Contains(fmt.Sprint(failed[0]["error.message"]), "the model traps") || failed[0]["event.outcome"] != "failure" {
			t.Errorf("failures: %v", failed)
		}
		all := w.lines(t, "request")
		if level == slog.LevelInfo {
			if len(all) != 0 {
				t.Errorf("%d lines of requests at the level info", len(all))
			}
			continue
		}
		if len(all) != 3 {
			t.Fatalf("%d lines of 3 requests: %v", len(all), all)
		}
		for i, want := range []struct {
			status  float64
			method  string
			outcome string
		}{{200, "POST", "success"}, {500, "POST", "failure"}, {404, "GET", "failure"}} {
			l := all[i]
			if l["http.response.status_code"] != want.status || l["http.request.method"] != want.method || l["event.outcome"] != want.outcome ||
				l["client.ip"] != "127.0.0.1" || l["http.version"] != "1.1" || l["event.duration"].(float64) <= 0 || l["http.response.body.bytes"].(float64) <= 0 {
				t.Errorf("%v, want %v", l, want)
			}
		}
	}
}

// gRPC calls have a code in place of a status, and streams go on working behind the log.
func TestRequestLogGRPC(t *testing.T) {
	w := &written{}
	s := New(Config{Log: logAt(w, slog.LevelDebug)})
	s.Swap("m", Model{dig, moody()})
	url, stop := serveOn(t, s)
	client := inferClient(t, url)
	if _, err := client.CallUnary(t.Context(), connect.NewRequest(rawInt("m", 1))); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CallUnary(t.Context(), connect.NewRequest(rawInt("m", 13))); connect.CodeOf(err) != connect.CodeInternal {
		t.Fatal(err)
	}
	stream := method[oip.ModelInferRequest, oip.ModelStreamInferResponse](t, url, "ModelStreamInfer").CallBidiStream(t.Context())
	for _, n := range []int64{1, 13, 2} { // each answer must arrive before the next question
		if err := stream.Send(rawInt("m", n)); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Receive()
		if err != nil || (res.GetErrorMessage() != "") != (n == 13) {
			t.Fatalf("%d: %v, %v", n, res, err)
		}
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) { // the server ends the call first
		t.Fatal(err)
	}
	if err := stream.CloseResponse(); err != nil {
		t.Fatal(err)
	}
	stop()
	failed := w.lines(t, "request failed")
	if len(failed) != 2 || failed[0]["error.code"] != "internal" || failed[0]["url.path"] != "/"+serviceName+"/ModelInfer" || failed[1]["url.path"] != "/"+serviceName+"/ModelStreamInfer" {
		t.Errorf("failures: %v", failed)
	}
	var got []string
	for _, l := range w.lines(t, "request") {
		got = append(got, fmt.Sprint(l["event.outcome"], " ", l["http.version"]))
	}
	slices.Sort(got)
	if want := []string{"failure 2.0", "success 2.0", "success 2.0"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
