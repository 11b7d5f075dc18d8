package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
)

// dial opens a connection and writes text.
func dial(t *testing.T, url, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

func status(t *testing.T, c net.Conn) int {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// Clients that never finish their requests hold no worker: others are answered, and they are told 408 in the end.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	s := New(Config{MaxInFlight: 1, MaxQueue: -1, BodyTimeout: 2 * time.Second})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, _ := serveOn(t, s)
	var slow []net.Conn
	for range 50 {
		slow = append(slow, dial(t, url, "POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{"))
	}
	for range 10 {
		if code, _, v := do(t, "POST", url+"/v2/models/m/infer", "", oneInt); code != 200 {
			t.Errorf("beside slow clients: %d %v", code, v)
		}
	}
	for _, c := range slow {
		if code := status(t, c); code != http.StatusRequestTimeout {
			t.Errorf("a slow client got %d", code)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// An inference may take longer than a body: the deadline of the body does not end it.
func TestLongInference(t *testing.T) {
	t.Parallel()
	r := echo(port("x", "i64", -1))
	r.f = func(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
		select {
		case <-time.After(1500 * time.Millisecond):
			return ins, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	s := New(Config{BodyTimeout: time.Second})
	s.Swap("m", Model{dig, r})
	url, _ := serveOn(t, s)
	if code, _, v := do(t, "POST", url+"/v2/models/m/infer", "", oneInt); code != 200 {
		t.Errorf("%d %v", code, v)
	}
	http.DefaultClient.CloseIdleConnections()
}

// What all requests hold together is bounded, and given back.
func TestBuffered(t *testing.T) {
	s := New(Config{MaxBody: 10000, MaxBuffered: 20000})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, _ := serveOn(t, s)
	half := "POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n" + strings.Repeat(" ", 9000)
	a, b := dial(t, url, half), dial(t, url, half)
	for s.buffered.Load() != 18000 {
		time.Sleep(time.Millisecond)
	}
	code, hdr, v := do(t, "POST", url+"/v2/models/m/infer", "", `{"id":"`+strings.Repeat("a", 5000)+`"}`)
	if code != 429 || hdr.Get("Retry-After") == "" {
		t.Errorf("no memory left: %d %v", code, v)
	}
	_, _ = a.Close(), b.Close()
	for s.buffered.Load() != 0 {
		time.Sleep(time.Millisecond)
	}
	if code, _, v := do(t, "POST", url+"/v2/models/m/infer", "", oneInt); code != 200 {
		t.Errorf("afterwards: %d %v", code, v)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestConnections(t *testing.T) {
	s := New(Config{MaxConns: 2})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, _ := serveOn(t, s)
	get := "GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n"
	a, b := dial(t, url, get), dial(t, url, get)
	if status(t, a) != 200 || status(t, b) != 200 {
		t.Error("the first two")
	}
	c := dial(t, url, get)
	answered := make(chan int)
	go func() {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Error(err)
			close(answered)
			return
		}
		_ = res.Body.Close()
		answered <- res.StatusCode
	}()
	_ = a.Close()
	if code := <-answered; code != 200 {
		t.Errorf("the third, once there was room: %d", code)
	}
}

// What clients do to themselves does not count against the model: a trial must not be lost to it. A deadline of the model's
// own does.
func TestImpatientClients(t *testing.T) {
	r := echo(port("x", "i64", -1))
	entered, ended := make(chan struct{}, 1), make(chan error, 1)
	r.f = func(ctx context.Context, _ []engine.Tensor) ([]engine.Tensor, error) {
		entered <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}
	s := New(Config{Timeout: time.Hour})
	s.Swap("m", Model{dig, r})
	url, _ := serveOn(t, s)
	if code, _, v := do(t, "POST", url+"/v2/models/m/infer", "", strings.TrimSuffix(oneInt, "}")+`,"parameters":{"timeout":1000}}`); code != 504 {
		t.Errorf("its own timeout: %d %v", code, v)
	}
	<-entered
	<-ended
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/v2/models/m/infer", strings.NewReader(oneInt))
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-entered; cancel() }()
	if _, err := http.DefaultClient.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the client went away, and the inference ended with %v", err)
	}
	wait := func(want uint64) Stats {
		for {
			if st, _ := s.Stats("m"); st.Refused+st.Failed >= want {
				return st
			}
			time.Sleep(time.Millisecond)
		}
	}
	if st := wait(1); st.Failed != 0 || st.Refused != 1 || st.Samples != 0 {
		t.Errorf("counted against the model: %+v", st)
	}
	own := echo(port("x", "i64", -1))
	own.iface.Limits.TimeoutMS = 1
	own.f = r.f
	s.Swap("m", Model{digestN(1), own})
	if code, _, v := do(t, "POST", url+"/v2/models/m/infer", "", oneInt); code != 504 {
		t.Errorf("the model's own: %d %v", code, v)
	}
	<-entered
	<-ended
	if st := wait(1); st.Failed != 1 {
		t.Errorf("the model's own deadline: %+v", st)
	}
	http.DefaultClient.CloseIdleConnections()
}

// Saturated, over REST: 429 with times that follow the rate, and nobody who was let in is lost.
func TestSaturation(t *testing.T) {
	r := echo(port("x", "i64", -1))
	step := make(chan struct{})
	r.f = func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) { <-step; return ins, nil }
	s := New(Config{MaxInFlight: 2, MaxQueue: 6})
	s.Swap("m", Model{dig, r})
	url, _ := serveOn(t, s)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			res, err := client.Post(url+"/v2/models/m/infer", "application/json", strings.NewReader(oneInt))
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode == 429 {
				if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || n < 1 {
					t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
				}
			}
			mu.Lock()
			codes[res.StatusCode]++
			mu.Unlock()
		})
	}
	for {
		mu.Lock()
		n := codes[429]
		mu.Unlock()
		if n == 12 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(step)
	wg.Wait()
	if fmt.Sprint(codes) != "map[200:8 429:12]" {
		t.Errorf("answers %v", codes)
	}
}

// A runner that ignores its deadline holds a worker. When all are held the server is not live, whoever asks; while one works
// it is.
func TestWedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := echo(port("x", "i64", -1))
		release := make(chan struct{})
		r.f = func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) { <-release; return ins, nil }
		s := New(Config{MaxInFlight: 2, Timeout: time.Second})
		s.Swap("m", Model{dig, r})
		ask := func() {
			go func() {
				in := &incoming{protocol: "rest", model: "m", arrived: time.Now(), decode: func(p *codecPorts) (*request, error) {
					wr, err := parseRequest([]byte(oneInt))
					if err != nil {
						return nil, err
					}
					return wr.decode(nil, p)
				}, encode: func(*slot, *request, []engine.Tensor) error { return nil }}
				_ = s.infer(context.Background(), in, func(*slot) {})
			}()
			synctest.Wait()
		}
		healthy := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return s.Healthy(ctx)
		}
		ask()
		time.Sleep(time.Minute)
		if err := healthy(); err != nil {
			t.Errorf("one of two workers is held: %v", err)
		}
		ask()
		time.Sleep(10 * time.Second)
		if err := healthy(); err != nil {
			t.Errorf("too early: %v", err)
		}
		time.Sleep(time.Minute)
		if err := healthy(); err == nil || !strings.Contains(err.Error(), "all 2 workers") {
			t.Errorf("wedged: %v", err)
		}
		close(release)
		synctest.Wait()
		if err := healthy(); err != nil {
			t.Errorf("it goes on: %v", err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A lock that is never given back is seen too.
func TestLocked(t *testing.T) {
	s := New(Config{})
	s.mu.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Healthy(ctx); err == nil || !strings.Contains(err.Error(), "did not answer its own check") {
		t.Errorf("locked: %v", err)
	}
	s.mu.Unlock()
	if err := s.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

// Unready comes before refusing: whoever balances load has time to hear of it.
func TestDrainDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{DrainDelay: 5 * time.Second})
		s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
		drained := make(chan error, 1)
		go func() { drained <- s.Drain(t.Context()) }()
		synctest.Wait()
		if s.Ready() {
			t.Error("ready while it drains")
		}
		if err := s.begin(); err != nil {
			t.Errorf("refused within the delay: %v", err)
		}
		time.Sleep(6 * time.Second)
		if err := s.begin(); err == nil {
			t.Error("not refused after the delay")
		}
		select {
		case <-drained:
			t.Error("drained while a request runs")
		default:
		}
		s.finish()
		if err := <-drained; err != nil {
			t.Error(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestExpect(t *testing.T) {
	s := New(Config{})
	if s.Ready() {
		t.Error("ready without a model")
	}
	s.Expect("a", "b")
	s.Swap("a", Model{dig, constant(1)})
	if s.Ready() || fmt.Sprint(s.Missing()) != "[b]" {
		t.Errorf("missing %v", s.Missing())
	}
	s.Swap("b", Model{dig, constant(1)})
	for n := range int64(100) {
		s.Swap("b", Model{digestN(n), constant(n)})
		if !s.Ready() {
			t.Error("unready after a switch")
		}
	}
	s.Remove("a")
	if s.Ready() || fmt.Sprint(s.Missing()) != "[a]" {
		t.Errorf("a was removed; missing %v", s.Missing())
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
