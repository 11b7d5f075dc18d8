// Package control is the local socket over which a device's own commands reach the running agent: the server in the agent, the
// client in the commands, and who may ask.
package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/owner"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Listen opens the socket. The state directory is locked by this process, so a socket that is there is a leftover.
func Listen(path string) (net.Listener, error) {
	fail := func(err error) error { return diag.Wrap(diag.Failure, err, "listen on the control socket") }
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fail(err)
	}
	// Whoever may write there may put a socket of his own in place of ours.
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() || os.PathSeparator == '/' && info.Mode().Perm()&0o022 != 0 {
		return nil, fail(errors.Join(err, fmt.Errorf("%s is not a directory of this user alone", dir)))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fail(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fail(err)
	}
	if err := os.Chmod(path, 0o600); err != nil && os.PathSeparator == '/' {
		_ = l.Close()
		return nil, fail(err)
	}
	return l, nil
}

// answer is an error on the control socket, with the exit code that the command is to have.
type answer struct {
	Error string    `json:"error"`
	Code  diag.Code `json:"code"`
	Hints []string  `json:"hints,omitempty"`
}

// versionHeader carries the version of command and agent, which need not be the same one.
const versionHeader = "Waybill-Version"

// maxOrder bounds the header of what a command sends.
const maxOrder = 16 << 10

// controlled is what the commands of a device ask of the agent.
type controlled interface {
	Status() agent.Status
	History(n int) ([]journal.Entry, error)
	Poll(ctx context.Context) error
	PollNow(ctx context.Context) error
	Rollback(ctx context.Context, channel string, to artifact.Digest) (agent.RollbackResult, error)
}

// Handler answers the commands of this device. status completes what the agent tells of itself.
func Handler(a controlled, status func() agent.Status) http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, v any, err error) {
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			v = answer{Error: err.Error(), Code: CodeOf(err), Hints: HintsOf(err)}
		}
		_ = json.NewEncoder(w).Encode(v) // the client is gone then
	}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, status(), nil) })
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil {
			n = 0
		}
		es, err := a.History(n)
		reply(w, es, err)
	})
	mux.HandleFunc("POST /poll", func(w http.ResponseWriter, r *http.Request) {
		look := a.Poll
		if r.URL.Query().Get("now") == "1" {
			look = a.PollNow
		}
		err := look(r.Context())
		reply(w, status(), err)
	})
	mux.HandleFunc("POST /rollback", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		to := artifact.Digest(q.Get("to"))
		if to != "" {
			if _, err := artifact.ParseDigest(string(to)); err != nil {
				reply(w, nil, diag.Wrap(diag.Usage, err, "to"))
				return
			}
		}
		res, err := a.Rollback(context.WithoutCancel(r.Context()), q.Get("channel"), to)
		reply(w, res, err)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(answer{
			Error: fmt.Sprintf("the running agent is version %s and does not know %s %s; the command is version %s", version.Number, r.Method, r.URL.Path, cmp.Or(r.Header.Get(versionHeader), "unknown")),
			Code:  diag.Failure, Hints: []string{"restart the agent after an upgrade: systemctl restart waybill-edge"},
		})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(versionHeader, version.Number)
		if r.ContentLength != 0 { // orders are in the address; a body that trickles in would keep the connection
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// Serve answers on l until ctx ends. The guard of l lets only this user and root in.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second, MaxHeaderBytes: maxOrder,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: log.New(io.Discard, "", 0),
	}
	stopped := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.Shutdown(end) != nil {
			_ = s.Close()
		}
	})
	defer stopped()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// CodeOf gives errors of the agent their exit codes.
func CodeOf(err error) diag.Code {
	switch {
	case errors.Is(err, agent.ErrNoChannel), errors.Is(err, agent.ErrNoTarget):
		return diag.NotFound
	case agent.IsRolledBack(err):
		return diag.RolledBack
	case agent.IsRefused(err):
		return diag.Verification
	}
	code := diag.CodeOf(err)
	if call := (*url.Error)(nil); code == diag.Failure && errors.As(err, &call) {
		return diag.Registry // a mirror is reached, or not, as a registry is
	}
	return code
}

func HintsOf(err error) []string {
	var e *diag.Error
	if errors.As(err, &e) {
		return e.Hints
	}
	return nil
}

// errDown says that no agent listens on the socket; errSilent that one does and does not answer.
var (
	ErrDown   = errors.New("the agent is not running")
	ErrSilent = errors.New("the agent does not answer")
)

// Patience is how long a command that only looks waits for the agent.
const Patience = 10 * time.Second

// maxAnswer bounds what an agent may answer.
const maxAnswer = 64 << 20

// Ask sends a command to the running agent. A GET that is not answered in time gives errSilent.
func Ask(ctx context.Context, cfg *config.Config, method, target string, into any) error {
	return AskWithin(ctx, cfg, Patience, method, target, into)
}

func AskWithin(ctx context.Context, cfg *config.Config, wait time.Duration, method, target string, into any) error {
	outer := ctx
	if method == http.MethodGet {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", cfg.Control)
		if err != nil {
			return nil, err
		}
		if err := sameAgent(conn, cfg.State); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://waybill-edge"+target, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set(versionHeader, version.Number)
	resp, err := c.Do(req)
	if err != nil && method == http.MethodGet && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)) {
		resp, err = c.Do(req) // the agent ended while it was asked: a second try finds its successor, or nobody
	}
	if err != nil {
		return askFailed(outer, cfg, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return askFailed(outer, cfg, err)
	}
	if resp.StatusCode != http.StatusOK {
		var a answer
		if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&a); err != nil || a.Error == "" {
			e := diag.New(diag.Failure, "ask the agent: it answered %s", resp.Status)
			if v := resp.Header.Get(versionHeader); v != version.Number {
				e.Line("the agent is version %s, this command %s", cmp.Or(v, "unknown"), version.Number)
				e.Hint("systemctl restart waybill-edge")
			}
			return e
		}
		e := diag.New(a.Code, "%s", a.Error)
		e.Hints = a.Hints
		return e
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return diag.Wrap(diag.Failure, err, "ask the agent")
	}
	return nil
}

// askFailed tells why the agent could not be asked.
func askFailed(ctx context.Context, cfg *config.Config, err error) error {
	if ctx.Err() != nil {
		return diag.Wrap(diag.Interrupted, context.Cause(ctx), "ask the agent")
	}
	var op *net.OpError
	dial := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.Is(err, errStranger):
		return diag.Wrap(diag.Failure, errStranger, "ask the agent at %s", cfg.Control).Hint("waybill-edge doctor")
	case dial && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || os.PathSeparator == '\\'):
		return ErrDown
	case errors.Is(err, fs.ErrPermission):
		return NotOurs(err, "ask the agent", cfg.Control)
	case errors.Is(err, context.DeadlineExceeded):
		return ErrSilent
	}
	return diag.Wrap(diag.Failure, err, "ask the agent").Hint("waybill-edge doctor")
}

// NotOurs is the error for what belongs to another user, who can be asked.
func NotOurs(err error, what, path string) error {
	e := diag.Wrap(diag.Failure, err, "%s", what)
	if who := owner.Name(path); who != "" {
		e.Line("the device belongs to user %s", who)
		e.Hint("sudo -u %s waybill-edge ...", who)
	}
	return e
}
