package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Products with constant f32 weights, packed by the compiler into panels of PanelCols columns: [panels][terms][PanelCols], the
// terms padded with zeros to a multiple of blockTerms. A unit takes some rows of the left side, spreads each of their values over
// a vector (its scratch), and goes over panels with a tile kernel that keeps rows x columns sums in registers for one
// block of terms and adds them to the tile's sums in the scratch. Padded terms are +0 * +0, which change nothing.

// PanelCols is the width of a panel, PanelTerms what its terms are padded to a multiple of.
const (
	PanelCols  = 8
	PanelTerms = blockTerms
)

// Scratch of a packed product.
const (
	ppM     = CtxScratch + 192 // rows
	ppK     = CtxScratch + 196 // terms
	ppN     = CtxScratch + 200 // columns
	ppBlk   = CtxScratch + 204 // blocks of terms
	ppNP    = CtxScratch + 208 // panels
	ppPer   = CtxScratch + 212 // panels of a unit
	ppParts = CtxScratch + 216 // units per tile of rows
	ppTiles = CtxScratch + 220 // tiles of rows (per image and group)
	ppAM    = CtxScratch + 224 // element strides of the left side
	ppAK    = CtxScratch + 228

	tileRows   = 6
	panelBytes = PanelCols * 4
	chunk      = 16     // blocks of terms that stay in the first-level cache while panels pass
	unitCost   = 200000 // of a unit at most, unless one panel is more
)

// tileHeights are the kernels' numbers of rows; other numbers are padded.
var tileHeights = []int{6, 4, 1}

// tile(pa, pb, pc, n) adds n blocks of terms to a tile of mr x PanelCols sums at pc. pa: [terms][mr] vectors, pb: a panel.
func (l *Lib) tile(mr int) uint32 {
	i32 := asm.I32
	return l.Fn("tile_"+string(rune('0'+mr)), []T{i32, i32, i32, i32}, nil, func(f *asm.Fn) {
		pa, pb, pc, n := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		acc := make([]V, 2*mr)
		for i := range acc {
			acc[i] = f.Local(asm.V128)
		}
		a, b0, b1 := f.Local(asm.V128), f.Local(asm.V128), f.Local(asm.V128)
		f.While(n.E, func() {
			// One check of the last byte lets the engine drop those of all lower offsets.
			f.Do(asm.M8U.At(pa.E, uint32(blockTerms*mr*16-1)))
			f.Do(asm.M8U.At(pb.E, blockTerms*panelBytes-1))
			f.Do(asm.M8U.At(pc.E, uint32(mr*panelBytes-1)))
			for u := 0; u < blockTerms; u++ {
				f.Set(b0, asm.MV.At(pb.E, uint32(u*panelBytes)))
				f.Set(b1, asm.MV.At(pb.E, uint32(u*panelBytes+16)))
				for r := 0; r < mr; r++ {
					f.Set(a, asm.MV.At(pa.E, uint32((u*mr+r)*16)))
					p0, p1 := vmul(a.E, b0.E), vmul(a.E, b1.E)
					if u > 0 {
						p0, p1 = vadd(acc[2*r].E, p0), vadd(acc[2*r+1].E, p1)
					}
					f.Set(acc[2*r], p0)
					f.Set(acc[2*r+1], p1)
				}
			}
			for i := range acc {
				f.Put(asm.MV, pc.E, uint32(16*i), vadd(acc[i].E, asm.MV.At(pc.E, uint32(16*i))))
			}
			f.Inc(pa, int64(blockTerms*mr*16))
			f.Inc(pb, blockTerms*panelBytes)
			f.Inc(n, -1)
		})
	})
}

// spreadRun(dst, step, src, by, n) writes n vectors, step bytes apart, each filled with one of the floats at src, by bytes apart.
func (l *Lib) spreadRun() uint32 {
	i32 := asm.I32
	return l.Fn("spread_run", []T{i32, i32, i32, i32, i32}, nil, func(f *asm.Fn) {
		dst, step, src, by, n := f.Param(0), f.Param(1), f.Param(2), f.Param(3), f.Param(4)
		f.While(n.E, func() {
			f.Put(asm.MV, dst.E, 0, asm.LoadSplat32(src.E, 0))
			f.Set(dst, dst.Add(step.E))
			f.Set(src, src.Add(by.E))
			f.Inc(n, -1)
		})
	})
}

