//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/ecslog"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func slot(version string, fill byte, since time.Time) *state.Slot {
	return &state.Slot{Digest: artifact.Digest("sha256:" + strings.Repeat(string(fill)+"b", 32)), Version: version, Name: "m", Since: since, Committed: since}
}

// twoChannels is a device like that of the documentation.
func twoChannels() agent.Status {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	roll := time.Date(2026, 11, 19, 14, 2, 0, 0, time.UTC)
	s := agent.Status{At: at, Running: true, AgentState: phaseRunning, Trust: 7, ClockOK: true, Journal: journal.Head{Entries: 1204}, JournalState: journalVerified, Free: 212e6}
	prod := agent.ChannelStatus{
		Channel: "prod", Model: "churn", State: agent.StateCommitted, Current: slot("2.0", '9', at.Add(-76*time.Hour)), Previous: slot("1.4", '7', at), Seq: 41,
		Health:       &agent.Stats{Requests: 1_200_000, P99: 400 * time.Microsecond},
		LastRollback: &state.Note{At: roll, From: slot("", 'e', at).Digest, To: slot("", '9', at).Digest, Reason: "latency budget: p99 41ms over 5ms in 300 requests"},
	}
	prod.Serving = prod.Current.Digest
	vision := agent.ChannelStatus{
		Channel: "vision", Model: "ppe", State: string(state.Trial), Current: slot("3.0", '7', at), Candidate: slot("3.1", 'c', at.Add(-12*time.Second)), TrialEnds: at.Add(48 * time.Second),
		Health: &agent.Stats{Requests: 318, P99: 6100 * time.Microsecond},
	}
	vision.Serving = vision.Candidate.Digest
	s.Channels = []agent.ChannelStatus{prod, vision}
	return s
}

func TestPrintStatus(t *testing.T) {
	var b bytes.Buffer
	if err := printStatus(&b, twoChannels(), 100); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"channel  model  running", "prod     churn  2.0 9b9b9b", "3.1 cbcbcb", "1.4 7b7b7b", "trial (48 s left)", "1.2 M ok, 0 failed", "3 d 4 h",
		"last rollback: prod ebebebebebeb -> 2.0 9b9b9b9b9b9b on 2026-11-19 14:02, latency budget: p99 41ms\n  over 5ms in 300 requests\n",
		"trust version 7, clock ok, journal 1,204 entries verified, 212 MB free\n",
	} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("%q is missing in\n%s", part, b.String())
		}
	}
	evil := twoChannels()
	evil.Channels[0].Model = "x\x1b[2J\ny\u202e"
	evil.Channels[0].LastRollback.Reason = "r\x1b]0;t\x07\nprod     churn  6.6 evil"
	evil.Channels[0].Channel, evil.Channels[0].Current.Version = strings.Repeat("long-", 30), strings.Repeat("9", 200)
	evil.AgentState, evil.ClockOK, evil.ClockFloor = agentBusy, false, evil.At.Add(49*time.Hour)
	evil.JournalState = "the journal is damaged: entry 7 does not follow the one before it"
	for _, s := range []agent.Status{twoChannels(), evil, {At: evil.At, AgentState: agentDown}} {
		for _, width := range []int{100, 80, 60, 40, 24} {
			b.Reset()
			if err := printStatus(&b, s, width); err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(b.String()) {
				l = strings.TrimSuffix(l, "\n")
				if ui.Width(l) > width || strings.ContainsAny(l, "\x1b\x07\r\u202e") {
					t.Errorf("width %d: %q", width, l)
				}
			}
			if strings.Contains(b.String(), "\nprod     churn  6.6 evil") {
				t.Error("a reason made a line of its own")
			}
		}
	}
}

