package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Texts differ in length, so that no charge per text is right. Kernels over texts charge little for each and count what they
// really do: when that is much they leave in the middle, and the next resume goes on there. They are never parallel.

const (
	textChunk = 1 << 13 // bytes of a text that are handled in one go
	textByte  = 30      // what decoding and mapping a byte costs at most

	// State of such a kernel.
	txSum  = pcState      // i64: bytes so far
	txPos  = pcState + 8  // u32: place in the text that is not done yet
	txPart = pcState + 12 // u32: what became of that text so far
)

// meter counts what a range function does between two texts.
type meter struct {
	k     *K
	spent V
}

func (k *K) meter() meter { return meter{k, k.Let(asm.CL(0))} }

// spend adds cost (i64).
func (m meter) spend(cost E) { m.k.Set(m.spent, m.spent.Add(cost)) }

// leave ends the function when a unit's worth was spent; save stores what the next resume needs, which begins with unit u.
func (m meter) leave(u V, save func()) {
	k := m.k
	k.If(m.spent.GeS(asm.CL(k.L.UnitMost)), func() {
		if save != nil {
			save()
		}
		k.Put(asm.M64, k.Ctx.E, CtxCursor, u.ExtU())
		k.Return(asm.C(stMore))
	})
}

// textWriter makes a string tensor with the dims of input 0: size gives the bytes of text i, put writes it. First all are measured,
// then memory is taken, then they are written: 2n+1 units.
func textWriter(name string, size func(k *K, i V) E, put func(k *K, i V, p E)) *Kernel {
	const cost = 14
	return &Kernel{Name: name, NOut: 1,
		Prep: func(k *K) {
			k.Put(asm.M64, k.Ctx.E, txSum, asm.CL(0))
			k.Work(k.Numel(k.In(0)).ShlI(1).AddI(1), asm.CL(cost))
		},
		Range: func(k *K, lo, hi V) {
			x, y := k.In(0), k.Out(0)
			n, u, i := k.Let(k.Numel(x).Wrap()), k.Let(lo.E), k.Local(asm.I32)
			sum := k.Let(asm.L64(k.Ctx.E, txSum))
			k.While(u.LtU(hi.E).And(u.LtU(n.E)), func() {
				k.Set(sum, sum.Add(size(k, u)))
				k.Inc(u, 1)
			})
			save := func() { k.Put(asm.M64, k.Ctx.E, txSum, sum.E) }
			k.If(u.LtU(hi.E).And(u.Eq(n.E)), func() {
				k.allocTexts(x, y, u, sum, save)
				k.Inc(u, 1)
			})
			m := k.meter()
			base := k.Let(Data(y).Add(n.AddI(1).ShlI(2)))
			k.While(u.LtU(hi.E), func() {
				k.Set(i, u.Sub(n.E).SubI(1))
				k.Put(asm.M32, Data(y).Add(i.ShlI(2)), 0, sum.Wrap())
				put(k, i, base.Add(sum.Wrap()))
				m.spend(size(k, i).ShrUI(2))
				k.Set(sum, sum.Add(size(k, i)))
				k.Inc(u, 1)
				k.If(u.Ne(n.ShlI(1).AddI(1)), func() { m.leave(u, save) })
			})
			k.If(u.Eq(n.ShlI(1).AddI(1)), func() { k.Put(asm.M32, Data(y).Add(n.ShlI(2)), 0, sum.Wrap()) })
			save()
		},
	}
}

// allocTexts takes memory for sum bytes of text in unit u and sets sum back; save has to keep sum, as memory may be short.
func (k *K) allocTexts(x, y, u, sum V, save func()) {
	n := k.Let(k.Numel(x))
	k.Check(sum.LeU(asm.CL(1<<31-1)), abi.ErrMemory, sum.E, asm.CL(0))
	save()
	k.Put(asm.M64, k.Ctx.E, CtxCursor, u.ExtU())
	k.AllocBytes(y, sum.Add(n.AddI(1).ShlI(2)))
	k.Put(asm.M32, y.E, abi.DescKind, asm.C(0))
	k.Put(asm.M32, y.E, abi.DescDType, asm.C(int64(abi.String)))
	k.Put(asm.M32, y.E, abi.DescAux, sum.Wrap())
	k.CopyDims(y, x)
	k.Set(sum, asm.CL(0))
}

// mapChunks maps text i (a reference) from where it was left and returns the bytes that came out of it; at is where they go (i32 0:
// nowhere). It leaves, with save, when much was done.
func (k *K) mapChunks(m meter, i V, ref, at E, save func()) V {
	r, p, pos, n, end, w := k.Let(ref), k.Local(asm.I32), k.Let(asm.L32(k.Ctx.E, txPos)), k.Let(asm.L32(k.Ctx.E, txPart)), k.Local(asm.I32), k.Local(asm.I32)
	out := k.Let(at)
	k.Put(asm.M32, k.Ctx.E, txPos, asm.C(0))
	k.Put(asm.M32, k.Ctx.E, txPart, asm.C(0))
	k.Set(p, refAddr(r.E))
	k.While(pos.LtU(refLen(r.E)), func() {
		k.Set(end, pos.AddI(textChunk))
		k.If(end.GtU(refLen(r.E)), func() { k.Set(end, refLen(r.E)) })
		// Not in the middle of a character.
		k.Block(func(done asm.Label) {
			k.Loop(func(top asm.Label) {
				k.BrIf(done, end.GeU(refLen(r.E)))
				k.BrIf(done, asm.M8U.At(p.Add(end.E), 0).AndI(0xc0).NeI(0x80))
				k.Inc(end, 1)
				k.Br(top)
			})
		})
		k.Set(w, asm.Select(out.E, out.Add(n.E), asm.C(0)))
		k.Set(n, n.Add(asm.Call(asm.I32, k.L.mapText(), mkRef(p.Add(pos.E), end.Sub(pos.E)), w.E, k.Attr32(0), k.Attr32(1))))
		m.spend(end.Sub(pos.E).ExtU().MulI(textByte))
		k.Set(pos, end.E)
		k.If(pos.LtU(refLen(r.E)), func() {
			m.leave(i, func() {
				k.Put(asm.M32, k.Ctx.E, txPos, pos.E)
				k.Put(asm.M32, k.Ctx.E, txPart, n.E)
				if save != nil {
					save()
				}
			})
		})
	})
	return n
}
