package codegen_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

// again times bind and resume of a context that run has laid out.
func (m *machine) again(b *testing.B) {
	b.Helper()
	ctx := context.Background()
	bind, resume := m.mod.ExportedFunction(abi.ExportBind), m.mod.ExportedFunction(abi.ExportResume)
	at := uint64(m.call(abi.ExportHeap))
	call := func(f api.Function) uint64 {
		r, err := f.Call(ctx, at)
		if err != nil {
			b.Fatal(err)
		}
		return r[0]
	}
	for b.Loop() {
		call(bind)
		for call(resume) == uint64(abi.More) {
		}
	}
}

func benchGraph(b *testing.B, g *ir.Graph, ins ...*ir.Data) {
	m := compile(b, g, codegen.Options{})
	m.arena = 64 << 20
	if _, err := m.run(ins...); err != nil {
		b.Fatal(err)
	}
	m.again(b)
}

func BenchmarkMatMul(b *testing.B) {
	for _, n := range []int64{64, 256, 512} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := rng(1)
			bl := ir.NewBuilder()
			x := bl.Param("x", f32t(st(n, n)...))
			g, err := bl.Graph("g", bl.Op("y", "MatMul", nil, x, bl.Const("w", r.f32s(n, n))))
			if err != nil {
				b.Fatal(err)
			}
			benchGraph(b, g, r.f32s(n, n))
			b.ReportMetric(2*float64(n*n*n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GF/s")
		})
	}
}

func BenchmarkConv(b *testing.B) {
	for _, c := range []struct {
		name       string
		in, out, k int
		size       int64
		group      int
	}{{"3x3_32_64_56", 32, 64, 3, 56, 1}, {"1x1_64_128_28", 64, 128, 1, 28, 1}, {"dw3x3_64_56", 64, 64, 3, 56, 64}, {"3x3_64_64_7", 64, 64, 3, 7, 1}} {
		b.Run(c.name, func(b *testing.B) {
			r := rng(1)
			bl := ir.NewBuilder()
			x := bl.Param("x", f32t(st(1, int64(c.in), c.size, c.size)...))
			p := c.k / 2
			w := bl.Const("w", r.f32s(int64(c.out), int64(c.in/c.group), int64(c.k), int64(c.k)))
			at := ir.Attrs{"kernel_shape": []int{c.k, c.k}, "strides": []int{1, 1}, "pads": []int{p, p, p, p}, "dilations": []int{1, 1}, "group": c.group}
			g, err := bl.Graph("g", bl.Op("y", "Conv", at, x, w))
			if err != nil {
				b.Fatal(err)
			}
			benchGraph(b, g, r.f32s(1, int64(c.in), c.size, c.size))
			b.ReportMetric(2*float64(c.size*c.size)*float64(c.out*c.in/c.group*c.k*c.k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GF/s")
		})
	}
}

// forest makes n perfect trees of the given depth over 30 features.
func forest(b *testing.B, n, depth int) *ir.Graph {
	r := rng(5)
	var roots, feat, mode, tr, fa, miss, begin, target []int64
	var thr []float32
	var w []float64
	var grow func(d int) int64
	grow = func(d int) int64 {
		if d == 0 {
			begin, target, w = append(begin, int64(len(target))), append(target, 0), append(w, r.float())
			return ^int64(len(begin) - 1)
		}
		at := len(feat)
		feat, mode, miss, thr = append(feat, int64(r.u()%30)), append(mode, 0), append(miss, 0), append(thr, float32(r.float()))
		tr, fa = append(tr, 0), append(fa, 0)
		x := grow(d - 1)
		y := grow(d - 1)
		tr[at], fa[at] = x, y
		return int64(at)
	}
	for i := 0; i < n; i++ {
		roots = append(roots, grow(depth))
	}
	begin = append(begin, int64(len(target)))
	bl := ir.NewBuilder()
	x := bl.Param("x", f32t(ir.Dim{Sym: "N"}, ir.Static(30)))
	y := bl.Op("y", "ml.TreeEnsemble", ir.Attrs{"n_targets": 1, "roots": roots, "node_feature": feat, "node_mode": mode, "node_threshold": ir.F32s([]int64{int64(len(thr))}, thr),
		"node_true": tr, "node_false": fa, "node_missing_true": miss, "leaf_begin": begin, "leaf_target": target,
		"leaf_weight": ir.F64s([]int64{int64(len(w))}, w), "base_values": ir.F64s([]int64{0}, nil)}, x)
	g, err := bl.Graph("g", y)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

func BenchmarkTrees(b *testing.B) {
	for _, c := range [][3]int{{100, 6, 1}, {100, 6, 1000}, {500, 8, 1}, {500, 8, 1000}} {
		b.Run(fmt.Sprintf("%dx%d_batch%d", c[0], c[1], c[2]), func(b *testing.B) {
			r := rng(8)
			benchGraph(b, forest(b, c[0], c[1]), r.f32s(int64(c[2]), 30))
			b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/float64(c[2]), "us/row")
		})
	}
}

func BenchmarkMLP(b *testing.B) {
	r := rng(2)
	bl := ir.NewBuilder()
	y := bl.Param("x", f32t(st(1, 30)...))
	last := int64(30)
	for i, n := range []int64{64, 32, 2} {
		y = bl.Op(fmt.Sprintf("fc%d", i), "Gemm", nil, y, bl.Const(fmt.Sprintf("w%d", i), r.f32s(last, n)), bl.Const(fmt.Sprintf("b%d", i), r.f32s(n)))
		if i < 2 {
			y = bl.Op(fmt.Sprintf("relu%d", i), "Relu", nil, y)
		}
		last = n
	}
	g, err := bl.Graph("g", y)
	if err != nil {
		b.Fatal(err)
	}
	benchGraph(b, g, r.f32s(1, 30))
}

func BenchmarkModels(b *testing.B) {
	dir := corpora(b)
	for _, name := range []string{"models/silero_vad_v5", "models/mnist_8", "models/magika_v3_3", "models/blazeface_front", "models-sklearn/text_tfidf_logreg", "models-sklearn/bc_gradboost"} {
		b.Run(filepath.Base(name), func(b *testing.B) {
			g, err := onnx.Read(context.Background(), filepath.Join(dir, filepath.FromSlash(name), "model.onnx"))
			if err != nil {
				b.Fatal(err)
			}
			var ins []*ir.Data
			sets, _ := filepath.Glob(filepath.Join(dir, filepath.FromSlash(name), "test_data_set_*"))
			ins, _ = readSet(b, g, sets[0])
			benchGraph(b, g, ins...)
		})
	}
}
