// Package asm writes WebAssembly functions in Go. An E is a typed expression (its instructions); a Fn collects
// statements. Type errors are programming errors of the compiler and panic at build time.
package asm

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/wasmenc"
)

// Value types, short.
const (
	I32  = wasmenc.I32
	I64  = wasmenc.I64
	F32  = wasmenc.F32
	F64  = wasmenc.F64
	V128 = wasmenc.V128
)

// T is a value type.
type T = wasmenc.ValType

// E is an expression: evaluating Code leaves one value of type T on the stack. Expressions have no identity:
// used twice, they are computed twice.
type E struct {
	T    T
	Code []byte
}

// V is a local variable. Its embedded E reads it.
type V struct {
	E
	Idx uint32
}

// Fn is a function under construction.
type Fn struct {
	Name    string
	Type    wasmenc.FuncType
	mod     *wasmenc.Module
	idx     uint32
	nparams int
	locals  []T
	body    []byte
	depth   int
	free    map[T][]uint32
}

// NewFn declares a function in m; Params are locals 0..n-1. Finish completes it.
func NewFn(m *wasmenc.Module, name string, params, results []T) *Fn {
	t := wasmenc.FuncType{Params: params, Results: results}
	return &Fn{Name: name, Type: t, mod: m, idx: m.Declare(name, t), nparams: len(params), free: map[T][]uint32{}}
}

// Index is the function's index, valid before Finish (recursion, forward calls).
func (f *Fn) Index() uint32 { return f.idx }

// Module is the module that the function belongs to.
func (f *Fn) Module() *wasmenc.Module { return f.mod }

// Finish hands the body to the module and returns the function's index.
func (f *Fn) Finish() uint32 {
	if f.depth != 0 {
		panic("asm: unclosed block in " + f.Name)
	}
	f.mod.Define(f.idx, f.locals, f.body)
	return f.idx
}

// Param returns parameter i.
func (f *Fn) Param(i int) V { return variable(f.Type.Params[i], uint32(i)) }

// Local makes a new local of type t, zero at function entry (not at each loop turn).
func (f *Fn) Local(t T) V {
	f.locals = append(f.locals, t)
	return variable(t, uint32(f.nparams+len(f.locals)-1))
}

// Let makes a local holding e.
func (f *Fn) Let(e E) V {
	v := f.Local(e.T)
	f.Set(v, e)
	return v
}

func variable(t T, i uint32) V {
	return V{E{t, wasmenc.AppendU([]byte{0x20}, uint64(i))}, i}
}

func (f *Fn) emit(b ...byte) { f.body = append(f.body, b...) }

// Set assigns e to v.
func (f *Fn) Set(v V, e E) {
	want(v.T, e)
	f.emit(e.Code...)
	f.body = wasmenc.AppendU(append(f.body, 0x21), uint64(v.Idx))
}

// Inc adds n to an integer variable.
func (f *Fn) Inc(v V, n int64) { f.Set(v, v.AddI(n)) }

// Do evaluates e and drops its value.
func (f *Fn) Do(e E) {
	f.emit(e.Code...)
	f.emit(0x1a)
}

// CallStmt calls a function without result.
func (f *Fn) CallStmt(idx uint32, args ...E) {
	for _, a := range args {
		f.emit(a.Code...)
	}
	f.body = wasmenc.AppendU(append(f.body, 0x10), uint64(idx))
}

// Return returns from the function.
func (f *Fn) Return(es ...E) {
	for i, e := range es {
		want(f.Type.Results[i], e)
		f.emit(e.Code...)
	}
	f.emit(0x0f)
}

// Label names an enclosing block or loop for Br.
type Label int

// Block runs body; a branch to its label leaves it.
func (f *Fn) Block(body func(l Label)) {
	f.emit(0x02, 0x40)
	f.depth++
	body(Label(f.depth))
	f.depth--
	f.emit(0x0b)
}

// Loop runs body once; a branch to its label starts it again.
func (f *Fn) Loop(body func(l Label)) {
	f.emit(0x03, 0x40)
	f.depth++
	body(Label(f.depth))
	f.depth--
	f.emit(0x0b)
}

// Br branches to l.
func (f *Fn) Br(l Label) { f.body = wasmenc.AppendU(append(f.body, 0x0c), uint64(f.depth-int(l))) }

// BrIf branches to l when c is not zero.
func (f *Fn) BrIf(l Label, c E) {
	want(I32, c)
	f.emit(c.Code...)
	f.body = wasmenc.AppendU(append(f.body, 0x0d), uint64(f.depth-int(l)))
}

// If runs then when c is not zero, else els (may be nil).
func (f *Fn) If(c E, then func(), els ...func()) {
	want(I32, c)
	f.emit(c.Code...)
	f.emit(0x04, 0x40)
	f.depth++
	then()
	if len(els) > 0 && els[0] != nil {
		f.emit(0x05)
		els[0]()
	}
	f.depth--
	f.emit(0x0b)
}

