package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/oip"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// serveOn runs s as a process would, REST and gRPC on one port, until the test ends or stop.
func serveOn(t *testing.T, s *Server) (url string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, time.Minute) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return "http://" + l.Addr().String(), stop
}

// h2c is a client that speaks HTTP/2 without TLS, as gRPC does.
func h2c(t *testing.T) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func method[Req, Res any](t *testing.T, url, name string, opts ...connect.ClientOption) *connect.Client[Req, Res] {
	return connect.NewClient[Req, Res](h2c(t), url+"/"+serviceName+"/"+name, append(opts, connect.WithGRPC())...)
}

func inferClient(t *testing.T, url string, opts ...connect.ClientOption) *connect.Client[oip.ModelInferRequest, oip.ModelInferResponse] {
	return method[oip.ModelInferRequest, oip.ModelInferResponse](t, url, "ModelInfer", opts...)
}

func rawInt(model string, v ...int64) *oip.ModelInferRequest {
	return &oip.ModelInferRequest{ModelName: model, Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "INT64", Shape: []int64{int64(len(v))}}},
		RawInputContents: [][]byte{engine.Of(v).Data}}
}

func TestGRPCMetadata(t *testing.T) {
	s := New(Config{Log: testLog(t)})
	s.Swap("m", Model{dig, echo(port("x", "f32", -1, 2))})
	s.Expect("m", "late")
	url, _ := serveOn(t, s)
	live, err := method[oip.ServerLiveRequest, oip.ServerLiveResponse](t, url, "ServerLive").CallUnary(t.Context(), connect.NewRequest(&oip.ServerLiveRequest{}))
	if err != nil || !live.Msg.GetLive() {
		t.Errorf("live %v %v", live, err)
	}
	ready := func() bool {
		res, err := method[oip.ServerReadyRequest, oip.ServerReadyResponse](t, url, "ServerReady").CallUnary(t.Context(), connect.NewRequest(&oip.ServerReadyRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg.GetReady()
	}
	health := grpchealth.NewClient(h2c(t), url, connect.WithGRPC())
	check := func() grpchealth.Status {
		res, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: serviceName})
		if err != nil {
			t.Fatal(err)
		}
		return res.Status
	}
	if ready() || check() != grpchealth.StatusNotServing {
		t.Error("ready without a model that is expected")
	}
	watching, unwatch := context.WithCancel(t.Context())
	defer unwatch()
	events := health.Watch(watching, &grpchealth.CheckRequest{})
	if e := <-events; e.Err != nil || e.Response.Status != grpchealth.StatusNotServing {
		t.Errorf("watch %+v", e)
	}
	s.Swap("late", Model{digestN(1), constant(1)})
	if e := <-events; e.Err != nil || e.Response.Status != grpchealth.StatusServing {
		t.Errorf("watch %+v", e)
	}
	if !ready() || check() != grpchealth.StatusServing {
		t.Error("not ready though all is there")
	}
	if _, err := health.Check(t.Context(), &grpchealth.CheckRequest{Service: "other"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("another service: %v", err)
	}
	for name, want := range map[string]bool{"m": true, "other": false} {
		res, err := method[oip.ModelReadyRequest, oip.ModelReadyResponse](t, url, "ModelReady").CallUnary(t.Context(), connect.NewRequest(&oip.ModelReadyRequest{Name: name}))
		if err != nil || res.Msg.GetReady() != want {
			t.Errorf("model %s: %v %v", name, res, err)
		}
	}
	meta, err := method[oip.ServerMetadataRequest, oip.ServerMetadataResponse](t, url, "ServerMetadata").CallUnary(t.Context(), connect.NewRequest(&oip.ServerMetadataRequest{}))
	if err != nil || meta.Msg.GetName() != "waybill" || !slices.Contains(meta.Msg.GetExtensions(), "binary_tensor_data") {
		t.Errorf("metadata %v %v", meta, err)
	}
	mm := method[oip.ModelMetadataRequest, oip.ModelMetadataResponse](t, url, "ModelMetadata")
	m, err := mm.CallUnary(t.Context(), connect.NewRequest(&oip.ModelMetadataRequest{Name: "m", Version: "1.2"}))
	if err != nil || m.Msg.GetInputs()[0].GetDatatype() != "FP32" || m.Msg.GetInputs()[0].GetShape()[1] != 2 || m.Msg.GetProperties()["digest"] != string(dig) || m.Msg.GetPlatform() != platform {
		t.Errorf("model metadata %v %v", m, err)
	}
	for _, req := range []*oip.ModelMetadataRequest{{Name: "other"}, {Name: "m", Version: "9"}} {
		if _, err := mm.CallUnary(t.Context(), connect.NewRequest(req)); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%v: %v", req, err)
		}
	}
}

