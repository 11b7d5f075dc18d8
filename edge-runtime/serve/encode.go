package serve

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
)

// encodeResponse writes the answer by hand: reflection over large arrays costs more than the inference. header is the length
// of its JSON when binary tensors follow, -1 when it is all JSON.
func encodeResponse(sl *slot, req *request, outs []engine.Tensor) (b []byte, header int, err error) {
	i := sl.model.Runner.Interface()
	header = -1
	size := 256
	for _, o := range req.outputs {
		size += 64 + len(i.Outputs[o.output].Name) + 4*len(outs[o.output].Data) // a guess
	}
	b = append(make([]byte, 0, size), `{"model_name":`...)
	b = appendString(b, sl.name)
	b = append(b, `,"model_version":`...)
	b = appendString(b, i.Version)
	if req.hasID {
		b = append(b, `,"id":`...)
		b = appendString(b, req.id)
	}
	b = append(b, `,"parameters":{"digest":`...)
	b = appendString(b, string(sl.model.Digest))
	if req.session != "" {
		b = append(b, `,"sequence_id":`...)
		b = appendString(b, req.session)
	}
	b = append(b, `},"outputs":[`...)
	var blobs [][]byte
	for k, o := range req.outputs {
		if k > 0 {
			b = append(b, ',')
		}
		port := &i.Outputs[o.output]
		var blob []byte
		if b, blob, err = appendOutput(b, port.Name, &outs[o.output], o.binary); err != nil {
			return nil, 0, diag.Errorf("output %q: %w", port.Name, err)
		}
		if o.binary {
			blobs = append(blobs, blob)
			header = 0
		}
	}
	b = append(b, ']', '}')
	if header < 0 {
		return append(b, '\n'), header, nil
	}
	header = len(b)
	for _, blob := range blobs {
		b = append(b, blob...)
	}
	return b, header, nil
}

// appendOutput writes one output tensor; with binary its elements are left to blob. The protocol has no sequences and maps:
// such a value is one BYTES element that holds its JSON, marked by the parameter content_type.
func appendOutput(b []byte, name string, t *engine.Tensor, binary bool) (_, blob []byte, err error) {
	b = append(b, `{"name":`...)
	b = appendString(b, name)
	shape, kind := t.Shape, ""
	var text []byte
	if t.Kind != abi.Tensor {
		if text, err = appendValue(nil, t); err != nil {
			return nil, nil, err
		}
		shape, kind = []int64{1}, "BYTES"
	} else if info, ok := t.DType.Info(); ok && info.OIP != "" {
		kind = info.OIP
	} else {
		return nil, nil, diag.Errorf("the protocol has no datatype for %s", t.DType)
	}
	b = append(b, `,"datatype":"`...)
	b = append(b, kind...)
	b = append(b, `","shape":[`...)
	for i, d := range shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	b = append(b, ']')
	if binary {
		switch {
		case text != nil:
			blob = appendBytes(nil, string(text))
		default:
			blob = encodeBytes(t)
		}
	}
	if binary || text != nil {
		b = append(b, `,"parameters":{`...)
		if text != nil {
			b = append(b, `"content_type":"application/json"`...)
		}
		if binary {
			if text != nil {
				b = append(b, ',')
			}
			b = append(b, `"binary_data_size":`...)
			b = strconv.AppendInt(b, int64(len(blob)), 10)
		}
		b = append(b, '}')
	}
	switch {
	case binary:
	case text != nil:
		b = append(b, `,"data":[`...)
		b = appendString(b, string(text))
		b = append(b, ']')
	default:
		b = append(b, `,"data":`...)
		if b, err = appendElements(b, t); err != nil {
			return nil, nil, err
		}
	}
	return append(b, '}'), blob, nil
}

