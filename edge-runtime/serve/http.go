package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// DigestHeader names the artifact that answered a request.
const DigestHeader = "Waybill-Digest"

const (
	statusGatewayTimeout      = http.StatusGatewayTimeout
	statusClientClosedRequest = 499 // as nginx logs it: the client went away, nobody reads the answer

	// platform of model metadata, in the protocol's form <project>_<format>.
	platform = "waybill_wasm"
)

// httpError is an answer other than success.
type httpError struct {
	status int
	err    error
}

func (e *httpError) Error() string { return e.err.Error() }
func (e *httpError) Unwrap() error { return e.err }

func fail(status int, format string, args ...any) *httpError {
	return &httpError{status, fmt.Errorf(format, args...)}
}

// Handler returns the routes: the Open Inference Protocol below /v2, and /metrics.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	get := func(pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
		mux.Handle(pattern, s.route(http.MethodGet, h))
	}
	get("/v2", s.serverMetadata)
	get("/v2/{$}", s.serverMetadata)
	get("/v2/health/live", s.live)
	get("/v2/health/ready", s.ready)
	for _, base := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		get(base, s.modelMetadata)
		get(base+"/ready", s.modelReady)
		mux.Handle(base+"/infer", s.route(http.MethodPost, s.infer))
	}
	get("/metrics", func(w http.ResponseWriter, r *http.Request) error {
		s.cfg.Metrics.ServeHTTP(w, r)
		return nil
	})
	mux.Handle("/", s.route("", func(_ http.ResponseWriter, r *http.Request) error {
		return fail(http.StatusNotFound, "there is nothing at %s; this server speaks the Open Inference Protocol below /v2", r.URL.Path)
	}))
	return mux
}

// route checks the method and turns errors into the protocol's form.
func (s *Server) route(method string, h func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowed := method == "" || r.Method == method || method == http.MethodGet && r.Method == http.MethodHead
		var err error
		if allowed {
			err = h(w, r)
		} else {
			w.Header().Set("Allow", method)
			err = fail(http.StatusMethodNotAllowed, "%s does not take %s, only %s", r.URL.Path, r.Method, method)
		}
		if err != nil {
			s.writeError(w, r, err)
		}
	})
}

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	var he *httpError
	if errors.As(err, &he) {
		status = he.status
	}
	if status >= 500 && status != http.StatusServiceUnavailable {
		s.cfg.Log(fmt.Sprintf("%s %s: %d: %v", r.Method, r.URL.Path, status, err))
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only our own types come here
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer could not be encoded"}`)
	}
	writeBody(w, status, append(b, '\n'))
}

func writeBody(w http.ResponseWriter, status int, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{"waybill", version.Number, []string{}})
	return nil
}

// live: the process answers. That is all that a restart could cure.
func (s *Server) live(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	return nil
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	status := http.StatusOK
	ok := s.Ready()
	if !ok {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]bool{"ready": ok})
	return nil
}

// find returns the slot that the path names, with a reference.
func (s *Server) find(r *http.Request) (*slot, *httpError) {
	name, ver := r.PathValue("model"), r.PathValue("version")
	sl := s.acquire(name)
	if sl == nil {
		return nil, fail(http.StatusNotFound, "there is no model %q here; there is %s", name, listNames(s.Names()))
	}
	if have := sl.model.Runner.Interface().Version; ver != "" && ver != have && ver != string(sl.model.Digest) {
		sl.release(s.cfg.Log)
		return nil, fail(http.StatusNotFound, "model %q has version %s here, not %q", name, have, ver)
	}
	return sl, nil
}

func listNames(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	sl, herr := s.find(r)
	if herr != nil {
		return herr
	}
	defer sl.release(s.cfg.Log)
	i := sl.model.Runner.Interface()
	w.Header().Set(DigestHeader, string(sl.model.Digest))
	writeJSON(w, http.StatusOK, struct {
		Name       string            `json:"name"`
		Versions   []string          `json:"versions"`
		Platform   string            `json:"platform"`
		Inputs     []tensorMetadata  `json:"inputs"`
		Outputs    []tensorMetadata  `json:"outputs"`
		Properties map[string]string `json:"properties"`
	}{sl.name, []string{i.Version}, platform, describePorts(i.Inputs), describePorts(i.Outputs),
		map[string]string{"digest": string(sl.model.Digest)}})
	return nil
}

func describePorts(ports []artifact.Port) []tensorMetadata {
	out := []tensorMetadata{}
	for i := range ports {
		t := tensorMetadata{Name: ports[i].Name, Datatype: datatype(&ports[i]), Shape: []int64{}}
		for _, d := range ports[i].Shape {
			t.Shape = append(t.Shape, d.Size)
		}
		out = append(out, t)
	}
	return out
}

