package cloudflare

import (
	"bytes"
	"context"
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
	"github.com/waybill-ml/waybill/deploy/jsbundle"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/deploy/targettest"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
)

type blobs map[artifact.Digest][]byte

// Blob implements jsbundle.Source.
func (b blobs) Blob(_ context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[d.Digest])), nil
}

// releases makes four bundles of four artifacts.
func releases(t *testing.T) (out []deploy.Release) {
	t.Helper()
	onnx, err := examples.BreastCancer.ReadFile("breast-cancer/v1/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close(context.WithoutCancel(t.Context())) }()
	for n := 1; n <= 4; n++ {
		m, err := build.Compile(t.Context(), build.Source{Path: "model.onnx", Data: onnx}, build.Options{Name: "churn", Version: fmt.Sprintf("1.0.%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		run, err := e.Load(t.Context(), m.Code, engine.WeightsSource{}, m.Interface)
		if err != nil {
			t.Fatal(err)
		}
		in := []artifact.GoldenTensor{probe.ToGolden(m.Interface.Inputs[0].Name, engine.Of(make([]float32, 30), 1, 30))}
		want, err := probe.Call(t.Context(), run, in)
		if err != nil {
			t.Fatal(err)
		}
		_ = run.Close(t.Context())
		iface, err := artifact.Canonical(m.Interface)
		if err != nil {
			t.Fatal(err)
		}
		golden, err := artifact.Canonical(artifact.Golden{Schema: artifact.GoldenSchema, Vectors: []artifact.GoldenVector{{Name: "zeros", Inputs: in, Expected: want}}})
		if err != nil {
			t.Fatal(err)
		}
		src := blobs{}
		var ls []artifact.Layer
		for _, l := range []struct {
			artifact.Layer
			b []byte
		}{
			{artifact.Layer{Role: artifact.RoleModule, Path: m.Interface.Module.Path, Target: artifact.TargetAny}, m.Code},
			{artifact.Layer{Role: artifact.RoleInterface, Path: "waybill.interface.json"}, iface},
			{artifact.Layer{Role: artifact.RoleGolden, Path: "golden.json", Personal: artifact.PersonalNone}, golden},
		} {
			l.Digest, l.Size = artifact.DigestOf(l.b), int64(len(l.b))
			src[l.Digest] = l.b
			ls = append(ls, l.Layer)
		}
		manifest, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: m.Interface.Version}}, ls, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "bundle")
		b, err := jsbundle.Build(t.Context(), dir, manifest, src, jsbundle.Options{})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, deploy.Release{Digest: b.Digest, Model: "churn", Ver: m.Interface.Version, Bundle: dir})
	}
	return out
}

const token = "v1.0-tok/en+that=nobody?may see"

