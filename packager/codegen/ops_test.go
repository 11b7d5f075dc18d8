package codegen_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Each case is a graph of one operator and inputs; the compiled module must agree with the interpreter bit for bit.

type opCase struct {
	name string
	op   string
	at   ir.Attrs
	ins  []*ir.Data // nil: absent
	outs int
	// static fixes the parameters' dims; otherwise ranks and dims are known only at run time.
	static bool
}

// weights makes input 1 a constant, which has kernels of its own.
func (c opCase) weights(t *testing.T) {
	t.Helper()
	c.run(t)
	if c.ins[1].DType != ir.F32 {
		return
	}
	for _, dynamic := range []bool{false, true} {
		b := ir.NewBuilder()
		var vals []*ir.Value
		var ins []*ir.Data
		for i, d := range c.ins {
			switch {
			case d == nil:
				vals = append(vals, nil)
				continue
			case i == 1:
				vals = append(vals, b.Const("w", d))
				continue
			}
			ty := d.Type()
			if dynamic {
				dims := make([]ir.Dim, len(d.Dims))
				for j := range dims {
					dims[j] = ir.Unknown()
				}
				ty = ir.TensorOf(d.DType, ir.ShapeOf(dims...))
			}
			vals = append(vals, b.Param(fmt.Sprintf("in%d", i), ty))
			ins = append(ins, d)
		}
		g, err := b.Graph("g", b.Op("y", c.op, c.at, vals...))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		t.Run(c.name+"/constant", func(t *testing.T) {
			m := compile(t, g, codegen.Options{})
			against(t, m, ins)
			if !t.Failed() {
				m.budget, m.arena = 3, 0
				against(t, m, ins)
			}
		})
	}
}

func (c opCase) run(t *testing.T) {
	t.Helper()
	b := ir.NewBuilder()
	var vals []*ir.Value
	var ins []*ir.Data
	for i, d := range c.ins {
		if d == nil {
			vals = append(vals, nil)
			continue
		}
		ty := ir.TensorOf(d.DType, ir.Unranked())
		if c.static {
			ty = d.Type()
		} else if i > 0 || c.op == "Conv" {
			dims := make([]ir.Dim, len(d.Dims))
			for j := range dims {
				dims[j] = ir.Unknown()
			}
			ty = ir.TensorOf(d.DType, ir.ShapeOf(dims...))
		}
		vals = append(vals, b.Param(fmt.Sprintf("in%d", i), ty))
		ins = append(ins, d)
	}
	var names []string
	for i := 0; i < max(c.outs, 1); i++ {
		names = append(names, fmt.Sprintf("out%d", i))
	}
	res := b.Ops(names, c.op, c.at, vals...)
	g, err := b.Graph("g", res...)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	t.Run(c.name, func(t *testing.T) {
		m := compile(t, g, codegen.Options{})
		against(t, m, ins)
		if !t.Failed() {
			m.budget, m.arena = 3, 0
			against(t, m, ins)
		}
		if !t.Failed() {
			// Everything cut into the smallest pieces.
			m = compile(t, g, codegen.Options{UnitMost: 1})
			m.budget, m.arena = 3, 0
			against(t, m, ins)
		}
	})
}

var numeric = []ir.DType{ir.F32, ir.F64, ir.F16, ir.BF16, ir.I8, ir.I16, ir.I32, ir.I64, ir.U8, ir.U16, ir.U32, ir.U64}

// special are values at the edges of every type.
var special = []float64{0, math.Copysign(0, -1), 1, -1, 0.5, -0.5, 1.5, 2.5, 3, -7, 100, -100, 127, 128, 255, 256, -128, -129, 32767, 65504, 65520, 1e5, 2147483647, -2147483648,
	4294967295, 1e10, -1e10, 9.2e18, -9.3e18, 1.8e19, 1e20, 1e30, -1e30, 3.4e38, 1e39, 1e300, 1e-40, 1e-310, 5e-324, 1e-20, math.Inf(1), math.Inf(-1), math.NaN(), 0.624, 0.626, 0.92, 0.93, 88.7, 88.8, -87.5, -103.9, -104.1, 709.7, 710, -745}

// tensor makes one of dtype dt with values that mix the special ones and random ones.
func (r *rng) tensor(dt ir.DType, dims ...int64) *ir.Data {
	n, _ := ir.Elements(dims)
	d := &ir.Data{DType: dt, Dims: dims}
	for i := int64(0); i < n; i++ {
		u := r.u()
		v := r.float() * 8
		if u%3 == 0 {
			v = special[u/3%uint64(len(special))]
		}
		d.Bytes = append(d.Bytes, encode(dt, v, u)...)
	}
	return d
}