// appendElements writes the elements of a tensor as a flat array.
func appendElements(b []byte, t *engine.Tensor) ([]byte, error) {
	b = append(b, '[')
	n, err := engine.Count(t.Shape)
	if err != nil {
		return nil, err
	}
	for i := range int(n) {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendElement(b, t, i); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendElement(b []byte, t *engine.Tensor, i int) ([]byte, error) {
	le := binary.LittleEndian
	switch t.DType {
	case abi.String:
		if !utf8.ValidString(t.Strings[i]) {
			return nil, diag.Errorf("element %d is not valid UTF-8", i)
		}
		return appendString(b, t.Strings[i]), nil
	case abi.Bool:
		return strconv.AppendBool(b, t.Data[i] != 0), nil
	case abi.F32:
		return appendFloat(b, float64(math.Float32frombits(le.Uint32(t.Data[4*i:]))), 32), nil
	case abi.F64:
		return appendFloat(b, math.Float64frombits(le.Uint64(t.Data[8*i:])), 64), nil
	case abi.F16:
		return appendFloat(b, fromF16(le.Uint16(t.Data[2*i:])), 32), nil
	case abi.BF16:
		return appendFloat(b, float64(math.Float32frombits(uint32(le.Uint16(t.Data[2*i:]))<<16)), 32), nil
	case abi.I8:
		return strconv.AppendInt(b, int64(int8(t.Data[i])), 10), nil
	case abi.I16:
		return strconv.AppendInt(b, int64(int16(le.Uint16(t.Data[2*i:]))), 10), nil
	case abi.I32:
		return strconv.AppendInt(b, int64(int32(le.Uint32(t.Data[4*i:]))), 10), nil
	case abi.I64:
		return strconv.AppendInt(b, int64(le.Uint64(t.Data[8*i:])), 10), nil
	case abi.U8:
		return strconv.AppendUint(b, uint64(t.Data[i]), 10), nil
	case abi.U16:
		return strconv.AppendUint(b, uint64(le.Uint16(t.Data[2*i:])), 10), nil
	case abi.U32:
		return strconv.AppendUint(b, uint64(le.Uint32(t.Data[4*i:])), 10), nil
	case abi.U64:
		return strconv.AppendUint(b, le.Uint64(t.Data[8*i:]), 10), nil
	}
	return nil, diag.Errorf("JSON has no form for %s", t.DType)
}

// appendFloat writes the shortest decimal that reads back as the same bits.
func appendFloat(b []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(b, `"-Infinity"`...)
	}
	f := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		f = 'e'
	}
	return strconv.AppendFloat(b, v, f, -1, bits)
}

// appendString writes a JSON string.
func appendString(b []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= 0x20 && s[i] < 0x7f && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		b = append(b, '"')
		b = append(b, s...)
		return append(b, '"')
	}
	var w strings.Builder
	e := json.NewEncoder(&w)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return append(b, strings.TrimSuffix(w.String(), "\n")...)
}

// appendValue writes any value as JSON: a tensor as a nested array, a sequence as an array, an optional as its value or
// null, a map as an object whose keys are its keys in decimal or as they are.
func appendValue(b []byte, t *engine.Tensor) ([]byte, error) {
	var err error
	switch t.Kind {
	case abi.Optional:
		if len(t.Elems) == 0 {
			return append(b, "null"...), nil
		}
		return appendValue(b, &t.Elems[0])
	case abi.Sequence:
		b = append(b, '[')
		for i := range t.Elems {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, &t.Elems[i]); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case abi.Map:
		return appendMap(b, &t.Elems[0], &t.Elems[1])
	}
	at := 0
	return appendNested(b, t, t.Shape, &at)
}

func appendNested(b []byte, t *engine.Tensor, shape []int64, at *int) ([]byte, error) {
	if len(shape) == 0 {
		*at++
		return appendElement(b, t, *at-1)
	}
	var err error
	b = append(b, '[')
	for i := range shape[0] {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendNested(b, t, shape[1:], at); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, keys, values *engine.Tensor) ([]byte, error) {
	n, err := engine.Count(keys.Shape)
	if err != nil || keys.Kind != abi.Tensor {
		return nil, diag.Errorf("a map without a tensor of keys")
	}
	if values.Kind == abi.Tensor {
		if m, err := engine.Count(values.Shape); err != nil || m != n {
			return nil, diag.Errorf("a map of %d keys has %d values", n, m)
		}
	} else if int64(len(values.Elems)) != n {
		return nil, diag.Errorf("a map of %d keys has %d values", n, len(values.Elems))
	}
	b = append(b, '{')
	for i := range int(n) {
		if i > 0 {
			b = append(b, ',')
		}
		k, err := appendElement(nil, keys, i)
		if err != nil {
			return nil, err
		}
		if len(k) > 0 && k[0] != '"' {
			k = append(append([]byte{'"'}, k...), '"')
		}
		b = append(append(b, k...), ':')
		if values.Kind == abi.Tensor {
			b, err = appendElement(b, values, i)
		} else {
			b, err = appendValue(b, &values.Elems[i])
		}
		if err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}
