// Package oip reads and writes tensors as the Open Inference Protocol V2 spells them in JSON: name, datatype, shape and
// data, where data is row-major, flat or nested. Values are artifact.GoldenTensor, the form that golden vectors have.
package oip

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// MaxElements bounds one tensor.
const MaxElements = 1 << 28

// Tensor is a V2 request input or response output.
type Tensor struct {
	Name       string          `json:"name"`
	Datatype   string          `json:"datatype"`
	Shape      []int64         `json:"shape"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data"`
}

type pair struct{ dtype, datatype string }

func pairs() []pair {
	return []pair{
		{"bool", "BOOL"}, {"u8", "UINT8"}, {"u16", "UINT16"}, {"u32", "UINT32"}, {"u64", "UINT64"},
		{"i8", "INT8"}, {"i16", "INT16"}, {"i32", "INT32"}, {"i64", "INT64"},
		{"f32", "FP32"}, {"f64", "FP64"}, {"string", "BYTES"},
	}
}

// Datatype gives the protocol's name of an element type, "" when JSON cannot carry it.
func Datatype(dtype string) string {
	for _, p := range pairs() {
		if p.dtype == dtype {
			return p.datatype
		}
	}
	return ""
}

// DType is the inverse of Datatype.
func DType(datatype string) string {
	for _, p := range pairs() {
		if p.datatype == datatype {
			return p.dtype
		}
	}
	return ""
}

// Elements multiplies a shape out; it fails on negative dimensions and above MaxElements.
func Elements(shape []int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has the negative dimension %d", shape, d)
		}
		if d != 0 && n > MaxElements/d {
			return 0, fmt.Errorf("shape %v has more than %d elements", shape, MaxElements)
		}
		n *= d
	}
	return n, nil
}

