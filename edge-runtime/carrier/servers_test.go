package carrier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// tool finds a program that not every machine has.
func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil && name == "python3" {
		err = exec.Command(p, "-c", "import http.server").Run()
	}
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not installed, and WAYBILL_REQUIRE_TOOLS is set", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return p
}

// program runs a server until the test ends.
func program(t *testing.T, name string, args ...string) *bytes.Buffer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", name, log.String())
		}
	})
	return &log
}

// answers waits until something answers at url.
func answers(t *testing.T, url string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nothing answers at %s: %v", url, err)
		}
	}
}

// python serves dir with the server of Python's library, which knows no ranges and no entity tags. It takes a free port itself
// and says which.
func python(t *testing.T, dir string) string {
	t.Helper()
	port := filepath.Join(t.TempDir(), "port")
	program(t, tool(t, "python3"), "-c", `
import functools, http.server, os, sys
h = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), h)
with open(sys.argv[2] + ".new", "w") as f: f.write(str(s.server_address[1]))
os.rename(sys.argv[2] + ".new", sys.argv[2])
s.serve_forever()`, dir, port)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(port); err == nil {
			return "http://127.0.0.1:" + string(b)
		}
		if time.Now().After(end) {
			t.Fatal("python does not start")
		}
	}
}

// nginx serves dir, with everything packed by gzip that a client accepts that way. It listens on a unix socket, since it cannot
// take a free port itself, and a small proxy gives that an address.
func nginx(t *testing.T, dir string) string {
	t.Helper()
	exe := tool(t, "nginx")
	run, err := os.MkdirTemp("", "wb-nginx") // a short path for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	for _, d := range []string{run, dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sock := filepath.Join(run, "sock")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := fmt.Sprintf(`daemon off; master_process off; worker_processes 1; %s
pid %[2]s/pid; error_log stderr warn;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %[2]s/b; proxy_temp_path %[2]s/p; fastcgi_temp_path %[2]s/f; uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s;
  default_type application/octet-stream;
  gzip on; gzip_min_length 1; gzip_types *; gzip_proxied any; gzip_http_version 1.0;
  server { listen unix:%[3]s; root %[4]s; }
}
`, user, run, sock, dir)
	file := filepath.Join(run, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	program(t, exe, "-p", run, "-e", "stderr", "-c", file)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				u, err := net.Dial("unix", sock)
				if err != nil {
					return
				}
				defer u.Close()
				go func() { _, _ = io.Copy(u, c); _ = u.(*net.UnixConn).CloseWrite() }()
				_, _ = io.Copy(c, u)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// watched counts what a client asks and gets, as it went over the connection.
type watched struct {
	next               http.RoundTripper
	n, ranges, partial atomic.Int64
	confirmed, packed  atomic.Int64
	conditional        atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	w.n.Add(1)
	if r.Header.Get("Range") != "" {
		w.ranges.Add(1)
	}
	if r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != "" {
		w.conditional.Add(1)
	}
	resp, err := w.next.RoundTrip(r)
	if err == nil {
		switch {
		case resp.StatusCode == http.StatusPartialContent:
			w.partial.Add(1)
		case resp.StatusCode == http.StatusNotModified:
			w.confirmed.Add(1)
		}
		if resp.Header.Get("Content-Encoding") != "" {
			w.packed.Add(1)
		}
	}
	return resp, err
}

// A mirror behind servers that are really used: looked at, confirmed, fetched, and resumed at any byte, with ranges and without.
func TestMirrorOnRealServers(t *testing.T) {
	for _, c := range []struct {
		name   string
		start  func(t *testing.T, dir string) string
		ranges bool
	}{{"python", python, false}, {"nginx", nginx, true}} {
		t.Run(c.name, func(t *testing.T) {
			s := newShelf()
			r := rand.New(rand.NewPCG(1, 2))
			content := make([]byte, 1<<20)
			for i := range content {
				content[i] = byte(r.IntN(8)) // packs well
			}
			blob := s.put(content)
			head := s.tag("churn:channel-prod", []byte(`{"n":1}`))
			dir := t.TempDir()
			s.folder(t, dir)
			url := c.start(t, dir)
			answers(t, url)
			tr := registry.NewTransport()
			w := &watched{next: tr}
			m, err := NewMirror(url, MirrorOptions{Names: []string{"churn"}, Transport: w})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(tr.CloseIdleConnections)
			for range 3 {
				if ds, err := m.Heads(t.Context(), "channel-prod"); err != nil || len(ds) != 1 || ds[0] != head {
					t.Fatal(ds, err)
				}
			}
			if w.conditional.Load() != 2 || w.confirmed.Load() != 2 {
				t.Errorf("of 3 looks %d were conditional, %d confirmed", w.conditional.Load(), w.confirmed.Load())
			}
			for _, at := range []int64{0, 1, 4095, 65536, blob.Size / 2, blob.Size - 1, blob.Size} {
				if b, err := read(t, m, blob, at); err != nil || !bytes.Equal(b, content[at:]) {
					t.Fatalf("from %d: %d bytes, %v", at, len(b), err)
				}
			}
			if w.ranges.Load() != 6 || c.ranges && w.partial.Load() != 5 || !c.ranges && w.partial.Load() != 0 {
				t.Errorf("%d ranges were asked for, %d came", w.ranges.Load(), w.partial.Load())
			}
			if w.packed.Load() != 0 {
				t.Errorf("%d answers were packed", w.packed.Load())
			}
			// What the server would send to a client that says nothing about encodings: gzip, which is why it is said.
			if c.ranges {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/"+blobPath(blob.Digest), nil)
				req.Header.Set("Accept-Encoding", "gzip")
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.Header.Get("Content-Encoding") != "gzip" {
					t.Error("this server packs nothing: the test proves nothing")
				}
			}
			if _, err := read(t, m, artifact.Descriptor{Digest: artifact.DigestOf([]byte("x")), Size: 1}, 0); err == nil {
				t.Error("what is not there was read")
			}
			// A new record: the index is another one, which the entity tag or the date must show. Dates count in seconds.
			s.lines = nil
			next := s.tag("churn:channel-prod", []byte(`{"n":2}`))
			s.folder(t, dir)
			later := time.Now().Add(5 * time.Second)
			if err := os.Chtimes(filepath.Join(dir, "index.json"), later, later); err != nil {
				t.Fatal(err)
			}
			if ds, err := m.Heads(t.Context(), "channel-prod"); err != nil || len(ds) != 1 || ds[0] != next {
				t.Errorf("the new record is not seen: %v %v", ds, err)
			}
			// Cut in the middle: a set goes on with what came.
			cut := &cutting{Mirror: m, after: 300_000}
			set := NewSet(Options{}, Named{Name: "mirror", Place: cut}, Named{Name: "again", Place: m})
			rc, err := set.Open(t.Context(), blob, 0)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(rc)
			_ = rc.Close()
			if err != nil || !bytes.Equal(b, content) {
				t.Errorf("after a cut: %d bytes, %v", len(b), err)
			}
		})
	}
}

// cutting breaks off.
type cutting struct {
	*Mirror
	after int64
}

func (c *cutting) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	rc, err := c.Mirror.Open(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, c.after), failing{}), rc}, nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// Some networks answer everything with a page to log in on, and status 200: it is no index, no content, no end of the channel, and
// it is told as what it is. The other place is asked.
func TestMirrorBehindALoginPage(t *testing.T) {
	s := newShelf()
	blob := s.put([]byte("the right content"))
	head := s.tag("churn:channel-prod", []byte(`{"n":1}`))
	dir := t.TempDir()
	s.folder(t, dir)
	var portal atomic.Bool
	page := "<!DOCTYPE html><html><body>Please log in</body></html>"
	files := http.FileServer(http.Dir(dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !portal.Load() {
			files.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, page)
	}))
	t.Cleanup(srv.Close)
	m, err := NewMirror(srv.URL, MirrorOptions{Names: []string{"churn"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.client.CloseIdleConnections)
	for range 2 { // before anything is known, and after
		portal.Store(true)
		_, err := m.Heads(t.Context(), "channel-prod")
		if err == nil || !strings.Contains(err.Error(), "a web page") || strings.Contains(err.Error(), "log in") {
			t.Errorf("the page is told as: %v", err)
		}
		if b, err := read(t, m, blob, 0); err == nil || !strings.Contains(err.Error(), "a web page") {
			t.Errorf("%q was read: %v", b, err)
		}
		if b, err := read(t, m, artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: head}, 0); err == nil {
			t.Errorf("%q was read as a manifest: %v", b, err)
		}
		portal.Store(false)
		if ds, err := m.Heads(t.Context(), "channel-prod"); err != nil || ds[0] != head {
			t.Errorf("after it: %v %v", ds, err)
		}
	}
	portal.Store(true)
	other := t.TempDir()
	s.folder(t, other)
	set := NewSet(Options{}, Named{Name: "mirror", Place: m}, Named{Name: "folder", Place: NewFolder(other, "churn")})
	if ds, err := set.Look(t.Context(), "channel-prod", false); err != nil || len(ds) != 1 || ds[0] != head {
		t.Errorf("%v %v", ds, err)
	}
	rc, err := set.Open(t.Context(), blob, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if b, err := io.ReadAll(rc); err != nil || string(b) != "the right content" {
		t.Errorf("%q %v", b, err)
	}
}
