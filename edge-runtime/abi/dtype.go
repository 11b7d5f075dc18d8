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
	var t []DTypeInfo
	for d := F32; d <= I2; d++ {
		if i, ok := d.Info(); ok {
			t = append(t, i)
		}
	}
	return t
}

// Info returns d's row of the table; ok is false for a number that is no element type.
func (d DType) Info() (info DTypeInfo, ok bool) {
	name, oip := d.names()
	return DTypeInfo{d, name, d.Bits(), oip}, name != ""
}

// names is a switch, not a table: it runs for every tensor of every call.
func (d DType) names() (name, oip string) {
	switch d {
	case F32:
		return "f32", "FP32"
	case U8:
		return "u8", "UINT8"
	case I8:
		return "i8", "INT8"
	case U16:
		return "u16", "UINT16"
	case I16:
		return "i16", "INT16"
	case I32:
		return "i32", "INT32"
	case I64:
		return "i64", "INT64"
	case String:
		return "string", "BYTES"
	case Bool:
		return "bool", "BOOL"
	case F16:
		return "f16", "FP16"
	case F64:
		return "f64", "FP64"
	case U32:
		return "u32", "UINT32"
	case U64:
		return "u64", "UINT64"
	case BF16:
		return "bf16", "BF16"
	case F8E4M3FN:
		return "f8e4m3fn", ""
	case F8E4M3FNUZ:
		return "f8e4m3fnuz", ""
	case F8E5M2:
		return "f8e5m2", ""
	case F8E5M2FNUZ:
		return "f8e5m2fnuz", ""
	case U4:
		return "u4", ""
	case I4:
		return "i4", ""
	case F4E2M1:
		return "f4e2m1", ""
	case F8E8M0:
		return "f8e8m0", ""
	case U2:
		return "u2", ""
	case I2:
		return "i2", ""
	}
	return "", ""
}

// Bits returns the size of one element in bits: 0 for String and for unknown numbers.
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

// String returns the name of d, or "dtype(N)".
func (d DType) String() string {
	if name, _ := d.names(); name != "" {
		return name
	}
	return "dtype(" + utoa(uint32(d)) + ")"
}

// ParseDType is the inverse of String for the types of the table.
func ParseDType(s string) (DType, bool) {
	for d := F32; d <= I2; d++ {
		if name, _ := d.names(); name == s && s != "" {
			return d, true
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