// plain makes moderate values only.
func (r *rng) plain(dt ir.DType, dims ...int64) *ir.Data {
	n, _ := ir.Elements(dims)
	d := &ir.Data{DType: dt, Dims: dims}
	for i := int64(0); i < n; i++ {
		d.Bytes = append(d.Bytes, encode(dt, r.float()*4, r.u()%19)...)
	}
	return d
}

func encode(dt ir.DType, v float64, u uint64) []byte {
	le := binary.LittleEndian
	switch dt {
	case ir.F32:
		return le.AppendUint32(nil, math.Float32bits(float32(v)))
	case ir.F64:
		return le.AppendUint64(nil, math.Float64bits(v))
	case ir.BF16:
		return le.AppendUint16(nil, uint16(math.Float32bits(float32(v))>>16))
	case ir.F16:
		if v == v && math.Abs(v) < 60000 {
			f := math.Float32bits(float32(v))
			e := int(f>>23&255) - 112
			if e > 0 && e < 31 {
				return le.AppendUint16(nil, uint16(f>>16&0x8000)|uint16(e)<<10|uint16(f>>13&0x3ff))
			}
		}
		return le.AppendUint16(nil, uint16(u))
	case ir.Bool:
		return []byte{byte(u & 1)}
	}
	b := le.AppendUint64(nil, u)
	if u%2 == 0 {
		b = le.AppendUint64(nil, uint64(int64(v)))
		if v != v || math.Abs(v) > 9e18 {
			b = le.AppendUint64(nil, 1<<63)
		}
	}
	return b[:dt.Bits()/8]
}

func i64d(v ...int64) *ir.Data { return ir.I64s([]int64{int64(len(v))}, v) }

func TestElementwiseExact(t *testing.T) {
	once.Skip(t)
	r := rng(11)
	shapes := [][2][]int64{
		{{300}, {300}}, {{3, 1, 5}, {4, 1}}, {{}, {7}}, {{2, 3}, {}}, {{0, 3}, {3}}, {{4, 1, 1}, {1, 5, 6}}, {{2, 3, 4, 5}, {3, 1, 5}}, {{1}, {1}},
		{{1, 1, 1, 1, 1, 1, 1, 2}, {2, 1}},
	}
	for _, op := range []string{"Add", "Sub", "Mul", "Div", "Min", "Max", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Mod", "Pow"} {
		for _, dt := range numeric {
			for i, s := range shapes {
				if i > 1 && dt != ir.F32 && dt != ir.I8 {
					continue
				}
				at := ir.Attrs{}
				if op == "Mod" && dt.IsFloat() {
					at["fmod"] = 1
				}
				opCase{fmt.Sprintf("%s/%s/%d", op, dt, i), op, at, []*ir.Data{r.tensor(dt, s[0]...), r.tensor(dt, s[1]...)}, 1, false}.run(t)
			}
		}
	}
	for _, op := range []string{"And", "Or", "Xor"} {
		opCase{op, op, nil, []*ir.Data{r.tensor(ir.Bool, 3, 5), r.tensor(ir.Bool, 5)}, 1, false}.run(t)
	}
	opCase{"Mod/ints", "Mod", ir.Attrs{"fmod": 1}, []*ir.Data{r.tensor(ir.I32, 200), r.tensor(ir.I32, 200)}, 1, true}.run(t)
	for _, e := range []ir.DType{ir.I64, ir.I32} {
		for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16} {
			opCase{fmt.Sprintf("Pow/%s/%s", dt, e), "Pow", nil, []*ir.Data{r.tensor(dt, 500), r.plain(e, 500)}, 1, true}.run(t)
		}
	}
	for _, op := range []string{"Neg", "Abs", "Sign", "Relu", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh"} {
		for i, dt := range numeric {
			if !dt.IsFloat() && (op[0] == 'F' || op[0] == 'C' || op == "Round" || op == "Sqrt" || op == "Exp" || op == "Log" || op == "Erf" || op == "Sigmoid" || op == "Tanh") {
				continue
			}
			for _, n := range []int64{0, 1, 3, 1003} {
				opCase{fmt.Sprintf("%s/%s/%d", op, dt, n), op, nil, []*ir.Data{r.tensor(dt, n)}, 1, i%2 == 0}.run(t)
			}
		}
	}
	opCase{"Not", "Not", nil, []*ir.Data{r.tensor(ir.Bool, 9)}, 1, false}.run(t)
	all := append([]ir.DType{ir.Bool}, numeric...)
	for _, a := range all {
		for _, b := range all {
			opCase{fmt.Sprintf("Cast/%s/%s", a, b), "Cast", ir.Attrs{"to": b}, []*ir.Data{r.tensor(a, 300)}, 1, false}.run(t)
		}
		opCase{fmt.Sprintf("Where/%s", a), "Where", nil, []*ir.Data{r.tensor(ir.Bool, 3, 1), r.tensor(a, 3, 4), r.tensor(a, 4)}, 1, false}.run(t)
	}
	s := ir.Strs([]int64{2, 2}, []string{"a", "", "bc", "ä"})
	opCase{"Where/string", "Where", nil, []*ir.Data{r.tensor(ir.Bool, 2), s, ir.Strs(nil, []string{"zz"})}, 1, true}.run(t)
	opCase{"Equal/string", "Equal", nil, []*ir.Data{s, ir.Strs([]int64{2}, []string{"bc", ""})}, 1, true}.run(t)
}

