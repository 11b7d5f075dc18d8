package kernel

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Cutting long units. A resume overshoots its budget by one unit, so no unit may cost more than UnitMost. Where the natural unit (a line
// that is summed up, a row that is copied) is longer, it is cut into pieces: units of their own, done in order. Pieces that build on
// each other leave their state in the scratch and make the step serial, so that it is never announced as parts.
const unitMost = 250_000 // Lib.UnitMost unless it is set

const (
	pcLen   = CtxSerial - 4     // u32 elements of a piece
	pcCount = CtxSerial - 8     // u32 pieces of a line
	pcState = pcCount - 4 - 128 // 128 bytes that go from piece to piece
)

// cut divides a line of n elements at cost per into pieces of a multiple of 16 elements and returns their number and the cost
// of the longest one.
func (k *K) cut(n, per E) (pieces, cost V) { return k.cutBy(16, n, per) }

// cutBy is cut for pieces of least elements or a multiple of 16.
func (k *K) cutBy(least int64, n, per E) (pieces, cost V) {
	p := k.Let(per)
	k.If(p.LtS(asm.CL(1)), func() { k.Set(p, asm.CL(1)) })
	ln := k.Let(asm.CL(k.L.UnitMost).DivS(p.E))
	k.If(ln.GeS(asm.CL(16)), func() { k.Set(ln, ln.AndI(-16)) }, func() { k.Set(ln, asm.CL(least)) })
	all := k.Let(n)
	pieces = k.Let(asm.CL(1))
	k.If(all.GtS(ln.E), func() { k.Set(pieces, all.Add(ln.E).SubI(1).DivS(ln.E)) }, func() { k.Set(ln, all.E) })
	k.Put(asm.M32, k.Ctx.E, pcLen, ln.Wrap())
	k.Put(asm.M32, k.Ctx.E, pcCount, pieces.Wrap())
	return pieces, k.Let(ln.Mul(p.E))
}

// lineWork states the work of lines of n elements at cost per, and extra for each; cut lines make the step serial.
func (k *K) lineWork(lines, n, per, extra E) V {
	pieces, cost := k.cut(n, per)
	k.If(pieces.NeI(1), func() { k.Put(asm.M32, k.Ctx.E, CtxSerial, asm.C(1)) })
	k.Work(lines.Mul(pieces.E), cost.Add(extra))
	return pieces
}

// rowBytes states the work of copying rows of n bytes (i64), four bytes a unit, in pieces of bytes that do not build on each other.
func (k *K) rowBytes(rows, n E) {
	pieces, cost := k.cut(n, asm.CL(1))
	k.Work(rows.Mul(pieces.E), cost.ShrSI(2).AddI(20))
}

// pieceUnits runs body for units [lo, hi) of cut lines: line u, elements [from, to) of it, which are all n when it is not cut.
func (k *K) pieceUnits(lo, hi, n V, body func(u, from, to V)) {
	count, ln := k.noted(pcCount), k.noted(pcLen)
	w, u := k.Let(lo.E), k.Let(lo.E)
	piece, from, to := k.Let(asm.C(0)), k.Local(asm.I32), k.Local(asm.I32)
	k.If(count.NeI(1), func() {
		k.Set(u, lo.DivU(count.E))
		k.Set(piece, lo.Sub(u.Mul(count.E)))
	})
	k.While(w.LtU(hi.E), func() {
		k.Set(from, piece.Mul(ln.E))
		k.Set(to, n.E)
		k.If(to.Sub(from.E).GtU(ln.E), func() { k.Set(to, from.Add(ln.E)) })
		body(u, from, to)
		k.Inc(w, 1)
		k.Inc(piece, 1)
		k.If(piece.Eq(count.E), func() {
			k.Set(piece, asm.C(0))
			k.Inc(u, 1)
		})
	})
}

// linePieces is lines (reduce.go) over the pieces of the lines: first is the element index of the line's first element.
func (k *K) linePieces(lo, hi V, body func(u, o, i, first, n, stride, from, to V)) {
	n, in := k.noted(lnN), k.noted(lnInner)
	o, i, first := k.Local(asm.I32), k.Local(asm.I32), k.Local(asm.I32)
	k.pieceUnits(lo, hi, n, func(u, from, to V) {
		k.Set(o, u.DivU(in.E))
		k.Set(i, u.Sub(o.Mul(in.E)))
		k.Set(first, o.Mul(n.E).Mul(in.E).Add(i.E))
		body(u, o, i, first, n, in, from, to)
	})
}

// keep stores v, of d's compute type, for the next piece; kept reads it.
func (k *K) keep(d DT, off uint32, v V) { k.Put(stateMem(d), k.Ctx.E, pcState+off, v.E) }

func (k *K) kept(d DT, off uint32) E { return stateMem(d).At(k.Ctx.E, pcState+off) }

func stateMem(d DT) asm.Mem {
	return map[T]asm.Mem{asm.F32: asm.MF32, asm.F64: asm.MF64, asm.I32: asm.M32, asm.I64: asm.M64}[d.C]
}

// stateSize is the room of one kept value.
const stateSize = 8

// sumMore(p, n, stride, state) goes on with an S8 sum whose eight lanes are kept at state: n more elements, a multiple of eight unless they
// are the last.
func (l *Lib) sumMore(d DT) uint32 {
	return l.Fn("sum_more."+d.Name, []T{asm.I32, asm.I32, asm.I32, asm.I32}, nil, func(f *asm.Fn) {
		p, n, st, state := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		m := stateMem(d)
		var a [8]V
		for i := range a {
			a[i] = f.Let(m.At(state.E, uint32(stateSize*i)))
		}
		f.While(n.GeS(asm.C(8)), func() {
			for i := range a {
				f.Set(a[i], a[i].Add(l.load(d, p.E, 0)))
				f.Set(p, p.Add(st.E))
			}
			f.Inc(n, -8)
		})
		f.Block(func(done asm.Label) {
			for i := 0; i < 7; i++ {
				f.BrIf(done, n.LeS(asm.C(int64(i))))
				f.Set(a[i], a[i].Add(l.load(d, p.E, 0)))
				f.Set(p, p.Add(st.E))
			}
		})
		for i := range a {
			f.Put(m, state.E, uint32(stateSize*i), a[i].E)
		}
	})
}

// clearSum makes the kept lanes an empty sum.
func (k *K) clearSum() { k.MemFill(k.Ctx.AddI(pcState), asm.C(0), asm.C(8*stateSize)) }

// keptSum is the sum of the lanes kept from off on.
func (k *K) keptSum(d DT, off uint32) E {
	var a [8]V
	for i := range a {
		a[i] = k.Let(k.kept(d, off+uint32(stateSize*i)))
	}
	return fold8(a)
}

// lineCost is base for an element that is loaded as it is, and more where loading is work.
func lineCost(d DT, base int64) int64 {
	if d.Half() {
		return base + 6
	}
	return base
}

// costName names a prep function that states a cost.
func costName(prefix string, cost int64) string { return fmt.Sprintf("%s.%d", prefix, cost) }
