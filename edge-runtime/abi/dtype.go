package abi

// DTypeInfo is one row of the element type table.
type DTypeInfo struct {
	DType DType
	Name  string // as ir prints it and the interface document writes it
	Bits  int    // of one element; 0 for String
	OIP   string // datatype of the Open Inference Protocol, "" where it has none
}

// DTypes is the closed table of element types, in the order of their numbers.
func DTypes() []DTypeInfo {
	return []DTypeInfo{
		{F32, "f32", 32, "FP32"},
		{U8, "u8", 8, "UINT8"},
		{I8, "i8", 8, "INT8"},
		{U16, "u16", 16, "UINT16"},
		{I16, "i16", 16, "INT16"},
		{I32, "i32", 32, "INT32"},
		{I64, "i64", 64, "INT64"},
		{String, "string", 0, "BYTES"},
		{Bool, "bool", 8, "BOOL"},
		{F16, "f16", 16, "FP16"},
		{F64, "f64", 64, "FP64"},
		{U32, "u32", 32, "UINT32"},
		{U64, "u64", 64, "UINT64"},
		{BF16, "bf16", 16, "BF16"},
		{F8E4M3FN, "f8e4m3fn", 8, ""},
		{F8E4M3FNUZ, "f8e4m3fnuz", 8, ""},
		{F8E5M2, "f8e5m2", 8, ""},
		{F8E5M2FNUZ, "f8e5m2fnuz", 8, ""},
		{U4, "u4", 4, ""},
		{I4, "i4", 4, ""},
	}
}

// Info returns d's row of the table; ok is false for a number that is no element type.
func (d DType) Info() (info DTypeInfo, ok bool) {
	for _, i := range DTypes() {
		if i.DType == d {
			return i, true
		}
	}
	return DTypeInfo{}, false
}

// Bits returns the size of one element in bits: 0 for String and for unknown numbers.
func (d DType) Bits() int {
	switch d {
	case U4, I4:
		return 4
	case U8, I8, Bool, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ:
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

// String returns the name of d, or "dtype(N)".
func (d DType) String() string {
	if i, ok := d.Info(); ok {
		return i.Name
	}
	return "dtype(" + utoa(uint32(d)) + ")"
}

// ParseDType is the inverse of String for the types of the table.
func ParseDType(s string) (DType, bool) {
	for _, i := range DTypes() {
		if i.Name == s {
			return i.DType, true
		}
	}
	return 0, false
}

// String returns the name of k as the interface document writes it.
func (k Kind) String() string {
	switch k {
	case Tensor:
		return "tensor"
	case Sequence:
		return "sequence"
	case Optional:
		return "optional"
	case Map:
		return "map"
	}
	return "kind(" + utoa(uint32(k)) + ")"
}

// ParseKind is the inverse of Kind.String; the empty name means Tensor.
func ParseKind(s string) (Kind, bool) {
	for _, k := range []Kind{Tensor, Sequence, Optional, Map} {
		if s == k.String() || s == "" {
			return k, true
		}
	}
	return 0, false
}

// utoa is strconv.FormatUint without the import: guests written in Go link this package.
func utoa(v uint32) string {
	var b [10]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + v%10)
		if v /= 10; v == 0 {
			return string(b[i:])
		}
	}
}
