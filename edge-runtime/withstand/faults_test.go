package withstand

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// harness is the package whose tests hold it.
const harness = "github.com/waybill-ml/waybill/edge-runtime/agent"

// found is the last line of the test run.
var found string

// TestMain prints it.
func TestMain(m *testing.M) {
	code := m.Run()
	if found != "" {
		fmt.Println(found)
	}
	os.Exit(code)
}

var line = regexp.MustCompile(`^faults: \d+ runs, \d+ violations$`)

// TestFaults builds the tests of the agent and runs the harness in a process of its own, with the environment of this one:
// WAYBILL_FAULT_RUNS is the number of runs, WAYBILL_FAULT_SEED another choice of them; docs/reliability.md has the others.
func TestFaults(t *testing.T) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") == "1" {
			t.Fatal("the go command is needed to build the harness")
		}
		t.Skip("the go command is needed to build the harness")
	}
	dependOn(t, gotool)
	bin := filepath.Join(t.TempDir(), "agent.test.exe")
	build := exec.CommandContext(t.Context(), gotool, "test", "-c", "-o", bin, harness)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the harness: %v\n%s", err, out)
	}
	args := []string{"-test.run", "^TestHarness$"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout", time.Until(end).String())
	}
	run := exec.CommandContext(t.Context(), bin, args...)
	run.Dir = t.TempDir()
	runs := "300"
	if testing.Short() {
		runs = "100"
	}
	run.Env = append(os.Environ(), "WAYBILL_FAULT_HARNESS=1", "WAYBILL_FAULT_RUNS="+cmp.Or(os.Getenv("WAYBILL_FAULT_RUNS"), runs))
	run.Stderr = os.Stderr
	out, err := run.StdoutPipe()
	if err == nil {
		err = run.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	for err == nil {
		var s string
		if s, err = in.ReadString('\n'); line.MatchString(strings.TrimSpace(s)) {
			found = strings.TrimSpace(s)
		} else if s = strings.TrimRight(s, "\n"); testing.Verbose() || s != "PASS" {
			fmt.Println(s)
		}
	}
	if err != io.EOF {
		t.Error(err)
	}
	if err := run.Wait(); err != nil || found == "" {
		t.Fatalf("the harness: %v, %q", err, found)
	}
}

// Of the packages below edge-runtime this one comes last.
func TestComesLast(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Dir(here), func(path string, e os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		if dir := filepath.Dir(path); dir > here {
			t.Errorf("%s comes after it: the last line of the test run is no longer that of the fault harness", dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
