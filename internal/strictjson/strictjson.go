// Package strictjson decodes JSON documents of ours the way their JSON Schemas read: closed objects, exact key case,
// no key twice, no null, every field without omitempty present, one value and nothing after it. encoding/json alone
// accepts all of these deviations, and two readers that disagree about a signed document are an attack.
package strictjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds nesting; no document of ours comes near it.
const maxDepth = 64

// Decode reads raw into the value that v points to. Unknown keys are errors.
func Decode(raw []byte, v any) error { return decode(raw, v, false) }

// DecodeOpen is Decode for documents of other people's standards, whose readers must ignore keys that they don't
// know. A key that differs from a known one in case only is still an error.
func DecodeOpen(raw []byte, v any) error { return decode(raw, v, true) }

func decode(raw []byte, v any, open bool) error {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return fmt.Errorf("strictjson: %T is not a pointer", v)
	}
	tree, err := parse(raw)
	if err != nil {
		return err
	}
	if err := check(t.Elem(), tree, "", open); err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// Check tells whether raw is one well-formed JSON value with no key twice in an object.
func Check(raw []byte) error {
	_, err := parse(raw)
	return err
}

// object keeps the keys in the order of the text.
type object struct {
	keys []string
	vals map[string]any
}

type array []any

// other is a string, number or boolean; null is nil.
type other struct{}

func parse(raw []byte) (any, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := value(d, "", 0)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more data after the JSON value")
	}
	return v, nil
}

func value(d *json.Decoder, path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: nested deeper than %d", path, maxDepth)
	}
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case nil:
		return nil, nil
	case json.Delim('{'):
		o := &object{vals: map[string]any{}}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key := k.(string)
			at := path + "." + key
			if _, dup := o.vals[key]; dup {
				return nil, fmt.Errorf("%s: key given twice", strings.TrimPrefix(at, "."))
			}
			v, err := value(d, at, depth+1)
			if err != nil {
				return nil, err
			}
			o.keys = append(o.keys, key)
			o.vals[key] = v
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		a := array{}
		for i := 0; d.More(); i++ {
			v, err := value(d, fmt.Sprintf("%s[%d]", path, i), depth+1)
			if err != nil {
				return nil, err
			}
			a = append(a, v)
		}
		_, err := d.Token()
		return a, err
	}
	return other{}, nil
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func check(t reflect.Type, v any, path string, open bool) error {
	name := strings.TrimPrefix(path, ".")
	if name == "" {
		name = "document"
	}
	if v == nil {
		return fmt.Errorf("%s: null is not allowed", name)
	}
	if p := reflect.PointerTo(t); p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return check(t.Elem(), v, path, open)
	case reflect.Slice, reflect.Array:
		a, ok := v.(array)
		if !ok {
			return fmt.Errorf("%s: not a list", name)
		}
		for i, e := range a {
			if err := check(t.Elem(), e, fmt.Sprintf("%s[%d]", path, i), open); err != nil {
				return err
			}
		}
	case reflect.Map:
		o, ok := v.(*object)
		if !ok {
			return fmt.Errorf("%s: not an object", name)
		}
		for _, k := range o.keys {
			if err := check(t.Elem(), o.vals[k], path+"."+k, open); err != nil {
				return err
			}
		}
	case reflect.Struct:
		o, ok := v.(*object)
		if !ok {
			return fmt.Errorf("%s: not an object", name)
		}
		return checkStruct(t, o, path, open)
	}
	return nil // Unmarshal checks the kind of scalars; an interface takes anything
}

type field struct {
	typ      reflect.Type
	optional bool
}

func fields(t reflect.Type, into map[string]field) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			fields(f.Type, into)
			continue
		}
		if tag == "-" || !f.IsExported() {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		into[tag] = field{f.Type, strings.Contains(opts, "omitempty") || strings.Contains(opts, "omitzero")}
	}
}

func checkStruct(t reflect.Type, o *object, path string, open bool) error {
	known := map[string]field{}
	fields(t, known)
	name := func(k string) string { return strings.TrimPrefix(path+"."+k, ".") }
	for _, k := range o.keys {
		f, ok := known[k]
		if !ok {
			for other := range known {
				if strings.EqualFold(other, k) {
					return fmt.Errorf("%s: unknown key; it is spelled %q", name(k), other)
				}
			}
			if open {
				continue
			}
			return fmt.Errorf("%s: unknown key", name(k))
		}
		if err := check(f.typ, o.vals[k], path+"."+k, open); err != nil {
			return err
		}
	}
	for i := range t.NumField() { // in declaration order, so that the message is stable
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if f, ok := known[tag]; ok && !f.optional {
			if _, ok := o.vals[tag]; !ok {
				return fmt.Errorf("%s: missing", name(tag))
			}
		}
	}
	return nil
}
