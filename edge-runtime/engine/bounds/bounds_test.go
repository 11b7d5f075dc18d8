package bounds_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

// load compiles g and loads it into an engine of its own. alter, when not nil, changes the module's bytes first.
func load(t testing.TB, g *ir.Graph, cfg engine.Config, alter func([]byte)) *engine.Model {
	t.Helper()
	res, err := codegen.Compile(g, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if alter != nil {
		alter(res.Module)
	}
	return loadCompiled(t, g, res, cfg, artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: uint64(res.ArenaHint)})
}

// loadMemory compiles g and loads it with mem in its interface document.
func loadMemory(t testing.TB, g *ir.Graph, cfg engine.Config, mem artifact.Memory) *engine.Model {
	t.Helper()
	res, err := codegen.Compile(g, codegen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return loadCompiled(t, g, res, cfg, mem)
}

func loadCompiled(t testing.TB, g *ir.Graph, res *codegen.Result, cfg engine.Config, mem artifact.Memory) *engine.Model {
	t.Helper()
	ref := artifact.FileRef{Path: "model.wasm", Digest: artifact.DigestOf(res.Module), Size: int64(len(res.Module))}
	i := &artifact.Interface{Schema: artifact.InterfaceSchema, Name: g.Name, Version: "1", ABI: abi.Version, Module: ref,
		Nodes: res.Nodes, Memory: mem}
	for _, p := range g.Body.Params {
		i.Inputs = append(i.Inputs, port(p))
	}
	for _, p := range g.Body.Results {
		i.Outputs = append(i.Outputs, port(p))
	}
	i.Steps = []artifact.Step{{Kind: "model", Name: "model", File: ref, Inputs: i.Inputs, Outputs: i.Outputs}}
	src := engine.WeightsSource{}
	if res.Weights != nil {
		src.Bytes = res.Weights
		i.Weights = &artifact.Weights{Base: res.WeightsBase,
			FileRef: artifact.FileRef{Path: "weights.bin", Digest: artifact.DigestOf(res.Weights), Size: int64(len(res.Weights))}}
	}
	e, err := engine.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	m, err := e.Load(t.Context(), res.Module, src, i)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func port(v *ir.Value) artifact.Port {
	p := artifact.Port{Name: v.Name, Kind: "tensor", DType: v.Type.DType.String(), Ranked: v.Type.Shape.Ranked}
	for _, d := range v.Type.Shape.Dims {
		if d.Any || d.Sym != "" {
			p.Shape = append(p.Shape, artifact.Dim{Size: -1, Sym: d.Sym, Max: d.Max})
		} else {
			p.Shape = append(p.Shape, artifact.Dim{Size: d.N})
		}
	}
	return p
}

// TestTrapNamesItsNode breaks the record of one node by hand: the function that it calls does not exist any more.
func TestTrapNamesItsNode(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x", ir.TensorOf(ir.F32, ir.ShapeOf(ir.Unknown())))
	y := b.Op("third", "Neg", nil, b.Op("second", "Abs", nil, b.Op("first", "Neg", nil, x)))
	g, err := b.Graph("g", y)
	if err != nil {
		t.Fatal(err)
	}
	in := []engine.Tensor{engine.Of([]float32{1, -2})}
	if _, err := load(t, g, engine.Config{}, nil).Run(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []engine.Mode{engine.Auto, engine.Interpreter} {
		m := load(t, g, engine.Config{Mode: mode}, func(module []byte) {
			le := binary.LittleEndian
			at := -1
			for i := 0; i+kernel.RecRefs <= len(module); i++ {
				rec := module[i:]
				// The second node has one input, one output, and slots to release behind them.
				if le.Uint32(rec[kernel.RecNode:]) == 2 && le.Uint32(rec[kernel.RecNIn:]) == 1 && le.Uint32(rec[kernel.RecKind:]) == kernel.KindParallel &&
					le.Uint32(rec[kernel.RecSize:]) == kernel.RecRefs+4*(2+le.Uint32(rec[kernel.RecNFree:])) {
					at = i
				}
			}
			if at < 0 {
				t.Fatal("the node's record is not there")
			}
			binary.LittleEndian.PutUint32(module[at+kernel.RecRun:], 0xffff)
		})
		_, err := m.Run(t.Context(), in)
		var trap *engine.TrapError
		if !errors.As(err, &trap) || trap.Node != g.Body.Nodes[1].Name || !strings.Contains(err.Error(), trap.Node) {
			t.Errorf("%v: %v, want a trap in the second node", mode, err)
		}
	}
}
