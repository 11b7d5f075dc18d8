package codegen_test

import (
	"fmt"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestUnitsAreSmall compares what a unit of the packed kernels charges with the default budget: a resume overshoots by less than one unit,
// so units must stay well below it, and the charge must be in proportion to the multiplications.
func TestUnitsAreSmall(t *testing.T) {
	once.Skip(t)
	r := rng(3)
	win := func(k, s, p int, g int) ir.Attrs {
		return ir.Attrs{"kernel_shape": []int{k, k}, "strides": []int{s, s}, "pads": []int{p, p, p, p}, "dilations": []int{1, 1}, "group": g}
	}
	for i, c := range []struct {
		op   string
		at   ir.Attrs
		x, w []int64
		muls int64
	}{
		{"MatMul", nil, []int64{384, 512}, []int64{512, 700}, 384 * 512 * 700},
		{"MatMul", nil, []int64{1, 4096}, []int64{4096, 1100}, 4096 * 1100},
		{"Gemm", ir.Attrs{"transB": 1}, []int64{40, 300}, []int64{2000, 300}, 40 * 300 * 2000},
		{"Conv", win(3, 1, 1, 1), []int64{1, 64, 56, 56}, []int64{96, 64, 3, 3}, 56 * 56 * 64 * 96 * 9},
		{"Conv", win(1, 1, 0, 1), []int64{1, 512, 14, 14}, []int64{512, 512, 1, 1}, 14 * 14 * 512 * 512},
		{"Conv", win(3, 1, 1, 64), []int64{1, 64, 112, 112}, []int64{64, 1, 3, 3}, 112 * 112 * 64 * 9},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.op, i), func(t *testing.T) {
			b := ir.NewBuilder()
			g, err := b.Graph("g", b.Op("y", c.op, c.at, b.Param("x", f32t(st(c.x...)...)), b.Const("w", r.f32s(c.w...))))
			if err != nil {
				t.Fatal(err)
			}
			m := compile(t, g, codegen.Options{})
			m.budget = 1
			if _, err := m.run(r.f32s(c.x...)); err != nil {
				t.Fatal(err)
			}
			// With a budget of 1 every unit is a resume of its own; the output's own pass takes one per element.
			ctx := m.call(abi.ExportHeap)
			units := int64(m.mores) - m.elements(ctx)
			if units < 1 {
				t.Fatalf("%d resumes", m.mores)
			}
			if per := c.muls / units; per > 20e6 {
				t.Errorf("%d units of %d multiplications each", units, per)
			}
			m.budget = 0
			if _, err := m.run(r.f32s(c.x...)); err != nil {
				t.Fatal(err)
			}
			// About 4 to 100 multiplications a unit of budget.
			charged := int64(m.mores+1) * kernel.DefaultBudget
			if c.muls > 8*kernel.DefaultBudget*8 && (charged < c.muls/100 || charged > c.muls) {
				t.Errorf("%d multiplications in %d resumes", c.muls, m.mores+1)
			}
		})
	}
}

// elements is the number of elements of output 0 of the last run.
func (m *machine) elements(ctx uint32) int64 {
	at, _ := m.mod.Memory().ReadUint32Le(ctx + abi.CtxOutputs)
	return m.value(at).Len()
}

// TestLongUnitsAreCut starts graphs with huge tensors and reads what their kernels state: no unit may cost much more than the bound, and the whole
// work must be in proportion to the bytes that go in. It counts charges, not time; BenchmarkResumeBig compares the two.
func TestLongUnitsAreCut(t *testing.T) {
	once.Skip(t)
	const unitMost = kernel.DefaultBudget / 4
	for _, c := range bigGraphs() {
		if c.easy {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			g, ins := c.build(t)
			m := compile(t, g, codegen.Options{})
			bytes := int64(0)
			for _, d := range ins {
				bytes += int64(len(d.Bytes))
			}
			var work int64
			m.watch = func(ctx uint32) bool {
				read := func(off uint32) int64 { v, _ := m.mod.Memory().ReadUint64Le(ctx + off); return int64(v) }
				cost, total := read(kernel.CtxCost), read(kernel.CtxTotal)
				if cost > 8*unitMost {
					t.Errorf("a unit of %d", cost)
				}
				work = max(work, cost*total)
				return m.mores < 4
			}
			if _, err := m.run(ins...); err != nil {
				t.Fatal(err)
			}
			if c.op != "Shape" && work < bytes/24 {
				t.Errorf("work of %d for %d bytes", work, bytes)
			}
		})
	}
}
