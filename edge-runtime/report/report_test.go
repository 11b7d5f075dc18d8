package report_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/internal/fsx"
)

var at = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func item(channel, text string) report.Item {
	return report.Item{Device: strings.Repeat("d", 64), Channel: channel, Seq: 3, At: at, Bundle: []byte(text)}
}

// recorder is a sink that keeps what it took and fails as long as it is told to.
type recorder struct {
	id string

	mu    sync.Mutex
	fail  error
	tries int
	took  []string
	hang  chan struct{}
}

func (r *recorder) ID() string { return r.id }

func (r *recorder) Send(ctx context.Context, i report.Item) error {
	r.mu.Lock()
	hang := r.hang
	r.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	if r.fail != nil {
		return r.fail
	}
	r.took = append(r.took, string(i.Bundle))
	return nil
}

func (r *recorder) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *recorder) seen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.took, " ")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in a minute it did not happen that %s", what)
		}
	}
}

func run(t *testing.T, s *report.Spool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	t.Cleanup(stop)
	return stop
}

func open(t *testing.T, fsys fsx.FS, o report.Options, sinks ...report.Sink) *report.Spool {
	t.Helper()
	if o.First == 0 {
		o.First = time.Millisecond
	}
	s, err := report.Open(fsys, "spool", sinks, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every sink gets the same bytes; one that hangs or fails keeps none of the others waiting, and gets the newest of each
// channel once it comes back.
func TestSinksAreApart(t *testing.T) {
	good, bad, slow := &recorder{id: "good"}, &recorder{id: "bad", fail: errors.New("500")}, &recorder{id: "slow", hang: make(chan struct{})}
	s := open(t, fsx.NewMem(), report.Options{Longest: 2 * time.Millisecond}, good, bad, slow)
	run(t, s)
	put := func(i report.Item) {
		t.Helper()
		if err := s.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	put(item("prod", "p1"))
	eventually(t, "the good one has p1", func() bool { return good.seen() == "p1" })
	put(item("prod", "p2"))
	put(item("vision", "v1"))
	eventually(t, "the good one has all", func() bool { return strings.Contains(good.seen(), "p2") && strings.Contains(good.seen(), "v1") })
	eventually(t, "the bad one was asked again and again", func() bool { bad.mu.Lock(); defer bad.mu.Unlock(); return bad.tries > 5 })
	if w := s.Waiting(); w["good"] != 0 || w["bad"] != 2 || w["slow"] != 2 {
		t.Errorf("%v", w)
	}
	bad.set(func() { bad.fail = nil })
	close(slow.hang)
	eventually(t, "nothing waits", func() bool { w := s.Waiting(); return w["bad"]+w["slow"] == 0 })
	if got := bad.seen(); got != "p2 v1" && got != "v1 p2" {
		t.Errorf("the bad one has %q", got)
	}
}

// A restart, also by a power cut, loses no report that Put returned for, and sends none twice that was taken.
func TestSpoolSurvives(t *testing.T) {
	mem := fsx.NewMem()
	bad, good := &recorder{id: "bad", fail: errors.New("down")}, &recorder{id: "good"}
	s := open(t, mem, report.Options{}, bad, good)
	stop := run(t, s)
	for _, i := range []report.Item{item("prod", "p1"), item("prod", "p2"), item("vision", "v1")} {
		if err := s.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the good one has all", func() bool { return s.Waiting()["good"] == 0 })
	stop()
	after := mem.CrashClone(0, rand.New(rand.NewPCG(1, 2)))
	bad2, other := &recorder{id: "bad"}, &recorder{id: "other"}
	s2 := open(t, after, report.Options{}, bad2, other)
	if w := s2.Waiting(); w["bad"] != 2 || w["other"] != 0 {
		t.Fatalf("%v", w)
	}
	es, err := after.ReadDir("spool")
	if err != nil || len(es) != 2 {
		t.Errorf("%d files wait, not those of the sink that is left: %v", len(es), err)
	}
	run(t, s2)
	eventually(t, "all is taken", func() bool { return s2.Waiting()["bad"] == 0 })
	if got := bad2.seen(); got != "p2 v1" {
		t.Errorf("%q", got)
	}
	if es, err := after.ReadDir("spool"); err != nil || len(es) != 0 {
		t.Errorf("%d files are left, %v", len(es), err)
	}
}

// A full disk, and a spool at its limit, cost the memory across a restart and nothing else.
func TestFullDisk(t *testing.T) {
	for name, full := range map[string]func() (fsx.FS, report.Options){
		"disk":  func() (fsx.FS, report.Options) { m := fsx.NewMem(); m.SetCapacity(1); return m, report.Options{} },
		"limit": func() (fsx.FS, report.Options) { return fsx.NewMem(), report.Options{MaxBytes: 10} },
	} {
		fsys, o := full()
		r := &recorder{id: "r"}
		s := open(t, fsys, o, r)
		if err := s.Put(item("prod", "p1")); err == nil {
			t.Errorf("%s: nothing was said", name)
		}
		run(t, s)
		eventually(t, "it is sent all the same", func() bool { return r.seen() == "p1" })
	}
}

// Files that nobody can make sense of are removed at the start.
func TestDamagedSpool(t *testing.T) {
	mem := fsx.NewMem()
	bad := &recorder{id: "bad", fail: errors.New("down")}
	s := open(t, mem, report.Options{}, bad)
	if err := s.Put(item("prod", "p1")); err != nil {
		t.Fatal(err)
	}
	es, err := mem.ReadDir("spool")
	if err != nil || len(es) != 1 {
		t.Fatal(len(es), err)
	}
	name := filepath.Join("spool", es[0].Name())
	raw, err := fsx.ReadFile(mem, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"half": string(raw[:len(raw)/2]), "another channel": strings.Replace(string(raw), "prod", "test", 1), "empty": ""} {
		if err := fsx.WriteFileAtomic(mem, name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if w := open(t, mem, report.Options{}, bad).Waiting(); w["bad"] != 0 {
			t.Errorf("%s: %v", what, w)
		}
		if _, err := mem.Stat(name); err == nil {
			t.Errorf("%s: the file is still there", what)
		}
	}
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A server that says when it may be asked again is not asked before, however many reports come in the meantime.
func TestRetryAfter(t *testing.T) {
	c := &clock{now: at}
	r := &recorder{id: "r", fail: &report.RetryAfter{Wait: time.Hour, Err: errors.New("429")}}
	s := open(t, fsx.NewMem(), report.Options{Now: c.Now}, r)
	run(t, s)
	tries := func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.tries }
	if err := s.Put(item("prod", "p1")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was asked", func() bool { return tries() == 1 })
	eventually(t, "that is settled", func() bool { // a Put before would meet the report under way
		return s.Settled("r", "prod") == 1
	})
	for i := range 50 {
		if err := s.Put(item("prod", fmt.Sprint("again ", i))); err != nil {
			t.Fatal(err)
		}
	}
	c.add(59 * time.Minute)
	if err := s.Put(item("prod", "last")); err != nil {
		t.Fatal(err)
	}
	if n := tries(); n != 1 {
		t.Errorf("asked %d times within the hour", n)
	}
	r.set(func() { r.fail = nil })
	c.add(time.Hour)
	if err := s.Put(item("prod", "last")); err != nil { // wakes the sender, whose timer runs on real time
		t.Fatal(err)
	}
	eventually(t, "it was taken", func() bool { return r.seen() == "last" })
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	f := report.Folder{FS: fsx.OS{}, Path: filepath.Join(dir, "usb"), Keep: 3}
	if err := f.Send(t.Context(), item("prod", "x")); err == nil {
		t.Fatal("a stick that is not there took a report")
	}
	if err := os.Mkdir(f.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(f.Path, "notes.json")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		x := item("prod", fmt.Sprint("p", i))
		x.At = at.Add(time.Duration(i) * time.Second)
		x.Seq = int64(9 + i) // the order of the names is not that of the times
		if err := f.Send(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Send(t.Context(), item("prod-2", "other channel")); err != nil {
		t.Fatal(err)
	}
	es, err := os.ReadDir(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, strings.TrimPrefix(e.Name(), strings.Repeat("d", 64)))
	}
	if got, want := strings.Join(names, " "), "-prod-11-20261120T120002Z.json -prod-12-20261120T120003Z.json -prod-13-20261120T120004Z.json -prod-2-3-20261120T120000Z.json notes.json"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if b, err := os.ReadFile(filepath.Join(f.Path, strings.Repeat("d", 64)+names[2])); err != nil || string(b) != "p4" {
		t.Errorf("%s %v", b, err)
	}
}

func TestHTTP(t *testing.T) {
	var mu sync.Mutex
	var keys []string
	thief := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { mu.Lock(); thief++; mu.Unlock() }))
	defer elsewhere.Close()
	const token = "S3cret-token"
	answers := map[string]http.HandlerFunc{
		"/ok": func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.Method != http.MethodPost || string(b) != "bundle" || r.Header.Get("Content-Type") != "application/vnd.dev.sigstore.bundle.v0.3+json" || r.Header.Get("Authorization") != "Bearer "+token {
				w.WriteHeader(http.StatusTeapot)
			}
		},
		"/500": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
		},
		"/429": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "120"); w.WriteHeader(429) },
		"/date": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", at.Add(time.Hour).Format(http.TimeFormat))
			w.WriteHeader(503)
		},
		"/redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/?"+r.Header.Get("Authorization"), http.StatusTemporaryRedirect)
		},
		"/endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
		"/hang": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the server notices that the client is gone once it has read everything
			<-r.Context().Done()
		},
		"/cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		mu.Unlock()
		answers[r.URL.Path](w, r)
	}))
	defer h.Close()
	send := func(path string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if path == "/hang" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		}
		defer cancel()
		s := &report.HTTP{URL: h.URL + path + "?key=" + token, Transport: http.DefaultTransport, Token: func() (string, error) { return token, nil }, Now: func() time.Time { return at }}
		if strings.Contains(s.ID(), token) {
			t.Errorf("the name of the sink holds the token: %s", s.ID())
		}
		return s.Send(ctx, item("prod", "bundle"))
	}
	for path, want := range map[string]string{
		"/ok": "", "/500": "answered 500", "/429": "answered 429", "/date": "answered 503", "/redirect": "follows no redirect", "/endless": "", "/hang": "deadline", "/cut": "EOF",
	} {
		err := send(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error holds the token: %v", path, err)
		}
		var after *report.RetryAfter
		if errors.As(err, &after) != (path == "/429" || path == "/date") || after != nil && after.Wait != map[string]time.Duration{"/429": 2 * time.Minute, "/date": time.Hour}[path] {
			t.Errorf("%s: %+v", path, after)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if thief != 0 {
		t.Error("a report followed a redirect")
	}
	for _, k := range keys {
		if k != `"`+item("prod", "bundle").Key()+`"` {
			t.Errorf("Idempotency-Key %s", k)
		}
	}
	for u, ok := range map[string]bool{
		"https://r.example/x": true, "http://r.example/x": false, "http://127.0.0.1:1/x": true, "https://u:p@r.example/": false, "ftp://r.example/": false, "r.example": false, "": false,
	} {
		err := report.CheckURL(u, func(host string) bool { return strings.HasPrefix(host, "127.") })
		if (err == nil) != ok || err != nil && strings.Contains(err.Error(), "p@") {
			t.Errorf("%s: %v", u, err)
		}
	}
}