// While runs body as long as c holds. cond is called once, its expression is evaluated each turn.
func (f *Fn) While(c E, body func()) {
	f.Block(func(out Label) {
		f.Loop(func(top Label) {
			f.BrIf(out, c.Eqz())
			body()
			f.Br(top)
		})
	})
}

// For runs body with v = lo, lo+step, ... while v < hi (signed). hi is evaluated each turn: pass a variable
// or a constant.
func (f *Fn) For(v V, lo, hi E, step int64, body func()) {
	f.Set(v, lo)
	f.While(v.LtS(hi), func() {
		body()
		f.Inc(v, step)
	})
}

// Up runs body with v = 0 .. hi-1.
func (f *Fn) Up(v V, hi E, body func()) { f.For(v, Const(v.T, 0), hi, 1, body) }

// Unreachable traps.
func (f *Fn) Unreachable() { f.emit(0x00) }

func want(t T, e E) {
	if t != e.T {
		panic(fmt.Sprintf("asm: have %v, want %v", e.T, t))
	}
}

func cat(t T, op []byte, es ...E) E {
	n := len(op)
	for _, e := range es {
		n += len(e.Code)
	}
	b := make([]byte, 0, n)
	for _, e := range es {
		b = append(b, e.Code...)
	}
	return E{t, append(b, op...)}
}

// C is an i32 constant.
func C(n int64) E { return Const(I32, n) }

// CL is an i64 constant.
func CL(n int64) E { return Const(I64, n) }

// Const is an integer or float constant of type t.
func Const(t T, n int64) E {
	switch t {
	case I32:
		return E{I32, wasmenc.AppendS([]byte{0x41}, int64(int32(n)))}
	case I64:
		return E{I64, wasmenc.AppendS([]byte{0x42}, n)}
	case F32:
		return CF(float32(n))
	case F64:
		return CD(float64(n))
	}
	panic("asm: constant of type " + t.String())
}

// CF is an f32 constant.
func CF(v float32) E { return E{F32, wasmenc.AppendF32([]byte{0x43}, v)} }

// CD is an f64 constant.
func CD(v float64) E { return E{F64, wasmenc.AppendF64([]byte{0x44}, v)} }

// CFloat is a constant of float type t.
func CFloat(t T, v float64) E {
	if t == F32 {
		return CF(float32(v))
	}
	return CD(v)
}

// Call calls function idx, whose result has type t.
func Call(t T, idx uint32, args ...E) E {
	return cat(t, wasmenc.AppendU([]byte{0x10}, uint64(idx)), args...)
}

// CallIndirect calls the function at table index i with signature sig.
func (f *Fn) CallIndirect(sig wasmenc.FuncType, i E, args ...E) E {
	op := wasmenc.AppendU([]byte{0x11}, uint64(f.mod.TypeIndex(sig)))
	return cat(sig.Results[0], append(op, 0), append(append([]E{}, args...), i)...)
}

// Select is c ? a : b; both are evaluated.
func Select(c, a, b E) E {
	want(I32, c)
	want(a.T, b)
	if a.T == V128 {
		return cat(a.T, []byte{0x1c, 1, byte(V128)}, a, b, c)
	}
	return cat(a.T, []byte{0x1b}, a, b, c)
}

// Cond is c ? a : b with only one evaluated.
func Cond(c, a, b E) E {
	want(I32, c)
	want(a.T, b)
	code := append(append([]byte{}, c.Code...), 0x04, byte(a.T))
	code = append(append(code, a.Code...), 0x05)
	code = append(append(code, b.Code...), 0x0b)
	return E{a.T, code}
}

// And2 is the short-circuit conjunction, Or2 the disjunction.
func And2(a, b E) E { return Cond(a, b, C(0)) }

// Or2 is the short-circuit disjunction of two conditions.
func Or2(a, b E) E { return Cond(a, C(1), b) }

// MemCopy copies n bytes; the ranges may overlap.
func (f *Fn) MemCopy(dst, src, n E) {
	f.emit(cat(I32, []byte{0xfc, 10, 0, 0}, dst, src, n).Code...)
}

// MemFill sets n bytes to the value v.
func (f *Fn) MemFill(dst, v, n E) {
	f.emit(cat(I32, []byte{0xfc, 11, 0}, dst, v, n).Code...)
}

func pick(t T, i32, i64, f32, f64 byte) byte {
	var b byte
	switch t {
	case I32:
		b = i32
	case I64:
		b = i64
	case F32:
		b = f32
	case F64:
		b = f64
	}
	if b == 0 {
		panic("asm: no such operator for " + t.String())
	}
	return b
}

