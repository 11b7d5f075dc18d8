package steps

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

//go:embed text.wasm
var textModule []byte

// ErrTokenizer is behind the error of Text for a tokenizer.json with something that the step does not do.
var ErrTokenizer = errors.New("not supported in a tokenizer.json")

// TokenizerError says what Text does not do, where that stands, and what can be done about it.
type TokenizerError struct {
	Field     string // model.type, pre_tokenizer.pretokenizers[1].pattern
	Line, Col int    // of the field's value, or of the nearest one around it that is there; from 1
	Problem   string
	Way       string // out of it; empty when the problem says it
}

func (e *TokenizerError) Error() string {
	return fmt.Sprintf("%s: %s: %v", e.Field, e.Problem, ErrTokenizer)
}

// Unwrap returns ErrTokenizer.
func (e *TokenizerError) Unwrap() error { return ErrTokenizer }

const ownStep = "a step of your own can run any tokenizer before the model: see examples/steps"

func refuse(field, format string, args ...any) error {
	return &TokenizerError{Field: field, Problem: fmt.Sprintf(format, args...), Way: ownStep}
}

type tokenizerFile struct {
	Version       json.RawMessage `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	Added         json.RawMessage `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"` // ids to text: not this step's
	Model         json.RawMessage `json:"model"`
}

// textTable is what the configuration of src/text.c is made of.
type textTable struct {
	model       textModel
	normalizers []operation
	splitters   []operation
	raw, normal []addedToken // found in the text as it is, and in the normalised one
	frame       frame
	room        uint32
	cutLeft     bool
	padding     padding
}

// Tokenizer is what a tokenizer.json says. It can be used concurrently.
type Tokenizer struct{ table *textTable }

// ReadTokenizer reads a tokenizer.json of Hugging Face's tokenizers. What the step does not do is refused with a TokenizerError.
func ReadTokenizer(file []byte) (*Tokenizer, error) {
	t, err := readTokenizer(file)
	if err != nil {
		var e *TokenizerError
		if errors.As(err, &e) && e.Line == 0 {
			e.Line, e.Col = locate(file, e.Field)
		}
		return nil, err
	}
	return &Tokenizer{t}, nil
}

// TextOutputs is how many outputs the text step has at most: ids, mask and types.
const TextOutputs = 3

// Text makes the step that tokenises strings (string [N]): see src/text.c. Outputs, in their order, are of the element types given,
// i64 or i32; those that are not given are i64.
func (t *Tokenizer) Text(outputs ...string) ([]byte, error) {
	if len(outputs) > TextOutputs {
		return nil, fmt.Errorf("%d outputs, text has at most %d", len(outputs), TextOutputs)
	}
	narrow := uint32(0)
	for i, o := range outputs {
		switch o {
		case "i32":
			narrow |= 1 << i
		case "i64":
		default:
			return nil, fmt.Errorf("output %d is of type %q, text gives i64 or i32", i+1, o)
		}
	}
	if n := t.table.widest(); narrow&5 != 0 && n > math.MaxInt32 {
		return nil, fmt.Errorf("the tokenizer has the id %d, which is no i32", n)
	}
	return configure(textModule, t.table.encode(narrow))
}

// Text is the step of a tokenizer.json with outputs of i64 or of the types given.
func Text(tokenizerJSON []byte, outputs ...string) ([]byte, error) {
	t, err := ReadTokenizer(tokenizerJSON)
	if err != nil {
		return nil, err
	}
	return t.Text(outputs...)
}

// widest is the largest id or type that the file sets itself; those of the model are below maxID.
func (t *textTable) widest() uint32 {
	n := max(t.padding.id, t.padding.typ, t.frame.typ)
	for _, f := range slices.Concat(t.frame.before, t.frame.after) {
		n = max(n, f.id, f.typ)
	}
	return n
}

func readTokenizer(file []byte) (*textTable, error) {
	var j tokenizerFile
	if err := strict(file, "tokenizer.json", &j); err != nil {
		return nil, err
	}
	for field, b := range map[string]json.RawMessage{"normalizer": j.Normalizer, "pre_tokenizer": j.PreTokenizer, "post_processor": j.PostProcessor} {
		if n := bytes.Count(b, []byte("{")); n > maxParts {
			return nil, refuse(field, "%d components (at most %d are)", n, maxParts)
		}
	}
	t := &textTable{}
	for _, part := range []func() error{
		func() (err error) { t.model, err = readModel(j.Model); return err },
		func() (err error) { t.normalizers, err = readNormalizer(j.Normalizer, "normalizer", 0); return err },
		func() (err error) {
			t.splitters, err = readPreTokenizer(j.PreTokenizer, "pre_tokenizer", 0)
			return err
		},
		func() error { return t.addedTokens(j.Added) },
		func() (err error) {
			t.frame, err = readPostProcessor(j.PostProcessor, "post_processor", frame{}, 0)
			return err
		},
		func() error { return t.truncation(j.Truncation) },
		func() (err error) { t.padding, err = readPadding(j.Padding); return err },
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// strict reads b, the value of field, into v; a key that v does not have is refused.
func strict(b []byte, field string, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax) && field == "tokenizer.json":
		e := &TokenizerError{Field: field, Problem: err.Error(), Way: "save the file again with the tokenizers library"}
		e.Line, e.Col = position(b, int(syntax.Offset)-1)
		return e
	case errors.As(err, &kind) && kind.Field != "":
		return refuse(field+"."+kind.Field, "a JSON %s", kind.Value)
	}
	return refuse(field, "%v", err)
}

func absent(b json.RawMessage) bool { return len(b) == 0 || string(b) == "null" }

// kindOf is the type of a component.
func kindOf(b json.RawMessage, field string) (string, error) {
	var k struct {
		Type string `json:"type"`
	}
	if absent(b) {
		return "", refuse(field, "there is none")
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return "", refuse(field, "%v", err)
	}
	return k.Type, nil
}

// maxParts bounds the components of each kind: every one can have tables of its own.
const maxParts = 400

// maxNesting bounds how deep sequences lie in each other.
const maxNesting = 50

// members are the parts of a Sequence, whose list is called key; each is handed to do with its own field.
func members[T any](b json.RawMessage, field, key string, depth int, do func(json.RawMessage, string, int) ([]T, error)) ([]T, error) {
	var s map[string]json.RawMessage
	var list []json.RawMessage
	err := json.Unmarshal(b, &s)
	if err == nil {
		err = json.Unmarshal(s[key], &list)
	}
	if err != nil {
		return nil, refuse(field+"."+key, "not a list")
	}
	if depth > maxNesting {
		return nil, refuse(field, "sequences are nested more than %d deep", maxNesting)
	}
	var out []T
	for i, m := range list {
		parts, err := do(m, fmt.Sprintf("%s.%s[%d]", field, key, i), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, parts...)
	}
	return out, nil
}

// only refuses every key of a component but its type and those named.
func only(b json.RawMessage, field string, keys ...string) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return refuse(field, "%v", err)
	}
	delete(all, "type")
	for _, k := range keys {
		delete(all, k)
	}
	for k := range all {
		return refuse(field+"."+k, "a setting that is not known")
	}
	return nil
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