// spreadSide(dst, src, by, n) is spreadRun for mr neighbours at once: n groups of mr vectors.
func (l *Lib) spreadSide(mr int) uint32 {
	i32 := asm.I32
	return l.Fn("spread_side_"+string(rune('0'+mr)), []T{i32, i32, i32, i32}, nil, func(f *asm.Fn) {
		dst, src, by, n := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		f.While(n.E, func() {
			f.Do(asm.M8U.At(dst.E, uint32(16*mr-1)))
			f.Do(asm.M8U.At(src.E, uint32(4*mr-1)))
			for r := 0; r < mr; r++ {
				f.Put(asm.MV, dst.E, uint32(16*r), asm.LoadSplat32(src.E, uint32(4*r)))
			}
			f.Inc(dst, int64(16*mr))
			f.Set(src, src.Add(by.E))
			f.Inc(n, -1)
		})
	})
}

// zeroRun(dst, step, n) writes n vectors of zeros, step bytes apart.
func (l *Lib) zeroRun() uint32 {
	i32 := asm.I32
	return l.Fn("zero_run", []T{i32, i32, i32}, nil, func(f *asm.Fn) {
		dst, step, n := f.Param(0), f.Param(1), f.Param(2)
		f.While(n.E, func() {
			f.Put(asm.MV, dst.E, 0, asm.VC(asm.F32, 0))
			f.Set(dst, dst.Add(step.E))
			f.Inc(n, -1)
		})
	})
}

// packedWork allocates the scratch in t, PackedScratch bytes, and states the work of rows x n sums of kk terms, done images times (all i64).
func (k *K) packedWork(t V, images, rows, kk, n V) {
	put := func(off uint32, e E) { k.Put(asm.M32, k.Ctx.E, off, e.Wrap()) }
	blocks := k.Let(kk.AddI(blockTerms - 1).ShrSI(4))
	panels := k.Let(n.AddI(PanelCols - 1).ShrSI(3))
	high := k.Let(asm.Select(rows.EqI(1), asm.CL(1), asm.CL(tileRows)))
	tiles := k.Let(rows.Add(high.E).SubI(1).DivS(high.E))
	// A panel of a full tile takes about 4 ns for each term, of a single row up to 3 (it waits for memory), and its sums have to be stored.
	each := k.Let(asm.Select(high.EqI(1), blocks.MulI(48).AddI(12), blocks.ShlI(6).AddI(64)))
	per := k.Let(asm.CL(unitCost).DivS(each.E))
	k.If(per.LtS(asm.CL(1)), func() { k.Set(per, asm.CL(1)) })
	k.If(per.GtS(panels.E), func() { k.Set(per, panels.E) })
	parts := k.Let(panels.Add(per.E).SubI(1).DivS(per.E))
	k.If(parts.GtS(asm.CL(1)), func() { k.Set(per, panels.Add(parts.E).SubI(1).DivS(parts.E)) }) // about equal ones
	put(ppM, rows.E)
	put(ppK, kk.E)
	put(ppN, n.E)
	put(ppBlk, blocks.E)
	put(ppNP, panels.E)
	put(ppPer, per.E)
	put(ppParts, parts.E)
	put(ppTiles, tiles.E)
	k.AllocBytes(t, high.Mul(blocks.MulI(blockTerms*16).Add(per.MulI(panelBytes))))
	k.Put(asm.M32, t.E, abi.DescKind, asm.C(0))
	k.SetRank(t, asm.C(0))
	// Four times that, as subnormal numbers take several times as long.
	k.Work(images.Mul(tiles.E).Mul(parts.E), per.Mul(each.E).Add(blocks.Mul(high.E).ShlI(5)).ShlI(2).AddI(200))
}

