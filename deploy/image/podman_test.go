package image

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi/rapitest"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// engine is podman with a store of its own.
type engine struct {
	t    *testing.T
	args []string
	n    int // of containers
}

func podman(t *testing.T) *engine {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("images are for Linux on amd64 and arm64")
	}
	for _, tool := range []string{"podman", "runc"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
				t.Fatalf("%s is not installed", tool)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("podman runs these containers as root only: the store of a test has no user namespace")
	}
	dir, err := os.MkdirTemp("", "wb") // podman takes no long paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	e := &engine{t: t, args: []string{
		"--root", dir + "/r", "--runroot", dir + "/s", "--tmpdir", dir + "/t", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--storage-driver", "vfs", "--runtime", "runc",
	}}
	return e
}

func (e *engine) run(args ...string) string {
	e.t.Helper()
	b, err := exec.CommandContext(e.t.Context(), "podman", append(e.args[:len(e.args):len(e.args)], args...)...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("podman %s: %v\n%s", strings.Join(args, " "), err, b)
	}
	return string(b)
}

// start runs a container until the test ends and gives the lines that it prints.
func (e *engine) start(image string, flags []string, args ...string) (lines *bufio.Scanner, log *bytes.Buffer, stop func() error) {
	e.t.Helper()
	e.n++
	name := "c" + strconv.Itoa(e.n)
	line := append(e.args[:len(e.args):len(e.args)], "run", "--rm", "--name", name, "--read-only", "--cap-drop", "all", "--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
	line = append(append(append(line, flags...), image), args...)
	cmd := exec.Command("podman", line...)
	log = &bytes.Buffer{}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	lines = bufio.NewScanner(out)
	stop = func() error {
		// Not through the process of podman run, which hands signals on only from some time after the container's start on.
		_ = exec.Command("podman", append(e.args[:len(e.args):len(e.args)], "kill", "--signal", "TERM", name)...).Run() // it may have ended
		kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_, _ = io.Copy(io.Discard, out)
		return cmd.Wait()
	}
	return lines, log, stop
}

// Each variant that is an HTTP server boots in a container without rights, on a read-only root, and answers as its platform asks; a
// modelcar does what KServe has it do. An image that was altered does not start.
func TestPodman(t *testing.T) {
	e := podman(t)
	p, target := released(t)
	s := staged(t, p, target)
	runtimes := programs(t, native())
	load := func(v Variant) string {
		set := must[*Set](t)(Build(s, runtimes, Options{Variant: v}))
		file := filepath.Join(t.TempDir(), "image.tar")
		f := must[*os.File](t)(os.Create(file))
		if err := set.WriteTar(t.Context(), f, "churn:"+string(v)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		e.run("load", "-q", "-i", file)
		return "localhost/churn:" + string(v)
	}
	row := must[[]float32](t)(edge.Values[float32](edgetest.Row(1)))
	v2 := must[[]byte](t)(json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": "X", "datatype": "FP32", "shape": []int{1, 30}, "data": row}}}))
	instances := must[[]byte](t)(json.Marshal(map[string]any{"instances": [][]float32{row}}))
	for _, c := range []struct {
		variant         Variant
		env             []string
		args            []string
		health, predict string
		body            []byte
		says            string
	}{
		{Plain, []string{"PORT=0"}, nil, "/v2/health/ready", "/v2/models/churn/infer", v2, `"outputs"`},
		{SageMaker, []string{"SAGEMAKER_BIND_TO_PORT=0"}, []string{"serve"}, "/ping", "/invocations", instances, `"predictions"`},
		{Vertex, []string{"AIP_HTTP_PORT=0", "AIP_HEALTH_ROUTE=/h", "AIP_PREDICT_ROUTE=/p"}, nil, "/h", "/p", instances, `"predictions"`},
	} {
		t.Run(string(c.variant), func(t *testing.T) {
			var flags []string
			for _, v := range c.env {
				flags = append(flags, "-e", v)
			}
			lines, log, stop := e.start(load(c.variant), flags, c.args...)
			url := ""
			if lines.Scan() {
				_, url, _ = strings.Cut(lines.Text(), " on ")
			}
			if url == "" {
				err := stop()
				t.Fatalf("it does not serve: %v\n%s", err, log)
			}
			url = strings.Replace(url, "[::]", "127.0.0.1", 1)
			ask := func(method, path string, body []byte) (int, string) {
				req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, url+path, bytes.NewReader(body)))
				req.Header.Set("Content-Type", "application/json")
				res := must[*http.Response](t)(http.DefaultClient.Do(req))
				defer res.Body.Close()
				return res.StatusCode, string(must[[]byte](t)(io.ReadAll(res.Body)))
			}
			if code, b := ask("GET", c.health, nil); code != 200 {
				t.Errorf("health: %d %s", code, b)
			}
			if code, b := ask("POST", c.predict, c.body); code != 200 || !strings.Contains(b, c.says) {
				t.Errorf("prediction: %d %s", code, b)
			}
			http.DefaultClient.CloseIdleConnections()
			if err := stop(); err != nil {
				t.Errorf("end: %v\n%s", err, log)
			}
		})
	}
	t.Run("lambda", func(t *testing.T) {
		api := rapitest.Start(t)
		_, log, stop := e.start(load(Lambda), []string{"-e", "AWS_LAMBDA_RUNTIME_API=" + api.Addr})
		res := api.Invoke(t, rapitest.Event{Payload: v2})
		err := stop()
		if !bytes.Contains(res.Response, []byte(`"outputs"`)) || err != nil {
			t.Errorf("%s %s, %v\n%s", res.Response, res.Error, err, log)
		}
		for _, m := range api.Misuse() {
			t.Error(m)
		}
	})
	t.Run("modelcar", func(t *testing.T) {
		lines, log, stop := e.start(load(Modelcar), []string{"--tmpfs", "/mnt:mode=1777"}, "sh", "-c",
			"ln -sf /proc/$$/root/models /mnt/models && ls -A /mnt/models && sleep infinity")
		ok := lines.Scan() && lines.Text() == "blobs" // the first of what is read through the link
		if err := stop(); !ok {
			t.Errorf("%q, %v\n%s", lines.Text(), err, log)
		}
		out := e.run("run", "--rm", "--read-only", "--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--entrypoint", "/bin/sh", "localhost/churn:modelcar", "-c",
			`[ -d /models ] && [ "$(ls -A /models)" ] && echo 'OK' || (echo 'NOK' && exit 1)`)
		if !strings.Contains(out, "OK") || strings.Contains(out, "NOK") {
			t.Errorf("%s", out)
		}
	})
}
