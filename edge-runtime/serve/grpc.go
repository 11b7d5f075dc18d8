package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/oip"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
)

// serviceName is the protocol's name for itself over gRPC.
const serviceName = "inference.GRPCInferenceService"

const (
	streamIdle  = 10 * time.Minute // between two messages of ModelStreamInfer
	maxWatchers = 64               // clients of grpc.health.v1.Health/Watch at once
)

// rpc serves the protocol over gRPC (and gRPC-Web and Connect, which come with the library). It does what REST does: only
// the forms of messages and errors differ.
type rpc struct {
	s        *Server
	watchers atomic.Int64
}

// handleGRPC adds the gRPC services to mux: inference and health. Reflection would cost 0.4 MB; clients bring the .proto.
func (s *Server) handleGRPC(mux *http.ServeMux) {
	r := &rpc{s: s}
	opts := []connect.HandlerOption{
		connect.WithReadMaxBytes(int(s.cfg.MaxBody)), // of a message, before and after decompression
		connect.WithCompressMinBytes(1 << 10),
	}
	small := []connect.HandlerOption{connect.WithReadMaxBytes(64 << 10)}
	unary(mux, s, "ServerLive", r.serverLive, small)
	unary(mux, s, "ServerReady", r.serverReady, small)
	unary(mux, s, "ModelReady", r.modelReady, small)
	unary(mux, s, "ServerMetadata", r.serverMetadata, small)
	unary(mux, s, "ModelMetadata", r.modelMetadata, small)
	unary(mux, s, "ModelInfer", r.modelInfer, opts)
	const stream = "/" + serviceName + "/ModelStreamInfer"
	mux.Handle(stream, s.call(connect.NewBidiStreamHandler(stream, r.modelStreamInfer, append(opts[:len(opts):len(opts)], receives[*oip.ModelInferRequest]())...)))
	path, h := grpchealth.NewHandler(r, small...)
	mux.Handle(path, unlimited(h))
}

// message is any message of the protocol. The library's generic code is compiled once for it; with a type of its own for each
// message it would be 100 kB more of the device's program.
type message struct{ proto.Message }

// receives tells the library what message requests of a procedure are.
func receives[Req proto.Message]() connect.HandlerOption {
	return connect.WithRequestInitializer(func(_ connect.Spec, m any) error {
		var none Req
		m.(*message).Message = none.ProtoReflect().New().Interface()
		return nil
	})
}

// unary adds the procedure of one request and one answer. f sets header fields of the answer in header.
func unary[Req, Res proto.Message](mux *http.ServeMux, s *Server, name string, f func(ctx context.Context, req Req, header http.Header) (Res, error), opts []connect.HandlerOption) {
	procedure := "/" + serviceName + "/" + name
	h := func(ctx context.Context, req *connect.Request[message]) (*connect.Response[message], error) {
		res := connect.NewResponse(&message{})
		m, err := f(ctx, req.Msg.Message.(Req), res.Header())
		if err != nil {
			return nil, err
		}
		res.Msg.Message = m
		return res, nil
	}
	mux.Handle(procedure, s.call(connect.NewUnaryHandler(procedure, h, append(opts[:len(opts):len(opts)], receives[Req]())...)))
}

// isGRPC tells whether the client of r speaks gRPC over HTTP/2.
func isGRPC(r *http.Request) bool {
	ct := r.Header.Get("Content-Type")
	return r.ProtoMajor == 2 && (ct == "application/grpc" || strings.HasPrefix(ct, "application/grpc+"))
}

// noSuchCall answers a gRPC call that is none of ours as gRPC wants it, with headers alone: of another answer clients show the
// HTTP status and nothing else.
func noSuchCall(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(int(connect.CodeUnimplemented)))
	h.Set("Grpc-Message", "there is no such call here; this server has those of "+serviceName+" and grpc.health.v1.Health")
	w.WriteHeader(http.StatusOK)
}

// call is what one gRPC call holds of the server.
type call struct {
	s       *Server
	r       *http.Request
	arrived time.Time
	body    *body
	rc      *http.ResponseController
	open    bool
}

type callKey struct{}

// call bounds the body of a gRPC call in time and memory.
func (s *Server) call(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{s: s, r: r, arrived: time.Now(), body: &body{ReadCloser: r.Body, s: s}, rc: http.NewResponseController(w)}
		defer c.body.release()
		defer c.end()
		c.extend(s.cfg.BodyTimeout)
		r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
		r.Body = rpcBody{c.body, c}
		h.ServeHTTP(w, r)
	})
}