func bin(a, b E, i32, i64, f32, f64 byte) E {
	want(a.T, b)
	return cat(a.T, []byte{pick(a.T, i32, i64, f32, f64)}, a, b)
}

func rel(a, b E, i32, i64, f32, f64 byte) E {
	want(a.T, b)
	return cat(I32, []byte{pick(a.T, i32, i64, f32, f64)}, a, b)
}

// Arithmetic.

func (a E) Add(b E) E      { return bin(a, b, 0x6a, 0x7c, 0x92, 0xa0) }
func (a E) Sub(b E) E      { return bin(a, b, 0x6b, 0x7d, 0x93, 0xa1) }
func (a E) Mul(b E) E      { return bin(a, b, 0x6c, 0x7e, 0x94, 0xa2) }
func (a E) Div(b E) E      { return bin(a, b, 0, 0, 0x95, 0xa3) }
func (a E) DivS(b E) E     { return bin(a, b, 0x6d, 0x7f, 0, 0) }
func (a E) DivU(b E) E     { return bin(a, b, 0x6e, 0x80, 0, 0) }
func (a E) And(b E) E      { return bin(a, b, 0x71, 0x83, 0, 0) }
func (a E) Or(b E) E       { return bin(a, b, 0x72, 0x84, 0, 0) }
func (a E) Xor(b E) E      { return bin(a, b, 0x73, 0x85, 0, 0) }
func (a E) Shl(b E) E      { return bin(a, b, 0x74, 0x86, 0, 0) }
func (a E) ShrS(b E) E     { return bin(a, b, 0x75, 0x87, 0, 0) }
func (a E) ShrU(b E) E     { return bin(a, b, 0x76, 0x88, 0, 0) }
func (a E) Min(b E) E      { return bin(a, b, 0, 0, 0x96, 0xa4) }
func (a E) Max(b E) E      { return bin(a, b, 0, 0, 0x97, 0xa5) }
func (a E) CopySign(b E) E { return bin(a, b, 0, 0, 0x98, 0xa6) }

// RemU is a mod b, by way of the quotient: wazero's arm64 compiler was seen to give wrong remainders for rem_u. Both sides are
// evaluated twice.
func (a E) RemU(b E) E { return a.Sub(a.DivU(b).Mul(b)) }

// RemS is the truncated remainder, by way of the quotient as in RemU; of -1 it is 0, where the quotient alone could overflow.
func (a E) RemS(b E) E {
	d := Cond(b.Eq(Const(a.T, -1)), Const(a.T, 1), b)
	return a.Sub(a.DivS(d).Mul(d))
}

func (a E) AddI(n int64) E {
	if n == 0 {
		return a
	}
	return a.Add(Const(a.T, n))
}
func (a E) SubI(n int64) E { return a.Sub(Const(a.T, n)) }
func (a E) MulI(n int64) E {
	if n == 1 {
		return a
	}
	return a.Mul(Const(a.T, n))
}
func (a E) AndI(n int64) E { return a.And(Const(a.T, n)) }
func (a E) ShlI(n int64) E {
	if n == 0 {
		return a
	}
	return a.Shl(Const(a.T, n))
}
func (a E) ShrSI(n int64) E { return a.ShrS(Const(a.T, n)) }
func (a E) ShrUI(n int64) E { return a.ShrU(Const(a.T, n)) }

// Comparisons; the result is an i32.

func (a E) Eq(b E) E      { return rel(a, b, 0x46, 0x51, 0x5b, 0x61) }
func (a E) Ne(b E) E      { return rel(a, b, 0x47, 0x52, 0x5c, 0x62) }
func (a E) LtS(b E) E     { return rel(a, b, 0x48, 0x53, 0, 0) }
func (a E) LtU(b E) E     { return rel(a, b, 0x49, 0x54, 0, 0) }
func (a E) GtS(b E) E     { return rel(a, b, 0x4a, 0x55, 0, 0) }
func (a E) GtU(b E) E     { return rel(a, b, 0x4b, 0x56, 0, 0) }
func (a E) LeS(b E) E     { return rel(a, b, 0x4c, 0x57, 0, 0) }
func (a E) LeU(b E) E     { return rel(a, b, 0x4d, 0x58, 0, 0) }
func (a E) GeS(b E) E     { return rel(a, b, 0x4e, 0x59, 0, 0) }
func (a E) GeU(b E) E     { return rel(a, b, 0x4f, 0x5a, 0, 0) }
func (a E) Lt(b E) E      { return rel(a, b, 0, 0, 0x5d, 0x63) }
func (a E) Gt(b E) E      { return rel(a, b, 0, 0, 0x5e, 0x64) }
func (a E) Le(b E) E      { return rel(a, b, 0, 0, 0x5f, 0x65) }
func (a E) Ge(b E) E      { return rel(a, b, 0, 0, 0x60, 0x66) }
func (a E) EqI(n int64) E { return a.Eq(Const(a.T, n)) }
func (a E) NeI(n int64) E { return a.Ne(Const(a.T, n)) }

