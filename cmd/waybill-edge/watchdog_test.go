//go:build unix

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/sdnotify"
)

// manager is the other end of sd_notify.
type manager struct {
	t    *testing.T
	addr string
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, addr: filepath.Join(socketDir(t), "n")}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m.conn = c
	return m
}

// next is the next datagram, "" when none comes within d.
func (m *manager) next(d time.Duration) string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		m.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := m.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(buf[:n])
}

// await reads until a datagram has the line.
func (m *manager) await(line string) string {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if got := m.next(time.Until(deadline)); strings.Contains("\n"+got+"\n", "\n"+line+"\n") {
			return got
		}
	}
	m.t.Fatalf("%s did not come", line)
	return ""
}

// silent reads what is there and then sees that no sign of life comes for d.
func (m *manager) silent(d time.Duration) bool {
	for m.next(10*time.Millisecond) != "" {
	}
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		if got := m.next(time.Until(end)); strings.Contains(got, sdnotify.Watchdog) {
			return false
		}
	}
	return true
}

func (m *manager) env(interval string) func(string) string {
	return func(k string) string {
		return map[string]string{"NOTIFY_SOCKET": m.addr, "WATCHDOG_USEC": interval}[k]
	}
}

// The manager hears from a process that works, nothing from one whose check fails or hangs, and again once it works again.
func TestWatchdog(t *testing.T) {
	m := newManager(t)
	n, err := sdnotify.New(m.env("300000"), os.Getpid())
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
	m.await(sdnotify.Watchdog)
	m.await(sdnotify.Watchdog)
	mood.Store(fails)
	m.await("STATUS=not alive: model churn: output differs")
	if !m.silent(900 * time.Millisecond) {
		t.Error("a process that does not work says that it does")
	}
	mood.Store(works)
	m.await(sdnotify.Watchdog)
	mood.Store(hangs)
	m.await("STATUS=not alive: the check of the agent and its models does not return")
	if !m.silent(900*time.Millisecond) || asked.Load() != 1 {
		t.Errorf("a check that hangs was asked %d times", asked.Load())
	}
	mood.Store(works)
	close(release)
	m.await(sdnotify.Watchdog)
	cancel()
	<-done
	// Without an interval nobody is told.
	watchdog{alive: func(context.Context) error { t.Error("asked"); return nil }}.run(t.Context())
}

// What the check looks at on a real device: it works, and each part of it that breaks is noticed.
func TestVital(t *testing.T) {
	p := newPublisher(t)
	v1 := p.pack("v1")
	e := enrolled(t, p, trialConfig{Duration: duration(50 * time.Millisecond), MinRequests: 1000})
	cfg, err := loadConfig(e.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, err := open(ctx, cfg, slog.New(slog.DiscardHandler))
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
	p.publish(p.change(v1))
	if err := d.agent.Poll(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := v.check(ctx); err != nil {
			t.Errorf("a device that works: %v", err)
		}
	}
	if s := v.asked[modelName]; s.took == 0 || s.digest != v1.Digest {
		t.Errorf("the model was not asked: %+v", s)
	}
	// A model that computes something else than it did: a changed weight, a broken memory.
	m := d.models.get(modelName)
	golden := m.golden.Vectors[0].Expected
	m.golden.Vectors[0].Expected = m.golden.Vectors[1].Expected
	v.asked = map[string]served{}
	if err := v.check(ctx); err == nil || !strings.Contains(err.Error(), "model "+modelName) {
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

// A real agent under a manager: it is ready once it serves, gives signs of life, is killed when it hangs, and its successor serves the
// same model.
func TestServiceManager(t *testing.T) {
	p := newPublisher(t)
	v1 := p.pack("v1")
	d := enrolled(t, p, trialConfig{Duration: duration(50 * time.Millisecond), MinRequests: 1000})
	m := newManager(t)
	t.Setenv("NOTIFY_SOCKET", m.addr)
	t.Setenv("WATCHDOG_USEC", "3000000")
	d.start()
	if got := m.await(sdnotify.Ready); !strings.Contains(got, "STATUS=serving on ") {
		t.Errorf("ready: %q", got)
	}
	m.await(sdnotify.Watchdog)
	p.publish(p.change(v1))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.await(sdnotify.Watchdog)
	if out, err := d.do("status", "--output", "json"); err != nil || !strings.Contains(out, `"watchdogSeconds": 3`) {
		t.Errorf("%v\n%s", err, out)
	}
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.await(sdnotify.Reloading)
	m.await(sdnotify.Ready)
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if !m.silent(3 * time.Second) {
		t.Error("a stopped process gave a sign of life")
	}
	d.kill() // as the manager does
	d.start()
	m.await(sdnotify.Ready)
	m.await(sdnotify.Watchdog)
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("the successor answers with %s, %v", got, err)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	m.await(sdnotify.Stopping)
}