func TestMovementExact(t *testing.T) {
	once.Skip(t)
	r := rng(12)
	strs := func(dims ...int64) *ir.Data {
		n, _ := ir.Elements(dims)
		d := &ir.Data{DType: ir.String, Dims: dims}
		for i := int64(0); i < n; i++ {
			d.Strings = append(d.Strings, fmt.Sprintf("%x", r.u()%1000)[:r.u()%2+1])
		}
		return d
	}
	for _, dt := range []ir.DType{ir.F32, ir.I8, ir.I64, ir.F16, ir.String} {
		mk := func(dims ...int64) *ir.Data {
			if dt == ir.String {
				return strs(dims...)
			}
			return r.tensor(dt, dims...)
		}
		x := mk(3, 4, 5)
		c := func(name, op string, at ir.Attrs, ins ...*ir.Data) {
			opCase{fmt.Sprintf("%s/%s", name, dt), op, at, ins, 1, false}.run(t)
		}
		c("transpose", "Transpose", ir.Attrs{"perm": []int64{2, 0, 1}}, x)
		c("reverse dims", "Transpose", nil, x)
		c("expand", "Expand", nil, mk(3, 1), i64d(2, 1, 4))
		c("expand empty", "Expand", nil, mk(3, 1), i64d(3, 0))
		c("slice", "Slice", nil, x, i64d(1, -3), i64d(100, -1), i64d(0, 2), i64d(1, 1))
		c("slice backwards", "Slice", nil, x, i64d(-1, 10, 3), i64d(-100, -6, 0), i64d(-3, 1, -1), i64d(-1, -2, -1))
		c("slice nothing", "Slice", nil, x, i64d(3), i64d(1), i64d(1))
		c("slice extremes", "Slice", nil, x, i64d(math.MaxInt64, 0), i64d(math.MinInt64, math.MaxInt64), i64d(0, 1), i64d(math.MinInt64, math.MaxInt64))
		c("slice without axes", "Slice", nil, x, i64d(1, 1, 1), i64d(2, 3, 4))
		c("concat", "Concat", ir.Attrs{"axis": 1}, x, mk(3, 2, 5), mk(3, 0, 5))
		c("concat last", "Concat", ir.Attrs{"axis": -1}, x, mk(3, 4, 1))
		c("concat first", "Concat", ir.Attrs{"axis": 0}, mk(1), mk(5), mk(0))
		c("gather", "Gather", ir.Attrs{"axis": 1}, x, ir.I64s([]int64{2, 2}, []int64{0, -1, 3, -4}))
		c("gather scalar", "Gather", ir.Attrs{"axis": -1}, x, ir.I64s(nil, []int64{2}))
		c("gather none", "Gather", ir.Attrs{"axis": 0}, x, i64d())
		c("gather out of range", "Gather", ir.Attrs{"axis": 0}, x, i64d(0, 3))
		c("tile", "Tile", nil, x, i64d(2, 1, 3))
		c("tile none", "Tile", nil, x, i64d(2, 0, 3))
		for _, mode := range []string{"constant", "edge", "reflect", "wrap"} {
			c("pad "+mode, "Pad", ir.Attrs{"mode": mode}, x, i64d(1, 0, 3, 0, 2, 1))
			c("crop "+mode, "Pad", ir.Attrs{"mode": mode}, x, i64d(-1, 0, 2, 1, -2, -1))
		}
		c("pad value and axes", "Pad", nil, x, i64d(2, 1), mk(), i64d(-1))
		c("reshape", "Reshape", nil, x, i64d(0, -1, 10))
		c("flatten", "Flatten", ir.Attrs{"axis": 2}, x)
		c("squeeze", "Squeeze", nil, mk(1, 3, 1, 2))
		c("squeeze one", "Squeeze", nil, mk(1, 3, 1, 2), i64d(-2))
		c("unsqueeze", "Unsqueeze", nil, x, i64d(0, -1))
		c("shape", "Shape", ir.Attrs{"start": -2}, x)
		c("size", "Size", nil, x)
		opCase{"split equal/" + dt.String(), "Split", ir.Attrs{"axis": 1, "num_outputs": 3}, []*ir.Data{mk(2, 7)}, 3, false}.run(t)
		opCase{"split sizes/" + dt.String(), "Split", ir.Attrs{"axis": -1, "num_outputs": 3}, []*ir.Data{mk(2, 7), i64d(1, 0, 6)}, 3, false}.run(t)
		if dt != ir.String {
			c("onehot", "OneHot", ir.Attrs{"axis": 1}, i64d(0, -1, 7, 2), ir.I64s(nil, []int64{4}), mk(2))
		}
	}
	c := func(name, op string, ins ...*ir.Data) { opCase{name, op, nil, ins, 1, false}.run(t) }
	f := func(v float32) *ir.Data { return ir.F32s(nil, []float32{v}) }
	i := func(v int64) *ir.Data { return ir.I64s(nil, []int64{v}) }
	c("range", "Range", f(1), f(7.3), f(0.7))
	c("range down", "Range", f(1), f(-7.3), f(-0.7))
	c("range empty", "Range", f(1), f(0), f(1))
	c("range i64", "Range", i(10), i(-3), i(-4))
	opCase{"fill", "ConstantOfShape", ir.Attrs{"value": r.tensor(ir.I16, 1)}, []*ir.Data{i64d(3, 2)}, 1, false}.run(t)
	opCase{"fill scalar", "ConstantOfShape", nil, []*ir.Data{i64d()}, 1, false}.run(t)
}

