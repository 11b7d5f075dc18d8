package vertex_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	api "google.golang.org/api/aiplatform/v1"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/deploy/vertex"
)

// platform is a server with a target in front of it, whose settings edit changes.
func platform(t *testing.T, edit func(*vertex.Settings)) (*server, *vertex.Target) {
	t.Helper()
	s := newServer(t, token)
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.Close()
		for _, b := range s.bad {
			t.Error(b)
		}
	})
	x := settings(srv.URL)
	if edit != nil {
		edit(&x)
	}
	return s, open(t, x, slog.New(slog.DiscardHandler))
}

func apply(t *testing.T, target *vertex.Target, r deploy.Release) error {
	t.Helper()
	r.Wait = time.Minute
	p, err := target.Plan(t.Context(), r)
	if err != nil {
		return err
	}
	_, err = target.Apply(t.Context(), p)
	return err
}

func (s *server) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if c == id {
			n++
		}
	}
	return n
}

// What is uploaded and deployed is what waybill-serve needs; the platform keeps the digest.
func TestDeploys(t *testing.T) {
	s, target := platform(t, func(x *vertex.Settings) {
		x.Dedicated, x.Machine, x.ServiceAccount = true, "n2-standard-4", "run@acme-ml.iam.gserviceaccount.com"
	})
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	c := s.specs["1"]
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	if want := map[string]string{"WAYBILL_DIGEST": string(release(1).Digest), "WAYBILL_VARIANT": "vertex", "WAYBILL_LOG": "json"}; !reflect.DeepEqual(env, want) {
		t.Errorf("env %q", env)
	}
	if c.ImageUri != release(1).Image || c.PredictRoute != "/predict" || c.HealthRoute != "/health" || len(c.Ports) != 1 || c.Ports[0].ContainerPort != 8080 {
		t.Errorf("container %+v", c)
	}
	if google.Labelled(s.vers[0].Labels, "waybill-digest") != release(1).Digest {
		t.Errorf("labels %q", s.vers[0].Labels)
	}
	d := s.ep.DeployedModels[0]
	if d.DedicatedResources.MachineSpec.MachineType != "n2-standard-4" || d.DedicatedResources.MaxReplicaCount != 3 || d.ServiceAccount != "run@acme-ml.iam.gserviceaccount.com" {
		t.Errorf("deployed model %+v", d)
	}
	st, err := target.Status(t.Context())
	if err != nil || st.Shares[0].Image != release(1).Image || st.URL != "https://churn.europe-west4-4711.prediction.vertexai.goog/v1/"+asked+"/endpoints/churn:predict" {
		t.Errorf("%+v %v", st, err)
	}
}

// What is no longer wanted is undeployed; its model version stays, and a rollback deploys it again.
func TestKeepsThePrevious(t *testing.T) {
	s, target := platform(t, nil)
	for n := 1; n <= 4; n++ {
		if err := apply(t, target, release(n)); err != nil {
			t.Fatal(err)
		}
		if got := len(s.ep.DeployedModels); got != min(n, 2) {
			t.Errorf("after release %d there are %d deployed models", n, got)
		}
	}
	o, err := target.Rollback(t.Context(), release(1).Digest, time.Minute)
	if err != nil || o.Previous != release(4).Digest || len(s.vers) != 4 || len(s.ep.DeployedModels) != 2 || s.count("models.upload") != 4 {
		t.Errorf("%+v %v; %d versions, %d deployed", o, err, len(s.vers), len(s.ep.DeployedModels))
	}
	// Somebody undeployed the previous one: its version is enough.
	s.mu.Lock()
	s.ep.DeployedModels = slices.DeleteFunc(slices.Clone(s.ep.DeployedModels), func(d *api.GoogleCloudAiplatformV1DeployedModel) bool { return s.ep.TrafficSplit[d.Id] == 0 })
	s.touch()
	s.mu.Unlock()
	if o, err = target.Rollback(t.Context(), "", time.Minute); err != nil || o.Digest != release(4).Digest {
		t.Errorf("%+v %v", o, err)
	}
}

