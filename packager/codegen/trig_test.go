package codegen_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/ir"
)

func TestTrigExact(t *testing.T) {
	once.Skip(t)
	r := rng(31)
	big := ir.F64s([]int64{9}, []float64{1e5, -1e15, 1e22, 6381956970095103 * 0x1p797, math.MaxFloat64, 0x1p28, 355, 0.9999999, 1 + 0x1p-52})
	for _, op := range []string{"Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"} {
		for i, dt := range []ir.DType{ir.F32, ir.F64, ir.F16, ir.BF16} {
			for _, n := range []int64{0, 1, 1003} {
				opCase{fmt.Sprintf("%s/%s/%d", op, dt, n), op, nil, []*ir.Data{r.tensor(dt, n)}, 1, i%2 == 0}.run(t)
			}
		}
		opCase{op + "/large", op, nil, []*ir.Data{big}, 1, true}.run(t)
		opCase{op + "/scalar", op, nil, []*ir.Data{r.tensor(ir.F64)}, 1, false}.run(t)
	}
}
