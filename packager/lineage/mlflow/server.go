package mlflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/redact"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
)

// Server is a tracking server with its model registry. It is safe for concurrent use.
type Server struct {
	base *url.URL // without user and password
	auth string   // the header; "" for none
	http *http.Client
	hide *redact.Redactor // what must not be repeated, should the server say it back
}

// Connect reads where the server is and how to log in from the variables that MLflow's own client reads: MLFLOW_TRACKING_URI,
// and MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. No message ever has one of the last three.
func Connect(getenv func(string) string) (*Server, error) {
	const example = "export MLFLOW_TRACKING_URI=https://mlflow.example.com"
	raw := getenv("MLFLOW_TRACKING_URI")
	if raw == "" {
		return nil, diag.New(diag.Usage, "MLFLOW_TRACKING_URI is not set: which server has the model?").Hint(example)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		// Not quoted: there may be a password in it.
		return nil, diag.New(diag.Usage, "MLFLOW_TRACKING_URI is not the http or https address of a server").Hint(example)
	}
	s := &Server{base: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}}
	user, password := getenv("MLFLOW_TRACKING_USERNAME"), getenv("MLFLOW_TRACKING_PASSWORD")
	if user == "" && u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	r := &http.Request{Header: http.Header{}}
	if user != "" {
		r.SetBasicAuth(user, password)
	} else if t := getenv("MLFLOW_TRACKING_TOKEN"); t != "" {
		r.Header.Set("Authorization", "Bearer "+t)
	}
	s.auth = r.Header.Get("Authorization")
	_, coded, _ := strings.Cut(s.auth, " ")
	s.hide = redact.New(password, getenv("MLFLOW_TRACKING_TOKEN"), coded)
	s.http = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: 2 * time.Minute, TLSHandshakeTimeout: time.Minute,
			DialContext: (&net.Dialer{Timeout: time.Minute}).DialContext,
		},
		// A tracking server answers by itself; what it sends elsewhere would not be what the registry vouches for.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// String is the address, without credentials.
func (s *Server) String() string { return s.base.String() }

var (
	versionRE = regexp.MustCompile(`^[0-9]{1,18}$`)
	idRE      = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// Model finds what a URI of MLflow's names: models:/NAME/VERSION, models:/NAME@ALIAS or runs:/ID/PATH.
func (s *Server) Model(ctx context.Context, uri string) (*lineage.Model, error) {
	var m *lineage.Model
	var err error
	if rest, ok := strings.CutPrefix(uri, "models:/"); ok {
		m, err = s.registered(ctx, strings.TrimLeft(rest, "/"), uri)
	} else {
		rest, _ := strings.CutPrefix(uri, "runs:/")
		m, err = s.logged(ctx, strings.TrimLeft(rest, "/"), uri)
	}
	if err != nil {
		return nil, err
	}
	m.Add("server", s.String())
	return m, nil
}

type modelVersion struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Stage   string   `json:"current_stage"`
	Source  string   `json:"source"`
	RunID   string   `json:"run_id"`
	Status  string   `json:"status"`
	Aliases []string `json:"aliases"`
}

// registered reads NAME/VERSION or NAME@ALIAS.
func (s *Server) registered(ctx context.Context, ref, uri string) (*lineage.Model, error) {
	bad := func() error {
		return diag.New(diag.Usage, "--from: %q names no registered version", uri).Hint("waybill pack --from models:/churn/3   (or models:/churn@champion)")
	}
	q := url.Values{}
	call := "model-versions/get"
	if i := strings.LastIndexByte(ref, '@'); i > 0 && i < len(ref)-1 {
		q.Set("name", ref[:i])
		q.Set("alias", ref[i+1:])
		call = "registered-models/alias"
	} else if i := strings.LastIndexByte(ref, '/'); i > 0 && versionRE.MatchString(ref[i+1:]) {
		q.Set("name", ref[:i])
		q.Set("version", ref[i+1:])
	} else {
		return nil, bad()
	}
	if strings.Contains(q.Get("name"), "/") {
		return nil, bad()
	}
	var out struct {
		Version modelVersion `json:"model_version"`
	}
	if err := s.call(ctx, call, q, &out); err != nil {
		return nil, s.explain(err, uri)
	}
	v := out.Version
	if !versionRE.MatchString(v.Version) || v.Name != q.Get("name") {
		return nil, diag.New(diag.Registry, "%s answers with another version than %s", s, uri)
	}
	if v.Status != "READY" {
		return nil, diag.New(diag.Denied, "%s has the status %s, not READY", uri, v.Status).Hint("wait until it is registered, or register it again")
	}
	t := &tree{s: s, uri: uri, get: func(name string) string {
		return "/model-versions/get-artifact?" + url.Values{"name": {v.Name}, "version": {v.Version}, "path": {name}}.Encode()
	}}
	m, err := s.describe(ctx, t, uri)
	if err != nil {
		return nil, err
	}
	m.URI, m.Name, m.Version = "models:/"+v.Name+"/"+v.Version, project.NameFor(v.Name+".x"), v.Version
	m.Add("registered-name", v.Name)
	m.Add("registered-version", v.Version)
	if v.Stage != "None" {
		m.Add("stage", v.Stage)
	}
	m.Add("aliases", strings.Join(v.Aliases, ","))
	m.Add("logged-as", v.Source)
	return m, s.run(ctx, m, v.RunID)
}