// A rollback that must deploy again what does not get healthy any more leaves the traffic where it is.
func TestRollbackFails(t *testing.T) {
	s, target := platform(t, nil)
	for n := 1; n <= 3; n++ {
		if err := apply(t, target, release(n)); err != nil {
			t.Fatal(err)
		}
	}
	for cause, want := range map[error]error{deploy.ErrUnhealthy: deploy.ErrUnhealthy, deploy.ErrQuota: deploy.ErrQuota, deploy.ErrPlatform: deploy.ErrPlatform} {
		s.mu.Lock()
		s.sick[release(1).Image] = cause
		s.mu.Unlock()
		before := s.dump()
		if _, err := target.Rollback(t.Context(), release(1).Digest, time.Minute); !errors.Is(err, want) {
			t.Errorf("Rollback: %v, want %v", err, want)
		}
		if s.rest(); s.dump() != before {
			t.Errorf("%v: the platform is changed", cause)
		}
	}
}

// Other replicas are set where the model is deployed, and are no drift; another machine needs another deployment of the same version.
func TestSettingsChange(t *testing.T) {
	s, target := platform(t, nil)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	defer srv.Close()
	first := s.ep.DeployedModels[0].Id
	for _, x := range []struct {
		edit  func(*vertex.Settings)
		field string
		same  bool
	}{
		{func(s *vertex.Settings) { s.MinReplicas, s.MaxReplicas = 2, 4 }, "replicas", true},
		{func(s *vertex.Settings) { s.MinReplicas, s.MaxReplicas = 1, 4 }, "replicas", true},
		{func(s *vertex.Settings) { s.MaxReplicas, s.Machine = 4, "n1-standard-8" }, "machine", false},
	} {
		set := settings(srv.URL)
		x.edit(&set)
		target := open(t, set, slog.New(slog.DiscardHandler))
		p, err := target.Plan(t.Context(), release(1))
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Drift) != 0 || !slices.ContainsFunc(p.Changes, func(c deploy.Change) bool { return c.Field == x.field }) {
			t.Errorf("%s: drift %+v changes %+v", x.field, p.Drift, p.Changes)
		}
		if err := apply(t, target, release(1)); err != nil {
			t.Fatal(err)
		}
		if p, err = target.Plan(t.Context(), release(1)); err != nil || len(p.Changes)+len(p.Drift) != 0 {
			t.Errorf("%s: work is left: %+v %+v %v", x.field, p.Changes, p.Drift, err)
		}
		if got := s.ep.DeployedModels; len(got) != 1 || (got[0].Id == first) != x.same || len(s.vers) != 1 {
			t.Errorf("%s: %d deployed models, %d versions", x.field, len(got), len(s.vers))
		}
	}
}

// A model that somebody deployed by hand serves until the new one does, stays deployed, and can be rolled back to. A version whose labels say
// something other than its container is not Waybill's.
func TestTakesOver(t *testing.T) {
	s, target := platform(t, nil)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.specs["1"].ImageUri = "by/hand"
	s.ep.Labels = nil
	s.touch()
	hand := s.ep.DeployedModels[0].Id
	s.mu.Unlock()
	st, err := target.Status(t.Context())
	if err != nil || st.Running() != "" || len(st.Kept) != 0 {
		t.Errorf("%+v %v", st, err)
	}
	if err := apply(t, target, release(2)); err != nil {
		t.Fatal(err)
	}
	if err := apply(t, target, release(3)); err != nil {
		t.Fatal(err)
	}
	if s.dm(hand) == nil {
		t.Error("what somebody deployed was undeployed")
	}
	if s.sick[release(4).Image] = deploy.ErrUnhealthy; !errors.Is(apply(t, target, release(4)), deploy.ErrUnhealthy) {
		t.Error("a sick release is deployed")
	}
	if o, err := target.Rollback(t.Context(), "", time.Minute); err != nil || o.Digest != release(2).Digest {
		t.Errorf("%+v %v", o, err)
	}
}

