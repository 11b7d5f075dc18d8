package azureml_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/azureml"
)

func plainServer(t *testing.T) (*server, *azureml.Target) {
	t.Helper()
	s := serve(t, func(h http.Handler) http.Handler { return h })
	return s, open(t, cred{}, settings(s.url))
}

func apply(t *testing.T, target *azureml.Target, r deploy.Release) error {
	t.Helper()
	r.Wait = time.Minute
	p, err := target.Plan(t.Context(), r)
	if err != nil {
		return err
	}
	_, err = target.Apply(t.Context(), p)
	return err
}

// A token for another audience is refused by the server: the one that the target asks for is Resource Manager's.
func TestAudience(t *testing.T) {
	s, target := plainServer(t)
	if _, err := target.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := settings(s.url)
	x.Audience = "https://ml.azure.com"
	if _, err := open(t, cred{}, x).Status(t.Context()); !errors.Is(err, deploy.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
}

// Who gives no token is not quoted.
func TestNoToken(t *testing.T) {
	_, err := open(t, cred{errors.New("client_secret=very-secret refused")}, settings("http://127.0.0.1:1")).Status(t.Context())
	if !errors.Is(err, deploy.ErrUnauthorized) || strings.Contains(err.Error(), "very-secret") {
		t.Errorf("%v", err)
	}
}

// An operation that an answer puts on another host is not asked for there: the token would go with it.
func TestOperationElsewhere(t *testing.T) {
	var asked atomic.Int64
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"status":"Succeeded"}`))
	}))
	defer thief.Close()
	s, target := plainServer(t)
	s.away = thief.URL
	if err := apply(t, target, release(1)); err == nil || !strings.Contains(err.Error(), "another host") {
		t.Errorf("Apply: %v", err)
	}
	if asked.Load() != 0 {
		t.Error("the token went to another host")
	}
}

func TestImageMissing(t *testing.T) {
	s, target := plainServer(t)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.sick[release(2).Image] = errMissing
	if err := apply(t, target, release(2)); !errors.Is(err, azureml.ErrImage) || !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("Apply: %v", err)
	}
	if st, err := target.Status(t.Context()); err != nil || st.Running() != release(1).Digest || st.Shares[0].Image != release(1).Image {
		t.Errorf("%+v %v", st, err)
	}
}

// Deployments that are not wanted any more go, those that served last and those of others stay.
func TestSweep(t *testing.T) {
	s, target := plainServer(t)
	for n := 1; n <= 4; n++ {
		if err := apply(t, target, release(n)); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			s.mu.Lock()
			s.deps["theirs"] = &resource{doc: object{"name": "theirs", "location": "westeurope", "tags": object{}, "sku": object{"name": "Default", "capacity": 1}, "systemData": s.made(),
				"properties": object{"provisioningState": "Succeeded", "environmentId": "x"}}}
			s.mu.Unlock()
		}
	}
	s.rest()
	if len(s.deps) != 4 || s.deps["theirs"] == nil {
		t.Errorf("%d deployments, want theirs, the one that serves and two before it", len(s.deps))
	}
	if _, err := target.Rollback(t.Context(), release(1).Digest, time.Minute); !errors.Is(err, deploy.ErrNotFound) {
		t.Errorf("Rollback to what was deleted: %v", err)
	}
	if _, err := target.Rollback(t.Context(), release(2).Digest, time.Minute); err != nil {
		t.Errorf("Rollback to what is kept: %v", err)
	}
}

// What others set on the endpoint stays when the traffic moves.
func TestCarriesOver(t *testing.T) {
	s, target := plainServer(t)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.ep.doc["tags"].(object)["team"] = "churn"
	s.ep.doc["identity"] = object{"type": "SystemAssigned", "principalId": "p", "tenantId": "t"}
	s.ep.props()["publicNetworkAccess"] = "Disabled"
	s.mu.Unlock()
	if err := apply(t, target, release(2)); err != nil {
		t.Fatal(err)
	}
	if s.ep.doc["tags"].(object)["team"] != "churn" || s.ep.props()["publicNetworkAccess"] != "Disabled" {
		t.Errorf("%v", s.ep.doc)
	}
}

// The server's shapes refuse what the platform would, and the published examples' members are ours.
func TestShapes(t *testing.T) {
	s := newServer(t)
	if s.check == nil {
		t.Log("WAYBILL_SCHEMAS is not set: only required and read-only members are checked")
	}
	for raw, ok := range map[string]bool{
		`{"location":"westeurope","properties":{"authMode":"Key","traffic":{"a":100}}}`:      true,
		`{"location":"westeurope","properties":{"traffic":{"a":100}}}`:                       false,
		`{"location":"westeurope","properties":{"authMode":"Key","scoringUri":"https://x"}}`: false,
		`{"location":"westeurope","properties":{"authMode":"Password"}}`:                     s.check == nil,
		`{"location":"westeurope","properties":{"authMode":"Key","traffic":{"a":"100"}}}`:    s.check == nil,
	} {
		var body object
		if err := json.Unmarshal([]byte(raw), &body); err != nil {
			t.Fatal(err)
		}
		if err := s.shape("onlineEndpoints", body); (err == nil) != ok {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// Each member that the target sends stands in the published example of the same call.
func TestExamples(t *testing.T) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published examples are not here")
	}
	s, target := plainServer(t)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.rest()
	for file, got := range map[string]object{"OnlineEndpoints_CreateOrUpdate": s.ep.doc, "ManagedOnlineDeployment_CreateOrUpdate": first(s.deps)} {
		raw, err := os.ReadFile(filepath.Join(dir, "azure-rest-examples", "machinelearning", file+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var ex struct {
			Responses map[string]struct{ Body object }
		}
		if err := json.Unmarshal(raw, &ex); err != nil {
			t.Fatal(err)
		}
		within(t, file, got, ex.Responses["201"].Body)
	}
}

func first(m map[string]*resource) object {
	for _, r := range m {
		return r.doc
	}
	return nil
}

func within(t *testing.T, at string, got, want object) {
	t.Helper()
	for k, v := range got {
		w, ok := want[k]
		if !ok {
			t.Errorf("%s.%s is not in the published example", at, k)
			continue
		}
		if sub, is := v.(object); is && k != "tags" && k != "traffic" && k != "environmentVariables" && k != "systemData" {
			in, _ := w.(object)
			within(t, at+"."+k, sub, in)
		}
	}
}

func TestSettings(t *testing.T) {
	good := settings("https://management.azure.com")
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for says, edit := range map[string]func(*azureml.Settings){
		"subscription":   func(s *azureml.Settings) { s.Subscription = "x" },
		"resource-group": func(s *azureml.Settings) { s.ResourceGroup = "a/b" },
		"workspace":      func(s *azureml.Settings) { s.Workspace = "a b" },
		"location":       func(s *azureml.Settings) { s.Location = "West Europe" },
		"endpoint":       func(s *azureml.Settings) { s.Endpoint = strings.Repeat("a", 33) },
		"instance-type":  func(s *azureml.Settings) { s.InstanceType = "m5.large" },
		"instances":      func(s *azureml.Settings) { s.Instances = -1 },
		"concurrency":    func(s *azureml.Settings) { s.Concurrency = 1001 },
		"timeout":        func(s *azureml.Settings) { s.Timeout = "4m" },
		"auth":           func(s *azureml.Settings) { s.Auth = "none" },
		"identity":       func(s *azureml.Settings) { s.Identity = "me" },
		"port":           func(s *azureml.Settings) { s.Port = 70000 },
		"scoring-path":   func(s *azureml.Settings) { s.ScoringPath = "/" },
		"keep":           func(s *azureml.Settings) { s.Keep = 6 },
		"target's own":   func(s *azureml.Settings) { s.Env = map[string]string{azureml.DigestVariable: "x"} },
		"key port":       func(s *azureml.Settings) { s.Env = map[string]string{"PORT": "1"} },
		"url":            func(s *azureml.Settings) { s.URL = "http://management.example" },
		"audience":       func(s *azureml.Settings) { s.Audience = "http://127.0.0.1" },
	} {
		s := good
		edit(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