// logged reads ID/PATH. Since MLflow 3 a model is no artifact of its run, but one of the run's outputs.
func (s *Server) logged(ctx context.Context, ref, uri string) (*lineage.Model, error) {
	id, name, _ := strings.Cut(strings.TrimRight(ref, "/"), "/")
	if !idRE.MatchString(id) || name == "" || path.Clean(name) != name || strings.HasPrefix(name, "..") {
		return nil, diag.New(diag.Usage, "--from: %q names no model of a run", uri).Hint("waybill pack --from runs:/4f1d2c3b4a5968778695a4b3c2d1e0f9/model --version 1.0.0")
	}
	t := &tree{s: s, uri: uri, get: func(file string) string {
		return "/get-artifact?" + url.Values{"run_id": {id}, "path": {name + "/" + file}}.Encode()
	}}
	m, err := s.describe(ctx, t, uri)
	if diag.CodeOf(err) == diag.NotFound {
		var found *tree
		if found, err = s.output(ctx, id, name, uri); err == nil {
			m, err = s.describe(ctx, found, uri)
		}
	}
	if err != nil {
		return nil, err
	}
	m.URI, m.Name = "runs:/"+id+"/"+name, project.NameFor(path.Base(name)+".x")
	return m, s.run(ctx, m, id)
}

type runJSON struct {
	Run struct {
		Info struct {
			ID       string `json:"run_id"`
			Name     string `json:"run_name"`
			Status   string `json:"status"`
			ExpID    string `json:"experiment_id"`
			End      int64  `json:"end_time"`
			Artifact string `json:"artifact_uri"`
		} `json:"info"`
		Data struct {
			Metrics []struct {
				Key   string `json:"key"`
				Value any    `json:"value"` // a number, or "NaN" and the like
			} `json:"metrics"`
			Params []struct {
				Key   string `json:"key"`
				Value string `json:"value"`
			} `json:"params"`
			Tags []struct {
				Key   string `json:"key"`
				Value string `json:"value"`
			} `json:"tags"`
		} `json:"data"`
		Outputs struct {
			Models []struct {
				ID string `json:"model_id"`
			} `json:"model_outputs"`
		} `json:"outputs"`
	} `json:"run"`
}

// maxOutputs bounds how many models of a run are asked for their name.
const maxOutputs = 64

// output finds the model that a run has logged under a name: the last one of that name.
func (s *Server) output(ctx context.Context, id, name, uri string) (*tree, error) {
	var r runJSON
	if err := s.call(ctx, "runs/get", url.Values{"run_id": {id}}, &r); err != nil {
		return nil, s.explain(err, uri)
	}
	list := r.Run.Outputs.Models
	if len(list) > maxOutputs {
		list = list[len(list)-maxOutputs:]
	}
	for i := len(list) - 1; i >= 0; i-- {
		if !idRE.MatchString(list[i].ID) {
			continue
		}
		var m struct {
			Model struct {
				Info struct {
					Name     string `json:"name"`
					Artifact string `json:"artifact_uri"`
				} `json:"info"`
			} `json:"model"`
		}
		if err := s.call(ctx, "logged-models/"+list[i].ID, nil, &m); err != nil {
			return nil, s.explain(err, uri)
		}
		if m.Model.Info.Name != name {
			continue
		}
		at, ok := strings.CutPrefix(m.Model.Info.Artifact, "mlflow-artifacts:/")
		if !ok {
			return nil, diag.New(diag.Unsupported, "%s lies where the server does not fetch it from for others", uri).
				Hint("mlflow artifacts download --artifact-uri %s --dst-path model, then: waybill pack --from mlflow:model", lineage.ShellWord(uri))
		}
		base := (&url.URL{Path: "/api/2.0/mlflow-artifacts/artifacts/" + strings.TrimLeft(at, "/")}).EscapedPath()
		return &tree{s: s, uri: uri, get: func(file string) string { return base + "/" + (&url.URL{Path: file}).EscapedPath() }}, nil
	}
	return nil, diag.New(diag.NotFound, "run %s has logged no model %q", id, name).Hint("mlflow runs describe --run-id %s", id)
}

// describe reads MLmodel.
func (s *Server) describe(ctx context.Context, t *tree, uri string) (*lineage.Model, error) {
	r, err := t.Open(ctx, File)
	if err != nil {
		return nil, s.explain(err, uri)
	}
	defer r.Close()
	b, err := lineage.ReadAll(r)
	if err != nil {
		return nil, diag.Wrap(diag.Registry, err, "read %s of %s", File, uri)
	}
	m, err := describe(b, uri)
	if err != nil {
		return nil, err
	}
	m.Document, m.Tree = lineage.FileOf(File, b), t
	return m, nil
}

