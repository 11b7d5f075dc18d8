package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// sweepCalls are the system calls at which the sweep interferes.
var sweepCalls = []string{"openat", "write", "fsync", "renameat", "unlinkat", "fchmodat", "read", "close", "ftruncate", "mkdirat", "newfstatat", "getdents64", "mmap", "flock"}

// sweepErrors are what those calls may report on a bad or full disk.
var sweepErrors = map[string][]string{
	"openat": {"EIO", "ENOSPC", "EROFS"}, "write": {"EIO", "ENOSPC"}, "fsync": {"EIO", "ENOSPC"}, "renameat": {"EIO", "ENOSPC"}, "unlinkat": {"EIO"},
	"fchmodat": {"EIO"}, "read": {"EIO"}, "close": {"EIO"}, "ftruncate": {"EIO", "ENOSPC"}, "mkdirat": {"EIO", "ENOSPC"}, "newfstatat": {"EIO"}, "getdents64": {"EIO"},
}

// injection is one interference: the nth call, counted per thread, kills the process or fails.
type injection struct {
	call, what string
	when       int
}

func (i injection) String() string { return fmt.Sprintf("%s:%s:when=%d", i.call, i.what, i.when) }

// under starts the agent below strace with the given options. started is false when it ended before it listened.
func (d *edge) under(options ...string) (started bool) {
	d.t.Helper()
	// With -D the process started here is the agent, and strace its grandchild.
	args := append([]string{"-D", "-f", "--seccomp-bpf", "-qqq"}, options...)
	args = append(args, edgeBinary(d.t), "run", "--config", d.cfg)
	d.cmd = exec.Command("strace", args...)
	d.cmd.Env = append(os.Environ(), "WAYBILL_EDGE_TEST_MAIN=1")
	d.log = &bytes.Buffer{}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	d.addr = strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	d.exit = make(chan error, 1)
	go func() { d.exit <- d.cmd.Wait() }()
	return err == nil
}

// act is what the agent does while it is interfered with: an update, then a rollback by hand, then the update's successor. It
// returns what it acknowledged last, "" if nothing, and what may serve besides.
func (d *edge) act(v1, v2 artifact.Digest, bad func(string, ...any)) (acked artifact.Digest, may []artifact.Digest) {
	ok := func() {
		if got, err := d.infer(); err == nil && got != v1 && got != v2 {
			bad("%s answers", got)
		}
	}
	if _, err := d.do("poll"); err == nil {
		acked = v2
	}
	ok()
	may = []artifact.Digest{v1, v2} // a rollback that failed may have happened
	if _, err := d.do("rollback"); err == nil {
		acked, may = v1, []artifact.Digest{v1}
	}
	ok()
	return acked, may
}

var straceCall = regexp.MustCompile(`^(\d+) +(\w+)\(`)

// TestKillSweep kills the process, and lets a call fail, at every system call of an update and a rollback in turn, as far as
// WAYBILL_KILL_RUNS goes, and looks at what serves after a restart.
func TestKillSweep(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") == "1" {
			t.Fatal("strace is required")
		}
		t.Skip("needs strace")
	}
	runs := 4
	if v := os.Getenv("WAYBILL_KILL_RUNS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("WAYBILL_KILL_RUNS=%q", v)
		}
		runs = n
	}
	if testing.Short() {
		runs = min(runs, 2)
	}
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	base := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond)})
	base.start()
	p.Publish(p.Change(v1))
	if _, err := base.do("poll"); err != nil {
		t.Fatal(err)
	}
	if err := base.stop(); err != nil {
		t.Fatal(err)
	}
	p.Publish(p.Change(v2))
	fresh := func() *edge {
		t.Helper()
		d := &edge{t: t, dir: t.TempDir()}
		dst := filepath.Join(d.dir, "edge")
		if err := os.CopyFS(dst, os.DirFS(filepath.Dir(base.cfg))); err != nil {
			t.Fatal(err)
		}
		for _, private := range []string{"", "state", "device.key"} {
			mode := os.FileMode(0o700)
			if private == "device.key" {
				mode = 0o600
			}
			if err := os.Chmod(filepath.Join(dst, private), mode); err != nil {
				t.Fatal(err)
			}
		}
		d.cfg = filepath.Join(dst, "config.json")
		return d
	}

	// A run without faults tells how many calls there are of each kind, per thread.
	calls := map[string]int{}
	d := fresh()
	out := filepath.Join(t.TempDir(), "calls")
	if !d.under("-o", out, "-e", "trace="+strings.Join(sweepCalls, ",")) {
		<-d.exit
		t.Skip("strace can't trace here")
	}
	if acked, _ := d.act(v1.Digest, v2.Digest, t.Errorf); acked != v1.Digest {
		t.Fatalf("without faults: acknowledged %q", acked)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	threads := map[string]int{}
	for line := range strings.Lines(string(raw)) {
		if m := straceCall.FindStringSubmatch(line); m != nil {
			key := m[1] + " " + m[2]
			threads[key]++
			calls[m[2]] = max(calls[m[2]], threads[key])
		}
	}
	var all []injection
	for _, call := range sweepCalls {
		for n := 1; n <= calls[call]; n++ {
			all = append(all, injection{call, "signal=KILL", n})
			for _, e := range sweepErrors[call] {
				all = append(all, injection{call, "error=" + e, n})
			}
		}
	}
	if len(all) < 50 {
		t.Fatalf("only %d places to interfere at: %v", len(all), calls)
	}
	violations := 0
	fired := map[string]int{}
	var restarts []time.Duration
	for i := range runs {
		in := all[(i*7919)%len(all)]
		bad := func(format string, args ...any) {
			violations++
			t.Errorf("%s: %s", in, fmt.Sprintf(format, args...))
		}
		d := fresh()
		started := d.under("-o", "/dev/null", "-e", "trace="+in.call, "-e", "inject="+in.call+":"+in.what+":when="+strconv.Itoa(in.when))
		acked, may := artifact.Digest(""), []artifact.Digest{v1.Digest, v2.Digest}
		if started {
			acked, may = d.act(v1.Digest, v2.Digest, bad)
		}
		d.kill()
		fired[in.call+" "+in.what]++
		began := time.Now()
		d.start()
		got, err := d.infer()
		restarts = append(restarts, time.Since(began))
		if err != nil || !slices.Contains(may, got) {
			bad("after a restart %s answers, %v; acknowledged %s\n%s", got, err, acked, d.log)
		}
		if out, err := d.do("verify-journal"); err != nil {
			bad("the journal: %v %s", err, out)
		}
		s := d.status()
		if s.Current == nil || s.Current.Digest != got || s.Candidate != nil {
			bad("status %s, %+v, candidate %+v", s.State, s.Current, s.Candidate)
		}
		if s.Previous != nil {
			want := s.Previous.Digest
			if _, err := d.do("rollback"); err != nil {
				bad("rollback after it: %v", err)
			} else if got, err := d.infer(); err != nil || got != want {
				bad("after a rollback to %s answers %s, %v", want, got, err)
			}
		} else if _, err := d.do("poll"); err != nil {
			bad("poll after it: %v", err)
		}
		if err := d.stop(); err != nil {
			bad("stop: %v", err)
		}
		_ = os.RemoveAll(d.dir)
	}
	slices.Sort(restarts)
	t.Logf("%d places in %v; kinds %v", len(all), calls, fired)
	t.Logf("restart to the first answer: p50 %s, p99 %s", restarts[len(restarts)/2].Round(time.Millisecond), restarts[len(restarts)*99/100].Round(time.Millisecond))
	fmt.Printf("kill sweep: %d runs, %d violations\n", runs, violations)
}
