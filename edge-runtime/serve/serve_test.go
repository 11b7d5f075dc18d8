package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// runner is a model in Go: these tests are about the protocol and the swaps, the engine has its own.
type runner struct {
	iface  artifact.Interface
	f      func(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error)
	closed atomic.Bool
	busy   atomic.Int64
}

func (r *runner) Interface() *artifact.Interface { return &r.iface }

func (r *runner) Run(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
	r.busy.Add(1)
	defer r.busy.Add(-1)
	if r.closed.Load() {
		return nil, engine.ErrClosed
	}
	return r.f(ctx, ins)
}

func (r *runner) Close(context.Context) error {
	if r.busy.Load() != 0 {
		return fmt.Errorf("closed while %d calls run", r.busy.Load())
	}
	r.closed.Store(true)
	return nil
}

func port(name, dtype string, dims ...int64) artifact.Port {
	p := artifact.Port{Name: name, Kind: "tensor", DType: dtype, Ranked: true}
	for _, d := range dims {
		p.Shape = append(p.Shape, artifact.Dim{Size: d})
	}
	return p
}

func echo(ports ...artifact.Port) *runner {
	return &runner{iface: artifact.Interface{Name: "m", Version: "1.2", Inputs: ports, Outputs: ports},
		f: func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) { return ins, nil }}
}

const dig = artifact.Digest("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

func start(t *testing.T, cfg Config, r *runner) (*Server, *httptest.Server) {
	t.Helper()
	cfg.Log = testLog(t)
	s := New(cfg)
	if r != nil {
		s.Swap("m", Model{dig, r})
	}
	h := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		h.Close()
		if err := s.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return s, h
}

func do(t *testing.T, method, url, ct, body string) (int, http.Header, map[string]any) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if ct != "" {
		req.Header.Set("Content-Type", ct)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if len(b) > 0 && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s %s: the answer is no JSON: %s", method, url, b)
		}
	}
	return res.StatusCode, res.Header, v
}

func TestEndpoints(t *testing.T) {
	_, h := start(t, Config{}, echo(port("x", "f32", -1, 2)))
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/v2", 200, `"name":"waybill"`},
		{"GET", "/v2/", 200, `"extensions":["binary_tensor_data","sequence"]`},
		{"GET", "/v2/health/live", 200, `"live":true`},
		{"GET", "/v2/health/ready", 200, `"ready":true`},
		{"HEAD", "/v2/health/ready", 200, ""},
		{"GET", "/v2/models/m", 200, `"inputs":[{"datatype":"FP32","name":"x","shape":[-1,2]}]`},
		{"GET", "/v2/models/m", 200, string(dig)},
		{"GET", "/v2/models/m/versions/1.2", 200, `"platform":"waybill_wasm"`},
		{"GET", "/v2/models/m/versions/" + string(dig), 200, `"versions":["1.2"]`},
		{"GET", "/v2/models/m/ready", 200, `"ready":true`},
		{"GET", "/v2/models/m/versions/1.2/ready", 200, `"name":"m"`},
		{"GET", "/v2/models/m/versions/9", 404, `has version 1.2 here, not`},
		{"GET", "/v2/models/other", 404, `there is m`},
		{"GET", "/v2/models/m/infer", 405, `only POST`},
		{"POST", "/v2/models/m", 405, `only GET`},
		{"DELETE", "/v2", 405, `only GET`},
		{"GET", "/v1/models", 404, `below /v2`},
		{"GET", "/", 404, `error`},
	} {
		status, hdr, v := do(t, c.method, h.URL+c.path, "", "")
		b, _ := json.Marshal(v)
		if status != c.status || !strings.Contains(string(b), c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, status, b, c.status, c.want)
		}
		if status == 405 && hdr.Get("Allow") == "" {
			t.Errorf("%s %s: 405 without Allow", c.method, c.path)
		}
	}
}

