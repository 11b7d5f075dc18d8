package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Sequences and optionals: a block of child descriptors, each a holder of its own value. The block's last holder lets the children go
// (release), so its descriptors are always valid: they are zeroed before anything can fail.

// children makes y an empty-handed list of n (i64) children of a kind.
func (k *K) children(y V, kind abi.Kind, n E) {
	c := k.Let(n)
	k.Check(c.LtS(asm.CL(1<<24)), abi.ErrMemory, c.E, asm.CL(0))
	k.AllocBytes(y, c.MulI(abi.DescSize))
	k.MemFill(Data(y), asm.C(0), Bytes(y))
	k.Put(asm.M32, y.E, abi.DescKind, asm.C(int64(kind)))
	k.Put(asm.M32, y.E, abi.DescDType, asm.C(0))
	k.SetRank(y, asm.C(1))
	k.SetDimC(y, 0, c.E)
}

// child is the address of child i.
func (k *K) child(d V, i E) V { return k.Let(Data(d).Add(i.MulI(abi.DescSize))) }

// ListOf makes a sequence or optional of the inputs.
func ListOf(kind abi.Kind) *Kernel {
	return &Kernel{Name: fmt.Sprintf("list_of.%d", kind), NOut: 1, Holds: HoldsAny, Run: func(k *K) {
		y, n, i := k.Out(0), k.Let(k.NIn()), k.Local(asm.I32)
		k.children(y, kind, n.ExtU())
		k.Up(i, n.E, func() { k.Alias(k.child(y, i.E), k.InAt(i.E)) })
	}}
}

// position reads the one element of input i as an index below n into v.
func (k *K) position(i int, v V, n E) {
	t := k.In(i)
	k.Check(k.Numel(t).EqI(1), abi.ErrShape, k.Numel(t), asm.CL(1))
	k.Set(v, asm.L64(Data(t), 0))
	k.Index(v, n)
}

const seqAt = CtxScratch // i32: where an element comes or goes

// SequenceInsert puts input 1 before the position in input 2, at the end without one. A unit is a child.
func SequenceInsert() *Kernel {
	return &Kernel{Name: "SequenceInsert", NOut: 1, Holds: HoldsAny,
		Prep: func(k *K) {
			s, n := k.In(0), k.Local(asm.I64)
			k.Set(n, DimC(s, 0))
			v := k.Let(n.E)
			k.If(k.HasIn(2), func() {
				t := k.In(2)
				k.Check(k.Numel(t).EqI(1), abi.ErrShape, k.Numel(t), asm.CL(1))
				k.Set(v, asm.L64(Data(t), 0))
				k.If(v.Ne(n.E), func() { k.Index(v, n.E) })
			})
			k.note(seqAt, v.Wrap())
			k.children(k.Out(0), abi.Sequence, n.AddI(1))
			k.Work(n.AddI(1), asm.CL(15))
		},
		Range: func(k *K, lo, hi V) {
			s, x, y, p, i := k.In(0), k.In(1), k.Out(0), k.noted(seqAt), k.Let(lo.E)
			k.While(i.LtU(hi.E), func() {
				k.If(i.Eq(p.E), func() { k.Alias(k.child(y, i.E), x) }, func() {
					k.Alias(k.child(y, i.E), k.child(s, i.Sub(i.GtU(p.E))))
				})
				k.Inc(i, 1)
			})
		},
	}
}

// SequenceErase leaves out the element at the position in input 1, the last one without a position.
func SequenceErase() *Kernel {
	return &Kernel{Name: "SequenceErase", NOut: 1, Holds: HoldsAny,
		Prep: func(k *K) {
			n := k.Let(DimC(k.In(0), 0))
			v := k.Let(n.SubI(1))
			k.Check(n.NeI(0), abi.ErrIndex, v.E, n.E)
			k.If(k.HasIn(1), func() { k.position(1, v, n.E) })
			k.note(seqAt, v.Wrap())
			k.children(k.Out(0), abi.Sequence, n.SubI(1))
			k.Work(n.SubI(1), asm.CL(15))
		},
		Range: func(k *K, lo, hi V) {
			s, y, p, i := k.In(0), k.Out(0), k.noted(seqAt), k.Let(lo.E)
			k.While(i.LtU(hi.E), func() {
				k.Alias(k.child(y, i.E), k.child(s, i.Add(i.GeU(p.E))))
				k.Inc(i, 1)
			})
		},
	}
}

