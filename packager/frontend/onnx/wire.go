package onnx

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits on what a file may ask for. They bound memory and recursion, and lie far above real models.
const (
	maxModelBytes = 2 << 30 // protobuf's own limit
	maxDepth      = 32      // graphs in attributes of graphs
	maxTypeDepth  = 8
	maxNodes      = 1 << 20
	maxNameBytes  = 1 << 16
)

var errTruncated = errors.New("the protobuf data is truncated")

// field is one protobuf field: u for varint and fixed types, b for bytes.
type field struct {
	num protowire.Number
	typ protowire.Type
	u   uint64
	b   []byte
}

// fields calls f for each field of a message. Groups, unknown wire types and truncated data are errors.
func fields(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return wireError(n)
		}
		b = b[n:]
		x := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			x.u, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			x.u = uint64(v)
		case protowire.Fixed64Type:
			x.u, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			x.b, n = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("field %d has the wire type %d, which ONNX does not use", num, typ)
		}
		if n < 0 {
			return wireError(n)
		}
		b = b[n:]
		if err := f(x); err != nil {
			return err
		}
	}
	return nil
}

func wireError(n int) error {
	err := protowire.ParseError(n)
	if errors.Is(err, protowire.ParseError(-1)) {
		return errTruncated
	}
	return fmt.Errorf("the protobuf data is damaged: %w", err)
}

func (x field) want(t protowire.Type) error {
	if x.typ != t {
		return fmt.Errorf("field %d has wire type %d, want %d", x.num, x.typ, t)
	}
	return nil
}

func (x field) int(dst *int64) error {
	*dst = int64(x.u)
	return x.want(protowire.VarintType)
}

func (x field) str(dst *string) error {
	if len(x.b) > maxModelBytes {
		return fmt.Errorf("field %d is too long", x.num)
	}
	*dst = string(x.b)
	return x.want(protowire.BytesType)
}

// name is str with a limit that keeps error messages and symbol tables sane.
func (x field) name(dst *string) error {
	if len(x.b) > maxNameBytes {
		return fmt.Errorf("a name has %d bytes, over %d", len(x.b), maxNameBytes)
	}
	return x.str(dst)
}

// ints appends a repeated integer, packed or not.
func (x field) ints(dst *[]int64) error {
	if x.typ == protowire.VarintType {
		*dst = append(*dst, int64(x.u))
		return nil
	}
	if err := x.want(protowire.BytesType); err != nil {
		return err
	}
	for b := x.b; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return wireError(n)
		}
		*dst = append(*dst, int64(v))
		b = b[n:]
	}
	return nil
}

// float32s appends a repeated float, packed or not.
func (x field) float32s(dst *[]float32) error {
	if x.typ == protowire.Fixed32Type {
		*dst = append(*dst, math.Float32frombits(uint32(x.u)))
		return nil
	}
	if err := x.want(protowire.BytesType); err != nil {
		return err
	}
	if len(x.b)%4 != 0 {
		return errTruncated
	}
	for b := x.b; len(b) > 0; b = b[4:] {
		v, _ := protowire.ConsumeFixed32(b)
		*dst = append(*dst, math.Float32frombits(v))
	}
	return nil
}

// float64s appends a repeated double, packed or not.
func (x field) float64s(dst *[]float64) error {
	if x.typ == protowire.Fixed64Type {
		*dst = append(*dst, math.Float64frombits(x.u))
		return nil
	}
	if err := x.want(protowire.BytesType); err != nil {
		return err
	}
	if len(x.b)%8 != 0 {
		return errTruncated
	}
	for b := x.b; len(b) > 0; b = b[8:] {
		v, _ := protowire.ConsumeFixed64(b)
		*dst = append(*dst, math.Float64frombits(v))
	}
	return nil
}

// msg decodes a sub-message.
func msg[T any](x field, dst *T, dec func([]byte) (T, error)) error {
	if err := x.want(protowire.BytesType); err != nil {
		return err
	}
	v, err := dec(x.b)
	*dst = v
	return err
}

// msgs decodes and appends a repeated sub-message.
func msgs[T any](x field, dst *[]T, dec func([]byte) (T, error)) error {
	var v T
	if err := msg(x, &v, dec); err != nil {
		return err
	}
	*dst = append(*dst, v)
	return nil
}
