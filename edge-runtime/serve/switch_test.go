package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/oip"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// network compiles a classifier of 30 features, a hidden layer of 16 and 2 classes, with weights of its own for each seed.
type network struct {
	module []byte
	iface  artifact.Interface
}

func newNetwork(t testing.TB, seed uint64) *network {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	weights := func(dims ...int64) *ir.Value {
		n, shape := int64(1), ir.Shape{Ranked: true}
		for _, d := range dims {
			n *= d
			shape.Dims = append(shape.Dims, ir.Dim{N: d})
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64() / 4)
		}
		return &ir.Value{Name: fmt.Sprint("w", dims, r.Uint64()), Type: ir.Type{DType: ir.F32, Shape: shape}, Const: &ir.Data{DType: ir.F32, Dims: dims, Bytes: engine.Of(v).Data}}
	}
	typ := func(d int64) ir.Type {
		return ir.Type{DType: ir.F32, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{{Sym: "N"}, {N: d}}}}
	}
	x := &ir.Value{Name: "x", Type: typ(30)}
	at, last := 0, x
	var nodes []*ir.Node
	node := func(op string, out int64, ins ...*ir.Value) {
		at++
		y := &ir.Value{Name: fmt.Sprint("v", at), Type: typ(out)}
		nodes = append(nodes, &ir.Node{ID: at, Op: op, Name: strings.ToLower(op) + fmt.Sprint(at), Ins: append([]*ir.Value{last}, ins...), Outs: []*ir.Value{y}})
		last = y
	}
	node("MatMul", 16, weights(30, 16))
	node("Add", 16, weights(16))
	node("Relu", 16)
	node("MatMul", 2, weights(16, 2))
	node("Add", 2, weights(2))
	last.Name = "y"
	res, err := codegen.Compile(&ir.Graph{Name: "net", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{last}, Nodes: nodes}}, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Weights != nil {
		t.Fatal("the constants are not in the module")
	}
	ref := artifact.FileRef{Path: "m.wasm", Digest: artifact.DigestOf(res.Module)}
	ins, outs := []artifact.Port{port("x", "f32", -1, 30)}, []artifact.Port{port("y", "f32", -1, 2)}
	n := &network{module: res.Module}
	n.iface = artifact.Interface{Schema: artifact.InterfaceSchema, Name: "net", Version: fmt.Sprint(seed),
		ABI: abi.Version, Inputs: ins, Outputs: outs, Module: ref, Nodes: res.Nodes,
		Steps:  []artifact.Step{{Kind: "model", Name: "net", File: ref, Inputs: ins, Outputs: outs}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: uint64(res.ArenaHint), Max: 16 << 20}}
	return n
}

