// Package kernel holds the WebAssembly kernels of the compiler: for each operator and dtype a prep function (checks
// shapes, sizes and allocates outputs, states the amount of work) and a range function (does the units [lo, hi) of
// it) or a run function (small, does everything). Kernels take their shapes from descriptors, so one kernel serves every node.
//
// A node of the program is a record in the data segment; a machine (machine.go) walks the records. Nothing is kept
// outside the context block, so any number of contexts may run the same program.
package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
	"github.com/waybill-ml/waybill/packager/wasmenc"
)

type (
	// E is an expression, V a local variable, T a value type.
	E = asm.E
	V = asm.V
	T = asm.T
)

// The guest's part of the context block, after abi.CtxHeader.
const (
	CtxPC      = abi.CtxHeader + 0  // u32 address of the current record
	CtxPhase   = abi.CtxHeader + 4  // u32: 0 before prep, 1 after
	CtxCursor  = abi.CtxHeader + 8  // i64: first unit of work not yet done
	CtxLeft    = abi.CtxHeader + 16 // i64: budget left in this resume
	CtxHeap    = abi.CtxHeader + 24 // u32: start of the dynamic heap in the arena
	CtxTop     = abi.CtxHeader + 28 // u32: end of its used part
	CtxState   = abi.CtxHeader + 32 // u32: State*
	CtxParRec  = abi.CtxHeader + 36 // u32: record whose parts may run, or 0
	CtxTotal   = abi.CtxHeader + 40 // i64: units of work, set by prep
	CtxCost    = abi.CtxHeader + 48 // i64: budget that one unit costs, at least 1
	CtxChunk   = abi.CtxHeader + 56 // i64: units of a part
	CtxScratch = 128                // prep's notes for range: read-only while ranges run
	CtxSlots   = 2048               // value slots
	CtxSerial  = CtxSlots - 4       // u32, end of the scratch: not 0 when the units of this step build on each other
	ScratchLen = CtxSerial - CtxScratch
)

// States of a context.
const (
	StateBound  = 0x11
	StateDone   = 0x22
	StateFailed = 0x33
)

// Layout of a record. References are u32: 0 absent, odd: address of a constant descriptor plus 1, even: slot at ctx + ref.
const (
	RecPrep  = 0  // table index of prep, 0 for none
	RecSize  = 4  // bytes of the record
	RecNode  = 8  // node index for error records
	RecNIn   = 12 // number of inputs
	RecRun   = 16 // table index of run or range
	RecAttrs = 20 // address of the attribute block (8-byte slots)
	RecKind  = 24 // Kind*
	RecNFree = 28 // number of slots to release after the step
	RecRefs  = 32 // outputs, inputs, slots to release
)

// Kinds of a record.
const (
	KindRun      = 0 // run(ctx, rec) does it all
	KindRange    = 1 // range(ctx, rec, lo, hi), sliced by budget
	KindParallel = 2 // the same, and its units may run as parts
)

// Statuses inside the machine, besides abi's.
const (
	stNext = 0 // go on with the next record
	stJump = 5 // run has set CtxPC
	stHalt = 6 // the program is done
	stMore = int64(abi.More)
)

// Flags in a slot's DescFlags. flagOwned: Data points behind a block header of the dynamic heap. flagPlanned: it points into the planned
// part of the arena, where the compiler has seen to it that nobody else writes while somebody may read.
const (
	flagOwned   = 1
	flagPlanned = 2
)

// Block header of the dynamic heap.
const (
	blkSize = 0 // u32 payload bytes
	blkRefs = 4 // u32 reference count, 0 = free
	blkHead = 16
)

// DefaultBudget is the work of one resume when the host states none: a millisecond at one unit per nanosecond, so that it stays
// below two where memory is slow or numbers are subnormal.
const DefaultBudget = 1_000_000

var (
	sigPrep  = wasmenc.FuncType{Params: []T{asm.I32, asm.I32}, Results: []T{asm.I32}}
	sigRange = wasmenc.FuncType{Params: []T{asm.I32, asm.I32, asm.I32, asm.I32}, Results: []T{asm.I32}}
)

// Lib emits functions into one module, each name once.
type Lib struct {
	M        *wasmenc.Module
	UnitMost int64 // what a unit of work may cost at most
	fns      map[string]uint32
	allocFn  *asm.Fn // built last: it knows the plan
}

// NewLib returns an empty library over m.
func NewLib(m *wasmenc.Module) *Lib { return &Lib{M: m, UnitMost: unitMost, fns: map[string]uint32{}} }

