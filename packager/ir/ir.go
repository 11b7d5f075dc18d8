// Package ir is the compiler's typed graph. Frontends build it, passes rewrite it, interp runs it slowly,
// codegen turns it into WebAssembly. Verify checks every invariant stated here, Print and Parse give it a
// text form that tests compare. It imports only the standard library and performs no numeric work.
package ir

// DType is the element type of a tensor. Values are those of ONNX's TensorProto.DataType (and of the ABI).
type DType uint8

// Element types. F16 and BF16 are computed in F32.
const (
	Invalid    DType = 0
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

// MaxRank is the largest rank that a tensor may have, here and in the ABI.
const MaxRank = 8

// Dim is one dimension of a tensor.
//
//	Dim{N: 3}                 exactly 3
//	Dim{Sym: "N"}             one size per call, equal wherever the symbol stands
//	Dim{Sym: "N", Max: 512}   the same with a declared upper bound, checked at bind
//	Dim{Any: true}            known only when the value exists (data-dependent)
type Dim struct {
	N   int64
	Sym string
	Any bool
	Max int64
}

// Shape is the dims of a tensor. With Ranked false the rank itself is known only at run time, and Dims is empty.
type Shape struct {
	Ranked bool
	Dims   []Dim
}

// Kind tells what a value is.
type Kind uint8

// Kinds.
const (
	Tensor Kind = iota
	Sequence
	Optional
	Map
)

// Type is the type of a value. Tensor uses DType and Shape; Sequence and Optional use Elem; Map uses Key
// (I64 or String) and Elem.
type Type struct {
	Kind  Kind
	DType DType
	Shape Shape
	Key   DType
	Elem  *Type
}

// Data is a constant tensor: little-endian row-major bytes (4-bit types packed low nibble first, Bool one byte),
// or Strings for String. Data is immutable once it is in a graph.
type Data struct {
	DType   DType
	Dims    []int64
	Bytes   []byte
	Strings []string
}

// Value is an edge of the graph: produced once (by a node, as a parameter of a region, or a constant) and
// used any number of times. Names are unique in a graph; tools and errors show them.
type Value struct {
	Name  string
	Type  Type
	Const *Data // set for a constant, whose Type is static
}

// Attr is one attribute of a node; exactly the field that Kind names is set.
type Attr struct {
	Kind   AttrKind
	Int    int64
	Float  float64 // f32 attributes of ONNX are widened exactly
	Str    string
	Ints   []int64
	Floats []float64
	Strs   []string
	Data   *Data
	DType  DType
}

// AttrKind names the field of an Attr that holds its value.
type AttrKind uint8

// Attribute kinds.
const (
	AttrInt AttrKind = iota + 1
	AttrFloat
	AttrString
	AttrInts
	AttrFloats
	AttrStrings
	AttrData
	AttrDType
)

// Node is one operation. Op is a name of the operator table (ops.go), whose canonical form is the newest
// ONNX operator set: inputs in its order (nil for an absent optional input), every attribute present with its
// default filled in. Regions are the bodies of If (then, else), Loop and Scan.
type Node struct {
	ID      int // position in the source model, for error messages; unique in a graph
	Op      string
	Name    string // the source's node name, or one made from the op and the ID
	Attrs   map[string]Attr
	Ins     []*Value
	Outs    []*Value // nil for an output that nobody asked for
	Regions []*Region
}

// Region is a list of nodes in execution order. Values of enclosing regions that it uses are listed in
// Captures, in first-use order; nothing else may be referred to.
type Region struct {
	Params   []*Value
	Captures []*Value
	Nodes    []*Node
	Results  []*Value
}

// State couples an input with the output that feeds it on the next call of a stream; Init is its first value
// (nil means zeros of the input's type, whose dims other than the batch must then be static).
type State struct {
	Input, Output string
	Init          *Data
}

// Graph is a whole model: Body.Params are its inputs and Body.Results its outputs, by the names that users see.
type Graph struct {
	Name  string
	Body  *Region
	State []State
	// Doc facts for the interface document and inspect: producer, opsets, and the names of the columns of the only input,
	// where the model file has them. Not used by the compiler.
	Producer string
	Opsets   map[string]int64
	Columns  []string
}
