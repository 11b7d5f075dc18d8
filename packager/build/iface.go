package build

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
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
	const page = 64 << 10
	round := func(n uint64) uint64 { return (n + page - 1) / page * page }
	arena := max(round(uint64(c.ArenaHint)), page)
	fixed := uint64(c.HeapBase)
	if end := uint64(c.WeightsBase) + uint64(len(c.Weights)); end > fixed {
		fixed = end
	}
	f := &artifact.Interface{
		Schema: artifact.InterfaceSchema, Name: name, Version: ver,
		ABI: abi.Version, MinRuntime: version.Number, Compiler: version.Compiler,
		Inputs: []artifact.Port{}, Outputs: []artifact.Port{}, State: []artifact.StateVar{},
		Module: artifact.FileRef{Path: pathModule, Digest: artifact.DigestOf(c.Module), Size: int64(len(c.Module))},
		Memory: artifact.Memory{
			Heap: c.HeapBase, Context: c.CtxSize, Arena: arena,
			// Room for batches far above the static plan; a host may allow less and answers then with a clear error.
			Max: min(round(fixed)+max(8*arena, 64<<20), 4<<30),
		},
		Nodes: c.Nodes,
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
		f.State = append(f.State, artifact.StateVar{Input: s.Input, Output: s.Output})
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

func find(ports []artifact.Port, name string) *artifact.Port {
	for i := range ports {
		if ports[i].Name == name {
			return &ports[i]
		}
	}
	return nil
}