func TestReductionsExact(t *testing.T) {
	once.Skip(t)
	r := rng(13)
	for _, op := range []string{"ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"} {
		for _, dt := range numeric {
			if op == "ReduceMean" && !dt.IsFloat() && dt.Bits() < 32 {
				continue
			}
			for i, axes := range []*ir.Data{nil, i64d(1), i64d(-1), i64d(0, 2), i64d(0, 1), i64d(1, 3)} {
				if i > 1 && dt != ir.F32 && dt != ir.F64 {
					continue
				}
				for _, keep := range []int{0, 1} {
					opCase{fmt.Sprintf("%s/%s/%d%d", op, dt, i, keep), op, ir.Attrs{"keepdims": keep}, []*ir.Data{r.plain(dt, 3, 5, 2, 11), axes}, 1, false}.run(t)
				}
			}
		}
		opCase{op + "/empty", op, nil, []*ir.Data{r.plain(ir.F32, 3, 0), i64d(1)}, 1, false}.run(t)
		opCase{op + "/scalar", op, nil, []*ir.Data{r.plain(ir.F32)}, 1, false}.run(t)
		opCase{op + "/special", op, nil, []*ir.Data{r.tensor(ir.F32, 50, 9), i64d(1)}, 1, false}.run(t)
	}
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16, ir.I32, ir.U8} {
		for axis := -1; axis < 2; axis++ {
			for _, last := range []int{0, 1} {
				for _, op := range []string{"ArgMax", "ArgMin"} {
					opCase{fmt.Sprintf("%s/%s/%d%d", op, dt, axis, last), op, ir.Attrs{"axis": axis, "select_last_index": last, "keepdims": last}, []*ir.Data{r.tensor(dt, 4, 9, 3)}, 1, false}.run(t)
				}
			}
			for _, k := range []int64{0, 1, 4} {
				x := r.tensor(dt, 4, 9, 5)
				opCase{fmt.Sprintf("TopK/%s/%d/%d", dt, axis, k), "TopK", ir.Attrs{"axis": axis, "largest": int(k % 2)}, []*ir.Data{x, i64d(k)}, 2, false}.run(t)
			}
			if dt.IsFloat() {
				opCase{fmt.Sprintf("Softmax/%s/%d", dt, axis), "Softmax", ir.Attrs{"axis": axis}, []*ir.Data{r.plain(dt, 4, 19, 3)}, 1, false}.run(t)
				opCase{fmt.Sprintf("Softmax/special/%s/%d", dt, axis), "Softmax", ir.Attrs{"axis": axis}, []*ir.Data{r.tensor(dt, 40, 3, 2)}, 1, false}.run(t)
			}
		}
	}
}

