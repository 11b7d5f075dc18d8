package jsbundle

import (
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// scalar is an artifact whose only input and output have rank 0: their shape in the interface document is null.
func scalar(t *testing.T) *world {
	t.Helper()
	x := &ir.Value{Name: "x", Type: ir.Type{DType: ir.F32, Shape: ir.Shape{Ranked: true}}}
	y := &ir.Value{Name: "y", Type: x.Type}
	res, err := codegen.Compile(&ir.Graph{Name: "id", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Identity", Name: "id", Ins: []*ir.Value{x}, Outs: []*ir.Value{y}}}}}, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	port := func(n string) []artifact.Port {
		return []artifact.Port{{Name: n, Kind: "tensor", DType: "f32", Ranked: true}}
	}
	ref := artifact.FileRef{Path: "model.wasm", Digest: artifact.DigestOf(res.Module), Size: int64(len(res.Module))}
	m := &build.Model{Module: build.Module{Code: res.Module, Interface: &artifact.Interface{Schema: artifact.InterfaceSchema, Name: "churn", Version: "1.0.0", ABI: abi.Version,
		Inputs: port("x"), Outputs: port("y"), Module: ref, Nodes: res.Nodes,
		Steps:  []artifact.Step{{Kind: "model", Name: "churn", File: ref, Inputs: port("x"), Outputs: port("y")}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: 1 << 16, Max: 4 << 20}}}}
	in := engine.Of([]float32{2.5}, 1)
	in.Shape = []int64{}
	return packed(t, m, []artifact.GoldenTensor{probe.ToGolden("x", in)})
}

func TestNodeScalars(t *testing.T) {
	tool(t, "node")
	w := scalar(t)
	_, dir := w.bundle(t, Options{})
	url, _ := nodeServer(t, dir)
	const infer = "/v2/models/churn/infer"
	post := func(name, body string) protocolCase {
		return protocolCase{name: name, method: "POST", path: infer, body: []byte(body)}
	}
	sameProtocol(t, w, url, []protocolCase{
		{name: "metadata", method: "GET", path: "/v2/models/churn"},
		post("flat", `{"inputs":[{"name":"x","shape":[],"datatype":"FP32","data":[2.5]}]}`),
		post("nested", `{"inputs":[{"name":"x","shape":[],"datatype":"FP32","data":2.5}]}`),
		post("rank", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[2.5]}]}`),
		{name: "raw", method: "POST", path: infer, header: map[string]string{"Inference-Header-Content-Length": "0"}, body: []byte{0, 0, 0x20, 0x40}},
	})
}
