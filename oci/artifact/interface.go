package artifact

// InterfaceSchema is the value of Interface.Schema.
const InterfaceSchema = "https://github.com/waybill-ml/waybill/schema/interface/v1"

// Interface is the interface document (role interface): all that a host must know to run the module.
// It is written as canonical JSON (keys in this order, two-space indentation, no HTML escaping).
type Interface struct {
	Schema     string     `json:"schema"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	ABI        int        `json:"abi"`
	MinRuntime string     `json:"minRuntime"` // lowest waybill-edge version that can run it
	Compiler   string     `json:"compiler"`   // "waybill 0.1.0"
	Inputs     []Port     `json:"inputs"`     // of the whole chain, as a client sees them
	Outputs    []Port     `json:"outputs"`    //
	State      []StateVar `json:"state"`      // stream state; [] when stateless
	Steps      []Step     `json:"steps"`      // the chain in order; exactly one has Kind "model"
	Module     FileRef    `json:"module"`
	Weights    *Weights   `json:"weights,omitempty"`
	Memory     Memory     `json:"memory"`
	Nodes      []string   `json:"nodes"` // texts for error records: "op name" by node index
	Limits     Limits     `json:"limits"`
}

// Port is one input or output: its name, the Open Inference Protocol datatype and the shape.
type Port struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`   // tensor, sequence, optional, map
	DType  string `json:"dtype"`  // f32, i64, string ... as printed by ir
	Shape  []Dim  `json:"shape"`  // empty for rank 0
	Ranked bool   `json:"ranked"` // false: the rank is known only at run time, Shape is empty
	Labels []any  `json:"labels,omitempty"`
	// Columns are the names of the last dimension of a two-dimensional input, for rows that arrive as CSV.
	Columns []string `json:"columns,omitempty"`
	Elem    *Port    `json:"elem,omitempty"` // of a sequence, optional or map
	Key     string   `json:"key,omitempty"`  // of a map
}

// Dim is one dimension: a size, or -1 with a symbol or without one (data-dependent), and an optional upper bound.
type Dim struct {
	Size int64  `json:"size"`
	Sym  string `json:"sym,omitempty"`
	Max  int64  `json:"max,omitempty"`
}

// StateVar couples an input with the output that feeds it on the next call of a stream. Shape is that of the value before the first
// call, for one stream; Init is its elements in the golden document's encoding, and empty means zeros.
type StateVar struct {
	Input  string  `json:"input"`
	Output string  `json:"output"`
	Shape  []int64 `json:"shape,omitempty"` // empty for rank 0
	Init   Base64  `json:"init,omitempty"`
}

// Step is one member of the chain.
type Step struct {
	Kind      string  `json:"kind"` // "step" or "model"
	Name      string  `json:"name"`
	File      FileRef `json:"file"`
	Reentrant bool    `json:"reentrant,omitempty"`
	Inputs    []Port  `json:"inputs"`
	Outputs   []Port  `json:"outputs"`
}

// FileRef names a layer by its path and digest.
type FileRef struct {
	Path   string `json:"path"`
	Digest Digest `json:"digest"`
	Size   int64  `json:"size"`
}

// Weights is the weights image: where it is mapped and the digests of its chunks.
type Weights struct {
	FileRef
	Base      uint32   `json:"base"`      // address in linear memory, multiple of 64 KiB
	ChunkSize int64    `json:"chunkSize"` // bytes per chunk digest
	Chunks    []Digest `json:"chunks"`
}

// Memory states what the module needs, in bytes.
type Memory struct {
	Heap    uint32 `json:"heap"`    // value of waybill_heap
	Context uint32 `json:"context"` // value of waybill_ctx
	Arena   uint64 `json:"arena"`   // first size of the arena that a host does well to give; at least 64 KiB
	Max     uint64 `json:"max"`     // most linear memory the host should allow
	// Planned is the part of the arena for which the module asks before its first step: the greatest need at one time of all values whose
	// size the compiler knows. Exact says that it knew all sizes: a call takes no more than Planned of the arena, and Max is what the module
	// takes for one context at a time, whatever the inputs.
	Planned uint64 `json:"planned,omitempty"`
	Exact   bool   `json:"exact,omitempty"`
}

// Limits are the budgets under which the author expects the model to run; a device may set stricter ones.
type Limits struct {
	TimeoutMS int64 `json:"timeoutMs,omitempty"` // per request
	MaxBatch  int64 `json:"maxBatch,omitempty"`
}