// packedTile is what the callbacks of packedRange see of a tile: its rows [row, row+rows), spread in a kernel of mr rows to
// terms at a, its sums at sums (panel after panel, mr x PanelCols each), panels [panel, panel+panels).
type packedTile struct {
	mr                                   int
	image, row, rows, a, sums, panel, np V
}

// packedRange does units [lo, hi) of a packed product: fill spreads the rows, weights is the address of an image's first
// panel, out takes the sums.
func (k *K) packedRange(lo, hi V, weights func(image V) E, fill, out func(t packedTile)) {
	s := func(off uint32) V { return k.Let(asm.L32(k.Ctx.E, off)) }
	m, blocks, np, per, parts, tiles := s(ppM), s(ppBlk), s(ppNP), s(ppPer), s(ppParts), s(ppTiles)
	base := k.Let(Data(k.Out(1)))
	L := func() V { return k.Local(asm.I32) }
	u, q, image, row, rows, panel, n, sums, k0, kn, p, w, pb := k.Let(lo.E), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L(), L()
	high := k.Let(asm.Select(m.EqI(1), asm.C(1), asm.C(tileRows)))
	k.While(u.LtU(hi.E), func() {
		k.Set(q, u.DivU(parts.E))
		k.Set(panel, u.Sub(q.Mul(parts.E)).Mul(per.E))
		k.Set(n, np.Sub(panel.E))
		k.If(n.GtU(per.E), func() { k.Set(n, per.E) })
		k.Set(image, q.DivU(tiles.E))
		k.Set(row, q.Sub(image.Mul(tiles.E)).Mul(high.E))
		k.Set(rows, m.Sub(row.E))
		k.If(rows.GtU(high.E), func() { k.Set(rows, high.E) })
		k.Set(w, weights(image).Add(panel.Mul(blocks.E).MulI(blockTerms*panelBytes)))
		var variant func(i int)
		variant = func(i int) {
			mr := tileHeights[i]
			do := func() {
				k.Set(sums, base.Add(blocks.MulI(int64(blockTerms*16*mr))))
				t := packedTile{mr, image, row, rows, base, sums, panel, n}
				// Units are done in order, so the rows are still there for the other panels of a tile.
				k.If(panel.Eqz(), func() { fill(t) })
				k.MemFill(sums.E, asm.C(0), n.MulI(int64(panelBytes*mr)))
				k.Set(k0, asm.C(0))
				k.While(k0.LtU(blocks.E), func() {
					k.Set(kn, blocks.Sub(k0.E))
					k.If(kn.GtU(asm.C(chunk)), func() { k.Set(kn, asm.C(chunk)) })
					k.Set(pb, w.Add(k0.MulI(blockTerms*panelBytes)))
					k.Up(p, n.E, func() {
						k.CallStmt(k.L.tile(mr), base.Add(k0.MulI(int64(blockTerms*16*mr))), pb.E, sums.Add(p.MulI(int64(panelBytes*mr))), kn.E)
						k.Set(pb, pb.Add(blocks.MulI(blockTerms*panelBytes)))
					})
					k.Set(k0, k0.Add(kn.E))
				})
				out(t)
			}
			if i+1 == len(tileHeights) {
				do()
				return
			}
			k.If(rows.GtU(asm.C(int64(tileHeights[i+1]))), do, func() { variant(i + 1) })
		}
		variant(0)
		k.Inc(u, 1)
	})
}

// zeroRest clears the rows of a tile that are not there and the padded terms of the others.
func (k *K) zeroRest(t packedTile, terms V) {
	r := k.Local(asm.I32)
	step := asm.C(int64(16 * t.mr))
	blocks := k.Let(asm.L32(k.Ctx.E, ppBlk).ShlI(4))
	k.If(blocks.Ne(terms.E), func() {
		from := t.a.Add(terms.MulI(int64(16 * t.mr)))
		k.MemFill(from, asm.C(0), blocks.Sub(terms.E).MulI(int64(16*t.mr)))
	})
	k.For(r, t.rows.E, asm.C(int64(t.mr)), 1, func() {
		k.CallStmt(k.L.zeroRun(), t.a.Add(r.ShlI(4)), step, blocks.E)
	})
}