// element gives two elements of each datatype at the ends of its range, as raw bytes.
func elements(d abi.DType) []byte {
	if d == abi.String {
		return appendBytes(appendBytes(nil, ""), "a\xffé\n")
	}
	n := d.Bits() / 8
	b := make([]byte, 2*n)
	for i := range b {
		b[i] = byte(0x81 + 37*i)
	}
	if d == abi.Bool {
		b = []byte{0, 1}
	}
	return b
}

var allTypes = []struct {
	dtype, oip string
}{
	{"bool", "BOOL"}, {"u8", "UINT8"}, {"u16", "UINT16"}, {"u32", "UINT32"}, {"u64", "UINT64"}, {"i8", "INT8"}, {"i16", "INT16"}, {"i32", "INT32"},
	{"i64", "INT64"}, {"f16", "FP16"}, {"bf16", "BF16"}, {"f32", "FP32"}, {"f64", "FP64"}, {"string", "BYTES"},
}

// Every datatype goes through raw contents bit for bit, and through typed ones where they have a field for it.
func TestGRPCDatatypes(t *testing.T) {
	s := New(Config{})
	for _, c := range allTypes {
		s.Swap(c.dtype, Model{dig, echo(port("x", c.dtype, -1, 2))})
	}
	url, _ := serveOn(t, s)
	for _, opts := range [][]connect.ClientOption{nil, {connect.WithSendGzip()}} {
		client := inferClient(t, url, opts...)
		for _, c := range allTypes {
			d, _ := abi.ParseDType(c.dtype)
			raw := elements(d)
			in := &oip.ModelInferRequest_InferInputTensor{Name: "x", Datatype: c.oip, Shape: []int64{1, 2}}
			res, err := client.CallUnary(t.Context(), connect.NewRequest(&oip.ModelInferRequest{ModelName: c.dtype, Id: "q",
				Inputs: []*oip.ModelInferRequest_InferInputTensor{in}, RawInputContents: [][]byte{raw}}))
			if err != nil {
				t.Errorf("%s: %v", c.oip, err)
				continue
			}
			m := res.Msg
			if m.GetId() != "q" || m.GetParameters()["digest"].GetStringParam() != string(dig) || res.Header().Get(DigestHeader) != string(dig) ||
				len(m.GetRawOutputContents()) != 1 || !bytes.Equal(m.GetRawOutputContents()[0], raw) || m.GetOutputs()[0].GetDatatype() != c.oip {
				t.Errorf("%s: %v", c.oip, m)
			}
			tt := engine.Tensor{DType: d, Shape: []int64{1, 2}, Data: raw}
			if d == abi.String {
				tt.Strings, tt.Data = []string{"", "a\xffé\n"}, nil
			}
			in.Contents = encodeContents(&tt)
			res, err = client.CallUnary(t.Context(), connect.NewRequest(&oip.ModelInferRequest{ModelName: c.dtype, Inputs: []*oip.ModelInferRequest_InferInputTensor{in}}))
			if c.oip == "FP16" || c.oip == "BF16" {
				if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "raw_input_contents") {
					t.Errorf("%s in contents: %v", c.oip, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s in contents: %v", c.oip, err)
				continue
			}
			if got := res.Msg.GetOutputs()[0].GetContents().String(); len(res.Msg.GetRawOutputContents()) != 0 || got != in.GetContents().String() {
				t.Errorf("%s in contents: %s, want %s", c.oip, got, in.GetContents())
			}
		}
	}
}

func TestGRPCErrors(t *testing.T) {
	r := echo(port("x", "i64", -1))
	s := New(Config{MaxBody: 4000, Log: testLog(t)})
	s.Swap("m", Model{dig, r})
	s.Swap("n", Model{dig, echo(port("x", "i8", -1), port("b", "bool", -1))})
	url, _ := serveOn(t, s)
	client := inferClient(t, url)
	tensor := func(name, dt string, shape ...int64) *oip.ModelInferRequest_InferInputTensor {
		return &oip.ModelInferRequest_InferInputTensor{Name: name, Datatype: dt, Shape: shape}
	}
	ints := func(v ...int32) *oip.ModelInferRequest_InferInputTensor {
		t := tensor("x", "INT8", int64(len(v)))
		t.Contents = &oip.InferTensorContents{IntContents: v}
		return t
	}
	type ins = []*oip.ModelInferRequest_InferInputTensor
	both := tensor("x", "INT64", 1)
	both.Contents = &oip.InferTensorContents{Int64Contents: []int64{1}}
	wrongField := tensor("x", "INT64", 1)
	wrongField.Contents = &oip.InferTensorContents{IntContents: []int32{1}}
	one := make([]byte, 8)
	seq := func(p map[string]*oip.InferParameter) *oip.ModelInferRequest {
		q := rawInt("m", 1)
		q.Parameters = p
		return q
	}
	for _, c := range []struct {
		name string
		req  *oip.ModelInferRequest
		code connect.Code
		want string
	}{
		{"model", rawInt("other", 1), connect.CodeNotFound, "there is m, n"},
		{"version", &oip.ModelInferRequest{ModelName: "m", ModelVersion: "7"}, connect.CodeNotFound, "has version 1.2 here"},
		{"no input", &oip.ModelInferRequest{ModelName: "m"}, connect.CodeInvalidArgument, `input "x" is missing`},
		{"unknown input", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("z", "INT64", 1)}, RawInputContents: [][]byte{one}}, connect.CodeInvalidArgument, `no input "z"`},
		{"twice", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("x", "INT64", 1), tensor("x", "INT64", 1)}, RawInputContents: [][]byte{one, one}}, connect.CodeInvalidArgument, "twice"},
		{"datatype", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("x", "FP64", 1)}, RawInputContents: [][]byte{one}}, connect.CodeInvalidArgument, "wants INT64"},
		{"negative", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("x", "INT64", -1)}, RawInputContents: [][]byte{one}}, connect.CodeInvalidArgument, "negative"},
		{"overflow", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("x", "INT64", math.MaxInt64, 3)}, RawInputContents: [][]byte{one}}, connect.CodeInvalidArgument, "too many"},
		{"short", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("x", "INT64", 2)}, RawInputContents: [][]byte{one}}, connect.CodeInvalidArgument, "needs 16 bytes, there are 8"},
		{"raws", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("x", "INT64", 1)}, RawInputContents: [][]byte{one, one}}, connect.CodeInvalidArgument, "2 raw_input_contents for 1 inputs"},
		{"both", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{both}, RawInputContents: [][]byte{one}}, connect.CodeInvalidArgument, "has contents"},
		{"field", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{wrongField}}, connect.CodeInvalidArgument, "another field"},
		{"count", &oip.ModelInferRequest{ModelName: "n", Inputs: ins{func() *oip.ModelInferRequest_InferInputTensor { t := ints(1, 2); t.Shape = []int64{3}; return t }()}}, connect.CodeInvalidArgument, "2 elements, shape [3] needs 3"},
		{"range", &oip.ModelInferRequest{ModelName: "n", Inputs: ins{ints(128)}}, connect.CodeInvalidArgument, "128 is out of the range of i8"},
		{"bool", &oip.ModelInferRequest{ModelName: "n", Inputs: ins{tensor("x", "INT8", 1), tensor("b", "BOOL", 1)}, RawInputContents: [][]byte{{1}, {2}}}, connect.CodeInvalidArgument, "neither true nor false"},
		{"output", &oip.ModelInferRequest{ModelName: "m", Inputs: ins{tensor("x", "INT64", 1)}, RawInputContents: [][]byte{one},
			Outputs: []*oip.ModelInferRequest_InferRequestedOutputTensor{{Name: "p"}}}, connect.CodeInvalidArgument, `no output "p"`},
		{"large", rawInt("m", make([]int64, 600)...), connect.CodeResourceExhausted, "message size"},
		{"stateless", seq(map[string]*oip.InferParameter{"sequence_id": textParam("s")}), connect.CodeInvalidArgument, "no state"},
		{"start alone", seq(map[string]*oip.InferParameter{"sequence_start": {ParameterChoice: &oip.InferParameter_BoolParam{BoolParam: true}}}), connect.CodeInvalidArgument, "need a sequence_id"},
		{"id type", seq(map[string]*oip.InferParameter{"sequence_id": {ParameterChoice: &oip.InferParameter_BoolParam{BoolParam: true}}}), connect.CodeInvalidArgument, "neither a text"},
	} {
		_, err := client.CallUnary(t.Context(), connect.NewRequest(c.req))
		if connect.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v, want %s with %q", c.name, err, c.code, c.want)
		}
	}
	// What the model itself refuses or breaks.
	for _, c := range []struct {
		err  error
		code connect.Code
	}{
		{&engine.InputError{Input: "x", Err: errors.New("e")}, connect.CodeInvalidArgument},
		{fmt.Errorf("m: %w", engine.ErrMemoryLimit), connect.CodeResourceExhausted},
		{&engine.TrapError{Step: "m", Err: errors.New("e")}, connect.CodeInternal},
		{engine.ErrClosed, connect.CodeUnavailable},
		{fmt.Errorf("m: %w", context.DeadlineExceeded), connect.CodeDeadlineExceeded},
	} {
		bad := echo(port("x", "i64", -1))
		bad.f = func(context.Context, []engine.Tensor) ([]engine.Tensor, error) { return nil, c.err }
		s.Swap("m", Model{dig, bad})
		if _, err := client.CallUnary(t.Context(), connect.NewRequest(rawInt("m", 1))); connect.CodeOf(err) != c.code {
			t.Errorf("%v: %v, want %s", c.err, err, c.code)
		}
	}
}