// Eqz is 1 when a is zero.
func (a E) Eqz() E {
	return cat(I32, []byte{pick(a.T, 0x45, 0x50, 0, 0)}, a)
}

// Unary float operators.

func (a E) Abs() E     { return cat(a.T, []byte{pick(a.T, 0, 0, 0x8b, 0x99)}, a) }
func (a E) Neg() E     { return cat(a.T, []byte{pick(a.T, 0, 0, 0x8c, 0x9a)}, a) }
func (a E) Ceil() E    { return cat(a.T, []byte{pick(a.T, 0, 0, 0x8d, 0x9b)}, a) }
func (a E) Floor() E   { return cat(a.T, []byte{pick(a.T, 0, 0, 0x8e, 0x9c)}, a) }
func (a E) Trunc() E   { return cat(a.T, []byte{pick(a.T, 0, 0, 0x8f, 0x9d)}, a) }
func (a E) Nearest() E { return cat(a.T, []byte{pick(a.T, 0, 0, 0x90, 0x9e)}, a) }
func (a E) Sqrt() E    { return cat(a.T, []byte{pick(a.T, 0, 0, 0x91, 0x9f)}, a) }

// Clz counts leading zeros of an integer.
func (a E) Clz() E { return cat(a.T, []byte{pick(a.T, 0x67, 0x79, 0, 0)}, a) }

// Ctz counts trailing zeros of an integer.
func (a E) Ctz() E { return cat(a.T, []byte{pick(a.T, 0x68, 0x7a, 0, 0)}, a) }

// Conversions.

// Wrap takes the low half of an i64.
func (a E) Wrap() E { want(I64, a); return cat(I32, []byte{0xa7}, a) }

// ExtS sign-extends an i32 to i64, ExtU zero-extends.
func (a E) ExtS() E { want(I32, a); return cat(I64, []byte{0xac}, a) }

// ExtU zero-extends an i32 to i64.
func (a E) ExtU() E { want(I32, a); return cat(I64, []byte{0xad}, a) }

// Sext sign-extends the low bits (8, 16 or 32) of an integer.
func (a E) Sext(bits int) E {
	switch {
	case a.T == I32 && bits == 8:
		return cat(I32, []byte{0xc0}, a)
	case a.T == I32 && bits == 16:
		return cat(I32, []byte{0xc1}, a)
	case a.T == I64 && bits == 32:
		return cat(I64, []byte{0xc4}, a)
	}
	panic("asm: Sext")
}

// ToF converts an integer to float type t, rounding to nearest even.
func (a E) ToF(t T, signed bool) E {
	ops := map[[2]T][2]byte{
		{I32, F32}: {0xb2, 0xb3}, {I64, F32}: {0xb4, 0xb5},
		{I32, F64}: {0xb7, 0xb8}, {I64, F64}: {0xb9, 0xba},
	}
	o, ok := ops[[2]T{a.T, t}]
	if !ok {
		panic("asm: ToF")
	}
	if signed {
		return cat(t, []byte{o[0]}, a)
	}
	return cat(t, []byte{o[1]}, a)
}

// TruncSat converts a float to integer type t: toward zero, saturating, NaN to 0.
func (a E) TruncSat(t T, signed bool) E {
	ops := map[[2]T]byte{{F32, I32}: 0, {F64, I32}: 2, {F32, I64}: 4, {F64, I64}: 6}
	o, ok := ops[[2]T{a.T, t}]
	if !ok {
		panic("asm: TruncSat")
	}
	if !signed {
		o++
	}
	return cat(t, []byte{0xfc, o}, a)
}

// Promote is f32 to f64, Demote back (nearest even).
func (a E) Promote() E { want(F32, a); return cat(F64, []byte{0xbb}, a) }

// Demote rounds an f64 to f32.
func (a E) Demote() E { want(F64, a); return cat(F32, []byte{0xb6}, a) }

// Bits reinterprets a float as the integer of its width, and an integer as the float.
func (a E) Bits() E {
	switch a.T {
	case F32:
		return cat(I32, []byte{0xbc}, a)
	case F64:
		return cat(I64, []byte{0xbd}, a)
	case I32:
		return cat(F32, []byte{0xbe}, a)
	case I64:
		return cat(F64, []byte{0xbf}, a)
	}
	panic("asm: Bits")
}

// PMin is b < a ? b : a (both sides are evaluated more than once: pass variables).
func PMin(a, b E) E { return Select(b.Lt(a), b, a) }

// PMax is a < b ? b : a (both sides are evaluated more than once: pass variables).
func PMax(a, b E) E { return Select(a.Lt(b), b, a) }
