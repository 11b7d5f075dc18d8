package kernel

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Recurrent layers. One unit is one time step of one direction and batch row; units run in order, never in parallel. A step with many columns is
// cut into pieces: blocks of columns of the products over all gates, for GRU the gates and blocks of columns of the candidate's
// product, and the rest.

const rnPieces = CtxScratch // u32 units of a step

// Cell is a kind of recurrent layer.
type Cell int

// Cells.
const (
	RNN Cell = iota
	GRU
	LSTM
)

var cellGates = [...]int64{1, 3, 4}

// Act is an activation of a cell.
type Act struct {
	Name string // lower case
}

// RNNVariant chooses a recurrent kernel.
type RNNVariant struct {
	Cell       Cell
	Dirs       int
	Reverse    bool  // of the only direction
	Acts       []Act // per direction: 1, 2 or 3
	Turned     bool  // W and R are [dirs, in or hidden, gates*hidden]
	HasB       bool
	HasLens    bool
	HasH, HasC bool
	HasP       bool
	Clip       bool
	Flag       bool // LSTM input_forget, GRU linear_before_reset
}

func (v RNNVariant) name(d DT) string {
	var acts []string
	for _, a := range v.Acts {
		acts = append(acts, a.Name)
	}
	return fmt.Sprintf("rnn%d.%d.%t.%s.%t%t%t%t%t%t%t%t.%s", v.Cell, v.Dirs, v.Reverse, strings.Join(acts, ","),
		v.Turned, v.HasB, v.HasLens, v.HasH, v.HasC, v.HasP, v.Clip, v.Flag, d.Name)
}

// Attribute slots of a recurrent kernel: clip, hidden size, then alpha and beta of each activation.
const (
	rnnClip = iota
	rnnHidden
	rnnAlpha
)

// Outputs: Y, Y_h, Y_c (LSTM), work area. Inputs as in ir: X W R B lens h0 c0 P.
const (
	rnnY = iota
	rnnYH
	rnnYC
	rnnWork
)

// activation computes f(x) for a variable x; al and be are its parameters.
func (k *K) activation(d DT, name string, x, al, be V) E {
	z, one := asm.CFloat(d.C, 0), asm.CFloat(d.C, 1)
	call := func(v, s func(l *Lib) uint32, x E) E {
		if d.C == asm.F32 {
			return asm.Call(asm.V128, v(k.L), asm.Splat(x)).Lane(asm.F32, 0)
		}
		return asm.Call(asm.F64, s(k.L), x)
	}
	switch name {
	case "sigmoid":
		return call((*Lib).vsigmoid32, (*Lib).sigmoid64, x.E)
	case "tanh":
		return call((*Lib).vtanh32, (*Lib).tanh64, x.E)
	case "relu":
		return asm.Select(x.Lt(z), z, x.E)
	case "leakyrelu":
		return asm.Select(x.Lt(z), al.Mul(x.E), x.E)
	case "thresholdedrelu":
		return asm.Select(x.Gt(al.E), x.E, z)
	case "affine":
		return al.Mul(x.E).Add(be.E)
	case "scaledtanh":
		return al.Mul(call((*Lib).vtanh32, (*Lib).tanh64, be.Mul(x.E)))
	case "hardsigmoid":
		y := k.Let(al.Mul(x.E).Add(be.E))
		k.Set(y, asm.Select(y.Lt(z), z, y.E))
		return asm.Select(one.Lt(y.E), one, y.E)
	case "elu":
		return asm.Select(x.Lt(z), al.Mul(k.exp(d, x.E).Sub(one)), x.E)
	case "softsign":
		return x.Div(one.Add(x.Abs()))
	case "softplus":
		e := k.Let(one.Add(k.exp(d, x.Abs().Neg())))
		return asm.Select(x.Lt(z), z, x.E).Add(call((*Lib).vlog32, (*Lib).log64, e.E))
	}
	panic("kernel: activation " + name)
}

// Activations lists the names that activation knows.
func Activations() []string {
	return []string{"sigmoid", "tanh", "relu", "leakyrelu", "thresholdedrelu", "affine", "scaledtanh", "hardsigmoid", "elu", "softsign", "softplus"}
}