func TestProductsAndWindowsExact(t *testing.T) {
	once.Skip(t)
	r := rng(14)
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.I32, ir.F16, ir.U8} {
		for i, s := range [][2][]int64{{{3}, {3}}, {{2, 3}, {3}}, {{3}, {3, 2}}, {{4, 1, 2, 3}, {5, 3, 70}}, {{2, 5, 33}, {33, 17}}, {{0, 3}, {3, 2}}, {{2, 0}, {0, 3}}, {{1, 50}, {50, 19}}, {{13, 270}, {270, 41}}, {{2, 5, 16}, {16, 8}}, {{4, 300}, {300, 7}}} {
			opCase{fmt.Sprintf("MatMul/%s/%d", dt, i), "MatMul", nil, []*ir.Data{r.plain(dt, s[0]...), r.plain(dt, s[1]...)}, 1, false}.weights(t)
		}
		for i := 0; i < 8; i++ {
			a, b := []int64{5, 7}, []int64{7, 21}
			if i&1 != 0 {
				a = []int64{7, 5}
			}
			if i&2 != 0 {
				b = []int64{21, 7}
			}
			at := ir.Attrs{"transA": i & 1, "transB": i >> 1 & 1}
			if i&4 != 0 {
				at["alpha"], at["beta"] = 0.5, 2.0
			}
			if !dt.IsFloat() && i&4 != 0 {
				at["alpha"] = 3.0
			}
			c := []*ir.Data{nil, r.plain(dt, 21), r.plain(dt, 5, 1), r.plain(dt)}[i%4]
			opCase{fmt.Sprintf("Gemm/%s/%d", dt, i), "Gemm", at, []*ir.Data{r.plain(dt, a...), r.plain(dt, b...), c}, 1, false}.weights(t)
		}
	}
	win := func(k, s, p, d []int, more ir.Attrs) ir.Attrs {
		a := ir.Attrs{"kernel_shape": k, "strides": s, "pads": p, "dilations": d}
		for n, v := range more {
			a[n] = v
		}
		return a
	}
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16} {
		c := func(name string, x, w []int64, b bool, at ir.Attrs) {
			var bias *ir.Data
			if b {
				bias = r.plain(dt, w[0])
			}
			opCase{"Conv/" + dt.String() + "/" + name, "Conv", at, []*ir.Data{r.plain(dt, x...), r.plain(dt, w...), bias}, 1, true}.weights(t)
		}
		c("3x3", []int64{2, 3, 9, 23}, []int64{4, 3, 3, 3}, true, win([]int{3, 3}, []int{1, 1}, []int{1, 1, 1, 1}, []int{1, 1}, nil))
		c("strided", []int64{1, 4, 11, 30}, []int64{6, 2, 3, 5}, false, win([]int{3, 5}, []int{2, 3}, []int{1, 0, 2, 4}, []int{2, 1}, ir.Attrs{"group": 2}))
		c("depthwise", []int64{1, 5, 8, 40}, []int64{5, 1, 3, 3}, true, win([]int{3, 3}, []int{1, 1}, []int{2, 2, 2, 2}, []int{2, 2}, ir.Attrs{"group": 5}))
		c("depthwise strided", []int64{2, 5, 19, 41}, []int64{5, 1, 3, 3}, true, win([]int{3, 3}, []int{2, 2}, []int{1, 1, 1, 1}, []int{1, 1}, ir.Attrs{"group": 5}))
		c("depthwise many taps", []int64{1, 3, 20, 22}, []int64{6, 1, 5, 7}, false, win([]int{5, 7}, []int{1, 3}, []int{2, 0, 4, 5}, []int{1, 2}, ir.Attrs{"group": 3}))
		c("depthwise small", []int64{1, 4, 7, 7}, []int64{4, 1, 3, 3}, true, win([]int{3, 3}, []int{1, 1}, []int{1, 1, 1, 1}, []int{1, 1}, ir.Attrs{"group": 4}))
		c("depthwise 1d", []int64{2, 3, 61}, []int64{3, 1, 5}, true, win([]int{5}, []int{2}, []int{4, 1}, []int{1}, ir.Attrs{"group": 3}))
		c("1x1", []int64{3, 7, 5, 5}, []int64{9, 7, 1, 1}, true, win([]int{1, 1}, []int{1, 1}, []int{0, 0, 0, 0}, []int{1, 1}, nil))
		c("1d", []int64{2, 3, 50}, []int64{4, 3, 7}, true, win([]int{7}, []int{2}, []int{3, 3}, []int{1}, nil))
		c("3d", []int64{1, 2, 4, 5, 9}, []int64{3, 2, 2, 3, 3}, false, win([]int{2, 3, 3}, []int{1, 2, 1}, []int{0, 1, 1, 1, 1, 1}, []int{1, 1, 1}, nil))
		c("blocks", []int64{1, 11, 6, 9}, []int64{5, 11, 3, 3}, true, win([]int{3, 3}, []int{1, 1}, []int{1, 1, 1, 1}, []int{1, 1}, nil))
		c("long runs", []int64{1, 40, 5, 7}, []int64{9, 40, 2, 3}, false, win([]int{2, 3}, []int{2, 1}, []int{1, 2, 1, 2}, []int{1, 2}, nil))
		c("groups", []int64{2, 34, 5, 6}, []int64{26, 17, 3, 3}, true, win([]int{3, 3}, []int{1, 2}, []int{1, 1, 1, 1}, []int{1, 1}, ir.Attrs{"group": 2}))
		c("one column", []int64{2, 3, 40, 1}, []int64{4, 3, 5, 1}, true, win([]int{5, 1}, []int{1, 1}, []int{2, 0, 2, 0}, []int{1, 1}, nil))
		c("wide padding", []int64{1, 1, 2, 2}, []int64{1, 1, 3, 3}, false, win([]int{3, 3}, []int{1, 1}, []int{5, 5, 5, 5}, []int{1, 1}, nil))
		c("negative padding", []int64{1, 1, 9, 19}, []int64{1, 1, 3, 3}, false, win([]int{3, 3}, []int{1, 2}, []int{-1, -2, -1, -3}, []int{1, 1}, nil))
		for _, same := range []string{"SAME_UPPER", "SAME_LOWER"} {
			at := win([]int{4, 3}, []int{3, 2}, []int{0, 0, 0, 0}, []int{1, 1}, ir.Attrs{"auto_pad": same})
			opCase{"Conv/" + dt.String() + "/" + same, "Conv", at, []*ir.Data{r.plain(dt, 1, 2, 10, 12), r.plain(dt, 3, 2, 4, 3)}, 1, false}.weights(t)
		}
		// Fewer elements than a window has, by less than a stride.
		for i, dims := range [][]int64{{1, 2, 1, 1}, {2, 1, 2, 9}, {1, 3, 7, 1}, {1, 1, 2, 2}} {
			at := win([]int{3, 3}, []int{3, 3}, []int{0, 0, 0, 0}, []int{1, 1}, ir.Attrs{"ceil_mode": 1})
			opCase{fmt.Sprintf("MaxPool/%s/small/%d", dt, i), "MaxPool", at, []*ir.Data{r.tensor(dt, dims...)}, 2, true}.run(t)
			for _, pad := range []int{0, 1} {
				at["count_include_pad"] = pad
				opCase{fmt.Sprintf("AveragePool/%s/small/%d%d", dt, i, pad), "AveragePool", at, []*ir.Data{r.plain(dt, dims...)}, 1, true}.run(t)
			}
		}
		for _, ceil := range []int{0, 1} {
			for i, at := range []ir.Attrs{
				win([]int{2, 2}, []int{2, 2}, []int{0, 0, 0, 0}, []int{1, 1}, nil),
				win([]int{3, 3}, []int{2, 2}, []int{1, 1, 1, 1}, []int{1, 1}, nil),
				win([]int{3, 2}, []int{1, 3}, []int{2, 0, 1, 1}, []int{2, 1}, nil),
			} {
				at["ceil_mode"] = ceil
				opCase{fmt.Sprintf("MaxPool/%s/%d%d", dt, i, ceil), "MaxPool", at, []*ir.Data{r.tensor(dt, 2, 3, 7, 9)}, 1, true}.run(t)
				at["storage_order"] = i % 2
				opCase{fmt.Sprintf("MaxPool/indices/%s/%d%d", dt, i, ceil), "MaxPool", at, []*ir.Data{r.tensor(dt, 2, 3, 7, 9)}, 2, true}.run(t)
				delete(at, "storage_order")
				for _, pad := range []int{0, 1} {
					at["count_include_pad"] = pad
					opCase{fmt.Sprintf("AveragePool/%s/%d%d%d", dt, i, ceil, pad), "AveragePool", at, []*ir.Data{r.plain(dt, 2, 3, 7, 9)}, 1, true}.run(t)
				}
				delete(at, "count_include_pad")
			}
		}
		opCase{"BatchNorm/" + dt.String(), "BatchNormalization", nil, []*ir.Data{r.plain(dt, 2, 3, 5, 3), r.plain(dt, 3), r.plain(dt, 3), r.plain(dt, 3), abs(r.plain(dt, 3))}, 1, false}.run(t)
	}
}