// SequenceAt gives the element at the position in input 1.
func SequenceAt() *Kernel {
	return &Kernel{Name: "SequenceAt", NOut: 1, Holds: HoldsAny, Run: func(k *K) {
		s, v := k.In(0), k.Local(asm.I64)
		k.position(1, v, DimC(s, 0))
		k.Alias(k.Out(0), k.child(s, v.Wrap()))
	}}
}

// OptionalGet gives what an optional holds.
func OptionalGet() *Kernel {
	return &Kernel{Name: "OptionalGet", NOut: 1, Holds: HoldsAny, Run: func(k *K) {
		s := k.In(0)
		k.Check(DimC(s, 0).NeI(0), abi.ErrValue, asm.CL(0), asm.CL(0))
		k.Alias(k.Out(0), k.child(s, asm.C(0)))
	}}
}

// SequenceLength gives the number of children.
func SequenceLength() *Kernel {
	return &Kernel{Name: "SequenceLength", NOut: 1, Run: func(k *K) {
		n := k.Let(DimC(k.In(0), 0))
		k.scalar(k.Out(0), dtOf(abi.I64), n.E)
	}}
}

// OptionalHas tells whether an optional holds something.
func OptionalHas() *Kernel {
	return &Kernel{Name: "OptionalHas", NOut: 1, Run: func(k *K) {
		n := k.Let(DimC(k.In(0), 0).NeI(0))
		k.scalar(k.Out(0), dtOf(abi.Bool), n.E)
	}}
}

// Scratch of joining and splitting.
const (
	sqAxis  = CtxScratch + 0  // i32
	sqOuter = CtxScratch + 4  // i32: rows
	sqInner = CtxScratch + 8  // i32: bytes behind the axis
	sqRow   = CtxScratch + 12 // i32: bytes of a row of the whole
	sqFresh = CtxScratch + 16 // i32: children have no such axis
)

// rows walks units (child, row), the rows of a child together, and gives a child's place in the whole and in itself.
func (k *K) rows(s, lo, hi V, copy func(child, whole, part, n V)) {
	outer, inner, row := k.noted(sqOuter), k.noted(sqInner), k.noted(sqRow)
	ax, fresh := k.noted(sqAxis), k.noted(sqFresh)
	u, at, c, o, n := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	whole, part, d := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	size := func() {
		k.Set(d, Data(s).Add(c.MulI(abi.DescSize)))
		k.Set(n, inner.E)
		k.If(fresh.Eqz(), func() { k.Set(n, Dim(d, ax.E).Wrap().Mul(inner.E)) })
	}
	first := k.Let(lo.DivU(outer.E))
	k.Up(c, first.E, func() {
		size()
		k.Set(at, at.Add(n.E))
	})
	k.Set(c, first.E)
	k.Set(o, u.Sub(first.Mul(outer.E)))
	size()
	k.While(u.LtU(hi.E), func() {
		k.Set(whole, o.Mul(row.E).Add(at.E))
		k.Set(part, o.Mul(n.E))
		copy(d, whole, part, n)
		k.Inc(u, 1)
		k.Inc(o, 1)
		k.If(asm.And2(o.Eq(outer.E), u.LtU(hi.E)), func() {
			k.Set(o, asm.C(0))
			k.Set(at, at.Add(n.E))
			k.Inc(c, 1)
			size()
		})
	})
}

// rowWork states the work of n children.
func (k *K) rowWork(n E) {
	total := k.Let(n.Mul(asm.L32(k.Ctx.E, sqOuter).ExtU()))
	k.Check(total.LeS(asm.CL(1<<31-1)), abi.ErrMemory, total.E, asm.CL(0))
	k.Work(total.E, asm.L32(k.Ctx.E, sqRow).ExtU().ShrUI(3).DivS(n.AddI(1)).AddI(15))
}

