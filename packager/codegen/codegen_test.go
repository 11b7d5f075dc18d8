package codegen_test

import (
	"bytes"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

func f32t(dims ...ir.Dim) ir.Type { return ir.TensorOf(ir.F32, ir.ShapeOf(dims...)) }

func st(ns ...int64) (ds []ir.Dim) {
	for _, n := range ns {
		ds = append(ds, ir.Static(n))
	}
	return
}

func TestAddBroadcast(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x", f32t(st(2, 3)...))
	y := b.Param("y", f32t(st(3)...))
	z := b.Op("z", "Add", nil, x, y)
	g, err := b.Graph("g", z)
	if err != nil {
		t.Fatal(err)
	}
	m := compile(t, g, codegen.Options{})
	out, err := m.run(ir.F32s([]int64{2, 3}, []float32{1, 2, 3, 4, 5, 6}), ir.F32s([]int64{3}, []float32{10, 20, 30}))
	if err != nil {
		t.Fatal(err)
	}
	want := ir.F32s([]int64{2, 3}, []float32{11, 22, 33, 14, 25, 36})
	if !bytes.Equal(out[0].Bytes, want.Bytes) {
		t.Fatalf("got %v", out[0].Floats())
	}
}

func TestMatMulOrder(t *testing.T) {
	for _, s := range [][3]int64{{1, 1, 1}, {3, 5, 7}, {4, 64, 70}, {17, 33, 131}, {5, 16, 9}, {2, 32, 8}, {3, 290, 12}, {2, 0, 3}, {0, 4, 4}} {
		r := rng(7)
		b := ir.NewBuilder()
		x := b.Param("x", f32t(st(s[0], s[1])...))
		y := b.Param("y", f32t(st(s[1], s[2])...))
		g, err := b.Graph("g", b.Op("z", "MatMul", nil, x, y))
		if err != nil {
			t.Fatal(err)
		}
		m := compile(t, g, codegen.Options{})
		a, w := r.f32s(s[0], s[1]), r.f32s(s[1], s[2])
		want := make([]float32, s[0]*s[2])
		for i := int64(0); i < s[0]; i++ {
			for j := int64(0); j < s[2]; j++ {
				var sum, block float32
				for k := int64(0); k < s[1]; k++ {
					block += float32(f32At(a, int(i*s[1]+k)) * f32At(w, int(k*s[2]+j)))
					if k%16 == 15 || k == s[1]-1 {
						sum, block = sum+block, 0
					}
				}
				want[i*s[2]+j] = sum
			}
		}
		for _, budget := range []uint32{0, 1, 1000} {
			m.budget = budget
			out, err := m.run(a, w)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out[0].Bytes, ir.F32s(nil, want).Bytes) {
				t.Fatalf("%v: bits differ", s)
			}
			if budget == 1 && s[0]*s[2] > 1000 && m.mores < 10 {
				t.Fatalf("%v: %d slices with budget 1", s, m.mores)
			}
		}
	}
}

// TestEveryOperatorHasKernels compares the compiler with ir's operator table.
func TestEveryOperatorHasKernels(t *testing.T) {
	for _, op := range ir.OpNames() {
		if !codegen.Supported(op) {
			t.Errorf("%s has no lowering", op)
		}
	}
}
