package kernel

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Types that are stored, moved and converted but not computed with. Inside a module each element takes a byte of its own: integers
// sign- or zero-extended, small floats as their bit pattern. At the boundary they are packed as the ABI says.
var stored = []DT{
	{abi.U4, "u4", 0, asm.M8U, asm.I32, false, false, 4},
	{abi.I4, "i4", 0, asm.M8S, asm.I32, true, false, 4},
	{abi.U2, "u2", 0, asm.M8U, asm.I32, false, false, 2},
	{abi.I2, "i2", 0, asm.M8S, asm.I32, true, false, 2},
	{abi.F8E4M3FN, "f8e4m3fn", 0, asm.M8U, asm.I32, false, false, 8},
	{abi.F8E4M3FNUZ, "f8e4m3fnuz", 0, asm.M8U, asm.I32, false, false, 8},
	{abi.F8E5M2, "f8e5m2", 0, asm.M8U, asm.I32, false, false, 8},
	{abi.F8E5M2FNUZ, "f8e5m2fnuz", 0, asm.M8U, asm.I32, false, false, 8},
	{abi.F8E8M0, "f8e8m0", 0, asm.M8U, asm.I32, false, false, 8},
	{abi.F4E2M1, "f4e2m1", 0, asm.M8U, asm.I32, false, false, 4},
}

// StorageOf finds the view of any element type, for kernels that move or convert elements.
func StorageOf(d abi.DType) (DT, error) {
	for _, t := range stored {
		if t.ABI == d {
			return t, nil
		}
	}
	return DTypeOf(d)
}

// SmallFloat tells that elements are bit patterns of a float of 8 bits or fewer.
func (d DT) SmallFloat() bool {
	switch d.ABI {
	case abi.F8E4M3FN, abi.F8E4M3FNUZ, abi.F8E5M2, abi.F8E5M2FNUZ, abi.F8E8M0, abi.F4E2M1:
		return true
	}
	return false
}

// PerByte is how many elements the ABI packs in a byte.
func (d DT) PerByte() int64 { return max(8/int64(d.Bits), 1) }

// narrow keeps the low bits of an integer of fewer than 8 bits, extended to 32.
func (d DT) narrow(v E) E {
	if d.Signed {
		return v.ShlI(int64(32 - d.Bits)).ShrSI(int64(32 - d.Bits))
	}
	return v.AndI(1<<d.Bits - 1)
}

// Unpack spreads packed elements of input 0 to a byte each.
func Unpack(d DT) *Kernel {
	return &Kernel{
		Name: "Unpack." + d.Name, NOut: 1, Parallel: true, PrepName: "same." + d.Name + ".2", Prep: PrepSame(d, 2),
		Range: func(k *K, lo, hi V) {
			px, po := k.Let(Data(k.In(0))), k.Let(Data(k.Out(0)))
			i, v := k.Let(lo.E), k.Local(asm.I32)
			per := d.PerByte()
			log := map[int64]int64{1: 0, 2: 1, 4: 2}[per]
			k.While(i.LtU(hi.E), func() {
				k.Set(v, asm.M8U.At(px.Add(i.ShrUI(log)), 0).ShrU(i.AndI(per-1).MulI(int64(d.Bits))))
				k.Put(asm.M8U, po.Add(i.E), 0, d.narrow(v.E))
				k.Inc(i, 1)
			})
		},
	}
}

// Pack is the opposite of Unpack, into memory that the host may read; spare bits are 0.
func Pack(d DT) *Kernel {
	per := d.PerByte()
	return &Kernel{
		Name: "Pack." + d.Name, NOut: 1, Parallel: true, PrepName: "Pack." + d.Name,
		Prep: func(k *K) {
			x, t := k.In(0), k.Out(0)
			n := k.Let(k.Numel(x).AddI(per - 1).DivS(asm.CL(per)))
			k.AllocBytes(t, n.E)
			k.Put(asm.M32, t.E, abi.DescKind, asm.C(0))
			k.Put(asm.M32, t.E, abi.DescDType, asm.C(int64(d.ABI)))
			k.Put(asm.M32, t.E, abi.DescAux, asm.C(0))
			k.CopyDims(t, x)
			k.Work(n.E, asm.CL(2*per))
		},
		Range: func(k *K, lo, hi V) {
			k.pack(d, k.In(0), k.Out(0), lo.E, hi.E)
		},
	}
}

