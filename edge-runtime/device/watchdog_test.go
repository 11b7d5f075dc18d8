//go:build unix

package device

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/enroll"
	"github.com/waybill-ml/waybill/edge-runtime/sdnotify"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// The manager hears from a process that works, nothing from one whose check fails or hangs, and again once it works again.
func TestWatchdog(t *testing.T) {
	m := edgetest.NewManager(t)
	n, err := sdnotify.New(m.Env("300000"), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const works, fails, hangs = 0, 1, 2
	var mood, asked atomic.Int32
	release := make(chan struct{})
	w := watchdog{notify: n, log: slog.New(slog.DiscardHandler), alive: func(context.Context) error {
		switch mood.Load() {
		case fails:
			return errors.New("model churn: output differs")
		case hangs: // deaf to its context, as a real hang is
			asked.Add(1)
			<-release
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	m.Await(sdnotify.Watchdog)
	m.Await(sdnotify.Watchdog)
	mood.Store(fails)
	m.Await("STATUS=not alive: model churn: output differs")
	if !m.Silent(900 * time.Millisecond) {
		t.Error("a process that does not work says that it does")
	}
	mood.Store(works)
	m.Await(sdnotify.Watchdog)
	mood.Store(hangs)
	m.Await("STATUS=not alive: the check of the agent and its models does not return")
	if !m.Silent(900*time.Millisecond) || asked.Load() != 1 {
		t.Errorf("a check that hangs was asked %d times", asked.Load())
	}
	mood.Store(works)
	close(release)
	m.Await(sdnotify.Watchdog)
	cancel()
	<-done
	// Without an interval nobody is told.
	watchdog{alive: func(context.Context) error { t.Error("asked"); return nil }}.run(t.Context())
}

// follower is the configuration of a device, just enrolled, that follows the publisher's channel.
func follower(t *testing.T, p *edgetest.Publisher, trial config.Trial) *config.Config {
	t.Helper()
	ref := p.TrustRef()
	dir := t.TempDir()
	raw, err := json.Marshal(config.Provisioning{
		Schema: config.SchemaProvisioning, Class: "edge-s", Listen: "127.0.0.1:0",
		Trust: config.ProvisionedTrust{Bundle: p.Trust(), Version: ref.Version, Digest: ref.Digest},
		Channels: []config.Channel{{
			Name: "prod", Env: "prod", Registry: p.Host, Repo: "ml/churn", Model: edgetest.Model, ResourceURI: "waybill:ml/churn",
			Interval: config.Duration(time.Hour), Trial: trial, // polls are asked for
		}},
	})
	file := filepath.Join(dir, "provisioning.json")
	if err == nil {
		err = os.WriteFile(file, raw, 0o600)
	}
	if err == nil {
		_, err = enroll.Install(t.Context(), enroll.Options{Out: filepath.Join(dir, "edge"), Provision: file}, func(line string) { t.Error(line) })
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(filepath.Join(dir, "edge", "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// What the check looks at on a real device: it works, and each part of it that breaks is noticed.
func TestVital(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1 := p.Pack("v1")
	cfg := follower(t, p, config.Trial{Duration: config.Duration(50 * time.Millisecond), MinRequests: 1000})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, err := open(ctx, cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close(context.WithoutCancel(ctx))
	if err := d.agent.Start(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: d.server.Handler(), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 2)
	go func() { ended <- h.Serve(l) }()
	running, stop := context.WithCancel(ctx)
	go func() { ended <- d.agent.Run(running) }()
	defer func() { stop(); _ = h.Close(); <-ended; <-ended }()
	v := newVital(d, dialable(l.Addr()))
	if err := v.check(ctx); err != nil {
		t.Errorf("before anything serves: %v", err)
	}
	p.Publish(p.Change(v1))
	if err := d.agent.Poll(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := v.check(ctx); err != nil {
			t.Errorf("a device that works: %v", err)
		}
	}
	if s := v.asked[edgetest.Model]; s.took == 0 || s.digest != v1.Digest {
		t.Errorf("the model was not asked: %+v", s)
	}
	// A model that computes something else than it did: a changed weight, a broken memory.
	m := d.models.get(edgetest.Model)
	golden := m.golden.Vectors[0].Expected
	m.golden.Vectors[0].Expected = m.golden.Vectors[1].Expected
	v.asked = map[string]served{}
	if err := v.check(ctx); err == nil || !strings.Contains(err.Error(), "model "+edgetest.Model) {
		t.Errorf("a model that computes something else: %v", err)
	}
	m.golden.Vectors[0].Expected = golden
	if err := v.check(ctx); err != nil {
		t.Errorf("a device that works again: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.check(ctx); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a listener that is gone: %v", err)
	}
}
