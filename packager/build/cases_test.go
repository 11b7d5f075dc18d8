package build

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
)

// pb writes a TensorProto.
func pb(name string, dtype ir.DType, dims []int64, raw []byte) []byte {
	var b []byte
	for _, d := range dims {
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(d))
	}
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(dtype))
	b = protowire.AppendTag(b, 8, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte(name))
	b = protowire.AppendTag(b, 9, protowire.BytesType)
	return protowire.AppendBytes(b, raw)
}

func f32(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// A case is read by name and by position, and its comparison tells near from far.
func TestCase(t *testing.T) {
	one := ir.TensorOf(ir.F32, ir.StaticShape(2))
	g := &ir.Graph{Body: &ir.Region{
		Params:  []*ir.Value{{Name: "a", Type: one}, {Name: "b", Type: one}},
		Results: []*ir.Value{{Name: "y", Type: one}},
	}}
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"input_0.pb":  pb("b", ir.F32, []int64{2}, f32(3, 4)), // the names say otherwise than the numbers
		"input_1.pb":  pb("a", ir.F32, []int64{2}, f32(1, 2)),
		"output_0.pb": pb("", ir.F32, []int64{2}, f32(100, float32(math.NaN()))),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := ReadCase(dir, g)
	if err != nil {
		t.Fatal(err)
	}
	if c.Inputs[0].Name != "a" || string(c.Inputs[0].Data) != string(f32(1, 2)) || string(c.Inputs[1].Data) != string(f32(3, 4)) {
		t.Errorf("inputs %+v", c.Inputs)
	}
	for _, x := range []struct {
		got  artifact.GoldenTensor
		want string
	}{
		{artifact.GoldenTensor{DType: "f32", Shape: []int64{2}, Data: f32(100.05, float32(math.NaN()))}, ""},
		{artifact.GoldenTensor{DType: "f32", Shape: []int64{2}, Data: f32(100.2, float32(math.NaN()))}, "element 0 is 100.2, want 100"},
		{artifact.GoldenTensor{DType: "f32", Shape: []int64{2}, Data: f32(100, 1)}, "element 1"},
		{artifact.GoldenTensor{DType: "f32", Shape: []int64{2}, Data: f32(float32(math.Inf(1)), float32(math.NaN()))}, "element 0"},
		{artifact.GoldenTensor{DType: "f64", Shape: []int64{2}, Data: f32(1, 2, 3, 4)}, "element type f64"},
		{artifact.GoldenTensor{DType: "f32", Shape: []int64{1, 2}, Data: f32(100, 1)}, "shape"},
	} {
		err := CompareCase(c, []artifact.GoldenTensor{x.got}, []string{"y"}, 1e-3, 1e-5)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%+v: %v, want %q", x.got, err, x.want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "input_1.pb")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCase(dir, g); err == nil {
		t.Error("a missing input was not noticed")
	}
}

// Small floats decode to the values of their formats' tables.
func TestSmallFloats(t *testing.T) {
	for _, c := range []struct {
		t    ir.DType
		bits uint16
		want float64
	}{
		{ir.F16, 0x3c00, 1}, {ir.F16, 0xc000, -2}, {ir.F16, 0x7bff, 65504}, {ir.F16, 0x0001, math.Ldexp(1, -24)}, {ir.F16, 0x7c00, math.Inf(1)},
		{ir.F16, 0x7e00, math.NaN()}, {ir.BF16, 0x3f80, 1}, {ir.F8E4M3FN, 0x7e, 448}, {ir.F8E4M3FN, 0x7f, math.NaN()}, {ir.F8E4M3FN, 0x38, 1},
		{ir.F8E5M2, 0x7b, 57344}, {ir.F8E5M2, 0x7c, math.Inf(1)}, {ir.F8E4M3FNUZ, 0x80, math.NaN()}, {ir.F8E4M3FNUZ, 0x7f, 240},
		{ir.F8E5M2FNUZ, 0x7f, 57344}, {ir.F8E5M2FNUZ, 0x40, 1},
	} {
		got := floatAt(c.t, []byte{byte(c.bits), byte(c.bits >> 8)}, 0)
		if got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%s %#x: %g, want %g", c.t, c.bits, got, c.want)
		}
	}
}

// The corpora's cases pass where the compiler supports them. Run by the command line's test verb; here only that the
// folders are found.
func TestFindCases(t *testing.T) {
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		t.Skip("WAYBILL_CORPORA is not set: no ONNX cases to look for")
	}
	dirs, err := FindCases(filepath.Join(root, "onnx-node"))
	if err != nil || len(dirs) < 900 {
		t.Errorf("%d cases, %v", len(dirs), err)
	}
}

// A module gives the values of a map as one tensor; MapProto and the interpreter give one each. Both comparisons know.
func TestMaps(t *testing.T) {
	keys := ir.Strs([]int64{3}, []string{"a", "b", "c"})
	want := &ir.Val{Kind: ir.Map, Keys: keys}
	for _, v := range []float32{1, 2, 3} {
		want.Elems = append(want.Elems, ir.TensorVal(ir.F32s([]int64{}, []float32{v})))
	}
	module := func(k []string, v ...float32) artifact.GoldenTensor {
		return artifact.GoldenTensor{Kind: "map", DType: "string", Elems: []artifact.GoldenTensor{
			{Kind: "tensor", DType: "string", Shape: []int64{int64(len(k))}, Strings: k}, {Kind: "tensor", DType: "f32", Shape: []int64{int64(len(v))}, Data: f32(v...)}}}
	}
	for _, c := range []struct {
		got        artifact.GoldenTensor
		bits, near string
	}{
		{module(keys.Strings, 1, 2, 3), "", ""},
		{fromVal(want), "", ""},
		{module(keys.Strings, 1, 2.0001, 3), "value of key 1", ""},
		{module(keys.Strings, 1, 2.5, 3), "value of key 1", "value of key 1"},
		{module([]string{"a", "b", "d"}, 1, 2, 3), "keys", "keys"},
		{module(keys.Strings, 1, 2), "2 values", "2 values"},
		{artifact.GoldenTensor{Kind: "map"}, "without keys", "without keys"},
	} {
		if d := sameBits(c.got, want); !strings.Contains(d, c.bits) || (d == "") != (c.bits == "") {
			t.Errorf("%+v: bits: %q, want %q", c.got, d, c.bits)
		}
		err := near(c.got, want, 1e-3, 1e-5)
		if (err == nil) != (c.near == "") || err != nil && !strings.Contains(err.Error(), c.near) {
			t.Errorf("%+v: near: %v, want %q", c.got, err, c.near)
		}
	}
}
