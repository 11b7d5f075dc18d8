package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// maxSocketPath is what the shortest of the platforms allows for the path of a unix socket, with its final NUL.
const maxSocketPath = 103

// controlPath is where the agent listens for its own commands: in the state directory, or, when that path is too long for a
// socket, in a directory for it alone below the system's folder for temporary files.
func controlPath(stateDir string) (string, error) {
	p := filepath.Join(stateDir, "control.sock")
	if len(p) <= maxSocketPath {
		return p, nil
	}
	h := sha256.Sum256([]byte(stateDir))
	p = filepath.Join(os.TempDir(), "waybill-"+hex.EncodeToString(h[:8]), "s")
	if len(p) > maxSocketPath {
		return "", diag.New(diag.Usage, "the path of the control socket is longer than %d bytes: %s", maxSocketPath, p).Hint("set \"control\" in the configuration to a shorter path")
	}
	return p, nil
}

// listenControl opens the socket. The state directory is locked by this process, so a socket that is there is a leftover.
func listenControl(path string) (net.Listener, error) {
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

// serveControl answers the commands of this device until ctx ends. Only the user of the socket's directory gets here.
func serveControl(ctx context.Context, l net.Listener, a *agent.Agent) error {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, v any, err error) {
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			v = answer{Error: err.Error(), Code: codeOf(err), Hints: hintsOf(err)}
		}
		_ = json.NewEncoder(w).Encode(v) // the client is gone then
	}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.Status(), nil) })
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err != nil {
			n = 0
		}
		es, err := a.History(n)
		reply(w, es, err)
	})
	mux.HandleFunc("POST /poll", func(w http.ResponseWriter, r *http.Request) {
		err := a.Poll(r.Context())
		reply(w, a.Status(), err)
	})
	mux.HandleFunc("POST /rollback", func(w http.ResponseWriter, r *http.Request) {
		res, err := a.Rollback(context.WithoutCancel(r.Context()), r.FormValue("channel"), artifact.Digest(r.FormValue("to")))
		reply(w, res, err)
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
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

// codeOf gives errors of the agent their exit codes.
func codeOf(err error) diag.Code {
	switch {
	case errors.Is(err, agent.ErrNoChannel), errors.Is(err, agent.ErrNoTarget):
		return diag.NotFound
	case agent.IsRolledBack(err):
		return diag.RolledBack
	case agent.IsRefused(err):
		return diag.Verification
	}
	return diag.CodeOf(err)
}

func hintsOf(err error) []string {
	var e *diag.Error
	if errors.As(err, &e) {
		return e.Hints
	}
	return nil
}

// errDown says that no agent listens on the socket.
var errDown = errors.New("the agent is not running")

// ask sends a command to the running agent.
func ask(ctx context.Context, socket, method, target string, into any) error {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://waybill-edge"+target, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil && method == http.MethodGet && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)) {
		resp, err = c.Do(req) // the agent ended while it was asked: a second try finds its successor, or nobody
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || os.PathSeparator == '\\') {
		return errDown
	}
	if err != nil {
		return diag.Wrap(diag.Failure, err, "ask the agent")
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return diag.Wrap(diag.Failure, err, "ask the agent")
	}
	if resp.StatusCode != http.StatusOK {
		var a answer
		if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&a); err != nil || a.Error == "" {
			return diag.New(diag.Failure, "ask the agent: it answered %s", resp.Status)
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
