package codegen_test

import (
	"fmt"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// with copies attributes and sets more.
func with(a ir.Attrs, more ir.Attrs) ir.Attrs {
	out := ir.Attrs{}
	for _, m := range []ir.Attrs{a, more} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func TestResizeExact(t *testing.T) {
	once.Skip(t)
	r := rng(41)
	coords := []string{"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize", "tf_half_pixel_for_nn"}
	hw := ir.Attrs{"axes": []int64{2, 3}}
	x := r.plain(ir.F32, 1, 2, 5, 6)
	roi := ir.F64s([]int64{4}, []float64{0.4, -0.1, 0.6, 0.9})
	scales := []*ir.Data{ir.F32s([]int64{2}, []float32{0.7, 1.9}), ir.F32s([]int64{2}, []float32{1, 0.3})}
	for _, coord := range coords {
		var rr *ir.Data
		if coord == "tf_crop_and_resize" {
			rr = roi
		}
		for i, s := range scales {
			for _, mode := range []string{"linear", "cubic"} {
				for f := 0; f < 4; f++ {
					at := with(hw, ir.Attrs{"coordinate_transformation_mode": coord, "mode": mode, "antialias": f & 1, "exclude_outside": f >> 1, "extrapolation_value": 7.5})
					opCase{fmt.Sprintf("%s/%s/%d/%d", coord, mode, f, i), "Resize", at, []*ir.Data{x, rr, s}, 1, i == 0}.run(t)
				}
			}
			for _, nm := range []string{"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"} {
				at := with(hw, ir.Attrs{"coordinate_transformation_mode": coord, "nearest_mode": nm})
				opCase{fmt.Sprintf("%s/%s/%d", coord, nm, i), "Resize", at, []*ir.Data{x, rr, s}, 1, i == 0}.run(t)
			}
		}
	}
	for _, p := range []string{"stretch", "not_larger", "not_smaller"} {
		at := ir.Attrs{"axes": []int64{3, 1}, "keep_aspect_ratio_policy": p, "mode": "linear"}
		opCase{"policy/" + p, "Resize", at, []*ir.Data{r.tensor(ir.F64, 2, 3, 1, 5), nil, nil, i64d(7, 8)}, 1, false}.run(t)
	}
	for _, dt := range numeric {
		opCase{"nearest/" + dt.String(), "Resize", hw, []*ir.Data{r.tensor(dt, 1, 2, 3, 4), nil, nil, i64d(5, 3)}, 1, false}.run(t)
	}
	opCase{"empty", "Resize", hw, []*ir.Data{r.tensor(ir.F32, 1, 0, 3, 4), nil, nil, i64d(5, 3)}, 1, false}.run(t)
	opCase{"to nothing", "Resize", hw, []*ir.Data{r.tensor(ir.F32, 1, 1, 3, 4), nil, ir.F32s([]int64{2}, []float32{0.2, 2})}, 1, false}.run(t)
	opCase{"special", "Resize", with(hw, ir.Attrs{"mode": "linear"}), []*ir.Data{r.tensor(ir.F32, 1, 1, 9, 9), nil, nil, i64d(9, 17)}, 1, false}.run(t)
	opCase{"long rows", "Resize", ir.Attrs{"axes": []int64{0}, "mode": "cubic"}, []*ir.Data{r.plain(ir.F32, 3, 2500), nil, nil, i64d(2)}, 1, false}.run(t)
}

func TestResizeByHand(t *testing.T) {
	// Half pixels from 2 to 4: 0.75 and 0.25 of the two neighbours; the ends repeat the border.
	handOp(t, "Resize", ir.Attrs{"axes": []int64{0}, "mode": "linear"}, []*ir.Data{ir.F32s([]int64{2}, []float32{10, 20}), nil, nil, i64d(4)},
		ir.F32s([]int64{4}, []float32{10, 12.5, 17.5, 20}))
	handOp(t, "Resize", ir.Attrs{"axes": []int64{0}, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
		[]*ir.Data{ir.F32s([]int64{2}, []float32{10, 20}), nil, ir.F32s([]int64{1}, []float32{2})}, ir.F32s([]int64{4}, []float32{10, 10, 20, 20}))
}

func TestConvTransposeExact(t *testing.T) {
	r := rng(42)
	conv := func(k, s, p, d, op []int64) ir.Attrs {
		return ir.Attrs{"kernel_shape": k, "strides": s, "pads": p, "dilations": d, "output_padding": op}
	}
	one := conv([]int64{3}, []int64{2}, []int64{1, 0}, []int64{2}, []int64{1})
	two := conv([]int64{3, 2}, []int64{3, 1}, []int64{1, 0, 0, 1}, []int64{1, 2}, []int64{2, 0})
	three := conv([]int64{2, 3, 2}, []int64{1, 2, 2}, []int64{0, 1, 0, 1, 0, 0}, []int64{1, 1, 1}, []int64{0, 0, 1})
	for _, dt := range []ir.DType{ir.F32, ir.F64} {
		for _, static := range []bool{false, true} {
			n := fmt.Sprintf("/%s/%t", dt, static)
			opCase{"1d" + n, "ConvTranspose", one, []*ir.Data{r.tensor(dt, 2, 2, 5), r.plain(dt, 2, 3, 3)}, 1, static}.run(t)
			opCase{"2d" + n, "ConvTranspose", with(two, ir.Attrs{"group": 2}), []*ir.Data{r.plain(dt, 2, 4, 3, 5), r.plain(dt, 4, 3, 3, 2), r.plain(dt, 6)}, 1, static}.run(t)
			opCase{"3d" + n, "ConvTranspose", three, []*ir.Data{r.plain(dt, 1, 2, 3, 2, 3), r.plain(dt, 2, 2, 2, 3, 2), r.plain(dt, 2)}, 1, static}.run(t)
			for _, auto := range []string{"NOTSET", "SAME_UPPER", "SAME_LOWER"} {
				opCase{"shape " + auto + n, "ConvTranspose", with(two, ir.Attrs{"auto_pad": auto, "output_shape": []int64{8, 6}}),
					[]*ir.Data{r.plain(dt, 1, 1, 3, 5), r.plain(dt, 1, 2, 3, 2)}, 1, static}.run(t)
				opCase{"same " + auto + n, "ConvTranspose", with(two, ir.Attrs{"auto_pad": auto}),
					[]*ir.Data{r.plain(dt, 1, 1, 3, 5), r.plain(dt, 1, 2, 3, 2)}, 1, static}.run(t)
			}
		}
	}
	// Each input spreads the kernel at stride 2: 1*[1 2 3] and 10*[1 2 3] overlap in one place.
	handOp(t, "ConvTranspose", conv([]int64{3}, []int64{2}, []int64{0, 0}, []int64{1}, []int64{0}),
		[]*ir.Data{ir.F32s([]int64{1, 1, 2}, []float32{1, 10}), ir.F32s([]int64{1, 1, 3}, []float32{1, 2, 3}), ir.F32s([]int64{1}, []float32{100})},
		ir.F32s([]int64{1, 1, 5}, []float32{101, 102, 113, 120, 130}))
}

// handOp compiles one operator and compares with a result worked out by hand.
func handOp(t *testing.T, op string, at ir.Attrs, ins []*ir.Data, want *ir.Data) {
	t.Helper()
	b := ir.NewBuilder()
	var vals []*ir.Value
	var given []*ir.Data
	for i, d := range ins {
		if d == nil {
			vals = append(vals, nil)
			continue
		}
		vals = append(vals, b.Param(fmt.Sprintf("in%d", i), d.Type()))
		given = append(given, d)
	}
	g, err := b.Graph("g", b.Op("out0", op, at, vals...))
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	m := compile(t, g, codegen.Options{})
	out, err := m.run(given...)
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	if err := sameBits(out[0], want); err != nil {
		t.Errorf("%s: %v: got %v, want %v", op, err, out[0].Floats(), want.Floats())
	}
	against(t, m, given)
}
