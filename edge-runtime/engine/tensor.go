package engine

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
)

// Tensor is a value that goes into or comes out of a model. For kind Tensor, Data holds the little-endian row-major
// elements (4-bit types packed low nibble first, bool one byte), or Strings when DType is abi.String; the length must
// fit Shape. Other kinds hold Elems: the elements of a sequence, none or one for an optional, keys and values for a map;
// their DType is that of the (first) element, or of the keys.
//
// The engine copies inputs into the module and outputs out of it: a Tensor is plain memory of the caller's, valid for
// as long as the caller likes.
type Tensor struct {
	Kind    abi.Kind
	DType   abi.DType
	Shape   []int64
	Data    []byte
	Strings []string
	Elems   []Tensor
}

// Number is the set of Go element types that Of and Values convert.
type Number interface {
	float32 | float64 | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | bool
}

// Of makes a tensor from a slice of numbers; without a shape it is a vector.
func Of[T Number](v []T, shape ...int64) Tensor {
	if len(shape) == 0 {
		shape = []int64{int64(len(v))}
	}
	dt := dtypeOf[T]()
	n := dt.Bits() / 8
	b := make([]byte, n*len(v))
	for i := range v {
		putNumber(b[i*n:], any(v[i]))
	}
	return Tensor{DType: dt, Shape: shape, Data: b}
}

// OfStrings makes a string tensor; without a shape it is a vector.
func OfStrings(v []string, shape ...int64) Tensor {
	if len(shape) == 0 {
		shape = []int64{int64(len(v))}
	}
	return Tensor{DType: abi.String, Shape: shape, Strings: v}
}

// Values returns the elements of t, whose dtype must be that of T.
func Values[T Number](t Tensor) ([]T, error) {
	dt := dtypeOf[T]()
	if t.Kind != abi.Tensor || t.DType != dt {
		return nil, diag.Errorf("the value is a %s of %s, not a tensor of %s", t.Kind, t.DType, dt)
	}
	n := dt.Bits() / 8
	v := make([]T, len(t.Data)/n)
	for i := range v {
		v[i] = getNumber[T](t.Data[i*n:])
	}
	return v, nil
}

func dtypeOf[T Number]() abi.DType {
	var z T
	switch any(z).(type) {
	case float32:
		return abi.F32
	case float64:
		return abi.F64
	case int8:
		return abi.I8
	case int16:
		return abi.I16
	case int32:
		return abi.I32
	case int64:
		return abi.I64
	case uint8:
		return abi.U8
	case uint16:
		return abi.U16
	case uint32:
		return abi.U32
	case uint64:
		return abi.U64
	case bool:
		return abi.Bool
	}
	panic("engine: unreachable: Number is closed")
}

func putNumber(b []byte, v any) {
	le := binary.LittleEndian
	switch v := v.(type) {
	case float32:
		le.PutUint32(b, math.Float32bits(v))
	case float64:
		le.PutUint64(b, math.Float64bits(v))
	case int8:
		b[0] = byte(v)
	case uint8:
		b[0] = v
	case bool:
		b[0] = 0
		if v {
			b[0] = 1
		}
	case int16:
		le.PutUint16(b, uint16(v))
	case uint16:
		le.PutUint16(b, v)
	case int32:
		le.PutUint32(b, uint32(v))
	case uint32:
		le.PutUint32(b, v)
	case int64:
		le.PutUint64(b, uint64(v))
	case uint64:
		le.PutUint64(b, v)
	}
}

func getNumber[T Number](b []byte) T {
	var z T
	le := binary.LittleEndian
	switch p := any(&z).(type) {
	case *float32:
		*p = math.Float32frombits(le.Uint32(b))
	case *float64:
		*p = math.Float64frombits(le.Uint64(b))
	case *int8:
		*p = int8(b[0])
	case *uint8:
		*p = b[0]
	case *bool:
		*p = b[0] != 0
	case *int16:
		*p = int16(le.Uint16(b))
	case *uint16:
		*p = le.Uint16(b)
	case *int32:
		*p = int32(le.Uint32(b))
	case *uint32:
		*p = le.Uint32(b)
	case *int64:
		*p = int64(le.Uint64(b))
	case *uint64:
		*p = le.Uint64(b)
	}
	return z
}