// target makes the target in front of a server.
func target(tb testing.TB, url string, log *slog.Logger) *Target {
	tb.Helper()
	transport := &http.Transport{}
	tb.Cleanup(transport.CloseIdleConnections)
	t, err := New(Config{
		Account: "acc", Script: "churn", Token: token, Endpoint: url + "/client/v4", Preview: url + "/preview/{version}",
		URL: "https://churn.example.workers.dev", HTTP: &http.Client{Transport: transport}, Log: log,
		Retry: retry.Policy{Attempts: 4, Base: time.Microsecond, Max: time.Millisecond}, Poll: time.Millisecond,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func fail(w http.ResponseWriter, _ *http.Request, cause error, message string) {
	switch {
	case errors.Is(cause, deploy.ErrThrottled):
		refuse(w, http.StatusTooManyRequests, 971, message)
	case errors.Is(cause, deploy.ErrForbidden):
		refuse(w, http.StatusForbidden, 10023, message)
	case errors.Is(cause, deploy.ErrUnauthorized):
		refuse(w, http.StatusUnauthorized, 10000, message)
	default:
		refuse(w, http.StatusServiceUnavailable, 7009, message)
	}
}

func TestSuite(t *testing.T) {
	rs := releases(t)
	targettest.Run(t, targettest.Harness{
		New: func(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
			p := &platform{token: token, sick: map[artifact.Digest]error{}}
			srv := httptest.NewServer(w.Handler(p))
			srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			tb.Cleanup(srv.Close)
			return &targettest.Fixture{
				Target:  func(log *slog.Logger) deploy.Target { return target(tb, srv.URL, log) },
				Release: func(n int) deploy.Release { return rs[n-1] },
				Serving: p.serving, Rest: func() {}, Dump: p.dump,
				Sick: func(d artifact.Digest, cause error) {
					p.mu.Lock()
					defer p.mu.Unlock()
					p.sick[d] = cause
				},
				Forget: p.forget, Meddle: p.meddle, Fail: fail, Secrets: []string{token},
			}
		},
		Portable: true,
	})
}

// A version is uploaded with the module's bytes as they are, and not a second time when it is there.
func TestUploadsOnce(t *testing.T) {
	rs := releases(t)
	p := &platform{token: token}
	srv := httptest.NewServer(p)
	defer srv.Close()
	to := target(t, srv.URL, slog.New(slog.DiscardHandler))
	for _, n := range []int{0, 1, 0, 1} {
		plan, err := to.Plan(t.Context(), rs[n])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.versions) != 2 || len(p.history) != 4 {
		t.Fatalf("%d versions, %d deployments", len(p.versions), len(p.history))
	}
	b, err := jsbundle.Open(rs[1].Bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range b.WorkerFiles() {
		raw, err := b.Read(f)
		if err != nil || p.versions[1].files[f.Path] != string(raw) {
			t.Errorf("%s was uploaded with other bytes: %v", f.Path, err)
		}
	}
	if len(p.versions[1].files) != len(b.WorkerFiles()) {
		t.Errorf("%d files were uploaded, the Worker has %d", len(p.versions[1].files), len(b.WorkerFiles()))
	}
}

// A version that the API does not know right after it was made is no other's.
func TestCreatedVersionIsReadLate(t *testing.T) {
	rs := releases(t)
	for _, late := range []int{1, 5} {
		p, to := drifts(t, nil)
		p.late = late
		if o := apply(t, to, rs[0]); o.Digest != rs[0].Digest || !o.Changed || o.IDs["version"] == "" || p.late != 0 {
			t.Errorf("known after %d reads: %+v", late, o)
		}
	}
	p, to := drifts(t, nil)
	p.late = 1000
	plan, err := to.Plan(t.Context(), rs[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.Apply(t.Context(), plan); !errors.Is(err, deploy.ErrConflict) || p.late < 900 {
		t.Errorf("never known: %v", err)
	}
}

// A folder that was altered, or is of another artifact, is never uploaded.
func TestAlteredBundle(t *testing.T) {
	rs := releases(t)
	p := &platform{token: token}
	srv := httptest.NewServer(p)
	defer srv.Close()
	to := target(t, srv.URL, slog.New(slog.DiscardHandler))
	plan, err := to.Plan(t.Context(), rs[0])
	if err != nil {
		t.Fatal(err)
	}
	other := rs[0]
	other.Bundle = rs[1].Bundle
	if _, err := to.Plan(t.Context(), other); !errors.Is(err, deploy.ErrRelease) {
		t.Errorf("the bundle of another artifact: %v", err)
	}
	file := filepath.Join(rs[0].Bundle, "codec.mjs")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(raw, "// more"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Apply(t.Context(), plan); !errors.Is(err, deploy.ErrRelease) || !strings.Contains(err.Error(), "codec.mjs") {
		t.Errorf("an altered script: %v", err)
	}
	if len(p.versions) > 0 {
		t.Error("it was uploaded")
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{Account: "a", Script: "s", Token: "t"}
	for name, edit := range map[string]func(c *Config){
		"account": func(c *Config) { c.Account = "" }, "script": func(c *Config) { c.Script = "" }, "token": func(c *Config) { c.Token = "" },
		"https": func(c *Config) { c.Endpoint = "http://api.example.com" }, "{version}": func(c *Config) { c.Preview = "https://example.com" },
	} {
		c := good
		edit(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}
