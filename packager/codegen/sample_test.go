package codegen_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/ir"
)

func TestSampleExact(t *testing.T) {
	once.Skip(t)
	r := rng(43)
	shapes := [][]int64{{2, 3, 7}, {2, 2, 4, 5}, {1, 2, 3, 2, 4}, {1, 1, 1, 1}}
	for _, dt := range []ir.DType{ir.F32, ir.F64} {
		for si, s := range shapes {
			p := r.plain(ir.F64, s[0], 23, int64(len(s)-2))
			wild := r.tensor(ir.F64, s[0], 23, int64(len(s)-2))
			for _, mode := range []string{"nearest", "linear", "cubic"} {
				for _, pad := range []string{"zeros", "border", "reflection"} {
					for align := 0; align < 2; align++ {
						at := ir.Attrs{"mode": mode, "padding_mode": pad, "align_corners": align}
						n := fmt.Sprintf("%s/%d/%s/%s/%d", dt, si, mode, pad, align)
						opCase{n, "Sample", at, []*ir.Data{r.plain(dt, s...), p}, 1, true}.run(t)
						if dt == ir.F32 && si < 2 {
							opCase{n + "/wild", "Sample", at, []*ir.Data{r.tensor(dt, s...), wild}, 1, true}.run(t)
						}
					}
				}
			}
		}
	}
	opCase{"no positions", "Sample", nil, []*ir.Data{r.plain(ir.F32, 1, 2, 3, 4), ir.F64s([]int64{1, 0, 2}, nil)}, 1, true}.run(t)
	opCase{"no image", "Sample", nil, []*ir.Data{r.plain(ir.F32, 1, 2, 0, 4), ir.F64s([]int64{1, 1, 2}, []float64{0, 0})}, 1, true}.run(t)
	// Between 10 and 20 at a quarter; beyond the end half of the last element is left.
	handOp(t, "Sample", ir.Attrs{"mode": "linear"}, []*ir.Data{ir.F32s([]int64{1, 1, 2}, []float32{10, 20}), ir.F64s([]int64{1, 2, 1}, []float64{0.25, 1.5})},
		ir.F32s([]int64{1, 1, 2}, []float32{12.5, 10}))
}

func TestNonMaxSuppressionExact(t *testing.T) {
	r := rng(44)
	const n = 40
	for center := 0; center < 2; center++ {
		for _, most := range []int64{0, 1, 7, 1000} {
			boxes := r.plain(ir.F32, 2, n, 4)
			scores, order := ir.F32s([]int64{2, 3, n}, make([]float32, 6*n)), ir.I64s([]int64{2, 3, n}, make([]int64, 6*n))
			var sc []float32
			var od []int64
			for g := 0; g < 6; g++ {
				for i := 0; i < n; i++ {
					sc, od = append(sc, 1-float32(i)/n), append(od, int64((i*7+g)%n))
				}
			}
			scores, order = ir.F32s(scores.Dims, sc), ir.I64s(order.Dims, od)
			ins := []*ir.Data{boxes, scores, order, i64d(most), ir.F32s([]int64{1}, []float32{0.2}), ir.F32s([]int64{1}, []float32{0.3})}
			at := ir.Attrs{"center_point_box": center}
			opCase{fmt.Sprintf("%d/%d", center, most), "NonMaxSuppression", at, ins, 1, false}.run(t)
			opCase{fmt.Sprintf("%d/%d/defaults", center, most), "NonMaxSuppression", at, ins[:4], 1, true}.run(t)
		}
	}
	// The second box covers the first by 0.5, the third is apart and the fourth scores too low.
	boxes := ir.F32s([]int64{1, 4, 4}, []float32{0, 0, 1, 1, 0, 0, 1, 2, 5, 5, 6, 6, 9, 9, 10, 10})
	scores := ir.F32s([]int64{1, 1, 4}, []float32{0.9, 0.8, 0.7, 0.1})
	order := ir.I64s([]int64{1, 1, 4}, []int64{0, 1, 2, 3})
	ins := []*ir.Data{boxes, scores, order, i64d(10), ir.F32s([]int64{1}, []float32{0.4}), ir.F32s([]int64{1}, []float32{0.5})}
	handOp(t, "NonMaxSuppression", nil, ins, ir.I64s([]int64{2, 3}, []int64{0, 0, 0, 0, 0, 2}))
}

func TestDetExact(t *testing.T) {
	r := rng(45)
	for _, dt := range []ir.DType{ir.F32, ir.F64} {
		for _, dims := range [][]int64{{0, 0}, {1, 1}, {2, 2}, {3, 5, 5}, {0, 3, 3}, {2, 2, 7, 7}} {
			opCase{fmt.Sprintf("%s/%v", dt, dims), "Det", nil, []*ir.Data{r.plain(dt, dims...)}, 1, false}.run(t)
			opCase{fmt.Sprintf("%s/%v/special", dt, dims), "Det", nil, []*ir.Data{r.tensor(dt, dims...)}, 1, false}.run(t)
		}
	}
	opCase{"singular", "Det", nil, []*ir.Data{ir.F32s([]int64{2, 2}, []float32{0, 1, 0, 2})}, 1, false}.run(t)
	handOp(t, "Det", nil, []*ir.Data{ir.F32s([]int64{3, 3}, []float32{0, 2, 0, 3, 0, 0, 0, 0, 5})}, ir.F32s([]int64{}, []float32{-30}))
}

func TestRoiAlignExact(t *testing.T) {
	r := rng(46)
	nan := math.NaN()
	rois := ir.F64s([]int64{5, 4}, []float64{0, 0, 4, 4, -3, 1.5, 9, 2.25, 5, 5, 1, 1, 2, 2, 2, 2, nan, 0, 3, 3})
	batch := i64d(0, 1, -1, 0, 1)
	for _, dt := range []ir.DType{ir.F32, ir.F64} {
		for _, mode := range []string{"avg", "max"} {
			for half := 0; half < 2; half++ {
				for _, ratio := range []int{0, 2} {
					at := ir.Attrs{"mode": mode, "half_pixel": half, "sampling_ratio": ratio, "output_height": 3, "output_width": 2, "spatial_scale": 0.75}
					opCase{fmt.Sprintf("%s/%s/%d/%d", dt, mode, half, ratio), "RoiAlign", at, []*ir.Data{r.plain(dt, 2, 3, 5, 6), rois, batch}, 1, false}.run(t)
				}
			}
		}
	}
	opCase{"wrong image", "RoiAlign", nil, []*ir.Data{r.plain(ir.F32, 2, 1, 5, 6), rois, i64d(0, 1, 2, 0, 1)}, 1, false}.run(t)
	opCase{"huge region", "RoiAlign", nil, []*ir.Data{r.plain(ir.F32, 1, 1, 5, 6), ir.F64s([]int64{1, 4}, []float64{0, 0, 1e9, 1e9}), i64d(0)}, 1, false}.run(t)
	// One sample in the middle of four elements is their mean.
	handOp(t, "RoiAlign", ir.Attrs{"sampling_ratio": 1, "half_pixel": 0}, []*ir.Data{ir.F32s([]int64{1, 1, 2, 2}, []float32{1, 2, 3, 6}),
		ir.F64s([]int64{1, 4}, []float64{0, 0, 1, 1}), i64d(0)}, ir.F32s([]int64{1, 1, 1, 1}, []float32{3}))
}
