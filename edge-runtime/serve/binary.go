package serve

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// cut takes the bytes of one binary tensor off the front of blob. size is its parameter binary_data_size, data what JSON
// has for it.
func cut(size, data json.RawMessage, blob []byte) (mine, rest []byte, err error) {
	var n uint64
	if err := json.Unmarshal(size, &n); err != nil {
		return nil, nil, diag.Errorf("parameter binary_data_size is %s, which is no length", size)
	}
	if len(data) > 0 {
		return nil, nil, errors.New("it has both data and binary_data_size")
	}
	if n > uint64(len(blob)) {
		return nil, nil, diag.Errorf("binary_data_size is %d, the body has only %d bytes left", n, len(blob))
	}
	return blob[:n:n], blob[n:], nil
}

// decodeBytes reads a tensor from its binary form: little-endian, row-major, BOOL one byte of 0 or 1, each element of BYTES
// after its length in 4 bytes. The elements are not copied, but for BYTES.
func decodeBytes(p *artifact.Port, dt string, shape []int64, raw []byte) (engine.Tensor, error) {
	t, n, optional, err := tensorPort(p, dt, shape)
	if err != nil {
		return t, err
	}
	if t.DType == abi.String {
		if t.Strings, err = splitBytes(raw, n); err != nil {
			return t, err
		}
		return whole(t, optional), nil
	}
	t.Data = raw
	if err := t.Check(); err != nil {
		return t, err
	}
	if t.DType == abi.Bool {
		for i, b := range raw {
			if b > 1 {
				return t, diag.Errorf("element %d: the byte %#02x is neither true nor false", i, b)
			}
		}
	}
	return whole(t, optional), nil
}

// splitBytes reads n elements of BYTES.
func splitBytes(raw []byte, n int64) ([]string, error) {
	if n > int64(len(raw)/4) {
		return nil, diag.Errorf("%d elements of BYTES need %d bytes for their lengths alone, there are %d", n, 4*n, len(raw))
	}
	v := make([]string, n)
	for i := range v {
		if len(raw) < 4 {
			return nil, diag.Errorf("element %d: there are no 4 bytes for its length", i)
		}
		size := binary.LittleEndian.Uint32(raw)
		raw = raw[4:]
		if uint64(size) > uint64(len(raw)) {
			return nil, diag.Errorf("element %d: its length is %d, there are %d bytes left", i, size, len(raw))
		}
		v[i], raw = string(raw[:size]), raw[size:]
	}
	if len(raw) > 0 {
		return nil, diag.Errorf("there are %d bytes after the last element", len(raw))
	}
	return v, nil
}

// encodeBytes gives the binary form of a tensor. It shares t's memory where it can.
func encodeBytes(t *engine.Tensor) []byte {
	if t.DType != abi.String {
		return t.Data
	}
	var b []byte
	for _, s := range t.Strings {
		b = appendBytes(b, s)
	}
	return b
}

// appendBytes writes one element of BYTES. Strings come out of 32-bit modules: their lengths fit.
func appendBytes(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// decodeRaw reads a request that is one tensor and nothing else: Inference-Header-Content-Length is 0. The model has one
// input that a request must bring, of which at most one dim is open; or it is one element of BYTES, which is the body as it is.
// The answer is binary.
func decodeRaw(raw []byte, ports *codecPorts) (*request, error) {
	req := newRequest(ports)
	if err := req.complete(ports); err == nil {
		return nil, errors.New("the model needs no input: send JSON")
	}
	only := -1
	for n := range ports.inputs {
		if req.inputs[n].Shape != nil || ports.inputs[n].Kind == "optional" {
			continue
		}
		if only >= 0 {
			return nil, diag.Errorf("a body of one raw tensor (%s: 0) is for models with one input; this one has %s", headerLength, portNames(ports.inputs))
		}
		only = n
	}
	p := &ports.inputs[only]
	if !p.Ranked {
		return nil, diag.Errorf("input %q has no fixed rank: its shape must be told in JSON", p.Name)
	}
	var shape []int64
	open, known := -1, int64(1)
	for i, d := range p.Shape {
		switch {
		case d.Size >= 0:
			if d.Size > 0 && known > math.MaxInt64/d.Size {
				return nil, diag.Errorf("input %q: its shape has too many elements", p.Name)
			}
			known *= d.Size
		case open >= 0:
			return nil, diag.Errorf("input %q has more than one open dim: its shape must be told in JSON", p.Name)
		default:
			open = i
		}
		shape = append(shape, max(d.Size, 1))
	}
	d, _ := abi.ParseDType(p.DType)
	size := int64(d.Bits() / 8)
	dt := datatype(p)
	if d == abi.String {
		if known != 1 {
			return nil, diag.Errorf("input %q has %d elements; a raw body is one", p.Name, known)
		}
		raw = appendBytes(nil, string(raw))
	} else if open >= 0 {
		if size <= 0 || known <= 0 || known > math.MaxInt64/size || int64(len(raw))%(known*size) != 0 {
			return nil, diag.Errorf("input %q: %d bytes are no whole number of elements of shape %s", p.Name, len(raw), engine.PortShape(p))
		}
		shape[open] = int64(len(raw)) / (known * size)
	}
	t, err := decodeBytes(p, dt, shape, raw)
	if err != nil {
		return nil, diag.Errorf("input %q: %w", p.Name, err)
	}
	req.inputs[only], req.given[only] = t, true
	if err := req.complete(ports); err != nil {
		return nil, err
	}
	req.wantAll(ports, true)
	return req, nil
}