// run adds what the run says that made the model. A version need not have one.
func (s *Server) run(ctx context.Context, m *lineage.Model, id string) error {
	if id == "" {
		return nil
	}
	var r runJSON
	if err := s.call(ctx, "runs/get", url.Values{"run_id": {id}}, &r); err != nil {
		return s.explain(err, "run "+id)
	}
	if !has(m.Facts, "run-id") {
		m.Add("run-id", id)
	}
	m.Add("run-name", r.Run.Info.Name)
	m.Add("run-status", r.Run.Info.Status)
	m.Add("experiment-id", r.Run.Info.ExpID)
	if t := r.Run.Info.End; t > 0 {
		m.Add("run-ended", time.UnixMilli(t).UTC().Format(time.RFC3339))
	}
	for _, t := range r.Run.Data.Tags {
		if t.Key == "mlflow.source.git.commit" {
			m.Add("git-commit", t.Value)
		}
	}
	for _, p := range r.Run.Data.Params {
		m.Params = append(m.Params, lineage.Fact{Name: p.Key, Value: p.Value})
	}
	for _, x := range r.Run.Data.Metrics {
		switch v := x.Value.(type) {
		case float64:
			if !math.IsInf(v, 0) && !math.IsNaN(v) {
				m.Metrics = append(m.Metrics, lineage.Metric{Name: x.Key, Value: v})
			}
		case string: // a figure that is no number is said as a text
			if f, err := strconv.ParseFloat(v, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
				m.Metrics = append(m.Metrics, lineage.Metric{Name: x.Key, Value: f})
			} else {
				m.Add("metric:"+x.Key, v)
			}
		}
	}
	return nil
}

func has(list []lineage.Fact, name string) bool {
	for _, f := range list {
		if f.Name == name {
			return true
		}
	}
	return false
}

// tree is a folder of artifacts behind the server.
type tree struct {
	s   *Server
	uri string
	get func(name string) string // path and query
}

// Open implements lineage.Tree.
func (t *tree) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := t.s.get(ctx, t.get(name))
	if err != nil {
		return nil, t.s.explain(err, t.uri)
	}
	return r.Body, nil
}

// Pull implements lineage.Tree: who logged the model logged the pointer.
func (t *tree) Pull(name string) string {
	return "git lfs pull --include=" + lineage.ShellWord(name) + " where the model was logged, then log it again"
}

// answerError is an answer that is no success.
type answerError struct {
	status  int
	message string // MLflow's own
}

func (e *answerError) Error() string {
	if e.message == "" {
		return fmt.Sprintf("the server answers %d %s", e.status, http.StatusText(e.status))
	}
	return fmt.Sprintf("the server answers %d: %s", e.status, e.message)
}

func (e *answerError) Unwrap() error {
	if e.status == http.StatusNotFound {
		return fs.ErrNotExist
	}
	return nil
}

// tries is how often a question is asked that the server was too busy for: reading changes nothing.
const tries = 3

func (s *Server) get(ctx context.Context, ref string) (*http.Response, error) {
	var last error
	for i := range tries {
		if i > 0 {
			select {
			case <-time.After(time.Duration(i) * 500 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base.String()+ref, nil)
		if err != nil {
			return nil, err
		}
		if s.auth != "" {
			r.Header.Set("Authorization", s.auth)
		}
		r.Header.Set("User-Agent", "waybill/"+version.Number)
		resp, err := s.http.Do(r)
		if err != nil {
			var ue *url.Error
			if errors.As(err, &ue) {
				err = ue.Err // the address has a query that says nothing
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			last = err
			continue
		}
		if resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		e := &answerError{status: resp.StatusCode}
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // what came of it will do
		_ = resp.Body.Close()
		var m struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(b, &m) == nil && len(m.Message) < 500 {
			e.message = strconv.Quote(s.hide.Text(m.Message))
		}
		last = e
		if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 502 {
			return nil, e
		}
	}
	return nil, last
}

func (s *Server) call(ctx context.Context, name string, q url.Values, out any) error {
	ref := "/api/2.0/mlflow/" + name
	if len(q) > 0 {
		ref += "?" + q.Encode()
	}
	r, err := s.get(ctx, ref)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := lineage.ReadAll(r.Body)
	if err != nil {
		return err
	}
	return parse(b, out)
}

// parse reads an answer.
func parse(b []byte, out any) error {
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	return nil
}

// explain gives an error its exit code and what to do about it.
func (s *Server) explain(err error, what string) error {
	var d *diag.Error
	var a *answerError
	switch {
	case errors.As(err, &d), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &a) && a.status == http.StatusNotFound:
		return diag.Wrap(diag.NotFound, err, "%s is not at %s", what, s).Hint("curl -sS %s/health   (the server's page shows what it has)", s)
	case errors.As(err, &a) && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden):
		return diag.Wrap(diag.Registry, err, "%s at %s", what, s).Hint("set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, to an account that may read it")
	}
	return diag.Wrap(diag.Registry, err, "%s at %s", what, s).Hint("curl -sS %s/health", s)
}