// A small message that decompresses to a large one is refused, and what it took is given back.
func TestGRPCBomb(t *testing.T) {
	t.Parallel()
	s := New(Config{MaxBody: 1 << 20})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, _ := serveOn(t, s)
	_, err := inferClient(t, url, connect.WithSendGzip()).CallUnary(t.Context(), connect.NewRequest(rawInt("m", make([]int64, 4<<20)...)))
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a bomb: %v", err)
	}
	if _, err := inferClient(t, url).CallUnary(t.Context(), connect.NewRequest(rawInt("m", 1))); err != nil {
		t.Error(err)
	}
}

// A client's deadline and its going away end the work, and neither is counted against the model.
func TestGRPCDeadlineAndCancel(t *testing.T) {
	t.Parallel()
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
	client := inferClient(t, url)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := client.CallUnary(ctx, connect.NewRequest(rawInt("m", 1))); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	<-entered
	<-ended
	ctx, cancel = context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := client.CallUnary(ctx, connect.NewRequest(rawInt("m", 1))); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("cancel: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the inference ended with %v", err)
	}
	q := rawInt("m", 1)
	q.Parameters = map[string]*oip.InferParameter{"timeout": {ParameterChoice: &oip.InferParameter_Int64Param{Int64Param: 2000}}}
	if _, err := client.CallUnary(t.Context(), connect.NewRequest(q)); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("timeout parameter: %v", err)
	}
	<-entered
	if st, _ := s.Stats("m"); st.Failed != 0 {
		t.Errorf("clients' impatience was counted as failures of the model: %+v", st)
	}
}

