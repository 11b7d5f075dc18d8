package engine

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
)

var le = binary.LittleEndian

// layout hands out addresses upward from a base; it is how the host places blocks in a guest that leaves its memory
// to the host (waybill_heap). For guests with waybill_alloc the same blocks come from the guest.
type layout struct{ next uint64 }

func (l *layout) take(size, align uint64) uint64 {
	l.next = (l.next + align - 1) &^ (align - 1)
	p := l.next
	l.next += size
	return p
}

// inputSize returns the bytes that t needs besides its own descriptor: data, or child descriptors and theirs, each
// block rounded up to abi.TensorLine.
func inputSize(t *Tensor) (uint64, error) {
	var n uint64
	switch {
	case t.Kind != abi.Tensor:
		n = uint64(len(t.Elems)) * abi.DescSize
		for i := range t.Elems {
			c, err := inputSize(&t.Elems[i])
			if err != nil {
				return 0, err
			}
			n += c + abi.TensorLine
		}
	case t.DType == abi.String:
		n = stringBytes(t.Strings)
	default:
		n = uint64(len(t.Data))
	}
	if n > math.MaxUint32 {
		return 0, diag.Errorf("a value of %d bytes does not fit into 4 GiB", n)
	}
	return roundUp(n, abi.TensorLine), nil
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

func stringBytes(s []string) uint64 {
	n := uint64(len(s)+1) * 4
	for _, x := range s {
		n += uint64(len(x))
	}
	return n
}

// putValue writes t's descriptor at desc and its contents at l's next addresses. The caller made sure by inputSize
// that everything fits into mem. breathe, when not nil, is called now and then; its error is returned.
func putValue(breathe func() error, mem []byte, desc uint64, l *layout, t *Tensor) error {
	d := mem[desc : desc+abi.DescSize]
	clear(d)
	le.PutUint32(d[abi.DescKind:], uint32(t.Kind))
	le.PutUint32(d[abi.DescDType:], uint32(t.DType))
	if t.Kind != abi.Tensor {
		if len(t.Elems) > 0 && t.DType == 0 {
			le.PutUint32(d[abi.DescDType:], uint32(t.Elems[0].DType))
		}
		n := uint64(len(t.Elems)) * abi.DescSize
		at := l.take(n, abi.TensorLine)
		le.PutUint32(d[abi.DescRank:], 1)
		le.PutUint64(d[abi.DescDims:], uint64(len(t.Elems)))
		if t.Kind == abi.Map {
			le.PutUint64(d[abi.DescDims:], uint64(firstDim(&t.Elems[0])))
		}
		putExtent(d, at, n, 0)
		for i := range t.Elems {
			if err := putValue(breathe, mem, at+uint64(i)*abi.DescSize, l, &t.Elems[i]); err != nil {
				return err
			}
		}
		return nil
	}
	le.PutUint32(d[abi.DescRank:], uint32(len(t.Shape)))
	for i, n := range t.Shape {
		le.PutUint64(d[abi.DescDims+8*i:], uint64(n))
	}
	if t.DType != abi.String {
		at := l.take(uint64(len(t.Data)), abi.TensorLine)
		if err := copyChunks(breathe, mem[at:at+uint64(len(t.Data))], t.Data); err != nil {
			return err
		}
		putExtent(d, at, uint64(len(t.Data)), 0)
		return nil
	}
	total := stringBytes(t.Strings)
	at := l.take(total, abi.TensorLine)
	text := at + uint64(len(t.Strings)+1)*4
	var off uint64
	for i, s := range t.Strings {
		if breathe != nil && i%everyStrings == everyStrings-1 {
			if err := breathe(); err != nil {
				return err
			}
		}
		if !utf8.ValidString(s) {
			return diag.Errorf("string %d is not valid UTF-8", i)
		}
		le.PutUint32(mem[at+uint64(i)*4:], uint32(off))
		copy(mem[text+off:], s)
		off += uint64(len(s))
	}
	le.PutUint32(mem[at+uint64(len(t.Strings))*4:], uint32(off))
	putExtent(d, at, total, off)
	return nil
}

func putExtent(d []byte, at, n, aux uint64) {
	le.PutUint32(d[abi.DescData:], uint32(at))
	le.PutUint32(d[abi.DescBytes:], uint32(n))
	le.PutUint32(d[abi.DescCap:], uint32(roundUp(n, abi.TensorLine)))
	le.PutUint32(d[abi.DescAux:], uint32(aux))
}

func firstDim(t *Tensor) int64 {
	if t.Kind == abi.Tensor && len(t.Shape) > 0 {
		return t.Shape[0]
	}
	return int64(len(t.Elems))
}

// reader copies values out of guest memory. Everything it reads is untrusted: addresses, lengths, counts and nesting
// are checked, and budget bounds the bytes that it may copy in all, because descriptors may overlap.
type reader struct {
	mem     []byte
	budget  int64
	breathe func() error // called now and then, unless nil
}

func (r *reader) block(at, n uint64) ([]byte, error) {
	if at > uint64(len(r.mem)) || n > uint64(len(r.mem))-at {
		return nil, diag.Errorf("%d bytes at address %d are outside of the memory of %d bytes", n, at, len(r.mem))
	}
	return r.mem[at : at+n], nil
}

func (r *reader) spend(n int64) error {
	if r.budget -= n; r.budget < 0 {
		return diag.Errorf("the outputs are larger than the limit")
	}
	return nil
}

// value reads the descriptor at address desc.
func (r *reader) value(desc uint64, depth int) (Tensor, error) {
	var t Tensor
	if depth > maxDepth {
		return t, diag.Errorf("a value nests deeper than %d levels", maxDepth)
	}
	d, err := r.block(desc, abi.DescSize)
	if err != nil {
		return t, diag.Errorf("descriptor: %w", err)
	}
	if err := r.spend(abi.DescSize); err != nil {
		return t, err
	}
	t.Kind = abi.Kind(le.Uint32(d[abi.DescKind:]))
	t.DType = abi.DType(le.Uint32(d[abi.DescDType:]))
	at, n := uint64(le.Uint32(d[abi.DescData:])), uint64(le.Uint32(d[abi.DescBytes:]))
	if t.Kind != abi.Tensor {
		return r.container(t, at, n, depth)
	}
	if _, ok := t.DType.Info(); !ok {
		return t, diag.Errorf("unknown element type %d", t.DType)
	}
	rank := le.Uint32(d[abi.DescRank:])
	if rank > abi.MaxRank {
		return t, diag.Errorf("rank %d is more than %d", rank, abi.MaxRank)
	}
	t.Shape = make([]int64, rank)
	for i := range t.Shape {
		t.Shape[i] = int64(le.Uint64(d[abi.DescDims+8*i:]))
	}
	count, err := Count(t.Shape)
	if err != nil {
		return t, err
	}
	b, err := r.block(at, n)
	if err != nil {
		return t, err
	}
	if t.DType == abi.String {
		t.Strings, err = r.strings(b, count)
		return t, err
	}
	want, err := byteLen(t.DType, count)
	if err != nil {
		return t, err
	}
	if int64(n) != want {
		return t, diag.Errorf("%s of shape %s needs %d bytes, the module says %d", t.DType, ShapeString(t.Shape), want, n)
	}
	if err := r.spend(want); err != nil {
		return t, err
	}
	t.Data, err = cloneChunks(r.breathe, b)
	return t, err
}

func (r *reader) container(t Tensor, at, n uint64, depth int) (Tensor, error) {
	if n%abi.DescSize != 0 {
		return t, diag.Errorf("%d bytes of child descriptors are no multiple of %d", n, abi.DescSize)
	}
	count := n / abi.DescSize
	switch {
	case t.Kind > abi.Map:
		return t, diag.Errorf("unknown kind %d", t.Kind)
	case t.Kind == abi.Optional && count > 1:
		return t, diag.Errorf("an optional holds %d values", count)
	case t.Kind == abi.Map && count != 2:
		return t, diag.Errorf("a map has %d child descriptors, not keys and values", count)
	}
	if _, err := r.block(at, n); err != nil {
		return t, err
	}
	for i := range count {
		e, err := r.value(at+i*abi.DescSize, depth+1)
		if err != nil {
			return t, diag.Errorf("element %d: %w", i, err)
		}
		t.Elems = append(t.Elems, e)
	}
	return t, nil
}

// strings splits a block of u32 offsets[count+1] and text.
func (r *reader) strings(b []byte, count int64) ([]string, error) {
	if count < 0 || uint64(count) > math.MaxUint32/4 || uint64(len(b)) < uint64(count+1)*4 {
		return nil, diag.Errorf("%d strings do not fit into a block of %d bytes", count, len(b))
	}
	if err := r.spend(int64(len(b)) + 16*count); err != nil {
		return nil, err
	}
	text := b[(count+1)*4:]
	all, err := textChunks(r.breathe, text)
	if err != nil {
		return nil, err
	}
	out := make([]string, count)
	prev := uint32(0)
	if first := le.Uint32(b); first != 0 {
		return nil, diag.Errorf("the first string starts at %d, not 0", first)
	}
	for i := range out {
		if r.breathe != nil && i%everyStrings == everyStrings-1 {
			if err := r.breathe(); err != nil {
				return nil, err
			}
		}
		end := le.Uint32(b[4*(i+1):])
		if end < prev || uint64(end) > uint64(len(text)) {
			return nil, diag.Errorf("string %d ends at %d, outside of [%d, %d]", i, end, prev, len(text))
		}
		out[i] = all[prev:end]
		prev = end
	}
	return out, nil
}
