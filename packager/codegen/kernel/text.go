package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Text operators on references (strings.go).

// mapRune(r, table, n) changes a code point by a sorted table of {from u32, to u32}.
func (l *Lib) mapRune() uint32 {
	return l.Fn("map_rune", []T{asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		r, table, n := f.Param(0), f.Param(1), f.Param(2)
		lo, hi, mid, v := f.Let(asm.C(0)), f.Let(n.E), f.Local(asm.I32), f.Local(asm.I32)
		f.While(lo.LtU(hi.E), func() {
			f.Set(mid, lo.Add(hi.E).ShrUI(1))
			f.Set(v, asm.L32(table.Add(mid.ShlI(3)), 0))
			f.If(v.Eq(r.E), func() { f.Return(asm.L32(table.Add(mid.ShlI(3)), 4)) })
			f.If(v.LtU(r.E), func() { f.Set(lo, mid.AddI(1)) }, func() { f.Set(hi, mid.E) })
		})
		f.Return(r.E)
	})
}

// encode(p, r) writes a code point at p unless p is 0 and returns its length.
func (l *Lib) encode() uint32 {
	return l.Fn("utf8_encode", []T{asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		p, r := f.Param(0), f.Param(1)
		n := f.Let(asm.C(1).Add(r.GeU(asm.C(0x80))).Add(r.GeU(asm.C(0x800))).Add(r.GeU(asm.C(0x10000))))
		f.If(p.Eqz(), func() { f.Return(n.E) })
		put := func(i int, e E) { f.Put(asm.M8U, p.E, uint32(i), e) }
		tail := func(shift int64) E { return r.ShrUI(shift).AndI(0x3f).Or(asm.C(0x80)) }
		f.If(n.EqI(1), func() { put(0, r.E) })
		f.If(n.EqI(2), func() { put(0, r.ShrUI(6).Or(asm.C(0xc0))); put(1, tail(0)) })
		f.If(n.EqI(3), func() { put(0, r.ShrUI(12).Or(asm.C(0xe0))); put(1, tail(6)); put(2, tail(0)) })
		f.If(n.EqI(4), func() { put(0, r.ShrUI(18).Or(asm.C(0xf0))); put(1, tail(12)); put(2, tail(6)); put(3, tail(0)) })
		f.Return(n.E)
	})
}

// mapText(ref, out, table, n) maps every code point of a text to out (0: only measures) and returns the bytes.
func (l *Lib) mapText() uint32 {
	return l.Fn("map_text", []T{asm.I64, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		ref, out, table, n := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		p := f.Let(refAddr(ref.E))
		end := f.Let(p.Add(refLen(ref.E)))
		q := f.Let(out.E)
		c, w, sum := f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32)
		f.While(p.LtU(end.E), func() {
			f.Set(c, asm.Call(asm.I32, l.decode(), p.E, end.E))
			f.If(c.LtS(asm.C(0)), func() {
				// Not UTF-8: the byte stays as it is.
				f.If(q.E, func() { f.Put(asm.M8U, q.E, 0, asm.M8U.At(p.E, 0)) })
				f.Set(w, asm.C(1))
				f.Inc(p, 1)
			}, func() {
				f.Set(p, p.Add(c.ShrUI(24)))
				f.Set(w, asm.Call(asm.I32, l.encode(), q.E, asm.Call(asm.I32, l.mapRune(), c.AndI(0xffffff), table.E, n.E)))
			})
			f.If(q.E, func() { f.Set(q, q.Add(w.E)) })
			f.Set(sum, sum.Add(w.E))
		})
		f.Return(sum.E)
	})
}

// MapTextLens gives the mapped length of each text (i32); MapText writes the mapped tensor from them. Attribute slots: 0 table, 1 entries.
func MapTextLens() *Kernel {
	return &Kernel{Name: "map_text_lens", NOut: 1, Prep: textPrep(dtOf(abi.I32)),
		Range: func(k *K, lo, hi V) {
			i, m := k.Let(lo.E), k.meter()
			k.While(i.LtU(hi.E), func() {
				n := k.mapChunks(m, i, asm.L64(Data(k.In(0)).Add(i.ShlI(3)), 0), asm.C(0), nil)
				k.Put(asm.M32, Data(k.Out(0)).Add(i.ShlI(2)), 0, n.E)
				k.Inc(i, 1)
				m.leave(i, nil)
			})
		},
	}
}

