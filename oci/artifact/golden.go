package artifact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/waybill-ml/waybill/internal/diag"
)

// GoldenSchema is the value of Golden.Schema.
const GoldenSchema = "https://github.com/waybill-ml/waybill/schema/golden/v1"

// Golden is the document of the golden layer: test vectors that a device must reproduce bit for bit.
type Golden struct {
	Schema  string         `json:"schema"`
	Vectors []GoldenVector `json:"vectors"`
}

// GoldenVector is one call: its inputs, the outputs of the compiled module (bit-exact), and, where the framework
// that trained the model was asked, its outputs with a tolerance each.
type GoldenVector struct {
	Name      string         `json:"name"`
	Inputs    []GoldenTensor `json:"inputs"`
	Expected  []GoldenTensor `json:"expected"`
	Reference []GoldenTensor `json:"reference,omitempty"`
	Tolerance []Tolerance    `json:"tolerance,omitempty"`
}

// Tolerance bounds |got-want| <= ATol + RTol*|want| for one output; label and string outputs must be equal.
type Tolerance struct {
	Output string  `json:"output"`
	RTol   float64 `json:"rtol"`
	ATol   float64 `json:"atol"`
}

// GoldenTensor is a tensor by value: Data is base64 of the little-endian bytes, or Strings for dtype string.
// Kind and Elems serve sequences, optionals and maps; empty Kind means tensor.
type GoldenTensor struct {
	Name    string         `json:"name"`
	Kind    string         `json:"kind,omitempty"`
	DType   string         `json:"dtype"`
	Shape   []int64        `json:"shape"`
	Data    Base64         `json:"data,omitempty"`
	Strings []string       `json:"strings,omitempty"`
	Elems   []GoldenTensor `json:"elems,omitempty"`
}

// Base64 is bytes written as standard base64, in the one canonical way: other text for the same bytes would give a signed
// document a second digest.
type Base64 []byte

// MarshalText implements encoding.TextMarshaler.
func (b Base64) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString(b)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Base64) UnmarshalText(t []byte) error {
	if bytes.ContainsAny(t, "\r\n") {
		return errors.New("base64 with line breaks")
	}
	d, err := base64.StdEncoding.Strict().DecodeString(string(t))
	*b = d
	return err
}

// Canonical writes v as the JSON form that all our documents use: struct order, two-space indentation, a final
// newline, no HTML escaping. Equal values give equal bytes.
func Canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, diag.Errorf("encode document: %w", err)
	}
	return b.Bytes(), nil
}
