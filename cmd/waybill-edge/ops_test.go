//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/ecslog"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/internal/ui"
)

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
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(300 * time.Millisecond), MinRequests: 1000})
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
				if ui.Width(strings.TrimSuffix(l, "\n")) > ui.MostColumns && !strings.Contains(cmd, "json") {
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
	p.Publish(p.Change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	p.Publish(p.Change(v2))
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
		cfg, err := config.Load(d.cfg)
		if err != nil {
			t.Fatal(err)
		}
		var s agent.Status
		stopped := func() error {
			return control.AskWithin(t.Context(), cfg, 200*time.Millisecond, http.MethodGet, "/status", &s)
		}
		err = stopped()
		for began := time.Now(); err == nil && time.Since(began) < time.Minute; err = stopped() {
			time.Sleep(time.Millisecond) // the signal stops the process a little after it was sent
		}
		if !errors.Is(err, control.ErrSilent) {
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
	look("all state documents damaged", map[string]want{"status": {diag.Failure, damaged}, "verify-journal": {diag.Failure, damaged}, "rollback --to beef": {diag.Failure, damaged}, "rollback": {diag.Failure, damaged}})
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
