package jsbundle

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// nodeLibrary serves a bundle by the library's function, with options in JavaScript.
func nodeLibrary(t *testing.T, dir, options string) string {
	t.Helper()
	r, w := pipe(t)
	log := &lines{}
	cmd := exec.Command(tool(t, "node"), "-e", "import('./node.mjs').then((m) => m.serve("+options+")).then((s) => console.log(s.address().port))")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, w, log
	port := strings.TrimSpace(start(t, cmd, r, log))
	_ = w.Close()
	return "http://127.0.0.1:" + port
}

// rows is a request of n rows for the example.
func rows(w *world, n int) []byte {
	return fmt.Appendf(nil, `{"inputs":[{"name":%q,"shape":[%d,30],"datatype":"FP32","data":[0%s]}]}`, w.iface.Inputs[0].Name, n, strings.Repeat(",0", 30*n-1))
}

// same expects a status of both, and the same error.
func same(t *testing.T, own, url string, status int, header map[string]string, body []byte, loose ...string) {
	t.Helper()
	const infer = "/v2/models/churn/infer"
	s1, h1, b1 := ask(t, http.MethodPost, own+infer, header, body)
	s2, h2, b2 := ask(t, http.MethodPost, url+infer, header, body)
	if s1 != status || s2 != status {
		t.Fatalf("%d %.200s, the runtime: %d %.200s, want %d", s2, b2, s1, b1, status)
	}
	sameError(t, h1, h2, b1, b2, loose...)
}

// A request that is too large, as it is or once it is unpacked.
func TestNodeBody(t *testing.T) {
	tool(t, "node")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	own, url := w.serverWith(t, serve.Config{MaxBody: 4000}, keep{w.model}), nodeLibrary(t, dir, "{ maxBody: 4000 }")
	large := rows(w, 100)
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	_, _ = zw.Write(large) // into memory
	_ = zw.Close()
	if z.Len() > 2000 || len(large) < 4001 {
		t.Fatalf("%d bytes, packed %d", len(large), z.Len())
	}
	same(t, own, url, http.StatusRequestEntityTooLarge, nil, large)
	same(t, own, url, http.StatusRequestEntityTooLarge, map[string]string{"Content-Encoding": "gzip"}, z.Bytes())
	small := rows(w, 10)
	for _, u := range []string{own, url} {
		if s, _, b := ask(t, http.MethodPost, u+"/v2/models/churn/infer", nil, small); s != http.StatusOK {
			t.Errorf("within the bound: %d %s", s, b)
		}
	}
}

