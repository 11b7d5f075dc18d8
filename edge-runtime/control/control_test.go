//go:build unix

package control

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// fakeAgent answers orders.
type fakeAgent struct{ polls, rollbacks atomic.Int32 }

func (a *fakeAgent) Status() agent.Status                 { return agent.Status{Schema: agent.StatusSchema} }
func (a *fakeAgent) History(int) ([]journal.Entry, error) { return []journal.Entry{{N: 1}}, nil }
func (a *fakeAgent) Poll(context.Context) error           { a.polls.Add(1); return nil }
func (a *fakeAgent) PollNow(context.Context) error        { a.polls.Add(1); return nil }
func (a *fakeAgent) Rollback(_ context.Context, c string, _ artifact.Digest) (agent.RollbackResult, error) {
	a.rollbacks.Add(1)
	return agent.RollbackResult{Channel: c}, agent.ErrNoTarget
}

// controlServer serves a fake agent on a socket; edit may change its guard.
func controlServer(t testing.TB, edit func(*door)) (cfg *config.Config, a *fakeAgent) {
	t.Helper()
	dir := edgetest.SocketDir(t)
	cfg, a = &config.Config{State: dir, Control: filepath.Join(dir, "s")}, &fakeAgent{}
	l, err := Listen(cfg.Control)
	if err != nil {
		t.Fatal(err)
	}
	g := Guard(l, slog.New(slog.DiscardHandler))
	if edit != nil {
		edit(g)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, g, Handler(a, a.Status)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return cfg, a
}

func TestControlSocket(t *testing.T) {
	cfg, a := controlServer(t, nil)
	if info, err := os.Stat(cfg.Control); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	var s agent.Status
	if err := Ask(t.Context(), cfg, http.MethodGet, "/status", &s); err != nil || s.Schema != agent.StatusSchema {
		t.Errorf("status: %+v, %v", s, err)
	}
	err := Ask(t.Context(), cfg, http.MethodPost, "/rollback?channel=prod", &s)
	if diag.CodeOf(err) != diag.NotFound {
		t.Errorf("rollback: %v", err)
	}
	if err := Ask(t.Context(), cfg, http.MethodPost, "/rollback?channel=prod&to=sha256:zz", &s); diag.CodeOf(err) != diag.Usage || a.rollbacks.Load() != 1 {
		t.Errorf("rollback to no digest: %v, %d rollbacks", err, a.rollbacks.Load())
	}
	// A command of a later version.
	if err := Ask(t.Context(), cfg, http.MethodPost, "/new-order", &s); err == nil || !strings.Contains(err.Error(), "does not know POST /new-order") {
		t.Errorf("an order that this agent does not know: %v", err)
	}
	if err := Ask(t.Context(), cfg, http.MethodGet, "/poll", &s); err == nil || a.polls.Load() != 0 {
		t.Errorf("an order by GET: %v", err)
	}
}

// Only this user and root get through, whatever the file's mode says.
func TestControlGuard(t *testing.T) {
	stranger := func(net.Conn) (int, int, bool) { return 12345, 1, true }
	cfg, a := controlServer(t, func(g *door) { g.peer = stranger })
	var s agent.Status
	if err := AskWithin(t.Context(), cfg, time.Minute, http.MethodPost, "/poll", &s); err == nil || a.polls.Load() != 0 {
		t.Errorf("a stranger's order: %v, %d polls", err, a.polls.Load())
	}
	// Without the check the order is carried out.
	cfg, a = controlServer(t, func(g *door) { g.peer, g.allowed = stranger, append(g.allowed, 12345) })
	if err := Ask(t.Context(), cfg, http.MethodPost, "/poll", &s); err != nil || a.polls.Load() != 1 {
		t.Errorf("without the check: %v, %d polls", err, a.polls.Load())
	}
	if goruntime.GOOS == "linux" {
		c, err := net.Dial("unix", cfg.Control)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if uid, pid, ok := peerUID(c); !ok || uid != os.Getuid() || pid != os.Getpid() {
			t.Errorf("the peer is user %d, process %d, %v", uid, pid, ok)
		}
	}
}

// Connections that say nothing do not keep commands out for long, and never more than so many.
func TestControlIdleConnections(t *testing.T) {
	t.Parallel() // it waits until the agent gives up on them
	cfg, _ := controlServer(t, nil)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range 3 * maxControlConns {
		c, err := net.Dial("unix", cfg.Control)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	var s agent.Status
	deadline := time.Now().Add(time.Minute)
	for {
		err := Ask(t.Context(), cfg, http.MethodGet, "/status", &s)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("idle connections keep a command out: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A socket that answers nothing, or not in our language, is told apart from an agent that is down.
func TestControlStrangeAgents(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   string
	}{
		"silent":   {"", ErrSilent.Error()},
		"no HTTP":  {"220 smtp ready\r\n", "malformed HTTP"},
		"no JSON":  {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "invalid character"},
		"an error": {"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nWaybill-Version: 99.0\r\n\r\n", "500 Oops"},
		"closes":   {"close", "ask the agent"}, // EOF, or a reset
	} {
		t.Run(name, func(t *testing.T) {
			dir := edgetest.SocketDir(t)
			cfg := &config.Config{State: dir, Control: filepath.Join(dir, "s")}
			l, err := net.Listen("unix", cfg.Control)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			defer wg.Wait()
			defer l.Close()
			wg.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					if c.answer == "close" {
						_ = conn.Close()
						continue
					}
					wg.Go(func() {
						defer conn.Close()
						buf := make([]byte, 4096)
						_, _ = conn.Read(buf)
						_, _ = conn.Write([]byte(c.answer))
						if c.answer == "" {
							_, _ = conn.Read(buf) // until the client gives up
						}
					})
				}
			})
			var s agent.Status
			wait := time.Minute
			if c.answer == "" {
				wait = 100 * time.Millisecond
			}
			err = AskWithin(t.Context(), cfg, wait, http.MethodGet, "/status", &s)
			if err == nil || errors.Is(err, ErrDown) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// FuzzControl sends anything to the socket: the agent must go on answering, and never take an order from what is not one.
func FuzzControl(f *testing.F) {
	for _, s := range []string{
		"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "POST /rollback?to=sha256:00 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /history?n=-9999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n", "POST /poll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", "\x16\x03\x01\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET //status/../poll HTTP/1.1\r\nHost: x\r\n\r\n", "GET /" + strings.Repeat("a", 20000),
		"GET /poll HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD /poll HTTP/1.1\r\nHost: x\r\n\r\n", "GET /poll HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: PUT\r\n\r\n",
		"GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\nPUT /poll HTTP/1.1\r\nHost: x\r\n\r\n", "GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"GET /status HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /status HTTP/1.1\r\n\r\n", "GET /status HTTP/0.9\r\n\r\n", "GET /history?n=%00&n=2&n=0x7fffffffffffffff HTTP/1.1\r\nHost: x\r\n\r\n", "GET /status HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
		"POST /rollback?channel=%2e%2e&to=%00 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"to\":\"sha256\"",
	} {
		f.Add([]byte(s))
	}
	cfg, a := controlServer(f, nil)
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := a.polls.Load()
		c, err := net.Dial("unix", cfg.Control)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(raw)
		if u, ok := c.(*net.UnixConn); ok {
			_ = u.CloseWrite()
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 64<<10)
		for {
			if _, err := c.Read(buf); err != nil {
				break
			}
		}
		_ = c.Close()
		if a.polls.Load() != before && !bytes.Contains(raw, []byte("POST")) {
			t.Errorf("%q polled", raw)
		}
		var s agent.Status
		if err := Ask(t.Context(), cfg, http.MethodGet, "/status", &s); err != nil {
			t.Errorf("after %q: %v", raw, err)
		}
	})
}
