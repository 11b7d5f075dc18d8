package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Strings. Inside the program a string tensor can be held as references: u64 elements, address of the text in the low
// half and its bytes in the high half. Operators that only move elements work on references; Explode and Implode convert.
// The tensor that references point into must outlive them.

func refDT() DT { return dtOf(abi.U64) }

func refAddr(r E) E { return r.Wrap() }
func refLen(r E) E  { return r.ShrUI(32).Wrap() }

func mkRef(addr, n E) E { return addr.ExtU().Or(n.ExtU().ShlI(32)) }

// CheckStrings refuses an input whose offsets or UTF-8 are broken. Attribute 0 is the input's number.
func CheckStrings() *Kernel {
	return &Kernel{Name: "check_strings",
		Prep: func(k *K) {
			x := k.In(0)
			n := k.Let(k.Numel(x).Wrap())
			k.If(asm.L32(Data(x), 0).NeI(0), func() { k.Fail(abi.ErrString, k.Attr(0), asm.CL(0)) })
			k.Put(asm.M32, k.Ctx.E, txPos, asm.C(0))
			k.Work(n.ExtU(), asm.CL(8))
		},
		Range: func(k *K, lo, hi V) {
			x := k.In(0)
			n := k.Let(k.Numel(x).Wrap())
			base := k.Let(Data(x).Add(n.AddI(1).ShlI(2)))
			text := k.Let(asm.L32(x.E, abi.DescBytes).Sub(n.AddI(1).ShlI(2)))
			i, from, to, p, end, stop, c := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			bad := func() { k.Fail(abi.ErrString, k.Attr(0), i.ExtU()) }
			m := k.meter()
			k.While(i.LtU(hi.E), func() {
				k.Set(from, asm.L32(Data(x).Add(i.ShlI(2)), 0))
				k.Set(to, asm.L32(Data(x).Add(i.ShlI(2)), 4))
				k.If(to.LtU(from.E).Or(to.GtU(text.E)), bad)
				k.Set(p, base.Add(from.E).Add(asm.L32(k.Ctx.E, txPos)))
				k.Put(asm.M32, k.Ctx.E, txPos, asm.C(0))
				k.Set(end, base.Add(to.E))
				k.While(p.LtU(end.E), func() {
					k.Set(stop, p.AddI(textChunk))
					k.If(stop.GtU(end.E), func() { k.Set(stop, end.E) })
					m.spend(stop.Sub(p.E).ExtU().MulI(4))
					k.While(p.LtU(stop.E), func() {
						k.If(asm.M8S.At(p.E, 0).GeS(asm.C(0)), func() { k.Inc(p, 1) }, func() {
							k.Set(c, asm.Call(asm.I32, k.L.decode(), p.E, end.E))
							k.If(c.LtS(asm.C(0)), bad)
							k.Set(p, p.Add(c.ShrUI(24)))
						})
					})
					k.If(p.LtU(end.E), func() {
						m.leave(i, func() { k.Put(asm.M32, k.Ctx.E, txPos, p.Sub(base.E).Sub(from.E)) })
					})
				})
				k.Inc(i, 1)
			})
		},
	}
}

// decode(p, end) gives the code point at p with its length in the top byte, or -1 when it is not UTF-8. p < end.
func (l *Lib) decode() uint32 {
	return l.Fn("utf8_decode", []T{asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		p, end := f.Param(0), f.Param(1)
		b := f.Let(asm.M8U.At(p.E, 0))
		f.If(b.LtU(asm.C(0x80)), func() { f.Return(b.Or(asm.C(1 << 24))) })
		bad := func(c E) { f.If(c, func() { f.Return(asm.C(-1)) }) }
		bad(b.LtU(asm.C(0xc2)).Or(b.GtU(asm.C(0xf4))))
		n := f.Let(asm.C(2).Add(b.GeU(asm.C(0xe0))).Add(b.GeU(asm.C(0xf0))))
		bad(end.Sub(p.E).LtU(n.E))
		r := f.Let(b.And(asm.C(0x7f).ShrU(n.E)))
		i := f.Local(asm.I32)
		c := f.Local(asm.I32)
		f.For(i, asm.C(1), n.E, 1, func() {
			f.Set(c, asm.M8U.At(p.Add(i.E), 0))
			bad(c.AndI(0xc0).NeI(0x80))
			f.Set(r, r.ShlI(6).Or(c.AndI(0x3f)))
		})
		bad(n.EqI(3).And(r.LtU(asm.C(0x800)).Or(r.GeU(asm.C(0xd800)).And(r.LeU(asm.C(0xdfff))))))
		bad(n.EqI(4).And(r.LtU(asm.C(0x10000)).Or(r.GtU(asm.C(0x10ffff)))))
		f.Return(r.Or(n.ShlI(24)))
	})
}

