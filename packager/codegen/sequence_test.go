package codegen_test

import (
	"fmt"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// seqGraph builds a graph of tensors in, tensors out.
func seqGraph(t *testing.T, ins []*ir.Data, build func(b *ir.Builder, op func(name string, at ir.Attrs, ins ...*ir.Value) *ir.Value, ps []*ir.Value) *ir.Value) *ir.Graph {
	t.Helper()
	b := ir.NewBuilder()
	var ps []*ir.Value
	for i, d := range ins {
		dims := make([]ir.Dim, len(d.Dims))
		for j := range dims {
			dims[j] = ir.Unknown()
		}
		ps = append(ps, b.Param(fmt.Sprintf("in%d", i), ir.TensorOf(d.DType, ir.ShapeOf(dims...))))
	}
	n := 0
	op := func(name string, at ir.Attrs, ins ...*ir.Value) *ir.Value {
		n++
		return b.Ops([]string{fmt.Sprintf("v%d", n)}, name, at, ins...)[0]
	}
	g, err := b.Graph("g", build(b, op, ps))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestSequences(t *testing.T) {
	seed := rng(7)
	r := &seed
	type opf = func(name string, at ir.Attrs, ins ...*ir.Value) *ir.Value
	pos := func(v int64) *ir.Data { return ir.I64s([]int64{}, []int64{v}) }
	join := ir.Attrs{"axis": 0}
	for _, c := range []struct {
		name  string
		ins   []*ir.Data
		build func(op opf, p []*ir.Value) *ir.Value
	}{
		{"at", []*ir.Data{r.tensor(ir.F32, 2, 3), r.tensor(ir.F32, 0), pos(-2)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceAt", nil, op("SequenceConstruct", nil, p[0], p[1]), p[2])
		}},
		{"at text", []*ir.Data{ir.Strs([]int64{2}, []string{"a", "bc"}), pos(0)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceAt", nil, op("SequenceConstruct", nil, p[0], p[0]), p[1])
		}},
		{"at nowhere", []*ir.Data{r.tensor(ir.F32, 2), pos(1)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceAt", nil, op("SequenceConstruct", nil, p[0]), p[1])
		}},
		{"at of none", []*ir.Data{pos(0)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceAt", nil, op("SequenceEmpty", ir.Attrs{"dtype": ir.F32}), p[0])
		}},
		{"insert", []*ir.Data{r.tensor(ir.F64, 1, 2), r.tensor(ir.F64, 3, 2), r.tensor(ir.F64, 2, 2), pos(-1), pos(2)}, func(op opf, p []*ir.Value) *ir.Value {
			s := op("SequenceInsert", nil, op("SequenceInsert", nil, op("SequenceEmpty", ir.Attrs{"dtype": ir.F64}), p[0]), p[1], p[3])
			return op("ConcatFromSequence", join, op("SequenceInsert", nil, s, p[2], p[4]))
		}},
		{"insert too far", []*ir.Data{r.tensor(ir.F64, 1), pos(2)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceLength", nil, op("SequenceInsert", nil, op("SequenceConstruct", nil, p[0]), p[0], p[1]))
		}},
		{"erase", []*ir.Data{r.tensor(ir.I8, 4, 3), pos(1)}, func(op opf, p []*ir.Value) *ir.Value {
			s := op("SequenceErase", nil, op("SequenceErase", nil, op("SplitToSequence", ir.Attrs{"axis": 0}, p[0]), p[1]))
			return op("ConcatFromSequence", ir.Attrs{"axis": -1}, s)
		}},
		{"new axis", []*ir.Data{r.tensor(ir.F16, 2, 5, 3)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("ConcatFromSequence", ir.Attrs{"axis": -1, "new_axis": 1}, op("SplitToSequence", ir.Attrs{"axis": 1, "keepdims": 0}, p[0]))
		}},
		{"sizes", []*ir.Data{r.tensor(ir.I64, 3, 7, 2), i64d(2, 0, 5), pos(-1)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceAt", nil, op("SplitToSequence", ir.Attrs{"axis": 1}, p[0], p[1]), p[2])
		}},
		{"sizes that do not fit", []*ir.Data{r.tensor(ir.I64, 3), i64d(2, 2)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceLength", nil, op("SplitToSequence", nil, p[0], p[1]))
		}},
		{"parts", []*ir.Data{r.tensor(ir.F32, 7, 20), pos(3), pos(2)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceAt", nil, op("SplitToSequence", nil, p[0], p[1]), p[2])
		}},
		{"back together", []*ir.Data{r.tensor(ir.F32, 30, 40), pos(7)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("ConcatFromSequence", ir.Attrs{"axis": 1}, op("SplitToSequence", ir.Attrs{"axis": 1}, p[0], p[1]))
		}},
		{"nothing to split", []*ir.Data{r.tensor(ir.F32, 0, 2), pos(3)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("SequenceLength", nil, op("SplitToSequence", nil, p[0], p[1]))
		}},
		{"nothing to join", nil, func(op opf, p []*ir.Value) *ir.Value {
			return op("ConcatFromSequence", join, op("SequenceEmpty", ir.Attrs{"dtype": ir.F32}))
		}},
		{"unequal", []*ir.Data{r.tensor(ir.F32, 2, 2), r.tensor(ir.F32, 2, 3)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("ConcatFromSequence", join, op("SequenceConstruct", nil, p[0], p[1]))
		}},
		{"optional", []*ir.Data{r.tensor(ir.F32, 2)}, func(op opf, p []*ir.Value) *ir.Value {
			return op("OptionalGetElement", nil, op("Optional", nil, p[0]))
		}},
		{"empty optional", nil, func(op opf, p []*ir.Value) *ir.Value {
			return op("OptionalGetElement", nil, op("Optional", ir.Attrs{"elem": "f32[2]"}))
		}},
		{"has", nil, func(op opf, p []*ir.Value) *ir.Value {
			return op("OptionalHasElement", nil, op("Optional", ir.Attrs{"elem": "seq(f32[*])"}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := seqGraph(t, c.ins, func(_ *ir.Builder, op func(string, ir.Attrs, ...*ir.Value) *ir.Value, ps []*ir.Value) *ir.Value {
				return c.build(op, ps)
			})
			m := compile(t, g, codegen.Options{})
			against(t, m, c.ins)
			m.budget, m.arena = 3, 0
			against(t, m, c.ins)
			against(t, m, c.ins) // and again: nothing is left behind
		})
	}
}
