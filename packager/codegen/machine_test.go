package codegen_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// network is a graph that touches most machinery: convolution, pooling, products, softmax, a branch, dynamic batch.
func network(t testing.TB) (*ir.Graph, []*ir.Data) {
	t.Helper()
	r := rng(99)
	b := ir.NewBuilder()
	x := b.Param("x", f32t(ir.Dim{Sym: "N"}, ir.Static(3), ir.Static(19), ir.Static(17)))
	flag := b.Param("flag", ir.TensorOf(ir.Bool, ir.StaticShape()))
	w := b.Const("w", r.f32s(8, 3, 3, 3))
	bias := b.Const("bias", r.f32s(8))
	win := ir.Attrs{"kernel_shape": []int{3, 3}, "strides": []int{1, 1}, "pads": []int{1, 1, 1, 1}, "dilations": []int{1, 1}}
	y := b.Op("conv", "Conv", win, x, w, bias)
	y = b.Op("relu", "Relu", nil, y)
	pool := ir.Attrs{"kernel_shape": []int{2, 2}, "strides": []int{2, 2}, "pads": []int{0, 0, 0, 0}, "dilations": []int{1, 1}}
	y = b.Op("pool", "MaxPool", pool, y)
	y = b.Op("flat", "Flatten", nil, y)
	y = b.Op("fc", "Gemm", ir.Attrs{"transB": 1}, y, b.Const("fc.w", r.f32s(40, 8*9*8)), b.Const("fc.b", r.f32s(40)))
	th, el := b.Sub(), b.Sub()
	a := th.Op("then", "Tanh", nil, y)
	e := el.Op("else", "Softmax", nil, y)
	res := b.Node([]string{"z"}, "If", nil, []*ir.Region{th.Region(a), el.Region(e)}, flag)
	g, err := b.Graph("network", res[0], y)
	if err != nil {
		t.Fatal(err)
	}
	return g, []*ir.Data{r.f32s(5, 3, 19, 17), ir.Bools(nil, []bool{true})}
}

func TestSlicesPartsAndMemoryKeepBits(t *testing.T) {
	g, ins := network(t)
	m := compile(t, g, codegen.Options{})
	want, err := m.run(ins...)
	if err != nil {
		t.Fatal(err)
	}
	if m.needs != 0 || m.mores != 0 {
		t.Errorf("%d need-memory and %d slices in a small run", m.needs, m.mores)
	}
	same := func(what string, got []*ir.Data, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for i := range want {
			if !bytes.Equal(got[i].Bytes, want[i].Bytes) {
				t.Errorf("%s: output %d differs", what, i)
			}
		}
	}
	m.budget = 200
	got, err := m.run(ins...)
	same("small budget", got, err)
	if m.mores < 100 {
		t.Errorf("only %d slices with a small budget", m.mores)
	}
	m.budget = 0
	m.arena = 0
	got, err = m.run(ins...)
	same("no arena", got, err)
	if m.needs < 2 {
		t.Errorf("only %d need-memory without an arena", m.needs)
	}
	m.budget = 1
	got, err = m.run(ins...)
	same("no arena and budget 1", got, err)

	p := compile(t, g, codegen.Options{Parallel: true, ParallelMin: 10_000})
	for _, reverse := range []bool{false, true} {
		p.reverse = reverse
		got, err = p.run(ins...)
		same("parallel", got, err)
		if p.parallels < 2 {
			t.Errorf("only %d parallel sections", p.parallels)
		}
	}

	i := load(t, g, m.res, wazero.NewRuntimeConfigInterpreter())
	got, err = i.run(ins...)
	same("wazero's interpreter", got, err)

	w := compile(t, g, codegen.Options{WeightsAbove: 1})
	if len(w.res.Weights) == 0 || len(w.res.Weights)%abi.PageSize != 0 || w.res.WeightsBase%abi.PageSize != 0 {
		t.Fatalf("weights image of %d bytes at %d", len(w.res.Weights), w.res.WeightsBase)
	}
	if at := w.call(abi.ExportWeights); at != w.res.WeightsBase {
		t.Errorf("waybill_weights is %d, want %d", at, w.res.WeightsBase)
	}
	got, err = w.run(ins...)
	same("weights image", got, err)
}

