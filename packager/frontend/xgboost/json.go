package xgboost

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// jsonReader reads JSON as XGBoost writes it: with NaN and Infinity, which encoding/json refuses.
type jsonReader struct {
	maker
	b  []byte
	at int
}

func parseJSON(b []byte) (*value, error) {
	r := &jsonReader{b: b}
	v, err := r.value(0)
	if err == nil {
		if r.space(); r.at < len(b) {
			err = errors.New("something follows the document")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("JSON at byte %d: %w", r.at, err)
	}
	return v, nil
}

func (r *jsonReader) space() {
	for r.at < len(r.b) && (r.b[r.at] == ' ' || r.b[r.at] == '\n' || r.b[r.at] == '\t' || r.b[r.at] == '\r') {
		r.at++
	}
}

// next gives the next byte that is no space, without taking it; 0 at the end.
func (r *jsonReader) next() byte {
	if r.space(); r.at < len(r.b) {
		return r.b[r.at]
	}
	return 0
}

func (r *jsonReader) take(c byte) error {
	switch got := r.next(); {
	case r.at >= len(r.b):
		return errors.New("the file ends too early")
	case got != c:
		return fmt.Errorf("%q where %q belongs", got, c)
	}
	r.at++
	return nil
}

func (r *jsonReader) value(depth int) (*value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels", maxDepth)
	}
	switch c := r.next(); c {
	case '{':
		return r.object(depth)
	case '[':
		return r.list(depth)
	case '"':
		s, err := r.text()
		if err != nil {
			return nil, err
		}
		v, err := r.maker.value(text)
		if err == nil {
			v.str = s
		}
		return v, err
	default:
		if r.word("null") {
			return r.maker.value(null)
		}
		n, err := r.number()
		if err != nil {
			return nil, err
		}
		v, err := r.maker.value(number)
		if err == nil {
			v.num = n
		}
		return v, err
	}
}

func (r *jsonReader) object(depth int) (*value, error) {
	v, err := r.maker.value(object)
	if err != nil {
		return nil, err
	}
	v.keys = map[string]*value{}
	r.at++
	for r.next() != '}' {
		if len(v.keys) > 0 {
			if err := r.take(','); err != nil {
				return nil, err
			}
		}
		if r.next() != '"' {
			return nil, errors.New("a member without a name")
		}
		key, err := r.text()
		if err != nil {
			return nil, err
		}
		if err := r.take(':'); err != nil {
			return nil, err
		}
		e, err := r.value(depth + 1)
		if err == nil {
			err = v.set(key, e)
		}
		if err != nil {
			return nil, err
		}
	}
	r.at++
	return v, nil
}

func (r *jsonReader) list(depth int) (*value, error) {
	v, err := r.maker.value(list)
	if err != nil {
		return nil, err
	}
	r.at++
	for first := true; r.next() != ']'; first = false {
		if !first {
			if err := r.take(','); err != nil {
				return nil, err
			}
		}
		switch r.next() {
		case '{', '[', '"':
			var e *value
			if e, err = r.value(depth + 1); err == nil {
				err = v.add(e)
			}
		default:
			var n float64
			if n, err = r.number(); err == nil {
				err = v.addNumber(n)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	r.at++
	return v, nil
}

// text reads a string; encoding/json decodes its escapes.
func (r *jsonReader) text() (string, error) {
	start := r.at
	for i := start + 1; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '\\':
			i++
		case c == '"':
			r.at = i + 1
			var s string
			if err := json.Unmarshal(r.b[start:r.at], &s); err != nil {
				return "", fmt.Errorf("text: %w", err)
			}
			return s, nil
		}
	}
	return "", errors.New("a text without an end")
}

func (r *jsonReader) word(w string) bool {
	if len(r.b)-r.at >= len(w) && string(r.b[r.at:r.at+len(w)]) == w {
		r.at += len(w)
		return true
	}
	return false
}

// number reads a number or a truth value. Numbers with a fraction or an exponent are f32 in the library, and are rounded
// to f32 at once.
func (r *jsonReader) number() (float64, error) {
	switch {
	case r.word("true"):
		return 1, nil
	case r.word("false"):
		return 0, nil
	case r.word("NaN"):
		return math.NaN(), nil
	case r.word("Infinity"):
		return math.Inf(1), nil
	case r.word("-Infinity"):
		return math.Inf(-1), nil
	// Versions before 1.1 print statistics as C does.
	case r.word("-nan(ind)"), r.word("-nan"), r.word("nan"):
		return math.NaN(), nil
	case r.word("-inf"):
		return math.Inf(-1), nil
	case r.word("inf"):
		return math.Inf(1), nil
	}
	start, bits := r.at, 64
	for r.at < len(r.b) {
		switch c := r.b[r.at]; {
		case c >= '0' && c <= '9' || c == '-' || c == '+':
		case c == '.' || c == 'e' || c == 'E':
			bits = 32
		default:
			goto end
		}
		r.at++
	}
end:
	if start == len(r.b) {
		return 0, errors.New("the file ends too early")
	}
	if start == r.at {
		return 0, fmt.Errorf("%q where a value belongs", r.b[start])
	}
	if r.at-start > 64 {
		return 0, errors.New("a number of more than 64 characters")
	}
	x, err := strconv.ParseFloat(string(r.b[start:r.at]), bits)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // what overflows is infinite, as in the library
		return 0, fmt.Errorf("%q is no number", r.b[start:r.at])
	}
	return x, nil
}
