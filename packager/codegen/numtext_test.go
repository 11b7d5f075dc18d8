package codegen_test

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

func castModel(t *testing.T, from *ir.Data, to ir.DType) *machine {
	t.Helper()
	g, err := onnx.Parse(composed{op: "Cast", opset: 19, attrs: map[string]any{"to": int(to)}, ins: []*ir.Data{from}}.model(false), "")
	if err != nil {
		t.Fatal(err)
	}
	return compile(t, g, codegen.Options{})
}

func list(n int) []int64 { return []int64{int64(n)} }

// TestNumberTexts checks texts worked out by hand, and the shortest digits of random and extreme numbers against the interpreter's, which
// come from the standard library.
func TestNumberTexts(t *testing.T) {
	once.Skip(t)
	inf, sub := math.Inf(1), math.SmallestNonzeroFloat64
	f64s := []float64{0, math.Copysign(0, -1), 1, -25, 0.1, 1e15, 1e16, 123456789012345680, 1e-4, 1e-5, 0.3, 2.5e-310, sub, math.MaxFloat64, inf, -inf, math.NaN(), 1 << 53, 5e-324, 9007199254740993}
	want := []string{"0.0", "-0.0", "1.0", "-25.0", "0.1", "1000000000000000.0", "1e+16", "1.2345678901234568e+17", "0.0001", "1e-05", "0.3", "2.5e-310", "5e-324",
		"1.7976931348623157e+308", "inf", "-inf", "nan", "9007199254740992.0", "5e-324", "9007199254740992.0"}
	r := rng(5)
	for i := 0; i < 400; i++ {
		f64s = append(f64s, math.Float64frombits(r.u()))
		f64s = append(f64s, math.Ldexp(1, int(r.u()%2100)-1074)) // powers of two: unequal gaps
	}
	m := castModel(t, ir.F64s(list(1), []float64{0}), ir.String)
	in := ir.F64s(list(len(f64s)), f64s)
	against(t, m, []*ir.Data{in})
	got, err := m.run(in)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if got[0].Strings[i] != w {
			t.Errorf("%v is %q, want %q", f64s[i], got[0].Strings[i], w)
		}
	}
	var f32s []float32
	for i := 0; i < 600; i++ {
		f32s = append(f32s, math.Float32frombits(uint32(r.u())), float32(math.Ldexp(1, int(r.u()%277)-149)))
	}
	against(t, castModel(t, ir.F32s(list(1), []float32{0}), ir.String), []*ir.Data{ir.F32s(list(len(f32s)), f32s)})
	for _, d := range []ir.DType{ir.F16, ir.BF16} { // every pattern of 16 bits
		b := make([]byte, 2<<16)
		for i := 0; i < 1<<16; i++ {
			b[2*i], b[2*i+1] = byte(i), byte(i>>8)
		}
		if testing.Short() {
			b = b[:2<<12]
		}
		against(t, castModel(t, &ir.Data{DType: d, Dims: list(1), Bytes: []byte{0, 0}}, ir.String), []*ir.Data{{DType: d, Dims: list(len(b) / 2), Bytes: b}})
	}
	for d, v := range map[ir.DType][]int64{ir.I64: {math.MinInt64, -1, 0, 7, math.MaxInt64}, ir.U64: {-1, 0, 10}, ir.I8: {-128, 99}, ir.U8: {200, 9}, ir.U32: {1<<32 - 1}, ir.Bool: {1, 0}} {
		in := ir.IntData(d, list(len(v)), v)
		against(t, castModel(t, in, ir.String), []*ir.Data{in})
	}
}

// TestTextNumbers reads texts back: hard roundings, forms, saturation and what is no number.
func TestTextNumbers(t *testing.T) {
	once.Skip(t)
	hard := []string{"0", "-0", "1", " 2.5\t", "+3", "-4e2", "1E-5", ".5", "5.", "INF", "-inf", "+Infinity", "NaN", "-nan", "1e400", "-1e400", "1e-400", "0e999999999", "1e-99999999999", "1e99999999999",
		"9007199254740993", "9007199254740992.99999", "9007199254740993.00000000000000000000000000000000000000001", "2.4703282292062327e-324", "2.4703282292062328e-324", "4.9406564584124654e-324",
		"1.7976931348623158e308", "1.797693134862315807e308", "1.7976931348623159e308", "2.2250738585072011e-308", "16777217", "16777217.0000000001", "65519", "65520", "65519.9999999", "3.4028235677973366e38",
		"1.00048828125", "1.000488281250000000000001", "5.9604644775390625e-08", "2.98023223876953125e-08", "2.98023223876953126e-08", "1.00390625", "100.5", "-100.9", "300", "-300", "18446744073709551616",
		"9223372036854775808", "-9223372036854775809", "99999999999999999999999", "1e20", "-1e20", "255.9", "000000000000000000000000000012", "0." + strings.Repeat("0", 400) + "1e401", "1" + strings.Repeat("0", 900) + "e-900",
		strings.Repeat("7", 900), "0.5" + strings.Repeat("0", 850) + "1", "1.5" + strings.Repeat("0", 30)}
	r := rng(9)
	for i := 0; i < 300; i++ {
		v := math.Float64frombits(r.u())
		hard = append(hard, strconv.FormatFloat(v, 'e', int(r.u()%25), 64), strconv.FormatFloat(float64(math.Float32frombits(uint32(r.u()))), 'g', -1, 32))
		if !math.IsNaN(v) && !math.IsInf(v, 0) { // exactly between two numbers, and a hair off
			s := strconv.FormatFloat(v, 'e', 800, 64)
			hard = append(hard, s, strings.Replace(s, "e", "1e", 1))
		}
	}
	in := ir.Strs(list(len(hard)), hard)
	for _, d := range []ir.DType{ir.F64, ir.F32, ir.F16, ir.BF16, ir.I64, ir.U64, ir.I32, ir.U8, ir.I8, ir.Bool} {
		m := castModel(t, ir.Strs(list(1), []string{"0"}), d)
		against(t, m, []*ir.Data{in})
		m.budget = 3
		against(t, m, []*ir.Data{ir.Strs(list(40), hard[:40])})
		for _, bad := range []string{"", " ", "-", "1e", "1e+", "abc", "1.2.3", "0x10", "1_0", "--1", "1 2", ".", "e5", "infin", "nann"} {
			if _, err := m.run(ir.Strs(list(2), []string{"1", bad})); err == nil {
				t.Errorf("%q was read as %s", bad, d)
			}
		}
	}
	got, err := castModel(t, ir.Strs(list(1), []string{"0"}), ir.I32).run(ir.Strs(list(5), []string{"100.5", "-1e3", "99999999999", "nan", "-7"}))
	if err != nil {
		t.Fatal(err)
	}
	if v := got[0].Ints(); !slices.Equal(v, []int64{100, -1000, math.MaxInt32, 0, -7}) {
		t.Errorf("integers %v", v)
	}
}
