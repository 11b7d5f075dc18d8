package cloudrun_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	run "google.golang.org/api/run/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/cloudrun"
	"github.com/waybill-ml/waybill/deploy/google"
)

// platform is a server with a target in front of it; seen gets every request.
func platform(t *testing.T, seen func(r *http.Request)) (*server, *cloudrun.Target) {
	t.Helper()
	s := newServer(t, token)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			seen(r)
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.Close()
		for _, b := range s.bad {
			t.Error(b)
		}
	})
	return s, open(t, srv.URL, slog.New(slog.DiscardHandler))
}

func apply(t *testing.T, target *cloudrun.Target, r deploy.Release) error {
	t.Helper()
	r.Wait = time.Minute
	p, err := target.Plan(t.Context(), r)
	if err != nil {
		return err
	}
	_, err = target.Apply(t.Context(), p)
	return err
}

// A plan asks with validateOnly, so that what the platform refuses is known before anything is changed.
func TestPlanValidates(t *testing.T) {
	dry := 0
	s, target := platform(t, func(r *http.Request) {
		if r.Method == "GET" {
			return
		}
		if r.URL.Query().Get("validateOnly") == "true" {
			dry++
		}
	})
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.sick[release(2).Image] = deploy.ErrQuota
	s.mu.Unlock()
	before, dries := s.dump(), dry
	if _, err := target.Plan(t.Context(), release(2)); !errors.Is(err, deploy.ErrQuota) {
		t.Errorf("Plan: %v", err)
	}
	if dry != dries+1 || s.dump() != before {
		t.Error("Plan did not ask, or changed something")
	}
}

// A service that somebody made, with traffic to the latest revision: the new revision gets none before it is ready.
func TestTakesOver(t *testing.T) {
	s, target := platform(t, nil)
	s.svc = &run.GoogleCloudRunV2Service{Name: service, Uid: "u", Traffic: []*run.GoogleCloudRunV2TrafficTarget{{Type: latest, Percent: 100, Tag: "mine"}}}
	if no := s.change(&run.GoogleCloudRunV2Service{Template: &run.GoogleCloudRunV2RevisionTemplate{Containers: []*run.GoogleCloudRunV2Container{{Image: "by/hand"}}}}, []string{"template"}, false); no != nil {
		t.Fatal(no)
	}
	s.rest()
	s.sick[release(1).Image] = deploy.ErrUnhealthy
	if err := apply(t, target, release(1)); !errors.Is(err, deploy.ErrUnhealthy) {
		t.Errorf("Apply: %v", err)
	}
	if got := s.routed; len(got) != 1 || got[0].Type != pin || got[0].Revision != "churn-00001-xyz" || got[0].Percent != 100 {
		t.Errorf("routes %+v", got)
	}
	if err := apply(t, target, release(2)); err != nil {
		t.Fatal(err)
	}
	st, err := target.Status(t.Context())
	if err != nil || st.Running() != release(2).Digest {
		t.Errorf("%+v %v", st, err)
	}
	if _, err := target.Rollback(t.Context(), "", time.Minute); err != nil {
		t.Fatal(err)
	}
	if st, err = target.Status(t.Context()); err != nil || st.Running() != "" || st.Shares[0].ID != "churn-00001-xyz" {
		t.Errorf("after the rollback %+v %v", st, err)
	}
}

func TestImageMissing(t *testing.T) {
	s, target := platform(t, nil)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.sick[release(2).Image] = errMissing
	err := apply(t, target, release(2))
	if !errors.Is(err, google.ErrImage) || !errors.Is(err, deploy.ErrRelease) || !strings.Contains(err.Error(), "not found") {
		t.Errorf("Apply: %v", err)
	}
	if st, err := target.Status(t.Context()); err != nil || st.Running() != release(1).Digest {
		t.Errorf("%+v %v", st, err)
	}
}

type noTokens struct{ err error }

func (n noTokens) Token() (*oauth2.Token, error) { return nil, n.err }

// Who gives no token is asked once, and what was sent to it is not quoted.
func TestNoToken(t *testing.T) {
	for want, err := range map[error]error{
		deploy.ErrUnauthorized: &oauth2.RetrieveError{ErrorCode: "invalid_grant", ErrorDescription: "Token has been expired or revoked.", Body: []byte("1//refresh-secret"), Response: &http.Response{StatusCode: 400}},
		deploy.ErrUnavailable:  &oauth2.RetrieveError{Response: &http.Response{StatusCode: 503}, Body: []byte("1//refresh-secret")},
	} {
		target, nerr := cloudrun.New(t.Context(), noTokens{err}, settings("http://127.0.0.1:1"))
		if nerr != nil {
			t.Fatal(nerr)
		}
		_, got := target.Status(t.Context())
		if !errors.Is(got, want) || strings.Contains(got.Error(), "refresh-secret") {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestOpenWithoutCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, []byte(`{"type":"service_account","private_key":"secret-words"}x`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	s := settings("http://127.0.0.1:1")
	_, err := s.Open(context.Background(), nil)
	if !errors.Is(err, deploy.ErrUnauthorized) || strings.Contains(err.Error(), "secret-words") {
		t.Errorf("Open: %v", err)
	}
}

func TestSettings(t *testing.T) {
	good := settings("https://europe-west4-run.googleapis.com")
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for says, edit := range map[string]func(*cloudrun.Settings){
		"project":         func(s *cloudrun.Settings) { s.Project = "a/b" },
		"region":          func(s *cloudrun.Settings) { s.Region = "europe" },
		"service":         func(s *cloudrun.Settings) { s.Service = strings.Repeat("a", 50) },
		"cpu":             func(s *cloudrun.Settings) { s.CPU = "3" },
		"memory":          func(s *cloudrun.Settings) { s.Memory = "512MB" },
		"concurrency":     func(s *cloudrun.Settings) { s.Concurrency = 1001 },
		"timeout":         func(s *cloudrun.Settings) { s.Timeout = "1500ms" },
		"min-instances":   func(s *cloudrun.Settings) { s.MinInstances = 11 },
		"port":            func(s *cloudrun.Settings) { s.Port = 70000 },
		"service-account": func(s *cloudrun.Settings) { s.ServiceAccount = "me" },
		"ingress":         func(s *cloudrun.Settings) { s.Ingress = "none" },
		"target's own":    func(s *cloudrun.Settings) { s.Env = map[string]string{cloudrun.DigestVariable: "x"} },
		"set by Cloud":    func(s *cloudrun.Settings) { s.Env = map[string]string{"PORT": "1"} },
		"no name":         func(s *cloudrun.Settings) { s.Env = map[string]string{"A B": "1"} },
		"endpoint":        func(s *cloudrun.Settings) { s.Endpoint = "http://run.example" },
	} {
		s := good
		edit(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