// unlimited lifts the deadlines of a stream that lasts as long as its client likes.
func unlimited(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_, _ = rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})
		h.ServeHTTP(w, r)
	})
}

// extend gives the client so much more time for its next message, and to read the answer to it.
func (c *call) extend(d time.Duration) {
	at := time.Now().Add(d)
	_ = c.rc.SetReadDeadline(at) // not every ResponseWriter can, those of net/http do
	_ = c.rc.SetWriteDeadline(at.Add(c.s.cfg.Timeout + time.Minute))
}

// begin counts the request that the call has brought until end: that is after its answer was written.
func (c *call) begin() error {
	err := c.s.begin()
	c.open = err == nil
	return err
}

func (c *call) end() {
	if c.open {
		c.open = false
		c.s.finish()
	}
}

// rpcBody gives errors of the body in the form that the library keeps.
type rpcBody struct {
	*body
	c *call
}

// Read implements io.Reader.
func (b rpcBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	var he *httpError
	if errors.As(err, &he) {
		err = rpcError(he)
	}
	if err == io.EOF {
		_ = b.c.rc.SetReadDeadline(time.Time{}) // from here on it would end the inference
	}
	return n, err
}

// codes maps statuses of REST; docs/serving.md has the table.
func code(status int) connect.Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType:
		return connect.CodeInvalidArgument
	case http.StatusNotFound:
		return connect.CodeNotFound
	case http.StatusGone:
		return connect.CodeFailedPrecondition
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		return connect.CodeResourceExhausted
	case http.StatusServiceUnavailable:
		return connect.CodeUnavailable
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return connect.CodeDeadlineExceeded
	case statusClientClosedRequest:
		return connect.CodeCanceled
	}
	return connect.CodeInternal
}

// rpcError gives an error with its code, and when to come back as google.rpc.RetryInfo and in the metadata.
func rpcError(err error) error {
	he := &httpError{status: http.StatusInternalServerError, err: err}
	errors.As(err, &he)
	e := connect.NewError(code(he.status), he.err)
	if he.retry <= 0 {
		return e
	}
	e.Meta().Set("Retry-After", strconv.Itoa(int((he.retry+time.Second-1)/time.Second)))
	e.Meta().Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(he.retry.Milliseconds(), 10))
	if delay, err := proto.Marshal(durationpb.New(he.retry)); err == nil {
		info := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), delay)
		if d, err := connect.NewErrorDetail(&anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo", Value: info}); err == nil {
			e.AddDetail(d)
		}
	}
	return e
}

func (r *rpc) serverLive(ctx context.Context, _ *oip.ServerLiveRequest, _ http.Header) (*oip.ServerLiveResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	return &oip.ServerLiveResponse{Live: r.s.Healthy(ctx) == nil}, nil
}

func (r *rpc) serverReady(context.Context, *oip.ServerReadyRequest, http.Header) (*oip.ServerReadyResponse, error) {
	return &oip.ServerReadyResponse{Ready: r.s.Ready()}, nil
}

func (r *rpc) modelReady(_ context.Context, req *oip.ModelReadyRequest, header http.Header) (*oip.ModelReadyResponse, error) {
	sl, err := r.s.find(req.GetName(), req.GetVersion())
	if err != nil {
		return &oip.ModelReadyResponse{}, nil // Triton and its clients ask whether there is such a model
	}
	defer sl.release()
	header.Set(DigestHeader, sl.Digest())
	return &oip.ModelReadyResponse{Ready: !r.s.isDraining()}, nil
}

func (r *rpc) serverMetadata(context.Context, *oip.ServerMetadataRequest, http.Header) (*oip.ServerMetadataResponse, error) {
	return &oip.ServerMetadataResponse{Name: "waybill", Version: version.Number, Extensions: extensions()}, nil
}

func (r *rpc) modelMetadata(_ context.Context, req *oip.ModelMetadataRequest, header http.Header) (*oip.ModelMetadataResponse, error) {
	sl, err := r.s.find(req.GetName(), req.GetVersion())
	if err != nil {
		return nil, rpcError(err)
	}
	defer sl.release()
	i := sl.model.Runner.Interface()
	m := &oip.ModelMetadataResponse{
		Name: sl.name, Versions: []string{i.Version}, Platform: platform, Properties: map[string]string{"digest": sl.Digest()},
	}
	for _, t := range describePorts(i.Inputs) {
		m.Inputs = append(m.Inputs, &oip.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape})
	}
	for _, t := range describePorts(i.Outputs) {
		m.Outputs = append(m.Outputs, &oip.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape})
	}
	header.Set(DigestHeader, sl.Digest())
	return m, nil
}

