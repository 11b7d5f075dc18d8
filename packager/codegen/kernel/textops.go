package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// PickText broadcasts two tensors of references and keeps the first, or the second.
func PickText(second bool) *Kernel {
	name := "first_text"
	if second {
		name = "second_text"
	}
	return Binary(Op2{Name: name, Scalar: func(k *K, d DT, a, b E) E {
		if second {
			return b
		}
		return a
	}}, refDT())
}

// JoinTexts writes each text of input 0 followed by the one of input 1 (references of equal dims).
func JoinTexts() *Kernel {
	ref := func(k *K, which int, i V) E { return asm.L64(Data(k.In(which)).Add(i.ShlI(3)), 0) }
	return textWriter("join_texts", func(k *K, i V) E {
		return refLen(ref(k, 0, i)).ExtU().Add(refLen(ref(k, 1, i)).ExtU())
	}, func(k *K, i V, p E) {
		a, b, q := k.Let(ref(k, 0, i)), k.Let(ref(k, 1, i)), k.Let(p)
		k.MemCopy(q.E, refAddr(a.E), refLen(a.E))
		k.MemCopy(q.Add(refLen(a.E)), refAddr(b.E), refLen(b.E))
	})
}

// FullMatch tells of each text (references) whether the pattern at attr0, anchored at both ends, matches it.
func FullMatch() *Kernel {
	return &Kernel{Name: "full_match", NOut: 1, Prep: textPrep(dtOf(abi.Bool)),
		Range: func(k *K, lo, hi V) {
			i, r, end := k.Let(lo.E), k.Local(asm.I64), k.Local(asm.I32)
			m := k.meter()
			k.While(i.LtU(hi.E), func() {
				k.Set(r, asm.L64(Data(k.In(0)).Add(i.ShlI(3)), 0))
				k.Set(end, refAddr(r.E).Add(refLen(r.E)))
				k.Put(asm.M8U, Data(k.Out(0)).Add(i.E), 0, asm.Call(asm.I32, k.L.matchAt(), k.Attr32(0), refAddr(r.E), end.E, asm.C(0)).Eq(end.E))
				k.Inc(i, 1)
				m.spend(refLen(r.E).ExtU().MulI(textByte))
				m.leave(i, nil)
			})
		},
	}
}

// blank(rune) is StringSplit's white space.
func (l *Lib) blank() uint32 {
	return l.Fn("is_blank", []T{asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		c := f.Param(0)
		in := func(lo, hi int64) E { return c.SubI(lo).LeU(asm.C(hi - lo)) }
		f.If(c.LtU(asm.C(0x85)), func() { f.Return(in(9, 13).Or(in(0x1c, 0x20))) })
		f.If(c.LtU(asm.C(0x1680)), func() { f.Return(c.EqI(0x85).Or(c.EqI(0xa0))) })
		f.Return(c.EqI(0x1680).Or(in(0x2000, 0x200a)).Or(in(0x2028, 0x2029)).Or(c.EqI(0x202f)).Or(c.EqI(0x205f)).Or(c.EqI(0x3000)))
	})
}

