package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// stripped builds the program as it is released, once.
var stripped = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "waybill-edge")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "waybill-edge")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(err, errors.New(string(b)))
	}
	return out, nil
})

// releasedAgent is the released program with a committed model.
type releasedAgent struct {
	*edge
	body []byte // of a request
}

func (s *releasedAgent) ask(addr string) error {
	res, err := http.Post(addr+"/v2/models/"+edgetest.Model+"/infer", "application/json", strings.NewReader(string(s.body)))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return err
}

// run starts the program, asks once, and hands over its process id; the time is from before the start to the answer.
func (s *releasedAgent) run(exe string, then func(pid int, addr string)) (time.Duration, error) {
	start := time.Now()
	cmd := exec.Command(exe, "run", "--config", s.cfg)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt) // killed this early again and again, it would count as a start that fails
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return 0, err
	}
	addr := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	if err := s.ask(addr); err != nil {
		return 0, err
	}
	took := time.Since(start)
	if then != nil {
		then(cmd.Process.Pid, addr)
	}
	return took, nil
}

// committed gives a device whose committed model is example; the embedded registry is gone.
func committed(t *testing.T, example, input string) *releasedAgent {
	t.Helper()
	p := edgetest.NewPublisher(t)
	v := p.Pack(example)
	d := enrolled(t, p, config.Trial{Duration: config.Duration(1), MinRequests: 5, MaxErrorRate: 0.01})
	d.start()
	p.Publish(p.Change(v))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	nums := strings.TrimSuffix(strings.Repeat("1,", 30), ",")
	return &releasedAgent{d, []byte(`{"inputs":[{"name":"` + input + `","shape":[1,30],"datatype":"FP32","data":[` + nums + `]}]}`)}
}

// vmRSS reads the resident memory of a process in kB.
func vmRSS(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("no VmRSS")
}

// TestColdStart prints how long it takes from the start of the program to its first answer, and what it then holds of memory.
// It is a measurement: WAYBILL_COLD_STARTS says of how many starts.
func TestColdStart(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("WAYBILL_COLD_STARTS"))
	if n < 1 || goruntime.GOOS != "linux" {
		t.Skip("a measurement: set WAYBILL_COLD_STARTS to a number, on Linux")
	}
	exe, err := stripped()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct{ example, input string }{{"v1", "X"}, {"weighted-150000-1", "x"}} {
		t.Run(m.example, func(t *testing.T) {
			s := committed(t, m.example, m.input)
			best := time.Hour
			var all []string
			low := 1 << 30
			for range n {
				took, err := s.run(exe, func(pid int, addr string) {
					for range 50 {
						_ = s.ask(addr)
					}
					if kb, err := vmRSS(pid); err == nil {
						low = min(low, kb)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				best = min(best, took)
				all = append(all, took.Round(100*time.Microsecond).String())
			}
			t.Logf("best %s of %s; resident %d kB", best, strings.Join(all, " "), low)
		})
	}
}