// Saturated: RESOURCE_EXHAUSTED that says when to come back; draining: UNAVAILABLE, after what runs was answered.
func TestGRPCSaturationAndDrain(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	r := echo(port("x", "i64", -1))
	r.f = func(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
		enter <- struct{}{}
		<-leave
		return ins, nil
	}
	s := New(Config{MaxInFlight: 1, MaxQueue: -1})
	s.Swap("m", Model{dig, r})
	url, stop := serveOn(t, s)
	client := inferClient(t, url)
	answer := make(chan error, 1)
	go func() {
		_, err := client.CallUnary(context.WithoutCancel(t.Context()), connect.NewRequest(rawInt("m", 1)))
		answer <- err
	}()
	<-enter
	_, err := client.CallUnary(t.Context(), connect.NewRequest(rawInt("m", 1)))
	var ce *connect.Error
	if !errors.As(err, &ce) || ce.Code() != connect.CodeResourceExhausted || ce.Meta().Get("Retry-After") == "" || ce.Meta().Get("Grpc-Retry-Pushback-Ms") == "" {
		t.Fatalf("saturated: %v", err)
	}
	d := ce.Details()
	if len(d) != 1 || d[0].Type() != "google.rpc.RetryInfo" {
		t.Fatalf("details %v", d)
	}
	if num, typ, n := protowire.ConsumeTag(d[0].Bytes()); num != 1 || typ != protowire.BytesType || n < 0 {
		t.Errorf("RetryInfo %x", d[0].Bytes())
	}
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	for s.Ready() {
		time.Sleep(time.Millisecond)
	}
	refused := func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.refusing
	}
	for !refused() {
		time.Sleep(time.Millisecond)
	}
	_, err = client.CallUnary(t.Context(), connect.NewRequest(rawInt("m", 1)))
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("draining: %v", err)
	}
	select {
	case <-stopped:
		t.Error("stopped while a request runs")
	default:
	}
	close(leave)
	if err := <-answer; err != nil {
		t.Errorf("the running request got %v", err)
	}
	<-stopped
}

