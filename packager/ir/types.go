package ir

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// String gives the short name used in the text form: "f32", "i64", "string".
func (d DType) String() string {
	if s, ok := dtypeName(d); ok {
		return s
	}
	return "dtype(" + strconv.Itoa(int(d)) + ")"
}

func dtypeName(d DType) (string, bool) {
	switch d {
	case F32:
		return "f32", true
	case U8:
		return "u8", true
	case I8:
		return "i8", true
	case U16:
		return "u16", true
	case I16:
		return "i16", true
	case I32:
		return "i32", true
	case I64:
		return "i64", true
	case String:
		return "string", true
	case Bool:
		return "bool", true
	case F16:
		return "f16", true
	case F64:
		return "f64", true
	case U32:
		return "u32", true
	case U64:
		return "u64", true
	case BF16:
		return "bf16", true
	case F8E4M3FN:
		return "f8e4m3fn", true
	case F8E4M3FNUZ:
		return "f8e4m3fnuz", true
	case F8E5M2:
		return "f8e5m2", true
	case F8E5M2FNUZ:
		return "f8e5m2fnuz", true
	case U4:
		return "u4", true
	case I4:
		return "i4", true
	case F4E2M1:
		return "f4e2m1", true
	case F8E8M0:
		return "f8e8m0", true
	case U2:
		return "u2", true
	case I2:
		return "i2", true
	}
	return "", false
}

// DTypeByName is the inverse of DType.String; it gives Invalid for an unknown name.
func DTypeByName(s string) DType {
	for d := F32; d <= I2; d++ {
		if n, ok := dtypeName(d); ok && n == s {
			return d
		}
	}
	return Invalid
}

// Valid reports whether d is one of the declared element types.
func (d DType) Valid() bool { _, ok := dtypeName(d); return ok }

// Bits is the width of one element; 0 for String and Invalid.
func (d DType) Bits() int {
	switch d {
	case U2, I2:
		return 2
	case U4, I4, F4E2M1:
		return 4
	case U8, I8, Bool, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0:
		return 8
	case U16, I16, F16, BF16:
		return 16
	case F32, I32, U32:
		return 32
	case F64, I64, U64:
		return 64
	}
	return 0
}

// IsFloat reports a floating point type of 16 bits or more.
func (d DType) IsFloat() bool { return d == F32 || d == F64 || d == F16 || d == BF16 }

// IsInt reports a signed or unsigned integer type (Bool is not one).
func (d DType) IsInt() bool { return d.IsSigned() || d.IsUnsigned() }

// IsSigned reports a signed integer type.
func (d DType) IsSigned() bool {
	return d == I8 || d == I16 || d == I32 || d == I64 || d == I4 || d == I2
}

// IsUnsigned reports an unsigned integer type.
func (d DType) IsUnsigned() bool {
	return d == U8 || d == U16 || d == U32 || d == U64 || d == U4 || d == U2
}

// IsSmallFloat reports a floating point type of 8 bits or fewer. Data holds such elements as bit patterns; no operator computes with
// them but conversions, and those that move data.
func (d DType) IsSmallFloat() bool {
	switch d {
	case F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F4E2M1:
		return true
	}
	return false
}

// IsStored reports a type that is stored, moved and converted, but not computed with: fewer than 8 bits, or a small float.
func (d DType) IsStored() bool { return d.IsSmallFloat() || d.Bits() == 4 || d.Bits() == 2 }

// Static gives the dim of exactly n.
func Static(n int64) Dim { return Dim{N: n} }

// Symbol gives the dim named s.
func Symbol(s string) Dim { return Dim{Sym: s} }

// Unknown is the data-dependent dim.
func Unknown() Dim { return Dim{Any: true} }

// IsStatic reports whether the dim's size is known to the compiler.
func (d Dim) IsStatic() bool { return !d.Any && d.Sym == "" }

// Same reports that both dims are certainly equal in every call (two Any dims are not).
func (d Dim) Same(e Dim) bool {
	if d.Any || e.Any {
		return false
	}
	return d.Sym == e.Sym && (d.Sym != "" || d.N == e.N)
}

