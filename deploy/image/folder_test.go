package image

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/edge-runtime/lambdaapi/rapitest"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// tree is what is in a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[rel] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The folder of a function answers events; two of the same artifact are equal; one that was altered, or is told to serve another
// artifact, tells Lambda why it does not start.
func TestFolder(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("functions are for Linux on amd64 and arm64")
	}
	p, target := released(t)
	r := programs(t, native())[0]
	make := func(name string) string {
		dir := filepath.Join(t.TempDir(), name)
		if err := Folder(staged(t, p, target), r, dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := make("it's here") // a folder whose name the shell takes apart unless it is quoted
	one, two := tree(t, dir), tree(t, make("b"))
	if len(one) < 8 || len(one) != len(two) {
		t.Errorf("%d and %d files", len(one), len(two))
	}
	for name, raw := range one {
		if two[name] != raw {
			t.Errorf("%s is not the same twice", name)
		}
	}
	row := must[[]float32](t)(edge.Values[float32](edgetest.Row(1)))
	body := must[[]byte](t)(json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": "X", "datatype": "FP32", "shape": []int{1, 30}, "data": row}}}))
	// start runs bootstrap as Lambda does: with an environment of its own.
	start := func(dir string, api *rapitest.Server, env ...string) (*exec.Cmd, *bytes.Buffer) {
		t.Helper()
		var log bytes.Buffer
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, bootstrapName))
		cmd.Dir, cmd.Stderr, cmd.Stdout = "/", &log, &log
		cmd.Env = append([]string{"AWS_LAMBDA_RUNTIME_API=" + api.Addr, "LAMBDA_TASK_ROOT=" + dir, "PATH=/usr/bin:/bin"}, env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, &log
	}
	api := rapitest.Start(t)
	cmd, log := start(dir, api, "WAYBILL_DIGEST="+string(target.Digest))
	if res := api.Invoke(t, rapitest.Event{Payload: body}); !bytes.Contains(res.Response, []byte(`"outputs"`)) {
		t.Errorf("%s %s\n%s", res.Response, res.Error, log)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // exec made the shell the program
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	for _, m := range api.Misuse() {
		t.Error(m)
	}

	api = rapitest.Start(t)
	cmd, log = start(dir, api, "WAYBILL_DIGEST=sha256:"+strings.Repeat("0", 64))
	if err := cmd.Wait(); err == nil {
		t.Errorf("another digest is served\n%s", log)
	}
	weights := filepath.Join(dir, artifactDir, "blobs", "sha256")
	var largest string
	var size int64
	for _, f := range must[[]os.DirEntry](t)(os.ReadDir(weights)) {
		if info := must[fs.FileInfo](t)(f.Info()); info.Size() > size {
			largest, size = filepath.Join(weights, f.Name()), info.Size()
		}
	}
	flip(t, largest)
	api = rapitest.Start(t)
	cmd, log = start(dir, api)
	err := cmd.Wait()
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 3 {
		t.Errorf("an altered folder: %v, want exit code 3\n%s", err, log)
	}
}

func TestBootstrapQuotes(t *testing.T) {
	for in, want := range map[string]string{"a b": "'a b'", "it's": `'it'\''s'`, "$(x)`y`": "'$(x)`y`'", "": "''"} {
		if got := quoted(in); got != want {
			t.Errorf("%q: %s, not %s", in, got, want)
		}
	}
}