// Kernel is an operator for one combination of dtypes and variants, which Name must spell out completely.
// Functions are built on first use.
type Kernel struct {
	Name     string
	NOut     int
	PrepName string // name of the prep function when kernels share it; "" = Name
	Prep     func(k *K)
	Run      func(k *K)           // exclusive with Range
	Range    func(k *K, lo, hi V) // units [lo, hi), i32
	Parallel bool                 // ranges may run concurrently as parts
	// Holds says whose memory the outputs hold, InPlace over which inputs the memory of output 0 may be laid: those that are read
	// element by element, each before the output's element at the same address is written, when all of it is of one shape and width.
	Holds   Holding
	InPlace []int
	// Jumps kernels never go on to the next record.
	Jumps bool
}

// Indexes are the table entries of a kernel.
type Indexes struct{ Prep, Run, Kind uint32 }

// Use emits k's functions if they are not there yet.
func (l *Lib) Use(k *Kernel) Indexes {
	var x Indexes
	if k.Prep != nil {
		name := k.PrepName
		if name == "" {
			name = k.Name
		}
		x.Prep = l.kfn("prep "+name, k, sigPrep, func(b *K) {
			k.Prep(b)
			b.Return(asm.C(0))
		})
	}
	switch {
	case k.Range != nil:
		x.Kind = KindRange
		if k.Parallel {
			x.Kind = KindParallel
		}
		x.Run = l.kfn("range "+k.Name, k, sigRange, func(b *K) {
			k.Range(b, b.Param(2), b.Param(3))
			b.Return(asm.C(0))
		})
	default:
		x.Run = l.kfn("run "+k.Name, k, sigPrep, func(b *K) {
			k.Run(b)
			b.Return(asm.C(0))
		})
	}
	return x
}

func (l *Lib) kfn(name string, kn *Kernel, sig wasmenc.FuncType, build func(b *K)) uint32 {
	if i, ok := l.fns[name]; ok {
		return i
	}
	f := asm.NewFn(l.M, name, sig.Params, sig.Results)
	l.fns[name] = f.Index()
	b := &K{Fn: f, L: l, Ctx: f.Param(0), Rec: f.Param(1), nout: kn.NOut, holds: kn.Holds, name: kn.Name}
	build(b)
	// Every path returns before this point; the type checker wants a value all the same.
	f.Unreachable()
	return f.Finish()
}

// Fn emits a helper function once and returns its index.
func (l *Lib) Fn(name string, params, results []T, build func(f *asm.Fn)) uint32 {
	if i, ok := l.fns[name]; ok {
		return i
	}
	f := asm.NewFn(l.M, name, params, results)
	l.fns[name] = f.Index()
	build(f)
	if len(results) > 0 {
		f.Unreachable()
	}
	return f.Finish()
}

// K builds one kernel function.
type K struct {
	*asm.Fn
	L        *Lib
	Ctx, Rec V
	nout     int
	holds    Holding
	name     string
	st       V
	stOK     bool
}

func (k *K) ref(pos E) V {
	r := k.Let(pos)
	k.If(r.AndI(1), func() { k.Set(r, r.SubI(1)) }, func() { k.Set(r, r.Add(k.Ctx.E)) })
	return r
}

// Out is the address of output i's descriptor; an absent output must not be asked for.
func (k *K) Out(i int) V { return k.ref(asm.L32(k.Rec.E, uint32(RecRefs+4*i))) }

// In is the address of input i's descriptor.
func (k *K) In(i int) V { return k.ref(asm.L32(k.Rec.E, uint32(RecRefs+4*(k.nout+i)))) }

// InAt is the address of the descriptor of input i, an i32 expression.
func (k *K) InAt(i E) V {
	return k.ref(asm.L32(k.Rec.Add(i.ShlI(2)), uint32(RecRefs+4*k.nout)))
}

// HasIn tells whether input i is present, HasOut the same of output i.
func (k *K) HasIn(i int) E {
	return asm.And2(asm.C(int64(i)).LtU(asm.L32(k.Rec.E, RecNIn)), asm.L32(k.Rec.E, uint32(RecRefs+4*(k.nout+i))).NeI(0))
}

// HasOut tells whether somebody uses output i.
func (k *K) HasOut(i int) E { return asm.L32(k.Rec.E, uint32(RecRefs+4*i)).NeI(0) }

// NIn is the number of inputs.
func (k *K) NIn() E { return asm.L32(k.Rec.E, RecNIn) }

// Attr is attribute slot i as an i64, AttrF as an f64, Attr32 as an i32.
func (k *K) Attr(i int) E { return asm.L64(asm.L32(k.Rec.E, RecAttrs), uint32(8*i)) }

// AttrF is attribute slot i as an f64.
func (k *K) AttrF(i int) E { return asm.MF64.At(asm.L32(k.Rec.E, RecAttrs), uint32(8*i)) }

