package xgboost

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bounds of a document. A model nests about eight levels and has about twenty values per tree; numbers in lists are not
// counted, their bytes bound them.
const (
	maxDepth  = 64
	maxValues = 1 << 23
)

// value is one value of a document in JSON or UBJ. Lists of numbers and truth values are nums, without a value each.
type value struct {
	kind kind
	num  float64
	str  string
	nums []float64
	list []*value
	keys map[string]*value
}

type kind uint8

const (
	null kind = iota
	number
	text
	numbers
	list
	object
)

func (k kind) String() string {
	return [...]string{"null", "a number", "text", "a list of numbers", "a list", "an object"}[k]
}

// at is a value and the way to it, for messages.
type at struct {
	v    *value
	path string
}

func (a at) fail(format string, args ...any) error {
	p := a.path
	if p == "" {
		p = "document"
	}
	return fmt.Errorf("%s: %s", p, fmt.Sprintf(format, args...))
}

// has gives a member of an object when it is there and not null.
func (a at) has(name string) (at, bool) {
	p := name
	if a.path != "" {
		p = a.path + "." + name
	}
	if a.v == nil || a.v.kind != object || a.v.keys[name] == nil || a.v.keys[name].kind == null {
		return at{path: p}, false
	}
	return at{a.v.keys[name], p}, true
}

func (a at) member(name string, k kind) (at, error) {
	m, ok := a.has(name)
	if !ok {
		return m, m.fail("is missing")
	}
	if m.v.kind != k && (m.v.kind != list || k != numbers || len(m.v.list) > 0) { // an empty list is also one of numbers
		return m, m.fail("is %s, want %s", m.v.kind, k)
	}
	return m, nil
}

// object is member for a chain of objects.
func (a at) object(names ...string) (at, error) {
	for _, n := range names {
		m, err := a.member(n, object)
		if err != nil {
			return m, err
		}
		a = m
	}
	return a, nil
}

// int reads a whole number, which most parameters store as text.
func (a at) int(name string, lo, hi int64) (int, error) {
	m, ok := a.has(name)
	if !ok {
		return 0, m.fail("is missing")
	}
	n := m.v.num
	if m.v.kind == text {
		i, err := strconv.ParseInt(strings.TrimSpace(m.v.str), 10, 64)
		if err != nil {
			return 0, m.fail("%q is no whole number", m.v.str)
		}
		n = float64(i)
	} else if m.v.kind != number {
		return 0, m.fail("is %s, want a whole number", m.v.kind)
	}
	if n != math.Trunc(n) || !(n >= float64(lo) && n <= float64(hi)) {
		return 0, m.fail("%v is no whole number from %d to %d", n, lo, hi)
	}
	return int(n), nil
}

// intOr is int for a member that older versions do not write.
func (a at) intOr(name string, def int, lo, hi int64) (int, error) {
	if _, ok := a.has(name); !ok {
		return def, nil
	}
	return a.int(name, lo, hi)
}

// ints reads a list of whole numbers; n is its length, or -1.
func (a at) ints(name string, n int) ([]int32, error) {
	m, err := a.member(name, numbers)
	if err != nil {
		return nil, err
	}
	if n >= 0 && len(m.v.nums) != n {
		return nil, m.fail("has %d entries, want %d", len(m.v.nums), n)
	}
	out := make([]int32, len(m.v.nums))
	for i, x := range m.v.nums {
		if x != math.Trunc(x) || !(x >= math.MinInt32 && x <= math.MaxInt32) {
			return nil, m.fail("entry %d is %v, want a whole number of 32 bits", i, x)
		}
		out[i] = int32(x)
	}
	return out, nil
}

// reals reads a list of f32 numbers; n is its length, or -1.
func (a at) reals(name string, n int) ([]float32, error) {
	m, err := a.member(name, numbers)
	if err != nil {
		return nil, err
	}
	if n >= 0 && len(m.v.nums) != n {
		return nil, m.fail("has %d entries, want %d", len(m.v.nums), n)
	}
	out := make([]float32, len(m.v.nums))
	for i, x := range m.v.nums {
		out[i] = float32(x)
	}
	return out, nil
}

// maker counts values against the bound.
type maker struct{ made int }

func (m *maker) value(k kind) (*value, error) {
	if m.made++; m.made > maxValues {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	return &value{kind: k}, nil
}

// add puts an element into a list, which holds numbers only or none.
func (v *value) add(e *value) error {
	if e.kind == number {
		return v.addNumber(e.num)
	}
	if v.kind == numbers {
		return errors.New("a list mixes numbers and other values")
	}
	v.list = append(v.list, e)
	return nil
}

func (v *value) addNumber(n float64) error {
	if len(v.list) > 0 {
		return errors.New("a list mixes numbers and other values")
	}
	v.kind = numbers
	v.nums = append(v.nums, n)
	return nil
}

func (v *value) set(key string, e *value) error {
	if v.keys[key] != nil {
		return fmt.Errorf("the member %q is there twice", key)
	}
	v.keys[key] = e
	return nil
}
