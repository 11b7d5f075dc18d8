package bounds_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestHugeSizesAreRefused asks, by a few numbers, for tensors of gigabytes: every call must fail with a record or with the
// memory limit, name the node where the record is the module's, leave the memory below its limit, and the model usable.
func TestHugeSizesAreRefused(t *testing.T) {
	i64s := func(v ...int64) engine.Tensor { return engine.Of(v) }
	type want struct {
		code  abi.Code // 0: the host's limit
		limit bool
	}
	memory, overflow, shape, value := want{code: abi.ErrMemory}, want{code: abi.ErrOverflow}, want{code: abi.ErrShape}, want{code: abi.ErrValue}
	limit := want{limit: true}
	f32 := ir.TensorOf(ir.F32, ir.ShapeOf(ir.Unknown()))
	list := ir.TensorOf(ir.I64, ir.ShapeOf(ir.Unknown()))
	scalar := func(b *ir.Builder, v int64) *ir.Value {
		return b.Const(fmt.Sprintf("s%d", v), ir.I64s(nil, []int64{v}))
	}
	for _, c := range []struct {
		name string
		make func(b *ir.Builder, x, p *ir.Value) *ir.Value
		p    engine.Tensor // what p is
		want want
		fine engine.Tensor // another p, which works
	}{
		{"10 GB of constants", func(b *ir.Builder, _, p *ir.Value) *ir.Value { return b.Op("y", "ConstantOfShape", nil, p) }, i64s(50000, 50000), memory, i64s(5, 5)},
		{"1.6 GB of constants", func(b *ir.Builder, _, p *ir.Value) *ir.Value { return b.Op("y", "ConstantOfShape", nil, p) }, i64s(20000, 20000), limit, i64s(5, 5)},
		{"a product beyond 64 bits", func(b *ir.Builder, _, p *ir.Value) *ir.Value { return b.Op("y", "ConstantOfShape", nil, p) }, i64s(1<<31-1, 1<<31-1, 1<<31-1), memory, i64s(5, 5)},
		{"a dim beyond 31 bits", func(b *ir.Builder, _, p *ir.Value) *ir.Value { return b.Op("y", "ConstantOfShape", nil, p) }, i64s(math.MaxInt64), overflow, i64s(5)},
		{"a negative dim", func(b *ir.Builder, _, p *ir.Value) *ir.Value { return b.Op("y", "ConstantOfShape", nil, p) }, i64s(-1), shape, i64s(5)},
		{"a huge dim beside an empty one", func(b *ir.Builder, _, p *ir.Value) *ir.Value { return b.Op("y", "ConstantOfShape", nil, p) }, i64s(5, -2, 0), shape, i64s(0, 5)},
		{"expand", func(b *ir.Builder, x, p *ir.Value) *ir.Value { return b.Op("y", "Expand", nil, x, p) }, i64s(100000, 1000, 1), limit, i64s(2, 1)},
		{"expand beyond", func(b *ir.Builder, x, p *ir.Value) *ir.Value { return b.Op("y", "Expand", nil, x, p) }, i64s(1<<20, 1<<20, 1), memory, i64s(2, 1)},
		{"tile", func(b *ir.Builder, x, p *ir.Value) *ir.Value { return b.Op("y", "Tile", nil, x, p) }, i64s(1 << 28), limit, i64s(2)},
		{"tile beyond", func(b *ir.Builder, x, p *ir.Value) *ir.Value { return b.Op("y", "Tile", nil, x, p) }, i64s(1 << 40), value, i64s(2)},
		{"pad", func(b *ir.Builder, x, p *ir.Value) *ir.Value {
			return b.Op("y", "Pad", ir.Attrs{"mode": "constant"}, x, p)
		}, i64s(1<<28, 1<<28), limit, i64s(1, 1)},
		{"pad beyond", func(b *ir.Builder, x, p *ir.Value) *ir.Value { return b.Op("y", "Pad", ir.Attrs{"mode": "edge"}, x, p) }, i64s(1<<40, 0), value, i64s(1, 1)},
		{"range", func(b *ir.Builder, _, p *ir.Value) *ir.Value {
			return b.Op("y", "Range", nil, scalar(b, 0), b.Op("r", "ReduceSum", ir.Attrs{"keepdims": 0}, p), scalar(b, 1))
		}, i64s(1 << 28), limit, i64s(7)},
		{"range beyond", func(b *ir.Builder, _, p *ir.Value) *ir.Value {
			return b.Op("y", "Range", nil, scalar(b, 0), b.Op("r", "ReduceSum", ir.Attrs{"keepdims": 0}, p), scalar(b, 1))
		}, i64s(math.MaxInt64), overflow, i64s(7)},
		{"one hot", func(b *ir.Builder, x, p *ir.Value) *ir.Value {
			return b.Op("y", "OneHot", ir.Attrs{"axis": -1}, b.Const("ix", ir.I64s([]int64{3}, []int64{0, 1, 2})), p, b.Const("values", ir.F32s([]int64{2}, []float32{0, 1})))
		}, i64s(1 << 28), limit, i64s(4)},
		{"index out of range", func(b *ir.Builder, x, p *ir.Value) *ir.Value { return b.Op("y", "Gather", ir.Attrs{"axis": 0}, x, p) }, i64s(math.MaxInt64), want{code: abi.ErrIndex}, i64s(0)},
		{"index far below", func(b *ir.Builder, x, p *ir.Value) *ir.Value { return b.Op("y", "Gather", ir.Attrs{"axis": 0}, x, p) }, i64s(math.MinInt64), want{code: abi.ErrIndex}, i64s(-1)},
		{"reshape to an overflow", func(b *ir.Builder, x, p *ir.Value) *ir.Value {
			return b.Op("y", "Reshape", ir.Attrs{"allowzero": 0}, x, p)
		}, i64s(1<<32, 1<<32), shape, i64s(1, -1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := ir.NewBuilder()
			x, p := b.Param("x", f32), b.Param("p", list)
			g, err := b.Graph("g", c.make(b, x, p))
			if err != nil {
				t.Fatal(err)
			}
			const room = 256 << 20
			m := load(t, g, engine.Config{MemoryLimit: room}, nil)
			in := engine.Of([]float32{1})
			for range 2 {
				_, err = m.Run(t.Context(), []engine.Tensor{in, c.p})
				var ge *engine.GuestError
				switch {
				case c.want.limit:
					if !errors.Is(err, engine.ErrMemoryLimit) {
						t.Errorf("%v, want the memory limit", err)
					}
				case !errors.As(err, &ge) || ge.Code != c.want.code || ge.Node == "":
					t.Errorf("%v, want code %d and a node", err, c.want.code)
				}
				if peak := m.PeakMemory(); peak > room {
					t.Errorf("%d bytes of memory", peak)
				}
				if _, err := m.Run(t.Context(), []engine.Tensor{in, c.fine}); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
}

// TestGrowingLoopIsStopped runs a Loop without limit whose condition never turns false: the memory limit ends it, which it stays
// below although it collects a row each time.
func TestGrowingLoopIsStopped(t *testing.T) {
	b := ir.NewBuilder()
	x := b.Param("x", ir.TensorOf(ir.F32, ir.StaticShape(1000)))
	body := b.Sub()
	i, cond := body.Param("i", ir.TensorOf(ir.I64, ir.StaticShape())), body.Param("c", ir.TensorOf(ir.Bool, ir.StaticShape()))
	_ = i
	row := body.Op("row", "Neg", nil, x)
	res := b.Node([]string{"rows"}, "Loop", nil, []*ir.Region{body.Region(cond, row)}, nil, b.Const("go", ir.Bools(nil, []bool{true})))
	g, err := b.Graph("g", res[0])
	if err != nil {
		t.Fatal(err)
	}
	const room = 64 << 20
	m := load(t, g, engine.Config{MemoryLimit: room}, nil)
	_, err = m.Run(t.Context(), []engine.Tensor{engine.Of(make([]float32, 1000))})
	if !errors.Is(err, engine.ErrMemoryLimit) || m.PeakMemory() > room {
		t.Errorf("%v, %d bytes", err, m.PeakMemory())
	}
}