func TestImageMissing(t *testing.T) {
	s, target := platform(t, nil)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.sick[release(2).Image] = errMissing
	err := apply(t, target, release(2))
	if !errors.Is(err, google.ErrImage) || !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("Apply: %v", err)
	}
	if st, err := target.Status(t.Context()); err != nil || st.Running() != release(1).Digest {
		t.Errorf("%+v %v", st, err)
	}
}

// When the time is over the operation is cancelled, so that nothing comes up later.
func TestCancels(t *testing.T) {
	s, target := platform(t, nil)
	if err := apply(t, target, release(1)); err != nil {
		t.Fatal(err)
	}
	s.sick[release(2).Image] = deploy.ErrUnavailable
	p, err := target.Plan(t.Context(), release(2))
	if err != nil {
		t.Fatal(err)
	}
	p.Release.Wait = 300 * time.Millisecond
	if _, err := target.Apply(t.Context(), p); !errors.Is(err, deploy.ErrUnhealthy) {
		t.Errorf("Apply: %v", err)
	}
	s.mu.Lock()
	s.sick = map[string]error{}
	s.mu.Unlock()
	s.rest()
	if len(s.ep.DeployedModels) != 1 {
		t.Error("it came up later")
	}
}

// A canary gets more traffic, by somebody else, just before it is promoted: the etag tells. A platform that does not look at it lets the
// promotion overwrite what the other did.
func TestEtag(t *testing.T) {
	for _, blind := range []bool{false, true} {
		s, other := platform(t, nil)
		s.blind = blind
		canary := release(2)
		canary.Weight = 10
		for _, r := range []deploy.Release{release(1), canary} {
			if err := apply(t, other, r); err != nil {
				t.Fatal(err)
			}
		}
		met := false
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPatch && !met {
				met = true
				canary.Weight = 30
				if err := apply(t, other, canary); err != nil {
					t.Error(err)
				}
			}
			s.ServeHTTP(w, r)
		}))
		_, err := open(t, settings(srv.URL), slog.New(slog.DiscardHandler)).Promote(t.Context(), time.Minute)
		srv.Close()
		st, serr := other.Status(t.Context())
		if serr != nil || !met {
			t.Fatal(serr, met)
		}
		if kept := len(st.Shares) == 2 && st.Shares[1].Weight == 30; kept == blind || errors.Is(err, deploy.ErrConflict) == blind {
			t.Errorf("blind %t: %v, %+v", blind, err, st.Shares)
		}
	}
}

// An endpoint that is busy with something else of ours is asked again.
func TestBusy(t *testing.T) {
	s, target := platform(t, nil)
	for n := 1; n <= 2; n++ {
		if err := apply(t, target, release(n)); err != nil {
			t.Fatal(err)
		}
	}
	old := s.ep.Labels["waybill-previous"]
	s.mu.Lock()
	s.begin("endpoints/churn", old, map[string]any{}, func() (bool, *api.GoogleRpcStatus) {
		return slices.Contains(s.calls, "endpoints.undeployModel"), nil // ends only when it was in the way
	})
	s.mu.Unlock()
	if err := apply(t, target, release(3)); err != nil {
		t.Fatal(err)
	}
	if s.dm(old) != nil || len(s.ep.DeployedModels) != 2 || s.count("endpoints.undeployModel") < 2 {
		t.Error("the one that was busy is still there")
	}
}

