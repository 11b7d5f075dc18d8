package interp

import (
	"math"
	"math/rand/v2"
	"testing"
)

// ulps32 is the distance of two floats in representable steps.
func ulps32(a, b float32) int64 {
	order := func(v float32) int64 {
		u := int64(math.Float32bits(v))
		if u>>31 != 0 {
			return -(u & 0x7fffffff)
		}
		return u
	}
	d := order(a) - order(b)
	return max(d, -d)
}

func ulps64(a, b float64) float64 {
	if a == b || a != a && b != b {
		return 0
	}
	return math.Abs(a-b) / (math.Nextafter(math.Abs(b), math.Inf(1)) - math.Abs(b))
}

// TestAccuracy holds the elementary functions to the errors that docs/numerics.md states.
func TestAccuracy(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type fn struct {
		name   string
		f32    func(float32) float32
		f64    func(float64) float64
		want   func(float64) float64
		lo, hi float64
		max    int64
	}
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for _, f := range []fn{
		{"exp", exp32, exp64, math.Exp, -87, 88, 1},
		{"log", log32, log64, math.Log, 1e-30, 1e30, 1},
		{"log near 1", log32, log64, math.Log, 0.5, 2, 1},
		{"tanh", tanh32, tanh64, math.Tanh, -10, 10, 2},
		{"sigmoid", sigmoid32, sigmoid64, sigmoid, -80, 80, 3},
		{"erf", erf32, erf64, math.Erf, -4, 4, 2},
	} {
		for i := 0; i < 20000; i++ {
			x := float32(f.lo + rng.Float64()*(f.hi-f.lo))
			if d := ulps32(f.f32(x), float32(f.want(float64(x)))); d > f.max {
				t.Errorf("%s(%v) = %v, want %v: %d ulp", f.name, x, f.f32(x), f.want(float64(x)), d)
				break
			}
			y := f.lo + rng.Float64()*(f.hi-f.lo)
			if d := ulps64(f.f64(y), f.want(y)); d > float64(f.max)+3 {
				t.Errorf("%s(%v) = %v, want %v: %v ulp", f.name, y, f.f64(y), f.want(y), d)
				break
			}
		}
	}
}

func TestSpecialValues(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"exp(-inf)", exp64(-inf), 0}, {"exp(inf)", exp64(inf), inf}, {"exp(nan)", exp64(nan), nan}, {"exp(0)", exp64(0), 1},
		{"exp32(89)", float64(exp32(89)), inf}, {"exp32(-104)", float64(exp32(-104)), 0},
		{"log(0)", log64(0), -inf}, {"log(-1)", log64(-1), nan}, {"log(inf)", log64(inf), inf}, {"log32(subnormal)", float64(log32(1e-45)), float64(float32(math.Log(float64(float32(1e-45)))))},
		{"tanh(inf)", tanh64(inf), 1}, {"tanh(-inf)", tanh64(-inf), -1}, {"sigmoid(-inf)", sigmoid64(-inf), 0}, {"erf(inf)", erf64(inf), 1},
		{"erf(-7)", erf64(-7), -1}, {"pow(0,0)", pow64(0, 0), 1}, {"pow(1,nan)", pow64(1, nan), 1}, {"pow(nan,0)", pow64(nan, 0), 1},
		{"pow(-2,3)", pow64(-2, 3), -8}, {"pow(-2,-1)", pow64(-2, -1), -0.5}, {"pow(-8,1/3)", pow64(-8, 1.0/3), nan}, {"pow(4,.5)", pow64(4, 0.5), 2},
		{"pow(-0,-3)", pow64(math.Copysign(0, -1), -3), -inf}, {"pow(.5,inf)", pow64(0.5, inf), 0}, {"pow(2,-inf)", pow64(2, -inf), 0},
		{"pow(-1,inf)", pow64(-1, inf), 1}, {"pow(-inf,101)", pow64(-inf, 101), -inf}, {"pow(10,100)", pow64(10, 100) / 1e100, 1},
	} {
		if c.got != c.want && !(c.got != c.got && c.want != c.want) && ulps64(c.got, c.want) > 64 {
			t.Errorf("%s = %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestHalf checks every f16 against its round trip, and rounding at halves.
func TestHalf(t *testing.T) {
	for i := 0; i < 1<<16; i++ {
		h := uint16(i)
		v := fromF16(h)
		if v != v {
			continue
		}
		if got := toF16(v); got != h {
			t.Fatalf("f16 %04x reads %v, which writes %04x", h, v, got)
		}
		// Exactly between two neighbours the even one wins; a little more goes up, a little less down.
		if h&0x7fff >= 0x7bff {
			continue
		}
		mid := (float64(v) + float64(fromF16(h+1))) / 2
		even := h + h&1
		if got := f16From64(mid); got != even {
			t.Fatalf("%v writes %04x, want %04x", mid, got, even)
		}
		away := h + 1
		if got := f16From64(math.Nextafter(mid, 2*mid)); got != away {
			t.Fatalf("above %v writes %04x, want %04x", mid, got, away)
		}
		if got := f16From64(math.Nextafter(mid, 0)); got != h {
			t.Fatalf("below %v writes %04x, want %04x", mid, got, h)
		}
	}
}

func TestSum8(t *testing.T) {
	var s sum8[float32]
	for i := 1; i <= 20; i++ {
		s.push(float32(i) * 0.1)
	}
	var a [8]float32
	for i := 1; i <= 20; i++ {
		a[(i-1)%8] += float32(i) * 0.1
	}
	if want := ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])); s.total() != want {
		t.Errorf("%v, want %v", s.total(), want)
	}
}