// pack makes bytes lo to hi-1 of y from the elements of x.
func (k *K) pack(d DT, x, y V, lo, hi E) {
	per := d.PerByte()
	px, po := k.Let(Data(x)), k.Let(Data(y))
	n := k.Let(k.Numel(x).Wrap())
	i, j, v := k.Let(lo), k.Local(asm.I32), k.Local(asm.I32)
	k.While(i.LtU(hi), func() {
		k.Set(v, asm.C(0))
		for e := range per {
			k.Set(j, i.MulI(per).AddI(e))
			k.If(j.LtU(n.E), func() {
				k.Set(v, v.Or(asm.M8U.At(px.Add(j.E), 0).AndI(1<<d.Bits-1).ShlI(e*int64(d.Bits))))
			})
		}
		k.Put(asm.M8U, po.Add(i.E), 0, v.E)
		k.Inc(i, 1)
	})
}

// small is the layout of a float with a sign bit: docs/numerics.md, 3.2.
type small struct {
	mant, bias     int64
	max, nan, over int64
	sign           int64
	uz             bool
}

func (d DT) small() small {
	switch d.ABI {
	case abi.F8E4M3FN:
		return small{3, 7, 0x7e, 0x7f, 0x7f, 0x80, false}
	case abi.F8E4M3FNUZ:
		return small{3, 8, 0x7f, 0x80, 0x80, 0x80, true}
	case abi.F8E5M2:
		return small{2, 15, 0x7b, 0x7e, 0x7c, 0x80, false}
	case abi.F8E5M2FNUZ:
		return small{2, 16, 0x7f, 0x80, 0x80, 0x80, true}
	}
	return small{1, 1, 7, 8, 7, 8, false}
}

// decodeSmall widens a bit pattern to f32, exactly.
func (l *Lib) decodeSmall(d DT) uint32 {
	return l.Fn("decode_"+d.Name, []T{asm.I32}, []T{asm.F32}, func(f *asm.Fn) {
		c := f.Param(0)
		nan := asm.CF(float32(math.NaN()))
		if d.ABI == abi.F8E8M0 {
			f.If(c.EqI(255), func() { f.Return(nan) })
			f.If(c.Eqz(), func() { f.Return(asm.CF(0x1p-127)) })
			f.Return(c.ShlI(23).Bits())
			return
		}
		s := d.small()
		mag := f.Let(c.AndI(s.sign - 1))
		sign := f.Let(asm.Select(c.AndI(s.sign), asm.C(-1<<31), asm.C(0)))
		switch {
		case s.uz:
			f.If(c.EqI(0x80), func() { f.Return(nan) })
		case d.ABI == abi.F8E4M3FN:
			f.If(mag.EqI(0x7f), func() { f.Return(nan) })
		case d.ABI == abi.F8E5M2:
			f.If(mag.GtU(asm.C(0x7c)), func() { f.Return(nan) })
			f.If(mag.EqI(0x7c), func() { f.Return(sign.Or(asm.C(0x7f800000)).Bits()) })
		}
		e, m := f.Let(mag.ShrUI(s.mant)), f.Let(mag.AndI(1<<s.mant-1))
		f.If(e.Eqz(), func() { f.Set(e, asm.C(1)) }, func() { f.Set(m, m.Or(asm.C(1<<s.mant))) })
		v := m.ToF(asm.F32, true).Mul(e.AddI(127 - s.bias - s.mant).ShlI(23).Bits())
		f.Return(v.Bits().Or(sign.E).Bits())
	})
}

