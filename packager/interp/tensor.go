package interp

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// maxElements bounds one tensor, so that a damaged shape is an error and not an exhausted machine.
const maxElements = 1 << 28

// tensor is a decoded tensor: exactly one of the slices is used. Integers of every width and bools are held as int64,
// already wrapped to their width (u64 as the same bits), small floats as their bit patterns; f16 and bf16 are held as the f32 that they are.
type tensor struct {
	dt   ir.DType
	dims []int64
	f32  []float32
	f64  []float64
	ints []int64
	strs []string
}

func (t *tensor) len() int {
	n, _ := ir.Elements(t.dims)
	return int(n)
}

// isF32 reports that elements are in f32.
func isF32(d ir.DType) bool { return d == ir.F32 || d == ir.F16 || d == ir.BF16 }

// alloc makes a zero tensor.
func alloc(dt ir.DType, dims []int64) (*tensor, error) {
	n, ok := ir.Elements(dims)
	for _, d := range dims {
		if d < 0 {
			return nil, fmt.Errorf("dims %v are negative", dims)
		}
	}
	if !ok || n > maxElements {
		return nil, tooMuchf("dims %v are too large", dims)
	}
	if len(dims) > ir.MaxRank {
		return nil, fmt.Errorf("rank %d is over %d", len(dims), ir.MaxRank)
	}
	t := &tensor{dt: dt, dims: append([]int64{}, dims...)}
	switch {
	case isF32(dt):
		t.f32 = make([]float32, n)
	case dt == ir.F64:
		t.f64 = make([]float64, n)
	case dt == ir.String:
		t.strs = make([]string, n)
	case dt == ir.Bool || dt.IsInt() || dt.IsSmallFloat():
		t.ints = make([]int64, n)
	default:
		return nil, fmt.Errorf("element type %s is not interpreted", dt)
	}
	return t, nil
}

func fromData(d *ir.Data) (*tensor, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	t, err := alloc(d.DType, d.Dims)
	if err != nil {
		return nil, err
	}
	switch {
	case d.DType == ir.F16:
		for i := range t.f32 {
			t.f32[i] = fromF16(binary.LittleEndian.Uint16(d.Bytes[2*i:]))
		}
	case d.DType == ir.BF16:
		for i := range t.f32 {
			t.f32[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(d.Bytes[2*i:])) << 16)
		}
	case t.f32 != nil:
		for i := range t.f32 {
			t.f32[i] = math.Float32frombits(binary.LittleEndian.Uint32(d.Bytes[4*i:]))
		}
	case t.f64 != nil:
		for i := range t.f64 {
			t.f64[i] = math.Float64frombits(binary.LittleEndian.Uint64(d.Bytes[8*i:]))
		}
	case t.strs != nil:
		copy(t.strs, d.Strings)
	default:
		for i := range t.ints {
			t.ints[i] = d.Int(i)
		}
	}
	return t, nil
}

// data encodes t; NaNs become the canonical quiet NaN when canon is set.
func (t *tensor) data(canon bool) *ir.Data {
	d := &ir.Data{DType: t.dt, Dims: append([]int64{}, t.dims...)}
	switch {
	case t.dt == ir.F16:
		for _, v := range t.f32 {
			d.Bytes = binary.LittleEndian.AppendUint16(d.Bytes, toF16(v))
		}
	case t.dt == ir.BF16:
		for _, v := range t.f32 {
			d.Bytes = binary.LittleEndian.AppendUint16(d.Bytes, toBF16(v))
		}
	case t.dt == ir.F32:
		d.Bytes = make([]byte, 4*len(t.f32))
		for i, v := range t.f32 {
			b := math.Float32bits(v)
			if canon && v != v {
				b = 0x7fc00000
			}
			binary.LittleEndian.PutUint32(d.Bytes[4*i:], b)
		}
	case t.dt == ir.F64:
		d.Bytes = make([]byte, 8*len(t.f64))
		for i, v := range t.f64 {
			b := math.Float64bits(v)
			if canon && v != v {
				b = 0x7ff8000000000000
			}
			binary.LittleEndian.PutUint64(d.Bytes[8*i:], b)
		}
	case t.dt == ir.String:
		d.Strings = append([]string{}, t.strs...)
	case t.dt.Bits() == 4:
		d.Bytes = make([]byte, (len(t.ints)+1)/2)
		for i, v := range t.ints {
			d.Bytes[i/2] |= byte(v&15) << (4 * (i & 1))
		}
	case t.dt.Bits() == 2:
		d.Bytes = make([]byte, (len(t.ints)+3)/4)
		for i, v := range t.ints {
			d.Bytes[i/4] |= byte(v&3) << (2 * (i & 3))
		}
	default:
		d.Bytes = ir.IntData(t.dt, nil, t.ints).Bytes
	}
	if d.Bytes == nil && t.dt != ir.String {
		d.Bytes = []byte{}
	}
	return d
}

