package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/deploy/targettest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func newServing() *serving {
	k := &serving{revs: map[string]object{}, age: map[string]int{}, sick: map[artifact.Digest]error{}, images: map[string]artifact.Digest{}}
	for n := range 6 {
		k.images[release(n).Image] = release(n).Digest
	}
	return k
}

func knTarget(tb testing.TB, url string, client *http.Client, log *slog.Logger) *Knative {
	tb.Helper()
	t, err := NewKnative(Config{
		URL: url, Client: client, Token: func(context.Context) (string, error) { return clusterToken, nil }, Namespace: "ml", Name: "churn", Memory: "1024Mi",
		Poll: time.Millisecond, Retry: retry.Policy{Attempts: 4, Base: time.Microsecond, Max: time.Millisecond}, Log: log,
	}, 1, 5)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestKnativeSuite(t *testing.T) {
	targettest.Run(t, targettest.Harness{
		Without: map[string]string{"refusals/size": "Knative has no limit on the size of an image"},
		New: func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
			k := newServing()
			srv := httptest.NewServer(w.Handler(k))
			tb.Cleanup(func() {
				srv.Close()
				for _, x := range k.refused {
					tb.Errorf("the webhook refuses: %s", x)
				}
			})
			locked := func(f func()) {
				k.mu.Lock()
				defer k.mu.Unlock()
				f()
			}
			return &targettest.Fixture{
				Target:  func(log *slog.Logger) deploy.Target { return knTarget(tb, srv.URL, srv.Client(), log) },
				Release: release,
				Serving: k.serves,
				Rest: func() {
					locked(func() {
						for range 4 {
							k.step()
						}
					})
				},
				Dump: func() (out string) {
					locked(func() { raw, _ := json.MarshalIndent([]any{k.svc, k.revs}, "", " "); out = string(raw) })
					return out
				},
				Sick: func(d artifact.Digest, cause error) { locked(func() { k.sick[d] = cause }) },
				Forget: func(d artifact.Digest) {
					locked(func() {
						for _, n := range k.names() {
							used := false
							for _, x := range k.svc.list("spec", "traffic") {
								used = used || object(x).text("revisionName") == n
							}
							if k.runs(k.revs[n]) == d && !used && k.svc.text("spec", "template", "metadata", "name") != n {
								delete(k.revs, n)
							}
						}
					})
				},
				Meddle: func() {
					locked(func() {
						o := clone(k.svc)
						o.list("spec", "template", "spec", "containers")[0]["resources"] = map[string]any{"limits": map[string]any{"memory": "64Mi"}}
						delete(o.object("spec", "template", "metadata"), "name") // as kubectl edit has to
						k.set(o)
					})
				},
				Fail: func(w http.ResponseWriter, _ *http.Request, cause error, message string) {
					switch {
					case errors.Is(cause, deploy.ErrThrottled):
						answer(w, 429, "TooManyRequests", message)
					case errors.Is(cause, deploy.ErrForbidden):
						answer(w, 403, "Forbidden", message)
					case errors.Is(cause, deploy.ErrUnauthorized):
						answer(w, 401, "Unauthorized", message)
					default:
						w.WriteHeader(503) // a load balancer in front
						fmt.Fprintf(w, "<html>%s</html>", message)
					}
				},
				Secrets: []string{clusterToken},
			}
		},
	})
}

