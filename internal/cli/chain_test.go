package cli_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/internal/once"
)

// TestChain takes models with steps around them through the whole product, a real device included: testdata/chain.
func TestChain(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("builds waybill-edge and takes half a minute")
	}
	abs := func(p string) string {
		a, err := filepath.Abs(p)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+string(filepath.Separator), "../../cmd/waybill-edge")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmds := scriptCommands()
	cmds["device"] = serveAndAsk
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/chain",
		RequireExplicitExec: true,
		Cmds:                cmds,
		Setup: func(e *testscript.Env) error {
			e.Setenv("WAYBILL_HOME", filepath.Join(e.WorkDir, ".waybill"))
			e.Setenv("CHAIN", abs("testdata/chain"))
			e.Setenv("EXAMPLES", abs("../../examples"))
			e.Setenv("DEVICES", cmp.Or(os.Getenv("WAYBILL_ENROL_DEVICES"), "20"))
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
	})
}

// serveAndAsk is the script's word
//
//	device CONFIG MODEL FILE WANT    run waybill-edge, wait until MODEL is active, send it FILE, demand the outputs in WANT
func serveAndAsk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: device CONFIG MODEL FILE WANT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	ts.Defer(cancel) // at the script's end, not here: the device runs under it
	exe, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "waybill-edge"))
	ts.Check(err)
	cmd := exec.CommandContext(ctx, exe, "run", "--config", ts.MkAbs(args[0]))
	var log bytes.Buffer
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	ts.Check(err)
	url := strings.TrimSpace(strings.TrimPrefix(line, "listening on ")) + "/v2/models/" + args[1]
	for {
		r, err := http.Get(url + "/ready")
		if err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				break
			}
		}
		if ctx.Err() != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			ts.Fatalf("the device does not serve %s\n%s", args[1], log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
	var data []int
	for _, b := range []byte(ts.ReadFile(args[2])) {
		data = append(data, int(b))
	}
	body, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": "file", "datatype": "UINT8", "shape": []int{len(data)}, "data": data}}})
	ts.Check(err)
	r, err := http.Post(url+"/infer", "application/json", bytes.NewReader(body))
	ts.Check(err)
	defer r.Body.Close()
	raw, err := io.ReadAll(r.Body)
	ts.Check(err)
	type answer struct {
		Outputs []struct {
			Name, Datatype string
			Shape          []int64
			Data           json.RawMessage
		}
	}
	// Both documents through the same type, so that blanks do not matter.
	read := func(b []byte) string {
		var a answer
		if err := json.Unmarshal(b, &a); err != nil || len(a.Outputs) == 0 {
			ts.Fatalf("%v: %s", err, b)
		}
		for i := range a.Outputs {
			var c bytes.Buffer
			ts.Check(json.Compact(&c, a.Outputs[i].Data))
			a.Outputs[i].Data = c.Bytes()
		}
		out, err := json.Marshal(a)
		ts.Check(err)
		return string(out)
	}
	if got, want := read(raw), read([]byte(ts.ReadFile(args[3]))); r.StatusCode != http.StatusOK || got != want {
		ts.Fatalf("%s\nthe device says %s\npredict says    %s", r.Status, got, want)
	}
	// The status is written when the trial ends.
	for {
		out, err := exec.CommandContext(ctx, exe, "status", "--config", ts.MkAbs(args[0])).Output()
		if err == nil && bytes.Contains(out, []byte("committed")) {
			return
		}
		if ctx.Err() != nil {
			ts.Fatalf("the device does not commit: %s", out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