// Explode turns a string tensor into references.
func Explode() *Kernel {
	return &Kernel{Name: "explode", NOut: 1,
		Prep: PrepSame(refDT(), 2),
		Range: func(k *K, lo, hi V) {
			x := k.In(0)
			base := k.Let(Data(x).Add(k.Numel(x).Wrap().AddI(1).ShlI(2)))
			i, p, q := k.Let(lo.E), k.Let(Data(x).Add(lo.ShlI(2))), k.Let(Data(k.Out(0)).Add(lo.ShlI(3)))
			k.While(i.LtU(hi.E), func() {
				k.Put(asm.M64, q.E, 0, mkRef(base.Add(asm.L32(p.E, 0)), asm.L32(p.E, 4).Sub(asm.L32(p.E, 0))))
				k.Inc(p, 4)
				k.Inc(q, 8)
				k.Inc(i, 1)
			})
		},
	}
}

// Implode gathers referenced texts into a string tensor.
func Implode() *Kernel {
	ref := func(k *K, i V) E { return asm.L64(Data(k.In(0)).Add(i.ShlI(3)), 0) }
	return textWriter("implode", func(k *K, i V) E { return refLen(ref(k, i)).ExtU() }, func(k *K, i V, p E) {
		r := k.Let(ref(k, i))
		k.MemCopy(p, refAddr(r.E), refLen(r.E))
	})
}

// compareRefs(a, b) orders texts by bytes: -1, 0, 1.
func (l *Lib) compareRefs() uint32 {
	return l.Fn("compare_refs", []T{asm.I64, asm.I64}, []T{asm.I32}, func(f *asm.Fn) {
		a, b := f.Param(0), f.Param(1)
		p, q := f.Let(refAddr(a.E)), f.Let(refAddr(b.E))
		la, lb := f.Let(refLen(a.E)), f.Let(refLen(b.E))
		end := f.Let(p.Add(asm.Select(la.LtU(lb.E), la.E, lb.E)))
		x, y := f.Local(asm.I32), f.Local(asm.I32)
		f.While(p.LtU(end.E), func() {
			f.Set(x, asm.M8U.At(p.E, 0))
			f.Set(y, asm.M8U.At(q.E, 0))
			f.If(x.Ne(y.E), func() { f.Return(asm.Select(x.LtU(y.E), asm.C(-1), asm.C(1))) })
			f.Inc(p, 1)
			f.Inc(q, 1)
		})
		f.Return(la.GtU(lb.E).Sub(la.LtU(lb.E)))
	})
}

// EqualStrings compares references element by element, with broadcasting.
func EqualStrings() *Kernel {
	return Binary(Op2{Name: "EqualStrings", Out: boolOut, Cost: 8, Scalar: func(k *K, d DT, a, b E) E {
		return asm.Call(asm.I32, k.L.compareRefs(), a, b).Eqz()
	}}, refDT())
}

// Lookup tables: entries of 16 bytes {key u64, value u64} sorted by key; keys are bits of numbers (signed order does not matter, they
// compare as unsigned) or references ordered by their texts.
const LookupEntry = 16

// lookup(table, n, key) gives the address of the entry, or 0.
func (l *Lib) lookup(strings bool) uint32 {
	name := "lookup_bits"
	if strings {
		name = "lookup_ref"
	}
	return l.Fn(name, []T{asm.I32, asm.I32, asm.I64}, []T{asm.I32}, func(f *asm.Fn) {
		table, n, key := f.Param(0), f.Param(1), f.Param(2)
		lo, hi, mid, p, c := f.Let(asm.C(0)), f.Let(n.E), f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32)
		f.While(lo.LtU(hi.E), func() {
			f.Set(mid, lo.Add(hi.E).ShrUI(1))
			f.Set(p, table.Add(mid.ShlI(4)))
			k := asm.L64(p.E, 0)
			if strings {
				f.Set(c, asm.Call(asm.I32, l.compareRefs(), key.E, k))
			} else {
				f.Set(c, key.GtU(k).Sub(key.LtU(k)))
			}
			f.If(c.Eqz(), func() { f.Return(p.E) })
			f.If(c.GtS(asm.C(0)), func() { f.Set(lo, mid.AddI(1)) }, func() { f.Set(hi, mid.E) })
		})
		f.Return(asm.C(0))
	})
}