// AttrT is float attribute slot i in type t.
func (k *K) AttrT(t T, i int) E {
	if t == asm.F32 {
		return k.AttrF(i).Demote()
	}
	return k.AttrF(i)
}

// Attr32 is the low half of attribute slot i.
func (k *K) Attr32(i int) E { return asm.L32(asm.L32(k.Rec.E, RecAttrs), uint32(8*i)) }

// Rank is a descriptor's rank.
func Rank(d V) E { return asm.L32(d.E, abi.DescRank) }

// Data is the address of its elements.
func Data(d V) E { return asm.L32(d.E, abi.DescData) }

// Bytes is the number of bytes in use.
func Bytes(d V) E { return asm.L32(d.E, abi.DescBytes) }

// Dim is dim i (i32 expression).
func Dim(d V, i E) E { return asm.L64(d.Add(i.ShlI(3)), abi.DescDims) }

// DimC is dim i.
func DimC(d V, i int) E { return asm.L64(d.E, uint32(abi.DescDims+8*i)) }

// SetDim stores dim i.
func (k *K) SetDim(d V, i, v E) { k.Put(asm.M64, d.Add(i.ShlI(3)), abi.DescDims, v) }

// SetDimC stores dim i.
func (k *K) SetDimC(d V, i int, v E) { k.Put(asm.M64, d.E, uint32(abi.DescDims+8*i), v) }

// SetRank stores the rank.
func (k *K) SetRank(d V, r E) { k.Put(asm.M32, d.E, abi.DescRank, r) }

// CopyDims gives dst the rank and dims of src.
func (k *K) CopyDims(dst, src V) {
	k.SetRank(dst, Rank(src))
	k.MemCopy(dst.AddI(abi.DescDims), src.AddI(abi.DescDims), asm.C(8*abi.MaxRank))
}

// Fail ends the function with an error record.
func (k *K) Fail(code abi.Code, a, b E) {
	k.Return(asm.Call(asm.I32, k.L.fail(), k.Ctx.E, k.Rec.E, asm.C(int64(code)), a, b))
}

// Check fails with code unless c holds.
func (k *K) Check(c E, code abi.Code, a, b E) {
	k.If(c.Eqz(), func() { k.Fail(code, a, b) })
}

// Try returns from the function when the status e is not zero.
func (k *K) Try(e E) {
	if !k.stOK {
		k.st, k.stOK = k.Local(asm.I32), true
	}
	k.Set(k.st, e)
	k.If(k.st.E, func() { k.Return(k.st.E) })
}

// Alloc sizes output d from its rank and dims for dtype dt and gives it fresh memory.
func (k *K) Alloc(d V, dt DT) {
	k.Try(asm.Call(asm.I32, k.L.allocDims(), k.Ctx.E, k.Rec.E, d.E, asm.C(int64(dt.ABI)), asm.C(dt.Shift)))
}

// AllocBytes gives d n bytes (an i64) of fresh memory; rank, dims and dtype are the caller's.
func (k *K) AllocBytes(d V, n E) {
	k.Try(asm.Call(asm.I32, k.L.alloc(), k.Ctx.E, k.Rec.E, d.E, n))
}

// Numel is the number of elements of a live descriptor, an i64.
func (k *K) Numel(d V) E { return asm.Call(asm.I64, k.L.numel(), d.E) }

// Work states total units (i64) at cost each; cost is raised to 1.
func (k *K) Work(total, cost E) {
	k.Put(asm.M64, k.Ctx.E, CtxTotal, total)
	c := k.Let(cost)
	k.If(c.LtS(asm.CL(1)), func() { k.Set(c, asm.CL(1)) })
	k.Put(asm.M64, k.Ctx.E, CtxCost, c.E)
}

// fail(ctx, rec, code, a, b) fills the error record and returns abi.Failed.
func (l *Lib) fail() uint32 {
	return l.Fn("fail", []T{asm.I32, asm.I32, asm.I32, asm.I64, asm.I64}, []T{asm.I32}, func(f *asm.Fn) {
		ctx := f.Param(0).E
		f.Put(asm.M32, ctx, abi.CtxErrCode, f.Param(2).E)
		f.Put(asm.M32, ctx, abi.CtxErrNode, asm.L32(f.Param(1).E, RecNode))
		f.Put(asm.M64, ctx, abi.CtxErrA, f.Param(3).E)
		f.Put(asm.M64, ctx, abi.CtxErrB, f.Param(4).E)
		f.Put(asm.M32, ctx, CtxState, asm.C(StateFailed))
		f.Return(asm.C(int64(abi.Failed)))
	})
}