// Every datatype goes through JSON and back unchanged, flat and nested, at the ends of its range.
func TestDatatypes(t *testing.T) {
	for _, c := range []struct {
		dtype, oip string
		data       string // two elements
		want       string // as the answer shows them, when it differs
	}{
		{"bool", "BOOL", `[true,false]`, ""},
		{"u8", "UINT8", `[0,255]`, ""},
		{"u16", "UINT16", `[0,65535]`, ""},
		{"u32", "UINT32", `[0,4294967295]`, ""},
		{"u64", "UINT64", `[0,18446744073709551615]`, ""},
		{"i8", "INT8", `[-128,127]`, ""},
		{"i16", "INT16", `[-32768,32767]`, ""},
		{"i32", "INT32", `[-2147483648,2147483647]`, ""},
		{"i64", "INT64", `[-9223372036854775808,9223372036854775807]`, ""},
		{"f16", "FP16", `[0.1,-65504]`, `[0.099975586,-65504]`},
		{"f16", "FP16", `[6e-8,"NaN"]`, `[5.9604645e-08,"NaN"]`},
		{"f32", "FP32", `[0.1,-3.4028235e+38]`, ""},
		{"f32", "FP32", `[null,"-Infinity"]`, `["NaN","-Infinity"]`},
		{"f32", "FP32", `[1e-45,"Infinity"]`, ""},
		{"f64", "FP64", `[0.1,5e-324]`, ""},
		{"f64", "FP64", `[-0,0.30000000000000004]`, ""},
		{"bf16", "BF16", `[1.5,0.1]`, `[1.5,0.100097656]`},
		{"string", "BYTES", `["","a\"\\\u00e9\ud83d\ude00<>&\n"]`, ``},
	} {
		t.Run(c.oip+c.data, func(t *testing.T) {
			_, h := start(t, Config{}, echo(port("x", c.dtype, -1, 2)))
			want := c.want
			if want == "" {
				want = c.data
			}
			for _, data := range []string{c.data, " [ " + c.data + " ] "} {
				body := fmt.Sprintf(`{"id":"q","inputs":[{"name":"x","datatype":%q,"shape":[1,2],"data":%s}]}`, c.oip, data)
				status, hdr, v := do(t, "POST", h.URL+"/v2/models/m/infer", "application/json", body)
				if status != 200 {
					t.Fatalf("%d %v", status, v)
				}
				if v["id"] != "q" || v["model_name"] != "m" || v["model_version"] != "1.2" || hdr.Get(DigestHeader) != string(dig) {
					t.Errorf("answer %v, header %v", v, hdr)
				}
				out := v["outputs"].([]any)[0].(map[string]any)
				if out["datatype"] != c.oip || fmt.Sprint(out["shape"]) != "[1 2]" {
					t.Errorf("output %v", out)
				}
				var w any
				d := json.NewDecoder(strings.NewReader(want))
				d.UseNumber()
				if err := d.Decode(&w); err != nil {
					t.Fatal(err)
				}
				a, _ := json.Marshal(out["data"])
				b, _ := json.Marshal(w)
				if !bytes.Equal(a, b) && !sameNumbers(out["data"].([]any), w.([]any)) {
					t.Errorf("data %s, want %s", a, b)
				}
			}
		})
	}
}

// sameNumbers compares numbers that may be written differently (-3.4e38 and its long decimal form).
func sameNumbers(a, b []any) bool {
	for i := range a {
		x, ok1 := a[i].(json.Number)
		y, ok2 := b[i].(json.Number)
		if ok1 != ok2 || !ok1 && a[i] != b[i] {
			return false
		}
		if ok1 {
			p, _ := x.Float64()
			q, _ := y.Float64()
			if float32(p) != float32(q) || math.Signbit(p) != math.Signbit(q) {
				return false
			}
		}
	}
	return len(a) == len(b)
}