// applyAct(p, n, alpha, beta) applies an activation to n elements in place.
func (l *Lib) applyAct(name string, d DT) uint32 {
	return l.Fn("act."+name+"."+d.Name, []T{asm.I32, asm.I32, d.C, d.C}, nil, func(f *asm.Fn) {
		p, n, al, be := f.Param(0), f.Param(1), f.Param(2), f.Param(3)
		k := &K{Fn: f, L: l}
		if d.ABI == abi.F32 && (name == "sigmoid" || name == "tanh") {
			fn := l.vsigmoid32()
			if name == "tanh" {
				fn = l.vtanh32()
			}
			f.While(n.GeS(asm.C(4)), func() {
				f.Put(asm.MV, p.E, 0, asm.Call(asm.V128, fn, asm.MV.At(p.E, 0)))
				f.Inc(p, 16)
				f.Inc(n, -4)
			})
		}
		x := f.Local(d.C)
		f.While(n.E, func() {
			f.Set(x, l.load(d, p.E, 0))
			l.store(f, d, p.E, 0, k.activation(d, name, x, al, be))
			f.Inc(p, 1<<d.Shift)
			f.Inc(n, -1)
		})
	})
}

// Recurrent is the kernel of a layer.
func Recurrent(v RNNVariant, d DT) *Kernel {
	gates := cellGates[v.Cell]
	return &Kernel{Name: v.name(d), NOut: 4,
		Prep: func(k *K) {
			x, w, r := k.In(0), k.In(1), k.In(2)
			k.Check(Rank(x).EqI(3).And(Rank(w).EqI(3)).And(Rank(r).EqI(3)), abi.ErrRank, Rank(x).ExtU(), Rank(w).ExtU())
			seq, batch, in := k.Let(DimC(x, 0)), k.Let(DimC(x, 1)), k.Let(DimC(x, 2))
			h := k.Let(k.Attr(rnnHidden))
			gi, ki := 1, 2
			if v.Turned {
				gi, ki = 2, 1
			}
			k.Check(DimC(w, gi).Eq(h.MulI(gates)), abi.ErrShape, DimC(w, gi), h.E)
			k.Check(DimC(w, ki).Eq(in.E), abi.ErrShape, DimC(w, ki), in.E)
			k.Check(DimC(r, gi).Eq(h.MulI(gates)), abi.ErrShape, DimC(r, gi), h.E)
			k.Check(DimC(r, ki).Eq(h.E), abi.ErrShape, DimC(r, ki), h.E)
			for _, x := range []V{w, r} {
				k.Check(DimC(x, 0).EqI(int64(v.Dirs)), abi.ErrShape, DimC(x, 0), asm.CL(int64(v.Dirs)))
			}
			dims := func(i int, want ...E) {
				t := k.In(i)
				k.Check(Rank(t).EqI(int64(len(want))), abi.ErrRank, Rank(t).ExtU(), asm.CL(int64(len(want))))
				for j, n := range want {
					k.Check(DimC(t, j).Eq(n), abi.ErrShape, DimC(t, j), n)
				}
			}
			dirs := asm.CL(int64(v.Dirs))
			if v.HasB {
				dims(3, dirs, h.MulI(2*gates))
			}
			if v.HasLens {
				dims(4, batch.E)
			}
			if v.HasH {
				dims(5, dirs, batch.E, h.E)
			}
			if v.HasC {
				dims(6, dirs, batch.E, h.E)
			}
			if v.HasP {
				dims(7, dirs, h.MulI(3))
			}
			y := k.Out(rnnY)
			k.SetRank(y, asm.C(4))
			k.SetDimC(y, 0, seq.E)
			k.SetDimC(y, 1, asm.CL(int64(v.Dirs)))
			k.SetDimC(y, 2, batch.E)
			k.SetDimC(y, 3, h.E)
			k.Alloc(y, d)
			init := func(o, in int, has bool) {
				y := k.Out(o)
				k.SetRank(y, asm.C(3))
				k.SetDimC(y, 0, asm.CL(int64(v.Dirs)))
				k.SetDimC(y, 1, batch.E)
				k.SetDimC(y, 2, h.E)
				k.Alloc(y, d)
				if has {
					k.MemCopy(Data(y), Data(k.In(in)), Bytes(y))
				} else {
					k.MemFill(Data(y), asm.C(0), Bytes(y))
				}
			}
			init(rnnYH, 5, v.HasH)
			if v.Cell == LSTM {
				init(rnnYC, 6, v.HasC)
			}
			wk := k.Out(rnnWork)
			k.SetRank(wk, asm.C(1))
			k.SetDimC(wk, 0, h.MulI(gates+3))
			k.Alloc(wk, d)
			// Side by side one term a nanosecond, as the weights come from memory, else one in about two.
			per := k.Let(in.Add(h.E))
			if v.Turned && !d.Half() {
				k.Set(per, per.AddI(8))
			} else {
				k.Set(per, per.MulI(2*lineCost(d, 1)).AddI(8))
			}
			blocks, cost := k.cut(h.MulI(gates), per.E)
			pieces, last := k.Let(blocks.E), h.MulI(gates*20)
			k.If(pieces.EqI(1), func() { k.Set(cost, cost.Add(last)) }, func() {
				k.Inc(pieces, 1)
				if v.Cell == GRU {
					ln := asm.L32(k.Ctx.E, pcLen).ExtU()
					k.Set(pieces, pieces.AddI(1).Add(h.Add(ln).SubI(1).DivS(ln)))
				}
				k.If(cost.LtS(last), func() { k.Set(cost, last) })
			})
			k.note(rnPieces, pieces.Wrap())
			k.Work(seq.MulI(int64(v.Dirs)).Mul(batch.E).Mul(pieces.E), cost.AddI(100))
		},
		Range: func(k *K, lo, hi V) {
			L := func() V { return k.Local(asm.I32) }
			sh := d.Shift
			x, w, r := k.In(0), k.In(1), k.In(2)
			seq, batch, in := k.Let(DimC(x, 0).Wrap()), k.Let(DimC(x, 1).Wrap()), k.Let(DimC(x, 2).Wrap())
			h := k.Let(k.Attr32(rnnHidden))
			hb := k.Let(h.ShlI(sh)) // bytes of a state row
			g := k.Let(h.MulI(gates))
			buf := k.Let(Data(k.Out(rnnWork)))
			spare := k.Let(buf.Add(g.ShlI(sh))) // 3 rows behind the gates
			w0, u, dir, t, step, b := k.Let(lo.E), L(), L(), L(), L(), L()
			pieces, blocks, ln, piece := k.noted(rnPieces), k.noted(pcCount), k.noted(pcLen), L()
			// What the unit does: columns [c0, c1) of the products, the gates, columns [d0, d1) of the candidate, the rest.
			products, gating, candidate, rest, c0, c1, d0, d1 := L(), L(), L(), L(), L(), L(), L(), L()
			least := func(a, b E) E { return asm.Select(a.LtU(b), a, b) }
			px, pw, pr, ph, pc, py, i, p, q := L(), L(), L(), L(), L(), L(), L(), L(), L()
			e := k.Local(d.C)
			var sk, sn V // weight strides in bytes over k and over gate rows, for W and R
			rk := L()
			sk, sn = L(), L()
			rn := L()
			if v.Turned {
				k.Set(sk, g.ShlI(sh))
				k.Set(sn, asm.C(1<<sh))
				k.Set(rk, sk.E)
				k.Set(rn, sn.E)
			} else {
				k.Set(sk, asm.C(1<<sh))
				k.Set(sn, in.ShlI(sh))
				k.Set(rk, sk.E)
				k.Set(rn, hb.E)
			}
			row := func(pa, pb, sbk, sbn, out, n, kk E, cont int64) {
				k.CallStmt(k.L.rowProduct(d), pa, asm.C(1<<sh), pb, sbk, sbn, out, n, kk, asm.C(cont))
			}
			each := func(n E, body func(off E)) {
				k.Set(i, asm.C(0))
				k.While(i.LtU(n), func() {
					body(i.ShlI(sh))
					k.Inc(i, 1)
				})
			}
			ld := func(at E) E { return k.Load(d, at, 0) }
			stv := func(at, v E) { k.Store(d, at, 0, v) }
			act := func(j int, at, n E) {
				// Activation j of this direction.
				per := len(v.Acts) / v.Dirs
				one := func(idx int) {
					k.CallStmt(k.L.applyAct(v.Acts[idx].Name, d), at, n, k.AttrT(d.C, rnnAlpha+2*idx), k.AttrT(d.C, rnnAlpha+2*idx+1))
				}
				if v.Dirs == 1 || v.Acts[j] == v.Acts[per+j] && !parametric(v.Acts[j].Name) {
					one(j)
					return
				}
				k.If(dir.Eqz(), func() { one(j) }, func() { one(per + j) })
			}
			clip := func(at, n E) {
				if !v.Clip {
					return
				}
				c, m := k.Let(k.AttrT(d.C, rnnClip)), k.Local(d.C)
				k.Set(m, c.Neg())
				each(n, func(off E) {
					k.Set(e, ld(at.Add(off)))
					k.Set(e, asm.PMax(e.E, m.E))
					stv(at.Add(off), asm.PMin(e.E, c.E))
				})
			}
			// bias adds Wb+Rb of gate rows [from, from+n) to at.
			bias := func(at E, from int64, n E) {
				if !v.HasB {
					return
				}
				k.Set(p, Data(k.In(3)).Add(dir.Mul(g.E).MulI(2).Add(h.MulI(from)).ShlI(sh)))
				k.Set(q, p.Add(g.ShlI(sh)))
				each(n, func(off E) { stv(at.Add(off), ld(at.Add(off)).Add(ld(p.Add(off)).Add(ld(q.Add(off))))) })
			}
			peep := func(at E, which int64, state E) {
				if !v.HasP {
					return
				}
				k.Set(p, Data(k.In(7)).Add(dir.MulI(3).AddI(which).Mul(hb.E)))
				each(h.E, func(off E) { stv(at.Add(off), ld(at.Add(off)).Add(ld(p.Add(off)).Mul(ld(state.Add(off))))) })
			}
			k.While(w0.LtU(hi.E), func() {
				k.Set(u, w0.DivU(pieces.E))
				k.Set(piece, w0.Sub(u.Mul(pieces.E)))
				k.Set(t, u.DivU(batch.E))
				k.Set(b, u.Sub(t.Mul(batch.E)))
				k.Set(dir, t.DivU(seq.E))
				k.Set(step, t.Sub(dir.Mul(seq.E)))
				k.If(pieces.EqI(1), func() {
					for _, x := range []V{products, gating, candidate, rest} {
						k.Set(x, asm.C(1))
					}
					k.Set(c0, asm.C(0))
					k.Set(c1, g.E)
					k.Set(d0, asm.C(0))
					k.Set(d1, h.E)
				}, func() {
					k.Set(products, piece.LtU(blocks.E))
					k.Set(gating, piece.Eq(blocks.E))
					k.Set(rest, piece.AddI(1).Eq(pieces.E))
					k.Set(candidate, piece.GtU(blocks.E).And(rest.Eqz()))
					k.Set(c0, piece.Mul(ln.E))
					k.Set(c1, least(c0.Add(ln.E), g.E))
					k.Set(d0, piece.Sub(blocks.E).SubI(1).Mul(ln.E))
					k.Set(d1, least(d0.Add(ln.E), h.E))
				})
				k.Set(pw, Data(w).Add(dir.Mul(g.E).Mul(in.E).ShlI(sh)))
				k.Set(pr, Data(r).Add(dir.Mul(g.E).Mul(h.E).ShlI(sh)))
				{
					k.Set(t, step.E)
					backward := func() {
						// Reversed sequences start at their own end.
						if v.HasLens {
							n := k.Let(asm.L32(Data(k.In(4)).Add(b.ShlI(2)), 0))
							k.If(step.LtS(n.E), func() { k.Set(t, n.SubI(1).Sub(step.E)) })
						} else {
							k.Set(t, seq.SubI(1).Sub(step.E))
						}
					}
					if v.Dirs == 2 {
						k.If(dir.E, backward)
					} else if v.Reverse {
						backward()
					}
					k.Set(py, Data(k.Out(rnnY)).Add(t.MulI(int64(v.Dirs)).Add(dir.E).Mul(batch.E).Add(b.E).Mul(hb.E)))
					k.Set(ph, Data(k.Out(rnnYH)).Add(dir.Mul(batch.E).Add(b.E).Mul(hb.E)))
					// part multiplies a row with columns [from, to) of a matrix.
					part := func(pa, pb, sbk, sbn, out, from, to, kk E, cont int64) {
						row(pa, pb.Add(from.Mul(sbn)), sbk, sbn, out.Add(from.ShlI(sh)), to.Sub(from), kk, cont)
					}
					whole := func(skip asm.Label) {
						k.Set(px, Data(x).Add(t.Mul(batch.E).Add(b.E).Mul(in.E).ShlI(sh)))
						switch v.Cell {
						case LSTM:
							k.Set(pc, Data(k.Out(rnnYC)).Add(dir.Mul(batch.E).Add(b.E).Mul(hb.E)))
							k.If(products.E, func() {
								part(px.E, pw.E, sk.E, sn.E, buf.E, c0.E, c1.E, in.E, 0)
								part(ph.E, pr.E, rk.E, rn.E, buf.E, c0.E, c1.E, h.E, 1)
							})
							k.BrIf(skip, rest.Eqz())
							bias(buf.E, 0, g.E)
							gi, gof, gf, gc := buf.E, buf.Add(hb.E), buf.Add(hb.MulI(2)), buf.Add(hb.MulI(3))
							peep(gi, 0, pc.E)
							peep(gf, 2, pc.E)
							clip(gi, h.E)
							clip(gf, h.E)
							clip(gc, h.E)
							act(0, gi, h.E)
							if v.Flag {
								each(h.E, func(off E) { stv(gf.Add(off), asm.CFloat(d.C, 1).Sub(ld(gi.Add(off)))) })
							} else {
								act(0, gf, h.E)
							}
							act(1, gc, h.E)
							each(h.E, func(off E) {
								stv(pc.Add(off), ld(gf.Add(off)).Mul(ld(pc.Add(off))).Add(ld(gi.Add(off)).Mul(ld(gc.Add(off)))))
							})
							peep(gof, 1, pc.E)
							clip(gof, h.E)
							act(0, gof, h.E)
							k.MemCopy(spare.E, pc.E, hb.E)
							act(2, spare.E, h.E)
							each(h.E, func(off E) { stv(ph.Add(off), ld(gof.Add(off)).Mul(ld(spare.Add(off)))) })
						case GRU:
							gz, gr, gh := buf.E, buf.Add(hb.E), buf.Add(hb.MulI(2))
							k.If(products.E, func() {
								part(px.E, pw.E, sk.E, sn.E, buf.E, c0.E, c1.E, in.E, 0)
								k.If(c0.LtU(h.MulI(2)), func() {
									part(ph.E, pr.E, rk.E, rn.E, buf.E, c0.E, least(c1.E, h.MulI(2)), h.E, 1)
								})
							})
							k.If(gating.E, func() {
								bias(buf.E, 0, h.MulI(2))
								clip(buf.E, h.MulI(2))
								act(0, gz, h.E)
								act(0, gr, h.E)
								if !v.Flag {
									each(h.E, func(off E) { stv(spare.Add(off), ld(gr.Add(off)).Mul(ld(ph.Add(off)))) })
								}
							})
							rh := pr.Add(h.MulI(2).Mul(rn.E)) // recurrence weights of the candidate
							if v.Flag {
								k.If(candidate.E, func() { part(ph.E, rh, rk.E, rn.E, spare.E, d0.E, d1.E, h.E, 0) })
								k.BrIf(skip, rest.Eqz())
								if v.HasB {
									k.Set(p, Data(k.In(3)).Add(dir.Mul(g.E).MulI(2).Add(h.MulI(2)).ShlI(sh)))
									k.Set(q, p.Add(g.ShlI(sh)))
									each(h.E, func(off E) {
										stv(gh.Add(off), ld(gh.Add(off)).Add(ld(p.Add(off))))
										stv(spare.Add(off), ld(spare.Add(off)).Add(ld(q.Add(off))))
									})
								}
								each(h.E, func(off E) {
									stv(gh.Add(off), ld(gh.Add(off)).Add(ld(gr.Add(off)).Mul(ld(spare.Add(off)))))
								})
							} else {
								k.If(candidate.E, func() { part(spare.E, rh, rk.E, rn.E, gh, d0.E, d1.E, h.E, 1) })
								k.BrIf(skip, rest.Eqz())
								bias(gh, 2, h.E)
							}
							clip(gh, h.E)
							act(1, gh, h.E)
							each(h.E, func(off E) {
								stv(ph.Add(off), asm.CFloat(d.C, 1).Sub(ld(gz.Add(off))).Mul(ld(gh.Add(off))).Add(ld(gz.Add(off)).Mul(ld(ph.Add(off)))))
							})
						case RNN:
							k.If(products.E, func() {
								part(px.E, pw.E, sk.E, sn.E, buf.E, c0.E, c1.E, in.E, 0)
								part(ph.E, pr.E, rk.E, rn.E, buf.E, c0.E, c1.E, h.E, 1)
							})
							k.BrIf(skip, rest.Eqz())
							bias(buf.E, 0, g.E)
							clip(buf.E, h.E)
							act(0, buf.E, h.E)
							k.MemCopy(ph.E, buf.E, hb.E)
						}
						k.MemCopy(py.E, ph.E, hb.E)
					}
					body := func() { k.Block(whole) }
					if v.HasLens {
						k.If(step.LtS(asm.L32(Data(k.In(4)).Add(b.ShlI(2)), 0)), body, func() { k.MemFill(py.E, asm.C(0), hb.E) })
					} else {
						body()
					}
				}
				k.Inc(w0, 1)
			})
		},
	}
}

