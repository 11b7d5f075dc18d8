package codegen_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

func TestIndexOps(t *testing.T) {
	once.Skip(t)
	seed := rng(41)
	r := &seed
	nan := math.NaN()
	word := ir.Strs([]int64{2, 3}, []string{"b", "", "ä", "b", "c", "b"})
	for _, c := range []opCase{
		{name: "none", op: "Trilu", ins: []*ir.Data{r.tensor(ir.F32, 2, 3, 4)}},
		{name: "k", op: "Trilu", at: ir.Attrs{"upper": 0}, ins: []*ir.Data{r.tensor(ir.F64, 4, 3), ir.I64s([]int64{}, []int64{-2})}},
		{name: "far", op: "Trilu", ins: []*ir.Data{r.tensor(ir.I8, 4, 3), ir.I64s([]int64{}, []int64{math.MaxInt64})}},
		{name: "near", op: "Trilu", at: ir.Attrs{"upper": 0}, ins: []*ir.Data{r.tensor(ir.I64, 4, 3), ir.I64s([]int64{1}, []int64{math.MinInt64})}},
		{name: "empty", op: "Trilu", ins: []*ir.Data{r.tensor(ir.F32, 3, 0)}},
		{name: "axis", op: "GatherElements", at: ir.Attrs{"axis": -1}, ins: []*ir.Data{r.tensor(ir.F16, 3, 4), ir.I64s([]int64{2, 5}, []int64{0, -1, 3, -4, 2, 1, 1, 1, 0, -2})}},
		{name: "text", op: "GatherElements", ins: []*ir.Data{word, ir.I64s([]int64{1, 3}, []int64{1, -2, 0})}},
		{name: "range", op: "GatherElements", ins: []*ir.Data{word, ir.I64s([]int64{1, 3}, []int64{1, -3, 0})}},
		{name: "nothing", op: "GatherElements", ins: []*ir.Data{r.tensor(ir.F32, 0, 3), ir.I64s([]int64{0, 3}, nil)}},
		{name: "batch", op: "GatherND", at: ir.Attrs{"batch_dims": 1}, ins: []*ir.Data{r.tensor(ir.F32, 2, 3, 4), ir.I64s([]int64{2, 2, 1}, []int64{1, -3, 2, 0})}},
		{name: "slices", op: "GatherND", ins: []*ir.Data{r.tensor(ir.I16, 2, 3, 4), ir.I64s([]int64{3, 2}, []int64{0, -1, 1, 0, -2, 2})}},
		{name: "scalars", op: "GatherND", ins: []*ir.Data{word, ir.I64s([]int64{2}, []int64{1, 1})}},
		{name: "two batches", op: "GatherND", at: ir.Attrs{"batch_dims": 2}, ins: []*ir.Data{r.tensor(ir.F32, 2, 2, 3), ir.I64s([]int64{2, 2, 1}, []int64{0, 1, 2, -1})}},
		{name: "text", op: "ScatterElements", ins: []*ir.Data{word, ir.I64s([]int64{1, 2}, []int64{-1, 0}), ir.Strs([]int64{1, 2}, []string{"new", "x"})}},
		{name: "range", op: "ScatterElements", ins: []*ir.Data{word, ir.I64s([]int64{1, 1}, []int64{2}), ir.Strs([]int64{1, 1}, []string{"x"})}},
		{name: "text", op: "ScatterND", ins: []*ir.Data{word, ir.I64s([]int64{1, 1}, []int64{-1}), ir.Strs([]int64{1, 3}, []string{"1", "22", ""})}},
		{name: "empty slices", op: "ScatterND", ins: []*ir.Data{r.tensor(ir.F32, 3, 0), ir.I64s([]int64{1, 1}, []int64{7}), r.tensor(ir.F32, 1, 0)}},
		{name: "large", op: "ScatterND", ins: []*ir.Data{r.tensor(ir.F32, 40, 70), ir.I64s([]int64{2, 1}, []int64{39, 0}), r.tensor(ir.F32, 2, 70)}},
		{name: "f32", op: "NonZero", ins: []*ir.Data{ir.F32s([]int64{2, 3}, []float32{0, 1, float32(math.Copysign(0, -1)), float32(nan), 0, -1})}},
		{name: "bool", op: "NonZero", ins: []*ir.Data{r.tensor(ir.Bool, 3, 2, 5)}},
		{name: "scalar", op: "NonZero", ins: []*ir.Data{ir.F32s([]int64{}, []float32{2})}},
		{name: "none", op: "NonZero", ins: []*ir.Data{r.tensor(ir.F32, 0)}},
		{name: "nan", op: "UniqueRows", outs: 3, ins: []*ir.Data{ir.F64s([]int64{7}, []float64{nan, 2, 0, math.Copysign(0, -1), nan, -5, 2})}},
		{name: "place", op: "UniqueRows", outs: 3, at: ir.Attrs{"sorted": 0}, ins: []*ir.Data{ir.F64s([]int64{7}, []float64{nan, 2, 0, 1, nan, -5, 2})}},
		{name: "text", op: "UniqueRows", outs: 3, ins: []*ir.Data{ir.Strs([]int64{5}, []string{"b", "", "ä", "b", "a"})}},
		{name: "rows", op: "UniqueRows", outs: 3, at: ir.Attrs{"sorted": 0}, ins: []*ir.Data{ir.Strs([]int64{3, 2}, []string{"b", "", "a", "b", "b", ""})}},
		{name: "u64", op: "UniqueRows", outs: 3, ins: []*ir.Data{ir.IntData(ir.U64, []int64{4}, []int64{-1, 1, 0, -1})}},
		{name: "empty", op: "UniqueRows", outs: 3, ins: []*ir.Data{r.tensor(ir.F32, 0)}},
		{name: "no columns", op: "UniqueRows", outs: 3, ins: []*ir.Data{r.tensor(ir.F32, 3, 0)}},
		{name: "many", op: "UniqueRows", outs: 3, ins: []*ir.Data{r.plain(ir.I8, 1000)}},
		{name: "many by place", op: "UniqueRows", outs: 3, at: ir.Attrs{"sorted": 0}, ins: []*ir.Data{r.plain(ir.I8, 700)}},
		{name: "time", op: "ReverseSequence", ins: []*ir.Data{r.tensor(ir.F32, 4, 3, 2), i64d(4, 1, 0)}},
		{name: "batch", op: "ReverseSequence", at: ir.Attrs{"batch_axis": 0, "time_axis": 1}, ins: []*ir.Data{word, i64d(3, 2)}},
		{name: "long", op: "ReverseSequence", ins: []*ir.Data{r.tensor(ir.F32, 4, 2), i64d(5, 1)}},
		{name: "bf16", op: "EyeLike", at: ir.Attrs{"k": 1, "dtype": ir.BF16}, ins: []*ir.Data{r.tensor(ir.I32, 3, 4)}},
		{name: "below", op: "EyeLike", at: ir.Attrs{"k": -2, "dtype": ir.Bool}, ins: []*ir.Data{r.tensor(ir.I32, 4, 2)}},
		{name: "outside", op: "EyeLike", at: ir.Attrs{"k": math.MinInt64, "dtype": ir.F64}, ins: []*ir.Data{r.tensor(ir.I32, 4, 2)}},
	} {
		c.name = c.op + " " + c.name
		c.run(t)
		c.name += " static"
		c.static = true
		c.run(t)
	}
	for _, red := range []string{"add", "mul", "max", "min", "none"} {
		for _, d := range numeric {
			opCase{name: fmt.Sprintf("ScatterElements %s %s", red, d), op: "ScatterElements", at: ir.Attrs{"reduction": red, "axis": 1},
				ins: []*ir.Data{r.tensor(d, 2, 3), ir.I64s([]int64{2, 4}, []int64{0, 2, -1, 0, 1, 1, -2, 1}), r.tensor(d, 2, 4)}}.run(t)
			opCase{name: fmt.Sprintf("ScatterND %s %s", red, d), op: "ScatterND", at: ir.Attrs{"reduction": red},
				ins: []*ir.Data{r.tensor(d, 3, 2, 2), ir.I64s([]int64{3, 1}, []int64{0, -1, 0}), r.tensor(d, 3, 2, 2)}}.run(t)
		}
	}
}

// TestUniqueByHand: 2 1 1 3 4 3 sorted is 1 2 3 4.
func TestUniqueByHand(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x", ir.TensorOf(ir.I32, ir.StaticShape(6)))
	g, err := b.Graph("g", b.Ops([]string{"indices", "inverse", "counts"}, "UniqueRows", ir.Attrs{"sorted": 1}, x)...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := compile(t, g, codegen.Options{}).run(ir.IntData(ir.I32, []int64{6}, []int64{2, 1, 1, 3, 4, 3}))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"[1 0 3 4]", "[1 0 0 2 3 2]", "[2 1 2 1]"} {
		if s := fmt.Sprint(got[i].Ints()); s != want {
			t.Errorf("output %d is %s, want %s", i, s, want)
		}
	}
}