func TestPrintHistory(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	d, from := slot("", '9', at).Digest, slot("", '7', at).Digest
	es := []journal.Entry{
		{N: 1, At: at, Kind: agent.KindRecord, Channel: "prod", Digest: d, Seq: 41, Reason: "record 91ab91ab91ab"},
		{N: 2, At: at, Kind: journal.KindCheckpoint},
		{N: 3, At: at, Kind: agent.KindRolledBack, Channel: strings.Repeat("x", 60), Digest: d, From: from, Seq: 41, Reason: strings.Repeat("budget ", 40)},
		{N: 4, At: at, Kind: agent.KindTrust, Reason: "a\nb\x1b[0m"},
	}
	for _, width := range []int{100, 40} {
		var b bytes.Buffer
		if err := printHistory(&b, es, width); err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(b.String()) {
			if l = strings.TrimSuffix(l, "\n"); ui.Width(l) > width || strings.ContainsAny(l, "\x1b") {
				t.Errorf("width %d: %q", width, l)
			}
		}
		if width == 100 && (!strings.Contains(b.String(), "rolled-back") || strings.Contains(b.String(), "checkpoint") || strings.Count(b.String(), "\n") < 6) {
			t.Errorf("%s", b.String())
		}
	}
}

// contents is every file below dir with its bytes, mode and time, to see that looking changes nothing.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %s", path, info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(raw))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What a newcomer sees in each situation that a device can be in. Looking changes nothing in any of them.
func TestSituations(t *testing.T) {
	p := newPublisher(t)
	v1, v2 := p.pack("v1"), p.pack("v2")
	d := enrolled(t, p, trialConfig{Duration: duration(300 * time.Millisecond), MinRequests: 1000})
	dir := filepath.Join(filepath.Dir(d.cfg), "state")
	type want struct {
		code diag.Code
		text []string
	}
	look := func(situation string, wants map[string]want) {
		t.Helper()
		before := contents(t, filepath.Dir(d.cfg))
		for cmd, w := range wants {
			var out, talk bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			code := run(ctx, append(strings.Fields(cmd), "--config", d.cfg), &out, &talk)
			cancel()
			all := out.String() + "--\n" + talk.String()
			t.Logf("%s: %s: exit %d\n%s", situation, cmd, code, all)
			if code != w.code {
				t.Errorf("%s: %s: exit code %d, want %d\n%s", situation, cmd, code, w.code, all)
			}
			for _, x := range w.text {
				if !strings.Contains(all, x) {
					t.Errorf("%s: %s: %q is missing in\n%s", situation, cmd, x, all)
				}
			}
			for l := range strings.Lines(out.String()) {
				if ui.Width(strings.TrimSuffix(l, "\n")) > mostColumns && !strings.Contains(cmd, "json") {
					t.Errorf("%s: %s: a line of %d columns", situation, cmd, ui.Width(l))
				}
			}
		}
		runs := strings.HasPrefix(situation, "running") || situation == "rolled back" // an agent that runs writes what it has to write
		if after := contents(t, filepath.Dir(d.cfg)); after != before && !runs {
			t.Errorf("%s: looking changed something:\n%s\n%s", situation, before, after)
		}
	}
	never := []string{"has not run yet", "hint: waybill-edge run --config " + d.cfg}
	look("never started", map[string]want{
		"status": {diag.NotFound, never}, "history": {diag.NotFound, never}, "verify-journal": {diag.NotFound, never},
		"poll": {diag.Failure, []string{"the agent is not running", "hint: waybill-edge run"}}, "status --output yaml": {diag.Usage, nil},
	})

	d.start()
	look("running, nothing published", map[string]want{"status": {diag.OK, []string{"prod     churn  nothing", "empty", "clock ok", "verified"}}})
	p.publish(p.change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	p.publish(p.change(v2))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	look("running", map[string]want{
		"status":               {diag.OK, []string{"v2 " + v2.Digest.Hex()[:6], "v1 " + v1.Digest.Hex()[:6], "committed", "no requests yet", "entries verified"}},
		"status --output json": {diag.OK, []string{`"agentState": "running"`, `"schema": "waybill.dev/edge-status/v1"`, fmt.Sprintf(`"pid": %d`, d.cmd.Process.Pid), string(v2.Digest)}},
		"history":              {diag.OK, []string{"committed", "record", v1.Digest.Short() + " -> " + v2.Digest.Short()}},
		"verify-journal":       {diag.OK, []string{"chain whole", "sha256:"}},
		"rollback --to beef":   {diag.NotFound, []string{"begins with beef"}},
		"rollback --to xyz":    {diag.Usage, []string{"nor the beginning of one"}},
	})
	{
		if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		cfg, err := loadConfig(d.cfg)
		if err != nil {
			t.Fatal(err)
		}
		var s agent.Status
		if err := askWithin(t.Context(), cfg, 200*time.Millisecond, http.MethodGet, "/status", &s); !errors.Is(err, errSilent) {
			t.Errorf("a stopped agent: %v", err)
		}
		if goruntime.GOOS == "linux" {
			if pid, known := state.Holder(dir); known && pid != d.cmd.Process.Pid {
				t.Errorf("the state is held by %d, not by %d", pid, d.cmd.Process.Pid)
			}
		}
		if err := d.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.do("rollback", "--to", v1.Digest.Hex()[:8]); err != nil || strings.TrimSpace(got) != string(v1.Digest) {
		t.Errorf("rollback to the beginning of a digest: %q, %v", got, err)
	}
	look("rolled back", map[string]want{"status": {diag.OK, []string{"rolled back here", "last rollback: prod v2", "-> v1"}}})
	if err := d.stop(); err != nil {
		t.Errorf("stop: %v\n%s", err, d.log)
	}
	if n := checkLog(t, d.log.Bytes()); n < 8 {
		t.Errorf("%d lines of log", n)
	}
	down := []string{"agent down", "entries verified", "hint: waybill-edge run"}
	look("down", map[string]want{"status": {diag.OK, down}, "history": {diag.OK, []string{"rolled-back"}}, "verify-journal": {diag.OK, nil}, "poll": {diag.Failure, []string{"not running"}}})

	unlock, err := state.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if goruntime.GOOS == "linux" {
		if pid, known := state.Holder(dir); known && pid != os.Getpid() {
			t.Errorf("held by %d", pid)
		} else if known {
			look("locked", map[string]want{"status": {diag.OK, []string{fmt.Sprintf("process %d has the state directory", os.Getpid()), "hint: waybill-edge doctor"}}})
		}
	}
	if _, err := d.do("rollback"); err == nil || !strings.Contains(err.Error(), "another waybill-edge is using this state directory") {
		t.Errorf("rollback while another process has the state: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(dir, "journal.log")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(append(bytes.Clone(whole), "3f2a{\"half"...))
	look("half-written journal", map[string]want{"status": {diag.OK, []string{"entries verified"}}, "verify-journal": {diag.OK, []string{"being written when the power went"}}, "history": {diag.OK, nil}})
	put(bytes.Replace(whole, []byte(`"seq":1`), []byte(`"seq":2`), 1))
	look("altered journal", map[string]want{"status": {diag.OK, []string{"the journal is damaged"}}, "verify-journal": {diag.Verification, []string{"damaged", "hint: waybill-edge history"}}})
	put(whole)

	docs, err := filepath.Glob(filepath.Join(dir, "state.*"))
	if err != nil || len(docs) < 2 {
		t.Fatalf("%v, %v", docs, err)
	}
	newest := docs[len(docs)-1]
	if err := os.WriteFile(newest, []byte("zeros"), 0o600); err != nil {
		t.Fatal(err)
	}
	look("newest state document damaged", map[string]want{"status": {diag.OK, []string{"agent down"}}})
	for _, f := range docs {
		if err := os.WriteFile(f, []byte("zeros"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damaged := []string{"the state of this device is damaged", "hint: waybill-edge doctor"}
	look("all state documents damaged", map[string]want{"status": {diag.Failure, damaged}, "verify-journal": {diag.Failure, damaged}, "rollback --to beef": {diag.Failure, damaged}})
	if err := os.WriteFile(d.cfg, []byte(`{"statee": "x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	look("wrong configuration", map[string]want{"status": {diag.Usage, []string{`did you mean "state"`}}, "rollback": {diag.Usage, nil}})
}

// checkLog checks every line of an agent's log against the schema, and returns how many there are.
func checkLog(t *testing.T, raw []byte) (n int) {
	t.Helper()
	for l := range bytes.Lines(raw) {
		n++
		if err := ecslog.CheckLine(l); err != nil {
			t.Errorf("%v: %s", err, l)
		}
	}
	return n
}

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

// socketDir is a directory whose path is short enough for a socket.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// controlServer serves a fake agent on a socket; edit may change its guard.
func controlServer(t testing.TB, edit func(*door)) (cfg *config, a *fakeAgent) {
	t.Helper()
	dir := socketDir(t)
	cfg, a = &config{State: dir, Control: filepath.Join(dir, "s")}, &fakeAgent{}
	l, err := listenControl(cfg.Control)
	if err != nil {
		t.Fatal(err)
	}
	g := watchDoor(l, slog.New(slog.DiscardHandler))
	if edit != nil {
		edit(g)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveControl(ctx, g, controlHandler(a, a.Status)) }()
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
	if err := ask(t.Context(), cfg, http.MethodGet, "/status", &s); err != nil || s.Schema != agent.StatusSchema {
		t.Errorf("status: %+v, %v", s, err)
	}
	err := ask(t.Context(), cfg, http.MethodPost, "/rollback?channel=prod", &s)
	if diag.CodeOf(err) != diag.NotFound {
		t.Errorf("rollback: %v", err)
	}
	if err := ask(t.Context(), cfg, http.MethodPost, "/rollback?channel=prod&to=sha256:zz", &s); diag.CodeOf(err) != diag.Usage || a.rollbacks.Load() != 1 {
		t.Errorf("rollback to no digest: %v, %d rollbacks", err, a.rollbacks.Load())
	}
	// A command of a later version.
	if err := ask(t.Context(), cfg, http.MethodPost, "/new-order", &s); err == nil || !strings.Contains(err.Error(), "does not know POST /new-order") {
		t.Errorf("an order that this agent does not know: %v", err)
	}
	if err := ask(t.Context(), cfg, http.MethodGet, "/poll", &s); err == nil || a.polls.Load() != 0 {
		t.Errorf("an order by GET: %v", err)
	}
}

// Only this user and root get through, whatever the file's mode says.
func TestControlGuard(t *testing.T) {
	stranger := func(net.Conn) (int, int, bool) { return 12345, 1, true }
	cfg, a := controlServer(t, func(g *door) { g.peer = stranger })
	var s agent.Status
	if err := askWithin(t.Context(), cfg, time.Minute, http.MethodPost, "/poll", &s); err == nil || a.polls.Load() != 0 {
		t.Errorf("a stranger's order: %v, %d polls", err, a.polls.Load())
	}
	// Without the check the order is carried out.
	cfg, a = controlServer(t, func(g *door) { g.peer, g.allowed = stranger, append(g.allowed, 12345) })
	if err := ask(t.Context(), cfg, http.MethodPost, "/poll", &s); err != nil || a.polls.Load() != 1 {
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
		err := ask(t.Context(), cfg, http.MethodGet, "/status", &s)
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
		"silent":   {"", errSilent.Error()},
		"no HTTP":  {"220 smtp ready\r\n", "malformed HTTP"},
		"no JSON":  {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "invalid character"},
		"an error": {"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nWaybill-Version: 99.0\r\n\r\n", "500 Oops"},
		"closes":   {"close", "ask the agent"}, // EOF, or a reset
	} {
		t.Run(name, func(t *testing.T) {
			dir := socketDir(t)
			cfg := &config{State: dir, Control: filepath.Join(dir, "s")}
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
			err = askWithin(t.Context(), cfg, wait, http.MethodGet, "/status", &s)
			if err == nil || errors.Is(err, errDown) || !strings.Contains(err.Error(), c.want) {
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
		if err := ask(t.Context(), cfg, http.MethodGet, "/status", &s); err != nil {
			t.Errorf("after %q: %v", raw, err)
		}
	})
}

// The JSON of status keeps every name that a former version had.
func TestStatusIsAdditive(t *testing.T) {
	raw, err := json.Marshal(twoChannels())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"schema", "device", "agentRunning", "version", "at", "trustVersion", "clockOk", "journal", "freeBytes", "channels", "channel", "model", "seq", "expires", "stale", "state", "current", "candidate", "previous", "kept", "health", "lastRollback", "quarantine", "pinned"} {
		if !bytes.Contains(raw, []byte(`"`+k+`":`)) {
			t.Errorf("%s is missing", k)
		}
	}
}
