package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/packager/ir"
)

// data converts a TensorProto. dir is the model's folder, for external data; "" refuses external data. Raw bytes are
// not copied: they stay part of the file's buffer.
func (t *tensorProto) data(dir string) (*ir.Data, error) {
	d, err := t.decode(dir)
	if err != nil {
		if t.name != "" {
			return nil, fmt.Errorf("tensor %q: %w", t.name, err)
		}
		return nil, fmt.Errorf("tensor: %w", err)
	}
	return d, nil
}

func (t *tensorProto) decode(dir string) (*ir.Data, error) {
	dt := ir.DType(t.dtype)
	if t.dtype < 0 || t.dtype > 255 || !dt.Valid() {
		return nil, elemTypeError(t.dtype)
	}
	if t.segment {
		return nil, errors.New("segmented tensors are not supported")
	}
	d := &ir.Data{DType: dt, Dims: append([]int64{}, t.dims...)}
	n, ok := ir.Elements(d.Dims)
	if !ok {
		return nil, fmt.Errorf("dims %v are negative or overflow", d.Dims)
	}
	if dt == ir.String {
		if t.location == 1 || t.hasRaw && len(t.raw) > 0 {
			return nil, errors.New("string tensors must be inline")
		}
		d.Strings = t.strs
		return d, d.Check()
	}
	switch {
	case t.location == 1:
		b, err := t.readExternal(dir)
		if err != nil {
			return nil, err
		}
		d.Bytes = b
	case t.hasRaw:
		d.Bytes = t.raw
	default:
		b, err := t.typed(dt, n)
		if err != nil {
			return nil, err
		}
		d.Bytes = b
	}
	if err := d.Check(); err != nil {
		return nil, err
	}
	if dt == ir.Bool {
		for i, b := range d.Bytes {
			if b > 1 {
				d.Bytes = append([]byte(nil), d.Bytes...)
				for k := i; k < len(d.Bytes); k++ {
					d.Bytes[k] = min(d.Bytes[k], 1)
				}
				break
			}
		}
	}
	return d, nil
}

// typed packs the typed repeated fields: float_data, int32_data, int64_data, double_data, uint64_data.
func (t *tensorProto) typed(dt ir.DType, n int64) ([]byte, error) {
	var src []int64
	switch dt {
	case ir.F32:
		if int64(len(t.f32)) != n {
			return nil, fmt.Errorf("%d floats for %d elements", len(t.f32), n)
		}
		b := make([]byte, 4*len(t.f32))
		for i, v := range t.f32 {
			binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v))
		}
		return b, nil
	case ir.F64:
		if int64(len(t.f64)) != n {
			return nil, fmt.Errorf("%d doubles for %d elements", len(t.f64), n)
		}
		b := make([]byte, 8*len(t.f64))
		for i, v := range t.f64 {
			binary.LittleEndian.PutUint64(b[8*i:], math.Float64bits(v))
		}
		return b, nil
	case ir.I64:
		src = t.i64
	case ir.U64, ir.U32:
		src = t.u64
	default:
		src = t.i32
	}
	if dt.Bits() < 8 { // one packed byte per entry
		b := make([]byte, len(src))
		for i, v := range src {
			b[i] = byte(v)
		}
		return b, nil
	}
	if int64(len(src)) != n {
		return nil, fmt.Errorf("%d integers for %d elements", len(src), n)
	}
	w := dt.Bits() / 8
	b := make([]byte, w*len(src))
	for i, v := range src {
		for k := 0; k < w; k++ {
			b[w*i+k] = byte(uint64(v) >> (8 * k))
		}
	}
	return b, nil
}

