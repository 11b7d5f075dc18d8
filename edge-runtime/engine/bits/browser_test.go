package bits

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// page asks for jobs one after another and hands the results back.
const page = `<!doctype html><meta charset="utf-8"><title>jobs</title><script type="module">
import { runJob } from '/web/job.mjs';
const read = async (file) => new Uint8Array(await (await fetch('/file' + file)).arrayBuffer());
for (;;) {
  const asked = await fetch('/job');
  if (asked.status !== 200) break;
  let result;
  try {
    result = await runJob(await asked.json(), read);
  } catch (e) {
    result = { failed: String(e && e.stack || e) };
  }
  await fetch('/result', { method: 'POST', body: JSON.stringify(result) });
}
</script>`

// browser is a headless Chromium that runs jobs for as long as the test lives. One job at a time.
type browser struct {
	mu      sync.Mutex
	jobs    chan Job
	results chan json.RawMessage
	done    chan struct{} // closed when the browser has ended
}

// browserHost starts Chromium when there is one. WAYBILL_CHROMIUM names the program.
func browserHost(t *testing.T) host {
	h := host{name: "chromium"}
	var bin string
	for _, n := range []string{os.Getenv("WAYBILL_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(n); n != "" && err == nil {
			bin = p
			break
		}
	}
	if bin == "" {
		h.skip = "no Chromium is installed"
		return h
	}
	b := &browser{jobs: make(chan Job), results: make(chan json.RawMessage), done: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	srv := httptest.NewServer(b.handler(ctx))
	dir := t.TempDir()
	args := []string{"--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--user-data-dir=" + dir}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox") // Chromium refuses to sandbox itself as root
	}
	cmd := exec.CommandContext(ctx, bin, append(args, srv.URL+"/")...)
	var log strings.Builder
	cmd.Stderr = &log
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", bin, err)
	}
	go func() {
		_ = cmd.Wait() // killed at the end; an earlier end shows as a job without a result
		close(b.done)
	}()
	t.Cleanup(func() {
		stop()
		<-b.done
		srv.Close()
	})
	h.run = func(t *testing.T, j Job) Result {
		t.Helper()
		b.mu.Lock()
		defer b.mu.Unlock()
		select {
		case b.jobs <- j:
		case <-b.done:
			t.Fatalf("%s has ended:\n%.2000s", bin, log.String())
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s does not ask for work", bin)
		}
		var raw json.RawMessage
		select {
		case raw = <-b.results:
		case <-b.done:
			t.Fatalf("%s has ended:\n%.2000s", bin, log.String())
		}
		var res struct {
			Result
			Failed string `json:"failed"`
		}
		if err := json.Unmarshal(raw, &res); err != nil {
			t.Fatalf("%v: %.400s", err, raw)
		}
		if res.Failed != "" {
			t.Fatal(res.Failed)
		}
		return res.Result
	}
	return h
}

// handler serves the page, the loader, the job's files, and the jobs. Only files of the current job can be read.
func (b *browser) handler(ctx context.Context) http.Handler {
	var mu sync.Mutex
	files := map[string]bool{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(page))
	})
	mux.HandleFunc("GET /web/{name}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		http.ServeFile(w, r, filepath.Join("..", "..", "web", path.Base(r.PathValue("name"))))
	})
	mux.HandleFunc("GET /file/", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/file")
		mu.Lock()
		ok := files[name]
		mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, name)
	})
	mux.HandleFunc("GET /job", func(w http.ResponseWriter, r *http.Request) {
		select {
		case j := <-b.jobs:
			mu.Lock()
			clear(files)
			for _, f := range []string{j.Module, j.Weights} {
				files[f] = true
			}
			for _, f := range j.Steps {
				files[f] = true
			}
			mu.Unlock()
			_ = json.NewEncoder(w).Encode(j)
		case <-ctx.Done():
			w.WriteHeader(http.StatusNoContent)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /result", func(_ http.ResponseWriter, r *http.Request) {
		var raw json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&raw); err != nil {
			raw = json.RawMessage(`{"failed":"no JSON"}`)
		}
		select {
		case b.results <- raw:
		case <-ctx.Done():
		}
	})
	return mux
}
