package steps_test

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/steps"
)

func chooser(t testing.TB, cfg engine.Config, in artifact.Port, classes, scores string, k int64, labels ...string) *engine.Model {
	t.Helper()
	code, err := steps.TopK(k, labels, classes, scores)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Poison = true
	return load(t, cfg, code, []artifact.Port{in}, []artifact.Port{port("classes", classes), port("best", scores)})
}

func maps(keys, values string) artifact.Port {
	v := port("", values)
	return artifact.Port{Name: "scores", Kind: "sequence", Elem: &artifact.Port{Kind: "map", Key: keys, DType: values, Elem: &v}}
}

// named makes what ZipMap gives: one map a row.
func named(keys engine.Tensor, rows ...[]float32) engine.Tensor {
	s := engine.Tensor{Kind: abi.Sequence, DType: keys.DType, Shape: []int64{int64(len(rows))}}
	for _, r := range rows {
		s.Elems = append(s.Elems, engine.Tensor{Kind: abi.Map, DType: keys.DType, Shape: []int64{int64(len(r))}, Elems: []engine.Tensor{keys, engine.Of(r)}})
	}
	return s
}

// Maps from classes to scores give their keys, in the type they have; labels take their place.
func TestTopKMaps(t *testing.T) {
	nan := float32(math.NaN())
	rows := [][]float32{{.1, .7, .2}, {nan, .5, .5}, {nan, nan, nan}}
	numbers, texts := engine.Of([]int64{-7, 1 << 40, 3}), engine.OfStrings([]string{"", "rosé", "tulip"})
	for name, c := range map[string]struct {
		in      engine.Tensor
		keys    string
		classes string
		labels  []string
		want    engine.Tensor
	}{
		"numbers":          {named(numbers, rows...), "i64", "i64", nil, engine.Of([]int64{1 << 40, 3, 1 << 40, 3, -7, 1 << 40}, 3, 2)},
		"texts":            {named(texts, rows...), "string", "string", nil, engine.OfStrings([]string{"rosé", "tulip", "rosé", "tulip", "", "rosé"}, 3, 2)},
		"labels":           {named(numbers, rows...), "i64", "string", []string{"a", "b", "c"}, engine.OfStrings([]string{"b", "c", "b", "c", "a", "b"}, 3, 2)},
		"no rows":          {named(texts), "string", "string", nil, engine.OfStrings(nil, 0, 2)},
		"no numbered rows": {named(numbers), "i64", "i64", nil, engine.Of([]int64{}, 0, 2)},
	} {
		for _, budget := range []uint32{0, 1} {
			outs, err := call(t, chooser(t, engine.Config{Budget: budget}, maps(c.keys, "f32"), c.classes, "f32", 2, c.labels...), c.in)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if !engine.Equal(outs[0], c.want) {
				t.Errorf("%s: %+v, want %+v", name, outs[0], c.want)
			}
		}
	}
	var g *engine.GuestError
	m := chooser(t, engine.Config{}, maps("i64", "f32"), "i64", "f32", 3)
	if _, err := call(t, m, named(engine.Of([]int64{1, 2}), []float32{1, 2})); !errors.As(err, &g) || g.Code != abi.ErrDim || g.B != 2 {
		t.Errorf("two classes, k is 3: %v", err)
	}
	mixed := named(numbers, rows...)
	mixed.Elems = append(mixed.Elems, named(texts, rows[0]).Elems...)
	if _, err := call(t, m, mixed); err == nil {
		t.Error("maps of different keys were accepted")
	}
}

// Scores may be of any float type; f64 stays f64.
func TestTopKTypes(t *testing.T) {
	d := engine.Of([]float64{1, 1 + 0x1p-40, math.Inf(1), math.NaN(), math.Inf(-1), math.Copysign(0, -1)}, 2, 3)
	outs, err := call(t, chooser(t, engine.Config{}, port("scores", "f64"), "i64", "f64", 3), d)
	if err != nil {
		t.Fatal(err)
	}
	if want := engine.Of([]int64{2, 1, 0, 2, 1, 0}, 2, 3); !engine.Equal(outs[0], want) {
		t.Errorf("f64: %+v", outs[0])
	}
	if v, err := engine.Values[float64](outs[1]); err != nil || v[1] != 1+0x1p-40 || math.Float64bits(v[5]) != 0x7ff8000000000000 {
		t.Errorf("f64: %v, %v", v, err)
	}
	for dtype, bits := range map[string][]uint16{
		"f16":  {0x3c00, 0x4000, 0x0001, 0xc000, 0x7c00, 0x7e01}, // 1, 2, 2^-24, -2, inf, NaN
		"bf16": {0x3f80, 0x4000, 0x3380, 0xc000, 0x7f80, 0x7fc1},
	} {
		in := engine.Tensor{DType: abi.F16, Shape: []int64{6}}
		if dtype == "bf16" {
			in.DType = abi.BF16
		}
		for _, b := range bits {
			in.Data = binary.LittleEndian.AppendUint16(in.Data, b)
		}
		outs, err := call(t, chooser(t, engine.Config{}, port("scores", dtype), "i64", "f32", 6), in)
		if err != nil {
			t.Fatal(err)
		}
		if want := engine.Of([]int64{4, 1, 0, 2, 3, 5}); !engine.Equal(outs[0], want) {
			t.Errorf("%s: %+v", dtype, outs[0])
		}
		v, err := engine.Values[float32](outs[1])
		if err != nil || v[1] != 2 || v[2] != 1 || v[3] != 0x1p-24 || v[4] != -2 || math.Float32bits(v[5]) != 0x7fc00000 {
			t.Errorf("%s: %v, %v", dtype, v, err)
		}
	}
}

// A row that is the worst case, each score larger than all before it, is worked off in pieces.
func TestTopKPieces(t *testing.T) {
	const classes, k = 40000, 1024
	b := make([]byte, 4*classes)
	for i := range classes {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(float32(i)))
	}
	code, err := steps.TopK(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := driveTo(t, code, 2, 1, b, 1, classes)
	t.Log(d)
	if d.code != 0 || d.resumes < 50 {
		t.Errorf("%v", d)
	}
}
