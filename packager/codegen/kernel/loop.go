package kernel

import (
	"math"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Kernels of Loop and Scan. Values that a body may keep (the iteration number) get fresh memory each time.

// scalar gives output o a fresh rank-0 tensor of d holding v.
func (k *K) scalar(o V, d DT, v E) {
	k.SetRank(o, asm.C(0))
	k.Alloc(o, d)
	k.Store(d, Data(o), 0, v)
}

// LoopInit makes iteration number, limit and condition from M and cond, each of which may be absent.
func LoopInit() *Kernel {
	return &Kernel{Name: "loop_init", NOut: 3, Run: func(k *K) {
		i64, bl := dtOf(abi.I64), dtOf(abi.Bool)
		limit, cond := k.Let(asm.CL(math.MaxInt64)), k.Let(asm.C(1))
		one := func(x V) { k.Check(k.Numel(x).EqI(1), abi.ErrShape, k.Numel(x), asm.CL(1)) }
		k.If(k.HasIn(0), func() {
			x := k.In(0)
			one(x)
			k.Set(limit, asm.L64(Data(x), 0))
		})
		k.If(k.HasIn(1), func() {
			x := k.In(1)
			one(x)
			k.Set(cond, asm.M8U.At(Data(x), 0))
		})
		k.scalar(k.Out(0), i64, asm.CL(0))
		k.scalar(k.Out(1), i64, limit.E)
		k.scalar(k.Out(2), bl, cond.E)
	}}
}

// ScanInit is LoopInit with the length of the inputs along the axes in the attributes, which must be equal.
func ScanInit() *Kernel {
	return &Kernel{Name: "scan_init", NOut: 3, Run: func(k *K) {
		n, i := k.Let(asm.CL(-1)), k.Local(asm.I32)
		a := k.Local(asm.I64)
		cnt := k.Let(k.NIn())
		k.Up(i, cnt.E, func() {
			x := k.InAt(i.E)
			k.Set(a, asm.L64(asm.L32(k.Rec.E, RecAttrs).Add(i.ShlI(3)), 0))
			k.Index(a, Rank(x).ExtU())
			k.If(n.LtS(asm.CL(0)), func() { k.Set(n, Dim(x, a.Wrap())) })
			k.Check(n.Eq(Dim(x, a.Wrap())), abi.ErrShape, n.E, Dim(x, a.Wrap()))
		})
		k.scalar(k.Out(0), dtOf(abi.I64), asm.CL(0))
		k.scalar(k.Out(1), dtOf(abi.I64), n.E)
		k.scalar(k.Out(2), dtOf(abi.Bool), asm.C(1))
	}}
}

// ScanBack is limit - 1 - iteration.
func ScanBack() *Kernel {
	return &Kernel{Name: "scan_back", NOut: 1, Run: func(k *K) {
		v := k.Let(asm.L64(Data(k.In(1)), 0).SubI(1).Sub(asm.L64(Data(k.In(0)), 0)))
		k.scalar(k.Out(0), dtOf(abi.I64), v.E)
	}}
}

// LoopTest jumps to attribute 0 when the loop ends: inputs are iteration, limit, condition.
func LoopTest() *Kernel {
	return &Kernel{Name: "loop_test", Run: func(k *K) {
		c := k.In(2)
		k.Check(k.Numel(c).EqI(1), abi.ErrShape, k.Numel(c), asm.CL(1))
		k.If(asm.L64(Data(k.In(0)), 0).LtS(asm.L64(Data(k.In(1)), 0)).And(asm.M8U.At(Data(c), 0)).Eqz(), func() {
			k.Put(asm.M32, k.Ctx.E, CtxPC, k.Attr32(0))
			k.Return(asm.C(stJump))
		})
	}}
}

// LoopNext is input 0 plus one.
func LoopNext() *Kernel {
	return &Kernel{Name: "loop_next", NOut: 1, Run: func(k *K) {
		v := k.Let(asm.L64(Data(k.In(0)), 0).AddI(1))
		k.scalar(k.Out(0), dtOf(abi.I64), v.E)
	}}
}

// StackInit makes an empty stack: attribute 0 is the elements' rank (0 when unknown), then their dims.
func StackInit(d DT) *Kernel {
	return &Kernel{Name: "stack_init." + d.Name, NOut: 1, Run: func(k *K) {
		y := k.Out(0)
		r, i := k.Let(k.Attr32(0)), k.Local(asm.I32)
		k.SetRank(y, r.AddI(1))
		k.SetDimC(y, 0, asm.CL(0))
		k.Up(i, r.E, func() {
			k.SetDim(y, i.AddI(1), asm.L64(asm.L32(k.Rec.E, RecAttrs).Add(i.ShlI(3)), 8))
		})
		k.Alloc(y, d)
	}}
}

// StackPush appends input 0 to the stack in output 0; output 1 is a spare slot for growing.
func StackPush(d DT) *Kernel {
	return &Kernel{Name: "stack_push." + d.Name, NOut: 2, Holds: HoldsMore, Run: func(k *K) {
		x, y, t := k.In(0), k.Out(0), k.Out(1)
		i := k.Local(asm.I32)
		k.If(DimC(y, 0).Eqz(), func() {
			k.Check(Rank(x).LtU(asm.C(abi.MaxRank)), abi.ErrRank, Rank(x).ExtU(), asm.CL(abi.MaxRank))
			k.SetRank(y, Rank(x).AddI(1))
			k.For(i, asm.C(0), Rank(x), 1, func() { k.SetDim(y, i.AddI(1), Dim(x, i.E)) })
		}, func() {
			k.Check(Rank(y).Eq(Rank(x).AddI(1)), abi.ErrRank, Rank(x).ExtU(), Rank(y).ExtU())
			k.For(i, asm.C(0), Rank(x), 1, func() {
				k.Check(Dim(y, i.AddI(1)).Eq(Dim(x, i.E)), abi.ErrShape, Dim(x, i.E), Dim(y, i.AddI(1)))
			})
		})
		used := k.Let(DimC(y, 0).Mul(Bytes(x).ExtU()))
		need := k.Let(used.Add(Bytes(x).ExtU()))
		k.If(need.GtU(asm.L32(y.E, abi.DescCap).ExtU()), func() {
			k.AllocBytes(t, need.ShlI(1))
			k.MemCopy(Data(t), Data(y), used.Wrap())
			k.CopyDims(t, y)
			k.Put(asm.M32, t.E, abi.DescKind, asm.C(0))
			k.Put(asm.M32, t.E, abi.DescDType, asm.C(int64(d.ABI)))
			k.Alias(y, t)
			k.CallStmt(k.L.release(), t.E)
		})
		k.MemCopy(Data(y).Add(used.Wrap()), Data(x), Bytes(x))
		k.SetDimC(y, 0, DimC(y, 0).AddI(1))
		k.Put(asm.M32, y.E, abi.DescBytes, need.Wrap())
	}}
}