// keyOf makes the lookup key of an element: number bits with one NaN and one zero, or the reference.
func (k *K) keyOf(d DT, x V) E {
	switch {
	case d.C == asm.F32:
		b := asm.Select(x.Eq(asm.CF(0)), asm.C(0), x.Bits())
		return asm.Select(x.Ne(x.E), asm.C(0x7fc00000), b).ExtU()
	case d.C == asm.F64:
		b := asm.Select(x.Eq(asm.CD(0)), asm.CL(0), x.Bits())
		return asm.Select(x.Ne(x.E), asm.CL(0x7ff8000000000000), b)
	case d.C == asm.I32:
		return widen64(d, x.E)
	}
	return x.E
}

// Lookup maps each element through a table: attr0 its address, attr1 its entries, attr2 the value of unknown keys. in is the type of
// the keys (references when strings), out of the values.
func Lookup(in DT, strings bool, out DT) *Kernel {
	b := bitsDT(out)
	return &Kernel{Name: fmt.Sprintf("lookup.%s.%t.%s", in.Name, strings, b.Name), NOut: 1,
		PrepName: "same." + out.Name + ".60", Prep: PrepSame(out, 60),
		Range: func(k *K, lo, hi V) {
			p := k.Let(Data(k.In(0)).Add(lo.ShlI(in.Shift)))
			q := k.Let(Data(k.Out(0)).Add(lo.ShlI(out.Shift)))
			i, e := k.Let(lo.E), k.Local(asm.I32)
			table, n := k.Let(k.Attr32(0)), k.Let(k.Attr32(1))
			x, v := k.Local(in.C), k.Local(asm.I64)
			k.While(i.LtU(hi.E), func() {
				k.Set(x, k.Load(in, p.E, 0))
				k.Set(e, asm.Call(asm.I32, k.L.lookup(strings), table.E, n.E, k.keyOf(in, x)))
				k.If(e.E, func() { k.Set(v, asm.L64(e.E, 8)) }, func() { k.Set(v, k.Attr(2)) })
				if b.C == asm.I32 {
					k.Put(b.Mem, q.E, 0, v.Wrap())
				} else {
					k.Put(b.Mem, q.E, 0, v.E)
				}
				k.Inc(p, 1<<in.Shift)
				k.Inc(q, 1<<out.Shift)
				k.Inc(i, 1)
			})
		},
	}
}

// HotRows spreads each element over attr2 columns of f32: 1 at the column of its table entry (attr0, attr1 as in Lookup). attr3 = 0 makes
// an unknown key ErrValue.
func HotRows(in DT, strings bool) *Kernel {
	return &Kernel{Name: fmt.Sprintf("hot_rows.%s.%t", in.Name, strings), NOut: 1, PrepName: "hot_rows",
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			k.CopyDims(y, x)
			r := k.Let(Rank(x))
			k.Check(r.LtU(asm.C(abi.MaxRank)), abi.ErrRank, r.ExtU(), asm.CL(abi.MaxRank))
			k.SetRank(y, r.AddI(1))
			k.SetDim(y, r.E, k.Attr(2))
			k.Alloc(y, dtOf(abi.F32))
			k.Work(k.Numel(x), k.Attr(2).ShrSI(2).AddI(60))
		},
		Range: func(k *K, lo, hi V) {
			cols := k.Let(k.Attr32(2))
			p := k.Let(Data(k.In(0)).Add(lo.ShlI(in.Shift)))
			q := k.Let(Data(k.Out(0)).Add(lo.Mul(cols.E).ShlI(2)))
			i, e := k.Let(lo.E), k.Local(asm.I32)
			x := k.Local(in.C)
			k.While(i.LtU(hi.E), func() {
				k.MemFill(q.E, asm.C(0), cols.ShlI(2))
				k.Set(x, k.Load(in, p.E, 0))
				k.Set(e, asm.Call(asm.I32, k.L.lookup(strings), k.Attr32(0), k.Attr32(1), k.keyOf(in, x)))
				k.If(e.E, func() { k.Put(asm.MF32, q.Add(asm.L32(e.E, 8).ShlI(2)), 0, asm.CF(1)) }, func() {
					k.Check(k.Attr32(3), abi.ErrValue, i.ExtU(), asm.CL(0))
				})
				k.Inc(p, 1<<in.Shift)
				k.Set(q, q.Add(cols.ShlI(2)))
				k.Inc(i, 1)
			})
		},
	}
}