// ConcatFromSequence joins the children along axis attr0, which is new when attr1 is set.
func ConcatFromSequence(d DT) *Kernel {
	return &Kernel{Name: "ConcatFromSequence." + d.Name, NOut: 1,
		Prep: func(k *K) {
			s, y := k.In(0), k.Out(0)
			n := k.Let(DimC(s, 0))
			k.Check(n.NeI(0), abi.ErrShape, asm.CL(0), asm.CL(1))
			f := k.child(s, asm.C(0))
			fresh := k.Let(k.Attr32(1))
			r := k.Let(Rank(f).Add(fresh.E))
			k.Check(r.LeU(asm.C(abi.MaxRank)), abi.ErrRank, r.ExtU(), asm.CL(abi.MaxRank))
			ax := k.axis(0, r.E)
			sum := k.Let(n.E)
			c, i := k.Local(asm.I32), k.Local(asm.I32)
			k.If(fresh.Eqz(), func() { k.Set(sum, asm.CL(0)) })
			k.Up(c, n.Wrap(), func() {
				e := k.child(s, c.E)
				k.Check(Rank(e).Eq(Rank(f)), abi.ErrRank, Rank(e).ExtU(), Rank(f).ExtU())
				k.Up(i, Rank(e), func() {
					k.If(i.Eq(ax.E).And(fresh.Eqz()).Eqz(), func() { k.Check(Dim(e, i.E).Eq(Dim(f, i.E)), abi.ErrShape, Dim(e, i.E), Dim(f, i.E)) })
				})
				k.If(fresh.Eqz(), func() { k.Set(sum, sum.Add(Dim(e, ax.E))) })
			})
			k.SetRank(y, r.E)
			k.Up(i, r.E, func() {
				k.If(i.Eq(ax.E), func() { k.SetDim(y, i.E, sum.E) }, func() { k.SetDim(y, i.E, Dim(f, i.Sub(fresh.And(i.GtU(ax.E))))) })
			})
			k.Alloc(y, d)
			k.note(sqAxis, ax.E)
			k.note(sqFresh, fresh.E)
			k.note(sqOuter, k.prodDims(y, asm.C(0), ax.E).Wrap())
			in := k.prodDims(y, ax.AddI(1), r.E)
			k.note(sqInner, in.Wrap().ShlI(d.Shift))
			k.note(sqRow, in.Mul(sum.E).Wrap().ShlI(d.Shift))
			k.rowWork(n.E)
		},
		Range: func(k *K, lo, hi V) {
			y := k.Let(Data(k.Out(0)))
			k.rows(k.In(0), lo, hi, func(child, whole, part, n V) { k.MemCopy(y.Add(whole.E), Data(child).Add(part.E), n.E) })
		},
	}
}

// SplitToSequence cuts input 0 along axis attr0 by input 1; attr1 is keepdims.
func SplitToSequence(d DT) *Kernel {
	return &Kernel{Name: "SplitToSequence." + d.Name, NOut: 1,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			ax := k.axis(0, Rank(x))
			dim := k.Let(Dim(x, ax.E))
			n, size, list, drop := k.Let(dim.E), k.Let(asm.CL(1)), k.Let(asm.C(0)), k.Let(k.Attr32(1).Eqz())
			i, left := k.Local(asm.I32), k.Let(dim.E)
			k.If(k.HasIn(1), func() {
				t := k.In(1)
				k.Set(drop, asm.C(0))
				k.If(Rank(t), func() {
					k.Set(list, Data(t))
					k.Set(n, k.Numel(t))
					k.Up(i, n.Wrap(), func() {
						k.Set(size, asm.L64(list.Add(i.ShlI(3)), 0))
						k.Check(size.GeS(asm.CL(0)).And(size.LeS(left.E)), abi.ErrShape, size.E, left.E)
						k.Set(left, left.Sub(size.E))
					})
					k.Check(left.Eqz(), abi.ErrShape, left.E, dim.E)
				}, func() {
					k.Set(size, asm.L64(Data(t), 0))
					k.Check(size.GtS(asm.CL(0)), abi.ErrShape, size.E, dim.E)
					k.If(size.GtS(dim.E), func() { k.Set(size, asm.Select(dim.Eqz(), asm.CL(1), dim.E)) })
					k.Set(n, dim.Add(size.E).SubI(1).DivS(size.E))
				})
			})
			k.children(y, abi.Sequence, n.E)
			k.Set(left, dim.E)
			j, m := k.Local(asm.I32), k.Local(asm.I64)
			k.Up(i, n.Wrap(), func() {
				c := k.child(y, i.E)
				k.Set(m, size.E)
				k.If(list.E, func() { k.Set(m, asm.L64(list.Add(i.ShlI(3)), 0)) }, func() {
					k.If(m.GtS(left.E), func() { k.Set(m, left.E) })
					k.Set(left, left.Sub(m.E))
				})
				k.CopyDims(c, x)
				k.SetDim(c, ax.E, m.E)
				k.If(drop.E, func() {
					k.SetRank(c, Rank(x).SubI(1))
					k.For(j, ax.E, Rank(c), 1, func() { k.SetDim(c, j.E, Dim(x, j.AddI(1))) })
				})
				k.Alloc(c, d)
			})
			k.note(sqAxis, ax.E)
			k.note(sqFresh, drop.E)
			k.note(sqOuter, k.prodDims(x, asm.C(0), ax.E).Wrap())
			in := k.prodDims(x, ax.AddI(1), Rank(x))
			k.note(sqInner, in.Wrap().ShlI(d.Shift))
			k.note(sqRow, in.Mul(dim.E).Wrap().ShlI(d.Shift))
			k.rowWork(n.E)
		},
		Range: func(k *K, lo, hi V) {
			x := k.Let(Data(k.In(0)))
			k.rows(k.Out(0), lo, hi, func(child, whole, part, n V) { k.MemCopy(Data(child).Add(part.E), x.Add(whole.E), n.E) })
		},
	}
}