func (n *network) load(t testing.TB, e *engine.Engine, version int) *engine.Model {
	t.Helper()
	i := n.iface
	i.Version = fmt.Sprint(version)
	m, err := e.Load(t.Context(), n.module, engine.WeightsSource{}, &i)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newEngine(t testing.TB) *engine.Engine {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// question is one request in the forms of the protocols, and what each of the two versions answers.
type question struct {
	json, binary []byte // binary: JSON of length header, then the tensor
	header       string
	message      *oip.ModelInferRequest
	answers      [2][]byte // y as bytes
}

func questions(t testing.TB, e *engine.Engine, nets [2]*network, n int) []question {
	t.Helper()
	models := [2]*engine.Model{nets[0].load(t, e, 0), nets[1].load(t, e, 1)}
	r := rand.New(rand.NewPCG(1, 2))
	qs := make([]question, n)
	for k := range qs {
		rows := int64(1 + k%3)
		v := make([]float32, 30*rows)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		x := engine.Of(v, rows, 30)
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		q := &qs[k]
		q.json = fmt.Appendf(nil, `{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,30],"data":%s}]}`, rows, text)
		doc := fmt.Appendf(nil, `{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,30],"parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, rows, len(x.Data))
		q.header, q.binary = fmt.Sprint(len(doc)), append(doc, x.Data...)
		q.message = &oip.ModelInferRequest{ModelName: "m", Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: x.Shape}}, RawInputContents: [][]byte{x.Data}}
		for i, m := range models {
			y, err := m.Run(t.Context(), []engine.Tensor{x})
			if err != nil {
				t.Fatal(err)
			}
			q.answers[i] = y[0].Data
		}
		if bytes.Equal(q.answers[0], q.answers[1]) {
			t.Fatal("both versions answer the same: nothing could be told")
		}
	}
	for _, m := range models {
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return qs
}

// asker asks one question over one protocol and returns the digest that the answer names and the bytes of y.
type asker func(ctx context.Context, q *question) (digest string, y []byte, err error)

func askREST(client *http.Client, url string, binary bool) asker {
	return func(ctx context.Context, q *question) (string, []byte, error) {
		body := q.json
		if binary {
			body = q.binary
		}
		req, err := http.NewRequestWithContext(ctx, "POST", url+"/v2/models/m/infer", bytes.NewReader(body))
		if err != nil {
			return "", nil, err
		}
		if binary {
			req.Header.Set(headerLength, q.header)
		}
		res, err := client.Do(req)
		if err != nil {
			return "", nil, err
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return "", nil, err
		}
		if res.StatusCode != 200 {
			return "", nil, fmt.Errorf("%s: %s", res.Status, b)
		}
		digest := res.Header.Get(DigestHeader)
		if !bytes.Contains(b, []byte(digest)) {
			return "", nil, fmt.Errorf("header %s, body %s", digest, b)
		}
		if binary {
			n, err := strconv.Atoi(res.Header.Get(headerLength))
			if err != nil || n > len(b) {
				return "", nil, fmt.Errorf("length of the header: %v", err)
			}
			return digest, b[n:], nil
		}
		var doc struct {
			Outputs []struct {
				Data []float32 `json:"data"`
			} `json:"outputs"`
		}
		if err := json.Unmarshal(b, &doc); err != nil || len(doc.Outputs) != 1 {
			return "", nil, fmt.Errorf("%s: %v", b, err)
		}
		return digest, engine.Of(doc.Outputs[0].Data).Data, nil
	}
}

func askGRPC(client *http.Client, url string) asker {
	c := connect.NewClient[oip.ModelInferRequest, oip.ModelInferResponse](client, url+"/"+serviceName+"/ModelInfer", connect.WithGRPC())
	return func(ctx context.Context, q *question) (string, []byte, error) {
		res, err := c.CallUnary(ctx, connect.NewRequest(q.message))
		if err != nil {
			return "", nil, err
		}
		digest := res.Header().Get(DigestHeader)
		if p := res.Msg.GetParameters()["digest"].GetStringParam(); p != digest || len(res.Msg.GetRawOutputContents()) != 1 {
			return "", nil, fmt.Errorf("metadata %s, answer %v", digest, res.Msg)
		}
		return digest, res.Msg.GetRawOutputContents()[0], nil
	}
}

// when tells what the device did while a request ran.
type when int

const (
	steady    when = iota
	control        // a moment as long as a switch, halfway between two: what happens to be running at a moment is slower than the rest
	loading        // the next model was being compiled
	switching      // a switch: from the call of Swap until the old model was let go
)

var whens = []when{steady, control, loading, switching}

type sample struct {
	from, took time.Duration // since the start
}

// TestSwitchUnderLoad keeps eight clients of both protocols asking a compiled model while it is replaced again and again:
// no request fails, every answer is bit for bit that of the version it names, nobody is answered by a version older than
// the one that served when the request was sent, and the server is ready throughout. WAYBILL_SWITCHES and
// WAYBILL_SWITCH_REQUESTS (per switch) make it longer.
func TestSwitchUnderLoad(t *testing.T) {
	switches, perSwitch := envInt(t, "WAYBILL_SWITCHES", 10), envInt(t, "WAYBILL_SWITCH_REQUESTS", 300)
	e := newEngine(t)
	nets := [2]*network{newNetwork(t, 1), newNetwork(t, 2)}
	qs := questions(t, e, nets, 60)
	s := New(Config{MaxQueue: 1024, Log: slog.New(slog.NewTextHandler(complaint{t}, nil))})
	number := sync.Map{}
	model := func(k int) Model {
		number.Store(string(digestN(int64(k))), k)
		return Model{digestN(int64(k)), nets[k%2].load(t, e, k)}
	}
	s.Swap("m", model(0))
	s.Expect("m")
	url, stop := serveOn(t, s)

	var current, asked, failed, wrong, unready atomic.Int64
	var polls atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	complain := func(n *atomic.Int64, format string, args ...any) {
		if n.Add(1) <= 5 {
			t.Errorf(format, args...)
		}
	}
	start := time.Now()
	var clients sync.WaitGroup
	samples := make([][]sample, 8)
	for c := range samples {
		h := h2c(t)
		ask := askGRPC(h, url)
		if c%2 == 0 {
			h = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer h.CloseIdleConnections()
			ask = askREST(h, url, c%4 == 0)
		}
		clients.Add(1)
		go func() {
			defer clients.Done()
			for i := c; ctx.Err() == nil; i++ {
				q := &qs[i%len(qs)]
				before := current.Load()
				from := time.Since(start)
				digest, y, err := ask(context.WithoutCancel(ctx), q)
				samples[c] = append(samples[c], sample{from, time.Since(start) - from})
				asked.Add(1)
				if err != nil {
					complain(&failed, "client %d: %v", c, err)
					continue
				}
				v, ok := number.Load(digest)
				if !ok {
					complain(&wrong, "client %d: an answer names %s", c, digest)
					continue
				}
				if k := v.(int); int64(k) < before || !bytes.Equal(y, q.answers[k%2]) {
					complain(&wrong, "client %d: version %d answers %x while %d served when it was asked; want %x", c, k, y, before, q.answers[k%2])
				}
			}
		}()
	}
	// Readiness is asked for all the time, over both protocols.
	clients.Add(1)
	go func() {
		defer clients.Done()
		h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
		defer h.CloseIdleConnections()
		health := grpchealth.NewClient(h2c(t), url, connect.WithGRPC())
		for ctx.Err() == nil {
			for _, path := range []string{"/v2/health/ready", "/v2/models/m/ready", "/v2/health/live"} {
				res, err := h.Get(url + path)
				if err != nil {
					complain(&unready, "%s: %v", path, err)
					return
				}
				_ = res.Body.Close()
				if res.StatusCode != 200 {
					complain(&unready, "%s: %s", path, res.Status)
				}
			}
			if res, err := health.Check(context.WithoutCancel(ctx), &grpchealth.CheckRequest{}); err != nil || res.Status != grpchealth.StatusServing {
				complain(&unready, "health: %v %v", res, err)
			}
			polls.Add(1)
			time.Sleep(time.Millisecond) // a probe, not a load
		}
	}()
	type span struct{ from, to time.Duration }
	var loads, swaps, controls []span
	for k := 1; k <= switches && !t.Failed(); k++ {
		for want := int64(k*perSwitch) - int64(perSwitch)/2; asked.Load() < want && !t.Failed(); {
			time.Sleep(100 * time.Microsecond)
		}
		from := time.Since(start)
		next := model(k)
		loads = append(loads, span{from, time.Since(start)})
		quiet := from
		if k > 1 {
			quiet = (from + swaps[k-2].to) / 2
		} else {
			quiet /= 2
		}
		from = time.Since(start)
		_, gone := s.Swap("m", next)
		current.Store(int64(k))
		<-gone
		swaps = append(swaps, span{from, time.Since(start)})
		controls = append(controls, span{quiet, quiet + time.Since(start) - from})
	}
	for asked.Load() < int64(switches*perSwitch) && !t.Failed() {
		time.Sleep(100 * time.Microsecond)
	}
	took := time.Since(start)
	cancel()
	clients.Wait()
	stop()

	lat := map[when][]time.Duration{}
	overlap := func(spans []span, x sample) bool {
		i, _ := slices.BinarySearchFunc(spans, x.from, func(s span, at time.Duration) int { return int(s.to - at) })
		return i < len(spans) && spans[i].from <= x.from+x.took
	}
	for _, c := range samples {
		for _, x := range c {
			switch {
			case overlap(swaps, x):
				lat[switching] = append(lat[switching], x.took)
			case overlap(loads, x):
				lat[loading] = append(lat[loading], x.took)
			case overlap(controls, x):
				lat[control] = append(lat[control], x.took)
			default:
				lat[steady] = append(lat[steady], x.took)
			}
		}
	}
	t.Log(histogram(lat))
	t.Logf("%.0f requests/s; %d probes of readiness, %d unready", float64(asked.Load())/took.Seconds(), polls.Load(), unready.Load())
	t.Logf("switch: %d requests, %d switches, %d failed, %d wrong", asked.Load(), len(swaps), failed.Load(), wrong.Load())
	if len(lat[switching]) == 0 {
		t.Error("no request ran during a switch: nothing was tested")
	}
}

func envInt(t testing.TB, name string, otherwise int) int {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number", name, v)
	}
	return n
}

// histogram shows latencies in steady state, during a load and at a switch, in parts of each.
func histogram(lat map[when][]time.Duration) string {
	var b strings.Builder
	bounds := []time.Duration{250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond,
		16 * time.Millisecond, 32 * time.Millisecond, 64 * time.Millisecond, 128 * time.Millisecond, 256 * time.Millisecond, time.Hour}
	fmt.Fprintf(&b, "\n%-12s %10s %10s %10s %10s\n", "latency", "steady", "control", "loading", "switching")
	for i, to := range bounds {
		from := time.Duration(0)
		if i > 0 {
			from = bounds[i-1]
		}
		label := "<= " + to.String()
		if i == len(bounds)-1 {
			label = "> " + from.String()
		}
		fmt.Fprintf(&b, "%-12s", label)
		for _, w := range whens {
			n := 0
			for _, d := range lat[w] {
				if d > from && d <= to {
					n++
				}
			}
			fmt.Fprintf(&b, " %9.3f%%", 100*float64(n)/float64(max(1, len(lat[w]))))
		}
		b.WriteByte('\n')
	}
	for _, p := range []float64{50, 99, 99.9, 100} {
		fmt.Fprintf(&b, "p%-11v", p)
		for _, w := range whens {
			v := lat[w]
			slices.Sort(v)
			if len(v) > 0 {
				fmt.Fprintf(&b, " %10s", v[min(len(v)-1, int(p/100*float64(len(v))))].Round(10*time.Microsecond))
			} else {
				fmt.Fprintf(&b, " %10s", "-")
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%-12s %10d %10d %10d %10d\n", "requests", len(lat[steady]), len(lat[control]), len(lat[loading]), len(lat[switching]))
	return b.String()
}

// held lets a request wait between taking its model and running it.
type held struct {
	*engine.Model
	enter, leave chan struct{}
}

// RunTimed implements timedRunner.
func (h held) RunTimed(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, time.Duration, error) {
	h.enter <- struct{}{}
	<-h.leave
	return h.Model.RunTimed(ctx, ins)
}

// The request that has taken the old model before a switch is answered by it; when the old model is closed at once, which
// is what the count of references prevents, that very request fails.
func TestSwitchClosesAfterTheLastRequest(t *testing.T) {
	e := newEngine(t)
	nets := [2]*network{newNetwork(t, 1), newNetwork(t, 2)}
	qs := questions(t, e, nets, 1)
	for _, mutant := range []bool{false, true} {
		s := New(Config{})
		old := held{nets[0].load(t, e, 0), make(chan struct{}), make(chan struct{})}
		s.Swap("m", Model{digestN(0), old})
		url, stop := serveOn(t, s)
		type answer struct {
			digest string
			y      []byte
			err    error
		}
		got := make(chan answer)
		h := h2c(t)
		go func() {
			d, y, err := askGRPC(h, url)(context.Background(), &qs[0])
			got <- answer{d, y, err}
		}()
		<-old.enter
		_, gone := s.Swap("m", Model{digestN(1), nets[1].load(t, e, 1)})
		if mutant {
			if err := old.Model.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-gone:
			t.Error("the old model was let go while a request works on it")
		default:
		}
		if d, y, err := askGRPC(h, url)(t.Context(), &qs[0]); err != nil || d != string(digestN(1)) || !bytes.Equal(y, qs[0].answers[1]) {
			t.Errorf("a request after the switch: %s %x %v", d, y, err)
		}
		close(old.leave)
		a := <-got
		if mutant {
			var ce *connect.Error
			if !errors.As(a.err, &ce) || ce.Code() != connect.CodeUnavailable {
				t.Errorf("the model was closed under a request, which was answered: %v", a)
			}
		} else if a.err != nil || a.digest != string(digestN(0)) || !bytes.Equal(a.y, qs[0].answers[0]) {
			t.Errorf("the request that ran through the switch: %v", a)
		}
		<-gone
		stop()
	}
}
