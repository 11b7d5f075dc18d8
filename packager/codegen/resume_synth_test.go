package codegen_test

import (
	"fmt"
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
)

// bigGraph is a graph of one operator over tensors that are larger than any sensible model's.
type bigGraph struct {
	name string
	op   string
	at   ir.Attrs
	ins  func(r *rng) []*ir.Data
	kept []int // inputs that are constants
	easy bool  // element by element: a unit is one
}

func seq64(n int64, f func(i int64) int64) *ir.Data {
	v := make([]int64, n)
	for i := range v {
		v[i] = f(int64(i))
	}
	return ir.I64s([]int64{n}, v)
}

func bigTexts(n int, f func(i int) string) *ir.Data {
	s := make([]string, n)
	for i := range s {
		s[i] = f(i)
	}
	return ir.Strs([]int64{int64(n)}, s)
}

// bigGraphs has every kind of kernel: lines, rows and texts that are far longer than a resume, and very many short ones.
func bigGraphs() []bigGraph {
	const million = 1 << 20
	one := func(op string, at ir.Attrs, dims ...int64) bigGraph {
		return bigGraph{name: op + fmt.Sprint(dims), op: op, at: at, ins: func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(dims...)} }}
	}
	with := func(name, op string, at ir.Attrs, ins func(r *rng) []*ir.Data, kept ...int) bigGraph {
		return bigGraph{name, op, at, ins, kept, false}
	}
	win := func(k, s, p, g int) ir.Attrs {
		return ir.Attrs{"kernel_shape": []int{k, k}, "strides": []int{s, s}, "pads": []int{p, p, p, p}, "dilations": []int{1, 1}, "group": g}
	}
	var out []bigGraph
	for _, op := range []string{"Neg", "Relu", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Sin", "Tan", "Asin", "Atan", "Sinh", "Asinh", "Atanh", "Floor", "Round"} {
		out = append(out, one(op, nil, 4*million))
	}
	for _, dt := range []ir.DType{ir.F64, ir.F16} {
		for _, op := range []string{"Exp", "Tanh", "Sin", "Atan", "Sqrt", "Erf"} {
			out = append(out, with(op+"/"+dt.String(), op, nil, func(r *rng) []*ir.Data { return []*ir.Data{r.plain(dt, million)} }))
		}
	}
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16, ir.I32, ir.I64, ir.U8} {
		for _, op := range []string{"Add", "Div", "Mod", "Pow", "Min", "Equal"} {
			out = append(out, with(op+"/"+dt.String(), op, nil, func(r *rng) []*ir.Data {
				a, b := r.plain(dt, 2*million), r.plain(dt, 2*million)
				for i := range b.Bytes {
					b.Bytes[i] = b.Bytes[i]&0x3f | 1 // nothing divides by zero
				}
				return []*ir.Data{a, b}
			}))
		}
		out = append(out, with("Cast/"+dt.String(), "Cast", ir.Attrs{"to": ir.I64}, func(r *rng) []*ir.Data { return []*ir.Data{r.plain(dt, 2*million)} }))
		out = append(out, with("ReduceMax/"+dt.String(), "ReduceMax", ir.Attrs{"keepdims": 0}, func(r *rng) []*ir.Data { return []*ir.Data{r.plain(dt, 2*million)} }))
	}
	for i := range out {
		out[i].easy = true
	}
	out = append(out,
		with("Add/rows", "Add", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(million, 3), r.f32s(million, 1)} }),
		with("Equal/short rows", "Equal", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.plain(ir.I32, million, 1), r.plain(ir.I32, 1, 3)} }),
		one("ReduceSum", ir.Attrs{"keepdims": 0}, 10*million), one("ReduceMean", ir.Attrs{"keepdims": 0}, 3, 3*million),
		with("ReduceSum/outer", "ReduceSum", ir.Attrs{"keepdims": 0}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(10000, 400), i64d(0)} }),
		with("ReduceProd/middle", "ReduceProd", ir.Attrs{"keepdims": 0}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(20, 100000, 2), i64d(0, 1)} }),
		one("Softmax", ir.Attrs{"axis": 0}, 10*million), one("Softmax", ir.Attrs{"axis": 0}, 2000, 500), one("Softmax", ir.Attrs{"axis": 1}, 200000, 8),
		one("ArgMax", ir.Attrs{"axis": 0, "keepdims": 0, "select_last_index": 0}, 10*million),
		with("TopK/few", "TopK", ir.Attrs{"axis": 0, "largest": 1, "sorted": 1}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(10 * million), i64d(10)} }),
		with("TopK/many", "TopK", ir.Attrs{"axis": 0, "largest": 1, "sorted": 1}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(2 * million), i64d(2 * million)} }),
		with("TopK/falling", "TopK", ir.Attrs{"axis": 0, "largest": 0, "sorted": 1}, func(r *rng) []*ir.Data {
			return []*ir.Data{seq64(million, func(i int64) int64 { return -i }), i64d(60)}
		}),
		with("CumSum", "CumSum", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(10 * million), ir.I64s(nil, []int64{0})} }),
		with("MatMul", "MatMul", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(512, 1024), r.f32s(1024, 1024)} }),
		with("MatMul/constant", "MatMul", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(512, 1024), r.f32s(1024, 1024)} }, 1),
		with("MatMul/row", "MatMul", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 4096), r.f32s(4096, 4096)} }, 1),
		with("MatMul/dot", "MatMul", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 4*million), r.f32s(4*million, 1)} }),
		with("MatMul/f64", "MatMul", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.plain(ir.F64, 256, 512), r.plain(ir.F64, 512, 512)} }),
		with("MatMul/i32", "MatMul", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.plain(ir.I32, 128, 512), r.plain(ir.I32, 512, 512)} }),
		with("Gemm/transB", "Gemm", ir.Attrs{"transB": 1}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(64, 1024), r.f32s(1024, 1024)} }),
		with("Conv", "Conv", win(3, 1, 1, 1), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 64, 112, 112), r.f32s(64, 64, 3, 3)} }, 1),
		with("Conv/7x7", "Conv", win(3, 1, 1, 1), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 512, 7, 7), r.f32s(512, 512, 3, 3)} }, 1),
		with("Conv/strided", "Conv", win(7, 2, 3, 1), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 3, 448, 448), r.f32s(64, 3, 7, 7)} }, 1),
		with("Conv/depthwise", "Conv", win(3, 1, 1, 96), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 96, 224, 224), r.f32s(96, 1, 3, 3)} }, 1),
		with("Conv/depthwise strided", "Conv", win(5, 2, 2, 96), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 96, 224, 224), r.f32s(96, 1, 5, 5)} }, 1),
		with("Conv/variable", "Conv", win(3, 1, 1, 1), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 64, 56, 56), r.f32s(64, 64, 3, 3)} }),
		with("Conv/variable strided", "Conv", win(3, 2, 1, 1), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 64, 56, 56), r.f32s(64, 64, 3, 3)} }),
		with("Conv/variable 1x1", "Conv", win(1, 1, 0, 1), func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1, 256, 112, 112), r.f32s(16, 256, 1, 1)} }),
		one("MaxPool", ir.Attrs{"kernel_shape": []int{3, 3}, "strides": []int{2, 2}, "pads": []int{1, 1, 1, 1}, "dilations": []int{1, 1}}, 1, 64, 224, 224),
		one("AveragePool", ir.Attrs{"kernel_shape": []int{200, 200}, "strides": []int{1, 1}, "pads": []int{0, 0, 0, 0}, "dilations": []int{1, 1}}, 1, 4, 224, 224),
		with("BatchNormalization", "BatchNormalization", nil, func(r *rng) []*ir.Data {
			return []*ir.Data{r.f32s(1, 2, 3*million), r.f32s(2), r.f32s(2), r.f32s(2), abs(r.f32s(2))}
		}),
		with("Concat", "Concat", ir.Attrs{"axis": 0}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(10 * million), r.f32s(10 * million)} }),
		with("Concat/columns", "Concat", ir.Attrs{"axis": 1}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(2*million, 1), r.f32s(2*million, 1)} }),
		with("Gather/rows", "Gather", ir.Attrs{"axis": 0}, func(r *rng) []*ir.Data {
			return []*ir.Data{r.f32s(4, 4*million), i64d(3, 0, 2)}
		}),
		with("Gather/elements", "Gather", ir.Attrs{"axis": 0}, func(r *rng) []*ir.Data {
			return []*ir.Data{r.f32s(4 * million), seq64(4*million, func(i int64) int64 { return i * 7919 % (4 * million) })}
		}),
		with("GatherElements", "GatherElements", ir.Attrs{"axis": 0}, func(r *rng) []*ir.Data {
			return []*ir.Data{r.f32s(million), seq64(million, func(i int64) int64 { return i * 7919 % million })}
		}),
		with("ScatterElements", "ScatterElements", ir.Attrs{"axis": 0, "reduction": "add"}, func(r *rng) []*ir.Data {
			return []*ir.Data{r.f32s(million), seq64(million, func(i int64) int64 { return i * 7919 % million }), r.f32s(million)}
		}),
		with("ScatterND", "ScatterND", ir.Attrs{"reduction": "none"}, func(r *rng) []*ir.Data {
			ix := seq64(million, func(i int64) int64 { return i * 7919 % million })
			ix.Dims = []int64{million, 1}
			return []*ir.Data{r.f32s(million), ix, r.f32s(million)}
		}),
		with("GatherND", "GatherND", ir.Attrs{"batch_dims": 0}, func(r *rng) []*ir.Data {
			ix := seq64(million, func(i int64) int64 { return i * 7919 % million })
			ix.Dims = []int64{million, 1}
			return []*ir.Data{r.f32s(million), ix}
		}),
		one("NonZero", nil, 10*million), one("NonZero", nil, 1000, 1000, 4),
		one("Transpose", ir.Attrs{"perm": []int{1, 0}}, 3000, 3000), one("Transpose", ir.Attrs{"perm": []int{2, 0, 1}}, 1000, 1000, 3),
		with("Pad", "Pad", ir.Attrs{"mode": "reflect"}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(2000, 2000), i64d(1, 1, 1, 1)} }),
		with("Tile", "Tile", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1000, 1000), i64d(2, 2)} }),
		with("Expand", "Expand", nil, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(1000, 1), i64d(1000, 4000)} }),
		with("Slice/steps", "Slice", nil, func(r *rng) []*ir.Data {
			return []*ir.Data{r.f32s(3000, 3000), i64d(-1, -1), i64d(-1<<62, -1<<62), i64d(0, 1), i64d(-1, -2)}
		}),
		with("Where", "Where", nil, func(r *rng) []*ir.Data {
			return []*ir.Data{r.plain(ir.Bool, 4*million), r.f32s(4 * million), r.f32s(1)}
		}),
		one("Det", nil, 512, 512),
		one("Shape", ir.Attrs{"start": 0, "end": 100}, 10*million),
		with("OneHot", "OneHot", ir.Attrs{"axis": -1}, func(r *rng) []*ir.Data {
			return []*ir.Data{seq64(10000, func(i int64) int64 { return i % 300 }), ir.I64s(nil, []int64{300}), ir.F32s([]int64{2}, []float32{0, 1})}
		}),
		with("ReverseSequence", "ReverseSequence", ir.Attrs{"time_axis": 0, "batch_axis": 1}, func(r *rng) []*ir.Data { return []*ir.Data{r.f32s(2, 2, 4*million), i64d(2, 1)} }),
		one("Trilu", ir.Attrs{"upper": 1}, 2, 8*million), one("EyeLike", ir.Attrs{"k": 0, "dtype": ir.F32}, 1, 10*million),
		with("LSTM", "LSTM", ir.Attrs{"hidden_size": 1024, "direction": "forward", "activations": []string{"Sigmoid", "Tanh", "Tanh"},
			"activation_alpha": []float64{0, 0, 0}, "activation_beta": []float64{0, 0, 0}},
			func(r *rng) []*ir.Data {
				return []*ir.Data{r.f32s(2, 1, 1024), r.f32s(1, 4096, 1024), r.f32s(1, 4096, 1024)}
			}, 1, 2),
		with("LSTM/variable", "LSTM", ir.Attrs{"hidden_size": 1024, "direction": "forward", "activations": []string{"Sigmoid", "Tanh", "Tanh"},
			"activation_alpha": []float64{0, 0, 0}, "activation_beta": []float64{0, 0, 0}},
			func(r *rng) []*ir.Data {
				return []*ir.Data{r.f32s(2, 1, 1024), r.f32s(1, 4096, 1024), r.f32s(1, 4096, 1024)}
			}),
		with("StringConcat", "StringConcat", nil, func(*rng) []*ir.Data {
			return []*ir.Data{bigTexts(million, func(i int) string { return fmt.Sprint("text ", i) }), bigTexts(1, func(int) string { return " and more" })}
		}),
		with("StringNormalizer", "StringNormalizer", ir.Attrs{"case_change_action": "UPPER"}, func(*rng) []*ir.Data {
			return []*ir.Data{bigTexts(million, func(i int) string { return fmt.Sprint("text ", i) })}
		}),
		with("StringNormalizer/one text", "StringNormalizer", ir.Attrs{"case_change_action": "UPPER"}, func(*rng) []*ir.Data {
			return []*ir.Data{bigTexts(2, func(int) string { return string(make([]byte, 4*million)) })}
		}),
		with("Equal/texts", "Equal", nil, func(*rng) []*ir.Data {
			a := bigTexts(million, func(i int) string { return fmt.Sprint("text ", i) })
			return []*ir.Data{a, a}
		}),
		with("StringSplit", "StringSplit", ir.Attrs{}, func(*rng) []*ir.Data {
			return []*ir.Data{bigTexts(million/4, func(i int) string { return fmt.Sprint("some text ", i) })}
		}),
	)
	return out
}