// abs clears the sign bits of a float tensor.
func abs(d *ir.Data) *ir.Data {
	w := d.DType.Bits() / 8
	for i := w - 1; i < len(d.Bytes); i += w {
		d.Bytes[i] &= 0x7f
	}
	return d
}

func TestRecurrentExact(t *testing.T) {
	r := rng(15)
	gates := map[string]int64{"RNN": 1, "GRU": 3, "LSTM": 4}
	acts := map[string][]string{"RNN": {"Tanh"}, "GRU": {"Sigmoid", "Tanh"}, "LSTM": {"Sigmoid", "Tanh", "Tanh"}}
	other := map[string][]string{"RNN": {"Relu"}, "GRU": {"HardSigmoid", "Softsign"}, "LSTM": {"HardSigmoid", "Elu", "Affine"}}
	const seq, batch, in, hid = 4, 3, 5, 7
	for op, g := range gates {
		for i, dir := range []string{"forward", "reverse", "bidirectional", "forward"} {
			dirs := int64(1)
			as := append([]string{}, acts[op]...)
			if i == 3 {
				as = append([]string{}, other[op]...)
			}
			if dir == "bidirectional" {
				dirs = 2
				as = append(as, other[op]...)
			}
			var al, be []float64
			for range as {
				al, be = append(al, 0.3), append(be, 0.25)
			}
			at := ir.Attrs{"hidden_size": hid, "direction": dir, "activations": as, "activation_alpha": al, "activation_beta": be}
			ins := []*ir.Data{r.plain(ir.F32, seq, batch, in), r.plain(ir.F32, dirs, g*hid, in), r.plain(ir.F32, dirs, g*hid, hid)}
			outs := 2
			if i > 0 {
				ins = append(ins, r.plain(ir.F32, dirs, 2*g*hid))
			} else {
				ins = append(ins, nil)
			}
			if i > 1 {
				ins = append(ins, ir.I32s([]int64{batch}, []int32{4, 0, 2}), r.plain(ir.F32, dirs, batch, hid))
				at["clip"] = 1.5
			}
			switch op {
			case "GRU":
				at["linear_before_reset"] = i % 2
			case "LSTM":
				outs = 3
				at["input_forget"] = i / 3
				if i > 1 {
					ins = append(ins, r.plain(ir.F32, dirs, batch, hid), r.plain(ir.F32, dirs, 3*hid))
				}
			}
			opCase{fmt.Sprintf("%s/%d", op, i), op, at, ins, outs, true}.run(t)
		}
	}
}

