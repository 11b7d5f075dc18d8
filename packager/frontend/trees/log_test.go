package trees

import (
	"math"
	"testing"
)

func TestLog(t *testing.T) {
	for x := 0x1p-1022; x < math.MaxFloat64/3; x *= 2.7 {
		if got, want := Log(x), math.Log(x); math.Abs(got-want) > 3e-16*math.Max(1, math.Abs(want)) {
			t.Errorf("Log(%g) = %g, want %g", x, got, want)
		}
	}
	if got := Log(0x1p-1074); math.Abs(got+1074*math.Ln2) > 1e-12 { // math.Log is wrong below 0x1p-1022 on amd64
		t.Errorf("Log of the smallest number is %g", got)
	}
	if !math.IsNaN(Log(-1)) || !math.IsNaN(Log(math.NaN())) || !math.IsInf(Log(0), -1) || !math.IsInf(Log(math.Inf(1)), 1) || Log(1) != 0 {
		t.Error("special values")
	}
}