// textPrep gives output 0 the dims of the references in input 0; a unit is one text.
func textPrep(out DT) func(k *K) {
	return func(k *K) {
		x, y := k.In(0), k.Out(0)
		k.CopyDims(y, x)
		k.Alloc(y, out)
		k.Put(asm.M64, k.Ctx.E, txPos, asm.CL(0))
		k.Work(k.Numel(x), asm.CL(40))
	}
}

// MapText takes references (input 0) and lengths (input 1) and gives the mapped string tensor. The texts are measured, memory is taken, and
// they are written, as textWriter does.
func MapText() *Kernel {
	return &Kernel{Name: "map_text_write", NOut: 1,
		Prep: func(k *K) {
			k.Put(asm.M64, k.Ctx.E, txSum, asm.CL(0))
			k.Put(asm.M64, k.Ctx.E, txPos, asm.CL(0))
			k.Work(k.Numel(k.In(0)).ShlI(1).AddI(1), asm.CL(40))
		},
		Range: func(k *K, lo, hi V) {
			x, y, lens := k.In(0), k.Out(0), k.Let(Data(k.In(1)))
			n, u, i := k.Let(k.Numel(x).Wrap()), k.Let(lo.E), k.Local(asm.I32)
			sum := k.Let(asm.L64(k.Ctx.E, txSum))
			save := func() { k.Put(asm.M64, k.Ctx.E, txSum, sum.E) }
			size := func(i V) E { return asm.L32(lens.Add(i.ShlI(2)), 0).ExtU() }
			k.While(u.LtU(hi.E).And(u.LtU(n.E)), func() {
				k.Set(sum, sum.Add(size(u)))
				k.Inc(u, 1)
			})
			k.If(u.LtU(hi.E).And(u.Eq(n.E)), func() {
				k.allocTexts(x, y, u, sum, save)
				k.Inc(u, 1)
			})
			m := k.meter()
			base := k.Let(Data(y).Add(n.AddI(1).ShlI(2)))
			k.While(u.LtU(hi.E), func() {
				k.Set(i, u.Sub(n.E).SubI(1))
				k.Put(asm.M32, Data(y).Add(i.ShlI(2)), 0, sum.Wrap())
				k.mapChunks(m, u, asm.L64(Data(x).Add(i.ShlI(3)), 0), base.Add(sum.Wrap()), save)
				k.Set(sum, sum.Add(size(i)))
				k.Inc(u, 1)
				k.If(u.Ne(n.ShlI(1).AddI(1)), func() { m.leave(u, save) })
			})
			k.If(u.Eq(n.ShlI(1).AddI(1)), func() { k.Put(asm.M32, Data(y).Add(n.ShlI(2)), 0, sum.Wrap()) })
			save()
		},
	}
}

// Filter keeps the references of input 0 whose counterpart in input 1 is not in the lookup table (attr0, attr1). Shapes are [C] or
// [1,C]; if nothing remains there is one empty text.
func Filter() *Kernel {
	return &Kernel{Name: "filter_texts", NOut: 1, Run: func(k *K) {
		x, w, y := k.In(0), k.In(1), k.Out(0)
		r := k.Let(Rank(x))
		k.Check(r.EqI(1).Or(asm.And2(r.EqI(2), DimC(x, 0).EqI(1))), abi.ErrShape, r.ExtU(), k.Numel(x))
		k.CopyDims(y, x)
		k.AllocBytes(y, k.Numel(x).AddI(1).ShlI(3))
		k.Put(asm.M32, y.E, abi.DescKind, asm.C(0))
		k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(abi.U64)))
		n, i, c := k.Let(k.Numel(x).Wrap()), k.Local(asm.I32), k.Let(asm.C(0))
		k.Up(i, n.E, func() {
			k.If(asm.Call(asm.I32, k.L.lookup(true), k.Attr32(0), k.Attr32(1), asm.L64(Data(w).Add(i.ShlI(3)), 0)).Eqz(), func() {
				k.Put(asm.M64, Data(y).Add(c.ShlI(3)), 0, asm.L64(Data(x).Add(i.ShlI(3)), 0))
				k.Inc(c, 1)
			})
		})
		k.If(c.Eqz(), func() {
			k.Put(asm.M64, Data(y), 0, asm.CL(0))
			k.Set(c, asm.C(1))
		})
		k.SetDim(y, r.SubI(1), c.ExtU())
		k.Put(asm.M32, y.E, abi.DescBytes, c.ShlI(3))
	}}
}