func TestBadRequests(t *testing.T) {
	r := echo(port("x", "f32", -1, 2), port("n", "i8", 1))
	_, h := start(t, Config{MaxBody: 4000}, r)
	x := func(s string) string {
		return `{"inputs":[` + s + `,{"name":"n","datatype":"INT8","shape":[1],"data":[1]}]}`
	}
	for _, c := range []struct {
		name, ct, body string
		status         int
		want           string
	}{
		{"empty", "", ``, 400, "empty"},
		{"not json", "", `{"inputs":`, 400, "not the JSON object"},
		{"array", "", `[1]`, 400, "not the JSON object that the protocol wants: it is a JSON array"},
		{"field", "", x(`{"name":"x","datatype":"FP32","shape":[1.5,2],"data":[1,2]}`), 400, "inputs.shape cannot be a JSON number 1.5"},
		{"cut", "", `{"inputs":[{"name":`, 400, "ends in the middle"},
		{"form", "application/x-www-form-urlencoded", `inputs=1`, 400, "not the JSON object"},
		{"trailing", "", `{"inputs":[]} x`, 400, "after the request"},
		{"no inputs", "", `{}`, 400, `input "x" is missing`},
		{"unknown input", "", `{"inputs":[{"name":"z","datatype":"FP32","shape":[1],"data":[1]}]}`, 400, `no input "z"; it has x, n`},
		{"twice", "", x(`{"name":"n","datatype":"INT8","shape":[1],"data":[1]}`), 400, "twice"},
		{"no shape", "", x(`{"name":"x","datatype":"FP32","data":[1]}`), 400, "no shape"},
		{"negative", "", x(`{"name":"x","datatype":"FP32","shape":[-1,2],"data":[1]}`), 400, "negative"},
		{"overflow", "", x(`{"name":"x","datatype":"FP32","shape":[4611686018427387904,4],"data":[1]}`), 400, "too many"},
		{"huge", "", x(`{"name":"x","datatype":"FP32","shape":[1000000000,2],"data":[1]}`), 400, "fewer in data"},
		{"datatype", "", x(`{"name":"x","datatype":"FP64","shape":[1,2],"data":[1,2]}`), 400, `the model wants FP32`},
		{"no data", "", x(`{"name":"x","datatype":"FP32","shape":[0,2]}`), 400, "no data"},
		{"few", "", x(`{"name":"x","datatype":"FP32","shape":[1,2],"data":[1]}`), 400, "has 1 elements, shape [1 2] needs 2"},
		{"many", "", x(`{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2,3]}`), 400, "has 3 elements"},
		{"ragged", "", x(`{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2],[3]]}`), 400, "1 elements in dimension 1"},
		{"mixed", "", x(`{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,[2,3],4]}`), 400, "not flat"},
		{"deep", "", x(`{"name":"x","datatype":"FP32","shape":[1,2],"data":[[[1,2]]]}`), 400, "not flat"},
		{"rows", "", x(`{"name":"x","datatype":"FP32","shape":[1,2],"data":[[1,2],[3,4]]}`), 400, "more than 1 elements in dimension 0"},
		{"string", "", x(`{"name":"x","datatype":"FP32","shape":[1,2],"data":["a",1]}`), 400, `"a" is no number`},
		{"range", "", x(`{"name":"x","datatype":"FP32","shape":[1,2],"data":[1e39,1]}`), 400, "1e39 is out of the range of f32"},
		{"int range", "", `{"inputs":[{"name":"n","datatype":"INT8","shape":[1],"data":[128]}]}`, 400, "128 is out of the range of i8"},
		{"fraction", "", `{"inputs":[{"name":"n","datatype":"INT8","shape":[1],"data":[1.5]}]}`, 400, "1.5 is no value of i8"},
		{"output", "", `{"inputs":[{"name":"n","datatype":"INT8","shape":[1],"data":[1]},{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}],"outputs":[{"name":"p"}]}`, 400, `no output "p"`},
		{"content type", "text/csv", `1,2`, 415, "text/csv"},
		{"charset", "application/json; charset=latin-1", `{}`, 415, "latin-1"},
		{"large", "", `{"id":"` + strings.Repeat("a", 5000) + `"}`, 413, "larger than 4000 bytes"},
	} {
		status, _, v := do(t, "POST", h.URL+"/v2/models/m/infer", c.ct, c.body)
		msg, _ := v["error"].(string)
		if status != c.status || !strings.Contains(msg, c.want) || len(v) != 1 {
			t.Errorf("%s: %d %v, want %d with %q", c.name, status, v, c.status, c.want)
		}
	}
}

