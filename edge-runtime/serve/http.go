package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// DigestHeader names the artifact that answered a request.
const DigestHeader = "Waybill-Digest"

// platform of model metadata, in the protocol's form <project>_<format>.
const platform = "waybill_wasm"

// extensions of the protocol that this server speaks, as its metadata lists them.
func extensions() []string { return []string{"binary_tensor_data", "sequence"} }

// Handler returns the routes: the Open Inference Protocol below /v2 and as gRPC, and /metrics.
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
		mux.Handle(base+"/infer", s.route(http.MethodPost, s.inferREST))
	}
	get("/metrics", func(w http.ResponseWriter, r *http.Request) error {
		s.cfg.Metrics.ServeHTTP(w, r)
		return nil
	})
	s.handleGRPC(mux)
	mux.Handle("/", s.route("", func(w http.ResponseWriter, r *http.Request) error {
		if isGRPC(r) {
			noSuchCall(w)
			return nil
		}
		return fail(http.StatusNotFound, "there is nothing at %s; this server speaks the Open Inference Protocol below /v2", r.URL.Path)
	}))
	return s.logged(mux)
}

// route checks the method and turns errors into the protocol's form.
func (s *Server) route(method string, h func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived := time.Now()
		allowed := method == "" || r.Method == method || method == http.MethodGet && r.Method == http.MethodHead
		var err error
		if allowed {
			err = h(w, r)
		} else {
			w.Header().Set("Allow", method)
			err = fail(http.StatusMethodNotAllowed, "%s does not take %s, only %s", r.URL.Path, r.Method, method)
		}
		if err != nil {
			s.writeError(w, r, arrived, err)
		}
	})
}

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, arrived time.Time, err error) {
	he := &httpError{status: http.StatusInternalServerError, err: err}
	errors.As(err, &he)
	s.logFailure(r, arrived, he)
	if he.status == http.StatusServiceUnavailable && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // the next request is for whoever comes after this process
	}
	if he.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((he.retry+time.Second-1)/time.Second)))
	}
	writeJSON(w, he.status, struct {
		Error string `json:"error"`
	}{he.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only our own types come here
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	writeBody(w, status, append(b, '\n'))
}

func writeBody(w http.ResponseWriter, status int, b []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{"waybill", version.Number, extensions()})
	return nil
}

// live: requests can make progress. When they cannot, a restart is the cure.
func (s *Server) live(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	status, err := http.StatusOK, s.Healthy(ctx)
	if err != nil {
		status = http.StatusServiceUnavailable
		s.cfg.Log.Error("not live", "error", err)
	}
	writeJSON(w, status, map[string]bool{"live": err == nil})
	return nil
}

// healthTimeout bounds the check behind a question for liveness.
const healthTimeout = 5 * time.Second

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	status := http.StatusOK
	ok := s.Ready()
	if !ok {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]bool{"ready": ok})
	return nil
}

type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) error {
	sl, err := s.find(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	defer sl.release()
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
	sl, err := s.find(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return err
	}
	defer sl.release()
	status, ok := http.StatusOK, !s.isDraining()
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
