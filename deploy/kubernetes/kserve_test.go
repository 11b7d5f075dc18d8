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

func newInference() *inference {
	k := &inference{revs: map[string]object{}, age: map[string]int{}, sick: map[artifact.Digest]error{}, images: map[string]artifact.Digest{}}
	for n := range 6 {
		k.images[release(n).Image] = release(n).Digest
	}
	return k
}

func ksTarget(tb testing.TB, url string, client *http.Client, log *slog.Logger) *KServe {
	tb.Helper()
	t, err := NewKServe(Config{
		URL: url, Client: client, Token: func(context.Context) (string, error) { return clusterToken, nil }, Namespace: "ml", Name: "churn", Memory: "1024Mi",
		Poll: time.Millisecond, Retry: retry.Policy{Attempts: 4, Base: time.Microsecond, Max: time.Millisecond}, Log: log,
	}, 1, 5)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestKServeSuite(t *testing.T) {
	targettest.Run(t, targettest.Harness{
		Without: map[string]string{"refusals/size": "KServe has no limit on the size of an image"},
		New: func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
			k := newInference()
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
				Target:  func(log *slog.Logger) deploy.Target { return ksTarget(tb, srv.URL, srv.Client(), log) },
				Release: release,
				Serving: k.serves,
				Rest: func() {
					locked(func() {
						for range 6 {
							k.step()
						}
					})
				},
				Dump: func() (out string) {
					locked(func() {
						raw, _ := json.MarshalIndent([]any{k.svc, k.ksvc, k.revs}, "", " ")
						out = string(raw)
					})
					return out
				},
				Sick: func(d artifact.Digest, cause error) { locked(func() { k.sick[d] = cause }) },
				Forget: func(d artifact.Digest) {
					locked(func() {
						given, _ := k.ksvc["given"].([]ksRoute)
						for _, n := range k.names() {
							used := n == k.ksvc["created"]
							for _, x := range given {
								used = used || x.Revision == n
							}
							if k.runs(k.revs[n]) == d && !used {
								delete(k.revs, n)
							}
						}
					})
				},
				Meddle: func() {
					locked(func() {
						o := clone(k.svc)
						o.list("spec", "predictor", "containers")[0]["resources"] = map[string]any{"limits": map[string]any{"memory": "64Mi"}}
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

// kept holds what is written in a file of testdata/kserve against what is written now; KServe's own code reads it there, in a Go module
// of its own.
func kept(t *testing.T, name string, v any) {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	name = filepath.Join("testdata", "kserve", name)
	if os.Getenv("WAYBILL_WRITE_BODIES") != "" {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, append(text, '\n'), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(name); err != nil || string(want) != string(text)+"\n" {
		t.Errorf("%s is not what is written now (%v): WAYBILL_WRITE_BODIES=1 go test ./deploy/kubernetes -run KServe", name, err)
	}
}

// What is written in a life of canary, promotion, rollback and failure.
func TestKServeBodies(t *testing.T) {
	k := newInference()
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			raw, err := io.ReadAll(r.Body)
			var o object
			if err := errors.Join(err, json.Unmarshal(raw, &o)); err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(strings.NewReader(string(raw)))
			merge(o, object{"spec": map[string]any{"predictor": map[string]any{"annotations": map[string]any{annWrite: "write"}}}})
			delete(o.object("metadata"), "resourceVersion")
			n++
			kept(t, fmt.Sprintf("%02d-%s.json", n, strings.ToLower(r.Method)), o)
		}
		k.ServeHTTP(w, r)
	}))
	defer srv.Close()
	x := ksTarget(t, srv.URL, srv.Client(), nil)
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
	if err := errors.Join(apply(4, 10), apply(5, 20)); err != nil { // a canary over a canary
		t.Fatal(err)
	}
	if n < 9 {
		t.Errorf("%d writes", n)
	}
}

// What the local server takes from KServe, for every state of a few revisions: KServe's own code must do the same.
func TestKServeRounds(t *testing.T) {
	type round struct {
		Percent *int      `json:"percent"`
		Rolled  ksRolled  `json:"rolled"`
		Split   []ksRoute `json:"split"`
		Created string    `json:"created"`
		Ready   string    `json:"ready"`
		Given   []ksRoute `json:"given"`
		After   ksRolled  `json:"after"`
	}
	var all []round
	for _, percent := range []*int{nil, new(0), new(10), new(100)} {
		for _, rolled := range []ksRolled{{}, {Latest: "r1"}, {Latest: "r1", Previous: "r0"}, {Latest: "r2", Previous: "r1"}} {
			for _, at := range [][2]string{{"r1", "r1"}, {"r2", "r1"}, {"r2", "r2"}} {
				x := round{Percent: percent, Rolled: rolled, Split: split(percent, rolled), Created: at[0], Ready: at[1]}
				for _, e := range x.Split {
					if e.Latest {
						e.Revision = x.Ready
					}
					x.Given = append(x.Given, e)
				}
				x.After = propagate(rolled, x.Created, x.Ready, x.Given)
				all = append(all, x)
			}
		}
	}
	kept(t, "rounds.json", all)
}

// While the canary's release is replaced, nothing but the stable one may get its part: KServe gives the latest revision's share to the
// canary until the new one is ready.
func TestKServeCanaryNeverGetsMore(t *testing.T) {
	for name, move := range map[string]func(x *KServe) error{
		"another release": func(x *KServe) error {
			p, err := x.Plan(t.Context(), release(3))
			if err == nil {
				_, err = x.Apply(t.Context(), p)
			}
			return err
		},
		"rollback": func(x *KServe) error { _, err := x.Rollback(t.Context(), "", time.Minute); return err },
		"one that fails": func(x *KServe) error {
			p, err := x.Plan(t.Context(), release(4))
			if err != nil {
				return err
			}
			if _, err = x.Apply(t.Context(), p); !errors.Is(err, deploy.ErrUnhealthy) {
				return fmt.Errorf("a sick one: %w", err)
			}
			return nil
		},
	} {
		k := newInference()
		k.sick[release(4).Digest] = deploy.ErrUnhealthy
		most, watch := 0, false
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			k.ServeHTTP(w, r)
			if n := k.serves()[release(2).Digest]; watch && n > most {
				most = n
			}
		}))
		x := ksTarget(t, srv.URL, srv.Client(), nil)
		for n, weight := range []int{1: 0, 2: 10} {
			if n == 0 {
				continue
			}
			r := release(n)
			r.Weight = weight
			p, err := x.Plan(t.Context(), r)
			if err == nil {
				_, err = x.Apply(t.Context(), p)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		watch = true
		if err := move(x); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if most > 10 {
			t.Errorf("%s: the canary got %d%%", name, most)
		}
		srv.Close()
	}
}

// Knative's routes may follow before its configuration: then KServe takes the latest revision for one that was taken back, and gives
// the rest of a canary's traffic to the release before. That is noticed and undone.
func TestKServeHasty(t *testing.T) {
	k := newInference()
	srv := httptest.NewServer(k)
	defer srv.Close()
	x := ksTarget(t, srv.URL, srv.Client(), nil)
	apply := func(n, weight int) error {
		r := release(n)
		r.Weight = weight
		p, err := x.Plan(t.Context(), r)
		if err == nil {
			_, err = x.Apply(t.Context(), p)
		}
		return err
	}
	if err := errors.Join(apply(1, 0), apply(2, 0)); err != nil {
		t.Fatal(err)
	}
	k.hasty = true
	if err := apply(3, 10); !errors.Is(err, deploy.ErrUnhealthy) || !strings.Contains(err.Error(), "not asked for") {
		t.Fatal(err)
	}
	for range 8 {
		k.step()
	}
	if got := k.serves(); got[release(2).Digest] != 100 {
		t.Errorf("%v serves", got)
	}
}

// An InferenceService that somebody made goes on serving until the first release is ready; one without revisions is refused.
func TestKServeTakesOver(t *testing.T) {
	k := newInference()
	srv := httptest.NewServer(k)
	defer srv.Close()
	x := ksTarget(t, srv.URL, srv.Client(), nil)
	k.set(clone(object{"metadata": map[string]any{"name": "churn"}, "spec": map[string]any{
		"predictor": map[string]any{"maxReplicas": 9, "timeout": 60, "containers": []any{map[string]any{"name": kserveContainer, "image": "reg.example/other:1"}}},
	}}))
	for range 6 {
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
	for range 6 {
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
	if k.svc.number("spec", "predictor", "timeout") != 60 || k.svc.number("spec", "predictor", "maxReplicas") != 5 {
		t.Errorf("%v", k.svc.object("spec", "predictor"))
	}
	o2 := clone(k.svc)
	o2.object("metadata", "annotations")[annMode] = "RawDeployment"
	k.set(o2)
	if _, err := x.Plan(t.Context(), release(2)); !errors.Is(err, deploy.ErrRelease) || !strings.Contains(err.Error(), "RawDeployment") {
		t.Errorf("a plain deployment: %v", err)
	}
	if _, err := x.Rollback(t.Context(), "", time.Minute); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("a plain deployment is rolled back: %v", err)
	}
}

func TestKServeRefuses(t *testing.T) {
	good := KServeSettings{Service: "churn", Namespace: "ml", Arch: "amd64", Memory: "1Gi", CPU: "1", Min: 1, Max: 2}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for key, edit := range map[string]func(*KServeSettings){
		"service": func(s *KServeSettings) { s.Service = strings.Repeat("a", 41) }, "namespace": func(s *KServeSettings) { s.Namespace = "../x" }, "arch": func(s *KServeSettings) { s.Arch = "riscv64" },
		"memory": func(s *KServeSettings) { s.Memory = "1.5Gi" }, "cpu": func(s *KServeSettings) { s.CPU = "-1" }, "min_instances": func(s *KServeSettings) { s.Min = 3 }, "max_instances": func(s *KServeSettings) { s.Max = -1 },
	} {
		s := good
		edit(&s)
		var e *targets.Error
		if err := s.Check(); !errors.As(err, &e) || e.Path != key {
			t.Errorf("%s: %v", key, err)
		}
	}
	for name, edit := range map[string]func(*Config, *int){"name": func(c *Config, _ *int) { c.Name = strings.Repeat("a", 41) }, "bounds": func(_ *Config, least *int) { *least = 3 }, "url": func(c *Config, _ *int) { c.URL = "" }} {
		c, least := Config{URL: "http://x", Client: http.DefaultClient, Name: "churn", Namespace: "ml"}, 1
		edit(&c, &least)
		if _, err := NewKServe(c, least, 2); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// What --emit writes is what Apply ends in.
func TestKServeManifest(t *testing.T) {
	s := &KServeSettings{Service: "churn", Namespace: "ml", Arch: "amd64", Memory: "1024Mi", CPU: "500m", Min: 1, Max: 5}
	ms, err := s.Manifests(release(1))
	if err != nil || len(ms) != 1 || len(ms[0].Docs) != 1 {
		t.Fatal(ms, err)
	}
	kept(t, "manifest.json", ms[0].Docs[0])
	k := newInference()
	srv := httptest.NewServer(k)
	defer srv.Close()
	x := ksTarget(t, srv.URL, srv.Client(), nil)
	k.set(clone(ms[0].Docs[0]))
	for range 6 {
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
