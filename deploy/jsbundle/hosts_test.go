package jsbundle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// tool finds a program, or skips.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, n := range names {
		if p, err := exec.LookPath(n); n != "" && err == nil {
			return p
		}
	}
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
		t.Fatalf("none of %q is installed", names)
	}
	t.Skipf("none of %q is installed", names)
	return ""
}

// lines collects what a process says, for messages.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a program until the test ends; it returns the first line that the reader gives, which the program writes when it listens.
func start(t *testing.T, cmd *exec.Cmd, from *os.File, log *lines) string {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed at the end
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = from.Close()
	})
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(from).ReadString('\n')
		said <- line
	}()
	select {
	case line := <-said:
		if line != "" {
			return line
		}
		<-done
	case <-time.After(2 * time.Minute):
	}
	t.Fatalf("%s does not listen: %s", cmd.Path, log)
	return ""
}

// pipe gives the end that a process writes to and the one that we read.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// nodeServer serves a bundle with Node.
func nodeServer(t *testing.T, dir string) (url string, log *lines) {
	t.Helper()
	r, w := pipe(t)
	log = &lines{}
	cmd := exec.Command(tool(t, "node"), filepath.Join(dir, "node.mjs"), "--listen", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = w, log
	line := start(t, cmd, r, log)
	_ = w.Close()
	_, url, _ = strings.Cut(strings.TrimSpace(line), "listening on ")
	return url, log
}

// workerd serves a bundle with the runtime of Cloudflare Workers. WAYBILL_WORKERD names the program.
func workerd(t *testing.T, dir string) (url string, log *lines) {
	t.Helper()
	r, w := pipe(t)
	log = &lines{}
	cmd := exec.Command(tool(t, os.Getenv("WAYBILL_WORKERD"), "workerd"), "serve", filepath.Join(dir, "workerd.capnp"), "--socket-addr", "http=127.0.0.1:0", "--control-fd=3")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	line := start(t, cmd, r, log)
	_ = w.Close()
	var event struct {
		Event string
		Port  json.Number
	}
	if err := json.Unmarshal([]byte(line), &event); err != nil || event.Event != "listen" {
		t.Fatalf("workerd says %q: %v", line, err)
	}
	return "http://127.0.0.1:" + event.Port.String(), log
}

// chromium runs a page that imports the bundle, and gives what it posts. WAYBILL_CHROMIUM names the program.
func chromium(t *testing.T, dirs []string, script string) []byte {
	t.Helper()
	bin := tool(t, os.Getenv("WAYBILL_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
	results := make(chan []byte, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><meta charset="utf-8"><script type="module">
const post = (v) => fetch('/result', { method: 'POST', body: JSON.stringify(v) });
try { ` + script + ` } catch (e) { await post({ error: String(e?.message ?? e) }); }
</script>`))
	})
	mux.HandleFunc("GET /b/{n}/{name}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n >= len(dirs) {
			http.NotFound(w, r)
			return
		}
		if strings.HasSuffix(r.URL.Path, ".mjs") {
			w.Header().Set("Content-Type", "text/javascript")
		}
		http.ServeFile(w, r, filepath.Join(dirs[n], filepath.Base(r.PathValue("name"))))
	})
	mux.HandleFunc("POST /result", func(_ http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		select {
		case results <- b.Bytes():
		default:
		}
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	ctx, stop := context.WithCancel(t.Context())
	args := []string{"--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--user-data-dir=" + t.TempDir()}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox") // Chromium refuses to sandbox itself as root
	}
	cmd := exec.CommandContext(ctx, bin, append(args, srv.URL+"/")...)
	log := &lines{}
	cmd.Stderr, cmd.WaitDelay = log, 5*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed when the result is there
		close(ended)
	}()
	defer func() {
		stop()
		<-ended
	}()
	select {
	case b := <-results:
		return b
	case <-ended:
		t.Fatalf("%s has ended: %.2000s", bin, log)
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s gives no result: %.2000s", bin, log)
	}
	return nil
}

// request is the JSON of an inference over tensors of the golden document, and the bytes that follow it.
func request(t *testing.T, ins []artifact.GoldenTensor) (header map[string]string, body []byte) {
	t.Helper()
	type tensor struct {
		Name       string         `json:"name"`
		Shape      []int64        `json:"shape"`
		Datatype   string         `json:"datatype"`
		Parameters map[string]int `json:"parameters"`
	}
	var ts []tensor
	var blob []byte
	for _, g := range ins {
		d, _ := abi.ParseDType(g.DType)
		info, _ := d.Info()
		b := []byte(g.Data)
		if d == abi.String {
			for _, s := range g.Strings {
				b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
			}
		}
		shape := g.Shape
		if shape == nil {
			shape = []int64{}
		}
		ts = append(ts, tensor{g.Name, shape, info.OIP, map[string]int{"binary_data_size": len(b)}})
		blob = append(blob, b...)
	}
	head := mustJSON(t, map[string]any{"id": "7", "inputs": ts, "parameters": map[string]bool{"binary_data_output": true}})
	return map[string]string{"Inference-Header-Content-Length": strconv.Itoa(len(head)), "Content-Type": "application/octet-stream"},
		append(head, blob...)
}

// sameAnswers sends each call to the runtime's own server and to url, with binary tensors: all bytes of the answers' tensors are equal.
func sameAnswers(t *testing.T, w *world, url string, calls [][]artifact.GoldenTensor) {
	t.Helper()
	own := w.server(t)
	for i, in := range calls {
		h, body := request(t, in)
		at := "/v2/models/" + w.iface.Name + "/infer"
		s1, h1, b1 := ask(t, http.MethodPost, own+at, h, body)
		s2, h2, b2 := ask(t, http.MethodPost, url+at, h, body)
		if s1 != http.StatusOK || s2 != s1 {
			t.Fatalf("call %d: %d %.300s, the runtime: %d %.300s", i, s2, b2, s1, b1)
		}
		const length = "Inference-Header-Content-Length"
		n1, n2 := atoi(t, h1.Get(length)), atoi(t, h2.Get(length))
		if !jsonEqual(b1[:n1], b2[:n2]) {
			t.Errorf("call %d: %s, the runtime: %s", i, b2[:n2], b1[:n1])
		}
		if !bytes.Equal(b1[n1:], b2[n2:]) {
			t.Errorf("call %d: the tensors differ", i)
		}
		if h2.Get("Waybill-Digest") != string(artifact.DigestOf(w.manifest)) {
			t.Errorf("call %d: the digest header is %q", i, h2.Get("Waybill-Digest"))
		}
	}
}

func calls(w *world) (out [][]artifact.GoldenTensor) {
	for _, v := range w.golden.Vectors {
		out = append(out, v.Inputs)
	}
	return out
}

// browserCalls runs the golden vectors of each world with its bundle in Chromium and compares bit for bit.
func browserCalls(t *testing.T, ws []*world, dirs []string) {
	t.Helper()
	var all []artifact.Golden
	for _, w := range ws {
		all = append(all, w.golden)
	}
	in := base64.StdEncoding.EncodeToString(mustJSON(t, all))
	raw := chromium(t, dirs, `
const all = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob('`+in+`'), (c) => c.charCodeAt(0))));
const results = [];
for (let i = 0; i < all.length; i++) {
  try {
    const bundle = await import('/b/' + i + '/browser.mjs');
    const { fromGolden, same } = await import('/b/' + i + '/tensors.mjs');
    const model = await bundle.load({ prove: true });
    let wrong = 0, outputs = 0;
    for (const v of all[i].vectors) {
      const out = await model.run(Object.fromEntries(v.inputs.map((g) => [g.name, fromGolden(g)])));
      for (const g of v.expected) { outputs++; if (!same(out[g.name], fromGolden(g))) wrong++; }
    }
    results.push({ wrong, outputs });
  } catch (e) { results.push({ error: String(e?.message ?? e) }); }
}
await post(results);`)
	var res []struct {
		Wrong, Outputs int
		Error          string
	}
	if err := json.Unmarshal(raw, &res); err != nil || len(res) != len(ws) {
		t.Fatalf("%.300s %v", raw, err)
	}
	for i, w := range ws {
		if r := res[i]; r.Error != "" || r.Wrong > 0 || r.Outputs != len(w.golden.Vectors)*len(w.iface.Outputs) {
			t.Errorf("%s: %+v", w.iface.Name, r)
		}
	}
}

func TestNode(t *testing.T) {
	tool(t, "node")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	url, _ := nodeServer(t, dir)
	sameAnswers(t, w, url, calls(w))
}

func TestWorkerd(t *testing.T) {
	tool(t, os.Getenv("WAYBILL_WORKERD"), "workerd")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	url, _ := workerd(t, dir)
	sameAnswers(t, w, url, calls(w))
}

func TestBrowser(t *testing.T) {
	tool(t, os.Getenv("WAYBILL_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	browserCalls(t, []*world{w}, []string{dir})
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func jsonEqual(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
