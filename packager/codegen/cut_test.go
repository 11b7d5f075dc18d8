package codegen_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestCutExact takes lines and rows that are longer than a piece when units are cut as small as can be (opCase.run), so that
// state goes from piece to piece.
func TestCutExact(t *testing.T) {
	once.Skip(t)
	r := rng(61)
	cases := func(op string, at ir.Attrs, outs int, ins ...*ir.Data) {
		opCase{fmt.Sprintf("%s/%s/%v", op, ins[0].DType, at), op, at, ins, outs, false}.run(t)
	}
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16, ir.I8, ir.I64, ir.U32} {
		x := r.tensor(dt, 3, 75, 2)
		for i := range 4 {
			cases("CumSum", ir.Attrs{"exclusive": i & 1, "reverse": i >> 1}, 1, x, ir.I64s(nil, []int64{1}))
			cases("CumProd", ir.Attrs{"exclusive": i & 1, "reverse": i >> 1}, 1, x, ir.I64s(nil, []int64{1}))
			cases([]string{"ArgMax", "ArgMin"}[i&1], ir.Attrs{"axis": 1, "keepdims": 1, "select_last_index": i >> 1}, 1, x)
		}
		for _, op := range []string{"ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"} {
			if op == "ReduceMean" && dt.Bits() < 32 {
				continue
			}
			for _, axes := range [][]int64{{1}, {0, 1}, {1, 2}, {0, 2}, {0, 1, 2}} {
				cases(op, ir.Attrs{"keepdims": 0}, 1, x, i64d(axes...))
			}
		}
		for _, k := range []int64{0, 1, 20, 64, 65, 75} {
			for largest := range 2 {
				cases("TopK", ir.Attrs{"axis": 1, "largest": largest, "sorted": 1}, 2, x, i64d(k))
			}
		}
		if dt.IsFloat() {
			cases("Softmax", ir.Attrs{"axis": 1}, 1, x)
			cases("Softmax", ir.Attrs{"axis": -1}, 1, r.plain(dt, 2, 90))
		}
	}
}