// What is written in a life of canary, promotion, rollback and failure is kept in testdata/knative: Knative's own validation reads it
// there, in a Go module of its own.
func TestKnativeBodies(t *testing.T) {
	k := newServing()
	n := 0
	record := func(r *http.Request, raw []byte) {
		n++
		var o object
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		merge(o, object{"metadata": map[string]any{"annotations": map[string]any{annAttempt: "attempt"}}})
		delete(o.object("metadata"), "resourceVersion")
		text, err := json.MarshalIndent(o, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join("testdata", "knative", fmt.Sprintf("%02d-%s.json", n, strings.ToLower(r.Method)))
		if os.Getenv("WAYBILL_WRITE_BODIES") != "" {
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, append(text, '\n'), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(name); err != nil || string(want) != string(text)+"\n" {
			t.Errorf("%s is not what is written now (%v): WAYBILL_WRITE_BODIES=1 go test ./deploy/kubernetes -run Bodies", name, err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			raw, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(strings.NewReader(string(raw)))
			record(r, raw)
		}
		k.ServeHTTP(w, r)
	}))
	defer srv.Close()
	x := knTarget(t, srv.URL, srv.Client(), nil)
	apply := func(n, weight int) error {
		t.Helper()
		r := release(n)
		r.Weight = weight
		p, err := x.Plan(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.Apply(t.Context(), p)
		return err
	}
	if err := errors.Join(apply(1, 0), apply(2, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Promote(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Rollback(t.Context(), "", time.Minute); err != nil {
		t.Fatal(err)
	}
	k.sick[release(3).Digest] = deploy.ErrUnhealthy
	if err := apply(3, 0); !errors.Is(err, deploy.ErrUnhealthy) {
		t.Fatal(err)
	}
	if n < 7 {
		t.Errorf("%d writes", n)
	}
}

// A Service made by hand follows its latest revision: it goes on serving that until the first release is ready.
func TestKnativeTakesOver(t *testing.T) {
	k := newServing()
	srv := httptest.NewServer(k)
	defer srv.Close()
	x := knTarget(t, srv.URL, srv.Client(), nil)
	k.set(object{"metadata": map[string]any{"name": "churn"}, "spec": map[string]any{
		"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"image": "reg.example/other:1", "ports": []any{map[string]any{"containerPort": 8080.0}}}}}},
		"traffic":  []any{map[string]any{"latestRevision": true, "percent": 100.0}},
	}})
	for range 4 {
		k.step()
	}
	k.sick[release(1).Digest] = deploy.ErrUnhealthy
	p, err := x.Plan(t.Context(), release(1))
	if err != nil || p.From != "" || len(p.Changes) == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := x.Apply(t.Context(), p); !errors.Is(err, deploy.ErrUnhealthy) {
		t.Fatal(err)
	}
	for range 4 {
		k.step()
	}
	st, err := x.Status(t.Context())
	if err != nil || len(st.Shares) != 1 || st.Shares[0].Weight != 100 || st.Shares[0].Image != "reg.example/other:1" || !st.Healthy {
		t.Fatalf("%+v, %v", st, err)
	}
	clear(k.sick)
	if p, err = x.Plan(t.Context(), release(1)); err != nil {
		t.Fatal(err)
	}
	o, err := x.Apply(t.Context(), p)
	if err != nil || o.Previous != "" || o.Digest != release(1).Digest {
		t.Fatalf("%+v, %v", o, err)
	}
}

func TestKnativeRefuses(t *testing.T) {
	good := KnativeSettings{Service: "churn", Namespace: "ml", Arch: "amd64", Memory: "1Gi", CPU: "1", Min: 1, Max: 2}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for key, edit := range map[string]func(*KnativeSettings){
		"service": func(s *KnativeSettings) { s.Service = strings.Repeat("a", 42) }, "namespace": func(s *KnativeSettings) { s.Namespace = "../x" }, "arch": func(s *KnativeSettings) { s.Arch = "riscv64" },
		"memory": func(s *KnativeSettings) { s.Memory = "1.5Gi" }, "cpu": func(s *KnativeSettings) { s.CPU = "-1" }, "min_instances": func(s *KnativeSettings) { s.Min = 3 }, "max_instances": func(s *KnativeSettings) { s.Max = -1 },
	} {
		s := good
		edit(&s)
		var e *targets.Error
		if err := s.Check(); !errors.As(err, &e) || e.Path != key {
			t.Errorf("%s: %v", key, err)
		}
	}
	for name, edit := range map[string]func(*Config, *int){"name": func(c *Config, _ *int) { c.Name = strings.Repeat("a", 42) }, "bounds": func(_ *Config, least *int) { *least = 3 }, "url": func(c *Config, _ *int) { c.URL = "" }} {
		c, least := Config{URL: "http://x", Client: http.DefaultClient, Name: "churn", Namespace: "ml"}, 1
		edit(&c, &least)
		if _, err := NewKnative(c, least, 2); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// What --emit writes is what Apply ends in.
func TestKnativeManifest(t *testing.T) {
	s := &KnativeSettings{Service: "churn", Namespace: "ml", Arch: "amd64", Memory: "1024Mi", CPU: "500m", Min: 1, Max: 5}
	ms, err := s.Manifests(release(1))
	if err != nil || len(ms) != 1 || len(ms[0].Docs) != 1 {
		t.Fatal(ms, err)
	}
	k := newServing()
	srv := httptest.NewServer(k)
	defer srv.Close()
	x := knTarget(t, srv.URL, srv.Client(), nil)
	k.set(clone(ms[0].Docs[0]))
	for range 4 {
		k.step()
	}
	p, err := x.Plan(t.Context(), release(1))
	if err != nil || len(p.Changes) != 0 || p.From != release(1).Digest {
		t.Errorf("%+v, %v", p, err)
	}
	r := release(1)
	r.Weight = 10
	if _, err := s.Manifests(r); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("a weight: %v", err)
	}
	r = release(1)
	r.Arches = []string{"arm64"}
	if _, err := s.Manifests(r); !errors.Is(err, deploy.ErrPlatform) {
		t.Errorf("an architecture: %v", err)
	}
}