// A request that needs more memory than it may have.
func TestNodeMemory(t *testing.T) {
	tool(t, "node")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	limit := (int64(w.iface.Memory.Heap)+int64(w.iface.Memory.Arena))/wasmPage*wasmPage + 2*wasmPage
	e, err := engine.New(t.Context(), engine.Config{MemoryLimit: uint64(limit)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	m, err := e.Load(t.Context(), w.blobs[w.iface.Module.Digest], engine.WeightsSource{}, w.iface)
	if err != nil {
		t.Fatal(err)
	}
	own, url := w.serverWith(t, serve.Config{}, keep{m}), nodeLibrary(t, dir, fmt.Sprintf("{ maxMemory: %d }", limit))
	same(t, own, url, http.StatusRequestEntityTooLarge, nil, rows(w, 2000))
	for _, u := range []string{own, url} {
		if s, _, b := ask(t, http.MethodPost, u+"/v2/models/churn/infer", nil, rows(w, 1)); s != http.StatusOK {
			t.Errorf("within the limit: %d %s", s, b)
		}
	}
}

// busy answers no call before release is closed. It is not the model itself, which has further methods to run.
type busy struct {
	m              *engine.Model
	begun, release chan struct{}
}

// Interface implements serve.Runner.
func (b busy) Interface() *artifact.Interface { return b.m.Interface() }

// Close implements serve.Runner.
func (busy) Close(context.Context) error { return nil }

// Run implements serve.Runner.
func (b busy) Run(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
	b.begun <- struct{}{}
	<-b.release
	return b.m.Run(ctx, ins)
}

// A request for which there is no room to wait.
func TestNodeBusy(t *testing.T) {
	tool(t, "node")
	w := example(t)
	_, dir := w.bundle(t, Options{})
	url := nodeLibrary(t, dir, "{ maxQueue: 0 }")
	b := busy{w.model, make(chan struct{}, 1), make(chan struct{})}
	own := w.serverWith(t, serve.Config{MaxQueue: -1, MaxInFlight: 1}, b)
	first := make(chan int, 1)
	go func() {
		status := 0
		if res, err := http.Post(own+"/v2/models/churn/infer", "application/json", bytes.NewReader(rows(w, 1))); err == nil {
			status = res.StatusCode
			_ = res.Body.Close()
		}
		first <- status
	}()
	defer func() {
		close(b.release)
		if s := <-first; s != http.StatusOK {
			t.Errorf("the request that was worked on: %d", s)
		}
	}()
	select {
	case <-b.begun:
	case s := <-first:
		first <- s
		t.Fatalf("it was answered at once: %d", s)
	}
	same(t, own, url, http.StatusTooManyRequests, nil, rows(w, 1), "too many requests are waiting; try again in ")
}

// gather is an artifact that takes elements of x at i, which can be out of range.
func gather(t *testing.T) *world {
	t.Helper()
	value := func(name string, dt ir.DType) *ir.Value {
		return &ir.Value{Name: name, Type: ir.Type{DType: dt, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{ir.Static(3)}}}}
	}
	x, i, y := value("x", ir.F32), value("i", ir.I64), value("y", ir.F32)
	res, err := codegen.Compile(&ir.Graph{Name: "gather", Body: &ir.Region{Params: []*ir.Value{x, i}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Gather", Name: "take", Attrs: map[string]ir.Attr{"axis": {Kind: ir.AttrInt}}, Ins: []*ir.Value{x, i}, Outs: []*ir.Value{y}}}}}, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	port := func(n, dt string) artifact.Port {
		return artifact.Port{Name: n, Kind: "tensor", DType: dt, Ranked: true, Shape: []artifact.Dim{{Size: 3}}}
	}
	in, out := []artifact.Port{port("x", "f32"), port("i", "i64")}, []artifact.Port{port("y", "f32")}
	ref := artifact.FileRef{Path: "model.wasm", Digest: artifact.DigestOf(res.Module), Size: int64(len(res.Module))}
	m := &build.Model{Module: build.Module{Code: res.Module, Interface: &artifact.Interface{Schema: artifact.InterfaceSchema, Name: "churn", Version: "1.0.0", ABI: abi.Version,
		Inputs: in, Outputs: out, Module: ref, Nodes: res.Nodes,
		Steps:  []artifact.Step{{Kind: "model", Name: "churn", File: ref, Inputs: in, Outputs: out}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: 1 << 16, Max: 4 << 20}}}}
	return packed(t, m, []artifact.GoldenTensor{probe.ToGolden("x", engine.Of([]float32{1, 2, 3}, 3)), probe.ToGolden("i", engine.Of([]int64{2, 0, 1}, 3))})
}

// What the model itself refuses is said in the runtime's words, with the node that refused it.
func TestNodeInputFault(t *testing.T) {
	tool(t, "node")
	w := gather(t)
	_, dir := w.bundle(t, Options{})
	url, _ := nodeServer(t, dir)
	own := w.server(t)
	body := func(i int) []byte {
		return fmt.Appendf(nil, `{"inputs":[{"name":"x","shape":[3],"datatype":"FP32","data":[1,2,3]},{"name":"i","shape":[3],"datatype":"INT64","data":[0,%d,1]}]}`, i)
	}
	same(t, own, url, http.StatusBadRequest, nil, body(7))
	same(t, own, url, http.StatusBadRequest, nil, body(-9))
	_, _, b := ask(t, http.MethodPost, url+"/v2/models/churn/infer", nil, body(7))
	if !strings.Contains(string(b), "index 7 is out of range (3)") {
		t.Errorf("%s", b)
	}
	if s, _, b := ask(t, http.MethodPost, url+"/v2/models/churn/infer", nil, body(-1)); s != http.StatusOK {
		t.Errorf("within the range: %d %s", s, b)
	}
}
