package serve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// multiply compiles y = x * k.
func multiply(t *testing.T, e *engine.Engine, k int64) *engine.Model {
	t.Helper()
	x := &ir.Value{Name: "x", Type: ir.Type{DType: ir.I64, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{{Sym: "N"}}}}}
	c := &ir.Value{Name: "k", Type: ir.Type{DType: ir.I64, Shape: ir.Shape{Ranked: true}}, Const: &ir.Data{DType: ir.I64, Dims: []int64{}, Bytes: engine.Of([]int64{k}).Data}}
	y := &ir.Value{Name: "y", Type: x.Type}
	res, err := codegen.Compile(&ir.Graph{Name: "mul", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Mul", Name: "mul", Ins: []*ir.Value{x, c}, Outs: []*ir.Value{y}}}}}, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ref := artifact.FileRef{Path: "m.wasm", Digest: artifact.DigestOf(res.Module)}
	ins, outs := []artifact.Port{port("x", "i64", -1)}, []artifact.Port{port("y", "i64", -1)}
	m, err := e.Load(t.Context(), res.Module, engine.WeightsSource{}, &artifact.Interface{Schema: artifact.InterfaceSchema, Name: "mul", Version: fmt.Sprint(k),
		ABI: abi.Version, Inputs: ins, Outputs: outs, Module: ref, Nodes: res.Nodes,
		Steps:  []artifact.Step{{Kind: "model", Name: "mul", File: ref, Inputs: ins, Outputs: outs}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Max: 16 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The same as TestSwapUnderLoad with compiled modules: loading, swapping and freeing native code under traffic.
func TestSwapEngineModelsUnderLoad(t *testing.T) {
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	factor := sync.Map{}
	load := func(k int64) Model {
		factor.Store(string(digestN(k)), k)
		return Model{digestN(k), multiply(t, e, k)}
	}
	first := load(1)
	s, h := start(t, Config{}, nil)
	s.Swap("m", first)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var answers atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := g; ctx.Err() == nil; i += 4 {
				body := fmt.Sprintf(`{"inputs":[{"name":"x","datatype":"INT64","shape":[3],"data":[%d,%d,-1]}]}`, i, i+1)
				res, err := client.Post(h.URL+"/v2/models/m/infer", "application/json", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				v, ok := factor.Load(res.Header.Get(DigestHeader))
				if err != nil || res.StatusCode != 200 || !ok {
					t.Errorf("%d %s %v", res.StatusCode, b, err)
					return
				}
				k := v.(int64)
				if want := fmt.Sprintf(`"data":[%d,%d,%d]`, int64(i)*k, int64(i+1)*k, -k); !strings.Contains(string(b), want) ||
					!strings.Contains(string(b), fmt.Sprintf(`"model_version":"%d"`, k)) {
					t.Errorf("answer %s, want %s", b, want)
					return
				}
				answers.Add(1)
			}
		}()
	}
	for k := int64(2); k < 12; k++ {
		next := load(k)
		for want := answers.Load() + 5; answers.Load() < want && !t.Failed(); {
			time.Sleep(100 * time.Microsecond)
		}
		_, gone := s.Swap("m", next)
		<-gone
	}
	cancel()
	wg.Wait()
	st, ok := s.Stats("m")
	if !ok || st.Failed != 0 || st.Digest != digestN(11) {
		t.Errorf("stats %+v", st)
	}
	client.CloseIdleConnections()
}