// Decode reads a tensor. Numbers must be representable: integers in range of the type, floats finite or null for NaN,
// rounded once to the type.
func Decode(t Tensor) (artifact.GoldenTensor, error) {
	g := artifact.GoldenTensor{Name: t.Name, DType: DType(t.Datatype), Shape: t.Shape}
	if g.Shape == nil {
		g.Shape = []int64{}
	}
	fail := func(err error) (artifact.GoldenTensor, error) {
		return artifact.GoldenTensor{}, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	if g.DType == "" {
		return fail(fmt.Errorf("unknown datatype %q", t.Datatype))
	}
	if len(t.Shape) > 8 {
		return fail(fmt.Errorf("rank %d is above 8", len(t.Shape)))
	}
	n, err := Elements(t.Shape)
	if err != nil {
		return fail(err)
	}
	var values []any
	d := json.NewDecoder(bytes.NewReader(t.Data))
	d.UseNumber()
	var data any
	if err := d.Decode(&data); err != nil {
		return fail(fmt.Errorf("data: %w", err))
	}
	if values, err = flatten(values, data, 0); err != nil {
		return fail(err)
	}
	if int64(len(values)) != n {
		return fail(fmt.Errorf("%d values for shape %v, want %d", len(values), t.Shape, n))
	}
	for i, v := range values {
		if err := appendValue(&g, v); err != nil {
			return fail(fmt.Errorf("value %d: %w", i, err))
		}
	}
	return g, nil
}

func flatten(out []any, v any, depth int) ([]any, error) {
	l, ok := v.([]any)
	if !ok {
		if depth == 0 {
			return nil, errors.New("data is not a list")
		}
		return append(out, v), nil
	}
	if depth > 8 {
		return nil, errors.New("data is nested deeper than 8 lists")
	}
	var err error
	for _, e := range l {
		if out, err = flatten(out, e, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func appendValue(g *artifact.GoldenTensor, v any) error {
	switch v := v.(type) {
	case json.Number:
		return AppendNumber(g, string(v))
	case string:
		if g.DType != "string" {
			return fmt.Errorf("text %q in a tensor of %s", v, g.DType)
		}
		g.Strings = append(g.Strings, v)
		return nil
	case bool:
		if g.DType != "bool" {
			return fmt.Errorf("%t in a tensor of %s", v, g.DType)
		}
		b := byte(0)
		if v {
			b = 1
		}
		g.Data = append(g.Data, b)
		return nil
	case nil:
		if g.DType == "f32" || g.DType == "f64" {
			return AppendNumber(g, "NaN")
		}
	}
	return fmt.Errorf("%v in a tensor of %s", v, g.DType)
}

// AppendNumber appends the number that s spells, rounded once to g's element type. Integers must fit exactly.
func AppendNumber(g *artifact.GoldenTensor, s string) error {
	le := binary.LittleEndian
	bits := map[string]int{"i8": 8, "i16": 16, "i32": 32, "i64": 64, "u8": 8, "u16": 16, "u32": 32, "u64": 64}
	switch g.DType {
	case "f32":
		v, err := strconv.ParseFloat(s, 32)
		if err != nil {
			return fmt.Errorf("%q is no number in the range of f32", s)
		}
		g.Data = le.AppendUint32(g.Data, math.Float32bits(float32(v)))
	case "f64":
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("%q is no number in the range of f64", s)
		}
		g.Data = le.AppendUint64(g.Data, math.Float64bits(v))
	case "bool":
		if s != "0" && s != "1" {
			return fmt.Errorf("%s in a tensor of bool", s)
		}
		g.Data = append(g.Data, s[0]-'0')
	case "i8", "i16", "i32", "i64":
		v, err := strconv.ParseInt(s, 10, bits[g.DType])
		if err != nil {
			return fmt.Errorf("%q is no whole number in the range of %s", s, g.DType)
		}
		g.Data = appendInt(g.Data, uint64(v), bits[g.DType])
	case "u8", "u16", "u32", "u64":
		v, err := strconv.ParseUint(s, 10, bits[g.DType])
		if err != nil {
			return fmt.Errorf("%q is no whole number in the range of %s", s, g.DType)
		}
		g.Data = appendInt(g.Data, v, bits[g.DType])
	default:
		return fmt.Errorf("number %s in a tensor of %s", s, g.DType)
	}
	return nil
}

func appendInt(b []byte, v uint64, bits int) []byte {
	for i := 0; i < bits; i += 8 {
		b = append(b, byte(v>>i))
	}
	return b
}

// Floats returns the elements of a numeric tensor as float64 (exact but for 64-bit integers above 2^53).
func Floats(g artifact.GoldenTensor) ([]float64, error) {
	n, err := Elements(g.Shape)
	if err != nil {
		return nil, err
	}
	size := map[string]int64{"f32": 4, "f64": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "u8": 1, "u16": 2, "u32": 4, "u64": 8, "bool": 1}[g.DType]
	if size == 0 {
		return nil, fmt.Errorf("tensor %q of %s holds no numbers that JSON can carry", g.Name, g.DType)
	}
	if int64(len(g.Data)) != n*size {
		return nil, fmt.Errorf("tensor %q has %d bytes, want %d", g.Name, len(g.Data), n*size)
	}
	out := make([]float64, n)
	le := binary.LittleEndian
	for i := range out {
		b := g.Data[int64(i)*size:]
		switch g.DType {
		case "f32":
			out[i] = float64(math.Float32frombits(le.Uint32(b)))
		case "f64":
			out[i] = math.Float64frombits(le.Uint64(b))
		case "i8":
			out[i] = float64(int8(b[0]))
		case "u8", "bool":
			out[i] = float64(b[0])
		case "i16":
			out[i] = float64(int16(le.Uint16(b)))
		case "u16":
			out[i] = float64(le.Uint16(b))
		case "i32":
			out[i] = float64(int32(le.Uint32(b)))
		case "u32":
			out[i] = float64(le.Uint32(b))
		case "i64":
			out[i] = float64(int64(le.Uint64(b)))
		case "u64":
			out[i] = float64(le.Uint64(b))
		}
	}
	return out, nil
}

// Encode writes a tensor with flat data. Floats are the shortest decimals that read back to the same bits; NaN and the
// infinities, which JSON lacks, become null.
func Encode(g artifact.GoldenTensor) (Tensor, error) {
	t := Tensor{Name: g.Name, Datatype: Datatype(g.DType), Shape: g.Shape}
	if t.Shape == nil {
		t.Shape = []int64{}
	}
	if t.Datatype == "" || g.Kind != "" && g.Kind != "tensor" {
		return t, fmt.Errorf("tensor %q: kind %q of %s can't be written as JSON", g.Name, g.Kind, g.DType)
	}
	if g.DType == "string" {
		s := g.Strings
		if s == nil {
			s = []string{}
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(s)
		t.Data = bytes.TrimSpace(b.Bytes())
		return t, err
	}
	v, err := Floats(g)
	if err != nil {
		return t, err
	}
	b := []byte{'['}
	for i, x := range v {
		if i > 0 {
			b = append(b, ',')
		}
		switch {
		case g.DType == "bool":
			b = strconv.AppendBool(b, x != 0)
		case g.DType == "i64":
			b = strconv.AppendInt(b, int64(binary.LittleEndian.Uint64(g.Data[8*i:])), 10)
		case g.DType == "u64":
			b = strconv.AppendUint(b, binary.LittleEndian.Uint64(g.Data[8*i:]), 10)
		case math.IsNaN(x) || math.IsInf(x, 0):
			b = append(b, "null"...)
		case g.DType == "f32":
			b = appendFloat(b, x, 32)
		default:
			b = appendFloat(b, x, 64)
		}
	}
	t.Data = append(b, ']')
	return t, nil
}

func appendFloat(b []byte, x float64, bits int) []byte {
	f := byte('f')
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		f = 'e'
	}
	return strconv.AppendFloat(b, x, f, -1, bits)
}