// String gives "3", "N", "N<=512" or "?".
func (d Dim) String() string {
	switch {
	case d.Any:
		return "?"
	case d.Sym != "":
		s := quoteIdent(d.Sym)
		if d.Max > 0 {
			s += "<=" + strconv.FormatInt(d.Max, 10)
		}
		return s
	}
	return strconv.FormatInt(d.N, 10)
}

// ShapeOf gives a ranked shape of the given dims.
func ShapeOf(dims ...Dim) Shape { return Shape{Ranked: true, Dims: dims} }

// StaticShape gives a ranked shape of known sizes.
func StaticShape(dims ...int64) Shape {
	s := Shape{Ranked: true, Dims: make([]Dim, len(dims))}
	for i, n := range dims {
		s.Dims[i].N = n
	}
	return s
}

// Unranked is the shape of unknown rank.
func Unranked() Shape { return Shape{} }

// Rank is the number of dims, or -1 when unknown.
func (s Shape) Rank() int {
	if !s.Ranked {
		return -1
	}
	return len(s.Dims)
}

// Static returns the sizes when all are known.
func (s Shape) Static() ([]int64, bool) {
	if !s.Ranked {
		return nil, false
	}
	out := make([]int64, len(s.Dims))
	for i, d := range s.Dims {
		if !d.IsStatic() {
			return nil, false
		}
		out[i] = d.N
	}
	return out, true
}

// String gives "[N,3]", or "[*]" for an unknown rank.
func (s Shape) String() string {
	if !s.Ranked {
		return "[*]"
	}
	p := make([]string, len(s.Dims))
	for i, d := range s.Dims {
		p[i] = d.String()
	}
	return "[" + strings.Join(p, ",") + "]"
}

// Clone copies the dims.
func (s Shape) Clone() Shape { return Shape{s.Ranked, append([]Dim(nil), s.Dims...)} }

// TensorOf gives a tensor type.
func TensorOf(d DType, s Shape) Type { return Type{Kind: Tensor, DType: d, Shape: s} }

// SequenceOf gives a sequence type.
func SequenceOf(elem Type) Type { return Type{Kind: Sequence, Elem: &elem} }

// OptionalOf gives an optional type.
func OptionalOf(elem Type) Type { return Type{Kind: Optional, Elem: &elem} }

// MapOf gives a map type; key is I64 or String.
func MapOf(key DType, elem Type) Type { return Type{Kind: Map, Key: key, Elem: &elem} }

// String gives the text form: "f32[N,3]", "seq(map(string,f32[]))", "optional(i64[*])".
func (t Type) String() string {
	switch t.Kind {
	case Tensor:
		return t.DType.String() + t.Shape.String()
	case Sequence:
		return "seq(" + elemString(t.Elem) + ")"
	case Optional:
		return "optional(" + elemString(t.Elem) + ")"
	case Map:
		return "map(" + t.Key.String() + "," + elemString(t.Elem) + ")"
	}
	return fmt.Sprintf("kind(%d)", t.Kind)
}

func elemString(t *Type) string {
	if t == nil {
		return "!nil"
	}
	return t.String()
}

// Equal reports that both types are written the same (bounds of symbols included).
func (t Type) Equal(u Type) bool {
	if t.Kind != u.Kind {
		return false
	}
	if t.Kind != Tensor {
		return t.Key == u.Key && (t.Elem == nil) == (u.Elem == nil) && (t.Elem == nil || t.Elem.Equal(*u.Elem))
	}
	if t.DType != u.DType || t.Shape.Ranked != u.Shape.Ranked || len(t.Shape.Dims) != len(u.Shape.Dims) {
		return false
	}
	for i, d := range t.Shape.Dims {
		if d != u.Shape.Dims[i] {
			return false
		}
	}
	return true
}