// ZipMap makes a sequence of maps from rows of f32: attr0 is the address of the class tensor's descriptor, attr1 its length, attr2 the
// keys' element type.
func ZipMap() *Kernel {
	return &Kernel{Name: "zipmap", NOut: 1,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			c := k.Let(k.Attr(1))
			r := k.Let(Rank(x))
			k.Check(r.EqI(1).Or(r.EqI(2)), abi.ErrRank, r.ExtU(), asm.CL(2))
			k.Check(Dim(x, r.SubI(1)).Eq(c.E), abi.ErrShape, Dim(x, r.SubI(1)), c.E)
			n := k.Let(asm.CL(1))
			k.If(r.EqI(2), func() { k.Set(n, DimC(x, 0)) })
			k.AllocBytes(y, n.MulI(3*abi.DescSize).Add(n.Mul(c.E).ShlI(2)))
			k.Put(asm.M32, y.E, abi.DescKind, asm.C(int64(abi.Sequence)))
			k.Put(asm.M32, y.E, abi.DescDType, k.Attr32(2))
			k.SetRank(y, asm.C(1))
			k.SetDimC(y, 0, n.E)
			k.Put(asm.M32, y.E, abi.DescBytes, n.Wrap().MulI(abi.DescSize))
			k.Work(n.E, c.AddI(40))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			c := k.Let(k.Attr32(1))
			n := k.Let(DimC(y, 0).Wrap())
			maps := k.Let(Data(y))
			kids := k.Let(maps.Add(n.MulI(abi.DescSize)))
			vals := k.Let(kids.Add(n.MulI(2 * abi.DescSize)))
			i, m, d, v, j := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			e := k.Local(asm.F32)
			k.While(i.LtU(hi.E), func() {
				k.Set(m, maps.Add(i.MulI(abi.DescSize)))
				k.Set(d, kids.Add(i.MulI(2*abi.DescSize)))
				k.Set(v, vals.Add(i.Mul(c.E).ShlI(2)))
				k.MemFill(m.E, asm.C(0), asm.C(abi.DescSize))
				k.Put(asm.M32, m.E, abi.DescKind, asm.C(int64(abi.Map)))
				k.Put(asm.M32, m.E, abi.DescDType, k.Attr32(2))
				k.Put(asm.M32, m.E, abi.DescRank, asm.C(1))
				k.Put(asm.M64, m.E, abi.DescDims, c.ExtU())
				k.Put(asm.M32, m.E, abi.DescData, d.E)
				k.Put(asm.M32, m.E, abi.DescBytes, asm.C(2*abi.DescSize))
				k.Put(asm.M32, m.E, abi.DescCap, asm.C(2*abi.DescSize))
				k.MemCopy(d.E, k.Attr32(0), asm.C(abi.DescSize))
				k.Inc(d, abi.DescSize)
				k.MemFill(d.E, asm.C(0), asm.C(abi.DescSize))
				k.Put(asm.M32, d.E, abi.DescDType, asm.C(int64(abi.F32)))
				k.Put(asm.M32, d.E, abi.DescRank, asm.C(1))
				k.Put(asm.M64, d.E, abi.DescDims, c.ExtU())
				k.Put(asm.M32, d.E, abi.DescData, v.E)
				k.Put(asm.M32, d.E, abi.DescBytes, c.ShlI(2))
				k.Put(asm.M32, d.E, abi.DescCap, c.ShlI(2))
				k.Up(j, c.E, func() {
					k.Set(e, asm.MF32.At(Data(x).Add(i.Mul(c.E).Add(j.E).ShlI(2)), 0))
					k.Put(asm.M32, v.E, 0, asm.Select(e.Ne(e.E), asm.C(0x7fc00000), e.Bits()))
					k.Inc(v, 4)
				})
				k.Inc(i, 1)
			})
		},
	}
}
