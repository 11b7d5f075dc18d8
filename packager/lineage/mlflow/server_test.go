package mlflow

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/lineage"
)

func connect(t *testing.T, h http.HandlerFunc, env ...string) *Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	vars := map[string]string{"MLFLOW_TRACKING_URI": srv.URL}
	for i := 0; i < len(env); i += 2 {
		vars[env[i]] = env[i+1]
	}
	s, err := Connect(func(k string) string { return vars[k] })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a server answers that is not as it should be: the exit code, and never a secret in the message. That a version is read
// right is shown with MLflow's own server (TestRealServer).
func TestServerRefuses(t *testing.T) {
	const token = "s3cret-token"
	for _, c := range []struct {
		uri, why string
		h        http.HandlerFunc
		code     diag.Code
	}{
		{"models:/churn/3", "unknown", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"message": "no such model"}`, http.StatusNotFound)
		}, diag.NotFound},
		{"models:/churn/3", "refused", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "bad token "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		}, diag.Registry},
		{"models:/churn/3", "refused with the token in its words", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, `{"message": "unknown: `+r.Header.Get("Authorization")+`"}`, http.StatusForbidden)
		}, diag.Registry},
		{"models:/churn/3", "sent elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/"+token, http.StatusFound)
		}, diag.Registry},
		{"models:/churn/3", "not ready", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"model_version": {"name": "churn", "version": "3", "status": "PENDING_REGISTRATION"}}`)
		}, diag.Denied},
		{"models:/churn/3", "another model", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"model_version": {"name": "other", "version": "3", "status": "READY"}}`)
		}, diag.Registry},
		{"models:/churn@live", "no JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) }, diag.Registry},
		{"models:/churn/3", "endless", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(zeros{}, lineage.MaxDocument+2)) // the client hangs up
		}, diag.Registry},
		{"models:/churn", "no version", nil, diag.Usage},
		{"models:/a/b/3", "a name with a slash", nil, diag.Usage},
		{"runs:/abc", "no path", nil, diag.Usage},
		{"runs:/abc/../x", "a path that leaves", nil, diag.Usage},
		{"runs:/abc/model", "no such output", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/get-artifact" {
				http.Error(w, `{}`, http.StatusNotFound)
				return
			}
			fmt.Fprint(w, `{"run": {"info": {"run_id": "abc"}}}`)
		}, diag.NotFound},
	} {
		s := connect(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+token {
				t.Errorf("%s: asked without the token", c.why)
			}
			c.h(w, r)
		}, "MLFLOW_TRACKING_TOKEN", token)
		_, err := s.Model(t.Context(), c.uri)
		if diag.CodeOf(err) != c.code || err == nil {
			t.Errorf("%s: %v", c.why, err)
		}
		if strings.Contains(diag.Render(err), token) {
			t.Errorf("%s: the token is in %q", c.why, diag.Render(err))
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestConnect(t *testing.T) {
	const secret = "hunter2secret"
	for _, uri := range []string{"", "databricks", "http://user:" + secret + "@", "https://u:" + secret + "@[::1", "file:///x"} {
		_, err := Connect(func(k string) string { return map[string]string{"MLFLOW_TRACKING_URI": uri}[k] })
		if diag.CodeOf(err) != diag.Usage || strings.Contains(diag.Render(err), secret) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	got := ""
	h := func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		got = u + ":" + p
		http.Error(w, "", http.StatusForbidden)
	}
	s := connect(t, h, "MLFLOW_TRACKING_USERNAME", "u", "MLFLOW_TRACKING_PASSWORD", secret)
	if _, err := s.Model(t.Context(), "models:/a/1"); err == nil || strings.Contains(diag.Render(err), secret) {
		t.Error(err)
	}
	if got != "u:"+secret {
		t.Errorf("logged in as %s", got)
	}
}

// A server that is too busy once is asked again.
func TestBusy(t *testing.T) {
	n := 0
	s := connect(t, func(w http.ResponseWriter, _ *http.Request) {
		if n++; n == 1 {
			http.Error(w, "", http.StatusServiceUnavailable)
			return
		}
		http.Error(w, "{}", http.StatusNotFound)
	})
	if _, err := s.Model(t.Context(), "models:/a/1"); diag.CodeOf(err) != diag.NotFound || n != 2 {
		t.Errorf("after %d: %v", n, err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"run": {"info": {"run_id": "a", "end_time": 5}, "data": {"metrics": [{"key": "a", "value": "NaN"}, {"key": "b", "value": 1e300}], "params": [{"key": "c", "value": "1"}]}}}`))
	f.Add([]byte(`{"run": {"outputs": {"model_outputs": [{"model_id": "m-1"}]}}}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var r runJSON
		if parse(b, &r) == nil {
			m := &lineage.Model{}
			m.Add("x", r.Run.Info.ID)
			_ = m.Check() // must only not panic
		}
	})
}