// Compatible reports that a value can have both types: equal kinds and element types, and no two sizes
// or ranks that are known and differ.
func (t Type) Compatible(u Type) bool {
	if t.Kind != u.Kind {
		return false
	}
	if t.Kind != Tensor {
		return t.Key == u.Key && t.Elem != nil && u.Elem != nil && t.Elem.Compatible(*u.Elem)
	}
	if t.DType != u.DType {
		return false
	}
	if !t.Shape.Ranked || !u.Shape.Ranked {
		return true
	}
	if len(t.Shape.Dims) != len(u.Shape.Dims) {
		return false
	}
	for i, d := range t.Shape.Dims {
		e := u.Shape.Dims[i]
		if d.IsStatic() && e.IsStatic() && d.N != e.N {
			return false
		}
	}
	return true
}

// Join gives the most precise type that covers both: dims that are not the same become Any, differing ranks
// an unknown rank. It fails when kinds or element types differ.
func Join(t, u Type) (Type, error) {
	if t.Kind != u.Kind || (t.Kind == Tensor && t.DType != u.DType) || t.Key != u.Key {
		return Type{}, fmt.Errorf("types %s and %s differ", t, u)
	}
	if t.Kind != Tensor {
		if t.Elem == nil || u.Elem == nil {
			return Type{}, fmt.Errorf("types %s and %s differ", t, u)
		}
		e, err := Join(*t.Elem, *u.Elem)
		if err != nil {
			return Type{}, err
		}
		return Type{Kind: t.Kind, Key: t.Key, Elem: &e}, nil
	}
	if !t.Shape.Ranked || !u.Shape.Ranked || len(t.Shape.Dims) != len(u.Shape.Dims) {
		return TensorOf(t.DType, Unranked()), nil
	}
	s := t.Shape.Clone()
	for i := range s.Dims {
		if s.Dims[i] != u.Shape.Dims[i] {
			s.Dims[i] = Unknown()
		}
	}
	return TensorOf(t.DType, s), nil
}

// Elements multiplies dims with an overflow check; ok is false on overflow or a negative dim.
func Elements(dims []int64) (n int64, ok bool) {
	n = 1
	for _, d := range dims {
		if d < 0 {
			return 0, false
		}
	}
	if slices.Contains(dims, 0) {
		return 0, true
	}
	for _, d := range dims {
		if n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Len is the number of elements; dims must be valid (Check).
func (d *Data) Len() int64 { n, _ := Elements(d.Dims); return n }

// Check verifies that the number of bytes or strings is what dtype and dims ask for.
func (d *Data) Check() error {
	if !d.DType.Valid() {
		return fmt.Errorf("element type %s is not known", d.DType)
	}
	if len(d.Dims) > MaxRank {
		return fmt.Errorf("rank %d is over %d", len(d.Dims), MaxRank)
	}
	n, ok := Elements(d.Dims)
	if !ok {
		return fmt.Errorf("dims %v are negative or overflow", d.Dims)
	}
	if d.DType == String {
		if int64(len(d.Strings)) != n || len(d.Bytes) != 0 {
			return fmt.Errorf("%d strings for dims %v", len(d.Strings), d.Dims)
		}
		return nil
	}
	if n > math.MaxInt64/64 {
		return fmt.Errorf("dims %v overflow", d.Dims)
	}
	want := (n*int64(d.DType.Bits()) + 7) / 8
	if int64(len(d.Bytes)) != want || len(d.Strings) != 0 {
		return fmt.Errorf("%d bytes for %s%v, want %d", len(d.Bytes), d.DType, d.Dims, want)
	}
	return nil
}

// Type is the static tensor type of the data.
func (d *Data) Type() Type { return TensorOf(d.DType, StaticShape(d.Dims...)) }

// Int gives element i of an integer or bool tensor, or the bit pattern of a small float; u64 values wrap.
func (d *Data) Int(i int) int64 {
	b := d.Bytes
	switch d.DType {
	case U8, Bool, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0:
		return int64(b[i])
	case I8:
		return int64(int8(b[i]))
	case U16:
		return int64(binary.LittleEndian.Uint16(b[2*i:]))
	case I16:
		return int64(int16(binary.LittleEndian.Uint16(b[2*i:])))
	case U32:
		return int64(binary.LittleEndian.Uint32(b[4*i:]))
	case I32:
		return int64(int32(binary.LittleEndian.Uint32(b[4*i:])))
	case I64, U64:
		return int64(binary.LittleEndian.Uint64(b[8*i:]))
	case U4, F4E2M1:
		return int64(b[i/2] >> (4 * (i & 1)) & 15)
	case U2:
		return int64(b[i/4] >> (2 * (i & 3)) & 3)
	case I2:
		return int64(int8(b[i/4]>>(2*(i&3))<<6) >> 6)
	case I4:
		return int64(int8(b[i/2]>>(4*(i&1))<<4) >> 4)
	}
	panic("ir: Int on a tensor of " + d.DType.String())
}

// Ints gives all elements of an integer or bool tensor.
func (d *Data) Ints() []int64 {
	out := make([]int64, d.Len())
	for i := range out {
		out[i] = d.Int(i)
	}
	return out
}

// Float gives element i of an f32 or f64 tensor, widened exactly.
func (d *Data) Float(i int) float64 {
	switch d.DType {
	case F32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(d.Bytes[4*i:])))
	case F64:
		return math.Float64frombits(binary.LittleEndian.Uint64(d.Bytes[8*i:]))
	}
	panic("ir: Float on a tensor of " + d.DType.String())
}

