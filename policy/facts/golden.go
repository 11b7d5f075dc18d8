package facts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// agree checks each reference output against the recorded one: |got-want| <= atol + rtol*|want| elementwise; strings and
// outputs without a tolerance must be equal. NaN agrees with NaN only.
func agree(v artifact.GoldenVector) error {
	for _, want := range v.Reference {
		i := slices.IndexFunc(v.Expected, func(t artifact.GoldenTensor) bool { return t.Name == want.Name })
		if i < 0 {
			return fmt.Errorf("the reference has an output %s that the module does not give", want.Name)
		}
		tol := artifact.Tolerance{}
		if j := slices.IndexFunc(v.Tolerance, func(t artifact.Tolerance) bool { return t.Output == want.Name }); j >= 0 {
			tol = v.Tolerance[j]
		}
		if !(tol.ATol >= 0 && tol.RTol >= 0) || math.IsInf(tol.ATol, 0) || math.IsInf(tol.RTol, 0) {
			return fmt.Errorf("output %s: tolerance is not a finite number of at least 0", want.Name)
		}
		if err := close2(v.Expected[i], want, tol, 0); err != nil {
			return fmt.Errorf("output %s: %w", want.Name, err)
		}
	}
	return nil
}

const maxDepth = 8 // sequences of optionals of maps ...

func close2(got, want artifact.GoldenTensor, tol artifact.Tolerance, depth int) error {
	if depth > maxDepth {
		return errors.New("nested too deeply")
	}
	if len(got.Elems) != len(want.Elems) || kind(got) != kind(want) {
		return fmt.Errorf("%s of %d elements, the reference is %s of %d", kind(got), len(got.Elems), kind(want), len(want.Elems))
	}
	for i := range want.Elems {
		if err := close2(got.Elems[i], want.Elems[i], tol, depth+1); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	if len(want.Elems) > 0 {
		return nil
	}
	if !slices.Equal(got.Shape, want.Shape) {
		return fmt.Errorf("shape %v, the reference has %v", got.Shape, want.Shape)
	}
	if got.DType == "string" || want.DType == "string" {
		if got.DType != want.DType || !slices.Equal(got.Strings, want.Strings) {
			return errors.New("strings differ from the reference")
		}
		return nil
	}
	g, err := floats(got)
	if err != nil {
		return err
	}
	w, err := floats(want)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	if len(g) != len(w) {
		return fmt.Errorf("%d elements, the reference has %d", len(g), len(w))
	}
	for i := range w {
		if math.IsNaN(g[i]) && math.IsNaN(w[i]) || g[i] == w[i] {
			continue
		}
		if d := math.Abs(g[i] - w[i]); math.IsInf(w[i], 0) || !(d <= tol.ATol+tol.RTol*math.Abs(w[i])) {
			return fmt.Errorf("element %d is %g, the reference %g: over the tolerance (rtol %g, atol %g)", i, g[i], w[i], tol.RTol, tol.ATol)
		}
	}
	return nil
}

func kind(t artifact.GoldenTensor) string {
	if t.Kind == "" {
		return "tensor"
	}
	return t.Kind
}

// floats decodes little-endian elements. Integers beyond 2^53 lose their last bits, which both sides do alike.
func floats(t artifact.GoldenTensor) ([]float64, error) {
	size := map[string]int{"f64": 8, "i64": 8, "u64": 8, "f32": 4, "i32": 4, "u32": 4, "f16": 2, "bf16": 2, "i16": 2, "u16": 2, "i8": 1, "u8": 1, "bool": 1}[t.DType]
	if size == 0 {
		return nil, fmt.Errorf("dtype %q is not known here", t.DType)
	}
	n := int64(1)
	for _, d := range t.Shape {
		if d < 0 || d > artifact.MaxGolden {
			return nil, fmt.Errorf("dimension %d", d)
		}
		if n *= d; n > artifact.MaxGolden {
			return nil, errors.New("more elements than the document can hold")
		}
	}
	if int64(len(t.Data)) != n*int64(size) {
		return nil, fmt.Errorf("%d bytes of data for shape %v of %s", len(t.Data), t.Shape, t.DType)
	}
	out := make([]float64, n)
	le := binary.LittleEndian
	for i := range out {
		b := t.Data[i*size:]
		switch t.DType {
		case "f64":
			out[i] = math.Float64frombits(le.Uint64(b))
		case "f32":
			out[i] = float64(math.Float32frombits(le.Uint32(b)))
		case "bf16":
			out[i] = float64(math.Float32frombits(uint32(le.Uint16(b)) << 16))
		case "f16":
			out[i] = half(le.Uint16(b))
		case "i64":
			out[i] = float64(int64(le.Uint64(b)))
		case "u64":
			out[i] = float64(le.Uint64(b))
		case "i32":
			out[i] = float64(int32(le.Uint32(b)))
		case "u32":
			out[i] = float64(le.Uint32(b))
		case "i16":
			out[i] = float64(int16(le.Uint16(b)))
		case "u16":
			out[i] = float64(le.Uint16(b))
		case "i8":
			out[i] = float64(int8(b[0]))
		default:
			out[i] = float64(b[0])
		}
	}
	return out, nil
}

// half decodes IEEE 754 binary16.
func half(h uint16) float64 {
	sign := 1.0
	if h>>15 == 1 {
		sign = -1
	}
	exp, frac := int(h>>10&31), float64(h&1023)
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 31:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}
