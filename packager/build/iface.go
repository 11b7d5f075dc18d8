package build

import (
	"fmt"

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

func port(name string, t ir.Type) artifact.Port {
	p := artifact.Port{Name: name, Shape: []artifact.Dim{}}
	switch t.Kind {
	case ir.Tensor:
		p.Kind, p.DType, p.Ranked = "tensor", t.DType.String(), t.Shape.Ranked
		for _, d := range t.Shape.Dims {
			switch {
			case d.Any:
				p.Shape = append(p.Shape, artifact.Dim{Size: -1, Max: d.Max})
			case d.Sym != "":
				p.Shape = append(p.Shape, artifact.Dim{Size: -1, Sym: d.Sym, Max: d.Max})
			default:
				p.Shape = append(p.Shape, artifact.Dim{Size: d.N})
			}
		}
	case ir.Sequence, ir.Optional:
		p.Kind = "sequence"
		if t.Kind == ir.Optional {
			p.Kind = "optional"
		}
		e := port("", *t.Elem)
		p.Elem, p.DType = &e, e.DType
	case ir.Map:
		p.Kind, p.Key = "map", t.Key.String()
		e := port("", *t.Elem)
		p.Elem, p.DType = &e, e.DType
	}
	return p
}

// PortText formats a port for people: "X f32[N,30]".
func PortText(p artifact.Port) string {
	if p.Kind != "tensor" && p.Kind != "" {
		if p.Elem != nil {
			return fmt.Sprintf("%s %s of %s", p.Name, p.Kind, PortText(*p.Elem))
		}
		return p.Name + " " + p.Kind
	}
	if !p.Ranked {
		return fmt.Sprintf("%s %s of any rank", p.Name, p.DType)
	}
	s := p.Name + " " + p.DType + "["
	for i, d := range p.Shape {
		if i > 0 {
			s += ","
		}
		switch {
		case d.Size >= 0:
			s += fmt.Sprint(d.Size)
		case d.Sym != "":
			s += d.Sym
		default:
			s += "?"
		}
		if d.Size < 0 && d.Max > 0 {
			s += fmt.Sprintf("<=%d", d.Max)
		}
	}
	return s + "]"
}

// SetColumns gives the names of its columns to the only two-dimensional input that can have them.
func SetColumns(f *artifact.Interface, names []string) error {
	if len(names) == 0 {
		return nil
	}
	var fits []int
	for i, p := range f.Inputs {
		if p.Kind == "tensor" && len(p.Shape) == 2 && (p.Shape[1].Size == int64(len(names)) || p.Shape[1].Size < 0) {
			fits = append(fits, i)
		}
	}
	if len(fits) != 1 {
		return fmt.Errorf("%d features are listed, and %d inputs of the model are two-dimensional with as many columns, want 1", len(names), len(fits))
	}
	f.Inputs[fits[0]].Columns = names
	f.Steps[0].Inputs = f.Inputs
	return nil
}