// Floats gives all elements of an f32 or f64 tensor.
func (d *Data) Floats() []float64 {
	out := make([]float64, d.Len())
	for i := range out {
		out[i] = d.Float(i)
	}
	return out
}

// I64s makes an i64 tensor.
func I64s(dims []int64, v []int64) *Data {
	b := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(x))
	}
	return &Data{DType: I64, Dims: dims, Bytes: b}
}

// I32s makes an i32 tensor.
func I32s(dims []int64, v []int32) *Data {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(x))
	}
	return &Data{DType: I32, Dims: dims, Bytes: b}
}

// F32s makes an f32 tensor.
func F32s(dims []int64, v []float32) *Data {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return &Data{DType: F32, Dims: dims, Bytes: b}
}

// F64s makes an f64 tensor.
func F64s(dims []int64, v []float64) *Data {
	b := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(b[8*i:], math.Float64bits(x))
	}
	return &Data{DType: F64, Dims: dims, Bytes: b}
}

// Bools makes a bool tensor.
func Bools(dims []int64, v []bool) *Data {
	b := make([]byte, len(v))
	for i, x := range v {
		if x {
			b[i] = 1
		}
	}
	return &Data{DType: Bool, Dims: dims, Bytes: b}
}

// Strs makes a string tensor.
func Strs(dims []int64, v []string) *Data { return &Data{DType: String, Dims: dims, Strings: v} }

// FloatData makes an f32 or f64 tensor from float64 values; an f32 one rounds each to nearest even.
func FloatData(dt DType, dims []int64, v []float64) *Data {
	if dt == F64 {
		return F64s(dims, v)
	}
	w := make([]float32, len(v))
	for i, x := range v {
		w[i] = float32(x)
	}
	return F32s(dims, w)
}

// IntData makes an integer or bool tensor of dt from int64 values, truncated to the width.
func IntData(dt DType, dims []int64, v []int64) *Data {
	w := dt.Bits() / 8
	if w == 0 || dt.IsFloat() {
		panic("ir: IntData of " + dt.String())
	}
	b := make([]byte, w*len(v))
	for i, x := range v {
		for k := 0; k < w; k++ {
			b[w*i+k] = byte(uint64(x) >> (8 * k))
		}
	}
	return &Data{DType: dt, Dims: dims, Bytes: b}
}

// Val is a concrete value: what goes into a graph and comes out of it. Tensor is set for a tensor; Elems for a
// sequence, an optional (none or one) and a map, whose Keys (i64 or string, rank 1) stand in the same order.
type Val struct {
	Kind   Kind
	Tensor *Data
	Elems  []*Val
	Keys   *Data
}

// TensorVal wraps a tensor.
func TensorVal(d *Data) *Val { return &Val{Kind: Tensor, Tensor: d} }
