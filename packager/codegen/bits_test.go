package codegen_test

import (
	"fmt"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/ir"
)

func TestBitsExact(t *testing.T) {
	once.Skip(t)
	r := rng(32)
	ints := []ir.DType{ir.I8, ir.I16, ir.I32, ir.I64, ir.U8, ir.U16, ir.U32, ir.U64}
	for _, dt := range ints {
		for _, op := range []string{"BitwiseAnd", "BitwiseOr", "BitwiseXor"} {
			opCase{op + "/" + dt.String(), op, nil, []*ir.Data{r.tensor(dt, 3, 1, 5), r.tensor(dt, 4, 1)}, 1, false}.run(t)
		}
		opCase{"BitwiseNot/" + dt.String(), "BitwiseNot", nil, []*ir.Data{r.tensor(dt, 300)}, 1, true}.run(t)
		{
			shift := ir.IntData(dt, []int64{12}, []int64{0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 255})
			for _, dir := range []string{"LEFT", "RIGHT"} {
				opCase{fmt.Sprintf("BitShift/%s/%s", dir, dt), "BitShift", ir.Attrs{"direction": dir}, []*ir.Data{r.tensor(dt, 20, 12), shift}, 1, false}.run(t)
			}
		}
	}
	for _, dt := range []ir.DType{ir.F32, ir.F64, ir.F16, ir.BF16} {
		opCase{"Mod/" + dt.String(), "Mod", ir.Attrs{"fmod": 0}, []*ir.Data{r.tensor(dt, 900), r.tensor(dt, 900)}, 1, true}.run(t)
	}
	all := append([]ir.DType{ir.Bool}, numeric...)
	for _, a := range all {
		for _, b := range all {
			if a.Bits() == b.Bits() {
				opCase{fmt.Sprintf("BitCast/%s/%s", a, b), "BitCast", ir.Attrs{"to": b}, []*ir.Data{r.tensor(a, 300)}, 1, false}.run(t)
			}
		}
	}
	for _, dt := range numeric {
		for _, op := range []string{"CumSum", "CumProd"} {
			for i := range 8 {
				at := ir.Attrs{"exclusive": i & 1, "reverse": i >> 1 & 1}
				axis := []int64{1, -1, 0}[i%3]
				opCase{fmt.Sprintf("%s/%s/%d", op, dt, i), op, at, []*ir.Data{r.plain(dt, 3, 4, 5), ir.I64s([]int64{}, []int64{axis})}, 1, i > 3}.run(t)
			}
		}
		opCase{"CumSum/empty/" + dt.String(), "CumSum", nil, []*ir.Data{r.tensor(dt, 3, 0), i64d(0)}, 1, false}.run(t)
	}
	opCase{"CumSum/axis", "CumSum", nil, []*ir.Data{r.tensor(ir.F32, 3), ir.I64s([]int64{}, []int64{2})}, 1, false}.run(t)
}
