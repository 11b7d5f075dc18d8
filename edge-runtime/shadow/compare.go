package shadow

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// comparer decides whether two answers are the same. Outputs are matched by name; those that only the candidate has do not
// matter. Floating-point numbers may differ within the tolerance, everything else (labels, classes, shapes) not at all.
type comparer struct {
	names      []string // of the live outputs
	at         []int    // position of each among the candidate's
	rtol, atol float64
}

func newComparer(live, candidate []artifact.Port, rtol, atol float64) (comparer, error) {
	c := comparer{rtol: rtol, atol: atol}
	for _, p := range live {
		i := slices.IndexFunc(candidate, func(o artifact.Port) bool { return o.Name == p.Name })
		if i < 0 {
			return c, fmt.Errorf("it has no output %q, which the live model has", p.Name)
		}
		c.names, c.at = append(c.names, p.Name), append(c.at, i)
	}
	return c, nil
}

// diff is how two answers differ; what is "" when they do not.
type diff struct {
	what    string
	largest float64 // absolute, of numbers, also within the tolerance
}

func (c comparer) compare(live, candidate []engine.Tensor) diff {
	var d diff
	for i, name := range c.names {
		if i >= len(live) || c.at[i] >= len(candidate) {
			d.note(fmt.Sprintf("output %s is missing", name))
			continue
		}
		c.tensor(&d, "output "+name, &live[i], &candidate[c.at[i]])
	}
	return d
}

func (d *diff) note(what string) {
	if d.what == "" {
		d.what = what
	}
}

func (c comparer) tensor(d *diff, at string, live, got *engine.Tensor) {
	switch {
	case live.Kind != got.Kind || live.DType != got.DType:
		d.note(fmt.Sprintf("%s: a %s of %s against a %s of %s", at, got.Kind, got.DType, live.Kind, live.DType))
	case live.Kind != abi.Tensor:
		if len(live.Elems) != len(got.Elems) {
			d.note(fmt.Sprintf("%s: %d elements against %d", at, len(got.Elems), len(live.Elems)))
			return
		}
		for i := range live.Elems {
			c.tensor(d, fmt.Sprintf("%s[%d]", at, i), &live.Elems[i], &got.Elems[i])
		}
	case !slices.Equal(live.Shape, got.Shape):
		d.note(fmt.Sprintf("%s: shape %s against %s", at, engine.ShapeString(got.Shape), engine.ShapeString(live.Shape)))
	case live.DType == abi.String:
		for i := range live.Strings {
			if i >= len(got.Strings) || live.Strings[i] != got.Strings[i] {
				d.note(fmt.Sprintf("%s, element %d: another text", at, i)) // the text itself may be personal
				return
			}
		}
	default:
		c.numbers(d, at, live, got)
	}
}

func (c comparer) numbers(d *diff, at string, live, got *engine.Tensor) {
	if string(live.Data) == string(got.Data) {
		return
	}
	read, width := reader(live.DType)
	if read == nil || len(live.Data) != len(got.Data) {
		d.note(at + ": other bytes")
		return
	}
	for i := 0; i+width <= len(live.Data); i += width {
		a, b := live.Data[i:i+width], got.Data[i:i+width]
		if string(a) == string(b) {
			continue
		}
		x, y := read(a), read(b)
		gap := math.Abs(x - y)
		if gap > d.largest && !math.IsInf(gap, 0) {
			d.largest = gap
		}
		if c.within(live.DType, x, y, gap) {
			continue
		}
		d.note(fmt.Sprintf("%s, element %d: %v against %v", at, i/width, y, x))
	}
}

// within applies the tolerance to numbers whose bits differ.
func (c comparer) within(dt abi.DType, live, got, gap float64) bool {
	if c.rtol == 0 && c.atol == 0 || !floating(dt) {
		return false
	}
	if math.IsNaN(live) || math.IsNaN(got) {
		return math.IsNaN(live) && math.IsNaN(got)
	}
	return gap <= c.atol+c.rtol*math.Abs(live) // infinite numbers of one sign have the same bits
}

func floating(dt abi.DType) bool {
	switch dt {
	case abi.F16, abi.BF16, abi.F32, abi.F64:
		return true
	}
	return false
}

// reader gives the value of one element; nil for element types that are compared as bytes.
func reader(dt abi.DType) (read func([]byte) float64, width int) {
	le := binary.LittleEndian
	switch dt {
	case abi.F16:
		return func(b []byte) float64 { return half(le.Uint16(b)) }, 2
	case abi.BF16:
		return func(b []byte) float64 { return float64(math.Float32frombits(uint32(le.Uint16(b)) << 16)) }, 2
	case abi.F32:
		return func(b []byte) float64 { return float64(math.Float32frombits(le.Uint32(b))) }, 4
	case abi.F64:
		return func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) }, 8
	case abi.I8:
		return func(b []byte) float64 { return float64(int8(b[0])) }, 1
	case abi.U8, abi.Bool:
		return func(b []byte) float64 { return float64(b[0]) }, 1
	case abi.I16:
		return func(b []byte) float64 { return float64(int16(le.Uint16(b))) }, 2
	case abi.U16:
		return func(b []byte) float64 { return float64(le.Uint16(b)) }, 2
	case abi.I32:
		return func(b []byte) float64 { return float64(int32(le.Uint32(b))) }, 4
	case abi.U32:
		return func(b []byte) float64 { return float64(le.Uint32(b)) }, 4
	case abi.I64:
		return func(b []byte) float64 { return float64(int64(le.Uint64(b))) }, 8
	case abi.U64:
		return func(b []byte) float64 { return float64(le.Uint64(b)) }, 8
	}
	return nil, 0
}

// half widens an IEEE half exactly.
func half(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	switch e, m := int(h>>10&0x1f), float64(h&0x3ff); e {
	case 0:
		return sign * math.Ldexp(m, -24)
	case 31:
		if m != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	default:
		return sign * math.Ldexp(m+1024, e-25)
	}
}