func TestCutProductsExact(t *testing.T) {
	once.Skip(t)
	r := rng(62)
	run := func(name, op string, at ir.Attrs, outs int, ins ...*ir.Data) {
		opCase{name, op, at, ins, outs, false}.run(t)
	}
	win := ir.Attrs{"kernel_shape": []int{3, 3}, "strides": []int{1, 1}, "pads": []int{1, 1, 0, 1}, "dilations": []int{1, 1}, "group": 1}
	wide := ir.Attrs{"kernel_shape": []int{2, 3}, "strides": []int{1, 2}, "pads": []int{1, 1, 0, 1}, "dilations": []int{1, 1}, "group": 2}
	dot := ir.Attrs{"kernel_shape": []int{1, 1}, "strides": []int{1, 1}, "pads": []int{0, 0, 0, 0}, "dilations": []int{1, 1}, "group": 1}
	pool := ir.Attrs{"kernel_shape": []int{2, 3}, "strides": []int{1, 2}, "pads": []int{0, 1, 0, 1}, "dilations": []int{1, 1}}
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16, ir.I32} {
		n := dt.String()
		run("MatMul/"+n, "MatMul", nil, 1, r.tensor(dt, 2, 3, 75), r.tensor(dt, 75, 70))
		run("MatMul/vector/"+n, "MatMul", nil, 1, r.plain(dt, 75), r.plain(dt, 75))
		run("Concat/"+n, "Concat", ir.Attrs{"axis": 1}, 1, r.tensor(dt, 2, 40, 3), r.tensor(dt, 2, 1, 3), r.tensor(dt, 2, 0, 3), r.tensor(dt, 2, 35, 3))
		run("Gather/"+n, "Gather", ir.Attrs{"axis": 1}, 1, r.tensor(dt, 2, 4, 75), ir.I64s([]int64{2, 2}, []int64{3, -4, 0, 1}))
		for i := range 2 {
			run(fmt.Sprintf("Trilu/%d/%s", i, n), "Trilu", ir.Attrs{"upper": i}, 1, r.tensor(dt, 40, 37), ir.I64s(nil, []int64{-3}))
			run(fmt.Sprintf("ReverseSequence/%d/%s", i, n), "ReverseSequence", ir.Attrs{"time_axis": i, "batch_axis": 1 - i}, 1, r.tensor(dt, 3, 3, 37), i64d(1, 3, 2))
		}
		run("EyeLike/"+n, "EyeLike", ir.Attrs{"k": 20, "dtype": dt}, 1, r.tensor(dt, 30, 37))
		if dt.IsFloat() {
			run("Gemm/"+n, "Gemm", ir.Attrs{"transB": 1, "alpha": 0.5, "beta": 2.0}, 1, r.plain(dt, 3, 75), r.plain(dt, 70, 75), r.plain(dt, 70))
			run("Conv/"+n, "Conv", win, 1, r.plain(dt, 2, 3, 4, 75), r.plain(dt, 4, 3, 3, 3), r.plain(dt, 4))
			run("Conv/wide/"+n, "Conv", wide, 1, r.plain(dt, 2, 4, 4, 75), r.plain(dt, 4, 2, 2, 3))
			run("Conv/one/"+n, "Conv", dot, 1, r.plain(dt, 2, 5, 4, 17), r.plain(dt, 4, 5, 1, 1), r.plain(dt, 4))
			run("MaxPool/"+n, "MaxPool", pool, 2, r.tensor(dt, 2, 3, 4, 75))
			run("AveragePool/"+n, "AveragePool", pool, 1, r.plain(dt, 2, 3, 4, 75))
			run("BatchNorm/"+n, "BatchNormalization", nil, 1, r.plain(dt, 2, 3, 5, 15), r.plain(dt, 3), r.plain(dt, 3), r.plain(dt, 3), abs(r.plain(dt, 3)))
			if dt.Bits() > 16 {
				run("Det/"+n, "Det", nil, 1, r.plain(dt, 2, 9, 9))
			}
		}
	}
	const seq, batch, in, hid = 3, 2, 5, 20
	for op, g := range map[string]int64{"RNN": 1, "GRU": 3, "LSTM": 4} {
		for i := range 2 {
			at := ir.Attrs{"hidden_size": hid, "direction": "bidirectional", "activations": map[string][]string{
				"RNN": {"Tanh", "Tanh"}, "GRU": {"Sigmoid", "Tanh", "Sigmoid", "Tanh"}, "LSTM": {"Sigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh", "Tanh"}}[op]}
			al := make([]float64, len(at["activations"].([]string)))
			at["activation_alpha"], at["activation_beta"] = al, al
			if op == "GRU" {
				at["linear_before_reset"] = i
			}
			c := opCase{fmt.Sprintf("%s/%d", op, i), op, at, []*ir.Data{r.plain(ir.F32, seq, batch, in), r.plain(ir.F32, 2, g*hid, in), r.plain(ir.F32, 2, g*hid, hid),
				r.plain(ir.F32, 2, 2*g*hid), ir.I32s([]int64{batch}, []int32{3, 2}), r.plain(ir.F32, 2, batch, hid)}, 2 + int(g)/4, false}
			c.run(t)
			c.weights(t)
		}
	}
}

// TestCutTextsExact has texts of several chunks, with characters across their ends.
func TestCutTextsExact(t *testing.T) {
	long := func(n int, s string) string { return strings.Repeat(s, n) }
	texts := ir.Strs([]int64{5}, []string{long(9000, "aß"), "", long(5000, "日本b"), "ﬁn", long(20001, "x")})
	opCase{"upper", "StringNormalizer", ir.Attrs{"case_change_action": "UPPER"}, []*ir.Data{texts}, 1, false}.run(t)
	opCase{"concat", "StringConcat", nil, []*ir.Data{texts, ir.Strs([]int64{1}, []string{" é"})}, 1, false}.run(t)
	opCase{"none", "StringConcat", nil, []*ir.Data{ir.Strs([]int64{0}, nil), ir.Strs([]int64{1}, []string{" é"})}, 1, false}.run(t)
	opCase{"split", "StringSplit", ir.Attrs{"delimiter": "ß"}, []*ir.Data{ir.Strs([]int64{2}, []string{long(300, "aß"), "b"})}, 2, false}.run(t)
	b := ir.NewBuilder()
	x := b.Param("x", ir.TensorOf(ir.String, ir.ShapeOf(ir.Unknown())))
	g, err := b.Graph("g", b.Op("y", "StringNormalizer", ir.Attrs{"case_change_action": "UPPER"}, x))
	if err != nil {
		t.Fatal(err)
	}
	m := compile(t, g, codegen.Options{})
	var ge *guestError
	if _, err := m.run(ir.Strs([]int64{2}, []string{"ok", long(9000, "日") + "\xe6\x97"})); !errors.As(err, &ge) || ge.code != abi.ErrString || ge.b != 1 {
		t.Errorf("broken behind several chunks: %v", err)
	}
}
