package codegen_test

import (
	"fmt"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

var storedTypes = []ir.DType{ir.U4, ir.I4, ir.U2, ir.I2, ir.F8E4M3FN, ir.F8E4M3FNUZ, ir.F8E5M2, ir.F8E5M2FNUZ, ir.F8E8M0, ir.F4E2M1}

// bits makes a tensor of a stored type from random bits; spare bits stay 0.
func (r *rng) bits(dt ir.DType, dims ...int64) *ir.Data {
	n, _ := ir.Elements(dims)
	d := &ir.Data{DType: dt, Dims: dims, Bytes: make([]byte, (n*int64(dt.Bits())+7)/8)}
	for i := range n {
		at := i * int64(dt.Bits())
		d.Bytes[at/8] |= byte(r.u()) & (1<<dt.Bits() - 1) << (at % 8)
	}
	return d
}

func TestStoredTypesExact(t *testing.T) {
	once.Skip(t)
	r := rng(33)
	all := append([]ir.DType{ir.Bool}, numeric...)
	for _, s := range storedTypes {
		cast := func(from *ir.Data, to ir.DType, at ir.Attrs) {
			op := "Cast"
			if to.IsSmallFloat() {
				op = "CastSmall"
			}
			a := ir.Attrs{"to": to}
			for k, v := range at {
				a[k] = v
			}
			opCase{fmt.Sprintf("%s/%s/%s/%v", op, from.DType, to, at), op, a, []*ir.Data{from}, 1, true}.run(t)
		}
		for _, d := range all {
			cast(r.tensor(d, 301), s, nil)
			cast(r.bits(s, 301), d, nil)
		}
		for _, d := range storedTypes {
			cast(r.bits(s, 7, 37), d, nil)
		}
		if s.IsSmallFloat() {
			for _, sat := range []int{0, 1} {
				for _, mode := range []string{"up", "down", "nearest"} {
					for _, d := range []ir.DType{ir.F32, ir.F64, ir.F16} {
						cast(r.tensor(d, 501), s, ir.Attrs{"saturate": sat, "round_mode": mode})
					}
				}
			}
		}
		for _, n := range []int64{0, 1, 2, 3, 4, 5} {
			opCase{fmt.Sprintf("Identity/%s/%d", s, n), "Identity", nil, []*ir.Data{r.bits(s, n)}, 1, false}.run(t)
		}
		opCase{"Transpose/" + s.String(), "Transpose", ir.Attrs{"perm": []int64{1, 0}}, []*ir.Data{r.bits(s, 3, 5)}, 1, false}.run(t)
		opCase{"Concat/" + s.String(), "Concat", ir.Attrs{"axis": 0}, []*ir.Data{r.bits(s, 3), r.bits(s, 4)}, 1, true}.run(t)
		opCase{"Gather/" + s.String(), "Gather", ir.Attrs{"axis": 0}, []*ir.Data{r.bits(s, 9), i64d(1, 8, 3)}, 1, true}.run(t)
		opCase{"Where/" + s.String(), "Where", nil, []*ir.Data{r.tensor(ir.Bool, 3, 1), r.bits(s, 3, 3), r.bits(s, 3)}, 1, false}.run(t)
		opCase{"Reshape/" + s.String(), "Reshape", nil, []*ir.Data{r.bits(s, 3, 5), i64d(5, 3)}, 1, true}.run(t)
		opCase{"ConstantOfShape/" + s.String(), "ConstantOfShape", ir.Attrs{"value": r.bits(s, 1)}, []*ir.Data{i64d(3, 3)}, 1, true}.run(t)
		for _, d := range storedTypes {
			if d.Bits() == s.Bits() {
				opCase{fmt.Sprintf("BitCast/%s/%s", s, d), "BitCast", ir.Attrs{"to": d}, []*ir.Data{r.bits(s, 33)}, 1, false}.run(t)
			}
		}
	}
	opCase{"BitCast/f8", "BitCast", ir.Attrs{"to": ir.U8}, []*ir.Data{r.bits(ir.F8E4M3FN, 256)}, 1, false}.run(t)
}

// TestStoredTypesByHand holds the conversions to values worked out on paper.
func TestStoredTypesByHand(t *testing.T) {
	x := ir.F32s([]int64{8}, []float32{1, -0.3, 464, 465, 1e-9, 7.4, -6.5, 1.25})
	for _, c := range []struct {
		to   ir.DType
		sat  int
		want string
	}{
		{ir.F8E4M3FN, 1, "38 aa 7e 7e 00 4f cd 3a"}, // 464 is halfway between 448 and 480, and 448 is even; 465 is beyond
		{ir.F8E4M3FN, 0, "38 aa 7e 7f 00 4f cd 3a"},
		{ir.F8E5M2, 1, "3c b5 5f 5f 00 47 c6 3d"},
		{ir.F4E2M1, 1, "92 77 70 2f"}, // 1, -0.5; 6, 6; 0, 6; -6, 1
	} {
		b := ir.NewBuilder()
		v := b.Param("x", x.Type())
		g, err := b.Graph("g", b.Ops([]string{"y"}, "CastSmall", ir.Attrs{"to": c.to, "saturate": c.sat}, v)...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := interp.Run(t.Context(), g, map[string]*ir.Val{"x": ir.TensorVal(x)})
		if err != nil {
			t.Fatal(err)
		}
		if h := fmt.Sprintf("% x", got["y"].Tensor.Bytes); h != c.want {
			t.Errorf("%s, saturate %d: %s, want %s", c.to, c.sat, h, c.want)
		}
		out, err := compile(t, g, codegen.Options{}).run(x)
		if err != nil {
			t.Fatal(err)
		}
		if h := fmt.Sprintf("% x", out[0].Bytes); h != c.want {
			t.Errorf("%s, saturate %d: compiled %s, want %s", c.to, c.sat, h, c.want)
		}
	}
}