func (s *Server) modelReady(w http.ResponseWriter, r *http.Request) error {
	sl, herr := s.find(r)
	if herr != nil {
		return herr
	}
	defer sl.release(s.cfg.Log)
	status, ok := http.StatusOK, !s.draining.Load()
	if !ok {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set(DigestHeader, string(sl.model.Digest))
	writeJSON(w, status, struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{sl.name, ok})
	return nil
}

// infer answers one inference. The model is taken once: whatever is swapped meanwhile, the request sees one digest.
func (s *Server) infer(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("model")
	select {
	case s.inFlight <- struct{}{}:
	default:
		s.cfg.Metrics.Request(name, "", http.StatusTooManyRequests)
		return fail(http.StatusTooManyRequests, "%d requests are being worked on already; try again", cap(s.inFlight))
	}
	defer func() { <-s.inFlight }()
	if s.draining.Load() {
		return fail(http.StatusServiceUnavailable, "the server is shutting down")
	}
	sl, herr := s.find(r)
	if herr != nil {
		return herr
	}
	defer sl.release(s.cfg.Log)
	digest := string(sl.model.Digest)
	w.Header().Set(DigestHeader, digest)
	s.cfg.Metrics.InFlight(name, 1)
	defer s.cfg.Metrics.InFlight(name, -1)
	body, took, err := s.answer(w, r, sl)
	if err != nil {
		status := statusOf(r.Context(), err)
		if status != statusClientClosedRequest {
			sl.stats.lost(status, took)
		}
		s.cfg.Metrics.Request(name, digest, status)
		return &httpError{status, err}
	}
	sl.stats.answered(took)
	s.cfg.Metrics.Request(name, digest, http.StatusOK)
	s.cfg.Metrics.Inference(name, digest, took)
	writeBody(w, http.StatusOK, body)
	return nil
}

// timedRunner is a Runner that knows how long it worked, without queueing.
type timedRunner interface {
	RunTimed(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, time.Duration, error)
}

// answer reads, runs and encodes one request; took is the time of the inference alone, without
// the wait for an instance where the runner can tell.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, sl *slot) (body []byte, took time.Duration, err error) {
	if err := checkContent(r); err != nil {
		return nil, 0, err
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxBody))
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return nil, 0, fail(http.StatusRequestEntityTooLarge, "the request is larger than %d bytes", tooBig.Limit)
	case err != nil:
		return nil, 0, fail(http.StatusBadRequest, "the request could not be read: %w", err)
	}
	req, err := decodeRequest(raw, &sl.ports)
	if err != nil {
		return nil, 0, fail(http.StatusBadRequest, "%w", err)
	}
	timeout := s.cfg.Timeout
	if ms := sl.model.Runner.Interface().Limits.TimeoutMS; ms > 0 {
		timeout = min(timeout, time.Duration(ms)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	var outs []engine.Tensor
	if timed, ok := sl.model.Runner.(timedRunner); ok {
		outs, took, err = timed.RunTimed(ctx, req.inputs)
	} else {
		start := time.Now()
		outs, err = sl.model.Runner.Run(ctx, req.inputs)
		took = time.Since(start)
	}
	if err != nil {
		return nil, took, err
	}
	body, err = encodeResponse(sl, req, outs)
	return body, took, err
}

// checkContent: JSON in UTF-8, not compressed. A missing Content-Type passes: many clients send none.
func checkContent(r *http.Request) error {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return fail(http.StatusUnsupportedMediaType, "content encoding %q is not supported", enc)
	}
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return nil
	}
	t, p, err := mime.ParseMediaType(ct)
	if err != nil || t != "application/json" {
		return fail(http.StatusUnsupportedMediaType, "content type %q is not supported; send application/json", ct)
	}
	if cs := p["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
		return fail(http.StatusUnsupportedMediaType, "charset %q is not supported; send UTF-8", cs)
	}
	return nil
}

// statusOf maps an error of answer to a status. ctx is the client's.
func statusOf(ctx context.Context, err error) int {
	var he *httpError
	var in *engine.InputError
	var g *engine.GuestError
	switch {
	case errors.As(err, &he):
		return he.status
	case ctx.Err() != nil:
		return statusClientClosedRequest
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.As(err, &in):
		return http.StatusBadRequest
	case errors.Is(err, engine.ErrMemoryLimit):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, engine.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.As(err, &g) && g.InputFault():
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}
