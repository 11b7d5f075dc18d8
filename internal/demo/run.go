package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// output is what a command left.
type output struct {
	code           int
	stdout, stderr string
}

// last is the last line of stdout: the reference that the next command needs.
func (o output) last() string {
	l := strings.Split(strings.TrimSpace(o.stdout), "\n")
	return strings.TrimSpace(l[len(l)-1])
}

// json decodes stdout.
func (o output) json(v any) error {
	if err := json.Unmarshal([]byte(o.stdout), v); err != nil {
		return fmt.Errorf("%w in %.200q", err, o.stdout)
	}
	return nil
}

// quiet runs a command without showing it.
func (w *world) quiet(ctx context.Context, args ...string) output {
	var out, errb bytes.Buffer
	code := w.o.Waybill(ctx, w.dir, w.vars, args, &out, &errb)
	return output{code, out.String(), errb.String()}
}

// run shows a command, runs it, shows up to lines of what it says, and demands exit code 0.
func (w *world) run(ctx context.Context, lines int, args ...string) (output, error) {
	return w.expect(ctx, 0, nil, lines, args...)
}

// expect shows and runs a command that must end with code, and whose stderr must match the pattern.
func (w *world) expect(ctx context.Context, code int, pattern *regexp.Regexp, lines int, args ...string) (output, error) {
	w.printf("   %s\n", w.o.UI.Err.Cyan("$ waybill "+short(shell(args))))
	o := w.quiet(ctx, args...)
	if err := ctx.Err(); err != nil {
		return o, err
	}
	if o.code != code {
		return o, fmt.Errorf("waybill %s: exit code %d, want %d: %s", shell(args), o.code, code, firstLines(o.stderr, 4))
	}
	if pattern != nil && !pattern.MatchString(o.stderr+o.stdout) {
		return o, fmt.Errorf("waybill %s: it does not say %s: %s", shell(args), pattern, firstLines(o.stderr, 4))
	}
	if lines > 0 {
		w.tail(o.stderr, lines)
		w.tail(o.stdout, lines)
	}
	return o, nil
}

func firstLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[:min(n, len(l))], "; ")
}

var longDigest = regexp.MustCompile(`(sha256:[0-9a-f]{12})[0-9a-f]{52}`)

// short cuts digests for the eye; the full ones stand at the end of the story.
func short(s string) string { return longDigest.ReplaceAllString(s, "$1...") }

var plainWord = regexp.MustCompile(`^[A-Za-z0-9@%+=:,./_-]+$`)

// shell writes arguments as a shell would need them.
func shell(args []string) string {
	q := make([]string, len(args))
	for i, a := range args {
		if q[i] = a; !plainWord.MatchString(a) {
			q[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(q, " ")
}

// server is a command of waybill that runs until it is stopped.
type server struct {
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	out    bytes.Buffer
	code   int
}

// Write implements io.Writer for the command's output.
func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

func (s *server) stop() {
	s.cancel()
	<-s.done
}

// start shows and starts a server, and waits until its output matches the pattern, whose first group is returned.
func (w *world) start(ctx context.Context, pattern *regexp.Regexp, args ...string) (*server, string, error) {
	w.printf("   %s\n", w.o.UI.Err.Cyan("$ waybill "+short(shell(args))+" &"))
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &server{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.code = w.o.Waybill(sctx, w.dir, w.vars, args, s, s)
	}()
	for {
		if m := pattern.FindStringSubmatch(s.text()); m != nil {
			return s, m[1], nil
		}
		select {
		case <-s.done:
			cancel()
			return nil, "", fmt.Errorf("waybill %s: ended with exit code %d: %s", shell(args), s.code, firstLines(s.text(), 4))
		case <-ctx.Done():
			s.stop()
			return nil, "", ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// process is waybill-edge as a second process, with all its children in a group of their own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  string
}

// device shows and runs a command of waybill-edge that ends.
func (w *world) device(ctx context.Context, lines int, args ...string) (output, error) {
	w.printf("   %s\n", w.o.UI.Err.Cyan("$ waybill-edge "+short(shell(args))))
	o, err := w.deviceQuiet(ctx, args...)
	if err != nil {
		return o, err
	}
	if lines > 0 {
		w.tail(o.stderr, lines)
		w.tail(o.stdout, lines)
	}
	return o, nil
}

func (w *world) deviceQuiet(ctx context.Context, args ...string) (output, error) {
	cmd := exec.CommandContext(ctx, w.edgeBin, args...)
	var out, errb bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.environ(), &out, &errb
	group(cmd)
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	o := output{0, out.String(), errb.String()}
	var x *exec.ExitError
	if errors.As(err, &x) {
		o.code = x.ExitCode()
		return o, fmt.Errorf("waybill-edge %s: exit code %d: %s", shell(args), o.code, firstLines(o.stderr, 4))
	}
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	return o, err
}

func (w *world) environ() []string {
	env := os.Environ()
	for k, v := range w.vars {
		env = append(env, k+"="+v)
	}
	return env
}

// startDevice starts waybill-edge with its log in a file, and waits until ready accepts the log.
func (w *world) startDevice(ctx context.Context, ready func(log string) bool, args ...string) (*process, error) {
	w.printf("   %s\n", w.o.UI.Err.Cyan("$ waybill-edge "+shell(args)+" &"))
	p := &process{done: make(chan struct{}), log: w.path("device.log")}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the child has its own
	p.cmd = exec.Command(w.edgeBin, args...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = w.dir, w.environ(), f, f
	group(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start waybill-edge: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := w.wait(ctx, 30*time.Second, "the device to start", p, func() bool { return ready(p.lastLog(1000)) }); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// kill ends the process and its children, the polite way first.
func (p *process) kill() {
	_ = interruptGroup(p.cmd.Process)
	select {
	case <-p.done:
		return
	case <-time.After(3 * time.Second):
	}
	_ = killGroup(p.cmd.Process)
	<-p.done
}

func (p *process) lastLog(n int) string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	l := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(l[max(0, len(l)-n):], "\n")
}

// wait polls until ok, the device's end, or the limit.
func (w *world) wait(ctx context.Context, limit time.Duration, what string, p *process, ok func() bool) error {
	deadline := time.Now().Add(limit)
	for {
		if ok() {
			return nil
		}
		var died chan struct{}
		if p != nil {
			died = p.done
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-died:
			return fmt.Errorf("waiting for %s: waybill-edge ended (%v): %s", what, p.err, firstLines(p.lastLog(3), 3))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s for %s in vain", limit, what)
		}
	}
}

// copyTree copies files of the work area.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(dst, 0o700)
		}
		src, err := os.Open(p)
		if err != nil {
			return err
		}
		defer src.Close()
		f, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		if _, err = io.Copy(f, src); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	})
}
