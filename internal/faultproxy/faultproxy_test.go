package faultproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

var content = func() []byte {
	b := make([]byte, 200_000)
	for i := range b {
		s := sha256.Sum256(fmt.Append(nil, i/32))
		b[i] = s[i%32]
	}
	return b
}()

// sink keeps what arrived whole.
type sink struct {
	mu  sync.Mutex
	got [][]byte
}

// start runs a server that has content under every path and keeps what is put there.
func start(t *testing.T, plan Plan) (*Proxy, *sink) {
	t.Helper()
	s := &sink{}
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			if b, err := io.ReadAll(r.Body); err == nil {
				s.mu.Lock()
				s.got = append(s.got, b)
				s.mu.Unlock()
			}
			w.WriteHeader(http.StatusCreated)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(hs.Close)
	p, err := Start(hs.URL, plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, s
}

func get(t *testing.T, p *Proxy, rng string) (*http.Response, []byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Host()+"/v2/a/blobs/sha256:00", nil)
	if err != nil {
		t.Fatal(err)
	}
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 10*int64(len(content))))
	return resp, b, err
}

func TestAnswers(t *testing.T) {
	flipped := bytes.Clone(content[100:200])
	flipped[7] ^= 0xff
	twice := append(bytes.Clone(content[100:110]), content[100:190]...)
	for _, c := range []struct {
		name  string
		f     Fault
		code  int
		want  []byte
		crng  string
		short bool // the connection ends before the length that was announced
	}{
		{"none", Fault{}, 206, content[100:200], "bytes 100-199/200000", false},
		{"cut", Fault{Kind: Cut, N: 40}, 206, content[100:140], "bytes 100-199/200000", true},
		{"corrupt", Fault{Kind: Corrupt, N: 7}, 206, flipped, "bytes 100-199/200000", false},
		{"truncate", Fault{Kind: Truncate, N: 40}, 206, content[100:140], "bytes 100-199/200000", false},
		{"length+", Fault{Kind: Length, N: 5}, 206, content[100:200], "bytes 100-199/200000", true},
		{"length-", Fault{Kind: Length, N: -5}, 206, content[100:195], "bytes 100-199/200000", false},
		{"range", Fault{Kind: Range, N: 3}, 206, content[100:200], "bytes 103-202/200000", false},
		{"total", Fault{Kind: Total, N: 3}, 206, content[100:200], "bytes 100-199/200003", false},
		{"whole", Fault{Kind: Whole}, 200, content, "", false},
		{"shift", Fault{Kind: Shift, N: 50}, 206, content[150:250], "bytes 150-249/200000", false},
		{"shift and lie", Fault{Kind: ShiftLie, N: 50}, 206, content[150:250], "bytes 100-199/200000", false},
		{"duplicate", Fault{Kind: Duplicate, N: 10}, 206, twice, "bytes 100-199/200000", false},
		{"drip", Fault{Kind: Drip, N: 3, Wait: time.Millisecond}, 206, content[100:103], "bytes 100-199/200000", true},
		{"unavailable", Unavailable(7), 503, []byte{}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := start(t, Times(Blobs, c.f))
			resp, b, err := get(t, p, "bytes=100-199")
			if c.short != errors.Is(err, io.ErrUnexpectedEOF) || !c.short && err != nil {
				t.Fatalf("error %v", err)
			}
			if resp.StatusCode != c.code || !bytes.Equal(b, c.want) || resp.Header.Get("Content-Range") != c.crng {
				t.Fatalf("status %d, %d bytes, Content-Range %q", resp.StatusCode, len(b), resp.Header.Get("Content-Range"))
			}
			if c.f.Kind == Answer && resp.Header.Get("Retry-After") != "7" {
				t.Error("no Retry-After")
			}
			if _, b, err := get(t, p, ""); err != nil || !bytes.Equal(b, content) {
				t.Errorf("the next request: %d bytes, %v", len(b), err)
			}
		})
	}
}

func TestConnections(t *testing.T) {
	p, _ := start(t, Times(Blobs, Fault{Kind: Cut, N: -1}, Fault{Kind: Lost}, Fault{Kind: Endless}))
	for range 2 {
		if resp, _, err := get(t, p, ""); err == nil {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	resp, b, err := get(t, p, "")
	if err != nil || len(b) != 10*len(content) || resp.ContentLength != -1 {
		t.Fatalf("endless: %d bytes, length %d, %v", len(b), resp.ContentLength, err)
	}
}

func TestStall(t *testing.T) {
	p, _ := start(t, Times(Blobs, Fault{Kind: Stall, N: 1000}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Host()+"/v2/a/blobs/sha256:00", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	p.Close() // else the next read would wait for ever
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestRequests(t *testing.T) {
	put := func(p *Proxy) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+p.Host()+"/v2/a/blobs/uploads/1", bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
		resp, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	p, s := start(t, Times(Uploads, Fault{Kind: CutRequest, N: 1000}, Fault{Kind: CorruptRequest, N: 1000}, Fault{Kind: Lost},
		Fault{Kind: StallRequest, N: 1000, Wait: time.Millisecond}))
	if code, err := put(p); err == nil {
		t.Fatalf("cut: %d", code)
	}
	if code, err := put(p); err != nil || code != 201 {
		t.Fatalf("corrupt: %d, %v", code, err)
	}
	if code, err := put(p); err == nil {
		t.Fatalf("lost: %d", code)
	}
	if code, err := put(p); err != nil || code != 201 {
		t.Fatalf("stall: %d, %v", code, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) != 3 {
		t.Fatalf("%d requests arrived whole, want 3", len(s.got))
	}
	want := bytes.Clone(content)
	want[1000] ^= 0xff
	if !bytes.Equal(s.got[0], want) || !bytes.Equal(s.got[1], content) || !bytes.Equal(s.got[2], content) {
		t.Error("what arrived is not what was sent, with one byte altered in the first")
	}
	reqs, in, _ := p.Count(func(r Record) bool { return r.Method == http.MethodPut })
	if reqs != 4 || in != 3*int64(len(content))+1000 {
		t.Errorf("%d requests, %d bytes", reqs, in)
	}
}

func TestRandomIsSeeded(t *testing.T) {
	r, _ := http.NewRequest(http.MethodGet, "http://h/v2/a/blobs/sha256:00", strings.NewReader(""))
	list := func(seed uint64) (out []Fault) {
		plan := Random(seed, Blobs, 0.5, 1000, Fault{Kind: Cut}, Fault{Kind: Corrupt}, Unavailable(0))
		for i := range 50 {
			out = append(out, plan(r, i))
		}
		return out
	}
	one, again, two := fmt.Sprint(list(1)), fmt.Sprint(list(1)), fmt.Sprint(list(2))
	if one != again || one == two {
		t.Error("the seed should decide")
	}
}
