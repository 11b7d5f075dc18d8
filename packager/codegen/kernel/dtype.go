package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// DT is how kernels treat an element type: its memory form and the WebAssembly type that computes it.
type DT struct {
	ABI    abi.DType
	Name   string
	Shift  int64 // log2 of the element's bytes
	Mem    asm.Mem
	C      T // compute type
	Signed bool
	Float  bool
	Bits   int
}

// Element types that kernels compute. F16 and BF16 compute in f32.
var dts = []DT{
	{abi.F32, "f32", 2, asm.MF32, asm.F32, true, true, 32},
	{abi.F64, "f64", 3, asm.MF64, asm.F64, true, true, 64},
	{abi.I8, "i8", 0, asm.M8S, asm.I32, true, false, 8},
	{abi.I16, "i16", 1, asm.M16S, asm.I32, true, false, 16},
	{abi.I32, "i32", 2, asm.M32, asm.I32, true, false, 32},
	{abi.I64, "i64", 3, asm.M64, asm.I64, true, false, 64},
	{abi.U8, "u8", 0, asm.M8U, asm.I32, false, false, 8},
	{abi.U16, "u16", 1, asm.M16U, asm.I32, false, false, 16},
	{abi.U32, "u32", 2, asm.M32, asm.I32, false, false, 32},
	{abi.U64, "u64", 3, asm.M64, asm.I64, false, false, 64},
	{abi.Bool, "bool", 0, asm.M8U, asm.I32, false, false, 8},
	{abi.F16, "f16", 1, asm.M16U, asm.F32, true, true, 16},
	{abi.BF16, "bf16", 1, asm.M16U, asm.F32, true, true, 16},
}

// DTypeOf finds the kernel view of an element type.
func DTypeOf(d abi.DType) (DT, error) {
	for _, t := range dts {
		if t.ABI == d {
			return t, nil
		}
	}
	return DT{}, fmt.Errorf("no arithmetic on element type %s, which is only stored, moved and converted", d)
}

func dtOf(d abi.DType) DT {
	t, err := DTypeOf(d)
	if err != nil {
		panic(err)
	}
	return t
}

// Half tells that elements are stored in 16 bits and computed in f32.
func (d DT) Half() bool { return d.ABI == abi.F16 || d.ABI == abi.BF16 }

// Load reads an element into the compute type.
func (k *K) Load(d DT, addr E, off uint32) E { return k.L.load(d, addr, off) }

func (l *Lib) load(d DT, addr E, off uint32) E {
	switch d.ABI {
	case abi.BF16:
		return asm.M16U.At(addr, off).ShlI(16).Bits()
	case abi.F16:
		return asm.Call(asm.F32, l.f16to32(), asm.M16U.At(addr, off))
	}
	return d.Mem.At(addr, off)
}

// Store writes an element from the compute type; narrow integers keep their low bits.
func (k *K) Store(d DT, addr E, off uint32, v E) { k.L.store(k.Fn, d, addr, off, v) }

func (l *Lib) store(f *asm.Fn, d DT, addr E, off uint32, v E) {
	switch d.ABI {
	case abi.BF16:
		f.Put(asm.M16U, addr, off, asm.Call(asm.I32, l.f32toBF16(), v))
	case abi.F16:
		f.Put(asm.M16U, addr, off, asm.Call(asm.I32, l.f64to16(), v.Promote()))
	case abi.U4, abi.I4, abi.U2, abi.I2:
		f.Put(asm.M8U, addr, off, d.narrow(v))
	default:
		f.Put(d.Mem, addr, off, v)
	}
}

// Lowest is the start of a maximum, Highest of a minimum, in the compute type.
func (d DT) Lowest() E {
	switch {
	case d.Float:
		return asm.CFloat(d.C, negInf)
	case !d.Signed:
		return asm.Const(d.C, 0)
	}
	return asm.Const(d.C, -1<<(d.Bits-1))
}

// Highest is the largest value of the type.
func (d DT) Highest() E {
	switch {
	case d.Float:
		return asm.CFloat(d.C, -negInf)
	case d.ABI == abi.Bool:
		return asm.C(1)
	case d.Signed && d.Bits == 64:
		return asm.CL(1<<63 - 1)
	case d.Signed:
		return asm.Const(d.C, 1<<(d.Bits-1)-1)
	case d.Bits == 64 || d.Bits == 32:
		return asm.Const(d.C, -1)
	}
	return asm.Const(d.C, 1<<d.Bits-1)
}

// Lt compares in the type's order.
func (d DT) Lt(a, b E) E {
	switch {
	case d.Float:
		return a.Lt(b)
	case d.Signed:
		return a.LtS(b)
	}
	return a.LtU(b)
}

// f16to32 widens the bits of a binary16 exactly.
func (l *Lib) f16to32() uint32 {
	return l.Fn("f16_to_f32", []T{asm.I32}, []T{asm.F32}, func(f *asm.Fn) {
		h := f.Param(0)
		s := f.Let(h.AndI(0x8000).ShlI(16))
		e := f.Let(h.ShrUI(10).AndI(31))
		m := f.Let(h.AndI(0x3ff))
		f.If(e.EqI(31), func() { f.Return(s.Or(asm.C(0x7f800000)).Or(m.ShlI(13)).Bits()) })
		f.If(e.Eqz(), func() {
			// m * 2^-24 is exact.
			f.Return(m.ToF(asm.F32, true).Mul(asm.CF(1.0 / (1 << 24))).Bits().Or(s.E).Bits())
		})
		f.Return(s.Or(e.AddI(112).ShlI(23)).Or(m.ShlI(13)).Bits())
	})
}

// f64to16 rounds to binary16, nearest even, in one step.
func (l *Lib) f64to16() uint32 {
	return l.Fn("f64_to_f16", []T{asm.F64}, []T{asm.I32}, func(f *asm.Fn) {
		x := f.Param(0)
		b := f.Let(x.Bits())
		s := f.Let(b.ShrUI(48).Wrap().AndI(0x8000))
		a := f.Let(x.Abs())
		f.If(x.Ne(x.E), func() { f.Return(asm.C(0x7e00)) })
		f.If(a.Ge(asm.CD(65520)), func() { f.Return(s.Or(asm.C(0x7c00))) })
		f.If(a.Lt(asm.CD(0x1p-14)), func() {
			// Subnormal: the nearest multiple of 2^-24.
			f.Return(s.Or(a.Mul(asm.CD(1<<24)).Nearest().TruncSat(asm.I32, true)))
		})
		f.Set(b, a.Bits())
		e := f.Let(b.ShrUI(52).Wrap().SubI(1023))
		// The significand in units of 2^(e-10), rounded, lies in [1024, 2048]; 2048 carries into the exponent.
		sc := f.Let(asm.C(1033).Sub(e.E).ExtU().ShlI(52).Bits())
		m := f.Let(a.Mul(sc.E).Nearest().TruncSat(asm.I32, true))
		f.Return(s.Or(e.AddI(14).ShlI(10).Add(m.E)))
	})
}

// f32toBF16 rounds to bfloat16, nearest even.
func (l *Lib) f32toBF16() uint32 {
	return l.Fn("f32_to_bf16", []T{asm.F32}, []T{asm.I32}, func(f *asm.Fn) {
		x := f.Param(0)
		f.If(x.Ne(x.E), func() { f.Return(asm.C(0x7fc0)) })
		b := f.Let(x.Bits())
		f.Return(b.AddI(0x7fff).Add(b.ShrUI(16).AndI(1)).ShrUI(16))
	})
}
