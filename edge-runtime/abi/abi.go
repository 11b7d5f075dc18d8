// Package abi is the contract between a WebAssembly guest (a compiled model or a pre/postprocessing step)
// and its host. docs/abi.md is the full text; this package holds its numbers so that the compiler, the
// runtime and the tests cannot disagree. It imports only the standard library.
package abi

// Version is returned by the export waybill_abi of every guest. A host refuses any other major version.
const Version = 1

// Names of a guest's exports. Every guest exports its memory, ExportABI, ExportBind, ExportResume and
// ExportPart, and exactly one of ExportHeap (the host lays memory out and the guest never grows it) and
// ExportAlloc (the guest owns its heap, as Go, Rust and AssemblyScript guests do).
const (
	ExportMemory = "memory"
	ExportABI    = "waybill_abi"    // () -> i32: Version
	ExportBind   = "waybill_bind"   // (ctx i32) -> i32 status: checks input shapes, resets the state machine
	ExportResume = "waybill_resume" // (ctx i32) -> i32 status: one bounded piece of work
	ExportPart   = "waybill_part"   // (ctx i32, i i32) -> i32 status: part i of a parallel section
	ExportHeap   = "waybill_heap"   // () -> i32: first address that the host may use
	ExportAlloc  = "waybill_alloc"  // (size i32) -> i32: 16-byte aligned block, owned by the host until waybill_free
	ExportFree   = "waybill_free"   // (ptr i32): gives a block of waybill_alloc back
	ExportCtx    = "waybill_ctx"    // () -> i32: bytes of a context block, header included

	// ExportWeights is there only when the artifact has a weights layer: () -> i32, the address (a multiple of
	// PageSize) at which the host maps the weights image before the first bind.
	ExportWeights = "waybill_weights"
)

// Status is what bind, resume and part return.
type Status uint32

// Statuses. After Parallel the host calls part(ctx, i) for 0 <= i < Ctx.Want, in any order and on any thread,
// then resume. After NeedMemory it makes the arena at least Ctx.Want bytes larger, then calls resume again.
const (
	Done       Status = 0
	More       Status = 1
	Parallel   Status = 2
	NeedMemory Status = 3
	Failed     Status = 4
)

// Layout of the context block, at a 16-byte aligned address that the host chooses. All fields are
// little-endian u32 unless said otherwise. The host fills the first eight before bind and may enlarge
// CtxArenaSize after NeedMemory; the guest writes the rest. What follows CtxHeader is the guest's own.
const (
	CtxMagic      = 0  // CtxMagicValue
	CtxArenaBase  = 4  // 16-byte aligned address of the scratch and output arena
	CtxArenaSize  = 8  // its bytes
	CtxNumInputs  = 12 //
	CtxInputs     = 16 // address of NumInputs descriptors
	CtxNumOutputs = 20 //
	CtxOutputs    = 24 // address of NumOutputs descriptors, filled by the guest
	CtxBudget     = 28 // work units that one resume may spend; 0 means the guest's default (about 1 ms)
	CtxWant       = 32 // parts after Parallel, bytes after NeedMemory
	CtxErrCode    = 36 // error record: Code
	CtxErrNode    = 40 // index into the interface document's node names
	CtxFlags      = 44 // reserved, 0
	CtxErrA       = 48 // i64
	CtxErrB       = 56 // i64
	CtxHeader     = 64 // size of the header

	CtxMagicValue = 0x31425957 // "WYB1"
)

// Layout of a value descriptor. Address and lengths are u32, dims are i64.
const (
	DescKind   = 0  // Kind
	DescDType  = 4  // DType of the elements (of the keys, for a map)
	DescRank   = 8  // 0..MaxRank; AnyRank in an output that is not yet known
	DescFlags  = 12 // reserved, 0
	DescDims   = 16 // MaxRank i64; a sequence keeps its length in dims[0], an optional 0 or 1
	DescData   = 80 // address of the elements, or of the child descriptors
	DescBytes  = 84 // bytes in use
	DescCap    = 88 // bytes available at DescData
	DescAux    = 92 // strings: bytes of UTF-8 after the offsets; else 0
	DescSize   = 96
	MaxRank    = 8
	AnyRank    = 0xFFFFFFFF
	Align      = 16
	TensorLine = 64    // alignment of tensors inside the weights image
	PageSize   = 65536 // of WebAssembly, and the unit of the weights image's base and length
)

// Kind of a value. A sequence or a map points at child descriptors: a map has two, keys and values.
type Kind uint32

// Kinds.
const (
	Tensor   Kind = 0
	Sequence Kind = 1
	Optional Kind = 2
	Map      Kind = 3
)

// DType is an element type. The numbers are those of ONNX's TensorProto.DataType, so that readers need no table.
// Bool is one byte, 0 or 1. I4 and U4 are packed two to a byte, low nibble first. A string tensor of n elements
// is u32 offsets[n+1] relative to the byte after them, then UTF-8 without terminators.
type DType uint32

// Element types.
const (
	F32        DType = 1
	U8         DType = 2
	I8         DType = 3
	U16        DType = 4
	I16        DType = 5
	I32        DType = 6
	I64        DType = 7
	String     DType = 8
	Bool       DType = 9
	F16        DType = 10
	F64        DType = 11
	U32        DType = 12
	U64        DType = 13
	BF16       DType = 16
	F8E4M3FN   DType = 17
	F8E4M3FNUZ DType = 18
	F8E5M2     DType = 19
	F8E5M2FNUZ DType = 20
	U4         DType = 21
	I4         DType = 22
	F4E2M1     DType = 23
	F8E8M0     DType = 24
	U2         DType = 25
	I2         DType = 26
)

// Code is the error code of a guest's error record. The texts stand in docs/abi.md; A and B are the two i64.
type Code uint32

// Error codes.
const (
	ErrNone        Code = 0
	ErrABI         Code = 1  // magic or counts in the context are wrong
	ErrDType       Code = 2  // input A has dtype B
	ErrRank        Code = 3  // input A has rank B
	ErrDim         Code = 4  // dimension A is B, which the model does not accept
	ErrShape       Code = 5  // shapes do not fit together: A against B
	ErrIndex       Code = 6  // index A is out of range B
	ErrMemory      Code = 7  // A bytes needed, more than an arena can have
	ErrOverflow    Code = 8  // shape arithmetic overflowed
	ErrValue       Code = 9  // a value is outside what the operator accepts: A, B
	ErrString      Code = 10 // input string is not valid UTF-8, or its offsets are wrong
	ErrState       Code = 11 // called in the wrong state: A
	ErrUnsupported Code = 12 // the inputs ask for what the module does not do: A, 1 is a random draw
	ErrUser        Code = 64 // first code free for user steps
)