func TestOutputSelection(t *testing.T) {
	r := echo(port("a", "i64", -1), port("b", "string", -1))
	_, h := start(t, Config{}, r)
	body := `{"inputs":[{"name":"b","datatype":"BYTES","shape":[1],"data":["s"]},{"name":"a","datatype":"INT64","shape":[0],"data":[]}],` +
		`"parameters":{"k":1},"outputs":[{"name":"b","parameters":{}}]}`
	status, _, v := do(t, "POST", h.URL+"/v2/models/m/infer", "application/json; charset=UTF-8", body)
	outs, _ := v["outputs"].([]any)
	if status != 200 || len(outs) != 1 || outs[0].(map[string]any)["name"] != "b" {
		t.Fatalf("%d %v", status, v)
	}
	if _, ok := v["id"]; ok {
		t.Error("an id that the request did not have")
	}
}

// A classifier's sequence of maps is one JSON text, marked as such.
func TestContainerOutput(t *testing.T) {
	r := echo(port("x", "i64", -1))
	r.iface.Outputs = []artifact.Port{{Name: "p", Kind: "sequence"}}
	m := engine.Tensor{Kind: abi.Map, Elems: []engine.Tensor{engine.Of([]int64{0, 1}), engine.Of([]float32{0.25, 0.75})}}
	r.f = func(context.Context, []engine.Tensor) ([]engine.Tensor, error) {
		return []engine.Tensor{{Kind: abi.Sequence, Elems: []engine.Tensor{m}}}, nil
	}
	_, h := start(t, Config{}, r)
	status, _, v := do(t, "POST", h.URL+"/v2/models/m/infer", "", `{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[1]}]}`)
	if status != 200 {
		t.Fatal(v)
	}
	out := v["outputs"].([]any)[0].(map[string]any)
	if got := out["data"].([]any)[0]; got != `[{"0":0.25,"1":0.75}]` || out["datatype"] != "BYTES" {
		t.Errorf("output %v", out)
	}
}

func TestErrorsOfTheModel(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{&engine.InputError{Input: "x", Err: io.EOF}, 400},
		{&engine.GuestError{Step: "m", Code: abi.ErrIndex}, 400},
		{&engine.GuestError{Step: "m", Code: abi.ErrMemory}, 500},
		{fmt.Errorf("m: %w", engine.ErrMemoryLimit), 413},
		{&engine.TrapError{Step: "m", Err: io.EOF}, 500},
		{&engine.ProtocolError{Step: "m", Err: io.EOF}, 500},
		{engine.ErrClosed, 503},
		{fmt.Errorf("m: %w", context.DeadlineExceeded), 504},
	} {
		r := echo(port("x", "i64", -1))
		r.f = func(context.Context, []engine.Tensor) ([]engine.Tensor, error) { return nil, c.err }
		s, h := start(t, Config{}, r)
		status, hdr, v := do(t, "POST", h.URL+"/v2/models/m/infer", "", `{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[1]}]}`)
		if status != c.status || v["error"] == nil {
			t.Errorf("%v: %d %v, want %d", c.err, status, v, c.status)
		}
		if status == 503 && hdr.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		st, _ := s.Stats("m")
		if bad := c.status >= 500; bad && (st.Failed != 1 || st.Refused != 0) || !bad && (st.Failed != 0 || st.Refused != 1) || st.OK != 0 {
			t.Errorf("%v: stats %+v", c.err, st)
		}
	}
}

const oneInt = `{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[1]}]}`

