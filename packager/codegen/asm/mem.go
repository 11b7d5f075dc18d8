package asm

import "github.com/waybill-ml/waybill/packager/wasmenc"

// Mem is the width and extension of a memory access.
type Mem struct {
	T           T
	Load, Store byte
	Shift       int64 // log2 of the bytes
	Prefix      bool  // 0xfd prefix
}

// Memory accesses.
var (
	M32  = Mem{I32, 0x28, 0x36, 2, false}
	M64  = Mem{I64, 0x29, 0x37, 3, false}
	MF32 = Mem{F32, 0x2a, 0x38, 2, false}
	MF64 = Mem{F64, 0x2b, 0x39, 3, false}
	M8S  = Mem{I32, 0x2c, 0x3a, 0, false}
	M8U  = Mem{I32, 0x2d, 0x3a, 0, false}
	M16S = Mem{I32, 0x2e, 0x3b, 1, false}
	M16U = Mem{I32, 0x2f, 0x3b, 1, false}
	MV   = Mem{V128, 0x00, 0x0b, 4, true}
)

func (m Mem) arg(op byte, off uint32) []byte {
	var b []byte
	if m.Prefix {
		b = []byte{0xfd}
	}
	// Alignment is a hint: 0 is always right, and engines on amd64 and arm64 ignore it.
	b = append(b, op, 0)
	return wasmenc.AppendU(b, uint64(off))
}

// At loads from addr + off.
func (m Mem) At(addr E, off uint32) E {
	want(I32, addr)
	return cat(m.T, m.arg(m.Load, off), addr)
}

// Put stores v at addr + off.
func (f *Fn) Put(m Mem, addr E, off uint32, v E) {
	want(I32, addr)
	want(m.T, v)
	f.emit(addr.Code...)
	f.emit(v.Code...)
	f.emit(m.arg(m.Store, off)...)
}

// L32 loads an i32.
func L32(addr E, off uint32) E { return M32.At(addr, off) }

// L64 loads an i64.
func L64(addr E, off uint32) E { return M64.At(addr, off) }

// Lane counts and SIMD operators.

// VC is a v128 constant of four f32 (or two f64) copies of v.
func VC(t T, v float64) E {
	b := []byte{0xfd, 0x0c}
	for i := 0; i < 4; i++ {
		if t == F32 {
			b = wasmenc.AppendF32(b, float32(v))
		} else if i < 2 {
			b = wasmenc.AppendF64(b, v)
		}
	}
	return E{V128, b}
}

// VC32 is a v128 constant of four copies of the i32 v.
func VC32(v uint32) E {
	b := []byte{0xfd, 0x0c}
	for i := 0; i < 4; i++ {
		b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	return E{V128, b}
}

func simd(op uint64, es ...E) E {
	return cat(V128, wasmenc.AppendU([]byte{0xfd}, op), es...)
}

// Splat fills a vector with a scalar.
func Splat(a E) E {
	switch a.T {
	case I32:
		return simd(0x11, a)
	case I64:
		return simd(0x12, a)
	case F32:
		return simd(0x13, a)
	case F64:
		return simd(0x14, a)
	}
	panic("asm: Splat")
}

// LoadSplat32 loads four bytes into every lane.
func LoadSplat32(addr E, off uint32) E {
	return cat(V128, wasmenc.AppendU([]byte{0xfd, 0x09, 0}, uint64(off)), addr)
}

// Lane extracts lane i as t (F32, F64 or I32).
func (a E) Lane(t T, i byte) E {
	op := map[T]byte{F32: 0x1f, F64: 0x21, I32: 0x1b, I64: 0x1d}[t]
	return cat(t, []byte{0xfd, op, i}, a)
}

func vop(t T, a, b E, f32, f64 uint64) E {
	want(V128, a)
	want(V128, b)
	if t == F32 {
		return simd(f32, a, b)
	}
	return simd(f64, a, b)
}

// Vector arithmetic over lanes of t (F32 or F64).

func VAdd(t T, a, b E) E  { return vop(t, a, b, 0xe4, 0xf0) }
func VSub(t T, a, b E) E  { return vop(t, a, b, 0xe5, 0xf1) }
func VMul(t T, a, b E) E  { return vop(t, a, b, 0xe6, 0xf2) }
func VDiv(t T, a, b E) E  { return vop(t, a, b, 0xe7, 0xf3) }
func VMin(t T, a, b E) E  { return vop(t, a, b, 0xe8, 0xf4) }
func VMax(t T, a, b E) E  { return vop(t, a, b, 0xe9, 0xf5) }
func VPMin(t T, a, b E) E { return vop(t, a, b, 0xea, 0xf6) }
func VPMax(t T, a, b E) E { return vop(t, a, b, 0xeb, 0xf7) }
func VLt(t T, a, b E) E   { return vop(t, a, b, 0x43, 0x49) }
func VGt(t T, a, b E) E   { return vop(t, a, b, 0x44, 0x4a) }

func vun(t T, a E, f32, f64 uint64) E {
	if t == F32 {
		return simd(f32, a)
	}
	return simd(f64, a)
}

func VAbs(t T, a E) E     { return vun(t, a, 0xe0, 0xec) }
func VNeg(t T, a E) E     { return vun(t, a, 0xe1, 0xed) }
func VSqrt(t T, a E) E    { return vun(t, a, 0xe3, 0xef) }
func VNearest(t T, a E) E { return vun(t, a, 0x6a, 0x94) }
func VFloor(t T, a E) E   { return vun(t, a, 0x68, 0x75) }
func VCeil(t T, a E) E    { return vun(t, a, 0x67, 0x74) }

// Bitwise vector operators.

func VAnd(a, b E) E       { return simd(0x4e, a, b) }
func VOr(a, b E) E        { return simd(0x50, a, b) }
func VXor(a, b E) E       { return simd(0x51, a, b) }
func VSelect(a, b, m E) E { return simd(0x52, a, b, m) } // bits of a where m is 1, else of b
func VI32Add(a, b E) E    { return simd(0xae, a, b) }
func VI32Sub(a, b E) E    { return simd(0xb1, a, b) }
func VI32Shl(a, n E) E    { return simd(0xab, a, n) }
func VI32ShrS(a, n E) E   { return simd(0xac, a, n) }
func VI32ShrU(a, n E) E   { return simd(0xad, a, n) }
func VTruncSat32S(a E) E  { return simd(0xf8, a) }
func VConvert32S(a E) E   { return simd(0xfa, a) }

// VFEq compares lanes of t for equality.
func VFEq(t T, a, b E) E { return vop(t, a, b, 0x41, 0x47) }