// numel(desc) multiplies the dims of a live descriptor, whose product was checked when it was made.
func (l *Lib) numel() uint32 {
	return l.Fn("numel", []T{asm.I32}, []T{asm.I64}, func(f *asm.Fn) {
		d := f.Param(0)
		n := f.Let(asm.CL(1))
		i := f.Local(asm.I32)
		r := f.Let(Rank(d))
		f.Up(i, r.E, func() { f.Set(n, n.Mul(Dim(d, i.E))) })
		f.Return(n.E)
	})
}

// release(desc) drops a slot's hold on its block and empties it.
func (l *Lib) release() uint32 {
	return l.Fn("release", []T{asm.I32}, nil, func(f *asm.Fn) {
		d := f.Param(0)
		fn := f.Index()
		f.If(asm.L32(d.E, abi.DescFlags).AndI(flagOwned), func() {
			h := f.Let(Data(d).SubI(blkHead))
			f.Put(asm.M32, h.E, blkRefs, asm.L32(h.E, blkRefs).SubI(1))
			// The last holder of a list of values lets its children go too.
			f.If(asm.And2(asm.L32(h.E, blkRefs).Eqz(), asm.L32(d.E, abi.DescKind).NeI(int64(abi.Tensor))), func() {
				c := f.Let(Data(d))
				end := f.Let(c.Add(Bytes(d)))
				f.While(c.LtU(end.E), func() {
					f.CallStmt(fn, c.E)
					f.Inc(c, abi.DescSize)
				})
			})
		})
		f.Put(asm.M32, d.E, abi.DescFlags, asm.C(0))
		f.Put(asm.M32, d.E, abi.DescBytes, asm.C(0))
	})
}

// alias(dst, src) makes dst a second holder of src's value; dst's old value is released.
func (l *Lib) alias() uint32 {
	return l.Fn("alias", []T{asm.I32, asm.I32}, nil, func(f *asm.Fn) {
		dst, src := f.Param(0), f.Param(1)
		f.If(asm.L32(src.E, abi.DescFlags).AndI(flagOwned), func() {
			h := f.Let(Data(src).SubI(blkHead))
			f.Put(asm.M32, h.E, blkRefs, asm.L32(h.E, blkRefs).AddI(1))
		})
		f.CallStmt(l.release(), dst.E)
		f.MemCopy(dst.E, src.E, asm.C(abi.DescSize))
	})
}

// Alias makes dst share src's value. A kernel that does so has to say it in Holds.
func (k *K) Alias(dst, src V) {
	if k.holds == HoldsOwn {
		panic("kernel " + k.name + " shares memory and does not say so")
	}
	k.CallStmt(k.L.alias(), dst.E, src.E)
}

// allocDims(ctx, rec, desc, dtype, shift) sizes and allocates a tensor from its dims.
func (l *Lib) allocDims() uint32 {
	return l.Fn("alloc_dims", []T{asm.I32, asm.I32, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		ctx, rec, d := f.Param(0), f.Param(1), f.Param(2)
		f.Put(asm.M32, d.E, abi.DescKind, asm.C(int64(abi.Tensor)))
		f.Put(asm.M32, d.E, abi.DescDType, f.Param(3).E)
		n := f.Let(asm.CL(1))
		i := f.Local(asm.I32)
		r := f.Let(Rank(d))
		x := f.Local(asm.I64)
		zero := f.Local(asm.I32)
		f.Up(i, r.E, func() {
			f.Set(x, Dim(d, i.E))
			f.If(x.LtS(asm.CL(0)), func() {
				f.Return(asm.Call(asm.I32, l.fail(), ctx.E, rec.E, asm.C(int64(abi.ErrShape)), i.ExtS(), x.E))
			})
			f.If(x.Eqz(), func() { f.Set(zero, asm.C(1)) })
		})
		f.If(zero.E, func() { f.Set(n, asm.CL(0)) }, func() {
			f.Up(i, r.E, func() {
				f.Set(x, Dim(d, i.E))
				// n stays below 2^31 and x must too, so the product fits 62 bits.
				f.If(x.GtS(asm.CL(1<<31-1)), func() {
					f.Return(asm.Call(asm.I32, l.fail(), ctx.E, rec.E, asm.C(int64(abi.ErrOverflow)), n.E, x.E))
				})
				f.Set(n, n.Mul(x.E))
				f.If(n.GtS(asm.CL(1<<31-1)), func() {
					f.Return(asm.Call(asm.I32, l.fail(), ctx.E, rec.E, asm.C(int64(abi.ErrMemory)), n.E, asm.CL(0)))
				})
			})
		})
		f.Return(asm.Call(asm.I32, l.alloc(), ctx.E, rec.E, d.E, n.Shl(f.Param(4).ExtU())))
	})
}
