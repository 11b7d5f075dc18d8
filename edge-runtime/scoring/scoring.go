// Package scoring puts the contracts of SageMaker's and Vertex AI's containers in front of a handler that speaks the Open Inference
// Protocol: their paths, their health checks, rows in and rows out. It computes nothing and knows no model; numbers pass through it
// as the text that they are, so an answer has the digits that the protocol's own has.
package scoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// Config of the routes.
type Config struct {
	Model    string       // name below /v2/models
	Protocol http.Handler // the Open Inference Protocol; what no route here takes goes there
	MaxBody  int64        // bytes of a request
	Parallel int          // requests worked on at once, which SageMaker's batch transform asks for
}

// SageMaker answers GET /ping, POST /invocations and GET /execution-parameters. An invocation is text/csv without a header,
// JSON with "instances" or "inputs" of rows, or a request of the Open Inference Protocol, as JSON or with binary tensors.
func SageMaker(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", c.health)
	mux.HandleFunc("/invocations", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			refuse(w, http.StatusMethodNotAllowed, errors.New("an invocation is a POST"))
			return
		}
		c.invoke(w, r)
	})
	mux.HandleFunc("GET /execution-parameters", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"MaxConcurrentTransforms": c.Parallel, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6})
	})
	mux.Handle("/", c.Protocol)
	return mux
}

// Vertex answers the two routes that the platform names, which are paths: GET health, and POST predict with "instances" in JSON.
func Vertex(c Config, health, predict string) (http.Handler, error) {
	for _, p := range []string{health, predict} {
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "{} ") {
			return nil, fmt.Errorf("%q is no path", p)
		}
	}
	if health == predict {
		return nil, fmt.Errorf("health checks and predictions have the same path %s", health)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == health && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			c.health(w, r)
		case r.URL.Path == predict && r.Method == http.MethodPost:
			c.invoke(w, r)
		case r.URL.Path == health || r.URL.Path == predict:
			refuse(w, http.StatusMethodNotAllowed, errors.New("GET the health check, POST a prediction"))
		default:
			c.Protocol.ServeHTTP(w, r)
		}
	}), nil
}

// health is 200 without a body while the model serves.
func (c Config) health(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(c.ask(r, http.MethodGet, "/v2/health/ready", nil).status)
}

func (c Config) invoke(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Inference-Header-Content-Length") != "" {
		c.pass(w, r, r.Body)
		return
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Header.Get("Content-Type") == "" {
		kind, err = "application/json", nil
	}
	if err != nil || kind != "application/json" && kind != "text/csv" {
		refuse(w, http.StatusUnsupportedMediaType, fmt.Errorf("the content type is %q, not application/json or text/csv", r.Header.Get("Content-Type")))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, c.MaxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the request has more than %d bytes", c.MaxBody))
		return
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	meta, res := c.metadata(r)
	if meta == nil {
		res.write(w)
		return
	}
	var rows *rows
	if kind == "text/csv" {
		rows, err = readCSV(body, meta.Inputs)
	} else if rows, err = readJSON(body, meta.Inputs); err == nil && rows == nil {
		c.pass(w, r, bytes.NewReader(body))
		return
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	req, err := json.Marshal(map[string]any{"inputs": rows.inputs})
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	res = c.ask(r, http.MethodPost, c.path()+"/infer", req)
	if res.status != http.StatusOK {
		res.write(w)
		return
	}
	answer, contentType, err := rows.answer(res.body.Bytes(), kind == "text/csv" && !strings.Contains(r.Header.Get("Accept"), "json"))
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	if d := res.header.Get("Waybill-Digest"); d != "" {
		w.Header().Set("Waybill-Digest", d)
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(answer)
}

func (c Config) path() string { return "/v2/models/" + url.PathEscape(c.Model) }

// pass hands a request of the protocol to it.
func (c Config) pass(w http.ResponseWriter, r *http.Request, body io.Reader) {
	q := r.Clone(r.Context())
	q.URL = &url.URL{Path: "/v2/models/" + c.Model + "/infer", RawPath: c.path() + "/infer"}
	q.Body = io.NopCloser(body)
	c.Protocol.ServeHTTP(w, q)
}

type port struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

type metadata struct {
	Inputs []port `json:"inputs"`
}

// metadata is what the model takes; nil, and the protocol's answer, when it does not serve.
func (c Config) metadata(r *http.Request) (*metadata, *result) {
	res := c.ask(r, http.MethodGet, c.path(), nil)
	m := &metadata{}
	if res.status != http.StatusOK || json.Unmarshal(res.body.Bytes(), m) != nil {
		return nil, res
	}
	return m, res
}

// ask puts a question to the protocol in r's place.
func (c Config) ask(r *http.Request, method, path string, body []byte) *result {
	res := &result{status: http.StatusOK, header: http.Header{}}
	q, err := http.NewRequestWithContext(r.Context(), method, path, bytes.NewReader(body))
	if err != nil { // of our own path
		res.status = http.StatusInternalServerError
		return res
	}
	q.Header.Set("Content-Type", "application/json")
	for _, h := range []string{"Traceparent", "Tracestate", "X-Request-Id"} {
		if v := r.Header.Get(h); v != "" {
			q.Header.Set(h, v)
		}
	}
	q.RemoteAddr = r.RemoteAddr
	c.Protocol.ServeHTTP(res, q)
	return res
}

// result is an answer that is kept.
type result struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *result) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *result) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *result) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *result) write(w http.ResponseWriter) {
	for k, v := range r.header {
		w.Header()[k] = v
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes())
}

func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only our own types come here
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

func refuse(w http.ResponseWriter, status int, err error) {
	reply(w, status, map[string]string{"error": err.Error()})
}