func TestTextExact(t *testing.T) {
	once.Skip(t)
	text := ir.Strs([]int64{3}, []string{"The quick_brown fox, 12 foxes; ÄÖ straße", "", "a-b--c  d\ne 日本語 x1"})
	opc := func(name, op string, at ir.Attrs, x *ir.Data) { opCase{name, op, at, []*ir.Data{x}, 1, true}.run(t) }
	for i, exp := range []string{`[a-zA-Z]+`, `\w+`, `\b\w\w+\b`, `[^\s]+`, `fox|foxes`, `(a|ab)(c|bcd)?`, `\p{L}+`, `(?i)THE`, `^.`, `x*`, `.$`, `[0-9]{1,2}`, `(?m)^\w`} {
		for _, minc := range []int{1, 3} {
			opc(fmt.Sprintf("tokenexp/%d/%d", i, minc), "ms.Tokenizer", ir.Attrs{"tokenexp": exp, "pad_value": "#", "mincharnum": minc, "mark": i % 2}, text)
		}
	}
	for i, seps := range [][]string{{" "}, {""}, {"--", "-"}, {"[ ,;]+"}, {"\\s", "_"}} {
		opc(fmt.Sprintf("separators/%d", i), "ms.Tokenizer", ir.Attrs{"separators": seps, "pad_value": "", "mark": i % 2}, text)
	}
	words := ir.Strs([]int64{5}, []string{"The", "the", "FOX", "ÄRGER", "fox"})
	for _, cs := range []int{0, 1} {
		for _, act := range []string{"NONE", "LOWER", "UPPER"} {
			for i, stop := range [][]string{{}, {"the", "ärger"}, {"The", "the", "FOX", "fox", "ÄRGER"}} {
				opc(fmt.Sprintf("normalise/%d/%s/%d", cs, act, i), "StringNormalizer", ir.Attrs{"case_change_action": act, "is_case_sensitive": cs, "stopwords": stop}, words)
			}
		}
	}
	toks := ir.Strs([]int64{2, 6}, []string{"a", "b", "a", "c", "b", "a", "c", "c", "a", "b", "x", "b"})
	pool := ir.Strs([]int64{9}, []string{"a", "b", "x", "a", "b", "b", "a", "c", "a"})
	nums := ir.I64s([]int64{2, 6}, []int64{1, 2, 1, 3, 2, 1, 3, 3, 1, 2, 9, 2})
	npool := ir.I64s([]int64{9}, []int64{1, 2, 9, 1, 2, 2, 1, 3, 1})
	for _, mode := range []string{"TF", "IDF", "TFIDF"} {
		for i, l := range [][3]int{{1, 1, 0}, {1, 2, 0}, {2, 2, 3}, {1, 2, 5}} {
			at := ir.Attrs{"mode": mode, "min_gram_length": l[0], "max_gram_length": l[1], "max_skip_count": l[2], "ngram_counts": []int{0, 3},
				"ngram_indexes": []int{2, 0, 1, 5, 4, 3}, "weights": ir.F32s([]int64{6}, []float32{1, 0.5, 2, 3, 0.25, 7})}
			at["pool"] = pool
			opc(fmt.Sprintf("tfidf/%s/%d", mode, i), "TfIdfVectorizer", at, toks)
			at["pool"] = npool
			opc(fmt.Sprintf("tfidf/i64/%s/%d", mode, i), "TfIdfVectorizer", at, nums)
		}
	}
	keys := []*ir.Data{ir.Strs([]int64{3}, []string{"b", "a", "zz"}), ir.I64s([]int64{3}, []int64{-5, 7, 1 << 40}), ir.F32s([]int64{3}, []float32{float32(math.NaN()), 0, 2.5})}
	xs := []*ir.Data{ir.Strs([]int64{4}, []string{"zz", "", "a", "b"}), ir.I64s([]int64{2, 2}, []int64{7, -5, 0, 1 << 40}), ir.F32s([]int64{4}, []float32{2.5, float32(math.Copysign(0, -1)), float32(math.NaN()), 1})}
	vals := []*ir.Data{ir.Strs([]int64{3}, []string{"one", "", "drei"}), ir.I64s([]int64{3}, []int64{-1, 2, 3}), ir.F32s([]int64{3}, []float32{0.5, 1, -2})}
	defs := []*ir.Data{ir.Strs(nil, []string{"?"}), ir.I64s(nil, []int64{99}), ir.F32s(nil, []float32{-7})}
	for i := range keys {
		for j := range vals {
			opc(fmt.Sprintf("labels/%d%d", i, j), "ml.LabelEncoder", ir.Attrs{"keys": keys[i], "values": vals[j], "default": defs[j]}, xs[i])
		}
		if i < 2 {
			for _, z := range []int{0, 1} {
				opc(fmt.Sprintf("onehot/%d%d", i, z), "ml.OneHotEncoder", ir.Attrs{"cats": keys[i], "zeros": z}, xs[i])
			}
		}
	}
}