func (r *rpc) modelInfer(ctx context.Context, req *oip.ModelInferRequest, header http.Header) (*oip.ModelInferResponse, error) {
	c, _ := ctx.Value(callKey{}).(*call)
	if err := c.begin(); err != nil {
		r.s.cfg.Metrics.Request("", "", http.StatusServiceUnavailable)
		return nil, rpcError(err)
	}
	var digest string
	answer, err := r.infer(ctx, req, c.arrived, &digest)
	if err != nil {
		e := rpcError(err)
		var ce *connect.Error
		if digest != "" && errors.As(e, &ce) {
			ce.Meta().Set(DigestHeader, digest)
		}
		return nil, e
	}
	header.Set(DigestHeader, digest)
	return answer, nil
}

func (r *rpc) infer(ctx context.Context, m *oip.ModelInferRequest, arrived time.Time, digest *string) (answer *oip.ModelInferResponse, err error) {
	in := &incoming{
		protocol: "grpc", model: m.GetModelName(), version: m.GetModelVersion(), arrived: arrived,
		decode: func(ports *codecPorts) (*request, error) { return decodeMessage(m, ports) },
		encode: func(sl *slot, req *request, outs []engine.Tensor) (err error) {
			answer, err = encodeMessage(sl, req, outs)
			return err
		},
	}
	if in.params, err = messageParams(m.GetParameters()); err != nil {
		return nil, r.s.turnedAway(ctx, "", fail(http.StatusBadRequest, "%w", err))
	}
	err = r.s.infer(ctx, in, func(sl *slot) { *digest = sl.Digest() })
	var he *httpError
	if errors.As(err, &he) {
		if c, ok := ctx.Value(callKey{}).(*call); ok {
			r.s.logFailure(c.r, arrived, he)
		}
	}
	return answer, err
}

// modelStreamInfer answers the requests of a stream in their order. A request that fails does not end the stream.
func (r *rpc) modelStreamInfer(ctx context.Context, stream *connect.BidiStream[message, message]) error {
	c, _ := ctx.Value(callKey{}).(*call)
	woken := make(chan struct{})
	wake := context.AfterFunc(ctx, func() { // the stream waits for the client, not for ctx
		defer close(woken)
		_ = c.rc.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !wake() {
			<-woken // net/http does not bear a deadline set after the handler has returned: the process would end
		}
	}()
	for {
		c.extend(streamIdle)
		if ctx.Err() != nil {
			_ = c.rc.SetReadDeadline(time.Unix(1, 0)) // which extend has lifted
		}
		received, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if ctx.Err() != nil && r.s.isDraining() {
				return connect.NewError(connect.CodeUnavailable, errors.New("the server is shutting down"))
			}
			return err
		}
		if err := c.begin(); err != nil {
			return rpcError(err)
		}
		var digest string
		m := received.Message.(*oip.ModelInferRequest)
		answer, err := r.infer(ctx, m, time.Now(), &digest)
		res := &oip.ModelStreamInferResponse{InferResponse: answer}
		if err != nil {
			res.ErrorMessage = fmt.Sprintf("%s: %s", code(statusOf(err)), err)
			res.InferResponse = &oip.ModelInferResponse{Id: m.GetId(), ModelName: m.GetModelName()}
		}
		err = stream.Send(&message{res})
		c.body.release()
		c.end()
		if err != nil {
			return err
		}
	}
}

func statusOf(err error) int {
	he := &httpError{status: http.StatusInternalServerError}
	errors.As(err, &he)
	return he.status
}

// Check implements grpchealth.Checker: the server's readiness.
func (r *rpc) Check(_ context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if req.Service != "" && req.Service != serviceName {
		return nil, connect.NewError(connect.CodeNotFound, diag.Errorf("there is no service %q here", req.Service))
	}
	if r.s.Ready() {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
}

// Watch implements grpchealth.Watcher.
func (r *rpc) Watch(ctx context.Context, req *grpchealth.CheckRequest, changed func()) (stop func(), err error) {
	if _, err := r.Check(ctx, req); err != nil {
		return nil, err
	}
	if r.watchers.Add(1) > maxWatchers {
		r.watchers.Add(-1)
		return nil, connect.NewError(connect.CodeResourceExhausted, diag.Errorf("%d clients watch already", maxWatchers))
	}
	unwatch := r.s.watch(changed)
	return func() { unwatch(); r.watchers.Add(-1) }, nil
}