// splitText(ref, out, delimiter, limit) writes references to the parts of a text at out (0: only counts) and returns their number.
func (l *Lib) splitText() uint32 {
	return l.Fn("split_text", []T{asm.I64, asm.I32, asm.I64, asm.I64}, []T{asm.I32}, func(f *asm.Fn) {
		ref, out, del, limit := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		p := f.Let(refAddr(ref.E))
		end := f.Let(p.Add(refLen(ref.E)))
		start, n, c, w := f.Let(p.E), f.Local(asm.I32), f.Local(asm.I32), f.Let(refLen(del.E))
		part := func(from, to E) {
			f.If(out.E, func() { f.Put(asm.M64, out.Add(n.ShlI(3)), 0, mkRef(from, to.Sub(from))) })
			f.Inc(n, 1)
		}
		more := func() E { return asm.Or2(limit.LtS(asm.CL(0)), n.ExtU().LtS(limit.E)) }
		f.If(w.E, func() {
			f.While(asm.And2(p.Add(w.E).LeU(end.E), more()), func() {
				f.If(asm.Call(asm.I32, l.compareRefs(), mkRef(p.E, w.E), del.E).Eqz(), func() {
					part(start.E, p.E)
					f.Set(p, p.Add(w.E))
					f.Set(start, p.E)
				}, func() { f.Inc(p, 1) })
			})
			part(start.E, end.E)
			f.Return(n.E)
		})
		f.Loop(func(next asm.Label) {
			// Over the white space.
			f.Block(func(word asm.Label) {
				f.Loop(func(again asm.Label) {
					f.If(p.GeU(end.E), func() { f.Return(n.E) })
					f.Set(c, asm.Call(asm.I32, l.runeAt(), p.E, end.E))
					f.BrIf(word, asm.Call(asm.I32, l.blank(), c.AndI(0xffffff)).Eqz())
					f.Set(p, p.Add(c.ShrUI(24)))
					f.Br(again)
				})
			})
			f.Set(start, p.E)
			f.If(more().Eqz(), func() {
				part(start.E, end.E)
				f.Return(n.E)
			})
			f.Block(func(space asm.Label) {
				f.Loop(func(again asm.Label) {
					f.BrIf(space, p.GeU(end.E))
					f.Set(c, asm.Call(asm.I32, l.runeAt(), p.E, end.E))
					f.BrIf(space, asm.Call(asm.I32, l.blank(), c.AndI(0xffffff)))
					f.Set(p, p.Add(c.ShrUI(24)))
					f.Br(again)
				})
			})
			part(start.E, p.E)
			f.Br(next)
		})
	})
}

// SplitCount counts the parts of each text (references): attr0 is the delimiter's reference, attr1 the limit.
func SplitCount() *Kernel {
	return &Kernel{Name: "split_count", NOut: 1, Prep: textPrep(dtOf(abi.I64)),
		Range: func(k *K, lo, hi V) {
			i, r := k.Let(lo.E), k.Local(asm.I64)
			m := k.meter()
			k.While(i.LtU(hi.E), func() {
				k.Set(r, asm.L64(Data(k.In(0)).Add(i.ShlI(3)), 0))
				k.Put(asm.M64, Data(k.Out(0)).Add(i.ShlI(3)), 0, asm.Call(asm.I32, k.L.splitText(), r.E, asm.C(0), k.Attr(0), k.Attr(1)).ExtU())
				k.Inc(i, 1)
				m.spend(refLen(r.E).ExtU().MulI(textByte))
				m.leave(i, nil)
			})
		},
	}
}

// SplitParts gives references [..., D] to the parts, from texts and counts; missing ones are empty.
func SplitParts() *Kernel {
	return &Kernel{Name: "split_parts", NOut: 1,
		Prep: func(k *K) {
			x, cnt, y := k.In(0), k.In(1), k.Out(0)
			r := k.Let(Rank(x))
			k.Check(r.LtU(asm.C(abi.MaxRank)), abi.ErrRank, r.ExtU(), asm.CL(abi.MaxRank))
			n, i, d, c := k.Let(k.Numel(x).Wrap()), k.Local(asm.I32), k.Let(asm.CL(0)), k.Local(asm.I64)
			k.Up(i, n.E, func() {
				k.Set(c, asm.L64(Data(cnt).Add(i.ShlI(3)), 0))
				k.If(c.GtS(d.E), func() { k.Set(d, c.E) })
			})
			k.CopyDims(y, x)
			k.SetRank(y, r.AddI(1))
			k.SetDim(y, r.E, d.E)
			k.Alloc(y, refDT())
			k.Work(n.ExtU(), d.MulI(100).AddI(30))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			d := k.Let(Dim(y, Rank(x)).Wrap())
			i, p := k.Let(lo.E), k.Local(asm.I32)
			k.While(i.LtU(hi.E), func() {
				k.Set(p, Data(y).Add(i.Mul(d.E).ShlI(3)))
				k.MemFill(p.E, asm.C(0), d.ShlI(3))
				k.Do(asm.Call(asm.I32, k.L.splitText(), asm.L64(Data(x).Add(i.ShlI(3)), 0), p.E, k.Attr(0), k.Attr(1)))
				k.Inc(i, 1)
			})
		},
	}
}
