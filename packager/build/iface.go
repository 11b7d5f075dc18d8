package build

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/project"
)

// Paths of the files that a bundle always has.
const (
	pathModule    = "module.wasm"
	pathWeights   = "weights.bin"
	pathInterface = "interface.json"
	pathGolden    = "golden.json"
)

// weightsChunk is the size of the pieces of the weights image that have digests of their own.
const weightsChunk = 1 << 20

// makeInterface describes the compiled graph g.
func makeInterface(name, ver string, g *ir.Graph, c *codegen.Result) *artifact.Interface {
	f := &artifact.Interface{
		Schema: artifact.InterfaceSchema, Name: name, Version: ver,
		ABI: abi.Version, MinRuntime: version.Number, Compiler: version.Compiler,
		Inputs: []artifact.Port{}, Outputs: []artifact.Port{}, State: []artifact.StateVar{},
		Module: artifact.FileRef{Path: pathModule, Digest: artifact.DigestOf(c.Module), Size: int64(len(c.Module))},
		Memory: MemoryOf(g, c),
		Nodes:  c.Nodes,
	}
	if f.Nodes == nil {
		f.Nodes = []string{}
	}
	for _, v := range g.Body.Params {
		f.Inputs = append(f.Inputs, port(v.Name, v.Type))
	}
	for _, v := range g.Body.Results {
		f.Outputs = append(f.Outputs, port(v.Name, v.Type))
	}
	for _, s := range g.State {
		f.State = append(f.State, stateVar(s))
	}
	f.Steps = []artifact.Step{{Kind: "model", Name: name, File: f.Module, Inputs: f.Inputs, Outputs: f.Outputs}}
	if c.Weights != nil {
		w := &artifact.Weights{
			FileRef:   artifact.FileRef{Path: pathWeights, Digest: artifact.DigestOf(c.Weights), Size: int64(len(c.Weights))},
			Base:      c.WeightsBase,
			ChunkSize: weightsChunk,
		}
		for off := 0; off < len(c.Weights); off += weightsChunk {
			w.Chunks = append(w.Chunks, artifact.DigestOf(c.Weights[off:min(off+weightsChunk, len(c.Weights))]))
		}
		f.Weights = w
	}
	return f
}

// MemoryOf states the memory that the compiled graph g needs.
func MemoryOf(g *ir.Graph, c *codegen.Result) artifact.Memory {
	const page = 64 << 10
	round := func(n uint64) uint64 { return (n + page - 1) / page * page }
	arena := max(round(uint64(c.ArenaHint)), page)
	fixed := uint64(c.HeapBase)
	if end := uint64(c.WeightsBase) + uint64(len(c.Weights)); end > fixed {
		fixed = end
	}
	// Sizes that only a request knows decide: room for any that a host may want to allow. The engine's own limit (1 GiB unless configured)
	// bounds it, and answers with a clear error.
	limit := min(round(fixed)+max(8*arena, 1<<30), 4<<30)
	inputs, sized := inputBytes(g)
	exact := c.Memory.Exact && sized
	if exact {
		// Context, descriptors, inputs and arena, each from a new line on.
		const line = abi.TensorLine
		up := func(n uint64) uint64 { return (n + line - 1) / line * line }
		values := uint64(len(g.Body.Params) + len(g.Body.Results))
		arena = max(up(uint64(c.Memory.Size)), page)
		limit = min(round(fixed+up(uint64(c.CtxSize))+up(values*abi.DescSize)+inputs+line+arena), 4<<30)
	}
	return artifact.Memory{Heap: c.HeapBase, Context: c.CtxSize, Arena: arena, Max: limit, Planned: uint64(c.Memory.Size), Exact: exact}
}

// bound lowers the most memory that a host should allow to the author's own limit. The vectors of the project run under it
// at pack, so that a limit which is too low is found there.
func bound(m *artifact.Memory, w *artifact.Weights, l project.Limits) error {
	const page = 64 << 10
	if l.Memory == 0 {
		return nil
	}
	fixed := uint64(m.Heap) + uint64(m.Context)
	if w != nil {
		fixed = max(fixed, uint64(w.Base)+uint64(w.Size))
	}
	least, limit := fixed+m.Planned+page, uint64(l.Memory)/page*page
	if limit < least {
		return diag.New(diag.Usage, "limits.memory is %d bytes, the model takes at least %d before it has seen any input", l.Memory, least).At(l.MemoryAt)
	}
	m.Max = min(m.Max, limit)
	return nil
}

// inputBytes is what the inputs of every call take, each rounded up to a line with a line to spare, if that is always the same.
func inputBytes(g *ir.Graph) (uint64, bool) {
	sum := uint64(0)
	for _, v := range g.Body.Params {
		d, ok := v.Type.Shape.Static()
		if v.Type.Kind != ir.Tensor || v.Type.DType == ir.String || !ok {
			return 0, false
		}
		n, ok := ir.Elements(d)
		if !ok || n >= 1<<31 {
			return 0, false
		}
		bytes := (uint64(n)*uint64(v.Type.DType.Bits()) + 7) / 8
		sum += (bytes+abi.TensorLine-1)/abi.TensorLine*abi.TensorLine + abi.TensorLine
	}
	return sum, true
}

func find(ports []artifact.Port, name string) *artifact.Port {
	for i := range ports {
		if ports[i].Name == name {
			return &ports[i]
		}
	}
	return nil
}