// A compiled pattern is a DFA over classes of code points, in the data segment: a header, then tables. See package codegen, dfa.go.
const (
	DFAClasses = 0  // u32 number of classes; class 0 is the end of the text
	DFAASCII   = 4  // address of u8[128]: class of an ASCII character
	DFARanges  = 8  // address of {first u32, class u32}, sorted by first
	DFANRanges = 12 // their number
	DFANext    = 16 // address of u16 next[state][class]; state 0 is dead
	DFAAccept  = 20 // address of u8 accept[state][class]: the text so far matches when this class follows
	DFAStart   = 24 // u32[4]: start state after nothing, a newline, a word character, another one
	DFASize    = 40
)

// classOf(dfa, rune)
func (l *Lib) classOf() uint32 {
	return l.Fn("dfa_class", []T{asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		d, r := f.Param(0), f.Param(1)
		f.If(r.LtU(asm.C(128)), func() { f.Return(asm.M8U.At(asm.L32(d.E, DFAASCII).Add(r.E), 0)) })
		t := f.Let(asm.L32(d.E, DFARanges))
		lo, hi, mid := f.Let(asm.C(0)), f.Let(asm.L32(d.E, DFANRanges)), f.Local(asm.I32)
		// The last range that begins at or before r.
		f.While(hi.Sub(lo.E).GtU(asm.C(1)), func() {
			f.Set(mid, lo.Add(hi.E).ShrUI(1))
			f.If(asm.L32(t.Add(mid.ShlI(3)), 0).LeU(r.E), func() { f.Set(lo, mid.E) }, func() { f.Set(hi, mid.E) })
		})
		f.Return(asm.L32(t.Add(lo.ShlI(3)), 4))
	})
}

// runeAt(p, end) decodes like utf8_decode, but gives an invalid byte as U+FFFD of length 1.
func (l *Lib) runeAt() uint32 {
	return l.Fn("rune_at", []T{asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		c := f.Let(asm.Call(asm.I32, l.decode(), f.Param(0).E, f.Param(1).E))
		f.If(c.LtS(asm.C(0)), func() { f.Return(asm.C(0xfffd | 1<<24)) })
		f.Return(c.E)
	})
}

// matchAt(dfa, p, end, prev) gives the end of the longest match that begins at p, or 0. prev indexes DFAStart.
func (l *Lib) matchAt() uint32 {
	return l.Fn("dfa_match", []T{asm.I32, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		d, p, end, prev := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		s := f.Let(asm.L32(d.Add(prev.ShlI(2)), DFAStart))
		nc := f.Let(asm.L32(d.E, DFAClasses))
		next, acc := f.Let(asm.L32(d.E, DFANext)), f.Let(asm.L32(d.E, DFAAccept))
		best, c, cls, at := f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32)
		f.Loop(func(top asm.Label) {
			f.Set(cls, asm.C(0))
			f.If(p.LtU(end.E), func() {
				f.Set(c, asm.Call(asm.I32, l.runeAt(), p.E, end.E))
				f.Set(cls, asm.Call(asm.I32, l.classOf(), d.E, c.AndI(0xffffff)))
			})
			f.Set(at, s.Mul(nc.E).Add(cls.E))
			f.If(asm.M8U.At(acc.Add(at.E), 0), func() { f.Set(best, p.E) })
			f.If(p.GeU(end.E), func() { f.Return(best.E) })
			f.Set(s, asm.M16U.At(next.Add(at.ShlI(1)), 0))
			f.If(s.Eqz(), func() { f.Return(best.E) })
			f.Set(p, p.Add(c.ShrUI(24)))
			f.Br(top)
		})
	})
}

// prevKind(c) classifies the rune before a position for DFAStart.
func (l *Lib) prevKind() uint32 {
	return l.Fn("dfa_prev", []T{asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		c := f.Param(0).E
		f.If(c.EqI('\n'), func() { f.Return(asm.C(1)) })
		in := func(a, b int64) E { return c.GeU(asm.C(a)).And(c.LeU(asm.C(b))) }
		f.Return(asm.Select(in('0', '9').Or(in('a', 'z')).Or(in('A', 'Z')).Or(c.EqI('_')), asm.C(2), asm.C(3)))
	})
}