// A stream answers in order, goes on after a request that fails, and ends with UNAVAILABLE when the server stops.
func TestGRPCStream(t *testing.T) {
	s := New(Config{})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, stop := serveOn(t, s)
	stream := method[oip.ModelInferRequest, oip.ModelStreamInferResponse](t, url, "ModelStreamInfer").CallBidiStream(t.Context())
	for i := range int64(50) {
		q := rawInt("m", i)
		q.Id = fmt.Sprint(i)
		if i == 20 {
			q.ModelName = "other"
		}
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
		if i%5 != 4 {
			continue
		}
		for k := i - 4; k <= i; k++ {
			res, err := stream.Receive()
			if err != nil {
				t.Fatal(err)
			}
			m := res.GetInferResponse()
			if k == 20 {
				if !strings.Contains(res.GetErrorMessage(), "not_found") || m.GetId() != "20" {
					t.Errorf("the failed one: %v", res)
				}
				continue
			}
			if res.GetErrorMessage() != "" || m.GetId() != fmt.Sprint(k) || binary.LittleEndian.Uint64(m.GetRawOutputContents()[0]) != uint64(k) {
				t.Errorf("answer %d: %v", k, res)
			}
		}
	}
	go stop()
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("the server stopped: %v", err)
	}
	_ = stream.CloseRequest()
	_ = stream.CloseResponse()
	stop()
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add("x", "INT64", int64(1), int64(1), make([]byte, 8), true)
	f.Add("s", "BYTES", int64(2), int64(1), []byte{1, 0, 0, 0, 'a', 255, 255, 255, 255}, true)
	f.Add("f", "FP16", int64(1<<62), int64(4), []byte{}, false)
	ports := newCodecPorts(&artifact.Interface{Inputs: []artifact.Port{{Name: "x", Kind: "optional", Elem: &artifact.Port{DType: "i64"}},
		{Name: "s", Kind: "optional", Elem: &artifact.Port{DType: "string"}}, {Name: "f", Kind: "optional", Elem: &artifact.Port{DType: "f16"}}},
		Outputs: []artifact.Port{port("x", "i64")}})
	f.Fuzz(func(t *testing.T, name, dt string, a, b int64, raw []byte, asRaw bool) {
		m := &oip.ModelInferRequest{Inputs: []*oip.ModelInferRequest_InferInputTensor{{Name: name, Datatype: dt, Shape: []int64{a, b}}}}
		if asRaw {
			m.RawInputContents = [][]byte{raw}
		} else {
			m.Inputs[0].Contents = &oip.InferTensorContents{BytesContents: [][]byte{raw}}
		}
		req, err := decodeMessage(m, &ports)
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

// A client that goes while its stream is answered, or right after, ends its own call and not the server.
func TestStreamsAbandoned(t *testing.T) {
	s := New(Config{Log: testLog(t)})
	s.Swap("m", Model{dig, echo(port("x", "i64", -1))})
	url, _ := serveOn(t, s)
	streams := method[oip.ModelInferRequest, oip.ModelStreamInferResponse](t, url, "ModelStreamInfer")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				stream := streams.CallBidiStream(ctx)
				if err := stream.Send(rawInt("m", 1)); err != nil {
					t.Error(err)
				}
				if i%3 > 0 {
					if _, err := stream.Receive(); err != nil {
						t.Error(err)
					}
				}
				if i%3 > 1 {
					_ = stream.CloseRequest() // the handler returns as the call is cancelled
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if _, err := inferClient(t, url).CallUnary(t.Context(), connect.NewRequest(rawInt("m", 1))); err != nil {
		t.Error(err)
	}
}
