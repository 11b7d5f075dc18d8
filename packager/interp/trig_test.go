package interp

import (
	"math"
	"math/big"
	"testing"
)

func ulps(got, want float64) float64 {
	if got == want || got != got && want != want {
		return 0
	}
	u := math.Nextafter(math.Abs(want), math.Inf(1)) - math.Abs(want)
	return math.Abs(got-want) / u
}

// asin and acos go through Atan2 of factors that lose nothing; the host's own square x.
func asin(x float64) float64 { return math.Atan2(x, math.Sqrt(1-x)*math.Sqrt(1+x)) }
func acos(x float64) float64 { return 2 * math.Atan2(math.Sqrt(1-x), math.Sqrt(1+x)) }

// TestTrigAccuracy holds the functions to the bounds of docs/numerics.md, with the host's own (within 1 ulp) as witness.
func TestTrigAccuracy(t *testing.T) {
	fns := []struct {
		op    string
		ref   func(float64) float64
		bound float64
	}{
		{"Sin", math.Sin, 3}, {"Cos", math.Cos, 3}, {"Tan", math.Tan, 5}, {"Asin", asin, 5}, {"Acos", acos, 5},
		{"Atan", math.Atan, 2}, {"Sinh", math.Sinh, 5}, {"Cosh", math.Cosh, 5}, {"Asinh", math.Asinh, 7}, {"Acosh", math.Acosh, 7}, {"Atanh", math.Atanh, 7},
	}
	var xs []float64
	seed := uint64(1)
	for i := 0; i < 20000; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
		u := float64(seed>>11) / (1 << 53)
		xs = append(xs, math.Ldexp(u*2-1, int(seed>>3%14)-8))
	}
	xs = append(xs, 0, math.Copysign(0, -1), 1, -1, 1e-300, 5e-324, 0.4375, 0.6875, 1.1875, 2.4375, 709, 710.4, -710.4, 720, 1e308, 0x1p28, 1e17, math.Inf(1), math.Inf(-1), math.NaN())
	for _, f := range fns {
		worst, at := 0.0, 0.0
		for _, x := range xs {
			if (f.op == "Sin" || f.op == "Cos" || f.op == "Tan") && math.Abs(x) > 1 {
				continue // the host's own reduction is not exact enough near multiples of pi: see below
			}
			if d := ulps(trig64(f.op, x), f.ref(x)); !(d <= worst) {
				worst, at = d, x
			}
		}
		if !(worst <= f.bound) {
			t.Errorf("%s is off by %g ulp at %g: %g, want %g", f.op, worst, at, trig64(f.op, at), f.ref(at))
		}
	}
	if v := trig64("Sin", math.Copysign(0, -1)); !math.Signbit(v) || v != 0 {
		t.Errorf("Sin(-0) = %g", v)
	}
}

// TestAngleReduction compares with a reduction by a pi of 1400 bits.
func TestAngleReduction(t *testing.T) {
	const prec = 1400
	at := func(n int64) *big.Float { // arc tangent of 1/n
		x := new(big.Float).SetPrec(prec).Quo(new(big.Float).SetPrec(prec).SetInt64(1), new(big.Float).SetInt64(n))
		sum, p, sq := new(big.Float).SetPrec(prec).Set(x), new(big.Float).SetPrec(prec).Set(x), new(big.Float).SetPrec(prec).Mul(x, x)
		for k := int64(3); k < 2100; k += 2 {
			p.Mul(p, sq).Neg(p)
			sum.Add(sum, new(big.Float).SetPrec(prec).Quo(p, new(big.Float).SetInt64(k)))
		}
		return sum
	}
	half := new(big.Float).SetPrec(prec).Mul(big.NewFloat(8), at(5))
	half.Sub(half, new(big.Float).SetPrec(prec).Mul(big.NewFloat(2), at(239)))
	seed := uint64(7)
	xs := []float64{0.8, 1, 1.5707963267948966, 3.141592653589793, 22, 355, 1e5, 1e15, 1e22, 6381956970095103 * 0x1p797, math.MaxFloat64, 0x1p1023}
	for i := 0; i < 3000; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
		xs = append(xs, math.Ldexp(1+float64(seed>>11)/(1<<53), int(seed>>5%1023)))
	}
	for _, x := range xs {
		q, z := reduceAngle(x)
		n := new(big.Float).SetPrec(prec).Quo(new(big.Float).SetPrec(prec).SetFloat64(x), half)
		i, _ := n.Add(n, big.NewFloat(0.5)).Int(nil)
		r := new(big.Float).SetPrec(prec).Mul(new(big.Float).SetPrec(prec).SetInt(i), half)
		want, _ := r.Sub(new(big.Float).SetPrec(prec).SetFloat64(x), r).Float64()
		if wq := new(big.Int).And(i, big.NewInt(3)).Uint64(); q != wq || ulps(z, want) > 2 {
			t.Fatalf("%g is %d quarters and %g, want %d and %g", x, q, z, wq, want)
		}
	}
}