// countRunes(p, end)
func (l *Lib) countRunes() uint32 {
	return l.Fn("count_runes", []T{asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		p, end := f.Param(0), f.Param(1)
		n := f.Local(asm.I32)
		f.While(p.LtU(end.E), func() {
			f.Set(p, p.Add(asm.Call(asm.I32, l.runeAt(), p.E, end.E).ShrUI(24)))
			f.Inc(n, 1)
		})
		f.Return(n.E)
	})
}

// Attribute slots of the tokenizer.
const (
	TokDFAs  = iota // address of u32 addresses of DFAs: the one expression, or the separators
	TokNDFAs        // their number; 0: split into characters
	TokMin          // mincharnum
	TokMark         // 0 or 1
	TokPad          // references: pad value, start mark, end mark
	TokStart
	TokEnd
)

// tokenize(ref, out, dfas, n, mincharnum) writes references to the tokens of a text at out (0: only counts) and returns their number. split: the
// patterns separate tokens; otherwise the one pattern matches them.
func (l *Lib) tokenize(split bool) uint32 {
	name := "tokenize_match"
	if split {
		name = "tokenize_split"
	}
	return l.Fn(name, []T{asm.I64, asm.I32, asm.I32, asm.I32, asm.I32}, []T{asm.I32}, func(f *asm.Fn) {
		ref, out, dfas, nd, minc := f.Param(0), f.Param(1), f.Param(2), f.Param(3), f.Param(4)
		p := f.Let(refAddr(ref.E))
		end := f.Let(p.Add(refLen(ref.E)))
		start := f.Let(p.E)
		n, e, c, prev, i := f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32), f.Local(asm.I32)
		token := func(from, to E) {
			f.If(asm.And2(from.LtU(to), asm.Call(asm.I32, l.countRunes(), from, to).GeS(minc.E)), func() {
				f.If(out.E, func() { f.Put(asm.M64, out.Add(n.ShlI(3)), 0, mkRef(from, to.Sub(from))) })
				f.Inc(n, 1)
			})
		}
		f.While(p.LtU(end.E), func() {
			f.Set(e, asm.C(0))
			if split {
				f.If(nd.Eqz(), func() {
					// Characters: cut behind each one.
					f.Set(c, p.Add(asm.Call(asm.I32, l.runeAt(), p.E, end.E).ShrUI(24)))
					token(p.E, c.E)
					f.Set(start, c.E)
				})
				f.Set(i, asm.C(0))
				f.While(i.LtU(nd.E).And(e.Eqz()), func() {
					f.Set(e, asm.Call(asm.I32, l.matchAt(), asm.L32(dfas.Add(i.ShlI(2)), 0), p.E, end.E, prev.E))
					f.If(e.Eq(p.E), func() { f.Set(e, asm.C(0)) })
					f.Inc(i, 1)
				})
				f.If(e.E, func() {
					token(start.E, p.E)
					f.Set(start, e.E)
				})
			} else {
				f.Set(e, asm.Call(asm.I32, l.matchAt(), asm.L32(dfas.E, 0), p.E, end.E, prev.E))
				f.If(e.Eq(p.E), func() { f.Set(e, asm.C(0)) })
				f.If(e.E, func() { token(p.E, e.E) })
			}
			// Step over the match, or over one character; remember the character before the new place.
			f.If(e.Eqz(), func() { f.Set(e, p.Add(asm.Call(asm.I32, l.runeAt(), p.E, end.E).ShrUI(24))) })
			f.While(p.LtU(e.E), func() {
				f.Set(c, asm.Call(asm.I32, l.runeAt(), p.E, end.E))
				f.Set(p, p.Add(c.ShrUI(24)))
			})
			f.Set(prev, asm.Call(asm.I32, l.prevKind(), c.AndI(0xffffff)))
		})
		if split {
			f.If(nd.E, func() { token(start.E, end.E) })
		}
		f.Return(n.E)
	})
}

