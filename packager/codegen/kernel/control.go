package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Halt ends the program.
func Halt() *Kernel {
	return &Kernel{Name: "halt", Jumps: true, Run: func(k *K) { k.Return(asm.C(stHalt)) }}
}

// Nop does nothing; it carries releases.
func Nop() *Kernel { return &Kernel{Name: "nop", Run: func(k *K) {}} }

// Jump continues at the record in attribute 0.
func Jump() *Kernel {
	return &Kernel{Name: "jump", Jumps: true, Run: func(k *K) {
		k.Put(asm.M32, k.Ctx.E, CtxPC, k.Attr32(0))
		k.Return(asm.C(stJump))
	}}
}

// JumpIfFalse continues at the record in attribute 0 when input 0, one bool, is false.
func JumpIfFalse() *Kernel {
	return &Kernel{Name: "jump_if_false", Run: func(k *K) {
		x := k.In(0)
		k.Check(k.Numel(x).EqI(1), abi.ErrShape, k.Numel(x), asm.CL(1))
		k.If(asm.M8U.At(Data(x), 0).Eqz(), func() {
			k.Put(asm.M32, k.Ctx.E, CtxPC, k.Attr32(0))
			k.Return(asm.C(stJump))
		})
	}}
}

// Alias makes output 0 share input 0's value.
func Alias() *Kernel {
	return &Kernel{Name: "alias", NOut: 1, Holds: HoldsInput, Run: func(k *K) {
		x, y := k.In(0), k.Out(0)
		k.Alias(y, x)
	}}
}

// Output prepares a result for the host in output 0: memory of its own in the arena, NaNs canonical.
func Output(tensor bool, dt abi.DType) (*Kernel, error) {
	if !tensor {
		return Alias(), nil
	}
	if d, err := StorageOf(dt); err == nil && d.Bits < 8 {
		return Pack(d), nil
	}
	shift, float, name := int64(0), false, "bytes"
	var d DT
	if dt != abi.String {
		var err error
		if d, err = StorageOf(dt); err != nil {
			return nil, err
		}
		shift, float = d.Shift, d.Float
		if float {
			name = d.Name
		}
	}
	prep := func(k *K) {
		x, t := k.In(0), k.Out(0)
		own := asm.L32(x.E, abi.DescFlags).AndI(flagOwned)
		if float {
			own = asm.And2(own, asm.L32(Data(x).SubI(blkHead), blkRefs).EqI(1))
		}
		// Planned memory is not counted: all that still holds it are results, for which the same NaNs are canonical.
		own = asm.Or2(asm.L32(x.E, abi.DescFlags).AndI(flagPlanned), own)
		k.Put(asm.M64, k.Ctx.E, CtxTotal, asm.CL(0))
		k.Put(asm.M64, k.Ctx.E, CtxCost, asm.CL(1))
		k.If(own, func() { k.Alias(t, x) }, func() {
			k.AllocBytes(t, Bytes(x).ExtU())
			k.Put(asm.M32, t.E, abi.DescKind, asm.C(0))
			k.Put(asm.M32, t.E, abi.DescDType, asm.L32(x.E, abi.DescDType))
			k.Put(asm.M32, t.E, abi.DescAux, asm.L32(x.E, abi.DescAux))
			k.CopyDims(t, x)
			k.MemCopy(Data(t), Data(x), Bytes(x))
		})
		if float {
			k.Work(k.Numel(t), asm.CL(2))
		}
	}
	kn := &Kernel{Name: "output." + name, NOut: 1, Prep: prep, Holds: HoldsOrCopy}
	if !float {
		kn.Run = func(k *K) {}
		return kn, nil
	}
	kn.Range = func(k *K, lo, hi V) {
		p := k.Let(Data(k.Out(0)).Add(lo.ShlI(shift)))
		end := k.Let(p.Add(hi.Sub(lo.E).ShlI(shift)))
		k.While(p.LtU(end.E), func() {
			k.canonical(d, p)
			k.Inc(p, 1<<shift)
		})
	}
	return kn, nil
}

// canonical makes a NaN at p the canonical one, without a branch that could be guessed wrong.
func (k *K) canonical(d DT, p V) {
	switch d.ABI {
	case abi.F32:
		v := k.Let(asm.MF32.At(p.E, 0))
		k.Put(asm.M32, p.E, 0, asm.Select(v.Ne(v.E), asm.C(0x7fc00000), v.Bits()))
	case abi.F64:
		v := k.Let(asm.MF64.At(p.E, 0))
		k.Put(asm.M64, p.E, 0, asm.Select(v.Ne(v.E), asm.CL(0x7ff8000000000000), v.Bits()))
	case abi.F16:
		v := k.Let(asm.M16U.At(p.E, 0))
		k.Put(asm.M16U, p.E, 0, asm.Select(v.AndI(0x7fff).GtU(asm.C(0x7c00)), asm.C(0x7e00), v.E))
	case abi.BF16:
		v := k.Let(asm.M16U.At(p.E, 0))
		k.Put(asm.M16U, p.E, 0, asm.Select(v.AndI(0x7fff).GtU(asm.C(0x7f80)), asm.C(0x7fc0), v.E))
	}
}

// Publish copies the descriptor of input 0 to the host's output in attribute 0.
func Publish() *Kernel {
	return &Kernel{Name: "publish", Run: func(k *K) {
		x := k.In(0)
		o := k.Let(asm.L32(k.Ctx.E, abi.CtxOutputs).Add(k.Attr32(0).MulI(abi.DescSize)))
		k.MemCopy(o.E, x.E, asm.C(abi.DescSize))
		k.Put(asm.M32, o.E, abi.DescFlags, asm.C(0))
	}}
}

// Index normalises index i (an i64 variable) against n; out of range is ErrIndex.
func (k *K) Index(i V, n E) {
	k.If(i.LtS(asm.CL(0)), func() { k.Set(i, i.Add(n)) })
	k.Check(i.GeS(asm.CL(0)).And(i.LtS(n)), abi.ErrIndex, i.E, n)
}

// axis reads axis attribute slot a, already within [-rank, rank), against rank + extra; it checks it again, since the rank
// may be known only now.
func (k *K) axis(a int, rank E) V {
	v := k.Let(k.Attr(a))
	k.Index(v, rank.ExtU())
	return k.Let(v.Wrap())
}

// prodDims multiplies dims [a, b) of d.
func (k *K) prodDims(d V, a, b E) V {
	i := k.Let(a)
	n := k.Let(asm.CL(1))
	k.While(i.LtS(b), func() {
		k.Set(n, n.Mul(Dim(d, i.E)))
		k.Inc(i, 1)
	})
	return n
}

func bitsDT(d DT) DT {
	return map[int64]DT{0: dtOf(abi.U8), 1: dtOf(abi.U16), 2: dtOf(abi.U32), 3: dtOf(abi.U64)}[d.Shift]
}

func nameBits(op string, d DT) string { return fmt.Sprintf("%s.%d", op, 8<<d.Shift) }
