package serve

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
)

// encodeResponse writes the answer by hand: reflection over large arrays costs more than the inference.
func encodeResponse(sl *slot, req *request, outs []engine.Tensor) ([]byte, error) {
	i := sl.model.Runner.Interface()
	b := append([]byte(nil), `{"model_name":`...)
	b = appendString(b, sl.name)
	b = append(b, `,"model_version":`...)
	b = appendString(b, i.Version)
	if req.hasID {
		b = append(b, `,"id":`...)
		b = appendString(b, req.id)
	}
	b = append(b, `,"parameters":{"digest":`...)
	b = appendString(b, string(sl.model.Digest))
	b = append(b, `},"outputs":[`...)
	for k, n := range req.outputs {
		if k > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendOutput(b, i.Outputs[n].Name, &outs[n]); err != nil {
			return nil, fmt.Errorf("output %q: %w", i.Outputs[n].Name, err)
		}
	}
	return append(b, ']', '}', '\n'), nil
}

// appendOutput writes one output tensor. The protocol has no sequences and maps: such a value is one BYTES element that
// holds its JSON, marked by the parameter content_type.
func appendOutput(b []byte, name string, t *engine.Tensor) ([]byte, error) {
	b = append(b, `{"name":`...)
	b = appendString(b, name)
	if t.Kind != abi.Tensor {
		text, err := appendValue(nil, t)
		if err != nil {
			return nil, err
		}
		b = append(b, `,"datatype":"BYTES","shape":[1],"parameters":{"content_type":"application/json"},"data":[`...)
		b = appendString(b, string(text))
		return append(b, ']', '}'), nil
	}
	info, ok := t.DType.Info()
	if !ok || info.OIP == "" {
		return nil, fmt.Errorf("the protocol has no datatype for %s", t.DType)
	}
	b = append(b, `,"datatype":"`...)
	b = append(b, info.OIP...)
	b = append(b, `","shape":[`...)
	for i, d := range t.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	b = append(b, `],"data":`...)
	b, err := appendElements(b, t)
	return append(b, '}'), err
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
			return nil, fmt.Errorf("element %d is not valid UTF-8", i)
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
	return nil, fmt.Errorf("JSON has no form for %s", t.DType)
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
		return nil, fmt.Errorf("a map without a tensor of keys")
	}
	if values.Kind == abi.Tensor {
		if m, err := engine.Count(values.Shape); err != nil || m != n {
			return nil, fmt.Errorf("a map of %d keys has %d values", n, m)
		}
	} else if int64(len(values.Elems)) != n {
		return nil, fmt.Errorf("a map of %d keys has %d values", n, len(values.Elems))
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