// encodeSmall rounds an f64 to a bit pattern, in one step.
func (l *Lib) encodeSmall(d DT, saturate bool, mode string) uint32 {
	return l.Fn(fmt.Sprintf("encode_%s_%t_%s", d.Name, saturate, mode), d1, []T{asm.I32}, func(f *asm.Fn) {
		x := f.Param(0)
		if d.ABI == abi.F8E8M0 {
			b := f.Let(x.Demote().Bits())
			e, frac := f.Let(b.ShrUI(23).AndI(255)), f.Let(b.AndI(0x7fffff))
			f.If(e.EqI(255), func() { f.Return(e.E) })
			up := asm.C(0)
			switch mode {
			case "up":
				up = frac.NeI(0)
			case "nearest":
				up = frac.GtU(asm.C(0x400000)).Or(frac.EqI(0x400000).And(e.NeI(0)))
			}
			if saturate {
				up = up.And(e.NeI(254))
			}
			f.Return(e.Add(up))
			return
		}
		s := d.small()
		f.If(x.Ne(x.E), func() { f.Return(asm.C(s.nan)) })
		b := f.Let(x.Bits())
		sign := f.Let(asm.Select(b.LtS(asm.CL(0)), asm.C(s.sign), asm.C(0)))
		a := f.Let(x.Abs())
		code := f.Let(asm.C(s.max + 1))
		pow := func(n int64) float64 { return math.Ldexp(1, int(n)) }
		f.If(a.Lt(asm.CD(0x1p300)), func() {
			f.If(a.Lt(asm.CD(pow(1-s.bias))), func() {
				f.Set(code, a.Mul(asm.CD(pow(s.mant+s.bias-1))).Nearest().TruncSat(asm.I32, true))
			}, func() {
				e := f.Let(a.Bits().ShrUI(52).SubI(1023))
				m := a.Mul(asm.CL(s.mant+1023).Sub(e.E).ShlI(52).Bits()).Nearest().TruncSat(asm.I32, true)
				f.Set(code, e.Wrap().AddI(s.bias-1).ShlI(s.mant).Add(m))
			})
		})
		f.If(code.GtS(asm.C(s.max)), func() {
			if saturate {
				f.Set(code, asm.C(s.max))
			} else {
				f.Return(sign.Or(asm.C(s.over)))
			}
		})
		if s.uz {
			f.If(code.Eqz(), func() { f.Return(code.E) })
		}
		f.Return(code.Or(sign.E))
	})
}

// Decode widens small floats to f32.
func Decode(d DT) *Kernel {
	e := dtOf(abi.F32)
	return convertKernel("Decode."+d.Name, d, e, func(k *K, po, x V) {
		k.Put(e.Mem, po.E, 0, asm.Call(asm.F32, k.L.decodeSmall(d), x.E))
	})
}

// Encode rounds numbers of type d to small floats of type e.
func Encode(d, e DT, saturate bool, mode string) *Kernel {
	return convertKernel(fmt.Sprintf("Encode.%s.%s.%t.%s", d.Name, e.Name, saturate, mode), d, e, func(k *K, po, x V) {
		v := x.E
		switch {
		case d.SmallFloat():
			v = asm.Call(asm.F32, k.L.decodeSmall(d), v).Promote()
		case d.C == asm.F32:
			v = v.Promote()
		case !d.Float:
			v = v.ToF(asm.F64, d.Signed)
		}
		k.Put(asm.M8U, po.E, 0, asm.Call(asm.I32, k.L.encodeSmall(e, saturate, mode), v))
	})
}

func convertKernel(name string, d, e DT, put func(k *K, po, x V)) *Kernel {
	return &Kernel{
		Name: name, NOut: 1, Parallel: true, PrepName: "same." + e.Name + ".6", Prep: PrepSame(e, 6),
		Range: func(k *K, lo, hi V) {
			px := k.Let(Data(k.In(0)).Add(lo.ShlI(d.Shift)))
			po := k.Let(Data(k.Out(0)).Add(lo.ShlI(e.Shift)))
			end := k.Let(po.Add(hi.Sub(lo.E).ShlI(e.Shift)))
			x := k.Local(d.C)
			k.While(po.LtU(end.E), func() {
				k.Set(x, k.Load(d, px.E, 0))
				put(k, po, x)
				k.Inc(po, 1<<e.Shift)
				k.Inc(px, 1<<d.Shift)
			})
		},
	}
}