func TestContextsAreIndependent(t *testing.T) {
	// The same instance runs twice with different batches: nothing may stay behind from the first run.
	g, ins := network(t)
	m := compile(t, g, codegen.Options{})
	want, err := m.run(ins...)
	if err != nil {
		t.Fatal(err)
	}
	r := rng(3)
	if _, err := m.run(r.f32s(2, 3, 19, 17), ir.Bools(nil, []bool{false})); err != nil {
		t.Fatal(err)
	}
	got, err := m.run(ins...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !bytes.Equal(got[i].Bytes, want[i].Bytes) {
			t.Errorf("output %d differs after another run", i)
		}
	}
}

func TestDeterministicBytes(t *testing.T) {
	var first *codegen.Result
	for _, procs := range []int{1, 2, 2} {
		old := runtime.GOMAXPROCS(procs)
		g, _ := network(t)
		res, err := codegen.Compile(g, codegen.Options{WeightsAbove: 1})
		runtime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = res
		}
		if !bytes.Equal(first.Module, res.Module) || !bytes.Equal(first.Weights, res.Weights) {
			t.Fatal("two compilations of one graph differ")
		}
	}
}

func TestBindRefuses(t *testing.T) {
	g, ins := network(t)
	m := compile(t, g, codegen.Options{})
	cases := []struct {
		name string
		x    *ir.Data
		code abi.Code
	}{
		{"dtype", ir.F64s([]int64{1, 3, 19, 17}, make([]float64, 3*19*17)), abi.ErrDType},
		{"rank", ir.F32s([]int64{3, 19, 17}, make([]float32, 3*19*17)), abi.ErrRank},
		{"dim", ir.F32s([]int64{1, 3, 17, 19}, make([]float32, 3*19*17)), abi.ErrDim},
		{"negative dim", &ir.Data{DType: ir.F32, Dims: []int64{-1, 3, 19, 17}}, abi.ErrDim},
		{"huge dim", &ir.Data{DType: ir.F32, Dims: []int64{1 << 40, 3, 19, 17}}, abi.ErrDim},
		{"overflow", &ir.Data{DType: ir.F32, Dims: []int64{1 << 30, 3, 19, 17}}, abi.ErrOverflow},
		{"short data", &ir.Data{DType: ir.F32, Dims: []int64{2, 3, 19, 17}, Bytes: make([]byte, 16)}, abi.ErrShape},
	}
	for _, c := range cases {
		_, err := m.run(c.x, ins[1])
		var ge *guestError
		if !errors.As(err, &ge) || ge.code != c.code || ge.node != "inputs" {
			t.Errorf("%s: %v, want code %d at the inputs", c.name, err, c.code)
		}
	}
	if _, err := m.run(ins...); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

func TestRunErrorsAreRecords(t *testing.T) {
	i64s := func(v ...int64) *ir.Data { return ir.I64s([]int64{int64(len(v))}, v) }
	unk := ir.ShapeOf(ir.Unknown())
	type mk func(b *ir.Builder) *ir.Value
	x := func(b *ir.Builder) *ir.Value { return b.Param("x", ir.TensorOf(ir.F32, ir.Unranked())) }
	p := func(b *ir.Builder) *ir.Value { return b.Param("p", ir.TensorOf(ir.I64, unk)) }
	data := ir.F32s([]int64{2, 3}, []float32{1, 2, 3, 4, 5, 6})
	for _, c := range []struct {
		name string
		mk   mk
		p    *ir.Data
		code abi.Code
	}{
		{"gather past the end", func(b *ir.Builder) *ir.Value { return b.Op("bad", "Gather", nil, x(b), p(b)) }, i64s(2), abi.ErrIndex},
		{"gather before the start", func(b *ir.Builder) *ir.Value { return b.Op("bad", "Gather", nil, x(b), p(b)) }, i64s(-3), abi.ErrIndex},
		{"reshape to another count", func(b *ir.Builder) *ir.Value { return b.Op("bad", "Reshape", nil, x(b), p(b)) }, i64s(4, 2), abi.ErrShape},
		{"reshape with a hole", func(b *ir.Builder) *ir.Value { return b.Op("bad", "Reshape", nil, x(b), p(b)) }, i64s(-1, 4), abi.ErrShape},
		{"reshape to rank 9", func(b *ir.Builder) *ir.Value { return b.Op("bad", "Reshape", nil, x(b), p(b)) }, i64s(1, 1, 1, 1, 1, 1, 1, 1, 6), abi.ErrRank},
		{"fill too much", func(b *ir.Builder) *ir.Value { x(b); return b.Op("bad", "ConstantOfShape", nil, p(b)) }, i64s(1<<20, 1<<20), abi.ErrMemory},
		{"fill an absurd shape", func(b *ir.Builder) *ir.Value { x(b); return b.Op("bad", "ConstantOfShape", nil, p(b)) }, i64s(math.MaxInt64, 2), abi.ErrOverflow},
		{"expand apart", func(b *ir.Builder) *ir.Value { return b.Op("bad", "Expand", nil, x(b), p(b)) }, i64s(2, 4), abi.ErrShape},
	} {
		b := ir.NewBuilder()
		v := c.mk(b)
		g, err := b.Graph("g", v)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		m := compile(t, g, codegen.Options{})
		_, err = m.run(data, c.p)
		var ge *guestError
		if !errors.As(err, &ge) || ge.code != c.code || ge.node != g.Body.Nodes[0].Name {
			t.Errorf("%s: %v, want code %d", c.name, err, c.code)
		}
	}
}

func TestWrongStateIsRefused(t *testing.T) {
	g, ins := network(t)
	m := compile(t, g, codegen.Options{})
	if _, err := m.run(ins...); err != nil {
		t.Fatal(err)
	}
	ctx := uint64(m.call(abi.ExportHeap))
	for _, f := range []func() uint32{
		func() uint32 { return m.call(abi.ExportResume, ctx) },
		func() uint32 { return m.call(abi.ExportPart, ctx, 0) },
	} {
		if st := f(); abi.Status(st) != abi.Failed {
			t.Fatalf("status %d", st)
		}
		var ge *guestError
		if err := m.errorAt(uint32(ctx)); !errors.As(err, &ge) || ge.code != abi.ErrState {
			t.Fatalf("%v", err)
		}
	}
}

func TestUnsupportedIsTyped(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x", ir.TensorOf(ir.F8E5M2, ir.StaticShape(2)))
	g, err := b.Graph("g", b.Op("y", "Neg", nil, x))
	if err != nil {
		t.Skip(err)
	}
	_, err = codegen.Compile(g, codegen.Options{})
	var u *codegen.Unsupported
	if !errors.As(err, &u) || u.Reason == "" {
		t.Fatalf("%v", err)
	}
}

// TestStringsAreChecked feeds broken string inputs past the driver's packing.
func TestStringsAreChecked(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x", ir.TensorOf(ir.String, ir.ShapeOf(ir.Unknown())))
	g, err := b.Graph("g", b.Op("y", "StringNormalizer", ir.Attrs{"case_change_action": "UPPER"}, x))
	if err != nil {
		t.Fatal(err)
	}
	m := compile(t, g, codegen.Options{})
	out, err := m.run(ir.Strs([]int64{4}, []string{"äöß", "", "ﬁne x", "Ω日本"}))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(out[0].Strings); got != fmt.Sprint([]string{"ÄÖß", "", "ﬁNE X", "Ω日本"}) {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{"a\xff", "\xc3", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80"} {
		_, err := m.run(ir.Strs([]int64{2}, []string{"ok", bad}))
		var ge *guestError
		if !errors.As(err, &ge) || ge.code != abi.ErrString {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
