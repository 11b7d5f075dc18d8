package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/once"
)

// TestDemo builds the runtime once and runs the tests of the demo with it.
func TestDemo(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("the demo takes half a minute")
	}
	edge := filepath.Join(t.TempDir(), "waybill-edge")
	if runtime.GOOS == "windows" {
		edge += ".exe"
	}
	if b, err := exec.Command("go", "build", "-o", edge, "../../cmd/waybill-edge").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, b)
	}
	t.Run("Story", func(t *testing.T) { testDemoStory(t, edge) })
	t.Run("Interrupted", func(t *testing.T) { testDemoInterrupted(t, edge) })
	t.Run("Fails", func(t *testing.T) { testDemoFails(t, edge) })
	t.Run("KeepsNothingOfYours", func(t *testing.T) { testDemoKeepsNothingOfYours(t, edge) })
}

// demoEnv is an environment whose temporary files and home are the test's own. The streams may be read while it runs.
func demoEnv(t *testing.T, edge string) (*Env, *locked, *locked, string) {
	t.Helper()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp)
	t.Setenv("TEMP", tmp)
	t.Setenv("GOTMPDIR", "")
	out, errb := &locked{}, &locked{}
	e := &Env{
		Stdin: strings.NewReader(""), Stdout: out, Stderr: errb,
		Getenv: func(k string) string {
			if k == "WAYBILL_EDGE" {
				return edge
			}
			return ""
		},
		Dir: t.TempDir(), Home: t.TempDir(), Now: time.Now,
	}
	return e, out, errb, tmp
}

// locked is a buffer that a test reads while the program writes.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// left lists what the demo left behind: files in tmp, and processes that name it.
func left(t *testing.T, tmp string) {
	t.Helper()
	es, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		t.Errorf("left behind: %s", e.Name())
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cwd") // elsewhere there is none, and the files have to do
	for _, p := range procs {
		if cwd, err := os.Readlink(p); err == nil && strings.HasPrefix(cwd, tmp) {
			t.Errorf("process left behind in %s", cwd)
		}
	}
}

// The whole story, as JSON: ten steps, each as described, nothing left behind.
func testDemoStory(t *testing.T, edge string) {
	e, out, errb, tmp := demoEnv(t, edge)
	if code := Run(t.Context(), e, []string{"demo", "--output", "json"}); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, errb, out)
	}
	var v demoJSON
	if err := json.Unmarshal([]byte(out.String()), &v); err != nil {
		t.Fatal(err)
	}
	if !v.OK || len(v.Steps) != 10 {
		t.Errorf("%+v", v.Result)
	}
	for _, s := range v.Steps {
		if !s.OK || s.Detail == "" || s.Name == "" {
			t.Errorf("step %+v", s)
		}
	}
	seen := map[string]bool{}
	for _, n := range []string{"v1", "v2", "v3", "denied", "policy", "trust"} {
		d := v.Digests[n]
		if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(d) || seen[d] {
			t.Errorf("digest of %s: %q", n, d)
		}
		seen[d] = true
	}
	left(t, tmp)
}

// Interrupted once the device runs, the demo ends its processes, removes its files and says so by its exit code.
func testDemoInterrupted(t *testing.T, edge string) {
	e, _, errb, tmp := demoEnv(t, edge)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan int, 1)
	go func() { done <- Run(ctx, e, []string{"demo"}) }()
	deadline := time.After(5 * time.Minute)
	for !strings.Contains(errb.String(), "$ waybill-edge run") {
		select {
		case code := <-done:
			t.Fatalf("ended by itself with %d: %s", code, errb)
		case <-deadline:
			t.Fatalf("the device was never started: %s", errb)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if code := <-done; code != int(diag.Interrupted) {
		t.Errorf("exit code %d, want 130: %s", code, errb)
	}
	left(t, tmp)
}

// A step that does not happen as described makes the exit code 1, and the JSON names it.
func testDemoFails(t *testing.T, edge string) {
	e, out, errb, tmp := demoEnv(t, edge)
	get := e.Getenv
	e.Getenv = func(k string) string {
		if k == "WAYBILL_EDGE" {
			return filepath.Join(e.Dir, "no-such-runtime")
		}
		return get(k)
	}
	if code := Run(t.Context(), e, []string{"demo", "--output", "json"}); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	var v demoJSON
	if err := json.Unmarshal([]byte(out.String()), &v); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if v.OK || len(v.Steps) != 1 || v.Steps[0].OK || !strings.Contains(errb.String(), "step 0 (runtime)") {
		t.Errorf("%+v\n%s", v.Result, errb)
	}
	left(t, tmp)
}

// A kept work area must be new or empty; nothing of the user's is touched.
func testDemoKeepsNothingOfYours(t *testing.T, edge string) {
	e, _, errb, _ := demoEnv(t, edge)
	mine := filepath.Join(e.Dir, "tour", "mine.txt")
	if err := os.MkdirAll(filepath.Dir(mine), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := Run(t.Context(), e, []string{"demo", "--keep", "tour"}); code == 0 || !strings.Contains(errb.String(), "is not empty") {
		t.Errorf("exit code %d: %s", code, errb)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}
