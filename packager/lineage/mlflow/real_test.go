package mlflow

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/lineage"
)

// TestRealServer reads a registered version from MLflow's own server. WAYBILL_MLFLOW names a Python with mlflow and onnx; to install
// them takes a minute and the server half of one to start, so make nightly has it and CI does not.
func TestRealServer(t *testing.T) {
	python := os.Getenv("WAYBILL_MLFLOW")
	if python == "" {
		t.Skip("WAYBILL_MLFLOW does not name a Python with mlflow and onnx")
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil { // the server wants a number
		t.Fatal(err)
	}
	at := fmt.Sprintf("http://127.0.0.1:%d", port)
	env := append(os.Environ(), "MLFLOW_TRACKING_URI="+at, "HOME="+dir, "GIT_PYTHON_REFRESH=quiet")
	cmd := exec.Command(python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", fmt.Sprint(port), "--workers", "1",
		"--backend-store-uri", "sqlite:///"+filepath.Join(dir, "db"), "--artifacts-destination", filepath.Join(dir, "artifacts"))
	cmd.Dir, cmd.Env = dir, env
	own(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		if r, err := http.Get(at + "/health"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("the server does not start")
		case <-time.After(100 * time.Millisecond):
		}
	}
	reg := exec.CommandContext(ctx, python, mustAbs(t, "testdata/register.py"))
	reg.Dir, reg.Env = dir, env
	out, err := reg.Output()
	if err != nil {
		t.Fatalf("register: %v\n%s", err, out)
	}
	var run string
	for _, l := range strings.Split(string(out), "\n") {
		if l = strings.TrimSpace(l); idRE.MatchString(l) && len(l) == 32 {
			run = l
		}
	}
	s, err := Connect(func(k string) string { return map[string]string{"MLFLOW_TRACKING_URI": at}[k] })
	if err != nil {
		t.Fatal(err)
	}
	for _, uri := range []string{"models:/Churn Model/1", "models:/Churn Model@champion", "runs:/" + run + "/model"} {
		m, err := s.Model(ctx, uri)
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		if err := m.Check(); err != nil {
			t.Errorf("%s: %v", uri, err)
		}
		facts := map[string]string{}
		for _, f := range m.Facts {
			facts[f.Name] = f.Value
		}
		if facts["run-id"] != run || facts["run-status"] != "FINISHED" || facts["metric:broken"] != "NaN" || facts["server"] != at {
			t.Errorf("%s: facts %v", uri, facts)
		}
		if len(m.Params) != 1 || m.Params[0] != (lineage.Fact{Name: "C", Value: "1.5"}) {
			t.Errorf("%s: parameters %v", uri, m.Params)
		}
		if len(m.Metrics) != 1 || m.Metrics[0] != (lineage.Metric{Name: "auc", Value: 0.96875}) {
			t.Errorf("%s: metrics %v", uri, m.Metrics)
		}
		if m.Signature == nil || len(m.Signature.Tensors) != 1 || m.Signature.Tensors[0].Name != "X" {
			t.Errorf("%s: signature %+v", uri, m.Signature)
		}
		r, err := m.Tree.Open(ctx, m.Entry)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil || len(b) < 50 {
			t.Errorf("%s: %d bytes, %v", uri, len(b), err)
		}
		if _, err := m.Tree.Open(ctx, "absent"); diag.CodeOf(err) != diag.NotFound {
			t.Errorf("%s: a file that is not there: %v", uri, err)
		}
	}
	packedByCommand(ctx, t, at, run)
	for _, uri := range []string{"models:/Churn Model/2", "models:/Other/1", "runs:/" + run + "/other", "models:/Churn Model@loser"} {
		if _, err := s.Model(ctx, uri); diag.CodeOf(err) == diag.OK || diag.CodeOf(err) == diag.Usage {
			t.Errorf("%s: %v", uri, err)
		} else {
			t.Log(err)
		}
	}
}

// packedByCommand runs the command itself against the server: the run's id is in its answer, and the artifact in a store of its own.
func packedByCommand(ctx context.Context, t *testing.T, at, run string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "waybill")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/waybill-ml/waybill/cmd/waybill").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, from := range [][]string{{"models:/Churn Model/1"}, {"models:/Churn Model@champion"}, {"runs:/" + run + "/model", "--version", "1"}} {
		cmd := exec.CommandContext(ctx, program, append([]string{"pack", "--output", "json", "--from"}, from...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI="+at, "WAYBILL_HOME="+filepath.Join(dir, "home"))
		var log strings.Builder
		cmd.Stderr = &log
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", from[0], err, log.String())
		}
		var said struct {
			Digest string
			From   struct {
				System  string
				Facts   map[string]string
				Metrics map[string]float64
			}
		}
		if err := json.Unmarshal(out, &said); err != nil || len(said.Digest) != 71 || said.From.System != "mlflow" || said.From.Facts["run-id"] != run || said.From.Metrics["auc"] != 0.96875 {
			t.Errorf("%s: %v\n%s", from[0], err, out)
		}
	}
	cmd := exec.CommandContext(ctx, program, "pack", "--from", "models:/Churn Model/7")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI="+at, "WAYBILL_HOME="+filepath.Join(dir, "none"))
	if out, err := cmd.CombinedOutput(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != int(diag.NotFound) {
		t.Errorf("a version that is not there: %v\n%s", err, out)
	}
}

func mustAbs(t *testing.T, name string) string {
	t.Helper()
	p, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
