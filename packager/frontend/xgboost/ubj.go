package xgboost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ubjReader reads Universal Binary JSON (draft 12) as far as XGBoost writes it. Every count is checked against the
// bytes that are left before memory is spent.
type ubjReader struct {
	maker
	b  []byte
	at int
}

var errShort = errors.New("the file ends too early")

func parseUBJ(b []byte) (*value, error) {
	r := &ubjReader{b: b}
	v, err := r.value(0)
	if err == nil && r.at < len(b) {
		err = errors.New("something follows the document")
	}
	if err != nil {
		return nil, fmt.Errorf("UBJ at byte %d: %w", r.at, err)
	}
	return v, nil
}

func (r *ubjReader) bytes(n int64) ([]byte, error) {
	if n < 0 || n > int64(len(r.b)-r.at) {
		return nil, errShort
	}
	s := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return s, nil
}

// marker takes the next byte that is no padding.
func (r *ubjReader) marker() (byte, error) {
	for r.at < len(r.b) {
		c := r.b[r.at]
		r.at++
		if c != 'N' {
			return c, nil
		}
	}
	return 0, errShort
}

func (r *ubjReader) peek() byte {
	if r.at < len(r.b) {
		return r.b[r.at]
	}
	return 0
}

// width is the size of a number type's payload, 0 for what is no number.
func width(t byte) int64 {
	switch t {
	case 'i', 'U':
		return 1
	case 'I':
		return 2
	case 'l', 'd':
		return 4
	case 'L', 'D':
		return 8
	}
	return 0
}

func decode(t byte, b []byte) float64 {
	be := binary.BigEndian
	switch t {
	case 'i':
		return float64(int8(b[0]))
	case 'U':
		return float64(b[0])
	case 'I':
		return float64(int16(be.Uint16(b)))
	case 'l':
		return float64(int32(be.Uint32(b)))
	case 'L':
		return float64(int64(be.Uint64(b)))
	case 'd':
		return float64(math.Float32frombits(be.Uint32(b)))
	}
	return math.Float64frombits(be.Uint64(b))
}

// count reads a length.
func (r *ubjReader) count() (int64, error) {
	t, err := r.marker()
	if err != nil {
		return 0, err
	}
	if t == 'd' || t == 'D' || width(t) == 0 {
		return 0, fmt.Errorf("a length of type %q", t)
	}
	b, err := r.bytes(width(t))
	if err != nil {
		return 0, err
	}
	n := decode(t, b)
	if n < 0 || n > float64(len(r.b)) {
		return 0, fmt.Errorf("the length %v in a file of %d bytes", n, len(r.b))
	}
	return int64(n), nil
}

func (r *ubjReader) value(depth int) (*value, error) {
	t, err := r.marker()
	if err != nil {
		return nil, err
	}
	return r.typed(t, depth)
}

func (r *ubjReader) typed(t byte, depth int) (*value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels", maxDepth)
	}
	if w := width(t); w > 0 {
		b, err := r.bytes(w)
		if err != nil {
			return nil, err
		}
		v, err := r.maker.value(number)
		if err == nil {
			v.num = decode(t, b)
		}
		return v, err
	}
	switch t {
	case 'Z':
		return r.maker.value(null)
	case 'T', 'F':
		v, err := r.maker.value(number)
		if err == nil && t == 'T' {
			v.num = 1
		}
		return v, err
	case 'S', 'C':
		n := int64(1)
		if t == 'S' {
			var err error
			if n, err = r.count(); err != nil {
				return nil, err
			}
		}
		b, err := r.bytes(n)
		if err != nil {
			return nil, err
		}
		v, err := r.maker.value(text)
		if err == nil {
			v.str = string(b)
		}
		return v, err
	case '[':
		return r.list(depth)
	case '{':
		return r.object(depth)
	}
	return nil, fmt.Errorf("a value of type %q", t)
}

func (r *ubjReader) list(depth int) (*value, error) {
	v, err := r.maker.value(list)
	if err != nil {
		return nil, err
	}
	of := byte(0)
	if r.peek() == '$' {
		r.at++
		if of, err = r.marker(); err != nil {
			return nil, err
		}
		if width(of) == 0 || r.peek() != '#' {
			return nil, fmt.Errorf("a list of the type %q without a count or size", of)
		}
	}
	if r.peek() != '#' {
		for r.peek() != ']' {
			e, err := r.value(depth + 1)
			if err == nil {
				err = v.add(e)
			}
			if err != nil {
				return nil, err
			}
		}
		r.at++
		return v, nil
	}
	r.at++
	n, err := r.count()
	if err != nil {
		return nil, err
	}
	if of != 0 {
		w := width(of)
		b, err := r.bytes(n * w)
		if err != nil {
			return nil, err
		}
		v.kind, v.nums = numbers, make([]float64, n)
		for i := range v.nums {
			v.nums[i] = decode(of, b[int64(i)*w:])
		}
		return v, nil
	}
	if n > int64(len(r.b)-r.at) {
		return nil, errShort
	}
	for range n {
		e, err := r.value(depth + 1)
		if err == nil {
			err = v.add(e)
		}
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (r *ubjReader) object(depth int) (*value, error) {
	v, err := r.maker.value(object)
	if err != nil {
		return nil, err
	}
	v.keys = map[string]*value{}
	n := int64(-1)
	if r.peek() == '$' {
		return nil, errors.New("an object with a type")
	}
	if r.peek() == '#' {
		r.at++
		if n, err = r.count(); err != nil {
			return nil, err
		}
	}
	for i := int64(0); i != n; i++ {
		for r.peek() == 'N' {
			r.at++
		}
		if n < 0 && r.peek() == '}' {
			r.at++
			break
		}
		size, err := r.count()
		if err != nil {
			return nil, err
		}
		key, err := r.bytes(size)
		if err != nil {
			return nil, err
		}
		e, err := r.value(depth + 1)
		if err == nil {
			err = v.set(string(key), e)
		}
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}