// take gathers elements by flat index; a negative index gives fill's only element.
func (t *tensor) take(dims []int64, idx []int, fill *tensor) (*tensor, error) {
	out, err := alloc(t.dt, dims)
	if err != nil {
		return nil, err
	}
	for i, k := range idx {
		src := t
		if k < 0 {
			src, k = fill, 0
		}
		switch {
		case out.f32 != nil:
			out.f32[i] = src.f32[k]
		case out.f64 != nil:
			out.f64[i] = src.f64[k]
		case out.strs != nil:
			out.strs[i] = src.strs[k]
		default:
			out.ints[i] = src.ints[k]
		}
	}
	return out, nil
}

// reshaped shares the elements under other dims.
func (t *tensor) reshaped(dims []int64) (*tensor, error) {
	n, ok := ir.Elements(dims)
	if !ok || int(n) != t.len() {
		return nil, fmt.Errorf("%d elements do not fit dims %v", t.len(), dims)
	}
	c := *t
	c.dims = append([]int64{}, dims...)
	return &c, nil
}

// strides gives the row-major strides of dims.
func strides(dims []int64) []int {
	s := make([]int, len(dims))
	n := 1
	for i := len(dims) - 1; i >= 0; i-- {
		s[i] = n
		n *= int(dims[i])
	}
	return s
}

// each calls f for every multi-index of dims in row-major order; f must not keep the slice.
func each(dims []int64, f func(flat int, ix []int64) error) error {
	n, _ := ir.Elements(dims)
	ix := make([]int64, len(dims))
	for flat := 0; flat < int(n); flat++ {
		if err := f(flat, ix); err != nil {
			return err
		}
		for d := len(dims) - 1; d >= 0; d-- {
			ix[d]++
			if ix[d] < dims[d] {
				break
			}
			ix[d] = 0
		}
	}
	return nil
}

// broadcast gives the numpy result dims of all shapes.
func broadcast(shapes ...[]int64) ([]int64, error) {
	var out []int64
	for _, s := range shapes {
		for len(out) < len(s) {
			out = append([]int64{1}, out...)
		}
		for i := range s {
			o := len(out) - len(s) + i
			switch {
			case out[o] == s[i] || s[i] == 1:
			case out[o] == 1:
				out[o] = s[i]
			default:
				return nil, fmt.Errorf("shapes %v do not broadcast", shapes)
			}
		}
	}
	if out == nil {
		out = []int64{}
	}
	return out, nil
}

// spread gives for each element of out the flat index in a tensor of dims in that broadcasts to it.
func spread(in, out []int64) []int {
	st := strides(in)
	n, _ := ir.Elements(out)
	idx := make([]int, n)
	_ = each(out, func(flat int, ix []int64) error {
		k := 0
		for d := range in {
			if in[d] != 1 {
				k += int(ix[len(out)-len(in)+d]) * st[d]
			}
		}
		idx[flat] = k
		return nil
	})
	return idx
}

// wrap reduces an integer to the width of its type.
func wrap(d ir.DType, v int64) int64 {
	switch d {
	case ir.I8:
		return int64(int8(v))
	case ir.I16:
		return int64(int16(v))
	case ir.I32:
		return int64(int32(v))
	case ir.U8:
		return int64(uint8(v))
	case ir.U16:
		return int64(uint16(v))
	case ir.U32:
		return int64(uint32(v))
	case ir.U2:
		return v & 3
	case ir.I2:
		return int64(int8(v<<6) >> 6)
	case ir.U4:
		return v & 15
	case ir.I4:
		return int64(int8(v<<4) >> 4)
	}
	return v
}

func fromF16(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := uint32(h>>10&31), uint32(h&1023)
	switch {
	case exp == 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case exp == 0:
		v := float32(frac) * (1.0 / (1 << 24)) // exact
		return math.Float32frombits(math.Float32bits(v) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// toF16 rounds to nearest even.
func toF16(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return 0x7e00
	case b >= 0x477ff000: // rounds to infinity
		return sign | 0x7c00
	case b < 0x33000001: // half the smallest subnormal or less
		return sign
	case b < 0x38800000: // subnormal
		shift := 126 - b>>23
		m := b&0x7fffff | 0x800000
		r := m >> shift
		rest, half := m&(1<<shift-1), uint32(1)<<(shift-1)
		if rest > half || rest == half && r&1 == 1 {
			r++
		}
		return sign | uint16(r)
	}
	r := b - 0x38000000
	r += 0xfff + r>>13&1
	return sign | uint16(r>>13)
}

func toBF16(v float32) uint16 {
	b := math.Float32bits(v)
	if v != v {
		return 0x7fc0
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