// TestTreesExact grows random forests.
func TestTreesExact(t *testing.T) {
	r := rng(16)
	for i := 0; i < 24; i++ {
		dt := []ir.DType{ir.F32, ir.F64}[i%2]
		targets := int64(i%3 + 1)
		var roots, feat, mode, tr, fa, miss, begin, target []int64
		var thr, w []float64
		leaf := func() int64 {
			begin = append(begin, int64(len(target)))
			for n := int(r.u()%uint64(i%3+1)) + 1 - i/20; n > 0; n-- {
				target = append(target, int64(r.u()%uint64(targets)))
				w = append(w, float64(float32(r.float())))
			}
			return ^int64(len(begin) - 1)
		}
		var grow func(depth int) int64
		grow = func(depth int) int64 {
			if depth == 0 || r.u()%5 == 0 {
				return leaf()
			}
			at := len(feat)
			m := int64(0)
			if i%4 == 3 {
				m = int64(r.u() % 6)
			}
			feat, mode, miss = append(feat, int64(r.u()%4)), append(mode, m), append(miss, int64(r.u()%2)*int64(i/8%2))
			thr = append(thr, float64(int64(r.u()%7))-3)
			tr, fa = append(tr, 0), append(fa, 0)
			a := grow(depth - 1)
			b := grow(depth - 1)
			tr[at], fa[at] = a, b
			return int64(at)
		}
		for n := 0; n < i; n++ {
			roots = append(roots, grow(i%6))
		}
		begin = append(begin, int64(len(target)))
		base := []float64{}
		if i%5 != 0 {
			for k := int64(0); k < targets; k++ {
				base = append(base, 0.125*float64(k)-1)
			}
		}
		x := ir.FloatData(dt, []int64{17, 4}, nil)
		for k := 0; k < 17*4; k++ {
			v := float64(int64(r.u()%9)) - 4
			if r.u()%9 == 0 {
				v = math.NaN()
			}
			x.Bytes = append(x.Bytes, encode(dt, v, 0)...)
		}
		at := ir.Attrs{"n_targets": targets, "roots": roots, "node_feature": feat, "node_mode": mode, "node_threshold": ir.FloatData(dt, []int64{int64(len(thr))}, thr),
			"node_true": tr, "node_false": fa, "node_missing_true": miss, "leaf_begin": begin, "leaf_target": target,
			"leaf_weight": ir.F64s([]int64{int64(len(w))}, w), "aggregate": []string{"SUM", "AVERAGE", "MIN", "MAX"}[i/2%4],
			"base_values": ir.F64s([]int64{int64(len(base))}, base)}
		for k, v := range at {
			if s, ok := v.([]int64); ok && s == nil {
				at[k] = []int64{}
			}
		}
		opCase{fmt.Sprintf("forest%d", i), "ml.TreeEnsemble", at, []*ir.Data{x}, 1, true}.run(t)
	}
}