// fillRows spreads rows of a strided matrix.
func (k *K) fillRows(t packedTile) {
	kk, am, ak := k.Let(asm.L32(k.Ctx.E, ppK)), k.Let(asm.L32(k.Ctx.E, ppAM)), k.Let(asm.L32(k.Ctx.E, ppAK))
	r, src := k.Local(asm.I32), k.Local(asm.I32)
	k.Set(src, Data(k.In(0)).Add(t.row.Mul(am.E).ShlI(2)))
	k.Up(r, t.rows.E, func() {
		k.CallStmt(k.L.spreadRun(), t.a.Add(r.ShlI(4)), asm.C(int64(16*t.mr)), src.E, ak.ShlI(2), kk.E)
		k.Set(src, src.Add(am.ShlI(2)))
	})
	k.zeroRest(t, kk)
}

// storeRows copies the sums of a tile to a row-major output; after, when not nil, finishes a row's columns.
func (k *K) storeRows(t packedTile, after func(pc, row, col, n V)) {
	n := k.Let(asm.L32(k.Ctx.E, ppN))
	col := k.Let(t.panel.ShlI(3))
	w := k.Let(n.Sub(col.E))
	k.If(w.GtU(t.np.ShlI(3)), func() { k.Set(w, t.np.ShlI(3)) })
	L := func() V { return k.Local(asm.I32) }
	r, pc, src, c, row, j := L(), L(), L(), L(), L(), L()
	dy := k.Let(Data(k.Out(0)))
	k.Up(r, t.rows.E, func() {
		k.Set(row, t.row.Add(r.E))
		k.Set(pc, dy.Add(row.Mul(n.E).Add(col.E).ShlI(2)))
		k.Set(src, t.sums.Add(r.MulI(panelBytes)))
		k.Set(c, pc.E)
		k.Set(j, w.E)
		k.While(j.GeU(asm.C(PanelCols)), func() {
			k.Put(asm.MV, c.E, 0, asm.MV.At(src.E, 0))
			k.Put(asm.MV, c.E, 16, asm.MV.At(src.E, 16))
			k.Inc(c, panelBytes)
			k.Inc(src, int64(panelBytes*t.mr))
			k.Inc(j, -PanelCols)
		})
		k.While(j.E, func() {
			k.Put(asm.MF32, c.E, 0, asm.MF32.At(src.E, 0))
			k.Inc(c, 4)
			k.Inc(src, 4)
			k.Inc(j, -1)
		})
		if after != nil {
			after(pc, row, col, w)
		}
	})
}

// MatMulPacked is MatMul of f32 with a constant [K,N] matrix: inputs A and the panels, output 1 is scratch, attributes K and N.
func MatMulPacked() *Kernel {
	return &Kernel{Name: "MatMulPacked", NOut: 2,
		Prep: func(k *K) {
			a, y, t := k.In(0), k.Out(0), k.Out(1)
			ra := k.Let(Rank(a))
			k.Check(ra.NeI(0), abi.ErrRank, ra.ExtU(), asm.CL(0))
			kk, n := k.Let(k.Attr(0)), k.Let(k.Attr(1))
			ka := k.Let(Dim(a, ra.SubI(1)))
			k.Check(ka.Eq(kk.E), abi.ErrShape, ka.E, kk.E)
			k.CopyDims(y, a)
			k.SetDim(y, ra.SubI(1), n.E)
			k.Alloc(y, dtOf(abi.F32))
			k.Put(asm.M32, k.Ctx.E, ppAM, kk.Wrap())
			k.Put(asm.M32, k.Ctx.E, ppAK, asm.C(1))
			k.packedWork(t, k.Let(asm.CL(1)), k.Let(k.Numel(a).DivS(kk.E)), kk, n)
		},
		Range: func(k *K, lo, hi V) {
			w := k.Let(Data(k.In(1)))
			k.packedRange(lo, hi, func(V) E { return w.E }, k.fillRows, func(t packedTile) { k.storeRows(t, nil) })
		},
	}
}