// ListType is what the machine knows about a model's sequences and optionals.
type ListType struct {
	Kind  abi.Kind
	DType abi.DType
	Dims  []int64 // of a tensor: -1 for any
	Rank  int     // -1 for any
	Elem  *ListType
}

func (t *ListType) name() string {
	if t.Kind == abi.Tensor {
		return fmt.Sprintf("%d.%d.%v", t.DType, t.Rank, t.Dims)
	}
	return fmt.Sprintf("%d(%s)", t.Kind, t.Elem.name())
}

// adopt(ctx, rec, dst, src) makes dst a list of the program's own over the host's children, whose form it checks first.
func (l *Lib) adopt(t *ListType) uint32 {
	return l.Fn("adopt."+t.name(), []T{asm.I32, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		k := &K{Fn: f, L: l, Ctx: f.Param(0), Rec: f.Param(1)}
		y, x := f.Param(2), f.Param(3)
		kind := k.Let(asm.L32(x.E, abi.DescKind))
		k.Check(kind.EqI(int64(t.Kind)), abi.ErrDType, k.Attr(0), kind.ExtU())
		if t.Kind != abi.Tensor {
			n := k.Let(DimC(x, 0))
			limit := int64(1 << 24)
			if t.Kind == abi.Optional {
				limit = 2
			}
			k.Check(n.GeS(asm.CL(0)).And(n.LtS(asm.CL(limit))), abi.ErrDim, k.Attr(0).MulI(abi.MaxRank), n.E)
			k.Check(Bytes(x).ExtU().Eq(n.MulI(abi.DescSize)), abi.ErrShape, k.Attr(0), Bytes(x).ExtU())
			k.children(y, t.Kind, n.E)
			i := k.Local(asm.I32)
			k.Up(i, n.Wrap(), func() {
				k.Try(asm.Call(asm.I32, l.adopt(t.Elem), k.Ctx.E, k.Rec.E, k.child(y, i.E).E, k.child(x, i.E).E))
			})
			f.Return(asm.C(0))
			return
		}
		dt := k.Let(asm.L32(x.E, abi.DescDType))
		k.Check(dt.EqI(int64(t.DType)), abi.ErrDType, k.Attr(0), dt.ExtU())
		k.Check(Rank(x).LeU(asm.C(abi.MaxRank)), abi.ErrRank, k.Attr(0), Rank(x).ExtU())
		if t.Rank >= 0 {
			k.Check(Rank(x).EqI(int64(t.Rank)), abi.ErrRank, k.Attr(0), Rank(x).ExtU())
			for i, d := range t.Dims {
				if d >= 0 {
					k.Check(DimC(x, i).EqI(d), abi.ErrDim, k.Attr(0).MulI(abi.MaxRank).AddI(int64(i)), DimC(x, i))
				}
			}
		}
		n, i, e := k.Let(asm.CL(1)), k.Local(asm.I32), k.Local(asm.I64)
		k.Up(i, Rank(x), func() {
			k.Set(e, Dim(x, i.E))
			k.Check(e.GeS(asm.CL(0)).And(e.LeS(asm.CL(1<<31-1))), abi.ErrDim, k.Attr(0).MulI(abi.MaxRank), e.E)
			k.Set(n, n.Mul(e.E))
			k.Check(n.LeS(asm.CL(1<<31-1)), abi.ErrOverflow, n.E, e.E)
		})
		k.Check(Bytes(x).ExtU().Eq(n.ShlI(dtOf(t.DType).Shift)), abi.ErrShape, k.Attr(0), Bytes(x).ExtU())
		k.MemCopy(y.E, x.E, asm.C(abi.DescSize))
		k.Put(asm.M32, y.E, abi.DescFlags, asm.C(0))
		f.Return(asm.C(0))
	})
}