// Where the platform does not give the container's specification back, the labels are enough.
func TestInputOnly(t *testing.T) {
	s, target := platform(t, nil)
	s.hide = true
	for n := 1; n <= 3; n++ {
		if err := apply(t, target, release(n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := target.Rollback(t.Context(), release(1).Digest, time.Minute); err != nil {
		t.Fatal(err)
	}
	p, err := target.Plan(t.Context(), release(1))
	if err != nil || len(p.Changes)+len(p.Drift) != 0 || p.From != release(1).Digest {
		t.Errorf("%+v %v", p, err)
	}
}

func TestOpenWithoutCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, []byte(`{"type":"service_account","private_key":"secret-words"}x`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	s := settings("http://127.0.0.1:1")
	_, err := s.Open(t.Context(), nil)
	if !errors.Is(err, deploy.ErrUnauthorized) || strings.Contains(err.Error(), "secret-words") {
		t.Errorf("Open: %v", err)
	}
}

// An environment's file gives every setting, and a mistake names its key.
func TestKind(t *testing.T) {
	entry := func(edit map[string]any) map[string]any {
		m := map[string]any{"name": "eu", "kind": "vertex", "image": "europe-west4-docker.pkg.dev/acme-ml/models/churn", "project": "acme-ml", "region": "europe-west4", "endpoint": "churn",
			"model": "churn_model", "machine": "n1-standard-4", "min-replicas": 2, "max-replicas": 3, "port": 9000, "service-account": "run@acme-ml.iam.gserviceaccount.com",
			"env": map[string]any{"A": "1"}, "dedicated": true, "api": "https://aiplatform.example"}
		for k, v := range edit {
			m[k] = v
		}
		return m
	}
	got, err := targets.Parse([]map[string]any{entry(nil)}, []targets.Kind{vertex.Kind()})
	if err != nil {
		t.Fatal(err)
	}
	want := &vertex.Settings{Project: "acme-ml", Region: "europe-west4", Endpoint: "churn", Model: "churn_model", Machine: "n1-standard-4", MinReplicas: 2, MaxReplicas: 3, Port: 9000,
		ServiceAccount: "run@acme-ml.iam.gserviceaccount.com", Env: map[string]string{"A": "1"}, Dedicated: true, API: "https://aiplatform.example"}
	if got[0].Runs != targets.Image || !reflect.DeepEqual(got[0].Settings, want) {
		t.Errorf("%+v", got[0].Settings)
	}
	for key, vs := range map[string][]any{
		"project": {"a/b"}, "region": {"europe"}, "endpoint": {"-a", "a-", "0", strings.Repeat("a", 64)}, "model": {"1a", "a/b"}, "machine": {"big"}, "min-replicas": {4, -1}, "port": {70000},
		"service-account": {"me"}, "env": {map[string]any{"AIP_MODE": "x"}, map[string]any{"WAYBILL_DIGEST": "x"}, map[string]any{"WAYBILL_VARIANT": "x"}, map[string]any{"A B": "x"}}, "api": {"http://x.example", "https://u:p@x.example"},
	} {
		for _, v := range vs {
			_, err := targets.Parse([]map[string]any{entry(map[string]any{key: v})}, []targets.Kind{vertex.Kind()})
			var e *targets.Error
			if !errors.As(err, &e) || e.Path != "[0]."+key {
				t.Errorf("%s %v: %v", key, v, err)
			}
		}
	}
}

// The local server refuses what the discovery document does not have.
func TestDiscoveryRefuses(t *testing.T) {
	d := load(t)
	for body, ok := range map[string]bool{
		`{"trafficSplit":{"1":100},"labels":{"a":"b"},"etag":"x"}`: true,
		`{"trafficSplit":{"1":"100"}}`:                             false,
		`{"trafficSplit":[]}`:                                      false,
		`{"deployedModels":[]}`:                                    false,
		`{"createTime":"2026-01-01T00:00:00Z"}`:                    false,
		`{"traffic":{}}`:                                           false,
	} {
		if err := d.Check("GoogleCloudAiplatformV1Endpoint", []byte(body), false); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
	r := httptest.NewRequest(http.MethodPatch, "/v1/"+asked+"/endpoints/churn?updateMask=traffic", nil)
	if _, _, err := d.Request(r, []byte(`{}`)); err == nil {
		t.Error("an update mask of another API is taken")
	}
}