// readExternal reads a tensor's bytes from a file in the model's folder. The path may not leave the folder, not
// through a symbolic link either.
func (t *tensorProto) readExternal(dir string) (_ []byte, err error) {
	var location string
	offset, length := int64(0), int64(-1)
	for _, e := range t.external {
		switch e.key {
		case "location":
			location = e.value
		case "offset":
			offset, err = strconv.ParseInt(e.value, 10, 64)
		case "length":
			length, err = strconv.ParseInt(e.value, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("external data: %s %q is not a number", e.key, e.value)
		}
	}
	if dir == "" {
		return nil, fmt.Errorf("external data %q, but the model was not read from a folder", location)
	}
	if location == "" || !filepath.IsLocal(filepath.FromSlash(location)) || strings.Contains(location, "\\") {
		return nil, fmt.Errorf("external data %q must be a relative path inside the model's folder", location)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	f, err := root.Open(filepath.FromSlash(location))
	if err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("external data: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("external data %q is not a regular file", location)
	}
	if length < 0 {
		length = st.Size() - offset
	}
	if offset < 0 || length < 0 || offset > st.Size() || length > st.Size()-offset {
		return nil, fmt.Errorf("external data %q has %d bytes, the tensor wants %d at %d", location, st.Size(), length, offset)
	}
	n, ok := ir.Elements(t.dims)
	if want := (n*int64(ir.DType(t.dtype).Bits()) + 7) / 8; !ok || want != length {
		return nil, fmt.Errorf("external data %q: %d bytes for %d elements", location, length, n)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, length), b); err != nil {
		return nil, fmt.Errorf("external data %q: %w", location, err)
	}
	return b, nil
}

// ReadTensor decodes a TensorProto file (an ONNX test vector): its name and its elements. The bytes may alias b.
func ReadTensor(b []byte) (name string, d *ir.Data, err error) {
	t, err := decodeTensor(b)
	if err != nil {
		return "", nil, fmt.Errorf("tensor: %w", err)
	}
	d, err = t.data("")
	return t.name, d, err
}

// ReadValue decodes an ONNX test vector of the given type: TensorProto, SequenceProto, MapProto or OptionalProto,
// which cannot be told apart by their bytes.
func ReadValue(b []byte, t ir.Type) (name string, v *ir.Val, err error) {
	return readValue(b, t, 0)
}

func readValue(b []byte, t ir.Type, depth int) (string, *ir.Val, error) {
	if depth > maxTypeDepth {
		return "", nil, fmt.Errorf("values are nested more than %d deep", maxTypeDepth)
	}
	var name string
	switch t.Kind {
	case ir.Tensor:
		name, d, err := ReadTensor(b)
		return name, &ir.Val{Kind: ir.Tensor, Tensor: d}, err
	case ir.Sequence:
		v := &ir.Val{Kind: ir.Sequence}
		err := fields(b, func(x field) error {
			if x.num == 1 {
				return x.name(&name)
			}
			if x.num == 2 {
				return nil
			}
			_, e, err := readValue(x.b, *t.Elem, depth+1)
			v.Elems = append(v.Elems, e)
			return err
		})
		return name, v, err
	case ir.Optional:
		v := &ir.Val{Kind: ir.Optional}
		err := fields(b, func(x field) error {
			if x.num == 1 {
				return x.name(&name)
			}
			if x.num == 2 || x.num > 7 {
				return nil
			}
			_, e, err := readValue(x.b, *t.Elem, depth+1)
			v.Elems = []*ir.Val{e}
			return err
		})
		return name, v, err
	case ir.Map:
		v := &ir.Val{Kind: ir.Map}
		var ints []int64
		var strs []string
		err := fields(b, func(x field) error {
			switch x.num {
			case 1:
				return x.name(&name)
			case 3:
				return x.ints(&ints)
			case 4:
				var s string
				err := x.str(&s)
				strs = append(strs, s)
				return err
			case 5:
				_, seq, err := readValue(x.b, ir.SequenceOf(*t.Elem), depth+1)
				if seq != nil {
					v.Elems = seq.Elems
				}
				return err
			}
			return nil
		})
		if err != nil {
			return "", nil, err
		}
		v.Keys = ir.I64s([]int64{int64(len(ints))}, ints)
		if t.Key == ir.String {
			v.Keys = ir.Strs([]int64{int64(len(strs))}, strs)
		}
		if v.Keys.Len() != int64(len(v.Elems)) {
			return "", nil, fmt.Errorf("map has %d keys and %d values", v.Keys.Len(), len(v.Elems))
		}
		return name, v, nil
	}
	return "", nil, fmt.Errorf("type %s has no file form", t)
}