// TokenCount counts the tokens of each text in input 0 (references): i32.
func TokenCount(split bool) *Kernel {
	name := "token_count_match"
	if split {
		name = "token_count_split"
	}
	return &Kernel{Name: name, NOut: 1, PrepName: "token_count", Prep: textPrep(dtOf(abi.I32)),
		Range: func(k *K, lo, hi V) {
			i, r, m := k.Let(lo.E), k.Local(asm.I64), k.meter()
			k.While(i.LtU(hi.E), func() {
				k.Set(r, asm.L64(Data(k.In(0)).Add(i.ShlI(3)), 0))
				k.Put(asm.M32, Data(k.Out(0)).Add(i.ShlI(2)), 0, asm.Call(asm.I32, k.L.tokenize(split),
					r.E, asm.C(0), k.Attr32(TokDFAs), k.Attr32(TokNDFAs), k.Attr32(TokMin)))
				k.Inc(i, 1)
				m.spend(refLen(r.E).ExtU().MulI(textByte))
				m.leave(i, nil)
			})
		},
	}
}

// Tokens gives references [..., D] from texts (input 0) and counts (input 1).
func Tokens(split bool) *Kernel {
	name := "tokens_match"
	if split {
		name = "tokens_split"
	}
	return &Kernel{Name: name, NOut: 1, PrepName: "tokens",
		Prep: func(k *K) {
			x, cnt, y := k.In(0), k.In(1), k.Out(0)
			r := k.Let(Rank(x))
			k.Check(r.EqI(1).Or(r.EqI(2)), abi.ErrRank, r.ExtU(), asm.CL(2))
			n, i, d, c := k.Let(k.Numel(x).Wrap()), k.Local(asm.I32), k.Let(asm.C(0)), k.Local(asm.I32)
			k.Up(i, n.E, func() {
				k.Set(c, asm.L32(Data(cnt).Add(i.ShlI(2)), 0))
				k.If(c.GtU(d.E), func() { k.Set(d, c.E) })
			})
			// Without any token there are no marks either, as in ONNX Runtime.
			k.If(d.E, func() { k.Set(d, d.Add(k.Attr32(TokMark).ShlI(1))) })
			k.CopyDims(y, x)
			k.SetRank(y, r.AddI(1))
			k.SetDim(y, r.E, d.ExtU())
			k.Alloc(y, refDT())
			k.Work(n.ExtU(), d.ExtU().MulI(100).AddI(30))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			d := k.Let(Dim(y, Rank(x)).Wrap())
			i, p, n, end := k.Let(lo.E), k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
			k.While(i.LtU(hi.E), func() {
				k.Set(p, Data(y).Add(i.Mul(d.E).ShlI(3)))
				k.Set(end, p.Add(d.ShlI(3)))
				k.If(asm.And2(d.E, k.Attr32(TokMark)), func() {
					k.Put(asm.M64, p.E, 0, k.Attr(TokStart))
					k.Inc(p, 8)
				})
				k.Set(n, asm.Call(asm.I32, k.L.tokenize(split), asm.L64(Data(x).Add(i.ShlI(3)), 0), p.E, k.Attr32(TokDFAs), k.Attr32(TokNDFAs), k.Attr32(TokMin)))
				k.Set(p, p.Add(n.ShlI(3)))
				k.If(asm.And2(d.E, k.Attr32(TokMark)), func() {
					k.Put(asm.M64, p.E, 0, k.Attr(TokEnd))
					k.Inc(p, 8)
				})
				k.While(p.LtU(end.E), func() {
					k.Put(asm.M64, p.E, 0, k.Attr(TokPad))
					k.Inc(p, 8)
				})
				k.Inc(i, 1)
			})
		},
	}
}

// Attribute slots of TfIdf. The trie: nodes of 12 bytes {column i32 or -1, first edge, end of edges}, edges of 8 bytes {item u32, node u32}
// sorted by item within a node; node 0 is the root.
const (
	TfNodes = iota
	TfEdges
	TfColumns
	TfWeights // f32 per column, or 0
	TfMode    // 0 TF, 1 IDF, 2 TFIDF
	TfMin
	TfMax
	TfSkips // max_skip_count
)