// big builds the graph; inputs have unknown sizes unless they are constants.
func (g bigGraph) build(t testing.TB) (*ir.Graph, []*ir.Data) {
	t.Helper()
	r := rng(71)
	all := g.ins(&r)
	b := ir.NewBuilder()
	var vals []*ir.Value
	var ins []*ir.Data
	for i, d := range all {
		kept := false
		for _, k := range g.kept {
			kept = kept || k == i
		}
		if kept {
			vals = append(vals, b.Const(fmt.Sprintf("w%d", i), d))
			continue
		}
		vals = append(vals, b.Param(fmt.Sprintf("x%d", i), d.Type()))
		ins = append(ins, d)
	}
	outs := map[string]int{"TopK": 2, "Unique": 4, "LSTM": 2, "StringSplit": 2}[g.op]
	var names []string
	for i := range max(outs, 1) {
		names = append(names, fmt.Sprintf("y%d", i))
	}
	graph, err := b.Graph("big", b.Ops(names, g.op, g.at, vals...)...)
	if err != nil {
		t.Fatalf("%s: %v", g.name, err)
	}
	return graph, ins
}

// BenchmarkResumeBig measures the resumes of graphs with huge tensors: go test -bench ResumeBig -benchtime 3x -v.
func BenchmarkResumeBig(b *testing.B) {
	for _, c := range bigGraphs() {
		b.Run(c.name, func(b *testing.B) {
			g, ins := c.build(b)
			reportTurns(b, g, ins...)
		})
	}
}
