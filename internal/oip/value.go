package oip

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// jsonContent marks a BYTES tensor whose one element is the JSON text of a value that the protocol has no form for.
const jsonContent = `{"content_type":"application/json"}`

// EncodeAny writes any value. The protocol has tensors only: a sequence, an optional or a map becomes one BYTES element
// with its JSON text, marked by the parameter content_type, as docs/serving.md says.
func EncodeAny(g artifact.GoldenTensor) (Tensor, error) {
	if g.Kind == "" || g.Kind == "tensor" {
		return Encode(g)
	}
	text, err := valueJSON(g)
	if err != nil {
		return Tensor{}, fmt.Errorf("tensor %q: %w", g.Name, err)
	}
	t, err := Encode(artifact.GoldenTensor{Name: g.Name, Kind: "tensor", DType: "string", Shape: []int64{1}, Strings: []string{string(text)}})
	t.Parameters = json.RawMessage(jsonContent)
	return t, err
}

// Items gives the elements of a tensor's data and its first dimension, -1 for none. A value that EncodeAny wrote as JSON
// text has the elements of its list, or itself.
func Items(t Tensor) (items []json.RawMessage, rows int64, err error) {
	if err := json.Unmarshal(t.Data, &items); err != nil {
		return nil, 0, err
	}
	if string(t.Parameters) == jsonContent && len(items) == 1 {
		var text string
		if err := json.Unmarshal(items[0], &text); err != nil {
			return nil, 0, err
		}
		if len(text) == 0 || text[0] != '[' {
			return []json.RawMessage{json.RawMessage(text)}, 1, nil
		}
		items = nil
		if err := json.Unmarshal([]byte(text), &items); err != nil {
			return nil, 0, err
		}
		return items, int64(len(items)), nil
	}
	rows = -1
	if len(t.Shape) > 0 {
		rows = t.Shape[0]
	}
	return items, rows, nil
}

// valueJSON is a tensor as a nested list, a sequence as a list, an optional as its value or null, and a map as an object
// whose keys are texts as they are, or numbers in decimal.
func valueJSON(g artifact.GoldenTensor) ([]byte, error) {
	switch g.Kind {
	case "", "tensor":
		items, err := elementsJSON(g)
		if err != nil {
			return nil, err
		}
		text, rest := nest(items, g.Shape)
		if len(rest) > 0 {
			return nil, fmt.Errorf("%d values for shape %v", len(items), g.Shape)
		}
		return text, nil
	case "optional":
		if len(g.Elems) == 0 {
			return []byte("null"), nil
		}
		return valueJSON(g.Elems[0])
	case "sequence":
		b := []byte{'['}
		for i, e := range g.Elems {
			if i > 0 {
				b = append(b, ',')
			}
			v, err := valueJSON(e)
			if err != nil {
				return nil, err
			}
			b = append(b, v...)
		}
		return append(b, ']'), nil
	case "map":
		return mapJSON(g)
	}
	return nil, fmt.Errorf("kind %q can't be written as JSON", g.Kind)
}

func elementsJSON(g artifact.GoldenTensor) ([]json.RawMessage, error) {
	t, err := Encode(g)
	if err != nil {
		return nil, err
	}
	var items []json.RawMessage
	if err := json.Unmarshal(t.Data, &items); err != nil {
		return nil, err
	}
	if n, err := Elements(g.Shape); err != nil || n != int64(len(items)) {
		return nil, fmt.Errorf("%d values for shape %v", len(items), g.Shape)
	}
	return items, nil
}

// nest writes the first elements of items in the given shape and gives the rest. There are enough of them.
func nest(items []json.RawMessage, shape []int64) (text []byte, rest []json.RawMessage) {
	if len(shape) == 0 {
		return items[0], items[1:]
	}
	text = []byte{'['}
	for i := range shape[0] {
		if i > 0 {
			text = append(text, ',')
		}
		var v []byte
		v, items = nest(items, shape[1:])
		text = append(text, v...)
	}
	return append(text, ']'), items
}

// mapJSON reads a map's two elements, keys and values; the values are one tensor with an element for each key, or one
// value each.
func mapJSON(g artifact.GoldenTensor) ([]byte, error) {
	if len(g.Elems) == 0 {
		return nil, fmt.Errorf("a map without keys")
	}
	keys, err := elementsJSON(g.Elems[0])
	if err != nil {
		return nil, err
	}
	var vals [][]byte
	if len(g.Elems) == 2 && len(g.Elems[1].Shape) == 1 && (g.Elems[1].Kind == "" || g.Elems[1].Kind == "tensor") {
		items, err := elementsJSON(g.Elems[1])
		if err != nil {
			return nil, err
		}
		for _, v := range items {
			vals = append(vals, v)
		}
	} else {
		for _, e := range g.Elems[1:] {
			v, err := valueJSON(e)
			if err != nil {
				return nil, err
			}
			vals = append(vals, v)
		}
	}
	if len(vals) != len(keys) {
		return nil, fmt.Errorf("a map of %d keys has %d values", len(keys), len(vals))
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		if k[0] == '"' {
			b.Write(k)
		} else {
			fmt.Fprintf(&b, "%q", k)
		}
		b.WriteByte(':')
		b.Write(vals[i])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