// Adopt takes input 0, a list from the host and model input attr0, over.
func Adopt(t *ListType) *Kernel {
	return &Kernel{Name: "adopt." + t.name(), NOut: 1, Run: func(k *K) {
		k.Try(asm.Call(asm.I32, k.L.adopt(t), k.Ctx.E, k.Rec.E, k.Out(0).E, k.In(0).E))
	}}
}

// detach(ctx, rec, dst, src) makes dst a copy of src in memory of its own, NaNs canonical.
func (l *Lib) detach(t *ListType) uint32 {
	return l.Fn("detach."+t.name(), []T{asm.I32, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		k := &K{Fn: f, L: l, Ctx: f.Param(0), Rec: f.Param(1)}
		y, x := f.Param(2), f.Param(3)
		if t.Kind != abi.Tensor {
			i := k.Local(asm.I32)
			k.children(y, t.Kind, DimC(x, 0))
			k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(t.leaf())))
			k.Up(i, DimC(x, 0).Wrap(), func() {
				k.Try(asm.Call(asm.I32, l.detach(t.Elem), k.Ctx.E, k.Rec.E, k.child(y, i.E).E, k.child(x, i.E).E))
			})
			f.Return(asm.C(0))
			return
		}
		size := Bytes(x).ExtU()
		st, serr := StorageOf(t.DType)
		packed := serr == nil && st.Bits < 8
		if packed {
			size = k.Numel(x).AddI(st.PerByte() - 1).DivS(asm.CL(st.PerByte()))
		}
		k.AllocBytes(y, size)
		k.Put(asm.M32, y.E, abi.DescKind, asm.C(0))
		k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(t.DType)))
		k.Put(asm.M32, y.E, abi.DescAux, asm.L32(x.E, abi.DescAux))
		k.CopyDims(y, x)
		if packed {
			k.pack(st, x, y, asm.C(0), Bytes(y))
			f.Return(asm.C(0))
			return
		}
		k.MemCopy(Data(y), Data(x), Bytes(x))
		if d, err := DTypeOf(t.DType); err == nil && d.Float {
			p := k.Let(Data(y))
			end := k.Let(p.Add(Bytes(y)))
			k.While(p.LtU(end.E), func() {
				k.canonical(d, p)
				k.Inc(p, 1<<d.Shift)
			})
		}
		f.Return(asm.C(0))
	})
}

func (t *ListType) leaf() abi.DType {
	for t.Elem != nil {
		t = t.Elem
	}
	return t.DType
}

// Detach prepares a list for the host. A unit is a child.
func Detach(t *ListType) *Kernel {
	return &Kernel{Name: "detach." + t.name(), NOut: 1,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			n, i, sum := k.Let(DimC(x, 0)), k.Local(asm.I32), k.Let(asm.CL(0))
			k.children(y, t.Kind, n.E)
			k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(t.leaf())))
			k.Up(i, n.Wrap(), func() { k.Set(sum, sum.Add(Bytes(k.child(x, i.E)).ExtU())) })
			k.Work(n.E, sum.DivU(n.AddI(1)).AddI(50))
		},
		Range: func(k *K, lo, hi V) {
			x, y, i := k.In(0), k.Out(0), k.Let(lo.E)
			k.While(i.LtU(hi.E), func() {
				// Were memory short, the work would go on here.
				k.Put(asm.M64, k.Ctx.E, CtxCursor, i.ExtU())
				k.Try(asm.Call(asm.I32, k.L.detach(t.Elem), k.Ctx.E, k.Rec.E, k.child(y, i.E).E, k.child(x, i.E).E))
				k.Inc(i, 1)
			})
		},
	}
}