// The model's own limit ends a request that takes longer, with 504.
func TestDeadline(t *testing.T) {
	r := echo(port("x", "i64", -1))
	r.iface.Limits.TimeoutMS = 5
	r.f = func(ctx context.Context, _ []engine.Tensor) ([]engine.Tensor, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s, h := start(t, Config{Timeout: time.Hour}, r)
	if status, _, v := do(t, "POST", h.URL+"/v2/models/m/infer", "", oneInt); status != 504 {
		t.Errorf("%d %v", status, v)
	}
	if st, _ := s.Stats("m"); st.Failed != 1 || st.OK != 0 || st.Samples != 1 {
		t.Errorf("stats %+v", st)
	}
}

func TestOverloadAndDrain(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	r := echo(port("x", "i64", -1))
	r.f = func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
		enter <- struct{}{}
		<-leave
		return ins, nil
	}
	s, h := start(t, Config{MaxInFlight: 1, MaxQueue: -1}, r)
	answer := make(chan int)
	go func() {
		res, err := http.Post(h.URL+"/v2/models/m/infer", "application/json", strings.NewReader(oneInt))
		if err != nil {
			answer <- 0
			return
		}
		_ = res.Body.Close()
		answer <- res.StatusCode
	}()
	<-enter
	status, hdr, _ := do(t, "POST", h.URL+"/v2/models/m/infer", "", oneInt)
	if status != 429 || hdr.Get("Retry-After") == "" {
		t.Errorf("overload: %d, Retry-After %q", status, hdr.Get("Retry-After"))
	}
	drained := make(chan error)
	go func() { drained <- s.Drain(t.Context()) }()
	for s.Ready() {
		time.Sleep(time.Millisecond)
	}
	if status, _, v := do(t, "GET", h.URL+"/v2/health/ready", "", ""); status != 503 || v["ready"] != false {
		t.Errorf("draining: ready %d %v", status, v)
	}
	if status, _, _ := do(t, "GET", h.URL+"/v2/health/live", "", ""); status != 200 {
		t.Errorf("draining: live %d", status)
	}
	select {
	case err := <-drained:
		t.Errorf("drained while a request runs: %v", err)
	default:
	}
	close(leave)
	if got := <-answer; got != 200 {
		t.Errorf("the running request got %d", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if status, _, _ := do(t, "POST", h.URL+"/v2/models/m/infer", "", oneInt); status != 503 {
		t.Errorf("after the drain: %d", status)
	}
}

func TestNotReadyWithoutModel(t *testing.T) {
	s, h := start(t, Config{}, nil)
	if status, _, _ := do(t, "GET", h.URL+"/v2/health/ready", "", ""); status != 503 {
		t.Errorf("ready %d", status)
	}
	if status, _, v := do(t, "POST", h.URL+"/v2/models/m/infer", "", oneInt); status != 404 {
		t.Errorf("infer %d %v", status, v)
	}
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	if status, _, _ := do(t, "GET", h.URL+"/v2/health/ready", "", ""); status != 200 {
		t.Errorf("ready %d after a swap", status)
	}
}

// constant answers every request with its number.
func constant(n int64) *runner {
	r := echo(port("x", "i64", -1))
	r.f = func(context.Context, []engine.Tensor) ([]engine.Tensor, error) {
		return []engine.Tensor{engine.Of([]int64{n})}, nil
	}
	return r
}

func digestN(n int64) artifact.Digest { return artifact.DigestOf(fmt.Append(nil, n)) }

// Requests keep coming while models are swapped: none fails, each answer fits the digest that it names, every replaced
// model is closed, none while it works.
func TestSwapUnderLoad(t *testing.T) {
	s, h := start(t, Config{}, constant(0))
	s.Swap("m", Model{digestN(0), constant(0)})
	number := sync.Map{}
	for n := range int64(200) {
		number.Store(string(digestN(n)), n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var answers atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				res, err := client.Post(h.URL+"/v2/models/m/infer", "application/json", strings.NewReader(oneInt))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != 200 {
					t.Errorf("%d %s %v", res.StatusCode, b, err)
					return
				}
				n, ok := number.Load(res.Header.Get(DigestHeader))
				if !ok || !strings.Contains(string(b), fmt.Sprintf(`"data":[%d]`, n)) || !strings.Contains(string(b), res.Header.Get(DigestHeader)) {
					t.Errorf("answer %s under digest %s", b, res.Header.Get(DigestHeader))
					return
				}
				answers.Add(1)
			}
		}()
	}
	old := make([]*runner, 0, 200)
	var gone []<-chan struct{}
	for n := int64(1); n < 200; n++ {
		for want := answers.Load() + 3; answers.Load() < want && !t.Failed(); {
			time.Sleep(50 * time.Microsecond)
		}
		r := constant(n)
		prev, g := s.Swap("m", Model{digestN(n), r})
		if prev != digestN(n-1) {
			t.Errorf("swap %d replaced %s", n, prev)
		}
		gone = append(gone, g)
		old = append(old, r)
	}
	cancel()
	wg.Wait()
	for _, g := range gone {
		<-g
	}
	for n, r := range old[:len(old)-1] {
		if !r.closed.Load() {
			t.Errorf("model %d was replaced but not closed", n+1)
		}
	}
	if old[len(old)-1].closed.Load() {
		t.Error("the active model was closed")
	}
	client.CloseIdleConnections()
}

func TestStatsWindow(t *testing.T) {
	w := newWindow(100)
	for i := 1; i <= 250; i++ {
		w.answered(time.Duration(i))
	}
	s := w.snapshot()
	if s.OK != 250 || s.Samples != 100 || s.P50 != 200 || s.P99 != 249 || s.Max != 250 {
		t.Errorf("stats %+v", s)
	}
	w.reset()
	if s := w.snapshot(); s.OK != 0 || s.Samples != 0 || s.P99 != 0 {
		t.Errorf("after reset %+v", s)
	}
	w.answered(7)
	if s := w.snapshot(); s.P50 != 7 || s.P99 != 7 {
		t.Errorf("one sample %+v", s)
	}
}

func TestMetrics(t *testing.T) {
	_, h := start(t, Config{}, echo(port("x", "i64", -1)))
	do(t, "POST", h.URL+"/v2/models/m/infer", "", oneInt)
	do(t, "POST", h.URL+"/v2/models/m/infer", "", `{}`)
	res, err := http.Get(h.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	for _, want := range []string{
		`waybill_requests_total{model="m",digest="` + string(dig) + `",code="200"} 1`,
		`waybill_requests_total{model="m",digest="` + string(dig) + `",code="400"} 1`,
		`waybill_inference_seconds_bucket{model="m",digest="` + string(dig) + `",le="+Inf"} 1`,
		`waybill_inference_seconds_count{model="m",digest="` + string(dig) + `"} 1`,
		`waybill_requests_in_flight{model="m"} 0`,
		`waybill_model_active{model="m",digest="` + string(dig) + `"} 1`,
	} {
		if !strings.Contains(string(b), want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// Serve ends cleanly when its context does.
func TestServe(t *testing.T) {
	s := New(Config{})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l, time.Minute) }()
	if status, _, _ := do(t, "GET", "http://"+l.Addr().String()+"/v2/health/ready", "", ""); status != 200 {
		t.Errorf("ready %d", status)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// All 65,536 halves survive widening and rounding; ties go to even.
func TestHalf(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		v := fromF16(h)
		got := toF16(v)
		if v != v {
			if got&0x7fff != 0x7e00 {
				t.Fatalf("NaN %#x became %#x", h, got)
			}
		} else if got != h {
			t.Fatalf("%#x is %v, which rounds to %#x", h, v, got)
		}
	}
	for _, c := range []struct {
		v    float64
		want uint16
	}{{1 + 1.0/2048, 0x3c00}, {1 + 3.0/2048, 0x3c02}, {65519.99, 0x7bff}, {65520, 0x7c00}, {math.Ldexp(1, -25), 0}, {math.Ldexp(1.5, -25), 1}} {
		if got := toF16(c.v); got != c.want {
			t.Errorf("%v rounds to %#x, want %#x", c.v, got, c.want)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte(oneInt))
	f.Add([]byte(`{"id":"","inputs":[{"name":"s","datatype":"BYTES","shape":[1,1],"data":[["\ud800"]]}],"outputs":[{"name":"x"}]}`))
	f.Add([]byte(`{"inputs":[{"name":"f","datatype":"FP32","shape":[2,0],"data":[[],[]]},{"name":"x","datatype":"INT64","shape":[],"data":[1]}]}`))
	ports := newCodecPorts(&artifact.Interface{Inputs: []artifact.Port{port("x", "i64"), {Name: "s", Kind: "optional", Elem: &artifact.Port{DType: "string"}},
		{Name: "f", Kind: "optional", Elem: &artifact.Port{DType: "f32"}}}, Outputs: []artifact.Port{port("x", "i64")}})
	f.Fuzz(func(t *testing.T, raw []byte) {
		wr, err := parseRequest(raw)
		if err != nil {
			return
		}
		req, err := wr.decode(nil, &ports)
		if err != nil {
			return
		}
		for i := range req.inputs {
			if err := req.inputs[i].Check(); err != nil {
				t.Errorf("accepted a malformed tensor: %v", err)
			}
		}
	})
}
