package oip

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func floats(shape []int64, v ...float32) artifact.GoldenTensor {
	g := artifact.GoldenTensor{Kind: "tensor", DType: "f32", Shape: shape}
	for _, x := range v {
		g.Data = binary.LittleEndian.AppendUint32(g.Data, math.Float32bits(x))
	}
	return g
}

// Sequences, maps and optionals become one BYTES element of JSON text, and Items takes it apart into rows again.
func TestEncodeAny(t *testing.T) {
	keys := artifact.GoldenTensor{Kind: "tensor", DType: "string", Shape: []int64{2}, Strings: []string{"no", `a "yes"`}}
	numbers := artifact.GoldenTensor{Kind: "tensor", DType: "i64", Shape: []int64{2}}
	for _, k := range []uint64{7, math.MaxUint64} {
		numbers.Data = binary.LittleEndian.AppendUint64(numbers.Data, k)
	}
	kind := func(kind string, e ...artifact.GoldenTensor) artifact.GoldenTensor {
		return artifact.GoldenTensor{Name: "y", Kind: kind, DType: "f32", Elems: e}
	}
	for _, c := range []struct {
		g    artifact.GoldenTensor
		text string
		rows int64
	}{
		{kind("sequence", kind("map", keys, floats([]int64{2}, 0.25, 0.75)), kind("map", keys, floats([]int64{2}, 1, float32(math.NaN())))),
			`[{"no":0.25,"a \"yes\"":0.75},{"no":1,"a \"yes\"":null}]`, 2},
		{kind("map", numbers, floats([]int64{}, 1), floats([]int64{1}, 2)), `{"7":1,"-1":[2]}`, 1},
		{kind("sequence"), `[]`, 0},
		{kind("optional"), `null`, 1},
		{kind("optional", floats([]int64{2, 1}, 1, 2)), `[[1],[2]]`, 2},
		{kind("sequence", floats([]int64{0, 3})), `[[]]`, 1},
	} {
		x, err := EncodeAny(c.g)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		back, err := Decode(x)
		if err != nil || x.Datatype != "BYTES" || len(back.Strings) != 1 || back.Strings[0] != c.text || string(x.Parameters) != jsonContent {
			t.Errorf("%s: %+v, %v", c.text, x, err)
		}
		if items, rows, err := Items(x); err != nil || rows != c.rows || int64(len(items)) != c.rows {
			t.Errorf("%s: %d items, %d rows, %v", c.text, len(items), rows, err)
		}
	}
	x, err := EncodeAny(floats([]int64{3, 1}, 1, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	if items, rows, err := Items(x); err != nil || rows != 3 || len(items) != 3 || x.Datatype != "FP32" {
		t.Errorf("a tensor: %d items, %d rows, %v", len(items), rows, err)
	}
	if _, err := EncodeAny(kind("map", keys, floats([]int64{3}, 1, 2, 3))); err == nil {
		t.Error("a map with more values than keys was written")
	}
}
