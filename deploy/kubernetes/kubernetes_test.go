package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/deploy/targettest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func release(n int) deploy.Release {
	return deploy.Release{
		Digest: artifact.DigestOf(fmt.Appendf(nil, "model %d", n)), Model: "churn", Ver: fmt.Sprint(n), Arches: []string{"arm64", "amd64"},
		Image: "reg.example/ml/churn@" + string(artifact.DigestOf(fmt.Appendf(nil, "image %d", n))),
	}
}

func newCluster(tb testing.TB) *cluster {
	tb.Helper()
	s, err := schemas()
	if err != nil {
		tb.Fatal(err)
	}
	if s == nil && os.Getenv("WAYBILL_REQUIRE_TOOLS") == "1" {
		tb.Fatal("WAYBILL_SCHEMAS is not set")
	}
	c := &cluster{objects: map[string]object{}, sick: map[artifact.Digest]error{}, age: map[string]int{}, images: map[string]artifact.Digest{}, schemas: s}
	for n := range 6 {
		c.images[release(n).Image] = release(n).Digest
	}
	return c
}

func target(tb testing.TB, url string, client *http.Client, log *slog.Logger) *Target {
	tb.Helper()
	t, err := New(Config{
		URL: url, Client: client, Token: func(context.Context) (string, error) { return clusterToken, nil }, Namespace: "ml", Name: "churn", Memory: "1024Mi",
		Poll: time.Millisecond, Retry: retry.Policy{Attempts: 4, Base: time.Microsecond, Max: time.Millisecond}, Log: log,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestSuite(t *testing.T) {
	targettest.Run(t, targettest.Harness{
		Without: map[string]string{"refusals/size": "Kubernetes has no limit on the size of an image"},
		New: func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
			c := newCluster(tb)
			srv := httptest.NewServer(w.Handler(c))
			tb.Cleanup(func() {
				srv.Close()
				for _, x := range c.invalid {
					tb.Errorf("a body does not fit the published definitions: %s", x)
				}
			})
			locked := func(f func()) {
				c.mu.Lock()
				defer c.mu.Unlock()
				f()
			}
			return &targettest.Fixture{
				Target:  func(log *slog.Logger) deploy.Target { return target(tb, srv.URL, srv.Client(), log) },
				Release: release,
				Serving: c.serving,
				Rest: func() {
					locked(func() {
						for range 4 {
							c.step()
						}
					})
				},
				Dump: func() (out string) {
					locked(func() { raw, _ := json.MarshalIndent(c.objects, "", " "); out = string(raw) })
					return out
				},
				Sick: func(d artifact.Digest, cause error) { locked(func() { c.sick[d] = cause }) },
				Forget: func(d artifact.Digest) {
					locked(func() {
						for _, p := range c.sets() {
							if c.runs(c.objects[p]) == d && c.objects[p].number("status", "availableReplicas") == 0 {
								delete(c.objects, p)
							}
						}
					})
				},
				Meddle: func() {
					locked(func() {
						d := clone(c.objects[dPath])
						d.list("spec", "template", "spec", "containers")[0]["resources"] = map[string]any{"limits": map[string]any{"memory": "64Mi"}}
						merge(d, object{"metadata": map[string]any{"generation": float64(d.number("metadata", "generation") + 1)}})
						c.store(dPath, d)
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

// The definitions refuse what they should: else the suite's bodies prove nothing.
func TestDefinitionsBite(t *testing.T) {
	c := newCluster(t)
	if c.schemas == nil {
		t.Skip("WAYBILL_SCHEMAS is not set")
	}
	srv := httptest.NewServer(c)
	defer srv.Close()
	k := target(t, srv.URL, srv.Client(), nil)
	o := k.deployment(release(1))
	o.object("spec", "template", "spec")["containerz"] = []any{}
	if _, err := k.call(t.Context(), http.MethodPost, k.deployments(), o); !errors.Is(err, deploy.ErrRelease) || !strings.Contains(err.Error(), "containerz") {
		t.Errorf("an unknown field: %v", err)
	}
}

// What an autoscaler, a mesh and an operator set stays.
func TestOthersFields(t *testing.T) {
	c := newCluster(t)
	srv := httptest.NewServer(c)
	defer srv.Close()
	k := target(t, srv.URL, srv.Client(), nil)
	apply := func(n int) {
		t.Helper()
		p, err := k.Plan(t.Context(), release(n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	apply(1)
	c.mu.Lock()
	d := c.objects[dPath]
	merge(d, object{"metadata": map[string]any{"annotations": map[string]any{"mesh": "on"}}, "spec": map[string]any{"replicas": 5.0, "template": map[string]any{"metadata": map[string]any{"annotations": map[string]any{"restartedAt": "now"}}}}})
	c.mu.Unlock()
	p, err := k.Plan(t.Context(), release(1))
	if err != nil || len(p.Drift) != 0 {
		t.Errorf("drift %+v, %v", p.Drift, err)
	}
	apply(2)
	d = c.objects[dPath]
	if d.number("spec", "replicas") != 5 || d.text("metadata", "annotations", "mesh") != "on" || d.text("spec", "template", "metadata", "annotations", "restartedAt") != "now" || imageOf(d) != release(2).Image {
		t.Errorf("%v", d)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"no url": func(c *Config) { c.URL = "" }, "no client": func(c *Config) { c.Client = nil }, "name": func(c *Config) { c.Name = "Churn" },
		"namespace": func(c *Config) { c.Namespace = "../x" }, "memory": func(c *Config) { c.Memory = "1.5Gi" }, "cpu": func(c *Config) { c.CPU = "a" },
		"replicas": func(c *Config) { c.Replicas = -1 }, "port": func(c *Config) { c.Port = 70000 },
	} {
		c := Config{URL: "http://x", Client: http.DefaultClient, Name: "churn", Namespace: "ml"}
		edit(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for in, want := range map[string]string{"1024Mi": "1Gi", "500m": "500m", "2000m": "2", "1536Mi": "1536Mi", "1048576Ki": "1Gi", "3": "3", "1024Gi": "1Ti"} {
		if got, err := quantity(in); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
}