// TfIdf counts n-grams of item numbers (u32, ^0 unknown) per row.
func TfIdf() *Kernel {
	return &Kernel{Name: "tfidf", NOut: 1, Parallel: true,
		Prep: func(k *K) {
			x, y := k.In(0), k.Out(0)
			r := k.Let(Rank(x))
			k.Check(r.EqI(1).Or(r.EqI(2)), abi.ErrRank, r.ExtU(), asm.CL(2))
			k.SetRank(y, r.E)
			rows := k.Let(asm.CL(1))
			k.If(r.EqI(2), func() {
				k.Set(rows, DimC(x, 0))
				k.SetDimC(y, 0, rows.E)
			})
			k.SetDim(y, r.SubI(1), k.Attr(TfColumns))
			k.Alloc(y, dtOf(abi.F32))
			k.Work(rows.E, Dim(x, r.SubI(1)).Mul(k.Attr(TfMax)).MulI(20).Add(k.Attr(TfColumns)).AddI(30))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			c := k.Let(Dim(x, Rank(x).SubI(1)).Wrap())
			cols := k.Let(k.Attr32(TfColumns))
			L := func() V { return k.Local(asm.I32) }
			u, row, out, end, p, dist, minN, start, item, size, node, a, b, mid, col, found := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
			nodes, edges, maxN := k.Let(k.Attr32(TfNodes)), k.Let(k.Attr32(TfEdges)), k.Let(k.Attr32(TfMax))
			k.While(u.LtU(hi.E), func() {
				k.Set(row, Data(x).Add(u.Mul(c.E).ShlI(2)))
				k.Set(out, Data(y).Add(u.Mul(cols.E).ShlI(2)))
				k.MemFill(out.E, asm.C(0), cols.ShlI(2))
				k.Set(minN, k.Attr32(TfMin))
				k.Set(dist, asm.C(1))
				k.While(dist.LeS(k.Attr32(TfSkips).AddI(1)).And(minN.LeS(maxN.E)), func() {
					k.Up(start, c.E, func() {
						k.Set(item, start.E)
						k.Set(size, asm.C(1))
						k.Set(node, nodes.E)
						k.Block(func(done asm.Label) {
							k.Loop(func(top asm.Label) {
								k.BrIf(done, size.GtS(maxN.E))
								k.BrIf(done, item.GeS(c.E))
								// Find the edge for this item.
								k.Set(p, asm.L32(row.Add(item.ShlI(2)), 0))
								k.Set(a, asm.L32(node.E, 4))
								k.Set(b, asm.L32(node.E, 8))
								k.Set(found, asm.C(0))
								k.While(a.LtU(b.E), func() {
									k.Set(mid, a.Add(b.E).ShrUI(1))
									e := edges.Add(mid.ShlI(3))
									k.If(asm.L32(e, 0).Eq(p.E), func() {
										k.Set(found, asm.L32(e, 4).MulI(12).Add(nodes.E))
										k.Set(a, b.E)
									}, func() {
										k.If(asm.L32(e, 0).LtU(p.E), func() { k.Set(a, mid.AddI(1)) }, func() { k.Set(b, mid.E) })
									})
								})
								k.BrIf(done, found.Eqz())
								k.Set(node, found.E)
								k.Set(col, asm.L32(node.E, 0))
								k.If(size.GeS(minN.E).And(col.GeS(asm.C(0))), func() {
									k.Set(p, out.Add(col.ShlI(2)))
									k.Put(asm.MF32, p.E, 0, asm.MF32.At(p.E, 0).Add(asm.CF(1)))
								})
								k.Inc(size, 1)
								k.Set(item, item.Add(dist.E))
								k.BrIf(done, item.LtS(asm.C(0)))
								k.Br(top)
							})
						})
					})
					// Single items have no distance: they count once.
					k.If(minN.EqI(1), func() { k.Set(minN, asm.C(2)) })
					k.Inc(dist, 1)
				})
				k.If(k.Attr32(TfMode), func() {
					k.Set(p, out.E)
					k.Set(end, out.Add(cols.ShlI(2)))
					k.Set(a, k.Attr32(TfWeights))
					k.While(p.LtU(end.E), func() {
						k.If(k.Attr32(TfMode).EqI(1), func() {
							k.If(asm.MF32.At(p.E, 0).Gt(asm.CF(0)), func() { k.Put(asm.MF32, p.E, 0, asm.MF32.At(a.E, 0)) })
						}, func() { k.Put(asm.MF32, p.E, 0, asm.MF32.At(p.E, 0).Mul(asm.MF32.At(a.E, 0))) })
						k.Inc(p, 4)
						k.Inc(a, 4)
					})
				})
				k.Inc(u, 1)
			})
		},
	}
}