func parametric(name string) bool {
	return name != "sigmoid" && name != "tanh" && name != "relu" && name != "softsign" && name != "softplus"
}

// rowProduct(pa, sak, pb, sbk, sbn, pc, n, kk, cont) writes n elements of one output row: pc[j] = SEQ over k of a[k]*b[k][j], starting
// at +0, or at pc[j] when cont is 1. Strides are in bytes.
func (l *Lib) rowProduct(d DT) uint32 {
	i32 := asm.I32
	return l.Fn("row_product."+d.Name, []T{i32, i32, i32, i32, i32, i32, i32, i32, i32}, nil, func(f *asm.Fn) {
		pa, sak, pb, sbk, sbn, pc, n, kk := f.Param(0), f.Param(1), f.Param(2), f.Param(3), f.Param(4), f.Param(5), f.Param(6), f.Param(7)
		cont := f.Param(8)
		a, b, k := f.Local(i32), f.Local(i32), f.Local(i32)
		es := int64(1) << d.Shift
		if d.ABI == abi.F32 || d.ABI == abi.F64 {
			lanes := 16 / es
			f.If(sbn.EqI(es), func() {
				for _, w := range []int{4, 1} {
					var acc []V
					for i := 0; i < w; i++ {
						acc = append(acc, f.Local(asm.V128))
					}
					s := f.Local(asm.V128)
					f.While(n.GeS(asm.C(int64(w)*lanes)), func() {
						for i := range acc {
							f.Set(acc[i], asm.Cond(cont.E, asm.MV.At(pc.E, uint32(16*i)), asm.VC(d.C, 0)))
						}
						f.Set(a, pa.E)
						f.Set(b, pb.E)
						f.Set(k, kk.E)
						f.While(k.E, func() {
							f.Set(s, asm.Splat(d.Mem.At(a.E, 0)))
							for i := range acc {
								f.Set(acc[i], asm.VAdd(d.C, acc[i].E, asm.VMul(d.C, s.E, asm.MV.At(b.E, uint32(16*i)))))
							}
							f.Set(a, a.Add(sak.E))
							f.Set(b, b.Add(sbk.E))
							f.Inc(k, -1)
						})
						for i := range acc {
							f.Put(asm.MV, pc.E, uint32(16*i), acc[i].E)
						}
						f.Inc(pc, int64(w)*16)
						f.Inc(pb, int64(w)*16)
						f.Inc(n, -int64(w)*lanes)
					})
				}
			})
		}
		x := f.Local(d.C)
		f.While(n.GtS(asm.C(0)), func() {
			f.Set(x, asm.Cond(cont.E, l.load(d, pc.E, 0), asm.Const(d.C, 0)))
			f.Set(a, pa.E)
			f.Set(b, pb.E)
			f.Set(k, kk.E)
			f.While(k.E, func() {
				f.Set(x, x.Add(l.load(d, a.E, 0).Mul(l.load(d, b.E, 0))))
				f.Set(a, a.Add(sak.E))
				f.Set(b, b.Add(sbk.E))
				f.Inc(k, -1)
			})
			l.store(f, d, pc.E, 0, x.E)
			f.Inc(pc, es)
			f.Set(pb, pb.Add(sbn.E))
			f.Inc(n, -1)
		})
	})
}