// Count returns the number of elements of a shape, or an error when a dimension is negative or the product overflows.
func Count(shape []int64) (int64, error) {
	n, zero := int64(1), false
	for _, d := range shape {
		if d < 0 {
			return 0, diag.Errorf("dimension %d is negative", d)
		}
		if d == 0 {
			zero = true
			continue
		}
		if n > math.MaxInt64/d {
			return 0, diag.Errorf("shape %s has too many elements", ShapeString(shape))
		}
		n *= d
	}
	if zero {
		return 0, nil
	}
	return n, nil
}

// byteLen returns the bytes that n elements of dt take (string: 0).
func byteLen(dt abi.DType, n int64) (int64, error) {
	bits := int64(dt.Bits())
	if bits == 0 {
		return 0, nil
	}
	if n > (math.MaxInt64-7)/bits {
		return 0, diag.Errorf("%d elements of %s are too many", n, dt)
	}
	return (n*bits + 7) / 8, nil
}

// maxDepth bounds how deep sequences, optionals and maps may nest, in both directions.
const maxDepth = 8

// Check tells whether t is well formed: known dtype, at most abi.MaxRank dimensions, data that fits the shape.
func (t *Tensor) Check() error { return t.check(0) }

func (t *Tensor) check(depth int) error {
	if depth > maxDepth {
		return diag.Errorf("the value nests deeper than %d levels", maxDepth)
	}
	switch t.Kind {
	case abi.Tensor:
	case abi.Sequence:
		return t.checkElems(depth)
	case abi.Optional:
		if len(t.Elems) > 1 {
			return diag.Errorf("an optional holds %d values", len(t.Elems))
		}
		return t.checkElems(depth)
	case abi.Map:
		if len(t.Elems) != 2 {
			return diag.Errorf("a map needs two elements, keys and values, not %d", len(t.Elems))
		}
		return t.checkElems(depth)
	default:
		return diag.Errorf("unknown kind %d", t.Kind)
	}
	if _, ok := t.DType.Info(); !ok {
		return diag.Errorf("unknown element type %d", t.DType)
	}
	if len(t.Shape) > abi.MaxRank {
		return diag.Errorf("rank %d is more than %d", len(t.Shape), abi.MaxRank)
	}
	n, err := Count(t.Shape)
	if err != nil {
		return err
	}
	if t.DType == abi.String {
		if int64(len(t.Strings)) != n {
			return diag.Errorf("shape %s needs %d strings, there are %d", ShapeString(t.Shape), n, len(t.Strings))
		}
		return nil
	}
	want, err := byteLen(t.DType, n)
	if err != nil {
		return err
	}
	if int64(len(t.Data)) != want {
		return diag.Errorf("%s of shape %s needs %d bytes, there are %d", t.DType, ShapeString(t.Shape), want, len(t.Data))
	}
	return nil
}

func (t *Tensor) checkElems(depth int) error {
	for i := range t.Elems {
		if err := t.Elems[i].check(depth + 1); err != nil {
			return diag.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// ShapeString formats a shape as "[2 3]".
func ShapeString(shape []int64) string {
	return fmt.Sprint(shape)
}

// Equal tells whether a and b are the same value bit for bit.
func Equal(a, b Tensor) bool {
	if a.Kind != b.Kind || len(a.Elems) != len(b.Elems) {
		return false
	}
	if a.Kind != abi.Tensor {
		for i := range a.Elems {
			if !Equal(a.Elems[i], b.Elems[i]) {
				return false
			}
		}
		return true
	}
	if a.DType != b.DType || len(a.Shape) != len(b.Shape) || len(a.Strings) != len(b.Strings) {
		return false
	}
	for i := range a.Shape {
		if a.Shape[i] != b.Shape[i] {
			return false
		}
	}
	for i := range a.Strings {
		if a.Strings[i] != b.Strings[i] {
			return false
		}
	}
	return string(a.Data) == string(b.Data)
}
